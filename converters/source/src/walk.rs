//! Lowering node by node, for frontends that must know what came out so far: whose files are programs, not graphs.

use crate::{
    Arg, Entry, LowerError, Lowering, Node, Request, SourceGraph, SourceType, SourceValue, Table,
    driver::{Frame, State, kept_outputs},
    states::Held,
};
use mlconv_mil::{
    diagnostic::{Diagnostic, codes},
    ir::{Block, Origin, Place, SourceInfo, Value},
    ops,
};
use mlconv_tensor::{DType, Dim, Tensor};
use std::sync::Arc;

/// A number that is known while lowering.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Known {
    /// An integer.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// A float.
    Float(f64),
}

/// A branch that has been lowered, until it is joined with the other one.
pub struct Branch {
    block: Block,
    frame: Frame,
}

/// A function that is lowered node by node.
pub struct Walk {
    state: State,
    /// The blocks that nodes are put into, the innermost last.
    blocks: Vec<Block>,
    graph: SourceGraph,
    /// What the graph's buffers have become.
    held: Vec<Held>,
    request: Request,
}

impl Walk {
    /// Begins with the inputs, constants and symbols of `graph`, which has no nodes.
    pub fn new(graph: SourceGraph, table: &'static Table, request: &Request) -> Self {
        let mut state = State::new(&graph, table, request);
        let mut frame = Frame::default();
        state.interface(&graph, request, &mut frame);
        let held = state.begins(&graph, request, &mut frame);
        for (name, t) in &graph.constants {
            frame.define(name.clone(), Entry::Const(t.clone()));
        }
        for v in &graph.inputs {
            frame.types.extend(v.ty.clone().map(|ty| (v.name.clone(), ty)));
        }
        for s in &graph.states {
            frame.types.insert(s.before.clone(), SourceType { dtype: s.initial.dtype(), shape: None });
        }
        let body = state.f.body();
        state.frames.push(frame);
        Self { state, blocks: vec![body], graph, held, request: request.clone() }
    }

    fn block(&self) -> Block {
        self.blocks.last().copied().unwrap_or_else(|| self.state.f.body())
    }

    /// Gives a constant a name, which every block can read.
    pub fn define(&mut self, name: Arc<str>, t: Tensor) {
        if let Some(frame) = self.state.frames.first_mut() {
            frame.define(name, Entry::Const(t));
        }
    }

    /// Lowers a node.
    pub fn node(&mut self, node: &Node) {
        let block = self.block();
        self.state.node(node, block);
    }

    /// Lowers a node whose results are a list; their names, as many as there are.
    pub fn list(&mut self, node: &Node, hint: &str) -> Vec<Arc<str>> {
        let block = self.block();
        let entries = self.state.entries(node, block);
        let names: Vec<Arc<str>> = (0..entries.len()).map(|i| format!("{hint}_{i}").into()).collect();
        if let Some(frame) = self.state.frames.last_mut() {
            for (name, entry) in names.iter().zip(entries) {
                frame.define(name.clone(), entry);
            }
        }
        names
    }

    /// Whether something is wrong already, so that there will be no module.
    pub fn has_error(&self) -> bool {
        self.state.problems.has_error()
    }

    /// Says something of the model.
    pub fn warn(&mut self, d: Diagnostic) {
        self.state.problems.plain(d);
    }

    /// Says that the model cannot be lowered further.
    pub fn fail(&mut self, why: String) {
        self.state.problems.plain(Diagnostic::error(&codes::F0102, why));
    }

    fn value(&self, name: &str) -> Option<Value> {
        match self.state.entry(name)? {
            Entry::Value(v) => Some(*v),
            _ => None,
        }
    }

    /// The one number that a value holds, where it is known.
    pub fn known(&self, name: &str) -> Option<Known> {
        let of = |t: &Tensor| {
            if t.count() != 1 {
                return None;
            }
            Some(match t.dtype() {
                DType::Bool => Known::Bool(t.to_bools().first().copied()?),
                d if d.is_float() => Known::Float(t.to_f64().first().copied()?),
                _ => Known::Int(t.to_i64().first().copied()?),
            })
        };
        if let Some(Entry::Const(t)) = self.state.entry(name) {
            return of(t);
        }
        let v = self.value(name)?;
        let fact = &self.state.f.value(v).fact;
        let int = fact.ints.as_ref().filter(|ints| ints.len() == 1).and_then(|ints| ints[0].as_known());
        match int {
            Some(i) if fact.ty.tensor().is_some_and(|t| t.dtype == DType::Bool) => Some(Known::Bool(i != 0)),
            Some(i) => Some(Known::Int(i)),
            None => self.state.f.constant(v).and_then(of),
        }
    }

    /// How many axes a tensor has; `None` where that is not known.
    pub fn rank(&self, name: &str) -> Option<usize> {
        match self.state.entry(name)? {
            Entry::Const(t) => Some(t.shape().len()),
            Entry::Value(v) => self.state.f.ty(*v).tensor().map(|t| t.shape.rank()),
            _ => None,
        }
    }

    /// A size of a tensor, `Some(None)` where it is open; `None` where there is no such axis.
    pub fn size(&self, name: &str, axis: usize) -> Option<Option<i64>> {
        match self.state.entry(name)? {
            Entry::Const(t) => t.shape().get(axis).map(|n| Some(*n as i64)),
            Entry::Value(v) => self.state.f.ty(*v).tensor()?.shape.get(axis).map(Dim::as_known),
            _ => None,
        }
    }

    /// The element type that a tensor has in the source, as far as it is known.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        match self.state.entry(name)? {
            Entry::Const(t) => Some(t.dtype()),
            Entry::Value(v) => self.state.stated(name).map(|t| t.dtype).or_else(|| {
                // Programs compute integers in 32 bits; sources mostly mean 64.
                let own = self.state.f.ty(*v).tensor()?.dtype;
                Some(if own == DType::I32 { DType::I64 } else { own })
            }),
            _ => None,
        }
    }

    /// Begins a branch: what is lowered now is part of it.
    pub fn enter(&mut self) {
        let block = self.state.f.add_block();
        self.blocks.push(block);
        self.state.frames.push(Frame::default());
    }

    /// Ends the branch that was begun last.
    pub fn leave(&mut self) -> Branch {
        let block = self.block();
        self.blocks.pop();
        Branch { block, frame: self.state.frames.pop().unwrap_or_default() }
    }

    /// Two branches of a condition, of which each gives some values; `names` are those of the results.
    pub fn join(
        &mut self,
        node: &Node,
        cond: &Arc<str>,
        branches: Vec<Branch>,
        yields: [Vec<Arg>; 2],
        names: &[Arc<str>],
    ) {
        let made = self.joined(node, cond, branches, yields);
        let entries = match made {
            Ok(values) => values.into_iter().map(Entry::Value).collect(),
            Err(e) => {
                if !matches!(e, LowerError::Poisoned) {
                    self.state.report(node, &e);
                }
                vec![Entry::Poisoned; names.len()]
            }
        };
        if let Some(frame) = self.state.frames.last_mut() {
            for (name, entry) in names.iter().zip(entries) {
                frame.define(name.clone(), entry);
            }
        }
    }

    fn joined(
        &mut self,
        node: &Node,
        cond: &Arc<str>,
        branches: Vec<Branch>,
        yields: [Vec<Arg>; 2],
    ) -> Result<Vec<Value>, LowerError> {
        let outer = self.block();
        let mut pred = self.state.value(cond, outer)?;
        let origin = self.state.origins.intern(Origin::Source(SourceInfo {
            node: node.name.clone(),
            op: node.operator().into(),
            module: node.module.clone(),
            line: node.line.clone(),
        }));
        let ty = self.state.f.ty(pred).tensor().cloned().ok_or(LowerError::Poisoned)?;
        if ty.dtype != DType::Bool {
            let cast = ops::Cast { x: pred, dtype: DType::Bool };
            pred = self.state.insert(Place::End(outer), &["cond"], Box::new(cast), Some(origin))?[0];
        }
        if ty.shape.rank() > 0 {
            let squeeze = ops::Squeeze { x: pred, axes: None };
            pred = self.state.insert(Place::End(outer), &["cond"], Box::new(squeeze), Some(origin))?[0];
        }
        let mut blocks = vec![];
        for (branch, yields) in branches.into_iter().zip(yields) {
            self.state.frames.push(branch.frame);
            let values: Result<Vec<Value>, LowerError> =
                yields.iter().map(|arg| self.yielded(arg, branch.block)).collect();
            self.state.frames.pop();
            self.state.f.set_yields(branch.block, values?);
            blocks.push(branch.block);
        }
        let [true_fn, false_fn] = blocks.as_slice() else { return Err(LowerError::Poisoned) };
        let (a, b) = (self.state.f.yields(*true_fn), self.state.f.yields(*false_fn));
        for (a, b) in a.iter().zip(b) {
            let (x, y) = (self.state.f.ty(*a), self.state.f.ty(*b));
            let alike =
                x.tensor().zip(y.tensor()).is_some_and(|(x, y)| x.dtype == y.dtype && x.shape.rank() == y.shape.rank());
            if !alike {
                let what = format!("branches of {x} and {y} on a condition that is known late");
                return Err(LowerError::core_ml(what));
            }
        }
        if a.is_empty() {
            return Ok(vec![]);
        }
        let cond = ops::Cond { pred, true_fn: *true_fn, false_fn: *false_fn };
        Ok(self.state.insert(Place::End(outer), &["branch"], Box::new(cond), Some(origin))?.to_vec())
    }

    fn yielded(&mut self, arg: &Arg, block: Block) -> Result<Value, LowerError> {
        let name: Arc<str> = "yielded".into();
        let t = match arg {
            Arg::Value(name) => return self.state.value(name, block),
            Arg::Int(i) => Tensor::scalar(*i),
            Arg::Float(x) => Tensor::scalar(*x as f32),
            Arg::Bool(b) => Tensor::from_bools(&[], [*b]),
            _ => return Err(LowerError::Poisoned),
        };
        self.state.materialize(&name, Entry::Const(t), block)
    }

    /// The tensor that a value is, where it is a constant.
    pub fn constant(&self, name: &str) -> Option<Tensor> {
        match self.state.entry(name)? {
            Entry::Const(t) => Some(t.clone()),
            Entry::Value(v) => self.state.f.constant(*v).cloned(),
            _ => None,
        }
    }

    /// Gives a value a further name.
    pub fn also(&mut self, name: Arc<str>, of: &str) {
        if let (Some(entry), Some(frame)) = (self.state.entry(of).cloned(), self.state.frames.first_mut()) {
            frame.define(name, entry);
        }
    }

    /// Ends with these outputs, and with what the buffers have become, in their order.
    pub fn finish(mut self, outputs: Vec<SourceValue>, after: &[Arc<str>]) -> Lowering {
        let entry = |state: &State, name: &str| state.entry(name).cloned().unwrap_or(Entry::Poisoned);
        let entries = outputs.iter().map(|o| entry(&self.state, &o.name)).collect();
        let after = after.iter().map(|name| entry(&self.state, name)).collect();
        let is_cut = outputs.is_empty() && self.has_error();
        self.graph.outputs = outputs;
        if is_cut {
            return self.state.finish(&self.graph);
        }
        let kept = kept_outputs(&self.graph, &self.request, &mut self.state.problems);
        self.state.outputs(&self.graph, &kept, entries);
        self.state.ends(&self.graph, &self.held, after);
        self.state.finish(&self.graph)
    }
}
