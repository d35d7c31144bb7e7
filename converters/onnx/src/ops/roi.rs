//! Pooling of regions.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

rows! {
    "MaxRoiPool" 1..=LATEST => max_roi_pool;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Cells of a region along an axis, which become ops each.
const MAX_CELLS: i64 = 64;

/// The greatest number in each cell of a grid over each region, `[r, c, *pooled]`.
///
/// A cell is a rectangle, so the greatest number is found along one axis after the other.
fn max_roi_pool(n: &mut Lower<'_>) -> Lowered {
    let (x, rois) = (n.input(0)?, n.input(1)?);
    let scale = n.float_or("spatial_scale", 1.0)?;
    let Some(pooled) = n.ints("pooled_shape")? else { return Err(LowerError::MissingAttr { name: "pooled_shape" }) };
    let Some([rows, columns]) =
        <[i64; 2]>::try_from(pooled).ok().filter(|p| p.iter().all(|c| (1..=MAX_CELLS).contains(c)))
    else {
        return n.bad_attr("pooled_shape", format!("two numbers from 1 to {MAX_CELLS}"));
    };
    if n.rank(x)? != 4 || n.rank(rois)? != 2 || !n.shape(rois)?.get(1).is_some_and(|d| d.is(5)) {
        return Err(LowerError::form(format!("regions {} of {}", n.ty(rois)?, n.ty(x)?)));
    }
    let rois = n.cast(rois, DType::F32)?;
    let column = |n: &mut Lower<'_>, i: i64| n.slice(rois, 1, i, Some(i + 1));
    let batch = column(n, 0)?;
    let batch = n.squeeze(batch, &[1])?;
    let indices = n.cast(batch, DType::I32)?;
    let of_region = n.op(ops::Gather { x, indices, axis: 0, batch_dims: 0, validate_indices: false })?;
    let mut corners = vec![];
    for i in 1..5 {
        let corner = column(n, i)?;
        let corner = n.scale(corner, f64::from(scale))?;
        corners.push(rounded(n, corner)?);
    }
    let [left, top, right, bottom] = corners[..] else { return Err(LowerError::Poisoned) };
    let (across, wide) = greatest(n, of_region, Along { axis: 3, first: left, last: right, cells: columns })?;
    let (y, high) = greatest(n, across, Along { axis: 2, first: top, last: bottom, cells: rows })?;
    // What lies outside of the image has no cells, and is 0.
    let high = n.reshape(high, &[Size::Of(rois, 0), Size::Known(1), Size::Known(rows), Size::Known(1)])?;
    let wide = n.reshape(wide, &[Size::Of(rois, 0), Size::Known(1), Size::Known(1), Size::Known(columns)])?;
    let (inside, zero) = (n.and(high, wide)?, n.scalar_like(y, 0.0)?);
    n.emit(ops::Select { cond: inside, a: y, b: zero })
}

/// Halves are rounded away from zero.
fn rounded(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let size = n.abs(x)?;
    let size = n.add_number(size, 0.5)?;
    let size = n.op(ops::Floor { x: size })?;
    let sign = n.op(ops::Sign { x })?;
    n.mul(size, sign)
}

/// Regions along an axis, `f32[r, 1]` each, and into how many cells they are split.
struct Along {
    axis: usize,
    first: Value,
    last: Value,
    cells: i64,
}

/// The greatest number of each cell along an axis of `x`, and whether there is one, `bool[r, cells]`.
fn greatest(n: &mut Lower<'_>, x: Value, along: Along) -> Result<(Value, Value)> {
    let Along { axis, first, last, cells } = along;
    let places = n.counted(x, axis, DType::F32)?;
    let end = n.size_of(x, axis)?;
    let (end, zero) = (n.cast(end, DType::F32)?, n.const_scalar(DType::F32, 0.0)?);
    let (extent, one) = (n.sub(last, first)?, n.const_scalar(DType::F32, 1.0)?);
    let extent = n.add_number(extent, 1.0)?;
    let extent = n.maximum(extent, one)?;
    // Divided before it is multiplied, as the edges of cells are rounded to whole places.
    let number = n.const_scalar(DType::F32, cells as f64)?;
    let step = n.div(extent, number)?;
    let lowest = n.scalar_like(x, f64::NEG_INFINITY)?;
    let edge = |n: &mut Lower<'_>, cell: i64, up: bool| -> Result<Value> {
        let at = n.scale(step, cell as f64)?;
        let at = if up { n.op(ops::Ceil { x: at })? } else { n.op(ops::Floor { x: at })? };
        let at = n.add(at, first)?;
        let at = n.maximum(at, zero)?;
        n.minimum(at, end)
    };
    let (mut values, mut there) = (vec![], vec![]);
    for cell in 0..cells {
        let (from, to) = (edge(n, cell, false)?, edge(n, cell + 1, true)?);
        there.push(n.less(from, to)?);
        let (before, within) = (n.less(places, from)?, n.less(places, to)?);
        let after = n.not(before)?;
        let within = n.and(after, within)?;
        let within = n.expand_dims(within, if axis == 3 { &[1, 2] } else { &[1, 3] })?;
        let cut = n.select(within, x, lowest)?;
        values.push(n.op(ops::ReduceMax { x: cut, axes: Some(vec![axis as i64]), keep_dims: false })?);
    }
    let values = n.op(ops::Stack { values, axis: axis as i64 })?;
    // Truth values are joined as numbers.
    let there = there.into_iter().map(|v| n.cast(v, DType::I32)).collect::<Result<Vec<_>>>()?;
    let there = n.concat(there, 1)?;
    Ok((values, n.cast(there, DType::Bool)?))
}
