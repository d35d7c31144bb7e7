//! Cutting images, with and without resizing the pieces.

use super::{SamplingMode, Tap, blend};
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{DType, Dim, Tensor, strides};
use smallvec::smallvec;

/// Cuts rows and columns off the borders.
///
/// Result: `T[*d, h - top - bottom, w - left - right]`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "crop", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct Crop {
    /// `T[*d, h, w]`, of rank 3 or more.
    #[operand(T)]
    pub x: Value,
    /// How many rows go at the top and at the bottom.
    #[attr]
    pub crop_height: Ints,
    /// How many columns go on the left and on the right.
    #[attr]
    pub crop_width: Ints,
}

impl Semantics for Crop {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 3..)?;
        let lead = x.shape.rank() - 2;
        let cut = |param, i: usize, amounts: &[i64]| match amounts {
            [a, b] if [a, b].iter().all(|n| (0..1 << 31).contains(*n)) => Ok(&x.shape[lead + i] - (a + b)),
            _ => Err(OpError::value(param, format!("{amounts:?}"), "2 integers of at least 0")),
        };
        let (h, w) = (cut("crop_height", 0, &self.crop_height)?, cut("crop_width", 1, &self.crop_width)?);
        cx.result(x.dtype, [&x.shape[..lead], &[h, w]].concat())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, steps) = (cx.tensor(self.x), strides(cx.shape(self.x)));
        let lead = x.shape().len() - 2;
        let [top, left] = [self.crop_height[0] as usize, self.crop_width[0] as usize];
        let y = cx.out(0).gathered(x, |index| {
            let place: usize = index.iter().zip(&steps).map(|(i, s)| i * s).sum();
            place + top * steps[lead] + left
        });
        Ok(smallvec![y])
    }
}

/// What the four numbers of a box are.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxMode {
    /// `[h_start, w_start, h_end, w_end]`.
    #[name("CORNERS_HEIGHT_FIRST")]
    CornersHeightFirst,
    /// `[w_start, h_start, w_end, h_end]`.
    #[name("CORNERS_WIDTH_FIRST")]
    CornersWidthFirst,
    /// `[h_center, w_center, height, width]`.
    #[name("CENTER_SIZE_HEIGHT_FIRST")]
    CenterSizeHeightFirst,
    /// `[w_center, h_center, width, height]`.
    #[name("CENTER_SIZE_WIDTH_FIRST")]
    CenterSizeWidthFirst,
}

impl BoxMode {
    /// Start and end along height and width.
    fn corners(self, [a, b, c, d]: [f64; 4]) -> [(f64, f64); 2] {
        match self {
            Self::CornersHeightFirst => [(a, c), (b, d)],
            Self::CornersWidthFirst => [(b, d), (a, c)],
            Self::CenterSizeHeightFirst => [(a - c / 2.0, a + c / 2.0), (b - d / 2.0, b + d / 2.0)],
            Self::CenterSizeWidthFirst => [(b - d / 2.0, b + d / 2.0), (a - c / 2.0, a + c / 2.0)],
        }
    }
}

/// Cuts boxes out of images and resizes each to one size, interpolating between pixels.
///
/// A box of `start` and `end`, both included, is sampled like an axis of `end - start + 1` pixels; places outside of the
/// image take `pad_value`. A box may run backwards. Result: `T[n, c, target_height, target_width]`.
///
/// This is the form since iOS17; see [`CropResizeRoi`] for the one before.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "crop_resize", since = Ios17)]
#[domain(T: Ios17 = F16 | F32)]
#[domain(BoxT: Ios17 = F16 | F32 | U16)]
#[domain(BoxIndexT: Ios17 = I32 | U16)]
pub struct CropResize {
    /// `T[b, c, h, w]`: the images.
    #[operand(T)]
    pub x: Value,
    /// `BoxT[n, 4]`: the boxes.
    #[operand(BoxT)]
    pub boxes: Value,
    /// `BoxIndexT[n]`: the image that each box is cut from; `0..n` when absent.
    #[operand(BoxIndexT)]
    pub box_indices: Option<Value>,
    /// The height of each piece.
    #[attr(default = 1)]
    pub target_height: i64,
    /// The width of each piece.
    #[attr(default = 1)]
    pub target_width: i64,
    /// Whether coordinates go from 0 to 1, else to `h - 1` and `w - 1`.
    #[attr(default = false)]
    pub normalized_coordinates: bool,
    /// Factor of all coordinates.
    #[attr(default = 1.0)]
    pub spatial_scale: f32,
    /// What the numbers of a box are.
    #[attr(default = BoxMode::CornersHeightFirst)]
    pub box_coordinate_mode: BoxMode,
    /// Where the new pixels lie in a box.
    #[attr(default = SamplingMode::Default)]
    pub sampling_mode: SamplingMode,
    /// The value of places outside of the image.
    #[attr(T, default = 0.0)]
    pub pad_value: f32,
}

impl Semantics for CropResize {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 4..=4)?;
        let boxes = cx.ranked("boxes", self.boxes, 2..=2)?;
        let n = &boxes.shape[0];
        if !boxes.shape[1].may_equal(&4.into()) {
            return Err(cx.operand("boxes", self.boxes, "4 numbers for each box"));
        }
        if self.normalized_coordinates && !boxes.dtype.is_float() {
            return Err(cx.operand("boxes", self.boxes, "floats, as `normalized_coordinates` holds"));
        }
        match self.box_indices {
            Some(v) if !cx.tensor("box_indices", v)?.shape.may_equal(&[n.clone()].into()) => {
                return Err(cx.operand("box_indices", v, format!("one index for each of {n} boxes")));
            }
            None if n.as_known().zip(x.shape[0].as_known()).is_some_and(|(n, b)| n > b) => {
                let want = format!("at most {} boxes, one for each image, as `box_indices` is missing", x.shape[0]);
                return Err(cx.operand("boxes", self.boxes, want));
            }
            Some(_) | None => {}
        }
        let [h, w] = [self.target_height, self.target_width].map(Dim::from);
        cx.result(x.dtype, [n.clone(), x.shape[1].clone(), h, w])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        if cx.out(0).count() == 0 {
            return Ok(smallvec![cx.out(0).of(&[])]);
        }
        let count = cx.shape(self.boxes)[0];
        let images = match self.box_indices {
            Some(v) => cx.i64(v),
            None => (0..count as i64).collect(),
        };
        let boxes = cx.f64(self.boxes);
        let crops = Crops {
            target: [self.target_height, self.target_width].map(|n| n as usize),
            normalized: self.normalized_coordinates,
            scale: self.spatial_scale,
            boxes: self.box_coordinate_mode,
            mode: self.sampling_mode,
            pad: self.pad_value,
        };
        let mut y = Vec::with_capacity(cx.out(0).count());
        let x = cx.f64(self.x);
        for (numbers, image) in boxes.as_chunks::<4>().0.iter().zip(images) {
            crops.cut(&x, cx.shape(self.x), image, "box_indices", *numbers, &mut y)?;
        }
        Ok(smallvec![cx.out(0).of(&y)])
    }

    fn default_operands(&self, cx: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        let count = |t: &mlconv_tensor::TensorType| t.shape.first()?.as_known().filter(|n| (0..1 << 16).contains(n));
        match cx.fact(self.boxes).ty.tensor().and_then(count) {
            Some(n) if self.box_indices.is_none() => {
                vec![("box_indices", Tensor::from_i64(DType::I32, &[n as usize], &(0..n).collect::<Vec<_>>()))]
            }
            Some(_) | None => vec![],
        }
    }
}

/// Cuts boxes out of images and resizes each to one size, as [`CropResize`] does; the form before iOS17.
///
/// Result: `T[n, b, c, target_height, target_width]`, each box being cut from all images, or
/// `T[n, 1, c, target_height, target_width]`, where boxes name their image.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "crop_resize", since = Ios15, until = Ios17)]
#[domain(T: Ios15 = F16 | F32)]
pub struct CropResizeRoi {
    /// `T[b, c, h, w]`: the images.
    #[operand(T)]
    pub x: Value,
    /// `T[n, 1, 4, 1, 1]`: the boxes; or `T[n, 1, 5, 1, 1]`: the number of an image, and a box in it.
    #[operand(T)]
    pub roi: Value,
    /// The height of each piece.
    #[attr(default = 1)]
    pub target_height: i64,
    /// The width of each piece.
    #[attr(default = 1)]
    pub target_width: i64,
    /// Whether coordinates go from 0 to 1, else to `h - 1` and `w - 1`.
    #[attr(default = false)]
    pub normalized_coordinates: bool,
    /// Factor of all coordinates.
    #[attr(default = 1.0)]
    pub spatial_scale: f32,
    /// What the numbers of a box are.
    #[attr(default = BoxMode::CornersHeightFirst)]
    pub box_coordinate_mode: BoxMode,
    /// Where the new pixels lie in a box.
    #[attr(default = SamplingMode::Default)]
    pub sampling_mode: SamplingMode,
    /// The value of places outside of the image.
    #[attr(T, since = Ios16, default = 0.0)]
    pub pad_value: f32,
}

impl Semantics for CropResizeRoi {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 4..=4)?;
        let roi = cx.ranked("roi", self.roi, 5..=5)?;
        let images = match roi.shape[2].as_known() {
            Some(4) => x.shape[0].clone(),
            Some(5) => Dim::from(1),
            Some(_) | None => return Err(cx.operand("roi", self.roi, "[n, 1, 4, 1, 1] or [n, 1, 5, 1, 1]")),
        };
        if [1, 3, 4].iter().any(|i| !roi.shape[*i].may_equal(&1.into())) {
            return Err(cx.operand("roi", self.roi, "[n, 1, 4, 1, 1] or [n, 1, 5, 1, 1]"));
        }
        let [h, w] = [self.target_height, self.target_width].map(Dim::from);
        cx.result(x.dtype, [roi.shape[0].clone(), images, x.shape[1].clone(), h, w])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        if cx.out(0).count() == 0 {
            return Ok(smallvec![cx.out(0).of(&[])]);
        }
        let (x, roi) = (cx.f64(self.x), cx.f64(self.roi));
        let (shape, row) = (cx.shape(self.x), cx.shape(self.roi)[2]);
        let crops = Crops {
            target: [self.target_height, self.target_width].map(|n| n as usize),
            normalized: self.normalized_coordinates,
            scale: self.spatial_scale,
            boxes: self.box_coordinate_mode,
            mode: self.sampling_mode,
            pad: self.pad_value,
        };
        let mut y = Vec::with_capacity(cx.out(0).count());
        for numbers in roi.chunks_exact(row) {
            let (images, numbers) = match *numbers {
                [image, a, b, c, d] => (vec![image as i64], [a, b, c, d]),
                [a, b, c, d] => ((0..shape[0] as i64).collect(), [a, b, c, d]),
                _ => return Err(OpError::value("roi", row, "4 or 5 numbers for each box")),
            };
            for image in images {
                crops.cut(&x, shape, image, "roi", numbers, &mut y)?;
            }
        }
        Ok(smallvec![cx.out(0).of(&y)])
    }
}

/// How boxes are cut and resized.
struct Crops {
    target: [usize; 2],
    normalized: bool,
    scale: f32,
    boxes: BoxMode,
    mode: SamplingMode,
    pad: f32,
}

impl Crops {
    /// Appends the box `numbers` of an image, all channels, to `y`. `param` is where the image's number comes from.
    fn cut(
        &self,
        x: &[f64],
        shape: &[usize],
        image: i64,
        param: &'static str,
        numbers: [f64; 4],
        y: &mut Vec<f64>,
    ) -> Result<(), OpError> {
        let Some(image) = usize::try_from(image).ok().filter(|i| *i < shape[0]) else {
            return Err(OpError::value(param, image, format!("an image in 0..{}", shape[0])));
        };
        let [rows, columns] = [0, 1].map(|axis| {
            let last = shape[axis + 2] as f64 - 1.0;
            let unit = f64::from(self.scale) * if self.normalized { last } else { 1.0 };
            let (start, end) = self.boxes.corners(numbers)[axis];
            let place = |i| self.mode.place(i, self.target[axis], start * unit, end * unit);
            let inside = |p: f64| (0.0..=last).contains(&p).then(|| Tap::at(p));
            (0..self.target[axis]).map(|i| inside(place(i))).collect::<Vec<_>>()
        });
        let width = shape[3];
        for c in 0..shape[1] {
            let start = (image * shape[1] + c) * shape[2] * width;
            for row in &rows {
                y.extend(columns.iter().map(|column| match (row, column) {
                    (Some(r), Some(c)) => blend(&[(*r, width), (*c, 1)], start, &|at| x[at]),
                    _ => f64::from(self.pad),
                }));
            }
        }
        Ok(())
    }
}
