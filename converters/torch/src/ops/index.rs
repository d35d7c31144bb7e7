//! Operators that read elements by index.

use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::{DType, Shape};

aten! {
    "index.Tensor(Tensor self, Tensor?[] indices) -> Tensor", "_unsafe_index.Tensor(Tensor self, Tensor?[] indices) -> Tensor" => index;
    "index_select(Tensor self, int dim, Tensor index) -> Tensor" => index_select;
    "gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor" => gather;
    "take_along_dim(Tensor self, Tensor indices, int? dim=None) -> Tensor" => take_along_dim;
    "take(Tensor self, Tensor index) -> Tensor" => take;
    "masked_select(Tensor self, Tensor mask) -> Tensor" => masked_select;
    "nonzero(Tensor self) -> Tensor", "argwhere(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; let y = places(n, x)?; n.done(y) };
    "nonzero_numpy(Tensor self) -> Tensor[]" => |n| {
        let x = n.value("self")?;
        let x = n.at_least_1d(x)?;
        Ok(columns(n, x)?.into_iter().map(Entry::Value).collect())
    };
    "one_hot(Tensor self, int num_classes=-1) -> Tensor" => one_hot;
    "repeat_interleave.Tensor(Tensor repeats, *, SymInt? output_size=None) -> Tensor" => |n| {
        let repeats = n.value("repeats")?;
        let indices = repeated_places(n, repeats)?;
        n.done(indices)
    };
    "repeat_interleave.self_Tensor(Tensor self, Tensor repeats, int? dim=None, *, SymInt? output_size=None) -> Tensor" => repeat_by_tensor;
    "repeat_interleave.self_int(Tensor self, SymInt repeats, int? dim=None, *, SymInt? output_size=None) -> Tensor" => repeat_alike;
    "unfold(Tensor(a) self, int dimension, int size, int step) -> Tensor(a)", "unfold_copy(Tensor self, int dimension, int size, int step) -> Tensor" => unfold;
    "as_strided(Tensor(a) self, SymInt[] size, SymInt[] stride, SymInt? storage_offset=None) -> Tensor(a)",
    "as_strided_copy(Tensor self, SymInt[] size, SymInt[] stride, SymInt? storage_offset=None) -> Tensor" => as_strided;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The coordinates of elements that are set, in rows.
fn places(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    if n.rank(x)? == 0 {
        return Err(LowerError::form("the place of a number without axes"));
    }
    n.op(ops::NonZero { x })
}

/// The coordinates of elements that are set, a vector for each axis.
pub(super) fn columns(n: &mut Lower<'_>, mask: Value) -> Result<Vec<Value>> {
    let rank = n.rank(mask)?;
    let rows = places(n, mask)?;
    (0..rank as i64)
        .map(|i| {
            let column = n.slice(rows, 1, i, Some(i + 1))?;
            n.squeeze(column, &[1])
        })
        .collect()
}

/// The vectors of indices of an argument `indices`, each with its axis: a mask is as many of them as it has axes.
pub(super) fn indices_arg(n: &mut Lower<'_>, x: Value) -> Result<Vec<(usize, Value)>> {
    let (mut out, mut axis) = (vec![], 0);
    for v in n.maybe_values("indices")? {
        let Some(v) = v else {
            axis += 1;
            continue;
        };
        if n.dtype(v)? != DType::Bool {
            out.push((axis, v));
            axis += 1;
            continue;
        }
        if n.rank(v)? == 0 {
            return Err(LowerError::form("a mask without axes"));
        }
        for column in columns(n, v)? {
            out.push((axis, column));
            axis += 1;
        }
    }
    if axis > n.rank(x)? {
        return Err(LowerError::form(format!("{axis} indices of {}", n.ty(x)?)));
    }
    Ok(out)
}

/// All in the one shape that they have together.
pub(super) fn together(n: &mut Lower<'_>, all: &[Value]) -> Result<Vec<Value>> {
    let mut values = vec![];
    for v in all {
        values.push(n.cast(*v, DType::I32)?);
    }
    let shapes = values.iter().map(|v| n.shape(*v)).collect::<Result<Vec<Shape>>>()?;
    if shapes.iter().all(|s| *s == shapes[0]) {
        return Ok(values);
    }
    let mut sum = values[0];
    for v in &values[1..] {
        sum = n.add(sum, *v)?;
    }
    let zeros = n.scale(sum, 0.0)?;
    values.into_iter().map(|v| n.add(v, zeros)).collect()
}

/// Whether axes follow each other, so that what they are replaced by stays in their place.
pub(super) fn adjacent(axes: &[usize]) -> bool {
    axes.windows(2).all(|w| w[1] == w[0] + 1)
}

/// The order of axes that puts `axes` in front.
pub(super) fn in_front(axes: &[usize], rank: usize) -> Vec<i64> {
    let rest = (0..rank).filter(|i| !axes.contains(i));
    axes.iter().copied().chain(rest).map(|i| i as i64).collect()
}

/// The order of axes that moves the first `count` ones behind the next `before`.
pub(super) fn moved_back(count: usize, before: usize, rank: usize) -> Vec<i64> {
    let first = count..count + before;
    first.chain(0..count).chain(count + before..rank).map(|i| i as i64).collect()
}

fn index(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let indices = indices_arg(n, x)?;
    let axes: Vec<usize> = indices.iter().map(|(axis, _)| *axis).collect();
    let y = match indices.as_slice() {
        [] => x,
        [(axis, v)] => {
            let v = n.cast(*v, DType::I32)?;
            n.gather(x, v, *axis)?
        }
        _ => {
            let values: Vec<Value> = indices.iter().map(|(_, v)| *v).collect();
            let values = together(n, &values)?;
            let (rank, shared) = (n.rank(x)?, n.rank(values[0])?);
            let front = n.permute(x, &in_front(&axes, rank))?;
            let parts = values.into_iter().map(|v| n.expand_dims(v, &[-1])).collect::<Result<Vec<_>>>()?;
            let indices = n.concat(parts, -1)?;
            let indices = n.indices(front, indices, &(0..axes.len()).collect::<Vec<_>>())?;
            let picked = n.without_bool(front, |n, x| {
                n.op(ops::GatherNd { x, indices, batch_dims: 0, validate_indices: false })
            })?;
            if adjacent(&axes) {
                let rank = n.rank(picked)?;
                n.permute(picked, &moved_back(shared, axes[0], rank))?
            } else {
                picked
            }
        }
    };
    n.done(y)
}

fn index_select(n: &mut Lower<'_>) -> Lowered {
    let (x, indices, dim) = (n.value("self")?, n.value("index")?, n.int_or("dim", 0)?);
    if n.rank(x)? == 0 {
        return n.done(x);
    }
    let axis = n.axis(x, dim)?;
    let indices = n.at_least_1d(indices)?;
    let y = n.gather(x, indices, axis)?;
    n.done(y)
}

fn gather(n: &mut Lower<'_>) -> Lowered {
    n.ignore("sparse_grad");
    let (x, indices, dim) = (n.value("self")?, n.value("index")?, n.int_or("dim", 0)?);
    let scalar = n.rank(indices)? == 0;
    let (x, indices) = (n.at_least_1d(x)?, n.at_least_1d(indices)?);
    let axis = n.axis(x, dim)?;
    let y = n.gather_elements(x, indices, axis)?;
    let y = if scalar { n.squeeze(y, &[0])? } else { y };
    n.done(y)
}

fn take_along_dim(n: &mut Lower<'_>) -> Lowered {
    let (x, indices, dim) = (n.value("self")?, n.value("indices")?, n.int("dim")?);
    let Some(dim) = dim else {
        let (x, indices) = (n.reshape_to(x, &[-1])?, n.reshape_to(indices, &[-1])?);
        let y = n.gather(x, indices, 0)?;
        return n.done(y);
    };
    let axis = n.axis(x, dim)?;
    // Along the other axes both have the shape that they have together.
    let (mut for_x, mut for_indices) = (n.own_sizes(indices)?, n.own_sizes(x)?);
    for_x[axis] = Size::Known(1);
    for_indices[axis] = Size::Known(1);
    let (for_x, for_indices) = (n.sizes_exactly(&for_x)?, n.sizes_exactly(&for_indices)?);
    let x = n.without_bool(x, |n, x| n.broadcast_to(x, for_x))?;
    let indices = n.broadcast_to(indices, for_indices)?;
    let y = n.gather_elements(x, indices, axis)?;
    n.done(y)
}

fn take(n: &mut Lower<'_>) -> Lowered {
    let (x, indices) = (n.value("self")?, n.value("index")?);
    let flat = n.reshape_to(x, &[-1])?;
    let y = n.gather(flat, indices, 0)?;
    n.done(y)
}

/// `v` in the shape that it and `other` have together.
pub(super) fn broadcast(n: &mut Lower<'_>, v: Value, other: Value) -> Result<Value> {
    if n.shape(v)? == n.shape(other)? {
        return Ok(v);
    }
    n.without_bool(v, |n, v| n.broadcast_like(v, other))
}

fn masked_select(n: &mut Lower<'_>) -> Lowered {
    let (x, mask) = (n.value("self")?, n.value("mask")?);
    let mask = n.cast(mask, DType::Bool)?;
    let (x, mask) = (broadcast(n, x, mask)?, broadcast(n, mask, x)?);
    let (x, mask) = (n.reshape_to(x, &[-1])?, n.reshape_to(mask, &[-1])?);
    let kept = n.op(ops::NonZero { x: mask })?;
    let kept = n.squeeze(kept, &[1])?;
    let y = n.gather(x, kept, 0)?;
    n.done(y)
}

/// `0, 1, …` up to a value, as a vector.
pub(super) fn count_to(n: &mut Lower<'_>, end: Value) -> Result<Value> {
    let (start, step) = (n.const_int(0)?, n.const_int(1)?);
    n.op(ops::Range1d { end, start, step })
}

fn one_hot(n: &mut Lower<'_>) -> Lowered {
    let (x, classes) = (n.value("self")?, n.int_or("num_classes", -1)?);
    let x = n.cast(x, DType::I32)?;
    let classes = if classes < 0 {
        let flat = n.reshape_to(x, &[-1])?;
        let most = n.op(ops::ReduceMax { x: flat, axes: None, keep_dims: false })?;
        n.add_number(most, 1.0)?
    } else {
        n.const_int(classes)?
    };
    let numbers = count_to(n, classes)?;
    let x = n.expand_dims(x, &[-1])?;
    let hit = n.equal(x, numbers)?;
    let y = n.cast(hit, DType::I32)?;
    n.done(y)
}

/// For each element of what is repeated, the place that it comes from.
fn repeated_places(n: &mut Lower<'_>, repeats: Value) -> Result<Value> {
    n.ignore("output_size");
    if let Some(known) = n.known_ints(repeats) {
        let total: i64 = known.iter().map(|k| (*k).max(0)).fold(0, i64::saturating_add);
        n.affords(usize::try_from(total).unwrap_or(usize::MAX))?;
        let times = |(i, k): (usize, &i64)| std::iter::repeat_n(i as i64, usize::try_from(*k).unwrap_or(0));
        return n.const_ints(&known.iter().enumerate().flat_map(times).collect::<Vec<_>>());
    }
    let repeats = n.cast(repeats, DType::I32)?;
    let ends = n.op(ops::Cumsum { x: repeats, axis: 0, exclusive: false, reverse: false })?;
    let total = n.op(ops::ReduceSum { x: repeats, axes: None, keep_dims: false })?;
    let numbers = count_to(n, total)?;
    let (numbers, ends) = (n.expand_dims(numbers, &[1])?, n.expand_dims(ends, &[0])?);
    let over = n.op(ops::LessEqual { x: ends, y: numbers })?;
    let over = n.cast(over, DType::I32)?;
    n.op(ops::ReduceSum { x: over, axes: Some(vec![1]), keep_dims: false })
}

fn repeat_by_tensor(n: &mut Lower<'_>) -> Lowered {
    let (x, repeats, dim) = (n.value("self")?, n.value("repeats")?, n.int("dim")?);
    if n.shape(repeats)?.count().is(1) {
        let times = n.as_scalar(repeats)?;
        n.ignore("output_size");
        return repeated(n, x, Size::Held(times), dim);
    }
    let indices = repeated_places(n, repeats)?;
    let (x, axis) = match dim {
        Some(dim) => (x, n.axis(x, dim)?),
        None => (n.reshape_to(x, &[-1])?, 0),
    };
    let y = n.gather(x, indices, axis)?;
    n.done(y)
}

fn repeat_alike(n: &mut Lower<'_>) -> Lowered {
    n.ignore("output_size");
    let (x, dim) = (n.value("self")?, n.int("dim")?);
    let Some(times) = n.size("repeats")? else { return n.bad_attr("repeats", "a number") };
    repeated(n, x, times, dim)
}

/// Every element so many times.
fn repeated(n: &mut Lower<'_>, x: Value, times: Size, dim: Option<i64>) -> Lowered {
    let (x, axis) = match dim {
        Some(dim) => (x, n.axis(x, dim)?),
        None => (n.reshape_to(x, &[-1])?, 0),
    };
    let x = n.expand_dims(x, &[axis as i64 + 1])?;
    let rank = n.rank(x)?;
    let reps: Vec<Size> = (0..rank).map(|i| if i == axis + 1 { times } else { Size::Known(1) }).collect();
    let reps = n.sizes_exactly(&reps)?;
    let y = n.without_bool(x, |n, x| n.op(ops::Tile { x, reps }))?;
    let y = n.merge_axes(y, axis, axis + 2)?;
    n.done(y)
}

/// Windows along an axis, as a further axis at the end.
fn unfold(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dimension", 0)?);
    let (size, step) = (n.int_or("size", 1)?, n.int_or("step", 1)?);
    if !(1..=1 << 20).contains(&size) || step < 1 {
        return n.bad_attr("size", "windows of at least 1 element and steps of at least 1");
    }
    if n.rank(x)? == 0 {
        let y = n.expand_dims(x, &[0])?;
        return n.done(y);
    }
    let axis = n.axis(x, dim)?;
    let total = n.sizes_exactly(&[Size::Of(x, axis)])?;
    let total = n.squeeze(total, &[0])?;
    let end = n.add_number(total, 1.0 - size as f64)?;
    let (start, step) = (n.const_int(0)?, n.const_int(step)?);
    let starts = n.op(ops::Range1d { end, start, step })?;
    let starts = n.expand_dims(starts, &[1])?;
    let within = n.const_ints(&(0..size).collect::<Vec<_>>())?;
    let places = n.add(starts, within)?;
    let y = n.gather(x, places, axis)?;
    // The window, which is behind its axis, comes last.
    let rank = n.rank(y)? as i64;
    let window = axis as i64 + 1;
    let order: Vec<i64> = (0..rank).filter(|i| *i != window).chain([window]).collect();
    let y = n.permute(y, &order)?;
    n.done(y)
}

/// A view of memory: elements that lie so far apart in that of a tensor, whose own lie one after the other.
fn as_strided(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    if let Some(why) = n.str("self_layout")? {
        return Err(LowerError::form(format!("a view of the memory of a tensor that is {why}")));
    }
    let (size, stride) = (n.ints("size")?.unwrap_or_default(), n.ints("stride")?.unwrap_or_default());
    let offset = n.int_or("storage_offset", 0)?;
    if size.len() != stride.len() || size.iter().chain(&stride).any(|d| *d < 0) {
        return n.bad_attr("stride", "as many strides as sizes");
    }
    let count = size.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?)).unwrap_or(usize::MAX);
    n.affords(count)?;
    // Of no elements there are no places, however long the other axes are.
    let mut places = if count == 0 { vec![] } else { vec![offset] };
    for (size, stride) in size.iter().zip(&stride).filter(|_| count > 0) {
        let step = |at: &i64| (0..*size).map(|i| at.saturating_add(i.saturating_mul(*stride))).collect::<Vec<_>>();
        places = places.iter().flat_map(step).collect();
    }
    let flat = n.reshape_to(x, &[-1])?;
    let total = n.shape(flat)?[0].as_known();
    let in_order = places.iter().enumerate().all(|(i, at)| *at == i as i64);
    let y = if in_order && total == Some(places.len() as i64) { flat } else { n.gather_at(flat, 0, &places)? };
    let y = if size.is_empty() { n.squeeze(y, &[0])? } else { n.reshape_to(y, &size)? };
    n.done(y)
}
