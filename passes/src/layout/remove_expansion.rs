//! Removes repetitions that broadcasting makes itself.

use crate::{Pass, PassCx, PassError, Run, engine::uniform};
use mlconv_mil::{
    ir::{Function, OpId, Use, Value},
    ops::{Add, Matmul, Mul, Tile},
};
use mlconv_tensor::Shape;

pub(crate) static PASS: Pass = Pass {
    name: "remove_expansion",
    doc: "Removes repetitions along axes of size 1, also those by multiplication with ones, where all who read them broadcast anyway.",
    changes_precision: false,
    after: &["rank_reduction"],
    run: Run::Function(run),
};

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        for id in cx.module.functions[index].all_ops() {
            let f = &cx.module.functions[index];
            if !cx.may_edit() {
                return Ok(());
            }
            let Some(x) = expanded(f, id) else { continue };
            let result = f.op_data(id).results[0];
            if f.uses(result).is_empty() {
                continue;
            }
            if !f.uses(result).iter().all(|u| is_same_without(f, *u, result, x)) {
                cx.skipped(index, id, "", "a reader needs the repeated tensor");
                continue;
            }
            cx.fired(index, id, "");
            let f = &mut cx.module.functions[index];
            f.replace_uses(result, x);
            f.remove(id);
            cx.edited();
        }
    }
    Ok(())
}

/// The tensor that `id` repeats along axes of size 1, and does no more.
fn expanded(f: &Function, id: OpId) -> Option<Value> {
    let x = if let Some(op) = f.op::<Tile>(id) {
        op.x
    } else if let Some(op) = f.op::<Mul>(id) {
        beside(f, op.x, op.y, 1.0)?
    } else {
        let op = f.op::<Add>(id)?;
        beside(f, op.x, op.y, 0.0)?
    };
    let (from, to) = (f.ty(x).tensor()?, f.ty(*f.op_data(id).results.first()?).tensor()?);
    let lead = to.shape.rank().checked_sub(from.shape.rank())?;
    let grows = from.shape.iter().zip(&to.shape[lead..]).all(|(a, b)| a == b || a.is(1));
    (grows && from.dtype == to.dtype && from.shape != to.shape && f.constant(x).is_none()).then_some(x)
}

/// The operand beside one whose every element is `neutral`.
fn beside(f: &Function, x: Value, y: Value, neutral: f64) -> Option<Value> {
    let is = |v: Value| uniform(f, v) == Some(neutral);
    if is(y) { Some(x) } else { is(x).then_some(y) }
}

/// Whether a reader of `v` has a result of the same shape if it reads `x` instead.
fn is_same_without(f: &Function, reader: Use, v: Value, x: Value) -> bool {
    let Use::Op(id) = reader else { return false };
    let data = f.op_data(id);
    let read = |o: Value| if o == v { x } else { o };
    let same = |shape: Option<Shape>| {
        let result = data.results.first().and_then(|r| f.ty(*r).tensor());
        data.results.len() == 1 && shape.zip(result).is_some_and(|(s, r)| s == r.shape)
    };
    if let Some(op) = f.op::<Matmul>(id) {
        let (Some(a), Some(b)) = (batch(f, read(op.x)), batch(f, read(op.y))) else { return false };
        // The matrices themselves stay as they are.
        let inner = |s: Value| f.ty(s).tensor().map(|t| t.shape[t.shape.rank().saturating_sub(2)..].to_vec());
        let own = data.results.first().and_then(|r| batch(f, *r));
        return inner(v) == inner(x) && own.is_some() && a.broadcast(&b).ok() == own;
    }
    if !data.op.schema().elementwise {
        return false;
    }
    let mut shape = Some(Shape::scalar());
    data.op.visit_operands(&mut |o| {
        let other = f.ty(read(o)).tensor().map(|t| &t.shape);
        shape = shape.take().zip(other).and_then(|(s, o)| s.broadcast(o).ok());
    });
    same(shape)
}

/// The axes of `v` before the last two, where there are two.
fn batch(f: &Function, v: Value) -> Option<Shape> {
    let shape = &f.ty(v).tensor()?.shape;
    Some(shape[..shape.rank().checked_sub(2)?].into())
}
