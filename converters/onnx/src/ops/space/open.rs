//! Blocks of an image whose sizes are only known when the program runs: each element is added at a computed place.

use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::DType;

/// Sums up overlapping blocks, given the shape that the source states of the result.
pub(super) fn col_to_im(n: &mut Lower<'_>) -> Lowered {
    let (x, image, block) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let Some(stated) = n.stated_sizes(0) else { return Err(LowerError::NotConstant { index: 1 }) };
    let shape = n.fixed_shape(x, "the blocks")?;
    let dims = stated.len().saturating_sub(2);
    let strides = n.ints_or("strides", 1, dims)?;
    let dilations = n.ints_or("dilations", 1, dims)?;
    let pads = n.ints_or("pads", 0, 2 * dims)?;
    let bad = || LowerError::form(format!("blocks of {shape:?} in an image {stated:?}"));
    let ([batch, depth, count], [_, channels, sizes @ ..]) = (&shape[..], &stated[..]) else { return Err(bad()) };
    let (batch, depth, count, channels) = (*batch, *depth, *count, *channels);
    let sane = strides.iter().chain(&dilations).chain(sizes).all(|v| (1..1 << 24).contains(v))
        && pads.iter().all(|p| (0..1 << 24).contains(p));
    if dims == 0 || channels < 1 || depth % channels != 0 || !sane || n.elements(block)?.len() != dims {
        return Err(bad());
    }
    // Image sizes that are given must be those that are stated; they are not needed.
    let _ = image;
    let places = depth / channels;
    let total = sizes.iter().try_fold(1i64, |n, d| n.checked_mul(*d)).filter(|n| *n < 1 << 28).ok_or_else(bad)?;
    let reach = depth.checked_mul(count).filter(|n| *n < 1 << 28).ok_or_else(bad)?;
    let planes = batch.checked_mul(channels).filter(|n| *n < 1 << 28).ok_or_else(bad)?;
    n.affords(usize::try_from(reach).unwrap_or(usize::MAX))?;
    let block = n.cast(block, DType::I32)?;
    let (within, columns) = (n.const_ints(&(0..places).collect::<Vec<_>>())?, counted(n, count)?);
    let (mut within, mut column) = (n.expand_dims(within, &[1])?, columns);
    let zero = n.const_int(0)?;
    let (mut flat, mut inside, mut step) = (zero, None::<Value>, 1i64);
    for axis in (0..dims).rev() {
        let side = n.element(block, axis)?;
        // Columns along this axis: `(image + pads - reach of a block) / stride + 1`.
        let steps = n.add_number(side, -1.0)?;
        let long = n.scale(steps, dilations[axis] as f64)?;
        let room = n.const_ints(&[sizes[axis] + pads[axis] + pads[axis + dims] - 1])?;
        let room = n.sub(room, long)?;
        let stride = n.const_int(strides[axis])?;
        let grid = n.op(ops::FloorDiv { x: room, y: stride })?;
        let grid = n.add_number(grid, 1.0)?;
        let at = n.op(ops::Mod { x: within, y: side })?;
        within = n.op(ops::FloorDiv { x: within, y: side })?;
        let of = n.op(ops::Mod { x: column, y: grid })?;
        column = n.op(ops::FloorDiv { x: column, y: grid })?;
        let (at, of) = (n.scale(at, dilations[axis] as f64)?, n.scale(of, strides[axis] as f64)?);
        let place = n.add(at, of)?;
        let place = n.add_number(place, -(pads[axis] as f64))?;
        let size = n.const_int(sizes[axis])?;
        let (before, fits) = (n.less(place, zero)?, n.less(place, size)?);
        let from = n.not(before)?;
        let fits = n.and(from, fits)?;
        inside = Some(match inside {
            None => fits,
            Some(inside) => n.and(inside, fits)?,
        });
        let place = n.scale(place, step as f64)?;
        flat = n.add(flat, place)?;
        step = step.saturating_mul(sizes[axis]);
    }
    // What lies outside of the image is added up behind it, and left.
    let behind = n.const_int(total)?;
    let inside = inside.ok_or(LowerError::Poisoned)?;
    let flat = n.select(inside, flat, behind)?;
    let indices = n.reshape_to(flat, &[places * count])?;
    let rows = n.reshape_to(x, &[planes, places * count])?;
    let y = n.in_float(rows, |n, rows| {
        let updates = n.transpose(rows, &[1, 0])?;
        let (shape, none) = (n.const_ints(&[total + 1, planes])?, n.scalar_like(rows, 0.0)?);
        let data = n.op(ops::Fill { shape, value: Some(none) })?;
        let mode = ops::ScatterMode::Add;
        let sums = n.op(ops::Scatter { data, indices, updates, axis: 0, mode, validate_indices: false })?;
        let sums = n.slice(sums, 0, 0, Some(total))?;
        n.transpose(sums, &[1, 0])
    })?;
    let y = n.reshape_to(y, &stated)?;
    n.done(y)
}

/// `0, 1, …` up to a number, as a vector.
fn counted(n: &mut Lower<'_>, count: i64) -> Result<Value, LowerError> {
    n.const_ints(&(0..count).collect::<Vec<_>>())
}
