//! A few vectors that stand for all.

use super::{Chance, Entry, LANES, Vectors, Weights, blocks_of};
use mlconv_tensor::{Simd, WithSimd, vectorized};
use rayon::prelude::*;
use std::{borrow::Cow, ops::Range};

impl<const D: usize> Vectors<D> {
    /// About `count` of the vectors that stand for all; all where they are no more.
    ///
    /// The chance of a vector is half its share of the weight and half its share of the error around a mean, and the
    /// vectors of each of `count` equal parts of chance are drawn once, so that all places of a tensor are among them.
    pub(super) fn sample(&self, count: usize, chance: &mut Chance) -> Cow<'_, Self> {
        /// Vectors whose mean is good enough.
        const FEW: usize = 1 << 12;
        if count >= self.len {
            return Cow::Borrowed(self);
        }
        let (mut sum, mut weight) = ([0f64; D], [0f64; D]);
        for i in (0..self.len).step_by(self.len.div_ceil(FEW)) {
            let (x, w) = (self.vector(i), self.weight(i));
            for k in 0..D {
                sum[k] += f64::from(x[k]) * f64::from(w[k]);
                weight[k] += f64::from(w[k]);
            }
        }
        let mean: Entry<D> = std::array::from_fn(|k| if weight[k] > 0.0 { (sum[k] / weight[k]) as f32 } else { 0.0 });
        let add = |a: (f64, f64), b: (f64, f64)| (a.0 + b.0, a.1 + b.1);
        let share = |chunk| vectorized(Spread { vectors: self, mean: &mean, chunk });
        let sums: Vec<(f64, f64)> = self.chunks().map(share).collect();
        let all = sums.iter().copied().fold((0.0, 0.0), add);
        let part = |sum: f64| if sum > 0.0 { count as f64 / 2.0 / sum } else { 0.0 };
        let parts = (part(all.0), part(all.1));
        let starts = sums.iter().scan(0.0, |at, sum| {
            let start = *at;
            *at += sum.0 * parts.0 + sum.1 * parts.1;
            Some(start)
        });
        let starts: Vec<f64> = starts.collect();
        let seed = chance.next();
        // Where in each part of chance the vector lies that is drawn.
        let place = |part: u64| part as f64 + Chance(seed.wrapping_add(part)).below(1.0);
        let drawn = self.chunks().zip(&starts).map(|(chunk, start)| {
            let mut drawn = vec![];
            let (mut at, mut next) = (*start, *start as u64);
            if place(next) < at {
                next += 1;
            }
            let mut goal = place(next);
            let first = chunk.start / LANES;
            let shares = vectorized(Shares { vectors: self, mean: &mean, chunk, parts });
            for (block, shares) in shares.into_iter().enumerate() {
                for (lane, share) in shares.into_iter().enumerate() {
                    at += share;
                    // Bounded, so that a share beyond all measure ends as well.
                    let mut times = 0u32;
                    while times < 1 << 16 && goal < at {
                        next += 1;
                        times += 1;
                        goal = place(next);
                    }
                    if times > 0 {
                        drawn.push(((first + block) * LANES + lane, f64::from(times) / share));
                    }
                }
            }
            drawn
        });
        let drawn: Vec<Vec<(usize, f64)>> = drawn.collect();
        let mut sample = Self::with_capacity(count, matches!(self.weights, Weights::Components(_)));
        if !matches!(self.weights, Weights::Components(_)) {
            sample.weights = Weights::Vectors(Vec::with_capacity(count.div_ceil(LANES)));
        }
        for (i, stands_for) in drawn.into_iter().flatten() {
            sample.push(
                self.vector(i),
                self.weight(i).map(|w| (f64::from(w) * stands_for).min(f64::from(f32::MAX)) as f32),
            );
        }
        Cow::Owned(sample)
    }

    /// What each vector of a block weighs, and its error with `entry`; nothing where there are no vectors.
    #[inline(always)]
    fn spread(&self, at: usize, entry: &Entry<D>) -> ([f64; LANES], [f64; LANES]) {
        let block = &self.blocks[at];
        let (mut weights, mut errors) = ([0f64; LANES], [0f64; LANES]);
        for k in 0..D {
            for lane in 0..LANES {
                let w = f64::from(match &self.weights {
                    Weights::Equal => 1.0,
                    Weights::Vectors(weights) => weights[at][lane],
                    Weights::Components(weights) => weights[at][k][lane],
                });
                let far = f64::from(block[k][lane] - entry[k]);
                weights[lane] += w;
                errors[lane] += w * (far * far);
            }
        }
        let lanes = self.lanes(at);
        weights[lanes..].fill(0.0);
        errors[lanes..].fill(0.0);
        (weights, errors)
    }
}

/// Sums up what the vectors of a chunk weigh, and their errors with a mean.
struct Spread<'a, const D: usize> {
    vectors: &'a Vectors<D>,
    mean: &'a Entry<D>,
    chunk: Range<usize>,
}

impl<const D: usize> WithSimd for Spread<'_, D> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f64, f64) {
        let (mut weights, mut errors) = ([0f64; LANES], [0f64; LANES]);
        for at in blocks_of(&self.chunk) {
            let (w, far) = self.vectors.spread(at, self.mean);
            (0..LANES).for_each(|lane| weights[lane] += w[lane]);
            (0..LANES).for_each(|lane| errors[lane] += far[lane]);
        }
        (weights.iter().sum(), errors.iter().sum())
    }
}

/// The share of each vector of a chunk: parts of what it weighs, and of its error with a mean.
struct Shares<'a, const D: usize> {
    vectors: &'a Vectors<D>,
    mean: &'a Entry<D>,
    chunk: Range<usize>,
    parts: (f64, f64),
}

impl<const D: usize> WithSimd for Shares<'_, D> {
    type Output = Vec<[f64; LANES]>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<[f64; LANES]> {
        let blocks = blocks_of(&self.chunk);
        let mut all = vec![[0.0; LANES]; blocks.len()];
        for (shares, at) in all.iter_mut().zip(blocks) {
            let (w, far) = self.vectors.spread(at, self.mean);
            (0..LANES).for_each(|lane| shares[lane] = w[lane] * self.parts.0 + far[lane] * self.parts.1);
        }
        all
    }
}
