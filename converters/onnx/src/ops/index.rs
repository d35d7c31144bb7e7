//! Operators that read and write elements by index.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops, ops::ScatterMode, schema::Opset};
use mlconv_source::{Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

rows! {
    "Gather" 1..=LATEST => gather;
    "GatherElements" 11..=LATEST => gather_elements;
    "GatherND" 11..=LATEST => gather_nd;
    "Scatter" 9..=10 => scatter_elements;
    "ScatterElements" 11..=LATEST => scatter_elements;
    "ScatterND" 11..=LATEST => scatter_nd;
    "TensorScatter" 24..=LATEST => tensor_scatter;
    "Compress" 9..=LATEST => compress;
    "NonZero" 9..=LATEST => non_zero;
    "OneHot" 9..=LATEST => one_hot;
    #["com.microsoft"] "GatherND" 1..=LATEST => gather_nd;
}

fn gather(n: &mut Lower<'_>) -> Lowered {
    let (x, indices, axis) = (n.input(0)?, n.input(1)?, n.int_or("axis", 0)?);
    let axis = n.axis(x, axis)?;
    let y = n.gather(x, indices, axis)?;
    n.done(y)
}

fn gather_elements(n: &mut Lower<'_>) -> Lowered {
    let (x, indices, axis) = (n.input(0)?, n.input(1)?, n.int_or("axis", 0)?);
    let axis = n.axis(x, axis)?;
    let y = n.gather_elements(x, indices, axis)?;
    n.done(y)
}

fn gather_nd(n: &mut Lower<'_>) -> Lowered {
    let (x, indices, batch) = (n.input(0)?, n.input(1)?, n.int_or("batch_dims", 0)?);
    let axes = indexed_axes(n, x, indices, batch)?;
    let indices = n.indices(x, indices, &axes)?;
    if batch > 0 && n.opset() < Opset::Ios16 {
        return gather_nd_batched(n, x, indices, batch as usize);
    }
    let y = n.without_bool(x, |n, x| n.op(ops::GatherNd { x, indices, batch_dims: batch, validate_indices: false }))?;
    n.done(y)
}

/// The axes that the last axis of `indices` goes over.
fn indexed_axes(n: &Lower<'_>, x: Value, indices: Value, batch: i64) -> Result<Vec<usize>, LowerError> {
    let depth = n.shape(indices)?.last().and_then(mlconv_tensor::Dim::as_usize);
    let depth = depth.ok_or_else(|| LowerError::NotFixed { what: "how many axes are indexed".to_owned() })?;
    let batch = usize::try_from(batch).map_err(|_| LowerError::not_yet("negative `batch_dims`"))?;
    let axes = batch..batch.saturating_add(depth);
    if axes.end > n.rank(x)? {
        return Err(LowerError::form(format!("indices of {depth} axes of {}", n.ty(x)?)));
    }
    Ok(axes.collect())
}

/// Writes the places along the batch axes into the indices, where the op cannot have them apart.
fn gather_nd_batched(n: &mut Lower<'_>, x: Value, indices: Value, batch: usize) -> Lowered {
    let rank = n.rank(indices)?;
    let mut parts = vec![];
    for axis in 0..batch {
        let count = n.counted(x, axis, DType::I32)?;
        let others: Vec<i64> = (0..rank as i64).filter(|i| *i != axis as i64).collect();
        let count = n.expand_dims(count, &others)?;
        let mut sizes = n.own_sizes(indices)?;
        sizes[rank - 1] = Size::Known(1);
        let shape = n.sizes_exactly(&sizes)?;
        parts.push(n.broadcast_to(count, shape)?);
    }
    parts.push(indices);
    let indices = n.concat(parts, -1)?;
    let y = n.without_bool(x, |n, x| n.op(ops::GatherNd { x, indices, batch_dims: 0, validate_indices: false }))?;
    n.done(y)
}

fn scatter_mode(n: &Lower<'_>) -> Result<ScatterMode, LowerError> {
    Ok(match n.str_or("reduction", "none")? {
        "none" => ScatterMode::Update,
        "add" => ScatterMode::Add,
        "mul" => ScatterMode::Mul,
        "max" => ScatterMode::Max,
        "min" => ScatterMode::Min,
        _ => return n.bad_attr("reduction", "`none`, `add`, `mul`, `max` or `min`"),
    })
}

fn scatter_elements(n: &mut Lower<'_>) -> Lowered {
    let (data, indices, updates) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (axis, mode) = (n.int_or("axis", 0)?, scatter_mode(n)?);
    let axis = n.axis(data, axis)?;
    let y = n.scatter_elements(data, indices, updates, axis, mode)?;
    n.done(y)
}

fn scatter_nd(n: &mut Lower<'_>) -> Lowered {
    let (data, indices, updates) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let mode = scatter_mode(n)?;
    let axes = indexed_axes(n, data, indices, 0)?;
    let indices = n.indices(data, indices, &axes)?;
    let dtype = n.dtype(data)?;
    let [data, updates] = n.without_bools([data, updates])?;
    let y = n.op(ops::ScatterNd { data, indices, updates, mode, validate_indices: false })?;
    let y = n.cast(y, dtype)?;
    n.done(y)
}

fn tensor_scatter(n: &mut Lower<'_>) -> Lowered {
    let (data, updates, write) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    let (axis, mode) = (n.int_or("axis", -2)?, n.str_or("mode", "linear")?);
    let circular = match mode {
        "linear" => false,
        "circular" => true,
        _ => return n.bad_attr("mode", "`linear` or `circular`"),
    };
    let (axis, rank) = (n.axis(data, axis)?, n.rank(data)?);
    let except = |axis: usize| (0..rank as i64).filter(|i| *i != axis as i64).collect::<Vec<_>>();
    let count = n.counted(updates, axis, DType::I32)?;
    let mut places = n.expand_dims(count, &except(axis))?;
    if let Some(write) = write {
        let write = n.expand_dims(write, &except(0))?;
        places = n.add(places, write)?;
    }
    if circular {
        let size = n.sizes_exactly(&[Size::Of(data, axis)])?;
        let size = n.squeeze(size, &[0])?;
        places = n.op(ops::Mod { x: places, y: size })?;
    }
    let indices = n.broadcast_like(places, updates)?;
    let dtype = n.dtype(data)?;
    let [data, updates] = n.without_bools([data, updates])?;
    let mode = ScatterMode::Update;
    let y = n.op(ops::ScatterAlongAxis { data, indices, updates, axis: axis as i64, mode, validate_indices: false })?;
    let y = n.cast(y, dtype)?;
    n.done(y)
}

fn compress(n: &mut Lower<'_>) -> Lowered {
    let (mut x, condition, axis) = (n.input(0)?, n.input(1)?, n.int("axis")?);
    if n.dtype(condition)? != DType::Bool || n.rank(condition)? != 1 {
        return Err(LowerError::form(format!(
            "a condition of {}, where a vector of bool is wanted,",
            n.ty(condition)?
        )));
    }
    let axis = match axis {
        Some(axis) => n.axis(x, axis)?,
        None => {
            x = n.reshape_to(x, &[-1])?;
            0
        }
    };
    let kept = n.op(ops::NonZero { x: condition })?;
    let indices = n.reshape_to(kept, &[-1])?;
    let y = n.gather(x, indices, axis)?;
    n.done(y)
}

fn non_zero(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let x = n.at_least_1d(x)?;
    let places = n.op(ops::NonZero { x })?;
    let y = n.transpose(places, &[1, 0])?;
    n.done(y)
}

fn one_hot(n: &mut Lower<'_>) -> Lowered {
    let (indices, depth, values, axis) = (n.input(0)?, n.input(1)?, n.input(2)?, n.int_or("axis", -1)?);
    let rank = n.rank(indices)? as i64 + 1;
    let axis = if axis < 0 { axis + rank } else { axis };
    if !(0..rank).contains(&axis) {
        return n.bad_attr("axis", format!("an axis of {rank}"));
    }
    let depth = n.as_scalar(depth)?;
    let (indices, depth) = (n.cast(indices, DType::I32)?, n.cast(depth, DType::I32)?);
    let indices = n.expand_dims(indices, &[axis])?;
    let zero = n.const_scalar(DType::I32, 0.0)?;
    let (negative, moved) = (n.less(indices, zero)?, n.add(indices, depth)?);
    let indices = n.select(negative, moved, indices)?;
    let one = n.const_scalar(DType::I32, 1.0)?;
    let places = n.op(ops::Range1d { end: depth, start: zero, step: one })?;
    let after: Vec<i64> = (1..rank - axis).collect();
    let places = n.expand_dims(places, &after)?;
    let hit = n.equal(indices, places)?;
    // An index outside of both ranges meets no place.
    let (off, on) = (n.element(values, 0)?, n.element(values, 1)?);
    let (off, on) = (n.squeeze(off, &[0])?, n.squeeze(on, &[0])?);
    let y = n.select(hit, on, off)?;
    n.done(y)
}
