//! Sizes that are known only when the program runs, and where in the program they can be had.

use super::lower::{Lower, MAX_RANK, Why, require};
use mlconv_mil::{
    ir::{Block, Function, Value},
    ops::{Add, Concat, FloorDiv, Maximum, Minimum, Mul, ShapeOf, SliceByIndex},
};
use mlconv_tensor::{Arithmetic, DType, Dim, Operation};
use std::collections::HashMap;

/// What holds an integer.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The size of a value along an axis.
    Axis(Value, usize),
    /// An element of a vector of integers.
    Element(Value, usize),
    /// A vector of this one integer.
    Alone(Value),
}

/// Where integers can be had, by the block that can read them there.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    of: HashMap<(Block, Dim), Source>,
    /// The shapes of values.
    shapes: HashMap<(Block, Value), Value>,
}

impl Sources {
    /// Takes note of what `v`, a value of `block`, has to say.
    pub(super) fn learn(&mut self, f: &Function, block: Block, v: Value) {
        let fact = &f.value(v).fact;
        let Some(ty) = fact.ty.tensor().filter(|t| t.shape.rank() <= MAX_RANK) else { return };
        for (i, d) in ty.shape.iter().enumerate() {
            self.add(block, d, Source::Axis(v, i));
        }
        if ty.dtype == DType::I32 && ty.shape.rank() == 1 {
            for (i, d) in fact.ints.iter().flat_map(|ints| ints.iter()).enumerate() {
                self.add(block, d, Source::Element(v, i));
            }
        }
    }

    /// The first source is the one that is kept.
    fn add(&mut self, block: Block, d: &Dim, source: Source) {
        if d.as_known().is_none() {
            self.of.entry((block, d.clone())).or_insert(source);
        }
    }

    fn find(&self, f: &Function, block: Block, d: &Dim) -> Option<Source> {
        outwards(f, block).find_map(|b| self.of.get(&(b, d.clone())).copied())
    }
}

/// The block and those around it.
fn outwards(f: &Function, block: Block) -> impl Iterator<Item = Block> {
    std::iter::successors(Some(block), |b| f.block(*b).parent.map(|id| f.op_data(id).block))
}

/// Integers of the program, as vectors of one.
struct Computed<'a, 'f> {
    cx: &'a mut Lower<'f>,
    /// Why an op could not be inserted.
    failed: Option<Why>,
}

impl Computed<'_, '_> {
    fn kept(&mut self, made: Result<Value, Why>) -> Option<Value> {
        made.map_err(|why| self.failed = Some(why)).ok()
    }
}

impl Arithmetic for Computed<'_, '_> {
    type Int = Value;

    fn given(&mut self, dim: &Dim) -> Option<Value> {
        let made = match dim.as_known() {
            Some(n) => i32::try_from(n).is_ok().then(|| self.cx.constant("size", &[n]))?,
            None => self.cx.read_size(dim)?,
        };
        self.kept(made)
    }

    fn join(&mut self, op: Operation, x: Value, y: Value) -> Option<Value> {
        let made = match op {
            Operation::Add => self.cx.insert_as("size", Add { x, y }),
            Operation::Mul => self.cx.insert_as("size", Mul { x, y }),
            Operation::FloorDiv => self.cx.insert_as("size", FloorDiv { x, y }),
            Operation::Maximum => self.cx.insert_as("size", Maximum { x, y }),
            Operation::Minimum => self.cx.insert_as("size", Minimum { x, y }),
        };
        self.kept(made)
    }
}

impl Lower<'_> {
    /// The elements of a vector of integers, where they are known, perhaps as sizes.
    pub(super) fn known_elements(&self, v: Value) -> Result<Vec<Dim>, Why> {
        if let Some(t) = self.f.constant(v).filter(|t| t.dtype().is_int()) {
            return Ok(t.to_i64().into_iter().map(Dim::from).collect());
        }
        let ints = self.f.value(v).fact.ints.as_ref().map(|ints| ints.to_vec());
        ints.ok_or(Why::Because("an operand that says where is known only when the program runs"))
    }

    /// The elements of a vector of integers. Those of which nothing is known get names.
    pub(super) fn elements(&mut self, v: Value) -> Result<Vec<Dim>, Why> {
        if let Ok(known) = self.known_elements(v) {
            return Ok(known);
        }
        let length = match self.f.ty(v).tensor() {
            Some(t) if t.dtype == DType::I32 && t.shape.rank() == 1 => t.shape[0].as_usize(),
            _ => None,
        };
        let length = length.ok_or(Why::Because("an operand that says where is no vector of known length"))?;
        let block = self.block();
        let mut names = vec![];
        for i in 0..length {
            let name = Dim::symbol(format!("element_{i}_of_{v:?}"));
            self.stand_ins.sources.add(block, &name, Source::Element(v, i));
            names.push(name);
        }
        Ok(names)
    }

    /// A vector of these integers, computed where they are no numbers.
    pub(super) fn vector(&mut self, what: &str, ints: &[Dim]) -> Result<Value, Why> {
        let known: Option<Vec<i64>> = ints.iter().map(Dim::as_known).collect();
        if let Some(known) = known {
            return self.constant(what, &known);
        }
        let mut values = vec![];
        for run in ints.chunk_by(|a, b| a.as_known().is_some() && b.as_known().is_some()) {
            let known: Option<Vec<i64>> = run.iter().map(Dim::as_known).collect();
            values.push(match known {
                Some(known) => self.constant(what, &known)?,
                None => self.size(&run[0])?,
            });
        }
        match values.as_slice() {
            [one] => Ok(*one),
            _ => self.insert_as(what, Concat { values, axis: 0, interleave: false }),
        }
    }

    /// A vector of sizes for a reshape of `x` to `dims`.
    pub(super) fn sizes(&mut self, x: Value, dims: &[Dim]) -> Result<Value, Why> {
        let in_range = |d: &Dim| d.as_known().is_none_or(|n| (1..=i32::MAX.into()).contains(&n));
        require(dims.iter().all(in_range), "a size is 0")?;
        // One may be left open: the one that takes most to compute.
        let block = self.block();
        let is_at_hand = |d: &&Dim| d.as_known().is_none() && self.stand_ins.sources.find(self.f, block, d).is_some();
        let computed = dims.iter().position(|d| d.as_known().is_none() && !is_at_hand(&d));
        let open = computed.or_else(|| dims.iter().position(|d| is_at_hand(&d)));
        let mut sizes = dims.to_vec();
        if let Some(open) = open {
            let others = dims.iter().enumerate().filter(|(i, _)| *i != open).fold(Dim::from(1), |n, (_, d)| n * d);
            if self.shape(x).count().div_floor(&others) == dims[open] {
                sizes[open] = Dim::from(-1);
            }
        }
        self.vector("shape", &sizes)
    }

    /// A size that is no number, as a vector of one.
    fn size(&mut self, dim: &Dim) -> Result<Value, Why> {
        let mut with = Computed { cx: self, failed: None };
        let (size, failed) = (dim.compute(&mut with), with.failed.take());
        let none = Why::Because("a size on fewer axes is known only from what has more");
        let size = size.ok_or_else(|| failed.unwrap_or(none))?;
        let block = self.block();
        self.stand_ins.sources.of.insert((block, dim.clone()), Source::Alone(size));
        Ok(size)
    }

    /// Reads a size from where it can be had.
    fn read_size(&mut self, dim: &Dim) -> Option<Result<Value, Why>> {
        let block = self.block();
        let source = self.stand_ins.sources.find(self.f, block, dim)?;
        let read = match source {
            Source::Alone(v) => return Some(Ok(v)),
            Source::Element(v, i) => self.element(v, i),
            Source::Axis(v, i) => self.shape_value(v).and_then(|shape| self.element(shape, i)),
        };
        if let Ok(v) = read {
            self.stand_ins.sources.of.insert((block, dim.clone()), Source::Alone(v));
        }
        Some(read)
    }

    /// The shape of `v` as a value.
    fn shape_value(&mut self, v: Value) -> Result<Value, Why> {
        let block = self.block();
        if let Some(found) = outwards(self.f, block).find_map(|b| self.stand_ins.sources.shapes.get(&(b, v))) {
            return Ok(*found);
        }
        let hint = format!("{}_shape", self.f.value(v).hint);
        let shape = self.insert_named(&hint, ShapeOf { x: v })?;
        self.stand_ins.sources.shapes.insert((block, v), shape);
        Ok(shape)
    }

    /// Element `i` of a vector, as a vector of one.
    fn element(&mut self, v: Value, i: usize) -> Result<Value, Why> {
        if self.shape(v)[..] == [Dim::from(1)] {
            return Ok(v);
        }
        let begin = self.constant("size_begin", &[i as i64])?;
        let end = self.constant("size_end", &[i as i64 + 1])?;
        let (stride, begin_mask, end_mask, squeeze_mask) = (None, None, None, None);
        self.insert_as("size", SliceByIndex { x: v, begin, end, stride, begin_mask, end_mask, squeeze_mask })
    }
}
