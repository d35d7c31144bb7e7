//! Functions: arenas of values, ops and blocks, with order and uses kept eagerly.

use super::{Arena, Fact, Handle, OriginId, Port, Signature};
use crate::{
    ops::Const,
    schema::{Arg, FactSource, InferCx, Op, OpError, Opset, ParamKind},
};
use mlconv_tensor::{DType, Tensor, Type};
use smallvec::SmallVec;
use std::{any::Any, sync::Arc};

/// One value: an argument of a block or a result of an op.
pub type Value = Handle<ValueData>;
/// One op in a function.
pub type OpId = Handle<OpData>;
/// One block of ops.
pub type Block = Handle<BlockData>;

/// A function of a module.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name in the module.
    pub name: String,
    /// The op set it is written in.
    pub opset: Opset,
    /// The names of its inputs and outputs.
    pub sig: Signature,
    body: Block,
    values: Arena<ValueData>,
    ops: Arena<OpData>,
    blocks: Arena<BlockData>,
}

/// What a function knows of a value.
#[derive(Clone, Debug)]
pub struct ValueData {
    /// A suggestion for its printed name; neither unique nor necessarily legal.
    pub hint: Arc<str>,
    /// What is known of it.
    pub fact: Fact,
    /// Where it is defined.
    pub def: Def,
    uses: SmallVec<[Use; 2]>,
}

/// Where a value is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Def {
    /// As the n-th argument of a block.
    Arg(Block, u32),
    /// As the n-th result of an op.
    Result(OpId, u32),
}

/// Who reads a value: once per operand, so an op that reads it twice is listed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// An operand of an op.
    Op(OpId),
    /// A value that a block yields; of the body, an output of the function.
    Yield(Block),
}

/// An op in its place.
#[derive(Clone, Debug)]
pub struct OpData {
    /// The op.
    pub op: Box<dyn Op>,
    /// Its results.
    pub results: SmallVec<[Value; 1]>,
    /// Where it comes from.
    pub origin: Option<OriginId>,
    /// The block it stands in.
    pub block: Block,
    prev: Option<OpId>,
    next: Option<OpId>,
}

/// A block of ops.
#[derive(Clone, Debug, Default)]
pub struct BlockData {
    /// The values it is given.
    pub args: Vec<Value>,
    yields: Vec<Value>,
    /// The op that owns it; `None` for the body, and while the owner is being built.
    pub parent: Option<OpId>,
    first: Option<OpId>,
    last: Option<OpId>,
}

/// Where to put an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Last in a block.
    End(Block),
    /// Just before another op.
    Before(OpId),
}

/// Why an op could not be inserted, with the op.
#[derive(Debug, thiserror::Error)]
#[error("`{op}`: {why}")]
pub struct InsertError {
    /// The op's name.
    pub op: String,
    /// What is wrong with it.
    pub why: OpError,
}

impl Function {
    /// An empty function.
    pub fn new(name: impl Into<String>, opset: Opset) -> Self {
        let mut blocks = Arena::default();
        let body = blocks.push(BlockData::default());
        let (values, ops) = (Arena::default(), Arena::default());
        Self { name: name.into(), opset, sig: Signature::default(), body, values, ops, blocks }
    }

    /// The block that a call runs.
    pub fn body(&self) -> Block {
        self.body
    }

    /// The values of the function's inputs and states, as `sig.inputs` describes them.
    pub fn inputs(&self) -> &[Value] {
        &self.blocks[self.body].args
    }

    /// The values of the function's outputs, as `sig.outputs` describes them.
    pub fn outputs(&self) -> &[Value] {
        &self.blocks[self.body].yields
    }

    /// Adds an input, or a state where `ty` is one.
    pub fn add_input(&mut self, port: Port, ty: impl Into<Type>) -> Value {
        let hint = port.name.clone();
        self.sig.inputs.push(port);
        self.add_arg(self.body, &hint, Fact::of(ty))
    }

    /// Removes the input `v`.
    ///
    /// # Panics
    /// Where something still reads it, or it is no input.
    pub fn remove_input(&mut self, v: Value) {
        assert!(self.uses(v).is_empty(), "an input that is removed is not read");
        let at = self.inputs().iter().position(|i| *i == v).expect("an input of this function");
        self.sig.inputs.remove(at);
        self.blocks[self.body].args.remove(at);
        self.values.take(v);
        for (i, arg) in self.inputs().to_vec().into_iter().enumerate() {
            self.values[arg].def = Def::Arg(self.body, i as u32);
        }
    }

    /// Gives the input `v` another type. Whoever read it reads the result instead, which has the old type and stands for
    /// nothing: the caller computes it of `v`, and replaces it.
    pub fn retype_input(&mut self, v: Value, ty: impl Into<Type>) -> Value {
        let (fact, hint) = (self.values[v].fact.clone(), self.values[v].hint.clone());
        let nowhere = self.add_block();
        let stand_in = self.add_arg(nowhere, &hint, fact);
        self.replace_uses(v, stand_in);
        self.values[v].fact = Fact::of(ty);
        stand_in
    }

    /// Adds an output.
    pub fn add_output(&mut self, port: Port, v: Value) {
        self.sig.outputs.push(port);
        self.values[v].uses.push(Use::Yield(self.body));
        self.blocks[self.body].yields.push(v);
    }

    /// Replaces all outputs.
    pub fn set_outputs(&mut self, outputs: Vec<(Port, Value)>) {
        let (ports, values) = outputs.into_iter().unzip();
        self.sig.outputs = ports;
        self.set_yields(self.body, values);
    }

    /// A new block that no op owns yet.
    pub fn add_block(&mut self) -> Block {
        self.blocks.push(BlockData::default())
    }

    /// Adds an argument to a block.
    pub fn add_arg(&mut self, block: Block, hint: &str, fact: impl Into<Fact>) -> Value {
        let at = self.blocks[block].args.len() as u32;
        let v = self.values.push(ValueData {
            hint: hint.into(),
            fact: fact.into(),
            def: Def::Arg(block, at),
            uses: SmallVec::new(),
        });
        self.blocks[block].args.push(v);
        v
    }

    /// Replaces the values that `block` yields.
    pub fn set_yields(&mut self, block: Block, yields: Vec<Value>) {
        for v in std::mem::take(&mut self.blocks[block].yields) {
            self.forget_use(v, Use::Yield(block));
        }
        for v in &yields {
            self.values[*v].uses.push(Use::Yield(block));
        }
        self.blocks[block].yields = yields;
    }

    /// The values that `block` yields.
    pub fn yields(&self, block: Block) -> &[Value] {
        &self.blocks[block].yields
    }

    /// The block.
    pub fn block(&self, block: Block) -> &BlockData {
        &self.blocks[block]
    }

    /// What is known of `v`.
    pub fn value(&self, v: Value) -> &ValueData {
        &self.values[v]
    }

    /// Whether `v` is still there.
    pub fn has_value(&self, v: Value) -> bool {
        self.values.get(v).is_some()
    }

    /// Suggests another printed name for `v`.
    pub fn set_hint(&mut self, v: Value, hint: &str) {
        self.values[v].hint = hint.into();
    }

    /// Replaces what is known of `v`; results of ops are better left to inference.
    pub fn set_fact(&mut self, v: Value, fact: Fact) {
        self.values[v].fact = fact;
    }

    /// The type of `v`.
    pub fn ty(&self, v: Value) -> &Type {
        &self.values[v].fact.ty
    }

    /// The op in its place.
    pub fn op_data(&self, id: OpId) -> &OpData {
        &self.ops[id]
    }

    /// Whether `id` is still there.
    pub fn is_live(&self, id: OpId) -> bool {
        self.ops.get(id).is_some()
    }

    /// Length of a side table over ops.
    pub fn op_slots(&self) -> usize {
        self.ops.slots()
    }

    /// Length of a side table over values.
    pub fn value_slots(&self) -> usize {
        self.values.slots()
    }

    /// The op at `id` as a `T`, if that is what it is.
    pub fn op<T: Op>(&self, id: OpId) -> Option<&T> {
        (&*self.ops.get(id)?.op as &dyn Any).downcast_ref()
    }

    /// The op whose first result is `v`, as a `T`, if that is what it is.
    pub fn def<T: Op>(&self, v: Value) -> Option<&T> {
        match self.values.get(v)?.def {
            Def::Result(id, 0) => self.op(id),
            Def::Result(..) | Def::Arg(..) => None,
        }
    }

    /// The op that computes `v`; `None` for an argument.
    pub fn def_op(&self, v: Value) -> Option<OpId> {
        match self.values[v].def {
            Def::Result(id, _) => Some(id),
            Def::Arg(..) => None,
        }
    }

    /// The constant that `v` is, if it is one.
    pub fn constant(&self, v: Value) -> Option<&Tensor> {
        self.def::<Const>(v).map(|c| &c.val)
    }

    /// Who reads `v`, once per operand.
    pub fn uses(&self, v: Value) -> &[Use] {
        &self.values[v].uses
    }

    /// The ops of `block`, in order, without those of inner blocks.
    pub fn ops_in(&self, block: Block) -> impl Iterator<Item = OpId> + '_ {
        std::iter::successors(self.blocks[block].first, |id| self.ops[*id].next)
    }

    /// The op that follows `id` in its block.
    pub fn next_op(&self, id: OpId) -> Option<OpId> {
        self.ops[id].next
    }

    /// The ops of the body, in order, without those of inner blocks.
    pub fn ops(&self) -> impl Iterator<Item = OpId> + '_ {
        self.ops_in(self.body)
    }

    /// Every op, an owner before the ops of its blocks.
    pub fn all_ops(&self) -> Vec<OpId> {
        let mut out = vec![];
        self.collect_ops(self.body, &mut out);
        out
    }

    fn collect_ops(&self, block: Block, out: &mut Vec<OpId>) {
        // An explicit stack: the nesting comes from a file.
        let mut stack = vec![self.blocks[block].first];
        while let Some(top) = stack.pop() {
            let Some(id) = top else { continue };
            out.push(id);
            stack.push(self.ops[id].next);
            let at = stack.len();
            self.ops[id].op.visit_regions(&mut |b| stack.insert(at, self.blocks[b].first));
        }
    }

    /// Appends `op` to the body; its single result. Types are inferred, never stated.
    pub fn push(&mut self, hint: &str, op: impl Op) -> Result<Value, InsertError> {
        Ok(self.insert(Place::End(self.body), &[hint], Box::new(op), None)?[0])
    }

    /// Puts `op` in its place; its results. Hints may be fewer than results.
    pub fn insert(
        &mut self,
        place: Place,
        hints: &[&str],
        op: Box<dyn Op>,
        origin: Option<OriginId>,
    ) -> Result<SmallVec<[Value; 1]>, InsertError> {
        let fail = |why| InsertError { op: op.name().to_owned(), why };
        let facts = op.infer(&InferCx::new(self, self.opset, self.ops.slots())).map_err(fail)?;
        let mut operands: SmallVec<[Value; 4]> = SmallVec::new();
        op.visit_operands(&mut |v| operands.push(v));
        let mut regions: SmallVec<[Block; 2]> = SmallVec::new();
        op.visit_regions(&mut |b| regions.push(b));
        let (block, prev, next) = match place {
            Place::End(block) => (block, self.blocks[block].last, None),
            Place::Before(id) => (self.ops[id].block, self.ops[id].prev, Some(id)),
        };
        let id = self.ops.push(OpData { op, results: SmallVec::new(), origin, block, prev, next });
        match prev {
            Some(p) => self.ops[p].next = Some(id),
            None => self.blocks[block].first = Some(id),
        }
        match next {
            Some(n) => self.ops[n].prev = Some(id),
            None => self.blocks[block].last = Some(id),
        }
        for v in operands {
            self.values[v].uses.push(Use::Op(id));
        }
        for b in regions {
            self.blocks[b].parent = Some(id);
        }
        let last = hints.last().copied().unwrap_or("");
        let results: SmallVec<[Value; 1]> = facts
            .into_iter()
            .enumerate()
            .map(|(i, fact)| {
                let hint: Arc<str> = hints.get(i).map_or_else(|| format!("{last}_{i}").into(), |h| (*h).into());
                self.values.push(ValueData { hint, fact, def: Def::Result(id, i as u32), uses: SmallVec::new() })
            })
            .collect();
        self.ops[id].results.clone_from(&results);
        Ok(results)
    }

    /// The place right behind the definition of `v`, where it is in reach of every reader.
    pub fn behind(&self, v: Value) -> Place {
        let (block, next) = match self.value(v).def {
            Def::Arg(block, _) => (block, self.ops_in(block).next()),
            Def::Result(id, _) => (self.op_data(id).block, self.next_op(id)),
        };
        next.map_or(Place::End(block), Place::Before)
    }

    /// Puts `op` in the place of `id`, whose results stay and are what `op` makes them. The op keeps its number, and so its
    /// sizes that depend on data keep their names: whoever reads them elsewhere need not be told.
    ///
    /// # Panics
    /// Where either has nested blocks, or another number of results.
    pub fn replace_op(&mut self, id: OpId, op: Box<dyn Op>, origin: Option<OriginId>) -> Result<(), InsertError> {
        let fail = |why| InsertError { op: op.name().to_owned(), why };
        let facts = op.infer(&InferCx::new(self, self.opset, id.index())).map_err(fail)?;
        let results = self.ops[id].results.clone();
        assert_eq!(facts.len(), results.len(), "the results stay");
        let mut blocks = 0;
        op.visit_regions(&mut |_| blocks += 1);
        self.ops[id].op.visit_regions(&mut |_| blocks += 1);
        assert_eq!(blocks, 0, "an op that is replaced has no blocks");
        let (mut before, mut after) = (SmallVec::<[Value; 4]>::new(), SmallVec::<[Value; 4]>::new());
        self.ops[id].op.visit_operands(&mut |v| before.push(v));
        op.visit_operands(&mut |v| after.push(v));
        for v in before {
            self.forget_use(v, Use::Op(id));
        }
        for v in after {
            self.values[v].uses.push(Use::Op(id));
        }
        for (v, fact) in results.into_iter().zip(facts) {
            self.values[v].fact = fact;
        }
        (self.ops[id].op, self.ops[id].origin) = (op, origin);
        Ok(())
    }

    /// Makes every reader of `old` read `new` instead, outputs included.
    pub fn replace_uses(&mut self, old: Value, new: Value) {
        if old == new {
            return;
        }
        for at in std::mem::take(&mut self.values[old].uses) {
            match at {
                Use::Op(id) => self.ops[id].op.visit_operands_mut(&mut |v| {
                    if *v == old {
                        *v = new;
                    }
                }),
                Use::Yield(block) => self.blocks[block].yields.iter_mut().filter(|v| **v == old).for_each(|v| *v = new),
            }
            self.values[new].uses.push(at);
        }
    }

    /// Changes the operands of one op.
    pub fn replace_operands(&mut self, id: OpId, replace: &mut dyn FnMut(Value) -> Value) {
        let mut changed: SmallVec<[(Value, Value); 2]> = SmallVec::new();
        self.ops[id].op.visit_operands_mut(&mut |v| {
            let new = replace(*v);
            changed.push((*v, new));
            *v = new;
        });
        for (old, new) in changed {
            if old != new {
                self.forget_use(old, Use::Op(id));
                self.values[new].uses.push(Use::Op(id));
            }
        }
    }

    /// Removes an op with its blocks and everything in them.
    ///
    /// # Panics
    /// Where one of its results is still read.
    pub fn remove(&mut self, id: OpId) {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let data = self.ops.take(id).expect("a live op");
            match data.prev {
                Some(p) => self.ops[p].next = data.next,
                None => self.blocks[data.block].first = data.next,
            }
            match data.next {
                Some(n) => self.ops[n].prev = data.prev,
                None => self.blocks[data.block].last = data.prev,
            }
            let mut operands: SmallVec<[Value; 4]> = SmallVec::new();
            data.op.visit_operands(&mut |v| operands.push(v));
            for v in operands {
                self.forget_use(v, Use::Op(id));
            }
            data.op.visit_regions(&mut |b| {
                let yields = std::mem::take(&mut self.blocks[b].yields);
                for v in yields {
                    self.forget_use(v, Use::Yield(b));
                }
                // Last first, so that readers go before what they read.
                let inner: Vec<OpId> = self.ops_in(b).collect();
                todo.extend(inner);
            });
            for r in &data.results {
                assert!(self.values[*r].uses.is_empty(), "a removed op is not read");
                self.values.take(*r);
            }
        }
    }

    fn forget_use(&mut self, v: Value, at: Use) {
        let uses = &mut self.values[v].uses;
        if let Some(i) = uses.iter().position(|u| *u == at) {
            uses.remove(i);
        }
    }

    /// The element type that an attribute of `domain` has beside the operands of `id`: that of the operands of the same
    /// domain; where the domain has operands and none is given, that of the op's first operand. `None` where the domain
    /// is of attributes alone: then 32 bits lose nothing.
    pub fn attr_dtype(&self, id: OpId, domain: &'static str) -> Option<DType> {
        let op = &self.ops[id].op;
        let schema = op.schema();
        let var = schema.resolve(domain, self.opset);
        let (mut first, mut own, mut has_operands) = (None, None, false);
        for arg in op.args() {
            let Some(ParamKind::Operand { domain, .. }) = arg.param.map(|p| &p.kind) else { continue };
            let Arg::Operands(values) = &arg.arg else { continue };
            let dtype = values.first().and_then(|v| self.ty(*v).tensor()).map(|t| t.dtype);
            first = first.or(dtype);
            if schema.resolve(domain, self.opset) == var {
                has_operands = true;
                own = own.or(dtype);
            }
        }
        own.or(if has_operands { first } else { None })
    }

    /// Infers the facts of every result again, in order, as after a change of an input's type.
    pub fn infer_again(&mut self) -> Result<(), InsertError> {
        for id in self.all_ops() {
            let data = &self.ops[id];
            let fail = |why| InsertError { op: data.op.name().to_owned(), why };
            let facts = data.op.infer(&InferCx::new(self, self.opset, id.index())).map_err(fail)?;
            for (v, fact) in data.results.clone().into_iter().zip(facts) {
                self.values[v].fact = fact;
            }
        }
        Ok(())
    }
}

impl FactSource for Function {
    fn fact(&self, v: Value) -> &Fact {
        &self.values[v].fact
    }
    fn constant(&self, v: Value) -> Option<&Tensor> {
        Self::constant(self, v)
    }
    fn block_args(&self, block: Block) -> &[Value] {
        &self.blocks[block].args
    }
    fn block_yields(&self, block: Block) -> &[Value] {
        &self.blocks[block].yields
    }
}
