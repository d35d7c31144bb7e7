//! Ops that change a tensor's shape and keep its elements, and the one that permutes its axes.

use crate::{
    ir::{Fact, Value},
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Opset, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{Dim, Dims, Shape, Tensor, strides};
use smallvec::{SmallVec, smallvec};

/// The elements of `x` under the shape that `shape` says.
///
/// Both shapes have equally many elements. In `shape`, one size may be -1: it takes what is left. A size of 0 stands for
/// a size of `x`: before iOS17 that of the same axis, and then `shape` must be as long as the rank of `x`; since iOS17
/// that of the axis counted from the last, or 1 where `x` has no such axis. A `shape` that is known only when the program
/// runs gives a result of unknown sizes.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "reshape", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
#[domain(U: Ios15 = I32, Ios17 = I8 | I16)]
pub struct Reshape {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// `U[k]`: the sizes of the result, of which one may be -1, and some 0.
    #[operand(U)]
    pub shape: Value,
}

impl Semantics for Reshape {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let shape = cx.ranked("shape", self.shape, 1..=1)?;
        if let Some(sizes) = cx.ints(self.shape) {
            let fact = cx.fact_of(x.dtype, reshaped(cx.opset, &x.shape, sizes)?)?;
            return Ok(smallvec![cx.keep_ints(self.x, fact)]);
        }
        match shape.shape[0].as_usize() {
            Some(rank) if rank <= Fact::MAX_INTS => {
                cx.result(x.dtype, (0..rank).map(|i| cx.unknown(i)).collect::<Shape>())
            }
            _ => Err(cx.operand("shape", self.shape, "a short vector of known length")),
        }
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        same_elements(cx, self.x)
    }
}

/// What `sizes` mean for an `x` of shape `x`.
fn reshaped(opset: Opset, x: &Shape, sizes: &[Dim]) -> Result<Shape, OpError> {
    let fail = |want: &'static str| {
        Err(OpError::Value { param: "shape", found: Shape::from(sizes).to_string(), want: want.into() })
    };
    let (mut dims, mut open) = (vec![], None);
    for (i, size) in sizes.iter().enumerate() {
        dims.push(match size.as_known() {
            Some(0) if opset >= Opset::Ios17 => {
                (i + x.rank()).checked_sub(sizes.len()).map_or_else(|| Dim::from(1), |k| x[k].clone())
            }
            Some(0) if sizes.len() == x.rank() => x[i].clone(),
            Some(0) => return fail("as many sizes as `x` has axes, where one is 0"),
            Some(-1) if open.is_some() => return fail("at most one -1"),
            Some(-1) => {
                open = Some(i);
                Dim::from(1)
            }
            Some(n) if n < 0 => return fail("sizes of -1 or more"),
            Some(_) | None => size.clone(),
        });
    }
    if let Some(i) = open {
        let (all, others) = (x.count(), dims.iter().fold(Dim::from(1), |n, d| n * d));
        match (all.as_known(), others.as_known()) {
            (_, Some(0)) => return fail("no 0 beside -1"),
            (Some(n), Some(k)) if n % k != 0 => return fail("sizes that divide the number of elements of `x`"),
            _ => dims[i] = all.div_floor(&others),
        }
    }
    let shape = Shape::from(dims);
    if (shape.count() - x.count()).as_known().is_some_and(|n| n != 0) {
        let want = format!("a shape of {} elements", x.count());
        return Err(OpError::Value { param: "shape", found: shape.to_string(), want: want.into() });
    }
    Ok(shape)
}

/// `x` under the shape of the result.
fn same_elements(cx: &EvalCx<'_>, x: Value) -> Result<Tensors, OpError> {
    let (x, shape) = (cx.tensor(x), &cx.out(0).shape);
    if cx.out(0).count() != x.count() {
        let want = format!("a shape of {} elements", x.count());
        return Err(OpError::Value { param: "shape", found: Shape::from(shape).to_string(), want: want.into() });
    }
    Ok(smallvec![x.reshape(shape)])
}

/// The elements of `x` under a shape joined from parts of the shapes of other tensors.
///
/// Part `i` is the sizes `begins[i]..ends[i]` of `ref_tensors[i]`; where `end_masks[i]` holds, those from `begins[i]` on.
/// Bounds that are negative count from the end, and those outside of the shape stop at its ends.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "reshape_like", since = Ios16)]
#[domain(T: Ios16 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
#[domain(R: Ios16 = Any)]
pub struct ReshapeLike {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// Tensors whose elements do not matter.
    #[operand(R)]
    pub ref_tensors: Vec<Value>,
    /// The first axis taken, per reference.
    #[attr(literal)]
    pub begins: Ints,
    /// The axis after the last one taken, per reference.
    #[attr(literal)]
    pub ends: Ints,
    /// Whether all axes to the last are taken, per reference.
    #[attr(literal)]
    pub end_masks: Vec<bool>,
}

impl Semantics for ReshapeLike {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let count = self.ref_tensors.len();
        for (param, len) in
            [("begins", self.begins.len()), ("ends", self.ends.len()), ("end_masks", self.end_masks.len())]
        {
            if len != count {
                let want = format!("{count}, one per reference");
                return Err(OpError::Value { param, found: format!("{len} values"), want: want.into() });
            }
        }
        let mut shape = Shape::scalar();
        for (i, v) in self.ref_tensors.iter().enumerate() {
            let dims = &cx.tensor("ref_tensors", *v)?.shape;
            let rank = dims.rank() as i64;
            let bound = |n: i64| (if n < 0 { n.saturating_add(rank) } else { n }).clamp(0, rank) as usize;
            let (begin, end) =
                (bound(self.begins[i]), if self.end_masks[i] { dims.rank() } else { bound(self.ends[i]) });
            shape.dims_mut().extend(dims.get(begin..end).unwrap_or_default().iter().cloned());
        }
        if (shape.count() - x.shape.count()).as_known().is_some_and(|n| n != 0) {
            return Err(cx.operand("x", self.x, format!("as many elements as the shape {shape} has")));
        }
        Ok(smallvec![cx.keep_ints(self.x, cx.fact_of(x.dtype, shape)?)])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        same_elements(cx, self.x)
    }
}

/// `x` with further axes of size 1.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "expand_dims", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
pub struct ExpandDims {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// Where the new axes stand in the result: in `-rank..rank` of its rank, all different.
    #[attr]
    pub axes: Ints,
}

impl Semantics for ExpandDims {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        // The axes are those of the result: resolve them in a shape of its rank.
        let mut shape: Shape = vec![Dim::from(1); x.shape.rank() + self.axes.len()].into();
        let mut new = shape.axes(&self.axes)?;
        new.sort();
        if new.windows(2).any(|w| w[0] == w[1]) {
            return Err(OpError::Value {
                param: "axes",
                found: format!("{:?}", self.axes),
                want: "different axes".into(),
            });
        }
        let kept: SmallVec<[usize; 6]> = (0..shape.rank()).filter(|i| !new.iter().any(|a| a.index() == *i)).collect();
        for (i, dim) in kept.into_iter().zip(x.shape.iter()) {
            shape.dims_mut()[i] = dim.clone();
        }
        Ok(smallvec![cx.keep_ints(self.x, cx.fact_of(x.dtype, shape)?)])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        same_elements(cx, self.x)
    }
}

/// `x` without axes of size 1.
///
/// An axis that is named and has another size stays. So does one whose size is a symbol: it is taken not to be 1.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "squeeze", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
pub struct Squeeze {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// The axes to leave out, in `-rank..rank`; all of size 1 where absent.
    #[attr(default = None)]
    pub axes: Option<Ints>,
}

impl Semantics for Squeeze {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let named = self.axes.as_ref().map(|a| x.shape.axes(a)).transpose()?;
        let goes = |i: usize| named.as_ref().is_none_or(|axes| axes.iter().any(|a| a.index() == i));
        // The rank is that of the program, whatever sizes a run has.
        let stated = cx.stated(self.x).ty.tensor().map_or(&x.shape, |t| &t.shape);
        let single = |i: usize| stated.get(i).is_some_and(|d| d.is(1));
        let kept = x.shape.iter().enumerate().filter(|(i, _)| !(single(*i) && goes(*i)));
        let shape: Shape = kept.map(|(_, d)| d.clone()).collect();
        Ok(smallvec![cx.keep_ints(self.x, cx.fact_of(x.dtype, shape)?)])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        same_elements(cx, self.x)
    }
}

/// The elements of `x` as a matrix: the axes before `axis` become the rows, the others the columns.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "flatten2d", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
pub struct Flatten2d {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// How many axes become the rows, in `-rank..=rank`; a negative number leaves out as many of the last axes.
    #[attr(default = 1)]
    pub axis: i64,
}

impl Semantics for Flatten2d {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let rank = x.shape.rank();
        let at = if self.axis == rank as i64 { rank } else { x.shape.axis(self.axis)?.index() };
        let product = |dims: &[Dim]| dims.iter().fold(Dim::from(1), |n, d| n * d);
        let (rows, columns) = x.shape.split_at(at);
        let fact = cx.fact_of(x.dtype, [product(rows), product(columns)])?;
        Ok(smallvec![cx.keep_ints(self.x, fact)])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        same_elements(cx, self.x)
    }
}

/// `x` with its axes in another order.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "transpose", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
pub struct Transpose {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// For each axis of the result, that of `x`, in `-rank..rank`: each axis of `x` once.
    #[attr]
    pub perm: Ints,
}

impl Semantics for Transpose {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let axes = x.shape.axes(&self.perm)?;
        let once = (0..x.shape.rank()).all(|i| axes.iter().filter(|a| a.index() == i).count() == 1);
        if !once || axes.len() != x.shape.rank() {
            let want = format!("each axis of {} once", x.shape);
            return Err(OpError::Value { param: "perm", found: format!("{:?}", self.perm), want: want.into() });
        }
        let fact = cx.fact_of(x.dtype, axes.iter().map(|a| x.shape[a.index()].clone()).collect::<Shape>())?;
        Ok(smallvec![match x.shape.known() {
            Some(dims) => cx.gather_ints(self.x, fact, place(&self.steps(&dims))),
            None => fact,
        }])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let x: &Tensor = cx.tensor(self.x);
        Ok(smallvec![cx.out(0).gathered(x, place(&self.steps(x.shape())))])
    }
}

impl Transpose {
    /// Elements of `x` to step for each axis of the result; `perm` is one of `dims`.
    fn steps(&self, dims: &[usize]) -> Dims {
        let (own, shape) = (strides(dims), Shape::from(dims));
        self.perm.iter().filter_map(|a| shape.axis(*a).ok()).map(|a| own[a.index()]).collect()
    }
}

/// The flat position of an index under `steps`.
fn place(steps: &[usize]) -> impl Fn(&[usize]) -> usize {
    move |index| index.iter().zip(steps).map(|(i, s)| i * s).sum()
}
