//! Axes of reductions.

use crate::{Matcher, Miss};
use mlconv_mil::{ir::Value, ops::ReduceMean};

/// The axes of `x` that a reduction takes, in order, counted from the first; all where none are given.
pub(super) fn axes_of(m: &Matcher<'_>, x: Value, axes: Option<&[i64]>) -> Result<Vec<usize>, Miss> {
    let shape = m.shape(x)?;
    let Some(axes) = axes else { return Ok((0..shape.rank()).collect()) };
    let mut out: Vec<usize> = shape.axes(axes).map_err(|_| Miss::No)?.iter().map(|a| a.index()).collect();
    out.sort_unstable();
    Ok(out)
}

/// What `v` is the mean of, and along which axes, where these stay with size 1.
pub(super) fn mean_of(m: &Matcher<'_>, v: Value) -> Result<(Value, Vec<usize>), Miss> {
    let op: &ReduceMean = m.def(v)?;
    if op.keep_dims { Ok((op.x, axes_of(m, op.x, op.axes.as_deref())?)) } else { Err(Miss::No) }
}
