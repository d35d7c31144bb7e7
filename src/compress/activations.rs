//! Activations in 8 bits: runs the samples, finds the range of each value, and puts it into the program.

use super::Calibration;
use crate::{Diagnostic, Failure, codes, feed, parity::run_error};
use mlconv_mil::{
    ir::{Function, Module, Value},
    ops::Quantize,
    verify::Verified,
};
use mlconv_passes::{
    Pattern,
    compress::activations::{Activation, Calibrated, Form, Histogram, Method, activations, calibrate, insert},
};
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::{Tensor, TensorType};
use rayon::prelude::*;

/// Samples below which ranges are a guess.
const FEW: usize = 16;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The integers.
    pub form: Form,
    /// How ranges are found.
    pub method: Method,
    /// Ops whose activations stay as they are.
    pub keep: Vec<Pattern>,
}

/// What became of the activations of a model.
#[derive(Clone, Debug)]
pub struct Report {
    /// The integers.
    pub form: Form,
    /// How ranges were found.
    pub method: Method,
    /// The samples that they were found on.
    pub samples: usize,
    /// One per value, in program order.
    pub rows: Vec<Row>,
    /// Values that were held in 8 bits before.
    pub before: usize,
}

/// What became of one value.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in the program.
    pub name: String,
    /// The type of the op that computes it; `None` for an input.
    pub op: Option<&'static str>,
    /// Its element type and shape, such as `f16[1, 64, 56, 56]`.
    pub ty: String,
    /// Types of the ops that read it from 8 bits.
    pub readers: Vec<&'static str>,
    /// Its range; where it has none, why.
    pub outcome: Result<Calibrated, String>,
}

/// What is found, and what a user should know of it.
pub(super) struct Done {
    pub(super) report: Report,
    pub(super) notes: Vec<Diagnostic>,
    pub(super) unapplied: Vec<Diagnostic>,
}

/// Finds the ranges of the activations of `module` on all samples, and puts them into it, unless `dry_run`.
///
/// The program runs as it is: before weights are compressed.
pub(super) fn apply(
    module: &mut Module,
    request: &Request,
    samples: Option<&Calibration>,
    dry_run: bool,
) -> Result<Done, Failure> {
    let Some(samples) = samples else {
        let d = Diagnostic::error(&codes::C0002, "activations need samples, whose ranges they are given");
        return Err(vec![
            d.help("give some with `--calibrate FILE.npz`: some hundred rows of what the model will see"),
        ]);
    };
    let mut unapplied = vec![];
    for p in &request.keep {
        if !module.functions.iter().any(|f| f.all_ops().iter().any(|id| p.means(module, f, *id))) {
            let title = format!("`--keep-activations {}` matches no op", p.as_str());
            unapplied.push(Diagnostic::warning(&codes::L0002, title));
        }
    }
    let found = activations(module, &request.keep);
    let before = module.functions.iter().map(held).sum();
    if found.is_empty() {
        let title = match before {
            0 => "no op of the model can compute with 8-bit activations".to_owned(),
            n => format!("all activations of the model that can be are held in 8 bits already, {n} of them"),
        };
        unapplied.push(Diagnostic::warning(&codes::L0002, title));
    }
    let verified = samples.module();
    let mut count = 0;
    let mut histograms = vec![None; found.len()];
    for (function, f) in verified.functions.iter().enumerate() {
        if found.iter().any(|a| a.function == function) {
            let runs = samples.runs(function);
            count = count.max(rows(f, runs));
            observe(verified, function, runs, &found, &mut histograms)?;
        }
    }
    let ranges = ranges(&found, &histograms, request);
    let rows: Vec<Row> = found.iter().zip(&ranges).map(|(a, r)| row(module, a, r.clone())).collect();
    let mut notes = vec![];
    if count < FEW && !found.is_empty() {
        let title = format!("ranges of activations are from {count} samples: what others hold beyond them is cut off");
        notes.push(Diagnostic::warning(&codes::C0104, title).help("give some hundred rows with `--calibrate`"));
    }
    for row in &rows {
        if let Err(why) = &row.outcome {
            notes.push(Diagnostic::warning(&codes::C0105, format!("`{}` is not held in 8 bits: {why}", row.name)));
        }
    }
    if !dry_run {
        let fitting = found.iter().zip(&ranges).filter_map(|(a, r)| Some((a, r.as_ref().ok()?.affine)));
        let fitting: Vec<_> = fitting.collect();
        insert(module, &fitting).map_err(|e| vec![Diagnostic::error(&codes::P0001, e.to_string())])?;
    }
    let report = Report { form: request.form, method: request.method, samples: count, rows, before };
    Ok(Done { report, notes, unapplied })
}

/// How many values a function holds in 8 bits.
fn held(f: &Function) -> usize {
    f.all_ops().iter().filter(|id| f.op::<Quantize>(**id).is_some()).count()
}

/// How many samples there are: runs, or rows of a batch that is run as one.
fn rows(f: &Function, runs: &[Vec<Option<Tensor>>]) -> usize {
    let [run] = runs else { return runs.len() };
    let batch = |((_, ty), t): ((_, &TensorType), &Option<Tensor>)| {
        let is_open = ty.shape.iter().next().is_some_and(|d| d.as_usize().is_none());
        t.as_ref().filter(|_| is_open).and_then(|t| t.shape().first().copied())
    };
    feed::tensor_inputs(f).zip(run).filter_map(batch).max().unwrap_or(1)
}

/// Runs a function on each sample, counting the elements of `found` as they are computed.
fn observe(
    module: &Verified,
    function: usize,
    runs: &[Vec<Option<Tensor>>],
    found: &[Activation],
    histograms: &mut [Option<Histogram>],
) -> Result<(), Failure> {
    let f = &module.functions[function];
    let mut places = vec![None; f.value_slots()];
    for (i, a) in found.iter().enumerate().filter(|(_, a)| a.function == function) {
        places[a.value.index()] = Some(i);
    }
    let session = Session::new(module, f, &Cpu, Options::default());
    for (n, inputs) in runs.iter().enumerate() {
        let mut bad = None;
        let mut count = |v: Value, t: &Tensor| {
            let Some(i) = places.get(v.index()).copied().flatten() else { return };
            let h = histograms[i].get_or_insert_with(Histogram::default);
            h.add(t);
            if h.not_finite() > 0 {
                bad.get_or_insert((i, h.not_finite()));
            }
        };
        session.run_observed(inputs, &mut States::new(), Some(&mut count)).map_err(|e| vec![run_error(&e)])?;
        if let Some((i, not_finite)) = bad {
            let a = &found[i];
            let title = format!("`{}` has {not_finite} elements that are not finite, on sample {n}", a.name);
            let d = Diagnostic::error(&codes::C0002, title);
            let reader = a.readers.first().and_then(|id| f.op_data(*id).results.first());
            let reader = reader.map_or_else(|| a.name.clone(), |v| f.value(*v).hint.to_string());
            let help = format!("leave the sample out, or the op that reads it, with `--keep-activations {reader}`");
            return Err(vec![d.help(help)]);
        }
    }
    Ok(())
}

/// The range of each value, from all that its group has seen.
fn ranges(
    found: &[Activation],
    histograms: &[Option<Histogram>],
    request: &Request,
) -> Vec<Result<Calibrated, String>> {
    // A group is called after the place of its first value.
    let mut merged: Vec<Option<Histogram>> = vec![None; found.len()];
    for (a, h) in found.iter().zip(histograms) {
        if let Some(h) = h {
            merged[a.group].get_or_insert_with(Histogram::default).merge(h);
        }
    }
    let of = |a: &Activation| {
        let h = merged[a.group].as_ref().ok_or("no sample comes to it")?;
        calibrate(h, request.method, request.form, a.dtype).map_err(|e| e.to_string())
    };
    found.par_iter().map(of).collect()
}

fn row(module: &Module, a: &Activation, outcome: Result<Calibrated, String>) -> Row {
    let f = &module.functions[a.function];
    let readers = a.readers.iter().map(|id| f.op_data(*id).op.schema().name).collect();
    Row { name: a.name.clone(), op: a.op, ty: f.ty(a.value).to_string(), readers, outcome }
}
