//! Poolings.

use super::convolution::{Padding, Window, interleaved, spatial_sizes};
use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::{DType, Tensor};

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Elements of a window beyond which one that is dilated is refused: each is an op.
const MAX_TAPS: i64 = 512;

/// The windows of a pooling, over sizes that are known.
struct Grid {
    window: Window,
    sizes: Vec<i64>,
    /// Padding that counts as such.
    pads: Vec<(i64, i64)>,
    /// Padding with which the windows come out even.
    even: Vec<(i64, i64)>,
    /// The number of windows.
    counts: Vec<i64>,
}

impl Grid {
    fn new(n: &Lower<'_>, x: Value, window: &Window, ceil: bool) -> Result<Self> {
        let sizes = spatial_sizes(n, x)?;
        let pads = window.pads(&sizes);
        let (mut even, mut counts) = (vec![], vec![]);
        for (i, (size, (before, after))) in sizes.iter().zip(&pads).enumerate() {
            let (stride, reach) = (window.strides[i], window.reach(i));
            let room = size.saturating_add(before + after).saturating_sub(reach);
            if room < 0 {
                return Err(LowerError::form(format!("a window of {reach} over {size} elements")));
            }
            let mut count = room / stride + 1;
            // A window may reach over the end, but not start there.
            if ceil && room % stride != 0 && count * stride < size + before {
                count += 1;
            }
            let covered = (count - 1).saturating_mul(stride).saturating_add(reach);
            even.push((*before, (covered - size - before).max(0)));
            counts.push(count);
        }
        Ok(Self { window: window.clone(), sizes, pads, even, counts })
    }

    /// Elements that each window has, along each dimension: those in the image, or in the padded image.
    fn members(&self, padded: bool) -> Result<Vec<f64>> {
        let total = self.counts.iter().try_fold(1i64, |n, c| n.checked_mul(*c).filter(|n| *n < 1 << 24));
        if total.is_none() || self.window.kernel.iter().any(|k| *k > 1 << 16) {
            return Err(LowerError::form("a pooling of such a size"));
        }
        let mut all = vec![1.0];
        for i in 0..self.counts.len() {
            let (before, after) = self.pads[i];
            let (start, end) = if padded { (-before, self.sizes[i] + after) } else { (0, self.sizes[i]) };
            let (kernel, step) = (self.window.kernel[i], self.window.dilations[i].max(1));
            let of = |count: i64| {
                let first = count * self.window.strides[i] - before;
                // The taps before the start, and those before the end.
                let until = |bound: i64| (bound - first + step - 1).div_euclid(step).clamp(0, kernel);
                (until(end) - until(start)).max(0) as f64
            };
            let along: Vec<f64> = (0..self.counts[i]).map(of).collect();
            all = all.iter().flat_map(|a| along.iter().map(move |b| a * b)).collect();
        }
        Ok(all)
    }

    fn shape(&self) -> Vec<usize> {
        [1, 1].into_iter().chain(self.counts.iter().map(|c| *c as usize)).collect()
    }

    /// The places of all elements of a window, relative to its first one, in row-major order.
    fn taps(&self) -> Result<Vec<Vec<i64>>> {
        let count = self.window.kernel.iter().try_fold(1i64, |n, k| n.checked_mul(*k).filter(|n| *n <= MAX_TAPS));
        if count.is_none() {
            return Err(LowerError::form(format!("places of maxima in a window of more than {MAX_TAPS} elements")));
        }
        let mut taps = vec![vec![]];
        for (k, d) in self.window.kernel.iter().zip(&self.window.dilations) {
            let longer = |tap: &Vec<i64>| (0..*k).map(|i| [tap.as_slice(), &[i * d]].concat()).collect::<Vec<_>>();
            taps = taps.iter().flat_map(longer).collect();
        }
        Ok(taps)
    }

    /// The image under one tap of every window.
    fn under(&self, n: &mut Lower<'_>, padded: Value, tap: &[i64]) -> Result<Value> {
        let part = |(i, at): (usize, &i64)| {
            let stride = self.window.strides[i];
            (i + 2, *at, Some(at + (self.counts[i] - 1) * stride + 1), stride)
        };
        n.slice_by(padded, &tap.iter().enumerate().map(part).collect::<Vec<_>>())
    }

    /// The greatest element of each window of one dimension.
    fn greatest_along(&self, n: &mut Lower<'_>, x: Value, i: usize) -> Result<Value> {
        let (kernel, stride) = (self.window.kernel[i], self.window.strides[i]);
        if kernel > MAX_TAPS {
            return Err(LowerError::form(format!("a dilated window of more than {MAX_TAPS} elements")));
        }
        let mut best: Option<Value> = None;
        for k in 0..kernel {
            let at = k * self.window.dilations[i];
            let end = at + (self.counts[i] - 1) * stride + 1;
            let here = n.slice_by(x, &[(i + 2, at, Some(end), stride)])?;
            best = Some(match best {
                Some(best) => n.maximum(best, here)?,
                None => here,
            });
        }
        best.ok_or(LowerError::Poisoned)
    }

    fn padded(&self, n: &mut Lower<'_>, x: Value, value: f32) -> Result<Value> {
        let pads: Vec<(i64, i64)> = [(0, 0); 2].into_iter().chain(self.even.iter().copied()).collect();
        n.pad(x, &interleaved(&pads), value)
    }

    /// The sum over each window.
    fn sums(&self, n: &mut Lower<'_>, x: Value) -> Result<Value> {
        let channels = n.shape(x)?[1].as_usize().ok_or(LowerError::NotFixed { what: "the channels".into() })?;
        let kernel = self.window.kernel.iter().map(|k| *k as usize);
        let shape: Vec<usize> = [channels, 1].into_iter().chain(kernel).collect();
        if shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d).filter(|n| *n < 1 << 22)).is_none() {
            return Err(LowerError::form("a pooling of such a size"));
        }
        let weight = n.add_const(Tensor::splat(n.dtype(x)?, &shape, 1.0))?;
        n.op(ops::Conv {
            x,
            weight,
            bias: None,
            strides: self.window.strides.clone(),
            pad_type: ops::PadType::Custom,
            pad: interleaved(&self.even),
            dilations: self.window.dilations.clone(),
            groups: channels as i64,
        })
    }
}

/// Where a pooling that rounds up can be left to Core ML: it knows symmetric padding of images only.
fn rounds_up(window: &Window) -> bool {
    let symmetric = match &window.padding {
        Padding::Explicit(pads) => pads.iter().all(|(before, after)| before == after),
        Padding::SameUpper | Padding::SameLower => false,
    };
    symmetric && window.kernel.len() <= 2
}

/// The padding of a dense pooling that rounds up or not, and whether Core ML is to round.
fn padding(n: &Lower<'_>, x: Value, window: &Window, ceil: bool) -> Result<(ops::PadType, Vec<i64>, bool)> {
    if !ceil || !matches!(window.padding, Padding::Explicit(_)) {
        let (pad_type, pad) = window.mil_padding(n, x)?;
        return Ok((pad_type, pad, false));
    }
    if spatial_sizes(n, x).is_err() && rounds_up(window) {
        let (pad_type, pad) = window.mil_padding(n, x)?;
        return Ok((pad_type, pad, true));
    }
    let grid = Grid::new(n, x, window, true)?;
    Ok((ops::PadType::Custom, interleaved(&grid.even), false))
}

/// The greatest element of each window.
pub fn greatest(n: &mut Lower<'_>, source: Value, window: Window, ceil: bool) -> Result<Value> {
    let (dtype, x) = (n.dtype(source)?, n.as_float(source)?);
    let y = if window.is_dense() {
        let (pad_type, pad, ceil_mode) = padding(n, x, &window, ceil)?;
        let Window { kernel, strides, .. } = window;
        n.op(ops::MaxPool { x, kernel_sizes: kernel, strides, pad_type, pad, ceil_mode })?
    } else {
        let grid = Grid::new(n, x, &window, ceil)?;
        let mut y = grid.padded(n, x, f32::NEG_INFINITY)?;
        // The greatest of the rows' greatest is the greatest of all: one dimension after the other.
        for i in 0..grid.sizes.len() {
            y = grid.greatest_along(n, y, i)?;
        }
        y
    };
    n.cast(y, dtype)
}

/// The greatest element of each window, and its place in the image; `by_columns`, places are counted along columns. The
/// place of each maximum is carried along while the elements of all windows are gone through.
pub fn greatest_with_places(
    n: &mut Lower<'_>,
    source: Value,
    window: &Window,
    (ceil, by_columns): (bool, bool),
) -> Result<[Value; 2]> {
    let (dtype, x) = (n.dtype(source)?, n.as_float(source)?);
    let grid = Grid::new(n, x, window, ceil)?;
    let padded = grid.padded(n, x, f32::NEG_INFINITY)?;
    let spatial = grid.sizes.len();
    // How far apart neighbours along each dimension are.
    let step = |i: usize| -> i64 {
        let others = if by_columns { &grid.sizes[..i] } else { &grid.sizes[i + 1..] };
        others.iter().fold(1i64, |n, d| n.saturating_mul(*d))
    };
    let steps: Vec<i64> = (0..spatial).map(step).collect();
    grid.members(false)?;
    let mut best: Option<(Value, Value)> = None;
    for tap in grid.taps()? {
        let here = grid.under(n, padded, &tap)?;
        let place = n.const_int(tap.iter().zip(&steps).map(|(t, s)| t.saturating_mul(*s)).sum())?;
        best = Some(match best {
            None => (here, place),
            Some((value, at)) => {
                let better = n.less(value, here)?;
                (n.maximum(value, here)?, n.select(better, place, at)?)
            }
        });
    }
    let (value, at) = best.ok_or(LowerError::Poisoned)?;
    // That was relative to where the window starts.
    n.affords(grid.counts.iter().fold(1, |n, count| n.saturating_mul(usize::try_from(*count).unwrap_or(0))))?;
    let mut windows = vec![0i64];
    for (i, step) in steps.iter().enumerate() {
        let first = |count: i64| (count * grid.window.strides[i] - grid.pads[i].0).saturating_mul(*step);
        let along: Vec<i64> = (0..grid.counts[i]).map(first).collect();
        windows = windows.iter().flat_map(|p| along.iter().map(move |a| p.saturating_add(*a))).collect();
    }
    let windows = n.add_const(Tensor::from_i64(DType::I64, &grid.shape(), &windows))?;
    let value = n.cast(value, dtype)?;
    Ok([value, n.add(at, windows)?])
}

/// How means of windows are taken.
#[derive(Clone, Copy, Debug)]
pub struct Mean {
    /// Whether the number of windows is rounded up.
    pub ceil: bool,
    /// Whether elements of the padding count.
    pub padded: bool,
    /// What sums are divided by, in place of the number of elements.
    pub divisor: Option<i64>,
}

/// The mean of each window of `x`.
pub fn mean(n: &mut Lower<'_>, x: Value, window: Window, how: Mean) -> Result<Value> {
    let Mean { ceil, padded, divisor } = how;
    let rounded = ceil && matches!(window.padding, Padding::Explicit(_));
    let open = spatial_sizes(n, x).is_err();
    if divisor.is_none() && window.is_dense() && (!rounded || !padded || open) {
        let (pad_type, pad, ceil_mode) = padding(n, x, &window, ceil)?;
        let Window { kernel, strides, .. } = window;
        return n.op(ops::AvgPool {
            x,
            kernel_sizes: kernel,
            strides,
            pad_type,
            pad,
            ceil_mode,
            exclude_padding_from_average: !padded,
        });
    }
    let grid = Grid::new(n, x, &window, ceil)?;
    let sums = grid.sums(n, x)?;
    if let Some(divisor) = divisor {
        return n.scale(sums, 1.0 / divisor as f64);
    }
    let shares: Vec<f64> = grid.members(padded)?.into_iter().map(|count| 1.0 / count.max(1.0)).collect();
    let shares = n.const_like(x, &grid.shape(), &shares)?;
    n.mul(sums, shares)
}

/// The `p`-norm of each window of `x`.
pub fn norm(n: &mut Lower<'_>, x: Value, window: Window, (ceil, p): (bool, i64)) -> Result<Value> {
    if p == 2 && window.is_dense() && window.kernel.len() <= 2 {
        let (pad_type, pad, ceil_mode) = padding(n, x, &window, ceil)?;
        let Window { kernel, strides, .. } = window;
        return n.op(ops::L2Pool { x, kernel_sizes: kernel, strides, pad_type, pad, ceil_mode });
    }
    let grid = Grid::new(n, x, &window, ceil)?;
    let powers = power(n, x, p)?;
    let sums = grid.sums(n, powers)?;
    root(n, sums, p)
}

/// `|x|^p`.
pub fn power(n: &mut Lower<'_>, x: Value, p: i64) -> Result<Value> {
    match p {
        ..1 => n.bad_attr("p", "at least 1"),
        1 => n.abs(x),
        2 => n.mul(x, x),
        _ => {
            let size = n.abs(x)?;
            let p = n.scalar_like(x, p as f64)?;
            n.op(ops::Pow { x: size, y: p })
        }
    }
}

/// `x^(1/p)`.
pub fn root(n: &mut Lower<'_>, x: Value, p: i64) -> Result<Value> {
    match p {
        1 => Ok(x),
        2 => n.sqrt(x),
        _ => {
            let p = n.scalar_like(x, 1.0 / p as f64)?;
            n.op(ops::Pow { x, y: p })
        }
    }
}
