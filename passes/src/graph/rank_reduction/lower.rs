//! Stand-ins of tensors, and views of these.

use super::{axes::product, sizes::Sources};
use mlconv_mil::{
    ir::{Block, Function, InsertError, OpId, OriginId, Place, Use, Value},
    ops::{Const, Identity, Reshape},
    schema::Op,
};
use mlconv_tensor::{DType, Dim, Shape, Tensor};
use smallvec::SmallVec;
use std::{any::Any, collections::HashMap, sync::Arc};

/// The greatest rank of a tensor.
pub(crate) const MAX_RANK: usize = 5;

/// Why an op is not computed on fewer axes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Why {
    #[error("{0}")]
    Because(&'static str),
    #[error("on fewer axes, {0}")]
    Refused(Box<InsertError>),
}

impl From<InsertError> for Why {
    fn from(e: InsertError) -> Self {
        Self::Refused(Box::new(e))
    }
}

/// Goes on only where `holds`.
pub(super) fn require(holds: bool, why: &'static str) -> Result<(), Why> {
    if holds { Ok(()) } else { Err(Why::Because(why)) }
}

/// Computes an op on fewer axes: for each result a value with its elements in order, under whichever axes.
pub(super) trait Rule: Sync {
    /// `None` where the rule is about another op.
    fn lower(&self, op: &dyn Op, cx: &mut Lower<'_>) -> Option<Result<Vec<Value>, Why>>;
}

/// A rule about ops of type `T`.
pub(super) struct On<T: 'static>(pub(super) fn(&T, &mut Lower<'_>) -> Result<Vec<Value>, Why>);

impl<T: Op> Rule for On<T> {
    fn lower(&self, op: &dyn Op, cx: &mut Lower<'_>) -> Option<Result<Vec<Value>, Why>> {
        Some((self.0)((op as &dyn Any).downcast_ref()?, cx))
    }
}

/// A rule about every op of which something holds.
pub(super) struct Where(
    pub(super) fn(&dyn Op) -> bool,
    pub(super) fn(&dyn Op, &mut Lower<'_>) -> Result<Vec<Value>, Why>,
);

impl Rule for Where {
    fn lower(&self, op: &dyn Op, cx: &mut Lower<'_>) -> Option<Result<Vec<Value>, Why>> {
        (self.0)(op).then(|| (self.1)(op, cx))
    }
}

/// For values of many axes, one of few axes with the same elements in the same order.
#[derive(Debug, Default)]
pub(super) struct StandIns {
    of: HashMap<Value, Value>,
    pub(super) sources: Sources,
}

/// An op that is computed on fewer axes.
pub(super) struct Lower<'a> {
    pub(super) f: &'a mut Function,
    pub(super) stand_ins: &'a mut StandIns,
    id: OpId,
    /// Where ops are put: before the one that is computed, unless said otherwise.
    pub(super) place: Place,
    origin: Option<OriginId>,
    hint: Arc<str>,
}

impl<'a> Lower<'a> {
    pub(super) fn new(f: &'a mut Function, stand_ins: &'a mut StandIns, id: OpId, origin: Option<OriginId>) -> Self {
        let hint = f.op_data(id).results.first().map_or_else(|| "".into(), |v| f.value(*v).hint.clone());
        Self { f, stand_ins, id, place: Place::Before(id), origin, hint }
    }

    /// Computes the op by the first rule that is about it, and gives its results stand-ins or other readers.
    pub(super) fn lower<'r>(&mut self, mut rules: impl Iterator<Item = &'r dyn Rule>) -> Result<(), Why> {
        let data = self.f.op_data(self.id).clone();
        let computed = rules.find_map(|r| r.lower(&*data.op, self));
        let computed = computed.unwrap_or(Err(Why::Because("it is not known how to compute it on fewer axes")))?;
        let mut pairs: SmallVec<[(Value, Value); 1]> = SmallVec::new();
        for (old, new) in data.results.iter().zip(computed) {
            let own = self.shape(*old);
            pairs.push((*old, if own.rank() > MAX_RANK { new } else { self.view(new, &own)? }));
        }
        let alike = |(old, new): &(Value, Value)| match (self.f.ty(*old).tensor(), self.f.ty(*new).tensor()) {
            (Some(a), Some(b)) => a.dtype == b.dtype && (a.shape.rank() > MAX_RANK || a.shape == b.shape),
            _ => false,
        };
        require(pairs.len() == data.results.len() && pairs.iter().all(alike), "its type on fewer axes is another")?;
        // An output is neither an input nor another output. What may fail comes before anything is replaced.
        let is_output = |f: &Function, v: Value| f.uses(v).contains(&Use::Yield(f.body()));
        for (old, new) in &mut pairs {
            let own = self.shape(*old).rank() <= MAX_RANK && is_output(self.f, *old);
            if own && (is_output(self.f, *new) || self.f.def_op(*new).is_none()) {
                *new = self.insert(Identity { x: *new })?;
            }
        }
        let block = self.block();
        for (old, new) in pairs {
            if self.shape(old).rank() > MAX_RANK {
                self.stand_ins.of.insert(old, new);
            } else {
                let hint = self.f.value(old).hint.clone();
                // A value that was there before keeps its own name.
                if self.f.uses(new).is_empty() && self.f.def_op(new).is_some() {
                    self.f.set_hint(new, &hint);
                }
                self.f.replace_uses(old, new);
            }
            self.stand_ins.sources.learn(self.f, block, new);
        }
        Ok(())
    }

    /// Gives the op its operands under their own axes, where they have stand-ins.
    pub(super) fn restore(&mut self) -> Result<(), InsertError> {
        let mut operands = vec![];
        self.f.op_data(self.id).op.visit_operands(&mut |v| operands.push(v));
        let mut restored = HashMap::new();
        for v in operands {
            if let Some(new) = self.restored(v)? {
                restored.insert(v, new);
            }
        }
        self.f.replace_operands(self.id, &mut |v| restored.get(&v).copied().unwrap_or(v));
        Ok(())
    }

    /// `v` under its own axes again; `None` where it has no stand-in, or its sizes are not known.
    pub(super) fn restored(&mut self, v: Value) -> Result<Option<Value>, InsertError> {
        let Some(from) = self.stand_ins.of.get(&v).copied() else { return Ok(None) };
        let (dims, own) = (self.shape(v), self.f.value(v).hint.clone());
        let hint = std::mem::replace(&mut self.hint, own);
        let restored = self.reshape(from, &dims);
        self.hint = hint;
        match restored {
            Ok(restored) => Ok(Some(restored)),
            Err(Why::Because(_)) => Ok(None),
            Err(Why::Refused(e)) => Err(*e),
        }
    }

    /// The shape of `v`, high as it may be.
    pub(super) fn shape(&self, v: Value) -> Shape {
        self.f.ty(v).tensor().map(|t| t.shape.clone()).unwrap_or_default()
    }

    /// The op that is computed.
    pub(super) fn id(&self) -> OpId {
        self.id
    }

    /// The op that is computed, as it was.
    pub(super) fn op(&self) -> Box<dyn Op> {
        self.f.op_data(self.id).op.clone_op()
    }

    /// The results of the op.
    pub(super) fn results(&self) -> &[Value] {
        &self.f.op_data(self.id).results
    }

    /// The block in which ops are put.
    pub(super) fn block(&self) -> Block {
        match self.place {
            Place::End(block) => block,
            Place::Before(id) => self.f.op_data(id).block,
        }
    }

    /// The integers that `v` is known to hold.
    pub(super) fn ints(&self, v: Value) -> Result<Vec<i64>, Why> {
        let known = self.f.constant(v).filter(|t| t.dtype().is_int()).map(Tensor::to_i64);
        known.ok_or(Why::Because("an operand that says where is no constant"))
    }

    /// An op in its place; its first result.
    pub(super) fn insert(&mut self, op: impl Op) -> Result<Value, Why> {
        Ok(self.insert_all(Box::new(op))?[0])
    }

    /// An op in its place.
    pub(super) fn insert_all(&mut self, op: Box<dyn Op>) -> Result<SmallVec<[Value; 1]>, Why> {
        let hint = self.hint.clone();
        Ok(self.f.insert(self.place, &[&hint], op, self.origin)?)
    }

    /// An op of which the result is called `hint`.
    pub(super) fn insert_named(&mut self, hint: &str, op: impl Op) -> Result<Value, Why> {
        Ok(self.f.insert(self.place, &[hint], Box::new(op), self.origin)?[0])
    }

    /// An op whose result is named after what it says.
    pub(super) fn insert_as(&mut self, what: &str, op: impl Op) -> Result<Value, Why> {
        self.insert_named(&format!("{}_{what}", self.hint), op)
    }

    /// A vector of integers, named after what it says.
    pub(super) fn constant(&mut self, what: &str, ints: &[i64]) -> Result<Value, Why> {
        self.insert_as(what, Const { val: Tensor::from_i64(DType::I32, &[ints.len()], ints) })
    }

    /// What has the elements of `v` in order, on few axes.
    pub(super) fn stand_in(&mut self, v: Value) -> Result<Value, Why> {
        if let Some(low) = self.stand_ins.of.get(&v) {
            return Ok(*low);
        }
        let shape = self.shape(v);
        if shape.rank() <= MAX_RANK {
            return Ok(v);
        }
        let all = [product(&shape)];
        if self.f.constant(v).is_some() {
            return self.view(v, &all);
        }
        // An input, or what stays as it is: whoever reads it needs not stay so too.
        self.reshape(v, &all)
    }

    /// A reshape of `x` to `dims`.
    fn reshape(&mut self, x: Value, dims: &[Dim]) -> Result<Value, Why> {
        let shape = self.sizes(x, dims)?;
        let new = self.insert(Reshape { x, shape })?;
        require(self.shape(new)[..] == *dims, "its sizes on fewer axes are not known")?;
        Ok(new)
    }

    /// The elements of `v` under the axes `dims`.
    pub(super) fn view(&mut self, v: Value, dims: &[Dim]) -> Result<Value, Why> {
        if self.shape(v)[..] == *dims {
            return Ok(v);
        }
        if let Some(t) = self.f.constant(v) {
            let known: Option<Vec<usize>> = dims.iter().map(Dim::as_usize).collect();
            let known = known.filter(|k| k.iter().product::<usize>() == t.count());
            let val = t.reshape(&known.ok_or(Why::Because("a constant has other sizes"))?);
            return self.insert(Const { val });
        }
        let low = self.stand_ins.of.get(&v).copied().unwrap_or(v);
        // A reshape of a reshape is one reshape.
        let x = self.f.def::<Reshape>(low).map(|r| r.x).filter(|x| self.shape(*x).rank() <= MAX_RANK).unwrap_or(low);
        for x in [low, x] {
            if self.shape(x)[..] == *dims {
                return Ok(x);
            }
        }
        self.reshape(x, dims)
    }
}
