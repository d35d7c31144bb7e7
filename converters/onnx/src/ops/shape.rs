//! Operators that change a tensor's shape, and those that ask for it.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered, Size};
use mlconv_tensor::{DType, Dim, Tensor};

rows! {
    "Reshape" 1..=4 => |n| { n.ignore("consumed_inputs"); let s = n.ints("shape")?.unwrap_or_default(); reshape(n, s) };
    "Reshape" 5..=LATEST => reshape_by_input;
    "Flatten" 1..=LATEST => flatten;
    "Squeeze" 1..=12 => |n| { let axes = n.ints("axes")?; squeeze(n, axes) };
    "Squeeze" 13..=LATEST => |n| match n.ints_input(1) {
        Err(LowerError::NotConstant { .. }) => as_stated(n),
        axes => squeeze(n, axes?),
    };
    "Unsqueeze" 1..=12 => |n| { let axes = n.ints("axes")?; unsqueeze(n, axes) };
    "Unsqueeze" 13..=LATEST => |n| match n.ints_input(1) {
        Err(LowerError::NotConstant { .. }) => as_stated(n),
        axes => unsqueeze(n, axes?),
    };
    "Transpose" 1..=LATEST => transpose;
    "Expand" 8..=LATEST => expand;
    "Tile" 6..=LATEST => tile;
    "Shape" 1..=14 => |n| shape(n, 0, None);
    "Shape" 15..=LATEST => |n| { let (start, end) = (n.int_or("start", 0)?, n.int("end")?); shape(n, start, end) };
    "Size" 1..=LATEST => size;
    "ConstantOfShape" 9..=LATEST => constant_of_shape;
    #["com.microsoft"] "ExpandDims" 1..=LATEST => |n| { let axes = n.ints_input(1)?; unsqueeze(n, axes) };
}

fn reshape_by_input(n: &mut Lower<'_>) -> Lowered {
    let keep_zero = n.flag("allowzero", false)?;
    if let Some(t) = n.constant(1)? {
        let sizes = t.to_i64();
        return if keep_zero && sizes.contains(&0) { reshape_to_none(n) } else { reshape(n, sizes) };
    }
    let shape = n.input(1)?;
    let sizes = n.elements(shape)?;
    let open = sizes.iter().filter(|d| d.as_known().is_none()).count();
    let known: Option<Vec<i64>> = sizes.iter().map(Dim::as_known).collect();
    if let Some(known) = known {
        return reshape(n, known);
    }
    let x = n.input(0)?;
    let empty = n.shape(x)?.iter().any(|d| d.is(0));
    if empty || (keep_zero && sizes.iter().any(|d| d.is(0))) {
        return reshape_to_none(n);
    }
    // A size that is not known may still turn out to be -1 where nothing is known of it.
    let tracked = n.fact(shape).ints.is_some();
    if tracked && open == 1 && !sizes.iter().any(|d| d.is(-1) || d.is(0)) {
        let sizes: Vec<i64> = sizes.iter().map(|d| d.as_known().unwrap_or(-1)).collect();
        let y = n.reshape_to(x, &sizes)?;
        return n.done(y);
    }
    if tracked && !sizes.iter().any(|d| d.is(0)) {
        return n.emit(ops::Reshape { x, shape });
    }
    if !tracked {
        let shape = zeros_replaced(n, x, shape, sizes.len())?;
        return n.emit(ops::Reshape { x, shape });
    }
    let mut parts = vec![];
    for (i, size) in sizes.iter().enumerate() {
        parts.push(match size.as_known() {
            Some(0) => n.sizes_exactly(&[Size::Of(x, i)])?,
            _ => n.element(shape, i)?,
        });
    }
    let shape = n.concat(parts, 0)?;
    n.emit(ops::Reshape { x, shape })
}

/// `shape`, of `len` sizes of which nothing is known, with the sizes of `x` in place of 0.
fn zeros_replaced(n: &mut Lower<'_>, x: Value, shape: Value, len: usize) -> Result<Value, LowerError> {
    let rank = n.rank(x)?;
    let own: Vec<Size> = (0..len).map(|i| if i < rank { Size::Of(x, i) } else { Size::Known(0) }).collect();
    let own = n.sizes_exactly(&own)?;
    let zero = n.const_int(0)?;
    let kept = n.equal(shape, zero)?;
    n.select(kept, own, shape)
}

fn reshape_to_none(n: &mut Lower<'_>) -> Lowered {
    n.input(0)?;
    n.input(1)?;
    Err(LowerError::core_ml("a tensor without elements"))
}

/// Reshapes to `sizes`, of which one may be -1, and 0 keeps a size.
fn reshape(n: &mut Lower<'_>, sizes: Vec<i64>) -> Lowered {
    if let Some(t) = raw(n)? {
        let (count, mut known) = (t.count(), sizes.clone());
        for (i, size) in known.iter_mut().enumerate().filter(|(_, s)| **s == 0) {
            *size = t.shape().get(i).map_or(0, |d| *d as i64);
        }
        let rest: i64 = known.iter().filter(|s| **s != -1).fold(1, |n, s| n.saturating_mul(*s));
        let left = (count as i64).checked_div(rest).unwrap_or(0);
        let dims: Vec<usize> =
            known.iter().map(|s| usize::try_from(if *s == -1 { left } else { *s }).unwrap_or(0)).collect();
        if dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) == Some(count) {
            return n.given(t.reshape(&dims));
        }
    }
    let x = n.input(0)?;
    let own = n.rank(x)?;
    if sizes.is_empty() {
        let y = n.as_scalar(x)?;
        return n.done(y);
    }
    let mut parts = vec![];
    for (i, size) in sizes.iter().enumerate() {
        parts.push(match size {
            0 if i < own => Size::Of(x, i),
            0 => return Err(LowerError::form(format!("keeping size {i} of {}", n.ty(x)?))),
            -1 => Size::Rest,
            size => Size::Known(*size),
        });
    }
    let y = n.reshape(x, &parts)?;
    n.done(y)
}

/// Input 0 as the source has it, where it is a constant of a type that is narrowed: its values are kept as they are,
/// for what is not in the range of 32 bits may still mean something to an operator that reads it.
fn raw(n: &mut Lower<'_>) -> Result<Option<Tensor>, LowerError> {
    Ok(n.constant(0)?.filter(|t| t.dtype() == DType::I64))
}

fn flatten(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let (rank, axis) = (n.rank(x)?, n.int_or("axis", 1)?);
    let at = if axis == rank as i64 { rank } else { n.axis(x, axis)? };
    let shape = n.shape(x)?;
    let product = |dims: &[Dim]| dims.iter().try_fold(1i64, |n, d| n.checked_mul(d.as_known()?));
    let y = match (product(&shape[..at]), product(&shape[at..])) {
        (Some(rows), Some(columns)) => n.reshape_to(x, &[rows, columns])?,
        (Some(rows), None) => n.reshape_to(x, &[rows, -1])?,
        (None, Some(columns)) => n.reshape_to(x, &[-1, columns])?,
        (None, None) => {
            let columns = n.merge_axes(x, at, rank)?;
            n.merge_axes(columns, 0, at)?
        }
    };
    n.done(y)
}

fn squeeze(n: &mut Lower<'_>, axes: Option<Vec<i64>>) -> Lowered {
    if let (Some(t), Some(axes)) = (raw(n)?, &axes) {
        let rank = t.shape().len() as i64;
        let goes = |i: usize| axes.iter().any(|a| (if *a < 0 { a + rank } else { *a }) == i as i64);
        let dims: Vec<usize> = t.shape().iter().enumerate().filter(|(i, _)| !goes(*i)).map(|(_, d)| *d).collect();
        if dims.iter().product::<usize>() == t.count() {
            return n.given(t.reshape(&dims));
        }
    }
    let x = n.input(0)?;
    let shape = n.shape(x)?;
    let mut gone = vec![];
    match &axes {
        Some(axes) => {
            for axis in axes {
                gone.push(n.axis(x, *axis)?);
            }
        }
        None => gone.extend((0..shape.rank()).filter(|i| shape[*i].is(1))),
    }
    if let Some(axis) = gone.iter().find(|a| shape[**a].as_known().is_some_and(|d| d != 1)) {
        return Err(LowerError::form(format!("squeezing axis {axis} of {shape}")));
    }
    if gone.iter().all(|a| shape[*a].is(1)) {
        let y = n.squeeze(x, &gone.iter().map(|a| *a as i64).collect::<Vec<_>>())?;
        return n.done(y);
    }
    // A size that is not known to be 1 is taken to be.
    let kept: Vec<Size> = (0..shape.rank()).filter(|i| !gone.contains(i)).map(|i| Size::Of(x, i)).collect();
    let y = if kept.is_empty() { n.as_scalar(x)? } else { n.reshape(x, &kept)? };
    n.done(y)
}

/// Reshapes to what the source states of the result, where axes are not known before the program runs.
fn as_stated(n: &mut Lower<'_>) -> Lowered {
    let sizes = n.stated_sizes(0).ok_or(LowerError::NotConstant { index: 1 })?;
    let x = n.input(0)?;
    let y = if sizes.is_empty() { n.as_scalar(x)? } else { n.reshape_to(x, &sizes)? };
    n.done(y)
}

fn unsqueeze(n: &mut Lower<'_>, axes: Option<Vec<i64>>) -> Lowered {
    let axes = axes.ok_or(LowerError::MissingAttr { name: "axes" })?;
    if let Some(t) = raw(n)?.filter(|t| t.shape().is_empty() && matches!(axes.as_slice(), [0 | -1])) {
        return n.given(t.reshape(&[1]));
    }
    let x = n.input(0)?;
    let y = n.expand_dims(x, &axes)?;
    n.done(y)
}

fn transpose(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let rank = n.rank(x)? as i64;
    let perm = n.ints("perm")?.unwrap_or_else(|| (0..rank).rev().collect());
    let y = n.permute(x, &perm)?;
    n.done(y)
}

fn expand(n: &mut Lower<'_>) -> Lowered {
    let (x, shape) = (n.input(0)?, n.input(1)?);
    if n.shape(shape)?.first().is_some_and(|d| d.is(0)) {
        return n.done(x);
    }
    let y = n.broadcast_to(x, shape)?;
    n.done(y)
}

fn tile(n: &mut Lower<'_>) -> Lowered {
    let (x, reps) = (n.input(0)?, n.input(1)?);
    if n.rank(x)? == 0 || n.known_ints(reps).is_some_and(|r| r.iter().all(|r| *r == 1)) {
        return n.done(x);
    }
    n.emit(ops::Tile { x, reps })
}

fn shape(n: &mut Lower<'_>, start: i64, end: Option<i64>) -> Lowered {
    let x = n.input(0)?;
    let rank = n.rank(x)? as i64;
    let bound = |i: i64| (if i < 0 { i.saturating_add(rank) } else { i }).clamp(0, rank);
    let (start, end) = (bound(start), bound(end.unwrap_or(rank)));
    let sizes: Vec<Dim> = n.shape(x)?.get(start as usize..end.max(start) as usize).unwrap_or_default().to_vec();
    if let Some(known) = sizes.iter().map(Dim::as_known).collect::<Option<Vec<i64>>>() {
        return n.literal(Tensor::from_vec(&[known.len()], known));
    }
    let all = n.op(ops::ShapeOf { x })?;
    let y = if (start, end) == (0, rank) { all } else { n.slice(all, 0, start, Some(end))? };
    n.done(y)
}

fn size(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    if let Some(count) = n.shape(x)?.count().as_known() {
        return n.literal(Tensor::scalar(count));
    }
    let shape = n.op(ops::ShapeOf { x })?;
    n.emit(ops::ReduceProd { x: shape, axes: Some(vec![0]), keep_dims: false })
}

fn constant_of_shape(n: &mut Lower<'_>) -> Lowered {
    let value = n.tensor("value")?.unwrap_or_else(|| Tensor::from_vec(&[1], vec![0f32]));
    if value.count() != 1 {
        return n.bad_attr("value", "one element");
    }
    let value = value.reshape(&[]);
    n.makes(value.dtype());
    let shape = match n.constant(0)? {
        // No sizes at all make a scalar.
        Some(t) if t.count() == 0 => return n.literal(value),
        Some(t) => n.const_ints(&t.to_i64())?,
        None => n.input(0)?,
    };
    filled(n, shape, value)
}

/// A tensor of one value.
pub(super) fn filled(n: &mut Lower<'_>, shape: Value, value: Tensor) -> Lowered {
    if let Some(sizes) = n.known_ints(shape).filter(|s| s.contains(&0)) {
        let dims: Option<Vec<usize>> = sizes.iter().map(|d| usize::try_from(*d).ok()).collect();
        let dims = dims.filter(|d| d.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).is_some());
        let dims = dims.ok_or_else(|| LowerError::form(format!("a tensor of shape {sizes:?}")))?;
        return n.literal(Tensor::from_i64(value.dtype(), &dims, &[]));
    }
    let value = n.add_const(value)?;
    n.emit(ops::Fill { shape, value: Some(value) })
}
