//! Random numbers.
//!
//! Core ML does not say which numbers a seed gives, and takes another seed in every run where it is -1. Here the numbers
//! follow from the seed alone, whatever it is, by SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
//! number generators"): runs can be repeated, and only distributions compared with those of a device.

use super::generator::{absent, scalar, scalar_type, shape_operand};
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Rows, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{DType, Dim, Tensor};
use smallvec::smallvec;
use std::f64::consts::TAU;

struct Random(u64);

impl Random {
    fn new(seed: i64) -> Self {
        Self(seed.cast_unsigned())
    }

    /// A number in `0..1`, uniformly distributed.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of the standard normal distribution. Source: Box and Muller 1958.
    fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
    }
}

/// 1 with probability `prob`, else 0.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "random_bernoulli", since = Ios15, effect = Read)]
#[domain(S: Ios15 = I32)]
#[domain(T: Ios15 = F16 | F32)]
pub struct RandomBernoulli {
    /// `i32[rank]`: the shape of the result.
    #[operand(S)]
    pub shape: Value,
    /// `T[]`; `f32[] 0.5` where absent.
    #[operand(T, constant)]
    pub prob: Option<Value>,
    /// What the numbers follow from.
    #[attr(default = -1)]
    pub seed: i64,
}

impl Semantics for RandomBernoulli {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let dtype = scalar_type(cx, DType::F32, &[("prob", self.prob)])?;
        cx.result(dtype, shape_operand(cx, "shape", self.shape)?)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (mut random, prob) = (Random::new(self.seed), scalar(cx, self.prob, 0.5));
        Ok(smallvec![cx.out(0).fill_each(|_| f64::from(random.uniform() < prob))])
    }
    fn default_operands(&self, _: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        absent(DType::F32, &[("prob", self.prob, 0.5)])
    }
}

/// Numbers of a normal distribution.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "random_normal", since = Ios15, effect = Read)]
#[domain(S: Ios15 = I32)]
#[domain(T: Ios15 = F16 | F32)]
pub struct RandomNormal {
    /// `i32[rank]`: the shape of the result.
    #[operand(S)]
    pub shape: Value,
    /// `T[]`: the centre; 0 where absent.
    #[operand(T, constant)]
    pub mean: Option<Value>,
    /// `T[]`: the width; 1 where absent. `T` is `f32` where both are.
    #[operand(T, constant)]
    pub stddev: Option<Value>,
    /// What the numbers follow from.
    #[attr(default = -1)]
    pub seed: i64,
}

impl RandomNormal {
    fn dtype(&self, cx: &InferCx<'_>) -> Result<DType, OpError> {
        scalar_type(cx, DType::F32, &[("mean", self.mean), ("stddev", self.stddev)])
    }
}

impl Semantics for RandomNormal {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        cx.result(self.dtype(cx)?, shape_operand(cx, "shape", self.shape)?)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (mean, stddev) = (scalar(cx, self.mean, 0.0), scalar(cx, self.stddev, 1.0));
        let mut random = Random::new(self.seed);
        Ok(smallvec![cx.out(0).fill_each(|_| mean + stddev * random.normal())])
    }
    fn default_operands(&self, cx: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        let dtype = self.dtype(cx).unwrap_or(DType::F32);
        absent(dtype, &[("mean", self.mean, 0.0), ("stddev", self.stddev, 1.0)])
    }
}

/// Numbers in `low..high`, uniformly distributed; rounding may take one to `high`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "random_uniform", since = Ios15, effect = Read)]
#[domain(S: Ios15 = I32)]
#[domain(T: Ios15 = F16 | F32)]
pub struct RandomUniform {
    /// `i32[rank]`: the shape of the result.
    #[operand(S)]
    pub shape: Value,
    /// `T[]`: the lower bound; 0 where absent.
    #[operand(T, constant)]
    pub low: Option<Value>,
    /// `T[]`: the upper bound; 1 where absent. `T` is `f32` where both are.
    #[operand(T, constant)]
    pub high: Option<Value>,
    /// What the numbers follow from.
    #[attr(default = -1)]
    pub seed: i64,
}

impl RandomUniform {
    fn dtype(&self, cx: &InferCx<'_>) -> Result<DType, OpError> {
        scalar_type(cx, DType::F32, &[("low", self.low), ("high", self.high)])
    }
}

impl Semantics for RandomUniform {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        cx.result(self.dtype(cx)?, shape_operand(cx, "shape", self.shape)?)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (low, high) = (scalar(cx, self.low, 0.0), scalar(cx, self.high, 1.0));
        let mut random = Random::new(self.seed);
        Ok(smallvec![cx.out(0).fill_each(|_| low + (high - low) * random.uniform())])
    }
    fn default_operands(&self, cx: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        let dtype = self.dtype(cx).unwrap_or(DType::F32);
        absent(dtype, &[("low", self.low, 0.0), ("high", self.high, 1.0)])
    }
}

/// What the operand of a categorical distribution holds.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CategoricalMode {
    /// Logarithms of probabilities, up to a common summand.
    #[name("logits")]
    Logits,
    /// Probabilities, up to a common factor.
    #[name("probs")]
    Probs,
}

/// Positions along the last axis, each as likely as the element there says.
///
/// Result: `T[*d, size]`, drawn one after the other, with replacement.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "random_categorical", since = Ios15, effect = Read)]
#[domain(T: Ios15 = F16 | F32)]
pub struct RandomCategorical {
    /// `T[*d, n]`, of rank 1 or more.
    #[operand(T)]
    pub x: Value,
    /// What `x` holds.
    #[attr(default = CategoricalMode::Logits)]
    pub mode: CategoricalMode,
    /// How many positions to draw.
    #[attr(default = 1)]
    pub size: i64,
    /// What the numbers follow from.
    #[attr(default = -1)]
    pub seed: i64,
}

impl Semantics for RandomCategorical {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let last = x.shape.axis(-1)?;
        cx.result(x.dtype, x.shape.with(last, Dim::from(self.size)))
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, shape, out, mut random) = (cx.f64(self.x), cx.shape(self.x), cx.out(0), Random::new(self.seed));
        let rows = Rows::new(shape, shape.len().saturating_sub(1));
        if rows.len == 0 {
            let want = "at least one element to choose".into();
            return Err(OpError::Value { param: "x", found: "empty".into(), want });
        }
        let mut drawn = Vec::with_capacity(out.count());
        for row in rows.iter() {
            let max = row.clone().map(|i| x[i]).fold(f64::NEG_INFINITY, f64::max);
            let weights = row.map(|i| match self.mode {
                CategoricalMode::Logits => (x[i] - max).exp(),
                CategoricalMode::Probs => x[i],
            });
            let weights: Vec<f64> = weights.collect();
            let total: f64 = weights.iter().sum();
            for _ in 0..self.size {
                let mut left = random.uniform() * total;
                let at = weights.iter().position(|w| {
                    left -= w;
                    left < 0.0
                });
                drawn.push(at.unwrap_or(weights.len() - 1) as f64);
            }
        }
        Ok(smallvec![out.of(&drawn)])
    }
}
