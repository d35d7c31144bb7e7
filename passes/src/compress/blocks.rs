//! The blocks of a tensor: boxes of one size that fill it, each with parameters of its own.

use super::Refusal;
use mlconv_tensor::strides;
use rayon::prelude::*;
use std::borrow::Cow;

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

    /// Elements of a block.
    pub(crate) fn len(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Whether blocks lie one after the other, in row-major order.
    pub(crate) fn in_order(&self) -> bool {
        self.axes().len() <= 1
    }

    /// The elements block after block, in row-major order within each and among them.
    pub(crate) fn gather<'a, T: Copy + Default + Send + Sync>(&self, rows: &'a [T]) -> Cow<'a, [T]> {
        permuted(&self.axes(), rows)
    }

    /// The axes among blocks and then within them, as they lie in the tensor.
    fn axes(&self) -> Vec<(usize, usize)> {
        let steps = strides(&self.shape);
        let among = self.counts.iter().zip(&steps).zip(&self.sizes).map(|((n, step), size)| (*n, step * size));
        let within = self.sizes.iter().zip(&steps).map(|(n, step)| (*n, *step));
        merged(among.chain(within))
    }

    /// The elements in row-major order, which [`Blocks::gather`] took apart.
    pub(crate) fn scatter<'a, T: Copy + Default + Send + Sync>(&self, blocks: &'a [T]) -> Cow<'a, [T]> {
        let (among, within, len) = (strides(&self.counts), strides(&self.sizes), self.len());
        let axes = self.counts.iter().zip(&among).zip(self.sizes.iter().zip(&within));
        permuted(&merged(axes.flat_map(|((n, a), (s, w))| [(*n, a * len), (*s, *w)])), blocks)
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

/// The elements of `from` at all places that the axes reach, in row-major order.
fn permuted<'a, T: Copy + Default + Send + Sync>(axes: &[(usize, usize)], from: &'a [T]) -> Cow<'a, [T]> {
    let Some(((n, step), outer)) = axes.split_last().filter(|(_, outer)| !outer.is_empty()) else {
        return Cow::Borrowed(from);
    };
    let (n, step) = (*n, *step);
    let rows = (1usize << 14).div_ceil(n);
    let mut out = vec![T::default(); from.len()];
    out.par_chunks_mut(rows * n).enumerate().for_each(|(chunk, part)| {
        for (row, to) in part.chunks_mut(n).enumerate() {
            let mut rest = chunk * rows + row;
            let mut at = 0;
            for (size, step) in outer.iter().rev() {
                at += rest % size * step;
                rest /= size;
            }
            let source = from.get(at..).unwrap_or_default();
            if step == 1 {
                to.copy_from_slice(&source[..n]);
            } else {
                to.iter_mut().zip(source.iter().step_by(step)).for_each(|(to, x)| *to = *x);
            }
        }
    });
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_come_one_after_the_other() {
        let rows: Vec<u8> = (0..12).collect();
        let of = |g| Blocks::new(&[2, 6], &g).expect("sizes that divide").gather(&rows).into_owned();
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
        fn scatter_undoes_gather(axes in prop::collection::vec((1usize..5, 1usize..5), 1..5)) {
            let shape: Vec<usize> = axes.iter().map(|(n, s)| n * s).collect();
            let boxes = Granularity::Boxes(axes.iter().map(|(_, s)| *s).collect());
            let blocks = Blocks::new(&shape, &boxes).expect("sizes that divide");
            let rows: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
            let gathered = blocks.gather(&rows);
            prop_assert_eq!(blocks.scatter(&gathered).into_owned(), rows);
        }
    }
}
