//! Packages of several functions.

use mlconv_coreml::{Existing, Package, Plan, import, write};
use mlconv_proto::coreml::{
    ArrayFeatureType, FeatureDescription, FeatureType, FunctionDescription, Model, ModelDescription, SizeRange,
    array_feature_type::{ArrayDataType, ShapeFlexibility, ShapeRange},
    feature_type,
    mil::{
        Block, DataType, Dimension, Function, NamedValueType, Program, TensorType, ValueType, dimension, value_type,
    },
    model,
};
use mlconv_tensor::{Dim, SymbolInfo};

/// A function that returns its input `x`, a vector of open size.
fn function() -> Function {
    let open = dimension::Dimension::Unknown(dimension::UnknownDimension { variadic: false });
    let tensor = TensorType {
        data_type: DataType::Float32 as i32,
        rank: 1,
        dimensions: vec![Dimension { dimension: Some(open) }],
        ..TensorType::default()
    };
    let ty = ValueType { r#type: Some(value_type::Type::TensorType(tensor)) };
    let body = Block { outputs: vec!["x".into()], ..Block::default() };
    Function {
        inputs: vec![NamedValueType { name: "x".into(), r#type: Some(ty) }],
        opset: "CoreML8".into(),
        block_specializations: [("CoreML8".to_owned(), body)].into(),
        ..Function::default()
    }
}

fn described(name: &str, from: u64, to: i64) -> FunctionDescription {
    let range = ShapeRange { size_ranges: vec![SizeRange { lower_bound: from, upper_bound: to }] };
    let array = ArrayFeatureType {
        shape: vec![from as i64],
        data_type: ArrayDataType::Float32 as i32,
        shape_flexibility: Some(ShapeFlexibility::ShapeRange(range)),
        ..ArrayFeatureType::default()
    };
    let ty = FeatureType { r#type: Some(feature_type::Type::MultiArrayType(array)), ..FeatureType::default() };
    let feature = FeatureDescription { name: "x".into(), r#type: Some(ty), ..FeatureDescription::default() };
    FunctionDescription {
        name: name.to_owned(),
        input: vec![feature.clone()],
        output: vec![feature],
        ..FunctionDescription::default()
    }
}

#[test]
fn inputs_of_equal_names_keep_their_ranges() {
    let functions = [("main", 2, 5), ("other", 7, 9)];
    let program = Program {
        version: 1,
        functions: functions.iter().map(|(name, ..)| ((*name).to_owned(), function())).collect(),
        ..Program::default()
    };
    let description = ModelDescription {
        functions: functions.iter().map(|(name, from, to)| described(name, *from, *to)).collect(),
        default_function_name: "main".to_owned(),
        ..ModelDescription::default()
    };
    let model = Model {
        specification_version: 9,
        description: Some(description),
        r#type: Some(model::Type::MlProgram(program)),
        ..Model::default()
    };
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("two.mlpackage");
    write(&path, &model, &Plan::default(), Existing::Keep).expect("room");
    let (module, _) = import(&Package::read(&path).expect("a package")).expect("a module");
    for (name, from, to) in functions {
        let f = module.function(name).expect("it is there");
        let shape = &f.ty(f.inputs()[0]).tensor().expect("a tensor").shape;
        let symbol = shape.first().and_then(Dim::as_symbol).expect("an open size");
        let want = SymbolInfo { min: from as i64, max: Some(to), default: Some(from as i64) };
        assert_eq!(module.symbols.get(symbol), Some(&want), "{name}: {symbol}");
    }
}
