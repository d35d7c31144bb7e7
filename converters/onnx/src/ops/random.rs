//! Random numbers, drawn when the program runs.
//!
//! No two makers of them promise the same numbers, not even for one seed: what is kept is the distribution, and that a
//! seed gives the same numbers in every run.

use super::generator::element_type;
use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::DType;

rows! {
    "Bernoulli" 15..=LATEST => bernoulli;
    "Multinomial" 7..=LATEST => multinomial;
    "RandomNormal" 1..=LATEST => |n| { let shape = stated_shape(n)?; drawn(n, shape, None, NORMAL) };
    "RandomNormalLike" 1..=LATEST => |n| like(n, NORMAL);
    "RandomUniform" 1..=LATEST => |n| { let shape = stated_shape(n)?; drawn(n, shape, None, UNIFORM) };
    "RandomUniformLike" 1..=LATEST => |n| like(n, UNIFORM);
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// A distribution: its two parameters, with what they are where the node does not say.
struct Distribution {
    parameters: [(&'static str, f32); 2],
    op: fn(&mut Lower<'_>, Value, [Value; 2], i64) -> Result<Value>,
}

const NORMAL: Distribution = Distribution {
    parameters: [("mean", 0.0), ("scale", 1.0)],
    op: |n, shape, [mean, stddev], seed| {
        n.op(ops::RandomNormal { shape, mean: Some(mean), stddev: Some(stddev), seed })
    },
};

const UNIFORM: Distribution = Distribution {
    parameters: [("low", 0.0), ("high", 1.0)],
    op: |n, shape, [low, high], seed| n.op(ops::RandomUniform { shape, low: Some(low), high: Some(high), seed }),
};

/// The seed of the program's op. Sources have floats; of one that is no integer, the bits serve.
fn seed(n: &mut Lower<'_>) -> Result<i64> {
    let Some(given) = n.float("seed")? else {
        n.warn_of_chance(
            "random numbers are drawn anew in every run",
            "give the nodes a `seed` for numbers that are the same in every run",
        );
        return Ok(-1);
    };
    n.warn_of_chance(
        "a seed gives other random numbers than in the source: only their distribution is the same",
        "feed the numbers as an input of the model where they matter",
    );
    let whole = given.fract() == 0.0 && (0.0..2_147_483_648.0).contains(&given);
    Ok(if whole { given as i64 } else { i64::from(given.to_bits() >> 1) })
}

fn stated_shape(n: &mut Lower<'_>) -> Result<Value> {
    let Some(shape) = n.ints("shape")? else { return Err(LowerError::MissingAttr { name: "shape" }) };
    if shape.iter().any(|d| *d < 1) {
        return n.bad_attr("shape", "sizes of at least 1");
    }
    n.const_ints(&shape)
}

fn like(n: &mut Lower<'_>, of: Distribution) -> Lowered {
    let x = n.input(0)?;
    let shape = n.op(ops::ShapeOf { x })?;
    let own = n.dtype(x)?;
    drawn(n, shape, Some(own), of)
}

/// Numbers of a distribution in a shape, in the type that the node states, else in that of what it is alike.
fn drawn(n: &mut Lower<'_>, shape: Value, own: Option<DType>, of: Distribution) -> Lowered {
    let dtype = element_type(n, "dtype", own.unwrap_or(DType::F32))?;
    let mut parameters = vec![];
    for (name, default) in of.parameters {
        let number = n.float_or(name, default)?;
        if !number.is_finite() {
            return n.bad_attr(name, "a finite number");
        }
        parameters.push(n.const_scalar(DType::F32, f64::from(number))?);
    }
    let Ok(parameters) = <[Value; 2]>::try_from(parameters) else { return Err(LowerError::Poisoned) };
    let seed = seed(n)?;
    let y = in_a_shape(n, shape, |n, shape| (of.op)(n, shape, parameters, seed))?;
    let y = n.cast(y, dtype)?;
    n.done(y)
}

/// What `draw` makes of a shape: of a scalar, of one element, as an empty shape is none that Core ML's ops take.
fn in_a_shape(
    n: &mut Lower<'_>,
    shape: Value,
    draw: impl FnOnce(&mut Lower<'_>, Value) -> Result<Value>,
) -> Result<Value> {
    if !n.shape(shape)?.iter().any(|d| d.is(0)) {
        return draw(n, shape);
    }
    let one = n.const_ints(&[1])?;
    let y = draw(n, one)?;
    n.squeeze(y, &[0])
}

/// 1 where a number drawn from `0..1` is below the probability, which differs from element to element.
fn bernoulli(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let own = n.dtype(x)?;
    let dtype = element_type(n, "dtype", own)?;
    let seed = seed(n)?;
    let shape = n.op(ops::ShapeOf { x })?;
    let (low, high) = (n.const_scalar(DType::F32, 0.0)?, n.const_scalar(DType::F32, 1.0)?);
    let numbers =
        in_a_shape(n, shape, |n, shape| n.op(ops::RandomUniform { shape, low: Some(low), high: Some(high), seed }))?;
    let x = n.cast(x, DType::F32)?;
    let below = n.less(numbers, x)?;
    let y = n.cast(below, dtype)?;
    n.done(y)
}

/// Of logarithms of probabilities, `[batch, classes]`, up to a common summand.
fn multinomial(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let size = n.int_or("sample_size", 1)?;
    if !(1..=1 << 24).contains(&size) {
        return n.bad_attr("sample_size", "1 to 16777216");
    }
    let dtype = element_type(n, "dtype", DType::I32)?;
    let seed = seed(n)?;
    let x = n.as_float(x)?;
    let y = n.op(ops::RandomCategorical { x, mode: ops::CategoricalMode::Logits, size, seed })?;
    let y = n.cast(y, dtype)?;
    n.done(y)
}
