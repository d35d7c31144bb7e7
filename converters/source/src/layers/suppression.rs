//! Suppression of boxes that overlap better ones.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops, schema::Opset};

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The numbers of the boxes kept in each row, best first, `[rows, most]`, or -1.
///
/// `corners` are the least and greatest coordinates of boxes, `[rows, count]` each: those of one axis, then those of the
/// other. `scores` are `[rows, count]`; those not above `least` count for nothing.
pub fn suppressed(
    n: &mut Lower<'_>,
    corners: &[Value; 4],
    (scores, least): (Value, Option<Value>),
    (most, overlap): (i64, f64),
) -> Result<Value> {
    let mut centres = vec![];
    let mut extents = vec![];
    for pair in corners.chunks(2) {
        let [low, high] = *pair else { return Err(LowerError::Poisoned) };
        let sum = n.add(low, high)?;
        centres.push(n.scale(sum, 0.5)?);
        extents.push(n.sub(high, low)?);
    }
    centres.extend(extents);
    let iou_threshold = overlap as f32;
    let indices = if n.opset() < Opset::Ios17 {
        let boxes = n.op(ops::Stack { values: centres, axis: 2 })?;
        let scores = n.expand_dims(scores, &[2])?;
        let (score_threshold, per_class_suppression) = (f32::MIN, false);
        let op = ops::NonMaximumSuppressionIos15 {
            boxes,
            scores,
            iou_threshold,
            score_threshold,
            max_boxes: most,
            per_class_suppression,
        };
        n.ops(op)?.get(2).copied().ok_or(LowerError::Poisoned)?
    } else {
        let boxes = n.op(ops::Stack { values: centres, axis: 1 })?;
        let scores = n.expand_dims(scores, &[1])?;
        let per_class_suppression = false;
        let op = ops::NonMaximumSuppression { boxes, scores, iou_threshold, max_boxes: most, per_class_suppression };
        n.ops(op)?.get(2).copied().ok_or(LowerError::Poisoned)?
    };
    let Some(least) = least else { return Ok(indices) };
    // Boxes of low scores come last, and suppress none that comes before.
    let (zero, none) = (n.const_int(0)?, n.const_int(-1)?);
    let places = n.maximum(indices, zero)?;
    let scores = n.op(ops::GatherAlongAxis { x: scores, indices: places, axis: 1, validate_indices: false })?;
    let least = like(n, least, scores)?;
    let good = n.less(least, scores)?;
    n.select(good, indices, none)
}

/// `v`, a scalar, in the element type of `other`.
pub fn like(n: &mut Lower<'_>, v: Value, other: Value) -> Result<Value> {
    let dtype = n.dtype(other)?;
    n.cast(v, dtype)
}
