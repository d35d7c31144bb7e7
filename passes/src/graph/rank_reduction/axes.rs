//! Runs of neighbouring axes that an op treats alike.

use mlconv_tensor::{Dim, Shape};
use std::ops::Range;

/// The number of elements that some axes have together.
pub(super) fn product(dims: &[Dim]) -> Dim {
    dims.iter().fold(Dim::from(1), |n, d| n * d)
}

/// The shape of `shape` with each run of axes joined.
pub(super) fn joined(shape: &[Dim], runs: &[Range<usize>]) -> Vec<Dim> {
    runs.iter().map(|r| product(&shape[r.clone()])).collect()
}

/// The longest runs of neighbouring axes of one kind. An axis of kind `None` goes with any; runs of nothing else are of
/// the kind `other`.
pub(super) fn runs<K: PartialEq + Clone>(kinds: &[Option<K>], other: K) -> Vec<(Range<usize>, K)> {
    let mut out: Vec<(Range<usize>, Option<K>)> = vec![];
    for (i, kind) in kinds.iter().enumerate() {
        match out.last_mut() {
            Some((run, of)) if kind.is_none() || of.is_none() || of == kind => {
                run.end = i + 1;
                *of = of.take().or_else(|| kind.clone());
            }
            _ => out.push((i..i + 1, kind.clone())),
        }
    }
    out.into_iter().map(|(run, kind)| (run, kind.unwrap_or_else(|| other.clone()))).collect()
}

/// The elements before, along and behind one axis.
pub(super) fn around(shape: &Shape, axis: usize) -> [Dim; 3] {
    [product(&shape[..axis]), shape[axis].clone(), product(&shape[axis + 1..])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_axes_go_with_their_neighbours() {
        let kinds = [None, Some('a'), None, Some('a'), Some('b'), None, None];
        assert_eq!(runs(&kinds, '?'), [(0..4, 'a'), (4..7, 'b')]);
        assert_eq!(runs(&[None, None], '?'), [(0..2, '?')]);
        assert_eq!(runs::<char>(&[], '?'), []);
    }
}
