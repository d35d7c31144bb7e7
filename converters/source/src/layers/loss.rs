//! Losses.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The logarithm of the softmax along an axis, computed so that no exponential overflows.
pub fn log_softmax(n: &mut Lower<'_>, x: Value, axis: usize) -> Result<Value, LowerError> {
    let axes = Some(vec![axis as i64]);
    let max = n.op(ops::ReduceMax { x, axes: axes.clone(), keep_dims: true })?;
    let x = n.sub(x, max)?;
    let sum = n.op(ops::ReduceLogSumExp { x, axes, keep_dims: true })?;
    n.sub(x, sum)
}

/// What becomes of losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// They stay as they are.
    None,
    /// Their sum.
    Sum,
    /// Their mean, weighted where there are weights.
    Mean,
}

/// Targets of a loss by class.
#[derive(Clone, Copy, Debug)]
pub struct Classes {
    /// The class of each element.
    pub target: Value,
    /// A weight for each class.
    pub weight: Option<Value>,
    /// The class that does not count.
    pub ignored: Option<i64>,
}

/// The negated logarithms of probabilities `x`, `[n, c, *d]`, at the classes of the targets, weighted and reduced; and the
/// weights of the targets, where not all are 1.
pub fn likelihood(
    n: &mut Lower<'_>,
    x: Value,
    classes: Classes,
    reduction: Reduction,
) -> Result<(Value, Option<Value>)> {
    let Classes { target, weight, ignored } = classes;
    let zero = n.scalar_like(x, 0.0)?;
    let no_class = n.const_int(0)?;
    let skip = match ignored {
        Some(index) => {
            let Ok(index) = i32::try_from(index) else {
                return Err(LowerError::form(format!("class {index}, beyond 32 bits,")));
            };
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
    let loss = match (reduction, weights) {
        (Reduction::None, _) => losses,
        (Reduction::Sum, _) => n.op(all(losses))?,
        (Reduction::Mean, Some(weights)) => {
            let (sum, count) = (n.op(all(losses))?, n.op(all(weights))?);
            n.div(sum, count)?
        }
        (Reduction::Mean, None) => n.op(ops::ReduceMean { x: losses, axes: None, keep_dims: false })?,
    };
    Ok((loss, weights))
}
