//! Walks a source graph with a table, and collects everything that has no lowering.

use crate::{
    Arg, Lower, LowerError, Node, Request, SourceGraph, SourceType, Table, Values, lower::narrow, order::sorted,
    problems::Problems,
};
use mlconv_mil::{
    diagnostic::{Diagnostic, codes},
    fold::Budget,
    ir::{Block, Function, Module, Origin, OriginId, Origins, Place, Port, SourceInfo, Value},
    ops,
    schema::Op,
};
use mlconv_tensor::{Symbols, Tensor, Type};
use std::{cell::RefCell, collections::HashMap, sync::Arc};

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
    /// What the source states of types.
    types: HashMap<Arc<str>, SourceType>,
    /// Constants that were read as values, in the types that these have.
    narrowed: HashMap<Arc<str>, Tensor>,
}

impl Frame {
    pub(crate) fn define(&mut self, name: Arc<str>, entry: Entry) {
        self.names.insert(name, entry);
    }
}

/// Nesting of graphs beyond which a model is refused.
const MAX_NESTING: usize = 32;
/// Nodes of nested graphs that may be lowered, those of loops once for each turn.
const MAX_NESTED: usize = 1 << 18;

pub(crate) struct State {
    pub(crate) f: Function,
    pub(crate) origins: Origins,
    pub(crate) symbols: Symbols,
    table: &'static Table,
    frames: Vec<Frame>,
    pub(crate) budget: Budget,
    /// Nodes of nested graphs that were lowered so far.
    nested: usize,
    pub(crate) problems: Problems,
}

/// Lowers `graph` to a module of one function, `main`.
pub fn lower(graph: &SourceGraph, table: &'static Table, request: &Request) -> Lowering {
    let mut state = State {
        f: Function::new("main", request.opset.unwrap_or_default()),
        origins: Origins::default(),
        symbols: Symbols::default(),
        table,
        frames: vec![],
        budget: Budget::new(graph.constants.values().map(Tensor::count).fold(0, usize::saturating_add)),
        nested: 0,
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
        let ends = graph.inputs.iter().chain(&graph.outputs).filter_map(|v| Some((&v.name, v.ty.as_ref()?)));
        frame.types = ends.chain(&graph.types).map(|(name, ty)| (name.clone(), ty.clone())).collect();
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
        let mut made = None;
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
                    made: None,
                    read_attrs: RefCell::default(),
                    read_inputs: RefCell::default(),
                };
                let lowered = (row.lower)(&mut n).and_then(|entries| n.all_read().map(|()| entries));
                made = n.made;
                lowered
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
        if let (Some(dtype), Some(name)) = (made, node.outputs.first()) {
            frame.types.entry(name.clone()).or_insert(SourceType { dtype, shape: None });
        }
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

    /// What the source states of the type of `name`, in the innermost graph that states it.
    pub(crate) fn stated(&self, name: &str) -> Option<&SourceType> {
        self.frames.iter().rev().find_map(|f| f.types.get(name))
    }

    /// The value called `name`; a constant becomes an op in `block`.
    pub(crate) fn value(&mut self, name: &Arc<str>, block: Block) -> Result<Value, LowerError> {
        match self.entry(name) {
            None | Some(Entry::Poisoned) => Err(LowerError::Poisoned),
            Some(Entry::Value(v)) if matches!(self.f.ty(*v), Type::Unknown) => Err(LowerError::Poisoned),
            Some(Entry::Value(v)) => Ok(*v),
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
            Entry::Const(t) => {
                let val = narrow(name, &t)?;
                self.constant(name, val, block)
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
        let Some(folded) = self.budget.fold(&self.f, id) else { return Ok(results) };
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
