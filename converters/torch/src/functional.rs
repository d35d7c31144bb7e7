//! Turns writes into memory into new values.
//!
//! PyTorch's operators may write their arguments, and their results may share memory with arguments. Which do is said by
//! their signatures. Here every tensor has a *base* and the views that lead from it; after a write, the base is a new
//! value, and views of it are taken anew where they are read.

use crate::{ops, schema::Signature};
use mlconv_source::{Arg, Node, SourceGraph};
use std::{collections::HashMap, sync::Arc};

/// One step from a tensor to a view of it.
#[derive(Clone, Debug)]
struct Step {
    /// The view, which reads the tensor as `self`.
    node: Node,
    /// Which of its results is meant.
    output: usize,
}

/// A tensor as a view of a base.
#[derive(Clone, Debug)]
struct View {
    base: usize,
    steps: Vec<Step>,
    /// The value that it was when the base was of this version.
    name: Arc<str>,
    version: usize,
}

/// Memory that tensors share.
#[derive(Clone, Debug)]
struct Base {
    /// Its value before it was written.
    first: Arc<str>,
    /// Its value now.
    name: Arc<str>,
    /// How often it was written.
    version: usize,
}

/// Values by what they were when the program began.
pub(crate) type Written = HashMap<Arc<str>, Arc<str>>;

/// Operators whose signature says that they may share memory, and which mostly do not.
const COPIES: &[&str] = &["to", "contiguous", "type_as"];

/// Views that are the whole tensor in order, under another shape or the same.
const SHAPES: &[&str] = &[
    "view",
    "reshape",
    "unsqueeze",
    "squeeze",
    "flatten",
    "unflatten",
    "_unsafe_view",
    "view_as",
    "reshape_as",
    "alias",
    "detach",
    "lift_fresh",
    "ravel",
];

/// The graph without writes into memory, and for each of its inputs and constants that is written, what it becomes.
pub(crate) fn functionalized(mut graph: SourceGraph) -> Result<(SourceGraph, Written), String> {
    let writes =
        graph.nodes.iter().any(|n| ops::signature(n).is_some_and(|s| written(s).is_some()) || is_in_place(&n.op));
    if !writes {
        return Ok((graph, Written::default()));
    }
    let mut state = Functional::default();
    for node in std::mem::take(&mut graph.nodes) {
        state.node(node)?;
    }
    for out in &mut graph.outputs {
        out.name = state.current(&out.name);
    }
    let mut written = Written::default();
    for name in graph.inputs.iter().map(|i| &i.name).chain(graph.constants.keys()) {
        let now = state.current(name);
        if now != *name {
            written.insert(name.clone(), now);
        }
    }
    graph.nodes = state.out;
    Ok((graph, written))
}

/// Whether the name says that the operator writes its first argument.
fn is_in_place(op: &str) -> bool {
    let name = op.split('.').next().unwrap_or(op);
    name.ends_with('_') && !name.starts_with('_') && !name.ends_with("__")
}

/// The parameter that an operator writes.
fn written(s: &Signature) -> Option<&'static str> {
    s.params.iter().find(|p| p.alias.as_ref().is_some_and(|a| a.written)).map(|p| p.name)
}

/// Memory at a point of the program.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    bases: Vec<Base>,
    views: HashMap<Arc<str>, View>,
}

#[derive(Default)]
pub(crate) struct Functional {
    bases: Vec<Base>,
    views: HashMap<Arc<str>, View>,
    out: Vec<Node>,
    /// Names made so far.
    made: usize,
}

impl Functional {
    fn fresh(&mut self, like: &str) -> Arc<str> {
        self.made += 1;
        format!("{like}_v{}", self.made).into()
    }

    /// The view that `name` is; of a name that is new, the whole of a base of its own.
    fn view(&mut self, name: &Arc<str>) -> View {
        if let Some(view) = self.views.get(name) {
            return view.clone();
        }
        self.bases.push(Base { first: name.clone(), name: name.clone(), version: 0 });
        let view = View { base: self.bases.len() - 1, steps: vec![], name: name.clone(), version: 0 };
        self.views.insert(name.clone(), view.clone());
        view
    }

    /// Whether a tensor lies in memory as its shape says: it is no view, or one that only gives it another shape.
    pub(crate) fn is_in_order(&self, name: &Arc<str>) -> bool {
        let steps = self.views.get(name).map(|v| v.steps.as_slice()).unwrap_or_default();
        steps.iter().all(|s| SHAPES.contains(&s.node.op.split('.').next().unwrap_or_default()))
    }

    /// What the tensor `name` is now.
    pub(crate) fn current(&mut self, name: &Arc<str>) -> Arc<str> {
        let Some(view) = self.views.get(name).cloned() else { return name.clone() };
        let base = self.bases[view.base].clone();
        if view.version == base.version {
            return view.name;
        }
        let now = self.taken(&base.name, &view.steps);
        self.views.insert(name.clone(), View { name: now.clone(), version: base.version, ..view });
        now
    }

    /// The view of `base` that `steps` lead to.
    fn taken(&mut self, base: &Arc<str>, steps: &[Step]) -> Arc<str> {
        let mut now = base.clone();
        for step in steps {
            let mut node = step.node.clone();
            node.attrs.insert("self".into(), Arg::Value(now));
            let names: Vec<Arc<str>> = node.outputs.iter().map(|o| o.to_string()).map(|o| self.fresh(&o)).collect();
            now = names.get(step.output).cloned().unwrap_or_default();
            node.outputs = names;
            self.out.push(node);
        }
        now
    }

    /// Where memory stands now.
    pub(crate) fn saved(&self) -> Saved {
        Saved { bases: self.bases.clone(), views: self.views.clone() }
    }

    /// Goes back to where memory stood; what was written since then, by what it was first, with its value now.
    pub(crate) fn restore(&mut self, saved: &Saved) -> Vec<(Arc<str>, Arc<str>)> {
        let before = |i: usize, b: &Base| saved.bases.get(i).map_or(b.first.clone(), |b| b.name.clone());
        let bases = self.bases.iter().enumerate();
        let written = bases.filter(|(i, b)| b.name != before(*i, b)).map(|(_, b)| (b.first.clone(), b.name.clone()));
        let written = written.collect();
        // Names of what was made in between are made no more, so their views may go.
        self.bases.clone_from(&saved.bases);
        self.views.clone_from(&saved.views);
        written
    }

    /// What was `first` and is another value now.
    pub(crate) fn put(&mut self, first: &Arc<str>, name: Arc<str>) {
        let place = self.view(first).base;
        let base = &mut self.bases[place];
        (base.name, base.version) = (name, base.version.saturating_add(1));
    }

    /// The nodes that were made since this was asked last.
    pub(crate) fn take(&mut self) -> Vec<Node> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn node(&mut self, mut node: Node) -> Result<(), String> {
        let target = match ops::signature(&node).and_then(written) {
            Some(name) => Some(name),
            None if is_in_place(&node.op) && node.attrs.contains_key("self") => Some("self"),
            None if is_in_place(&node.op) => ops::signature(&node).and_then(|s| s.params.first()).map(|p| p.name),
            None => None,
        };
        let original = node.clone();
        self.read(&mut node);
        if let Some(target) = target {
            return self.write(node, &original, target);
        }
        self.made(&node, &original);
        self.out.push(node);
        Ok(())
    }

    /// Makes a node read what its arguments are now.
    pub(crate) fn read(&mut self, node: &mut Node) {
        for arg in node.attrs.values_mut().chain(&mut node.inputs) {
            match arg {
                Arg::Value(name) => *name = self.current(name),
                Arg::Values(names) => {
                    for name in names.iter_mut().flatten() {
                        *name = self.current(name);
                    }
                }
                _ => {}
            }
        }
    }

    /// Notes what the results of a node share with its argument: `original` is the node before it read what this is now.
    pub(crate) fn made(&mut self, node: &Node, original: &Node) {
        let shares = ops::signature(node).filter(|s| !COPIES.contains(&s.name.split('.').next().unwrap_or_default()));
        let from = shares.and_then(|s| {
            let set = s.returns.first()?.alias.as_ref()?;
            s.params.iter().find(|p| p.alias.as_ref().is_some_and(|a| a.set == set.set)).map(|p| p.name)
        });
        if from == Some("self")
            && let Some(Arg::Value(of)) = original.attrs.get("self")
        {
            let of = self.view(of);
            for (output, name) in node.outputs.iter().enumerate() {
                let mut steps = of.steps.clone();
                steps.push(Step { node: node.clone(), output });
                let version = self.bases[of.base].version;
                self.views.insert(name.clone(), View { base: of.base, steps, name: name.clone(), version });
            }
        }
    }

    /// An operator that writes its argument `target`: its functional twin makes a new value, which takes the place of
    /// the old one in the base.
    fn write(&mut self, mut node: Node, original: &Node, target: &'static str) -> Result<(), String> {
        let Some(Arg::Value(name)) = original.attrs.get(target) else {
            return Err(format!("node `{}` writes nothing", node.name));
        };
        let view = self.view(name);
        let (op, overload) = node.op.split_once('.').map_or((&*node.op, None), |(op, o)| (op, Some(o)));
        let plain = op.strip_suffix('_').unwrap_or(op);
        let twin: Arc<str> = overload.map_or_else(|| plain.into(), |o| format!("{plain}.{o}").into());
        node.op = twin;
        let result = node.outputs.first().cloned().unwrap_or_else(|| node.name.clone());
        let new = self.fresh(&result);
        node.outputs = vec![new.clone()];
        let line = node.clone();
        self.out.push(node);
        // From the view back to the base, each tensor with the new part in it.
        let base_name = self.bases[view.base].name.clone();
        let mut tensors = vec![base_name];
        for step in &view.steps {
            let from = tensors[tensors.len() - 1].clone();
            let next = self.taken(&from, std::slice::from_ref(step));
            tensors.push(next);
        }
        let mut now = new;
        for (step, whole) in view.steps.iter().zip(&tensors).rev() {
            now = self.put_part(step, whole, &now, &line)?;
        }
        let base = &mut self.bases[view.base];
        (base.name, base.version) = (now.clone(), base.version + 1);
        let version = base.version;
        // The result of the operator is the tensor that it wrote.
        let steps = view.steps.clone();
        let is_whole = steps.is_empty();
        let again = View { base: view.base, steps, name: now, version: if is_whole { version } else { 0 } };
        self.views.insert(name.clone(), again.clone());
        self.views.insert(result, again);
        Ok(())
    }

    /// `whole` with `part` in the place that `step` takes from it.
    fn put_part(&mut self, step: &Step, whole: &Arc<str>, part: &Arc<str>, at: &Node) -> Result<Arc<str>, String> {
        let view = &step.node;
        let name = view.op.split('.').next().unwrap_or_default();
        let mut node = Node { line: at.line.clone(), module: at.module.clone(), ..view.clone() };
        let (value, result) = (|n: &Arc<str>| Arg::Value(n.clone()), self.fresh(whole));
        node.outputs = vec![result.clone()];
        match name {
            "select" | "slice" | "diagonal" => {
                node.op = format!("{name}_scatter").into();
                node.attrs.insert("self".into(), value(whole));
                node.attrs.insert("src".into(), value(part));
            }
            "split" | "split_with_sizes" | "chunk" | "unbind" | "tensor_split" => {
                node.op = "_put_part".into();
                node.attrs.insert("self".into(), value(whole));
                node.attrs.insert("src".into(), value(part));
                node.attrs.insert("of".into(), Arg::Str(view.op.to_string()));
                node.attrs.insert("index".into(), Arg::Int(step.output as i64));
            }
            "transpose" | "swapaxes" | "swapdims" | "t" | "numpy_T" | "mT" => {
                node.attrs.insert("self".into(), value(part));
            }
            "permute" => {
                let Some(Arg::Ints(dims)) = view.attrs.get("dims") else {
                    return Err("a permutation without axes".into());
                };
                let rank = dims.len() as i64;
                let at = |axis: i64| dims.iter().position(|d| d.rem_euclid(rank.max(1)) == axis).map(|i| i as i64);
                let back: Option<Vec<i64>> = (0..rank).map(at).collect();
                node.attrs.insert("dims".into(), Arg::Ints(back.ok_or("a permutation that is none")?));
                node.attrs.insert("self".into(), value(part));
            }
            _ if SHAPES.contains(&name) => {
                node.op = "reshape_as".into();
                node.attrs.clear();
                node.attrs.insert("self".into(), value(part));
                node.attrs.insert("other".into(), value(whole));
            }
            other => return Err(format!("node `{}` writes through `{other}`, which is not supported", at.name)),
        }
        self.out.push(node);
        Ok(result)
    }
}
