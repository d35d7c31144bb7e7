//! What runs the source of a comparison: onnxruntime, which shares nothing with this tool, or our own lowering of it.
//!
//! The lowering sees faults of passes, of precision and of what is written, and none of its own. onnxruntime sees those, too.
//! Its library is loaded when the program runs, in a process of its own ([`Process`]), and only where it is found.

mod frame;
mod library;
mod process;
#[cfg(feature = "onnxruntime")]
pub(crate) mod serve;

pub use library::VARIABLE;
pub use process::Process;

use crate::{Diagnostic, codes, feed, model::Format, names::listed};
use library::search;
use mlconv_mil::ir::Function;
use mlconv_tensor::{DType, Tensor};
use process::{Fault, Stage, Start};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// What is asked to run the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// onnxruntime where it can, else the lowering.
    Auto,
    /// onnxruntime, or nothing.
    Onnxruntime,
    /// The unoptimised lowering.
    Lowering,
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
    /// The source as it was lowered, on the reference kernels.
    Lowering,
    /// The source, which is a program itself, on the reference kernels.
    Program,
}

impl Witness {
    /// A word for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Onnxruntime { .. } => "onnxruntime",
            Self::Lowering => "lowering",
            Self::Program => "program",
        }
    }

    /// What a package was compared with.
    pub fn against(&self) -> String {
        match self {
            Self::Onnxruntime { version, .. } => format!("the source in onnxruntime {version}").trim_end().to_owned(),
            Self::Lowering => "the source's unoptimised fp32 lowering, on the reference kernels".to_owned(),
            Self::Program => "the source's program, on the reference kernels".to_owned(),
        }
    }

    /// The kind of comparison that it is, for a person.
    pub fn title(&self) -> String {
        match self {
            Self::Onnxruntime { version, .. } => format!("parity ({})", format!("onnxruntime {version}").trim_end()),
            Self::Lowering => {
                "parity (unoptimised fp32 lowering: sees faults of passes, precision and writing, not of \
                               lowering)"
                    .to_owned()
            }
            Self::Program => "parity (the source's own program, on the reference kernels)".to_owned(),
        }
    }
}

/// What is to run the source, and what a user should know of the choice.
#[derive(Debug)]
pub struct Chosen {
    /// The model in onnxruntime; the lowering runs where there is none.
    pub process: Option<Process>,
    /// Whether nothing else will do.
    pub required: bool,
    /// What runs the source where onnxruntime does not.
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
}

/// Where onnxruntime comes from.
#[derive(Clone, Debug)]
pub struct Around {
    /// A program that has this tool's command line: it is started again to load the library.
    pub program: PathBuf,
    /// What [`VARIABLE`] says.
    pub variable: Option<OsString>,
    /// Threads that it may use.
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
}

/// Loads the source into onnxruntime where that is asked for, or possible.
pub fn choose(runtime: Runtime, source: Source<'_>, around: &Around) -> Result<Chosen, Diagnostic> {
    let kernels = Chosen::kernels(source.format);
    let required = runtime == Runtime::Onnxruntime;
    if runtime == Runtime::Lowering || (!required && source.format != Format::Onnx) {
        return Ok(kernels);
    }
    let place = source.path.display().to_string();
    if source.format != Format::Onnx {
        let d = Diagnostic::error(
            &codes::L0001,
            format!("onnxruntime runs ONNX models, and the source is a {}", source.format.name()),
        )
        .at(place);
        return Err(d.help("leave `--source-runtime` out: the source runs on our own kernels"));
    }
    if !cfg!(feature = "onnxruntime") {
        let d = Diagnostic::error(&codes::N0006, "this build cannot load onnxruntime");
        let d = d.help("build it with the feature `onnxruntime`, or leave `--source-runtime` out");
        return if required { Err(d) } else { Ok(kernels) };
    }
    let search = search(around.variable.as_deref());
    let mut tried: Vec<(String, Fault)> = vec![];
    if let Some(missing) = &search.missing {
        let fault = Fault { stage: Stage::Absent, why: "there is no library of onnxruntime".to_owned() };
        tried.push((missing.display().to_string(), fault));
    }
    for library in &search.candidates {
        let start = Start { program: &around.program, library, model: source.path, threads: around.threads };
        match Process::start(&start) {
            Ok(process) => return Ok(Chosen { process: Some(process), required, ..kernels }),
            Err(fault) if matches!(fault.stage, Stage::Absent | Stage::Library) => {
                tried.push((library.display().to_string(), fault));
            }
            Err(fault) => {
                let d = refused(&fault).at(place);
                return if required { Err(d) } else { Ok(Chosen { notes: vec![instead(d)], ..kernels }) };
            }
        }
    }
    let d = unloaded(&tried);
    if required {
        return Err(d);
    }
    // That nothing is installed is nothing to speak of.
    let silent = !search.named && tried.iter().all(|(_, f)| f.stage == Stage::Absent);
    Ok(Chosen { notes: if silent { vec![] } else { vec![instead(d)] }, ..kernels })
}

/// That no library could be loaded, what was tried, and what to do.
fn unloaded(tried: &[(String, Fault)]) -> Diagnostic {
    let tries: Vec<String> = tried.iter().map(|(name, fault)| format!("`{name}`: {}", fault.why)).collect();
    let d = Diagnostic::error(&codes::N0006, format!("onnxruntime cannot be loaded; tried {}", tries.join("; ")));
    d.help(format!(
        "install it, as with `pip install onnxruntime` and {VARIABLE} set to the folder `onnxruntime/capi` of that package, or \
         with a library of onnxruntime's releases and {VARIABLE} set to it"
    ))
}

/// That onnxruntime does not run the model.
fn refused(fault: &Fault) -> Diagnostic {
    let what = if fault.stage == Stage::Model { "load" } else { "run" };
    let d = Diagnostic::error(&codes::N0006, format!("onnxruntime does not {what} the model: {}", fault.why));
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
    /// What this is.
    pub fn witness(&self) -> Witness {
        Witness::Onnxruntime { version: self.hello.version.clone(), library: self.library.clone() }
    }

    /// Outputs of `f`, which is the model lowered, on inputs of its types: in their order, and narrowed to their types.
    pub(crate) fn outputs(&mut self, f: &Function, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Diagnostic> {
        let arrays = feed::as_arrays(f, inputs);
        let wanted: Result<Vec<String>, Diagnostic> = f.sig.outputs.iter().map(|p| self.output(&p.name)).collect();
        let found = self.run(&arrays, &wanted?).map_err(|fault| refused(&fault))?;
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

    /// Whether an output is of 16 bits that the lowering does not round to.
    pub(crate) fn has_bf16(&self) -> bool {
        self.hello.outputs.iter().any(|s| s.dtype.as_deref() == Some(DType::Bf16.name()))
    }

    /// Made-up integers within what the source's own type holds.
    pub(crate) fn fitting(&self, f: &Function, inputs: &mut [Option<Tensor>]) {
        for ((port, _), input) in feed::tensor_inputs(f).zip(inputs) {
            let slot = self.hello.inputs.iter().find(|s| *s.name == *port.name);
            let small = slot.and_then(|s| s.dtype.as_deref()) == Some(DType::I8.name());
            if let Some(t) = input.as_mut().filter(|t| small && t.dtype().is_int()) {
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
        let source = Source { path: Path::new("m.onnx"), format };
        let around = Around { program: "/nonexistent".into(), variable: Some(variable.into()), threads: 1 };
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
            assert!(d.help.is_some_and(|h| h.contains("pip install onnxruntime") && h.contains(VARIABLE)));
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
