//! Products of matrices.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::DType;

rows! {
    "Gemm" 7..=LATEST => gemm;
    "MatMul" 1..=LATEST => matmul;
}

/// A vector is a matrix of one row on the left, of one column on the right.
fn matmul(n: &mut Lower<'_>) -> Lowered {
    let (x, y) = (n.input(0)?, n.input(1)?);
    let (row, column) = (n.rank(x)? == 1, n.rank(y)? == 1);
    if n.rank(x)? == 0 || n.rank(y)? == 0 {
        return Err(LowerError::form("a product of a matrix and a scalar"));
    }
    let x = if row { n.expand_dims(x, &[0])? } else { x };
    let y = if column { n.expand_dims(y, &[1])? } else { y };
    let product = n.matmul(x, y, false, false)?;
    let axes: Vec<i64> = row.then_some(-2).into_iter().chain(column.then_some(-1)).collect();
    let product = n.squeeze(product, &axes)?;
    n.done(product)
}

fn gemm(n: &mut Lower<'_>) -> Lowered {
    let (a, b, c) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    let (alpha, beta) = (n.float_or("alpha", 1.0)?, n.float_or("beta", 1.0)?);
    let (transpose_a, transpose_b) = (n.flag("transA", false)?, n.flag("transB", false)?);
    let dtype = n.dtype(a)?;
    let (a, b) = (n.as_float(a)?, n.as_float(b)?);
    let c = match c {
        Some(c) if beta != 0.0 => {
            let c = n.as_float(c)?;
            Some(n.scale(c, beta.into())?)
        }
        _ => None,
    };
    if let Some((weight, bias)) = as_linear(n, b, c, alpha, transpose_b)? {
        let x = if transpose_a { n.transpose(a, &[1, 0])? } else { a };
        return n.emit(ops::Linear { x, weight, bias });
    }
    let product = n.op(ops::Matmul { x: a, y: b, transpose_x: transpose_a, transpose_y: transpose_b })?;
    let mut y = n.scale(product, alpha.into())?;
    if let Some(c) = c {
        y = n.add(y, c)?;
    }
    let y = n.cast(y, dtype)?;
    n.done(y)
}

/// The weight and bias of a linear layer, where the factor is constant and the summand, if any, is a constant vector.
fn as_linear(
    n: &mut Lower<'_>,
    b: Value,
    c: Option<Value>,
    alpha: f32,
    transposed: bool,
) -> Result<Option<(Value, Option<Value>)>, LowerError> {
    let Some(factor) = n.const_of(b) else { return Ok(None) };
    if factor.shape().len() != 2 || !matches!(factor.dtype(), DType::F16 | DType::F32) {
        return Ok(None);
    }
    let outputs = factor.shape()[usize::from(!transposed)];
    let bias = match c {
        None => None,
        Some(c) => match n.const_of(c).cloned() {
            Some(t) if t.count() == outputs && t.shape().last() == Some(&outputs) => {
                Some(n.add_const(t.reshape(&[outputs]))?)
            }
            _ => return Ok(None),
        },
    };
    let weight = if transposed { b } else { n.transpose(b, &[1, 0])? };
    let weight = n.scale(weight, alpha.into())?;
    // A large one is not computed here.
    Ok(n.const_of(weight).is_some().then_some((weight, bias)))
}
