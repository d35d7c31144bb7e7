//! Buffers that outlive a call.

use super::{
    Artifact, Findings,
    interface::{array_dtype, describe, is_optional, kind, place},
    view::{bindings, is_state, reads, show, state},
};
use mlconv_proto::coreml::{
    FeatureDescription, feature_type::Type, mil::argument::binding::Binding, state_feature_type as sft,
};
use mlconv_tensor::DType;

pub(super) fn features(a: &Artifact<'_>, out: &mut Findings) {
    for i in &a.interfaces {
        for feature in i.states {
            if a.version() < 9 {
                out.add(place(i, feature), format!("a state in version {}", a.version()));
            }
            if !is_static_half(feature) || is_optional(feature) {
                out.add(place(i, feature), describe(feature));
            }
        }
    }
    for (i, body) in a.described() {
        for feature in i.states {
            let Some(ty) = body.ty(&feature.name) else { continue };
            let shape = match kind(feature) {
                Some(Type::StateType(s)) => s.r#type.as_ref().map(|sft::Type::ArrayType(array)| &array.shape),
                _ => None,
            };
            let same = state(ty).is_some_and(|t| {
                let dims = t.dims.iter().map(|d| d.and_then(|d| i64::try_from(d).ok()));
                t.dtype == Some(DType::F16) && shape.is_some_and(|s| dims.eq(s.iter().copied().map(Some)))
            });
            if !same {
                out.add(place(i, feature), format!("{} for a state of shape {shape:?}", show(Some(ty))));
            }
        }
    }
}

fn is_static_half(feature: &FeatureDescription) -> bool {
    let Some(Type::StateType(s)) = kind(feature) else { return false };
    let Some(sft::Type::ArrayType(array)) = &s.r#type else { return false };
    array_dtype(array) == Some(DType::F16)
        && !array.shape.is_empty()
        && array.shape.iter().all(|d| *d >= 1)
        && array.shape_flexibility.is_none()
        && array.default_optional_value.is_none()
}

pub(super) fn ops(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        let names_state = |name: &str| body.ty(name).is_some_and(is_state);
        for op in body.ops.iter().copied() {
            let place = || body.place(op);
            let accesses = matches!(op.r#type.as_str(), "read_state" | "write_state");
            if accesses {
                let on_state = bindings(op, "input").any(|b| matches!(b, Binding::Name(n) if names_state(n)));
                if !on_state {
                    out.add(place(), "its `input` is no state");
                }
            }
            let others = op.inputs.iter().filter(|(param, _)| !accesses || *param != "input");
            let strays = others
                .flat_map(|(_, arg)| &arg.arguments)
                .filter(|b| matches!(&b.binding, Some(Binding::Name(n)) if names_state(n)));
            if strays.count() > 0 {
                out.add(place(), "an operand that is a state");
            }
            if op.r#type == "write_state" && !op.outputs.is_empty() {
                out.add(place(), "a result");
            }
            if op.r#type == "write_state" && reads(op).count() < 2 && bindings(op, "data").next().is_none() {
                out.add(place(), "no `data`");
            }
        }
    }
}
