//! Resizing by interpolation, one axis after the other.

mod apply;
mod calc;
mod places;

use crate::{Lower, LowerError, Size};
pub use apply::along;
use apply::{Resized, resized};
use calc::Calc;
use mlconv_mil::ir::Value;
use mlconv_tensor::{DType, Tensor};
pub use places::{Coordinates, Kernel, Rounding};

/// How values between elements are found.
pub struct How {
    /// How they are mixed.
    pub kernel: Kernel,
    /// Where they lie.
    pub coordinates: Coordinates,
    /// Whether places outside take no part.
    pub exclude_outside: bool,
    /// What lies outside, where a part is taken.
    pub extrapolation: f32,
}

/// What is said of the result's sizes; one number per axis that is resized.
pub enum Target {
    /// What sizes are multiplied by.
    Scales(Value),
    /// What sizes are multiplied by, and what they come to, as the source rounds: all are known.
    Counted(Vec<f64>, Vec<i64>),
    /// The sizes, and what they are to the ratio of the axes.
    Sizes(Value, Policy),
}

/// What becomes of the ratio of the axes.
#[derive(Clone, Copy, PartialEq)]
pub enum Policy {
    /// It changes.
    Stretch,
    /// It stays, and the sizes are not larger.
    NotLarger,
    /// It stays, and the sizes are not smaller.
    NotSmaller,
}

/// One axis as it is resized, in numbers or values.
struct Line<V> {
    /// Its size.
    size: V,
    /// The new size.
    count: V,
    /// The size that is asked for; the new size is that, rounded.
    width: V,
    scale: V,
    /// The first and last place of the part that is taken, in parts of the axis.
    crop: Option<(V, V)>,
}

/// `x` with `axes` resized; of coordinates that crop, `roi` says what is taken.
pub fn resize_to(
    n: &mut Lower<'_>,
    x: Value,
    how: &How,
    axes: Vec<usize>,
    target: Target,
    roi: Option<Value>,
) -> Result<Value, LowerError> {
    let roi = match (roi, how.coordinates) {
        (None, Coordinates::Crop) => return Err(LowerError::MissingInput { index: 1 }),
        (roi, _) => roi,
    };
    let shape = n.shape(x)?;
    let numbers = |n: &Lower<'_>, v: Value| n.const_of(v).map(Tensor::to_f64).filter(|v| !v.is_empty());
    let crop = match roi {
        None => Some(None),
        Some(roi) => numbers(n, roi).filter(|r| r.len() >= axes.len() * 2).map(Some),
    };
    let fixed: Option<Vec<f64>> = axes.iter().map(|a| shape[*a].as_known().map(|d| d as f64)).collect();
    let asked = match &target {
        Target::Scales(v) => numbers(n, *v),
        Target::Counted(scales, _) => Some(scales.clone()),
        Target::Sizes(v, policy) => {
            let stated = n.stated_sizes(0).filter(|s| *policy == Policy::Stretch && s.len() == shape.rank());
            let of_axes = |sizes: Vec<i64>| axes.iter().filter_map(|a| sizes.get(*a).copied()).collect::<Vec<i64>>();
            let known = n.known_ints(*v).or(stated.map(of_axes));
            known.map(|v| v.iter().map(|i| *i as f64).collect())
        }
    };
    if let Some(asked) = &asked
        && asked.len() != axes.len()
    {
        return Err(LowerError::form(format!("{} numbers for {} axes", asked.len(), axes.len())));
    }
    // An axis of open size that stays as it is does not matter.
    let stays = |i: usize| {
        matches!(&target, Target::Scales(_) | Target::Counted(..)) && asked.as_ref().is_some_and(|a| a[i] == 1.0)
    };
    let mut kept = vec![];
    for (i, axis) in axes.iter().enumerate() {
        if stays(i) && how.coordinates != Coordinates::Crop {
            continue;
        }
        if let Target::Sizes(v, _) = &target
            && n.elements(*v)?.get(i) == Some(&shape[*axis])
            && axes.len() == shape.rank()
            && how.coordinates != Coordinates::Crop
        {
            continue;
        }
        kept.push((i, *axis));
    }
    let known = kept.iter().all(|(_, axis)| shape[*axis].as_known().is_some());
    if let (true, Some(asked), Some(crop)) = (known, &asked, &crop) {
        let lines = known_lines(&axes, &kept, &shape, asked, &target, crop.as_deref(), fixed.as_deref())?;
        return resized(n, x, how, &lines);
    }
    if let (Target::Scales(_), Some(asked)) = (&target, &asked)
        && let Some(y) = apply::scaled(n, x, how, &kept.iter().map(|(i, a)| (*a, asked[*i])).collect::<Vec<_>>())?
    {
        return Ok(y);
    }
    open_resize(n, x, how, &axes, &kept, &target, roi)
}

/// The axes to resize, with all numbers known.
fn known_lines(
    axes: &[usize],
    kept: &[(usize, usize)],
    shape: &mlconv_tensor::Shape,
    asked: &[f64],
    target: &Target,
    crop: Option<&[f64]>,
    fixed: Option<&[f64]>,
) -> Result<Vec<Resized>, LowerError> {
    let mut lines = vec![];
    let ratio = match target {
        Target::Sizes(_, policy) if *policy != Policy::Stretch => {
            let fixed = fixed.ok_or_else(|| LowerError::NotFixed { what: "the ratio".to_owned() })?;
            let ratios = asked.iter().zip(fixed).map(|(a, f)| single(a / f));
            Some(if *policy == Policy::NotLarger {
                ratios.fold(f64::MAX, f64::min)
            } else {
                ratios.fold(0.0, f64::max)
            })
        }
        _ => None,
    };
    for (i, axis) in kept {
        let size = shape[*axis].as_known().unwrap_or(0) as f64;
        let (scale, width, count) = match (target, ratio) {
            (Target::Scales(_), _) => {
                let width = single(asked[*i] * size);
                (asked[*i], width, width.floor())
            }
            (Target::Counted(_, counts), _) => {
                let count = counts.get(*i).map_or(0.0, |count| *count as f64);
                (asked[*i], count, count)
            }
            (Target::Sizes(..), Some(ratio)) => {
                let width = single(ratio * size);
                (ratio, width, single(width + 0.5).floor())
            }
            (Target::Sizes(..), None) => (asked[*i] / size, asked[*i], asked[*i]),
        };
        let sane = scale.is_finite() && scale > 0.0 && count >= 1.0 && count <= f64::from(1 << 24) && size >= 1.0;
        if !sane {
            return Err(LowerError::form(format!("resizing {size} elements by {scale}")));
        }
        let crop = crop.map(|c| (c[*i], c[*i + axes.len()]));
        let same = size == count && (scale - 1.0).abs() < 1e-9 && crop.is_none_or(|c| c == (0.0, 1.0));
        if !same {
            lines.push(Resized { axis: *axis, size: size as usize, count: count as usize, width, scale, crop });
        }
    }
    Ok(lines)
}

/// Rounded to single precision, in which ONNX infers sizes and programs compute them: 0.7 of 10 is 7, not a bit less.
fn single(x: f64) -> f64 {
    f64::from(x as f32)
}

/// Resizes by what is only known when the program runs.
fn open_resize(
    n: &mut Lower<'_>,
    x: Value,
    how: &How,
    axes: &[usize],
    kept: &[(usize, usize)],
    target: &Target,
    roi: Option<Value>,
) -> Result<Value, LowerError> {
    let element = |n: &mut Lower<'_>, v: Value, i: usize| {
        let one = n.element(v, i)?;
        let one = n.squeeze(one, &[0])?;
        n.cast(one, DType::F32)
    };
    let size_of = |n: &mut Lower<'_>, axis: usize| {
        let size = n.sizes_exactly(&[Size::Of(x, axis)])?;
        let size = n.squeeze(size, &[0])?;
        n.cast(size, DType::F32)
    };
    let mut ratio: Option<Value> = None;
    if let Target::Sizes(v, policy @ (Policy::NotLarger | Policy::NotSmaller)) = target {
        for (i, axis) in axes.iter().enumerate() {
            let (asked, size) = (element(n, *v, i)?, size_of(n, *axis)?);
            let own = n.div(asked, size)?;
            ratio = Some(match ratio {
                None => own,
                Some(other) if *policy == Policy::NotLarger => n.minimum(own, other)?,
                Some(other) => n.maximum(own, other)?,
            });
        }
    }
    let mut y = x;
    for (i, axis) in kept {
        let size = size_of(n, *axis)?;
        let (scale, width, count) = match (target, ratio) {
            (Target::Scales(v), _) => {
                let scale = element(n, *v, *i)?;
                let width = n.mul(scale, size)?;
                (scale, width, Calc::floor(n, &width)?)
            }
            (Target::Counted(..), _) => return Err(LowerError::NotFixed { what: "what is resized".to_owned() }),
            (Target::Sizes(..), Some(ratio)) => {
                let width = n.mul(ratio, size)?;
                let count = n.add_number(width, 0.5)?;
                (ratio, width, Calc::floor(n, &count)?)
            }
            (Target::Sizes(v, _), None) => {
                let count = element(n, *v, *i)?;
                (n.div(count, size)?, count, count)
            }
        };
        let crop = match roi {
            None => None,
            Some(roi) => Some((element(n, roi, *i)?, element(n, roi, *i + axes.len())?)),
        };
        y = apply::resized_open(n, y, how, *axis, Line { size, count, width, scale, crop })?;
    }
    Ok(y)
}
