//! Products of matrices: the `gemm` crate on one thread per tile, behind bounds that are checked.

use gemm::Parallelism;
use rayon::prelude::*;
use std::{
    ops::Range,
    sync::atomic::{AtomicPtr, Ordering},
};

/// A matrix over some elements, its rows and columns any steps apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> Matrix<'a> {
    /// `None` where an element would lie outside of `data`; steps are from row to row and from column to column.
    pub(super) fn new(
        data: &'a [f32],
        [rows, columns]: [usize; 2],
        [row_step, column_step]: [usize; 2],
    ) -> Option<Self> {
        let reach = |n: usize, step: usize| n.checked_sub(1)?.checked_mul(step);
        let inside = match (reach(rows, row_step), reach(columns, column_step)) {
            (Some(r), Some(c)) => r.checked_add(c)? < data.len(),
            // No elements at all, or more than can be counted.
            _ => rows == 0 || columns == 0,
        };
        let fits = [row_step, column_step].into_iter().all(|step| isize::try_from(step).is_ok());
        (inside && fits).then_some(Self { data, rows, columns, row_step, column_step })
    }

    /// A matrix whose rows lie one after the other.
    pub(super) fn packed(data: &'a [f32], rows: usize, columns: usize) -> Option<Self> {
        Self::new(data, [rows, columns], [columns, 1])
    }

    pub(super) fn transposed(self) -> Self {
        let Self { data, rows, columns, row_step, column_step } = self;
        Self { data, rows: columns, columns: rows, row_step: column_step, column_step: row_step }
    }

    /// Some rows; `range` is one of `0..rows`.
    pub(super) fn rows(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let start = if range.is_empty() { 0 } else { range.start * self.row_step };
        Self { data: self.data.get(start..).unwrap_or_default(), rows: range.len(), ..self }
    }

    /// Some columns; `range` is one of `0..columns`.
    pub(super) fn columns(self, range: Range<usize>) -> Self {
        self.transposed().rows(range).transposed()
    }

    /// The numbers of rows and columns.
    pub(super) fn size(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// The elements, one row after the other.
    pub(super) fn to_vec(self) -> Vec<f32> {
        let at = |i: usize| (i / self.columns) * self.row_step + (i % self.columns) * self.column_step;
        (0..self.rows * self.columns).map(|i| self.data[at(i)]).collect()
    }

    /// A row, where its elements are neighbours.
    pub(super) fn row(&self, i: usize) -> Option<&'a [f32]> {
        let neighbours = self.column_step == 1 || self.columns == 1;
        (neighbours && i < self.rows).then(|| self.data.get(i * self.row_step..)?.get(..self.columns)).flatten()
    }
}

/// The right factor of a product, which may be computed a few columns at a time.
pub(super) trait Columns: Sync {
    /// How many columns are best computed at once.
    fn tile(&self) -> usize;
    /// The columns of `range`; `scratch` may hold them.
    fn columns<'s>(&'s self, range: Range<usize>, scratch: &'s mut Vec<f32>) -> Matrix<'s>;
}

impl Columns for Matrix<'_> {
    fn tile(&self) -> usize {
        TILE
    }
    fn columns<'s>(&'s self, range: Range<usize>, _: &'s mut Vec<f32>) -> Matrix<'s> {
        (*self).columns(range)
    }
}

/// What a product is written onto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onto {
    /// Nothing: what was there is lost.
    Nothing,
    /// What is there: the product is added.
    Sum,
}

/// Columns of a tile of the result.
const TILE: usize = 512;
/// Rows of a tile of the result, where there are too few columns to occupy the threads.
const TILE_ROWS: usize = 128;
/// Multiplications that are not worth a second thread.
const SMALL: usize = 1 << 17;

/// Writes the product of `a` and `b` to `c`, of the rows of `a` and `n` columns, one row after the other.
pub(super) fn product(c: &mut [f32], a: Matrix<'_>, n: usize, b: &impl Columns, onto: Onto) {
    let [m, k] = a.size();
    assert_eq!(Some(c.len()), m.checked_mul(n), "a result of {m} rows and {n} columns");
    if c.is_empty() {
        return;
    }
    let tile = b.tile().clamp(1, n);
    let tiles = n.div_ceil(tile);
    let one = |c: &AtomicPtr<f32>, a: Matrix<'_>, i: usize, scratch: &mut Vec<f32>| {
        let range = i * tile..n.min((i + 1) * tile);
        let b = b.columns(range.clone(), scratch);
        assert_eq!(b.size(), [k, range.len()], "a factor of {k} rows");
        multiply(c, n, range, a, b, onto);
    };
    if m.saturating_mul(k).saturating_mul(n) <= SMALL {
        let (c, mut scratch) = (AtomicPtr::new(c.as_mut_ptr()), vec![]);
        return (0..tiles).for_each(|i| one(&c, a, i, &mut scratch));
    }
    let rows = if tiles >= 16 { m } else { TILE_ROWS };
    c.par_chunks_mut(rows * n).enumerate().for_each(|(i, c)| {
        let a = a.rows(i * rows..m.min((i + 1) * rows));
        let c = AtomicPtr::new(c.as_mut_ptr());
        (0..tiles).into_par_iter().for_each_init(Vec::new, |scratch, i| one(&c, a, i, scratch));
    });
}

/// Writes the product of `a` and `b` to the columns `range` of `c`, a matrix of the rows of `a` and `n` columns that the
/// caller of [`product`] owns.
#[expect(unsafe_code, reason = "the `gemm` crate takes pointers")]
fn multiply(c: &AtomicPtr<f32>, n: usize, range: Range<usize>, a: Matrix<'_>, b: Matrix<'_>, onto: Onto) {
    let c = c.load(Ordering::Relaxed).wrapping_add(range.start);
    // SAFETY: `Matrix` is only made where all of its elements lie inside of its slice, and the sizes of `a` and `b` agree.
    // `c` points to an exclusively borrowed slice of `a.rows * n` elements, of which this writes those in the columns
    // `range`, part of `0..n`; tiles of one slice have disjoint ranges. Steps are no larger than a slice, hence fit.
    unsafe {
        gemm::gemm(
            a.rows,
            range.len(),
            a.columns,
            c,
            1,
            n as isize,
            onto == Onto::Sum,
            a.data.as_ptr(),
            a.column_step as isize,
            a.row_step as isize,
            b.data.as_ptr(),
            b.column_step as isize,
            b.row_step as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// As [`product`], of a factor that is there, and faster where it is a single row or column.
pub(super) fn product_of(c: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, onto: Onto) {
    let ([m, _], [_, n]) = (a.size(), b.size());
    let done = match (m, n) {
        (1, _) => by_vector(c, b.transposed(), a.transposed(), onto),
        (_, 1) => by_vector(c, a, b, onto),
        _ => None,
    };
    if done.is_none() {
        product(c, a, n, &b, onto);
    }
}

/// Writes the product of `a` and a matrix of one column to `c`; `None` where the steps of `a` do not allow it.
fn by_vector(c: &mut [f32], a: Matrix<'_>, x: Matrix<'_>, onto: Onto) -> Option<()> {
    let [m, k] = a.size();
    assert!(c.len() == m && x.size() == [k, 1], "a vector of {k} elements");
    let x: Vec<f32> = (0..k).map(|i| x.data[i * x.row_step]).collect();
    let size = (super::data::GRAIN * 4).div_ceil(k.max(1));
    let by_rows = m == 0 || a.row(0).is_some();
    if !by_rows && a.transposed().row(0).is_none() {
        return None;
    }
    super::data::each_task(c, size.next_multiple_of(16), |start, c| {
        if onto == Onto::Nothing {
            c.fill(0.0);
        }
        if by_rows {
            c.iter_mut().enumerate().for_each(|(i, c)| *c += dot(a.row(start + i).unwrap_or_default(), &x));
        } else {
            let columns = a.rows(start..start + c.len()).transposed();
            for (i, x) in x.iter().enumerate() {
                let column = columns.row(i).unwrap_or_default();
                c.iter_mut().zip(column).for_each(|(c, a)| *c += a * x);
            }
        }
    });
    Some(())
}

/// The sum of products, in lanes that vector instructions can hold.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 32;
    let mut lanes = [0f32; LANES];
    let (a_parts, b_parts) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_parts.zip(b_parts) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i * 7 % 11) as f32 - 5.0).collect()
    }

    fn check(m: usize, k: usize, n: usize, [transpose_a, transpose_b]: [bool; 2], onto: Onto) {
        let (a, b) = (numbers(m * k), numbers(k * n));
        let matrix = |data, rows, columns, transpose| {
            let m = if transpose { Matrix::packed(data, columns, rows) } else { Matrix::packed(data, rows, columns) };
            let m = m.expect("as many elements");
            if transpose { m.transposed() } else { m }
        };
        let (a, b) = (matrix(&a, m, k, transpose_a), matrix(&b, k, n, transpose_b));
        let at = |m: Matrix<'_>, i: usize, j: usize| m.data[i * m.row_step + j * m.column_step];
        let mut c = numbers(m * n);
        let old = c.clone();
        let before = |i: usize| if onto == Onto::Sum { old[i] } else { 0.0 };
        let want: Vec<f32> =
            (0..m * n).map(|i| before(i) + (0..k).map(|p| at(a, i / n, p) * at(b, p, i % n)).sum::<f32>()).collect();
        product_of(&mut c, a, b, onto);
        assert_eq!(c, want, "{m} {k} {n} {transpose_a} {transpose_b} {onto:?}");
    }

    #[test]
    fn products_are_those_of_the_definition_in_any_layout() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 4), (1, 40, 70), (70, 40, 1), (130, 17, 530), (257, 9, 600), (2, 0, 3)] {
            for transposed in [[false, false], [true, false], [false, true], [true, true]] {
                check(m, k, n, transposed, Onto::Nothing);
                check(m, k, n, transposed, Onto::Sum);
            }
        }
    }

    #[test]
    fn matrices_outside_of_their_elements_are_refused() {
        let data = [0.0; 6];
        assert!(Matrix::packed(&data, 2, 3).is_some());
        assert!(Matrix::packed(&data, 2, 4).is_none());
        assert!(Matrix::new(&data, [2, 3], [usize::MAX, 1]).is_none());
        assert!(Matrix::new(&data, [3, 2], [1, 4]).is_none());
        assert!(Matrix::new(&[], [0, usize::MAX], [1, usize::MAX]).is_none());
        assert!(Matrix::new(&[], [0, 7], [7, 1]).is_some());
    }

    #[test]
    #[should_panic(expected = "a factor of 3 rows")]
    fn factors_that_do_not_fit_are_refused() {
        let data = [0.0; 6];
        let a = Matrix::packed(&data, 2, 3).expect("six elements");
        product(&mut [0.0; 4], a, 2, &Matrix::packed(&data, 2, 2).expect("four elements"), Onto::Nothing);
    }

    #[test]
    #[should_panic(expected = "a result of 2 rows")]
    fn results_that_do_not_fit_are_refused() {
        let data = [0.0; 6];
        let a = Matrix::packed(&data, 2, 3).expect("six elements");
        product(&mut [0.0; 5], a, 2, &Matrix::packed(&data, 3, 2).expect("six elements"), Onto::Nothing);
    }
}
