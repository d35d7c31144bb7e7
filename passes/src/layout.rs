//! Passes that remove ops which only move data.

mod keep;
pub(crate) mod merge_pads;
pub(crate) mod merge_reshapes;
pub(crate) mod merge_slices;
pub(crate) mod merge_transposes;
pub(crate) mod remove_expansion;
pub(crate) mod share_heads;
pub(crate) mod sink_transposes;
