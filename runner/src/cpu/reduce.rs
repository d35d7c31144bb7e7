//! Reductions: sums in double precision, in lanes whose order depends on the shape alone.

use super::{
    data::{each_row, load, store},
    strided::Rows,
};
use mlconv_mil::{
    ir::Value,
    ops::{ReduceArgmax, ReduceArgmin},
    schema::{EvalCx, Tensors},
};
use mlconv_tensor::{DType, Shape, Tensor};
use smallvec::smallvec;

/// How elements become one.
#[derive(Clone, Copy)]
pub(super) struct Fold<T, J, E> {
    /// That of no elements.
    pub(super) start: f64,
    /// What an element counts as.
    pub(super) take: T,
    /// What two count as.
    pub(super) join: J,
    /// The result of what all count as, and of their number.
    pub(super) end: E,
}

impl<T: Fn(f64) -> f64 + Sync, J: Fn(f64, f64) -> f64 + Sync, E: Fn(f64, usize) -> f64 + Sync> Fold<T, J, E> {
    fn row(&self, x: &[f32]) -> f32 {
        let mut lanes = [self.start; 8];
        let parts = x.chunks_exact(lanes.len());
        let rest = parts.remainder().iter().fold(self.start, |sum, x| (self.join)(sum, (self.take)(f64::from(*x))));
        for part in parts {
            lanes.iter_mut().zip(part).for_each(|(sum, x)| *sum = (self.join)(*sum, (self.take)(f64::from(*x))));
        }
        (self.end)(lanes.into_iter().fold(rest, &self.join), x.len()) as f32
    }
}

/// Folds the elements of `x` along `axes`, all where absent.
pub(super) fn reduce<T, J, E>(cx: &EvalCx<'_>, x: Value, axes: Option<&[i64]>, fold: Fold<T, J, E>) -> Option<Tensors>
where
    T: Fn(f64) -> f64 + Sync,
    J: Fn(f64, f64) -> f64 + Sync,
    E: Fn(f64, usize) -> f64 + Sync,
{
    let (shape, values) = (cx.shape(x), load(cx.tensor(x))?);
    let mut y = vec![0.0; cx.out(0).count()];
    let along = reduced(shape, axes)?;
    // Axes in the middle: neighbours are summed side by side.
    let run: Vec<usize> = (0..shape.len()).filter(|i| along[*i] && shape[*i] != 1).collect();
    if let (Some(first), Some(last)) = (run.first(), run.last())
        && (*first..=*last).all(|i| along[i] || shape[i] == 1)
        && shape[last + 1..].iter().product::<usize>() > 1
    {
        let (len, inner) = (shape[*first..=*last].iter().product(), shape[last + 1..].iter().product::<usize>());
        let part = inner.min(256);
        let parts = inner.div_ceil(part);
        // A row of the result is cut in parts, which a few threads share; the last one may be shorter.
        each_part(&mut y, inner, part, |i, y| {
            let (row, column) = (i / parts, i % parts * part);
            let mut sums = vec![fold.start; y.len()];
            for k in 0..len {
                let x = &values[(row * len + k) * inner + column..][..y.len()];
                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = (fold.join)(*sum, (fold.take)(f64::from(*x))));
            }
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = (fold.end)(sum, len) as f32);
        });
    } else {
        let rows = Rows::new(values, shape, &along);
        if rows.len == 0 {
            return None;
        }
        fold_rows(&mut y, &rows, |row| fold.row(row));
    }
    Some(smallvec![store(cx.out(0), y)?])
}

/// The logarithm of the sum of exponentials, in a form that does not overflow.
pub(super) fn log_sum_exp(cx: &EvalCx<'_>, x: Value, axes: Option<&[i64]>) -> Option<Tensors> {
    let (shape, values) = (cx.shape(x), load(cx.tensor(x))?);
    let rows = Rows::new(values, shape, &reduced(shape, axes)?);
    let mut y = vec![0.0; cx.out(0).count()];
    fold_rows(&mut y, &rows, |row| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, super::math::maximum);
        if max.is_infinite() {
            return max;
        }
        let sum: f64 = row.iter().map(|x| f64::from(super::math::exp(x - max))).sum();
        (sum.ln() + f64::from(max)) as f32
    });
    Some(smallvec![store(cx.out(0), y)?])
}

pub(super) fn argmax(op: &ReduceArgmax, cx: &EvalCx<'_>) -> Option<Tensors> {
    choose(cx, op.x, op.axis, |x, best| x > best)
}

pub(super) fn argmin(op: &ReduceArgmin, cx: &EvalCx<'_>) -> Option<Tensors> {
    choose(cx, op.x, op.axis, |x, best| x < best)
}

/// The position along `axis` of the first element that no other is better than, or of the first NaN.
fn choose(cx: &EvalCx<'_>, x: Value, axis: i64, better: fn(f32, f32) -> bool) -> Option<Tensors> {
    let (out, shape, values) = (cx.out(0), cx.shape(x), load(cx.tensor(x))?);
    let rows = Rows::new(values, shape, &reduced(shape, Some(&[axis]))?);
    if rows.len == 0 || out.dtype != DType::I32 {
        return None;
    }
    let mut y = vec![0i32; out.count()];
    fold_rows(&mut y, &rows, |row| {
        let mut best = 0;
        for (i, x) in row.iter().enumerate() {
            if !row[best].is_nan() && (x.is_nan() || better(*x, row[best])) {
                best = i;
            }
        }
        best as i32
    });
    Some(smallvec![Tensor::from_vec(&out.shape, y)])
}

/// For each axis whether it is reduced.
pub(super) fn reduced(shape: &[usize], axes: Option<&[i64]>) -> Option<Vec<bool>> {
    let Some(axes) = axes else { return Some(vec![true; shape.len()]) };
    let axes = Shape::from(shape).axes(axes).ok()?;
    Some((0..shape.len()).map(|i| axes.iter().any(|a| a.index() == i)).collect())
}

/// Writes `f` of each row to its place.
pub(super) fn fold_rows<T: Send>(y: &mut [T], rows: &Rows<'_>, f: impl Fn(&[f32]) -> T + Sync) {
    let size = super::data::GRAIN.div_ceil(rows.len.max(1));
    super::data::each_task(y, size, |start, y| {
        let rows = rows.values[start * rows.len..].chunks_exact(rows.len.max(1));
        y.iter_mut().zip(rows).for_each(|(y, row)| *y = f(row));
    });
}

/// Calls `f` with each part, of `part` elements, of each row of `len`, and its number.
fn each_part(y: &mut [f32], len: usize, part: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let parts = len.div_ceil(part);
    if y.len() == len {
        return super::data::each_task(y, part, |start, y| {
            // Where a single task takes the whole row, it is cut here.
            y.chunks_mut(part).enumerate().for_each(|(i, y)| f(start / part + i, y));
        });
    }
    each_row(y, len, |row, y| y.chunks_mut(part).enumerate().for_each(|(i, y)| f(row * parts + i, y)));
}
