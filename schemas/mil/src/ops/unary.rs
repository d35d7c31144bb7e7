//! Elementwise ops of one operand.

use super::binary::{maximum, minimum, with_ints_in_range};
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, OpMeta, Opset, Out, Semantics, Tensors, mil_name},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Tensor};
use smallvec::smallvec;

/// Declares ops of one float operand and no parameter.
macro_rules! float_unary {
    ($($(#[$doc:meta])* $ty:ident = $name:literal, $f:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15, elementwise)]
        #[domain(T: Ios15 = F16 | F32)]
        pub struct $ty {
            /// `T[*d]`.
            #[operand(T)]
            pub x: Value,
        }
        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                $crate::ops::unary::like(cx, self.x)
            }
            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                let f: fn(f64) -> f64 = $f;
                Ok($crate::ops::unary::map(cx, self.x, f))
            }
        }
    )* };
}
pub(super) use float_unary;

float_unary! {
    /// The angle in `0..=pi` whose cosine is `x`; NaN outside `-1..=1`.
    Acos = "acos", f64::acos;
    /// The angle in `-pi/2..=pi/2` whose sine is `x`; NaN outside `-1..=1`.
    Asin = "asin", f64::asin;
    /// The angle in `-pi/2..=pi/2` whose tangent is `x`.
    Atan = "atan", f64::atan;
    /// The number whose hyperbolic tangent is `x`; infinite at -1 and 1, NaN outside.
    Atanh = "atanh", f64::atanh;
    /// The least integer that is not below `x`.
    Ceil = "ceil", f64::ceil;
    /// The cosine of an angle in radians.
    Cos = "cos", f64::cos;
    /// The hyperbolic cosine.
    Cosh = "cosh", f64::cosh;
    /// The error function, `2 / sqrt(pi)` times the integral of `exp(-t^2)` from 0 to `x`.
    Erf = "erf", libm::erf;
    /// `e^x`.
    Exp = "exp", f64::exp;
    /// The greatest integer that is not above `x`.
    Floor = "floor", f64::floor;
    /// The nearest integer, the even one of two.
    Round = "round", f64::round_ties_even;
    /// The sine of an angle in radians.
    Sin = "sin", f64::sin;
    /// The hyperbolic sine.
    Sinh = "sinh", f64::sinh;
    /// The square root; NaN of what is negative.
    Sqrt = "sqrt", f64::sqrt;
    /// The tangent of an angle in radians.
    Tan = "tan", f64::tan;
    /// The hyperbolic tangent.
    Tanh = "tanh", f64::tanh;
}

/// A result of the type of `x`, elements unknown.
pub(super) fn like(cx: &InferCx<'_>, x: Value) -> Result<Facts, OpError> {
    let x = cx.tensor("x", x)?;
    cx.result(x.dtype, x.shape.clone())
}

/// `f` of every element of `x`.
pub(super) fn map(cx: &EvalCx<'_>, x: Value, f: impl Fn(f64) -> f64) -> Tensors {
    let mut values = cx.f64(x);
    for v in &mut values {
        *v = f(*v);
    }
    smallvec![cx.out(0).of(&values)]
}

/// Declares ops of one operand, float or integer, and no parameter.
macro_rules! numeric_unary {
    ($($(#[$doc:meta])* $ty:ident = $name:literal, $float:expr, $int:expr, $dim:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15, elementwise)]
        #[domain(T: Ios15 = F16 | F32 | I32)]
        pub struct $ty {
            /// `T[*d]`.
            #[operand(T)]
            pub x: Value,
        }
        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                let f: fn(&Dim) -> Option<Dim> = $dim;
                like_known(cx, self.x, f)
            }
            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                let (float, int): (fn(f64) -> f64, fn(i64) -> i64) = ($float, $int);
                Ok(map_either(cx, self.x, float, int))
            }
        }
    )* };
}

numeric_unary! {
    /// `x` without its sign; the least integer stays as it is.
    Abs = "abs", f64::abs, i64::wrapping_abs, |x| Some(x.maximum(&-x));
    /// `2^x`. Of integers, a fraction is truncated to zero and what is too large saturates.
    Exp2 = "exp2", f64::exp2, |x| (x as f64).exp2() as i32 as i64,
        |x| Some(Dim::from(1i64.checked_shl(u32::try_from(x.as_known()?).ok()?)?));
    /// -1, 0 or 1 as `x` is negative, zero or positive; NaN of NaN.
    Sign = "sign", |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }, i64::signum,
        |x| Some(Dim::from(x.as_known()?.signum()));
    /// `x * x`; integers wrap.
    Square = "square", |x| x * x, |x| x.wrapping_mul(x), |x| Some(x * x);
}

/// A result of the type of `x`, whose known elements are `f` of those of `x`.
fn like_known(cx: &InferCx<'_>, x: Value, f: impl Fn(&Dim) -> Option<Dim>) -> Result<Facts, OpError> {
    let mut facts = like(cx, x)?;
    let ints: Option<Vec<Dim>> = cx.ints(x).and_then(|v| v.iter().map(f).collect());
    if let Some(ints) = ints {
        facts = facts.into_iter().map(|fact| with_ints_in_range(fact, ints.clone())).collect();
    }
    Ok(facts)
}

fn map_either(cx: &EvalCx<'_>, x: Value, float: impl Fn(f64) -> f64, int: impl Fn(i64) -> i64) -> Tensors {
    if cx.tensor(x).dtype().is_float() {
        return map(cx, x, float);
    }
    smallvec![cx.out(0).of_ints(&cx.i64(x).into_iter().map(int).collect::<Vec<_>>())]
}

/// Declares ops of one float operand and a small number that keeps them finite.
macro_rules! stabilized {
    ($($(#[$doc:meta])* $ty:ident = $name:literal, $epsilon:literal, $f:expr;)*) => { $(
        $(#[$doc])*
        ///
        /// `epsilon` is rounded to the type of `x`, so that a tiny one is zero in half precision.
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15, elementwise)]
        #[domain(T: Ios15 = F16 | F32)]
        #[domain(U: Ios15 = T, Ios17 = F16 | F32)]
        pub struct $ty {
            /// `T[*d]`.
            #[operand(T)]
            pub x: Value,
            /// Added to `x`.
            #[attr(U, default = $epsilon)]
            pub epsilon: f32,
        }
        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                like(cx, self.x)
            }
            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                let f: fn(f64) -> f64 = $f;
                let epsilon = rounded(cx.out(0), self.epsilon);
                Ok(map(cx, self.x, |x| f(x + epsilon)))
            }
        }
    )* };
}

stabilized! {
    /// `1 / (x + epsilon)`.
    Inverse = "inverse", 1e-4, f64::recip;
    /// The natural logarithm of `x + epsilon`.
    Log = "log", 1e-45, f64::ln;
    /// `1 / sqrt(x + epsilon)`.
    Rsqrt = "rsqrt", 1e-12, |x| x.sqrt().recip();
}

/// `value` as an element of `out` holds it.
fn rounded(out: &Out, value: f32) -> f64 {
    let value = f64::from(value);
    Tensor::from_f64(out.dtype, &[], &[value]).to_f64().first().copied().unwrap_or(value)
}

/// `min(max(x, alpha), beta)`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "clip", since = Ios15, elementwise)]
#[domain(T: Ios15 = F16 | F32)]
pub struct Clip {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// The least result.
    #[attr(T)]
    pub alpha: f32,
    /// The greatest result; above `alpha` since iOS 17.
    #[attr(T)]
    pub beta: f32,
}

impl Semantics for Clip {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        if cx.opset >= Opset::Ios17 && self.alpha >= self.beta {
            let want = format!("more than `alpha` = {}", self.alpha);
            return Err(OpError::Value { param: "beta", found: self.beta.to_string(), want: want.into() });
        }
        like(cx, self.x)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (alpha, beta) = (f64::from(self.alpha), f64::from(self.beta));
        Ok(map(cx, self.x, |x| minimum(maximum(x, alpha), beta)))
    }
}

/// Whether `x` does not hold.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "logical_not", since = Ios15, elementwise)]
#[domain(T: Ios15 = Bool)]
pub struct LogicalNot {
    /// `bool[*d]`.
    #[operand(T)]
    pub x: Value,
}

impl Semantics for LogicalNot {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        like_known(cx, self.x, |x| Some(Dim::from(1) - x))
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(map(cx, self.x, |x| 1.0 - x))
    }
}

/// `max(x, alpha)`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "threshold", since = Ios15, elementwise)]
#[domain(T: Ios15 = F16 | F32 | I32)]
pub struct Threshold {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// The least result.
    #[attr(T)]
    pub alpha: f32,
}

impl Semantics for Threshold {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        like(cx, self.x)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        // Saturating, so that an infinite bound is one for integers too.
        let least = self.alpha as i64;
        Ok(map_either(cx, self.x, |x| maximum(x, f64::from(self.alpha)), |x| x.max(least)))
    }
}

/// `x` in another element type.
///
/// Floats become the nearest float, ties to even, or are truncated towards zero and saturated to an integer, NaN to 0.
/// Integers that do not fit an integer type wrap. Whatever is not zero is true.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "cast", since = Ios15, elementwise)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
pub struct Cast {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// The element type of the result, one that `x` may have.
    #[attr]
    pub dtype: DType,
}

impl Semantics for Cast {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        if let Some(types) = Self::SCHEMA.types("T", cx.opset)
            && !types.contains(&self.dtype)
        {
            let want = types.iter().map(|d| mil_name(*d)).collect::<Vec<_>>().join(", ");
            let want = format!("one of {want} in {}", cx.opset);
            return Err(OpError::Value { param: "dtype", found: mil_name(self.dtype).to_owned(), want: want.into() });
        }
        let x = cx.tensor("x", self.x)?;
        let fact = cx.fact_of(self.dtype, x.shape.clone())?;
        let ints: Option<Vec<Dim>> = cx.ints(self.x).and_then(|v| match self.dtype {
            DType::Bool => v.iter().map(|d| Some(Dim::from(i64::from(d.as_known()? != 0)))).collect(),
            d if d.is_int() => Some(v.to_vec()),
            _ => None,
        });
        Ok(smallvec![match ints {
            Some(ints) => with_ints_in_range(fact, ints),
            None => fact,
        }])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let x = cx.tensor(self.x);
        let wraps = x.dtype().is_int() && self.dtype.is_int();
        Ok(smallvec![if wraps { cx.out(0).of_ints(&x.to_i64()) } else { x.cast(self.dtype) }])
    }
}
