//! Convolutions that read at computed places.

use super::{
    convolution::{Window, add_bias, spatial_sizes},
    grid::{Mode, Outside, axis_taps, gather_places},
};
use crate::{Lower, LowerError};
use mlconv_mil::ir::Value;
use mlconv_tensor::DType;

/// A deformable convolution.
pub struct Deformed {
    /// The weight.
    pub weight: Value,
    /// By how much each element of each window lies elsewhere.
    pub offset: Value,
    /// One number per channel.
    pub bias: Option<Value>,
    /// What each element of each window is multiplied by.
    pub mask: Option<Value>,
    /// How windows slide over the image.
    pub window: Window,
    /// Groups of channels that have weights of their own.
    pub groups: i64,
    /// Groups of channels that have places of their own.
    pub offset_groups: i64,
}

/// Each element of each window is read at its own place, an offset away; then a product with the weight is left.
pub fn deformed(n: &mut Lower<'_>, x: Value, how: Deformed) -> Result<Value, LowerError> {
    let Deformed { weight, offset, bias, mask, window, groups, offset_groups } = how;
    let sizes = spatial_sizes(n, x)?;
    let shape = n.fixed_shape(x, "where elements lie")?;
    let of_weight = n.fixed_shape(weight, "the kernel")?;
    let ([batch, channels, _, _], [filters, ..]) = (&shape[..], &of_weight[..]) else {
        return Err(LowerError::form(format!("a deformable convolution of {}", n.ty(x)?)));
    };
    let (batch, channels, filters) = (*batch, *channels, *filters);
    let even = |count: i64, by: i64| by > 0 && count % by == 0;
    if !even(channels, groups) || !even(filters, groups) || !even(channels, offset_groups) {
        return Err(LowerError::form(format!("{channels} channels in {groups} and {offset_groups} groups")));
    }
    let product = |sizes: &[i64]| {
        let all = sizes.iter().try_fold(1i64, |n, d| n.checked_mul(*d)).filter(|n| *n < 1 << 28);
        all.ok_or_else(|| LowerError::form(format!("a product of the sizes {sizes:?}")))
    };
    let taps = product(&window.kernel)?;
    let pads = window.pads(&sizes);
    let of_offset = n.fixed_shape(offset, "where elements are read")?;
    let &[_, _, rows, columns] = of_offset.as_slice() else {
        return Err(LowerError::form(format!("offsets in {}", n.ty(offset)?)));
    };
    let windows = product(&[rows, columns])?;
    let places = product(&[taps, windows])?;
    // Groups that are read at the same places are images of their own.
    let images = product(&[batch, offset_groups])?;
    let area = product(&sizes)?;
    if of_offset != [batch, product(&[offset_groups, taps, 2])?, rows, columns] {
        return Err(LowerError::form(format!("offsets in {}", n.ty(offset)?)));
    }
    let dtype = n.dtype(x)?;
    let flat = n.reshape_to(x, &[images, channels / offset_groups, area])?;
    let offset = n.cast(offset, DType::F32)?;
    let offset = n.reshape_to(offset, &[images, taps, 2, windows])?;
    let mut along = vec![];
    for axis in 0..2 {
        n.affords(usize::try_from(places).unwrap_or(usize::MAX))?;
        let at = undeformed(&window, axis, [rows, columns], pads[axis].0);
        let at = n.const_like(offset, &[1, taps as usize, windows as usize], &at)?;
        let moved = n.slice(offset, 2, axis as i64, Some(axis as i64 + 1))?;
        let moved = n.squeeze(moved, &[2])?;
        let at = n.add(at, moved)?;
        let at = n.reshape_to(at, &[images, places])?;
        along.push(axis_taps(n, at, sizes[axis] as f64, Mode::Linear, Outside::Zeros, false)?);
    }
    let mut read: Option<Value> = None;
    for (row, row_share) in &along[0] {
        for (column, column_share) in &along[1] {
            let (row, column) = (n.cast(*row, DType::I32)?, n.cast(*column, DType::I32)?);
            let row = n.scale(row, sizes[1] as f64)?;
            let place = n.add(row, column)?;
            let share = n.mul(*row_share, *column_share)?;
            let share = n.expand_dims(share, &[1])?;
            let share = n.cast(share, dtype)?;
            let picked = gather_places(n, flat, place)?;
            let part = n.mul(picked, share)?;
            read = Some(match read {
                None => part,
                Some(sum) => n.add(sum, part)?,
            });
        }
    }
    let mut read = read.ok_or(LowerError::Poisoned)?;
    if let Some(mask) = mask {
        let mask = n.reshape_to(mask, &[images, 1, places])?;
        read = n.mul(read, mask)?;
    }
    let depth = product(&[channels / groups, taps])?;
    let read = n.reshape_to(read, &[batch, groups, depth, windows])?;
    let weight = n.reshape_to(weight, &[1, groups, filters / groups, depth])?;
    let y = n.matmul(weight, read, false, false)?;
    let y = n.reshape_to(y, &[batch, filters, rows, columns])?;
    match bias {
        Some(bias) => add_bias(n, y, bias),
        None => Ok(y),
    }
}

/// Where along `axis` the elements of the windows lie without offsets, `[taps, windows]`.
fn undeformed(window: &Window, axis: usize, counts: [i64; 2], pad: i64) -> Vec<f64> {
    let (rows, columns) = (window.kernel[0], window.kernel[1]);
    let mut out = vec![];
    for tap in (0..rows).flat_map(|r| (0..columns).map(move |c| [r, c])) {
        for at in (0..counts[0]).flat_map(|r| (0..counts[1]).map(move |c| [r, c])) {
            let place =
                at[axis] as f64 * window.strides[axis] as f64 + tap[axis] as f64 * window.dilations[axis] as f64;
            out.push(place - pad as f64);
        }
    }
    out
}
