//! Reshapes that part or join axes which stay together.

use super::{Moved, Perm, Role, shape};
use crate::layout::keep::{sizes, without_ones};
use mlconv_mil::{
    ir::{Function, OpId},
    ops::{ExpandDims, Reshape, Squeeze},
    schema::Op,
};
use mlconv_tensor::{Dim, Shape, Tensor};
use std::ops::Range;

/// Neighbouring axes of a tensor, and those that a reshape makes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    from: Range<usize>,
    to: Range<usize>,
}

pub(super) fn reshaping(f: &Function, id: OpId, perm: &[usize]) -> Option<Moved> {
    let (op, x) = (f.op::<Reshape>(id), f.op::<Squeeze>(id).map(|op| op.x));
    let x = op.map(|op| op.x).or(x).or_else(|| f.op::<ExpandDims>(id).map(|op| op.x))?;
    let (from, to) = (shape(f, x)?, shape(f, *f.op_data(id).results.first()?)?);
    let mut parts = parts(from, to)?;
    // Axes that are joined must be neighbours before the transpose too.
    if !parts.iter().all(|p| perm.get(p.from.clone()).is_some_and(|p| p.windows(2).all(|w| w[1] == w[0] + 1))) {
        return None;
    }
    parts.sort_by_key(|p| perm.get(p.from.start).copied());
    let order: Perm = parts.into_iter().flat_map(|p| p.to).collect();
    let mut result = vec![0; to.rank()];
    order.iter().enumerate().for_each(|(at, axis)| result[*axis] = at);
    let mut before = from.clone();
    perm.iter().zip(from.iter()).for_each(|(at, dim)| before.dims_mut()[*at] = dim.clone());
    let after: Shape = order.iter().map(|axis| to[*axis].clone()).collect();
    let (op, roles): (Box<dyn Op>, _) = if let Some(op) = op {
        let sizes = sizes(f.opset, &before, &after)?;
        let dtype = f.ty(op.shape).tensor()?.dtype;
        let sizes: Vec<i64> = sizes.into_iter().map(i64::from).collect();
        (Box::new(op.clone()), vec![Role::Permuted, Role::New(Tensor::from_i64(dtype, &[sizes.len()], &sizes))])
    } else if f.op::<Squeeze>(id).is_some() {
        (Box::new(Squeeze { x, axes: Some(without_ones(&before, &after)?) }), vec![Role::Permuted])
    } else {
        (Box::new(ExpandDims { x, axes: without_ones(&after, &before)? }), vec![Role::Permuted])
    };
    Some(Moved { op, roles, results: vec![result] })
}

/// The least runs of axes of `from` that are under other axes in `to`, in order. Each has an axis of `from`.
fn parts(from: &[Dim], to: &[Dim]) -> Option<Vec<Part>> {
    let mut parts: Vec<Part> = vec![];
    let (mut i, mut k) = (0, 0);
    // Axes of size 1 that come before all others belong to the first of these.
    let mut lead = 0;
    while i < from.len() || k < to.len() {
        let (a, b) = (from.get(i), to.get(k));
        if a.is_some_and(|d| d.is(1)) && b.is_none_or(|d| !d.is(1)) {
            parts.push(Part { from: i..i + 1, to: k..k });
            i += 1;
        } else if b.is_some_and(|d| d.is(1)) && a.is_none_or(|d| !d.is(1)) {
            match parts.last_mut() {
                Some(last) => last.to.end = k + 1,
                None => lead = k + 1,
            }
            k += 1;
        } else {
            let (first, start) = (i, if parts.is_empty() { k - lead } else { k });
            let (mut x, mut y) = (a?.clone(), b?.clone());
            (i, k) = (i + 1, k + 1);
            while x != y {
                let (n, m) = (x.as_known().filter(|n| *n > 0)?, y.as_known().filter(|n| *n > 0)?);
                if n < m {
                    x = &x * from.get(i)?;
                    i += 1;
                } else {
                    y = &y * to.get(k)?;
                    k += 1;
                }
            }
            parts.push(Part { from: first..i, to: start..k });
        }
    }
    (!parts.is_empty()).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_parted_and_joined_in_runs() {
        let dims = |text: &str| text.split_whitespace().map(|d| Dim::parse(d).expect("a size")).collect::<Vec<_>>();
        let check = |from: &str, to: &str, want: Option<&[(Range<usize>, Range<usize>)]>| {
            let want = want.map(|w| w.iter().map(|(a, b)| Part { from: a.clone(), to: b.clone() }).collect::<Vec<_>>());
            assert_eq!(parts(&dims(from), &dims(to)), want, "{from} to {to}");
        };
        check("n 24 256", "n 24 16 16", Some(&[(0..1, 0..1), (1..2, 1..2), (2..3, 2..4)]));
        check("2 3 4", "6 4", Some(&[(0..2, 0..1), (2..3, 1..2)]));
        check("2 1 3", "2 3 1", Some(&[(0..1, 0..1), (1..2, 1..1), (2..3, 1..3)]));
        check("3", "1 3", Some(&[(0..1, 0..2)]));
        check("4 6", "6 4", Some(&[(0..2, 0..2)]));
        check("n m", "m n", None);
        check("0 2", "0 3", None);
    }
}
