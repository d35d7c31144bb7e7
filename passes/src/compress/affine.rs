//! One scale and one zero: how a number becomes an integer and back, and which pair suits a set of numbers.

use super::Refusal;
use mlconv_tensor::{DType, f16};
use smallvec::{SmallVec, smallvec};

/// What the integers are and how a range becomes a scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Codes {
    /// The least and the greatest integer of the type.
    lo: f32,
    hi: f32,
    /// The integers that a range is spread over. Symmetric ones leave out one, so that zero is in the middle.
    spread: (f32, f32),
    /// Whether zero is `middle`, not a choice.
    symmetric: bool,
    /// Whether decoded numbers have half precision, not single.
    half: bool,
}

/// Scales and zeros to try.
type Few<T> = SmallVec<[T; 6]>;

/// How to choose a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RangeMethod {
    /// All elements, so that none is clipped.
    #[default]
    MinMax,
    /// The range of the least squared error, which may clip.
    Mse,
}

/// A scale and a zero: `scale * (code - zero)`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Affine {
    pub(crate) scale: f32,
    pub(crate) zero: f32,
    /// The least and greatest `code - zero`.
    lo: f32,
    hi: f32,
}

/// Adding it to a number of less than 2^22 rounds that to an integer, half to even, in the low bits of the sum. Unlike
/// `f32::round_ties_even` this needs no instruction that the oldest processors lack.
const ROUNDER: f32 = 12_582_912.0;
/// The same for multiples of 2^-24, the least half.
const TINY_ROUNDER: f32 = 0.75;
/// Numbers at which one vector works.
const LANES: usize = 8;

impl Affine {
    /// The `code - zero` whose decoded number is nearest to `x`.
    #[inline]
    pub(crate) fn level<const HALF: bool>(&self, x: f32) -> f32 {
        let level = round(clamp(x / self.scale, self.lo, self.hi));
        if !HALF {
            return level;
        }
        // Decoded numbers are rounded to half precision, which moves the places midway between them.
        let value = to_half(self.scale * level);
        let step = if x > value { 1.0 } else { -1.0 };
        let next = clamp(level + step, self.lo, self.hi);
        let nearer = (x - to_half(self.scale * next)).abs() < (x - value).abs();
        if nearer { next } else { level }
    }

    /// The decoded number of a `code - zero`.
    #[inline]
    pub(crate) fn value<const HALF: bool>(&self, level: f32) -> f32 {
        if HALF { to_half(self.scale * level) } else { self.scale * level }
    }

    /// The low byte of the code of a `code - zero`.
    #[inline]
    pub(crate) fn code(&self, level: f32) -> u8 {
        (level + self.zero + ROUNDER).to_bits() as u8
    }

    /// The sum of squared errors of `values`, each times its weight.
    pub(crate) fn error<const HALF: bool>(&self, values: &[f32], weights: Option<&[f32]>) -> f64 {
        // In a unit near the scale, so that no square is too great or too small for its type.
        let unit = self.unit();
        let square = |x: f32| {
            let e = (x - self.value::<HALF>(self.level::<HALF>(x))) * unit;
            e * e
        };
        let squares = match weights {
            None => sum(values, |x| square(*x)),
            Some(weights) => sum_of_pairs(values, weights, |x, w| w * square(x)),
        };
        squares / f64::from(unit).powi(2)
    }

    /// A power of two that makes numbers of the scale numbers near 1.
    fn unit(&self) -> f32 {
        let exponent = self.scale.to_bits() >> 23;
        f32::from_bits(254u32.saturating_sub(exponent).max(1) << 23)
    }
}

impl Codes {
    /// The codes of type `dtype` for numbers of type `float`.
    pub(crate) fn new(dtype: DType, symmetric: bool, float: DType) -> Result<Self, Refusal> {
        let (lo, hi, spread) = match (dtype, symmetric) {
            (DType::I8, false) => (-128.0, 127.0, (-128.0, 127.0)),
            (DType::I8, true) => (-128.0, 127.0, (-127.0, 127.0)),
            (DType::U8, false) => (0.0, 255.0, (0.0, 255.0)),
            (DType::U8, true) => (0.0, 255.0, (0.0, 254.0)),
            (DType::I4, false) => (-8.0, 7.0, (-8.0, 7.0)),
            (DType::I4, true) => (-8.0, 7.0, (-7.0, 7.0)),
            (DType::U4, false) => (0.0, 15.0, (0.0, 15.0)),
            (DType::U4, true) => (0.0, 15.0, (0.0, 14.0)),
            (other, _) => return Err(Refusal::new(format!("integers of type {other}, not i4, u4, i8 or u8"))),
        };
        Ok(Self { lo, hi, spread, symmetric, half: float == DType::F16 })
    }

    /// Whether zero is the code 0, so that it need not be stored.
    pub(crate) fn zero_is_0(&self) -> bool {
        self.symmetric && self.spread.0 + self.spread.1 == 0.0
    }

    /// The scale and zero for numbers of which the least and the greatest are `range`, without clipping.
    ///
    /// `values` decide, by their squared error, between roundings of the parameters; they are asked for only where that is
    /// in doubt.
    pub(crate) fn min_max(
        &self,
        range: (f32, f32),
        weights: Option<&[f32]>,
        values: impl FnOnce() -> Vec<f32>,
    ) -> Affine {
        if let Some(only) = self.certain(range) {
            return only;
        }
        let candidates = self.candidates(range);
        match &candidates[..] {
            [] => self.affine(1.0, if self.symmetric { self.middle() } else { self.lo.max(0.0) }, self.spread),
            [only] => *only,
            [first, rest @ ..] => {
                let values = values();
                rest.iter()
                    .fold((*first, self.error(first, &values, weights)), |best, next| {
                        let e = self.error(next, &values, weights);
                        if e < best.1 { (*next, e) } else { best }
                    })
                    .0
            }
        }
    }

    /// The parameters of a range that are not in doubt: those of most blocks, found fast.
    fn certain(&self, (lo, hi): (f32, f32)) -> Option<Affine> {
        if !self.symmetric {
            return None;
        }
        let scale = self.scale(2.0 * f64::from(hi.max(-lo)));
        (scale >= self.normal()).then(|| self.affine(scale, self.middle(), self.spread))
    }

    /// The scale that spreads the integers over numbers so far apart, as it is stored.
    fn scale(&self, width: f64) -> f32 {
        let scale = width / f64::from(self.spread.1 - self.spread.0);
        self.rounded(scale, scale) as f32
    }

    /// The parameters that a range may round to; none for a range of nothing but zero.
    fn candidates(&self, (lo, hi): (f32, f32)) -> Few<Affine> {
        let (lo, hi) = (f64::from(lo.min(0.0)), f64::from(hi.max(0.0)));
        let (q_lo, q_hi) = (f64::from(self.spread.0), f64::from(self.spread.1));
        let width = if self.symmetric { 2.0 * hi.max(-lo) } else { self.rounded(hi - lo, hi - lo) };
        if width == 0.0 {
            return Few::new();
        }
        let mut out = Few::new();
        for scale in self.scales(self.scale(width)) {
            if self.symmetric {
                out.push(self.affine(scale, self.middle(), self.spread));
                continue;
            }
            // The zero of other tools, in the precision of the weight; and that of the scale as it is stored.
            let r = |x| self.rounded(x, x);
            let stored = q_lo - lo / f64::from(scale);
            let coarse = self.rounded(r(r(q_lo * hi) - r(q_hi * lo)) / width, stored);
            for zero in [coarse, stored] {
                let zero = zero.round_ties_even().clamp(q_lo, q_hi) as f32;
                let next = self.affine(scale, zero, self.spread);
                if !out.contains(&next) {
                    out.push(next);
                }
            }
        }
        out
    }

    /// The scale and zero of the least squared error that a search finds; [`Codes::min_max`] where none is less.
    pub(crate) fn least_squares(&self, values: &[f32], weights: Option<&[f32]>) -> Affine {
        let (lo, hi) = range(values);
        let widest = self.min_max((lo, hi), weights, || values.to_vec());
        if lo.min(0.0) == hi.max(0.0) {
            return widest;
        }
        let (lo, hi) = (f64::from(lo.min(0.0)), f64::from(hi.max(0.0)));
        let ends = |low: f64, high: f64| self.between(lo * low, hi * high);
        let mut search = Search { codes: self, values, weights, best: widest, error: f64::INFINITY };
        search.offer(widest);
        let (mut at, mut worse) = (1.0, 0);
        // Ranges of heavy tails end far below the greatest element; past the best one the error only grows.
        for k in 1..=COARSE {
            let r = STEP.powi(k);
            (at, worse) = if search.offer(ends(r, r)) { (r, 0) } else { (at, worse + 1) };
            if worse >= PATIENCE {
                break;
            }
        }
        let (mut low, mut high) = (at, at);
        for fine in FINE {
            if self.symmetric {
                if search.offer(ends(at * fine, at * fine)) {
                    (low, high) = (at * fine, at * fine);
                }
                continue;
            }
            let now = (low, high);
            if search.offer(ends(at * fine, now.1)) {
                low = at * fine;
            }
            if search.offer(ends(now.0, at * fine)) {
                high = at * fine;
            }
        }
        for _ in 0..REFITS {
            let refit = search.refit();
            if !refit.is_some_and(|a| search.offer(a)) {
                break;
            }
        }
        let found = search.best;
        if self.error(&found, values, weights) < self.error(&widest, values, weights) { found } else { widest }
    }

    /// The parameters for numbers between `lo <= 0` and `hi >= 0`, of which those beyond are clipped.
    fn between(&self, lo: f64, hi: f64) -> Affine {
        let (q_lo, q_hi) = (f64::from(self.spread.0), f64::from(self.spread.1));
        let width = if self.symmetric { 2.0 * hi.max(-lo) } else { hi - lo };
        let scale = (width / (q_hi - q_lo)) as f32;
        self.of(scale, q_lo - lo / f64::from(scale))
    }

    /// The parameters as they are stored, over all integers of the type.
    fn of(&self, scale: f32, zero: f64) -> Affine {
        let scale = if self.half { f16::from_f32(scale).to_f32() } else { scale };
        let scale = if scale > 0.0 { scale.min(self.greatest()) } else { self.least() };
        let zero = if self.symmetric { self.middle() } else { zero.round_ties_even() as f32 }.clamp(self.lo, self.hi);
        self.affine(scale, zero, (self.lo, self.hi))
    }

    fn affine(&self, scale: f32, zero: f32, (lo, hi): (f32, f32)) -> Affine {
        let (lo, hi) = (lo - zero, hi - zero);
        if scale * hi.max(-lo) <= self.greatest() {
            return Affine { scale, zero, lo, hi };
        }
        // Rounding has made the scale so large that the outermost integers would decode to infinity.
        let finite = (self.greatest() / scale).floor();
        Affine { scale, zero, lo: lo.max(-finite), hi: hi.min(finite) }
    }

    fn error(&self, a: &Affine, values: &[f32], weights: Option<&[f32]>) -> f64 {
        if self.half { a.error::<true>(values, weights) } else { a.error::<false>(values, weights) }
    }

    /// The code of zero where it is no choice.
    fn middle(&self) -> f32 {
        f32::midpoint(self.spread.0, self.spread.1)
    }

    /// The scales to try for `scale`: where it has few digits, its neighbours too, and never zero.
    fn scales(&self, scale: f32) -> Few<f32> {
        if scale >= self.normal() {
            return smallvec![scale];
        }
        let unit = self.least();
        [scale, scale + unit, scale - unit].into_iter().filter(|s| *s > 0.0).collect()
    }

    /// `x` in the precision of the weight, or `instead` where it does not fit.
    fn rounded(&self, x: f64, instead: f64) -> f64 {
        // From single precision, which has digits enough for the result to be that of one rounding.
        let y = match x as f32 {
            y if !self.half => f64::from(y),
            y if y.abs() <= self.greatest() => f64::from(to_half(y)),
            y => f16::from_f32(y).to_f64(),
        };
        if y.is_finite() { y } else { instead }
    }

    /// The least number above zero that has all its digits.
    fn normal(&self) -> f32 {
        if self.half { TINIEST_NORMAL } else { f32::MIN_POSITIVE }
    }

    fn greatest(&self) -> f32 {
        if self.half { f16::MAX.to_f32() } else { f32::MAX }
    }

    /// The least number above zero.
    fn least(&self) -> f32 {
        if self.half { f16::MIN_POSITIVE_SUBNORMAL.to_f32() } else { f32::from_bits(1) }
    }
}

/// The coarse steps of a search, each this factor: down to a tenth of the range.
const STEP: f64 = 0.92;
const COARSE: i32 = 28;
/// Steps without gain after which a search ends.
const PATIENCE: i32 = 5;
/// Factors around the best coarse range.
const FINE: [f64; 6] = [1.06, 1.04, 1.02, 0.98, 0.96, 0.94];
/// How often the scale is fitted to the codes, and the codes to the scale.
const REFITS: usize = 4;

/// The best parameters so far.
struct Search<'a> {
    codes: &'a Codes,
    values: &'a [f32],
    weights: Option<&'a [f32]>,
    best: Affine,
    error: f64,
}

impl Search<'_> {
    /// Whether these parameters are the best so far.
    fn offer(&mut self, a: Affine) -> bool {
        let error = a.error::<false>(self.values, self.weights);
        let better = error < self.error;
        if better {
            (self.best, self.error) = (a, error);
        }
        better
    }

    /// The scale of least squared error for the codes of the best parameters.
    fn refit(&self) -> Option<Affine> {
        let (a, unit) = (self.best, self.best.unit());
        let level = |x: f32| a.level::<false>(x);
        let (xl, ll) = match self.weights {
            None => (sum(self.values, |x| x * unit * level(*x)), sum(self.values, |x| level(*x) * level(*x))),
            Some(w) => (
                sum_of_pairs(self.values, w, |x, w| w * (x * unit) * level(x)),
                sum_of_pairs(self.values, w, |x, w| w * level(x) * level(x)),
            ),
        };
        let scale = xl / ll / f64::from(unit);
        (scale.is_finite() && scale > 0.0).then(|| self.codes.of(scale as f32, f64::from(a.zero)))
    }
}

/// The least and the greatest of `values`, zeros where there are none.
pub(crate) fn range(values: &[f32]) -> (f32, f32) {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let first = values.first().copied().unwrap_or(0.0);
    let (mut lo, mut hi) = ([first; LANES], [first; LANES]);
    for chunk in chunks {
        for i in 0..LANES {
            lo[i] = if chunk[i] < lo[i] { chunk[i] } else { lo[i] };
            hi[i] = if chunk[i] > hi[i] { chunk[i] } else { hi[i] };
        }
    }
    let all = |of: [f32; LANES], pick: fn(f32, f32) -> f32| of.iter().chain(rest).copied().fold(first, pick);
    (all(lo, f32::min), all(hi, f32::max))
}

/// The least and the greatest of halves that are finite, zeros where there are none.
pub(crate) fn range_of_halves(values: &[f16]) -> (f32, f32) {
    // As integers whose order is that of the halves, of which one instruction compares eight.
    let key = |x: f16| {
        let bits = x.to_bits() as i16;
        bits ^ (bits >> 15 & 0x7fff)
    };
    let Some(first) = values.first() else { return (0.0, 0.0) };
    let (lo, hi) = values.iter().fold((key(*first), key(*first)), |(lo, hi), x| (lo.min(key(*x)), hi.max(key(*x))));
    let half = |key: i16| f16::from_bits((key ^ (key >> 15 & 0x7fff)) as u16).to_f32();
    (half(lo), half(hi))
}

/// The sum of `f` of every element, in lanes, so that its order does not hang on the processor.
fn sum(values: &[f32], f: impl Fn(&f32) -> f32) -> f64 {
    let mut total = 0.0;
    for part in values.chunks(PART) {
        let mut lanes = [0f32; LANES];
        let (chunks, rest) = part.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += f(x);
            }
        }
        total += lanes.iter().copied().map(f64::from).sum::<f64>() + rest.iter().map(|x| f64::from(f(x))).sum::<f64>();
    }
    total
}

fn sum_of_pairs(values: &[f32], weights: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    values.iter().zip(weights).map(|(x, w)| f64::from(f(*x, *w))).sum()
}

/// Elements that single precision adds up before the sum goes on in double precision.
const PART: usize = 1024;

#[inline]
fn round(x: f32) -> f32 {
    (x + ROUNDER) - ROUNDER
}

/// `f32::clamp` that never panics.
#[inline]
fn clamp(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x < lo { lo } else { x };
    if x > hi { hi } else { x }
}

/// A number of magnitude up to 65504 rounded to half precision, half to even.
#[inline]
pub(crate) fn to_half(x: f32) -> f32 {
    let bits = x.to_bits();
    let normal = f32::from_bits(bits.wrapping_add(0xfff + (bits >> 13 & 1)) & !0x1fff);
    let tiny = (x + TINY_ROUNDER) - TINY_ROUNDER;
    if x.abs() < TINIEST_NORMAL { tiny } else { normal }
}

const TINIEST_NORMAL: f32 = 6.103_515_6e-5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_as_good_at_any_magnitude() {
        let codes = Codes::new(DType::I4, true, DType::F32).expect("codes");
        let mut values: Vec<f32> = (0..512).map(|i| (i as f32 * 0.7).sin()).collect();
        values[7] = 6.0;
        let part = |exponent: i32| {
            let scaled: Vec<f32> = values.iter().map(|x| (f64::from(*x) * 2f64.powi(exponent)) as f32).collect();
            let found = codes.least_squares(&scaled, None);
            found.error::<false>(&scaled, None) / 2f64.powi(2 * exponent)
        };
        for exponent in [-100, -70, 70, 120] {
            assert!((part(exponent) / part(0) - 1.0).abs() < 1e-6, "{exponent}");
        }
    }

    #[test]
    fn halves_are_rounded_as_the_type_rounds_them() {
        for high in 0..=u16::MAX {
            for low in [0u32, 1, 0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x8000, 0xffff] {
                let x = f32::from_bits(u32::from(high) << 16 | low);
                if x.abs() <= 65504.0 {
                    assert_eq!(to_half(x), f16::from_f32(x).to_f32(), "{x:e}");
                }
            }
        }
    }

    #[test]
    fn the_range_of_halves_is_that_of_the_numbers() {
        let values: Vec<f16> = [-3.0f32, 0.5, -0.0, 1e-7, 2.0, -1e-7].map(f16::from_f32).to_vec();
        assert_eq!(range_of_halves(&values), (-3.0, 2.0));
        assert_eq!(range_of_halves(&values[5..]), range(&[f16::from_f32(-1e-7).to_f32()]));
        assert_eq!(range_of_halves(&[]), (0.0, 0.0));
    }
}
