//! Recurrent layers: the input's part of all steps is one product, then come the steps.

use super::{
    data::{each_row, load, store},
    gemm::{Matrix, Onto, product_of},
    math,
};
use mlconv_mil::{
    ir::Value,
    ops::{Activation, Direction, Gru, Lstm, LstmDirection},
    schema::{EvalCx, Tensors},
};
use smallvec::smallvec;
use std::borrow::Cow;

fn activate(activation: Activation, x: &mut [f32]) {
    let f: fn(f32) -> f32 = match activation {
        Activation::Tanh | Activation::ScaledTanh => return x.iter_mut().for_each(|x| *x = math::tanh(*x)),
        Activation::Sigmoid => return x.iter_mut().for_each(|x| *x = math::sigmoid(*x)),
        Activation::HardSigmoid | Activation::SigmoidHard => |x| (0.2 * x + 0.5).clamp(0.0, 1.0),
        Activation::Relu => |x| x.max(0.0),
        Activation::Linear => return,
    };
    for x in x.iter_mut() {
        *x = f(*x);
    }
}

/// A sequence `[time, batch, features]`.
struct Sequence<'a> {
    values: Cow<'a, [f32]>,
    steps: usize,
    batch: usize,
    features: usize,
}

impl<'a> Sequence<'a> {
    fn of(cx: &EvalCx<'a>, x: Value) -> Option<Self> {
        let [steps, batch, features] = *cx.shape(x) else { return None };
        Some(Self { values: load(cx.tensor(x))?, steps, batch, features })
    }

    /// `W x + bias` of all steps and batches, a row of `rows` elements for each.
    fn weighted(&self, cx: &EvalCx<'_>, w: Value, biases: [Option<Value>; 2]) -> Option<Vec<f32>> {
        let (w, rows) = (load(cx.tensor(w))?, cx.shape(w)[0]);
        let mut bias = vec![0.0; rows];
        for b in biases.into_iter().flatten() {
            bias.iter_mut().zip(load(cx.tensor(b))?.iter()).for_each(|(sum, b)| *sum += b);
        }
        let count = self.steps * self.batch;
        let mut y = vec![0.0; count * rows];
        each_row(&mut y, rows, |_, y| y.copy_from_slice(&bias));
        let x = Matrix::packed(&self.values, count, self.features)?;
        product_of(&mut y, x, Matrix::packed(&w, rows, self.features)?.transposed(), Onto::Sum);
        Some(y)
    }
}

/// Adds the product of the states, a row for each batch, with `r`, of some gates of `hidden` rows, to `gates`.
fn recur(gates: &mut [f32], h: &[f32], batch: usize, r: &[f32], hidden: usize) -> Option<()> {
    let rows = r.len() / hidden;
    let h = Matrix::packed(h, batch, hidden)?;
    product_of(gates, h, Matrix::packed(r, rows, hidden)?.transposed(), Onto::Sum);
    Some(())
}

/// The row of the result that step number `step` of `steps` goes to: `at` of the whole sequence, or the only one.
fn row(step: usize, at: usize, steps: usize, rows: usize) -> Option<usize> {
    if rows == steps { Some(at) } else { (step + 1 == steps).then_some(0) }
}

pub(super) fn lstm(op: &Lstm, cx: &EvalCx<'_>) -> Option<Tensors> {
    let both = op.direction == LstmDirection::Bidirectional;
    let mut parts = vec![(op.weight_ih, op.weight_hh, op.bias, op.peephole, op.direction == LstmDirection::Reverse)];
    if both {
        parts.push((op.weight_ih_back?, op.weight_hh_back?, op.bias_back, op.peephole_back, true));
    }
    let x = Sequence::of(cx, op.x)?;
    let width = cx.out(1).shape[1];
    let [all_h, all_c] = [op.initial_h, op.initial_c].map(|v| load(cx.tensor(v)).map(Cow::into_owned));
    let (mut all_h, mut all_c) = (all_h?, all_c?);
    let rows = cx.out(0).shape[0];
    let mut y = vec![0.0; cx.out(0).count()];
    for (part, (ih, hh, bias, peephole, reverse)) in parts.into_iter().enumerate() {
        let n = cx.shape(hh)[1];
        let r = load(cx.tensor(hh))?;
        let peephole = match peephole {
            Some(p) => load(cx.tensor(p))?.into_owned(),
            None => vec![0.0; 3 * n],
        };
        let mut gates = x.weighted(cx, ih, [bias, None])?;
        // The states of this direction alone, a row for each batch.
        let own = |all: &[f32]| all.chunks_exact(width).flat_map(|s| &s[part * n..(part + 1) * n]).copied().collect();
        let (mut h, mut c): (Vec<f32>, Vec<f32>) = (own(&all_h), own(&all_c));
        for step in 0..x.steps {
            let at = if reverse { x.steps - 1 - step } else { step };
            let gates = &mut gates[at * x.batch * 4 * n..][..x.batch * 4 * n];
            recur(gates, &h, x.batch, &r, n)?;
            for ((gates, h), c) in gates.chunks_exact_mut(4 * n).zip(h.chunks_exact_mut(n)).zip(c.chunks_exact_mut(n)) {
                cell(op, gates, &peephole, h, c);
            }
            if let Some(row) = row(step, if both { at } else { step }, x.steps, rows) {
                put(&mut y[row * x.batch * width..][..x.batch * width], &h, width, part);
            }
        }
        put(&mut all_h, &h, width, part);
        put(&mut all_c, &c, width, part);
    }
    Some(smallvec![store(cx.out(0), y)?, store(cx.out(1), all_h)?, store(cx.out(2), all_c)?])
}

/// Writes the states of direction `part`, a row for each batch, between those of the other one.
fn put(all: &mut [f32], states: &[f32], width: usize, part: usize) {
    let n = states.len() / (all.len() / width).max(1);
    all.chunks_exact_mut(width).zip(states.chunks_exact(n)).for_each(|(all, s)| {
        all[part * n..(part + 1) * n].copy_from_slice(s);
    });
}

/// One step of one batch; the gates are input, forget, output and cell.
fn cell(op: &Lstm, gates: &mut [f32], peephole: &[f32], h: &mut [f32], c: &mut [f32]) {
    let n = h.len();
    let (first, rest) = gates.split_at_mut(2 * n);
    let (out, cell) = rest.split_at_mut(n);
    for (gate, p) in first.chunks_exact_mut(n).zip(peephole.chunks_exact(n)) {
        gate.iter_mut().zip(p.iter().zip(&*c)).for_each(|(g, (p, c))| *g += p * c);
    }
    activate(op.recurrent_activation, first);
    activate(op.cell_activation, cell);
    let clip = op.clip.unwrap_or(f32::INFINITY);
    let (input, forget) = first.split_at(n);
    for (((c, i), f), z) in c.iter_mut().zip(input).zip(forget).zip(&*cell) {
        *c = (f * *c + i * z).clamp(-clip, clip);
    }
    out.iter_mut().zip(peephole[2 * n..].iter().zip(&*c)).for_each(|(g, (p, c))| *g += p * c);
    activate(op.recurrent_activation, out);
    h.copy_from_slice(c);
    activate(op.activation, h);
    h.iter_mut().zip(&*out).for_each(|(h, o)| *h *= o);
}

pub(super) fn gru(op: &Gru, cx: &EvalCx<'_>) -> Option<Tensors> {
    let x = Sequence::of(cx, op.x)?;
    let (n, rows) = (cx.out(1).shape[1], cx.out(0).shape[0]);
    let r = load(cx.tensor(op.weight_hh))?;
    // What the reset gate touches must be kept apart from what it does not.
    let bias = match op.bias {
        Some(b) => load(cx.tensor(b))?.into_owned(),
        None => vec![0.0; 3 * n],
    };
    let mut gates = x.weighted(cx, op.weight_ih, [op.input_bias, None])?;
    let mut h = load(cx.tensor(op.initial_h))?.into_owned();
    let mut y = vec![0.0; cx.out(0).count()];
    let gate = |k: usize| k * n * n..(k + 1) * n * n;
    for step in 0..x.steps {
        let at = if op.direction == Direction::Reverse { x.steps - 1 - step } else { step };
        let gates = &mut gates[at * x.batch * 3 * n..][..x.batch * 3 * n];
        let start = |k: usize| bias[k * n..(k + 1) * n].repeat(x.batch);
        let [mut reset, mut output, mut update] = [start(0), start(1), start(2)];
        recur(&mut reset, &h, x.batch, &r[gate(0)], n)?;
        recur(&mut update, &h, x.batch, &r[gate(2)], n)?;
        for (b, gates) in gates.chunks_exact(3 * n).enumerate() {
            for (gate, sum) in [(0, &mut reset), (2, &mut update)] {
                let sum = &mut sum[b * n..(b + 1) * n];
                sum.iter_mut().zip(&gates[gate * n..]).for_each(|(s, g)| *s += g);
                activate(op.recurrent_activation, sum);
            }
        }
        if op.reset_after {
            recur(&mut output, &h, x.batch, &r[gate(1)], n)?;
            output.iter_mut().zip(&reset).for_each(|(o, r)| *o *= r);
        } else {
            let kept: Vec<f32> = h.iter().zip(&reset).map(|(h, r)| h * r).collect();
            recur(&mut output, &kept, x.batch, &r[gate(1)], n)?;
        }
        for (b, gates) in gates.chunks_exact(3 * n).enumerate() {
            output[b * n..(b + 1) * n].iter_mut().zip(&gates[n..]).for_each(|(o, g)| *o += g);
        }
        activate(op.activation, &mut output);
        h.iter_mut().zip(output.iter().zip(&update)).for_each(|(h, (o, z))| *h = (1.0 - z) * o + z * *h);
        if let Some(row) = row(step, step, x.steps, rows) {
            y[row * h.len()..][..h.len()].copy_from_slice(&h);
        }
    }
    Some(smallvec![store(cx.out(0), y)?, store(cx.out(1), h)?])
}
