//! Norms and distances.

use super::promote::{converted, float_operands};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered};

aten! {
    "linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor" => |n| {
        let p = n.number("ord")?.unwrap_or(2.0);
        vector_norm(n, p)
    };
    "norm.Scalar(Tensor self, Scalar p=2) -> Tensor", "norm.ScalarOpt_dtype(Tensor self, Scalar? p, *, ScalarType dtype) -> Tensor",
    "norm.ScalarOpt_dim_dtype(Tensor self, Scalar? p, int[1] dim, bool keepdim, *, ScalarType dtype) -> Tensor",
    "norm.ScalarOpt_dim(Tensor self, Scalar? p, int[1] dim, bool keepdim=False) -> Tensor" => |n| {
        let p = n.number("p")?.unwrap_or(2.0);
        vector_norm(n, p)
    };
    "frobenius_norm.dim(Tensor self, int[1] dim, bool keepdim=False) -> Tensor" => |n| vector_norm(n, 2.0);
    "linalg_norm(Tensor self, Scalar? ord=None, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
    "linalg_norm.ord_str(Tensor self, str ord, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor" => linalg_norm;
    "linalg_matrix_norm(Tensor self, Scalar ord, int[] dim=[-2,-1], bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
    "linalg_matrix_norm.str_ord(Tensor self, str ord='fro', int[] dim=[-2,-1], bool keepdim=False, *, ScalarType? dtype=None) -> Tensor" => linalg_norm;
    "cosine_similarity(Tensor x1, Tensor x2, int dim=1, float eps=1e-08) -> Tensor" => cosine_similarity;
    "pairwise_distance(Tensor x1, Tensor x2, float p=2, float eps=1e-06, bool keepdim=False) -> Tensor" => pairwise_distance;
    "cdist(Tensor x1, Tensor x2, float p=2, int? compute_mode=None) -> Tensor", "_cdist_forward(Tensor x1, Tensor x2, float p, int? compute_mode) -> Tensor",
    "_euclidean_dist(Tensor x1, Tensor x2) -> Tensor" => cdist;
    "pdist(Tensor self, float p=2) -> Tensor", "_pdist_forward(Tensor self, float p=2) -> Tensor" => pdist;
    "dist(Tensor self, Tensor other, Scalar p=2) -> Tensor" => |n| {
        let p = n.number("p")?.unwrap_or(2.0);
        let [x, y] = float_operands(n, ["self", "other"])?;
        let apart = n.sub(x, y)?;
        let y = norm(n, apart, p, None, false)?;
        n.done(y)
    };
    "renorm(Tensor self, Scalar p, int dim, Scalar maxnorm) -> Tensor" => renorm;
    "norm_except_dim(Tensor v, int pow=2, int dim=0) -> Tensor" => |n| {
        let (v, p, dim) = (n.value("v")?, n.int_or("pow", 2)?, n.int_or("dim", 0)?);
        let y = norm_but(n, v, p as f64, dim)?;
        n.done(y)
    };
    "_weight_norm(Tensor v, Tensor g, int dim=0) -> Tensor" => |n| Ok(weight_norm(n)?.into_iter().take(1).collect());
    "_weight_norm_interface(Tensor v, Tensor g, int dim=0) -> (Tensor, Tensor)" => weight_norm;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The `p`-norm of `x`, of floats, over some axes, or all.
pub(super) fn norm(n: &mut Lower<'_>, x: Value, p: f64, axes: Option<Vec<i64>>, keep_dims: bool) -> Result<Value> {
    if n.rank(x)? == 0 {
        // Of one number, all norms but one are its size.
        if p == 0.0 {
            let zero = n.scalar_like(x, 0.0)?;
            let there = n.op(ops::NotEqual { x, y: zero })?;
            return n.cast(there, n.dtype(x)?);
        }
        return n.abs(x);
    }
    if p == 2.0 {
        return n.op(ops::ReduceL2Norm { x, axes, keep_dims });
    }
    if p == 0.0 {
        let zero = n.scalar_like(x, 0.0)?;
        let there = n.op(ops::NotEqual { x, y: zero })?;
        let there = n.cast(there, n.dtype(x)?)?;
        return n.op(ops::ReduceSum { x: there, axes, keep_dims });
    }
    let size = n.abs(x)?;
    if p == 1.0 {
        n.op(ops::ReduceSum { x: size, axes, keep_dims })
    } else if p == f64::INFINITY {
        n.op(ops::ReduceMax { x: size, axes, keep_dims })
    } else if p == f64::NEG_INFINITY {
        n.op(ops::ReduceMin { x: size, axes, keep_dims })
    } else {
        let power = n.scalar_like(x, p)?;
        let powers = n.op(ops::Pow { x: size, y: power })?;
        let sum = n.op(ops::ReduceSum { x: powers, axes, keep_dims })?;
        let root = n.scalar_like(x, 1.0 / p)?;
        n.op(ops::Pow { x: sum, y: root })
    }
}

/// The axes that `dim` says; `None` for all of them.
fn axes(n: &Lower<'_>, x: Value) -> Result<Option<Vec<i64>>> {
    let dims = n.ints("dim")?.filter(|d| !d.is_empty() && n.rank(x).is_ok_and(|r| r > 0));
    let Some(dims) = dims else { return Ok(None) };
    dims.into_iter().map(|d| n.axis(x, d).map(|a| a as i64)).collect::<Result<_>>().map(Some)
}

/// The argument `self` in the type that norms of it have.
fn measured(n: &mut Lower<'_>) -> Result<Value> {
    let x = n.value("self")?;
    match n.dtype_arg("dtype")? {
        Some(d) => converted(n, x, d),
        None => n.as_float(x),
    }
}

fn vector_norm(n: &mut Lower<'_>, p: f64) -> Lowered {
    let x = measured(n)?;
    let (axes, keep) = (axes(n, x)?, n.flag("keepdim", false)?);
    let y = norm(n, x, p, axes, keep)?;
    n.done(y)
}

/// A norm of vectors, or where two axes are meant and the order is given, of matrices.
fn linalg_norm(n: &mut Lower<'_>) -> Lowered {
    let x = measured(n)?;
    let (over, keep) = (axes(n, x)?, n.flag("keepdim", false)?);
    let named = n.str("ord").unwrap_or_default();
    let order = if named.is_some() { None } else { n.number("ord")? };
    if named.is_none() && order.is_none() {
        let y = norm(n, x, 2.0, over, keep)?;
        return n.done(y);
    }
    let whole = over.is_none() && n.rank(x)? == 2;
    let pair = match over.as_deref() {
        Some([rows, columns]) => Some([*rows, *columns]),
        None if whole => Some([0, 1]),
        _ => None,
    };
    let Some([rows, columns]) = pair else {
        let Some(p) = order else { return Err(LowerError::form("this norm of vectors")) };
        let y = norm(n, x, p, over, keep)?;
        return n.done(y);
    };
    if named == Some("fro") {
        let y = norm(n, x, 2.0, Some(vec![rows, columns]), keep)?;
        return n.done(y);
    }
    let size = n.abs(x)?;
    let (summed, compared, greatest) = match order {
        Some(p) if p == 1.0 || p == -1.0 => (rows, columns, p > 0.0),
        Some(p) if p.is_infinite() => (columns, rows, p > 0.0),
        _ => return Err(LowerError::form("a norm of matrices by their singular values")),
    };
    let sums = n.sum_over(size, &[summed])?;
    let axes = Some(vec![compared]);
    let y = if greatest {
        n.op(ops::ReduceMax { x: sums, axes, keep_dims: true })?
    } else {
        n.op(ops::ReduceMin { x: sums, axes, keep_dims: true })?
    };
    let y = if keep { y } else { n.squeeze(y, &[rows, columns])? };
    n.done(y)
}

/// Each tensor is divided by its norm, no less than `eps`, before they are multiplied.
fn cosine_similarity(n: &mut Lower<'_>) -> Lowered {
    let (dim, eps) = (n.int_or("dim", 1)?, n.number("eps")?.unwrap_or(1e-8));
    let [x, y] = float_operands(n, ["x1", "x2"])?;
    let lead = n.rank(x)?.max(n.rank(y)?);
    let mut units = vec![];
    for v in [x, y] {
        let own: Vec<i64> = (0..(lead - n.rank(v)?) as i64).collect();
        let v = n.expand_dims(v, &own)?;
        let length = norm(n, v, 2.0, Some(vec![dim]), true)?;
        let least = n.scalar_like(length, eps)?;
        let length = n.maximum(length, least)?;
        units.push(n.div(v, length)?);
    }
    let product = n.mul(units[0], units[1])?;
    n.emit(ops::ReduceSum { x: product, axes: Some(vec![dim]), keep_dims: false })
}

fn pairwise_distance(n: &mut Lower<'_>) -> Lowered {
    let (p, eps) = (n.number("p")?.unwrap_or(2.0), n.number("eps")?.unwrap_or(1e-6));
    let keep = n.flag("keepdim", false)?;
    let [x, y] = float_operands(n, ["x1", "x2"])?;
    let apart = n.sub(x, y)?;
    let apart = n.add_number(apart, eps)?;
    let y = norm(n, apart, p, Some(vec![-1]), keep)?;
    n.done(y)
}

/// The distance of each row of the first to each of the second.
fn cdist(n: &mut Lower<'_>) -> Lowered {
    // How it is computed is a matter of rounding.
    n.ignore("compute_mode");
    let p = n.number("p")?.unwrap_or(2.0);
    let [x, y] = float_operands(n, ["x1", "x2"])?;
    let (x, y) = (n.expand_dims(x, &[-2])?, n.expand_dims(y, &[-3])?);
    let apart = n.sub(x, y)?;
    let y = norm(n, apart, p, Some(vec![-1]), false)?;
    n.done(y)
}

/// Rows beyond which distances between all of them are refused.
const MAX_ROWS: i64 = 1 << 11;

/// The distance of each row to each that comes after it.
fn pdist(n: &mut Lower<'_>) -> Lowered {
    let (x, p) = (n.value("self")?, n.number("p")?.unwrap_or(2.0));
    let rows = n.fixed_shape(x, "the number of pairs")?.first().copied().unwrap_or(0);
    if !(2..=MAX_ROWS).contains(&rows) {
        return Err(LowerError::form(format!("the distances between {rows} rows")));
    }
    let pairs: Vec<(i64, i64)> = (0..rows).flat_map(|i| (i + 1..rows).map(move |j| (i, j))).collect();
    let first = n.gather_at(x, 0, &pairs.iter().map(|p| p.0).collect::<Vec<_>>())?;
    let second = n.gather_at(x, 0, &pairs.iter().map(|p| p.1).collect::<Vec<_>>())?;
    let apart = n.sub(first, second)?;
    let y = norm(n, apart, p, Some(vec![1]), false)?;
    n.done(y)
}

/// The `p`-norm over all axes but one, which all stay; -1 for all axes.
fn norm_but(n: &mut Lower<'_>, v: Value, p: f64, dim: i64) -> Result<Value> {
    let rank = n.rank(v)? as i64;
    if dim == -1 {
        return norm(n, v, p, None, false);
    }
    let axis = n.axis(v, dim)? as i64;
    let others: Vec<i64> = (0..rank).filter(|a| *a != axis).collect();
    if others.is_empty() { n.abs(v) } else { norm(n, v, p, Some(others), true) }
}

/// Slices along an axis, none longer than `maxnorm`.
fn renorm(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let (p, dim) = (n.number("p")?.unwrap_or(2.0), n.int_or("dim", 0)?);
    let most = n.number("maxnorm")?.unwrap_or(1.0);
    let axis = n.axis(x, dim)? as i64;
    let length = norm_but(n, x, p, axis)?;
    let (limit, one) = (n.scalar_like(x, most)?, n.scalar_like(x, 1.0)?);
    let longer = n.less(limit, length)?;
    let least = n.add_number(length, 1e-7)?;
    let share = n.div(limit, least)?;
    let share = n.select(longer, share, one)?;
    n.emit(ops::Mul { x, y: share })
}

/// `v` with the length `g` along an axis, and the lengths that it had.
fn weight_norm(n: &mut Lower<'_>) -> Lowered {
    let (v, g, dim) = (n.value("v")?, n.value("g")?, n.int_or("dim", 0)?);
    let length = norm_but(n, v, 2.0, dim)?;
    let share = n.div(g, length)?;
    let mut out = n.emit(ops::Mul { x: v, y: share })?;
    out.extend(n.done(length)?);
    Ok(out)
}
