//! Attribute values: literals that configure an op.

use mlconv_tensor::{DType, Tensor};
use std::fmt;

/// A list of integers.
pub type Ints = Vec<i64>;
/// A list of floats.
pub type Floats = Vec<f32>;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// A boolean.
    Bool(bool),
    /// A string, also standing for an enumeration or an element type.
    Str(String),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Booleans.
    Bools(Vec<bool>),
    /// Strings.
    Strs(Vec<String>),
    /// A tensor.
    Tensor(Tensor),
}

/// A Rust type that an op's struct may have as an attribute.
pub trait AttrField: Sized {
    /// The value; `None` where it is absent.
    fn to_attr(&self) -> Option<Attr>;
    /// Reads a value; `None` where it is of another kind.
    fn from_attr(attr: Attr) -> Option<Self>;
    /// The strings that are allowed; empty where any value of the type is.
    fn choices() -> &'static [&'static str] {
        &[]
    }
}

macro_rules! attr_fields {
    ($($t:ty: $variant:ident $(, $other:pat => $convert:expr)*;)*) => { $(
        impl AttrField for $t {
            fn to_attr(&self) -> Option<Attr> { Some(Attr::$variant(self.clone())) }
            fn from_attr(attr: Attr) -> Option<Self> {
                match attr { Attr::$variant(v) => Some(v), $($other => $convert,)* _ => None }
            }
        }
    )* };
}
// A literal such as `1` or `[]` does not tell its kind; the field does.
attr_fields! {
    i64: Int;
    bool: Bool;
    String: Str;
    Tensor: Tensor;
    f32: Float, Attr::Int(i) => exact(i);
    Vec<i64>: Ints, Attr::Int(i) => Some(vec![i]);
    Vec<f32>: Floats, Attr::Ints(v) => v.into_iter().map(exact).collect(), Attr::Float(x) => Some(vec![x]);
    Vec<bool>: Bools, Attr::Ints(v) => v.is_empty().then(Vec::new), Attr::Bool(b) => Some(vec![b]);
    Vec<String>: Strs, Attr::Ints(v) => v.is_empty().then(Vec::new), Attr::Str(s) => Some(vec![s]);
}

fn exact(i: i64) -> Option<f32> {
    let f = i as f32;
    (f as i64 == i).then_some(f)
}

impl<T: AttrField> AttrField for Option<T> {
    fn to_attr(&self) -> Option<Attr> {
        self.as_ref().and_then(T::to_attr)
    }
    fn from_attr(attr: Attr) -> Option<Self> {
        T::from_attr(attr).map(Some)
    }
    fn choices() -> &'static [&'static str] {
        T::choices()
    }
}

/// Any attribute: class labels are strings or integers.
impl AttrField for Attr {
    fn to_attr(&self) -> Option<Attr> {
        Some(self.clone())
    }
    fn from_attr(attr: Attr) -> Option<Self> {
        Some(attr)
    }
}

impl AttrField for DType {
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::Str(mil_name(*self).to_owned()))
    }
    fn from_attr(attr: Attr) -> Option<Self> {
        let Attr::Str(name) = attr else { return None };
        parse_mil_name(&name)
    }
}

/// The spellings of element types inside MIL.
const MIL_NAMES: [(DType, &str); 19] = [
    (DType::F16, "fp16"),
    (DType::F32, "fp32"),
    (DType::F64, "fp64"),
    (DType::Bf16, "bf16"),
    (DType::I4, "int4"),
    (DType::I8, "int8"),
    (DType::I16, "int16"),
    (DType::I32, "int32"),
    (DType::I64, "int64"),
    (DType::U1, "uint1"),
    (DType::U2, "uint2"),
    (DType::U3, "uint3"),
    (DType::U4, "uint4"),
    (DType::U6, "uint6"),
    (DType::U8, "uint8"),
    (DType::U16, "uint16"),
    (DType::U32, "uint32"),
    (DType::U64, "uint64"),
    (DType::Bool, "bool"),
];

/// How MIL spells an element type in a `dtype` parameter.
pub fn mil_name(dtype: DType) -> &'static str {
    MIL_NAMES.iter().find(|(d, _)| *d == dtype).map_or_else(|| dtype.name(), |(_, n)| n)
}

/// The element type that MIL spells `name`.
pub fn parse_mil_name(name: &str) -> Option<DType> {
    MIL_NAMES.iter().find(|(_, n)| *n == name).map(|(d, _)| *d).or_else(|| DType::from_name(name))
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Debug>(f: &mut fmt::Formatter<'_>, v: &[T]) -> fmt::Result {
            f.debug_list().entries(v).finish()
        }
        match self {
            Self::Int(i) => i.fmt(f),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Bool(b) => b.fmt(f),
            Self::Str(s) => write!(f, "{s:?}"),
            Self::Ints(v) => list(f, v),
            Self::Floats(v) => list(f, v),
            Self::Bools(v) => list(f, v),
            Self::Strs(v) => list(f, v),
            Self::Tensor(t) => write!(f, "{t:?}"),
        }
    }
}
