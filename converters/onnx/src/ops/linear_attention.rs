//! Layers that carry a state from one call to the next.

use super::attention::heads;
use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

rows! {
    "CausalConvWithState" 27..=LATEST => causal_conv;
    "LinearAttention" 27..=LATEST => linear_attention;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Steps beyond which a recurrence is not written out.
const MAX_STEPS: i64 = 256;

/// A convolution of each channel over what came before, which the state or zeros stand for at first.
fn causal_conv(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, bias, past) = (n.input(0)?, n.input(1)?, n.optional(2)?, n.optional(3)?);
    let gated = match n.str_or("activation", "none")? {
        "none" | "" => false,
        "silu" | "swish" => true,
        _ => return n.bad_attr("activation", "`none`, `silu` or `swish`"),
    };
    let sizes = n.fixed_shape(weight, "the kernel")?;
    let (channels, kernel) = match sizes.as_slice() {
        [channels, 1, kernel] if *kernel >= 1 => (*channels, *kernel),
        _ => return Err(LowerError::form(format!("a kernel of shape {sizes:?}"))),
    };
    let before = kernel - 1;
    let padded = match past {
        Some(past) if before > 0 => n.concat(vec![past, x], 2)?,
        _ => n.pad(x, &[0, 0, 0, 0, before, 0], 0.0)?,
    };
    let fused = bias.filter(|b| n.const_of(*b).is_some());
    let mut y = n.op(ops::Conv {
        x: padded,
        weight,
        bias: fused,
        strides: vec![1],
        pad_type: ops::PadType::Valid,
        pad: vec![0, 0],
        dilations: vec![1],
        groups: channels,
    })?;
    if let Some(bias) = bias.filter(|b| fused != Some(*b)) {
        let bias = n.expand_dims(bias, &[1])?;
        y = n.add(y, bias)?;
    }
    if gated {
        y = n.op(ops::Silu { x: y })?;
    }
    let mut results = n.done(y)?;
    if n.wants(1) {
        if before == 0 {
            return Err(LowerError::core_ml("the state of a kernel of one element, which is empty,"));
        }
        results.push(Entry::Value(n.slice(padded, 2, -before, None)?));
    }
    Ok(results)
}

/// One step after the other; heads of queries that share a state are rows of one product.
fn linear_attention(n: &mut Lower<'_>) -> Lowered {
    n.ignore("chunk_size");
    let rule = n.str_or("update_rule", "gated_delta")?.to_owned();
    let (gated, delta) = match rule.as_str() {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        _ => return n.bad_attr("update_rule", "`linear`, `gated`, `delta` or `gated_delta`"),
    };
    let (q_heads, kv_heads) = (heads(n, "q_num_heads")?, heads(n, "kv_num_heads")?);
    if q_heads % kv_heads != 0 {
        return n.bad_attr("q_num_heads", format!("a multiple of {kv_heads}"));
    }
    let (query, key, value) = (n.input(0)?, n.input(1)?, n.input(2)?);
    if [query, key, value].iter().any(|v| n.rank(*v).ok() != Some(3)) {
        return Err(LowerError::form("linear attention on tensors that are not of rank 3"));
    }
    let shape = n.shape(query)?;
    let (Some(steps), Some(width)) = (shape[1].as_known(), shape[2].as_known()) else {
        return Err(LowerError::NotFixed { what: "linear attention, written out,".into() });
    };
    if !(1..=MAX_STEPS).contains(&steps) {
        return Err(LowerError::form(format!("linear attention over {steps} steps")));
    }
    let size = width / q_heads;
    let scale = match n.float_or("scale", 0.0)? {
        0.0 => 1.0 / (size.max(1) as f64).sqrt(),
        scale => f64::from(scale),
    };
    // The state is computed in single precision, whatever its type.
    let result = n.dtype(query)?;
    let past = n.optional(3)?;
    let state_type = past.map_or(Ok(result), |p| n.dtype(p))?;
    let split = |n: &mut Lower<'_>, v: Value, sizes: &[Size]| -> Result<Value> {
        let v = n.cast(v, DType::F32)?;
        let sizes: Vec<Size> = [Size::Of(v, 0), Size::Of(v, 1)].into_iter().chain(sizes.iter().copied()).collect();
        n.reshape(v, &sizes)
    };
    let (heads, group) = (Size::Known(kv_heads), Size::Known(q_heads / kv_heads));
    let queries = split(n, query, &[heads, group, Size::Rest])?;
    let queries = n.scale(queries, scale)?;
    let keys = split(n, key, &[heads, Size::Known(1), Size::Rest])?;
    let values = split(n, value, &[heads, Size::Known(1), Size::Rest])?;
    let decay = match n.optional(4)? {
        Some(v) if gated => {
            let decay = split(n, v, &[heads, Size::Rest, Size::Known(1)])?;
            Some(n.exp(decay)?)
        }
        None if gated => return Err(LowerError::MissingInput { index: 4 }),
        _ => None,
    };
    let beta = match n.optional(5)? {
        Some(v) if delta => Some(split(n, v, &[Size::Rest, Size::Known(1), Size::Known(1)])?),
        None if delta => return Err(LowerError::MissingInput { index: 5 }),
        _ => None,
    };
    let mut state = match past {
        Some(past) => Some(n.cast(past, DType::F32)?),
        None => None,
    };
    let mut outputs = vec![];
    for step in 0..steps {
        let at = |n: &mut Lower<'_>, v: Value| {
            let v = n.slice(v, 1, step, Some(step + 1))?;
            n.squeeze(v, &[1])
        };
        let (q, k, mut v) = (at(n, queries)?, at(n, keys)?, at(n, values)?);
        if let (Some(decay), Some(old)) = (decay, state) {
            let decay = at(n, decay)?;
            state = Some(n.mul(old, decay)?);
        }
        if let Some(beta) = beta {
            if let Some(state) = state {
                let known = n.matmul(k, state, false, false)?;
                v = n.sub(v, known)?;
            }
            let beta = at(n, beta)?;
            v = n.mul(v, beta)?;
        }
        let written = n.matmul(k, v, true, false)?;
        let next = match state {
            Some(state) => n.add(state, written)?,
            None => written,
        };
        let y = n.matmul(q, next, false, false)?;
        outputs.push(n.expand_dims(y, &[1])?);
        state = Some(next);
    }
    let y = n.concat(outputs, 1)?;
    let y = n.reshape(y, &[Size::Of(query, 0), Size::Known(steps), Size::Rest])?;
    let state = state.ok_or(LowerError::Poisoned)?;
    let (y, state) = (n.cast(y, result)?, n.cast(state, state_type)?);
    let mut results = vec![Entry::Value(y), Entry::Value(state)];
    results.truncate(n.output_count().max(1));
    Ok(results)
}
