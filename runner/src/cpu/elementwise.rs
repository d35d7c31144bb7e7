//! Ops on each element apart.

use super::{
    broadcast::{Lanes, zip},
    data::{GRAIN, each_row, each_task, load, store},
};
use half::{f16, slice::HalfFloatSliceExt};
use mlconv_mil::{
    ir::Value,
    ops::{Cast, Prelu, Select},
    schema::{EvalCx, Tensors},
};
use mlconv_tensor::{DType, Element, Tensor};
use smallvec::smallvec;

/// `f` of every element of `x`.
pub(super) fn map(cx: &EvalCx<'_>, x: Value, f: impl Fn(f32) -> f32 + Sync) -> Option<Tensors> {
    let (x, shape) = (cx.tensor(x), &cx.out(0).shape);
    let y = match x.dtype() {
        DType::F32 => {
            let x = x.view::<f32>()?;
            let mut y = vec![0.0; x.len()];
            each_task(&mut y, GRAIN, |start, y| y.iter_mut().zip(&x[start..]).for_each(|(y, x)| *y = f(*x)));
            Tensor::from_vec(shape, y)
        }
        DType::F16 => {
            let x = x.view::<f16>()?;
            let mut y = vec![f16::ZERO; x.len()];
            each_task(&mut y, GRAIN, |start, y| {
                let mut wide = [0.0; 512];
                for (y, x) in y.chunks_mut(wide.len()).zip(x[start..].chunks(wide.len())) {
                    let wide = &mut wide[..y.len()];
                    x[..y.len()].convert_to_f32_slice(wide);
                    for v in wide.iter_mut() {
                        *v = f(*v);
                    }
                    y.convert_from_f32_slice(wide);
                }
            });
            Tensor::from_vec(shape, y)
        }
        _ => return None,
    };
    Some(smallvec![y])
}

/// `float` or `int` of the elements of `x` and `y`, by their type.
pub(super) fn binary(
    cx: &EvalCx<'_>,
    [x, y]: [Value; 2],
    float: impl Fn(f32, f32) -> f32 + Sync,
    int: Option<fn(i32, i32) -> i32>,
) -> Option<Tensors> {
    let (out, x, y) = (cx.out(0), cx.tensor(x), cx.tensor(y));
    if let (Some(int), Some(a), Some(b)) = (int, x.view::<i32>(), y.view::<i32>()) {
        let sums = zip(&out.shape, (&a, x.shape()), (&b, y.shape()), int);
        return Some(smallvec![Tensor::from_vec(&out.shape, sums)]);
    }
    let values = zip(&out.shape, (&load(x)?, x.shape()), (&load(y)?, y.shape()), float);
    Some(smallvec![store(out, values)?])
}

/// Whether `float` or `int` holds for the elements of `x` and `y`, by their type.
pub(super) fn compare(
    cx: &EvalCx<'_>,
    [x, y]: [Value; 2],
    float: impl Fn(f32, f32) -> bool + Sync,
    int: fn(i32, i32) -> bool,
) -> Option<Tensors> {
    let (shape, x, y) = (&cx.out(0).shape, cx.tensor(x), cx.tensor(y));
    let truth = match (x.view::<i32>(), y.view::<i32>()) {
        (Some(a), Some(b)) => zip(shape, (&a, x.shape()), (&b, y.shape()), |a, b| u8::from(int(a, b))),
        _ => zip(shape, (&load(x)?, x.shape()), (&load(y)?, y.shape()), |a, b| u8::from(float(a, b))),
    };
    Some(smallvec![Tensor::from_vec(shape, truth).reinterpret(DType::Bool)?])
}

/// `f` of truths, which are 0 or 1.
pub(super) fn logical(cx: &EvalCx<'_>, [x, y]: [Value; 2], f: fn(u8, u8) -> u8) -> Option<Tensors> {
    let (shape, x, y) = (&cx.out(0).shape, cx.tensor(x), cx.tensor(y));
    let truth = |v: u8| u8::from(v != 0);
    let (a, b) = (x.view::<u8>()?, y.view::<u8>()?);
    let values = zip(shape, (&a, x.shape()), (&b, y.shape()), |a, b| f(truth(a), truth(b)));
    Some(smallvec![Tensor::from_vec(shape, values).reinterpret(DType::Bool)?])
}

pub(super) fn prelu(op: &Prelu, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (out, x, alpha) = (cx.out(0), load(cx.tensor(op.x))?, load(cx.tensor(op.alpha))?);
    let mut y = x.into_owned();
    each_row(&mut y, out.shape[2..].iter().product(), |i, y| {
        let alpha = alpha[i % alpha.len()];
        for y in y.iter_mut() {
            *y = if *y > 0.0 { *y } else { alpha * *y };
        }
    });
    Some(smallvec![store(out, y)?])
}

/// Values of one type only become others where the conversion is exact or a rounding; the reference does the others.
pub(super) fn cast(op: &Cast, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (out, x) = (cx.out(0), cx.tensor(op.x));
    let y = match (x.dtype(), op.dtype) {
        (from, to) if from == to => x.clone(),
        (DType::F16 | DType::F32, DType::F16 | DType::F32) => store(out, load(x)?.into_owned())?,
        (DType::Bool, DType::F16 | DType::F32) => {
            let truth = x.view::<u8>()?;
            let mut y = vec![0.0; truth.len()];
            each_task(&mut y, GRAIN, |start, y| {
                y.iter_mut().zip(&truth[start..]).for_each(|(y, t)| *y = f32::from(*t));
            });
            store(out, y)?
        }
        _ => return None,
    };
    Some(smallvec![y])
}

pub(super) fn select(op: &Select, cx: &EvalCx<'_>) -> Option<Tensors> {
    let y = match cx.out(0).dtype {
        DType::F32 => selected::<f32>(op, cx)?,
        DType::F16 => selected::<f16>(op, cx)?,
        DType::I32 => selected::<i32>(op, cx)?,
        _ => return None,
    };
    Some(smallvec![y])
}

fn selected<T: Element + Default>(op: &Select, cx: &EvalCx<'_>) -> Option<Tensor> {
    let shape = &cx.out(0).shape;
    let (cond, a, b) = (cx.tensor(op.cond), cx.tensor(op.a), cx.tensor(op.b));
    let lanes = Lanes::new([cond.shape(), a.shape(), b.shape()], shape);
    let (cond, a, b) = (cond.view::<u8>()?, a.view::<T>()?, b.view::<T>()?);
    let mut y = vec![T::default(); cx.out(0).count()];
    lanes.each(&mut y, |[at_cond, at_a, at_b], [cond_step, a_step, b_step], y| {
        let (cond, a, b) = (&cond[at_cond..], &a[at_a..], &b[at_b..]);
        for (i, y) in y.iter_mut().enumerate() {
            *y = if cond[i * cond_step] != 0 { a[i * a_step] } else { b[i * b_step] };
        }
    });
    Some(Tensor::from_vec(shape, y))
}
