//! Compressed weights, decoded on all threads.

use super::data::{GRAIN, each_task, load};
use half::{f16, slice::HalfFloatSliceExt};
use mlconv_mil::{
    ops::{ConstexprAffineDequantize, ConstexprBlockwiseShiftScale, ConstexprLutToDense, ConstexprPackedLutToDense},
    schema::{EvalCx, Tensors},
};
use mlconv_tensor::{DType, Dims, Element, Shape, Tensor, strides, unpack_bits};
use smallvec::smallvec;
use std::ops::Range;

/// The shape of a tensor and of the grid of its blocks, whose sizes divide it.
struct Blocks {
    shape: Dims,
    grid: Dims,
    steps: Dims,
}

impl Blocks {
    /// `None` where the grid does not fit.
    fn new(shape: &[usize], grid: &[usize]) -> Option<Self> {
        let fits = shape.len() == grid.len() && shape.iter().zip(grid).all(|(n, b)| *b > 0 && n % b == 0);
        fits.then(|| Self { shape: shape.into(), grid: grid.into(), steps: strides(grid) })
    }

    /// Calls `f` with each run of elements of `range` that share a block, and the block's number.
    fn each_run(&self, range: Range<usize>, mut f: impl FnMut(Range<usize>, usize)) {
        let run: usize = match (self.shape.last(), self.grid.last()) {
            // One block: a single run.
            _ if self.grid.iter().all(|b| *b == 1) => usize::MAX,
            (Some(n), Some(b)) => n / b,
            _ => return,
        };
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min((start / run).saturating_add(1).saturating_mul(run));
            let (mut i, mut block) = (start, 0);
            for axis in (0..self.shape.len()).rev() {
                let (n, b) = (self.shape[axis], self.grid[axis]);
                block += i % n / (n / b) * self.steps[axis];
                i /= n;
            }
            f(start..end, block);
            start = end;
        }
    }
}

/// Fills `values` with the elements of `data` from number `start` on.
fn entries(data: &[u8], dtype: DType, start: usize, values: &mut [f32]) -> Option<()> {
    let range = start..start + values.len();
    match dtype {
        DType::U8 => values.iter_mut().zip(&data[range]).for_each(|(v, b)| *v = f32::from(*b)),
        DType::I8 => values.iter_mut().zip(&data[range]).for_each(|(v, b)| *v = f32::from(*b as i8)),
        DType::U4 | DType::I4 => {
            let signed = dtype == DType::I4;
            // Four bits moved up to the sign of a byte come down with it.
            let wide = |b: u8| if signed { f32::from((b << 4) as i8 >> 4) } else { f32::from(b & 15) };
            for (i, v) in range.zip(values) {
                *v = wide(data[i / 2] >> (i % 2 * 4));
            }
        }
        _ => return None,
    }
    Some(())
}

/// `scale * (data - offset)` with a scale and an offset for each block.
fn scaled(data: &Tensor, scale: &Tensor, offset: Option<Vec<f32>>, blocks: &Blocks, shape: &[usize]) -> Option<Tensor> {
    if !matches!(data.dtype(), DType::U8 | DType::I8 | DType::U4 | DType::I4) {
        return None;
    }
    let (bytes, scales) = (data.blob().read(), load(scale)?);
    let decode = |start: usize, values: &mut [f32]| {
        entries(&bytes, data.dtype(), start, values);
        blocks.each_run(start..start + values.len(), |run, block| {
            let (scale, offset) = (scales[block], offset.as_ref().map_or(0.0, |o| o[block]));
            values[run.start - start..run.end - start].iter_mut().for_each(|v| *v = scale * (*v - offset));
        });
    };
    match scale.dtype() {
        DType::F32 => {
            let mut y = vec![0.0; data.count()];
            each_task(&mut y, GRAIN, decode);
            Some(Tensor::from_vec(shape, y))
        }
        DType::F16 => {
            let mut y = vec![f16::ZERO; data.count()];
            each_task(&mut y, GRAIN, |start, y| {
                let mut wide = vec![0.0; y.len()];
                decode(start, &mut wide);
                y.convert_from_f32_slice(&wide);
            });
            Some(Tensor::from_vec(shape, y))
        }
        _ => None,
    }
}

pub(super) fn blockwise_shift_scale(op: &ConstexprBlockwiseShiftScale, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (data, scale) = (cx.tensor(op.data), cx.tensor(op.scale));
    let offset = match op.offset.map(|o| cx.tensor(o)) {
        // Offsets of floats are rounded to the type of the scale first.
        Some(o) if o.dtype().is_float() => return None,
        Some(o) => Some(o.to_f32().into_owned()),
        None => None,
    };
    let blocks = Blocks::new(data.shape(), scale.shape())?;
    Some(smallvec![scaled(data, scale, offset, &blocks, &cx.out(0).shape)?])
}

pub(super) fn affine_dequantize(op: &ConstexprAffineDequantize, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (data, scale, zero_point) = (cx.tensor(op.quantized_data), cx.tensor(op.scale), cx.tensor(op.zero_point));
    let axis = Shape::from(data.shape()).axis(op.axis).ok()?.index();
    let n = data.shape()[axis];
    let many = scale.count() > 1 || zero_point.count() > 1;
    // One value stands for as many as there are blocks.
    let spread = |t: &Tensor| if many && t.count() == 1 { t.to_f32().repeat(n) } else { t.to_f32().into_owned() };
    let mut grid: Dims = smallvec![1; data.shape().len()];
    grid[axis] = if many { n } else { 1 };
    let scales = spread(scale);
    let scale = Tensor::from_vec(&[scales.len()], scales).cast(scale.dtype());
    let blocks = Blocks::new(data.shape(), &grid)?;
    Some(smallvec![scaled(data, &scale, Some(spread(zero_point)), &blocks, &cx.out(0).shape)?])
}

pub(super) fn lut_to_dense(op: &ConstexprLutToDense, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (indices, lut) = (cx.tensor(op.indices), cx.tensor(op.lut));
    let [grid @ .., _, 1] = lut.shape() else { return None };
    let blocks = Blocks::new(indices.shape(), grid)?;
    let packed = indices.blob().read();
    looked_up(&packed, indices.dtype().bits(), lut, &blocks, &cx.out(0).shape)
}

pub(super) fn packed_lut_to_dense(op: &ConstexprPackedLutToDense, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (lut, shape) = (cx.tensor(op.lut), &cx.out(0).shape);
    let one: Dims = smallvec![1; shape.len()];
    let packed = cx.tensor(op.indices).blob().read();
    looked_up(&packed, lut.count().trailing_zeros(), lut, &Blocks::new(shape, &one)?, shape)
}

/// The entries of the tables `lut`, one per block, for packed indices of `bits` bits.
fn looked_up(packed: &[u8], bits: u32, lut: &Tensor, blocks: &Blocks, shape: &[usize]) -> Option<Tensors> {
    fn of<T: Element>(packed: &[u8], bits: u32, lut: &Tensor, blocks: &Blocks, shape: &[usize]) -> Option<Tensor> {
        let table = lut.view::<T>()?;
        let mut y = vec![T::zeroed(); shape.iter().product()];
        let entries = 1usize << bits;
        // Tasks begin at whole bytes, as their sizes are multiples of eight.
        each_task(&mut y, GRAIN, |start, y| {
            let mut indices = unpack_bits(&packed[start * bits as usize / 8..], bits, y.len());
            blocks.each_run(start..start + y.len(), |run, block| {
                let table = &table[block * entries..][..entries];
                for y in &mut y[run.start - start..run.end - start] {
                    *y = table[usize::from(indices.next().unwrap_or(0))];
                }
            });
        });
        Some(Tensor::from_vec(shape, y))
    }
    Some(smallvec![match lut.dtype() {
        DType::F16 => of::<f16>(packed, bits, lut, blocks, shape)?,
        DType::F32 => of::<f32>(packed, bits, lut, blocks, shape)?,
        _ => return None,
    }])
}
