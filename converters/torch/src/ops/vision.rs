//! Operators of torchvision.

use super::convolution::with_images;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Lower, LowerError, Lowered,
    layers::{
        convolution::{MAX_SIZE, Padding, Window},
        deformable::{Deformed, deformed},
        regions::{Regions, aligned},
        suppression::suppressed,
    },
};
use mlconv_tensor::DType;

aten! {
    "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" => nms;
    "torchvision::roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor" => roi_align;
    "torchvision::deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor" => deform_conv;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The numbers of the boxes that no better one overlaps, best first.
fn nms(n: &mut Lower<'_>) -> Lowered {
    let (boxes, scores) = (n.value("dets")?, n.value("scores")?);
    let overlap = n.number("iou_threshold")?.unwrap_or(0.5);
    let count = match n.fixed_shape(boxes, "the number of boxes")?[..] {
        [count, 4] if count > 0 && n.rank(scores)? == 1 => count,
        _ => return Err(LowerError::form(format!("boxes in {}", n.ty(boxes)?))),
    };
    let mut corners = [boxes; 4];
    // One axis after the other: left, right, top, bottom.
    for (corner, i) in corners.iter_mut().zip([0, 2, 1, 3]) {
        let part = n.slice(boxes, 1, i, Some(i + 1))?;
        *corner = n.reshape_to(part, &[1, count])?;
    }
    let scores = n.expand_dims(scores, &[0])?;
    let picked = suppressed(n, &corners, (scores, None), (count, overlap))?;
    let none = n.const_int(-1)?;
    let kept = n.less(none, picked)?;
    let indices = n.op(ops::NonZero { x: kept })?;
    n.emit(ops::GatherNd { x: picked, indices, batch_dims: 0, validate_indices: false })
}

fn roi_align(n: &mut Lower<'_>) -> Lowered {
    let (x, rois) = (n.value("input")?, n.value("rois")?);
    if n.rank(rois)? != 2 || !n.shape(rois)?[1].is(5) {
        return Err(LowerError::form(format!("regions in {}", n.ty(rois)?)));
    }
    let regions = Regions {
        half_pixel: n.flag("aligned", false)?,
        mean: true,
        size: [n.int_or("pooled_height", 1)?, n.int_or("pooled_width", 1)?],
        ratio: n.int_or("sampling_ratio", -1)?,
        scale: n.number("spatial_scale")?.unwrap_or(1.0),
    };
    let (batch, boxes) = (n.slice(rois, 1, 0, Some(1))?, n.slice(rois, 1, 1, None)?);
    let batch = n.squeeze(batch, &[1])?;
    let batch = n.cast(batch, DType::I32)?;
    let y = aligned(n, x, [boxes, batch], regions)?;
    n.done(y)
}

/// The numbers of two arguments, for rows and columns.
fn pair(n: &Lower<'_>, names: [&'static str; 2], least: i64) -> Result<Vec<i64>> {
    let one = |name| match n.int(name)? {
        Some(v) if (least..MAX_SIZE).contains(&v) => Ok(v),
        _ => n.bad_attr(name, format!("at least {least}")),
    };
    Ok(vec![one(names[0])?, one(names[1])?])
}

fn deform_conv(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, offset) = (n.value("input")?, n.value("weight")?, n.value("offset")?);
    let (bias, mask) = (n.value("bias")?, n.value("mask")?);
    let (x, _) = with_images(n, x, 2)?;
    let window = Window {
        kernel: n.fixed_shape(weight, "the kernel")?.split_off(2.min(n.rank(weight)?)),
        strides: pair(n, ["stride_h", "stride_w"], 1)?,
        dilations: pair(n, ["dilation_h", "dilation_w"], 1)?,
        padding: Padding::Explicit(pair(n, ["pad_h", "pad_w"], 0)?.into_iter().map(|p| (p, p)).collect()),
    };
    if window.kernel.len() != 2 || window.kernel.iter().any(|k| !(1..MAX_SIZE).contains(k)) {
        return Err(LowerError::form(format!("a weight {}", n.ty(weight)?)));
    }
    let (groups, offset_groups) = (n.int_or("groups", 1)?, n.int_or("offset_groups", 1)?);
    let mask: Option<Value> = n.flag("use_mask", false)?.then_some(mask);
    let y = deformed(n, x, Deformed { weight, offset, bias: Some(bias), mask, window, groups, offset_groups })?;
    n.done(y)
}
