//! Layers of transformers that are one operator each: what PyTorch's own modules run for inference.

use super::linear::layer as product;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered, Size,
    layers::attention::{Scoring, attend, excluding},
};
use mlconv_tensor::DType;

aten! {
    "_native_multi_head_attention(Tensor query, Tensor key, Tensor value, SymInt embed_dim, int num_head, Tensor qkv_weight, Tensor qkv_bias, Tensor proj_weight, Tensor proj_bias, Tensor? mask=None, bool need_weights=True, bool average_attn_weights=True, int? mask_type=None) -> (Tensor, Tensor)" => multi_head;
    "_transformer_encoder_layer_fwd(Tensor src, SymInt embed_dim, int num_heads, Tensor qkv_weight, Tensor qkv_bias, Tensor proj_weight, Tensor proj_bias, bool use_gelu, bool norm_first, float eps, Tensor norm_weight_1, Tensor norm_bias_1, Tensor norm_weight_2, Tensor norm_bias_2, Tensor ffn_weight_1, Tensor ffn_bias_1, Tensor ffn_weight_2, Tensor ffn_bias_2, Tensor? mask=None, int? mask_type=None) -> Tensor" => encoder_layer;
    "_transform_bias_rescale_qkv(Tensor qkv, Tensor qkv_bias, int num_heads) -> (Tensor, Tensor, Tensor)" => split_heads;
    "_masked_softmax(Tensor self, Tensor mask, int? dim=None, int? mask_type=None) -> Tensor" => masked_softmax;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The weights of an attention of several heads.
struct Heads {
    count: i64,
    /// Of queries, keys and values, one after the other.
    taken: [Value; 2],
    given: [Value; 2],
}

impl Heads {
    fn of(n: &mut Lower<'_>, count: &'static str) -> Result<Self> {
        n.ignore("embed_dim");
        let Some(count) = n.int(count)?.filter(|c| *c > 0) else { return n.bad_attr(count, "at least 1") };
        let taken = [n.value("qkv_weight")?, n.value("qkv_bias")?];
        Ok(Self { count, taken, given: [n.value("proj_weight")?, n.value("proj_bias")?] })
    }

    /// What heads get of a sequence: part `i` of queries, keys and values, as `[b, h, t, d]`.
    fn taken(&self, n: &mut Lower<'_>, x: Value, i: i64) -> Result<Value> {
        let size = n.shape(x)?.last().and_then(|d| d.as_known());
        let size = size.ok_or_else(|| LowerError::NotFixed { what: "the size of a head".into() })?;
        let end = (i + 1).checked_mul(size).ok_or_else(|| LowerError::form("a weight of such a size"))?;
        let [weight, bias] = self.taken;
        let (weight, bias) = (n.slice(weight, 0, i * size, Some(end))?, n.slice(bias, 0, i * size, Some(end))?);
        let y = product(n, x, weight, Some(bias))?;
        by_heads(n, y, self.count)
    }

    /// The result, and each head's shares where `show` asks for them.
    fn attend(
        &self,
        n: &mut Lower<'_>,
        [query, key, value]: [Value; 3],
        excluded: Option<Value>,
        show: bool,
    ) -> Result<(Value, Option<Value>)> {
        for v in [query, key, value] {
            if n.rank(v)? != 3 {
                return Err(LowerError::form(format!("attention of sequences in {}", n.ty(v)?)));
            }
        }
        let q = self.taken(n, query, 0)?;
        let (k, v) = (self.taken(n, key, 1)?, self.taken(n, value, 2)?);
        let bias = match excluded {
            Some(excluded) => {
                let allowed = n.not(excluded)?;
                Some(excluding(n, allowed, q)?)
            }
            None => None,
        };
        let precision = n.dtype(q)?;
        let scoring = Scoring { scale: None, softcap: 0.0, bias, may_be_empty: false, precision, sink: None };
        let (y, shares) = attend(n, [q, k, v], &scoring, show.then_some(3))?;
        let y = n.transpose(y, &[0, 2, 1, 3])?;
        let y = n.reshape(y, &[Size::Of(query, 0), Size::Of(query, 1), Size::Of(query, 2)])?;
        let [weight, bias] = self.given;
        Ok((product(n, y, weight, Some(bias))?, shares))
    }
}

/// `[b, t, h * d]` as `[b, h, t, d]`.
fn by_heads(n: &mut Lower<'_>, x: Value, count: i64) -> Result<Value> {
    let size = n.shape(x)?.last().and_then(|d| d.as_known()).filter(|s| s % count == 0);
    let size = size.ok_or_else(|| LowerError::form(format!("{count} heads of {}", n.shape(x).unwrap_or_default())))?;
    let y = n.reshape(x, &[Size::Of(x, 0), Size::Of(x, 1), Size::Known(count), Size::Known(size / count)])?;
    n.transpose(y, &[0, 2, 1, 3])
}

/// Which keys are left out, so that it broadcasts to scores `[b, h, t, s]`: of kind 0 the mask is one of queries and keys,
/// of kind 1 one of batches and keys, of kind 2 one of all.
fn excluded(n: &mut Lower<'_>) -> Result<Option<Value>> {
    let (mask, kind) = (n.maybe("mask")?, n.int("mask_type")?);
    let Some(mask) = mask else { return Ok(None) };
    let mask = n.cast(mask, DType::Bool)?;
    let mask = match (kind, n.rank(mask)?) {
        (Some(1), 2) => n.expand_dims(mask, &[1, 2])?,
        (_, 2..=4) => mask,
        _ => return Err(LowerError::form(format!("a mask {}", n.ty(mask)?))),
    };
    Ok(Some(mask))
}

fn multi_head(n: &mut Lower<'_>) -> Lowered {
    let all = [n.value("query")?, n.value("key")?, n.value("value")?];
    let heads = Heads::of(n, "num_head")?;
    let (excluded, show) = (excluded(n)?, n.flag("need_weights", true)?);
    let mean = n.flag("average_attn_weights", true)?;
    let (y, shares) = heads.attend(n, all, excluded, show)?;
    let shares = match shares {
        Some(x) if mean => Some(n.op(ops::ReduceMean { x, axes: Some(vec![1]), keep_dims: false })?),
        shares => shares,
    };
    Ok(vec![Entry::Value(y), shares.map_or(Entry::Nothing, Entry::Value)])
}

fn encoder_layer(n: &mut Lower<'_>) -> Lowered {
    let src = n.value("src")?;
    let heads = Heads::of(n, "num_heads")?;
    let (excluded, epsilon) = (excluded(n)?, n.number("eps")?.unwrap_or(1e-5) as f32);
    let (gelu, norm_first) = (n.flag("use_gelu", false)?, n.flag("norm_first", false)?);
    let norms =
        [[n.value("norm_weight_1")?, n.value("norm_bias_1")?], [n.value("norm_weight_2")?, n.value("norm_bias_2")?]];
    let inner =
        [[n.value("ffn_weight_1")?, n.value("ffn_bias_1")?], [n.value("ffn_weight_2")?, n.value("ffn_bias_2")?]];
    let norm = |n: &mut Lower<'_>, x: Value, i: usize| -> Result<Value> {
        let [gamma, beta] = norms[i].map(Some);
        n.op(ops::LayerNorm { x, axes: vec![-1], gamma, beta, epsilon })
    };
    let x = if norm_first { norm(n, src, 0)? } else { src };
    let (y, _) = heads.attend(n, [x; 3], excluded, false)?;
    let mut sum = n.add(src, y)?;
    if !norm_first {
        sum = norm(n, sum, 0)?;
    }
    let x = if norm_first { norm(n, sum, 1)? } else { sum };
    let x = product(n, x, inner[0][0], Some(inner[0][1]))?;
    let x = if gelu { n.op(ops::Gelu { x, mode: ops::GeluMode::Exact })? } else { n.op(ops::Relu { x })? };
    let x = product(n, x, inner[1][0], Some(inner[1][1]))?;
    let mut y = n.add(sum, x)?;
    if !norm_first {
        y = norm(n, y, 1)?;
    }
    n.done(y)
}

/// Queries, keys and values of one product, by heads; queries are scaled.
fn split_heads(n: &mut Lower<'_>) -> Lowered {
    let (x, bias) = (n.value("qkv")?, n.value("qkv_bias")?);
    let Some(count) = n.int("num_heads")?.filter(|c| *c > 0) else { return n.bad_attr("num_heads", "at least 1") };
    let x = n.add(x, bias)?;
    let parts = n.ops(ops::Split { x, num_splits: Some(3), split_sizes: None, axis: -1 })?;
    let mut out = vec![];
    for (i, part) in parts.into_iter().enumerate() {
        let mut y = by_heads(n, part, count)?;
        if i == 0 {
            let size = n.shape(y)?[3].as_known().unwrap_or(1);
            y = n.scale(y, 1.0 / (size as f64).sqrt())?;
        }
        out.push(Entry::Value(y));
    }
    Ok(out)
}

/// Shares of what the mask does not leave out.
fn masked_softmax(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", -1)?);
    let Some(excluded) = excluded(n)? else { return Err(LowerError::MissingAttr { name: "mask" }) };
    let low = n.scalar_like(x, f64::NEG_INFINITY)?;
    let x = n.select(excluded, low, x)?;
    n.emit(ops::Softmax { x, axis: dim })
}
