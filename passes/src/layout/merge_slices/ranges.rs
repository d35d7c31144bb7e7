//! Slices along one axis.

use mlconv_mil::{ir::Function, ops::SliceByIndex};

/// What a slice takes of one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub begin: i64,
    pub end: i64,
    pub stride: i64,
    pub no_begin: bool,
    pub no_end: bool,
    pub squeezed: bool,
}

/// What `op` takes of each axis, where its bounds are constant.
pub(super) fn ranges(f: &Function, op: &SliceByIndex) -> Option<Vec<Range>> {
    let (begin, end) = (f.constant(op.begin)?.to_i64(), f.constant(op.end)?.to_i64());
    let is = |mask: &Option<Vec<bool>>, i: usize| mask.as_ref().is_some_and(|m| m.get(i) == Some(&true));
    let range = |(i, (begin, end)): (usize, (i64, i64))| {
        let stride = op.stride.as_ref().map_or(Some(1), |s| s.get(i).copied())?;
        let (no_begin, no_end) = (is(&op.begin_mask, i), is(&op.end_mask, i));
        Some(Range { begin, end, stride, no_begin, no_end, squeezed: is(&op.squeeze_mask, i) })
    };
    begin.into_iter().zip(end).enumerate().map(range).collect()
}

impl Range {
    /// Whether a slice forward starts with the first element.
    pub(super) fn starts(&self) -> bool {
        self.no_begin || self.begin == 0
    }

    /// Whether it takes everything, whatever the size.
    fn is_whole(&self) -> bool {
        self.stride == 1 && self.starts() && self.no_end && !self.squeezed
    }

    /// The first index of `n`, and how many elements there are, where it goes forward and has some.
    pub(super) fn taken(&self, n: i64) -> Option<(i64, i64)> {
        let inside = |at: i64| (if at < 0 { at + n } else { at }).clamp(0, n);
        let first = if self.no_begin { 0 } else { inside(self.begin) };
        if self.squeezed {
            return (first < n).then_some((first, 1));
        }
        let stop = if self.no_end { n } else { inside(self.end) };
        (self.stride > 0 && stop > first).then(|| (first, (stop - first - 1) / self.stride + 1))
    }

    /// What `next` takes of what `self` takes of `size` elements.
    pub(super) fn then(self, next: Self, size: Option<i64>) -> Option<Self> {
        if next.is_whole() {
            return Some(self);
        }
        if self.is_whole() {
            return Some(next);
        }
        let n = size?;
        let (first, count) = self.taken(n)?;
        let (from, some) = next.taken(count)?;
        let (begin, stride) = (first + from * self.stride, self.stride * next.stride);
        let end = begin + (some - 1) * stride + 1;
        let stride = if next.squeezed { 1 } else { stride };
        Some(Self { begin, end, stride, no_begin: false, no_end: false, squeezed: next.squeezed })
    }
}
