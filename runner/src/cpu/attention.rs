//! Attention: some rows of scores at a time, never all of them.

use super::{
    data::{load, store},
    gemm::{Matrix, Onto, product},
    matmul::unflat,
    norm::softmax_row,
};
use mlconv_mil::{
    ops::ScaledDotProductAttention,
    schema::{Broadcast, EvalCx, Tensors},
};
use mlconv_tensor::{DType, Tensor};
use rayon::prelude::*;
use smallvec::smallvec;

/// Rows of the query that a task takes.
const ROWS: usize = 64;

pub(super) fn attention(op: &ScaledDotProductAttention, cx: &EvalCx<'_>) -> Option<Tensors> {
    let (out, shape) = (cx.out(0), cx.shape(op.query));
    let rank = shape.len();
    let (l, e) = (shape[rank - 2], shape[rank - 1]);
    let (s, ev) = (cx.shape(op.key)[rank - 2], out.shape[rank - 1]);
    if s == 0 || e == 0 {
        return None;
    }
    let [q, k, v] = [op.query, op.key, op.value].map(|v| load(cx.tensor(v)));
    let (q, k, v) = (q?, k?, v?);
    let mask = match op.attn_mask {
        Some(mask) => Some(Mask::of(cx.tensor(mask), &[&shape[..rank - 1], &[s]].concat())?),
        None => None,
    };
    let scale = (1.0 / (e as f64).sqrt()) as f32;
    let mut y = vec![0.0; out.count()];
    y.par_chunks_exact_mut(l * ev).enumerate().try_for_each(|(batch, y)| {
        let keys = Matrix::packed(&k[batch * s * e..][..s * e], s, e)?.transposed();
        let values = Matrix::packed(&v[batch * s * ev..][..s * ev], s, ev)?;
        y.par_chunks_mut(ROWS * ev).enumerate().try_for_each(|(i, y)| {
            let (first, rows) = (i * ROWS, y.len() / ev);
            let queries = Matrix::packed(&q[(batch * l + first) * e..][..rows * e], rows, e)?;
            let mut scores = vec![0.0; rows * s];
            product(&mut scores, queries, s, &keys, Onto::Nothing);
            for (i, scores) in scores.chunks_exact_mut(s).enumerate() {
                for x in scores.iter_mut() {
                    *x *= scale;
                }
                if let Some(mask) = &mask {
                    let index = unflat(batch * l + first + i, &shape[..rank - 1]);
                    scores.iter_mut().zip(mask.row(&index, s)).for_each(|(x, m)| *x += m);
                }
                softmax_row(scores);
            }
            product(y, Matrix::packed(&scores, rows, s)?, ev, &values, Onto::Nothing);
            Some(())
        })
    })?;
    Some(smallvec![store(out, y)?])
}

/// What a mask adds to each score.
struct Mask {
    added: Vec<f32>,
    place: Broadcast,
}

impl Mask {
    fn of(mask: &Tensor, scores: &[usize]) -> Option<Self> {
        let added = if mask.dtype() == DType::Bool {
            mask.view::<u8>()?.iter().map(|m| if *m == 0 { f32::NEG_INFINITY } else { 0.0 }).collect()
        } else {
            load(mask)?.into_owned()
        };
        Some(Self { added, place: Broadcast::new(mask.shape(), scores) })
    }

    /// The part for a row of `s` scores; a mask has all of its columns.
    fn row(&self, index: &[usize], s: usize) -> &[f32] {
        &self.added[self.place.at(index)..][..s]
    }
}
