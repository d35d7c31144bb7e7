//! Passes that keep the meaning and the types of a graph.

pub(crate) mod cast_optimization;
pub(crate) mod common_subexpression_elimination;
pub(crate) mod const_elimination;
pub(crate) mod dead_code_elimination;
pub(crate) mod fold_affine;
pub(crate) mod fold_input_affine;
pub(crate) mod fuse_attention;
pub(crate) mod fuse_linear;
pub(crate) mod noop_elimination;
pub(crate) mod rank_reduction;
