//! What a compressed weight decodes to: the arithmetic of the `constexpr_*` ops, fast, to measure by.

use super::apply::{Coded, Compressed};
use mlconv_tensor::{DType, Tensor, f16, unpack_bits};
use rayon::prelude::*;

/// Elements decoded at a time by a thread, about.
const RUN: usize = 1 << 16;

impl Compressed {
    /// The decoded elements of a weight of shape `shape`, in the type that they have in the program.
    pub fn decoded(&self, shape: &[usize]) -> Vec<f32> {
        let kept = self.mask.as_ref().map(codes);
        let spread = |values: Vec<f32>| match &kept {
            None => values,
            Some(mask) => {
                let mut values = values.into_iter();
                mask.iter().map(|m| if *m == 1 { values.next().unwrap_or(0.0) } else { 0.0 }).collect()
            }
        };
        let spread_codes = |t: &Tensor| match &kept {
            None => codes(t),
            Some(mask) => {
                let mut all = codes(t).into_iter();
                mask.iter().map(|m| if *m == 1 { all.next().unwrap_or(0) } else { 0 }).collect()
            }
        };
        let mut out = match &self.coded {
            Coded::Plain(t) => return spread(t.to_f32().into_owned()),
            Coded::Linear(q) => {
                let signed = matches!(q.data.dtype(), DType::I8 | DType::I4);
                let (scale, offset) = (q.scale.to_f32(), q.offset.as_ref().map(Tensor::to_f32));
                let half = q.scale.dtype() == DType::F16;
                let codes = spread_codes(&q.data);
                by_block(&codes, shape, q.scale.shape(), &|code, block| {
                    let code = if signed { f32::from(code as i8) } else { f32::from(code) };
                    let y = scale[block] * (code - offset.as_ref().map_or(0.0, |o| o[block]));
                    if half { f16::from_f32(y).to_f32() } else { y }
                })
            }
            Coded::Palette { palette: p, lut } => {
                let table = match lut {
                    None => p.lut.to_f32().into_owned(),
                    Some(q) => {
                        Self { mask: None, coded: Coded::Linear(q.clone()), ..self.clone() }.decoded(p.lut.shape())
                    }
                };
                let [groups @ .., entries, len] = p.lut.shape() else { return vec![] };
                let (entries, len) = (*entries, *len);
                let mut indices = shape.to_vec();
                let axis = p.vector_axis.unwrap_or(0);
                if len > 1 {
                    indices[axis] /= len;
                }
                let codes = spread_codes(&p.indices);
                let mut values: Vec<f32> = if len == 1 {
                    by_block(&codes, &indices, groups, &|code, block| table[block * entries + usize::from(code)])
                } else {
                    let at =
                        by_block(&codes, &indices, groups, &|code, block| (block * entries + usize::from(code)) as f32);
                    let inner: usize = indices[axis + 1..].iter().product();
                    let mut values = vec![0.0; codes.len() * len];
                    values.par_chunks_mut(inner * len).zip(at.par_chunks(inner)).for_each(|(out, at)| {
                        for (k, row) in out.chunks_mut(inner).enumerate() {
                            for (y, entry) in row.iter_mut().zip(at) {
                                *y = table[*entry as usize * len + k];
                            }
                        }
                    });
                    values
                };
                if let Some(scale) = &p.scale {
                    let scales = scale.to_f32();
                    let half = scale.dtype() == DType::F16;
                    let rounded = |y: f32| if half { f16::from_f32(y).to_f32() } else { y };
                    let channel = scale.shape().iter().position(|n| *n > 1).unwrap_or(0);
                    let inner: usize = shape[channel + 1..].iter().product();
                    values.par_chunks_mut(inner.max(1)).enumerate().for_each(|(i, run)| {
                        let s = scales[i % scales.len()];
                        run.iter_mut().for_each(|y| *y = rounded(*y * s));
                    });
                }
                values
            }
        };
        if let Some(mask) = &kept {
            let vectors = out.len() / mask.len().max(1);
            if vectors <= 1 {
                out.par_iter_mut().zip(mask).filter(|(_, m)| **m == 0).for_each(|(y, _)| *y = 0.0);
            }
        }
        out
    }
}

/// A byte per element.
fn codes(t: &Tensor) -> Vec<u8> {
    let bytes = t.blob().read();
    let (bits, count) = (t.dtype().bits(), t.count());
    if bits == 8 {
        return bytes.into_owned();
    }
    // Whole bytes in each run.
    let run = RUN / 8 * 8;
    let mut out = vec![0; count];
    out.par_chunks_mut(run).enumerate().for_each(|(i, out)| {
        let from = i * run * bits as usize / 8;
        let piece = bytes.get(from..).unwrap_or_default();
        for (y, x) in out.iter_mut().zip(unpack_bits(piece, bits, run)) {
            // Four bits with a sign.
            *y = if t.dtype() == DType::I4 { ((x << 4) as i8 >> 4) as u8 } else { x };
        }
    });
    out
}

/// `f` of every code and the number of the block that it lies in; `counts` blocks along each axis.
fn by_block(codes: &[u8], shape: &[usize], counts: &[usize], f: &(dyn Fn(u8, usize) -> f32 + Sync)) -> Vec<f32> {
    let Some((last, outer)) = shape.split_last() else { return vec![] };
    let (last, blocks) = ((*last).max(1), counts.last().copied().unwrap_or(1));
    let (rows, size) = ((RUN / last).max(1), (last / blocks.max(1)).max(1));
    let mut out = vec![0.0; codes.len()];
    out.par_chunks_mut(rows * last).zip(codes.par_chunks(rows * last)).enumerate().for_each(|(i, (out, codes))| {
        for (k, (out, codes)) in out.chunks_mut(last).zip(codes.chunks(last)).enumerate() {
            let (mut rest, mut base, mut step) = (i * rows + k, 0, blocks);
            for (n, count) in outer.iter().zip(counts).rev() {
                base += rest % n * count / n * step;
                rest /= n;
                step *= count;
            }
            for (b, (out, codes)) in out.chunks_mut(size).zip(codes.chunks(size)).enumerate() {
                out.iter_mut().zip(codes).for_each(|(y, c)| *y = f(*c, base + b));
            }
        }
    });
    out
}
