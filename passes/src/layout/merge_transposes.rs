//! Makes one op, or none, of several transposes.

use super::keep::permutation;
use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{Matmul, Transpose},
};

pub(crate) static PASS: Pass = Pass {
    name: "merge_transposes",
    doc: "Makes one transpose, or none, of two that follow each other, and lets matrix products swap the axes of their operands themselves.",
    changes_precision: false,
    after: &["rank_reduction"],
    run: Run::Rules(rules![of_transpose, of_product, into_product]),
};

fn of_transpose(op: &Transpose, m: &Matcher<'_>) -> Fit {
    let before = m.def::<Transpose>(op.x)?;
    let rank = m.rank(op.x)?;
    let (outer, inner) = permutation(&op.perm, rank).zip(permutation(&before.perm, rank)).ok_or(Miss::No)?;
    let perm: Vec<usize> = outer.iter().map(|p| inner[*p]).collect();
    if perm.iter().enumerate().all(|(i, p)| i == *p) {
        return Ok(m.alias(before.x));
    }
    m.sole::<Transpose>(op.x)?;
    Ok(m.replace(Transpose { x: before.x, perm: perm.into_iter().map(|p| p as i64).collect() }))
}

/// What `v` is the transpose of, as far as the last two axes alone are swapped.
fn swapped(m: &Matcher<'_>, v: Value) -> Option<Value> {
    let op = m.def::<Transpose>(v).ok()?;
    swaps_last_two(m, op).then_some(op.x)
}

fn swaps_last_two(m: &Matcher<'_>, op: &Transpose) -> bool {
    let Some(perm) = m.rank(op.x).ok().and_then(|rank| permutation(&op.perm, rank)) else { return false };
    let Some(lead) = perm.len().checked_sub(2) else { return false };
    perm[..lead].iter().enumerate().all(|(i, p)| i == *p) && perm[lead..] == [lead + 1, lead]
}

/// A matrix product swaps the axes of an operand while it reads it.
fn into_product(op: &Matmul, m: &Matcher<'_>) -> Fit {
    let (x, y) = (swapped(m, op.x), swapped(m, op.y));
    if x.is_none() && y.is_none() {
        return Err(Miss::No);
    }
    // A constant is transposed once, before the program runs; and it must stay the constant that it is.
    let stays = |v: Option<Value>| v.is_some_and(|v| m.is_constant(v));
    m.require(!stays(x) && !stays(y), "the operand is a constant, which is transposed itself")?;
    Ok(m.replace(Matmul {
        x: x.unwrap_or(op.x),
        y: y.unwrap_or(op.y),
        transpose_x: op.transpose_x ^ x.is_some(),
        transpose_y: op.transpose_y ^ y.is_some(),
    }))
}

/// The transpose of a product is the product of the transposes, in the other order.
fn of_product(op: &Transpose, m: &Matcher<'_>) -> Fit {
    if !swaps_last_two(m, op) {
        return Err(Miss::No);
    }
    let product = m.sole::<Matmul>(op.x)?;
    let of_weights = m.is_constant(product.x) || m.is_constant(product.y);
    m.require(!of_weights, "the product is one with weights, which is better computed as a layer")?;
    let (x, y) = (m.shape(product.x)?, m.shape(product.y)?);
    let (Some(a), Some(b)) = (x.rank().checked_sub(2), y.rank().checked_sub(2)) else { return Err(Miss::No) };
    let dtype = |v: Value| m.ty(v).tensor().map(|t| t.dtype);
    m.require(dtype(product.x) == dtype(product.y), "the operands of the product are of different types")?;
    let same_batch = x[..a] == y[..b] || x.known().is_some() && y.known().is_some();
    m.require(same_batch, "open sizes of the operands of the product differ")?;
    let Matmul { x, y, transpose_x, transpose_y } = *product;
    Ok(m.replace(Matmul { x: y, y: x, transpose_x: !transpose_y, transpose_y: !transpose_x }))
}
