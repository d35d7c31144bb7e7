//! Walks a source graph with a table, and collects everything that has no lowering.

use crate::{
    Absent, Arg, Lower, LowerError, Node, Request, SourceDim, SourceGraph, SourceState, SourceType, SourceValue, Table,
    Values,
    bounds::Bounds,
    interface::no_tensor,
    lower::{narrow, narrowed},
    order::{deep_reads, sorted},
    problems::{At, Line, Problems},
};
use indexmap::IndexMap;
use mlconv_mil::{
    diagnostic::{Diagnostic, Limit, codes},
    fold::Budget,
    ir::{Block, Fact, Function, Module, Origin, OriginId, Origins, Place, Port, SourceInfo, Value},
    ops,
    schema::Op,
    verify::{Fault, faults},
};
use mlconv_tensor::{DType, Dim, Shape, Symbols, Tensor, TensorType, Type};
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
    /// Nodes that were not judged, as they read what is not known: the module lacks them. Those of nested graphs are not
    /// among them.
    pub unjudged: Vec<Arc<str>>,
}

/// What a name of the source graph stands for.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A value of the function.
    Value(Value),
    /// A constant as the source has it.
    Const(Tensor),
    /// A sequence, whose elements are values and constants: programs have none, so it is known while lowering.
    Sequence(Arc<[Entry]>),
    /// An optional without an element. One with an element is that element.
    Nothing,
    /// The result of a node that was not lowered.
    Poisoned,
}

impl Entry {
    /// Why this cannot be read as a tensor.
    fn no_tensor(&self) -> LowerError {
        let what = match self {
            Self::Sequence(elements) => format!("a sequence of {} elements where a tensor is wanted", elements.len()),
            _ => "an optional without an element where a tensor is wanted".to_owned(),
        };
        let help = "Core ML has only tensors; sequences and optionals are resolved while converting";
        LowerError::form_but(what, help).by(Limit::CoreMl)
    }
}

/// The names of one graph.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) names: HashMap<Arc<str>, Entry>,
    /// What the source states of types.
    pub(crate) types: HashMap<Arc<str>, SourceType>,
    /// What follows from that of shapes.
    shapes: HashMap<Arc<str>, Vec<SourceDim>>,
    /// Constants that were read as values, in the types that these have.
    narrowed: HashMap<Arc<str>, Tensor>,
}

impl Frame {
    pub(crate) fn define(&mut self, name: Arc<str>, entry: Entry) {
        self.names.insert(name, entry);
    }
}

/// What is said of integers of 64 bits that may need them all.
const WIDE: &str = "integers of 64 bits are computed with 32, and nothing proves that these results stay below 2^31";
const WIDE_HELP: &str = "integers of inputs are taken to be below 2^30; larger results come out wrong";

/// The key of a package's metadata under which stand the inputs that were left out, as they have no elements.
const LEFT_OUT_KEY: &str = "com.github.mlconv.left-out";
/// Nesting of graphs beyond which a model is refused.
const MAX_NESTING: usize = 32;
/// Nodes of nested graphs that may be lowered, those of loops once for each turn.
const MAX_NESTED: usize = 1 << 18;

pub(crate) struct State {
    pub(crate) f: Function,
    pub(crate) origins: Origins,
    pub(crate) symbols: Symbols,
    pub(crate) table: &'static Table,
    pub(crate) frames: Vec<Frame>,
    pub(crate) budget: Budget,
    /// Nodes of nested graphs that were lowered so far.
    nested: usize,
    pub(crate) problems: Problems,
    /// Nodes that read what is not known, but for those of nested graphs.
    unjudged: Vec<Arc<str>>,
    /// Names of what follows from a node that was not lowered, with a value of the stated type in its place.
    stand_ins: HashSet<Arc<str>>,
    /// What the nested graph that was lowered last states of the type of its first result.
    pub(crate) returned: Option<DType>,
    /// Whether a constant that the node at hand came to may not be what exact integers would have made of it.
    wrapped: bool,
    /// Between which numbers values lie, as far as that was asked.
    pub(crate) known_bounds: HashMap<Value, Bounds>,
    /// Whether there are constants whose data are not at hand, so that what follows from them is not known.
    pub(crate) unread: bool,
    /// Names of inputs without elements, which the function does not have.
    pub(crate) left_out: Vec<String>,
}

/// Lowers `graph` to a module of one function, `main`.
pub fn lower(graph: &SourceGraph, table: &'static Table, request: &Request) -> Lowering {
    let mut state = State::new(graph, table, request);
    let mut frame = Frame::default();
    state.interface(graph, request, &mut frame);
    let held = state.begins(graph, request, &mut frame);
    let body = state.f.body();
    let kept = kept_outputs(graph, request, &mut state.problems);
    let pruned;
    let (graph, kept) = if (kept.len() < graph.outputs.len() && !kept.is_empty()) || !graph.states.is_empty() {
        pruned = pruned_to(graph, &kept);
        (&pruned, (0..kept.len()).collect())
    } else {
        (graph, kept)
    };
    // Of a request that does not fit, what nodes say of it is beside the point.
    let lowered =
        if state.problems.refuses_request() { Err(LowerError::Poisoned) } else { state.nested(graph, frame, body) };
    match lowered {
        Ok(mut entries) => {
            let after = entries.split_off(entries.len() - graph.states.len().min(entries.len()));
            state.outputs(graph, &kept, entries);
            state.ends(graph, &held, after);
        }
        Err(LowerError::Poisoned) => {}
        Err(e) => state.problems.plain(Diagnostic::error(&codes::F0106, e.to_string())),
    }
    state.finish(graph)
}

/// The positions of the outputs to keep.
pub(crate) fn kept_outputs(graph: &SourceGraph, request: &Request, problems: &mut Problems) -> Vec<usize> {
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

/// The graph with these outputs only, what its states become behind them, and what these need.
fn pruned_to(graph: &SourceGraph, kept: &[usize]) -> SourceGraph {
    let after =
        |s: &SourceState| SourceValue { name: s.after.clone(), ty: None, other: None, description: String::new() };
    let kept = kept.iter().filter_map(|i| graph.outputs.get(*i).cloned());
    let outputs: Vec<_> = kept.chain(graph.states.iter().map(after)).collect();
    let mut makers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        node.outputs.iter().for_each(|o| makers.entry(o).or_default().push(i));
    }
    let mut needed = vec![false; graph.nodes.len()];
    let mut todo: Vec<&str> = outputs.iter().map(|o| &*o.name).collect();
    while let Some(name) = todo.pop() {
        for i in makers.remove(name).unwrap_or_default() {
            if !needed[i] {
                needed[i] = true;
                todo.extend(deep_reads(&graph.nodes[i]));
            }
        }
    }
    let nodes = graph.nodes.iter().zip(needed).filter(|(_, needed)| *needed).map(|(node, _)| node.clone()).collect();
    SourceGraph { outputs, nodes, ..graph.clone() }
}

impl State {
    pub(crate) fn new(graph: &SourceGraph, table: &'static Table, request: &Request) -> Self {
        let mut problems = Problems::default();
        graph.notes.iter().cloned().for_each(|d| problems.plain(d));
        Self {
            f: Function::new("main", request.opset.unwrap_or_default()),
            origins: Origins::default(),
            symbols: Symbols::default(),
            table,
            frames: vec![],
            budget: Budget::new(graph.constants.values().map(Tensor::count).fold(0, usize::saturating_add)),
            nested: 0,
            problems,
            unjudged: vec![],
            stand_ins: HashSet::new(),
            returned: None,
            wrapped: false,
            known_bounds: HashMap::new(),
            unread: false,
            left_out: vec![],
        }
    }

    /// What has been lowered, with what the source says of itself.
    pub(crate) fn finish(mut self, graph: &SourceGraph) -> Lowering {
        self.f.settle_hints();
        let mut user: IndexMap<String, String> =
            graph.meta.iter().filter(|(k, _)| *k != "description").map(|(k, v)| (k.clone(), v.clone())).collect();
        if !self.left_out.is_empty() {
            user.insert(LEFT_OUT_KEY.to_owned(), self.left_out.join(", "));
        }
        let module = Module {
            functions: vec![self.f],
            symbols: self.symbols,
            origins: self.origins,
            meta: mlconv_mil::ir::Meta {
                description: graph.meta.get("description").cloned().unwrap_or_default(),
                user,
                ..Default::default()
            },
        };
        Lowering { module, diagnostics: self.problems.into_diagnostics(), unjudged: self.unjudged }
    }

    pub(crate) fn outputs(&mut self, graph: &SourceGraph, kept: &[usize], entries: Vec<Entry>) {
        let body = self.f.body();
        let mut entries: Vec<Option<Entry>> = entries.into_iter().map(Some).collect();
        for i in kept {
            let Some(source) = graph.outputs.get(*i) else { continue };
            if let Some(other) = &source.other {
                self.problems.plain(no_tensor("output", other).at(format!("output `{}`", source.name)));
                continue;
            }
            let entry = entries.get_mut(*i).and_then(Option::take).unwrap_or(Entry::Poisoned);
            let title = format!("output `{}`", source.name);
            if self.is_lost(&source.name, &entry, title) {
                continue;
            }
            match self.materialize(&source.name, entry, body) {
                Ok(v) => {
                    let mut port = Port::new(source.name.clone());
                    port.description.clone_from(&source.description);
                    self.f.add_output(port, v);
                }
                Err(LowerError::Poisoned) => {}
                Err(e) => {
                    let mut d = Diagnostic::error(&codes::F0102, e.to_string()).limit(e.limit());
                    d.help = e.help().map(str::to_owned);
                    self.problems.plain(d.at(format!("output `{}`", source.name)));
                }
            }
        }
    }

    /// Whether what is returned follows from a node that was not lowered. Where nothing was said of that, says it: else the
    /// module would lack it silently.
    pub(crate) fn is_lost(&mut self, name: &Arc<str>, entry: &Entry, title: String) -> bool {
        let lost = matches!(entry, Entry::Poisoned) || self.stand_ins.contains(name);
        if lost && !self.unread && !self.problems.has_error() {
            let why = format!("{title} follows from a node that has no lowering in this form");
            let nodes = self.unjudged.iter().take(3).map(|node| format!("node `{node}`"));
            let d = nodes.fold(Diagnostic::error(&codes::F0102, why), |d, node| d.at(node));
            self.problems.plain(d);
        }
        matches!(entry, Entry::Poisoned)
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
        if !self.frames.is_empty() {
            // Loops in loops multiply. A graph without nodes is some work as well.
            self.nested = self.nested.saturating_add(graph.nodes.len() + 1);
            if self.nested > MAX_NESTED {
                return Err(LowerError::form("loops that come to so many nodes, written out,"));
            }
        }
        for (name, t) in &graph.constants {
            frame.define(name.clone(), Entry::Const(t.clone()));
        }
        for (name, absent) in &graph.absent {
            frame.define(name.clone(), Entry::Poisoned);
            if let Absent::Other(what) = absent {
                let d = Diagnostic::error(&codes::F0101, format!("a constant that is {what} is not supported"));
                self.problems.plain(d.limit(Limit::CoreMl).at(format!("constant `{name}`")));
            }
            self.unread |= *absent == Absent::Unread;
        }
        let ends = graph.inputs.iter().chain(&graph.outputs).filter_map(|v| Some((&v.name, v.ty.as_ref()?)));
        frame.types = ends.chain(&graph.types).map(|(name, ty)| (name.clone(), ty.clone())).collect();
        frame.shapes = graph.shapes.iter().map(|(name, shape)| (name.clone(), shape.clone())).collect();
        self.frames.push(frame);
        match sorted(graph, &|name| self.entry(name).is_some()) {
            Ok(nodes) => nodes.into_iter().for_each(|node| self.node(node, block)),
            Err(d) => {
                // What the graph returns follows from nodes that were not looked at.
                self.problems.plain(d);
                self.frames.pop();
                return Ok(vec![Entry::Poisoned; graph.outputs.len()]);
            }
        }
        let mut returned = vec![];
        for o in &graph.outputs {
            returned.push(self.entry(&o.name).cloned().unwrap_or_else(|| {
                let title = format!("output `{}` is not defined by any node", o.name);
                self.problems.plain(Diagnostic::error(&codes::F0106, title));
                Entry::Poisoned
            }));
        }
        self.returned = graph.outputs.first().and_then(|o| self.stated(&o.name)).map(|t| t.dtype);
        self.frames.pop();
        Ok(returned)
    }

    /// Lowers a node, and gives its results their names.
    pub(crate) fn node(&mut self, node: &Node, block: Block) {
        let guessed = self.is_guessed(node);
        let mut entries = self.entries(node, block).into_iter();
        for name in &node.outputs {
            let entry = entries.next().unwrap_or(Entry::Poisoned);
            if name.is_empty() {
                continue;
            }
            let entry = match entry {
                Entry::Poisoned if self.problems.has_error() || !self.unjudged.is_empty() => self.stand_in(name),
                entry => entry,
            };
            if guessed || matches!(entry, Entry::Poisoned) {
                self.stand_ins.insert(name.clone());
            }
            if let Some(frame) = self.frames.last_mut() {
                frame.define(name.clone(), entry);
            }
        }
    }

    /// Whether a node reads what stands in for a value that is not known.
    fn is_guessed(&self, node: &Node) -> bool {
        !self.stand_ins.is_empty() && deep_reads(node).iter().any(|name| self.stand_ins.contains(*name))
    }

    /// Says why a node was not lowered.
    pub(crate) fn report(&mut self, node: &Node, e: &LowerError) {
        let mut problems = std::mem::take(&mut self.problems);
        problems.failed(node, e, |at| self.line(node, at));
        self.problems = problems;
    }

    /// Lowers a node; what it gives, nothing where it was not lowered.
    pub(crate) fn entries(&mut self, node: &Node, block: Block) -> Vec<Entry> {
        let outermost = self.frames.len() == 1;
        let mut judged = true;
        let origin = self.origins.intern(Origin::Source(SourceInfo {
            node: node.name.clone(),
            op: node.operator().into(),
            module: node.module.clone(),
            line: node.line.clone(),
        }));
        let guessed = self.is_guessed(node);
        let mut made = None;
        self.wrapped = false;
        let lowered = match self.table.row(&node.domain, &node.op, node.version) {
            Err(versions) => {
                self.problems.unsupported(node, versions.as_deref(), self.table);
                Err(LowerError::Poisoned)
            }
            Ok(row) => {
                let mut n = Lower {
                    node,
                    row,
                    state: self,
                    block,
                    origin,
                    made: None,
                    read_attrs: RefCell::default(),
                    read_inputs: RefCell::default(),
                };
                let lowered = (row.lower)(&mut n).and_then(|entries| n.all_read().map(|()| entries));
                made = n.made;
                judged = !matches!(lowered, Err(LowerError::Poisoned));
                lowered
            }
        };
        let entries = match lowered {
            Ok(entries) => {
                // Trailing outputs that a lowering does not make may still be unwanted by the node.
                let missing = node.outputs.iter().skip(entries.len()).any(|o| !o.is_empty());
                if missing && !guessed {
                    let e = LowerError::Results { found: entries.len(), want: node.outputs.len() };
                    self.report(node, &e);
                }
                entries
            }
            Err(LowerError::Poisoned) => vec![],
            Err(e) => {
                // What a stand-in is not known for is not the node's fault.
                if !guessed || e.is_own() {
                    self.report(node, &e);
                } else {
                    judged = false;
                }
                vec![]
            }
        };
        if outermost && !judged {
            self.unjudged.push(node.name.clone());
        }
        if let Some(Entry::Value(v)) = entries.first()
            && self.f.ty(*v).tensor().is_some_and(|t| t.dtype == DType::I32)
        {
            let (v, name) = (*v, node.outputs.first());
            if made.is_none() && name.is_some_and(|name| self.stated(name).is_none()) {
                made = self.type_of_result(node);
            }
            let own = self.f.def_op(v).is_some_and(|id| self.f.op_data(id).origin == Some(origin));
            if own && self.is_wide(node, made) && (self.wrapped || self.may_overflow(v)) {
                self.problems.warn_of_all(node, &codes::F0108, WIDE, WIDE_HELP);
            }
        }
        if let (Some(dtype), Some(name), Some(frame)) = (made, node.outputs.first(), self.frames.last_mut()) {
            frame.types.entry(name.clone()).or_insert(SourceType { dtype, shape: None });
        }
        entries
    }

    /// A node as a line of text, with the types of what it reads.
    fn line(&self, node: &Node, at: At<'_>) -> Line {
        Line::of(node, at, &|name| match self.entry(name)? {
            Entry::Value(v) => Some(self.f.ty(*v).to_string()),
            Entry::Const(t) => Some(TensorType::new(t.dtype(), Shape::from(t.shape())).to_string()),
            Entry::Sequence(elements) => Some(format!("a sequence of {}", elements.len())),
            Entry::Nothing => Some("an optional without an element".to_owned()),
            Entry::Poisoned => None,
        })
    }

    /// A value of the type that the source states for `name`, which no node makes: so that what reads it is looked at
    /// as well. There is an error already, or a node that was not judged, so the function is never used.
    fn stand_in(&mut self, name: &Arc<str>) -> Entry {
        let stated = self.stated(name).cloned();
        let ty = stated.and_then(|t| {
            let dims = t.shape?.into_iter().map(|d| match d {
                SourceDim::Known(n) => Some(Dim::from(n)),
                SourceDim::Named(text) => Dim::parse(&text),
                SourceDim::Unknown => None,
            });
            Some(TensorType::new(narrowed(t.dtype)?, Shape::from(dims.collect::<Option<Vec<Dim>>>()?)))
        });
        self.stand_ins.insert(name.clone());
        let Some(ty) = ty else { return Entry::Poisoned };
        let block = self.f.add_block();
        Entry::Value(self.f.add_arg(block, name, Fact::of(ty)))
    }

    /// What `name` stands for, in the innermost graph that defines it.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.frames.iter().rev().find_map(|f| f.names.get(name))
    }

    /// What the source states of the type of `name`, in the innermost graph that states it.
    pub(crate) fn stated(&self, name: &str) -> Option<&SourceType> {
        self.frames.iter().rev().find_map(|f| f.types.get(name))
    }

    /// The shape that the source states of `name`, or that follows from what it states.
    pub(crate) fn stated_shape(&self, name: &str) -> Option<&Vec<SourceDim>> {
        let stated = self.stated(name).and_then(|ty| ty.shape.as_ref());
        stated.or_else(|| self.frames.iter().rev().find_map(|f| f.shapes.get(name)))
    }

    /// The value called `name`; a constant becomes an op in `block`.
    pub(crate) fn value(&mut self, name: &Arc<str>, block: Block) -> Result<Value, LowerError> {
        match self.entry(name) {
            None | Some(Entry::Poisoned) => Err(LowerError::Poisoned),
            Some(Entry::Value(v)) if matches!(self.f.ty(*v), Type::Unknown) => Err(LowerError::Poisoned),
            Some(Entry::Value(v)) => Ok(*v),
            Some(e @ (Entry::Sequence(_) | Entry::Nothing)) => Err(e.no_tensor()),
            Some(Entry::Const(_)) => {
                let val = self.narrowed(name)?;
                self.constant(name, val, block)
            }
        }
    }

    /// The constant called `name` in a type that MIL computes with: narrowed once, however often it is read.
    fn narrowed(&mut self, name: &Arc<str>) -> Result<Tensor, LowerError> {
        let frame = self.frames.iter_mut().rev().find(|f| f.names.contains_key(name));
        let Some(Frame { names, narrowed, .. }) = frame else { return Err(LowerError::Poisoned) };
        let Some(Entry::Const(t)) = names.get(name) else { return Err(LowerError::Poisoned) };
        if let Some(t) = narrowed.get(name) {
            return Ok(t.clone());
        }
        let val = narrow(name, t)?;
        narrowed.insert(name.clone(), val.clone());
        Ok(val)
    }

    fn constant(&mut self, name: &str, val: Tensor, block: Block) -> Result<Value, LowerError> {
        Ok(self.f.insert(Place::End(block), &[name], Box::new(ops::Const { val }), None)?[0])
    }

    /// Takes the elements of a new constant out of what may be made.
    pub(crate) fn charge(&mut self, elements: usize) -> Result<(), LowerError> {
        if self.budget.charge(elements) { Ok(()) } else { Err(LowerError::TooLarge) }
    }

    /// The value of an entry; a constant becomes an op in `block`.
    pub(crate) fn materialize(&mut self, name: &Arc<str>, entry: Entry, block: Block) -> Result<Value, LowerError> {
        match entry {
            Entry::Value(v) => Ok(v),
            Entry::Poisoned => Err(LowerError::Poisoned),
            Entry::Sequence(_) | Entry::Nothing => Err(entry.no_tensor()),
            Entry::Const(t) => {
                let val = narrow(name, &t)?;
                self.constant(name, val, block)
            }
        }
    }

    /// Removes what is in a block that was only made to see what comes out of it. Where nodes were not lowered, there is
    /// never a module of it, and other blocks that were begun may read values of it: then it stays.
    pub(crate) fn discard(&mut self, block: Block) {
        if self.problems.has_error() || !self.stand_ins.is_empty() {
            return;
        }
        self.f.set_yields(block, vec![]);
        let ops: Vec<_> = self.f.ops_in(block).collect();
        for id in ops.into_iter().rev() {
            self.f.remove(id);
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
        let Some(folded) = self.budget.fold(&self.f, id) else {
            // What the verifier would say of it later is said here of the node, beside what is wrong with others.
            if let Some(Fault { why, .. }) = faults(&self.f, id).into_iter().next() {
                let op = self.f.op_data(id).op.name().to_owned();
                return Err(LowerError::Operand { op, why });
            }
            return Ok(results);
        };
        if results.first().is_some_and(|v| self.f.ty(*v).tensor().is_some_and(|t| t.dtype == DType::I32)) {
            self.wrapped |= self.computed(results[0], 0).is_some_and(|b| !b.fits());
        }
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
