//! Ops that keep all elements in their order.

use crate::{Matcher, Miss};
use mlconv_mil::{
    ir::{Function, Value},
    ops::{ExpandDims, Flatten2d, Reshape, ReshapeLike, Squeeze, Transpose},
    schema::{Ints, Opset},
};
use mlconv_tensor::{Dim, Shape, Tensor};

/// The operand of the op that makes `v`, where that op gives it another shape and no more.
pub(super) fn kept(f: &Function, v: Value) -> Option<Value> {
    None.or_else(|| f.def::<Reshape>(v).map(|op| op.x))
        .or_else(|| f.def::<Squeeze>(v).map(|op| op.x))
        .or_else(|| f.def::<ExpandDims>(v).map(|op| op.x))
        .or_else(|| f.def::<Flatten2d>(v).map(|op| op.x))
        .or_else(|| f.def::<ReshapeLike>(v).map(|op| op.x))
        .or_else(|| f.def::<Transpose>(v).filter(|op| is_still(f, op)).map(|op| op.x))
}

/// Whether a transpose moves axes of size 1 alone.
pub(super) fn is_still(f: &Function, op: &Transpose) -> bool {
    let Some(shape) = f.ty(op.x).tensor().map(|t| &t.shape) else { return false };
    let Some(perm) = permutation(&op.perm, shape.rank()) else { return false };
    let mut last = None;
    perm.into_iter().filter(|axis| !shape[*axis].is(1)).all(|axis| last.replace(axis).is_none_or(|l| l < axis))
}

/// A permutation in numbers from 0.
pub(super) fn permutation(perm: &[i64], rank: usize) -> Option<Vec<usize>> {
    (perm.len() == rank).then_some(())?;
    perm.iter().map(|p| axis(*p, rank)).collect()
}

/// The axis that `axis` means among `rank`.
pub(super) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let wrapped = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(wrapped).ok().filter(|a| *a < rank)
}

/// `x` under the shape `to`, by one op at most. What cannot be said, because sizes are open, is a miss.
pub(super) fn reshaped(m: &Matcher<'_>, x: Value, from: &Shape, to: &Shape) -> Result<Value, Miss> {
    if from == to {
        return Ok(x);
    }
    if let Some(axes) = without_ones(from, to) {
        return Ok(m.make(Squeeze { x, axes: Some(axes) }));
    }
    if let Some(axes) = without_ones(to, from) {
        return Ok(m.make(ExpandDims { x, axes }));
    }
    let sizes = sizes(m.opset(), from, to)
        .ok_or(Miss::Because("sizes are open, and the shape cannot be said of the tensor before"))?;
    let shape = m.make_constant(Tensor::from_vec(&[sizes.len()], sizes));
    Ok(m.make(Reshape { x, shape }))
}

/// The axes of size 1 of `from` without which it is `to`.
pub(super) fn without_ones(from: &[Dim], to: &[Dim]) -> Option<Ints> {
    let (mut axes, mut rest) = (vec![], to.iter().peekable());
    for (i, dim) in from.iter().enumerate() {
        if rest.next_if(|d| *d == dim).is_none() {
            dim.is(1).then(|| axes.push(i as i64))?;
        }
    }
    rest.next().is_none().then_some(axes)
}

/// The operand of a reshape of `from` whose result is inferred to be `to`.
pub(super) fn sizes(opset: Opset, from: &Shape, to: &Shape) -> Option<Vec<i32>> {
    let same = |i: usize| {
        // Which axis a 0 stands for depends on the op set.
        let axis = if opset >= Opset::Ios17 {
            (i + from.rank()).checked_sub(to.rank())
        } else {
            (from.rank() == to.rank()).then_some(i)
        };
        axis.is_some_and(|k| from[k] == to[i])
    };
    let mut open: Vec<usize> = (0..to.rank()).filter(|i| to[*i].as_known().is_none()).collect();
    if open.len() > 1 {
        let kept: Vec<usize> = open.iter().copied().filter(|i| same(*i)).collect();
        open.retain(|i| !kept.contains(i));
    }
    let rest = match open[..] {
        [] => None,
        [at] => {
            let others = to.iter().enumerate().filter(|(i, _)| *i != at).fold(Dim::from(1), |n, (_, d)| n * d);
            let follows = !others.is(0) && from.count().div_floor(&others) == to[at];
            Some(follows.then_some(at)?)
        }
        [..] => return None,
    };
    to.iter()
        .enumerate()
        .map(|(i, dim)| match dim.as_known() {
            Some(n) => i32::try_from(n).ok().filter(|n| *n > 0),
            None => Some(if rest == Some(i) { -1 } else { 0 }),
        })
        .collect()
}
