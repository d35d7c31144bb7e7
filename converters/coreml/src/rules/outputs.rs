//! What functions take and return.

use super::{
    Artifact, Findings,
    view::{Body, is_state, is_weight, show, tensor},
};
use std::collections::BTreeSet;

fn returned<'a>(body: &Body<'a>) -> impl Iterator<Item = &'a str> {
    body.block.into_iter().flat_map(|b| b.outputs.iter().map(String::as_str))
}

pub(super) fn not_inputs(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        for name in returned(body).filter(|n| body.function.inputs.iter().any(|v| v.name == *n)) {
            out.add(body.value(name), "an input and an output");
        }
    }
}

pub(super) fn computed(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        for name in returned(body) {
            if let Some(op) = body.def(name).filter(|op| is_weight(&op.r#type)) {
                out.add(body.value(name), format!("the result of `{}`", op.r#type));
            }
        }
    }
}

pub(super) fn distinct(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        let mut seen = BTreeSet::new();
        for name in returned(body).filter(|n| !seen.insert(*n)) {
            out.add(body.value(name), "returned twice");
        }
    }
}

pub(super) fn used(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        for v in body.function.inputs.iter().filter(|v| !v.r#type.as_ref().is_some_and(is_state)) {
            if body.users(&v.name).is_empty() && !body.is_returned(&v.name) {
                out.add(body.value(&v.name), "not read");
            }
        }
    }
}

pub(super) fn scalars(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        // A classifier's label is a scalar.
        let outputs = returned(body).filter(|n| body.def(n).is_none_or(|op| op.r#type != "classify"));
        let names: BTreeSet<&str> = body.function.inputs.iter().map(|v| v.name.as_str()).chain(outputs).collect();
        for name in names {
            let ty = body.ty(name);
            if ty.and_then(tensor).is_some_and(|t| t.dims.is_empty()) {
                out.add(body.value(name), show(ty));
            }
        }
    }
}
