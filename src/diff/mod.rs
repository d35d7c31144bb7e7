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
mod start;
mod walk;
mod weights;

pub use blame::{Compressed, Culprit, State, Why};
pub use pair::{Pairs, computed, fixed, outputs};
pub(crate) use report::place;
pub use report::{bisection_json, bisection_text, ops_json, ops_text};
pub use start::Start;
pub use walk::{OpGap, Own, Sides, Walk, walk};
pub use weights::Sources;

use crate::{
    Diagnostic,
    parity::{self, Given, Parity, Scope},
};
use extract::Part;
use mlconv_mil::{
    ir::Value,
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
    /// The compressed weights that count in each op's own error.
    pub weights: Vec<Vec<Compressed>>,
    /// The noise that is explained in each op's own error, as a sum of squares; `None` where nothing is known of it.
    pub allowed: Vec<Option<f64>>,
    /// What can be said of each op of the walk.
    pub states: Vec<State>,
    /// The ops to blame, the first of them first.
    pub culprits: Vec<Culprit>,
    /// Outputs that follow from constants alone, and differ.
    pub constants: Vec<String>,
    /// Whether the outputs are within the tolerance.
    pub pass: bool,
}

/// What was found in one function of two models.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The places of the function in both models.
    pub at: [usize; 2],
    /// What was found.
    pub bisection: Bisection,
    /// What both ran on.
    pub start: Start,
}

impl Examined {
    /// The function in both models.
    pub fn sides<'b>(&self, source: &'b Verified, package: &'b Verified) -> Sides<'b> {
        Sides { a: source, f: &source.functions[self.at[0]], b: package, g: &package.functions[self.at[1]] }
    }
}

/// Compares each function value by value, on the inputs that its worst output in `parity` is of, which is of `given` and `scope`.
pub fn examine(
    source: &Verified,
    package: &Verified,
    (given, scope): (Given<'_>, &Scope<'_>),
    parity: &Parity,
    budget: usize,
) -> Result<Vec<Examined>, Diagnostic> {
    let mut out = vec![];
    for (j, g) in package.functions.iter().enumerate() {
        let i = source.functions.iter().position(|f| f.name == g.name).unwrap_or(0);
        let Some(f) = source.functions.get(i) else { continue };
        let sides = Sides { a: source, f, b: package, g };
        let (pass, worst) = parity.worst_of(package, g);
        let Some(calls) = parity::leading(source, package, g, (given, scope), worst) else { continue };
        let start = Start::last_of(sides, calls)?;
        let bisection = bisect(sides, &start, pass, budget)?;
        out.push(Examined { at: [i, j], bisection, start });
    }
    Ok(out)
}

/// Compares two models from `start`, holding at most `budget` bytes of values for later; `pass` is whether outputs are within the
/// tolerance.
pub fn bisect(sides: Sides<'_>, start: &Start, pass: bool, budget: usize) -> Result<Bisection, Diagnostic> {
    let named = Pairs::named(sides.f, sides.g);
    let are_told = named.are_told(sides.f, sides.g);
    let by_value = || alike::paired(sides, (&named, are_told), start, budget);
    let found = found(sides, if are_told { named.clone() } else { by_value()? }, start, pass, budget)?;
    if are_told && found.culprits.len() >= if pass { 1 } else { 2 } {
        // Names that were given to other values make culprits of ops in which nothing is wrong.
        let again = self::found(sides, by_value()?, start, pass, budget)?;
        if again.culprits.len() < found.culprits.len() {
            return Ok(again);
        }
    }
    Ok(found)
}

/// Compares the values of two models that are pairs.
fn found(sides: Sides<'_>, pairs: Pairs, start: &Start, pass: bool, budget: usize) -> Result<Bisection, Diagnostic> {
    let walk = walk(sides, &pairs, start, budget)?;
    let weights = blame::weights(sides.g, &walk);
    let allowed = blame::allowed(&walk, &weights);
    let states = blame::judge(&walk, &allowed);
    let constants = constants(sides, start);
    let mut found = Bisection { pairs, walk, weights, allowed, states, culprits: vec![], constants, pass };
    found.culprits = blame::culprits(sides, &found, start, budget)?;
    Ok(found)
}

/// Outputs of the second model that follow from constants alone, and differ.
fn constants(sides: Sides<'_>, start: &Start) -> Vec<String> {
    let fixed = fixed(sides.g);
    let is_fixed = |v: &Value| sides.g.def_op(*v).is_some_and(|id| fixed.contains(&id));
    let all: Vec<(usize, Value)> = outputs(sides.f, sides.g).into_iter().filter(|(_, v)| is_fixed(v)).collect();
    if all.is_empty() {
        return vec![];
    }
    let second = Session::new(sides.b, sides.g, &Cpu, Options::default());
    let Ok(got) = second.run(&start.given, &mut start.states[1].clone()) else { return vec![] };
    let differs = |(at, v): &(usize, Value)| {
        let place = sides.g.outputs().iter().position(|out| out == v)?;
        let off = gap::gap(start.outputs.get(*at)?, got.get(place)?)?;
        (off.snr_db().unwrap_or(blame::EXACT) < CONSTANT).then(|| sides.g.sig.outputs[place].name.to_string())
    };
    all.iter().filter_map(differs).collect()
}

/// From this on, in dB, two constants are the same: half precision gives 70.
const CONSTANT: f64 = 50.0;

impl Bisection {
    /// Signal over noise in dB that is explained in the own error of an op of the walk.
    pub fn explained_db(&self, at: usize) -> Option<f64> {
        gap::decibels(self.walk.ops.get(at)?.own.as_ref()?.gap.signal, (*self.allowed.get(at)?)?)
    }

    /// The op of the walk that adds the most noise of its own, where that is as much as outputs may have.
    pub fn loudest(&self) -> Option<usize> {
        let noise = |op: &OpGap| op.own.as_ref().and_then(Own::snr_db).unwrap_or(f64::INFINITY);
        let loudest = self.walk.ops.iter().map(noise).enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(loudest.0).filter(|_| loudest.1 < LOUD)
    }

    /// How many ops were compared with values of the first model.
    pub fn compared(&self) -> usize {
        self.states.iter().filter(|s| **s != State::NotCompared).count()
    }

    /// What comes of it in a word.
    pub fn verdict(&self) -> Verdict {
        let is_exact = || self.states.iter().all(|s| matches!(s, State::Exact | State::NotCompared));
        match self.culprits.is_empty() {
            false => Verdict::Found,
            true if self.pass && is_exact() => Verdict::Agrees,
            true if !self.pass && (is_exact() || self.compared() * 2 < self.states.len()) => Verdict::Unknown,
            true => Verdict::Accumulates,
        }
    }
}

/// An op below this, in dB, adds more noise than outputs may have.
const LOUD: f64 = 40.0;

/// What comes of a comparison value by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There are ops to blame.
    Found,
    /// Whatever was compared is the same.
    Agrees,
    /// No op is off by more than its types explain.
    Accumulates,
    /// Outputs differ, and too little was compared to say why.
    Unknown,
}

impl Verdict {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Agrees => "agrees",
            Self::Accumulates => "accumulates",
            Self::Unknown => "unknown",
        }
    }
}

/// The end of the second model up to an op of a walk, from where values of the first are known.
pub struct Cut {
    /// What leads to the op.
    pub part: Part,
    /// What it begins with in the first model.
    pub exact: Vec<Tensor>,
    /// The same, as the second model's types hold it.
    pub begins: Vec<Tensor>,
    /// What the first model has for its result.
    pub want: Option<Tensor>,
}

/// The part of the second model that ends with an op of a walk, and what it begins with, of the first model where that has it.
pub fn cut(sides: Sides<'_>, found: &Bisection, at: usize, start: &Start) -> Option<Cut> {
    let (v, pairs) = (found.walk.ops.get(at)?.value, &found.pairs);
    let part = Part::ending_with(sides.g, &found.walk, v);
    let mut of_first: HashMap<Value, Tensor> = HashMap::new();
    let wanted: Vec<Value> = part.inputs.iter().chain([&v]).filter_map(|v| pairs.of(*v)).collect();
    let mut hold = |a: Value, t: &Tensor| {
        if wanted.contains(&a) {
            of_first.insert(a, t.clone());
        }
    };
    let session = Session::new(sides.a, sides.f, &Cpu, Options::default());
    session.run_observed(&start.inputs, &mut start.states[0].clone(), Some(&mut hold)).ok()?;
    let tensors = sides.g.inputs().iter().filter(|v| sides.g.ty(**v).tensor().is_some());
    let given: HashMap<Value, Tensor> = tensors.zip(&start.given).filter_map(|(v, t)| Some((*v, t.clone()?))).collect();
    let one = |v: &Value| {
        let ty = sides.g.ty(*v).tensor()?;
        given.get(v).map(|t| (t.clone(), t.clone())).or_else(|| {
            let t = of_first.get(&pairs.of(*v)?)?;
            let as_held = t.cast(ty.dtype);
            Some((t.reshape(as_held.shape()), gap::taken(t, &as_held).0))
        })
    };
    let (exact, begins) = part.inputs.iter().map(one).collect::<Option<Vec<_>>>()?.into_iter().unzip();
    let want = pairs.of(v).and_then(|a| of_first.get(&a).cloned());
    Some(Cut { part, exact, begins, want })
}

/// Whether an op that is off is not in single precision; `None` where that cannot be tried.
fn is_rounding(sides: Sides<'_>, found: &Bisection, at: usize, start: &Start) -> Option<bool> {
    let own = &found.walk.ops.get(at)?.own.as_ref()?.gap;
    let Cut { part, exact, want, .. } = cut(sides, found, at, start)?;
    let module = verify(part.program(sides.g, &exact, Some(&Sources::of(sides)))?).ok()?;
    let f = module.functions.first()?;
    let wide: Vec<Option<Tensor>> =
        exact.iter().zip(crate::feed::tensor_inputs(f)).map(|(t, (_, ty))| Some(t.cast(ty.dtype))).collect();
    let got = Session::new(&module, f, &Cpu, Options::default()).run(&wide, &mut States::new()).ok()?;
    let single = gap::gap(&want?, got.first()?)?;
    // An eighth of the noise is nine decibels less of it.
    Some(single.non_finite == 0 && (own.non_finite > 0 || single.noise * 8.0 < own.noise))
}
