//! How often a value's elements fall where, in memory that does not grow with the samples.

use mlconv_tensor::Tensor;
use rayon::prelude::*;

/// Bins of a histogram, at most: 32 for each of the 256 integers of 8 bits.
const BINS: i64 = 8192;
/// Elements that are counted by one thread.
const PART: usize = 1 << 16;
/// Parts that are counted at once, each in a histogram of its own.
const PARTS: usize = 32;

/// The elements of a value over any number of samples.
///
/// Bins are `[i * 2^e, (i + 1) * 2^e)`, with the least `e` for which [`BINS`] of them reach from the least to the greatest
/// element, and zero. A larger `e` merges bins in pairs, so the same elements give the same bins in any order. Zeros have
/// no bin: there are many of them behind a ReLU, and they need no place on a scale.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    count: u64,
    zeros: u64,
    not_finite: u64,
    min: f64,
    max: f64,
    energy: f64,
    exponent: i32,
    start: i64,
    bins: Vec<u64>,
}

impl Histogram {
    /// Counts the elements of a float tensor.
    pub fn add(&mut self, t: &Tensor) {
        let values = t.to_f32();
        for group in values.chunks(PART * PARTS) {
            let parts: Vec<Self> = group.par_chunks(PART).map(Self::of).collect();
            parts.iter().for_each(|p| self.merge(p));
        }
    }

    /// Of these elements.
    fn of(values: &[f32]) -> Self {
        let mut h = Self::default();
        for x in values.iter().map(|x| f64::from(*x)) {
            if x.is_finite() {
                h.count += 1;
                h.zeros += u64::from(x == 0.0);
                (h.min, h.max) = (h.min.min(x), h.max.max(x));
                h.energy += x * x;
            } else {
                h.not_finite += 1;
            }
        }
        h.lay_out();
        let per_bin = power(-h.exponent);
        for x in values.iter().map(|x| f64::from(*x)).filter(|x| x.is_finite() && *x != 0.0) {
            let i = (x * per_bin).floor() as i64 - h.start;
            if let Some(bin) = usize::try_from(i).ok().and_then(|i| h.bins.get_mut(i)) {
                *bin += 1;
            }
        }
        h
    }

    /// Empty bins for the range.
    fn lay_out(&mut self) {
        if self.min == self.max {
            // Zeros at most.
            return;
        }
        self.exponent = exponent(self.min, self.max);
        let per_bin = power(-self.exponent);
        self.start = (self.min * per_bin).floor() as i64;
        let end = (self.max * per_bin).floor() as i64;
        self.bins = vec![0; (end - self.start + 1).clamp(1, BINS) as usize];
    }

    /// Counts what `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        let mut all = Self {
            count: self.count + other.count,
            zeros: self.zeros + other.zeros,
            not_finite: self.not_finite + other.not_finite,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            energy: self.energy + other.energy,
            ..Self::default()
        };
        all.lay_out();
        for h in [&*self, other] {
            let shift = (all.exponent - h.exponent).clamp(0, 63);
            for (i, n) in h.bins.iter().enumerate().filter(|(_, n)| **n > 0) {
                let at = ((h.start + i as i64) >> shift) - all.start;
                if let Some(bin) = usize::try_from(at).ok().and_then(|at| all.bins.get_mut(at)) {
                    *bin += n;
                }
            }
        }
        *self = all;
    }

    /// Finite elements.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Elements that are exactly zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Elements that are not finite, which have no bin.
    pub fn not_finite(&self) -> u64 {
        self.not_finite
    }

    /// The least element, or 0 where all are greater.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// The greatest element, or 0 where all are less.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The sum of all squares.
    pub fn energy(&self) -> f64 {
        self.energy
    }

    /// The width of a bin.
    pub fn width(&self) -> f64 {
        power(self.exponent)
    }

    /// Each bin that is not empty, from the least: its middle, and its elements.
    pub fn bins(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let width = self.width();
        self.bins.iter().enumerate().filter(|(_, n)| **n > 0).map(move |(i, n)| {
            let middle = ((self.start + i as i64) as f64 + 0.5) * width;
            // The outermost bins reach beyond the elements.
            (middle.clamp(self.min, self.max), *n)
        })
    }

    /// Where `share` of all elements, in `0..=1`, lies below, within the width of a bin.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut left = share * self.count as f64;
        let half = self.width() / 2.0;
        let (below, above): (Vec<_>, Vec<_>) = self.bins().partition(|(x, _)| *x < 0.0);
        for (x, n) in below.into_iter().chain([(0.0, self.zeros)]).chain(above) {
            if n as f64 >= left && n > 0 {
                let edge = if x == 0.0 { 0.0 } else { x - half + 2.0 * half * left / n as f64 };
                return edge.clamp(self.min, self.max);
            }
            left -= n as f64;
        }
        self.max
    }
}

/// The least exponent for which [`BINS`] bins reach from `min` to `max`.
fn exponent(min: f64, max: f64) -> i32 {
    let span = max - min;
    if span <= 0.0 {
        return 0;
    }
    // One less is too little for certain, so that the first that fits is the least.
    let mut e = (span / BINS as f64).log2().floor() as i32 - 1;
    while (max * power(-e)).floor() - (min * power(-e)).floor() >= BINS as f64 {
        e += 1;
    }
    e
}

/// `2^e`, exactly; single precision keeps `e` far from the ends of double precision.
fn power(e: i32) -> f64 {
    f64::from_bits(((i64::from(e) + 1023).clamp(1, 2046) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[f32]) -> Histogram {
        let mut h = Histogram::default();
        h.add(&Tensor::from_vec(&[values.len()], values.to_vec()));
        h
    }

    #[test]
    fn elements_that_are_not_finite_are_counted_apart() {
        let h = of(&[1.0, f32::NAN, f32::INFINITY, -2.0, 0.0]);
        assert_eq!((h.count(), h.not_finite(), h.zeros()), (3, 2, 1));
        assert_eq!((h.min(), h.max(), h.energy()), (-2.0, 1.0, 5.0));
    }

    #[test]
    fn nothing_and_zeros_have_no_bins() {
        for values in [&[][..], &[0.0, -0.0]] {
            let h = of(values);
            assert_eq!((h.bins().count(), h.quantile(0.5), h.zeros()), (0, 0.0, values.len() as u64));
        }
    }

    #[test]
    fn the_least_and_the_greatest_floats_fit() {
        let h = of(&[f32::MAX, f32::MIN, f32::from_bits(1)]);
        assert_eq!(h.bins().map(|(_, n)| n).sum::<u64>(), 3);
        let h = of(&[f32::from_bits(1), -f32::from_bits(1)]);
        assert_eq!((h.bins().count(), h.max()), (2, f64::from(f32::from_bits(1))));
    }

    #[test]
    fn quantiles_count_zeros() {
        let h = of(&[-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 4.0]);
        assert_eq!((h.quantile(0.5), h.quantile(0.0), h.quantile(1.0)), (0.0, -1.0, 4.0));
        assert!((h.quantile(0.8) - 1.0).abs() <= h.width());
        assert!((h.quantile(0.9) - 2.0).abs() <= h.width());
    }

    fn any_float() -> impl Strategy<Value = f32> {
        prop_oneof![any::<f32>().prop_filter("finite", |x| x.is_finite()), -10f32..10.0, Just(0.0)]
    }

    proptest! {
        #[test]
        fn merging_is_counting_all_at_once(parts in prop::collection::vec(prop::collection::vec(any_float(), 0..40), 0..6)) {
            let mut merged = Histogram::default();
            parts.iter().for_each(|p| merged.merge(&of(p)));
            let direct = of(&parts.concat());
            prop_assert!((merged.energy - direct.energy).abs() <= direct.energy * 1e-12);
            merged.energy = direct.energy;
            prop_assert_eq!(merged, direct);
        }

        #[test]
        fn every_element_is_in_a_bin_beside_it(values in prop::collection::vec(any_float(), 1..60)) {
            let h = of(&values);
            let mut sorted: Vec<f64> = values.iter().map(|x| f64::from(*x)).filter(|x| *x != 0.0).collect();
            sorted.sort_by(f64::total_cmp);
            let binned: Vec<f64> = h.bins().flat_map(|(x, n)| std::iter::repeat_n(x, n as usize)).collect();
            prop_assert_eq!(sorted.len(), binned.len());
            for (a, b) in sorted.iter().zip(&binned) {
                prop_assert!((a - b).abs() <= h.width(), "{} {} {}", a, b, h.width());
            }
            prop_assert!(h.bins.len() <= BINS as usize);
        }
    }
}
