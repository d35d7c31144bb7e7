//! From the elements of a value to a scale and a zero point.

use super::histogram::Histogram;
use crate::compress::Refusal;
use mlconv_tensor::{DType, f16};
use std::fmt;

/// The integers that a value is held in, and whether zero has a place of its own choice among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `int8`, as much below zero as above: there is no zero point.
    #[default]
    Int8,
    /// `int8` with a zero point, so that all 256 integers are of use.
    Int8Asymmetric,
    /// `uint8` with a zero point.
    Uint8,
}

/// How the range of a value is found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Method {
    /// From the least to the greatest element: nothing is cut off.
    #[default]
    MinMax,
    /// So many percent of the elements, in `50..=100`; half of the rest is cut off on either side.
    Percentile(f64),
    /// Where the mean squared error is least.
    Mse,
    /// Where the distribution changes least: the least Kullback-Leibler divergence. Source: Migacz 2017, "8-bit inference
    /// with TensorRT".
    Entropy,
}

/// A value's place on integers: `scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// `I8` or `U8`.
    pub dtype: DType,
    /// A positive number that the value's type holds.
    pub scale: f64,
    /// The integer of zero.
    pub zero_point: i64,
}

/// A value's range, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibrated {
    /// The least element that was seen, or 0.
    pub min: f64,
    /// The greatest element that was seen, or 0.
    pub max: f64,
    /// Where the range begins; at most 0.
    pub lo: f64,
    /// Where it ends; at least 0.
    pub hi: f64,
    /// The integers that it became.
    pub affine: Affine,
    /// The part of the elements that lie outside of the integers, in `0..=1`.
    pub saturated: f64,
    /// The power of the elements over that of their rounding, in dB, within the precision of the histogram.
    pub snr_db: f64,
}

/// The percentile that is taken where none is given.
pub const DEFAULT_PERCENTILE: f64 = 99.99;
/// Ranges that a search tries, of the whole.
const STEPS: u32 = 128;
/// A search by entropy keeps at least this part of the range: below it bins are too few to tell a loss.
const LEAST: u32 = STEPS / 16;

impl Form {
    /// The least and the greatest integer.
    pub fn limits(self) -> (i64, i64) {
        match self {
            Self::Int8 | Self::Int8Asymmetric => (-128, 127),
            Self::Uint8 => (0, 255),
        }
    }

    /// The integers' type.
    pub fn dtype(self) -> DType {
        match self {
            Self::Int8 | Self::Int8Asymmetric => DType::I8,
            Self::Uint8 => DType::U8,
        }
    }

    /// Reads `int8`, `int8-asym` or `uint8`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Int8, Self::Int8Asymmetric, Self::Uint8].into_iter().find(|f| f.to_string() == text)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int8 => "int8",
            Self::Int8Asymmetric => "int8-asym",
            Self::Uint8 => "uint8",
        })
    }
}

impl Method {
    /// Reads `min-max`, `percentile`, `percentile=99.9`, `mse` or `entropy`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('=') {
            None => [Self::MinMax, Self::Percentile(DEFAULT_PERCENTILE), Self::Mse, Self::Entropy]
                .into_iter()
                .find(|m| m.name() == text),
            Some(("percentile", p)) => p.parse().ok().filter(|p| (50.0..=100.0).contains(p)).map(Self::Percentile),
            Some(_) => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::MinMax => "min-max",
            Self::Percentile(_) => "percentile",
            Self::Mse => "mse",
            Self::Entropy => "entropy",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentile(p) => write!(f, "percentile={p}"),
            other => f.write_str(other.name()),
        }
    }
}

impl Affine {
    /// The integers for a range, which is widened to hold zero, so that padding stays what it is. The scale is rounded up
    /// to `dtype`, the value's own type.
    pub fn new(lo: f64, hi: f64, form: Form, dtype: DType) -> Result<Self, Refusal> {
        let (lo, hi) = (lo.min(0.0), hi.max(0.0));
        let (least, greatest) = form.limits();
        let exact = match form {
            Form::Int8 => hi.max(-lo) / greatest as f64,
            Form::Int8Asymmetric | Form::Uint8 => (hi - lo) / (greatest - least) as f64,
        };
        if !exact.is_finite() {
            return Err(Refusal::new("the range is not finite"));
        }
        if exact == 0.0 {
            return Ok(Self { dtype: form.dtype(), scale: 1.0, zero_point: 0 });
        }
        let scale = rounded_up(exact, dtype);
        if !scale.is_finite() || scale > exact * 1.05 {
            return Err(Refusal::new(format!("{dtype} cannot hold the scale {exact:.3e}: the elements are too small")));
        }
        let zero_point = match form {
            Form::Int8 => 0,
            Form::Int8Asymmetric | Form::Uint8 => (least as f64 - lo / scale).round() as i64,
        };
        Ok(Self { dtype: form.dtype(), scale, zero_point: zero_point.clamp(least, greatest) })
    }

    /// The least and the greatest integer.
    fn limits(&self) -> (f64, f64) {
        if self.dtype == DType::U8 { (0.0, 255.0) } else { (-128.0, 127.0) }
    }

    /// The integer of `x`.
    pub fn code(&self, x: f64) -> f64 {
        let (least, greatest) = self.limits();
        ((x / self.scale).round_ties_even() + self.zero_point as f64).clamp(least, greatest)
    }

    /// What `x` becomes.
    pub fn decoded(&self, x: f64) -> f64 {
        (self.code(x) - self.zero_point as f64) * self.scale
    }

    /// Whether `x` is farther from what it becomes than rounding alone takes it.
    fn saturates(&self, x: f64) -> bool {
        let (least, greatest) = self.limits();
        let q = x / self.scale + self.zero_point as f64;
        q < least - 0.5 || q > greatest + 0.5
    }
}

/// The least number of a float type that is not below `x`; infinite where there is none.
fn rounded_up(x: f64, dtype: DType) -> f64 {
    if dtype == DType::F16 {
        let h = f16::from_f64(x);
        let up = if h.to_f64() < x { f16::from_bits(h.to_bits() + 1) } else { h };
        return up.to_f64();
    }
    let s = x as f32;
    f64::from(if f64::from(s) < x { s.next_up() } else { s })
}

/// Finds the range of what `h` has counted, for a value of type `dtype`.
pub fn calibrate(h: &Histogram, method: Method, form: Form, dtype: DType) -> Result<Calibrated, Refusal> {
    if h.not_finite() > 0 {
        return Err(Refusal::new(format!("{} elements are not finite", h.not_finite())));
    }
    let (lo, hi) = match method {
        Method::MinMax => (h.min(), h.max()),
        Method::Percentile(p) => {
            let tail = (100.0 - p) / 200.0;
            (h.quantile(tail).min(0.0), h.quantile(1.0 - tail).max(0.0))
        }
        Method::Mse => least_error(h, form, dtype),
        Method::Entropy => least_divergence(h, form, dtype),
    };
    let affine = Affine::new(lo, hi, form, dtype)?;
    let outside: u64 = h.bins().filter(|(x, _)| affine.saturates(*x)).map(|(_, n)| n).sum();
    let noise = error(h, &affine);
    Ok(Calibrated {
        min: h.min(),
        max: h.max(),
        lo,
        hi,
        affine,
        saturated: outside as f64 / h.count().max(1) as f64,
        snr_db: if noise == 0.0 { f64::INFINITY } else { 10.0 * (h.energy() / noise).log10() },
    })
}

/// The sum of the squared differences.
fn error(h: &Histogram, a: &Affine) -> f64 {
    h.bins().map(|(x, n)| (x - a.decoded(x)).powi(2) * n as f64).sum()
}

/// Both ends cut to a part of the greatest magnitude.
fn cut(h: &Histogram, part: u32) -> (f64, f64) {
    let end = h.max().max(-h.min()) * f64::from(part) / f64::from(STEPS);
    (h.min().max(-end), h.max().min(end))
}

/// The range of the least squared error: both ends are cut alike, then each alone.
fn least_error(h: &Histogram, form: Form, dtype: DType) -> (f64, f64) {
    let cost = |(lo, hi): (f64, f64)| Affine::new(lo, hi, form, dtype).map_or(f64::INFINITY, |a| error(h, &a));
    let mut best = ((h.min(), h.max()), cost((h.min(), h.max())));
    let take = |range, best: &mut ((f64, f64), f64)| {
        let c = cost(range);
        if c < best.1 {
            *best = (range, c);
        }
    };
    (1..STEPS).for_each(|i| take(cut(h, i), &mut best));
    if form != Form::Int8 && h.min() < 0.0 && h.max() > 0.0 {
        for _ in 0..2 {
            let hi = best.0.1;
            (0..STEPS).for_each(|i| take((h.min() * f64::from(i) / f64::from(STEPS), hi), &mut best));
            let lo = best.0.0;
            (0..STEPS).for_each(|i| take((lo, h.max() * f64::from(i) / f64::from(STEPS)), &mut best));
        }
    }
    best.0
}

/// The range of the least divergence.
fn least_divergence(h: &Histogram, form: Form, dtype: DType) -> (f64, f64) {
    let bins: Vec<(f64, u64)> = h.bins().collect();
    let mut best = ((h.min(), h.max()), f64::INFINITY);
    for part in (LEAST..=STEPS).rev() {
        let (lo, hi) = cut(h, part);
        let Ok(affine) = Affine::new(lo, hi, form, dtype) else { continue };
        let cost = divergence(&bins, lo, hi, &affine);
        if cost < best.1 {
            best = ((lo, hi), cost);
        }
    }
    best.0
}

/// How far the elements within a range, spread evenly over the bins of each integer, are from all elements, those outside
/// counted at the ends. Elements that are zero stay zero, and do not count.
fn divergence(bins: &[(f64, u64)], lo: f64, hi: f64, a: &Affine) -> f64 {
    let from = bins.partition_point(|(x, _)| *x < lo);
    let to = bins.partition_point(|(x, _)| *x <= hi);
    let Some(inside) = bins.get(from..to).filter(|b| !b.is_empty()) else { return f64::INFINITY };
    let sum = |b: &[(f64, u64)]| b.iter().map(|(_, n)| *n as f64).sum::<f64>();
    let (below, within, above) = (sum(&bins[..from]), sum(inside), sum(&bins[to..]));
    let all = below + within + above;
    let (mut total, mut at) = (0.0, 0);
    while at < inside.len() {
        let code = a.code(inside[at].0);
        let len = inside[at..].iter().take_while(|(x, _)| a.code(*x) == code).count();
        let run = &inside[at..at + len];
        let q = sum(run) / len as f64 / within;
        for (i, (_, n)) in run.iter().enumerate() {
            let mut p = *n as f64;
            if at + i == 0 {
                p += below;
            }
            if at + i + 1 == inside.len() {
                p += above;
            }
            let p = p / all;
            total += p * (p / q).ln();
        }
        at += len;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_tensor::Tensor;
    use proptest::prelude::*;

    const FORMS: [Form; 3] = [Form::Int8, Form::Int8Asymmetric, Form::Uint8];
    const METHODS: [Method; 4] = [Method::MinMax, Method::Percentile(DEFAULT_PERCENTILE), Method::Mse, Method::Entropy];

    fn of(values: &[f32]) -> Histogram {
        let mut h = Histogram::default();
        h.add(&Tensor::from_vec(&[values.len()], values.to_vec()));
        h
    }

    fn found(h: &Histogram, method: Method, form: Form) -> Calibrated {
        calibrate(h, method, form, DType::F32).expect("finite elements")
    }

    /// Of a normal distribution with heavy tails: one element in a thousand is 40 times larger.
    fn heavy_tails() -> Vec<f32> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        (0..50_000)
            .map(|i| {
                let x = (0..12).map(|_| next()).sum::<f32>() - 6.0;
                if i % 1000 == 0 { x * 40.0 } else { x }
            })
            .collect()
    }

    #[test]
    fn texts_are_read_and_written() {
        for text in ["min-max", "percentile=99.99", "percentile=50", "mse", "entropy"] {
            assert_eq!(Method::parse(text).map(|m| m.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Method::parse("percentile"), Some(Method::Percentile(99.99)));
        for text in ["", "max", "percentile=", "percentile=nan", "percentile=101", "percentile=1", "mse=3"] {
            assert_eq!(Method::parse(text), None, "{text}");
        }
        for form in FORMS {
            assert_eq!(Form::parse(&form.to_string()), Some(form));
        }
        assert_eq!(Form::parse("int4"), None);
    }

    #[test]
    fn integers_follow_from_the_range() {
        let of = |lo, hi, form| Affine::new(lo, hi, form, DType::F32).expect("a range");
        let a = of(-1.27, 2.54, Form::Int8);
        assert_eq!((a.dtype, a.zero_point), (DType::I8, 0));
        assert!((a.scale - 0.02).abs() < 1e-8);
        let a = of(0.0, 2.55, Form::Uint8);
        assert_eq!((a.dtype, a.zero_point, a.code(2.55), a.code(9.0), a.code(-1.0)), (DType::U8, 0, 255.0, 255.0, 0.0));
        let a = of(-0.55, 2.0, Form::Int8Asymmetric);
        assert_eq!((a.zero_point, a.code(2.0), a.code(-0.55)), (-73, 127.0, -128.0));
    }

    #[test]
    fn scales_are_numbers_of_the_values_type() {
        let a = Affine::new(0.0, 1.0, Form::Int8, DType::F16).expect("a range");
        assert_eq!(a.scale, f16::from_f64(a.scale).to_f64());
        assert!(a.scale >= 1.0 / 127.0 && a.scale < 1.001 / 127.0);
        let e = Affine::new(0.0, 1e-6, Form::Int8, DType::F16).expect_err("less than the least half");
        assert!(e.to_string().contains("too small"), "{e}");
        assert!(Affine::new(0.0, 1e-6, Form::Int8, DType::F32).is_ok());
        assert!(Affine::new(-65504.0, 65504.0, Form::Uint8, DType::F16).is_ok());
        assert!(Affine::new(f64::from(f32::MIN), f64::from(f32::MAX), Form::Uint8, DType::F32).is_ok());
    }

    #[test]
    fn zeros_and_nothing_have_scale_1() {
        for (method, form) in METHODS.iter().flat_map(|m| FORMS.map(|f| (*m, f))) {
            for values in [&[][..], &[0.0, -0.0, 0.0]] {
                let c = found(&of(values), method, form);
                assert_eq!((c.affine.scale, c.affine.zero_point, c.saturated), (1.0, 0, 0.0), "{method} {form}");
                assert_eq!(c.snr_db, f64::INFINITY);
            }
        }
    }

    #[test]
    fn a_constant_is_held() {
        for (method, form) in METHODS.iter().flat_map(|m| FORMS.map(|f| (*m, f))) {
            for x in [3.0f32, -0.125, 1e20] {
                let c = found(&of(&[x; 100]), method, form);
                let back = c.affine.decoded(f64::from(x));
                assert!((back / f64::from(x) - 1.0).abs() < 0.01, "{method} {form} {x}: {back}");
            }
        }
    }

    #[test]
    fn elements_that_are_not_finite_are_refused() {
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let e = calibrate(&of(&[1.0, x]), Method::MinMax, Form::Int8, DType::F32).expect_err("not finite");
            assert_eq!(e.to_string(), "1 elements are not finite");
        }
    }

    #[test]
    fn heavy_tails_are_cut_off() {
        let h = of(&heavy_tails());
        for form in FORMS {
            let full = found(&h, Method::MinMax, form);
            assert_eq!((full.saturated, full.hi), (0.0, h.max()), "{form}");
            let clipped = found(&h, Method::Entropy, form);
            assert!(clipped.hi < full.hi / 4.0 && clipped.hi > 3.0, "{form}: {clipped:?}");
            assert!(clipped.saturated > 0.0 && clipped.saturated < 2e-3, "{form}: {clipped:?}");
            let part = found(&h, Method::Percentile(99.8), form);
            assert!(part.hi < full.hi / 4.0, "{form}: {part:?}");
            let least = found(&h, Method::Mse, form);
            assert!(least.snr_db >= full.snr_db, "{form}: {least:?}");
        }
    }

    #[test]
    fn an_even_distribution_is_not_cut_off() {
        let even: Vec<f32> = (0..20_000).map(|i| i as f32 / 10_000.0 - 1.0).collect();
        for (method, form) in METHODS.iter().flat_map(|m| FORMS.map(|f| (*m, f))) {
            let c = found(&of(&even), method, form);
            assert!(c.hi > 0.9 && c.lo < -0.9 && c.snr_db > 40.0, "{method} {form}: {c:?}");
        }
    }

    proptest! {
        #[test]
        fn ranges_hold(values in prop::collection::vec(-1e4f32..1e4, 1..80), method in 0..4usize, form in 0..3usize) {
            let (h, method, form) = (of(&values), METHODS[method], FORMS[form]);
            let c = found(&h, method, form);
            prop_assert!(c.min <= c.lo && c.lo <= 0.0 && 0.0 <= c.hi && c.hi <= c.max, "{:?}", c);
            prop_assert!(c.affine.decoded(0.0) == 0.0);
            prop_assert!((0.0..=1.0).contains(&c.saturated));
            for x in values.iter().map(|x| f64::from(*x)).filter(|x| (c.lo..=c.hi).contains(x)) {
                // Half a step for rounding, half for the zero point.
                prop_assert!((x - c.affine.decoded(x)).abs() <= c.affine.scale * 1.001, "{} {:?}", x, c);
            }
        }

        #[test]
        fn the_least_error_is_no_greater_than_that_of_the_whole_range(values in prop::collection::vec(-8f32..8.0, 1..80)) {
            let h = of(&values);
            for form in FORMS {
                prop_assert!(found(&h, Method::Mse, form).snr_db >= found(&h, Method::MinMax, form).snr_db);
            }
        }
    }
}
