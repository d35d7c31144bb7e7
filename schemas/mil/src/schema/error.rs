//! What can be wrong with one op.

use mlconv_tensor::{DType, Dim, ShapeError, TensorType, Type};
use std::borrow::Cow;

/// What is wrong with an op, or why it could not run. The op and its place are added by whoever knows them.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// A parameter is not bound.
    #[error("`{param}` is missing")]
    Missing {
        /// The parameter.
        param: &'static str,
    },
    /// An argument has no parameter.
    #[error("there is no parameter `{param}`")]
    Unknown {
        /// The argument's name.
        param: String,
    },
    /// An argument is of the wrong kind.
    #[error("`{param}` is {found}, wanted {want}")]
    Kind {
        /// The parameter.
        param: &'static str,
        /// What it was bound to.
        found: String,
        /// What it takes.
        want: Cow<'static, str>,
    },
    /// An operand's type or shape does not fit.
    #[error("`{param}` is {found}, wanted {want}")]
    Operand {
        /// The parameter.
        param: &'static str,
        /// Its type.
        found: Type,
        /// What it must be.
        want: Cow<'static, str>,
    },
    /// A value is outside what the op allows.
    #[error("`{param}` is {found}, wanted {want}")]
    Value {
        /// The parameter.
        param: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        want: Cow<'static, str>,
    },
    /// A result would have a negative size.
    #[error("axis {axis} of the result would have size {dim}")]
    Size {
        /// The axis.
        axis: usize,
        /// The size.
        dim: Dim,
    },
    /// Axes or shapes do not go together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A block is given something else than it is written for.
    #[error("a block is given {found} for `%{arg}`, which is {want}")]
    Block {
        /// The argument of the block.
        arg: String,
        /// The type of what it is given.
        found: TensorType,
        /// Its type.
        want: TensorType,
    },
    /// Two operands that must have one element type have two.
    #[error("`{param}` is {found}, but `{other}` is {want}")]
    DType {
        /// The parameter.
        param: &'static str,
        /// Its element type.
        found: DType,
        /// The operand that came first.
        other: &'static str,
        /// Its element type.
        want: DType,
    },
    /// The result does not fit in memory.
    #[error("the result has {count} elements, more than memory holds")]
    TooLarge {
        /// How many elements there would be.
        count: Dim,
    },
    /// There is no reference kernel.
    #[error("there is no reference kernel")]
    NoKernel,
    /// A loop did not end.
    #[error("the loop has not ended after {iterations} iterations")]
    Endless {
        /// How often its body ran.
        iterations: u64,
    },
    /// An op inside a nested block failed.
    #[error("`{op}`: {why}")]
    Inner {
        /// The op's name.
        op: String,
        /// What is wrong with it.
        why: Box<OpError>,
    },
}

impl OpError {
    /// The value `found` of `param` is none that the op allows.
    pub fn value(param: &'static str, found: impl ToString, want: impl Into<Cow<'static, str>>) -> Self {
        Self::Value { param, found: found.to_string(), want: want.into() }
    }
}
