//! Tensors as slices of `f32`, and work cut into tasks.

use half::{f16, slice::HalfFloatSliceExt};
use mlconv_mil::schema::Out;
use mlconv_tensor::{DType, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;

/// Elements of a task. What is smaller than one is computed where it is: waking a thread takes longer.
///
/// Tasks are cut by the shapes alone, so that the number of threads never changes a result.
pub(super) const GRAIN: usize = 1 << 14;

/// The elements of a tensor of single or half precision; `None` for any other type.
pub(super) fn load(t: &Tensor) -> Option<Cow<'_, [f32]>> {
    if t.dtype() != DType::F16 {
        return t.view::<f32>();
    }
    let halves = t.view::<f16>()?;
    let mut out = vec![0.0; halves.len()];
    each_task(&mut out, GRAIN, |start, out| halves[start..start + out.len()].convert_to_f32_slice(out));
    Some(Cow::Owned(out))
}

/// The result of these elements, rounded to its type; `None` for other types than [`load`] reads.
pub(super) fn store(out: &Out, values: Vec<f32>) -> Option<Tensor> {
    match out.dtype {
        DType::F32 => Some(Tensor::from_vec(&out.shape, values)),
        DType::F16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            each_task(&mut halves, GRAIN, |start, to| to.convert_from_f32_slice(&values[start..start + to.len()]));
            Some(Tensor::from_vec(&out.shape, halves))
        }
        _ => None,
    }
}

/// Calls `f` with each `size` elements of `values` and the number of their first one, on all threads.
pub(super) fn each_task<T: Send>(values: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let size = size.max(1);
    if values.len() <= size {
        return f(0, values);
    }
    values.par_chunks_mut(size).enumerate().for_each(|(i, part)| f(i * size, part));
}

/// Calls `f` with each row of `len` elements and its number, on all threads.
pub(super) fn each_row<T: Send>(values: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let len = len.max(1);
    each_task(values, GRAIN.div_ceil(len) * len, |start, part| {
        part.chunks_exact_mut(len).enumerate().for_each(|(i, row)| f(start / len + i, row));
    });
}
