//! Reading elements by index.
//!
//! Before iOS17 an index may be negative and then counts from the end. Since iOS17 it may not, and what an index outside
//! of its axis reads is undefined unless `validate_indices` makes it an error; the kernels here always refuse it.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Opset, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{Dim, Shape, strides};
use smallvec::smallvec;

/// `x[p…, indices[b…, i…], q…]`: slices of `x` along an axis.
///
/// The result has the shape of `x` with `axis` replaced by the shape of `indices`, less its first `batch_dims` axes: those
/// are shared with `x`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "gather", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32, Ios17 = I8 | U8 | I16 | U16)]
#[domain(I: Ios15 = I32, Ios16 = I16 | U16, Ios17 = I8 | U8)]
pub struct Gather {
    /// `T[*d]`, of rank 1 or more.
    #[operand(T)]
    pub x: Value,
    /// `I[*b, *i]`: positions along the axis.
    #[operand(I)]
    pub indices: Value,
    /// The axis, in `-rank..rank`, not before `batch_dims`.
    #[attr(default = 0)]
    pub axis: i64,
    /// How many leading axes `x` and `indices` share.
    #[attr(default = 0, since = Ios16)]
    pub batch_dims: i64,
    /// Whether an index outside is an error.
    #[attr(default = false, since = Ios17)]
    pub validate_indices: bool,
}

impl Semantics for Gather {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let (x, indices) = (cx.tensor("x", self.x)?, cx.tensor("indices", self.indices)?);
        let axis = x.shape.axis(self.axis)?.index();
        let batch = batch_dims(self.batch_dims, axis.min(indices.shape.rank()))?;
        same_sizes(cx, "indices", self.indices, &x.shape[..batch], &indices.shape[..batch])?;
        let shape: Shape =
            x.shape[..axis].iter().chain(&indices.shape[batch..]).chain(&x.shape[axis + 1..]).cloned().collect();
        let fact = cx.fact_of(x.dtype, shape)?;
        let known = cx.known_ints(self.indices).zip(x.shape[axis].as_usize());
        let Some((ints, size)) = known else { return Ok(smallvec![fact]) };
        let at = match positions(&ints, cx.opset, |_| size) {
            Ok(at) => at,
            // Undefined, not wrong: nothing is known of the result.
            Err(_) if !self.validate_indices => return Ok(smallvec![fact]),
            Err(e) => return Err(e),
        };
        Ok(smallvec![match x.shape.known().zip(indices.shape.known()) {
            Some((dims, index_dims)) => cx.gather_ints(self.x, fact, place(&dims, axis, &index_dims, batch, &at)),
            None => fact,
        }])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, indices) = (cx.tensor(self.x), cx.tensor(self.indices));
        let axis = Shape::from(x.shape()).axis(self.axis)?.index();
        let batch = batch_dims(self.batch_dims, axis.min(indices.shape().len()))?;
        let at = positions(&indices.to_i64(), cx.opset(), |_| x.shape()[axis])?;
        Ok(smallvec![cx.out(0).gathered(x, place(x.shape(), axis, indices.shape(), batch, &at))])
    }
}

/// The flat position in `x`, of shape `dims`, of an index of the result, where `at` are the resolved indices.
fn place(dims: &[usize], axis: usize, index_dims: &[usize], batch: usize, at: &[usize]) -> impl Fn(&[usize]) -> usize {
    let (own, steps, inner) = (strides(dims), strides(index_dims), index_dims.len() - batch);
    move |index| {
        let (lead, rest) = index.split_at(axis);
        let (picked, tail) = rest.split_at(inner);
        let which: usize = lead[..batch].iter().chain(picked).zip(&steps).map(|(i, s)| i * s).sum();
        let fixed: usize = lead.iter().zip(&own).chain(tail.iter().zip(&own[axis + 1..])).map(|(i, s)| i * s).sum();
        fixed.saturating_add(at.get(which).map_or(usize::MAX, |at| at.saturating_mul(own[axis])))
    }
}

/// `batch_dims` as a number of axes, at most `most`.
fn batch_dims(batch_dims: i64, most: usize) -> Result<usize, OpError> {
    let fail =
        || OpError::Value { param: "batch_dims", found: batch_dims.to_string(), want: format!("0 to {most}").into() };
    usize::try_from(batch_dims).ok().filter(|n| *n <= most).ok_or_else(fail)
}

/// Refuses operand `param` where sizes that must be equal are known to differ.
pub(super) fn same_sizes(
    cx: &InferCx<'_>,
    param: &'static str,
    v: Value,
    want: &[Dim],
    found: &[Dim],
) -> Result<(), OpError> {
    if Shape::from(want).may_equal(&found.into()) {
        return Ok(());
    }
    Err(cx.operand(param, v, format!("sizes {} where it has {}", Shape::from(want), Shape::from(found))))
}

/// Indices resolved to positions; the `i`-th one is along an axis of `size(i)` elements.
pub(super) fn positions(indices: &[i64], opset: Opset, size: impl Fn(usize) -> usize) -> Result<Vec<usize>, OpError> {
    let resolve = |(i, index): (usize, &i64)| {
        let n = size(i);
        let at = if *index < 0 && opset < Opset::Ios17 { index.saturating_add(n as i64) } else { *index };
        usize::try_from(at).ok().filter(|at| *at < n).ok_or_else(|| {
            let least = if opset < Opset::Ios17 { format!("-{n}") } else { "0".to_owned() };
            let want = format!("in {least}..{n} in {opset}");
            OpError::Value { param: "indices", found: index.to_string(), want: want.into() }
        })
    };
    indices.iter().enumerate().map(resolve).collect()
}

/// `x[p…, indices[p…, i, q…], q…]`: elements of `x`, each picked along an axis.
///
/// The result has the shape of `indices`, which is that of `x` but for `axis`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "gather_along_axis", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32, Ios17 = I8 | U8 | I16 | U16)]
#[domain(I: Ios15 = I32, Ios16 = I16 | U16, Ios17 = I8 | U8)]
pub struct GatherAlongAxis {
    /// `T[*d, n, *e]`.
    #[operand(T)]
    pub x: Value,
    /// `I[*d, k, *e]`: positions along the axis.
    #[operand(I)]
    pub indices: Value,
    /// The axis, in `-rank..rank`.
    #[attr(default = 0)]
    pub axis: i64,
    /// Whether an index outside is an error.
    #[attr(default = false, since = Ios17)]
    pub validate_indices: bool,
}

impl Semantics for GatherAlongAxis {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let axis = x.shape.axis(self.axis)?;
        let rank = x.shape.rank();
        let indices = cx.ranked("indices", self.indices, rank..=rank)?;
        let want = x.shape.with(axis, indices.shape[axis.index()].clone());
        same_sizes(cx, "indices", self.indices, &want, &indices.shape)?;
        if let (true, Some(ints), Some(n)) =
            (self.validate_indices, cx.known_ints(self.indices), x.shape[axis.index()].as_usize())
        {
            positions(&ints, cx.opset, |_| n)?;
        }
        cx.result(x.dtype, indices.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, indices) = (cx.tensor(self.x), cx.tensor(self.indices));
        let axis = Shape::from(x.shape()).axis(self.axis)?.index();
        let at = positions(&indices.to_i64(), cx.opset(), |_| x.shape()[axis])?;
        let (own, mut next) = (strides(x.shape()), at.iter());
        let place = |index: &[usize]| {
            let fixed: usize = index.iter().zip(&own).map(|(i, s)| i * s).sum();
            fixed - index[axis] * own[axis] + next.next().map_or(0, |at| at * own[axis])
        };
        Ok(smallvec![cx.out(0).gathered(x, place)])
    }
}

/// `x[b…, indices[b…, i…, 0], …, indices[b…, i…, k - 1], q…]`: slices of `x`, each picked along several axes.
///
/// The last axis of `indices` has one position for each of `k` axes of `x`, beginning after the first `batch_dims`, which
/// `x` and `indices` share.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "gather_nd", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32, Ios17 = I8 | U8 | I16 | U16)]
#[domain(I: Ios15 = I32, Ios16 = I16 | U16, Ios17 = I8 | U8)]
pub struct GatherNd {
    /// `T[*b, *d, *e]`.
    #[operand(T)]
    pub x: Value,
    /// `I[*b, *i, k]`, where `k` is the rank of `*d`.
    #[operand(I)]
    pub indices: Value,
    /// How many leading axes `x` and `indices` share.
    #[attr(default = 0, since = Ios16)]
    pub batch_dims: i64,
    /// Whether an index outside is an error.
    #[attr(default = false, since = Ios17)]
    pub validate_indices: bool,
}

impl Semantics for GatherNd {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let (x, indices) = (cx.tensor("x", self.x)?, cx.ranked("indices", self.indices, 1..)?);
        let (last, lead) = indices.shape.split_last().ok_or(OpError::Missing { param: "indices" })?;
        let batch = batch_dims(self.batch_dims, lead.len().min(x.shape.rank()))?;
        let depth = depth(cx, self.indices, last, x.shape.rank() - batch)?;
        same_sizes(cx, "indices", self.indices, &x.shape[..batch], &lead[..batch])?;
        if let (true, Some(ints), Some(dims)) = (self.validate_indices, cx.known_ints(self.indices), x.shape.known()) {
            positions(&ints, cx.opset, |i| dims[batch + i % depth.max(1)])?;
        }
        cx.result(x.dtype, lead.iter().chain(&x.shape[batch + depth..]).cloned().collect::<Shape>())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, indices) = (cx.tensor(self.x), cx.tensor(self.indices));
        let (depth, lead) = indices.shape().split_last().ok_or(OpError::Missing { param: "indices" })?;
        let batch = batch_dims(self.batch_dims, lead.len().min(x.shape().len()))?;
        let at = positions(&indices.to_i64(), cx.opset(), |i| x.shape()[batch + i % (*depth).max(1)])?;
        let (own, steps) = (strides(x.shape()), strides(lead));
        let place = |index: &[usize]| {
            let (row, tail) = index.split_at(lead.len());
            let which: usize = row.iter().zip(&steps).map(|(i, s)| i * s).sum();
            let picked = &at[which * depth..(which + 1) * depth];
            row[..batch].iter().chain(picked).chain(tail).zip(&own).map(|(i, s)| i * s).sum()
        };
        Ok(smallvec![cx.out(0).gathered(x, place)])
    }
}

/// How many axes the indices along `last` go into; at most `most`.
pub(super) fn depth(cx: &InferCx<'_>, indices: Value, last: &Dim, most: usize) -> Result<usize, OpError> {
    let want = || cx.operand("indices", indices, format!("a last axis of known size, at most {most}"));
    last.as_usize().filter(|k| *k <= most).ok_or_else(want)
}
