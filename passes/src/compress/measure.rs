//! How far a decoded weight is from the weight.

use rayon::prelude::*;

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
        // Parts of one size are added in order, so that threads change nothing.
        let parts: Vec<Self> =
            weight.par_chunks(PART).zip(decoded.par_chunks(PART)).map(|(w, d)| Self::of(w, d)).collect();
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

    fn of(weight: &[f32], decoded: &[f32]) -> Self {
        let mut lanes = [Self::default(); LANES];
        for (w, d) in weight.chunks(LANES).zip(decoded.chunks(LANES)) {
            for ((lane, w), d) in lanes.iter_mut().zip(w).zip(d) {
                let (w, d) = (f64::from(*w), f64::from(*d));
                let e = w - d;
                lane.count += 1;
                lane.weight += w * w;
                lane.decoded += d * d;
                lane.product += w * d;
                lane.noise += e * e;
                lane.max_abs = lane.max_abs.max(e.abs());
            }
        }
        let mut sums = Self::default();
        lanes.iter().for_each(|lane| sums.join(lane));
        sums
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
const PART: usize = 1 << 15;
const LANES: usize = 4;

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
