//! Passes that change the precision of a computation.

mod epsilon;
pub(crate) mod fp16_cast;
mod integers;
mod reach;
