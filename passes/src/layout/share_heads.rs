//! Products that need no copies of what heads share.

use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{ExpandDims, Matmul, Reshape, Squeeze, Tile},
};
use mlconv_tensor::{Dim, Tensor};

pub(crate) static PASS: Pass = Pass {
    name: "share_heads",
    doc: "Multiplies the rows of all heads that share keys or values at once, in the place of a copy for each head, as grouped-query attention is written out.",
    changes_precision: false,
    after: &["remove_expansion"],
    run: Run::Rules(rules![product_with_copies]),
};

/// `matmul(x, y)`, where `y` repeats each matrix for the heads of a group: the rows of the group are those of one matrix.
fn product_with_copies(op: &Matmul, m: &Matcher<'_>) -> Fit {
    let copies = Copies::of(m, op.y)?;
    let (x, y, result) = (m.shape(op.x)?, m.shape(op.y)?, m.shape(m.result().ok_or(Miss::No)?)?);
    let (rank, heads) = (y.rank(), copies.axis);
    if x.rank() != rank || heads + 3 != rank || x[..=heads] != y[..=heads] {
        return Err(Miss::No);
    }
    m.require(!op.transpose_x, "the rows of a head are its columns")?;
    m.closed([op.y, copies.tiled])?;
    let mut grouped: Vec<Dim> = x.iter().cloned().collect();
    grouped[heads] = copies.kept.clone();
    grouped[heads + 1] = &grouped[heads + 1] * &copies.times;
    let x = m.make(Reshape { x: op.x, shape: m.make_constant(shape(m, &grouped)?) });
    let back = m.make_constant(shape(m, result)?);
    let y = match m.def::<ExpandDims>(copies.x) {
        Ok(expand) if expand.axes == [heads as i64 + 1] => expand.x,
        _ => m.make(Squeeze { x: copies.x, axes: Some(vec![heads as i64 + 1]) }),
    };
    let product = m.make(Matmul { x, y, ..op.clone() });
    Ok(m.replace(Reshape { x: product, shape: back }))
}

/// Copies along an axis, which are part of the axis before it then.
struct Copies {
    /// What is copied, with an axis of size 1 behind `axis`.
    x: Value,
    tiled: Value,
    /// The axis of the result that holds them.
    axis: usize,
    /// Its size before.
    kept: Dim,
    times: Dim,
}

impl Copies {
    fn of(m: &Matcher<'_>, v: Value) -> Result<Self, Miss> {
        let tiled = m.def::<Reshape>(v)?.x;
        let tile: &Tile = m.def(tiled)?;
        let (one, many, merged) = (m.shape(tile.x)?, m.shape(tiled)?, m.shape(v)?);
        if one.rank() != many.rank() || merged.rank() + 1 != many.rank() {
            return Err(Miss::No);
        }
        let mut grown = (0..one.rank()).filter(|a| one[*a] != many[*a]);
        let (Some(at @ 1..), None) = (grown.next(), grown.next()) else { return Err(Miss::No) };
        let mut whole: Vec<Dim> = many.iter().cloned().collect();
        let times = whole.remove(at);
        let kept = std::mem::replace(&mut whole[at - 1], &many[at - 1] * &times);
        if !one[at].is(1) || merged.iter().ne(&whole) {
            return Err(Miss::No);
        }
        Ok(Self { x: tile.x, tiled, axis: at - 1, kept, times })
    }
}

/// The operand of a reshape to these sizes, of which one may be open.
fn shape(m: &Matcher<'_>, dims: &[Dim]) -> Result<Tensor, Miss> {
    let sizes: Vec<i32> = dims.iter().map(|d| d.as_known().and_then(|n| i32::try_from(n).ok()).unwrap_or(-1)).collect();
    m.require(sizes.iter().filter(|n| **n == -1).count() < 2, "several sizes are open")?;
    Ok(Tensor::from_vec(&[sizes.len()], sizes))
}
