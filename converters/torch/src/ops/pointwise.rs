//! Elementwise arithmetic, functions, comparisons, logic and choices.

use super::promote::{converted, float_operands, operands};
use mlconv_mil::{ir::Value, ops, schema::Op};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::DType;

aten! {
    "abs(Tensor self) -> Tensor", "absolute(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; n.emit(ops::Abs { x }) };
    "acos(Tensor self) -> Tensor", "arccos(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Acos { x });
    "acosh(Tensor self) -> Tensor", "arccosh(Tensor self) -> Tensor" => |n| { let x = float(n)?; let y = n.acosh(x)?; n.done(y) };
    "add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor",
    "add.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor" => |n| sum(n, 1.0);
    "asin(Tensor self) -> Tensor", "arcsin(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Asin { x });
    "asinh(Tensor self) -> Tensor", "arcsinh(Tensor self) -> Tensor" => |n| { let x = float(n)?; let y = n.asinh(x)?; n.done(y) };
    "atan(Tensor self) -> Tensor", "arctan(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Atan { x });
    "atan2(Tensor self, Tensor other) -> Tensor", "arctan2(Tensor self, Tensor other) -> Tensor" => atan2;
    "atanh(Tensor self) -> Tensor", "arctanh(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Atanh { x });
    "ceil(Tensor self) -> Tensor" => |n| whole(n, |x| ops::Ceil { x });
    "clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor",
    "clip(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor",
    "clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor",
    "clip.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor",
    "hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor" => clamp;
    "clamp_max(Tensor self, Scalar max) -> Tensor", "clamp_max.Tensor(Tensor self, Tensor max) -> Tensor" => |n| pair(n, ["self", "max"], |x, y| ops::Minimum { x, y });
    "clamp_min(Tensor self, Scalar min) -> Tensor", "clamp_min.Tensor(Tensor self, Tensor min) -> Tensor" => |n| pair(n, ["self", "min"], |x, y| ops::Maximum { x, y });
    "cos(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Cos { x });
    "cosh(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Cosh { x });
    "div.Tensor(Tensor self, Tensor other) -> Tensor", "div.Scalar(Tensor self, Scalar other) -> Tensor",
    "true_divide.Tensor(Tensor self, Tensor other) -> Tensor", "true_divide.Scalar(Tensor self, Scalar other) -> Tensor",
    "divide.Tensor(Tensor self, Tensor other) -> Tensor", "divide.Scalar(Tensor self, Scalar other) -> Tensor",
    "div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor",
    "div.Scalar_mode(Tensor self, Scalar other, *, str? rounding_mode) -> Tensor",
    "divide.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor" => divide;
    "eq.Tensor(Tensor self, Tensor other) -> Tensor", "eq.Scalar(Tensor self, Scalar other) -> Tensor" => |n| compare(n, |x, y| ops::Equal { x, y });
    "erf(Tensor self) -> Tensor", "special_erf(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Erf { x });
    "erfc(Tensor self) -> Tensor", "special_erfc(Tensor self) -> Tensor" => |n| { let x = float(n)?; let y = n.op(ops::Erf { x })?; let y = n.scale(y, -1.0)?; let y = n.add_number(y, 1.0)?; n.done(y) };
    "exp(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Exp { x });
    "exp2(Tensor self) -> Tensor", "special_exp2(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Exp2 { x });
    "expm1(Tensor self) -> Tensor", "special_expm1(Tensor self) -> Tensor" => expm1;
    "fill.Scalar(Tensor self, Scalar value) -> Tensor", "fill.Tensor(Tensor self, Tensor value) -> Tensor" => |n| filled(n, "value");
    "copy(Tensor self, Tensor src, bool non_blocking=False) -> Tensor" => |n| filled(n, "src");
    "floor(Tensor self) -> Tensor" => |n| whole(n, |x| ops::Floor { x });
    "floor_divide(Tensor self, Tensor other) -> Tensor", "floor_divide.Scalar(Tensor self, Scalar other) -> Tensor" =>
        |n| { let (all, _) = operands(n, ["self", "other"])?; floor_divide(n, all) };
    "fmod.Tensor(Tensor self, Tensor other) -> Tensor", "fmod.Scalar(Tensor self, Scalar other) -> Tensor" => fmod;
    "frac(Tensor self) -> Tensor" => |n| { let x = float(n)?; let t = trunc(n, x)?; n.emit(ops::Sub { x, y: t }) };
    "ge.Tensor(Tensor self, Tensor other) -> Tensor", "ge.Scalar(Tensor self, Scalar other) -> Tensor",
    "greater_equal.Tensor(Tensor self, Tensor other) -> Tensor", "greater_equal.Scalar(Tensor self, Scalar other) -> Tensor" => |n| compare(n, |x, y| ops::GreaterEqual { x, y });
    "gt.Tensor(Tensor self, Tensor other) -> Tensor", "gt.Scalar(Tensor self, Scalar other) -> Tensor",
    "greater.Tensor(Tensor self, Tensor other) -> Tensor", "greater.Scalar(Tensor self, Scalar other) -> Tensor" => |n| compare(n, |x, y| ops::Greater { x, y });
    "isinf(Tensor self) -> Tensor" => |n| { let x = float(n)?; let x = n.abs(x)?; let y = n.scalar_like(x, f64::INFINITY)?; n.emit(ops::Equal { x, y }) };
    "isnan(Tensor self) -> Tensor" => |n| { let x = float(n)?; n.emit(ops::NotEqual { x, y: x }) };
    "isfinite(Tensor self) -> Tensor" => |n| { let x = float(n)?; let x = n.abs(x)?; let y = n.scalar_like(x, f64::INFINITY)?; n.emit(ops::Less { x, y }) };
    "le.Tensor(Tensor self, Tensor other) -> Tensor", "le.Scalar(Tensor self, Scalar other) -> Tensor",
    "less_equal.Tensor(Tensor self, Tensor other) -> Tensor", "less_equal.Scalar(Tensor self, Scalar other) -> Tensor" => |n| compare(n, |x, y| ops::LessEqual { x, y });
    "lerp.Scalar(Tensor self, Tensor end, Scalar weight) -> Tensor", "lerp.Tensor(Tensor self, Tensor end, Tensor weight) -> Tensor" => lerp;
    "log(Tensor self) -> Tensor" => |n| { let x = float(n)?; let y = n.log(x)?; n.done(y) };
    "log10(Tensor self) -> Tensor" => |n| { let x = float(n)?; let y = n.log(x)?; let y = n.scale(y, std::f64::consts::LOG10_E)?; n.done(y) };
    "log1p(Tensor self) -> Tensor", "special_log1p(Tensor self) -> Tensor" => log1p;
    "log2(Tensor self) -> Tensor" => |n| { let x = float(n)?; let y = n.log(x)?; let y = n.scale(y, std::f64::consts::LOG2_E)?; n.done(y) };
    "logical_and(Tensor self, Tensor other) -> Tensor" => |n| logical(n, |x, y| ops::LogicalAnd { x, y });
    "logical_not(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; let x = n.cast(x, DType::Bool)?; n.emit(ops::LogicalNot { x }) };
    "logical_or(Tensor self, Tensor other) -> Tensor" => |n| logical(n, |x, y| ops::LogicalOr { x, y });
    "logical_xor(Tensor self, Tensor other) -> Tensor" => |n| logical(n, |x, y| ops::LogicalXor { x, y });
    "lt.Tensor(Tensor self, Tensor other) -> Tensor", "lt.Scalar(Tensor self, Scalar other) -> Tensor",
    "less.Tensor(Tensor self, Tensor other) -> Tensor", "less.Scalar(Tensor self, Scalar other) -> Tensor" => |n| compare(n, |x, y| ops::Less { x, y });
    "masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor",
    "masked_fill.Tensor(Tensor self, Tensor mask, Tensor value) -> Tensor" => masked_fill;
    "maximum(Tensor self, Tensor other) -> Tensor", "max.other(Tensor self, Tensor other) -> Tensor",
    "fmax(Tensor self, Tensor other) -> Tensor" => |n| pair(n, ["self", "other"], |x, y| ops::Maximum { x, y });
    "minimum(Tensor self, Tensor other) -> Tensor", "min.other(Tensor self, Tensor other) -> Tensor",
    "fmin(Tensor self, Tensor other) -> Tensor" => |n| pair(n, ["self", "other"], |x, y| ops::Minimum { x, y });
    "mul.Tensor(Tensor self, Tensor other) -> Tensor", "mul.Scalar(Tensor self, Scalar other) -> Tensor",
    "multiply.Tensor(Tensor self, Tensor other) -> Tensor", "multiply.Scalar(Tensor self, Scalar other) -> Tensor" => product;
    "addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor" => |n| add_combined(n, false);
    "addcdiv(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor" => |n| add_combined(n, true);
    "nan_to_num(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor" => nan_to_num;
    "ne.Tensor(Tensor self, Tensor other) -> Tensor", "ne.Scalar(Tensor self, Scalar other) -> Tensor",
    "not_equal.Tensor(Tensor self, Tensor other) -> Tensor", "not_equal.Scalar(Tensor self, Scalar other) -> Tensor" => |n| compare(n, |x, y| ops::NotEqual { x, y });
    "neg(Tensor self) -> Tensor", "negative(Tensor self) -> Tensor", "_neg_view_copy(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; let y = n.scale(x, -1.0)?; n.done(y) };
    "positive(Tensor(a) self) -> Tensor(a)" => |n| { let x = n.value("self")?; n.done(x) };
    "pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor", "pow.Scalar(Scalar self, Tensor exponent) -> Tensor",
    "pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor",
    "pow.Tensor(Tensor self, Tensor exponent) -> Tensor" => pow;
    "reciprocal(Tensor self) -> Tensor" => |n| { let y = float(n)?; let x = n.scalar_like(y, 1.0)?; n.emit(ops::RealDiv { x, y }) };
    "remainder.Tensor(Tensor self, Tensor other) -> Tensor", "remainder.Scalar(Tensor self, Scalar other) -> Tensor",
    "remainder.Scalar_Tensor(Scalar self, Tensor other) -> Tensor" => |n| pair(n, ["self", "other"], |x, y| ops::Mod { x, y });
    "round(Tensor self) -> Tensor", "special_round(Tensor self, *, int decimals=0) -> Tensor" => |n| if n.int_or("decimals", 0)? == 0 { whole(n, |x| ops::Round { x }) } else { round_decimals(n) };
    "round.decimals(Tensor self, *, int decimals) -> Tensor" => round_decimals;
    "rsqrt(Tensor self) -> Tensor" => rsqrt;
    "rsub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor", "rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor" => rsub;
    "sign(Tensor self) -> Tensor", "sgn(Tensor self) -> Tensor" => sign;
    "signbit(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; let x = if n.dtype(x)? == DType::Bool { n.cast(x, DType::I32)? } else { x }; let y = n.scalar_like(x, 0.0)?; n.emit(ops::Less { x, y }) };
    "sin(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Sin { x });
    "sinh(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Sinh { x });
    "sqrt(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Sqrt { x });
    "square(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; if n.dtype(x)? == DType::Bool { return n.done(x); } n.emit(ops::Mul { x, y: x }) };
    "sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor", "sub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor",
    "subtract.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor" => |n| sum(n, -1.0);
    "tan(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Tan { x });
    "tanh(Tensor self) -> Tensor" => |n| unary(n, |x| ops::Tanh { x });
    "trunc(Tensor self) -> Tensor", "fix(Tensor self) -> Tensor" => |n| {
        let x = n.value("self")?;
        let y = if n.dtype(x)?.is_float() { trunc(n, x)? } else { x };
        n.done(y)
    };
    "where.self(Tensor condition, Tensor self, Tensor other) -> Tensor",
    "where.ScalarSelf(Tensor condition, Scalar self, Tensor other) -> Tensor",
    "where.ScalarOther(Tensor condition, Tensor self, Scalar other) -> Tensor",
    "where.Scalar(Tensor condition, Scalar self, Scalar other) -> Tensor" => choose;
    "xlogy.Tensor(Tensor self, Tensor other) -> Tensor", "xlogy.Scalar_Self(Scalar self, Tensor other) -> Tensor",
    "xlogy.Scalar_Other(Tensor self, Scalar other) -> Tensor", "special_xlogy(Tensor self, Tensor other) -> Tensor",
    "special_xlogy.self_scalar(Scalar self, Tensor other) -> Tensor", "special_xlogy.other_scalar(Tensor self, Scalar other) -> Tensor" => xlogy;
    "logit(Tensor self, float? eps=None) -> Tensor", "special_logit(Tensor self, float? eps=None) -> Tensor" => logit;
}

/// The argument `self` in floats.
pub(super) fn float(n: &mut Lower<'_>) -> Result<Value, LowerError> {
    let x = n.value("self")?;
    n.as_float(x)
}

/// A function of floats, which integers become.
pub(super) fn unary<O: Op>(n: &mut Lower<'_>, op: fn(Value) -> O) -> Lowered {
    let x = float(n)?;
    n.emit(op(x))
}

/// A function that returns integers as they are.
fn whole<O: Op>(n: &mut Lower<'_>, op: fn(Value) -> O) -> Lowered {
    let x = n.value("self")?;
    if n.dtype(x)?.is_float() { n.emit(op(x)) } else { n.done(x) }
}

/// An op of two operands of one type; booleans are computed with as integers.
fn pair<O: Op>(n: &mut Lower<'_>, names: [&'static str; 2], op: fn(Value, Value) -> O) -> Lowered {
    let ([x, y], dtype) = operands(n, names)?;
    if dtype != DType::Bool {
        return n.emit(op(x, y));
    }
    let (x, y) = (n.cast(x, DType::I32)?, n.cast(y, DType::I32)?);
    let z = n.op(op(x, y))?;
    let z = n.cast(z, DType::Bool)?;
    n.done(z)
}

fn compare<O: Op>(n: &mut Lower<'_>, op: fn(Value, Value) -> O) -> Lowered {
    let ([x, y], dtype) = operands(n, ["self", "other"])?;
    if dtype != DType::Bool {
        return n.emit(op(x, y));
    }
    let (x, y) = (n.cast(x, DType::I32)?, n.cast(y, DType::I32)?);
    n.emit(op(x, y))
}

fn logical<O: Op>(n: &mut Lower<'_>, op: fn(Value, Value) -> O) -> Lowered {
    let (x, y) = (n.value("self")?, n.value("other")?);
    let (x, y) = (n.cast(x, DType::Bool)?, n.cast(y, DType::Bool)?);
    n.emit(op(x, y))
}

/// `self + sign * alpha * other`.
pub(super) fn sum(n: &mut Lower<'_>, sign: f64) -> Lowered {
    let alpha = n.number("alpha")?.unwrap_or(1.0);
    let ([x, y], dtype) = operands(n, ["self", "other"])?;
    if dtype == DType::Bool {
        return n.emit(ops::LogicalOr { x, y });
    }
    if sign * alpha == -1.0 {
        return n.emit(ops::Sub { x, y });
    }
    let y = n.scale(y, sign * alpha)?;
    n.emit(ops::Add { x, y })
}

fn rsub(n: &mut Lower<'_>) -> Lowered {
    let alpha = n.number("alpha")?.unwrap_or(1.0);
    let ([x, y], _) = operands(n, ["self", "other"])?;
    let x = n.scale(x, alpha)?;
    n.emit(ops::Sub { x: y, y: x })
}

/// The sign, which of NaN is 0.
fn sign(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    match n.dtype(x)? {
        DType::Bool => return n.done(x),
        d if !d.is_float() => return n.emit(ops::Sign { x }),
        _ => {}
    }
    let zero = n.scalar_like(x, 0.0)?;
    let (above, below) = (n.less(zero, x)?, n.less(x, zero)?);
    let dtype = n.dtype(x)?;
    let (above, below) = (n.cast(above, dtype)?, n.cast(below, dtype)?);
    n.emit(ops::Sub { x: above, y: below })
}

fn product(n: &mut Lower<'_>) -> Lowered {
    let ([x, y], dtype) = operands(n, ["self", "other"])?;
    if dtype == DType::Bool { n.emit(ops::LogicalAnd { x, y }) } else { n.emit(ops::Mul { x, y }) }
}

pub(super) fn divide(n: &mut Lower<'_>) -> Lowered {
    match n.str("rounding_mode")? {
        None => {
            let [x, y] = float_operands(n, ["self", "other"])?;
            n.emit(ops::RealDiv { x, y })
        }
        Some("floor") => {
            let (all, _) = operands(n, ["self", "other"])?;
            floor_divide(n, all)
        }
        Some("trunc") => {
            let ([x, y], dtype) = operands(n, ["self", "other"])?;
            let z = n.div(x, y)?;
            let z = if dtype.is_float() { trunc(n, z)? } else { z };
            n.done(z)
        }
        Some(_) => n.bad_attr("rounding_mode", "`floor` or `trunc`"),
    }
}

/// `floor(x / y)` as PyTorch computes it of floats: from the remainder, so that rounding of the quotient does no harm.
fn floor_divide(n: &mut Lower<'_>, [x, y]: [Value; 2]) -> Lowered {
    n.emit(ops::FloorDiv { x, y })
}

/// Towards zero.
fn trunc(n: &mut Lower<'_>, x: Value) -> Result<Value, LowerError> {
    let (sign, size) = (n.op(ops::Sign { x })?, n.abs(x)?);
    let size = n.op(ops::Floor { x: size })?;
    n.mul(sign, size)
}

/// The remainder that has the sign of the dividend.
fn fmod(n: &mut Lower<'_>) -> Lowered {
    let ([x, y], dtype) = operands(n, ["self", "other"])?;
    if dtype.is_float() {
        let (size, by) = (n.abs(x)?, n.abs(y)?);
        let rest = n.op(ops::Mod { x: size, y: by })?;
        let sign = n.op(ops::Sign { x })?;
        return n.emit(ops::Mul { x: rest, y: sign });
    }
    let q = n.div(x, y)?;
    let whole = n.mul(q, y)?;
    n.emit(ops::Sub { x, y: whole })
}

/// Limits may be absent; those of integers may be floats, which the result then is.
fn clamp(n: &mut Lower<'_>) -> Lowered {
    let (low, high) = if n.has("min_val") || n.has("max_val") { ("min_val", "max_val") } else { ("min", "max") };
    let (has_low, has_high) = (n.has(low), n.has(high));
    let y = match (has_low, has_high) {
        (true, true) => {
            let ([x, a, b], _) = operands(n, ["self", low, high])?;
            let x = n.maximum(x, a)?;
            n.minimum(x, b)?
        }
        (true, false) => {
            let ([x, a], _) = operands(n, ["self", low])?;
            n.maximum(x, a)?
        }
        (false, true) => {
            let ([x, b], _) = operands(n, ["self", high])?;
            n.minimum(x, b)?
        }
        (false, false) => n.value("self")?,
    };
    n.done(y)
}

/// The angle of `(other, self)`: from the quotient, and moved by half a turn where `other` is negative.
fn atan2(n: &mut Lower<'_>) -> Lowered {
    let [y, x] = float_operands(n, ["self", "other"])?;
    let zero = n.scalar_like(x, 0.0)?;
    let ratio = n.div(y, x)?;
    let angle = n.op(ops::Atan { x: ratio })?;
    let half = n.scalar_like(x, std::f64::consts::PI)?;
    let minus = n.scalar_like(x, -std::f64::consts::PI)?;
    let below = n.less(y, zero)?;
    let turn = n.select(below, minus, half)?;
    let moved = n.add(angle, turn)?;
    let left = n.less(x, zero)?;
    let angle = n.select(left, moved, angle)?;
    // On the vertical axis there is no quotient.
    let quarter = n.scalar_like(x, std::f64::consts::FRAC_PI_2)?;
    let sign = n.op(ops::Sign { x: y })?;
    let up = n.mul(sign, quarter)?;
    let on = n.equal(x, zero)?;
    n.emit(ops::Select { cond: on, a: up, b: angle })
}

/// `exp(x) - 1`; near zero as `2 * tanh(x / 2) / (1 - tanh(x / 2))`, which loses nothing there.
fn expm1(n: &mut Lower<'_>) -> Lowered {
    let x = float(n)?;
    let half = n.scale(x, 0.5)?;
    let t = n.op(ops::Tanh { x: half })?;
    let (twice, one) = (n.scale(t, 2.0)?, n.scalar_like(x, 1.0)?);
    let below = n.sub(one, t)?;
    let near = n.div(twice, below)?;
    let far = n.exp(x)?;
    let far = n.add_number(far, -1.0)?;
    let size = n.abs(x)?;
    let limit = n.scalar_like(x, 1.0)?;
    let small = n.less(size, limit)?;
    n.emit(ops::Select { cond: small, a: near, b: far })
}

/// `log(1 + x)`; near zero as `2 * atanh(x / (2 + x))`, which loses nothing there.
fn log1p(n: &mut Lower<'_>) -> Lowered {
    let x = float(n)?;
    let y = log1p_of(n, x)?;
    n.done(y)
}

/// As [`log1p`], of a value.
pub(super) fn log1p_of(n: &mut Lower<'_>, x: Value) -> Result<Value, LowerError> {
    let under = n.add_number(x, 2.0)?;
    let ratio = n.div(x, under)?;
    let near = n.op(ops::Atanh { x: ratio })?;
    let near = n.scale(near, 2.0)?;
    let sum = n.add_number(x, 1.0)?;
    let far = n.log(sum)?;
    let size = n.abs(x)?;
    let limit = n.scalar_like(x, 0.5)?;
    let small = n.less(size, limit)?;
    n.select(small, near, far)
}

/// The argument `value` in the shape and type of `self`.
fn filled(n: &mut Lower<'_>, value: &'static str) -> Lowered {
    let (x, v) = (n.value("self")?, n.value(value)?);
    let dtype = n.dtype(x)?;
    let v = converted(n, v, dtype)?;
    let y = n.broadcast_like(v, x)?;
    n.done(y)
}

fn lerp(n: &mut Lower<'_>) -> Lowered {
    let [x, end, weight] = float_operands(n, ["self", "end", "weight"])?;
    let way = n.sub(end, x)?;
    let part = n.mul(way, weight)?;
    n.emit(ops::Add { x, y: part })
}

fn masked_fill(n: &mut Lower<'_>) -> Lowered {
    let (x, mask, value) = (n.value("self")?, n.value("mask")?, n.value("value")?);
    let dtype = n.dtype(x)?;
    let (value, mask) = (converted(n, value, dtype)?, n.cast(mask, DType::Bool)?);
    n.emit(ops::Select { cond: mask, a: value, b: x })
}

fn add_combined(n: &mut Lower<'_>, quotient: bool) -> Lowered {
    let scale = n.number("value")?.unwrap_or(1.0);
    let ([x, a, b], _) = operands(n, ["self", "tensor1", "tensor2"])?;
    let part = if quotient { n.div(a, b)? } else { n.mul(a, b)? };
    let part = n.scale(part, scale)?;
    n.emit(ops::Add { x, y: part })
}

fn nan_to_num(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let dtype = n.dtype(x)?;
    let (nan, high, low) = (n.number("nan")?, n.number("posinf")?, n.number("neginf")?);
    if !dtype.is_float() {
        return n.done(x);
    }
    let most = if dtype == DType::F16 { 65504.0 } else { f64::from(f32::MAX) };
    let nan = n.scalar_like(x, nan.unwrap_or(0.0))?;
    let number = n.equal(x, x)?;
    let mut y = n.select(number, x, nan)?;
    for (infinity, to) in [(f64::INFINITY, high.unwrap_or(most)), (f64::NEG_INFINITY, low.unwrap_or(-most))] {
        let (infinity, to) = (n.scalar_like(x, infinity)?, n.scalar_like(x, to)?);
        let is = n.equal(x, infinity)?;
        y = n.select(is, to, y)?;
    }
    n.done(y)
}

fn pow(n: &mut Lower<'_>) -> Lowered {
    let ([x, y], dtype) = operands(n, ["self", "exponent"])?;
    if n.is_number("exponent") && dtype.is_float() {
        match n.number("exponent")? {
            Some(2.0) => return n.emit(ops::Mul { x, y: x }),
            Some(0.5) => return n.emit(ops::Sqrt { x }),
            Some(1.0) => return n.done(x),
            Some(-0.5) => {
                let root = n.sqrt(x)?;
                let one = n.scalar_like(x, 1.0)?;
                return n.emit(ops::RealDiv { x: one, y: root });
            }
            _ => {}
        }
    }
    n.emit(ops::Pow { x, y })
}

fn round_decimals(n: &mut Lower<'_>) -> Lowered {
    let (x, decimals) = (float(n)?, n.int_or("decimals", 0)?);
    let scale = 10f64.powi(decimals.clamp(-300, 300) as i32);
    let y = n.scale(x, scale)?;
    let y = n.op(ops::Round { x: y })?;
    let y = n.scale(y, 1.0 / scale)?;
    n.done(y)
}

fn rsqrt(n: &mut Lower<'_>) -> Lowered {
    let x = float(n)?;
    let root = n.sqrt(x)?;
    let one = n.scalar_like(x, 1.0)?;
    n.emit(ops::RealDiv { x: one, y: root })
}

fn choose(n: &mut Lower<'_>) -> Lowered {
    let cond = n.value("condition")?;
    let ([a, b], _) = operands(n, ["self", "other"])?;
    let cond = n.cast(cond, DType::Bool)?;
    n.emit(ops::Select { cond, a, b })
}

/// `self * log(other)`, and 0 where `self` is.
fn xlogy(n: &mut Lower<'_>) -> Lowered {
    let [x, y] = float_operands(n, ["self", "other"])?;
    let log = n.log(y)?;
    let product = n.mul(x, log)?;
    let zero = n.scalar_like(x, 0.0)?;
    let none = n.equal(x, zero)?;
    n.emit(ops::Select { cond: none, a: zero, b: product })
}

fn logit(n: &mut Lower<'_>) -> Lowered {
    let (mut x, eps) = (float(n)?, n.number("eps")?);
    if let Some(eps) = eps {
        let (low, high) = (n.scalar_like(x, eps)?, n.scalar_like(x, 1.0 - eps)?);
        x = n.maximum(x, low)?;
        x = n.minimum(x, high)?;
    }
    let one = n.scalar_like(x, 1.0)?;
    let rest = n.sub(one, x)?;
    let ratio = n.div(x, rest)?;
    let y = n.log(ratio)?;
    n.done(y)
}
