//! Concatenations of what was joined or parted before.

use super::super::keep::axis;
use crate::{Fit, Matcher, Miss};
use mlconv_mil::{
    ir::{Def, Value},
    ops::{Concat, Reshape, Split, Stack},
};
use mlconv_tensor::Dim;

pub(super) fn concat(op: &Concat, m: &Matcher<'_>) -> Fit {
    let result = m.result().ok_or(Miss::No)?;
    if let [one] = op.values[..] {
        return if m.alike(one, result) { Ok(m.alias(one)) } else { Err(Miss::No) };
    }
    if op.interleave {
        return Err(Miss::No);
    }
    let along = axis(op.axis, m.rank(result)?).ok_or(Miss::No)?;
    if let Some(whole) = parted(m, &op.values, along) {
        return Ok(m.alias(whole));
    }
    let mut values = vec![];
    for v in &op.values {
        let inner = m.sole::<Concat>(*v).ok().filter(|c| !c.interleave && is_along(m, c, *v, along));
        match inner {
            Some(inner) => values.extend_from_slice(&inner.values),
            None => values.push(*v),
        }
    }
    if values.len() == op.values.len() {
        return Err(Miss::No);
    }
    Ok(m.replace(Concat { values, ..op.clone() }))
}

/// Whether `v`, the result of `concat`, is joined along the axis `along`, of tensors of its own rank.
fn is_along(m: &Matcher<'_>, concat: &Concat, v: Value, along: usize) -> bool {
    let Ok(rank) = m.rank(v) else { return false };
    axis(concat.axis, rank) == Some(along) && concat.values.iter().all(|v| m.rank(*v) == Ok(rank))
}

/// The tensor of which a split along one axis makes all of `values`, in order.
fn parted(m: &Matcher<'_>, values: &[Value], along: usize) -> Option<Value> {
    let id = m.f.def_op(*values.first()?)?;
    let split = m.f.op::<Split>(id)?;
    let all = values.iter().enumerate().all(|(i, v)| m.f.value(*v).def == Def::Result(id, i as u32));
    let same_axis = axis(split.axis, m.rank(split.x).ok()?) == Some(along);
    (all && same_axis && values.len() == m.f.op_data(id).results.len()).then_some(split.x)
}

/// Tensors along a new axis that is then joined with the one behind it.
pub(super) fn stack(op: &Reshape, m: &Matcher<'_>) -> Fit {
    let stack = m.sole::<Stack>(op.x)?;
    let stacked = m.shape(op.x)?;
    let at = axis(stack.axis, stacked.rank()).ok_or(Miss::No)?;
    if at + 1 >= stacked.rank() {
        return Err(Miss::No);
    }
    let mut joined = stacked.to_vec();
    let count = joined.remove(at);
    joined[at] = &joined[at] * &count;
    let same: Vec<Dim> = m.shape(m.result().ok_or(Miss::No)?)?.to_vec();
    if same != joined {
        return Err(Miss::No);
    }
    Ok(m.replace(Concat { values: stack.values.clone(), axis: at as i64, interleave: false }))
}
