//! Values of two models that are alike, whatever they are called: for pairs where names do not tell.
//!
//! Both models run on the same inputs, and of each value some elements are kept as a [`Print`]. A value whose print is that of
//! one value of the first model, and of no other, is its pair. Behind an op that computes something else nothing is alike any
//! more; so values of the first are put in the place of such an op's result, one after the other, until what follows from it
//! is alike again.

use super::{
    gap::{gap, roll, taken},
    pair::{Pairs, computed, fixed},
    start::Start,
    walk::Sides,
};
use crate::{
    Diagnostic,
    chance::drawn_values,
    compare::numbers::{BLOCK, Numbers},
    parity::run_error,
};
use mlconv_mil::ir::{Function, OpId, Value};
use mlconv_passes::MOVES;
use mlconv_runner::{Options, Session, Steps, cpu::Cpu};
use mlconv_tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};

/// Elements of a value that are kept.
const SAMPLES: usize = 256;
/// Signal over noise, as a power, from which on two values are the same: 30 dB.
const SAME: f64 = 1e3;
/// From which on the value that is most alike is the same, 10 dB, ...
const LIKELY: f64 = 10.0;
/// ... if the next one is 6 dB farther off.
const CLEAR: f64 = 4.0;
/// Numbers below this are masks, as they are added to scores.
const MASK: f64 = -5e3;
/// From which on two values of one model are one for all that can be seen of them: 60 dB.
const TWINS: f64 = 1e6;
/// Runs of the second model with values of the first in the place of its own.
const TRIES: usize = 32;
/// Values of the first model that are tried in one place.
const CANDIDATES: usize = 6;
/// Ops behind a place for which it is looked how much they are alike.
const BEHIND: usize = 12;
/// Decibels from which on two values are alike as well as can be.
const WELL: f64 = 60.0;
/// Decibels, of the ops behind a place together, by which it must do better with a value of the first model.
const GAIN: f64 = 20.0;
/// From which on a value is what it should be, but for rounding: 50 dB where anything is in half precision, else 110 dB.
const SOUND: [f64; 2] = [1e5, 1e11];
/// From which on a value was computed as it should be: 40 dB.
const RIGHT: f64 = 1e4;
/// What a value is less alike than all that it is made of, as a power, where an op is to be looked at: 15 dB.
const FALL: f64 = 30.0;
/// Some elements of a value, at places that its shape alone settles.
#[derive(Clone, Debug)]
struct Print {
    shape: Vec<usize>,
    is_float: bool,
    samples: Vec<f64>,
}

impl Print {
    /// `None` of values that say nothing: of all elements alike, or of none.
    fn new(t: &Tensor) -> Option<Self> {
        let (count, numbers) = (t.count(), Numbers::new(t));
        let (mut samples, mut one) = (vec![], vec![]);
        let parts = count.min(SAMPLES);
        for part in 0..parts {
            let (start, end) = (count * part / parts, count * (part + 1) / parts);
            let at = start + roll(0, part) as usize % (end - start).max(1);
            numbers.widen(at..at + 1, &mut one);
            samples.append(&mut one);
        }
        // How great the elements of each part are tells of those that are not kept.
        let float = t.dtype().is_float();
        for part in 0..if float { parts } else { 0 } {
            let mut energy = 0.0;
            for start in (count * part / parts..count * (part + 1) / parts).step_by(BLOCK) {
                numbers.widen(start..(count * (part + 1) / parts).min(start + BLOCK), &mut one);
                energy += one.iter().filter(|x| is_plain(**x)).map(|x| x * x).sum::<f64>();
            }
            let elements = (count * (part + 1) / parts - count * part / parts).max(1);
            samples.push((energy / elements as f64).sqrt());
        }
        let first = samples.first()?;
        let says = samples.iter().any(|x| x != first);
        says.then(|| Self { shape: t.shape().to_vec(), is_float: t.dtype().is_float(), samples })
    }

    /// Signal over noise, as a power, of `other` where this is wanted; zero where they cannot be compared.
    fn alike(&self, other: &Self) -> f64 {
        if self.shape != other.shape || self.is_float != other.is_float {
            return 0.0;
        }
        if !self.is_float {
            return if self.samples == other.samples { f64::INFINITY } else { 0.0 };
        }
        let both = || self.samples.iter().zip(&other.samples);
        // A mask, and what half precision has in its place, is no evidence: all that it is added to looks the same.
        let is_plain = |(a, b): &(&f64, &f64)| is_plain(**a) && is_plain(**b);
        let count = both().filter(is_plain).count().max(1) as f64;
        let mean = both().filter(is_plain).map(|(a, _)| a).sum::<f64>() / count;
        let (mut signal, mut noise) = (0.0, 0.0);
        for (a, b) in both().filter(is_plain) {
            signal += (a - mean).powi(2);
            noise += (a - b).powi(2);
        }
        if signal == 0.0 { 0.0 } else { signal / noise }
    }
}

/// Prints of values of a function's body, in the order of the program.
type Prints = Vec<(Value, Print)>;

/// Runs both from `start`, and pairs values by what they are; of those that `named` pairs, the ones that what is computed speaks
/// against are left out: where names `are_told`, that takes another value which is what the name says. At most `budget` bytes of
/// the first model's values are held at a time.
pub(super) fn paired(
    sides: Sides<'_>,
    (named, are_told): (&Pairs, bool),
    start: &Start,
    budget: usize,
) -> Result<Pairs, Diagnostic> {
    let mut of_first: HashMap<Value, Print> = HashMap::new();
    let mut see = |v: Value, t: &Tensor| of_first.extend(Print::new(t).map(|print| (v, print)));
    let first = Session::new(sides.a, sides.f, &Cpu, Options::default());
    let mut states = start.states[0].clone();
    first.run_observed(&start.inputs, &mut states, Some(&mut see)).map_err(|e| run_error(&e))?;
    let drawn = drawn_values(sides.f);
    let is_half = |f: &Function, v: Value| f.ty(v).tensor().is_some_and(|t| t.dtype == DType::F16);
    let halves = computed(sides.f).any(|v| is_half(sides.f, v)) || computed(sides.g).any(|v| is_half(sides.g, v));
    let order = computed(sides.f).filter(|v| !drawn.contains(v));
    let first: Prints = order.filter_map(|v| Some((v, of_first.remove(&v)?))).collect();
    let mut search = Search {
        sides,
        named,
        are_told,
        sound: SOUND[usize::from(!halves)],
        start,
        fixed: fixed(sides.g),
        drawn: drawn_values(sides.g),
        first,
        forced: HashMap::new(),
        hopeless: HashSet::new(),
        tries: TRIES,
        budget,
    };
    loop {
        let alike = search.alike()?;
        if !search.goes_on(&alike)? {
            return Ok(search.settled(&alike));
        }
    }
}

/// The value of the first model that one of the second is, and how much so.
type Alike = HashMap<Value, (Value, f64)>;

/// Values of the second model in whose place those of the first stand.
type Forced = HashMap<Value, Stand>;

/// A value of the first model, and what it is.
type Stand = (Value, Tensor);

/// The search for what is alike.
struct Search<'a> {
    sides: Sides<'a>,
    named: &'a Pairs,
    are_told: bool,
    /// From which on a value is what it should be.
    sound: f64,
    start: &'a Start,
    fixed: HashSet<OpId>,
    drawn: HashSet<Value>,
    first: Prints,
    /// Values of the second model in whose place those of the first stand.
    forced: Forced,
    /// Values of the second model for which nothing was found.
    hopeless: HashSet<Value>,
    tries: usize,
    budget: usize,
}

impl Search<'_> {
    /// Runs the second model, and shows what each op that does not follow from constants computes, until `see` has enough.
    fn run(&self, forced: &Forced, see: &mut dyn FnMut(OpId, &Steps<'_>) -> bool) -> Result<(), Diagnostic> {
        let g = self.sides.g;
        let session = Session::new(self.sides.b, g, &Cpu, Options::default());
        let mut steps = session.steps(&self.start.given, &self.start.led).map_err(|e| run_error(&e))?;
        while let Some(done) = steps.step() {
            let id = done.map_err(|e| run_error(&e))?;
            if self.fixed.contains(&id) {
                continue;
            }
            if see(id, &steps) {
                break;
            }
            for v in &g.op_data(id).results {
                let put = forced.get(v).zip(steps.value(*v));
                if let Some((t, _)) =
                    put.filter(|((_, t), got)| gap(t, got).is_some()).map(|((_, t), got)| taken(t, got))
                {
                    steps.replace(*v, t);
                }
            }
        }
        Ok(())
    }

    /// The values of the first model that those of the second are.
    fn alike(&self) -> Result<Alike, Diagnostic> {
        let (g, mut found) = (self.sides.g, Alike::new());
        self.run(&self.forced, &mut |id, steps| {
            for v in g.op_data(id).results.iter().filter(|v| !self.drawn.contains(v)) {
                let is = match self.forced.get(v) {
                    Some((a, _)) => Some((*a, f64::INFINITY)),
                    None => steps.value(*v).and_then(Print::new).and_then(|print| self.most_alike(*v, &print)),
                };
                found.extend(is.map(|a| (*v, a)));
            }
            false
        })?;
        Ok(found)
    }

    /// The value of the first model that a value of the second is, if it is one, and how much so.
    fn most_alike(&self, v: Value, print: &Print) -> Option<(Value, f64)> {
        let all: Vec<(f64, &(Value, Print))> =
            self.first.iter().map(|one| (one.1.alike(print), one)).filter(|(alike, _)| *alike >= LIKELY).collect();
        let (most, best) = all.iter().max_by(|x, y| x.0.total_cmp(&y.0))?;
        // One that bears the name goes before others, if none is much more alike.
        let name = self.named.of(v);
        let mut named =
            all.iter().filter(|(alike, (a, _))| Some(*a) == name && (*alike >= SAME || *alike >= most / SAME));
        if let Some((alike, (a, _))) = named.next() {
            return Some((*a, *alike));
        }
        let is_twin = |one: &Print| best.1.alike(one) >= TWINS;
        let next = all.iter().filter(|(_, one)| !is_twin(&one.1)).map(|(alike, _)| *alike).fold(0.0, f64::max);
        // Of those that are as near, the one that is computed first is had soonest.
        let twin = all.iter().find(|(alike, _)| *alike >= *most / 2.0).map(|(_, one)| one.0);
        (*most >= SAME || *most >= next * CLEAR).then_some((twin.unwrap_or(best.0), *most))
    }

    /// Whether another place was found in which the second model computes something else, and what of the first stands for it.
    fn goes_on(&mut self, alike: &Alike) -> Result<bool, Diagnostic> {
        let (f, g) = (self.sides.f, self.sides.g);
        let claimed: HashSet<Value> = alike.values().map(|(a, _)| *a).collect();
        let lost = [lost(f, &claimed), lost(g, &alike.keys().copied().collect())];
        let open: Vec<Value> = self.first.iter().map(|(a, _)| *a).filter(|a| !claimed.contains(a)).collect();
        let behind = self.behind(alike);
        for b in computed(g).collect::<Vec<_>>() {
            let known = self.hopeless.contains(&b) || self.drawn.contains(&b) || self.forced.contains_key(&b);
            // Where what follows is right, this is, too.
            let is_passed = behind.get(&b).is_some_and(|best| *best >= self.sound);
            // What one model does by moving elements, another one does otherwise.
            if is_passed || known || self.tries == 0 || MOVES.contains(&op(g, b)) {
                continue;
            }
            if alike.contains_key(&b) && !self.is_doubtful(b, alike) {
                continue;
            }
            let made = self.made_of_same(b, alike, &open);
            let rank = |a: &Value| match () {
                () if alike.get(&b).is_some_and(|(own, _)| own == a) || self.named.of(b) == Some(*a) => 0,
                () if made.contains(a) => 1,
                () if op(f, *a) == op(g, b) => 2,
                () => 3,
            };
            let fits = |a: &Value| {
                let same = f.ty(*a).tensor().zip(g.ty(b).tensor()).is_some_and(|(a, b)| a.shape == b.shape);
                same && (rank(a) < 3 || (lost[0].contains(a) && lost[1].contains(&b)))
            };
            let own = alike.get(&b).map(|(a, _)| *a);
            let mut candidates: Vec<Value> = own.into_iter().chain(open.iter().copied().filter(fits)).collect();
            candidates.sort_by_key(rank);
            candidates.truncate(CANDIDATES);
            let short = self.cut_short(b, alike, &open)?.map(|(v, found)| (v, Some(found)));
            let (v, found) = match short {
                Some(short) => short,
                None => (b, self.tried(b, &candidates)?),
            };
            if let Some(found) = found {
                self.forced.insert(v, found);
                return Ok(true);
            }
            self.hopeless.insert(b);
        }
        Ok(false)
    }

    /// Whether the pair of a value may be none: it is not as alike as a pair is, or much less than what it is made of.
    fn is_doubtful(&self, b: Value, alike: &Alike) -> bool {
        let of = |v: &Value| alike.get(v).map(|(_, how)| *how);
        let least = reads(self.sides.g, b).iter().filter_map(of).fold(f64::INFINITY, f64::min);
        let own = of(&b).unwrap_or(f64::INFINITY);
        own < SAME || (own < self.sound && own * FALL < least.min(self.sound * FALL))
    }

    /// How much what follows from a value is alike at best, of what comes first that has a pair.
    fn behind(&self, alike: &Alike) -> HashMap<Value, f64> {
        let (g, mut behind) = (self.sides.g, HashMap::<Value, f64>::new());
        for id in g.ops().collect::<Vec<_>>().into_iter().rev() {
            // What was put in a value's place says nothing of what comes before.
            let own = |v: &Value| alike.get(v).map(|(_, how)| if self.forced.contains_key(v) { 0.0 } else { *how });
            let of = |v: &Value| own(v).or_else(|| behind.get(v).copied());
            let best = g.op_data(id).results.iter().filter_map(of).fold(0.0, f64::max);
            g.op_data(id).op.visit_operands(&mut |v| {
                let most = behind.entry(v).or_insert(0.0);
                *most = most.max(best);
            });
        }
        behind
    }

    /// Pairs that are none, as what follows from them is much more alike.
    fn refuted(&self, alike: &Alike) -> HashSet<Value> {
        let behind = self.behind(alike);
        let is_none = |(b, (_, own)): &(&Value, &(Value, f64))| {
            let best = behind.get(*b).copied().unwrap_or(0.0);
            let is_loose = *own < SAME || self.hopeless.contains(*b) || best >= self.sound;
            !self.forced.contains_key(*b) && is_loose && own * FALL < best
        };
        alike.iter().filter(is_none).map(|(b, _)| *b).collect()
    }

    /// Values among `open` that the first model makes of what the second makes `b` of, with others of them between.
    fn made_of_same(&self, b: Value, alike: &Alike, open: &[Value]) -> HashSet<Value> {
        let mut known: HashSet<Value> = reads(self.sides.g, b).iter().filter_map(|v| Some(alike.get(v)?.0)).collect();
        let of_first = known.clone();
        for a in open {
            if reads(self.sides.f, *a).iter().any(|v| known.contains(v)) {
                known.insert(*a);
            }
        }
        known.retain(|a| !of_first.contains(a));
        known
    }

    /// What `b` reads, with what of the first model stands for it, if `b` is right with that: where the second model stops short,
    /// such as before a bias, its result is one on the way to what it should be.
    fn cut_short(&mut self, b: Value, alike: &Alike, open: &[Value]) -> Result<Option<(Value, Stand)>, Diagnostic> {
        let (f, g) = (self.sides.f, self.sides.g);
        for v in reads(g, b) {
            let of = alike.get(&v).filter(|_| !self.forced.contains_key(&v) && !self.hopeless.contains(&v));
            let Some((own, _)) = of else { continue };
            let further = |a: &&Value| f.ty(**a).tensor() == f.ty(*own).tensor() && reads(f, **a).contains(own);
            let further: Vec<Value> = open.iter().filter(further).copied().take(CANDIDATES).collect();
            let mut held = self.held(&further)?;
            for a in further {
                let Some(t) = held.remove(&a).filter(|_| self.tries > 0) else { continue };
                self.tries -= 1;
                let mut forced = self.forced.clone();
                forced.insert(v, (a, t.clone()));
                let mut is_right = false;
                self.run(&forced, &mut |id, steps| {
                    let is_it = g.op_data(id).results.contains(&b);
                    let print = steps.value(b).filter(|_| is_it).and_then(Print::new);
                    let others = self.first.iter().filter(|(other, _)| *other != a);
                    is_right = print.is_some_and(|p| others.into_iter().any(|(_, want)| want.alike(&p) >= RIGHT));
                    is_it
                })?;
                if is_right {
                    return Ok(Some((v, (a, t))));
                }
            }
        }
        Ok(None)
    }

    /// Values of the first model, as many as there is memory for.
    fn held(&self, wanted: &[Value]) -> Result<HashMap<Value, Tensor>, Diagnostic> {
        let (mut held, mut bytes) = (HashMap::new(), 0);
        if wanted.is_empty() {
            return Ok(held);
        }
        let mut hold = |v: Value, t: &Tensor| {
            let size = t.blob().len();
            if wanted.contains(&v) && (held.is_empty() || bytes + size <= self.budget) {
                bytes += size;
                held.insert(v, t.clone());
            }
        };
        let first = Session::new(self.sides.a, self.sides.f, &Cpu, Options::default());
        let mut states = self.start.states[0].clone();
        first.run_observed(&self.start.inputs, &mut states, Some(&mut hold)).map_err(|e| run_error(&e))?;
        Ok(held)
    }

    /// The one of `candidates` in whose stead most of what follows from `b` is alike again.
    fn tried(&mut self, b: Value, candidates: &[Value]) -> Result<Option<Stand>, Diagnostic> {
        if candidates.is_empty() {
            return Ok(None);
        }
        let mut held = self.held(candidates)?;
        let before = self.led_on(&self.forced, (None, b))?;
        let (mut most, mut best) = (before + GAIN, None);
        for a in candidates {
            let Some(t) = held.remove(a).filter(|_| self.tries > 0) else { continue };
            self.tries -= 1;
            let mut forced = self.forced.clone();
            forced.insert(b, (*a, t.clone()));
            let alike = self.led_on(&forced, (Some(*a), b))?;
            if alike > most {
                (most, best) = (alike, Some((*a, t)));
            }
            if alike >= BEHIND as f64 * WELL {
                break;
            }
        }
        Ok(best)
    }

    /// How much the ops that follow from `b` soon, which `forced` may take for `a`, give what is in the first model: decibels of
    /// all together.
    fn led_on(&self, forced: &Forced, (a, b): (Option<Value>, Value)) -> Result<f64, Diagnostic> {
        let (g, mut behind, mut seen, mut alike) = (self.sides.g, HashSet::from([b]), 0, 0.0);
        let wanted: Vec<&Print> = self.first.iter().filter(|(v, _)| Some(*v) != a).map(|(_, print)| print).collect();
        self.run(forced, &mut |id, steps| {
            if !reads_any(g, id, &behind) {
                return false;
            }
            seen += 1;
            let results = &g.op_data(id).results;
            behind.extend(results.iter().copied());
            let prints: Vec<Print> = results.iter().filter_map(|v| steps.value(*v).and_then(Print::new)).collect();
            let each = prints.iter().flat_map(|print| wanted.iter().map(|want| want.alike(print)));
            alike += (10.0 * each.fold(1.0, f64::max).log10()).min(WELL);
            seen >= BEHIND
        })?;
        Ok(alike)
    }

    /// What is alike, and pairs of names that nothing speaks against.
    fn settled(&self, alike: &Alike) -> Pairs {
        let refuted = self.refuted(alike);
        let alike: Alike = alike.iter().filter(|(b, _)| !refuted.contains(*b)).map(|(b, a)| (*b, *a)).collect();
        let claimed: HashSet<Value> = alike.values().map(|(a, _)| *a).collect();
        let known = |v: &Value| self.first.iter().any(|(a, _)| a == v);
        let lost = lost(self.sides.g, &alike.keys().copied().collect());
        let by_own = |b: Value| self.named.of(b).filter(|a| !claimed.contains(a));
        let by_name = |b: Value| by_own(b).filter(|a| self.are_told || !known(a) || lost.contains(&b));
        let mut pairs = Pairs::of_outputs(self.sides.f, self.sides.g);
        for b in computed(self.sides.g).filter(|b| pairs.of(*b).is_none()).collect::<Vec<_>>() {
            match alike.get(&b).map(|(a, _)| a) {
                Some(a) if self.named.of(b) == Some(*a) => pairs.add(*a, b),
                Some(_) if self.are_told && by_own(b).is_some() => by_own(b).into_iter().for_each(|a| pairs.add(a, b)),
                Some(a) => pairs.add_alike(*a, b),
                None => by_name(b).into_iter().for_each(|a| pairs.add(a, b)),
            }
        }
        pairs.see_through_casts(self.sides.g);
        pairs
    }
}

/// Whether an element is a number of its own, and no mask.
fn is_plain(x: f64) -> bool {
    (MASK..=65504.0).contains(&x)
}

/// What the op reads that computes a value, in order.
fn reads(f: &Function, v: Value) -> Vec<Value> {
    let mut all = vec![];
    f.def_op(v).into_iter().for_each(|id| f.op_data(id).op.visit_operands(&mut |v| all.push(v)));
    all
}

/// Whether an op reads one of some values.
fn reads_any(f: &Function, id: OpId, values: &HashSet<Value>) -> bool {
    let mut reads = false;
    f.op_data(id).op.visit_operands(&mut |v| reads |= values.contains(&v));
    reads
}

/// The op that computes a value.
fn op(f: &Function, v: Value) -> &str {
    f.def_op(v).map_or("", |id| f.op_data(id).op.name())
}

/// The results of ops of a body from which none of `found` follows.
fn lost(f: &Function, found: &HashSet<Value>) -> HashSet<Value> {
    let mut lost = HashSet::new();
    let mut leads: HashSet<Value> = found.clone();
    for id in f.ops().collect::<Vec<_>>().into_iter().rev() {
        let data = f.op_data(id);
        if data.results.iter().any(|v| leads.contains(v)) {
            data.op.visit_operands(&mut |v| {
                leads.insert(v);
            });
        } else {
            lost.extend(data.results.iter().copied());
        }
    }
    lost
}
