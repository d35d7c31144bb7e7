//! Convolutions.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{Dim, Shape};
use smallvec::smallvec;

/// How windows meet the borders of the input.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadType {
    /// No padding: windows stay inside.
    #[name("valid")]
    Valid,
    /// As many places as `ceil(size / stride)`; odd padding goes to the end.
    #[name("same")]
    Same,
    /// As `same`; odd padding goes to the beginning.
    #[name("same_lower")]
    SameLower,
    /// As `pad` says.
    #[name("custom")]
    Custom,
}

/// Convolves `x` with `weight`, in 1, 2 or 3 spatial dimensions.
///
/// Result: `T[n, c_out, *d_out]`, where `d_out = floor((d_in + before + after - dilation * (k - 1) - 1) / stride) + 1`
/// and `before`, `after` follow from `pad_type`.
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

impl Semantics for Conv {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 3..=5)?;
        let w = cx.ranked("weight", self.weight, x.shape.rank()..=x.shape.rank())?;
        let spatial = x.shape.rank() - 2;
        let window = Window::new(cx, spatial, &self.strides, self.pad_type, &self.pad, &self.dilations)?;
        if self.groups < 1 || (&w.shape[1] * self.groups).as_known().zip(x.shape[1].as_known()).is_some_and(|(a, b)| a != b) {
            return Err(cx.operand("weight", self.weight, format!("{} channels over {} groups", x.shape[1], self.groups)));
        }
        let mut shape: Shape = [x.shape[0].clone(), w.shape[0].clone()].into();
        for i in 0..spatial {
            shape.dims_mut().push(window.size(i, &x.shape[i + 2], &w.shape[i + 2]));
        }
        cx.result(x.dtype, shape)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let _ = cx;
        Ok(smallvec![])
    }
}

/// Where the windows of a convolution or pooling lie.
pub(crate) struct Window<'a> {
    strides: &'a [i64],
    pad_type: PadType,
    pad: &'a [i64],
    dilations: &'a [i64],
}

impl<'a> Window<'a> {
    pub(crate) fn new(
        cx: &InferCx<'_>,
        spatial: usize,
        strides: &'a [i64],
        pad_type: PadType,
        pad: &'a [i64],
        dilations: &'a [i64],
    ) -> Result<Self, OpError> {
        let check = |param, v: &[i64], len: usize, least: i64| {
            if v.len() == len && v.iter().all(|n| *n >= least && *n < 1 << 31) {
                return Ok(());
            }
            let want = format!("{len} integers of at least {least}");
            Err(OpError::Value { param, found: format!("{v:?}"), want: want.into() })
        };
        let _ = cx;
        check("strides", strides, spatial, 1)?;
        check("dilations", dilations, spatial, 1)?;
        check("pad", pad, 2 * spatial, 0)?;
        Ok(Self { strides, pad_type, pad, dilations })
    }

    /// The number of windows of `kernel` elements along spatial dimension `i` of size `size`.
    pub(crate) fn size(&self, i: usize, size: &Dim, kernel: &Dim) -> Dim {
        let stride = Dim::from(self.strides[i]);
        let padded = match self.pad_type {
            PadType::Same | PadType::SameLower => return size.div_ceil(&stride),
            PadType::Valid => size.clone(),
            PadType::Custom => size + (self.pad[2 * i] + self.pad[2 * i + 1]),
        };
        let reach = (kernel - 1) * self.dilations[i] + 1;
        (padded - reach).div_floor(&stride) + 1
    }
}
