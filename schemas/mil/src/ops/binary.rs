//! Elementwise ops of two operands, broadcast together.

use crate::{
    ir::{Fact, Value},
    schema::{Broadcast, EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Tensor};
use smallvec::smallvec;

/// What a binary op computes, for each kind of element.
struct Kernel {
    float: fn(f64, f64) -> f64,
    int: fn(i64, i64) -> i64,
    /// On known integers, where the op keeps them known.
    dim: Option<fn(&Dim, &Dim) -> Option<Dim>>,
}

/// Infers a result of element type `dtype`.
fn infer(cx: &InferCx<'_>, x: Value, y: Value, dtype: DType, kernel: &Kernel) -> Result<Facts, OpError> {
    let (tx, ty) = (cx.tensor("x", x)?, cx.tensor("y", y)?);
    let fact = cx.fact_of(dtype, tx.shape.broadcast(&ty.shape)?)?;
    Ok(smallvec![match (kernel.dim, cx.ints(x), cx.ints(y)) {
        (Some(f), Some(a), Some(b)) => known(fact, f, a, b),
        _ => fact,
    }])
}

/// Adds what is known of the elements; only vectors and scalars meet in shape arithmetic.
fn known(fact: Fact, f: fn(&Dim, &Dim) -> Option<Dim>, a: &[Dim], b: &[Dim]) -> Fact {
    let n = a.len().max(b.len());
    let rank = fact.ty.tensor().map_or(0, |t| t.shape.rank());
    if rank > 1 || !(a.len() == n || a.len() == 1) || !(b.len() == n || b.len() == 1) {
        return fact;
    }
    let at = |v: &[Dim], i: usize| v[if v.len() == 1 { 0 } else { i }].clone();
    let ints: Option<Vec<Dim>> = (0..n).map(|i| f(&at(a, i), &at(b, i))).collect();
    match ints {
        Some(ints) => fact.with_ints(ints),
        None => fact,
    }
}

fn eval(cx: &EvalCx<'_>, x: Value, y: Value, kernel: &Kernel) -> Tensors {
    let (out, tx, ty) = (cx.out(0), cx.tensor(x), cx.tensor(y));
    let (bx, by) = (Broadcast::new(tx.shape(), &out.shape), Broadcast::new(ty.shape(), &out.shape));
    smallvec![if tx.dtype().is_float() {
        let (a, b) = (tx.to_f64(), ty.to_f64());
        let mut values = Vec::with_capacity(out.count());
        out.each_index(|i| values.push((kernel.float)(a[bx.at(i)], b[by.at(i)])));
        out.of(&values)
    } else {
        let (a, b) = (tx.to_i64(), ty.to_i64());
        let mut values = Vec::with_capacity(out.count());
        out.each_index(|i| values.push((kernel.int)(a[bx.at(i)], b[by.at(i)])));
        if out.dtype == DType::Bool {
            Tensor::from_bools(&out.shape, values.iter().map(|v| *v != 0))
        } else {
            out.of_ints(&values)
        }
    }]
}

macro_rules! arithmetic {
    ($($(#[$doc:meta])* $ty:ident = $name:literal, $float:expr, $int:expr, $dim:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15)]
        #[domain(T: Ios15 = F16 | F32 | I32)]
        pub struct $ty {
            /// The first operand.
            #[operand(T)]
            pub x: Value,
            /// The second operand, broadcast with the first.
            #[operand(T)]
            pub y: Value,
        }
        impl $ty {
            const KERNEL: Kernel = Kernel { float: $float, int: $int, dim: $dim };
        }
        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                infer(cx, self.x, self.y, cx.tensor("x", self.x)?.dtype, &Self::KERNEL)
            }
            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                Ok(eval(cx, self.x, self.y, &Self::KERNEL))
            }
        }
    )* };
}

arithmetic! {
    /// `x + y`.
    Add = "add", |x, y| x + y, i64::wrapping_add, Some(|x, y| Some(x + y));
}
