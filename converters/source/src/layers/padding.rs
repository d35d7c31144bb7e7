//! Elements around tensors.

use crate::{Lower, LowerError, Size};
use mlconv_mil::{
    ir::Value,
    ops::{self, PadMode},
};

/// Bounds beyond this are the ends of an axis, whatever its size.
pub const FAR: i64 = i32::MAX as i64;

/// Whether padding by so much is beyond any axis.
pub fn is_far(by: i64) -> bool {
    by.unsigned_abs() > FAR.unsigned_abs()
}

/// How the outside of a tensor is filled.
#[derive(Clone, Copy, PartialEq)]
pub enum Fill {
    /// By one number.
    Constant(f64),
    /// By the tensor, mirrored at its last elements.
    Reflect,
    /// By its last elements.
    Edge,
    /// By the tensor, over and over.
    Wrap,
}

/// `x` with `pairs` of elements before and after each axis; what is negative is cut off.
pub fn pad(n: &mut Lower<'_>, x: Value, pairs: &[(i64, i64)], fill: Fill) -> Result<Value, LowerError> {
    if let Some(far) = pairs.iter().flat_map(|p| [p.0, p.1]).find(|p| is_far(*p)) {
        return Err(LowerError::form(format!("padding by {far}")));
    }
    let cut = pairs.iter().enumerate().filter(|(_, p)| p.0 < 0 || p.1 < 0);
    let cuts: Vec<_> = cut.map(|(i, p)| (i, (-p.0).max(0), (p.1 < 0).then_some(p.1), 1)).collect();
    let x = if cuts.is_empty() { x } else { n.slice_by(x, &cuts)? };
    let pairs: Vec<(i64, i64)> = pairs.iter().map(|p| (p.0.max(0), p.1.max(0))).collect();
    let Some(first) = pairs.iter().position(|p| *p != (0, 0)) else { return Ok(x) };
    let dtype = n.dtype(x)?;
    if let Fill::Constant(value) = fill {
        if dtype.is_float() {
            let flat: Vec<i64> = pairs.iter().flat_map(|p| [p.0, p.1]).collect();
            return n.pad(x, &flat, value as f32);
        }
        return pad_by_joining(n, x, &pairs, value);
    }
    let (mode, rank) = (if fill == Fill::Edge { PadMode::Replicate } else { PadMode::Reflect }, pairs.len());
    let shape = n.shape(x)?;
    let near = pairs.iter().zip(shape.iter()).all(|(p, d)| {
        let most = if fill == Fill::Reflect { d.as_known().map(|d| d - 1) } else { d.as_known() };
        most.is_none_or(|most| p.0 <= most && p.1 <= most)
    });
    // Core ML reflects and replicates along the last two axes only.
    if dtype.is_float() && fill != Fill::Wrap && first + 2 >= rank && near {
        let flat: Vec<i64> = pairs[first..].iter().flat_map(|p| [p.0, p.1]).collect();
        let pad = n.const_ints(&flat)?;
        return n.op(ops::Pad { x, pad, mode, constant_val: 0.0 });
    }
    let mut y = x;
    for (axis, pair) in pairs.iter().enumerate().filter(|(_, p)| **p != (0, 0)) {
        let Some(size) = shape[axis].as_known() else {
            y = pad_open_axis(n, y, axis, *pair, fill)?;
            continue;
        };
        y = pad_by_places(n, y, axis, size, *pair, fill)?;
    }
    Ok(y)
}

/// `x` with an axis of `size` elements padded, each new element by the place that it stands for.
pub fn pad_by_places(
    n: &mut Lower<'_>,
    x: Value,
    axis: usize,
    size: i64,
    (before, after): (i64, i64),
    fill: Fill,
) -> Result<Value, LowerError> {
    let end = size.saturating_add(after);
    n.affords(usize::try_from(end.saturating_add(before).max(0)).unwrap_or(usize::MAX))?;
    let places: Vec<i64> = (before.saturating_neg()..end).map(|i| inside(i, size, fill)).collect();
    n.gather_at(x, axis, &places)
}

/// The place inside of `0..size` that `i` stands for.
fn inside(i: i64, size: i64, fill: Fill) -> i64 {
    match fill {
        Fill::Edge | Fill::Constant(_) => i.clamp(0, (size - 1).max(0)),
        Fill::Wrap => i.rem_euclid(size.max(1)),
        Fill::Reflect if size <= 1 => 0,
        Fill::Reflect => (size - 1) - (i.rem_euclid(2 * (size - 1)) - (size - 1)).abs(),
    }
}

/// Pads an axis of open size, which must be as long as the padding.
fn pad_open_axis(
    n: &mut Lower<'_>,
    x: Value,
    axis: usize,
    (before, after): (i64, i64),
    fill: Fill,
) -> Result<Value, LowerError> {
    let mut parts = vec![];
    let reversed = |n: &mut Lower<'_>, v: Value| n.op(ops::Reverse { x: v, axes: Some(vec![axis as i64]) });
    let repeated = |n: &mut Lower<'_>, v: Value, times: i64| n.concat(vec![v; times as usize], axis as i64);
    if before > 4096 || after > 4096 {
        return Err(LowerError::NotFixed { what: "such wide padding".to_owned() });
    }
    if before > 0 {
        parts.push(match fill {
            Fill::Wrap => n.slice(x, axis, -before, None)?,
            Fill::Reflect => {
                let part = n.slice(x, axis, 1, Some(before + 1))?;
                reversed(n, part)?
            }
            Fill::Edge | Fill::Constant(_) => {
                let part = n.slice(x, axis, 0, Some(1))?;
                repeated(n, part, before)?
            }
        });
    }
    parts.push(x);
    if after > 0 {
        parts.push(match fill {
            Fill::Wrap => n.slice(x, axis, 0, Some(after))?,
            Fill::Reflect => {
                let part = n.slice(x, axis, -after - 1, Some(-1))?;
                reversed(n, part)?
            }
            Fill::Edge | Fill::Constant(_) => {
                let part = n.slice(x, axis, -1, None)?;
                repeated(n, part, after)?
            }
        });
    }
    n.concat(parts, axis as i64)
}

/// Puts constants around an `x` that is not of floats.
fn pad_by_joining(n: &mut Lower<'_>, x: Value, pairs: &[(i64, i64)], value: f64) -> Result<Value, LowerError> {
    let mut y = x;
    for (axis, pair) in pairs.iter().enumerate() {
        let mut parts = vec![];
        for (i, count) in [pair.0, pair.1].into_iter().enumerate() {
            if i == 1 {
                parts.push(y);
            }
            if count > 0 {
                let mut sizes = n.own_sizes(y)?;
                sizes[axis] = Size::Known(count);
                let (shape, value) = (n.sizes_exactly(&sizes)?, n.scalar_like(y, value)?);
                parts.push(n.op(ops::Fill { shape, value: Some(value) })?);
            }
        }
        y = n.concat(parts, axis as i64)?;
    }
    Ok(y)
}
