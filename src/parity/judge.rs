//! Runs what is planned, and judges it.

use super::{
    Given, Parity, Run,
    pair::{Inputs, Outcome, Pair, Stopped, Wanted},
    plan::{self, Plan, Scope, Series},
    source_names, uncompared,
};
use crate::{
    Diagnostic, Failure,
    accuracy::Accuracy,
    arrays::Arrays,
    codes,
    compare::{Kind, OutputDiff, Tolerance, kinds},
    convert::has_halves,
    feed,
    golden::Golden,
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
    let pair = pair(package, f, (package, f), scope, scope.tolerance, false);
    let read = golden.calls(f).map_err(|d| vec![d])?;
    let given = Given { samples: &Arrays::new(), labels: None, seed: 0 };
    let (inputs, outputs): (Vec<_>, Vec<_>) = read.calls.into_iter().unzip();
    all.untested.extend(read.missing.iter().map(|name| format!("`{name}`, which was not recorded")));
    all.unused = read.unused;
    all.samples = inputs.len();
    all.inputs =
        if all.samples == 1 { "recorded inputs".to_owned() } else { format!("{} recorded inputs", all.samples) };
    let Plan { series, .. } = pair.judged(Some(inputs), &[], 0);
    let from: Vec<usize> = (0..f.sig.outputs.len()).collect();
    for one in &series {
        let done = pair.run(one, given, &from, &mut Wanted::Recorded(&outputs));
        let Outcome { outputs, .. } = done.map_err(|e| e.failure(given, true))?;
        all.judge(&pair, one, &outputs);
        all.outputs.extend(outputs.into_iter().map(|d| d.judged(&scope.tolerance)));
    }
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
    Pair { source, f, package, g, scope, tolerance, kinds: kinds(g, scope.kinds, scores), half }
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
        Wanted::Process(p) if scope.tolerance.is_of_single() && (has_halves(source) || p.has_bf16()) => Tolerance::F16,
        _ => scope.tolerance,
    };
    let of_process = matches!(wanted, Wanted::Process(_));
    scored(package, given.labels.is_some(), scope).map_err(|d| vec![d])?;
    if let Some(record) = scope.record {
        drop(record.take());
    }
    let mut all = Parity { tolerance, ..Parity::new(witness, package) };
    let mut series_count = 0;
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
        let Plan { series, untested } = pair.judged(runs, &first, given.seed);
        all.untested.extend(untested);
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
                    calls += done.calls;
                }
                Err(stopped) if one.first => {
                    let failure = stopped.failure(given, of_process);
                    return Err(failure.into_iter().map(|d| model::in_function(package, g, d)).collect());
                }
                Err(stopped) => all.left_out(&pair, one, stopped),
            }
        }
        (series_count, all.samples) = if i == 0 { (series.len(), calls) } else { (series_count, all.samples) };
        for d in outputs.iter().filter(|d| d.nothing_finite) {
            let title = format!("no element of `{}` is finite, in both models: there is nothing to compare", d.name);
            let help = "weights or inputs that are not finite are the usual cause; give inputs that the model is for with `--sample`";
            all.notes.push(Diagnostic::warning(&codes::N0004, title).help(help));
        }
        all.outputs.extend(outputs.into_iter().map(|d| d.judged(&tolerance)));
    }
    all.inputs = match (given.samples.is_empty(), all.samples, series_count) {
        (true, _, 0 | 1) => format!("random inputs of seed {}", given.seed),
        (true, ..) => format!("random inputs of seed {}, and {} more", given.seed, series_count - 1),
        (false, 1, _) => "the samples".to_owned(),
        (false, n, _) => format!("{n} samples"),
    };
    Ok(all)
}

/// What is asked of scores of classes must be asked of an output that holds such.
fn scored(package: &Verified, has_labels: bool, scope: &Scope<'_>) -> Result<(), Diagnostic> {
    let Tolerance { min_top1, max_kl, .. } = scope.tolerance;
    let asked = min_top1.map(|_| "--min-top1").or(max_kl.map(|_| "--max-kl"));
    let Some(asked) = asked else { return Ok(()) };
    let holds = |g| {
        kinds(g, scope.kinds, scores(g, has_labels)).iter().any(|k| matches!(k, Kind::Logits | Kind::Probabilities))
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
            Stopped::Package(d) | Stopped::Labels(d) => self.runs.push(Run { error: Some(d.title), ..run }),
        }
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
        let outputs: Vec<OutputDiff> = outputs.iter().map(|d| d.clone().judged(&pair.tolerance)).collect();
        let pass = outputs.iter().all(|d| d.pass);
        self.runs.push(Run { pass, outputs, ..Run::of(pair, series, self.witness.name()) });
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
