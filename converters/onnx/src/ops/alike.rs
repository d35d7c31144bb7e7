//! Operators whose first result has the element type of an input, which follows where a model states no types.
//!
//! It matters for integers alone: programs have one type for all of these, and what is added to bytes wraps as bytes do.

/// The operators, each with the position of the input. Source: the type constraints in ONNX's definitions of operators.
pub(super) static ALIKE: &[(&str, usize)] = &[
    ("Abs", 0),
    ("Add", 0),
    ("BitShift", 0),
    ("BitwiseAnd", 0),
    ("BitwiseNot", 0),
    ("BitwiseOr", 0),
    ("BitwiseXor", 0),
    ("CenterCropPad", 0),
    ("Clip", 0),
    ("Col2Im", 0),
    ("Compress", 0),
    ("Concat", 0),
    ("CumProd", 0),
    ("CumSum", 0),
    ("DepthToSpace", 0),
    ("Div", 0),
    ("Einsum", 0),
    ("Expand", 0),
    ("EyeLike", 0),
    ("Flatten", 0),
    ("Gather", 0),
    ("GatherElements", 0),
    ("GatherND", 0),
    ("Gemm", 0),
    ("GridSample", 0),
    ("Identity", 0),
    // The first variable.
    ("Loop", 2),
    ("MatMul", 0),
    ("Max", 0),
    ("MaxPool", 0),
    ("MaxUnpool", 0),
    ("Min", 0),
    ("Mod", 0),
    ("Mul", 0),
    ("Neg", 0),
    ("OneHot", 2),
    ("PRelu", 0),
    ("Pad", 0),
    ("Pow", 0),
    ("Range", 0),
    ("ReduceL1", 0),
    ("ReduceL2", 0),
    ("ReduceMax", 0),
    ("ReduceMean", 0),
    ("ReduceMin", 0),
    ("ReduceProd", 0),
    ("ReduceSum", 0),
    ("ReduceSumSquare", 0),
    ("Relu", 0),
    ("Reshape", 0),
    ("Resize", 0),
    ("ReverseSequence", 0),
    ("Scatter", 0),
    ("ScatterElements", 0),
    ("ScatterND", 0),
    ("Shrink", 0),
    ("Sign", 0),
    ("Slice", 0),
    ("SpaceToDepth", 0),
    ("Split", 0),
    ("Squeeze", 0),
    ("Sub", 0),
    ("Sum", 0),
    ("TensorScatter", 0),
    ("Tile", 0),
    ("TopK", 0),
    ("Transpose", 0),
    ("Trilu", 0),
    ("Unique", 0),
    ("Unsqueeze", 0),
    ("Upsample", 0),
    ("Where", 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_row_and_stands_once() {
        for (op, _) in ALIKE {
            assert!(crate::table().rows().any(|r| r.domain.is_empty() && r.op == *op), "{op}");
        }
        assert!(ALIKE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
