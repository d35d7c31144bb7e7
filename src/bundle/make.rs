//! Makes bundles.

use super::{
    Array, Bundle, Entry, FILE, Output, Sample,
    probes::probes,
    stage::{Stage, cannot_write, check_target, copy, put},
};
use crate::{
    Diagnostic, Failure, arrays,
    arrays::Arrays,
    chance::drawn_outputs,
    codes,
    convert::{self, has_halves},
    feed, golden,
    interface::{class_labels, label_and_probabilities},
    made_up, model,
    parity::{self, counterpart},
    stateful,
    witness::{self, Chosen},
};
use mlconv_coreml::Existing;
use mlconv_mil::{
    ir::{ColorLayout, Feature, Function, Module, Port},
    verify::{Verified, verify},
};
use mlconv_runner::{Options, Reference, Session, States, cpu::Cpu};
use mlconv_source::Request;
use mlconv_tensor::{DType, Tensor};
use sha2::{Digest, Sha256};
use std::{collections::HashMap, fs, io, path::Path};

/// What the results are to be compared with, where it is not what our own kernels compute of the package.
#[derive(Debug)]
pub struct Expected {
    /// The model that the package comes from.
    pub source: Verified,
    /// What runs it.
    pub chosen: Chosen,
}

/// What is to be bundled.
#[derive(Debug)]
pub struct Job<'a> {
    /// The package.
    pub package: &'a Path,
    /// The folder to make.
    pub out: &'a Path,
    /// The function; the default one where none is named.
    pub function: Option<&'a str>,
    /// Arrays for the inputs; random ones are made where there are none.
    pub samples: &'a Arrays,
    /// What random inputs are made from.
    pub seed: u64,
    /// Whether to show the values of ops.
    pub per_op: bool,
    /// Whether to replace a bundle that is there.
    pub force: bool,
    /// What gives the expected outputs; our own kernels, of the package, where it is `None`.
    pub expected: Option<Expected>,
}

/// What runs the packages, on a Mac.
const SCRIPT: &str = include_str!("run.swift");

/// The folder of the package in a bundle.
const PACKAGE: &str = "model.mlpackage";

/// The inputs, or the outputs, of each call, in the order of the signature.
type Calls = Vec<Vec<Option<Tensor>>>;

/// Makes a bundle, whole or not at all; what it holds, and what a user should know of how inputs and outputs were found.
pub fn make(job: Job<'_>) -> Result<(Bundle, Vec<Diagnostic>), Failure> {
    check_target(job.out, job.force).map_err(|d| vec![d])?;
    let parent = job.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritten = |e: io::Error| vec![cannot_write(job.out, &e)];
    let name = job.out.file_name().unwrap_or_default().to_string_lossy();
    let stage = Stage::new(parent.join(format!(".{name}.tmp-{}", std::process::id()))).map_err(unwritten)?;
    let (out, force) = (job.out.to_path_buf(), job.force);
    let made = Making { folder: &stage.0, notes: vec![] }.all(job)?;
    // Time has passed; somebody else may have made the target.
    check_target(&out, force).map_err(|d| vec![d])?;
    put(&stage.0, &out).map_err(|e| vec![cannot_write(&out, &e)])?;
    Ok(made)
}

/// A bundle in the making.
struct Making<'a> {
    folder: &'a Path,
    notes: Vec<Diagnostic>,
}

/// A package of the bundle, with what is expected of it in each call.
struct Filled {
    entry: Entry,
    expected: Calls,
}

impl Making<'_> {
    fn all(mut self, mut job: Job<'_>) -> Result<(Bundle, Vec<Diagnostic>), Failure> {
        if fs::symlink_metadata(job.package).is_err() {
            let d = Diagnostic::error(&codes::R0001, "there is no such file or folder");
            return Err(vec![d.at(job.package.display().to_string())]);
        }
        if !job.package.is_dir() {
            let d = Diagnostic::error(&codes::L0001, "a bundle is made of an .mlpackage")
                .at(job.package.display().to_string());
            return Err(vec![d.help("`mlconv convert MODEL -o OUT.mlpackage` makes one of other models")]);
        }
        let read = model::read(job.package, &Request::default())?;
        self.notes.extend(read.warnings);
        let module = verify(read.module)?;
        let f = model::function(&module, job.function).map_err(|d| vec![d])?;
        let calls = self.calls(&mut job, &module, f)?;
        let (against, expected) = match job.expected.take() {
            Some(expected) => self.of_source(expected, f, &calls)?,
            None => {
                let outputs = of_package(&module, f, &calls)?;
                ("the package on the kernels of mlconv".to_owned(), outputs)
            }
        };
        copy(job.package, &self.folder.join(PACKAGE)).map_err(|e| vec![cannot_write(job.out, &e)])?;
        let is_default = module.functions.first().is_some_and(|first| first.name == f.name);
        let function = (!is_default).then(|| f.name.clone());
        let entry = self.entry(PACKAGE, function, &module, f, &[])?;
        if !entry.outputs.iter().any(|o| o.array) {
            let title = "nothing will be compared: no output of the package is an array, or holds probabilities";
            self.notes.push(Diagnostic::warning(&codes::L0002, title));
        }
        let expected = expected.into_iter().map(|outputs| by_class(f, outputs)).collect();
        let mut filled = vec![Filled { entry, expected }];
        if job.per_op {
            for (i, probe) in probes(&module, f).into_iter().enumerate() {
                filled.push(self.probe(i, probe.module, &probe.ops, &calls)?);
            }
        }
        let samples = self.samples(f, &calls, &filled)?;
        let bundle = Bundle {
            version: 1,
            made_by: format!("mlconv {}", env!("CARGO_PKG_VERSION")),
            against,
            seed: job.samples.is_empty().then_some(job.seed),
            models: filled.into_iter().map(|f| f.entry).collect(),
            samples,
        };
        let text = serde_json::to_vec_pretty(&bundle).unwrap_or_default();
        self.write(FILE, &text)?;
        self.write("run.swift", SCRIPT.as_bytes())?;
        Ok((bundle, self.notes))
    }

    /// The inputs of each call.
    fn calls(&mut self, job: &mut Job<'_>, module: &Module, f: &Function) -> Result<Calls, Failure> {
        if job.samples.is_empty() {
            let inputs = made_up::random_inputs(module, f, job.seed).map_err(|d| vec![d])?;
            return Ok(vec![fitting(job, f, inputs).map_err(|d| vec![d])?]);
        }
        self.notes.extend(feed::notes(f, job.samples));
        let samples = feed::samples(f, job.samples, None).map_err(|d| vec![d])?;
        self.notes.extend(feed::unused_note(f, &samples.unused));
        Ok(samples.runs)
    }

    /// What the source gives for each call, in the order of the outputs of `g`.
    fn of_source(
        &mut self,
        expected: Expected,
        g: &Function,
        calls: &[Vec<Option<Tensor>>],
    ) -> Result<(String, Calls), Failure> {
        let Expected { source, mut chosen } = expected;
        self.notes.append(&mut chosen.notes);
        let f = of_source(&source, g)
            .ok_or_else(|| vec![Diagnostic::error(&codes::L0001, "the source has no function")])?;
        let places = places(f, g)?;
        let given = |inputs: &Vec<Option<Tensor>>| feed::match_inputs(f, &feed::as_arrays(g, inputs));
        let calls: Vec<_> = calls.iter().map(given).collect::<Result<_, _>>().map_err(|d| vec![d])?;
        let in_order = |all: Vec<Tensor>| places.iter().map(|at| all.get(*at).cloned()).collect();
        if let Some(process) = &mut chosen.process {
            let against = process.witness().against();
            match calls.iter().map(|inputs| process.outputs(f, inputs).map(in_order)).collect() {
                Ok(out) => return Ok((against, out)),
                Err(d) if chosen.required => return Err(vec![d]),
                Err(d) => self.notes.push(witness::instead(d)),
            }
        }
        let session = Session::new(&source, f, &Reference, Options::default());
        let mut states = States::new();
        let run = |inputs: &Vec<Option<Tensor>>| session.run(inputs, &mut states).map(in_order);
        let out = calls.iter().map(run).collect::<Result<_, _>>().map_err(|e| vec![parity::run_error(&e)])?;
        Ok((chosen.otherwise.against(), out))
    }

    /// Writes a package that shows values of ops, and runs it as it was written.
    fn probe(
        &mut self,
        number: usize,
        mut module: Module,
        ops: &[String],
        calls: &[Vec<Option<Tensor>>],
    ) -> Result<Filled, Failure> {
        for f in &mut module.functions {
            // A package of one function calls it so.
            "main".clone_into(&mut f.name);
            without_dead_ops(f);
        }
        let path = format!("debug/{number}.mlpackage");
        let target = self.folder.join(&path);
        fs::create_dir_all(self.folder.join("debug")).map_err(|e| vec![cannot_write(self.folder, &e)])?;
        let (_, package) = convert::package(module, &mut vec![])?;
        mlconv_coreml::write(&target, &package.model, &package.weights, Existing::Keep)
            .map_err(|e| vec![model::package_error(&e)])?;
        let written = convert::read_back(&target)?;
        let f = model::function(&written, None).map_err(|d| vec![d])?;
        let expected = of_package(&written, f, calls)?;
        Ok(Filled { entry: self.entry(&path, None, &written, f, ops)?, expected })
    }

    fn entry(
        &self,
        path: &str,
        function: Option<String>,
        module: &Module,
        f: &Function,
        ops: &[String],
    ) -> Result<Entry, Failure> {
        let sha256 = golden::hash(&self.folder.join(path)).map_err(|d| vec![d])?;
        let drawn = drawn_outputs(f);
        let (label, probabilities) = label_and_probabilities(f).unzip();
        let output = |(i, (port, v)): (usize, (&Port, &mlconv_mil::ir::Value))| {
            let classes = told(f).filter(|_| probabilities == Some(i));
            let is_array = port.feature == Feature::Tensor && f.ty(*v).tensor().is_some_and(|t| t.dtype != DType::Str);
            Output {
                name: packaged(port),
                file: format!("{i}.npy"),
                op: ops.get(i).cloned(),
                array: classes.is_some() || (is_array && label != Some(i) && probabilities != Some(i)),
                classes: classes.map(|all| all.into_iter().map(|(_, label)| label).collect()),
                drawn: drawn.get(i) == Some(&true),
            }
        };
        let outputs = f.sig.outputs.iter().zip(f.outputs()).enumerate().map(output).collect();
        let stateful = stateful::has_states(module);
        Ok(Entry { path: path.to_owned(), sha256, function, half: has_halves(module), stateful, outputs })
    }

    /// Writes the arrays of all calls.
    fn samples(&self, f: &Function, calls: &[Vec<Option<Tensor>>], filled: &[Filled]) -> Result<Vec<Sample>, Failure> {
        let mut out = vec![];
        for (i, inputs) in calls.iter().enumerate() {
            let mut given = vec![];
            for (k, ((port, _), t)) in feed::tensor_inputs(f).zip(inputs).enumerate() {
                let Some(t) = t else { continue };
                let image = match port.feature {
                    Feature::Tensor => None,
                    Feature::Image(layout) => Some(layout_name(layout).to_owned()),
                };
                let array = self.array(packaged(port), format!("samples/{i}/inputs/{k}.npy"), t)?;
                given.push(Array { image, ..array });
            }
            let mut expected = vec![];
            for (m, filled) in filled.iter().enumerate() {
                let values = filled.expected.get(i).map(Vec::as_slice).unwrap_or_default();
                let mut of_model = vec![];
                for (output, t) in filled.entry.outputs.iter().zip(values) {
                    let file = format!("samples/{i}/expected/{m}/{}", output.file);
                    let t = t.as_ref().filter(|_| output.array);
                    of_model.push(t.map(|t| self.array(output.name.clone(), file, t)).transpose()?);
                }
                expected.push(of_model);
            }
            out.push(Sample { inputs: given, expected });
        }
        Ok(out)
    }

    fn array(&self, name: String, file: String, t: &Tensor) -> Result<Array, Failure> {
        let bytes = arrays::npy_bytes(t).map_err(|why| vec![Diagnostic::error(&codes::X0001, why).at(file.clone())])?;
        self.write(&file, &bytes)?;
        let (dtype, shape) = (t.dtype().name().to_owned(), t.shape().to_vec());
        Ok(Array { name, file, dtype, shape, image: None, sha256: format!("{:x}", Sha256::digest(&bytes)) })
    }

    fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.folder.join(file);
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        folder.and_then(|()| fs::write(&path, bytes)).map_err(|e| vec![cannot_write(self.folder, &e)])
    }
}

/// What our own kernels compute of a package in each call.
fn of_package(module: &Verified, f: &Function, calls: &[Vec<Option<Tensor>>]) -> Result<Calls, Failure> {
    let session = Session::new(module, f, &Cpu, Options::default());
    let mut states = States::new();
    let run = |inputs: &Vec<Option<Tensor>>| {
        let outputs = session.run(inputs, &mut states).map_err(|e| vec![parity::run_error(&e)])?;
        Ok(outputs.into_iter().map(Some).collect())
    };
    calls.iter().map(run).collect()
}

/// The function of the source that `g` is compared with.
fn of_source<'s>(source: &'s Verified, g: &Function) -> Option<&'s Function> {
    source.function(&g.name).or(source.functions.first())
}

/// Made-up inputs of `g` within what the source's own types hold, where another process runs it.
fn fitting(job: &Job<'_>, g: &Function, inputs: Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>, Diagnostic> {
    let Some(Expected { source, chosen: Chosen { process: Some(process), .. } }) = &job.expected else {
        return Ok(inputs);
    };
    let Some(f) = of_source(source, g) else { return Ok(inputs) };
    let mut theirs = feed::match_inputs(f, &feed::as_arrays(g, &inputs))?;
    process.fitting(f, &mut theirs);
    feed::match_inputs(g, &feed::as_arrays(f, &theirs))
}

/// Where each output of `g` is among those of `f`: by name, and where no name matches at all, in order.
fn places(f: &Function, g: &Function) -> Result<Vec<usize>, Failure> {
    let ours: Vec<&Port> = f.sig.outputs.iter().collect();
    let by_name: Vec<Option<usize>> = g.sig.outputs.iter().map(|port| counterpart(&ours, port)).collect();
    if by_name.iter().all(Option::is_none) && f.sig.outputs.len() == g.sig.outputs.len() {
        return Ok((0..g.sig.outputs.len()).collect());
    }
    let missing = |(port, at): (&Port, Option<usize>)| {
        let title = || format!("the source has no output `{}`", port.name);
        at.ok_or_else(|| vec![Diagnostic::error(&codes::N0003, title())])
    };
    g.sig.outputs.iter().zip(by_name).map(missing).collect()
}

/// The classes of a classifier of which Core ML tells the probability, each with its position: those whose label is of no other.
fn told(f: &Function) -> Option<Vec<(usize, String)>> {
    let all = class_labels(f)?.into_texts();
    let mut counts: HashMap<&String, usize> = HashMap::new();
    for label in &all {
        *counts.entry(label).or_default() += 1;
    }
    let told = all.iter().enumerate().filter(|(_, label)| counts.get(label) == Some(&1));
    Some(told.map(|(at, label)| (at, label.clone())).collect())
}

/// The outputs of a call with the probabilities of a classifier as an array of those that Core ML tells.
fn by_class(f: &Function, mut outputs: Vec<Option<Tensor>>) -> Vec<Option<Tensor>> {
    if let Some(((_, at), classes)) = label_and_probabilities(f).zip(told(f))
        && let Some(output) = outputs.get_mut(at)
    {
        *output = output.as_ref().and_then(|t| {
            let all = t.to_f64();
            let some: Option<Vec<f32>> = classes.iter().map(|(at, _)| Some(*all.get(*at)? as f32)).collect();
            Some(Tensor::from_vec(&[classes.len()], some?))
        });
    }
    outputs
}

/// The name that a package has for an input or output.
fn packaged(port: &Port) -> String {
    port.packaged.as_ref().unwrap_or(&port.name).to_string()
}

fn layout_name(layout: ColorLayout) -> &'static str {
    match layout {
        ColorLayout::Rgb => "rgb",
        ColorLayout::Bgr => "bgr",
        ColorLayout::Grayscale => "gray",
        ColorLayout::GrayscaleF16 => "gray16",
    }
}

/// Removes the ops of the body that nothing reads and that change nothing, so that no weight of theirs is written.
fn without_dead_ops(f: &mut Function) {
    let ops: Vec<_> = f.ops().collect();
    for id in ops.into_iter().rev() {
        let data = f.op_data(id);
        let is_read = data.results.iter().any(|v| !f.uses(*v).is_empty());
        let mut has_blocks = false;
        data.op.visit_regions(&mut |_| has_blocks = true);
        if !is_read && !has_blocks && data.op.schema().effect != mlconv_mil::schema::Effect::Write {
            f.remove(id);
        }
    }
}
