//! Activation functions.

use super::recurrent;
use crate::LATEST;
use mlconv_mil::{ir::Value, ops, schema::Op};
use mlconv_source::{Lower, LowerError, Lowered, layers::activation as layers};
use mlconv_tensor::DType;

rows! {
    "Celu" 12..=LATEST => celu;
    "Elu" 6..=LATEST => |n| { let alpha = n.float_or("alpha", 1.0)?; simple(n, |x| ops::Elu { x, alpha }) };
    "Gelu" 20..=LATEST => gelu;
    "HardSigmoid" 6..=LATEST => hard_sigmoid;
    "HardSwish" 14..=LATEST => |n| { let x = n.input(0)?; let y = layers::hard_swish(n, x)?; n.done(y) };
    "LeakyRelu" 6..=LATEST => leaky_relu;
    "Mish" 18..=LATEST => |n| { let x = n.input(0)?; let y = layers::mish(n, x)?; n.done(y) };
    "PRelu" 1..=LATEST => prelu;
    "Relu" 6..=LATEST => relu;
    "Selu" 6..=LATEST => selu;
    "Shrink" 9..=LATEST => shrink;
    "Sigmoid" 6..=LATEST => |n| simple(n, |x| ops::Sigmoid { x });
    "Softplus" 1..=LATEST => |n| simple(n, |x| ops::Softplus { x });
    "Softsign" 1..=LATEST => |n| simple(n, |x| ops::Softsign { x });
    "SwiGLU" 28..=LATEST => swiglu;
    "Swish" 24..=LATEST => swish;
    "ThresholdedRelu" 10..=LATEST => thresholded_relu;
    #["com.microsoft"] "BiasAdd" 1..=LATEST => bias_add;
    #["com.microsoft"] "BiasDropout" 1..=LATEST => bias_dropout;
    #["com.microsoft"] "BiasGelu" 1..=LATEST => |n| { n.input(1)?; biased_gelu(n, ops::GeluMode::Exact) };
    #["com.microsoft"] "BiasSplitGelu" 1..=LATEST => bias_split_gelu;
    #["com.microsoft"] "FastGelu" 1..=LATEST => |n| biased_gelu(n, ops::GeluMode::Tanh);
    #["com.microsoft"] "Gelu" 1..=LATEST => |n| simple(n, |x| ops::Gelu { x, mode: ops::GeluMode::Exact });
    #["com.microsoft"] "QuickGelu" 1..=LATEST => |n| { let x = n.input(0)?; let y = gated(n, x, 1.702)?; n.done(y) };
}

fn simple<O: Op>(n: &mut Lower<'_>, op: impl Fn(Value) -> O) -> Lowered {
    let x = n.input(0)?;
    n.emit(op(x))
}

/// `x` after the function that another operator names as its own last step, with that function's numbers.
pub(super) fn fused(n: &mut Lower<'_>, x: Value, name: &str, numbers: [Option<f32>; 2]) -> Result<Value, LowerError> {
    match (name, numbers) {
        ("" | "Identity", _) => Ok(x),
        ("Clip", [least, most]) => {
            let (alpha, beta) = (least.unwrap_or(f32::MIN), most.unwrap_or(f32::MAX));
            n.op(ops::Clip { x, alpha, beta })
        }
        ("HardSwish", _) => layers::hard_swish(n, x),
        _ => match recurrent::apply_named(n, x, name, numbers)? {
            Some(y) => Ok(y),
            None => n.bad_attr("activation", "a function that is fused with an operator"),
        },
    }
}

/// Refuses to drop anything, as the inputs from `ratio` on may ask for.
fn refuse_training(n: &mut Lower<'_>, ratio: usize) -> Result<(), LowerError> {
    n.ignore("seed");
    let training = match n.constant(ratio + 1)? {
        Some(t) => t.to_bools().contains(&true),
        None if n.optional(ratio + 1)?.is_some() => return Err(LowerError::NotConstant { index: ratio + 1 }),
        None => false,
    };
    let share = if training { n.constant(ratio)?.map_or(vec![0.5], |t| t.to_f64()) } else { vec![] };
    n.ignore_input(ratio);
    if share.iter().any(|r| *r != 0.0) {
        return Err(LowerError::not_yet("dropout while training"));
    }
    Ok(())
}

/// `x + bias + residual`.
fn bias_add(n: &mut Lower<'_>) -> Lowered {
    let (x, bias, residual) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let y = n.add(x, bias)?;
    n.emit(ops::Add { x: y, y: residual })
}

fn bias_dropout(n: &mut Lower<'_>) -> Lowered {
    refuse_training(n, 3)?;
    if n.wants(1) {
        return Err(LowerError::not_yet("a mask of what is dropped"));
    }
    let (x, bias, residual) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    let y = n.add(x, bias)?;
    match residual {
        Some(residual) => n.emit(ops::Add { x: y, y: residual }),
        None => n.done(y),
    }
}

fn biased_gelu(n: &mut Lower<'_>, mode: ops::GeluMode) -> Lowered {
    let (x, bias) = (n.input(0)?, n.optional(1)?);
    let x = bias.map_or(Ok(x), |bias| n.add(x, bias))?;
    n.emit(ops::Gelu { x, mode })
}

/// The first half along the last axis, times what the function makes of the second.
fn bias_split_gelu(n: &mut Lower<'_>) -> Lowered {
    let (x, bias) = (n.input(0)?, n.input(1)?);
    let x = n.add(x, bias)?;
    let axis = n.axis(x, -1)?;
    let half = match n.shape(x)?[axis].as_known() {
        Some(size) if size % 2 == 0 => size / 2,
        Some(size) => return Err(LowerError::form(format!("halves of {size} elements"))),
        None => return Err(LowerError::NotFixed { what: "where the halves part".into() }),
    };
    let (left, right) = (n.slice(x, axis, 0, Some(half))?, n.slice(x, axis, half, None)?);
    let gate = n.op(ops::Gelu { x: right, mode: ops::GeluMode::Exact })?;
    n.emit(ops::Mul { x: left, y: gate })
}

fn gelu(n: &mut Lower<'_>) -> Lowered {
    let mode = match n.str_or("approximate", "none")? {
        "none" => ops::GeluMode::Exact,
        "tanh" => ops::GeluMode::Tanh,
        _ => return n.bad_attr("approximate", "`none` or `tanh`"),
    };
    simple(n, |x| ops::Gelu { x, mode })
}

fn hard_sigmoid(n: &mut Lower<'_>) -> Lowered {
    let (alpha, beta) = (n.float_or("alpha", 0.2)?, n.float_or("beta", 0.5)?);
    simple(n, |x| ops::SigmoidHard { x, alpha, beta })
}

fn leaky_relu(n: &mut Lower<'_>) -> Lowered {
    let alpha = n.float_or("alpha", 0.01)?;
    simple(n, |x| ops::LeakyRelu { x, alpha })
}

fn relu(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    if n.dtype(x)?.is_float() {
        return n.emit(ops::Relu { x });
    }
    let zero = n.scalar_like(x, 0.0)?;
    n.emit(ops::Maximum { x, y: zero })
}

/// The default constants are those of Klambauer et al. 2017, as the ONNX specification rounds them.
fn selu(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let alpha = n.float_or("alpha", 1.673_263_2)?;
    let gamma = n.float_or("gamma", 1.050_701)?;
    let y = n.op(ops::Elu { x, alpha })?;
    let y = n.scale(y, gamma.into())?;
    n.done(y)
}

/// `x * sigmoid(alpha * x)`.
fn gated(n: &mut Lower<'_>, x: Value, default: f32) -> Result<Value, LowerError> {
    let alpha = n.float_or("alpha", default)?;
    if alpha == 1.0 {
        return n.op(ops::Silu { x });
    }
    let scaled = n.scale(x, alpha.into())?;
    let gate = n.op(ops::Sigmoid { x: scaled })?;
    n.mul(x, gate)
}

fn swish(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let y = gated(n, x, 1.0)?;
    n.done(y)
}

fn swiglu(n: &mut Lower<'_>) -> Lowered {
    let (gate, x) = (n.input(0)?, n.input(1)?);
    let y = gated(n, gate, 1.0)?;
    n.emit(ops::Mul { x: y, y: x })
}

/// ONNX keeps what is above `alpha`, Core ML what is not below: the number after `alpha` makes them agree.
fn thresholded_relu(n: &mut Lower<'_>) -> Lowered {
    let (x, alpha) = (n.input(0)?, n.float_or("alpha", 1.0)?);
    if n.dtype(x)? == DType::F32 {
        return n.emit(ops::ThresholdedRelu { x, alpha: alpha.next_up() });
    }
    let (limit, zero) = (n.scalar_like(x, alpha.into())?, n.scalar_like(x, 0.0)?);
    let above = n.less(limit, x)?;
    n.emit(ops::Select { cond: above, a: x, b: zero })
}

fn celu(n: &mut Lower<'_>) -> Lowered {
    let (x, alpha) = (n.input(0)?, n.float_or("alpha", 1.0)?);
    if alpha == 0.0 {
        return n.bad_attr("alpha", "a number other than 0");
    }
    let y = layers::celu(n, x, alpha)?;
    n.done(y)
}

fn prelu(n: &mut Lower<'_>) -> Lowered {
    n.ignore("consumed_inputs");
    let (x, mut slope) = (n.input(0)?, n.input(1)?);
    if n.node.version < 7 && n.rank(slope)? == 1 && !n.shape(slope)?[0].is(1) {
        // There is a slope for each channel, not for each element along the last axis.
        let axes: Vec<i64> = (1..n.rank(x)?.saturating_sub(1) as i64).collect();
        slope = n.expand_dims(slope, &axes)?;
    }
    let y = layers::prelu(n, x, slope)?;
    n.done(y)
}

fn shrink(n: &mut Lower<'_>) -> Lowered {
    let (bias, lambd) = (n.float_or("bias", 0.0)?, n.float_or("lambd", 0.5)?);
    let x = n.input(0)?;
    let y = layers::shrink(n, x, [bias.into(), lambd.into()])?;
    n.done(y)
}
