//! The context in which one node is lowered.

use crate::{
    Arg, LowerError, Node, Row, SourceDim, SourceGraph, SourceType,
    driver::{Entry, Frame, State},
};
use mlconv_mil::{
    diagnostic::codes,
    ir::{Block, Fact, Function, OriginId, Place, Value},
    ops,
    schema::{Op, Opset},
};
use mlconv_tensor::{DType, Shape, Tensor, TensorType, Type};
use smallvec::SmallVec;
use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

/// Values made by a lowering.
pub type Values = SmallVec<[Value; 1]>;

/// What a lowering returns: one entry per output of the node, in order.
pub type Lowered = Result<Vec<Entry>, LowerError>;

/// One node being lowered. Reading an argument marks it; one left unread is an error.
pub struct Lower<'a> {
    /// The node.
    pub node: &'a Node,
    pub(crate) row: &'static Row,
    pub(crate) state: &'a mut State,
    pub(crate) block: Block,
    pub(crate) origin: OriginId,
    /// What the lowering says of the source's element type of the first output.
    pub(crate) made: Option<DType>,
    pub(crate) read_attrs: RefCell<BTreeSet<String>>,
    pub(crate) read_inputs: RefCell<BTreeSet<usize>>,
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

impl<'a> Lower<'a> {
    /// The function being written.
    pub fn f(&self) -> &Function {
        &self.state.f
    }

    /// The op set being written in.
    pub fn opset(&self) -> Opset {
        self.state.f.opset
    }

    // Inputs.

    /// How many positional inputs are given, absent ones in between included.
    pub fn input_count(&self) -> usize {
        self.node.inputs.len()
    }

    /// How many outputs are named.
    pub fn output_count(&self) -> usize {
        self.node.outputs.len()
    }

    /// Whether output `i` is wanted.
    pub fn wants(&self, i: usize) -> bool {
        self.node.outputs.get(i).is_some_and(|o| !o.is_empty())
    }

    /// Whether input `i` is there.
    pub fn is_given(&self, i: usize) -> bool {
        !matches!(self.node.inputs.get(i), None | Some(Arg::None))
    }

    /// The value of input `i`, which must be there.
    pub fn input(&mut self, i: usize) -> Result<Value> {
        self.optional(i)?.ok_or(LowerError::MissingInput { index: i })
    }

    /// The value of input `i`, where it is there.
    pub fn optional(&mut self, i: usize) -> Result<Option<Value>> {
        self.read_inputs.borrow_mut().insert(i);
        match self.node.inputs.get(i) {
            None | Some(Arg::None) => Ok(None),
            Some(Arg::Value(name)) => {
                let name = name.clone();
                self.state.value(&name, self.block).map(Some)
            }
            Some(other) => {
                let (found, name) = (other.to_string(), format!("input {i}").into());
                Err(LowerError::Attr { name, found, want: "a value".into() })
            }
        }
    }

    /// The values of all inputs from `from` on.
    pub fn inputs_from(&mut self, from: usize) -> Result<Vec<Value>> {
        (from..self.input_count()).map(|i| self.input(i)).collect()
    }

    /// Input `i` as the source has it, before types are narrowed, where it is constant.
    pub fn constant(&mut self, i: usize) -> Result<Option<Tensor>> {
        self.read_inputs.borrow_mut().insert(i);
        let Some(Arg::Value(name)) = self.node.inputs.get(i) else { return Ok(None) };
        match self.state.entry(name) {
            Some(Entry::Const(t)) => Ok(Some(t.clone())),
            Some(Entry::Value(v)) => Ok(self.state.f.constant(*v).cloned()),
            Some(Entry::Poisoned) => Err(LowerError::Poisoned),
            Some(Entry::Sequence(_) | Entry::Nothing) | None => Ok(None),
        }
    }

    /// What input `i` stands for, be it a tensor or not; `None` where it is absent.
    pub fn entry(&self, i: usize) -> Result<Option<Entry>> {
        self.read_inputs.borrow_mut().insert(i);
        let Some(Arg::Value(name)) = self.node.inputs.get(i) else { return Ok(None) };
        match self.state.entry(name) {
            None | Some(Entry::Poisoned) => Err(LowerError::Poisoned),
            Some(Entry::Value(v)) if matches!(self.state.f.ty(*v), Type::Unknown) => Err(LowerError::Poisoned),
            Some(e) => Ok(Some(e.clone())),
        }
    }

    /// The elements of input `i`, which must be a sequence.
    pub fn sequence(&self, i: usize) -> Result<Arc<[Entry]>> {
        match self.entry(i)? {
            Some(Entry::Sequence(elements)) => Ok(elements),
            Some(Entry::Nothing) => Err(LowerError::form("an optional without an element where a sequence is wanted")),
            Some(_) => Err(LowerError::form("a tensor where a sequence is wanted")),
            None => Err(LowerError::MissingInput { index: i }),
        }
    }

    /// A sequence of tensors. Its length is charged for, as loops make many of growing length.
    pub fn as_sequence(&mut self, elements: Vec<Entry>) -> Result<Entry> {
        if elements.iter().any(|e| matches!(e, Entry::Poisoned)) {
            return Err(LowerError::Poisoned);
        }
        if elements.iter().any(|e| matches!(e, Entry::Sequence(_) | Entry::Nothing)) {
            return Err(LowerError::not_yet("a sequence of anything but tensors"));
        }
        self.state.charge(elements.len())?;
        Ok(Entry::Sequence(elements.into()))
    }

    /// The integers of input `i`, which must be known; `None` where it is absent.
    pub fn ints_input(&mut self, i: usize) -> Result<Option<Vec<i64>>> {
        if matches!(self.node.inputs.get(i), None | Some(Arg::None)) {
            return Ok(None);
        }
        if let Some(t) = self.constant(i)? {
            return Ok(Some(t.to_i64()));
        }
        let v = self.input(i)?;
        self.known_ints(v).map(Some).ok_or(LowerError::NotConstant { index: i })
    }

    /// The value of input `i`, of which only matters where it lies among others: a constant beyond 32 bits is the limit
    /// of these.
    pub fn limit(&mut self, i: usize) -> Result<Value> {
        match self.entry(i)? {
            Some(Entry::Const(t)) => match clamped(&t) {
                Some((clamped, _)) => self.add_given(clamped),
                None => self.input(i),
            },
            _ => self.input(i),
        }
    }

    /// As [`Self::limit`], where the extreme of the source's numbers stands for "no limit". It becomes the extreme of
    /// 32 bits, which a warning says.
    pub fn extreme(&mut self, i: usize) -> Result<Value> {
        match self.entry(i)? {
            Some(Entry::Const(t)) => match clamped(&t) {
                Some((clamped, true)) => {
                    let why = "the extreme of 64-bit numbers becomes that of 32-bit ones";
                    let help = "a program that takes it for `no limit` does the same with the other";
                    self.state.problems.warn_of_all(self.node, &codes::F0108, why, help);
                    self.add_given(clamped)
                }
                _ => self.input(i),
            },
            _ => self.input(i),
        }
    }

    /// The element type that input `i` has in the source, where that is known.
    pub fn source_dtype(&self, i: usize) -> Option<DType> {
        let Some(Arg::Value(name)) = self.node.inputs.get(i) else { return None };
        match self.state.entry(name) {
            Some(Entry::Const(t)) => Some(t.dtype()),
            _ => self.state.stated(name).map(|t| t.dtype),
        }
    }

    /// Says that the first output has this element type in the source, for readers to whom the model states none.
    pub fn makes(&mut self, dtype: DType) {
        self.made = Some(dtype);
    }

    /// Says that the first output has the type of the first result of the nested graph that was lowered last.
    pub fn makes_returned(&mut self) {
        self.made = self.state.returned.or(self.made);
    }

    /// Warns the user of what the program does otherwise than the source.
    pub fn warn(&mut self, why: &str) {
        self.state.problems.warn(self.node, why);
    }

    /// Warns the user of random numbers, which no two makers draw alike; one warning for all nodes.
    pub fn warn_of_chance(&mut self, why: &str, help: &str) {
        self.state.problems.warn_of_all(self.node, &codes::F0109, why, help);
    }

    /// What the source states of the type of output `i`.
    pub fn stated_output(&self, i: usize) -> Option<&SourceType> {
        self.state.stated(self.node.outputs.get(i)?)
    }

    /// The rank that the source states of output `i`.
    pub fn stated_rank(&self, i: usize) -> Option<usize> {
        self.state.stated_shape(self.node.outputs.get(i)?).map(Vec::len)
    }

    /// The shape that the source states of output `i`, where it states all sizes.
    pub fn stated_sizes(&self, i: usize) -> Option<Vec<i64>> {
        let known = |d: &SourceDim| if let SourceDim::Known(n) = d { Some(*n) } else { None };
        self.state.stated_shape(self.node.outputs.get(i)?)?.iter().map(known).collect()
    }

    /// Marks input `i` as read: the lowering knows it and has no use for it.
    pub fn ignore_input(&self, i: usize) {
        self.read_inputs.borrow_mut().insert(i);
    }

    // Attributes.

    pub(crate) fn attr(&self, name: &'static str) -> Option<&'a Arg> {
        self.read_attrs.borrow_mut().insert(name.to_owned());
        let given = self.node.attrs.get(name);
        let default = || self.row.defaults.iter().find(|(n, _)| *n == name).map(|(_, arg)| arg);
        given.or_else(default).filter(|arg| !matches!(arg, Arg::None))
    }

    pub(crate) fn wrong<T>(name: &'static str, found: &Arg, want: &'static str) -> Result<T> {
        Err(LowerError::Attr { name: name.into(), found: found.to_string(), want: want.into() })
    }

    /// Marks an attribute as read: the lowering knows it and has no use for it.
    pub fn ignore(&self, name: &'static str) {
        let _ = self.attr(name);
    }

    /// An integer attribute.
    pub fn int(&self, name: &'static str) -> Result<Option<i64>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Arg::Int(i)) => Ok(Some(*i)),
            Some(Arg::Bool(b)) => Ok(Some(i64::from(*b))),
            Some(arg @ Arg::Value(_)) => match self.known_number(arg)? {
                Some(i) => Ok(Some(i)),
                None => Err(LowerError::NotKnown { name }),
            },
            Some(other) => Self::wrong(name, other, "an integer"),
        }
    }

    /// An integer attribute, or `default`.
    pub fn int_or(&self, name: &'static str, default: i64) -> Result<i64> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// An integer attribute that is a flag.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool> {
        Ok(self.int(name)?.map_or(default, |i| i != 0))
    }

    /// A flag that is 0 or 1 and nothing else.
    pub fn switch(&self, name: &'static str, default: bool) -> Result<bool> {
        match self.int(name)? {
            None => Ok(default),
            Some(i @ (0 | 1)) => Ok(i == 1),
            Some(_) => self.bad_attr(name, "0 or 1"),
        }
    }

    /// A float attribute.
    pub fn float(&self, name: &'static str) -> Result<Option<f32>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Arg::Float(x)) => Ok(Some(*x as f32)),
            Some(Arg::Int(i)) => Ok(Some(*i as f32)),
            Some(other) => Self::wrong(name, other, "a float"),
        }
    }

    /// A float attribute, or `default`.
    pub fn float_or(&self, name: &'static str, default: f32) -> Result<f32> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    /// An attribute of integers.
    pub fn ints(&self, name: &'static str) -> Result<Option<Vec<i64>>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Arg::Ints(v)) => Ok(Some(v.clone())),
            Some(Arg::Int(i)) => Ok(Some(vec![*i])),
            Some(Arg::List(all)) => {
                let known = all.iter().map(|a| self.known_number(a)?.ok_or(LowerError::NotKnown { name }));
                known.collect::<Result<_>>().map(Some)
            }
            Some(other) => Self::wrong(name, other, "integers"),
        }
    }

    /// An attribute of `count` integers; all are `default` where it is absent.
    pub fn ints_or(&self, name: &'static str, default: i64, count: usize) -> Result<Vec<i64>> {
        let given = self.ints(name)?.unwrap_or_else(|| vec![default; count]);
        if given.len() == count { Ok(given) } else { self.bad_attr(name, format!("{count} numbers")) }
    }

    /// An attribute of floats.
    pub fn floats(&self, name: &'static str) -> Result<Option<Vec<f32>>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Arg::Floats(v)) => Ok(Some(v.iter().map(|x| *x as f32).collect())),
            Some(other) => Self::wrong(name, other, "floats"),
        }
    }

    /// A string attribute.
    pub fn str(&self, name: &'static str) -> Result<Option<&'a str>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Arg::Str(s)) => Ok(Some(s)),
            Some(other) => Self::wrong(name, other, "a string"),
        }
    }

    /// A string attribute, or `default`.
    pub fn str_or(&self, name: &'static str, default: &'a str) -> Result<&'a str> {
        Ok(self.str(name)?.unwrap_or(default))
    }

    /// An attribute of strings.
    pub fn strs(&self, name: &'static str) -> Result<Option<Vec<String>>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Arg::Strs(v)) => Ok(Some(v.clone())),
            Some(other) => Self::wrong(name, other, "strings"),
        }
    }

    /// A tensor attribute.
    pub fn tensor(&self, name: &'static str) -> Result<Option<Tensor>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Arg::Tensor(t)) => Ok(Some(t.clone())),
            Some(other) => Self::wrong(name, other, "a tensor"),
        }
    }

    /// An error about the value of an attribute.
    pub fn bad_attr<T>(&self, name: &'static str, want: impl Into<std::borrow::Cow<'static, str>>) -> Result<T> {
        let found = self.node.attrs.get(name).map_or_else(|| "absent".to_owned(), ToString::to_string);
        Err(LowerError::Attr { name: name.into(), found, want: want.into() })
    }

    // Facts.

    /// What is known of `v`.
    pub fn fact(&self, v: Value) -> &Fact {
        &self.state.f.value(v).fact
    }

    /// The tensor type of `v`.
    pub fn ty(&self, v: Value) -> Result<&TensorType> {
        match self.state.f.ty(v) {
            Type::Tensor(t) => Ok(t),
            Type::Unknown => Err(LowerError::Poisoned),
            other => Err(LowerError::form(format!("a value of type {other}"))),
        }
    }

    /// The shape of `v`.
    pub fn shape(&self, v: Value) -> Result<Shape> {
        Ok(self.ty(v)?.shape.clone())
    }

    /// The rank of `v`.
    pub fn rank(&self, v: Value) -> Result<usize> {
        Ok(self.ty(v)?.shape.rank())
    }

    /// The element type of `v`.
    pub fn dtype(&self, v: Value) -> Result<DType> {
        Ok(self.ty(v)?.dtype)
    }

    /// Refuses booleans, which are no numbers.
    pub fn numeric(&self, v: Value) -> Result<()> {
        let why = "booleans, where numbers are wanted".to_owned();
        if self.dtype(v)? == DType::Bool {
            Err(LowerError::Operand { op: self.node.op.to_string(), why })
        } else {
            Ok(())
        }
    }

    /// Refuses operands of different element types.
    pub fn alike(&self, x: Value, y: Value) -> Result<()> {
        let (a, b) = (self.dtype(x)?, self.dtype(y)?);
        let why = format!("operands of {a} and {b}, where one type is wanted");
        if a == b { Ok(()) } else { Err(LowerError::Operand { op: self.node.op.to_string(), why }) }
    }

    /// The shape of `v`, which must be fixed; `what` depends on it.
    pub fn fixed_shape(&self, v: Value, what: &str) -> Result<Vec<i64>> {
        let shape = &self.ty(v)?.shape;
        let known: Option<Vec<i64>> = shape.iter().map(mlconv_tensor::Dim::as_known).collect();
        known.ok_or_else(|| LowerError::NotFixed { what: what.to_owned() })
    }

    /// `axis` resolved for `v`.
    pub fn axis(&self, v: Value, axis: i64) -> Result<usize> {
        Ok(self.ty(v)?.shape.axis(axis)?.index())
    }

    /// The integers that `v` holds, where they are known numbers.
    pub fn known_ints(&self, v: Value) -> Option<Vec<i64>> {
        let fact = self.fact(v);
        match &fact.ints {
            Some(ints) => ints.iter().map(mlconv_tensor::Dim::as_known).collect(),
            None => self.state.f.constant(v).filter(|t| !t.dtype().is_float()).map(Tensor::to_i64),
        }
    }

    /// The constant that `v` is, where it is one.
    pub fn const_of(&self, v: Value) -> Option<&Tensor> {
        self.state.f.constant(v)
    }

    // Making values.

    /// Adds an op; its results.
    pub fn ops(&mut self, op: impl Op) -> Result<Values> {
        let node = self.node;
        let hints: SmallVec<[&str; 4]> = match node.outputs.as_slice() {
            [] => SmallVec::from_slice(&[&*node.name]),
            outputs => outputs.iter().map(|o| if o.is_empty() { &*node.name } else { &**o }).collect(),
        };
        self.state.insert(Place::End(self.block), &hints, Box::new(op), Some(self.origin))
    }

    /// Adds an op of one result; that result.
    pub fn op(&mut self, op: impl Op) -> Result<Value> {
        let values = self.ops(op)?;
        match values.as_slice() {
            [v] => Ok(*v),
            _ => Err(LowerError::Results { found: values.len(), want: 1 }),
        }
    }

    /// As [`Self::op`], of an op whose type is not known here.
    pub fn boxed(&mut self, op: Box<dyn Op>) -> Result<Value> {
        let hint = self.node.outputs.first().filter(|o| !o.is_empty()).unwrap_or(&self.node.name).clone();
        let values = self.state.insert(Place::End(self.block), &[&hint], op, Some(self.origin))?;
        values.first().copied().ok_or(LowerError::Results { found: 0, want: 1 })
    }

    /// Adds the op that is the node's own result.
    pub fn emit(&mut self, op: impl Op) -> Lowered {
        Ok(self.ops(op)?.into_iter().map(Entry::Value).collect())
    }

    /// Returns a value as the node's one result.
    pub fn done(&self, v: Value) -> Lowered {
        Ok(vec![Entry::Value(v)])
    }

    /// Returns a new constant as the node's one result, narrowed where it is used as a value.
    pub fn literal(&mut self, t: Tensor) -> Lowered {
        self.state.charge(t.count())?;
        self.given(t)
    }

    /// As [`Self::literal`], a constant of the model, or one under another shape: it takes no memory of its own.
    pub fn given(&self, t: Tensor) -> Lowered {
        Ok(vec![Entry::Const(t)])
    }

    /// A new constant, of a type that Core ML has.
    pub fn add_const(&mut self, t: Tensor) -> Result<Value> {
        self.state.charge(t.count())?;
        self.add_given(t)
    }

    /// As [`Self::add_const`], a constant of the model, or a range of one: it takes no memory of its own.
    pub fn add_given(&mut self, t: Tensor) -> Result<Value> {
        let t = narrow(&self.node.name, &t)?;
        self.op(ops::Const { val: t })
    }

    /// Refuses to make a constant of more elements than may still be made, before memory is asked for it.
    pub fn affords(&self, elements: usize) -> Result<()> {
        if self.state.budget.affords(elements) { Ok(()) } else { Err(LowerError::TooLarge) }
    }

    /// A constant vector of 32-bit integers.
    pub fn const_ints(&mut self, ints: &[i64]) -> Result<Value> {
        self.add_const(Tensor::from_i64(DType::I64, &[ints.len()], ints))
    }

    /// A constant 32-bit integer.
    pub fn const_int(&mut self, int: i64) -> Result<Value> {
        self.add_const(Tensor::from_i64(DType::I64, &[], &[int]))
    }

    /// A constant scalar of `dtype`.
    pub fn const_scalar(&mut self, dtype: DType, value: f64) -> Result<Value> {
        self.add_const(Tensor::from_f64(dtype, &[], &[value]))
    }

    /// A constant scalar of the element type of `v`.
    pub fn scalar_like(&mut self, v: Value, value: f64) -> Result<Value> {
        let dtype = self.dtype(v)?;
        self.const_scalar(dtype, value)
    }

    /// `v` in another element type; itself where it has it already.
    pub fn cast(&mut self, v: Value, dtype: DType) -> Result<Value> {
        if self.dtype(v)? == dtype { Ok(v) } else { self.op(ops::Cast { x: v, dtype }) }
    }

    // Nested graphs.

    /// A graph attribute.
    pub fn graph(&self, name: &'static str) -> Result<&'a SourceGraph> {
        match self.attr(name) {
            None => Err(LowerError::MissingAttr { name }),
            Some(Arg::Graph(g)) => Ok(g),
            Some(other) => Self::wrong(name, other, "a graph"),
        }
    }

    /// Lowers a nested graph in place, as if its nodes stood here; what it returns.
    pub fn inline(&mut self, graph: &SourceGraph, args: &[Value]) -> Result<Vec<Entry>> {
        self.inline_entries(graph, args.iter().copied().map(Entry::Value).collect())
    }

    /// As [`Self::inline`], of arguments that need not be tensors.
    pub fn inline_entries(&mut self, graph: &SourceGraph, args: Vec<Entry>) -> Result<Vec<Entry>> {
        let mut frame = Frame::default();
        for (input, entry) in graph.inputs.iter().zip(args) {
            frame.define(input.name.clone(), entry);
        }
        self.state.nested(graph, frame, self.block)
    }

    /// Lowers a nested graph without arguments to a block of its own, which yields the tensors that the graph returns:
    /// of a sequence, each element. With the block comes what these tensors are part of.
    pub fn block(&mut self, graph: &SourceGraph) -> Result<(Block, Vec<Entry>)> {
        let block = self.state.f.add_block();
        let returned = self.state.nested(graph, Frame::default(), block)?;
        let mut yields = vec![];
        for e in &returned {
            let tensors = match e {
                Entry::Sequence(elements) => &**elements,
                Entry::Nothing => &[],
                e => std::slice::from_ref(e),
            };
            for e in tensors {
                yields.push(self.state.materialize(&Arc::from(""), e.clone(), block)?);
            }
        }
        self.state.f.set_yields(block, yields);
        Ok((block, returned))
    }

    /// Puts a number that a block yields, its tensor `i`, into a vector.
    pub fn yield_in_vector(&mut self, block: Block, i: usize) -> Result<()> {
        let mut yields = self.state.f.yields(block).to_vec();
        let Some(number) = yields.get_mut(i) else { return Err(LowerError::Poisoned) };
        let outer = std::mem::replace(&mut self.block, block);
        let vector = self.expand_dims(*number, &[0]);
        self.block = outer;
        *number = vector?;
        self.state.f.set_yields(block, yields);
        Ok(())
    }

    /// Runs `make` with a new block as the place where ops are added; the block yields what it returns.
    pub fn new_block(
        &mut self,
        args: &[Fact],
        make: impl FnOnce(&mut Self, &[Value]) -> Result<Vec<Value>>,
    ) -> Result<Block> {
        let block = self.state.f.add_block();
        let values: Vec<Value> = args.iter().map(|f| self.state.f.add_arg(block, "arg", f.clone())).collect();
        let outer = std::mem::replace(&mut self.block, block);
        let yields = make(self, &values);
        self.block = outer;
        self.state.f.set_yields(block, yields?);
        Ok(block)
    }

    /// Removes what is in a block that no op has, and that was only made to see what comes out of it.
    pub fn discard(&mut self, block: Block) {
        self.state.discard(block);
    }

    /// The value of an entry, as a constant op where it is a constant.
    pub fn entry_value(&mut self, e: Entry) -> Result<Value> {
        self.state.materialize(&self.node.name.clone(), e, self.block)
    }
}

/// `t` in a type that MIL computes with: 64-bit types become 32-bit ones, small integers `i32`, odd floats `f32`. A
/// value that does not fit is an error.
pub(crate) fn narrow(name: &str, t: &Tensor) -> Result<Tensor> {
    let to = narrowed(t.dtype()).ok_or_else(|| LowerError::core_ml(format!("a tensor of {}", t.dtype())))?;
    if to == t.dtype() {
        return Ok(t.clone());
    }
    let fail = |value: String| LowerError::DoesNotFit { name: name.to_owned(), value, dtype: to };
    match t.dtype() {
        DType::U64 => {
            let values = t.view::<u64>().unwrap_or_default();
            if let Some(v) = values.iter().find(|v| i32::try_from(**v).is_err()) {
                return Err(fail(v.to_string()));
            }
        }
        DType::I64 | DType::U32 => {
            if let Some(v) = t.to_i64().iter().find(|v| i32::try_from(**v).is_err()) {
                return Err(fail(v.to_string()));
            }
        }
        DType::F64 => {
            let values = t.to_f64();
            if let Some(v) = values.iter().find(|v| v.is_finite() && !(**v as f32).is_finite()) {
                return Err(fail(format!("{v:e}")));
            }
        }
        _ => {}
    }
    Ok(t.cast(to))
}

/// A constant of which numbers do not fit 32 bits, with these clamped; whether all of these are extremes of their type.
fn clamped(t: &Tensor) -> Option<(Tensor, bool)> {
    let (least, most) = (i64::from(i32::MIN), i64::from(i32::MAX));
    let (values, ends): (Vec<i64>, [i64; 2]) = match t.dtype() {
        DType::U64 => {
            // Beyond what signed integers hold, all are alike.
            let values = t.view::<u64>().unwrap_or_default();
            if values.iter().any(|v| i64::try_from(*v).is_err() && *v != u64::MAX) {
                return None;
            }
            (values.iter().map(|v| i64::try_from(*v).unwrap_or(i64::MAX)).collect(), [0, i64::MAX])
        }
        DType::I64 => (t.to_i64(), [i64::MIN, i64::MAX]),
        DType::U32 => (t.to_i64(), [0, i64::from(u32::MAX)]),
        DType::F64 => {
            let (values, most) = (t.to_f64(), f64::from(f32::MAX));
            let mut beyond = values.iter().filter(|v| v.is_finite() && v.abs() > most).peekable();
            beyond.peek()?;
            let extremes = beyond.all(|v| v.abs() == f64::MAX);
            let clamp = |v: &f64| if v.is_finite() { v.clamp(-most, most) } else { *v };
            let values: Vec<f64> = values.iter().map(clamp).collect();
            return Some((Tensor::from_f64(DType::F32, t.shape(), &values), extremes));
        }
        _ => return None,
    };
    let mut beyond = values.iter().filter(|v| !(least..=most).contains(v)).peekable();
    beyond.peek()?;
    // Exporters write the negative of the greatest for the least, too.
    let extremes = beyond.all(|v| ends.contains(v) || *v == -i64::MAX);
    let values: Vec<i64> = values.iter().map(|v| (*v).clamp(least, most)).collect();
    Some((Tensor::from_i64(DType::I32, t.shape(), &values), extremes))
}

/// The type in which MIL computes with elements of `dtype`; `None` for strings.
pub fn narrowed(dtype: DType) -> Option<DType> {
    match dtype {
        DType::F16 | DType::F32 | DType::I32 | DType::Bool => Some(dtype),
        DType::Str => None,
        d if d.is_float() => Some(DType::F32),
        _ => Some(DType::I32),
    }
}
