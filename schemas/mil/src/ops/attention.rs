//! Attention.

use super::linear::{each_transposed, multiply};
use crate::{
    ir::Value,
    schema::{Broadcast, EvalCx, Facts, InferCx, OpError, Out, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Shape};
use smallvec::smallvec;

/// `softmax(query * transpose(key) / sqrt(e) + mask) * value`.
///
/// Result: `T[*b, l, ev]`. A row of which the mask excludes all of `key` is NaN.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "scaled_dot_product_attention", since = Ios18)]
#[domain(T: Ios18 = F16 | F32)]
#[domain(M: Ios18 = Bool | F16 | F32)]
pub struct ScaledDotProductAttention {
    /// `T[*b, l, e]`, of rank 3 or more.
    #[operand(T)]
    pub query: Value,
    /// `T[*b, s, e]`.
    #[operand(T)]
    pub key: Value,
    /// `T[*b, s, ev]`.
    #[operand(T)]
    pub value: Value,
    /// `M[.., s]`, broadcast to `[*b, l, s]`: whether an element takes part, or what is added to its score.
    #[operand(M)]
    pub attn_mask: Option<Value>,
}

impl Semantics for ScaledDotProductAttention {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let q = cx.ranked("query", self.query, 3..)?;
        let rank = q.shape.rank();
        let (k, v) = (cx.ranked("key", self.key, rank..=rank)?, cx.ranked("value", self.value, rank..=rank)?);
        let batch = &q.shape[..rank - 2];
        let (s, e, ev) = (&k.shape[rank - 2], &q.shape[rank - 1], &v.shape[rank - 1]);
        let shape = |last: [&mlconv_tensor::Dim; 2]| -> Shape { batch.iter().chain(last).cloned().collect() };
        for (param, operand, ty, want) in
            [("key", self.key, k, shape([s, e])), ("value", self.value, v, shape([s, ev]))]
        {
            if !ty.shape.may_equal(&want) {
                return Err(cx.operand(param, operand, format!("a tensor of shape {want}")));
            }
        }
        let result = shape([&q.shape[rank - 2], ev]);
        if let Some(mask) = self.attn_mask {
            let scores = shape([&q.shape[rank - 2], s]);
            let ty = cx.ranked("attn_mask", mask, 1..=rank)?;
            let skipped = rank - ty.shape.rank();
            let fits = ty.shape.iter().zip(&scores[skipped..]).all(|(m, d)| m.is(1) || m.may_equal(d));
            if !fits || !ty.shape[ty.shape.rank() - 1].may_equal(s) {
                return Err(cx.operand("attn_mask", mask, format!("[.., {s}], broadcast to {scores}")));
            }
        }
        cx.result(q.dtype, result)
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (out, shape) = (cx.out(0), cx.shape(self.query));
        let rank = shape.len();
        let (l, e) = (shape[rank - 2], shape[rank - 1]);
        let (s, ev) = (cx.shape(self.key)[rank - 2], out.shape[rank - 1]);
        let mut y = vec![0.0; out.count()];
        if y.is_empty() {
            return Ok(smallvec![out.of(&y)]);
        }
        let (q, v) = (cx.f64(self.query), cx.f64(self.value));
        let keys = each_transposed(&cx.f64(self.key), s, e);
        let mask = self.attn_mask.map(|m| Mask::of(cx, m, &[&shape[..rank - 1], &[s]].concat()));
        // The scores of all rows at once could be far more than operands and result.
        let rows = Out { dtype: out.dtype, shape: shape[..rank - 1].into() };
        let mut row = 0;
        rows.each_index(|index| {
            let batch = row / l;
            let mut scores = vec![0.0; s];
            multiply(&mut scores, &q[row * e..][..e], &keys[batch * e * s..][..e * s], [1, e, s]);
            for (j, score) in scores.iter_mut().enumerate() {
                *score = *score / (e as f64).sqrt() + mask.as_ref().map_or(0.0, |m| m.at(&[index, &[j]].concat()));
            }
            softmax(&mut scores);
            multiply(&mut y[row * ev..][..ev], &scores, &v[batch * s * ev..][..s * ev], [1, s, ev]);
            row += 1;
        });
        Ok(smallvec![out.of(&y)])
    }

    fn macs(&self, cx: &InferCx<'_>, result: &Shape) -> Option<Dim> {
        let (query, key) = (cx.shape(self.query)?, cx.shape(self.key)?);
        let rows = key.get(key.rank().checked_sub(2)?)?;
        Some((query.count() + result.count()) * rows)
    }
}

/// What a mask adds to each score.
struct Mask {
    added: Vec<f64>,
    place: Broadcast,
}

impl Mask {
    fn of(cx: &EvalCx<'_>, mask: Value, scores: &[usize]) -> Self {
        let mut added = cx.f64(mask);
        if cx.tensor(mask).dtype() == DType::Bool {
            for m in &mut added {
                *m = if *m == 0.0 { f64::NEG_INFINITY } else { 0.0 };
            }
        }
        Self { added, place: Broadcast::new(cx.shape(mask), scores) }
    }

    fn at(&self, index: &[usize]) -> f64 {
        self.added[self.place.at(index)]
    }
}

fn softmax(row: &mut [f64]) {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for x in row.iter_mut() {
        *x = (*x - max).exp();
    }
    let sum: f64 = row.iter().sum();
    for x in row {
        *x /= sum;
    }
}
