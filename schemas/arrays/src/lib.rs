//! Arrays outside of a process: in `.npy` and `.npz` files, and in the talk with a process that runs a model.

mod frame;
mod npy;
mod npz;
pub mod talk;

use indexmap::IndexMap;
use mlconv_tensor::Tensor;
use std::io::{Cursor, Read, Seek, Write};

/// Named arrays, in the order of their file.
pub type Arrays = IndexMap<String, Tensor>;

/// Reads the bytes of a `.npy` file; an error says what is wrong with them.
pub fn parse_npy(bytes: &[u8]) -> Result<Tensor, String> {
    npy::parse(bytes)
}

/// The bytes of a `.npy` file.
pub fn npy_bytes(t: &Tensor) -> Result<Vec<u8>, String> {
    let mut bytes = vec![];
    npy::write(&mut bytes, t).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// Reads the bytes of a `.npz` file; an error says what is wrong with them.
pub fn parse_npz(bytes: &[u8]) -> Result<Arrays, String> {
    npz::read(Cursor::new(bytes))
}

/// Reads a `.npz` file; an error says what is wrong with it.
pub fn read_npz(file: impl Read + Seek) -> Result<Arrays, String> {
    npz::read(file)
}

/// Writes a `.npz` file. The same arrays give the same bytes.
pub fn write_npz(file: impl Write + Seek, arrays: &Arrays) -> Result<(), String> {
    npz::write(file, arrays)
}

/// The bytes of a `.npz` file.
pub fn npz_bytes(arrays: &Arrays) -> Result<Vec<u8>, String> {
    let mut whole = Cursor::new(vec![]);
    npz::write(&mut whole, arrays)?;
    Ok(whole.into_inner())
}
