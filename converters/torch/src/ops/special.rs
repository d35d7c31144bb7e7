//! Special functions, of polynomials and logarithms.

use super::pointwise::{float, log1p_of};
use super::promote::float_operands;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered};
use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI};

aten! {
    "special_entr(Tensor self) -> Tensor" => |n| {
        // `-x * log(x)`, 0 at 0, and below it negative infinity.
        let x = float(n)?;
        let (zero, low) = (n.scalar_like(x, 0.0)?, n.scalar_like(x, f64::NEG_INFINITY)?);
        let log = n.log(x)?;
        let y = n.mul(x, log)?;
        let y = n.scale(y, -1.0)?;
        let (on, below) = (n.equal(x, zero)?, n.less(x, zero)?);
        let y = n.select(on, zero, y)?;
        n.emit(ops::Select { cond: below, a: low, b: y })
    };
    "special_xlog1py(Tensor self, Tensor other) -> Tensor",
    "special_xlog1py.self_scalar(Scalar self, Tensor other) -> Tensor",
    "special_xlog1py.other_scalar(Tensor self, Scalar other) -> Tensor" => |n| {
        let [x, y] = float_operands(n, ["self", "other"])?;
        let log = log1p_of(n, y)?;
        let (product, zero) = (n.mul(x, log)?, n.scalar_like(x, 0.0)?);
        let (none, number) = (n.equal(x, zero)?, n.equal(y, y)?);
        let none = n.and(none, number)?;
        n.emit(ops::Select { cond: none, a: zero, b: product })
    };
    "special_ndtr(Tensor self) -> Tensor" => |n| {
        let x = float(n)?;
        let x = n.scale(x, FRAC_1_SQRT_2)?;
        let y = n.op(ops::Erf { x })?;
        let y = n.add_number(y, 1.0)?;
        let y = n.scale(y, 0.5)?;
        n.done(y)
    };
    "special_log_ndtr(Tensor self) -> Tensor" => log_ndtr;
    "special_ndtri(Tensor self) -> Tensor" => |n| {
        let x = float(n)?;
        let x = n.scale(x, 2.0)?;
        let x = n.add_number(x, -1.0)?;
        let y = super::functions::erfinv_of(n, x)?;
        let y = n.scale(y, 2f64.sqrt())?;
        n.done(y)
    };
    "special_erfcx(Tensor self) -> Tensor" => |n| { let x = float(n)?; let y = erfcx(n, x)?; n.done(y) };
    "lgamma(Tensor self) -> Tensor", "special_gammaln(Tensor self) -> Tensor" => |n| { let x = float(n)?; let y = lgamma(n, x)?; n.done(y) };
    "mvlgamma(Tensor self, int p) -> Tensor", "special_multigammaln(Tensor self, int p) -> Tensor" => mvlgamma;
    "digamma(Tensor self) -> Tensor", "special_digamma(Tensor self) -> Tensor", "special_psi(Tensor self) -> Tensor" => digamma;
    "i0(Tensor self) -> Tensor", "special_i0(Tensor self) -> Tensor" => |n| bessel(n, &I0, false);
    "special_i0e(Tensor self) -> Tensor" => |n| bessel(n, &I0, true);
    "special_i1(Tensor self) -> Tensor" => |n| bessel(n, &I1, false);
    "special_i1e(Tensor self) -> Tensor" => |n| bessel(n, &I1, true);
    "special_bessel_j0(Tensor self) -> Tensor" => |n| first_kind(n, &J0);
    "special_bessel_j1(Tensor self) -> Tensor" => |n| first_kind(n, &J1);
    "special_chebyshev_polynomial_t.n_scalar(Tensor x, Scalar n) -> Tensor" => |n| recurrence(n, |n, x, _| Ok([one(n, x)?, x]), |_| [2.0, 0.0, 1.0]);
    "special_chebyshev_polynomial_u.n_scalar(Tensor x, Scalar n) -> Tensor" => |n| recurrence(n, |n, x, one| Ok([one, n.scale(x, 2.0)?]), |_| [2.0, 0.0, 1.0]);
    "special_hermite_polynomial_h.n_scalar(Tensor x, Scalar n) -> Tensor" => |n| recurrence(n, |n, x, one| Ok([one, n.scale(x, 2.0)?]), |k| [2.0, 0.0, 2.0 * k]);
    "special_hermite_polynomial_he.n_scalar(Tensor x, Scalar n) -> Tensor" => |n| recurrence(n, |_, x, one| Ok([one, x]), |k| [1.0, 0.0, k]);
    "special_legendre_polynomial_p.n_scalar(Tensor x, Scalar n) -> Tensor" => |n| recurrence(n, |_, x, one| Ok([one, x]), |k| [(2.0 * k + 1.0) / (k + 1.0), 0.0, k / (k + 1.0)]);
    "special_laguerre_polynomial_l.n_scalar(Tensor x, Scalar n) -> Tensor" => |n| {
        let first = |n: &mut Lower<'_>, x: Value, one: Value| { let y = n.sub(one, x)?; Ok([one, y]) };
        recurrence(n, first, |k| [-1.0 / (k + 1.0), (2.0 * k + 1.0) / (k + 1.0), k / (k + 1.0)])
    };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// A polynomial in `x`, by its coefficients, that of the highest power first.
fn polynomial(n: &mut Lower<'_>, x: Value, coefficients: &[f64]) -> Result<Value> {
    let Some((first, rest)) = coefficients.split_first() else { return Err(LowerError::Poisoned) };
    let mut y = n.scalar_like(x, *first)?;
    for c in rest {
        y = n.mul(y, x)?;
        y = n.add_number(y, *c)?;
    }
    Ok(y)
}

/// `one / x`.
fn inverse(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let one = n.scalar_like(x, 1.0)?;
    n.div(one, x)
}

/// As many ones as `x` has elements.
fn one(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let one = n.scalar_like(x, 1.0)?;
    n.broadcast_like(one, x)
}

/// Polynomials of the degree `n`: the next is `(a * x + b) * this - c * the one before`, with `[a, b, c]` of the degree of
/// this.
fn recurrence(
    n: &mut Lower<'_>,
    first: fn(&mut Lower<'_>, Value, Value) -> Result<[Value; 2]>,
    next: fn(f64) -> [f64; 3],
) -> Lowered {
    let x = n.value("x")?;
    let x = n.as_float(x)?;
    let degree = n.number("n")?.unwrap_or(0.0);
    if !(0.0..64.0).contains(&degree) {
        return n.bad_attr("n", "0 to 63");
    }
    let one = one(n, x)?;
    let [mut before, mut this] = first(n, x, one)?;
    if degree < 1.0 {
        return n.done(before);
    }
    for k in 1..degree as i64 {
        let [a, b, c] = next(k as f64);
        let factor = n.scale(x, a)?;
        let factor = if b == 0.0 { factor } else { n.add_number(factor, b)? };
        let (grown, less) = (n.mul(factor, this)?, n.scale(before, c)?);
        (before, this) = (this, n.sub(grown, less)?);
    }
    n.done(this)
}

/// `e^(x^2) * (1 - erf(x))`. Source: Press et al., Numerical Recipes, 6.2, for the polynomial.
fn erfcx(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let size = n.abs(x)?;
    let t = n.scale(size, 0.5)?;
    let t = n.add_number(t, 1.0)?;
    let t = inverse(n, t)?;
    let power = polynomial(
        n,
        t,
        &[
            0.170_872_77,
            -0.822_152_23,
            1.488_515_87,
            -1.135_203_98,
            0.278_868_07,
            -0.186_288_06,
            0.096_784_18,
            0.374_091_96,
            1.000_023_68,
            -1.265_512_23,
        ],
    )?;
    let power = n.exp(power)?;
    let above = n.mul(t, power)?;
    let square = n.mul(x, x)?;
    let twice = n.exp(square)?;
    let twice = n.scale(twice, 2.0)?;
    let below = n.sub(twice, above)?;
    let zero = n.scalar_like(x, 0.0)?;
    let negative = n.less(x, zero)?;
    n.select(negative, below, above)
}

/// The logarithm of the share of a normal distribution below `x`, by another way far below 0.
fn log_ndtr(n: &mut Lower<'_>) -> Lowered {
    let x = float(n)?;
    let minus_one = n.scalar_like(x, -1.0)?;
    let far = n.less(x, minus_one)?;
    let low = n.minimum(x, minus_one)?;
    let low = n.scale(low, -FRAC_1_SQRT_2)?;
    let (tail, square) = (erfcx(n, low)?, n.mul(low, low)?);
    let tail = n.log(tail)?;
    let tail = n.sub(tail, square)?;
    let tail = n.add_number(tail, -LN_2)?;
    let high = n.scale(x, FRAC_1_SQRT_2)?;
    let share = n.op(ops::Erf { x: high })?;
    // `log(1 + y)` keeps what is near 1.
    let share = n.add_number(share, -1.0)?;
    let share = n.scale(share, 0.5)?;
    let near = log1p_of(n, share)?;
    n.emit(ops::Select { cond: far, a: tail, b: near })
}

/// Steps by which arguments are raised before a series is used.
const RAISED: usize = 6;

/// The logarithm of the gamma function: Stirling's series of a greater argument, and by reflection below 1/2.
fn lgamma(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let half = n.scalar_like(x, 0.5)?;
    let low = n.less(x, half)?;
    let other = n.scale(x, -1.0)?;
    let other = n.add_number(other, 1.0)?;
    let z = n.select(low, other, x)?;
    let mut product = z;
    for i in 1..RAISED {
        let factor = n.add_number(z, i as f64)?;
        product = n.mul(product, factor)?;
    }
    let product = n.log(product)?;
    let w = n.add_number(z, RAISED as f64)?;
    let log = n.log(w)?;
    let less = n.add_number(w, -0.5)?;
    let main = n.mul(less, log)?;
    let main = n.sub(main, w)?;
    let inverse = inverse(n, w)?;
    let square = n.mul(inverse, inverse)?;
    let series = polynomial(n, square, &[1.0 / 1260.0, -1.0 / 360.0, 1.0 / 12.0])?;
    let series = n.mul(series, inverse)?;
    let main = n.add(main, series)?;
    let main = n.add_number(main, 0.5 * (2.0 * PI).ln())?;
    let above = n.sub(main, product)?;
    // Of an infinite argument, both parts are.
    let infinite = n.scalar_like(x, f64::INFINITY)?;
    let end = n.equal(z, infinite)?;
    let above = n.select(end, infinite, above)?;
    let sine = sine_of_turns(n, x)?;
    let sine = n.abs(sine)?;
    let log = n.log(sine)?;
    let below = n.add(log, above)?;
    let below = n.scale(below, -1.0)?;
    let below = n.add_number(below, PI.ln())?;
    let zero = n.scalar_like(x, 0.0)?;
    let pole = n.equal(sine, zero)?;
    let below = n.select(pole, infinite, below)?;
    n.select(low, below, above)
}

/// `sin(pi * x)`, of `x` less its nearest integer but for the sign, so that nothing is lost far from 0.
fn sine_of_turns(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let whole = n.op(ops::Round { x })?;
    let part = n.sub(x, whole)?;
    let angle = n.scale(part, PI)?;
    n.op(ops::Sin { x: angle })
}

fn mvlgamma(n: &mut Lower<'_>) -> Lowered {
    let (x, p) = (float(n)?, n.int_or("p", 1)?);
    if !(1..=64).contains(&p) {
        return n.bad_attr("p", "1 to 64");
    }
    let mut sum = None;
    for i in 0..p {
        let at = n.add_number(x, -0.5 * i as f64)?;
        let part = lgamma(n, at)?;
        sum = Some(match sum {
            None => part,
            Some(sum) => n.add(sum, part)?,
        });
    }
    let y = sum.ok_or(LowerError::Poisoned)?;
    let y = n.add_number(y, (p * (p - 1)) as f64 / 4.0 * PI.ln())?;
    n.done(y)
}

/// The slope of [`lgamma`], by the same steps.
fn digamma(n: &mut Lower<'_>) -> Lowered {
    let x = float(n)?;
    let half = n.scalar_like(x, 0.5)?;
    let low = n.less(x, half)?;
    let other = n.scale(x, -1.0)?;
    let other = n.add_number(other, 1.0)?;
    let z = n.select(low, other, x)?;
    let mut sum = inverse(n, z)?;
    for i in 1..RAISED {
        let factor = n.add_number(z, i as f64)?;
        let part = inverse(n, factor)?;
        sum = n.add(sum, part)?;
    }
    let w = n.add_number(z, RAISED as f64)?;
    let log = n.log(w)?;
    let inverse = inverse(n, w)?;
    let square = n.mul(inverse, inverse)?;
    let series = polynomial(n, square, &[1.0 / 252.0, -1.0 / 120.0, 1.0 / 12.0])?;
    let series = n.mul(series, square)?;
    let half = n.scale(inverse, 0.5)?;
    let above = n.sub(log, half)?;
    let above = n.sub(above, series)?;
    let above = n.sub(above, sum)?;
    // `psi(x) = psi(1 - x) - pi / tan(pi * x)`, with the angle within half a turn.
    let whole = n.op(ops::Round { x })?;
    let part = n.sub(x, whole)?;
    let angle = n.scale(part, PI)?;
    let (sine, cosine) = (n.op(ops::Sin { x: angle })?, n.op(ops::Cos { x: angle })?);
    let slope = n.div(cosine, sine)?;
    let slope = n.scale(slope, PI)?;
    let below = n.sub(above, slope)?;
    let y = n.select(low, below, above)?;
    // There is no value at negative integers, and none but infinity at 0.
    let (zero, none) = (n.scalar_like(x, 0.0)?, n.scalar_like(x, f64::NAN)?);
    let low = n.scalar_like(x, f64::NEG_INFINITY)?;
    let (on, below) = (n.equal(part, zero)?, n.less(x, zero)?);
    let pole = n.and(on, below)?;
    let y = n.select(pole, none, y)?;
    let origin = n.equal(x, zero)?;
    n.emit(ops::Select { cond: origin, a: low, b: y })
}

/// A modified Bessel function: near 0 in `(x / 3.75)^2`, and far from it in `3.75 / x`. Source: Abramowitz and Stegun, 9.8.
struct Modified {
    near: &'static [f64],
    far: &'static [f64],
    odd: bool,
}

const I0: Modified = Modified {
    near: &[0.004_581_3, 0.036_076_8, 0.265_973_2, 1.206_749_2, 3.089_942_4, 3.515_622_9, 1.0],
    far: &[
        0.003_923_77,
        -0.016_476_33,
        0.026_355_37,
        -0.020_577_06,
        0.009_162_81,
        -0.001_575_65,
        0.002_253_19,
        0.013_285_92,
        0.398_942_28,
    ],
    odd: false,
};

const I1: Modified = Modified {
    near: &[0.000_324_11, 0.003_015_32, 0.026_587_33, 0.150_849_34, 0.514_988_69, 0.878_905_94, 0.5],
    far: &[
        -0.004_200_59,
        0.017_876_54,
        -0.028_953_12,
        0.022_829_67,
        -0.010_315_55,
        0.001_638_01,
        -0.003_620_18,
        -0.039_880_24,
        0.398_942_28,
    ],
    odd: true,
};

/// `scaled`, it is divided by `e^|x|`.
fn bessel(n: &mut Lower<'_>, kind: &Modified, scaled: bool) -> Lowered {
    let x = float(n)?;
    let (size, limit) = (n.abs(x)?, n.scalar_like(x, 3.75)?);
    let is_near = n.less(size, limit)?;
    let (small, large) = (n.minimum(size, limit)?, n.maximum(size, limit)?);
    let t = n.scale(small, 1.0 / 3.75)?;
    let t = n.mul(t, t)?;
    let mut near = polynomial(n, t, kind.near)?;
    if kind.odd {
        near = n.mul(near, small)?;
    }
    let t = n.div(limit, large)?;
    let far = polynomial(n, t, kind.far)?;
    let root = n.sqrt(large)?;
    let mut far = n.div(far, root)?;
    if scaled {
        let minus = n.scale(small, -1.0)?;
        let fall = n.exp(minus)?;
        near = n.mul(near, fall)?;
    } else {
        let growth = n.exp(large)?;
        far = n.mul(far, growth)?;
    }
    let y = n.select(is_near, near, far)?;
    if !kind.odd {
        return n.done(y);
    }
    let sign = n.op(ops::Sign { x })?;
    n.emit(ops::Mul { x: y, y: sign })
}

/// A Bessel function: near 0 a quotient in `x^2`, and far from it a wave whose size and phase are polynomials in `8 / x`.
/// Source: Press et al., Numerical Recipes, 6.5.
struct First {
    over: &'static [f64],
    under: &'static [f64],
    cosine: &'static [f64],
    sine: &'static [f64],
    phase: f64,
    odd: bool,
}

const J0: First = First {
    over: &[-184.905_245_6, 77_392.330_17, -11_214_424.18, 651_619_640.7, -13_362_590_354.0, 57_568_490_574.0],
    under: &[1.0, 267.853_271_2, 59_272.648_53, 9_494_680.718, 1_029_532_985.0, 57_568_490_411.0],
    cosine: &[2.093_887_211e-7, -2.073_370_639e-6, 2.734_510_407e-5, -1.098_628_627e-3, 1.0],
    sine: &[-9.349_451_52e-8, 7.621_095_161e-7, -6.911_147_651e-6, 1.430_488_765e-4, -1.562_499_995e-2],
    phase: PI / 4.0,
    odd: false,
};

const J1: First = First {
    over: &[-30.160_366_06, 15_704.482_60, -2_972_611.439, 242_396_853.1, -7_895_059_235.0, 72_362_614_232.0],
    under: &[1.0, 376.999_139_7, 99_447.433_94, 18_583_304.74, 2_300_535_178.0, 144_725_228_442.0],
    cosine: &[-2.403_370_19e-7, 2.457_520_174e-6, -3.516_396_496e-5, 1.831_05e-3, 1.0],
    sine: &[1.057_874_12e-7, -8.822_898_7e-7, 8.449_199_096e-6, -2.002_690_873e-4, 0.046_874_999_95],
    phase: 3.0 * PI / 4.0,
    odd: true,
};

fn first_kind(n: &mut Lower<'_>, kind: &First) -> Lowered {
    let x = float(n)?;
    let (size, limit) = (n.abs(x)?, n.scalar_like(x, 8.0)?);
    let is_near = n.less(size, limit)?;
    let (small, large) = (n.minimum(size, limit)?, n.maximum(size, limit)?);
    let square = n.mul(small, small)?;
    let (over, under) = (polynomial(n, square, kind.over)?, polynomial(n, square, kind.under)?);
    let mut near = n.div(over, under)?;
    if kind.odd {
        near = n.mul(near, small)?;
    }
    let z = n.div(limit, large)?;
    let square = n.mul(z, z)?;
    let (of_cosine, of_sine) = (polynomial(n, square, kind.cosine)?, polynomial(n, square, kind.sine)?);
    let angle = n.add_number(large, -kind.phase)?;
    let (cosine, sine) = (n.op(ops::Cos { x: angle })?, n.op(ops::Sin { x: angle })?);
    let of_sine = n.mul(z, of_sine)?;
    let (a, b) = (n.mul(cosine, of_cosine)?, n.mul(sine, of_sine)?);
    let wave = n.sub(a, b)?;
    let share = inverse(n, large)?;
    let share = n.scale(share, 2.0 / PI)?;
    let share = n.sqrt(share)?;
    let far = n.mul(share, wave)?;
    let y = n.select(is_near, near, far)?;
    if !kind.odd {
        return n.done(y);
    }
    let sign = n.op(ops::Sign { x })?;
    n.emit(ops::Mul { x: y, y: sign })
}
