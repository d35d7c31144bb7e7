//! Operators that sort, search, and run along an axis.

use super::promote::{as_asked, operands};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

aten! {
    "sort(Tensor self, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)",
    "sort.stable(Tensor self, *, bool? stable, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)" => |n| {
        let (dim, descending) = (n.int_or("dim", -1)?, n.flag("descending", false)?);
        sort(n, dim, descending).map(|both| both.map(Entry::Value).to_vec())
    };
    "argsort(Tensor self, int dim=-1, bool descending=False) -> Tensor",
    "argsort.stable(Tensor self, *, bool stable, int dim=-1, bool descending=False) -> Tensor" => |n| {
        let (dim, descending) = (n.int_or("dim", -1)?, n.flag("descending", false)?);
        let [_, indices] = sort(n, dim, descending)?;
        n.done(indices)
    };
    "msort(Tensor self) -> Tensor" => |n| { let [values, _] = sort(n, 0, false)?; n.done(values) };
    "topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor values, Tensor indices)" => top;
    "kthvalue(Tensor self, SymInt k, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)" => kth;
    "cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor" => |n| {
        let (x, axis) = (numbers(n)?, n.int_or("dim", 0)?);
        if n.rank(x)? == 0 {
            return n.done(x);
        }
        let axis = n.axis(x, axis)? as i64;
        n.emit(ops::Cumsum { x, axis, exclusive: false, reverse: false })
    };
    "cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor" => |n| {
        let x = numbers(n)?;
        running(n, x, &|n, later, earlier| Ok(vec![n.mul(later[0], earlier[0])?]))
    };
    "logcumsumexp(Tensor self, int dim) -> Tensor", "_logcumsumexp(Tensor self, int dim) -> Tensor" => |n| {
        let x = n.value("self")?;
        let x = n.as_float(x)?;
        running(n, x, &|n, later, earlier| Ok(vec![n.log_of_sum(later[0], earlier[0])?]))
    };
    "cummax(Tensor self, int dim) -> (Tensor values, Tensor indices)" => |n| leading(n, true);
    "cummin(Tensor self, int dim) -> (Tensor values, Tensor indices)" => |n| leading(n, false);
    "diff(Tensor self, int n=1, int dim=-1, Tensor? prepend=None, Tensor? append=None) -> Tensor" => diff;
    "searchsorted.Tensor(Tensor sorted_sequence, Tensor self, *, bool out_int32=False, bool right=False, str? side=None, Tensor? sorter=None) -> Tensor",
    "searchsorted.Scalar(Tensor sorted_sequence, Scalar self, *, bool out_int32=False, bool right=False, str? side=None, Tensor? sorter=None) -> Tensor" => |n| searched(n, "sorted_sequence");
    "bucketize.Tensor(Tensor self, Tensor boundaries, *, bool out_int32=False, bool right=False) -> Tensor",
    "bucketize.Scalar(Scalar self, Tensor boundaries, *, bool out_int32=False, bool right=False) -> Tensor" => |n| searched(n, "boundaries");
    "histc(Tensor self, int bins=100, Scalar min=0, Scalar max=0) -> Tensor" => histogram;
    "bincount(Tensor self, Tensor? weights=None, SymInt minlength=0) -> Tensor" => bincount;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The argument `self` in the type that `dtype` asks for; truth values are counted.
fn numbers(n: &mut Lower<'_>) -> Result<Value> {
    let x = n.value("self")?;
    let x = as_asked(n, x)?;
    if n.dtype(x)? == DType::Bool { n.cast(x, DType::I32) } else { Ok(x) }
}

/// Sorted elements, and where they were.
fn sort(n: &mut Lower<'_>, dim: i64, descending: bool) -> Result<[Value; 2]> {
    // Equal elements keep their order in either case.
    n.ignore("stable");
    let x = n.value("self")?;
    if n.rank(x)? == 0 {
        return Ok([x, n.const_int(0)?]);
    }
    let axis = n.axis(x, dim)?;
    let keys = if n.dtype(x)? == DType::Bool { n.cast(x, DType::I32)? } else { x };
    let indices = n.op(ops::Argsort { x: keys, axis: axis as i64, ascending: !descending })?;
    Ok([picked(n, x, indices, axis)?, indices])
}

fn picked(n: &mut Lower<'_>, x: Value, indices: Value, axis: usize) -> Result<Value> {
    n.without_bool(x, |n, x| n.op(ops::GatherAlongAxis { x, indices, axis: axis as i64, validate_indices: false }))
}

fn top(n: &mut Lower<'_>) -> Lowered {
    n.ignore("sorted");
    let (x, dim, largest) = (n.value("self")?, n.int_or("dim", -1)?, n.flag("largest", true)?);
    let Some(k) = n.size("k")? else { return n.bad_attr("k", "a number") };
    if n.rank(x)? == 0 {
        let zero = n.const_int(0)?;
        return Ok(vec![Entry::Value(x), Entry::Value(zero)]);
    }
    let (axis, dtype) = (n.axis(x, dim)?, n.dtype(x)?);
    let x = if dtype == DType::Bool { n.cast(x, DType::I32)? } else { x };
    let [values, indices] = n.top(x, k, axis, largest)?;
    let values = n.cast(values, dtype)?;
    Ok(vec![Entry::Value(values), Entry::Value(indices)])
}

fn kth(n: &mut Lower<'_>) -> Lowered {
    let (dim, keep) = (n.int_or("dim", -1)?, n.flag("keepdim", false)?);
    let Some(k) = n.int("k")?.filter(|k| *k > 0) else { return n.bad_attr("k", "at least 1") };
    let both = sort(n, dim, false)?;
    if n.rank(both[0])? == 0 {
        return Ok(both.map(Entry::Value).to_vec());
    }
    let axis = n.axis(both[0], dim)?;
    let mut out = vec![];
    for v in both {
        let one = n.slice(v, axis, k - 1, Some(k))?;
        out.push(Entry::Value(if keep { one } else { n.squeeze(one, &[axis as i64])? }));
    }
    Ok(out)
}

fn running<'a>(n: &mut Lower<'a>, x: Value, combine: mlconv_source::Combine<'_, 'a>) -> Lowered {
    let dim = n.int_or("dim", 0)?;
    if n.rank(x)? == 0 {
        return n.done(x);
    }
    let axis = n.axis(x, dim)?;
    let y = n.running(vec![x], axis, false, combine)?;
    n.done(y[0])
}

/// The greatest or least so far, the last of equal ones, and where it is.
fn leading(n: &mut Lower<'_>, greatest: bool) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
    if n.rank(x)? == 0 {
        let zero = n.const_int(0)?;
        return Ok(vec![Entry::Value(x), Entry::Value(zero)]);
    }
    let (axis, dtype, rank) = (n.axis(x, dim)?, n.dtype(x)?, n.rank(x)? as i64);
    let x = if dtype == DType::Bool { n.cast(x, DType::I32)? } else { x };
    let places = n.counted(x, axis, DType::I32)?;
    let places = n.expand_dims(places, &(0..rank).filter(|i| *i != axis as i64).collect::<Vec<_>>())?;
    let places = n.broadcast_like(places, x)?;
    let found = n.running(vec![x, places], axis, false, &|n, later, earlier| {
        let mut wins = if greatest {
            n.op(ops::GreaterEqual { x: later[0], y: earlier[0] })?
        } else {
            n.op(ops::LessEqual { x: later[0], y: earlier[0] })?
        };
        if n.dtype(later[0])?.is_float() {
            let nan = n.op(ops::NotEqual { x: later[0], y: later[0] })?;
            wins = n.op(ops::LogicalOr { x: wins, y: nan })?;
        }
        Ok(vec![n.select(wins, later[0], earlier[0])?, n.select(wins, later[1], earlier[1])?])
    })?;
    let values = n.cast(found[0], dtype)?;
    Ok(vec![Entry::Value(values), Entry::Value(found[1])])
}

fn diff(n: &mut Lower<'_>) -> Lowered {
    let (x, times, dim) = (n.value("self")?, n.int_or("n", 1)?, n.int_or("dim", -1)?);
    let (before, after) = (n.maybe("prepend")?, n.maybe("append")?);
    let axis = n.axis(x, dim)?;
    let dtype = n.dtype(x)?;
    let mut parts = vec![];
    for part in [before, Some(x), after].into_iter().flatten() {
        parts.push(n.cast(part, dtype)?);
    }
    let mut y = n.concat(parts, axis as i64)?;
    if !(0..=64).contains(&times) {
        return n.bad_attr("n", "0 to 64");
    }
    for _ in 0..times {
        let (high, low) = (n.slice(y, axis, 1, None)?, n.slice(y, axis, 0, Some(-1))?);
        y = if dtype == DType::Bool { n.op(ops::LogicalXor { x: high, y: low })? } else { n.sub(high, low)? };
    }
    n.done(y)
}

/// How many elements of a sorted row are below each number, or not above it.
fn searched(n: &mut Lower<'_>, name: &'static str) -> Lowered {
    n.ignore("out_int32");
    let right = match n.str("side")? {
        Some(side) => side == "right",
        None => n.flag("right", false)?,
    };
    let ([mut row, v], _) = operands(n, [name, "self"])?;
    if let Some(sorter) = n.maybe("sorter")? {
        let axis = n.axis(row, -1)?;
        row = picked(n, row, sorter, axis)?;
    }
    let rank = n.rank(v)?;
    let row = if n.rank(row)? == 1 {
        row
    } else if rank == n.rank(row)? {
        n.expand_dims(row, &[-2])?
    } else {
        return Err(LowerError::form(format!("searching {} for {}", n.ty(row)?, n.ty(v)?)));
    };
    // A vector is searched for all numbers alike, so their axes do not matter.
    let flat = n.rank(row)? == 1 && rank > 1;
    let number = if flat { n.reshape_to(v, &[-1])? } else { v };
    let number = n.expand_dims(number, &[-1])?;
    let before = if right { n.op(ops::LessEqual { x: row, y: number })? } else { n.less(row, number)? };
    let before = n.cast(before, DType::I32)?;
    let y = n.op(ops::ReduceSum { x: before, axes: Some(vec![-1]), keep_dims: false })?;
    let y = if flat { n.reshape_as(y, v)? } else { y };
    n.done(y)
}

/// How many elements lie in each of as many ranges; without limits, from the least to the greatest.
fn histogram(n: &mut Lower<'_>) -> Lowered {
    let (x, bins) = (n.value("self")?, n.int_or("bins", 100)?);
    let (low, high) = (n.number("min")?.unwrap_or(0.0), n.number("max")?.unwrap_or(0.0));
    if !(1..=1 << 16).contains(&bins) {
        return n.bad_attr("bins", "1 to 65536");
    }
    let x = n.as_float(x)?;
    let x = n.reshape_to(x, &[-1])?;
    let (low, high) = if low == high && low == 0.0 {
        let low = n.op(ops::ReduceMin { x, axes: None, keep_dims: false })?;
        (low, n.op(ops::ReduceMax { x, axes: None, keep_dims: false })?)
    } else {
        (n.scalar_like(x, low)?, n.scalar_like(x, high)?)
    };
    // All being the same, the range reaches one to either side.
    let same = n.equal(low, high)?;
    let (under, over) = (n.add_number(low, -1.0)?, n.add_number(high, 1.0)?);
    let (low, high) = (n.select(same, under, low)?, n.select(same, over, high)?);
    let (below, above) = (n.less(x, low)?, n.less(high, x)?);
    let out = n.op(ops::LogicalOr { x: below, y: above })?;
    let (off, span) = (n.sub(x, low)?, n.sub(high, low)?);
    let off = n.scale(off, bins as f64)?;
    let place = n.div(off, span)?;
    let place = n.op(ops::Floor { x: place })?;
    let last = n.scalar_like(x, bins as f64 - 1.0)?;
    let place = n.minimum(place, last)?;
    let nowhere = n.scalar_like(x, -1.0)?;
    let place = n.select(out, nowhere, place)?;
    let place = n.expand_dims(place, &[0])?;
    let numbers: Vec<f64> = (0..bins).map(|i| i as f64).collect();
    let numbers = n.const_like(place, &[numbers.len(), 1], &numbers)?;
    let hit = n.equal(place, numbers)?;
    let dtype = n.dtype(x)?;
    let hit = n.cast(hit, dtype)?;
    n.emit(ops::ReduceSum { x: hit, axes: Some(vec![1]), keep_dims: false })
}

/// How often each number comes, or the sum of its weights.
fn bincount(n: &mut Lower<'_>) -> Lowered {
    let (x, weights) = (n.value("self")?, n.maybe("weights")?);
    let Some(least) = n.size("minlength")? else { return n.bad_attr("minlength", "a number") };
    let x = n.cast(x, DType::I32)?;
    let most = n.op(ops::ReduceMax { x, axes: None, keep_dims: false })?;
    let end = n.add_number(most, 1.0)?;
    let least = match least {
        Size::Known(k) => n.const_int(k)?,
        size => {
            let v = n.sizes_exactly(&[size])?;
            n.squeeze(v, &[0])?
        }
    };
    let end = n.maximum(end, least)?;
    let (start, step) = (n.const_int(0)?, n.const_int(1)?);
    let numbers = n.op(ops::Range1d { end, start, step })?;
    let numbers = n.expand_dims(numbers, &[1])?;
    let x = n.expand_dims(x, &[0])?;
    let hit = n.equal(x, numbers)?;
    let mut hit = match weights {
        Some(w) => {
            let dtype = n.dtype(w)?;
            n.cast(hit, dtype)?
        }
        None => n.cast(hit, DType::I32)?,
    };
    if let Some(w) = weights {
        hit = n.mul(hit, w)?;
    }
    n.emit(ops::ReduceSum { x: hit, axes: Some(vec![1]), keep_dims: false })
}
