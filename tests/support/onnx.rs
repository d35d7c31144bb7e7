//! Small ONNX models, written field by field.

use mlconv_proto::{
    Message,
    onnx::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
        TypeProto, ValueInfoProto,
        attribute_proto::AttributeType,
        tensor_proto::DataType,
        tensor_shape_proto::{Dimension, dimension},
        type_proto,
    },
};
use mlconv_tensor::Bytes;

/// A model under construction; [`bytes`](Self::bytes) is the file.
#[derive(Clone, Default)]
pub(crate) struct Onnx(pub(crate) ModelProto);

impl Onnx {
    /// A model of operator set 17 without nodes.
    pub(crate) fn new() -> Self {
        Self(ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
            graph: Some(GraphProto { name: Some("g".to_owned()), ..GraphProto::default() }),
            ..ModelProto::default()
        })
    }

    pub(crate) fn graph(&mut self) -> &mut GraphProto {
        self.0.graph.as_mut().expect("made with one")
    }

    pub(crate) fn input(mut self, name: &str, dtype: DataType, dims: &[i64]) -> Self {
        self.graph().input.push(value(name, dtype, dims));
        self
    }

    pub(crate) fn output(mut self, name: &str, dtype: DataType, dims: &[i64]) -> Self {
        self.graph().output.push(value(name, dtype, dims));
        self
    }

    pub(crate) fn node(mut self, op: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        self.graph().node.push(NodeProto {
            op_type: Some(op.to_owned()),
            name: Some(format!("{}_{}", op.to_lowercase(), outputs.first().unwrap_or(&""))),
            input: owned(inputs),
            output: owned(outputs),
            ..NodeProto::default()
        });
        self
    }

    pub(crate) fn weight(mut self, name: &str, dims: &[i64], data: &[f32]) -> Self {
        let raw: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.graph().initializer.push(tensor(name, DataType::Float, dims, Bytes::from(raw)));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }
}

pub(crate) fn tensor(name: &str, dtype: DataType, dims: &[i64], raw: Bytes) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(dtype as i32),
        dims: dims.to_vec(),
        raw_data: Some(raw),
        ..TensorProto::default()
    }
}

pub(crate) fn value(name: &str, dtype: DataType, dims: &[i64]) -> ValueInfoProto {
    // Sizes below 0 are open.
    let size = |n: &i64| (*n >= 0).then_some(dimension::Value::DimValue(*n));
    let dim = |n: &i64| Dimension { value: size(n), ..Dimension::default() };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(dtype as i32), shape: Some(shape) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(ty), ..ValueInfoProto::default() }
}

/// An attribute of an integer.
pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    }
}

/// An attribute of integers.
pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Ints as i32),
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}

/// Makes a size of an input or output an open one.
pub(crate) fn open(value: &mut ValueInfoProto, axis: usize, name: &str) {
    let Some(type_proto::Value::TensorType(t)) = value.r#type.as_mut().and_then(|t| t.value.as_mut()) else { return };
    if let Some(dim) = t.shape.as_mut().and_then(|s| s.dim.get_mut(axis)) {
        dim.value = Some(dimension::Value::DimParam(name.to_owned()));
    }
}

/// Numbers from -0.4 to 0.6 that look random.
pub(crate) fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 1009.0 - 0.4).collect()
}

/// A convolution of 2304 weights, called `w1`, and a product of 2560, called `w2`.
pub(crate) fn two_weights() -> Onnx {
    Onnx::new()
        .input("x", DataType::Float, &[1, 8, 4, 4])
        .weight("w1", &[32, 8, 3, 3], &numbers(2304))
        .weight("w2", &[32, 80], &numbers(2560))
        .node("Conv", &["x", "w1"], &["a"])
        .node("GlobalAveragePool", &["a"], &["b"])
        .node("Flatten", &["b"], &["c"])
        .node("MatMul", &["c", "w2"], &["y"])
        .output("y", DataType::Float, &[1, 80])
}
