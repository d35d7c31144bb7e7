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
    start::Start,
};
use crate::{Diagnostic, chance::drawn_values, parity::run_error};
use mlconv_mil::{
    ir::{Function, OpId, Value},
    verify::Verified,
};
use mlconv_runner::{Options, Session, Steps, cpu::Cpu};
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
    pub own: Option<Own>,
    /// How great the elements are that are wanted.
    pub range: Option<Range>,
    /// The results that were taken from the first model for the ops that read them.
    pub taken: Vec<Value>,
}

/// The error of a result where what its op reads is taken from the first model.
#[derive(Clone, Debug)]
pub struct Own {
    /// How far it is off.
    pub gap: Gap,
    /// The noise that its types explain, as a sum of squares; `None` where the op could not be asked again.
    pub explained: Option<f64>,
    /// Whether half precision had a part in it, of either model.
    pub halves: bool,
    /// Whether something that the op reads could not be taken from the first model.
    pub tainted: bool,
}

impl Own {
    /// Signal over noise in dB; `None` where there is no noise.
    pub fn snr_db(&self) -> Option<f64> {
        self.gap.snr_db()
    }
}

/// What was seen of two models.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// The ops of the second model that compute something, in order.
    pub ops: Vec<OpGap>,
    /// How many values were let go of, for want of memory, before they were compared.
    pub missed: usize,
}

/// Runs both from `start`, holding at most `budget` bytes of the first's values for later.
pub fn walk(sides: Sides<'_>, pairs: &Pairs, start: &Start, budget: usize) -> Result<Walk, Diagnostic> {
    let g = sides.g;
    let (fixed, drawn) = (fixed(g), drawn_values(g));
    let mut totals: HashMap<Value, (Gap, Option<Range>)> = HashMap::new();
    let alone = Extent { start, budget, until: None, led: false };
    let swept = sweep(sides, pairs, alone, &mut |steps, _, wanted| {
        for (v, want) in wanted.iter().filter(|(v, _)| !drawn.contains(v)) {
            let off = want.as_ref().zip(steps.value(*v)).and_then(|(want, got)| gap(want, got));
            totals.extend(off.zip(want.as_ref()).map(|(off, want)| (*v, (off, range(want)))));
        }
    })?;
    let mut led = Led {
        sides,
        pairs,
        fixed: &fixed,
        tainted: HashSet::new(),
        moved: HashMap::new(),
        coarse: HashSet::new(),
        own: HashMap::new(),
        taken: HashSet::new(),
    };
    let again =
        sweep(sides, pairs, Extent { led: true, ..alone }, &mut |steps, id, wanted| led.see(steps, id, wanted))?;
    let mut one = |id: OpId| {
        let results = &g.op_data(id).results;
        let seen: Vec<Value> = results.iter().copied().filter(|v| totals.contains_key(v)).collect();
        let worse = |x: &Value, y: &Value| {
            let gaps = [x, y].map(|v| led.own.get(v).map(|own| own.gap.clone()).unwrap_or_default());
            gaps[0].non_finite.min(1).cmp(&gaps[1].non_finite.min(1)).then(gaps[0].noise.total_cmp(&gaps[1].noise))
        };
        // Of results that are off alike, the first.
        let value = seen.iter().rev().copied().max_by(worse).or(results.first().copied())?;
        let (total, range) = totals.remove(&value).map_or((None, None), |(total, range)| (Some(total), range));
        let paired = pairs.of(value).filter(|_| total.is_some());
        let own = led.own.remove(&value).filter(|_| total.is_some());
        let taken = results.iter().copied().filter(|v| led.taken.contains(v)).collect();
        Some(OpGap { op: id, value, paired, total, own, range, taken })
    };
    let ops = g.ops().filter(|id| !fixed.contains(id)).filter_map(&mut one).collect();
    Ok(Walk { ops, missed: swept.missed.max(again.missed) })
}

/// How far both run, and with how much memory.
#[derive(Clone, Copy)]
pub(super) struct Extent<'a> {
    /// Where both begin.
    pub start: &'a Start,
    /// Bytes of values of the first that are held for later.
    pub budget: usize,
    /// The op of the second behind which nothing of the first is wanted any more.
    pub until: Option<OpId>,
    /// Whether the states of the second hold what those of the first do.
    pub led: bool,
}

/// How a sweep over both models ended.
pub(super) struct Swept {
    /// How many values of the first were let go of before they were compared.
    pub missed: usize,
    /// The outputs of the second.
    pub outputs: Vec<Option<Tensor>>,
}

/// Is shown each op of the second model, behind which its run stands, and what is wanted of its results.
type See<'s> = &'s mut dyn FnMut(&mut Steps<'_>, OpId, &[(Value, Option<Tensor>)]);

/// Runs both once.
pub(super) fn sweep(
    sides: Sides<'_>,
    pairs: &Pairs,
    Extent { start, budget, until, led }: Extent<'_>,
    see: See<'_>,
) -> Result<Swept, Diagnostic> {
    let Sides { a, f, b, g } = sides;
    let first = Session::new(a, f, &Cpu, Options::default());
    let second = Session::new(b, g, &Cpu, Options::default());
    let mut ahead = Ahead::new(&first, f, start, pairs, budget)?;
    let states = if led { &start.led } else { &start.states[1] };
    let mut steps = second.steps(&start.given, states).map_err(|e| run_error(&e))?;
    let mut wants = true;
    while let Some(done) = steps.step() {
        let id = done.map_err(|e| run_error(&e))?;
        let mut wanted = vec![];
        for v in g.op_data(id).results.iter().copied() {
            let want = pairs.of(v).filter(|_| wants).map_or(Ok(None), |a| ahead.take(a))?;
            wanted.push((v, want));
        }
        see(&mut steps, id, &wanted);
        wants &= until != Some(id);
    }
    let outputs = g.outputs().iter().map(|v| steps.value(*v).cloned()).collect();
    Ok(Swept { missed: ahead.missed.len(), outputs })
}

/// The second model with values of the first, each once it is computed.
struct Led<'g> {
    sides: Sides<'g>,
    pairs: &'g Pairs,
    fixed: &'g HashSet<OpId>,
    /// Values that follow from one that could not be taken from the first model.
    tainted: HashSet<Value>,
    /// Values that have no pair, as they are where what they follow from is shaken.
    moved: HashMap<Value, Tensor>,
    /// Values without a pair that half precision had a part in.
    coarse: HashSet<Value>,
    /// What was seen of results.
    own: HashMap<Value, Own>,
    /// Results that were taken from the first model.
    taken: HashSet<Value>,
}

impl Led<'_> {
    fn see(&mut self, steps: &mut Steps<'_>, id: OpId, wanted: &[(Value, Option<Tensor>)]) {
        if self.fixed.contains(&id) {
            return;
        }
        let (g, mut tainted, mut halves) = (self.sides.g, false, false);
        let is_half = |f: &Function, v: Value| f.ty(v).tensor().is_some_and(|t| t.dtype == DType::F16);
        g.op_data(id).op.visit_operands(&mut |v| {
            tainted |= self.tainted.contains(&v);
            halves |= is_half(g, v) || self.coarse.contains(&v);
        });
        halves |= g.op_data(id).results.iter().any(|v| is_half(g, *v));
        self.moved.retain(|v, _| steps.value(*v).is_some());
        let mut shake = |v: Value, t: &Tensor| {
            let is_fixed = g.def_op(v).is_some_and(|id| self.fixed.contains(&id));
            let moved = self.moved.get(&v).cloned().or_else(|| shaken(t, None, v.index() as u64).filter(|_| !is_fixed));
            moved.unwrap_or_else(|| t.clone())
        };
        let again = steps.again(&mut shake).and_then(Result::ok);
        for (i, (v, want)) in wanted.iter().enumerate() {
            let Some(got) = steps.value(*v).cloned() else { continue };
            let moved = again.as_ref().and_then(|all| all.get(i)).cloned();
            let off = want.as_ref().and_then(|want| Some((want, gap(want, &got)?)));
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
            let halves = halves || self.pairs.of(*v).is_some_and(|a| is_half(self.sides.f, a));
            let noise = moved.map(|moved| gap(&got, &moved).map_or(0.0, |moved| moved.noise / SHAKEN));
            let explained = noise.map(|noise| noise + floor(&off, got.dtype(), halves));
            let (t, same) = taken(want, &got);
            steps.replace(*v, t);
            if same {
                self.taken.insert(*v);
            } else {
                self.tainted.insert(*v);
            }
            self.own.insert(*v, Own { gap: off, explained, halves, tainted });
        }
    }
}

/// The noise of numbers of a type as they are, even where nothing is computed.
fn floor(gap: &Gap, dtype: DType, halves: bool) -> f64 {
    let (unit, denormal) = match dtype {
        _ if !dtype.is_float() => return 0.0,
        _ if halves => (2f64.powi(-12), 2f64.powi(-25)),
        _ => (2f64.powi(-23), 0.0),
    };
    // Numbers that vanish explain little of a value that does.
    let tiny = gap.count as f64 * denormal * denormal;
    gap.signal * unit * unit + if gap.signal > 0.0 { tiny.min(gap.signal * VANISHING) } else { tiny }
}

/// The part of a value that may be lost to numbers that are too small for their type, as a power.
const VANISHING: f64 = 1e-2;

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
        start: &Start,
        pairs: &'p Pairs,
        budget: usize,
    ) -> Result<Self, Diagnostic> {
        let steps = session.steps(&start.inputs, &start.states[0]).map_err(|e| run_error(&e))?;
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
