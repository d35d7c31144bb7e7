//! K-means of short vectors: seeds far apart, then means of what is nearest (Arthur and Vassilvitskii 2007; Lloyd 1982).
//!
//! Most of the way is made on samples, the last of it on all vectors. Nothing depends on the number of threads: sums are
//! taken chunk by chunk, and chance is a sequence of fixed numbers.

use rayon::prelude::*;

/// Vectors that are looked at together, a processor's worth.
const LANES: usize = 8;

/// Each component of [`LANES`] vectors.
type Block<const D: usize> = [[f32; LANES]; D];

/// Blocks to a task.
const CHUNK: usize = 1 << 10;

/// Vectors of `D` components.
#[derive(Clone, Debug)]
pub(super) struct Vectors<const D: usize> {
    len: usize,
    /// The last one is filled up with any.
    blocks: Vec<Block<D>>,
    /// What the squared error of each component counts, in blocks that are filled up with 0; none where all count the same.
    weights: Option<Vec<Block<D>>>,
}

/// An entry of a table.
pub(super) type Entry<const D: usize> = [f32; D];

impl<const D: usize> Vectors<D> {
    /// No vectors, with room for some.
    pub(super) fn with_capacity(len: usize, weighted: bool) -> Self {
        let blocks = || Vec::with_capacity(len.div_ceil(LANES));
        Self { len: 0, blocks: blocks(), weights: weighted.then(blocks) }
    }

    /// Adds a vector. The weights are read only where vectors have some.
    pub(super) fn push(&mut self, x: Entry<D>, w: Entry<D>) {
        let lane = self.len % LANES;
        self.len += 1;
        let set = |blocks: &mut Vec<Block<D>>, values: Entry<D>, fill: f32| {
            if lane == 0 {
                blocks.push([[fill; LANES]; D]);
            }
            if let Some(block) = blocks.last_mut() {
                block.iter_mut().zip(values).for_each(|(lanes, x)| lanes[lane] = x);
            }
        };
        set(&mut self.blocks, x, 0.0);
        if let Some(weights) = &mut self.weights {
            set(weights, w, 0.0);
        }
    }

    /// The vectors taken off again, for others.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.blocks.clear();
        if let Some(weights) = &mut self.weights {
            weights.clear();
        }
    }

    fn vector(&self, i: usize) -> (Entry<D>, Entry<D>) {
        let lane = |blocks: &[Block<D>]| blocks[i / LANES].map(|lanes| lanes[i % LANES]);
        (lane(&self.blocks), self.weights.as_deref().map_or([1.0; D], lane))
    }

    /// `count` of the vectors, spread evenly; all where they are no more.
    fn sample(&self, count: usize, chance: &mut Chance) -> Self {
        if count >= self.len {
            return self.clone();
        }
        let mut sample = Self::with_capacity(count, self.weights.is_some());
        for i in 0..count {
            let (start, end) = (i * self.len / count, (i + 1) * self.len / count);
            let (x, w) = self.vector(start + chance.below((end - start) as f64) as usize);
            sample.push(x, w);
        }
        sample
    }

    /// The entry nearest to each vector, and how far it is, squared.
    fn each_nearest(&self, at: usize, table: &[Entry<D>]) -> ([u32; LANES], [f32; LANES]) {
        match &self.weights {
            None => nearest(&self.blocks[at], table, |t, _, _| t * t),
            Some(w) => nearest(&self.blocks[at], table, |t, k, lane| w[at][k][lane] * (t * t)),
        }
    }

    /// The entry nearest to each vector; the first of those that are equally near.
    pub(super) fn indices(&self, table: &[Entry<D>], out: &mut [u8]) {
        for (at, out) in out.chunks_mut(LANES).enumerate().take(self.blocks.len()) {
            let (index, _) = self.each_nearest(at, table);
            out.iter_mut().zip(index).for_each(|(o, i)| *o = i as u8);
        }
    }
}

/// The nearest entry for each lane, where `part` gives what a difference counts in a component of a lane.
#[inline(always)]
fn nearest<const D: usize>(
    block: &Block<D>,
    table: &[Entry<D>],
    part: impl Fn(f32, usize, usize) -> f32,
) -> ([u32; LANES], [f32; LANES]) {
    let (mut index, mut least) = ([0u32; LANES], [f32::MAX; LANES]);
    for (j, entry) in table.iter().enumerate() {
        let mut far = [0f32; LANES];
        for k in 0..D {
            for lane in 0..LANES {
                far[lane] += part(block[k][lane] - entry[k], k, lane);
            }
        }
        for lane in 0..LANES {
            let closer = far[lane] < least[lane];
            index[lane] = if closer { j as u32 } else { index[lane] };
            least[lane] = if closer { far[lane] } else { least[lane] };
        }
    }
    (index, least)
}

/// A table of at most `k` entries whose squared error is low.
pub(super) fn kmeans<const D: usize>(all: &Vectors<D>, k: usize) -> Vec<Entry<D>> {
    /// How much larger each sample is than the one before.
    const GROWTH: usize = 8;
    let mut chance = Chance(0);
    let mut size = (k * 64).max(4096);
    let sample = all.sample(size, &mut chance);
    // Seeds are good or bad luck; a few tries on few vectors cost little.
    let tries = if k > 64 { 2 } else { 8 };
    let seeded = (0..tries).map(|_| {
        let mut table = seeds(&sample, k, &mut chance);
        (lloyd(&sample, &mut table, 30, 1e-3), table)
    });
    let best = seeded.min_by(|a, b| a.0.total_cmp(&b.0));
    let mut table = best.map(|(_, table)| table).unwrap_or_default();
    loop {
        let sample = all.sample(size, &mut chance);
        let last = sample.len == all.len;
        lloyd(&sample, &mut table, 50, if last { 1e-4 } else { 3e-5 });
        if last {
            return table;
        }
        size *= GROWTH;
    }
}

/// Entries of the sample, each chosen by chance that grows with the squared distance to those before; of a few candidates
/// the best is taken.
fn seeds<const D: usize>(sample: &Vectors<D>, k: usize, chance: &mut Chance) -> Vec<Entry<D>> {
    let candidates = 2 + k.ilog2() as usize * 2 / 3;
    let mut table: Vec<Entry<D>> = vec![];
    // What the error of each vector is with the entries so far; before there are any, what it weighs.
    let weight = |i: usize| sample.vector(i).1.iter().sum::<f32>();
    let mut far: Vec<f32> = (0..sample.len).map(weight).collect();
    while table.len() < k {
        let sums: Vec<f64> = far
            .iter()
            .scan(0.0, |sum, x| {
                *sum += f64::from(*x);
                Some(*sum)
            })
            .collect();
        let all = sums.last().copied().unwrap_or(0.0);
        if all <= 0.0 || all.is_nan() {
            break;
        }
        let tries = if table.is_empty() { 1 } else { candidates };
        let tried = (0..tries).map(|_| {
            let at = chance.below(all);
            let i = sums.partition_point(|sum| *sum <= at).min(sample.len - 1);
            let entry = sample.vector(i).0;
            let mut with: Vec<f32> = Vec::with_capacity(far.len() + LANES);
            for block in 0..sample.blocks.len() {
                with.extend(sample.each_nearest(block, &[entry]).1);
            }
            with.truncate(sample.len);
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
        table[*j] = vectors.vector(*i).0;
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
    let part = |chunk: usize| {
        let mut m = zero();
        let mut counts = vec![0u32; table.len()];
        for at in chunk * CHUNK..((chunk + 1) * CHUNK).min(vectors.blocks.len()) {
            let (index, far) = vectors.each_nearest(at, table);
            let lanes = LANES.min(vectors.len - at * LANES);
            for lane in 0..lanes {
                let j = index[lane] as usize;
                m.error += f64::from(far[lane]);
                let x = vectors.blocks[at].map(|lanes| f64::from(lanes[lane]));
                match &vectors.weights {
                    None => {
                        counts[j] += 1;
                        (0..D).for_each(|k| m.sums[j][k] += x[k]);
                    }
                    Some(w) => {
                        for k in 0..D {
                            let w = f64::from(w[at][k][lane]);
                            m.sums[j][k] += w * x[k];
                            m.weights[j][k] += w;
                        }
                    }
                }
            }
        }
        for (weight, count) in m.weights.iter_mut().zip(counts) {
            weight.iter_mut().for_each(|w| *w += f64::from(count));
        }
        m
    };
    let parts: Vec<Moments<D>> = (0..vectors.blocks.len().div_ceil(CHUNK)).into_par_iter().map(part).collect();
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
    /// A number in `0..end`.
    fn below(&mut self, end: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 * end
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
