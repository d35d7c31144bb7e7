//! The blocks of a tensor: boxes of one size that fill it, each with parameters of its own.

use super::Refusal;
use mlconv_tensor::strides;
use std::ops::Range;

/// What shares one scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// The whole weight.
    Tensor,
    /// Each slice along an axis.
    Channel {
        /// The axis.
        axis: usize,
    },
    /// Runs of `size` slices along `axis`, for each slice along `channel`.
    Block {
        /// The axis that is cut, most often that of the input channels.
        axis: usize,
        /// The length of a run, which divides the axis.
        size: usize,
        /// The axis of the output channels.
        channel: usize,
    },
    /// Boxes of these sizes along the axes, 0 for all of an axis.
    Boxes(Vec<usize>),
}

impl Granularity {
    /// The sizes of a box in a tensor of shape `shape`.
    fn sizes(&self, shape: &[usize]) -> Result<Vec<usize>, Refusal> {
        let mut sizes = shape.to_vec();
        let mut set = |axis: usize, size: usize| match sizes.get_mut(axis) {
            Some(s) => {
                *s = size;
                Ok(())
            }
            None => Err(Refusal::new(format!("there is no axis {axis} among {}", shape.len()))),
        };
        match self {
            Self::Tensor => {}
            Self::Channel { axis } => set(*axis, 1)?,
            Self::Block { axis, channel, .. } if axis == channel => {
                return Err(Refusal::new(format!("axis {axis} is both cut and that of the channels")));
            }
            Self::Block { axis, size, channel } => {
                set(*channel, 1)?;
                set(*axis, *size)?;
            }
            Self::Boxes(boxes) if boxes.len() == shape.len() => {
                for (axis, size) in boxes.iter().enumerate().filter(|(_, s)| **s > 0) {
                    set(axis, *size)?;
                }
            }
            Self::Boxes(boxes) => {
                return Err(Refusal::new(format!("{} sizes of a box for {} axes", boxes.len(), shape.len())));
            }
        }
        Ok(sizes)
    }
}

/// A tensor cut into boxes of one size.
pub(crate) struct Blocks {
    shape: Vec<usize>,
    sizes: Vec<usize>,
    counts: Vec<usize>,
}

impl Blocks {
    /// The blocks of a tensor of shape `shape`, which has elements.
    ///
    /// Errors: a size that does not divide its axis, with the nearest that do.
    pub(crate) fn new(shape: &[usize], granularity: &Granularity) -> Result<Self, Refusal> {
        let sizes = granularity.sizes(shape)?;
        for (axis, (size, n)) in sizes.iter().zip(shape).enumerate() {
            if *size == 0 || !n.is_multiple_of(*size) {
                return Err(Refusal::new(format!("{size} does not divide the {n} of axis {axis}{}", near(*size, *n))));
            }
        }
        let counts = shape.iter().zip(&sizes).map(|(n, s)| n / s).collect();
        Ok(Self { shape: shape.to_vec(), sizes, counts })
    }

    /// How many blocks lie along each axis: the shape of their parameters.
    pub(crate) fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// How many blocks there are.
    pub(crate) fn count(&self) -> usize {
        self.counts.iter().product()
    }

    /// Elements of a block.
    pub(crate) fn len(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Whether blocks lie one after the other, in row-major order.
    pub(crate) fn in_order(&self) -> bool {
        self.axes().len() <= 1
    }

    /// Which block each element lies in.
    pub(crate) fn walk(&self) -> Walk {
        Walk::new(&self.shape, &self.counts)
    }

    /// The elements of some `blocks`, one block after the other, in the place of what is in `to`.
    ///
    /// Elements next to each other that lie in blocks next to each other are read together, since memory is.
    pub(crate) fn take<T: Copy + Default>(&self, blocks: Range<usize>, rows: &[T], to: &mut Vec<T>) {
        let (len, steps) = (self.len(), strides(&self.shape));
        to.clear();
        to.resize(blocks.len() * len, T::default());
        let within = merged(self.sizes.iter().zip(&steps).map(|(n, step)| (*n, *step)));
        // Blocks whose first elements follow each other.
        let beside = if self.walk().in_steps() { self.walk().last.0 } else { 1 };
        let run = within.last().filter(|(_, step)| *step == 1).map_or(1, |(n, _)| *n);
        let outer = if run == 1 { &within[..] } else { &within[..within.len() - 1] };
        let mut block = blocks.start;
        while block < blocks.end {
            let count = (beside - block % beside).min(blocks.end - block);
            let (mut rest, mut start) = (block, 0);
            for ((n, size), step) in self.counts.iter().zip(&self.sizes).zip(&steps).rev() {
                start += rest % n * size * step;
                rest /= n;
            }
            let out = &mut to[(block - blocks.start) * len..][..count * len];
            let mut at = 0;
            places(outer, start, &mut |from| {
                let source = rows.get(from..).unwrap_or_default();
                if count == 1 {
                    out[at..at + run].iter_mut().zip(source).for_each(|(to, x)| *to = *x);
                } else {
                    out.iter_mut().skip(at).step_by(len).zip(&source[..count]).for_each(|(to, x)| *to = *x);
                }
                at += run;
            });
            block += count;
        }
    }

    /// The axes among blocks and then within them, as they lie in the tensor.
    fn axes(&self) -> Vec<(usize, usize)> {
        let steps = strides(&self.shape);
        let among = self.counts.iter().zip(&steps).zip(&self.sizes).map(|((n, step), size)| (*n, step * size));
        let within = self.sizes.iter().zip(&steps).map(|(n, step)| (*n, *step));
        merged(among.chain(within))
    }
}

/// Which block each element lies in, in the order in which elements are stored.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    /// The outer axes, each a size and how far the number of the block moves along it.
    outer: Vec<(usize, usize)>,
    /// Elements that follow each other, and 0 where they lie in one block, 1 where each lies in the next.
    last: (usize, usize),
}

impl Walk {
    /// For a tensor of shape `shape` with `counts` blocks along each axis, numbered in row-major order.
    pub(crate) fn new(shape: &[usize], counts: &[usize]) -> Self {
        let steps = strides(counts);
        let axes = shape.iter().zip(counts).zip(&steps);
        // Counts that do not divide come from nowhere; they must not divide by zero either.
        let size = |n: usize, count: usize| (n / count.max(1)).max(1);
        let mut outer = merged(axes.flat_map(|((n, count), step)| [((*count).max(1), *step), (size(*n, *count), 0)]));
        let last = outer.pop().unwrap_or((1, 0));
        Self { outer, last }
    }

    /// Whether each of the elements that follow each other lies in the next block.
    pub(crate) fn in_steps(&self) -> bool {
        self.last.1 != 0
    }

    /// Calls `f` for the runs of elements `range`: where a run is, counted from the start of the range, and the block of
    /// its first element.
    #[inline(always)]
    pub(crate) fn runs(&self, range: Range<usize>, mut f: impl FnMut(Range<usize>, usize)) {
        let (length, step) = (self.last.0.max(1), self.last.1);
        let (mut row, mut skip) = (range.start / length, range.start % length);
        // The place along each outer axis, the innermost first.
        let (mut places, mut base) = (Vec::with_capacity(self.outer.len()), 0);
        for (n, step) in self.outer.iter().rev() {
            places.push(row % n);
            base += row % n * step;
            row /= n;
        }
        let mut at = 0;
        while at < range.len() {
            let end = (at + length - skip).min(range.len());
            f(at..end, base + skip * step);
            (at, skip) = (end, 0);
            for (place, (n, step)) in places.iter_mut().zip(self.outer.iter().rev()) {
                *place += 1;
                base += step;
                if *place < *n {
                    break;
                }
                base -= n * step;
                *place = 0;
            }
        }
    }
}

/// The nearest sizes that would divide `n`, in words.
fn near(size: usize, n: usize) -> String {
    let below = (1..=size.min(n)).rev().find(|s| n.is_multiple_of(*s));
    let above = (size.max(1)..=n).find(|s| n.is_multiple_of(*s));
    match (below, above) {
        (Some(a), Some(b)) => format!("; {a} and {b} do"),
        (Some(a), None) | (None, Some(a)) => format!("; {a} does"),
        (None, None) => String::new(),
    }
}

/// Axes, each a size and a step, without those of size 1, and with those that follow one another joined.
fn merged(axes: impl Iterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = vec![];
    for (n, step) in axes.filter(|(n, _)| *n != 1) {
        match out.last_mut() {
            Some(last) if last.1 == n * step => *last = (last.0 * n, step),
            _ => out.push((n, step)),
        }
    }
    out
}

/// Calls `f` with all places that the axes reach from `start`, in row-major order.
fn places(axes: &[(usize, usize)], start: usize, f: &mut impl FnMut(usize)) {
    match axes {
        [] => f(start),
        [(n, step)] => (0..*n).for_each(|i| f(start + i * step)),
        [(n, step), rest @ ..] => (0..*n).for_each(|i| places(rest, start + i * step, f)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken<T: Copy + Default>(blocks: &Blocks, rows: &[T]) -> Vec<T> {
        let mut all = vec![];
        blocks.take(0..blocks.count(), rows, &mut all);
        all
    }

    #[test]
    fn blocks_come_one_after_the_other() {
        let rows: Vec<u8> = (0..12).collect();
        let of = |g| taken(&Blocks::new(&[2, 6], &g).expect("sizes that divide"), &rows);
        assert_eq!(of(Granularity::Channel { axis: 0 }), rows);
        assert_eq!(of(Granularity::Channel { axis: 1 })[..4], [0, 6, 1, 7]);
        assert_eq!(of(Granularity::Boxes(vec![0, 3])), [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]);
    }

    #[test]
    fn sizes_that_do_not_divide_are_refused_with_those_that_do() {
        let of = |g| Blocks::new(&[4, 50], &g).err().map(|e| e.to_string()).unwrap_or_default();
        let block = |axis, size| Granularity::Block { axis, size, channel: 0 };
        assert_eq!(of(block(1, 32)), "32 does not divide the 50 of axis 1; 25 and 50 do");
        assert_eq!(of(block(1, 64)), "64 does not divide the 50 of axis 1; 50 does");
        assert_eq!(of(block(1, 0)), "0 does not divide the 50 of axis 1; 1 does");
        assert_eq!(of(block(0, 2)), "axis 0 is both cut and that of the channels");
        assert_eq!(of(block(2, 2)), "there is no axis 2 among 2");
        assert_eq!(of(Granularity::Boxes(vec![1])), "1 sizes of a box for 2 axes");
    }

    proptest! {
        #[test]
        fn a_walk_meets_the_elements_of_each_block(
            axes in prop::collection::vec((1usize..5, 1usize..5), 1..5),
            cuts in (0usize..600, 0usize..600),
        ) {
            let shape: Vec<usize> = axes.iter().map(|(n, s)| n * s).collect();
            let boxes = Granularity::Boxes(axes.iter().map(|(_, s)| *s).collect());
            let blocks = Blocks::new(&shape, &boxes).expect("sizes that divide");
            let rows: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
            let mut met: Vec<Vec<u32>> = vec![vec![]; blocks.count()];
            let (a, b) = (cuts.0.min(cuts.1).min(rows.len()), cuts.0.max(cuts.1).min(rows.len()));
            for range in [0..a, a..b, b..rows.len()] {
                let step = usize::from(blocks.walk().in_steps());
                blocks.walk().runs(range.clone(), |part, block| {
                    for (i, x) in rows[range.clone()][part].iter().enumerate() {
                        met[block + i * step].push(*x);
                    }
                });
            }
            prop_assert_eq!(met.concat(), taken(&blocks, &rows));
            let mut some = vec![];
            blocks.take(blocks.count() / 3..blocks.count() / 3 + 1, &rows, &mut some);
            prop_assert_eq!(&met[blocks.count() / 3], &some);
        }
    }
}
