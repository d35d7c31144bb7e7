//! Reductions over axes that are only known when the program runs.
//!
//! Where the source states the shape of the result, few choices of axes come to it: of each, the right one is selected.
//! Else every axis is reduced in turn, and the result is taken where the axis is among those asked for.

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
    let rank = n.rank(x)?;
    let chosen = chosen(n, axes, rank)?;
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

/// Reduces over several axes.
type Over<'a, 'b> = &'b dyn Fn(&mut Lower<'a>, Vec<i64>) -> Result<Value>;

/// Reduces `x` over `count` of its axes, which the vector `axes` holds, given the shape that the source states of the
/// result; `None` where it states none that any axes come to.
pub(super) fn among_stated<'a>(
    n: &mut Lower<'a>,
    x: Value,
    axes: Value,
    count: usize,
    keep_dims: bool,
    over: Over<'a, '_>,
) -> Result<Option<Value>> {
    let (shape, stated) = (n.shape(x)?, n.stated_sizes(0));
    let own: Option<Vec<i64>> = shape.iter().map(Dim::as_known).collect();
    // Beyond the greatest rank of Core ML there would be many choices.
    let (Some(own), Some(stated)) = (own.filter(|own| own.len() <= 5), stated) else { return Ok(None) };
    let comes_to = |axes: u32| {
        let gone = |i: usize| axes >> i & 1 == 1;
        let sizes = own.iter().enumerate().filter(|(i, _)| keep_dims || !gone(*i));
        sizes.map(|(i, size)| if gone(i) { 1 } else { *size }).eq(stated.iter().copied())
    };
    let choices = (0..1u32 << own.len()).filter(|axes| axes.count_ones() as usize == count && comes_to(*axes));
    let choices: Vec<Vec<i64>> =
        choices.map(|axes| (0..own.len() as i64).filter(|i| axes >> i & 1 == 1).collect()).collect();
    let Some((first, others)) = choices.split_first() else { return Ok(None) };
    let mut y = over(n, first.clone())?;
    if others.is_empty() {
        return Ok(Some(y));
    }
    let chosen = chosen(n, axes, own.len())?;
    let chosen = n.cast(chosen, DType::I32)?;
    for choice in others {
        let other = over(n, choice.clone())?;
        let hits = n.gather_at(chosen, 0, choice)?;
        let all = n.op(ops::ReduceMin { x: hits, axes: Some(vec![0]), keep_dims: false })?;
        let all = n.cast(all, DType::Bool)?;
        y = n.select(all, other, y)?;
    }
    Ok(Some(y))
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

/// `y` with one of the copies along each chosen axis, or without those axes.
fn without_copies(n: &mut Lower<'_>, y: Value, chosen: Value, count: usize, keep_dims: bool) -> Result<Value> {
    let rank = n.rank(y)?;
    let own = n.own_sizes(y)?;
    let (sizes, one) = (n.sizes_exactly(&own)?, n.const_int(1)?);
    let (begin, end) = (n.const_ints(&vec![0; rank])?, n.select(chosen, one, sizes)?);
    let (stride, begin_mask, end_mask, squeeze_mask) = (None, None, None, None);
    let y = n.op(ops::SliceByIndex { x: y, begin, end, stride, begin_mask, end_mask, squeeze_mask })?;
    if keep_dims {
        return Ok(y);
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

/// Refuses tensors without elements, of which nothing is known until the axes are.
pub(super) fn check(n: &Lower<'_>, x: Value) -> Result<()> {
    if n.shape(x)?.iter().any(|d| d.is(0)) {
        return Err(LowerError::core_ml("reducing a tensor without elements over axes that are not known"));
    }
    Ok(())
}

/// How many elements a vector has, where that is known.
pub(super) fn length(n: &Lower<'_>, v: Value) -> Result<usize> {
    let shape = n.shape(v)?;
    let known = if shape.rank() == 0 { Some(1) } else { shape.first().and_then(Dim::as_usize) };
    known.ok_or_else(|| LowerError::NotFixed { what: "how many axes are reduced".to_owned() })
}
