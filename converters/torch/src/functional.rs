//! Turns writes into memory into new values.
//!
//! PyTorch's operators may write their arguments, and their results may share memory with arguments. Which do is said by
//! their signatures. Here every tensor has a *base* and the views that lead from it; after a write, the base is a new
//! value, and views of it are taken anew where they are read.

use crate::ops;
use mlconv_source::{Arg, Node, SourceGraph};
use mlconv_tensor::DType;
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

/// Steps that lead to a view: more of them than any model takes would cost much at every write.
const MAX_STEPS: usize = 256;
/// Names that are made: each write through views makes some for each step.
const MAX_MADE: usize = 1 << 18;

/// Names of values that are taken already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Rc<RefCell<HashSet<Arc<str>>>>);

impl Names {
    /// Takes a name; whether it was free.
    pub(crate) fn take(&self, name: &Arc<str>) -> bool {
        self.0.borrow_mut().insert(name.clone())
    }
}

/// One step from a tensor to a view of it.
#[derive(Clone, Debug)]
struct Step {
    /// The view, which reads the tensor as `param`.
    node: Node,
    param: &'static str,
    /// Which of its results is meant.
    output: usize,
}

/// A tensor as a view of a base.
#[derive(Clone, Debug)]
struct View {
    base: usize,
    steps: Rc<[Rc<Step>]>,
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
    /// Bases that may be the same memory: what makes one of the other copies it in some layouts, and in others does not.
    perhaps: Vec<usize>,
    /// Whether such a one was written, so that what this one is now is not known.
    in_doubt: bool,
}

/// Values by what they were when the program began.
pub(crate) type Written = HashMap<Arc<str>, Arc<str>>;

/// Operators that copy a tensor unless it is already what they are asked for.
const CONVERSIONS: &[&str] =
    &["to", "contiguous", "type_as", "_autocast_to_reduced_precision", "_autocast_to_full_precision"];

/// Operators that copy a tensor unless its layout allows for a view.
const MAY_COPY: &[&str] = &["reshape", "reshape_as", "flatten", "ravel"];

/// Views that are the tensor itself.
const ITSELF: &[&str] = &["alias", "detach", "lift_fresh"];

/// What a conversion is given of `copy` and `memory_format`, for this pass.
const COPIES: &str = "copies";

/// An operator without its overload.
fn base_of(op: &str) -> &str {
    op.split('.').next().unwrap_or(op)
}

/// Notes an argument about memory that says if a conversion copies; others mean nothing.
pub(crate) fn note_copies(node: &mut Node, name: &str, arg: &Arg) {
    if matches!(name, "copy" | "memory_format") && CONVERSIONS.contains(&base_of(&node.op)) {
        let is_sure = name == "copy" && matches!(arg, Arg::Bool(true) | Arg::Int(1));
        let before = matches!(node.attrs.get(COPIES), Some(Arg::Bool(true)));
        node.attrs.insert(COPIES.into(), Arg::Bool(is_sure || before));
    }
}

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
    if !graph.nodes.iter().any(is_in_place) {
        graph.nodes.iter_mut().for_each(|n| drop(n.attrs.shift_remove(COPIES)));
        return Ok((graph, Written::default()));
    }
    let names = Names::default();
    for name in graph.inputs.iter().map(|i| &i.name).chain(graph.constants.keys()) {
        names.take(name);
    }
    for name in graph.nodes.iter().flat_map(|n| &n.outputs) {
        names.take(name);
    }
    let mut state = Functional::new(names);
    let dtype = |name: &Arc<str>| graph.types.get(name).map(|t| t.dtype);
    for node in std::mem::take(&mut graph.nodes) {
        state.node(node, &dtype)?;
        state.checked()?;
    }
    for out in &mut graph.outputs {
        out.name = state.current(&out.name);
    }
    let mut written = Written::default();
    for name in graph.constants.keys() {
        let now = state.current(name);
        if now != *name {
            written.insert(name.clone(), now);
        }
    }
    state.checked()?;
    for input in &graph.inputs {
        let now = state.left(&input.name);
        if now != input.name {
            written.insert(input.name.clone(), now);
        }
    }
    state.checked()?;
    graph.nodes = state.out;
    Ok((graph, written))
}

/// Whether a node writes its first argument.
fn is_in_place(node: &Node) -> bool {
    ops::twin(&node.domain, &node.op).is_some()
}

/// Memory at a point of the program.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    bases: Vec<Base>,
    views: HashMap<Arc<str>, View>,
}

pub(crate) struct Functional {
    bases: Vec<Base>,
    views: HashMap<Arc<str>, View>,
    out: Vec<Node>,
    /// How many names were made so far.
    made: usize,
    names: Names,
    /// Why the program cannot be done.
    problem: Option<String>,
}

impl Functional {
    /// `names` are those of the program's values; those that are made are taken from them.
    pub(crate) fn new(names: Names) -> Self {
        Self { bases: vec![], views: HashMap::new(), out: vec![], made: 0, names, problem: None }
    }

    /// Says if something was found on the way that cannot be done.
    pub(crate) fn checked(&mut self) -> Result<(), String> {
        self.problem.take().map_or(Ok(()), Err)
    }

    fn fresh(&mut self, like: &str) -> Arc<str> {
        if self.made >= MAX_MADE && self.problem.is_none() {
            self.problem = Some("writes through views make more values than a model needs".to_owned());
        }
        loop {
            self.made += 1;
            let name = format!("{like}_v{}", self.made).into();
            if self.names.take(&name) {
                return name;
            }
        }
    }

    /// The view that `name` is; of a name that is new, the whole of a base of its own.
    fn view(&mut self, name: &Arc<str>) -> View {
        if let Some(view) = self.views.get(name) {
            return view.clone();
        }
        let first = name.clone();
        self.bases.push(Base { first, name: name.clone(), version: 0, perhaps: vec![], in_doubt: false });
        let view = View { base: self.bases.len() - 1, steps: Rc::from([]), name: name.clone(), version: 0 };
        self.views.insert(name.clone(), view.clone());
        view
    }

    /// Whether a tensor lies in memory as its shape says: it is no view, or one that only gives it another shape.
    pub(crate) fn is_in_order(&self, name: &Arc<str>) -> bool {
        self.views.get(name).is_none_or(|v| v.steps.iter().all(|s| SHAPES.contains(&base_of(&s.node.op))))
    }

    /// What the tensor `name` is now.
    pub(crate) fn current(&mut self, name: &Arc<str>) -> Arc<str> {
        if let Some(view) = self.views.get(name)
            && self.bases[view.base].in_doubt
            && self.problem.is_none()
        {
            self.problem = Some(format!(
                "`{name}` is read after a write into what may be a copy of it or a view, as its layout in memory has it: \
                 make the copy with `clone()`"
            ));
        }
        self.left(name)
    }

    /// What the tensor `name` is now, as far as that is known.
    pub(crate) fn left(&mut self, name: &Arc<str>) -> Arc<str> {
        let Some(view) = self.views.get(name).cloned() else { return name.clone() };
        let base = &self.bases[view.base];
        let (whole, version) = (base.name.clone(), base.version);
        if view.version == version || self.problem.is_some() {
            return view.name;
        }
        let now = self.taken(&whole, &view.steps);
        self.views.insert(name.clone(), View { name: now.clone(), version, ..view });
        now
    }

    /// The view of `base` that `steps` lead to.
    fn taken(&mut self, base: &Arc<str>, steps: &[Rc<Step>]) -> Arc<str> {
        let mut now = base.clone();
        for step in steps {
            let mut node = step.node.clone();
            node.attrs.insert(step.param.into(), Arg::Value(now));
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
        let in_doubt: Vec<bool> = self.bases.iter().map(|b| b.in_doubt).collect();
        self.bases.clone_from(&saved.bases);
        for (base, in_doubt) in self.bases.iter_mut().zip(in_doubt) {
            base.in_doubt |= in_doubt;
        }
        self.views.clone_from(&saved.views);
        written
    }

    /// What was `first` and is another value now.
    pub(crate) fn put(&mut self, first: &Arc<str>, name: Arc<str>) {
        let place = self.view(first).base;
        let base = &mut self.bases[place];
        (base.name, base.version) = (name, base.version.saturating_add(1));
        self.doubt(place);
    }

    /// What may be the same memory as a base that was written is not known any more.
    fn doubt(&mut self, written: usize) {
        let (mut seen, mut next) = (HashSet::from([written]), vec![written]);
        while let Some(at) = next.pop() {
            for other in self.bases[at].perhaps.clone() {
                // What was made in a branch that has ended is read no more.
                if other < self.bases.len() && seen.insert(other) {
                    self.bases[other].in_doubt = true;
                    next.push(other);
                }
            }
        }
    }

    /// The nodes that were made since this was asked last.
    pub(crate) fn take(&mut self) -> Vec<Node> {
        std::mem::take(&mut self.out)
    }

    /// A node; `dtype` says of what type a tensor is in the source, where that is known.
    pub(crate) fn node(&mut self, mut node: Node, dtype: &dyn Fn(&Arc<str>) -> Option<DType>) -> Result<(), String> {
        let target = match () {
            () if !is_in_place(&node) => None,
            () if node.attrs.contains_key("self") => Some("self"),
            () => ops::signature(&node).and_then(|s| s.params.first()).map(|p| p.name),
        };
        let original = node.clone();
        self.read(&mut node);
        if let Some(target) = target {
            return self.write(node, &original, target, dtype);
        }
        self.made(&node, &original, dtype);
        self.out.push(node);
        Ok(())
    }

    /// Makes a node read what its arguments are now.
    pub(crate) fn read(&mut self, node: &mut Node) {
        node.attrs.shift_remove(COPIES);
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
    pub(crate) fn made(&mut self, node: &Node, original: &Node, dtype: &dyn Fn(&Arc<str>) -> Option<DType>) {
        let from = ops::signature(node).and_then(|s| {
            let set = s.returns.first()?.alias.as_ref()?;
            s.params.iter().find(|p| p.alias.as_ref() == Some(set)).map(|p| p.name)
        });
        let Some(param) = from else { return };
        let Some(Arg::Value(name)) = original.attrs.get(param) else { return };
        let op = base_of(&node.op);
        let in_order = self.is_in_order(name);
        let mut is_itself = ITSELF.contains(&op);
        let mut is_sure = true;
        if CONVERSIONS.contains(&op) {
            let copies = original.attrs.get(COPIES);
            let types = (dtype(name), node.outputs.first().and_then(dtype));
            let is_other = op != "contiguous" && matches!(types, (Some(from), Some(to)) if from != to);
            if is_other || matches!(copies, Some(Arg::Bool(true))) {
                return;
            }
            let is_same = if op == "contiguous" { in_order } else { types.0.is_some() && types.0 == types.1 };
            is_itself = true;
            is_sure = copies.is_none() && is_same;
        } else if MAY_COPY.contains(&op) {
            is_sure = in_order;
        }
        let of = self.view(name);
        if !is_sure {
            for name in &node.outputs {
                let own = self.view(name).base;
                self.bases[own].perhaps.push(of.base);
                self.bases[of.base].perhaps.push(own);
            }
            return;
        }
        if !is_itself && of.steps.len() >= MAX_STEPS {
            let why = || format!("node `{}` takes a view of a view of a view, more than {MAX_STEPS} deep", node.name);
            self.problem.get_or_insert_with(why);
            return;
        }
        let version = self.bases[of.base].version;
        for (output, name) in node.outputs.iter().enumerate() {
            let steps = if is_itself {
                of.steps.clone()
            } else {
                let step = Rc::new(Step { node: node.clone(), param, output });
                of.steps.iter().cloned().chain([step]).collect()
            };
            self.views.insert(name.clone(), View { base: of.base, steps, name: name.clone(), version });
        }
    }

    /// An operator that writes its argument `target`: its functional twin makes a new value, which takes the place of
    /// the old one in the base.
    fn write(
        &mut self,
        mut node: Node,
        original: &Node,
        target: &'static str,
        dtype: &dyn Fn(&Arc<str>) -> Option<DType>,
    ) -> Result<(), String> {
        let Some(Arg::Value(name)) = original.attrs.get(target) else {
            return Err(format!("node `{}` writes nothing", node.name));
        };
        let view = self.view(name);
        if let Some(twin) = ops::twin(&node.domain, &node.op) {
            node.op = twin.into();
        }
        let result = node.outputs.first().cloned().unwrap_or_else(|| node.name.clone());
        let new = self.fresh(&result);
        let line = node.clone();
        match dtype(name) {
            // Memory keeps its type, of whatever type the result would be elsewhere.
            Some(dtype) => {
                let plain = self.fresh(&result);
                node.outputs = vec![plain.clone()];
                let attrs = [("self".into(), Arg::Value(plain)), ("dtype".into(), Arg::DType(dtype))];
                let cast = Node {
                    op: "to.dtype".into(),
                    domain: "aten".into(),
                    inputs: vec![],
                    attrs: attrs.into_iter().collect(),
                    outputs: vec![new.clone()],
                    ..node.clone()
                };
                self.out.extend([node, cast]);
            }
            None => {
                node.outputs = vec![new.clone()];
                self.out.push(node);
            }
        }
        // From the view back to the base, each tensor with the new part in it.
        let base_name = self.bases[view.base].name.clone();
        let mut tensors = vec![base_name];
        for step in view.steps.iter() {
            let from = tensors[tensors.len() - 1].clone();
            let next = self.taken(&from, std::slice::from_ref(step));
            tensors.push(next);
        }
        let mut now = new;
        for (step, whole) in view.steps.iter().zip(&tensors).rev() {
            now = self.put_part(step, whole, &now, &line)?;
        }
        let base = &mut self.bases[view.base];
        (base.name, base.version) = (now.clone(), base.version.saturating_add(1));
        let version = base.version;
        self.doubt(view.base);
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
        let name = base_of(&view.op);
        let mut node = Node { line: at.line.clone(), module: at.module.clone(), ..view.clone() };
        let (value, result) = (|n: &Arc<str>| Arg::Value(n.clone()), self.fresh(whole));
        node.outputs = vec![result.clone()];
        match name {
            "select" | "slice" | "diagonal" => {
                node.op = format!("{name}_scatter").into();
                node.attrs.insert("self".into(), value(whole));
                node.attrs.insert("src".into(), value(part));
            }
            "linalg_diagonal" => {
                node.op = "diagonal_scatter".into();
                for (axis, default) in [("dim1", -2), ("dim2", -1)] {
                    node.attrs.entry(axis.into()).or_insert(Arg::Int(default));
                }
                node.attrs.shift_remove(step.param);
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

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_source::SourceValue;

    fn node(op: &str, of: &str, to: &str) -> Node {
        let mut node = Node { domain: "aten".into(), op: op.into(), name: to.into(), ..Node::default() };
        node.attrs.insert("self".into(), Arg::Value(of.into()));
        node.outputs = vec![to.into()];
        node
    }

    fn done(nodes: Vec<Node>, outputs: &[&str]) -> Result<SourceGraph, String> {
        let value = |name: &str| SourceValue { name: name.into(), ty: None, other: None, description: String::new() };
        let graph = SourceGraph {
            inputs: vec![value("x"), value("relu__v1")],
            outputs: outputs.iter().map(|o| value(o)).collect(),
            nodes,
            ..SourceGraph::default()
        };
        functionalized(graph).map(|(graph, _)| graph)
    }

    #[test]
    fn names_that_are_made_are_new() {
        let graph = done(vec![node("relu_", "x", "relu_")], &["relu_", "relu__v1"]).expect("a graph");
        let outputs: Vec<&str> = graph.outputs.iter().map(|o| &*o.name).collect();
        assert_eq!(outputs, ["relu__v2", "relu__v1"]);
    }

    #[test]
    fn what_may_be_a_copy_is_not_guessed() {
        let nodes = |last: &str| vec![node("t", "x", "y"), node("ravel", "y", "z"), node("relu_", last, "w")];
        assert!(done(nodes("z"), &["w"]).is_ok());
        assert!(done(nodes("z"), &["w", "y"]).expect_err("is read").contains("clone"));
        assert!(done(nodes("y"), &["z"]).expect_err("is read").contains("clone"));
        let mut sure = node("ravel", "x", "z");
        sure.outputs = vec!["z".into()];
        let graph = done(vec![sure, node("relu_", "z", "w")], &["x"]).expect("a graph");
        assert_ne!(&*graph.outputs[0].name, "x");
    }

    #[test]
    fn long_chains_of_views_take_little() {
        let chain = |op: &str, n: usize| {
            let mut all: Vec<Node> = (0..n)
                .map(|i| node(op, &if i == 0 { "x".to_owned() } else { format!("y{i}") }, &format!("y{}", i + 1)))
                .collect();
            all.push(node("relu_", &format!("y{n}"), "w"));
            done(all, &["x"])
        };
        assert!(chain("detach", 20_000).expect("one tensor").nodes.len() < 20_010);
        assert!(chain("t", 20_000).expect_err("too many").contains("deep"));
    }
}
