//! Recurrent layers.
//!
//! What Core ML's layers express becomes one of them for each direction. The rest is written out step by step, where the
//! number of steps is known and not too large.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops, schema::Opset};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

rows! {
    "GRU" 1..=LATEST => |n| recurrent(n, Kind::Gru);
    "LSTM" 1..=LATEST => |n| recurrent(n, Kind::Lstm);
    "RNN" 1..=LATEST => |n| recurrent(n, Kind::Rnn);
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Steps beyond which a layer is not written out.
const MAX_STEPS: i64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gru,
    Lstm,
    Rnn,
}

impl Kind {
    fn gates(self) -> i64 {
        match self {
            Self::Gru => 3,
            Self::Lstm => 4,
            Self::Rnn => 1,
        }
    }

    /// The activations of one direction where the node names none.
    fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Gru => &["Sigmoid", "Tanh"],
            Self::Lstm => &["Sigmoid", "Tanh", "Tanh"],
            Self::Rnn => &["Tanh"],
        }
    }

    /// The gates in Core ML's order, by their position in ONNX's: those are `zrh` and `iofc`.
    fn order(self) -> &'static [i64] {
        match self {
            Self::Gru => &[1, 2, 0],
            Self::Lstm => &[0, 2, 1, 3],
            Self::Rnn => &[0],
        }
    }
}

/// An activation with its factors.
#[derive(Clone, Debug, PartialEq)]
struct Activation {
    name: String,
    alpha: Option<f32>,
    beta: Option<f32>,
}

impl Activation {
    /// What Core ML's layers call it, where they have it.
    fn mil(&self) -> Option<ops::Activation> {
        let plain = |alpha: f32, beta: f32| {
            self.alpha.is_none_or(|a| (a - alpha).abs() < 1e-7) && self.beta.is_none_or(|b| (b - beta).abs() < 1e-7)
        };
        match self.name.as_str() {
            "tanh" => Some(ops::Activation::Tanh),
            "sigmoid" => Some(ops::Activation::Sigmoid),
            "relu" => Some(ops::Activation::Relu),
            "hardsigmoid" if plain(0.2, 0.5) => Some(ops::Activation::HardSigmoid),
            "affine" if plain(1.0, 0.0) => Some(ops::Activation::Linear),
            _ => None,
        }
    }

    fn of(&self, n: &mut Lower<'_>, x: Value) -> Result<Value> {
        let (alpha, beta) = (|default| self.alpha.unwrap_or(default), |default| self.beta.unwrap_or(default));
        match self.name.as_str() {
            "tanh" => n.op(ops::Tanh { x }),
            "sigmoid" => n.op(ops::Sigmoid { x }),
            "relu" => n.op(ops::Relu { x }),
            "softsign" => n.op(ops::Softsign { x }),
            "softplus" => n.op(ops::Softplus { x }),
            "hardsigmoid" => n.op(ops::SigmoidHard { x, alpha: alpha(0.2), beta: beta(0.5) }),
            "scaledtanh" => n.op(ops::ScaledTanh { x, alpha: alpha(1.0), beta: beta(1.0) }),
            "affine" => n.op(ops::LinearActivation { x, alpha: alpha(1.0), beta: beta(0.0) }),
            "leakyrelu" => n.op(ops::LeakyRelu { x, alpha: alpha(0.01) }),
            "thresholdedrelu" => n.op(ops::ThresholdedRelu { x, alpha: alpha(1.0) }),
            "elu" => n.op(ops::Elu { x, alpha: alpha(1.0) }),
            other => Err(LowerError::form(format!("the activation `{other}` of a recurrent layer"))),
        }
    }
}

/// A node as it is read, sequences being `[t, b, i]` and states `[d, b, h]`.
struct Layer {
    kind: Kind,
    x: Value,
    hidden: i64,
    /// For each direction, whether it is backwards.
    backwards: Vec<bool>,
    activations: Vec<Activation>,
    weight: Value,
    recurrence: Value,
    bias: Option<Value>,
    peephole: Option<Value>,
    /// `[d, b, h]` of the output and, for an LSTM, of the cell.
    initial: [Option<Value>; 2],
    /// `i32[b]`, where not all sequences are whole.
    lengths: Option<Value>,
    clip: Option<f32>,
    /// Whether the forget gate is what the input gate leaves.
    coupled: bool,
    /// Whether the reset gate is applied to a product, not to what it is a product of.
    linear_before_reset: bool,
}

/// What a direction, or all of them together, make: the sequence, the last output, the last cell.
struct Made {
    sequence: Value,
    last: Value,
    cell: Option<Value>,
}

fn recurrent(n: &mut Lower<'_>, kind: Kind) -> Lowered {
    n.ignore("hidden_size");
    n.ignore("output_sequence");
    let by_batch = n.flag("layout", false)?;
    let dtype = {
        let x = n.input(0)?;
        n.dtype(x)?
    };
    let layer = read(n, kind, by_batch)?;
    let made = match direct(n, &layer)? {
        Some(made) => made,
        None => stepped(n, &layer)?,
    };
    // From `[t, b, d, h]` and `[b, d, h]`.
    let (sequence_order, state_order): (&[i64], &[i64]) =
        if by_batch { (&[1, 0, 2, 3], &[0, 1, 2]) } else { (&[0, 2, 1, 3], &[1, 0, 2]) };
    let mut results = vec![];
    let orders = [(Some(made.sequence), sequence_order), (Some(made.last), state_order), (made.cell, state_order)];
    for (v, order) in orders {
        results.push(match v {
            Some(v) => {
                let v = n.transpose(v, order)?;
                Entry::Value(n.cast(v, dtype)?)
            }
            None => Entry::Poisoned,
        });
    }
    results.truncate(n.output_count());
    Ok(results)
}

fn read(n: &mut Lower<'_>, kind: Kind, by_batch: bool) -> Result<Layer> {
    let backwards = match n.str_or("direction", "forward")? {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        _ => return n.bad_attr("direction", "`forward`, `reverse` or `bidirectional`"),
    };
    let mut activations = vec![];
    let names = n.strs("activations")?.unwrap_or_default();
    let (alphas, betas) = (n.floats("activation_alpha")?, n.floats("activation_beta")?);
    for (i, default) in backwards.iter().flat_map(|_| kind.activations()).enumerate() {
        let of = |v: &Option<Vec<f32>>| v.as_ref().and_then(|v| v.get(i)).copied();
        let name = names.get(i).map_or(*default, String::as_str).to_lowercase();
        activations.push(Activation { name, alpha: of(&alphas), beta: of(&betas) });
    }
    let lstm = kind == Kind::Lstm;
    let mut x = n.input(0)?;
    // Layers on halves came with iOS 17.
    let float = if n.opset() < Opset::Ios17 { DType::F32 } else { n.dtype(x)? };
    let mut get = |i: usize| -> Result<Option<Value>> {
        let v = n.optional(i)?;
        v.map(|v| n.cast(v, float)).transpose()
    };
    let missing = |index| LowerError::MissingInput { index };
    x = get(0)?.unwrap_or(x);
    let (weight, recurrence) = (get(1)?.ok_or_else(|| missing(1))?, get(2)?.ok_or_else(|| missing(2))?);
    let bias = get(3)?;
    let mut initial = [get(5)?, if lstm { get(6)? } else { None }];
    let peephole = if lstm { get(7)? } else { None };
    if [x, weight, recurrence].iter().any(|v| n.rank(*v).ok() != Some(3)) {
        return Err(LowerError::form("a recurrent layer on tensors that are not of rank 3"));
    }
    if by_batch {
        x = n.transpose(x, &[1, 0, 2])?;
        for v in initial.iter_mut().flatten() {
            *v = n.transpose(*v, &[1, 0, 2])?;
        }
    }
    let hidden = n.shape(recurrence)?[2].as_known().filter(|h| (1..1 << 24).contains(h));
    let hidden = hidden.ok_or_else(|| LowerError::NotFixed { what: "the size of the state".into() })?;
    let gates = n.shape(recurrence)?;
    if !gates[0].is(backwards.len() as i64) || !gates[1].is(kind.gates() * hidden) {
        return Err(LowerError::form(format!("a recurrence of shape {gates}")));
    }
    let steps = n.shape(x)?[0].as_known();
    let lengths = match n.optional(4)? {
        Some(v) if n.known_ints(v).is_none_or(|l| l.iter().any(|l| Some(*l) != steps)) => Some(v),
        _ => None,
    };
    Ok(Layer {
        kind,
        x,
        hidden,
        backwards,
        activations,
        weight,
        recurrence,
        bias,
        peephole,
        initial,
        lengths,
        clip: n.float("clip")?.filter(|c| *c > 0.0),
        coupled: lstm && n.flag("input_forget", false)?,
        linear_before_reset: kind == Kind::Gru && n.flag("linear_before_reset", false)?,
    })
}

/// The part of `v` that belongs to a direction, without the axis of directions.
fn of_direction(n: &mut Lower<'_>, v: Value, direction: usize) -> Result<Value> {
    let part = if n.shape(v)?.first().is_some_and(|d| d.is(1)) { v } else { n.slice(v, 0, direction as i64, Some(direction as i64 + 1))? };
    n.squeeze(part, &[0])
}

/// The gates along axis 0 in another order.
fn reordered(n: &mut Lower<'_>, v: Value, hidden: i64, order: &[i64]) -> Result<Value> {
    if order.len() < 2 {
        return Ok(v);
    }
    let mut parts = vec![];
    for gate in order {
        parts.push(n.slice(v, 0, gate * hidden, Some((gate + 1) * hidden))?);
    }
    n.concat(parts, 0)
}

impl Layer {
    /// The state before the first step, `[b, h]`.
    fn first(&self, n: &mut Lower<'_>, which: usize, direction: usize) -> Result<Value> {
        match self.initial[which] {
            Some(v) => of_direction(n, v, direction),
            None => {
                let shape = n.sizes(&[Size::Of(self.x, 1), Size::Known(self.hidden)])?;
                let zero = n.scalar_like(self.x, 0.0)?;
                n.op(ops::Fill { shape, value: Some(zero) })
            }
        }
    }

    /// The two halves of the bias.
    fn biases(&self, n: &mut Lower<'_>, direction: usize) -> Result<Option<(Value, Value)>> {
        let Some(bias) = self.bias else { return Ok(None) };
        let (bias, half) = (of_direction(n, bias, direction)?, self.kind.gates() * self.hidden);
        Ok(Some((n.slice(bias, 0, 0, Some(half))?, n.slice(bias, 0, half, None)?)))
    }

    fn activations_of(&self, direction: usize) -> &[Activation] {
        let count = self.kind.activations().len();
        &self.activations[direction * count..][..count]
    }
}

/// The layer as Core ML's, where it can express it.
fn direct(n: &mut Lower<'_>, layer: &Layer) -> Result<Option<Made>> {
    let constants = [Some(layer.weight), Some(layer.recurrence), layer.bias, layer.peephole];
    let expressible = layer.activations.iter().all(|a| a.mil().is_some())
        && constants.into_iter().flatten().all(|v| n.const_of(v).is_some())
        && layer.lengths.is_none()
        && layer.clip.is_none()
        && !layer.coupled
        && (!layer.linear_before_reset || n.opset() >= Opset::Ios18);
    if !expressible {
        return Ok(None);
    }
    if layer.kind == Kind::Lstm && layer.backwards.len() == 2 && layer.activations_of(0) == layer.activations_of(1) {
        return bidirectional_lstm(n, layer).map(Some);
    }
    let mut directions = vec![];
    for (direction, backwards) in layer.backwards.iter().enumerate() {
        directions.push(one_direction(n, layer, direction, *backwards)?);
    }
    together(n, directions).map(Some)
}

/// Both directions in one op, whose states and results are `[b, d * h]`.
fn bidirectional_lstm(n: &mut Lower<'_>, layer: &Layer) -> Result<Made> {
    let mut initial = vec![];
    for which in 0..2 {
        let both = vec![layer.first(n, which, 0)?, layer.first(n, which, 1)?];
        initial.push(n.concat(both, 1)?);
    }
    let values = lstm(n, layer, [0, 1], ops::LstmDirection::Bidirectional, [initial[0], initial[1]])?;
    let [sequence, last, cell] = values.as_slice() else { return Err(LowerError::Poisoned) };
    let (two, hidden) = (Size::Known(2), Size::Known(layer.hidden));
    let mut apart = |v: Value| n.reshape(v, &[Size::Of(layer.x, 1), two, hidden]);
    let (last, cell) = (apart(*last)?, apart(*cell)?);
    let sequence = n.reshape(*sequence, &[Size::Of(layer.x, 0), Size::Of(layer.x, 1), two, hidden])?;
    Ok(Made { sequence, last, cell: Some(cell) })
}

/// Core ML's op, with the parameters of the directions given; those of the second matter where it is bidirectional.
fn lstm(
    n: &mut Lower<'_>,
    layer: &Layer,
    directions: [usize; 2],
    direction: ops::LstmDirection,
    [initial_h, initial_c]: [Value; 2],
) -> Result<mlconv_source::Values> {
    let (hidden, order) = (layer.hidden, layer.kind.order());
    let names = layer.activations_of(directions[0]).iter().filter_map(Activation::mil).collect::<Vec<_>>();
    let [recurrent_activation, cell_activation, activation] = names.as_slice() else { return Err(LowerError::Poisoned) };
    let mut parameters = vec![];
    for which in directions {
        let of = |n: &mut Lower<'_>, v: Value, order: &[i64]| {
            let v = of_direction(n, v, which)?;
            reordered(n, v, hidden, order)
        };
        let (weight, recurrence) = (of(n, layer.weight, order)?, of(n, layer.recurrence, order)?);
        let peephole = layer.peephole.map(|p| of(n, p, &[0, 2, 1])).transpose()?;
        let bias = match layer.biases(n, which)? {
            Some((of_input, of_state)) => {
                let sum = n.add(of_input, of_state)?;
                Some(reordered(n, sum, hidden, order)?)
            }
            None => None,
        };
        parameters.push((weight, recurrence, bias, peephole));
    }
    let back = Some(parameters[1]).filter(|_| direction == ops::LstmDirection::Bidirectional);
    let (weight_ih, weight_hh, bias, peephole) = parameters[0];
    n.ops(ops::Lstm {
        x: layer.x,
        initial_h,
        initial_c,
        weight_ih,
        weight_hh,
        bias,
        peephole,
        weight_ih_back: back.map(|p| p.0),
        weight_hh_back: back.map(|p| p.1),
        bias_back: back.and_then(|p| p.2),
        peephole_back: back.and_then(|p| p.3),
        direction,
        output_sequence: true,
        recurrent_activation: *recurrent_activation,
        cell_activation: *cell_activation,
        activation: *activation,
        clip: None,
    })
}

/// The results of the directions side by side: `[t, b, d, h]` and `[b, d, h]`.
fn together(n: &mut Lower<'_>, directions: Vec<Made>) -> Result<Made> {
    let mut join = |values: Vec<Value>, axis: i64| -> Result<Value> {
        let mut apart = vec![];
        for v in values {
            apart.push(n.expand_dims(v, &[axis])?);
        }
        n.concat(apart, axis)
    };
    let cells: Option<Vec<Value>> = directions.iter().map(|d| d.cell).collect();
    Ok(Made {
        sequence: join(directions.iter().map(|d| d.sequence).collect(), 2)?,
        last: join(directions.iter().map(|d| d.last).collect(), 1)?,
        cell: cells.map(|cells| join(cells, 1)).transpose()?,
    })
}

fn one_direction(n: &mut Lower<'_>, layer: &Layer, direction: usize, backwards: bool) -> Result<Made> {
    let initial_h = layer.first(n, 0, direction)?;
    if layer.kind == Kind::Lstm {
        let initial = [initial_h, layer.first(n, 1, direction)?];
        let way = if backwards { ops::LstmDirection::Reverse } else { ops::LstmDirection::Forward };
        let values = lstm(n, layer, [direction; 2], way, initial)?;
        return forwards(n, &values, backwards);
    }
    let (x, hidden, order) = (layer.x, layer.hidden, layer.kind.order());
    let weight_ih = of_direction(n, layer.weight, direction)?;
    let weight_ih = reordered(n, weight_ih, hidden, order)?;
    let weight_hh = of_direction(n, layer.recurrence, direction)?;
    let weight_hh = reordered(n, weight_hh, hidden, order)?;
    let (mut bias, mut input_bias) = (None, None);
    if let Some((of_input, of_state)) = layer.biases(n, direction)? {
        if layer.linear_before_reset {
            bias = Some(reordered(n, of_state, hidden, order)?);
            input_bias = Some(reordered(n, of_input, hidden, order)?);
        } else {
            let sum = n.add(of_input, of_state)?;
            bias = Some(reordered(n, sum, hidden, order)?);
        }
    }
    let plain = if backwards { ops::Direction::Reverse } else { ops::Direction::Forward };
    let activations: Vec<ops::Activation> =
        layer.activations_of(direction).iter().filter_map(Activation::mil).collect();
    let output_sequence = true;
    let values = match (layer.kind, activations.as_slice()) {
        (Kind::Rnn, [activation]) => n.ops(ops::Rnn {
            x,
            initial_h,
            weight_ih,
            weight_hh,
            bias,
            direction: plain,
            output_sequence,
            activation: *activation,
        })?,
        (Kind::Gru, [gates, activation]) => n.ops(ops::Gru {
            x,
            initial_h,
            weight_ih,
            weight_hh,
            bias,
            direction: plain,
            output_sequence,
            recurrent_activation: *gates,
            activation: *activation,
            reset_after: layer.linear_before_reset,
            input_bias,
        })?,
        _ => return Err(LowerError::Poisoned),
    };
    forwards(n, &values, backwards)
}

/// The results of one direction, each at the step it was computed from.
fn forwards(n: &mut Lower<'_>, values: &[Value], backwards: bool) -> Result<Made> {
    let [sequence, last, cell @ ..] = values else { return Err(LowerError::Poisoned) };
    // Core ML puts out a sequence in the order in which it computes it.
    let sequence = if backwards { n.op(ops::Reverse { x: *sequence, axes: Some(vec![0]) })? } else { *sequence };
    Ok(Made { sequence, last: *last, cell: cell.first().copied() })
}

/// The layer written out.
fn stepped(n: &mut Lower<'_>, layer: &Layer) -> Result<Made> {
    let Some(steps) = n.shape(layer.x)?[0].as_known() else {
        return Err(LowerError::NotFixed { what: "a recurrent layer that Core ML has no op for, written out,".into() });
    };
    if !(1..=MAX_STEPS).contains(&steps) {
        return Err(LowerError::form(format!("this form of a recurrent layer over {steps} steps")));
    }
    let mut directions = vec![];
    for (direction, backwards) in layer.backwards.iter().enumerate() {
        directions.push(steps_of(n, layer, direction, *backwards, steps)?);
    }
    together(n, directions)
}

fn steps_of(n: &mut Lower<'_>, layer: &Layer, direction: usize, backwards: bool, steps: i64) -> Result<Made> {
    let (weight, recurrence) =
        (of_direction(n, layer.weight, direction)?, of_direction(n, layer.recurrence, direction)?);
    let biases = layer.biases(n, direction)?;
    let mut inputs = n.matmul(layer.x, weight, false, true)?;
    if let Some((of_input, _)) = biases {
        inputs = n.add(inputs, of_input)?;
    }
    let cell = Cell {
        hidden: layer.hidden,
        recurrence,
        bias: biases.map(|(_, of_state)| of_state),
        peephole: match layer.peephole {
            Some(p) => Some(of_direction(n, p, direction)?),
            None => None,
        },
        activations: layer.activations_of(direction).to_vec(),
    };
    let mut h = layer.first(n, 0, direction)?;
    let mut c = if layer.kind == Kind::Lstm { Some(layer.first(n, 1, direction)?) } else { None };
    let zero = n.scalar_like(layer.x, 0.0)?;
    let mut outputs = vec![];
    for step in 0..steps {
        let at = if backwards { steps - 1 - step } else { step };
        let input = n.slice(inputs, 0, at, Some(at + 1))?;
        let input = n.squeeze(input, &[0])?;
        let (mut next_h, mut next_c) = match (layer.kind, c) {
            (Kind::Lstm, Some(c)) => {
                let (h, c) = cell.lstm(n, layer, input, h, c)?;
                (h, Some(c))
            }
            (Kind::Gru, _) => (cell.gru(n, layer, input, h)?, None),
            _ => (cell.rnn(n, layer, input, h)?, None),
        };
        let mut shown = next_h;
        if let Some(lengths) = layer.lengths {
            let at = n.const_int(at)?;
            let inside = n.less(at, lengths)?;
            let inside = n.expand_dims(inside, &[1])?;
            shown = n.select(inside, next_h, zero)?;
            next_h = n.select(inside, next_h, h)?;
            if let (Some(next), Some(old)) = (next_c, c) {
                next_c = Some(n.select(inside, next, old)?);
            }
        }
        (h, c) = (next_h, next_c);
        outputs.push(n.expand_dims(shown, &[0])?);
    }
    if backwards {
        outputs.reverse();
    }
    Ok(Made { sequence: n.concat(outputs, 0)?, last: h, cell: c })
}

/// The parameters of one direction.
struct Cell {
    hidden: i64,
    recurrence: Value,
    bias: Option<Value>,
    peephole: Option<Value>,
    activations: Vec<Activation>,
}

impl Cell {
    /// What the state adds to the gates.
    fn of_state(&self, n: &mut Lower<'_>, h: Value) -> Result<Value> {
        let product = n.matmul(h, self.recurrence, false, true)?;
        match self.bias {
            Some(bias) => n.add(product, bias),
            None => Ok(product),
        }
    }

    fn gate(&self, n: &mut Lower<'_>, gates: Value, which: i64) -> Result<Value> {
        n.slice(gates, 1, which * self.hidden, Some((which + 1) * self.hidden))
    }

    /// Activation number `which` of a gate that is clipped first.
    fn activate(&self, n: &mut Lower<'_>, layer: &Layer, which: usize, x: Value) -> Result<Value> {
        let x = match layer.clip {
            Some(clip) => n.op(ops::Clip { x, alpha: -clip, beta: clip })?,
            None => x,
        };
        self.activations[which].of(n, x)
    }

    fn rnn(&self, n: &mut Lower<'_>, layer: &Layer, input: Value, h: Value) -> Result<Value> {
        let state = self.of_state(n, h)?;
        let sum = n.add(input, state)?;
        self.activate(n, layer, 0, sum)
    }

    fn gru(&self, n: &mut Lower<'_>, layer: &Layer, input: Value, h: Value) -> Result<Value> {
        let state = self.of_state(n, h)?;
        let both = n.add(input, state)?;
        let (z, r) = (self.gate(n, both, 0)?, self.gate(n, both, 1)?);
        let (z, r) = (self.activate(n, layer, 0, z)?, self.activate(n, layer, 0, r)?);
        let from_input = self.gate(n, input, 2)?;
        let from_state = if layer.linear_before_reset {
            let product = self.gate(n, state, 2)?;
            n.mul(r, product)?
        } else {
            let reset = n.mul(r, h)?;
            let weight = n.slice(self.recurrence, 0, 2 * self.hidden, None)?;
            let product = n.matmul(reset, weight, false, true)?;
            match self.bias {
                Some(bias) => {
                    let bias = n.slice(bias, 0, 2 * self.hidden, None)?;
                    n.add(product, bias)?
                }
                None => product,
            }
        };
        let sum = n.add(from_input, from_state)?;
        let new = self.activate(n, layer, 1, sum)?;
        let kept = n.mul(z, h)?;
        let share = n.scale(z, -1.0)?;
        let share = n.add_number(share, 1.0)?;
        let new = n.mul(share, new)?;
        n.add(new, kept)
    }

    fn lstm(&self, n: &mut Lower<'_>, layer: &Layer, input: Value, h: Value, c: Value) -> Result<(Value, Value)> {
        let state = self.of_state(n, h)?;
        let gates = n.add(input, state)?;
        let peek = |n: &mut Lower<'_>, gate: Value, which: i64, c: Value| match self.peephole {
            Some(p) => {
                let factor = n.slice(p, 0, which * self.hidden, Some((which + 1) * self.hidden))?;
                let seen = n.mul(factor, c)?;
                n.add(gate, seen)
            }
            None => Ok(gate),
        };
        let i = self.gate(n, gates, 0)?;
        let i = peek(n, i, 0, c)?;
        let i = self.activate(n, layer, 0, i)?;
        let f = if layer.coupled {
            let rest = n.scale(i, -1.0)?;
            n.add_number(rest, 1.0)?
        } else {
            let f = self.gate(n, gates, 2)?;
            let f = peek(n, f, 2, c)?;
            self.activate(n, layer, 0, f)?
        };
        let new = self.gate(n, gates, 3)?;
        let new = self.activate(n, layer, 1, new)?;
        let (kept, new) = (n.mul(f, c)?, n.mul(i, new)?);
        let next = n.add(kept, new)?;
        let o = self.gate(n, gates, 1)?;
        let o = peek(n, o, 1, next)?;
        let o = self.activate(n, layer, 0, o)?;
        let shown = self.activate(n, layer, 2, next)?;
        Ok((n.mul(o, shown)?, next))
    }
}
