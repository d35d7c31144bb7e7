//! Why a node could not be lowered.

use mlconv_mil::{diagnostic::Limit, schema::OpError};
use mlconv_tensor::{DType, ShapeError};
use std::borrow::Cow;

/// What is wrong with one node. The node and its place are added by the driver.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// An input is absent.
    #[error("input {index} is missing")]
    MissingInput {
        /// Its position.
        index: usize,
    },
    /// An attribute is absent.
    #[error("attribute `{name}` is missing")]
    MissingAttr {
        /// Its name.
        name: &'static str,
    },
    /// An attribute is of another kind or value.
    #[error("attribute `{name}` is {found}, wanted {want}")]
    Attr {
        /// Its name.
        name: Cow<'static, str>,
        /// Its value.
        found: String,
        /// What it must be.
        want: Cow<'static, str>,
    },
    /// An attribute that the lowering does not know.
    #[error("attribute `{name}` is not known to this lowering")]
    Unread {
        /// Its name.
        name: String,
    },
    /// An input that the lowering does not take.
    #[error("input {index} is not known to this lowering")]
    UnreadInput {
        /// Its position.
        index: usize,
    },
    /// An input must be known before the program runs.
    #[error("input {index} must be constant")]
    NotConstant {
        /// Its position.
        index: usize,
    },
    /// An argument must be known before the program runs.
    #[error("argument `{name}` must be known before the program runs")]
    NotKnown {
        /// Its name.
        name: &'static str,
    },
    /// A constant does not fit the type that Core ML has for it.
    #[error("`{name}` holds {value}, which does not fit {dtype}")]
    DoesNotFit {
        /// The constant.
        name: String,
        /// The value.
        value: String,
        /// The type.
        dtype: DType,
    },
    /// This form of the operator has no lowering.
    #[error("{what} is not supported")]
    Form {
        /// The form.
        what: String,
        /// On whose side it is, where that is known.
        limit: Option<Limit>,
        /// What to do about it, where that is known.
        help: Option<&'static str>,
    },
    /// Something must have a fixed size.
    #[error("{what} depends on a size that is not fixed")]
    NotFixed {
        /// What depends on it.
        what: String,
    },
    /// Results and names of results differ in number.
    #[error("it has {found} results, the node names {want}")]
    Results {
        /// Results made.
        found: usize,
        /// Names given.
        want: usize,
    },
    /// What lowerings make of the model is larger than a conversion may hold.
    #[error("the constants that its operators come to are more than memory holds")]
    TooLarge,
    /// An op that the lowering made is not valid.
    #[error("`{op}`: {why}")]
    Op {
        /// Its name.
        op: String,
        /// What is wrong with it.
        why: OpError,
    },
    /// An op that the lowering made, or the operator itself, does not take what it is given.
    #[error("`{op}`: {why}")]
    Operand {
        /// Its name.
        op: String,
        /// What is wrong with it.
        why: String,
    },
    /// Axes or shapes do not go together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// An input comes from a node that was not lowered; reported there.
    #[error("an input is not known")]
    Poisoned,
}

impl LowerError {
    /// A form of the operator that has no lowering.
    pub fn form(what: impl Into<String>) -> Self {
        Self::Form { what: what.into(), limit: None, help: None }
    }

    /// As [`Self::form`], where it is Core ML that has no equal of the form.
    pub fn core_ml(what: impl Into<String>) -> Self {
        Self::Form { what: what.into(), limit: Some(Limit::CoreMl), help: None }
    }

    /// As [`Self::form`], where a lowering could be written.
    pub fn not_yet(what: impl Into<String>) -> Self {
        Self::Form { what: what.into(), limit: Some(Limit::NotYet), help: None }
    }

    /// As [`Self::form`], with what to do about it.
    pub fn form_but(what: impl Into<String>, help: &'static str) -> Self {
        Self::Form { what: what.into(), limit: None, help: Some(help) }
    }

    /// Says on whose side it is that this form has no lowering.
    pub fn by(mut self, whose: Limit) -> Self {
        if let Self::Form { limit, .. } = &mut self {
            *limit = Some(whose);
        }
        self
    }

    /// What the user can do about it, where that is known.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotFixed { .. } | Self::NotKnown { .. } => {
                Some("give the input a fixed size, as in `--input x=1x3x224x224`")
            }
            Self::NotConstant { .. } => {
                Some("fold the model's constants first, or give inputs fixed sizes with `--input`")
            }
            Self::Form { help, .. } => *help,
            _ => None,
        }
    }

    /// On whose side it is, where that is known.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::Form { limit, .. } => *limit,
            // Core ML has no wider type.
            Self::DoesNotFit { .. } => Some(Limit::CoreMl),
            _ => None,
        }
    }

    /// Whether the node is at fault whatever it reads: not a type, a size or a value that another node decides.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Unread { .. } | Self::UnreadInput { .. } | Self::Form { .. })
    }
}

impl From<mlconv_mil::ir::InsertError> for LowerError {
    fn from(e: mlconv_mil::ir::InsertError) -> Self {
        Self::Op { op: e.op, why: e.why }
    }
}
