//! Determinants.

use crate::LATEST;
use mlconv_mil::ops;
use mlconv_source::{Lower, LowerError, Lowered};

rows! {
    "Det" 11..=LATEST => det;
}

/// The largest matrices: beyond, what cancels out in the products takes too many digits.
const MAX_SIDE: i64 = 8;

/// By products of matrices alone, without a division. Source: Bird, "A simple division-free algorithm for computing
/// determinants", 2011.
///
/// Of `X`, the elements above the diagonal stay, and on it stands what is below in the trace, with the sign changed;
/// that, times the matrix, is the next `X`.
fn det(n: &mut Lower<'_>) -> Lowered {
    let a = n.input(0)?;
    let rank = n.rank(a)?;
    let shape = n.shape(a)?;
    let side = match shape.get(rank.saturating_sub(2)..) {
        Some([rows, columns]) if rows == columns => rows.as_known(),
        _ => None,
    };
    let Some(side) = side.filter(|s| (1..=MAX_SIDE).contains(s)) else {
        return Err(LowerError::form(format!("a determinant of {}", n.ty(a)?)));
    };
    let count = side as usize;
    let matrix = |keep: fn(usize, usize) -> f64| -> Vec<f64> {
        (0..count * count).map(|i| keep(i / count, i % count)).collect()
    };
    let square = [count, count];
    let unit = n.const_like(a, &square, &matrix(|i, j| f64::from(u8::from(i == j))))?;
    let above = n.const_like(a, &square, &matrix(|i, j| f64::from(u8::from(i < j))))?;
    let below = n.const_like(a, &square, &matrix(|i, j| -f64::from(u8::from(i > j))))?;
    let mut x = a;
    for _ in 1..side {
        let diagonal = n.mul(x, unit)?;
        let trace = n.op(ops::ReduceSum { x: diagonal, axes: Some(vec![-2]), keep_dims: true })?;
        let rest = n.matmul(trace, below, false, false)?;
        let (rest, kept) = (n.mul(rest, unit)?, n.mul(x, above)?);
        let next = n.add(rest, kept)?;
        x = n.matmul(next, a, false, false)?;
    }
    let (row, column) = (rank - 2, rank - 1);
    let y = n.slice_by(x, &[(row, 0, Some(1), 1), (column, 0, Some(1), 1)])?;
    let y = n.squeeze(y, &[row as i64, column as i64])?;
    let y = if side % 2 == 0 { n.scale(y, -1.0)? } else { y };
    n.done(y)
}
