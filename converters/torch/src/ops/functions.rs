//! Elementwise functions made of others, and quantiles.

use super::pointwise::float;
use super::promote::{float_operands, operands};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::DType;
use std::f64::consts::PI;

aten! {
    "isposinf(Tensor self) -> Tensor" => |n| infinite(n, f64::INFINITY);
    "isneginf(Tensor self) -> Tensor" => |n| infinite(n, f64::NEG_INFINITY);
    "isreal(Tensor self) -> Tensor" => |n| {
        let x = n.value("self")?;
        let (sizes, yes) = (n.own_sizes(x)?, n.const_scalar(DType::Bool, 1.0)?);
        let y = super::creation::filled(n, &sizes, yes)?;
        n.done(y)
    };
    "isclose(Tensor self, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False) -> Tensor" => |n| { let y = close(n)?; n.done(y) };
    "allclose(Tensor self, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False) -> bool" => |n| { let y = close(n)?; all_of(n, y) };
    "equal(Tensor self, Tensor other) -> bool" => |n| {
        let ([x, y], _) = operands(n, ["self", "other"])?;
        let [x, y] = n.without_bools([x, y])?;
        let same = n.equal(x, y)?;
        all_of(n, same)
    };
    "isin.Tensor_Tensor(Tensor elements, Tensor test_elements, *, bool assume_unique=False, bool invert=False) -> Tensor",
    "isin.Tensor_Scalar(Tensor elements, Scalar test_element, *, bool assume_unique=False, bool invert=False) -> Tensor",
    "isin.Scalar_Tensor(Scalar element, Tensor test_elements, *, bool assume_unique=False, bool invert=False) -> Tensor" => isin;
    "deg2rad(Tensor self) -> Tensor" => |n| { let x = float(n)?; let y = n.scale(x, PI / 180.0)?; n.done(y) };
    "rad2deg(Tensor self) -> Tensor" => |n| { let x = float(n)?; let y = n.scale(x, 180.0 / PI)?; n.done(y) };
    "hypot(Tensor self, Tensor other) -> Tensor" => hypot;
    "logaddexp(Tensor self, Tensor other) -> Tensor" => |n| { let [x, y] = float_operands(n, ["self", "other"])?; let z = n.log_of_sum(x, y)?; n.done(z) };
    "logaddexp2(Tensor self, Tensor other) -> Tensor" => |n| {
        let [x, y] = float_operands(n, ["self", "other"])?;
        let (x, y) = (n.scale(x, std::f64::consts::LN_2)?, n.scale(y, std::f64::consts::LN_2)?);
        let z = n.log_of_sum(x, y)?;
        let z = n.scale(z, std::f64::consts::LOG2_E)?;
        n.done(z)
    };
    "copysign.Tensor(Tensor self, Tensor other) -> Tensor", "copysign.Scalar(Tensor self, Scalar other) -> Tensor" => |n| {
        // The sign of zero is lost.
        let [x, y] = float_operands(n, ["self", "other"])?;
        let size = n.abs(x)?;
        let minus = n.scale(size, -1.0)?;
        let zero = n.scalar_like(y, 0.0)?;
        let below = n.less(y, zero)?;
        n.emit(ops::Select { cond: below, a: minus, b: size })
    };
    "heaviside(Tensor self, Tensor values) -> Tensor" => |n| {
        let ([x, v], dtype) = operands(n, ["self", "values"])?;
        let [x, v] = n.without_bools([x, v])?;
        let zero = n.scalar_like(x, 0.0)?;
        let above = n.less(zero, x)?;
        let step = n.cast(above, n.dtype(x)?)?;
        let on = n.equal(x, zero)?;
        let y = n.select(on, v, step)?;
        let y = n.cast(y, dtype)?;
        n.done(y)
    };
    "ldexp.Tensor(Tensor self, Tensor other) -> Tensor", "ldexp(Tensor self, Tensor other) -> Tensor" => |n| { let [x, y] = float_operands(n, ["self", "other"])?; let y = n.op(ops::Exp2 { x: y })?; n.emit(ops::Mul { x, y }) };
    "float_power.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor", "float_power.Scalar(Scalar self, Tensor exponent) -> Tensor",
    "float_power.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor", "float_power.Tensor(Tensor self, Tensor exponent) -> Tensor" => |n| { let [x, y] = float_operands(n, ["self", "exponent"])?; n.emit(ops::Pow { x, y }) };
    "sinc(Tensor self) -> Tensor", "special_sinc(Tensor self) -> Tensor" => |n| {
        let x = float(n)?;
        let x = n.scale(x, PI)?;
        let (zero, one) = (n.scalar_like(x, 0.0)?, n.scalar_like(x, 1.0)?);
        let on = n.equal(x, zero)?;
        let by = n.select(on, one, x)?;
        let sin = n.op(ops::Sin { x: by })?;
        let wave = n.div(sin, by)?;
        n.emit(ops::Select { cond: on, a: one, b: wave })
    };
    "divide.Scalar_mode(Tensor self, Scalar other, *, str? rounding_mode) -> Tensor" => super::pointwise::divide;
    "subtract.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor" => |n| super::pointwise::sum(n, -1.0);
    "quantile(Tensor self, Tensor q, int? dim=None, bool keepdim=False, *, str interpolation='linear') -> Tensor",
    "quantile.scalar(Tensor self, float q, int? dim=None, bool keepdim=False, *, str interpolation='linear') -> Tensor" => quantile;
    "erfinv(Tensor self) -> Tensor", "special_erfinv(Tensor self) -> Tensor" => erfinv;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

fn infinite(n: &mut Lower<'_>, which: f64) -> Lowered {
    let x = float(n)?;
    let y = n.scalar_like(x, which)?;
    n.emit(ops::Equal { x, y })
}

fn all_of(n: &mut Lower<'_>, x: Value) -> Lowered {
    let x = n.cast(x, DType::I32)?;
    let flat = n.reshape_to(x, &[-1])?;
    let y = n.op(ops::ReduceMin { x: flat, axes: None, keep_dims: false })?;
    let y = n.cast(y, DType::Bool)?;
    n.done(y)
}

/// `|a - b| <= atol + rtol * |b|`, or the same.
fn close(n: &mut Lower<'_>) -> Result<Value> {
    let (rtol, atol) = (n.number("rtol")?.unwrap_or(1e-5), n.number("atol")?.unwrap_or(1e-8));
    let nan = n.flag("equal_nan", false)?;
    let [x, y] = float_operands(n, ["self", "other"])?;
    let apart = n.sub(x, y)?;
    let apart = n.abs(apart)?;
    let size = n.abs(y)?;
    let may = n.scale(size, rtol)?;
    let may = n.add_number(may, atol)?;
    let near = n.op(ops::LessEqual { x: apart, y: may })?;
    // Infinities are close to themselves alone.
    let limit = n.scalar_like(apart, f64::INFINITY)?;
    let finite = n.less(apart, limit)?;
    let near = n.and(near, finite)?;
    let same = n.equal(x, y)?;
    let near = n.op(ops::LogicalOr { x: near, y: same })?;
    if !nan {
        return Ok(near);
    }
    let (a, b) = (n.op(ops::NotEqual { x, y: x })?, n.op(ops::NotEqual { x: y, y })?);
    let both = n.and(a, b)?;
    n.op(ops::LogicalOr { x: near, y: both })
}

fn isin(n: &mut Lower<'_>) -> Lowered {
    n.ignore("assume_unique");
    let invert = n.flag("invert", false)?;
    let elements = if n.has("elements") { "elements" } else { "element" };
    let tests = if n.has("test_elements") { "test_elements" } else { "test_element" };
    let ([x, among], _) = operands(n, [elements, tests])?;
    let [x, among] = n.without_bools([x, among])?;
    let rank = n.rank(x)?;
    let (flat, among) = (n.reshape_to(x, &[-1, 1])?, n.reshape_to(among, &[1, -1])?);
    let hit = n.equal(flat, among)?;
    let hit = n.cast(hit, DType::I32)?;
    let any = n.op(ops::ReduceMax { x: hit, axes: Some(vec![1]), keep_dims: false })?;
    let any = n.cast(any, DType::Bool)?;
    let any = if rank == 0 { n.squeeze(any, &[0])? } else { n.reshape_as(any, x)? };
    let y = if invert { n.not(any)? } else { any };
    n.done(y)
}

/// Of the greater one and the quotient, which does not overflow.
fn hypot(n: &mut Lower<'_>) -> Lowered {
    let [x, y] = float_operands(n, ["self", "other"])?;
    let (x, y) = (n.abs(x)?, n.abs(y)?);
    let (most, least) = (n.maximum(x, y)?, n.minimum(x, y)?);
    let (zero, one) = (n.scalar_like(most, 0.0)?, n.scalar_like(most, 1.0)?);
    let none = n.equal(most, zero)?;
    let by = n.select(none, one, most)?;
    let ratio = n.div(least, by)?;
    let square = n.mul(ratio, ratio)?;
    let sum = n.add_number(square, 1.0)?;
    let root = n.sqrt(sum)?;
    n.emit(ops::Mul { x: most, y: root })
}

/// Between the sorted elements around the place that each quantile has.
fn quantile(n: &mut Lower<'_>) -> Lowered {
    let (x, dim, keep) = (n.value("self")?, n.int("dim")?, n.flag("keepdim", false)?);
    let mode = n.str_or("interpolation", "linear")?;
    let (known, vector) = if n.is_number("q") {
        (Some(vec![n.number("q")?.unwrap_or(0.5)]), false)
    } else {
        let t = n.given_tensor("q")?;
        let vector = t.as_ref().is_some_and(|t| !t.shape().is_empty());
        (t.map(|t| t.to_f64()), vector)
    };
    let q = known.ok_or(LowerError::NotKnown { name: "q" })?;
    let rank = n.rank(x)?;
    let (flat, axis) = match dim {
        Some(dim) if rank > 0 => (x, n.axis(x, dim)?),
        _ => (n.reshape_to(x, &[-1])?, 0),
    };
    let size = n.shape(flat)?[axis].as_known();
    let size = size.ok_or_else(|| LowerError::NotFixed { what: "the place of a quantile".to_owned() })?;
    if q.iter().any(|q| !(0.0..=1.0).contains(q)) || size < 1 {
        return n.bad_attr("q", "0 to 1");
    }
    let at: Vec<f64> = q.iter().map(|q| q * (size - 1) as f64).collect();
    let order = n.op(ops::Argsort { x: flat, axis: axis as i64, ascending: true })?;
    let sorted = n.op(ops::GatherAlongAxis { x: flat, indices: order, axis: axis as i64, validate_indices: false })?;
    let low: Vec<i64> = at.iter().map(|a| a.floor() as i64).collect();
    let high: Vec<i64> = at.iter().map(|a| a.ceil() as i64).collect();
    let weight: Vec<f64> = at
        .iter()
        .map(|a| match mode {
            "lower" => 0.0,
            "higher" => 1.0,
            "midpoint" => {
                if a.fract() == 0.0 {
                    0.0
                } else {
                    0.5
                }
            }
            "nearest" => a.round_ties_even() - a.floor(),
            _ => a.fract(),
        })
        .collect();
    let (low, high) = (n.gather_at(sorted, axis, &low)?, n.gather_at(sorted, axis, &high)?);
    let mut shape = vec![1; n.rank(flat)?];
    shape[axis] = weight.len();
    let weight = n.const_like(low, &shape, &weight)?;
    let span = n.sub(high, low)?;
    let part = n.mul(span, weight)?;
    let mut y = n.add(low, part)?;
    let nan = n.op(ops::NotEqual { x: flat, y: flat })?;
    let nan = n.cast(nan, DType::I32)?;
    let any = n.op(ops::ReduceMax { x: nan, axes: Some(vec![axis as i64]), keep_dims: true })?;
    let any = n.cast(any, DType::Bool)?;
    let not = n.scalar_like(y, f64::NAN)?;
    y = n.select(any, not, y)?;
    // The quantiles come first.
    let own = n.rank(y)?;
    let perm: Vec<i64> = std::iter::once(axis).chain((0..own).filter(|i| *i != axis)).map(|i| i as i64).collect();
    y = n.permute(y, &perm)?;
    if keep {
        let places: Vec<i64> = match dim {
            Some(_) if rank > 0 => vec![axis as i64 + 1],
            _ => (1..=rank as i64).collect(),
        };
        y = n.expand_dims(y, &places)?;
    }
    if !vector {
        y = n.squeeze(y, &[0])?;
    }
    n.done(y)
}

/// By a first guess and Newton's method. Source: Winitzki 2008 for the guess.
fn erfinv(n: &mut Lower<'_>) -> Lowered {
    let x = float(n)?;
    let y = erfinv_of(n, x)?;
    n.done(y)
}

/// As [`erfinv`], of a value.
pub(super) fn erfinv_of(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let a = 0.147;
    let square = n.mul(x, x)?;
    let rest = n.scale(square, -1.0)?;
    let rest = n.add_number(rest, 1.0)?;
    let log = n.log(rest)?;
    let half = n.scale(log, 0.5)?;
    let first = n.add_number(half, 2.0 / (PI * a))?;
    let whole = n.mul(first, first)?;
    let second = n.scale(log, 1.0 / a)?;
    let inside = n.sub(whole, second)?;
    let root = n.sqrt(inside)?;
    let inside = n.sub(root, first)?;
    let size = n.sqrt(inside)?;
    let sign = n.op(ops::Sign { x })?;
    let mut y = n.mul(size, sign)?;
    for _ in 0..2 {
        let erf = n.op(ops::Erf { x: y })?;
        let off = n.sub(erf, x)?;
        let square = n.mul(y, y)?;
        let grow = n.exp(square)?;
        let step = n.mul(off, grow)?;
        let step = n.scale(step, PI.sqrt() / 2.0)?;
        y = n.sub(y, step)?;
    }
    // At the ends there is no step.
    let (size, one) = (n.abs(x)?, n.scalar_like(x, 1.0)?);
    let end = n.equal(size, one)?;
    let far = n.scalar_like(x, f64::INFINITY)?;
    let far = n.mul(far, x)?;
    n.select(end, far, y)
}
