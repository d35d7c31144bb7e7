//! K-means of short vectors: seeds far apart, then means of what is nearest (Arthur and Vassilvitskii 2007; Lloyd 1982),
//! and entries that move to where they are worth more (Lattanzi and Sohler 2019).
//!
//! Most of the way is made on samples, in which vectors far out are likelier to be and stand for fewer (Bachem, Lucic and
//! Krause 2018): they are few, but much of the error is theirs. The last of it is made on all vectors. Nothing depends on
//! the number of threads: sums are taken chunk by chunk, and chance is a sequence of fixed numbers.

mod chance;
mod sample;
mod seeds;

use chance::Chance;
use mlconv_tensor::{Simd, WithSimd, vectorized};
use rayon::prelude::*;
use seeds::{exchange, seeds};

/// Vectors that are looked at together: several vector registers, so that one need not wait for the other.
const LANES: usize = 16;

/// Something of [`LANES`] vectors.
type Lanes = [f32; LANES];

/// Each component of [`LANES`] vectors.
type Block<const D: usize> = [Lanes; D];

/// Blocks to a task.
const CHUNK: usize = 8192 / LANES;

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

    /// The entry nearest to each vector of a block, and the errors.
    #[inline(always)]
    fn each_nearest<S: Simd>(&self, simd: S, at: usize, table: &[Entry<D>]) -> ([u32; LANES], Lanes) {
        let block = &self.blocks[at];
        match &self.weights {
            Weights::Equal => nearest(
                block,
                table,
                simd,
                #[inline(always)]
                |_, _, square| square,
            ),
            Weights::Vectors(weights) => {
                let (index, mut far) = nearest(
                    block,
                    table,
                    simd,
                    #[inline(always)]
                    |_, _, square| square,
                );
                (0..LANES).for_each(|lane| far[lane] *= weights[at][lane]);
                (index, far)
            }
            Weights::Components(weights) => nearest(
                block,
                table,
                simd,
                #[inline(always)]
                |k, group, square| simd.mul_f32s(S::as_simd_f32s(&weights[at][k]).0[group], square),
            ),
        }
    }

    /// The entry nearest to each vector; the first of those that are equally near.
    pub(super) fn indices(&self, table: &[Entry<D>], out: &mut [u8]) {
        vectorized(Indices { vectors: self, table, out });
    }

    /// The error of a group of lanes with one entry.
    #[inline(always)]
    fn errors<S: Simd>(&self, simd: S, at: usize, group: usize, entry: &Entry<D>) -> S::f32s {
        let lanes = |block: &Lanes| S::as_simd_f32s(block).0[group];
        let mut far = simd.splat_f32s(0.0);
        for k in 0..D {
            let t = simd.sub_f32s(simd.splat_f32s(entry[k]), lanes(&self.blocks[at][k]));
            let square = simd.mul_f32s(t, t);
            let part = match &self.weights {
                Weights::Equal => square,
                Weights::Vectors(weights) => simd.mul_f32s(lanes(&weights[at]), square),
                Weights::Components(weights) => simd.mul_f32s(lanes(&weights[at][k]), square),
            };
            far = simd.add_f32s(far, part);
        }
        far
    }

    /// The lanes of a block that hold a vector.
    fn lanes(&self, at: usize) -> usize {
        LANES.min(self.len - at * LANES)
    }
}

/// The blocks of a chunk of vectors.
fn blocks_of(chunk: &std::ops::Range<usize>) -> std::ops::Range<usize> {
    chunk.start / LANES..chunk.end.div_ceil(LANES)
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

/// The nearest entry for each lane, where `part` says what the square of a difference counts in a component of a group of
/// lanes.
///
/// The index takes the lowest bits of the error, so that the least of both is one operation: errors that agree in all
/// other bits (15 of the fraction at least) count as equal, and of these the first entry is taken. Errors are not negative,
/// so that their bits are in the order of the numbers, and nothing that is no number is below any.
#[inline(always)]
fn nearest<S: Simd, const D: usize>(
    block: &Block<D>,
    table: &[Entry<D>],
    simd: S,
    part: impl Fn(usize, usize, S::f32s) -> S::f32s,
) -> ([u32; LANES], Lanes) {
    let low = (table.len().next_power_of_two() - 1) as u32;
    let high = simd.splat_u32s(!low);
    let mut keys = [0; LANES];
    for (group, key) in S::as_mut_simd_u32s(&mut keys).0.iter_mut().enumerate() {
        let mut x = [simd.splat_f32s(0.0); D];
        (0..D).for_each(|k| x[k] = S::as_simd_f32s(&block[k]).0[group]);
        let mut least = simd.splat_u32s(f32::MAX.to_bits() & !low);
        for (j, entry) in table.iter().enumerate() {
            let mut far = simd.splat_f32s(0.0);
            for k in 0..D {
                let t = simd.sub_f32s(simd.splat_f32s(entry[k]), x[k]);
                far = simd.add_f32s(far, part(k, group, simd.mul_f32s(t, t)));
            }
            let far = simd.and_u32s(simd.transmute_u32s_f32s(far), high);
            least = simd.min_u32s(least, simd.or_u32s(far, simd.splat_u32s(j as u32)));
        }
        *key = least;
    }
    let (mut index, mut far) = ([0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        (index[lane], far[lane]) = (keys[lane] & low, f32::from_bits(keys[lane] & !low));
    }
    (index, far)
}

/// Writes the indices of the entries nearest to `vectors` to `out`.
struct Indices<'a, const D: usize> {
    vectors: &'a Vectors<D>,
    table: &'a [Entry<D>],
    out: &'a mut [u8],
}

impl<const D: usize> WithSimd for Indices<'_, D> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (at, out) in self.out.chunks_mut(LANES).enumerate().take(self.vectors.blocks.len()) {
            let (index, _) = self.vectors.each_nearest(simd, at, self.table);
            out.iter_mut().zip(index).for_each(|(o, i)| *o = i as u8);
        }
    }
}

/// A table of at most `k` entries whose squared error is low.
pub(super) fn kmeans<const D: usize>(all: &Vectors<D>, k: usize) -> Vec<Entry<D>> {
    let mut chance = Chance(0);
    let large = all.sample((k * 256).max(1 << 16), &mut chance);
    let medium = large.sample((k * 128).max(1 << 14), &mut chance);
    // Where means come to rest is good or bad luck, for heavy tails most: a few tries on samples, until several were in vain.
    let (most, patience) = if k > 64 { (1, 1) } else { (16, 4) };
    let (mut table, mut error, mut failed) = (vec![], f64::INFINITY, 0);
    for _ in 0..most {
        let small = medium.sample((k * 64).max(1 << 12), &mut chance);
        let mut other = seeds(&small, k, &mut chance);
        let before = lloyd(&small, &mut other, 20, 1e-3);
        exchange(&small, &mut other, before, (256 / k).clamp(4, 16), &mut chance);
        // What a sample lacks is found among more vectors.
        other.resize(k, other.first().copied().unwrap_or([0.0; D]));
        let now = lloyd(&medium, &mut other, 20, 1e-3);
        failed = if now < error * 0.9995 { 0 } else { failed + 1 };
        if table.is_empty() || now < error {
            (error, table) = (now, other);
        }
        if failed == patience {
            break;
        }
    }
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

/// Moves entries to the means of what is nearest, at most `rounds` times and until the error falls by less than a part of
/// it; the error before the last move.
fn lloyd<const D: usize>(vectors: &Vectors<D>, table: &mut [Entry<D>], rounds: usize, enough: f64) -> f64 {
    let mut before = f64::INFINITY;
    for _ in 0..rounds {
        let Moments { entries, error } = moments(vectors, table);
        let mut empty = vec![];
        for (j, (entry, sum)) in table.iter_mut().zip(&entries).enumerate() {
            for (x, (vectors, weight)) in entry.iter_mut().zip(sum.vectors.iter().zip(sum.weights)) {
                if weight > 0.0 {
                    *x = (vectors / weight) as f32;
                }
            }
            if sum.weights == [0.0; D] {
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
    let farthest = |mut far: Vec<(usize, f32)>| {
        far.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        // Equal vectors are as far as each other, and one entry is enough for all.
        far.dedup_by(|a, b| a.1 == b.1);
        far.truncate(empty.len());
        far
    };
    let of_chunk = |chunk| farthest(vectorized(Far { vectors, table, chunk }));
    let parts: Vec<Vec<(usize, f32)>> = vectors.chunks().map(of_chunk).collect();
    let far = farthest(parts.concat());
    for (j, (i, _)) in empty.iter().zip(&far) {
        table[*j] = vectors.vector(*i);
    }
    empty.len().min(far.len())
}

/// The vectors of a chunk that have an error, and their errors.
struct Far<'a, const D: usize> {
    vectors: &'a Vectors<D>,
    table: &'a [Entry<D>],
    chunk: std::ops::Range<usize>,
}

impl<const D: usize> WithSimd for Far<'_, D> {
    type Output = Vec<(usize, f32)>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<(usize, f32)> {
        let mut all = vec![];
        for at in blocks_of(&self.chunk) {
            let (_, far) = self.vectors.each_nearest(simd, at, self.table);
            let lanes = far.iter().enumerate().take(self.vectors.lanes(at));
            all.extend(lanes.filter(|(_, x)| **x > 0.0).map(|(lane, x)| (at * LANES + lane, *x)));
        }
        all
    }
}

/// What vectors nearest to each entry sum up to.
struct Moments<const D: usize> {
    entries: Vec<Sum<D>>,
    error: f64,
}

/// The sum of some vectors, each times its weight, and that of the weights.
#[derive(Clone, Copy)]
struct Sum<const D: usize> {
    vectors: [f64; D],
    weights: [f64; D],
}

fn moments<const D: usize>(vectors: &Vectors<D>, table: &[Entry<D>]) -> Moments<D> {
    let part = |chunk| vectorized(OfChunk { vectors, table, chunk });
    let parts: Vec<Moments<D>> = vectors.chunks().map(part).collect();
    parts.into_iter().fold(Moments::of(table.len()), |mut all, part| {
        all.add(&part);
        all
    })
}

impl<const D: usize> Moments<D> {
    fn of(entries: usize) -> Self {
        Self { entries: vec![Sum { vectors: [0.0; D], weights: [0.0; D] }; entries], error: 0.0 }
    }

    fn add(&mut self, other: &Self) {
        self.error += other.error;
        for (a, b) in self.entries.iter_mut().zip(&other.entries) {
            (0..D).for_each(|k| a.vectors[k] += b.vectors[k]);
            (0..D).for_each(|k| a.weights[k] += b.weights[k]);
        }
    }
}

/// Sums up the moments of a chunk.
struct OfChunk<'a, const D: usize> {
    vectors: &'a Vectors<D>,
    table: &'a [Entry<D>],
    chunk: std::ops::Range<usize>,
}

impl<const D: usize> WithSimd for OfChunk<'_, D> {
    type Output = Moments<D>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Moments<D> {
        let Self { vectors, table, chunk } = self;
        let mut m = Moments::of(table.len());
        let mut error = [0f64; LANES];
        for at in blocks_of(&chunk) {
            let (index, mut far) = vectors.each_nearest(simd, at, table);
            let lanes = vectors.lanes(at);
            far[lanes..].fill(0.0);
            (0..LANES).for_each(|lane| error[lane] += f64::from(far[lane]));
            let block = &vectors.blocks[at];
            for (lane, j) in index.iter().enumerate().take(lanes) {
                let sum = &mut m.entries[*j as usize];
                match &vectors.weights {
                    Weights::Equal => {
                        (0..D).for_each(|k| sum.vectors[k] += f64::from(block[k][lane]));
                        sum.weights[0] += 1.0;
                    }
                    Weights::Vectors(weights) => {
                        let w = f64::from(weights[at][lane]);
                        (0..D).for_each(|k| sum.vectors[k] += w * f64::from(block[k][lane]));
                        sum.weights[0] += w;
                    }
                    Weights::Components(weights) => {
                        for k in 0..D {
                            let w = f64::from(weights[at][k][lane]);
                            sum.vectors[k] += w * f64::from(block[k][lane]);
                            sum.weights[k] += w;
                        }
                    }
                }
            }
        }
        if !matches!(vectors.weights, Weights::Components(_)) {
            m.entries.iter_mut().for_each(|sum| sum.weights = [sum.weights[0]; D]);
        }
        m.error = error.iter().sum();
        m
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
