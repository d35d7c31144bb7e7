//! Short forms of the ops that lowerings compose most.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::{DType, Dim, Tensor};

/// One size of a shape that is made while lowering.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// A number.
    Known(i64),
    /// The size of a value along an axis.
    Of(Value, usize),
    /// A number that a value holds, which has no axes.
    Held(Value),
    /// What is left; at most one of a shape.
    Rest,
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

macro_rules! binaries {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, x: Value, y: Value) -> Result<Value> {
            self.op(ops::$op { x, y })
        }
    )* };
}

macro_rules! unaries {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, x: Value) -> Result<Value> {
            self.op(ops::$op { x })
        }
    )* };
}

impl Lower<'_> {
    binaries! {
        /// `x + y`.
        add = Add;
        /// `x - y`.
        sub = Sub;
        /// `x * y`.
        mul = Mul;
        /// `x / y`; integers are truncated.
        div = RealDiv;
        /// The greater of both.
        maximum = Maximum;
        /// The lesser of both.
        minimum = Minimum;
        /// Whether `x == y`.
        equal = Equal;
        /// Whether `x < y`.
        less = Less;
        /// Whether both hold.
        and = LogicalAnd;
    }

    unaries! {
        /// `|x|`.
        abs = Abs;
        /// `e^x`.
        exp = Exp;
        /// The square root.
        sqrt = Sqrt;
        /// Whether `x` does not hold.
        not = LogicalNot;
    }

    /// `x + number`.
    pub fn add_number(&mut self, x: Value, number: f64) -> Result<Value> {
        let y = self.scalar_like(x, number)?;
        self.add(x, y)
    }

    /// `x * number`; `x` itself where that is 1.
    pub fn scale(&mut self, x: Value, number: f64) -> Result<Value> {
        if number == 1.0 {
            return Ok(x);
        }
        let y = self.scalar_like(x, number)?;
        self.mul(x, y)
    }

    /// The natural logarithm.
    pub fn log(&mut self, x: Value) -> Result<Value> {
        self.op(ops::Log { x, epsilon: 1e-45 })
    }

    /// `a` where `cond` holds, else `b`.
    pub fn select(&mut self, cond: Value, a: Value, b: Value) -> Result<Value> {
        self.op(ops::Select { cond, a, b })
    }

    /// `v` in a float type: as it is, or in `f32`.
    pub fn as_float(&mut self, v: Value) -> Result<Value> {
        if self.dtype(v)?.is_float() { Ok(v) } else { self.cast(v, DType::F32) }
    }

    /// The product of matrices, those of integers computed in `f32`.
    pub fn matmul(&mut self, x: Value, y: Value, transpose_x: bool, transpose_y: bool) -> Result<Value> {
        let dtype = self.dtype(x)?;
        let (x, y) = (self.as_float(x)?, self.as_float(y)?);
        let product = self.op(ops::Matmul { x, y, transpose_x, transpose_y })?;
        self.cast(product, dtype)
    }

    /// The sizes as a value: a constant where they are numbers and at most one rest.
    pub fn sizes(&mut self, sizes: &[Size]) -> Result<Value> {
        let mut known = vec![];
        for size in sizes {
            known.push(match *size {
                Size::Known(n) => Some(n),
                Size::Rest => Some(-1),
                Size::Of(v, axis) => {
                    let shape = self.shape(v)?;
                    shape.get(axis).ok_or(LowerError::Poisoned)?.as_known()
                }
                Size::Held(v) => self.known_ints(v).and_then(|ints| ints.first().copied()),
            });
        }
        let rest = sizes.iter().any(|s| matches!(s, Size::Rest));
        let open = known.iter().filter(|k| k.is_none()).count();
        if open == 0 || (open == 1 && !rest && !known.contains(&Some(0))) {
            let known: Vec<i64> = known.into_iter().map(|k| k.unwrap_or(-1)).collect();
            return self.const_ints(&known);
        }
        let mut parts = vec![];
        for (size, known) in sizes.iter().zip(known) {
            parts.push(match (*size, known) {
                (_, Some(n)) => self.const_ints(&[n])?,
                (Size::Of(v, axis), None) => self.size_of(v, axis)?,
                (Size::Held(v), None) => self.expand_dims(v, &[0])?,
                (Size::Known(_) | Size::Rest, None) => return Err(LowerError::Poisoned),
            });
        }
        self.op(ops::Concat { values: parts, axis: 0, interleave: false })
    }

    /// A tensor of zeros of these sizes, of which none is a rest, and of the element type of `like`.
    pub fn zeros(&mut self, like: Value, sizes: &[Size]) -> Result<Value> {
        let mut parts = vec![];
        for size in sizes {
            parts.push(match *size {
                Size::Known(n) => self.const_ints(&[n])?,
                Size::Of(v, axis) => self.size_of(v, axis)?,
                Size::Held(v) => self.expand_dims(v, &[0])?,
                Size::Rest => return Err(LowerError::Poisoned),
            });
        }
        let (shape, zero) = (self.concat(parts, 0)?, self.scalar_like(like, 0.0)?);
        self.op(ops::Fill { shape, value: Some(zero) })
    }

    /// The size of `v` along an axis, as a vector of one integer.
    pub fn size_of(&mut self, v: Value, axis: usize) -> Result<Value> {
        let shape = self.op(ops::ShapeOf { x: v })?;
        let axis = axis as i64;
        self.slice(shape, 0, axis, Some(axis + 1))
    }

    /// `x` under another shape.
    pub fn reshape(&mut self, x: Value, sizes: &[Size]) -> Result<Value> {
        let shape = self.sizes(sizes)?;
        let y = self.op(ops::Reshape { x, shape })?;
        // Core ML's tools infer a size of numbers alone: what follows from other sizes is said to be what it is.
        let known: Vec<Option<i64>> = self.shape(y)?.iter().map(Dim::as_known).collect();
        let follows = |(size, known): (&Size, &Option<i64>)| known.is_some() && !matches!(size, Size::Known(_));
        if known.iter().all(Option::is_some) || !sizes.iter().zip(&known).any(follows) {
            return Ok(y);
        }
        let sizes: Vec<Size> = sizes.iter().zip(&known).map(|(size, n)| n.map_or(*size, Size::Known)).collect();
        let shape = self.sizes(&sizes)?;
        self.op(ops::Reshape { x, shape })
    }

    /// `x` under another shape, of numbers of which one may be -1.
    pub fn reshape_to(&mut self, x: Value, sizes: &[i64]) -> Result<Value> {
        let shape = self.const_ints(sizes)?;
        self.op(ops::Reshape { x, shape })
    }

    /// `x` under the shape of `like`, which has as many elements.
    pub fn reshape_as(&mut self, x: Value, like: Value) -> Result<Value> {
        let sizes: Vec<Size> = (0..self.rank(like)?).map(|axis| Size::Of(like, axis)).collect();
        self.reshape(x, &sizes)
    }

    /// `x` with further axes of size 1; `x` itself where there are none.
    pub fn expand_dims(&mut self, x: Value, axes: &[i64]) -> Result<Value> {
        if axes.is_empty() { Ok(x) } else { self.op(ops::ExpandDims { x, axes: axes.to_vec() }) }
    }

    /// `x` without some axes of size 1; `x` itself where there are none.
    pub fn squeeze(&mut self, x: Value, axes: &[i64]) -> Result<Value> {
        if axes.is_empty() { Ok(x) } else { self.op(ops::Squeeze { x, axes: Some(axes.to_vec()) }) }
    }

    /// `x` with its axes in another order; `x` itself where the order is the same.
    pub fn transpose(&mut self, x: Value, perm: &[i64]) -> Result<Value> {
        if perm.iter().enumerate().all(|(i, p)| i as i64 == *p) {
            return Ok(x);
        }
        self.op(ops::Transpose { x, perm: perm.to_vec() })
    }

    /// `x[begin..end]` along an axis; bounds may count from the end.
    pub fn slice(&mut self, x: Value, axis: usize, begin: i64, end: Option<i64>) -> Result<Value> {
        self.slice_by(x, &[(axis, begin, end, 1)])
    }

    /// `x[begin..end]` in steps, along several axes, as `(axis, begin, end, step)`.
    pub fn slice_by(&mut self, x: Value, parts: &[(usize, i64, Option<i64>, i64)]) -> Result<Value> {
        let rank = self.rank(x)?;
        let (mut begin, mut end, mut stride) = (vec![0; rank], vec![0; rank], vec![1; rank]);
        let (mut begin_mask, mut end_mask) = (vec![true; rank], vec![true; rank]);
        for (axis, first, last, step) in parts.iter().copied().filter(|p| p.0 < rank) {
            (begin[axis], begin_mask[axis], stride[axis]) = (first, false, step);
            if let Some(last) = last {
                (end[axis], end_mask[axis]) = (last, false);
            }
        }
        let (begin, end) = (self.const_ints(&begin)?, self.const_ints(&end)?);
        self.op(ops::SliceByIndex {
            x,
            begin,
            end,
            stride: Some(stride),
            begin_mask: Some(begin_mask),
            end_mask: Some(end_mask),
            squeeze_mask: None,
        })
    }

    /// The values one after the other along an axis; a lone one as it is.
    pub fn concat(&mut self, values: Vec<Value>, axis: i64) -> Result<Value> {
        match values.as_slice() {
            [one] => Ok(*one),
            _ => self.op(ops::Concat { values, axis, interleave: false }),
        }
    }

    /// `x` with `pad` put around it, a pair of numbers for each axis; `x` itself where they are 0.
    pub fn pad(&mut self, x: Value, pad: &[i64], value: f32) -> Result<Value> {
        if pad.iter().all(|p| *p == 0) {
            return Ok(x);
        }
        let pad = self.const_ints(pad)?;
        self.op(ops::Pad { x, pad, mode: ops::PadMode::Constant, constant_val: value })
    }

    /// A constant of the element type of `v`.
    pub fn const_like(&mut self, v: Value, shape: &[usize], values: &[f64]) -> Result<Value> {
        let dtype = self.dtype(v)?;
        self.add_const(Tensor::from_f64(dtype, shape, values))
    }

    /// A sum of `x` over some axes, which stay with size 1.
    pub fn sum_over(&mut self, x: Value, axes: &[i64]) -> Result<Value> {
        self.op(ops::ReduceSum { x, axes: Some(axes.to_vec()), keep_dims: true })
    }

    /// The mean of `x` over some axes, which stay with size 1.
    pub fn mean_over(&mut self, x: Value, axes: &[i64]) -> Result<Value> {
        self.op(ops::ReduceMean { x, axes: Some(axes.to_vec()), keep_dims: true })
    }
}
