//! Sums of products, as an equation of letters says.

use crate::{Lower, LowerError, Size};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::DType;

/// An operand of a sum of products, each axis with its letter. Axes of an ellipsis have letters of their own.
#[derive(Clone, Debug)]
struct Term {
    value: Value,
    axes: Vec<char>,
}

/// The letters of one term; those of an ellipsis count back from the last one, so that they are broadcast together.
fn letters(term: &str, rank: usize) -> Option<Vec<char>> {
    // From the private use area: no equation has them.
    let nth = |k: usize| char::from_u32(0xE000 + u32::try_from(k).ok()?);
    let Some((before, after)) = term.split_once("...") else {
        let axes: Vec<char> = term.chars().collect();
        return (axes.len() == rank).then_some(axes);
    };
    let count = rank.checked_sub(before.chars().count() + after.chars().count())?;
    let middle: Option<Vec<char>> = (0..count).rev().map(nth).collect();
    Some(before.chars().chain(middle?).chain(after.chars()).collect())
}

/// The sum of products that `equation`, an argument of the node, says. Terms are contracted two at a time, each by one product of matrices.
pub fn einsum(n: &mut Lower<'_>, equation: &str, inputs: &[Value]) -> Result<Value, LowerError> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != inputs.len() {
        return n.bad_attr("equation", format!("{} terms", inputs.len()));
    }
    let (mut terms, mut dtype) = (vec![], DType::F32);
    for (value, part) in inputs.iter().zip(&parts) {
        let Some(axes) = letters(part, n.rank(*value)?) else {
            return n
                .bad_attr("equation", format!("as many letters as an operand of shape {} has axes", n.shape(*value)?));
        };
        dtype = n.dtype(*value)?;
        let value = n.as_float(*value)?;
        terms.push(diagonal(n, Term { value, axes })?);
    }
    let all: Vec<char> = terms.iter().flat_map(|t| t.axes.iter().copied()).collect();
    let mut open: Vec<char> = all.iter().copied().filter(|c| ('\u{E000}'..'\u{F000}').contains(c)).collect();
    open.sort_unstable_by(|a, b| b.cmp(a));
    open.dedup();
    let result: Vec<char> = match right {
        Some(right) => {
            let (before, after) = right.split_once("...").unwrap_or((right, ""));
            let open = if right.contains("...") { open } else { vec![] };
            before.chars().chain(open).chain(after.chars()).collect()
        }
        // Whatever occurs once, in order.
        None => {
            let counted: String = parts.concat();
            let mut once: Vec<char> =
                counted.chars().filter(|c| c.is_alphabetic() && counted.matches(*c).count() == 1).collect();
            once.sort_unstable();
            open.into_iter().chain(once).collect()
        }
    };
    let repeated = (1..result.len()).any(|i| result[..i].contains(&result[i]));
    if repeated || result.iter().any(|c| !all.contains(c)) {
        return n.bad_attr("equation", "different letters in the result, all from the operands");
    }
    let mut terms = terms.into_iter();
    let Some(mut joined) = terms.next() else { return Err(LowerError::MissingInput { index: 0 }) };
    let rest: Vec<Term> = terms.collect();
    for (i, term) in rest.iter().enumerate() {
        let later = &rest[i + 1..];
        let kept = |c: &char| result.contains(c) || later.iter().any(|t| t.axes.contains(c));
        joined = contract(n, joined, term.clone(), kept)?;
    }
    joined = summed(n, joined, |c| result.contains(c))?;
    let perm: Vec<i64> =
        result.iter().filter_map(|c| joined.axes.iter().position(|a| a == c)).map(|i| i as i64).collect();
    let y = n.transpose(joined.value, &perm)?;
    n.cast(y, dtype)
}

/// A term in which no letter occurs twice: of such axes, only the elements of equal indices are left.
fn diagonal(n: &mut Lower<'_>, mut term: Term) -> Result<Term, LowerError> {
    while let Some(second) = (1..term.axes.len()).find(|i| term.axes[..*i].contains(&term.axes[*i])) {
        let first = term.axes.iter().position(|c| *c == term.axes[second]).unwrap_or(0);
        let shape = n.shape(term.value)?;
        let Some(size) = shape[first].as_usize().filter(|s| shape[second].is(*s as i64) && *s < 1 << 12) else {
            return Err(LowerError::form("a diagonal of axes of such sizes"));
        };
        let mut mask_shape = vec![1; shape.rank()];
        (mask_shape[first], mask_shape[second]) = (size, size);
        let mask: Vec<f64> = (0..size * size).map(|i| f64::from(u8::from(i / size == i % size))).collect();
        let mask = n.const_like(term.value, &mask_shape, &mask)?;
        let value = n.mul(term.value, mask)?;
        let axes = Some(vec![second as i64]);
        term.value = n.op(ops::ReduceSum { x: value, axes, keep_dims: false })?;
        term.axes.remove(second);
    }
    Ok(term)
}

/// A term summed over the axes that are not kept.
fn summed(n: &mut Lower<'_>, term: Term, kept: impl Fn(&char) -> bool) -> Result<Term, LowerError> {
    let axes: Vec<i64> = (0..term.axes.len()).filter(|i| !kept(&term.axes[*i])).map(|i| i as i64).collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let value = n.op(ops::ReduceSum { x: term.value, axes: Some(axes), keep_dims: false })?;
    Ok(Term { value, axes: term.axes.into_iter().filter(kept).collect() })
}

/// The product of two terms, summed over what is not kept.
fn contract(n: &mut Lower<'_>, a: Term, b: Term, kept: impl Fn(&char) -> bool) -> Result<Term, LowerError> {
    // An axis of size 1 that the other term has with another size is broadcast: there, it is as if it were not there.
    let (a, b) = (without_ones(n, &a, &b)?, without_ones(n, &b, &a)?);
    let a = summed(n, a, |c| kept(c) || b.axes.contains(c))?;
    let b = summed(n, b, |c| kept(c) || a.axes.contains(c))?;
    let shared: Vec<char> = a.axes.iter().copied().filter(|c| b.axes.contains(c)).collect();
    let (batch, inner): (Vec<char>, Vec<char>) = shared.into_iter().partition(kept);
    let outer = |t: &Term, other: &Term| t.axes.iter().copied().filter(|c| !other.axes.contains(c)).collect::<Vec<_>>();
    let (rows, columns) = (outer(&a, &b), outer(&b, &a));
    let x = matrices(n, &a, [&batch, &rows, &inner])?;
    let y = matrices(n, &b, [&batch, &inner, &columns])?;
    let product = n.op(ops::Matmul { x, y, transpose_x: false, transpose_y: false })?;
    let size = |c: &char| {
        let of = |t: &Term| t.axes.iter().position(|a| a == c).map(|i| Size::Of(t.value, i));
        of(&a).or_else(|| of(&b)).unwrap_or(Size::Known(1))
    };
    let axes: Vec<char> = batch.iter().chain(&rows).chain(&columns).copied().collect();
    let sizes: Vec<Size> = axes.iter().map(size).collect();
    let value = if sizes.is_empty() { n.squeeze(product, &[0, 1, 2])? } else { n.reshape(product, &sizes)? };
    Ok(Term { value, axes })
}

fn without_ones(n: &mut Lower<'_>, term: &Term, other: &Term) -> Result<Term, LowerError> {
    let (own, shape) = (n.shape(term.value)?, n.shape(other.value)?);
    let broadcast = |i: &usize| {
        let there = other.axes.iter().position(|c| *c == term.axes[*i]);
        own[*i].is(1) && there.is_some_and(|k| !shape[k].is(1))
    };
    let gone: Vec<usize> = (0..term.axes.len()).filter(broadcast).collect();
    let value = n.squeeze(term.value, &gone.iter().map(|i| *i as i64).collect::<Vec<_>>())?;
    let axes = (0..term.axes.len()).filter(|i| !gone.contains(i)).map(|i| term.axes[i]).collect();
    Ok(Term { value, axes })
}

/// A term with its axes in three groups, each made one axis.
fn matrices(n: &mut Lower<'_>, term: &Term, groups: [&[char]; 3]) -> Result<Value, LowerError> {
    let place = |c: &char| term.axes.iter().position(|a| a == c);
    let order: Vec<usize> = groups.iter().flat_map(|g| g.iter()).filter_map(place).collect();
    let moved = n.transpose(term.value, &order.iter().map(|i| *i as i64).collect::<Vec<_>>())?;
    let shape = n.shape(moved)?;
    let (mut sizes, mut start, mut open) = (vec![], 0, 0);
    for group in groups {
        let part = &shape[start..start + group.len()];
        let known = part.iter().try_fold(1i64, |all, d| all.checked_mul(d.as_known()?));
        sizes.push(match (known, group.len()) {
            (Some(size), _) => Size::Known(size),
            (None, 1) => Size::Of(moved, start),
            (None, _) => {
                open += 1;
                Size::Rest
            }
        });
        start += group.len();
    }
    if open > 1 {
        return Err(LowerError::NotFixed { what: "a product over several axes".into() });
    }
    n.reshape(moved, &sizes)
}
