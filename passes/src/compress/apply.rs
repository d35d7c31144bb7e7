//! From a scheme to tensors: prunes, codes, and falls back where sizes do not fit, saying so.

use super::{
    Refusal, Role,
    aware::{self, Inputs},
    linear::{Granularity, LinearOptions, Quantized, RangeMethod, quantize},
    palette::{self, Groups, PaletteMethod, PaletteOptions, palettize},
    prune::{Pruning, keep, mask, sparse, taken},
    scheme::{Along, Code, Entries, Linear, PALETTE_BITS, Palette, Prune, Range, Scheme, Share},
};
use mlconv_tensor::{DType, Tensor};

/// A compressed weight.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// What was done, which is what was asked for unless `adapted` says why not.
    pub scheme: Scheme,
    /// Why something else was done.
    pub adapted: Option<String>,
    /// How many inputs had a say in the codes; `None` where it was asked for and could not be, or was not asked for.
    pub aware_of: Option<u64>,
    /// `u1`, of the shape of the weight: which elements there are; all, where absent.
    pub mask: Option<Tensor>,
    /// The elements that there are, coded.
    pub coded: Coded,
}

/// Coded elements; where there is a mask, in a vector.
#[expect(clippy::large_enum_variant, reason = "there is one for each weight, which is much larger")]
#[derive(Clone, Debug)]
pub enum Coded {
    /// As they were.
    Plain(Tensor),
    /// Integers, scales and offsets.
    Linear(Quantized),
    /// Indices and tables; the entries are integers on a scale where that is given.
    Palette {
        /// Indices and table.
        palette: palette::Palette,
        /// The table as integers, of the rank of the table.
        lut: Option<Quantized>,
    },
}

/// What is known of a weight beside its elements.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knowledge<'a> {
    /// What its inputs are like, so that the error of outputs is small, and not only that of elements.
    pub inputs: Option<&'a Inputs>,
}

/// Compresses `w`.
pub fn compress_tensor(w: &Tensor, role: Role, scheme: &Scheme, known: Knowledge<'_>) -> Result<Compressed, Refusal> {
    let mut kept = scheme.prune.map(|p| keep(w, &pruning(p, role))).transpose()?;
    let zeros;
    let w = match kept.as_mut().filter(|kept| !kept.contains(&true)).and_then(|kept| kept.first_mut()) {
        None => w,
        // A vector of no elements is no constant of Core ML, so a weight of which nothing stays lists one zero.
        Some(first) => {
            *first = true;
            zeros = Tensor::splat(w.dtype(), w.shape(), 0.0);
            &zeros
        }
    };
    let kept = kept.as_deref();
    let (mask, plain) = match kept {
        Some(kept) if scheme.code.is_none() => {
            let (mask, nonzero) = sparse(w, kept)?;
            (Some(mask), nonzero)
        }
        // Codes take the place of the elements.
        Some(kept) => (Some(mask(w.shape(), kept)?), w.clone()),
        None => (None, w.clone()),
    };
    let mut done =
        Compressed { scheme: scheme.clone(), adapted: None, aware_of: None, mask, coded: Coded::Plain(plain) };
    let importance = match &scheme.code {
        // Clusters of vectors came out worse by it: measured on the outputs of small networks.
        Some(Code::Palette(p)) if p.vector > 1 => None,
        Some(_) => known.inputs.and_then(|i| i.importance(w.shape(), role)),
        None => None,
    };
    match &scheme.code {
        None => {}
        Some(Code::Linear(l)) => {
            let (l, why) = fitting_blocks(l, w.shape(), role);
            done.adapted = why;
            let options = LinearOptions {
                dtype: l.dtype,
                symmetric: l.symmetric,
                granularity: Granularity::Boxes(boxes(&l.share, w.shape(), role)?),
                range: match l.range {
                    Range::MinMax => RangeMethod::MinMax,
                    Range::Mse => RangeMethod::Mse,
                },
                importance: importance.as_deref(),
                keep: kept,
            };
            let by_inputs = known.inputs.and_then(|i| Some((aware::quantize(w, role, &options, i).ok()?, i.rows)));
            let mut q = match by_inputs {
                Some((q, rows)) => {
                    done.aware_of = Some(rows);
                    q
                }
                None => quantize(w, &options)?,
            };
            if let Some(kept) = kept {
                q.data = taken(&q.data, kept)?;
            }
            done.coded = Coded::Linear(q);
            done.scheme.code = Some(Code::Linear(l));
        }
        Some(Code::Palette(p)) => {
            if p.vector > 1 && kept.is_some() {
                return Err(Refusal::new("a mask is one of elements, so a pruned weight has no vectors"));
            }
            let (p, why) = fitting_groups(p, w.shape(), role)?;
            done.adapted = why;
            done.aware_of = known.inputs.filter(|_| importance.is_some()).map(|i| i.rows);
            let (palette, lut) = palettized(w, role, &p, known, importance.as_deref(), kept)?;
            done.coded = Coded::Palette { palette, lut };
            done.scheme.code = Some(Code::Palette(p));
        }
    }
    Ok(done)
}

/// Bytes that [`compress_tensor`] takes for `w` at most, about, with those of the result.
pub fn working_memory(w: &Tensor, role: Role, scheme: &Scheme, aware: bool) -> u64 {
    let (count, bytes) = (w.count() as u64, w.blob().len() as u64);
    let single = w.dtype() == DType::F32;
    // A byte per mark, bits of a mask, and what finds the least elements.
    let marks = scheme.prune.map_or(0, |p| {
        count
            + count / 8
            + match p {
                // Singles are sorted; halves are counted.
                Prune::Sparsity(_) if single => bytes,
                // A norm and a key per run.
                Prune::Block { size, .. } => count / size.max(1) as u64 * 16,
                Prune::Sparsity(_) | Prune::Threshold(_) | Prune::NofM { .. } => 0,
            }
    });
    let coded = |bits: u64| (count * bits).div_ceil(8) * if scheme.prune.is_some() { 2 } else { 1 };
    let work = match &scheme.code {
        None => (bytes as f64 * scheme.prune.map_or(0.0, stays)) as u64,
        Some(Code::Linear(l)) => {
            let sizes = boxes(&l.share, w.shape(), role).unwrap_or_default();
            let sizes = sizes.iter().zip(w.shape()).map(|(size, n)| if *size == 0 { *n } else { (*size).min(*n) });
            let len = sizes.map(|n| n as u64).product::<u64>().max(1);
            // Blocks as singles, where more than their range matters.
            let whole = l.range == Range::Mse || !l.symmetric || scheme.prune.is_some();
            let threads = rayon::current_num_threads() as u64;
            let singles = if whole { (len * threads).min(count) * 6 } else { 0 };
            coded(l.dtype.bits().into()) + count / len * AFFINE + singles
        }
        Some(Code::Palette(p)) => {
            // Halves are counted where they lie; all else has copies, and vectors several.
            let plain = !single && !p.channel_scale && p.vector == 1;
            coded(8.min(p.bits.unwrap_or(8).into())) + if plain { 0 } else { count * if p.vector > 1 { 12 } else { 6 } }
        }
    };
    // Importances, the rows in the order of their inputs, and their errors.
    let inputs = if aware { count * 13 } else { 0 };
    let read = if w.blob().is_stored() { 0 } else { bytes };
    marks + work + inputs + read
}

/// The part of the elements that stays, at most.
fn stays(p: Prune) -> f64 {
    match p {
        Prune::Sparsity(part) | Prune::Block { sparsity: part, .. } => 1.0 - part,
        Prune::NofM { n, m, .. } => n as f64 / m.max(1) as f64,
        Prune::Threshold(_) => 1.0,
    }
}

/// Bytes of the parameters of a block, while they are sought and as they are stored.
const AFFINE: u64 = 16 + 4;

fn pruning(p: Prune, role: Role) -> Pruning {
    let axis = |along| match along {
        Along::Output => role.output,
        Along::Input => role.input,
    };
    match p {
        Prune::Sparsity(part) => Pruning::Sparsity(part),
        Prune::Threshold(t) => Pruning::Threshold(t),
        // The scheme says how many stay, the kernel is told how many go.
        Prune::NofM { n, m, along } => Pruning::NofM { n: m.saturating_sub(n), m, axis: axis(along) },
        Prune::Block { sparsity, size, along } => Pruning::Block { sparsity, size, axis: axis(along) },
    }
}

fn palettized(
    w: &Tensor,
    role: Role,
    p: &Palette,
    known: Knowledge<'_>,
    importance: Option<&[f32]>,
    kept: Option<&[bool]>,
) -> Result<(palette::Palette, Option<Quantized>), Refusal> {
    let (axis, vector_axis) = group_axis(p, w.shape(), role)?;
    let mut options = PaletteOptions {
        bits: p.bits.unwrap_or(8),
        method: match &p.entries {
            Entries::KMeans => PaletteMethod::KMeans,
            Entries::Uniform => PaletteMethod::Uniform,
            Entries::Unique => PaletteMethod::Unique,
            Entries::Custom(table) => PaletteMethod::Custom(table.clone()),
        },
        groups: p.group.map_or(Groups::Tensor, |size| Groups::Channels { axis, size }),
        cluster_dim: p.vector,
        vector_axis,
        channel_scale: p.channel_scale.then_some(role.output),
        importance,
        keep: kept,
    };
    let mut palette = palettize(w, &options)?;
    let mut lut = None;
    if let Some(dtype) = p.lut_dtype {
        // One scale for all tables: Core ML takes no other.
        let whole = LinearOptions {
            dtype,
            symmetric: dtype == DType::I8,
            granularity: Granularity::Tensor,
            range: RangeMethod::MinMax,
            importance: None,
            keep: None,
        };
        let coded = quantize(&palette.lut, &whole)?;
        if options.groups == Groups::Tensor && p.vector == 1 {
            // The nearest entry may be another one, now that entries have moved.
            options.method = PaletteMethod::Custom(coded.decoded());
            options.bits = palette.indices.dtype().bits() as u8;
            palette = palette::Palette { lut: palette.lut, ..palettize(w, &options)? };
        }
        lut = Some(coded);
    }
    if let Some(inputs) = known.inputs.filter(|_| lut.is_none()) {
        // Where that cannot be, each element has the entry that is nearest.
        let _ = aware::reassign(w, role, &mut palette, &options, inputs);
    }
    if let Some(kept) = kept {
        palette.indices = taken(&palette.indices, kept)?;
    }
    Ok((palette, lut))
}

/// The sizes of the boxes that share a scale.
fn boxes(share: &Share, shape: &[usize], role: Role) -> Result<Vec<usize>, Refusal> {
    let mut sizes = vec![0; shape.len()];
    match share {
        Share::Tensor => {}
        Share::Channel => sizes[role.output] = 1,
        Share::Block(n) => {
            sizes[role.output] = 1;
            sizes[role.input] = *n;
        }
        Share::Blocks(own) if own.len() == shape.len() => sizes.clone_from(own),
        Share::Blocks(own) => {
            return Err(Refusal::new(format!("{} sizes of a block are given for {} axes", own.len(), shape.len())));
        }
    }
    Ok(sizes)
}

/// Blocks that divide the input channels; the nearest, with a word, where those asked for do not.
fn fitting_blocks(l: &Linear, shape: &[usize], role: Role) -> (Linear, Option<String>) {
    let Share::Block(want) = l.share else { return (l.clone(), None) };
    let channels = shape[role.input];
    if channels.is_multiple_of(want) {
        return (l.clone(), None);
    }
    let (share, what) = match nearest_divisor(channels, want) {
        Some(n) => (Share::Block(n), format!("blocks of {n}")),
        None => (Share::Channel, "a scale per output channel".to_owned()),
    };
    let why = format!("{want} does not divide {channels} input channels: {what}");
    (Linear { share, ..l.clone() }, Some(why))
}

/// The axis of groups, and that of vectors.
fn group_axis(p: &Palette, shape: &[usize], role: Role) -> Result<(usize, usize), Refusal> {
    match p.channel_axis {
        None if p.input_groups => Ok((role.input, role.output)),
        None => Ok((role.output, role.output)),
        Some(axis) if axis < shape.len() => Ok((axis, axis)),
        Some(axis) => Err(Refusal::new(format!("there is no axis {axis} among {}", shape.len()))),
    }
}

/// Groups that divide the channels; the nearest, with a word, where those asked for do not.
fn fitting_groups(p: &Palette, shape: &[usize], role: Role) -> Result<(Palette, Option<String>), Refusal> {
    if p.bits.is_some_and(|b| !PALETTE_BITS.contains(&b)) {
        return Err(Refusal::new("an index has 1, 2, 3, 4, 6 or 8 bits"));
    }
    let (axis, vector_axis) = group_axis(p, shape, role)?;
    let kind = |axis: usize| match axis {
        _ if axis == role.output => "output channels".to_owned(),
        _ if axis == role.input => "input channels".to_owned(),
        _ => format!("slices of axis {axis}"),
    };
    if p.vector > 1 && !shape[vector_axis].is_multiple_of(p.vector) {
        let (n, kind) = (shape[vector_axis], kind(vector_axis));
        return Err(Refusal::new(format!("vectors of {} do not divide {n} {kind}", p.vector)));
    }
    let Some(want) = p.group else { return Ok((p.clone(), None)) };
    let (channels, kind) = (shape[axis], kind(axis));
    let fits = |n: usize| channels.is_multiple_of(n) && (axis != vector_axis || n.is_multiple_of(p.vector));
    if fits(want) {
        return Ok((p.clone(), None));
    }
    let (group, what) = match nearest_divisor(channels, want).filter(|n| fits(*n)) {
        Some(n) => (Some(n), format!("groups of {n}")),
        None => (None, "one table".to_owned()),
    };
    let why = format!("{want} does not divide {channels} {kind}: {what}");
    Ok((Palette { group, ..p.clone() }, Some(why)))
}

/// The divisor of `n` nearest to `want` by ratio, within a factor of two; the smaller of two that are alike.
fn nearest_divisor(n: usize, want: usize) -> Option<usize> {
    let ratio = |d: usize| (d as f64 / want as f64).ln().abs();
    (want.div_ceil(2)..=want.saturating_mul(2).min(n))
        .filter(|d| n.is_multiple_of(*d))
        .min_by(|a, b| ratio(*a).total_cmp(&ratio(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_do_not_divide_become_the_nearest_that_do() {
        for (n, want, found) in
            [(200, 32, Some(40)), (48, 32, Some(24)), (3, 32, None), (1000, 64, Some(50)), (97, 32, None)]
        {
            assert_eq!(nearest_divisor(n, want), found, "{n} {want}");
        }
    }

    #[test]
    fn a_weight_of_which_nothing_stays_lists_one_zero() {
        let role = Role { output: 0, input: 1 };
        for dtype in [DType::F16, DType::F32] {
            for (value, scheme) in [
                (0.0, "prune50"),
                (0.0, "prune2:4"),
                (0.0, "prune50+int8"),
                (0.0, "prune50+uint4-b8"),
                (0.0, "prune50+pal4-g2"),
                (0.0, "prune50+pal-unique"),
                (0.5, "prune-t1"),
                (0.5, "prune-t1+int8"),
                (0.5, "prune-t1+pal2"),
            ] {
                let w = Tensor::splat(dtype, &[4, 16], value);
                let parsed = Scheme::parse(scheme).expect("a scheme");
                let c = compress_tensor(&w, role, &parsed, Knowledge::default()).expect("it fits");
                let marks: i64 = c.mask.as_ref().map_or(0, |m| m.to_i64().iter().sum());
                let listed = match &c.coded {
                    Coded::Plain(t) => t.count(),
                    Coded::Linear(q) => q.data.count(),
                    Coded::Palette { palette, .. } => palette.indices.count(),
                };
                assert_eq!((marks, listed), (1, 1), "{dtype} {scheme}");
                assert!(c.decoded(w.shape()).iter().all(|x| *x == 0.0), "{dtype} {scheme}");
            }
        }
    }

    #[test]
    fn memory_follows_the_scheme() {
        let [halves, singles] = [DType::F16, DType::F32].map(|d| Tensor::splat(d, &[64, 1024], 1.0));
        for (w, scheme, bytes) in [
            (&halves, "int8", 1.02),
            (&halves, "int4-b32", 0.5 + 20.0 / 32.0),
            (&halves, "pal4", 0.5),
            (&halves, "prune75", 1.125 + 0.5),
            (&singles, "prune75", 1.125 + 4.0 + 1.0),
            (&singles, "prune-t0.1", 1.125 + 4.0),
            (&halves, "prune50+pal4", 1.125 + 1.0),
        ] {
            let parsed = Scheme::parse(scheme).expect("a scheme");
            let found = working_memory(w, Role { output: 0, input: 1 }, &parsed, false) as f64 / 65536.0;
            assert!((found - bytes).abs() <= 0.15, "{scheme} of {w:?}: {found} bytes an element");
        }
    }
}
