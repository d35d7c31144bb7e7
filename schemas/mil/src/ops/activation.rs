//! Elementwise activation functions, and softmax.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::strides;
use smallvec::smallvec;

/// A family of ops of one float operand and no parameter shares one declaration.
macro_rules! unary {
    ($($(#[$doc:meta])* $ty:ident = $name:literal, $f:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15)]
        #[domain(T: Ios15 = F16 | F32)]
        pub struct $ty {
            /// `T[*d]`.
            #[operand(T)]
            pub x: Value,
        }
        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                let x = cx.tensor("x", self.x)?;
                cx.result(x.dtype, x.shape.clone())
            }
            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                let f: fn(f64) -> f64 = $f;
                Ok(smallvec![cx.out(0).of(&cx.f64(self.x).into_iter().map(f).collect::<Vec<_>>())])
            }
        }
    )* };
}

unary! {
    /// `max(x, 0)`.
    Relu = "relu", |x| x.max(0.0);
}

/// `exp(x) / sum(exp(x))` along one axis.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "softmax", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct Softmax {
    /// `T[*d]`, of rank 1 or more.
    #[operand(T)]
    pub x: Value,
    /// The axis, in `-rank..rank`.
    #[attr(default = -1)]
    pub axis: i64,
}

impl Semantics for Softmax {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        x.shape.axis(self.axis)?;
        cx.result(x.dtype, x.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, shape) = (cx.f64(self.x), cx.shape(self.x));
        let axis = mlconv_tensor::Shape::from(shape).axis(self.axis)?.index();
        let (n, step) = (shape[axis], strides(shape)[axis]);
        let mut y = x.clone();
        for start in (0..x.len()).filter(|i| i / step % n == 0) {
            let row = || (0..n).map(|k| start + k * step);
            let max = row().map(|i| x[i]).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row().map(|i| (x[i] - max).exp()).sum();
            row().for_each(|i| y[i] = (x[i] - max).exp() / sum);
        }
        Ok(smallvec![cx.out(0).of(&y)])
    }
}
