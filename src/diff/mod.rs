//! Two models value by value: where they part, which op is to blame, and what mends it.
//!
//! [`Pairs`] says which values of both are the same, by their names, or by what they are. [`walk`] runs both side by side, and
//! [`blame`] judges what was seen. [`extract`] and [`reduce`] take the op to blame out of its model, [`recipe`] looks for what
//! to keep in single precision, and [`exceptions`] for weights to leave as they are. [`recorded`] compares a model with tensors
//! from elsewhere.

mod alike;
pub mod blame;
pub mod exceptions;
pub mod extract;
pub mod gap;
mod pair;
pub mod range;
pub mod recipe;
pub mod recorded;
pub mod reduce;
mod report;
mod walk;
mod weights;

pub use blame::{Culprit, State, Why};
pub use pair::{Pairs, computed, fixed};
pub(crate) use report::place;
pub use report::{bisection_json, bisection_text, ops_json, ops_text};
pub use walk::{OpGap, Sides, Walk, walk};
pub use weights::Sources;

use crate::{
    Diagnostic,
    parity::{Given, Parity},
};
use extract::Part;
use mlconv_mil::{
    ir::{Function, Value},
    verify::{Verified, verify},
};
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::Tensor;
use std::collections::HashMap;

/// What a comparison value by value has found.
#[derive(Clone, Debug)]
pub struct Bisection {
    /// Which values are the same.
    pub pairs: Pairs,
    /// What was seen.
    pub walk: Walk,
    /// The noise that is explained in each op's own error, as a sum of squares.
    pub allowed: Vec<f64>,
    /// What can be said of each op of the walk.
    pub states: Vec<State>,
    /// The ops to blame, the first of them first.
    pub culprits: Vec<Culprit>,
}

/// What was found in one function of two models.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The places of the function in both models.
    pub at: [usize; 2],
    /// What was found.
    pub bisection: Bisection,
    /// What both ran on.
    pub inputs: Vec<Option<Tensor>>,
}

impl Examined {
    /// The function in both models.
    pub fn sides<'b>(&self, source: &'b Verified, package: &'b Verified) -> Sides<'b> {
        Sides { a: source, f: &source.functions[self.at[0]], b: package, g: &package.functions[self.at[1]] }
    }
}

/// Compares each function value by value, on the inputs that the worst output of `parity` is of.
pub fn examine(
    source: &Verified,
    package: &Verified,
    given: Given<'_>,
    parity: &Parity,
    budget: usize,
) -> Result<Vec<Examined>, Diagnostic> {
    let worst = parity.outputs.iter().find(|o| !o.pass).or(parity.outputs.first()).map_or(0, |o| o.worst_sample);
    let mut out = vec![];
    for (j, g) in package.functions.iter().enumerate() {
        let i = source.functions.iter().position(|f| f.name == g.name).unwrap_or(0);
        let Some(f) = source.functions.get(i) else { continue };
        let Some(inputs) = recipe::inputs(source, (f, g), given, worst) else { continue };
        let bisection = bisect(Sides { a: source, f, b: package, g }, &inputs, budget)?;
        out.push(Examined { at: [i, j], bisection, inputs });
    }
    Ok(out)
}

/// Compares two models on the first's `inputs`, holding at most `budget` bytes of values for later.
pub fn bisect(sides: Sides<'_>, inputs: &[Option<Tensor>], budget: usize) -> Result<Bisection, Diagnostic> {
    let mut pairs = Pairs::named(sides.f, sides.g);
    if !pairs.are_told(sides.f, sides.g) {
        pairs = alike::paired(sides, &pairs, inputs, budget)?;
    }
    let walk = walk(sides, &pairs, inputs, budget)?;
    let allowed = blame::allowed(sides.g, &walk);
    let states = blame::judge(&walk, &allowed);
    let mut culprits = blame::culprits(sides, &walk, (&allowed, &states), inputs)?;
    if let Some(first) = culprits.first_mut()
        && first.why == Why::Differs
        && is_rounding(sides, (&walk, &pairs), first.at, inputs)
    {
        first.why = Why::Rounds;
    }
    Ok(Bisection { pairs, walk, allowed, states, culprits })
}

impl Bisection {
    /// Signal over noise in dB that is explained in the own error of an op of the walk.
    pub fn explained_db(&self, at: usize) -> Option<f64> {
        gap::decibels(self.walk.ops.get(at)?.own.as_ref()?.signal, *self.allowed.get(at)?)
    }
}

/// The position of each output of the first function, and the value of the second that it is compared with.
pub fn outputs(f: &Function, g: &Function) -> Vec<(usize, Value)> {
    let same = |i: usize| {
        let port = &g.sig.outputs[i];
        let named = f.sig.outputs.iter().position(|p| crate::parity::same_port(p, port));
        named.unwrap_or(i)
    };
    g.outputs().iter().enumerate().map(|(i, v)| (same(i), *v)).collect()
}

/// The part of the second model that ends with an op of a walk, and what it begins with, of the first model where that has it.
pub fn part(
    sides: Sides<'_>,
    (walk, pairs): (&Walk, &Pairs),
    at: usize,
    inputs: &[Option<Tensor>],
) -> Option<(Part, Vec<Tensor>, Option<Tensor>)> {
    let v = walk.ops.get(at)?.value;
    let part = Part::ending_with(sides.g, walk, v);
    let mut of_first: HashMap<Value, Tensor> = HashMap::new();
    let wanted: Vec<Value> = part.inputs.iter().chain([&v]).filter_map(|v| pairs.of(*v)).collect();
    let mut hold = |a: Value, t: &Tensor| {
        if wanted.contains(&a) {
            of_first.insert(a, t.clone());
        }
    };
    let session = Session::new(sides.a, sides.f, &Cpu, Options::default());
    session.run_observed(inputs, &mut States::new(), Some(&mut hold)).ok()?;
    let given = crate::feed::match_inputs(sides.g, &crate::feed::as_arrays(sides.f, inputs)).ok()?;
    let tensors = sides.g.inputs().iter().filter(|v| sides.g.ty(**v).tensor().is_some());
    let given: HashMap<Value, Tensor> = tensors.zip(given).filter_map(|(v, t)| Some((*v, t?))).collect();
    let one = |v: &Value| {
        let dtype = sides.g.ty(*v).tensor()?.dtype;
        given.get(v).cloned().or_else(|| {
            let t = of_first.get(&pairs.of(*v)?)?;
            Some(gap::taken(t, &t.cast(dtype)).0)
        })
    };
    let begins = part.inputs.iter().map(one).collect::<Option<Vec<_>>>()?;
    let want = pairs.of(v).and_then(|a| of_first.get(&a).cloned());
    Some((part, begins, want))
}

/// Whether an op that is off is not in single precision.
fn is_rounding(sides: Sides<'_>, (walk, pairs): (&Walk, &Pairs), at: usize, inputs: &[Option<Tensor>]) -> bool {
    let again = || {
        let (part, begins, want) = part(sides, (walk, pairs), at, inputs)?;
        let module = verify(part.program(sides.g, &begins, true)?).ok()?;
        let f = module.functions.first()?;
        let wide: Vec<Option<Tensor>> =
            begins.iter().zip(crate::feed::tensor_inputs(f)).map(|(t, (_, ty))| Some(t.cast(ty.dtype))).collect();
        let got = Session::new(&module, f, &Cpu, Options::default()).run(&wide, &mut States::new()).ok()?;
        gap::gap(&want?, got.first()?, true)
    };
    let own = walk.ops.get(at).and_then(|op| op.own.as_ref());
    match (own, again()) {
        // An eighth of the noise is nine decibels less of it.
        (Some(own), Some(single)) => single.non_finite == 0 && (own.non_finite > 0 || single.noise * 8.0 < own.noise),
        _ => false,
    }
}
