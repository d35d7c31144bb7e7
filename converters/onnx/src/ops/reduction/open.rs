//! Reductions over axes that are only known when the program runs: every axis is reduced in turn, and the result is taken
//! where the axis is among those asked for.

use super::Steps;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError};
use mlconv_tensor::{DType, Dim};

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Reduces along one axis, which stays with size 1.
type Along<'a, 'b> = &'b dyn Fn(&mut Lower<'a>, Value, i64) -> Result<Value>;

/// Reduces `x` over the axes that the vector `axes` holds, `count` of them, at least one and fewer than `x` has.
pub(super) fn reduce<'a>(
    n: &mut Lower<'a>,
    x: Value,
    axes: Value,
    count: usize,
    keep_dims: bool,
    own: Along<'a, '_>,
    steps: Steps<'a>,
) -> Result<Value> {
    let shape = n.shape(x)?;
    if shape.iter().any(|d| d.is(0)) {
        return Err(LowerError::form("reducing a tensor without elements over axes that are not known"));
    }
    let chosen = chosen(n, axes, shape.rank())?;
    let sum = |n: &mut Lower<'a>, x: Value, axis: i64| n.sum_over(x, &[axis]);
    let integers = !n.dtype(x)?.is_float();
    let y = match steps {
        Steps::SumOf(before) => {
            let x = before(n, x)?;
            each(n, x, chosen, &sum)?
        }
        Steps::SumThen(after) => {
            let y = each(n, x, chosen, &sum)?;
            after(n, y)?
        }
        // The mean of means of integers would be rounded more than once.
        Steps::Mean if integers => {
            let total = each(n, x, chosen, &sum)?;
            let own = n.own_sizes(x)?;
            let (own, one) = (n.sizes_exactly(&own)?, n.const_int(1)?);
            let sizes = n.select(chosen, own, one)?;
            let count = n.op(ops::ReduceProd { x: sizes, axes: Some(vec![0]), keep_dims: false })?;
            n.div(total, count)?
        }
        Steps::Own | Steps::Mean => each(n, x, chosen, own)?,
    };
    without_copies(n, y, chosen, count, keep_dims)
}

/// For each axis, whether it is among those asked for, of which some may count from the end.
fn chosen(n: &mut Lower<'_>, axes: Value, rank: usize) -> Result<Value> {
    let axes = n.cast(axes, DType::I32)?;
    let (zero, all) = (n.const_int(0)?, n.const_int(rank as i64)?);
    let (negative, moved) = (n.less(axes, zero)?, n.add(axes, all)?);
    let axes = n.select(negative, moved, axes)?;
    let asked = n.expand_dims(axes, &[0])?;
    let every = n.const_ints(&(0..rank as i64).collect::<Vec<_>>())?;
    let every = n.expand_dims(every, &[1])?;
    let hits = n.equal(every, asked)?;
    let hits = n.cast(hits, DType::I32)?;
    let hit = n.op(ops::ReduceMax { x: hits, axes: Some(vec![1]), keep_dims: false })?;
    n.cast(hit, DType::Bool)
}

/// `x` reduced along the chosen axes, each of which still has its size, filled with copies.
fn each<'a>(n: &mut Lower<'a>, x: Value, chosen: Value, along: Along<'a, '_>) -> Result<Value> {
    let chosen = n.cast(chosen, DType::I32)?;
    let mut y = x;
    for axis in 0..n.rank(x)? {
        let mine = n.element(chosen, axis)?;
        let mine = n.squeeze(mine, &[0])?;
        let mine = n.cast(mine, DType::Bool)?;
        let reduced = along(n, y, axis as i64)?;
        y = n.select(mine, reduced, y)?;
    }
    Ok(y)
}

/// `y` with one of the copies along each chosen axis, or without those axes: in the shape that the source states of the
/// result, else in a computed one.
fn without_copies(n: &mut Lower<'_>, y: Value, chosen: Value, count: usize, keep_dims: bool) -> Result<Value> {
    let rank = n.rank(y)?;
    let stated = n.stated_sizes(0).filter(|s| s.len() == if keep_dims { rank } else { rank - count });
    if let (true, Some(stated)) = (keep_dims, &stated) {
        let own = n.shape(y)?;
        let cut = stated.iter().enumerate().filter(|(i, size)| !own[*i].is(**size));
        let cuts: Vec<_> = cut.map(|(i, size)| (i, 0, Some(*size), 1)).collect();
        return if cuts.is_empty() { Ok(y) } else { n.slice_by(y, &cuts) };
    }
    let own = n.own_sizes(y)?;
    let (sizes, one) = (n.sizes_exactly(&own)?, n.const_int(1)?);
    let (begin, end) = (n.const_ints(&vec![0; rank])?, n.select(chosen, one, sizes)?);
    let (stride, begin_mask, end_mask, squeeze_mask) = (None, None, None, None);
    let y = n.op(ops::SliceByIndex { x: y, begin, end, stride, begin_mask, end_mask, squeeze_mask })?;
    if keep_dims {
        return Ok(y);
    }
    if let Some(stated) = stated {
        return n.reshape_to(y, &stated);
    }
    // The axes that stay, in their order: their numbers sort before those of the others.
    let gone = n.cast(chosen, DType::I32)?;
    let last = n.scale(gone, rank as f64)?;
    let places = n.const_ints(&(0..rank as i64).collect::<Vec<_>>())?;
    let keys = n.add(places, last)?;
    let order = n.op(ops::Argsort { x: keys, axis: 0, ascending: true })?;
    let kept = n.slice(order, 0, 0, Some((rank - count) as i64))?;
    let shape = n.gather(sizes, kept, 0)?;
    n.op(ops::Reshape { x: y, shape })
}

/// How many elements a vector has, where that is known.
pub(super) fn length(n: &Lower<'_>, v: Value) -> Result<usize> {
    let shape = n.shape(v)?;
    let known = if shape.rank() == 0 { Some(1) } else { shape.first().and_then(Dim::as_usize) };
    known.ok_or_else(|| LowerError::NotFixed { what: "how many axes are reduced".to_owned() })
}
