//! Convolutions that read at computed places.

use super::convolution::{kernel, window};
use crate::LATEST;
use mlconv_source::{
    Lower, Lowered,
    layers::deformable::{Deformed, deformed},
};

rows! {
    "DeformConv" 19..=LATEST => deform_conv;
}

fn deform_conv(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, offset) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (bias, mask) = (n.optional(3)?, n.optional(4)?);
    let (groups, offset_groups) = (n.int_or("group", 1)?, n.int_or("offset_group", 1)?);
    let window = window(n, x, kernel(n, weight)?)?;
    let y = deformed(n, x, Deformed { weight, offset, bias, mask, window, groups, offset_groups })?;
    n.done(y)
}
