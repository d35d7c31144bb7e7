//! Runs small ONNX models as they are lowered.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use super::onnx::{Onnx, tensor};
use mlconv_mil::{
    diagnostic::{Diagnostic, Severity},
    schema::Opset,
    verify::verify,
};
use mlconv_proto::onnx::{AttributeProto, attribute_proto::AttributeType, tensor_proto::DataType};
use mlconv_runner::{Options, Reference, Session, States};
use mlconv_source::{ModelFiles, Request, lower};
use mlconv_tensor::{Bytes, Tensor};
use std::path::Path;

pub(crate) const F32: DataType = DataType::Float;
pub(crate) const U8: DataType = DataType::Uint8;
pub(crate) const I64: DataType = DataType::Int64;

/// The outputs of a model, or what stands in its way, and all diagnostics.
pub(crate) fn lowered(model: &Onnx, inputs: &[Tensor]) -> (Result<Vec<Tensor>, String>, Vec<Diagnostic>) {
    lowered_for(Opset::default(), model, inputs, |_| {})
}

/// [`lowered`] for one op set; `look` sees the names of all ops.
pub(crate) fn lowered_for(
    opset: Opset,
    model: &Onnx,
    inputs: &[Tensor],
    look: impl FnOnce(&[String]),
) -> (Result<Vec<Tensor>, String>, Vec<Diagnostic>) {
    let files = ModelFiles::beside(Path::new("."));
    let graph = match mlconv_onnx::read(Bytes::from(model.bytes()), &files) {
        Ok(graph) => graph,
        Err(e) => return (Err(e.to_string()), vec![]),
    };
    let lowering = lower(&graph, mlconv_onnx::table(), &Request { opset: Some(opset), ..Request::default() });
    if let Some(e) = lowering.diagnostics.iter().find(|d| d.severity == Severity::Error) {
        return (Err(e.title.clone()), lowering.diagnostics);
    }
    let module = match verify(lowering.module) {
        Ok(module) => module,
        Err(bad) => return (Err(format!("{bad:?}")), lowering.diagnostics),
    };
    let main = &module.functions[0];
    look(&main.all_ops().iter().map(|id| main.op_data(*id).op.name().to_owned()).collect::<Vec<_>>());
    let session = Session::new(&module, &module.functions[0], &Reference, Options::default());
    let given: Vec<Option<Tensor>> = inputs.iter().cloned().map(Some).collect();
    (session.run(&given, &mut States::new()).map_err(|e| e.to_string()), lowering.diagnostics)
}

/// The first output of a model.
pub(crate) fn run(model: &Onnx, inputs: &[Tensor]) -> Tensor {
    lowered(model, inputs).0.unwrap_or_else(|e| panic!("{e}")).swap_remove(0)
}

pub(crate) fn refused(model: &Onnx) -> String {
    lowered(model, &[]).0.expect_err("it is refused")
}

pub(crate) fn ints(values: &[i32]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}

pub(crate) fn floats(values: &[f32]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}

pub(crate) fn int64(name: &str, dims: &[i64], values: &[i64]) -> mlconv_proto::onnx::TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, I64, dims, Bytes::from(raw))
}

pub(crate) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::String as i32),
        s: Some(Bytes::from(value.to_owned())),
        ..AttributeProto::default()
    }
}

/// Adds attributes to the last node.
pub(crate) fn with(mut model: Onnx, attributes: Vec<AttributeProto>) -> Onnx {
    let node = model.graph().node.last_mut().expect("a node");
    node.attribute.extend(attributes);
    model
}

pub(crate) fn constant(mut model: Onnx, t: mlconv_proto::onnx::TensorProto) -> Onnx {
    model.graph().initializer.push(t);
    model
}

/// Integers as an attribute.
pub(crate) fn list(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Ints as i32),
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}
