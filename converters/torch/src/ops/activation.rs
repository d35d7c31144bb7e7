//! Activation functions, softmax and dropout.

use super::promote::{as_asked, converted};
use mlconv_mil::{ir::Value, ops, schema::Op};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered,
    layers::{
        activation::{celu, hard_swish, mish, prelu, shrink},
        loss,
    },
};
use mlconv_tensor::DType;

aten! {
    "_softmax_backward_data(Tensor grad_output, Tensor output, int dim, ScalarType input_dtype) -> Tensor" => |n| slope_of_shares(n, false);
    "_log_softmax_backward_data(Tensor grad_output, Tensor output, int dim, ScalarType input_dtype) -> Tensor" => |n| slope_of_shares(n, true);
    "relu(Tensor self) -> Tensor" => |n| {
        let x = n.value("self")?;
        if n.dtype(x)?.is_float() { n.emit(ops::Relu { x }) } else { let y = n.scalar_like(x, 0.0)?; n.emit(ops::Maximum { x, y }) }
    };
    "relu6(Tensor self) -> Tensor" => relu6;
    "sigmoid(Tensor self) -> Tensor", "special_expit(Tensor self) -> Tensor" => |n| simple(n, |x| ops::Sigmoid { x });
    "silu(Tensor self) -> Tensor" => |n| simple(n, |x| ops::Silu { x });
    "gelu(Tensor self, *, str approximate='none') -> Tensor" => gelu;
    "mish(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; let y = mish(n, x)?; n.done(y) };
    "elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor" => elu;
    "celu(Tensor self, Scalar alpha=1.0) -> Tensor" => |n| {
        let (x, alpha) = (n.value("self")?, n.number("alpha")?.unwrap_or(1.0));
        if alpha == 0.0 {
            return n.bad_attr("alpha", "a number other than 0");
        }
        let y = celu(n, x, alpha as f32)?;
        n.done(y)
    };
    "selu(Tensor self) -> Tensor" => |n| {
        let x = n.value("self")?;
        let y = n.op(ops::Elu { x, alpha: 1.673_263_2 })?;
        let y = n.scale(y, 1.050_700_987_355_480_5)?;
        n.done(y)
    };
    "leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor" => |n| {
        let slope = n.number("negative_slope")?.unwrap_or(0.01);
        simple(n, |x| ops::LeakyRelu { x, alpha: slope as f32 })
    };
    "rrelu(Tensor self, Scalar lower=0.125, Scalar upper=0.3333333333333333, bool training=False, Generator? generator=None) -> Tensor" => rrelu;
    "prelu(Tensor self, Tensor weight) -> Tensor" => |n| parametric(n, true);
    "_prelu_kernel(Tensor self, Tensor weight) -> Tensor" => |n| parametric(n, false);
    "hardsigmoid(Tensor self) -> Tensor" => |n| simple(n, |x| ops::SigmoidHard { x, alpha: 1.0 / 6.0, beta: 0.5 });
    "hardswish(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; let y = hard_swish(n, x)?; n.done(y) };
    "hardshrink(Tensor self, Scalar lambd=0.5) -> Tensor" => hardshrink;
    "softshrink(Tensor self, Scalar lambd=0.5) -> Tensor" => |n| {
        let (x, lambd) = (n.value("self")?, n.number("lambd")?.unwrap_or(0.5));
        let y = shrink(n, x, [lambd, lambd])?;
        n.done(y)
    };
    "softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor" => softplus;
    "log_sigmoid(Tensor self) -> Tensor" => |n| { let y = log_sigmoid(n)?; n.done(y) };
    "log_sigmoid_forward(Tensor self) -> (Tensor output, Tensor buffer)" => |n| { let y = log_sigmoid(n)?; Ok(vec![Entry::Value(y), Entry::Nothing]) };
    "threshold(Tensor self, Scalar threshold, Scalar value) -> Tensor" => threshold;
    "glu(Tensor self, int dim=-1) -> Tensor" => glu;
    "softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor", "_softmax(Tensor self, int dim, bool half_to_float) -> Tensor",
    "special_softmax(Tensor self, int dim, ScalarType? dtype=None) -> Tensor" => |n| { let (x, axis) = spread(n)?; softmax(n, x, axis) };
    "_safe_softmax(Tensor self, int dim, ScalarType? dtype=None) -> Tensor" => safe_softmax;
    "log_softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor", "_log_softmax(Tensor self, int dim, bool half_to_float) -> Tensor",
    "special_log_softmax(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor" => log_softmax;
    "dropout(Tensor input, float p, bool train) -> Tensor", "feature_dropout(Tensor input, float p, bool train) -> Tensor",
    "alpha_dropout(Tensor input, float p, bool train) -> Tensor", "feature_alpha_dropout(Tensor input, float p, bool train) -> Tensor" => |n| { let x = kept(n)?; n.done(x) };
    "native_dropout(Tensor input, float p, bool? train) -> (Tensor, Tensor)" => |n| {
        let x = kept(n)?;
        let (shape, all) = (n.op(ops::ShapeOf { x })?, n.const_scalar(DType::Bool, 1.0)?);
        let mask = n.op(ops::Fill { shape, value: Some(all) })?;
        Ok(vec![Entry::Value(x), Entry::Value(mask)])
    };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

fn simple<O: Op>(n: &mut Lower<'_>, op: impl Fn(Value) -> O) -> Lowered {
    let x = n.value("self")?;
    let x = n.as_float(x)?;
    n.emit(op(x))
}

fn relu6(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let (low, high) = (n.scalar_like(x, 0.0)?, n.scalar_like(x, 6.0)?);
    if n.dtype(x)?.is_float() {
        return n.emit(ops::Relu6 { x });
    }
    let y = n.maximum(x, low)?;
    n.emit(ops::Minimum { x: y, y: high })
}

fn gelu(n: &mut Lower<'_>) -> Lowered {
    let mode = match n.str_or("approximate", "none")? {
        "none" => ops::GeluMode::Exact,
        "tanh" => ops::GeluMode::Tanh,
        _ => return n.bad_attr("approximate", "`none` or `tanh`"),
    };
    simple(n, |x| ops::Gelu { x, mode })
}

/// Above zero `scale * x`, else `scale * alpha * (e^(input_scale * x) - 1)`.
fn elu(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let number = |name| n.number(name).map(|v| v.unwrap_or(1.0));
    let (alpha, scale, inner) = (number("alpha")?, number("scale")?, number("input_scale")?);
    if inner == 1.0 {
        let y = n.op(ops::Elu { x, alpha: alpha as f32 })?;
        let y = n.scale(y, scale)?;
        return n.done(y);
    }
    let zero = n.scalar_like(x, 0.0)?;
    let above = n.less(zero, x)?;
    let low = n.minimum(x, zero)?;
    let low = n.scale(low, inner)?;
    let low = n.exp(low)?;
    let low = n.add_number(low, -1.0)?;
    let (low, high) = (n.scale(low, alpha * scale)?, n.scale(x, scale)?);
    n.emit(ops::Select { cond: above, a: high, b: low })
}

/// Without training, the slope is the middle of those that are drawn from.
fn rrelu(n: &mut Lower<'_>) -> Lowered {
    n.ignore("generator");
    if n.flag("training", false)? {
        return Err(LowerError::form_but("slopes drawn at random", "export the model in the mode for evaluation"));
    }
    let (low, high) = (n.number("lower")?.unwrap_or(0.125), n.number("upper")?.unwrap_or(1.0 / 3.0));
    simple(n, |x| ops::LeakyRelu { x, alpha: f64::midpoint(low, high) as f32 })
}

/// A slope for each channel, or one for all; of the kernel, it is broadcast already.
fn parametric(n: &mut Lower<'_>, by_channel: bool) -> Lowered {
    let (x, mut slope) = (n.value("self")?, n.value("weight")?);
    let (rank, single) = (n.rank(x)?, n.rank(slope)? == 0 || n.shape(slope)?[0].is(1));
    if by_channel && !single && rank > 2 {
        slope = n.expand_dims(slope, &(1..rank as i64 - 1).collect::<Vec<_>>())?;
    }
    if by_channel && single {
        slope = n.as_scalar(slope)?;
    }
    let y = prelu(n, x, slope)?;
    n.done(y)
}

fn hardshrink(n: &mut Lower<'_>) -> Lowered {
    let (x, lambd) = (n.value("self")?, n.number("lambd")?.unwrap_or(0.5));
    let (size, limit, zero) = (n.abs(x)?, n.scalar_like(x, lambd)?, n.scalar_like(x, 0.0)?);
    let gone = n.op(ops::LessEqual { x: size, y: limit })?;
    n.emit(ops::Select { cond: gone, a: zero, b: x })
}

/// `log(1 + e^(beta * x)) / beta`, and `x` where `beta * x` is above the threshold.
fn softplus(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let (beta, limit) = (n.number("beta")?.unwrap_or(1.0), n.number("threshold")?.unwrap_or(20.0));
    if beta == 0.0 {
        return n.bad_attr("beta", "a number other than 0");
    }
    let scaled = n.scale(x, beta)?;
    let y = n.op(ops::Softplus { x: scaled })?;
    let y = n.scale(y, 1.0 / beta)?;
    // Above 20, both are the same number.
    if limit >= 20.0 {
        return n.done(y);
    }
    let limit = n.scalar_like(x, limit)?;
    let above = n.less(limit, scaled)?;
    n.emit(ops::Select { cond: above, a: x, b: y })
}

fn log_sigmoid(n: &mut Lower<'_>) -> Result<Value> {
    let x = n.value("self")?;
    let x = n.scale(x, -1.0)?;
    let y = n.op(ops::Softplus { x })?;
    n.scale(y, -1.0)
}

fn threshold(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let (limit, value) = (n.number("threshold")?.unwrap_or(0.0), n.number("value")?.unwrap_or(0.0));
    let (limit, value) = (n.scalar_like(x, limit)?, n.scalar_like(x, value)?);
    let below = n.op(ops::LessEqual { x, y: limit })?;
    n.emit(ops::Select { cond: below, a: value, b: x })
}

/// The first half along an axis, times the logistic function of the second.
fn glu(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", -1)?);
    let axis = n.axis(x, dim)?;
    let half = match n.shape(x)?[axis].as_known() {
        Some(size) if size % 2 == 0 => size / 2,
        Some(size) => return Err(LowerError::form(format!("halves of {size} elements"))),
        None => return Err(LowerError::NotFixed { what: "where the halves part".into() }),
    };
    let (left, right) = (n.slice(x, axis, 0, Some(half))?, n.slice(x, axis, half, None)?);
    let gate = n.op(ops::Sigmoid { x: right })?;
    n.emit(ops::Mul { x: left, y: gate })
}

/// The argument `self` in the type that is computed in, and the axis; a scalar is a vector of one.
fn spread(n: &mut Lower<'_>) -> Result<(Value, usize)> {
    let x = n.value("self")?;
    let x = if n.has("dtype") { as_asked(n, x)? } else { n.as_float(x)? };
    let x = if n.flag("half_to_float", false)? { converted(n, x, DType::F32)? } else { x };
    let (x, dim) = (n.at_least_1d(x)?, n.int_or("dim", -1)?);
    Ok((x, n.axis(x, dim)?))
}

/// `y` as a scalar where the argument `self` was one.
fn as_given(n: &mut Lower<'_>, y: Value) -> Lowered {
    let x = n.value("self")?;
    let y = if n.rank(x)? == 0 { n.as_scalar(y)? } else { y };
    n.done(y)
}

fn softmax(n: &mut Lower<'_>, x: Value, axis: usize) -> Lowered {
    let y = n.op(ops::Softmax { x, axis: axis as i64 })?;
    as_given(n, y)
}

/// Zeros where all is negative infinity.
fn safe_softmax(n: &mut Lower<'_>) -> Lowered {
    let (x, axis) = spread(n)?;
    let best = n.op(ops::ReduceMax { x, axes: Some(vec![axis as i64]), keep_dims: true })?;
    let (low, zero) = (n.scalar_like(x, f64::NEG_INFINITY)?, n.scalar_like(x, 0.0)?);
    let empty = n.equal(best, low)?;
    let y = n.op(ops::Softmax { x, axis: axis as i64 })?;
    let y = n.select(empty, zero, y)?;
    as_given(n, y)
}

fn log_softmax(n: &mut Lower<'_>) -> Lowered {
    let (x, axis) = spread(n)?;
    let y = loss::log_softmax(n, x, axis)?;
    as_given(n, y)
}

/// The argument `input`, of which nothing may be left out.
fn kept(n: &mut Lower<'_>) -> Result<Value> {
    // A form that writes its argument calls it otherwise.
    let x = n.value(if n.has("self") { "self" } else { "input" })?;
    let p = n.number("p")?.unwrap_or(0.5);
    if n.flag("train", false)? && p != 0.0 {
        return Err(LowerError::form_but("dropout while training", "export the model in the mode for evaluation"));
    }
    Ok(x)
}

/// What shares along an axis are worth to what they were made of.
fn slope_of_shares(n: &mut Lower<'_>, logarithms: bool) -> Lowered {
    let (slope, shares, dim) = (n.value("grad_output")?, n.value("output")?, n.int_or("dim", -1)?);
    let to = n.dtype_arg("input_dtype")?;
    if n.rank(shares)? == 0 {
        let y = n.scale(slope, 0.0)?;
        return n.done(y);
    }
    let y = if logarithms {
        let sum = n.sum_over(slope, &[dim])?;
        let shares = n.exp(shares)?;
        let part = n.mul(shares, sum)?;
        n.sub(slope, part)?
    } else {
        let part = n.mul(slope, shares)?;
        let sum = n.sum_over(part, &[dim])?;
        let apart = n.sub(slope, sum)?;
        n.mul(shares, apart)?
    };
    let y = match to {
        Some(dtype) => super::promote::converted(n, y, dtype)?,
        None => y,
    };
    n.done(y)
}
