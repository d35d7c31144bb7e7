//! Arguments that several commands share.

use super::{files::Pictures, terminal::Terminal};
use crate::{
    Diagnostic, Failure,
    accuracy::Labels,
    arrays,
    arrays::Arrays,
    codes, feed,
    interface::Interface,
    model::{Format as ModelFormat, Model},
    names::listed,
    parity::{Arithmetic, Given, Parity},
    pictures,
    ranges::Declared,
    watch::Watch,
    witness::{self, Around, Chosen, Runtime, Source},
};
use clap::ValueEnum;
use mlconv_mil::{ir::Module, schema::Opset};
use mlconv_passes::Pattern;
use mlconv_runner::{Backend, Reference, cpu::Cpu};
use mlconv_source::{InputSpec, Request};
use mlconv_tensor::Tensor;
use std::path::{Path, PathBuf};

/// For every command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Print results and errors only, and what makes the exit status 1
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Threads to use, up to 1024; 0 is one per core
    #[arg(long, global = true, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = jobs)]
    pub(crate) jobs: usize,
    /// For machines: no progress, and every warning makes the exit status 1
    #[arg(long, global = true)]
    pub(crate) ci: bool,
}

impl Default for Common {
    fn default() -> Self {
        Self { format: Format::Text, quiet: false, jobs: 0, ci: false }
    }
}

/// Threads that may be asked for: more are a mistake, and may be more than the system gives.
const MAX_JOBS: usize = 1024;

fn jobs(text: &str) -> Result<usize, String> {
    let jobs = text.parse().ok().filter(|n| *n <= MAX_JOBS);
    jobs.ok_or_else(|| format!("wanted a whole number of 0 to {MAX_JOBS}"))
}

pub(crate) fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("wanted a whole number of 0 to {}", u64::MAX))
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs; see docs/json.md
    Json,
}

/// A deployment target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// iOS 15, macOS 12
    Ios15,
    /// iOS 16, macOS 13
    Ios16,
    /// iOS 17, macOS 14
    Ios17,
    /// iOS 18, macOS 15
    Ios18,
    /// iOS 26, macOS 26
    Ios26,
}

impl Target {
    pub(crate) fn opset(self) -> Opset {
        match self {
            Self::Ios15 => Opset::Ios15,
            Self::Ios16 => Opset::Ios16,
            Self::Ios17 => Opset::Ios17,
            Self::Ios18 => Opset::Ios18,
            Self::Ios26 => Opset::Ios26,
        }
    }
}

/// How a model is imported.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Import {
    /// Minimum deployment target [default: ios17, or that of the package]
    #[arg(long, value_enum)]
    pub(crate) target: Option<Target>,
    /// Shape of an input, such as `x=1x3x224x224`, `1x[1..512]`, `1x{128,256}` or `s0`, with `:f16` for its type; repeatable
    #[arg(long, value_name = "[NAME=]SHAPE[:DTYPE]")]
    pub(crate) input: Vec<String>,
    /// Keep only this output; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) output: Vec<String>,
    /// Make buffers that outlive a call inputs and outputs, not states
    #[arg(long)]
    pub(crate) no_state: bool,
    /// Make an input and the output that the next call is to be given for it a state, from iOS 18 on; repeatable
    #[arg(long, value_name = "IN=OUT", value_parser = state)]
    pub(crate) state: Vec<(String, String)>,
}

/// Whether `--input` is given an array or a picture, by its name.
pub(super) fn is_array(text: &str) -> bool {
    Path::new(text).extension().is_some_and(|e| e == "npy") || pictures::is_named_so(text)
}

/// A pair of an input and an output.
fn state(text: &str) -> Result<(String, String), String> {
    let whole = in_the_middle(text).filter(|(input, output)| !input.is_empty() && !output.is_empty());
    let pair = whole.map(|(input, output)| (input.to_owned(), output.to_owned()));
    pair.ok_or_else(|| "wanted the name of an input, `=`, and that of an output".to_owned())
}

/// Two names with `=` between them; they may hold some, so where there are several it is the middle one.
pub(super) fn in_the_middle(text: &str) -> Option<(&str, &str)> {
    let at: Vec<usize> = text.match_indices('=').map(|(at, _)| at).collect();
    at.get(at.len() / 2).map(|at| (&text[..*at], &text[at + 1..]))
}

impl Import {
    /// Of which only the shapes of inputs are said.
    pub(crate) fn of_shapes(input: &[String]) -> Self {
        Self { target: None, input: input.to_vec(), output: vec![], no_state: false, state: vec![] }
    }

    pub(crate) fn request(&self) -> Result<Request, Failure> {
        let inputs: Result<Vec<InputSpec>, Failure> = self
            .input
            .iter()
            .map(|text| {
                let bad = |e| {
                    let d = Diagnostic::error(&codes::L0001, format!("--input {text}: {e}"));
                    let help =
                        "this is a file, and no shape: `convert`, `compress` and `verify` take it with `--sample`";
                    vec![if is_array(text) { d.help(help) } else { d }]
                };
                InputSpec::parse(text).map_err(bad)
            })
            .collect();
        if let Some(twice) = (1..self.output.len()).find(|i| self.output[..*i].contains(&self.output[*i])) {
            return Err(vec![Diagnostic::error(
                &codes::L0001,
                format!("--output {} is given twice", self.output[twice]),
            )]);
        }
        // What a state becomes is made, whichever outputs are kept.
        let mut outputs = self.output.clone();
        if !outputs.is_empty() {
            outputs.extend(self.state.iter().map(|(_, output)| output).filter(|o| !self.output.contains(o)).cloned());
        }
        Ok(Request {
            opset: self.target.map(Target::opset),
            inputs: inputs?,
            outputs,
            numbers: vec![],
            no_state: self.no_state,
            states: self.state.clone(),
        })
    }
}

/// The precision to compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// Half precision, wherever it can hold the values
    Fp16,
    /// Single precision
    Fp32,
}

/// How a model is rewritten.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Rewrite {
    /// Compute precision; inputs and outputs keep the source's types [default: fp16]
    #[arg(long, value_enum)]
    pub(crate) precision: Option<Precision>,
    /// Ops that stay in single precision, by name, type or module path, with `*` for any text, or `name=NAME` for one name and
    /// nothing else; repeatable
    #[arg(long, value_name = "PATTERN")]
    pub(crate) keep_fp32: Vec<String>,
    #[command(flatten)]
    pub(crate) ranges: Ranges,
}

/// What inputs are said to hold.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Ranges {
    /// The numbers that an input holds, such as `x=0:255`: what half precision must hold follows from them, and made-up
    /// inputs are drawn from them, by `verify` as well; repeatable
    #[arg(long, value_name = "NAME=LOW:HIGH", allow_hyphen_values = true, value_parser = Declared::parse)]
    range: Vec<Declared>,
}

impl Ranges {
    /// `interface` with what is said here.
    pub(crate) fn within(&self, interface: Interface) -> Interface {
        Interface { ranges: self.range.clone(), ..interface }
    }
}

impl Rewrite {
    /// Whether anything is said.
    pub(crate) fn is_asked(&self) -> bool {
        self.precision.is_some() || !self.keep_fp32.is_empty()
    }

    /// Whether to compute in half precision.
    pub(crate) fn half(&self) -> bool {
        self.precision.unwrap_or(Precision::Fp16) == Precision::Fp16
    }

    /// Whether single precision was asked for.
    pub(crate) fn single(&self) -> bool {
        self.precision == Some(Precision::Fp32)
    }

    pub(crate) fn patterns(&self) -> Vec<Pattern> {
        self.keep_fp32.iter().map(Pattern::new).collect()
    }
}

/// What to look at while passes run.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Looking into passes")]
pub(crate) struct Debugging {
    /// Print the program behind each pass of this name that changed it, with `*` for any text; repeatable
    #[arg(long, value_name = "PASS")]
    print_after: Vec<String>,
    /// Verify the program behind each pass
    #[arg(long)]
    verify_each: bool,
    /// Run the program before and behind each pass, and stop at the first one that changes an output
    #[arg(long)]
    check_each: bool,
    /// Stop passes after so many edits, to find the one that does harm
    #[arg(long, value_name = "N")]
    stop_after_edit: Option<usize>,
    /// Say how long each pass took
    #[arg(long)]
    time_passes: bool,
}

impl Debugging {
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            print_after: self.print_after.iter().map(Pattern::new).collect(),
            verify_each: self.verify_each,
            check_each: self.check_each,
            time: self.time_passes,
            max_edits: self.stop_after_edit,
            ..Watch::default()
        }
    }
}

/// What runs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// Each op as its definition says: slow and exact
    Reference,
    /// Fast kernels for the CPU
    Cpu,
    /// Fast kernels for the GPU
    Gpu,
}

impl BackendName {
    /// What a model computes in on this backend.
    pub(crate) fn arithmetic(self, emulate: Option<EmulateName>) -> Arithmetic {
        let half_sums = emulate == Some(EmulateName::Fp16Sums);
        Arithmetic { reference: self == Self::Reference, half: emulate.is_some(), half_sums }
    }

    pub(crate) fn backend(self) -> Result<&'static dyn Backend, Failure> {
        match self {
            Self::Reference => Ok(&Reference),
            Self::Cpu => Ok(&Cpu),
            Self::Gpu => {
                let d = Diagnostic::error(&codes::L0001, "this build has no GPU backend");
                Err(vec![d.help("run with `--backend cpu`")])
            }
        }
    }
}

/// Arithmetic to imitate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmulateName {
    /// Round every value to half precision, as a half-precision device would, but for what a package keeps in single precision
    Fp16,
    /// The same, with sums accumulated in half precision, one term after the other: those of products of matrices, of
    /// convolutions, reductions, softmax and layer norm
    Fp16Sums,
}

/// What may run the source of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeName {
    /// onnxruntime where its library is found and takes the model, which is ONNX, else our own lowering
    Auto,
    /// onnxruntime, or nothing
    Onnxruntime,
    /// The unoptimised fp32 lowering, on the reference kernels
    Lowering,
    /// PyTorch, for TorchScript and .pt2: that of `python3`, or of the Python that MLCONV_PYTHON names; it runs code of the
    /// model
    Python,
    /// libtorch, for TorchScript: that of the program `mlconv-torch`, or of the one that MLCONV_TORCH names
    Torch,
}

/// What runs the source of a comparison.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SourceRuntime {
    /// What runs the model that a package is compared with; onnxruntime's library is the one that ORT_DYLIB_PATH names, as a
    /// file or by its folder, or one that the system's loader finds
    #[arg(long, value_name = "RUNTIME", value_enum, default_value_t = RuntimeName::Auto)]
    source_runtime: RuntimeName,
}

impl SourceRuntime {
    /// What runs the source of `samples`, and whether its states are what stands between them.
    pub(crate) fn choose(
        &self,
        path: &Path,
        format: ModelFormat,
        samples: &Arrays,
        has_states: bool,
    ) -> Result<Chosen, Failure> {
        if has_states && self.source_runtime == RuntimeName::Onnxruntime {
            let d = Diagnostic::error(&codes::L0001, "onnxruntime does not run models with states");
            return Err(vec![d.help("leave `--source-runtime` out, or compare a conversion without states")]);
        }
        if has_states && self.source_runtime == RuntimeName::Auto {
            return Ok(Chosen::kernels(format));
        }
        let runtime = match self.source_runtime {
            RuntimeName::Auto => Runtime::Auto,
            RuntimeName::Onnxruntime => Runtime::Onnxruntime,
            RuntimeName::Lowering => Runtime::Lowering,
            RuntimeName::Python => Runtime::Python,
            RuntimeName::Torch => Runtime::Torch,
        };
        let around = Around {
            // Where the system does not say what runs, nothing can be started, which is said then.
            program: std::env::current_exe().unwrap_or_default(),
            library: std::env::var_os(witness::LIBRARY_VARIABLE),
            torch: std::env::var_os(witness::PROGRAM_VARIABLE),
            python: std::env::var_os(witness::PYTHON_VARIABLE),
            threads: rayon::current_num_threads(),
        };
        witness::choose(runtime, Source { path, format, samples }, &around).map_err(|d| vec![d])
    }
}

/// What two models are run on.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Inputs {
    /// Sample inputs to run: `FILE.npz`, `NAME=FILE.npy` or `FILE.npy`, which is called FILE, or a picture in the place of the
    /// .npy file; arrays are matched to inputs by name, or in order where no name matches; an array with one more axis, or
    /// with a longer first axis, holds one sample a row; repeatable
    #[arg(long, value_name = "FILE")]
    sample: Vec<String>,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
    /// The right class of each sample: report how often each model predicts it
    #[arg(long, value_name = "FILE.npy|FILE.npz:NAME", requires = "sample")]
    labels: Option<String>,
    /// Seed of the random inputs that are run where there are no samples [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seed)]
    seed: Option<u64>,
}

/// What two models are run on, read.
pub(crate) struct ReadInputs {
    pub(crate) samples: Arrays,
    /// What a user should know of the files.
    pub(crate) notes: Vec<Diagnostic>,
    labels: Option<Labels>,
    /// The array of the samples' file that the labels are, if they are one.
    labelled_by: Option<String>,
    seed: u64,
}

impl Inputs {
    /// The files, each with its role in a report.
    pub(crate) fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let samples = self.sample.iter().map(|text| ("sample", super::files::named(text).1));
        let labels = self.labels.iter().map(|text| {
            let path = text.rsplit_once(':').map(|(path, _)| Path::new(path));
            let archive = path.filter(|path| path.extension().is_some_and(|e| e == "npz"));
            ("labels", archive.unwrap_or(Path::new(text)).to_owned())
        });
        samples.chain(labels).collect()
    }

    /// Whether it was said what the model runs on.
    pub(crate) fn are_given(&self) -> bool {
        self.seed.is_some() || !self.sample.is_empty()
    }

    pub(crate) fn read(&self) -> Result<ReadInputs, Failure> {
        let (samples, notes) = self.pictures.read(&self.sample)?;
        if samples.is_empty() && !self.sample.is_empty() {
            let title = format!("{} holds no array", listed(&self.sample));
            return Err(vec![Diagnostic::error(&codes::N0003, title)]);
        }
        let (labels, labelled_by) = match &self.labels {
            None => (None, None),
            Some(text) => {
                let (name, t) = read_labels(text).map_err(|d| vec![d])?;
                (Some(Labels::new(&t).map_err(|d| vec![d.at(text.clone())])?), Some(name))
            }
        };
        Ok(ReadInputs { samples, notes, labels, labelled_by, seed: self.seed.unwrap_or(0) })
    }
}

impl ReadInputs {
    /// Random inputs.
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self { samples: Arrays::new(), labels: None, labelled_by: None, seed, notes: vec![] }
    }

    pub(crate) fn labels(&self) -> Option<Labels> {
        self.labels.clone()
    }

    /// What made-up inputs are made from.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn given(&self) -> Given<'_> {
        Given { samples: &self.samples, labels: self.labels.as_ref(), seed: self.seed }
    }

    /// Says how arrays were taken, and which were of no use; the labels are not among them.
    pub(crate) fn mention(&self, parity: &mut Parity, source: &Module, terminal: &Terminal) {
        parity.unused.retain(|u| self.labelled_by.as_ref() != Some(u));
        terminal.warn(&parity.notes);
        let unused = source.functions.first().and_then(|f| feed::unused_note(f, &parity.unused));
        terminal.note(unused.as_slice());
        parity.notes.extend(unused);
    }
}

/// Reads labels given as `FILE.npy`, `FILE.npz:NAME`, or `FILE.npz` of one array.
fn read_labels(text: &str) -> Result<(String, Tensor), Diagnostic> {
    let is = |path: &Path, suffix: &str| path.extension().is_some_and(|e| e == suffix);
    let (path, name) = match text.rsplit_once(':') {
        Some((path, name)) if is(Path::new(path), "npz") => (Path::new(path), Some(name)),
        _ => (Path::new(text), None),
    };
    if !is(path, "npz") {
        return Ok((text.to_owned(), arrays::read_npy(path)?));
    }
    let mut all = arrays::read_npz(path)?;
    let name = match name {
        Some(name) => name.to_owned(),
        None if all.len() == 1 => all.keys().next().cloned().unwrap_or_default(),
        None => {
            let title = format!("--labels {text}: the archive has {} arrays", all.len());
            let d = Diagnostic::error(&codes::L0001, title);
            return Err(d.help(format!("say which: `{text}:NAME`, where NAME is one of {}", listed(all.keys()))));
        }
    };
    match all.swap_remove(&name) {
        Some(t) => Ok((name, t)),
        None => {
            let d = Diagnostic::error(&codes::L0001, format!("--labels {text}: no array is called `{name}`"));
            Err(d.help(format!("the arrays are {}", listed(all.keys()))))
        }
    }
}

/// Says that `--target` does nothing where a package is only read.
pub(crate) fn target_unapplied(import: &Import, read: &Model) -> Option<Diagnostic> {
    let target = import.target?.opset();
    let other = read.format == ModelFormat::Package && read.module.functions.iter().any(|f| f.opset != target);
    let title = format!("`--target {target}` does not apply: a package is read as it is");
    other.then(|| Diagnostic::warning(&codes::L0002, title).help("convert it with `--target` to raise its target"))
}
