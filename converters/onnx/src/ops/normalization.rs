//! Normalizations.

mod fused;

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered,
    layers::normalization::{
        across_channels, covers, group_normalized, normalize_channels, per_channel, rms_normalized, scaled,
        standardized,
    },
};
use mlconv_tensor::DType;

rows! {
    "BatchNormalization" 6..=13 => batch_norm;
    "BatchNormalization" 14..=LATEST => batch_norm_or_training;
    "GroupNormalization" 18..=20 => |n| group_norm(n, true);
    "GroupNormalization" 21..=LATEST => |n| group_norm(n, false);
    "InstanceNormalization" 6..=LATEST => instance_norm;
    "LRN" 1..=LATEST => lrn;
    // Since 17 by the specification; onnxruntime writes it into models of any version.
    "LayerNormalization" 1..=LATEST => layer_norm;
    "LpNormalization" 1..=LATEST => lp_norm;
    "MeanVarianceNormalization" 9..=LATEST => mean_variance_norm;
    "RMSNormalization" 23..=LATEST => rms_norm;
    // Of onnxruntime, which writes it under this domain as well.
    "SimplifiedLayerNormalization" 1..=LATEST => rms_norm;
    #["com.microsoft"] "EmbedLayerNormalization" 1..=LATEST => fused::embed_layer_norm;
    #["com.microsoft"] "GroupNorm" 1..=LATEST => |n| fused::group_norm(n, false);
    #["com.microsoft"] "SimplifiedLayerNormalization" 1..=LATEST => rms_norm;
    #["com.microsoft"] "SkipGroupNorm" 1..=LATEST => |n| fused::group_norm(n, true);
    #["com.microsoft"] "SkipLayerNormalization" 1..=LATEST => fused::skip_layer_norm;
    #["com.microsoft"] "SkipSimplifiedLayerNormalization" 1..=LATEST => fused::skip_rms_norm;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

fn batch_norm(n: &mut Lower<'_>) -> Lowered {
    n.ignore("momentum");
    n.ignore("is_test");
    let together = n.flag("spatial", true)?;
    if (1..5).any(|i| n.wants(i)) {
        return Err(LowerError::not_yet("normalizing while training"));
    }
    let x = n.input(0)?;
    let (epsilon, parameters) = (n.float_or("epsilon", 1e-5)?, parameters(n, x)?);
    let y = normalize_channels(n, x, parameters, epsilon, together)?;
    n.done(y)
}

/// Scale, bias, mean and variance, in the type of `x`.
fn parameters(n: &mut Lower<'_>, x: Value) -> Result<[Value; 4]> {
    let dtype = n.dtype(x)?;
    let mut read = |i| {
        let v = n.input(i)?;
        n.cast(v, dtype)
    };
    Ok([read(1)?, read(2)?, read(3)?, read(4)?])
}

fn batch_norm_or_training(n: &mut Lower<'_>) -> Lowered {
    let momentum = f64::from(n.float_or("momentum", 0.9)?);
    let x = n.input(0)?;
    let (epsilon, p) = (n.float_or("epsilon", 1e-5)?, parameters(n, x)?);
    if !n.flag("training_mode", false)? {
        let y = normalize_channels(n, x, p, epsilon, true)?;
        return n.done(y);
    }
    let axes: Vec<i64> = (0..n.rank(x)? as i64).filter(|a| *a != 1).collect();
    let mean = n.mean_over(x, &axes)?;
    let centered = n.sub(x, mean)?;
    let square = n.mul(centered, centered)?;
    let variance = n.mean_over(square, &axes)?;
    let (mean, variance) = (n.squeeze(mean, &axes)?, n.squeeze(variance, &axes)?);
    let y = normalize_channels(n, x, [p[0], p[1], mean, variance], epsilon, true)?;
    let mut results = n.done(y)?;
    for (old, new) in [(p[2], mean), (p[3], variance)] {
        let (old, new) = (n.scale(old, momentum)?, n.scale(new, 1.0 - momentum)?);
        results.push(Entry::Value(n.add(old, new)?));
    }
    Ok(results)
}

fn instance_norm(n: &mut Lower<'_>) -> Lowered {
    let (x, gamma, beta) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let epsilon = n.float_or("epsilon", 1e-5)?;
    let constant = n.const_of(gamma).is_some() && n.const_of(beta).is_some();
    let rank = n.rank(x)?;
    if constant && matches!(rank, 3 | 4) {
        return n.emit(ops::InstanceNorm { x, gamma: Some(gamma), beta: Some(beta), epsilon });
    }
    let axes: Vec<i64> = (2..rank as i64).collect();
    let [y, ..] = standardized(n, x, &axes, epsilon)?;
    let (gamma, beta) = (per_channel(n, gamma, x)?, per_channel(n, beta, x)?);
    let y = n.mul(y, gamma)?;
    n.emit(ops::Add { x: y, y: beta })
}

fn layer_norm(n: &mut Lower<'_>) -> Lowered {
    n.ignore("stash_type");
    let (x, gamma, beta) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    let epsilon = n.float_or("epsilon", 1e-5)?;
    let axis = n.int_or("axis", -1)?;
    let axis = n.axis(x, axis)?;
    layer_normalized(n, x, (gamma, beta), axis, epsilon)
}

/// `x` normalized over the axes from `axis` on; and where the node wants them, the mean and the inverse deviation.
fn layer_normalized(
    n: &mut Lower<'_>,
    x: Value,
    (gamma, beta): (Value, Option<Value>),
    axis: usize,
    epsilon: f32,
) -> Lowered {
    let axes: Vec<i64> = (axis as i64..n.rank(x)? as i64).collect();
    let fits = covers(n, gamma, x, axis)? && beta.map_or(Ok(true), |b| covers(n, b, x, axis))?;
    if n.wants(1) || n.wants(2) {
        // Mean and deviation are of the type in which the spec computes.
        let dtype = n.dtype(x)?;
        let wide = n.cast(x, DType::F32)?;
        let [y, mean, inverse] = standardized(n, wide, &axes, epsilon)?;
        let y = n.cast(y, dtype)?;
        let y = scaled(n, y, gamma, beta)?;
        return Ok(vec![Entry::Value(y), Entry::Value(mean), Entry::Value(inverse)]);
    }
    if fits {
        return n.emit(ops::LayerNorm { x, axes, gamma: Some(gamma), beta, epsilon });
    }
    let y = n.op(ops::LayerNorm { x, axes, gamma: None, beta: None, epsilon })?;
    let y = scaled(n, y, gamma, beta)?;
    n.done(y)
}

fn rms_norm(n: &mut Lower<'_>) -> Lowered {
    let (x, gamma) = (n.input(0)?, n.input(1)?);
    let epsilon = n.float_or("epsilon", 1e-5)?;
    let axis = n.int_or("axis", -1)?;
    let axis = n.axis(x, axis)?;
    let wide = n.int_or("stash_type", 1)? == 1;
    let [y, inverse] = rms_normalized(n, x, gamma, axis, (epsilon, wide))?;
    let mut results = n.done(y)?;
    if n.wants(1) {
        results.push(Entry::Value(inverse));
    }
    Ok(results)
}

/// `by_group`, older versions have a scale for each group, newer ones for each channel.
fn group_norm(n: &mut Lower<'_>, by_group: bool) -> Lowered {
    n.ignore("stash_type");
    let (x, gamma, beta) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let epsilon = n.float_or("epsilon", 1e-5)?;
    let groups = groups(n, "num_groups")?;
    let y = group_normalized(n, x, groups, epsilon, |n, grouped| {
        if !by_group {
            return Ok(grouped);
        }
        let (gamma, beta) = (per_channel(n, gamma, grouped)?, per_channel(n, beta, grouped)?);
        scaled(n, grouped, gamma, Some(beta))
    })?;
    if by_group {
        return n.done(y);
    }
    let (gamma, beta) = (per_channel(n, gamma, x)?, per_channel(n, beta, x)?);
    let y = scaled(n, y, gamma, Some(beta))?;
    n.done(y)
}

fn groups(n: &Lower<'_>, name: &'static str) -> Result<i64> {
    match n.int(name)? {
        Some(groups) if groups > 0 => Ok(groups),
        _ => n.bad_attr(name, "at least 1"),
    }
}

fn lp_norm(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let axis = n.int_or("axis", -1)?;
    let axes = Some(vec![n.axis(x, axis)? as i64]);
    let norm = match n.int_or("p", 2)? {
        1 => n.op(ops::ReduceL1Norm { x, axes, keep_dims: true })?,
        2 => n.op(ops::ReduceL2Norm { x, axes, keep_dims: true })?,
        _ => return n.bad_attr("p", "1 or 2"),
    };
    // Where all is zero, so is the result.
    let (zero, one) = (n.scalar_like(x, 0.0)?, n.scalar_like(x, 1.0)?);
    let empty = n.equal(norm, zero)?;
    let norm = n.select(empty, one, norm)?;
    n.emit(ops::RealDiv { x, y: norm })
}

fn mean_variance_norm(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let mut axes = n.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    for axis in &mut axes {
        *axis = n.axis(x, *axis)? as i64;
    }
    let mean = n.mean_over(x, &axes)?;
    let centered = n.sub(x, mean)?;
    let square = n.mul(centered, centered)?;
    let variance = n.mean_over(square, &axes)?;
    let deviation = n.sqrt(variance)?;
    let deviation = n.add_number(deviation, 1e-9)?;
    n.emit(ops::RealDiv { x: centered, y: deviation })
}

fn lrn(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let (alpha, beta, k) = (n.float_or("alpha", 1e-4)?, n.float_or("beta", 0.75)?, n.float_or("bias", 1.0)?);
    let size = match n.int("size")? {
        Some(size) if (1..1 << 20).contains(&size) => size,
        _ => return n.bad_attr("size", "at least 1"),
    };
    let y = across_channels(n, x, size, [alpha, beta, k])?;
    n.done(y)
}
