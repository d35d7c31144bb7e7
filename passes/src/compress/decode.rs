//! What a compressed weight decodes to: the arithmetic of the `constexpr_*` ops, fast, to measure by.
//!
//! A few elements at a time: what a thread works on stays in the first cache, and no tensor is held as a whole.

use super::{
    apply::{Coded, Compressed},
    blocks::Walk,
    linear::Quantized,
    measure::{Distortion, PART, Sums},
    palette::Palette,
};
use half::slice::HalfFloatSliceExt;
use mlconv_tensor::{DType, Simd, Tensor, WithSimd, f16, vectorized};
use rayon::prelude::*;
use std::{borrow::Cow, ops::Range};

/// Elements decoded at a time: whole bytes of codes of any width, and a part of the sums in whole pieces.
const PIECE: usize = 1 << 11;

impl Compressed {
    /// The decoded elements of a weight of shape `shape`, in the type that they have in the program.
    pub fn decoded(&self, shape: &[usize]) -> Vec<f32> {
        let mut out = vec![0.0; shape.iter().product()];
        let decoder = Decoder::new(self, shape);
        out.par_chunks_mut(PART).enumerate().for_each_init(Scratch::default, |scratch, (i, part)| {
            for (k, piece) in part.chunks_mut(PIECE).enumerate() {
                decoder.fill(i * PART + k * PIECE, piece, scratch);
            }
        });
        out
    }

    /// How far the decoded elements are from those of `w`.
    pub(super) fn distortion(&self, w: &Tensor) -> Distortion {
        let elements = Elements::of(w);
        let decoder = match (&self.coded, &self.mask) {
            // The elements that a mask keeps are those of the weight.
            (Coded::Plain(_), Some(mask)) => Decoder { kept: Some(Kept::of(mask)), source: Source::Weight },
            _ => Decoder::new(self, w.shape()),
        };
        let mut sums = Sums::default();
        sums.add_parts(w.count(), |part, lanes| {
            let mut scratch = Scratch::default();
            let (mut wide, mut decoded) = ([0f32; PIECE], [0f32; PIECE]);
            for start in part.clone().step_by(PIECE) {
                let range = start..(start + PIECE).min(part.end);
                let (wide, decoded) = (&mut wide[..range.len()], &mut decoded[..range.len()]);
                elements.fill(range, wide);
                if matches!(decoder.source, Source::Weight) {
                    decoded.copy_from_slice(wide);
                }
                decoder.fill(start, decoded, &mut scratch);
                lanes.add(wide, decoded);
            }
        });
        sums.distortion()
    }
}

/// What a thread works with.
struct Scratch {
    /// The codes of a piece, and one more.
    codes: [u8; PIECE + 1],
    /// Those of them that a mask keeps.
    dense: [u8; PIECE + 1],
    halves: [f16; PIECE],
}

impl Default for Scratch {
    fn default() -> Self {
        Self { codes: [0; PIECE + 1], dense: [0; PIECE + 1], halves: [f16::ZERO; PIECE] }
    }
}

/// Decodes any piece of a weight.
struct Decoder<'a> {
    kept: Option<Kept<'a>>,
    source: Source<'a>,
}

enum Source<'a> {
    /// The weight itself.
    Weight,
    Plain(Elements<'a>),
    Linear(Affines<'a>),
    Palette(Table<'a>),
}

impl<'a> Decoder<'a> {
    fn new(c: &'a Compressed, shape: &[usize]) -> Self {
        let source = match &c.coded {
            Coded::Plain(t) => Source::Plain(Elements::of(t)),
            Coded::Linear(q) => Source::Linear(Affines::new(q, shape)),
            Coded::Palette { palette, lut } => Source::Palette(Table::new(palette, lut.as_ref(), shape)),
        };
        Self { kept: c.mask.as_ref().map(Kept::of), source }
    }

    /// Decodes the elements from `start`, a multiple of [`PIECE`], as many as `out` holds, at most [`PIECE`].
    fn fill(&self, start: usize, out: &mut [f32], scratch: &mut Scratch) {
        let range = start..start + out.len();
        match &self.source {
            Source::Weight => {}
            Source::Plain(elements) => match &self.kept {
                None => elements.fill(range.clone(), out),
                Some(kept) => {
                    let mut dense = [0f32; PIECE + 1];
                    let ranks = kept.ranks(range.clone());
                    elements.fill(ranks.clone(), &mut dense[..ranks.len()]);
                    kept.spread(range.clone(), &dense, out);
                }
            },
            Source::Linear(affines) => {
                affines.codes.fill_kept(range.clone(), self.kept.as_ref(), scratch);
                affines.decode(range.clone(), &scratch.codes, out, &mut scratch.halves);
            }
            Source::Palette(table) => table.decode(range.clone(), self.kept.as_ref(), out, scratch),
        }
        if let Some(kept) = &self.kept {
            kept.clear(range, out);
        }
    }
}

/// Elements of floats.
enum Elements<'a> {
    Halves(Cow<'a, [f16]>),
    Singles(Cow<'a, [f32]>),
}

impl<'a> Elements<'a> {
    fn of(t: &'a Tensor) -> Self {
        t.view::<f16>().map_or_else(|| Self::Singles(t.to_f32()), Self::Halves)
    }

    /// Widens some of them; what there is not is 0.
    fn fill(&self, range: Range<usize>, out: &mut [f32]) {
        let there = match self {
            Self::Halves(v) => v.get(range).map(|v| v.convert_to_f32_slice(out)),
            Self::Singles(v) => v.get(range).map(|v| out.copy_from_slice(v)),
        };
        if there.is_none() {
            out.fill(0.0);
        }
    }
}

/// Which elements a mask keeps.
struct Kept<'a> {
    bits: Cow<'a, [u8]>,
    /// How many are kept before each piece, and in all.
    before: Vec<usize>,
}

impl<'a> Kept<'a> {
    fn of(mask: &'a Tensor) -> Self {
        let bits = mask.blob().read();
        let counts: Vec<usize> =
            bits.par_chunks(PIECE / 8).map(|b| b.iter().map(|b| b.count_ones() as usize).sum()).collect();
        let mut before = vec![0];
        before.extend(counts.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        }));
        Self { bits, before }
    }

    /// Which of the elements that are kept lie in a piece.
    fn ranks(&self, piece: Range<usize>) -> Range<usize> {
        let at = |i: usize| self.before.get(i).or(self.before.last()).copied().unwrap_or(0);
        at(piece.start / PIECE)..at(piece.start / PIECE + 1)
    }

    fn bytes(&self, piece: &Range<usize>) -> &[u8] {
        self.bits.get(piece.start / 8..).unwrap_or_default()
    }

    /// Puts the elements of a piece that are kept, which `dense` holds and one more, where they belong.
    fn spread<T: Copy>(&self, piece: Range<usize>, dense: &[T], out: &mut [T]) {
        let mut at = 0;
        for (out, byte) in out.chunks_mut(8).zip(self.bytes(&piece)) {
            for (i, to) in out.iter_mut().enumerate() {
                // What is not kept gets any: a branch would cost more.
                if let Some(x) = dense.get(at) {
                    *to = *x;
                }
                at += usize::from(byte >> i & 1);
            }
        }
    }

    /// Sets to zero what is not kept.
    fn clear(&self, piece: Range<usize>, out: &mut [f32]) {
        vectorized(Clear { bytes: self.bytes(&piece), out });
    }
}

/// Sets to zero the elements whose bits are.
struct Clear<'a> {
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl WithSimd for Clear<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const BITS: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
        let (eights, rest) = self.out.as_chunks_mut::<8>();
        let last = self.bytes.get(eights.len());
        for (eight, byte) in eights.iter_mut().zip(self.bytes) {
            for (x, bit) in eight.iter_mut().zip(BITS) {
                let all = if u32::from(*byte) & bit == 0 { 0 } else { u32::MAX };
                *x = f32::from_bits(x.to_bits() & all);
            }
        }
        if let Some(byte) = last {
            rest.iter_mut().zip(BITS).filter(|(_, bit)| u32::from(*byte) & bit == 0).for_each(|(x, _)| *x = 0.0);
        }
    }
}

/// Codes of 1 to 8 bits.
struct Codes<'a> {
    bytes: Cow<'a, [u8]>,
    bits: usize,
    count: usize,
    dtype: DType,
}

impl<'a> Codes<'a> {
    fn of(t: &'a Tensor) -> Self {
        Self { bytes: t.blob().read(), bits: t.dtype().bits() as usize, count: t.count(), dtype: t.dtype() }
    }

    /// The codes of a piece, dense or as a mask has them, to `scratch.codes`.
    fn fill_kept(&self, range: Range<usize>, kept: Option<&Kept<'_>>, scratch: &mut Scratch) {
        let Some(kept) = kept else {
            let count = range.len().min(PIECE);
            return self.fill(range, &mut scratch.codes[..count]);
        };
        let (ranks, count) = (kept.ranks(range.clone()), range.len().min(PIECE));
        let found = ranks.len().min(PIECE);
        self.fill(ranks, &mut scratch.dense[..found]);
        kept.spread(range, &scratch.dense, &mut scratch.codes[..count]);
    }

    /// Some codes, a byte each.
    fn fill(&self, range: Range<usize>, out: &mut [u8]) {
        let start = range.start.min(self.count);
        let at = start * self.bits;
        let bytes = self.bytes.get(at / 8..).unwrap_or_default();
        match self.bits {
            8 => out.iter_mut().zip(bytes).for_each(|(y, x)| *y = *x),
            4 if at.is_multiple_of(8) => {
                let (pairs, rest) = out.as_chunks_mut::<2>();
                let beyond = bytes.get(pairs.len());
                pairs.iter_mut().zip(bytes).for_each(|(pair, byte)| *pair = [byte & 15, byte >> 4]);
                if let ([last], Some(byte)) = (rest, beyond) {
                    *last = byte & 15;
                }
            }
            bits if at.is_multiple_of(8) => {
                // Eight codes are whole bytes.
                for (eight, bytes) in out.chunks_mut(8).zip(bytes.chunks(bits)) {
                    let mut word = [0; 8];
                    word[..bytes.len()].copy_from_slice(bytes);
                    let word = u64::from_le_bytes(word);
                    for (i, y) in eight.iter_mut().enumerate() {
                        *y = (word >> (i * bits)) as u8 & ((1u16 << bits) - 1) as u8;
                    }
                }
            }
            _ => {
                // From a place where bytes begin with a code.
                let before = start % 8;
                let mut more = [0; PIECE + 8];
                let more = &mut more[..before + out.len()];
                self.fill(start - before..range.end, more);
                out.copy_from_slice(&more[before..]);
                return;
            }
        }
        if self.dtype == DType::I4 {
            // Four bits with a sign.
            out.iter_mut().for_each(|x| *x = ((*x << 4) as i8 >> 4) as u8);
        }
    }
}

/// Integers on scales.
struct Affines<'a> {
    codes: Codes<'a>,
    walk: Walk,
    scale: Cow<'a, [f32]>,
    /// Zeros where there are none.
    offset: Vec<f32>,
    half: bool,
}

impl<'a> Affines<'a> {
    fn new(q: &'a Quantized, shape: &[usize]) -> Self {
        let scale = q.scale.to_f32();
        let offset = q.offset.as_ref().map_or_else(|| vec![0.0; scale.len()], |o| o.to_f32().into_owned());
        let walk = Walk::new(shape, q.scale.shape());
        Self { codes: Codes::of(&q.data), walk, scale, offset, half: q.scale.dtype() == DType::F16 }
    }

    fn decode(&self, range: Range<usize>, codes: &[u8], out: &mut [f32], halves: &mut [f16]) {
        if matches!(self.codes.dtype, DType::I8 | DType::I4) {
            out.iter_mut().zip(codes).for_each(|(y, c)| *y = f32::from(*c as i8));
        } else {
            out.iter_mut().zip(codes).for_each(|(y, c)| *y = f32::from(*c));
        }
        self.walk.runs(range, |part, first| {
            let out = &mut out[part];
            if self.walk.in_steps() {
                let params = self.scale[first..].iter().zip(&self.offset[first..]);
                out.iter_mut().zip(params).for_each(|(y, (scale, offset))| *y = scale * (*y - offset));
            } else {
                let (scale, offset) = (self.scale[first], self.offset[first]);
                out.iter_mut().for_each(|y| *y = scale * (*y - offset));
            }
        });
        if self.half {
            rounded(out, halves);
        }
    }
}

/// Rounds to half precision.
fn rounded(values: &mut [f32], halves: &mut [f16]) {
    for (values, halves) in values.chunks_mut(PIECE).zip(halves.chunks_mut(PIECE)) {
        let halves = &mut halves[..values.len()];
        halves.convert_from_f32_slice(values);
        halves.convert_to_f32_slice(values);
    }
}

/// Indices of entries of tables, and what these are multiplied by.
struct Table<'a> {
    codes: Codes<'a>,
    walk: Walk,
    values: Cow<'a, [f32]>,
    entries: usize,
    /// Elements of an entry.
    len: usize,
    /// Elements from one of an entry to the next.
    step: usize,
    scale: Option<(Walk, Cow<'a, [f32]>, bool)>,
}

impl<'a> Table<'a> {
    fn new(p: &'a Palette, lut: Option<&Quantized>, shape: &[usize]) -> Self {
        let values = lut.map_or_else(|| p.lut.to_f32(), |q| Cow::Owned(q.decoded()));
        let (groups, entries, len) = match p.lut.shape() {
            [groups @ .., entries, len] => (groups, *entries, (*len).max(1)),
            _ => (&[][..], 0, 1),
        };
        let mut indices = shape.to_vec();
        if let Some(n) = p.vector_axis.and_then(|axis| indices.get_mut(axis)) {
            *n /= len;
        }
        Self {
            codes: Codes::of(&p.indices),
            walk: Walk::new(&indices, groups),
            values,
            entries,
            len,
            step: p.vector_axis.and_then(|axis| shape.get(axis + 1..)).map_or(1, |inner| inner.iter().product()),
            scale: p.scale.as_ref().map(|s| (Walk::new(shape, s.shape()), s.to_f32(), s.dtype() == DType::F16)),
        }
    }

    fn decode(&self, range: Range<usize>, kept: Option<&Kept<'_>>, out: &mut [f32], scratch: &mut Scratch) {
        if self.len == 1 {
            self.codes.fill_kept(range.clone(), kept, scratch);
            self.look_up(range.clone(), 0, &scratch.codes, out);
        } else if self.step == 1 {
            self.decode_vectors(range.clone(), out, scratch);
        } else {
            self.decode_rows(range.clone(), out, scratch);
        }
        if let Some((walk, scale, half)) = &self.scale {
            walk.runs(range, |part, first| {
                let out = &mut out[part];
                if walk.in_steps() {
                    out.iter_mut().zip(&scale[first..]).for_each(|(y, s)| *y *= s);
                } else {
                    out.iter_mut().for_each(|y| *y *= scale[first]);
                }
            });
            if *half {
                rounded(out, &mut scratch.halves);
            }
        }
    }

    /// The elements `k` of the entries of codes `range`.
    fn look_up(&self, range: Range<usize>, k: usize, codes: &[u8], out: &mut [f32]) {
        let (size, steps) = (self.entries * self.len, self.walk.in_steps());
        self.walk.runs(range, |part, first| {
            let pairs = out[part.clone()].iter_mut().zip(&codes[part]);
            let tables = self.values.get(first * size + k..).unwrap_or_default();
            if steps {
                for ((y, code), table) in pairs.zip(tables.chunks(size.max(1))) {
                    *y = table.get(usize::from(*code) * self.len).copied().unwrap_or(0.0);
                }
            } else {
                pairs.for_each(|(y, code)| *y = tables.get(usize::from(*code) * self.len).copied().unwrap_or(0.0));
            }
        });
    }

    /// Where the elements of a vector follow each other.
    fn decode_vectors(&self, range: Range<usize>, out: &mut [f32], scratch: &mut Scratch) {
        let codes = range.start / self.len..range.end.div_ceil(self.len);
        let count = codes.len();
        self.codes.fill(codes.clone(), &mut scratch.codes[..count]);
        let mut values = [0f32; PIECE + 1];
        for k in 0..self.len {
            self.look_up(codes.clone(), k, &scratch.codes[..count], &mut values[..count]);
            // The first code that has its element `k` in the range, and where that is.
            let (skip, at) = match k.checked_sub(range.start % self.len) {
                Some(at) => (0, at),
                None => (1, self.len + k - range.start % self.len),
            };
            let places = out.iter_mut().skip(at).step_by(self.len);
            places.zip(&values[skip..count]).for_each(|(y, x)| *y = *x);
        }
    }

    /// Where the elements of a vector lie in rows one below the other.
    fn decode_rows(&self, range: Range<usize>, out: &mut [f32], scratch: &mut Scratch) {
        let mut at = range.start;
        while at < range.end {
            let (row, skip) = (at / self.step, at % self.step);
            let end = (at + self.step - skip).min(range.end);
            let first = row / self.len * self.step + skip;
            let (codes, count) = (first..first + end - at, end - at);
            self.codes.fill(codes.clone(), &mut scratch.codes[..count]);
            let out = &mut out[at - range.start..end - range.start];
            self.look_up(codes, row % self.len, &scratch.codes[..count], out);
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::{Knowledge, Role, Scheme, compress_tensor};
    use mlconv_tensor::strides;

    const SCHEMES: [&str; 22] = [
        "int8",
        "uint8-tensor",
        "int4-b4",
        "uint4-b4-asym",
        "pal4",
        "pal1",
        "pal2-g2",
        "pal3-g3-in",
        "pal6",
        "pal8-g4",
        "pal4-v2",
        "pal2-v3",
        "pal3-v2-g4",
        "pal4-scale",
        "pal4-lut8",
        "pal4-g4-scale",
        "prune40",
        "prune30+int8",
        "prune50+int4-b4",
        "prune50+pal3",
        "prune2:4+pal6-g2",
        "prune60+uint8-asym",
    ];

    /// An element, by the formulas.
    fn decoded(c: &Compressed, shape: &[usize], element: usize) -> f32 {
        let places: Vec<usize> = shape.iter().zip(&strides(shape)).map(|(n, step)| element / step % n).collect();
        let block = |places: &[usize], shape: &[usize], counts: &[usize]| -> usize {
            let among = places.iter().zip(shape).zip(counts).map(|((at, n), count)| at / (n / count));
            among.zip(&strides(counts)).map(|(at, step)| at * step).sum()
        };
        let mask = c.mask.as_ref().map(Tensor::to_bools);
        if mask.as_ref().is_some_and(|m| !m[element]) {
            return 0.0;
        }
        let dense = |at: usize| mask.as_ref().map_or(at, |m| m[..at].iter().filter(|k| **k).count());
        let half = |y: f32| f16::from_f32(y).to_f32();
        match &c.coded {
            Coded::Plain(t) => t.to_f32()[dense(element)],
            Coded::Linear(q) => {
                let block = block(&places, shape, q.scale.shape());
                let zero = q.offset.as_ref().map_or(0, |o| o.to_i64()[block]);
                half(q.scale.to_f32()[block] * (q.data.to_i64()[dense(element)] - zero) as f32)
            }
            Coded::Palette { palette: p, lut } => {
                let [groups @ .., entries, len] = p.lut.shape() else { panic!("a table") };
                let (mut at, mut indices, mut k) = (places.clone(), shape.to_vec(), 0);
                if let Some(axis) = p.vector_axis {
                    (at[axis], k) = (at[axis] / len, at[axis] % len);
                    indices[axis] /= len;
                }
                let index: usize = at.iter().zip(&strides(&indices)).map(|(at, step)| at * step).sum();
                let code = p.indices.to_i64()[dense(index)] as usize;
                let table = lut.as_ref().map_or_else(|| p.lut.to_f32().into_owned(), Quantized::decoded);
                let y = table[(block(&at, &indices, groups) * entries + code) * len + k];
                p.scale.as_ref().map_or(y, |s| half(y * s.to_f32()[block(&places, shape, s.shape())]))
            }
        }
    }

    #[test]
    fn pieces_are_decoded_as_the_formulas_say() {
        let conv = (vec![12, 24, 3, 5], Role { output: 0, input: 1 });
        let matrix = (vec![36, 120], Role { output: 1, input: 0 });
        let transposed = (vec![24, 36, 5, 1], Role { output: 1, input: 0 });
        for ((shape, role), scheme) in [conv, matrix, transposed].iter().flat_map(|m| SCHEMES.map(|s| (m, s))) {
            let count: usize = shape.iter().product();
            let values = (0..count).map(|i| f16::from_f32((i as f32 * 0.37).sin() * (1.0 + (i % 7) as f32)));
            let w = Tensor::from_vec(shape, values.collect());
            let parsed = Scheme::parse(scheme).expect("a scheme");
            let c = compress_tensor(&w, *role, &parsed, Knowledge::default()).expect("a weight");
            let all = c.decoded(shape);
            for i in (0..count).step_by(7).chain([PIECE - 1, PIECE, count - 1]) {
                assert_eq!(all[i], decoded(&c, shape, i), "{scheme} of {shape:?}: element {i}");
            }
            assert_eq!(c.distortion(&w), Distortion::between(&w.to_f32(), &all), "{scheme} of {shape:?}");
        }
    }
}
