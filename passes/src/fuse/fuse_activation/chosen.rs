//! What is written out with a choice between what is above a limit and what is below.

use crate::{
    Fit, Matcher, Miss,
    engine::near,
    fuse::{
        algebra::{expand, float_result, line, number_like, unfold},
        precise::exp_less_one,
    },
};
use mlconv_mil::{
    ir::Value,
    ops::{Elu, Exp, Greater, GreaterEqual, LeakyRelu, Less, LessEqual, Mul, Prelu, Relu, Select, Softplus},
};

/// Above it, `log(1 + exp(x))` is `x` in single precision.
const LINEAR: f64 = 15.0;

/// A choice by the side of a limit that a value is on.
struct Sides {
    x: Value,
    limit: f64,
    above: Value,
    below: Value,
}

impl Sides {
    fn of(op: &Select, m: &Matcher<'_>) -> Result<Self, Miss> {
        let greater = m.def::<Greater>(op.cond).map(|c| (c.x, c.y));
        let greater = greater.or_else(|_| m.def::<GreaterEqual>(op.cond).map(|c| (c.x, c.y)));
        let less = || m.def::<Less>(op.cond).map(|c| (c.x, c.y));
        let less = || less().or_else(|_| m.def::<LessEqual>(op.cond).map(|c| (c.x, c.y)));
        // `x < y` is `y > x`.
        let (x, y) = greater.or_else(|_| less().map(|(x, y)| (y, x)))?;
        Ok(match m.uniform(y) {
            Ok(limit) => Self { x, limit, above: op.a, below: op.b },
            Err(_) => Self { x: y, limit: m.uniform(x)?, above: op.b, below: op.a },
        })
    }
}

/// `x` where it is great, else `softplus(b * x) / b`.
pub(super) fn softplus_above_limit(op: &Select, m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let Sides { x: tested, limit, above: x, below } = Sides::of(op, m)?;
    let whole = |v: Value| expand(m, v, &|u| (u == x).then_some(u));
    let (softplus, over) = whole(below).line().map(|l| (l.x, l.slope))?;
    let slope = whole(m.def::<Softplus>(softplus)?.x);
    let slope = if slope.only_value()? == x { slope.number_of(&[x]) } else { 0.0 };
    if slope <= 0.0 || !whole(tested).is(&[(slope, &[x])]) || !near(over * slope, 1.0) || limit < LINEAR {
        return Err(Miss::No);
    }
    if m.alike(below, y) { Ok(m.alias(below)) } else { Err(Miss::No) }
}

/// `x` where it is above zero, else `a * x`.
pub(super) fn choice_below_zero(op: &Select, m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let Sides { x, limit, above, below } = Sides::of(op, m)?;
    if limit != 0.0 || above != x || !m.alike(x, y) {
        return Err(Miss::No);
    }
    let sum = expand(m, below, &|u| (u == x || u != below && m.f.uses(u).len() > 1).then_some(u));
    let closed = || m.closed(sum.between.iter().copied().chain([op.cond]));
    let term = match sum.terms.as_slice() {
        [] => {
            closed()?;
            return Ok(m.replace(Relu { x }));
        }
        [term] if term.factors.iter().all(|f| !f.divides) => term,
        _ => return Err(Miss::No),
    };
    let weights: Vec<Value> = term.factors.iter().map(|f| f.value).filter(|v| *v != x).collect();
    if term.factors.len() != weights.len() + 1 || weights.len() > 1 || weights.iter().any(|w| !m.is_constant(*w)) {
        return Err(Miss::No);
    }
    closed()?;
    negative_slope(m, x, term.number, weights.first().copied())
}

/// `s * x` where `x` is above zero, else `a * (exp(x) - 1)`.
pub(super) fn elu(op: &Select, m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let Sides { x, limit, above, below } = Sides::of(op, m)?;
    if limit != 0.0 || !m.alike(x, y) {
        return Err(Miss::No);
    }
    let line = if above == x { None } else { Some(line(m, above)) };
    let scale = match line {
        None => 1.0,
        Some(line) if line.x == x && line.shift == 0.0 && line.slope > 0.0 => line.slope,
        Some(_) => return Err(Miss::No),
    };
    let sum = unfold(m, below);
    let of = sum.only_value()?;
    let (alpha, mut between) = match m.def::<Exp>(of) {
        Ok(exp) if exp.x == x && sum.is(&[(sum.number_of(&[of]), &[of]), (-sum.number_of(&[of]), &[])]) => {
            (sum.number_of(&[of]), vec![of])
        }
        Ok(_) => return Err(Miss::No),
        Err(_) => match (sum.terms.as_slice(), exp_less_one(m, of)?) {
            ([term], (inner, between)) if inner == x => (term.number, between),
            _ => return Err(Miss::No),
        },
    };
    between.extend(sum.between.into_iter().chain([op.cond]));
    m.closed(between)?;
    let elu = Elu { x, alpha: (alpha / scale) as f32 };
    if scale == 1.0 {
        return Ok(m.replace(elu));
    }
    let (elu, by) = (m.make(elu), number_like(m, x, scale)?);
    Ok(m.replace(Mul { x: elu, y: by }))
}

/// `x` above zero, below it `number * x`, times a constant of channels if there is one.
pub(super) fn negative_slope(m: &Matcher<'_>, x: Value, number: f64, weight: Option<Value>) -> Fit {
    let Some(weight) = weight else { return Ok(m.replace(LeakyRelu { x, alpha: number as f32 })) };
    let (slopes, sizes) = (m.constant(weight)?, m.shape(x)?);
    let form: Vec<usize> = slopes.shape().iter().copied().skip_while(|d| *d == 1).collect();
    let channels = sizes.get(1).filter(|_| sizes.rank() == 4).and_then(|d| d.as_usize());
    m.require(channels.is_some_and(|c| form == [c, 1, 1]), "prelu takes a slope for each channel of images")?;
    let values: Vec<f64> = slopes.to_f64().into_iter().map(|w| w * number).collect();
    let alpha = m.make_constant(mlconv_tensor::Tensor::from_f64(slopes.dtype(), &[form[0]], &values));
    Ok(m.replace(Prelu { x, alpha }))
}
