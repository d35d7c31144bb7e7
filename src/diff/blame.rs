//! Which op is to blame for outputs that are off.

use super::{
    Bisection, Start,
    gap::{gap, taken},
    pair::fixed,
    walk::{Extent, OpGap, Sides, Walk, sweep},
};
use crate::{Diagnostic, chance::drawn_outputs};
use mlconv_mil::ir::{Function, OpId, Value};
use mlconv_tensor::{DType, Tensor};
use serde::Serialize;
use std::collections::HashSet;

/// What can be said of the error of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// There is none.
    Exact,
    /// Its types explain it.
    Explained,
    /// It makes more of it than its types explain.
    Culprit,
    /// It is off, for what it reads is.
    Inherits,
    /// Nothing in the first model is known to be the same.
    NotCompared,
}

/// Why an op is off by more than its types explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Values are beyond what half precision holds.
    Overflows,
    /// It reads weights that are compressed.
    Compressed,
    /// In single precision it is not off.
    Rounds,
    /// It computes something else.
    Differs,
    /// What its types explain could not be told, or whether single precision would do.
    Unknown,
}

/// An op that is off by more than its types explain.
#[derive(Clone, Debug)]
pub struct Culprit {
    /// Its place among the ops of the walk.
    pub at: usize,
    /// What it does.
    pub why: Why,
    /// Signal over noise of the worst output, in dB, were its result and all before it right; `None` where that was not tried.
    pub repaired_snr_db: Option<f64>,
}

/// An error passes as explained up to this power over the noise that types explain, in half precision.
const MARGIN_F16: f64 = 8.0;
/// The same in single precision, where the order of sums makes more of the difference than rounding does.
const MARGIN_F32: f64 = 4096.0;
/// An op that is off by this power over its own error has inherited what it is off by.
const INHERITED: f64 = 4.0;
/// Of so few ops that read compressed weights none is usual, ...
const FEW: usize = 3;
/// ... and what four bits give, in dB, is taken for it.
const ALONE: f64 = 24.0;
/// Decibels below the usual that an op with a compressed weight is noticed at.
const APART: f64 = 6.0;
/// Culprits for which it is tried what becomes of the outputs without them.
const TRIED: usize = 4;
/// Of several culprits those count alike that do so much harm to outputs, of what the worst one does, as a power.
const ALIKE: f64 = 0.1;

/// The compressed weights that count in the own error of each op.
pub fn weights(g: &Function, walk: &Walk) -> Vec<Vec<Compressed>> {
    let fixed = fixed(g);
    let known: HashSet<Value> = walk.ops.iter().flat_map(|op| op.taken.iter().copied()).collect();
    let one = |op: &OpGap| if op.own.is_some() { behind(g, &fixed, &known, op.op) } else { vec![] };
    walk.ops.iter().map(one).collect()
}

/// The noise that is explained in the own error of each op, as a sum of squares; `None` where nothing is known of it.
pub fn allowed(walk: &Walk, weights: &[Vec<Compressed>]) -> Vec<Option<f64>> {
    // A weight that costs much more than others of the model is not compressed as well as it could be.
    let snr = |(op, w): (&OpGap, &Vec<Compressed>)| op.own.as_ref().filter(|_| !w.is_empty())?.snr_db();
    let mut seen: Vec<f64> = walk.ops.iter().zip(weights).filter_map(snr).collect();
    seen.sort_by(f64::total_cmp);
    let usual = if seen.len() < FEW { ALONE } else { seen[seen.len() / 2] - APART };
    let one = |(op, weights): (&OpGap, &Vec<Compressed>)| {
        let own = op.own.as_ref()?;
        let lost = |w: &Compressed| own.gap.signal * 10f64.powf(-w.usual_snr_db().max(usual) / 10.0);
        let margin = if own.halves { MARGIN_F16 } else { MARGIN_F32 };
        Some(own.explained? * margin + weights.iter().map(lost).sum::<f64>())
    };
    walk.ops.iter().zip(weights).map(one).collect()
}

/// What can be said of each op of a walk.
pub fn judge(walk: &Walk, allowed: &[Option<f64>]) -> Vec<State> {
    let one = |(op, allowed): (&OpGap, &Option<f64>)| {
        let Some(total) = &op.total else { return State::NotCompared };
        let Some(own) = &op.own else {
            return if total.is_exact() { State::Exact } else { State::Inherits };
        };
        // Of what cannot be asked again, such as a loop, so much is taken for rounding.
        let allowed = allowed.unwrap_or(own.gap.signal * UNKNOWN);
        if own.gap.non_finite > 0 || own.gap.noise > allowed {
            return if own.tainted { State::Inherits } else { State::Culprit };
        }
        let explained = own.explained.unwrap_or(allowed);
        match total {
            total if total.is_exact() && own.gap.is_exact() => State::Exact,
            total if total.non_finite > 0 || total.noise > INHERITED * own.gap.noise.max(explained) => State::Inherits,
            _ => State::Explained,
        }
    };
    walk.ops.iter().zip(allowed).map(one).collect()
}

/// The part of a value that counts as rounding where nothing is known of it, as a power: 40 dB.
const UNKNOWN: f64 = 1e-4;

/// The ops to blame: those that do most harm to outputs first; of those that do as much as each other, the first of them first.
pub fn culprits(sides: Sides<'_>, found: &Bisection, start: &Start, budget: usize) -> Result<Vec<Culprit>, Diagnostic> {
    let excess = |i: &usize| match &found.walk.ops[*i].own {
        Some(own) if own.gap.non_finite > 0 => f64::INFINITY,
        Some(own) => own.gap.noise / found.allowed[*i].unwrap_or(own.gap.noise).max(f64::MIN_POSITIVE),
        None => 0.0,
    };
    let all: Vec<usize> = (0..found.states.len()).filter(|i| found.states[*i] == State::Culprit).collect();
    // Of many, the first and the loudest are looked at.
    let mut order = all.clone();
    order[all.len().min(TRIED / 2)..].sort_by(|a, b| excess(b).total_cmp(&excess(a)));
    let (tried, others) = order.split_at(all.len().min(TRIED));
    let is_alone = all.len() == 1;
    let mut out: Vec<(f64, Culprit)> = vec![];
    for at in tried {
        let op = found.walk.ops[*at].op;
        let with = |is_right| outputs(sides, found, start, budget, (op, is_right));
        let right = with(true)?;
        let harm = if is_alone { 1.0 } else { harm(sides, start, &right, &with(false)?) };
        let why = why(sides, found, *at, start);
        out.push((harm, Culprit { at: *at, why, repaired_snr_db: worst(sides, start, &right) }));
    }
    let most = out.iter().map(|(harm, _)| *harm).fold(0.0, f64::max);
    let rank = |harm: f64| if harm >= most * ALIKE { f64::INFINITY } else { harm };
    out.sort_by(|(x, a), (y, b)| rank(*y).total_cmp(&rank(*x)).then(a.at.cmp(&b.at)));
    let other = |at: &usize| Culprit { at: *at, why: told(sides, found, *at, None), repaired_snr_db: None };
    Ok(out.into_iter().map(|(_, c)| c).chain(others.iter().map(other)).collect())
}

/// Why an op is off.
fn why(sides: Sides<'_>, found: &Bisection, at: usize, start: &Start) -> Why {
    match told(sides, found, at, None) {
        Why::Unknown => told(sides, found, at, super::is_rounding(sides, found, at, start)),
        why => why,
    }
}

/// Why an op is off, as far as is known; `rounds` is whether single precision would do.
fn told(sides: Sides<'_>, found: &Bisection, at: usize, rounds: Option<bool>) -> Why {
    let half = sides.g.ty(found.walk.ops[at].value).tensor().is_some_and(|t| t.dtype == DType::F16);
    let own = found.walk.ops[at].own.as_ref();
    match (own, rounds) {
        (Some(own), _) if (half || own.halves) && own.gap.non_finite > 0 && own.gap.greatest > 65504.0 => {
            Why::Overflows
        }
        _ if !found.weights[at].is_empty() => Why::Compressed,
        (_, Some(true)) => Why::Rounds,
        (_, Some(false)) => Why::Differs,
        (_, None) => Why::Unknown,
    }
}

/// The outputs of the second model with the values of the first before an op, and for its results as well where it `is_right`.
fn outputs(
    sides: Sides<'_>,
    found: &Bisection,
    start: &Start,
    budget: usize,
    (op, is_right): (OpId, bool),
) -> Result<Vec<Option<Tensor>>, Diagnostic> {
    let mut is_before = true;
    let extent = Extent { start, budget, until: Some(op), led: true };
    let swept = sweep(sides, &found.pairs, extent, &mut |steps, id, wanted| {
        is_before &= id != op;
        for (v, want) in wanted.iter().filter(|_| is_before || (is_right && id == op)) {
            let both = want.as_ref().zip(steps.value(*v));
            if let Some((want, got)) = both.filter(|(want, got)| gap(want, got).is_some()) {
                let (t, _) = taken(want, got);
                steps.replace(*v, t);
            }
        }
    })?;
    Ok(swept.outputs)
}

/// An output of the first model with that of the second, where it has one of the kind.
type Wanted<'o> = (&'o Tensor, Option<&'o Tensor>);

/// The outputs of the first model with those of the second, but for those that follow from random numbers.
fn judged<'o>(sides: Sides<'_>, start: &'o Start, second: &'o [Option<Tensor>]) -> Vec<Wanted<'o>> {
    let drawn = drawn_outputs(sides.g);
    let of = |v: Value| sides.g.outputs().iter().position(|out| *out == v);
    let one = |(at, v): (usize, Value)| {
        let place = of(v).filter(|i| drawn.get(*i) != Some(&true))?;
        Some((start.outputs.get(at)?, second.get(place)?.as_ref()))
    };
    super::outputs(sides.f, sides.g).into_iter().filter_map(one).collect()
}

/// Signal over noise of the worst output, in dB; `None` where one cannot be compared.
fn worst(sides: Sides<'_>, start: &Start, outputs: &[Option<Tensor>]) -> Option<f64> {
    let snr = |(want, got): Wanted<'_>| Some(gap(want, got?)?.snr_db().unwrap_or(EXACT));
    let all: Option<Vec<f64>> = judged(sides, start, outputs).into_iter().map(snr).collect();
    all?.into_iter().reduce(f64::min)
}

/// What stands for no noise at all, in dB.
pub const EXACT: f64 = 999.0;

/// The noise in the worst output between two runs, for what is wanted of it.
fn harm(sides: Sides<'_>, start: &Start, right: &[Option<Tensor>], wrong: &[Option<Tensor>]) -> f64 {
    let of = |(x, y): (Wanted<'_>, Wanted<'_>)| {
        let Some(off) = x.1.zip(y.1).and_then(|(right, wrong)| gap(right, wrong)) else { return f64::INFINITY };
        let signal = gap(x.0, x.0).map_or(0.0, |g| g.signal);
        if off.non_finite > 0 { f64::INFINITY } else { off.noise / signal.max(f64::MIN_POSITIVE) }
    };
    let both = judged(sides, start, right).into_iter().zip(judged(sides, start, wrong));
    both.map(of).fold(0.0, f64::max)
}

/// A weight that an op reads and that is decoded from a smaller form.
#[derive(Clone, Debug, PartialEq)]
pub struct Compressed {
    /// The weight.
    pub weight: Value,
    /// The op that decodes it.
    pub form: String,
    /// Bits for each element.
    pub bits: f64,
}

impl Compressed {
    /// Signal over noise in dB of an op that reads such a weight, at least, where the weight is compressed as well as
    /// usual. Six decibels a bit are what quantization of evenly spread numbers gives; weights are not, and nine are lost.
    pub fn usual_snr_db(&self) -> f64 {
        if self.form.contains("sparse") { 3.0 } else { (6.02 * self.bits.floor() - 9.0).max(0.0) }
    }
}

/// The compressed weights that count in an op's own error: those that it reads, and those of ops between it and values that were
/// `known` from the first model.
fn behind(g: &Function, fixed: &HashSet<OpId>, known: &HashSet<Value>, id: OpId) -> Vec<Compressed> {
    let (mut todo, mut seen, mut out) = (vec![id], HashSet::from([id]), vec![]);
    while let Some(id) = todo.pop() {
        out.extend(compressed(g, fixed, id));
        g.op_data(id).op.visit_operands(&mut |v| {
            let def = g.def_op(v).filter(|def| !known.contains(&v) && !fixed.contains(def));
            todo.extend(def.filter(|def| seen.insert(*def)));
        });
    }
    out
}

/// The compressed weights that an op reads.
pub(crate) fn compressed(g: &Function, fixed: &HashSet<OpId>, id: OpId) -> Vec<Compressed> {
    let mut out = vec![];
    g.op_data(id).op.visit_operands(&mut |v| {
        let (mut todo, mut seen, mut bytes, mut form) = (vec![v], HashSet::new(), 0, None);
        while let Some(at) = todo.pop() {
            let Some(def) = g.def_op(at).filter(|def| fixed.contains(def) && seen.insert(*def)) else { continue };
            let name = g.op_data(def).op.name();
            if name.starts_with("constexpr_") {
                let is_better = form.as_ref().is_none_or(|f: &String| !f.contains("sparse"));
                form = if is_better { Some(name.to_owned()) } else { form };
            }
            bytes += g.constant(at).map_or(0, |t| t.blob().len());
            g.op_data(def).op.visit_operands(&mut |v| todo.push(v));
        }
        let count = g.ty(v).tensor().and_then(|t| t.shape.known()).map(|dims| dims.iter().product::<usize>());
        if let Some((form, count)) = form.zip(count.filter(|n| *n > 0)) {
            out.push(Compressed { weight: v, form, bits: bytes as f64 * 8.0 / count as f64 });
        }
    });
    out
}
