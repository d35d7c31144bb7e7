//! Resizing, and reading images at computed places.

use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Lower, LowerError, Lowered, Size,
    layers::{
        grid::{Mode, Outside, affine, sampled},
        resize::{Coordinates, How, Kernel, Policy, Rounding, Target, resize_to},
    },
};
use mlconv_tensor::{DType, Tensor};

aten! {
    "upsample_nearest1d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor", "upsample_nearest2d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor",
    "upsample_nearest3d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor" => |n| upsample(n, "input", Kernel::Nearest(Rounding::Floor), Coordinates::Asymmetric);
    "upsample_nearest1d(Tensor self, SymInt[1] output_size, float? scales=None) -> Tensor", "upsample_nearest2d(Tensor self, SymInt[2] output_size, float? scales_h=None, float? scales_w=None) -> Tensor",
    "upsample_nearest3d(Tensor self, SymInt[3] output_size, float? scales_d=None, float? scales_h=None, float? scales_w=None) -> Tensor" => |n| upsample(n, "self", Kernel::Nearest(Rounding::Floor), Coordinates::Asymmetric);
    "_upsample_nearest_exact1d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor", "_upsample_nearest_exact2d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor",
    "_upsample_nearest_exact3d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor" => |n| upsample(n, "input", Kernel::Nearest(Rounding::Floor), Coordinates::HalfPixelForNearest);
    "_upsample_nearest_exact1d(Tensor self, SymInt[1] output_size, float? scales=None) -> Tensor", "_upsample_nearest_exact2d(Tensor self, SymInt[2] output_size, float? scales_h=None, float? scales_w=None) -> Tensor",
    "_upsample_nearest_exact3d(Tensor self, SymInt[3] output_size, float? scales_d=None, float? scales_h=None, float? scales_w=None) -> Tensor" => |n| upsample(n, "self", Kernel::Nearest(Rounding::Floor), Coordinates::HalfPixelForNearest);
    "upsample_linear1d.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor", "upsample_bilinear2d.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor",
    "upsample_trilinear3d.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor" => |n| upsample_aligned(n, "input", Kernel::Linear { antialias: false });
    "upsample_linear1d(Tensor self, SymInt[1] output_size, bool align_corners, float? scales=None) -> Tensor", "upsample_bilinear2d(Tensor self, SymInt[2] output_size, bool align_corners, float? scales_h=None, float? scales_w=None) -> Tensor",
    "upsample_trilinear3d(Tensor self, SymInt[3] output_size, bool align_corners, float? scales_d=None, float? scales_h=None, float? scales_w=None) -> Tensor" => |n| upsample_aligned(n, "self", Kernel::Linear { antialias: false });
    "upsample_bicubic2d.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor" => |n| upsample_aligned(n, "input", Kernel::Cubic { a: -0.75, antialias: false });
    "upsample_bicubic2d(Tensor self, SymInt[2] output_size, bool align_corners, float? scales_h=None, float? scales_w=None) -> Tensor" => |n| upsample_aligned(n, "self", Kernel::Cubic { a: -0.75, antialias: false });
    "_upsample_bilinear2d_aa.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor" => |n| upsample_aligned(n, "input", Kernel::Linear { antialias: true });
    "_upsample_bilinear2d_aa(Tensor self, SymInt[2] output_size, bool align_corners, float? scales_h=None, float? scales_w=None) -> Tensor" => |n| upsample_aligned(n, "self", Kernel::Linear { antialias: true });
    "_upsample_bicubic2d_aa.vec(Tensor input, SymInt[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor" => |n| upsample_aligned(n, "input", Kernel::Cubic { a: -0.5, antialias: true });
    "_upsample_bicubic2d_aa(Tensor self, SymInt[2] output_size, bool align_corners, float? scales_h=None, float? scales_w=None) -> Tensor" => |n| upsample_aligned(n, "self", Kernel::Cubic { a: -0.5, antialias: true });
    "grid_sampler(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, bool align_corners) -> Tensor", "grid_sampler_2d(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, bool align_corners) -> Tensor",
    "_grid_sampler_2d_cpu_fallback(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, bool align_corners) -> Tensor", "grid_sampler_3d(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, bool align_corners) -> Tensor" => grid_sampler;
    "affine_grid_generator(Tensor theta, SymInt[] size, bool align_corners) -> Tensor" => |n| {
        let (theta, align) = (n.value("theta")?, n.flag("align_corners", false)?);
        let sizes = n.sizes_arg("size")?.unwrap_or_default();
        let size = n.sizes_exactly(&sizes)?;
        let y = affine(n, theta, size, align)?;
        n.done(y)
    };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

fn upsample_aligned(n: &mut Lower<'_>, input: &'static str, kernel: Kernel) -> Lowered {
    let align = n.flag("align_corners", false)?;
    let smooth = matches!(kernel, Kernel::Linear { antialias: true } | Kernel::Cubic { antialias: true, .. });
    if align && smooth {
        return Err(LowerError::form("antialiasing with corners that meet"));
    }
    upsample(n, input, kernel, if align { Coordinates::AlignCorners } else { Coordinates::HalfPixel })
}

/// The factors that are given, one for each of `count` axes.
fn factors(n: &Lower<'_>, count: usize) -> Result<Option<Vec<f64>>> {
    if n.has("scale_factors") {
        let given = n.floats("scale_factors")?.unwrap_or_default();
        // In double precision, as a program has them.
        let exact = match n.node.attrs.get("scale_factors") {
            Some(mlconv_source::Arg::Floats(v)) => v.clone(),
            _ => given.iter().map(|f| f64::from(*f)).collect(),
        };
        return Ok(Some(exact));
    }
    let names: &[&'static str] = if n.has("scales") { &["scales"] } else { &["scales_d", "scales_h", "scales_w"] };
    let mut all = vec![];
    for name in names {
        all.extend(n.number(name)?);
    }
    Ok((all.len() == count).then_some(all))
}

fn upsample(n: &mut Lower<'_>, input: &'static str, kernel: Kernel, coordinates: Coordinates) -> Lowered {
    let x = n.value(input)?;
    let rank = n.rank(x)?;
    let axes: Vec<usize> = (2..rank).collect();
    let asked = n.sizes_arg("output_size")?;
    let factors = factors(n, axes.len())?;
    // Of the nearest element, places are rounded as they come out of single precision.
    if let Kernel::Nearest(_) = kernel
        && let Some(y) = picked(n, x, asked.as_deref(), factors.as_deref(), coordinates)?
    {
        return n.done(y);
    }
    let exclude_outside = matches!(kernel, Kernel::Linear { antialias: true } | Kernel::Cubic { antialias: true, .. });
    let how = How { kernel, coordinates, exclude_outside, extrapolation: 0.0 };
    let (axes, target) = match counts(n, x, asked.as_deref(), factors.as_deref())? {
        // Elements of an axis that keeps its size are taken as they are, whatever the factor.
        Some(counts)
            if matches!(kernel, Kernel::Linear { antialias: false }) || coordinates == Coordinates::AlignCorners =>
        {
            let shape = n.shape(x)?;
            let moved: Vec<usize> = axes.iter().copied().filter(|a| !shape[*a].is(counts[a - 2])).collect();
            let of_moved = |all: &[i64]| moved.iter().map(|a| all[a - 2]).collect::<Vec<_>>();
            let target = match &factors {
                Some(factors) if coordinates != Coordinates::AlignCorners => {
                    let factors: Vec<f64> = moved.iter().filter_map(|a| factors.get(a - 2).copied()).collect();
                    Target::Counted(factors, of_moved(&counts))
                }
                // Where corners meet, factors say nothing but the sizes.
                _ => Target::Sizes(n.const_ints(&of_moved(&counts))?, Policy::Stretch),
            };
            (moved, target)
        }
        // Sizes are rounded down in double precision.
        Some(counts) if factors.as_ref().is_some_and(|f| f.len() == axes.len()) => {
            (axes, Target::Counted(factors.unwrap_or_default(), counts))
        }
        _ => {
            let target = match &factors {
                // Where corners meet, factors say nothing but the sizes.
                Some(factors) if factors.len() == axes.len() && coordinates == Coordinates::AlignCorners => {
                    Target::Sizes(scaled(n, x, &axes, factors)?, Policy::Stretch)
                }
                _ => target(n, &axes, asked.as_deref(), factors.as_deref())?,
            };
            (axes, target)
        }
    };
    if axes.is_empty() {
        return n.done(x);
    }
    let y = resize_to(n, x, &how, axes, target, None)?;
    n.done(y)
}

/// The new sizes, where they are known.
fn counts(n: &Lower<'_>, x: Value, asked: Option<&[Size]>, factors: Option<&[f64]>) -> Result<Option<Vec<i64>>> {
    let shape = n.shape(x)?;
    let count = |axis: usize| -> Option<i64> {
        match asked.and_then(|a| a.get(axis - 2)) {
            Some(Size::Known(count)) => Some(*count),
            Some(_) => None,
            None => Some((shape[axis].as_known()? as f64 * factors?.get(axis - 2)?).floor() as i64),
        }
    };
    let sizes: Option<Vec<i64>> = (2..shape.rank()).map(|axis| shape[axis].as_known()).collect();
    let counts: Option<Vec<i64>> = (2..shape.rank()).map(count).collect();
    match (sizes, counts) {
        (Some(sizes), Some(counts))
            if sizes.iter().all(|s| *s > 0) && counts.iter().all(|c| (1..1 << 24).contains(c)) =>
        {
            Ok(Some(counts))
        }
        (Some(sizes), Some(counts)) => Err(LowerError::form(format!("resizing {sizes:?} elements to {counts:?}"))),
        _ => Ok(None),
    }
}

/// The sizes along axes times factors, rounded down.
fn scaled(n: &mut Lower<'_>, x: Value, axes: &[usize], factors: &[f64]) -> Result<Value> {
    let sizes: Vec<Size> = axes.iter().map(|axis| Size::Of(x, *axis)).collect();
    let sizes = n.sizes_exactly(&sizes)?;
    let sizes = n.cast(sizes, DType::F32)?;
    let factors = n.add_const(Tensor::from_f64(DType::F32, &[factors.len()], factors))?;
    let sizes = n.mul(sizes, factors)?;
    let sizes = n.op(ops::Floor { x: sizes })?;
    n.cast(sizes, DType::I32)
}

/// What is said of the new sizes.
fn target(n: &mut Lower<'_>, axes: &[usize], asked: Option<&[Size]>, factors: Option<&[f64]>) -> Result<Target> {
    Ok(match (asked, factors) {
        (_, Some(factors)) if factors.len() == axes.len() => {
            Target::Scales(n.add_const(Tensor::from_f64(DType::F32, &[factors.len()], factors))?)
        }
        (Some(sizes), _) if sizes.len() == axes.len() => Target::Sizes(n.sizes_exactly(sizes)?, Policy::Stretch),
        _ => return n.bad_attr("output_size", format!("{} sizes", axes.len())),
    })
}

/// The nearest elements, where sizes are known and elements are not just repeated; else `None`.
fn picked(
    n: &mut Lower<'_>,
    x: Value,
    asked: Option<&[Size]>,
    factors: Option<&[f64]>,
    coordinates: Coordinates,
) -> Result<Option<Value>> {
    let shape = n.shape(x)?;
    let Some(counts) = counts(n, x, asked, factors)? else { return Ok(None) };
    let mut lines = vec![];
    for axis in 2..shape.rank() {
        let (Some(size), count) = (shape[axis].as_known(), counts[axis - 2]) else { return Ok(None) };
        let factor = factors.and_then(|f| f.get(axis - 2)).copied();
        let step = match factor {
            Some(factor) if factor > 0.0 => (1.0 / factor) as f32,
            _ => size as f32 / count as f32,
        };
        let half = if coordinates == Coordinates::HalfPixelForNearest { 0.5 } else { 0.0 };
        let place = |i: i64| (((i as f32 + half) * step).floor() as i64).clamp(0, size - 1);
        let places: Vec<i64> = (0..count).map(place).collect();
        let repeats = count % size == 0 && (0..count).all(|i| places[i as usize] == i / (count / size));
        lines.push((axis, places, repeats));
    }
    if lines.iter().all(|(.., repeats)| *repeats) && shape.rank() <= 4 {
        return Ok(None);
    }
    let mut y = x;
    for (axis, places, _) in lines {
        y = n.gather_at(y, axis, &places)?;
    }
    Ok(Some(y))
}

fn grid_sampler(n: &mut Lower<'_>) -> Lowered {
    let (x, grid, align) = (n.value("input")?, n.value("grid")?, n.flag("align_corners", false)?);
    let mode = match n.int_or("interpolation_mode", 0)? {
        0 => Mode::Linear,
        1 => Mode::Nearest,
        2 => Mode::Cubic,
        _ => return n.bad_attr("interpolation_mode", "0 to 2"),
    };
    let outside = match n.int_or("padding_mode", 0)? {
        0 => Outside::Zeros,
        1 => Outside::Border,
        2 => Outside::Reflection,
        _ => return n.bad_attr("padding_mode", "0 to 2"),
    };
    let y = sampled(n, [x, grid], mode, outside, align)?;
    n.done(y)
}
