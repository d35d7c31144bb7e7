//! Element types, symbolic shapes, and tensors over shared bytes.
//!
//! This crate knows no op and no file format. It is the only crate in which `unsafe` is allowed by default, and it
//! needs it once, to map a file.

mod bits;
mod blob;
mod dim;
mod dtype;
mod maps;
mod shape;
mod simd;
mod tensor;
mod types;

pub use bits::{pack_bits, packed_len, unpack_bits};
pub use blob::{Blob, Cast, Recipe, map_file};
pub use dim::{Arithmetic, Dim, Operation, SymbolInfo, Symbols, floor_div};
pub use dtype::DType;
pub use shape::{Axis, Dims, Shape, ShapeError, strides};
pub use simd::{Simd, WithSimd, vectorized};
pub use tensor::{Element, Tensor, TensorError};
pub use types::{TensorType, Type};

pub use bytes::Bytes;
pub use half::{bf16, f16};
