//! Attention.

use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered, Size,
    layers::attention::{Scoring, ahead, attend, excluding, repeat_heads},
};
use mlconv_tensor::DType;

aten! {
    "scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0, bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> Tensor" => |n| {
        let y = attention(n, "attn_mask")?.0;
        n.done(y)
    };
    "_scaled_dot_product_attention_math(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0, bool is_causal=False, Tensor? dropout_mask=None, *, float? scale=None, bool enable_gqa=False) -> (Tensor, Tensor)",
    "_scaled_dot_product_attention_math_for_mps(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0, bool is_causal=False, Tensor? dropout_mask=None, *, float? scale=None, bool enable_gqa=False) -> (Tensor, Tensor)",
    "_scaled_dot_product_flash_attention_for_cpu(Tensor query, Tensor key, Tensor value, float dropout_p=0.0, bool is_causal=False, *, Tensor? attn_mask=None, float? scale=None) -> (Tensor output, Tensor logsumexp)" => |n| among_others(n, "attn_mask");
    "_scaled_dot_product_flash_attention(Tensor query, Tensor key, Tensor value, float dropout_p=0.0, bool is_causal=False, bool return_debug_mask=False, *, float? scale=None) -> (Tensor output, Tensor logsumexp, Tensor cum_seq_q, Tensor cum_seq_k, SymInt max_q, SymInt max_k, Tensor rng_state, Tensor unused, Tensor debug_attn_mask)",
    "_scaled_dot_product_fused_attention_overrideable(Tensor query, Tensor key, Tensor value, Tensor? attn_bias=None, float dropout_p=0.0, bool is_causal=False, bool return_debug_mask=False, *, float? scale=None) -> (Tensor output, Tensor logsumexp, Tensor cum_seq_q, Tensor cum_seq_k, SymInt max_q, SymInt max_k, Tensor philox_seed, Tensor philox_offset, Tensor debug_attn_mask)",
    "_scaled_dot_product_efficient_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_bias, bool compute_log_sumexp, float dropout_p=0.0, bool is_causal=False, *, float? scale=None) -> (Tensor output, Tensor log_sumexp, Tensor philox_seed, Tensor philox_offset)",
    "_scaled_dot_product_cudnn_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_bias, bool compute_log_sumexp, float dropout_p=0.0, bool is_causal=False, bool return_debug_mask=False, *, float? scale=None) -> (Tensor output, Tensor logsumexp, Tensor cum_seq_q, Tensor cum_seq_k, SymInt max_q, SymInt max_k, Tensor philox_seed, Tensor philox_offset, Tensor debug_attn_mask)" => |n| {
        n.ignore("compute_log_sumexp");
        n.ignore("return_debug_mask");
        among_others(n, "attn_bias")
    };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The result among those that are kept for training.
fn among_others(n: &mut Lower<'_>, mask: &'static str) -> Lowered {
    n.ignore("dropout_mask");
    let (y, [q, k], scoring) = attention(n, mask)?;
    let mut out = n.done(y)?;
    if n.output_count() == 2 && n.rank(y)? == 4 {
        // The logarithm of what shares are divided by.
        let size = n.shape(q)?[3].as_known().ok_or_else(|| LowerError::NotFixed { what: "the scale".into() })?;
        let scale = scoring.scale.map_or(1.0 / (size as f64).sqrt(), f64::from);
        let query = n.scale(q, scale)?;
        let mut x = n.matmul(query, k, false, true)?;
        if let Some(bias) = scoring.bias {
            x = n.add(x, bias)?;
        }
        let axes = Some(vec![-1]);
        out.extend(n.emit(ops::ReduceLogSumExp { x, axes, keep_dims: false })?);
    }
    out.resize(n.output_count().max(1), Entry::Nothing);
    Ok(out)
}

/// `v` with four axes: `[1, .., t, e]`, or with the first axes made one.
fn four(n: &mut Lower<'_>, v: Value) -> Result<Value> {
    match n.rank(v)? {
        rank @ 2..=4 => n.expand_dims(v, &(0..4 - rank as i64).collect::<Vec<_>>()),
        rank @ 5.. => n.merge_axes(v, 0, rank - 3),
        rank => Err(LowerError::form(format!("attention on rank {rank}"))),
    }
}

/// The result, and the queries and keys and how they were scored.
fn attention(n: &mut Lower<'_>, mask: &'static str) -> Result<(Value, [Value; 2], Scoring)> {
    let (query, key, value) = (n.value("query")?, n.value("key")?, n.value("value")?);
    if n.number("dropout_p")?.unwrap_or(0.0) != 0.0 {
        return Err(LowerError::form_but("dropout while training", "export the model in the mode for evaluation"));
    }
    let (grouped, causal) = (n.flag("enable_gqa", false)?, n.flag("is_causal", false)?);
    let (scale, mask) = (n.number("scale")?, n.maybe(mask)?);
    let rank = n.rank(query)?;
    if n.rank(key)? != rank || n.rank(value)? != rank {
        return Err(LowerError::form("attention on tensors of unlike rank"));
    }
    let (q, mut k, mut v) = (four(n, query)?, four(n, key)?, four(n, value)?);
    let mask = match mask {
        Some(mask) if rank > 4 && n.rank(mask)? > 2 => {
            // Its first axes become one as well, which they must have in full.
            let (of_mask, of_query) = (n.shape(mask)?, n.shape(query)?);
            if of_mask.rank() != rank || of_mask[..rank - 3] != of_query[..rank - 3] {
                return Err(LowerError::form("a mask that is broadcast to such a rank"));
            }
            Some(four(n, mask)?)
        }
        mask => mask,
    };
    if grouped {
        (k, v) = (repeat_heads(n, k, q)?, repeat_heads(n, v, q)?);
    }
    let mut allowed = None;
    let mut bias = None;
    if let Some(mask) = mask {
        if n.dtype(mask)? == DType::Bool {
            allowed = Some(mask);
        } else {
            bias = Some(n.cast(mask, n.dtype(q)?)?);
        }
    }
    if causal {
        let (ahead, zero) = (ahead(n, q, k, None)?, n.const_int(0)?);
        let past = n.op(ops::LessEqual { x: ahead, y: zero })?;
        allowed = Some(match allowed {
            Some(allowed) => n.and(allowed, past)?,
            None => past,
        });
    }
    if let Some(allowed) = allowed {
        let excluded = excluding(n, allowed, q)?;
        bias = Some(match bias {
            Some(bias) => n.add(bias, excluded)?,
            None => excluded,
        });
    }
    if let Some(b) = bias {
        bias = Some(over_keys(n, b, k)?);
    }
    let precision = n.dtype(q)?;
    let scoring = Scoring {
        scale: scale.map(|s| s as f32),
        softcap: 0.0,
        bias,
        may_be_empty: mask.is_some(),
        precision,
        sink: None,
    };
    let (k, v) = (batches_of(n, k, q)?, batches_of(n, v, q)?);
    let (y, _) = attend(n, [q, k, v], &scoring, None)?;
    let y = match rank {
        2..=4 => n.squeeze(y, &(0..4 - rank as i64).collect::<Vec<_>>())?,
        _ => {
            let mut sizes = n.own_sizes(query)?;
            if let Some(last) = sizes.last_mut() {
                *last = Size::Of(value, rank - 1);
            }
            n.reshape(y, &sizes)?
        }
    };
    Ok((y, [q, k], scoring))
}

/// `bias` with a last axis of as many keys as there are; one for all is repeated.
fn over_keys(n: &mut Lower<'_>, bias: Value, k: Value) -> Result<Value> {
    let bias = n.at_least_1d(bias)?;
    let keys = n.shape(k)?[2].clone();
    if n.shape(bias)?.last().is_none_or(|d| !d.is(1) || keys.is(1)) {
        return Ok(bias);
    }
    let mut sizes = n.own_sizes(bias)?;
    if let Some(last) = sizes.last_mut() {
        *last = Size::Of(k, 2);
    }
    let shape = n.sizes_exactly(&sizes)?;
    n.broadcast_to(bias, shape)
}

/// `v` with the batches and heads of `q`; one for all is repeated.
fn batches_of(n: &mut Lower<'_>, v: Value, q: Value) -> Result<Value> {
    let (own, want) = (n.shape(v)?, n.shape(q)?);
    if (0..2).all(|i| own[i] == want[i] || !own[i].is(1)) {
        return Ok(v);
    }
    let mut sizes = n.own_sizes(v)?;
    for (i, size) in sizes.iter_mut().enumerate().take(2) {
        *size = Size::Of(q, i);
    }
    let shape = n.sizes_exactly(&sizes)?;
    n.broadcast_to(v, shape)
}
