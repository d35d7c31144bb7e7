//! Activations in 8 bits: which values, over which range, and the ops that say so.
//!
//! [`activations`] finds the values, a [`Histogram`] counts the elements of each over samples, [`calibrate`] turns it into
//! a range, and [`insert`] puts `quantize` and `dequantize` where the values are read. Running the samples is the caller's.

mod histogram;
mod places;
mod range;

pub use histogram::Histogram;
pub use places::{Activation, activations, insert};
pub use range::{Affine, Calibrated, DEFAULT_PERCENTILE, Form, Method, calibrate};
