//! What is done with bytes from anywhere: they are read, checked, rewritten, written and run, and nothing panics.
//!
//! Each function takes the bytes of one kind of file and says how far they came. The fuzz targets and the tests of
//! damaged files share them.

#[path = "../support/archive.rs"]
pub(crate) mod archive;

use mlconv::{Diagnostic, arrays, feed, made_up, model, pictures};
use mlconv_coreml::{Artifact, Package, WeightFile, check};
use mlconv_mil::{
    ir::Module,
    schema::{Effect, EvalCx, Op, OpError, Tensors},
    text::{Elide, parse, print},
    verify::verify,
};
use mlconv_passes::{Options, Pipeline};
use mlconv_runner::{Backend, Options as RunOptions, Reference, Session, States};
use mlconv_source::{DimSpec, InputSpec, ModelFiles, Request};
use mlconv_tensor::{Bytes, Dim, Tensor};
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
};

/// How far a file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// It was refused.
    Refused,
    /// It was read, and is no sound program.
    Read,
    /// It is a sound program.
    Verified,
    /// It ran.
    Ran,
}

/// An ONNX file without others beside it.
pub(crate) fn onnx(bytes: &[u8]) -> Depth {
    let _ = mlconv_onnx::looks_like_onnx(bytes);
    let nowhere = ModelFiles::beside(Path::new("no such folder/model.onnx"));
    match model::read_onnx_bytes(Bytes::copy_from_slice(bytes), &nowhere) {
        Err(d) => refused(&[d]),
        Ok(graph) => lowered(mlconv_source::lower(&graph, mlconv_onnx::table(), &Request::default())),
    }
}

/// An exported program of PyTorch.
pub(crate) fn pt2(bytes: &[u8]) -> Depth {
    match model::read_pt2_bytes(Bytes::copy_from_slice(bytes)) {
        Err(d) => refused(&[d]),
        Ok(graph) => lowered(mlconv_source::lower(&graph, mlconv_pytorch::table(), &Request::default())),
    }
}

/// A TorchScript module, on an image of 8 by 8.
pub(crate) fn torchscript(bytes: &[u8]) -> Depth {
    let dims = [1, 1, 8, 8].map(DimSpec::Known).to_vec();
    let inputs = vec![InputSpec { name: None, dims, dtype: None }];
    let request = Request { inputs, ..Request::default() };
    match mlconv_pytorch::lower_script(Bytes::copy_from_slice(bytes), &request) {
        Err(e) => {
            assert!(!e.to_string().is_empty(), "an error says something");
            Depth::Refused
        }
        Ok(done) => {
            let first = done.first.map_or(Depth::Read, |first| lowered(first.lowering));
            first.max(lowered(done.lowering))
        }
    }
}

/// The model of digits in an archive of its own, with other bytes for the entry whose name ends so.
fn digits(model: &'static [u8], suffix: &str, bytes: &[u8]) -> Vec<u8> {
    let mut all = archive::entries(model);
    all.iter_mut().filter(|(name, _)| name.ends_with(suffix)).for_each(|(_, old)| *old = bytes.to_vec());
    archive::archived(&all, zip::CompressionMethod::Stored)
}

/// The JSON of an exported program.
pub(crate) fn pt2_json(json: &[u8]) -> Depth {
    pt2(&digits(DIGITS_PT2, "models/model.json", json))
}

/// The code of a TorchScript module.
pub(crate) fn torchscript_code(code: &[u8]) -> Depth {
    torchscript(&digits(DIGITS_PT, "code/__torch__.py", code))
}

/// The pickle of a TorchScript module.
pub(crate) fn pickle(pickle: &[u8]) -> Depth {
    torchscript(&digits(DIGITS_PT, "/data.pkl", pickle))
}

/// An archive, of whatever it is.
pub(crate) fn zip(bytes: &[u8]) -> Depth {
    pt2(bytes).max(torchscript(bytes))
}

pub(crate) const DIGITS_PT: &[u8] = include_bytes!("../../fixtures/models/digits_cnn/model.pt");
pub(crate) const DIGITS_PT2: &[u8] = include_bytes!("../../fixtures/models/digits_cnn/model.pt2");

fn lowered(done: mlconv_source::Lowering) -> Depth {
    done.diagnostics.iter().for_each(rendered);
    if done.diagnostics.iter().any(|d| d.severity == mlconv_mil::diagnostic::Severity::Error) {
        return Depth::Read;
    }
    program(done.module)
}

/// The three files of a package in one, as [`package`] takes them.
#[allow(dead_code, reason = "the fuzz targets only take such files apart")]
pub(crate) fn join_package(manifest: &[u8], model: &[u8], weights: &[u8]) -> Vec<u8> {
    let mut out = (manifest.len() as u16).to_le_bytes().to_vec();
    out.extend((model.len() as u32).to_le_bytes());
    [&out, manifest, model, weights].concat()
}

/// A package: a length of two bytes and the manifest, a length of four bytes and the model file, and the weights. `folder`
/// is empty, and is again afterwards.
pub(crate) fn package(bytes: &[u8], folder: &Path) -> Depth {
    let Some((head, rest)) = bytes.split_first_chunk::<6>() else { return Depth::Refused };
    let manifest = usize::from(u16::from_le_bytes([head[0], head[1]])).min(rest.len());
    let (manifest, rest) = rest.split_at(manifest);
    let model = (u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize).min(rest.len());
    let (model, weights) = rest.split_at(model);
    let path = folder.join("a.mlpackage");
    let place = path.join("Data/com.apple.CoreML");
    fs::create_dir_all(place.join("weights")).expect("room");
    fs::write(path.join("Manifest.json"), manifest).expect("room");
    fs::write(place.join("model.mlmodel"), model).expect("room");
    fs::write(place.join("weights/weight.bin"), weights).expect("room");
    let depth = read_package(&path);
    fs::remove_dir_all(&path).expect("nobody else is here");
    depth
}

fn read_package(path: &Path) -> Depth {
    let read = Package::read(path).and_then(|p| {
        check(&Artifact::new(&p.model, &p.weights)).iter().for_each(|f| assert!(!f.found.is_empty(), "{f:?}"));
        mlconv_coreml::import(&p)
    });
    match read {
        Err(e) => refused(&[model::package_error(&e)]),
        Ok((module, warnings)) => {
            warnings.iter().for_each(rendered);
            program(module)
        }
    }
}

/// A weight file.
pub(crate) fn weights(bytes: &[u8]) -> Depth {
    let file = match WeightFile::open(Bytes::copy_from_slice(bytes)) {
        Err(e) => return refused(&[model::package_error(&e)]),
        Ok(file) => file,
    };
    let mut depth = Depth::Verified;
    for entry in file.entries() {
        let read = entry.and_then(|e| {
            assert_eq!(file.blob(&e)?.len(), e.len, "a blob is as long as its record says");
            e.count().map_or(Ok(()), |n| file.get(e.offset, e.dtype, &[n]).map(|t| assert_eq!(t.count(), n)))
        });
        if let Err(e) = read {
            depth = refused(&[model::package_error(&e)]);
        }
    }
    depth
}

/// The textual form of a program.
pub(crate) fn mil_text(bytes: &[u8]) -> Depth {
    let Ok(text) = std::str::from_utf8(bytes) else { return Depth::Refused };
    match parse(text) {
        Err(e) => {
            assert!(!e.why.is_empty() && text.get(e.at.clone()).is_some(), "{e:?} is about a part of the text");
            Depth::Refused
        }
        Ok(module) => {
            let printed = print(&module, Elide::Never);
            let again = parse(&printed).unwrap_or_else(|e| panic!("{e}: what is printed does not parse:\n{printed}"));
            assert_eq!(print(&again, Elide::Never), printed, "what is printed reads back to another program");
            program(module)
        }
    }
}

/// A PNG or JPEG file.
pub(crate) fn picture(bytes: &[u8]) -> Depth {
    match pictures::decode(bytes) {
        Err(why) => {
            assert!(!why.is_empty(), "an error says something");
            Depth::Refused
        }
        Ok(found) => {
            let is_picture = matches!(found.picture.shape(), [_, _] | [_, _, 3]) && found.picture.count() > 0;
            assert!(is_picture, "{:?}", found.picture.shape());
            Depth::Verified
        }
    }
}

/// A `.npy` or `.npz` file.
pub(crate) fn tensors(bytes: &[u8]) -> Depth {
    let npy = arrays::parse_npy(bytes).map(|t| vec![t]);
    let npz = arrays::parse_npz(bytes).map(|a| a.into_values().collect());
    match npy.or(npz) {
        Err(why) => {
            assert!(!why.is_empty(), "an error says something");
            Depth::Refused
        }
        Ok(found) => {
            let held: usize = found.iter().map(|t: &Tensor| t.blob().len()).sum();
            assert!(held <= MAX_INFLATION * bytes.len() + 4096, "{} bytes became {held}", bytes.len());
            Depth::Verified
        }
    }
}

/// How much larger an array may be than the file it is in: the most that deflate makes of anything.
const MAX_INFLATION: usize = 1100;

/// What happens to every program: it is verified, run, and made a package.
fn program(module: Module) -> Depth {
    assert!(!print(&module, Elide::Above(8)).is_empty() || module.functions.is_empty());
    let module = match verify(module) {
        Err(bad) => {
            refused(&bad);
            return Depth::Read;
        }
        Ok(module) => module,
    };
    let mut depth = Depth::Verified;
    for f in &module.functions {
        let small = |d: &Dim| d.eval(&|s| Some(module.symbols.default_of(s))).is_some_and(|n| n <= MAX_SIZE);
        if !feed::tensor_inputs(f).chain(feed::states(f)).all(|(_, t)| t.shape.iter().all(small)) {
            continue;
        }
        let limited = Limited { left: AtomicI64::new(MAX_WORK) };
        let session = Session::new(&module, f, &limited, RunOptions::default());
        let Ok(inputs) = made_up::random_inputs(&module, f, 0) else { continue };
        match session.run(&inputs, &mut States::new()) {
            Err(e) => rendered(&mlconv::parity::run_error(&e)),
            Ok(_) => depth = Depth::Ran,
        }
    }
    let mut inner = module.into_inner();
    let report = Pipeline::FP16.run(&mut inner, &Options::default());
    report.unwrap_or_else(|e| panic!("{e}\n{}", print(&inner, Elide::Above(8))));
    match mlconv_coreml::legalize(&mut inner) {
        Err(bad) => {
            refused(&bad);
        }
        Ok(adapted) => {
            adapted.iter().for_each(rendered);
            let legal = verify(inner).unwrap_or_else(|bad| panic!("a rewrite broke the program: {}", bad[0]));
            if let Err(bad) = mlconv_coreml::export(&legal) {
                refused(&bad);
            }
        }
    }
    depth
}

/// The greatest size of an input's dimension that is run.
const MAX_SIZE: i64 = 4096;
/// The work of a run: elements read times elements made, over all ops.
const MAX_WORK: i64 = 1 << 26;

/// The reference kernels, for programs that are small: what is tested is sense, not patience.
struct Limited {
    left: AtomicI64,
}

impl Backend for Limited {
    fn run(&self, op: &dyn Op, cx: &EvalCx<'_>) -> Option<Result<Tensors, OpError>> {
        let made = (0..cx.out_count()).fold(1i64, |n, i| n.saturating_add(cx.out(i).count() as i64));
        let mut read = 1i64;
        // Operands of the others may be states, which are no tensors.
        if op.schema().effect == Effect::None {
            op.visit_operands(&mut |v| read = read.saturating_add(cx.env.tensor(v).count() as i64));
        }
        let left = self.left.fetch_sub(made.saturating_mul(read).min(i64::MAX / 4), Ordering::Relaxed);
        if left > 0 { Reference.run(op, cx) } else { Some(Err(OpError::TooLarge { count: Dim::from(made) })) }
    }
}

fn refused(all: &[Diagnostic]) -> Depth {
    assert!(!all.is_empty(), "a failure says something");
    all.iter().for_each(rendered);
    Depth::Refused
}

/// A diagnostic reads as one.
fn rendered(d: &Diagnostic) {
    let text = d.to_string();
    assert!(!d.title.trim().is_empty(), "{text}");
    let head = text.lines().next().unwrap_or_default();
    assert!(!head.contains("panicked") && !head.contains("Some(") && !head.contains("Error {"), "{text}");
}
