//! Rows of tables.

use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

aten! {
    "embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, bool scale_grad_by_freq=False, bool sparse=False) -> Tensor" => |n| {
        // These are about training.
        ["padding_idx", "scale_grad_by_freq", "sparse"].into_iter().for_each(|name| n.ignore(name));
        let (weight, indices) = (n.value("weight")?, n.value("indices")?);
        let y = rows(n, weight, indices)?;
        n.done(y)
    };
    "embedding_bag(Tensor weight, Tensor indices, Tensor offsets, bool scale_grad_by_freq=False, int mode=0, bool sparse=False, Tensor? per_sample_weights=None, bool include_last_offset=False) -> (Tensor, Tensor, Tensor, Tensor)",
    "embedding_bag.padding_idx(Tensor weight, Tensor indices, Tensor offsets, bool scale_grad_by_freq, int mode, bool sparse, Tensor? per_sample_weights, bool include_last_offset, int? padding_idx) -> (Tensor, Tensor, Tensor, Tensor)",
    "_embedding_bag(Tensor weight, Tensor indices, Tensor offsets, bool scale_grad_by_freq=False, int mode=0, bool sparse=False, Tensor? per_sample_weights=None, bool include_last_offset=False, int padding_idx=-1) -> (Tensor, Tensor, Tensor, Tensor)",
    "_embedding_bag_forward_only(Tensor weight, Tensor indices, Tensor offsets, bool scale_grad_by_freq=False, int mode=0, bool sparse=False, Tensor? per_sample_weights=None, bool include_last_offset=False, int padding_idx=-1) -> (Tensor, Tensor, Tensor, Tensor)" => embedding_bag;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Rows of `table` at `indices`, which do not count from the end.
fn rows(n: &mut Lower<'_>, table: Value, indices: Value) -> Result<Value> {
    let indices = n.cast(indices, DType::I32)?;
    n.op(ops::Gather { x: table, indices, axis: 0, batch_dims: 0, validate_indices: false })
}

/// Which places belong to which bag, `[bags, places]`: those from where a bag begins to where the next one does.
fn members(n: &mut Lower<'_>, indices: Value, offsets: Value, with_end: bool) -> Result<Value> {
    let offsets = n.cast(offsets, DType::I32)?;
    let places = n.counted(indices, 0, DType::I32)?;
    let (starts, ends) = if with_end {
        (n.slice(offsets, 0, 0, Some(-1))?, n.slice(offsets, 0, 1, None)?)
    } else {
        let end = n.sizes_exactly(&[Size::Of(indices, 0)])?;
        let others = n.slice(offsets, 0, 1, None)?;
        (offsets, n.concat(vec![others, end], 0)?)
    };
    let (starts, ends) = (n.expand_dims(starts, &[1])?, n.expand_dims(ends, &[1])?);
    let begun = n.op(ops::GreaterEqual { x: places, y: starts })?;
    let open = n.less(places, ends)?;
    n.and(begun, open)
}

fn embedding_bag(n: &mut Lower<'_>) -> Lowered {
    n.ignore("scale_grad_by_freq");
    n.ignore("sparse");
    let (table, indices, offsets) = (n.value("weight")?, n.value("indices")?, n.value("offsets")?);
    let (shares, with_end) = (n.maybe("per_sample_weights")?, n.flag("include_last_offset", false)?);
    let mode = n.int_or("mode", 0)?;
    if n.rank(indices)? != 1 {
        return Err(LowerError::form("bags of indices that are not a vector"));
    }
    let picked = rows(n, table, indices)?;
    let mut member = members(n, indices, offsets, with_end)?;
    if let Some(padding) = n.int("padding_idx")?.filter(|p| *p >= 0) {
        let padding = n.const_int(padding)?;
        let indices = n.cast(indices, DType::I32)?;
        let counts = n.op(ops::NotEqual { x: indices, y: padding })?;
        member = n.and(member, counts)?;
    }
    let dtype = n.dtype(table)?;
    let y = match mode {
        0 | 1 => {
            let member = n.cast(member, dtype)?;
            let share = match shares {
                Some(shares) => n.mul(member, shares)?,
                None => member,
            };
            let sum = n.matmul(share, picked, false, false)?;
            if mode == 0 {
                sum
            } else {
                let (count, one) = (n.sum_over(member, &[1])?, n.scalar_like(sum, 1.0)?);
                let count = n.maximum(count, one)?;
                n.div(sum, count)?
            }
        }
        2 => {
            let (low, zero) = (n.scalar_like(picked, f64::NEG_INFINITY)?, n.scalar_like(picked, 0.0)?);
            let (inside, all) = (n.expand_dims(member, &[2])?, n.expand_dims(picked, &[0])?);
            let cut = n.select(inside, all, low)?;
            let best = n.op(ops::ReduceMax { x: cut, axes: Some(vec![1]), keep_dims: false })?;
            // A bag without elements is zeros.
            let empty = n.equal(best, low)?;
            n.select(empty, zero, best)?
        }
        _ => return n.bad_attr("mode", "0, 1 or 2"),
    };
    // The other results are for training.
    Ok(vec![Entry::Value(y), Entry::Nothing, Entry::Nothing, Entry::Nothing])
}
