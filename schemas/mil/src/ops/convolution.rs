//! Convolutions.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{Dim, Shape, TensorType};
use smallvec::smallvec;

mod window;
pub(crate) use window::Window;
pub use window::{Places, Run};

/// How windows meet the borders of the input.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadType {
    /// No padding: windows stay inside.
    #[name("valid")]
    Valid,
    /// `ceil(size / stride)` windows; where the padding is odd, the end has one more.
    #[name("same")]
    Same,
    /// As `same`; where the padding is odd, the beginning has one more. Since iOS16.
    #[name("same_lower")]
    SameLower,
    /// As `pad` says.
    #[name("custom")]
    Custom,
}

/// Convolves `x` with `weight`, in 1, 2 or 3 spatial dimensions.
///
/// Result: `T[n, c_out, *d_out]`, where `d_out = floor((d_in + before + after - dilation * (k - 1) - 1) / stride) + 1`
/// and `before`, `after` follow from `pad_type`. Core ML wants a constant `weight` where `dilations` are not 1.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "conv", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(W: Ios15 = T, Ios17 = F16 | F32)]
pub struct Conv {
    /// `T[n, c_in, *d_in]`, 1 to 3 spatial dimensions.
    #[operand(T)]
    pub x: Value,
    /// `W[c_out, c_in/groups, *k]`.
    #[operand(W)]
    pub weight: Value,
    /// `W[c_out]`; zero when absent.
    #[operand(W, constant(..Ios17))]
    pub bias: Option<Value>,
    /// Step per spatial dimension, at least 1.
    #[attr(default_with = |cx| cx.per_spatial_dim(1))]
    pub strides: Ints,
    /// How windows meet the borders.
    #[attr(default = PadType::Valid)]
    pub pad_type: PadType,
    /// Padding before and after, per spatial dimension; read only where `pad_type` is `custom`.
    #[attr(default_with = |cx| [cx.per_spatial_dim(0), cx.per_spatial_dim(0)].concat())]
    pub pad: Ints,
    /// Distance between elements of a window, per spatial dimension, at least 1.
    #[attr(default_with = |cx| cx.per_spatial_dim(1))]
    pub dilations: Ints,
    /// Groups of channels convolved apart.
    #[attr(default = 1)]
    pub groups: i64,
}

impl Conv {
    fn window(&self) -> Window<'_> {
        let Self { strides, pad_type, pad, dilations, .. } = self;
        Window { strides, pad_type: *pad_type, pad, dilations, ceil: false }
    }

    /// The windows of a run, of the shapes of `x`, `weight` and the result.
    pub fn places(&self, x: &[usize], weight: &[usize], result: &[usize]) -> Places {
        self.window().places(&x[2..], &weight[2..], &result[2..])
    }
}

impl Semantics for Conv {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 3..=5)?;
        let w = same_rank(cx, x, self.weight)?;
        self.window().check(cx.opset, x.shape.rank() - 2)?;
        let groups = check_groups(self.groups)?;
        if !x.shape[1].may_equal(&(&w.shape[1] * groups)) || !divides(groups, &w.shape[0]) {
            let want = format!("[c_out, c_in / groups, ..] for {} channels in {groups} groups", x.shape[1]);
            return Err(cx.operand("weight", self.weight, want));
        }
        check_bias(cx, self.bias, &w.shape[0])?;
        let spatial = self.window().counts(&x.shape[2..], &w.shape[2..])?;
        cx.result(x.dtype, [&[x.shape[0].clone(), w.shape[0].clone()], spatial.as_slice()].concat())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let out = cx.out(0);
        let (x_shape, w_shape) = (cx.shape(self.x), cx.shape(self.weight));
        let (c_in, c_out, per_group) = (x_shape[1], w_shape[0], w_shape[1]);
        let mut y = channel_bias(cx, self.bias, &out.shape);
        if y.is_empty() {
            return Ok(smallvec![out.of(&y)]);
        }
        let places = self.places(x_shape, w_shape, &out.shape);
        let (x, w) = (cx.f64(self.x), cx.f64(self.weight));
        let (image, taps) = (places.image(), places.taps());
        for (plane, y) in y.chunks_exact_mut(places.windows()).enumerate() {
            let (n, co) = (plane / c_out, plane % c_out);
            let first = n * c_in + co / (c_out / self.groups as usize) * per_group;
            for ci in 0..per_group {
                let source = &x[(first + ci) * image..][..image];
                let factors = &w[(co * per_group + ci) * taps..][..taps];
                places.each_run(|run| {
                    let sum = &mut y[run.windows];
                    let read = source[run.image..].iter().step_by(places.step());
                    sum.iter_mut().zip(read).for_each(|(y, x)| *y += factors[run.tap] * x);
                });
            }
        }
        Ok(smallvec![out.of(&y)])
    }

    fn macs(&self, cx: &InferCx<'_>, result: &Shape) -> Option<Dim> {
        Some(result.count() * taps(cx.shape(self.weight)?))
    }
}

/// Spreads each element of `x` over the places from which [`Conv`] would have read it: the gradient of a convolution.
///
/// Result: `T[n, c_out, *d_out]`, where `d_out` is that of `output_shape`, where it is given; else, with
/// `full = (d_in - 1) * stride + dilation * (k - 1) + 1`, it is `full` for `valid`, `full - before - after` for
/// `custom`, `d_in * stride` for `same`. The result starts `before` places into the full one; for `same`, `before` is
/// `floor(max(0, full - d_out) / 2)`. Places that nothing is spread to are zero.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "conv_transpose", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(W: Ios15 = T, Ios17 = F16 | F32)]
pub struct ConvTranspose {
    /// `T[n, c_in, *d_in]`, 1 to 3 spatial dimensions.
    #[operand(T)]
    pub x: Value,
    /// `W[c_in, c_out/groups, *k]`.
    #[operand(W, constant(..Ios17))]
    pub weight: Value,
    /// `W[c_out]`; zero when absent.
    #[operand(W, constant(..Ios17))]
    pub bias: Option<Value>,
    /// What is cut off before and after, per spatial dimension; read only where `pad_type` is `custom`.
    #[attr(default_with = |cx| [cx.per_spatial_dim(0), cx.per_spatial_dim(0)].concat())]
    pub pad: Ints,
    /// The shape of the result, batch and channels included, as strides leave it open.
    #[attr(default = None)]
    pub output_shape: Option<Ints>,
    /// How windows meet the borders of the result; never `same_lower`.
    #[attr(default = PadType::Valid)]
    pub pad_type: PadType,
    /// Step per spatial dimension, at least 1.
    #[attr(default_with = |cx| cx.per_spatial_dim(1))]
    pub strides: Ints,
    /// Distance between elements of a window, per spatial dimension, at least 1.
    #[attr(default_with = |cx| cx.per_spatial_dim(1))]
    pub dilations: Ints,
    /// Groups of channels convolved apart.
    #[attr(default = 1)]
    pub groups: i64,
}

impl ConvTranspose {
    fn window(&self) -> Window<'_> {
        let Self { strides, pad_type, pad, dilations, .. } = self;
        Window { strides, pad_type: *pad_type, pad, dilations, ceil: false }
    }

    /// The windows of the convolution that would read what a run writes, of the shapes of `x`, `weight` and the result.
    pub fn places(&self, x: &[usize], weight: &[usize], result: &[usize]) -> Places {
        self.window().places(&result[2..], &weight[2..], &x[2..])
    }

    /// The size of the result along spatial dimension `i`.
    fn size(&self, i: usize, size: &Dim, kernel: &Dim) -> Dim {
        let stride = Dim::from(self.strides[i]);
        let full = (size - 1) * &stride + (kernel - 1) * self.dilations[i] + 1;
        match self.pad_type {
            PadType::Same | PadType::SameLower => size * stride,
            PadType::Valid => full,
            PadType::Custom => full - (self.pad[2 * i] + self.pad[2 * i + 1]),
        }
    }
}

impl Semantics for ConvTranspose {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 3..=5)?;
        let w = same_rank(cx, x, self.weight)?;
        let spatial = x.shape.rank() - 2;
        self.window().check(cx.opset, spatial)?;
        if self.pad_type == PadType::SameLower {
            return Err(OpError::value("pad_type", "same_lower", "`valid`, `same` or `custom`"));
        }
        let groups = check_groups(self.groups)?;
        if !x.shape[1].may_equal(&w.shape[0]) || !divides(groups, &w.shape[0]) {
            let want = format!("[c_in, c_out / groups, ..] for {} channels in {groups} groups", x.shape[1]);
            return Err(cx.operand("weight", self.weight, want));
        }
        let c_out = &w.shape[1] * groups;
        check_bias(cx, self.bias, &c_out)?;
        let lead = [x.shape[0].clone(), c_out];
        let shape = match &self.output_shape {
            None => {
                let sizes = (0..spatial).map(|i| self.size(i, &x.shape[i + 2], &w.shape[i + 2]));
                [&lead[..], &sizes.collect::<Vec<_>>()].concat()
            }
            Some(given) => {
                let given: Vec<Dim> = given.iter().map(|n| Dim::from(*n)).collect();
                if given.len() != spatial + 2 || lead.iter().zip(&given).any(|(a, b)| !a.may_equal(b)) {
                    let want = format!("[{}, {}] and {spatial} sizes", lead[0], lead[1]);
                    return Err(OpError::value("output_shape", format!("{given:?}"), want));
                }
                given
            }
        };
        match shape[2..].iter().position(|d| d.as_known().is_some_and(|n| n < 1)) {
            Some(i) => Err(OpError::Size { axis: i + 2, dim: shape[i + 2].clone() }),
            None => cx.result(x.dtype, shape),
        }
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let out = cx.out(0);
        let (x_shape, w_shape) = (cx.shape(self.x), cx.shape(self.weight));
        let (c_in, per_group) = (x_shape[1], w_shape[1]);
        let mut y = channel_bias(cx, self.bias, &out.shape);
        let (x, w) = (cx.f64(self.x), cx.f64(self.weight));
        if y.is_empty() || x.is_empty() {
            return Ok(smallvec![out.of(&y)]);
        }
        let places = self.places(x_shape, w_shape, &out.shape);
        let (image, taps) = (places.image(), places.taps());
        let groups = self.groups as usize;
        for (plane, x) in x.chunks_exact(places.windows()).enumerate() {
            let (n, ci) = (plane / c_in, plane % c_in);
            let first = n * groups * per_group + ci / (c_in / groups) * per_group;
            for co in 0..per_group {
                let target = &mut y[(first + co) * image..][..image];
                let factors = &w[(ci * per_group + co) * taps..][..taps];
                places.each_run(|run| {
                    let write = target[run.image..].iter_mut().step_by(places.step());
                    write.zip(&x[run.windows]).for_each(|(y, x)| *y += factors[run.tap] * x);
                });
            }
        }
        Ok(smallvec![out.of(&y)])
    }

    fn macs(&self, cx: &InferCx<'_>, _: &Shape) -> Option<Dim> {
        Some(cx.shape(self.x)?.count() * taps(cx.shape(self.weight)?))
    }
}

/// What each output of a convolution is a sum of, or each input of a transposed one is spread to, of the shape of the weight.
fn taps(weight: &Shape) -> Dim {
    weight.iter().skip(1).fold(Dim::from(1), |n, d| n * d)
}

/// The type of the weights of an op on `x`.
fn same_rank<'a>(cx: &InferCx<'a>, x: &TensorType, weight: Value) -> Result<&'a TensorType, OpError> {
    let rank = x.shape.rank();
    cx.ranked("weight", weight, rank..=rank)
}

fn check_groups(groups: i64) -> Result<i64, OpError> {
    if (1..1 << 31).contains(&groups) { Ok(groups) } else { Err(OpError::value("groups", groups, "at least 1")) }
}

fn divides(groups: i64, channels: &Dim) -> bool {
    channels.as_known().is_none_or(|c| c % groups == 0)
}

fn check_bias(cx: &InferCx<'_>, bias: Option<Value>, channels: &Dim) -> Result<(), OpError> {
    let Some(bias) = bias else { return Ok(()) };
    let want = Shape::from([channels.clone()]);
    if cx.tensor("bias", bias)?.shape.may_equal(&want) {
        return Ok(());
    }
    Err(cx.operand("bias", bias, format!("one value for each of {channels} channels")))
}

/// A result of `shape` in which each element is the bias of its channel.
fn channel_bias(cx: &EvalCx<'_>, bias: Option<Value>, shape: &[usize]) -> Vec<f64> {
    let mut y = vec![0.0; shape.iter().product()];
    let Some(bias) = bias.filter(|_| !y.is_empty()) else { return y };
    let (bias, plane) = (cx.f64(bias), shape[2..].iter().product());
    y.chunks_exact_mut(plane).enumerate().for_each(|(i, y)| y.fill(bias[i % bias.len()]));
    y
}
