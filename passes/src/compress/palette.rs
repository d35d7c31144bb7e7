//! Palettization: a table of few values, and for each weight the index of one.

mod histogram;
mod layout;
mod nearest;
mod scalar;

use super::{Refusal, weight::check};
use layout::{Layout, packed};
use mlconv_tensor::{Bytes, DType, Tensor, f16};
use nearest::Nearest;
use rayon::prelude::*;
use std::borrow::Cow;

/// Widths of indices that Core ML has.
pub const BITS: [u8; 6] = [1, 2, 3, 4, 6, 8];

/// How the entries of a table are chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum PaletteMethod {
    /// The means of clusters of least squared error: the least there is for scalars, a good one for vectors.
    KMeans,
    /// Evenly spaced from the least to the greatest value, in steps rounded to the element type.
    Uniform,
    /// The distinct values themselves, in as few bits as they need.
    Unique,
    /// These entries, each of as many values as a vector has.
    Custom(Vec<f32>),
}

/// Which weights share a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// All of them.
    Tensor,
    /// Those of consecutive channels.
    Channels {
        /// The axis of the channels.
        axis: usize,
        /// Channels that share a table; it divides their number.
        size: usize,
    },
}

/// A scheme of palettization.
#[derive(Clone, Debug)]
pub struct PaletteOptions<'a> {
    /// The width of an index, one of [`BITS`]; [`PaletteMethod::Unique`] finds its own.
    pub bits: u8,
    /// How entries are chosen.
    pub method: PaletteMethod,
    /// Which weights share a table.
    pub groups: Groups,
    /// Weights to an index, 1 to 8.
    pub cluster_dim: usize,
    /// The axis along which the weights of an index follow each other; read where these are several.
    pub vector_axis: usize,
    /// The axis of the channels that are divided by their largest absolute value first.
    pub channel_scale: Option<usize>,
    /// What the squared error of each weight counts, 0 or more.
    pub importance: Option<&'a [f32]>,
    /// The weights that count at all.
    pub keep: Option<&'a [bool]>,
}

/// A palettized weight: `lut[group, indices]`, times the scale.
#[derive(Clone, Debug)]
pub struct Palette {
    /// Unsigned integers in the shape of the weight, its vector axis divided by the length of a vector.
    pub indices: Tensor,
    /// `T[*groups, 2^bits, cluster_dim]`, of the element type of the weight: a number of groups for each axis.
    pub lut: Tensor,
    /// The axis of vectors, where these have several elements.
    pub vector_axis: Option<usize>,
    /// `T[1, .., c, .., 1]`: what each channel is multiplied by.
    pub scale: Option<Tensor>,
}

/// Palettizes a weight.
pub fn palettize(w: &Tensor, o: &PaletteOptions<'_>) -> Result<Palette, Refusal> {
    check(w)?;
    let layout = layout_of(w, o)?;
    check_counts(w, o)?;
    let scale = o.channel_scale.map(|axis| Scale::new(w, axis, o.keep)).transpose()?;
    let weights = Weights::new(w, o, scale);
    let tables = tables(&weights, o, layout)?;
    let bits = match o.method {
        PaletteMethod::Unique => fitting_bits(&tables, o.cluster_dim)?,
        _ => o.bits,
    };
    let dtype = index_dtype(bits)?;
    let mut shape = w.shape().to_vec();
    let vector_axis = (o.cluster_dim > 1).then_some(o.vector_axis);
    if let Some(axis) = vector_axis {
        shape[axis] /= o.cluster_dim;
    }
    let bytes = encode(&weights, layout, &tables, u32::from(bits));
    let indices = Tensor::new(dtype, &shape, Bytes::from(bytes).into());
    let mut blocks = vec![1; shape.len()];
    if let Groups::Channels { axis, .. } = o.groups {
        blocks[axis] = layout.groups;
    }
    Ok(Palette {
        indices: indices.map_err(|e| Refusal::new(e.to_string()))?,
        lut: lut(w.dtype(), &blocks, &tables, 1 << bits, o.cluster_dim),
        vector_axis,
        scale: weights.scale.map(|s| s.tensor(w)),
    })
}

/// The element type of indices.
fn index_dtype(bits: u8) -> Result<DType, Refusal> {
    match bits {
        1 => Ok(DType::U1),
        2 => Ok(DType::U2),
        3 => Ok(DType::U3),
        4 => Ok(DType::U4),
        6 => Ok(DType::U6),
        8 => Ok(DType::U8),
        _ => Err(Refusal::new(format!("no indices of {bits} bits; 1, 2, 3, 4, 6 and 8 there are"))),
    }
}

/// The runs of indices that share a table; refuses axes and sizes that do not fit.
fn layout_of(w: &Tensor, o: &PaletteOptions<'_>) -> Result<Layout, Refusal> {
    let shape = w.shape();
    let size_of = |what: &str, axis: usize| {
        let size = shape.get(axis).copied();
        size.ok_or_else(|| Refusal::new(format!("no {what} {axis} in a weight of rank {}", shape.len())))
    };
    if let Some(axis) = o.channel_scale {
        size_of("channel axis", axis)?;
    }
    let d = o.cluster_dim;
    if !(1..=8).contains(&d) {
        return Err(Refusal::new(format!("no vectors of {d} elements; 1 to 8 there are")));
    }
    let mut stride = 1;
    if d > 1 {
        let size = size_of("vector axis", o.vector_axis)?;
        if !size.is_multiple_of(d) {
            let want = listed((1..=8).filter(|d| size.is_multiple_of(*d)));
            return Err(Refusal::new(format!(
                "{d} does not divide the {size} channels of axis {}; {want} would",
                o.vector_axis
            )));
        }
        stride = shape[o.vector_axis + 1..].iter().product();
    }
    let count = w.count() / d;
    let all = Layout { count, groups: 1, run: count, dim: d, stride };
    let Groups::Channels { axis, size } = o.groups else { return Ok(all) };
    let channels = size_of("channel axis", axis)?;
    // A group holds whole vectors.
    let (part, inner) = match d > 1 {
        true if o.vector_axis == axis => (d, stride),
        true if o.vector_axis > axis => (1, shape[axis + 1..].iter().product::<usize>() / d),
        _ => (1, shape[axis + 1..].iter().product()),
    };
    if size == 0 || !channels.is_multiple_of(size) {
        let want = listed((part..=channels).filter(|s| channels.is_multiple_of(*s) && s.is_multiple_of(part)));
        return Err(Refusal::new(format!(
            "groups of {size} do not divide the {channels} channels of axis {axis}; {want} would"
        )));
    }
    if !size.is_multiple_of(part) {
        return Err(Refusal::new(format!("groups of {size} channels do not hold whole vectors of {d}")));
    }
    Ok(Layout { groups: channels / size, run: size / part * inner, ..all })
}

/// Numbers as prose: `1, 2 and 4`.
fn listed(numbers: impl Iterator<Item = usize>) -> String {
    let numbers: Vec<String> = numbers.map(|n| n.to_string()).collect();
    match &numbers[..] {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

/// Refuses masks and importances that do not fit the weight, and tables that do not fit the bits.
fn check_counts(w: &Tensor, o: &PaletteOptions<'_>) -> Result<(), Refusal> {
    let count = w.count();
    if o.method != PaletteMethod::Unique {
        index_dtype(o.bits)?;
    }
    if let Some(found) = o.keep.map(<[bool]>::len).filter(|n| *n != count) {
        return Err(Refusal::new(format!("a mask of {found} elements for {count} weights")));
    }
    if let Some(importance) = o.importance {
        if importance.len() != count {
            return Err(Refusal::new(format!("the importance of {} elements for {count} weights", importance.len())));
        }
        if let Some(at) = importance.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
            return Err(Refusal::new(format!("the importance of element {at} is {}, not 0 or more", importance[at])));
        }
    }
    let PaletteMethod::Custom(table) = &o.method else { return Ok(()) };
    let room = (1usize << o.bits) * o.cluster_dim;
    if table.is_empty() || table.len() > room || !table.len().is_multiple_of(o.cluster_dim) {
        return Err(Refusal::new(format!(
            "a table of {} values, where {} bits have at most {} entries of {}",
            table.len(),
            o.bits,
            1usize << o.bits,
            o.cluster_dim
        )));
    }
    match table.iter().position(|x| !rounded(w.dtype(), f64::from(*x)).is_finite()) {
        Some(at) => Err(Refusal::new(format!("value {at} of the table is not finite as {}", w.dtype()))),
        None => Ok(()),
    }
}

/// A number as the element type holds it.
fn rounded(dtype: DType, x: f64) -> f32 {
    match dtype {
        DType::F16 => f16::from_f64(x).to_f32(),
        _ => x as f32,
    }
}

/// What each channel of a weight is divided by.
struct Scale {
    by: Vec<f32>,
    /// Elements of a channel that follow each other.
    inner: usize,
    axis: usize,
}

impl Scale {
    /// The largest absolute values of channels; 1 for channels of zeros.
    fn new(w: &Tensor, axis: usize, keep: Option<&[bool]>) -> Result<Self, Refusal> {
        let channels = w.shape()[axis];
        let inner: usize = w.shape()[axis + 1..].iter().product();
        let mut by = vec![0f32; channels];
        for (row, values) in w.to_f32().chunks(inner).enumerate() {
            let largest = &mut by[row % channels];
            let kept = |i: usize| keep.is_none_or(|keep| keep[row * inner + i]);
            *largest = values.iter().enumerate().filter(|(i, _)| kept(*i)).fold(*largest, |m, (_, x)| m.max(x.abs()));
        }
        by.iter_mut().filter(|s| **s == 0.0).for_each(|s| *s = 1.0);
        Ok(Self { by, inner, axis })
    }

    /// That of an element.
    #[inline]
    fn at(&self, element: usize) -> f32 {
        self.by[element / self.inner % self.by.len()]
    }

    fn tensor(self, w: &Tensor) -> Tensor {
        let mut shape = vec![1; w.shape().len()];
        shape[self.axis] = self.by.len();
        let by: Vec<f64> = self.by.into_iter().map(f64::from).collect();
        Tensor::from_f64(w.dtype(), &shape, &by)
    }
}

/// The weights to palettize, and what each counts.
struct Weights<'a> {
    dtype: DType,
    /// Where nothing but their value matters, so that equal ones are counted.
    halves: Option<Cow<'a, [f16]>>,
    /// All others.
    singles: Cow<'a, [f32]>,
    scale: Option<Scale>,
    importance: Option<&'a [f32]>,
    keep: Option<&'a [bool]>,
}

impl<'a> Weights<'a> {
    fn new(w: &'a Tensor, o: &PaletteOptions<'a>, scale: Option<Scale>) -> Self {
        let halves = if scale.is_none() && o.cluster_dim == 1 { w.view::<f16>() } else { None };
        let singles = if halves.is_some() { Cow::default() } else { w.to_f32() };
        Self { dtype: w.dtype(), halves, singles, scale, importance: o.importance, keep: o.keep }
    }

    /// Whether elements count differently.
    fn weighted(&self) -> bool {
        self.importance.is_some() || self.keep.is_some() || self.scale.is_some()
    }

    /// What the squared error of an element counts, after it was divided by its scale.
    fn weight(&self, element: usize) -> f64 {
        let importance = self.importance.map_or(1.0, |w| f64::from(w[element]));
        let kept = if self.keep.is_none_or(|k| k[element]) { importance } else { 0.0 };
        self.scale.as_ref().map_or(kept, |s| kept * f64::from(s.at(element)).powi(2))
    }

    /// An element of `singles`, divided by its scale.
    fn single(&self, element: usize) -> f32 {
        let x = self.singles[element];
        self.scale.as_ref().map_or(x, |s| x / s.at(element))
    }
}

/// The entries of every group, `cluster_dim` values each.
fn tables(weights: &Weights<'_>, o: &PaletteOptions<'_>, layout: Layout) -> Result<Vec<Vec<f32>>, Refusal> {
    if let PaletteMethod::Custom(table) = &o.method {
        let table: Vec<f32> = table.iter().map(|x| rounded(weights.dtype, f64::from(*x))).collect();
        return Ok(vec![table; layout.groups]);
    }
    if o.cluster_dim > 1 {
        return Err(Refusal::new("vectors are not implemented"));
    }
    let groups = (0..layout.groups).into_par_iter();
    groups.map(|group| scalars(&points(weights, layout, group), weights.dtype, o)).collect()
}

/// The distinct values of a group.
fn points(weights: &Weights<'_>, layout: Layout, group: usize) -> scalar::Points {
    let runs = layout.runs(group);
    match &weights.halves {
        Some(halves) => {
            let weight = weights.weighted().then_some(|i| weights.weight(i));
            histogram::halves(halves, runs, weight)
        }
        None => histogram::singles(runs, |i| (weights.single(i), weights.weight(i))),
    }
}

/// The table of a group of scalars.
fn scalars(points: &scalar::Points, dtype: DType, o: &PaletteOptions<'_>) -> Result<Vec<f32>, Refusal> {
    // Nothing counts: any table will do.
    let (Some(low), Some(high)) = (points.x.first(), points.x.last()) else { return Ok(vec![0.0]) };
    let entries = match o.method {
        PaletteMethod::Uniform => {
            let last = ((1usize << o.bits) - 1) as f64;
            let range = f64::from(rounded(dtype, high - low));
            let rough = f64::from(rounded(dtype, range / last));
            let step = if rough.is_finite() { rough } else { (high - low) / last };
            let entry =
                |i: usize| (low + i as f64 * step).min(if dtype == DType::F16 { 65504.0 } else { f64::from(f32::MAX) });
            (0..1usize << o.bits).map(entry).collect()
        }
        PaletteMethod::Unique if points.x.len() > 256 => {
            return Err(Refusal::new(
                "more than 256 distinct values share a table, which is all that 8 bits can tell apart",
            ));
        }
        PaletteMethod::Unique => points.x.clone(),
        PaletteMethod::KMeans | PaletteMethod::Custom(_) => scalar::kmeans(points, 1 << o.bits),
    };
    Ok(entries.into_iter().map(|x| rounded(dtype, x) + 0.0).collect())
}

/// The fewest bits that index the longest table.
fn fitting_bits(tables: &[Vec<f32>], dim: usize) -> Result<u8, Refusal> {
    let most = tables.iter().map(|t| t.len() / dim).max().unwrap_or(1);
    let fit = BITS.into_iter().find(|bits| most <= 1 << bits);
    fit.ok_or_else(|| {
        Refusal::new(format!("{most} distinct values share a table, which is more than 8 bits can tell apart"))
    })
}

/// The tables as a tensor, each filled up with zeros to `entries`.
fn lut(dtype: DType, blocks: &[usize], tables: &[Vec<f32>], entries: usize, dim: usize) -> Tensor {
    let shape = [blocks, &[entries, dim]].concat();
    let padded = tables.iter().flat_map(|table| {
        let zeros = std::iter::repeat_n(0.0, (entries * dim).saturating_sub(table.len()));
        table.iter().map(|x| f64::from(*x)).chain(zeros).take(entries * dim)
    });
    Tensor::from_f64(dtype, &shape, &padded.collect::<Vec<f64>>())
}

/// The packed indices of the nearest entries.
fn encode(weights: &Weights<'_>, layout: Layout, tables: &[Vec<f32>], bits: u32) -> Vec<u8> {
    /// Elements to a group from which a table of all halves pays.
    const TABLED: usize = 1 << 17;
    let nearest: Vec<Nearest> = tables.iter().map(|t| Nearest::new(t)).collect();
    if let Some(halves) = &weights.halves {
        if layout.group_len() >= TABLED {
            let tables: Vec<Vec<u8>> = nearest.par_iter().map(Nearest::halves).collect();
            return packed(layout.count, bits, |range, out| {
                let start = range.start;
                for (part, group) in layout.parts(range) {
                    let out = &mut out[part.start - start..part.end - start];
                    for (o, x) in out.iter_mut().zip(&halves[part]) {
                        *o = tables[group][usize::from(x.to_bits())];
                    }
                }
            });
        }
        return packed(layout.count, bits, |range, out| {
            let start = range.start;
            for (part, group) in layout.parts(range) {
                let out = &mut out[part.start - start..part.end - start];
                let mut values = [0f32; 256];
                for (out, halves) in out.chunks_mut(256).zip(halves[part].chunks(256)) {
                    let values = &mut values[..halves.len()];
                    half::slice::HalfFloatSliceExt::convert_to_f32_slice(halves, values);
                    out.iter_mut().zip(values).for_each(|(o, x)| *o = nearest[group].index(*x));
                }
            }
        });
    }
    packed(layout.count, bits, |range, out| {
        let start = range.start;
        for (part, group) in layout.parts(range) {
            let out = &mut out[part.start - start..part.end - start];
            out.iter_mut().zip(part).for_each(|(o, i)| *o = nearest[group].index(weights.single(i)));
        }
    })
}
