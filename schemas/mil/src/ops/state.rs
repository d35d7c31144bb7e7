//! States: buffers that outlive a call.

use crate::{
    ir::{Fact, Value},
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{TensorType, Type};
use smallvec::{SmallVec, smallvec};

fn state<'a>(cx: &InferCx<'a>, v: Value) -> Result<&'a TensorType, OpError> {
    match &cx.fact(v).ty {
        Type::State(t) => Ok(t),
        Type::Tensor(_) | Type::List { .. } | Type::Dict { .. } | Type::Unknown => {
            Err(cx.operand("input", v, "a state"))
        }
    }
}

/// The content of a state at this point of the program.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "read_state", since = Ios18, effect = Read)]
#[domain(T: Ios18 = Any)]
pub struct ReadState {
    /// The state.
    #[operand(T)]
    pub input: Value,
}

impl Semantics for ReadState {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        Ok(smallvec![Fact::of(state(cx, self.input)?.clone())])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(smallvec![cx.env.read_state(self.input)])
    }
}

/// Replaces the content of a state. It has no result; later reads see the new content.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "write_state", since = Ios18, effect = Write)]
#[domain(T: Ios18 = Any)]
pub struct WriteState {
    /// The state.
    #[operand(T)]
    pub input: Value,
    /// Its new content, of the same type.
    #[operand(T)]
    pub data: Value,
}

impl Semantics for WriteState {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let (want, found) = (state(cx, self.input)?, cx.tensor("data", self.data)?);
        if want.dtype != found.dtype || !want.shape.may_equal(&found.shape) {
            return Err(cx.operand("data", self.data, format!("{want}, the type of the state")));
        }
        Ok(SmallVec::new())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        cx.env.write_state(self.input, cx.tensor(self.data).clone());
        Ok(SmallVec::new())
    }
}
