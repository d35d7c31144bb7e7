//! Fuses activations that are written out.

mod chosen;
mod divided;

use super::{
    algebra::{Sum, float_result, line, unfold, unfold_operand},
    intervals::interval,
    precise::log_of_one_more,
};
use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use chosen::{choice_below_zero, elu, negative_slope, softplus_above_limit};
use divided::{inverse, power, quotient, rsqrt_of_sum};
use mlconv_mil::{
    ir::Value,
    ops::{Abs, Add, Exp, LeakyRelu, Log, Maximum, Mul, Prelu, Select, Sigmoid, Silu, Softplus, Sub, Tanh},
};

pub(crate) static PASS: Pass = Pass {
    name: "fuse_activation",
    doc: "Fuses sigmoid, silu, softplus, softsign, elu, prelu, leaky_relu and rsqrt that are written out.",
    changes_precision: false,
    after: &["fuse_gelu", "fuse_normalization"],
    run: Run::Rules(rules![
        silu,
        sigmoid_of_product: Mul => sigmoid_by_tanh,
        sigmoid_of_sum: Add => sigmoid_by_tanh,
        quotient,
        inverse,
        power,
        rsqrt_of_sum,
        softplus: Log => softplus_written_out,
        // `log(1 + x)` in two ways, of `x = exp(v)`.
        softplus_of_choice: Select => softplus_written_out,
        softplus_above_limit,
        softplus_in_parts,
        choice_below_zero,
        elu,
        leaky_relu_of_maximum,
        leaky_relu_of_prelu,
        prelu_of_sum: Add => prelu_in_parts,
        prelu_of_difference: Sub => prelu_in_parts,
    ]),
};

/// `x * sigmoid(x)`.
fn silu(op: &Mul, m: &Matcher<'_>) -> Fit {
    m.either(op.x, op.y, |x, gate| {
        if m.def::<Sigmoid>(gate)?.x != x {
            return Err(Miss::No);
        }
        m.sole::<Sigmoid>(gate)?;
        Ok(m.replace(Silu { x }))
    })
}

/// `(1 + tanh(x / 2)) / 2`.
fn sigmoid_by_tanh(m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let sum = unfold(m, y);
    let tanh = sum.only_value()?;
    let half = line(m, m.def::<Tanh>(tanh)?.x);
    let x = half.x;
    if !sum.is(&[(0.5, &[]), (0.5, &[tanh])]) || (half.slope, half.shift) != (0.5, 0.0) || !m.alike(x, y) {
        return Err(Miss::No);
    }
    m.closed(sum.between.into_iter().chain([tanh]))?;
    Ok(m.replace(Sigmoid { x }))
}

/// `log(1 + exp(x))`.
fn softplus_written_out(m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let (exp, between) = log_of_one_more(m, y)?;
    let x = m.def::<Exp>(exp)?.x;
    if !m.alike(x, y) {
        return Err(Miss::No);
    }
    m.closed(between.into_iter().chain([exp]))?;
    Ok(m.replace(Softplus { x }))
}

/// `max(x, 0) + softplus(-|x|)`.
fn softplus_in_parts(op: &Add, m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    m.either(op.x, op.y, |above, rest| {
        let bounds = interval(m, above)?;
        let argument = m.def::<Softplus>(rest)?.x;
        let (size, slope) = unfold_operand(m, argument).line().map(|l| (l.x, (l.slope, l.shift)))?;
        let x = m.def::<Abs>(size)?.x;
        if !bounds.is_above_zero() || x != bounds.x || slope != (-1.0, 0.0) || !m.alike(x, y) {
            return Err(Miss::No);
        }
        m.closed([above, rest, argument, size])?;
        Ok(m.replace(Softplus { x }))
    })
}

/// `max(x, a * x)`.
fn leaky_relu_of_maximum(op: &Maximum, m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    m.either(op.x, op.y, |x, below| {
        let line = line(m, below);
        if line.x != x || line.shift != 0.0 || !(0.0 < line.slope && line.slope < 1.0) || !m.alike(x, y) {
            return Err(Miss::No);
        }
        Ok(m.replace(LeakyRelu { x, alpha: line.slope as f32 }))
    })
}

/// One slope for all channels.
fn leaky_relu_of_prelu(op: &Prelu, m: &Matcher<'_>) -> Fit {
    let alpha = m.uniform(op.alpha)? as f32;
    Ok(m.replace(LeakyRelu { x: op.x, alpha }))
}

/// `max(x, 0) + a * min(x, 0)`, or `max(x, 0) - a * max(-x, 0)`.
fn prelu_in_parts(m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let sum = unfold(m, y);
    let mut miss = Miss::No;
    for above in sum.terms.iter().filter_map(|t| t.factors.first().filter(|_| t.number == 1.0 && t.factors.len() == 1))
    {
        match prelu_above(m, y, &sum, above.value) {
            Err(Miss::No) => {}
            Err(why) => miss = why,
            done => return done,
        }
    }
    Err(miss)
}

/// The sum of what is `above` zero and of what is below it.
fn prelu_above(m: &Matcher<'_>, y: Value, sum: &Sum, above: Value) -> Fit {
    let bounds = interval(m, above)?;
    let x = bounds.x;
    let rest = sum.terms.iter().find(|t| t.factors.iter().all(|f| f.value != above)).ok_or(Miss::No)?;
    if !bounds.is_above_zero() || sum.terms.len() != 2 || rest.factors.iter().any(|f| f.divides) {
        return Err(Miss::No);
    }
    // The sign of what is below zero, as `below` gives it.
    let sign = |below: Value| {
        let bounds = interval(m, below).ok()?;
        let line = line(m, bounds.x);
        let is_minus = line.x == x && (line.slope, line.shift) == (-1.0, 0.0);
        match () {
            () if bounds.is_below_zero() && bounds.x == x => Some(1.0),
            () if bounds.is_above_zero() && is_minus => Some(-1.0),
            () => None,
        }
    };
    let (below, sign) = rest.factors.iter().find_map(|f| Some((f.value, sign(f.value)?))).ok_or(Miss::No)?;
    let weights: Vec<Value> = rest.factors.iter().map(|f| f.value).filter(|v| *v != below).collect();
    if !m.alike(x, y) || weights.len() > 1 || weights.iter().any(|w| !m.is_constant(*w)) {
        return Err(Miss::No);
    }
    m.closed(sum.between.iter().copied().chain([above, below]))?;
    negative_slope(m, x, rest.number * sign, weights.first().copied())
}
