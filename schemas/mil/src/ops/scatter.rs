//! Writing elements by index.
//!
//! Indices are those of [`gather`](super::Gather): negative ones count from the end before iOS17, and those outside are
//! refused. Where several updates go to one place, they are applied in row-major order.

use super::gather::{depth, positions, same_sizes};
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{Shape, strides};
use smallvec::smallvec;

/// What becomes of an element and its update.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScatterMode {
    /// The update.
    #[name("update")]
    Update,
    /// Their sum.
    #[name("add")]
    Add,
    /// The element less the update.
    #[name("sub")]
    Sub,
    /// Their product.
    #[name("mul")]
    Mul,
    /// The element divided by the update; of integers, truncated, and 0 where the update is.
    #[name("div")]
    Div,
    /// The greater one.
    #[name("max")]
    Max,
    /// The lesser one.
    #[name("min")]
    Min,
}

impl ScatterMode {
    fn floats(self, x: f64, update: f64) -> f64 {
        match self {
            Self::Update => update,
            Self::Add => x + update,
            Self::Sub => x - update,
            Self::Mul => x * update,
            Self::Div => x / update,
            Self::Max => x.max(update),
            Self::Min => x.min(update),
        }
    }

    fn ints(self, x: i64, update: i64) -> i64 {
        match self {
            Self::Update => update,
            Self::Add => x.wrapping_add(update),
            Self::Sub => x.wrapping_sub(update),
            Self::Mul => x.wrapping_mul(update),
            Self::Div => x.checked_div(update).unwrap_or(0),
            Self::Max => x.max(update),
            Self::Min => x.min(update),
        }
    }
}

/// Applies `updates`, in row-major order, to the elements of `data` at the flat positions that `at` gives for each.
fn scattered(
    cx: &EvalCx<'_>,
    data: Value,
    updates: Value,
    mode: ScatterMode,
    mut at: impl FnMut(&[usize]) -> usize,
) -> Tensors {
    let (data, updates, mut i) = (cx.tensor(data), cx.tensor(updates), 0);
    let order = crate::schema::Out { dtype: updates.dtype(), shape: updates.shape().into() };
    smallvec![if data.dtype().is_float() {
        let (mut values, updates) = (data.to_f64(), updates.to_f64());
        order.each_index(|index| {
            let at = at(index);
            values[at] = mode.floats(values[at], updates[i]);
            i += 1;
        });
        cx.out(0).of(&values)
    } else {
        let (mut values, updates) = (data.to_i64(), updates.to_i64());
        order.each_index(|index| {
            let at = at(index);
            values[at] = mode.ints(values[at], updates[i]);
            i += 1;
        });
        cx.out(0).of_ints(&values)
    }]
}

/// `data` with slices along an axis updated: `y[p…, indices[i], q…] = mode(y[p…, indices[i], q…], updates[p…, i, q…])`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "scatter", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32)]
#[domain(I: Ios15 = I32)]
pub struct Scatter {
    /// `T[*d, n, *e]`.
    #[operand(T)]
    pub data: Value,
    /// `i32[k]`: positions along the axis.
    #[operand(I)]
    pub indices: Value,
    /// `T[*d, k, *e]`.
    #[operand(T)]
    pub updates: Value,
    /// The axis, in `-rank..rank`.
    #[attr(default = 0)]
    pub axis: i64,
    /// What becomes of an element and its update.
    #[attr(default = ScatterMode::Add)]
    pub mode: ScatterMode,
    /// Whether an index outside is an error.
    #[attr(default = false, since = Ios17)]
    pub validate_indices: bool,
}

impl Semantics for Scatter {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let data = cx.tensor("data", self.data)?;
        let axis = data.shape.axis(self.axis)?;
        let indices = cx.ranked("indices", self.indices, 1..=1)?;
        let updates = cx.tensor("updates", self.updates)?;
        let want = data.shape.with(axis, indices.shape[0].clone());
        same_sizes(cx, "updates", self.updates, &want, &updates.shape)?;
        if let (true, Some(ints), Some(n)) =
            (self.validate_indices, cx.known_ints(self.indices), data.shape[axis.index()].as_usize())
        {
            positions(&ints, cx.opset, |_| n)?;
        }
        cx.result(data.dtype, data.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let dims = cx.shape(self.data);
        let (axis, own) = (Shape::from(dims).axis(self.axis)?.index(), strides(dims));
        let at = positions(&cx.i64(self.indices), cx.opset(), |_| dims[axis])?;
        Ok(scattered(cx, self.data, self.updates, self.mode, |index| {
            let fixed: usize = index.iter().zip(&own).map(|(i, s)| i * s).sum();
            fixed - index[axis] * own[axis] + at[index[axis]] * own[axis]
        }))
    }
}

/// `data` with elements updated, each picked along an axis:
/// `y[p…, indices[p…, i, q…], q…] = mode(y[…], updates[p…, i, q…])`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "scatter_along_axis", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32)]
#[domain(I: Ios15 = I32)]
pub struct ScatterAlongAxis {
    /// `T[*d, n, *e]`.
    #[operand(T)]
    pub data: Value,
    /// `i32[*d, k, *e]`: positions along the axis.
    #[operand(I)]
    pub indices: Value,
    /// `T[*d, k, *e]`.
    #[operand(T)]
    pub updates: Value,
    /// The axis, in `-rank..rank`.
    #[attr(default = 0)]
    pub axis: i64,
    /// What becomes of an element and its update.
    #[attr(default = ScatterMode::Add)]
    pub mode: ScatterMode,
    /// Whether an index outside is an error.
    #[attr(default = false, since = Ios17)]
    pub validate_indices: bool,
}

impl Semantics for ScatterAlongAxis {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let data = cx.tensor("data", self.data)?;
        let (axis, rank) = (data.shape.axis(self.axis)?, data.shape.rank());
        let indices = cx.ranked("indices", self.indices, rank..=rank)?;
        let updates = cx.tensor("updates", self.updates)?;
        let want = data.shape.with(axis, indices.shape[axis.index()].clone());
        same_sizes(cx, "indices", self.indices, &want, &indices.shape)?;
        same_sizes(cx, "updates", self.updates, &indices.shape, &updates.shape)?;
        if let (true, Some(ints), Some(n)) =
            (self.validate_indices, cx.known_ints(self.indices), data.shape[axis.index()].as_usize())
        {
            positions(&ints, cx.opset, |_| n)?;
        }
        cx.result(data.dtype, data.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let dims = cx.shape(self.data);
        let (axis, own) = (Shape::from(dims).axis(self.axis)?.index(), strides(dims));
        let at = positions(&cx.i64(self.indices), cx.opset(), |_| dims[axis])?;
        let mut next = at.iter();
        Ok(scattered(cx, self.data, self.updates, self.mode, |index| {
            let fixed: usize = index.iter().zip(&own).map(|(i, s)| i * s).sum();
            fixed - index[axis] * own[axis] + next.next().map_or(0, |at| at * own[axis])
        }))
    }
}

/// `data` with slices updated, each picked along its first axes:
/// `y[indices[i…, 0], …, indices[i…, k - 1], q…] = mode(y[…], updates[i…, q…])`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "scatter_nd", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32)]
#[domain(I: Ios15 = I32)]
pub struct ScatterNd {
    /// `T[*d, *e]`.
    #[operand(T)]
    pub data: Value,
    /// `i32[*i, k]`, where `k` is the rank of `*d`.
    #[operand(I)]
    pub indices: Value,
    /// `T[*i, *e]`.
    #[operand(T)]
    pub updates: Value,
    /// What becomes of an element and its update.
    #[attr(default = ScatterMode::Add)]
    pub mode: ScatterMode,
    /// Whether an index outside is an error.
    #[attr(default = false, since = Ios17)]
    pub validate_indices: bool,
}

impl Semantics for ScatterNd {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let data = cx.tensor("data", self.data)?;
        let indices = cx.ranked("indices", self.indices, 1..)?;
        let updates = cx.tensor("updates", self.updates)?;
        let (last, lead) = indices.shape.split_last().ok_or(OpError::Missing { param: "indices" })?;
        let depth = depth(cx, self.indices, last, data.shape.rank())?;
        let want: Shape = lead.iter().chain(&data.shape[depth..]).cloned().collect();
        same_sizes(cx, "updates", self.updates, &want, &updates.shape)?;
        if let (true, Some(ints), Some(dims)) = (self.validate_indices, cx.known_ints(self.indices), data.shape.known())
        {
            positions(&ints, cx.opset, |i| dims[i % depth.max(1)])?;
        }
        cx.result(data.dtype, data.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (dims, indices) = (cx.shape(self.data), cx.tensor(self.indices));
        let (depth, lead) = indices.shape().split_last().ok_or(OpError::Missing { param: "indices" })?;
        let at = positions(&indices.to_i64(), cx.opset(), |i| dims[i % (*depth).max(1)])?;
        let (own, steps) = (strides(dims), strides(lead));
        Ok(scattered(cx, self.data, self.updates, self.mode, |index| {
            let (row, tail) = index.split_at(lead.len());
            let which: usize = row.iter().zip(&steps).map(|(i, s)| i * s).sum();
            let picked = &at[which * depth..(which + 1) * depth];
            picked.iter().chain(tail).zip(&own).map(|(i, s)| i * s).sum()
        }))
    }
}
