//! Fuses reductions that are written out.

use super::{
    algebra::{factors, float_result, same},
    axes::axes_of,
};
use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{
        Abs, Add, Exp, Log, Mul, Pow, RealDiv, ReduceL1Norm, ReduceL2Norm, ReduceLogSumExp, ReduceMax, ReduceMean,
        ReduceSum, ReduceSumSquare, Sqrt, Square, Squeeze, Sub,
    },
};

pub(crate) static PASS: Pass = Pass {
    name: "fuse_reduction",
    doc: "Fuses means, norms, sums of squares and logarithms of sums of exponentials that are written out.",
    changes_precision: false,
    after: &["fuse_normalization"],
    run: Run::Rules(rules![
        mean_of_product: Mul => mean,
        mean_of_quotient: RealDiv => mean,
        sum_of_squares,
        sum_of_sizes,
        norm,
        log_of_exponentials,
        log_less_maximum,
    ]),
};

/// An epsilon that no sum of exponentials notices.
const NOTHING: f32 = 1e-37;

/// A sum divided by the count of what is summed.
pub(super) fn mean(m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let product = factors(m, y);
    let sum = product.only_value()?;
    let of_squares = m.def::<ReduceSumSquare>(sum).map(|op| (op.x, op.axes.clone(), op.keep_dims));
    let of = m.def::<ReduceSum>(sum).map(|op| (op.x, op.axes.clone(), op.keep_dims));
    let (x, axes, keep_dims) = of.or_else(|_| of_squares.clone())?;
    let sizes = m.shape(x)?;
    let count: Option<usize> = axes_of(m, x, axes.as_deref())?.iter().map(|a| sizes[*a].as_usize()).product();
    let is_mean = count.is_some_and(|n| n > 1 && same(m, y, product.number_of(&[sum]) * n as f64, 1.0));
    if !is_mean || !m.alike(sum, y) {
        return Err(Miss::No);
    }
    m.closed(product.between.iter().copied().chain([sum]))?;
    // There is no op for the mean of squares.
    let x = if of_squares.is_ok() { m.make(Square { x }) } else { x };
    Ok(m.replace(ReduceMean { x, axes, keep_dims }))
}

fn sum_of_squares(op: &ReduceSum, m: &Matcher<'_>) -> Fit {
    float_result(m)?;
    let square = m.def::<Square>(op.x).map(|s| s.x);
    let product = || m.def::<Mul>(op.x).and_then(|p| if p.x == p.y { Ok(p.x) } else { Err(Miss::No) });
    let power = || m.def::<Pow>(op.x).and_then(|p| m.is(p.y, 2.0).map(|()| p.x));
    let x = square.or_else(|_| product()).or_else(|_| power())?;
    if !m.alike(x, op.x) {
        return Err(Miss::No);
    }
    m.closed([op.x])?;
    Ok(m.replace(ReduceSumSquare { x, axes: op.axes.clone(), keep_dims: op.keep_dims }))
}

fn sum_of_sizes(op: &ReduceSum, m: &Matcher<'_>) -> Fit {
    float_result(m)?;
    let x = m.def::<Abs>(op.x)?.x;
    m.closed([op.x])?;
    Ok(m.replace(ReduceL1Norm { x, axes: op.axes.clone(), keep_dims: op.keep_dims }))
}

/// The root of a sum of squares.
fn norm(op: &Sqrt, m: &Matcher<'_>) -> Fit {
    let sum: &ReduceSumSquare = m.def(op.x)?;
    m.closed([op.x])?;
    Ok(m.replace(ReduceL2Norm { x: sum.x, axes: sum.axes.clone(), keep_dims: sum.keep_dims }))
}

/// `log(sum(exp(x)))`.
fn log_of_exponentials(op: &Log, m: &Matcher<'_>) -> Fit {
    let sum: &ReduceSum = m.def(op.x)?;
    let x = m.def::<Exp>(sum.x)?.x;
    m.closed([op.x, sum.x])?;
    m.require(op.epsilon.abs() <= NOTHING, "log adds an epsilon")?;
    Ok(m.replace(ReduceLogSumExp { x, axes: sum.axes.clone(), keep_dims: sum.keep_dims }))
}

/// `log(sum(exp(x - n))) + n`, where `n` is the maximum of `x`.
fn log_less_maximum(op: &Add, m: &Matcher<'_>) -> Fit {
    float_result(m)?;
    m.either(op.x, op.y, |log, again| {
        let op: &ReduceLogSumExp = m.def(log)?;
        let less: &Sub = m.def(op.x)?;
        let (x, most): (Value, &ReduceMax) = (less.x, m.def(less.y)?);
        let axes = axes_of(m, x, op.axes.as_deref())?;
        let same = |max: &ReduceMax| Ok(max.x == x && axes_of(m, x, max.axes.as_deref())? == axes);
        if !most.keep_dims || !same(most)? || !m.alike(x, op.x) {
            return Err(Miss::No);
        }
        let (max, inner) = match m.def::<Squeeze>(again) {
            Ok(squeeze) => (squeeze.x, Some(again)),
            Err(_) => (again, None),
        };
        if !same(m.def(max)?)? || !m.alike(again, log) {
            return Err(Miss::No);
        }
        m.closed([log, op.x, less.y, max].into_iter().chain(inner))?;
        Ok(m.replace(ReduceLogSumExp { x, axes: op.axes.clone(), keep_dims: op.keep_dims }))
    })
}
