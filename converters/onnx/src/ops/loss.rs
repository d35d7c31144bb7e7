//! Losses.

use super::softmax::log_softmax;
use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError};

rows! {
    "NegativeLogLikelihoodLoss" 12..=LATEST => |n| {
        let x = n.input(0)?;
        let loss = loss(n, x)?;
        n.done(loss)
    };
    "SoftmaxCrossEntropyLoss" 12..=LATEST => |n| {
        let x = n.input(0)?;
        let x = log_softmax(n, x, 1)?;
        let loss = loss(n, x)?;
        Ok(if n.wants(1) { vec![Entry::Value(loss), Entry::Value(x)] } else { vec![Entry::Value(loss)] })
    };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The negated logarithms of probabilities `x`, `[n, c, *d]`, at the classes that input 1 says, weighted and reduced.
fn loss(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let (target, weight) = (n.input(1)?, n.optional(2)?);
    let ignored = n.int("ignore_index")?;
    let reduction = n.str_or("reduction", "mean")?.to_owned();
    let zero = n.scalar_like(x, 0.0)?;
    let no_class = n.const_int(0)?;
    let skip = match ignored {
        Some(index) => {
            let Ok(index) = i32::try_from(index) else { return n.bad_attr("ignore_index", "a 32-bit integer") };
            let index = n.const_int(index.into())?;
            Some(n.equal(target, index)?)
        }
        None => None,
    };
    let class = match skip {
        Some(skip) => n.select(skip, no_class, target)?,
        None => target,
    };
    let indices = n.expand_dims(class, &[1])?;
    let picked = n.op(ops::GatherAlongAxis { x, indices, axis: 1, validate_indices: false })?;
    let picked = n.squeeze(picked, &[1])?;
    let mut losses = n.scale(picked, -1.0)?;
    let mut weights = match weight {
        Some(weight) => {
            let gather = ops::Gather { x: weight, indices: class, axis: 0, batch_dims: 0, validate_indices: false };
            let picked = n.op(gather)?;
            losses = n.mul(losses, picked)?;
            Some(picked)
        }
        None => None,
    };
    if let Some(skip) = skip {
        losses = n.select(skip, zero, losses)?;
        weights = Some(match weights {
            Some(weights) => n.select(skip, zero, weights)?,
            None => {
                let counted = n.not(skip)?;
                let dtype = n.dtype(x)?;
                n.cast(counted, dtype)?
            }
        });
    }
    let all = |x| ops::ReduceSum { x, axes: None, keep_dims: false };
    match reduction.as_str() {
        "none" => Ok(losses),
        "sum" => n.op(all(losses)),
        "mean" => match weights {
            Some(weights) => {
                let (sum, count) = (n.op(all(losses))?, n.op(all(weights))?);
                n.div(sum, count)
            }
            None => n.op(ops::ReduceMean { x: losses, axes: None, keep_dims: false }),
        },
        _ => n.bad_attr("reduction", "`none`, `sum` or `mean`"),
    }
}
