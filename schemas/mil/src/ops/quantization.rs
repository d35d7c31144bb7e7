//! Affine quantization of values at run time.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors, mil_name},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Shape, TensorType};
use smallvec::smallvec;

/// `round(input / scale) + zero_point`, ties to even, clamped to the range of the result's type.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "quantize", since = Ios17)]
#[domain(SrcT: Ios17 = F16 | F32)]
#[domain(DstT: Ios17 = I8 | U8)]
pub struct Quantize {
    /// `SrcT[*d]`.
    #[operand(SrcT)]
    pub input: Value,
    /// `DstT[]` or `DstT[c]`, as `scale` is; 0 where absent.
    #[operand(DstT, constant)]
    pub zero_point: Option<Value>,
    /// `SrcT[]`, or `SrcT[c]` with one element for each place along `axis`; not all zero.
    #[operand(SrcT, constant)]
    pub scale: Value,
    /// The axis of a vector `scale`, in `-rank..rank`; absent for a scalar one.
    #[attr(default = None)]
    pub axis: Option<i64>,
    /// `int8` or `uint8`, and that of `zero_point`.
    #[attr]
    pub output_dtype: DType,
}

impl Semantics for Quantize {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let dtype = self.output_dtype;
        if !matches!(dtype, DType::I8 | DType::U8) {
            let found = mil_name(dtype).to_owned();
            return Err(OpError::Value { param: "output_dtype", found, want: "int8 or uint8".into() });
        }
        if let Some(zero_point) = self.zero_point
            && cx.tensor("zero_point", zero_point)?.dtype != dtype
        {
            return Err(cx.operand("zero_point", zero_point, format!("{dtype}, as `output_dtype`")));
        }
        if cx.constant(self.scale).is_some_and(|t| t.to_f64().iter().all(|s| *s == 0.0)) {
            return Err(OpError::Value { param: "scale", found: "zero".into(), want: "a number to divide by".into() });
        }
        let input = per_axis(cx, self.input, self.scale, self.zero_point, self.axis)?;
        cx.result(dtype, input.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        affine(cx, self.input, self.scale, self.zero_point, self.axis, |x, scale, zero| {
            (x / scale).round_ties_even() + zero
        })
    }
}

/// `scale * (input - zero_point)`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "dequantize", since = Ios17)]
#[domain(DstT: Ios17 = F16 | F32)]
#[domain(SrcT: Ios17 = I8 | U8)]
pub struct Dequantize {
    /// `SrcT[*d]`.
    #[operand(SrcT)]
    pub input: Value,
    /// `SrcT[]` or `SrcT[c]`, as `scale` is; 0 where absent.
    #[operand(SrcT, constant)]
    pub zero_point: Option<Value>,
    /// `DstT[]`, or `DstT[c]` with one element for each place along `axis`.
    #[operand(DstT, constant)]
    pub scale: Value,
    /// The axis of a vector `scale`, in `-rank..rank`; absent for a scalar one.
    #[attr(default = None)]
    pub axis: Option<i64>,
}

impl Semantics for Dequantize {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let dtype = cx.tensor("scale", self.scale)?.dtype;
        let input = per_axis(cx, self.input, self.scale, self.zero_point, self.axis)?;
        cx.result(dtype, input.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        affine(cx, self.input, self.scale, self.zero_point, self.axis, |x, scale, zero| scale * (x - zero))
    }
}

/// Checks that `scale` and `zero_point` are scalars, or both vectors along `axis` of `input`; the type of `input`.
fn per_axis<'a>(
    cx: &InferCx<'a>,
    input: Value,
    scale: Value,
    zero_point: Option<Value>,
    axis: Option<i64>,
) -> Result<&'a TensorType, OpError> {
    let input = cx.tensor("input", input)?;
    let (want, called) = match (cx.ranked("scale", scale, 0..=1)?.shape.rank(), axis) {
        (0, None) => (Shape::scalar(), "a scalar, as `axis` is absent and `scale` a scalar".to_owned()),
        (0, Some(axis)) => {
            let want = "absent, as `scale` is a scalar".into();
            return Err(OpError::Value { param: "axis", found: axis.to_string(), want });
        }
        (_, None) => return Err(OpError::Missing { param: "axis" }),
        (_, Some(axis)) => {
            let size = input.shape[input.shape.axis(axis)?.index()].clone();
            let called = format!("a vector of {size} elements, the size of `input` along axis {axis}");
            (Shape::from([size]), called)
        }
    };
    for (param, v) in [("scale", Some(scale)), ("zero_point", zero_point)] {
        if let Some(v) = v
            && !cx.tensor(param, v)?.shape.may_equal(&want)
        {
            return Err(cx.operand(param, v, called));
        }
    }
    Ok(input)
}

/// `f` of every element of `input`, its scale and its zero point.
fn affine(
    cx: &EvalCx<'_>,
    input: Value,
    scale: Value,
    zero_point: Option<Value>,
    axis: Option<i64>,
    f: impl Fn(f64, f64, f64) -> f64,
) -> Result<Tensors, OpError> {
    let (mut values, shape) = (cx.f64(input), cx.shape(input));
    let (scale, zero) = (cx.f64(scale), zero_point.map_or(vec![0.0], |z| cx.f64(z)));
    let (size, step) = match axis {
        None => (1, values.len()),
        Some(axis) => {
            let axis = Shape::from(shape).axis(axis)?.index();
            (shape[axis], shape[axis + 1..].iter().product())
        }
    };
    for (i, part) in values.chunks_mut(step.max(1)).enumerate() {
        let at = |v: &[f64]| v[if v.len() == 1 { 0 } else { i % size }];
        let (scale, zero) = (at(&scale), at(&zero));
        for v in part {
            *v = f(*v, scale, zero);
        }
    }
    Ok(smallvec![cx.out(0).of(&values)])
}
