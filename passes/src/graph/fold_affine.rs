//! Folds factors and terms for each channel into the weights before them.

use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{Add, BatchNorm, Conv, ConvTranspose, Linear, Mul, RealDiv, Sub},
};
use mlconv_tensor::Tensor;

pub(crate) static PASS: Pass = Pass {
    name: "fold_affine",
    doc: "Folds a batch normalisation, and factors and terms that are constant for each channel, into the weight and the bias of the convolution or linear layer before them. Weights are scaled while they are written.",
    changes_precision: false,
    after: &["const_elimination"],
    run: Run::Rules(rules![batch_norm, mul, real_div, add, sub]),
};

/// `factor * x + term`, each for every channel, or one for all; `None` is none.
struct Affine {
    factor: Option<Vec<f64>>,
    term: Option<Vec<f64>>,
}

/// A layer whose weight and bias are constant.
enum Layer<'f> {
    Conv(&'f Conv),
    ConvTranspose(&'f ConvTranspose),
    Linear(&'f Linear),
}

impl<'f> Layer<'f> {
    fn of(m: &Matcher<'f>, v: Value) -> Result<Self, Miss> {
        let any = m.def::<Conv>(v).map(Self::Conv);
        let any = any.or_else(|_| m.def::<ConvTranspose>(v).map(Self::ConvTranspose));
        let layer = any.or_else(|_| m.def::<Linear>(v).map(Self::Linear))?;
        let (weight, bias) = layer.weights();
        m.require(m.is_constant(weight), "the weight of the layer before is no constant")?;
        m.require(bias.is_none_or(|b| m.is_constant(b)), "the bias of the layer before is no constant")?;
        m.require(m.f.uses(v).len() == 1, "the layer before is read elsewhere")?;
        Ok(layer)
    }

    fn weights(&self) -> (Value, Option<Value>) {
        match self {
            Self::Conv(c) => (c.weight, c.bias),
            Self::ConvTranspose(c) => (c.weight, c.bias),
            Self::Linear(l) => (l.weight, l.bias),
        }
    }

    /// The channels of the result.
    fn channels(&self, weight: &Tensor) -> usize {
        match self {
            Self::Conv(_) | Self::Linear(_) => weight.shape()[0],
            Self::ConvTranspose(c) => weight.shape()[1] * c.groups as usize,
        }
    }

    /// The axis of the channels, from the end, of a result of `rank` axes.
    fn axis_from_end(&self, rank: usize) -> usize {
        if let Self::Linear(_) = self { 1 } else { rank - 1 }
    }

    /// The weight, with a factor for each channel of the result.
    fn scaled(&self, weight: &Tensor, factor: &[f64]) -> Option<Tensor> {
        let shape = weight.shape();
        match self {
            Self::Conv(_) | Self::Linear(_) => {
                weight.scaled(factor.to_vec(), shape[1..].iter().product::<usize>().max(1))
            }
            Self::ConvTranspose(c) => {
                // The channels that come in lie first: each has those that come out of its group.
                let (ins, outs) = (shape[0], shape[1]);
                let per_group = (ins / c.groups as usize).max(1);
                let of = |i: usize| factor.get(i / per_group * outs..).unwrap_or(&[]).iter().take(outs).copied();
                weight.scaled((0..ins).flat_map(of).collect(), shape[2..].iter().product::<usize>().max(1))
            }
        }
    }

    fn with(&self, m: &Matcher<'_>, weight: Value, bias: Option<Value>) -> Value {
        match self {
            Self::Conv(c) => m.make(Conv { weight, bias, ..(*c).clone() }),
            Self::ConvTranspose(c) => m.make(ConvTranspose { weight, bias, ..(*c).clone() }),
            Self::Linear(l) => m.make(Linear { weight, bias, ..(*l).clone() }),
        }
    }
}

/// The layer that computes `v`, with `affine` folded in.
fn folded(m: &Matcher<'_>, v: Value, layer: &Layer<'_>, affine: &Affine) -> Fit {
    let result = m.result().ok_or(Miss::No)?;
    m.require(m.alike(v, result), "the result of the layer before is broadcast")?;
    let (weight_value, bias_value) = layer.weights();
    let weight = m.constant(weight_value)?;
    m.require(weight.dtype().is_float() && weight.count() > 0, "the weights are integers")?;
    let channels = layer.channels(weight);
    let each = |values: &[f64]| -> Vec<f64> { if let [one] = values { vec![*one; channels] } else { values.to_vec() } };
    let mut bias = match bias_value {
        Some(b) => m.constant(b)?.to_f64(),
        None => vec![0.0; channels],
    };
    let mut new_weight = weight_value;
    if let Some(factor) = &affine.factor {
        let factor = each(factor);
        bias.iter_mut().zip(&factor).for_each(|(b, f)| *b *= f);
        let scaled = layer.scaled(weight, &factor).ok_or(Miss::No)?;
        new_weight = m.make_constant_like(weight_value, scaled);
    }
    if let Some(term) = &affine.term {
        bias.iter_mut().zip(each(term)).for_each(|(b, t)| *b += t);
    }
    let finite = bias.iter().all(|b| b.is_finite()) && affine.factor.iter().flatten().all(|f| f.is_finite());
    m.require(finite, "a factor or a term is not finite")?;
    let mut new_bias = bias_value;
    if affine.term.is_some() || bias_value.is_some() {
        let dtype = bias_value.and_then(|b| m.constant(b).ok()).map_or(weight.dtype(), Tensor::dtype);
        let val = Tensor::from_f64(dtype, &[channels], &bias);
        new_bias = Some(match bias_value {
            Some(b) => m.make_constant_like(b, val),
            None => m.make_constant(val),
        });
    }
    let v = layer.with(m, new_weight, new_bias);
    Ok(m.alias(v))
}

fn batch_norm(op: &BatchNorm, m: &Matcher<'_>) -> Fit {
    let layer = Layer::of(m, op.x).map_err(|miss| match miss {
        Miss::No => Miss::Because("it normalises what no convolution gives"),
        why @ Miss::Because(_) => why,
    })?;
    m.require(!matches!(layer, Layer::Linear(_)), "the channels of a linear layer are those of its last axis")?;
    let read = |v: Value| Ok(m.constant(v)?.to_f64());
    let (mean, variance) = (read(op.mean)?, read(op.variance)?);
    let gamma = op.gamma.map(read).transpose()?;
    let beta = op.beta.map(read).transpose()?;
    let factor: Vec<f64> = (variance.iter().enumerate())
        .map(|(i, v)| gamma.as_ref().map_or(1.0, |g| g[i]) / (v + f64::from(op.epsilon)).sqrt())
        .collect();
    let term = (factor.iter().zip(&mean).enumerate())
        .map(|(i, (f, mean))| beta.as_ref().map_or(0.0, |b| b[i]) - mean * f)
        .collect();
    folded(m, op.x, &layer, &Affine { factor: Some(factor), term: Some(term) })
}

/// What a constant is for each channel of the result of a layer, or for all of them.
fn per_channel(m: &Matcher<'_>, layer: &Layer<'_>, v: Value, constant: Value) -> Result<Vec<f64>, Miss> {
    let rank = m.rank(v)?;
    along(m, rank, layer.axis_from_end(rank), constant)
}

/// What a constant beside a value of `rank` axes is along the one that is `from_end` from the end; it is the same along all
/// others.
pub(super) fn along(m: &Matcher<'_>, rank: usize, from_end: usize, constant: Value) -> Result<Vec<f64>, Miss> {
    let t = m.constant(constant)?;
    if !t.dtype().is_float() || t.count() == 0 || t.shape().len() > rank {
        return Err(Miss::No);
    }
    let is_along = |(i, n): (usize, &usize)| *n == 1 || t.shape().len() - i == from_end;
    m.require(t.shape().iter().enumerate().all(is_along), "the constant is not one for each channel")?;
    Ok(t.to_f64())
}

/// `x op y`, where one is a layer's result and the other one a constant.
fn binary(m: &Matcher<'_>, x: Value, y: Value, affine: impl Fn(Vec<f64>) -> Affine) -> Fit {
    let layer = Layer::of(m, x)?;
    let values = per_channel(m, &layer, x, y)?;
    folded(m, x, &layer, &affine(values))
}

fn mul(op: &Mul, m: &Matcher<'_>) -> Fit {
    m.either(op.x, op.y, |x, y| binary(m, x, y, |f| Affine { factor: Some(f), term: None }))
}

fn real_div(op: &RealDiv, m: &Matcher<'_>) -> Fit {
    let inverse = |f: Vec<f64>| f.iter().map(|f| 1.0 / f).collect();
    binary(m, op.x, op.y, |f| Affine { factor: Some(inverse(f)), term: None })
}

fn add(op: &Add, m: &Matcher<'_>) -> Fit {
    m.either(op.x, op.y, |x, y| binary(m, x, y, |t| Affine { factor: None, term: Some(t) }))
}

fn sub(op: &Sub, m: &Matcher<'_>) -> Fit {
    let negative = |t: Vec<f64>| t.iter().map(|t| -t).collect();
    let minus = |t: Vec<f64>| Affine { factor: Some(vec![-1.0]), term: Some(t) };
    let less = m.attempt(|| binary(m, op.x, op.y, |t| Affine { factor: None, term: Some(negative(t)) }));
    match less {
        Err(Miss::No) => binary(m, op.y, op.x, minus),
        other => other,
    }
}
