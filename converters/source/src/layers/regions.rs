//! Regions of images, each read at a grid of places.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::DType;

/// How regions are read.
#[derive(Clone, Copy, Debug)]
pub struct Regions {
    /// Whether the middle of a pixel lies half a pixel behind its coordinate.
    pub half_pixel: bool,
    /// Whether the mean of the samples is wanted; else the greatest.
    pub mean: bool,
    /// The number of cells of a region, in rows and columns.
    pub size: [i64; 2],
    /// Samples along each axis of a cell.
    pub ratio: i64,
    /// Pixels of the image for each unit of the boxes.
    pub scale: f64,
}

/// Cells of regions, `boxes`, of the images with the numbers `batch`.
pub fn aligned(n: &mut Lower<'_>, x: Value, [boxes, batch]: [Value; 2], regions: Regions) -> Result<Value, LowerError> {
    let Regions { half_pixel, mean, size: [height, width], ratio, scale } = regions;
    if ratio <= 0 {
        return Err(LowerError::not_yet("a `sampling_ratio` that depends on the boxes"));
    }
    if [height, width, ratio].iter().any(|v| !(1..=1024).contains(v)) {
        return Err(LowerError::form(format!("a result of {height} by {width}")));
    }
    let shape = n.fixed_shape(x, "where elements lie")?;
    let [_, channels, rows, columns] = shape.as_slice() else {
        return Err(LowerError::form(format!("{}, which is no image,", n.ty(x)?)));
    };
    let dtype = n.dtype(x)?;
    if (n.rank(boxes)?, n.rank(batch)?) != (2, 1) {
        return Err(LowerError::form(format!("boxes in {} of batches in {}", n.ty(boxes)?, n.ty(batch)?)));
    }
    let boxes = n.cast(boxes, DType::F32)?;
    let boxes = n.scale(boxes, scale)?;
    let boxes = n.add_number(boxes, if half_pixel { -0.5 } else { 0.0 })?;
    let mut axes = vec![];
    for (first, count, size) in [(1, height, *rows), (0, width, *columns)] {
        let (start, end) = (n.slice(boxes, 1, first, Some(first + 1))?, n.slice(boxes, 1, first + 2, Some(first + 3))?);
        let mut extent = n.sub(end, start)?;
        if !half_pixel {
            let one = n.scalar_like(extent, 1.0)?;
            extent = n.maximum(extent, one)?;
        }
        // The middles of the samples, in parts of the box.
        let samples = count * ratio;
        let middles: Vec<f64> = (0..samples).map(|i| (i as f64 + 0.5) / samples as f64).collect();
        let middles = n.const_like(extent, &[1, samples as usize], &middles)?;
        let along = n.mul(extent, middles)?;
        let at = n.add(start, along)?;
        axes.push(box_taps(n, at, size as f64)?);
    }
    let flat = n.transpose(x, &[1, 0, 2, 3])?;
    let flat = n.reshape_to(flat, &[*channels, -1])?;
    let image = n.cast(batch, DType::I32)?;
    let image = n.scale(image, (rows * columns) as f64)?;
    let image = n.expand_dims(image, &[1, 2])?;
    let mut sum: Option<Value> = None;
    for (row, row_weight) in &axes[0] {
        for (column, column_weight) in &axes[1] {
            let (row, column) = (n.cast(*row, DType::I32)?, n.cast(*column, DType::I32)?);
            let row = n.scale(row, *columns as f64)?;
            let (row, column) = (n.expand_dims(row, &[2])?, n.expand_dims(column, &[1])?);
            let place = n.add(row, column)?;
            let place = n.add(place, image)?;
            let (a, b) = (n.expand_dims(*row_weight, &[2])?, n.expand_dims(*column_weight, &[1])?);
            let weight = n.mul(a, b)?;
            let weight = n.cast(weight, dtype)?;
            let picked =
                n.op(ops::Gather { x: flat, indices: place, axis: 1, batch_dims: 0, validate_indices: false })?;
            let part = n.mul(picked, weight)?;
            sum = Some(match sum {
                None => part,
                Some(sum) if mean => n.add(sum, part)?,
                Some(sum) => n.maximum(sum, part)?,
            });
        }
    }
    let samples = sum.ok_or(LowerError::Poisoned)?;
    let (kernel_sizes, strides) = (vec![ratio; 2], vec![ratio; 2]);
    let (pad_type, pad, ceil_mode) = (ops::PadType::Valid, vec![0; 4], false);
    let pooled = if mean {
        let exclude_padding_from_average = false;
        n.op(ops::AvgPool {
            x: samples,
            kernel_sizes,
            strides,
            pad_type,
            pad,
            exclude_padding_from_average,
            ceil_mode,
        })?
    } else {
        n.op(ops::MaxPool { x: samples, kernel_sizes, strides, pad_type, pad, ceil_mode })?
    };
    n.transpose(pooled, &[1, 0, 2, 3])
}

/// What cells of whole pixels hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooled {
    /// The greatest pixel of those that a cell touches, of a box whose last pixels belong to it.
    Greatest,
    /// The mean of these pixels, of a box that ends before its last ones.
    Mean,
}

/// Cells of regions, `boxes`, of the images with the numbers `batch`, in whole pixels; of a cell without any it is 0.
pub fn whole_pixels(
    n: &mut Lower<'_>,
    x: Value,
    [boxes, batch]: [Value; 2],
    (size, scale): ([i64; 2], f64),
    what: Pooled,
) -> Result<Value, LowerError> {
    if size.iter().any(|v| !(1..=MAX_CELLS).contains(v)) {
        return Err(LowerError::not_yet(format!("{} by {} cells of whole pixels", size[0], size[1])));
    }
    let shape = n.fixed_shape(x, "where elements lie")?;
    let [_, _, rows, columns] = shape.as_slice() else {
        return Err(LowerError::form(format!("{}, which is no image,", n.ty(x)?)));
    };
    let boxes = n.cast(boxes, DType::F32)?;
    let image = n.op(ops::Gather { x, indices: batch, axis: 0, batch_dims: 0, validate_indices: false })?;
    // Of the columns first, and of what is left the rows.
    let mut y = image;
    for (first, count, pixels, axis) in [(0, size[1], *columns, 3usize), (1, size[0], *rows, 2)] {
        let [from, to] = spans(n, boxes, first, (count, pixels), scale, what)?;
        let numbers: Vec<f64> = (0..pixels).map(|i| i as f64).collect();
        let mut own = [1, 1, 1, 1];
        own[axis] = numbers.len();
        let numbers = n.const_like(from, &own, &numbers)?;
        let mut parts = vec![];
        for i in 0..count {
            let mut bounds = [from, to];
            for v in &mut bounds {
                let one = n.slice(*v, 1, i, Some(i + 1))?;
                *v = n.expand_dims(one, &[2, 3])?;
            }
            let (before, behind) = (n.less(numbers, bounds[0])?, n.less(numbers, bounds[1])?);
            let since = n.not(before)?;
            let inside = n.and(since, behind)?;
            let nothing = n.scalar_like(y, if what == Pooled::Mean { 0.0 } else { f64::NEG_INFINITY })?;
            let part = n.select(inside, y, nothing)?;
            let axes = Some(vec![axis as i64]);
            parts.push(match what {
                Pooled::Greatest => n.op(ops::ReduceMax { x: part, axes, keep_dims: true })?,
                Pooled::Mean => {
                    let sum = n.op(ops::ReduceSum { x: part, axes, keep_dims: true })?;
                    let extent = n.sub(bounds[1], bounds[0])?;
                    let one = n.scalar_like(extent, 1.0)?;
                    let extent = n.maximum(extent, one)?;
                    let extent = n.cast(extent, n.dtype(sum)?)?;
                    n.div(sum, extent)?
                }
            });
        }
        y = n.concat(parts, axis as i64)?;
    }
    if what == Pooled::Mean {
        return Ok(y);
    }
    let (low, zero) = (n.scalar_like(y, f64::NEG_INFINITY)?, n.scalar_like(y, 0.0)?);
    let empty = n.equal(y, low)?;
    n.select(empty, zero, y)
}

/// Rows or columns of cells beyond which they are refused: each is a reduction of its own.
const MAX_CELLS: i64 = 64;

/// The first pixel of each cell of each box along an axis, and the one behind its last, within the image: `[k, cells]`.
fn spans(
    n: &mut Lower<'_>,
    boxes: Value,
    first: i64,
    (cells, pixels): (i64, i64),
    scale: f64,
    what: Pooled,
) -> Result<[Value; 2], LowerError> {
    let mut ends = vec![];
    for at in [first, first + 2] {
        let v = n.slice(boxes, 1, at, Some(at + 1))?;
        let v = n.scale(v, scale)?;
        ends.push(half_up(n, v)?);
    }
    let (start, mut end) = (ends[0], ends[1]);
    if what == Pooled::Greatest {
        end = n.add_number(end, 1.0)?;
    }
    let extent = n.sub(end, start)?;
    let least = n.scalar_like(extent, 1.0)?;
    let extent = n.maximum(extent, least)?;
    let each = n.scale(extent, 1.0 / cells as f64)?;
    let count = |from: i64| (from..from + cells).map(|i| i as f64).collect::<Vec<_>>();
    let (from, to) = (count(0), count(1));
    let (from, to) = (n.const_like(each, &[1, from.len()], &from)?, n.const_like(each, &[1, to.len()], &to)?);
    let (from, to) = (n.mul(each, from)?, n.mul(each, to)?);
    let (from, to) = (n.op(ops::Floor { x: from })?, n.op(ops::Ceil { x: to })?);
    // Of a mean, the last row and column of an image take no part.
    let last = if what == Pooled::Mean { pixels - 1 } else { pixels };
    let (zero, last) = (n.scalar_like(each, 0.0)?, n.scalar_like(each, last as f64)?);
    let mut bounds = [n.add(from, start)?, n.add(to, start)?];
    for v in &mut bounds {
        let low = n.maximum(*v, zero)?;
        *v = n.minimum(low, last)?;
    }
    Ok(bounds)
}

/// The nearest whole number, of two the one further from 0.
fn half_up(n: &mut Lower<'_>, x: Value) -> Result<Value, LowerError> {
    let (sign, size) = (n.op(ops::Sign { x })?, n.abs(x)?);
    let size = n.add_number(size, 0.5)?;
    let size = n.op(ops::Floor { x: size })?;
    n.mul(sign, size)
}

/// The two pixels that places in a box are mixed of along an axis; far outside there is nothing.
fn box_taps(n: &mut Lower<'_>, at: Value, size: f64) -> Result<Vec<(Value, Value)>, LowerError> {
    let (zero, last) = (n.scalar_like(at, 0.0)?, n.scalar_like(at, size - 1.0)?);
    let (least, most) = (n.scalar_like(at, -1.0)?, n.scalar_like(at, size)?);
    let inside = n.maximum(at, zero)?;
    let inside = n.minimum(inside, last)?;
    let low = n.op(ops::Floor { x: inside })?;
    let high = n.add_number(low, 1.0)?;
    let high = n.minimum(high, last)?;
    let part = n.sub(inside, low)?;
    let one = n.scalar_like(at, 1.0)?;
    let rest = n.sub(one, part)?;
    let (before, after) = (n.less(at, least)?, n.less(most, at)?);
    let gone = n.op(ops::LogicalOr { x: before, y: after })?;
    let (rest, part) = (n.select(gone, zero, rest)?, n.select(gone, zero, part)?);
    Ok(vec![(low, rest), (high, part)])
}
