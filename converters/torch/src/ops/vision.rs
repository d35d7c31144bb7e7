//! Operators of torchvision.

use super::convolution::with_images;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered, Size,
    layers::{
        convolution::{MAX_SIZE, Padding, Window},
        deformable::{Deformed, deformed},
        regions::{Pooled, Regions, aligned, whole_pixels},
        suppression::suppressed,
    },
};
use mlconv_tensor::DType;

aten! {
    "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" => nms;
    "torchvision::roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor" => roi_align;
    "torchvision::ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio) -> (Tensor, Tensor)" => |n| {
        let y = read_regions(n, true)?;
        let y = cell_of_channel(n, y)?;
        Ok(vec![Entry::Value(y), Entry::Nothing])
    };
    "torchvision::roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> (Tensor, Tensor)" => |n| {
        let y = pooled(n, Pooled::Greatest)?;
        Ok(vec![Entry::Value(y), Entry::Nothing])
    };
    "torchvision::ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> (Tensor, Tensor)" => |n| {
        let y = pooled(n, Pooled::Mean)?;
        let y = cell_of_channel(n, y)?;
        Ok(vec![Entry::Value(y), Entry::Nothing])
    };
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
    let half_pixel = n.flag("aligned", false)?;
    let y = read_regions(n, half_pixel)?;
    n.done(y)
}

/// The arguments `input` and `rois`: the image, the corners of the regions, and the numbers of their images.
fn regions(n: &mut Lower<'_>) -> Result<(Value, [Value; 2])> {
    let (x, rois) = (n.value("input")?, n.value("rois")?);
    if n.rank(rois)? != 2 || !n.shape(rois)?[1].is(5) {
        return Err(LowerError::form(format!("regions in {}", n.ty(rois)?)));
    }
    let (batch, boxes) = (n.slice(rois, 1, 0, Some(1))?, n.slice(rois, 1, 1, None)?);
    let batch = n.squeeze(batch, &[1])?;
    let batch = n.cast(batch, DType::I32)?;
    Ok((x, [boxes, batch]))
}

/// The rows and columns of cells.
fn cells(n: &Lower<'_>) -> Result<[i64; 2]> {
    Ok([n.int_or("pooled_height", 1)?, n.int_or("pooled_width", 1)?])
}

/// Regions read at samples between pixels.
fn read_regions(n: &mut Lower<'_>, half_pixel: bool) -> Result<Value> {
    let (x, boxes) = regions(n)?;
    let how = Regions {
        half_pixel,
        mean: true,
        size: cells(n)?,
        ratio: n.int_or("sampling_ratio", -1)?,
        scale: n.number("spatial_scale")?.unwrap_or(1.0),
    };
    aligned(n, x, boxes, how)
}

/// Regions in whole pixels, each cell one number for all of its own.
fn pooled(n: &mut Lower<'_>, what: Pooled) -> Result<Value> {
    let (x, boxes) = regions(n)?;
    let (size, scale) = (cells(n)?, n.number("spatial_scale")?.unwrap_or(1.0));
    whole_pixels(n, x, boxes, (size, scale), what)
}

/// Of `[k, c * h * w, h, w]`, each cell from the channel that is its own: `[k, c, h, w]`.
fn cell_of_channel(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let shape = n.shape(x)?;
    let known = |axis: usize| shape.get(axis).and_then(|d| d.as_known()).filter(|d| *d > 0);
    let (Some(channels), Some(height), Some(width)) = (known(1), known(2), known(3)) else {
        return Err(LowerError::NotFixed { what: "the channels of cells".to_owned() });
    };
    // Both are at most a thousand.
    let cells = height * width;
    if channels % cells != 0 {
        return Err(LowerError::form(format!("{channels} channels for {cells} cells")));
    }
    let apart = n.reshape(x, &[Size::Of(x, 0), Size::Known(channels / cells), Size::Rest])?;
    let places: Vec<i64> = (0..cells).map(|i| i * (cells + 1)).collect();
    if channels / cells * cells * cells > 1 << 28 {
        return Err(LowerError::form(format!("{cells} cells")));
    }
    let own = n.gather_at(apart, 2, &places)?;
    n.reshape(own, &[Size::Of(x, 0), Size::Known(channels / cells), Size::Known(height), Size::Known(width)])
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
