//! Passes that change the precision of a computation.

pub(crate) mod clamp_masks;
mod epsilon;
pub(crate) mod fp16_cast;
mod integers;
mod reach;
