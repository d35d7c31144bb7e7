//! Ops that move elements and compute nothing.

use super::{
    data::{each_row, load, store},
    strided::{Move, Steps, moved},
};
use mlconv_mil::{
    ops::{
        Gather, Pad, PadMode, PixelShuffle, Reverse, SliceByIndex, SliceBySize, SlicePlaces, Split, Tile, Transpose,
    },
    schema::{EvalCx, Opset, Tensors},
};
use mlconv_tensor::{Dims, Shape, Tensor, strides};
use smallvec::smallvec;

pub(super) fn transpose(op: &Transpose, cx: &EvalCx<'_>) -> Option<Tensors> {
    let x = cx.tensor(op.x);
    let axes = Shape::from(x.shape()).axes(&op.perm).ok()?;
    let perm: Dims = axes.iter().map(|a| a.index()).collect();
    Some(smallvec![Steps::permuted(x.shape(), &perm).tensor(x, &cx.out(0).shape)?])
}

pub(super) fn slice_by_index(op: &SliceByIndex, cx: &EvalCx<'_>) -> Option<Tensors> {
    sliced(cx, cx.tensor(op.x), op.places(cx).ok()?)
}

pub(super) fn slice_by_size(op: &SliceBySize, cx: &EvalCx<'_>) -> Option<Tensors> {
    sliced(cx, cx.tensor(op.x), op.places(cx).ok()?)
}

fn sliced(cx: &EvalCx<'_>, x: &Tensor, places: SlicePlaces) -> Option<Tensors> {
    let SlicePlaces { first, steps, shape } = places;
    let steps = Steps { first, axes: shape.into_iter().zip(steps).collect() };
    Some(smallvec![steps.tensor(x, &cx.out(0).shape)?])
}

pub(super) fn split(op: &Split, cx: &EvalCx<'_>) -> Option<Tensors> {
    let x = cx.tensor(op.x);
    let (own, axis) = (strides(x.shape()), Shape::from(x.shape()).axis(op.axis).ok()?.index());
    let mut first = 0;
    let part = |i: usize| {
        let shape = &cx.out(i).shape;
        let steps = Steps { first, axes: shape.iter().copied().zip(own.iter().copied()).collect() };
        first += shape[axis] * own[axis];
        steps.tensor(x, shape)
    };
    (0..cx.out_count()).map(part).collect()
}

pub(super) fn tile(op: &Tile, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (x, out) = (cx.tensor(op.x), cx.out(0));
    let own = strides(x.shape());
    // Each axis is two: the repetitions, which do not move, and the axis itself.
    let axes = x.shape().iter().zip(&own).zip(&out.shape).flat_map(|((n, step), m)| [(m / n, 0), (*n, *step)]);
    Some(smallvec![Steps { first: 0, axes: axes.collect() }.tensor(x, &out.shape)?])
}

pub(super) fn reverse(op: &Reverse, cx: &EvalCx<'_>) -> Option<Tensors> {
    let x = cx.tensor(op.x);
    let shape = Shape::from(x.shape());
    let mut turned = vec![op.axes.is_none(); shape.rank()];
    for axis in shape.axes(op.axes.as_deref().unwrap_or_default()).ok()? {
        turned[axis.index()] ^= true;
    }
    let own = strides(x.shape());
    let mut steps = Steps { first: 0, axes: x.shape().iter().copied().zip(own).collect() };
    for ((size, step), _) in steps.axes.iter_mut().zip(turned).filter(|(_, t)| *t) {
        steps.first += (*size - 1) * *step;
        *step = step.wrapping_neg();
    }
    Some(smallvec![steps.tensor(x, &cx.out(0).shape)?])
}

pub(super) fn pixel_shuffle(op: &PixelShuffle, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (x, out) = (cx.tensor(op.x), cx.out(0));
    let [n, _, h, w] = *x.shape() else { return None };
    let factor = usize::try_from(op.upscale_factor).ok()?;
    let split = [n, out.shape[1], factor, factor, h, w];
    Some(smallvec![Steps::permuted(&split, &[0, 1, 4, 2, 5, 3]).tensor(x, &out.shape)?])
}

pub(super) fn gather(op: &Gather, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (x, out) = (cx.tensor(op.x), cx.out(0));
    if op.batch_dims != 0 {
        return None;
    }
    let axis = Shape::from(x.shape()).axis(op.axis).ok()?.index();
    let (n, own) = (x.shape()[axis], strides(x.shape()));
    let resolve = |i: &i64| {
        let i = if *i < 0 && cx.opset() < Opset::Ios17 { i.saturating_add(n as i64) } else { *i };
        usize::try_from(i).ok().filter(|i| *i < n)
    };
    let positions: Vec<usize> = cx.i64(op.indices).iter().map(resolve).collect::<Option<_>>()?;
    let (blocks, row) = (x.shape()[..axis].iter().product::<usize>(), own[axis]);
    let starts: Vec<usize> = (0..blocks).flat_map(|b| positions.iter().map(move |i| (b * n + i) * row)).collect();
    Some(smallvec![moved(x, &out.shape, Move::Rows(&starts, row))?])
}

pub(super) fn pad(op: &Pad, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (x, out, pad) = (cx.tensor(op.x), cx.out(0), cx.i64(op.pad));
    let (shape, values) = (x.shape(), load(x)?);
    let lead = shape.len().checked_sub(pad.len() / 2)?;
    // For each axis and index of the result, the place in `x`.
    let place = |axis: usize, i: usize| {
        let before = axis.checked_sub(lead).map_or(0, |k| pad[2 * k]);
        let (i, last) = (i as i64 - before, shape[axis] as i64 - 1);
        let inside = match op.mode {
            PadMode::Constant => i,
            PadMode::Reflect => last - (last - i.abs()).abs(),
            PadMode::Replicate => i.clamp(0, last.max(0)),
        };
        usize::try_from(inside).ok().filter(|_| inside <= last)
    };
    let own = strides(shape);
    let columns = *out.shape.last()?;
    let across: Vec<Option<usize>> = (0..columns).map(|i| place(shape.len() - 1, i)).collect();
    // Columns that follow one another as they do in `x` are copied at once.
    let follows = |w: &[Option<usize>]| matches!(w, [Some(a), Some(b)] if a + 1 == *b);
    let from = across.windows(2).position(follows).unwrap_or(0);
    let run = 1 + across[from..].windows(2).take_while(|w| follows(w)).count();
    let mut y = vec![op.constant_val; out.count()];
    each_row(&mut y, columns, |mut row, y| {
        let mut start = 0;
        for axis in (0..shape.len() - 1).rev() {
            let Some(i) = place(axis, row % out.shape[axis]) else { return };
            start += i * own[axis];
            row /= out.shape[axis];
        }
        for (i, (y, at)) in y.iter_mut().zip(&across).enumerate() {
            if let (Some(at), false) = (at, (from..from + run).contains(&i)) {
                *y = values[start + at];
            }
        }
        if let Some(at) = across[from] {
            y[from..from + run].copy_from_slice(&values[start + at..][..run]);
        }
    });
    Some(smallvec![store(out, y)?])
}
