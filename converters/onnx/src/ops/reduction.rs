//! Reductions.

mod open;

use super::exact;
use crate::LATEST;
use mlconv_mil::{ir::Value, ops, schema::Op};
use mlconv_source::{Entry, Lower, LowerError, Lowered};
use mlconv_tensor::DType;

rows! {
    "ArgMax" 1..=LATEST => |n| arg(n, |x, axis, keep_dims| ops::ReduceArgmax { x, axis, keep_dims, output_dtype: DType::I32 });
    "ArgMin" 1..=LATEST => |n| arg(n, |x, axis, keep_dims| ops::ReduceArgmin { x, axis, keep_dims, output_dtype: DType::I32 });
    "ReduceL1" 1..=LATEST => |n| reduce(n, |x, axes, keep_dims| ops::ReduceL1Norm { x, axes, keep_dims }, size, Steps::Own);
    "ReduceL2" 1..=LATEST => |n| reduce(n, |x, axes, keep_dims| ops::ReduceL2Norm { x, axes, keep_dims }, size, Steps::Own);
    "ReduceLogSum" 1..=LATEST =>
        |n| reduce(n, |x, axes, keep_dims| ops::ReduceLogSum { x, axes, keep_dims }, log, Steps::SumThen(log));
    "ReduceLogSumExp" 1..=LATEST =>
        |n| reduce(n, |x, axes, keep_dims| ops::ReduceLogSumExp { x, axes, keep_dims }, same, Steps::Own);
    "ReduceMax" 1..=LATEST => |n| reduce(n, |x, axes, keep_dims| ops::ReduceMax { x, axes, keep_dims }, same, Steps::Own);
    "ReduceMean" 1..=LATEST => |n| reduce(n, |x, axes, keep_dims| ops::ReduceMean { x, axes, keep_dims }, same, Steps::Mean);
    "ReduceMin" 1..=LATEST => |n| reduce(n, |x, axes, keep_dims| ops::ReduceMin { x, axes, keep_dims }, same, Steps::Own);
    "ReduceProd" 1..=LATEST => reduce_prod;
    "ReduceSum" 1..=LATEST => reduce_sum;
    "ReduceSumSquare" 1..=LATEST => |n| {
        let op = |x, axes, keep_dims| ops::ReduceSumSquare { x, axes, keep_dims };
        reduce(n, op, square, Steps::SumOf(square))
    };
}

fn reduce_prod(n: &mut Lower<'_>) -> Lowered {
    if let Some(known) = whole(n, i64::wrapping_mul, 1)? {
        return Ok(known);
    }
    reduce(n, |x, axes, keep_dims| ops::ReduceProd { x, axes, keep_dims }, same, Steps::Own)
}

fn reduce_sum(n: &mut Lower<'_>) -> Lowered {
    if let Some(known) = whole(n, i64::wrapping_add, 0)? {
        return Ok(known);
    }
    reduce(n, |x, axes, keep_dims| ops::ReduceSum { x, axes, keep_dims }, same, Steps::Own)
}

/// A constant of 64-bit integers, reduced over all of its axes with all of its bits.
fn whole(n: &mut Lower<'_>, f: fn(i64, i64) -> i64, first: i64) -> Result<Option<Vec<Entry>>, LowerError> {
    let open = n.is_given(1) || n.flag("noop_with_empty_axes", false)?;
    let axes = n.ints("axes")?;
    if open || axes.is_some() {
        return Ok(None);
    }
    let keep = n.flag("keepdims", true)?;
    let known = exact::fold(n, f, first, keep)?;
    known.map(|t| n.literal(t)).transpose()
}

/// What a reduction makes of a single element.
type OfOne<'a> = fn(&mut Lower<'a>, Value) -> Result<Value, LowerError>;

/// How a reduction over several axes comes from those along one after the other.
#[derive(Clone, Copy)]
enum Steps<'a> {
    /// The same again and again.
    Own,
    /// As [`Self::Own`], but of integers the sum, divided by how many there are.
    Mean,
    /// A sum of what is made of each element.
    SumOf(OfOne<'a>),
    /// What is made of the sum.
    SumThen(OfOne<'a>),
}

fn same(_: &mut Lower<'_>, x: Value) -> Result<Value, LowerError> {
    Ok(x)
}

fn size(n: &mut Lower<'_>, x: Value) -> Result<Value, LowerError> {
    n.abs(x)
}

fn log(n: &mut Lower<'_>, x: Value) -> Result<Value, LowerError> {
    let dtype = n.dtype(x)?;
    let x = n.as_float(x)?;
    let y = n.log(x)?;
    n.cast(y, dtype)
}

fn square(n: &mut Lower<'_>, x: Value) -> Result<Value, LowerError> {
    n.mul(x, x)
}

/// A reduction over axes given as an attribute, or as an input; the two never occur together.
fn reduce<'a, O: Op>(
    n: &mut Lower<'a>,
    op: fn(Value, Option<Vec<i64>>, bool) -> O,
    of_one: OfOne<'a>,
    steps: Steps<'a>,
) -> Lowered {
    let x = n.input(0)?;
    let keep_dims = n.flag("keepdims", true)?;
    let noop = n.flag("noop_with_empty_axes", false)?;
    let dtype = n.dtype(x)?;
    // Of truth values, the greatest and the least are asked for.
    let x = if dtype == DType::Bool { n.cast(x, DType::I32)? } else { x };
    let rank = n.rank(x)?;
    let axes = match n.ints("axes")? {
        Some(axes) => Some(axes),
        None => match n.ints_input(1) {
            Err(LowerError::NotConstant { .. }) if rank > 0 => {
                let axes = n.input(1)?;
                let count = open::length(n, axes)?;
                if count > rank {
                    return Err(LowerError::form(format!("{count} axes of {}", n.ty(x)?)));
                }
                let axes = n.at_least_1d(axes)?;
                // As many as there are can only be all of them; none are as if they were not given.
                if (1..rank).contains(&count) {
                    open::check(n, x)?;
                    let over = |n: &mut Lower<'a>, axes: Vec<i64>| n.op(op(x, Some(axes), keep_dims));
                    let y = match open::among_stated(n, x, axes, count, keep_dims, &over)? {
                        Some(y) => y,
                        None => {
                            let along = |n: &mut Lower<'a>, x: Value, axis: i64| n.op(op(x, Some(vec![axis]), true));
                            open::reduce(n, x, axes, count, keep_dims, &along, steps)?
                        }
                    };
                    let y = n.cast(y, dtype)?;
                    return n.done(y);
                }
                Some(if count == 0 { vec![] } else { (0..rank as i64).collect() })
            }
            // A scalar has none, whatever is asked for.
            Err(LowerError::NotConstant { .. }) => None,
            axes => axes?,
        },
    };
    let axes = axes.filter(|a| !a.is_empty());
    let y = if rank == 0 || (noop && axes.is_none()) {
        of_one(n, x)?
    } else {
        let mut axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
        for axis in &mut axes {
            *axis = n.axis(x, *axis)? as i64;
        }
        axes.sort_unstable();
        axes.dedup();
        n.op(op(x, Some(axes), keep_dims))?
    };
    let y = n.cast(y, dtype)?;
    n.done(y)
}

fn arg<O: Op>(n: &mut Lower<'_>, op: fn(Value, i64, bool) -> O) -> Lowered {
    let x = n.input(0)?;
    let (axis, keep_dims) = (n.int_or("axis", 0)?, n.flag("keepdims", true)?);
    let last = n.flag("select_last_index", false)?;
    if n.rank(x)? == 0 {
        let y = n.const_int(0)?;
        return n.done(y);
    }
    let axis = n.axis(x, axis)? as i64;
    if !last {
        return n.emit(op(x, axis, keep_dims));
    }
    let turned = n.op(ops::Reverse { x, axes: Some(vec![axis]) })?;
    let from_end = n.op(op(turned, axis, keep_dims))?;
    let size = n.size_of(x, axis as usize)?;
    let size = n.squeeze(size, &[0])?;
    let end = n.add_number(size, -1.0)?;
    n.emit(ops::Sub { x: end, y: from_end })
}
