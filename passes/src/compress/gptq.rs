//! Rounding that knows the inputs: what one element loses, later elements of its row make up for.
//!
//! Source: Frantar et al. 2023, GPTQ. The weights that are still free and make up for `δ`, the errors so far, need no
//! inverse of the Hessian `H`: with `H = Mᵀ M`, `M` lower triangular, the output error of a row is `|M δ|²`, and element `i`
//! of `M δ` is zero at `δ[i] = -Σ_{k<i} M[i, k] δ[k] / M[i, i]`. So element `i` is rounded at that place.

use super::{
    Refusal,
    affine::{Affine, Codes},
    blocks::Blocks,
    linear::{LinearOptions, Quantized, check_options, fit, stored},
    weight,
};
use mlconv_tensor::{DType, Tensor};
use rayon::prelude::*;
use std::{borrow::Cow, ops::Range};

/// What the inputs of a weight are like: `Xᵀ X` over the samples, for each group of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Hessians<'a> {
    /// How many groups the rows of the weight belong to, in order.
    pub groups: usize,
    /// `f64[groups, d, d]`, each symmetric, for rows of `d` elements.
    pub data: &'a [f64],
}

/// How to make up for errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GptqOptions {
    /// What is added to the diagonal, as a share of its mean.
    pub damping: f64,
    /// Whether elements of strong inputs are rounded first. Scales are those of the weight as it is, then.
    pub activation_order: bool,
}

impl Default for GptqOptions {
    fn default() -> Self {
        Self { damping: 0.01, activation_order: false }
    }
}

/// Quantizes `w`, seen as rows `[out, d]`, so that `|X (w - q)ᵀ|` is small.
///
/// Scales are those of [`quantize`](super::linear::quantize), for the tensor, rows, or runs within rows. The scale of a run
/// is that of the elements as they are when it begins, which make up for errors before it. Elements that `keep` does not
/// name become zero. Inputs that are zero in all samples do not count, so elements for them are rounded by themselves.
///
/// Errors: those of `quantize`; scales that rows share in parts; a Hessian of another size, not finite, or with negative
/// eigenvalues that the damping does not lift.
pub fn gptq(w: &Tensor, h: &Hessians<'_>, o: &LinearOptions<'_>, g: &GptqOptions) -> Result<Quantized, Refusal> {
    weight::check(w)?;
    check_options(w, o)?;
    let codes = Codes::new(o.dtype, o.symmetric, w.dtype())?;
    let blocks = Blocks::new(w.shape(), &o.granularity)?;
    let rows = Rows::new(w, o.keep)?;
    let whole = blocks.len() == w.count();
    let runs = blocks.in_order() && rows.d.is_multiple_of(blocks.len());
    if !(whole || runs) {
        let why = "rounding by inputs wants a scale for the tensor, each row along axis 0, or each run of a row";
        return Err(Refusal::new(why));
    }
    let mut coder = Linear { codes, o, len: blocks.len() };
    let first: Vec<Affine> =
        rows.values.par_chunks(blocks.len()).enumerate().map(|(i, v)| coder.fit(i * blocks.len(), v)).collect();
    let mut affines = if whole { first.repeat(rows.count) } else { first };
    coder.len = coder.len.min(rows.d);
    let later = coder.len < rows.d && !g.activation_order;
    let bytes = if w.dtype() == DType::F16 {
        assign(&rows, h, g, &Rounding::<true>(&coder), &mut affines, later)?
    } else {
        assign(&rows, h, g, &Rounding::<false>(&coder), &mut affines, later)?
    };
    if whole {
        affines.truncate(1);
    }
    stored(w, o.dtype, &codes, blocks.counts(), bytes, &affines)
}

/// Assigns the elements of `w`, seen as rows `[out, d]`, to the entries of fixed tables, so that `|X (w - q)ᵀ|` is small.
///
/// `tables`: the entries that consecutive rows share, as many rows each. Result: the number of the entry for each element,
/// 0 for those that `keep` does not name, whose decoded number is taken for zero.
///
/// Errors: tables that do not divide the rows, are empty, of more than 256 entries, or not finite; and those of [`gptq`].
pub fn gptq_palette(
    w: &Tensor,
    h: &Hessians<'_>,
    tables: &[Vec<f32>],
    keep: Option<&[bool]>,
    g: &GptqOptions,
) -> Result<Vec<u8>, Refusal> {
    weight::check(w)?;
    let rows = Rows::new(w, keep)?;
    if tables.is_empty() || !rows.count.is_multiple_of(tables.len()) {
        return Err(Refusal::new(format!("{} tables for {} rows", tables.len(), rows.count)));
    }
    let share = rows.count / tables.len();
    let tables = tables.iter().map(|t| Table::new(t)).collect::<Result<Vec<_>, _>>()?;
    let mut of: Vec<usize> = (0..rows.count).map(|row| row / share).collect();
    assign(&rows, h, g, &Tables(&tables), &mut of, false)
}

/// How numbers become codes, by parameters of their own for each run of a row.
trait Coder: Sync {
    type Params: Copy + Send;

    /// The parameters for `values`, which stand at `place` of the weight.
    fn choose(&self, place: usize, values: &[f32], now: Self::Params) -> Self::Params;

    /// The code of `x`, and what it decodes to.
    fn round(&self, by: Self::Params, x: f32) -> (u8, f32);

    /// The code of an element that is dropped.
    fn dropped(&self, by: Self::Params) -> u8;
}

/// Small integers.
struct Linear<'a> {
    codes: Codes,
    o: &'a LinearOptions<'a>,
    len: usize,
}

impl Linear<'_> {
    fn fit(&self, place: usize, values: &[f32]) -> Affine {
        let part = place..place + values.len();
        let importance = self.o.importance.and_then(|v| v.get(part.clone()));
        let keep = self.o.keep.and_then(|v| v.get(part));
        fit(values, importance, keep, &self.codes, self.o.range)
    }
}

/// Integers that decode to halves, or to single precision.
struct Rounding<'a, const HALF: bool>(&'a Linear<'a>);

impl<const HALF: bool> Coder for Rounding<'_, HALF> {
    type Params = Affine;

    fn choose(&self, place: usize, values: &[f32], _: Affine) -> Affine {
        self.0.fit(place, values)
    }

    fn round(&self, by: Affine, x: f32) -> (u8, f32) {
        let level = by.level::<HALF>(x);
        (by.code(level), by.value::<HALF>(level))
    }

    fn dropped(&self, by: Affine) -> u8 {
        by.code(0.0)
    }
}

/// Fixed tables, by number.
struct Tables<'a>(&'a [Table]);

impl Coder for Tables<'_> {
    type Params = usize;

    fn choose(&self, _: usize, _: &[f32], now: usize) -> usize {
        now
    }

    fn round(&self, by: usize, x: f32) -> (u8, f32) {
        self.0.get(by).map_or((0, x), |t| t.nearest(x))
    }

    fn dropped(&self, _: usize) -> u8 {
        0
    }
}

/// The entries of a table in ascending order, each with its number.
struct Table(Vec<(f32, u8)>);

impl Table {
    fn new(entries: &[f32]) -> Result<Self, Refusal> {
        if entries.is_empty() || entries.len() > 256 || entries.iter().any(|x| !x.is_finite()) {
            return Err(Refusal::new(format!("a table of {} entries, not 1 to 256 finite ones", entries.len())));
        }
        let mut sorted: Vec<(f32, u8)> = entries.iter().copied().zip(0..=u8::MAX).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Self(sorted))
    }

    fn nearest(&self, x: f32) -> (u8, f32) {
        let after = self.0.partition_point(|(v, _)| *v < x);
        let sides = self.0.get(after.saturating_sub(1)..=after.min(self.0.len() - 1)).unwrap_or_default();
        let near = sides.iter().min_by(|a, b| (a.0 - x).abs().total_cmp(&(b.0 - x).abs()));
        near.map_or((0, x), |(v, code)| (*code, *v))
    }
}

/// A weight as rows.
struct Rows<'a> {
    values: Cow<'a, [f32]>,
    count: usize,
    /// The length of a row.
    d: usize,
    keep: Option<&'a [bool]>,
}

impl<'a> Rows<'a> {
    fn new(w: &'a Tensor, keep: Option<&'a [bool]>) -> Result<Self, Refusal> {
        let count = w.shape().first().copied().unwrap_or(1);
        if let Some(keep) = keep.filter(|k| k.len() != w.count()) {
            return Err(Refusal::new(format!("{} marks for {} elements", keep.len(), w.count())));
        }
        Ok(Self { values: w.to_f32(), count, d: w.count() / count.max(1), keep })
    }
}

/// The codes of all rows. There are as many parameters for each row; where they are chosen `later`, those of a run are set
/// when it begins.
fn assign<C: Coder>(
    rows: &Rows<'_>,
    h: &Hessians<'_>,
    g: &GptqOptions,
    coder: &C,
    params: &mut [C::Params],
    later: bool,
) -> Result<Vec<u8>, Refusal> {
    let d = rows.d;
    let want = d.checked_mul(d).and_then(|n| n.checked_mul(h.groups));
    if h.groups == 0 || !rows.count.is_multiple_of(h.groups) || want != Some(h.data.len()) {
        let (n, of) = (h.data.len(), h.groups);
        return Err(Refusal::new(format!("{n} elements of {of} Hessians for {} rows of {d} elements", rows.count)));
    }
    let (share, per_row) = (rows.count / h.groups, params.len() / rows.count);
    let mut out = vec![0u8; rows.values.len()];
    let groups =
        out.par_chunks_mut(share * d).zip(params.par_chunks_mut(share * per_row)).zip(h.data.par_chunks(d * d));
    groups.enumerate().try_for_each(|(group, ((out, params), h))| {
        let feedback = Feedback::new(h, d, g)?;
        let tiles = out.par_chunks_mut(LANES * d).zip(params.par_chunks_mut(LANES * per_row));
        tiles.enumerate().for_each(|(tile, (out, params))| {
            let row = group * share + tile * LANES;
            Tile { rows, row, feedback: &feedback, coder, params, per_row, out }.run(later);
        });
        Ok(())
    })?;
    Ok(out)
}

/// Rows that are rounded side by side.
const LANES: usize = 8;
/// Elements of a row whose sums over earlier elements are taken together.
const PANEL: usize = 128;

type Lanes = [f32; LANES];

struct Tile<'a, C: Coder> {
    rows: &'a Rows<'a>,
    /// The first row.
    row: usize,
    feedback: &'a Feedback,
    coder: &'a C,
    /// Those of the rows, one row after the other.
    params: &'a mut [C::Params],
    per_row: usize,
    out: &'a mut [u8],
}

impl<C: Coder> Tile<'_, C> {
    fn run(mut self, later: bool) {
        let d = self.rows.d;
        let (len, lanes) = (d / self.per_row.max(1), self.out.len() / d);
        let weights: Vec<Lanes> = self.feedback.order.iter().map(|at| self.lanes(lanes, *at)).collect();
        let mut errors = vec![[0f32; LANES]; d];
        let panel = if later { len } else { PANEL };
        for start in (0..d).step_by(panel) {
            let end = (start + panel).min(d);
            let before = self.feedback.sums(start..end, &errors);
            if later {
                self.choose(start..end, lanes, &weights, &before);
            }
            for i in start..end {
                let within = self.feedback.sum(i, start, &errors);
                let at = self.feedback.order[i];
                for lane in 0..lanes {
                    let w = weights[i][lane];
                    let place = (self.row + lane) * d + at;
                    let by = self.params[lane * self.per_row + at / len];
                    let stays = self.rows.keep.is_none_or(|k| k[place]);
                    let (code, value) = if stays {
                        self.coder.round(by, w - before[i - start][lane] - within[lane])
                    } else {
                        (self.coder.dropped(by), 0.0)
                    };
                    self.out[lane * d + at] = code;
                    errors[i][lane] = value - w;
                }
            }
        }
    }

    /// The elements at one place of the rows.
    fn lanes(&self, lanes: usize, at: usize) -> Lanes {
        let mut out = [0.0; LANES];
        for (lane, x) in out.iter_mut().enumerate().take(lanes) {
            *x = self.rows.values[(self.row + lane) * self.rows.d + at];
        }
        out
    }

    /// Sets the parameters of the run `part` of each row, for the elements that would make up for all errors before it.
    fn choose(&mut self, part: Range<usize>, lanes: usize, weights: &[Lanes], before: &[Lanes]) {
        let mut shifts = vec![[0f32; LANES]; part.end];
        for i in part.clone() {
            let within = self.feedback.sum(i, part.start, &shifts);
            for lane in 0..LANES {
                shifts[i][lane] = -before[i - part.start][lane] - within[lane];
            }
        }
        for lane in 0..lanes {
            let values: Vec<f32> = part.clone().map(|i| weights[i][lane] + shifts[i][lane]).collect();
            let place = (self.row + lane) * self.rows.d + part.start;
            let by = &mut self.params[lane * self.per_row + part.start / part.len()];
            *by = self.coder.choose(place, &values, *by);
        }
    }
}

/// How the errors of earlier elements move later ones.
struct Feedback {
    /// The places of a row in the order in which they are rounded.
    order: Vec<usize>,
    /// The rows of `M`, each divided by its diagonal.
    rows: Vec<f32>,
}

impl Feedback {
    fn new(h: &[f64], d: usize, g: &GptqOptions) -> Result<Self, Refusal> {
        if let Some(at) = h.iter().position(|x| !x.is_finite()) {
            return Err(Refusal::new(format!("element {at} of a Hessian is not finite")));
        }
        let diagonal: Vec<f64> = (0..d).map(|i| h[i * d + i]).collect();
        let mut order: Vec<usize> = (0..d).collect();
        if g.activation_order {
            order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]));
        }
        let mean = diagonal.iter().sum::<f64>() / d as f64;
        let damping = if g.damping.is_finite() { g.damping.max(0.0) * mean } else { 0.0 };
        let mut m = vec![0f64; d * d];
        for (row, i) in m.chunks_mut(d).zip(&order) {
            for (x, k) in row.iter_mut().zip(&order) {
                // An input that is always zero is made one that goes with no other.
                let dead = diagonal[*i] <= 0.0 || diagonal[*k] <= 0.0;
                *x = match (i == k, dead) {
                    (true, true) => 1.0,
                    (false, true) => 0.0,
                    (true, false) => h[i * d + k] + damping,
                    (false, false) => h[i * d + k],
                };
            }
        }
        if !decompose(&mut m, d) {
            let damping = g.damping;
            return Err(Refusal::new(format!("the Hessian has negative eigenvalues that damping by {damping} leaves")));
        }
        let mut rows = vec![0f32; d * d];
        rows.par_chunks_mut(d).zip(m.par_chunks(d)).enumerate().for_each(|(i, (to, row))| {
            to.iter_mut().zip(row).take(i).for_each(|(to, x)| *to = (x / row[i]) as f32);
        });
        Ok(Self { order, rows })
    }

    fn row(&self, i: usize) -> &[f32] {
        let d = self.order.len();
        &self.rows[i * d..(i + 1) * d]
    }

    /// What `errors[start..i]` move element `i` by.
    fn sum(&self, i: usize, start: usize, errors: &[Lanes]) -> Lanes {
        let mut sum = [0f32; LANES];
        for (m, e) in self.row(i)[start..i].iter().zip(&errors[start..i]) {
            for lane in 0..LANES {
                sum[lane] += m * e[lane];
            }
        }
        sum
    }

    /// What the errors before `part` move each element of `part` by.
    fn sums(&self, part: Range<usize>, errors: &[Lanes]) -> Vec<Lanes> {
        let (before, last) = (&errors[..part.start], self.order.len() - 1);
        let mut out = Vec::with_capacity(part.len() + 4);
        for i in part.clone().step_by(4) {
            // Four at a time, so that an error that was loaded is used four times.
            let [a, b, c, e] = [0, 1, 2, 3].map(|k| &self.row((i + k).min(last))[..part.start]);
            let mut sums = [[0f32; LANES]; 4];
            for ((((a, b), c), e), error) in a.iter().zip(b).zip(c).zip(e).zip(before) {
                for (sum, m) in sums.iter_mut().zip([a, b, c, e]) {
                    for lane in 0..LANES {
                        sum[lane] += m * error[lane];
                    }
                }
            }
            out.extend(sums);
        }
        out.truncate(part.len());
        out
    }
}

/// Rows of a matrix that are eliminated together.
const BLOCK: usize = 64;

/// Replaces the lower triangle of `h`, `d` by `d`, by that of `M` in `H = Mᵀ M`; whether there is such an `M`.
fn decompose(h: &mut [f64], d: usize) -> bool {
    let mut end = d;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        for i in (start..end).rev() {
            let (above, row) = h.split_at_mut(i * d);
            let pivot = row[i];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return false;
            }
            row[i] = pivot.sqrt();
            let root = row[i];
            row[start..i].iter_mut().for_each(|x| *x /= root);
            for k in start..i {
                let factor = row[k];
                let to = &mut above[k * d + start..=k * d + k];
                to.iter_mut().zip(&row[start..]).for_each(|(x, y)| *x -= factor * y);
            }
        }
        let (above, block) = h[..end * d].split_at_mut(start * d);
        let panels = eliminate(block, d, start);
        let height = end - start;
        block.par_chunks_mut(d).enumerate().for_each(|(b, row)| {
            let columns = panels.iter().skip(b).step_by(height).flatten();
            row[..start].iter_mut().zip(columns).for_each(|(x, y)| *x = *y);
        });
        above.par_chunks_mut(4 * d).enumerate().for_each(|(i, rows)| {
            let left = &panels[i * height..(i + 1) * height];
            for (j, right) in panels.chunks(height).enumerate().take(i + 1) {
                let mut products = [[0f64; 4]; 4];
                for (a, b) in left.iter().zip(right) {
                    for (to, a) in products.iter_mut().zip(a) {
                        for (to, b) in to.iter_mut().zip(b) {
                            *to += a * b;
                        }
                    }
                }
                for (row, products) in rows.chunks_mut(d).zip(&products) {
                    row[4 * j..].iter_mut().zip(products).for_each(|(x, y)| *x -= y);
                }
            }
        });
        end = start;
    }
    true
}

/// The columns `..start` of the rows of `M` in `block`, whose triangle from there on is done: four columns after four, each
/// from the first row to the last.
fn eliminate(block: &[f64], d: usize, start: usize) -> Vec<[f64; 4]> {
    let height = block.len() / d;
    let mut panels = vec![[0f64; 4]; start.div_ceil(4) * height];
    panels.par_chunks_mut(height).enumerate().for_each(|(column, panel)| {
        for (to, row) in panel.iter_mut().zip(block.chunks(d)) {
            to.iter_mut().zip(&row[4 * column..start]).for_each(|(to, x)| *to = *x);
        }
        for (b, row) in block.chunks(d).enumerate().rev() {
            let done = panel[b].map(|x| x / row[start + b]);
            panel[b] = done;
            for (to, factor) in panel[..b].iter_mut().zip(&row[start..]) {
                to.iter_mut().zip(done).for_each(|(to, x)| *to -= factor * x);
            }
        }
    });
    panels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::linear::{Granularity, RangeMethod, quantize};
    use mlconv_tensor::f16;

    /// Numbers that look like chance, between -1 and 1.
    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next() + next() * next()).collect()
    }

    /// `Xᵀ X` of samples whose inputs go with one another.
    fn hessian(d: usize, seed: u64) -> Vec<f64> {
        let mut h = vec![0f64; d * d];
        for sample in 0..3 * d as u64 {
            let noise = numbers(d + 3, seed * 1000 + sample);
            let x: Vec<f64> =
                (0..d).map(|i| f64::from(noise[i] * 0.4 + noise[d + i % 3] * (1.0 + (i % 5) as f32))).collect();
            for i in 0..d {
                (0..d).for_each(|k| h[i * d + k] += x[i] * x[k]);
            }
        }
        h
    }

    /// The output error of all rows.
    fn error(w: &Tensor, decoded: &[f32], h: &[f64], groups: usize) -> f64 {
        let (w, count) = (w.to_f32(), w.shape()[0]);
        let d = w.len() / count;
        let delta: Vec<f64> = w.iter().zip(decoded).map(|(w, q)| f64::from(q - w)).collect();
        let row = |(r, e): (usize, &[f64])| -> f64 {
            let h = &h[r / (count / groups) * d * d..][..d * d];
            (0..d).map(|i| e[i] * (0..d).map(|k| h[i * d + k] * e[k]).sum::<f64>()).sum()
        };
        delta.chunks(d).enumerate().map(row).sum()
    }

    fn options(dtype: DType, symmetric: bool, granularity: Granularity) -> LinearOptions<'static> {
        LinearOptions { dtype, symmetric, granularity, range: RangeMethod::MinMax, importance: None, keep: None }
    }

    #[test]
    fn factors_multiply_to_the_matrix() {
        for d in [1, 3, 64, 67, 150] {
            let mut h = hessian(d, 3);
            (0..d).for_each(|i| h[i * d + i] += 1.0);
            let mut m = h.clone();
            assert!(decompose(&mut m, d));
            for i in 0..d {
                for k in 0..=i {
                    let product: f64 = (i..d).map(|b| m[b * d + i] * m[b * d + k]).sum();
                    assert!((product - h[i * d + k]).abs() < 1e-9 * h[i * d + i].max(h[k * d + k]), "{d}: {i} {k}");
                }
            }
        }
        assert!(!decompose(&mut [1.0, 2.0, 2.0, 1.0], 2));
    }

    #[test]
    fn outputs_change_less_than_by_rounding() {
        let shape = [11, 10, 3, 5];
        let values: Vec<f16> = numbers(11 * 150, 1).into_iter().map(f16::from_f32).collect();
        let w = Tensor::from_vec(&shape, values);
        let data = hessian(150, 2);
        let h = Hessians { groups: 1, data: &data };
        for granularity in
            [Granularity::Tensor, Granularity::Channel { axis: 0 }, Granularity::Block { axis: 1, size: 2, channel: 0 }]
        {
            for (dtype, symmetric) in [(DType::I4, true), (DType::U4, false)] {
                let o = options(dtype, symmetric, granularity.clone());
                let plain = quantize(&w, &o).expect("a weight");
                let plain = error(&w, &plain.decoded(), &data, 1);
                for activation_order in [false, true] {
                    let g = GptqOptions { activation_order, ..GptqOptions::default() };
                    let q = gptq(&w, &h, &o, &g).expect("a Hessian that fits");
                    assert_eq!((q.data.shape(), q.data.dtype()), (&shape[..], dtype));
                    let e = error(&w, &q.decoded(), &data, 1);
                    assert!(e < 0.5 * plain, "{granularity:?} {dtype} {activation_order}: {e} of {plain}");
                }
            }
        }
    }

    #[test]
    fn each_group_has_its_inputs() {
        let w = Tensor::from_vec(&[20, 30], numbers(600, 5));
        let data = [hessian(30, 6), hessian(30, 7).iter().map(|x| x * 9.0).collect()].concat();
        let o = options(DType::I4, true, Granularity::Channel { axis: 0 });
        let both = gptq(&w, &Hessians { groups: 2, data: &data }, &o, &GptqOptions::default()).expect("Hessians");
        let second = w.rows(10..20).expect("rows");
        let alone = Hessians { groups: 1, data: &data[900..] };
        let alone = gptq(&second, &alone, &o, &GptqOptions::default()).expect("a Hessian");
        assert_eq!(both.data.to_i64()[300..], alone.data.to_i64());
        let plain = quantize(&w, &o).expect("a weight").decoded();
        assert!(error(&w, &both.decoded(), &data, 2) < 0.5 * error(&w, &plain, &data, 2));
    }

    #[test]
    fn inputs_that_do_not_matter_are_rounded_by_themselves() {
        let w = Tensor::from_vec(&[4, 16], numbers(64, 8));
        let o = options(DType::I8, true, Granularity::Channel { axis: 0 });
        let plain = quantize(&w, &o).expect("a weight");
        let zeros = [0.0; 256];
        let q = gptq(&w, &Hessians { groups: 1, data: &zeros }, &o, &GptqOptions::default());
        assert_eq!(q, Ok(plain.clone()));
        let mut data = hessian(16, 9);
        for i in 0..16 {
            (data[5 * 16 + i], data[i * 16 + 5]) = (0.0, 0.0);
        }
        let q = gptq(&w, &Hessians { groups: 1, data: &data }, &o, &GptqOptions::default()).expect("a Hessian");
        assert!((0..4).all(|row| q.decoded()[row * 16 + 5] == plain.decoded()[row * 16 + 5]));
    }

    #[test]
    fn elements_that_go_are_made_up_for() {
        let w = Tensor::from_vec(&[9, 40], numbers(360, 10));
        let data = hessian(40, 11);
        let keep: Vec<bool> = w.to_f32().iter().map(|x| x.abs() > 0.3).collect();
        for (dtype, symmetric) in [(DType::I8, true), (DType::U8, false)] {
            let o = LinearOptions { keep: Some(&keep), ..options(dtype, symmetric, Granularity::Channel { axis: 0 }) };
            let q = gptq(&w, &Hessians { groups: 1, data: &data }, &o, &GptqOptions::default()).expect("a Hessian");
            let decoded = q.decoded();
            assert!(decoded.iter().zip(&keep).all(|(x, k)| *k || *x == 0.0));
            let mut plain = quantize(&w, &o).expect("a weight").decoded();
            plain.iter_mut().zip(&keep).filter(|(_, k)| !**k).for_each(|(x, _)| *x = 0.0);
            assert!(error(&w, &decoded, &data, 1) < 0.5 * error(&w, &plain, &data, 1));
        }
    }

    #[test]
    fn tables_are_kept_and_chosen_from() {
        let w = Tensor::from_vec(&[6, 50], numbers(300, 12));
        let data = hessian(50, 13);
        let tables: Vec<Vec<f32>> =
            (1..=2).map(|k| (0..8).map(|i| (i as f32 - 3.5) * 0.2 * k as f32).collect()).collect();
        let h = Hessians { groups: 1, data: &data };
        let indices = gptq_palette(&w, &h, &tables, None, &GptqOptions::default()).expect("tables");
        let decode = |indices: &[u8]| -> Vec<f32> {
            indices.iter().enumerate().map(|(i, c)| tables[i / 150][usize::from(*c)]).collect()
        };
        let sorted: Vec<Table> = tables.iter().map(|t| Table::new(t).expect("a table")).collect();
        let plain: Vec<u8> = w.to_f32().iter().enumerate().map(|(i, x)| sorted[i / 150].nearest(*x).0).collect();
        assert!(error(&w, &decode(&indices), &data, 1) < 0.6 * error(&w, &decode(&plain), &data, 1));
        assert!(gptq_palette(&w, &h, &tables[..0], None, &GptqOptions::default()).is_err());
        assert!(gptq_palette(&w, &h, &[vec![]], None, &GptqOptions::default()).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let w = Tensor::from_vec(&[4, 6], numbers(24, 14));
        let data = hessian(6, 15);
        let of = |data: &[f64], groups, granularity| {
            let o = options(DType::I8, true, granularity);
            gptq(&w, &Hessians { groups, data }, &o, &GptqOptions::default()).expect_err("a refusal").to_string()
        };
        let rows = Granularity::Channel { axis: 0 };
        assert_eq!(of(&data, 2, rows.clone()), "36 elements of 2 Hessians for 4 rows of 6 elements");
        assert_eq!(of(&data, 0, rows.clone()), "36 elements of 0 Hessians for 4 rows of 6 elements");
        let columns = "rounding by inputs wants a scale for the tensor, each row along axis 0, or each run of a row";
        assert_eq!(of(&data, 1, Granularity::Channel { axis: 1 }), columns);
        assert_eq!(of(&[f64::NAN; 36], 1, rows.clone()), "element 0 of a Hessian is not finite");
        let mut bad = data.clone();
        bad[1] = 1e9;
        bad[6] = 1e9;
        assert_eq!(of(&bad, 1, rows), "the Hessian has negative eigenvalues that damping by 0.01 leaves");
    }
}
