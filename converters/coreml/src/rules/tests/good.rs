//! Small models that no rule has anything against.

use super::change::{array_of, block, description, main, program, set_version};
use crate::{Manifest, Plan, WEIGHT_FILE, data_type};
use mlconv_proto::coreml::{
    self as pb, ArrayFeatureType, FeatureDescription, FeatureType, ImageFeatureType, Model, ModelDescription,
    array_feature_type::{ArrayDataType, ShapeFlexibility, ShapeRange},
    feature_type,
    image_feature_type::ColorSpace,
    mil::{
        self, NamedValueType, Operation, TensorValue, Value, ValueType,
        argument::{Binding, binding},
        dimension::{ConstantDimension, Dimension, UnknownDimension},
        tensor_value as tv, value, value_type,
    },
    model,
};
use mlconv_tensor::{
    Blob, Bytes,
    DType::{self, *},
};

pub(super) struct Good {
    pub(super) model: Model,
    pub(super) plan: Plan,
    pub(super) manifest: Manifest,
}

/// A tensor type; a negative dimension is unknown.
pub(super) fn t(dtype: DType, dims: &[i64]) -> ValueType {
    let dims = dims.iter().map(|d| {
        let known = u64::try_from(*d).map(|size| Dimension::Constant(ConstantDimension { size }));
        let dimension = known.unwrap_or(Dimension::Unknown(UnknownDimension { variadic: false }));
        mil::Dimension { dimension: Some(dimension) }
    });
    let dimensions: Vec<_> = dims.collect();
    let data_type = data_type(dtype) as i32;
    let tensor = mil::TensorType { data_type, rank: dimensions.len() as i64, dimensions, ..Default::default() };
    ValueType { r#type: Some(value_type::Type::TensorType(tensor)) }
}

pub(super) fn nv(name: &str, ty: ValueType) -> NamedValueType {
    NamedValueType { name: name.into(), r#type: Some(ty) }
}

pub(super) fn name(of: &str) -> binding::Binding {
    binding::Binding::Name(of.into())
}

pub(super) fn floats(values: &[f32]) -> tv::Value {
    tv::Value::Floats(tv::RepeatedFloats { values: values.to_vec() })
}

pub(super) fn bytes(values: &[u8]) -> tv::Value {
    tv::Value::Bytes(tv::RepeatedBytes { values: Bytes::copy_from_slice(values) })
}

fn immediate(ty: ValueType, elements: tv::Value) -> Value {
    let tensor = value::immediate_value::Value::Tensor(TensorValue { value: Some(elements) });
    let value = value::Value::ImmediateValue(value::ImmediateValue { value: Some(tensor) });
    Value { r#type: Some(ty), value: Some(value), ..Default::default() }
}

pub(super) fn text(of: &str) -> Value {
    immediate(t(Str, &[]), tv::Value::Strings(tv::RepeatedStrings { values: vec![of.into()] }))
}

/// A list of texts.
pub(super) fn texts(of: &[&str]) -> Value {
    let length = Dimension::Constant(ConstantDimension { size: of.len() as u64 });
    let list =
        mil::ListType { r#type: Some(Box::new(t(Str, &[]))), length: Some(mil::Dimension { dimension: Some(length) }) };
    let values = mil::ListValue { values: of.iter().map(|s| text(s)).collect() };
    let value = value::ImmediateValue { value: Some(value::immediate_value::Value::List(values)) };
    Value {
        r#type: Some(ValueType { r#type: Some(value_type::Type::ListType(Box::new(list))) }),
        value: Some(value::Value::ImmediateValue(value)),
        ..Default::default()
    }
}

fn blob(plan: &mut Plan, dtype: DType, dims: &[i64], data: Vec<u8>) -> Value {
    let count = dims.iter().product::<i64>() as usize;
    let offset = plan.add(Blob::from(Bytes::from(data)), dtype, count).expect("storable");
    let value = value::BlobFileValue { file_name: WEIGHT_FILE.into(), offset };
    Value { r#type: Some(t(dtype, dims)), value: Some(value::Value::BlobFileValue(value)), ..Default::default() }
}

pub(super) fn op(
    op_type: &str,
    of: &str,
    inputs: &[(&str, binding::Binding)],
    outputs: &[(&str, ValueType)],
) -> Operation {
    let argument = |b: &binding::Binding| mil::Argument { arguments: vec![Binding { binding: Some(b.clone()) }] };
    Operation {
        r#type: op_type.into(),
        inputs: inputs.iter().map(|(param, b)| ((*param).into(), argument(b))).collect(),
        outputs: outputs.iter().map(|(n, ty)| nv(n, ty.clone())).collect(),
        attributes: [("name".into(), text(&format!("{of}_op")))].into(),
        ..Default::default()
    }
}

fn constant(of: &str, val: Value) -> Operation {
    let mut out = op("const", of, &[], &[(of, val.r#type.clone().expect("a type"))]);
    out.attributes.insert("val".into(), val);
    out
}

pub(super) fn array(of: &str, dtype: DType, shape: &[i64]) -> FeatureDescription {
    let code = match dtype {
        F16 => ArrayDataType::Float16,
        F32 => ArrayDataType::Float32,
        I32 => ArrayDataType::Int32,
        _ => ArrayDataType::InvalidArrayDataType,
    };
    let array = ArrayFeatureType { shape: shape.to_vec(), data_type: code as i32, ..Default::default() };
    described(of, feature_type::Type::MultiArrayType(array))
}

fn described(of: &str, ty: feature_type::Type) -> FeatureDescription {
    let ty = FeatureType { r#type: Some(ty), is_optional: false };
    FeatureDescription { name: of.into(), r#type: Some(ty), ..Default::default() }
}

struct Draft<'a> {
    version: i32,
    inputs: Vec<NamedValueType>,
    ops: Vec<Operation>,
    output: &'a [&'a str],
    description: ModelDescription,
    plan: Plan,
}

fn finish(d: Draft<'_>) -> Good {
    let outputs = d.output.iter().map(|o| (*o).into()).collect();
    let body = mil::Block { outputs, operations: d.ops, ..Default::default() };
    let function =
        mil::Function { inputs: d.inputs, block_specializations: [(String::new(), body)].into(), ..Default::default() };
    let program = mil::Program { version: 1, functions: [("main".to_owned(), function)].into(), ..Default::default() };
    let model =
        Model { description: Some(d.description), r#type: Some(model::Type::MlProgram(program)), ..Default::default() };
    let mut good = Good { model, plan: d.plan, manifest: Manifest::standard(true) };
    set_version(&mut good, d.version);
    good
}

/// `y = leaky_relu(linear(x)) + z`, in CoreML7.
fn linear(dtype: DType) -> Good {
    let mut plan = Plan::default();
    let width = dtype.bits() as usize / 8;
    let few = |n: usize| if dtype == F32 { floats(&vec![0.5; n]) } else { bytes(&vec![0; n * width]) };
    let w = blob(&mut plan, dtype, &[3, 4], vec![1; 12 * width]);
    let ops = vec![
        constant("w", w),
        constant("b", immediate(t(dtype, &[3]), few(3))),
        op("linear", "h", &[("x", name("x")), ("weight", name("w")), ("bias", name("b"))], &[("h", t(dtype, &[1, 3]))]),
        constant("alpha", immediate(t(dtype, &[]), few(1))),
        op("leaky_relu", "r", &[("x", name("h")), ("alpha", name("alpha"))], &[("r", t(dtype, &[1, 3]))]),
        op("add", "y", &[("x", name("r")), ("y", name("z"))], &[("y", t(dtype, &[1, 3]))]),
    ];
    finish(Draft {
        version: 8,
        inputs: vec![nv("x", t(dtype, &[1, 4])), nv("z", t(dtype, &[1, 3]))],
        ops,
        output: &["y"],
        description: ModelDescription {
            input: vec![array("x", dtype, &[1, 4]), array("z", dtype, &[1, 3])],
            output: vec![array("y", dtype, &[1, 3])],
            ..Default::default()
        },
        plan,
    })
}

pub(super) fn base() -> Good {
    linear(F32)
}

pub(super) fn halves() -> Good {
    linear(F16)
}

/// One function twice, in CoreML8.
pub(super) fn multi() -> Good {
    let mut good = base();
    let function = main(&mut good).clone();
    program(&mut good).functions = [("a".to_owned(), function.clone()), ("b".to_owned(), function)].into();
    let d = std::mem::take(description(&mut good));
    let one = |of: &str| pb::FunctionDescription {
        name: of.into(),
        input: d.input.clone(),
        output: d.output.clone(),
        ..Default::default()
    };
    *description(&mut good) = ModelDescription {
        functions: vec![one("a"), one("b")],
        default_function_name: "b".into(),
        ..Default::default()
    };
    set_version(&mut good, 9);
    good
}

/// `s += x`, in CoreML8.
pub(super) fn stateful() -> Good {
    let ty = t(F16, &[1, 4]);
    let state = mil::StateType { wrapped_type: Some(Box::new(ty.clone())) };
    let state = ValueType { r#type: Some(value_type::Type::StateType(Box::new(state))) };
    let Some(FeatureType { r#type: Some(feature_type::Type::MultiArrayType(held)), .. }) =
        array("s", F16, &[1, 4]).r#type
    else {
        panic!("`array` describes an array")
    };
    let held = pb::StateFeatureType { r#type: Some(pb::state_feature_type::Type::ArrayType(held)) };
    finish(Draft {
        version: 9,
        inputs: vec![nv("x", ty.clone()), nv("s", state)],
        ops: vec![
            op("read_state", "r", &[("input", name("s"))], &[("r", ty.clone())]),
            op("add", "y", &[("x", name("x")), ("y", name("r"))], &[("y", ty)]),
            op("write_state", "write", &[("input", name("s")), ("data", name("y"))], &[]),
        ],
        output: &["y"],
        description: ModelDescription {
            input: vec![array("x", F16, &[1, 4])],
            output: vec![array("y", F16, &[1, 4])],
            state: vec![described("s", feature_type::Type::StateType(held))],
            ..Default::default()
        },
        plan: Plan::default(),
    })
}

pub(super) fn classifier() -> Good {
    let dictionary =
        mil::DictionaryType { key_type: Some(Box::new(t(Str, &[]))), value_type: Some(Box::new(t(F64, &[]))) };
    let dictionary = ValueType { r#type: Some(value_type::Type::DictionaryType(Box::new(dictionary))) };
    let key = pb::dictionary_feature_type::KeyType::StringKeyType(pb::StringFeatureType {});
    let probabilities = pb::DictionaryFeatureType { key_type: Some(key) };
    finish(Draft {
        version: 8,
        inputs: vec![nv("x", t(F32, &[1, 3]))],
        ops: vec![
            op("identity", "p", &[("x", name("x"))], &[("p", t(F32, &[1, 3]))]),
            op(
                "classify",
                "label",
                &[("probabilities", name("p")), ("classes", binding::Binding::Value(texts(&["a", "b", "c"])))],
                &[("label", t(Str, &[])), ("label_probs", dictionary)],
            ),
        ],
        output: &["label", "label_probs"],
        description: ModelDescription {
            input: vec![array("x", F32, &[1, 3])],
            output: vec![
                described("label", feature_type::Type::StringType(pb::StringFeatureType {})),
                described("label_probs", feature_type::Type::DictionaryType(probabilities)),
            ],
            predicted_feature_name: "label".into(),
            predicted_probabilities_name: "label_probs".into(),
            ..Default::default()
        },
        plan: Plan::default(),
    })
}

fn passing(ty: ValueType, feature: FeatureDescription, output: FeatureDescription) -> Good {
    finish(Draft {
        version: 8,
        inputs: vec![nv("x", ty.clone())],
        ops: vec![op("identity", "y", &[("x", name("x"))], &[("y", ty)])],
        output: &["y"],
        description: ModelDescription { input: vec![feature], output: vec![output], ..Default::default() },
        plan: Plan::default(),
    })
}

pub(super) fn image() -> Good {
    let grey =
        ImageFeatureType { width: 6, height: 5, color_space: ColorSpace::Grayscale as i32, ..Default::default() };
    let feature = described("x", feature_type::Type::ImageType(grey));
    passing(t(F32, &[1, 1, 5, 6]), feature, array("y", F32, &[1, 1, 5, 6]))
}

/// `f32[1..=8, 4]`.
pub(super) fn flexible() -> Good {
    let range = |lower_bound, upper_bound| pb::SizeRange { lower_bound, upper_bound };
    let mut good = passing(t(F32, &[-1, 4]), array("x", F32, &[2, 4]), array("y", F32, &[]));
    let ranges = ShapeRange { size_ranges: vec![range(1, 8), range(4, 4)] };
    array_of(&mut good, "x").shape_flexibility = Some(ShapeFlexibility::ShapeRange(ranges));
    good
}

/// `linear` of a 4-bit weight, in CoreML8.
pub(super) fn compressed() -> Good {
    let mut good = halves();
    let data = blob(&mut good.plan, I4, &[3, 4], vec![7; 6]);
    let scale = immediate(t(F16, &[3, 1]), bytes(&[0; 6]));
    let value = binding::Binding::Value;
    block(&mut good).operations[0] = op(
        "constexpr_blockwise_shift_scale",
        "w",
        &[("data", value(data)), ("scale", value(scale))],
        &[("w", t(F16, &[3, 4]))],
    );
    set_version(&mut good, 9);
    good
}

/// A conditional of two constants.
pub(super) fn nested() -> Good {
    let one = |of: &str| {
        let val = immediate(t(F32, &[1]), floats(&[1.0]));
        let inner = format!("{of}_2");
        let twice = op("identity", &inner, &[("x", name(of))], &[(&inner, t(F32, &[1]))]);
        mil::Block { operations: vec![constant(of, val), twice], outputs: vec![inner], ..Default::default() }
    };
    let pred = immediate(t(Bool, &[]), tv::Value::Bools(tv::RepeatedBools { values: vec![true] }));
    let mut cond = op("cond", "c", &[("pred", binding::Binding::Value(pred))], &[("c", t(F32, &[1]))]);
    cond.blocks = vec![one("inner"), one("other")];
    let mut good = passing(t(F32, &[1, 4]), array("x", F32, &[1, 4]), array("y", F32, &[1, 4]));
    *block(&mut good) = mil::Block {
        operations: vec![
            cond,
            op("add", "y", &[("x", name("x")), ("y", name("c"))], &[("y", t(F32, &[1, 4]))]),
            op("add", "unread", &[("x", name("x")), ("y", name("c"))], &[("unread", t(F32, &[1, 4]))]),
        ],
        outputs: vec!["y".into()],
        ..Default::default()
    };
    good
}
