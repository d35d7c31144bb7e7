//! Softmax that is written out.

use crate::{
    Fit, Matcher, Miss,
    fuse::{algebra::float_result, axes::axes_of},
};
use mlconv_mil::{
    ir::Value,
    ops::{Exp, RealDiv, ReduceMax, ReduceSum, Softmax, Sub},
};

/// `exp(x) / sum(exp(x))`, of an `x` from which its maximum may have been taken.
pub(super) fn softmax(op: &RealDiv, m: &Matcher<'_>) -> Fit {
    let y = float_result(m)?;
    let (sum, exp): (&ReduceSum, &Exp) = (m.def(op.y)?, m.def(op.x)?);
    let axes = axes_of(m, sum.x, sum.axes.as_deref())?;
    let [axis] = axes[..] else { return Err(Miss::No) };
    if sum.x != op.x || !sum.keep_dims || !m.alike(op.x, y) {
        return Err(Miss::No);
    }
    m.closed([op.x, op.y])?;
    let x = without_maximum(m, exp.x, axis).unwrap_or(exp.x);
    Ok(m.replace(Softmax { x, axis: axis as i64 }))
}

/// The `x` of `x - max(x)`, where nobody else reads that.
fn without_maximum(m: &Matcher<'_>, v: Value, axis: usize) -> Result<Value, Miss> {
    let less: &Sub = m.sole(v)?;
    let most: &ReduceMax = m.sole(less.y)?;
    let same = most.x == less.x && most.keep_dims && axes_of(m, most.x, most.axes.as_deref())? == [axis];
    if same { Ok(less.x) } else { Err(Miss::No) }
}
