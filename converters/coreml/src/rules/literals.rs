//! Values that are part of a program.

use super::{
    Artifact, Findings,
    view::{Body, show, tensor},
};
use crate::dtypes::{Field, immediate_field};
use mlconv_proto::coreml::mil::{
    Operation, TensorValue, Value,
    argument::binding::Binding,
    tensor_value::Value as Elements,
    value::{BlobFileValue, Value as Kind, immediate_value::Value as Immediate},
};
use mlconv_tensor::{DType, packed_len};

/// From this many elements on, a literal belongs into the weight file.
const LARGE: usize = 10;

/// A value where it stands.
struct Literal<'v> {
    value: &'v Value,
    /// The function it is in, if any.
    body: Option<&'v Body<'v>>,
    place: &'v dyn Fn() -> String,
}

/// Calls `visit` with every value of the program.
fn each(a: &Artifact<'_>, visit: &mut dyn FnMut(&Literal<'_>)) {
    let mut visit_in = |value: &Value, body: Option<&Body<'_>>, place: &dyn Fn() -> String| {
        within(value, &mut |value| visit(&Literal { value, body, place }));
    };
    if let Ok(program) = crate::program(a.model) {
        for (key, value) in &program.attributes {
            visit_in(value, None, &|| key.clone());
        }
    }
    for body in &a.bodies {
        for (key, value) in &body.function.attributes {
            visit_in(value, Some(body), &|| body.value(key));
        }
        for op in body.ops.iter().copied() {
            of_op(op, &mut |value| visit_in(value, Some(body), &|| body.place(op)));
        }
    }
}

fn of_op(op: &Operation, visit: &mut dyn FnMut(&Value)) {
    op.attributes.values().for_each(&mut *visit);
    for b in op.inputs.values().flat_map(|arg| &arg.arguments) {
        if let Some(Binding::Value(value)) = &b.binding {
            visit(value);
        }
    }
}

/// Calls `visit` with `value` and the values in it.
fn within(value: &Value, visit: &mut dyn FnMut(&Value)) {
    visit(value);
    let Some(Kind::ImmediateValue(immediate)) = &value.value else { return };
    match &immediate.value {
        None | Some(Immediate::Tensor(_)) => {}
        Some(Immediate::Tuple(t)) => t.values.iter().for_each(|v| within(v, visit)),
        Some(Immediate::List(l)) => l.values.iter().for_each(|v| within(v, visit)),
        Some(Immediate::Dictionary(d)) => {
            for v in d.values.iter().flat_map(|pair| [&pair.key, &pair.value]).flatten() {
                within(v, visit);
            }
        }
    }
}

/// Calls `visit` with where it is, the value and the reference of every blob.
pub(super) fn each_blob(a: &Artifact<'_>, visit: &mut dyn FnMut(String, &Value, &BlobFileValue)) {
    each(a, &mut |&Literal { value, place, .. }| {
        if let Some(Kind::BlobFileValue(blob)) = &value.value {
            visit(place(), value, blob);
        }
    });
}

/// The elements, if `value` is a tensor that is part of the program.
fn immediate(value: &Value) -> Option<&TensorValue> {
    let Some(Kind::ImmediateValue(i)) = &value.value else { return None };
    let Some(Immediate::Tensor(t)) = &i.value else { return None };
    Some(t)
}

pub(super) fn encoding(a: &Artifact<'_>, out: &mut Findings) {
    each(a, &mut |&Literal { value, place, .. }| {
        let shown = || show(value.r#type.as_ref());
        match &value.value {
            None => return out.add(place(), format!("no elements for {}", shown())),
            Some(Kind::ImmediateValue(i)) if i.value.is_none() => {
                return out.add(place(), format!("no elements for {}", shown()));
            }
            Some(_) => {}
        }
        let Some(elements) = immediate(value) else { return };
        let want = value.r#type.as_ref().and_then(tensor).and_then(|t| Some((t.dtype?, t.count()?)));
        let Some((dtype, count)) = want else { return out.add(place(), format!("elements for {}", shown())) };
        if !holds(elements, dtype, count) {
            out.add(place(), format!("{} for {}", counted(elements), shown()));
        }
    });
}

fn holds(elements: &TensorValue, dtype: DType, count: usize) -> bool {
    let fits = |v: &i32| dtype.int_range().is_some_and(|(least, most)| (least..=most).contains(&i128::from(*v)));
    match (immediate_field(dtype), &elements.value) {
        (Field::Bytes, Some(Elements::Bytes(b))) => packed_len(count, dtype.bits()) == Some(b.values.len()),
        (Field::Ints, Some(Elements::Ints(v))) => v.values.len() == count && v.values.iter().all(fits),
        (Field::LongInts, Some(Elements::LongInts(v))) => v.values.len() == count,
        (Field::Floats, Some(Elements::Floats(v))) => v.values.len() == count,
        (Field::Doubles, Some(Elements::Doubles(v))) => v.values.len() == count,
        (Field::Bools, Some(Elements::Bools(v))) => v.values.len() == count,
        (Field::Strings, Some(Elements::Strings(v))) => v.values.len() == count,
        _ => false,
    }
}

fn counted(elements: &TensorValue) -> String {
    let (count, field) = match &elements.value {
        None => return "nothing".into(),
        Some(Elements::Bytes(b)) => (b.values.len(), "bytes"),
        Some(Elements::Ints(v)) => (v.values.len(), "ints"),
        Some(Elements::LongInts(v)) => (v.values.len(), "longInts"),
        Some(Elements::Floats(v)) => (v.values.len(), "floats"),
        Some(Elements::Doubles(v)) => (v.values.len(), "doubles"),
        Some(Elements::Bools(v)) => (v.values.len(), "bools"),
        Some(Elements::Strings(v)) => (v.values.len(), "strings"),
    };
    format!("{count} `{field}`")
}

pub(super) fn large(a: &Artifact<'_>, out: &mut Findings) {
    each(a, &mut |&Literal { value, body, place }| {
        let Some(t) = immediate(value).and(value.r#type.as_ref()).and_then(tensor) else { return };
        let filed = match t.dtype {
            Some(DType::F16 | DType::F32 | DType::I8 | DType::U8) => true,
            Some(DType::I16 | DType::U16 | DType::I32 | DType::U32) => body.is_some_and(|b| b.since(9)),
            _ => false,
        };
        if filed && t.count().is_some_and(|n| n >= LARGE) {
            out.add(place(), show(value.r#type.as_ref()));
        }
    });
}
