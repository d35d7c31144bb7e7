//! Passes that change the precision of a computation.

pub(crate) mod fp16_cast;
mod integers;
mod reach;
