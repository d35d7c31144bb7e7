//! `log(1 + x)` and `exp(x) - 1` as sources that mind small numbers compute them: in two ways, of which one is chosen.

use super::algebra::expand;
use crate::{Matcher, Miss, engine::near};
use mlconv_mil::{
    ir::Value,
    ops::{Abs, Atanh, Exp, Less, Log, RealDiv, Select, Tanh},
};

/// What a function is computed of, and the values between that and the result, which is one of them.
pub(super) type Written = (Value, Vec<Value>);

/// The greatest share of a result that a number too small to matter may have.
const NOTHING: f64 = 6e-8;

/// The `x` of `log(1 + x)`.
pub(super) fn log_of_one_more(m: &Matcher<'_>, v: Value) -> Result<Written, Miss> {
    if let Ok(op) = m.def::<Log>(v) {
        let sum = expand(m, op.x, &|u| (u != op.x && m.f.uses(u).len() > 1).then_some(u));
        // What is added to the operand may be the one.
        let x = sum.only_value()?;
        let one = sum.number_of(&[]) + f64::from(op.epsilon);
        let terms = 1 + usize::from(sum.number_of(&[]) != 0.0);
        if sum.number_of(&[x]) != 1.0 || sum.terms.len() != terms || (one - 1.0).abs() > NOTHING {
            return Err(Miss::No);
        }
        return Ok((x, sum.between.into_iter().chain([v]).collect()));
    }
    let (small, choice) = choice(m, v)?;
    let (x, mut between) = log_of_one_more(m, choice.b)?;
    if x != small.x || !near(small.limit, 0.5) {
        return Err(Miss::No);
    }
    // `2 * atanh(x / (2 + x))`.
    let whole = expand(m, choice.a, &|u| (u == x).then_some(u));
    let root = whole.only_value()?;
    let ratio = m.def::<Atanh>(root)?.x;
    let quotient: &RealDiv = m.def(ratio)?;
    let divisor = expand(m, quotient.y, &|u| (u == x).then_some(u));
    if !whole.is(&[(2.0, &[root])]) || quotient.x != x || !divisor.is(&[(1.0, &[x]), (2.0, &[])]) {
        return Err(Miss::No);
    }
    between.extend(whole.between.into_iter().chain(divisor.between).chain(small.between));
    between.extend([root, ratio, v]);
    Ok((x, between))
}

/// The `x` of `exp(x) - 1`, where it is computed in two ways.
pub(super) fn exp_less_one(m: &Matcher<'_>, v: Value) -> Result<Written, Miss> {
    let (small, choice) = choice(m, v)?;
    let x = small.x;
    let far = expand(m, choice.b, &|u| (u == x).then_some(u));
    let exp = far.values().next().ok_or(Miss::No)?;
    // `2 * tanh(x / 2) / (1 - tanh(x / 2))`.
    let quotient: &RealDiv = m.def(choice.a)?;
    let above = expand(m, quotient.x, &|u| (u == x).then_some(u));
    let tanh = above.values().next().ok_or(Miss::No)?;
    let divisor = expand(m, quotient.y, &|u| (u == x).then_some(u));
    let half = expand(m, m.def::<Tanh>(tanh)?.x, &|u| (u == x).then_some(u));
    let fits = near(small.limit, 1.0)
        && m.def::<Exp>(exp)?.x == x
        && far.is(&[(1.0, &[exp]), (-1.0, &[])])
        && above.is(&[(2.0, &[tanh])])
        && divisor.is(&[(-1.0, &[tanh]), (1.0, &[])])
        && half.is(&[(0.5, &[x])]);
    if !fits {
        return Err(Miss::No);
    }
    let parts = [far.between, above.between, divisor.between, half.between, small.between];
    Ok((x, parts.into_iter().flatten().chain([exp, tanh, choice.a, v]).collect()))
}

/// `|x| < limit`.
struct Small {
    x: Value,
    limit: f64,
    between: Vec<Value>,
}

/// The choice that `v` is by the size of a value.
fn choice<'f>(m: &Matcher<'f>, v: Value) -> Result<(Small, &'f Select), Miss> {
    let select: &Select = m.def(v)?;
    let less: &Less = m.def(select.cond)?;
    let size: &Abs = m.def(less.x)?;
    let limit = m.uniform(less.y)?;
    Ok((Small { x: size.x, limit, between: vec![select.cond, less.x] }, select))
}
