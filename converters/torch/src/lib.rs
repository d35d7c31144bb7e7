//! The PyTorch frontend: readers that turn files into source graphs, and one table that lowers ATen operators.
//!
//! An exported program (`.pt2`) is an archive of JSON and raw tensors, a module of TorchScript (`.pt`) one of code, a pickle and
//! tensors. The code is interpreted as it is lowered. No code of PyTorch runs, and no pickle calls anything.

mod archive;
mod complex;
mod functional;
mod inlined;
mod ops;
mod pickle;
mod pt2;
mod saved;
mod schema;
mod script;
mod storage;
mod symbols;
mod tree;

pub use archive::ArchiveError;
pub use ops::{signatures, table};
pub use pt2::{ReadError, read};
pub use saved::{EXPORT_PICKLED, is_pickle};
pub use schema::Signature;
pub use script::{First, Lowered, Parameter, is_script, lower as lower_script, parameters};
