//! Functions of single numbers.

use std::f32::consts::LOG2_E;

/// The greater of two numbers; NaN where one of them is.
#[inline]
pub(super) fn maximum(x: f32, y: f32) -> f32 {
    if x.is_nan() || x > y { x } else { y }
}

/// The lesser of two numbers; NaN where one of them is.
#[inline]
pub(super) fn minimum(x: f32, y: f32) -> f32 {
    if x.is_nan() || x < y { x } else { y }
}

/// `e^x`, to about one unit in the last place, in operations that vector instructions have.
///
/// `e^x = 2^k e^r` with `k` the integer nearest to `x / ln 2`; of the series of `e^r`, `|r| <= ln 2 / 2`, the terms to the
/// seventh power are summed.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and subtracting it leaves the nearest integer; in between, the low bits hold it.
    const MAGIC: f32 = 12_582_912.0;
    // The upper bits of ln 2, whose product with `k` is exact, and what is left.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = LN_2_LOW_EXACT as f32;
    const LN_2_LOW_EXACT: f64 = std::f64::consts::LN_2 - LN_2_HIGH as f64;
    let clamped = if x < -104.0 { -104.0 } else { x };
    let clamped = if clamped > 89.0 { 89.0 } else { clamped };
    let shifted = clamped * LOG2_E + MAGIC;
    let k = shifted - MAGIC;
    let r = clamped - k * LN_2_HIGH - k * LN_2_LOW;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    // Two factors, as one may be outside of the range of exponents.
    let bits = shifted.to_bits() as i32 - MAGIC.to_bits() as i32;
    let half = bits >> 1;
    let power = |k: i32| f32::from_bits(((k + 127) << 23) as u32);
    p * power(half) * power(bits - half)
}

/// `1 / (1 + e^-x)`, in a form that does not overflow.
#[inline]
pub(super) fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// The hyperbolic tangent.
///
/// Near 0, where the difference of exponentials would lose digits, it is the continued fraction of Lambert to five levels.
#[inline]
pub(super) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let near = x * (945.0 + square * (105.0 + square)) / (945.0 + square * (420.0 + 15.0 * square));
    let e = exp(-2.0 * x.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    if square < 0.36 { near } else { far }
}

/// `log(1 + e^x)`, in a form that does not overflow.
pub(super) fn softplus(x: f32) -> f32 {
    (-x.abs()).exp().ln_1p() + maximum(x, 0.0)
}

/// The integer part of a quotient, where rounding the quotient first would err.
pub(super) fn floor_div(x: f32, y: f32) -> f32 {
    (f64::from(x) / f64::from(y)).floor() as f32
}

/// The remainder that has the sign of `y`.
pub(super) fn modulo(x: f32, y: f32) -> f32 {
    let r = x % y;
    if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r }
}

/// `x / 2 * (1 + erf(x / sqrt(2)))`: `x` times the probability that a standard normal number is below it.
///
/// For a negative `x` the sum would lose all digits; there the probability is `t e^(-x^2 / 2) q(t) / 2`, with
/// `z = |x| / sqrt(2)` and `t = 1 / (1 + 0.4 z)`. The polynomial `q` is fitted to `e^(z^2) erfc(z) / t` for `z` up to 10 by
/// least squares at Chebyshev nodes; it errs by a part in 10^8.
#[inline]
pub(super) fn gelu(x: f32) -> f32 {
    const Q: [f64; 10] = [
        -0.030_429_896,
        0.202_371_18,
        -0.508_615_6,
        0.559_893_1,
        -0.294_196_3,
        0.277_049_66,
        0.128_059_54,
        0.215_244_23,
        0.224_915_5,
        0.225_708_66,
    ];
    let wide = f64::from(x);
    let t = 1.0 / (1.0 + 0.4 * std::f64::consts::FRAC_1_SQRT_2 * wide.abs());
    let q = Q.into_iter().fold(0.0, |q, c| q * t + c);
    // The square is kept in two parts, as the exponential magnifies its error.
    let square = -0.5 * wide * wide;
    let high = square as f32;
    let low = if high < -150.0 { 0.0 } else { square - f64::from(high) };
    let below = 0.5 * t * q * f64::from(exp(high)) * (1.0 + low);
    (wide * if x < 0.0 { below } else { 1.0 - below }) as f32
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`, as `x` times the sigmoid of twice the angle.
pub(super) fn gelu_tanh(x: f32) -> f32 {
    const FACTOR: f32 = 1.595_769;
    x * sigmoid(FACTOR * (x + 0.044_715 * x * x * x))
}

/// The error in units in the last place that `exp` may have is tested against this.
#[cfg(test)]
mod tests {
    use super::*;

    fn worst(got: fn(f32) -> f32, want: fn(f64) -> f64, range: std::ops::Range<f32>) -> f64 {
        let n = 1_000_003;
        let mut worst = 0f64;
        for i in 0..n {
            let x = range.start + (range.end - range.start) * (i as f32 / n as f32);
            let want = want(f64::from(x));
            let ulp = f64::from((want as f32).abs().max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON) / 2.0;
            worst = worst.max((f64::from(got(x)) - want).abs() / ulp);
        }
        worst
    }

    #[test]
    fn functions_are_right_to_about_two_units_in_the_last_place() {
        let normal = |x: f64| 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        let cases: [(&str, f64); 4] = [
            ("gelu", worst(gelu, normal, -12.0..12.0)),
            ("exp", worst(exp, f64::exp, -87.0..88.7)),
            ("tanh", worst(tanh, f64::tanh, -10.0..10.0)),
            ("sigmoid", worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0..20.0)),
        ];
        for (name, worst) in cases {
            assert!(worst <= 4.0, "{name} errs by {worst} half units");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_those_of_the_definition() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!((exp(-100.0) - (-100f32).exp()).abs(), 0.0);
        assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert_eq!((sigmoid(f32::INFINITY), sigmoid(f32::NEG_INFINITY)), (1.0, 0.0));
        assert_eq!(tanh(-0.0).to_bits(), (-0f32).to_bits());
        for f in [exp, tanh, sigmoid, softplus, gelu, |x| maximum(x, 0.0), |x| minimum(0.0, x), |x| maximum(0.0, x)] {
            assert!(f(f32::NAN).is_nan());
        }
    }
}
