//! Where the windows of convolutions and poolings lie.

use super::PadType;
use crate::schema::{OpError, Opset};
use mlconv_tensor::Dim;
use std::ops::Range;

/// How windows slide over an image of some spatial dimensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    /// Step per spatial dimension.
    pub(crate) strides: &'a [i64],
    /// How windows meet the borders.
    pub(crate) pad_type: PadType,
    /// Padding before and after, per spatial dimension, where `pad_type` is `custom`.
    pub(crate) pad: &'a [i64],
    /// Distance between the elements of a window, per spatial dimension.
    pub(crate) dilations: &'a [i64],
    /// Whether a last window may reach over the end.
    pub(crate) ceil: bool,
}

impl Window<'_> {
    /// Refuses values that `opset` does not have or that do not fit `spatial` dimensions.
    pub(crate) fn check(&self, opset: Opset, spatial: usize) -> Result<(), OpError> {
        let Self { strides, pad_type, pad, dilations, ceil } = *self;
        check_ints("strides", strides, spatial, 1)?;
        check_ints("dilations", dilations, spatial, 1)?;
        match pad_type {
            PadType::Custom => check_ints("pad", pad, 2 * spatial, 0)?,
            PadType::SameLower if opset < Opset::Ios16 => {
                return Err(OpError::value("pad_type", "same_lower", format!("what {opset} has")));
            }
            PadType::Valid | PadType::Same | PadType::SameLower => {}
        }
        if !ceil {
            return Ok(());
        }
        if matches!(pad_type, PadType::Same | PadType::SameLower) || spatial > 2 {
            return Err(OpError::value("ceil_mode", true, "padding `valid` or `custom` of 1 or 2 spatial dimensions"));
        }
        if pad_type == PadType::Custom && pad.chunks(2).any(|p| p[0] != p[1]) {
            return Err(OpError::value("pad", format!("{pad:?}"), "as much before as after, as `ceil_mode` holds"));
        }
        Ok(())
    }

    /// The number of windows of `kernel` elements along each spatial dimension of `sizes`; at least 1 where it is known.
    pub(crate) fn counts(&self, sizes: &[Dim], kernel: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let count = |(i, (size, kernel)): (usize, (&Dim, &Dim))| {
            let dim = self.count(i, size, kernel);
            if dim.as_known().is_some_and(|n| n < 1) { Err(OpError::Size { axis: i + 2, dim }) } else { Ok(dim) }
        };
        sizes.iter().zip(kernel).enumerate().map(count).collect()
    }

    fn count(&self, i: usize, size: &Dim, kernel: &Dim) -> Dim {
        let stride = Dim::from(self.strides[i]);
        let (before, after) = match self.pad_type {
            PadType::Same | PadType::SameLower => return size.div_ceil(&stride),
            PadType::Valid => (0, 0),
            PadType::Custom => (self.pad[2 * i], self.pad[2 * i + 1]),
        };
        let room = size + (before + after) - ((kernel - 1) * self.dilations[i] + 1);
        if !self.ceil {
            return room.div_floor(&stride) + 1;
        }
        let count = room.div_ceil(&stride) + 1;
        if before + after == 0 {
            return count;
        }
        // A last window that starts behind the image is dropped. Source: coremltools `spatial_dimensions_out_shape`.
        let starts_inside = (size + before).div_ceil(&stride);
        match (count.as_known(), starts_inside.as_known()) {
            (Some(n), Some(inside)) if n > inside => Dim::from(n - 1),
            (Some(_), Some(_)) => count,
            // There is no more than one such window, as long as the padding is no larger than a window.
            _ => count.minimum(&starts_inside),
        }
    }

    /// The windows of a run, their number along each spatial dimension being `counts`.
    pub(crate) fn places(&self, sizes: &[usize], kernel: &[usize], counts: &[usize]) -> Places {
        let skipped = 3 - sizes.len();
        let mut p = Places {
            image: [1; 3],
            windows: [1; 3],
            kernel: [1; 3],
            stride: [1; 3],
            dilation: [1; 3],
            pad: [(0, 0); 3],
        };
        for i in 0..sizes.len() {
            let k = skipped + i;
            (p.image[k], p.windows[k], p.kernel[k]) = (sizes[i], counts[i], kernel[i]);
            (p.stride[k], p.dilation[k]) = (self.strides[i], self.dilations[i]);
            let reach = (kernel[i] as i64 - 1).saturating_mul(self.dilations[i]).saturating_add(1);
            let total = ((counts[i] as i64 - 1).saturating_mul(self.strides[i]).saturating_add(reach))
                .saturating_sub(sizes[i] as i64)
                .max(0);
            p.pad[k] = match self.pad_type {
                PadType::Valid => (0, 0),
                PadType::Same => (total / 2, total - total / 2),
                PadType::SameLower => (total - total / 2, total / 2),
                PadType::Custom => (self.pad[2 * i], self.pad[2 * i + 1]),
            };
        }
        p
    }
}

fn check_ints(param: &'static str, v: &[i64], len: usize, least: i64) -> Result<(), OpError> {
    if v.len() == len && v.iter().all(|n| (least..1 << 31).contains(n)) {
        return Ok(());
    }
    Err(OpError::value(param, format!("{v:?}"), format!("{len} integers of at least {least}")))
}

/// Windows over an image of known size, both of three dimensions; missing ones come first and are of size 1.
#[derive(Clone, Debug)]
pub struct Places {
    /// Sizes of the image.
    pub image: [usize; 3],
    /// How many windows there are.
    pub windows: [usize; 3],
    /// Sizes of a window, in elements.
    pub kernel: [usize; 3],
    /// Steps from window to window, at least 1.
    pub stride: [i64; 3],
    /// Distances between the elements of a window, at least 1.
    pub dilation: [i64; 3],
    /// Padding before and after.
    pub pad: [(i64, i64); 3],
}

/// Neighbouring windows of one row in which one tap, an element of a window, lies inside of the image.
#[derive(Debug)]
pub struct Run {
    /// The number of the tap in a window.
    pub tap: usize,
    /// The numbers of the windows.
    pub windows: Range<usize>,
    /// The place of the first window's tap in the image; those of the next ones follow in [`Places::step`].
    pub image: usize,
}

impl Places {
    /// The number of elements of the image; of an image without channels, it may overflow.
    pub fn image(&self) -> usize {
        self.image.iter().fold(1, |n, d| n.saturating_mul(*d))
    }

    /// The number of windows.
    pub fn windows(&self) -> usize {
        self.windows.iter().product()
    }

    /// The number of elements of a window.
    pub fn taps(&self) -> usize {
        self.kernel.iter().fold(1, |n, d| n.saturating_mul(*d))
    }

    /// The distance in the image from a window's tap to that of the next window of a row.
    pub fn step(&self) -> usize {
        self.stride[2] as usize
    }

    /// Calls `f` with all pairs of window and tap that lie inside of the image, a row of windows at a time.
    pub fn each_run(&self, mut f: impl FnMut(Run)) {
        let [_, height, width] = self.image;
        let [depth_windows, height_windows, width_windows] = self.windows;
        for tap in 0..self.taps() {
            let (row, column) = (tap / self.kernel[2], tap % self.kernel[2]);
            let (plane, row) = (row / self.kernel[1], row % self.kernel[1]);
            let (span, first) = self.span(column);
            if span.is_empty() {
                continue;
            }
            for d in 0..depth_windows {
                let Some(at_d) = self.place(0, d, plane) else { continue };
                for h in 0..height_windows {
                    let Some(at_h) = self.place(1, h, row) else { continue };
                    let line = (d * height_windows + h) * width_windows;
                    let image = (at_d * height + at_h) * width + first;
                    f(Run { tap, windows: line + span.start..line + span.end, image });
                }
            }
        }
    }

    /// The windows along the last axis in which a tap lies inside of the image, and the place of the first one's tap.
    pub fn span(&self, tap: usize) -> (Range<usize>, usize) {
        let first = tap as i64 * self.dilation[2] - self.pad[2].0;
        let windows = self.windows[2] as i64;
        let from = ceil_div(-first, self.stride[2]).clamp(0, windows);
        let to = ceil_div(self.image[2] as i64 - first, self.stride[2]).clamp(from, windows);
        (from as usize..to as usize, if from < to { (from * self.stride[2] + first) as usize } else { 0 })
    }

    /// The place along `axis` of a window's tap; `None` in the padding.
    pub fn place(&self, axis: usize, window: usize, tap: usize) -> Option<usize> {
        let at = window as i64 * self.stride[axis] + tap as i64 * self.dilation[axis] - self.pad[axis].0;
        usize::try_from(at).ok().filter(|at| *at < self.image[axis])
    }

    /// For each window, the number of its elements that lie inside of the padded image, or inside of the image itself.
    pub fn sizes(&self, with_padding: bool) -> Vec<f64> {
        let along = |axis: usize| {
            let (before, after) = if with_padding { self.pad[axis] } else { (0, 0) };
            (0..self.windows[axis] as i64).map(move |window| {
                let start = window * self.stride[axis] - self.pad[axis].0;
                let end = (start + self.kernel[axis] as i64).min(self.image[axis] as i64 + after);
                (end - start.max(-before)).max(0) as f64
            })
        };
        let row = |d: f64| along(1).flat_map(move |h| along(2).map(move |w| d * h * w));
        along(0).flat_map(row).collect()
    }
}

fn ceil_div(a: i64, b: i64) -> i64 {
    a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0)
}
