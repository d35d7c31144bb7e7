//! Runs of neighbouring axes that an op treats alike.

use super::lower::Why;
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

/// For axes that something is done to, each a run of its own, and the runs of those between them: with each run, the axis
/// if it is one that something is done to.
pub(super) fn active_runs(active: &[bool]) -> (Vec<Range<usize>>, Vec<Option<usize>>) {
    let kinds: Vec<Option<usize>> = active.iter().enumerate().map(|(i, a)| Some(if *a { i + 1 } else { 0 })).collect();
    runs(&kinds, 0).into_iter().map(|(run, kind)| (run, kind.checked_sub(1))).unzip()
}

/// The axis that `axis` means among those of `shape`.
pub(super) fn index(shape: &Shape, axis: i64) -> Result<usize, Why> {
    shape.axis(axis).map(|a| a.index()).map_err(|_| Why::Because("its axis is none"))
}

/// The axes that `axes` mean among those of `shape`.
pub(super) fn indices(shape: &Shape, axes: &[i64]) -> Result<Vec<usize>, Why> {
    axes.iter().map(|a| index(shape, *a)).collect()
}

/// The elements before, along and behind one axis.
pub(super) fn around(shape: &[Dim], axis: usize) -> [Dim; 3] {
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
        assert_eq!(active_runs(&[false, false, true, true]), (vec![0..2, 2..3, 3..4], vec![None, Some(2), Some(3)]));
    }
}
