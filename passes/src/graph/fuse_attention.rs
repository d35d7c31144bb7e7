//! Attention that is written out.

use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{Add, Matmul, Mul, RealDiv, ScaledDotProductAttention, Softmax, Transpose},
    schema::Opset,
};
use mlconv_tensor::{DType, Dim, Tensor};

pub(crate) static PASS: Pass = Pass {
    name: "fuse_attention",
    doc: "Makes one op of products, softmax, scale and mask of attention, where the op set has it (iOS 18).",
    changes_precision: false,
    after: &["const_elimination"],
    run: Run::Rules(rules![matmul]),
};

/// `factor * x`.
struct Scaled {
    x: Value,
    factor: f64,
}

/// Takes a constant factor off `v`, one after the other.
fn scaled(m: &Matcher<'_>, v: Value) -> Scaled {
    let mut all = Scaled { x: v, factor: 1.0 };
    loop {
        let product = m.sole::<Mul>(all.x).and_then(|op| m.either(op.x, op.y, |x, y| Ok((x, m.uniform(y)?))));
        let quotient = || m.sole::<RealDiv>(all.x).and_then(|op| Ok((op.x, 1.0 / m.uniform(op.y)?)));
        match product.or_else(|_| quotient()) {
            // A factor of more axes would broadcast.
            Ok((x, factor)) if m.alike(x, all.x) => all = Scaled { x, factor: all.factor * factor },
            _ => return all,
        }
    }
}

/// The keys of a product of queries and keys: its right operand, with the last two axes as in the op of attention.
fn keys(m: &Matcher<'_>, product: &Matmul) -> Result<Scaled, Miss> {
    if product.transpose_y {
        return Ok(scaled(m, product.y));
    }
    let right = scaled(m, product.y);
    let transpose = m.sole::<Transpose>(right.x)?;
    let rank = m.rank(transpose.x)?;
    let mut perm = transpose.perm.clone();
    if perm.len() != rank || rank < 2 {
        return Err(Miss::No);
    }
    perm.swap(rank - 1, rank - 2);
    let x = scaled(m, transpose.x);
    let keys = m.make(Transpose { x: x.x, perm });
    Ok(Scaled { x: keys, factor: right.factor * x.factor })
}

fn matmul(op: &Matmul, m: &Matcher<'_>) -> Fit {
    let softmax = m.sole::<Softmax>(op.x)?;
    let rank = m.rank(op.x)?;
    if op.transpose_x || op.transpose_y || rank < 3 || ![-1, rank as i64 - 1].contains(&softmax.axis) {
        return Err(Miss::No);
    }
    let plain = |v: Value| -> Result<(Value, f64), Miss> {
        let scores = scaled(m, v);
        m.sole::<Matmul>(scores.x)?;
        Ok((scores.x, scores.factor))
    };
    let masked = |v: Value| -> Result<_, Miss> {
        let sum = m.sole::<Add>(v)?;
        let (scores, factor, mask) = m.either(sum.x, sum.y, |scores, mask| {
            let (product, factor) = plain(scores)?;
            m.require(m.alike(scores, v), "the mask has more axes than the scores")?;
            Ok((product, factor, mask))
        })?;
        Ok((scores, factor, Some(mask)))
    };
    let unmasked = |v: Value| plain(v).map(|(scores, factor)| (scores, factor, None));
    let (scores, factor, mask) = unmasked(softmax.x).or_else(|_| masked(softmax.x))?;
    let product = m.sole::<Matmul>(scores)?;
    if product.transpose_x {
        return Err(Miss::No);
    }
    m.require(m.opset() >= Opset::Ios18, "the op of attention is there from iOS 18 on")?;
    if let Some(mask) = mask {
        m.require(m.shape(mask)?.last() == m.shape(scores)?.last(), "the mask is broadcast along the keys")?;
    }
    let query = scaled(m, product.x);
    let (q, v) = (m.shape(query.x)?, m.shape(op.y)?);
    let right = m.shape(product.y)?;
    let same = |a: &[Dim]| a.len() == rank && a[..rank - 2] == q[..rank - 2];
    m.require(q.len() == rank && same(v) && same(right), "heads are broadcast")?;
    let width = q[rank - 1].as_usize().filter(|w| *w > 0);
    let Some(width) = width else { return Err(Miss::Because("the width of a head is open")) };
    let keys = keys(m, product)?;
    // The op divides by the root of the width itself.
    let factor = factor * query.factor * keys.factor * (width as f64).sqrt();
    let mut query = query.x;
    if (factor - 1.0).abs() > 1e-6 {
        let dtype = m.ty(query).tensor().map_or(DType::F32, |t| t.dtype);
        let y = m.make_constant(Tensor::from_f64(dtype, &[], &[factor]));
        query = m.make(Mul { x: query, y });
    }
    Ok(m.replace(ScaledDotProductAttention { query, key: keys.x, value: op.y, attn_mask: mask }))
}
