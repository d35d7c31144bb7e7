//! Operators on the bits of integers, by arithmetic: Core ML has no ops for them.

use super::elementwise::own_range;
use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
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

/// The greatest power of two that 32 bits hold beside a sign.
const MOST: i64 = 30;

/// Shifts. By a negative number of bits, or by as many as there are, everything is shifted out.
fn shift(n: &mut Lower<'_>) -> Lowered {
    let (x, by) = (n.input(0)?, n.input(1)?);
    let left = match n.str("direction")? {
        Some("LEFT") => true,
        Some("RIGHT") => false,
        _ => return n.bad_attr("direction", "`LEFT` or `RIGHT`"),
    };
    let two = n.const_int(2)?;
    let steps = if n.known_ints(by).is_some_and(|by| by.iter().all(|b| (0..=MOST).contains(b))) {
        vec![by]
    } else {
        // A shift by any number of bits, in two steps that 32 bits hold.
        let bits = n.source_dtype(0).map_or(32, |d| i64::from(d.bits()));
        let (zero, last, most) = (n.const_int(0)?, n.const_int(bits - 1)?, n.const_int(MOST)?);
        let (negative, beyond) = (n.less(by, zero)?, n.less(last, by)?);
        let out = n.op(ops::LogicalOr { x: negative, y: beyond })?;
        let all = n.const_int(2 * MOST)?;
        let by = n.select(out, all, by)?;
        let first = n.minimum(by, most)?;
        let second = n.sub(by, first)?;
        vec![first, n.minimum(second, most)?]
    };
    let mut y = x;
    for by in steps {
        let factor = n.op(ops::Pow { x: two, y: by })?;
        y = if left { n.mul(y, factor)? } else { n.op(ops::FloorDiv { x: y, y: factor })? };
    }
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
    let both = common(n, x, y)?;
    let z = of_bits(n, x, y, both)?;
    own_range(n, z)
}

/// The bits that are set in both.
fn common(n: &mut Lower<'_>, x: Value, y: Value) -> Result<Value> {
    let (bits, signed) = width(n);
    let (least, zero) = (n.const_int(-(1i64 << bits))?, n.const_int(0)?);
    let powers: Vec<i64> = (0..bits).map(|i| 1i64 << i).collect();
    let (powers, two) = (n.const_ints(&powers)?, n.const_int(2)?);
    let digits = |n: &mut Lower<'_>, v: Value| -> Result<(Value, Value)> {
        let negative = n.less(v, zero)?;
        let sign = n.select(negative, least, zero)?;
        let number = if signed { n.sub(v, sign)? } else { v };
        // The bits take an axis of their own.
        let number = n.expand_dims(number, &[-1])?;
        let shifted = n.op(ops::FloorDiv { x: number, y: powers })?;
        Ok((n.op(ops::Mod { x: shifted, y: two })?, negative))
    };
    let ((x_bits, x_negative), (y_bits, y_negative)) = (digits(n, x)?, digits(n, y)?);
    let bits = n.mul(x_bits, y_bits)?;
    let values = n.mul(bits, powers)?;
    let mut both = n.op(ops::ReduceSum { x: values, axes: Some(vec![-1]), keep_dims: false })?;
    if signed {
        let negative = n.and(x_negative, y_negative)?;
        let sign = n.select(negative, least, zero)?;
        both = n.add(both, sign)?;
    }
    Ok(both)
}
