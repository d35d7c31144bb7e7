//! Copies of elements that lie in regular steps: what transposing, slicing, tiling and reversing have in common.

use super::data::{GRAIN, each_task};
use bytemuck::Pod;
use mlconv_tensor::{DType, Dims, Element, Tensor, strides};
use std::borrow::Cow;

/// The elements that a strided copy reads: the first one, and for each axis of the result its size and the step between
/// neighbours; steps backwards wrap around.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    pub(super) first: usize,
    pub(super) axes: Vec<(usize, usize)>,
}

impl Steps {
    /// The axes of a tensor of this shape, in the order of `perm`.
    pub(super) fn permuted(shape: &[usize], perm: &[usize]) -> Self {
        let own = strides(shape);
        Self { first: 0, axes: perm.iter().map(|i| (shape[*i], own[*i])).collect() }
    }

    /// Without axes of one element, and with neighbours merged where they are one run.
    fn merged(&self) -> Vec<(usize, usize)> {
        let mut axes: Vec<(usize, usize)> = vec![];
        for (size, step) in self.axes.iter().copied().filter(|(size, _)| *size != 1) {
            match axes.last_mut() {
                Some(outer) if outer.1 == step.wrapping_mul(size) => *outer = (outer.0 * size, step),
                _ => axes.push((size, step)),
            }
        }
        axes
    }

    /// The position of element number `i` along `axes`.
    fn at(&self, axes: &[(usize, usize)], mut i: usize) -> usize {
        let mut at = self.first;
        for (size, step) in axes.iter().rev() {
            at = at.wrapping_add((i % size).wrapping_mul(*step));
            i /= size;
        }
        at
    }

    /// The elements of `x`, in row-major order. Every position that is named must be in `x`.
    pub(super) fn copy<T: Pod + Send + Sync>(&self, x: &[T]) -> Vec<T> {
        let axes = self.merged();
        let mut y = vec![T::zeroed(); axes.iter().map(|a| a.0).product()];
        if y.is_empty() {
            return y;
        }
        let (lead, (row, step)) = match axes.split_last() {
            Some((last, lead)) => (lead, *last),
            None => (&axes[..], (1, 1)),
        };
        // Where rows run across the memory, as in a transposition, a block of both axes stays in the cache.
        if let Some(((columns, near), lead)) = lead.split_last()
            && step != 1
            && *near == 1
            && row > 1
        {
            const BLOCK: usize = 16;
            each_task(&mut y, BLOCK * row, |start, y| {
                let (mut start, mut y) = (start, y);
                // A task may reach from one matrix into the next.
                while !y.is_empty() {
                    let (matrix, first) = (start / (columns * row), start / row % columns);
                    let count = (columns - first).min(y.len() / row);
                    let (part, rest) = std::mem::take(&mut y).split_at_mut(count * row);
                    (y, start) = (rest, start + count * row);
                    let from = self.at(lead, matrix).wrapping_add(first);
                    for i in 0..row {
                        let x = &x[from.wrapping_add(i.wrapping_mul(step))..][..count];
                        part[i..].iter_mut().step_by(row).zip(x).for_each(|(y, x)| *y = *x);
                    }
                }
            });
            return y;
        }
        each_task(&mut y, GRAIN, |start, mut y| {
            let mut start = start;
            while !y.is_empty() {
                let (i, column) = (start / row, start % row);
                let count = (row - column).min(y.len());
                let (part, rest) = std::mem::take(&mut y).split_at_mut(count);
                (y, start) = (rest, start + count);
                let from = self.at(lead, i).wrapping_add(column.wrapping_mul(step));
                match step {
                    1 => part.copy_from_slice(&x[from..from + count]),
                    0 => part.fill(x[from]),
                    _ => part.iter_mut().enumerate().for_each(|(i, y)| *y = x[from.wrapping_add(i.wrapping_mul(step))]),
                }
            }
        });
        y
    }

    /// The elements of `x` as a tensor of `shape`; `None` for types of less than a byte.
    pub(super) fn tensor(&self, x: &Tensor, shape: &[usize]) -> Option<Tensor> {
        moved(x, shape, Move::Strided(self))
    }
}

/// How elements of any type are moved.
pub(super) enum Move<'a> {
    /// In steps.
    Strided(&'a Steps),
    /// Rows of some elements, which begin at these positions.
    Rows(&'a [usize], usize),
}

/// The elements of `x` as a tensor of `shape`, which must have as many; `None` for types of less than a byte.
pub(super) fn moved(x: &Tensor, shape: &[usize], how: Move<'_>) -> Option<Tensor> {
    fn of<T: Element>(bytes: &[u8], shape: &[usize], how: Move<'_>, dtype: DType) -> Option<Tensor> {
        let x = elements::<T>(bytes);
        let y = match how {
            Move::Strided(steps) => steps.copy(&x),
            Move::Rows(starts, len) => {
                let mut y = vec![T::zeroed(); starts.len() * len];
                super::data::each_row(&mut y, len, |i, y| y.copy_from_slice(&x[starts[i]..][..len]));
                y
            }
        };
        Tensor::from_vec(shape, y).reinterpret(dtype)
    }
    let bytes = x.blob().read();
    match x.dtype().bits() {
        8 => of::<u8>(&bytes, shape, how, x.dtype()),
        16 => of::<u16>(&bytes, shape, how, x.dtype()),
        32 => of::<u32>(&bytes, shape, how, x.dtype()),
        64 => of::<u64>(&bytes, shape, how, x.dtype()),
        _ => None,
    }
}

fn elements<T: Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(v) => Cow::Borrowed(v),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}

/// A tensor with some axes brought to the end, so that what they span are rows.
pub(super) struct Rows<'a> {
    /// Its elements, one row after the other.
    pub(super) values: Cow<'a, [f32]>,
    /// Elements of a row.
    pub(super) len: usize,
    shape: Dims,
    perm: Dims,
}

impl<'a> Rows<'a> {
    /// The rows of a tensor of `shape` along the axes that `along` names.
    pub(super) fn new(x: Cow<'a, [f32]>, shape: &[usize], along: &[bool]) -> Self {
        let axes = |which: bool| (0..shape.len()).filter(move |i| along[*i] == which);
        let perm: Dims = axes(false).chain(axes(true)).collect();
        let len = axes(true).map(|i| shape[i]).product();
        let in_order = perm.windows(2).all(|w| w[0] < w[1]);
        let values = if in_order { x } else { Cow::Owned(Steps::permuted(shape, &perm).copy(&x)) };
        let shape = perm.iter().map(|i| shape[*i]).collect();
        Self { values, len, shape, perm }
    }

    /// `y`, of as many elements, with the axes back in their places.
    pub(super) fn back(&self, y: Vec<f32>) -> Vec<f32> {
        let mut inverse: Dims = self.perm.clone();
        self.perm.iter().enumerate().for_each(|(i, p)| inverse[*p] = i);
        if inverse == self.perm && self.perm.windows(2).all(|w| w[0] < w[1]) {
            return y;
        }
        Steps::permuted(&self.shape, &inverse).copy(&y)
    }
}
