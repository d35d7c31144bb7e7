//! Products of matrices.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::DType;

/// The product of matrices; vectors are matrices of one row or column.
pub fn product(n: &mut Lower<'_>, x: Value, y: Value) -> Result<Value, LowerError> {
    let (row, column) = (n.rank(x)? == 1, n.rank(y)? == 1);
    if n.rank(x)? == 0 || n.rank(y)? == 0 {
        return Err(LowerError::form("a product of a matrix and a scalar"));
    }
    let x = if row { n.expand_dims(x, &[0])? } else { x };
    let y = if column { n.expand_dims(y, &[1])? } else { y };
    let product = n.matmul(x, y, false, false)?;
    let axes: Vec<i64> = row.then_some(-2).into_iter().chain(column.then_some(-1)).collect();
    n.squeeze(product, &axes)
}

/// Numbers and flags of a product with a sum.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// What the product is multiplied by.
    pub alpha: f32,
    /// What is added is multiplied by this.
    pub beta: f32,
    /// Whether the first factor is transposed.
    pub transpose_a: bool,
    /// Whether the second factor is transposed.
    pub transpose_b: bool,
}

/// `alpha * a * b + beta * c`, of matrices.
pub fn gemm(n: &mut Lower<'_>, [a, b]: [Value; 2], c: Option<Value>, how: Gemm) -> Result<Value, LowerError> {
    let Gemm { alpha, beta, transpose_a, transpose_b } = how;
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
        return n.op(ops::Linear { x, weight, bias });
    }
    let product = n.op(ops::Matmul { x: a, y: b, transpose_x: transpose_a, transpose_y: transpose_b })?;
    let mut y = n.scale(product, alpha.into())?;
    if let Some(c) = c {
        y = n.add(y, c)?;
    }
    n.cast(y, dtype)
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
                Some(n.add_given(t.reshape(&[outputs]))?)
            }
            _ => return Ok(None),
        },
    };
    let weight = if transposed { b } else { n.transpose(b, &[1, 0])? };
    let weight = n.scale(weight, alpha.into())?;
    // A large one is not computed here.
    Ok(n.const_of(weight).is_some().then_some((weight, bias)))
}
