//! How far a compressed weight is from what it was.

use super::apply::Compressed;
use mlconv_tensor::Tensor;
use rayon::prelude::*;

/// The difference between a weight and what its compressed form decodes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distortion {
    /// Mean squared error, in squared units of the weight.
    pub mse: f64,
    /// Signal-to-noise ratio in dB; `None` where there is no noise or no signal.
    pub snr_db: Option<f64>,
    /// Cosine of the angle between both, as vectors; `None` where one of them is zero.
    pub cosine: Option<f64>,
    /// The greatest difference.
    pub max_abs: f64,
}

/// Elements summed by one thread: a fixed number, so that sums are the same whatever the number of threads.
const RUN: usize = 1 << 16;

/// The distortion of `c` as a stand-in for `w`.
pub(crate) fn distortion(w: &Tensor, c: &Compressed) -> Distortion {
    between(&w.to_f32(), &c.decoded(w.shape()))
}

fn between(want: &[f32], got: &[f32]) -> Distortion {
    let parts: Vec<[f64; 5]> = want
        .par_chunks(RUN)
        .zip(got.par_chunks(RUN))
        .map(|(want, got)| {
            let mut sums = [0.0; 5];
            for (x, y) in want.iter().zip(got) {
                let (x, y) = (f64::from(*x), f64::from(*y));
                sums[0] += (x - y) * (x - y);
                sums[1] += x * x;
                sums[2] += y * y;
                sums[3] += x * y;
                sums[4] = (x - y).abs().max(sums[4]);
            }
            sums
        })
        .collect();
    let total = |i: usize| parts.iter().map(|p| p[i]).sum::<f64>();
    let (noise, signal) = (total(0), total(1));
    Distortion {
        mse: noise / want.len().max(1) as f64,
        snr_db: (noise > 0.0 && signal > 0.0).then(|| 10.0 * (signal / noise).log10()),
        cosine: (signal > 0.0 && total(2) > 0.0).then(|| total(3) / (signal * total(2)).sqrt()),
        max_abs: parts.iter().map(|p| p[4]).fold(0.0, f64::max),
    }
}
