//! Compression of weights: fewer bits an element, or fewer elements.
//!
//! Kernels compress one tensor and know nothing of programs; what they make decodes exactly as Core ML's `constexpr_*` ops
//! say.

mod affine;
mod blocks;
pub mod gptq;
pub mod linear;
pub mod measure;
pub mod prune;
mod weight;

pub use weight::Refusal;
