//! Where new pixels lie among old ones.

use mlconv_derive::AttrEnum;

/// Where the pixels of a resized axis lie on the old one.
///
/// Formulas are for pixel `i` of `n` on an axis of `size` pixels; what is outside of `0..=size - 1` goes to its end.
/// Source: coremltools, notes of `resize_bilinear`.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingMode {
    /// `i * (size - 1) / (n - 1)`, and 0 where `n` is 1.
    #[name("STRICT_ALIGN_CORNERS")]
    StrictAlignCorners,
    /// `i * (size - 1) / (n - 1)`, and `(size - 1) / 2` where `n` is 1.
    #[name("ALIGN_CORNERS")]
    AlignCorners,
    /// `i * size / n`. The nearest neighbour is taken as in `UNALIGN_CORNERS`.
    #[name("DEFAULT")]
    Default,
    /// `(i + 0.5) * max(1, size - 1) / n`.
    #[name("OFFSET_CORNERS")]
    OffsetCorners,
    /// `(i + 0.5) * size / n - 0.5`.
    #[name("UNALIGN_CORNERS")]
    UnalignCorners,
}

impl SamplingMode {
    /// The place of pixel `i` of `n` on an axis whose first and last pixel are `start` and `end`.
    pub fn place(self, i: usize, n: usize, start: f64, end: f64) -> f64 {
        let (i, count, last) = (i as f64, n as f64, end - start);
        let place = match self {
            Self::StrictAlignCorners | Self::AlignCorners if n > 1 => i * last / (count - 1.0),
            Self::StrictAlignCorners => 0.0,
            Self::AlignCorners => last / 2.0,
            Self::Default => i * (last + 1.0) / count,
            Self::OffsetCorners => (i + 0.5) * last.max(1.0) / count,
            Self::UnalignCorners => (i + 0.5) * (last + 1.0) / count - 0.5,
        };
        // Not `clamp`, which panics on NaN and on an end before the start.
        start + place.min(last.max(0.0)).max(last.min(0.0))
    }

    /// The places of `n` pixels on an axis of `size` pixels.
    pub(super) fn linear(self, size: usize, n: usize) -> Vec<Tap> {
        let last = size as f64 - 1.0;
        (0..n).map(|i| Tap::at(self.place(i, n, 0.0, last))).collect()
    }

    /// The pixels nearest to those places.
    ///
    /// coremltools holds `DEFAULT` to TensorFlow's half pixel centers; for the other modes nothing says how halves are
    /// rounded: here they are rounded up, as half pixel centers come to.
    pub(super) fn nearest(self, size: usize, n: usize) -> Vec<Tap> {
        let last = size - 1;
        let pixel = |i: usize| match self {
            // In integers: a place in the middle between pixels must not depend on how a quotient is rounded.
            Self::Default | Self::UnalignCorners => (2 * i + 1) * size / (2 * n),
            Self::StrictAlignCorners | Self::AlignCorners if n > 1 => (2 * i * last + n - 1) / (2 * (n - 1)),
            Self::StrictAlignCorners => 0,
            Self::AlignCorners => size / 2,
            Self::OffsetCorners => ((2 * i + 1) * last.max(1) + n) / (2 * n),
        };
        (0..n).map(|i| Tap::pixel(pixel(i).min(last))).collect()
    }
}

/// A place on an axis: between pixel `low` and the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    pub(super) low: usize,
    /// How far it is to the next pixel; where it is 0, there need not be one.
    pub(super) part: f64,
}

impl Tap {
    /// At a pixel.
    pub(super) fn pixel(low: usize) -> Self {
        Self { low, part: 0.0 }
    }

    /// At a place that is not negative.
    pub(super) fn at(place: f64) -> Self {
        Self { low: place.floor() as usize, part: place - place.floor() }
    }
}
