//! What a tensor is like: its shape, and where it is not zero.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Tensor};
use smallvec::smallvec;

/// The shape of a tensor.
///
/// Result: `i32[rank]`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "shape", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
pub struct ShapeOf {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
}

impl Semantics for ShapeOf {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let fact = cx.fact_of(DType::I32, [Dim::from(x.shape.rank())])?;
        Ok(smallvec![fact.with_ints(x.shape.iter().cloned())])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(smallvec![cx.out(0).of_ints(&cx.shape(self.x).iter().map(|d| *d as i64).collect::<Vec<_>>())])
    }
}

/// The coordinates of the elements that are not zero, in row-major order. NaN is not zero.
///
/// Result: `i32[m, rank]`, where `m` depends on the elements.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "non_zero", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
pub struct NonZero {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
}

impl Semantics for NonZero {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let rank = Dim::from(cx.tensor("x", self.x)?.shape.rank());
        let found = cx.constant(self.x).map(|t| Dim::from(t.to_bools().into_iter().filter(|b| *b).count()));
        cx.result(DType::I32, [found.unwrap_or_else(|| cx.unknown(0)), rank])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let x = cx.tensor(self.x);
        let mut places = vec![];
        let found = x.to_bools().into_iter().enumerate().filter(|(_, b)| *b).map(|(i, _)| i);
        let mut count = 0;
        for mut rest in found {
            count += 1;
            let start = places.len();
            places.resize(start + x.shape().len(), 0);
            for (place, size) in places[start..].iter_mut().zip(x.shape()).rev() {
                *place = (rest % size) as i64;
                rest /= size;
            }
        }
        Ok(smallvec![Tensor::from_i64(DType::I32, &[count, x.shape().len()], &places)])
    }
}
