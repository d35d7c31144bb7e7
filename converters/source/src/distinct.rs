//! Distinct elements and slices: which come first, and how often each one comes.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::DType;

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Comparisons of two elements up to which all are compared with all.
const MAX_PAIRS: i64 = 1 << 24;

/// Distinct parts of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct Distinct {
    /// The parts, in order.
    pub parts: Value,
    /// Where each one comes first.
    pub first: Value,
    /// For each part of the tensor, which of them it is.
    pub places: Value,
    /// How often each one comes.
    pub counts: Value,
}

impl Lower<'_> {
    /// The distinct slices of `x` along an axis, in ascending order, or in that in which they come first.
    pub fn distinct(&mut self, x: Value, axis: usize, sorted: bool) -> Result<Distinct> {
        let n = self;
        let shape = n.fixed_shape(x, "how many elements are compared")?;
        let items = shape.get(axis).copied().unwrap_or(1);
        let width = shape.iter().try_fold(1i64, |n, d| n.checked_mul(*d)).map_or(i64::MAX, |all| all / items.max(1));
        let pairs = items.checked_mul(items).and_then(|n| n.checked_mul(width));
        if items < 1 || pairs.is_none_or(|n| n > MAX_PAIRS) {
            return Err(LowerError::form(format!("comparing {items} parts of {width} elements with each other")));
        }
        let numbers = if n.dtype(x)? == DType::Bool { n.cast(x, DType::I32)? } else { x };
        let order: Vec<i64> =
            [axis].into_iter().chain((0..shape.len()).filter(|i| *i != axis)).map(|i| i as i64).collect();
        let rows = n.permute(numbers, &order)?;
        let rows = n.reshape_to(rows, &[items, width])?;
        let (same, less) = compared(n, rows)?;
        let sum = |n: &mut Lower<'_>, x: Value| n.op(ops::ReduceSum { x, axes: Some(vec![1]), keep_dims: false });
        // The first of those that are the same.
        let first = n.op(ops::ReduceArgmax { x: same, axis: 1, keep_dims: false, output_dtype: DType::I32 })?;
        let places = n.const_ints(&(0..items).collect::<Vec<_>>())?;
        let leads = n.equal(first, places)?;
        let before = if sorted {
            less
        } else {
            let (first, places) = (n.expand_dims(first, &[1])?, n.expand_dims(places, &[0])?);
            n.less(places, first)?
        };
        let row = n.expand_dims(leads, &[0])?;
        let before = n.and(before, row)?;
        let before = n.cast(before, DType::I32)?;
        let rank = sum(n, before)?;
        let count = sum(n, same)?;
        let found = n.op(ops::NonZero { x: leads })?;
        let found = n.squeeze(found, &[1])?;
        let pick = |n: &mut Lower<'_>, x: Value, indices: Value| {
            n.op(ops::Gather { x, indices, axis: 0, batch_dims: 0, validate_indices: false })
        };
        let keys = pick(n, rank, found)?;
        let order = n.op(ops::Argsort { x: keys, axis: 0, ascending: true })?;
        let indices = pick(n, found, order)?;
        let counts = pick(n, count, indices)?;
        let y = n.without_bool(x, |n, x| {
            n.op(ops::Gather { x, indices, axis: axis as i64, batch_dims: 0, validate_indices: false })
        })?;
        Ok(Distinct { parts: y, first: indices, places: rank, counts })
    }
}

/// For rows `i` and `j` of a matrix, whether they are the same, as 0 or 1, and whether `j` sorts before `i`.
fn compared(n: &mut Lower<'_>, rows: Value) -> Result<(Value, Value)> {
    let (mine, other) = (n.expand_dims(rows, &[1])?, n.expand_dims(rows, &[0])?);
    let (less, differs) = (n.less(other, mine)?, n.op(ops::NotEqual { x: other, y: mine })?);
    let (less, differs) = (n.cast(less, DType::I32)?, n.cast(differs, DType::I32)?);
    let any = |n: &mut Lower<'_>, x: Value| n.op(ops::ReduceMax { x, axes: Some(vec![2]), keep_dims: false });
    let apart = any(n, differs)?;
    let one = n.const_int(1)?;
    let same = n.sub(one, apart)?;
    // The first element that differs decides.
    let earlier = n.op(ops::Cumsum { x: differs, axis: 2, exclusive: true, reverse: false })?;
    let zero = n.const_int(0)?;
    let decides = n.equal(earlier, zero)?;
    let less = n.cast(less, DType::Bool)?;
    let before = n.and(less, decides)?;
    let before = n.cast(before, DType::I32)?;
    let before = any(n, before)?;
    Ok((same, n.cast(before, DType::Bool)?))
}
