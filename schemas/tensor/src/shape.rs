//! Shapes, axes and the rules by which shapes meet.

use crate::Dim;
use smallvec::SmallVec;
use std::{fmt, ops::Deref};

/// Sizes along each axis where all are known.
pub type Dims = SmallVec<[usize; 6]>;

/// A tensor's shape; rank 0 is a scalar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(SmallVec<[Dim; 6]>);

/// An axis of a tensor of some rank, resolved once, in `0..rank`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Axis(usize);

impl Axis {
    /// The index in `0..rank`.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Why shapes do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// An axis is outside `-rank..rank`.
    #[error("axis {axis} is outside a tensor of rank {rank}")]
    Axis {
        /// The axis as given.
        axis: i64,
        /// The tensor's rank.
        rank: usize,
    },
    /// Two shapes cannot be broadcast together.
    #[error("shapes {a} and {b} cannot be broadcast together")]
    Broadcast {
        /// The first shape.
        a: Shape,
        /// The second shape.
        b: Shape,
    },
}

impl Shape {
    /// A scalar's shape.
    pub fn scalar() -> Self {
        Self::default()
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Resolves `axis`, which counts from the end where negative.
    pub fn axis(&self, axis: i64) -> Result<Axis, ShapeError> {
        let rank = self.rank() as i64;
        let wrapped = if axis < 0 { axis.saturating_add(rank) } else { axis };
        if (0..rank).contains(&wrapped) {
            Ok(Axis(wrapped as usize))
        } else {
            Err(ShapeError::Axis { axis, rank: self.rank() })
        }
    }

    /// Resolves each of `axes`.
    pub fn axes(&self, axes: &[i64]) -> Result<SmallVec<[Axis; 6]>, ShapeError> {
        axes.iter().map(|a| self.axis(*a)).collect()
    }

    /// The sizes, where every one is known and not negative.
    pub fn known(&self) -> Option<Dims> {
        self.0.iter().map(Dim::as_usize).collect()
    }

    /// The number of elements.
    pub fn count(&self) -> Dim {
        self.0.iter().fold(Dim::from(1), |n, d| n * d)
    }

    /// The shape to which `self` and `other` broadcast, aligned at the last axis.
    ///
    /// A symbol against a known size other than 1 takes that size; two different symbols take the greater.
    pub fn broadcast(&self, other: &Self) -> Result<Self, ShapeError> {
        let rank = self.rank().max(other.rank());
        let one = Dim::from(1);
        let at = |s: &'_ Self, i: usize| -> Dim {
            (i + s.rank()).checked_sub(rank).map_or_else(|| one.clone(), |k| s.0[k].clone())
        };
        (0..rank)
            .map(|i| {
                let (a, b) = (at(self, i), at(other, i));
                match (a.as_known(), b.as_known()) {
                    _ if a == b => Ok(a),
                    (Some(1), _) => Ok(b),
                    (_, Some(1)) => Ok(a),
                    (Some(_), None) => Ok(a),
                    (None, Some(_)) => Ok(b),
                    (None, None) => Ok(a.maximum(&b)),
                    (Some(_), Some(_)) => Err(ShapeError::Broadcast { a: self.clone(), b: other.clone() }),
                }
            })
            .collect()
    }

    /// Whether the shapes may be equal for some values of their symbols.
    pub fn may_equal(&self, other: &Self) -> bool {
        self.rank() == other.rank() && self.0.iter().zip(&other.0).all(|(a, b)| a.may_equal(b))
    }

    /// The same shape with `axis` set to `dim`.
    pub fn with(&self, axis: Axis, dim: impl Into<Dim>) -> Self {
        let mut s = self.clone();
        if let Some(slot) = s.0.get_mut(axis.0) {
            *slot = dim.into();
        }
        s
    }

    /// The dims, to change in place.
    pub fn dims_mut(&mut self) -> &mut SmallVec<[Dim; 6]> {
        &mut self.0
    }

    /// The sizes where `symbol` gives each symbol's value.
    pub fn eval(&self, symbol: &dyn Fn(&str) -> Option<i64>) -> Option<Dims> {
        self.0.iter().map(|d| usize::try_from(d.eval(symbol)?).ok()).collect()
    }
}

/// Elements to step for each axis of a row-major tensor of shape `dims`.
pub fn strides(dims: &[usize]) -> Dims {
    let mut out: Dims = SmallVec::from_elem(1, dims.len());
    for i in (1..dims.len()).rev() {
        out[i - 1] = out[i].saturating_mul(dims[i].max(1));
    }
    out
}

impl Deref for Shape {
    type Target = [Dim];
    fn deref(&self) -> &[Dim] {
        &self.0
    }
}

impl<D: Into<Dim>> FromIterator<D> for Shape {
    fn from_iter<I: IntoIterator<Item = D>>(dims: I) -> Self {
        Self(dims.into_iter().map(Into::into).collect())
    }
}

impl<D: Into<Dim>, const N: usize> From<[D; N]> for Shape {
    fn from(dims: [D; N]) -> Self {
        dims.into_iter().collect()
    }
}

impl From<Vec<Dim>> for Shape {
    fn from(dims: Vec<Dim>) -> Self {
        dims.into_iter().collect()
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        dims.iter().copied().collect()
    }
}

impl From<&Dims> for Shape {
    fn from(dims: &Dims) -> Self {
        dims.iter().copied().collect()
    }
}

impl From<&[Dim]> for Shape {
    fn from(dims: &[Dim]) -> Self {
        dims.iter().cloned().collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            write!(f, "{}{d}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Shape {
        text.split_whitespace().map(|d| Dim::parse(d).expect("a dim")).collect()
    }

    #[test]
    fn broadcasting_prefers_what_is_known() {
        let check = |a: &str, b: &str, want: &str| assert_eq!(shape(a).broadcast(&shape(b)), Ok(shape(want)));
        check("2 3", "3", "2 3");
        check("2 1", "1 3", "2 3");
        check("s 1", "4", "s 4");
        check("s", "4", "4");
        check("", "2 s", "2 s");
        assert_eq!(shape("a").broadcast(&shape("b")).expect("symbols").to_string(), "[max(a, b)]");
        assert!(shape("2").broadcast(&shape("3")).is_err());
    }

    #[test]
    fn axes_count_from_either_end() {
        assert_eq!(shape("2 3").axis(-1).map(Axis::index), Ok(1));
        assert_eq!(shape("2 3").axis(2), Err(ShapeError::Axis { axis: 2, rank: 2 }));
        assert!(shape("").axis(i64::MIN).is_err());
    }
}
