//! Passes that change the precision of a computation.

mod bounds;
pub(crate) mod clamp_masks;
mod delicate;
mod epsilon;
pub(crate) mod fp16_cast;
mod half;
mod integers;
mod moves;
mod reach;
pub(crate) mod stabilize;

pub use moves::MOVES;
