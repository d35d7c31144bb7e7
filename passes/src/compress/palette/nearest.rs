//! The nearest entry of a table of scalars.

use super::histogram::key;
use mlconv_tensor::f16;

/// Halfway points between the entries of a table, ascending, and which entry lies below each.
#[derive(Clone, Debug)]
pub(super) struct Nearest {
    /// The largest value that still belongs to an entry; one fewer than the entries, then infinities up to a power of two.
    steps: Vec<f32>,
    /// Where the entries in ascending order are in the table; none where it is ascending.
    order: Option<Vec<u8>>,
}

impl Nearest {
    /// For a table of 1 to 256 finite entries. Of two that are equally near, the lower is taken.
    pub(super) fn new(table: &[f32]) -> Self {
        let mut order: Vec<u8> = (0..table.len().min(256)).map(|i| i as u8).collect();
        order.sort_by(|a, b| table[usize::from(*a)].total_cmp(&table[usize::from(*b)]));
        let at = |i: u8| f64::from(table[usize::from(i)]);
        let half = |pair: &[u8]| below(f64::midpoint(at(pair[0]), at(pair[1])));
        let mut steps: Vec<f32> = order.windows(2).map(half).collect();
        steps.resize((steps.len() + 1).next_power_of_two() - 1, f32::INFINITY);
        Self { steps, order: (!order.is_sorted()).then_some(order) }
    }

    /// The entry nearest to `x`.
    #[inline]
    pub(super) fn index(&self, x: f32) -> u8 {
        // The search tree is complete, so that it needs no branch that depends on the value.
        let (mut at, mut width) = (0, self.steps.len().div_ceil(2));
        while width > 0 {
            at += if x > self.steps[at + width - 1] { width } else { 0 };
            width /= 2;
        }
        self.entry(at)
    }

    fn entry(&self, rank: usize) -> u8 {
        self.order.as_ref().map_or(rank as u8, |o| o[rank.min(o.len() - 1)])
    }

    /// The entries nearest to all halves, by their bits. Those that are not finite get any.
    pub(super) fn halves(&self) -> Vec<u8> {
        let mut table = vec![0; 1 << 16];
        self.fill(&mut table);
        table
    }

    /// Writes the entries nearest to all halves over a table of 2^16.
    pub(super) fn fill(&self, table: &mut [u8]) {
        let mut start = 0;
        for rank in 0..=self.steps.len() {
            let end = self.steps.get(rank).map_or(1 << 16, |step| end_of(*step));
            if start < end {
                // Negative halves lie in the second part, the greatest first.
                let (below, above) = (start.min(SIGN)..end.min(SIGN), start.max(SIGN)..end.max(SIGN));
                table[(1 << 16) - below.end..(1 << 16) - below.start].fill(self.entry(rank));
                table[above.start - SIGN..above.end - SIGN].fill(self.entry(rank));
                start = end;
            }
        }
        table[SIGN] = table[0];
    }
}

/// The bit of the sign.
const SIGN: usize = 1 << 15;

/// How many halves in ascending order, from those of no number on, are not above `x`.
fn end_of(x: f32) -> usize {
    let near = f16::from_f32(x);
    usize::from(key(near.to_bits())) + usize::from(near.to_f32() <= x)
}

/// The largest single that is not above `x`: no single lies between them, so that both compare alike with any.
fn below(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) > x { near.next_down() } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest() {
        let tables: [&[f32]; 8] = [
            &[0.5],
            &[-1.0, 1.0],
            &[3.0, -2.0, 0.25],
            &[1e-7, 65504.0, -65504.0, 0.0, 0.5],
            &[2.0; 7],
            &[65504.0; 3],
            &[-65504.0, -65472.0],
            &[-6e-8, 0.0, 6e-8],
        ];
        for table in tables {
            let nearest = Nearest::new(table);
            let halves = nearest.halves();
            for bits in (0..0x7c00u16).chain(0x8000..0xfc00) {
                let x = f16::from_bits(bits).to_f32();
                let far = |i: u8| (f64::from(table[usize::from(i)]) - f64::from(x)).abs();
                let least = (0..table.len() as u8).map(far).fold(f64::INFINITY, f64::min);
                assert_eq!(far(nearest.index(x)), least, "{x} in {table:?}");
                assert_eq!(far(halves[usize::from(bits)]), least, "{x} in {table:?}");
            }
        }
    }
}
