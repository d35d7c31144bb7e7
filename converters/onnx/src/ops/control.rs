//! Branches and loops.

use crate::LATEST;
use mlconv_mil::{
    diagnostic::Limit,
    ir::{Fact, Value},
    ops,
};
use mlconv_source::{Entry, Lower, LowerError, Lowered, SourceGraph, narrowed};
use mlconv_tensor::{DType, Dim, Tensor};

rows! {
    "If" 1..=LATEST => branch;
    "Loop" 1..=LATEST => repeat;
    "Scan" 8..=8 => scan_batches;
    "Scan" 9..=LATEST => scan;
}

/// Turns up to which a loop is written out.
const MAX_TURNS: i64 = 1024;
/// Nodes up to which a loop is written out.
const MAX_NODES: i64 = 1 << 16;

fn branch(n: &mut Lower<'_>) -> Lowered {
    let (yes, no) = (n.graph("then_branch")?, n.graph("else_branch")?);
    let condition = n.input(0)?;
    if let Some(known) = truth(n, condition) {
        let returned = n.inline(if known { yes } else { no }, &[])?;
        n.makes_returned();
        return Ok(returned);
    }
    let pred = n.as_scalar(condition)?;
    let ((true_fn, have), (false_fn, other)) = (n.block(yes)?, n.block(no)?);
    n.makes_returned();
    if let Some((a, b)) = have.iter().zip(&other).map(|(a, b)| (kind(a), kind(b))).find(|(a, b)| a != b) {
        let help = "Core ML has no sequences and no optionals; if the condition depends on a shape, fix that shape with `--input`";
        let e = LowerError::form_but(format!("branches of {a} and {b} on an unknown condition"), help);
        return Err(e.by(Limit::CoreMl));
    }
    let (a, b) = (n.f().yields(true_fn).to_vec(), n.f().yields(false_fn).to_vec());
    // Which output each tensor is; elements of sequences are none.
    let outputs: Vec<Option<usize>> = have
        .iter()
        .enumerate()
        .flat_map(|(o, e)| match e {
            Entry::Sequence(elements) => vec![None; elements.len()],
            Entry::Nothing => vec![],
            _ => vec![Some(o)],
        })
        .collect();
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        let (x, y) = (n.ty(*a)?.clone(), n.ty(*b)?.clone());
        // A number may only become a vector of one where that is what the source takes it for: other readers would see
        // another rank.
        let is_vector = outputs.get(i).copied().flatten().and_then(|o| n.stated_rank(o)) == Some(1);
        match (x.shape.rank(), y.shape.rank()) {
            _ if x.dtype != y.dtype => {}
            (p, q) if p == q => continue,
            (0, 1) if is_vector && y.shape.iter().all(|d| d.is(1)) => {
                n.yield_in_vector(true_fn, i)?;
                continue;
            }
            (1, 0) if is_vector && x.shape.iter().all(|d| d.is(1)) => {
                n.yield_in_vector(false_fn, i)?;
                continue;
            }
            _ => {}
        }
        let help = "if the condition depends on a shape, fix that shape with `--input`";
        let e = LowerError::form_but(format!("branches of {x} and {y} on an unknown condition"), help);
        return Err(e.by(Limit::CoreMl));
    }
    let tensors = if a.is_empty() { vec![] } else { n.ops(ops::Cond { pred, true_fn, false_fn })?.to_vec() };
    let mut tensors = tensors.into_iter().map(Entry::Value);
    have.into_iter()
        .map(|e| match e {
            Entry::Sequence(elements) => {
                let chosen = tensors.by_ref().take(elements.len()).collect();
                n.as_sequence(chosen)
            }
            Entry::Nothing => Ok(e),
            _ => tensors.next().ok_or(LowerError::Poisoned),
        })
        .collect()
}

/// What an entry is, as far as branches must have the same.
fn kind(e: &Entry) -> String {
    match e {
        Entry::Sequence(elements) => format!("a sequence of {}", elements.len()),
        Entry::Nothing => "an optional without an element".to_owned(),
        _ => "a tensor".to_owned(),
    }
}

/// Whether a boolean of one element holds, where that is known.
fn truth(n: &Lower<'_>, v: Value) -> Option<bool> {
    match n.known_ints(v)?.as_slice() {
        [b] => Some(*b != 0),
        _ => None,
    }
}

fn repeat(n: &mut Lower<'_>) -> Lowered {
    let body = n.graph("body")?;
    let most = match n.constant(0)? {
        Some(t) => Some(t.to_i64()),
        None => n.optional(0)?.and_then(|v| n.known_ints(v)),
    };
    let most = most.and_then(|m| m.first().copied());
    let limit = if most.is_none() { n.optional(0)? } else { None };
    let condition = n.optional(1)?;
    let vars = (2..n.input_count()).map(|i| variable(n, i)).collect::<Result<Vec<_>, _>>()?;
    let scans = body.outputs.len().checked_sub(vars.len() + 1);
    let Some(scans) = scans.filter(|_| body.inputs.len() == vars.len() + 2) else {
        return Err(LowerError::form(format!("a body of {} inputs for {} variables", body.inputs.len(), vars.len())));
    };
    let first = condition.map(|c| truth(n, c).ok_or(c));
    if first == Some(Ok(false)) {
        return written_out(n, body, vars, 0, scans);
    }
    let known_turns = limit.is_none() && !matches!(first, Some(Err(_)));
    let steady = steady(body);
    if known_turns && steady {
        let turns = most.ok_or_else(|| LowerError::not_yet("a loop without end"))?.max(0);
        if turns <= MAX_TURNS && turns.saturating_mul(body.nodes.len() as i64) <= MAX_NODES {
            return written_out(n, body, vars, turns, scans);
        }
    }
    let Some(vars) = vars.iter().map(tensor).collect::<Option<Vec<Value>>>() else {
        // Core ML's loops carry tensors only.
        if known_turns && !steady {
            return written_while(n, body, vars, most.unwrap_or(i64::MAX), scans);
        }
        return Err(unknown_turns());
    };
    let types = items(n, body, &vars, scans)?;
    let items = collected(n, vars.len(), &types)?;
    let limit = match (limit, most) {
        (Some(limit), _) => Some(n.as_scalar(limit)?),
        (None, Some(most)) => Some(n.const_int(most.min(i64::from(i32::MAX)))?),
        (None, None) => None,
    };
    let go_on = match condition {
        Some(c) => n.as_scalar(c)?,
        None => n.add_const(Tensor::from_bools(&[], [true]))?,
    };
    looped(n, body, limit, go_on, vars, &items)
}

/// The element types of what the turns of a loop give: as the source states them, else as a turn has them.
fn items(
    n: &mut Lower<'_>,
    body: &SourceGraph,
    vars: &[Value],
    scans: usize,
) -> Result<Vec<Option<DType>>, LowerError> {
    let outputs = vars.len()..vars.len() + scans;
    let stated: Vec<_> = outputs.map(|i| n.stated_output(i).and_then(|t| narrowed(t.dtype))).collect();
    if stated.iter().all(Option::is_some) {
        return Ok(stated);
    }
    let (turn, go_on) = (n.const_int(0)?, n.add_const(Tensor::from_bools(&[], [true]))?);
    let args: Vec<Value> = [turn, go_on].into_iter().chain(vars.iter().copied()).collect();
    let facts: Vec<Fact> = args.iter().map(|v| Fact::of(n.fact(*v).ty.clone())).collect();
    // Nothing reads this block: it is there for its types.
    let block = n.new_block(&facts, |n, args| {
        let returned = n.inline(body, args)?;
        returned.into_iter().skip(1 + vars.len()).map(|e| n.entry_value(e)).collect()
    })?;
    let yields = n.f().yields(block).to_vec();
    let found = yields.into_iter().map(|v| n.dtype(v).map(Some)).collect::<Result<Vec<_>, _>>()?;
    n.discard(block);
    Ok(if found.len() == scans { found } else { stated })
}

/// Where a loop puts what its turns give, one place for each turn: tensors of zeros of the shapes that the source states.
fn collected(n: &mut Lower<'_>, first: usize, types: &[Option<DType>]) -> Result<Vec<Value>, LowerError> {
    let mut out = vec![];
    for (i, dtype) in types.iter().enumerate() {
        let sizes = n.stated_sizes(first + i).filter(|s| s.iter().all(|d| *d > 0));
        let (Some(dtype), Some(sizes)) = (*dtype, sizes) else {
            let help = "a loop that collects values needs a known number of turns, or a stated shape of its result";
            let e = LowerError::form_but("a loop of unknown or many turns that collects values", help);
            return Err(e.by(Limit::NotYet));
        };
        // What is put into places are numbers.
        let dtype = if dtype == DType::Bool { DType::I32 } else { dtype };
        let (shape, zero) = (n.const_ints(&sizes)?, n.const_scalar(dtype, 0.0)?);
        let all = sizes.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?));
        n.affords(all.unwrap_or(usize::MAX))?;
        out.push(n.op(ops::Fill { shape, value: Some(zero) })?);
    }
    Ok(out)
}

/// Whether the condition that the body of a loop returns is the one it is given, or true.
fn steady(body: &SourceGraph) -> bool {
    let (Some(out), Some(given)) = (body.outputs.first(), body.inputs.get(1)) else { return false };
    let mut name = out.name.clone();
    for _ in 0..=body.nodes.len() {
        if name == given.name {
            return true;
        }
        if let Some(t) = body.constants.get(&name) {
            return t.to_bools() == [true];
        }
        let Some(node) = body.nodes.iter().find(|node| node.outputs.first() == Some(&name)) else { return false };
        match &*node.op {
            "Identity" | "Cast" => match node.inputs.first() {
                Some(mlconv_source::Arg::Value(from)) => name = from.clone(),
                _ => return false,
            },
            "Constant" => {
                return matches!(node.attrs.get("value"), Some(mlconv_source::Arg::Tensor(t)) if t.to_bools() == [true]);
            }
            _ => return false,
        }
    }
    false
}

/// What a loop begins with for input `i`: a sequence or an optional as it is.
fn variable(n: &mut Lower<'_>, i: usize) -> Result<Entry, LowerError> {
    match n.entry(i)? {
        Some(e @ (Entry::Sequence(_) | Entry::Nothing)) => Ok(e),
        _ => n.input(i).map(Entry::Value),
    }
}

/// The value of an entry that is one.
fn tensor(e: &Entry) -> Option<Value> {
    if let Entry::Value(v) = e { Some(*v) } else { None }
}

fn unknown_turns() -> LowerError {
    let help = "Core ML has no sequences, so such a loop is written out, turn by turn: fold the model's constants first, \
                or give inputs fixed sizes with `--input`";
    LowerError::form_but("a loop of unknown or many turns over a sequence or an optional", help).by(Limit::CoreMl)
}

fn written_out(n: &mut Lower<'_>, body: &SourceGraph, mut vars: Vec<Entry>, turns: i64, scans: usize) -> Lowered {
    let mut collected: Vec<Vec<Value>> = vec![vec![]; scans];
    for turn in 0..turns {
        written_turn(n, body, &mut vars, turn, &mut collected)?;
    }
    with_collected(n, vars, collected)
}

/// As [`written_out`], of a loop whose condition is known in every turn once it is written out.
fn written_while(n: &mut Lower<'_>, body: &SourceGraph, mut vars: Vec<Entry>, most: i64, scans: usize) -> Lowered {
    let mut collected: Vec<Vec<Value>> = vec![vec![]; scans];
    let mut turn = 0;
    while turn < most {
        if turn >= MAX_TURNS || turn.saturating_mul(body.nodes.len() as i64) > MAX_NODES {
            return Err(unknown_turns());
        }
        let go_on = written_turn(n, body, &mut vars, turn, &mut collected)?;
        let go_on = n.entry_value(go_on)?;
        if !truth(n, go_on).ok_or_else(unknown_turns)? {
            break;
        }
        turn += 1;
    }
    with_collected(n, vars, collected)
}

/// One turn; the condition that it returns.
fn written_turn(
    n: &mut Lower<'_>,
    body: &SourceGraph,
    vars: &mut [Entry],
    turn: i64,
    collected: &mut [Vec<Value>],
) -> Result<Entry, LowerError> {
    let (turn, go_on) = (n.const_int(turn)?, n.add_const(Tensor::from_bools(&[], [true]))?);
    let args = [turn, go_on].into_iter().map(Entry::Value).chain(vars.iter().cloned()).collect();
    let mut returned = n.inline_entries(body, args)?.into_iter();
    let go_on = returned.next().unwrap_or(Entry::Poisoned);
    for var in vars {
        *var = match returned.next().unwrap_or(Entry::Poisoned) {
            e @ (Entry::Sequence(_) | Entry::Nothing) => e,
            e => Entry::Value(n.entry_value(e)?),
        };
    }
    for (entry, all) in returned.zip(collected) {
        all.push(n.entry_value(entry)?);
    }
    Ok(go_on)
}

fn with_collected(n: &mut Lower<'_>, vars: Vec<Entry>, collected: Vec<Vec<Value>>) -> Lowered {
    let mut out = vars;
    for values in collected {
        out.push(Entry::Value(stacked(n, values, 0, false)?));
    }
    Ok(out)
}

/// The values one after the other along a new axis.
fn stacked(n: &mut Lower<'_>, mut values: Vec<Value>, axis: i64, backward: bool) -> Result<Value, LowerError> {
    if values.is_empty() {
        return Err(LowerError::core_ml("a loop of no turns that collects values"));
    }
    if backward {
        values.reverse();
    }
    n.op(ops::Stack { values, axis })
}

fn looped(
    n: &mut Lower<'_>,
    body: &SourceGraph,
    limit: Option<Value>,
    go_on: Value,
    vars: Vec<Value>,
    items: &[Value],
) -> Lowered {
    let turn = n.const_int(0)?;
    let count = vars.len();
    let loop_vars: Vec<Value> = [turn, go_on].into_iter().chain(vars).chain(items.iter().copied()).collect();
    let facts: Vec<Fact> = loop_vars.iter().map(|v| Fact::of(n.fact(*v).ty.clone())).collect();
    let cond = n.new_block(&facts, |n, args| {
        let [turn, go_on, ..] = args else { return Err(LowerError::Poisoned) };
        let Some(limit) = limit else { return n.op(ops::Identity { x: *go_on }).map(|v| vec![v]) };
        let more = n.less(*turn, limit)?;
        Ok(vec![n.and(more, *go_on)?])
    })?;
    let inner = n.new_block(&facts, |n, args| {
        let (given, places) = args.split_at(count + 2);
        let returned = n.inline(body, given)?;
        let turn = given.first().copied().ok_or(LowerError::Poisoned)?;
        let mut next = vec![n.add_number(turn, 1.0)?];
        for entry in returned {
            next.push(n.entry_value(entry)?);
        }
        if let Some(go_on) = next.get(1).copied() {
            next[1] = n.as_scalar(go_on)?;
        }
        for (var, next) in given.iter().zip(&mut next).skip(2) {
            *next = as_before(n, *var, *next)?;
        }
        for (data, item) in places.iter().zip(next.get_mut(count + 2..).unwrap_or_default()) {
            *item = put(n, *data, turn, *item)?;
        }
        Ok(next)
    })?;
    let results = n.ops(ops::WhileLoop { loop_vars, cond, body: inner })?;
    let mut out = vec![];
    for (i, v) in results.into_iter().skip(2).enumerate() {
        let is_bool = i >= count && n.stated_output(i).is_some_and(|t| t.dtype == DType::Bool);
        out.push(Entry::Value(if is_bool { n.cast(v, DType::Bool)? } else { v }));
    }
    Ok(out)
}

/// What a variable of a loop becomes, in the shape that it has: a size that is only known in the loop is the one before.
fn as_before(n: &mut Lower<'_>, var: Value, next: Value) -> Result<Value, LowerError> {
    let (own, new) = (n.shape(var)?, n.shape(next)?);
    let known: Option<Vec<i64>> = own.iter().map(Dim::as_known).collect();
    match known {
        Some(sizes) if own != new && own.rank() == new.rank() && own.rank() > 0 => n.reshape_to(next, &sizes),
        _ => Ok(next),
    }
}

/// `data` with `item` in the place of a turn; the last one where there are no more.
fn put(n: &mut Lower<'_>, data: Value, turn: Value, item: Value) -> Result<Value, LowerError> {
    let shape = n.fixed_shape(data, "a loop that collects values")?;
    let (dtype, last) = (n.dtype(data)?, n.const_int(shape.first().map_or(0, |s| s - 1))?);
    let place = n.minimum(turn, last)?;
    let indices = n.expand_dims(place, &[0])?;
    let item = n.cast(item, dtype)?;
    let sizes: Vec<i64> = [1].into_iter().chain(shape.into_iter().skip(1)).collect();
    let updates = n.reshape_to(item, &sizes)?;
    let mode = ops::ScatterMode::Update;
    n.op(ops::Scatter { data, indices, updates, axis: 0, mode, validate_indices: false })
}

/// How a scan goes along its inputs, and what it does with what the turns give.
struct Scan<'a> {
    body: &'a SourceGraph,
    axes: Vec<i64>,
    directions: Vec<i64>,
    out_axes: Vec<i64>,
    out_directions: Vec<i64>,
}

fn scan(n: &mut Lower<'_>) -> Lowered {
    let body = n.graph("body")?;
    let inputs = n.inputs_from(0)?;
    let (scans, states, outputs) = scanned(n, body, inputs.len())?;
    let scan = Scan {
        body,
        axes: n.ints_or("scan_input_axes", 0, scans)?,
        directions: n.ints_or("scan_input_directions", 0, scans)?,
        out_axes: n.ints_or("scan_output_axes", 0, outputs)?,
        out_directions: n.ints_or("scan_output_directions", 0, outputs)?,
    };
    let results = scan.run(n, &inputs[..states], &inputs[states..])?;
    Ok(results.into_iter().map(Entry::Value).collect())
}

/// How many inputs are scanned, how many are states, and how many results are collected.
fn scanned(n: &Lower<'_>, body: &SourceGraph, inputs: usize) -> Result<(usize, usize, usize), LowerError> {
    let scans = usize::try_from(n.int_or("num_scan_inputs", 1)?).unwrap_or(0);
    let Some(states) = inputs.checked_sub(scans).filter(|_| scans > 0) else {
        return n.bad_attr("num_scan_inputs", format!("1 to {inputs}"));
    };
    Ok((scans, states, body.outputs.len().saturating_sub(states)))
}

/// The first form of the operator: everything has a leading axis of batches, which are scanned one by one.
fn scan_batches(n: &mut Lower<'_>) -> Lowered {
    let body = n.graph("body")?;
    if n.optional(0)?.is_some() {
        return Err(LowerError::not_yet("a scan of sequences of different lengths"));
    }
    let inputs = n.inputs_from(1)?;
    let (scans, states, outputs) = scanned(n, body, inputs.len())?;
    let scan = Scan {
        body,
        axes: vec![0; scans],
        directions: n.ints_or("directions", 0, scans)?,
        out_axes: vec![0; outputs],
        out_directions: vec![0; outputs],
    };
    let batches = match inputs.first() {
        Some(first) => n.shape(*first)?.first().and_then(Dim::as_known),
        None => None,
    };
    let batches = batches.ok_or_else(|| LowerError::NotFixed { what: "the number of batches".to_owned() })?;
    if !(1..=MAX_TURNS).contains(&batches) {
        return Err(LowerError::form(format!("a scan of {batches} batches")));
    }
    let mut all: Vec<Vec<Value>> = vec![vec![]; states + outputs];
    for batch in 0..batches {
        let mut own = vec![];
        for v in &inputs {
            let part = n.slice(*v, 0, batch, Some(batch + 1))?;
            own.push(n.squeeze(part, &[0])?);
        }
        let results = scan.run(n, &own[..states], &own[states..])?;
        results.into_iter().zip(&mut all).for_each(|(v, all)| all.push(v));
    }
    let mut out = vec![];
    for values in all {
        out.push(Entry::Value(stacked(n, values, 0, false)?));
    }
    Ok(out)
}

impl Scan<'_> {
    /// The last states, and what was collected.
    fn run(&self, n: &mut Lower<'_>, states: &[Value], sources: &[Value]) -> Result<Vec<Value>, LowerError> {
        let mut vars = states.to_vec();
        let mut turns = None;
        let mut along = vec![];
        for (x, axis) in sources.iter().zip(&self.axes) {
            let axis = n.axis(*x, *axis)?;
            along.push(axis);
            turns = turns.or(n.shape(*x)?.get(axis).and_then(Dim::as_known));
        }
        let turns = turns.ok_or_else(|| LowerError::NotFixed { what: "the number of turns".to_owned() })?;
        if turns > MAX_TURNS || turns.saturating_mul(self.body.nodes.len() as i64) > MAX_NODES {
            return Err(LowerError::form(format!("a scan of {turns} turns")));
        }
        let mut collected: Vec<Vec<Value>> = vec![vec![]; self.out_axes.len()];
        for turn in 0..turns {
            let mut args = vars.clone();
            for ((x, axis), direction) in sources.iter().zip(&along).zip(&self.directions) {
                let at = if *direction == 0 { turn } else { turns - 1 - turn };
                let part = n.slice(*x, *axis, at, Some(at + 1))?;
                args.push(n.squeeze(part, &[*axis as i64])?);
            }
            let mut returned = n.inline(self.body, &args)?.into_iter();
            for var in &mut vars {
                *var = n.entry_value(returned.next().unwrap_or(Entry::Poisoned))?;
            }
            for (entry, all) in returned.zip(&mut collected) {
                all.push(n.entry_value(entry)?);
            }
        }
        for ((values, axis), direction) in collected.into_iter().zip(&self.out_axes).zip(&self.out_directions) {
            vars.push(stacked(n, values, *axis, *direction != 0)?);
        }
        Ok(vars)
    }
}
