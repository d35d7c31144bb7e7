//! Operators on the bits of integers, by arithmetic: Core ML has no ops for them.

use super::elementwise::own_range;
use crate::LATEST;
use mlconv_mil::ir::Value;
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::DType;

rows! {
    "BitShift" 11..=LATEST => shift;
    "BitwiseAnd" 18..=LATEST => |n| joined(n, |_, _, _, both| Ok(both));
    "BitwiseNot" 18..=LATEST => complement;
    "BitwiseOr" 18..=LATEST => |n| joined(n, |n, x, y, both| {
        let alone = n.sub(y, both)?;
        n.add(x, alone)
    });
    "BitwiseXor" 18..=LATEST => |n| joined(n, |n, x, y, both| {
        let (x, y) = (n.sub(x, both)?, n.sub(y, both)?);
        n.add(x, y)
    });
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// How many bits of the first input count as a number, and whether one more is its sign.
fn width(n: &Lower<'_>) -> (u32, bool) {
    match n.source_dtype(0) {
        Some(DType::U8) => (8, false),
        Some(DType::I8) => (7, true),
        Some(DType::U16) => (16, false),
        Some(DType::I16) => (15, true),
        _ => (31, true),
    }
}

/// Shifts. By a negative number of bits, or by as many as there are, everything is shifted out.
fn shift(n: &mut Lower<'_>) -> Lowered {
    let (x, by) = (n.input(0)?, n.input(1)?);
    let left = match n.str("direction")? {
        Some("LEFT") => true,
        Some("RIGHT") => false,
        _ => return n.bad_attr("direction", "`LEFT` or `RIGHT`"),
    };
    let bits = n.source_dtype(0).map_or(32, |d| i64::from(d.bits()));
    let y = n.shifted(x, by, left, bits)?;
    if left { own_range(n, y) } else { n.done(y) }
}

fn complement(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let ones = match n.source_dtype(0) {
        Some(d @ (DType::U8 | DType::U16)) => (1i64 << d.bits()) - 1,
        Some(d @ DType::U64) => {
            return Err(LowerError::form(format!("the complement of {d}, which 32 bits do not hold,")));
        }
        _ => -1,
    };
    let ones = n.const_int(ones)?;
    let y = n.sub(ones, x)?;
    own_range(n, y)
}

/// What comes of two operands and the bits that both have.
type OfBits<'a> = fn(&mut Lower<'a>, Value, Value, Value) -> Result<Value>;

fn joined<'a>(n: &mut Lower<'a>, of_bits: OfBits<'a>) -> Lowered {
    let (x, y) = (n.input(0)?, n.input(1)?);
    let (bits, signed) = width(n);
    let both = n.common_bits(x, y, bits, signed)?;
    let z = of_bits(n, x, y, both)?;
    own_range(n, z)
}
