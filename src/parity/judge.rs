//! Runs what is planned, and judges it.

use super::{
    Given, Parity, Run,
    classes::Classes,
    pair::{Inputs, Outcome, Pair, Stopped, Wanted},
    plan::{self, Plan, Scope, Series},
    source_names, uncompared,
};
use crate::{
    Diagnostic, Failure,
    accuracy::Accuracy,
    arrays::Arrays,
    codes,
    compare::{Kind, OutputDiff, Tolerance, check_said, kinds},
    convert::has_halves,
    feed,
    golden::Golden,
    interface::{Labels, class_labels},
    model,
    names::listed,
    stateful::remembers,
    witness::Witness,
};
use mlconv_mil::{ir::Function, verify::Verified};

/// Compares a package with what was recorded.
pub fn recorded(package: &Verified, golden: &Golden, scope: &Scope<'_>) -> Result<Parity, Failure> {
    let Some(f) = package.functions.first() else { return Err(vec![]) };
    let mut all = Parity { tolerance: scope.tolerance, ..Parity::new(Witness::Recorded, package) };
    scored(package, false, scope).map_err(|d| vec![d])?;
    let labels = golden.origin.as_ref().and_then(|origin| origin.classes.as_ref());
    let pair =
        Pair { classes: Classes::of(f, labels), ..pair(package, f, (package, f), scope, scope.tolerance, false) };
    let read = golden.calls(f).map_err(|d| vec![d])?;
    all.untested.extend(made_of_labels(f, labels));
    let given = Given { samples: &Arrays::new(), labels: None, seed: 0 };
    let (inputs, outputs): (Vec<_>, Vec<_>) = read.calls.into_iter().unzip();
    all.untested.extend(read.missing.iter().map(|name| format!("`{name}`, which was not recorded")));
    all.unused = read.unused;
    all.samples = inputs.len();
    all.inputs =
        if all.samples == 1 { "recorded inputs".to_owned() } else { format!("{} recorded inputs", all.samples) };
    let Plan { series, untested } = pair.judged(Some(inputs), &[], 0);
    all.untested.extend(untested);
    if pair.is_flexible() {
        all.untested.push("sizes of inputs other than those that were recorded".to_owned());
    }
    let from: Vec<usize> = (0..f.sig.outputs.len()).collect();
    for one in &series {
        match pair.run(one, given, &from, &mut Wanted::Recorded(&outputs)) {
            Ok(Outcome { outputs, .. }) => {
                all.judge(&pair, one, &outputs);
                all.notes.extend(outputs.iter().filter(|d| d.nothing_finite).map(nothing_finite));
                all.outputs.extend(outputs.into_iter().map(|d| d.judged(&scope.tolerance)));
            }
            Err(stopped @ Stopped::Package(_)) => all.left_out(&pair, one, stopped),
            Err(stopped) => return Err(stopped.failure(given, true)),
        }
    }
    all.something(&[pair.label()]).map_err(|d| vec![d])?;
    Ok(all)
}

/// A function with what it comes from.
fn pair<'a>(
    source: &'a Verified,
    f: &'a Function,
    (package, g): (&'a Verified, &'a Function),
    scope: &'a Scope<'a>,
    tolerance: Tolerance,
    has_labels: bool,
) -> Pair<'a> {
    let scores = scores(g, has_labels);
    let half = has_halves(package) || scope.arithmetic.half;
    let kinds = kinds(g, scope.kinds, scores);
    Pair { source, f, package, g, scope, tolerance, kinds, half, classes: Classes::beside(f, g) }
}

/// Runs both on what is judged.
pub(super) fn compare(
    source: &Verified,
    package: &Verified,
    given: Given<'_>,
    scope: &Scope<'_>,
    wanted: &mut Wanted<'_>,
    witness: Witness,
) -> Result<Parity, Failure> {
    // Where the source computes in 16 bits, so does whatever runs it.
    let tolerance = match wanted {
        Wanted::Process(p) if has_halves(source) || p.has_bf16() => scope.tolerance.of_halves(),
        _ => scope.tolerance,
    };
    let of_process = matches!(wanted, Wanted::Process(_));
    scored(package, given.labels.is_some(), scope).map_err(|d| vec![d])?;
    if let Some(record) = scope.record {
        drop(record.take());
    }
    let mut all = Parity { tolerance, ..Parity::new(witness, package) };
    let (mut series_count, mut labels) = (0, vec![]);
    for (i, g) in package.functions.iter().enumerate() {
        let Some(f) = source.function(&g.name).or(source.functions.first()) else { continue };
        let pair = pair(source, f, (package, g), scope, tolerance, given.labels.is_some());
        let arrays = source_names(f, g, given.samples);
        all.notes.extend(if i == 0 { feed::notes(f, &arrays) } else { vec![] });
        let samples = if given.samples.is_empty() { None } else { Some(pair.samples(given).map_err(|d| vec![d])?) };
        let first = match &samples {
            Some(samples) => samples.runs.first().map(plan::shapes_of).unwrap_or_default(),
            None => pair.first_shapes(given.seed).map_err(|d| vec![uncompared(d, given)])?,
        };
        let runs = samples.map(|samples| {
            // An array is unused if no function takes it.
            all.unused.retain(|u| samples.unused.contains(u));
            if i == 0 {
                all.unused = samples.unused;
            }
            samples.runs
        });
        if let Some(labels) = given.labels {
            labels.check(runs.as_ref().map_or(1, Vec::len)).map_err(|d| vec![d])?;
        }
        let from = pair.sources(&mut all.notes)?;
        let lost = f.sig.outputs.iter().enumerate().filter(|(i, _)| !from.contains(i));
        all.untested.extend(lost.map(|(_, port)| pair.of_function(&format!("output `{}` of the source", port.name))));
        let Plan { series, untested } = pair.judged(runs, &first, given.seed);
        all.untested.extend(untested);
        labels.push(pair.label());
        let (mut outputs, mut calls): (Vec<OutputDiff>, usize) = (vec![], 0);
        for one in &series {
            match pair.run(one, given, &from, wanted) {
                Ok(done) => {
                    all.judge(&pair, one, &done.outputs);
                    all.accuracy.extend(done.accuracy);
                    for (i, d) in done.outputs.into_iter().enumerate() {
                        match outputs.get_mut(i) {
                            Some(worst) => worst.absorb(d.behind(calls)),
                            None => outputs.push(d),
                        }
                    }
                }
                Err(stopped) if one.first && !matches!(stopped, Stopped::Package(_)) => {
                    let failure = stopped.failure(given, of_process);
                    return Err(failure.into_iter().map(|d| model::in_function(package, g, d)).collect());
                }
                Err(stopped) => all.left_out(&pair, one, stopped),
            }
            calls += one.calls.len();
        }
        (series_count, all.samples) = if i == 0 { (series.len(), calls) } else { (series_count, all.samples) };
        all.notes.extend(outputs.iter().filter(|d| d.nothing_finite).map(nothing_finite));
        all.outputs.extend(outputs.into_iter().map(|d| d.judged(&tolerance)));
    }
    if source.functions.len() > 1 {
        let others = source.functions.iter().filter(|f| package.function(&f.name).is_none());
        all.untested.extend(others.map(|f| format!("function `{}` of the source", f.name)));
    }
    all.something(&labels).map_err(|d| vec![d])?;
    all.inputs = match (given.samples.is_empty(), all.samples, series_count) {
        (true, _, 0 | 1) => format!("random inputs of seed {}", given.seed),
        (true, ..) => format!("random inputs of seed {}, and {} more", given.seed, series_count - 1),
        (false, 1, _) => "the samples".to_owned(),
        (false, n, _) => format!("{n} samples"),
    };
    Ok(all)
}

/// Says which model has no finite element in an output.
fn nothing_finite(d: &OutputDiff) -> Diagnostic {
    const HELP: &str =
        "weights or inputs that are not finite are the usual cause; give inputs that the model is for with `--sample`";
    let finite = [0, 1].map(|side| d.count.saturating_sub(d.nan[side] + d.inf[side]));
    let no = format!("no element of `{}` is finite", d.name);
    let (title, help) = match finite {
        [0, 0] => (format!("{no}, in both models: there is nothing to compare"), HELP),
        [0, n] => (format!("{no} in the source, where {n} of {} are in the package", d.count), HELP),
        [n, 0] => (
            format!("{no} in the package, where {n} of {} are in the source", d.count),
            "numbers beyond 65504 overflow half precision: `mlconv diff SOURCE PACKAGE --bisect` finds where",
        ),
        _ => (format!("{no} in both models at once: there is nothing to compare"), HELP),
    };
    Diagnostic::warning(&codes::N0004, title).help(help)
}

/// What fits in a line of a report.
fn excerpt(line: &str) -> String {
    const CHARS: usize = 120;
    let short: String = line.chars().take(CHARS).collect();
    if short.len() < line.len() { short + "…" } else { short }
}

/// Labels that nothing was recorded of.
fn made_of_labels(f: &Function, recorded: Option<&Labels>) -> Option<String> {
    let own = class_labels(f).filter(|_| recorded.is_none())?;
    Some(format!("the labels of {} classes, which were not recorded", own.texts().len()))
}

/// What is said of outputs must fit one, and what is asked of scores of classes must be asked of an output that holds such.
fn scored(package: &Verified, has_labels: bool, scope: &Scope<'_>) -> Result<(), Diagnostic> {
    check_said(&package.functions, scope.kinds)?;
    let Tolerance { min_top1, max_kl, .. } = scope.tolerance;
    let asked = min_top1.map(|_| "--min-top1").or(max_kl.map(|_| "--max-kl"));
    let Some(asked) = asked else { return Ok(()) };
    // A scalar has no classes, whatever it is called.
    let has_rows = |g: &Function, i: usize| {
        let ty = g.outputs().get(i).and_then(|v| g.ty(*v).tensor());
        ty.is_none_or(|ty| ty.shape.rank() > 0 && ty.shape.iter().all(|d| !d.is(0)))
    };
    let holds = |g: &Function| {
        let kinds = kinds(g, scope.kinds, scores(g, has_labels));
        kinds.iter().enumerate().any(|(i, k)| matches!(k, Kind::Logits | Kind::Probabilities) && has_rows(g, i))
    };
    if package.functions.iter().any(holds) {
        return Ok(());
    }
    let names = package.functions.iter().flat_map(|g| &g.sig.outputs).map(|p| &*p.name);
    let d = Diagnostic::error(&codes::L0001, format!("`{asked}`: no output is known to hold scores of classes"));
    Err(d.help(format!(
        "say which one does, with `--kind NAME=logits` or `=probabilities`; outputs are {}",
        listed(names)
    )))
}

/// The output that labels are about.
fn scores(g: &Function, has_labels: bool) -> Option<usize> {
    let types = g.sig.outputs.iter().zip(g.outputs()).map(|(p, v)| (&*p.name, g.ty(*v).tensor()));
    if has_labels { Accuracy::among(types) } else { None }
}

impl Parity {
    /// Notes calls that came to no end: a source that does not run says nothing about the package.
    fn left_out(&mut self, pair: &Pair<'_>, series: &Series, stopped: Stopped) {
        let run = Run::of(pair, series, self.witness.name());
        match stopped {
            Stopped::Source(d) => {
                self.untested.push(pair.of_function(&format!("{}: the source does not run: {}", run.what(), d.title)));
            }
            Stopped::Refused(d) | Stopped::Package(d) | Stopped::Labels(d) => {
                let op = d.snippet.map_or_else(String::new, |(line, _)| format!(", in `{}`", excerpt(line.trim())));
                self.runs.push(Run { error: Some(format!("{}{op}", d.title)), ..run });
            }
        }
    }

    /// There must be something to compare: where no model gives a finite number, anything is as good as the other.
    fn something(&self, labels: &[Option<String>]) -> Result<(), Diagnostic> {
        // What a classifier calls no number at all says nothing either.
        let is_label = |d: &OutputDiff| labels.iter().flatten().any(|l| *l == d.name);
        let mut numbers = self.outputs.iter().filter(|d| !is_label(d)).peekable();
        if numbers.peek().is_none() || !numbers.all(|d| d.nothing_finite && d.non_finite == 0 && d.mismatch.is_none()) {
            return Ok(());
        }
        let title = "nothing was compared: no element of any output is finite, in both models";
        let help = "weights or inputs that are not finite are the usual cause; give inputs that the model is for with `--sample`";
        Err(Diagnostic::error(&codes::N0007, title).help(help))
    }
}

/// The inputs of the call number `at` of those of a function of the package that are judged; where it remembers, behind those of
/// the calls before it in its series.
pub(crate) fn leading(
    source: &Verified,
    package: &Verified,
    g: &Function,
    (given, scope): (Given<'_>, &Scope<'_>),
    at: usize,
) -> Option<Vec<Inputs>> {
    let f = source.function(&g.name).or(source.functions.first())?;
    let pair = pair(source, f, (package, g), scope, scope.tolerance, given.labels.is_some());
    let runs = if given.samples.is_empty() { None } else { Some(pair.samples(given).ok()?.runs) };
    let first = match &runs {
        Some(runs) => runs.first().map(plan::shapes_of).unwrap_or_default(),
        None => pair.first_shapes(given.seed).ok()?,
    };
    let Plan { series, .. } = pair.judged(runs, &first, given.seed);
    let mut left = at;
    for one in &series {
        let (mut calls, mut call) = (vec![], 0);
        while let Some(inputs) = pair.inputs(one, call, &Wanted::Kernels).ok()? {
            if !remembers(g) {
                calls.clear();
            }
            calls.push(inputs);
            if left == 0 {
                return Some(calls);
            }
            (left, call) = (left - 1, call + 1);
        }
    }
    None
}

/// Runs both on what is not judged, on our own kernels.
pub(super) fn inform(
    source: &Verified,
    package: &Verified,
    given: Given<'_>,
    scope: &Scope<'_>,
    against: &'static str,
    all: &mut Parity,
) {
    let unlabelled = Given { labels: None, ..given };
    for g in &package.functions {
        let Some(f) = source.function(&g.name).or(source.functions.first()) else { continue };
        let pair = pair(source, f, (package, g), scope, all.tolerance, given.labels.is_some());
        // What fails here was said where it is judged.
        let (Ok(first), Ok(from)) = (pair.first_shapes(given.seed), pair.sources(&mut vec![])) else { continue };
        let Plan { series, untested } = pair.informative(!given.samples.is_empty(), &first, given.seed);
        all.untested.extend(untested);
        for one in &series {
            match pair.run(one, unlabelled, &from, &mut Wanted::Kernels) {
                Ok(done) => {
                    all.judge(&pair, one, &done.outputs);
                    if let Some(run) = all.runs.last_mut() {
                        run.against = against;
                    }
                }
                Err(stopped) => all.left_out(&pair, one, stopped),
            }
        }
    }
}

impl Parity {
    fn new(witness: Witness, package: &Verified) -> Self {
        Self {
            outputs: vec![],
            accuracy: vec![],
            inputs: String::new(),
            samples: 1,
            unused: vec![],
            tolerance: Tolerance::ANY,
            half: has_halves(package),
            notes: vec![],
            witness,
            lowering_agrees: None,
            runs: vec![],
            untested: vec![],
        }
    }

    /// Notes what calls gave.
    fn judge(&mut self, pair: &Pair<'_>, series: &Series, outputs: &[OutputDiff]) {
        // What is known of all samples together only is judged of all runs together.
        let pass = outputs.iter().all(|d| d.pass);
        self.runs.push(Run { pass, outputs: outputs.to_vec(), ..Run::of(pair, series, self.witness.name()) });
    }
}

impl Run {
    fn of(pair: &Pair<'_>, series: &Series, against: &'static str) -> Self {
        Self {
            function: pair.g.name.clone(),
            name: series.name.clone(),
            inputs: series.inputs.clone(),
            shape: series.shape.clone(),
            arithmetic: series.arithmetic.name(),
            against,
            judged: series.judged,
            pass: false,
            error: None,
            outputs: vec![],
        }
    }
}
