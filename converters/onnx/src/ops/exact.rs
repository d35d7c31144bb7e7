//! Arithmetic of 64-bit integers that are constants, with all their bits: a program has only 32, but what a model
//! computes of constants is known before there is one.

use mlconv_source::{Lower, LowerError};
use mlconv_tensor::{DType, Tensor};

/// Elements up to which constants are computed with here.
pub(super) const MAX_ELEMENTS: usize = 1 << 12;

/// Input `i`, where it is a small constant of 64-bit integers in the source.
fn wide(n: &mut Lower<'_>, i: usize) -> Result<Option<Tensor>, LowerError> {
    if n.source_dtype(i) != Some(DType::I64) {
        return Ok(None);
    }
    Ok(n.constant(i)?.filter(|t| !t.dtype().is_float() && t.count() <= MAX_ELEMENTS))
}

/// `f` of the elements of one input; `None` where it is not constant, or `f` is for any element.
pub(super) fn unary(n: &mut Lower<'_>, f: fn(i64) -> i64) -> Result<Option<Tensor>, LowerError> {
    let Some(x) = wide(n, 0)? else { return Ok(None) };
    let values: Vec<i64> = x.to_i64().into_iter().map(f).collect();
    Ok(Some(Tensor::from_i64(DType::I64, x.shape(), &values)))
}

/// `f` of the elements of two inputs, broadcast together; `None` where one is not constant, or `f` is for any pair.
pub(super) fn binary(n: &mut Lower<'_>, f: fn(i64, i64) -> Option<i64>) -> Result<Option<Tensor>, LowerError> {
    let (Some(x), Some(y)) = (wide(n, 0)?, wide(n, 1)?) else { return Ok(None) };
    let Some(shape) = broadcast(x.shape(), y.shape()) else { return Ok(None) };
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMENTS);
    let Some(count) = count else { return Ok(None) };
    let (a, b) = (x.to_i64(), y.to_i64());
    let at = |own: &[usize], flat: usize| {
        let (mut left, mut place, mut stride) = (flat, 0, 1);
        for (i, d) in shape.iter().enumerate().rev() {
            let size = (i + own.len()).checked_sub(shape.len()).and_then(|i| own.get(i)).copied().unwrap_or(1);
            if size > 1 {
                place += (left % d) * stride;
            }
            (left, stride) = (left / d, stride * size);
        }
        place
    };
    let of = |flat| f(*a.get(at(x.shape(), flat))?, *b.get(at(y.shape(), flat))?);
    let values: Option<Vec<i64>> = (0..count).map(of).collect();
    Ok(values.map(|v| Tensor::from_i64(DType::I64, &shape, &v)))
}

fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |of: &[usize], i: usize| (i + of.len()).checked_sub(rank).and_then(|i| of.get(i)).copied().unwrap_or(1);
    (0..rank)
        .map(|i| match (size(a, i), size(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// The sum or the product of all elements of the first input, in its rank where that is kept; `None` where it is not
/// constant.
pub(super) fn fold(
    n: &mut Lower<'_>,
    f: fn(i64, i64) -> i64,
    first: i64,
    keep: bool,
) -> Result<Option<Tensor>, LowerError> {
    let Some(x) = wide(n, 0)? else { return Ok(None) };
    let all = x.to_i64().into_iter().fold(first, f);
    let shape = if keep { vec![1; x.shape().len()] } else { vec![] };
    Ok(Some(Tensor::from_i64(DType::I64, &shape, &[all])))
}
