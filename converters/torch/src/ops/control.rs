//! Operators of higher order: branches, loops, and graphs that are run as they are.

use mlconv_mil::{
    ir::{Fact, Value},
    ops,
};
use mlconv_source::{Entry, Lower, LowerError, Lowered, SourceGraph};
use mlconv_tensor::{DType, Dim};

aten! {
    "higher_order::cond(Tensor pred, Graph true_fn, Graph false_fn, Tensor[] operands) -> Tensor[]" => branch;
    "higher_order::while_loop(Graph cond_fn, Graph body_fn, Tensor[] carried_inputs, Tensor[] additional_inputs) -> Tensor[]" => repeat;
    "higher_order::scan(Graph combine_fn, Tensor[] init, Tensor[] xs, Tensor[] additional_inputs) -> Tensor[]" => |n| {
        let carried = n.values("init")?;
        let body = n.graph("combine_fn")?;
        let (xs, more) = (n.values("xs")?, n.values("additional_inputs")?);
        scan(n, body, carried, &xs, &more)
    };
    "higher_order::map_impl(Graph f, Tensor[] xs, Tensor[] pos_args) -> Tensor[]" => |n| {
        let body = n.graph("f")?;
        let (xs, more) = (n.values("xs")?, n.values("pos_args")?);
        scan(n, body, vec![], &xs, &more)
    };
    "higher_order::wrap_with_set_grad_enabled(bool enable_grad, Graph wrapped_func) -> Tensor[]" =>
        |n| { n.ignore("enable_grad"); inlined(n, "wrapped_func") };
    "higher_order::wrap_with_autocast(str device_type, ScalarType? dtype, bool enabled, bool? cache_enabled, Graph wrapped_func) -> Tensor[]" => |n| {
        for name in ["device_type", "dtype", "enabled", "cache_enabled"] {
            n.ignore(name);
        }
        inlined(n, "wrapped_func")
    };
    "higher_order::wrap(Graph wrapped_func) -> Tensor[]",
    "higher_order::tag_activation_checkpoint(Graph wrapped_func) -> Tensor[]" => |n| inlined(n, "wrapped_func");
    "higher_order::invoke_subgraph(Graph subgraph, str? identifier) -> Tensor[]" => |n| { n.ignore("identifier"); inlined(n, "subgraph") };
    "higher_order::strict_mode(Graph callable, Tensor[] operands) -> Tensor[]" => |n| {
        let (body, args) = (n.graph("callable")?, n.values("operands")?);
        n.inline(body, &args)
    };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Turns up to which a scan is written out.
const MAX_TURNS: i64 = 1024;
/// Nodes up to which a scan is written out.
const MAX_NODES: i64 = 1 << 16;

/// A graph that is run once, on the arguments behind it.
fn inlined(n: &mut Lower<'_>, name: &'static str) -> Lowered {
    let args = n.inputs_from(0)?;
    let body = n.graph(name)?;
    n.inline(body, &args)
}

/// Whether a boolean of one element holds, where that is known.
fn truth(n: &Lower<'_>, v: Value) -> Option<bool> {
    match n.known_ints(v)?.as_slice() {
        [b] => Some(*b != 0),
        _ => None,
    }
}

fn branch(n: &mut Lower<'_>) -> Lowered {
    let (yes, no) = (n.graph("true_fn")?, n.graph("false_fn")?);
    let (pred, args) = (n.value("pred")?, n.values("operands")?);
    let pred = n.cast(pred, DType::Bool)?;
    if let Some(known) = truth(n, pred) {
        return n.inline(if known { yes } else { no }, &args);
    }
    let pred = n.as_scalar(pred)?;
    let block = |n: &mut Lower<'_>, graph: &SourceGraph| {
        n.new_block(&[], |n, _| {
            let returned = n.inline(graph, &args)?;
            returned.into_iter().map(|e| n.entry_value(e)).collect()
        })
    };
    let (true_fn, false_fn) = (block(n, yes)?, block(n, no)?);
    let (a, b) = (n.f().yields(true_fn).to_vec(), n.f().yields(false_fn).to_vec());
    for (a, b) in a.iter().zip(&b) {
        let (a, b) = (n.ty(*a)?, n.ty(*b)?);
        if a.dtype != b.dtype || a.shape.rank() != b.shape.rank() {
            let help = "if the condition depends on a shape, fix that shape with `--input`";
            return Err(LowerError::form_but(format!("branches of {a} and {b} on an unknown condition"), help));
        }
    }
    n.emit(ops::Cond { pred, true_fn, false_fn })
}

fn repeat(n: &mut Lower<'_>) -> Lowered {
    let (cond, body) = (n.graph("cond_fn")?, n.graph("body_fn")?);
    let (loop_vars, more) = (n.values("carried_inputs")?, n.values("additional_inputs")?);
    if loop_vars.is_empty() {
        return Err(LowerError::form("a loop without variables"));
    }
    let mut facts = vec![];
    for v in &loop_vars {
        facts.push(Fact::of(n.ty(*v)?.clone()));
    }
    let with = |args: &[Value]| args.iter().chain(&more).copied().collect::<Vec<_>>();
    let go_on = n.new_block(&facts, |n, args| {
        let returned = n.inline(cond, &with(args))?;
        let first = returned.into_iter().next().ok_or(LowerError::Poisoned)?;
        let v = n.entry_value(first)?;
        let v = n.cast(v, DType::Bool)?;
        Ok(vec![n.as_scalar(v)?])
    })?;
    let turn = n.new_block(&facts, |n, args| {
        let returned = n.inline(body, &with(args))?;
        let mut out = vec![];
        for (e, before) in returned.into_iter().zip(args) {
            let v = n.entry_value(e)?;
            let dtype = n.dtype(*before)?;
            let v = n.cast(v, dtype)?;
            out.push(as_before(n, *before, v)?);
        }
        Ok(out)
    })?;
    if n.f().yields(turn).len() != loop_vars.len() {
        return Err(LowerError::form(format!("a loop over {} variables", loop_vars.len())));
    }
    n.emit(ops::WhileLoop { loop_vars, cond: go_on, body: turn })
}

/// What a variable of a loop becomes, in the shape that it has: a size that is only known in the loop is the one before.
fn as_before(n: &mut Lower<'_>, var: Value, next: Value) -> Result<Value> {
    let (own, new) = (n.shape(var)?, n.shape(next)?);
    let known: Option<Vec<i64>> = own.iter().map(Dim::as_known).collect();
    match known {
        Some(sizes) if own != new && own.rank() == new.rank() && own.rank() > 0 => n.reshape_to(next, &sizes),
        _ => Ok(next),
    }
}

/// One turn for each element along the first axis, written out.
fn scan(n: &mut Lower<'_>, body: &SourceGraph, mut carried: Vec<Value>, xs: &[Value], more: &[Value]) -> Lowered {
    let first = xs.first().copied().ok_or_else(|| LowerError::form("a scan over nothing"))?;
    let turns = n.shape(first)?.first().and_then(Dim::as_known);
    let turns = turns.ok_or_else(|| LowerError::NotFixed { what: "the number of turns".to_owned() })?;
    if !(1..=MAX_TURNS).contains(&turns) || turns.saturating_mul(body.nodes.len() as i64) > MAX_NODES {
        return Err(LowerError::form(format!("a scan of {turns} turns")));
    }
    let mut collected: Vec<Vec<Value>> = vec![];
    for turn in 0..turns {
        let mut args = carried.clone();
        for x in xs {
            let part = n.slice(*x, 0, turn, Some(turn + 1))?;
            args.push(n.squeeze(part, &[0])?);
        }
        args.extend(more);
        let mut returned = n.inline(body, &args)?.into_iter();
        for var in &mut carried {
            *var = n.entry_value(returned.next().unwrap_or(Entry::Poisoned))?;
        }
        for (i, e) in returned.enumerate() {
            if collected.len() <= i {
                collected.push(vec![]);
            }
            collected[i].push(n.entry_value(e)?);
        }
    }
    let mut out: Vec<Entry> = carried.into_iter().map(Entry::Value).collect();
    for values in collected {
        out.push(Entry::Value(n.op(ops::Stack { values, axis: 0 })?));
    }
    Ok(out)
}
