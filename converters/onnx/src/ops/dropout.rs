//! Elements left out at random.

mod noise;

use crate::LATEST;
use mlconv_mil::ops;
use mlconv_source::{Entry, Lower, LowerError, Lowered};
use mlconv_tensor::{DType, Tensor};

rows! {
    "Dropout" 7..=11 => |n| { n.ignore("ratio"); kept(n) };
    "Dropout" 12..=LATEST => dropout;
}

/// Nothing is left out.
fn kept(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let mut results = n.done(x)?;
    if n.wants(1) {
        let shape = n.op(ops::ShapeOf { x })?;
        let mask = match n.node.version {
            ..10 => n.scalar_like(x, 1.0)?,
            _ => n.const_scalar(DType::Bool, 1.0)?,
        };
        results.extend(n.emit(ops::Fill { shape, value: Some(mask) })?);
    }
    Ok(results)
}

fn dropout(n: &mut Lower<'_>) -> Lowered {
    let seed = n.int("seed")?;
    let training = n.constant(2)?.map(|t| t.to_bools().contains(&true));
    let training = if n.optional(2)?.is_none() { Some(false) } else { training };
    let ratio = match n.optional(1)? {
        None => Some(0.5),
        Some(_) => n.constant(1)?.and_then(|t| t.to_f64().first().copied()),
    };
    if training == Some(false) || ratio == Some(0.0) {
        return kept(n);
    }
    let Some(seed) = seed else {
        let what = if training.is_some() { "dropout while training" } else { "dropout that may be for training" };
        let help = "export the model for inference; Core ML draws no numbers that a model without a seed could rely on";
        return Err(LowerError::form_but(what, help));
    };
    let Ok(seed) = u32::try_from(seed) else { return n.bad_attr("seed", "a number of 32 bits, not negative") };
    seeded(n, seed)
}

/// Leaves out the elements whose random number is below the ratio; a seed makes these numbers constants.
fn seeded(n: &mut Lower<'_>, seed: u32) -> Lowered {
    let x = n.input(0)?;
    let dims = n.fixed_shape(x, "which elements are left out")?;
    let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?));
    let count = count.ok_or_else(|| LowerError::form(format!("dropout of {dims:?} elements")))?;
    n.affords(count)?;
    let shape: Vec<usize> = dims.iter().filter_map(|d| usize::try_from(*d).ok()).collect();
    let noise: Vec<f64> = noise::Twister::new(seed).take(count).collect();
    let noise = n.add_const(Tensor::from_f64(DType::F32, &shape, &noise))?;
    let ratio = match n.optional(1)? {
        Some(ratio) => n.as_scalar(ratio)?,
        None => n.const_scalar(DType::F32, 0.5)?,
    };
    let ratio = n.cast(ratio, DType::F32)?;
    let mut mask = n.op(ops::GreaterEqual { x: noise, y: ratio })?;
    let one = n.const_scalar(DType::F32, 1.0)?;
    let mut left = n.sub(one, ratio)?;
    if n.constant(2)?.is_none() {
        let training = n.input(2)?;
        let training = n.as_scalar(training)?;
        let training = n.cast(training, DType::Bool)?;
        let always = n.not(training)?;
        mask = n.op(ops::LogicalOr { x: mask, y: always })?;
        left = n.select(training, left, one)?;
    }
    let y = n.in_float(x, |n, x| {
        let dtype = n.dtype(x)?;
        let (left, zero) = (n.cast(left, dtype)?, n.scalar_like(x, 0.0)?);
        let grown = n.div(x, left)?;
        n.select(mask, grown, zero)
    })?;
    Ok(vec![Entry::Value(y), Entry::Value(mask)])
}
