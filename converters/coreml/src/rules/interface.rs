//! The interface as such, and against the program.

use super::{
    Artifact, Findings,
    view::{Body, Interface, Tensor, is_state, show, tensor},
};
use mlconv_proto::coreml::{
    ArrayFeatureType, FeatureDescription,
    array_feature_type::{ArrayDataType, ShapeFlexibility},
    dictionary_feature_type::KeyType,
    feature_type::Type,
    model,
};
use mlconv_tensor::DType;
use std::collections::BTreeSet;

pub(super) fn kind(feature: &FeatureDescription) -> Option<&Type> {
    feature.r#type.as_ref()?.r#type.as_ref()
}

pub(super) fn is_optional(feature: &FeatureDescription) -> bool {
    feature.r#type.as_ref().is_some_and(|t| t.is_optional)
}

pub(super) fn place(interface: &Interface<'_>, feature: &FeatureDescription) -> String {
    format!("{}/{}", interface.function, feature.name)
}

/// The element type of an array.
pub(super) fn array_dtype(array: &ArrayFeatureType) -> Option<DType> {
    match ArrayDataType::try_from(array.data_type).ok()? {
        ArrayDataType::Float16 => Some(DType::F16),
        ArrayDataType::Float32 => Some(DType::F32),
        ArrayDataType::Double => Some(DType::F64),
        ArrayDataType::Int8 => Some(DType::I8),
        ArrayDataType::Int32 => Some(DType::I32),
        ArrayDataType::InvalidArrayDataType => None,
    }
}

pub(super) fn multifunction(a: &Artifact<'_>, out: &mut Findings) {
    let Some(model::Type::MlProgram(program)) = &a.model.r#type else { return };
    let Some(d) = &a.model.description else { return out.add("description", "nothing") };
    if d.functions.is_empty() {
        if !program.functions.contains_key("main") {
            out.add("program", "no function `main`");
        }
        if program.functions.len() > 1 || !d.default_function_name.is_empty() {
            out.add("description", format!("{} functions, and no interface each", program.functions.len()));
        }
        return;
    }
    if a.version() < 9 {
        out.add("description.functions", format!("version {}", a.version()));
    }
    let described: BTreeSet<&str> = d.functions.iter().map(|f| f.name.as_str()).collect();
    if !described.contains(d.default_function_name.as_str()) {
        out.add("description", format!("default function `{}`", d.default_function_name));
    }
    if described.len() < d.functions.len() || !described.iter().copied().eq(program.functions.keys()) {
        out.add("description.functions", format!("{described:?} for {:?}", program.functions.keys()));
    }
    let names = [&d.predicted_feature_name, &d.predicted_probabilities_name];
    let lists = [&d.input, &d.output, &d.state, &d.training_input];
    if names.iter().any(|n| !n.is_empty()) || lists.iter().any(|l| !l.is_empty()) {
        out.add("description", "an interface of the model beside those of its functions");
    }
    for f in d.functions.iter().filter(|f| !f.predicted_feature_name.is_empty()) {
        out.add(&f.name, "a classifier");
    }
}

pub(super) fn types(a: &Artifact<'_>, out: &mut Findings) {
    for i in &a.interfaces {
        let inputs = i.inputs.iter().map(|f| (f, false));
        for (feature, is_output) in inputs.chain(i.outputs.iter().map(|f| (f, true))) {
            let ok = match kind(feature) {
                Some(Type::ImageType(_)) => true,
                Some(Type::MultiArrayType(array)) => match array_dtype(array) {
                    Some(DType::F32 | DType::I32) => true,
                    Some(DType::F16) => a.version() >= 7,
                    Some(DType::I8) => a.version() >= 10,
                    _ => false,
                },
                Some(Type::StringType(_) | Type::Int64Type(_)) => is_output && feature.name == i.label,
                Some(Type::DictionaryType(d)) => is_output && feature.name == i.probabilities && d.key_type.is_some(),
                Some(Type::DoubleType(_) | Type::SequenceType(_) | Type::StateType(_)) | None => false,
            };
            if !ok {
                out.add(place(i, feature), describe(feature));
            }
        }
    }
}

pub(super) fn shapes(a: &Artifact<'_>, out: &mut Findings) {
    for i in &a.interfaces {
        let inputs = i.inputs.iter().map(|f| (f, true));
        for (feature, is_input) in inputs.chain(i.outputs.iter().map(|f| (f, false))) {
            let Some(Type::MultiArrayType(array)) = kind(feature) else { continue };
            if (is_input && array.shape.is_empty()) || array.shape.iter().any(|d| *d < 1) {
                out.add(place(i, feature), format!("shape {:?}", array.shape));
            }
        }
    }
}

pub(super) fn presence(a: &Artifact<'_>, out: &mut Findings) {
    for i in &a.interfaces {
        if i.outputs.is_empty() {
            out.add(i.function, "no output");
        }
        for feature in i.outputs.iter().filter(|f| is_optional(f)) {
            out.add(place(i, feature), "an optional output");
        }
        let none = i.inputs.is_empty();
        if (none && a.version() < 9) || (!none && i.inputs.iter().all(is_optional)) {
            out.add(i.function, format!("{} inputs, of which none is demanded", i.inputs.len()));
        }
    }
}

pub(super) fn program(a: &Artifact<'_>, out: &mut Findings) {
    for (i, body) in a.described() {
        let inputs = i.inputs.iter().chain(i.states).map(|f| f.name.as_str());
        same_names(body.name, "inputs", inputs, body.function.inputs.iter().map(|v| v.name.as_str()), out);
        let returned = body.block.into_iter().flat_map(|b| b.outputs.iter().map(String::as_str));
        same_names(body.name, "outputs", i.outputs.iter().map(|f| f.name.as_str()), returned, out);
        for (features, is_input) in [(i.inputs, true), (i.outputs, false)] {
            for feature in features {
                let ty = body.ty(&feature.name);
                if ty.is_some() && !agrees(feature, body, is_input) {
                    out.add(place(i, feature), format!("{} for {}", describe(feature), show(ty)));
                }
            }
        }
    }
}

fn same_names<'a>(
    function: &str,
    what: &str,
    described: impl Iterator<Item = &'a str>,
    found: impl Iterator<Item = &'a str>,
    out: &mut Findings,
) {
    let (mut described, mut found): (Vec<&str>, Vec<&str>) = (described.collect(), found.collect());
    // A value that is returned twice is another rule's business.
    found.sort_unstable();
    found.dedup();
    described.sort_unstable();
    if described != found {
        out.add(function, format!("{what} {described:?} for {found:?}"));
    }
}

/// Whether a feature's type is that of the value it describes. Images are another rule's business.
fn agrees(feature: &FeatureDescription, body: &Body<'_>, is_input: bool) -> bool {
    use mlconv_proto::coreml::mil::value_type::Type as T;
    let Some(ty) = body.ty(&feature.name) else { return false };
    let found = tensor(ty);
    let is_scalar = |dtype| found.as_ref().is_some_and(|t| t.dtype == Some(dtype) && t.dims.is_empty());
    match kind(feature) {
        Some(Type::MultiArrayType(array)) => found.is_some_and(|t| array_agrees(array, &t, is_input)),
        Some(Type::ImageType(_)) => found.is_some(),
        Some(Type::StringType(_)) => is_scalar(DType::Str),
        Some(Type::Int64Type(_)) => is_scalar(DType::I64),
        Some(Type::DictionaryType(d)) => {
            let key = match d.key_type {
                Some(KeyType::Int64KeyType(_)) => Some(DType::I64),
                Some(KeyType::StringKeyType(_)) => Some(DType::Str),
                None => None,
            };
            let Some(T::DictionaryType(found)) = &ty.r#type else { return false };
            found.key_type.as_deref().and_then(tensor).and_then(|t| t.dtype) == key
        }
        Some(Type::StateType(_)) => is_state(ty),
        Some(Type::DoubleType(_) | Type::SequenceType(_)) | None => false,
    }
}

fn array_agrees(array: &ArrayFeatureType, found: &Tensor, is_input: bool) -> bool {
    if array_dtype(array) != found.dtype {
        return false;
    }
    // Outputs may say nothing of their shape. Scalars are described as of one element, if at all.
    if !is_input && (array.shape.is_empty() || found.dims.is_empty()) {
        return true;
    }
    array.shape.len() == found.dims.len()
        && array.shape.iter().zip(&found.dims).enumerate().all(|(axis, (want, found))| match found {
            Some(found) => !varies(array, axis) && u64::try_from(*want) == Ok(*found),
            None => !is_input || varies(array, axis),
        })
}

/// Whether the dimension has more than one possible size.
fn varies(array: &ArrayFeatureType, axis: usize) -> bool {
    match &array.shape_flexibility {
        None => false,
        Some(ShapeFlexibility::EnumeratedShapes(e)) => {
            let mut sizes = e.shapes.iter().map(|s| s.shape.get(axis));
            let first = sizes.next();
            sizes.any(|s| Some(s) != first)
        }
        Some(ShapeFlexibility::ShapeRange(r)) => {
            r.size_ranges.get(axis).is_some_and(|r| u64::try_from(r.upper_bound) != Ok(r.lower_bound))
        }
    }
}

/// A feature's type for people.
pub(super) fn describe(feature: &FeatureDescription) -> String {
    match kind(feature) {
        None => "nothing".into(),
        Some(Type::Int64Type(_)) => "an integer".into(),
        Some(Type::DoubleType(_)) => "a number".into(),
        Some(Type::StringType(_)) => "a text".into(),
        Some(Type::ImageType(i)) => format!("an image of {} × {}", i.width, i.height),
        Some(Type::MultiArrayType(array)) => {
            let dtype = array_dtype(array).map_or(format!("type {}", array.data_type), |d| d.to_string());
            let flexible = if array.shape_flexibility.is_some() { ", flexible" } else { "" };
            format!("an array {dtype}{:?}{flexible}", array.shape)
        }
        Some(Type::DictionaryType(_)) => "a dictionary".into(),
        Some(Type::SequenceType(_)) => "a sequence".into(),
        Some(Type::StateType(_)) => "a state".into(),
    }
}
