//! Slices that share out a tensor.

use super::ranges::ranges;
use crate::{PassCx, PassError};
use indexmap::IndexMap;
use mlconv_mil::{
    ir::{Block, Function, OpId, Place, Value},
    ops::{SliceByIndex, Split},
};
use mlconv_tensor::DType;
use std::collections::HashMap;

/// A slice along one axis: the first element, how many, and the op.
type Part = (i64, i64, OpId);

/// Makes a split of slices that lie along one axis of a tensor, one behind the other, and leave nothing out.
pub(super) fn share_out(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        let f = &cx.module.functions[index];
        let mut parts: IndexMap<(Value, usize, Block), Vec<Part>> = IndexMap::new();
        for id in f.all_ops() {
            if let Some((x, axis, begin, count)) = f.op::<SliceByIndex>(id).and_then(|op| part(f, op)) {
                parts.entry((x, axis, f.op_data(id).block)).or_default().push((begin, count, id));
            }
        }
        // What stands for slices that were made a split, as their own slices may be next.
        let mut made = HashMap::new();
        for ((x, axis, _), mut parts) in parts {
            let x = made.get(&x).copied().unwrap_or(x);
            let Some(first) = parts.first().map(|p| p.2).filter(|_| parts.len() > 1 && cx.may_edit()) else { continue };
            parts.sort_unstable();
            let f = &cx.module.functions[index];
            let Some(size) = f.ty(x).tensor().and_then(|t| t.shape[axis].as_known()) else { continue };
            let mut next = 0;
            let in_turn = parts.iter().all(|(begin, count, _)| {
                let follows = *begin == next;
                next += count;
                follows
            });
            if !in_turn || next != size {
                cx.skipped(index, first, "share_out", "the slices of the tensor overlap, or leave something out");
                continue;
            }
            cx.fired(index, first, "share_out");
            made.extend(split(cx, index, (x, axis), &parts, first)?);
        }
    }
    Ok(())
}

/// The operand of a slice along one axis, that axis, and what is taken of it.
fn part(f: &Function, op: &SliceByIndex) -> Option<(Value, usize, i64, i64)> {
    let x = f.ty(op.x).tensor().filter(|t| matches!(t.dtype, DType::F16 | DType::F32 | DType::I32 | DType::Bool))?;
    let mut along = None;
    for (i, (range, size)) in ranges(f, op)?.into_iter().zip(x.shape.iter()).enumerate() {
        let (whole, n) = (range.stride == 1 && !range.squeezed, size.as_known());
        match n.and_then(|n| Some((range.taken(n)?, n))) {
            Some(((0, count), n)) if whole && count == n => {}
            Some(((begin, count), _)) if whole && along.is_none() => along = Some((op.x, i, begin, count)),
            None if n.is_none() && whole && range.starts() && range.no_end => {}
            Some(_) | None => return None,
        }
    }
    along
}

fn split(
    cx: &mut PassCx<'_>,
    index: usize,
    (x, axis): (Value, usize),
    parts: &[Part],
    first: OpId,
) -> Result<Vec<(Value, Value)>, PassError> {
    let f = &cx.module.functions[index];
    let results: Vec<Value> = parts.iter().map(|p| f.op_data(p.2).results[0]).collect();
    let hints: Vec<String> = results.iter().map(|v| f.value(*v).hint.to_string()).collect();
    let hints: Vec<&str> = hints.iter().map(String::as_str).collect();
    let origins: Vec<_> = parts.iter().filter_map(|p| f.op_data(p.2).origin).collect();
    let origin = (!origins.is_empty()).then(|| cx.module.origins.rewritten(cx.pass, origins));
    let sizes: Vec<i64> = parts.iter().map(|p| p.1).collect();
    let equal = sizes.iter().all(|n| *n == sizes[0]);
    let (num_splits, split_sizes) = if equal { (Some(sizes.len() as i64), None) } else { (None, Some(sizes)) };
    let (pass, f) = (cx.pass, &mut cx.module.functions[index]);
    let op = Split { x, num_splits, split_sizes, axis: axis as i64 };
    let made = f.insert(Place::Before(first), &hints, Box::new(op), origin).map_err(|e| PassError::new(pass, &e))?;
    let pairs: Vec<(Value, Value)> = results.into_iter().zip(made).collect();
    for ((old, new), part) in pairs.iter().zip(parts) {
        f.replace_uses(*old, *new);
        f.remove(part.2);
    }
    cx.edited();
    Ok(pairs)
}
