//! Mixed precision: of some schemes, the one for each weight with which the model loses least within a budget.
//!
//! How much a weight matters is measured: on samples, by what the outputs lose when it alone is compressed; without samples,
//! by what it loses itself. Losses are taken to add up, and to grow with the squared error of a weight. Every weight begins
//! with its smallest form, and the upgrade that gains most for its bytes comes first. What is left of the budget is spent by
//! changing up to two weights at a time.

mod curve;
mod log;
mod loss;

pub use curve::Point;

use super::{Assigned, calibrate::Calibration, failed_witness};
use crate::{Diagnostic, Failure, accuracy::Labels, codes};
use curve::{Slot, improve, levels, walk, within};
use log::Log;
use loss::{Forms, Others, finite, least, outputs, relative, tensor_of};
use mlconv_mil::schema::Opset;
use mlconv_passes::compress::{
    Compressed, Inputs, Knowledge, Left, Refusal, Scheme, Weight, Witness, compress_tensor, expressible, working_memory,
};
use mlconv_tensor::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
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
    /// Bytes that what is known of inputs, and weights in the works, may take.
    pub max_memory: u64,
    /// A folder for weights that are too large for memory.
    pub scratch: &'a Path,
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
        let d = Diagnostic::error(&codes::C0001, "no weight is left to choose a scheme for");
        let small = task.weights.iter().any(|w| matches!(w.role, Err(Left::Small(_))));
        return Err(vec![if small { d.help("weights are small; give a lower `--weight-threshold`") } else { d }]);
    }
    let mut log = Log::open(task)?;
    let mut refused = vec![];
    let mut forms = Forms::new(task);
    // Losses are measured of what has been coded by then.
    let keeps = matches!(task.plan.goal, Goal::Drop { .. });
    let mut found = match &task.plan.known {
        Some(known) if known.len() == free.len() => known.clone(),
        _ => measure(task, &free, &mut log, &mut refused, keeps.then_some(&mut forms))?,
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
        let own = scheme(i).and_then(|s| Some((form(w, s, task.opset, None).ok()?.bytes(task.opset), s)));
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
            least(&mut forms, &slots, &others, &steps, &mut curve, (metric, limit))?
        }
        // What of a package is no weight is an estimate: its size is known when it is made.
        (Goal::Bytes(_), Some(budget)) => curve.iter().rposition(|p| p.bytes <= budget).unwrap_or(0),
        (_, budget) => within(&curve, budget.unwrap_or(u64::MAX), &what, &refused)?,
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
    mut kept: Option<&mut Forms<'_>>,
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
        let costs = || rest.iter().zip(&logged).map(|(i, logged)| if logged.is_none() { cost(task, *i) } else { 0 });
        // The other half is for the forms of a weight.
        let (batch, later) = rest.split_at(fitting(costs(), task.max_memory / 2));
        let left = task.max_memory.saturating_sub(costs().take(batch.len()).sum());
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
                    let entry = {
                        let inputs = inputs.next().flatten();
                        one(task, *i, base.as_deref(), inputs.as_deref(), left, refused, kept.as_deref_mut())?
                    };
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

/// Bytes that what is known of the inputs of a weight takes.
fn cost(task: &Task<'_>, weight: usize) -> u64 {
    task.calibration.filter(|_| task.aware).map_or(0, |c| c.cost(&task.weights[weight]))
}

/// How many of these fit into a budget together; at least one, where there is one.
fn fitting(needs: impl IntoIterator<Item = u64>, budget: u64) -> usize {
    let mut left = Some(budget);
    let fits = |need: &u64| {
        left = left.and_then(|left| left.checked_sub(*need));
        left.is_some()
    };
    let mut needs = needs.into_iter().peekable();
    let any = usize::from(needs.peek().is_some());
    needs.take_while(fits).count().max(any)
}

/// What the inputs of weights are like, where these are heeded.
fn known(task: &Task<'_>, weights: &[&Weight]) -> Result<Vec<Option<Arc<Inputs>>>, Failure> {
    match task.calibration.filter(|_| task.aware && !weights.is_empty()) {
        Some(c) => c.look(weights).map_err(failed_witness),
        None => Ok(vec![None; weights.len()]),
    }
}

/// A weight in a form.
struct Form {
    /// What was done, where sizes did not divide another than was asked for.
    scheme: Scheme,
    bytes: u64,
    /// The squared error over the squares of the elements.
    noise: f64,
    /// What its own outputs lose; `None` where nothing is known of inputs.
    own: Option<f64>,
    /// What it decodes to, where there is room for it.
    decoded: Option<Vec<f32>>,
    /// Its codes, where they are kept.
    coded: Option<Compressed>,
}

/// What one weight loses in each form. `left`: bytes that its forms may take together.
fn one(
    task: &Task<'_>,
    weight: usize,
    base: Option<&[Tensor]>,
    inputs: Option<&Inputs>,
    left: u64,
    refused: &mut Vec<(String, String)>,
    kept: Option<&mut Forms<'_>>,
) -> Result<Sensitivity, Failure> {
    let w = &task.weights[weight];
    let bytes = w.tensor.blob().len() as u64;
    let role = w.role.as_ref().ok().copied();
    // Singles of what is decoded, of the weight, and of their differences in the order of inputs.
    let singles = if inputs.is_some() { 16 } else { 8 } * w.tensor.count() as u64;
    let need = |s: &Scheme| {
        let work = role.map_or(0, |role| working_memory(&w.tensor, role, s, inputs.is_some()));
        if base.is_some() { work.saturating_add(singles) } else { work }
    };
    let store = kept.as_ref().map(|k| &k.store);
    let make = |s: &Scheme, keeps: bool| {
        let c = form(w, s, task.opset, inputs)?;
        let bytes = c.bytes(task.opset);
        let (applied, own, decoded) = if base.is_none() {
            (c.measured(&w.tensor), None, None)
        } else {
            let decoded = c.decoded(w.tensor.shape());
            // With inputs, what its own outputs lose says more.
            let own = inputs.zip(role).and_then(|(i, role)| i.output_error(&w.tensor, role, &decoded));
            (c.applied(&w.tensor, &decoded), own, keeps.then_some(decoded))
        };
        let noise = 10f64.powf(-applied.distortion.snr_db / 10.0);
        // What cannot be kept is coded again.
        let coded = store.and_then(|store| c.kept_in(store).ok());
        Ok(Form { scheme: applied.scheme, bytes, noise, own, decoded, coded })
    };
    let mut forms = vec![];
    let mut rest = task.candidates;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest.iter().map(need), left));
        // What does not fit at once is decoded again where it is wanted.
        let keeps = now.len() == task.candidates.len();
        let made: Vec<Result<Form, Refusal>> = now.par_iter().map(|s| make(s, keeps)).collect();
        forms.extend(now.iter().zip(made));
        rest = later;
    }
    let mut codes = vec![];
    let mut choices: Vec<(Choice, Option<Vec<f32>>)> = vec![];
    let mut why = None;
    for (scheme, form) in forms {
        // What cannot be applied is no choice.
        let Form { scheme: applied, bytes, noise, own, decoded, coded } = match form {
            Ok(form) => form,
            Err(refusal) => {
                why.get_or_insert(refusal.to_string());
                continue;
            }
        };
        let applied = applied.to_string();
        if !noise.is_finite() || choices.iter().any(|(c, _)| c.scheme == applied) {
            continue;
        }
        codes.extend(coded.map(|c| (scheme, c)));
        let expected = own.unwrap_or(noise);
        choices.push((Choice { scheme: applied, parsed: scheme.clone(), bytes, noise, expected }, decoded));
    }
    if let Some(kept) = kept {
        codes.into_iter().for_each(|(scheme, c)| kept.learn(weight, scheme, c));
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
            let decoded = match decoded.take() {
                Some(decoded) => Some(decoded),
                None => form(w, &choice.parsed, task.opset, inputs).ok().map(|c| c.decoded(w.tensor.shape())),
            };
            let Some(decoded) = decoded else { continue };
            let with = HashMap::from([((w.function, w.value), tensor_of(&w.tensor, decoded))]);
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

/// A weight in a form, which the target can express.
fn form(w: &Weight, scheme: &Scheme, opset: Opset, inputs: Option<&Inputs>) -> Result<Compressed, Refusal> {
    let role = w.role.clone().map_err(|e| Refusal::new(e.to_string()))?;
    let c = compress_tensor(&w.tensor, role, scheme, Knowledge { inputs })?;
    expressible(&c, w.tensor.shape(), opset)?;
    Ok(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_for_all_and_let_one_through() {
        let fits = |needs: &[u64]| fitting(needs.iter().copied(), 10);
        assert_eq!([fits(&[]), fits(&[20, 1]), fits(&[4, 6, 0, 1]), fits(&[u64::MAX, 1])], [0, 1, 3, 1]);
    }

    #[test]
    fn goals_are_read() {
        assert_eq!("top1=0.5".parse(), Ok(Goal::Drop { metric: Metric::Top1, limit: 0.5 }));
        for bad in ["top1", "top1=x", "snr=3", "rms=-1", "rms=inf"] {
            assert!(bad.parse::<Goal>().is_err(), "{bad}");
        }
    }
}
