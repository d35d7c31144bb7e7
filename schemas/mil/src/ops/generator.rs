//! Tensors made from little: filled, counted up, one-hot.

use super::binary::with_ints_in_range;
use crate::{
    ir::{Fact, Value},
    schema::{EvalCx, Facts, InferCx, OpError, Rows, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Shape, Symbols, Tensor};
use smallvec::smallvec;

/// A tensor of one value.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "fill", since = Ios15)]
#[domain(S: Ios15 = I32)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
pub struct Fill {
    /// `i32[rank]`: the shape of the result.
    #[operand(S)]
    pub shape: Value,
    /// `T[]`; `f32[] 0.0` where absent.
    #[operand(T, constant)]
    pub value: Option<Value>,
}

impl Semantics for Fill {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        filled(cx, shape_operand(cx, "shape", self.shape)?, self.value)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(eval_filled(cx, self.value))
    }
    fn default_operands(&self, _: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        absent(DType::F32, &[("value", self.value, 0.0)])
    }
}

/// A tensor of one value, of the shape of another tensor.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "fill_like", since = Ios16)]
#[domain(T: Ios16 = F16 | F32 | I32 | Bool)]
#[domain(U: Ios16 = F16 | F32 | I32 | Bool)]
pub struct FillLike {
    /// `T[*d]`; only its shape matters.
    #[operand(T)]
    pub ref_tensor: Value,
    /// `U[]`; `f32[] 0.0` where absent.
    #[operand(U, constant)]
    pub value: Option<Value>,
}

impl Semantics for FillLike {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        filled(cx, cx.tensor("ref_tensor", self.ref_tensor)?.shape.clone(), self.value)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(eval_filled(cx, self.value))
    }
    fn default_operands(&self, _: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        absent(DType::F32, &[("value", self.value, 0.0)])
    }
}

fn filled(cx: &InferCx<'_>, shape: Shape, value: Option<Value>) -> Result<Facts, OpError> {
    let count = shape.count().as_usize().filter(|n| *n <= Fact::MAX_INTS);
    let fact = cx.fact_of(scalar_type(cx, DType::F32, &[("value", value)])?, shape)?;
    Ok(smallvec![match (count, value.and_then(|v| cx.ints(v)?.first())) {
        (Some(n), Some(value)) => fact.with_ints(vec![value.clone(); n]),
        _ => fact,
    }])
}

fn eval_filled(cx: &EvalCx<'_>, value: Option<Value>) -> Tensors {
    // Every element type that may be filled in is exact in `f64`.
    smallvec![Tensor::splat(cx.out(0).dtype, &cx.out(0).shape, scalar(cx, value, 0.0))]
}

/// The shape that an operand's elements give; sizes that are not known are symbols.
pub(super) fn shape_operand(cx: &InferCx<'_>, param: &'static str, v: Value) -> Result<Shape, OpError> {
    let ty = cx.ranked(param, v, 1..=1)?;
    if let Some(sizes) = cx.ints(v) {
        return Ok(sizes.into());
    }
    match ty.shape[0].as_usize() {
        Some(rank) if rank <= Fact::MAX_INTS => Ok((0..rank).map(|k| cx.unknown(k)).collect()),
        _ => Err(cx.operand(param, v, format!("a vector of known length, at most {}", Fact::MAX_INTS))),
    }
}

/// The element type of those of `params` that are there, which must be scalars; `default` where none is.
pub(super) fn scalar_type(
    cx: &InferCx<'_>,
    default: DType,
    params: &[(&'static str, Option<Value>)],
) -> Result<DType, OpError> {
    let mut found = None;
    for (param, v) in params {
        if let Some(v) = v {
            found = found.or(Some(cx.ranked(param, *v, 0..=0)?.dtype));
        }
    }
    Ok(found.unwrap_or(default))
}

/// The scalar that `v` holds, or `default`.
pub(super) fn scalar(cx: &EvalCx<'_>, v: Option<Value>, default: f64) -> f64 {
    v.and_then(|v| cx.f64(v).first().copied()).unwrap_or(default)
}

/// Those of `params` that are not there, as scalars of `dtype`.
pub(super) fn absent(dtype: DType, params: &[(&'static str, Option<Value>, f64)]) -> Vec<(&'static str, Tensor)> {
    let absent = params.iter().filter(|(_, v, _)| v.is_none());
    absent.map(|(param, _, default)| (*param, Tensor::splat(dtype, &[], *default))).collect()
}

/// Vectors of one place that is on and others that are off, along a new axis.
///
/// Result: the shape of `indices` with that axis inserted. An index outside of it turns nothing on.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "one_hot", since = Ios15)]
#[domain(I: Ios15 = I32)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
pub struct OneHot {
    /// `i32[*d]`: which place is on.
    #[operand(I)]
    pub indices: Value,
    /// `i32[]`: the size of the new axis.
    #[operand(I)]
    pub one_hot_vector_size: Value,
    /// Where the new axis is in the result, in `-(rank + 1)..rank + 1`.
    #[attr(default = -1)]
    pub axis: i64,
    /// `T[]`; 1 where absent.
    #[operand(T, constant)]
    pub on_value: Option<Value>,
    /// `T[]`; 0 where absent.
    #[operand(T, constant)]
    pub off_value: Option<Value>,
}

impl OneHot {
    fn dtype(&self, cx: &InferCx<'_>) -> Result<DType, OpError> {
        scalar_type(cx, DType::I32, &[("on_value", self.on_value), ("off_value", self.off_value)])
    }
}

impl Semantics for OneHot {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        cx.ranked("one_hot_vector_size", self.one_hot_vector_size, 0..=0)?;
        let size = cx.ints(self.one_hot_vector_size).and_then(|v| v.first().cloned());
        let mut shape = cx.tensor("indices", self.indices)?.shape.clone();
        shape.dims_mut().push(Dim::from(1));
        let axis = shape.axis(self.axis)?;
        shape.dims_mut().pop();
        shape.dims_mut().insert(axis.index(), size.unwrap_or_else(|| cx.unknown(0)));
        cx.result(self.dtype(cx)?, shape)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (out, indices) = (cx.out(0), cx.i64(self.indices));
        let (on, off) = (scalar(cx, self.on_value, 1.0), scalar(cx, self.off_value, 0.0));
        let mut values = vec![off; out.count()];
        let rows = Rows::new(&out.shape, Shape::from(&out.shape).axis(self.axis)?.index());
        for (mut row, index) in rows.iter().zip(indices) {
            if let Some(i) = usize::try_from(index).ok().and_then(|i| row.nth(i)) {
                values[i] = on;
            }
        }
        Ok(smallvec![out.of(&values)])
    }
    fn default_operands(&self, cx: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        let dtype = self.dtype(cx).unwrap_or(DType::I32);
        absent(dtype, &[("on_value", self.on_value, 1.0), ("off_value", self.off_value, 0.0)])
    }
}

/// `start`, `start + step` and so on, before `end`.
///
/// Result: `T[m]`, where `m = max(ceil((end - start) / step), 0)`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "range_1d", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32)]
pub struct Range1d {
    /// `T[]`: the limit, which is not reached.
    #[operand(T)]
    pub end: Value,
    /// `T[]`: the first element.
    #[operand(T)]
    pub start: Value,
    /// `T[]`: the distance between elements, not zero.
    #[operand(T)]
    pub step: Value,
}

impl Semantics for Range1d {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let dtype = cx.ranked("end", self.end, 0..=0)?.dtype;
        cx.ranked("start", self.start, 0..=0)?;
        cx.ranked("step", self.step, 0..=0)?;
        let int = |v| cx.ints(v).and_then(|v| v.first());
        if let (Some(start), Some(end), Some(step)) = (int(self.start), int(self.end), int(self.step)) {
            let len = match step.as_known() {
                Some(0) => return Err(no_step()),
                Some(n) if n > 0 => at_least_zero((end - start).div_ceil(step)),
                Some(_) => at_least_zero((start - end).div_ceil(&-step)),
                None => cx.unknown(0),
            };
            let known = len.as_usize().filter(|n| *n <= Fact::MAX_INTS);
            let fact = cx.fact_of(dtype, [len])?;
            return Ok(smallvec![match known {
                Some(n) => with_ints_in_range(fact, (0..n as i64).map(|i| start + step * i).collect()),
                None => fact,
            }]);
        }
        let float = |v| cx.constant(v).and_then(|t| t.to_f64().first().copied());
        match (float(self.start), float(self.end), float(self.step)) {
            (Some(start), Some(end), Some(step)) => cx.result(dtype, [Dim::from(count(start, end, step)?)]),
            _ => cx.result(dtype, [cx.unknown(0)]),
        }
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        // Exact in `f64` for integers of 32 bits too.
        let at = |v| scalar(cx, Some(v), 0.0);
        let (start, end, step) = (at(self.start), at(self.end), at(self.step));
        let n = count(start, end, step)?;
        let values: Vec<f64> = (0..n).map(|i| start + i as f64 * step).collect();
        Ok(smallvec![Tensor::from_f64(cx.out(0).dtype, &[n], &values)])
    }
}

/// `max(d, 0)`, said only where it does not follow from symbols being sizes.
fn at_least_zero(d: Dim) -> Dim {
    if d.bounds(&Symbols::default()).0.is_some_and(|lo| lo >= 0) { d } else { d.maximum(&Dim::from(0)) }
}

fn no_step() -> OpError {
    OpError::Value { param: "step", found: "0".into(), want: "a distance".into() }
}

/// Elements of a range.
fn count(start: f64, end: f64, step: f64) -> Result<usize, OpError> {
    let n = ((end - start) / step).ceil();
    if step == 0.0 || n.is_nan() {
        return Err(no_step());
    }
    if n > f64::from(1 << 30) {
        return Err(OpError::TooLarge { count: Dim::from(n as i64) });
    }
    Ok(n as usize)
}
