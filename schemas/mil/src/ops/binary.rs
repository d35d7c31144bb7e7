//! Elementwise ops of two operands, broadcast together.

use crate::{
    ir::{Fact, Value},
    schema::{Broadcast, EvalCx, Facts, InferCx, OpError, Out, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Symbols};
use smallvec::smallvec;

/// What a binary op computes, for each kind of element. Truth is 1, as in the elements of a boolean tensor.
struct Kernel {
    float: fn(f64, f64) -> f64,
    int: fn(i64, i64) -> i64,
    /// On known integers; `None` where the result is not known.
    dim: fn(&Dim, &Dim) -> Option<Dim>,
}

/// Declares ops of one domain, and of results of that domain or of the type given.
macro_rules! binary {
    ([$($t:tt)+] $result:expr;) => {};
    ([$($t:tt)+] $result:expr;
     $(#[$doc:meta])* $ty:ident = $name:literal, $float:expr, $int:expr, $dim:expr; $($rest:tt)*) => {
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15, elementwise)]
        #[domain(T: Ios15 = $($t)+)]
        pub struct $ty {
            /// The first operand.
            #[operand(T)]
            pub x: Value,
            /// The second operand, broadcast with the first.
            #[operand(T)]
            pub y: Value,
        }
        impl $ty {
            const KERNEL: Kernel = Kernel { float: $float, int: $int, dim: $dim };
        }
        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                let result: Option<DType> = $result;
                infer(cx, self.x, self.y, result, &Self::KERNEL)
            }
            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                Ok(eval(cx, self.x, self.y, &Self::KERNEL))
            }
        }
        binary! { [$($t)+] $result; $($rest)* }
    };
}

binary! { [F16 | F32 | I32] None;
    /// `x + y`; integers wrap.
    Add = "add", |x, y| x + y, i64::wrapping_add, |x, y| Some(x + y);
    /// `floor(x / y)`. An integer divided by zero is zero.
    FloorDiv = "floor_div", |x, y| (x / y).floor(), int_floor_div, |x, y| Some(x.div_floor(y));
    /// The greater of `x` and `y`; NaN where one of them is.
    Maximum = "maximum", maximum, i64::max, |x, y| Some(x.maximum(y));
    /// The lesser of `x` and `y`; NaN where one of them is.
    Minimum = "minimum", minimum, i64::min, |x, y| Some(x.minimum(y));
    /// `x - y * floor(x / y)`: the remainder that has the sign of `y`. Of an integer divided by zero it is zero.
    Mod = "mod", float_mod, |x, y| if y == 0 { 0 } else { x.wrapping_sub(y.wrapping_mul(int_floor_div(x, y))) },
        |x, y| Some(if y.is(0) { Dim::from(0) } else { x.modulo(y) });
    /// `x * y`; integers wrap.
    Mul = "mul", |x, y| x * y, i64::wrapping_mul, |x, y| Some(x * y);
    /// `x` to the power of `y`. Integers wrap; a negative power of an integer is truncated towards zero.
    Pow = "pow", f64::powf, int_pow,
        |x, y| Some(Dim::from(x.as_known()?.checked_pow(u32::try_from(y.as_known()?).ok()?)?));
    /// `x / y`. Integers are truncated towards zero; one divided by zero is zero.
    RealDiv = "real_div", |x, y| x / y, |x, y| x.checked_div(y).unwrap_or(0), real_div_dim;
    /// `x - y`; integers wrap.
    Sub = "sub", |x, y| x - y, i64::wrapping_sub, |x, y| Some(x - y);
}

binary! { [F16 | F32 | I32] Some(DType::Bool);
    /// Whether `x == y`; NaN equals nothing.
    Equal = "equal", |x, y| f64::from(x == y), |x, y| i64::from(x == y), equal;
    /// Whether `x > y`.
    Greater = "greater", |x, y| f64::from(x > y), |x, y| i64::from(x > y), |x, y| less(y, x);
    /// Whether `x >= y`.
    GreaterEqual = "greater_equal", |x, y| f64::from(x >= y), |x, y| i64::from(x >= y), |x, y| not(less(x, y));
    /// Whether `x < y`.
    Less = "less", |x, y| f64::from(x < y), |x, y| i64::from(x < y), less;
    /// Whether `x <= y`.
    LessEqual = "less_equal", |x, y| f64::from(x <= y), |x, y| i64::from(x <= y), |x, y| not(less(y, x));
    /// Whether `x != y`; NaN differs from everything.
    NotEqual = "not_equal", |x, y| f64::from(x != y), |x, y| i64::from(x != y), |x, y| not(equal(x, y));
}

binary! { [Bool] None;
    /// Whether both hold.
    LogicalAnd = "logical_and", |x, y| x * y, |x, y| x & y, |x, y| Some(x * y);
    /// Whether at least one holds.
    LogicalOr = "logical_or", maximum, |x, y| x | y, |x, y| Some(x.maximum(y));
    /// Whether exactly one holds.
    LogicalXor = "logical_xor", |x, y| f64::from(x != y), |x, y| x ^ y, |x, y| not(equal(x, y));
}

/// Infers a result of element type `dtype`, or of that of `x`.
fn infer(cx: &InferCx<'_>, x: Value, y: Value, dtype: Option<DType>, kernel: &Kernel) -> Result<Facts, OpError> {
    let (tx, ty) = (cx.tensor("x", x)?, cx.tensor("y", y)?);
    let fact = cx.fact_of(dtype.unwrap_or(tx.dtype), tx.shape.broadcast(&ty.shape)?)?;
    Ok(smallvec![match (cx.ints(x), cx.ints(y)) {
        (Some(a), Some(b)) => known(fact, kernel.dim, a, b),
        _ => fact,
    }])
}

/// Adds what is known of the elements; only vectors and scalars meet in shape arithmetic.
fn known(fact: Fact, f: fn(&Dim, &Dim) -> Option<Dim>, a: &[Dim], b: &[Dim]) -> Fact {
    let Some(ty) = fact.ty.tensor().filter(|t| t.shape.rank() <= 1) else { return fact };
    let Some(n) = ty.shape.count().as_usize() else { return fact };
    if ![a.len(), b.len()].iter().all(|len| *len == n || *len == 1) {
        return fact;
    }
    let at = |v: &[Dim], i: usize| v[if v.len() == 1 { 0 } else { i }].clone();
    let ints: Option<Vec<Dim>> = (0..n).map(|i| f(&at(a, i), &at(b, i))).collect();
    match ints {
        Some(ints) => with_ints_in_range(fact, ints),
        None => fact,
    }
}

/// Adds known elements, unless one is a number that the type cannot hold: arithmetic would have wrapped it.
pub(super) fn with_ints_in_range(fact: Fact, ints: Vec<Dim>) -> Fact {
    let range = fact.ty.tensor().and_then(|t| t.dtype.int_range());
    let fits = |n: i64| range.is_some_and(|(lo, hi)| (lo..=hi).contains(&i128::from(n)));
    if ints.iter().all(|d| d.as_known().is_none_or(fits)) { fact.with_ints(ints) } else { fact }
}

fn eval(cx: &EvalCx<'_>, x: Value, y: Value, kernel: &Kernel) -> Tensors {
    let (out, tx, ty) = (cx.out(0), cx.tensor(x), cx.tensor(y));
    smallvec![if tx.dtype().is_float() {
        out.of(&zip(out, (&tx.to_f64(), tx.shape()), (&ty.to_f64(), ty.shape()), kernel.float))
    } else {
        out.of_ints(&zip(out, (&tx.to_i64(), tx.shape()), (&ty.to_i64(), ty.shape()), kernel.int))
    }]
}

/// `f` of the elements of two tensors, given with their shapes.
fn zip<T: Copy>(out: &Out, (a, sa): (&[T], &[usize]), (b, sb): (&[T], &[usize]), f: fn(T, T) -> T) -> Vec<T> {
    if sa == sb {
        return a.iter().zip(b).map(|(x, y)| f(*x, *y)).collect();
    }
    let (at_a, at_b) = (Broadcast::new(sa, &out.shape), Broadcast::new(sb, &out.shape));
    let mut values = Vec::with_capacity(out.count());
    out.each_index(|i| values.push(f(a[at_a.at(i)], b[at_b.at(i)])));
    values
}

/// The greater of two numbers; NaN where one of them is.
pub(super) fn maximum(x: f64, y: f64) -> f64 {
    if x.is_nan() || x > y { x } else { y }
}

/// The lesser of two numbers; NaN where one of them is.
pub(super) fn minimum(x: f64, y: f64) -> f64 {
    if x.is_nan() || x < y { x } else { y }
}

fn int_floor_div(x: i64, y: i64) -> i64 {
    if y == 0 { 0 } else { mlconv_tensor::floor_div(x, y) }
}

fn float_mod(x: f64, y: f64) -> f64 {
    let r = x % y;
    if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r }
}

fn int_pow(x: i64, y: i64) -> i64 {
    match (u32::try_from(y), x) {
        (Ok(y), _) => x.wrapping_pow(y),
        (Err(_), 1) => 1,
        (Err(_), -1) => {
            if y % 2 == 0 {
                1
            } else {
                -1
            }
        }
        (Err(_), _) => 0,
    }
}

/// Truncation is floor where nothing is negative.
fn real_div_dim(x: &Dim, y: &Dim) -> Option<Dim> {
    if let (Some(x), Some(y)) = (x.as_known(), y.as_known()) {
        return Some(Dim::from(x.checked_div(y).unwrap_or(0)));
    }
    let positive = |d: &Dim| d.bounds(&Symbols::default()).0.is_some_and(|lo| lo >= 0);
    (positive(x) && positive(y)).then(|| x.div_floor(y))
}

/// Whether `x < y`, where it follows from symbols being sizes, that is, not negative.
fn less(x: &Dim, y: &Dim) -> Option<Dim> {
    match (x - y).bounds(&Symbols::default()) {
        (_, Some(hi)) if hi < 0 => Some(Dim::from(1)),
        (Some(lo), _) if lo >= 0 => Some(Dim::from(0)),
        _ => None,
    }
}

/// Whether `x == y`, where it follows from symbols being sizes, that is, not negative.
fn equal(x: &Dim, y: &Dim) -> Option<Dim> {
    match (x - y).bounds(&Symbols::default()) {
        (Some(0), Some(0)) => Some(Dim::from(1)),
        (Some(lo), _) if lo > 0 => Some(Dim::from(0)),
        (_, Some(hi)) if hi < 0 => Some(Dim::from(0)),
        _ => None,
    }
}

fn not(truth: Option<Dim>) -> Option<Dim> {
    Some(Dim::from(1) - truth?)
}
