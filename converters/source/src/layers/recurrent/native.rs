//! Core ML's own recurrent layers.

use super::{Direction, Kind, Layer, Result, Run, gates};
use crate::Lower;
use mlconv_mil::{
    ir::Value,
    ops::{self, Activation, LstmDirection},
    schema::Opset,
};

/// The layer by Core ML's own ops; `None` where they do not express it.
pub(super) fn runs(n: &mut Lower<'_>, layer: &Layer) -> Result<Option<Vec<Run>>> {
    let projects = layer.directions.iter().any(|d| d.projection.is_some());
    if layer.lengths.is_some() || layer.clip.is_some() || layer.coupled || projects {
        return Ok(None);
    }
    if layer.reset_after && n.opset() < Opset::Ios18 {
        return Ok(None);
    }
    let constant = |d: &Direction| {
        let biases = d.biases.iter().flatten();
        [&d.w, &d.r].into_iter().chain(biases).chain(&d.peephole).all(|v| n.const_of(*v).is_some())
    };
    let functions: Option<Vec<Vec<Activation>>> =
        layer.directions.iter().map(|d| d.functions.iter().map(|f| f.native()).collect()).collect();
    let (Some(functions), true) = (functions, layer.directions.iter().all(constant)) else { return Ok(None) };
    // The documents disagree on how this layer spells that function.
    if layer.kind == Kind::Rnn && functions.iter().flatten().any(|f| *f == Activation::HardSigmoid) {
        return Ok(None);
    }
    if let ([forward, back], [f, g]) = (layer.directions.as_slice(), functions.as_slice())
        && layer.kind == Kind::Lstm
        && f == g
    {
        return both(n, layer, [forward, back], f).map(Some);
    }
    let mut runs = vec![];
    for (d, functions) in layer.directions.iter().zip(&functions) {
        let results = match layer.kind {
            Kind::Gru => gru(n, layer, d, functions)?,
            Kind::Lstm => lstm(n, layer, &[d], functions)?,
            Kind::Rnn => rnn(n, layer, d, functions)?,
        };
        let Some((sequence, state)) = results.split_first() else { continue };
        // The ops put out a sequence in the order in which they compute it.
        let sequence = match (layer.sequence, d.reverse) {
            (false, _) => None,
            (true, false) => Some(*sequence),
            (true, true) => Some(n.op(ops::Reverse { x: *sequence, axes: Some(vec![0]) })?),
        };
        runs.push(Run { sequence, state: state.to_vec() });
    }
    Ok(Some(runs))
}

/// An LSTM in both directions as one op.
fn both(n: &mut Lower<'_>, layer: &Layer, directions: [&Direction; 2], functions: &[Activation]) -> Result<Vec<Run>> {
    let results = lstm(n, layer, &directions, functions)?;
    let mut runs = vec![];
    for i in 0..2 {
        let mut parts = vec![];
        for (k, v) in results.iter().enumerate() {
            if k > 0 || layer.sequence {
                let last = n.rank(*v)? - 1;
                parts.push(n.slice(*v, last, i * layer.hidden, Some((i + 1) * layer.hidden))?);
            }
        }
        let sequence = layer.sequence.then(|| parts.remove(0));
        runs.push(Run { sequence, state: parts });
    }
    Ok(runs)
}

/// The sum of both biases, with gates in `order`.
fn bias(n: &mut Lower<'_>, layer: &Layer, d: &Direction, order: &[i64]) -> Result<Option<Value>> {
    let Some([a, b]) = d.biases else { return Ok(None) };
    let sum = n.add(a, b)?;
    gates(n, sum, layer.hidden, order).map(Some)
}

fn gru(n: &mut Lower<'_>, layer: &Layer, d: &Direction, functions: &[Activation]) -> Result<Vec<Value>> {
    // ONNX has update, reset, hidden.
    const ORDER: [i64; 3] = [1, 2, 0];
    let [recurrent_activation, activation] = *functions else { return Ok(vec![]) };
    let (bias, input_bias) = match d.biases {
        Some([of_input, of_state]) if layer.reset_after => {
            let hidden = layer.hidden;
            (Some(gates(n, of_state, hidden, &ORDER)?), Some(gates(n, of_input, hidden, &ORDER)?))
        }
        _ => (bias(n, layer, d, &ORDER)?, None),
    };
    let op = ops::Gru {
        x: layer.x,
        initial_h: d.state[0],
        weight_ih: gates(n, d.w, layer.hidden, &ORDER)?,
        weight_hh: gates(n, d.r, layer.hidden, &ORDER)?,
        bias,
        direction: direction(d),
        output_sequence: layer.sequence,
        recurrent_activation,
        activation,
        reset_after: layer.reset_after,
        input_bias,
    };
    Ok(n.ops(op)?.to_vec())
}

fn rnn(n: &mut Lower<'_>, layer: &Layer, d: &Direction, functions: &[Activation]) -> Result<Vec<Value>> {
    let [activation] = *functions else { return Ok(vec![]) };
    let op = ops::Rnn {
        x: layer.x,
        initial_h: d.state[0],
        weight_ih: d.w,
        weight_hh: d.r,
        bias: bias(n, layer, d, &[0])?,
        direction: direction(d),
        output_sequence: layer.sequence,
        activation,
    };
    Ok(n.ops(op)?.to_vec())
}

/// The weights of an LSTM in one direction.
struct Weights {
    ih: Value,
    hh: Value,
    bias: Option<Value>,
    peephole: Option<Value>,
}

impl Weights {
    fn of(n: &mut Lower<'_>, layer: &Layer, d: &Direction) -> Result<Self> {
        // ONNX has input, output, forget, cell.
        const ORDER: [i64; 4] = [0, 2, 1, 3];
        let hidden = layer.hidden;
        Ok(Self {
            ih: gates(n, d.w, hidden, &ORDER)?,
            hh: gates(n, d.r, hidden, &ORDER)?,
            bias: bias(n, layer, d, &ORDER)?,
            peephole: d.peephole.map(|p| gates(n, p, hidden, &ORDER[..3])).transpose()?,
        })
    }
}

/// One op for one direction, or for forward and backward together.
fn lstm(n: &mut Lower<'_>, layer: &Layer, directions: &[&Direction], functions: &[Activation]) -> Result<Vec<Value>> {
    let [recurrent_activation, cell_activation, activation] = *functions else { return Ok(vec![]) };
    let (Some(first), back) = (directions.first(), directions.get(1)) else { return Ok(vec![]) };
    let forward = Weights::of(n, layer, first)?;
    let back = back.map(|d| Weights::of(n, layer, d)).transpose()?;
    let mut state = |i: usize| n.concat(directions.iter().map(|d| d.state[i]).collect(), 1);
    let op = ops::Lstm {
        x: layer.x,
        initial_h: state(0)?,
        initial_c: state(1)?,
        weight_ih: forward.ih,
        weight_hh: forward.hh,
        bias: forward.bias,
        peephole: forward.peephole,
        weight_ih_back: back.as_ref().map(|b| b.ih),
        weight_hh_back: back.as_ref().map(|b| b.hh),
        bias_back: back.as_ref().and_then(|b| b.bias),
        peephole_back: back.as_ref().and_then(|b| b.peephole),
        direction: match (back.is_some(), first.reverse) {
            (true, _) => LstmDirection::Bidirectional,
            (false, true) => LstmDirection::Reverse,
            (false, false) => LstmDirection::Forward,
        },
        output_sequence: layer.sequence,
        recurrent_activation,
        cell_activation,
        activation,
        clip: None,
    };
    Ok(n.ops(op)?.to_vec())
}

fn direction(d: &Direction) -> ops::Direction {
    if d.reverse { ops::Direction::Reverse } else { ops::Direction::Forward }
}
