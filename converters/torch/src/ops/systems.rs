//! Systems of linear equations, determinants and decompositions of matrices.

use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered,
    layers::{
        elimination::{Eliminated, cholesky, eliminated},
        inverse::inverse,
    },
};

aten! {
    "linalg_inv(Tensor A) -> Tensor" => |n| inverted(n, "A");
    "inverse(Tensor self) -> Tensor" => |n| inverted(n, "self");
    "linalg_inv_ex(Tensor A, *, bool check_errors=False) -> (Tensor inverse, Tensor info)" => |n| {
        n.ignore("check_errors");
        let out = inverted(n, "A")?;
        with_success(n, out, "A")
    };
    "linalg_det(Tensor A) -> Tensor" => |n| { let y = determinant(n, "A")?; n.done(y) };
    "det(Tensor self) -> Tensor" => |n| { let y = determinant(n, "self")?; n.done(y) };
    "_linalg_det(Tensor A) -> (Tensor result, Tensor LU, Tensor pivots)" => |n| { let y = determinant(n, "A")?; with_nothing(n.done(y)?, n) };
    "linalg_slogdet(Tensor A) -> (Tensor sign, Tensor logabsdet)" => |n| Ok(log_determinant(n, "A")?.map(Entry::Value).to_vec());
    "slogdet(Tensor self) -> (Tensor sign, Tensor logabsdet)" => |n| Ok(log_determinant(n, "self")?.map(Entry::Value).to_vec());
    "_linalg_slogdet(Tensor A) -> (Tensor sign, Tensor logabsdet, Tensor LU, Tensor pivots)" => |n| with_nothing(log_determinant(n, "A")?.map(Entry::Value).to_vec(), n);
    "logdet(Tensor self) -> Tensor" => |n| {
        let [sign, size] = log_determinant(n, "self")?;
        let (zero, none) = (n.scalar_like(sign, 0.0)?, n.scalar_like(sign, f64::NAN)?);
        let below = n.less(sign, zero)?;
        n.emit(ops::Select { cond: below, a: none, b: size })
    };
    "linalg_solve(Tensor A, Tensor B, *, bool left=True) -> Tensor" => solved;
    "linalg_solve_ex(Tensor A, Tensor B, *, bool left=True, bool check_errors=False) -> (Tensor result, Tensor info)",
    "_linalg_solve_ex(Tensor A, Tensor B, *, bool left=True, bool check_errors=False) -> (Tensor result, Tensor LU, Tensor pivots, Tensor info)" => |n| {
        n.ignore("check_errors");
        let out = solved(n)?;
        with_success(n, out, "A")
    };
    "linalg_solve_triangular(Tensor self, Tensor B, *, bool upper, bool left=True, bool unitriangular=False) -> Tensor" => |n| {
        let (x, upper) = (n.value("self")?, n.flag("upper", false)?);
        let (left, unit) = (n.flag("left", true)?, n.flag("unitriangular", false)?);
        let x = triangle(n, x, upper, unit)?;
        let right = n.value("B")?;
        let y = solution(n, x, right, left)?;
        n.done(y)
    };
    "triangular_solve(Tensor self, Tensor A, bool upper=True, bool transpose=False, bool unitriangular=False) -> (Tensor solution, Tensor cloned_coefficient)" => |n| {
        let (right, a, upper) = (n.value("self")?, n.value("A")?, n.flag("upper", true)?);
        let (turned, unit) = (n.flag("transpose", false)?, n.flag("unitriangular", false)?);
        let mut x = triangle(n, a, upper, unit)?;
        if turned {
            x = transposed(n, x)?;
        }
        let y = solution(n, x, right, true)?;
        Ok(vec![Entry::Value(y), Entry::Value(a)])
    };
    "linalg_cholesky(Tensor self, *, bool upper=False) -> Tensor", "cholesky(Tensor self, bool upper=False) -> Tensor" => factored;
    "linalg_cholesky_ex(Tensor self, *, bool upper=False, bool check_errors=False) -> (Tensor L, Tensor info)" => |n| {
        n.ignore("check_errors");
        let out = factored(n)?;
        with_success(n, out, "self")
    };
    "cholesky_solve(Tensor self, Tensor input2, bool upper=False) -> Tensor" => |n| {
        let (right, x) = (n.value("self")?, product_of_factor(n, "input2")?);
        let y = solution(n, x, right, true)?;
        n.done(y)
    };
    "cholesky_inverse(Tensor self, bool upper=False) -> Tensor" => |n| { let x = product_of_factor(n, "self")?; let y = inverse(n, x)?; n.done(y) };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Behind the results, and others that are not computed, 0 for each matrix: none was found at fault.
fn with_success(n: &mut Lower<'_>, mut out: Vec<Entry>, name: &'static str) -> Lowered {
    let x = n.value(name)?;
    let mut sizes = n.own_sizes(x)?;
    sizes.truncate(sizes.len().saturating_sub(2));
    let zero = n.const_int(0)?;
    let all = super::creation::filled(n, &sizes, zero)?;
    out.resize(n.output_count().max(2) - 1, Entry::Nothing);
    out.push(Entry::Value(all));
    Ok(out)
}

/// What an operator says of how it went, beside its results, is not computed.
fn with_nothing(mut out: Vec<Entry>, n: &Lower<'_>) -> Lowered {
    out.resize(n.output_count().max(1), Entry::Nothing);
    Ok(out)
}

fn inverted(n: &mut Lower<'_>, name: &'static str) -> Lowered {
    let x = n.value(name)?;
    let y = inverse(n, x)?;
    n.done(y)
}

/// Without the last two axes, which have one element.
fn scalar_of(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let rank = n.rank(x)? as i64;
    n.squeeze(x, &[rank - 2, rank - 1])
}

fn product(n: &mut Lower<'_>, all: Vec<Value>) -> Result<Value> {
    let x = n.concat(all, -1)?;
    n.op(ops::ReduceProd { x, axes: Some(vec![-1]), keep_dims: true })
}

fn determinant(n: &mut Lower<'_>, name: &'static str) -> Result<Value> {
    let x = n.value(name)?;
    let Eliminated { pivots, parity, .. } = eliminated(n, x, None)?;
    let all = product(n, pivots)?;
    let y = n.mul(all, parity)?;
    scalar_of(n, y)
}

/// The sign of the determinant, and the logarithm of its size.
fn log_determinant(n: &mut Lower<'_>, name: &'static str) -> Result<[Value; 2]> {
    let x = n.value(name)?;
    let Eliminated { pivots, parity, .. } = eliminated(n, x, None)?;
    let pivots = n.concat(pivots, -1)?;
    let signs = n.op(ops::Sign { x: pivots })?;
    let sign = n.op(ops::ReduceProd { x: signs, axes: Some(vec![-1]), keep_dims: true })?;
    let sign = n.mul(sign, parity)?;
    let size = n.abs(pivots)?;
    let log = n.log(size)?;
    let size = n.sum_over(log, &[-1])?;
    Ok([scalar_of(n, sign)?, scalar_of(n, size)?])
}

fn transposed(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let rank = n.rank(x)?;
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    if rank < 2 {
        return Err(LowerError::form(format!("a matrix in {}", n.ty(x)?)));
    }
    perm.swap(rank - 1, rank - 2);
    n.transpose(x, &perm)
}

fn solved(n: &mut Lower<'_>) -> Lowered {
    let (a, b, left) = (n.value("A")?, n.value("B")?, n.flag("left", true)?);
    let (of_a, of_b) = (n.shape(a)?, n.shape(b)?);
    // One right hand side for each matrix, of which the first axes are the same.
    let vector = of_b.rank() == 1 || (of_b.rank() + 1 == of_a.rank() && of_b[..] == of_a[..of_a.rank() - 1]);
    let b = if vector { n.expand_dims(b, &[-1])? } else { b };
    let y = solution(n, a, b, left || vector)?;
    let y = if vector { n.squeeze(y, &[-1])? } else { y };
    n.done(y)
}

/// `y` of `a * y = b`, or of `y * a = b` where `a` is not on the left.
fn solution(n: &mut Lower<'_>, a: Value, b: Value, left: bool) -> Result<Value> {
    if !left {
        let (a, b) = (transposed(n, a)?, transposed(n, b)?);
        let y = solution(n, a, b, true)?;
        return transposed(n, y);
    }
    let (of_a, of_b) = (n.shape(a)?, n.shape(b)?);
    let (rank, other) = (of_a.rank(), of_b.rank());
    if rank == other && of_a[..rank.saturating_sub(2)] == of_b[..rank.saturating_sub(2)] {
        return eliminated(n, a, Some(b))?.solution.ok_or(LowerError::Poisoned);
    }
    // One matrix for many right hand sides, or the other way around.
    let inverse = inverse(n, a)?;
    n.matmul(inverse, b, false, false)
}

/// The upper or lower triangle of `x`, with ones on the diagonal where `unit` says so.
fn triangle(n: &mut Lower<'_>, x: Value, upper: bool, unit: bool) -> Result<Value> {
    let (lower, higher) = if upper { (0, -1) } else { (-1, 0) };
    let y = n.op(ops::BandPart { x, lower, upper: higher })?;
    if !unit {
        return Ok(y);
    }
    let diagonal = n.op(ops::BandPart { x: y, lower: 0, upper: 0 })?;
    let one = n.scalar_like(y, 1.0)?;
    let ones = n.broadcast_like(one, y)?;
    let ones = n.op(ops::BandPart { x: ones, lower: 0, upper: 0 })?;
    let y = n.sub(y, diagonal)?;
    n.add(y, ones)
}

fn factored(n: &mut Lower<'_>) -> Lowered {
    let (x, upper) = (n.value("self")?, n.flag("upper", false)?);
    let y = cholesky(n, x)?;
    let y = if upper { transposed(n, y)? } else { y };
    n.done(y)
}

/// The matrix that a factor is of.
fn product_of_factor(n: &mut Lower<'_>, name: &'static str) -> Result<Value> {
    let (x, upper) = (n.value(name)?, n.flag("upper", false)?);
    let x = triangle(n, x, upper, false)?;
    n.matmul(x, x, upper, !upper)
}
