//! Linear layers that are written as products of matrices.

use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{Linear, Matmul},
};

pub(crate) static PASS: Pass = Pass {
    name: "fuse_linear",
    doc: "Makes a linear layer of a product with a constant matrix, whose terms `fold_affine` then folds in.",
    changes_precision: false,
    after: &["const_elimination"],
    run: Run::Rules(rules![matmul]),
};

/// Elements of a matrix up to which it is transposed, which takes a copy of it.
const MAX_TRANSPOSED: usize = 1 << 26;

/// Axes that the input of a linear layer may have.
const RANKS: std::ops::RangeInclusive<usize> = 2..=3;

fn matmul(op: &Matmul, m: &Matcher<'_>) -> Fit {
    let weight = m.constant(op.y)?;
    let [_, columns] = *weight.shape() else { return Err(Miss::No) };
    if op.transpose_x || !RANKS.contains(&m.rank(op.x)?) || !weight.dtype().is_float() || columns == 0 {
        return Err(Miss::No);
    }
    let matrix: Value = if op.transpose_y {
        op.y
    } else {
        m.require(weight.count() <= MAX_TRANSPOSED, "the matrix is too large to be transposed")?;
        m.make_constant_like(op.y, weight.transposed().ok_or(Miss::No)?)
    };
    Ok(m.replace(Linear { x: op.x, weight: matrix, bias: None }))
}
