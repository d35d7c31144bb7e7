//! Makes one op, or none, of several that part and join tensors.

mod joining;
mod ranges;
mod splits;

use crate::{Fit, Matcher, Miss, Named, Pass, PassCx, PassError, Run, engine::rewrite, rules};
use joining::{concat, stack};
use mlconv_mil::{
    ir::Value,
    ops::{SliceByIndex, SliceBySize},
};
use mlconv_tensor::Tensor;
use ranges::{Range, ranges};

pub(crate) static PASS: Pass = Pass {
    name: "merge_slices",
    doc: "Makes one slice of a slice of a slice, a split of slices that share out a tensor, and nothing of a slice that is the whole tensor; joins concatenations, and removes those of what a split has parted.",
    changes_precision: false,
    after: &["rank_reduction"],
    run: Run::Function(run),
};

const RULES: &[Named] = rules![whole, whole_by_size, of_slice, concat, stack];

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    rewrite(cx, RULES)?;
    splits::share_out(cx)
}

/// A slice that is the whole tensor.
fn whole(op: &SliceByIndex, m: &Matcher<'_>) -> Fit {
    if !m.alike(op.x, m.result().ok_or(Miss::No)?) || op.squeeze_mask.iter().flatten().any(|s| *s) {
        return Err(Miss::No);
    }
    let ranges = ranges(m.f, op).ok_or(Miss::No)?;
    let whole = |(n, r): (Option<i64>, &Range)| match n {
        // As many elements as there are are all of them; backwards, they are in another order.
        Some(n) => r.stride == 1 || n <= 1,
        None => r.stride == 1 && r.starts(),
    };
    let sizes = m.shape(op.x)?.iter().map(|d| d.as_known());
    if sizes.zip(&ranges).all(whole) { Ok(m.alias(op.x)) } else { Err(Miss::No) }
}

fn whole_by_size(op: &SliceBySize, m: &Matcher<'_>) -> Fit {
    let is_whole = m.alike(op.x, m.result().ok_or(Miss::No)?) && m.sizes(op.x).is_ok();
    if is_whole { Ok(m.alias(op.x)) } else { Err(Miss::No) }
}

/// A slice of a slice.
fn of_slice(op: &SliceByIndex, m: &Matcher<'_>) -> Fit {
    let before = m.sole::<SliceByIndex>(op.x)?;
    let bounds = "where a slice begins or ends is not constant";
    let inner = ranges(m.f, before).ok_or(Miss::Because(bounds))?;
    let mut outer = ranges(m.f, op).ok_or(Miss::Because(bounds))?.into_iter();
    let mut joined = vec![];
    for (range, size) in inner.into_iter().zip(m.shape(before.x)?.iter()) {
        if range.squeezed {
            joined.push(range);
            continue;
        }
        let next = outer.next().ok_or(Miss::No)?;
        let range = range.then(next, size.as_known());
        joined.push(range.ok_or(Miss::Because("sizes are open, or a slice is empty or runs backwards"))?);
    }
    let dtype = m.constant(op.begin)?.dtype();
    let ints = |of: fn(&Range) -> i64| -> Value {
        let ints: Vec<i64> = joined.iter().map(of).collect();
        m.make_constant(Tensor::from_i64(dtype, &[ints.len()], &ints))
    };
    let mask = |of: fn(&Range) -> bool| joined.iter().any(of).then(|| joined.iter().map(of).collect());
    let has_steps = joined.iter().any(|r| r.stride != 1);
    Ok(m.replace(SliceByIndex {
        x: before.x,
        begin: ints(|r| r.begin),
        end: ints(|r| r.end),
        stride: has_steps.then(|| joined.iter().map(|r| r.stride).collect()),
        begin_mask: mask(|r| r.no_begin),
        end_mask: mask(|r| r.no_end),
        squeeze_mask: mask(|r| r.squeezed),
    }))
}
