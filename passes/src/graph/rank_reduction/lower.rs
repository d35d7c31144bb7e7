//! Stand-ins of tensors, and views of these.

use super::axes::product;
use mlconv_mil::{
    ir::{Function, InsertError, OpId, OriginId, Place, Use, Value},
    ops::{Const, Identity, Reshape},
    schema::Op,
};
use mlconv_tensor::{DType, Dim, Shape, Tensor};
use smallvec::SmallVec;
use std::{any::Any, collections::HashMap, sync::Arc};

/// The greatest rank of a tensor.
pub(super) const MAX_RANK: usize = 5;

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
pub(super) struct StandIns(HashMap<Value, Value>);

impl StandIns {
    /// `v` under its own axes again; `None` where it has no stand-in.
    pub(super) fn restored(
        &self,
        f: &mut Function,
        v: Value,
        place: Place,
        origin: Option<OriginId>,
    ) -> Result<Option<Value>, InsertError> {
        let Some(from) = self.0.get(&v) else { return Ok(None) };
        let (dims, hint) = (shape_of(f, v).to_vec(), f.value(v).hint.clone());
        let Some(sizes) = sizes(&dims) else { return Ok(None) };
        let val = Tensor::from_i64(DType::I32, &[sizes.len()], &sizes);
        let shape = f.insert(place, &[&format!("{hint}_shape")], Box::new(Const { val }), origin)?[0];
        let restored = f.insert(place, &[&hint], Box::new(Reshape { x: *from, shape }), origin)?;
        Ok(Some(restored[0]))
    }
}

/// Sizes for a reshape, where at most one of them is open.
fn sizes(dims: &[Dim]) -> Option<Vec<i64>> {
    let in_range = |n: i64| Some(n).filter(|n| (1..=i32::MAX.into()).contains(n));
    let known = |d: &Dim| d.as_known().map_or(Some(-1), in_range);
    let sizes: Vec<i64> = dims.iter().map(known).collect::<Option<_>>()?;
    (sizes.iter().filter(|n| **n == -1).count() <= 1).then_some(sizes)
}

fn shape_of(f: &Function, v: Value) -> Shape {
    f.ty(v).tensor().map(|t| t.shape.clone()).unwrap_or_default()
}

/// An op that is computed on fewer axes.
pub(super) struct Lower<'a> {
    f: &'a mut Function,
    stand_ins: &'a mut StandIns,
    id: OpId,
    origin: Option<OriginId>,
    hint: Arc<str>,
}

impl<'a> Lower<'a> {
    pub(super) fn new(f: &'a mut Function, stand_ins: &'a mut StandIns, id: OpId, origin: Option<OriginId>) -> Self {
        let hint = f.op_data(id).results.first().map_or_else(|| "".into(), |v| f.value(*v).hint.clone());
        Self { f, stand_ins, id, origin, hint }
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
        for (old, mut new) in pairs {
            if self.shape(old).rank() > MAX_RANK {
                self.stand_ins.0.insert(old, new);
            } else {
                let hint = self.f.value(old).hint.clone();
                // An output is neither an input nor another output.
                let is_output = |v: Value| self.f.uses(v).contains(&Use::Yield(self.f.body()));
                if is_output(old) && (is_output(new) || self.f.def_op(new).is_none()) {
                    new = self.insert(Identity { x: new })?;
                }
                // A value that was there before keeps its own name.
                if self.f.uses(new).is_empty() && self.f.def_op(new).is_some() {
                    self.f.set_hint(new, &hint);
                }
                self.f.replace_uses(old, new);
            }
        }
        Ok(())
    }

    /// Gives the op its operands under their own axes, where they have stand-ins.
    pub(super) fn restore(&mut self) -> Result<(), InsertError> {
        let mut operands = vec![];
        self.f.op_data(self.id).op.visit_operands(&mut |v| operands.push(v));
        let mut restored = HashMap::new();
        for v in operands {
            if let Some(new) = self.stand_ins.restored(self.f, v, Place::Before(self.id), self.origin)? {
                restored.insert(v, new);
            }
        }
        self.f.replace_operands(self.id, &mut |v| restored.get(&v).copied().unwrap_or(v));
        Ok(())
    }

    /// The shape of `v`, high as it may be.
    pub(super) fn shape(&self, v: Value) -> Shape {
        shape_of(self.f, v)
    }

    /// The results of the op.
    pub(super) fn results(&self) -> &[Value] {
        &self.f.op_data(self.id).results
    }

    /// The integers that `v` is known to hold.
    pub(super) fn ints(&self, v: Value) -> Result<Vec<i64>, Why> {
        let known = self.f.constant(v).filter(|t| t.dtype().is_int()).map(Tensor::to_i64);
        known.ok_or(Why::Because("an operand that says where is no constant"))
    }

    /// An op before the one that is computed; its first result.
    pub(super) fn insert(&mut self, op: impl Op) -> Result<Value, Why> {
        Ok(self.insert_all(Box::new(op))?[0])
    }

    /// An op before the one that is computed.
    pub(super) fn insert_all(&mut self, op: Box<dyn Op>) -> Result<SmallVec<[Value; 1]>, Why> {
        let hint = self.hint.clone();
        Ok(self.f.insert(Place::Before(self.id), &[&hint], op, self.origin)?)
    }

    /// A vector of integers, named after what it says.
    pub(super) fn constant(&mut self, what: &str, ints: &[i64]) -> Result<Value, Why> {
        let val = Tensor::from_i64(DType::I32, &[ints.len()], ints);
        let hint = format!("{}_{what}", self.hint);
        Ok(self.f.insert(Place::Before(self.id), &[&hint], Box::new(Const { val }), self.origin)?[0])
    }

    /// What has the elements of `v` in order, on few axes.
    pub(super) fn stand_in(&mut self, v: Value) -> Result<Value, Why> {
        if let Some(low) = self.stand_ins.0.get(&v) {
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
        let sizes = sizes(dims).ok_or(Why::Because("more than one size of a reshape is open, or one is 0"))?;
        let shape = self.constant("shape", &sizes)?;
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
        let low = self.stand_ins.0.get(&v).copied().unwrap_or(v);
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
