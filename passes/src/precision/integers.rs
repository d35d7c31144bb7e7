//! Integers that are computed with as floats.

use mlconv_mil::{
    ir::{Function, OpId, Value},
    ops::{Cast, Const},
};
use mlconv_tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};

/// Ops that give whole numbers of whole numbers.
const WHOLE: &[&str] = &[
    "abs",
    "add",
    "clip",
    "concat",
    "conv",
    "cumsum",
    "einsum",
    "expand_dims",
    "floor_div",
    "gather",
    "gather_along_axis",
    "gather_nd",
    "identity",
    "linear",
    "matmul",
    "max_pool",
    "maximum",
    "minimum",
    "mod",
    "mul",
    "pad",
    "reduce_max",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "reduce_sum_square",
    "relu",
    "reshape",
    "reverse",
    "scatter",
    "scatter_along_axis",
    "scatter_nd",
    "select",
    "sign",
    "slice_by_index",
    "slice_by_size",
    "split",
    "square",
    "squeeze",
    "stack",
    "sub",
    "tile",
    "transpose",
];
/// Ops that give whole numbers, whatever they are given.
const ROUNDS: &[&str] = &["ceil", "floor", "round"];
/// Ops that mix numbers with weights: of others than whole ones, they make the floats that a model is about.
const LAYERS: &[&str] = &[
    "batch_norm",
    "conv",
    "conv_transpose",
    "einsum",
    "gru",
    "instance_norm",
    "layer_norm",
    "linear",
    "lstm",
    "matmul",
    "rnn",
    "scaled_dot_product_attention",
];

/// What is known of a float.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// It follows from integers, and is one.
    Whole,
    /// It follows from integers.
    Scaled,
}

/// The ops of which the results follow from integers and end up as integers: half precision, which counts to 2048, would
/// make others of them.
pub(super) fn exact(f: &Function) -> HashSet<OpId> {
    let all = f.all_ops();
    let mut kinds: HashMap<Value, Kind> = HashMap::new();
    for id in &all {
        if let Some(kind) = kind(f, *id, &kinds) {
            kinds.extend(f.op_data(*id).results.iter().map(|v| (*v, kind)));
        }
    }
    let ends = all.iter().filter_map(|id| f.op::<Cast>(*id).filter(|c| c.dtype.is_int()).map(|c| c.x));
    let mut todo: Vec<Value> = ends.collect();
    let mut exact = HashSet::new();
    while let Some(v) = todo.pop() {
        let Some(id) = f.def_op(v).filter(|_| kinds.contains_key(&v)) else { continue };
        if f.op::<Cast>(id).is_none() && exact.insert(id) {
            f.op_data(id).op.visit_operands(&mut |v| todo.push(v));
        }
    }
    exact
}

/// What the results of an op are, where they follow from integers.
fn kind(f: &Function, id: OpId, kinds: &HashMap<Value, Kind>) -> Option<Kind> {
    if let Some(cast) = f.op::<Cast>(id) {
        let from = f.ty(cast.x).tensor()?.dtype;
        let to_float = cast.dtype.is_float();
        return if from.is_float() {
            kinds.get(&cast.x).copied().filter(|_| to_float)
        } else {
            to_float.then_some(Kind::Whole)
        };
    }
    if f.op::<Const>(id).is_some() {
        return None;
    }
    let op = &f.op_data(id).op;
    let name = op.name();
    let (mut floats, mut any, mut whole) = (true, false, true);
    op.visit_operands(&mut |v| {
        if f.ty(v).tensor().is_none_or(|t| t.dtype != DType::F32) {
            return;
        }
        match (kinds.get(&v), f.constant(v)) {
            (Some(kind), _) => {
                any = true;
                whole &= *kind == Kind::Whole;
            }
            (None, Some(t)) => whole &= is_whole(t),
            (None, None) => {
                floats = false;
                whole = false;
            }
        }
    });
    if !any || (!whole && LAYERS.contains(&name)) {
        return None;
    }
    // A model's own floats that meet an integer are not rounded to one by that.
    let rounds = ROUNDS.contains(&name) && floats;
    Some(if rounds || (whole && WHOLE.contains(&name)) { Kind::Whole } else { Kind::Scaled })
}

fn is_whole(t: &Tensor) -> bool {
    let mut whole = true;
    // A chunk at a time: weights may be larger than memory.
    let _ = t.blob().chunks(&mut |bytes| {
        let mut values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        whole = values.all(|x| x.fract() == 0.0);
        if whole { Ok(()) } else { Err(()) }
    });
    whole
}
