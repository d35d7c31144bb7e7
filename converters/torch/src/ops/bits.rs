//! Operators on the bits of integers, and on truth values in their place.

use super::promote::operands;
use mlconv_mil::{ir::Value, ops, schema::Op};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::DType;

aten! {
    "bitwise_not(Tensor self) -> Tensor" => bitwise_not;
    "bitwise_and.Tensor(Tensor self, Tensor other) -> Tensor", "bitwise_and.Scalar(Tensor self, Scalar other) -> Tensor",
    "bitwise_and.Scalar_Tensor(Scalar self, Tensor other) -> Tensor",
    "__and__.Tensor(Tensor self, Tensor other) -> Tensor", "__and__.Scalar(Tensor self, Scalar other) -> Tensor" =>
        |n| joined(n, |x, y| Box::new(ops::LogicalAnd { x, y }), |_, _, _, both| Ok(both));
    "bitwise_or.Tensor(Tensor self, Tensor other) -> Tensor", "bitwise_or.Scalar(Tensor self, Scalar other) -> Tensor",
    "bitwise_or.Scalar_Tensor(Scalar self, Tensor other) -> Tensor",
    "__or__.Tensor(Tensor self, Tensor other) -> Tensor", "__or__.Scalar(Tensor self, Scalar other) -> Tensor" =>
        |n| joined(n, |x, y| Box::new(ops::LogicalOr { x, y }), |n, x, y, both| { let alone = n.sub(y, both)?; n.add(x, alone) });
    "bitwise_xor.Tensor(Tensor self, Tensor other) -> Tensor", "bitwise_xor.Scalar(Tensor self, Scalar other) -> Tensor",
    "bitwise_xor.Scalar_Tensor(Scalar self, Tensor other) -> Tensor",
    "__xor__.Tensor(Tensor self, Tensor other) -> Tensor", "__xor__.Scalar(Tensor self, Scalar other) -> Tensor" =>
        |n| joined(n, |x, y| Box::new(ops::LogicalXor { x, y }), |n, x, y, both| { let (x, y) = (n.sub(x, both)?, n.sub(y, both)?); n.add(x, y) });
    "bitwise_left_shift.Tensor(Tensor self, Tensor other) -> Tensor", "bitwise_left_shift.Tensor_Scalar(Tensor self, Scalar other) -> Tensor",
    "bitwise_left_shift.Scalar_Tensor(Scalar self, Tensor other) -> Tensor",
    "__lshift__.Tensor(Tensor self, Tensor other) -> Tensor", "__lshift__.Scalar(Tensor self, Scalar other) -> Tensor" => |n| shifted(n, true);
    "bitwise_right_shift.Tensor(Tensor self, Tensor other) -> Tensor", "bitwise_right_shift.Tensor_Scalar(Tensor self, Scalar other) -> Tensor",
    "bitwise_right_shift.Scalar_Tensor(Scalar self, Tensor other) -> Tensor",
    "__rshift__.Tensor(Tensor self, Tensor other) -> Tensor", "__rshift__.Scalar(Tensor self, Scalar other) -> Tensor" => |n| shifted(n, false);
    "gcd(Tensor self, Tensor other) -> Tensor" => |n| { let ([x, y], _) = operands(n, ["self", "other"])?; let y = divisor(n, x, y)?; n.done(y) };
    "lcm(Tensor self, Tensor other) -> Tensor" => |n| {
        let ([x, y], _) = operands(n, ["self", "other"])?;
        let by = divisor(n, x, y)?;
        let one = n.const_int(1)?;
        let by = n.maximum(by, one)?;
        let part = n.op(ops::FloorDiv { x, y: by })?;
        let all = n.mul(part, y)?;
        n.emit(ops::Abs { x: all })
    };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The integer type that both arguments have in the source, where it is of less than 32 bits.
fn narrow(n: &Lower<'_>) -> Option<DType> {
    let small = |name| n.dtype_of(name).filter(|d| matches!(d, DType::U8 | DType::I8 | DType::U16 | DType::I16));
    match (small("self"), small("other")) {
        (Some(a), Some(b)) => (a == b).then_some(a),
        (Some(a), None) if !n.has("other") || n.is_number("other") => Some(a),
        (None, Some(b)) if n.is_number("self") => Some(b),
        _ => None,
    }
}

/// What comes of two operands and the bits that both have.
type OfBits<'a> = fn(&mut Lower<'a>, Value, Value, Value) -> Result<Value>;

fn joined<'a>(n: &mut Lower<'a>, logic: fn(Value, Value) -> Box<dyn Op>, of_bits: OfBits<'a>) -> Lowered {
    let ([x, y], dtype) = operands(n, ["self", "other"])?;
    if dtype == DType::Bool {
        let z = n.boxed(logic(x, y))?;
        return n.done(z);
    }
    let (bits, signed) = match narrow(n) {
        Some(d @ (DType::U8 | DType::U16)) => (d.bits(), false),
        Some(d) => (d.bits() - 1, true),
        None => (31, true),
    };
    let both = n.common_bits(x, y, bits, signed)?;
    let z = of_bits(n, x, y, both)?;
    n.done(z)
}

fn bitwise_not(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    if n.dtype(x)? == DType::Bool {
        return n.emit(ops::LogicalNot { x });
    }
    let ones = match n.dtype_of("self") {
        Some(d @ (DType::U8 | DType::U16)) => (1i64 << d.bits()) - 1,
        _ => -1,
    };
    let ones = n.const_int(ones)?;
    n.emit(ops::Sub { x: ones, y: x })
}

fn shifted(n: &mut Lower<'_>, left: bool) -> Lowered {
    let ([x, by], dtype) = operands(n, ["self", "other"])?;
    if dtype.is_float() {
        return Err(LowerError::form("shifting floats"));
    }
    let (x, by) = (n.cast(x, DType::I32)?, n.cast(by, DType::I32)?);
    let small = narrow(n);
    let bits = small.or(n.dtype_of("self")).map_or(64, |d| i64::from(d.bits()));
    let y = n.shifted(x, by, left, bits)?;
    let y = match small {
        Some(to) if left => n.wrapped(y, to)?,
        _ => y,
    };
    n.done(y)
}

/// The greatest common divisor, by Euclid: 46 steps are enough for any two numbers of 32 bits.
fn divisor(n: &mut Lower<'_>, x: Value, y: Value) -> Result<Value> {
    let (mut a, mut b) = (n.abs(x)?, n.abs(y)?);
    let (zero, one) = (n.const_int(0)?, n.const_int(1)?);
    for _ in 0..46 {
        let done = n.equal(b, zero)?;
        let by = n.maximum(b, one)?;
        let rest = n.op(ops::Mod { x: a, y: by })?;
        let next = n.select(done, a, b)?;
        b = n.select(done, b, rest)?;
        a = next;
    }
    Ok(a)
}
