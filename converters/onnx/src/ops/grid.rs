//! Reading images at computed places.

use crate::LATEST;
use mlconv_source::{
    Lower, Lowered,
    layers::{
        grid::{Mode, Outside, affine, sampled},
        regions::{Regions, aligned},
    },
};

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
    let y = sampled(n, [x, grid], mode, outside, align_corners)?;
    n.done(y)
}

fn affine_grid(n: &mut Lower<'_>) -> Lowered {
    let align = n.flag("align_corners", false)?;
    let (theta, size) = (n.input(0)?, n.input(1)?);
    n.numeric(theta)?;
    let y = affine(n, theta, size, align)?;
    n.done(y)
}

fn roi_align(n: &mut Lower<'_>, half_pixel: bool) -> Lowered {
    let mean = match n.str_or("mode", "avg")? {
        "avg" => true,
        "max" => false,
        _ => return n.bad_attr("mode", "`avg` or `max`"),
    };
    let (height, width) = (n.int_or("output_height", 1)?, n.int_or("output_width", 1)?);
    let (ratio, scale) = (n.int_or("sampling_ratio", 0)?, f64::from(n.float_or("spatial_scale", 1.0)?));
    let (x, boxes, batch) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let regions = Regions { half_pixel, mean, size: [height, width], ratio, scale };
    let y = aligned(n, x, [boxes, batch], regions)?;
    n.done(y)
}
