//! Convolutions.

use super::activation;
use crate::LATEST;
use mlconv_mil::ir::Value;
use mlconv_source::{
    Lower, LowerError, Lowered,
    layers::convolution::{self, MAX_SIZE, Padding, Transposed, Window, transposed},
};

rows! {
    "Conv" 1..=LATEST => conv;
    "ConvTranspose" 1..=LATEST => conv_transpose;
    #["com.microsoft"] "FusedConv" 1..=LATEST => |n| fused_conv(n, false);
    #["com.microsoft"] "NhwcConv" 1..=LATEST => |n| fused_conv(n, true);
    #["com.microsoft"] "NhwcFusedConv" 1..=LATEST => |n| fused_conv(n, true);
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The kernel of a weight, held against `kernel_shape`.
pub(super) fn kernel(n: &Lower<'_>, weight: Value) -> Result<Vec<i64>> {
    let kernel = n.fixed_shape(weight, "the kernel")?.split_off(2.min(n.rank(weight)?));
    match n.ints("kernel_shape")? {
        Some(said) if said != kernel => n.bad_attr("kernel_shape", format!("{kernel:?}, as the weight has it")),
        _ => Ok(kernel),
    }
}

fn conv(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, bias) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    let y = convolved(n, x, weight, bias)?;
    n.done(y)
}

/// A convolution, a summand, and a function; channels may stand last.
fn fused_conv(n: &mut Lower<'_>, channels_last: bool) -> Lowered {
    let (x, weight, bias, summand) = (n.input(0)?, n.input(1)?, n.optional(2)?, n.optional(3)?);
    let x = if channels_last { channels_second(n, x)? } else { x };
    let mut y = convolved(n, x, weight, bias)?;
    if channels_last {
        y = channels_behind(n, y)?;
    }
    if let Some(summand) = summand {
        y = n.add(y, summand)?;
    }
    let numbers = n.floats("activation_params")?.unwrap_or_default();
    if numbers.len() > 2 {
        return n.bad_attr("activation_params", "at most 2 numbers");
    }
    let name = n.str_or("activation", "")?;
    let y = activation::fused(n, y, name, [numbers.first().copied(), numbers.get(1).copied()])?;
    n.done(y)
}

/// `x`, whose channels stand last, with its channels second.
pub(super) fn channels_second(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let rank = n.rank(x)? as i64;
    if rank < 3 {
        return Err(LowerError::form(format!("channels of rank {rank}")));
    }
    n.transpose(x, &[0, rank - 1].into_iter().chain(1..rank - 1).collect::<Vec<_>>())
}

/// `x`, whose channels stand second, with its channels last.
pub(super) fn channels_behind(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let rank = n.rank(x)? as i64;
    n.transpose(x, &[0].into_iter().chain(2..rank).chain([1]).collect::<Vec<_>>())
}

/// Reads the attributes of a node on `x`.
pub(super) fn window(n: &Lower<'_>, x: Value, kernel: Vec<i64>) -> Result<Window> {
    let spatial = n.rank(x)?.saturating_sub(2);
    if spatial == 0 || spatial > 3 {
        return Err(LowerError::core_ml(format!("{spatial} spatial dimensions")));
    }
    let ints = |name, default: i64, len: usize, least: i64| -> Result<Vec<i64>> {
        let v = n.ints(name)?.filter(|v| !v.is_empty()).unwrap_or_else(|| vec![default; len]);
        if v.len() != len || v.iter().any(|i| !(least..MAX_SIZE).contains(i)) {
            return n.bad_attr(name, format!("{len} integers of at least {least}"));
        }
        Ok(v)
    };
    if kernel.len() != spatial || kernel.iter().any(|k| !(1..MAX_SIZE).contains(k)) {
        return n.bad_attr("kernel_shape", format!("{spatial} integers of at least 1"));
    }
    let (strides, dilations) = (ints("strides", 1, spatial, 1)?, ints("dilations", 1, spatial, 1)?);
    n.ignore("pads");
    let padding = match n.str_or("auto_pad", "NOTSET")? {
        "NOTSET" | "" => {
            let pads = ints("pads", 0, 2 * spatial, 0)?;
            Padding::Explicit((0..spatial).map(|i| (pads[i], pads[spatial + i])).collect())
        }
        "VALID" => Padding::Explicit(vec![(0, 0); spatial]),
        "SAME_UPPER" => Padding::SameUpper,
        "SAME_LOWER" => Padding::SameLower,
        _ => return n.bad_attr("auto_pad", "`NOTSET`, `VALID`, `SAME_UPPER` or `SAME_LOWER`"),
    };
    Ok(Window { kernel, strides, dilations, padding })
}

/// Convolves `x`, as the node's attributes say.
pub(super) fn convolved(n: &mut Lower<'_>, x: Value, weight: Value, bias: Option<Value>) -> Result<Value> {
    let window = window(n, x, kernel(n, weight)?)?;
    let groups = n.int_or("group", 1)?;
    convolution::convolved(n, x, (weight, bias), window, groups)
}

fn conv_transpose(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, bias) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    let window = window(n, x, kernel(n, weight)?)?;
    let groups = n.int_or("group", 1)?;
    let spatial = window.kernel.len();
    let extra = n.ints("output_padding")?.unwrap_or_else(|| vec![0; spatial]);
    if extra.len() != spatial || extra.iter().any(|e| !(0..MAX_SIZE).contains(e)) {
        return n.bad_attr("output_padding", format!("{spatial} integers of at least 0"));
    }
    let wanted = n.ints("output_shape")?.filter(|s| !s.is_empty());
    if wanted.as_ref().is_some_and(|s| s.len() < spatial || s.iter().any(|d| !(0..MAX_SIZE).contains(d))) {
        return n.bad_attr("output_shape", format!("{spatial} sizes"));
    }
    let wanted = wanted.as_deref();
    let y = transposed(n, x, (weight, bias), Transposed { window, groups, extra: &extra, wanted })?;
    n.done(y)
}
