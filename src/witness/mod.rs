//! What runs the source of a comparison: onnxruntime or PyTorch, which share nothing with this tool, or our own lowering of it.
//!
//! The lowering sees faults of passes, of precision and of what is written, and none of its own. The others see those, too.
//! They are what the user has installed, and run in a process of their own ([`Process`]).

mod library;
mod onnxruntime;
mod process;
#[cfg(feature = "onnxruntime")]
pub(crate) mod serve;
mod torch;

pub use library::VARIABLE as LIBRARY_VARIABLE;
pub use process::Process;
pub use torch::{PROGRAM_VARIABLE, PYTHON_VARIABLE};

use crate::{Diagnostic, arrays::Arrays, codes, feed, interface::Outside, model::Format, names::listed};
use mlconv_arrays::talk::{Fault, Stage};
use mlconv_mil::ir::Function;
use mlconv_tensor::{DType, Tensor};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};
use torch::Host;

/// What is asked to run the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// onnxruntime where it can, else the lowering.
    Auto,
    /// onnxruntime, or nothing.
    Onnxruntime,
    /// The unoptimised lowering.
    Lowering,
    /// libtorch, which `mlconv-torch` runs.
    Torch,
    /// The user's own PyTorch, which Python runs.
    Python,
}

/// What ran the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witness {
    /// onnxruntime.
    Onnxruntime {
        /// Its version, such as `1.31`.
        version: String,
        /// Its library.
        library: PathBuf,
    },
    /// PyTorch, without Python.
    Torch {
        /// Its version; empty where that is not known.
        version: String,
        /// The program that has it.
        program: PathBuf,
    },
    /// PyTorch.
    Python {
        /// Its version, such as `2.13.0`.
        version: String,
        /// The interpreter that has it.
        program: PathBuf,
    },
    /// The source as it was lowered, on the reference kernels.
    Lowering,
    /// The source, which is a program itself, on the reference kernels.
    Program,
    /// What it gave was recorded before.
    Recorded,
}

impl Witness {
    /// A word for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Onnxruntime { .. } => "onnxruntime",
            Self::Torch { .. } => "torch",
            Self::Python { .. } => "python",
            Self::Lowering => "lowering",
            Self::Program => "program",
            Self::Recorded => "golden",
        }
    }

    /// What else ran the source, with its version, for a person; `None` for our own kernels.
    pub fn other(&self) -> Option<String> {
        let (name, version) = match self {
            Self::Onnxruntime { version, .. } => ("onnxruntime", version),
            Self::Torch { version, .. } | Self::Python { version, .. } => ("PyTorch", version),
            Self::Lowering | Self::Program | Self::Recorded => return None,
        };
        Some(format!("{name} {version}").trim_end().to_owned())
    }

    /// What a package was compared with.
    pub fn against(&self) -> String {
        match self {
            Self::Onnxruntime { .. } | Self::Torch { .. } | Self::Python { .. } => {
                format!("the source in {}", self.other().unwrap_or_default())
            }
            Self::Lowering => "the source's unoptimised fp32 lowering, on the reference kernels".to_owned(),
            Self::Program => "the source's program, on the reference kernels".to_owned(),
            Self::Recorded => "outputs that were recorded".to_owned(),
        }
    }

    /// What a comparison with it does not see, for a person.
    pub fn unseen(&self) -> Option<&'static str> {
        match self {
            Self::Lowering => Some(
                "Whether the source means what it was lowered to: `mlconv verify` with `--source-runtime onnxruntime`, or `python` for \
                 PyTorch, runs the source itself.",
            ),
            Self::Recorded => Some("Inputs other than those that were recorded."),
            Self::Program | Self::Onnxruntime { .. } | Self::Torch { .. } | Self::Python { .. } => None,
        }
    }

    /// The kind of comparison that it is, for a person.
    pub fn title(&self) -> String {
        match self {
            Self::Onnxruntime { .. } | Self::Torch { .. } | Self::Python { .. } => {
                format!("parity ({})", self.other().unwrap_or_default())
            }
            Self::Lowering => {
                "parity (unoptimised fp32 lowering: sees faults of passes, precision and writing, not of \
                               lowering)"
                    .to_owned()
            }
            Self::Program => "parity (the source's own program, on the reference kernels)".to_owned(),
            Self::Recorded => "parity (recorded outputs)".to_owned(),
        }
    }
}

/// What is to run the source, and what a user should know of the choice.
#[derive(Debug)]
pub struct Chosen {
    /// The model in another process; the lowering runs where there is none.
    pub process: Option<Process>,
    /// Whether nothing else will do.
    pub required: bool,
    /// What runs the source where no other process does.
    pub otherwise: Witness,
    /// Why it is not what might be expected.
    pub notes: Vec<Diagnostic>,
}

/// What is known of a source when a witness is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its file.
    pub path: &'a Path,
    /// What it is.
    pub format: Format,
    /// What the user gives for its inputs; some may be numbers that the program was made for.
    pub samples: &'a Arrays,
}

/// Where witnesses come from.
#[derive(Clone, Debug)]
pub struct Around {
    /// A program that has this tool's command line: it is started again to load onnxruntime's library.
    pub program: PathBuf,
    /// What [`LIBRARY_VARIABLE`] says.
    pub library: Option<OsString>,
    /// What [`PROGRAM_VARIABLE`] says.
    pub torch: Option<OsString>,
    /// What [`PYTHON_VARIABLE`] says.
    pub python: Option<OsString>,
    /// Threads that a witness may use.
    pub threads: usize,
}

impl Chosen {
    /// The kernels of this tool.
    pub fn kernels(format: Format) -> Self {
        let otherwise = match format {
            Format::Onnx | Format::Pt2 | Format::TorchScript => Witness::Lowering,
            Format::Package => Witness::Program,
        };
        Self { process: None, required: false, otherwise, notes: vec![] }
    }

    /// The same, where the source is asked about another interface than its own.
    #[must_use]
    pub fn within(mut self, outside: Option<Outside>) -> Self {
        if let Some(process) = &mut self.process {
            process.outside = outside;
        }
        self
    }
}

/// Has the source run where that is asked for, or possible.
pub fn choose(runtime: Runtime, source: Source<'_>, around: &Around) -> Result<Chosen, Diagnostic> {
    match runtime {
        Runtime::Lowering => Ok(Chosen::kernels(source.format)),
        Runtime::Auto => onnxruntime::choose(false, source, around),
        Runtime::Onnxruntime => onnxruntime::choose(true, source, around),
        Runtime::Torch => torch::choose(Host::Program, source, around),
        Runtime::Python => torch::choose(Host::Python, source, around),
    }
}

/// What a source is, for a person.
fn kind(format: Format) -> &'static str {
    match format {
        Format::Onnx => "an ONNX model",
        Format::Pt2 => "an exported program of PyTorch",
        Format::TorchScript => "TorchScript",
        Format::Package => "a package",
    }
}

/// That what was to run the model does not; `name` is its own.
fn refused(name: &str, fault: &Fault) -> Diagnostic {
    let what = if fault.stage == Stage::Model { "load" } else { "run" };
    let d = Diagnostic::error(&codes::N0006, format!("{name} does not {what} the model: {}", fault.why));
    d.help("compare with our own lowering of it with `--source-runtime lowering`")
}

/// That the lowering is the witness, for what was an error otherwise.
pub(crate) fn instead(d: Diagnostic) -> Diagnostic {
    let title = format!("compared with our own lowering: {}", d.title);
    Diagnostic {
        help: d.help.filter(|h| !h.contains("--source-runtime")),
        place: d.place,
        ..Diagnostic::warning(d.code, title)
    }
}

impl Process {
    /// Outputs of `f`, which is the model lowered with the interface that is asked about, on inputs of its types.
    pub(crate) fn outputs(&mut self, f: &Function, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Diagnostic> {
        let Some(outside) = self.outside.take() else { return self.own_outputs(f, inputs) };
        let outputs = outside.run(inputs, |f, inputs| self.own_outputs(f, inputs));
        self.outside = Some(outside);
        outputs
    }

    /// Outputs of `f`, which is the model lowered, on inputs of its types: in their order, and narrowed to their types.
    fn own_outputs(&mut self, f: &Function, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Diagnostic> {
        let (arrays, name) = (feed::as_arrays(f, inputs), self.engine.name());
        let found = match &self.plan {
            None => {
                let wanted: Result<_, _> = f.sig.outputs.iter().map(|p| self.output(&p.name)).collect();
                self.run_named(&arrays, wanted?)
            }
            Some(plan) => match plan.asked(f, &arrays) {
                Ok((asked, arrays)) => self.run(&asked, arrays),
                Err(fault) => Err(fault),
            },
        };
        let found = found.map_err(|fault| refused(name, &fault))?;
        let narrow = |(v, t): (&mlconv_mil::ir::Value, Tensor)| match f.ty(*v).tensor() {
            Some(ty) => narrowed(t, ty.dtype),
            None => t,
        };
        Ok(f.outputs().iter().zip(found).map(narrow).collect())
    }

    /// The name that onnxruntime has for an output.
    fn output(&self, name: &str) -> Result<String, Diagnostic> {
        let names = || self.hello.outputs.iter().map(|s| s.name.as_str());
        let found = names().find(|n| *n == name).or_else(|| names().find(|n| feed::means(name, n)));
        found.map(str::to_owned).ok_or_else(|| {
            let title = format!("onnxruntime has no output `{name}`, but {}", listed(names()));
            Diagnostic::error(&codes::N0006, title)
        })
    }

    /// Whether anything is of 16 bits that the lowering does not round to.
    pub(crate) fn has_bf16(&self) -> bool {
        self.hello.bf16 || self.hello.outputs.iter().any(|s| s.dtype.as_deref() == Some(DType::Bf16.name()))
    }

    /// Made-up numbers within what the source's own type holds.
    pub(crate) fn fitting(&self, f: &Function, inputs: &mut [Option<Tensor>]) {
        for ((port, _), input) in feed::tensor_inputs(f).zip(inputs) {
            let slot = self.hello.inputs.iter().find(|s| *s.name == *port.name);
            let is = |dtype: DType| slot.and_then(|s| s.dtype.as_deref()) == Some(dtype.name());
            if let Some(t) = input.as_mut().filter(|t| is(DType::Bf16) && t.dtype().is_float()) {
                *t = t.cast(DType::Bf16).cast(t.dtype());
            }
            if let Some(t) = input.as_mut().filter(|t| is(DType::I8) && t.dtype().is_int()) {
                let values: Vec<i64> = t.to_i64().into_iter().map(|v| v & 0x7f).collect();
                *t = Tensor::from_i64(t.dtype(), t.shape(), &values);
            }
        }
    }
}

/// `t` in the type that the lowering gives it: integers only where every value fits.
fn narrowed(t: Tensor, to: DType) -> Tensor {
    match (t.dtype().is_float(), to.is_float()) {
        (true, true) => t.cast(to),
        (false, false) if t.dtype() != DType::Str && to != DType::Str => {
            let cast = t.cast(to);
            if cast.to_i64() == t.to_i64() { cast } else { t }
        }
        _ => t,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(runtime: Runtime, format: Format, variable: &str) -> Result<Chosen, Diagnostic> {
        let source = Source { path: Path::new("m.onnx"), format, samples: &Arrays::new() };
        let library = Some(variable.into());
        let around = Around { program: "/nonexistent".into(), library, torch: None, python: None, threads: 1 };
        choose(runtime, source, &around)
    }

    #[test]
    fn without_a_library_the_lowering_is_the_witness_unless_onnxruntime_is_asked_for() {
        for runtime in [Runtime::Auto, Runtime::Lowering] {
            let chosen = chosen(runtime, Format::Onnx, "/nonexistent/lib.so").expect("there is the lowering");
            assert!(chosen.process.is_none() && chosen.otherwise == Witness::Lowering);
            // Where the user named a library, that it is not there is said.
            assert_eq!(chosen.notes.len(), usize::from(runtime == Runtime::Auto));
        }
        let d = chosen(Runtime::Onnxruntime, Format::Onnx, "/nonexistent/lib.so").expect_err("nothing to load");
        assert_eq!(d.code, &codes::N0006);
        if cfg!(feature = "onnxruntime") {
            assert!(d.title.contains("/nonexistent/lib.so"), "{d}");
            assert!(d.help.is_some_and(|h| h.contains("pip install onnxruntime") && h.contains(LIBRARY_VARIABLE)));
        }
    }

    #[test]
    fn a_package_runs_on_our_own_kernels() {
        let auto = chosen(Runtime::Auto, Format::Package, "").expect("kernels");
        assert!(auto.process.is_none() && auto.otherwise == Witness::Program && auto.notes.is_empty());
        assert_eq!(chosen(Runtime::Onnxruntime, Format::Package, "").expect_err("no ONNX").code, &codes::L0001);
    }

    #[test]
    fn every_witness_says_what_it_is() {
        let ort = Witness::Onnxruntime { version: "1.31".to_owned(), library: "lib.so".into() };
        assert_eq!((ort.name(), ort.title().as_str()), ("onnxruntime", "parity (onnxruntime 1.31)"));
        let torch = Witness::Torch { version: String::new(), program: "mlconv-torch".into() };
        assert_eq!((torch.name(), torch.against().as_str()), ("torch", "the source in PyTorch"));
        assert!(
            Witness::Lowering.title().contains("not of lowering") && !Witness::Program.title().contains("lowering")
        );
    }

    #[test]
    fn integers_are_narrowed_where_they_fit() {
        let narrow = |values: Vec<i64>| narrowed(Tensor::from_vec(&[1], values), DType::I32).dtype();
        assert_eq!((narrow(vec![7]), narrow(vec![1 << 40])), (DType::I32, DType::I64));
        assert_eq!(narrowed(Tensor::from_vec(&[1], vec![0.1f64]), DType::F32).dtype(), DType::F32);
    }
}
