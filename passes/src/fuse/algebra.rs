//! Arithmetic as sums of products, so that no rule needs to know how an exporter associated it.

use crate::{Matcher, Miss, engine::near};
use mlconv_mil::{
    ir::Value,
    ops::{Add, Mul, Pow, RealDiv, Square, Sub},
};
use mlconv_tensor::{DType, Tensor};

/// A value that is multiplied by, or divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Factor {
    /// The value.
    pub value: Value,
    /// Whether it divides.
    pub divides: bool,
}

/// A product of a number and values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    /// The number.
    pub number: f64,
    /// The values, in order; none twice unless it is multiplied by twice.
    pub factors: Vec<Factor>,
}

/// A sum of products of different values.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    /// The products; the number that is added has no factors.
    pub terms: Vec<Term>,
    /// The results of the arithmetic that was gone through.
    pub between: Vec<Value>,
}

/// Terms and factors up to which arithmetic is multiplied out: no rule looks for more.
const MAX_SIZE: usize = 6;
/// Ops of arithmetic that are gone through in a row.
const MAX_DEPTH: usize = 6;

/// `v` multiplied out. Where `whole` gives a value, that stands for what it is given, and is not looked into.
pub(super) fn expand(m: &Matcher<'_>, v: Value, whole: &dyn Fn(Value) -> Option<Value>) -> Sum {
    grow(m, v, whole, MAX_DEPTH)
}

/// `v` multiplied out, as far as it is only read by the arithmetic itself.
pub(super) fn unfold(m: &Matcher<'_>, v: Value) -> Sum {
    expand(m, v, &|u| (u != v && m.f.uses(u).len() > 1).then_some(u))
}

/// As [`unfold`], of an operand: one that others read too stays whole.
pub(super) fn unfold_operand(m: &Matcher<'_>, v: Value) -> Sum {
    expand(m, v, &|u| (m.f.uses(u).len() > 1).then_some(u))
}

/// The factors of `v`, through products that only it reads; sums are not multiplied out.
pub(super) fn factors(m: &Matcher<'_>, v: Value) -> Sum {
    let is_product = |u| m.def::<Mul>(u).is_ok() || m.def::<RealDiv>(u).is_ok();
    expand(m, v, &|u| (u != v && (!is_product(u) || m.f.uses(u).len() > 1)).then_some(u))
}

/// A line: `slope * x + shift`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    /// The value.
    pub x: Value,
    /// The number before it.
    pub slope: f64,
    /// The number that is added.
    pub shift: f64,
}

/// The line that `v` is, through arithmetic with numbers whose results only it reads; `v` itself where it is none.
pub(super) fn line(m: &Matcher<'_>, v: Value) -> Line {
    let is_number = |v| m.uniform(v).is_ok();
    let by_number = |u| {
        let sum = m.def::<Add>(u).map(|op| (op.x, op.y)).or_else(|_| m.def::<Sub>(u).map(|op| (op.x, op.y)));
        let product = || m.def::<Mul>(u).map(|op| (op.x, op.y));
        let either = sum.or_else(|_| product()).is_ok_and(|(x, y)| is_number(x) || is_number(y));
        either || m.def::<RealDiv>(u).is_ok_and(|op| is_number(op.y))
    };
    let sum = expand(m, v, &|u| (m.f.uses(u).len() > 1 || !by_number(u)).then_some(u));
    let holds = |line: &Line| m.alike(line.x, v) && [line.slope, line.shift].iter().all(|n| (*n as f32).is_finite());
    sum.line().ok().filter(holds).unwrap_or(Line { x: v, slope: 1.0, shift: 0.0 })
}

/// Whether two numbers are one to an op that computes the type of `v`.
pub(super) fn same(m: &Matcher<'_>, v: Value, x: f64, want: f64) -> bool {
    let half = m.ty(v).tensor().is_some_and(|t| t.dtype == DType::F16);
    (x - want).abs() <= if half { 1e-3 } else { 1e-6 } * want.abs()
}

/// The result of the op at the root, where it is one of floats.
pub(super) fn float_result(m: &Matcher<'_>) -> Result<Value, Miss> {
    let y = m.result().ok_or(Miss::No)?;
    if m.ty(y).tensor().is_some_and(|t| t.dtype.is_float()) { Ok(y) } else { Err(Miss::No) }
}

/// A number, in the element type of `like`, as a value that is made where the root stands.
pub(super) fn number_like(m: &Matcher<'_>, like: Value, number: f64) -> Result<Value, Miss> {
    let dtype = m.ty(like).tensor().ok_or(Miss::No)?.dtype;
    Ok(m.make_constant(Tensor::from_f64(dtype, &[], &[number])))
}

/// `v * number`; `v` itself where that is 1.
pub(super) fn scaled(m: &Matcher<'_>, v: Value, number: f64) -> Result<Value, Miss> {
    if number == 1.0 {
        return Ok(v);
    }
    let y = number_like(m, v, number)?;
    Ok(m.make(Mul { x: v, y }))
}

fn grow(m: &Matcher<'_>, v: Value, whole: &dyn Fn(Value) -> Option<Value>, depth: usize) -> Sum {
    // A number is one wherever else it is read.
    if let Some(x) = m.uniform(v).ok().filter(|x| x.is_finite()) {
        return Sum::number(x);
    }
    if let Some(v) = whole(v) {
        return Sum::of(v, false);
    }
    let part = |v| grow(m, v, whole, depth - 1);
    let sum = if depth == 0 {
        None
    } else if let Ok(op) = m.def::<Add>(v) {
        Some(part(op.x).plus(&part(op.y), 1.0))
    } else if let Ok(op) = m.def::<Sub>(v) {
        Some(part(op.x).plus(&part(op.y), -1.0))
    } else if let Ok(op) = m.def::<Mul>(v) {
        Some(part(op.x).times(&part(op.y)))
    } else if let Ok(op) = m.def::<RealDiv>(v) {
        part(op.y).inverse(op.y).map(|y| part(op.x).times(&y))
    } else if let Ok(op) = m.def::<Square>(v) {
        let x = part(op.x);
        Some(x.times(&x))
    } else if let Ok(op) = m.def::<Pow>(v) {
        let exponent = m.uniform(op.y).ok().filter(|e| [1.0, 2.0, 3.0].contains(e));
        exponent.map(|e| {
            let x = part(op.x);
            (1..e as usize).fold(x.clone(), |power, _| power.times(&x))
        })
    } else {
        None
    };
    match sum {
        Some(mut sum) if sum.is_small() => {
            sum.between.push(v);
            sum
        }
        _ => Sum::of(v, false),
    }
}

impl Sum {
    fn of(value: Value, divides: bool) -> Self {
        let factors = vec![Factor { value, divides }];
        Self { terms: vec![Term { number: 1.0, factors }], between: vec![] }
    }

    fn number(number: f64) -> Self {
        let terms = if number == 0.0 { vec![] } else { vec![Term { number, factors: vec![] }] };
        Self { terms, between: vec![] }
    }

    fn is_small(&self) -> bool {
        self.terms.len() <= MAX_SIZE && self.terms.iter().all(|t| t.factors.len() <= MAX_SIZE)
    }

    fn push(&mut self, term: Term) {
        match self.terms.iter_mut().find(|t| t.factors == term.factors) {
            Some(own) => own.number += term.number,
            None => self.terms.push(term),
        }
        self.terms.retain(|t| t.number != 0.0);
    }

    fn plus(mut self, other: &Self, number: f64) -> Self {
        for t in &other.terms {
            self.push(Term { number: t.number * number, factors: t.factors.clone() });
        }
        self.between.extend(&other.between);
        self
    }

    fn times(&self, other: &Self) -> Self {
        let mut out = Self { terms: vec![], between: self.between.iter().chain(&other.between).copied().collect() };
        for a in &self.terms {
            for b in &other.terms {
                let mut factors: Vec<Factor> = a.factors.iter().chain(&b.factors).copied().collect();
                factors.sort_unstable();
                out.push(Term { number: a.number * b.number, factors });
            }
        }
        out
    }

    /// One over the sum, which is the value `v`; `None` of zero.
    fn inverse(self, v: Value) -> Option<Self> {
        let [term] = self.terms.as_slice() else {
            return if self.terms.is_empty() { None } else { Some(Self::of(v, true)) };
        };
        let flip = |f: &Factor| Factor { divides: !f.divides, ..*f };
        let mut factors: Vec<Factor> = term.factors.iter().map(flip).collect();
        factors.sort_unstable();
        Some(Self { terms: vec![Term { number: 1.0 / term.number, factors }], between: self.between })
    }

    /// Every value that is multiplied by.
    pub(super) fn values(&self) -> impl Iterator<Item = Value> + '_ {
        self.terms.iter().flat_map(|t| &t.factors).filter(|f| !f.divides).map(|f| f.value)
    }

    /// The one value that the sum is computed of.
    pub(super) fn only_value(&self) -> Result<Value, Miss> {
        let mut all = self.terms.iter().flat_map(|t| &t.factors);
        let first = all.next().ok_or(Miss::No)?;
        if !first.divides && all.all(|f| f == first) { Ok(first.value) } else { Err(Miss::No) }
    }

    /// The number before a product of values.
    pub(super) fn number_of(&self, values: &[Value]) -> f64 {
        let mut want: Vec<Factor> = values.iter().map(|v| Factor { value: *v, divides: false }).collect();
        want.sort_unstable();
        self.terms.iter().find(|t| t.factors == want).map_or(0.0, |t| t.number)
    }

    /// Whether the sum is just these products, as far as half precision tells.
    pub(super) fn is(&self, want: &[(f64, &[Value])]) -> bool {
        self.terms.len() == want.len() && want.iter().all(|(x, values)| near(self.number_of(values), *x))
    }

    /// The sum as a line of one value.
    pub(super) fn line(&self) -> Result<Line, Miss> {
        let x = self.only_value()?;
        let (slope, shift) = (self.number_of(&[x]), self.number_of(&[]));
        let terms = usize::from(slope != 0.0) + usize::from(shift != 0.0);
        if slope != 0.0 && terms == self.terms.len() { Ok(Line { x, slope, shift }) } else { Err(Miss::No) }
    }
}
