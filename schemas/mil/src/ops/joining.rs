//! Ops that join tensors, and the one that parts them.

use crate::{
    ir::{Fact, Value},
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Out, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{Bytes, Dim, Shape, Tensor, TensorType};
use smallvec::smallvec;

/// The tensors one after the other along an axis.
///
/// All have one rank and agree in all axes but `axis`, where the result has the sum of their sizes. Scalars are joined to
/// a vector. With `interleave`, the tensors have one shape and take turns along the axis.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "concat", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
pub struct Concat {
    /// `T[*d, n, *e]`, at least one.
    #[operand(T)]
    pub values: Vec<Value>,
    /// The axis, in `-rank..rank`.
    #[attr]
    pub axis: i64,
    /// Whether elements along the axis are taken from each tensor in turn.
    #[attr(default = false)]
    pub interleave: bool,
}

impl Semantics for Concat {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let first = one_type(cx, &self.values)?;
        let scalars = first.shape.rank() == 0;
        let mut shape = if scalars { [1].into() } else { first.shape.clone() };
        let axis = if scalars { 0 } else { shape.axis(self.axis)?.index() };
        let mut sum = Dim::from(0);
        for v in &self.values {
            let ty = cx.tensor("values", *v)?;
            sum = sum + ty.shape.get(axis).cloned().unwrap_or_else(|| Dim::from(1));
            for (i, (have, dim)) in shape.dims_mut().iter_mut().zip(ty.shape.iter()).enumerate() {
                if i != axis || self.interleave {
                    *have = agreed(have, dim).ok_or_else(|| {
                        cx.operand("values", *v, format!("{} but for axis {axis}, as the first is", first.shape))
                    })?;
                }
            }
        }
        shape.dims_mut()[axis] = sum;
        let fact = cx.fact_of(first.dtype, shape)?;
        Ok(smallvec![if first.shape.rank() > 1 || self.interleave {
            fact
        } else {
            joined_ints(cx, &self.values, fact)
        }])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let dims = cx.shape(self.values[0]);
        let axis = Shape::from(dims).axis(self.axis).map_or(0, |a| a.index());
        let turns: usize = dims[..axis].iter().product();
        let along = if self.interleave { dims.get(axis).copied().unwrap_or(1) } else { 1 };
        joined(cx, &self.values, turns * along)
    }
}

/// The tensors one after the other along a new axis.
///
/// All have one shape; the new axis has as many elements as there are tensors.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "stack", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
pub struct Stack {
    /// `T[*d]`, at least one.
    #[operand(T)]
    pub values: Vec<Value>,
    /// Where the new axis stands in the result, in `-rank..rank` of its rank.
    #[attr]
    pub axis: i64,
}

impl Semantics for Stack {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let first = one_type(cx, &self.values)?;
        let mut shape = first.shape.clone();
        for v in &self.values {
            for (have, dim) in shape.dims_mut().iter_mut().zip(cx.tensor("values", *v)?.shape.iter()) {
                *have = agreed(have, dim)
                    .ok_or_else(|| cx.operand("values", *v, format!("{}, as the first is", first.shape)))?;
            }
        }
        shape.dims_mut().push(Dim::from(0));
        let axis = shape.axis(self.axis)?.index();
        shape.dims_mut().pop();
        shape.dims_mut().insert(axis, Dim::from(self.values.len()));
        let fact = cx.fact_of(first.dtype, shape)?;
        // Only along the first axis do the elements stand one tensor after the other.
        Ok(smallvec![if axis == 0 { joined_ints(cx, &self.values, fact) } else { fact }])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let axis = Shape::from(&cx.out(0).shape).axis(self.axis)?.index();
        joined(cx, &self.values, cx.out(0).shape[..axis].iter().product())
    }
}

/// The type of the first of `values`; all must have its element type and rank.
fn one_type<'a>(cx: &InferCx<'a>, values: &[Value]) -> Result<&'a TensorType, OpError> {
    let first = cx.tensor("values", *values.first().ok_or(OpError::Missing { param: "values" })?)?;
    for v in values {
        let ty = cx.tensor("values", *v)?;
        if ty.dtype != first.dtype || ty.shape.rank() != first.shape.rank() {
            let want = format!("{} of rank {}, as the first is", first.dtype, first.shape.rank());
            return Err(cx.operand("values", *v, want));
        }
    }
    Ok(first)
}

/// The size that two equal sizes have, the known one if any; `None` where they differ.
pub(super) fn agreed(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a.as_known(), b.as_known()) {
        (Some(x), Some(y)) if x != y => None,
        (None, Some(_)) => Some(b.clone()),
        _ => Some(a.clone()),
    }
}

/// `fact` with the elements of all `values`, where some are known.
fn joined_ints(cx: &InferCx<'_>, values: &[Value], fact: Fact) -> Fact {
    let is_int = fact.ty.tensor().is_some_and(|t| t.dtype.is_int());
    if !is_int || values.iter().all(|v| cx.ints(*v).is_none()) {
        return fact;
    }
    let mut ints = vec![];
    for v in values {
        match (cx.ints(*v), cx.count(*v)) {
            (Some(part), _) => ints.extend_from_slice(part),
            // Elements that only the run knows are symbols beside those that are known.
            (None, Some(n)) if n <= Fact::MAX_INTS => {
                let first = ints.len();
                ints.extend((first..first + n).map(|i| cx.unknown(i)));
            }
            (None, _) => return fact,
        }
        if ints.len() > Fact::MAX_INTS {
            return fact;
        }
    }
    fact.with_ints(ints)
}

/// Takes a piece of each of `values`, in `turns` turns.
fn joined(cx: &EvalCx<'_>, values: &[Value], turns: usize) -> Result<Tensors, OpError> {
    let parts: Vec<_> = values.iter().map(|v| cx.tensor(*v).blob().read()).collect();
    let mut bytes = Vec::with_capacity(parts.iter().map(|p| p.len()).sum());
    for turn in 0..turns {
        for part in &parts {
            let piece = part.len() / turns;
            bytes.extend_from_slice(&part[turn * piece..(turn + 1) * piece]);
        }
    }
    Ok(smallvec![whole(cx.out(0), bytes)?])
}

/// The result of these bytes; types of less than a byte are not moved by bytes.
fn whole(out: &Out, bytes: Vec<u8>) -> Result<Tensor, OpError> {
    Tensor::new(out.dtype, &out.shape, Bytes::from(bytes).into()).map_err(|_| OpError::NoKernel)
}

/// Parts of `x` along an axis, one result each.
///
/// Without `split_sizes`, `num_splits` must divide the size of the axis, and all parts are equal. With them, they sum up to
/// the size of the axis, and `num_splits`, if given, is their number.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "split", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool)]
pub struct Split {
    /// `T[*d, n, *e]`.
    #[operand(T)]
    pub x: Value,
    /// How many parts.
    #[attr(default = None)]
    pub num_splits: Option<i64>,
    /// The size of each part.
    #[attr(default = None)]
    pub split_sizes: Option<Ints>,
    /// The axis, in `-rank..rank`.
    #[attr]
    pub axis: i64,
}

/// Parts beyond which a split is refused: each is a value, whatever a file says.
const MAX_SPLITS: i64 = 1 << 16;

impl Semantics for Split {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let axis = x.shape.axis(self.axis)?;
        let size = &x.shape[axis.index()];
        let fail = |param, found: String, want: String| Err(OpError::Value { param, found, want: want.into() });
        let sizes: Vec<Dim> = match (&self.split_sizes, self.num_splits) {
            (None, None) => return Err(OpError::Missing { param: "num_splits" }),
            (None, Some(n)) => {
                if !(1..=MAX_SPLITS).contains(&n) || size.as_known().is_some_and(|size| size % n != 0) {
                    return fail("num_splits", n.to_string(), format!("a divisor of {size}, at most {MAX_SPLITS}"));
                }
                vec![size.div_floor(&Dim::from(n)); n as usize]
            }
            (Some(sizes), n) => {
                if n.is_some_and(|n| n != sizes.len() as i64) {
                    return fail("split_sizes", format!("{sizes:?}"), format!("{} sizes", n.unwrap_or(0)));
                }
                let sum = sizes.iter().try_fold(0i64, |sum, n| sum.checked_add(*n));
                if sum.is_none() || size.as_known().is_some_and(|size| sum != Some(size)) {
                    return fail("split_sizes", format!("{sizes:?}"), format!("a sum of {size}"));
                }
                sizes.iter().map(|n| Dim::from(*n)).collect()
            }
        };
        let mut start = Dim::from(0);
        let part = |size: Dim| {
            let fact = cx.fact_of(x.dtype, x.shape.with(axis, size.clone()))?;
            let from = start.as_usize();
            start = &start + &size;
            Ok(match from {
                Some(from) if x.shape.rank() == 1 => {
                    cx.gather_ints(self.x, fact, |index| from.saturating_add(index[0]))
                }
                _ => fact,
            })
        };
        sizes.into_iter().map(part).collect()
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let x = cx.tensor(self.x);
        let axis = Shape::from(x.shape()).axis(self.axis)?.index();
        let turns: usize = x.shape()[..axis].iter().product();
        let bytes = x.blob().read();
        let row = bytes.len().checked_div(turns).unwrap_or(0);
        let mut start = 0;
        (0..cx.out_count())
            .map(|i| {
                let out = cx.out(i);
                let piece = row.checked_div(x.shape()[axis]).unwrap_or(0) * out.shape[axis];
                let from = start;
                start += piece;
                let pieces = (0..turns).filter_map(|turn| bytes.get(turn * row + from..turn * row + from + piece));
                whole(out, pieces.flatten().copied().collect())
            })
            .collect()
    }
}
