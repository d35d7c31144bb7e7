//! Fuses normalizations that are written out.

mod parameters;
mod softmax;

use super::{
    algebra::{Factor, Sum, Term, expand, float_result, same},
    axes::mean_of,
    fuse_reduction::mean,
};
use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::{OpId, Use, Value},
    ops::{Add, Mul, Pow, RealDiv, ReduceMean, Rsqrt, Sqrt, Sub},
};
use parameters::{Normalization, Parameter, scale, shift_by_difference, shift_by_sum};
use softmax::softmax;
use std::cell::RefCell;

pub(crate) static PASS: Pass = Pass {
    name: "fuse_normalization",
    doc: "Fuses layer_norm, instance_norm and softmax that are written out, and the factors and sums that follow a normalization.",
    changes_precision: false,
    after: &["fuse_gelu"],
    run: Run::Rules(rules![
        mean_of_product: Mul => mean,
        mean_of_quotient: RealDiv => mean,
        normalized_product: Mul => normalized,
        normalized_quotient: RealDiv => normalized,
        normalized_sum: Add => normalized,
        normalized_difference: Sub => normalized,
        scale,
        shift_by_sum,
        shift_by_difference,
        softmax,
    ]),
};

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, however it is associated.
fn normalized(m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let means = Means::new(m);
    let sum = expand(m, y, &|v| means.whole(v));
    let mean = sum.values().find(|v| mean_of(m, *v).is_ok()).ok_or(Miss::No)?;
    let (x, axes) = mean_of(m, mean)?;
    if !m.alike(x, y) {
        return Err(Miss::No);
    }
    let (of_x, of_mean) = (holding(&sum, x)?, holding(&sum, mean)?);
    let rest = without(of_x, x).ok_or(Miss::No)?;
    if without(of_mean, mean).as_ref() != Some(&rest) || !same(m, y, -of_mean.number, of_x.number) {
        return Err(Miss::No);
    }
    let added: Vec<&Term> = sum.terms.iter().filter(|t| *t != of_x && *t != of_mean).collect();
    // What divides, and what is multiplied by.
    let deviation = |f: &Factor| Deviation::of(m, &means, *f).ok();
    let (at, mut deviation) = rest.iter().enumerate().find_map(|(i, f)| Some((i, deviation(f)?))).ok_or(Miss::No)?;
    let gamma = match rest.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, f)| *f).collect::<Vec<_>>()[..] {
        [] => None,
        [Factor { value, divides: false }] if m.is_constant(value) => Some(value),
        _ => return Err(Miss::No),
    };
    deviation.settle(m, &means, x, mean)?;
    let beta = match added[..] {
        [] => None,
        [term] => Some(Parameter::of_term(m, term)?),
        _ => return Err(Miss::No),
    };
    let gamma = Parameter::new(m, of_x.number, gamma)?;
    let epsilon = deviation.epsilon as f32;
    let norm = Normalization { x, axes, gamma: Some(gamma).filter(|g| !g.is(1.0)), beta, epsilon };
    m.closed(sum.between.iter().copied().chain(deviation.between).chain(means.seen.into_inner()))?;
    norm.made(m)
}

/// The one term that multiplies by `v` once.
fn holding(sum: &Sum, v: Value) -> Result<&Term, Miss> {
    let mut all = sum.terms.iter().filter(|t| t.factors.iter().any(|f| f.value == v));
    match (all.next(), all.next()) {
        (Some(term), None) => Ok(term),
        _ => Err(Miss::No),
    }
}

/// The factors of a term beside `v`.
fn without(term: &Term, v: Value) -> Option<Vec<Factor>> {
    let at = term.factors.iter().position(|f| *f == Factor { value: v, divides: false })?;
    let mut rest = term.factors.clone();
    rest.remove(at);
    rest.iter().all(|f| f.value != v).then_some(rest)
}

/// Means, and what they are the means of, stay whole; equal means are one.
struct Means<'m, 'f> {
    m: &'m Matcher<'f>,
    /// Means that were come by.
    seen: RefCell<Vec<Value>>,
}

impl<'m, 'f> Means<'m, 'f> {
    fn new(m: &'m Matcher<'f>) -> Self {
        Self { m, seen: RefCell::default() }
    }

    fn whole(&self, v: Value) -> Option<Value> {
        let m = self.m;
        if let Ok((x, axes)) = mean_of(m, v) {
            self.seen.borrow_mut().push(v);
            let results = self.readers(x).into_iter().flat_map(|id| m.f.op_data(id).results.iter().copied());
            return results.filter(|r| mean_of(m, *r).is_ok_and(|(_, a)| a == axes)).min();
        }
        (Some(v) != m.result() && !self.readers(v).is_empty()).then_some(v)
    }

    /// The means of `v`.
    fn readers(&self, v: Value) -> Vec<OpId> {
        let mean = |u: &Use| match u {
            Use::Op(id) => Some(*id).filter(|id| self.m.f.op::<ReduceMean>(*id).is_some()),
            Use::Yield(_) => None,
        };
        // What a whole graph reads is no input of one normalization, and would be looked through for each reader.
        self.m.f.uses(v).iter().take(MAX_READERS).filter_map(mean).collect()
    }
}

/// Readers of a value among which its means are looked for.
const MAX_READERS: usize = 64;

/// One over the root of a variance.
struct Deviation {
    /// The mean of the squares of what is off the mean, or of the squares of all.
    variance: Value,
    /// The mean whose square is taken from the latter.
    less: Option<Value>,
    epsilon: f64,
    between: Vec<Value>,
}

impl Deviation {
    /// `1 / sqrt(variance + epsilon)`, as a factor.
    fn of(m: &Matcher<'_>, means: &Means<'_, '_>, Factor { value, divides }: Factor) -> Result<Self, Miss> {
        let power = |exponent: f64| {
            let op: &Pow = m.def(value)?;
            if m.uniform(op.y)? == exponent { Ok((op.x, 0.0)) } else { Err(Miss::No) }
        };
        let (under, epsilon) = if divides {
            m.def::<Sqrt>(value).map(|op| (op.x, 0.0)).or_else(|_| power(0.5))?
        } else {
            m.def::<Rsqrt>(value).map(|op| (op.x, f64::from(op.epsilon))).or_else(|_| power(-0.5))?
        };
        let sum = expand(m, under, &|v| means.whole(v));
        let epsilon = epsilon + sum.number_of(&[]);
        let (mut variance, mut less) = (None, None);
        for term in sum.terms.iter().filter(|t| !t.factors.is_empty()) {
            let slot = match (term.number, &term.factors[..]) {
                (1.0, [_]) => &mut variance,
                (-1.0, [a, b]) if a == b => &mut less,
                _ => return Err(Miss::No),
            };
            let Factor { value, divides } = term.factors[0];
            if divides || slot.replace(value).is_some() {
                return Err(Miss::No);
            }
        }
        let between = sum.between.into_iter().chain([value]).collect();
        let variance = variance.filter(|_| epsilon >= 0.0).ok_or(Miss::No)?;
        Ok(Self { variance, less, epsilon, between })
    }

    /// Takes note of what is between where the variance is that of `x` around `mean`.
    fn settle(&mut self, m: &Matcher<'_>, means: &Means<'_, '_>, x: Value, mean: Value) -> Result<(), Miss> {
        let ((squares, along), (_, axes)) = (mean_of(m, self.variance)?, mean_of(m, mean)?);
        let sum = expand(m, squares, &|v| if v == squares { None } else { means.whole(v) });
        let fits = match self.less {
            None => sum.is(&[(1.0, &[x, x]), (-2.0, &[x, mean]), (1.0, &[mean, mean])]),
            Some(less) => less == mean && sum.is(&[(1.0, &[x, x])]),
        };
        self.between.extend(sum.between);
        self.between.push(self.variance);
        if fits && along == axes { Ok(()) } else { Err(Miss::No) }
    }
}
