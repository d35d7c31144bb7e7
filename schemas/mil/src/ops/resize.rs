//! Resizing images to another number of pixels.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{Dim, Shape, strides};
use smallvec::smallvec;

mod crop;
mod grid;
mod resample;

pub use crop::{BoxMode, Crop, CropResize, CropResizeRoi};
pub use grid::SamplingMode;
pub use resample::{Affine, CoordinatesMode, PaddingMode, Resample, ResampleMode};

use grid::Tap;

/// How values between pixels are found.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterpolationMode {
    /// On the line between the two pixels.
    #[name("LINEAR")]
    Linear,
    /// From the nearest pixel.
    #[name("NEAREST_NEIGHBOR")]
    NearestNeighbor,
}

/// Resizes height and width by factors, taking the pixel that each new one begins in.
///
/// Result: `T[*d, floor(h * factor), floor(w * factor)]`. Pixel `i` of `n` is that at `floor(i * size / n)`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "upsample_nearest_neighbor", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct UpsampleNearestNeighbor {
    /// `T[*d, h, w]`, of rank 3 or more.
    #[operand(T)]
    pub x: Value,
    /// Factor of the height, above 0.
    #[attr(default = 1.0)]
    pub scale_factor_height: f32,
    /// Factor of the width, above 0.
    #[attr(default = 1.0)]
    pub scale_factor_width: f32,
}

impl Semantics for UpsampleNearestNeighbor {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        scaled(cx, self.x, self.scale_factor_height, self.scale_factor_width)
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        resized(cx, self.x, 2, |size, count| (0..count).map(|i| Tap::pixel(i * size / count)).collect())
    }
}

/// Resizes height and width by factors, interpolating between pixels.
///
/// Result: `T[*d, floor(h * factor), floor(w * factor)]`. The factor that counts is that of the sizes. New pixel `i` of
/// `n` lies where [`SamplingMode::StrictAlignCorners`] says, if `align_corners`, else at
/// [`SamplingMode::UnalignCorners`], if `half_pixel_centers`, else at [`SamplingMode::Default`].
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "upsample_bilinear", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct UpsampleBilinear {
    /// `T[*d, h, w]`, of rank 3 or more.
    #[operand(T)]
    pub x: Value,
    /// Factor of the height, above 0.
    #[attr(default = 1.0)]
    pub scale_factor_height: f32,
    /// Factor of the width, above 0.
    #[attr(default = 1.0)]
    pub scale_factor_width: f32,
    /// Whether the corner pixels keep their places.
    #[attr(default = true)]
    pub align_corners: bool,
    /// Whether pixels have their value in their middle; not together with `align_corners`, and its contrary when absent.
    #[attr(since = Ios16, default = None)]
    pub half_pixel_centers: Option<bool>,
}

impl UpsampleBilinear {
    fn mode(&self) -> Result<SamplingMode, OpError> {
        match (self.align_corners, self.half_pixel_centers.unwrap_or(!self.align_corners)) {
            (true, false) => Ok(SamplingMode::StrictAlignCorners),
            (false, true) => Ok(SamplingMode::UnalignCorners),
            (false, false) => Ok(SamplingMode::Default),
            (true, true) => Err(OpError::value("half_pixel_centers", true, "false where `align_corners` is true")),
        }
    }
}

impl Semantics for UpsampleBilinear {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        self.mode()?;
        scaled(cx, self.x, self.scale_factor_height, self.scale_factor_width)
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let mode = self.mode()?;
        resized(cx, self.x, 2, |size, count| mode.linear(size, count))
    }
}

/// Resizes height and width to given sizes, interpolating between pixels.
///
/// Result: `T[*d, target_size_height, target_size_width]`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "resize_bilinear", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct ResizeBilinear {
    /// `T[*d, h, w]`, of rank 3 or more.
    #[operand(T)]
    pub x: Value,
    /// The new height.
    #[attr(default = 1)]
    pub target_size_height: i64,
    /// The new width.
    #[attr(default = 1)]
    pub target_size_width: i64,
    /// Where the new pixels lie.
    #[attr(default = SamplingMode::Default)]
    pub sampling_mode: SamplingMode,
}

impl Semantics for ResizeBilinear {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        with_size(cx, self.x, self.target_size_height.into(), self.target_size_width.into())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        resized(cx, self.x, 2, |size, count| self.sampling_mode.linear(size, count))
    }
}

/// Resizes height and width to given sizes, taking the pixel that the middle of each new one lies in.
///
/// Result: `T[*d, target_size_height, target_size_width]`. Pixel `i` of `n` is that at `floor((i + 0.5) * size / n)`.
/// Source: coremltools lowers TensorFlow's `ResizeNearestNeighbor` with half pixel centers to this.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "resize_nearest_neighbor", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct ResizeNearestNeighbor {
    /// `T[*d, h, w]`, of rank 3 or more.
    #[operand(T)]
    pub x: Value,
    /// The new height.
    #[attr]
    pub target_size_height: i64,
    /// The new width.
    #[attr]
    pub target_size_width: i64,
}

impl Semantics for ResizeNearestNeighbor {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        with_size(cx, self.x, self.target_size_height.into(), self.target_size_width.into())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        resized(cx, self.x, 2, |size, count| SamplingMode::UnalignCorners.nearest(size, count))
    }
}

/// Resizes the last `resized_dims` axes to the last sizes of `shape`, where they are not 0.
///
/// Result: of the shape of `x` with those sizes. Integers are truncated.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "resize", since = Ios17)]
#[domain(T: Ios17 = F16 | F32 | I32)]
#[domain(U: Ios17 = I16 | I32 | U16 | U32)]
pub struct Resize {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// `U[k]`, at most as many as `x` has axes: the new sizes; 0 leaves a size as it is.
    #[operand(U)]
    pub shape: Value,
    /// How many axes are resized, at most `k`.
    #[attr(dtype = U32)]
    pub resized_dims: i64,
    /// How values between pixels are found.
    #[attr(default = InterpolationMode::Linear)]
    pub interpolation_mode: InterpolationMode,
    /// Where the new pixels lie.
    #[attr(default = SamplingMode::Default)]
    pub sampling_mode: SamplingMode,
}

impl Semantics for Resize {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let given = cx.ranked("shape", self.shape, 1..=1)?.shape[0].as_usize();
        let rank = x.shape.rank();
        let Some(given) = given.filter(|n| *n <= rank) else {
            return Err(cx.operand("shape", self.shape, format!("at most {rank} sizes")));
        };
        let Some(resized) = usize::try_from(self.resized_dims).ok().filter(|n| *n <= given) else {
            return Err(OpError::value("resized_dims", self.resized_dims, format!("in 0..={given}")));
        };
        let mut shape = x.shape.clone();
        for (i, dim) in shape.dims_mut()[rank - resized..].iter_mut().enumerate() {
            match cx.ints(self.shape).and_then(|ints| ints.get(given - resized + i)) {
                Some(size) if size.is(0) => {}
                Some(size) => *dim = size.clone(),
                None => *dim = cx.unknown(i),
            }
        }
        cx.result(x.dtype, shape)
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        resized(cx, self.x, self.resized_dims as usize, |size, count| match self.interpolation_mode {
            InterpolationMode::Linear => self.sampling_mode.linear(size, count),
            InterpolationMode::NearestNeighbor => self.sampling_mode.nearest(size, count),
        })
    }
}

/// The type of `x` with its last two sizes multiplied.
fn scaled(cx: &InferCx<'_>, x: Value, height: f32, width: f32) -> Result<Facts, OpError> {
    let ty = cx.ranked("x", x, 3..)?;
    let scale = |param, back: usize, factor: f32| {
        if !(factor > 0.0 && factor < 65536.0) {
            return Err(OpError::value(param, factor, "above 0"));
        }
        let size = &ty.shape[ty.shape.rank() - back];
        // A product in 32 bits, as coremltools has it: 10 * 0.7 is 7 there, though 0.7 is a little less in 32 bits.
        Ok(match size.as_known() {
            Some(n) => Dim::from((n as f32 * factor).floor() as i64),
            // Such a factor multiplies sizes without rounding.
            None if (factor * 256.0).fract() == 0.0 => (size * ((factor * 256.0) as i64)).div_floor(&256.into()),
            None => cx.unknown(back),
        })
    };
    let (h, w) = (scale("scale_factor_height", 2, height)?, scale("scale_factor_width", 1, width)?);
    with_size(cx, x, h, w)
}

/// The type of `x` with its last two sizes replaced.
fn with_size(cx: &InferCx<'_>, x: Value, height: Dim, width: Dim) -> Result<Facts, OpError> {
    let x = cx.ranked("x", x, 3..)?;
    cx.result(x.dtype, [&x.shape[..x.shape.rank() - 2], &[height, width]].concat())
}

/// Resizes the last `axes` axes of `x` to the sizes of the result; `grid` gives the places of some pixels on an axis of
/// some size.
fn resized(
    cx: &EvalCx<'_>,
    x: Value,
    axes: usize,
    grid: impl Fn(usize, usize) -> Vec<Tap>,
) -> Result<Tensors, OpError> {
    let (out, shape) = (cx.out(0), cx.shape(x));
    if out.count() == 0 {
        return Ok(smallvec![out.of(&[])]);
    }
    let first = shape.len() - axes;
    if let Some(axis) = shape.iter().position(|n| *n == 0) {
        return Err(OpError::value("x", Shape::from(shape), format!("some pixels along axis {axis}")));
    }
    let grids: Vec<Vec<Tap>> = (first..shape.len()).map(|axis| grid(shape[axis], out.shape[axis])).collect();
    let (values, steps) = (cx.f64(x), strides(shape));
    let mut y = Vec::with_capacity(out.count());
    out.each_index(|index| {
        let start = index[..first].iter().zip(&steps).map(|(i, s)| i * s).sum();
        let taps: smallvec::SmallVec<[(Tap, usize); 4]> =
            grids.iter().zip(&index[first..]).zip(&steps[first..]).map(|((g, i), s)| (g[*i], *s)).collect();
        y.push(blend(&taps, start, &|at| values[at]));
    });
    Ok(smallvec![out.of(&y)])
}

/// The value between the pixels at `start` plus those that `taps`, each with the step of its axis, name.
fn blend(taps: &[(Tap, usize)], start: usize, value: &impl Fn(usize) -> f64) -> f64 {
    let [(tap, step), rest @ ..] = taps else { return value(start) };
    let low = blend(rest, start + tap.low * step, value);
    if tap.part == 0.0 {
        return low;
    }
    let high = blend(rest, start + (tap.low + 1) * step, value);
    low * (1.0 - tap.part) + high * tap.part
}
