//! What is written out with a division: sigmoid, silu, softsign, and the reciprocal of a root.

use crate::{
    Fit, Matcher, Miss,
    fuse::algebra::{float_result, line, scaled, unfold},
};
use mlconv_mil::{
    ir::Value,
    ops::{Abs, Add, Exp, Inverse, Mul, Pow, RealDiv, Rsqrt, Sigmoid, Silu, Softsign, Sqrt},
};

/// What may be added to a number of 1 or more without a change in single precision.
const NOTHING: f32 = 6e-8;

/// `x / (1 + exp(-x))`, `x / (1 + |x|)`, `1 / sqrt(x + epsilon)` and the like.
pub(super) fn quotient(op: &RealDiv, m: &Matcher<'_>) -> Fit {
    float_result(m)?;
    let over = if m.uniform(op.x).is_ok_and(|x| x == 1.0) { None } else { Some(op.x) };
    divided(m, over, op.y)
}

pub(super) fn inverse(op: &Inverse, m: &Matcher<'_>) -> Fit {
    match divided(m, None, op.x) {
        Ok(edit) => m.require(op.epsilon.abs() <= NOTHING, "inverse adds an epsilon").map(|()| edit),
        miss => miss,
    }
}

pub(super) fn power(op: &Pow, m: &Matcher<'_>) -> Fit {
    float_result(m)?;
    if m.uniform(op.y)? == -1.0 { divided(m, None, op.x) } else { Err(Miss::No) }
}

/// `over / by`, where `over` is 1 if there is none.
fn divided(m: &Matcher<'_>, over: Option<Value>, by: Value) -> Fit {
    let sum = unfold(m, by);
    let Ok(part) = sum.only_value() else { return Err(Miss::No) };
    if over.is_none() && part == by {
        return reciprocal_of_root(m, by);
    }
    if !sum.is(&[(1.0, &[]), (1.0, &[part])]) || sum.number_of(&[part]) != 1.0 || !m.alike(part, by) {
        return Err(Miss::No);
    }
    let closed = || m.closed(sum.between.iter().copied().chain([part]));
    if let Ok(op) = m.def::<Exp>(part) {
        closed()?;
        return sigmoid(m, over, op.x);
    }
    let x = m.def::<Abs>(part)?.x;
    if over != Some(x) || !m.result().is_some_and(|y| m.alike(x, y)) {
        return Err(Miss::No);
    }
    closed()?;
    Ok(m.replace(Softsign { x }))
}

/// `over * sigmoid(-exponent)`.
fn sigmoid(m: &Matcher<'_>, over: Option<Value>, exponent: Value) -> Fit {
    let y = m.result().ok_or(Miss::No)?;
    if over.is_none() && !m.alike(exponent, y) {
        return Err(Miss::No);
    }
    let line = line(m, exponent);
    let (x, slope) = if line.shift == 0.0 { (line.x, -line.slope) } else { (exponent, -1.0) };
    if over == Some(x) && slope == 1.0 && m.alike(x, y) {
        return Ok(m.replace(Silu { x }));
    }
    let x = scaled(m, x, slope)?;
    match over {
        None => Ok(m.replace(Sigmoid { x })),
        Some(over) => {
            let gate = m.make(Sigmoid { x });
            Ok(m.replace(Mul { x: over, y: gate }))
        }
    }
}

/// `1 / sqrt(x + epsilon)`. Without an epsilon it stays: the op adds one in any case.
fn reciprocal_of_root(m: &Matcher<'_>, root: Value) -> Fit {
    let under = m.def::<Sqrt>(root)?.x;
    let (x, epsilon) = more(m, under)?;
    if !m.result().is_some_and(|y| m.alike(x, y)) {
        return Err(Miss::No);
    }
    m.closed([root, under])?;
    Ok(m.replace(Rsqrt { x, epsilon }))
}

/// `rsqrt(x + epsilon)`, where the op adds nothing that counts beside it.
pub(super) fn rsqrt_of_sum(op: &Rsqrt, m: &Matcher<'_>) -> Fit {
    let (x, epsilon) = more(m, op.x)?;
    if !m.alike(x, op.x) || op.epsilon < 0.0 {
        return Err(Miss::No);
    }
    m.closed([op.x])?;
    Ok(m.replace(Rsqrt { x, epsilon: epsilon + op.epsilon }))
}

/// A value, and the small number above zero that is added to it.
fn more(m: &Matcher<'_>, v: Value) -> Result<(Value, f32), Miss> {
    let op: &Add = m.def(v)?;
    m.either(op.x, op.y, |x, epsilon| {
        let epsilon = m.uniform(epsilon)?;
        if 0.0 < epsilon && epsilon < 1.0 { Ok((x, epsilon as f32)) } else { Err(Miss::No) }
    })
}
