//! Resizes an axis, by the op of Core ML that does the same, by picking elements, or by a product with a matrix.

use super::{
    How, Line,
    calc::{Calc, Plain},
    places::{Coordinates, Kernel, Rounding, antialiased, cubic, cubic_far, cubic_near, nearest, places, taps},
};
use crate::{Lower, LowerError};
use mlconv_mil::{
    ir::Value,
    ops::{self, SamplingMode},
    schema::Opset,
};
use mlconv_tensor::{DType, Tensor};

type Result<T> = std::result::Result<T, LowerError>;

/// One axis that is resized.
pub(super) struct Resized {
    pub(super) axis: usize,
    pub(super) size: usize,
    pub(super) count: usize,
    pub(super) width: f64,
    pub(super) scale: f64,
    pub(super) crop: Option<(f64, f64)>,
}

/// Elements of a matrix beyond which an axis is too long to be resized by one.
const MAX_MATRIX: usize = 1 << 26;

pub(super) fn resized(n: &mut Lower<'_>, x: Value, how: &How, lines: &[Resized]) -> Result<Value> {
    if lines.is_empty() {
        return Ok(x);
    }
    let grids: Vec<(&Resized, Vec<f64>)> = lines.iter().map(|l| Ok((l, l.places(how)?))).collect::<Result<_>>()?;
    if let Some(y) = image_op(n, x, how, &grids)? {
        return Ok(y);
    }
    let whole = !n.dtype(x)?.is_float();
    let mut y = x;
    if whole && !matches!(how.kernel, Kernel::Nearest(_)) {
        y = n.cast(x, DType::F32)?;
    }
    for (line, at) in &grids {
        y = line.resize(n, y, how, at)?;
    }
    let dtype = n.dtype(x)?;
    n.cast(y, dtype)
}

impl Resized {
    fn line(&self) -> Line<Vec<f64>> {
        let one = |x: f64| vec![x];
        Line {
            size: one(self.size as f64),
            count: one(self.count as f64),
            width: one(self.width),
            scale: one(self.scale),
            crop: self.crop.map(|(start, end)| (one(start), one(end))),
        }
    }

    /// Where the new elements lie on the axis; for the nearest ones, which they are.
    fn places(&self, how: &How) -> Result<Vec<f64>> {
        let i: Vec<f64> = (0..self.count).map(|i| i as f64).collect();
        let mut at = places(&mut Plain, how.coordinates, &self.line(), &i)?;
        at.resize(self.count, at.last().copied().unwrap_or(0.0));
        Ok(at)
    }

    fn resize(&self, n: &mut Lower<'_>, x: Value, how: &How, at: &[f64]) -> Result<Value> {
        let y = match how.kernel {
            Kernel::Nearest(rounding) => {
                let picked = nearest(&mut Plain, rounding, &self.line(), &at.to_vec())?;
                n.gather_at(x, self.axis, &picked.iter().map(|p| *p as i64).collect::<Vec<_>>())?
            }
            Kernel::Linear { .. } | Kernel::Cubic { .. } => {
                if self.size.saturating_mul(self.count) > MAX_MATRIX {
                    return Err(LowerError::form(format!("resizing {} elements to {}", self.size, self.count)));
                }
                n.affords(self.size * self.count)?;
                let weights = self.weights(how, at)?;
                let dtype = n.dtype(x)?;
                let matrix = n.add_const(Tensor::from_f64(dtype, &[self.count, self.size], &weights))?;
                along(n, x, self.axis, matrix)?
            }
        };
        if how.coordinates != Coordinates::Crop {
            return Ok(y);
        }
        let inside: Vec<bool> = at.iter().map(|p| (0.0..=self.size as f64 - 1.0).contains(p)).collect();
        if inside.iter().all(|i| *i) {
            return Ok(y);
        }
        let mut shape = vec![1; n.rank(y)?];
        shape[self.axis] = self.count;
        let (mask, outside) =
            (n.add_const(Tensor::from_bools(&shape, inside))?, n.scalar_like(y, f64::from(how.extrapolation))?);
        n.select(mask, y, outside)
    }

    /// `weights[new * size + old]`.
    fn weights(&self, how: &How, at: &[f64]) -> Result<Vec<f64>> {
        let line =
            Line { size: self.size as f64, count: self.count as f64, width: self.width, scale: self.scale, crop: None };
        let a = match how.kernel {
            Kernel::Linear { antialias: true } => {
                let tent = |x: f64| (1.0 - x.abs()).clamp(0.0, 1.0);
                return Ok(antialiased(tent, 1.0, &line, how.exclude_outside, at));
            }
            Kernel::Cubic { a, antialias: true } => {
                return Ok(antialiased(|x| cubic(a, x), 2.0, &line, how.exclude_outside, at));
            }
            Kernel::Cubic { a, antialias: false } => Some(a),
            Kernel::Linear { antialias: false } | Kernel::Nearest(_) => None,
        };
        let mut weights = vec![0.0; self.count * self.size];
        for (picked, weight) in taps(&mut Plain, a, how.exclude_outside, &self.line(), &at.to_vec())? {
            for (i, (old, weight)) in picked.iter().zip(&weight).enumerate() {
                weights[i * self.size + *old as usize] += weight;
            }
        }
        Ok(weights)
    }
}

/// Taps of an antialiased axis beyond which it is not resized by a computed matrix.
const MAX_TAPS: i64 = 1 << 22;

/// A matrix `[new, old]` of antialiased weights for an axis of known sizes, `(old, new)`, whose scale is only known when
/// the program runs; as [`antialiased`].
fn open_matrix(n: &mut Lower<'_>, how: &How, line: &Line<Value>, (size, count): (i64, i64)) -> Result<Value> {
    let (reach, a) = match how.kernel {
        Kernel::Cubic { a, .. } => (2.0, Some(a)),
        Kernel::Linear { .. } | Kernel::Nearest(_) => (1.0, None),
    };
    let refuse = || LowerError::not_yet(format!("antialiasing {size} elements to {count}"));
    if !(1..=MAX_TAPS).contains(&size) || !(1..=MAX_TAPS).contains(&count) {
        return Err(refuse());
    }
    // The new size is the old one times the scale, rounded down: the scale is no less than their ratio.
    let least = (count as f64 / size as f64).min(1.0);
    let start = (-reach / least).floor() as i64 + 1;
    let taps = (2 - 2 * start).max(2);
    taps.checked_mul(count).and_then(|n| n.checked_mul(size)).filter(|n| *n <= MAX_TAPS).ok_or_else(refuse)?;
    let numbers = |n: &mut Lower<'_>, range: std::ops::Range<i64>| {
        let values: Vec<f64> = range.map(|i| i as f64).collect();
        n.add_const(Tensor::from_f64(DType::F32, &[values.len()], &values))
    };
    let (zero, one) = (n.const_scalar(DType::F32, 0.0)?, n.const_scalar(DType::F32, 1.0)?);
    let i = numbers(n, 0..count)?;
    let at = places(n, how.coordinates, line, &i)?;
    let low = Calc::ceil(n, &at)?;
    let low = n.add_number(low, -1.0)?;
    let part = n.sub(at, low)?;
    let (low, part) = (n.expand_dims(low, &[1])?, n.expand_dims(part, &[1])?);
    let steps = numbers(n, start..start + taps)?;
    let scale = n.minimum(line.scale, one)?;
    let distance = n.sub(steps, part)?;
    let distance = n.mul(distance, scale)?;
    let distance = n.abs(distance)?;
    let mut weights = match a {
        None => {
            let tent = n.sub(one, distance)?;
            n.maximum(tent, zero)?
        }
        Some(a) => {
            let two = n.const_scalar(DType::F32, 2.0)?;
            let (near, far) = (cubic_near(n, a, &distance)?, cubic_far(n, a, &distance)?);
            let outer = Calc::where_less(n, &distance, &two, &far, &zero)?;
            Calc::where_less(n, &one, &distance, &outer, &near)?
        }
    };
    let share = |n: &mut Lower<'_>, weights: Value| {
        let sum = n.sum_over(weights, &[1])?;
        n.div(weights, sum)
    };
    weights = share(n, weights)?;
    let (place, last) = (Lower::add(n, low, steps)?, n.const_scalar(DType::F32, size as f64 - 1.0)?);
    if how.exclude_outside {
        let inside = Calc::where_less(n, &place, &zero, &zero, &weights)?;
        let inside = Calc::where_less(n, &last, &place, &zero, &inside)?;
        weights = share(n, inside)?;
    }
    let place = Calc::clamp(n, &place, &zero, &last)?;
    let (place, old) = (n.expand_dims(place, &[2])?, numbers(n, 0..size)?);
    let hit = n.equal(place, old)?;
    let weights = n.expand_dims(weights, &[2])?;
    let spread = n.select(hit, weights, zero)?;
    n.op(ops::ReduceSum { x: spread, axes: Some(vec![1]), keep_dims: false })
}

/// Multiplies the vectors along an axis with a matrix `[new, old]`.
pub fn along(n: &mut Lower<'_>, x: Value, axis: usize, matrix: Value) -> Result<Value> {
    let rank = n.rank(x)?;
    if rank == 1 {
        let row = n.expand_dims(x, &[0])?;
        let y = n.matmul(row, matrix, false, true)?;
        return n.squeeze(y, &[0]);
    }
    if axis + 1 == rank {
        return n.matmul(x, matrix, false, true);
    }
    if axis + 2 == rank {
        return n.matmul(matrix, x, false, false);
    }
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(axis, rank - 1);
    let last = n.permute(x, &perm)?;
    let y = n.matmul(last, matrix, false, true)?;
    n.permute(y, &perm)
}

/// Resizes height and width by an op that does just that, where there is one.
fn image_op(n: &mut Lower<'_>, x: Value, how: &How, grids: &[(&Resized, Vec<f64>)]) -> Result<Option<Value>> {
    let rank = n.rank(x)?;
    let plane = rank >= 3 && grids.iter().all(|(l, _)| l.axis + 2 >= rank);
    if !plane || !n.dtype(x)?.is_float() || how.coordinates == Coordinates::Crop {
        return Ok(None);
    }
    let of = |axis: usize| grids.iter().find(|(l, _)| l.axis == axis);
    let shape = n.shape(x)?;
    match how.kernel {
        Kernel::Nearest(rounding) => {
            let mut factors = [1.0; 2];
            for (factor, axis) in factors.iter_mut().zip([rank - 2, rank - 1]) {
                let Some((line, at)) = of(axis) else { continue };
                let picked = nearest(&mut Plain, rounding, &line.line(), at)?;
                let times = line.count / line.size;
                if line.count % line.size != 0 || (0..line.count).any(|i| picked[i] != (i / times) as f64) {
                    return Ok(None);
                }
                *factor = times as f32;
            }
            let [scale_factor_height, scale_factor_width] = factors;
            n.op(ops::UpsampleNearestNeighbor { x, scale_factor_height, scale_factor_width }).map(Some)
        }
        Kernel::Linear { antialias: false } if !how.exclude_outside => {
            let modes = [SamplingMode::UnalignCorners, SamplingMode::StrictAlignCorners, SamplingMode::Default];
            let fits = |mode: &SamplingMode| {
                grids.iter().all(|(line, at)| {
                    let last = line.size as f64 - 1.0;
                    at.iter().enumerate().all(|(i, place)| {
                        let same = mode.place(i, line.count, 0.0, last);
                        (place.clamp(0.0, last) - same).abs() < 1e-5
                    })
                })
            };
            let Some(sampling_mode) = modes.into_iter().find(fits) else { return Ok(None) };
            let size = |axis: usize| of(axis).map(|(l, _)| l.count as i64).or(shape[axis].as_known());
            let (Some(h), Some(w)) = (size(rank - 2), size(rank - 1)) else { return Ok(None) };
            n.op(ops::ResizeBilinear { x, target_size_height: h, target_size_width: w, sampling_mode }).map(Some)
        }
        Kernel::Linear { .. } | Kernel::Cubic { .. } => Ok(None),
    }
}

/// Resizes height and width, of open sizes, by factors, where an op does just that.
pub(super) fn scaled(n: &mut Lower<'_>, x: Value, how: &How, scales: &[(usize, f64)]) -> Result<Option<Value>> {
    let rank = n.rank(x)?;
    let plane = rank >= 3 && scales.iter().all(|(axis, _)| axis + 2 >= rank);
    if !plane || !n.dtype(x)?.is_float() {
        return Ok(None);
    }
    let factor = |axis: usize| scales.iter().find(|(a, _)| *a == axis).map_or(1.0, |(_, s)| *s);
    let (h, w) = (factor(rank - 2), factor(rank - 1));
    let whole = h >= 1.0 && w >= 1.0 && h.fract() == 0.0 && w.fract() == 0.0;
    if !whole {
        return Ok(None);
    }
    let (scale_factor_height, scale_factor_width) = (h as f32, w as f32);
    let half_pixel = matches!(
        how.coordinates,
        Coordinates::HalfPixel | Coordinates::HalfPixelSymmetric | Coordinates::PytorchHalfPixel
    );
    match how.kernel {
        Kernel::Nearest(rounding) => {
            // Where each element is repeated, places round to it from both sides.
            let repeats = match rounding {
                Rounding::Floor | Rounding::Outward => how.coordinates == Coordinates::Asymmetric,
                Rounding::PreferFloor | Rounding::PreferCeil => half_pixel,
                Rounding::Ceil => false,
            };
            if !repeats {
                return Ok(None);
            }
            n.op(ops::UpsampleNearestNeighbor { x, scale_factor_height, scale_factor_width }).map(Some)
        }
        Kernel::Linear { antialias: _ } if !how.exclude_outside => {
            let (align_corners, half_pixel_centers) = match how.coordinates {
                Coordinates::AlignCorners => (true, false),
                _ if half_pixel => (false, true),
                Coordinates::Asymmetric if n.opset() >= Opset::Ios16 => (false, false),
                _ => return Ok(None),
            };
            let half_pixel_centers = (n.opset() >= Opset::Ios16).then_some(half_pixel_centers);
            n.op(ops::UpsampleBilinear {
                x,
                scale_factor_height,
                scale_factor_width,
                align_corners,
                half_pixel_centers,
            })
            .map(Some)
        }
        Kernel::Linear { .. } | Kernel::Cubic { .. } => Ok(None),
    }
}

/// Resizes an axis by numbers that are known when the program runs.
pub(super) fn resized_open(n: &mut Lower<'_>, x: Value, how: &How, axis: usize, line: Line<Value>) -> Result<Value> {
    let whole = |n: &mut Lower<'_>, v: Value| n.cast(v, DType::I32);
    let (zero, one) = (n.const_int(0)?, n.const_int(1)?);
    let end = whole(n, line.count)?;
    let i = n.op(ops::Range1d { end, start: zero, step: one })?;
    let i = n.cast(i, DType::F32)?;
    let at = places(n, how.coordinates, &line, &i)?;
    let rank = n.rank(x)?;
    let others: Vec<i64> = (0..rank as i64).filter(|a| *a != axis as i64).collect();
    let y = match how.kernel {
        Kernel::Nearest(rounding) => {
            let picked = nearest(n, rounding, &line, &at)?;
            let picked = whole(n, picked)?;
            n.gather(x, picked, axis)?
        }
        Kernel::Linear { antialias: true } | Kernel::Cubic { antialias: true, .. } => {
            let size = n.shape(x)?[axis].as_known();
            let count = n.stated_sizes(0).filter(|s| s.len() == rank).and_then(|s| s.get(axis).copied());
            let (Some(size), Some(count)) = (size, count) else {
                return Err(LowerError::not_yet("antialiasing to sizes that are not known"));
            };
            let matrix = open_matrix(n, how, &line, (size, count))?;
            n.in_float(x, |n, x| {
                let dtype = n.dtype(x)?;
                let matrix = n.cast(matrix, dtype)?;
                along(n, x, axis, matrix)
            })?
        }
        Kernel::Linear { antialias: false } | Kernel::Cubic { antialias: false, .. } => {
            let a = if let Kernel::Cubic { a, .. } = how.kernel { Some(a) } else { None };
            let mixed = taps(n, a, how.exclude_outside, &line, &at)?;
            n.in_float(x, |n, x| {
                let dtype = n.dtype(x)?;
                let mut sum: Option<Value> = None;
                for (picked, weight) in mixed {
                    let picked = whole(n, picked)?;
                    let part = n.gather(x, picked, axis)?;
                    let weight = n.expand_dims(weight, &others)?;
                    let weight = n.cast(weight, dtype)?;
                    let part = n.mul(part, weight)?;
                    sum = Some(match sum {
                        None => part,
                        Some(sum) => Lower::add(n, sum, part)?,
                    });
                }
                sum.ok_or(LowerError::Poisoned)
            })?
        }
    };
    if how.coordinates != Coordinates::Crop {
        return Ok(y);
    }
    let last = n.add_number(line.size, -1.0)?;
    let zero = n.const_scalar(DType::F32, 0.0)?;
    let (before, after) = (n.less(at, zero)?, n.less(last, at)?);
    let outside = n.op(ops::LogicalOr { x: before, y: after })?;
    let outside = n.expand_dims(outside, &others)?;
    let value = n.scalar_like(y, f64::from(how.extrapolation))?;
    n.select(outside, value, y)
}
