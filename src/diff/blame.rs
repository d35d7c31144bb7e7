//! Which op is to blame for outputs that are off.

use super::{
    gap::{gap, taken},
    pair::fixed,
    walk::{OpGap, Sides, Walk},
};
use crate::{Diagnostic, feed, parity::run_error};
use mlconv_mil::ir::{Function, OpId, Value};
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::{DType, Tensor};
use serde::Serialize;
use std::collections::{HashMap, HashSet};

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
}

/// An op that is off by more than its types explain.
#[derive(Clone, Debug)]
pub struct Culprit {
    /// Its place among the ops of the walk.
    pub at: usize,
    /// What it does.
    pub why: Why,
    /// Signal over noise of the worst output, in dB, were its result right; `None` where that cannot be tried.
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

/// The noise that is explained in the own error of each op, as a sum of squares.
pub fn allowed(g: &Function, walk: &Walk) -> Vec<f64> {
    let (fixed, known) = (fixed(g), known(walk));
    let behind = |op: &OpGap| if op.own.is_some() { behind(g, &fixed, &known, op.op) } else { vec![] };
    let weights: Vec<Vec<Compressed>> = walk.ops.iter().map(behind).collect();
    // A weight that costs much more than others of the model is not compressed as well as it could be.
    let snr = |(op, w): (&OpGap, &Vec<Compressed>)| op.own.as_ref().filter(|_| !w.is_empty())?.snr_db();
    let mut seen: Vec<f64> = walk.ops.iter().zip(&weights).filter_map(snr).collect();
    seen.sort_by(f64::total_cmp);
    let usual = if seen.len() < FEW { ALONE } else { seen[seen.len() / 2] - APART };
    let one = |(op, weights): (&OpGap, &Vec<Compressed>)| {
        let signal = op.own.as_ref().map_or(0.0, |own| own.signal);
        let lost = |w: &Compressed| signal * 10f64.powf(-w.usual_snr_db().max(usual) / 10.0);
        op.explained * if op.halves { MARGIN_F16 } else { MARGIN_F32 } + weights.iter().map(lost).sum::<f64>()
    };
    walk.ops.iter().zip(&weights).map(one).collect()
}

/// What can be said of each op of a walk.
pub fn judge(walk: &Walk, allowed: &[f64]) -> Vec<State> {
    let one = |(op, allowed): (&OpGap, &f64)| {
        let Some(total) = &op.total else { return State::NotCompared };
        let Some(own) = &op.own else {
            return if total.is_exact() { State::Exact } else { State::Inherits };
        };
        if own.non_finite > 0 || own.noise > *allowed {
            return if op.tainted { State::Inherits } else { State::Culprit };
        }
        match total {
            total if total.is_exact() && own.is_exact() => State::Exact,
            total if total.non_finite > 0 || total.noise > INHERITED * own.noise.max(op.explained) => State::Inherits,
            _ => State::Explained,
        }
    };
    walk.ops.iter().zip(allowed).map(one).collect()
}

/// The ops to blame: of those that are culprits, the ones that outputs suffer from, the first of them first.
pub fn culprits(
    sides: Sides<'_>,
    walk: &Walk,
    (allowed, states): (&[f64], &[State]),
    inputs: &[Option<Tensor>],
) -> Result<Vec<Culprit>, Diagnostic> {
    let (fixed, known) = (fixed(sides.g), known(walk));
    let excess = |i: &usize| match &walk.ops[*i].own {
        Some(own) if own.non_finite > 0 => f64::INFINITY,
        Some(own) => own.noise / allowed[*i].max(f64::MIN_POSITIVE),
        None => 0.0,
    };
    let mut found: Vec<usize> = (0..states.len()).filter(|i| states[*i] == State::Culprit).collect();
    let mut loud = found.clone();
    loud.sort_by(|a, b| excess(b).total_cmp(&excess(a)));
    loud.truncate(TRIED);
    let repaired = repaired(sides, loud.iter().map(|i| &walk.ops[*i]), inputs)?;
    let gain = |i: &usize| repaired.get(&walk.ops[*i].value).copied();
    found.sort_by(|a, b| {
        let key = |i: &usize| gain(i).map_or(0.0, |db| (db / HARDLY).floor());
        key(b).total_cmp(&key(a)).then(a.cmp(b))
    });
    let why = |at: usize| why(&walk.ops[at], sides.g, !behind(sides.g, &fixed, &known, walk.ops[at].op).is_empty());
    let culprit = |at: usize| Culprit { at, why: why(at), repaired_snr_db: gain(&at) };
    Ok(found.into_iter().map(culprit).collect())
}

/// Decibels that outputs hardly differ by.
const HARDLY: f64 = 3.0;

fn why(op: &OpGap, g: &Function, is_compressed: bool) -> Why {
    let half = g.ty(op.value).tensor().is_some_and(|t| t.dtype == DType::F16);
    match &op.own {
        Some(own) if half && own.non_finite > 0 && own.greatest > 65504.0 => Why::Overflows,
        _ if is_compressed => Why::Compressed,
        _ => Why::Differs,
    }
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

/// The values of the second model that were taken from the first.
pub fn known(walk: &Walk) -> HashSet<Value> {
    walk.ops.iter().flat_map(|op| op.taken.iter().copied()).collect()
}

/// The compressed weights that count in an op's own error: those that it reads, and those of ops between it and values that were
/// `known` from the first model.
pub(crate) fn behind(g: &Function, fixed: &HashSet<OpId>, known: &HashSet<Value>, id: OpId) -> Vec<Compressed> {
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

/// Signal over noise of the worst output, in dB, with the result of each of `ops` taken from the first model.
fn repaired<'w>(
    sides: Sides<'_>,
    ops: impl Iterator<Item = &'w OpGap>,
    inputs: &[Option<Tensor>],
) -> Result<HashMap<Value, f64>, Diagnostic> {
    let wanted: HashMap<Value, Value> = ops.filter_map(|op| Some((op.paired?, op.value))).collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let (mut right, mut out) = (vec![], HashMap::new());
    let first = Session::new(sides.a, sides.f, &Cpu, Options::default());
    let mut hold = |v: Value, t: &Tensor| {
        if let Some(b) = wanted.get(&v) {
            right.push((*b, t.clone()));
        }
    };
    let outputs = first.run_observed(inputs, &mut States::new(), Some(&mut hold)).map_err(|e| run_error(&e))?;
    let second = Session::new(sides.b, sides.g, &Cpu, Options::default());
    let inputs = feed::match_inputs(sides.g, &feed::as_arrays(sides.f, inputs))?;
    for (v, t) in right {
        let mut steps = second.steps(&inputs, &States::new()).map_err(|e| run_error(&e))?;
        while let Some(done) = steps.step() {
            let Ok(id) = done else { break };
            let got =
                steps.value(v).filter(|got| sides.g.op_data(id).results.contains(&v) && gap(&t, got, true).is_some());
            if let Some((right, _)) = got.map(|got| taken(&t, got)) {
                steps.replace(v, right);
            }
        }
        let pairs = super::outputs(sides.f, sides.g);
        let snr = pairs
            .iter()
            .filter_map(|(i, b)| gap(outputs.get(*i)?, steps.value(*b)?, true))
            .map(|g| g.snr_db().unwrap_or(999.0));
        out.insert(v, snr.fold(999.0, f64::min));
    }
    Ok(out)
}
