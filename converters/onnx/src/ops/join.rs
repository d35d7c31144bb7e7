//! Operators that join, part, cut and pad.

mod open;

use crate::LATEST;
use mlconv_mil::{ir::Value, ops, ops::PadMode};
use mlconv_source::{
    Lower, LowerError, Lowered,
    layers::padding::{FAR, Fill, pad},
};
use mlconv_tensor::{DType, Tensor};

rows! {
    "Concat" 1..=LATEST => concat;
    "Split" 1..=12 => |n| { let sizes = n.ints("split")?; split(n, sizes, None) };
    "Split" 13..=LATEST => |n| {
        let (sizes, count) = (split_sizes(n)?, n.int("num_outputs")?);
        split(n, sizes, count)
    };
    "Slice" 1..=9 => slice_by_attributes;
    "Slice" 10..=LATEST => slice_by_inputs;
    "Pad" 1..=1 => |n| { let pads = n.ints("paddings")?; pad_by_attributes(n, pads) };
    "Pad" 2..=10 => |n| { let pads = n.ints("pads")?; pad_by_attributes(n, pads) };
    "Pad" 11..=LATEST => pad_by_inputs;
    "CenterCropPad" 18..=LATEST => center_crop_pad;
    #["com.microsoft"] "Pad" 1..=LATEST => pad_by_inputs;
}

fn concat(n: &mut Lower<'_>) -> Lowered {
    let axis = n.int_or("axis", 1)?;
    // Vectors of 64-bit integers are joined as they are: what is out of the range of 32 bits may still mean something.
    let mut joined = vec![];
    for i in 0..n.input_count() {
        match n.constant(i)?.filter(|t| t.dtype() == DType::I64 && t.shape().len() == 1) {
            Some(t) => {
                n.affords(joined.len() + t.count())?;
                joined.extend(t.to_i64());
            }
            None => return concat_values(n, axis),
        }
    }
    n.literal(Tensor::from_vec(&[joined.len()], joined))
}

fn concat_values(n: &mut Lower<'_>, axis: i64) -> Lowered {
    let values = n.inputs_from(0)?;
    let mut kept = vec![];
    for v in &values {
        let shape = n.shape(*v)?;
        let axis = shape.axis(axis)?.index();
        if !shape[axis].is(0) {
            kept.push(*v);
        }
    }
    match (kept.is_empty(), values.first()) {
        (true, None) => Err(LowerError::MissingInput { index: 0 }),
        (true, Some(first)) => n.done(*first),
        (false, _) => {
            let y = n.concat(kept, axis)?;
            n.done(y)
        }
    }
}

/// The sizes of the parts, or those that the source states of the results where the input is not known.
fn split_sizes(n: &mut Lower<'_>) -> Result<Option<Vec<i64>>, LowerError> {
    match n.ints_input(1) {
        Err(LowerError::NotConstant { .. }) => {}
        known => return known,
    }
    let axis = n.int_or("axis", 0)?;
    let x = n.input(0)?;
    let axis = n.axis(x, axis)?;
    let stated = (0..n.output_count()).map(|i| n.stated_sizes(i)?.get(axis).copied());
    stated.collect::<Option<Vec<i64>>>().map(Some).ok_or(LowerError::NotConstant { index: 1 })
}

fn split(n: &mut Lower<'_>, sizes: Option<Vec<i64>>, count: Option<i64>) -> Lowered {
    let axis = n.int_or("axis", 0)?;
    let x = n.input(0)?;
    let axis = n.axis(x, axis)?;
    let outputs = n.output_count() as i64;
    if count.is_some_and(|c| c != outputs) {
        return n.bad_attr("num_outputs", format!("{outputs}, as many as the node has outputs"));
    }
    let parts = outputs;
    let size = n.shape(x)?[axis].as_known();
    let sizes = match (sizes, size) {
        (Some(sizes), _) => Some(sizes),
        // The last one is smaller where they do not come out even.
        (None, Some(size)) if parts > 0 && size % parts != 0 => {
            let each = size / parts + i64::from(size % parts != 0);
            Some((0..parts).map(|i| (size - each * i).clamp(0, each)).collect())
        }
        (None, _) => None,
    };
    if outputs == 1 {
        return n.done(x);
    }
    let num_splits = if sizes.is_none() { Some(parts) } else { None };
    n.emit(ops::Split { x, num_splits, split_sizes: sizes, axis: axis as i64 })
}

fn slice_by_attributes(n: &mut Lower<'_>) -> Lowered {
    let starts = n.ints("starts")?.ok_or(LowerError::MissingAttr { name: "starts" })?;
    let ends = n.ints("ends")?.ok_or(LowerError::MissingAttr { name: "ends" })?;
    let axes = n.ints("axes")?;
    let x = n.input(0)?;
    slice(n, x, Bounds::Known(starts), Bounds::Known(ends), axes, None)
}

fn slice_by_inputs(n: &mut Lower<'_>) -> Lowered {
    let (axes, steps) = match (n.ints_input(3), n.ints_input(4)) {
        (Err(LowerError::NotConstant { .. }), _) | (_, Err(LowerError::NotConstant { .. })) => return open::slice(n),
        (axes, steps) => (axes?, steps?),
    };
    let (starts, ends) = (bounds(n, 1)?, bounds(n, 2)?);
    let x = n.input(0)?;
    slice(n, x, starts, ends, axes, steps)
}

/// Where slices begin or end, per axis that is sliced.
enum Bounds {
    Known(Vec<i64>),
    Open(Value, Vec<Option<i64>>),
}

impl Bounds {
    fn len(&self) -> usize {
        match self {
            Self::Known(v) => v.len(),
            Self::Open(_, v) => v.len(),
        }
    }

    fn known(&self, i: usize) -> Option<i64> {
        match self {
            Self::Known(v) => v.get(i).copied(),
            Self::Open(_, v) => v.get(i).copied().flatten(),
        }
    }

    /// Bound `i`, which is not known, as a vector of one integer.
    fn value(&self, n: &mut Lower<'_>, i: usize) -> Result<Value, LowerError> {
        match self {
            Self::Known(_) => Err(LowerError::Poisoned),
            Self::Open(v, _) => n.element(*v, i),
        }
    }
}

fn bounds(n: &mut Lower<'_>, i: usize) -> Result<Bounds, LowerError> {
    if let Some(t) = n.constant(i)? {
        return Ok(Bounds::Known(t.to_i64()));
    }
    let v = n.input(i)?;
    let known: Vec<Option<i64>> = n.elements(v)?.iter().map(mlconv_tensor::Dim::as_known).collect();
    Ok(match known.iter().copied().collect::<Option<Vec<i64>>>() {
        Some(known) => Bounds::Known(known),
        None => Bounds::Open(v, known),
    })
}

fn slice(
    n: &mut Lower<'_>,
    x: Value,
    starts: Bounds,
    ends: Bounds,
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
) -> Lowered {
    let (rank, count) = (n.rank(x)?, starts.len());
    let axes = axes.unwrap_or_else(|| (0..count as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; count]);
    if axes.len() != count || steps.len() != count || ends.len() != count {
        return Err(LowerError::form(format!("{count} starts beside {} ends and {} axes", ends.len(), axes.len())));
    }
    let shape = n.shape(x)?;
    let (mut begin, mut end) = (vec![Ok(0); rank], vec![Ok(0); rank]);
    let (mut begin_mask, mut end_mask, mut stride) = (vec![true; rank], vec![true; rank], vec![1; rank]);
    for (i, (axis, step)) in axes.iter().zip(&steps).enumerate() {
        let axis = shape.axis(*axis)?.index();
        if *step == 0 {
            return Err(LowerError::form("a step of 0"));
        }
        // Steps as long as any axis take its first element alone, whatever they are.
        stride[axis] = (*step).clamp(-FAR, FAR);
        let size = shape[axis].as_known();
        match (starts.known(i), size) {
            (Some(start), Some(size)) => {
                let start = if start < 0 { start.saturating_add(size) } else { start };
                let first = if *step > 0 { start.clamp(0, size) } else { start.clamp(0, size - 1) };
                (begin[axis], begin_mask[axis]) = (Ok(first), false);
            }
            // Where the step is negative, a start before the axis leaves nothing; one is never written so.
            (Some(start), None) => {
                let masked = if *step > 0 { start == 0 || start <= -FAR } else { start >= FAR };
                (begin[axis], begin_mask[axis]) = (Ok(start.clamp(-FAR, FAR)), masked);
                if masked {
                    begin[axis] = Ok(0);
                }
            }
            (None, _) => (begin[axis], begin_mask[axis]) = (Err(starts.value(n, i)?), false),
        }
        match (ends.known(i), size) {
            (Some(end_at), Some(size)) => {
                let stop = if end_at < 0 { end_at.saturating_add(size) } else { end_at };
                let last = if *step > 0 { stop.clamp(0, size) } else { stop.clamp(-1, size - 1) };
                (end[axis], end_mask[axis]) = if last < 0 { (Ok(0), true) } else { (Ok(last), false) };
            }
            (Some(end_at), None) => {
                let masked = if *step > 0 { end_at >= FAR } else { end_at <= -FAR };
                (end[axis], end_mask[axis]) = (Ok(if masked { 0 } else { end_at.clamp(-FAR, FAR) }), masked);
            }
            (None, _) => (end[axis], end_mask[axis]) = (Err(ends.value(n, i)?), false),
        }
    }
    let whole = (0..rank).all(|i| {
        let from_start = begin_mask[i] || begin[i] == Ok(0);
        let to_end = end_mask[i] || shape[i].as_known().is_some_and(|size| end[i] == Ok(size));
        stride[i] == 1 && from_start && to_end
    });
    if whole {
        return n.done(x);
    }
    let (begin, end) = (vector(n, &begin)?, vector(n, &end)?);
    n.emit(ops::SliceByIndex {
        x,
        begin,
        end,
        stride: Some(stride),
        begin_mask: Some(begin_mask),
        end_mask: Some(end_mask),
        squeeze_mask: None,
    })
}

/// A vector of numbers and of vectors of one number.
fn vector(n: &mut Lower<'_>, parts: &[Result<i64, Value>]) -> Result<Value, LowerError> {
    if let Some(known) = parts.iter().map(|p| p.ok()).collect::<Option<Vec<i64>>>() {
        return n.const_ints(&known);
    }
    let mut values = vec![];
    for part in parts {
        values.push(match part {
            Ok(known) => n.const_ints(&[*known])?,
            Err(v) => *v,
        });
    }
    n.concat(values, 0)
}

fn fill_mode(n: &Lower<'_>, value: f64) -> Result<Fill, LowerError> {
    match n.str_or("mode", "constant")? {
        "constant" => Ok(Fill::Constant(value)),
        "reflect" => Ok(Fill::Reflect),
        "edge" => Ok(Fill::Edge),
        "wrap" => Ok(Fill::Wrap),
        _ => n.bad_attr("mode", "`constant`, `reflect`, `edge` or `wrap`"),
    }
}

fn pad_by_attributes(n: &mut Lower<'_>, pads: Option<Vec<i64>>) -> Lowered {
    let pads = pads.ok_or(LowerError::MissingAttr { name: "pads" })?;
    let value = n.float_or("value", 0.0)?;
    let fill = fill_mode(n, f64::from(value))?;
    let x = n.input(0)?;
    let pairs = pairs(n, x, &pads, None)?;
    let y = pad(n, x, &pairs, fill)?;
    n.done(y)
}

fn pad_by_inputs(n: &mut Lower<'_>) -> Lowered {
    let value = n.optional(2)?;
    let number = match value {
        None => Some(0.0),
        Some(v) => n.const_of(v).map(|t| t.to_f64().first().copied().unwrap_or(0.0)),
    };
    let fill = fill_mode(n, number.unwrap_or(0.0))?;
    let x = n.input(0)?;
    let known = match (n.ints_input(1), n.ints_input(3)) {
        (Err(LowerError::NotConstant { .. }), _) | (_, Err(LowerError::NotConstant { .. })) => None,
        (pads, axes) => Some((pads?.ok_or(LowerError::MissingInput { index: 1 })?, axes?)),
    };
    match (known, number, fill) {
        (Some((pads, axes)), Some(_), _) => {
            let pairs = pairs(n, x, &pads, axes)?;
            let y = pad(n, x, &pairs, fill)?;
            n.done(y)
        }
        (None, Some(number), Fill::Constant(_)) if n.dtype(x)?.is_float() && n.input_count() < 4 => {
            pad_at_run_time(n, x, number)
        }
        _ => open::pad(n, x, fill, value),
    }
}

/// What is added before and after, for each axis of `x`.
fn pairs(n: &Lower<'_>, x: Value, pads: &[i64], axes: Option<Vec<i64>>) -> Result<Vec<(i64, i64)>, LowerError> {
    let rank = n.rank(x)?;
    let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
    if pads.len() != axes.len() * 2 {
        return Err(LowerError::form(format!("{} pads for {} axes", pads.len(), axes.len())));
    }
    let mut pairs = vec![(0, 0); rank];
    for (i, axis) in axes.iter().enumerate() {
        pairs[n.axis(x, *axis)?] = (pads[i], pads[i + axes.len()]);
    }
    Ok(pairs)
}

/// Pads by amounts that are known when the program runs, which are not negative.
fn pad_at_run_time(n: &mut Lower<'_>, x: Value, value: f64) -> Lowered {
    let (rank, pads) = (n.rank(x)? as i64, n.input(1)?);
    let pads = n.reshape_to(pads, &[2, rank])?;
    let pads = n.transpose(pads, &[1, 0])?;
    let pad = n.reshape_to(pads, &[2 * rank])?;
    n.emit(ops::Pad { x, pad, mode: PadMode::Constant, constant_val: value as f32 })
}

fn center_crop_pad(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let (sizes, axes) = match (n.ints_input(1), n.stated_sizes(0)) {
        // What the source states of the result says it all.
        (Err(LowerError::NotConstant { .. }), Some(stated)) => {
            n.ignore("axes");
            (stated, None)
        }
        (sizes, _) => (sizes?.ok_or(LowerError::MissingInput { index: 1 })?, n.ints("axes")?),
    };
    let axes = axes.unwrap_or_else(|| (0..sizes.len() as i64).collect());
    if axes.len() != sizes.len() {
        return n.bad_attr("axes", format!("{} axes, one per size", sizes.len()));
    }
    let shape = n.fixed_shape(x, "the part that is cropped or padded")?;
    let mut pairs = vec![(0, 0); shape.len()];
    for (axis, size) in axes.iter().zip(&sizes) {
        let axis = n.axis(x, *axis)?;
        let more = size.saturating_sub(shape[axis]);
        // Of an odd number, the end has one more, whether it is cut or added.
        pairs[axis] = (more / 2, more - more / 2);
    }
    let y = pad(n, x, &pairs, Fill::Constant(0.0))?;
    n.done(y)
}
