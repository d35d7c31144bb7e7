//! Attention of several query heads to each key head, over a cache of past keys and values.

use super::{
    Result, Scoring, ahead, attend, excluding, fused::pairs, heads, join_heads, repeat_heads, rotated, scalar_size,
    short_of, split_heads,
};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::layers::normalization::rms_normalized;
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size, SourceDim};
use mlconv_tensor::{DType, Dim};

pub(super) fn group_query_attention(n: &mut Lower<'_>) -> Lowered {
    let (of_q, of_k) = (heads(n, "num_heads")?, heads(n, "kv_num_heads")?);
    if of_q % of_k != 0 {
        return n.bad_attr("num_heads", format!("a multiple of {of_k}"));
    }
    for name in ["k_quant_type", "v_quant_type"] {
        if !["NONE", ""].contains(&n.str_or(name, "NONE")?) {
            return n.bad_attr(name, "`NONE`");
        }
    }
    n.ignore("kv_cache_bit_width");
    for name in ["sliding_window_cache", "qk_output"] {
        if n.int_or(name, 0)? != 0 {
            return n.bad_attr(name, "0");
        }
    }
    let [mut q, mut k, v] = projections(n, of_q, of_k)?;
    if let (Some(of_q), Some(of_k)) = (n.optional(14)?, n.optional(15)?) {
        let epsilon = n.float_or("qk_norm_epsilon", 1e-6)?;
        [q, _] = rms_normalized(n, q, of_q, 3, (epsilon, true))?;
        [k, _] = rms_normalized(n, k, of_k, 3, (epsilon, true))?;
    }
    n.ignore("qk_norm_epsilon");
    let past = match (n.optional(3)?, n.optional(4)?) {
        (Some(k), Some(v)) if n.rank(k)? == 4 && n.rank(v)? == 4 => Some([k, v]),
        (Some(k), Some(v)) => {
            return Err(LowerError::form(format!("past keys of {} and values of {}", n.ty(k)?, n.ty(v)?)));
        }
        (None, None) => None,
        _ => return Err(LowerError::not_yet("past keys without past values")),
    };
    let lasts = n.input(5)?;
    let cache = Cache::of(n, past, lasts, k)?;
    if n.switch("do_rotary", false)? {
        let (cos, sin) = (n.input(7)?, n.input(8)?);
        let places = cache.places(n, k)?;
        let turned = Some(pairs(n, cos, sin)?.saturating_mul(2));
        let interleaved = n.switch("rotary_interleaved", false)?;
        let angles = [n.gather(cos, places, 0)?, n.gather(sin, places, 0)?];
        q = rotated(n, q, angles, 1, (turned, interleaved))?;
        k = rotated(n, k, angles, 1, (turned, interleaved))?;
    } else {
        n.ignore("rotary_interleaved");
        [7, 8, 9].into_iter().for_each(|i| n.ignore_input(i));
    }
    let [present_k, present_v] = cache.with(n, [k, v])?;
    let bias = bias(n, &cache, q, present_k, lasts)?;
    let smooth = n.switch("smooth_softmax", false)?;
    let sink = match n.optional(11)? {
        Some(sink) => Some(n.reshape_to(sink, &[1, -1, 1, 1])?),
        None if smooth => Some(n.scalar_like(q, 0.0)?),
        None => None,
    };
    let (keys, values) = (repeat_heads(n, present_k, q)?, repeat_heads(n, present_v, q)?);
    let scoring = Scoring {
        scale: n.float("scale")?.filter(|s| *s != 0.0),
        softcap: n.float_or("softcap", 0.0)?,
        bias,
        may_be_empty: false,
        precision: n.dtype(q)?,
        sink,
    };
    let (y, _) = attend(n, [q, keys, values], &scoring, None)?;
    let y = join_heads(n, y)?;
    Ok([y, present_k, present_v].into_iter().map(Entry::Value).collect())
}

/// Queries, keys and values as `[b, h, t, d]`; they may lie side by side in the first input.
fn projections(n: &mut Lower<'_>, of_q: i64, of_k: i64) -> Result<[Value; 3]> {
    let (x, key, value) = (n.input(0)?, n.optional(1)?, n.optional(2)?);
    for v in [Some(x), key, value].into_iter().flatten() {
        if n.rank(v)? != 3 {
            return Err(LowerError::form(format!("queries, keys or values of {}", n.ty(v)?)));
        }
    }
    let (q, k, v) = match (key, value) {
        (Some(k), Some(v)) => (x, k, v),
        (None, None) => {
            // Numbers of heads are below 2^31.
            let all = of_q + 2 * of_k;
            let size = match n.shape(x)?[2].as_known() {
                Some(width) if width % all == 0 => width / all,
                Some(width) => return Err(LowerError::form(format!("{all} heads in {width} elements"))),
                None => return Err(LowerError::NotFixed { what: "the size of a head".into() }),
            };
            let (of_q, of_k) = (of_q * size, of_k * size);
            let k = n.slice(x, 2, of_q, Some(of_q + of_k))?;
            (n.slice(x, 2, 0, Some(of_q))?, k, n.slice(x, 2, of_q + of_k, None)?)
        }
        (None, Some(_)) => return Err(LowerError::MissingInput { index: 1 }),
        (Some(_), None) => return Err(LowerError::MissingInput { index: 2 }),
    };
    Ok([split_heads(n, q, of_q)?, split_heads(n, k, of_k)?, split_heads(n, v, of_k)?])
}

/// Keys and values of the tokens before, and where new ones go.
enum Cache {
    /// There are none.
    None,
    /// New ones follow the old ones.
    Appended {
        past: [Value; 2],
        /// How many old ones there are.
        before: Value,
    },
    /// New ones are written into room for them, at a place of each sequence.
    Written {
        past: [Value; 2],
        /// The places of the first new ones, `[b, 1, 1, 1]`.
        before: Value,
        /// Whether there is no room yet.
        grows: bool,
    },
}

impl Cache {
    /// The cache of a node whose `lasts` has the place of the last token of each sequence. `k` is new.
    fn of(n: &mut Lower<'_>, past: Option<[Value; 2]>, lasts: Value, k: Value) -> Result<Self> {
        let total = n.input(6)?;
        let Some(past) = past else { return Ok(Self::None) };
        let (have, new) = (n.shape(past[0])?[2].clone(), n.shape(k)?[2].clone());
        let whole = &have + &new;
        let total = n.elements(total).ok().and_then(|d| d.first().cloned());
        let stated = n.stated_output(1).and_then(|t| match t.shape.as_ref()?.get(2)? {
            SourceDim::Known(n) => Some(Dim::from(*n)),
            SourceDim::Named(name) => Dim::parse(name),
            SourceDim::Unknown => None,
        });
        let is = |d: &Dim| total.as_ref() == Some(d) || stated.as_ref() == Some(d);
        if n.shape(k)?[0].is(1) && is(&whole) {
            return Ok(Self::Appended { past, before: scalar_size(n, past[0], 2)? });
        }
        let fits = total.as_ref().and_then(|t| Some(t.as_known()? <= have.as_known()?)).unwrap_or(false);
        let own = scalar_size(n, k, 2)?;
        let one = n.const_int(1)?;
        let ends = n.add(lasts, one)?;
        let before = n.sub(ends, own)?;
        // Of a first prompt, shorter sequences end in padding.
        let zero = n.const_int(0)?;
        let before = n.maximum(before, zero)?;
        let before = n.reshape_to(before, &[-1, 1, 1, 1])?;
        Ok(Self::Written { past, before, grows: !fits && !is(&have) })
    }

    /// The places of new tokens, `[b, t]` or `[1, t]`.
    fn places(&self, n: &mut Lower<'_>, k: Value) -> Result<Value> {
        let given = n.optional(9)?;
        if let Some(given) = given
            && n.rank(given)? != 2
        {
            return Err(LowerError::form(format!("places of {}", n.ty(given)?)));
        }
        let before = match (self, given) {
            (Self::Appended { .. } | Self::Written { .. }, Some(given)) => return Ok(given),
            // Of a first prompt, only the first place counts.
            (Self::None, Some(given)) => Some(n.slice_by(given, &[(0, 0, Some(1), 1), (1, 0, Some(1), 1)])?),
            (Self::None, None) => None,
            (Self::Appended { before, .. }, None) => Some(*before),
            (Self::Written { before, .. }, None) => Some(n.reshape_to(*before, &[-1, 1])?),
        };
        let time = n.counted(k, 2, DType::I32)?;
        let time = n.expand_dims(time, &[0])?;
        before.map_or(Ok(time), |before| n.add(time, before))
    }

    /// How many keys come before the first query.
    fn before(&self) -> Option<Value> {
        match self {
            Self::None => None,
            Self::Appended { before, .. } | Self::Written { before, .. } => Some(*before),
        }
    }

    /// The keys and values of all tokens.
    fn with(&self, n: &mut Lower<'_>, new: [Value; 2]) -> Result<[Value; 2]> {
        let mut all = new;
        match *self {
            Self::None => {}
            Self::Appended { past, .. } => {
                for (all, past) in all.iter_mut().zip(past) {
                    *all = n.concat(vec![past, *all], 2)?;
                }
            }
            Self::Written { past, before, grows } => {
                for (all, past) in all.iter_mut().zip(past) {
                    let mut room = past;
                    if grows {
                        let sizes = [(past, 0), (past, 1), (*all, 2), (past, 3)].map(|(v, axis)| Size::Of(v, axis));
                        let zeros = n.zeros(past, &sizes)?;
                        room = n.concat(vec![past, zeros], 2)?;
                    }
                    *all = written(n, room, *all, before)?;
                }
            }
        }
        Ok(all)
    }
}

/// `room` with `new` from place `before` of each sequence on.
fn written(n: &mut Lower<'_>, room: Value, new: Value, before: Value) -> Result<Value> {
    // Which of the new ones a place takes: a product with ones and zeros moves them there unchanged.
    let (place, token) = (n.counted(room, 2, DType::I32)?, n.counted(new, 2, DType::I32)?);
    let place = n.expand_dims(place, &[1])?;
    let place = n.sub(place, before)?;
    let taken = n.equal(place, token)?;
    let taken = n.cast(taken, n.dtype(new)?)?;
    let moved = n.matmul(taken, new, false, false)?;
    let (zero, own) = (n.const_int(0)?, scalar_size(n, new, 2)?);
    let (begun, open) = (n.op(ops::GreaterEqual { x: place, y: zero })?, n.less(place, own)?);
    let covered = n.and(begun, open)?;
    n.select(covered, moved, room)
}

/// What is added to scores.
fn bias(n: &mut Lower<'_>, cache: &Cache, q: Value, k: Value, lasts: Value) -> Result<Option<Value>> {
    let window = match n.int_or("local_window_size", -1)? {
        -1 => None,
        window if window > 0 => Some(window),
        _ => return n.bad_attr("local_window_size", "-1 or at least 1"),
    };
    let mut allowed = if n.switch("causal", true)? {
        let (ahead, zero) = (ahead(n, q, k, cache.before())?, n.const_int(0)?);
        let mut allowed = n.op(ops::LessEqual { x: ahead, y: zero })?;
        if let Some(window) = window {
            let last = n.const_int(-window)?;
            let near = n.less(last, ahead)?;
            allowed = n.and(allowed, near)?;
        }
        allowed
    } else {
        if window.is_some() {
            return n.bad_attr("local_window_size", "-1, as keys to come count");
        }
        let key = n.counted(k, 2, DType::I32)?;
        let lasts = n.reshape_to(lasts, &[-1, 1, 1, 1])?;
        n.op(ops::LessEqual { x: key, y: lasts })?
    };
    if n.rank(allowed)? == 2 {
        allowed = n.expand_dims(allowed, &[0, 1])?;
    }
    let mut bias = excluding(n, allowed, q)?;
    if let Some(added) = n.optional(10)? {
        if n.rank(added)? != 4 {
            return Err(LowerError::form(format!("what is added to scores of {}", n.ty(added)?)));
        }
        let short = short_of(n, added, k)?;
        let added = n.pad(added, &[0, 0, 0, 0, 0, 0, 0, short], 0.0)?;
        bias = n.add(bias, added)?;
    }
    Ok(Some(bias))
}
