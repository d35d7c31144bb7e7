//! Poolings.

use super::data::{each_row, load, store};
use mlconv_mil::{
    ir::Value,
    ops::{AvgPool, L2Pool, MaxPool, WindowPlaces},
    schema::{EvalCx, Tensors},
};
use smallvec::smallvec;

pub(super) fn max_pool(op: &MaxPool, cx: &EvalCx<'_>) -> Option<Tensors> {
    let places = op.places(cx.shape(op.x), &cx.out(0).shape);
    pool(cx, op.x, &places, f32::NEG_INFINITY, |max, x| if x > max || x.is_nan() { x } else { max }, |_, max| max)
}

pub(super) fn avg_pool(op: &AvgPool, cx: &EvalCx<'_>) -> Option<Tensors> {
    let places = op.places(cx.shape(op.x), &cx.out(0).shape);
    let sizes = places.sizes(!op.exclude_padding_from_average);
    pool(cx, op.x, &places, 0.0, |sum, x| sum + f64::from(x), |i, sum| (sum / sizes[i]) as f32)
}

pub(super) fn l2_pool(op: &L2Pool, cx: &EvalCx<'_>) -> Option<Tensors> {
    let places = op.places(cx.shape(op.x), &cx.out(0).shape);
    let square = |sum, x| sum + f64::from(x) * f64::from(x);
    pool(cx, op.x, &places, 0.0, square, |_, sum: f64| sum.sqrt() as f32)
}

/// Folds the elements of each window that lie inside of their image; `end` is told the number of the window.
fn pool<A: Copy + Send + Sync>(
    cx: &EvalCx<'_>,
    x: Value,
    places: &WindowPlaces,
    first: A,
    fold: impl Fn(A, f32) -> A + Sync,
    end: impl Fn(usize, A) -> f32 + Sync,
) -> Option<Tensors> {
    let (out, x) = (cx.out(0), load(cx.tensor(x))?);
    let (image, windows) = (places.image(), places.windows());
    let mut y = vec![0.0; out.count()];
    if x.is_empty() {
        return None;
    }
    each_row(&mut y, windows, |plane, y| {
        let x = &x[plane * image..][..image];
        let mut sums = vec![first; windows];
        places.each_run(|run| {
            let sums = &mut sums[run.windows];
            if places.step() == 1 {
                sums.iter_mut().zip(&x[run.image..]).for_each(|(y, x)| *y = fold(*y, *x));
            } else {
                sums.iter_mut().zip(x[run.image..].iter().step_by(places.step())).for_each(|(y, x)| *y = fold(*y, *x));
            }
        });
        y.iter_mut().zip(sums).enumerate().for_each(|(i, (y, sum))| *y = end(i, sum));
    });
    Some(smallvec![store(out, y)?])
}
