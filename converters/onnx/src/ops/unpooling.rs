//! Putting back what a pooling took.

use super::convolution::{Window, spatial_sizes};
use crate::LATEST;
use mlconv_mil::ops;
use mlconv_source::{Lower, LowerError, Lowered};

rows! {
    "MaxUnpool" 9..=LATEST => max_unpool;
}

/// Elements beyond which a result is refused.
const MAX_ELEMENTS: i64 = 1 << 30;

/// Puts elements where a pooling of the inferred shape took them from; a greater shape that is asked for has zeros behind.
fn max_unpool(n: &mut Lower<'_>) -> Lowered {
    let kernel = n.ints("kernel_shape")?.ok_or(LowerError::MissingAttr { name: "kernel_shape" })?;
    let (x, indices) = (n.input(0)?, n.input(1)?);
    let window = Window::read(n, x, kernel)?;
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
    let y = n.in_float(x, |n, x| {
        let (shape, zero) = (n.const_ints(&[total])?, n.scalar_like(x, 0.0)?);
        let data = n.op(ops::Fill { shape, value: Some(zero) })?;
        let (indices, updates) = (n.reshape_to(indices, &[-1])?, n.reshape_to(x, &[-1])?);
        let mode = ops::ScatterMode::Update;
        let y = n.op(ops::Scatter { data, indices, updates, axis: 0, mode, validate_indices: false })?;
        let y = n.reshape_to(y, &made)?;
        let behind: Vec<i64> = asked.iter().zip(&made).flat_map(|(a, m)| [0, a - m]).collect();
        n.pad(y, &behind, 0.0)
    })?;
    n.done(y)
}
