//! Pictures of another size.

use super::MAX_PIXELS;
use mlconv_tensor::Tensor;
use std::str::FromStr;

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no size, wanted width and height in pixels, such as `224x224`");
        let (width, height) = text.split_once('x').ok_or_else(wrong)?;
        let one = |t: &str| t.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(wrong);
        let size = Self { width: one(width)?, height: one(height)? };
        match size.width.checked_mul(size.height) {
            Some(n) if n <= MAX_PIXELS => Ok(size),
            _ => Err(format!("`{text}` is more than the {MAX_PIXELS} pixels that a picture may have")),
        }
    }
}

/// A picture stretched to `size`, bilinearly: each pixel is the mean of those of the picture around its place, with weights
/// that fall off linearly with the distance, to zero at one pixel, or where the picture shrinks at one pixel of the result.
/// This is Pillow's `BILINEAR`, which rounds once more in between, and so may differ by 1.
pub fn resized(picture: &Tensor, size: Size) -> Tensor {
    let [height, width, rest @ ..] = picture.shape() else { return picture.clone() };
    let (height, width, channels) = (*height, *width, rest.first().copied().unwrap_or(1));
    if (width, height) == (size.width, size.height) {
        return picture.clone();
    }
    let pixels: Vec<f32> = picture.to_f32().into_owned();
    let (columns, rows) = (taps(width, size.width), taps(height, size.height));
    let mut wide = vec![0f32; height * size.width * channels];
    for (row, out) in pixels.chunks_exact(width * channels).zip(wide.chunks_exact_mut(size.width * channels)) {
        for (taps, pixel) in columns.iter().zip(out.chunks_exact_mut(channels)) {
            for (c, value) in pixel.iter_mut().enumerate() {
                *value = taps.of(|i| row[i * channels + c]);
            }
        }
    }
    let line = size.width * channels;
    let mut out = Vec::with_capacity(size.height * line);
    for taps in &rows {
        out.extend((0..line).map(|at| (taps.of(|i| wide[i * line + at]) + 0.5).clamp(0.0, 255.0) as u8));
    }
    let shape: Vec<usize> = [size.height, size.width].iter().chain(rest).copied().collect();
    Tensor::from_vec(&shape, out)
}

/// The pixels that one of the result is made of: from `first` on, with these weights, whose sum is 1.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

impl Taps {
    fn of(&self, pixel: impl Fn(usize) -> f32) -> f32 {
        self.weights.iter().enumerate().map(|(i, w)| w * pixel(self.first + i)).sum()
    }
}

fn taps(from: usize, to: usize) -> Vec<Taps> {
    let ratio = from as f64 / to as f64;
    let reach = ratio.max(1.0);
    let one = |i: usize| {
        let center = (i as f64 + 0.5) * ratio;
        let first = (center - reach + 0.5).max(0.0) as usize;
        let end = ((center + reach + 0.5) as usize).min(from);
        let weight = |at: usize| (1.0 - ((at as f64 + 0.5 - center) / reach).abs()).max(0.0);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        Taps { first, weights: weights.iter().map(|w| (w / sum) as f32).collect() }
    };
    (0..to).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_two_positive_numbers() {
        assert_eq!("640x480".parse(), Ok(Size { width: 640, height: 480 }));
        for bad in ["640", "0x1", "1x-1", "axb", "100000x100000", "99999999999999999999x1"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pixels_are_means_of_those_around_them() {
        let t = Tensor::from_vec(&[1, 4], vec![0u8, 100, 200, 40]);
        let to = |width, height| resized(&t, Size { width, height }).to_i64();
        assert_eq!(to(4, 2), [0, 100, 200, 40, 0, 100, 200, 40]);
        // By hand: with a reach of 2, pixels 0.5, 0.5 and 1.5 away have weights 0.75, 0.75 and 0.25.
        assert_eq!(to(2, 1), [71, 117]);
        assert_eq!(to(8, 1), [0, 25, 75, 125, 175, 160, 80, 40]);
    }
}
