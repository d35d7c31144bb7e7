//! Products of matrices and vectors.

use super::promote::operands;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Lower, LowerError, Lowered, Size,
    layers::{
        einsum::einsum,
        inverse::inverse,
        linear::{Gemm, gemm, product},
    },
};
use mlconv_tensor::DType;

aten! {
    "linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor" => linear;
    "matmul(Tensor self, Tensor other) -> Tensor", "linalg_matmul(Tensor self, Tensor other) -> Tensor" => |n| multiplied(n, "self", "other");
    "mm(Tensor self, Tensor mat2) -> Tensor", "bmm(Tensor self, Tensor mat2) -> Tensor" => |n| multiplied(n, "self", "mat2");
    "mv(Tensor self, Tensor vec) -> Tensor" => |n| multiplied(n, "self", "vec");
    "dot(Tensor self, Tensor tensor) -> Tensor" => |n| multiplied(n, "self", "tensor");
    "vdot(Tensor self, Tensor other) -> Tensor" => |n| multiplied(n, "self", "other");
    "inner(Tensor self, Tensor other) -> Tensor" => inner;
    "outer(Tensor self, Tensor vec2) -> Tensor", "ger(Tensor self, Tensor vec2) -> Tensor" => |n| { let y = outer(n, "self", "vec2")?; n.done(y) };
    "addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor" => addmm;
    "addmv(Tensor self, Tensor mat, Tensor vec, *, Scalar beta=1, Scalar alpha=1) -> Tensor" => |n| added(n, ["mat", "vec"], false);
    "addr(Tensor self, Tensor vec1, Tensor vec2, *, Scalar beta=1, Scalar alpha=1) -> Tensor" => |n| {
        let y = outer(n, "vec1", "vec2")?;
        plus(n, y)
    };
    "baddbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor" => |n| added(n, ["batch1", "batch2"], false);
    "addbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor" => |n| added(n, ["batch1", "batch2"], true);
    "chain_matmul(Tensor[] matrices) -> Tensor" => |n| chain(n, "matrices");
    "linalg_multi_dot(Tensor[] tensors) -> Tensor" => |n| chain(n, "tensors");
    "matrix_power(Tensor self, int n) -> Tensor", "linalg_matrix_power(Tensor self, int n) -> Tensor" => matrix_power;
    "einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor" => |n| {
        // In which order terms are joined changes nothing but rounding.
        n.ignore("path");
        let values = n.values("tensors")?;
        let Some(equation) = n.str("equation")? else { return Err(LowerError::MissingAttr { name: "equation" }) };
        let y = einsum(n, equation, &values)?;
        n.done(y)
    };
    "kron(Tensor self, Tensor other) -> Tensor" => kron;
    "tensordot(Tensor self, Tensor other, int[] dims_self, int[] dims_other) -> Tensor" => tensordot;
    "cross(Tensor self, Tensor other, int? dim=None) -> Tensor", "linalg_cross(Tensor self, Tensor other, *, int dim=-1) -> Tensor" => cross;
    "linalg_vecdot(Tensor x, Tensor y, *, int dim=-1) -> Tensor" => |n| {
        let ([x, y], _) = operands(n, ["x", "y"])?;
        let (z, dim) = (n.mul(x, y)?, n.int_or("dim", -1)?);
        n.emit(ops::ReduceSum { x: z, axes: Some(vec![dim]), keep_dims: false })
    };
    "_trilinear(Tensor i1, Tensor i2, Tensor i3, int[] expand1, int[] expand2, int[] expand3, int[] sumdim, int unroll_dim=1) -> Tensor" => trilinear;
    "bilinear(Tensor input1, Tensor input2, Tensor weight, Tensor? bias=None) -> Tensor" => bilinear;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

fn linear(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, bias) = (n.value("input")?, n.value("weight")?, n.maybe("bias")?);
    let y = layer(n, x, weight, bias)?;
    n.done(y)
}

/// `x * transpose(weight) + bias`.
pub(super) fn layer(n: &mut Lower<'_>, x: Value, weight: Value, bias: Option<Value>) -> Result<Value> {
    let (rank, dtype) = (n.rank(x)?, n.dtype(x)?);
    let fits = |n: &Lower<'_>, v: Value| n.const_of(v).is_some() && n.dtype(v).is_ok_and(|d| d == dtype);
    let mut summand = bias;
    let y = if n.rank(weight)? == 1 {
        product(n, x, weight)?
    } else if (1..=3).contains(&rank) && dtype.is_float() && fits(n, weight) {
        let fused = bias.filter(|b| fits(n, *b) && n.rank(*b).is_ok_and(|r| r == 1));
        if fused.is_some() {
            summand = None;
        }
        n.op(ops::Linear { x, weight, bias: fused })?
    } else if rank == 1 {
        product(n, weight, x)?
    } else {
        n.matmul(x, weight, false, true)?
    };
    match summand {
        Some(bias) => n.add(y, bias),
        None => Ok(y),
    }
}

fn multiplied(n: &mut Lower<'_>, a: &'static str, b: &'static str) -> Lowered {
    let (a, b) = (n.value(a)?, n.value(b)?);
    let y = product(n, a, b)?;
    n.done(y)
}

/// Sums over the last axis of both.
fn inner(n: &mut Lower<'_>) -> Lowered {
    let (a, b) = (n.value("self")?, n.value("other")?);
    let (rows, columns) = (n.rank(a)?, n.rank(b)?);
    if rows == 0 || columns == 0 {
        return n.emit(ops::Mul { x: a, y: b });
    }
    if rows == 1 || columns == 1 {
        // A vector sums over the last axis of the other.
        let (matrix, vector) = if columns == 1 { (a, b) } else { (b, a) };
        let y = product(n, matrix, vector)?;
        return n.done(y);
    }
    let sizes: Vec<Size> =
        (0..rows - 1).map(|i| Size::Of(a, i)).chain((0..columns - 1).map(|i| Size::Of(b, i))).collect();
    let (a, b) = (n.merge_axes(a, 0, rows - 1)?, n.merge_axes(b, 0, columns - 1)?);
    let y = n.matmul(a, b, false, true)?;
    let y = n.reshape(y, &sizes)?;
    n.done(y)
}

/// Every element of the first vector with every one of the second.
fn outer(n: &mut Lower<'_>, a: &'static str, b: &'static str) -> Result<Value> {
    let ([a, b], _) = operands(n, [a, b])?;
    let (a, b) = (n.expand_dims(a, &[1])?, n.expand_dims(b, &[0])?);
    if n.dtype(a)? == DType::Bool { n.and(a, b) } else { n.mul(a, b) }
}

fn addmm(n: &mut Lower<'_>) -> Lowered {
    let (c, a, b) = (n.value("self")?, n.value("mat1")?, n.value("mat2")?);
    let (alpha, beta) = (n.number("alpha")?.unwrap_or(1.0) as f32, n.number("beta")?.unwrap_or(1.0) as f32);
    let how = Gemm { alpha, beta, transpose_a: false, transpose_b: false };
    let y = gemm(n, [a, b], Some(c), how)?;
    n.done(y)
}

/// `beta * self + alpha * y`; what is multiplied by 0 is left out, whatever it holds.
fn plus(n: &mut Lower<'_>, y: Value) -> Lowered {
    let (alpha, beta) = (n.number("alpha")?.unwrap_or(1.0), n.number("beta")?.unwrap_or(1.0));
    let c = n.value("self")?;
    if n.dtype(y)? == DType::Bool {
        // A factor is set or not.
        let no = n.const_scalar(DType::Bool, 0.0)?;
        let x = if beta == 0.0 { no } else { c };
        let y = if alpha == 0.0 { no } else { y };
        return n.emit(ops::LogicalOr { x, y });
    }
    let y = n.scale(y, alpha)?;
    if beta == 0.0 {
        return n.done(y);
    }
    let c = n.scale(c, beta)?;
    n.emit(ops::Add { x: c, y })
}

fn added(n: &mut Lower<'_>, factors: [&'static str; 2], over_batches: bool) -> Lowered {
    let (a, b) = (n.value(factors[0])?, n.value(factors[1])?);
    let mut y = product(n, a, b)?;
    if over_batches {
        y = n.op(ops::ReduceSum { x: y, axes: Some(vec![0]), keep_dims: false })?;
    }
    plus(n, y)
}

fn chain(n: &mut Lower<'_>, name: &'static str) -> Lowered {
    let values = n.values(name)?;
    let Some((first, rest)) = values.split_first() else { return Err(LowerError::form("a product of nothing")) };
    let mut y = *first;
    for v in rest {
        y = product(n, y, *v)?;
    }
    n.done(y)
}

/// Matrices that are multiplied with themselves beyond which they are refused.
const MAX_POWER: i64 = 1 << 10;

fn matrix_power(n: &mut Lower<'_>) -> Lowered {
    let (x, power) = (n.value("self").or_else(|_| n.value("A"))?, n.int_or("n", 1)?);
    if !(-MAX_POWER..=MAX_POWER).contains(&power) || power == 0 {
        return n.bad_attr("n", format!("a number other than 0 up to {MAX_POWER}"));
    }
    let mut square = if power < 0 { inverse(n, x)? } else { x };
    let (mut left, mut y) = (power.unsigned_abs(), None);
    while left > 0 {
        if left % 2 == 1 {
            y = Some(match y {
                Some(y) => n.matmul(y, square, false, false)?,
                None => square,
            });
        }
        left /= 2;
        if left > 0 {
            square = n.matmul(square, square, false, false)?;
        }
    }
    n.done(y.ok_or(LowerError::Poisoned)?)
}

/// Blocks of the second, each times an element of the first.
fn kron(n: &mut Lower<'_>) -> Lowered {
    let ([mut a, mut b], _) = operands(n, ["self", "other"])?;
    let rank = n.rank(a)?.max(n.rank(b)?);
    if rank == 0 {
        return n.emit(ops::Mul { x: a, y: b });
    }
    for v in [&mut a, &mut b] {
        let lead: Vec<i64> = (0..(rank - n.rank(*v)?) as i64).collect();
        *v = n.expand_dims(*v, &lead)?;
    }
    let (mut apart, mut within, mut sizes) = (vec![], vec![], vec![]);
    for i in 0..rank {
        let (of_a, of_b) = (n.shape(a)?[i].as_known(), n.shape(b)?[i].as_known());
        let known = of_a.zip(of_b).and_then(|(a, b)| a.checked_mul(b));
        sizes.push(Size::Known(known.ok_or_else(|| LowerError::NotFixed { what: "the number of blocks".into() })?));
        apart.extend([Size::Of(a, i), Size::Known(1)]);
        within.extend([Size::Known(1), Size::Of(b, i)]);
    }
    let (a, b) = (n.reshape(a, &apart)?, n.reshape(b, &within)?);
    let all = n.mul(a, b)?;
    let y = n.reshape(all, &sizes)?;
    n.done(y)
}

/// Sums over pairs of axes: the last ones of the first factor and the first ones of the second, once they are moved there.
fn tensordot(n: &mut Lower<'_>) -> Lowered {
    let (a, b) = (n.value("self")?, n.value("other")?);
    let mut summed: [Vec<usize>; 2] = [vec![], vec![]];
    for (name, (v, axes)) in ["dims_self", "dims_other"].into_iter().zip([a, b].into_iter().zip(&mut summed)) {
        for d in n.ints(name)?.unwrap_or_default() {
            axes.push(n.axis(v, d)?);
        }
    }
    let kept = |v: Value, axes: &[usize], n: &Lower<'_>| -> Result<Vec<usize>> {
        Ok((0..n.rank(v)?).filter(|i| !axes.contains(i)).collect())
    };
    let (of_a, of_b) = (kept(a, &summed[0], n)?, kept(b, &summed[1], n)?);
    let sizes: Vec<Size> = of_a.iter().map(|i| Size::Of(a, *i)).chain(of_b.iter().map(|i| Size::Of(b, *i))).collect();
    let order = |x: &[usize], y: &[usize]| x.iter().chain(y).map(|i| *i as i64).collect::<Vec<_>>();
    let (x, y) = (n.permute(a, &order(&of_a, &summed[0]))?, n.permute(b, &order(&summed[1], &of_b))?);
    let (rows, inner) = (of_a.len(), summed[1].len());
    let x = n.merge_axes(x, rows, rows + summed[0].len())?;
    let x = n.merge_axes(x, 0, rows)?;
    let y = n.merge_axes(y, inner, inner + of_b.len())?;
    let y = n.merge_axes(y, 0, inner)?;
    let z = n.matmul(x, y, false, false)?;
    let z = if sizes.is_empty() { n.as_scalar(z)? } else { n.reshape(z, &sizes)? };
    n.done(z)
}

fn cross(n: &mut Lower<'_>) -> Lowered {
    let ([a, b], _) = operands(n, ["self", "other"])?;
    let dim = match n.int("dim")? {
        Some(dim) => dim,
        // The first axis of three elements.
        None => n.shape(a)?.iter().position(|d| d.is(3)).unwrap_or(0) as i64,
    };
    let axis = n.axis(a, dim)?;
    // From the end, the axis is the same of both.
    let from_end = axis as i64 - n.rank(a)? as i64;
    let mut turned = vec![];
    for places in [[1, 2, 0], [2, 0, 1]] {
        for v in [a, b] {
            let axis = n.axis(v, from_end)?;
            turned.push(n.gather_at(v, axis, &places)?);
        }
    }
    let [a1, b1, a2, b2] = turned[..] else { return Err(LowerError::Poisoned) };
    let (x, y) = (n.mul(a1, b2)?, n.mul(a2, b1)?);
    n.emit(ops::Sub { x, y })
}

/// The product of three tensors, each with further axes, summed over some.
fn trilinear(n: &mut Lower<'_>) -> Lowered {
    // How it is computed changes nothing but rounding.
    n.ignore("unroll_dim");
    let mut product = None;
    for (name, axes) in [("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")] {
        let (x, axes) = (n.value(name)?, n.ints(axes)?.unwrap_or_default());
        let x = n.expand_dims(x, &axes)?;
        product = Some(match product {
            None => x,
            Some(product) => n.mul(product, x)?,
        });
    }
    let x = product.ok_or(LowerError::Poisoned)?;
    match n.ints("sumdim")?.filter(|axes| !axes.is_empty()) {
        Some(axes) => n.emit(ops::ReduceSum { x, axes: Some(axes), keep_dims: false }),
        None => n.done(x),
    }
}

/// `sum(input1[i] * weight[k, i, j] * input2[j])`.
fn bilinear(n: &mut Lower<'_>) -> Lowered {
    let (a, b, weight, bias) = (n.value("input1")?, n.value("input2")?, n.value("weight")?, n.maybe("bias")?);
    let rank = n.rank(a)?;
    let [outputs, left, right] = n.fixed_shape(weight, "the weight")?[..] else {
        return Err(LowerError::form(format!("a weight {}", n.ty(weight)?)));
    };
    let wide = outputs.checked_mul(right).ok_or_else(|| LowerError::form("a weight of such a size"))?;
    // [i, k * j], so that one product takes all rows.
    let flat = n.transpose(weight, &[1, 0, 2])?;
    let flat = n.reshape_to(flat, &[left, wide])?;
    let rows = product(n, a, flat)?;
    let mut sizes: Vec<Size> = (0..rank.saturating_sub(1)).map(|i| Size::Of(a, i)).collect();
    sizes.extend([Size::Known(outputs), Size::Known(right)]);
    let rows = n.reshape(rows, &sizes)?;
    let other = n.expand_dims(b, &[-2])?;
    let all = n.mul(rows, other)?;
    let y = n.op(ops::ReduceSum { x: all, axes: Some(vec![-1]), keep_dims: false })?;
    match bias {
        Some(bias) => n.emit(ops::Add { x: y, y: bias }),
        None => n.done(y),
    }
}
