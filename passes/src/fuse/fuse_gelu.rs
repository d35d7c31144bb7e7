//! Fuses what is written out of the Gaussian error linear unit.

use super::algebra::{Sum, expand, float_result, unfold, unfold_operand};
use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{Add, Erf, Gelu, GeluMode, Mul, RealDiv, Sigmoid, Tanh},
};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

pub(crate) static PASS: Pass = Pass {
    name: "fuse_gelu",
    doc: "Fuses a Gaussian error linear unit that is written out with erf, with tanh or with sigmoid.",
    changes_precision: false,
    after: &[],
    run: Run::Rules(rules![
        gelu_of_product: Mul => gelu,
        gelu_of_quotient: RealDiv => gelu,
        gelu_of_sum: Add => gelu,
    ]),
};

/// The number before the cube in the approximation with tanh.
const CUBE: f64 = 0.044715;
/// The number before `x` in the approximation with sigmoid.
const STEEPNESS: f64 = 1.702;

/// The function that decides how much of `x` passes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Erf,
    Tanh,
    Sigmoid,
}

fn gelu(m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let mut miss = Miss::No;
    for gate in unfold(m, y).values() {
        match through(m, y, gate) {
            Err(Miss::No) => {}
            Err(why) => miss = why,
            done => return done,
        }
    }
    Err(miss)
}

/// The gate that `v` is, and what it is computed of.
fn gate_of(m: &Matcher<'_>, v: Value) -> Result<(Gate, Value), Miss> {
    let erf = m.def::<Erf>(v).map(|op| (Gate::Erf, op.x));
    let tanh = || m.def::<Tanh>(v).map(|op| (Gate::Tanh, op.x));
    let sigmoid = || m.def::<Sigmoid>(v).map(|op| (Gate::Sigmoid, op.x));
    erf.or_else(|_| tanh()).or_else(|_| sigmoid())
}

/// `y` as a unit whose gate is `gate`.
fn through(m: &Matcher<'_>, y: Value, gate: Value) -> Fit {
    let (kind, argument) = gate_of(m, gate)?;
    let x = unfold_operand(m, argument).only_value()?;
    let whole = expand(m, y, &|v| (v == x || v == gate).then_some(v));
    let inner = expand(m, argument, &|v| (v == x).then_some(v));
    let mode = mode(&whole, &inner, kind, x, gate).ok_or(Miss::No)?;
    if !m.alike(x, y) {
        return Err(Miss::No);
    }
    m.closed(whole.between.iter().chain(&inner.between).copied().chain([gate]))?;
    Ok(m.replace(Gelu { x, mode }))
}

fn mode(whole: &Sum, inner: &Sum, kind: Gate, x: Value, gate: Value) -> Option<GeluMode> {
    let cubic = |slope: f64| inner.is(&[(slope, &[x]), (slope * CUBE, &[x, x, x])]);
    let root = FRAC_2_PI.sqrt();
    if kind == Gate::Sigmoid {
        // `(1 + tanh(u)) / 2` is `sigmoid(2 * u)`.
        let approximation = [(GeluMode::Sigmoid, inner.is(&[(STEEPNESS, &[x])])), (GeluMode::Tanh, cubic(2.0 * root))];
        let found = approximation.into_iter().find(|(_, fits)| *fits)?.0;
        return whole.is(&[(1.0, &[x, gate])]).then_some(found);
    }
    // Both functions are odd: one less the gate of `-x` is one more that of `x`.
    let sign = whole.number_of(&[x, gate]).signum();
    if !whole.is(&[(0.5, &[x]), (0.5 * sign, &[x, gate])]) {
        return None;
    }
    match kind {
        Gate::Erf => inner.is(&[(sign * FRAC_1_SQRT_2, &[x])]).then_some(GeluMode::Exact),
        Gate::Tanh | Gate::Sigmoid => cubic(sign * root).then_some(GeluMode::Tanh),
    }
}
