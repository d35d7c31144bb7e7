//! Forms that half precision computes as well as single precision does.

use super::{delicate::square_of, epsilon};
use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::{Use, Value},
    ops::{
        Add, Concat, Inverse, LayerNorm, Log, Matmul, Maximum, Minimum, Mul, Pow, RealDiv, ReduceLogSumExp, ReduceMean,
        Reshape, Rsqrt, SliceByIndex, Softmax, Softplus, Sqrt, Sub, Tanh,
    },
};
use mlconv_tensor::{DType, Tensor};

pub(crate) static PASS: Pass = Pass {
    name: "stabilize",
    doc: "Replaces forms whose intermediate values half precision does not hold by such that it does: RMS norms, logarithms of softmax, softplus, and products of queries and keys that are scaled afterwards.",
    changes_precision: true,
    after: &["fuse_normalization", "fuse_activation", "fuse_reduction", "fuse_attention"],
    run: Run::Rules(rules![
        rms_norm_by_product,
        rms_norm_by_quotient,
        log_of_softmax,
        softplus,
        product_scaled_late,
        product_divided_late
    ]),
};

fn rms_norm_by_product(op: &Mul, m: &Matcher<'_>) -> Fit {
    m.either(op.x, op.y, |x, factor| {
        let (mean, epsilon) = reciprocal_of_root(m, factor)?;
        rms_norm(m, x, mean, epsilon)
    })
}

fn rms_norm_by_quotient(op: &RealDiv, m: &Matcher<'_>) -> Fit {
    let (mean, epsilon) = root(m, op.y)?;
    rms_norm(m, op.x, mean, epsilon)
}

/// `x / sqrt(mean(x * x) + epsilon)` as the first half of a layer norm of `x` beside `-x`: their mean is zero, and so their
/// variance is the mean of squares, which the op keeps to itself.
fn rms_norm(m: &Matcher<'_>, x: Value, mean: Value, epsilon: f64) -> Fit {
    let mean: &ReduceMean = m.def(mean)?;
    if m.f.def_op(mean.x).and_then(|id| square_of(m.f, id)) != Some(x) || m.result().is_none_or(|y| !m.alike(x, y)) {
        return Err(Miss::No);
    }
    m.require(mean.keep_dims, "the mean of squares has other axes than what it divides")?;
    let fits = epsilon == 0.0 || epsilon >= f64::from(epsilon::LEAST);
    m.require(fits, "half precision does not hold the epsilon")?;
    let shape = m.shape(x)?;
    let axes = match &mean.axes {
        Some(axes) => shape.axes(axes).map_err(|_| Miss::No)?.iter().map(|a| a.index()).collect(),
        None => (0..shape.rank()).collect::<Vec<_>>(),
    };
    let axis = axes.iter().copied().max().ok_or(Miss::No)?;
    let size = shape[axis].as_known();
    m.require(size.is_some(), "the size of the last axis that is normalised is open")?;
    let end: Vec<i32> = (0..shape.rank())
        .map(|a| if a == axis { size.and_then(|n| i32::try_from(n).ok()) } else { Some(0) })
        .collect::<Option<_>>()
        .ok_or(Miss::No)?;
    let minus_one = m.make_constant(scalar(m, x, -1.0)?);
    let minus = m.make(Mul { x, y: minus_one });
    let both = m.make(Concat { values: vec![x, minus], axis: axis as i64, interleave: false });
    let axes = axes.iter().map(|a| *a as i64).collect();
    let norm = m.make(LayerNorm { x: both, axes, gamma: None, beta: None, epsilon: epsilon as f32 });
    let rank = [shape.rank()];
    let begin = m.make_constant(Tensor::from_vec(&rank, vec![0i32; shape.rank()]));
    let whole: Vec<bool> = (0..shape.rank()).map(|a| a != axis).collect();
    let end = m.make_constant(Tensor::from_vec(&rank, end));
    let first =
        SliceByIndex { x: norm, begin, end, stride: None, begin_mask: None, end_mask: Some(whole), squeeze_mask: None };
    Ok(m.replace(first))
}

/// The value and the epsilon of `sqrt(value + epsilon)`.
fn root(m: &Matcher<'_>, v: Value) -> Result<(Value, f64), Miss> {
    if let Ok(op) = m.def::<Sqrt>(v) {
        return Ok(with_epsilon(m, op.x, 0.0));
    }
    let op: &Pow = m.def(v)?;
    m.is(op.y, 0.5)?;
    Ok(with_epsilon(m, op.x, 0.0))
}

/// The same of `1 / sqrt(value + epsilon)`.
fn reciprocal_of_root(m: &Matcher<'_>, v: Value) -> Result<(Value, f64), Miss> {
    if let Ok(op) = m.def::<Rsqrt>(v) {
        return Ok(with_epsilon(m, op.x, op.epsilon.into()));
    }
    if let Ok(op) = m.def::<Inverse>(v) {
        m.require(op.epsilon.abs() < f32::MIN_POSITIVE, "the reciprocal adds an epsilon")?;
        return root(m, op.x);
    }
    if let Ok(op) = m.def::<RealDiv>(v) {
        m.is(op.x, 1.0)?;
        return root(m, op.y);
    }
    let op: &Pow = m.def(v)?;
    m.is(op.y, -0.5)?;
    Ok(with_epsilon(m, op.x, 0.0))
}

fn with_epsilon(m: &Matcher<'_>, v: Value, more: f64) -> (Value, f64) {
    let sum = |op: &Add| m.either(op.x, op.y, |x, e| Ok((x, m.uniform(e)? + more)));
    m.def::<Add>(v).and_then(sum).unwrap_or((v, more))
}

/// `log(softmax(x))`, whose small probabilities would be zero.
fn log_of_softmax(op: &Log, m: &Matcher<'_>) -> Fit {
    let softmax: &Softmax = m.def(op.x)?;
    m.require(op.epsilon.abs() < f32::MIN_POSITIVE, "log adds an epsilon")?;
    let (x, axes) = (softmax.x, vec![softmax.axis]);
    let y = m.make(ReduceLogSumExp { x, axes: Some(axes), keep_dims: true });
    Ok(m.replace(Sub { x, y }))
}

/// Above it, softplus is the identity in half precision; its exponential is below 65504.
const IDENTITY: f64 = 10.0;

/// `softplus(x)` as `max(x, softplus(min(x, 10)))`, whose exponential cannot overflow.
fn softplus(op: &Softplus, m: &Matcher<'_>) -> Fit {
    let y = m.result().ok_or(Miss::No)?;
    if m.def::<Minimum>(op.x)
        .is_ok_and(|min| m.either(min.x, min.y, |_, most| m.uniform(most)).is_ok_and(|n| n <= IDENTITY))
    {
        return Err(Miss::No);
    }
    // An exponential that is infinite does no harm in mish: its hyperbolic tangent is one.
    let bounded = |u: &Use| matches!(u, Use::Op(id) if m.f.op::<Tanh>(*id).is_some());
    m.require(!m.f.uses(y).iter().all(bounded), "only a hyperbolic tangent reads it")?;
    let most = m.make_constant(scalar(m, op.x, IDENTITY)?);
    let low = m.make(Minimum { x: op.x, y: most });
    let plus = m.make(Softplus { x: low });
    Ok(m.replace(Maximum { x: op.x, y: plus }))
}

fn product_scaled_late(op: &Mul, m: &Matcher<'_>) -> Fit {
    m.either(op.x, op.y, |product, by| scaled_before(m, product, m.uniform(by)?))
}

fn product_divided_late(op: &RealDiv, m: &Matcher<'_>) -> Fit {
    scaled_before(m, op.x, 1.0 / m.uniform(op.y)?)
}

/// A product of two activations that is made smaller afterwards, perhaps in another shape: its first factor is, before.
fn scaled_before(m: &Matcher<'_>, result: Value, by: f64) -> Fit {
    let shaped = m.def::<Reshape>(result).ok();
    let product = shaped.map_or(result, |reshape| reshape.x);
    let op: &Matmul = m.def(product)?;
    let same = m.result().is_some_and(|y| m.alike(result, y));
    if m.is_constant(op.x) || m.is_constant(op.y) || by == 0.0 || by.abs() >= 1.0 || !same {
        return Err(Miss::No);
    }
    m.closed([result, product])?;
    let by = m.make_constant(scalar(m, product, by)?);
    let x = m.make(Mul { x: op.x, y: by });
    let op = Matmul { x, ..op.clone() };
    Ok(match shaped {
        Some(reshape) => m.replace(Reshape { x: m.make(op), ..reshape.clone() }),
        None => m.replace(op),
    })
}

/// A number of the type of `like`, which computes in single precision.
fn scalar(m: &Matcher<'_>, like: Value, x: f64) -> Result<Tensor, Miss> {
    let dtype = m.ty(like).tensor().ok_or(Miss::No)?.dtype;
    if dtype == DType::F32 { Ok(Tensor::from_f64(dtype, &[], &[x])) } else { Err(Miss::No) }
}
