//! Codes that are chosen by what the inputs of a weight are like: rounding that makes up for itself, and clusters that
//! mind the elements of strong inputs.

use super::{
    Refusal, Role,
    gptq::{GptqOptions, Hessians, gptq, gptq_palette},
    linear::{Granularity, LinearOptions, Quantized},
    palette::{Groups, Palette, PaletteMethod, PaletteOptions},
};
use mlconv_tensor::{DType, Tensor, f16};
use rayon::prelude::*;
use std::borrow::Cow;

/// What the inputs of a weight are like, over samples.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// How many groups the rows of the weight belong to, each with inputs of its own.
    pub groups: usize,
    /// The inputs of a row.
    pub d: usize,
    /// `f64[groups, d, d]`: the sums of the products of each two inputs.
    pub data: Vec<f64>,
    /// How many inputs were seen.
    pub rows: u64,
}

/// How the rows of a weight lie: sums over inputs, one for each output channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// One after the other.
    Rows,
    /// As the columns of a matrix.
    Columns,
}

impl Inputs {
    fn hessians(&self) -> Hessians<'_> {
        Hessians { groups: self.groups, data: &self.data }
    }

    fn lie(&self, shape: &[usize], role: Role) -> Result<Lie, Refusal> {
        let lie = match (shape, role) {
            ([_, ..], Role { output: 0, input: 1 }) => Lie::Rows,
            ([_, _], Role { output: 1, input: 0 }) => Lie::Columns,
            _ => return Err(Refusal::new("its rows are not those of a matrix or a convolution")),
        };
        let rows = shape[role.output];
        let d = shape.iter().product::<usize>() / rows.max(1);
        if d != self.d || self.groups == 0 || !rows.is_multiple_of(self.groups) {
            return Err(Refusal::new(format!(
                "{rows} rows of {d} inputs, and samples show {} of {}",
                self.groups, self.d
            )));
        }
        Ok(lie)
    }

    /// The summed squares of what the outputs of `w` differ by where `decoded` stands for it; `None` where its rows are not
    /// those of a matrix or a convolution.
    pub fn output_error(&self, w: &Tensor, role: Role, decoded: &[f32]) -> Option<f64> {
        let lie = self.lie(w.shape(), role).ok()?;
        let d = self.d;
        let mut errors: Vec<f32> = w.to_f32().iter().zip(decoded).map(|(w, q)| w - q).collect();
        if lie == Lie::Columns {
            errors = turned(&errors, w.shape()[0], w.shape()[1]);
        }
        let share = errors.len() / d.max(1) / self.groups;
        let groups = errors.par_chunks(share * d).zip(self.data.par_chunks(d * d));
        // Rows side by side, so that a row of the sums is read once for all of them.
        let parts: Vec<f64> =
            groups.flat_map(|(errors, h)| errors.par_chunks(ROWS * d).map(move |rows| quadratic(rows, h, d))).collect();
        let sum: f64 = parts.iter().sum();
        sum.is_finite().then_some(sum.max(0.0))
    }

    /// What the squared error of each element counts, by the strength of its input; `None` where no input is ever there.
    pub(super) fn importance(&self, shape: &[usize], role: Role) -> Option<Vec<f32>> {
        let lie = self.lie(shape, role).ok()?;
        let d = self.d;
        let strengths: Vec<f32> = self
            .data
            .chunks_exact((d * d).max(1))
            .flat_map(|h| {
                let diagonal: Vec<f64> = (0..d).map(|i| h[i * d + i]).collect();
                let mean = diagonal.iter().sum::<f64>() / d as f64;
                // A floor, so that inputs that the samples lack count a little.
                diagonal.into_iter().map(move |x| if mean > 0.0 { ((x + 0.01 * mean) / mean) as f32 } else { 1.0 })
            })
            .collect();
        if strengths.iter().any(|x| !x.is_finite() || *x < 0.0) {
            return None;
        }
        let rows = shape[role.output];
        let share = rows / self.groups;
        let mut out = vec![0.0; rows * d];
        match lie {
            Lie::Rows => out.par_chunks_mut(d).enumerate().for_each(|(row, to)| {
                to.copy_from_slice(&strengths[row / share * d..][..d]);
            }),
            Lie::Columns => out.par_chunks_mut(rows).zip(&strengths).for_each(|(to, s)| to.fill(*s)),
        }
        Some(out)
    }
}

/// Rows whose errors are taken together.
const ROWS: usize = 16;

/// The sum of `e h eᵀ` over the rows `e`.
fn quadratic(rows: &[f32], h: &[f64], d: usize) -> f64 {
    let mut sum = 0.0;
    for (i, h) in h.chunks_exact(d).enumerate() {
        for e in rows.chunks_exact(d) {
            let dot: f64 = h[..i].iter().zip(e).map(|(h, e)| h * f64::from(*e)).sum();
            sum += f64::from(e[i]) * (2.0 * dot + h[i] * f64::from(e[i]));
        }
    }
    sum
}

/// As [`quantize`](super::linear::quantize), with rounding by the inputs.
pub(super) fn quantize(w: &Tensor, role: Role, o: &LinearOptions<'_>, inputs: &Inputs) -> Result<Quantized, Refusal> {
    let lie = inputs.lie(w.shape(), role)?;
    let Granularity::Boxes(sizes) = &o.granularity else {
        return Err(Refusal::new("rounding by inputs wants sizes of boxes"));
    };
    // Scales of runs follow the elements, one run after the other, so the order is that of the runs.
    let runs = sizes.get(role.input).is_some_and(|n| *n != 0);
    let how = GptqOptions { activation_order: !runs, ..GptqOptions::default() };
    if lie == Lie::Rows {
        return gptq(w, &inputs.hessians(), o, &how);
    }
    let (rows, columns) = (w.shape()[0], w.shape()[1]);
    let importance = o.importance.map(|v| turned(v, rows, columns));
    let keep = o.keep.map(|v| turned(v, rows, columns));
    let options = LinearOptions {
        granularity: Granularity::Boxes(sizes.iter().rev().copied().collect()),
        importance: importance.as_deref(),
        keep: keep.as_deref(),
        ..o.clone()
    };
    let q = gptq(&transposed(w), &inputs.hessians(), &options, &how)?;
    Ok(Quantized { data: transposed(&q.data), scale: transposed(&q.scale), offset: q.offset.as_ref().map(transposed) })
}

/// Chooses the indices of `p`, of scalar entries, by the inputs.
pub(super) fn reassign(
    w: &Tensor,
    role: Role,
    p: &mut Palette,
    o: &PaletteOptions<'_>,
    inputs: &Inputs,
) -> Result<(), Refusal> {
    let lie = inputs.lie(w.shape(), role)?;
    let along_outputs = match o.groups {
        Groups::Tensor => true,
        Groups::Channels { axis, .. } => axis == role.output,
    };
    if o.cluster_dim > 1 || p.scale.is_some() || !along_outputs || o.method == PaletteMethod::Unique {
        return Err(Refusal::new(
            "entries that are vectors or scaled, or groups of inputs, are taken by nearness alone",
        ));
    }
    let entries = 1usize << p.indices.dtype().bits();
    let tables: Vec<Vec<f32>> = p.lut.to_f32().chunks(entries).map(<[f32]>::to_vec).collect();
    let keep = o.keep.map(|v| match lie {
        Lie::Rows => Cow::Borrowed(v),
        Lie::Columns => Cow::Owned(turned(v, w.shape()[0], w.shape()[1])),
    });
    let seen = if lie == Lie::Columns { Cow::Owned(transposed(w)) } else { Cow::Borrowed(w) };
    let how = GptqOptions { activation_order: true, ..GptqOptions::default() };
    let codes = gptq_palette(&seen, &inputs.hessians(), &tables, keep.as_deref(), &how)?;
    let codes = if lie == Lie::Columns { turned(&codes, seen.shape()[0], seen.shape()[1]) } else { codes };
    let codes: Vec<i64> = codes.into_iter().map(i64::from).collect();
    p.indices = Tensor::from_i64(p.indices.dtype(), w.shape(), &codes);
    Ok(())
}

/// The elements of a matrix of `rows` rows, column after column.
fn turned<T: Copy + Default + Send + Sync>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = vec![T::default(); values.len()];
    out.par_chunks_mut(rows.max(1)).enumerate().for_each(|(column, to)| {
        to.iter_mut().zip(values.iter().skip(column).step_by(columns.max(1))).for_each(|(to, x)| *to = *x);
    });
    out
}

/// A matrix with its axes exchanged.
fn transposed(t: &Tensor) -> Tensor {
    let [rows, columns] = *t.shape() else { return t.clone() };
    let shape = [columns, rows];
    match t.dtype() {
        DType::F16 => Tensor::from_vec(&shape, turned(&t.view::<f16>().unwrap_or_default(), rows, columns)),
        DType::F32 => Tensor::from_vec(&shape, turned(&t.view::<f32>().unwrap_or_default(), rows, columns)),
        dtype => Tensor::from_i64(dtype, &shape, &turned(&t.to_i64(), rows, columns)),
    }
}
