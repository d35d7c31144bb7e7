//! Putting back what a pooling took.

use super::convolution::window;
use crate::LATEST;
use mlconv_source::{
    Lower, LowerError, Lowered,
    layers::{convolution::spatial_sizes, space::put_back},
};

rows! {
    "MaxUnpool" 9..=LATEST => max_unpool;
}

/// Elements beyond which a result is refused.
const MAX_ELEMENTS: i64 = 1 << 30;

/// Puts elements where a pooling of the inferred shape took them from; a greater shape that is asked for has zeros behind.
fn max_unpool(n: &mut Lower<'_>) -> Lowered {
    let kernel = n.ints("kernel_shape")?.ok_or(LowerError::MissingAttr { name: "kernel_shape" })?;
    let (x, indices) = (n.input(0)?, n.input(1)?);
    let window = window(n, x, kernel)?;
    let sizes = spatial_sizes(n, x)?;
    let pads = window.pads(&sizes);
    let own = n.fixed_shape(x, "where elements come from")?;
    if n.fixed_shape(indices, "where elements come from")? != own {
        return Err(LowerError::form(format!("indices in {} for {}", n.ty(indices)?, n.ty(x)?)));
    }
    let mut made = own.clone();
    for (i, size) in sizes.iter().enumerate() {
        let all = (size - 1).checked_mul(window.strides[i]).and_then(|s| s.checked_add(window.kernel[i]));
        made[i + 2] = all.map_or(-1, |s| s - pads[i].0 - pads[i].1);
    }
    let asked = match n.ints_input(2) {
        Err(LowerError::NotConstant { .. }) => Some(n.stated_sizes(0).ok_or(LowerError::NotConstant { index: 2 })?),
        asked => asked?,
    };
    let asked = asked.unwrap_or_else(|| made.clone());
    let fits = asked.len() == made.len() && asked.iter().zip(&made).all(|(a, m)| a >= m) && made.iter().all(|m| *m > 0);
    let total = made.iter().try_fold(1i64, |n, d| n.checked_mul(*d)).filter(|n| fits && *n < MAX_ELEMENTS);
    let total = total.ok_or_else(|| LowerError::form(format!("unpooling to {asked:?}, where {made:?} was pooled,")))?;
    let y = put_back(n, [x, indices], (&made, total), mlconv_mil::ops::ScatterMode::Update)?;
    let behind: Vec<i64> = asked.iter().zip(&made).flat_map(|(a, m)| [0, a - m]).collect();
    let y = n.in_float(y, |n, y| n.pad(y, &behind, 0.0))?;
    n.done(y)
}
