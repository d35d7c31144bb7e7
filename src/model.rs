//! Reads any model into the IR, by what its bytes are.

use crate::{
    Diagnostic, Failure,
    arrays::Arrays,
    codes,
    feed::{self, means_port},
    interface::{Floats, Interface},
    made_up,
    names::listed,
    ranges, script, stateful,
};
use mlconv_coreml::Package;
use mlconv_mil::{
    diagnostic::Severity,
    ir::{Feature, Function, InsertError, Module},
    verify::verify,
};
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_source::{DimSpec, FileError, InputSpec, Lowering, ModelFiles, Request, SourceGraph};
use mlconv_tensor::{Bytes, DType, Tensor, map_file};
use std::{fs::File, path::Path};

/// A model that has been read.
#[derive(Debug)]
pub struct Model {
    /// What it was.
    pub format: Format,
    /// The model.
    pub module: Module,
    /// What was adapted or is odd; no errors.
    pub warnings: Vec<Diagnostic>,
    /// Nodes of the source, or ops of the package.
    pub source_ops: usize,
}

/// A format that models come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An ONNX file.
    Onnx,
    /// A program that `torch.export` wrote.
    Pt2,
    /// A module that `torch.jit` saved.
    TorchScript,
    /// An `.mlpackage`, or a model file on its own.
    Package,
}

impl Format {
    /// A name for a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Onnx => "ONNX",
            Self::Pt2 => "PyTorch exported program",
            Self::TorchScript => "TorchScript",
            Self::Package => "mlpackage",
        }
    }
}

/// Recognises the format of `path` by its content.
pub fn format(path: &Path) -> Result<Format, Diagnostic> {
    if path.is_dir() {
        return Ok(Format::Package);
    }
    let mut head = [0u8; 64];
    let read = File::open(path).and_then(|mut f| {
        use std::io::Read;
        let mut n = 0;
        while n < head.len() {
            match f.read(&mut head[n..])? {
                0 => break,
                k => n += k,
            }
        }
        Ok(n)
    });
    let n = read.map_err(|e| unreadable(path, &e))?;
    let head = &head[..n];
    let unknown = |what: &str| {
        let d = Diagnostic::error(&codes::R0002, format!("the file {what}")).at(path.display().to_string());
        d.help(
            "models are .pt2, TorchScript (.pt) and .onnx files, .mlpackage folders, and .mlmodel files of ML programs",
        )
    };
    if head.is_empty() {
        return Err(unknown("is empty"));
    }
    if head.starts_with(b"PK\x03\x04") {
        let bytes = File::open(path).and_then(|f| map_file(&f)).map_err(|e| unreadable(path, &e))?;
        return Ok(if mlconv_pytorch::is_script(bytes) { Format::TorchScript } else { Format::Pt2 });
    }
    if head.starts_with(b"version https://git-lfs") {
        return Err(unknown("is a Git LFS pointer, not the model itself").help("fetch it with `git lfs pull`"));
    }
    if mlconv_pytorch::is_pickle(head) {
        return Err(unknown("is a pickled Python object, and no graph").help(mlconv_pytorch::EXPORT_PICKLED));
    }
    let suffix = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match suffix.as_str() {
        // The first field of both is a small number, so the suffix decides where it says anything.
        "mlmodel" => Ok(Format::Package),
        _ if mlconv_onnx::looks_like_onnx(head) => Ok(Format::Onnx),
        _ => Err(unknown("is of no format that is known")),
    }
}

/// Bytes of a file, or of all files of a package; those that cannot be looked at do not count.
pub fn size(path: &Path) -> u64 {
    let (mut total, mut todo) = (0, vec![path.to_path_buf()]);
    while let Some(path) = todo.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => todo.extend(entries.flatten().map(|e| e.path())),
            Err(_) => total += std::fs::metadata(&path).map_or(0, |m| m.len()),
        }
    }
    total
}

/// Reads a model; every blocker is reported together.
pub fn read(path: &Path, request: &Request) -> Result<Model, Failure> {
    match format(path).map_err(|d| vec![d])? {
        format @ (Format::Onnx | Format::Pt2) => {
            let graph = read_source(path, format).map_err(|d| vec![d])?;
            let lowered = lower_source(&graph, path, format, request);
            if lowered.diagnostics.iter().any(|d| d.severity == Severity::Error) {
                return Err(lowered.diagnostics);
            }
            Ok(lowered_model(&graph, format, lowered))
        }
        Format::TorchScript => {
            let lowered = lower_script(path, request).map_err(|d| vec![d])?;
            if lowered.diagnostics.iter().any(|d| d.severity == Severity::Error) {
                return Err(lowered.diagnostics);
            }
            let source_ops = lowered.module.functions.iter().map(|f| f.all_ops().len()).sum();
            Ok(Model { format: Format::TorchScript, module: lowered.module, warnings: lowered.diagnostics, source_ops })
        }
        Format::Package => {
            let bad = |e: &mlconv_coreml::Error| vec![package_error(e).within(path.display().to_string())];
            if let Some(spec) = request.inputs.first() {
                let name = spec.name.as_deref().unwrap_or("x");
                let d = Diagnostic::error(
                    &codes::L0001,
                    format!("the shapes of a package are fixed: `--input {name}=…` does not apply"),
                );
                return Err(vec![d]);
            }
            let package = Package::read(path).map_err(|e| bad(&e))?;
            let (mut module, mut warnings) = mlconv_coreml::import(&package).map_err(|e| bad(&e))?;
            if !request.outputs.is_empty() {
                keep_outputs(&mut module, &request.outputs).map_err(|d| vec![d.at(path.display().to_string())])?;
            }
            let source_ops = module.functions.iter().map(|f| f.all_ops().len()).sum();
            if let Some(opset) = request.opset.filter(|_| !request.states.is_empty()) {
                module.functions.iter_mut().for_each(|f| f.opset = f.opset.max(opset));
                let failed = |e: InsertError| vec![Diagnostic::error(&codes::P0001, e.to_string())];
                mlconv_passes::compress::upgrade(&mut module).map_err(failed)?;
            }
            warnings.extend(stateful::hold(&mut module, request)?);
            ranges::recall(&mut module);
            Ok(Model { format: Format::Package, module, warnings, source_ops })
        }
    }
}

/// The function of this name; the default one where there is no name.
pub fn function<'m>(module: &'m Module, name: Option<&str>) -> Result<&'m Function, Diagnostic> {
    let found = name.map_or(module.functions.first(), |name| module.function(name));
    found.ok_or_else(|| {
        let title = format!("the model has no function `{}`", name.unwrap_or("main"));
        let names = listed(module.functions.iter().map(|f| f.name.as_str()));
        Diagnostic::error(&codes::L0001, title).help(format!("its functions are {names}"))
    })
}

/// A diagnostic that is about a function; of several it says which.
pub(crate) fn in_function(module: &Module, f: &Function, d: Diagnostic) -> Diagnostic {
    if module.functions.len() > 1 { d.at(format!("function `{}`", f.name)) } else { d }
}

/// Lowers the source graph of an ONNX file as far as that goes; diagnostics name the file.
pub fn lower_source(graph: &SourceGraph, path: &Path, format: Format, request: &Request) -> Lowering {
    let table = if format == Format::Pt2 { mlconv_pytorch::table() } else { mlconv_onnx::table() };
    finished(mlconv_source::lower(graph, table, request), path, request)
}

/// A lowering with the states that were asked for; diagnostics name the file.
fn finished(mut lowered: Lowering, path: &Path, request: &Request) -> Lowering {
    if lowered.diagnostics.iter().all(|d| d.severity != Severity::Error) && lowered.unjudged.is_empty() {
        let said = stateful::hold(&mut lowered.module, request).unwrap_or_else(|failure| failure);
        lowered.diagnostics.extend(said);
    }
    let file = path.display().to_string();
    lowered.diagnostics = lowered.diagnostics.into_iter().map(|d| d.within(file.clone())).collect();
    lowered
}

/// The model that a graph has been lowered to, without an error.
pub fn lowered_model(graph: &SourceGraph, format: Format, lowered: Lowering) -> Model {
    let mut source_ops = 0;
    graph.visit_nodes(&mut |_| source_ops += 1);
    Model { format, module: lowered.module, warnings: lowered.diagnostics, source_ops }
}

/// A request for the source of a package: where the source does not say the shapes of its inputs, they are the package's.
pub fn sized_like(path: &Path, mut request: Request, package: &Module) -> Result<Request, Failure> {
    if format(path).map_err(|d| vec![d])? != Format::TorchScript {
        return Ok(request);
    }
    let Some(f) = package.functions.first() else { return Ok(request) };
    // Other tools make inputs of half precision of their own accord.
    let is_ours = package.meta.user.keys().any(|key| key.starts_with("com.github.mlconv"));
    let narrows = !is_ours || Interface::recorded(package).floats == Some(Floats::Fp16);
    let params = script_parameters(path).map_err(|d| vec![d])?;
    let tensors: Vec<_> = params.iter().filter(|p| p.is_tensor).collect();
    let by_name = feed::tensor_inputs(f).any(|(port, _)| tensors.iter().any(|p| means_port(&p.name, port)));
    for (i, (port, ty)) in feed::tensor_inputs(f).enumerate() {
        // Buffers may be inputs of the package as well. Where another tool has given names of its own, the order tells.
        let at = if by_name { tensors.iter().position(|p| means_port(&p.name, port)) } else { Some(i) };
        let Some(own) = at.and_then(|at| tensors.get(at)) else { continue };
        if request.inputs.iter().any(|s| s.name.as_deref().is_none_or(|n| means_port(n, port))) {
            continue;
        }
        let dims: Option<Vec<DimSpec>> = ty.shape.iter().map(|d| d.as_known().map(DimSpec::Known)).collect();
        let name = Some(own.name.clone());
        // Half precision may be the interface's alone.
        let is_own = ty.dtype != DType::F16 || (port.feature == Feature::Tensor && !narrows);
        let dtype = Some(if is_own { ty.dtype } else { DType::F32 });
        request.inputs.extend(dims.map(|dims| InputSpec { name, dims, dtype }));
    }
    Ok(request)
}

/// As [`read`], where sizes that the file does not say, or with which it cannot be lowered as they are open, are those of
/// samples.
pub fn read_sized(path: &Path, request: &Request, samples: &Arrays) -> Result<Model, Failure> {
    let format = format(path).map_err(|d| vec![d])?;
    if format == Format::TorchScript {
        return script::read_sized(path, request, samples);
    }
    let failure = match read(path, request) {
        Err(failure) if !samples.is_empty() && format != Format::Package => failure,
        read => return read,
    };
    let Ok(graph) = read_source(path, format) else { return Err(failure) };
    let said = |name: &str| request.inputs.iter().any(|s| s.name.as_deref().is_none_or(|n| feed::means(n, name)));
    let mut request = request.clone();
    for input in graph.inputs.iter().filter(|i| !said(&i.name)) {
        let Some((_, t)) = samples.iter().find(|(name, _)| feed::means(name, &input.name)) else { continue };
        let dims = t.shape().iter().map(|n| DimSpec::Known(*n as i64)).collect();
        request.inputs.push(InputSpec { name: Some(input.name.to_string()), dims, dtype: None });
    }
    // The first failure is about what was asked; it stands where the samples do not help.
    let mut model = read(path, &request).map_err(|_| failure)?;
    let title = "input sizes are fixed to those of the samples: with open sizes the model cannot be converted";
    model.warnings.push(Diagnostic::warning(&codes::F0107, title).help("say them with `--input` to be sure of them"));
    Ok(model)
}

/// Keeps these outputs, in this order.
fn keep_outputs(module: &mut Module, names: &[String]) -> Result<(), Diagnostic> {
    for f in &mut module.functions {
        let outputs: Vec<_> = f.sig.outputs.iter().cloned().zip(f.outputs().iter().copied()).collect();
        let mut kept = vec![];
        for name in names {
            let Some(found) = outputs.iter().find(|(port, _)| means_port(name, port)) else {
                let title = format!("function `{}` of the package has no output `{name}`", f.name);
                let d = Diagnostic::error(&codes::L0001, title);
                return Err(d.help(format!("its outputs are {}", listed(outputs.iter().map(|(p, _)| &*p.name)))));
            };
            kept.push(found.clone());
        }
        f.set_outputs(kept);
    }
    Ok(())
}

/// Reads a file that is no package as a source graph.
pub fn read_source(path: &Path, format: Format) -> Result<SourceGraph, Diagnostic> {
    read_source_with(path, format, &ModelFiles::beside(path))
}

/// As [`read_source`], with other files that it names among `files`.
pub fn read_source_with(path: &Path, format: Format, files: &ModelFiles) -> Result<SourceGraph, Diagnostic> {
    let bytes = File::open(path).and_then(|f| map_file(&f)).map_err(|e| unreadable(path, &e))?;
    let read = if format == Format::Pt2 { read_pt2_bytes(bytes) } else { read_onnx_bytes(bytes, files) };
    read.map_err(|d| d.at(path.display().to_string()))
}

/// Reads the bytes of an ONNX file as a source graph; other files that it names are among `files`.
pub fn read_onnx_bytes(bytes: Bytes, files: &ModelFiles) -> Result<SourceGraph, Diagnostic> {
    mlconv_onnx::read(bytes, files).map_err(|e| {
        let code = match &e {
            mlconv_onnx::ReadError::External { why: FileError::Leaves { .. }, .. } => &codes::R0004,
            mlconv_onnx::ReadError::External { why: FileError::Io { .. }, .. } => &codes::R0001,
            mlconv_onnx::ReadError::Tensor { .. } => &codes::R0005,
            _ => &codes::R0003,
        };
        let title = match &e {
            mlconv_onnx::ReadError::Decode(why) => format!("the file is no whole ONNX model: {}", decode_error(why)),
            other => other.to_string(),
        };
        Diagnostic::error(code, title)
    })
}

/// Reads the bytes of a file that `torch.export` wrote as a source graph.
pub fn read_pt2_bytes(bytes: Bytes) -> Result<SourceGraph, Diagnostic> {
    mlconv_pytorch::read(bytes).map_err(|e| torch_error(&e))
}

/// Interprets a TorchScript file, with inputs as asked.
pub fn lower_script(path: &Path, request: &Request) -> Result<Lowering, Diagnostic> {
    let bytes = File::open(path).and_then(|f| map_file(&f)).map_err(|e| unreadable(path, &e))?;
    let file = path.display().to_string();
    let lowered = mlconv_pytorch::lower_script(bytes, request).map_err(|e| torch_error(&e).at(file.clone()))?;
    let mut lowering = lowered.lowering;
    let whole = |l: &Lowering| l.diagnostics.iter().all(|d| d.severity != Severity::Error);
    if let Some(first) = lowered.first.filter(|first| whole(&first.lowering) && whole(&lowering)) {
        lowering.diagnostics.extend(other_first_call(&lowering.module, &first));
    }
    Ok(finished(lowering, path, request))
}

/// Says that the first call of a module gives something else than later calls do where they are given its buffers as they
/// are at first: this is seen by running both.
fn other_first_call(module: &Module, first: &mlconv_pytorch::First) -> Option<Diagnostic> {
    let d = |why: String| {
        let title =
            format!("the first call of the model takes another path than later ones, which are converted, and {why}");
        Some(Diagnostic::warning(&codes::F0107, title))
    };
    let run = || {
        let (later, first_call) = (verify(module.clone()).ok()?, verify(first.lowering.module.clone()).ok()?);
        let (f, g) = (later.functions.first()?, first_call.functions.first()?);
        let inputs = made_up::random_inputs(&first_call, g, 0).ok()?;
        let mut arrays = feed::as_arrays(g, &inputs);
        arrays.extend(first.initial.iter().map(|(name, t)| (name.to_string(), t.clone())));
        let given = feed::given_inputs(f, &arrays).ok()?.inputs;
        let later = Session::new(&later, f, &Cpu, Options::default()).run(&given, &mut States::new()).ok()?;
        let first = Session::new(&first_call, g, &Cpu, Options::default()).run(&inputs, &mut States::new()).ok()?;
        Some(g.sig.outputs.iter().map(|p| p.name.clone()).zip(later.into_iter().zip(first)).collect::<Vec<_>>())
    };
    let Some(outputs) = run() else { return d("could not be run to compare".to_owned()) };
    let differs = |(later, first): &(Tensor, Tensor)| {
        let (a, b) = (later.to_f64(), first.to_f64());
        let scale = b.iter().fold(0f64, |m, x| m.max(x.abs()));
        a.len() != b.len() || a.iter().zip(&b).any(|(a, b)| (a - b).abs() > 1e-3 * scale && !(a.is_nan() && b.is_nan()))
    };
    let bad: Vec<_> = outputs.iter().filter(|(_, pair)| differs(pair)).map(|(name, _)| name).collect();
    if bad.is_empty() {
        return None;
    }
    d(format!("gives another {}", listed(bad)))?
        .help("the package does what the second call does: call the model once before it is saved, or begin it with zeros")
        .into()
}

/// What a TorchScript file takes.
pub fn script_parameters(path: &Path) -> Result<Vec<mlconv_pytorch::Parameter>, Diagnostic> {
    let bytes = File::open(path).and_then(|f| map_file(&f)).map_err(|e| unreadable(path, &e))?;
    mlconv_pytorch::parameters(bytes).map_err(|e| torch_error(&e).at(path.display().to_string()))
}

/// What is wrong with a file of PyTorch, as a person should be told.
fn torch_error(e: &mlconv_pytorch::ReadError) -> Diagnostic {
    use mlconv_pytorch::{ArchiveError, ReadError as E};
    let (code, help) = match e {
        E::Weight { .. } => (&codes::R0005, None),
        E::Other { help, .. } => (&codes::R0002, Some((*help).to_owned())),
        E::Pickled(_) => (&codes::R0002, Some(mlconv_pytorch::EXPORT_PICKLED.to_owned())),
        E::NoInput { .. } => (&codes::L0001, None),
        E::Shapes(names) => {
            let all: Vec<String> = names.split("`, `").map(|n| format!("--input {n}=1x3x224x224")).collect();
            let help = format!(
                "TorchScript does not say the shapes of inputs: give them, such as `{}`, or samples to a command that takes \
                 `--sample`",
                all.join(" ")
            );
            (&codes::L0001, Some(help))
        }
        E::Archive(ArchiveError::Name(_) | ArchiveError::Overlap(_)) => (&codes::R0004, None),
        _ => (&codes::R0003, None),
    };
    let d = Diagnostic::error(code, e.to_string());
    match help {
        Some(help) => d.help(help),
        None => d,
    }
}

fn unreadable(path: &Path, e: &std::io::Error) -> Diagnostic {
    Diagnostic::error(&codes::R0001, format!("cannot read the file: {e}")).at(path.display().to_string())
}

/// What is wrong with a package, as a person should be told.
pub fn package_error(e: &mlconv_coreml::Error) -> Diagnostic {
    use mlconv_coreml::Error as E;
    let mut inner = e;
    while let E::Within { why, .. } = inner {
        inner = why;
    }
    let code = match inner {
        E::Io { .. } | E::LfsPointer { .. } => &codes::R0001,
        E::UnsafePath { .. } => &codes::R0004,
        E::WeightHeader { .. }
        | E::WeightVersion { .. }
        | E::BlobOutOfFile { .. }
        | E::BlobSentinel { .. }
        | E::BlobCode { .. }
        | E::BlobType { .. }
        | E::BlobSize { .. }
        | E::BlobOrder { .. } => &codes::R0005,
        E::Exists { .. } | E::NotReplaceable { .. } | E::InsidePackage { .. } | E::NoName { .. } => &codes::X0002,
        E::Decode { .. } | E::NotAProgram { .. } => &codes::R0003,
        _ => &codes::R0006,
    };
    // The cause is what the operating system or a decoder said.
    let title = match inner {
        E::Decode { source, .. } => format!("{e}: {}", decode_error(source)),
        _ => std::error::Error::source(inner).map_or(e.to_string(), |cause| format!("{e}: {cause}")),
    };
    let d = Diagnostic::error(code, title);
    match inner {
        E::LfsPointer { .. } => d.help("fetch it with `git lfs pull`"),
        E::Exists { .. } => d.help("replace it with `--force`"),
        E::NotReplaceable { .. } => d.help("only a package, or an empty folder, is replaced: choose another name"),
        E::InsidePackage { .. } => d.help("write it beside the package"),
        _ => d,
    }
}

/// What a decoder says of a message, without the way that it took through others inside of it.
fn decode_error(e: &mlconv_proto::DecodeError) -> String {
    let text = e.to_string();
    let text = text.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&text);
    let parts: Vec<&str> = text.split(": ").collect();
    match parts.as_slice() {
        [.., "recursion limit reached"] => "its parts are nested more than 100 deep".to_owned(),
        [_, .., outermost, why] => format!("{outermost}: {why}"),
        _ => text.to_owned(),
    }
}
