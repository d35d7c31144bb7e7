//! Operators that sort, count up, turn around and mask.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered, Size};
use mlconv_tensor::{DType, Tensor};

rows! {
    "TopK" 1..=9 => |n| {
        let (k, axis) = (n.int("k")?.ok_or(LowerError::MissingAttr { name: "k" })?, n.int_or("axis", -1)?);
        let x = n.input(0)?;
        top(n, x, Count::Known(k), axis, true)
    };
    "TopK" 10..=LATEST => top_k;
    "CumSum" 11..=LATEST => cum_sum;
    "CumProd" 26..=LATEST => cum_prod;
    "ReverseSequence" 10..=LATEST => reverse_sequence;
    "Trilu" 14..=LATEST => trilu;
    #["com.microsoft"] "Trilu" 1..=LATEST => trilu;
}

enum Count {
    Known(i64),
    Open(Value),
}

fn top_k(n: &mut Lower<'_>) -> Lowered {
    let (axis, largest) = (n.int_or("axis", -1)?, n.flag("largest", true)?);
    n.ignore("sorted");
    let x = n.input(0)?;
    let k = match n.ints_input(1) {
        Ok(Some(k)) => Count::Known(k.first().copied().ok_or(LowerError::MissingInput { index: 1 })?),
        Ok(None) => return Err(LowerError::MissingInput { index: 1 }),
        Err(_) => Count::Open(n.input(1)?),
    };
    top(n, x, k, axis, largest)
}

fn top(n: &mut Lower<'_>, x: Value, k: Count, axis: i64, largest: bool) -> Lowered {
    let axis = n.axis(x, axis)?;
    match k {
        Count::Known(k) => {
            let k = Some(n.const_int(k)?);
            n.emit(ops::Topk {
                x,
                k,
                axis: axis as i64,
                ascending: !largest,
                sort: true,
                return_indices: true,
                output_indices_dtype: None,
            })
        }
        Count::Open(k) => {
            let order = n.op(ops::Argsort { x, axis: axis as i64, ascending: !largest })?;
            let indices = slice_to(n, order, axis, k)?;
            let values = n.op(ops::GatherAlongAxis { x, indices, axis: axis as i64, validate_indices: false })?;
            Ok(vec![mlconv_source::Entry::Value(values), mlconv_source::Entry::Value(indices)])
        }
    }
}

/// `x[..end]` along an axis, where `end` is a value.
fn slice_to(n: &mut Lower<'_>, x: Value, axis: usize, end: Value) -> Result<Value, LowerError> {
    let rank = n.rank(x)?;
    let end = n.reshape_to(end, &[1])?;
    let mut ends = vec![];
    for i in 0..rank {
        ends.push(if i == axis { end } else { n.const_ints(&[0])? });
    }
    let (begin, end) = (n.const_ints(&vec![0; rank])?, n.concat(ends, 0)?);
    n.op(ops::SliceByIndex {
        x,
        begin,
        end,
        stride: None,
        begin_mask: None,
        end_mask: Some((0..rank).map(|i| i != axis).collect()),
        squeeze_mask: None,
    })
}

/// `f` of the axis that input 1 names; where that is only known when the program runs, of each, the right one selected.
fn along(n: &mut Lower<'_>, x: Value, f: &dyn Fn(&mut Lower<'_>, usize) -> Result<Value, LowerError>) -> Lowered {
    match n.ints_input(1) {
        Err(LowerError::NotConstant { .. }) => {}
        axis => {
            let axis = axis?.and_then(|a| a.first().copied()).ok_or(LowerError::MissingInput { index: 1 })?;
            let axis = n.axis(x, axis)?;
            let y = f(n, axis)?;
            return n.done(y);
        }
    }
    let (rank, axis) = (n.rank(x)?, n.input(1)?);
    if rank == 0 {
        return Err(LowerError::form("a scalar"));
    }
    let axis = n.as_scalar(axis)?;
    let mut y = f(n, 0)?;
    for i in 1..rank {
        let other = f(n, i)?;
        let (front, back) = (n.const_int(i as i64)?, n.const_int(i as i64 - rank as i64)?);
        let (front, back) = (n.equal(axis, front)?, n.equal(axis, back)?);
        let meant = n.op(ops::LogicalOr { x: front, y: back })?;
        y = n.select(meant, other, y)?;
    }
    n.done(y)
}

fn cum_sum(n: &mut Lower<'_>) -> Lowered {
    let (exclusive, reverse) = (n.flag("exclusive", false)?, n.flag("reverse", false)?);
    let x = n.input(0)?;
    along(n, x, &|n, axis| n.op(ops::Cumsum { x, axis: axis as i64, exclusive, reverse }))
}

fn cum_prod(n: &mut Lower<'_>) -> Lowered {
    let (exclusive, reverse) = (n.flag("exclusive", false)?, n.flag("reverse", false)?);
    let x = n.input(0)?;
    along(n, x, &|n, axis| running_product(n, x, axis, exclusive, reverse))
}

/// Running products: each round doubles the number of elements that a product is of.
fn running_product(
    n: &mut Lower<'_>,
    x: Value,
    axis: usize,
    exclusive: bool,
    reverse: bool,
) -> Result<Value, LowerError> {
    let size =
        n.shape(x)?[axis].as_known().ok_or_else(|| LowerError::NotFixed { what: "the running product".into() })?;
    let mut y = x;
    let shifted = |n: &mut Lower<'_>, y: Value, by: i64| {
        let mut sizes = n.own_sizes(y)?;
        sizes[axis] = Size::Known(by);
        let (shape, one) = (n.sizes_exactly(&sizes)?, n.scalar_like(y, 1.0)?);
        let ones = n.op(ops::Fill { shape, value: Some(one) })?;
        let kept = if reverse { n.slice(y, axis, by, None)? } else { n.slice(y, axis, 0, Some(size - by))? };
        n.concat(if reverse { vec![kept, ones] } else { vec![ones, kept] }, axis as i64)
    };
    if exclusive {
        y = if size > 1 {
            shifted(n, y, 1)?
        } else {
            n.scalar_like(y, 1.0).and_then(|one| n.broadcast_like(one, x))?
        };
    }
    let mut by = 1;
    while by < size {
        let other = shifted(n, y, by)?;
        y = n.mul(y, other)?;
        by *= 2;
    }
    Ok(y)
}

fn reverse_sequence(n: &mut Lower<'_>) -> Lowered {
    let (x, lengths) = (n.input(0)?, n.input(1)?);
    let (batch_axis, seq_axis) = (n.int_or("batch_axis", 1)?, n.int_or("time_axis", 0)?);
    n.emit(ops::ReverseSequence { x, lengths, seq_axis, batch_axis })
}

/// No axis is as long.
const FAR: i64 = i32::MAX as i64 / 2;

fn trilu(n: &mut Lower<'_>) -> Lowered {
    let upper = n.flag("upper", true)?;
    let x = n.input(0)?;
    let rank = n.rank(x)?;
    if rank < 2 {
        return Err(LowerError::form(format!("{}, which has no matrices", n.ty(x)?)));
    }
    let shift = match n.ints_input(1) {
        // Beyond any matrix, one diagonal is like the other.
        Ok(k) => Some(k.and_then(|k| k.first().copied()).unwrap_or(0).clamp(-FAR, FAR)),
        Err(_) => None,
    };
    // The op keeps a band that holds the main diagonal.
    let band = match shift {
        Some(k) if upper && k <= 0 => Some((-k, -1)),
        Some(k) if !upper && k >= 0 => Some((-1, k)),
        _ => None,
    };
    if let Some((lower, upper)) = band {
        return n.emit(ops::BandPart { x, lower, upper });
    }
    let rows = n.counted(x, rank - 2, DType::I32)?;
    let rows = n.expand_dims(rows, &[1])?;
    let columns = n.counted(x, rank - 1, DType::I32)?;
    let shift = match shift {
        Some(k) => n.const_int(k)?,
        None => {
            let k = n.input(1)?;
            n.as_scalar(k)?
        }
    };
    let diagonal = n.add(rows, shift)?;
    let kept = if upper {
        n.op(ops::GreaterEqual { x: columns, y: diagonal })?
    } else {
        n.op(ops::LessEqual { x: columns, y: diagonal })?
    };
    let zero = n.dtype(x)?;
    let zero = n.add_const(Tensor::splat(zero, &[], 0.0))?;
    let y = n.select(kept, x, zero)?;
    n.done(y)
}
