//! Products of matrices.

use super::activation;
use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Lower, LowerError, Lowered,
    layers::{
        einsum::einsum,
        inverse::inverse,
        linear::{Gemm, gemm, product},
    },
};

rows! {
    "Einsum" 12..=LATEST => |n| {
        let values = n.inputs_from(0)?;
        let Some(equation) = n.str("equation")? else { return Err(LowerError::MissingAttr { name: "equation" }) };
        let y = einsum(n, equation, &values)?;
        n.done(y)
    };
    "Gemm" 6..=LATEST => sum_with_product;
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
    n.numeric(x)?;
    n.alike(x, y)?;
    let product = product(n, x, y)?;
    n.done(product)
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

fn sum_with_product(n: &mut Lower<'_>) -> Lowered {
    let y = gemm_value(n)?;
    n.done(y)
}

fn gemm_value(n: &mut Lower<'_>) -> Result<Value, LowerError> {
    let (a, b, c) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    n.ignore("broadcast");
    let (alpha, beta) = (n.float_or("alpha", 1.0)?, n.float_or("beta", 1.0)?);
    let (transpose_a, transpose_b) = (n.flag("transA", false)?, n.flag("transB", false)?);
    n.numeric(a)?;
    [Some(b), c].into_iter().flatten().try_for_each(|v| n.alike(a, v))?;
    gemm(n, [a, b], c, Gemm { alpha, beta, transpose_a, transpose_b })
}
