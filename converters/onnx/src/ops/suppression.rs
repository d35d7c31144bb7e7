//! Suppression of boxes that overlap better ones.

use crate::LATEST;
use mlconv_mil::{
    ir::{Fact, Value},
    ops,
};
use mlconv_source::{
    Lower, LowerError, Lowered,
    layers::suppression::{like, suppressed},
};
use mlconv_tensor::DType;

rows! {
    "NonMaxSuppression" 10..=LATEST => suppress;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// What is to be selected from: rows, one for each class of each image.
struct Task {
    classes: i64,
    rows: i64,
    count: i64,
    /// `[rows, count]`.
    scores: Value,
    /// A score above which boxes may be kept.
    least: Option<Value>,
}

fn suppress(n: &mut Lower<'_>) -> Lowered {
    let centred = match n.int_or("center_point_box", 0)? {
        0 => false,
        1 => true,
        _ => return n.bad_attr("center_point_box", "0 or 1"),
    };
    let (boxes, scores) = (n.input(0)?, n.input(1)?);
    let shape = n.fixed_shape(scores, "the number of boxes")?;
    let &[batch, classes, count] = shape.as_slice() else {
        return Err(LowerError::form(format!("scores in {}", n.ty(scores)?)));
    };
    if n.fixed_shape(boxes, "the number of boxes")? != [batch, count, 4] || batch.min(classes).min(count) < 1 {
        return Err(LowerError::form(format!("boxes in {}", n.ty(boxes)?)));
    }
    let most = match n.optional(2)? {
        None => Some(0),
        Some(_) => n.constant(2)?.and_then(|t| t.to_i64().first().copied()),
    };
    let overlap = match n.optional(3)? {
        None => Some(0.0),
        Some(_) => n.constant(3)?.and_then(|t| t.to_f64().first().copied()),
    };
    let least = match n.optional(4)? {
        None => None,
        Some(v) => Some(n.as_scalar(v)?),
    };
    if most.is_some_and(|m| m < 1) {
        return Err(LowerError::form("a selection of no boxes"));
    }
    let rows = batch.checked_mul(classes).filter(|r| r.checked_mul(count).is_some_and(|n| n < 1 << 28));
    let rows = rows.ok_or_else(|| LowerError::form(format!("{classes} classes of {count} boxes")))?;
    let scores = n.reshape_to(scores, &[rows, count])?;
    let task = Task { classes, rows, count, scores, least };
    let corners = corners(n, boxes, centred)?;
    let boxes = per_row(n, &corners, batch, &task)?;
    let picked = match (most, overlap) {
        (Some(most), Some(overlap)) => suppressed(n, &boxes, (scores, least), (most.min(count), overlap))?,
        _ => by_loop(n, &task, &boxes)?,
    };
    selected(n, &task, picked)
}

/// The least and greatest coordinates of boxes, `[batch, count]` each: those of one axis, then those of the other.
fn corners(n: &mut Lower<'_>, boxes: Value, centred: bool) -> Result<[Value; 4]> {
    let mut parts = [boxes; 4];
    for (i, part) in parts.iter_mut().enumerate() {
        let one = n.slice(boxes, 2, i as i64, Some(i as i64 + 1))?;
        *part = n.squeeze(one, &[2])?;
    }
    let [a, b, c, d] = parts;
    if centred {
        let (half_c, half_d) = (n.scale(c, 0.5)?, n.scale(d, 0.5)?);
        return Ok([n.sub(a, half_c)?, n.add(a, half_c)?, n.sub(b, half_d)?, n.add(b, half_d)?]);
    }
    // Any two corners that face each other may be given.
    Ok([n.minimum(a, c)?, n.maximum(a, c)?, n.minimum(b, d)?, n.maximum(b, d)?])
}

/// The coordinates of each image, `[batch, count]`, for each of its classes: `[rows, count]`.
fn per_row(n: &mut Lower<'_>, corners: &[Value; 4], batch: i64, task: &Task) -> Result<[Value; 4]> {
    let mut out = *corners;
    if task.classes > 1 {
        for v in &mut out {
            let apart = n.reshape_to(*v, &[batch, 1, task.count])?;
            let reps = n.const_ints(&[1, task.classes, 1])?;
            let repeated = n.op(ops::Tile { x: apart, reps })?;
            *v = n.reshape_to(repeated, &[task.rows, task.count])?;
        }
    }
    Ok(out)
}

/// As [`suppressed`], with limits that are only known when the program runs: each turn keeps the best box that is left of
/// each row, and drops what overlaps it.
fn by_loop(n: &mut Lower<'_>, task: &Task, corners: &[Value; 4]) -> Result<Value> {
    let Task { rows, count, scores, .. } = *task;
    let most = n.input(2)?;
    let most = n.as_scalar(most)?;
    let most = n.cast(most, DType::I32)?;
    let all = n.const_int(count)?;
    let turns = n.minimum(most, all)?;
    let overlap = match n.optional(3)? {
        Some(v) => n.as_scalar(v)?,
        None => n.scalar_like(scores, 0.0)?,
    };
    let overlap = like(n, overlap, scores)?;
    let gone = n.scalar_like(scores, f64::NEG_INFINITY)?;
    let open = match task.least {
        None => scores,
        Some(least) => {
            let least = like(n, least, scores)?;
            let good = n.less(least, scores)?;
            n.select(good, scores, gone)?
        }
    };
    let [top, bottom, left, right] = *corners;
    let (height, width) = (n.sub(bottom, top)?, n.sub(right, left)?);
    let area = n.mul(height, width)?;
    let (shape, none) = (n.const_ints(&[count, rows])?, n.const_int(-1)?);
    let picks = n.op(ops::Fill { shape, value: Some(none) })?;
    let (start, one, zero) = (n.const_int(0)?, n.const_int(1)?, n.scalar_like(scores, 0.0)?);
    n.affords(usize::try_from(count).unwrap_or(usize::MAX))?;
    let numbers = n.const_ints(&(0..count).collect::<Vec<_>>())?;
    let vars = vec![start, open, picks];
    let facts = vars.iter().map(|v| Ok(Fact::of(n.ty(*v)?.clone()))).collect::<Result<Vec<_>>>()?;
    let cond = n.new_block(&facts, |n, vars| Ok(vec![n.less(vars[0], turns)?]))?;
    let body = n.new_block(&facts, |n, vars| {
        let (turn, open, picks) = (vars[0], vars[1], vars[2]);
        let best = n.op(ops::ReduceArgmax { x: open, axis: 1, keep_dims: true, output_dtype: DType::I32 })?;
        let score = n.op(ops::ReduceMax { x: open, axes: Some(vec![1]), keep_dims: true })?;
        let found = n.less(gone, score)?;
        let of_best = |n: &mut Lower<'_>, x: Value| {
            n.op(ops::GatherAlongAxis { x, indices: best, axis: 1, validate_indices: false })
        };
        let shared = |n: &mut Lower<'_>, low: Value, high: Value| -> Result<Value> {
            let (best_low, best_high) = (of_best(n, low)?, of_best(n, high)?);
            let (low, high) = (n.maximum(low, best_low)?, n.minimum(high, best_high)?);
            let span = n.sub(high, low)?;
            n.maximum(span, zero)
        };
        let (rows, columns) = (shared(n, top, bottom)?, shared(n, left, right)?);
        let both = n.mul(rows, columns)?;
        let best_area = of_best(n, area)?;
        let either = n.add(area, best_area)?;
        let either = n.sub(either, both)?;
        // Two boxes without extent share nothing: the quotient is no number, and above no limit.
        let share = n.div(both, either)?;
        let overlaps = n.less(overlap, share)?;
        let itself = n.equal(numbers, best)?;
        let drop = n.op(ops::LogicalOr { x: overlaps, y: itself })?;
        let open = n.select(drop, gone, open)?;
        let pick = n.select(found, best, none)?;
        let pick = n.transpose(pick, &[1, 0])?;
        let (indices, mode) = (n.expand_dims(turn, &[0])?, ops::ScatterMode::Update);
        let put = ops::Scatter { data: picks, indices, updates: pick, axis: 0, mode, validate_indices: false };
        Ok(vec![n.add(turn, one)?, open, n.op(put)?])
    })?;
    let results = n.ops(ops::WhileLoop { loop_vars: vars, cond, body })?;
    let picks = results.get(2).copied().ok_or(LowerError::Poisoned)?;
    n.transpose(picks, &[1, 0])
}

/// Image, class and box of each number in `picked`, `[rows, most]`, that is not negative.
fn selected(n: &mut Lower<'_>, task: &Task, picked: Value) -> Lowered {
    let none = n.const_int(-1)?;
    let kept = n.less(none, picked)?;
    let places = n.op(ops::NonZero { x: kept })?;
    let number = n.op(ops::GatherNd { x: picked, indices: places, batch_dims: 0, validate_indices: false })?;
    let number = n.expand_dims(number, &[1])?;
    let (row, classes) = (n.slice(places, 1, 0, Some(1))?, n.const_int(task.classes)?);
    let (image, class) = (n.op(ops::FloorDiv { x: row, y: classes })?, n.op(ops::Mod { x: row, y: classes })?);
    let y = n.concat(vec![image, class, number], 1)?;
    n.done(y)
}
