//! Convolutions: products with the patches under the windows, or sums of shifted lines where channels are apart.

use super::{
    data::{each_row, each_task, load, store},
    gemm::{Columns, Matrix, Onto, product},
};
use mlconv_mil::{
    ir::Value,
    ops::{Conv, ConvTranspose, WindowPlaces},
    schema::{EvalCx, Out, Tensors},
};
use rayon::prelude::*;
use smallvec::smallvec;
use std::ops::Range;

pub(super) fn conv(op: &Conv, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (out, x_shape, w_shape) = (cx.out(0), cx.shape(op.x), cx.shape(op.weight));
    let places = op.places(x_shape, w_shape, &out.shape);
    let (x, w) = (load(cx.tensor(op.x))?, load(cx.tensor(op.weight))?);
    let (c_in, c_out, per_group) = (x_shape[1], w_shape[0], w_shape[1]);
    let groups = usize::try_from(op.groups).ok()?;
    let per_out = c_out / groups;
    let (image, windows, taps) = (places.image(), places.windows(), places.taps());
    if x.is_empty() || w.is_empty() {
        return None;
    }
    let mut y = channel_bias(cx, op.bias, out)?;
    if groups > 1 && (per_group == 1 || per_out <= 4) {
        let shift = Shift::new(&places);
        each_row(&mut y, windows, |plane, y| {
            let (n, co) = (plane / c_out, plane % c_out);
            let first = n * c_in + co / per_out * per_group;
            shift.add(y, &x[first * image..][..per_group * image], &w[co * per_group * taps..][..per_group * taps]);
        });
        return Some(smallvec![store(out, y)?]);
    }
    let whole = places.pad.iter().all(|p| p.0 == 0) && places.stride == [1; 3] && places.image == places.windows;
    let pointwise = taps == 1 && whole;
    y.par_chunks_exact_mut(per_out * windows).enumerate().try_for_each(|(i, y)| {
        let (n, g) = (i / groups, i % groups);
        let x = &x[(n * c_in + g * per_group) * image..][..per_group * image];
        let w = &w[g * per_out * per_group * taps..][..per_out * per_group * taps];
        let w = Matrix::packed(w, per_out, per_group * taps)?;
        if pointwise {
            product(y, w, windows, &Matrix::packed(x, per_group, windows)?, Onto::Sum);
        } else {
            product(y, w, windows, &Patches { x, places: &places, channels: per_group }, Onto::Sum);
        }
        Some(())
    })?;
    Some(smallvec![store(out, y)?])
}

/// A result in which each element is the bias of its channel.
fn channel_bias(cx: &EvalCx<'_>, bias: Option<Value>, out: &Out) -> Option<Vec<f32>> {
    let mut y = vec![0.0; out.count()];
    if let Some(bias) = bias {
        let bias = load(cx.tensor(bias))?;
        each_row(&mut y, out.shape[2..].iter().product(), |i, y| y.fill(bias[i % bias.len()]));
    }
    Some(y)
}

/// The patches under the windows of one image: a column per window, a row per channel and tap.
pub(super) struct Patches<'a> {
    pub(super) x: &'a [f32],
    pub(super) places: &'a WindowPlaces,
    pub(super) channels: usize,
}

impl Columns for Patches<'_> {
    fn tile(&self) -> usize {
        // Half a megabyte of patches stays in the cache while it is multiplied.
        ((1 << 17) / (self.channels * self.places.taps())).clamp(32, 512) / 16 * 16
    }

    fn columns<'s>(&'s self, range: Range<usize>, scratch: &'s mut Vec<f32>) -> Matrix<'s> {
        let (p, n, image) = (self.places, range.len(), self.places.image());
        let rows = self.channels * p.taps();
        scratch.resize(rows * n, 0.0);
        let mut to = scratch.chunks_exact_mut(n);
        let [_, kernel_height, kernel_width] = p.kernel;
        let spans: Vec<_> = (0..kernel_width).map(|tap| p.span(tap)).collect();
        for x in self.x.chunks_exact(image) {
            for tap in 0..p.taps() / kernel_width {
                let (plane, row) = (tap / kernel_height, tap % kernel_height);
                for (span, first) in &spans {
                    if let Some(to) = to.next() {
                        self.line(x, [plane, row], span.clone(), *first, range.clone(), to);
                    }
                }
            }
        }
        Matrix::packed(scratch, rows, n).expect("resized to hold them")
    }
}

impl Patches<'_> {
    /// Copies the elements of one tap of the windows `range`.
    fn line(
        &self,
        x: &[f32],
        [plane, row]: [usize; 2],
        span: Range<usize>,
        first: usize,
        range: Range<usize>,
        mut to: &mut [f32],
    ) {
        let p = self.places;
        let [_, height, width] = p.image;
        let [_, height_windows, width_windows] = p.windows;
        let stride = p.stride[2] as usize;
        let mut at = range.start;
        while !to.is_empty() {
            let (line, column) = (at / width_windows, at % width_windows);
            let count = (width_windows - column).min(to.len());
            let (part, rest) = to.split_at_mut(count);
            (to, at) = (rest, at + count);
            let d = p.place(0, line / height_windows, plane);
            let Some((d, h)) = d.zip(p.place(1, line % height_windows, row)) else {
                part.fill(0.0);
                continue;
            };
            let from = span.start.clamp(column, column + count);
            let until = span.end.clamp(from, column + count);
            part[..from - column].fill(0.0);
            part[until - column..].fill(0.0);
            let part = &mut part[from - column..until - column];
            if part.is_empty() {
                continue;
            }
            let source = &x[(d * height + h) * width + first + (from - span.start) * stride..];
            if stride == 1 {
                part.copy_from_slice(&source[..part.len()]);
            } else {
                part.iter_mut().zip(source.iter().step_by(stride)).for_each(|(to, x)| *to = *x);
            }
        }
    }
}

/// A convolution of few channels as sums of shifted lines.
struct Shift<'a> {
    places: &'a WindowPlaces,
    spans: Vec<(Range<usize>, usize)>,
}

impl<'a> Shift<'a> {
    fn new(places: &'a WindowPlaces) -> Self {
        Self { places, spans: (0..places.kernel[2]).map(|tap| places.span(tap)).collect() }
    }

    /// Adds the convolution of the channels `x` with `w` to one channel of the result.
    fn add(&self, y: &mut [f32], x: &[f32], w: &[f32]) {
        let p = self.places;
        let [_, height, width] = p.image;
        let stride = p.stride[2] as usize;
        let (image, width_taps) = (p.image(), p.kernel[2]);
        for (line, y) in y.chunks_exact_mut(p.windows[2]).enumerate() {
            let (d, h) = (line / p.windows[1], line % p.windows[1]);
            for (x, w) in x.chunks_exact(image).zip(w.chunks_exact(p.taps())) {
                for (tap, w) in w.chunks_exact(width_taps).enumerate() {
                    let at = p.place(0, d, tap / p.kernel[1]).zip(p.place(1, h, tap % p.kernel[1]));
                    let Some((at_d, at_h)) = at else { continue };
                    let x = &x[(at_d * height + at_h) * width..][..width];
                    for ((span, first), w) in self.spans.iter().zip(w) {
                        let (y, x) = (&mut y[span.clone()], &x[*first..]);
                        if stride == 1 {
                            y.iter_mut().zip(x).for_each(|(y, x)| *y += w * x);
                        } else {
                            y.iter_mut().zip(x.iter().step_by(stride)).for_each(|(y, x)| *y += w * x);
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn conv_transpose(op: &ConvTranspose, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (out, x_shape, w_shape) = (cx.out(0), cx.shape(op.x), cx.shape(op.weight));
    let places = op.places(x_shape, w_shape, &out.shape);
    let (x, w) = (load(cx.tensor(op.x))?, load(cx.tensor(op.weight))?);
    if x.is_empty() || w.is_empty() {
        return None;
    }
    let (c_in, per_group) = (x_shape[1], w_shape[1]);
    let groups = usize::try_from(op.groups).ok()?;
    let c_in_group = c_in / groups;
    let (image, windows, taps) = (places.image(), places.windows(), places.taps());
    let mut y = channel_bias(cx, op.bias, out)?;
    // So many channels of the result at once as fill the rows of a product, and no more than 16 megabytes.
    let channels = (128 / taps).min((1 << 22) / (taps * windows)).clamp(1, per_group);
    y.par_chunks_exact_mut(per_group * image).enumerate().try_for_each(|(i, y)| {
        let (n, g) = (i / groups, i % groups);
        let x =
            Matrix::packed(&x[(n * c_in + g * c_in_group) * windows..][..c_in_group * windows], c_in_group, windows)?;
        let columns = per_group * taps;
        let w = &w[g * c_in_group * columns..][..c_in_group * columns];
        let w = Matrix::packed(w, c_in_group, columns)?.transposed();
        each_task(y, channels * image, |start, y| {
            let (first, count) = (start / image * taps, y.len() / image * taps);
            let mut spread = vec![0.0; count * windows];
            product(&mut spread, w.rows(first..first + count), windows, &x, Onto::Nothing);
            for (y, spread) in y.chunks_exact_mut(image).zip(spread.chunks_exact(taps * windows)) {
                places.each_run(|run| {
                    let write = y[run.image..].iter_mut().step_by(places.step());
                    let read = &spread[run.tap * windows..][..windows][run.windows];
                    write.zip(read).for_each(|(y, x)| *y += x);
                });
            }
        });
        Some(())
    })?;
    Some(smallvec![store(out, y)?])
}
