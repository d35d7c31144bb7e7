//! Choice of elements.

use super::{binary::with_ints_in_range, unary::like};
use crate::{
    ir::{Fact, Value},
    schema::{Broadcast, EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::Dim;
use smallvec::smallvec;

/// The element of `a` where `cond` holds, else that of `b`, all three broadcast together.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "select", since = Ios15, elementwise)]
#[domain(B: Ios15 = Bool)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
pub struct Select {
    /// Which to take.
    #[operand(B)]
    pub cond: Value,
    /// Taken where `cond` holds.
    #[operand(T)]
    pub a: Value,
    /// Taken where it does not.
    #[operand(T)]
    pub b: Value,
}

impl Semantics for Select {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let (cond, a, b) = (cx.tensor("cond", self.cond)?, cx.tensor("a", self.a)?, cx.tensor("b", self.b)?);
        let shape = cond.shape.broadcast(&a.shape.broadcast(&b.shape)?)?;
        let (rank, count) = (shape.rank(), shape.count().as_usize().filter(|n| *n <= Fact::MAX_INTS));
        let fact = cx.fact_of(a.dtype, shape)?;
        Ok(smallvec![match (count, self.known(cx, count.unwrap_or(0))) {
            (Some(_), Some(ints)) if rank <= 1 => with_ints_in_range(fact, ints),
            _ => fact,
        }])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let out = cx.out(0);
        let at = |v| Broadcast::new(cx.shape(v), &out.shape);
        let (at_cond, at_a, at_b) = (at(self.cond), at(self.a), at(self.b));
        // Every element type that the op takes is exact in `f64`.
        let (cond, a, b) = (cx.tensor(self.cond).to_bools(), cx.f64(self.a), cx.f64(self.b));
        let mut values = Vec::with_capacity(out.count());
        out.each_index(|i| values.push(if cond[at_cond.at(i)] { a[at_a.at(i)] } else { b[at_b.at(i)] }));
        Ok(smallvec![out.of(&values)])
    }
}

impl Select {
    /// The elements of a vector of `n`, where those taken are known; it does not matter what is not taken.
    fn known(&self, cx: &InferCx<'_>, n: usize) -> Option<Vec<Dim>> {
        let at = |v: &[Dim], i: usize| v.get(if v.len() == 1 { 0 } else { i }).cloned();
        let cond = cx.ints(self.cond)?;
        (0..n).map(|i| at(cx.ints(if at(cond, i)?.as_known()? == 0 { self.b } else { self.a })?, i)).collect()
    }
}

/// The matrices of the last two axes, with zero outside of a band about the diagonal.
///
/// The element in row `m` and column `n` stays where `m - n <= lower` and `n - m <= upper`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "band_part", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
pub struct BandPart {
    /// `T[*d, m, n]`.
    #[operand(T)]
    pub x: Value,
    /// Diagonals that stay below the main one; all where negative.
    #[attr(default = -1)]
    pub lower: i64,
    /// Diagonals that stay above the main one; all where negative.
    #[attr(default = -1)]
    pub upper: i64,
}

impl Semantics for BandPart {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        cx.ranked("x", self.x, 2..)?;
        like(cx, self.x)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (out, x) = (cx.out(0), cx.f64(self.x));
        let mut values = Vec::with_capacity(x.len());
        out.each_index(|index| {
            let [.., m, n] = index else { return };
            let below = *m as i64 - *n as i64;
            let inside = (self.lower < 0 || below <= self.lower) && (self.upper < 0 || -below <= self.upper);
            values.push(if inside { x[values.len()] } else { 0.0 });
        });
        Ok(smallvec![out.of(&values)])
    }
}
