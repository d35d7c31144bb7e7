//! The ONNX frontend: a reader that turns a file into a source graph, and a table that lowers it.

mod functions;
mod ops;
mod reader;
mod tensor;

pub use ops::{WITHOUT, rows, table};
pub use reader::{ReadError, looks_like_onnx, read};

/// The newest version of the `ai.onnx` operator set that the table knows.
pub const LATEST: i64 = 28;
