//! Arguments as exported programs write them: each is an object of one entry, its kind and what it is.

use super::{
    ReadError, Result,
    weights::{Meta, dtype},
};
use crate::symbols;
use mlconv_source::{Arg, SourceDim, SourceType};
use mlconv_tensor::Tensor;
use serde_json::Value as Json;
use std::sync::Arc;

/// An argument of a kind. One that is not written as its kind is stays in the graph as what it is not: who reads it says so.
pub(super) fn argument(kind: &str, v: &Json) -> Arg {
    let name = |v: &Json| v.get("name").and_then(Json::as_str).map(Arc::<str>::from);
    let optional = |v: &Json| match v.get("as_none") {
        Some(_) => Some(None),
        None => v.get("as_tensor").and_then(name).map(Some),
    };
    match kind {
        "as_none" => Arg::None,
        "as_tensor" => name(v).map_or(Arg::Other("a tensor without a name"), Arg::Value),
        "as_tensors" => all(v, |t| name(t).map(Some)).map_or(Arg::Other("tensors without names"), Arg::Values),
        "as_optional_tensor" => match optional(v) {
            Some(name) => name.map_or(Arg::None, Arg::Value),
            None => Arg::Other("a tensor without a name"),
        },
        "as_optional_tensors" => all(v, optional).map_or(Arg::Other("tensors without names"), Arg::Values),
        "as_int" => v.as_i64().map_or(Arg::Other("a number beyond 64 bits"), Arg::Int),
        "as_ints" => all(v, Json::as_i64).map_or(Arg::Other("a list that is not of integers of 64 bits"), Arg::Ints),
        "as_float" => float(v).map_or(Arg::Other("no number"), Arg::Float),
        "as_floats" => all(v, float).map_or(Arg::Other("a list that is not of numbers"), Arg::Floats),
        "as_bool" => v.as_bool().map_or(Arg::Other("neither true nor false"), Arg::Bool),
        "as_bools" => {
            all(v, |b| b.as_bool().map(i64::from)).map_or(Arg::Other("a list that is not of booleans"), Arg::Ints)
        }
        "as_string" | "as_operator" => v.as_str().map_or(Arg::Other("no text"), |text| Arg::Str(text.to_owned())),
        "as_strings" => {
            all(v, |t| t.as_str().map(str::to_owned)).map_or(Arg::Other("a list that is not of texts"), Arg::Strs)
        }
        "as_scalar_type" => match v.as_i64().and_then(dtype) {
            Some(d) => Arg::DType(d),
            None => Arg::Other("an element type that is not supported"),
        },
        "as_sym_int" | "as_sym_bool" | "as_sym_float" => scalar(v),
        "as_sym_ints" | "as_sym_bools" | "as_sym_floats" => {
            let Some(all) = all(v, |v| Some(scalar(v))) else { return Arg::Other("no list") };
            let known = |a: &Arg| if let Arg::Int(i) = a { Some(*i) } else { None };
            all.iter().map(known).collect::<Option<Vec<i64>>>().map_or(Arg::List(all), Arg::Ints)
        }
        "as_memory_format" | "as_layout" | "as_device" => Arg::Other("a place in memory"),
        "as_complex" => match (v.get("real").and_then(float), v.get("imag").and_then(float)) {
            (Some(re), Some(im)) => Arg::Complex(re, im),
            _ => Arg::Other("a complex number"),
        },
        "as_custom_obj" => Arg::Other("an object of a class"),
        "as_nested_tensors" => Arg::Other("lists of tensors"),
        _ => Arg::Other("an argument of a kind that is not known"),
    }
}

/// The elements of a list, where each is what it should be.
fn all<T>(v: &Json, of: impl FnMut(&Json) -> Option<T>) -> Option<Vec<T>> {
    v.as_array()?.iter().map(of).collect()
}

/// A number; those that JSON has not are texts.
fn float(v: &Json) -> Option<f64> {
    v.as_f64().or_else(|| match v.as_str()? {
        "Infinity" | "inf" => Some(f64::INFINITY),
        "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
        "NaN" | "nan" => Some(f64::NAN),
        other => other.parse().ok(),
    })
}

/// A number that may be a value of the graph.
fn scalar(v: &Json) -> Arg {
    let Some((kind, v)) = v.as_object().and_then(|o| o.iter().next()) else { return Arg::Other("no number") };
    match kind.as_str() {
        "as_int" => v.as_i64().map_or(Arg::Other("a number beyond 64 bits"), Arg::Int),
        "as_float" => float(v).map_or(Arg::Other("no number"), Arg::Float),
        "as_bool" => v.as_bool().map_or(Arg::Other("neither true nor false"), Arg::Bool),
        "as_name" => v.as_str().map_or(Arg::Other("a value without a name"), |name| Arg::Value(name.into())),
        _ => Arg::Other("a number of a kind that is not known"),
    }
}

/// A result that is a number; `None` for what is none, such as a text.
pub(super) fn constant(arg: &Json) -> Result<Option<Tensor>> {
    let Some((kind, v)) = arg.as_object().and_then(|o| o.iter().next()) else { return Ok(None) };
    let number = match kind.as_str() {
        "as_int" | "as_float" | "as_bool" => scalar(arg),
        "as_sym_int" | "as_sym_float" | "as_sym_bool" => scalar(v),
        _ => return Ok(None),
    };
    match number {
        Arg::Int(i) => Ok(Some(Tensor::scalar(i))),
        Arg::Float(x) => Ok(Some(Tensor::scalar(x as f32))),
        Arg::Bool(b) => Ok(Some(Tensor::from_bools(&[], [b]))),
        _ => Err(ReadError::Graph("an output is a number that cannot be read".to_owned())),
    }
}

/// The name of a value that an argument is.
pub(super) fn argument_name(arg: &Json) -> Option<&str> {
    let (kind, v) = arg.as_object()?.iter().next()?;
    match kind.as_str() {
        "name" | "as_name" => v.as_str(),
        "as_tensor" => v.get("name")?.as_str(),
        "as_sym_int" | "as_sym_bool" | "as_sym_float" => v.get("as_name")?.as_str(),
        _ => None,
    }
}

/// The type of the tensor `name`; `None` where elements are of a type that there is none for.
pub(super) fn source_type(name: &str, meta: &Meta) -> Result<Option<SourceType>> {
    let Some(dtype) = dtype(meta.dtype) else { return Ok(None) };
    let dim = |d: &Json| match d.get("as_int") {
        Some(size) => {
            let wrong = || ReadError::Graph(format!("a size of `{name}` is {size}, which no axis has"));
            size.as_i64().filter(|size| *size >= 0).map(SourceDim::Known).ok_or_else(wrong)
        }
        None => Ok(match d.get("as_expr").and_then(|e| e.get("expr_str")).and_then(Json::as_str) {
            Some(expr) => symbolic(expr),
            None => SourceDim::Unknown,
        }),
    };
    let shape = meta.sizes.iter().map(dim).collect::<Result<Vec<SourceDim>>>()?;
    Ok(Some(SourceType { dtype, shape: Some(shape) }))
}

/// A symbolic size as we spell it; of one that we cannot, nothing is known.
fn symbolic(expr: &str) -> SourceDim {
    match symbols::parse(expr) {
        Some(dim) => dim.as_known().map_or_else(|| SourceDim::Named(dim.to_string()), SourceDim::Known),
        None => SourceDim::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Arg {
        let v: Json = serde_json::from_str(text).expect("JSON");
        let (kind, v) = v.as_object().and_then(|o| o.iter().next()).expect("an argument");
        argument(kind, v)
    }

    #[test]
    fn arguments_are_what_their_kind_says() {
        assert!(matches!(read(r#"{"as_ints": [1, -2]}"#), Arg::Ints(v) if v == [1, -2]));
        assert!(matches!(read(r#"{"as_floats": [1, "Infinity"]}"#), Arg::Floats(v) if v == [1.0, f64::INFINITY]));
        assert!(matches!(read(r#"{"as_sym_ints": [{"as_int": 1}, {"as_name": "s"}]}"#), Arg::List(v) if v.len() == 2));
        let optional = r#"{"as_optional_tensors": [{"as_none": []}, {"as_tensor": {"name": "x"}}]}"#;
        assert!(matches!(read(optional), Arg::Values(v) if v.len() == 2 && v[0].is_none() && v[1].is_some()));
    }

    #[test]
    fn nothing_of_an_argument_is_left_out() {
        for text in [
            r#"{"as_ints": [1, 0.5]}"#,
            r#"{"as_ints": [1, 99999999999999999999]}"#,
            r#"{"as_ints": 1}"#,
            r#"{"as_floats": [1, "x"]}"#,
            r#"{"as_bools": [true, 1]}"#,
            r#"{"as_bool": 1}"#,
            r#"{"as_strings": ["a", 1]}"#,
            r#"{"as_string": null}"#,
            r#"{"as_tensor": {}}"#,
            r#"{"as_tensors": [{"name": "x"}, {}]}"#,
            r#"{"as_optional_tensors": [{}]}"#,
            r#"{"as_sym_int": {"as_int": "1"}}"#,
            r#"{"as_sym_int": {}}"#,
        ] {
            assert!(matches!(read(text), Arg::Other(_)), "{text}");
        }
    }

    #[test]
    fn sizes_are_numbers_of_elements() {
        for size in ["-5", "0.5", "99999999999999999999", "null"] {
            let meta = format!(r#"{{"dtype": 7, "sizes": [{{"as_int": 2}}, {{"as_int": {size}}}]}}"#);
            let meta: Meta = serde_json::from_str(&meta).expect("a type");
            assert!(source_type("x", &meta).is_err(), "{size}");
        }
    }
}
