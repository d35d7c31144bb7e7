//! How far a decoded weight is from the weight.

use mlconv_tensor::{Simd, WithSimd, vectorized};
use rayon::prelude::*;
use std::ops::Range;

/// The difference between a weight and what decodes in its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distortion {
    /// The mean of the squared differences.
    pub mse: f64,
    /// The power of the weight over that of the differences, in dB: infinite where there are none.
    pub snr_db: f64,
    /// The cosine of the angle between the two: 1 where both are zero, 0 where one is.
    pub cosine: f64,
    /// The greatest difference.
    pub max_abs: f64,
}

/// Sums from which a [`Distortion`] follows, over slices that come one after the other.
///
/// They are the same for any number of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    count: usize,
    weight: f64,
    decoded: f64,
    product: f64,
    noise: f64,
    max_abs: f64,
}

impl Distortion {
    /// Of `decoded`, which stands for `weight`; elements beyond the shorter of the two do not count.
    pub fn between(weight: &[f32], decoded: &[f32]) -> Self {
        let mut sums = Sums::default();
        sums.add(weight, decoded);
        sums.distortion()
    }
}

impl Sums {
    /// Adds elements and what decodes in their place.
    pub fn add(&mut self, weight: &[f32], decoded: &[f32]) {
        let count = weight.len().min(decoded.len());
        let (weight, decoded) = (&weight[..count], &decoded[..count]);
        self.add_parts(count, |range, lanes| lanes.add(&weight[range.clone()], &decoded[range]));
    }

    /// Adds `count` elements, which `part` adds by ranges of at most [`PART`].
    pub(super) fn add_parts(&mut self, count: usize, part: impl Fn(Range<usize>, &mut Lanes) + Sync) {
        // Parts of one size are added in order, so that threads change nothing.
        let parts: Vec<Self> = (0..count.div_ceil(PART))
            .into_par_iter()
            .map(|i| {
                let mut lanes = Lanes::default();
                part(i * PART..((i + 1) * PART).min(count), &mut lanes);
                lanes.sums()
            })
            .collect();
        parts.iter().for_each(|part| self.join(part));
    }

    /// What the sums so far say.
    pub fn distortion(&self) -> Distortion {
        let norms = (self.weight * self.decoded).sqrt();
        let cosine = match (self.weight == 0.0, self.decoded == 0.0) {
            (true, true) => 1.0,
            (false, false) if norms > 0.0 => (self.product / norms).clamp(-1.0, 1.0),
            _ => 0.0,
        };
        let snr_db = if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.weight / self.noise).log10() };
        Distortion { mse: self.noise / self.count.max(1) as f64, snr_db, cosine, max_abs: self.max_abs }
    }

    fn join(&mut self, o: &Self) {
        self.count += o.count;
        self.weight += o.weight;
        self.decoded += o.decoded;
        self.product += o.product;
        self.noise += o.noise;
        self.max_abs = self.max_abs.max(o.max_abs);
    }
}

/// Elements that are summed one after the other.
pub(super) const PART: usize = 1 << 15;
/// Sums side by side, so that one instruction adds to several.
const LANES: usize = 8;

/// Sums of every eighth element.
#[derive(Default)]
pub(super) struct Lanes {
    count: usize,
    weight: [f64; LANES],
    decoded: [f64; LANES],
    product: [f64; LANES],
    noise: [f64; LANES],
    max_abs: [f64; LANES],
}

impl Lanes {
    /// Adds elements of one number: a multiple of eight, but for the last ones.
    pub(super) fn add(&mut self, weight: &[f32], decoded: &[f32]) {
        vectorized(Add { lanes: self, weight, decoded });
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums { count: self.count, ..Sums::default() };
        for i in 0..LANES {
            sums.weight += self.weight[i];
            sums.decoded += self.decoded[i];
            sums.product += self.product[i];
            sums.noise += self.noise[i];
            sums.max_abs = sums.max_abs.max(self.max_abs[i]);
        }
        sums
    }
}

/// Adds elements to lanes.
struct Add<'a> {
    lanes: &'a mut Lanes,
    weight: &'a [f32],
    decoded: &'a [f32],
}

impl WithSimd for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let ((weights, w_rest), (all, d_rest)) = (self.weight.as_chunks::<LANES>(), self.decoded.as_chunks::<LANES>());
        // Apart from `self`, so that they stay in registers.
        let Lanes { count, mut weight, mut decoded, mut product, mut noise, mut max_abs } = *self.lanes;
        // Zeros beside what is left of the last ones add nothing.
        let (mut w_last, mut d_last) = ([0f32; LANES], [0f32; LANES]);
        w_last[..w_rest.len()].copy_from_slice(w_rest);
        d_last[..d_rest.len()].copy_from_slice(d_rest);
        for (w, d) in weights.iter().zip(all).chain([(&w_last, &d_last)]) {
            for i in 0..LANES {
                let (w, d) = (f64::from(w[i]), f64::from(d[i]));
                let e = w - d;
                weight[i] += w * w;
                decoded[i] += d * d;
                product[i] += w * d;
                noise[i] += e * e;
                max_abs[i] = if e.abs() > max_abs[i] { e.abs() } else { max_abs[i] };
            }
        }
        *self.lanes = Lanes { count: count + self.weight.len(), weight, decoded, product, noise, max_abs };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_measured() {
        let d = Distortion::between(&[3.0, 0.0, 4.0], &[3.0, 1.0, 2.0]);
        assert_eq!((d.mse, d.max_abs), (5.0 / 3.0, 2.0));
        assert!((d.snr_db - 10.0 * 5f64.log10()).abs() < 1e-12);
        assert!((d.cosine - 17.0 / (25f64 * 14.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn nothing_divides_by_zero() {
        let same = Distortion { mse: 0.0, snr_db: f64::INFINITY, cosine: 1.0, max_abs: 0.0 };
        assert_eq!(Distortion::between(&[], &[]), same);
        assert_eq!(Distortion::between(&[0.0], &[0.0]), same);
        assert_eq!(Distortion::between(&[2.0], &[2.0]), same);
        let lost = Distortion::between(&[0.0], &[1.0]);
        assert_eq!((lost.snr_db, lost.cosine), (f64::NEG_INFINITY, 0.0));
        assert_eq!(Distortion::between(&[1.0], &[0.0]).snr_db, 0.0);
    }

    #[test]
    fn threads_change_nothing() {
        let w: Vec<f32> = (0..200_000).map(|i| (i * 37 % 9973) as f32 / 9973.0).collect();
        let d: Vec<f32> = w.iter().map(|x| (x * 16.0).round() / 16.0).collect();
        let on = |n| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads");
            pool.install(|| Distortion::between(&w, &d))
        };
        assert_eq!(on(1), on(5));
        assert!((on(1).mse - 1.0 / 16.0f64.powi(2) / 12.0).abs() < 1e-5);
    }
}
