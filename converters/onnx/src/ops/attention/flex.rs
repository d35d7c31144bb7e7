//! Attention with graphs that change scores and shares.

use super::{Result, precision, repeat_heads};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::DType;

pub(super) fn flex_attention(n: &mut Lower<'_>) -> Lowered {
    let (q, k, v) = (n.input(0)?, n.input(1)?, n.input(2)?);
    if [q, k, v].iter().any(|x| n.rank(*x).ok() != Some(4)) {
        return Err(LowerError::form("attention on tensors that are not all of rank 4"));
    }
    let (dtype, wide) = (n.dtype(q)?, precision(n)?.unwrap_or(DType::F32));
    let (k, v) = (repeat_heads(n, k, q)?, repeat_heads(n, v, q)?);
    let scale = match n.float("scale")? {
        Some(scale) => f64::from(scale),
        None => match n.shape(q)?[3].as_known() {
            Some(size) => 1.0 / (size as f64).sqrt(),
            None => return Err(LowerError::NotFixed { what: "the scale".into() }),
        },
    };
    let query = n.scale(q, scale)?;
    let scores = n.matmul(query, k, false, true)?;
    let scores = n.cast(scores, wide)?;
    let scores = changed(n, "score_mod", scores)?;
    let shares = n.op(ops::Softmax { x: scores, axis: -1 })?;
    let shares = changed(n, "prob_mod", shares)?;
    let v = n.cast(v, wide)?;
    let y = n.matmul(shares, v, false, false)?;
    let y = n.cast(y, dtype)?;
    n.done(y)
}

/// What the graph of an attribute makes of `x`; `x` itself where there is none.
fn changed(n: &mut Lower<'_>, name: &'static str, x: Value) -> Result<Value> {
    if !n.node.attrs.contains_key(name) {
        return Ok(x);
    }
    let graph = n.graph(name)?;
    if graph.inputs.len() != 1 {
        return n.bad_attr(name, "a graph of one input");
    }
    let dtype = n.dtype(x)?;
    let Some(entry) = n.inline(graph, &[x])?.into_iter().next() else {
        return n.bad_attr(name, "a graph of one output");
    };
    let y = n.entry_value(entry)?;
    n.cast(y, dtype)
}
