//! Compression as a user asks for it: which weights and activations, how, within which memory, and what became of each.

pub mod activations;
mod calibrate;
mod config;
pub mod preset;
mod rules;
pub mod search;
mod spool;

pub use calibrate::Calibration;
pub use config::Config;
pub use preset::{PRESETS, Preset};
pub use rules::{Assigned, Rule, Selector, assign};
pub use search::{Goal, Metric, Plan, Search};

use crate::{Diagnostic, Failure, accuracy::Labels, codes};
use mlconv_mil::{ir::Module, schema::Opset};
use mlconv_passes::compress::{
    Applied, CompressError, Engine, Left, Outcome, Scheme, Task, Weight, Witness, WitnessError, weights,
};
use spool::Spool;
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// Elements up to which weights are left alone, unless said otherwise: coremltools' number.
pub const DEFAULT_THRESHOLD: usize = 2048;
/// Bytes that tensors in the works may take, unless said otherwise.
pub const DEFAULT_MEMORY: u64 = 512 << 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which weights, and how: the last rule that matches a weight counts.
    pub rules: Vec<Rule>,
    /// How schemes are found for the weights that no rule matches.
    pub plan: Option<Plan>,
    /// What becomes of weights that no rule matches.
    pub config: Option<Box<Config>>,
    /// What becomes of activations; `None` leaves them as they are.
    pub activations: Option<activations::Request>,
    /// Elements up to which weights are left alone.
    pub threshold: usize,
    /// Bytes that tensors in the works may take.
    pub max_memory: u64,
    /// Whether results are dropped once they are measured.
    pub dry_run: bool,
    /// Whether it is fine that something asked for could not be done.
    pub allow_skip: bool,
    /// Whether codes are chosen by the inputs of a weight, where there are samples.
    pub aware: bool,
    /// A folder for results that are too large for memory.
    pub scratch: PathBuf,
}

/// What became of the weights of a model.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One per weight, in program order.
    pub rows: Vec<Row>,
    /// How schemes were found, where they were searched.
    pub search: Option<Search>,
    /// Activations, where they were asked for.
    pub activations: Option<activations::Report>,
    /// Why some of what was asked for was not done.
    pub unapplied: Vec<Diagnostic>,
    /// What a user should know.
    pub notes: Vec<Diagnostic>,
}

/// What became of one weight.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in the program.
    pub name: String,
    /// Its element type and shape, such as `f16[64, 3, 7, 7]`.
    pub ty: String,
    /// Its elements.
    pub count: u64,
    /// Types of the ops that read it.
    pub readers: Vec<&'static str>,
    /// The scheme that was asked for, and the rule that asks for it.
    pub asked: Option<(Scheme, String)>,
    /// What was done; where nothing was, why.
    pub outcome: Result<Applied, String>,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
}

impl Report {
    /// Bytes of all weights before and after.
    pub fn bytes(&self) -> (u64, u64) {
        self.rows.iter().fold((0, 0), |(a, b), r| (a + r.bytes_before, b + r.bytes_after))
    }

    /// Bits that an element of a weight takes on average, before and after.
    pub fn bits_per_weight(&self) -> (f64, f64) {
        let count = self.rows.iter().filter(|r| r.bytes_before > 0).map(|r| r.count).sum::<u64>().max(1) as f64;
        let (before, after) = self.bytes();
        (before as f64 * 8.0 / count, after as f64 * 8.0 / count)
    }
}

/// Something that took its time is done.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Ranges of activations were found.
    Activations(&'a activations::Report),
    /// It was measured how much weights matter.
    Measured {
        /// How many.
        done: usize,
        /// Of how many.
        of: usize,
    },
    /// A weight was compressed.
    Weight {
        /// How many are.
        done: usize,
        /// Of how many.
        of: usize,
        /// Bytes that those had.
        bytes: u64,
        /// Bytes of all that are to be compressed.
        of_bytes: u64,
        /// What became of it.
        row: &'a Row,
    },
}

/// Told of what is done.
pub type Progress<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// What samples there are to compress by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Samples<'a> {
    /// Those that codes and schemes are chosen by.
    pub calibration: Option<&'a Calibration>,
    /// Those that losses are measured on.
    pub evaluation: Option<&'a Calibration>,
    /// The right class of each of the latter.
    pub labels: Option<&'a Labels>,
    /// Whether codes are chosen by the inputs of a weight.
    pub aware: bool,
}

/// The op set that `module` must have for what is asked of it. Where the target was stated and is older, that is an error;
/// where it was not, it is raised, which the second value says.
pub fn target(
    module: &Module,
    request: &Request,
    stated: Option<Opset>,
) -> Result<(Opset, Option<Diagnostic>), Failure> {
    let own = module.functions.iter().map(|f| f.opset).max().unwrap_or_default();
    let (weights, assigned) = assigned(module, request)?;
    // A search makes do with what the target has.
    let searched = request.plan.iter().filter(|_| stated.is_none()).flat_map(|p| p.schemes(Opset::Ios18));
    let asked = weights.iter().zip(&assigned).filter(|(w, _)| w.role.is_ok()).filter_map(|(_, a)| a.as_ref());
    let schemes = asked.filter(|a| a.left.is_none()).map(|a| (since(&a.scheme), format!("`{}` needs", a.scheme)));
    let activations = request.activations.as_ref().map(|a| (Opset::Ios17, format!("`--activations {}` needs", a.form)));
    // What the search chooses is not known yet.
    let searched = searched.map(|s| (since(&s), format!("the search may choose `{s}`, which needs")));
    let mut needs = schemes.chain(activations).chain(searched).filter(|(needed, _)| *needed > own);
    // Of several that need as much, the first, so that what is certain comes before what a search may choose.
    let Some(first) = needs.next() else { return Ok((own, None)) };
    let (needed, what) = needs.fold(first, |most, next| if next.0 > most.0 { next } else { most });
    let what = format!("{what} the target {needed}");
    match stated {
        Some(target) => {
            let d = Diagnostic::error(&codes::X0003, format!("{what}, and {target} was asked for"));
            let other = "before ios18 there are int8 and uint8 per tensor or channel, pal1, pal2, pal4, pal6 and pal8 per tensor, and pruning alone";
            Err(vec![d.help(format!("use `--target {needed}`, or another scheme: {other}"))])
        }
        None => {
            let d = Diagnostic::warning(&codes::C0101, format!("{what}: the package is for {needed}, not {own}"));
            Ok((needed, Some(d.help("state a target with `--target` to keep to it"))))
        }
    }
}

/// The weights of a module, and what is to become of each.
fn assigned(module: &Module, request: &Request) -> Result<(Vec<Weight>, Vec<Option<Assigned>>), Failure> {
    // A config may have a smaller threshold of its own.
    let least = request.config.as_ref().and_then(|c| c.least_threshold()).unwrap_or(request.threshold);
    let mut weights = weights(module, least.min(request.threshold));
    let assigned = assign(&weights, request.config.as_deref(), &request.rules).map_err(|d| vec![d])?;
    for (w, a) in weights.iter_mut().zip(&assigned) {
        let by_config = a.as_ref().is_some_and(|a| a.by_config);
        if w.role.is_ok() && !by_config && w.tensor.count() <= request.threshold {
            w.role = Err(Left::Small(request.threshold));
        }
    }
    Ok((weights, assigned))
}

/// The first op set that can express a scheme.
fn since(s: &Scheme) -> Opset {
    use mlconv_passes::compress::{Code, Share};
    use mlconv_tensor::DType;
    if matches!(&s.code, Some(Code::Palette(p)) if p.vector > 1 && p.channel_scale) {
        return Opset::Ios26;
    }
    let old = match (&s.prune, &s.code) {
        (None, None) => return Opset::Ios15,
        (Some(_), Some(_)) => false,
        (Some(_), None) => true,
        (None, Some(Code::Linear(l))) => {
            matches!(l.dtype, DType::I8 | DType::U8) && matches!(l.share, Share::Tensor | Share::Channel)
        }
        (None, Some(Code::Palette(p))) => {
            p.bits != Some(3) && p.group.is_none() && p.vector == 1 && !p.channel_scale && p.lut_dtype.is_none()
        }
    };
    if old { Opset::Ios16 } else { Opset::Ios18 }
}

/// Bytes of all weights of a module, each counted once.
pub fn bytes_of_weights(module: &Module) -> u64 {
    let all = weights(module, 0);
    let twins = search::twins(&all);
    all.iter().zip(&twins).filter(|(_, twin)| twin.is_none()).map(|(w, _)| w.tensor.blob().len() as u64).sum()
}

/// Compresses the weights of `module`.
pub fn apply(
    module: &mut Module,
    request: &Request,
    samples: Samples<'_>,
    progress: Progress<'_>,
) -> Result<Report, Failure> {
    let mut report = Report::default();
    if let Some(asked) = &request.activations {
        let done = activations::apply(module, asked, samples.calibration, request.dry_run)?;
        progress(Event::Activations(&done.report));
        (report.activations, report.notes, report.unapplied) = (Some(done.report), done.notes, done.unapplied);
    }
    let (weights, mut assigned) = assigned(module, request)?;
    if let Some(config) = &request.config {
        report.unapplied.extend(config.unapplied(&weights));
    }
    let opset = module.functions.iter().map(|f| f.opset).max().unwrap_or_default();
    if let Some(plan) = &request.plan {
        let told = |done, of| progress(Event::Measured { done, of });
        let task = search::Task {
            plan,
            candidates: &plan.schemes(opset),
            weights: &weights,
            opset,
            calibration: samples.calibration,
            evaluation: samples.evaluation,
            labels: samples.labels,
            aware: samples.aware,
            max_memory: request.max_memory,
            scratch: &request.scratch,
            told: &told,
        };
        let found = search::run(&task, &mut assigned)?;
        for (name, why) in &found.refused {
            let d = Diagnostic::warning(&codes::C0102, format!("`{name}` is not compressed: {why}"));
            report.unapplied.push(d.help("leave it out with `--tensor NAME=none`, or accept it with `--allow-skip`"));
        }
        report.search = Some(found);
    }
    // Weights that a rule means and that cannot be compressed are tried as well: the engine says why not.
    // A bias or norm that a pattern matches beside a weight is not what it means.
    let all = weights.iter().zip(&assigned);
    let meant: HashSet<&str> =
        all.filter(|(w, _)| w.role.is_ok()).filter_map(|(_, a)| Some(a.as_ref()?.rule.as_str())).collect();
    let wanted = |w: &Weight, a: &Assigned| {
        !a.scheme.is_none() && a.left.is_none() && (w.role.is_ok() || (a.named && !meant.contains(a.rule.as_str())))
    };
    let chosen: Vec<usize> =
        (0..weights.len()).filter(|i| assigned[*i].as_ref().is_some_and(|a| wanted(&weights[*i], a))).collect();
    let task = |i: &usize| assigned[*i].as_ref().map(|a| Task { weight: &weights[*i], scheme: a.scheme.clone() });
    let tasks: Vec<Task<'_>> = chosen.iter().filter_map(task).collect();
    let row = |i: usize, outcome: Option<&Outcome>| {
        let w = &weights[i];
        let bytes = w.tensor.blob().len() as u64;
        let shape: Vec<String> = w.tensor.shape().iter().map(ToString::to_string).collect();
        let left = || match &w.role {
            Err(left) => left.to_string(),
            Ok(_) => match &assigned[i] {
                Some(Assigned { left: Some(why), .. }) => why.clone(),
                Some(a) => format!("`{}` leaves it alone", a.rule),
                None => "nothing asks for it".to_owned(),
            },
        };
        Row {
            name: w.name.clone(),
            ty: format!("{}[{}]", w.tensor.dtype(), shape.join(", ")),
            count: w.tensor.count() as u64,
            readers: w.readers.iter().map(|r| r.op).collect(),
            asked: assigned[i].as_ref().filter(|a| !a.scheme.is_none()).map(|a| (a.scheme.clone(), a.rule.clone())),
            outcome: outcome.map_or_else(|| Err(left()), |o| o.done.clone().map_err(|e| e.to_string())),
            bytes_before: outcome.map_or(bytes, |o| o.bytes_before),
            bytes_after: outcome.map_or(bytes, |o| o.bytes_after),
        }
    };
    let spool = Spool::new(&request.scratch);
    let size = |i: &usize| weights[*i].tensor.blob().len() as u64;
    let of_bytes = chosen.iter().map(size).sum();
    let progressed = Mutex::new((0, 0));
    let tell = |t: usize, outcome: &Outcome| {
        let row = row(chosen[t], Some(outcome));
        // Held while it is told, so that the numbers come in order.
        let mut at = progressed.lock().unwrap_or_else(PoisonError::into_inner);
        *at = (at.0 + 1, at.1 + size(&chosen[t]));
        progress(Event::Weight { done: at.0, of: chosen.len(), bytes: at.1, of_bytes, row: &row });
    };
    let witness = samples.calibration.filter(|_| samples.aware).map(|c| c as &dyn Witness);
    let engine = Engine {
        opset,
        max_memory: request.max_memory,
        store: &spool,
        dry_run: request.dry_run,
        witness,
        progress: &tell,
    };
    let outcomes = engine.run(module, &tasks).map_err(failed)?;
    let mut outcomes = chosen.iter().copied().zip(&outcomes).peekable();
    for i in 0..weights.len() {
        let outcome = outcomes.next_if(|(c, _)| *c == i).map(|(_, o)| o);
        report.rows.push(row(i, outcome));
        let Some(outcome) = outcome else { continue };
        let (name, asked) = (&weights[i].name, assigned[i].as_ref());
        let asked = asked.map(|a| format!("{}` by `{}", a.scheme, a.rule)).unwrap_or_default();
        match &outcome.done {
            Err(why) => {
                let d = Diagnostic::warning(
                    &codes::C0102,
                    format!("`{name}` is not compressed as asked (`{asked}`): {why}"),
                );
                report
                    .unapplied
                    .push(d.help("leave it out with `--tensor NAME=none`, or accept it with `--allow-skip`"));
            }
            Ok(Applied { adapted: Some(why), .. }) => {
                report.notes.push(Diagnostic::warning(&codes::C0103, format!("`{name}`: {why}")));
            }
            Ok(_) => {}
        }
    }
    let asks = !request.rules.is_empty() || request.config.is_some() || request.plan.is_some();
    if asks && report.unapplied.is_empty() && !report.rows.is_empty() && report.rows.iter().all(|r| r.outcome.is_err())
    {
        report.unapplied.extend(nothing(&report.rows, request, &weights));
    }
    if request.allow_skip {
        report.notes.append(&mut report.unapplied);
    }
    Ok(report)
}

/// Says that no weight was compressed, where that was asked for and not by the user's own word.
fn nothing(rows: &[Row], request: &Request, weights: &[Weight]) -> Option<Diagnostic> {
    let is_asked = |r: &&Row| r.asked.is_some();
    let small = weights.iter().filter(|w| matches!(w.role, Err(Left::Small(_)))).count();
    let d = Diagnostic::warning(&codes::C0102, "no weight is compressed");
    match rows.iter().find(is_asked) {
        // A search may find that all are best as they are, and rules may leave them alone.
        None => None,
        Some(_) if small > 0 => Some(d.help(format!(
            "{small} weights have {} elements or fewer; give a lower `--weight-threshold`, or accept it with `--allow-skip`",
            request.threshold
        ))),
        Some(row) => {
            let why = row.outcome.as_ref().err().cloned().unwrap_or_default();
            Some(d.help(format!("`{}` is left as it is: {why}; accept it with `--allow-skip`", row.name)))
        }
    }
}

fn failed(e: CompressError) -> Failure {
    match e {
        CompressError::Store(_) => vec![Diagnostic::error(&codes::X0001, e.to_string())],
        CompressError::Witness(e) => failed_witness(e),
        _ => vec![Diagnostic::error(&codes::P0001, e.to_string())],
    }
}

fn failed_witness(e: WitnessError) -> Failure {
    match e.downcast::<calibrate::Failed>() {
        Ok(failed) => failed.0,
        Err(e) => vec![Diagnostic::error(&codes::N0002, e.to_string())],
    }
}

/// Whether a weight is left alone because of what it is, and not of what was asked.
pub fn is_no_parameter(w: &Weight) -> bool {
    matches!(w.role, Err(Left::Reader(_) | Left::Vector | Left::Output))
}
