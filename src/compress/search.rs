//! Mixed precision: of some schemes, the one for each weight with which the model loses least within a budget.
//!
//! How much a weight matters is measured: on samples, by what the outputs lose when it alone is compressed; without samples,
//! by what it loses itself. Losses are taken to add up, and to grow with the squared error of a weight. Every weight begins
//! with its smallest form, and the upgrade that gains most for its bytes comes first. What is left of the budget is spent by
//! changing up to two weights at a time.

mod curve;
mod log;

pub use curve::Point;

use super::{Assigned, calibrate::Calibration, failed_witness};
use crate::{
    Diagnostic, Failure,
    accuracy::{Accuracy, Labels},
    codes,
    parity::run_error,
};
use curve::{Slot, improve, levels, walk, within};
use log::Log;
use mlconv_mil::{ir::Value, schema::Opset};
use mlconv_passes::compress::{
    Applied, Inputs, Knowledge, Refusal, Scheme, Weight, Witness, compress_tensor, expressible,
};
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::{DType, Tensor, f16};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

/// Samples that sensitivity is measured on: more cost time, and change little.
const SAMPLES: usize = 32;

/// What stands in the place of a rule for weights that are searched.
pub const RULE: &str = "the search";

/// What a search is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Bytes of the package, at most.
    Bytes(u64),
    /// Bits that an element of a weight takes on average, at most.
    BitsPerWeight(f64),
    /// A loss on the samples, at most.
    Drop {
        /// What is lost.
        metric: Metric,
        /// How much at most.
        limit: f64,
    },
}

/// What a model may lose on samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Right first guesses, in percentage points.
    Top1,
    /// One minus the cosine between the outputs before and after; that of the worst output.
    Cosine,
    /// The root of the mean squared difference over that of the output; that of the worst output.
    Rms,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Top1 => "top1",
            Self::Cosine => "cosine",
            Self::Rms => "rms",
        })
    }
}

impl FromStr for Goal {
    type Err = String;

    /// Reads `METRIC=VALUE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no loss such as top1=0.5, cosine=0.001 or rms=0.02");
        let (metric, limit) = text.split_once('=').ok_or_else(wrong)?;
        let metric = match metric {
            "top1" => Metric::Top1,
            "cosine" => Metric::Cosine,
            "rms" => Metric::Rms,
            _ => return Err(wrong()),
        };
        let limit: f64 = limit.parse().map_err(|_| wrong())?;
        if limit >= 0.0 && limit.is_finite() { Ok(Self::Drop { metric, limit }) } else { Err(wrong()) }
    }
}

/// How a search is carried out.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is for.
    pub goal: Goal,
    /// The schemes to choose from, beside leaving a weight as it is; [`default_candidates`] where there are none.
    pub candidates: Vec<Scheme>,
    /// A file that keeps what was measured, so that a search which was interrupted goes on where it was.
    pub log: Option<PathBuf>,
    /// Bytes of the package that are no weights.
    pub overhead: u64,
    /// What was measured before, of the same weights.
    pub known: Option<Vec<Sensitivity>>,
}

impl Plan {
    /// The schemes to choose from, for a target.
    pub fn schemes(&self, opset: Opset) -> Vec<Scheme> {
        if self.candidates.is_empty() { default_candidates(opset) } else { self.candidates.clone() }
    }
}

/// The candidates where none are given.
pub fn default_candidates(opset: Opset) -> Vec<Scheme> {
    let new = ["int8", "pal6-g16", "int4-b32-mse", "pal4-g16", "pal3-g16", "pal2-g16"];
    let old = ["int8", "pal8", "pal6", "pal4", "pal2"];
    let texts: &[&str] = if opset >= Opset::Ios18 { &new } else { &old };
    texts.iter().filter_map(|t| Scheme::parse(t).ok()).collect()
}

/// What a search found.
#[derive(Clone, Debug, Serialize)]
pub struct Search {
    /// Whether losses were measured on samples.
    pub on_samples: bool,
    /// What was measured: the schemes of each weight with bytes and expected loss.
    pub weights: Vec<Sensitivity>,
    /// The way.
    pub curve: Vec<Point>,
    /// The point at which the choice was made.
    pub chosen: usize,
    /// The loss that is expected of it, after what was left of the budget was spent.
    pub expected: f64,
    /// Measurements that were found in the log.
    pub resumed: usize,
    /// Weights that no scheme can be applied to, and why.
    #[serde(skip)]
    pub refused: Vec<(String, String)>,
    /// Whether every weight has its smallest form.
    #[serde(skip)]
    pub is_smallest: bool,
}

/// What is known of a weight.
#[derive(Clone, Debug, Serialize)]
pub struct Sensitivity {
    /// Its name.
    pub name: String,
    /// Every scheme that can be applied, by bytes.
    pub choices: Vec<Choice>,
}

/// A form that a weight may have.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// The scheme.
    pub scheme: String,
    #[serde(skip)]
    pub(super) parsed: Scheme,
    /// Bytes.
    pub bytes: u64,
    /// The squared error over the squares of the elements.
    pub noise: f64,
    /// The loss that is expected of it.
    pub expected: f64,
}

/// Told of measurements: how many are done, of how many.
pub type Told<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// What is searched, and with what.
pub(super) struct Task<'a> {
    pub plan: &'a Plan,
    pub candidates: &'a [Scheme],
    pub weights: &'a [Weight],
    pub opset: Opset,
    pub calibration: Option<&'a Calibration>,
    pub evaluation: Option<&'a Calibration>,
    pub labels: Option<&'a Labels>,
    /// Whether codes are chosen by the inputs of a weight.
    pub aware: bool,
    /// Bytes that what is known of inputs may take.
    pub max_memory: u64,
    pub told: Told<'a>,
}

/// Gives a scheme to every weight that `assigned` gives none to.
pub(super) fn run(task: &Task<'_>, assigned: &mut [Option<Assigned>]) -> Result<Search, Failure> {
    if matches!(task.plan.goal, Goal::Drop { .. }) && task.evaluation.is_none() {
        let d = Diagnostic::error(&codes::C0002, "a loss is measured on samples, and there are none");
        return Err(vec![d.help("give some with `--sample`")]);
    }
    let twins = twins(task.weights);
    let free: Vec<usize> = (0..task.weights.len())
        .filter(|i| assigned[*i].is_none() && task.weights[*i].role.is_ok() && twins[*i].is_none())
        .collect();
    if free.is_empty() {
        return Err(vec![Diagnostic::error(&codes::C0001, "no weight is left to choose a scheme for")]);
    }
    let mut log = Log::open(task)?;
    let mut refused = vec![];
    let mut found = match &task.plan.known {
        Some(known) if known.len() == free.len() => known.clone(),
        _ => measure(task, &free, &mut log, &mut refused)?,
    };
    for s in &mut found {
        s.choices.sort_by(|a, b| {
            (a.bytes, a.expected).partial_cmp(&(b.bytes, b.expected)).unwrap_or(std::cmp::Ordering::Equal)
        });
    }
    if let Some((_, why)) = refused.first().filter(|_| found.iter().all(|s| s.choices.len() < 2)) {
        let d = Diagnostic::error(&codes::C0002, format!("no scheme fits any weight: {why}"));
        return Err(vec![d.help("give others with `--candidates`, or a newer `--target`")]);
    }
    let slots: Vec<Slot> = free.iter().zip(&found).map(|(weight, s)| Slot::new(*weight, &s.choices)).collect();
    let elements: u64 =
        (0..task.weights.len()).filter(|i| twins[*i].is_none()).map(|i| task.weights[i].tensor.count() as u64).sum();
    let mut rest = 0;
    let is_free: HashSet<usize> = free.iter().copied().collect();
    let scheme = |i: usize| assigned[i].as_ref().map(|a| &a.scheme).filter(|s| !s.is_none());
    // A twin that a rule treats in another way has bytes of its own.
    let counts = |i: &usize| {
        !is_free.contains(i) && twins[*i].is_none_or(|first| scheme(*i) != scheme(first) && assigned[*i].is_some())
    };
    let mut fixed = vec![];
    for i in (0..task.weights.len()).filter(counts) {
        let w = &task.weights[i];
        let plain = w.tensor.blob().len() as u64;
        let own = scheme(i).and_then(|s| Some((compressed(w, s, task.opset, None, false).ok()?.1, s)));
        match own.filter(|(bytes, _)| *bytes <= plain) {
            Some((bytes, s)) => {
                rest += bytes;
                fixed.push((i, s.clone()));
            }
            None => rest += plain,
        }
    }
    let (mut curve, steps) = walk(task.weights, &slots, rest, elements);
    let (budget, what) = match task.plan.goal {
        Goal::Bytes(most) => (Some(most.saturating_sub(task.plan.overhead)), String::new()),
        Goal::BitsPerWeight(bits) => {
            (Some((bits * elements as f64 / 8.0).floor() as u64), format!("{bits} bits per weight"))
        }
        Goal::Drop { .. } => (None, String::new()),
    };
    let chosen = match (task.plan.goal, budget) {
        (Goal::Drop { metric, limit }, _) => {
            let others = Others { fixed, twins: &twins };
            least(task, &slots, &others, &steps, &mut curve, metric, limit)?
        }
        // What of a package is no weight is an estimate: its size is known when it is made.
        (Goal::Bytes(_), Some(budget)) => curve.iter().rposition(|p| p.bytes <= budget).unwrap_or(0),
        (_, budget) => within(&curve, budget.unwrap_or(u64::MAX), &what)?,
    };
    let level = levels(&slots, &steps[..chosen]);
    let mut picks: Vec<Choice> = slots.iter().zip(&level).map(|(s, l)| s.hull[*l].clone()).collect();
    if let Some(budget) = budget {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        improve(&slots, &mut picks, signed(budget).saturating_sub(signed(curve[chosen].bytes)).max(0));
    }
    let is_smallest = slots.iter().zip(&picks).all(|(s, p)| s.all.first().is_none_or(|least| p.bytes <= least.bytes));
    let expected = picks.iter().map(|p| p.expected).sum();
    for (slot, pick) in slots.iter().zip(picks) {
        let scheme = pick.parsed;
        assigned[slot.weight] =
            Some(Assigned { scheme, rule: RULE.to_owned(), named: false, by_config: false, left: None });
    }
    for (i, twin) in twins.iter().enumerate() {
        if let Some(first) = twin
            && assigned[i].is_none()
        {
            assigned[i] = assigned[*first].clone();
        }
    }
    Ok(Search {
        on_samples: task.calibration.is_some(),
        weights: found,
        curve,
        chosen,
        expected,
        resumed: log.resumed,
        refused,
        is_smallest,
    })
}

/// For each weight the first of those that have the same bytes, if it is not that itself.
pub(super) fn twins(weights: &[Weight]) -> Vec<Option<usize>> {
    let mut first: HashMap<_, Vec<usize>> = HashMap::new();
    let mut twin = |i: usize| {
        let (w, t) = (&weights[i], &weights[i].tensor);
        let same = first.entry((t.blob().storage(), t.dtype(), t.shape())).or_default();
        let alike = |j: &&usize| weights[**j].role == w.role && weights[**j].tensor.blob().same_storage(t.blob());
        let twin = same.iter().find(alike).copied();
        if twin.is_none() {
            same.push(i);
        }
        twin
    };
    (0..weights.len()).map(&mut twin).collect()
}

/// What each weight of `free` loses in each form.
fn measure(
    task: &Task<'_>,
    free: &[usize],
    log: &mut Log,
    refused: &mut Vec<(String, String)>,
) -> Result<Vec<Sensitivity>, Failure> {
    let base = match task.calibration {
        Some(c) => Some(finite(outputs(c, &HashMap::new(), SAMPLES)?)?),
        None => None,
    };
    let find = |i: &usize| {
        let w = &task.weights[*i];
        let found = log.find(w);
        w.tensor.blob().release();
        found
    };
    // Known measurements need no inputs.
    let mut logged: Vec<Option<Sensitivity>> = free.iter().map(find).collect();
    let mut all = vec![];
    let mut rest = free;
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(batch(task, rest, &logged));
        let later_logged = logged.split_off(batch.len());
        let wanted: Vec<&Weight> =
            batch.iter().zip(&logged).filter(|(_, l)| l.is_none()).map(|(i, _)| &task.weights[*i]).collect();
        let mut inputs = known(task, &wanted)?.into_iter();
        for (i, logged) in batch.iter().zip(std::mem::replace(&mut logged, later_logged)) {
            let w = &task.weights[*i];
            let entry = match logged {
                Some(entry) => {
                    log.resumed += 1;
                    entry
                }
                None => {
                    let entry = one(task, w, base.as_deref(), inputs.next().flatten().as_deref(), refused)?;
                    log.add(w, &entry)?;
                    entry
                }
            };
            all.push(entry);
            w.tensor.blob().release();
            (task.told)(all.len(), free.len());
        }
        rest = later;
    }
    Ok(all)
}

/// How many of the next weights are looked at together: as many as what is known of their inputs leaves memory for.
fn batch(task: &Task<'_>, next: &[usize], logged: &[Option<Sensitivity>]) -> usize {
    let mut left = task.max_memory;
    for (n, (i, logged)) in next.iter().zip(logged).enumerate() {
        let witness = task.calibration.filter(|_| task.aware && logged.is_none());
        let cost = witness.map_or(0, |c| c.cost(&task.weights[*i]));
        match left.checked_sub(cost) {
            Some(rest) => left = rest,
            None if n == 0 => left = 0,
            None => return n,
        }
    }
    next.len()
}

/// What the inputs of weights are like, where these are heeded.
fn known(task: &Task<'_>, weights: &[&Weight]) -> Result<Vec<Option<Arc<Inputs>>>, Failure> {
    match task.calibration.filter(|_| task.aware && !weights.is_empty()) {
        Some(c) => c.look(weights).map_err(failed_witness),
        None => Ok(vec![None; weights.len()]),
    }
}

/// What one weight loses in each form.
fn one(
    task: &Task<'_>,
    w: &Weight,
    base: Option<&[Tensor]>,
    inputs: Option<&Inputs>,
    refused: &mut Vec<(String, String)>,
) -> Result<Sensitivity, Failure> {
    let bytes = w.tensor.blob().len() as u64;
    let forms: Vec<_> =
        task.candidates.par_iter().map(|s| (s, compressed(w, s, task.opset, inputs, base.is_some()))).collect();
    let mut choices: Vec<(Choice, Vec<f32>)> = vec![];
    let mut why = None;
    for (scheme, form) in forms {
        // What cannot be applied is no choice.
        let (applied, bytes, decoded) = match form {
            Ok(form) => form,
            Err(refusal) => {
                why.get_or_insert(refusal.to_string());
                continue;
            }
        };
        let noise = 10f64.powf(-applied.distortion.snr_db / 10.0);
        if !noise.is_finite() || choices.iter().any(|(c, _)| c.scheme == applied.scheme.to_string()) {
            continue;
        }
        // With inputs, what its own outputs lose says more.
        let role = w.role.as_ref().ok().copied();
        let own = inputs.zip(role).and_then(|(i, role)| i.output_error(&w.tensor, role, &decoded));
        let choice = Choice {
            scheme: applied.scheme.to_string(),
            parsed: scheme.clone(),
            bytes,
            noise,
            expected: own.unwrap_or(noise),
        };
        choices.push((choice, decoded));
    }
    if let Some(why) = why.filter(|_| choices.is_empty()) {
        refused.push((w.name.clone(), why));
    }
    choices.sort_by_key(|(c, _)| c.bytes);
    if let (Some(base), Some(c)) = (base, task.calibration) {
        // The form of least bytes and one of middle size are measured; losses of others follow from their errors.
        let mut probes = vec![];
        for at in [0, choices.len() / 2] {
            let Some((choice, decoded)) = choices.get_mut(at) else { continue };
            let with = HashMap::from([((w.function, w.value), tensor_of(&w.tensor, std::mem::take(decoded)))]);
            let got = outputs(c, &with, SAMPLES)?;
            probes.push((choice.expected, base.iter().zip(&got).map(|(want, got)| relative(want, got).0).sum::<f64>()));
            if choices.len() < 2 {
                break;
            }
        }
        for (choice, _) in &mut choices {
            choice.expected = loss_by(&probes, choice.expected);
        }
    }
    let mut choices: Vec<Choice> = choices.into_iter().map(|(c, _)| c).collect();
    choices.push(Choice { scheme: "none".to_owned(), parsed: Scheme::default(), bytes, noise: 0.0, expected: 0.0 });
    Ok(Sensitivity { name: w.name.clone(), choices })
}

/// The loss that goes with an error, from two errors with their losses: a power law through both, and at least about linear
/// beyond them.
fn loss_by(probes: &[(f64, f64)], error: f64) -> f64 {
    let measured: Vec<_> = probes.iter().filter(|(e, l)| *e > 0.0 && *l > 0.0).collect();
    match (error > 0.0, measured.as_slice()) {
        (false, _) | (_, []) => 0.0,
        (true, [(e, l)]) => l * error / e,
        (true, [(e0, l0), (e1, l1), ..]) => {
            let power = ((l0 / l1).ln() / (e0 / e1).ln()).clamp(0.5, 2.0);
            let power = if power.is_finite() { power } else { 1.0 };
            l1 * (error / e1).powf(power)
        }
    }
}

/// A weight in a form, the bytes of it and, where these are wanted, the elements that it decodes to.
fn compressed(
    w: &Weight,
    scheme: &Scheme,
    opset: Opset,
    inputs: Option<&Inputs>,
    decode: bool,
) -> Result<(Applied, u64, Vec<f32>), Refusal> {
    let role = w.role.clone().map_err(|e| Refusal::new(e.to_string()))?;
    let c = compress_tensor(&w.tensor, role, scheme, Knowledge { inputs })?;
    expressible(&c, w.tensor.shape(), opset)?;
    if !decode {
        return Ok((c.measured(&w.tensor), c.bytes(opset), vec![]));
    }
    let decoded = c.decoded(w.tensor.shape());
    Ok((c.applied(&w.tensor, &decoded), c.bytes(opset), decoded))
}

fn tensor_of(like: &Tensor, values: Vec<f32>) -> Tensor {
    if like.dtype() == DType::F16 {
        return Tensor::from_vec(like.shape(), values.into_iter().map(f16::from_f32).collect());
    }
    Tensor::from_vec(like.shape(), values)
}

/// The float outputs of all functions on the first samples, with other constants in the place of some.
fn outputs(c: &Calibration, with: &HashMap<(usize, Value), Tensor>, samples: usize) -> Result<Vec<Tensor>, Failure> {
    let mut all = vec![];
    for (i, f) in c.module().functions.iter().enumerate() {
        let own = with.iter().filter(|((of, _), _)| *of == i).map(|((_, v), t)| (*v, t.clone())).collect();
        let session = Session::new(c.module(), f, &Cpu, Options::default()).with_constants(&own);
        for inputs in c.runs(i).iter().take(samples) {
            let got = session.run(inputs, &mut States::new()).map_err(|e| vec![run_error(&e)])?;
            all.extend(got.into_iter().filter(|t| t.dtype().is_float()));
        }
    }
    Ok(all)
}

/// The outputs that losses are measured against; an error where they say nothing.
fn finite(base: Vec<Tensor>) -> Result<Vec<Tensor>, Failure> {
    if base.iter().all(|t| t.to_f32().iter().any(|x| x.is_finite())) {
        return Ok(base);
    }
    let d = Diagnostic::error(
        &codes::C0002,
        "the model's outputs on the samples are not finite, so no loss can be measured",
    );
    Err(vec![d.help("leave out the samples on which they are not, or see `run` for the first op")])
}

/// Weights that are not searched.
struct Others<'a> {
    /// Those that have a scheme of their own.
    fixed: Vec<(usize, Scheme)>,
    /// For each weight, the one that it is as.
    twins: &'a [Option<usize>],
}

/// The squared difference over the squares of `want`, and one minus the cosine.
fn relative(want: &Tensor, got: &Tensor) -> (f64, f64) {
    let (want, got) = (want.to_f32(), got.to_f32());
    let mut sums = [0f64; 4];
    for (x, y) in want.iter().zip(got.iter()) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        if x == y || !x.is_finite() {
            if x.is_finite() {
                sums = [sums[0], sums[1] + x * x, sums[2] + y * y, sums[3] + x * y];
            }
            continue;
        }
        sums = [sums[0] + (x - y) * (x - y), sums[1] + x * x, sums[2] + y * y, sums[3] + x * y];
    }
    let [noise, x, y, xy] = sums;
    let norm = (x * y).sqrt();
    let cosine = if noise == 0.0 {
        1.0
    } else if norm > 0.0 {
        xy / norm
    } else {
        0.0
    };
    let part = if noise == 0.0 {
        0.0
    } else if x > 0.0 {
        noise / x
    } else {
        f64::MAX.sqrt()
    };
    (if part.is_nan() { f64::MAX.sqrt() } else { part }, 1.0 - cosine)
}

/// The first point of the curve whose loss is within `limit`, found by halving: losses are taken to fall along it.
fn least(
    task: &Task<'_>,
    slots: &[Slot],
    others: &Others<'_>,
    steps: &[usize],
    curve: &mut [Point],
    metric: Metric,
    limit: f64,
) -> Result<usize, Failure> {
    let Some(c) = task.evaluation else { return Ok(steps.len()) };
    let base = finite(outputs(c, &HashMap::new(), usize::MAX)?)?;
    let (mut low, mut high) = (0, steps.len());
    while low < high {
        let at = usize::midpoint(low, high);
        let loss = loss(task, c, slots, others, &levels(slots, &steps[..at]), &base, metric)?;
        curve[at].measured = Some(loss);
        if loss <= limit { high = at } else { low = at + 1 }
    }
    Ok(low)
}

/// What the model loses with these forms.
fn loss(
    task: &Task<'_>,
    c: &Calibration,
    slots: &[Slot],
    others: &Others<'_>,
    level: &[usize],
    base: &[Tensor],
    metric: Metric,
) -> Result<f64, Failure> {
    let searched = slots.iter().zip(level).map(|(s, l)| (s.weight, &s.hull[*l].parsed));
    let chosen: Vec<(usize, &Scheme)> =
        searched.chain(others.fixed.iter().map(|(i, s)| (*i, s))).filter(|(_, s)| !s.is_none()).collect();
    let decoded: Vec<(usize, Tensor)> = chosen
        .par_iter()
        .filter_map(|(i, scheme)| {
            let w = &task.weights[*i];
            let (_, _, decoded) = compressed(w, scheme, task.opset, None, true).ok()?;
            Some((*i, tensor_of(&w.tensor, decoded)))
        })
        .collect();
    let decoded: HashMap<usize, Tensor> = decoded.into_iter().collect();
    let mut with = HashMap::new();
    for (i, w) in task.weights.iter().enumerate() {
        let own = decoded.get(&i).or_else(|| decoded.get(&others.twins[i]?));
        if let Some(t) = own {
            with.insert((w.function, w.value), t.clone());
        }
    }
    let got = outputs(c, &with, usize::MAX)?;
    let pairs = || base.iter().zip(&got);
    match metric {
        Metric::Rms => Ok(pairs().map(|(x, y)| relative(x, y).0.sqrt()).fold(0.0, f64::max)),
        Metric::Cosine => Ok(pairs().map(|(x, y)| relative(x, y).1).fold(0.0, f64::max)),
        Metric::Top1 => {
            let labels = task.labels.ok_or_else(|| {
                let d = Diagnostic::error(&codes::C0002, "`top1` wants the right class of each sample");
                vec![d.help("give them with `--labels`")]
            })?;
            // Those of the first function come first, and only those that are floats.
            let f = &c.module().functions[0];
            let float = |v: &Value| f.ty(*v).tensor().is_some_and(|t| t.dtype.is_float());
            let names: Vec<&str> =
                f.outputs().iter().zip(&f.sig.outputs).filter(|(v, _)| float(v)).map(|(_, p)| &*p.name).collect();
            let (each, runs) = (names.len().max(1), c.runs(0).len());
            labels.check(c.runs(0).len()).map_err(|d| vec![d])?;
            let mut accuracy = Accuracy::default();
            for (sample, (x, y)) in base.chunks(each).zip(got.chunks(each)).take(runs).enumerate() {
                let at = Accuracy::choose(names.iter().copied().zip(y)).map_err(|d| vec![d])?;
                if let Some(label) = labels.get(sample) {
                    accuracy.count(label, &x[at], &y[at]).map_err(|d| vec![d])?;
                }
            }
            let lost = accuracy.source_correct as f64 - accuracy.package_correct as f64;
            Ok(100.0 * lost / accuracy.samples.max(1) as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_read() {
        assert_eq!("top1=0.5".parse(), Ok(Goal::Drop { metric: Metric::Top1, limit: 0.5 }));
        for bad in ["top1", "top1=x", "snr=3", "rms=-1", "rms=inf"] {
            assert!(bad.parse::<Goal>().is_err(), "{bad}");
        }
    }
}
