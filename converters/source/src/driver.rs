//! Walks a source graph with a table, and collects everything that has no lowering.

use crate::{
    Arg, DimSpec, InputSpec, Lower, LowerError, Node, Request, SourceDim, SourceGraph, SourceType, Table, Values,
    lower::{narrow, narrowed},
};
use indexmap::IndexMap;
use mlconv_mil::{
    diagnostic::{Diagnostic, codes},
    fold::fold,
    ir::{Block, Function, Module, Origin, OriginId, Origins, Place, Port, SourceInfo, Value},
    ops,
    schema::Op,
    text::Namer,
};
use mlconv_tensor::{DType, Dim, Shape, SymbolInfo, Symbols, Tensor, TensorType, Type};
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// A lowered graph. Where a diagnostic is an error, the module is not whole.
#[derive(Debug)]
pub struct Lowering {
    /// The module.
    pub module: Module,
    /// Everything that was adapted or has no lowering.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a name of the source graph stands for.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A value of the function.
    Value(Value),
    /// A constant as the source has it.
    Const(Tensor),
    /// The result of a node that was not lowered.
    Poisoned,
}

/// The names of one graph.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    names: HashMap<Arc<str>, Entry>,
}

impl Frame {
    pub(crate) fn define(&mut self, name: Arc<str>, entry: Entry) {
        self.names.insert(name, entry);
    }
}

/// Elements up to which constants are computed while lowering.
const MAX_FOLDED: usize = 1 << 24;
/// The greatest size of a dimension for which the source states none.
const OPEN_MAX: i64 = 65536;
/// Nesting of graphs beyond which a model is refused.
const MAX_NESTING: usize = 32;

pub(crate) struct State {
    pub(crate) f: Function,
    pub(crate) origins: Origins,
    symbols: Symbols,
    table: &'static Table,
    frames: Vec<Frame>,
    problems: Problems,
}

/// Lowers `graph` to a module of one function, `main`.
pub fn lower(graph: &SourceGraph, table: &'static Table, request: &Request) -> Lowering {
    let mut state = State {
        f: Function::new("main", request.opset),
        origins: Origins::default(),
        symbols: Symbols::default(),
        table,
        frames: vec![],
        problems: Problems::default(),
    };
    let mut frame = Frame::default();
    state.interface(graph, request, &mut frame);
    let body = state.f.body();
    let kept = kept_outputs(graph, request, &mut state.problems);
    match state.nested(graph, frame, body) {
        Ok(entries) => state.outputs(graph, &kept, entries),
        Err(LowerError::Poisoned) => {}
        Err(e) => state.problems.plain(Diagnostic::error(&codes::F0106, e.to_string())),
    }
    let module = Module {
        functions: vec![state.f],
        symbols: state.symbols,
        origins: state.origins,
        meta: mlconv_mil::ir::Meta {
            description: graph.meta.get("description").cloned().unwrap_or_default(),
            user: graph.meta.iter().filter(|(k, _)| *k != "description").map(|(k, v)| (k.clone(), v.clone())).collect(),
            ..Default::default()
        },
    };
    Lowering { module, diagnostics: state.problems.into_diagnostics() }
}

/// The positions of the outputs to keep.
fn kept_outputs(graph: &SourceGraph, request: &Request, problems: &mut Problems) -> Vec<usize> {
    if request.outputs.is_empty() {
        return (0..graph.outputs.len()).collect();
    }
    let mut kept = vec![];
    for name in &request.outputs {
        match graph.outputs.iter().position(|o| *o.name == **name) {
            Some(i) => kept.push(i),
            None => {
                let names: Vec<_> = graph.outputs.iter().map(|o| format!("`{}`", o.name)).collect();
                let d = Diagnostic::error(&codes::L0001, format!("the model has no output `{name}`"));
                problems.plain(d.help(format!("its outputs are {}", names.join(", "))));
            }
        }
    }
    kept
}

impl State {
    /// Adds the function's inputs.
    fn interface(&mut self, graph: &SourceGraph, request: &Request, frame: &mut Frame) {
        let wanted: Vec<_> = graph.inputs.iter().filter(|i| !graph.constants.contains_key(&i.name)).collect();
        let mut used = vec![false; request.inputs.len()];
        for input in &wanted {
            let spec = request.inputs.iter().position(|s| match &s.name {
                Some(name) => **name == *input.name || Namer::legal(&input.name) == *name,
                None => wanted.len() == 1,
            });
            if let Some(i) = spec {
                used[i] = true;
            }
            match self.input_type(&input.name, input.ty.as_ref(), spec.map(|i| &request.inputs[i])) {
                Ok((ty, shapes)) => {
                    let mut port = Port::new(input.name.clone());
                    port.description.clone_from(&input.description);
                    port.shapes = shapes;
                    let v = self.f.add_input(port, ty);
                    frame.define(input.name.clone(), Entry::Value(v));
                }
                Err(d) => {
                    self.problems.plain(d.at(format!("input `{}`", input.name)));
                    frame.define(input.name.clone(), Entry::Poisoned);
                }
            }
        }
        for (spec, _) in request.inputs.iter().zip(used).filter(|(_, used)| !used) {
            let names: Vec<_> = wanted.iter().map(|i| format!("`{}`", i.name)).collect();
            let title = match &spec.name {
                Some(name) => format!("the model has no input `{name}`"),
                None => "an input shape without a name, but the model has several inputs".to_owned(),
            };
            let d = Diagnostic::error(&codes::L0001, title);
            self.problems.plain(d.help(format!("its inputs are {}", names.join(", "))));
        }
    }

    /// The type of an input: what the user asks for, else what the source states.
    fn input_type(
        &mut self,
        name: &str,
        stated: Option<&SourceType>,
        spec: Option<&InputSpec>,
    ) -> Result<(TensorType, Vec<Vec<i64>>), Diagnostic> {
        let dtype = spec.and_then(|s| s.dtype).or(stated.map(|t| t.dtype)).unwrap_or(DType::F32);
        let Some(narrow) = narrowed(dtype) else {
            return Err(Diagnostic::error(&codes::F0102, format!("inputs of type {dtype} are not supported")));
        };
        if narrow != dtype {
            let title = format!("input `{name}` is {narrow}, as Core ML has no {dtype} inputs");
            self.problems.plain(Diagnostic::warning(&codes::F0107, title));
        }
        let stated_dims = stated.and_then(|t| t.shape.as_ref());
        if let Some(spec) = spec {
            if let Some(dims) = stated_dims {
                let fits = dims.len() == spec.dims.len()
                    && dims.iter().zip(&spec.dims).all(|(d, s)| match (d, s) {
                        (SourceDim::Known(a), DimSpec::Known(b)) => a == b,
                        (SourceDim::Known(_), _) => false,
                        _ => true,
                    });
                if !fits {
                    let ty = stated.map(ToString::to_string).unwrap_or_default();
                    return Err(Diagnostic::error(&codes::L0001, format!("the requested shape does not fit {ty}")));
                }
            }
            let (shape, shapes) = self.requested_shape(name, &spec.dims);
            return Ok((TensorType::new(narrow, shape), shapes));
        }
        let Some(dims) = stated_dims else {
            let d = Diagnostic::error(&codes::F0105, "the model does not state its shape");
            return Err(d.help(format!("say it with `--input {name}=1x3x224x224`")));
        };
        let shape: Vec<Dim> = dims.iter().enumerate().map(|(axis, d)| self.stated_dim(name, axis, d)).collect();
        Ok((TensorType::new(narrow, shape), vec![]))
    }

    fn requested_shape(&mut self, name: &str, dims: &[DimSpec]) -> (Shape, Vec<Vec<i64>>) {
        let choices = dims.iter().map(|d| if let DimSpec::OneOf(v) = d { v.len() } else { 1 }).max().unwrap_or(1);
        let mut shape = vec![];
        for (axis, d) in dims.iter().enumerate() {
            let symbol = format!("{}_{axis}", Namer::legal(name));
            shape.push(match d {
                DimSpec::Known(n) => Dim::from(*n),
                DimSpec::Range { min, max, default } => {
                    let default = Some(default.unwrap_or(*min));
                    self.symbols.set(symbol.as_str(), SymbolInfo { min: *min, max: Some(*max), default });
                    Dim::symbol(symbol)
                }
                DimSpec::OneOf(v) => {
                    let (min, max) = (v.iter().min().copied().unwrap_or(1), v.iter().max().copied());
                    self.symbols.set(symbol.as_str(), SymbolInfo { min, max, default: v.first().copied() });
                    Dim::symbol(symbol)
                }
                DimSpec::Symbol(s) => {
                    if self.symbols.get(s).is_none() {
                        let info = SymbolInfo { min: 1, max: Some(OPEN_MAX), default: None };
                        self.symbols.set(s.as_str(), info);
                    }
                    Dim::symbol(s.as_str())
                }
            });
        }
        // Choices go together: the first of one axis with the first of another.
        let enumerated = dims.iter().any(|d| matches!(d, DimSpec::OneOf(_)));
        let nth = |k: usize| {
            dims.iter().map(move |d| match d {
                DimSpec::Known(n) => *n,
                DimSpec::OneOf(v) => v.get(k).or(v.last()).copied().unwrap_or(1),
                DimSpec::Range { min, default, .. } => default.unwrap_or(*min),
                DimSpec::Symbol(_) => 1,
            })
        };
        let shapes = if enumerated { (0..choices).map(|k| nth(k).collect()).collect() } else { vec![] };
        (Shape::from(shape), shapes)
    }

    fn stated_dim(&mut self, input: &str, axis: usize, d: &SourceDim) -> Dim {
        let dim = match d {
            SourceDim::Known(n) => return Dim::from(*n),
            SourceDim::Named(text) => Dim::parse(text).unwrap_or_else(|| Dim::symbol(Namer::legal(text))),
            SourceDim::Unknown => Dim::symbol(format!("{}_{axis}", Namer::legal(input))),
        };
        let mut open = vec![];
        dim.visit_symbols(&mut |s| {
            if self.symbols.get(s).is_none() {
                open.push(s.clone());
            }
        });
        for s in open {
            self.symbols.set(s.clone(), SymbolInfo { min: 1, max: Some(OPEN_MAX), default: None });
            let title =
                format!("size `{s}` of input `{input}` has no limit in the source; the package allows 1 to {OPEN_MAX}");
            let d = Diagnostic::warning(&codes::F0107, title);
            self.problems.plain(d.help("give it a size or range with `--input`, as in `--input x=1x[1..512]`"));
        }
        dim
    }

    fn outputs(&mut self, graph: &SourceGraph, kept: &[usize], entries: Vec<Entry>) {
        let body = self.f.body();
        let mut entries: Vec<Option<Entry>> = entries.into_iter().map(Some).collect();
        for i in kept {
            let Some(source) = graph.outputs.get(*i) else { continue };
            let entry = entries.get_mut(*i).and_then(Option::take).unwrap_or(Entry::Poisoned);
            match self.materialize(&source.name, entry, body) {
                Ok(v) => {
                    let mut port = Port::new(source.name.clone());
                    port.description.clone_from(&source.description);
                    self.f.add_output(port, v);
                }
                Err(LowerError::Poisoned) => {}
                Err(e) => {
                    let d = Diagnostic::error(&codes::F0102, e.to_string());
                    self.problems.plain(d.at(format!("output `{}`", source.name)));
                }
            }
        }
    }

    /// Lowers the nodes of `graph` into `block`; what the graph returns.
    pub(crate) fn nested(
        &mut self,
        graph: &SourceGraph,
        mut frame: Frame,
        block: Block,
    ) -> Result<Vec<Entry>, LowerError> {
        if self.frames.len() >= MAX_NESTING {
            return Err(LowerError::form("such deep nesting of graphs"));
        }
        for (name, t) in &graph.constants {
            frame.define(name.clone(), Entry::Const(t.clone()));
        }
        self.frames.push(frame);
        match sorted(graph, &|name| self.entry(name).is_some()) {
            Ok(nodes) => nodes.into_iter().for_each(|node| self.node(node, block)),
            Err(d) => self.problems.plain(d),
        }
        let mut returned = vec![];
        for o in &graph.outputs {
            returned.push(self.entry(&o.name).cloned().unwrap_or_else(|| {
                let title = format!("output `{}` is not defined by any node", o.name);
                self.problems.plain(Diagnostic::error(&codes::F0106, title));
                Entry::Poisoned
            }));
        }
        self.frames.pop();
        Ok(returned)
    }

    fn node(&mut self, node: &Node, block: Block) {
        let origin = self.origins.intern(Origin::Source(SourceInfo {
            node: node.name.clone(),
            op: node.operator().into(),
            module: node.module.clone(),
            line: node.line.clone(),
        }));
        let lowered = match self.table.row(&node.domain, &node.op, node.version) {
            Err(versions) => {
                self.problems.unsupported(node, versions.as_deref());
                Err(LowerError::Poisoned)
            }
            Ok(row) => {
                let mut n = Lower {
                    node,
                    state: self,
                    block,
                    origin,
                    read_attrs: RefCell::default(),
                    read_inputs: RefCell::default(),
                };
                (row.lower)(&mut n).and_then(|entries| n.all_read().map(|()| entries))
            }
        };
        let entries = match lowered {
            Ok(entries) => {
                // Trailing outputs that a lowering does not make may still be unwanted by the node.
                let missing = node.outputs.iter().skip(entries.len()).any(|o| !o.is_empty());
                if missing {
                    let e = LowerError::Results { found: entries.len(), want: node.outputs.len() };
                    self.problems.failed(node, &e);
                }
                entries
            }
            Err(LowerError::Poisoned) => vec![],
            Err(e) => {
                self.problems.failed(node, &e);
                vec![]
            }
        };
        let Some(frame) = self.frames.last_mut() else { return };
        let mut entries = entries.into_iter();
        for name in &node.outputs {
            let entry = entries.next().unwrap_or(Entry::Poisoned);
            if !name.is_empty() {
                frame.define(name.clone(), entry);
            }
        }
    }

    /// What `name` stands for, in the innermost graph that defines it.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.frames.iter().rev().find_map(|f| f.names.get(name))
    }

    /// The value called `name`; a constant becomes an op in `block`.
    pub(crate) fn value(&mut self, name: &Arc<str>, block: Block) -> Result<Value, LowerError> {
        match self.entry(name) {
            None | Some(Entry::Poisoned) => Err(LowerError::Poisoned),
            Some(Entry::Value(v)) if matches!(self.f.ty(*v), Type::Unknown) => Err(LowerError::Poisoned),
            Some(Entry::Value(v)) => Ok(*v),
            Some(Entry::Const(t)) => {
                let t = t.clone();
                self.materialize(name, Entry::Const(t), block)
            }
        }
    }

    /// The value of an entry; a constant becomes an op in `block`.
    pub(crate) fn materialize(&mut self, name: &Arc<str>, entry: Entry, block: Block) -> Result<Value, LowerError> {
        match entry {
            Entry::Value(v) => Ok(v),
            Entry::Poisoned => Err(LowerError::Poisoned),
            Entry::Const(t) => {
                let val = narrow(name, &t)?;
                let v = self.f.insert(Place::End(block), &[name], Box::new(ops::Const { val }), None)?;
                Ok(v[0])
            }
        }
    }

    /// Adds an op, or the constants that it comes to.
    pub(crate) fn insert(
        &mut self,
        place: Place,
        hints: &[&str],
        op: Box<dyn Op>,
        origin: Option<OriginId>,
    ) -> Result<Values, LowerError> {
        let is_const = op.name() == "const";
        let results = self.f.insert(place, hints, op, origin)?;
        let Some(id) = results.first().and_then(|v| self.f.def_op(*v)).filter(|_| !is_const) else {
            return Ok(results);
        };
        let Some(folded) = fold(&self.f, id, MAX_FOLDED) else { return Ok(results) };
        self.f.remove(id);
        let mut constants = Values::new();
        for (i, val) in folded.into_iter().enumerate() {
            let hint = hints.get(i).or(hints.last()).copied().unwrap_or("");
            constants.push(self.f.insert(place, &[hint], Box::new(ops::Const { val }), origin)?[0]);
        }
        Ok(constants)
    }
}

impl Lower<'_> {
    /// Refuses arguments that nothing asked for.
    fn all_read(&self) -> Result<(), LowerError> {
        let (attrs, inputs) = (self.read_attrs.borrow(), self.read_inputs.borrow());
        if let Some(name) = self.node.attrs.keys().find(|k| !attrs.contains(&***k)) {
            return Err(LowerError::Unread { name: name.to_string() });
        }
        let unread = (0..self.node.inputs.len())
            .find(|i| !inputs.contains(i) && !matches!(self.node.inputs.get(*i), Some(Arg::None)));
        unread.map_or(Ok(()), |index| Err(LowerError::UnreadInput { index }))
    }
}

/// The nodes in an order in which each follows what it reads; their own order where that is one.
fn sorted<'g>(graph: &'g SourceGraph, outer: &dyn Fn(&str) -> bool) -> Result<Vec<&'g Node>, Diagnostic> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        for out in node.outputs.iter().filter(|o| !o.is_empty()) {
            let twice = makers.insert(out, i).is_some() || graph.constants.contains_key(out);
            if twice || graph.inputs.iter().any(|v| v.name == *out) {
                return Err(Diagnostic::error(&codes::F0106, format!("`{out}` is defined twice")).at(place(node)));
            }
        }
    }
    let reads: Vec<Vec<usize>> = graph
        .nodes
        .iter()
        .map(|node| {
            let mut from = vec![];
            for name in deep_reads(node) {
                match makers.get(&*name) {
                    Some(i) => from.push(*i),
                    None if outer(&name) => {}
                    None => {
                        let d = Diagnostic::error(&codes::F0106, format!("`{name}` is read but not defined"));
                        return Err(d.at(place(node)));
                    }
                }
            }
            Ok(from)
        })
        .collect::<Result<_, _>>()?;
    let (mut order, mut done) = (vec![], vec![0u8; reads.len()]);
    for start in 0..reads.len() {
        // Depth first with a stack of our own: a chain of nodes may be as long as the file.
        let mut stack = vec![(start, 0)];
        while let Some((i, k)) = stack.pop() {
            if done[i] == 2 {
                continue;
            }
            done[i] = 1;
            match reads[i].get(k) {
                Some(from) if done[*from] == 1 => {
                    let d = Diagnostic::error(&codes::F0106, "nodes depend on each other in a circle");
                    return Err(d.at(place(&graph.nodes[i])));
                }
                Some(from) => {
                    stack.push((i, k + 1));
                    stack.push((*from, 0));
                }
                None => {
                    done[i] = 2;
                    order.push(&graph.nodes[i]);
                }
            }
        }
    }
    Ok(order)
}

/// What a node reads, and what its nested graphs read from outside of themselves.
fn deep_reads(node: &Node) -> Vec<Arc<str>> {
    let mut out: Vec<Arc<str>> = node.reads().cloned().collect();
    let mut todo: Vec<(&SourceGraph, HashSet<Arc<str>>)> = node.graphs().map(|g| (g, HashSet::new())).collect();
    while let Some((graph, mut known)) = todo.pop() {
        known.extend(graph.inputs.iter().map(|v| v.name.clone()));
        known.extend(graph.constants.keys().cloned());
        known.extend(graph.nodes.iter().flat_map(|n| n.outputs.iter().cloned()));
        let returned = graph.outputs.iter().map(|v| &v.name);
        for name in graph.nodes.iter().flat_map(Node::reads).chain(returned) {
            if !known.contains(name) {
                out.push(name.clone());
            }
        }
        todo.extend(graph.nodes.iter().flat_map(Node::graphs).map(|g| (g, known.clone())));
    }
    out
}

fn place(node: &Node) -> String {
    SourceInfo {
        node: node.name.clone(),
        op: node.operator().into(),
        module: node.module.clone(),
        line: node.line.clone(),
    }
    .to_string()
}

/// What went wrong, equal problems of several nodes together.
#[derive(Default)]
struct Problems {
    plain: Vec<Diagnostic>,
    nodes: IndexMap<(String, String), (Diagnostic, Vec<String>)>,
}

impl Problems {
    fn plain(&mut self, d: Diagnostic) {
        self.plain.push(d);
    }

    fn unsupported(&mut self, node: &Node, versions: Option<&str>) {
        let title = match versions {
            None => format!("`{}` is not supported", node.operator()),
            Some(v) => format!("`{}` of version {} is not supported, only {v}", node.operator(), node.version),
        };
        self.add(node, Diagnostic::error(&codes::F0101, title));
    }

    fn failed(&mut self, node: &Node, e: &LowerError) {
        let code = match e {
            LowerError::Unread { .. } | LowerError::UnreadInput { .. } => &codes::F0103,
            LowerError::DoesNotFit { .. } => &codes::F0104,
            LowerError::Form { .. } => &codes::F0101,
            _ => &codes::F0102,
        };
        let mut d = Diagnostic::error(code, format!("`{}`: {e}", node.operator()));
        d.help = e.help().map(str::to_owned);
        if let LowerError::Unread { name } = e {
            let line = brief(node);
            let at = line.find(&format!("{name}=")).unwrap_or(0);
            let end = line[at..].find([',', ')']).map_or(line.len(), |n| at + n);
            d = d.snippet(line, at..end);
        }
        self.add(node, d);
    }

    fn add(&mut self, node: &Node, d: Diagnostic) {
        let key = (node.operator(), d.title.clone());
        self.nodes.entry(key).or_insert_with(|| (d, vec![])).1.push(place(node));
    }

    fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut out = self.plain;
        for (mut d, places) in self.nodes.into_values() {
            if places.len() > 1 {
                d.title = format!("{} ({} nodes)", d.title, places.len());
            }
            let more = places.len().saturating_sub(3);
            d.place = places.into_iter().take(3).collect();
            if more > 0 {
                d.place.push(format!("and {more} more"));
            }
            out.push(d);
        }
        out
    }
}

/// A node as one short line.
fn brief(node: &Node) -> String {
    let line = node.to_string();
    if line.len() <= 200 { line } else { line.chars().take(200).collect::<String>() + "…" }
}
