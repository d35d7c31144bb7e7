//! Tensors put together and taken apart along axes that they may not have yet.

use super::movement::{joined, swapped};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered};
use mlconv_tensor::DType;

aten! {
    "combinations(Tensor self, int r=2, bool with_replacement=False) -> Tensor" => combinations;
    "atleast_1d.Sequence(Tensor[] tensors) -> Tensor[]" => |n| each(n, 1);
    "atleast_2d(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; let y = at_least(n, x, 2)?; n.done(y) };
    "atleast_2d.Sequence(Tensor[] tensors) -> Tensor[]" => |n| each(n, 2);
    "atleast_3d(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; let y = at_least(n, x, 3)?; n.done(y) };
    "atleast_3d.Sequence(Tensor[] tensors) -> Tensor[]" => |n| each(n, 3);
    "vstack(Tensor[] tensors) -> Tensor", "row_stack(Tensor[] tensors) -> Tensor" => |n| {
        let all = widened(n, 2)?;
        let y = joined(n, all, |n, values| n.concat(values, 0))?;
        n.done(y)
    };
    "dstack(Tensor[] tensors) -> Tensor" => |n| {
        let all = widened(n, 3)?;
        let y = joined(n, all, |n, values| n.concat(values, 2))?;
        n.done(y)
    };
    "column_stack(Tensor[] tensors) -> Tensor" => |n| {
        let mut all = vec![];
        for v in n.values("tensors")? {
            all.push(if n.rank(v)? <= 1 { n.reshape_to(v, &[-1, 1])? } else { v });
        }
        let y = joined(n, all, |n, values| n.concat(values, 1))?;
        n.done(y)
    };
    "broadcast_tensors(Tensor[] tensors) -> Tensor[]" => broadcast_tensors;
    "moveaxis.int(Tensor(a) self, int source, int destination) -> Tensor(a)",
    "moveaxis.intlist(Tensor(a) self, int[] source, int[] destination) -> Tensor(a)" => super::movement::movedim;
    "mH(Tensor(a) self) -> Tensor(a)", "adjoint(Tensor(a) self) -> Tensor(a)" => |n| { let x = n.value("self")?; let y = swapped(n, x, -2, -1)?; n.done(y) };
    "matrix_H(Tensor(a) self) -> Tensor(a)" => |n| { let x = n.value("self")?; let y = swapped(n, x, -2, -1)?; n.done(y) };
    "where(Tensor condition) -> Tensor[]" => |n| {
        let x = n.value("condition")?;
        let x = n.at_least_1d(x)?;
        Ok(super::index::columns(n, x)?.into_iter().map(Entry::Value).collect())
    };
    "nonzero_static(Tensor self, *, SymInt size, int fill_value=-1) -> Tensor" => nonzero_static;
    "sum_to_size(Tensor self, SymInt[] size) -> Tensor" => sum_to_size;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// `x` with at least so many axes: a vector is a row, and of a matrix each element is a vector.
fn at_least(n: &mut Lower<'_>, x: Value, axes: usize) -> Result<Value> {
    let new: &[i64] = match (n.rank(x)?, axes) {
        (0, 1) => &[0],
        (0, 2) => &[0, 1],
        (0, _) => &[0, 1, 2],
        (1, 2) => &[0],
        (1, 3) => &[0, 2],
        (2, 3) => &[2],
        _ => &[],
    };
    n.expand_dims(x, new)
}

fn widened(n: &mut Lower<'_>, axes: usize) -> Result<Vec<Value>> {
    let all = n.values("tensors")?;
    all.into_iter().map(|v| at_least(n, v, axes)).collect()
}

fn each(n: &mut Lower<'_>, axes: usize) -> Lowered {
    Ok(widened(n, axes)?.into_iter().map(Entry::Value).collect())
}

fn broadcast_tensors(n: &mut Lower<'_>) -> Lowered {
    let all = n.values("tensors")?;
    let mut out = vec![];
    for (i, v) in all.iter().enumerate() {
        let mut v = *v;
        for (k, other) in all.iter().enumerate() {
            if i != k {
                v = super::index::broadcast(n, v, *other)?;
            }
        }
        out.push(Entry::Value(v));
    }
    Ok(out)
}

/// As many coordinates as asked for: the first ones, and a filler behind the last.
fn nonzero_static(n: &mut Lower<'_>) -> Lowered {
    let (x, size, fill) = (n.value("self")?, n.int_or("size", 0)?, n.int_or("fill_value", -1)?);
    if !(1..=1 << 24).contains(&size) || n.rank(x)? == 0 {
        return n.bad_attr("size", "1 to 16777216, of a tensor that has axes");
    }
    let places = n.op(ops::NonZero { x })?;
    let more = n.const_ints(&[size, n.rank(x)? as i64])?;
    let fill = n.const_scalar(DType::I32, fill as f64)?;
    let filler = n.op(ops::Fill { shape: more, value: Some(fill) })?;
    let all = n.concat(vec![places, filler], 0)?;
    let y = n.slice(all, 0, 0, Some(size))?;
    n.done(y)
}

/// The sum over what broadcasting would repeat.
fn sum_to_size(n: &mut Lower<'_>) -> Lowered {
    let (x, sizes) = (n.value("self")?, n.ints("size")?.unwrap_or_default());
    let shape = n.shape(x)?;
    let Some(lead) = shape.rank().checked_sub(sizes.len()) else {
        return n.bad_attr("size", "no more sizes than the tensor has axes");
    };
    let repeated = (lead..shape.rank()).filter(|i| sizes[i - lead] == 1 && !shape[*i].is(1));
    let axes: Vec<i64> = (0..lead).chain(repeated).map(|i| i as i64).collect();
    if axes.is_empty() {
        return n.done(x);
    }
    let sum = n.sum_over(x, &axes)?;
    let y = n.squeeze(sum, &(0..lead as i64).collect::<Vec<_>>())?;
    n.done(y)
}

/// Every choice of `r` elements of a vector, in order.
fn combinations(n: &mut Lower<'_>) -> Lowered {
    let (x, r, again) = (n.value("self")?, n.int_or("r", 2)?, n.flag("with_replacement", false)?);
    let [count] = n.fixed_shape(x, "the number of choices")?[..] else {
        return Err(LowerError::form(format!("choices from {}", n.ty(x)?)));
    };
    if !(1..=8).contains(&r) {
        return n.bad_attr("r", "1 to 8");
    }
    // Choices of fewer elements, each with one more behind it.
    let mut all: Vec<Vec<i64>> = vec![vec![]];
    for _ in 0..r {
        let first = |c: &Vec<i64>| c.last().map_or(0, |last| if again { *last } else { last + 1 });
        let more = all.iter().fold(0i64, |sum, c| sum.saturating_add(count.saturating_sub(first(c)).max(0)));
        if more > MAX_CHOICES {
            return Err(LowerError::form(format!("all choices of {r} of {count} elements")));
        }
        all = all.iter().flat_map(|c| (first(c)..count).map(move |i| [c.as_slice(), &[i]].concat())).collect();
    }
    let places: Vec<i64> = all.iter().flatten().copied().collect();
    let y = n.without_bool(x, |n, x| n.gather_at(x, 0, &places))?;
    let y = n.reshape_to(y, &[all.len() as i64, r])?;
    n.done(y)
}

/// Choices beyond which they are refused.
const MAX_CHOICES: i64 = 1 << 16;
