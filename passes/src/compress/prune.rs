//! Weights of which many elements are zero.

use super::{Refusal, weight};
use mlconv_tensor::{Bytes, DType, Tensor, f16, pack_bits, unpack_bits};
use rayon::prelude::*;

/// Which elements to drop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pruning {
    /// This share of the elements, those of the least magnitude.
    Sparsity(f64),
    /// The elements of no more than this magnitude.
    Threshold(f64),
    /// `n` of each `m` consecutive elements along an axis, those of the least magnitude. Elements that an axis lacks for the
    /// last `m` count as zeros, which are dropped first.
    NofM {
        /// How many to drop.
        n: usize,
        /// Of how many.
        m: usize,
        /// Along which axis.
        axis: usize,
    },
    /// This share of the elements or just above, in runs of `size` along an axis, those of the least Euclidean norm.
    Block {
        /// The share.
        sparsity: f64,
        /// The length of a run; the last of an axis may be shorter.
        size: usize,
        /// Along which axis.
        axis: usize,
    },
}

/// Which elements of `w` stay. Those that are zero already never do.
///
/// A share is rounded to a number of elements as a percentile is, so that the count is exact: of `n` elements,
/// `floor(share * (n - 1)) + 1` go, none for a share of 0. Of elements of equal magnitude, the first ones go.
///
/// Errors: a share outside of `0..=1`; an axis that does not exist, or is too short for two runs; elements that are not
/// finite.
pub fn keep(w: &Tensor, p: &Pruning) -> Result<Vec<bool>, Refusal> {
    weight::check(w)?;
    match (w.view::<f16>(), w.view::<f32>()) {
        (Some(halves), _) => keep_as(w.shape(), &halves, p),
        (None, Some(singles)) => keep_as(w.shape(), &singles, p),
        (None, None) => Err(Refusal::new(format!("the elements are {}", w.dtype()))),
    }
}

/// The mask of the elements that stay, `u1` of the shape of `w`, and those elements in row-major order.
///
/// `w`: of any type of a fixed width, so that codes and indices can be taken apart like the weight that they stand for.
///
/// Errors: not as many marks as elements.
pub fn sparse(w: &Tensor, keep: &[bool]) -> Result<(Tensor, Tensor), Refusal> {
    Ok((mask(w.shape(), keep)?, taken(w, keep)?))
}

/// The mask of the elements that stay.
pub(super) fn mask(shape: &[usize], keep: &[bool]) -> Result<Tensor, Refusal> {
    let mut mask = vec![0u8; keep.len().div_ceil(8)];
    let byte = |keep: &[bool]| keep.iter().rev().fold(0, |byte, k| byte << 1 | u8::from(*k));
    mask.par_chunks_mut(GROUP / 8).zip(keep.par_chunks(GROUP)).for_each(|(mask, keep)| {
        let (eights, rest) = keep.as_chunks::<8>();
        mask.iter_mut().zip(eights).for_each(|(to, keep)| *to = byte(keep));
        if let Some(to) = mask.get_mut(eights.len()) {
            *to = byte(rest);
        }
    });
    tensor(DType::U1, shape, mask)
}

/// The elements of `w` that stay, in a vector.
///
/// Errors: not as many marks as elements.
pub(super) fn taken(w: &Tensor, keep: &[bool]) -> Result<Tensor, Refusal> {
    let (dtype, bits) = (w.dtype(), w.dtype().bits());
    if keep.len() != w.count() || bits == 0 {
        return Err(Refusal::new(format!("{} marks for {} elements of type {dtype}", keep.len(), w.count())));
    }
    let bytes = w.blob().read();
    let counts: Vec<usize> = keep.par_chunks(GROUP).map(|keep| keep.iter().map(|k| usize::from(*k)).sum()).collect();
    let data = match bits {
        1..8 => packed(&bytes, bits, keep, counts.iter().sum()),
        8 => kept::<1>(&bytes, keep, &counts),
        16 => kept::<2>(&bytes, keep, &counts),
        32 => kept::<4>(&bytes, keep, &counts),
        _ => kept::<8>(&bytes, keep, &counts),
    };
    tensor(dtype, &[counts.iter().sum()], data)
}

fn tensor(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Result<Tensor, Refusal> {
    Tensor::new(dtype, shape, Bytes::from(bytes).into()).map_err(|e| Refusal::new(e.to_string()))
}

/// The elements of `N` bytes that stay, `counts` of them in each group.
fn kept<const N: usize>(bytes: &[u8], keep: &[bool], counts: &[usize]) -> Vec<u8> {
    let (elements, _) = bytes.as_chunks::<N>();
    let mut out = vec![[0u8; N]; counts.iter().sum()];
    // Each group writes to a place of its own, so that nothing is held twice.
    let mut rest = &mut out[..];
    let mut places = Vec::with_capacity(counts.len());
    for count in counts {
        let (place, others) = rest.split_at_mut(*count);
        places.push(place);
        rest = others;
    }
    let groups = places.into_par_iter().zip(elements.par_chunks(GROUP)).zip(keep.par_chunks(GROUP));
    groups.for_each(|((place, elements), keep)| {
        let mut at = 0;
        for (element, keep) in elements.iter().zip(keep) {
            // Written whether it stays or not, and the next over it if not: which of them stay is as random as a coin, so a
            // branch on that would cost more.
            let Some(to) = place.get_mut(at) else { break };
            *to = *element;
            at += usize::from(*keep);
        }
    });
    out.into_flattened()
}

/// The elements of fewer bits than a byte that stay; unpacked a few groups at a time.
fn packed(bytes: &[u8], bits: u32, keep: &[bool], count: usize) -> Vec<u8> {
    const GROUPS: usize = 32;
    let step = GROUP * bits as usize / 8;
    let mut out = Vec::with_capacity((count * bits as usize).div_ceil(8));
    let mut codes: Vec<u8> = vec![];
    for (bytes, keep) in bytes.chunks(step * GROUPS).zip(keep.chunks(GROUP * GROUPS)) {
        let groups = bytes.par_chunks(step).zip(keep.par_chunks(GROUP));
        let parts = groups.map(|(bytes, keep)| {
            let codes = unpack_bits(bytes, bits, keep.len()).zip(keep);
            codes.filter(|(_, k)| **k).map(|(code, _)| code).collect::<Vec<u8>>()
        });
        codes.extend(parts.collect::<Vec<_>>().concat());
        // Whole bytes; the rest goes with the next ones.
        out.extend(pack_bits(codes.drain(..codes.len() / 8 * 8), bits));
    }
    out.extend(pack_bits(codes, bits));
    out
}

/// Elements that one task looks at, a multiple of 8.
const GROUP: usize = 1 << 15;

/// How many of `n` elements a share is.
///
/// What `numpy.percentile` calls the share's percentile lies between the elements of rank `floor(share * (n - 1))` and the
/// next; everything up to it goes.
fn dropped(share: f64, n: usize) -> Result<usize, Refusal> {
    if !(0.0..=1.0).contains(&share) {
        return Err(Refusal::new(format!("{share} is no share of the elements, which is between 0 and 1")));
    }
    Ok(if share == 0.0 { 0 } else { (((share * n.saturating_sub(1) as f64) as usize) + 1).min(n) })
}

/// An element type of weights, whose magnitudes are ordered like their bits.
trait Magnitude: Copy + Send + Sync {
    fn bits(self) -> u32;
    fn value(self) -> f32;
    /// The least magnitude above `x`.
    fn above(x: f64) -> u32;
    /// The elements of which `drop` less the ties go before those of a limit.
    fn least(values: &[Self], drop: usize) -> Least;
}

impl Magnitude for f16 {
    fn bits(self) -> u32 {
        u32::from(self.to_bits() & 0x7fff)
    }
    fn value(self) -> f32 {
        self.to_f32()
    }
    fn above(x: f64) -> u32 {
        let near = Self::from_f64(x.max(0.0));
        u32::from(near.to_bits()) + u32::from(near.to_f64() <= x)
    }
    fn least(values: &[Self], drop: usize) -> Least {
        Least::of_halves(values, drop)
    }
}

impl Magnitude for f32 {
    fn bits(self) -> u32 {
        self.to_bits() & 0x7fff_ffff
    }
    fn value(self) -> f32 {
        self
    }
    fn above(x: f64) -> u32 {
        let near = x.max(0.0) as Self;
        near.to_bits() + u32::from(f64::from(near) <= x)
    }
    fn least(values: &[Self], drop: usize) -> Least {
        Least::of(values, drop)
    }
}

fn keep_as<T: Magnitude>(shape: &[usize], values: &[T], p: &Pruning) -> Result<Vec<bool>, Refusal> {
    match *p {
        Pruning::Sparsity(share) => Ok(T::least(values, dropped(share, values.len())?).kept(values)),
        Pruning::Threshold(t) if t.is_nan() => Err(Refusal::new("a threshold that is not a number")),
        Pruning::Threshold(t) => Ok(Least { limit: T::above(t), ties: 0 }.kept(values)),
        Pruning::NofM { n, m, .. } if n > m => {
            Err(Refusal::new(format!("{n} of each {m} elements are more than there are")))
        }
        Pruning::NofM { n, m, axis } => Ok(n_of_m(values, n, &Runs::new(shape, axis, m)?)),
        Pruning::Block { sparsity, size, axis } => blocks(values, sparsity, &Runs::new(shape, axis, size)?),
    }
}

/// The elements of the least magnitude, of which there are to be so many.
struct Least {
    /// The first magnitude of which not all elements go.
    limit: u32,
    /// How many elements of that magnitude go.
    ties: usize,
}

impl Least {
    /// The `drop` least of halves, from the number of elements of each magnitude.
    fn of_halves(values: &[f16], drop: usize) -> Self {
        const MAGNITUDES: usize = 1 << 15;
        let zeros = || vec![0u32; MAGNITUDES];
        let count = |mut counts: Vec<u32>, part: &[f16]| {
            part.iter().for_each(|x| counts[x.bits() as usize] += 1);
            counts
        };
        let add = |mut a: Vec<u32>, b: Vec<u32>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        };
        let counts = values.par_chunks(GROUP * 8).fold(zeros, count).reduce(zeros, add);
        let mut left = drop;
        for (limit, count) in counts.iter().enumerate() {
            match left.checked_sub(*count as usize) {
                Some(rest) => left = rest,
                None => return Self { limit: limit as u32, ties: left },
            }
        }
        Self { limit: u32::MAX, ties: 0 }
    }

    /// The `drop` least of any elements.
    fn of<T: Magnitude>(values: &[T], drop: usize) -> Self {
        if drop >= values.len() {
            return Self { limit: u32::MAX, ties: 0 };
        }
        let mut all: Vec<u32> = values.par_iter().map(|x| x.bits()).collect();
        let (less, limit, _) = all.select_nth_unstable(drop);
        let ties = less.iter().filter(|x| *x == limit).count();
        Self { limit: *limit, ties }
    }

    /// Whether each element stays.
    fn kept<T: Magnitude>(&self, values: &[T]) -> Vec<bool> {
        let limit = self.limit.max(1);
        let ties = if self.limit == 0 { 0 } else { self.ties };
        let mut keep = vec![false; values.len()];
        let groups = keep.par_chunks_mut(GROUP).zip(values.par_chunks(GROUP)).map(|(keep, values)| {
            keep.iter_mut().zip(values).for_each(|(k, x)| *k = x.bits() >= limit);
            let count = if ties == 0 { 0 } else { values.iter().filter(|x| x.bits() == limit).count() };
            (keep, values, count)
        });
        let mut groups: Vec<_> = groups.collect();
        // In order, so that the first ones go whatever the number of threads.
        let mut left = ties;
        for (_, _, count) in &mut groups {
            *count = left.min(*count);
            left -= *count;
        }
        groups.into_par_iter().for_each(|(keep, values, count)| {
            let of_limit = keep.iter_mut().zip(values).filter(|(_, x)| x.bits() == limit);
            of_limit.take(count).for_each(|(k, _)| *k = false);
        });
        keep
    }
}

/// A tensor as runs of elements along an axis.
struct Runs {
    /// The length of the axis.
    n: usize,
    /// How far apart its elements are.
    step: usize,
    /// The length of a run; the last along the axis may be shorter.
    size: usize,
}

impl Runs {
    /// The runs of `size` along `axis`, which has room for two.
    fn new(shape: &[usize], axis: usize, size: usize) -> Result<Self, Refusal> {
        let Some((n, rest)) = shape.get(axis..).and_then(<[usize]>::split_first) else {
            return Err(Refusal::new(format!("there is no axis {axis} among {}", shape.len())));
        };
        if size == 0 || size > n / 2 {
            return Err(Refusal::new(format!("axis {axis} of size {n} does not hold two runs of {size}")));
        }
        Ok(Self { n: *n, step: rest.iter().product(), size })
    }

    /// How many runs an axis is.
    fn count(&self) -> usize {
        self.n.div_ceil(self.size)
    }

    /// Elements from one to the next of the outer axes.
    fn slab(&self) -> usize {
        self.n * self.step
    }

    /// Elements of as many runs, side by side, as there are elements within a step.
    fn band(&self) -> usize {
        self.size * self.step
    }
}

/// Which elements stay where the `n` least of each run go.
fn n_of_m<T: Magnitude>(values: &[T], n: usize, runs: &Runs) -> Vec<bool> {
    let mut keep = vec![false; values.len()];
    keep.par_chunks_mut(runs.slab()).zip(values.par_chunks(runs.slab())).for_each(|(keep, values)| {
        let bands = keep.par_chunks_mut(runs.band()).zip(values.par_chunks(runs.band()));
        bands.with_min_len((GROUP / runs.band()).max(1)).for_each(|(keep, values)| {
            let mut run: Vec<(u32, usize)> = Vec::with_capacity(runs.size);
            for at in 0..runs.step {
                run.clear();
                run.extend(values.iter().skip(at).step_by(runs.step).map(|x| x.bits()).zip(0..));
                // What the last run lacks counts as zeros, which go first.
                let n = n.saturating_sub(runs.size - run.len());
                run.sort_unstable();
                for (bits, i) in run.iter().skip(n) {
                    keep[at + i * runs.step] = *bits != 0;
                }
            }
        });
    });
    keep
}

/// Which elements stay where runs go as one.
fn blocks<T: Magnitude>(values: &[T], share: f64, runs: &Runs) -> Result<Vec<bool>, Refusal> {
    let wanted = dropped(share, values.len())?;
    if u32::try_from(values.len()).is_err() {
        return Err(Refusal::new(format!("{} elements are too many to prune in blocks", values.len())));
    }
    let (slab, band, step) = (runs.slab(), runs.band(), runs.step);
    // In row-major order of the tensor of runs.
    let mut squares = vec![0f64; values.len() / runs.n * runs.count()];
    squares.par_chunks_mut(runs.count() * step).zip(values.par_chunks(slab)).for_each(|(squares, values)| {
        squares.par_chunks_mut(step).zip(values.par_chunks(band)).for_each(|(squares, values)| {
            for row in values.chunks(step) {
                squares.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(x.value()).powi(2));
            }
        });
    });
    // A norm above its number, so that the order is that of the norms, and among equal ones that of the runs.
    let key = |(run, squares): (usize, &f64)| u64::from((squares.sqrt() as f32).to_bits()) << 32 | run as u64;
    let mut keys: Vec<u64> = squares.par_iter().enumerate().map(key).collect();
    let mut stays = vec![true; keys.len()];
    // Shares are those of elements, so that a short run counts for what it is.
    let length = |run: usize| (runs.n - run / step % runs.count() * runs.size).min(runs.size);
    let (mut gone, mut rest) = (0, &mut keys[..]);
    while gone < wanted && !rest.is_empty() {
        let least = (wanted - gone).div_ceil(runs.size).min(rest.len());
        rest.select_nth_unstable(least - 1);
        let (least, others) = rest.split_at_mut(least);
        for key in least {
            let run = *key as u32 as usize;
            stays[run] = false;
            gone += length(run);
        }
        rest = others;
    }
    let mut keep = vec![false; values.len()];
    let slabs = keep.par_chunks_mut(slab).zip(values.par_chunks(slab)).zip(stays.par_chunks(runs.count() * step));
    slabs.for_each(|((keep, values), stays)| {
        for ((keep, values), stays) in keep.chunks_mut(band).zip(values.chunks(band)).zip(stays.chunks(step)) {
            for (i, (k, x)) in keep.iter_mut().zip(values).enumerate() {
                *k = stays[i % step] && x.bits() != 0;
            }
        }
    });
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn singles(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec())
    }

    fn halves(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.iter().map(|x| f16::from_f32(*x)).collect())
    }

    /// The places that stay.
    fn stay(w: &Tensor, p: Pruning) -> Vec<usize> {
        let keep = keep(w, &p).expect("a weight");
        (0..keep.len()).filter(|i| keep[*i]).collect()
    }

    #[test]
    fn the_least_go_and_of_equals_the_first() {
        let values = [3.0, -1.0, 1.0, 2.0, -1.0, 0.5];
        for w in [singles(&[6], &values), halves(&[6], &values)] {
            assert_eq!(stay(&w, Pruning::Sparsity(0.0)), [0, 1, 2, 3, 4, 5]);
            // floor(0.3 * 5) + 1 go.
            assert_eq!(stay(&w, Pruning::Sparsity(0.3)), [0, 2, 3, 4]);
            assert_eq!(stay(&w, Pruning::Sparsity(0.5)), [0, 3, 4]);
            assert_eq!(stay(&w, Pruning::Sparsity(1.0)), [0usize; 0]);
        }
    }

    #[test]
    fn zeros_never_stay() {
        let w = halves(&[2, 4], &[0.0, -0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
        for p in [
            Pruning::Sparsity(0.0),
            Pruning::Sparsity(0.1),
            Pruning::Threshold(0.0),
            Pruning::Threshold(-1.0),
            Pruning::NofM { n: 0, m: 2, axis: 1 },
            Pruning::Block { sparsity: 0.0, size: 2, axis: 1 },
        ] {
            assert_eq!(stay(&w, p), [2, 3], "{p:?}");
        }
    }

    #[test]
    fn a_threshold_goes_too() {
        let values = [0.1, -0.25, 0.5, 65504.0];
        for w in [singles(&[4], &values), halves(&[4], &values)] {
            assert_eq!(stay(&w, Pruning::Threshold(0.25)), [2, 3]);
            assert_eq!(stay(&w, Pruning::Threshold(0.25 - 1e-12)), [1, 2, 3]);
            assert_eq!(stay(&w, Pruning::Threshold(65503.9)), [3]);
            assert_eq!(stay(&w, Pruning::Threshold(f64::MAX)), [0usize; 0]);
            assert_eq!(stay(&w, Pruning::Threshold(f64::INFINITY)), [0usize; 0]);
            assert!(keep(&w, &Pruning::Threshold(f64::NAN)).is_err());
        }
    }

    #[test]
    fn n_of_each_m_go_along_any_axis() {
        let w = singles(&[2, 5], &[1.0, -2.0, 3.0, 3.0, 4.0, -5.0, 4.0, 3.0, 2.0, 1.0]);
        // The fifth of a row is with one zero that the row lacks.
        assert_eq!(stay(&w, Pruning::NofM { n: 1, m: 2, axis: 1 }), [1, 3, 4, 5, 7, 9]);
        let columns = w.reshape(&[5, 2]);
        assert_eq!(stay(&columns, Pruning::NofM { n: 1, m: 2, axis: 0 }), [2, 3, 5, 6, 8, 9]);
        assert_eq!(stay(&w, Pruning::NofM { n: 2, m: 2, axis: 1 }), [0usize; 0]);
    }

    #[test]
    fn blocks_go_by_their_norm() {
        let w = singles(&[2, 5], &[3.0, 0.1, 2.0, 2.0, 0.2, 1.0, 1.0, 5.0, 0.1, 4.0]);
        // Norms 3, 2.8, 0.2 and 1.4, 5, 4.
        assert_eq!(stay(&w, Pruning::Block { sparsity: 0.3, size: 2, axis: 1 }), [0, 1, 2, 3, 7, 8, 9]);
        assert_eq!(stay(&w, Pruning::Block { sparsity: 0.5, size: 2, axis: 1 }), [0, 1, 7, 8, 9]);
        let columns = w.reshape(&[5, 2]);
        // Norms 3.6, 2 and 1.0, 5.1 and 0.1, 4.
        assert_eq!(stay(&columns, Pruning::Block { sparsity: 0.2, size: 2, axis: 0 }), [0, 1, 2, 3, 5, 7, 9]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let w = singles(&[2, 5], &[1.0; 10]);
        let of = |p| keep(&w, &p).expect_err("a refusal").to_string();
        assert_eq!(of(Pruning::Sparsity(1.5)), "1.5 is no share of the elements, which is between 0 and 1");
        assert_eq!(of(Pruning::Sparsity(f64::NAN)), "NaN is no share of the elements, which is between 0 and 1");
        assert_eq!(of(Pruning::NofM { n: 3, m: 2, axis: 1 }), "3 of each 2 elements are more than there are");
        assert_eq!(of(Pruning::NofM { n: 1, m: 3, axis: 1 }), "axis 1 of size 5 does not hold two runs of 3");
        assert_eq!(of(Pruning::NofM { n: 0, m: 0, axis: 1 }), "axis 1 of size 5 does not hold two runs of 0");
        assert_eq!(of(Pruning::Block { sparsity: 0.5, size: 2, axis: 2 }), "there is no axis 2 among 2");
        assert_eq!(
            keep(&singles(&[1], &[f32::INFINITY]), &Pruning::Sparsity(0.5)).map_err(|e| e.to_string()),
            Err("element 0 is not finite".to_owned())
        );
        assert!(sparse(&w, &[true]).is_err());
    }

    proptest! {
        #[test]
        fn the_count_is_exact(values in prop::collection::vec(-3i8..=3, 1..300), share in 0.0f64..=1.0, half: bool) {
            let values: Vec<f32> = values.iter().map(|x| f32::from(*x) + 0.5).collect();
            let n = values.len();
            let w = if half { halves(&[n], &values) } else { singles(&[n], &values) };
            let stay = stay(&w, Pruning::Sparsity(share));
            prop_assert_eq!(stay.len(), n - dropped(share, n).expect("a share"));
            let least = stay.iter().map(|i| values[*i].abs()).fold(f32::INFINITY, f32::min);
            let gone = (0..n).filter(|i| !stay.contains(i)).map(|i| values[i].abs()).fold(0.0, f32::max);
            prop_assert!(gone <= least);
        }

        #[test]
        fn masks_and_elements_make_the_tensor_again(
            values in prop::collection::vec((any::<bool>(), 0i64..16), 1..200),
            kind in 0usize..5,
        ) {
            let (keep, ints): (Vec<bool>, Vec<i64>) = values.into_iter().unzip();
            let dtype = [DType::F16, DType::F32, DType::I8, DType::U4, DType::U6][kind];
            let w = Tensor::from_i64(dtype, &[ints.len()], &ints);
            let (mask, data) = sparse(&w, &keep).expect("as many marks as elements");
            prop_assert_eq!((mask.dtype(), mask.shape(), data.dtype()), (DType::U1, w.shape(), dtype));
            prop_assert_eq!(mask.to_bools(), keep.clone());
            let kept: Vec<i64> = ints.iter().zip(&keep).filter(|(_, k)| **k).map(|(x, _)| *x).collect();
            prop_assert_eq!(data.to_i64(), kept);
        }
    }
}
