//! Reductions: many elements to one.

use super::promote::converted;
use mlconv_mil::{ir::Value, ops, schema::Op};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

aten! {
    "sum(Tensor self, *, ScalarType? dtype=None) -> Tensor",
    "sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor" =>
        |n| { let x = numbers(n)?; reduce(n, x, |x, axes, keep_dims| ops::ReduceSum { x, axes, keep_dims }) };
    "mean(Tensor self, *, ScalarType? dtype=None) -> Tensor",
    "mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor" =>
        |n| { let x = numbers(n)?; let x = n.as_float(x)?; reduce(n, x, |x, axes, keep_dims| ops::ReduceMean { x, axes, keep_dims }) };
    "prod(Tensor self, *, ScalarType? dtype=None) -> Tensor",
    "prod.dim_int(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor" =>
        |n| { let x = numbers(n)?; reduce(n, x, |x, axes, keep_dims| ops::ReduceProd { x, axes, keep_dims }) };
    "amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor",
    "max(Tensor self) -> Tensor" => |n| extreme(n, |x, axes, keep_dims| ops::ReduceMax { x, axes, keep_dims });
    "amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor",
    "min(Tensor self) -> Tensor" => |n| extreme(n, |x, axes, keep_dims| ops::ReduceMin { x, axes, keep_dims });
    "aminmax(Tensor self, *, int? dim=None, bool keepdim=False) -> (Tensor min, Tensor max)" => |n| {
        let mut least = extreme(n, |x, axes, keep_dims| ops::ReduceMin { x, axes, keep_dims })?;
        least.extend(extreme(n, |x, axes, keep_dims| ops::ReduceMax { x, axes, keep_dims })?);
        Ok(least)
    };
    "max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)" => |n| {
        let place = |x, axis, keep_dims| ops::ReduceArgmax { x, axis, keep_dims, output_dtype: DType::I32 };
        with_place(n, |x, axes, keep_dims| ops::ReduceMax { x, axes, keep_dims }, place)
    };
    "min.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)" => |n| {
        let place = |x, axis, keep_dims| ops::ReduceArgmin { x, axis, keep_dims, output_dtype: DType::I32 };
        with_place(n, |x, axes, keep_dims| ops::ReduceMin { x, axes, keep_dims }, place)
    };
    "argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor" =>
        |n| place(n, |x, axis, keep_dims| ops::ReduceArgmax { x, axis, keep_dims, output_dtype: DType::I32 });
    "argmin(Tensor self, int? dim=None, bool keepdim=False) -> Tensor" =>
        |n| place(n, |x, axis, keep_dims| ops::ReduceArgmin { x, axis, keep_dims, output_dtype: DType::I32 });
    "any(Tensor self) -> Tensor", "any.dim(Tensor self, int dim, bool keepdim=False) -> Tensor",
    "any.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor" => |n| truth(n, |x, axes, keep_dims| ops::ReduceMax { x, axes, keep_dims });
    "all(Tensor self) -> Tensor", "all.dim(Tensor self, int dim, bool keepdim=False) -> Tensor",
    "all.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor" => |n| truth(n, |x, axes, keep_dims| ops::ReduceMin { x, axes, keep_dims });
    "var(Tensor self, bool unbiased=True) -> Tensor", "var.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor",
    "var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor" => |n| spread(n, false, false);
    "std(Tensor self, bool unbiased=True) -> Tensor", "std.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor",
    "std.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor" => |n| spread(n, true, false);
    "var_mean(Tensor self, bool unbiased=True) -> (Tensor, Tensor)",
    "var_mean.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> (Tensor, Tensor)",
    "var_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (Tensor, Tensor)" => |n| spread(n, false, true);
    "std_mean(Tensor self, bool unbiased=True) -> (Tensor, Tensor)",
    "std_mean.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> (Tensor, Tensor)",
    "std_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (Tensor, Tensor)" => |n| spread(n, true, true);
    "logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor", "special_logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor" =>
        |n| { let x = n.value("self")?; let x = n.as_float(x)?; reduce(n, x, |x, axes, keep_dims| ops::ReduceLogSumExp { x, axes, keep_dims }) };
    "count_nonzero(Tensor self, int? dim=None) -> Tensor", "count_nonzero.dim_IntList(Tensor self, int[] dim) -> Tensor" => |n| {
        let x = n.value("self")?;
        let x = is_set(n, x)?;
        let x = n.cast(x, DType::I32)?;
        reduce(n, x, |x, axes, keep_dims| ops::ReduceSum { x, axes, keep_dims })
    };
    "nansum(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor" => |n| {
        let (x, _) = without_nan(n, 0.0)?;
        reduce(n, x, |x, axes, keep_dims| ops::ReduceSum { x, axes, keep_dims })
    };
    "nanmean(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor" => nanmean;
    "median(Tensor self) -> Tensor" => |n| median_of_all(n, false);
    "nanmedian(Tensor self) -> Tensor" => |n| median_of_all(n, true);
    "median.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)" => |n| median(n, false);
    "nanmedian.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)" => |n| median(n, true);
    "trace(Tensor self) -> Tensor" => trace;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The argument `self` in the type that `dtype` asks for; truth values are counted.
fn numbers(n: &mut Lower<'_>) -> Result<Value> {
    let x = n.value("self")?;
    match n.dtype_arg("dtype")? {
        Some(dtype) => converted(n, x, dtype),
        None if n.dtype(x)? == DType::Bool => n.cast(x, DType::I32),
        None => Ok(x),
    }
}

/// The axes that `dim` means, in ascending order: all where it is not given or empty.
pub(super) fn axes(n: &Lower<'_>, x: Value, dims: Option<Vec<i64>>) -> Result<Vec<i64>> {
    let rank = n.rank(x)?;
    if rank == 0 {
        return Ok(vec![]);
    }
    let mut axes = vec![];
    match dims.filter(|d| !d.is_empty()) {
        None => axes.extend(0..rank as i64),
        Some(dims) => {
            for d in dims {
                axes.push(n.axis(x, d)? as i64);
            }
        }
    }
    axes.sort_unstable();
    axes.dedup();
    Ok(axes)
}

/// A reduction over axes. A tensor without axes has one element.
pub(super) fn over<O: Op>(
    n: &mut Lower<'_>,
    x: Value,
    axes: &[i64],
    keep: bool,
    op: fn(Value, Option<Vec<i64>>, bool) -> O,
) -> Result<Value> {
    if n.rank(x)? == 0 {
        let x = n.expand_dims(x, &[0])?;
        return n.op(op(x, Some(vec![0]), false));
    }
    n.op(op(x, Some(axes.to_vec()), keep))
}

fn reduce<O: Op>(n: &mut Lower<'_>, x: Value, op: fn(Value, Option<Vec<i64>>, bool) -> O) -> Lowered {
    let (dims, keep) = (n.ints("dim")?, n.flag("keepdim", false)?);
    let axes = axes(n, x, dims)?;
    let y = over(n, x, &axes, keep, op)?;
    n.done(y)
}

fn extreme<O: Op>(n: &mut Lower<'_>, op: fn(Value, Option<Vec<i64>>, bool) -> O) -> Lowered {
    let x = n.value("self")?;
    let (dims, keep) = (n.ints("dim")?, n.flag("keepdim", false)?);
    let axes = axes(n, x, dims)?;
    let y = n.without_bool(x, |n, x| over(n, x, &axes, keep, op))?;
    n.done(y)
}

fn with_place<O: Op, P: Op>(
    n: &mut Lower<'_>,
    op: fn(Value, Option<Vec<i64>>, bool) -> O,
    at: fn(Value, i64, bool) -> P,
) -> Lowered {
    let (x, keep, dim) = (n.value("self")?, n.flag("keepdim", false)?, n.int_or("dim", 0)?);
    if n.rank(x)? == 0 {
        let zero = n.const_int(0)?;
        return Ok(vec![Entry::Value(x), Entry::Value(zero)]);
    }
    let axis = n.axis(x, dim)? as i64;
    let values = n.without_bool(x, |n, x| n.op(op(x, Some(vec![axis]), keep)))?;
    let x = if n.dtype(x)? == DType::Bool { n.cast(x, DType::I32)? } else { x };
    let indices = n.op(at(x, axis, keep))?;
    Ok(vec![Entry::Value(values), Entry::Value(indices)])
}

fn place<P: Op>(n: &mut Lower<'_>, at: fn(Value, i64, bool) -> P) -> Lowered {
    let (x, keep, dim) = (n.value("self")?, n.flag("keepdim", false)?, n.int("dim")?);
    let rank = n.rank(x)?;
    if rank == 0 {
        let zero = n.const_int(0)?;
        return n.done(zero);
    }
    let x = if n.dtype(x)? == DType::Bool { n.cast(x, DType::I32)? } else { x };
    if let Some(dim) = dim {
        let axis = n.axis(x, dim)? as i64;
        return n.emit(at(x, axis, keep));
    }
    let flat = n.reshape_to(x, &[-1])?;
    let mut y = n.op(at(flat, 0, false))?;
    if keep {
        y = n.expand_dims(y, &(0..rank as i64).collect::<Vec<_>>())?;
    }
    n.done(y)
}

/// Whether elements are not zero; NaN is not.
pub(super) fn is_set(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    if n.dtype(x)? == DType::Bool {
        return Ok(x);
    }
    let zero = n.scalar_like(x, 0.0)?;
    n.op(ops::NotEqual { x, y: zero })
}

/// Whether any or all are set. Of bytes the result is bytes; no axes, where they are given, are none.
fn truth<O: Op>(n: &mut Lower<'_>, op: fn(Value, Option<Vec<i64>>, bool) -> O) -> Lowered {
    let bytes = n.dtype_of("self") == Some(DType::U8);
    let (x, dims, keep) = (n.value("self")?, n.ints("dim")?, n.flag("keepdim", false)?);
    let mut y = is_set(n, x)?;
    if dims.as_ref().is_none_or(|d| !d.is_empty()) {
        let axes = axes(n, x, dims)?;
        let numbers = n.cast(y, DType::I32)?;
        let found = over(n, numbers, &axes, keep, op)?;
        y = n.cast(found, DType::Bool)?;
    }
    if bytes {
        y = n.cast(y, DType::I32)?;
    }
    n.done(y)
}

/// How many elements a reduction over `axes` is of, in the float type of `x`.
fn count(n: &mut Lower<'_>, x: Value, axes: &[i64]) -> Result<Value> {
    let shape = n.shape(x)?;
    let known: Option<i64> =
        axes.iter().try_fold(1i64, |all, a| shape.get(*a as usize)?.as_known().map(|d| all.saturating_mul(d)));
    if let Some(known) = known {
        return n.scalar_like(x, known as f64);
    }
    let dtype = n.dtype(x)?;
    let sizes: Vec<Size> = axes.iter().map(|a| Size::Of(x, *a as usize)).collect();
    let sizes = n.sizes_exactly(&sizes)?;
    let count = n.op(ops::ReduceProd { x: sizes, axes: Some(vec![0]), keep_dims: false })?;
    n.cast(count, dtype)
}

/// The variance, or its root, and the mean beside it.
fn spread(n: &mut Lower<'_>, root: bool, with_mean: bool) -> Lowered {
    let (x, dims, keep) = (n.value("self")?, n.ints("dim")?, n.flag("keepdim", false)?);
    let unbiased = n.flag("unbiased", true)?;
    let correction = n.number("correction")?.unwrap_or(if unbiased { 1.0 } else { 0.0 });
    let x = n.as_float(x)?;
    // A tensor without axes has one element.
    let scalar = n.rank(x)? == 0;
    let x = n.at_least_1d(x)?;
    let axes = axes(n, x, dims)?;
    let mean = n.mean_over(x, &axes)?;
    let off = n.sub(x, mean)?;
    let squares = n.mul(off, off)?;
    let sum = n.sum_over(squares, &axes)?;
    let count = count(n, x, &axes)?;
    let count = n.add_number(count, -correction)?;
    let zero = n.scalar_like(count, 0.0)?;
    let count = n.maximum(count, zero)?;
    let mut y = n.div(sum, count)?;
    if root {
        y = n.sqrt(y)?;
    }
    let mut out = vec![];
    for v in [y].into_iter().chain(with_mean.then_some(mean)) {
        out.push(Entry::Value(if keep && !scalar { v } else { n.squeeze(v, &axes)? }));
    }
    Ok(out)
}

/// `self`, in the type asked for, with a number in the place of NaN, and where there is one.
fn without_nan(n: &mut Lower<'_>, number: f64) -> Result<(Value, Option<Value>)> {
    let x = numbers(n)?;
    if !n.dtype(x)?.is_float() {
        return Ok((x, None));
    }
    let nan = n.op(ops::NotEqual { x, y: x })?;
    let number = n.scalar_like(x, number)?;
    Ok((n.select(nan, number, x)?, Some(nan)))
}

fn nanmean(n: &mut Lower<'_>) -> Lowered {
    let (dims, keep) = (n.ints("dim")?, n.flag("keepdim", false)?);
    let (x, nan) = without_nan(n, 0.0)?;
    let Some(nan) = nan else { return Err(LowerError::form("a mean of integers")) };
    let axes = axes(n, x, dims)?;
    let dtype = n.dtype(x)?;
    let there = n.not(nan)?;
    let there = n.cast(there, dtype)?;
    let sum = |x, axes, keep_dims| ops::ReduceSum { x, axes, keep_dims };
    let (sum, count) = (over(n, x, &axes, keep, sum)?, over(n, there, &axes, keep, sum)?);
    n.emit(ops::RealDiv { x: sum, y: count })
}

fn median_of_all(n: &mut Lower<'_>, skip: bool) -> Lowered {
    let x = n.value("self")?;
    let flat = n.reshape_to(x, &[-1])?;
    let (y, _) = middle(n, flat, 0, skip)?;
    let y = n.squeeze(y, &[0])?;
    n.done(y)
}

fn median(n: &mut Lower<'_>, skip: bool) -> Lowered {
    let (x, keep, dim) = (n.value("self")?, n.flag("keepdim", false)?, n.int_or("dim", 0)?);
    if n.rank(x)? == 0 {
        let zero = n.const_int(0)?;
        return Ok(vec![Entry::Value(x), Entry::Value(zero)]);
    }
    let axis = n.axis(x, dim)?;
    let (values, indices) = middle(n, x, axis, skip)?;
    let mut out = vec![];
    for v in [values, indices] {
        out.push(Entry::Value(if keep { v } else { n.squeeze(v, &[axis as i64])? }));
    }
    Ok(out)
}

/// The lower one of those in the middle, and where it is; NaN, where there is one that is not skipped.
fn middle(n: &mut Lower<'_>, x: Value, axis: usize, skip: bool) -> Result<(Value, Value)> {
    let at = axis as i64;
    let size = n.shape(x)?[axis].as_known();
    let size = size.ok_or_else(|| LowerError::NotFixed { what: "where the middle is".to_owned() })?;
    let float = n.dtype(x)?.is_float();
    let nan = if float { Some(n.op(ops::NotEqual { x, y: x })?) } else { None };
    let keys = match nan {
        Some(nan) => {
            let last = n.scalar_like(x, f64::INFINITY)?;
            n.select(nan, last, x)?
        }
        None => x,
    };
    let order = n.op(ops::Argsort { x: keys, axis: at, ascending: true })?;
    let along = |n: &mut Lower<'_>, x: Value, indices: Value| {
        n.op(ops::GatherAlongAxis { x, indices, axis: at, validate_indices: false })
    };
    let mut indices = match nan {
        Some(nan) if skip => {
            let there = n.not(nan)?;
            let there = n.cast(there, DType::I32)?;
            let count = n.sum_over(there, &[at])?;
            let one = n.const_int(1)?;
            let last = n.sub(count, one)?;
            let two = n.const_int(2)?;
            let half = n.op(ops::FloorDiv { x: last, y: two })?;
            let zero = n.const_int(0)?;
            let half = n.maximum(half, zero)?;
            along(n, order, half)?
        }
        _ => n.slice(order, axis, (size - 1) / 2, Some((size - 1) / 2 + 1))?,
    };
    if let (Some(nan), false) = (nan, skip) {
        let nan = n.cast(nan, DType::I32)?;
        let any = n.op(ops::ReduceMax { x: nan, axes: Some(vec![at]), keep_dims: true })?;
        let any = n.cast(any, DType::Bool)?;
        let first = n.op(ops::ReduceArgmax { x: nan, axis: at, keep_dims: true, output_dtype: DType::I32 })?;
        indices = n.select(any, first, indices)?;
    }
    Ok((along(n, x, indices)?, indices))
}

fn trace(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let x = if n.dtype(x)? == DType::Bool { n.cast(x, DType::I32)? } else { x };
    let kept = n.op(ops::BandPart { x, lower: 0, upper: 0 })?;
    n.emit(ops::ReduceSum { x: kept, axes: None, keep_dims: false })
}
