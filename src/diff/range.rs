//! How great the elements of a value are, against what half precision holds.

use mlconv_tensor::Tensor;
use serde::Serialize;
use std::collections::BTreeMap;

/// The magnitudes of the elements of a float tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Range {
    /// The least finite element.
    pub min: f64,
    /// The greatest finite element.
    pub max: f64,
    /// The least magnitude that is not zero.
    pub least: f64,
    /// How many elements there are of each power of two.
    pub exponents: Exponents,
    /// Elements that are zero.
    pub zeros: usize,
    /// Elements that are not finite.
    pub non_finite: usize,
}

/// Elements by magnitude.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Exponents {
    /// The exponent of the first count: of magnitudes from 2 to its power to below twice that.
    pub first: i32,
    /// One count for each exponent from there on.
    pub counts: Vec<usize>,
}

/// The range of a value; `None` where it is no float, or has no finite element.
pub fn range(t: &Tensor) -> Option<Range> {
    if !t.dtype().is_float() {
        return None;
    }
    let mut out = Range { min: f64::INFINITY, max: f64::NEG_INFINITY, least: f64::INFINITY, ..Range::default() };
    let mut by_exponent = [0usize; 256];
    for x in t.to_f32().iter() {
        let exponent = (x.to_bits() >> 23 & 0xff) as usize;
        if exponent == 0xff {
            out.non_finite += 1;
            continue;
        }
        let wide = f64::from(*x);
        (out.min, out.max) = (out.min.min(wide), out.max.max(wide));
        if *x == 0.0 {
            out.zeros += 1;
        } else {
            by_exponent[exponent] += 1;
            out.least = out.least.min(wide.abs());
        }
    }
    if out.min > out.max {
        return None;
    }
    // Denormal numbers of single precision are all below the first exponent.
    let counts: BTreeMap<i32, usize> =
        by_exponent.iter().enumerate().filter(|(_, n)| **n > 0).map(|(e, n)| (e as i32 - 127, *n)).collect();
    if let Some((first, last)) = counts.keys().next().copied().zip(counts.keys().next_back().copied()) {
        let counts = (first..=last).map(|e| counts.get(&e).copied().unwrap_or(0)).collect();
        out.exponents = Exponents { first, counts };
    } else {
        out.least = 0.0;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitudes_are_counted_by_powers_of_two() {
        let t = Tensor::from_vec(&[7], vec![0f32, 1.0, -1.5, 4.0, 0.5, f32::INFINITY, f32::NAN]);
        let r = range(&t).expect("floats");
        assert_eq!((r.min, r.max, r.least, r.zeros, r.non_finite), (-1.5, 4.0, 0.5, 1, 2));
        assert_eq!(r.exponents, Exponents { first: -1, counts: vec![1, 2, 0, 1] });
        assert_eq!(range(&Tensor::from_vec(&[1], vec![f32::NAN])), None);
        let zeros = range(&Tensor::from_vec(&[2], vec![0f32, 0.0])).expect("floats");
        assert_eq!((zeros.least, zeros.exponents.counts.len()), (0.0, 0));
    }
}
