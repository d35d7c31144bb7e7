//! Types of values.

use super::{
    Artifact, Findings,
    view::{Body, is_constexpr, is_weight, show, state, tensor},
};
use mlconv_proto::coreml::{mil, mil::argument::binding::Binding};
use mlconv_tensor::DType;

pub(crate) const MAX_RANK: usize = 5;

/// The values of a function with where they come from; `None` for inputs and arguments of blocks.
fn values<'a>(body: &Body<'a>) -> Vec<(&'a mil::NamedValueType, Option<&'a mil::Operation>)> {
    let inputs = body.function.inputs.iter().map(|v| (v, None));
    let ops = body.ops.iter().flat_map(|o| {
        let results = o.outputs.iter().map(|v| (v, Some(*o)));
        results.chain(o.blocks.iter().flat_map(|b| b.inputs.iter().map(|v| (v, None))))
    });
    inputs.chain(ops).collect()
}

pub(super) fn declared(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        for (v, op) in values(body) {
            if !is_complete(v.r#type.as_ref()) {
                out.add(body.value(&v.name), show(v.r#type.as_ref()));
                continue;
            }
            let Some(want) = op.and_then(|op| inferred(body, op)) else { continue };
            if !same(v.r#type.as_ref(), Some(want)) {
                out.add(body.value(&v.name), format!("{} for {}", show(v.r#type.as_ref()), show(Some(want))));
            }
        }
    }
}

/// The only result's type, of operations that say it themselves.
fn inferred<'a>(body: &Body<'a>, op: &'a mil::Operation) -> Option<&'a mil::ValueType> {
    match op.r#type.as_str() {
        "const" => op.attributes.get("val")?.r#type.as_ref(),
        "identity" => body.operands(op, "x").first().copied(),
        "read_state" => match &body.operands(op, "input").first()?.r#type {
            Some(mil::value_type::Type::StateType(s)) => s.wrapped_type.as_deref(),
            _ => None,
        },
        _ => None,
    }
}

/// Whether two types are equal up to attributes.
fn same(a: Option<&mil::ValueType>, b: Option<&mil::ValueType>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    match (tensor(a), tensor(b)) {
        (Some(a), Some(b)) => a.dtype == b.dtype && a.dims == b.dims,
        _ => a == b,
    }
}

fn is_complete(ty: Option<&mil::ValueType>) -> bool {
    use mil::value_type::Type as T;
    match ty.and_then(|t| t.r#type.as_ref()) {
        None => false,
        Some(T::TensorType(t)) => {
            crate::dtype_of(t.data_type).is_some()
                && usize::try_from(t.rank) == Ok(t.dimensions.len())
                && t.dimensions.iter().all(|d| match d.dimension {
                    Some(mil::dimension::Dimension::Constant(_)) => true,
                    Some(mil::dimension::Dimension::Unknown(ref u)) => !u.variadic,
                    None => false,
                })
        }
        Some(T::ListType(l)) => l.r#type.is_some() && l.length.is_some(),
        Some(T::TupleType(_)) => true,
        Some(T::DictionaryType(d)) => d.key_type.is_some() && d.value_type.is_some(),
        Some(T::StateType(s)) => is_complete(s.wrapped_type.as_deref()),
    }
}

pub(super) fn rank(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        let mut high = |place: String, ty: Option<&mil::ValueType>| {
            let rank = ty.and_then(|t| tensor(t).or(state(t))).map_or(0, |t| t.dims.len());
            if rank > MAX_RANK {
                out.add(place, show(ty));
            }
        };
        for (v, op) in values(body) {
            let compressed = op.is_some_and(|op| is_weight(&op.r#type))
                && body.users(&v.name).iter().all(|u| is_constexpr(&u.r#type))
                && !body.is_returned(&v.name);
            if !compressed {
                high(body.value(&v.name), v.r#type.as_ref());
            }
        }
        for op in body.ops.iter().copied().filter(|op| !is_constexpr(&op.r#type)) {
            for b in op.inputs.values().flat_map(|arg| &arg.arguments) {
                if let Some(Binding::Value(value)) = &b.binding {
                    high(body.place(op), value.r#type.as_ref());
                }
            }
        }
    }
}

pub(super) fn elements(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        for (v, op) in values(body) {
            // A classifier's results are types of their own.
            if op.is_some_and(|op| op.r#type == "classify") {
                continue;
            }
            let Some(t) = v.r#type.as_ref().and_then(|t| tensor(t).or(state(t))) else { continue };
            let runs = match t.dtype {
                None => true,
                Some(DType::F16 | DType::F32 | DType::I32 | DType::Bool | DType::Str) => true,
                Some(DType::I8 | DType::U8 | DType::I16 | DType::U16) => body.since(8),
                // A few parameters are of this type.
                Some(DType::U32) => op.is_some_and(|op| op.r#type == "const"),
                Some(_) => op.is_some_and(|op| is_constexpr(&op.r#type)),
            };
            if !runs {
                out.add(body.value(&v.name), show(v.r#type.as_ref()));
            }
        }
    }
}
