//! The elements of a tensor as `f64`, a few at a time: no copy is made of all of them where they are stored plainly.

use mlconv_tensor::{DType, Tensor, f16};
use std::{borrow::Cow, ops::Range};

/// Elements that are widened at once.
pub(crate) const BLOCK: usize = 4096;

/// The elements of a tensor, as they are stored.
pub(crate) enum Numbers<'a> {
    F16(Cow<'a, [f16]>),
    F32(Cow<'a, [f32]>),
    I32(Cow<'a, [i32]>),
    /// Whole bytes, which booleans are, too.
    U8(Cow<'a, [u8]>),
    /// Types that are rare in outputs.
    Other(Vec<f64>),
}

impl<'a> Numbers<'a> {
    pub(crate) fn new(t: &'a Tensor) -> Self {
        let stored = match t.dtype() {
            DType::F16 => t.view().map(Self::F16),
            DType::F32 => t.view().map(Self::F32),
            DType::I32 => t.view().map(Self::I32),
            DType::U8 | DType::Bool => t.view().map(Self::U8),
            _ => None,
        };
        stored.unwrap_or_else(|| Self::Other(t.to_f64()))
    }

    /// Widens the elements of `range`, which lies in the tensor, into `out`.
    pub(crate) fn widen(&self, range: Range<usize>, out: &mut Vec<f64>) {
        out.clear();
        match self {
            Self::F16(v) => out.extend(v.get(range).unwrap_or_default().iter().map(|x| x.to_f64())),
            Self::F32(v) => out.extend(v.get(range).unwrap_or_default().iter().map(|x| f64::from(*x))),
            Self::I32(v) => out.extend(v.get(range).unwrap_or_default().iter().map(|x| f64::from(*x))),
            Self::U8(v) => out.extend(v.get(range).unwrap_or_default().iter().map(|x| f64::from(*x))),
            Self::Other(v) => out.extend_from_slice(v.get(range).unwrap_or_default()),
        }
    }
}

/// The first place of the greatest element; `None` where one is not a number, or there is none.
pub(crate) fn greatest(row: &[f64]) -> Option<usize> {
    if row.iter().any(|x| x.is_nan()) {
        return None;
    }
    (1..row.len()).fold((!row.is_empty()).then_some(0), |best, i| best.map(|b| if row[i] > row[b] { i } else { b }))
}

/// Calls `visit` with parts of `size` elements of both, of `count` elements in all, and with the place of each part.
pub(crate) fn in_parts(
    [want, got]: [&Numbers<'_>; 2],
    count: usize,
    size: usize,
    mut visit: impl FnMut(usize, &[f64], &[f64]),
) {
    let (mut w, mut g) = (vec![], vec![]);
    for start in (0..count).step_by(size.max(1)) {
        let range = start..count.min(start.saturating_add(size));
        want.widen(range.clone(), &mut w);
        got.widen(range, &mut g);
        visit(start, &w, &g);
    }
}
