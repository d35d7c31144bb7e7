//! Distinct elements and slices.

use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered};
use mlconv_tensor::DType;

aten! {
    "_unique2(Tensor self, bool sorted=True, bool return_inverse=False, bool return_counts=False) -> (Tensor, Tensor, Tensor)",
    "_unique(Tensor self, bool sorted=True, bool return_inverse=False) -> (Tensor, Tensor)" => |n| {
        asked(n);
        let x = n.value("self")?;
        let flat = n.reshape_to(x, &[-1])?;
        let found = n.distinct(flat, 0, true)?;
        let places = if n.rank(x)? == 0 { n.squeeze(found.places, &[0])? } else { n.reshape_as(found.places, x)? };
        Ok([found.parts, places, found.counts].map(Entry::Value).to_vec())
    };
    "unique_dim(Tensor self, int dim, bool sorted=True, bool return_inverse=False, bool return_counts=False) -> (Tensor, Tensor, Tensor)" => |n| {
        asked(n);
        let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
        let axis = n.axis(x, dim)?;
        let found = n.distinct(x, axis, true)?;
        Ok([found.parts, found.places, found.counts].map(Entry::Value).to_vec())
    };
    "unique_consecutive(Tensor self, bool return_inverse=False, bool return_counts=False, int? dim=None) -> (Tensor, Tensor, Tensor)",
    "unique_dim_consecutive(Tensor self, int dim, bool return_inverse=False, bool return_counts=False) -> (Tensor, Tensor, Tensor)" => consecutive;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// All results are made; those that nothing reads are left out of the program.
fn asked(n: &Lower<'_>) {
    ["sorted", "return_inverse", "return_counts"].into_iter().for_each(|name| n.ignore(name));
}

/// Of parts that follow each other and are the same, the first.
fn consecutive(n: &mut Lower<'_>) -> Lowered {
    asked(n);
    let (x, dim) = (n.value("self")?, n.int("dim")?);
    let (flat, axis) = match dim {
        Some(dim) => (x, n.axis(x, dim)?),
        None => (n.reshape_to(x, &[-1])?, 0),
    };
    let numbers = if n.dtype(flat)? == DType::Bool { n.cast(flat, DType::I32)? } else { flat };
    let (later, earlier) = (n.slice(numbers, axis, 1, None)?, n.slice(numbers, axis, 0, Some(-1))?);
    let differs = n.op(ops::NotEqual { x: later, y: earlier })?;
    let mut differs = n.cast(differs, DType::I32)?;
    let others: Vec<i64> = (0..n.rank(flat)?).filter(|i| *i != axis).map(|i| i as i64).collect();
    if !others.is_empty() {
        differs = n.op(ops::ReduceMax { x: differs, axes: Some(others), keep_dims: false })?;
    }
    let one = n.const_ints(&[1])?;
    let leads = n.concat(vec![one, differs], 0)?;
    let found = n.op(ops::NonZero { x: leads })?;
    let first = n.squeeze(found, &[1])?;
    let parts = n.gather(flat, first, axis)?;
    let sums = n.op(ops::Cumsum { x: leads, axis: 0, exclusive: true, reverse: false })?;
    // Up to and with itself, less one: the places of those that lead are counted from 0.
    let own = n.add(sums, leads)?;
    let places = n.add_number(own, -1.0)?;
    let size = n.size_of(flat, axis)?;
    let next = n.slice(first, 0, 1, None)?;
    let ends = n.concat(vec![next, size], 0)?;
    let counts = n.sub(ends, first)?;
    let places = shaped(n, places, x, dim.is_none())?;
    Ok([parts, places, counts].map(Entry::Value).to_vec())
}

fn shaped(n: &mut Lower<'_>, places: Value, x: Value, whole: bool) -> Result<Value> {
    match n.rank(x)? {
        0 => n.squeeze(places, &[0]),
        1 => Ok(places),
        _ if whole => n.reshape_as(places, x),
        _ => Ok(places),
    }
}
