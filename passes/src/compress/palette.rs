//! Palettization: a table of few values, and for each weight the index of one.

mod histogram;
mod layout;
mod nearest;
mod scalar;
mod vector;

use super::{Refusal, weight::check};
use layout::{Layout, packed};
use mlconv_tensor::{Bytes, DType, Tensor, f16};
use nearest::Nearest;
use rayon::prelude::*;
use std::{borrow::Cow, collections::BTreeSet, ops::Range};
use vector::{Entry, Vectors};

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
        PaletteMethod::Unique => fitting_bits(&tables, o.cluster_dim),
        _ => o.bits,
    };
    let dtype = index_dtype(bits)?;
    let mut shape = w.shape().to_vec();
    let vector_axis = (o.cluster_dim > 1).then_some(o.vector_axis);
    if let Some(axis) = vector_axis {
        shape[axis] /= o.cluster_dim;
    }
    let bytes = encode(&weights, layout, &tables, u32::from(bits), &o.method);
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
pub(super) fn index_dtype(bits: u8) -> Result<DType, Refusal> {
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
    largest: f32,
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
        let largest = by.iter().copied().fold(0.0, f32::max);
        Ok(Self { by, inner, axis, largest })
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
    /// A power of two by which the squares of elements fit single precision.
    unit: f32,
    scale: Option<Scale>,
    importance: Option<&'a [f32]>,
    keep: Option<&'a [bool]>,
}

impl<'a> Weights<'a> {
    fn new(w: &'a Tensor, o: &PaletteOptions<'a>, scale: Option<Scale>) -> Self {
        let halves = if scale.is_none() && o.cluster_dim == 1 { w.view::<f16>() } else { None };
        let singles = if halves.is_some() { Cow::default() } else { w.to_f32() };
        let largest =
            if o.cluster_dim > 1 && scale.is_none() { singles.iter().fold(0f32, |m, x| m.max(x.abs())) } else { 1.0 };
        let unit = f32::from_bits(254u32.saturating_sub(largest.to_bits() >> 23).max(1) << 23);
        // A value is a value, however little it counts.
        let importance = o.importance.filter(|_| o.method != PaletteMethod::Unique);
        Self { dtype: w.dtype(), halves, singles, unit, scale, importance, keep: o.keep }
    }

    /// Whether elements count differently.
    fn weighted(&self) -> bool {
        self.importance.is_some() || self.keep.is_some() || self.scale.is_some()
    }

    /// What the squared error of an element counts, after it was divided by its scale; relative to the largest scale.
    fn weight(&self, element: usize) -> f64 {
        let importance = self.importance.map_or(1.0, |w| f64::from(w[element]));
        let kept = if self.keep.is_none_or(|k| k[element]) { importance } else { 0.0 };
        self.scale.as_ref().map_or(kept, |s| kept * f64::from(s.at(element) / s.largest).powi(2))
    }

    /// Adds the vectors of `indices`, times `unit`, and what the squared errors of their components count.
    fn gather<const D: usize>(&self, layout: Layout, indices: Range<usize>, unit: f32, vectors: &mut Vectors<D>) {
        let mut at = indices.start;
        // Indices of a row follow each other as each of their components does.
        while at < indices.end {
            let end = ((at / layout.stride + 1) * layout.stride).min(indices.end);
            let start = layout.element(at);
            let rows: [Range<usize>; D] =
                std::array::from_fn(|k| start + k * layout.stride..start + k * layout.stride + end - at);
            if self.weighted() {
                for i in 0..end - at {
                    let (x, w) = (|k: usize| self.single(rows[k].start + i), |k: usize| self.weight(rows[k].start + i));
                    vectors.push(std::array::from_fn(|k| x(k) * unit), std::array::from_fn(|k| w(k) as f32));
                }
            } else {
                let rows = rows.map(|row| &self.singles[row]);
                (0..end - at).for_each(|i| vectors.push(rows.map(|row| row[i] * unit), [1.0; D]));
            }
            at = end;
        }
    }

    /// An element of `singles`, divided by its scale.
    fn single(&self, element: usize) -> f32 {
        let x = self.singles[element];
        self.scale.as_ref().map_or(x, |s| x / s.at(element))
    }
}

/// Calls a function for vectors of a length that is known to the compiler.
macro_rules! by_dim {
    ($dim:expr, $f:ident($($arg:expr),*)) => {
        match $dim {
            2 => $f::<2>($($arg),*),
            3 => $f::<3>($($arg),*),
            4 => $f::<4>($($arg),*),
            5 => $f::<5>($($arg),*),
            6 => $f::<6>($($arg),*),
            7 => $f::<7>($($arg),*),
            _ => $f::<8>($($arg),*),
        }
    };
}

/// The entries of every group, `cluster_dim` values each.
fn tables(weights: &Weights<'_>, o: &PaletteOptions<'_>, layout: Layout) -> Result<Vec<Vec<f32>>, Refusal> {
    if let PaletteMethod::Custom(table) = &o.method {
        let table: Vec<f32> = table.iter().map(|x| rounded(weights.dtype, f64::from(*x))).collect();
        return Ok(vec![table; layout.groups]);
    }
    let groups = (0..layout.groups).into_par_iter();
    if o.cluster_dim > 1 {
        return groups.map(|group| by_dim!(o.cluster_dim, entries(weights, o, layout, group))).collect();
    }
    if o.method == PaletteMethod::Unique && weights.halves.is_none() {
        return groups.map(|group| distinct(weights, layout, group)).collect();
    }
    groups.map(|group| scalars(&points(weights, layout, group), weights.dtype, o)).collect()
}

/// The singles of a group themselves, ascending: histograms of many take near ones for one.
fn distinct(weights: &Weights<'_>, layout: Layout, group: usize) -> Result<Vec<f32>, Refusal> {
    let mut distinct = BTreeSet::new();
    for i in layout.runs(group).flatten().filter(|i| weights.keep.is_none_or(|keep| keep[*i])) {
        distinct.insert(ordered(weights.single(i)));
        if distinct.len() > 256 {
            return Err(too_many());
        }
    }
    // Nothing counts: any table will do.
    let table = if distinct.is_empty() { vec![0.0] } else { distinct.into_iter().map(value_of).collect() };
    Ok(table.into_iter().map(|x| rounded(weights.dtype, f64::from(x)) + 0.0).collect())
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
            // Rounding must not lead past the greatest value, which may be the greatest there is.
            let entry = |i: usize| (low + i as f64 * step).min(*high);
            (0..1usize << o.bits).map(entry).collect()
        }
        PaletteMethod::Unique if points.x.len() > 256 => {
            return Err(too_many());
        }
        PaletteMethod::Unique => points.x.clone(),
        PaletteMethod::KMeans | PaletteMethod::Custom(_) => scalar::kmeans(points, 1 << o.bits),
    };
    Ok(entries.into_iter().map(|x| rounded(dtype, x) + 0.0).collect())
}

/// The table of a group of vectors.
fn entries<const D: usize>(
    weights: &Weights<'_>,
    o: &PaletteOptions<'_>,
    layout: Layout,
    group: usize,
) -> Result<Vec<f32>, Refusal> {
    let mut vectors = Vectors::<D>::with_capacity(layout.group_len(), weights.weighted());
    let table: Vec<Entry<D>> = match o.method {
        PaletteMethod::KMeans | PaletteMethod::Custom(_) => {
            layout.runs(group).for_each(|run| weights.gather(layout, run, weights.unit, &mut vectors));
            let table = vector::kmeans(&vectors, 1 << o.bits);
            table.into_iter().map(|entry| entry.map(|x| x / weights.unit)).collect()
        }
        PaletteMethod::Uniform => return Err(Refusal::new("vectors have no evenly spaced values")),
        PaletteMethod::Unique => {
            let mut distinct = BTreeSet::new();
            for run in layout.runs(group) {
                vectors.clear();
                weights.gather(layout, run, 1.0, &mut vectors);
                for x in vectors.counted() {
                    distinct.insert(x.map(ordered));
                    if distinct.len() > 256 {
                        return Err(too_many());
                    }
                }
            }
            distinct.into_iter().map(|x| x.map(value_of)).collect()
        }
    };
    Ok(table.into_iter().flatten().map(|x| rounded(weights.dtype, f64::from(x)) + 0.0).collect())
}

/// A number that is ordered as floats are; both zeros are one.
fn ordered(x: f32) -> i32 {
    let bits = (x + 0.0).to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The float of such a number.
fn value_of(ordered: i32) -> f32 {
    f32::from_bits((ordered ^ ((ordered >> 31) as u32 >> 1) as i32) as u32)
}

fn too_many() -> Refusal {
    Refusal::new("more than 256 distinct values share a table, which is all that 8 bits tell apart")
}

/// The fewest bits that index the longest table.
fn fitting_bits(tables: &[Vec<f32>], dim: usize) -> u8 {
    let most = tables.iter().map(|t| t.len() / dim).max().unwrap_or(1);
    // None has more than 256 entries.
    BITS.into_iter().find(|bits| most <= 1 << bits).unwrap_or(8)
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
fn encode(weights: &Weights<'_>, layout: Layout, tables: &[Vec<f32>], bits: u32, method: &PaletteMethod) -> Vec<u8> {
    /// Elements from which a table of all halves pays, and those from which it is worth keeping.
    const TABLED: (usize, usize) = (1 << 8, 1 << 17);
    if layout.dim > 1 {
        return match method {
            // What was divided by a scale may lie between the entries.
            PaletteMethod::Unique if weights.scale.is_none() => {
                by_dim!(layout.dim, find_vectors(weights, layout, tables, bits))
            }
            _ => by_dim!(layout.dim, encode_vectors(weights, layout, tables, bits)),
        };
    }
    let nearest: Vec<Nearest> = tables.iter().map(|t| Nearest::new(t)).collect();
    if let Some(halves) = &weights.halves {
        if layout.group_len() >= TABLED.1 {
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
            let (start, mut table) = (range.start, vec![]);
            for (part, group) in layout.parts(range) {
                let out = &mut out[part.start - start..part.end - start];
                if out.len() < TABLED.0 {
                    out.iter_mut().zip(&halves[part]).for_each(|(o, x)| *o = nearest[group].index(x.to_f32()));
                    continue;
                }
                table.resize(1 << 16, 0);
                nearest[group].fill(&mut table);
                for (o, x) in out.iter_mut().zip(&halves[part]) {
                    *o = table[usize::from(x.to_bits())];
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

/// The packed indices of the nearest entries for vectors.
fn encode_vectors<const D: usize>(weights: &Weights<'_>, layout: Layout, tables: &[Vec<f32>], bits: u32) -> Vec<u8> {
    /// Vectors that are gathered together.
    const GATHERED: usize = 256;
    packed(layout.count, bits, |range, out| {
        let start = range.start;
        let mut vectors = Vectors::with_capacity(GATHERED, weights.weighted());
        for (part, group) in layout.parts(range) {
            let (table, _) = tables[group].as_chunks::<D>();
            let table: Vec<Entry<D>> = table.iter().map(|entry| entry.map(|x| x * weights.unit)).collect();
            let out = &mut out[part.start - start..part.end - start];
            for (out, from) in out.chunks_mut(GATHERED).zip(part.step_by(GATHERED)) {
                vectors.clear();
                weights.gather(layout, from..from + out.len(), weights.unit, &mut vectors);
                vectors.indices(&table, out);
            }
        }
    })
}

/// The packed indices of vectors that are entries themselves: distances of such may be too small for single precision.
fn find_vectors<const D: usize>(weights: &Weights<'_>, layout: Layout, tables: &[Vec<f32>], bits: u32) -> Vec<u8> {
    packed(layout.count, bits, |range, out| {
        let start = range.start;
        for (part, group) in layout.parts(range) {
            let (table, _) = tables[group].as_chunks::<D>();
            for i in part {
                let first = layout.element(i);
                let x: [i32; D] = std::array::from_fn(|k| ordered(weights.singles[first + k * layout.stride]));
                // Elements that do not count are not there, and get any entry.
                let at = table.binary_search_by(|entry| entry.map(ordered).cmp(&x)).unwrap_or(0);
                out[i - start] = at as u8;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: PaletteOptions<'_> = PaletteOptions {
        bits: 4,
        method: PaletteMethod::KMeans,
        groups: Groups::Tensor,
        cluster_dim: 1,
        vector_axis: 0,
        channel_scale: None,
        importance: None,
        keep: None,
    };

    /// Weights that look random, as products of many small numbers do.
    fn weights(dtype: DType, shape: &[usize]) -> Tensor {
        let mut state = 1u64;
        let mut unit = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        let values: Vec<f64> =
            (0..shape.iter().product()).map(|_| ((0..4).map(|_| unit()).sum::<f64>() - 2.0) * 0.1).collect();
        Tensor::from_f64(dtype, shape, &values)
    }

    /// The weights that a palette stands for, index by index.
    fn decoded(p: &Palette, shape: &[usize]) -> Vec<f32> {
        let (lut, indices, d) = (p.lut.to_f32(), p.indices.to_i64(), *p.lut.shape().last().expect("a length"));
        let entries = p.lut.shape()[shape.len()];
        let blocks = &p.lut.shape()[..shape.len()];
        let scale = p.scale.as_ref().map(|s| (s.to_f32().into_owned(), s.shape().to_vec()));
        let place = |at: &[usize], sizes: &[usize]| at.iter().zip(sizes).fold(0, |n, (i, s)| n * s + i);
        (0..shape.iter().product())
            .map(|i| {
                let mut at = vec![0; shape.len()];
                let mut rest = i;
                for (a, n) in at.iter_mut().zip(shape).rev() {
                    (*a, rest) = (rest % n, rest / n);
                }
                let mut index = at.clone();
                let k = p.vector_axis.map_or(0, |axis| {
                    index[axis] /= d;
                    at[axis] % d
                });
                let block: Vec<usize> =
                    index.iter().zip(p.indices.shape()).zip(blocks).map(|((i, n), b)| i / (n / b)).collect();
                let entry = indices[place(&index, p.indices.shape())] as usize;
                let x = lut[(place(&block, blocks) * entries + entry) * d + k];
                scale.as_ref().map_or(x, |(s, sizes)| {
                    let at: Vec<usize> = at.iter().zip(sizes).map(|(i, n)| (*i).min(n - 1)).collect();
                    x * s[place(&at, sizes)]
                })
            })
            .collect()
    }

    /// The mean squared error of a palette.
    fn error(w: &Tensor, o: &PaletteOptions<'_>) -> f64 {
        let p = palettize(w, o).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((p.lut.dtype(), p.vector_axis.is_some()), (w.dtype(), o.cluster_dim > 1));
        let back = decoded(&p, w.shape());
        let far = w.to_f32().iter().zip(back).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        far / w.count() as f64
    }

    fn refusal(w: &Tensor, o: &PaletteOptions<'_>) -> String {
        palettize(w, o).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_scheme_comes_near() {
        // The variance is 4 / 12 * 0.01; four bits leave about a hundredth of it.
        let variance = 0.01 / 3.0;
        for dtype in [DType::F16, DType::F32] {
            for (shape, axis) in
                [(vec![32, 24, 3], 0), (vec![8, 24, 5], 1), (vec![48, 40], 1), (vec![96], 0), (vec![64, 1024], 0)]
            {
                let w = weights(dtype, &shape);
                let groups = Groups::Channels { axis, size: 8 };
                let near = |share: f64, o: PaletteOptions<'_>| {
                    let found = error(&w, &o);
                    assert!(found < share * variance, "{dtype}{shape:?} {o:?}: {found}");
                    found
                };
                let tensor = near(0.02, PLAIN);
                assert!(near(0.02, PaletteOptions { groups, ..PLAIN }) <= tensor * 1.001);
                near(0.02, PaletteOptions { method: PaletteMethod::Uniform, ..PLAIN });
                near(0.02, PaletteOptions { channel_scale: Some(axis), ..PLAIN });
                near(0.001, PaletteOptions { bits: 6, ..PLAIN });
                near(0.0001, PaletteOptions { bits: 8, ..PLAIN });
                near(0.2, PaletteOptions { cluster_dim: 2, vector_axis: axis, ..PLAIN });
                near(0.2, PaletteOptions { cluster_dim: 2, vector_axis: axis, groups, ..PLAIN });
                near(
                    0.2,
                    PaletteOptions { cluster_dim: 4, bits: 8, vector_axis: axis, channel_scale: Some(axis), ..PLAIN },
                );
                let everywhere = (0..16).map(|i| (i as f32 - 7.5) * 0.02);
                near(0.05, PaletteOptions { method: PaletteMethod::Custom(everywhere.rev().collect()), ..PLAIN });
            }
        }
    }

    #[test]
    fn few_distinct_values_are_kept() {
        let values: Vec<f64> = (0..240).map(|i| f64::from(i % 5) * 0.5 - 1.0).collect();
        let w = Tensor::from_f64(DType::F16, &[12, 20], &values);
        let unique = PaletteOptions { method: PaletteMethod::Unique, bits: 0, ..PLAIN };
        for (o, dtype) in [
            (unique.clone(), DType::U3),
            (PaletteOptions { groups: Groups::Channels { axis: 0, size: 3 }, ..unique.clone() }, DType::U3),
            (PaletteOptions { cluster_dim: 2, vector_axis: 1, ..unique.clone() }, DType::U3),
            (PaletteOptions { bits: 8, ..PLAIN }, DType::U8),
            (PaletteOptions { channel_scale: Some(0), ..PLAIN }, DType::U4),
            (PaletteOptions { cluster_dim: 4, vector_axis: 1, ..PLAIN }, DType::U4),
        ] {
            assert_eq!(error(&w, &o), 0.0, "{o:?}");
            assert_eq!(palettize(&w, &o).expect("as above").indices.dtype(), dtype);
        }
        let many = weights(DType::F32, &[40, 20]);
        assert_eq!(
            refusal(&many, &unique),
            "more than 256 distinct values share a table, which is all that 8 bits tell apart"
        );
    }

    #[test]
    fn distinct_values_are_kept_however_near_and_many() {
        let unique = PaletteOptions { method: PaletteMethod::Unique, bits: 0, ..PLAIN };
        // Neighbours among singles, and values so small beside others that their squares vanish.
        for large in [0, 0x7800_0000] {
            let bits = |i: u32| if i < 128 { 1f32.to_bits() + i } else { large + i };
            let values =
                |count: u32, n: u32| (0..count).map(|i| f32::from_bits(bits(i * 7919 % n))).collect::<Vec<_>>();
            let zeros = vec![0f32; 1 << 16];
            for count in [1 << 10, 1 << 16] {
                let w = Tensor::from_vec(&[64, count as usize / 64], values(count, 256));
                for o in [
                    unique.clone(),
                    PaletteOptions { groups: Groups::Channels { axis: 0, size: 32 }, ..unique.clone() },
                    PaletteOptions { importance: Some(&zeros[..count as usize]), ..unique.clone() },
                ] {
                    let p = palettize(&w, &o).expect("256 values");
                    assert_eq!(decoded(&p, w.shape()), *w.to_f32(), "{count} {o:?}");
                }
                let w = Tensor::from_vec(&[64, count as usize / 64], values(count, 257));
                assert_eq!(refusal(&w, &unique), too_many().to_string(), "{count}");
                // Pairs along the rows, of which there are half as many.
                let w = Tensor::from_vec(&[64, count as usize / 64], values(count, 256));
                let pairs = PaletteOptions { cluster_dim: 2, vector_axis: 1, ..unique.clone() };
                let p = palettize(&w, &pairs).expect("256 pairs at most");
                assert_eq!(decoded(&p, w.shape()), *w.to_f32(), "{count} in pairs");
            }
        }
    }

    #[test]
    fn one_value_is_a_table_of_one() {
        for value in [0.0, -0.0, 1.5] {
            let w = Tensor::splat(DType::F16, &[4, 4], value);
            for method in [PaletteMethod::KMeans, PaletteMethod::Uniform, PaletteMethod::Unique] {
                for channel_scale in [None, Some(0)] {
                    assert_eq!(error(&w, &PaletteOptions { method: method.clone(), channel_scale, ..PLAIN }), 0.0);
                }
            }
        }
    }

    #[test]
    fn what_does_not_count_moves_nothing() {
        let values: Vec<f64> =
            (0..64).map(|i| if i % 2 == 0 { f64::from(i % 8) } else { 1000.0 + f64::from(i) }).collect();
        let w = Tensor::from_f64(DType::F32, &[8, 8], &values);
        let keep: Vec<bool> = (0..64).map(|i| i % 2 == 0).collect();
        let importance: Vec<f32> = keep.iter().map(|k| f32::from(u8::from(*k))).collect();
        for w in [w.cast(DType::F16), w] {
            for cluster_dim in [1, 2] {
                let o = PaletteOptions { bits: 2, cluster_dim, vector_axis: 0, ..PLAIN };
                for o in [
                    PaletteOptions { keep: Some(&keep), ..o.clone() },
                    PaletteOptions { importance: Some(&importance), ..o.clone() },
                ] {
                    let p = palettize(&w, &o).expect("fits");
                    let back = decoded(&p, w.shape());
                    let kept = w.to_f32().iter().zip(back).zip(&keep).filter(|(_, k)| **k).all(|((a, b), _)| *a == b);
                    assert!(kept, "{o:?}: {:?}", p.lut);
                }
            }
        }
    }

    #[test]
    fn extremes_do_no_harm() {
        for (dtype, large) in [(DType::F16, 65504.0), (DType::F32, f64::from(f32::MAX)), (DType::F32, 1e-42)] {
            let values: Vec<f64> = (0..128).map(|i| large * (f64::from(i * 37 % 128) / 63.5 - 1.0)).collect();
            let w = Tensor::from_f64(dtype, &[16, 8], &values);
            for method in [PaletteMethod::KMeans, PaletteMethod::Uniform] {
                for channel_scale in [None, Some(0)] {
                    for cluster_dim in [1, 2] {
                        let o = PaletteOptions { method: method.clone(), channel_scale, cluster_dim, bits: 6, ..PLAIN };
                        if let Ok(p) = palettize(&w, &o) {
                            let back = decoded(&p, w.shape());
                            let values = w.to_f32();
                            let far = values.iter().zip(back).map(|(a, b)| (f64::from(*a) - f64::from(b)).abs());
                            assert!(far.fold(0.0, f64::max) < large * 0.3, "{o:?} {:?}", p.lut);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn refusals_say_what_would_do() {
        let w = weights(DType::F32, &[50, 12]);
        let groups = |axis, size| PaletteOptions { groups: Groups::Channels { axis, size }, ..PLAIN };
        let cases = [
            (PaletteOptions { bits: 5, ..PLAIN }, "no indices of 5 bits; 1, 2, 3, 4, 6 and 8 there are"),
            (groups(0, 32), "groups of 32 do not divide the 50 channels of axis 0; 1, 2, 5, 10, 25 and 50 would"),
            (groups(0, 0), "groups of 0 do not divide the 50 channels of axis 0; 1, 2, 5, 10, 25 and 50 would"),
            (groups(2, 1), "no channel axis 2 in a weight of rank 2"),
            (
                PaletteOptions { cluster_dim: 4, ..PLAIN },
                "4 does not divide the 50 channels of axis 0; 1, 2 and 5 would",
            ),
            (PaletteOptions { cluster_dim: 2, ..groups(0, 5) }, "groups of 5 channels do not hold whole vectors of 2"),
            (PaletteOptions { cluster_dim: 9, ..PLAIN }, "no vectors of 9 elements; 1 to 8 there are"),
            (
                PaletteOptions { method: PaletteMethod::Uniform, cluster_dim: 2, ..PLAIN },
                "vectors have no evenly spaced values",
            ),
            (
                PaletteOptions { method: PaletteMethod::Custom(vec![0.0; 17]), ..PLAIN },
                "a table of 17 values, where 4 bits have at most 16 entries of 1",
            ),
            (
                PaletteOptions { method: PaletteMethod::Custom(vec![f32::NAN]), ..PLAIN },
                "value 0 of the table is not finite as f32",
            ),
            (PaletteOptions { keep: Some(&[true]), ..PLAIN }, "a mask of 1 elements for 600 weights"),
            (
                PaletteOptions { importance: Some(&[-1.0; 600]), ..PLAIN },
                "the importance of element 0 is -1, not 0 or more",
            ),
        ];
        for (o, want) in cases {
            assert_eq!(refusal(&w, &o), want);
        }
        for bad in [f64::NAN, f64::INFINITY] {
            assert_eq!(refusal(&Tensor::from_f64(DType::F16, &[2], &[0.0, bad]), &PLAIN), "element 1 is not finite");
        }
    }
}
