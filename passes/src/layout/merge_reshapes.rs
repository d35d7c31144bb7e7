//! Makes one op, or none, of several that give a tensor another shape.

use super::keep::{axis, kept, reshaped};
use crate::{Fit, Matcher, Miss, Pass, Run, graph::rank_reduction::MAX_RANK, rules};
use mlconv_mil::{
    ir::{OpId, Value},
    ops::{ExpandDims, Flatten2d, Gather, Reshape, ReshapeLike, SliceByIndex, Squeeze, Transpose},
};
use mlconv_tensor::Tensor;

pub(crate) static PASS: Pass = Pass {
    name: "merge_reshapes",
    doc: "Makes one op, or none, of reshapes, squeezes and expansions that follow each other, also around elementwise ops; lets a slice or a gather leave out the axes that are squeezed behind it.",
    changes_precision: false,
    after: &["rank_reduction"],
    run: Run::Rules(rules![
        squeeze_of_slice,
        squeeze_of_gather,
        reshape,
        reshape_like,
        squeeze,
        expand_dims,
        flatten2d,
        transpose
    ]),
};

/// Elementwise ops between two reshapes, up to which they are looked at.
const MAX_BETWEEN: usize = 16;

fn reshape(op: &Reshape, m: &Matcher<'_>) -> Fit {
    merged(m, op.x).or_else(|miss| {
        // What cannot be said in numbers may be said by the op itself, if no size of it stands for one of `x`.
        let (None, Some(before)) = (m.f.constant(op.shape), kept(m.f, op.x)) else { return Err(miss) };
        let sizes = m.f.value(op.shape).fact.ints.as_deref().ok_or(Miss::No)?;
        let plain = sizes.iter().all(|n| n.as_known().is_none_or(|n| n > 0));
        m.require(plain && m.f.uses(op.x).len() == 1, "a size may be one of the tensor in between")?;
        let has_same = m.shape(m.result().ok_or(Miss::No)?)?[..] == *sizes;
        m.require(has_same, "sizes are open, and the shape cannot be said of the tensor before")?;
        Ok(m.replace(Reshape { x: before, shape: op.shape }))
    })
}

fn reshape_like(op: &ReshapeLike, m: &Matcher<'_>) -> Fit {
    merged(m, op.x)
}

fn squeeze(op: &Squeeze, m: &Matcher<'_>) -> Fit {
    merged(m, op.x)
}

fn expand_dims(op: &ExpandDims, m: &Matcher<'_>) -> Fit {
    merged(m, op.x)
}

fn flatten2d(op: &Flatten2d, m: &Matcher<'_>) -> Fit {
    merged(m, op.x)
}

fn transpose(op: &Transpose, m: &Matcher<'_>) -> Fit {
    if kept(m.f, m.result().ok_or(Miss::No)?).is_none() || m.def::<Transpose>(op.x).is_ok() {
        return Err(Miss::No);
    }
    merged(m, op.x)
}

/// The op at the root, which gives `x` another shape, merged with one before it.
fn merged(m: &Matcher<'_>, x: Value) -> Fit {
    let result = m.result().ok_or(Miss::No)?;
    let direct = kept(m.f, x);
    if let Some(before) = direct.filter(|v| m.alike(*v, result)) {
        return Ok(m.alias(before));
    }
    let (between, before) = between(m, x)?;
    // A tensor of more axes is an input or output, and nothing is computed on it.
    m.require(between.is_empty() || m.rank(before)? <= MAX_RANK, "it would compute on more axes than Core ML has")?;
    let mut v = before;
    for (id, varies) in between.into_iter().rev() {
        let mut op = m.f.op_data(id).op.clone();
        op.visit_operands_mut(&mut |operand| {
            if *operand == varies {
                *operand = v;
            }
        });
        v = m.make_boxed(op, 1)[0];
    }
    let v = reshaped(m, v, m.shape(before)?, m.shape(result)?)?;
    Ok(m.alias(v))
}

/// The elementwise ops between `v` and an op that gives a tensor another shape, last first, each with the operand that
/// varies, and the operand of that op.
fn between(m: &Matcher<'_>, v: Value) -> Result<(Vec<(OpId, Value)>, Value), Miss> {
    let (mut ops, mut at) = (vec![], v);
    let before = loop {
        let id = m.f.def_op(at).ok_or(Miss::No)?;
        if let Some(before) = kept(m.f, at) {
            m.require(m.f.uses(at).len() == 1, "a value in between is read elsewhere")?;
            break before;
        }
        let data = m.f.op_data(id);
        let alone = data.op.schema().elementwise && data.results.len() == 1 && m.f.uses(at).len() == 1;
        // What is outside of a loop stays there.
        let stays = data.block == m.f.op_data(m.root()).block;
        let mut varying = vec![];
        data.op.visit_operands(&mut |v| match m.f.constant(v) {
            Some(t) if t.count() == 1 => {}
            Some(_) | None => varying.push(v),
        });
        let [x] = varying[..] else { return Err(Miss::No) };
        if !alone || !stays || m.shape(at)? != m.shape(x)? || ops.len() == MAX_BETWEEN {
            return Err(Miss::No);
        }
        ops.push((id, x));
        at = x;
    };
    let rank = m.rank(before)?;
    let fits = ops.iter().all(|(id, _)| {
        let mut fits = true;
        m.f.op_data(*id).op.visit_operands(&mut |v| fits &= m.f.constant(v).is_none_or(|t| t.shape().len() <= rank));
        fits
    });
    m.require(fits, "a constant in between has more axes than the tensor before")?;
    Ok((ops, before))
}

/// A slice of one element along an axis that is squeezed leaves the axis out itself.
fn squeeze_of_slice(op: &Squeeze, m: &Matcher<'_>) -> Fit {
    let slice = m.sole::<SliceByIndex>(op.x)?;
    let (source, sliced) = (m.shape(slice.x)?, m.shape(op.x)?);
    let rank = source.rank();
    let mask = |mask: &Option<Vec<bool>>| mask.clone().unwrap_or_else(|| vec![false; rank]);
    let (mut begin_mask, mut squeeze_mask) = (mask(&slice.begin_mask), mask(&slice.squeeze_mask));
    let begin = m.constant(slice.begin).map_err(|_| Miss::Because("where the slice begins is not constant"))?;
    let mut begins = begin.to_i64();
    let kept: Vec<usize> = (0..rank).filter(|i| !squeeze_mask[*i]).collect();
    for at in squeezed(op, m)?.into_iter().filter(|at| sliced[*at].is(1)) {
        let axis = kept[at];
        m.require(slice.stride.as_ref().is_none_or(|s| s[axis] > 0), "the slice runs backwards")?;
        let begin = &mut begins[axis];
        if begin_mask[axis] {
            *begin = 0;
        } else if let Some(n) = source[axis].as_known() {
            // A slice stops at the ends of an axis, an index must not be outside.
            *begin = if *begin < 0 { (*begin + n).max(0) } else { *begin };
            m.require(*begin < n, "the slice is outside of the tensor")?;
        }
        (begin_mask[axis], squeeze_mask[axis]) = (false, true);
    }
    let begin_as_it_was = begins == begin.to_i64();
    let begin = if begin_as_it_was {
        slice.begin
    } else {
        m.make_constant(Tensor::from_i64(begin.dtype(), begin.shape(), &begins))
    };
    let begin_mask = slice.begin_mask.as_ref().map(|_| begin_mask);
    Ok(m.replace(SliceByIndex { begin, begin_mask, squeeze_mask: Some(squeeze_mask), ..slice.clone() }))
}

/// The axes that are squeezed: all of size 1 where none are named.
fn squeezed(op: &Squeeze, m: &Matcher<'_>) -> Result<Vec<usize>, Miss> {
    let shape = m.shape(op.x)?;
    match &op.axes {
        Some(axes) => axes.iter().map(|a| axis(*a, shape.rank())).collect::<Option<_>>().ok_or(Miss::No),
        None => Ok((0..shape.rank()).filter(|i| shape[*i].is(1)).collect()),
    }
}

/// A gather of one element along an axis that is squeezed has an index without axes.
fn squeeze_of_gather(op: &Squeeze, m: &Matcher<'_>) -> Fit {
    let gather = m.sole::<Gather>(op.x)?;
    let indices = m.constant(gather.indices)?;
    let at = axis(gather.axis, m.rank(gather.x)?).ok_or(Miss::No)?;
    if indices.count() != 1 || gather.batch_dims != 0 {
        return Err(Miss::No);
    }
    let made = at..at + indices.shape().len();
    let squeezed = squeezed(op, m)?;
    let all = squeezed.iter().all(|a| made.contains(a));
    m.require(all && !squeezed.is_empty(), "axes of the tensor itself are squeezed as well")?;
    let indices = m.make_constant(indices.reshape(&vec![1; made.len() - squeezed.len()]));
    Ok(m.replace(Gather { indices, ..gather.clone() }))
}
