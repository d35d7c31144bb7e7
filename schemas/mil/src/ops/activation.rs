//! Elementwise activation functions, and softmax.

use super::{
    binary::{maximum, minimum},
    unary::{float_unary, like, map},
};
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Rows, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::Shape;
use smallvec::smallvec;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

float_unary! {
    /// `max(x, 0)`.
    Relu = "relu", |x| maximum(x, 0.0);
    /// `min(max(x, 0), 6)`.
    Relu6 = "relu6", |x| minimum(maximum(x, 0.0), 6.0);
    /// `1 / (1 + exp(-x))`.
    Sigmoid = "sigmoid", sigmoid;
    /// `x * sigmoid(x)`.
    Silu = "silu", |x| x * sigmoid(x);
    /// `log(1 + exp(x))`.
    Softplus = "softplus", softplus;
    /// `x / (1 + |x|)`.
    Softsign = "softsign", |x| x / (1.0 + x.abs());
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// In a form that does not overflow.
fn softplus(x: f64) -> f64 {
    (-x.abs()).exp().ln_1p() + maximum(x, 0.0)
}

/// Declares ops of one float operand and one number.
macro_rules! with_alpha {
    ($($(#[$doc:meta])* $ty:ident = $name:literal, $f:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15, elementwise)]
        #[domain(T: Ios15 = F16 | F32)]
        #[domain(U: Ios15 = T, Ios17 = F16 | F32)]
        pub struct $ty {
            /// `T[*d]`.
            #[operand(T)]
            pub x: Value,
            /// As in the formula.
            #[attr(U)]
            pub alpha: f32,
        }
        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                like(cx, self.x)
            }
            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                let (f, alpha): (fn(f64, f64) -> f64, f64) = ($f, self.alpha.into());
                Ok(map(cx, self.x, |x| f(x, alpha)))
            }
        }
    )* };
}

with_alpha! {
    /// `x` where `x > 0`, else `alpha * (exp(x) - 1)`.
    Elu = "elu", |x, alpha| if x > 0.0 { x } else { alpha * x.exp_m1() };
    /// `x` where `x >= 0`, else `alpha * x`.
    LeakyRelu = "leaky_relu", |x, alpha| if x >= 0.0 { x } else { alpha * x };
    /// `x` where `x >= alpha`, else 0; NaN of NaN.
    ThresholdedRelu = "thresholded_relu", |x, alpha| if x < alpha { 0.0 } else { x };
}

/// Declares ops of one float operand and two numbers.
macro_rules! with_alpha_beta {
    ($($(#[$doc:meta])* $ty:ident = $name:literal, $f:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15, elementwise)]
        #[domain(T: Ios15 = F16 | F32)]
        #[domain(U: Ios15 = T, Ios17 = F16 | F32)]
        pub struct $ty {
            /// `T[*d]`.
            #[operand(T)]
            pub x: Value,
            /// As in the formula.
            #[attr(U)]
            pub alpha: f32,
            /// As in the formula.
            #[attr(U)]
            pub beta: f32,
        }
        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                like(cx, self.x)
            }
            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                let f: fn(f64, f64, f64) -> f64 = $f;
                let (alpha, beta) = (self.alpha.into(), self.beta.into());
                Ok(map(cx, self.x, |x| f(x, alpha, beta)))
            }
        }
    )* };
}

with_alpha_beta! {
    /// `min(x, beta)` where `x >= 0`, else `min(alpha * x, beta)`.
    ClampedRelu = "clamped_relu", |x, alpha, beta| minimum(if x >= 0.0 { x } else { alpha * x }, beta);
    /// `alpha * x + beta`.
    LinearActivation = "linear_activation", |x, alpha, beta| alpha * x + beta;
    /// `alpha * tanh(beta * x)`.
    ScaledTanh = "scaled_tanh", |x, alpha, beta| alpha * (beta * x).tanh();
    /// `min(max(alpha * x + beta, 0), 1)`.
    SigmoidHard = "sigmoid_hard", |x, alpha, beta| minimum(maximum(alpha * x + beta, 0.0), 1.0);
}

/// How the Gaussian error linear unit is computed.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeluMode {
    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    #[name("EXACT")]
    Exact,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`.
    #[name("TANH_APPROXIMATION")]
    Tanh,
    /// `x * sigmoid(1.702 * x)`.
    #[name("SIGMOID_APPROXIMATION")]
    Sigmoid,
}

/// The Gaussian error linear unit: `x` times the probability that a standard normal number is below it.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "gelu", since = Ios15, elementwise)]
#[domain(T: Ios15 = F16 | F32)]
pub struct Gelu {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// The formula.
    #[attr(default = GeluMode::Exact)]
    pub mode: GeluMode,
}

impl Semantics for Gelu {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        like(cx, self.x)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(map(cx, self.x, |x| match self.mode {
            GeluMode::Exact => 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)),
            GeluMode::Tanh => 0.5 * x * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
            GeluMode::Sigmoid => x * sigmoid(1.702 * x),
        }))
    }
}

/// `x` where `x > 0`, else `alpha * x`, with an `alpha` for each channel.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "prelu", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(U: Ios15 = T, Ios17 = F16 | F32)]
pub struct Prelu {
    /// `T[n, c, *d]`, 1 to 3 spatial dimensions.
    #[operand(T)]
    pub x: Value,
    /// `U[c]`; all equal unless there are 2 spatial dimensions.
    #[operand(U, constant)]
    pub alpha: Value,
}

impl Semantics for Prelu {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 3..=5)?;
        per_channel(cx, "alpha", self.alpha, &x.shape)?;
        if x.shape.rank() != 4
            && let Some(alpha) = cx.constant(self.alpha).map(|t| t.to_f64())
            && alpha.iter().any(|a| (a - alpha[0]).abs() > 1e-5)
        {
            return Err(cx.operand("x", self.x, "a tensor of rank 4, as the elements of `alpha` differ"));
        }
        cx.result(x.dtype, x.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let alpha = cx.f64(self.alpha);
        Ok(map_channels(cx, self.x, |x, c| if x > 0.0 { x } else { alpha[c] * x }))
    }
}

/// `alpha * log(1 + exp(beta * x))`, with an `alpha` and a `beta` for each channel.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "softplus_parametric", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(U: Ios15 = T, Ios17 = F16 | F32)]
pub struct SoftplusParametric {
    /// `T[n, c, *d]`, of rank 3 or more.
    #[operand(T)]
    pub x: Value,
    /// `U[c]`.
    #[operand(U, constant)]
    pub alpha: Value,
    /// `U[c]`.
    #[operand(U, constant)]
    pub beta: Value,
}

impl Semantics for SoftplusParametric {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 3..)?;
        per_channel(cx, "alpha", self.alpha, &x.shape)?;
        per_channel(cx, "beta", self.beta, &x.shape)?;
        cx.result(x.dtype, x.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (alpha, beta) = (cx.f64(self.alpha), cx.f64(self.beta));
        Ok(map_channels(cx, self.x, |x, c| alpha[c] * softplus(beta[c] * x)))
    }
}

/// Checks that operand `param` has one element for each channel of `x`.
fn per_channel(cx: &InferCx<'_>, param: &'static str, v: Value, x: &Shape) -> Result<(), OpError> {
    let (found, channels) = (cx.tensor(param, v)?, &x[1..2]);
    if found.shape.may_equal(&Shape::from(channels)) {
        return Ok(());
    }
    Err(cx.operand(param, v, format!("a vector of {} elements, one for each channel", channels[0])))
}

/// `f` of every element of `x` and the number of its channel.
fn map_channels(cx: &EvalCx<'_>, x: Value, f: impl Fn(f64, usize) -> f64) -> Tensors {
    let (mut values, shape) = (cx.f64(x), cx.shape(x));
    let size: usize = shape[2..].iter().product();
    for (i, plane) in values.chunks_mut(size.max(1)).enumerate() {
        for v in plane {
            *v = f(*v, i % shape[1]);
        }
    }
    smallvec![cx.out(0).of(&values)]
}

/// `exp(x) / sum(exp(x))` along one axis.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "softmax", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct Softmax {
    /// `T[*d]`, of rank 1 or more.
    #[operand(T)]
    pub x: Value,
    /// The axis, in `-rank..rank`.
    #[attr(default = -1)]
    pub axis: i64,
}

impl Semantics for Softmax {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        x.shape.axis(self.axis)?;
        cx.result(x.dtype, x.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (mut x, shape) = (cx.f64(self.x), cx.shape(self.x));
        let axis = Shape::from(shape).axis(self.axis)?.index();
        for row in Rows::new(shape, axis).iter() {
            let max = row.clone().map(|i| x[i]).fold(f64::NEG_INFINITY, f64::max);
            row.clone().for_each(|i| x[i] = (x[i] - max).exp());
            let sum: f64 = row.clone().map(|i| x[i]).sum();
            row.for_each(|i| x[i] /= sum);
        }
        Ok(smallvec![cx.out(0).of(&x)])
    }
}
