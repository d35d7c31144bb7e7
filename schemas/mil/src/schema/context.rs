//! What inference and evaluation may ask.

use super::{OpError, Opset, Tensors};
use crate::ir::{Block, Fact, Value};
use mlconv_tensor::{DType, Dim, Dims, Shape, Tensor, TensorType, Type, strides};
use smallvec::smallvec;
use std::fmt::Debug;

/// Who knows the facts of values: a function before a run, or the run itself.
pub trait FactSource: Debug {
    /// What is known of `v`.
    fn fact(&self, v: Value) -> &Fact;
    /// What was known of `v` before the run.
    fn stated(&self, v: Value) -> &Fact {
        self.fact(v)
    }
    /// The constant that `v` is, where it is one.
    fn constant(&self, v: Value) -> Option<&Tensor>;
    /// Whether `v` is a constant of the program, not only known in a run.
    fn is_const(&self, v: Value) -> bool {
        self.constant(v).is_some()
    }
    /// The arguments of a nested block.
    fn block_args(&self, block: Block) -> &[Value];
    /// The values that a nested block yields.
    fn block_yields(&self, block: Block) -> &[Value];
}

/// What inference may ask of an op's operands.
#[derive(Clone, Copy, Debug)]
pub struct InferCx<'a> {
    source: &'a dyn FactSource,
    /// The op set of the function.
    pub opset: Opset,
    id: usize,
}

impl<'a> InferCx<'a> {
    /// Inference of the op with number `id`, which names its unknown sizes.
    pub fn new(source: &'a dyn FactSource, opset: Opset, id: usize) -> Self {
        Self { source, opset, id }
    }

    /// What is known of `v`.
    pub fn fact(&self, v: Value) -> &'a Fact {
        self.source.fact(v)
    }

    /// What was known of `v` before the run: what decides on the rank of a result.
    pub fn stated(&self, v: Value) -> &'a Fact {
        self.source.stated(v)
    }

    /// The type of `v`, which must be a tensor to be operand `param`.
    pub fn tensor(&self, param: &'static str, v: Value) -> Result<&'a TensorType, OpError> {
        self.fact(v).ty.tensor().ok_or_else(|| self.operand(param, v, "a tensor"))
    }

    /// The type of `v`, which must be a tensor of one of `ranks`.
    pub fn ranked(
        &self,
        param: &'static str,
        v: Value,
        ranks: impl std::ops::RangeBounds<usize> + Debug,
    ) -> Result<&'a TensorType, OpError> {
        let ty = self.tensor(param, v)?;
        if ranks.contains(&ty.shape.rank()) {
            Ok(ty)
        } else {
            Err(self.operand(param, v, format!("a tensor of rank {ranks:?}")))
        }
    }

    /// The shape of `v`, where it is a tensor.
    pub fn shape(&self, v: Value) -> Option<&'a Shape> {
        self.fact(v).ty.tensor().map(|t| &t.shape)
    }

    /// An error about operand `param`.
    pub fn operand(&self, param: &'static str, v: Value, want: impl Into<std::borrow::Cow<'static, str>>) -> OpError {
        OpError::Operand { param, found: self.fact(v).ty.clone(), want: want.into() }
    }

    /// The elements of an integer tensor, where they are known, perhaps symbolically.
    pub fn ints(&self, v: Value) -> Option<&'a [Dim]> {
        self.fact(v).ints.as_deref()
    }

    /// How many elements a tensor has, where that is known.
    pub fn count(&self, v: Value) -> Option<usize> {
        self.fact(v).ty.tensor()?.shape.known()?.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
    }

    /// The elements of an integer tensor, where they are known numbers.
    pub fn known_ints(&self, v: Value) -> Option<Vec<i64>> {
        self.ints(v)?.iter().map(Dim::as_known).collect()
    }

    /// The elements of an integer tensor that must be known numbers to be operand `param`.
    pub fn require_ints(&self, param: &'static str, v: Value) -> Result<Vec<i64>, OpError> {
        self.known_ints(v).ok_or_else(|| self.operand(param, v, "integers known before the program runs"))
    }

    /// The constant that `v` is, where it is one.
    pub fn constant(&self, v: Value) -> Option<&'a Tensor> {
        self.source.constant(v)
    }

    /// Whether `v` is a constant of the program; in a run, other values are known as well.
    pub fn is_const(&self, v: Value) -> bool {
        self.source.is_const(v)
    }

    /// The arguments of a nested block.
    pub fn block_args(&self, block: Block) -> &'a [Value] {
        self.source.block_args(block)
    }

    /// The values that a nested block yields.
    pub fn block_yields(&self, block: Block) -> &'a [Value] {
        self.source.block_yields(block)
    }

    /// `fact` with what is known of the elements of `x`: for ops that change the shape alone.
    pub fn keep_ints(&self, x: Value, fact: Fact) -> Fact {
        Fact { ints: self.fact(x).ints.clone(), ..fact }
    }

    /// `fact` with what is known of the elements of `x` at the flat positions that `at` gives for each place: what
    /// [`Out::gathered`] does to tensors.
    pub fn gather_ints(&self, x: Value, fact: Fact, mut at: impl FnMut(&[usize]) -> usize) -> Fact {
        let shape = fact.ty.tensor().and_then(|t| Some((t.dtype, t.shape.known()?)));
        let (Some(ints), Some((dtype, shape))) = (self.ints(x), shape) else { return fact };
        let out = Out { dtype, shape };
        let count = out.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if count.is_none_or(|n| n > Fact::MAX_INTS) {
            return fact;
        }
        let mut moved = vec![];
        out.each_index(|index| moved.extend(ints.get(at(index)).cloned()));
        if moved.len() == out.count() { fact.with_ints(moved) } else { fact }
    }

    /// A size that depends on data: the `k`-th one of this op.
    pub fn unknown(&self, k: usize) -> Dim {
        Dim::symbol(format!("u{}_{k}", self.id))
    }

    /// One result of `dtype` and `shape`; a negative size is an error.
    pub fn result(&self, dtype: DType, shape: impl Into<Shape>) -> Result<super::Facts, OpError> {
        Ok(smallvec![self.fact_of(dtype, shape)?])
    }

    /// The fact of a tensor of `dtype` and `shape`; a negative size is an error.
    pub fn fact_of(&self, dtype: DType, shape: impl Into<Shape>) -> Result<Fact, OpError> {
        let shape = shape.into();
        match shape.iter().position(|d| d.as_known().is_some_and(|n| n < 0)) {
            Some(axis) => Err(OpError::Size { axis, dim: shape[axis].clone() }),
            None => Ok(Fact::of(TensorType { dtype, shape })),
        }
    }
}

/// What evaluation may ask of a run.
pub trait Env {
    /// The tensor that `v` holds.
    fn tensor(&self, v: Value) -> &Tensor;
    /// Runs a nested block on `args`; what it yields.
    fn run_block(&self, block: Block, args: Tensors) -> Result<Tensors, OpError>;
    /// The content of the state `v`.
    fn read_state(&self, v: Value) -> Tensor;
    /// Replaces the content of the state `v`.
    fn write_state(&self, v: Value, content: Tensor);
    /// The op set of the function.
    fn opset(&self) -> Opset;
}

/// What a reference kernel may ask.
pub struct EvalCx<'a> {
    /// The run.
    pub env: &'a dyn Env,
    outs: Vec<Out>,
}

/// The type of a result, all known. A size that depends on data is 0 here; the kernel finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// The element type.
    pub dtype: DType,
    /// The shape.
    pub shape: Dims,
}

impl<'a> EvalCx<'a> {
    /// Evaluation of an op whose results have these facts. A result that does not fit in memory is an error.
    pub fn new(env: &'a dyn Env, facts: &[Fact]) -> Result<Self, OpError> {
        let mut outs = vec![];
        for fact in facts {
            outs.push(match &fact.ty {
                Type::Tensor(t) => {
                    let shape: Dims = t.shape.iter().map(|d| d.as_usize().unwrap_or(0)).collect();
                    let count = t.shape.count();
                    // Kernels compute in 8-byte elements: more than this is 8 GiB. Unknown counts are judged by the kernel.
                    // Strides are products of sizes even where one is zero.
                    let steps = shape.iter().filter(|d| **d != 0).try_fold(1usize, |n, d| n.checked_mul(*d));
                    if count.as_known().is_some_and(|n| n > 1 << 30) || steps.is_none() {
                        return Err(OpError::TooLarge { count });
                    }
                    Out { dtype: t.dtype, shape }
                }
                Type::State(_) | Type::List { .. } | Type::Dict { .. } | Type::Unknown => {
                    Out { dtype: DType::F64, shape: Dims::new() }
                }
            });
        }
        Ok(Self { env, outs })
    }

    /// The tensor that `v` holds.
    pub fn tensor(&self, v: Value) -> &'a Tensor {
        self.env.tensor(v)
    }

    /// Its shape.
    pub fn shape(&self, v: Value) -> &'a [usize] {
        self.tensor(v).shape()
    }

    /// Its elements.
    pub fn f64(&self, v: Value) -> Vec<f64> {
        self.tensor(v).to_f64()
    }

    /// Its elements as integers.
    pub fn i64(&self, v: Value) -> Vec<i64> {
        self.tensor(v).to_i64()
    }

    /// The op set of the function.
    pub fn opset(&self) -> Opset {
        self.env.opset()
    }

    /// The `i`-th result's type.
    pub fn out(&self, i: usize) -> &Out {
        &self.outs[i]
    }

    /// How many results there are.
    pub fn out_count(&self) -> usize {
        self.outs.len()
    }
}

impl Out {
    /// The number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// A tensor of these values, rounded to the element type.
    pub fn of(&self, values: &[f64]) -> Tensor {
        Tensor::from_f64(self.dtype, &self.shape, values)
    }

    /// A tensor of these integers; they wrap where they do not fit, as two's complement does.
    pub fn of_ints(&self, values: &[i64]) -> Tensor {
        let Some((lo, hi)) = self.dtype.int_range().filter(|_| self.dtype != DType::Bool) else {
            return Tensor::from_i64(self.dtype, &self.shape, values);
        };
        let span = hi - lo + 1;
        let wrapped: Vec<i64> = values.iter().map(|v| ((i128::from(*v) - lo).rem_euclid(span) + lo) as i64).collect();
        Tensor::from_i64(self.dtype, &self.shape, &wrapped)
    }

    /// A tensor whose element number `i`, in row-major order, is `f(i)`.
    pub fn fill_each(&self, f: impl FnMut(usize) -> f64) -> Tensor {
        self.of(&(0..self.count()).map(f).collect::<Vec<_>>())
    }

    /// Calls `f` with the coordinates of every element, in row-major order.
    pub fn each_index(&self, mut f: impl FnMut(&[usize])) {
        let mut index: Dims = smallvec![0; self.shape.len()];
        for _ in 0..self.count() {
            f(&index);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
    }

    /// A tensor of the elements of `x` at the flat positions that `at` gives for each place, in any element type: for
    /// ops that move elements and compute nothing.
    pub fn gathered(&self, x: &Tensor, mut at: impl FnMut(&[usize]) -> usize) -> Tensor {
        let mut places = Vec::with_capacity(self.count());
        self.each_index(|index| places.push(at(index)));
        take(x, &self.shape, &places)
    }
}

/// The elements of `x` at flat `places`, bytes moved as they are where they are whole.
fn take(x: &Tensor, shape: &[usize], places: &[usize]) -> Tensor {
    if x.dtype().bits() < 8 {
        let values = x.to_i64();
        return Tensor::from_i64(x.dtype(), shape, &places.iter().map(|p| values[*p]).collect::<Vec<_>>());
    }
    let (size, bytes) = (x.dtype().bits() as usize / 8, x.blob().read());
    let mut out = Vec::with_capacity(places.len() * size);
    for p in places {
        out.extend_from_slice(&bytes[p * size..(p + 1) * size]);
    }
    Tensor::new(x.dtype(), shape, mlconv_tensor::Bytes::from(out).into()).expect("as many bytes as places")
}

/// Reads a tensor as if it had been broadcast to a larger shape.
#[derive(Debug)]
pub struct Broadcast {
    /// Step per axis of the large shape; 0 where the small one repeats.
    steps: Dims,
}

impl Broadcast {
    /// From shape `from`, aligned at the last axis, to `to`.
    pub fn new(from: &[usize], to: &[usize]) -> Self {
        let own = strides(from);
        let lead = to.len().saturating_sub(from.len());
        let step = |axis: usize| match axis.checked_sub(lead) {
            Some(k) if from[k] != 1 => own[k],
            _ => 0,
        };
        Self { steps: (0..to.len()).map(step).collect() }
    }

    /// The flat position in the small tensor of the element at `index` of the large one.
    pub fn at(&self, index: &[usize]) -> usize {
        index.iter().zip(&self.steps).map(|(i, s)| i * s).sum()
    }
}

/// The rows of a tensor along one axis. A tensor without elements has none.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Elements of a row.
    pub len: usize,
    step: usize,
    count: usize,
}

impl Rows {
    /// The rows of a tensor of this shape along `axis`, which it has.
    pub fn new(shape: &[usize], axis: usize) -> Self {
        let (len, step) = (shape[axis], shape[axis + 1..].iter().product());
        let count = if len == 0 { 0 } else { step * shape[..axis].iter().product::<usize>() };
        Self { len, step, count }
    }

    /// The flat positions of each row's elements; rows in row-major order.
    pub fn iter(self) -> impl Iterator<Item = impl DoubleEndedIterator<Item = usize> + ExactSizeIterator + Clone> {
        (0..self.count).map(move |i| {
            let start = i / self.step * self.step * self.len + i % self.step;
            (0..self.len).map(move |k| start + k * self.step)
        })
    }
}
