//! Distinct elements and slices.

use crate::LATEST;
use mlconv_source::{Entry, Lower, Lowered};

rows! {
    "Unique" 11..=LATEST => unique;
}

fn unique(n: &mut Lower<'_>) -> Lowered {
    let sorted = n.flag("sorted", true)?;
    let axis = n.int("axis")?;
    let x = n.input(0)?;
    let (x, axis) = match axis {
        Some(axis) => (x, n.axis(x, axis)?),
        None => (n.reshape_to(x, &[-1])?, 0),
    };
    let found = n.distinct(x, axis, sorted)?;
    Ok([found.parts, found.first, found.places, found.counts].map(Entry::Value).to_vec())
}
