//! Where the indices of a tensor lie, and which table each uses.

use std::ops::Range;

/// Indices in row-major order: runs that share a table, and the tables in turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Indices in all.
    pub(super) count: usize,
    /// Tables.
    pub(super) groups: usize,
    /// Indices in a run.
    pub(super) run: usize,
    /// Elements that an index stands for.
    pub(super) dim: usize,
    /// How far these lie apart.
    pub(super) stride: usize,
}

/// Indices that are looked at together: enough to be worth a task, and whole bytes whatever their width.
const CHUNK: usize = 1 << 15;

impl Layout {
    /// The runs of a table, no longer than a task should take.
    pub(super) fn runs(self, group: usize) -> impl Iterator<Item = Range<usize>> {
        let starts =
            (0..self.count / self.run.max(1) / self.groups.max(1)).map(move |o| (o * self.groups + group) * self.run);
        starts.flat_map(move |start| pieces(start..start + self.run, 1 << 20))
    }

    /// The parts of `range` that share a table, and which.
    pub(super) fn parts(self, range: Range<usize>) -> impl Iterator<Item = (Range<usize>, usize)> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let run = at / self.run.max(1);
            let part = at..((run + 1) * self.run).min(range.end);
            at = part.end;
            (!part.is_empty()).then_some((part, run % self.groups.max(1)))
        })
    }

    /// Where the first element of an index lies.
    pub(super) fn element(self, index: usize) -> usize {
        match self.dim {
            1 => index,
            d => index / self.stride * self.stride * d + index % self.stride,
        }
    }

    /// Elements of a table.
    pub(super) fn group_len(self) -> usize {
        self.count / self.groups.max(1)
    }
}

/// `range` in pieces of at most `length`.
fn pieces(range: Range<usize>, length: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(length).map(move |start| start..(start + length).min(end))
}

/// Packs `count` indices of `bits` bits, which `fill` writes, a byte each, into any range of them.
pub(super) fn packed(count: usize, bits: u32, fill: impl Fn(Range<usize>, &mut [u8]) + Sync) -> Vec<u8> {
    use rayon::prelude::*;
    let mut out = vec![0; (count * bits as usize).div_ceil(8)];
    out.par_chunks_mut(CHUNK / 8 * bits as usize).enumerate().for_each_init(
        || vec![0u8; CHUNK],
        |indices, (chunk, bytes)| {
            let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(count);
            let part = &mut indices[..range.len()];
            if bits == 8 {
                fill(range, bytes);
                return;
            }
            fill(range, part);
            pack(part, bits as usize, bytes);
        },
    );
    out
}

/// Packs `values` of `bits` bits, least significant bit first.
fn pack(values: &[u8], bits: usize, out: &mut [u8]) {
    // Eight values are `bits` whole bytes.
    let (eights, rest) = values.as_chunks::<8>();
    let mut to = out.chunks_mut(bits);
    let word = |values: &[u8]| values.iter().rev().fold(0u64, |word, v| word << bits | u64::from(*v));
    for (eight, bytes) in eights.iter().zip(&mut to) {
        bytes.copy_from_slice(&word(eight).to_le_bytes()[..bits]);
    }
    if let Some(bytes) = to.next() {
        let length = bytes.len();
        bytes.copy_from_slice(&word(rest).to_le_bytes()[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_tensor::pack_bits;

    #[test]
    fn packs_as_tensors_do() {
        for bits in [1, 2, 3, 4, 6, 8] {
            for count in [1, 7, 8, 9, 100, CHUNK + 5] {
                let value = |i: usize| (i * 37 % 251) as u8 & ((1u16 << bits) - 1) as u8;
                let fill = |range: Range<usize>, out: &mut [u8]| {
                    for (o, i) in out.iter_mut().zip(range) {
                        *o = value(i);
                    }
                };
                assert_eq!(packed(count, bits, fill), pack_bits((0..count).map(value), bits), "{count} of {bits} bits");
            }
        }
    }
}
