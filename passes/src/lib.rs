//! Rewrites over the IR: an engine for rules, a catalogue of passes, and pipelines of them.
//!
//! A *rule* sees one op as its own struct, and returns what it wants done as a value; it mutates nothing. The engine
//! checks that the edit keeps the type of what it replaces, applies it, and records where it came from. A *pass* is a list
//! of rules or a function over a module. This crate knows no framework, file or backend.

pub mod compress;
mod engine;
mod fuse;
mod graph;
mod layout;
mod options;
mod pipeline;
mod precision;

pub(crate) use engine::rules;
pub use engine::{Edit, Fit, For, Matcher, Miss, Named, Of, Rule};
pub use options::{Options, Pattern, Seen};
pub use pipeline::{Group, Note, Pass, PassCx, PassError, Pipeline, Report, Run, Step, Weight};
pub use precision::MOVES;

macro_rules! catalogue {
    ($($folder:ident::$file:ident),* $(,)?) => {
        /// Every pass.
        pub static PASSES: &[&Pass] = &[$(&$folder::$file::PASS),*];
    };
}

catalogue! {
    fuse::fuse_activation,
    fuse::fuse_clamp,
    fuse::fuse_gelu,
    fuse::fuse_normalization,
    fuse::fuse_reduction,
    graph::cast_optimization,
    graph::common_subexpression_elimination,
    graph::const_elimination,
    graph::dead_code_elimination,
    graph::fold_affine,
    graph::fold_input_affine,
    graph::fuse_attention,
    graph::fuse_linear,
    graph::noop_elimination,
    graph::rank_reduction,
    layout::merge_pads,
    layout::merge_reshapes,
    layout::merge_slices,
    layout::merge_transposes,
    layout::remove_expansion,
    layout::share_heads,
    layout::sink_transposes,
    precision::clamp_masks,
    precision::fp16_cast,
    precision::stabilize,
}

/// The pass called `name`.
pub fn by_name(name: &str) -> Option<&'static Pass> {
    PASSES.iter().copied().find(|p| p.name == name)
}
