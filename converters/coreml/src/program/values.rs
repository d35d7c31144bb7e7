//! Types and values.

use crate::{Error, Field, Plan, Result, WeightFiles, blob_code, data_type, dtype_of, immediate_field};
use mlconv_mil::schema::Attr;
use mlconv_proto::coreml::mil::{
    self, DictionaryType, Dimension, ListType, ListValue, StateType, TensorType as TensorProto, TensorValue, Value,
    ValueType, dimension, tensor_value, value, value_type,
};
use mlconv_tensor::{Blob, Bytes, DType, Dim, Shape, Tensor, TensorType, Type};
use std::collections::BTreeMap;

/// The blob file that this writer makes.
pub(super) const WEIGHTS: &str = "@model_path/weights/weight.bin";

/// Elements from which a constant goes to the weight file.
const IN_FILE: usize = 10;

// From the IR.

pub(super) fn value_type(ty: &Type) -> ValueType {
    let tensor = |t: &TensorType| ValueType { r#type: Some(value_type::Type::TensorType(tensor_type(t))) };
    let scalar = |d: DType| tensor(&TensorType::new(d, Shape::scalar()));
    let r#type = match ty {
        Type::Tensor(t) => return tensor(t),
        Type::State(t) => value_type::Type::StateType(Box::new(StateType { wrapped_type: Some(Box::new(tensor(t))) })),
        Type::List { elem, len } => value_type::Type::ListType(Box::new(ListType {
            r#type: Some(Box::new(tensor(elem))),
            length: Some(dimension(len)),
        })),
        Type::Dict { key, value } => value_type::Type::DictionaryType(Box::new(DictionaryType {
            key_type: Some(Box::new(scalar(*key))),
            value_type: Some(Box::new(scalar(*value))),
        })),
        Type::Unknown => return ValueType::default(),
    };
    ValueType { r#type: Some(r#type) }
}

fn tensor_type(t: &TensorType) -> TensorProto {
    TensorProto {
        data_type: data_type(t.dtype) as i32,
        rank: t.shape.rank() as i64,
        dimensions: t.shape.iter().map(dimension).collect(),
        attributes: BTreeMap::default(),
    }
}

fn dimension(d: &Dim) -> Dimension {
    let kind = match d.as_known().and_then(|n| u64::try_from(n).ok()) {
        Some(size) => dimension::Dimension::Constant(dimension::ConstantDimension { size }),
        None => dimension::Dimension::Unknown(dimension::UnknownDimension { variadic: false }),
    };
    Dimension { dimension: Some(kind) }
}

fn immediate(ty: &Type, v: tensor_value::Value) -> Value {
    Value {
        doc_string: String::new(),
        r#type: Some(value_type(ty)),
        value: Some(value::Value::ImmediateValue(value::ImmediateValue {
            value: Some(value::immediate_value::Value::Tensor(TensorValue { value: Some(v) })),
        })),
    }
}

/// The type of a constant.
pub(super) fn type_of(t: &Tensor) -> Type {
    TensorType::new(t.dtype(), t.shape().iter().copied().collect::<Shape>()).into()
}

/// A tensor in place.
fn immediate_tensor(t: &Tensor) -> Value {
    use tensor_value::*;
    let value = match immediate_field(t.dtype()) {
        Field::Bytes => tensor_value::Value::Bytes(RepeatedBytes { values: Bytes::from(t.blob().read().into_owned()) }),
        Field::Ints => {
            tensor_value::Value::Ints(RepeatedInts { values: t.to_i64().iter().map(|i| *i as i32).collect() })
        }
        Field::LongInts => tensor_value::Value::LongInts(RepeatedLongInts { values: t.to_i64() }),
        Field::Floats => tensor_value::Value::Floats(RepeatedFloats { values: t.to_f32().into_owned() }),
        Field::Doubles => tensor_value::Value::Doubles(RepeatedDoubles { values: t.to_f64() }),
        Field::Bools => tensor_value::Value::Bools(RepeatedBools { values: t.to_bools() }),
        Field::Strings => tensor_value::Value::Strings(RepeatedStrings { values: t.to_text().into_iter().collect() }),
    };
    immediate(&type_of(t), value)
}

/// A string in place.
pub(super) fn string(text: &str) -> Value {
    let values = vec![text.to_owned()];
    let ty = TensorType::new(DType::Str, Shape::scalar()).into();
    immediate(&ty, tensor_value::Value::Strings(tensor_value::RepeatedStrings { values }))
}

/// A dictionary of strings in place.
pub(super) fn string_dictionary(pairs: &[(&str, &str)]) -> Value {
    let pair =
        |(k, v): &(&str, &str)| mil::dictionary_value::KeyValuePair { key: Some(string(k)), value: Some(string(v)) };
    let dictionary = mil::DictionaryValue { values: pairs.iter().map(pair).collect() };
    Value {
        doc_string: String::new(),
        r#type: Some(value_type(&Type::Dict { key: DType::Str, value: DType::Str })),
        value: Some(value::Value::ImmediateValue(value::ImmediateValue {
            value: Some(value::immediate_value::Value::Dictionary(dictionary)),
        })),
    }
}

/// A tensor, in the weight file where it is large enough and of a type that goes there in this version.
pub(super) fn tensor(t: &Tensor, version: i32, plan: &mut Plan) -> Result<Value> {
    let small_int = matches!(t.dtype(), DType::I16 | DType::U16 | DType::I32 | DType::U32);
    let to_file = t.count() >= IN_FILE && blob_code(t.dtype()).is_some() && (version >= 9 || !small_int);
    if !to_file {
        return Ok(immediate_tensor(t));
    }
    let offset = plan.add(t.blob().clone(), t.dtype(), t.count())?;
    let file = value::BlobFileValue { file_name: WEIGHTS.to_owned(), offset };
    let value = Some(value::Value::BlobFileValue(file));
    Ok(Value { doc_string: String::new(), r#type: Some(value_type(&type_of(t))), value })
}

/// A literal in place, its numbers as elements of `dtype`.
pub(super) fn literal(attr: &Attr, dtype: DType) -> Value {
    let scalar: [usize; 0] = [];
    match attr {
        Attr::Int(i) => immediate_tensor(&number(dtype, &scalar, &[*i as f64], &[*i])),
        Attr::Ints(v) => {
            immediate_tensor(&number(dtype, &[v.len()], &v.iter().map(|i| *i as f64).collect::<Vec<_>>(), v))
        }
        Attr::Float(x) => immediate_tensor(&Tensor::from_f64(dtype, &scalar, &[f64::from(*x)])),
        Attr::Floats(v) => {
            let values: Vec<f64> = v.iter().map(|x| f64::from(*x)).collect();
            immediate_tensor(&Tensor::from_f64(dtype, &[v.len()], &values))
        }
        Attr::Bool(b) => immediate_tensor(&Tensor::from_bools(&scalar, [*b])),
        Attr::Bools(v) => immediate_tensor(&Tensor::from_bools(&[v.len()], v.iter().copied())),
        Attr::Str(s) => string(s),
        Attr::Strs(v) => {
            let ty = TensorType::new(DType::Str, [v.len()]).into();
            immediate(&ty, tensor_value::Value::Strings(tensor_value::RepeatedStrings { values: v.clone() }))
        }
        Attr::Tensor(t) => immediate_tensor(t),
    }
}

/// A list literal: each element a scalar in place.
pub(super) fn list(attr: &Attr) -> Value {
    let items: Vec<Value> = match attr {
        Attr::Strs(v) => v.iter().map(|s| string(s)).collect(),
        Attr::Ints(v) => v.iter().map(|i| immediate_tensor(&Tensor::scalar(*i))).collect(),
        other => vec![literal(other, DType::I64)],
    };
    let dtype = if matches!(attr, Attr::Strs(_)) { DType::Str } else { DType::I64 };
    let ty = Type::List { elem: TensorType::new(dtype, Shape::scalar()), len: Dim::from(items.len()) };
    Value {
        doc_string: String::new(),
        r#type: Some(value_type(&ty)),
        value: Some(value::Value::ImmediateValue(value::ImmediateValue {
            value: Some(value::immediate_value::Value::List(ListValue { values: items })),
        })),
    }
}

fn number(dtype: DType, shape: &[usize], floats: &[f64], ints: &[i64]) -> Tensor {
    if dtype.is_float() { Tensor::from_f64(dtype, shape, floats) } else { Tensor::from_i64(dtype, shape, ints) }
}

// To the IR.

/// A type; unknown sizes take the names that `unknown` makes of their axes.
pub(super) fn read_type(ty: &ValueType, unknown: &mut dyn FnMut(usize) -> Dim) -> Option<Type> {
    let inner = |t: &Option<Box<ValueType>>, unknown: &mut dyn FnMut(usize) -> Dim| match t.as_ref()?.r#type.as_ref()? {
        value_type::Type::TensorType(t) => read_tensor_type(t, unknown),
        _ => None,
    };
    Some(match ty.r#type.as_ref()? {
        value_type::Type::TensorType(t) => Type::Tensor(read_tensor_type(t, unknown)?),
        value_type::Type::StateType(s) => Type::State(inner(&s.wrapped_type, unknown)?),
        value_type::Type::ListType(l) => {
            let elem = inner(&l.r#type, unknown)?;
            // Named as if it were a further axis of the elements.
            let len = l.length.as_ref().and_then(read_dimension).unwrap_or_else(|| unknown(elem.shape.rank()));
            Type::List { elem, len }
        }
        value_type::Type::DictionaryType(d) => {
            Type::Dict { key: inner(&d.key_type, unknown)?.dtype, value: inner(&d.value_type, unknown)?.dtype }
        }
        value_type::Type::TupleType(_) => Type::Unknown,
    })
}

fn read_tensor_type(t: &TensorProto, unknown: &mut dyn FnMut(usize) -> Dim) -> Option<TensorType> {
    let dtype = dtype_of(t.data_type)?;
    if t.rank != t.dimensions.len() as i64 {
        return None;
    }
    let dims = t.dimensions.iter().enumerate();
    let shape: Shape = dims.map(|(i, d)| read_dimension(d).unwrap_or_else(|| unknown(i))).collect();
    Some(TensorType { dtype, shape })
}

fn read_dimension(d: &Dimension) -> Option<Dim> {
    match d.dimension.as_ref()? {
        dimension::Dimension::Constant(c) => Some(Dim::from(c.size)),
        dimension::Dimension::Unknown(_) => None,
    }
}

/// What a value is, where it is of a kind that programs use.
pub(super) fn read_value(v: &Value, weights: &WeightFiles) -> Result<Attr> {
    let ty = v.r#type.as_ref().and_then(|t| read_type(t, &mut |_| Dim::symbol("unknown")));
    let shape = |ty: Option<&TensorType>| ty.and_then(|t| Some((t.dtype, t.shape.known()?)));
    match v.value.as_ref() {
        Some(value::Value::BlobFileValue(file)) => {
            let (dtype, shape) = shape(ty.as_ref().and_then(Type::tensor))
                .ok_or(Error::Value { what: "a blob without a known type" })?;
            Ok(Attr::Tensor(weights.get(file, dtype, &shape)?))
        }
        Some(value::Value::ImmediateValue(i)) => match i.value.as_ref() {
            Some(value::immediate_value::Value::Tensor(t)) => {
                let ty = shape(ty.as_ref().and_then(Type::tensor))
                    .ok_or(Error::Value { what: "a tensor without a known type" })?;
                read_tensor(t, ty.0, &ty.1)
            }
            Some(value::immediate_value::Value::List(l)) => read_list(l, weights),
            Some(value::immediate_value::Value::Tuple(_)) => Err(Error::Value { what: "a tuple" }),
            Some(value::immediate_value::Value::Dictionary(_)) => Err(Error::Value { what: "a dictionary" }),
            None => Err(Error::Value { what: "an empty value" }),
        },
        None => Err(Error::Value { what: "an empty value" }),
    }
}

fn read_tensor(t: &TensorValue, dtype: DType, shape: &[usize]) -> Result<Attr> {
    use tensor_value::Value as V;
    let mismatch = || Error::Value { what: "elements of another type than it states" };
    let field = immediate_field(dtype);
    let blob: Blob = match (t.value.as_ref().ok_or_else(mismatch)?, field) {
        (V::Strings(s), Field::Strings) => {
            return Ok(match (shape, s.values.as_slice()) {
                ([], [one]) => Attr::Str(one.clone()),
                ([_], many) => Attr::Strs(many.to_vec()),
                _ => return Err(mismatch()),
            });
        }
        (V::Bytes(b), Field::Bytes) => Blob::from(b.values.clone()),
        (V::Floats(f), Field::Floats) => Tensor::from_vec(&[f.values.len()], f.values.clone()).blob().clone(),
        (V::Doubles(f), Field::Doubles) => Tensor::from_vec(&[f.values.len()], f.values.clone()).blob().clone(),
        (V::Bools(b), Field::Bools) => Tensor::from_bools(&[b.values.len()], b.values.iter().copied()).blob().clone(),
        (V::LongInts(i), Field::LongInts) => Tensor::from_vec(&[i.values.len()], i.values.clone()).blob().clone(),
        // Types of a byte or less are also seen as 32-bit integers.
        (V::Ints(i), Field::Ints | Field::Bytes) if dtype.is_int() => {
            let (lo, hi) = dtype.int_range().ok_or_else(mismatch)?;
            let fits = |v: i32| (lo..=hi).contains(&i128::from(v));
            if !i.values.iter().all(|v| fits(*v)) {
                return Err(Error::Value { what: "an element that does not fit its type" });
            }
            let wide: Vec<i64> = i.values.iter().map(|v| i64::from(*v)).collect();
            Tensor::from_i64(dtype, &[wide.len()], &wide).blob().clone()
        }
        _ => return Err(mismatch()),
    };
    Ok(Attr::Tensor(
        Tensor::new(dtype, shape, blob)
            .map_err(|_| Error::Value { what: "more or fewer elements than its type says" })?,
    ))
}

fn read_list(l: &ListValue, weights: &WeightFiles) -> Result<Attr> {
    let items: Vec<Attr> = l.values.iter().map(|v| read_value(v, weights)).collect::<Result<_>>()?;
    let strs: Option<Vec<String>> =
        items.iter().map(|a| if let Attr::Str(s) = a { Some(s.clone()) } else { None }).collect();
    if let Some(strs) = strs {
        return Ok(Attr::Strs(strs));
    }
    let ints: Option<Vec<i64>> = items
        .iter()
        .map(|a| match a {
            Attr::Tensor(t) if t.shape().is_empty() && !t.dtype().is_float() => t.to_i64().first().copied(),
            _ => None,
        })
        .collect();
    ints.map(Attr::Ints).ok_or(Error::Value { what: "a list of other things than strings or integers" })
}

/// A tensor as the literal that an attribute may take.
pub(super) fn as_literal(t: &Tensor) -> Attr {
    match (t.shape(), t.dtype()) {
        ([], DType::Bool) => Attr::Bool(t.to_bools().first().copied().unwrap_or(false)),
        ([], d) if d.is_float() => Attr::Float(t.to_f32().first().copied().unwrap_or(0.0)),
        ([], _) => Attr::Int(t.to_i64().first().copied().unwrap_or(0)),
        (_, DType::Bool) => Attr::Bools(t.to_bools()),
        (_, d) if d.is_float() => Attr::Floats(t.to_f32().into_owned()),
        _ => Attr::Ints(t.to_i64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_fit_the_type_that_is_stated() {
        let ints = |values: &[i32]| TensorValue {
            value: Some(tensor_value::Value::Ints(tensor_value::RepeatedInts { values: values.to_vec() })),
        };
        for (dtype, good, bad) in [(DType::I8, -128, 128), (DType::U8, 255, -1), (DType::I16, 32767, 32768)] {
            assert!(read_tensor(&ints(&[good]), dtype, &[1]).is_ok(), "{good} as {dtype}");
            assert!(read_tensor(&ints(&[bad]), dtype, &[1]).is_err(), "{bad} as {dtype}");
        }
    }
}
