//! Elementwise arithmetic, comparisons, logic, casts and choices.

use super::exact;
use crate::{LATEST, tensor};
use mlconv_mil::{diagnostic::Limit, ir::Value, ops, schema::Op};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::{DType, Tensor};

rows! {
    "Abs" 6..=LATEST => |n| { let x = n.input(0)?; let y = n.abs(x)?; own_range(n, y) };
    "Acos" 7..=LATEST => |n| unary(n, |x| ops::Acos { x });
    "Acosh" 9..=LATEST => |n| { let x = n.input(0)?; let y = n.acosh(x)?; n.done(y) };
    "Add" 1..=LATEST => |n| arithmetic(n, |a, b| Some(a.wrapping_add(b)), |x, y| ops::Add { x, y });
    "And" 1..=LATEST => |n| binary(n, |x, y| ops::LogicalAnd { x, y });
    "Asin" 7..=LATEST => |n| unary(n, |x| ops::Asin { x });
    "Asinh" 9..=LATEST => |n| { let x = n.input(0)?; let y = n.asinh(x)?; n.done(y) };
    "Atan" 7..=LATEST => |n| unary(n, |x| ops::Atan { x });
    "Atanh" 9..=LATEST => |n| unary(n, |x| ops::Atanh { x });
    "BitCast" 26..=LATEST => bit_cast;
    "Cast" 6..=LATEST => cast;
    "CastLike" 15..=LATEST => cast_like;
    "Ceil" 6..=LATEST => |n| unary(n, |x| ops::Ceil { x });
    "Clip" 6..=10 => clip_by_attributes;
    "Clip" 11..=LATEST => clip;
    "Cos" 7..=LATEST => |n| unary(n, |x| ops::Cos { x });
    "Cosh" 9..=LATEST => |n| unary(n, |x| ops::Cosh { x });
    "Div" 1..=LATEST => divide;
    "Equal" 1..=LATEST => |n| compare(n, |x, y| ops::Equal { x, y });
    "Erf" 9..=LATEST => |n| unary(n, |x| ops::Erf { x });
    "Exp" 6..=LATEST => |n| unary(n, |x| ops::Exp { x });
    "Floor" 6..=LATEST => |n| unary(n, |x| ops::Floor { x });
    "Greater" 1..=LATEST => |n| compare(n, |x, y| ops::Greater { x, y });
    "GreaterOrEqual" 12..=LATEST => |n| compare(n, |x, y| ops::GreaterEqual { x, y });
    "IsInf" 10..=LATEST => is_inf;
    "IsNaN" 9..=LATEST => |n| { let x = n.input(0)?; n.emit(ops::NotEqual { x, y: x }) };
    "Less" 1..=LATEST => |n| compare(n, |x, y| ops::Less { x, y });
    "LessOrEqual" 12..=LATEST => |n| compare(n, |x, y| ops::LessEqual { x, y });
    "Log" 6..=LATEST => |n| unary(n, |x| ops::Log { x, epsilon: 1e-45 });
    "Max" 6..=LATEST => |n| variadic(n, Lower::limit, Lower::maximum);
    "Mean" 6..=LATEST => mean;
    "Min" 6..=LATEST => |n| variadic(n, Lower::limit, Lower::minimum);
    "Mod" 10..=LATEST => modulo;
    "Mul" 1..=LATEST => |n| arithmetic(n, |a, b| Some(a.wrapping_mul(b)), |x, y| ops::Mul { x, y });
    "Neg" 6..=LATEST => |n| {
        if let Some(t) = exact::unary(n, i64::wrapping_neg)? { return n.literal(t); }
        let x = n.input(0)?; let y = n.scale(x, -1.0)?; own_range(n, y) };
    "Not" 1..=LATEST => |n| { let x = n.input(0)?; n.emit(ops::LogicalNot { x }) };
    "Or" 1..=LATEST => |n| binary(n, |x, y| ops::LogicalOr { x, y });
    "Pow" 1..=LATEST => pow;
    "Reciprocal" 6..=LATEST => reciprocal;
    "Round" 11..=LATEST => |n| unary(n, |x| ops::Round { x });
    "Sign" 9..=LATEST => |n| { let x = n.input(0)?; n.emit(ops::Sign { x }) };
    "Sin" 7..=LATEST => |n| unary(n, |x| ops::Sin { x });
    "Sinh" 9..=LATEST => |n| unary(n, |x| ops::Sinh { x });
    "Sqrt" 6..=LATEST => |n| unary(n, |x| ops::Sqrt { x });
    "Sub" 1..=LATEST => |n| arithmetic(n, |a, b| Some(a.wrapping_sub(b)), |x, y| ops::Sub { x, y });
    "Sum" 6..=LATEST => |n| variadic(n, Lower::input, Lower::add);
    "Tan" 7..=LATEST => |n| unary(n, |x| ops::Tan { x });
    "Tanh" 6..=LATEST => |n| unary(n, |x| ops::Tanh { x });
    "Where" 9..=LATEST => select;
    "Xor" 1..=LATEST => |n| binary(n, |x, y| ops::LogicalXor { x, y });
}

/// An op on floats; integers are computed with as floats.
fn unary<O: Op>(n: &mut Lower<'_>, op: fn(Value) -> O) -> Lowered {
    let x = n.input(0)?;
    let dtype = n.dtype(x)?;
    if dtype.is_float() {
        return n.emit(op(x));
    }
    n.numeric(x)?;
    let x = n.as_float(x)?;
    let y = n.op(op(x))?;
    let y = n.cast(y, dtype)?;
    n.done(y)
}

/// The operands of a comparison, of which one may be a limit.
fn compared(n: &mut Lower<'_>) -> Result<(Value, Value), LowerError> {
    if n.node.version < 7 { operands(n) } else { Ok((n.extreme(0)?, n.extreme(1)?)) }
}

/// The two operands. Before version 7, the second was broadcast where the node says so, from an axis on.
fn operands(n: &mut Lower<'_>) -> Result<(Value, Value), LowerError> {
    let (x, y) = (n.input(0)?, n.input(1)?);
    if n.node.version >= 7 {
        return Ok((x, y));
    }
    n.ignore("consumed_inputs");
    let (broadcast, axis) = (n.flag("broadcast", false)?, n.int("axis")?);
    let Some(axis) = axis.filter(|_| broadcast) else { return Ok((x, y)) };
    let (rank, own) = (n.rank(x)?, n.rank(y)?);
    let behind = rank.checked_sub(n.axis(x, axis)? + own);
    let Some(behind) = behind else { return n.bad_attr("axis", "an axis from which on the second operand fits") };
    let axes: Vec<i64> = (0..behind).map(|i| (own + i) as i64).collect();
    Ok((x, n.expand_dims(y, &axes)?))
}

fn binary<O: Op>(n: &mut Lower<'_>, op: fn(Value, Value) -> O) -> Lowered {
    let (x, y) = operands(n)?;
    n.emit(op(x, y))
}

/// Of integers, as [`own_range`] has them.
fn arithmetic<O: Op>(n: &mut Lower<'_>, known: fn(i64, i64) -> Option<i64>, op: fn(Value, Value) -> O) -> Lowered {
    if n.node.version >= 7
        && let Some(t) = exact::binary(n, known)?
    {
        return n.literal(t);
    }
    let (x, y) = operands(n)?;
    let z = n.op(op(x, y))?;
    own_range(n, z)
}

/// `y`, which is of the type of the first input, in the range that this type has in the source: programs compute with
/// 32 bits, whatever the type was.
pub(super) fn own_range(n: &mut Lower<'_>, y: Value) -> Lowered {
    let source = n.source_dtype(0).filter(|d| d.is_int());
    let Some(source) = source.filter(|_| n.dtype(y).is_ok_and(|d| d == DType::I32)) else { return n.done(y) };
    n.makes(source);
    let y = match source {
        DType::U8 | DType::I8 | DType::U16 | DType::I16 => n.wrapped(y, source)?,
        // The bits are right; what they mean from 2^31 on is not.
        DType::U32 => {
            n.warn("unsigned integers are computed as signed ones: results from 2^31 on come out negative");
            y
        }
        _ => y,
    };
    n.done(y)
}

fn divide(n: &mut Lower<'_>) -> Lowered {
    if n.node.version >= 7
        && let Some(t) = exact::binary(n, i64::checked_div)?
    {
        return n.literal(t);
    }
    binary(n, |x, y| ops::RealDiv { x, y })
}

/// A comparison; booleans are compared as integers.
fn compare<O: Op>(n: &mut Lower<'_>, op: fn(Value, Value) -> O) -> Lowered {
    let (x, y) = compared(n)?;
    n.alike(x, y)?;
    if n.dtype(x)? == DType::Bool {
        let (x, y) = (n.cast(x, DType::I32)?, n.cast(y, DType::I32)?);
        return n.emit(op(x, y));
    }
    n.emit(op(x, y))
}

/// The element type that a cast of this kind is to.
fn target(n: &Lower<'_>, kind: &str) -> Result<DType, LowerError> {
    let Some(to) = n.int("to")? else { return Err(LowerError::MissingAttr { name: "to" }) };
    let code = i32::try_from(to).ok();
    match (code.and_then(tensor::dtype), code.and_then(tensor::odd_type)) {
        (Some(dtype), _) => Ok(dtype),
        (None, Some(name)) => Err(LowerError::core_ml(format!("{kind} to {name}"))),
        (None, None) => n.bad_attr("to", "the number of an element type of ONNX"),
    }
}

fn cast(n: &mut Lower<'_>) -> Lowered {
    n.ignore("saturate");
    n.ignore("round_mode");
    let to = target(n, "a cast")?;
    // A constant keeps its own type as far as the source goes on to compute with it.
    if let Some(t) = n.constant(0)? {
        let whole = t.dtype().is_int() || t.dtype() == DType::Bool;
        if whole && matches!(to, DType::I64 | DType::Bool) && t.dtype() != DType::U64 {
            return n.literal(t.cast(to));
        }
        // Of these, 32 bits may not hold what the other type does.
        let small = t.count() <= exact::MAX_ELEMENTS;
        if small && t.dtype() == DType::I64 && matches!(to, DType::F16 | DType::F32 | DType::F64) {
            return n.literal(t.cast(to));
        }
        let within = |x: &f64| (-9.2e18..9.2e18).contains(x);
        if small && t.dtype().is_float() && to == DType::I64 && t.to_f64().iter().all(within) {
            let values: Vec<i64> = t.to_f64().into_iter().map(|x| x as i64).collect();
            return n.literal(Tensor::from_i64(DType::I64, t.shape(), &values));
        }
    }
    let x = n.input(0)?;
    n.makes(to);
    let y = convert(n, x, to)?;
    n.done(y)
}

/// Constants bit by bit; of what the program computes, integers, as it has one type for all of these.
fn bit_cast(n: &mut Lower<'_>) -> Lowered {
    let to = target(n, "a bit cast")?;
    let from = match n.source_dtype(0) {
        Some(from) => from,
        None => n.input(0).and_then(|x| n.dtype(x))?,
    };
    // Booleans take a byte in the source.
    let bits = |d: DType| if d == DType::Bool { 8 } else { d.bits() };
    if bits(from) != bits(to) {
        return Err(LowerError::form(format!("a bit cast of {from} to {to}, which differ in size,")));
    }
    if from == to {
        let x = n.input(0)?;
        n.makes(to);
        return n.done(x);
    }
    if let Some(t) = n.constant(0)?.filter(|t| t.dtype() == from && bits(from) >= 8)
        && from != DType::Bool
        && to != DType::Bool
        && let Some(t) = t.reinterpret(to)
    {
        return n.given(t);
    }
    let whole = |d: DType| (d.is_int() && d.bits() >= 8) || d == DType::Bool;
    if !whole(from) || !to.is_int() {
        let help = "Core ML has no op that reads the bits of a number";
        return Err(LowerError::form_but(format!("a bit cast of {from} to {to}"), help).by(Limit::CoreMl));
    }
    let x = n.input(0)?;
    n.makes(to);
    let y = convert(n, x, to)?;
    n.done(y)
}

/// `x` as an element type of the source, in the type that stands for it.
fn convert(n: &mut Lower<'_>, x: Value, to: DType) -> Result<Value, LowerError> {
    match to {
        DType::F16 | DType::F32 | DType::I32 | DType::Bool => n.cast(x, to),
        DType::F64 | DType::Bf16 => n.cast(x, DType::F32),
        DType::I64 | DType::U64 | DType::U32 => n.cast(x, DType::I32),
        DType::U8 | DType::I8 | DType::U16 | DType::I16 => {
            let whole = n.dtype(x)? == DType::I32;
            let y = n.cast(x, DType::I32)?;
            // Integers wrap into a smaller type; of floats that do not fit, nothing is promised.
            if whole { n.wrapped(y, to) } else { Ok(y) }
        }
        other => Err(LowerError::core_ml(format!("a cast to {other}"))),
    }
}

fn cast_like(n: &mut Lower<'_>) -> Lowered {
    n.ignore("saturate");
    n.ignore("round_mode");
    let (x, like) = (n.input(0)?, n.input(1)?);
    // The program has one type for several of the source, and none for others, which round.
    let (own, source) = (n.dtype(like)?, n.source_dtype(1));
    let rounds = |d: DType| d.is_float() && !matches!(d, DType::F16 | DType::F32 | DType::F64 | DType::Bf16);
    let to = source.filter(|d| (d.is_int() && own == DType::I32) || rounds(*d)).unwrap_or(own);
    n.makes(to);
    let y = convert(n, x, to)?;
    n.done(y)
}

fn clip_by_attributes(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let (low, high) = (n.float("min")?, n.float("max")?);
    let bound = |n: &mut Lower<'_>, v: Option<f32>| v.map(|v| n.scalar_like(x, f64::from(v))).transpose();
    let (low, high) = (bound(n, low)?, bound(n, high)?);
    clip_between(n, x, low, high)
}

fn clip(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let bound = |n: &mut Lower<'_>, i| Ok::<_, LowerError>(if n.is_given(i) { Some(n.limit(i)?) } else { None });
    let (low, high) = (bound(n, 1)?, bound(n, 2)?);
    clip_between(n, x, low, high)
}

fn clip_between(n: &mut Lower<'_>, x: Value, low: Option<Value>, high: Option<Value>) -> Lowered {
    let number = |n: &Lower<'_>, v: Option<Value>| n.const_of(v?)?.to_f64().first().map(|x| *x as f32);
    if let (Some(alpha), Some(beta), true) = (number(n, low), number(n, high), n.dtype(x)?.is_float())
        && alpha < beta
    {
        return n.emit(ops::Clip { x, alpha, beta });
    }
    let mut y = x;
    if let Some(low) = low {
        y = n.maximum(y, low)?;
    }
    if let Some(high) = high {
        y = n.minimum(y, high)?;
    }
    n.done(y)
}

fn is_inf(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let (below, above) = (n.flag("detect_negative", true)?, n.flag("detect_positive", true)?);
    let infinity = |n: &mut Lower<'_>, sign: f64| n.scalar_like(x, sign * f64::INFINITY);
    match (below, above) {
        (true, true) => {
            let (x, y) = (n.abs(x)?, infinity(n, 1.0)?);
            n.emit(ops::Equal { x, y })
        }
        (true, false) => {
            let y = infinity(n, -1.0)?;
            n.emit(ops::Equal { x, y })
        }
        (false, true) => {
            let y = infinity(n, 1.0)?;
            n.emit(ops::Equal { x, y })
        }
        // Nothing is less than itself.
        (false, false) => n.emit(ops::Less { x, y: x }),
    }
}

type Binary<'a> = fn(&mut Lower<'a>, Value, Value) -> Result<Value, LowerError>;

type Input<'a> = fn(&mut Lower<'a>, usize) -> Result<Value, LowerError>;

/// Joins all inputs, from the first to the last.
fn joined<'a>(n: &mut Lower<'a>, input: Input<'a>, f: Binary<'a>) -> Result<Value, LowerError> {
    let inputs = (0..n.input_count()).map(|i| input(n, i)).collect::<Result<Vec<_>, _>>()?;
    let (first, rest) = inputs.split_first().ok_or(LowerError::MissingInput { index: 0 })?;
    rest.iter().try_fold(*first, |all, v| f(n, all, *v))
}

fn variadic<'a>(n: &mut Lower<'a>, input: Input<'a>, f: Binary<'a>) -> Lowered {
    let y = joined(n, input, f)?;
    n.done(y)
}

fn mean(n: &mut Lower<'_>) -> Lowered {
    let sum = joined(n, Lower::input, Lower::add)?;
    let y = n.scale(sum, 1.0 / n.input_count().max(1) as f64)?;
    n.done(y)
}

fn reciprocal(n: &mut Lower<'_>) -> Lowered {
    let y = n.input(0)?;
    let one = n.scalar_like(y, 1.0)?;
    n.emit(ops::RealDiv { x: one, y })
}

/// Of sign and size apart, as a quotient that is subtracted loses the digits of a small remainder.
fn modulo(n: &mut Lower<'_>) -> Lowered {
    let (x, y) = (n.input(0)?, n.input(1)?);
    if !n.flag("fmod", false)? {
        return n.emit(ops::Mod { x, y });
    }
    let (size, by) = (n.abs(x)?, n.abs(y)?);
    let rest = n.op(ops::Mod { x: size, y: by })?;
    let sign = n.op(ops::Sign { x })?;
    n.emit(ops::Mul { x: rest, y: sign })
}

fn pow(n: &mut Lower<'_>) -> Lowered {
    let (x, y) = operands(n)?;
    let (base, exponent) = (n.dtype(x)?, n.dtype(y)?);
    // The result has the type of the base.
    let common = match (base.is_float(), exponent.is_float()) {
        (true, _) => base,
        (false, true) => DType::F32,
        (false, false) => base,
    };
    if base == common && exponent == common {
        return n.emit(ops::Pow { x, y });
    }
    let (x, y) = (n.cast(x, common)?, n.cast(y, common)?);
    let power = n.op(ops::Pow { x, y })?;
    let power = n.cast(power, base)?;
    n.done(power)
}

fn select(n: &mut Lower<'_>) -> Lowered {
    let (cond, a, b) = (n.input(0)?, n.extreme(1)?, n.extreme(2)?);
    n.emit(ops::Select { cond, a, b })
}
