//! The types of values in a program.

use crate::{DType, Dim, Shape};
use std::fmt;

/// A tensor's element type and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// The element type.
    pub dtype: DType,
    /// The shape, perhaps symbolic.
    pub shape: Shape,
}

impl TensorType {
    /// A tensor type of `dtype` and `shape`.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        Self { dtype, shape: shape.into() }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// A tensor; rank 0 is a scalar.
    Tensor(TensorType),
    /// A buffer that outlives a call, read and written by state ops.
    State(TensorType),
    /// A list of tensors of one type.
    List {
        /// The type of each element.
        elem: TensorType,
        /// How many elements there are at first; it may grow.
        len: Dim,
    },
    /// A map from scalars to scalars, as classifiers return.
    Dict {
        /// `str` or `i64`.
        key: DType,
        /// The type of each entry.
        value: DType,
    },
    /// Not known, as of the results of a source node that has no lowering.
    Unknown,
}

impl Type {
    /// The tensor type, if this is a plain tensor.
    pub fn tensor(&self) -> Option<&TensorType> {
        match self {
            Self::Tensor(t) => Some(t),
            Self::State(_) | Self::List { .. } | Self::Dict { .. } | Self::Unknown => None,
        }
    }

    /// Whether both may be the type of one value: they differ at most in sizes that are not known.
    pub fn may_equal(&self, other: &Self) -> bool {
        let tensors = |a: &TensorType, b: &TensorType| a.dtype == b.dtype && a.shape.may_equal(&b.shape);
        match (self, other) {
            (Self::Tensor(a), Self::Tensor(b)) => tensors(a, b),
            (Self::List { elem: a, len: n }, Self::List { elem: b, len: k }) => tensors(a, b) && n.may_equal(k),
            _ => self == other,
        }
    }
}

impl From<TensorType> for Type {
    fn from(t: TensorType) -> Self {
        Self::Tensor(t)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(t) => t.fmt(f),
            Self::State(t) => write!(f, "state<{t}>"),
            Self::List { elem, len } => write!(f, "list<{elem}, {len}>"),
            Self::Dict { key, value } => write!(f, "dict<{key}, {value}>"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}
