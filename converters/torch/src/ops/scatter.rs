//! Operators that write elements by index.

use super::index::{adjacent, broadcast, in_front, indices_arg, together};
use super::movement::{chunk_size, cut_at, replaced};
use mlconv_mil::{ir::Value, ops, ops::ScatterMode};
use mlconv_source::{Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

aten! {
    "scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor" => |n| scatter(n, ScatterMode::Update);
    "scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor" => |n| scatter(n, ScatterMode::Update);
    "scatter.reduce(Tensor self, int dim, Tensor index, Tensor src, *, str reduce) -> Tensor",
    "scatter.value_reduce(Tensor self, int dim, Tensor index, Scalar value, *, str reduce) -> Tensor" => |n| {
        let mode = match n.str("reduce")? {
            Some("add") => ScatterMode::Add,
            Some("multiply") => ScatterMode::Mul,
            _ => return n.bad_attr("reduce", "`add` or `multiply`"),
        };
        scatter(n, mode)
    };
    "scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor" => |n| scatter(n, ScatterMode::Add);
    "scatter_reduce.two(Tensor self, int dim, Tensor index, Tensor src, str reduce, *, bool include_self=True) -> Tensor" => scatter_reduce;
    "index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor",
    "_unsafe_index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor",
    "_index_put_impl(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False, bool unsafe=False) -> Tensor" => index_put;
    "index_add(Tensor self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor" => index_add;
    "index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor" => |n| { let source = n.value("source")?; along(n, source, ScatterMode::Update) };
    "index_fill.int_Scalar(Tensor self, int dim, Tensor index, Scalar value) -> Tensor",
    "index_fill.int_Tensor(Tensor self, int dim, Tensor index, Tensor value) -> Tensor" => index_fill;
    "index_reduce(Tensor self, int dim, Tensor index, Tensor source, str reduce, *, bool include_self=True) -> Tensor" => index_reduce;
    "masked_scatter(Tensor self, Tensor mask, Tensor source) -> Tensor" => masked_scatter;
    "put(Tensor self, Tensor index, Tensor source, bool accumulate=False) -> Tensor" => put;
    "diagonal_scatter(Tensor self, Tensor src, int offset=0, int dim1=0, int dim2=1) -> Tensor" => diagonal_scatter;
    "_put_part(Tensor self, Tensor src, str of, int index, int dim=0) -> Tensor" => put_part;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The arguments of a scatter: the tensor, the indices, what is written, which has their shape, and the axis. A number by
/// itself is a vector of one.
fn scatter_args(n: &mut Lower<'_>) -> Result<(Value, Value, Value, usize)> {
    let (x, index, dim) = (n.value("self")?, n.value("index")?, n.int_or("dim", 0)?);
    let src = if n.has("value") { n.value("value")? } else { n.value("src")? };
    let dtype = n.dtype(x)?;
    let src = n.cast(src, dtype)?;
    let (x, index) = (n.at_least_1d(x)?, n.at_least_1d(index)?);
    let axis = n.axis(x, dim)?;
    let src = if n.rank(src)? == 0 {
        broadcast(n, src, index)?
    } else {
        // There may be more than indices.
        let (own, want) = (n.shape(src)?, n.shape(index)?);
        let cut = |(i, d): (usize, &mlconv_tensor::Dim)| {
            let known = d.as_known()?;
            (own.get(i)?.as_known()? > known).then_some((i, 0, Some(known), 1))
        };
        let cuts: Vec<_> = want.iter().enumerate().filter_map(cut).collect();
        if cuts.is_empty() { src } else { n.slice_by(src, &cuts)? }
    };
    Ok((x, index, src, axis))
}

fn scatter(n: &mut Lower<'_>, mode: ScatterMode) -> Lowered {
    let scalar = is_scalar(n)?;
    let (x, index, src, axis) = scatter_args(n)?;
    let y = n.scatter_elements(x, index, src, axis, mode)?;
    finished(n, y, scalar)
}

fn is_scalar(n: &mut Lower<'_>) -> Result<bool> {
    let x = n.value("self")?;
    Ok(n.rank(x)? == 0)
}

fn finished(n: &mut Lower<'_>, y: Value, scalar: bool) -> Lowered {
    let y = if scalar { n.squeeze(y, &[0])? } else { y };
    n.done(y)
}

fn scatter_reduce(n: &mut Lower<'_>) -> Lowered {
    let (scalar, include) = (is_scalar(n)?, n.flag("include_self", true)?);
    let reduce = n.str_or("reduce", "")?;
    let (x, index, src, axis) = scatter_args(n)?;
    let write = |n: &mut Lower<'_>, data, updates, mode| n.scatter_elements(data, index, updates, axis, mode);
    let y = reduced(n, reduce, include, [x, src, index], write)?;
    finished(n, y, scalar)
}

/// `x` with `updates` written to it and reduced with what else is written to a place, and with what was there where that is to be
/// included. As many numbers are written as `like` has.
fn reduced(
    n: &mut Lower<'_>,
    reduce: &str,
    include: bool,
    [mut x, updates, like]: [Value; 3],
    write: impl Fn(&mut Lower<'_>, Value, Value, ScatterMode) -> Result<Value>,
) -> Result<Value> {
    let float = n.dtype(x)?.is_float();
    let (mode, neutral) = reducing(n, reduce, float)?;
    let one_like = x;
    let filled = |n: &mut Lower<'_>, like: Value, number: f64| {
        let one = n.scalar_like(one_like, number)?;
        broadcast(n, one, like)
    };
    if !include {
        // What is written to begins anew.
        let start = filled(n, like, neutral)?;
        x = write(n, x, start, ScatterMode::Update)?;
    }
    let y = write(n, x, updates, mode)?;
    if reduce != "mean" {
        return Ok(y);
    }
    let (ones, first) = (filled(n, like, 1.0)?, filled(n, x, f64::from(u8::from(include)))?);
    let count = write(n, first, ones, ScatterMode::Add)?;
    let one = n.scalar_like(count, 1.0)?;
    let count = n.maximum(count, one)?;
    if float { n.div(y, count) } else { n.op(ops::FloorDiv { x: y, y: count }) }
}

/// How elements of one place become one, and what changes nothing there.
fn reducing(n: &Lower<'_>, reduce: &str, float: bool) -> Result<(ScatterMode, f64)> {
    let (least, most) = if float { (f64::NEG_INFINITY, f64::INFINITY) } else { (i32::MIN.into(), i32::MAX.into()) };
    Ok(match reduce {
        "sum" | "mean" => (ScatterMode::Add, 0.0),
        "prod" => (ScatterMode::Mul, 1.0),
        "amax" => (ScatterMode::Max, least),
        "amin" => (ScatterMode::Min, most),
        _ => return n.bad_attr("reduce", "`sum`, `prod`, `mean`, `amax` or `amin`"),
    })
}

/// Slices of `source` with those of `self` at the places that the index names.
fn index_reduce(n: &mut Lower<'_>) -> Lowered {
    let (x, index, source, dim) = (n.value("self")?, n.value("index")?, n.value("source")?, n.int_or("dim", 0)?);
    let (scalar, include, reduce) = (is_scalar(n)?, n.flag("include_self", true)?, n.str_or("reduce", "")?);
    let source = n.cast(source, n.dtype(x)?)?;
    let (data, index, updates) = (n.at_least_1d(x)?, n.at_least_1d(index)?, n.at_least_1d(source)?);
    let place = n.axis(data, dim)?;
    let (axis, indices, validate_indices) = (place as i64, n.indices(data, index, &[place])?, false);
    let write = |n: &mut Lower<'_>, data, updates, mode| {
        n.op(ops::Scatter { data, indices, updates, axis, mode, validate_indices })
    };
    let y = reduced(n, reduce, include, [data, updates, updates], write)?;
    finished(n, y, scalar)
}

fn index_put(n: &mut Lower<'_>) -> Lowered {
    n.ignore("unsafe");
    let (x, values, accumulate) = (n.value("self")?, n.value("values")?, n.flag("accumulate", false)?);
    let dtype = n.dtype(x)?;
    let values = n.cast(values, dtype)?;
    if let [Some(mask)] = n.maybe_values("indices")?[..]
        && n.dtype(mask)? == DType::Bool
        && n.shape(values)?.count().is(1)
        && n.rank(mask)? > 0
    {
        // One value for all that is set is a choice.
        let rest: Vec<i64> = (n.rank(mask)?..n.rank(x)?).map(|i| i as i64).collect();
        let mask = n.expand_dims(mask, &rest)?;
        let value = n.as_scalar(values)?;
        let new = if accumulate { n.add(x, value)? } else { value };
        return n.emit(ops::Select { cond: mask, a: new, b: x });
    }
    let indices = indices_arg(n, x)?;
    if indices.is_empty() {
        let y = broadcast(n, values, x)?;
        return n.done(y);
    }
    let axes: Vec<usize> = indices.iter().map(|(axis, _)| *axis).collect();
    let all: Vec<Value> = indices.iter().map(|(_, v)| *v).collect();
    let all = together(n, &all)?;
    let (rank, shared) = (n.rank(x)?, n.rank(all[0])?);
    // What is written has the shape of what an index would read: the places first, or where the axes were.
    let order = in_front(&axes, rank);
    let front = n.permute(x, &order)?;
    let places = n.own_sizes(all[0])?;
    let rest: Vec<Size> = (axes.len()..rank).map(|i| Size::Of(front, i)).collect();
    let before = if adjacent(&axes) { axes[0] } else { 0 };
    let (ahead, behind) = rest.split_at(before);
    let sizes: Vec<Size> = ahead.iter().chain(&places).chain(behind).copied().collect();
    let updates = if sizes.is_empty() {
        n.as_scalar(values)?
    } else {
        let shape = n.sizes_exactly(&sizes)?;
        let extra = n.rank(values)?.saturating_sub(sizes.len());
        let values = n.squeeze(values, &(0..extra as i64).collect::<Vec<_>>())?;
        n.without_bool(values, |n, v| n.broadcast_to(v, shape))?
    };
    let moved: Vec<i64> =
        (before..before + shared).chain(0..before).chain(before + shared..sizes.len()).map(|i| i as i64).collect();
    let updates = if sizes.is_empty() { updates } else { n.permute(updates, &moved)? };
    let parts = all.into_iter().map(|v| n.expand_dims(v, &[-1])).collect::<Result<Vec<_>>>()?;
    let indices = n.concat(parts, -1)?;
    let indices = n.indices(front, indices, &(0..axes.len()).collect::<Vec<_>>())?;
    let mode = if accumulate { ScatterMode::Add } else { ScatterMode::Update };
    // An index without axes is a list of one.
    let (indices, updates) =
        if shared == 0 { (n.expand_dims(indices, &[0])?, n.expand_dims(updates, &[0])?) } else { (indices, updates) };
    let [data, updates] = n.without_bools([front, updates])?;
    let y = n.op(ops::ScatterNd { data, indices, updates, mode, validate_indices: false })?;
    let y = n.cast(y, dtype)?;
    let back: Vec<i64> = (0..rank as i64).map(|i| order.iter().position(|o| *o == i).unwrap_or(0) as i64).collect();
    let y = n.permute(y, &back)?;
    n.done(y)
}

/// Whole slices along an axis.
fn along(n: &mut Lower<'_>, source: Value, mode: ScatterMode) -> Lowered {
    let (x, index, dim) = (n.value("self")?, n.value("index")?, n.int_or("dim", 0)?);
    let scalar = is_scalar(n)?;
    let dtype = n.dtype(x)?;
    let updates = n.cast(source, dtype)?;
    let (data, indices, updates) = (n.at_least_1d(x)?, n.at_least_1d(index)?, n.at_least_1d(updates)?);
    let axis = n.axis(data, dim)?;
    let indices = n.indices(data, indices, &[axis])?;
    let [data, updates] = n.without_bools([data, updates])?;
    let y = n.op(ops::Scatter { data, indices, updates, axis: axis as i64, mode, validate_indices: false })?;
    let y = n.cast(y, dtype)?;
    finished(n, y, scalar)
}

fn index_add(n: &mut Lower<'_>) -> Lowered {
    let (x, source) = (n.value("self")?, n.value("source")?);
    let dtype = n.dtype(x)?;
    let source = n.cast(source, dtype)?;
    let source = match n.number("alpha")? {
        Some(alpha) if dtype != DType::Bool => n.scale(source, alpha)?,
        _ => source,
    };
    along(n, source, ScatterMode::Add)
}

fn index_fill(n: &mut Lower<'_>) -> Lowered {
    let (x, index, dim, value) = (n.value("self")?, n.value("index")?, n.int_or("dim", 0)?, n.value("value")?);
    let dtype = n.dtype(x)?;
    let value = n.cast(value, dtype)?;
    let whole = n.at_least_1d(x)?;
    let axis = n.axis(whole, dim)?;
    let index = n.at_least_1d(index)?;
    let mut sizes = n.own_sizes(whole)?;
    sizes[axis] = Size::Of(index, 0);
    let shape = n.sizes_exactly(&sizes)?;
    let source = n.without_bool(value, |n, v| n.broadcast_to(v, shape))?;
    along(n, source, ScatterMode::Update)
}

/// Of what is set, the first place gets the first element, and so on.
fn masked_scatter(n: &mut Lower<'_>) -> Lowered {
    let (x, mask, source) = (n.value("self")?, n.value("mask")?, n.value("source")?);
    let dtype = n.dtype(x)?;
    let (mask, source) = (n.cast(mask, DType::Bool)?, n.cast(source, dtype)?);
    let (x, mask) = (broadcast(n, x, mask)?, broadcast(n, mask, x)?);
    let flat = n.reshape_to(mask, &[-1])?;
    let flat = n.cast(flat, DType::I32)?;
    let place = n.op(ops::Cumsum { x: flat, axis: 0, exclusive: true, reverse: false })?;
    let source = n.reshape_to(source, &[-1])?;
    // Places behind the last one that is set are not taken.
    let size = n.sizes_exactly(&[Size::Of(source, 0)])?;
    let size = n.squeeze(size, &[0])?;
    let last = n.add_number(size, -1.0)?;
    let place = n.minimum(place, last)?;
    let new = n.gather(source, place, 0)?;
    let new = n.reshape_as(new, x)?;
    n.emit(ops::Select { cond: mask, a: new, b: x })
}

fn put(n: &mut Lower<'_>) -> Lowered {
    let (x, index, source) = (n.value("self")?, n.value("index")?, n.value("source")?);
    let mode = if n.flag("accumulate", false)? { ScatterMode::Add } else { ScatterMode::Update };
    let dtype = n.dtype(x)?;
    let source = n.cast(source, dtype)?;
    let (flat, index, source) = (n.reshape_to(x, &[-1])?, n.reshape_to(index, &[-1])?, n.reshape_to(source, &[-1])?);
    let y = n.scatter_elements(flat, index, source, 0, mode)?;
    let y = if n.rank(x)? == 0 { n.squeeze(y, &[0])? } else { n.reshape_as(y, x)? };
    n.done(y)
}

fn diagonal_scatter(n: &mut Lower<'_>) -> Lowered {
    let (x, src) = (n.value("self")?, n.value("src")?);
    let (offset, dim1, dim2) = (n.int_or("offset", 0)?, n.int_or("dim1", 0)?, n.int_or("dim2", 1)?);
    let (a, b) = (n.axis(x, dim1)?, n.axis(x, dim2)?);
    let dtype = n.dtype(x)?;
    let src = n.cast(src, dtype)?;
    let (rank, shape) = (n.rank(x)?, n.shape(x)?);
    let (Some(rows), Some(columns)) = (shape[a].as_known(), shape[b].as_known()) else {
        return Err(LowerError::NotFixed { what: "the diagonal that is written".to_owned() });
    };
    n.affords(usize::try_from(rows.min(columns)).unwrap_or(0))?;
    let places = super::diagonal::places(rows, columns, offset);
    // Both axes in front, as one; the axis of the diagonal in front of what is written.
    let order = in_front(&[a, b], rank);
    let front = n.permute(x, &order)?;
    let merged = n.merge_axes(front, 0, 2)?;
    let rank_of_src = n.rank(src)?;
    let Some(last) = rank_of_src.checked_sub(1) else { return Err(LowerError::form("a scalar for a diagonal")) };
    let turned = n.permute(src, &in_front(&[last], rank_of_src))?;
    let indices = n.const_ints(&places)?;
    let [data, updates] = n.without_bools([merged, turned])?;
    let mode = ScatterMode::Update;
    let y = n.op(ops::Scatter { data, indices, updates, axis: 0, mode, validate_indices: false })?;
    let y = n.cast(y, dtype)?;
    let y = n.reshape_as(y, front)?;
    let back: Vec<i64> = (0..rank as i64).map(|i| order.iter().position(|o| *o == i).unwrap_or(0) as i64).collect();
    let y = n.permute(y, &back)?;
    n.done(y)
}

/// `self` with `src` in the place of one of the parts that it is split into.
fn put_part(n: &mut Lower<'_>) -> Lowered {
    let (x, mut src, dim, part) = (n.value("self")?, n.value("src")?, n.int_or("dim", 0)?, n.int_or("index", 0)?);
    let axis = n.axis(x, dim)?;
    let total = n.shape(x)?[axis].as_known();
    let total = total.ok_or_else(|| LowerError::NotFixed { what: "the part that is written".to_owned() })?;
    let of = n.str_or("of", "")?;
    let at = usize::try_from(part).unwrap_or(usize::MAX);
    let start = match of.split('.').next().unwrap_or_default() {
        "unbind" => {
            src = n.expand_dims(src, &[axis as i64])?;
            part
        }
        "split" if !of.ends_with("sizes") => part.saturating_mul(n.int_or("split_size", 1)?),
        "split" | "split_with_sizes" => {
            let name = if n.has("split_sizes") { "split_sizes" } else { "split_size" };
            n.ints(name)?.unwrap_or_default().iter().take(at).fold(0, |all: i64, size| all.saturating_add(*size))
        }
        "chunk" => {
            let count = n.int_or("chunks", 1)?.max(1);
            part.saturating_mul(chunk_size(total, count))
        }
        "tensor_split" if n.has("sections") => {
            let count = n.int_or("sections", 1)?.max(1);
            (total / count).saturating_mul(part).saturating_add(part.min(total % count))
        }
        "tensor_split" => {
            let cuts = n.ints("indices")?.unwrap_or_default();
            at.checked_sub(1).and_then(|i| cuts.get(i)).map_or(0, |cut| cut_at(*cut, total))
        }
        _ => return n.bad_attr("of", "an operator that splits"),
    };
    let length = n.shape(src)?[axis].as_known();
    let length = length.ok_or_else(|| LowerError::NotFixed { what: "the part that is written".to_owned() })?;
    let y = replaced(n, x, src, axis, start, start.saturating_add(length), 1)?;
    n.done(y)
}
