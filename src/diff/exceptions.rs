//! Which weights must stay as they were for outputs to be within the tolerance: the fewest that were found to do.

use super::{
    Examined, Sides,
    recipe::{Keeps, Recipe, fewest, tried},
};
use crate::{
    convert::Job,
    model::Format,
    parity::{self, Given, Parity, Scope},
    witness::Chosen,
};
use mlconv_mil::{
    ir::{Function, Place, Value},
    ops::Const,
    text::Namer,
    verify::{Verified, verify},
};
use mlconv_tensor::Tensor;
use std::{collections::HashMap, slice};

/// Finds weights of `package` with which left as they are in `source` its outputs on `given` are within the tolerance of `parity`.
/// Where the source is no package, `job` makes one of it without compressing. `None` where none are found.
pub fn search(
    source: &Verified,
    package: &Verified,
    (job, format): (&Job, Format),
    given: Given<'_>,
    parity: &Parity,
    found: &[(Sides<'_>, &Examined)],
) -> Option<Recipe> {
    let plain = match format {
        Format::Package => source.clone(),
        _ => tried(source, job, format, given, parity, &[])?.0,
    };
    let suspects: Vec<String> =
        suspects(found).into_iter().filter(|n| with_weights(package, &plain, slice::from_ref(n)).is_some()).collect();
    let passes = |names: &[String]| {
        let module = with_weights(package, &plain, names)?;
        let scope = Scope { fast: true, ..Scope::quick(parity.tolerance) };
        parity::compared(source, &module, given, &scope, Chosen::kernels(format)).ok().filter(Parity::pass)
    };
    let mut most = 1;
    let (names, parity) = loop {
        let names = suspects.get(..most.min(suspects.len()))?.to_vec();
        match passes(&names) {
            Some(parity) if !names.is_empty() => break (names, parity),
            _ if most >= suspects.len() => return None,
            _ => most *= 2,
        }
    };
    Some(fewest(Recipe { keeps: Keeps::Weights, names, parity, again: None }, 0, passes))
}

/// Names of compressed weights: those of ops to blame first, then those of the ops with the most noise of their own.
fn suspects(found: &[(Sides<'_>, &Examined)]) -> Vec<String> {
    let mut all: Vec<(f64, String)> = vec![];
    for (sides, one) in found {
        for (at, (op, weights)) in one.bisection.walk.ops.iter().zip(&one.bisection.weights).enumerate() {
            let rank = one.bisection.culprits.iter().position(|c| c.at == at).map(|rank| rank as f64 - 1e6);
            let Some(key) = rank.or_else(|| op.own.as_ref()?.snr_db()) else { continue };
            all.extend(weights.iter().map(|w| (key, sides.g.value(w.weight).hint.to_string())));
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut names: Vec<String> = vec![];
    for (_, name) in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A package with some of its compressed weights as they are in another; `None` where that has none of such a name and type.
fn with_weights(package: &Verified, plain: &Verified, names: &[String]) -> Option<Verified> {
    let constants = |f: &Function| -> HashMap<String, Tensor> {
        let all = f.ops().flat_map(|id| f.op_data(id).results.to_vec());
        all.filter_map(|v| Some((Namer::legal(&f.value(v).hint), f.constant(v)?.clone()))).collect()
    };
    let mut module = package.clone().into_inner();
    for g in &mut module.functions {
        let f = plain.functions.iter().find(|f| f.name == g.name).or(plain.functions.first())?;
        let constants = constants(f);
        let all = g.ops().flat_map(|id| g.op_data(id).results.to_vec());
        let is_meant = |v: &Value| g.constant(*v).is_none() && names.iter().any(|n| **n == *g.value(*v).hint);
        let decoded: Vec<Value> = all.filter(is_meant).collect();
        for v in decoded {
            let hint = g.value(v).hint.to_string();
            let ty = g.ty(v).tensor()?.clone();
            let val = constants.get(&Namer::legal(&hint))?.cast(ty.dtype);
            let (before, origin) = g.def_op(v).map(|id| (Place::Before(id), g.op_data(id).origin))?;
            let new = g.insert(before, &[&hint], Box::new(Const { val }), origin).ok()?[0];
            if g.ty(new) != g.ty(v) {
                return None;
            }
            g.replace_uses(v, new);
        }
    }
    verify(module).ok()
}
