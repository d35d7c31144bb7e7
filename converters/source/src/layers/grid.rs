//! Reading images at computed places.

use crate::{Lower, LowerError, Size};
use mlconv_mil::{
    ir::Value,
    ops::{self, CoordinatesMode, PaddingMode, ResampleMode},
    schema::Opset,
};
use mlconv_tensor::DType;

/// How values between pixels are found.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    /// From the nearest one.
    Nearest,
    /// On the line between two.
    Linear,
    /// On a cubic of four.
    Cubic,
}

/// What lies outside of images.
#[derive(Clone, Copy, PartialEq)]
pub enum Outside {
    /// Zeros.
    Zeros,
    /// The pixels of the border.
    Border,
    /// The image, mirrored.
    Reflection,
}

/// What images hold at the places that `grid` says, in coordinates from -1 to 1.
pub fn sampled(
    n: &mut Lower<'_>,
    [x, grid]: [Value; 2],
    mode: Mode,
    outside: Outside,
    align_corners: bool,
) -> Result<Value, LowerError> {
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
    n.in_float(x, |n, x| {
        n.op(ops::Resample {
            x,
            coordinates,
            sampling_mode,
            padding_mode,
            padding_value: 0.0,
            coordinates_mode: CoordinatesMode::MinusOneToOne,
            align_corners,
        })
    })
}

/// Samples by arithmetic, along any number of axes.
fn sample(
    n: &mut Lower<'_>,
    x: Value,
    grid: Value,
    mode: Mode,
    outside: Outside,
    align: bool,
) -> Result<Value, LowerError> {
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
    n.cast(y, dtype)
}

/// `x[b, c, indices[b, p]]`.
pub fn gather_places(n: &mut Lower<'_>, x: Value, indices: Value) -> Result<Value, LowerError> {
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
pub fn axis_taps(
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

/// The grid of places, in coordinates from -1 to 1, that the maps `theta` make of an image of the sizes `size`.
pub fn affine(n: &mut Lower<'_>, theta: Value, size: Value, align: bool) -> Result<Value, LowerError> {
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
    n.op(ops::Reshape { x: grid, shape })
}
