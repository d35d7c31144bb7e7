//! Modules, functions, blocks, ops and values.

mod arena;
mod function;
mod hints;
mod origin;

pub use arena::{Arena, Handle};
pub use function::{Block, BlockData, Def, Function, InsertError, OpData, OpId, Place, Use, Value, ValueData};
pub use origin::{Origin, OriginId, Origins, SourceInfo};

use indexmap::IndexMap;
use mlconv_tensor::{DType, Dim, Symbols, Type};
use std::sync::Arc;

/// A program: functions over shared symbols and origins.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// The functions; the first is the one run by default.
    pub functions: Vec<Function>,
    /// What is known of the symbols in shapes.
    pub symbols: Symbols,
    /// Where ops come from.
    pub origins: Origins,
    /// What a person wants to know of the model.
    pub meta: Meta,
}

impl Module {
    /// The function called `name`.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.name == name)
    }
}

/// Descriptive text that travels with a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// One paragraph.
    pub description: String,
    /// Who made the model.
    pub author: String,
    /// Its licence.
    pub license: String,
    /// Its version.
    pub version: String,
    /// Further keys, in order.
    pub user: IndexMap<String, String>,
}

/// The interface of a function: names and presentation of its inputs, states and outputs.
///
/// Ports of inputs (states among them) stand in the order of the body's arguments, ports of outputs in that of the
/// values it yields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    /// One per argument of the body.
    pub inputs: Vec<Port>,
    /// One per value that the body yields.
    pub outputs: Vec<Port>,
}

/// One named input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// The name that callers use, as the source spells it.
    pub name: Arc<str>,
    /// The name in the package that the function was read from, where that is another one.
    pub packaged: Option<Arc<str>>,
    /// How the value is presented.
    pub feature: Feature,
    /// One line for a person.
    pub description: String,
    /// The shapes allowed, where they are enumerated; the first is the default. Empty where they are not.
    pub shapes: Vec<Vec<i64>>,
    /// The value that every element takes where the caller gives no input; `None` where the input must be given.
    pub default: Option<f64>,
    /// The numbers that it holds, as far as a user has said.
    pub range: Option<Range>,
}

/// Numbers from `low` to `high`, both among them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

impl Range {
    /// What a pixel of 8 bits holds.
    pub const PIXEL: Self = Self { low: 0.0, high: 255.0 };
}

impl Port {
    /// The numbers that it holds, as far as that is known.
    pub fn holds(&self) -> Option<Range> {
        let is_pixels = matches!(self.feature, Feature::Image(layout) if layout != ColorLayout::GrayscaleF16);
        self.range.or(is_pixels.then_some(Range::PIXEL))
    }

    /// A plain tensor port.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            packaged: None,
            feature: Feature::Tensor,
            description: String::new(),
            shapes: vec![],
            default: None,
            range: None,
        }
    }
}

/// How a port's value is presented to callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// As a multi-dimensional array.
    Tensor,
    /// As an image with this channel layout, from a tensor `[1, channels, height, width]`.
    Image(ColorLayout),
}

/// The channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorLayout {
    /// One 8-bit channel.
    Grayscale,
    /// Three 8-bit channels, red first.
    Rgb,
    /// Three 8-bit channels, blue first.
    Bgr,
    /// One half-precision channel.
    GrayscaleF16,
}

/// What is known of a value before the program runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Its type.
    pub ty: Type,
    /// Its elements in row-major order, where it is a small tensor of integers or booleans (0 or 1) and they are known,
    /// perhaps symbolically.
    pub ints: Option<Arc<[Dim]>>,
}

impl Fact {
    /// Element counts up to this are tracked as known integers.
    pub const MAX_INTS: usize = 64;

    /// Whether elements of `dtype` are tracked.
    pub fn tracks(dtype: DType) -> bool {
        dtype.is_int() || dtype == DType::Bool
    }

    /// A fact that knows no values.
    pub fn of(ty: impl Into<Type>) -> Self {
        Self { ty: ty.into(), ints: None }
    }

    /// The same type with known elements; more than [`MAX_INTS`](Self::MAX_INTS) are forgotten.
    pub fn with_ints(self, ints: impl IntoIterator<Item = Dim>) -> Self {
        let ints: Vec<Dim> = ints.into_iter().collect();
        Self { ints: (ints.len() <= Self::MAX_INTS).then(|| ints.into()), ..self }
    }
}

impl From<Type> for Fact {
    fn from(ty: Type) -> Self {
        Self::of(ty)
    }
}
