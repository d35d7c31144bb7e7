//! Resizing by interpolation, one axis after the other.
//!
//! Formulas: the operator's documentation, and its reference implementation where that leaves something open.

use crate::LATEST;
use mlconv_mil::ir::Value;
use mlconv_source::{
    Lower, LowerError, Lowered,
    layers::resize::{Coordinates, How, Kernel, Policy, Rounding, Target, resize_to},
};
use mlconv_tensor::{DType, Tensor};

rows! {
    "Upsample" 7..=8 => |n| {
        let scales = n.floats("scales")?.ok_or(LowerError::MissingAttr { name: "scales" })?;
        let scales = Tensor::from_f64(DType::F32, &[scales.len()], &scales.iter().map(|s| f64::from(*s)).collect::<Vec<_>>());
        let (x, scales) = (n.input(0)?, n.add_const(scales)?);
        upsample(n, x, scales, Rounding::Floor)
    };
    "Upsample" 9..=LATEST => |n| { let (x, scales) = (n.input(0)?, n.input(1)?); upsample(n, x, scales, Rounding::Floor) };
    "Resize" 10..=10 => |n| { let (x, scales) = (n.input(0)?, n.input(1)?); upsample(n, x, scales, Rounding::Outward) };
    "Resize" 11..=LATEST => resize;
}

fn upsample(n: &mut Lower<'_>, x: Value, scales: Value, rounding: Rounding) -> Lowered {
    let kernel = match n.str_or("mode", "nearest")? {
        "nearest" => Kernel::Nearest(rounding),
        "linear" | "bilinear" => Kernel::Linear { antialias: false },
        _ => return n.bad_attr("mode", "`nearest` or `linear`"),
    };
    let how = How { kernel, coordinates: Coordinates::Asymmetric, exclude_outside: false, extrapolation: 0.0 };
    let axes = (0..n.rank(x)?).collect();
    let y = resize_to(n, x, &how, axes, Target::Scales(scales), None)?;
    n.done(y)
}

fn resize(n: &mut Lower<'_>) -> Lowered {
    let antialias = n.flag("antialias", false)?;
    let cubic = f64::from(n.float_or("cubic_coeff_a", -0.75)?);
    let rounding = match n.str_or("nearest_mode", "round_prefer_floor")? {
        "round_prefer_floor" => Rounding::PreferFloor,
        "round_prefer_ceil" => Rounding::PreferCeil,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        _ => return n.bad_attr("nearest_mode", "`round_prefer_floor`, `round_prefer_ceil`, `floor` or `ceil`"),
    };
    let kernel = match n.str_or("mode", "nearest")? {
        "nearest" => Kernel::Nearest(rounding),
        "linear" => Kernel::Linear { antialias },
        "cubic" => Kernel::Cubic { a: cubic, antialias },
        _ => return n.bad_attr("mode", "`nearest`, `linear` or `cubic`"),
    };
    let coordinates = match n.str_or("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_crop_and_resize" => Coordinates::Crop,
        "tf_half_pixel_for_nn" => Coordinates::HalfPixelForNearest,
        _ => return n.bad_attr("coordinate_transformation_mode", "a known mode"),
    };
    let how = How {
        kernel,
        coordinates,
        exclude_outside: n.flag("exclude_outside", false)?,
        extrapolation: n.float_or("extrapolation_value", 0.0)?,
    };
    let policy = match n.str_or("keep_aspect_ratio_policy", "stretch")? {
        "stretch" => Policy::Stretch,
        "not_larger" => Policy::NotLarger,
        "not_smaller" => Policy::NotSmaller,
        _ => return n.bad_attr("keep_aspect_ratio_policy", "`stretch`, `not_larger` or `not_smaller`"),
    };
    let x = n.input(0)?;
    let axes = match n.ints("axes")? {
        Some(axes) => axes.iter().map(|a| n.axis(x, *a)).collect::<Result<Vec<_>, _>>()?,
        None => (0..n.rank(x)?).collect(),
    };
    let given = |n: &mut Lower<'_>, i: usize| -> Result<Option<Value>, LowerError> {
        // An absent one may be written as an empty one.
        let v = n.optional(i)?;
        Ok(match v {
            Some(v) if n.shape(v)?.first().is_some_and(|d| d.is(0)) => None,
            other => other,
        })
    };
    let (roi, scales, sizes) = (given(n, 1)?, given(n, 2)?, given(n, 3)?);
    let roi = roi.filter(|_| coordinates == Coordinates::Crop);
    let target = match (scales, sizes) {
        (Some(scales), None) => Target::Scales(scales),
        (None, Some(sizes)) => Target::Sizes(sizes, policy),
        _ => return Err(LowerError::form("neither `scales` nor `sizes`, or both,")),
    };
    let y = resize_to(n, x, &how, axes, target, roi)?;
    n.done(y)
}
