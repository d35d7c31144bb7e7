//! Operands of different shapes walked together.

use super::data::{GRAIN, each_task};
use mlconv_mil::schema::Broadcast;
use mlconv_tensor::Dims;
use smallvec::smallvec;

/// `N` operands broadcast to one shape, its axes merged as far as all operands allow.
pub(super) struct Lanes<const N: usize> {
    /// Sizes of the axes but the last.
    lead: Dims,
    /// Each operand's steps along them.
    steps: [Dims; N],
    /// The size of the last axis.
    row: usize,
    /// Each operand's step along it: 1, or 0 where it repeats.
    row_steps: [usize; N],
}

impl<const N: usize> Lanes<N> {
    pub(super) fn new(shapes: [&[usize]; N], out: &[usize]) -> Self {
        let steps = shapes.map(|s| Broadcast::new(s, out));
        // The steps of an axis are the place of the element that is one further along it.
        let step = |operand: usize, axis: usize| {
            let mut index: Dims = smallvec![0; out.len()];
            index[axis] = 1;
            steps[operand].at(&index)
        };
        let mut axes: Vec<(usize, [usize; N])> = vec![];
        for axis in (0..out.len()).filter(|i| out[*i] != 1) {
            let (size, steps) = (out[axis], std::array::from_fn(|operand| step(operand, axis)));
            match axes.last_mut() {
                Some((outer, outer_steps)) if (0..N).all(|i| outer_steps[i] == steps[i] * size) => {
                    (*outer, *outer_steps) = (*outer * size, steps);
                }
                _ => axes.push((size, steps)),
            }
        }
        let (row, row_steps) = axes.pop().unwrap_or((1, [0; N]));
        let steps = std::array::from_fn(|i| axes.iter().map(|a| a.1[i]).collect());
        Self { lead: axes.iter().map(|a| a.0).collect(), steps, row, row_steps }
    }

    /// Calls `f` with each part of `y` whose elements are neighbours in all operands, on all threads; with where it
    /// begins in each operand, and the operands' steps.
    pub(super) fn each<T: Send>(&self, y: &mut [T], f: impl Fn([usize; N], [usize; N], &mut [T]) + Sync) {
        each_task(y, GRAIN, |start, y| {
            let (mut start, mut y) = (start, y);
            while !y.is_empty() {
                let (mut i, column) = (start / self.row, start % self.row);
                let count = (self.row - column).min(y.len());
                let (part, rest) = std::mem::take(&mut y).split_at_mut(count);
                (y, start) = (rest, start + count);
                let mut at = self.row_steps.map(|step| step * column);
                for (axis, size) in self.lead.iter().enumerate().rev() {
                    at.iter_mut().zip(&self.steps).for_each(|(at, steps)| *at += i % size * steps[axis]);
                    i /= size;
                }
                f(at, self.row_steps, part);
            }
        });
    }
}

/// `f` of the elements of two tensors, given with their shapes.
pub(super) fn zip<T: Copy + Sync, R: Copy + Default + Send>(
    out: &[usize],
    (a, a_shape): (&[T], &[usize]),
    (b, b_shape): (&[T], &[usize]),
    f: impl Fn(T, T) -> R + Sync,
) -> Vec<R> {
    let mut y = vec![R::default(); out.iter().product()];
    Lanes::new([a_shape, b_shape], out).each(&mut y, |[at_a, at_b], steps, y| {
        let (a, b) = (&a[at_a..], &b[at_b..]);
        match steps {
            [1, 1] => y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = f(*a, *b)),
            [1, _] => {
                let b = b[0];
                y.iter_mut().zip(a).for_each(|(y, a)| *y = f(*a, b));
            }
            [_, 1] => {
                let a = a[0];
                y.iter_mut().zip(b).for_each(|(y, b)| *y = f(a, *b));
            }
            _ => y.fill(f(a[0], b[0])),
        }
    });
    y
}
