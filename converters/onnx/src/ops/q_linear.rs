//! Operators on quantized numbers: what others do, between a quantization undone and one done.

use super::{
    convolution::{channels_behind, channels_second},
    pooling, quantize, softmax,
};
use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Arg, Lower, LowerError, Lowered};
use mlconv_tensor::DType;

rows! {
    #["com.microsoft"] "QLinearAdd" 1..=LATEST => |n| binary(n, Lower::add);
    #["com.microsoft"] "QLinearAveragePool" 1..=LATEST => average_pool;
    #["com.microsoft"] "QLinearConcat" 1..=LATEST => concat;
    #["com.microsoft"] "QLinearGlobalAveragePool" 1..=LATEST => global_average_pool;
    #["com.microsoft"] "QLinearLeakyRelu" 1..=LATEST => |n| {
        let alpha = n.float_or("alpha", 0.01)?;
        unary(n, |n, x| n.op(ops::LeakyRelu { x, alpha }))
    };
    #["com.microsoft"] "QLinearMul" 1..=LATEST => |n| binary(n, Lower::mul);
    #["com.microsoft"] "QLinearReduceMean" 1..=LATEST => reduce_mean;
    #["com.microsoft"] "QLinearSigmoid" 1..=LATEST => |n| unary(n, |n, x| n.op(ops::Sigmoid { x }));
    #["com.microsoft"] "QLinearSoftmax" 1..=LATEST => |n| {
        let version = n.int("opset")?.ok_or(LowerError::MissingAttr { name: "opset" })?;
        unary(n, |n, x| softmax::softmax_of(n, x, version))
    };
    #["com.microsoft"] "QLinearWhere" 1..=LATEST => select;
}

type Result<T> = std::result::Result<T, LowerError>;

/// The numbers that input `at` stands for, with the scale and the zero point behind it.
fn real(n: &mut Lower<'_>, at: usize) -> Result<Value> {
    let (x, scale, zero) = (n.input(at)?, n.input(at + 1)?, n.optional(at + 2)?);
    let (scale, zero) = (n.as_scalar(scale)?, zero.map(|z| n.as_scalar(z)).transpose()?);
    quantize::dequantized(n, x, scale, zero, 0, 0)
}

/// `y` as the result, with the scale that is input `at` and the zero point behind it; `like` is an input of its type.
fn stored(n: &mut Lower<'_>, y: Value, at: usize, like: usize) -> Lowered {
    let y = quantized(n, y, at, like)?;
    n.done(y)
}

fn quantized(n: &mut Lower<'_>, y: Value, at: usize, like: usize) -> Result<Value> {
    let (scale, zero) = (n.input(at)?, n.optional(at + 1)?);
    let (scale, zero) = (n.as_scalar(scale)?, zero.map(|z| n.as_scalar(z)).transpose()?);
    let given = n.source_dtype(at + 1).or_else(|| n.source_dtype(like));
    let dtype = given.or(n.stated_output(0).map(|t| t.dtype)).unwrap_or(DType::U8);
    n.makes(dtype);
    quantize::quantized(n, y, scale, zero, dtype, 0, 0)
}

fn unary<'a>(n: &mut Lower<'a>, f: impl FnOnce(&mut Lower<'a>, Value) -> Result<Value>) -> Lowered {
    let x = real(n, 0)?;
    let y = f(n, x)?;
    stored(n, y, 3, 0)
}

fn binary<'a>(n: &mut Lower<'a>, f: impl FnOnce(&mut Lower<'a>, Value, Value) -> Result<Value>) -> Lowered {
    let (a, b) = (real(n, 0)?, real(n, 3)?);
    let y = f(n, a, b)?;
    stored(n, y, 6, 0)
}

/// [`unary`] of images, whose channels may stand last.
fn image<'a>(n: &mut Lower<'a>, f: impl FnOnce(&mut Lower<'a>, Value) -> Result<Value>) -> Lowered {
    let last = n.flag("channels_last", false)?;
    unary(n, |n, x| {
        let x = if last { channels_second(n, x)? } else { x };
        let y = f(n, x)?;
        if last { channels_behind(n, y) } else { Ok(y) }
    })
}

fn average_pool(n: &mut Lower<'_>) -> Lowered {
    image(n, |n, x| pooling::averaged(n, x))
}

fn global_average_pool(n: &mut Lower<'_>) -> Lowered {
    image(n, |n, x| {
        let rank = n.rank(x)? as i64;
        if rank < 3 {
            return Err(LowerError::core_ml(format!("a pooling of rank {rank}")));
        }
        n.mean_over(x, &(2..rank).collect::<Vec<_>>())
    })
}

fn reduce_mean(n: &mut Lower<'_>) -> Lowered {
    let (axes, keep_dims) = (n.ints("axes")?, n.flag("keepdims", true)?);
    unary(n, |n, x| n.op(ops::ReduceMean { x, axes: axes.filter(|a| !a.is_empty()), keep_dims }))
}

fn select(n: &mut Lower<'_>) -> Lowered {
    let (cond, a, b) = (n.input(0)?, real(n, 1)?, real(n, 4)?);
    let cond = n.cast(cond, DType::Bool)?;
    let y = n.select(cond, a, b)?;
    stored(n, y, 7, 1)
}

/// The inputs come in threes, after the scale and the zero point of the result.
fn concat(n: &mut Lower<'_>) -> Lowered {
    let Some(axis) = n.int("axis")? else { return Err(LowerError::MissingAttr { name: "axis" }) };
    let count = n.input_count().saturating_sub(2);
    if count == 0 || !count.is_multiple_of(3) {
        return Err(LowerError::form(format!("a join of {count} tensors, scales and zero points together")));
    }
    let mut values = vec![];
    for at in (2..n.input_count()).step_by(3) {
        let as_it_is = same(n, at + 1, 0)? && same(n, at + 2, 1)?;
        values.push(if as_it_is {
            let x = n.input(at)?;
            n.cast(x, DType::I32)?
        } else {
            let x = real(n, at)?;
            quantized(n, x, 0, at)?
        });
    }
    // Where all are taken as they are, nothing has said the type.
    [0, 1].into_iter().for_each(|i| n.ignore_input(i));
    if let Some(dtype) = n.source_dtype(1) {
        n.makes(dtype);
    }
    let axis = values.first().map_or(Ok(0), |v| n.axis(*v, axis))?;
    let y = n.concat(values, axis as i64)?;
    n.done(y)
}

/// Whether two inputs are one, or constants that are alike.
fn same(n: &mut Lower<'_>, a: usize, b: usize) -> Result<bool> {
    if let (Some(Arg::Value(x)), Some(Arg::Value(y))) = (n.node.inputs.get(a), n.node.inputs.get(b))
        && x == y
    {
        n.ignore_input(a);
        return Ok(true);
    }
    let (a, b) = (n.constant(a)?, n.constant(b)?);
    Ok(a.zip(b).is_some_and(|(a, b)| a.dtype() == b.dtype() && a.to_f64() == b.to_f64()))
}
