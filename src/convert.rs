//! From a model to a package.

use crate::{
    Diagnostic, Failure, codes,
    compare::{self, OutputDiff, Tolerance},
    feed,
    model::{self, Format, Model},
};
use mlconv_coreml::{Existing, Exported};
use mlconv_mil::{
    diagnostic::Severity,
    ir::{Function, Module},
    ops::Const,
    verify::{Verified, verify},
};
use mlconv_passes::{Options, Pattern, Pipeline};
use mlconv_runner::{Backend, Options as RunOptions, Reference, RunError, Session, States, cpu::Cpu};
use mlconv_source::Request;
use mlconv_tensor::Tensor;
use std::path::{Path, PathBuf};

/// What is to be done.
#[derive(Debug)]
pub struct Job {
    /// The model.
    pub model: PathBuf,
    /// How it is imported.
    pub request: Request,
    /// Whether to compute in half precision.
    pub half: bool,
    /// Ops that stay in single precision.
    pub keep_fp32: Vec<Pattern>,
}

/// A model that is ready to be written.
#[derive(Debug)]
pub struct Prepared {
    /// The source, lowered and not optimised.
    pub source: Verified,
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
    /// Nodes of the source.
    pub source_ops: usize,
    /// Ops of the program to be written, constants left out.
    pub ops: usize,
}

/// Imports and rewrites a model; nothing is written.
pub fn prepare(job: &Job) -> Result<Prepared, Failure> {
    let Model { format, mut module, warnings: mut all, source_ops } = model::read(&job.model, &job.request)?;
    if format == Format::Package {
        retarget(&mut module, job)?;
    }
    let fault =
        |bad: Vec<Diagnostic>| bad.into_iter().map(|d| d.within(job.model.display().to_string())).collect::<Vec<_>>();
    let source = verify(module).map_err(fault)?;
    let mut module = source.clone().into_inner();
    let options = Options { keep_fp32: job.keep_fp32.clone() };
    let pipeline = if job.half { Pipeline::FP16 } else { Pipeline::CLEAN };
    let pass_failed = |e: mlconv_passes::PassError| vec![Diagnostic::error(&codes::P0001, e.to_string())];
    let report = pipeline.run(&mut module, &options).map_err(pass_failed)?;
    for note in report.notes.iter().filter(|n| n.matters) {
        let mut d = Diagnostic::warning(&codes::P0101, format!("kept in 32-bit precision: {}", note.why));
        d.place.extend(note.sources.first().cloned());
        all.push(d.snippet(note.op.clone(), 0..note.op.len()));
    }
    let mut unapplied = vec![];
    for p in &job.keep_fp32 {
        let matched = source.functions.iter().any(|f| f.all_ops().iter().any(|id| p.matches(&source, f, *id)));
        if !matched {
            unapplied.push(Diagnostic::warning(&codes::L0002, format!("`--keep-fp32 {}` matches no op", p.as_str())));
        }
    }
    let adapted = mlconv_coreml::legalize(&mut module)?;
    all.extend(adapted);
    let module = verify(module)?;
    let package = mlconv_coreml::export(&module)?;
    for (from, to) in &package.renamed {
        let title = format!("`{from}` is called `{to}` in the package, as Core ML does not allow its name");
        all.push(Diagnostic::warning(&codes::F0107, title));
    }
    let ops = module.functions.iter().map(op_count).sum();
    Ok(Prepared { source, format, module, package, warnings: all, unapplied, source_ops, ops })
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
    Ok(())
}

/// Ops of a function, constants left out.
pub fn op_count(f: &Function) -> usize {
    f.all_ops().iter().filter(|id| f.op::<Const>(**id).is_none()).count()
}

/// Writes a package, whole or not at all.
pub fn write(prepared: &Prepared, target: &Path, force: bool) -> Result<(), Failure> {
    let existing = if force { Existing::Replace } else { Existing::Keep };
    mlconv_coreml::write(target, &prepared.package.model, &prepared.package.weights, existing).map_err(|e| {
        let d = model::package_error(&e);
        let d = if matches!(e, mlconv_coreml::Error::Io { .. }) { Diagnostic { code: &codes::X0001, ..d } } else { d };
        vec![d]
    })
}

/// Two runs on the same inputs.
#[derive(Debug)]
pub struct Parity {
    /// One per output and function.
    pub outputs: Vec<OutputDiff>,
    /// Where the inputs come from.
    pub inputs: String,
    /// What the package was compared with.
    pub against: &'static str,
}

impl Parity {
    /// Whether every output is within the tolerance.
    pub fn pass(&self) -> bool {
        self.outputs.iter().all(|o| o.pass)
    }
}

/// Runs `package` on the CPU backend and `source` on the reference kernels, on the same inputs.
pub fn parity(
    source: &Verified,
    package: &Verified,
    samples: &crate::arrays::Arrays,
    seed: u64,
    tolerance: Tolerance,
) -> Result<Parity, Failure> {
    let mut outputs = vec![];
    for g in &package.functions {
        let Some(f) = source.function(&g.name).or(source.functions.first()) else { continue };
        let given = if samples.is_empty() {
            feed::random_inputs(source, f, seed)
        } else {
            feed::match_inputs(f, samples).map_err(|d| vec![d])?
        };
        let arrays = feed::as_arrays(f, &given);
        let want = execute(source, f, &given, &Reference, &mut States::new())?;
        let given = feed::match_inputs(g, &arrays).map_err(|d| vec![d])?;
        let got = execute(package, g, &given, &Cpu, &mut States::new())?;
        for (i, (port, t)) in g.sig.outputs.iter().zip(&got).enumerate() {
            let at =
                f.sig.outputs.iter().position(|p| feed::means(&p.name, &port.name) || p.name == port.name).unwrap_or(i);
            let name =
                if package.functions.len() > 1 { format!("{}: {}", g.name, port.name) } else { port.name.to_string() };
            match want.get(at) {
                Some(w) => outputs.push(compare::output(&name, w, t, tolerance)),
                None => {
                    return Err(vec![Diagnostic::error(&codes::N0001, format!("the source has no output `{name}`"))]);
                }
            }
        }
    }
    let inputs = if samples.is_empty() { format!("random inputs of seed {seed}") } else { "the samples".to_owned() };
    Ok(Parity { outputs, inputs, against: "the source's unoptimised fp32 lowering, on the reference kernels" })
}

/// Runs a function once.
pub fn execute(
    module: &Verified,
    f: &Function,
    inputs: &[Option<Tensor>],
    backend: &dyn Backend,
    states: &mut States,
) -> Result<Vec<Tensor>, Failure> {
    let session = Session::new(module, f, backend, RunOptions::default());
    session.run(inputs, states).map_err(|e| vec![run_error(&e)])
}

/// What went wrong in a run, as a person should be told.
pub fn run_error(e: &RunError) -> Diagnostic {
    match e {
        RunError::Missing { .. } | RunError::Input { .. } => Diagnostic::error(&codes::N0003, e.to_string()),
        RunError::Op { op, origin, why } => {
            let mut d = Diagnostic::error(&codes::N0002, why.to_string()).snippet(op.clone(), 0..op.len());
            d.place.extend(origin.first().cloned());
            d
        }
        _ => Diagnostic::error(&codes::N0002, e.to_string()),
    }
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
