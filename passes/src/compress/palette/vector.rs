//! K-means of short vectors: seeds far apart, then means of what is nearest (Arthur and Vassilvitskii 2007; Lloyd 1982),
//! and entries that move to where they are worth more (Lattanzi and Sohler 2019).
//!
//! Most of the way is made on samples, in which vectors far out are likelier to be and stand for fewer (Bachem, Lucic and
//! Krause 2018): they are few, but much of the error is theirs. The last of it is made on all vectors. Nothing depends on
//! the number of threads: sums are taken chunk by chunk, and chance is a sequence of fixed numbers.

use rayon::prelude::*;
use std::borrow::Cow;

/// Vectors that are looked at together, a processor's worth.
const LANES: usize = 8;

/// Something of [`LANES`] vectors.
type Lanes = [f32; LANES];

/// Each component of [`LANES`] vectors.
type Block<const D: usize> = [Lanes; D];

/// Blocks to a task.
const CHUNK: usize = 1 << 10;

/// Vectors of `D` components.
#[derive(Clone, Debug)]
pub(super) struct Vectors<const D: usize> {
    len: usize,
    /// The last one is filled up with zeros.
    blocks: Vec<Block<D>>,
    weights: Weights<D>,
}

/// What the squared error of vectors counts, in blocks that are filled up with 0.
#[derive(Clone, Debug)]
enum Weights<const D: usize> {
    /// The same for all.
    Equal,
    /// For each vector.
    Vectors(Vec<Lanes>),
    /// For each component of each vector.
    Components(Vec<Block<D>>),
}

/// An entry of a table.
pub(super) type Entry<const D: usize> = [f32; D];

impl<const D: usize> Vectors<D> {
    /// No vectors, with room for some.
    pub(super) fn with_capacity(len: usize, weighted: bool) -> Self {
        let blocks = || Vec::with_capacity(len.div_ceil(LANES));
        Self {
            len: 0,
            blocks: blocks(),
            weights: if weighted { Weights::Components(blocks()) } else { Weights::Equal },
        }
    }

    /// Adds a vector. The weights are read only where vectors have some; the first where components have none of their own.
    #[inline]
    pub(super) fn push(&mut self, x: Entry<D>, w: Entry<D>) {
        let lane = self.len % LANES;
        self.len += 1;
        set(&mut self.blocks, lane, x);
        match &mut self.weights {
            Weights::Equal => {}
            Weights::Vectors(weights) => {
                if lane == 0 {
                    weights.push([0.0; LANES]);
                }
                weights.last_mut().into_iter().for_each(|lanes| lanes[lane] = w[0]);
            }
            Weights::Components(weights) => set(weights, lane, w),
        }
    }

    /// The vectors taken off again, for others.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.blocks.clear();
        match &mut self.weights {
            Weights::Equal => {}
            Weights::Vectors(weights) => weights.clear(),
            Weights::Components(weights) => weights.clear(),
        }
    }

    /// The vectors of which a component weighs more than nothing.
    pub(super) fn counted(&self) -> impl Iterator<Item = Entry<D>> {
        (0..self.len).filter(|i| self.weight(*i).iter().any(|w| *w > 0.0)).map(|i| self.vector(i))
    }

    fn vector(&self, i: usize) -> Entry<D> {
        self.blocks[i / LANES].map(|lanes| lanes[i % LANES])
    }

    fn weight(&self, i: usize) -> Entry<D> {
        match &self.weights {
            Weights::Equal => [1.0; D],
            Weights::Vectors(weights) => [weights[i / LANES][i % LANES]; D],
            Weights::Components(weights) => weights[i / LANES].map(|lanes| lanes[i % LANES]),
        }
    }

    /// The indices of vectors in each chunk of blocks.
    fn chunks(&self) -> impl IndexedParallelIterator<Item = std::ops::Range<usize>> {
        let chunk = CHUNK * LANES;
        (0..self.len.div_ceil(chunk)).into_par_iter().map(move |c| c * chunk..((c + 1) * chunk).min(self.len))
    }

    /// About `count` of the vectors that stand for all; all where they are no more.
    ///
    /// The chance of a vector is half its share of the weight and half its share of the error around a mean, and the
    /// vectors of each of `count` equal parts of chance are drawn once, so that all places of a tensor are among them.
    fn sample(&self, count: usize, chance: &mut Chance) -> Cow<'_, Self> {
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
        // What a vector weighs, and its error.
        let measure = |i: usize| {
            let (x, w) = (self.vector(i), self.weight(i));
            (0..D).fold((0.0, 0.0), |a, k| {
                let (w, far) = (f64::from(w[k]), f64::from(x[k] - mean[k]));
                (a.0 + w, a.1 + w * far * far)
            })
        };
        let add = |a: (f64, f64), b: (f64, f64)| (a.0 + b.0, a.1 + b.1);
        let sums: Vec<(f64, f64)> = self.chunks().map(|c| c.map(measure).fold((0.0, 0.0), add)).collect();
        let all = sums.iter().copied().fold((0.0, 0.0), add);
        let part = |sum: f64| if sum > 0.0 { count as f64 / 2.0 / sum } else { 0.0 };
        let parts = (part(all.0), part(all.1));
        let share = |of: (f64, f64)| of.0 * parts.0 + of.1 * parts.1;
        let starts = sums.iter().scan(0.0, |at, sum| {
            let start = *at;
            *at += share(*sum);
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
            for i in chunk {
                let share = share(measure(i));
                at += share;
                let mut times = 0u32;
                while times < 1 << 16 && place(next) < at {
                    next += 1;
                    times += 1;
                }
                if times > 0 {
                    drawn.push((i, f64::from(times) / share));
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

    /// The entry nearest to each vector of a block, and the errors.
    fn each_nearest(&self, at: usize, table: &[Entry<D>]) -> ([u32; LANES], Lanes) {
        match &self.weights {
            Weights::Equal => nearest(&self.blocks[at], table, |t, _, _| t * t),
            Weights::Vectors(weights) => {
                let (index, far) = nearest(&self.blocks[at], table, |t, _, _| t * t);
                (index, std::array::from_fn(|lane| far[lane] * weights[at][lane]))
            }
            Weights::Components(w) => nearest(&self.blocks[at], table, |t, k, lane| w[at][k][lane] * (t * t)),
        }
    }

    /// The entry nearest to each vector; the first of those that are equally near.
    pub(super) fn indices(&self, table: &[Entry<D>], out: &mut [u8]) {
        for (at, out) in out.chunks_mut(LANES).enumerate().take(self.blocks.len()) {
            let (index, _) = self.each_nearest(at, table);
            out.iter_mut().zip(index).for_each(|(o, i)| *o = i as u8);
        }
    }

    /// The error of each vector with one entry.
    fn errors(&self, entry: Entry<D>) -> Vec<f32> {
        let mut errors = Vec::with_capacity(self.blocks.len() * LANES);
        for (at, block) in self.blocks.iter().enumerate() {
            let mut far = [0f32; LANES];
            for k in 0..D {
                let w = match &self.weights {
                    Weights::Equal => &[1.0; LANES],
                    Weights::Vectors(weights) => &weights[at],
                    Weights::Components(weights) => &weights[at][k],
                };
                (0..LANES).for_each(|lane| far[lane] += w[lane] * (entry[k] - block[k][lane]).powi(2));
            }
            errors.extend(far);
        }
        errors.truncate(self.len);
        errors
    }
}

/// Writes a vector into a lane of the last block, the first into a new one.
#[inline]
fn set<const D: usize>(blocks: &mut Vec<Block<D>>, lane: usize, values: Entry<D>) {
    if lane == 0 {
        blocks.push([[0.0; LANES]; D]);
    }
    if let Some(block) = blocks.last_mut() {
        block.iter_mut().zip(values).for_each(|(lanes, x)| lanes[lane] = x);
    }
}

/// The nearest entry for each lane, where `part` gives what a difference counts in a component of a lane.
///
/// The index takes the lowest bits of the error, so that the least of both is one operation: errors that agree in all
/// other bits (15 of the fraction at least) count as equal, and of these the first entry is taken.
#[expect(clippy::inline_always, reason = "what `part` computes must be vectorized with the loops around it")]
#[inline(always)]
fn nearest<const D: usize>(
    block: &Block<D>,
    table: &[Entry<D>],
    part: impl Fn(f32, usize, usize) -> f32,
) -> ([u32; LANES], Lanes) {
    let low = (table.len().next_power_of_two() - 1) as u32;
    let mut least = [f32::from_bits(f32::MAX.to_bits() & !low); LANES];
    for (j, entry) in table.iter().enumerate() {
        let mut far = [0f32; LANES];
        for k in 0..D {
            for lane in 0..LANES {
                far[lane] += part(entry[k] - block[k][lane], k, lane);
            }
        }
        for lane in 0..LANES {
            let far = f32::from_bits(far[lane].to_bits() & !low | j as u32);
            // Nothing that is not a number is below any.
            least[lane] = if far < least[lane] { far } else { least[lane] };
        }
    }
    (least.map(|x| x.to_bits() & low), least.map(|x| f32::from_bits(x.to_bits() & !low)))
}

/// A table of at most `k` entries whose squared error is low.
pub(super) fn kmeans<const D: usize>(all: &Vectors<D>, k: usize) -> Vec<Entry<D>> {
    let mut chance = Chance(0);
    let large = all.sample((k * 256).max(1 << 16), &mut chance);
    let medium = large.sample((k * 128).max(1 << 14), &mut chance);
    // Where means come to rest is good or bad luck, for heavy tails most; a few tries on samples cost little.
    let tries = if k > 64 { 1 } else { 4 };
    let tried = (0..tries).map(|_| {
        let small = medium.sample((k * 64).max(1 << 12), &mut chance);
        let mut table = seeds(&small, k, &mut chance);
        let error = lloyd(&small, &mut table, 20, 1e-3);
        exchange(&small, &mut table, error, (256 / k).clamp(4, 16), &mut chance);
        // What a sample lacks is found among more vectors.
        table.resize(k, table.first().copied().unwrap_or([0.0; D]));
        (lloyd(&medium, &mut table, 20, 1e-3), table)
    });
    let best = tried.min_by(|a, b| a.0.total_cmp(&b.0));
    let (_, mut table) = best.unwrap_or_default();
    lloyd(&large, &mut table, 20, 1e-4);
    if large.len < all.len {
        lloyd(all, &mut table, 4, 3e-4);
    }
    let mut distinct: Vec<Entry<D>> = Vec::with_capacity(k);
    table.into_iter().for_each(|entry| {
        if !distinct.contains(&entry) {
            distinct.push(entry);
        }
    });
    distinct
}

/// The place of a vector drawn by chance that grows with its error, of which `sums` holds the sums up to each.
fn drawn(sums: &[f64], chance: &mut Chance) -> usize {
    let at = chance.below(sums.last().copied().unwrap_or(0.0));
    sums.partition_point(|sum| *sum <= at).min(sums.len().saturating_sub(1))
}

/// The sums up to each; none where there is nothing to draw from.
fn sums_of(errors: &[f32]) -> Option<Vec<f64>> {
    let sums = errors.iter().scan(0.0, |sum, x| {
        *sum += f64::from(*x);
        Some(*sum)
    });
    let sums: Vec<f64> = sums.collect();
    sums.last().is_some_and(|all| *all > 0.0 && all.is_finite()).then_some(sums)
}

/// Entries of the sample, each chosen by chance that grows with the error of those before; of a few candidates the best is
/// taken.
fn seeds<const D: usize>(sample: &Vectors<D>, k: usize, chance: &mut Chance) -> Vec<Entry<D>> {
    let candidates = 2 + k.ilog2() as usize * 2 / 3;
    let mut table: Vec<Entry<D>> = vec![];
    // What the error of each vector is with the entries so far; before there are any, what it weighs.
    let mut far: Vec<f32> = (0..sample.len).map(|i| sample.weight(i).iter().sum()).collect();
    while table.len() < k {
        let Some(sums) = sums_of(&far) else { break };
        let tries = if table.is_empty() { 1 } else { candidates };
        let tried = (0..tries).map(|_| {
            let entry = sample.vector(drawn(&sums, chance));
            let mut with = sample.errors(entry);
            if !table.is_empty() {
                with.iter_mut().zip(&far).for_each(|(a, b)| *a = a.min(*b));
            }
            (with.iter().map(|x| f64::from(*x)).sum::<f64>(), entry, with)
        });
        let Some((_, entry, with)) = tried.min_by(|a, b| a.0.total_cmp(&b.0)) else { break };
        table.push(entry);
        far = with;
    }
    if table.is_empty() {
        table.push([0.0; D]);
    }
    table
}

/// Moves entries elsewhere, one at a time, where the means that follow have a lower error than `error`, that of the table.
///
/// Means alone never cross a gap between clusters. A vector is drawn by its error, and takes the place of the entry that is
/// missed least beside it.
fn exchange<const D: usize>(
    sample: &Vectors<D>,
    table: &mut Vec<Entry<D>>,
    mut error: f64,
    tries: usize,
    chance: &mut Chance,
) {
    let mut near = Near::new(sample, table);
    for _ in 0..tries {
        let Some(sums) = sums_of(&near.first) else { return };
        let candidates = (0..3).filter_map(|_| {
            let entry = sample.vector(drawn(&sums, chance));
            let (left_out, cost) = near.exchanged(&sample.errors(entry), table.len())?;
            Some((cost, left_out, entry))
        });
        let Some((_, left_out, entry)) = candidates.min_by(|a, b| a.0.total_cmp(&b.0)) else { return };
        let mut other = table.clone();
        other[left_out] = entry;
        // Most exchanges show soon that they gain nothing.
        let mut now = lloyd(sample, &mut other, 5, 1e-3);
        if now < error * 1.01 {
            now = lloyd(sample, &mut other, 10, 1e-3);
        }
        if now < error {
            (error, *table) = (now, other);
            near = Near::new(sample, table);
        }
    }
}

/// For each vector the nearest entry, its error with it, and with the second nearest.
struct Near {
    index: Vec<u32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Near {
    fn new<const D: usize>(sample: &Vectors<D>, table: &[Entry<D>]) -> Self {
        let mut near =
            Self { index: vec![0; sample.len], first: vec![f32::MAX; sample.len], second: vec![f32::MAX; sample.len] };
        for (j, entry) in table.iter().enumerate() {
            for (i, far) in sample.errors(*entry).into_iter().enumerate() {
                let (first, second) = (near.first[i], near.second[i]);
                let closer = far < first;
                near.index[i] = if closer { j as u32 } else { near.index[i] };
                near.second[i] = if closer { first } else { second.min(far) };
                near.first[i] = first.min(far);
            }
        }
        near
    }

    /// The entry of `entries` that is missed least where one with these errors is added, and the error without it.
    fn exchanged(&self, added: &[f32], entries: usize) -> Option<(usize, f64)> {
        let mut missed = vec![0f64; entries];
        let mut all = 0.0;
        for (((index, first), second), added) in self.index.iter().zip(&self.first).zip(&self.second).zip(added) {
            let (with, without) = (first.min(*added), second.min(*added));
            all += f64::from(with);
            missed[*index as usize] += f64::from(without - with);
        }
        let (at, least) = missed.into_iter().enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some((at, all + least))
    }
}

/// Moves entries to the means of what is nearest, at most `rounds` times and until the error falls by less than a part of
/// it; the error before the last move.
fn lloyd<const D: usize>(vectors: &Vectors<D>, table: &mut [Entry<D>], rounds: usize, enough: f64) -> f64 {
    let mut before = f64::INFINITY;
    for _ in 0..rounds {
        let Moments { sums, weights, error } = moments(vectors, table);
        let mut empty = vec![];
        for (j, entry) in table.iter_mut().enumerate() {
            for k in 0..D {
                if weights[j][k] > 0.0 {
                    entry[k] = (sums[j][k] / weights[j][k]) as f32;
                }
            }
            if weights[j] == [0.0; D] {
                empty.push(j);
            }
        }
        let moved = if empty.is_empty() { 0 } else { reseed(vectors, table, &empty) };
        if moved == 0 && before - error <= enough * error {
            return error;
        }
        before = error;
    }
    before
}

/// Moves entries that nothing is nearest to to where the error is the largest; how many have moved.
fn reseed<const D: usize>(vectors: &Vectors<D>, table: &mut [Entry<D>], empty: &[usize]) -> usize {
    let far = (0..vectors.blocks.len()).into_par_iter().flat_map_iter(|at| vectors.each_nearest(at, table).1);
    let mut far: Vec<(usize, f32)> = far.collect::<Vec<_>>().into_iter().take(vectors.len).enumerate().collect();
    far.retain(|(_, x)| *x > 0.0);
    far.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    // Equal vectors are as far as each other, and one entry is enough for all.
    far.dedup_by(|a, b| a.1 == b.1);
    for (j, (i, _)) in empty.iter().zip(&far) {
        table[*j] = vectors.vector(*i);
    }
    empty.len().min(far.len())
}

/// What vectors nearest to each entry sum up to.
struct Moments<const D: usize> {
    sums: Vec<[f64; D]>,
    weights: Vec<[f64; D]>,
    error: f64,
}

fn moments<const D: usize>(vectors: &Vectors<D>, table: &[Entry<D>]) -> Moments<D> {
    let zero = || Moments { sums: vec![[0.0; D]; table.len()], weights: vec![[0.0; D]; table.len()], error: 0.0 };
    let part = |chunk: std::ops::Range<usize>| {
        let mut m = zero();
        // What is the same for all components of an entry.
        let mut common = vec![0f64; table.len()];
        for at in chunk.start / LANES..chunk.end.div_ceil(LANES) {
            let (index, mut far) = vectors.each_nearest(at, table);
            let lanes = LANES.min(vectors.len - at * LANES);
            far[lanes..].fill(0.0);
            m.error += f64::from(far.iter().sum::<f32>());
            let block = &vectors.blocks[at];
            let index = &index[..lanes];
            match &vectors.weights {
                Weights::Equal => {
                    let x = block.map(|lanes| lanes.map(f64::from));
                    for (lane, j) in index.iter().enumerate() {
                        let j = *j as usize;
                        common[j] += 1.0;
                        (0..D).for_each(|k| m.sums[j][k] += x[k][lane]);
                    }
                }
                Weights::Vectors(weights) => {
                    let w = weights[at].map(f64::from);
                    let x = block.map(|lanes| lanes.map(f64::from));
                    for (lane, j) in index.iter().enumerate() {
                        let j = *j as usize;
                        common[j] += w[lane];
                        (0..D).for_each(|k| m.sums[j][k] += w[lane] * x[k][lane]);
                    }
                }
                Weights::Components(weights) => {
                    let w = weights[at].map(|lanes| lanes.map(f64::from));
                    let x = block.map(|lanes| lanes.map(f64::from));
                    for (lane, j) in index.iter().enumerate() {
                        let j = *j as usize;
                        for k in 0..D {
                            m.sums[j][k] += w[k][lane] * x[k][lane];
                            m.weights[j][k] += w[k][lane];
                        }
                    }
                }
            }
        }
        for (weight, common) in m.weights.iter_mut().zip(common) {
            weight.iter_mut().for_each(|w| *w += common);
        }
        m
    };
    let parts: Vec<Moments<D>> = vectors.chunks().map(part).collect();
    let mut all = zero();
    for part in parts {
        all.error += part.error;
        for j in 0..table.len() {
            for k in 0..D {
                all.sums[j][k] += part.sums[j][k];
                all.weights[j][k] += part.weights[j][k];
            }
        }
    }
    all
}

/// A fixed sequence of numbers that look random (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..end`.
    fn below(&mut self, end: f64) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 * end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors<const D: usize>(values: impl IntoIterator<Item = Entry<D>>) -> Vectors<D> {
        let mut v = Vectors::with_capacity(0, false);
        values.into_iter().for_each(|x| v.push(x, [1.0; D]));
        v
    }

    #[test]
    fn finds_clusters_that_lie_apart() {
        let mut chance = Chance(7);
        let corners: Vec<[f32; 3]> =
            (0..8).map(|i| [i & 1, i >> 1 & 1, i >> 2].map(|b| b as f32 * 8.0 - 4.0)).collect();
        let near = |i: usize| corners[i % 8].map(|c| c + chance.below(1.0) as f32 - 0.5);
        let v = vectors((0..5000).map(near));
        let table = kmeans(&v, 8);
        for corner in corners {
            let near = |entry: &[f32; 3]| entry.iter().zip(corner).all(|(a, b)| (a - b).abs() < 0.1);
            assert!(table.iter().any(near), "{table:?} for {corner:?}");
        }
    }

    #[test]
    fn distinct_vectors_that_are_few_are_the_table() {
        let v = vectors((0..100).map(|i| [(i % 3) as f32, 1.0]));
        let mut table = kmeans(&v, 16);
        table.sort_by(|a, b| a[0].total_cmp(&b[0]));
        assert_eq!(table, [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]);
        assert_eq!(kmeans(&vectors([[0.0; 2]; 9]), 4), [[0.0; 2]]);
        assert_eq!(kmeans(&vectors::<2>([]), 4), [[0.0; 2]]);
    }

    #[test]
    fn entries_that_nothing_is_near_move() {
        let v = vectors((0..64).map(|i| [i as f32, 0.0]));
        let mut table = vec![[10.0, 0.0], [1e6, 0.0], [50.0, 0.0], [-1e6, 1.0]];
        lloyd(&v, &mut table, 100, 0.0);
        assert!(table.iter().all(|e| (0.0..64.0).contains(&e[0])), "{table:?}");
    }

    #[test]
    fn few_vectors_far_out_get_entries() {
        let mut chance = Chance(3);
        let corners: Vec<[f32; 2]> = (0..8).map(|i| [(i as f32).cos() * 1000.0, (i as f32).sin() * 1000.0]).collect();
        // No sample of even chance would hold one of each.
        let far = |i: usize| if i % 20_000 == 7 { Some(corners[i / 20_000 % 8]) } else { None };
        let near = |chance: &mut Chance| [0; 2].map(|_| chance.below(2.0) as f32 - 1.0);
        let v = vectors((0..320_000).map(|i| far(i).unwrap_or_else(|| near(&mut chance))));
        let table = kmeans(&v, 16);
        for corner in corners {
            assert!(table.contains(&corner), "{table:?} for {corner:?}");
        }
    }

    #[test]
    fn samples_stand_for_all() {
        let mut chance = Chance(5);
        let v = vectors((0..100_000).map(|_| [chance.below(1.0) as f32, 1.0 / (chance.below(1.0) as f32 + 0.01)]));
        let sample = v.sample(4096, &mut chance);
        let sum = |v: &Vectors<2>, of: &dyn Fn(Entry<2>) -> f32| {
            (0..v.len).map(|i| f64::from(v.weight(i)[0] * of(v.vector(i)))).sum::<f64>()
        };
        let moments: [&dyn Fn(Entry<2>) -> f32; 3] = [&|_| 1.0, &|x| x[0], &|x| x[1] * x[1]];
        for of in moments {
            let (found, want) = (sum(&sample, of), sum(&v, of));
            assert!((found / want - 1.0).abs() < 0.03, "{found} for {want}");
        }
    }

    #[test]
    fn weights_draw_entries() {
        let mut v = Vectors::with_capacity(3, true);
        v.push([0.0, 0.0], [1.0, 3.0]);
        v.push([1.0, 1.0], [1.0, 1.0]);
        v.push([100.0, 100.0], [0.0, 0.0]);
        let mut table = vec![[0.3, 0.3]];
        lloyd(&v, &mut table, 10, 0.0);
        assert_eq!(table, [[0.5, 0.25]]);
    }
}
