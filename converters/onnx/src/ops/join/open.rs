//! Slices and paddings of which axes, steps or amounts are only known when the program runs: elements are picked along
//! every axis by computed indices.

use super::Fill;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

type Result<T> = std::result::Result<T, LowerError>;

/// Which of the numbers given are for an axis.
struct Named {
    /// Axes, none negative; `None` where the numbers are for all axes in order.
    axes: Option<Value>,
}

impl Named {
    fn new(n: &mut Lower<'_>, axes: Option<Value>, rank: usize) -> Result<Self> {
        let Some(axes) = axes else { return Ok(Self { axes: None }) };
        let axes = n.cast(axes, DType::I32)?;
        let (zero, rank) = (n.const_int(0)?, n.const_int(rank as i64)?);
        let (negative, moved) = (n.less(axes, zero)?, n.add(axes, rank)?);
        Ok(Self { axes: Some(n.select(negative, moved, axes)?) })
    }

    /// The number of `numbers` for `axis`; `default` where there is none.
    fn pick(&self, n: &mut Lower<'_>, numbers: Value, axis: usize, default: Value) -> Result<Value> {
        let Some(axes) = self.axes else {
            if n.shape(numbers)?.first().and_then(mlconv_tensor::Dim::as_usize).is_some_and(|count| axis >= count) {
                return Ok(default);
            }
            let one = n.element(numbers, axis)?;
            return n.squeeze(one, &[0]);
        };
        let (axis, zero) = (n.const_int(axis as i64)?, n.const_int(0)?);
        let mine = n.equal(axes, axis)?;
        let kept = n.select(mine, numbers, zero)?;
        let sum = |n: &mut Lower<'_>, x: Value| n.op(ops::ReduceSum { x, axes: Some(vec![0]), keep_dims: false });
        let (number, hits) = (sum(n, kept)?, n.cast(mine, DType::I32)?);
        let hits = sum(n, hits)?;
        let none = n.equal(hits, zero)?;
        n.select(none, default, number)
    }
}

/// The size of `x` along an axis, as a scalar.
fn scalar_size(n: &mut Lower<'_>, x: Value, axis: usize) -> Result<Value> {
    let size = n.sizes_exactly(&[Size::Of(x, axis)])?;
    n.squeeze(size, &[0])
}

pub(super) fn slice(n: &mut Lower<'_>) -> Lowered {
    let (x, starts, ends) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (axes, steps) = (n.optional(3)?, n.optional(4)?);
    let rank = n.rank(x)?;
    let named = Named::new(n, axes, rank)?;
    let (zero, one) = (n.const_int(0)?, n.const_int(1)?);
    let mut y = x;
    for axis in 0..rank {
        let size = scalar_size(n, x, axis)?;
        let step = match steps {
            Some(steps) => named.pick(n, steps, axis, one)?,
            None => one,
        };
        let start = named.pick(n, starts, axis, zero)?;
        let end = named.pick(n, ends, axis, size)?;
        let from_start = |n: &mut Lower<'_>, at: Value| {
            let (negative, moved) = (n.less(at, zero)?, n.add(at, size)?);
            n.select(negative, moved, at)
        };
        let (start, end) = (from_start(n, start)?, from_start(n, end)?);
        // Backwards, a slice begins at the last element at most and may end before the first.
        let backward = n.less(step, zero)?;
        let back = n.cast(backward, DType::I32)?;
        let (last, least) = (n.sub(size, back)?, n.sub(zero, back)?);
        let start = n.maximum(start, zero)?;
        let start = n.minimum(start, last)?;
        let end = n.maximum(end, least)?;
        let end = n.minimum(end, last)?;
        let indices = n.op(ops::Range1d { end, start, step })?;
        y = n.without_bool(y, |n, x| {
            n.op(ops::Gather { x, indices, axis: axis as i64, batch_dims: 0, validate_indices: false })
        })?;
    }
    n.done(y)
}

pub(super) fn pad(n: &mut Lower<'_>, x: Value, fill: Fill, value: Option<Value>) -> Lowered {
    let (pads, axes) = (n.input(1)?, n.optional(3)?);
    let rank = n.rank(x)?;
    let count = match axes {
        Some(axes) => n.elements(axes)?.len() as i64,
        None => rank as i64,
    };
    let (befores, afters) = (n.slice(pads, 0, 0, Some(count))?, n.slice(pads, 0, count, None)?);
    let named = Named::new(n, axes, rank)?;
    let (zero, one) = (n.const_int(0)?, n.const_int(1)?);
    let (mut y, mut inside): (Value, Option<Value>) = (x, None);
    for axis in 0..rank {
        let size = scalar_size(n, x, axis)?;
        let (before, after) = (named.pick(n, befores, axis, zero)?, named.pick(n, afters, axis, zero)?);
        // A negative amount cuts; what is put around is made from what is left.
        let (cut_before, cut_after) = (n.minimum(before, zero)?, n.minimum(after, zero)?);
        let (before, after) = (n.maximum(before, zero)?, n.maximum(after, zero)?);
        let size = n.add(size, cut_before)?;
        let size = n.add(size, cut_after)?;
        let (start, end) = (n.sub(zero, before)?, n.add(size, after)?);
        let at = n.op(ops::Range1d { end, start, step: one })?;
        let last = n.sub(size, one)?;
        let indices = match fill {
            Fill::Wrap => n.op(ops::Mod { x: at, y: size })?,
            Fill::Reflect => {
                let twice = n.add(last, last)?;
                let round = n.maximum(twice, one)?;
                let there = n.op(ops::Mod { x: at, y: round })?;
                let back = n.sub(twice, there)?;
                n.minimum(there, back)?
            }
            Fill::Edge | Fill::Constant(_) => {
                let at = n.maximum(at, zero)?;
                n.minimum(at, last)?
            }
        };
        let picked = n.sub(indices, cut_before)?;
        y = n.without_bool(y, |n, x| {
            n.op(ops::Gather { x, indices: picked, axis: axis as i64, batch_dims: 0, validate_indices: false })
        })?;
        if let Fill::Constant(_) = fill {
            let own = n.equal(at, indices)?;
            let others: Vec<i64> = (0..rank as i64).filter(|i| *i != axis as i64).collect();
            let own = n.expand_dims(own, &others)?;
            inside = Some(match inside {
                None => own,
                Some(inside) => n.and(inside, own)?,
            });
        }
    }
    if let (Fill::Constant(number), Some(inside)) = (fill, inside) {
        let outside = match value {
            Some(v) => n.as_scalar(v)?,
            None => n.scalar_like(y, number)?,
        };
        y = n.select(inside, y, outside)?;
    }
    n.done(y)
}
