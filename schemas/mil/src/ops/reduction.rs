//! Reductions: many elements to one.

use super::binary::{maximum, minimum, with_ints_in_range};
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Rows, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Shape, strides};
use smallvec::smallvec;

/// What a reduction computes of the elements that come together.
struct Kernel {
    float: fn(&[f64]) -> f64,
    int: fn(&[i64]) -> i64,
    /// On known integers, where the op keeps them known.
    dim: Option<fn(&Dim, &Dim) -> Dim>,
}

macro_rules! reductions {
    ($($(#[$doc:meta])* $ty:ident = $name:literal, $float:expr, $int:expr, $dim:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15)]
        #[domain(T: Ios15 = F16 | F32 | I32)]
        pub struct $ty {
            /// `T[*d]`, of rank 1 or more.
            #[operand(T)]
            pub x: Value,
            /// The axes that are reduced, each in `-rank..rank` and given once; all where absent.
            #[attr(default = None)]
            pub axes: Option<Ints>,
            /// Whether a reduced axis stays, with size 1.
            #[attr(default = false)]
            pub keep_dims: bool,
        }
        impl $ty {
            const KERNEL: Kernel = Kernel { float: $float, int: $int, dim: $dim };
        }
        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                infer(cx, self.x, self.axes.as_deref(), self.keep_dims, &Self::KERNEL)
            }
            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                eval(cx, self.x, self.axes.as_deref(), &Self::KERNEL)
            }
        }
    )* };
}

reductions! {
    /// The sum of absolute values; of integers it wraps.
    ReduceL1Norm = "reduce_l1_norm", |x| x.iter().map(|v| v.abs()).sum(), |x| wrapping_sum(x, i64::wrapping_abs), None;
    /// The square root of the sum of squares; of integers it is truncated.
    ReduceL2Norm = "reduce_l2_norm",
        |x| sum_of_squares(x).sqrt(), |x| truncated(sum_of_squares(&wide(x)).sqrt()), None;
    /// The natural logarithm of the sum; of integers it is truncated, and zero where there is none.
    ReduceLogSum = "reduce_log_sum",
        |x| x.iter().sum::<f64>().ln(), |x| truncated(wide(x).iter().sum::<f64>().ln()), None;
    /// The natural logarithm of the sum of exponentials; of integers it is truncated.
    ReduceLogSumExp = "reduce_log_sum_exp", log_sum_exp, |x| truncated(log_sum_exp(&wide(x))), None;
    /// The greatest element; NaN where one of them is, the least there is where there are none.
    ReduceMax = "reduce_max", |x| x.iter().copied().fold(f64::NEG_INFINITY, maximum),
        |x| x.iter().copied().max().unwrap_or(i32::MIN.into()), Some(Dim::maximum);
    /// The sum divided by the count, NaN of no element; of integers it is truncated, 0 of no element.
    ReduceMean = "reduce_mean", |x| x.iter().sum::<f64>() / x.len() as f64,
        |x| x.iter().sum::<i64>().checked_div(x.len() as i64).unwrap_or(0), None;
    /// The least element; NaN where one of them is, the greatest there is where there are none.
    ReduceMin = "reduce_min", |x| x.iter().copied().fold(f64::INFINITY, minimum),
        |x| x.iter().copied().min().unwrap_or(i32::MAX.into()), Some(Dim::minimum);
    /// The product; of integers it wraps.
    ReduceProd = "reduce_prod", |x| x.iter().product(),
        |x| x.iter().fold(1, |a, b| a.wrapping_mul(*b)), Some(|a, b| a * b);
    /// The sum; of integers it wraps.
    ReduceSum = "reduce_sum", |x| x.iter().sum(), |x| wrapping_sum(x, |v| v), Some(|a, b| a + b);
    /// The sum of squares; of integers it wraps.
    ReduceSumSquare = "reduce_sum_square", sum_of_squares, |x| wrapping_sum(x, |v| v.wrapping_mul(v)), None;
}

fn wrapping_sum(x: &[i64], f: fn(i64) -> i64) -> i64 {
    x.iter().fold(0, |sum, v| sum.wrapping_add(f(*v)))
}

fn sum_of_squares(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum()
}

fn wide(x: &[i64]) -> Vec<f64> {
    x.iter().map(|v| *v as f64).collect()
}

/// Towards zero, saturating at the range of the one integer type that is reduced.
fn truncated(x: f64) -> i64 {
    i64::from(x as i32)
}

/// In a form that does not overflow.
fn log_sum_exp(x: &[f64]) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, maximum);
    if max.is_infinite() { max } else { x.iter().map(|v| (v - max).exp()).sum::<f64>().ln() + max }
}

fn infer(cx: &InferCx<'_>, x: Value, axes: Option<&[i64]>, keep_dims: bool, kernel: &Kernel) -> Result<Facts, OpError> {
    let tx = cx.ranked("x", x, 1..)?;
    let reduced = reduced_axes(&tx.shape, axes)?;
    let dims = tx.shape.iter().zip(&reduced);
    let shape: Shape = if keep_dims {
        dims.map(|(d, r)| if *r { Dim::from(1) } else { d.clone() }).collect()
    } else {
        dims.filter(|(_, r)| !**r).map(|(d, _)| d.clone()).collect()
    };
    let fact = cx.fact_of(tx.dtype, shape)?;
    let total = match (kernel.dim, cx.ints(x)) {
        (Some(f), Some([first, rest @ ..])) if reduced.iter().all(|r| *r) => {
            Some(rest.iter().fold(first.clone(), |a, b| f(&a, b)))
        }
        _ => None,
    };
    Ok(smallvec![match total {
        Some(total) => with_ints_in_range(fact, vec![total]),
        None => fact,
    }])
}

/// For each axis whether it is reduced.
fn reduced_axes(shape: &Shape, axes: Option<&[i64]>) -> Result<Vec<bool>, OpError> {
    let Some(axes) = axes else { return Ok(vec![true; shape.rank()]) };
    let mut reduced = vec![false; shape.rank()];
    for axis in shape.axes(axes)? {
        if std::mem::replace(&mut reduced[axis.index()], true) {
            return Err(OpError::Value { param: "axes", found: format!("{axes:?}"), want: "different axes".into() });
        }
    }
    Ok(reduced)
}

fn eval(cx: &EvalCx<'_>, x: Value, axes: Option<&[i64]>, kernel: &Kernel) -> Result<Tensors, OpError> {
    let (out, shape) = (cx.out(0), cx.shape(x));
    let reduced = reduced_axes(&Shape::from(shape), axes)?;
    let groups = offsets(shape, |axis| !reduced[axis]);
    let members = if groups.is_empty() { vec![] } else { offsets(shape, |axis| reduced[axis]) };
    Ok(smallvec![if out.dtype.is_float() {
        out.of(&fold(&cx.f64(x), &groups, &members, kernel.float))
    } else {
        out.of_ints(&fold(&cx.i64(x), &groups, &members, kernel.int))
    }])
}

/// The flat positions of a tensor's elements along some of its axes, at 0 along the others.
fn offsets(shape: &[usize], along: impl Fn(usize) -> bool + Copy) -> Vec<usize> {
    let strides = strides(shape);
    let axes = (0..shape.len()).filter(|axis| along(*axis));
    // Where one axis is empty, the others may have any size.
    if axes.clone().any(|axis| shape[axis] == 0) {
        return vec![];
    }
    axes.fold(vec![0], |at, axis| {
        at.iter().flat_map(|o| (0..shape[axis]).map(move |k| (o, k))).map(|(o, k)| o + k * strides[axis]).collect()
    })
}

/// `f` of each group of elements, in order.
fn fold<T: Copy>(x: &[T], groups: &[usize], members: &[usize], f: fn(&[T]) -> T) -> Vec<T> {
    let mut group = Vec::with_capacity(members.len());
    let mut one = |start: &usize| {
        group.clear();
        group.extend(members.iter().map(|m| x[start + m]));
        f(&group)
    };
    groups.iter().map(&mut one).collect()
}

macro_rules! arg_reductions {
    ($($(#[$doc:meta])* $ty:ident = $name:literal, $better:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15)]
        #[domain(T: Ios15 = F16 | F32 | I32)]
        pub struct $ty {
            /// `T[*d]`, of rank 1 or more.
            #[operand(T)]
            pub x: Value,
            /// The axis that is reduced, in `-rank..rank`.
            #[attr(default = -1)]
            pub axis: i64,
            /// Whether that axis stays, with size 1.
            #[attr(default = false)]
            pub keep_dims: bool,
            /// The element type of the result: `int32` or `uint16`.
            #[attr(default = DType::I32, since = Ios17)]
            pub output_dtype: DType,
        }
        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                infer_arg(cx, self.x, self.axis, self.keep_dims, self.output_dtype)
            }
            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                let better: fn(f64, f64) -> bool = $better;
                eval_arg(cx, self.x, self.axis, better)
            }
        }
    )* };
}

arg_reductions! {
    /// The position of the greatest element: of the first of equal ones, of the first NaN where there is one.
    ReduceArgmax = "reduce_argmax", |x, best| x > best;
    /// The position of the least element: of the first of equal ones, of the first NaN where there is one.
    ReduceArgmin = "reduce_argmin", |x, best| x < best;
}

fn infer_arg(cx: &InferCx<'_>, x: Value, axis: i64, keep_dims: bool, dtype: DType) -> Result<Facts, OpError> {
    index_type("output_dtype", dtype)?;
    let x = cx.tensor("x", x)?;
    let axis = x.shape.axis(axis)?;
    let mut shape = x.shape.with(axis, 1);
    if !keep_dims {
        shape.dims_mut().remove(axis.index());
    }
    cx.result(dtype, shape)
}

/// Checks that positions may be of this type.
pub(super) fn index_type(param: &'static str, dtype: DType) -> Result<(), OpError> {
    if matches!(dtype, DType::I32 | DType::U16) {
        return Ok(());
    }
    Err(OpError::Value { param, found: dtype.to_string(), want: "int32 or uint16".into() })
}

fn eval_arg(cx: &EvalCx<'_>, x: Value, axis: i64, better: fn(f64, f64) -> bool) -> Result<Tensors, OpError> {
    let (values, shape) = (cx.f64(x), cx.shape(x));
    let rows = Rows::new(shape, Shape::from(shape).axis(axis)?.index());
    if rows.len == 0 {
        return Err(OpError::Value {
            param: "x",
            found: "empty".into(),
            want: "at least one element to choose".into(),
        });
    }
    let best = rows.iter().map(|row| {
        let first = row.clone().next().map_or(f64::NAN, |i| values[i]);
        let mut best = (0, first);
        for (k, i) in row.enumerate() {
            if !best.1.is_nan() && (values[i].is_nan() || better(values[i], best.1)) {
                best = (k as i64, values[i]);
            }
        }
        best.0
    });
    Ok(smallvec![cx.out(0).of_ints(&best.collect::<Vec<_>>())])
}
