//! Ways into a model, to change it.

use super::good::{Good, name, text};
use mlconv_proto::coreml::{
    self as pb, ArrayFeatureType, FeatureDescription, ImageFeatureType, ModelDescription, feature_type,
    mil::{
        self, NamedValueType, Operation, TensorValue, Value, ValueType,
        argument::{Binding, binding},
        tensor_value as tv, value,
    },
    model,
};

pub(super) fn program(g: &mut Good) -> &mut mil::Program {
    match &mut g.model.r#type {
        Some(model::Type::MlProgram(program)) => program,
        _ => panic!("good models are programs"),
    }
}

/// The first function.
pub(super) fn main(g: &mut Good) -> &mut mil::Function {
    program(g).functions.values_mut().next().expect("a function")
}

pub(super) fn block(g: &mut Good) -> &mut mil::Block {
    main(g).block_specializations.values_mut().next().expect("a body")
}

/// The first block of the first operation.
pub(super) fn inner(g: &mut Good) -> &mut mil::Block {
    &mut block(g).operations[0].blocks[0]
}

pub(super) fn description(g: &mut Good) -> &mut ModelDescription {
    g.model.description.as_mut().expect("a description")
}

/// The operation whose `name` is `of`.
pub(super) fn operation<'g>(g: &'g mut Good, of: &str) -> &'g mut Operation {
    let wanted = text(&format!("{of}_op"));
    block(g).operations.iter_mut().find(|o| o.attributes["name"] == wanted).expect("an operation")
}

pub(super) fn input<'g>(g: &'g mut Good, of: &str) -> &'g mut NamedValueType {
    main(g).inputs.iter_mut().find(|v| v.name == of).expect("an input")
}

pub(super) fn retype(g: &mut Good, of: &str, ty: ValueType) {
    operation(g, of).outputs[0].r#type = Some(ty);
}

pub(super) fn retype_const(g: &mut Good, of: &str, ty: ValueType) {
    operation(g, of).attributes.get_mut("val").expect("a constant").r#type = Some(ty.clone());
    retype(g, of, ty);
}

pub(super) fn literal<'g>(g: &'g mut Good, of: &str) -> &'g mut tv::Value {
    match &mut operation(g, of).attributes.get_mut("val").expect("a constant").value {
        Some(value::Value::ImmediateValue(value::ImmediateValue {
            value: Some(value::immediate_value::Value::Tensor(TensorValue { value: Some(v) })),
        })) => v,
        _ => panic!("`{of}` is a literal"),
    }
}

pub(super) fn blob_of<'g>(g: &'g mut Good, of: &str) -> &'g mut value::BlobFileValue {
    match &mut operation(g, of).attributes.get_mut("val").expect("a constant").value {
        Some(value::Value::BlobFileValue(blob)) => blob,
        _ => panic!("`{of}` is a blob"),
    }
}

pub(super) fn bind(op: &mut Operation, param: &str, to: &str) {
    let argument = Binding { binding: Some(name(to)) };
    op.inputs.insert(param.into(), mil::Argument { arguments: vec![argument] });
}

pub(super) fn bind_value(op: &mut Operation, param: &str, to: Value) {
    let argument = Binding { binding: Some(binding::Binding::Value(to)) };
    op.inputs.insert(param.into(), mil::Argument { arguments: vec![argument] });
}

/// Renames a value where it is computed and read.
pub(super) fn rename(g: &mut Good, from: &str, to: &str) {
    for op in &mut block(g).operations {
        for v in op.outputs.iter_mut().filter(|v| v.name == from) {
            v.name = to.into();
        }
        for b in op.inputs.values_mut().flat_map(|a| &mut a.arguments) {
            if b.binding == Some(name(from)) {
                b.binding = Some(name(to));
            }
        }
    }
}

pub(super) fn feature<'g>(g: &'g mut Good, of: &str) -> &'g mut FeatureDescription {
    let d = description(g);
    let mut all = d.input.iter_mut().chain(&mut d.output).chain(&mut d.state);
    all.find(|f| f.name == of).expect("a feature")
}

pub(super) fn array_of<'g>(g: &'g mut Good, of: &str) -> &'g mut ArrayFeatureType {
    match &mut feature(g, of).r#type.as_mut().expect("a type").r#type {
        Some(feature_type::Type::MultiArrayType(array)) => array,
        _ => panic!("`{of}` is an array"),
    }
}

pub(super) fn image_of(g: &mut Good) -> &mut ImageFeatureType {
    match &mut feature(g, "x").r#type.as_mut().expect("a type").r#type {
        Some(feature_type::Type::ImageType(image)) => image,
        _ => panic!("`x` is an image"),
    }
}

pub(super) fn state_array(g: &mut Good) -> &mut ArrayFeatureType {
    match &mut feature(g, "s").r#type.as_mut().expect("a type").r#type {
        Some(feature_type::Type::StateType(pb::StateFeatureType {
            r#type: Some(pb::state_feature_type::Type::ArrayType(array)),
        })) => array,
        _ => panic!("`s` is a state"),
    }
}

/// Moves the model to a version and its opset.
pub(super) fn set_version(g: &mut Good, version: i32) {
    g.model.specification_version = version;
    let opset = format!("CoreML{}", version - 1);
    for function in program(g).functions.values_mut() {
        function.opset.clone_from(&opset);
        let body = std::mem::take(&mut function.block_specializations).into_values().next().expect("a body");
        function.block_specializations.insert(opset.clone(), body);
    }
}
