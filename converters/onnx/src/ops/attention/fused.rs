//! Attention as onnxruntime's optimizer writes it: with the projection before it, masks of words, and past keys.

use super::{Result, Scoring, ahead, attend, excluding, heads, join_heads, rotated, scalar_size, split_heads};
use crate::ops::quantize;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

/// What masks a word, by default.
const FILTER: f32 = -10000.0;

pub(super) fn attention(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, bias) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    check_projection(n, x, weight)?;
    let mut all = n.matmul(x, weight, false, false)?;
    if let Some(bias) = bias {
        all = n.add(all, bias)?;
    }
    let parts = n.ints("qkv_hidden_sizes")?.filter(|s| !s.is_empty());
    n.ignore("rotary_embedding_dim");
    let (mask, past, added) = (n.optional(3)?, n.optional(4)?, n.optional(5)?);
    n.ignore_input(6);
    projected_attention(n, all, parts, mask, (past, added))
}

/// [`attention`] whose input and weight are quantized.
pub(super) fn quantized_attention(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, bias) = (n.input(0)?, n.input(1)?, n.input(2)?);
    check_projection(n, x, weight)?;
    let (x_scale, weight_scale) = (n.input(3)?, n.input(4)?);
    let (x_zero, weight_zero) = (n.optional(6)?, n.optional(7)?);
    let all = quantize::scaled_product(n, (x, x_scale, x_zero), (weight, weight_scale, weight_zero))?;
    let all = n.cast(all, n.dtype(bias)?)?;
    let all = n.add(all, bias)?;
    let (mask, past) = (n.optional(5)?, n.optional(8)?);
    projected_attention(n, all, None, mask, (past, None))
}

fn check_projection(n: &Lower<'_>, x: Value, weight: Value) -> Result<()> {
    if n.rank(x)? != 3 || n.rank(weight)? != 2 {
        return Err(LowerError::form(format!("a projection of {} by {}", n.ty(x)?, n.ty(weight)?)));
    }
    Ok(())
}

/// Attention of `all`, `[b, t, q + k + v]`, to itself and to what `past`, `[2, b, h, p, d]`, has.
fn projected_attention(
    n: &mut Lower<'_>,
    all: Value,
    parts: Option<Vec<i64>>,
    mask: Option<Value>,
    (past, added): (Option<Value>, Option<Value>),
) -> Lowered {
    if n.switch("do_rotary", false)? {
        return n.bad_attr("do_rotary", "0, angles are turned by `RotaryEmbedding`");
    }
    unshared(n)?;
    let of_heads = heads(n, "num_heads")?;
    let Some(width) = n.shape(all)?[2].as_known() else {
        return Err(LowerError::NotFixed { what: "the size of a head".into() });
    };
    let parts = match parts {
        None if width % 3 == 0 => vec![width / 3; 3],
        None => return Err(LowerError::form(format!("queries, keys and values of {width} elements together"))),
        Some(parts) => parts,
    };
    let sum = parts.iter().try_fold(0i64, |sum, part| sum.checked_add(*part));
    if parts.len() != 3 || sum != Some(width) || parts.iter().any(|p| *p < 1 || p % of_heads != 0) {
        return n.bad_attr("qkv_hidden_sizes", format!("3 multiples of {of_heads}, {width} together"));
    }
    let mut at = 0;
    let mut part = |n: &mut Lower<'_>, size: i64| {
        let x = n.slice(all, 2, at, Some(at + size))?;
        at += size;
        split_heads(n, x, of_heads)
    };
    let (q, mut k, mut v) = (part(n, parts[0])?, part(n, parts[1])?, part(n, parts[2])?);
    let mut before = None;
    if let Some(past) = past {
        if n.rank(past)? != 5 {
            return Err(LowerError::form(format!("past keys and values of {}", n.ty(past)?)));
        }
        before = Some(scalar_size(n, past, 3)?);
        let one = |n: &mut Lower<'_>, i: i64| {
            let one = n.slice(past, 0, i, Some(i + 1))?;
            n.squeeze(one, &[0])
        };
        let (past_k, past_v) = (one(n, 0)?, one(n, 1)?);
        (k, v) = (n.concat(vec![past_k, k], 2)?, n.concat(vec![past_v, v], 2)?);
    }
    let bias = bias(n, [q, k], mask, added, before)?;
    let (y, _) = attend(n, [q, k, v], &scoring(n, q, bias)?, None)?;
    let mut results = vec![Entry::Value(join_heads(n, y)?)];
    if n.wants(1) {
        results.push(Entry::Value(n.op(ops::Stack { values: vec![k, v], axis: 0 })?));
    }
    Ok(results)
}

/// Refuses a state that is written where it was read from.
fn unshared(n: &Lower<'_>) -> Result<()> {
    if n.switch("past_present_share_buffer", false)? {
        return n.bad_attr("past_present_share_buffer", "0, results of their own");
    }
    Ok(())
}

fn scoring(n: &Lower<'_>, q: Value, bias: Option<Value>) -> Result<Scoring> {
    Ok(Scoring {
        scale: n.float("scale")?.filter(|s| *s != 0.0),
        softcap: 0.0,
        bias,
        may_be_empty: false,
        precision: n.dtype(q)?,
        sink: None,
    })
}

/// What is added to scores, for queries and keys of `[b, h, t, d]`, of which `before` come before the first query.
fn bias(
    n: &mut Lower<'_>,
    [q, k]: [Value; 2],
    mask: Option<Value>,
    added: Option<Value>,
    before: Option<Value>,
) -> Result<Option<Value>> {
    let filter = n.float_or("mask_filter_value", FILTER)?;
    let mut all = vec![];
    if let Some(mask) = mask {
        let allowed = allowed(n, mask, q, k)?;
        let (zero, low) = (n.scalar_like(q, 0.0)?, n.scalar_like(q, filter.into())?);
        all.push(n.select(allowed, zero, low)?);
    }
    if n.switch("unidirectional", false)? {
        let (ahead, zero) = (ahead(n, q, k, before)?, n.const_int(0)?);
        let allowed = n.op(ops::LessEqual { x: ahead, y: zero })?;
        all.push(excluding(n, allowed, q)?);
    }
    if let Some(added) = added {
        if n.rank(added)? != 4 {
            return Err(LowerError::form(format!("what is added to scores of {}", n.ty(added)?)));
        }
        all.push(n.cast(added, n.dtype(q)?)?);
    }
    let mut sum = None;
    for one in all {
        sum = Some(match sum {
            Some(sum) => n.add(sum, one)?,
            None => one,
        });
    }
    Ok(sum)
}

/// Whether each key takes part, from a mask of words or from where they begin and end.
fn allowed(n: &mut Lower<'_>, mask: Value, q: Value, k: Value) -> Result<Value> {
    let shape = n.shape(mask)?;
    let axes: &[i64] = match shape.rank() {
        1 => return between(n, mask, q, k),
        2 => &[1, 2],
        3 => &[1],
        _ => return Err(LowerError::form(format!("a mask of {}", n.ty(mask)?))),
    };
    let mask = if n.dtype(mask)? == DType::Bool {
        mask
    } else {
        let zero = n.scalar_like(mask, 0.0)?;
        n.less(zero, mask)?
    };
    n.expand_dims(mask, axes)
}

/// Whether each key lies before the ends that `mask` has for each sequence, and not before the starts that it may have.
fn between(n: &mut Lower<'_>, mask: Value, q: Value, k: Value) -> Result<Value> {
    let (have, batch) = (n.shape(mask)?[0].clone(), n.shape(q)?[0].clone());
    let key = n.counted(k, 2, DType::I32)?;
    if have == batch {
        let ends = n.reshape_to(mask, &[-1, 1, 1, 1])?;
        return n.less(key, ends);
    }
    if have != &batch * 2 {
        return Err(LowerError::form(format!("a mask of {}, for {batch} sequences,", n.ty(mask)?)));
    }
    let bounds = n.reshape(mask, &[Size::Known(2), Size::Of(q, 0), Size::Known(1), Size::Known(1), Size::Known(1)])?;
    let bound = |n: &mut Lower<'_>, i: i64| {
        let one = n.slice(bounds, 0, i, Some(i + 1))?;
        n.squeeze(one, &[0])
    };
    let (ends, starts) = (bound(n, 0)?, bound(n, 1)?);
    let begun = n.op(ops::GreaterEqual { x: key, y: starts })?;
    let open = n.less(key, ends)?;
    n.and(begun, open)
}

pub(super) fn multi_head_attention(n: &mut Lower<'_>) -> Lowered {
    let of_heads = heads(n, "num_heads")?;
    unshared(n)?;
    let (query, key, value, biases) = (n.input(0)?, n.optional(1)?, n.optional(2)?, n.optional(3)?);
    let (mask, added) = (n.optional(4)?, n.optional(5)?);
    let past = (n.optional(6)?, n.optional(7)?);
    let parts = unpacked(n, query, key, value)?;
    let widths = parts.iter().map(|v| n.shape(*v).map(|s| s.last().and_then(|d| d.as_known())));
    let widths = widths.collect::<Result<Vec<_>>>()?;
    let mut at = Some(0);
    let mut split = vec![];
    for (part, width) in parts.iter().zip(widths) {
        if n.rank(*part)? == 4 {
            // Keys and values of another sequence, that have been projected with their biases.
            split.push(*part);
            continue;
        }
        let mut x = *part;
        if let Some(biases) = biases {
            let (Some(from), Some(width)) = (at, width) else {
                return Err(LowerError::NotFixed { what: "the bias of queries, keys and values".into() });
            };
            if n.rank(biases)? != 1 {
                return Err(LowerError::form(format!("a bias of {}", n.ty(biases)?)));
            }
            let bias = n.slice(biases, 0, from, Some(from.saturating_add(width)))?;
            x = n.add(x, bias)?;
            at = from.checked_add(width);
        }
        split.push(split_heads(n, x, of_heads)?);
    }
    let [q, mut k, mut v] = split[..] else { return Err(LowerError::Poisoned) };
    let mut before = None;
    match past {
        (Some(past_k), Some(past_v)) => {
            before = Some(scalar_size(n, past_k, 2)?);
            (k, v) = (n.concat(vec![past_k, k], 2)?, n.concat(vec![past_v, v], 2)?);
        }
        (None, None) => {}
        _ => return Err(LowerError::not_yet("past keys without past values")),
    }
    let bias = bias(n, [q, k], mask, added, before)?;
    // What is shown has everything that is added.
    let (y, shown) = attend(n, [q, k, v], &scoring(n, q, bias)?, n.wants(3).then_some(2))?;
    let results = [Some(join_heads(n, y)?), Some(k), Some(v), shown];
    Ok(results.into_iter().take(n.output_count().max(1)).map(|r| r.map_or(Entry::Poisoned, Entry::Value)).collect())
}

/// Queries, keys and values, `[b, t, h * d]` each; keys and values may be `[b, h, t, d]`.
fn unpacked(n: &mut Lower<'_>, query: Value, key: Option<Value>, value: Option<Value>) -> Result<Vec<Value>> {
    let ranks = [Some(query), key, value].map(|v| v.map(|v| n.rank(v)));
    let ranks = [ranks[0].clone().transpose()?, ranks[1].clone().transpose()?, ranks[2].clone().transpose()?];
    match (ranks, key, value) {
        ([Some(5), None, None], ..) => (0..3).map(|i| one_of(n, query, i)).collect(),
        ([Some(3), Some(5), None], Some(key), _) => Ok(vec![query, one_of(n, key, 0)?, one_of(n, key, 1)?]),
        ([Some(3), Some(3), Some(3)] | [Some(3), Some(4), Some(4)], Some(key), Some(value)) => {
            Ok(vec![query, key, value])
        }
        ([_, None, _], ..) => Err(LowerError::MissingInput { index: 1 }),
        ([_, _, None], ..) => Err(LowerError::MissingInput { index: 2 }),
        ([q, k, v], ..) => {
            let said = [q, k, v].map(|r| r.unwrap_or(0));
            Err(LowerError::form(format!("queries, keys and values of ranks {said:?}")))
        }
    }
}

/// Number `i` of what `packed`, `[b, t, h, several, d]`, holds, as `[b, t, h * d]`.
fn one_of(n: &mut Lower<'_>, packed: Value, i: i64) -> Result<Value> {
    let one = n.slice(packed, 3, i, Some(i + 1))?;
    n.reshape(one, &[Size::Of(packed, 0), Size::Of(packed, 1), Size::Rest])
}

pub(super) fn rotary_embedding(n: &mut Lower<'_>) -> Lowered {
    let (source, places, cos, sin) = (n.input(0)?, n.input(1)?, n.input(2)?, n.input(3)?);
    if n.switch("is_packed_batching", false)? {
        return n.bad_attr("is_packed_batching", "0");
    }
    if n.float_or("scale", 1.0)? != 1.0 {
        return n.bad_attr("scale", "1");
    }
    let size = match n.int_or("rotary_embedding_dim", 0)? {
        0 => None,
        size => Some(size),
    };
    let interleaved = n.switch("interleaved", false)?;
    let pairs = pairs(n, cos, sin)?;
    let (x, axis) = match n.rank(source)? {
        4 => {
            n.ignore("num_heads");
            (source, 1)
        }
        3 => {
            // Where nothing is left as it is, the angles tell the size of a head.
            let head = match (n.int_or("num_heads", 0)?, size) {
                (0, Some(_)) => return Err(LowerError::MissingAttr { name: "num_heads" }),
                (0, None) => [Size::Rest, Size::Known(pairs.saturating_mul(2))],
                (of_heads, _) => [Size::Known(of_heads), Size::Rest],
            };
            (n.reshape(source, &[Size::Of(source, 0), Size::Of(source, 1), head[0], head[1]])?, 2)
        }
        _ => return Err(LowerError::form(format!("turning {}", n.ty(source)?))),
    };
    let places = match n.rank(places)? {
        // The place of the first of each sequence.
        1 => {
            let time = n.counted(source, if axis == 1 { 2 } else { 1 }, DType::I32)?;
            let places = n.add(time, places)?;
            n.expand_dims(places, &[0])?
        }
        2 => places,
        _ => return Err(LowerError::form(format!("places of {}", n.ty(places)?))),
    };
    let angles = [n.gather(cos, places, 0)?, n.gather(sin, places, 0)?];
    let turned = Some(size.unwrap_or(pairs.saturating_mul(2)));
    let mut y = rotated(n, x, angles, axis, (turned, interleaved))?;
    if axis == 2 {
        y = n.reshape_as(y, source)?;
    }
    n.done(y)
}

/// How many pairs of a head the tables have angles for.
pub(super) fn pairs(n: &Lower<'_>, cos: Value, sin: Value) -> Result<i64> {
    let (a, b) = (n.shape(cos)?, n.shape(sin)?);
    match (a.rank(), b.rank(), a.last().and_then(|d| d.as_known())) {
        (2, 2, Some(pairs)) if a[1].may_equal(&b[1]) => Ok(pairs),
        (2, 2, None) => Err(LowerError::NotFixed { what: "how much of a head is turned".into() }),
        _ => Err(LowerError::form(format!("angles of {} and {}", n.ty(cos)?, n.ty(sin)?))),
    }
}
