//! Reading images at given places.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{Dim, Shape};
use smallvec::smallvec;

/// How values between pixels are found.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResampleMode {
    /// From the four pixels around.
    #[name("bilinear")]
    Bilinear,
    /// From the nearest pixel; halves are rounded to even.
    #[name("nearest")]
    Nearest,
}

/// What there is outside of an image; `1 2 3` stands for an axis of it.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaddingMode {
    /// One value.
    #[name("constant")]
    Constant,
    /// The nearest pixel: `1 1 1 | 1 2 3 | 3 3 3`.
    #[name("border")]
    Border,
    /// The image mirrored at its border pixels: `2 3 2 | 1 2 3 | 2 1 2`.
    #[name("reflection")]
    Reflection,
    /// The image mirrored behind its border pixels: `3 2 1 | 1 2 3 | 3 2 1`.
    #[name("symmetric")]
    Symmetric,
}

impl PaddingMode {
    /// The place inside of an axis of `size` pixels that `at` stands for.
    fn inside(self, at: f64, size: usize) -> f64 {
        let last = size as f64 - 1.0;
        let at = match self {
            Self::Constant => return at,
            Self::Border => at,
            Self::Reflection if size == 1 => 0.0,
            Self::Reflection => last - (at.rem_euclid(2.0 * last) - last).abs(),
            Self::Symmetric => size as f64 - ((at + 0.5).rem_euclid(2.0 * size as f64) - size as f64).abs() - 0.5,
        };
        at.min(last).max(0.0)
    }
}

/// What coordinates mean, `x` along the width and `y` along the height.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordinatesMode {
    /// Pixels: from 0 to `size - 1`.
    #[name("unnormalized")]
    Unnormalized,
    /// From -1 to 1.
    #[name("normalized_minus_one_to_one")]
    MinusOneToOne,
    /// From 0 to 1.
    #[name("normalized_zero_to_one")]
    ZeroToOne,
}

impl CoordinatesMode {
    /// The place among `size` pixels that the coordinate `at` means.
    fn pixel(self, at: f64, size: usize, align_corners: bool) -> f64 {
        let part = match self {
            Self::Unnormalized => return at,
            Self::MinusOneToOne => 0.5 * at + 0.5,
            Self::ZeroToOne => at,
        };
        if align_corners { part * (size as f64 - 1.0) } else { part * size as f64 - 0.5 }
    }
}

/// Reads images at given places.
///
/// Result: `T[b, c, h2, w2]`, `y[b, c, h, w]` being the value of `x[b, c]` at `coordinates[b, h, w]`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "resample", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(U: Ios15 = F32 | I32, Ios16 = F16, Ios17 = I8 | I16 | U8 | U16)]
pub struct Resample {
    /// `T[b, c, h1, w1]`.
    #[operand(T)]
    pub x: Value,
    /// `U[b, h2, w2, 2]`: the places as `(x, y)`, that is, first along the width.
    #[operand(U)]
    pub coordinates: Value,
    /// How values between pixels are found.
    #[attr]
    pub sampling_mode: ResampleMode,
    /// What there is outside of the image.
    #[attr]
    pub padding_mode: PaddingMode,
    /// The value of all pixels outside; read only where `padding_mode` is `constant`.
    #[attr(T)]
    pub padding_value: f32,
    /// What the coordinates mean.
    #[attr]
    pub coordinates_mode: CoordinatesMode,
    /// Whether the extreme coordinates are the centers of the border pixels, else their outer edges; not read where
    /// coordinates are not normalized.
    #[attr]
    pub align_corners: bool,
}

impl Semantics for Resample {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 4..=4)?;
        let places = cx.ranked("coordinates", self.coordinates, 4..=4)?;
        if !places.shape[0].may_equal(&x.shape[0]) || !places.shape[3].may_equal(&2.into()) {
            return Err(cx.operand("coordinates", self.coordinates, format!("[{}, h, w, 2]", x.shape[0])));
        }
        let [h, w] = [1, 2].map(|i| places.shape[i].clone());
        cx.result(x.dtype, [x.shape[0].clone(), x.shape[1].clone(), h, w])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let reader = Reader {
            mode: self.sampling_mode,
            padding: self.padding_mode,
            value: f64::from(self.padding_value),
            coordinates: self.coordinates_mode,
            align_corners: self.align_corners,
        };
        let places = cx.f64(self.coordinates);
        reader.read(cx, self.x, |b, h, w| {
            let [_, height, width, _] = *cx.shape(self.coordinates) else { return (0.0, 0.0) };
            let at = ((b * height + h) * width + w) * 2;
            (places[at], places[at + 1])
        })
    }
}

/// Reads images through a linear map of their coordinates, both from -1 to 1.
///
/// Result: `T[b, c, output_height, output_width]`. The pixel at `(x, y)` of the result is the value of the image at
/// `(a0 * x + a1 * y + a2, b0 * x + b1 * y + b2)`; outside of it is zero. An axis of one pixel is at 0.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "affine", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct Affine {
    /// `T[b, c, h, w]`.
    #[operand(T)]
    pub x: Value,
    /// `T[b, 6]` or `T[1, 6]`: `[a0, a1, a2, b0, b1, b2]` for each image, or for all.
    #[operand(T)]
    pub transform_matrix: Value,
    /// The height of the result.
    #[attr]
    pub output_height: i64,
    /// The width of the result.
    #[attr]
    pub output_width: i64,
    /// How values between pixels are found; must be `bilinear`.
    #[attr]
    pub sampling_mode: ResampleMode,
    /// What there is outside of the image; must be `constant`.
    #[attr]
    pub padding_mode: PaddingMode,
    /// The value of all pixels outside; must be 0.
    #[attr(T)]
    pub padding_value: f32,
    /// What coordinates mean; must be `normalized_minus_one_to_one`.
    #[attr]
    pub coordinates_mode: CoordinatesMode,
    /// Whether -1 and 1 are the centers of the border pixels, else their outer edges. Core ML documents `true` only.
    #[attr]
    pub align_corners: bool,
}

impl Semantics for Affine {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 4..=4)?;
        let matrix = cx.ranked("transform_matrix", self.transform_matrix, 2..=2)?;
        let rows = &matrix.shape[0];
        if !(rows.is(1) || rows.may_equal(&x.shape[0])) || !matrix.shape[1].may_equal(&6.into()) {
            let want = format!("[{}, 6] or [1, 6]", x.shape[0]);
            return Err(cx.operand("transform_matrix", self.transform_matrix, want));
        }
        let supported = [
            ("sampling_mode", self.sampling_mode == ResampleMode::Bilinear, "`bilinear`"),
            ("padding_mode", self.padding_mode == PaddingMode::Constant, "`constant`"),
            ("padding_value", self.padding_value == 0.0, "0"),
            (
                "coordinates_mode",
                self.coordinates_mode == CoordinatesMode::MinusOneToOne,
                "`normalized_minus_one_to_one`",
            ),
        ];
        if let Some((param, _, want)) = supported.into_iter().find(|(_, ok, _)| !ok) {
            return Err(OpError::value(param, "another", want));
        }
        let [h, w] = [self.output_height, self.output_width].map(Dim::from);
        cx.result(x.dtype, [x.shape[0].clone(), x.shape[1].clone(), h, w])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let reader = Reader {
            mode: self.sampling_mode,
            padding: self.padding_mode,
            value: f64::from(self.padding_value),
            coordinates: self.coordinates_mode,
            align_corners: self.align_corners,
        };
        let matrix = cx.f64(self.transform_matrix);
        let rows = matrix.as_chunks::<6>().0;
        let [height, width] = [2, 3].map(|axis| cx.out(0).shape[axis]);
        let coordinate = |i: usize, n: usize| match (self.align_corners, n) {
            (true, 1) => 0.0,
            (true, _) => 2.0 * i as f64 / (n as f64 - 1.0) - 1.0,
            (false, _) => (2.0 * i as f64 + 1.0) / n as f64 - 1.0,
        };
        reader.read(cx, self.x, |b, h, w| {
            let [a0, a1, a2, b0, b1, b2] = rows[b % rows.len()];
            let (x, y) = (coordinate(w, width), coordinate(h, height));
            (a0 * x + a1 * y + a2, b0 * x + b1 * y + b2)
        })
    }
}

/// How images are read at coordinates.
struct Reader {
    mode: ResampleMode,
    padding: PaddingMode,
    value: f64,
    coordinates: CoordinatesMode,
    align_corners: bool,
}

impl Reader {
    /// The result of which each pixel is `x` at `(x, y) = place(image, row, column)`.
    fn read(
        &self,
        cx: &EvalCx<'_>,
        x: Value,
        place: impl Fn(usize, usize, usize) -> (f64, f64),
    ) -> Result<Tensors, OpError> {
        let (out, shape) = (cx.out(0), cx.shape(x));
        if out.count() == 0 {
            return Ok(smallvec![out.of(&[])]);
        }
        let (height, width) = (shape[2], shape[3]);
        if height == 0 || width == 0 {
            return Err(OpError::value("x", Shape::from(shape), "images of at least one pixel"));
        }
        let x = cx.f64(x);
        let mut y = Vec::with_capacity(out.count());
        out.each_index(|index| {
            let image = &x[(index[0] * shape[1] + index[1]) * height * width..][..height * width];
            let (w, h) = place(index[0], index[2], index[3]);
            let [w, h] = [(w, width), (h, height)]
                .map(|(at, size)| self.padding.inside(self.coordinates.pixel(at, size, self.align_corners), size));
            let pixel = |h: f64, w: f64| {
                let inside = (0.0..height as f64).contains(&h) && (0.0..width as f64).contains(&w);
                if inside { image[h as usize * width + w as usize] } else { self.value }
            };
            y.push(match self.mode {
                ResampleMode::Nearest => pixel(h.round_ties_even(), w.round_ties_even()),
                ResampleMode::Bilinear => bilinear(h, w, pixel),
            });
        });
        Ok(smallvec![out.of(&y)])
    }
}

fn bilinear(h: f64, w: f64, pixel: impl Fn(f64, f64) -> f64) -> f64 {
    // An infinite place is far outside.
    let split = |at: f64| if at.is_finite() { (at.floor(), at - at.floor()) } else { (at, 0.0) };
    let ((top, down), (left, right)) = (split(h), split(w));
    let along = |from: f64, to: f64, part: f64| if part == 0.0 { from } else { from * (1.0 - part) + to * part };
    let row = |h: f64| along(pixel(h, left), pixel(h, left + 1.0), right);
    along(row(top), row(top + 1.0), down)
}
