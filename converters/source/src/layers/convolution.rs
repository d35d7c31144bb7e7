//! Windows that slide over images, and convolutions.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops, schema::Opset};

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// What `auto_pad` and `pads` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// As much as makes the result as large as the input, divided by the stride; the odd one at the end.
    SameUpper,
    /// The same, with the odd one at the beginning.
    SameLower,
    /// Before and after, per spatial dimension.
    Explicit(Vec<(i64, i64)>),
}

/// How windows slide over an image; one entry per spatial dimension.
#[derive(Clone, Debug)]
pub struct Window {
    /// The size of a window.
    pub kernel: Vec<i64>,
    /// How far apart windows begin.
    pub strides: Vec<i64>,
    /// How far apart the elements of a window lie.
    pub dilations: Vec<i64>,
    /// What lies around the image.
    pub padding: Padding,
}

/// Sizes beyond which a window is refused: products of them are still far from overflowing.
pub const MAX_SIZE: i64 = 1 << 31;

impl Window {
    /// How far a window reaches along spatial dimension `i`.
    pub fn reach(&self, i: usize) -> i64 {
        (self.kernel[i] - 1).saturating_mul(self.dilations[i]).saturating_add(1)
    }

    /// Whether the elements of a window lie side by side.
    pub fn is_dense(&self) -> bool {
        self.dilations.iter().zip(&self.kernel).all(|(d, k)| *d == 1 || *k == 1)
    }

    /// The padding as numbers, for an image of these spatial sizes.
    pub fn pads(&self, sizes: &[i64]) -> Vec<(i64, i64)> {
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
    pub fn mil_padding(&self, n: &Lower<'_>, x: Value) -> Result<(ops::PadType, Vec<i64>)> {
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
pub fn interleaved(pads: &[(i64, i64)]) -> Vec<i64> {
    pads.iter().flat_map(|(before, after)| [*before, *after]).collect()
}

/// The spatial sizes of `x`, which must be fixed.
pub fn spatial_sizes(n: &Lower<'_>, x: Value) -> Result<Vec<i64>> {
    let known = |d: &mlconv_tensor::Dim| d.as_known().filter(|n| *n < MAX_SIZE);
    let sizes: Option<Vec<i64>> = n.shape(x)?.iter().skip(2).map(known).collect();
    sizes.ok_or_else(|| LowerError::NotFixed { what: "where windows lie".to_owned() })
}

/// Adds a bias with one element per channel.
pub fn add_bias(n: &mut Lower<'_>, x: Value, bias: Value) -> Result<Value> {
    let mut shape = vec![1; n.rank(x)?];
    shape[1] = -1;
    let bias = n.reshape_to(bias, &shape)?;
    n.add(x, bias)
}

/// Convolves `x` in groups.
pub fn convolved(
    n: &mut Lower<'_>,
    x: Value,
    (weight, bias): (Value, Option<Value>),
    window: Window,
    groups: i64,
) -> Result<Value> {
    let (mut weight, mut window) = (weight, window);
    if n.const_of(weight).is_none() && !window.is_dense() {
        // Core ML spreads no weight that is computed: it is spread here, with zeros between its elements.
        weight = spread(n, weight, &window.dilations)?;
        window.kernel = (0..window.kernel.len()).map(|i| window.reach(i)).collect();
        window.dilations.fill(1);
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

/// A weight whose elements lie as far apart as `dilations` say, with zeros between them.
fn spread(n: &mut Lower<'_>, weight: Value, dilations: &[i64]) -> Result<Value> {
    let (mut weight, rank) = (weight, n.rank(weight)?);
    for (i, step) in dilations.iter().enumerate().filter(|(_, step)| **step > 1) {
        let axis = i + 2;
        let size = n.shape(weight)?.get(axis).and_then(|d| d.as_known());
        let size = size.ok_or_else(|| LowerError::NotFixed { what: "the kernel".to_owned() })?;
        let Some(reach) = (size - 1).checked_mul(*step).filter(|r| *r < MAX_SIZE) else {
            return Err(LowerError::form(format!("a dilation of {step}")));
        };
        let mut pad = vec![0; 2 * rank];
        pad[2 * axis + 1] = 1;
        weight = n.pad(weight, &pad, 0.0)?;
        let places: Vec<i64> = (0..=reach).map(|at| if at % step == 0 { at / step } else { size }).collect();
        weight = n.gather_at(weight, axis, &places)?;
    }
    Ok(weight)
}

/// A transposed convolution.
pub struct Transposed<'a> {
    /// How windows slide over the result.
    pub window: Window,
    /// The number of groups.
    pub groups: i64,
    /// What is added behind the result, per spatial dimension.
    pub extra: &'a [i64],
    /// The sizes that the result is to have, the spatial ones last; the padding follows from them.
    pub wanted: Option<&'a [i64]>,
}

/// Spreads each element of `x` over a window.
pub fn transposed(
    n: &mut Lower<'_>,
    x: Value,
    (weight, bias): (Value, Option<Value>),
    how: Transposed<'_>,
) -> Result<Value> {
    let Transposed { window, groups, extra, wanted } = how;
    let spatial = window.kernel.len();
    if n.const_of(weight).is_none() && n.opset() < Opset::Ios17 {
        return Err(LowerError::core_ml("a transposed convolution with a weight that is computed, before iOS 17,"));
    }
    // What is cut off at each end. Where the result reaches further than anything is spread to, the end is negative.
    let mut cut = vec![];
    for i in 0..spatial {
        let total = match (wanted, &window.padding) {
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
        return n.op(op);
    }
    let mut y = n.op(op)?;
    let ends: Vec<(i64, i64)> = [(0, 0); 2].into_iter().chain(cut.iter().map(|(_, end)| (0, (-end).max(0)))).collect();
    y = n.pad(y, &interleaved(&ends), 0.0)?;
    if let Some(bias) = bias.filter(|b| fused != Some(*b)) {
        y = add_bias(n, y, bias)?;
    }
    Ok(y)
}
