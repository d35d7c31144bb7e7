//! Element types.

use std::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $bits:literal, $class:ident;)*) => {
        /// The type of one element of a tensor.
        ///
        /// Sub-byte types are packed least significant bit first wherever they are stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DType { $($(#[$doc])* $name),* }

        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Class { Float, Signed, Unsigned, Bool, Str }

        impl DType {
            /// Every element type, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Bits of storage per element. Strings have none.
            pub const fn bits(self) -> u32 { match self { $(Self::$name => $bits),* } }

            /// The spelling used in text, such as `f32`.
            pub const fn name(self) -> &'static str { match self { $(Self::$name => $text),* } }

            const fn class(self) -> Class { match self { $(Self::$name => Class::$class),* } }
        }
    };
}

dtypes! {
    /// IEEE 754 binary16.
    F16 = "f16", 16, Float;
    /// IEEE 754 binary32.
    F32 = "f32", 32, Float;
    /// IEEE 754 binary64.
    F64 = "f64", 64, Float;
    /// The upper half of a binary32.
    Bf16 = "bf16", 16, Float;
    /// 8-bit float, 4 exponent bits, finite only.
    F8E4M3 = "f8e4m3fn", 8, Float;
    /// 8-bit float, 5 exponent bits.
    F8E5M2 = "f8e5m2", 8, Float;
    /// Signed 4-bit integer.
    I4 = "i4", 4, Signed;
    /// Signed 8-bit integer.
    I8 = "i8", 8, Signed;
    /// Signed 16-bit integer.
    I16 = "i16", 16, Signed;
    /// Signed 32-bit integer.
    I32 = "i32", 32, Signed;
    /// Signed 64-bit integer.
    I64 = "i64", 64, Signed;
    /// Unsigned 1-bit integer.
    U1 = "u1", 1, Unsigned;
    /// Unsigned 2-bit integer.
    U2 = "u2", 2, Unsigned;
    /// Unsigned 3-bit integer.
    U3 = "u3", 3, Unsigned;
    /// Unsigned 4-bit integer.
    U4 = "u4", 4, Unsigned;
    /// Unsigned 6-bit integer.
    U6 = "u6", 6, Unsigned;
    /// Unsigned 8-bit integer.
    U8 = "u8", 8, Unsigned;
    /// Unsigned 16-bit integer.
    U16 = "u16", 16, Unsigned;
    /// Unsigned 32-bit integer.
    U32 = "u32", 32, Unsigned;
    /// Unsigned 64-bit integer.
    U64 = "u64", 64, Unsigned;
    /// One byte, 0 or 1.
    Bool = "bool", 8, Bool;
    /// Text; only class labels and literals have it.
    Str = "str", 0, Str;
}

impl DType {
    /// Whether values are floating-point numbers.
    pub fn is_float(self) -> bool {
        self.class() == Class::Float
    }

    /// Whether values are integers, signed or not; `bool` is none.
    pub fn is_int(self) -> bool {
        matches!(self.class(), Class::Signed | Class::Unsigned)
    }

    /// The least and greatest value of an integer type, `0..=1` for `bool`.
    pub fn int_range(self) -> Option<(i128, i128)> {
        match self.class() {
            Class::Signed => Some((-(1 << (self.bits() - 1)), (1 << (self.bits() - 1)) - 1)),
            Class::Unsigned => Some((0, (1 << self.bits()) - 1)),
            Class::Bool => Some((0, 1)),
            Class::Float | Class::Str => None,
        }
    }

    /// The type spelled `name` in text.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|d| d.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
