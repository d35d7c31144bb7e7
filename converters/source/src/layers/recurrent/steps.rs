//! Recurrent layers as plain arithmetic, step by step.

use super::{Direction, Function, Kind, Layer, Result, Run, range};
use crate::layers::walk::Walk;
use crate::{Lower, LowerError, Size};
use mlconv_mil::{ir::Value, ops};

/// One direction of a layer.
pub(super) fn run(n: &mut Lower<'_>, layer: &Layer, d: &Direction) -> Result<Run> {
    let cell = Cell::of(n, layer, d)?;
    let size = d.projection.map_or(Size::Known(layer.hidden), |p| Size::Of(p, 0));
    let item = [Size::Of(layer.x, 1), size];
    let walk = Walk { over: &[cell.taken], reverse: d.reverse, item: layer.sequence.then_some(&item) };
    let (state, sequence) = walk.run(n, &d.state, &|n, taken, state, at| match taken {
        [taken] => cell.masked_step(n, *taken, state, at),
        _ => Err(LowerError::Poisoned),
    })?;
    Ok(Run { sequence, state })
}

/// What every step needs.
struct Cell<'a> {
    layer: &'a Layer,
    direction: &'a Direction,
    /// `[t, b, gates * hidden]`: what all steps take from the input.
    taken: Value,
    /// `[hidden]`: the bias that is added before the reset gate is applied.
    inner_bias: Option<Value>,
    /// `[b, 1]`.
    lengths: Option<Value>,
}

impl<'a> Cell<'a> {
    fn of(n: &mut Lower<'_>, layer: &'a Layer, direction: &'a Direction) -> Result<Self> {
        let hidden = layer.hidden;
        let mut taken = n.matmul(layer.x, direction.w, false, true)?;
        let mut inner_bias = None;
        if let Some([of_input, of_state]) = direction.biases {
            let bias = if layer.reset_after {
                inner_bias = Some(range(n, of_state, 2 * hidden, 3 * hidden)?);
                let (a, b) = (range(n, of_input, 0, 2 * hidden)?, range(n, of_state, 0, 2 * hidden)?);
                let parts = vec![n.add(a, b)?, range(n, of_input, 2 * hidden, 3 * hidden)?];
                n.concat(parts, 0)?
            } else {
                n.add(of_input, of_state)?
            };
            taken = n.add(taken, bias)?;
        }
        let lengths = layer.lengths.map(|l| n.expand_dims(l, &[1])).transpose()?;
        Ok(Self { layer, direction, taken, inner_bias, lengths })
    }

    /// The next state and the output, at time `at`. Sequences that have ended keep their state, and put out zeros.
    fn masked_step(&self, n: &mut Lower<'_>, taken: Value, state: &[Value], at: Value) -> Result<(Vec<Value>, Value)> {
        let next = self.step(n, taken, state)?;
        let Some(y) = next.first().copied() else { return Err(LowerError::Poisoned) };
        let Some(lengths) = self.lengths else { return Ok((next, y)) };
        let goes_on = n.less(at, lengths)?;
        let zero = n.scalar_like(y, 0.0)?;
        let y = n.select(goes_on, y, zero)?;
        let kept = next.iter().zip(state).map(|(new, old)| n.select(goes_on, *new, *old)).collect::<Result<_>>()?;
        Ok((kept, y))
    }

    fn step(&self, n: &mut Lower<'_>, taken: Value, state: &[Value]) -> Result<Vec<Value>> {
        match (self.layer.kind, state) {
            (Kind::Rnn, [h]) => {
                let sum = n.matmul(*h, self.direction.r, false, true)?;
                let sum = n.add(taken, sum)?;
                Ok(vec![self.apply(n, 0, sum)?])
            }
            (Kind::Gru, [h]) => self.gru(n, taken, *h),
            (Kind::Lstm, [h, c]) => self.lstm(n, taken, *h, *c),
            _ => Err(LowerError::Poisoned),
        }
    }

    fn gru(&self, n: &mut Lower<'_>, taken: Value, h: Value) -> Result<Vec<Value>> {
        let hidden = self.layer.hidden;
        let [gates, hidden_part] = [(0, 2), (2, 3)].map(|(begin, end)| (begin * hidden, end * hidden));
        let (of_gates, of_hidden) = if self.layer.reset_after {
            let all = n.matmul(h, self.direction.r, false, true)?;
            (n.slice(all, 1, gates.0, Some(gates.1))?, Some(n.slice(all, 1, hidden_part.0, Some(hidden_part.1))?))
        } else {
            let r = range(n, self.direction.r, gates.0, gates.1)?;
            (n.matmul(h, r, false, true)?, None)
        };
        let taken_gates = n.slice(taken, 1, gates.0, Some(gates.1))?;
        let taken_hidden = n.slice(taken, 1, hidden_part.0, Some(hidden_part.1))?;
        let sum = n.add(taken_gates, of_gates)?;
        let both = self.apply(n, 0, sum)?;
        let (update, reset) = (n.slice(both, 1, 0, Some(hidden))?, n.slice(both, 1, hidden, Some(2 * hidden))?);
        let of_state = match of_hidden {
            Some(mut product) => {
                if let Some(bias) = self.inner_bias {
                    product = n.add(product, bias)?;
                }
                n.mul(reset, product)?
            }
            None => {
                let kept = n.mul(reset, h)?;
                let r = range(n, self.direction.r, hidden_part.0, hidden_part.1)?;
                n.matmul(kept, r, false, true)?
            }
        };
        let sum = n.add(taken_hidden, of_state)?;
        let new = self.apply(n, 1, sum)?;
        // `(1 - update) * new + update * h`
        let change = n.sub(h, new)?;
        let change = n.mul(update, change)?;
        Ok(vec![n.add(new, change)?])
    }

    fn lstm(&self, n: &mut Lower<'_>, taken: Value, h: Value, c: Value) -> Result<Vec<Value>> {
        let product = n.matmul(h, self.direction.r, false, true)?;
        let sum = n.add(taken, product)?;
        let parts = n.ops(ops::Split { x: sum, num_splits: Some(4), split_sizes: None, axis: 1 })?;
        let [input, output, forget, cell] = *parts.as_slice() else { return Err(LowerError::Poisoned) };
        let input = self.peep(n, input, 0, c)?;
        let input = self.apply(n, 0, input)?;
        let forget = if self.layer.coupled {
            let one = n.scalar_like(input, 1.0)?;
            n.sub(one, input)?
        } else {
            let forget = self.peep(n, forget, 2, c)?;
            self.apply(n, 0, forget)?
        };
        let cell = self.apply(n, 1, cell)?;
        let (kept, added) = (n.mul(forget, c)?, n.mul(input, cell)?);
        let c = n.add(kept, added)?;
        let output = self.peep(n, output, 1, c)?;
        let output = self.apply(n, 0, output)?;
        // The cell is not clipped on its way out: ONNX Runtime does not, and the standard's words allow both.
        let shown = self.function(2)?.apply(n, c)?;
        let mut h = n.mul(output, shown)?;
        if let Some(projection) = self.direction.projection {
            h = n.matmul(h, projection, false, true)?;
        }
        Ok(vec![h, c])
    }

    /// `gate` with what it sees of the cell; the peepholes are those of the input, output and forget gate.
    fn peep(&self, n: &mut Lower<'_>, gate: Value, i: i64, c: Value) -> Result<Value> {
        let Some(peephole) = self.direction.peephole else { return Ok(gate) };
        let weights = range(n, peephole, i * self.layer.hidden, (i + 1) * self.layer.hidden)?;
        let seen = n.mul(weights, c)?;
        n.add(gate, seen)
    }

    /// Function `i` of `x`, clipped.
    fn apply(&self, n: &mut Lower<'_>, i: usize, mut x: Value) -> Result<Value> {
        if let Some(clip) = self.layer.clip {
            x = n.op(ops::Clip { x, alpha: -clip, beta: clip })?;
        }
        self.function(i)?.apply(n, x)
    }

    fn function(&self, i: usize) -> Result<Function> {
        self.direction.functions.get(i).copied().ok_or(LowerError::Poisoned)
    }
}
