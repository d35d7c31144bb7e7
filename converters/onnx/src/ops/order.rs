//! Operators that sort, count up, turn around and mask.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Diagonal, Entry, Lower, LowerError, Lowered, Size};

rows! {
    "TopK" 1..=9 => |n| {
        let (k, axis) = (n.int("k")?.ok_or(LowerError::MissingAttr { name: "k" })?, n.int_or("axis", -1)?);
        let x = n.input(0)?;
        top(n, x, Size::Known(k), axis, true)
    };
    "TopK" 10..=LATEST => top_k;
    "CumSum" 11..=LATEST => cum_sum;
    "CumProd" 26..=LATEST => cum_prod;
    "ReverseSequence" 10..=LATEST => reverse_sequence;
    "Trilu" 14..=LATEST => trilu;
    #["com.microsoft"] "Trilu" 1..=LATEST => trilu;
}

fn top_k(n: &mut Lower<'_>) -> Lowered {
    let (axis, largest) = (n.int_or("axis", -1)?, n.flag("largest", true)?);
    n.ignore("sorted");
    let x = n.input(0)?;
    let k = match n.ints_input(1) {
        Ok(Some(k)) => Size::Known(k.first().copied().ok_or(LowerError::MissingInput { index: 1 })?),
        Ok(None) => return Err(LowerError::MissingInput { index: 1 }),
        Err(_) => Size::Held(n.input(1)?),
    };
    top(n, x, k, axis, largest)
}

fn top(n: &mut Lower<'_>, x: Value, k: Size, axis: i64, largest: bool) -> Lowered {
    let axis = n.axis(x, axis)?;
    Ok(n.top(x, k, axis, largest)?.map(Entry::Value).to_vec())
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
    if exclusive {
        let mut sizes = n.own_sizes(y)?;
        sizes[axis] = Size::Known(1);
        let (shape, one) = (n.sizes_exactly(&sizes)?, n.scalar_like(y, 1.0)?);
        let ones = n.op(ops::Fill { shape, value: Some(one) })?;
        y = if size > 1 {
            let kept = if reverse { n.slice(y, axis, 1, None)? } else { n.slice(y, axis, 0, Some(size - 1))? };
            n.concat(if reverse { vec![kept, ones] } else { vec![ones, kept] }, axis as i64)?
        } else {
            ones
        };
    }
    let products = n.running(vec![y], axis, reverse, &|n, later, earlier| Ok(vec![n.mul(later[0], earlier[0])?]))?;
    Ok(products[0])
}

fn reverse_sequence(n: &mut Lower<'_>) -> Lowered {
    let (x, lengths) = (n.input(0)?, n.input(1)?);
    let (batch_axis, seq_axis) = (n.int_or("batch_axis", 1)?, n.int_or("time_axis", 0)?);
    n.emit(ops::ReverseSequence { x, lengths, seq_axis, batch_axis })
}

fn trilu(n: &mut Lower<'_>) -> Lowered {
    let upper = n.flag("upper", true)?;
    let x = n.input(0)?;
    let diagonal = match n.ints_input(1) {
        Ok(k) => Diagonal::Known(k.and_then(|k| k.first().copied()).unwrap_or(0)),
        Err(_) => {
            let k = n.input(1)?;
            Diagonal::Held(n.as_scalar(k)?)
        }
    };
    let y = n.triangle(x, diagonal, upper)?;
    n.done(y)
}
