//! Attention.

use crate::{LATEST, tensor};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered, Size,
    layers::attention::{Scoring, ahead, attend, excluding, repeat_heads, scalar_size},
};
use mlconv_tensor::DType;

mod causal_conv;
mod flex;
mod fused;
mod group_query;
mod linear;

rows! {
    "Attention" 23..=LATEST => attention;
    "CausalConvWithState" 27..=LATEST => causal_conv::causal_conv;
    #["ai.onnx.preview"] "FlexAttention" 1..=LATEST => flex::flex_attention;
    "LinearAttention" 27..=LATEST => linear::linear_attention;
    "RotaryEmbedding" 23..=LATEST => rotary_embedding;
    #["com.microsoft"] "Attention" 1..=LATEST => fused::attention;
    #["com.microsoft"] "GroupQueryAttention" 1..=LATEST => group_query::group_query_attention;
    #["com.microsoft"] "MultiHeadAttention" 1..=LATEST => fused::multi_head_attention;
    #["com.microsoft"] "QAttention" 1..=LATEST => fused::quantized_attention;
    #["com.microsoft"] "RotaryEmbedding" 1..=LATEST => fused::rotary_embedding;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The number of heads that attribute `name` says.
pub(super) fn heads(n: &Lower<'_>, name: &'static str) -> Result<i64> {
    match n.int(name)? {
        Some(heads) if (1..1 << 31).contains(&heads) => Ok(heads),
        Some(_) => n.bad_attr(name, "at least 1"),
        None => Err(LowerError::MissingAttr { name }),
    }
}

/// `[b, t, heads * d]` as `[b, heads, t, d]`.
fn split_heads(n: &mut Lower<'_>, x: Value, heads: i64) -> Result<Value> {
    let x = n.reshape(x, &[Size::Of(x, 0), Size::Of(x, 1), Size::Known(heads), Size::Rest])?;
    n.transpose(x, &[0, 2, 1, 3])
}

/// `[b, heads, t, d]` as `[b, t, heads * d]`.
fn join_heads(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let x = n.transpose(x, &[0, 2, 1, 3])?;
    n.reshape(x, &[Size::Of(x, 0), Size::Of(x, 1), Size::Rest])
}

fn attention(n: &mut Lower<'_>) -> Lowered {
    let (mut q, mut k, mut v) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let packed = n.rank(q)? == 3;
    if packed {
        let (of_q, of_k) = (heads(n, "q_num_heads")?, heads(n, "kv_num_heads")?);
        q = split_heads(n, q, of_q)?;
        k = split_heads(n, k, of_k)?;
        v = split_heads(n, v, of_k)?;
    } else {
        n.ignore("q_num_heads");
        n.ignore("kv_num_heads");
    }
    if [q, k, v].iter().any(|x| n.rank(*x).ok() != Some(4)) {
        return Err(LowerError::form("attention on tensors that are not all of rank 3 or 4"));
    }
    let past = n.optional(4)?;
    if let Some(past) = past {
        k = n.concat(vec![past, k], 2)?;
    }
    if let Some(past) = n.optional(5)? {
        v = n.concat(vec![past, v], 2)?;
    }
    let (present_k, present_v) = (k, v);
    let dtype = n.dtype(q)?;
    v = n.cast(v, dtype)?;
    let (bias, may_be_empty) = bias(n, q, k, past)?;
    (k, v) = (repeat_heads(n, k, q)?, repeat_heads(n, v, q)?);

    let scoring = Scoring {
        scale: n.float("scale")?,
        softcap: n.float_or("softcap", 0.0)?,
        bias,
        may_be_empty,
        precision: precision(n)?.unwrap_or(dtype),
        sink: None,
    };
    let mode = n.int_or("qk_matmul_output_mode", 0)?;
    let (mut y, shown) = attend(n, [q, k, v], &scoring, n.wants(3).then_some(mode))?;
    if packed {
        y = join_heads(n, y)?;
    }
    let results = [Some(y), Some(present_k), Some(present_v), shown];
    Ok(results.into_iter().take(n.output_count().max(1)).map(|r| r.map_or(Entry::Poisoned, Entry::Value)).collect())
}

/// The element type in which softmax is to be computed, where the node says.
fn precision(n: &Lower<'_>) -> Result<Option<DType>> {
    let Some(code) = n.int("softmax_precision")? else { return Ok(None) };
    match i32::try_from(code).ok().and_then(tensor::dtype) {
        Some(DType::F16) => Ok(Some(DType::F16)),
        Some(DType::F32 | DType::F64 | DType::Bf16) => Ok(Some(DType::F32)),
        _ => n.bad_attr("softmax_precision", "a float type"),
    }
}

/// What is added to the scores, and whether it may exclude all keys of a query.
fn bias(n: &mut Lower<'_>, q: Value, k: Value, past: Option<Value>) -> Result<(Option<Value>, bool)> {
    let (mask, lengths) = (n.optional(3)?, n.optional(6)?);
    let causal = n.flag("is_causal", false)?;
    let (left, right) = (n.int_or("left_window_size", -1)?, n.int_or("right_window_size", -1)?);
    let mut allowed = vec![];
    if causal || left >= 0 || right >= 0 {
        // Queries are the last ones of the sequence.
        let before = match (past, lengths) {
            (Some(past), _) => Some(scalar_size(n, past, 2)?),
            (None, Some(lengths)) => {
                let own = scalar_size(n, q, 2)?;
                let before = n.sub(lengths, own)?;
                Some(n.reshape_to(before, &[-1, 1, 1, 1])?)
            }
            (None, None) => None,
        };
        let ahead = ahead(n, q, k, before)?;
        let bound = if causal { Some(0) } else { (right >= 0).then_some(right) };
        if let Some(bound) = bound {
            let y = n.const_int(bound)?;
            allowed.push(n.op(ops::LessEqual { x: ahead, y })?);
        }
        if left >= 0 {
            let y = n.const_int(-left)?;
            allowed.push(n.op(ops::GreaterEqual { x: ahead, y })?);
        }
    }
    if let Some(lengths) = lengths {
        let (zero, one, end) = (n.const_int(0)?, n.const_int(1)?, scalar_size(n, k, 2)?);
        let key = n.op(ops::Range1d { end, start: zero, step: one })?;
        let lengths = n.reshape_to(lengths, &[-1, 1, 1, 1])?;
        allowed.push(n.less(key, lengths)?);
    }
    let mut added = None;
    if let Some(mask) = mask {
        let short = short_of(n, mask, k)?;
        if n.dtype(mask)? == DType::Bool && short == 0 {
            allowed.push(mask);
        } else {
            let mask = if n.dtype(mask)? == DType::Bool { excluding(n, mask, q)? } else { n.cast(mask, n.dtype(q)?)? };
            let mut pad = vec![0; 2 * n.rank(mask)?];
            if let Some(last) = pad.last_mut() {
                *last = short;
            }
            added = Some(n.pad(mask, &pad, f32::NEG_INFINITY)?);
        }
    }
    let narrow = left >= 0 || right >= 0;
    let may_be_empty = mask.is_some() || lengths.is_some() || narrow;
    let mut all: Option<Value> = None;
    for one in allowed {
        all = Some(match all {
            Some(all) => n.and(all, one)?,
            None => one,
        });
    }
    let bias = match (all, added) {
        (None, added) => added,
        (Some(all), None) => Some(excluding(n, all, q)?),
        (Some(all), Some(added)) => {
            let all = excluding(n, all, q)?;
            Some(n.add(all, added)?)
        }
    };
    Ok((bias, may_be_empty))
}

/// By how many keys `mask` is too short.
fn short_of(n: &Lower<'_>, mask: Value, k: Value) -> Result<i64> {
    let shape = n.shape(mask)?;
    let (Some(have), Some(want)) = (shape.last().and_then(|d| d.as_known()), n.shape(k)?[2].as_known()) else {
        return Ok(0);
    };
    Ok((want - have).max(0))
}

fn rotary_embedding(n: &mut Lower<'_>) -> Lowered {
    let (source, mut cos, mut sin) = (n.input(0)?, n.input(1)?, n.input(2)?);
    if let Some(indices) = n.optional(3)? {
        let mut at = |x| n.op(ops::Gather { x, indices, axis: 0, batch_dims: 0, validate_indices: false });
        (cos, sin) = (at(cos)?, at(sin)?);
    }
    let packed = n.rank(source)? == 3;
    let x = if packed {
        let heads = heads(n, "num_heads")?;
        n.reshape(source, &[Size::Of(source, 0), Size::Of(source, 1), Size::Known(heads), Size::Rest])?
    } else {
        n.ignore("num_heads");
        source
    };
    let turned = match n.int_or("rotary_embedding_dim", 0)? {
        0 => None,
        turned => Some(turned),
    };
    let interleaved = n.flag("interleaved", false)?;
    // The axis of the heads, along which angles are the same.
    let axis = if packed { 2 } else { 1 };
    let mut y = rotated(n, x, [cos, sin], axis, (turned, interleaved))?;
    if packed {
        y = n.reshape_as(y, source)?;
    }
    n.done(y)
}

/// Turns pairs of elements of heads by angles, as `cos` and `sin`, `[b, t, pairs]`, have them. `axis` of `x` has the
/// heads. Of each head, the first `turned` elements are turned.
fn rotated(
    n: &mut Lower<'_>,
    x: Value,
    [cos, sin]: [Value; 2],
    axis: i64,
    (turned, interleaved): (Option<i64>, bool),
) -> Result<Value> {
    let (cos, sin) = (n.expand_dims(cos, &[axis])?, n.expand_dims(sin, &[axis])?);
    let Some(size) = n.shape(x)?.get(3).and_then(|d| d.as_known()) else {
        return Err(LowerError::NotFixed { what: "the size of a head".into() });
    };
    let turned = turned.unwrap_or(size);
    if !(0..=size).contains(&turned) {
        return Err(LowerError::form(format!("turning {turned} elements of {size}")));
    }
    let part = if turned < size { n.slice(x, 3, 0, Some(turned))? } else { x };
    let (a, b) = if interleaved {
        (n.slice_by(part, &[(3, 0, None, 2)])?, n.slice_by(part, &[(3, 1, None, 2)])?)
    } else {
        (n.slice(part, 3, 0, Some(turned / 2))?, n.slice(part, 3, turned / 2, None)?)
    };
    let (cos_a, sin_b) = (n.mul(cos, a)?, n.mul(sin, b)?);
    let (sin_a, cos_b) = (n.mul(sin, a)?, n.mul(cos, b)?);
    let (real, imaginary) = (n.sub(cos_a, sin_b)?, n.add(sin_a, cos_b)?);
    let mut y = if interleaved {
        let pairs = [n.expand_dims(real, &[-1])?, n.expand_dims(imaginary, &[-1])?];
        let pairs = n.concat(pairs.to_vec(), -1)?;
        n.reshape_as(pairs, part)?
    } else {
        n.concat(vec![real, imaginary], 3)?
    };
    if turned < size {
        let rest = n.slice(x, 3, turned, None)?;
        y = n.concat(vec![y, rest], 3)?;
    }
    Ok(y)
}
