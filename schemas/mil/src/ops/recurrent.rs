//! Recurrent layers over sequences `[time, batch, features]`.

use crate::{
    ir::{Fact, Value},
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{Dim, TensorType};
use smallvec::smallvec;

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

/// The order in which an LSTM reads its sequence.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LstmDirection {
    /// From the first step to the last.
    #[name("forward")]
    Forward,
    /// From the last step to the first. The sequence of results is in the order they are computed in.
    #[name("reverse")]
    Reverse,
    /// Both, with weights of their own, side by side. Each result stands at the step it was computed from.
    #[name("bidirectional")]
    Bidirectional,
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

/// A layer of long short-term memory.
///
/// For each step `t`, with `f`, `g`, `h` being `recurrent_activation`, `cell_activation` and `activation`:
/// ```text
/// i = f(W_i x[t] + R_i y[t-1] + p_i * c[t-1] + b_i)      input gate
/// f = f(W_f x[t] + R_f y[t-1] + p_f * c[t-1] + b_f)      forget gate
/// z = g(W_z x[t] + R_z y[t-1] + b_z)                     cell gate
/// c[t] = clip(f * c[t-1] + i * z)
/// o = f(W_o x[t] + R_o y[t-1] + p_o * c[t] + b_o)        output gate
/// y[t] = o * h(c[t])
/// ```
/// Results: the sequence `T[t, b, d*h]` of `y`, or its last `T[1, b, d*h]`; the last `y`, `T[b, d*h]`; the last `c`,
/// `T[b, d*h]`. `d` is 2 where it is bidirectional, else 1.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "lstm", since = Ios15)]
#[domain(T: Ios15 = F32, Ios17 = F16)]
pub struct Lstm {
    /// `T[t, b, i]`.
    #[operand(T)]
    pub x: Value,
    /// `T[b, d*h]`: the first `y`; forward, then backward.
    #[operand(T)]
    pub initial_h: Value,
    /// `T[b, d*h]`: the first `c`.
    #[operand(T)]
    pub initial_c: Value,
    /// `T[4*h, i]`: `W` of the input, forget, output and cell gate.
    #[operand(T, constant)]
    pub weight_ih: Value,
    /// `T[4*h, h]`: `R` of the input, forget, output and cell gate.
    #[operand(T, constant)]
    pub weight_hh: Value,
    /// `T[4*h]`: `b` of the input, forget, output and cell gate; zero when absent.
    #[operand(T, constant)]
    pub bias: Option<Value>,
    /// `T[3*h]`: `p` of the input, forget and output gate; zero when absent.
    #[operand(T, constant)]
    pub peephole: Option<Value>,
    /// `weight_ih` backward; read only where it is bidirectional, and must then be there.
    #[operand(T, constant)]
    pub weight_ih_back: Option<Value>,
    /// `weight_hh` backward; read only where it is bidirectional, and must then be there.
    #[operand(T, constant)]
    pub weight_hh_back: Option<Value>,
    /// `bias` backward; read only where it is bidirectional.
    #[operand(T, constant)]
    pub bias_back: Option<Value>,
    /// `peephole` backward; read only where it is bidirectional.
    #[operand(T, constant)]
    pub peephole_back: Option<Value>,
    /// The order in which `x` is read.
    #[attr(default = LstmDirection::Forward)]
    pub direction: LstmDirection,
    /// Whether the first result is the whole sequence.
    #[attr(default = false)]
    pub output_sequence: bool,
    /// Of the input, forget and output gate.
    #[attr(default = Activation::Sigmoid)]
    pub recurrent_activation: Activation,
    /// Of the cell gate.
    #[attr(default = Activation::Tanh)]
    pub cell_activation: Activation,
    /// Of the cell where it is put out.
    #[attr(default = Activation::Tanh)]
    pub activation: Activation,
    /// Keeps `c` within `-clip..=clip`; unlimited when absent.
    #[attr(T, default = None)]
    pub clip: Option<f32>,
}

impl Semantics for Lstm {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let hidden = check_weights(cx, 4, self.x, ("weight_ih", self.weight_ih), ("weight_hh", self.weight_hh))?;
        check_vector(cx, "bias", self.bias, &(&hidden * 4))?;
        check_vector(cx, "peephole", self.peephole, &(&hidden * 3))?;
        if let Some(clip) = self.clip.filter(|c| c.is_nan() || *c < 0.0) {
            return Err(OpError::value("clip", clip, "at least 0"));
        }
        let width = match self.direction {
            LstmDirection::Forward | LstmDirection::Reverse => hidden,
            LstmDirection::Bidirectional => {
                let ih = self.weight_ih_back.ok_or(OpError::Missing { param: "weight_ih_back" })?;
                let hh = self.weight_hh_back.ok_or(OpError::Missing { param: "weight_hh_back" })?;
                let back = check_weights(cx, 4, self.x, ("weight_ih_back", ih), ("weight_hh_back", hh))?;
                if !back.may_equal(&hidden) {
                    return Err(cx.operand("weight_hh_back", hh, "of the size of `weight_hh`"));
                }
                check_vector(cx, "bias_back", self.bias_back, &(&hidden * 4))?;
                check_vector(cx, "peephole_back", self.peephole_back, &(&hidden * 3))?;
                hidden * 2
            }
        };
        let state = check_state(cx, self.x, "initial_h", self.initial_h, &width)?;
        check_state(cx, self.x, "initial_c", self.initial_c, &width)?;
        let sequence = sequence(cx, self.x, &width, self.output_sequence)?;
        Ok(smallvec![sequence, state.clone(), state])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let forward = LstmWeights::of(cx, self.weight_ih, self.weight_hh, self.bias, self.peephole);
        let mut parts = vec![(forward, self.direction == LstmDirection::Reverse)];
        let both = self.direction == LstmDirection::Bidirectional;
        if let (true, Some(ih), Some(hh)) = (both, self.weight_ih_back, self.weight_hh_back) {
            parts.push((LstmWeights::of(cx, ih, hh, self.bias_back, self.peephole_back), true));
        }
        let x = Sequence::of(cx, self.x);
        let width = cx.out(1).shape[1];
        let [mut h, mut c] = [self.initial_h, self.initial_c].map(|v| cx.f64(v));
        let steps = cx.out(0).shape[0];
        let mut y = vec![0.0; cx.out(0).count()];
        for (part, (weights, reverse)) in parts.iter().enumerate() {
            let hidden = weights.hidden;
            for b in 0..x.batch {
                let state = b * width + part * hidden..b * width + (part + 1) * hidden;
                for step in 0..x.steps {
                    let at = if *reverse { x.steps - 1 - step } else { step };
                    self.step(weights, x.at(at, b), &mut h[state.clone()], &mut c[state.clone()]);
                    if let Some(row) = row(step, if both { at } else { step }, x.steps, steps) {
                        let start = row * x.batch * width;
                        y[start + state.start..start + state.end].copy_from_slice(&h[state.clone()]);
                    }
                }
            }
        }
        Ok(smallvec![cx.out(0).of(&y), cx.out(1).of(&h), cx.out(2).of(&c)])
    }
}

impl Lstm {
    fn step(&self, weights: &LstmWeights, x: &[f64], h: &mut [f64], c: &mut [f64]) {
        let n = weights.hidden;
        let gates = weights.gates.of(x, h);
        let clip = self.clip.map_or(f64::INFINITY, f64::from);
        for k in 0..n {
            let peep = |gate: usize, cell: f64| weights.peephole.as_ref().map_or(0.0, |p| p[gate * n + k] * cell);
            let i = self.recurrent_activation.of(gates[k] + peep(0, c[k]));
            let f = self.recurrent_activation.of(gates[n + k] + peep(1, c[k]));
            let z = self.cell_activation.of(gates[3 * n + k]);
            c[k] = (f * c[k] + i * z).clamp(-clip, clip);
            let o = self.recurrent_activation.of(gates[2 * n + k] + peep(2, c[k]));
            h[k] = o * self.activation.of(c[k]);
        }
    }
}

struct LstmWeights {
    gates: Affine,
    peephole: Option<Vec<f64>>,
    hidden: usize,
}

impl LstmWeights {
    fn of(cx: &EvalCx<'_>, ih: Value, hh: Value, bias: Option<Value>, peephole: Option<Value>) -> Self {
        let gates = Affine { w: cx.f64(ih), r: cx.f64(hh), bias: bias.map(|b| cx.f64(b)), rows: cx.shape(hh)[0] };
        Self { gates, peephole: peephole.map(|p| cx.f64(p)), hidden: cx.shape(hh)[1] }
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
