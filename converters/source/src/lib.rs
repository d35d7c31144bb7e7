//! What all frontends share: the source graph, the context in which a node is lowered, the driver that walks a graph
//! with a table of lowerings, and access to files beside a model.
//!
//! A reader turns bytes into a [`SourceGraph`]; a table turns its nodes into MIL. Readers hold all format trouble, rows
//! hold none.

mod bounds;
mod compose;
mod driver;
mod error;
mod files;
mod functions;
mod graph;
mod interface;
pub mod layers;
mod lower;
mod named;
mod order;
mod problems;
mod rearrange;
mod spec;
mod table;

pub use compose::Size;
pub use driver::{Entry, Lowering, lower};
pub use error::LowerError;
pub use files::{FileError, ModelFiles};
pub use graph::{Arg, Node, SourceDim, SourceGraph, SourceType, SourceValue};
pub use lower::{Lower, Lowered, Values, narrowed};
pub use spec::{DimSpec, InputSpec, Request, SpecError};
pub use table::{Absent, Row, Table};
