//! Constants and what merely passes on its input.

use crate::LATEST;
use mlconv_source::{Entry, Lower, LowerError, Lowered};
use mlconv_tensor::Tensor;

rows! {
    "Constant" 1..=LATEST => constant;
    "Identity" 1..=LATEST => identity;
}

fn identity(n: &mut Lower<'_>) -> Lowered {
    if let Some(e @ (Entry::Sequence(_) | Entry::Nothing)) = n.entry(0)? {
        return Ok(vec![e]);
    }
    let x = n.input(0)?;
    n.done(x)
}

fn constant(n: &mut Lower<'_>) -> Lowered {
    if let Some(t) = n.tensor("value")? {
        return n.given(t);
    }
    if let Some(t) = n.tensor("sparse_value")? {
        return n.given(t);
    }
    if let Some(x) = n.float("value_float")? {
        return n.given(Tensor::scalar(x));
    }
    if let Some(i) = n.int("value_int")? {
        return n.given(Tensor::scalar(i));
    }
    if let Some(v) = n.floats("value_floats")? {
        return n.given(Tensor::from_vec(&[v.len()], v));
    }
    if let Some(v) = n.ints("value_ints")? {
        return n.given(Tensor::from_vec(&[v.len()], v));
    }
    Err(LowerError::MissingAttr { name: "value" })
}
