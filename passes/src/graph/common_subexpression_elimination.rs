//! Computes once what is computed several times.

use crate::{Pass, PassCx, PassError, Run};
use mlconv_mil::{
    ir::{Function, OpId, Value},
    ops::{Const, Unknown},
    schema::{Arg, Attr, Effect, NamedArg, Op},
};
use mlconv_tensor::Tensor;
use std::{
    any::Any,
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

pub(crate) static PASS: Pass = Pass {
    name: "common_subexpression_elimination",
    doc: "Computes once what equal ops compute of equal operands, and keeps one of equal constants; random numbers and states stay as they are.",
    changes_precision: false,
    after: &[],
    run: Run::Function(run),
};

/// Bytes up to which constants are compared by what they hold; larger ones are equal where they are one storage.
const MAX_BYTES: usize = 1 << 12;

/// What is known at a place: by a hash of what they compute, the ops that stand before it.
type Known = HashMap<u64, Vec<OpId>>;

/// What is next in a walk through a function.
enum Step {
    /// An op, and those behind it in its block.
    From(Option<OpId>),
    /// The beginning of a block.
    Open,
    /// The end of a block, where what it computes is forgotten.
    Close,
}

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        let mut known = Known::new();
        // What each block that is open has added.
        let mut open: Vec<Vec<u64>> = vec![vec![]];
        let mut steps = vec![Step::From(cx.module.functions[index].ops().next())];
        let mut outputs: HashSet<Value> = cx.module.functions[index].outputs().iter().copied().collect();
        while let Some(step) = steps.pop() {
            let id = match step {
                Step::From(Some(id)) => id,
                Step::From(None) => continue,
                Step::Open => {
                    open.push(vec![]);
                    continue;
                }
                Step::Close => {
                    for key in open.pop().unwrap_or_default() {
                        known.get_mut(&key).map(Vec::pop);
                    }
                    continue;
                }
            };
            let f = &cx.module.functions[index];
            let op = &*f.op_data(id).op;
            steps.push(Step::From(f.next_op(id)));
            op.visit_regions(&mut |b| steps.extend([Step::Close, Step::From(f.ops_in(b).next()), Step::Open]));
            if !is_pure(op) {
                continue;
            }
            let key = key(op);
            let same = known.get(&key).into_iter().flatten().find(|other| equal(f, **other, id));
            match same.copied() {
                Some(other) if cx.may_edit() => merge(cx, index, other, id, &mut outputs),
                Some(_) => {}
                None => {
                    known.entry(key).or_default().push(id);
                    open.last_mut().into_iter().for_each(|keys| keys.push(key));
                }
            }
        }
    }
    Ok(())
}

/// Whether an op is nothing but its results, and these follow from its arguments.
fn is_pure(op: &dyn Op) -> bool {
    let mut blocks = 0;
    op.visit_regions(&mut |_| blocks += 1);
    let known = !(op as &dyn Any).is::<Unknown>();
    known && blocks == 0 && op.schema().effect == Effect::None && !op.schema().constexpr
}

/// What equal ops have in common, without a look at large constants.
fn key(op: &dyn Op) -> u64 {
    let mut hasher = DefaultHasher::new();
    op.name().hash(&mut hasher);
    for NamedArg { name, arg, .. } in op.args() {
        name.hash(&mut hasher);
        match arg {
            Arg::Operands(values) => values.hash(&mut hasher),
            Arg::Attr(attr) => hash_attr(attr.as_ref(), &mut hasher),
            Arg::Region(_) => {}
        }
    }
    hasher.finish()
}

fn hash_attr(attr: Option<&Attr>, hasher: &mut DefaultHasher) {
    match attr {
        None => {}
        Some(Attr::Int(n)) => n.hash(hasher),
        Some(Attr::Bool(b)) => b.hash(hasher),
        Some(Attr::Str(s)) => s.hash(hasher),
        Some(Attr::Ints(v)) => v.hash(hasher),
        Some(Attr::Bools(v)) => v.hash(hasher),
        Some(Attr::Strs(v)) => v.hash(hasher),
        Some(Attr::Float(x)) => x.to_bits().hash(hasher),
        Some(Attr::Floats(v)) => v.iter().for_each(|x| x.to_bits().hash(hasher)),
        Some(Attr::Tensor(t)) => {
            (t.dtype().name(), t.shape()).hash(hasher);
            if is_small(t) {
                t.blob().read().hash(hasher);
            } else {
                t.blob().storage().hash(hasher);
            }
        }
    }
}

fn is_small(t: &Tensor) -> bool {
    t.blob().len() <= MAX_BYTES
}

/// Whether two ops compute the same; sizes that depend on data have a name for each op, and so types that differ.
fn equal(f: &Function, a: OpId, b: OpId) -> bool {
    let (first, second) = (f.op_data(a), f.op_data(b));
    let types = |(x, y): (&Value, &Value)| f.ty(*x) == f.ty(*y);
    let same = match (f.op::<Const>(a), f.op::<Const>(b)) {
        (Some(a), Some(b)) => equal_constants(&a.val, &b.val),
        _ => first.op.same(&*second.op),
    };
    same && first.results.iter().zip(&second.results).all(types)
}

fn equal_constants(a: &Tensor, b: &Tensor) -> bool {
    let same_bytes = || a.blob().same_storage(b.blob()) || is_small(a) && a.blob().read() == b.blob().read();
    a.dtype() == b.dtype() && a.shape() == b.shape() && same_bytes()
}

/// Lets whoever reads `second` read `first`.
fn merge(cx: &mut PassCx<'_>, index: usize, first: OpId, second: OpId, outputs: &mut HashSet<Value>) {
    let f = &cx.module.functions[index];
    let (kept, gone) = (f.op_data(first).clone(), f.op_data(second).clone());
    if kept.results.iter().zip(&gone.results).any(|(k, g)| outputs.contains(k) && outputs.contains(g)) {
        cx.skipped(index, second, "", "two outputs are two values");
        return;
    }
    cx.fired(index, second, "");
    let f = &mut cx.module.functions[index];
    for (k, g) in kept.results.iter().zip(&gone.results) {
        if outputs.remove(g) {
            outputs.insert(*k);
        }
        f.replace_uses(*g, *k);
    }
    f.remove(second);
    cx.edited();
}
