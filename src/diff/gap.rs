//! How far one value is from what it should be, in one pass: of every value of a run, so it is kept lean.

use crate::compare::numbers::{BLOCK, Numbers, in_parts};
use mlconv_tensor::{DType, Tensor, f16};

/// The greatest number of half precision.
const MOST: f64 = 65504.0;
/// What a number beyond [`MOST`] is at least where a pass has replaced it by one that half precision holds, as in masks.
const CLAMPED: f64 = 1e3;

/// The distance of a value from the one that is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gap {
    /// Elements.
    pub count: usize,
    /// The sum of squares of what is wanted; of integers, how many there are.
    pub signal: f64,
    /// The sum of squares of the differences; of integers, how many differ.
    pub noise: f64,
    /// The greatest difference.
    pub max_abs: f64,
    /// The flat position of that.
    pub worst: usize,
    /// The greatest finite magnitude wanted.
    pub greatest: f64,
    /// Elements that are finite in only one of the two, or infinite of unlike signs.
    pub non_finite: usize,
    /// Elements beyond half precision, in whose place stand great ones of the same sign.
    pub clamped: usize,
}

impl Gap {
    /// Signal over noise in dB; `None` where there is no noise.
    pub fn snr_db(&self) -> Option<f64> {
        if self.non_finite > 0 {
            return Some(f64::NEG_INFINITY);
        }
        decibels(self.signal, self.noise)
    }

    /// Whether both are the same.
    pub fn is_exact(&self) -> bool {
        self.noise == 0.0 && self.non_finite == 0
    }
}

/// Signal over noise in dB, of powers; `None` where there is no noise.
pub fn decibels(signal: f64, noise: f64) -> Option<f64> {
    (noise > 0.0).then(|| (10.0 * (signal / noise).log10()).clamp(-999.0, 999.0))
}

/// Compares `got` with `want`; `None` where their shapes or kinds are others, or all elements are [`is_clamped`].
pub fn gap(want: &Tensor, got: &Tensor) -> Option<Gap> {
    let scalar = matches!((want.shape(), got.shape()), ([], [1]) | ([1], []));
    let floats = [want, got].map(|t| t.dtype().is_float());
    if (want.shape() != got.shape() && !scalar) || floats[0] != floats[1] || want.dtype() == DType::Str {
        return None;
    }
    let (mut out, most) = (Gap { count: want.count(), ..Gap::default() }, most(got.dtype()));
    in_parts([&Numbers::new(want), &Numbers::new(got)], want.count(), BLOCK, |start, want, got| {
        for (i, (w, g)) in want.iter().zip(got).enumerate() {
            out.add(start + i, (*w, *g), floats[0], most);
        }
    });
    (out.clamped == 0 || out.clamped < out.count).then_some(out)
}

impl Gap {
    /// Takes in the element at `i`.
    fn add(&mut self, i: usize, (w, g): (f64, f64), is_float: bool, most: f64) {
        if !is_float {
            self.signal += 1.0;
            if w != g {
                self.worst = if self.noise == 0.0 { i } else { self.worst };
                self.noise += 1.0;
                self.max_abs = 1.0;
            }
            return;
        }
        if is_clamped(w, g, most) {
            self.clamped += 1;
            return;
        }
        if w.is_finite() {
            self.greatest = self.greatest.max(w.abs());
        }
        if !w.is_finite() || !g.is_finite() {
            let same = w == g || (w.is_nan() && g.is_nan());
            self.non_finite += usize::from(!same);
            return;
        }
        let off = (w - g).abs();
        if off > self.max_abs {
            (self.max_abs, self.worst) = (off, i);
        }
        self.signal += w * w;
        self.noise += off * off;
    }
}

/// What is wanted, as a value of the type and shape of `got`, and whether that says the same. Where half precision does not
/// hold an element, that of `got` stands, if a pass has put it there, or else the greatest number that it holds.
pub fn taken(want: &Tensor, got: &Tensor) -> (Tensor, bool) {
    let want = if want.shape() == got.shape() { want.clone() } else { want.reshape(got.shape()) };
    if got.dtype() != DType::F16 || want.dtype() == DType::F16 {
        return (want.cast(got.dtype()), true);
    }
    let (mut same, mut signal, mut noise) = (true, 0.0, 0.0);
    let mut elements: Vec<f16> = Vec::with_capacity(want.count());
    in_parts([&Numbers::new(&want), &Numbers::new(got)], want.count(), BLOCK, |_, want, got| {
        elements.extend(want.iter().zip(got).map(|(w, g)| {
            if w.abs() <= MOST || w.is_nan() || w == g {
                let half = f16::from_f64(*w);
                if w.is_finite() {
                    signal += w * w;
                    noise += (w - half.to_f64()).powi(2);
                }
                return half;
            }
            if is_clamped(*w, *g, MOST) {
                return f16::from_f64(*g);
            }
            same = false;
            f16::from_f64(MOST.copysign(*w))
        }));
    });
    // Numbers that are too small for half precision may be all that a value is.
    same &= noise <= signal * LOST;
    (Tensor::from_vec(want.shape(), elements), same)
}

/// The part of a value that rounding may take from it, as a power: 40 dB.
const LOST: f64 = 1e-4;

/// The greatest number that passes leave in place, of a type: a mask stands for an infinity in single precision as well.
fn most(dtype: DType) -> f64 {
    if dtype == DType::F16 { MOST } else { ENDLESS }
}

/// Numbers from here on are masks, not results.
const ENDLESS: f64 = 1e30;

/// Whether a great number of the same sign stands for one that is greater than `most`.
fn is_clamped(want: f64, got: f64, most: f64) -> bool {
    want.abs() > most && (CLAMPED..=most).contains(&got.abs()) && (want < 0.0) == (got < 0.0)
}

/// `t` with every element moved to the next number of its type, up or down: what rounding does to a value, but for
/// [`SHAKEN`]. Elements that differ from those of `still`, where that is given, have been moved already.
pub fn shaken(t: &Tensor, still: Option<&Tensor>, seed: u64) -> Option<Tensor> {
    match t.dtype() {
        DType::F16 => {
            let (values, still) = (t.view::<f16>()?, still.and_then(Tensor::view::<f16>));
            let moved = values.iter().enumerate().map(|(i, x)| {
                let bits = x.to_bits();
                let is_moved = still.as_ref().and_then(|s| s.get(i)).is_some_and(|s| s.to_bits() != bits);
                if is_moved || x.to_f32() == 0.0 || bits & 0x7fff >= 0x7bff {
                    return *x;
                }
                f16::from_bits(if roll(seed, i) & 8 == 0 { bits + 1 } else { bits - 1 })
            });
            Some(Tensor::from_vec(t.shape(), moved.collect::<Vec<f16>>()))
        }
        DType::F32 => {
            let (values, still) = (t.view::<f32>()?, still.and_then(Tensor::view::<f32>));
            let moved = values.iter().enumerate().map(|(i, x)| {
                let is_moved = still.as_ref().and_then(|s| s.get(i)).is_some_and(|s| s != x);
                let step = if roll(seed, i) & 8 == 0 { f32::EPSILON } else { -f32::EPSILON };
                if is_moved || !x.is_finite() { *x } else { x + x * step }
            });
            Some(Tensor::from_vec(t.shape(), moved.collect::<Vec<f32>>()))
        }
        _ => None,
    }
}

/// What the noise of [`shaken`] has of the power of rounding to nearest.
pub const SHAKEN: f64 = 8.0;

/// Bits that look random, of a place.
pub(super) fn roll(seed: u64, at: usize) -> u64 {
    let z = (seed ^ (at as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[f32]) -> Tensor {
        Tensor::from_vec(&[values.len()], values.to_vec())
    }

    #[test]
    fn gaps_are_of_finite_elements() {
        let g = gap(&floats(&[3.0, 4.0, f32::NAN]), &floats(&[3.0, 3.5, f32::NAN])).expect("of one shape");
        assert_eq!((g.signal, g.noise, g.worst, g.non_finite), (25.0, 0.25, 1, 0));
        assert_eq!(g.snr_db(), Some(20.0));
        let g = gap(&floats(&[1e5]), &floats(&[f32::INFINITY])).expect("of one shape");
        assert_eq!((g.non_finite, g.greatest, g.snr_db()), (1, 1e5, Some(f64::NEG_INFINITY)));
        assert_eq!(gap(&floats(&[1.0]), &floats(&[1.0, 2.0])), None);
    }

    #[test]
    fn masks_may_be_clamped() {
        let (mask, clamped) =
            (floats(&[f32::MIN, f32::NEG_INFINITY, 0.0]), floats(&[-1e4, -3e4, 0.0]).cast(DType::F16));
        let g = gap(&mask, &clamped).expect("of one shape");
        assert_eq!((g.clamped, g.non_finite, g.is_exact()), (2, 0, true));
        let (t, same) = taken(&mask, &clamped);
        assert_eq!((t.to_f32().to_vec(), same), (clamped.to_f32().to_vec(), true));
        let (t, same) = taken(&floats(&[1e5, 1.0]), &floats(&[0.0, 2.0]).cast(DType::F16));
        assert_eq!((t.to_f32().to_vec(), same), (vec![65504.0, 1.0], false));
    }

    #[test]
    fn integers_differ_or_not() {
        let [a, b] = [[1i32, 2, 3], [1, 5, 3]].map(|v| Tensor::from_vec(&[3], v.to_vec()));
        let g = gap(&a, &b).expect("of one shape");
        assert_eq!((g.noise, g.signal, g.worst), (1.0, 3.0, 1));
    }

    #[test]
    fn shaking_is_as_strong_as_rounding() {
        let exact = floats(&(0..4096).map(|i| 1.0 + (i as f32 * 0.37).sin().abs() * 7.0).collect::<Vec<_>>());
        let half = exact.cast(DType::F16);
        let rounding = gap(&exact, &half).and_then(|g| g.snr_db()).expect("noise");
        let shaking = gap(&half, &shaken(&half, None, 1).expect("a float")).and_then(|g| g.snr_db()).expect("noise");
        assert!((rounding - shaking - 10.0 * SHAKEN.log10()).abs() < 3.0, "{rounding} {shaking}");
    }
}
