//! Passes that find what a model means in what an exporter wrote out, and say it with one op.

mod algebra;
mod axes;
pub(crate) mod fuse_activation;
pub(crate) mod fuse_clamp;
pub(crate) mod fuse_gelu;
pub(crate) mod fuse_normalization;
pub(crate) mod fuse_reduction;
mod intervals;
mod precise;
