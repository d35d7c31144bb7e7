//! Folds factors and terms for each channel into the weights behind them.

use super::fold_affine::along;
use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{Add, Conv, Mul, PadType, RealDiv, Sub},
};
use mlconv_tensor::Tensor;

pub(crate) static PASS: Pass = Pass {
    name: "fold_input_affine",
    doc: "Folds factors and terms that are constant for each channel, such as those of the pixels of an image, into the weight and the bias of the convolution behind them. Where it pads with zeros, a term stays, before the factor.",
    changes_precision: false,
    after: &["const_elimination", "fold_affine"],
    run: Run::Rules(rules![conv]),
};

/// Weights that are summed for a new bias have no more elements than this: they are read for it.
const MAX_SUMMED: usize = 1 << 22;

/// Beyond this, or its inverse, half precision might not hold the weights any more, or what is left of a term.
const MOST: f64 = 1024.0;

/// `x * factor + term`, each for every channel; `None` is none.
struct Affine {
    x: Value,
    factor: Option<Vec<f64>>,
    term: Option<Vec<f64>>,
}

/// The convolution that reads, as far as this matters.
struct Reader<'a> {
    weight: &'a Tensor,
    groups: usize,
}

impl Reader<'_> {
    /// The channels that are read.
    fn channels(&self) -> usize {
        self.weight.shape()[1] * self.groups
    }

    /// What is computed before it, of a value that it alone reads.
    fn before(&self, m: &Matcher<'_>, v: Value) -> Result<Affine, Miss> {
        match self.factor(m, v) {
            Err(Miss::No) => {}
            scaled => return scaled,
        }
        let (x, term) = self.term(m, v)?;
        let inner = m.attempt(|| self.factor(m, x)).ok();
        Ok(match inner {
            Some(Affine { x, factor, .. }) => Affine { x, factor, term: Some(term) },
            None => Affine { x, factor: None, term: Some(term) },
        })
    }

    fn factor(&self, m: &Matcher<'_>, v: Value) -> Result<Affine, Miss> {
        let (x, factor) = if let Ok(op) = m.sole::<Mul>(v) {
            m.either(op.x, op.y, |x, y| Ok((x, self.each(m, v, x, y)?)))?
        } else {
            let op = m.sole::<RealDiv>(v)?;
            let divisor = self.each(m, v, op.x, op.y)?;
            (op.x, divisor.into_iter().map(|d| 1.0 / d).collect())
        };
        let held = |f: &f64| (1.0 / MOST..=MOST).contains(&f.abs());
        m.require(factor.iter().all(held), "with the factor, half precision might not hold the weights")?;
        Ok(Affine { x, factor: Some(factor), term: None })
    }

    fn term(&self, m: &Matcher<'_>, v: Value) -> Result<(Value, Vec<f64>), Miss> {
        if let Ok(op) = m.sole::<Add>(v) {
            return m.either(op.x, op.y, |x, y| Ok((x, self.each(m, v, x, y)?)));
        }
        let op = m.sole::<Sub>(v)?;
        let less = self.each(m, v, op.x, op.y)?;
        Ok((op.x, less.into_iter().map(|t| -t).collect()))
    }

    /// What `constant` is for each channel, where `v` is computed of it and of `x`.
    fn each(&self, m: &Matcher<'_>, v: Value, x: Value, constant: Value) -> Result<Vec<f64>, Miss> {
        m.require(m.alike(v, x), "what is read is broadcast")?;
        let values = along(m, m.rank(x)?, self.channel_axis(), constant)?;
        m.require(values.iter().all(|f| f.is_finite()), "a factor or a term is not finite")?;
        Ok(if let [one] = values[..] { vec![one; self.channels()] } else { values })
    }

    /// The axis of the channels, from the end.
    fn channel_axis(&self) -> usize {
        self.weight.shape().len() - 1
    }

    /// The weight times a factor for each channel that is read.
    fn scaled(&self, factor: &[f64]) -> Option<Tensor> {
        let (outs, ins) = (self.weight.shape()[0], self.weight.shape()[1]);
        let run = self.weight.shape()[2..].iter().product::<usize>().max(1);
        if self.groups == 1 {
            return self.weight.scaled(factor.to_vec(), run);
        }
        let per_group = (outs / self.groups).max(1);
        let of = |o: usize| factor.iter().skip(o / per_group * ins).take(ins).copied();
        self.weight.scaled((0..outs).flat_map(of).collect(), run)
    }

    /// What the convolution makes of a term for each channel that is read.
    fn sums(&self, term: &[f64]) -> Vec<f64> {
        let (outs, ins) = (self.weight.shape()[0], self.weight.shape()[1]);
        let run = self.weight.shape()[2..].iter().product::<usize>();
        let (weights, per_group) = (self.weight.to_f64(), (outs / self.groups).max(1));
        let of = |(o, w): (usize, &[f64])| {
            let terms = term.iter().skip(o / per_group * ins);
            w.chunks_exact(run.max(1)).zip(terms).map(|(w, t)| w.iter().sum::<f64>() * t).sum()
        };
        weights.chunks_exact((ins * run).max(1)).enumerate().map(of).collect()
    }
}

/// What a convolution reads, its weight and its bias, with what stands before it folded in.
struct Folded {
    x: Value,
    weight: Value,
    bias: Option<Value>,
}

fn folded(
    m: &Matcher<'_>,
    reader: &Reader<'_>,
    (x, weight, bias): (Value, Value, Option<Value>),
    pads: bool,
) -> Result<Folded, Miss> {
    let Affine { x, factor, term } = reader.before(m, x)?;
    m.require(m.f.uses(weight).len() == 1, "the weight is read elsewhere")?;
    m.require(reader.weight.dtype().is_float() && reader.weight.count() > 0, "the weights are integers")?;
    m.require(bias.is_none_or(|b| m.is_constant(b)), "the bias is no constant")?;
    let mut out = Folded { x, weight, bias };
    if let Some(factor) = &factor {
        out.weight = m.make_constant_like(weight, reader.scaled(factor).ok_or(Miss::No)?);
    }
    let Some(term) = term else { return Ok(out) };
    if pads {
        // A border of zeros has no term. What is factored out of it goes into the weights all the same.
        let factor = factor.ok_or(Miss::Because("it adds a term, and the convolution pads with zeros"))?;
        let first: Vec<f64> = term.iter().zip(&factor).map(|(t, f)| t / f).collect();
        m.require(first.iter().all(|t| t.abs() <= MOST), "half precision would lose what is added")?;
        let dtype = m.ty(x).tensor().ok_or(Miss::No)?.dtype;
        let shape: Vec<usize> =
            (0..m.rank(x)?).rev().map(|i| if i + 1 == reader.channel_axis() { first.len() } else { 1 }).collect();
        let y = m.make_constant(Tensor::from_f64(dtype, &shape, &first));
        out.x = m.make(Add { x, y });
        return Ok(out);
    }
    m.require(reader.weight.count() <= MAX_SUMMED, "the weight is too large to be summed")?;
    let mut sums = reader.sums(&term);
    if let Some(b) = bias {
        sums.iter_mut().zip(m.constant(b)?.to_f64()).for_each(|(s, b)| *s += b);
    }
    m.require(sums.iter().all(|s| s.is_finite()), "a sum is not finite")?;
    let dtype = bias.and_then(|b| m.constant(b).ok()).map_or(reader.weight.dtype(), Tensor::dtype);
    let val = Tensor::from_f64(dtype, &[sums.len()], &sums);
    out.bias = Some(bias.map_or_else(|| m.make_constant(val.clone()), |b| m.make_constant_like(b, val.clone())));
    Ok(out)
}

fn conv(op: &Conv, m: &Matcher<'_>) -> Fit {
    let weight = m.constant(op.weight)?;
    let groups = usize::try_from(op.groups).ok().filter(|g| *g > 0).ok_or(Miss::No)?;
    let reader = Reader { weight, groups };
    let pads = match op.pad_type {
        PadType::Valid => false,
        PadType::Custom => op.pad.iter().any(|p| *p != 0),
        PadType::Same | PadType::SameLower => weight.shape()[2..].iter().any(|k| *k > 1),
    };
    let Folded { x, weight, bias } = folded(m, &reader, (op.x, op.weight, op.bias), pads)?;
    Ok(m.replace(Conv { x, weight, bias, ..op.clone() }))
}
