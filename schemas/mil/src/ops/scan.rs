//! Running sums.

use super::unary::like;
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Rows, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::Shape;
use smallvec::smallvec;

/// The sum of the elements up to and with each one, along one axis; of integers it wraps.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "cumsum", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32)]
pub struct Cumsum {
    /// `T[*d]`, of rank 1 or more.
    #[operand(T)]
    pub x: Value,
    /// The axis, in `-1..rank`.
    #[attr(default = 0)]
    pub axis: i64,
    /// Whether an element is left out of its own sum.
    #[attr(default = false)]
    pub exclusive: bool,
    /// Whether sums run from the end.
    #[attr(default = false)]
    pub reverse: bool,
}

impl Semantics for Cumsum {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        cx.tensor("x", self.x)?.shape.axis(self.axis)?;
        if self.axis < -1 {
            let want = "an axis counted from the front, or -1".into();
            return Err(OpError::Value { param: "axis", found: self.axis.to_string(), want });
        }
        like(cx, self.x)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (out, shape) = (cx.out(0), cx.shape(self.x));
        let rows = Rows::new(shape, Shape::from(shape).axis(self.axis)?.index());
        Ok(smallvec![if out.dtype.is_float() {
            out.of(&self.scan(cx.f64(self.x), rows, 0.0, |a, b| a + b))
        } else {
            out.of_ints(&self.scan(cx.i64(self.x), rows, 0, i64::wrapping_add))
        }])
    }
}

impl Cumsum {
    fn scan<T: Copy>(&self, mut x: Vec<T>, rows: Rows, zero: T, add: fn(T, T) -> T) -> Vec<T> {
        for row in rows.iter() {
            let mut sum = zero;
            let mut step = |i: usize| {
                let next = add(sum, x[i]);
                x[i] = if self.exclusive { sum } else { next };
                sum = next;
            };
            if self.reverse { row.rev().for_each(&mut step) } else { row.for_each(&mut step) }
        }
        x
    }
}
