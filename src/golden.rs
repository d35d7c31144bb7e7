//! Golden files: inputs and the outputs that a source gave for them, kept to compare packages with later.
//!
//! A file holds `input/NAME` and `output/NAME`, and of several calls `input/NAME/0` and so on, as .safetensors or .npz. What
//! mlconv writes says in its metadata where it is from.

use crate::{
    Diagnostic,
    arrays::{self, Arrays},
    codes, feed,
    interface::Labels,
    names::listed,
    parity::Inputs,
};
use mlconv_mil::ir::{Function, Port};
use mlconv_tensor::{Blob, Bytes, DType, Tensor, TensorType, map_file};
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{borrow::Cow, collections::HashMap, fs::File, path::Path};

/// The key of the metadata.
const KEY: &str = "mlconv";

/// Where recorded outputs are from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// What ran the source.
    pub against: String,
    /// The hash of the source; see [`hash`].
    pub source_sha256: String,
    /// That of the package that was verified then.
    pub package_sha256: String,
    /// What the inputs were.
    pub inputs: String,
    /// The seed of random ones.
    pub seed: u64,
    /// Calls.
    pub calls: usize,
    /// The labels of the source's classes, where it is a classifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Labels>,
}

/// A golden file.
#[derive(Debug)]
pub struct Golden {
    arrays: Arrays,
    /// What is said of it; `None` where another program wrote it.
    pub origin: Option<Origin>,
}

/// The calls that a golden file holds of a function.
#[derive(Debug)]
pub(crate) struct Found {
    /// Inputs, and outputs in the order of the signature.
    pub(crate) calls: Vec<(Inputs, Vec<Option<Tensor>>)>,
    /// Outputs that were not recorded.
    pub(crate) missing: Vec<String>,
    /// Arrays that are for nothing.
    pub(crate) unused: Vec<String>,
}

/// What a source gave, as it is noted call by call.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    calls: Vec<Vec<(String, Tensor)>>,
    /// Names of what no such file holds: text.
    pub left_out: Vec<String>,
}

impl Recording {
    /// Notes a call of `g`.
    pub(crate) fn add(&mut self, g: &Function, inputs: &[Option<Tensor>], outputs: Vec<Option<Tensor>>) {
        let given = feed::tensor_inputs(g).zip(inputs).filter_map(|((port, _), t)| Some(("input", port, t.clone()?)));
        let got = g.sig.outputs.iter().zip(outputs).filter_map(|(port, t)| Some(("output", port, t?)));
        let mut call = vec![];
        for (kind, port, t) in given.chain(got) {
            if stored(t.dtype()).is_some() {
                call.push((format!("{kind}/{}", port.name), t));
            } else if !self.left_out.iter().any(|n| **n == *port.name) {
                self.left_out.push(port.name.to_string());
            }
        }
        self.calls.push(call);
    }

    /// The calls that were noted.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether none was noted.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Writes a .safetensors file, whole or not at all. The same calls give the same bytes.
    pub fn write(&self, path: &Path, origin: &Origin) -> Result<(), Diagnostic> {
        let fail = |why: String| {
            let title = format!("the golden file cannot be written: {why}");
            Diagnostic::error(&codes::X0001, title).at(path.display().to_string())
        };
        let several = self.calls.len() > 1;
        let name = |name: &String, i: usize| if several { format!("{name}/{i}") } else { name.clone() };
        let all = self.calls.iter().enumerate().flat_map(|(i, call)| call.iter().map(move |(n, t)| (name(n, i), t)));
        let views: Vec<(String, Stored<'_>)> =
            all.filter_map(|(name, t)| Some((name, Stored(t, stored(t.dtype())?)))).collect();
        // One entry: what it holds has an order of its own.
        let about = serde_json::to_string(origin).map_err(|e| fail(e.to_string()))?;
        let about = HashMap::from([(KEY.to_owned(), about)]);
        let bytes = safetensors::serialize(views, Some(about)).map_err(|e| fail(e.to_string()))?;
        arrays::write_whole(path, |file| std::io::Write::write_all(file, &bytes).map_err(|e| e.to_string()))
            .map_err(fail)
    }
}

/// A tensor as the file holds it.
struct Stored<'a>(&'a Tensor, Dtype);

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.1
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.0.blob().read()
    }
    fn data_len(&self) -> usize {
        self.0.blob().len()
    }
}

/// Element types, as both call them.
const DTYPES: [(DType, Dtype); 13] = [
    (DType::Bool, Dtype::BOOL),
    (DType::U8, Dtype::U8),
    (DType::I8, Dtype::I8),
    (DType::U16, Dtype::U16),
    (DType::I16, Dtype::I16),
    (DType::U32, Dtype::U32),
    (DType::I32, Dtype::I32),
    (DType::U64, Dtype::U64),
    (DType::I64, Dtype::I64),
    (DType::F16, Dtype::F16),
    (DType::Bf16, Dtype::BF16),
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
];

fn stored(dtype: DType) -> Option<Dtype> {
    DTYPES.iter().find(|(ours, _)| *ours == dtype).map(|(_, theirs)| *theirs)
}

/// Reads a golden file: a .npz archive, or .safetensors.
pub fn read(path: &Path) -> Result<Golden, Diagnostic> {
    if path.extension().is_some_and(|e| e == "npz") {
        return Ok(Golden { arrays: arrays::read_npz(path)?, origin: None });
    }
    let file = File::open(path).and_then(|f| map_file(&f));
    let bytes = file.map_err(|e| Diagnostic::error(&codes::R0001, format!("cannot read the file: {e}")));
    let read = bytes.and_then(|bytes| {
        parse(&bytes).map_err(|why| {
            let d = Diagnostic::error(&codes::R0007, format!("the file is no whole .safetensors file: {why}"));
            d.help("`mlconv verify PKG --against SOURCE --save-golden FILE.safetensors` writes one")
        })
    });
    read.map_err(|d| d.at(path.display().to_string()))
}

/// Reads the bytes of a .safetensors file.
fn parse(bytes: &Bytes) -> Result<Golden, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let (_, about) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let about = about.metadata().as_ref().and_then(|m| m.get(KEY));
    let origin = about.map(|text| serde_json::from_str(text)).transpose();
    let origin = origin.map_err(|e| format!("its metadata `{KEY}` is not what mlconv writes: {e}"))?;
    let mut names = file.names();
    names.sort_unstable();
    let mut arrays = Arrays::new();
    for name in names {
        let view = file.tensor(name).map_err(|e| e.to_string())?;
        let dtype = DTYPES.iter().find(|(_, theirs)| *theirs == view.dtype()).map(|(ours, _)| *ours);
        let dtype = dtype.ok_or_else(|| format!("`{name}` is of type {:?}, which no output has", view.dtype()))?;
        let at = (view.data().as_ptr() as usize).checked_sub(bytes.as_ptr() as usize);
        let blob = at.and_then(|at| Blob::new(bytes, at..at.checked_add(view.data().len())?));
        let blob = blob.ok_or_else(|| format!("`{name}` lies outside of the file"))?;
        let t = Tensor::new(dtype, view.shape(), blob).map_err(|e| format!("`{name}`: {e}"))?;
        arrays.insert(name.to_owned(), t);
    }
    Ok(Golden { arrays, origin })
}

impl Golden {
    /// All tensors of it, by name.
    pub fn into_arrays(self) -> Arrays {
        self.arrays
    }

    /// The calls of a function.
    pub(crate) fn calls(&self, f: &Function) -> Result<Found, Diagnostic> {
        let wrong = |why: String| Diagnostic::error(&codes::N0003, why);
        let mut used = vec![];
        let mut of = |kind: &str, port: &Port| {
            let names = [Some(&port.name), port.packaged.as_ref()];
            let found = names.into_iter().flatten().map(|name| self.series(&format!("{kind}/{name}")));
            let found = found.into_iter().find(|all| !all.is_empty()).unwrap_or_default();
            used.extend(found.iter().map(|(at, _)| *at));
            found.into_iter().map(|(_, t)| t).collect::<Vec<&Tensor>>()
        };
        let inputs: Vec<(&Port, &TensorType, Vec<&Tensor>)> =
            feed::tensor_inputs(f).map(|(port, ty)| (port, ty, of("input", port))).collect();
        let outputs: Vec<(&Port, Vec<&Tensor>)> = f.sig.outputs.iter().map(|port| (port, of("output", port))).collect();
        let recorded = || outputs.iter().filter(|(_, all)| !all.is_empty());
        let Some(count) = recorded().map(|(_, all)| all.len()).max() else {
            let names = listed(f.sig.outputs.iter().map(|p| &*p.name));
            let d = wrong("the golden file has no output of the package".to_owned());
            return Err(d.help(format!("its outputs are {names}, and are recorded as `output/NAME`")));
        };
        let lens = inputs.iter().map(|(p, _, all)| (*p, all.len())).chain(recorded().map(|(p, all)| (*p, all.len())));
        for (port, n) in lens {
            let optional = n == 0 && port.default.is_some();
            if n != count && !optional {
                return Err(wrong(format!("`{}` is recorded {n} times, others {count} times", port.name)));
            }
        }
        let call = |i: usize| {
            let input = |(port, ty, all): &(&Port, &TensorType, Vec<&Tensor>)| {
                all.get(i).map(|t| feed::fit(&port.name, ty, t)).transpose()
            };
            let given = inputs.iter().map(input).collect::<Result<Inputs, Diagnostic>>()?;
            Ok((given, outputs.iter().map(|(_, all)| all.get(i).map(|t| (*t).clone())).collect()))
        };
        let calls = (0..count).map(call).collect::<Result<_, Diagnostic>>()?;
        let missing = outputs.iter().filter(|(_, all)| all.is_empty()).map(|(p, _)| p.name.to_string()).collect();
        let is_unused = |(i, (name, _)): (usize, (&String, &Tensor))| (!used.contains(&i)).then(|| name.clone());
        let unused = self.arrays.iter().enumerate().filter_map(is_unused).collect();
        Ok(Found { calls, missing, unused })
    }

    /// The arrays `name`, or `name/0` and on, each with its place. Names of outputs may look like those of calls, so where it
    /// is known how many calls there are, all are named as these are.
    fn series(&self, name: &str) -> Vec<(usize, &Tensor)> {
        let find = |name: &str| self.arrays.get_full(name).map(|(at, _, t)| (at, t));
        let calls = self.origin.as_ref().map(|origin| origin.calls);
        let numbered = |most: usize| (0..most).map_while(|i| find(&format!("{name}/{i}"))).collect();
        match (calls, find(name)) {
            (Some(calls), _) if calls > 1 => numbered(calls.min(self.arrays.len())),
            (_, Some(one)) => vec![one],
            (Some(_), None) => vec![],
            (None, None) => numbered(self.arrays.len()),
        }
    }
}

/// The SHA-256 of a file in hexadecimal digits; of a folder, that of the names and hashes of all of its files, in order.
pub fn hash(path: &Path) -> Result<String, Diagnostic> {
    let unread = |e: std::io::Error| {
        Diagnostic::error(&codes::R0001, format!("cannot read the file: {e}")).at(path.display().to_string())
    };
    if !path.is_dir() {
        let mut sha = Sha256::new();
        let bytes = File::open(path).and_then(|f| map_file(&f)).map_err(unread)?;
        sha.update(&bytes);
        return Ok(format!("{:x}", sha.finalize()));
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unread)?;
    let mut paths: Vec<_> = entries.into_iter().map(|e| e.path()).collect();
    paths.sort();
    let mut sha = Sha256::new();
    for inner in paths {
        let name = inner.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        sha.update(format!("{} {name}\n", hash(&inner)?));
    }
    Ok(format!("{:x}", sha.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::text::parse as program;

    fn recorded(calls: usize) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("g.safetensors");
        let module = program("func @main(%x: f32[2]) ios17 {\n  %y = relu(x=%x)\n  return %y\n}\n");
        let module = module.unwrap_or_else(|e| panic!("{e}"));
        let mut recording = Recording::default();
        for i in 0..calls {
            let t = Tensor::from_vec(&[2], vec![i as f32, 1.0]);
            recording.add(&module.functions[0], &[Some(t.clone())], vec![Some(t)]);
        }
        recording.write(&path, &Origin { calls, ..Origin::default() }).expect("written");
        std::fs::read(&path).expect("there")
    }

    fn read_back(bytes: Vec<u8>, f: &str) -> Result<Found, String> {
        let module = program(f).unwrap_or_else(|e| panic!("{e}"));
        parse(&Bytes::from(bytes))?.calls(&module.functions[0]).map_err(|d| d.title)
    }

    #[test]
    fn what_is_written_is_read() {
        let f = "func @main(%x: f32[2]) ios17 {\n  %y = relu(x=%x)\n  %z = exp(x=%x)\n  return %y, %z\n}\n";
        for calls in [1, 3] {
            let read = read_back(recorded(calls), f).expect("whole");
            assert_eq!((read.calls.len(), read.missing.as_slice()), (calls, &["z".to_owned()][..]));
            let (inputs, outputs) = &read.calls[calls - 1];
            assert_eq!(inputs[0].as_ref().map(Tensor::to_f64), Some(vec![calls as f64 - 1.0, 1.0]));
            assert!(outputs[0].is_some() && outputs[1].is_none());
        }
        let other = "func @main(%x: f32[2]) ios17 {\n  %z = relu(x=%x)\n  return %z\n}\n";
        assert!(read_back(recorded(1), other).expect_err("no `z`").contains("no output"));
        assert_eq!(recorded(2), recorded(2));
    }

    #[test]
    fn outputs_may_be_named_as_calls_are() {
        let text = "func @main(%x: f32[2]) ios17 {\n  %y = relu(x=%x)\n  %a = exp(x=%x)\n  %b = sin(x=%x)\n  return %y, %a, %b\n}\n";
        let mut module = program(text).unwrap_or_else(|e| panic!("{e}"));
        for (port, name) in module.functions[0].sig.outputs.iter_mut().zip(["y", "y/0", "y/1"]) {
            port.name = name.into();
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("g.safetensors");
        for calls in [1, 2, 3] {
            let mut recording = Recording::default();
            for i in 0..calls {
                let t = |x: usize| Some(Tensor::from_vec(&[2], vec![(10 * i + x) as f32, 0.0]));
                recording.add(&module.functions[0], &[t(0)], vec![t(1), t(2), t(3)]);
            }
            recording.write(&path, &Origin { calls, ..Origin::default() }).expect("written");
            let found = read(&path).expect("read").calls(&module.functions[0]).expect("whole");
            assert_eq!((found.calls.len(), found.unused.len()), (calls, 0));
            for (i, (_, outputs)) in found.calls.iter().enumerate() {
                let firsts: Vec<f64> = outputs.iter().flatten().map(|t| t.to_f64()[0]).collect();
                assert_eq!(firsts, [1, 2, 3].map(|x| (10 * i + x) as f64));
            }
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let f = "func @main(%x: f32[2]) ios17 {\n  %y = relu(x=%x)\n  return %y\n}\n";
        let whole = recorded(1);
        for cut in 0..whole.len() {
            assert!(read_back(whole[..cut].to_vec(), f).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len().min(400) {
            for bit in [1, 0x10, 0x80] {
                let mut damaged = whole.clone();
                damaged[at] ^= bit;
                // Whatever it is now, it is read or refused.
                let _ = read_back(damaged, f);
            }
        }
    }
}
