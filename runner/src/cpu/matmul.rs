//! Products of matrices, in all the shapes that ops ask for.

use super::{
    data::{GRAIN, each_row, each_task, load, store},
    gemm::{Matrix, Onto, dot, product_of},
    strided::Steps,
};
use half::{f16, slice::HalfFloatSliceExt};
use mlconv_mil::{
    ops::{Einsum, Linear, Matmul},
    schema::{Broadcast, EvalCx, Tensors},
};
use mlconv_tensor::{Dims, Tensor, strides};
use rayon::prelude::*;
use smallvec::smallvec;
use std::borrow::Cow;

pub(super) fn linear(op: &Linear, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (out, shape) = (cx.out(0), cx.shape(op.weight));
    let (n, k) = (shape[0], shape[1]);
    let rows = out.count() / n;
    if rows == 1
        && let Some(w) = cx.tensor(op.weight).view::<f16>()
    {
        let mut y = half_rows(&w, &load(cx.tensor(op.x))?, n);
        if let Some(bias) = op.bias {
            y.iter_mut().zip(load(cx.tensor(bias))?.iter()).for_each(|(y, b)| *y += b);
        }
        return Some(smallvec![store(out, y)?]);
    }
    let (x, w) = (load(cx.tensor(op.x))?, load(cx.tensor(op.weight))?);
    let mut y = vec![0.0; out.count()];
    let mut onto = Onto::Nothing;
    if let Some(bias) = op.bias {
        let bias = load(cx.tensor(bias))?;
        each_row(&mut y, n, |_, y| y.copy_from_slice(&bias));
        onto = Onto::Sum;
    }
    product_of(&mut y, Matrix::packed(&x, rows, k)?, Matrix::packed(&w, n, k)?.transposed(), onto);
    Some(smallvec![store(out, y)?])
}

/// The product of each of `n` rows of half precision with `x`.
///
/// They are as many elements as there are multiplications, so widening them all first would take most of the time.
fn half_rows(w: &[f16], x: &[f32], n: usize) -> Vec<f32> {
    let mut y = vec![0.0; n];
    each_task(&mut y, (GRAIN * 4).div_ceil(x.len().max(1)), |start, y| {
        let mut wide = vec![0.0; x.len()];
        for (y, w) in y.iter_mut().zip(w[start * x.len()..].chunks_exact(x.len().max(1))) {
            w.convert_to_f32_slice(&mut wide);
            *y = dot(&wide, x);
        }
    });
    y
}

pub(super) fn matmul(op: &Matmul, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (out, x, y) = (cx.out(0), cx.tensor(op.x), cx.tensor(op.y));
    if let ([.., n, k], true) = (y.shape(), op.transpose_y)
        && x.count() == *k
        && y.count() == n * k
        && let Some(w) = y.view::<f16>()
    {
        return Some(smallvec![store(out, half_rows(&w, &load(x)?, *n))?]);
    }
    let a = Stack::new(x, op.transpose_x, [1, 0])?;
    let b = Stack::new(y, op.transpose_y, [0, 1])?;
    let axes = usize::from(x.shape().len() > 1) + usize::from(y.shape().len() > 1);
    let batch = &out.shape[..out.shape.len() - axes];
    Some(smallvec![store(out, stacked(&a, &b, batch)?)?])
}

/// Matrices of one size, over the leading axes of a tensor.
pub(super) struct Stack<'a> {
    values: Cow<'a, [f32]>,
    pub(super) batch: Dims,
    size: [usize; 2],
    transposed: bool,
}

impl<'a> Stack<'a> {
    /// A vector becomes a matrix with an axis of size 1 where `lift` is 1.
    pub(super) fn new(t: &'a Tensor, transposed: bool, lift: [usize; 2]) -> Option<Self> {
        let values = load(t)?;
        let (batch, size) = match t.shape() {
            [batch @ .., rows, columns] => (batch.into(), [*rows, *columns]),
            [n] if lift == [1, 0] => (Dims::new(), [1, *n]),
            [n] => (Dims::new(), [*n, 1]),
            [] => return None,
        };
        Some(Self { values, batch, size, transposed })
    }

    /// Matrix number `i`, as it is multiplied.
    pub(super) fn at(&self, i: usize) -> Option<Matrix<'_>> {
        let [rows, columns] = self.size;
        let len = rows * columns;
        let matrix = Matrix::packed(self.values.get(i * len..(i + 1) * len)?, rows, columns)?;
        Some(if self.transposed { matrix.transposed() } else { matrix })
    }

    /// Rows and columns, as they are multiplied.
    pub(super) fn sizes(&self) -> [usize; 2] {
        let [rows, columns] = self.size;
        if self.transposed { [columns, rows] } else { [rows, columns] }
    }
}

/// The products of the matrices of `a` and `b`, which are broadcast to `batch`.
fn stacked(a: &Stack<'_>, b: &Stack<'_>, batch: &[usize]) -> Option<Vec<f32>> {
    let ([m, k], [inner, n]) = (a.sizes(), b.sizes());
    let count: usize = batch.iter().product();
    if k != inner || k == 0 {
        return None;
    }
    let mut y = vec![0.0; count * m * n];
    let one_b = b.batch.iter().all(|d| *d == 1);
    if one_b && !a.transposed && a.batch.iter().product::<usize>() == count {
        // The rows of all matrices meet the same one: they are a single matrix.
        product_of(&mut y, Matrix::packed(&a.values, count * m, k)?, b.at(0)?, Onto::Nothing);
        return Some(y);
    }
    let (at_a, at_b) = (Broadcast::new(&a.batch, batch), Broadcast::new(&b.batch, batch));
    let one = |(i, y): (usize, &mut [f32])| {
        let index = unflat(i, batch);
        product_of(y, a.at(at_a.at(&index))?, b.at(at_b.at(&index))?, Onto::Nothing);
        Some(())
    };
    // Few small products are not worth other threads.
    if count.saturating_mul(m * n).saturating_mul(k) < 1 << 17 {
        y.chunks_exact_mut(m * n).enumerate().try_for_each(one)?;
    } else {
        y.par_chunks_exact_mut(m * n).enumerate().try_for_each(one)?;
    }
    Some(y)
}

/// The coordinates of element number `i` of a tensor of this shape.
pub(super) fn unflat(mut i: usize, shape: &[usize]) -> Dims {
    let mut index: Dims = smallvec![0; shape.len()];
    for (at, size) in index.iter_mut().zip(shape).rev() {
        (*at, i) = (i % size, i / size);
    }
    index
}

/// Two operands whose letters fall into those of both and the result, of both alone, and of one and the result.
pub(super) fn einsum(op: &Einsum, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (operands, result) = op.equation.split_once("->")?;
    let (left, right) = operands.split_once(',')?;
    let [x, y] = op.values[..] else { return None };
    let (x, y) = (cx.tensor(x), cx.tensor(y));
    let size = |c: char| {
        let find = |letters: &str, shape: &[usize]| Some(*shape.get(letters.find(c)?)?);
        match (find(left, x.shape()), find(right, y.shape())) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => a.or(b),
        }
    };
    let once = |letters: &str| letters.chars().enumerate().all(|(i, c)| letters.find(c) == Some(i));
    if !left.chars().chain(right.chars()).all(|c| c.is_ascii_alphabetic()) || !once(left) || !once(right) {
        return None;
    }
    let pick = |from: &str, keep: &dyn Fn(char) -> bool| from.chars().filter(|c| keep(*c)).collect::<String>();
    let batch = pick(left, &|c| right.contains(c) && result.contains(c));
    let inner = pick(left, &|c| right.contains(c) && !result.contains(c));
    let rows = pick(left, &|c| !right.contains(c) && result.contains(c));
    let columns = pick(right, &|c| !left.contains(c) && result.contains(c));
    let ordered = |t: &Tensor, letters: &str, order: [&str; 3]| {
        let perm: Dims = order.concat().chars().map(|c| letters.find(c)).collect::<Option<_>>()?;
        // Letters that one operand alone has would be summed first.
        let values = (perm.len() == letters.len()).then(|| load(t)).flatten()?;
        let in_order = perm.windows(2).all(|w| w[0] < w[1]);
        Some(if in_order { values.into_owned() } else { Steps::permuted(t.shape(), &perm).copy(&values) })
    };
    let (a, b) = (ordered(x, left, [&batch, &rows, &inner])?, ordered(y, right, [&batch, &inner, &columns])?);
    let count = |letters: &str| letters.chars().try_fold(1usize, |n, c| n.checked_mul(size(c)?));
    let [batches, m, k, n] = [count(&batch)?, count(&rows)?, count(&inner)?, count(&columns)?];
    let stack = |values: Vec<f32>, size| Stack {
        values: Cow::Owned(values),
        batch: smallvec![batches],
        size,
        transposed: false,
    };
    let product = stacked(&stack(a, [m, k]), &stack(b, [k, n]), &[batches])?;
    let order = [batch, rows, columns].concat();
    let sizes: Dims = order.chars().map(size).collect::<Option<_>>()?;
    let own = strides(&sizes);
    let axes = result.chars().map(|c| order.find(c).map(|i| (sizes[i], own[i]))).collect::<Option<_>>()?;
    Some(smallvec![store(cx.out(0), Steps { first: 0, axes }.copy(&product))?])
}
