//! Normalizations.

use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered, Size,
    layers::normalization::{
        covers, group_normalized, normalize_channels, per_channel, rms_normalized, scaled, standardized,
    },
};
use mlconv_tensor::{DType, Tensor};

aten! {
    "batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool training, float momentum, float eps, bool cudnn_enabled) -> Tensor" => |n| {
        n.ignore("cudnn_enabled");
        Ok(batch_norm(n, "eps")?.into_iter().take(1).collect())
    };
    "native_batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool training, float momentum, float eps) -> (Tensor, Tensor, Tensor)",
    "_native_batch_norm_legit(Tensor input, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_var, bool training, float momentum, float eps) -> (Tensor, Tensor, Tensor)",
    "_native_batch_norm_legit.no_stats(Tensor input, Tensor? weight, Tensor? bias, bool training, float momentum, float eps) -> (Tensor, Tensor, Tensor)",
    "_native_batch_norm_legit_no_training(Tensor input, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_var, float momentum, float eps) -> (Tensor, Tensor, Tensor)",
    "_batch_norm_no_update(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, float momentum, float eps) -> (Tensor, Tensor, Tensor, Tensor)" => |n| {
        let mut out = batch_norm(n, "eps")?;
        // What is kept for training.
        out.resize(n.output_count().max(1), Entry::Nothing);
        Ok(out)
    };
    "_batch_norm_with_update(Tensor input, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_var, float momentum, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
    "_batch_norm_with_update_functional(Tensor input, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_var, float momentum, float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)" => |n| {
        let mut out = batch_norm_of(n, "eps", true)?;
        out.resize(n.output_count().max(1), Entry::Nothing);
        Ok(out)
    };
    "cudnn_batch_norm(Tensor input, Tensor weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool training, float exponential_average_factor, float epsilon) -> (Tensor, Tensor, Tensor, Tensor)" => |n| {
        n.ignore("exponential_average_factor");
        let mut out = batch_norm(n, "epsilon")?;
        out.resize(n.output_count().max(1), Entry::Nothing);
        Ok(out)
    };
    "instance_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool use_input_stats, float momentum, float eps, bool cudnn_enabled) -> Tensor" => instance_norm;
    "layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float eps=1e-05, bool cudnn_enable=True) -> Tensor" => |n| {
        n.ignore("cudnn_enable");
        Ok(layer_norm(n)?.into_iter().take(1).collect())
    };
    "native_layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor, Tensor)" => layer_norm;
    "group_norm(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None, float eps=1e-05, bool cudnn_enabled=True) -> Tensor" => |n| {
        n.ignore("cudnn_enabled");
        let y = group_norm(n, "num_groups")?;
        n.done(y)
    };
    "native_group_norm(Tensor input, Tensor? weight, Tensor? bias, SymInt N, SymInt C, SymInt HxW, int group, float eps) -> (Tensor, Tensor, Tensor)" => native_group_norm;
    "rms_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, float? eps=None) -> Tensor" => |n| Ok(rms_norm(n)?.into_iter().take(1).collect());
    "_fused_rms_norm(Tensor input, int[] normalized_shape, Tensor? weight, float? eps) -> (Tensor, Tensor)" => rms_norm;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

fn epsilon(n: &Lower<'_>, name: &'static str) -> Result<f32> {
    Ok(n.number(name)?.unwrap_or(1e-5) as f32)
}

/// The number of channels, which are second.
fn channels(n: &Lower<'_>, x: Value) -> Result<usize> {
    let size = n.shape(x)?.get(1).and_then(|d| d.as_usize());
    size.ok_or_else(|| LowerError::NotFixed { what: "the number of channels".to_owned() })
}

/// `v`, one number for each channel in the type of `x`; all are `default` where it is absent.
fn or_all(n: &mut Lower<'_>, v: Option<Value>, x: Value, default: f64) -> Result<Value> {
    let dtype = n.dtype(x)?;
    match v {
        Some(v) => n.cast(v, dtype),
        None => {
            let count = channels(n, x)?;
            n.add_const(Tensor::from_f64(dtype, &[count], &vec![default; count]))
        }
    }
}

/// `y * weight + bias`, one number of each for a channel.
fn by_channel(n: &mut Lower<'_>, y: Value, weight: Option<Value>, bias: Option<Value>) -> Result<Value> {
    let dtype = n.dtype(y)?;
    let mut part = |v: Option<Value>| -> Result<Option<Value>> {
        let Some(v) = v else { return Ok(None) };
        let v = n.cast(v, dtype)?;
        per_channel(n, v, y).map(Some)
    };
    let (weight, bias) = (part(weight)?, part(bias)?);
    match (weight, bias) {
        (Some(weight), bias) => scaled(n, y, weight, bias),
        (None, Some(bias)) => n.add(y, bias),
        (None, None) => Ok(y),
    }
}

/// By the statistics that the model keeps; where it keeps none or trains, by those of the input, which are results too.
fn batch_norm(n: &mut Lower<'_>, eps: &'static str) -> Lowered {
    let training = n.flag("training", false)?;
    batch_norm_of(n, eps, training)
}

fn batch_norm_of(n: &mut Lower<'_>, eps: &'static str, training: bool) -> Lowered {
    n.ignore("momentum");
    let (x, weight, bias) = (n.value("input")?, n.maybe("weight")?, n.maybe("bias")?);
    let (mean, variance) = (n.maybe("running_mean")?, n.maybe("running_var")?);
    let epsilon = epsilon(n, eps)?;
    if training && mean.is_some() {
        n.warn(
            "the model was exported while training: it normalizes by the statistics of each batch, and those that it keeps \
             stay as they are; call `model.eval()` before it is exported",
        );
    }
    match (mean, variance) {
        (Some(mean), Some(variance)) if !training => {
            let p = [
                or_all(n, weight, x, 1.0)?,
                or_all(n, bias, x, 0.0)?,
                or_all(n, Some(mean), x, 0.0)?,
                or_all(n, Some(variance), x, 1.0)?,
            ];
            let y = normalize_channels(n, x, p, epsilon, true)?;
            n.done(y)
        }
        // Statistics that are kept are not what this is normalized by.
        _ => {
            let axes: Vec<i64> = (0..n.rank(x)? as i64).filter(|a| *a != 1).collect();
            let [y, mean, inverse] = standardized(n, x, &axes, epsilon)?;
            let y = by_channel(n, y, weight, bias)?;
            let (mean, inverse) = (n.squeeze(mean, &axes)?, n.squeeze(inverse, &axes)?);
            Ok([y, mean, inverse].map(Entry::Value).to_vec())
        }
    }
}

fn instance_norm(n: &mut Lower<'_>) -> Lowered {
    n.ignore("momentum");
    n.ignore("cudnn_enabled");
    let (x, weight, bias) = (n.value("input")?, n.maybe("weight")?, n.maybe("bias")?);
    let (mean, variance) = (n.maybe("running_mean")?, n.maybe("running_var")?);
    let epsilon = epsilon(n, "eps")?;
    if !n.flag("use_input_stats", true)? {
        let (Some(_), Some(_)) = (mean, variance) else { return Err(LowerError::MissingAttr { name: "running_mean" }) };
        let p = [
            or_all(n, weight, x, 1.0)?,
            or_all(n, bias, x, 0.0)?,
            or_all(n, mean, x, 0.0)?,
            or_all(n, variance, x, 1.0)?,
        ];
        let y = normalize_channels(n, x, p, epsilon, true)?;
        return n.done(y);
    }
    let constant = |v: Option<Value>| v.is_none_or(|v| n.const_of(v).is_some());
    let rank = n.rank(x)?;
    if matches!(rank, 3 | 4) && constant(weight) && constant(bias) && n.shape(x)?[1].as_known().is_some() {
        let (gamma, beta) = (Some(or_all(n, weight, x, 1.0)?), Some(or_all(n, bias, x, 0.0)?));
        return n.emit(ops::InstanceNorm { x, gamma, beta, epsilon });
    }
    let [y, ..] = standardized(n, x, &(2..rank as i64).collect::<Vec<_>>(), epsilon)?;
    let y = by_channel(n, y, weight, bias)?;
    n.done(y)
}

/// The first of the axes that are normalized.
fn first_axis(n: &mut Lower<'_>, x: Value) -> Result<usize> {
    let count = n.sizes_arg("normalized_shape")?.unwrap_or_default().len();
    let rank = n.rank(x)?;
    rank.checked_sub(count).ok_or_else(|| LowerError::form(format!("normalizing {count} axes of {rank}")))
}

/// The normalized tensor, and its mean and inverse deviation.
fn layer_norm(n: &mut Lower<'_>) -> Lowered {
    let (x, gamma, beta) = (n.value("input")?, n.maybe("weight")?, n.maybe("bias")?);
    let (axis, epsilon) = (first_axis(n, x)?, epsilon(n, "eps")?);
    let axes: Vec<i64> = (axis as i64..n.rank(x)? as i64).collect();
    let covered = |v: Option<Value>| v.map_or(Ok(true), |v| covers(n, v, x, axis));
    let y = if covered(gamma)? && covered(beta)? {
        n.op(ops::LayerNorm { x, axes: axes.clone(), gamma, beta, epsilon })?
    } else {
        let y = n.op(ops::LayerNorm { x, axes: axes.clone(), gamma: None, beta: None, epsilon })?;
        match (gamma, beta) {
            (Some(gamma), beta) => scaled(n, y, gamma, beta)?,
            (None, Some(beta)) => n.add(y, beta)?,
            (None, None) => y,
        }
    };
    let mut out = n.done(y)?;
    if n.output_count() > 1 {
        let [_, mean, inverse] = standardized(n, x, &axes, epsilon)?;
        out.extend([Entry::Value(mean), Entry::Value(inverse)]);
    }
    Ok(out)
}

fn group_norm(n: &mut Lower<'_>, name: &'static str) -> Result<Value> {
    let (x, weight, bias) = (n.value("input")?, n.maybe("weight")?, n.maybe("bias")?);
    let (groups, epsilon) = (n.int_or(name, 1)?, epsilon(n, "eps")?);
    if groups < 1 {
        return n.bad_attr(name, "at least 1");
    }
    let y = group_normalized(n, x, groups, epsilon, |_, y| Ok(y))?;
    by_channel(n, y, weight, bias)
}

/// The sizes of the input are given beside it.
fn native_group_norm(n: &mut Lower<'_>) -> Lowered {
    ["N", "C", "HxW"].into_iter().for_each(|name| n.ignore(name));
    let y = group_norm(n, "group")?;
    let (x, groups, epsilon) = (n.value("input")?, n.int_or("group", 1)?, epsilon(n, "eps")?);
    let grouped = n.reshape(x, &[Size::Of(x, 0), Size::Known(groups), Size::Rest])?;
    let [_, mean, inverse] = standardized(n, grouped, &[2], epsilon)?;
    let (mean, inverse) = (n.squeeze(mean, &[2])?, n.squeeze(inverse, &[2])?);
    Ok([y, mean, inverse].map(Entry::Value).to_vec())
}

/// The normalized tensor, and what it was multiplied by.
fn rms_norm(n: &mut Lower<'_>) -> Lowered {
    let (x, gamma) = (n.value("input")?, n.maybe("weight")?);
    let axis = first_axis(n, x)?;
    let epsilon = match n.number("eps")? {
        Some(eps) => eps as f32,
        // The distance from 1 to the next number.
        None if n.dtype(x)? == DType::F16 => 0.000_976_562_5,
        None => f32::EPSILON,
    };
    let gamma = match gamma {
        Some(gamma) => n.cast(gamma, n.dtype(x)?)?,
        None => n.scalar_like(x, 1.0)?,
    };
    let [y, inverse] = rms_normalized(n, x, gamma, axis, (epsilon, true))?;
    Ok(vec![Entry::Value(y), Entry::Value(inverse)])
}
