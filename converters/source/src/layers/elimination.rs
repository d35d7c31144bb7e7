//! Systems of linear equations and decompositions of matrices of known size, written out step by step.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::{DType, Tensor};

type Result<T> = std::result::Result<T, LowerError>;

/// Rows beyond which a matrix is refused: each is a step of its own.
const MAX_ROWS: i64 = 64;

/// The number of rows of square matrices.
pub fn rows(n: &Lower<'_>, x: Value, what: &str) -> Result<i64> {
    match n.shape(x)?.iter().rev().take(2).map(|d| d.as_known()).collect::<Vec<_>>()[..] {
        [Some(columns), Some(rows)] if rows == columns && (1..=MAX_ROWS).contains(&rows) => Ok(rows),
        _ => Err(LowerError::form(format!("{what} of {}, of more than {MAX_ROWS} rows or none,", n.ty(x)?))),
    }
}

/// What elimination with pivots leaves.
pub struct Eliminated {
    /// What makes up the right hand sides, `[.., rows, columns]`; nothing where there were none.
    pub solution: Option<Value>,
    /// What rows were divided by, one for each step, `[.., 1, 1]` each.
    pub pivots: Vec<Value>,
    /// 1 or -1, as the order of the pivots' rows says, `[.., 1, 1]`.
    pub parity: Value,
}

/// Gauss's and Jordan's elimination of square matrices, beside which `right` stands. Rows stay where they are: each step
/// takes the one with the greatest element of its column among those that were not taken.
pub fn eliminated(n: &mut Lower<'_>, x: Value, right: Option<Value>) -> Result<Eliminated> {
    let count = rows(n, x, "a system of equations")?;
    let rank = n.rank(x)?;
    let all = match right {
        Some(right) => n.concat(vec![x, right], -1)?,
        None => x,
    };
    let mut all = all;
    let numbers = {
        let ints: Vec<i64> = (0..count).collect();
        n.add_const(Tensor::from_i64(DType::I32, &[count as usize, 1], &ints))?
    };
    let (mut taken, mut order, mut pivots) = (None, vec![], vec![]);
    for step in 0..count {
        let column = n.slice(all, rank - 1, step, Some(step + 1))?;
        let mut size = n.abs(column)?;
        if let Some(taken) = taken {
            let low = n.scalar_like(size, -1.0)?;
            size = n.select(taken, low, size)?;
        }
        let axis = rank as i64 - 2;
        let place = n.op(ops::ReduceArgmax { x: size, axis, keep_dims: true, output_dtype: DType::I32 })?;
        let here = n.equal(numbers, place)?;
        taken = Some(match taken {
            Some(taken) => n.op(ops::LogicalOr { x: taken, y: here })?,
            None => here,
        });
        let weight = n.cast(here, n.dtype(all)?)?;
        let row = n.mul(weight, all)?;
        let row = n.op(ops::ReduceSum { x: row, axes: Some(vec![axis]), keep_dims: true })?;
        let pivot = n.slice(row, rank - 1, step, Some(step + 1))?;
        // A matrix without an inverse has the determinant 0, and no solution that anyone should read.
        let (zero, one) = (n.scalar_like(pivot, 0.0)?, n.scalar_like(pivot, 1.0)?);
        let none = n.equal(pivot, zero)?;
        let by = n.select(none, one, pivot)?;
        let row = n.div(row, by)?;
        let less = n.mul(column, row)?;
        let rest = n.sub(all, less)?;
        all = n.select(here, row, rest)?;
        pivots.push(pivot);
        order.push(place);
    }
    let solution = match right {
        Some(_) => {
            let part = n.slice(all, rank - 1, count, None)?;
            // Row `i` of the solution stands where the pivot of step `i` was.
            let order = n.concat(order.clone(), -1)?;
            let here = n.equal(numbers, order)?;
            let here = n.cast(here, n.dtype(part)?)?;
            Some(n.matmul(here, part, true, false)?)
        }
        None => None,
    };
    let parity = parity(n, &order, pivots.first().copied())?;
    Ok(Eliminated { solution, pivots, parity })
}

/// 1 where an even number of pairs is out of order, else -1.
fn parity(n: &mut Lower<'_>, order: &[Value], like: Option<Value>) -> Result<Value> {
    let (Some(like), count) = (like, order.len()) else { return Err(LowerError::Poisoned) };
    let dtype = n.dtype(like)?;
    let line = n.concat(order.to_vec(), -1)?;
    let line = n.cast(line, dtype)?;
    let rank = n.rank(line)? as i64;
    let mut perm: Vec<i64> = (0..rank).collect();
    perm.swap(rank as usize - 1, rank as usize - 2);
    let column = n.transpose(line, &perm)?;
    // Of row `i` and column `j`: what comes at `j`, less what comes at `i`.
    let apart = n.sub(line, column)?;
    let sign = n.op(ops::Sign { x: apart })?;
    let above = (0..count).flat_map(|i| (0..count).map(move |j| j > i));
    let above = n.add_const(Tensor::from_bools(&[count, count], above))?;
    let one = n.scalar_like(sign, 1.0)?;
    let signs = n.select(above, sign, one)?;
    let axes = Some(vec![rank - 2, rank - 1]);
    n.op(ops::ReduceProd { x: signs, axes, keep_dims: true })
}

/// Lower triangular matrices whose products with their own transposes are `x`.
pub fn cholesky(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let count = rows(n, x, "the Cholesky factor")?;
    let rank = n.rank(x)?;
    let (mut rest, mut columns) = (x, vec![]);
    for step in 0..count {
        let column = n.slice(rest, rank - 1, step, Some(step + 1))?;
        let pivot = n.slice(column, rank - 2, step, Some(step + 1))?;
        let root = n.sqrt(pivot)?;
        let column = n.div(column, root)?;
        let below: Vec<f64> = (0..count).map(|i| if i >= step { 1.0 } else { 0.0 }).collect();
        let below = n.const_like(column, &[count as usize, 1], &below)?;
        let column = n.mul(column, below)?;
        let product = n.matmul(column, column, false, true)?;
        rest = n.sub(rest, product)?;
        columns.push(column);
    }
    n.concat(columns, -1)
}
