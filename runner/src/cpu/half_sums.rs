//! Sums that are accumulated in half precision, as hardware may do that has no wider accumulators: products of matrices,
//! convolutions, reductions, and what a softmax and a layer norm divide by.
//!
//! Terms are added one after the other in the order of their index, each product and sum in single precision, and what was
//! accumulated is rounded to half precision behind each term. A device that adds in another order, or in parts, is off by
//! less. What has no line in [`run`] accumulates as the other kernels do.

use super::{
    data::{each_row, load, store},
    gemm::Matrix,
    matmul::Stack,
    norm::{by_rows, optional},
    reduce::{fold_rows, reduced},
    strided::Rows,
};
use half::{f16, slice::HalfFloatSliceExt};
use mlconv_mil::{
    ir::Value,
    ops::{
        Conv, LayerNorm, Linear, Matmul, ReduceL1Norm, ReduceL2Norm, ReduceLogSum, ReduceLogSumExp, ReduceMean,
        ReduceSum, ReduceSumSquare, Softmax,
    },
    schema::{Broadcast, EvalCx, Op, Tensors},
};
use smallvec::smallvec;
use std::any::Any;

/// The results of `op` with sums in half precision; `None` where it has none that are known here.
pub(crate) fn run(op: &dyn Op, cx: &EvalCx<'_>) -> Option<Tensors> {
    if (0..cx.out_count()).any(|i| cx.out(i).count() == 0) {
        return None;
    }
    let op: &dyn Any = op;
    let is = |x: f32| x;
    if let Some(op) = op.downcast_ref::<Linear>() {
        linear(op, cx)
    } else if let Some(op) = op.downcast_ref::<Matmul>() {
        matmul(op, cx)
    } else if let Some(op) = op.downcast_ref::<Conv>() {
        conv(op, cx)
    } else if let Some(op) = op.downcast_ref::<Softmax>() {
        softmax(op, cx)
    } else if let Some(op) = op.downcast_ref::<LayerNorm>() {
        layer_norm(op, cx)
    } else if let Some(op) = op.downcast_ref::<ReduceSum>() {
        reduce(cx, op.x, op.axes.as_deref(), is, |sum, _| sum)
    } else if let Some(op) = op.downcast_ref::<ReduceMean>() {
        reduce(cx, op.x, op.axes.as_deref(), is, |sum, n| sum / n as f32)
    } else if let Some(op) = op.downcast_ref::<ReduceSumSquare>() {
        reduce(cx, op.x, op.axes.as_deref(), |x| x * x, |sum, _| sum)
    } else if let Some(op) = op.downcast_ref::<ReduceL1Norm>() {
        reduce(cx, op.x, op.axes.as_deref(), f32::abs, |sum, _| sum)
    } else if let Some(op) = op.downcast_ref::<ReduceL2Norm>() {
        reduce(cx, op.x, op.axes.as_deref(), |x| x * x, |sum, _| sum.sqrt())
    } else if let Some(op) = op.downcast_ref::<ReduceLogSum>() {
        reduce(cx, op.x, op.axes.as_deref(), is, |sum, _| sum.ln())
    } else if let Some(op) = op.downcast_ref::<ReduceLogSumExp>() {
        rows(cx, op.x, op.axes.as_deref(), |row| {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if most.is_infinite() { most } else { sum(row.iter().map(|x| half((x - most).exp()))).ln() + most }
        })
    } else {
        None
    }
}

fn half(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

fn sum(terms: impl Iterator<Item = f32>) -> f32 {
    terms.fold(0.0, |sum, x| half(sum + x))
}

/// Adds `factor` times each of `terms` to each of `sums`, and rounds these; `halves` is where that is done.
fn add(sums: &mut [f32], factor: f32, terms: impl Iterator<Item = f32>, halves: &mut Vec<f16>) {
    sums.iter_mut().zip(terms).for_each(|(sum, x)| *sum += factor * x);
    halves.resize(sums.len(), f16::ZERO);
    halves.convert_from_f32_slice(sums);
    halves.convert_to_f32_slice(sums);
}

/// Adds the product of `a` and `b` to `y`, which has the rows of `a`.
fn product(y: &mut [f32], a: Matrix<'_>, b: Matrix<'_>) {
    let ([_, k], [_, n]) = (a.size(), b.size());
    let (a, b) = (a.to_vec(), b.to_vec());
    each_row(y, n, |i, y| {
        let mut halves = vec![];
        let rows = b.chunks_exact(n.max(1));
        for (factor, row) in a[i * k..].iter().take(k).zip(rows) {
            add(y, *factor, row.iter().copied(), &mut halves);
        }
    });
}

fn linear(op: &Linear, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (out, shape) = (cx.out(0), cx.shape(op.weight));
    let (n, k) = (shape[0], shape[1]);
    let (x, w) = (load(cx.tensor(op.x))?, load(cx.tensor(op.weight))?);
    let mut y = vec![0.0; out.count()];
    if let Some(bias) = op.bias {
        let bias = load(cx.tensor(bias))?;
        each_row(&mut y, n, |_, y| y.copy_from_slice(&bias));
    }
    let rows = y.len() / n;
    product(&mut y, Matrix::packed(&x, rows, k)?, Matrix::packed(&w, n, k)?.transposed());
    Some(smallvec![store(out, y)?])
}

fn matmul(op: &Matmul, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (out, x, y) = (cx.out(0), cx.tensor(op.x), cx.tensor(op.y));
    let (a, b) = (Stack::new(x, op.transpose_x, [1, 0])?, Stack::new(y, op.transpose_y, [0, 1])?);
    let axes = usize::from(x.shape().len() > 1) + usize::from(y.shape().len() > 1);
    let batch = &out.shape[..out.shape.len() - axes];
    let ([m, k], [inner, n]) = (a.sizes(), b.sizes());
    if k != inner {
        return None;
    }
    let mut values = vec![0.0; out.count()];
    let (at_a, at_b) = (Broadcast::new(&a.batch, batch), Broadcast::new(&b.batch, batch));
    for (i, y) in values.chunks_exact_mut((m * n).max(1)).enumerate() {
        let index = super::matmul::unflat(i, batch);
        product(y, a.at(at_a.at(&index))?, b.at(at_b.at(&index))?);
    }
    Some(smallvec![store(out, values)?])
}

fn conv(op: &Conv, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (out, x_shape, w_shape) = (cx.out(0), cx.shape(op.x), cx.shape(op.weight));
    let (c_in, c_out, per_group) = (x_shape[1], w_shape[0], w_shape[1]);
    let per_output = c_out.checked_div(usize::try_from(op.groups).ok()?)?;
    let places = op.places(x_shape, w_shape, &out.shape);
    let (x, w) = (load(cx.tensor(op.x))?, load(cx.tensor(op.weight))?);
    let bias = op.bias.map(|bias| load(cx.tensor(bias))).map_or(Some(None), |b| b.map(Some))?;
    let (image, taps) = (places.image(), places.taps());
    let mut y = vec![0.0; out.count()];
    each_row(&mut y, places.windows(), |plane, y| {
        let (n, co) = (plane / c_out, plane % c_out);
        y.fill(bias.as_ref().and_then(|b| b.get(co).copied()).unwrap_or(0.0));
        let first = n * c_in + co / per_output.max(1) * per_group;
        let mut halves = vec![];
        for ci in 0..per_group {
            let source = &x[(first + ci) * image..][..image];
            let factors = &w[(co * per_group + ci) * taps..][..taps];
            places.each_run(|run| {
                let read = source[run.image..].iter().step_by(places.step()).copied();
                add(&mut y[run.windows], factors[run.tap], read, &mut halves);
            });
        }
    });
    Some(smallvec![store(out, y)?])
}

/// The result of each row of elements along `axes`, all where absent.
fn rows(cx: &EvalCx<'_>, x: Value, axes: Option<&[i64]>, of: impl Fn(&[f32]) -> f32 + Sync) -> Option<Tensors> {
    let (shape, values) = (cx.shape(x), load(cx.tensor(x))?);
    let rows = Rows::new(values, shape, &reduced(shape, axes)?);
    if rows.len == 0 {
        return None;
    }
    let mut y = vec![0.0; cx.out(0).count()];
    fold_rows(&mut y, &rows, of);
    Some(smallvec![store(cx.out(0), y)?])
}

/// The sum of what `take` makes of the elements along `axes`, and what `end` makes of it and of their number.
fn reduce(
    cx: &EvalCx<'_>,
    x: Value,
    axes: Option<&[i64]>,
    take: fn(f32) -> f32,
    end: fn(f32, usize) -> f32,
) -> Option<Tensors> {
    rows(cx, x, axes, |row| end(sum(row.iter().map(|x| take(*x))), row.len()))
}

fn softmax(op: &Softmax, cx: &EvalCx<'_>) -> Option<Tensors> {
    by_rows(cx, op.x, &reduced(cx.shape(op.x), Some(&[op.axis]))?, |row| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|x| *x = half((*x - most).exp()));
        let all = sum(row.iter().copied());
        row.iter_mut().for_each(|x| *x /= all);
    })
}

fn layer_norm(op: &LayerNorm, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (gamma, beta) = (optional(cx, op.gamma)?, optional(cx, op.beta)?);
    by_rows(cx, op.x, &reduced(cx.shape(op.x), Some(&op.axes))?, |row| {
        let count = row.len() as f32;
        let mean = half(sum(row.iter().copied()) / count);
        row.iter_mut().for_each(|x| *x = half(*x - mean));
        let variance = half(sum(row.iter().map(|x| x * x)) / count);
        let scale = (variance + op.epsilon).sqrt().recip();
        row.iter_mut().for_each(|x| *x *= scale);
        if let Some(gamma) = &gamma {
            row.iter_mut().zip(gamma.iter()).for_each(|(x, g)| *x *= g);
        }
        if let Some(beta) = &beta {
            row.iter_mut().zip(beta.iter()).for_each(|(x, b)| *x += b);
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::{Options, Session, States, cpu::Cpu};
    use mlconv_mil::{text::parse, verify::verify};
    use mlconv_tensor::{Tensor, f16};

    /// The only output of a program of one input, with sums in half precision or without.
    fn run(op: &str, x: Tensor, half_sums: bool) -> Vec<f64> {
        let dims: Vec<String> = x.shape().iter().map(ToString::to_string).collect();
        let text =
            format!("func @main(%x: {}[{}]) ios17 {{\n  %y = {op}\n  return %y\n}}\n", x.dtype(), dims.join(", "));
        let module = verify(parse(&text).unwrap_or_else(|e| panic!("{e}"))).unwrap_or_else(|e| panic!("{e:?}"));
        let options = Options { half_sums, ..Options::default() };
        let session = Session::new(&module, &module.functions[0], &Cpu, options);
        session.run(&[Some(x)], &mut States::new()).expect("it runs")[0].to_f64()
    }

    fn ones(shape: &[usize]) -> Tensor {
        Tensor::from_vec(shape, vec![f16::ONE; shape.iter().product()])
    }

    #[test]
    fn half_precision_counts_to_2048_only() {
        for op in ["reduce_sum(x=%x, axes=[1], keep_dims=true)", "matmul(x=%x, y=%x, transpose_y=true)"] {
            assert_eq!(run(op, ones(&[1, 3000]), false), [3000.0], "{op}");
            assert_eq!(run(op, ones(&[1, 3000]), true), [2048.0], "{op}");
            let single = Tensor::from_vec(&[1, 3000], vec![1f32; 3000]);
            assert_eq!(run(op, single, true), [3000.0], "{op}: what is in single precision stays so");
        }
        let conv = "conv(x=%x, weight=%x)";
        assert_eq!(run(conv, ones(&[1, 3000, 1]), false), [3000.0]);
        assert_eq!(run(conv, ones(&[1, 3000, 1]), true), [2048.0]);
    }

    #[test]
    fn few_terms_are_added_as_ever() {
        let x = Tensor::from_vec(&[2, 4], [1.0, 2.0, -3.0, 0.5, 4.0, 0.25, 0.0, -1.0].map(f16::from_f32).to_vec());
        for op in [
            "matmul(x=%x, y=%x, transpose_y=true)",
            "matmul(x=%x, y=%x, transpose_x=true)",
            "reduce_mean(x=%x, axes=[0], keep_dims=false)",
            "reduce_l2_norm(x=%x, axes=[-1], keep_dims=false)",
            "reduce_log_sum_exp(x=%x, axes=[1], keep_dims=false)",
            "softmax(x=%x, axis=0)",
            "layer_norm(x=%x, axes=[-1])",
        ] {
            let (single, half) = (run(op, x.clone(), false), run(op, x.clone(), true));
            assert_eq!(single.len(), half.len());
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 4e-3 * a.abs().max(0.25);
            assert!(single.iter().zip(&half).all(close), "{op}: {single:?} and {half:?}");
        }
    }
}
