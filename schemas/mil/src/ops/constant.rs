//! Constants and the identity.

use crate::{
    ir::{Fact, Value},
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{Dim, Dims, Tensor, TensorType};
use smallvec::smallvec;

/// A constant tensor.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "const", since = Ios15)]
pub struct Const {
    /// The value.
    #[attr]
    pub val: Tensor,
}

impl Semantics for Const {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let shape: Dims = self.val.shape().into();
        let _ = cx;
        let fact = Fact::of(TensorType::new(self.val.dtype(), &shape));
        let small = Fact::tracks(self.val.dtype()) && self.val.count() <= Fact::MAX_INTS;
        Ok(smallvec![if small { fact.with_ints(self.val.to_i64().into_iter().map(Dim::from)) } else { fact }])
    }
    fn eval(&self, _: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(smallvec![self.val.clone()])
    }
}

/// `x` itself, under another name.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "identity", since = Ios15, elementwise)]
#[domain(T: Ios15 = Any)]
pub struct Identity {
    /// A tensor.
    #[operand(T)]
    pub x: Value,
}

impl Semantics for Identity {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        Ok(smallvec![cx.fact(self.x).clone()])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(smallvec![cx.tensor(self.x).clone()])
    }
}
