//! Compression of weights: fewer bits an element, or fewer elements.
//!
//! Kernels compress one tensor and know nothing of programs; what they make decodes exactly as Core ML's `constexpr_*` ops
//! say.

mod palette;
mod weight;

pub use palette::{BITS, Groups, Palette, PaletteMethod, PaletteOptions, palettize};
pub use weight::Refusal;
