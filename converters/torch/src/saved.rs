//! Tensors as `torch.save` writes them: an archive with a pickle that says where each lies in which storage.

use crate::{
    archive::{Archive, Room},
    pickle::{self, Id, Object, Pickle},
    pt2::ReadError,
    storage::Storage,
};
use bytes::Bytes;
use mlconv_tensor::{DType, Tensor};
use std::{collections::HashMap, rc::Rc};

/// The tensors of a saved dictionary, by name; of a saved tensor by itself, it under no name. `room` is what the file that it
/// lies in may come to.
pub(crate) fn tensors(bytes: Bytes, entry: &str, room: &Rc<Room>) -> Result<Vec<(String, Tensor)>, ReadError> {
    let fail = |why: String| ReadError::Json { entry: entry.to_owned(), why };
    let mut archive = Archive::within(bytes, room.clone())?;
    if archive.has("byteorder") && &*archive.read("byteorder")? != b"little" {
        return Err(fail("its numbers are big-endian, which is not supported".to_owned()));
    }
    let data = archive.read("data.pkl")?;
    let p = pickle::read(&data).map_err(|e| fail(e.to_string()))?;
    let named: Vec<(String, Id)> = match p.pairs(p.root) {
        Some(pairs) => pairs.iter().filter_map(|(k, v)| Some((p.str(*k)?.to_owned(), *v))).collect(),
        None => vec![(String::new(), p.root)],
    };
    let (mut storages, mut out) = (HashMap::new(), vec![]);
    for (name, id) in named {
        // What is no tensor belongs to nobody who asks for tensors.
        if !matches!(p.get(id), Object::Call(f, _) if f.starts_with("torch._utils._rebuild")) {
            continue;
        }
        let wrong = |why: String| ReadError::Weight { name: name.clone(), why };
        let parts = parts(&p, id).map_err(wrong)?;
        let bytes = match storages.get(&parts.key) {
            Some(bytes) => Bytes::clone(bytes),
            None => {
                let bytes = archive.read(&format!("data/{}", parts.key))?;
                storages.insert(parts.key.clone(), bytes.clone());
                bytes
            }
        };
        let storage = Storage { bytes: &bytes, dtype: parts.dtype, room };
        let t = storage.tensor(&parts.sizes, &parts.strides, parts.offset).map_err(wrong)?;
        out.push((name, t));
    }
    Ok(out)
}

/// Whether a file begins as a pickle does, among them those that `torch.save` wrote before it wrote archives.
pub fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..])
}

/// How a model in a pickle is exported, which only Python with the model's code can do.
pub const EXPORT_PICKLED: &str = "in Python, with the code of the model: \
    `model = torch.load(FILE, weights_only=False).eval()` and \
    `torch.export.save(torch.export.export(model, (example,)), \"model.pt2\")`";

/// How weights alone become a model.
const EXPORT_WEIGHTS: &str = "in Python, with the class of the model: \
    `model = Model(); model.load_state_dict(torch.load(FILE)); model.eval()` and \
    `torch.export.save(torch.export.export(model, (example,)), \"model.pt2\")`";

/// What an archive is that holds a pickle and no graph.
pub(crate) fn described(archive: &mut Archive) -> ReadError {
    let other = |what, help| ReadError::Other { what, help };
    let Ok(data) = archive.read("data.pkl") else {
        return other("no model: it holds neither an exported program nor TorchScript", EXPORT_PICKLED);
    };
    let is_tensor = |p: &Pickle, id: Id| matches!(p.get(id), Object::Call(f, _) if f.contains("_rebuild_"));
    let holds = |p: &Pickle, id: Id| p.pairs(id).is_some_and(|pairs| pairs.iter().any(|(_, v)| is_tensor(p, *v)));
    match pickle::read(&data) {
        Ok(p) if holds(&p, p.root) => other("a state dict: weights by name, without the model", EXPORT_WEIGHTS),
        Ok(p) if p.pairs(p.root).is_some_and(|pairs| pairs.iter().any(|(_, v)| holds(&p, *v))) => {
            other("a checkpoint: weights by name in a dictionary, without the model", EXPORT_WEIGHTS)
        }
        Ok(p) if is_tensor(&p, p.root) => other("a saved tensor, and no model", EXPORT_PICKLED),
        Err(pickle::PickleError::Refused(name)) => ReadError::Pickled(name),
        _ => other("no model: it holds a pickle without a graph", EXPORT_PICKLED),
    }
}

/// Where a tensor lies.
pub(crate) struct Parts {
    pub(crate) key: String,
    pub(crate) dtype: DType,
    pub(crate) sizes: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) offset: usize,
}

/// Where the tensor lies that an object says how to put together.
pub(crate) fn parts(p: &Pickle, id: Id) -> std::result::Result<Parts, String> {
    let Object::Call(function, args) = p.get(id) else { return Err("it is no tensor".to_owned()) };
    match &**function {
        "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => match args.first() {
            // A parameter is a tensor that is trained; one level is all there is.
            Some(inner) if matches!(p.get(*inner), Object::Call(f, _) if f.contains("_rebuild_tensor")) => {
                return parts(p, *inner);
            }
            _ => return Err("it is a parameter of no tensor".to_owned()),
        },
        "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => {}
        other => return Err(format!("tensors made by `{other}` are not supported")),
    }
    let [storage, offset, sizes, strides, ..] = args.as_slice() else {
        return Err("its storage, sizes or strides are not there".to_owned());
    };
    let Object::Persistent(storage) = p.get(*storage) else { return Err("it has no storage".to_owned()) };
    let storage = p.elements(*storage).unwrap_or_default();
    let [kind, ty, key, ..] = storage else { return Err("its storage is not named".to_owned()) };
    if p.str(*kind) != Some("storage") {
        return Err("its storage is something else".to_owned());
    }
    let Object::Global(ty) = p.get(*ty) else { return Err("its storage has no type".to_owned()) };
    let dtype = storage_type(ty).ok_or_else(|| format!("elements of `{ty}` are not supported"))?;
    let key = p.str(*key).filter(|k| !k.contains(['/', '\\']) && *k != "..").ok_or("its storage has no name")?;
    let size = |id: &Id| p.int(*id).and_then(|n| usize::try_from(n).ok());
    let list = |id: &Id| p.elements(*id).unwrap_or_default().iter().map(size).collect::<Option<Vec<usize>>>();
    let (Some(sizes), Some(strides), Some(offset)) = (list(sizes), list(strides), size(offset)) else {
        return Err("its sizes are not numbers".to_owned());
    };
    Ok(Parts { key: key.to_owned(), dtype, sizes, strides, offset })
}

fn storage_type(name: &str) -> Option<DType> {
    let name = name.rsplit('.').next()?;
    Some(match name {
        "FloatStorage" | "float32" => DType::F32,
        "DoubleStorage" | "float64" => DType::F64,
        "HalfStorage" | "float16" => DType::F16,
        "BFloat16Storage" | "bfloat16" => DType::Bf16,
        "ByteStorage" | "uint8" => DType::U8,
        "CharStorage" | "int8" => DType::I8,
        "ShortStorage" | "int16" => DType::I16,
        "IntStorage" | "int32" => DType::I32,
        "LongStorage" | "int64" => DType::I64,
        "BoolStorage" | "bool" => DType::Bool,
        _ => return None,
    })
}
