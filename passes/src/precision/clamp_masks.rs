//! Masks of attention that half precision does not hold.

use super::{half::MOST, moves::MOVES};
use crate::{Pass, PassCx, PassError, Run};
use mlconv_mil::{
    ir::{Function, OpId, Use, Value},
    ops::{Add, Cast, Const, Mul, ScaledDotProductAttention, Softmax, Sub},
};
use mlconv_tensor::{DType, Tensor};
use std::collections::HashMap;

pub(crate) static PASS: Pass = Pass {
    name: "clamp_masks",
    doc: "Replaces the great negative numbers of masks, such as -3.4e38, which half precision does not hold, where they do nothing but keep elements out of a softmax.",
    changes_precision: true,
    after: &["const_elimination", "fuse_attention"],
    run: Run::Function(run),
};

/// What is added to a score that takes no part. Its exponential is zero, twice as much is no infinity, and where nothing in
/// a row takes part, scores of up to 8 are so small beside it that all elements are alike, as in single precision.
const EXCLUDED: f64 = -30_000.0;

/// Elements of a mask that is looked at.
const MAX_MASK: usize = 1 << 24;

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        let mut known = HashMap::new();
        for id in cx.module.functions[index].all_ops() {
            let f = &cx.module.functions[index];
            let Some(old) = f.op::<Const>(id) else { continue };
            // Most constants are ruled out by their first reader, which costs less than to look at their elements.
            if !cx.may_edit() || !only_masks(f, f.op_data(id).results[0], &mut known) {
                continue;
            }
            let Some(clamped) = clamped(&old.val) else { continue };
            cx.fired(index, id, "");
            let origin = cx.module.functions[index].op_data(id).origin;
            let origin = origin.map(|o| cx.module.origins.rewritten(cx.pass, [o]));
            let replaced = cx.module.functions[index].replace_op(id, Box::new(Const { val: clamped }), origin);
            replaced.map_err(|e| PassError::new(cx.pass, &e))?;
            cx.edited();
        }
    }
    Ok(())
}

/// A constant whose numbers fit but for great negative ones, with these replaced.
fn clamped(t: &Tensor) -> Option<Tensor> {
    if t.dtype() != DType::F32 || t.count() > MAX_MASK {
        return None;
    }
    let mut values = t.to_f64();
    let any = |holds: &dyn Fn(f64) -> bool| values.iter().any(|x| x.is_finite() && holds(*x));
    // What is excluded must stay below whatever else there is.
    if !any(&|x| x < -MOST) || any(&|x| x > MOST) || any(&|x| (-MOST..EXCLUDED).contains(&x)) {
        return None;
    }
    values.iter_mut().filter(|x| x.is_finite() && **x < -MOST).for_each(|x| *x = EXCLUDED);
    Some(Tensor::from_f64(DType::F32, t.shape(), &values))
}

/// Whether everything that reads `v` adds it to the scores of a softmax in the end.
fn only_masks(f: &Function, v: Value, known: &mut HashMap<Value, bool>) -> bool {
    let mut todo = vec![v];
    let mut seen = vec![];
    let mut fits = true;
    while let Some(v) = todo.pop().filter(|_| fits) {
        if let Some(found) = known.get(&v) {
            fits &= *found;
            continue;
        }
        // What was seen on the way counts only where all of it holds.
        known.insert(v, true);
        seen.push(v);
        let goes_on = |at: &Use| match at {
            Use::Op(id) => reader(f, *id, v),
            Use::Yield(_) => None,
        };
        let uses: Option<Vec<Vec<Value>>> = f.uses(v).iter().map(goes_on).collect();
        fits &= uses.is_some();
        todo.extend(uses.into_iter().flatten().flatten());
    }
    if !fits {
        seen.into_iter().for_each(|v| _ = known.insert(v, false));
    }
    fits
}

/// The values in which a mask goes on that the op reads as `v`; `None` where it is used as something else.
fn reader(f: &Function, id: OpId, v: Value) -> Option<Vec<Value>> {
    let data = f.op_data(id);
    let results = || Some(data.results.to_vec());
    if f.op::<Softmax>(id).is_some() {
        return Some(vec![]);
    }
    if let Some(op) = f.op::<ScaledDotProductAttention>(id) {
        return (op.query != v && op.key != v && op.value != v).then(Vec::new);
    }
    if let Some(op) = f.op::<Mul>(id) {
        let other = if op.x == v { op.y } else { op.x };
        return if is_choice(f, other) { results() } else { None };
    }
    if f.op::<Add>(id).is_some() || MOVES.contains(&data.op.name()) {
        return results();
    }
    None
}

/// Whether `v` is 0 or 1 for each element, as far as masks that are given as integers are.
fn is_choice(f: &Function, mut v: Value) -> bool {
    loop {
        let Some(id) = f.def_op(v) else { return false };
        if let Some(cast) = f.op::<Cast>(id) {
            let from = f.ty(cast.x).tensor().map(|t| t.dtype);
            if from.is_some_and(|d| d == DType::Bool || d.is_int()) {
                return true;
            }
            v = cast.x;
        } else if let Some(sub) = f.op::<Sub>(id) {
            let one = f.constant(sub.x).is_some_and(|t| t.count() == 1 && t.to_f64() == [1.0]);
            if !one {
                return false;
            }
            v = sub.y;
        } else if let Some(t) = f.constant(v) {
            return t.count() <= MAX_MASK && t.to_f64().iter().all(|x| *x == 0.0 || *x == 1.0);
        } else {
            let op = &f.op_data(id).op;
            if !MOVES.contains(&op.name()) || ["concat", "select", "stack"].contains(&op.name()) {
                return false;
            }
            let mut first = None;
            op.visit_operands(&mut |o| first = first.or(Some(o)));
            let Some(next) = first else { return false };
            v = next;
        }
    }
}
