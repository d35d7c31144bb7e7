//! Operands of operations against each other, and forms that Core ML fails on.

use super::{
    Artifact, Findings,
    view::{Body, Tensor, show, tensor},
};
use mlconv_proto::coreml::mil;
use mlconv_tensor::DType;

/// Operations on `x` and `y` of one type.
const BINARY: &[&str] = &[
    "add",
    "sub",
    "mul",
    "real_div",
    "floor_div",
    "mod",
    "pow",
    "maximum",
    "minimum",
    "equal",
    "not_equal",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
    "matmul",
];

/// Scalars that go with `x`.
const SCALARS: [&str; 3] = ["alpha", "beta", "epsilon"];

/// Parameters that name a type.
const TYPE_NAMES: [&str; 2] = ["dtype", "output_dtype"];

pub(super) fn agree(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        for op in body.ops.iter().copied() {
            let x = body.operand(op, "x");
            let shown = |param: &str| show(body.operands(op, param).first().copied());
            if BINARY.contains(&op.r#type.as_str()) {
                let y = body.operand(op, "y");
                // From CoreML7 on, one side of a product of matrices may be a dequantised or wider weight.
                let loose = op.r#type == "matmul" && body.since(8);
                if let (Some(x), Some(y)) = (&x, &y)
                    && x.dtype != y.dtype
                    && !loose
                {
                    out.add(body.place(op), format!("`x` is {}, `y` is {}", shown("x"), shown("y")));
                }
            }
            for param in SCALARS {
                let (Some(x), Some(s)) = (&x, body.operand(op, param)) else { continue };
                let both_floats = || x.dtype.zip(s.dtype).is_some_and(|(x, s)| x.is_float() && s.is_float());
                if x.dtype != s.dtype && !(body.since(8) && both_floats()) {
                    out.add(body.place(op), format!("`x` is {}, `{param}` is {}", shown("x"), shown(param)));
                }
            }
            for param in TYPE_NAMES {
                if body.operand(op, param).is_some_and(|t| t.dtype != Some(DType::Str)) {
                    out.add(body.place(op), format!("`{param}` is {}", shown(param)));
                }
            }
        }
    }
}

struct Form {
    ops: &'static [&'static str],
    params: &'static [&'static str],
    fails: fn(&Tensor) -> bool,
}

fn is_scalar(t: &Tensor) -> bool {
    t.dims.is_empty()
}

/// Forms that fail. Sources: issues of coremltools, and the guards of other programs that write ML programs.
const FORMS: &[Form] = &[
    Form { ops: &["matmul"], params: &["x", "y"], fails: |t| t.dims.len() < 2 },
    Form { ops: &["matmul", "linear"], params: &["x", "y", "weight"], fails: |t| t.dtype == Some(DType::I32) },
    Form {
        ops: &["topk", "transpose", "slice_by_index", "slice_by_size", "tile", "reduce_argmax", "reduce_argmin"],
        params: &["x"],
        fails: is_scalar,
    },
    Form {
        ops: &["gather", "gather_along_axis", "gather_nd"],
        params: &["x"],
        fails: |t| t.dtype == Some(DType::Bool),
    },
    Form {
        ops: &["scatter", "scatter_along_axis", "scatter_nd"],
        params: &["data", "updates"],
        fails: |t| t.dtype == Some(DType::Bool),
    },
    Form { ops: &["slice_update"], params: &["update"], fails: is_scalar },
    Form { ops: &["batch_norm"], params: &["x"], fails: |t| t.dims.len() > 4 },
];

pub(super) fn forms(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        for op in body.ops.iter().copied() {
            for form in FORMS.iter().filter(|f| f.ops.contains(&op.r#type.as_str())) {
                for param in form.params {
                    failing(body, op, param, form.fails, out);
                }
            }
        }
    }
}

fn failing<'a>(body: &Body<'a>, op: &'a mil::Operation, param: &str, fails: fn(&Tensor) -> bool, out: &mut Findings) {
    for ty in body.operands(op, param) {
        if tensor(ty).is_some_and(|t| fails(&t)) {
            out.add(body.place(op), format!("`{param}` is {}", show(Some(ty))));
        }
    }
}
