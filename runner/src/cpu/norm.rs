//! Softmax and normalizations.

use super::{
    data::{each_row, load, store},
    math::exp,
    strided::Rows,
};
use mlconv_mil::{
    ir::Value,
    ops::{BatchNorm, InstanceNorm, L2Norm, LayerNorm, Softmax},
    schema::{EvalCx, Tensors},
};
use mlconv_tensor::Shape;
use smallvec::smallvec;
use std::borrow::Cow;

pub(super) fn softmax(op: &Softmax, cx: &EvalCx<'_>) -> Option<Tensors> {
    let axis = Shape::from(cx.shape(op.x)).axis(op.axis).ok()?.index();
    let along: Vec<bool> = (0..cx.shape(op.x).len()).map(|i| i == axis).collect();
    by_rows(cx, op.x, &along, softmax_row)
}

/// Replaces a row by its softmax; NaN where all of it is infinitely small.
pub(super) fn softmax_row(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, |max, x| if x > max { x } else { max });
    for x in row.iter_mut() {
        *x = exp(*x - max);
    }
    let scale = (1.0 / sum(row, f64::from)) as f32;
    for x in row.iter_mut() {
        *x *= scale;
    }
}

pub(super) fn layer_norm(op: &LayerNorm, cx: &EvalCx<'_>) -> Option<Tensors> {
    let shape = cx.shape(op.x);
    let axes = Shape::from(shape).axes(&op.axes).ok()?;
    let along: Vec<bool> = (0..shape.len()).map(|i| axes.iter().any(|a| a.index() == i)).collect();
    let (gamma, beta) = (optional(cx, op.gamma)?, optional(cx, op.beta)?);
    by_rows(cx, op.x, &along, |row| {
        normalize(row, op.epsilon);
        if let Some(gamma) = &gamma {
            row.iter_mut().zip(gamma.iter()).for_each(|(x, g)| *x *= g);
        }
        if let Some(beta) = &beta {
            row.iter_mut().zip(beta.iter()).for_each(|(x, b)| *x += b);
        }
    })
}

pub(super) fn instance_norm(op: &InstanceNorm, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (gamma, beta) = (optional(cx, op.gamma)?, optional(cx, op.beta)?);
    by_planes(cx, op.x, |c, x| {
        normalize(x, op.epsilon);
        let (gamma, beta) = (gamma.as_ref().map_or(1.0, |g| g[c]), beta.as_ref().map_or(0.0, |b| b[c]));
        for x in x.iter_mut() {
            *x = *x * gamma + beta;
        }
    })
}

pub(super) fn batch_norm(op: &BatchNorm, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (mean, variance) = (load(cx.tensor(op.mean))?, load(cx.tensor(op.variance))?);
    let (gamma, beta) = (optional(cx, op.gamma)?, optional(cx, op.beta)?);
    by_planes(cx, op.x, |c, x| {
        let (gamma, beta) = (gamma.as_ref().map_or(1.0, |g| g[c]), beta.as_ref().map_or(0.0, |b| b[c]));
        let root = (f64::from(variance[c]) + f64::from(op.epsilon)).sqrt();
        let (mean, scale) = (mean[c], (f64::from(gamma) / root) as f32);
        for x in x.iter_mut() {
            *x = (*x - mean) * scale + beta;
        }
    })
}

pub(super) fn l2_norm(op: &L2Norm, cx: &EvalCx<'_>) -> Option<Tensors> {
    let rank = cx.shape(op.x).len();
    let along: Vec<bool> = (0..rank).map(|i| i + 3 >= rank).collect();
    by_rows(cx, op.x, &along, |row| {
        let root = (sum(row, |x| f64::from(x) * f64::from(x)) + f64::from(op.epsilon)).sqrt() as f32;
        for x in row.iter_mut() {
            *x /= root;
        }
    })
}

/// The elements of an operand; the inner `None` is an absent one, the outer one of a type that kernels do not read.
#[expect(clippy::option_option, reason = "the question mark takes the outer one")]
pub(super) fn optional<'a>(cx: &EvalCx<'a>, v: Option<Value>) -> Option<Option<Cow<'a, [f32]>>> {
    match v {
        Some(v) => load(cx.tensor(v)).map(Some),
        None => Some(None),
    }
}

/// Changes the rows of `x` along some axes.
pub(super) fn by_rows(cx: &EvalCx<'_>, x: Value, along: &[bool], f: impl Fn(&mut [f32]) + Sync) -> Option<Tensors> {
    let mut rows = Rows::new(load(cx.tensor(x))?, cx.shape(x), along);
    let mut y = std::mem::take(&mut rows.values).into_owned();
    each_row(&mut y, rows.len, |_, row| f(row));
    Some(smallvec![store(cx.out(0), rows.back(y))?])
}

/// Changes the elements of `x` in each channel, which is axis 1; `f` is told its number.
fn by_planes(cx: &EvalCx<'_>, x: Value, f: impl Fn(usize, &mut [f32]) + Sync) -> Option<Tensors> {
    let shape = cx.shape(x);
    let mut y = load(cx.tensor(x))?.into_owned();
    each_row(&mut y, shape[2..].iter().product(), |i, x| f(i % shape[1], x));
    Some(smallvec![store(cx.out(0), y)?])
}

/// Subtracts the mean and divides by the root of the variance.
fn normalize(x: &mut [f32], epsilon: f32) {
    let n = x.len() as f64;
    let mean = sum(x, f64::from) / n;
    let variance = sum(x, |x| (f64::from(x) - mean).powi(2)) / n;
    let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
    for x in x.iter_mut() {
        *x = ((f64::from(*x) - mean) * scale) as f32;
    }
}

/// The sum of `f` of all elements, in lanes that vector instructions can hold.
fn sum(x: &[f32], f: impl Fn(f32) -> f64) -> f64 {
    let mut lanes = [0f64; 8];
    let parts = x.chunks_exact(lanes.len());
    let rest: f64 = parts.remainder().iter().map(|x| f(*x)).sum();
    for part in parts {
        lanes.iter_mut().zip(part).for_each(|(sum, x)| *sum += f(*x));
    }
    lanes.iter().sum::<f64>() + rest
}
