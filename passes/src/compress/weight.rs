//! What every scheme asks of a weight.

use mlconv_tensor::{DType, Tensor, f16};
use rayon::prelude::*;

/// Why a scheme cannot be applied to a weight, with the facts that a person needs: `32 does not divide the 50 input
/// channels`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Refusal {
    /// For this reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Refuses what no scheme can compress: elements that are no floats of 16 or 32 bits, none at all, or not finite.
pub(crate) fn check(w: &Tensor) -> Result<(), Refusal> {
    let bad = match w.dtype() {
        DType::F16 => w.view::<f16>().and_then(|v| first(&v, |x| x.to_bits() & 0x7fff, 0x7c00)),
        DType::F32 => w.view::<f32>().and_then(|v| first(&v, |x| x.to_bits() & 0x7fff_ffff, 0x7f80_0000)),
        other => return Err(Refusal::new(format!("the elements are {other}, not f16 or f32"))),
    };
    if w.count() == 0 || w.shape().is_empty() {
        return Err(Refusal::new("a scalar, or no elements at all"));
    }
    match bad {
        Some(at) => Err(Refusal::new(format!("element {at} is not finite"))),
        None => Ok(()),
    }
}

/// The first element of which the bits, without the sign, are those of `infinite` or above.
fn first<T: Sync, B: Ord + Copy + Sync>(values: &[T], bits: impl Fn(&T) -> B + Sync, infinite: B) -> Option<usize> {
    const PART: usize = 1 << 15;
    values.par_chunks(PART).enumerate().find_map_first(|(i, part)| {
        // Without a way out, so that one instruction looks at several; there is hardly ever anything to find.
        let bad = part.iter().fold(false, |bad, x| bad | (bits(x) >= infinite));
        if bad { part.iter().position(|x| bits(x) >= infinite).map(|at| i * PART + at) } else { None }
    })
}
