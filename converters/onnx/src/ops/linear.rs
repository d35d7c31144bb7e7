//! Products of matrices.

use super::activation;
use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Lower, LowerError, Lowered,
    layers::{einsum::einsum, inverse::inverse},
};
use mlconv_tensor::DType;

rows! {
    "Einsum" 12..=LATEST => |n| {
        let values = n.inputs_from(0)?;
        let Some(equation) = n.str("equation")? else { return Err(LowerError::MissingAttr { name: "equation" }) };
        let y = einsum(n, equation, &values)?;
        n.done(y)
    };
    "Gemm" 6..=LATEST => gemm;
    "MatMul" 1..=LATEST => matmul;
    #["com.microsoft"] "CDist" 1..=LATEST => distances;
    #["com.microsoft"] "FusedGemm" 1..=LATEST => fused_gemm;
    #["com.microsoft"] "FusedMatMul" 1..=LATEST => |n| { let y = fused_matmul(n)?; n.done(y) };
    #["com.microsoft"] "FusedMatMulActivation" 1..=LATEST => |n| {
        let y = fused_matmul(n)?;
        let y = activated(n, y)?;
        n.done(y)
    };
    #["com.microsoft"] "GemmFastGelu" 1..=LATEST => gemm_fast_gelu;
    #["com.microsoft"] "Inverse" 1..=LATEST => |n| { let x = n.input(0)?; let y = inverse(n, x)?; n.done(y) };
    #["com.microsoft"] "TransposeMatMul" 1..=LATEST => |n| { let y = fused_matmul(n)?; n.done(y) };
}

/// A vector is a matrix of one row on the left, of one column on the right.
fn matmul(n: &mut Lower<'_>) -> Lowered {
    let (x, y) = (n.input(0)?, n.input(1)?);
    let product = product(n, x, y)?;
    n.done(product)
}

/// The product of matrices; vectors are matrices of one row or column.
pub(super) fn product(n: &mut Lower<'_>, x: Value, y: Value) -> Result<Value, LowerError> {
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

/// A product of matrices, each transposed first where the node says so, times a number.
fn fused_matmul(n: &mut Lower<'_>) -> Result<Value, LowerError> {
    let (a, b, alpha) = (n.input(0)?, n.input(1)?, n.float_or("alpha", 1.0)?);
    let (transpose_a, transpose_b) = (n.flag("transA", false)?, n.flag("transB", false)?);
    let (moved_a, moved_b) = (n.flag("transBatchA", false)?, n.flag("transBatchB", false)?);
    let (a, b) = (rows_inside(n, a, moved_a)?, rows_inside(n, b, moved_b)?);
    let y = if n.rank(a)? < 2 || n.rank(b)? < 2 {
        if transpose_a || transpose_b {
            return Err(LowerError::form("a transposed vector"));
        }
        product(n, a, b)?
    } else {
        n.matmul(a, b, transpose_a, transpose_b)?
    };
    n.scale(y, alpha.into())
}

/// `x` with its first axis moved to where the rows of matrices are.
fn rows_inside(n: &mut Lower<'_>, x: Value, moved: bool) -> Result<Value, LowerError> {
    let rank = n.rank(x)? as i64;
    if !moved || rank < 3 {
        return Ok(x);
    }
    let perm: Vec<i64> = (1..rank - 1).chain([0, rank - 1]).collect();
    n.permute(x, &perm)
}

/// `y` after the function that the node names, if any.
fn activated(n: &mut Lower<'_>, y: Value) -> Result<Value, LowerError> {
    let numbers = [n.float("activation_alpha")?, n.float("activation_beta")?];
    let name = n.str_or("activation", "")?;
    activation::fused(n, y, name, numbers)
}

/// The distance of each row of the first matrix to each of the second.
fn distances(n: &mut Lower<'_>) -> Lowered {
    let (a, b) = (n.input(0)?, n.input(1)?);
    let rooted = match n.str_or("metric", "sqeuclidean")? {
        "euclidean" => true,
        "sqeuclidean" => false,
        _ => return n.bad_attr("metric", "`euclidean` or `sqeuclidean`"),
    };
    if n.rank(a)? != 2 || n.rank(b)? != 2 {
        return Err(LowerError::form(format!("distances of {} and {}", n.ty(a)?, n.ty(b)?)));
    }
    let (a, b) = (n.expand_dims(a, &[1])?, n.expand_dims(b, &[0])?);
    let apart = n.sub(a, b)?;
    let axes = Some(vec![2]);
    if rooted {
        return n.emit(ops::ReduceL2Norm { x: apart, axes, keep_dims: false });
    }
    n.emit(ops::ReduceSumSquare { x: apart, axes, keep_dims: false })
}

fn gemm_fast_gelu(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, bias) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    let mut y = product(n, x, weight)?;
    if let Some(bias) = bias {
        y = n.add(y, bias)?;
    }
    n.emit(ops::Gelu { x: y, mode: ops::GeluMode::Tanh })
}

fn fused_gemm(n: &mut Lower<'_>) -> Lowered {
    let y = gemm_value(n)?;
    let y = activated(n, y)?;
    n.done(y)
}

fn gemm(n: &mut Lower<'_>) -> Lowered {
    let y = gemm_value(n)?;
    n.done(y)
}

fn gemm_value(n: &mut Lower<'_>) -> Result<Value, LowerError> {
    let (a, b, c) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    n.ignore("broadcast");
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
