//! Recurrent layers over sequences `[time, batch, features]`.

use crate::{
    ir::{Fact, Value},
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{Dim, Shape, TensorType};
use smallvec::smallvec;

mod lstm;
pub use lstm::{Lstm, LstmDirection};

/// The order in which a layer reads its sequence.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first step to the last.
    #[name("forward")]
    Forward,
    /// From the last step to the first. The sequence of results is in the order they are computed in.
    #[name("reverse")]
    Reverse,
}

/// What is applied to a gate.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `tanh(x)`.
    #[name("tanh")]
    Tanh,
    /// `1 / (1 + exp(-x))`.
    #[name("sigmoid")]
    Sigmoid,
    /// `min(max(0.2 * x + 0.5, 0), 1)`.
    #[name("hard_sigmoid")]
    HardSigmoid,
    /// [`HardSigmoid`](Self::HardSigmoid), as the documentation of `rnn` spells it.
    #[name("sigmoid_hard")]
    SigmoidHard,
    /// `tanh(x)`: the factors are 1.
    #[name("scaled_tanh")]
    ScaledTanh,
    /// `max(x, 0)`.
    #[name("relu")]
    Relu,
    /// `x`.
    #[name("linear")]
    Linear,
}

impl Activation {
    fn of(self, x: f64) -> f64 {
        match self {
            Self::Tanh | Self::ScaledTanh => x.tanh(),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::HardSigmoid | Self::SigmoidHard => (0.2 * x + 0.5).clamp(0.0, 1.0),
            Self::Relu => x.max(0.0),
            Self::Linear => x,
        }
    }
}

/// A layer of gated recurrent units.
///
/// For each step `t`, with `f`, `g` being `recurrent_activation` and `activation`:
/// ```text
/// r = f(W_r x[t] + R_r y[t-1] + b_r)                     reset gate
/// z = f(W_z x[t] + R_z y[t-1] + b_z)                     update gate
/// o = g(W_o x[t] + R_o (r * y[t-1]) + b_o)               output gate
/// y[t] = (1 - z) * o + z * y[t-1]
/// ```
/// Each `b` is the sum of `bias` and `input_bias`. Where `reset_after` holds, `o` is instead
/// `g(W_o x[t] + input_bias_o + r * (R_o y[t-1] + bias_o))`.
///
/// Results: the sequence `T[t, b, h]` of `y`, or its last `T[1, b, h]`; the last `y`, `T[b, h]`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "gru", since = Ios15)]
#[domain(T: Ios15 = F32, Ios17 = F16)]
pub struct Gru {
    /// `T[t, b, i]`.
    #[operand(T)]
    pub x: Value,
    /// `T[b, h]`: the first `y`.
    #[operand(T)]
    pub initial_h: Value,
    /// `T[3*h, i]`: `W` of the reset, output and update gate.
    #[operand(T, constant)]
    pub weight_ih: Value,
    /// `T[3*h, h]`: `R` of the reset, output and update gate.
    #[operand(T, constant)]
    pub weight_hh: Value,
    /// `T[3*h]`: `b` of the reset, output and update gate; zero when absent.
    #[operand(T, constant)]
    pub bias: Option<Value>,
    /// The order in which `x` is read.
    #[attr(default = Direction::Forward)]
    pub direction: Direction,
    /// Whether the first result is the whole sequence.
    #[attr(default = false)]
    pub output_sequence: bool,
    /// Of the reset and update gate.
    #[attr(default = Activation::Sigmoid)]
    pub recurrent_activation: Activation,
    /// Of the output gate.
    #[attr(default = Activation::Tanh)]
    pub activation: Activation,
    /// Whether the reset gate is applied to the product with `R_o`, not to what it is a product of.
    #[attr(since = Ios18, default = false)]
    pub reset_after: bool,
    /// `T[3*h]`: further biases of the reset, output and update gate, that the reset gate never touches; zero when
    /// absent.
    #[operand(T, constant, since = Ios18)]
    pub input_bias: Option<Value>,
}

impl Semantics for Gru {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let hidden = check_weights(cx, 3, self.x, ("weight_ih", self.weight_ih), ("weight_hh", self.weight_hh))?;
        check_vector(cx, "bias", self.bias, &(&hidden * 3))?;
        check_vector(cx, "input_bias", self.input_bias, &(&hidden * 3))?;
        let state = check_state(cx, self.x, "initial_h", self.initial_h, &hidden)?;
        Ok(smallvec![sequence(cx, self.x, &hidden, self.output_sequence)?, state])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let n = cx.out(1).shape[1];
        let zero = || vec![0.0; 3 * n];
        let bias = self.bias.map_or_else(zero, |b| cx.f64(b));
        let input_bias = self.input_bias.map_or_else(zero, |b| cx.f64(b));
        let (w, r) = (cx.f64(self.weight_ih), cx.f64(self.weight_hh));
        Ok(recur(cx, self.x, self.initial_h, self.direction, |x, h| {
            // Rows of `W x + input_bias` and of `R y + bias`, for gates 0, 1, 2: reset, output, update.
            let input = |row: usize| dot(&w[row * x.len()..], x) + input_bias[row];
            let recurrent = |row: usize, y: &[f64]| dot(&r[row * n..], y) + bias[row];
            let f = |row: usize| self.recurrent_activation.of(input(row) + recurrent(row, h));
            let reset: Vec<f64> = (0..n).map(f).collect();
            let kept: Vec<f64> = reset.iter().zip(h.iter()).map(|(r, h)| r * h).collect();
            let next = |k: usize| {
                let after = self.reset_after;
                let state = if after { reset[k] * recurrent(n + k, h) } else { recurrent(n + k, &kept) };
                let (o, z) = (self.activation.of(input(n + k) + state), f(2 * n + k));
                (1.0 - z) * o + z * h[k]
            };
            let next: Vec<f64> = (0..n).map(next).collect();
            h.copy_from_slice(&next);
        }))
    }

    fn macs(&self, cx: &InferCx<'_>, _: &Shape) -> Option<Dim> {
        macs(cx, self.x, &[self.weight_ih, self.weight_hh])
    }
}

/// A plain recurrent layer: `y[t] = activation(W x[t] + R y[t-1] + b)`.
///
/// Results: the sequence `T[t, b, h]` of `y`, or its last `T[1, b, h]`; the last `y`, `T[b, h]`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "rnn", since = Ios15)]
#[domain(T: Ios15 = F32, Ios17 = F16)]
pub struct Rnn {
    /// `T[t, b, i]`.
    #[operand(T)]
    pub x: Value,
    /// `T[b, h]`: the first `y`.
    #[operand(T)]
    pub initial_h: Value,
    /// `T[h, i]`: `W`.
    #[operand(T, constant)]
    pub weight_ih: Value,
    /// `T[h, h]`: `R`.
    #[operand(T, constant)]
    pub weight_hh: Value,
    /// `T[h]`: `b`; zero when absent.
    #[operand(T, constant)]
    pub bias: Option<Value>,
    /// The order in which `x` is read.
    #[attr(default = Direction::Forward)]
    pub direction: Direction,
    /// Whether the first result is the whole sequence.
    #[attr(default = false)]
    pub output_sequence: bool,
    /// What is applied to the sum.
    #[attr(default = Activation::Tanh)]
    pub activation: Activation,
}

impl Semantics for Rnn {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let hidden = check_weights(cx, 1, self.x, ("weight_ih", self.weight_ih), ("weight_hh", self.weight_hh))?;
        check_vector(cx, "bias", self.bias, &hidden)?;
        let state = check_state(cx, self.x, "initial_h", self.initial_h, &hidden)?;
        Ok(smallvec![sequence(cx, self.x, &hidden, self.output_sequence)?, state])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let bias = self.bias.map(|b| cx.f64(b));
        let sum = Affine { w: cx.f64(self.weight_ih), r: cx.f64(self.weight_hh), bias, rows: cx.out(1).shape[1] };
        Ok(recur(cx, self.x, self.initial_h, self.direction, |x, h| {
            let next = sum.of(x, h);
            h.iter_mut().zip(next).for_each(|(h, y)| *h = self.activation.of(y));
        }))
    }

    fn macs(&self, cx: &InferCx<'_>, _: &Shape) -> Option<Dim> {
        macs(cx, self.x, &[self.weight_ih, self.weight_hh])
    }
}

/// Runs `step`, which changes the state, over the sequence `x` of each batch.
fn recur(
    cx: &EvalCx<'_>,
    x: Value,
    initial: Value,
    direction: Direction,
    step: impl Fn(&[f64], &mut [f64]),
) -> Tensors {
    let (x, mut h) = (Sequence::of(cx, x), cx.f64(initial));
    let n = cx.out(1).shape[1];
    let mut y = vec![0.0; cx.out(0).count()];
    for b in 0..x.batch {
        let state = b * n..(b + 1) * n;
        for t in 0..x.steps {
            let at = if direction == Direction::Reverse { x.steps - 1 - t } else { t };
            step(x.at(at, b), &mut h[state.clone()]);
            if let Some(row) = row(t, t, x.steps, cx.out(0).shape[0]) {
                let start = row * x.batch * n;
                y[start + state.start..start + state.end].copy_from_slice(&h[state.clone()]);
            }
        }
    }
    smallvec![cx.out(0).of(&y), cx.out(1).of(&h)]
}

/// The row of the result that step number `step` of `steps` goes to: `at` of the whole sequence, or the only one.
fn row(step: usize, at: usize, steps: usize, rows: usize) -> Option<usize> {
    if rows == steps { Some(at) } else { (step + 1 == steps).then_some(0) }
}

/// `W x + R h + bias`.
struct Affine {
    w: Vec<f64>,
    r: Vec<f64>,
    bias: Option<Vec<f64>>,
    rows: usize,
}

impl Affine {
    fn of(&self, x: &[f64], h: &[f64]) -> Vec<f64> {
        let row = |i: usize| {
            let bias = self.bias.as_ref().map_or(0.0, |b| b[i]);
            dot(&self.w[i * x.len()..], x) + dot(&self.r[i * h.len()..], h) + bias
        };
        (0..self.rows).map(row).collect()
    }
}

/// The product of `x` and as many first elements of `row`.
fn dot(row: &[f64], x: &[f64]) -> f64 {
    row.iter().zip(x).map(|(a, b)| a * b).sum()
}

/// A sequence `[time, batch, features]`.
struct Sequence {
    values: Vec<f64>,
    steps: usize,
    batch: usize,
    features: usize,
}

impl Sequence {
    fn of(cx: &EvalCx<'_>, x: Value) -> Self {
        let shape = cx.shape(x);
        Self { values: cx.f64(x), steps: shape[0], batch: shape[1], features: shape[2] }
    }

    fn at(&self, step: usize, batch: usize) -> &[f64] {
        &self.values[(step * self.batch + batch) * self.features..][..self.features]
    }
}

/// The hidden size, where the weights of `gates` gates fit `x` and each other.
fn check_weights(
    cx: &InferCx<'_>,
    gates: i64,
    x: Value,
    (ih_param, ih): (&'static str, Value),
    (hh_param, hh): (&'static str, Value),
) -> Result<Dim, OpError> {
    let x = cx.ranked("x", x, 3..=3)?;
    let (w, r) = (cx.ranked(ih_param, ih, 2..=2)?, cx.ranked(hh_param, hh, 2..=2)?);
    let hidden = r.shape[1].clone();
    let rows = &hidden * gates;
    for (param, v, ty, columns) in [(ih_param, ih, w, &x.shape[2]), (hh_param, hh, r, &hidden)] {
        if !ty.shape.may_equal(&[rows.clone(), columns.clone()].into()) {
            return Err(cx.operand(param, v, format!("a matrix of shape [{rows}, {columns}]")));
        }
    }
    Ok(hidden)
}

/// Each element of each weight meets each row of `x`, `T[t, b, i]`, or of what follows from it.
fn macs(cx: &InferCx<'_>, x: Value, weights: &[Value]) -> Option<Dim> {
    let rows = cx.shape(x)?.iter().take(2).fold(Dim::from(1), |n, d| n * d);
    weights.iter().try_fold(Dim::from(0), |n, w| Some(n + cx.shape(*w)?.count())).map(|n| n * rows)
}

fn check_vector(cx: &InferCx<'_>, param: &'static str, v: Option<Value>, size: &Dim) -> Result<(), OpError> {
    let Some(v) = v else { return Ok(()) };
    if cx.tensor(param, v)?.shape.may_equal(&[size.clone()].into()) {
        return Ok(());
    }
    Err(cx.operand(param, v, format!("a vector of {size} elements")))
}

/// The fact of a state of `width` for each batch of `x`, which `v` must be.
fn check_state(cx: &InferCx<'_>, x: Value, param: &'static str, v: Value, width: &Dim) -> Result<Fact, OpError> {
    let x = cx.ranked("x", x, 3..=3)?;
    let want = TensorType::new(x.dtype, [x.shape[1].clone(), width.clone()]);
    if cx.tensor(param, v)?.shape.may_equal(&want.shape) {
        return Ok(Fact::of(want));
    }
    Err(cx.operand(param, v, want.to_string()))
}

/// The fact of the sequence of results, or of the last one.
fn sequence(cx: &InferCx<'_>, x: Value, width: &Dim, whole: bool) -> Result<Fact, OpError> {
    let x = cx.ranked("x", x, 3..=3)?;
    let steps = if whole { x.shape[0].clone() } else { Dim::from(1) };
    cx.fact_of(x.dtype, [steps, x.shape[1].clone(), width.clone()])
}
