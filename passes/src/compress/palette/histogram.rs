//! The distinct values of a group of weights, and what they weigh.

use super::scalar::Points;
use mlconv_tensor::f16;
use rayon::prelude::*;
use std::ops::Range;

/// Elements up to which sorting beats bins.
const SORTED: usize = 1 << 10;

/// Like [`SORTED`], where bins hold moments and are many more.
const SORTED_WIDE: usize = 1 << 14;

/// The values of half precision in `runs` of `values`, which are finite.
///
/// `weight`: what an element counts, none where all count the same. Elements that weigh nothing are left out.
pub(super) fn halves<W: Fn(usize) -> f64 + Sync>(
    values: &[f16],
    runs: impl Iterator<Item = Range<usize>>,
    weight: Option<W>,
) -> Points {
    let runs: Vec<_> = runs.collect();
    let count: usize = runs.iter().map(|r| r.len()).sum();
    let Some(weight) = weight else {
        if count <= SORTED {
            let mut keys: Vec<u16> = runs.into_iter().flat_map(|r| &values[r]).map(|v| key(v.to_bits())).collect();
            keys.sort_unstable();
            let equal = keys.chunk_by(|a, b| a == b);
            return of_keys(equal.map(|run| (run[0], run.len() as f64)));
        }
        let bins = binned(&runs, 0u32, |bins, run| {
            for v in &values[run] {
                bins[usize::from(v.to_bits())] += 1;
            }
        });
        return of_bits(largest(values, &runs), |bits| f64::from(bins[usize::from(bits)]));
    };
    let bins = binned(&runs, 0f64, |bins, run| {
        for i in run {
            bins[usize::from(values[i].to_bits())] += weight(i);
        }
    });
    of_bits(largest(values, &runs), |bits| bins[usize::from(bits)])
}

/// The bits of the largest absolute value.
fn largest(values: &[f16], runs: &[Range<usize>]) -> u16 {
    // Signed, for which processors have had the operation for longer.
    let size = |v: &f16| (v.to_bits() & 0x7fff) as i16;
    let of = |run: &Range<usize>| values[run.clone()].iter().map(size).fold(0, i16::max);
    runs.iter().map(of).fold(0, i16::max) as u16
}

/// Bins of all runs, one for each pattern of 16 bits. Parts are summed in order, so that the number of threads shows
/// nowhere.
fn binned<T: Copy + Send + Sync + std::ops::AddAssign>(
    runs: &[Range<usize>],
    zero: T,
    count: impl Fn(&mut [T], Range<usize>) + Sync,
) -> Vec<T> {
    let total: usize = runs.iter().map(|r| r.len()).sum();
    let part = |runs: &[Range<usize>]| {
        let mut bins = vec![zero; 1 << 16];
        runs.iter().for_each(|run| count(&mut bins, run.clone()));
        bins
    };
    if total < 1 << 18 {
        return part(runs);
    }
    let parts = runs.len().div_ceil(total.div_ceil(1 << 19)).max(1);
    let parts: Vec<Vec<T>> = runs.par_chunks(parts).map(part).collect();
    let mut parts = parts.into_iter();
    let mut bins = parts.next().unwrap_or_default();
    for part in parts {
        bins.iter_mut().zip(part).for_each(|(a, b)| *a += b);
    }
    bins
}

/// A number that grows with the half of these bits; both zeros are one.
pub(super) fn key(bits: u16) -> u16 {
    match bits {
        0x8000 => 0x8000,
        _ if bits & 0x8000 != 0 => !bits,
        _ => bits | 0x8000,
    }
}

/// The value of a key.
fn value(key: u16) -> f64 {
    let bits = if key & 0x8000 == 0 { !key } else { key & 0x7fff };
    half_to_f64(bits)
}

/// The value of finite half precision, by its definition: conversion by the processor costs a call each.
fn half_to_f64(bits: u16) -> f64 {
    let (exponent, fraction) = (u64::from(bits >> 10 & 0x1f), u64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction as f64 * f64::from_bits((1023 - 24) << 52),
        e => f64::from_bits((e + 1023 - 15) << 52 | fraction << 42),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

fn of_keys(keys: impl Iterator<Item = (u16, f64)>) -> Points {
    let mut points = Points::default();
    keys.for_each(|(key, weight)| points.push(value(key), weight));
    points
}

/// The finite halves that weigh more than nothing, none of which is larger than that of the bits `largest`.
fn of_bits(largest: u16, weight: impl Fn(u16) -> f64) -> Points {
    let mut points = Points::default();
    let mut push = |bits: u16, w: f64| {
        if w > 0.0 {
            points.push(half_to_f64(bits), w);
        }
    };
    let largest = largest.min(0x7bff);
    (0x8001..=0x8000 | largest).rev().for_each(|bits| push(bits, weight(bits)));
    push(0, weight(0) + weight(0x8000));
    (1..=largest).for_each(|bits| push(bits, weight(bits)));
    points
}

/// Values of single precision in `runs`, as `value` gives them with their weights.
///
/// Exact for few elements. Of many, values that agree in sign, exponent and 11 bits of the fraction count as their mean,
/// as do all that are 2^-32 times the largest or smaller; the centroids of clusters of such bins are exact means still.
pub(super) fn singles(runs: impl Iterator<Item = Range<usize>>, value: impl Fn(usize) -> (f32, f64) + Sync) -> Points {
    let runs: Vec<_> = runs.collect();
    let count: usize = runs.iter().map(|r| r.len()).sum();
    if count <= SORTED_WIDE {
        let mut values: Vec<(f32, f64)> = runs.into_iter().flatten().map(value).filter(|(_, w)| *w > 0.0).collect();
        // Equal values keep their order, for sums that do not depend on how they are sorted.
        values.sort_by(|a, b| (a.0 + 0.0).total_cmp(&(b.0 + 0.0)));
        let mut points = Points::default();
        for equal in values.chunk_by(|a, b| a.0 == b.0) {
            points.push(f64::from(equal[0].0) + 0.0, equal.iter().map(|(_, w)| w).sum());
        }
        return points;
    }
    let largest = runs.par_iter().map(|run| run.clone().map(|i| value(i).0.abs()).fold(0.0, f32::max));
    let base = bin(largest.reduce(|| 0.0, f32::max)).saturating_sub(32 << FRACTION);
    let bins = (33usize << FRACTION) + 1;
    // Negative values lie before the others.
    let parts = runs.len().div_ceil(count.div_ceil(1 << 20)).max(1);
    let moments = runs.par_chunks(parts).map(|runs| {
        let mut moments = vec![(0f64, 0f64); 2 * bins];
        for i in runs.iter().cloned().flatten() {
            let (x, w) = value(i);
            let at = (bin(x.abs()).saturating_sub(base) as usize).min(bins - 1);
            let at = if x < 0.0 { bins - 1 - at } else { bins + at };
            moments[at].0 += w;
            moments[at].1 += w * f64::from(x);
        }
        moments
    });
    let parts: Vec<_> = moments.collect();
    let mut points = Points::default();
    for at in 0..2 * bins {
        let (w, s) = parts.iter().fold((0.0, 0.0), |(w, s), p| (w + p[at].0, s + p[at].1));
        if w > 0.0 {
            points.push(s / w, w);
        }
    }
    points
}

/// Bits of the fraction that tell bins apart.
const FRACTION: u32 = 11;

/// The bin of a size.
fn bin(size: f32) -> u32 {
    size.to_bits() >> (23 - FRACTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EQUAL: Option<fn(usize) -> f64> = None;

    #[test]
    fn halves_are_widened_exactly() {
        for bits in (0..0x7c00u16).chain(0x8000..0xfc00) {
            assert_eq!(half_to_f64(bits), f16::from_bits(bits).to_f64());
        }
    }

    #[test]
    fn both_zeros_are_one_value() {
        let values = [0.0, -0.0, 1.0, -1.0, -6e-8, 6e-8, -0.0].map(f16::from_f32);
        for repeat in [1, 300] {
            let values = values.repeat(repeat);
            let points = halves(&values, std::iter::once(0..values.len()), EQUAL);
            let n = repeat as f64;
            assert_eq!(points.w, [n, n, 3.0 * n, n, n]);
            assert!(points.x.is_sorted() && points.x[2].to_bits() == 0);
        }
        let points = singles(std::iter::once(0..3), |i| ([0.0, -0.0, 2.0][i], 1.0));
        assert_eq!((points.x, points.w), (vec![0.0, 2.0], vec![2.0, 1.0]));
    }

    #[test]
    fn many_singles_keep_their_moments() {
        let value = |i: usize| (((i * 7919 % 100_003) as f32 - 5e4) * 1e-6, 1.0 + (i % 3) as f64);
        let n = 100_003;
        let points = singles([0..n / 2, n / 2..n].into_iter(), value);
        assert!(points.x.is_sorted() && points.x.len() < n);
        let sum = |f: &dyn Fn(f64, f64) -> f64| points.x.iter().zip(&points.w).map(|(x, w)| f(*x, *w)).sum::<f64>();
        let want = |f: &dyn Fn(f64, f64) -> f64| (0..n).map(value).map(|(x, w)| f(f64::from(x), w)).sum::<f64>();
        assert!((sum(&|_, w| w) - want(&|_, w| w)).abs() < 1e-6);
        assert!((sum(&|x, w| x * w) - want(&|x, w| x * w)).abs() < 1e-9);
        // What is lost within bins is far below what clusters lose.
        let (kept, all) = (sum(&|x, w| x * x * w), want(&|x, w| x * x * w));
        assert!((kept - all).abs() < 1e-6 * all);
    }
}
