//! Recurrent layers.
//!
//! A layer becomes Core ML's own op where that says the same, else plain arithmetic.

mod function;
mod native;
mod steps;

use crate::{Lower, LowerError};
pub use function::Function;
use mlconv_mil::ir::Value;
use mlconv_tensor::{Blob, Bytes, Tensor};

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Kinds of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Gated recurrent units.
    Gru,
    /// Long short-term memory.
    Lstm,
    /// One function of input and state.
    Rnn,
}

impl Kind {
    /// How many gates have weights.
    pub fn gates(self) -> i64 {
        match self {
            Self::Gru => 3,
            Self::Lstm => 4,
            Self::Rnn => 1,
        }
    }

    /// The functions of one direction where the node names none.
    pub fn functions(self) -> &'static [Function] {
        match self {
            Self::Gru => &[Function::Sigmoid, Function::Tanh],
            Self::Lstm => &[Function::Sigmoid, Function::Tanh, Function::Tanh],
            Self::Rnn => &[Function::Tanh],
        }
    }
}

/// A layer, time first.
pub struct Layer {
    /// Which one.
    pub kind: Kind,
    /// `[t, b, i]`.
    pub x: Value,
    /// The size of a state.
    pub hidden: i64,
    /// What it does in each direction.
    pub directions: Vec<Direction>,
    /// `[b]`: the length of each sequence, where they may differ from `t`.
    pub lengths: Option<Value>,
    /// Bounds what functions are given.
    pub clip: Option<f32>,
    /// Whether the forget gate is one less the input gate.
    pub coupled: bool,
    /// Whether the reset gate is applied to the product with the state, not to the state.
    pub reset_after: bool,
    /// Whether the sequence of results is wanted.
    pub sequence: bool,
}

/// What a layer does in one direction. Gates are in the order of ONNX.
pub struct Direction {
    /// Whether it begins at the end.
    pub reverse: bool,
    /// `[gates * hidden, i]`.
    pub w: Value,
    /// `[gates * hidden, output]`, the output being as large as the state where it is not projected.
    pub r: Value,
    /// `[gates * hidden]`, of the input and of the state.
    pub biases: Option<[Value; 2]>,
    /// `[3 * hidden]`.
    pub peephole: Option<Value>,
    /// `[output, hidden]`: what the output of an LSTM is multiplied by before anything reads it.
    pub projection: Option<Value>,
    /// `[b, hidden]` each: the first output, and the first cell of an LSTM.
    pub state: Vec<Value>,
    /// Those of its gates.
    pub functions: Vec<Function>,
}

/// What a direction comes to.
pub struct Run {
    /// `[t, b, hidden]`, where wanted.
    pub sequence: Option<Value>,
    /// The last state.
    pub state: Vec<Value>,
}

/// `v[begin..end]`.
fn range(n: &mut Lower<'_>, v: Value, begin: i64, end: i64) -> Result<Value> {
    n.slice(v, 0, begin, Some(end))
}

/// The gates of `v` in the order that `order` says, each being `hidden` rows of it. Constants stay so, however large.
pub fn gates(n: &mut Lower<'_>, v: Value, hidden: i64, order: &[i64]) -> Result<Value> {
    if let Some(t) = n.const_of(v)
        && let Some(t) = rows_in_order(t, hidden, order)
    {
        return n.add_const(t);
    }
    let parts = order.iter().map(|g| range(n, v, g * hidden, (g + 1) * hidden)).collect::<Result<_>>()?;
    n.concat(parts, 0)
}

fn rows_in_order(t: &Tensor, hidden: i64, order: &[i64]) -> Option<Tensor> {
    let mut bytes = vec![];
    for gate in order {
        let (begin, end) = (usize::try_from(gate * hidden).ok()?, usize::try_from((gate + 1) * hidden).ok()?);
        bytes.extend_from_slice(&t.rows(begin..end)?.blob().read());
    }
    Tensor::new(t.dtype(), t.shape(), Blob::from(Bytes::from(bytes))).ok()
}

/// What each direction of a layer comes to.
pub fn runs(n: &mut Lower<'_>, layer: &Layer) -> Result<Vec<Run>> {
    match native::runs(n, layer)? {
        Some(runs) => Ok(runs),
        None => layer.directions.iter().map(|d| steps::run(n, layer, d)).collect(),
    }
}
