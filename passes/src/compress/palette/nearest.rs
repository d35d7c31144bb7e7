//! The nearest entry of a table of scalars.

use super::histogram::half_to_f64;

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
        let mut rank = 0;
        let mut set = |bits: u16| {
            let x = half_to_f64(bits);
            while self.steps.get(rank).is_some_and(|step| x > f64::from(*step)) {
                rank += 1;
            }
            table[usize::from(bits)] = self.entry(rank);
        };
        (0x8000..0xfc00).rev().chain(0..0x7c00).for_each(&mut set);
        table
    }
}

/// The largest single that is not above `x`: no single lies between them, so that both compare alike with any.
fn below(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) > x { near.next_down() } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_tensor::f16;

    #[test]
    fn finds_the_nearest() {
        let tables: [&[f32]; 5] =
            [&[0.5], &[-1.0, 1.0], &[3.0, -2.0, 0.25], &[1e-7, 65504.0, -65504.0, 0.0, 0.5], &[2.0; 7]];
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
