//! What all frontends share: the source graph, the context in which a node is lowered, the driver that walks a graph
//! with a table of lowerings, and access to files beside a model.
//!
//! A reader turns bytes into a [`SourceGraph`]; a table turns its nodes into MIL. Readers hold all format trouble, rows
//! hold none.

mod bits;
mod bounds;
mod compose;
mod distinct;
mod driver;
mod elements;
mod error;
mod files;
mod fourier;
mod functions;
mod graph;
mod interface;
pub mod layers;
mod lower;
mod named;
mod order;
mod problems;
mod rearrange;
mod running;
mod spec;
mod states;
mod table;
mod walk;

pub use compose::Size;
pub use distinct::Distinct;
pub use driver::{Entry, Lowering, lower};
pub use elements::Diagonal;
pub use error::LowerError;
pub use files::{FileError, ModelFiles};
pub use fourier::Transform;
pub use graph::{Absent, Arg, Node, SourceDim, SourceGraph, SourceState, SourceType, SourceValue};
pub use lower::{Lower, Lowered, Values, narrowed};
pub use running::Combine;
pub use spec::{DimSpec, InputSpec, Request, SpecError};
pub use states::rounded_states;
pub use table::{Row, Table, Without};
pub use walk::{Branch, Known, Walk};
