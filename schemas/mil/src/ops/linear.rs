//! Products of matrices.

use crate::{
    ir::Value,
    schema::{Broadcast, EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Shape, Tensor};
use smallvec::smallvec;
use std::{
    num::Wrapping,
    ops::{AddAssign, Mul},
};

/// `x * transpose(weight) + bias`, for the vectors along the last axis of `x`.
///
/// Result: `T[*d, d_out]`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "linear", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32)]
#[domain(U: Ios15 = T, Ios17 = F16 | F32 | I32)]
pub struct Linear {
    /// `T[*d, d_in]`; Core ML documents ranks 1 to 3.
    #[operand(T)]
    pub x: Value,
    /// `U[d_out, d_in]`.
    #[operand(U, constant)]
    pub weight: Value,
    /// `U[d_out]`; zero when absent.
    #[operand(U, constant)]
    pub bias: Option<Value>,
}

impl Semantics for Linear {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 1..)?;
        let w = cx.ranked("weight", self.weight, 2..=2)?;
        let (d_in, d_out) = (&x.shape[x.shape.rank() - 1], &w.shape[0]);
        if !d_in.may_equal(&w.shape[1]) {
            return Err(cx.operand("weight", self.weight, format!("a matrix of {d_in} columns")));
        }
        if let Some(bias) = self.bias
            && !cx.tensor("bias", bias)?.shape.may_equal(&[d_out.clone()].into())
        {
            return Err(cx.operand("bias", bias, format!("a vector of {d_out} elements")));
        }
        cx.result(x.dtype, x.shape.with(x.shape.axis(-1)?, d_out.clone()))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        if cx.out(0).count() == 0 {
            return Ok(smallvec![cx.out(0).of(&[])]);
        }
        let shape = cx.shape(self.weight);
        let (n, k) = (shape[0], shape[1]);
        let rows = cx.out(0).count() / n;
        if cx.out(0).dtype.is_float() {
            let mut y = vec![0.0; rows * n];
            if let Some(bias) = self.bias {
                y = cx.f64(bias).repeat(rows);
            }
            multiply(&mut y, &cx.f64(self.x), &transposed(&cx.f64(self.weight), n, k), [rows, k, n]);
            return Ok(smallvec![cx.out(0).of(&y)]);
        }
        let mut y = vec![Wrapping(0); rows * n];
        if let Some(bias) = self.bias {
            y = ints(cx, bias).repeat(rows);
        }
        multiply(&mut y, &ints(cx, self.x), &transposed(&ints(cx, self.weight), n, k), [rows, k, n]);
        Ok(smallvec![cx.out(0).of_ints(&y.into_iter().map(|y| y.0).collect::<Vec<_>>())])
    }

    fn default_operands(&self, cx: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        let size = |w: &mlconv_tensor::TensorType| Some((w.dtype, w.shape.first()?.as_usize()?));
        match cx.fact(self.weight).ty.tensor().and_then(size) {
            Some((dtype, d_out)) if self.bias.is_none() => vec![("bias", Tensor::splat(dtype, &[d_out], 0.0))],
            Some(_) | None => vec![],
        }
    }

    fn macs(&self, cx: &InferCx<'_>, result: &Shape) -> Option<Dim> {
        Some(result.count() * cx.shape(self.weight)?.last()?)
    }
}

/// The product of matrices, broadcast over all axes but the last two.
///
/// A vector `x` is taken as a matrix of one row, a vector `y` as one of one column; the result then lacks that axis, so
/// that two vectors give a scalar. Integers wrap. Since iOS17, where one operand is a constant, its element type may
/// differ from that of the other one, which is the result's.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "matmul", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32)]
#[domain(U: Ios15 = T, Ios17 = F16 | F32 | I32)]
pub struct Matmul {
    /// `T[*b, m, k]`, or `T[k]`.
    #[operand(T)]
    pub x: Value,
    /// `U[*b, k, n]`, or `U[k]`.
    #[operand(U)]
    pub y: Value,
    /// Whether to swap the last two axes of `x` first; not for a vector.
    #[attr(default = false)]
    pub transpose_x: bool,
    /// Whether to swap the last two axes of `y` first; not for a vector.
    #[attr(default = false)]
    pub transpose_y: bool,
}

impl Matmul {
    /// The shapes of the operands as they are multiplied.
    fn matrices(&self, x: &[Dim], y: &[Dim]) -> (Vec<Dim>, Vec<Dim>) {
        let (mut x, mut y) = (x.to_vec(), y.to_vec());
        if x.len() == 1 {
            x.insert(0, Dim::from(1));
        } else if self.transpose_x {
            let n = x.len();
            x.swap(n - 2, n - 1);
        }
        if y.len() == 1 {
            y.push(Dim::from(1));
        } else if self.transpose_y {
            let n = y.len();
            y.swap(n - 2, n - 1);
        }
        (x, y)
    }

    fn dtype(&self, cx: &InferCx<'_>, x: DType, y: DType) -> Result<DType, OpError> {
        match (cx.is_const(self.x), cx.is_const(self.y)) {
            _ if x == y => Ok(x),
            (false, true) => Ok(x),
            (true, false) => Ok(y),
            (true, true) | (false, false) => Err(OpError::DType { param: "y", found: y, other: "x", want: x }),
        }
    }
}

impl Semantics for Matmul {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let (x, y) = (cx.ranked("x", self.x, 1..)?, cx.ranked("y", self.y, 1..)?);
        let vectors = [("transpose_x", self.transpose_x, x), ("transpose_y", self.transpose_y, y)];
        if let Some((param, ..)) = vectors.iter().find(|(_, swap, t)| *swap && t.shape.rank() == 1) {
            return Err(OpError::value(param, true, "false for a vector"));
        }
        let (a, b) = self.matrices(&x.shape, &y.shape);
        let (m, k) = (&a[a.len() - 2], &a[a.len() - 1]);
        let (rows, n) = (&b[b.len() - 2], &b[b.len() - 1]);
        if !k.may_equal(rows) {
            return Err(cx.operand("y", self.y, format!("{k} rows, as many as `x` has columns")));
        }
        let batch = Shape::from(&a[..a.len() - 2]).broadcast(&b[..b.len() - 2].into())?;
        let rows = (x.shape.rank() > 1).then(|| m.clone());
        let columns = (y.shape.rank() > 1).then(|| n.clone());
        let dtype = self.dtype(cx, x.dtype, y.dtype)?;
        cx.result(dtype, batch.iter().cloned().chain(rows).chain(columns).collect::<Shape>())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        if cx.out(0).count() == 0 {
            return Ok(smallvec![cx.out(0).of(&[])]);
        }
        if cx.out(0).dtype.is_float() {
            let y = self.product(cx, cx.f64(self.x), cx.f64(self.y));
            return Ok(smallvec![cx.out(0).of(&y)]);
        }
        let y = self.product(cx, ints(cx, self.x), ints(cx, self.y));
        Ok(smallvec![cx.out(0).of_ints(&y.into_iter().map(|y| y.0).collect::<Vec<_>>())])
    }

    fn macs(&self, cx: &InferCx<'_>, result: &Shape) -> Option<Dim> {
        let (x, y) = (cx.shape(self.x)?, cx.shape(self.y)?);
        let (matrix, _) = self.matrices(x, y);
        Some(result.count() * matrix.last()?)
    }
}

impl Matmul {
    fn product<E: Element>(&self, cx: &EvalCx<'_>, x: Vec<E>, y: Vec<E>) -> Vec<E> {
        let known = |v: Value| cx.shape(v).iter().map(|n| Dim::from(*n)).collect::<Vec<_>>();
        let (a, b) = self.matrices(&known(self.x), &known(self.y));
        let split = |dims: &[Dim]| {
            let mut sizes: Vec<usize> = dims.iter().filter_map(Dim::as_usize).collect();
            let columns = sizes.pop().unwrap_or(1);
            let rows = sizes.pop().unwrap_or(1);
            (sizes, rows, columns)
        };
        let ((batch_x, m, k), (batch_y, _, n)) = (split(&a), split(&b));
        let vectors = usize::from(cx.shape(self.x).len() > 1) + usize::from(cx.shape(self.y).len() > 1);
        let out = cx.out(0);
        let batch = crate::schema::Out { dtype: out.dtype, shape: out.shape[..out.shape.len() - vectors].into() };
        let (at_x, at_y) = (Broadcast::new(&batch_x, &batch.shape), Broadcast::new(&batch_y, &batch.shape));
        let x = if self.transpose_x { each_transposed(&x, k, m) } else { x };
        let y = if self.transpose_y { each_transposed(&y, n, k) } else { y };
        let mut sums = vec![E::default(); out.count()];
        let mut start = 0;
        batch.each_index(|index| {
            let (x, y) = (&x[at_x.at(index) * m * k..][..m * k], &y[at_y.at(index) * k * n..][..k * n]);
            multiply(&mut sums[start..start + m * n], x, y, [m, k, n]);
            start += m * n;
        });
        sums
    }
}

/// What matrices are made of.
pub(crate) trait Element: Copy + Default + Mul<Output = Self> + AddAssign {}
impl Element for f64 {}
impl Element for Wrapping<i64> {}

/// Adds the product of `a`, an `m` by `k` matrix, and `b`, a `k` by `n` matrix, to `sum`.
pub(crate) fn multiply<E: Element>(sum: &mut [E], a: &[E], b: &[E], [m, k, n]: [usize; 3]) {
    // So many rows of `b` stay in the cache while all rows of `a` meet them.
    const ROWS: usize = 64;
    for first in (0..k).step_by(ROWS) {
        for row in 0..m {
            let sum = &mut sum[row * n..][..n];
            for i in first..k.min(first + ROWS) {
                let factor = a[row * k + i];
                sum.iter_mut().zip(&b[i * n..][..n]).for_each(|(s, b)| *s += factor * *b);
            }
        }
    }
}

/// The transpose of a matrix of `rows` and `columns`.
fn transposed<E: Element>(x: &[E], rows: usize, columns: usize) -> Vec<E> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| x[r * columns + c])).collect()
}

/// The transpose of each of the matrices of `rows` and `columns` that `x` consists of.
pub(crate) fn each_transposed<E: Element>(x: &[E], rows: usize, columns: usize) -> Vec<E> {
    x.chunks_exact((rows * columns).max(1)).flat_map(|m| transposed(m, rows, columns)).collect()
}

fn ints(cx: &EvalCx<'_>, v: Value) -> Vec<Wrapping<i64>> {
    cx.i64(v).into_iter().map(Wrapping).collect()
}
