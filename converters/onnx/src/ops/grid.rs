//! Reading images at computed places.

use crate::LATEST;
use mlconv_mil::{
    ir::Value,
    ops::{self, CoordinatesMode, PaddingMode, ResampleMode},
    schema::Opset,
};
use mlconv_source::{Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

rows! {
    "GridSample" 16..=LATEST => grid_sample;
    "AffineGrid" 20..=LATEST => affine_grid;
    "RoiAlign" 10..=15 => |n| roi_align(n, false);
    "RoiAlign" 16..=LATEST => |n| {
        let half_pixel = match n.str_or("coordinate_transformation_mode", "half_pixel")? {
            "half_pixel" => true,
            "output_half_pixel" => false,
            _ => return n.bad_attr("coordinate_transformation_mode", "`half_pixel` or `output_half_pixel`"),
        };
        roi_align(n, half_pixel)
    };
    #["com.microsoft"] "GridSample" 1..=LATEST => grid_sample;
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Outside {
    Zeros,
    Border,
    Reflection,
}

fn grid_sample(n: &mut Lower<'_>) -> Lowered {
    let align_corners = n.flag("align_corners", false)?;
    let mode = match n.str_or("mode", "linear")? {
        "linear" | "bilinear" => Mode::Linear,
        "nearest" => Mode::Nearest,
        "cubic" | "bicubic" => Mode::Cubic,
        _ => return n.bad_attr("mode", "`linear`, `nearest` or `cubic`"),
    };
    let outside = match n.str_or("padding_mode", "zeros")? {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        _ => return n.bad_attr("padding_mode", "`zeros`, `border` or `reflection`"),
    };
    let (x, grid) = (n.input(0)?, n.input(1)?);
    if n.rank(x)? != 4 || mode == Mode::Cubic {
        return sample(n, x, grid, mode, outside, align_corners);
    }
    let sampling_mode = if mode == Mode::Linear { ResampleMode::Bilinear } else { ResampleMode::Nearest };
    let padding_mode = match outside {
        Outside::Zeros => PaddingMode::Constant,
        Outside::Border => PaddingMode::Border,
        Outside::Reflection if align_corners => PaddingMode::Reflection,
        Outside::Reflection => PaddingMode::Symmetric,
    };
    let coordinates = if n.opset() < Opset::Ios16 { n.cast(grid, DType::F32)? } else { grid };
    let y = n.in_float(x, |n, x| {
        n.op(ops::Resample {
            x,
            coordinates,
            sampling_mode,
            padding_mode,
            padding_value: 0.0,
            coordinates_mode: CoordinatesMode::MinusOneToOne,
            align_corners,
        })
    })?;
    n.done(y)
}

/// Samples by arithmetic, along any number of axes.
fn sample(n: &mut Lower<'_>, x: Value, grid: Value, mode: Mode, outside: Outside, align: bool) -> Lowered {
    let shape = n.shape(x)?;
    let spatial = shape.rank().saturating_sub(2);
    if spatial == 0 || n.rank(grid)? != shape.rank() {
        return Err(LowerError::form(format!("reading {} at {}", n.ty(x)?, n.ty(grid)?)));
    }
    let mut dims = vec![];
    for d in &shape[2..] {
        dims.push(d.as_known().ok_or_else(|| LowerError::NotFixed { what: "where elements lie".to_owned() })?);
    }
    let mut wanted = vec![Size::Of(x, 0), Size::Of(x, 1)];
    wanted.extend((0..spatial).map(|i| Size::Of(grid, i + 1)));
    let (x, dtype) = (n.as_float(x)?, n.dtype(x)?);
    let flat = n.merge_axes(x, 2, 2 + spatial)?;
    let places = n.merge_axes(grid, 1, 1 + spatial)?;
    let places = n.cast(places, DType::F32)?;
    let mut taps: Vec<Vec<(Value, Value)>> = vec![];
    for (axis, size) in dims.iter().enumerate() {
        // The last coordinate is along the first axis.
        let part = n.slice(places, 2, (spatial - 1 - axis) as i64, Some((spatial - axis) as i64))?;
        let at = n.squeeze(part, &[2])?;
        let at = pixel(n, at, *size as f64, align)?;
        taps.push(axis_taps(n, at, *size as f64, mode, outside, align)?);
    }
    let mut parts = vec![(None::<Value>, None::<Value>)];
    for (axis, taps) in taps.iter().enumerate() {
        let step: i64 = dims[axis + 1..].iter().product();
        let mut next = vec![];
        for (index, weight) in &parts {
            for (place, share) in taps {
                let place = n.cast(*place, DType::I32)?;
                let place = n.scale(place, step as f64)?;
                let index = match index {
                    None => place,
                    Some(index) => n.add(*index, place)?,
                };
                let weight = match weight {
                    None => *share,
                    Some(weight) => n.mul(*weight, *share)?,
                };
                next.push((Some(index), Some(weight)));
            }
        }
        parts = next;
    }
    let mut sum: Option<Value> = None;
    for (index, weight) in parts {
        let (Some(index), Some(weight)) = (index, weight) else { continue };
        let picked = gather_places(n, flat, index)?;
        let weight = n.expand_dims(weight, &[1])?;
        let float = n.dtype(picked)?;
        let weight = n.cast(weight, float)?;
        let part = n.mul(picked, weight)?;
        sum = Some(match sum {
            None => part,
            Some(sum) => n.add(sum, part)?,
        });
    }
    let y = sum.ok_or(LowerError::Poisoned)?;
    let y = n.reshape(y, &wanted)?;
    let y = n.cast(y, dtype)?;
    n.done(y)
}

/// `x[b, c, indices[b, p]]`.
pub(super) fn gather_places(n: &mut Lower<'_>, x: Value, indices: Value) -> Result<Value, LowerError> {
    if n.opset() >= Opset::Ios16 {
        return n.op(ops::Gather { x, indices, axis: 2, batch_dims: 1, validate_indices: false });
    }
    let indices = n.expand_dims(indices, &[1])?;
    let shape = n.sizes_exactly(&[Size::Of(x, 0), Size::Of(x, 1), Size::Of(indices, 2)])?;
    let indices = n.broadcast_to(indices, shape)?;
    n.op(ops::GatherAlongAxis { x, indices, axis: 2, validate_indices: false })
}

/// The place among `size` pixels that a coordinate in `-1..=1` means.
fn pixel(n: &mut Lower<'_>, at: Value, size: f64, align: bool) -> Result<Value, LowerError> {
    let at = n.add_number(at, 1.0)?;
    if align {
        return n.scale(at, (size - 1.0) / 2.0);
    }
    let at = n.scale(at, size / 2.0)?;
    n.add_number(at, -0.5)
}

/// The pixels that the places `at` are mixed of along an axis, and how much of each.
pub(super) fn axis_taps(
    n: &mut Lower<'_>,
    at: Value,
    size: f64,
    mode: Mode,
    outside: Outside,
    align: bool,
) -> Result<Vec<(Value, Value)>, LowerError> {
    let weighted = match mode {
        Mode::Nearest => {
            let place = n.op(ops::Round { x: at })?;
            let one = n.scale(at, 0.0)?;
            vec![(place, n.add_number(one, 1.0)?)]
        }
        Mode::Linear | Mode::Cubic => {
            let low = n.op(ops::Floor { x: at })?;
            let part = n.sub(at, low)?;
            let one = n.scalar_like(part, 1.0)?;
            let rest = n.sub(one, part)?;
            let steps = if mode == Mode::Linear {
                vec![(0.0, rest), (1.0, part)]
            } else {
                let (beyond, after) = (n.add_number(part, 1.0)?, n.add_number(rest, 1.0)?);
                let near = [1.25, -2.25, 0.0, 1.0];
                let far = [-0.75, 3.75, -6.0, 3.0];
                vec![
                    (-1.0, polynomial(n, beyond, far)?),
                    (0.0, polynomial(n, part, near)?),
                    (1.0, polynomial(n, rest, near)?),
                    (2.0, polynomial(n, after, far)?),
                ]
            };
            let mut out = vec![];
            for (step, weight) in steps {
                out.push((n.add_number(low, step)?, weight));
            }
            out
        }
    };
    let mut out = vec![];
    for (place, weight) in weighted {
        let (zero, last) = (n.scalar_like(place, 0.0)?, n.scalar_like(place, size - 1.0)?);
        let inner = match outside {
            Outside::Reflection => reflected(n, place, size, align)?,
            Outside::Zeros | Outside::Border => place,
        };
        let inner = n.maximum(inner, zero)?;
        let inner = n.minimum(inner, last)?;
        let weight = if outside == Outside::Zeros {
            let same = n.equal(inner, place)?;
            n.select(same, weight, zero)?
        } else {
            weight
        };
        out.push((inner, weight));
    }
    Ok(out)
}

/// `((k0 x + k1) x + k2) x + k3`.
fn polynomial(n: &mut Lower<'_>, x: Value, k: [f64; 4]) -> Result<Value, LowerError> {
    let mut y = n.scale(x, k[0])?;
    y = n.add_number(y, k[1])?;
    y = n.mul(y, x)?;
    if k[2] != 0.0 {
        y = n.add_number(y, k[2])?;
    }
    y = n.mul(y, x)?;
    n.add_number(y, k[3])
}

/// Mirrors places at the middles of the border pixels, or at their outer edges.
fn reflected(n: &mut Lower<'_>, at: Value, size: f64, align: bool) -> Result<Value, LowerError> {
    let (first, span) = if align { (0.0, size - 1.0) } else { (-0.5, size) };
    if span <= 0.0 {
        return n.scale(at, 0.0);
    }
    let from = n.add_number(at, -first)?;
    let turns = n.scale(from, 1.0 / (2.0 * span))?;
    let whole = n.op(ops::Floor { x: turns })?;
    let whole = n.scale(whole, 2.0 * span)?;
    let there = n.sub(from, whole)?;
    let back = n.scale(there, -1.0)?;
    let back = n.add_number(back, 2.0 * span)?;
    let folded = n.minimum(there, back)?;
    n.add_number(folded, first)
}

fn affine_grid(n: &mut Lower<'_>) -> Lowered {
    let align = n.flag("align_corners", false)?;
    let (theta, size) = (n.input(0)?, n.input(1)?);
    n.numeric(theta)?;
    let count = n.elements(size)?.len();
    let Some(spatial) = count.checked_sub(2).filter(|s| (1..=3).contains(s)) else {
        return Err(LowerError::form(format!("a grid of {count} axes")));
    };
    let dims: Vec<i64> = (1..=spatial as i64).collect();
    let mut whole = vec![];
    for i in 0..spatial {
        whole.push(n.element(size, i + 2)?);
    }
    let whole = n.concat(whole, 0)?;
    let mut parts = vec![];
    for axis in (0..spatial).rev() {
        let end = n.element(size, axis + 2)?;
        let end = n.squeeze(end, &[0])?;
        let (start, step) = (n.const_int(0)?, n.const_int(1)?);
        let i = n.op(ops::Range1d { end, start, step })?;
        let (i, end) = (n.cast(i, DType::F32)?, n.cast(end, DType::F32)?);
        let at = if align {
            let last = n.add_number(end, -1.0)?;
            let one = n.scalar_like(last, 1.0)?;
            let last = n.maximum(last, one)?;
            let double = n.scale(i, 2.0)?;
            n.div(double, last)?
        } else {
            let double = n.scale(i, 2.0)?;
            let middle = n.add_number(double, 1.0)?;
            n.div(middle, end)?
        };
        let at = n.add_number(at, -1.0)?;
        let after: Vec<i64> = (1..(spatial - axis) as i64).collect();
        let at = n.expand_dims(at, &after)?;
        let at = n.broadcast_to(at, whole)?;
        parts.push(n.reshape_to(at, &[-1, 1])?);
    }
    let ones = n.scale(parts[0], 0.0)?;
    parts.push(n.add_number(ones, 1.0)?);
    let base = n.concat(parts, 1)?;
    let dtype = n.dtype(theta)?;
    let base = n.cast(base, dtype)?;
    let base = n.expand_dims(base, &[0])?;
    let grid = n.matmul(base, theta, false, true)?;
    let (batch, last) = (n.sizes_exactly(&[Size::Of(theta, 0)])?, n.const_ints(&[dims.len() as i64])?);
    let shape = n.concat(vec![batch, whole, last], 0)?;
    n.emit(ops::Reshape { x: grid, shape })
}

fn roi_align(n: &mut Lower<'_>, half_pixel: bool) -> Lowered {
    let mean = match n.str_or("mode", "avg")? {
        "avg" => true,
        "max" => false,
        _ => return n.bad_attr("mode", "`avg` or `max`"),
    };
    let (height, width) = (n.int_or("output_height", 1)?, n.int_or("output_width", 1)?);
    let (ratio, scale) = (n.int_or("sampling_ratio", 0)?, f64::from(n.float_or("spatial_scale", 1.0)?));
    if ratio <= 0 {
        return Err(LowerError::not_yet("a `sampling_ratio` that depends on the boxes"));
    }
    if [height, width, ratio].iter().any(|v| !(1..=1024).contains(v)) {
        return Err(LowerError::form(format!("a result of {height} by {width}")));
    }
    let (x, boxes, batch) = (n.input(0)?, n.input(1)?, n.input(2)?);
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
    let y = n.transpose(pooled, &[1, 0, 2, 3])?;
    n.done(y)
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
