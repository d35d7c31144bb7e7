//! Two models side by side, op by op.
//!
//! The second model runs twice: by itself, and with each value that has a pair taken from the first model once it is computed,
//! so that an op shows its own error and none that it inherits. Then each op is asked again with what it reads shaken as
//! rounding shakes it, which shows how great an error its types explain. The first model is only as far ahead as the pairs of
//! the op at work need, so no run is ever held as a whole.

use super::{
    gap::{Gap, SHAKEN, gap, shaken, taken},
    pair::{Pairs, fixed},
    range::{Range, range},
};
use crate::{Diagnostic, chance::drawn_values, feed, parity::run_error};
use mlconv_mil::{
    ir::{Function, OpId, Value},
    verify::Verified,
};
use mlconv_runner::{Options, Session, States, Steps, cpu::Cpu};
use mlconv_tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};

/// A function of each of two models; the first is the one to go by.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// The first model.
    pub a: &'a Verified,
    /// Its function.
    pub f: &'a Function,
    /// The second model.
    pub b: &'a Verified,
    /// Its function.
    pub g: &'a Function,
}

/// What was seen of an op of the second model.
#[derive(Clone, Debug)]
pub struct OpGap {
    /// The op.
    pub op: OpId,
    /// The result that is told of: the one that is farthest off.
    pub value: Value,
    /// What it was compared with.
    pub paired: Option<Value>,
    /// How far it is off, with all that it inherits.
    pub total: Option<Gap>,
    /// How far it is off where what it reads is taken from the first model.
    pub own: Option<Gap>,
    /// The noise that its types explain, as a sum of squares.
    pub explained: f64,
    /// How great the elements are that are wanted.
    pub range: Option<Range>,
    /// Whether half precision had a part in its own error.
    pub halves: bool,
    /// Whether something that it reads could not be taken from the first model.
    pub tainted: bool,
    /// The results that were taken from the first model for the ops that read them.
    pub taken: Vec<Value>,
}

/// What was seen of two models.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// The ops of the second model that compute something, in order.
    pub ops: Vec<OpGap>,
    /// How many values were let go of, for want of memory, before they were compared.
    pub missed: usize,
}

/// Runs both on `inputs`, which are the first's, holding at most `budget` bytes of the first's values for later.
pub fn walk(sides: Sides<'_>, pairs: &Pairs, inputs: &[Option<Tensor>], budget: usize) -> Result<Walk, Diagnostic> {
    let g = sides.g;
    let (fixed, drawn) = (fixed(g), drawn_values(g));
    let halves = computes_in_half(g);
    let mut totals: HashMap<Value, (Gap, Option<Range>)> = HashMap::new();
    let swept = sweep(sides, pairs, inputs, budget, &mut |steps, _, wanted| {
        for (v, want) in wanted.iter().filter(|(v, _)| !drawn.contains(v)) {
            let off = want.as_ref().zip(steps.value(*v)).and_then(|(want, got)| gap(want, got, halves));
            totals.extend(off.zip(want.as_ref()).map(|(off, want)| (*v, (off, range(want)))));
        }
    })?;
    if let Some(failed) = swept.failed {
        return Err(failed);
    }
    let mut led = Led {
        g,
        fixed: &fixed,
        tainted: HashSet::new(),
        moved: HashMap::new(),
        coarse: HashSet::new(),
        halves,
        own: HashMap::new(),
    };
    let again = sweep(sides, pairs, inputs, budget, &mut |steps, id, wanted| led.see(steps, id, wanted))?;
    let told = |id: OpId| {
        let results = &g.op_data(id).results;
        let mut seen: Vec<OpGap> = results.iter().filter_map(|v| led.own.remove(v)).collect();
        let taken = seen.iter().filter(|one| !one.taken.is_empty()).map(|one| one.value).collect();
        let off = |one: &OpGap| {
            one.own.as_ref().map_or(-1.0, |own| own.noise + if own.non_finite > 0 { f64::MAX } else { 0.0 })
        };
        seen.sort_by(|a, b| off(b).total_cmp(&off(a)));
        let value = seen.first().map(|one| one.value).or(results.iter().copied().find(|v| totals.contains_key(v)));
        let value = value.or(results.first().copied())?;
        let (total, range) = totals.remove(&value).map_or((None, None), |(total, range)| (Some(total), range));
        let paired = pairs.of(value).filter(|_| total.is_some());
        let own = seen.into_iter().next();
        let (tainted, halves, explained) =
            own.as_ref().map_or((false, false, 0.0), |one| (one.tainted, one.halves, one.explained));
        let own = own.and_then(|one| one.own).filter(|_| total.is_some());
        Some(OpGap { op: id, value, paired, total, own, explained, range, halves, tainted, taken })
    };
    let ops = g.ops().filter(|id| !fixed.contains(id)).filter_map(told).collect();
    Ok(Walk { ops, missed: swept.missed.max(again.missed) })
}

/// Whether a function computes anything in half precision.
fn computes_in_half(g: &Function) -> bool {
    super::computed(g).any(|v| g.ty(v).tensor().is_some_and(|t| t.dtype == DType::F16))
}

/// How a sweep over both models ended.
struct Swept {
    /// How many values of the first were let go of before they were compared.
    missed: usize,
    /// Why an op of the second could not be computed.
    failed: Option<Diagnostic>,
}

/// Is shown each op of the second model, behind which its run stands, and what is wanted of its results.
type See<'s> = &'s mut dyn FnMut(&mut Steps<'_>, OpId, &[(Value, Option<Tensor>)]);

/// Runs both once.
fn sweep(
    sides: Sides<'_>,
    pairs: &Pairs,
    inputs: &[Option<Tensor>],
    budget: usize,
    see: See<'_>,
) -> Result<Swept, Diagnostic> {
    let Sides { a, f, b, g } = sides;
    let first = Session::new(a, f, &Cpu, Options::default());
    let second = Session::new(b, g, &Cpu, Options::default());
    let mut ahead = Ahead::new(&first, f, inputs, pairs, budget)?;
    let given = feed::match_inputs(g, &feed::as_arrays(f, inputs))?;
    let mut steps = second.steps(&given, &States::new()).map_err(|e| run_error(&e))?;
    let mut failed = None;
    while let Some(done) = steps.step() {
        let id = match done {
            Ok(id) => id,
            Err(e) => {
                failed = Some(run_error(&e));
                break;
            }
        };
        let mut wanted = vec![];
        for v in g.op_data(id).results.iter().copied() {
            let want = pairs.of(v).map_or(Ok(None), |a| ahead.take(a))?;
            wanted.push((v, want));
        }
        see(&mut steps, id, &wanted);
    }
    Ok(Swept { missed: ahead.missed.len(), failed })
}

/// The second model with values of the first, each once it is computed.
struct Led<'g> {
    g: &'g Function,
    fixed: &'g HashSet<OpId>,
    /// Values that follow from one that could not be taken from the first model.
    tainted: HashSet<Value>,
    /// Values that have no pair, as they are where what they follow from is shaken.
    moved: HashMap<Value, Tensor>,
    /// Values without a pair that half precision had a part in.
    coarse: HashSet<Value>,
    /// Whether anything is computed in half precision.
    halves: bool,
    /// What was seen of results.
    own: HashMap<Value, OpGap>,
}

impl Led<'_> {
    fn see(&mut self, steps: &mut Steps<'_>, id: OpId, wanted: &[(Value, Option<Tensor>)]) {
        if self.fixed.contains(&id) {
            return;
        }
        let (g, mut tainted, mut halves) = (self.g, false, false);
        let is_half = |v: Value| g.ty(v).tensor().is_some_and(|t| t.dtype == DType::F16);
        g.op_data(id).op.visit_operands(&mut |v| {
            tainted |= self.tainted.contains(&v);
            halves |= is_half(v) || self.coarse.contains(&v);
        });
        halves |= g.op_data(id).results.iter().any(|v| is_half(*v));
        self.moved.retain(|v, _| steps.value(*v).is_some());
        let mut shake = |v: Value, t: &Tensor| {
            let is_fixed = g.def_op(v).is_some_and(|id| self.fixed.contains(&id));
            let moved = self.moved.get(&v).cloned().or_else(|| shaken(t, None, v.index() as u64).filter(|_| !is_fixed));
            moved.unwrap_or_else(|| t.clone())
        };
        let again = steps.again(&mut shake).and_then(Result::ok).unwrap_or_default();
        let again: Vec<Option<Tensor>> = (0..wanted.len()).map(|i| again.get(i).cloned()).collect();
        for ((v, want), moved) in wanted.iter().zip(again) {
            let Some(got) = steps.value(*v).cloned() else { continue };
            let off = want.as_ref().and_then(|want| Some((want, gap(want, &got, self.halves)?)));
            let Some((want, off)) = off else {
                if halves {
                    self.coarse.insert(*v);
                }
                let shaken = moved.map(|t| shaken(&t, Some(&got), v.index() as u64).unwrap_or(t));
                self.moved.extend(shaken.map(|t| (*v, t)));
                if tainted {
                    self.tainted.insert(*v);
                }
                continue;
            };
            let noise = moved.and_then(|moved| gap(&got, &moved, false)).map_or(0.0, |moved| moved.noise / SHAKEN);
            let explained = noise + least(&off, got.dtype(), halves);
            let (t, same) = taken(want, &got);
            steps.replace(*v, t);
            if !same {
                self.tainted.insert(*v);
            }
            let taken = if same { vec![*v] } else { vec![] };
            let one = OpGap {
                op: id,
                value: *v,
                paired: None,
                total: None,
                own: Some(off),
                explained,
                range: None,
                halves,
                tainted,
                taken,
            };
            self.own.insert(*v, one);
        }
    }
}

/// The noise of numbers of a type as they are, even where nothing is computed.
fn least(gap: &Gap, dtype: DType, halves: bool) -> f64 {
    let (unit, denormal) = match dtype {
        _ if !dtype.is_float() => return 0.0,
        _ if halves => (2f64.powi(-12), 2f64.powi(-25)),
        _ => (2f64.powi(-23), 0.0),
    };
    gap.signal * unit * unit + gap.count as f64 * denormal * denormal
}

/// The run of the first model, and what it has computed for values of the second that are not there yet.
struct Ahead<'s, 'p> {
    f: &'s Function,
    steps: Steps<'s>,
    pairs: &'p Pairs,
    /// Values with the number of times that they will be asked for.
    held: HashMap<Value, (Tensor, usize)>,
    bytes: usize,
    budget: usize,
    missed: HashSet<Value>,
}

impl<'s, 'p> Ahead<'s, 'p> {
    fn new(
        session: &'s Session<'_>,
        f: &'s Function,
        inputs: &[Option<Tensor>],
        pairs: &'p Pairs,
        budget: usize,
    ) -> Result<Self, Diagnostic> {
        let steps = session.steps(inputs, &States::new()).map_err(|e| run_error(&e))?;
        let mut ahead = Self { f, steps, pairs, held: HashMap::new(), bytes: 0, budget, missed: HashSet::new() };
        f.inputs().iter().for_each(|v| ahead.hold(*v, false));
        Ok(ahead)
    }

    /// Keeps a value that is wanted later, where there is room for it, or `must` be.
    fn hold(&mut self, v: Value, must: bool) {
        let times = self.pairs.wanted(v);
        let Some(t) = self.steps.value(v).filter(|_| must || times > 0).cloned() else { return };
        let size = t.blob().len();
        if !must && self.bytes.saturating_add(size) > self.budget {
            self.missed.insert(v);
            return;
        }
        self.bytes += size;
        self.held.insert(v, (t, times));
    }

    /// A value, computed if it is not yet; `None` where it was let go of, or is never computed.
    fn take(&mut self, v: Value) -> Result<Option<Tensor>, Diagnostic> {
        loop {
            if let Some((t, times)) = self.held.get_mut(&v) {
                *times = times.saturating_sub(1);
                let (t, is_done) = (t.clone(), *times == 0);
                if is_done {
                    self.held.remove(&v);
                    self.bytes -= t.blob().len();
                }
                return Ok(Some(t));
            }
            if self.missed.contains(&v) {
                return Ok(None);
            }
            let Some(done) = self.steps.step() else { return Ok(None) };
            let id = done.map_err(|e| run_error(&e))?;
            let f = self.f;
            f.op_data(id).results.iter().for_each(|result| self.hold(*result, *result == v));
            // What it has read is not needed while the second model is at work.
            self.steps.settle();
        }
    }
}
