//! Weights of exported programs: what lies in their archives, and the types of tensors as these say them.

use super::{ReadError, Result};
use crate::{
    archive::{Archive, Room},
    saved,
    storage::Storage,
};
use bytes::Bytes;
use indexmap::IndexMap;
use mlconv_tensor::{DType, Tensor};
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::HashMap;

/// What is known of a tensor.
#[derive(Clone, Deserialize)]
pub(super) struct Meta {
    pub(super) dtype: i64,
    pub(super) sizes: Vec<Json>,
    #[serde(default)]
    pub(super) strides: Vec<Json>,
    #[serde(default)]
    pub(super) storage_offset: Json,
}

#[derive(Deserialize)]
struct WeightsConfig {
    config: IndexMap<String, WeightConfig>,
}

#[derive(Deserialize)]
struct WeightConfig {
    path_name: String,
    #[serde(default)]
    use_pickle: bool,
    tensor_meta: Option<Meta>,
}

/// All weights of a model, by name.
pub(super) fn weights(archive: &mut Archive, model: &str) -> Result<HashMap<String, Tensor>> {
    let mut out = HashMap::new();
    let kinds = ["weights", "constants"];
    // Weights may share a file.
    let mut read: HashMap<String, Bytes> = HashMap::new();
    let room = archive.room();
    let configs = kinds.map(|kind| format!("data/{kind}/{model}_{kind}_config.json"));
    for entry in configs.into_iter().filter(|entry| archive.has(entry)).collect::<Vec<_>>() {
        let text = archive.read(&entry)?;
        let json = |why: serde_json::Error| ReadError::Json { entry: entry.clone(), why: why.to_string() };
        let config: WeightsConfig = serde_json::from_slice(&text).map_err(json)?;
        let folder = entry.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (name, weight) in config.config {
            let fail = |why: String| ReadError::Weight { name: name.clone(), why };
            let path = format!("{folder}/{}", weight.path_name);
            let bytes = match read.get(&path) {
                Some(bytes) => bytes.clone(),
                None => {
                    let bytes = archive.read(&path)?;
                    read.insert(path.clone(), bytes.clone());
                    bytes
                }
            };
            if weight.use_pickle {
                let saved = saved::tensors(bytes, &path, &room)?;
                out.extend(saved.into_iter().next().map(|(_, t)| (name, t)));
                continue;
            }
            let Some(meta) = &weight.tensor_meta else { continue };
            let t = strided(meta, &bytes, &room).map_err(fail)?;
            out.insert(name, t);
        }
    }
    // Earlier releases saved all weights together.
    let together = kinds.map(|kind| format!("data/{kind}/{model}.pt")).into_iter();
    let older = ["serialized_state_dict", "serialized_constants"].map(|name| format!("{name}.pt"));
    for entry in together.chain(older).filter(|entry| archive.has(entry)).collect::<Vec<_>>() {
        out.extend(saved::tensors(archive.read(&entry)?, &entry, &room)?);
    }
    Ok(out)
}

/// The type of the parts of complex numbers, where elements are such.
pub(super) fn complex_parts(code: i64) -> Option<DType> {
    match code {
        9 => Some(DType::F16),
        10 => Some(DType::F32),
        11 => Some(DType::F64),
        _ => None,
    }
}

/// A tensor of which a file has the storage. Complex numbers are pairs along a further axis.
fn strided(meta: &Meta, bytes: &Bytes, room: &Room) -> std::result::Result<Tensor, String> {
    let parts = complex_parts(meta.dtype);
    let dtype =
        dtype(meta.dtype).or(parts).ok_or_else(|| format!("elements of type {} are not supported", meta.dtype))?;
    let sizes: Option<Vec<usize>> = meta.sizes.iter().map(known_size).collect();
    let strides: Option<Vec<usize>> = meta.strides.iter().map(known_size).collect();
    let offset = match &meta.storage_offset {
        Json::Null => Some(0),
        v => known_size(v),
    };
    let (Some(mut sizes), Some(mut strides), Some(mut offset)) = (sizes, strides, offset) else {
        return Err("its sizes are not numbers".to_owned());
    };
    if parts.is_some() {
        strides = strides.into_iter().map(|s| s.saturating_mul(2)).collect();
        sizes.push(2);
        strides.push(1);
        offset = offset.saturating_mul(2);
    }
    Storage { bytes, dtype, room }.tensor(&sizes, &strides, offset)
}

/// A size that is a number.
pub(super) fn known_size(v: &Json) -> Option<usize> {
    let n = v.as_u64().or_else(|| v.get("as_int").and_then(Json::as_u64))?;
    usize::try_from(n).ok()
}

/// The element type of a number in an exported program.
pub(super) fn dtype(code: i64) -> Option<DType> {
    Some(match code {
        1 => DType::U8,
        2 => DType::I8,
        3 => DType::I16,
        4 => DType::I32,
        5 => DType::I64,
        6 => DType::F16,
        7 => DType::F32,
        8 => DType::F64,
        12 => DType::Bool,
        13 => DType::Bf16,
        28 => DType::U16,
        29 => DType::F8E4M3,
        30 => DType::F8E5M2,
        _ => return None,
    })
}
