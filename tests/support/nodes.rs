//! ONNX models of one node, with arguments of any kind.

use super::{
    damage::Numbers,
    onnx::{Onnx, tensor, value},
};
use mlconv_proto::onnx::{
    AttributeProto, NodeProto, OperatorSetIdProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType, tensor_shape_proto::dimension::Value::DimParam, type_proto,
};
use mlconv_source::Row;
use mlconv_tensor::Bytes;

/// Names of attributes, and of what kind they are.
const ATTRIBUTES: [(&str, char); 101] = [
    ("activation", 's'),
    ("allowzero", 'i'),
    ("alpha", 'f'),
    ("antialias", 'i'),
    ("auto_pad", 's'),
    ("axes", 'I'),
    ("axis", 'i'),
    ("batch_axis", 'i'),
    ("batch_dims", 'i'),
    ("beta", 'f'),
    ("bias", 'f'),
    ("bits", 'i'),
    ("block_size", 'i'),
    ("blocksize", 'i'),
    ("body", 'g'),
    ("ceil_mode", 'i'),
    ("center_point_box", 'i'),
    ("channels_last", 'i'),
    ("coordinate_transformation_mode", 's'),
    ("count_include_pad", 'i'),
    ("cubic_coeff_a", 'f'),
    ("detect_negative", 'i'),
    ("detect_positive", 'i'),
    ("dilations", 'I'),
    ("direction", 's'),
    ("do_rotary", 'i'),
    ("dtype", 'i'),
    ("else_branch", 'g'),
    ("epsilon", 'f'),
    ("equation", 's'),
    ("exclude_outside", 'i'),
    ("exclusive", 'i'),
    ("extrapolation_value", 'f'),
    ("fmod", 'i'),
    ("gamma", 'f'),
    ("group", 'i'),
    ("groups", 'i'),
    ("hidden_size", 'i'),
    ("high", 'f'),
    ("interleaved", 'i'),
    ("is_causal", 'i'),
    ("K", 'i'),
    ("k", 'i'),
    ("keepdims", 'i'),
    ("kernel_shape", 'I'),
    ("kv_num_heads", 'i'),
    ("lambd", 'f'),
    ("largest", 'i'),
    ("layout", 'i'),
    ("linear_before_reset", 'i'),
    ("local_window_size", 'i'),
    ("low", 'f'),
    ("max", 'f'),
    ("max_gram_length", 'i'),
    ("max_skip_count", 'i'),
    ("mean", 'f'),
    ("min", 'f'),
    ("mode", 's'),
    ("N", 'i'),
    ("nearest_mode", 's'),
    ("ngram_counts", 'I'),
    ("ngram_indexes", 'I'),
    ("noop_with_empty_axes", 'i'),
    ("num_groups", 'i'),
    ("num_heads", 'i'),
    ("num_outputs", 'i'),
    ("num_scan_inputs", 'i'),
    ("offset_group", 'i'),
    ("onesided", 'i'),
    ("opset", 'i'),
    ("output_padding", 'I'),
    ("output_shape", 'I'),
    ("p", 'i'),
    ("pads", 'I'),
    ("perm", 'I'),
    ("pool_int64s", 'I'),
    ("q_num_heads", 'i'),
    ("qkv_hidden_sizes", 'I'),
    ("reduction", 's'),
    ("reverse", 'i'),
    ("rotary_embedding_dim", 'i'),
    ("sampling_ratio", 'i'),
    ("scale", 'f'),
    ("seed", 'i'),
    ("select_last_index", 'i'),
    ("size", 'i'),
    ("sorted", 'i'),
    ("spatial_scale", 'f'),
    ("split", 'I'),
    ("starts", 'I'),
    ("stash_type", 'i'),
    ("storage_order", 'i'),
    ("strides", 'I'),
    ("then_branch", 'g'),
    ("time_axis", 'i'),
    ("to", 'i'),
    ("transA", 'i'),
    ("transBatchA", 'i'),
    ("unidirectional", 'i'),
    ("upper", 'i'),
    ("value", 't'),
];

const WORDS: [&str; 20] = [
    "NOTSET",
    "SAME_UPPER",
    "SAME_LOWER",
    "VALID",
    "constant",
    "reflect",
    "edge",
    "wrap",
    "linear",
    "cubic",
    "nearest",
    "half_pixel",
    "align_corners",
    "bidirectional",
    "LeakyRelu",
    "ij,jk->ik",
    "i..j->",
    "LEFT",
    "RIGHT",
    "TFIDF",
];

const SHAPES: [&[i64]; 14] = [
    &[],
    &[1],
    &[2],
    &[3],
    &[0],
    &[4],
    &[2, 3],
    &[3, 2],
    &[1, 4, 4],
    &[2, 0, 3],
    &[1, 4, 5, 5],
    &[2, 4, 3, 3],
    &[1, 2, 3, 4, 5],
    &[1, 1, 2, 1, 2, 1],
];

const TYPES: [DataType; 8] = [
    DataType::Float,
    DataType::Int64,
    DataType::Float16,
    DataType::Int32,
    DataType::Bool,
    DataType::Uint8,
    DataType::Int8,
    DataType::Double,
];

fn width(dtype: DataType) -> usize {
    match dtype {
        DataType::Int64 | DataType::Double => 8,
        DataType::Float | DataType::Int32 => 4,
        DataType::Float16 => 2,
        _ => 1,
    }
}

/// A model of one node of the row's operator.
pub(crate) fn model(row: &Row, n: &mut Numbers) -> Vec<u8> {
    let (first, last) = (*row.versions.start(), (*row.versions.end()).min(mlconv_onnx::LATEST));
    let version = first + n.below((last - first + 1).max(1) as usize) as i64;
    let mut m = Onnx::new();
    m.0.opset_import = vec![OperatorSetIdProto { domain: Some(row.domain.to_owned()), version: Some(version.max(1)) }];
    let main = TYPES[n.below(2) * n.below(TYPES.len())];
    let shape = SHAPES[n.below(SHAPES.len())];
    let mut inputs = vec![];
    for i in 0..n.below(7) {
        let name = format!("i{i}");
        // Operands that go together more often than not.
        let dtype = if n.below(4) > 0 { main } else { TYPES[n.below(TYPES.len())] };
        let dims = if n.below(3) > 0 { shape } else { SHAPES[n.below(SHAPES.len())] };
        match n.below(8) {
            0 => {
                inputs.push(String::new());
                continue;
            }
            1..=3 => m.graph().initializer.push(weights(&name, n)),
            4 => {
                let small = dims.iter().product::<i64>().min(256) as usize;
                let dims = if dims.iter().product::<i64>() as usize == small { dims } else { &[1] };
                let count = dims.iter().product::<i64>() as usize;
                let raw =
                    (0..count * width(dtype)).map(|_| if dtype == DataType::Bool { 1 } else { n.below(64) as u8 });
                let raw: Vec<u8> = raw.collect();
                m.graph().initializer.push(tensor(&name, dtype, dims, Bytes::from(raw)));
            }
            _ => {
                let mut v = value(&name, dtype, dims);
                if n.below(4) == 0 {
                    open(&mut v, n);
                }
                m.graph().input.push(v);
            }
        }
        inputs.push(name);
    }
    let mut attribute: Vec<AttributeProto> = vec![];
    for _ in 0..n.below(5) {
        let (name, kind) = ATTRIBUTES[n.below(ATTRIBUTES.len())];
        if !attribute.iter().any(|a| a.name.as_deref() == Some(name)) {
            attribute.push(argument(name, kind, n));
        }
    }
    let output: Vec<String> = (0..=n.below(3)).map(|i| format!("o{i}")).collect();
    for o in &output {
        let mut v = value(o, main, &[]);
        v.r#type = None;
        m.graph().output.push(v);
    }
    m.graph().node.push(NodeProto {
        op_type: Some(row.op.to_owned()),
        domain: Some(row.domain.to_owned()),
        input: inputs,
        output,
        attribute,
        ..NodeProto::default()
    });
    m.bytes()
}

/// A vector of integers, such as shapes and axes are.
fn weights(name: &str, n: &mut Numbers) -> mlconv_proto::onnx::TensorProto {
    let count = n.below(6);
    let ints: Vec<i64> = (0..count).map(|_| integer(n)).collect();
    let raw: Vec<u8> = ints.iter().flat_map(|i| i.to_le_bytes()).collect();
    if count == 1 && n.below(2) == 0 {
        return tensor(name, DataType::Int64, &[], Bytes::from(raw));
    }
    tensor(name, DataType::Int64, &[count as i64], Bytes::from(raw))
}

fn integer(n: &mut Numbers) -> i64 {
    match n.below(12) {
        0 => [i64::MIN, i64::MAX, 1 << 31, -(1 << 31), 1 << 40, 1 << 20][n.below(6)],
        _ => n.below(9) as i64 - 3,
    }
}

/// Makes a dimension a symbol.
fn open(v: &mut ValueInfoProto, n: &mut Numbers) {
    let Some(type_proto::Value::TensorType(t)) = v.r#type.as_mut().and_then(|t| t.value.as_mut()) else { return };
    let Some(shape) = &mut t.shape else { return };
    let rank = shape.dim.len();
    if let Some(d) = shape.dim.get_mut(n.below(rank)) {
        d.value = Some(DimParam(["s", "t"][n.below(2)].to_owned()));
    }
}

fn argument(name: &str, kind: char, n: &mut Numbers) -> AttributeProto {
    let mut a = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let kind = if n.below(20) == 0 { ['i', 'f', 's', 'I', 't'][n.below(5)] } else { kind };
    let ty = match kind {
        'i' => {
            a.i = Some(integer(n));
            AttributeType::Int
        }
        'f' => {
            a.f = Some([0.0, 1.0, -0.5, 1e-5, 1e30, f32::NAN, f32::INFINITY][n.below(7)]);
            AttributeType::Float
        }
        's' => {
            a.s = Some(Bytes::from_static(WORDS[n.below(WORDS.len())].as_bytes()));
            AttributeType::String
        }
        'I' => {
            a.ints = (0..n.below(7)).map(|_| integer(n)).collect();
            AttributeType::Ints
        }
        't' => {
            a.t = Some(weights("t", n));
            AttributeType::Tensor
        }
        _ => {
            let mut inner = Onnx::new().node("Identity", &["i0"], &["r"]);
            if n.below(2) == 0 {
                inner.graph().input.push(value("q", DataType::Int64, &[]));
            }
            inner = inner.output("r", DataType::Float, &[]);
            a.g = inner.0.graph;
            AttributeType::Graph
        }
    };
    a.r#type = Some(ty as i32);
    a
}
