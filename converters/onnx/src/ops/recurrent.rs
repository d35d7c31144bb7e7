//! Recurrent layers.
//!
//! What the attributes and inputs say.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops, schema::Opset};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered, Size,
    layers::recurrent::{Direction, Kind, Layer, runs},
};
use mlconv_tensor::DType;

mod function;

rows! {
    "GRU" 7..=LATEST => |n| lower(n, Kind::Gru);
    "LSTM" 7..=LATEST => |n| lower(n, Kind::Lstm);
    "RNN" 7..=LATEST => |n| lower(n, Kind::Rnn);
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// What the function called `name`, with these numbers in place of its own, makes of `x`; `None` where there is none.
pub(super) fn apply_named(n: &mut Lower<'_>, x: Value, name: &str, numbers: [Option<f32>; 2]) -> Result<Option<Value>> {
    function::named(name, numbers).map(|function| function.apply(n, x)).transpose()
}

fn lower(n: &mut Lower<'_>, kind: Kind) -> Lowered {
    let dtype = n.input(0).and_then(|x| n.dtype(x))?;
    let batch_first = match n.int_or("layout", 0)? {
        0 => false,
        1 => true,
        _ => return n.bad_attr("layout", "0 or 1"),
    };
    let layer = read(n, kind, batch_first)?;
    let runs = runs(n, &layer)?;
    let mut results = vec![];
    if layer.sequence {
        let mut values: Vec<Value> = runs.iter().filter_map(|r| r.sequence).collect();
        if batch_first {
            values = values.into_iter().map(|v| n.transpose(v, &[1, 0, 2])).collect::<Result<_>>()?;
        }
        results.push(Some(stack(n, values, if batch_first { 2 } else { 1 })?));
    } else {
        results.push(None);
    }
    for i in 0..if kind == Kind::Lstm { 2 } else { 1 } {
        let values: Vec<Value> = runs.iter().filter_map(|r| r.state.get(i).copied()).collect();
        let wanted = n.wants(i + 1);
        results.push(if wanted { Some(stack(n, values, i64::from(batch_first))?) } else { None });
    }
    let count = n.output_count();
    let entry = |r: Option<Value>| r.map_or(Ok(Entry::Poisoned), |v| n.cast(v, dtype).map(Entry::Value));
    results.into_iter().take(count).map(entry).collect()
}

fn read(n: &mut Lower<'_>, kind: Kind, batch_first: bool) -> Result<Layer> {
    let mut x = read_float(n, 0)?.ok_or(LowerError::MissingInput { index: 0 })?;
    if batch_first {
        x = n.transpose(x, &[1, 0, 2])?;
    }
    if n.rank(x)? != 3 {
        return Err(LowerError::form("a sequence that is not of rank 3"));
    }
    let reverse: &[bool] = match n.str_or("direction", "forward")? {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        _ => return n.bad_attr("direction", "`forward`, `reverse` or `bidirectional`"),
    };
    let need = |v: Option<Value>, index| v.ok_or(LowerError::MissingInput { index });
    let (w, r) = (need(read_float(n, 1)?, 1)?, need(read_float(n, 2)?, 2)?);
    let hidden = match n.shape(r)?.last().and_then(|d| d.as_known()) {
        Some(hidden) if (1..1 << 31).contains(&hidden) => hidden,
        _ => return Err(LowerError::NotFixed { what: "the hidden size".into() }),
    };
    if n.int("hidden_size")?.is_some_and(|size| size != hidden) {
        return n.bad_attr("hidden_size", hidden.to_string());
    }
    let clip = n.float("clip")?.filter(|c| *c != 0.0);
    if clip.is_some_and(|c| c.is_nan() || c < 0.0) {
        return n.bad_attr("clip", "at least 0");
    }
    let (bias, peephole) = (read_float(n, 3)?, if kind == Kind::Lstm { read_float(n, 7)? } else { None });
    let initial = [read_float(n, 5)?, if kind == Kind::Lstm { read_float(n, 6)? } else { None }];
    let functions = function::read(n, kind.functions(), reverse.len())?;
    let size = kind.gates() * hidden;
    let mut directions = vec![];
    for (at, (reverse, functions)) in reverse.iter().zip(functions).enumerate() {
        let biases = match bias {
            Some(bias) => {
                let bias = item(n, bias, 0, at)?;
                Some([n.slice(bias, 0, 0, Some(size))?, n.slice(bias, 0, size, Some(2 * size))?])
            }
            None => None,
        };
        let mut state = vec![];
        for given in &initial[..if kind == Kind::Lstm { 2 } else { 1 }] {
            state.push(match given {
                Some(v) => item(n, *v, usize::from(batch_first), at)?,
                None => n.zeros(x, &[Size::Of(x, 1), Size::Known(hidden)])?,
            });
        }
        let (w, r) = (item(n, w, 0, at)?, item(n, r, 0, at)?);
        let peephole = peephole.map(|p| item(n, p, 0, at)).transpose()?;
        directions.push(Direction { reverse: *reverse, w, r, biases, peephole, projection: None, state, functions });
    }
    Ok(Layer {
        kind,
        lengths: read_lengths(n, x)?,
        x,
        hidden,
        directions,
        clip,
        coupled: kind == Kind::Lstm && n.flag("input_forget", false)?,
        reset_after: kind == Kind::Gru && n.flag("linear_before_reset", false)?,
        sequence: n.wants(0),
    })
}

/// Input `i` in the type to compute in: Core ML's layers take half precision only since iOS17.
fn read_float(n: &mut Lower<'_>, i: usize) -> Result<Option<Value>> {
    let Some(v) = n.optional(i)? else { return Ok(None) };
    if n.opset() < Opset::Ios17 { n.cast(v, DType::F32).map(Some) } else { Ok(Some(v)) }
}

/// The lengths of the sequences, where not all are known to be that of `x`.
fn read_lengths(n: &mut Lower<'_>, x: Value) -> Result<Option<Value>> {
    let Some(lengths) = n.optional(4)? else { return Ok(None) };
    let steps = n.shape(x)?[0].as_known();
    let full = n.known_ints(lengths).is_some_and(|known| known.iter().all(|l| Some(*l) == steps));
    Ok((!full).then_some(lengths))
}

/// `v[at]` along `axis`.
fn item(n: &mut Lower<'_>, v: Value, axis: usize, at: usize) -> Result<Value> {
    if axis == 0
        && let Some(t) = n.const_of(v)
        && let Some(row) = t.rows(at..at + 1)
    {
        let row = row.reshape(&t.shape()[1..]);
        return n.add_given(row);
    }
    let at = at as i64;
    let part = n.slice(v, axis, at, Some(at + 1))?;
    n.squeeze(part, &[axis as i64])
}

/// The values along a new axis.
fn stack(n: &mut Lower<'_>, values: Vec<Value>, axis: i64) -> Result<Value> {
    match values.as_slice() {
        [one] => n.expand_dims(*one, &[axis]),
        _ => n.op(ops::Stack { values, axis }),
    }
}
