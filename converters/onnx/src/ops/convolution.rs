//! Convolutions.

use super::activation;
use crate::LATEST;
use mlconv_mil::{ir::Value, ops, schema::Opset};
use mlconv_source::{Lower, LowerError, Lowered};

rows! {
    "Conv" 1..=LATEST => conv;
    "ConvTranspose" 1..=LATEST => conv_transpose;
    #["com.microsoft"] "FusedConv" 1..=LATEST => |n| fused_conv(n, false);
    #["com.microsoft"] "NhwcConv" 1..=LATEST => |n| fused_conv(n, true);
    #["com.microsoft"] "NhwcFusedConv" 1..=LATEST => |n| fused_conv(n, true);
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// What `auto_pad` and `pads` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// As much as makes the result as large as the input, divided by the stride; the odd one at the end.
    SameUpper,
    /// The same, with the odd one at the beginning.
    SameLower,
    /// Before and after, per spatial dimension.
    Explicit(Vec<(i64, i64)>),
}

/// How windows slide over an image; one entry per spatial dimension.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) kernel: Vec<i64>,
    pub(super) strides: Vec<i64>,
    pub(super) dilations: Vec<i64>,
    pub(super) padding: Padding,
}

/// Sizes beyond which a window is refused: products of them are still far from overflowing.
const MAX_SIZE: i64 = 1 << 31;

impl Window {
    /// Reads the attributes of a node on `x`.
    pub(super) fn read(n: &Lower<'_>, x: Value, kernel: Vec<i64>) -> Result<Self> {
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
        Ok(Self { kernel, strides, dilations, padding })
    }

    /// How far a window reaches along spatial dimension `i`.
    pub(super) fn reach(&self, i: usize) -> i64 {
        (self.kernel[i] - 1).saturating_mul(self.dilations[i]).saturating_add(1)
    }

    /// Whether the elements of a window lie side by side.
    pub(super) fn is_dense(&self) -> bool {
        self.dilations.iter().zip(&self.kernel).all(|(d, k)| *d == 1 || *k == 1)
    }

    /// The padding as numbers, for an image of these spatial sizes.
    pub(super) fn pads(&self, sizes: &[i64]) -> Vec<(i64, i64)> {
        let total = |i: usize| {
            let count = sizes[i].saturating_add(self.strides[i] - 1) / self.strides[i];
            let covered = (count - 1).saturating_mul(self.strides[i]).saturating_add(self.reach(i));
            covered.saturating_sub(sizes[i]).max(0)
        };
        let all = 0..self.kernel.len().min(sizes.len());
        match &self.padding {
            Padding::Explicit(pads) => pads.clone(),
            Padding::SameUpper => all.map(|i| (total(i) / 2, total(i) - total(i) / 2)).collect(),
            Padding::SameLower => all.map(|i| (total(i) - total(i) / 2, total(i) / 2)).collect(),
        }
    }

    /// The padding as Core ML has it.
    pub(super) fn mil_padding(&self, n: &Lower<'_>, x: Value) -> Result<(ops::PadType, Vec<i64>)> {
        Ok(match &self.padding {
            Padding::Explicit(pads) if pads.iter().all(|p| *p == (0, 0)) => {
                (ops::PadType::Valid, vec![0; 2 * pads.len()])
            }
            Padding::Explicit(pads) => (ops::PadType::Custom, interleaved(pads)),
            Padding::SameUpper => (ops::PadType::Same, vec![0; 2 * self.kernel.len()]),
            Padding::SameLower if n.opset() >= Opset::Ios16 => {
                (ops::PadType::SameLower, vec![0; 2 * self.kernel.len()])
            }
            Padding::SameLower => (ops::PadType::Custom, interleaved(&self.pads(&spatial_sizes(n, x)?))),
        })
    }
}

/// `[before, after, before, after, ..]`.
pub(super) fn interleaved(pads: &[(i64, i64)]) -> Vec<i64> {
    pads.iter().flat_map(|(before, after)| [*before, *after]).collect()
}

/// The spatial sizes of `x`, which must be fixed.
pub(super) fn spatial_sizes(n: &Lower<'_>, x: Value) -> Result<Vec<i64>> {
    let known = |d: &mlconv_tensor::Dim| d.as_known().filter(|n| *n < MAX_SIZE);
    let sizes: Option<Vec<i64>> = n.shape(x)?.iter().skip(2).map(known).collect();
    sizes.ok_or_else(|| LowerError::NotFixed { what: "where windows lie".to_owned() })
}

/// The kernel of a weight, held against `kernel_shape`.
pub(super) fn kernel(n: &Lower<'_>, weight: Value) -> Result<Vec<i64>> {
    let kernel = n.fixed_shape(weight, "the kernel")?.split_off(2.min(n.rank(weight)?));
    match n.ints("kernel_shape")? {
        Some(said) if said != kernel => n.bad_attr("kernel_shape", format!("{kernel:?}, as the weight has it")),
        _ => Ok(kernel),
    }
}

/// Adds a bias with one element per channel.
pub(super) fn add_bias(n: &mut Lower<'_>, x: Value, bias: Value) -> Result<Value> {
    let mut shape = vec![1; n.rank(x)?];
    shape[1] = -1;
    let bias = n.reshape_to(bias, &shape)?;
    n.add(x, bias)
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

/// Convolves `x`, as the node's attributes say.
pub(super) fn convolved(n: &mut Lower<'_>, x: Value, weight: Value, bias: Option<Value>) -> Result<Value> {
    let window = Window::read(n, x, kernel(n, weight)?)?;
    let groups = n.int_or("group", 1)?;
    if n.const_of(weight).is_none() && !window.is_dense() {
        return Err(LowerError::core_ml("a dilated convolution with a weight that is computed"));
    }
    let (pad_type, pad) = window.mil_padding(n, x)?;
    let Window { strides, dilations, .. } = window;
    let fused = bias.filter(|b| n.const_of(*b).is_some());
    let y = n.op(ops::Conv { x, weight, bias: fused, strides, pad_type, pad, dilations, groups })?;
    match bias.filter(|b| fused != Some(*b)) {
        Some(bias) => add_bias(n, y, bias),
        None => Ok(y),
    }
}

fn conv_transpose(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, bias) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    let window = Window::read(n, x, kernel(n, weight)?)?;
    let groups = n.int_or("group", 1)?;
    if n.const_of(weight).is_none() && n.opset() < Opset::Ios17 {
        return Err(LowerError::core_ml("a transposed convolution with a weight that is computed, before iOS 17,"));
    }
    let spatial = window.kernel.len();
    let extra = n.ints("output_padding")?.unwrap_or_else(|| vec![0; spatial]);
    if extra.len() != spatial || extra.iter().any(|e| !(0..MAX_SIZE).contains(e)) {
        return n.bad_attr("output_padding", format!("{spatial} integers of at least 0"));
    }
    let wanted = n.ints("output_shape")?.filter(|s| !s.is_empty());
    if wanted.as_ref().is_some_and(|s| s.len() < spatial || s.iter().any(|d| !(0..MAX_SIZE).contains(d))) {
        return n.bad_attr("output_shape", format!("{spatial} sizes"));
    }
    // What is cut off at each end. Where the result reaches further than anything is spread to, the end is negative.
    let mut cut = vec![];
    for i in 0..spatial {
        let total = match (&wanted, &window.padding) {
            (Some(wanted), _) => {
                let size = spatial_sizes(n, x)?.get(i).copied().unwrap_or(1);
                let full = (size - 1).saturating_mul(window.strides[i]).saturating_add(window.reach(i));
                full.saturating_add(extra[i]) - wanted[wanted.len() - spatial + i]
            }
            (None, Padding::Explicit(pads)) => {
                cut.push((pads[i].0, pads[i].1 - extra[i]));
                continue;
            }
            (None, Padding::SameUpper | Padding::SameLower) => {
                window.reach(i).saturating_add(extra[i]) - window.strides[i]
            }
        };
        let half = total.max(0) / 2;
        let begin = if window.padding == Padding::SameUpper { half } else { total.max(0) - half };
        cut.push((begin, total - begin - extra[i]));
    }
    let pads: Vec<(i64, i64)> = cut.iter().map(|(begin, end)| (*begin, (*end).max(0))).collect();
    let pad_type = if pads.iter().all(|p| *p == (0, 0)) { ops::PadType::Valid } else { ops::PadType::Custom };
    let extended = cut.iter().any(|(_, end)| *end < 0);
    let fused = bias.filter(|b| n.const_of(*b).is_some() && !extended);
    let window_reach: Vec<i64> = (0..spatial).map(|i| window.reach(i)).collect();
    let Window { strides, dilations, .. } = window;
    let mut op = ops::ConvTranspose {
        x,
        weight,
        bias: fused,
        pad: interleaved(&pads),
        output_shape: None,
        pad_type,
        strides,
        dilations,
        groups,
    };
    // With strides, the shape of the result is not a matter of course to Core ML.
    if let (Some(size), Some(channels)) = (n.shape(x)?.known(), n.shape(weight)?.get(1).and_then(|d| d.as_known())) {
        let spatial = (0..spatial).map(|i| {
            let full = (size[i + 2] as i64 - 1).saturating_mul(op.strides[i]);
            let reach = window_reach[i];
            Some(full.saturating_add(reach) - pads[i].0 - pads[i].1)
        });
        let lead = [Some(size[0] as i64), channels.checked_mul(groups)];
        op.output_shape = lead.into_iter().chain(spatial).collect();
    }
    if !extended && fused == bias {
        return n.emit(op);
    }
    let mut y = n.op(op)?;
    let ends: Vec<(i64, i64)> = [(0, 0); 2].into_iter().chain(cut.iter().map(|(_, end)| (0, (-end).max(0)))).collect();
    y = n.pad(y, &interleaved(&ends), 0.0)?;
    if let Some(bias) = bias.filter(|b| fused != Some(*b)) {
        y = add_bias(n, y, bias)?;
    }
    n.done(y)
}
