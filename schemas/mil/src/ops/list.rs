//! Lists: tensors of one type, as many as a run writes.

use crate::{
    ir::{Fact, Value},
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Out, Semantics, Tensors, mil_name},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Dims, Shape, Tensor, TensorType, Type, strides};
use smallvec::smallvec;
use std::collections::BTreeMap;

/// A list of tensors, all zero.
///
/// In a run, a list is a tensor of its elements one after the other along a new first axis. The type of a list says how
/// long it is at first. A size of the elements that is not known is that of the first element written.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "make_list", since = Ios15)]
#[domain(I: Ios15 = I32)]
pub struct MakeList {
    /// `i32[]`: how many elements there are at first; 1 when absent.
    #[operand(I)]
    pub init_length: Option<Value>,
    /// Whether the list may grow.
    #[attr(default = true)]
    pub dynamic_length: bool,
    /// The shape of each element; -1 is a size that only a run knows.
    #[attr(tuple)]
    pub elem_shape: Ints,
    /// The element type of each element: `fp16`, `fp32`, `int32` or `bool`.
    #[attr(default = DType::F32)]
    pub dtype: DType,
}

/// The element types that lists hold.
const DTYPES: [DType; 4] = [DType::F16, DType::F32, DType::I32, DType::Bool];
/// Elements that a list may hold in all.
const MAX_ELEMENTS: usize = 1 << 30;

impl Semantics for MakeList {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        if !DTYPES.contains(&self.dtype) {
            return Err(OpError::value("dtype", mil_name(self.dtype), "fp16, fp32, int32 or bool"));
        }
        let len = match self.init_length {
            None => Dim::from(1),
            Some(v) => {
                cx.ranked("init_length", v, 0..=0)?;
                cx.ints(v).and_then(|n| n.first().cloned()).unwrap_or_else(|| cx.unknown(self.elem_shape.len()))
            }
        };
        if len.as_known().is_some_and(|n| n < 0) {
            return Err(OpError::value("init_length", len, "0 or more"));
        }
        let size = |(i, n): (usize, &i64)| match n {
            -1 => Ok(cx.unknown(i)),
            0.. => Ok(Dim::from(*n)),
            _ => Err(OpError::value("elem_shape", n, "0 or more, or -1")),
        };
        let shape: Shape = self.elem_shape.iter().enumerate().map(size).collect::<Result<_, _>>()?;
        Ok(smallvec![Fact::of(Type::List { elem: TensorType { dtype: self.dtype, shape }, len })])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let len = self.init_length.map_or(1, |v| cx.i64(v).first().copied().unwrap_or(0));
        let sizes = std::iter::once(len).chain(self.elem_shape.iter().map(|n| (*n).max(0)));
        let shape: Option<Dims> = sizes.map(|n| usize::try_from(n).ok()).collect();
        let shape = shape.ok_or_else(|| OpError::value("init_length", len, "0 or more"))?;
        held(&shape)?;
        Ok(smallvec![Tensor::splat(self.dtype, &shape, 0.0)])
    }
    fn default_operands(&self, _: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        if self.init_length.is_none() { vec![("init_length", Tensor::scalar(1i32))] } else { vec![] }
    }
}

/// How many elements a list has.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "list_length", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
pub struct ListLength {
    /// A list.
    #[operand(T)]
    pub ls: Value,
}

impl Semantics for ListLength {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        element(cx, self.ls)?;
        // The length of its type is the first one; it may have grown since.
        cx.result(DType::I32, Shape::scalar())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(smallvec![cx.out(0).of_ints(&[cx.shape(self.ls)[0] as i64])])
    }
}

/// One element of a list.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "list_read", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
#[domain(I: Ios15 = I32)]
pub struct ListRead {
    /// A list.
    #[operand(T)]
    pub ls: Value,
    /// `i32[]`: which one, from 0.
    #[operand(I)]
    pub index: Value,
}

impl Semantics for ListRead {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        cx.ranked("index", self.index, 0..=0)?;
        let elem = element(cx, self.ls)?;
        cx.result(elem.dtype, elem.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let list = cx.tensor(self.ls);
        let at = inside("index", &cx.i64(self.index), list.shape()[0])?;
        let read = picked(list, &at);
        let shape: Dims = list.shape()[1..].into();
        Ok(smallvec![read.reshape(&shape)])
    }
}

/// Elements of a list, one after the other along a new first axis.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "list_gather", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
#[domain(I: Ios15 = I32)]
pub struct ListGather {
    /// A list.
    #[operand(T)]
    pub ls: Value,
    /// `i32[n]`: which ones, from 0.
    #[operand(I)]
    pub indices: Value,
}

impl Semantics for ListGather {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let mut shape = cx.ranked("indices", self.indices, 1..=1)?.shape.clone();
        let elem = element(cx, self.ls)?;
        shape.dims_mut().extend(elem.shape.iter().cloned());
        cx.result(elem.dtype, shape)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let list = cx.tensor(self.ls);
        let at = inside("indices", &cx.i64(self.indices), list.shape()[0])?;
        Ok(smallvec![picked(list, &at)])
    }
}

/// A list with another element at one place; where the list ends before that, it grows, the elements between being zero.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "list_write", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
#[domain(I: Ios15 = I32)]
pub struct ListWrite {
    /// A list.
    #[operand(T)]
    pub ls: Value,
    /// `i32[]`: where, from 0.
    #[operand(I)]
    pub index: Value,
    /// `T[*d]`, as the elements of the list.
    #[operand(T)]
    pub value: Value,
}

impl Semantics for ListWrite {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        cx.ranked("index", self.index, 0..=0)?;
        let (elem, value) = (element(cx, self.ls)?, cx.tensor("value", self.value)?);
        if elem.dtype != value.dtype || !elem.shape.may_equal(&value.shape) {
            return Err(cx.operand("value", self.value, format!("{elem}, an element of the list")));
        }
        Ok(smallvec![Fact::of(cx.fact(self.ls).ty.clone())])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let value = cx.tensor(self.value);
        let index = cx.i64(self.index);
        let row: Dims = std::iter::once(1).chain(value.shape().iter().copied()).collect();
        Ok(smallvec![written(cx.tensor(self.ls), "index", &index, &value.reshape(&row))?])
    }
}

/// A list with other elements at several places, the later of two at one place; where the list ends before one of them,
/// it grows, the elements between being zero.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "list_scatter", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
#[domain(I: Ios15 = I32)]
pub struct ListScatter {
    /// A list.
    #[operand(T)]
    pub ls: Value,
    /// `i32[n]`: where, from 0.
    #[operand(I)]
    pub indices: Value,
    /// `T[n, *d]`, elements one after the other.
    #[operand(T)]
    pub value: Value,
}

impl Semantics for ListScatter {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let elem = element(cx, self.ls)?;
        let (indices, value) = (cx.ranked("indices", self.indices, 1..=1)?, cx.ranked("value", self.value, 1..)?);
        let want: Shape = indices.shape.iter().chain(elem.shape.iter()).cloned().collect();
        if elem.dtype != value.dtype || !want.may_equal(&value.shape) {
            let want = TensorType { dtype: elem.dtype, shape: want };
            return Err(cx.operand("value", self.value, format!("{want}, an element of the list per index")));
        }
        Ok(smallvec![Fact::of(cx.fact(self.ls).ty.clone())])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(smallvec![written(cx.tensor(self.ls), "indices", &cx.i64(self.indices), cx.tensor(self.value))?])
    }
}

/// The type of the elements of operand `ls`.
fn element<'a>(cx: &InferCx<'a>, ls: Value) -> Result<&'a TensorType, OpError> {
    match &cx.fact(ls).ty {
        Type::List { elem, .. } => Ok(elem),
        Type::Tensor(_) | Type::State(_) | Type::Dict { .. } | Type::Unknown => Err(cx.operand("ls", ls, "a list")),
    }
}

/// Places in a list of `len` elements.
fn inside(param: &'static str, indices: &[i64], len: usize) -> Result<Vec<usize>, OpError> {
    let place = |i: &i64| {
        let found = usize::try_from(*i).ok().filter(|i| *i < len);
        found.ok_or_else(|| OpError::value(param, i, format!("in 0..{len}")))
    };
    indices.iter().map(place).collect()
}

/// The elements of a list at these places.
fn picked(list: &Tensor, at: &[usize]) -> Tensor {
    let shape: Dims = std::iter::once(at.len()).chain(list.shape()[1..].iter().copied()).collect();
    let own = strides(list.shape());
    let out = Out { dtype: list.dtype(), shape };
    out.gathered(list, |index| {
        at[index[0]] * own[0] + index[1..].iter().zip(&own[1..]).map(|(i, s)| i * s).sum::<usize>()
    })
}

/// A list with the rows of `values` written at `indices`, operand `param`.
fn written(list: &Tensor, param: &'static str, indices: &[i64], values: &Tensor) -> Result<Tensor, OpError> {
    let place = |i: &i64| usize::try_from(*i).map_err(|_| OpError::value(param, i, "0 or more"));
    let places: Vec<usize> = indices.iter().map(place).collect::<Result<_, _>>()?;
    let (elem, had) = (&values.shape()[1..], list.shape()[0]);
    let same = &list.shape()[1..] == elem;
    // Elements of a size that nobody knew hold nothing before the first is written.
    if !same && list.count() > 0 {
        let found = TensorType::new(values.dtype(), Shape::from(elem));
        let want = TensorType::new(list.dtype(), Shape::from(&list.shape()[1..]));
        return Err(OpError::Operand { param: "value", found: found.into(), want: format!("{want}").into() });
    }
    let len = places.iter().map(|p| p.saturating_add(1)).max().unwrap_or(0).max(had);
    let shape: Dims = std::iter::once(len).chain(elem.iter().copied()).collect();
    held(&shape)?;
    let (old, new) = (strides(list.shape()), strides(values.shape()));
    // Of two at one place the later one holds.
    let source: BTreeMap<usize, usize> = places.iter().enumerate().map(|(row, place)| (*place, row)).collect();
    let out = Out { dtype: list.dtype(), shape };
    let rest = |index: &[usize], steps: &[usize]| index[1..].iter().zip(&steps[1..]).map(|(i, s)| i * s).sum::<usize>();
    let (before, after) = (list.to_f64(), values.to_f64());
    let mut all = Vec::with_capacity(out.count());
    // Every element type of a list is exact in `f64`.
    out.each_index(|index| {
        all.push(match source.get(&index[0]) {
            Some(row) => after[*row * new[0] + rest(index, &new)],
            None if same && index[0] < had => before[index[0] * old[0] + rest(index, &old)],
            None => 0.0,
        });
    });
    Ok(out.of(&all))
}

/// Refuses a list that does not fit in memory. A length counts even where the elements are empty.
fn held(shape: &[usize]) -> Result<(), OpError> {
    let least = shape.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)));
    if least.is_some_and(|n| n <= MAX_ELEMENTS) {
        return Ok(());
    }
    let count = shape.iter().map(|d| Dim::from(*d)).fold(Dim::from(1), |n, d| n * d);
    Err(OpError::TooLarge { count })
}
