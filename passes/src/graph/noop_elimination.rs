//! Removes ops that return what they are given.

use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{Add, Cast, Identity, Mul, Pow, RealDiv, Reshape, Sub, Transpose},
};

pub(crate) static PASS: Pass = Pass {
    name: "noop_elimination",
    doc: "Removes ops that return what they are given: identities, casts and reshapes to the same type, arithmetic with neutral elements.",
    changes_precision: false,
    after: &[],
    run: Run::Rules(rules![identity, cast, reshape, transpose, add, sub, mul, real_div, pow]),
};

/// `x` in place of the op, where the types agree.
fn same_type(m: &Matcher<'_>, x: Value) -> Fit {
    let result = m.result().ok_or(Miss::No)?;
    if m.ty(x) == m.ty(result) { Ok(m.alias(x)) } else { Err(Miss::No) }
}

/// Whether `v` is a constant whose every element is `value`.
fn is_all(m: &Matcher<'_>, v: Value, value: f64) -> bool {
    m.uniform(v).is_ok_and(|x| x == value)
}

fn identity(op: &Identity, m: &Matcher<'_>) -> Fit {
    same_type(m, op.x)
}

fn cast(op: &Cast, m: &Matcher<'_>) -> Fit {
    same_type(m, op.x)
}

fn reshape(op: &Reshape, m: &Matcher<'_>) -> Fit {
    // Equal symbolic shapes are equal for every value of the symbols.
    same_type(m, op.x)
}

fn transpose(op: &Transpose, m: &Matcher<'_>) -> Fit {
    let rank = m.ty(op.x).tensor().map_or(0, |t| t.shape.rank()) as i64;
    let in_order = op.perm.iter().enumerate().all(|(i, p)| p.rem_euclid(rank.max(1)) == i as i64);
    if in_order { same_type(m, op.x) } else { Err(Miss::No) }
}

/// The operand beside one whose every element is `neutral`.
fn beside(m: &Matcher<'_>, x: Value, y: Value, neutral: f64) -> Fit {
    if is_all(m, y, neutral) {
        same_type(m, x)
    } else if is_all(m, x, neutral) {
        same_type(m, y)
    } else {
        Err(Miss::No)
    }
}

// `x + 0` turns a negative zero positive; nobody's model depends on it.
fn add(op: &Add, m: &Matcher<'_>) -> Fit {
    beside(m, op.x, op.y, 0.0)
}

fn mul(op: &Mul, m: &Matcher<'_>) -> Fit {
    beside(m, op.x, op.y, 1.0)
}

fn sub(op: &Sub, m: &Matcher<'_>) -> Fit {
    if is_all(m, op.y, 0.0) { same_type(m, op.x) } else { Err(Miss::No) }
}

fn real_div(op: &RealDiv, m: &Matcher<'_>) -> Fit {
    if is_all(m, op.y, 1.0) { same_type(m, op.x) } else { Err(Miss::No) }
}

fn pow(op: &Pow, m: &Matcher<'_>) -> Fit {
    if is_all(m, op.y, 1.0) { same_type(m, op.x) } else { Err(Miss::No) }
}
