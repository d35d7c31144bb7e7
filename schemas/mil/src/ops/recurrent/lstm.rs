//! Long short-term memory.

use super::{Activation, Affine, Sequence, check_state, check_vector, check_weights, macs, row, sequence};
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{Dim, Shape};
use smallvec::smallvec;

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

    fn macs(&self, cx: &InferCx<'_>, _: &Shape) -> Option<Dim> {
        let back = self.weight_ih_back.into_iter().chain(self.weight_hh_back);
        macs(cx, self.x, &[self.weight_ih, self.weight_hh].into_iter().chain(back).collect::<Vec<_>>())
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
