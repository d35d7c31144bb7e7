//! Entries to begin with, and entries that are worth more elsewhere.

use super::{Chance, Entry, LANES, Lanes, Vectors, lloyd};
use mlconv_tensor::{Simd, WithSimd, vectorized};

/// What vectors are drawn by: the chance of each, block by block, and the sums up to each block.
struct Chances {
    each: Vec<Lanes>,
    sums: Vec<f64>,
}

impl Chances {
    /// None where there is nothing to draw from.
    fn new(each: Vec<Lanes>) -> Option<Self> {
        let sums = each.iter().scan(0.0, |sum, lanes| {
            *sum += lanes.iter().copied().map(f64::from).sum::<f64>();
            Some(*sum)
        });
        let sums: Vec<f64> = sums.collect();
        sums.last().is_some_and(|all| *all > 0.0 && all.is_finite()).then_some(Self { each, sums })
    }

    /// A vector drawn.
    fn draw<const D: usize>(&self, from: &Vectors<D>, chance: &mut Chance) -> Entry<D> {
        let mut left = chance.below(self.sums.last().copied().unwrap_or(0.0));
        let block = self.sums.partition_point(|sum| *sum <= left).min(self.sums.len().saturating_sub(1));
        left -= if block > 0 { self.sums[block - 1] } else { 0.0 };
        let lanes = self.each[block];
        let mut last = 0;
        for (lane, x) in lanes.iter().enumerate().filter(|(_, x)| **x > 0.0) {
            last = lane;
            left -= f64::from(*x);
            if left < 0.0 {
                break;
            }
        }
        from.vector(block * LANES + last)
    }
}

/// Entries of the sample, each chosen by chance that grows with the error of those before; of a few candidates the best is
/// taken.
pub(super) fn seeds<const D: usize>(sample: &Vectors<D>, k: usize, chance: &mut Chance) -> Vec<Entry<D>> {
    let candidates = 2 + k.ilog2() as usize * 2 / 3;
    let mut table: Vec<Entry<D>> = vec![];
    // What the error of each vector is with the entries so far; before there are any, what it weighs.
    let mut far: Vec<Lanes> = vec![[0.0; LANES]; sample.blocks.len()];
    for i in 0..sample.len {
        far[i / LANES][i % LANES] = sample.weight(i).iter().sum();
    }
    while table.len() < k {
        let Some(chances) = Chances::new(far) else { break };
        let first = table.is_empty();
        let tried = (0..if first { 1 } else { candidates }).map(|_| {
            let entry = chances.draw(sample, chance);
            (if first { 0.0 } else { vectorized(Added { sample, entry, far: &chances.each }) }, entry)
        });
        let Some((_, entry)) = tried.min_by(|a, b| a.0.total_cmp(&b.0)) else { break };
        table.push(entry);
        far = chances.each;
        if first {
            fill(&mut far, f32::MAX, sample.len);
        }
        vectorized(Add { sample, entry, far: &mut far });
    }
    if table.is_empty() {
        table.push([0.0; D]);
    }
    table
}

/// Sums up the errors of a sample, which are `far`, where an entry is added.
struct Added<'a, const D: usize> {
    sample: &'a Vectors<D>,
    entry: Entry<D>,
    far: &'a [Lanes],
}

impl<const D: usize> WithSimd for Added<'_, D> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let mut sums = [0f64; LANES];
        for (at, far) in self.far.iter().enumerate() {
            let mut with = *far;
            for (group, far) in S::as_mut_simd_f32s(&mut with).0.iter_mut().enumerate() {
                *far = simd.min_f32s(self.sample.errors(simd, at, group, &self.entry), *far);
            }
            (0..LANES).for_each(|lane| sums[lane] += f64::from(with[lane]));
        }
        sums.iter().sum()
    }
}

/// Lowers the errors of a sample, which are `far`, to what they are where an entry is added.
struct Add<'a, const D: usize> {
    sample: &'a Vectors<D>,
    entry: Entry<D>,
    far: &'a mut [Lanes],
}

impl<const D: usize> WithSimd for Add<'_, D> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (at, far) in self.far.iter_mut().enumerate() {
            for (group, far) in S::as_mut_simd_f32s(far).0.iter_mut().enumerate() {
                *far = simd.min_f32s(self.sample.errors(simd, at, group, &self.entry), *far);
            }
        }
    }
}

/// Sets the lanes of `len` vectors to `x`, and those that hold none to zero.
fn fill(lanes: &mut [Lanes], x: f32, len: usize) {
    let (vectors, none) = lanes.as_flattened_mut().split_at_mut(len);
    vectors.fill(x);
    none.fill(0.0);
}

/// Moves entries elsewhere, one at a time, where the means that follow have a lower error than `error`, that of the table.
///
/// Means alone never cross a gap between clusters. A vector is drawn by its error, and takes the place of the entry that is
/// missed least beside it.
pub(super) fn exchange<const D: usize>(
    sample: &Vectors<D>,
    table: &mut Vec<Entry<D>>,
    mut error: f64,
    tries: usize,
    chance: &mut Chance,
) {
    /// Exchanges in vain, one after the other, after which no more are tried.
    const PATIENCE: usize = 5;
    let mut near = Near::new(sample, table);
    let mut failed = 0;
    for _ in 0..tries {
        let Some(now) = &near else { return };
        let candidates = (0..3).filter_map(|_| {
            let entry = now.first.draw(sample, chance);
            let (left_out, cost) = now.exchanged(sample, entry, table.len())?;
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
        failed = if now < error * 0.999 { 0 } else { failed + 1 };
        if now < error {
            (error, *table) = (now, other);
            near = Near::new(sample, table);
        }
        if failed == PATIENCE {
            return;
        }
    }
}

/// For each vector the nearest entry, its error with it, and with the second nearest.
struct Near {
    index: Vec<[u32; LANES]>,
    first: Chances,
    second: Vec<Lanes>,
}

impl Near {
    /// None where no vector has an error.
    fn new<const D: usize>(sample: &Vectors<D>, table: &[Entry<D>]) -> Option<Self> {
        let blocks = sample.blocks.len();
        let (mut index, mut first, mut second) =
            (vec![[0; LANES]; blocks], vec![[0.0; LANES]; blocks], vec![[0.0; LANES]; blocks]);
        fill(&mut first, f32::MAX, sample.len);
        fill(&mut second, f32::MAX, sample.len);
        vectorized(TwoNearest { sample, table, index: &mut index, first: &mut first, second: &mut second });
        Some(Self { index, first: Chances::new(first)?, second })
    }

    /// The entry of `entries` that is missed least where one is added, and the error without it.
    fn exchanged<const D: usize>(&self, sample: &Vectors<D>, added: Entry<D>, entries: usize) -> Option<(usize, f64)> {
        let mut missed = vec![0f64; entries];
        let all = vectorized(Exchanged { near: self, sample, added, missed: &mut missed });
        let (at, least) = missed.into_iter().enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some((at, all + least))
    }
}

/// Finds the two entries nearest to each vector; the errors must be as large as any at first.
struct TwoNearest<'a, const D: usize> {
    sample: &'a Vectors<D>,
    table: &'a [Entry<D>],
    index: &'a mut [[u32; LANES]],
    first: &'a mut [Lanes],
    second: &'a mut [Lanes],
}

impl<const D: usize> WithSimd for TwoNearest<'_, D> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let blocks = self.index.iter_mut().zip(self.first).zip(self.second);
        for (at, ((index, first), second)) in blocks.enumerate() {
            let index = S::as_mut_simd_u32s(index).0;
            let errors = S::as_mut_simd_f32s(first).0.iter_mut().zip(S::as_mut_simd_f32s(second).0);
            for (group, (index, (first, second))) in index.iter_mut().zip(errors).enumerate() {
                let (mut nearest, mut one, mut two) = (*index, *first, *second);
                for (j, entry) in self.table.iter().enumerate() {
                    let far = self.sample.errors(simd, at, group, entry);
                    let closer = simd.less_than_f32s(far, one);
                    nearest = simd.select_u32s(closer, simd.splat_u32s(j as u32), nearest);
                    // The second is the lower one of the two that are not the first.
                    two = simd.min_f32s(two, simd.max_f32s(far, one));
                    one = simd.min_f32s(far, one);
                }
                (*index, *first, *second) = (nearest, one, two);
            }
        }
    }
}

/// Sums up the errors of a sample where an entry is added; and for each other by how much they grow without it.
struct Exchanged<'a, const D: usize> {
    near: &'a Near,
    sample: &'a Vectors<D>,
    added: Entry<D>,
    missed: &'a mut [f64],
}

impl<const D: usize> WithSimd for Exchanged<'_, D> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let mut all = [0f64; LANES];
        for (at, (first, second)) in self.near.first.each.iter().zip(&self.near.second).enumerate() {
            let (mut with, mut more) = (*first, *second);
            let errors = S::as_mut_simd_f32s(&mut with).0.iter_mut().zip(S::as_mut_simd_f32s(&mut more).0);
            for (group, (with, more)) in errors.enumerate() {
                let added = self.sample.errors(simd, at, group, &self.added);
                *with = simd.min_f32s(*with, added);
                *more = simd.sub_f32s(simd.min_f32s(*more, added), *with);
            }
            (0..LANES).for_each(|lane| all[lane] += f64::from(with[lane]));
            for (j, more) in self.near.index[at].iter().zip(more) {
                self.missed[*j as usize] += f64::from(more);
            }
        }
        all.iter().sum()
    }
}
