//! From a model to a package.

use crate::{
    Diagnostic, Failure,
    accuracy::Labels,
    arrays::Arrays,
    codes,
    compare::Tolerance,
    compress::{self, Goal, Plan},
    feed,
    interface::{Applied, Interface, Outside},
    model::{self, Format, Model},
    ranges, script,
    watch::{Observer, Watch},
    work,
};
use indexmap::IndexMap;
use mlconv_coreml::{Existing, Exported};
use mlconv_mil::{
    diagnostic::{Code, Severity},
    ir::{Function, InsertError, Module, Value},
    ops::Const,
    verify::{Verified, verify},
};
use mlconv_passes::{Note, Options, PassError, Pattern, Pipeline, Report, Weight};
use mlconv_source::Request;
use mlconv_tensor::{DType, Type};
use std::path::{Path, PathBuf};

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The model.
    pub model: PathBuf,
    /// How it is imported.
    pub request: Request,
    /// The interface that it is to have.
    pub interface: Interface,
    /// Whether to compute in half precision.
    pub half: bool,
    /// Whether single precision was asked for.
    pub single: bool,
    /// Whether layers stay what they are, as those of a package do whose weights are compressed.
    pub keep_layers: bool,
    /// Ops that stay in single precision.
    pub keep_fp32: Vec<Pattern>,
    /// The seed of the inputs on which it is seen how great values are, where there are no samples; `None` does not look.
    pub look: Option<u64>,
    /// What becomes of the weights.
    pub weights: Weights,
    /// The right class of each sample.
    pub labels: Option<Labels>,
    /// Samples that weights are compressed by; those of `samples` where there are none.
    pub calibration: Arrays,
    /// Sample inputs, whose shapes stand in where the model needs fixed ones and states none.
    pub samples: Arrays,
    /// What to look at while passes run.
    pub watch: Watch,
}

/// Key of a package's metadata: the precision that it was converted to, but for what could not be.
pub(crate) const PRECISION: &str = "com.github.mlconv.precision";

/// What becomes of the weights of a model.
#[derive(Clone, Debug, Default)]
pub enum Weights {
    /// They stay as they are.
    #[default]
    Keep,
    /// They are compressed.
    Compress(Box<compress::Request>),
    /// Those that are compressed are decoded.
    Decompress,
}

/// A model that is ready to be written.
#[derive(Debug)]
pub struct Prepared {
    /// The source, lowered and not optimised, with the interface that was asked for.
    pub source: Verified,
    /// What stands between that interface and the source's own.
    pub outside: Option<Outside>,
    /// What it was.
    pub format: Format,
    /// The program to be written.
    pub module: Verified,
    /// The package to be written.
    pub package: Exported,
    /// Everything that was adapted.
    pub warnings: Vec<Diagnostic>,
    /// What was asked for and not applied.
    pub unapplied: Vec<Diagnostic>,
    /// Every op that computes in 32 bits although half precision is asked for.
    pub kept: Vec<Note>,
    /// Nodes of the source.
    pub source_ops: usize,
    /// Ops of the program to be written, constants left out.
    pub ops: usize,
    /// What became of the weights, where they were to be compressed.
    pub compression: Option<compress::Report>,
}

/// Imports and rewrites a model, telling of each weight that is compressed; nothing is written.
pub fn prepare(job: &Job, progress: compress::Progress<'_>) -> Result<Prepared, Failure> {
    let samples = job.interface.shaped(&job.samples, job.labels.as_ref().map(Labels::len));
    let mut model = model::read_sized(&job.model, &job.request, &samples)?;
    let fixed = script::fixed_by_samples(&model, &job.request, &samples);
    model.warnings.extend(fixed);
    prepare_model(model, job, progress)
}

/// As [`prepare`], of a model that has been read.
pub(crate) fn prepare_model(model: Model, job: &Job, progress: compress::Progress<'_>) -> Result<Prepared, Failure> {
    let Model { format, mut module, warnings: mut all, source_ops } = model;
    if format == Format::Package {
        retarget(&mut module, job)?;
    }
    let fault =
        |bad: Vec<Diagnostic>| bad.into_iter().map(|d| d.within(job.model.display().to_string())).collect::<Vec<_>>();
    let Applied { notes, outside } = job.interface.apply(&mut module).map_err(fault)?;
    all.extend(notes);
    let source = verify(module).map_err(fault)?;
    check_samples(&source, job)?;
    let mut module = source.clone().into_inner();
    let report = optimise(&mut module, &source, job)?;
    if job.half {
        module.meta.user.insert(PRECISION.to_owned(), "fp16".to_owned());
    }
    let (kept, adapted): (Vec<Note>, Vec<Note>) =
        report.notes.into_iter().filter(|n| n.weight >= Weight::Adapted).partition(|n| n.weight >= Weight::Asked);
    all.extend(warnings_of(&kept, Weight::Matters, &codes::P0101, "kept in 32-bit precision"));
    all.extend(warnings_of(&adapted, Weight::Adapted, &codes::P0102, "adapted to half precision"));
    let mut unapplied: Vec<Diagnostic> = job.keep_fp32.iter().filter_map(|p| unmatched(&source, p)).collect();
    if format == Format::Package && job.single && has_halves(&module) {
        let title = "`--precision fp32`: the package computes in half precision, and stays so";
        unapplied.push(Diagnostic::warning(&codes::L0002, title).help("convert the model that it was made from"));
    }
    let done = match &job.weights {
        Weights::Compress(request) => match &request.plan {
            Some(plan @ Plan { goal: Goal::Bytes(most), .. }) => within(&module, job, request, plan, *most, progress)?,
            _ => finish(module, job, &job.weights, progress)?,
        },
        weights => finish(module, job, weights, progress)?,
    };
    let Finished { module, package, compression, warnings, unapplied: more } = done;
    all.extend(warnings);
    unapplied.extend(more);
    let ops = module.functions.iter().map(op_count).sum();
    Ok(Prepared {
        source,
        outside,
        format,
        module,
        package,
        warnings: all,
        unapplied,
        kept,
        source_ops,
        ops,
        compression,
    })
}

/// Runs the passes; between those that keep the precision and those that do not it is seen how great values are.
fn optimise(module: &mut Module, source: &Verified, job: &Job) -> Result<Report, Failure> {
    let mut options =
        Options { keep_fp32: job.keep_fp32.clone(), max_edits: job.watch.max_edits, ..Options::default() };
    let mut observer = Observer::new(&job.watch, source);
    let mut run = |pipeline: Pipeline, module: &mut Module, options: &Options| {
        pipeline.run_observed(module, options, &mut |step| observer.see(&step)).map_err(pass_failed)
    };
    let half = job.half && !job.keep_layers;
    let first = match (job.keep_layers, half) {
        (true, _) => Pipeline::TIDY,
        (false, true) => Pipeline::STABLE,
        (false, false) => Pipeline::CLEAN,
    };
    let mut report = run(first, module, &options)?;
    if half {
        let rows = job.labels.as_ref().map(Labels::len);
        options.seen = job.look.map(|seed| ranges::seen(module, &job.samples, rows, seed)).unwrap_or_default();
        options.max_edits = options.max_edits.map(|most| most.saturating_sub(report.edits()));
        report.extend(run(Pipeline::HALF, module, &options)?);
    }
    observer.finish();
    Ok(report)
}

/// The program that `job` makes of a source whose weights stay as they are.
pub(crate) fn rewritten(source: &Verified, job: &Job) -> Result<Verified, Failure> {
    let mut module = source.clone().into_inner();
    optimise(&mut module, source, job)?;
    mlconv_coreml::legalize(&mut module)?;
    verify(module)
}

/// What makes a package of a model that is imported.
pub(crate) fn pipeline(half: bool) -> Pipeline {
    if half { Pipeline::FP16 } else { Pipeline::CLEAN }
}

/// A fault of a pass.
pub(crate) fn pass_failed(e: PassError) -> Failure {
    vec![Diagnostic::error(&codes::P0001, e.to_string())]
}

/// Refuses samples that no input takes, and labels that are not theirs, before work is spent on the model.
fn check_samples(source: &Module, job: &Job) -> Result<(), Failure> {
    if job.samples.is_empty() {
        return Ok(());
    }
    for f in &source.functions {
        let named = |d| vec![model::in_function(source, f, d)];
        let samples = feed::samples(f, &job.samples, job.labels.as_ref().map(Labels::len)).map_err(named)?;
        let Some(labels) = &job.labels else { continue };
        labels.check(samples.runs.len()).map_err(|d| vec![d])?;
        let outputs = f.sig.outputs.iter().zip(f.outputs());
        let types = outputs.map(|(port, v)| (&*port.name, f.ty(*v).tensor()));
        labels.check_outputs(types).map_err(|d| vec![d])?;
    }
    Ok(())
}

/// A program whose weights are as asked, and what is to be written of it.
struct Finished {
    module: Verified,
    package: Exported,
    compression: Option<compress::Report>,
    warnings: Vec<Diagnostic>,
    unapplied: Vec<Diagnostic>,
}

fn finish(
    mut module: Module,
    job: &Job,
    asked: &Weights,
    progress: compress::Progress<'_>,
) -> Result<Finished, Failure> {
    let (mut warnings, mut unapplied) = (vec![], vec![]);
    let compression = weights(&mut module, job, asked, progress, &mut warnings, &mut unapplied)?;
    let (module, package) = package(module, &mut warnings)?;
    Ok(Finished { module, package, compression, warnings, unapplied })
}

/// The package of a module, and the module as it is in it.
pub(crate) fn package(mut module: Module, warnings: &mut Vec<Diagnostic>) -> Result<(Verified, Exported), Failure> {
    warnings.extend(mlconv_coreml::legalize(&mut module)?);
    let module = verify(module)?;
    let package = mlconv_coreml::export(&module)?;
    let ports = module.functions.iter().flat_map(|f| f.sig.inputs.iter().chain(&f.sig.outputs));
    // What it is called by wish, or was called before, is no news.
    let known: Vec<_> = ports.filter_map(|p| Some((p.name.to_string(), p.packaged.as_ref()?.to_string()))).collect();
    for (from, to) in package.renamed.iter().filter(|pair| !known.contains(pair)) {
        let title = format!("`{from}` is called `{to}` in the package, as Core ML does not allow its name");
        warnings.push(Diagnostic::warning(&codes::F0107, title));
    }
    Ok((module, package))
}

/// Compresses so that the package has `most` bytes at most. What of it is no weight depends on the schemes, so it is
/// estimated, and corrected where that was too little.
fn within(
    module: &Module,
    job: &Job,
    request: &compress::Request,
    plan: &Plan,
    most: u64,
    progress: compress::Progress<'_>,
) -> Result<Finished, Failure> {
    let size = |f: &Finished| mlconv_coreml::size(&f.package.model, &f.package.weights);
    let plain = finish(module.clone(), job, &Weights::Keep, &|_| {})?;
    let weights: u64 = compress::bytes_of_weights(module);
    let mut plan = Plan { overhead: size(&plain).saturating_sub(weights), ..plan.clone() };
    loop {
        // A package that is not written is made as well: its size is what counts.
        let request = compress::Request { plan: Some(plan.clone()), dry_run: false, ..request.clone() };
        let done = finish(module.clone(), job, &Weights::Compress(Box::new(request)), progress)?;
        let size = size(&done);
        if size <= most {
            return Ok(done);
        }
        let search = done.compression.and_then(|c| c.search);
        if search.as_ref().is_none_or(|s| s.is_smallest) {
            let title = format!(
                "a package of {most} bytes cannot be: with every weight in its smallest form it is {size} bytes"
            );
            let help = "give smaller schemes with `--candidates`, or a lower `--weight-threshold`";
            return Err(vec![Diagnostic::error(&codes::C0002, title).help(help)]);
        }
        // What was measured does not change.
        plan.known = search.map(|s| s.weights);
        plan.overhead += size - most;
    }
}

/// Compresses the weights, or decodes them.
fn weights(
    module: &mut Module,
    job: &Job,
    asked: &Weights,
    progress: compress::Progress<'_>,
    warnings: &mut Vec<Diagnostic>,
    unapplied: &mut Vec<Diagnostic>,
) -> Result<Option<compress::Report>, Failure> {
    match asked {
        Weights::Keep => Ok(None),
        Weights::Decompress => {
            if mlconv_passes::compress::decompress(module).map_err(fault)? == 0 {
                let d = Diagnostic::warning(&codes::L0002, "`--decompress` found no compressed weight");
                unapplied.push(d);
            }
            Ok(None)
        }
        Weights::Compress(request) => {
            let (opset, raised) = compress::target(module, request, job.request.opset)?;
            warnings.extend(raised);
            module.functions.iter_mut().for_each(|f| f.opset = opset);
            mlconv_passes::compress::upgrade(module).map_err(fault)?;
            let labels = job.labels.as_ref();
            let runs = |arrays: &Arrays, rows| {
                let given = !arrays.is_empty();
                given.then(|| compress::Calibration::new(module, arrays, rows)).transpose()
            };
            let evaluation = runs(&job.samples, labels.map(Labels::len))?;
            let calibration = runs(&job.calibration, None)?;
            if let (Some(labels), Some(evaluation)) = (labels, &evaluation) {
                evaluation.check_labels(labels)?;
            }
            let heeded = if job.calibration.is_empty() { &job.samples } else { &job.calibration };
            warnings.extend(module.functions.first().map(|f| feed::notes(f, heeded)).unwrap_or_default());
            let samples = compress::Samples {
                calibration: calibration.as_ref().or(evaluation.as_ref()),
                evaluation: evaluation.as_ref().or(calibration.as_ref()),
                labels,
                aware: request.aware,
            };
            let report = compress::apply(module, request, samples, progress)?;
            warnings.extend(report.notes.clone());
            unapplied.extend(report.unapplied.clone());
            Ok(Some(report))
        }
    }
}

/// One warning for each reason that is given for ops of this weight.
fn warnings_of(notes: &[Note], weight: Weight, code: &'static Code, done: &str) -> Vec<Diagnostic> {
    let mut reasons: IndexMap<&str, Vec<&Note>> = IndexMap::new();
    for note in notes.iter().filter(|n| n.weight == weight) {
        reasons.entry(&note.why).or_default().push(note);
    }
    let warning = |(why, notes): (&str, Vec<&Note>)| {
        let ops = if notes.len() == 1 { "1 op".to_owned() } else { format!("{} ops", notes.len()) };
        let mut d = Diagnostic::warning(code, format!("{ops} {done}: {why}"));
        let place = |n: &&Note| {
            let place = n.sources.first().cloned().unwrap_or_else(|| n.op.chars().take(80).collect());
            if n.detail.is_empty() { place } else { format!("{place}: {}", n.detail) }
        };
        d.place = notes.iter().take(3).map(place).collect();
        if notes.len() > 3 {
            d.place.push(format!("and {} more", notes.len() - 3));
        }
        d
    };
    reasons.into_iter().map(warning).collect()
}

/// Says that a pattern of `--keep-fp32` keeps nothing.
fn unmatched(source: &Module, p: &Pattern) -> Option<Diagnostic> {
    let (mut matched, mut single) = (false, false);
    for f in &source.functions {
        for id in f.all_ops().into_iter().filter(|id| p.means(source, f, *id)) {
            matched = true;
            let of = |v: &Value, dtype| f.ty(*v).tensor().is_some_and(|t| t.dtype == dtype);
            let mut values = f.op_data(id).results.to_vec();
            f.op_data(id).op.visit_operands(&mut |v| values.push(v));
            let half = values.iter().any(|v| of(v, DType::F16));
            single |= !half || values.iter().any(|v| of(v, DType::F32));
        }
    }
    let why = match (matched, single) {
        (false, _) => "matches no op",
        (true, false) => "matches only ops that compute in half precision already",
        (true, true) => return None,
    };
    Some(Diagnostic::warning(&codes::L0002, format!("`--keep-fp32 {}` {why}", p.as_str())))
}

/// Whether anything is computed in half precision.
pub fn has_halves(module: &Module) -> bool {
    let half = |ty: &Type| ty.tensor().is_some_and(|t| t.dtype == DType::F16);
    module.functions.iter().any(|f| {
        f.all_ops().iter().any(|id| f.op_data(*id).results.iter().any(|v| half(f.ty(*v)) && f.constant(*v).is_none()))
    })
}

/// How far outputs of a module may be off where nothing else is asked for.
pub fn default_tolerance(module: &Module) -> Tolerance {
    if has_halves(module) { Tolerance::F16 } else { Tolerance::of_sums(work::longest_chain(module)) }
}

/// A package may be written for a newer target than it was, not for an older one.
fn retarget(module: &mut Module, job: &Job) -> Result<(), Failure> {
    let Some(target) = job.request.opset else { return Ok(()) };
    for f in &mut module.functions {
        if f.opset > target {
            let d = Diagnostic::error(&codes::X0003, format!("the package needs {}, the target is {target}", f.opset));
            return Err(vec![d.help(format!("convert it with `--target {}`", f.opset))]);
        }
        f.opset = target;
    }
    mlconv_passes::compress::upgrade(module).map_err(fault)
}

pub(crate) fn fault(e: InsertError) -> Failure {
    vec![Diagnostic::error(&codes::P0001, e.to_string())]
}

/// Ops of a function, constants left out.
pub fn op_count(f: &Function) -> usize {
    f.all_ops().iter().filter(|id| f.op::<Const>(**id).is_none()).count()
}

/// Writes a package, whole or not at all; what there is to warn of.
pub fn write(prepared: &Prepared, target: &Path, force: bool) -> Result<Vec<Diagnostic>, Failure> {
    let existing = if force { Existing::Replace } else { Existing::Keep };
    let written = mlconv_coreml::write(target, &prepared.package.model, &prepared.package.weights, existing);
    let left = written.map_err(|e| {
        let d = model::package_error(&e);
        let d = if matches!(e, mlconv_coreml::Error::Io { .. }) { Diagnostic { code: &codes::X0001, ..d } } else { d };
        vec![d]
    })?;
    let warning = |old: PathBuf| {
        let title = format!("what was there before could not be removed, and is `{}` now", old.display());
        Diagnostic::warning(&codes::X0005, title).at(target.display().to_string())
    };
    Ok(left.map(warning).into_iter().collect())
}

/// Reads a package back from disk.
pub fn read_back(target: &Path) -> Result<Verified, Failure> {
    let model = model::read(target, &Request::default())?;
    let odd: Vec<Diagnostic> =
        model.warnings.into_iter().filter(|d| d.code != &codes::R0006 || !d.title.contains("names")).collect();
    if !odd.is_empty() {
        return Err(odd.into_iter().map(|d| Diagnostic { severity: Severity::Error, ..d }).collect());
    }
    verify(model.module)
}
