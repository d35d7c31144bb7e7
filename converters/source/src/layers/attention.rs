//! Attention: scores of keys, and the values that they share.

use crate::{Lower, LowerError, Size};
use mlconv_mil::{ir::Value, ops, schema::Opset};
use mlconv_tensor::DType;

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The size of `v` along an axis, as a scalar.
pub fn scalar_size(n: &mut Lower<'_>, v: Value, axis: usize) -> Result<Value> {
    let size = n.size_of(v, axis)?;
    n.squeeze(size, &[0])
}

/// How scores become shares.
pub struct Scoring {
    /// What scores are multiplied by; one over the root of the size of a head where it is absent.
    pub scale: Option<f32>,
    /// The bound that scores tend to; none where it is 0.
    pub softcap: f32,
    /// What is added to scores.
    pub bias: Option<Value>,
    /// Whether that may exclude all keys of a query, which then gets zeros.
    pub may_be_empty: bool,
    /// The element type in which shares are computed.
    pub precision: DType,
    /// A score of each head, `[1, h, 1, 1]` or a scalar, that takes a share and gives nothing.
    pub sink: Option<Value>,
}

/// Attention on tensors `[b, h, t, d]` of as many heads. `show` asks for a stage of the scores as well: 0 as they are, 1
/// bounded, 2 with what is added, 3 as shares.
pub fn attend(
    n: &mut Lower<'_>,
    [q, k, v]: [Value; 3],
    scoring: &Scoring,
    show: Option<i64>,
) -> Result<(Value, Option<Value>)> {
    let Scoring { scale, softcap, bias, may_be_empty, precision, sink } = *scoring;
    let dtype = n.dtype(q)?;
    let size = n.shape(q)?[3].as_known().ok_or_else(|| LowerError::NotFixed { what: "the scale".into() })? as f64;
    let (scale, softcap) = (scale.map_or(1.0 / size.sqrt(), f64::from), f64::from(softcap));
    let empty = match bias {
        Some(bias) if may_be_empty => empty_rows(n, bias)?,
        _ => None,
    };
    let plain = softcap == 0.0 && show.is_none() && sink.is_none();
    let direct = n.opset() >= Opset::Ios18 && plain && precision.bits() <= dtype.bits();
    let (mut y, shown) = if direct {
        let scaled = scale * size.sqrt();
        let query = if (scaled - 1.0).abs() < 1e-6 { q } else { n.scale(q, scaled)? };
        let y = n.op(ops::ScaledDotProductAttention { query, key: k, value: v, attn_mask: bias })?;
        (y, None)
    } else {
        let query = n.scale(q, scale)?;
        let raw = n.matmul(query, k, false, true)?;
        let mut scores = raw;
        if softcap > 0.0 {
            let small = n.scale(raw, 1.0 / softcap)?;
            let bounded = n.op(ops::Tanh { x: small })?;
            scores = n.scale(bounded, softcap)?;
        }
        let capped = scores;
        if let Some(bias) = bias {
            scores = n.add(scores, bias)?;
        }
        let wide = n.cast(scores, precision)?;
        let shares = match sink {
            Some(sink) => shares_beside(n, wide, sink)?,
            None => n.op(ops::Softmax { x: wide, axis: -1 })?,
        };
        let mut shares = n.cast(shares, dtype)?;
        if let (Some(empty), Some(3)) = (empty, show) {
            let zero = n.scalar_like(shares, 0.0)?;
            shares = n.select(empty, zero, shares)?;
        }
        let y = n.matmul(shares, v, false, false)?;
        let shown = match show.unwrap_or(0) {
            0 => raw,
            1 => capped,
            2 => scores,
            3 => shares,
            _ => return Err(LowerError::form(format!("stage {} of the scores", show.unwrap_or(0)))),
        };
        (y, Some(shown))
    };
    if let Some(empty) = empty {
        let zero = n.scalar_like(y, 0.0)?;
        y = n.select(empty, zero, y)?;
    }
    Ok((y, shown))
}

/// The shares of scores along the last axis, where `sink` is one score more.
fn shares_beside(n: &mut Lower<'_>, scores: Value, sink: Value) -> Result<Value> {
    let sink = n.cast(sink, n.dtype(scores)?)?;
    let best = n.op(ops::ReduceMax { x: scores, axes: Some(vec![-1]), keep_dims: true })?;
    let best = n.maximum(best, sink)?;
    let (scores, sink) = (n.sub(scores, best)?, n.sub(sink, best)?);
    let (powers, lost) = (n.exp(scores)?, n.exp(sink)?);
    let sum = n.sum_over(powers, &[-1])?;
    let sum = n.add(sum, lost)?;
    n.div(powers, sum)
}

/// `x` with each of its heads repeated, so that it has as many as `like`.
pub fn repeat_heads(n: &mut Lower<'_>, x: Value, like: Value) -> Result<Value> {
    let (have, want) = (n.shape(x)?[1].clone(), n.shape(like)?[1].clone());
    if have == want {
        return Ok(x);
    }
    let (Some(have), Some(want)) = (have.as_known(), want.as_known()) else {
        return Err(LowerError::NotFixed { what: "the number of heads".into() });
    };
    if have < 1 || want % have != 0 {
        return Err(LowerError::not_yet(format!("attention of {want} heads on {have}")));
    }
    let apart = n.expand_dims(x, &[2])?;
    let reps = n.const_ints(&[1, 1, want / have, 1, 1])?;
    let repeated = n.op(ops::Tile { x: apart, reps })?;
    n.reshape(repeated, &[Size::Of(x, 0), Size::Known(want), Size::Of(x, 2), Size::Of(x, 3)])
}

/// By how many places each key comes after each query, `before` of which come before the first one.
pub fn ahead(n: &mut Lower<'_>, q: Value, k: Value, before: Option<Value>) -> Result<Value> {
    let (query, key) = (n.counted(q, 2, DType::I32)?, n.counted(k, 2, DType::I32)?);
    let (mut query, key) = (n.expand_dims(query, &[1])?, n.expand_dims(key, &[0])?);
    if let Some(before) = before {
        query = n.add(query, before)?;
    }
    n.sub(key, query)
}

/// 0 where `allowed` holds, else negative infinity, in the element type of `like`.
pub fn excluding(n: &mut Lower<'_>, allowed: Value, like: Value) -> Result<Value> {
    let (zero, low) = (n.scalar_like(like, 0.0)?, n.scalar_like(like, f64::NEG_INFINITY)?);
    n.select(allowed, zero, low)
}

/// Whether `bias` excludes all keys, for each query; `None` where it never does.
fn empty_rows(n: &mut Lower<'_>, bias: Value) -> Result<Option<Value>> {
    let best = n.op(ops::ReduceMax { x: bias, axes: Some(vec![-1]), keep_dims: true })?;
    let low = n.scalar_like(best, f64::NEG_INFINITY)?;
    let empty = n.equal(best, low)?;
    let never = n.const_of(empty).is_some_and(|t| !t.to_bools().contains(&true));
    Ok((!never).then_some(empty))
}
