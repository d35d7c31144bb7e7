//! Reads tensors, in the file or beside it.

use crate::reader::{ReadError, Result};
use mlconv_proto::onnx::{
    SparseTensorProto, TensorProto,
    tensor_proto::{DataLocation, DataType},
};
use mlconv_source::ModelFiles;
use mlconv_tensor::{Blob, Bytes, DType, Tensor};

/// The element type with ONNX's number `code`; `None` for complex numbers and types that are not known.
pub(crate) fn dtype(code: i32) -> Option<DType> {
    Some(match DataType::try_from(code).ok()? {
        DataType::Float => DType::F32,
        DataType::Uint8 => DType::U8,
        DataType::Int8 => DType::I8,
        DataType::Uint16 => DType::U16,
        DataType::Int16 => DType::I16,
        DataType::Int32 => DType::I32,
        DataType::Int64 => DType::I64,
        DataType::String => DType::Str,
        DataType::Bool => DType::Bool,
        DataType::Float16 => DType::F16,
        DataType::Double => DType::F64,
        DataType::Uint32 => DType::U32,
        DataType::Uint64 => DType::U64,
        DataType::Bfloat16 => DType::Bf16,
        DataType::Float8e4m3fn => DType::F8E4M3,
        DataType::Float8e5m2 => DType::F8E5M2,
        DataType::Uint4 => DType::U4,
        DataType::Int4 => DType::I4,
        DataType::Uint2 => DType::U2,
        _ => return None,
    })
}

/// The name of the element type with ONNX's number `code` that is known and has no place here.
pub(crate) fn odd_type(code: i32) -> Option<String> {
    DataType::try_from(code).ok().filter(|ty| *ty != DataType::Undefined && dtype(code).is_none()).map(element_name)
}

/// A tensor of a file.
pub(crate) enum Read {
    /// It is one.
    Tensor(Tensor),
    /// Its elements are of a type that has no place here.
    Other(DataType),
    /// Its data are not there, and nothing can stand in for what they say.
    Unread,
}

/// Integers of at most so many bytes may be a shape or axes, which decide what becomes of a model.
const DECIDING: usize = 1024;
/// Floats of at most so many bytes may be scales, which zero is none of.
const SCALING: usize = 1 << 16;
/// Zeros take no room as long as they are shared, which those that are read in another type are not: up to so many bytes,
/// and as many elements, they are made all the same.
const CAST: usize = 1 << 28;

/// Reads a tensor, which must be one.
pub(crate) fn read(t: &TensorProto, files: &ModelFiles) -> Result<Tensor> {
    let name = t.name.as_deref().unwrap_or_default();
    let fail = |why: String| ReadError::Tensor { name: name.to_owned(), why };
    match read_any(t, files)? {
        Read::Tensor(t) => Ok(t),
        Read::Other(ty) => Err(fail(format!("elements of type {} are not supported", element_name(ty)))),
        Read::Unread => Err(fail("its data are not there".to_owned())),
    }
}

/// A type as ONNX spells it.
pub(crate) fn element_name(ty: DataType) -> String {
    ty.as_str_name().to_lowercase()
}

/// Reads a tensor; its bytes are shared with the file where the file has them as they are.
pub(crate) fn read_any(t: &TensorProto, files: &ModelFiles) -> Result<Read> {
    let name = t.name.as_deref().unwrap_or_default();
    let fail = |why: String| ReadError::Tensor { name: name.to_owned(), why };
    let code = t.data_type.unwrap_or(0);
    let Some(dtype) = dtype(code).filter(|d| *d != DType::Str) else {
        return match DataType::try_from(code) {
            Ok(DataType::Undefined) | Err(_) => Err(fail(format!("element type {code} is not known"))),
            Ok(known) => Ok(Read::Other(known)),
        };
    };
    let shape: Vec<usize> = t
        .dims
        .iter()
        .map(|d| usize::try_from(*d).map_err(|_| fail(format!("a dimension is {d}"))))
        .collect::<Result<_>>()?;
    if t.segment.is_some() {
        return Err(fail("it is split into segments, which is not supported".to_owned()));
    }
    let blob = if t.data_location == Some(DataLocation::External as i32) {
        match external(t, name, files) {
            Err(ReadError::External { why, .. }) if files.makes_up(location(t).unwrap_or_default(), &why) => {
                return made_up(dtype, &shape, files).map_err(fail);
            }
            found => found?,
        }
    } else if let Some(raw) = &t.raw_data {
        Blob::from(raw.clone())
    } else {
        typed(t, dtype).ok_or_else(|| fail(format!("elements of type {dtype} have no data field")))?
    };
    Tensor::new(dtype, &shape, blob).map(Read::Tensor).map_err(|e| fail(e.to_string()))
}

/// What stands in for a tensor whose data are not there.
fn made_up(dtype: DType, shape: &[usize], files: &ModelFiles) -> std::result::Result<Read, String> {
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let bits = count.and_then(|n| n.checked_mul(dtype.bits() as usize));
    let len = bits.ok_or("it is larger than memory")?.div_ceil(8);
    if dtype.is_float() && len <= SCALING {
        return Ok(Read::Tensor(Tensor::splat(dtype, shape, 0.5)));
    }
    let is_cast = mlconv_source::narrowed(dtype) != Some(dtype);
    if (!dtype.is_float() && len <= DECIDING) || (is_cast && len.max(count.unwrap_or(0)) > CAST) {
        return Ok(Read::Unread);
    }
    let zeros = files.zeros(len).map_err(|e| format!("its {len} bytes cannot be made up: {e}"))?;
    Tensor::new(dtype, shape, Blob::from(zeros)).map(Read::Tensor).map_err(|e| e.to_string())
}

/// The file that holds a tensor's data.
fn location(t: &TensorProto) -> Option<&str> {
    let found = t.external_data.iter().rfind(|e| e.key.as_deref() == Some("location"));
    found.map(|e| e.value.as_deref().unwrap_or_default())
}

/// The bytes of a tensor that lie in another file.
fn external(t: &TensorProto, name: &str, files: &ModelFiles) -> Result<Blob> {
    let fail = |why: String| ReadError::Tensor { name: name.to_owned(), why };
    let entry = |key: &str| {
        let found = t.external_data.iter().rfind(|e| e.key.as_deref() == Some(key));
        found.map(|e| e.value.as_deref().unwrap_or_default())
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => {
            text.trim().parse::<usize>().map(Some).map_err(|_| fail(format!("its {key} is `{text}`, wanted a number")))
        }
    };
    let path = location(t).ok_or_else(|| fail("its data are in another file, which it does not name".to_owned()))?;
    let bytes = files.map(path).map_err(|why| ReadError::External { name: name.to_owned(), why })?;
    let start = number("offset")?.unwrap_or(0);
    let end = match number("length")? {
        Some(length) => start.checked_add(length),
        None => Some(bytes.len()),
    };
    let range = end.and_then(|end| Blob::new(&bytes, start..end));
    range.ok_or_else(|| fail(format!("its data reach beyond the {} bytes of `{path}`", bytes.len())))
}

/// The elements of a typed field, as bytes.
fn typed(t: &TensorProto, dtype: DType) -> Option<Blob> {
    // `as` below takes the low bits, as the format stores narrow integers in wide ones.
    let ints = || t.int32_data.iter();
    let tensor = match dtype {
        DType::F32 => Tensor::from_vec(&[t.float_data.len()], t.float_data.clone()),
        DType::F64 => Tensor::from_vec(&[t.double_data.len()], t.double_data.clone()),
        DType::I64 => Tensor::from_vec(&[t.int64_data.len()], t.int64_data.clone()),
        DType::U64 => Tensor::from_vec(&[t.uint64_data.len()], t.uint64_data.clone()),
        DType::U32 => Tensor::from_vec(&[t.uint64_data.len()], t.uint64_data.iter().map(|v| *v as u32).collect()),
        DType::I32 => Tensor::from_vec(&[t.int32_data.len()], t.int32_data.clone()),
        DType::I16 | DType::U16 | DType::F16 | DType::Bf16 => {
            Tensor::from_vec(&[t.int32_data.len()], ints().map(|v| *v as u16).collect())
        }
        DType::I8 | DType::U8 | DType::F8E4M3 | DType::F8E5M2 => {
            Tensor::from_vec(&[t.int32_data.len()], ints().map(|v| *v as u8).collect())
        }
        DType::Bool => Tensor::from_bools(&[t.int32_data.len()], ints().map(|v| *v != 0)),
        // Each entry holds one byte of packed elements, lowest bits first, as they are packed everywhere here.
        DType::I4 | DType::U4 | DType::U2 => {
            return Some(Blob::from(Bytes::from(ints().map(|v| *v as u8).collect::<Vec<_>>())));
        }
        DType::Str | DType::U1 | DType::U3 | DType::U6 => return None,
    };
    Some(tensor.blob().clone())
}

/// Reads a sparse tensor into a dense one.
pub(crate) fn read_sparse(t: &SparseTensorProto, files: &ModelFiles) -> Result<Tensor> {
    let (Some(values), Some(indices)) = (&t.values, &t.indices) else {
        return Err(ReadError::Tensor {
            name: String::new(),
            why: "a sparse tensor lacks values or indices".to_owned(),
        });
    };
    let name = values.name.as_deref().unwrap_or_default();
    let fail = |why: &str| ReadError::Tensor { name: name.to_owned(), why: why.to_owned() };
    let (values, indices) = (read(values, files)?, read(indices, files)?);
    let dims: Vec<usize> = t
        .dims
        .iter()
        .map(|d| usize::try_from(*d))
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| fail("a dimension is negative"))?;
    let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= 1 << 26);
    let count = count.ok_or_else(|| fail("a sparse tensor is too large"))?;
    let flat = indices.to_i64();
    let places: Option<Vec<usize>> = match indices.shape() {
        [n] if *n == values.count() => flat.iter().map(|i| usize::try_from(*i).ok()).collect(),
        [n, rank] if *n == values.count() && *rank == dims.len() && *rank > 0 => flat
            .chunks(*rank)
            .map(|index| {
                index.iter().zip(&dims).try_fold(0usize, |at, (i, d)| {
                    let i = usize::try_from(*i).ok().filter(|i| i < d)?;
                    Some(at * d + i)
                })
            })
            .collect(),
        _ => None,
    };
    let places = places.filter(|p| p.iter().all(|i| *i < count)).ok_or_else(|| fail("indices do not fit the shape"))?;
    if values.dtype().is_float() {
        let mut dense = vec![0f64; count];
        for (at, v) in places.into_iter().zip(values.to_f64()) {
            dense[at] = v;
        }
        Ok(Tensor::from_f64(values.dtype(), &dims, &dense))
    } else {
        let mut dense = vec![0i64; count];
        for (at, v) in places.into_iter().zip(values.to_i64()) {
            dense[at] = v;
        }
        Ok(Tensor::from_i64(values.dtype(), &dims, &dense))
    }
}
