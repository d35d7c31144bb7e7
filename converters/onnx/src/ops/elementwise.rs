//! Elementwise arithmetic.

use crate::LATEST;
use mlconv_mil::ops;
use mlconv_source::{Lower, Lowered};

rows! {
    "Add" 7..=LATEST => |n| { let (x, y) = (n.input(0)?, n.input(1)?); n.emit(ops::Add { x, y }) };
    "Relu" 6..=LATEST => relu;
}

fn relu(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    n.emit(ops::Relu { x })
}
