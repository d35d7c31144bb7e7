//! Fuses bounds of one value, and the activations that are bounds of a line.

use super::{
    algebra::{Line, factors, float_result, line, number_like, same},
    intervals::{Interval, interval},
};
use crate::{Edit, Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{Clip, Maximum, Minimum, Mul, RealDiv, Relu, Relu6, SigmoidHard, Threshold},
};

pub(crate) static PASS: Pass = Pass {
    name: "fuse_clamp",
    doc: "Joins lower and upper bounds of one value into relu, relu6 or clip, and bounds of a line into sigmoid_hard.",
    changes_precision: false,
    after: &[],
    run: Run::Rules(rules![
        clip: Clip => joined,
        relu: Relu => joined,
        relu6: Relu6 => joined,
        threshold: Threshold => joined,
        maximum: Maximum => joined,
        minimum: Minimum => joined,
        sigmoid_hard_of_clip,
        sigmoid_hard_of_product: Mul => scaled_bounds,
        sigmoid_hard_of_quotient: RealDiv => scaled_bounds,
    ]),
};

/// The bounds of the root and those of what it reads as one op.
fn joined(m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let outer = interval(m, y)?;
    if !m.alike(outer.x, y) {
        return Err(Miss::No);
    }
    let Some(inner) = interval(m, outer.x).ok().filter(|i| m.alike(i.x, y)) else {
        return alone(m, outer);
    };
    if outer.low <= inner.low && inner.high <= outer.high {
        return Ok(m.alias(outer.x));
    }
    if m.f.uses(outer.x).len() > 1 {
        return alone(m, outer);
    }
    let both = Interval { x: inner.x, low: inner.low.max(outer.low), high: inner.high.min(outer.high) };
    m.require(both.low < both.high, "the bounds leave at most one number")?;
    if let Some(edit) = named(m, both) {
        return Ok(edit);
    }
    let Interval { x, low, high } = both;
    if low.is_finite() && high.is_finite() {
        return Ok(m.replace(Clip { x, alpha: low as f32, beta: high as f32 }));
    }
    if low.is_finite() {
        let y = number_like(m, x, low)?;
        return Ok(m.replace(Maximum { x, y }));
    }
    let y = number_like(m, x, high)?;
    Ok(m.replace(Minimum { x, y }))
}

/// The root by its name, where that is another one.
fn alone(m: &Matcher<'_>, bounds: Interval) -> Fit {
    if m.f.op::<Relu>(m.root()).is_some() || m.f.op::<Relu6>(m.root()).is_some() {
        return Err(Miss::No);
    }
    named(m, bounds).ok_or(Miss::No)
}

/// The bounds that have an op of their own.
fn named(m: &Matcher<'_>, Interval { x, low, high }: Interval) -> Option<Edit> {
    match (low, high) {
        (0.0, f64::INFINITY) => Some(m.replace(Relu { x })),
        (0.0, 6.0) => Some(m.replace(Relu6 { x })),
        (f64::NEG_INFINITY, f64::INFINITY) => Some(m.alias(x)),
        _ => None,
    }
}

/// `min(max(a * x + b, 0), 1)`.
fn sigmoid_hard_of_clip(op: &Clip, m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    if (op.alpha, op.beta) != (0.0, 1.0) {
        return Err(Miss::No);
    }
    let line = line(m, op.x);
    if line.x == op.x || !m.alike(line.x, y) {
        return Err(Miss::No);
    }
    Ok(m.replace(bounded(line, 1.0)))
}

/// `min(max(a * x + b, 0), n) / n`, or that times another value.
fn scaled_bounds(m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let product = factors(m, y);
    let [term] = product.terms.as_slice() else { return Err(Miss::No) };
    if term.factors.len() > 2 || term.factors.iter().any(|f| f.divides) {
        return Err(Miss::No);
    }
    let is_scaled = |v: Value| {
        let bounds = interval(m, v).ok()?;
        (bounds.low == 0.0 && same(m, y, bounds.high * term.number, 1.0)).then_some((v, bounds))
    };
    let (gate, bounds) = term.factors.iter().find_map(|f| is_scaled(f.value)).ok_or(Miss::No)?;
    if bounds.high == 1.0 {
        return Err(Miss::No);
    }
    let others: Vec<Value> = term.factors.iter().map(|f| f.value).filter(|v| *v != gate).collect();
    let line = line(m, bounds.x);
    if !m.alike(line.x, gate) {
        return Err(Miss::No);
    }
    m.closed(product.between.iter().copied().chain([gate]))?;
    match others.as_slice() {
        [] if m.alike(gate, y) => Ok(m.replace(bounded(line, bounds.high))),
        [other] => {
            let product = m.shape(gate)?.broadcast(m.shape(*other)?).map_err(|_| Miss::No)?;
            if product != *m.shape(y)? {
                return Err(Miss::No);
            }
            let gate = m.make(bounded(line, bounds.high));
            Ok(m.replace(Mul { x: *other, y: gate }))
        }
        _ => Err(Miss::No),
    }
}

/// `min(max(line / by, 0), 1)`.
fn bounded(Line { x, slope, shift }: Line, by: f64) -> SigmoidHard {
    SigmoidHard { x, alpha: (slope / by) as f32, beta: (shift / by) as f32 }
}
