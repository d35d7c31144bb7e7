//! Normalizations.

use crate::{Lower, LowerError, Size};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::DType;

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// `v`, one element per channel, so that it broadcasts to `x`.
pub fn per_channel(n: &mut Lower<'_>, v: Value, x: Value) -> Result<Value> {
    let rank = n.rank(x)?;
    if rank <= 2 {
        return Ok(v);
    }
    let mut sizes = vec![1; rank];
    sizes[1] = -1;
    n.reshape_to(v, &sizes)
}

/// `x` normalized by scale, bias, mean and variance; `together`, these are numbers of channels, else of elements.
pub fn normalize_channels(n: &mut Lower<'_>, x: Value, p: [Value; 4], epsilon: f32, together: bool) -> Result<Value> {
    let [gamma, beta, mean, variance] = p;
    let constant = p.iter().all(|v| n.const_of(*v).is_some());
    if constant && together && matches!(n.rank(x)?, 3 | 4) {
        return n.op(ops::BatchNorm { x, mean, variance, gamma: Some(gamma), beta: Some(beta), epsilon });
    }
    // Of constants, nothing but one product and one sum remain.
    let scale = n.op(ops::Rsqrt { x: variance, epsilon })?;
    let scale = n.mul(gamma, scale)?;
    let shift = n.mul(mean, scale)?;
    let shift = n.sub(beta, shift)?;
    let (scale, shift) = if together { (per_channel(n, scale, x)?, per_channel(n, shift, x)?) } else { (scale, shift) };
    let y = n.mul(x, scale)?;
    n.add(y, shift)
}

/// `x` less its mean over `axes`, the mean, and what a deviation of 1 is divided by: `1 / sqrt(variance + epsilon)`.
pub fn standardized(n: &mut Lower<'_>, x: Value, axes: &[i64], epsilon: f32) -> Result<[Value; 3]> {
    let mean = n.mean_over(x, axes)?;
    let centered = n.sub(x, mean)?;
    let square = n.mul(centered, centered)?;
    let variance = n.mean_over(square, axes)?;
    let inverse = n.op(ops::Rsqrt { x: variance, epsilon })?;
    let y = n.mul(centered, inverse)?;
    Ok([y, mean, inverse])
}

/// Whether `v` is a constant that has exactly the sizes of `x` from `axis` on.
pub fn covers(n: &Lower<'_>, v: Value, x: Value, axis: usize) -> Result<bool> {
    let shape = n.shape(x)?;
    let sizes: Option<Vec<usize>> = shape.iter().skip(axis).map(|d| d.as_usize()).collect();
    Ok(n.const_of(v).is_some_and(|t| sizes.is_some_and(|s| s == t.shape())) && n.dtype(v)? == n.dtype(x)?)
}

/// `y * gamma + beta`.
pub fn scaled(n: &mut Lower<'_>, y: Value, gamma: Value, beta: Option<Value>) -> Result<Value> {
    let y = n.mul(y, gamma)?;
    match beta {
        Some(beta) => n.add(y, beta),
        None => Ok(y),
    }
}

/// `x` divided by the root of its mean square over the axes from `axis` on, times `gamma`; and what it was multiplied by.
/// `wide`, it is computed in single precision.
pub fn rms_normalized(
    n: &mut Lower<'_>,
    x: Value,
    gamma: Value,
    axis: usize,
    (epsilon, wide): (f32, bool),
) -> Result<[Value; 2]> {
    let axes: Vec<i64> = (axis as i64..n.rank(x)? as i64).collect();
    let result = n.dtype(gamma)?;
    let x = if wide { n.cast(x, DType::F32)? } else { x };
    let square = n.mul(x, x)?;
    let mean = n.mean_over(square, &axes)?;
    let inverse = n.op(ops::Rsqrt { x: mean, epsilon })?;
    let y = n.mul(x, inverse)?;
    let y = n.cast(y, result)?;
    Ok([n.mul(y, gamma)?, inverse])
}

/// `x` normalized by groups of its channels, which stand second; `change` sees it with an axis of the groups.
pub fn group_normalized(
    n: &mut Lower<'_>,
    x: Value,
    groups: i64,
    epsilon: f32,
    change: impl FnOnce(&mut Lower<'_>, Value) -> Result<Value>,
) -> Result<Value> {
    let grouped = n.reshape(x, &[Size::Of(x, 0), Size::Known(groups), Size::Rest])?;
    let y = n.op(ops::LayerNorm { x: grouped, axes: vec![2], gamma: None, beta: None, epsilon })?;
    let y = change(n, y)?;
    n.reshape_as(y, x)
}

/// `x / (k + alpha * m)^beta`, where `m` is the mean of squares over `size` neighbours along the channels.
pub fn across_channels(n: &mut Lower<'_>, x: Value, size: i64, [alpha, beta, k]: [f32; 3]) -> Result<Value> {
    let rank = n.rank(x)?;
    if rank == 4 && size % 2 == 1 {
        return n.op(ops::LocalResponseNorm { x, size, alpha, beta, k });
    }
    if rank < 2 {
        return Err(LowerError::form(format!("a normalization across channels of rank {rank}")));
    }
    // A mean over neighbours along the channels, which come to stand as rows of an image.
    let square = n.mul(x, x)?;
    let image = n.reshape(square, &[Size::Of(x, 0), Size::Known(1), Size::Of(x, 1), Size::Rest])?;
    let before = (size - 1) / 2;
    let mean = n.op(ops::AvgPool {
        x: image,
        kernel_sizes: vec![size, 1],
        strides: vec![1, 1],
        pad_type: ops::PadType::Custom,
        pad: vec![before, size - 1 - before, 0, 0],
        ceil_mode: false,
        exclude_padding_from_average: false,
    })?;
    let mean = n.reshape_as(mean, x)?;
    let y = n.scale(mean, alpha.into())?;
    let y = n.add_number(y, k.into())?;
    let beta = n.scalar_like(x, beta.into())?;
    let y = n.op(ops::Pow { x: y, y: beta })?;
    n.op(ops::RealDiv { x, y })
}
