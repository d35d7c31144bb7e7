//! From a model to a package.

use crate::{
    Diagnostic, Failure,
    accuracy::{Accuracy, Labels},
    arrays::Arrays,
    codes,
    compare::{self, OutputDiff, Tolerance},
    compress,
    feed::{self, Samples},
    model::{self, Format, Model},
};
use mlconv_coreml::{Existing, Exported};
use mlconv_mil::{
    diagnostic::Severity,
    ir::{Function, InsertError, Module, Port},
    ops::Const,
    verify::{Verified, verify},
};
use mlconv_passes::{Options, Pattern, Pipeline};
use mlconv_runner::{Options as RunOptions, Reference, RunError, Session, States, cpu::Cpu};
use mlconv_source::{DimSpec, InputSpec, Request};
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
    /// What becomes of the weights.
    pub weights: Weights,
    /// Sample inputs, whose shapes stand in where the model needs fixed ones and states none.
    pub samples: Arrays,
}

/// What becomes of the weights of a model.
#[derive(Clone, Debug, Default)]
pub enum Weights {
    /// They stay as they are.
    #[default]
    Keep,
    /// They are compressed.
    Compress(compress::Request),
    /// Those that are compressed are decoded.
    Decompress,
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
    /// What became of the weights, where they were to be compressed.
    pub compression: Option<compress::Report>,
}

/// Imports and rewrites a model, telling of each weight that is compressed; nothing is written.
pub fn prepare(job: &Job, progress: compress::Progress<'_>) -> Result<Prepared, Failure> {
    let Model { format, mut module, warnings: mut all, source_ops } = read(job)?;
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
    let compression = weights(&mut module, job, progress, &mut all, &mut unapplied)?;
    let adapted = mlconv_coreml::legalize(&mut module)?;
    all.extend(adapted);
    let module = verify(module)?;
    let package = mlconv_coreml::export(&module)?;
    for (from, to) in &package.renamed {
        let title = format!("`{from}` is called `{to}` in the package, as Core ML does not allow its name");
        all.push(Diagnostic::warning(&codes::F0107, title));
    }
    let ops = module.functions.iter().map(op_count).sum();
    Ok(Prepared { source, format, module, package, warnings: all, unapplied, source_ops, ops, compression })
}

/// Compresses the weights, or decodes them.
fn weights(
    module: &mut Module,
    job: &Job,
    progress: compress::Progress<'_>,
    warnings: &mut Vec<Diagnostic>,
    unapplied: &mut Vec<Diagnostic>,
) -> Result<Option<compress::Report>, Failure> {
    match &job.weights {
        Weights::Keep => Ok(None),
        Weights::Decompress => {
            let fault = |e: InsertError| vec![Diagnostic::error(&codes::P0001, e.to_string())];
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
            let report = compress::apply(module, request, &job.samples, progress)?;
            warnings.extend(report.notes.clone());
            unapplied.extend(report.unapplied.clone());
            Ok(Some(report))
        }
    }
}

/// Reads the model as asked; where it cannot be lowered for sizes that are open, with the sizes of the samples.
fn read(job: &Job) -> Result<Model, Failure> {
    let failure = match model::read(&job.model, &job.request) {
        Err(failure) if !job.samples.is_empty() && model::format(&job.model) == Ok(Format::Onnx) => failure,
        read => return read,
    };
    let Ok(graph) = model::read_onnx(&job.model) else { return Err(failure) };
    let said = |name: &str| job.request.inputs.iter().any(|s| s.name.as_deref().is_none_or(|n| feed::means(n, name)));
    let mut request = job.request.clone();
    for input in graph.inputs.iter().filter(|i| !said(&i.name)) {
        let Some((_, t)) = job.samples.iter().find(|(name, _)| feed::means(name, &input.name)) else { continue };
        let dims = t.shape().iter().map(|n| DimSpec::Known(*n as i64)).collect();
        request.inputs.push(InputSpec { name: Some(input.name.to_string()), dims, dtype: None });
    }
    // The first failure is about what was asked; it stands where the samples do not help.
    let mut model = model::read(&job.model, &request).map_err(|_| failure)?;
    let title = "input sizes are fixed to those of the samples: with open sizes the model cannot be converted";
    model.warnings.push(Diagnostic::warning(&codes::F0107, title).help("say them with `--input` to be sure of them"));
    Ok(model)
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

/// What two models are run on.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Arrays for the inputs; random ones are made where there are none.
    pub samples: &'a Arrays,
    /// The right class of each sample.
    pub labels: Option<&'a Labels>,
    /// What random inputs are made from.
    pub seed: u64,
}

/// Two models on the same inputs.
#[derive(Debug)]
pub struct Parity {
    /// One per output and function.
    pub outputs: Vec<OutputDiff>,
    /// One per function, where there are labels.
    pub accuracy: Vec<Accuracy>,
    /// Where the inputs come from.
    pub inputs: String,
    /// How many times each function was run.
    pub samples: usize,
    /// Arrays that are for no input.
    pub unused: Vec<String>,
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
    given: Given<'_>,
    tolerance: Tolerance,
) -> Result<Parity, Failure> {
    let inputs = if given.samples.is_empty() { format!("random inputs of seed {}", given.seed) } else { String::new() };
    let against = "the source's unoptimised fp32 lowering, on the reference kernels";
    let mut all = Parity { outputs: vec![], accuracy: vec![], inputs, samples: 1, unused: vec![], against };
    for (i, g) in package.functions.iter().enumerate() {
        let Some(f) = source.function(&g.name).or(source.functions.first()) else { continue };
        let pair = Pair { source, f, package, g, tolerance };
        let samples = if given.samples.is_empty() {
            Samples { runs: vec![feed::random_inputs(source, f, given.seed).map_err(|d| vec![d])?], unused: vec![] }
        } else {
            feed::samples(f, given.samples, given.labels.map(Labels::len)).map_err(|d| vec![d])?
        };
        if let Some(labels) = given.labels {
            labels.check(samples.runs.len()).map_err(|d| vec![d])?;
        }
        // An array is unused if no function takes it.
        all.unused.retain(|u| samples.unused.contains(u));
        if i == 0 {
            (all.unused, all.samples) = (samples.unused, samples.runs.len());
        }
        let (outputs, accuracy) = pair.run(&samples.runs, given.labels)?;
        all.outputs.extend(outputs);
        all.accuracy.extend(accuracy);
    }
    if !given.samples.is_empty() {
        all.inputs = if all.samples == 1 { "the samples".to_owned() } else { format!("{} samples", all.samples) };
    }
    Ok(all)
}

/// A function of a package and what it comes from.
struct Pair<'a> {
    source: &'a Verified,
    f: &'a Function,
    package: &'a Verified,
    g: &'a Function,
    tolerance: Tolerance,
}

impl Pair<'_> {
    /// Runs both on each sample; states begin anew with every one.
    fn run(
        &self,
        runs: &[Vec<Option<Tensor>>],
        labels: Option<&Labels>,
    ) -> Result<(Vec<OutputDiff>, Option<Accuracy>), Failure> {
        let before = Session::new(self.source, self.f, &Reference, RunOptions::default());
        let after = Session::new(self.package, self.g, &Cpu, RunOptions::default());
        let from = self.sources()?;
        let names: Vec<String> = self.g.sig.outputs.iter().map(|p| self.output_name(&p.name)).collect();
        let mut outputs: Vec<OutputDiff> = vec![];
        let mut accuracy: Option<(usize, Accuracy)> = None;
        for (sample, inputs) in runs.iter().enumerate() {
            let want = before.run(inputs, &mut States::new()).map_err(|e| vec![run_error(&e)])?;
            let arrays = feed::as_arrays(self.f, inputs);
            let inputs = feed::match_inputs(self.g, &arrays).map_err(|d| vec![d])?;
            let got = after.run(&inputs, &mut States::new()).map_err(|e| vec![run_error(&e)])?;
            for (i, (name, t)) in names.iter().zip(&got).enumerate() {
                let d = compare::output(name, &want[from[i]], t, self.tolerance);
                match outputs.get_mut(i) {
                    Some(worst) => worst.absorb(OutputDiff { worst_sample: sample, ..d }),
                    None => outputs.push(d),
                }
            }
            if let Some(label) = labels.and_then(|l| l.get(sample)) {
                let (at, counted) = match &mut accuracy {
                    Some(a) => a,
                    None => {
                        let named = names.iter().map(String::as_str).zip(&got);
                        let at = Accuracy::choose(named).map_err(|d| vec![d])?;
                        accuracy.insert((at, Accuracy { output: names[at].clone(), ..Accuracy::default() }))
                    }
                };
                counted.count(label, &want[from[*at]], &got[*at]).map_err(|d| vec![d])?;
            }
        }
        Ok((outputs, accuracy.map(|(_, a)| a)))
    }

    /// Where each output of the package is among the source's.
    fn sources(&self) -> Result<Vec<usize>, Failure> {
        let of = |(i, port): (usize, &Port)| {
            let named = self.f.sig.outputs.iter().position(|p| feed::means(&p.name, &port.name) || p.name == port.name);
            let at = named.unwrap_or(i);
            if at < self.f.sig.outputs.len() {
                return Ok(at);
            }
            let name = self.output_name(&port.name);
            Err(vec![Diagnostic::error(&codes::N0001, format!("the source has no output `{name}`"))])
        };
        self.g.sig.outputs.iter().enumerate().map(of).collect()
    }

    fn output_name(&self, port: &str) -> String {
        if self.package.functions.len() > 1 { format!("{}: {port}", self.g.name) } else { port.to_owned() }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::text::parse;

    fn program(text: &str) -> Verified {
        verify(parse(text).unwrap_or_else(|e| panic!("{e}"))).unwrap_or_else(|e| panic!("{e:?}"))
    }

    #[test]
    fn each_row_is_a_sample_with_a_label() {
        let source = program("func @main(%x: f32[1, 2]) ios17 {\n  %y = relu(x=%x)\n  return %y\n}\n");
        let flipped =
            "func @main(%x: f32[1, 2]) ios17 {\n  %y = relu(x=%x)\n  %z = reverse(x=%y, axes=[1])\n  return %z\n}\n";
        let x = Tensor::from_vec(&[3, 1, 2], vec![1f32, 0.0, 0.0, 1.0, 2.0, 2.0]);
        let samples = [("x".to_owned(), x), ("extra".to_owned(), Tensor::scalar(0f32))].into_iter().collect();
        let labels = Labels::new(&Tensor::from_vec(&[3], vec![0i32, 1, 1])).expect("labels");
        let given = Given { samples: &samples, labels: Some(&labels), seed: 0 };
        let same = parity(&source, &source, given, Tolerance::F32).expect("both run");
        let (a, package) = (&same.accuracy[0], program(flipped));
        assert_eq!((same.samples, same.pass(), same.unused.as_slice()), (3, true, &["extra".to_owned()][..]));
        assert_eq!((a.output.as_str(), a.samples, a.source_correct, a.package_correct, a.alike), ("y", 3, 2, 2, 3));
        let other = parity(&source, &package, given, Tolerance::F32).expect("both run");
        assert_eq!((other.pass(), other.outputs[0].worst_sample), (false, 0));
        assert_eq!((other.accuracy[0].package_correct, other.accuracy[0].alike), (0, 1));
    }

    #[test]
    fn there_is_a_label_for_each_sample() {
        let source = program("func @main(%x: f32[1, 2]) ios17 {\n  %y = relu(x=%x)\n  return %y\n}\n");
        let samples = [("x".to_owned(), Tensor::splat(mlconv_tensor::DType::F32, &[3, 2], 0.0))].into_iter().collect();
        let labels = Labels::new(&Tensor::from_vec(&[2], vec![0i32, 1])).expect("labels");
        let given = Given { samples: &samples, labels: Some(&labels), seed: 0 };
        let failure = parity(&source, &source, given, Tolerance::F32).expect_err("2 labels");
        assert_eq!(failure[0].title, "2 labels for 3 samples");
    }
}
