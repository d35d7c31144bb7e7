//! Recurrent layers and their cells.

mod packed;

use super::linear::layer as product;
use mlconv_mil::{ir::Value, ops, schema::Opset};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered,
    layers::recurrent::{Direction, Function, Kind, Layer, gates, runs},
};
use mlconv_tensor::DType;

aten! {
    "lstm.input(Tensor input, Tensor[] hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor, Tensor)",
    "lstm.data(Tensor data, Tensor batch_sizes, Tensor[] hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional) -> (Tensor, Tensor, Tensor)" => |n| stacked(n, Kind::Lstm, &[Function::Sigmoid, Function::Tanh, Function::Tanh]);
    "gru.input(Tensor input, Tensor hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)",
    "gru.data(Tensor data, Tensor batch_sizes, Tensor hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional) -> (Tensor, Tensor)" => |n| stacked(n, Kind::Gru, &[Function::Sigmoid, Function::Tanh]);
    "rnn_tanh.input(Tensor input, Tensor hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)",
    "rnn_tanh.data(Tensor data, Tensor batch_sizes, Tensor hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional) -> (Tensor, Tensor)" => |n| stacked(n, Kind::Rnn, &[Function::Tanh]);
    "rnn_relu.input(Tensor input, Tensor hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)",
    "rnn_relu.data(Tensor data, Tensor batch_sizes, Tensor hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional) -> (Tensor, Tensor)" => |n| stacked(n, Kind::Rnn, &[Function::Relu]);
    "_pack_padded_sequence(Tensor input, Tensor lengths, bool batch_first) -> (Tensor, Tensor)" => packed::pack;
    "_pad_packed_sequence(Tensor data, Tensor batch_sizes, bool batch_first, Scalar padding_value, SymInt total_length) -> (Tensor, Tensor)" => packed::pad;
    "lstm_cell(Tensor input, Tensor[] hx, Tensor w_ih, Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None) -> (Tensor, Tensor)" => lstm_cell;
    "gru_cell(Tensor input, Tensor hx, Tensor w_ih, Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None) -> Tensor" => gru_cell;
    "rnn_tanh_cell(Tensor input, Tensor hx, Tensor w_ih, Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None) -> Tensor" => |n| { let [a, b] = sums(n)?; let x = n.add(a, b)?; n.emit(ops::Tanh { x }) };
    "rnn_relu_cell(Tensor input, Tensor hx, Tensor w_ih, Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None) -> Tensor" => |n| { let [a, b] = sums(n)?; let x = n.add(a, b)?; n.emit(ops::Relu { x }) };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Layers beyond which a stack is refused.
const MAX_LAYERS: i64 = 1 << 10;

/// The places of gates in weights, in the order that layers have here.
fn order(kind: Kind) -> &'static [i64] {
    match kind {
        // Reset, update, new.
        Kind::Gru => &[1, 0, 2],
        // Input, forget, cell, output.
        Kind::Lstm => &[0, 3, 1, 2],
        Kind::Rnn => &[0],
    }
}

/// Layers one after the other, each in one direction or in both.
fn stacked(n: &mut Lower<'_>, kind: Kind, functions: &[Function]) -> Lowered {
    if n.flag("train", false)? && n.number("dropout")?.unwrap_or(0.0) != 0.0 {
        return Err(LowerError::form_but("dropout while training", "export the model in the mode for evaluation"));
    }
    n.ignore("dropout");
    let (biases, both) = (n.flag("has_biases", true)?, n.flag("bidirectional", false)?);
    let (count, batch_first) = (n.int_or("num_layers", 1)?, n.flag("batch_first", false)?);
    let packed = if n.has("batch_sizes") { Some(packed::Packed::given(n)?) } else { None };
    let mut x = match &packed {
        Some(packed) => packed.padded(n)?,
        None => n.value("input")?,
    };
    let params = n.values("params")?;
    let states = if kind == Kind::Lstm { n.values("hx")? } else { vec![n.value("hx")?] };
    let (directions, mut each) = (if both { 2 } else { 1 }, if biases { 4 } else { 2 });
    if !(1..=MAX_LAYERS).contains(&count) {
        return n.bad_attr("num_layers", "at least 1");
    }
    let count = count as usize;
    // One weight more projects the output.
    let projects = kind == Kind::Lstm && params.len() == count * directions * (each + 1);
    each += usize::from(projects);
    if params.len() != count * directions * each || n.rank(x)? != 3 {
        return Err(LowerError::form(format!("{} weights of layers of {}", params.len(), n.ty(x)?)));
    }
    let source = n.dtype(x)?;
    // Core ML's layers take half precision only since iOS 17.
    let dtype = if n.opset() < Opset::Ios17 { DType::F32 } else { source };
    x = n.cast(x, dtype)?;
    if batch_first && packed.is_none() {
        x = n.transpose(x, &[1, 0, 2])?;
    }
    let lengths = match &packed {
        Some(packed) => packed.lengths(n)?,
        None => None,
    };
    let mut params = params.into_iter();
    let mut last: Vec<Vec<Value>> = vec![vec![]; states.len()];
    for layer in 0..count {
        let mut lines = vec![];
        let mut hidden = 1;
        for reverse in [false, true].into_iter().take(directions) {
            let mut next = || params.next().ok_or(LowerError::Poisoned);
            let (w, r) = (next()?, next()?);
            let own = if biases { Some([next()?, next()?]) } else { None };
            let projection = if projects { Some(next()?) } else { None };
            let rows = n.shape(r)?.first().and_then(|d| d.as_known());
            hidden = match rows.map(|rows| rows / kind.gates()) {
                Some(hidden) if (1..1 << 31).contains(&hidden) => hidden,
                _ => return Err(LowerError::NotFixed { what: "the size of a state".into() }),
            };
            let mut weight = |v: Value| {
                let v = n.cast(v, dtype)?;
                gates(n, v, hidden, order(kind))
            };
            let (w, r) = (weight(w)?, weight(r)?);
            let biases = match own {
                Some([a, b]) => Some([weight(a)?, weight(b)?]),
                None => None,
            };
            let mut state = vec![];
            for v in &states {
                let at = (layer * directions + usize::from(reverse)) as i64;
                let v = n.cast(*v, dtype)?;
                let one = n.slice(v, 0, at, Some(at + 1))?;
                state.push(n.squeeze(one, &[0])?);
            }
            let projection = projection.map(|p| n.cast(p, dtype)).transpose()?;
            let functions = functions.to_vec();
            lines.push(Direction { reverse, w, r, biases, peephole: None, projection, state, functions });
        }
        let layer = Layer {
            kind,
            x,
            hidden,
            directions: lines,
            lengths,
            clip: None,
            coupled: false,
            reset_after: kind == Kind::Gru,
            sequence: true,
        };
        let runs = runs(n, &layer)?;
        x = n.concat(runs.iter().filter_map(|r| r.sequence).collect(), 2)?;
        for run in &runs {
            for (all, one) in last.iter_mut().zip(&run.state) {
                all.push(*one);
            }
        }
    }
    if let Some(packed) = &packed {
        x = packed.packed(n, x)?;
    } else if batch_first {
        x = n.transpose(x, &[1, 0, 2])?;
    }
    let mut out = vec![Entry::Value(n.cast(x, source)?)];
    for values in last {
        let all = match values.as_slice() {
            [one] => n.expand_dims(*one, &[0])?,
            _ => n.op(ops::Stack { values, axis: 0 })?,
        };
        out.push(Entry::Value(n.cast(all, source)?));
    }
    Ok(out)
}

/// What a cell takes from its input and from its state.
fn sums(n: &mut Lower<'_>) -> Result<[Value; 2]> {
    let (x, w, r) = (n.value("input")?, n.value("w_ih")?, n.value("w_hh")?);
    let (b, c) = (n.maybe("b_ih")?, n.maybe("b_hh")?);
    let h = match n.values("hx") {
        Ok(states) => states.first().copied().ok_or(LowerError::MissingAttr { name: "hx" })?,
        Err(_) => n.value("hx")?,
    };
    Ok([product(n, x, w, b)?, product(n, h, r, c)?])
}

fn parts(n: &mut Lower<'_>, v: Value, count: i64) -> Result<Vec<Value>> {
    let parts = n.ops(ops::Split { x: v, num_splits: Some(count), split_sizes: None, axis: -1 })?;
    Ok(parts.to_vec())
}

fn lstm_cell(n: &mut Lower<'_>) -> Lowered {
    let [a, b] = sums(n)?;
    let Some(c) = n.values("hx")?.get(1).copied() else { return Err(LowerError::MissingAttr { name: "hx" }) };
    let sum = n.add(a, b)?;
    let [input, forget, cell, output] = parts(n, sum, 4)?[..] else { return Err(LowerError::Poisoned) };
    let input = n.op(ops::Sigmoid { x: input })?;
    let forget = n.op(ops::Sigmoid { x: forget })?;
    let cell = n.op(ops::Tanh { x: cell })?;
    let output = n.op(ops::Sigmoid { x: output })?;
    let (kept, added) = (n.mul(forget, c)?, n.mul(input, cell)?);
    let c = n.add(kept, added)?;
    let shown = n.op(ops::Tanh { x: c })?;
    let h = n.mul(output, shown)?;
    Ok(vec![Entry::Value(h), Entry::Value(c)])
}

/// The reset gate is applied to the product with the state.
fn gru_cell(n: &mut Lower<'_>) -> Lowered {
    let ([a, b], h) = (sums(n)?, n.value("hx")?);
    let [reset, update, new] = parts(n, a, 3)?[..] else { return Err(LowerError::Poisoned) };
    let [reset_of, update_of, new_of] = parts(n, b, 3)?[..] else { return Err(LowerError::Poisoned) };
    let (reset, update) = (n.add(reset, reset_of)?, n.add(update, update_of)?);
    let (reset, update) = (n.op(ops::Sigmoid { x: reset })?, n.op(ops::Sigmoid { x: update })?);
    let kept = n.mul(reset, new_of)?;
    let new = n.add(new, kept)?;
    let new = n.op(ops::Tanh { x: new })?;
    let change = n.sub(h, new)?;
    let change = n.mul(update, change)?;
    n.emit(ops::Add { x: new, y: change })
}
