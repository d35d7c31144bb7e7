//! Ops that keep every element: other shapes, other orders, repetitions and margins.

use super::{
    axes::{active_runs, around, index, indices, joined},
    lower::{Lower, MAX_RANK, On, Rule, Why, require},
};
use mlconv_mil::{
    ir::Value,
    ops::{
        Concat, ExpandDims, Flatten2d, Identity, Pad, Reshape, ReshapeLike, Reverse, Split, Squeeze, Stack, Tile,
        Transpose,
    },
};
use mlconv_tensor::Dim;
use std::ops::Range;

pub(super) const RULES: &[&dyn Rule] = &[
    &On::<Identity>(|op, cx| Ok(vec![cx.stand_in(op.x)?])),
    &On::<Reshape>(|op, cx| Ok(vec![cx.stand_in(op.x)?])),
    &On::<ReshapeLike>(|op, cx| Ok(vec![cx.stand_in(op.x)?])),
    &On::<ExpandDims>(|op, cx| Ok(vec![cx.stand_in(op.x)?])),
    &On::<Squeeze>(|op, cx| Ok(vec![cx.stand_in(op.x)?])),
    &On::<Flatten2d>(|op, cx| Ok(vec![cx.stand_in(op.x)?])),
    &On(transpose),
    &On(concat),
    &On(stack),
    &On(split),
    &On(tile),
    &On(pad),
    &On(reverse),
];

fn transpose(op: &Transpose, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(op.x);
    let perm = indices(&shape, &op.perm)?;
    Ok(vec![transposed(cx, op.x, &shape, perm)?])
}

/// The elements of `x`, of the shape `dims`, with the axes `perm` in this order; in steps where one would have too many
/// axes.
pub(super) fn transposed(cx: &mut Lower<'_>, x: Value, dims: &[Dim], perm: Vec<usize>) -> Result<Value, Why> {
    let (mut x, mut dims, mut perm) = (x, dims.to_vec(), perm);
    loop {
        (dims, perm) = simplified(&dims, &perm);
        if perm.len() <= 1 {
            return cx.stand_in(x);
        }
        if perm.len() <= MAX_RANK {
            let x = cx.view(x, &dims)?;
            return cx.insert(Transpose { x, perm: perm.iter().map(|p| *p as i64).collect() });
        }
        // The first two axes of the result are moved to the front, where they are one.
        let (a, b, n) = (perm[0], perm[1], perm.len());
        let (low, high) = (a.min(b), a.max(b));
        let parts: [Range<usize>; 5] = [0..low, low..low + 1, low + 1..high, high..high + 1, high + 1..n];
        let front = if a < b { [1, 3] } else { [3, 1] };
        let order = [front[0], front[1], 0, 2, 4];
        let view = cx.view(x, &joined(&dims, &parts))?;
        x = cx.insert(Transpose { x: view, perm: order.iter().map(|p| *p as i64).collect() })?;
        let now: Vec<usize> = order.iter().flat_map(|p| parts[*p].clone()).collect();
        perm = perm.iter().filter_map(|p| now.iter().position(|q| q == p)).collect();
        dims = now.iter().map(|i| dims[*i].clone()).collect();
    }
}

/// The same move without axes of one element, and with axes joined that stay together.
fn simplified(dims: &[Dim], perm: &[usize]) -> (Vec<Dim>, Vec<usize>) {
    let kept: Vec<usize> = perm.iter().copied().filter(|p| !dims[*p].is(1)).collect();
    // Runs of the result, as runs of axes of `x` with single ones between them.
    let mut together: Vec<Vec<usize>> = vec![];
    for p in kept {
        match together.last_mut() {
            Some(run) if run.last().is_some_and(|q| *q < p && dims[q + 1..p].iter().all(|d| d.is(1))) => run.push(p),
            _ => together.push(vec![p]),
        }
    }
    let mut order: Vec<usize> = (0..together.len()).collect();
    order.sort_by_key(|i| together[*i][0]);
    let new = order.iter().map(|i| together[*i].iter().fold(Dim::from(1), |n, p| n * &dims[*p])).collect();
    let perm = (0..together.len()).filter_map(|i| order.iter().position(|o| *o == i)).collect();
    (new, perm)
}

fn concat(op: &Concat, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let mut values = vec![];
    for v in &op.values {
        let shape = cx.shape(*v);
        let axis = index(&shape, op.axis)?;
        values.push(cx.view(*v, &around(&shape, axis))?);
    }
    Ok(vec![cx.insert(Concat { values, axis: 1, interleave: op.interleave })?])
}

fn stack(op: &Stack, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(cx.results()[0]);
    let axis = index(&shape, op.axis)?;
    let [before, _, behind] = around(&shape, axis);
    let mut values = vec![];
    for v in &op.values {
        values.push(cx.view(*v, &[before.clone(), Dim::from(1), behind.clone()])?);
    }
    Ok(vec![cx.insert(Concat { values, axis: 1, interleave: false })?])
}

fn split(op: &Split, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(op.x);
    let axis = index(&shape, op.axis)?;
    let x = cx.view(op.x, &around(&shape, axis))?;
    Ok(cx.insert_all(Box::new(Split { x, axis: 1, ..op.clone() }))?.into_vec())
}

/// Does `step` to `x`, of the shape `dims`, along the axes that are `active`: along all at once where the others can be joined
/// to few axes, else along one after the other.
pub(super) fn along(
    cx: &mut Lower<'_>,
    x: Value,
    dims: &[Dim],
    active: &[bool],
    mut step: impl FnMut(&mut Lower<'_>, Value, &[Option<usize>]) -> Result<Value, Why>,
) -> Result<Vec<Value>, Why> {
    let mut dims = dims.to_vec();
    require(active.len() == dims.len(), "it says something of another number of axes")?;
    if !active.contains(&true) {
        return Ok(vec![cx.stand_in(x)?]);
    }
    let (ranges, places) = active_runs(active);
    if ranges.len() <= MAX_RANK {
        let view = cx.view(x, &joined(&dims, &ranges))?;
        return Ok(vec![step(cx, view, &places)?]);
    }
    let mut x = cx.stand_in(x)?;
    for axis in (0..dims.len()).filter(|i| active[*i]) {
        let view = cx.view(x, &around(&dims, axis))?;
        x = step(cx, view, &[None, Some(axis), None])?;
        dims[axis] = cx.shape(x)[1].clone();
    }
    Ok(vec![x])
}

fn tile(op: &Tile, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let reps = cx.known_elements(op.reps)?;
    let shape = cx.shape(op.x);
    repeated(cx, op.x, &shape, &reps)
}

/// `x`, of the shape `dims`, repeated along each axis.
pub(super) fn repeated(cx: &mut Lower<'_>, x: Value, dims: &[Dim], reps: &[Dim]) -> Result<Vec<Value>, Why> {
    let active: Vec<bool> = reps.iter().map(|n| !n.is(1)).collect();
    along(cx, x, dims, &active, |cx, x, places| {
        let reps: Vec<Dim> = places.iter().map(|p| p.map_or(Dim::from(1), |i| reps[i].clone())).collect();
        let reps = cx.vector("reps", &reps)?;
        cx.insert(Tile { x, reps })
    })
}

fn pad(op: &Pad, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let given = cx.ints(op.pad)?;
    let shape = cx.shape(op.x);
    let rank = shape.rank();
    let lead = rank.checked_sub(given.len() / 2).ok_or(Why::Because("it pads more axes than there are"))?;
    let pad = |i: usize| i.checked_sub(lead).map_or([0, 0], |i| [given[2 * i], given[2 * i + 1]]);
    let active: Vec<bool> = (0..rank).map(|i| pad(i) != [0, 0]).collect();
    along(cx, op.x, &shape, &active, |cx, x, places| {
        let pads: Vec<i64> = places.iter().flat_map(|p| p.map_or([0, 0], pad)).collect();
        let pad = cx.constant("pad", &pads)?;
        cx.insert(Pad { x, pad, ..op.clone() })
    })
}

fn reverse(op: &Reverse, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(op.x);
    let axes = op.axes.as_ref().map(|a| indices(&shape, a)).transpose()?;
    let active: Vec<bool> = (0..shape.rank()).map(|i| axes.as_ref().is_none_or(|a| a.contains(&i))).collect();
    along(cx, op.x, &shape, &active, |cx, x, places| {
        let axes = (0..).zip(places).filter(|(_, p)| p.is_some()).map(|(i, _)| i).collect();
        cx.insert(Reverse { x, axes: Some(axes) })
    })
}
