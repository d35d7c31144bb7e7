//! Sorting.
//!
//! Core ML does not say where equal elements and NaN go. Here equal ones keep their order, and NaN is last whichever way
//! is sorted.

use super::reduction::index_type;
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Opset, Rows, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Shape, Tensor};
use smallvec::smallvec;
use std::cmp::Ordering;

/// The positions, along one axis, of the elements in sorted order.
///
/// Result: `i32[*d]`. Equal elements keep their order.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "argsort", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32)]
pub struct Argsort {
    /// `T[*d]`, of rank 1 or more.
    #[operand(T)]
    pub x: Value,
    /// The axis, in `-rank..rank`.
    #[attr(default = -1)]
    pub axis: i64,
    /// Whether the least comes first.
    #[attr(default = false)]
    pub ascending: bool,
}

impl Semantics for Argsort {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        x.shape.axis(self.axis)?;
        cx.result(DType::I32, x.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, shape) = (cx.f64(self.x), cx.shape(self.x));
        let mut order = vec![0; x.len()];
        for row in Rows::new(shape, Shape::from(shape).axis(self.axis)?.index()).iter() {
            let values: Vec<f64> = row.clone().map(|i| x[i]).collect();
            row.zip(sorted(&values, self.ascending)).for_each(|(i, at)| order[i] = at as i64);
        }
        Ok(smallvec![cx.out(0).of_ints(&order)])
    }
}

/// The `k` greatest or least elements along one axis, and their positions there.
///
/// Results: `T[*d]` with `k` in place of the axis, and the same shape of positions unless `return_indices` is off.
/// Of equal elements the first come first.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "topk", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32, Ios17 = I8 | U8 | I16 | U16)]
#[domain(K: Ios15 = I32, Ios17 = I8 | I16)]
pub struct Topk {
    /// `T[*d]`, of rank 1 or more.
    #[operand(T)]
    pub x: Value,
    /// `K[]`: how many to take, at most all; 1 where absent, all where -1 since iOS 17.
    #[operand(K, constant)]
    pub k: Option<Value>,
    /// The axis, in `-rank..rank`.
    #[attr(default = -1)]
    pub axis: i64,
    /// Whether to take the least, the least first.
    #[attr(default = false)]
    pub ascending: bool,
    /// Whether the result must be in order. It is here, in either case.
    #[attr(default = true, since = Ios16)]
    pub sort: bool,
    /// Whether positions are a second result.
    #[attr(default = true, since = Ios16)]
    pub return_indices: bool,
    /// The element type of positions: `int32`, as where absent, or `uint16`. Absent where there are none.
    #[attr(default = None, since = Ios17)]
    pub output_indices_dtype: Option<DType>,
}

impl Semantics for Topk {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let axis = x.shape.axis(self.axis)?;
        let size = &x.shape[axis.index()];
        let k = match self.k {
            None => 1,
            Some(k) => {
                cx.ranked("k", k, 0..=0)?;
                cx.require_ints("k", k)?.first().copied().unwrap_or(1)
            }
        };
        let taken = if k == -1 && cx.opset >= Opset::Ios17 { size.clone() } else { Dim::from(k) };
        if (size - &taken).as_known().is_some_and(|left| left < 0) || taken.as_known().is_some_and(|k| k < 0) {
            return Err(OpError::Value { param: "k", found: k.to_string(), want: format!("0 to {size}").into() });
        }
        let shape = x.shape.with(axis, taken);
        let values = cx.fact_of(x.dtype, shape.clone())?;
        match (self.return_indices, self.output_indices_dtype) {
            (false, None) => Ok(smallvec![values]),
            (false, Some(dtype)) => {
                let want = "absent, as no indices are returned".into();
                Err(OpError::Value { param: "output_indices_dtype", found: dtype.to_string(), want })
            }
            (true, dtype) => {
                let dtype = dtype.unwrap_or(DType::I32);
                index_type("output_indices_dtype", dtype)?;
                Ok(smallvec![values, cx.fact_of(dtype, shape)?])
            }
        }
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, shape, out) = (cx.f64(self.x), cx.shape(self.x), cx.out(0));
        let axis = Shape::from(shape).axis(self.axis)?.index();
        let (mut best, mut at) = (vec![0.0; out.count()], vec![0; out.count()]);
        for (from, to) in Rows::new(shape, axis).iter().zip(Rows::new(&out.shape, axis).iter()) {
            let values: Vec<f64> = from.map(|i| x[i]).collect();
            for (i, k) in to.zip(sorted(&values, self.ascending)) {
                (best[i], at[i]) = (values[k], k as i64);
            }
        }
        let mut results: Tensors = smallvec![out.of(&best)];
        if self.return_indices {
            results.push(cx.out(1).of_ints(&at));
        }
        Ok(results)
    }
    fn default_operands(&self, _: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        if self.k.is_none() { vec![("k", Tensor::scalar(1i32))] } else { vec![] }
    }
}

/// The positions of `values` in sorted order.
fn sorted(values: &[f64], ascending: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (values[*a], values[*b]);
        let by_size = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
        a.is_nan().cmp(&b.is_nan()).then(if ascending { by_size } else { by_size.reverse() })
    });
    order
}
