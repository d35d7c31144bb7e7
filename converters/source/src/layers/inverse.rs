//! Inverses of matrices: of small ones by Cramer's rule, else by elimination.

use crate::{
    Lower, LowerError,
    layers::elimination::{eliminated, rows},
};
use mlconv_mil::ir::Value;

type Result<T> = std::result::Result<T, LowerError>;

/// Rows beyond which this is not done by sums, which grow with the factorial.
const MAX_ROWS: i64 = 3;

/// The inverses of square matrices.
pub fn inverse(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let rank = n.rank(x)?;
    let rows = rows(n, x, "the inverse")?;
    if rows > MAX_ROWS {
        let count = rows as usize;
        let unit: Vec<f64> = (0..count * count).map(|i| if i % (count + 1) == 0 { 1.0 } else { 0.0 }).collect();
        let unit = n.const_like(x, &[count, count], &unit)?;
        let sizes = n.own_sizes(x)?;
        let shape = n.sizes_exactly(&sizes)?;
        let unit = n.broadcast_to(unit, shape)?;
        return eliminated(n, x, Some(unit))?.solution.ok_or(LowerError::Poisoned);
    }
    // Each element as a matrix of one, so that batches stay as they are.
    let mut elements = vec![];
    for i in 0..rows {
        let mut row = vec![];
        for j in 0..rows {
            row.push(n.slice_by(x, &[(rank - 2, i, Some(i + 1), 1), (rank - 1, j, Some(j + 1), 1)])?);
        }
        elements.push(row);
    }
    let whole = determinant(n, &elements)?;
    let mut lines = vec![];
    for i in 0..elements.len() {
        let mut line = vec![];
        for j in 0..elements.len() {
            let minor = match without(&elements, j, i) {
                minor if minor.is_empty() => n.scalar_like(whole, 1.0)?,
                minor => determinant(n, &minor)?,
            };
            let share = n.div(minor, whole)?;
            line.push(n.scale(share, if (i + j) % 2 == 0 { 1.0 } else { -1.0 })?);
        }
        lines.push(n.concat(line, -1)?);
    }
    n.concat(lines, -2)
}

/// The matrix without a row and a column.
fn without(matrix: &[Vec<Value>], row: usize, column: usize) -> Vec<Vec<Value>> {
    let rest = matrix.iter().enumerate().filter(|(i, _)| *i != row).map(|(_, line)| line);
    rest.map(|line| line.iter().enumerate().filter(|(j, _)| *j != column).map(|(_, v)| *v).collect()).collect()
}

/// Expanded by the first row.
fn determinant(n: &mut Lower<'_>, matrix: &[Vec<Value>]) -> Result<Value> {
    let [first, ..] = matrix else { return Err(LowerError::Poisoned) };
    let mut sum = None;
    for (j, factor) in first.iter().enumerate() {
        let minor = without(matrix, 0, j);
        let term = if minor.is_empty() {
            *factor
        } else {
            let minor = determinant(n, &minor)?;
            n.mul(*factor, minor)?
        };
        sum = Some(match sum {
            None => term,
            Some(sum) if j % 2 == 0 => n.add(sum, term)?,
            Some(sum) => n.sub(sum, term)?,
        });
    }
    sum.ok_or(LowerError::Poisoned)
}
