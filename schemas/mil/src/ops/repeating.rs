//! Ops that repeat, pad and turn around.

use super::joining::agreed;
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Semantics, Tensors},
};
use mlconv_derive::{AttrEnum, Op};
use mlconv_tensor::{Dim, Dims, Shape, strides};
use smallvec::smallvec;

/// `x` repeated along each axis.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "tile", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
#[domain(I: Ios15 = I32)]
pub struct Tile {
    /// `T[*d]`, of rank 1 or more.
    #[operand(T)]
    pub x: Value,
    /// `i32[rank]`: how often, per axis, at least once.
    #[operand(I)]
    pub reps: Value,
}

impl Semantics for Tile {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 1..)?;
        let rank = x.shape.rank();
        if cx.ranked("reps", self.reps, 1..=1)?.shape[0].as_known().is_some_and(|n| n != rank as i64) {
            return Err(cx.operand("reps", self.reps, format!("{rank} elements, one per axis")));
        }
        let reps = cx.ints(self.reps).unwrap_or_default();
        if let Some(bad) = reps.iter().find(|r| r.as_known().is_some_and(|n| n < 1)) {
            return Err(OpError::Value { param: "reps", found: bad.to_string(), want: "at least 1".into() });
        }
        let size = |(i, d): (usize, &Dim)| reps.get(i).map_or_else(|| cx.unknown(i), |r| d * r);
        let fact = cx.fact_of(x.dtype, x.shape.iter().enumerate().map(size).collect::<Shape>())?;
        Ok(smallvec![match x.shape.known() {
            Some(dims) => cx.gather_ints(self.x, fact, repeated(&dims)),
            None => fact,
        }])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let x = cx.tensor(self.x);
        Ok(smallvec![cx.out(0).gathered(x, repeated(x.shape()))])
    }
}

/// The flat position in a tensor of shape `dims`, repeated without end, of an index.
fn repeated(dims: &[usize]) -> impl Fn(&[usize]) -> usize {
    let own = strides(dims);
    move |index| index.iter().zip(dims).zip(&own).map(|((i, n), s)| i % n * s).sum()
}

/// What is put around a tensor.
#[derive(AttrEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// One value.
    #[name("constant")]
    Constant,
    /// The elements inside, mirrored at the last one, which is not repeated.
    #[name("reflect")]
    Reflect,
    /// The last element.
    #[name("replicate")]
    Replicate,
}

/// `x` with elements added at the ends of its last axes.
///
/// Along axis `i` of the last `n`, `pad[2 * i]` elements are added before and `pad[2 * i + 1]` after. They are never
/// negative, less than the size of the axis where they reflect, and at most that size where they replicate.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "pad", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(I: Ios15 = I32)]
pub struct Pad {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// `i32[2 * n]`; one not known before the program runs has two elements per axis of `x`.
    #[operand(I)]
    pub pad: Value,
    /// What is added.
    #[attr(default = PadMode::Constant)]
    pub mode: PadMode,
    /// The value added where `mode` is `constant`.
    #[attr(T, default = 0.0)]
    pub constant_val: f32,
}

impl Semantics for Pad {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let (rank, len) = (x.shape.rank(), &cx.ranked("pad", self.pad, 1..=1)?.shape[0]);
        let Some(pad) = cx.ints(self.pad) else {
            if len.as_known().is_some_and(|n| n != 2 * rank as i64) {
                return Err(cx.operand("pad", self.pad, format!("{} elements, two per axis", 2 * rank)));
            }
            return cx.result(x.dtype, (0..rank).map(|i| cx.unknown(i)).collect::<Shape>());
        };
        let Some(lead) = rank.checked_sub(pad.len() / 2).filter(|_| pad.len().is_multiple_of(2)) else {
            return Err(cx.operand("pad", self.pad, format!("an even number of at most {} elements", 2 * rank)));
        };
        let mut shape = x.shape.clone();
        for (pair, dim) in pad.chunks_exact(2).zip(&mut shape.dims_mut()[lead..]) {
            for n in pair {
                let most = match self.mode {
                    PadMode::Constant => None,
                    PadMode::Reflect => Some(&*dim - 1),
                    PadMode::Replicate => Some(dim.clone()),
                };
                let over = most.as_ref().is_some_and(|m| (m - n).as_known().is_some_and(|k| k < 0));
                if n.as_known().is_some_and(|n| n < 0) || over {
                    let want = most.map_or_else(|| "0 or more".to_owned(), |m| format!("0 to {m}"));
                    return Err(OpError::Value { param: "pad", found: n.to_string(), want: want.into() });
                }
            }
            *dim = &(&*dim + &pair[0]) + &pair[1];
        }
        cx.result(x.dtype, shape)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, out, pad) = (cx.tensor(self.x), cx.out(0), cx.i64(self.pad));
        let (own, lead) = (strides(x.shape()), x.shape().len() - pad.len() / 2);
        let before = |axis: usize| axis.checked_sub(lead).map_or(0, |k| pad[2 * k]);
        // The flat position in `x`; `None` is outside of it.
        let place = |index: &[usize]| {
            let mut at = 0;
            for (axis, i) in index.iter().enumerate() {
                let (i, last) = (*i as i64 - before(axis), x.shape()[axis] as i64 - 1);
                let inside = match self.mode {
                    PadMode::Constant => i,
                    PadMode::Reflect => last - (last - i.abs()).abs(),
                    PadMode::Replicate => i.clamp(0, last.max(0)),
                };
                if !(0..=last).contains(&inside) {
                    return None;
                }
                at += inside as usize * own[axis];
            }
            Some(at)
        };
        let (values, mut padded) = (x.to_f64(), Vec::with_capacity(out.count()));
        out.each_index(|index| padded.push(place(index).map_or(f64::from(self.constant_val), |at| values[at])));
        Ok(smallvec![out.of(&padded)])
    }
}

/// `x` in reverse order along some axes.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "reverse", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
pub struct Reverse {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// The axes, in `-rank..rank`; all where absent. An axis named twice is reversed twice.
    #[attr(default = None)]
    pub axes: Option<Ints>,
}

impl Semantics for Reverse {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let turned = self.turned(&x.shape)?;
        let fact = cx.fact_of(x.dtype, x.shape.clone())?;
        Ok(smallvec![match x.shape.known() {
            Some(dims) => cx.gather_ints(self.x, fact, reversed(&dims, &turned)),
            None => fact,
        }])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let x = cx.tensor(self.x);
        let turned = self.turned(&x.shape().into())?;
        Ok(smallvec![cx.out(0).gathered(x, reversed(x.shape(), &turned))])
    }
}

impl Reverse {
    /// Whether each axis is reversed.
    fn turned(&self, shape: &Shape) -> Result<Vec<bool>, OpError> {
        let Some(axes) = &self.axes else { return Ok(vec![true; shape.rank()]) };
        let mut turned = vec![false; shape.rank()];
        for axis in shape.axes(axes)? {
            turned[axis.index()] ^= true;
        }
        Ok(turned)
    }
}

/// The flat position of an index that counts backwards along the axes that are `turned`.
fn reversed(dims: &[usize], turned: &[bool]) -> impl Fn(&[usize]) -> usize {
    let own: Dims = strides(dims);
    move |index| {
        let axes = index.iter().zip(dims).zip(turned).zip(&own);
        axes.map(|(((i, n), turned), s)| if *turned { n - 1 - i } else { *i } * s).sum()
    }
}

/// `x` with the first elements of each sequence in reverse order.
///
/// `batch_axis` counts the sequences, `seq_axis` runs along them; of sequence `i`, the first `lengths[i]` elements are
/// reversed, the others stay.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "reverse_sequence", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
#[domain(U: Ios15 = I32, Ios17 = I8 | I16)]
pub struct ReverseSequence {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// `U[n]`, one per sequence, in `0..=size` of `seq_axis`.
    #[operand(U)]
    pub lengths: Value,
    /// The axis along the sequences, in `-rank..rank`; not `batch_axis`.
    #[attr(default = 0)]
    pub seq_axis: i64,
    /// The axis across the sequences, in `-rank..rank`.
    #[attr(default = 0)]
    pub batch_axis: i64,
}

impl Semantics for ReverseSequence {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let (seq, batch) = (x.shape.axis(self.seq_axis)?, x.shape.axis(self.batch_axis)?);
        if seq == batch {
            let found = self.seq_axis.to_string();
            return Err(OpError::Value { param: "seq_axis", found, want: "another axis than `batch_axis`".into() });
        }
        let count = &x.shape[batch.index()];
        if agreed(&cx.ranked("lengths", self.lengths, 1..=1)?.shape[0], count).is_none() {
            return Err(cx.operand("lengths", self.lengths, format!("{count} elements, one per sequence")));
        }
        cx.result(x.dtype, x.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, lengths) = (cx.tensor(self.x), cx.i64(self.lengths));
        let shape = Shape::from(x.shape());
        let (seq, batch) = (shape.axis(self.seq_axis)?.index(), shape.axis(self.batch_axis)?.index());
        let size = x.shape()[seq];
        if let Some(bad) = lengths.iter().find(|n| usize::try_from(**n).map_or(true, |n| n > size)) {
            let want = format!("0 to {size}");
            return Err(OpError::Value { param: "lengths", found: bad.to_string(), want: want.into() });
        }
        let own = strides(x.shape());
        let place = |index: &[usize]| {
            let (flat, at) = (index.iter().zip(&own).map(|(i, s)| i * s).sum::<usize>(), index[seq]);
            let n = lengths[index[batch]] as usize;
            if at < n { flat - at * own[seq] + (n - 1 - at) * own[seq] } else { flat }
        };
        Ok(smallvec![cx.out(0).gathered(x, place)])
    }
}
