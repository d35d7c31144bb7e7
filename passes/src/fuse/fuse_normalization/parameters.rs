//! What normalized values are multiplied by and what is added to them.

use crate::{
    Fit, Matcher, Miss,
    fuse::{
        algebra::{Factor, Term, float_result},
        axes::axes_of,
    },
};
use mlconv_mil::{
    ir::Value,
    ops::{Add, InstanceNorm, LayerNorm, Mul, Sub},
};
use mlconv_tensor::Tensor;

/// A number times a constant that is broadcast to what is normalized.
#[derive(Clone)]
pub(super) struct Parameter {
    number: f64,
    values: Option<Tensor>,
}

impl Parameter {
    /// `number` times the constant `values`.
    pub(super) fn new(m: &Matcher<'_>, number: f64, values: Option<Value>) -> Result<Self, Miss> {
        match values {
            None => Ok(Self { number, values: None }),
            Some(v) => match m.uniform(v) {
                Ok(x) => Ok(Self { number: number * x, values: None }),
                Err(_) => Ok(Self { number, values: Some(m.constant(v)?.clone()) }),
            },
        }
    }

    /// A term that is a constant.
    pub(super) fn of_term(m: &Matcher<'_>, term: &Term) -> Result<Self, Miss> {
        match term.factors[..] {
            [] => Self::new(m, term.number, None),
            [Factor { value, divides: false }] => Self::new(m, term.number, Some(value)),
            _ => Err(Miss::No),
        }
    }

    /// Whether every element is `x`.
    pub(super) fn is(&self, x: f64) -> bool {
        self.number == x && self.values.is_none()
    }

    /// An element for each place along `axes` of `x`; `None` where it varies along others.
    fn along(&self, m: &Matcher<'_>, x: Value, axes: &[usize]) -> Option<Tensor> {
        let ty = m.ty(x).tensor()?;
        let sizes: Vec<usize> = axes.iter().map(|a| ty.shape[*a].as_usize()).collect::<Option<_>>()?;
        let Some(values) = &self.values else { return Some(Tensor::splat(ty.dtype, &sizes, self.number)) };
        let missing = ty.shape.rank().checked_sub(values.shape().len())?;
        let own = |axis: usize| axis.checked_sub(missing).map_or(1, |a| values.shape()[a]);
        if (0..ty.shape.rank()).any(|a| own(a) != 1 && !axes.contains(&a)) {
            return None;
        }
        let given: Vec<usize> = axes.iter().map(|a| own(*a)).collect();
        if given == sizes && self.number == 1.0 {
            return Some(values.reshape(&sizes));
        }
        if given.iter().zip(&sizes).any(|(g, s)| *g != 1 && g != s) {
            return None;
        }
        let numbers = values.to_f64();
        let spread = (0..sizes.iter().product()).map(|mut at: usize| {
            let (mut place, mut step) = (0, 1);
            for (size, given) in sizes.iter().zip(&given).rev() {
                place += if *given == 1 { 0 } else { at % size * step };
                step *= given;
                at /= size;
            }
            // The sum makes a zero positive.
            self.number * numbers[place] + 0.0
        });
        Some(Tensor::from_f64(ty.dtype, &sizes, &spread.collect::<Vec<_>>()))
    }
}

/// A normalization that is to be made.
pub(super) struct Normalization {
    /// What is normalized.
    pub x: Value,
    /// The axes that mean and variance are taken along, in order.
    pub axes: Vec<usize>,
    /// What the normalized values are multiplied by.
    pub gamma: Option<Parameter>,
    /// What is added then.
    pub beta: Option<Parameter>,
    /// What is added to the variance.
    pub epsilon: f32,
}

impl Normalization {
    /// The normalization that computes `v`, which nobody else reads.
    fn of(m: &Matcher<'_>, v: Value) -> Result<Self, Miss> {
        let (x, axes, gamma, beta, epsilon, along) = if let Ok(op) = m.def::<LayerNorm>(v) {
            let axes = axes_of(m, op.x, Some(&op.axes))?;
            (op.x, axes.clone(), op.gamma, op.beta, op.epsilon, axes)
        } else {
            let op: &InstanceNorm = m.def(v)?;
            (op.x, (2..m.rank(op.x)?).collect(), op.gamma, op.beta, op.epsilon, vec![1])
        };
        // As they are broadcast to `x`.
        let parameter = |v: Option<Value>| {
            let Some(v) = v else { return Ok(None) };
            let mut parameter = Parameter::new(m, 1.0, Some(v))?;
            if let Some(values) = &mut parameter.values {
                let mut sizes = vec![1; m.rank(x)?];
                along.iter().zip(values.shape()).for_each(|(axis, size)| sizes[*axis] = *size);
                *values = values.reshape(&sizes);
            }
            Ok(Some(parameter))
        };
        let gamma = parameter(gamma)?.filter(|g| !g.is(1.0));
        let beta = parameter(beta)?.filter(|b| !b.is(0.0));
        Ok(Self { x, axes, gamma, beta, epsilon })
    }

    /// The op for it: one of each channel of an image, or one along the last axes.
    pub(super) fn made(self, m: &Matcher<'_>) -> Fit {
        let Self { x, axes, epsilon, .. } = &self;
        let rank = m.rank(*x)?;
        let is_image = matches!(rank, 3 | 4) && axes.iter().copied().eq(2..rank);
        // As a sequence has no channels of its own, a normalization of its last axis is that of a layer where it may be.
        let layer = if is_image && rank == 4 { None } else { self.along(m, axes) };
        if let Some([gamma, beta]) = is_image.then(|| self.along(m, &[1])).flatten().filter(|_| layer.is_none()) {
            let [gamma, beta] = [gamma, beta].map(|p| p.map(|t| m.make_constant(t)));
            return Ok(m.replace(InstanceNorm { x: *x, gamma, beta, epsilon: *epsilon }));
        }
        let is_last = axes.iter().copied().eq(rank - axes.len()..rank);
        m.require(is_last || (rank == 4 && *axes == [1]), "layer_norm takes the last axes, or the channels of images")?;
        let layer = layer.or_else(|| self.along(m, axes));
        m.require(layer.is_some(), "a factor or a sum varies along other axes than those of the mean")?;
        let [gamma, beta] = layer.unwrap_or_default().map(|p| p.map(|t| m.make_constant(t)));
        let axes = axes.iter().map(|a| *a as i64).collect();
        Ok(m.replace(LayerNorm { x: *x, axes, gamma, beta, epsilon: *epsilon }))
    }

    /// Factor and sum as elements along these axes; `None` where one varies along others.
    fn along(&self, m: &Matcher<'_>, axes: &[usize]) -> Option<[Option<Tensor>; 2]> {
        let along = |p: &Option<Parameter>| match p {
            None => Some(None),
            Some(p) => p.along(m, self.x, axes).map(Some),
        };
        Some([along(&self.gamma)?, along(&self.beta)?])
    }
}

/// A normalization multiplied by a constant.
pub(super) fn scale(op: &Mul, m: &Matcher<'_>) -> Fit {
    m.either(op.x, op.y, |v, gamma| {
        let (norm, gamma) = (followed(m, v, gamma)?, Parameter::new(m, 1.0, Some(gamma))?);
        if norm.gamma.is_some() || norm.beta.is_some() {
            return Err(Miss::No);
        }
        m.closed([v])?;
        Normalization { gamma: Some(gamma), ..norm }.made(m)
    })
}

/// A constant added to a normalization.
pub(super) fn shift_by_sum(op: &Add, m: &Matcher<'_>) -> Fit {
    m.either(op.x, op.y, |v, beta| shift(m, v, beta, 1.0))
}

pub(super) fn shift_by_difference(op: &Sub, m: &Matcher<'_>) -> Fit {
    shift(m, op.x, op.y, -1.0)
}

fn shift(m: &Matcher<'_>, v: Value, beta: Value, sign: f64) -> Fit {
    let norm = followed(m, v, beta)?;
    if norm.beta.is_some() {
        return Err(Miss::No);
    }
    m.closed([v])?;
    Normalization { beta: Some(Parameter::new(m, sign, Some(beta))?), ..norm }.made(m)
}

/// The normalization that computes `v`, which the root joins with a constant.
fn followed(m: &Matcher<'_>, v: Value, constant: Value) -> Result<Normalization, Miss> {
    if !m.is_constant(constant) || !m.alike(v, float_result(m)?) {
        return Err(Miss::No);
    }
    Normalization::of(m, v)
}
