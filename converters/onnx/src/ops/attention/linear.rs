//! Attention by a state that every step writes to and reads from.

use super::{Result, heads};
use mlconv_mil::ir::Value;
use mlconv_source::layers::walk::Walk;
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

pub(super) fn linear_attention(n: &mut Lower<'_>) -> Lowered {
    let (query, key, value) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (past, decay, beta) = (n.optional(3)?, n.optional(4)?, n.optional(5)?);
    n.ignore("chunk_size");
    let (of_q, of_k) = (heads(n, "q_num_heads")?, heads(n, "kv_num_heads")?);
    if of_q % of_k != 0 {
        return n.bad_attr("q_num_heads", format!("a multiple of {of_k}"));
    }
    let (gated, corrected) = match n.str_or("update_rule", "gated_delta")? {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        _ => return n.bad_attr("update_rule", "`linear`, `gated`, `delta` or `gated_delta`"),
    };
    for (v, wanted, index) in [(decay, gated, 4), (beta, corrected, 5)] {
        match (v, wanted) {
            (None, true) => return Err(LowerError::MissingInput { index }),
            (Some(_), false) => return Err(LowerError::UnreadInput { index }),
            _ => {}
        }
    }
    let width = |n: &Lower<'_>, v: Value, heads: i64| match n.shape(v)?.get(2).and_then(|d| d.as_known()) {
        Some(size) if size > 0 && size % heads == 0 => Ok(size / heads),
        Some(size) => Err(LowerError::form(format!("{heads} heads in {size} elements"))),
        None => Err(LowerError::NotFixed { what: "the size of a head".into() }),
    };
    let (of_key, of_value) = (width(n, key, of_k)?, width(n, value, of_k)?);
    let scale = match n.float_or("scale", 0.0)? {
        0.0 => 1.0 / (of_key as f64).sqrt(),
        scale => f64::from(scale),
    };
    // Time comes first, and the query heads that share a key head stand together.
    let group = of_q / of_k;
    let q = split(n, query, [of_k, group, of_key])?;
    let q = n.scale(q, scale)?;
    let mut over = vec![q, split(n, key, [of_k, 1, of_key])?, split(n, value, [of_k, 1, of_value])?];
    if let Some(decay) = decay {
        let per_head = if width(n, decay, 1)? == of_k { 1 } else { of_key };
        let decay = split(n, decay, [of_k, per_head, 1])?;
        over.push(n.exp(decay)?);
    }
    if let Some(beta) = beta {
        let rates = width(n, beta, 1)?;
        over.push(split(n, beta, [rates, 1, 1])?);
    }
    let first = match past {
        Some(past) => n.cast(past, DType::F32)?,
        None => n.zeros(q, &[Size::Of(query, 0), Size::Known(of_k), Size::Known(of_key), Size::Known(of_value)])?,
    };
    let item = [Size::Of(query, 0), Size::Known(of_k), Size::Known(group), Size::Known(of_value)];
    let walk = Walk { over: &over, reverse: false, item: n.wants(0).then_some(&item) };
    let (state, sequence) = walk.run(n, &[first], &|n, items, state, _| {
        let ([q, k, v, rest @ ..], [state]) = (items, state) else { return Err(LowerError::Poisoned) };
        let (mut rest, mut state, mut v) = (rest.iter(), *state, *v);
        if gated && let Some(kept) = rest.next() {
            state = n.mul(state, *kept)?;
        }
        if corrected && let Some(rate) = rest.next() {
            let known = n.matmul(*k, state, false, false)?;
            v = n.sub(v, known)?;
            v = n.mul(v, *rate)?;
        }
        let written = n.matmul(*k, v, true, false)?;
        state = n.add(state, written)?;
        let y = n.matmul(*q, state, false, false)?;
        Ok((vec![state], y))
    })?;
    let y = match sequence {
        Some(y) => {
            let y = n.transpose(y, &[1, 0, 2, 3, 4])?;
            let y = n.reshape(y, &[Size::Of(query, 0), Size::Of(query, 1), Size::Known(of_q * of_value)])?;
            let dtype = n.dtype(query)?;
            Entry::Value(n.cast(y, dtype)?)
        }
        None => Entry::Poisoned,
    };
    let mut results = vec![y];
    if let (true, Some(state)) = (n.wants(1), state.first()) {
        let dtype = n.dtype(past.unwrap_or(query))?;
        results.push(Entry::Value(n.cast(*state, dtype)?));
    }
    Ok(results)
}

/// `[b, t, a * b * c]` as `f32[t, b, a, b, c]`.
fn split(n: &mut Lower<'_>, x: Value, [a, b, c]: [i64; 3]) -> Result<Value> {
    let wide = n.cast(x, DType::F32)?;
    let parts = n.transpose(wide, &[1, 0, 2])?;
    n.reshape(parts, &[Size::Of(x, 1), Size::Of(x, 0), Size::Known(a), Size::Known(b), Size::Known(c)])
}
