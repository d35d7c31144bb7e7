//! What the model loses on samples with weights in other forms.

use super::{
    Metric, Task, cost,
    curve::{Point, Slot, levels},
    fitting, form, known,
};
use crate::{
    Diagnostic, Failure,
    accuracy::Accuracy,
    codes,
    compress::{calibrate::Calibration, spool::Spool},
    parity::run_error,
};
use mlconv_mil::ir::Value;
use mlconv_passes::compress::{Compressed, Inputs, Scheme, Store, Weight, working_memory};
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::{Blob, DType, Tensor, f16};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Weights that are not searched.
pub(super) struct Others<'a> {
    /// Those that have a scheme of their own.
    pub(super) fixed: Vec<(usize, Scheme)>,
    /// For each weight, the one that it is as.
    pub(super) twins: &'a [Option<usize>],
}

/// The first point of the curve whose loss is within a limit, found by halving: losses are taken to fall along it. That of
/// the point which is found is always measured, with the codes that are written.
pub(super) fn least(
    forms: &mut Forms<'_>,
    slots: &[Slot],
    others: &Others<'_>,
    steps: &[usize],
    curve: &mut [Point],
    (metric, limit): (Metric, f64),
) -> Result<usize, Failure> {
    let Some(c) = forms.task.evaluation else { return Ok(steps.len()) };
    let base = finite(outputs(c, &HashMap::new(), usize::MAX)?)?;
    let (mut low, mut high) = (0, steps.len());
    let mut measure = |at: usize, reach: [usize; 2]| {
        let reach = reach.map(|at| levels(slots, &steps[..at]));
        forms.forget(slots, &others.fixed, &reach);
        let loss = forms.loss(c, slots, others, &levels(slots, &steps[..at]), &base, metric)?;
        curve[at].measured = Some(loss);
        Ok::<_, Failure>(loss)
    };
    let fits = |loss: f64| loss <= limit;
    while low < high {
        let at = usize::midpoint(low, high);
        if fits(measure(at, [low, high])?) { high = at } else { low = at + 1 }
    }
    // The last point alone has not been measured. What rules say of other weights may lose too much by itself.
    if low == steps.len() {
        let loss = measure(low, [low, low])?;
        if !fits(loss) {
            let title = format!(
                "`--max-drop {metric}={limit}` cannot be: with every weight that is searched in its best form, the loss is {loss:.4}"
            );
            let help = "ask for less with `--tensor`, or allow a larger loss";
            return Err(vec![Diagnostic::error(&codes::C0002, title).help(help)]);
        }
    }
    Ok(low)
}

/// Weights as they decode from forms, with the codes that are written of them.
pub(super) struct Forms<'a> {
    task: &'a Task<'a>,
    pub(super) store: Spool,
    /// Codes that were made before, by weight and scheme.
    coded: HashMap<(usize, String), Compressed>,
    /// By weight and scheme; none where the weight cannot have the form, and stays as it is.
    made: HashMap<(usize, String), Option<Tensor>>,
}

impl<'a> Forms<'a> {
    pub(super) fn new(task: &'a Task<'a>) -> Self {
        Self { task, store: Spool::new(task.scratch), coded: HashMap::new(), made: HashMap::new() }
    }

    /// Takes codes that are not to be made again.
    pub(super) fn learn(&mut self, weight: usize, scheme: &Scheme, c: Compressed) {
        self.coded.insert((weight, scheme.to_string()), c);
    }

    /// Drops the forms that no point between two can have.
    fn forget(&mut self, slots: &[Slot], fixed: &[(usize, Scheme)], [low, high]: &[Vec<usize>; 2]) {
        let mut stays: HashSet<(usize, String)> = fixed.iter().map(|(i, s)| (*i, s.to_string())).collect();
        for ((slot, low), high) in slots.iter().zip(low).zip(high) {
            stays.extend(slot.hull[*low..=*high].iter().map(|c| (slot.weight, c.parsed.to_string())));
        }
        self.made.retain(|key, _| stays.contains(key));
        self.coded.retain(|key, _| stays.contains(key));
    }

    /// Makes the forms that are not there, as many at a time as there is memory for.
    fn make(&mut self, wanted: &[(usize, &Scheme)]) -> Result<(), Failure> {
        let task = self.task;
        let is_missing = |(i, s): &&(usize, &Scheme)| !self.made.contains_key(&(*i, s.to_string()));
        let missing: Vec<(usize, &Scheme)> = wanted.iter().filter(is_missing).copied().collect();
        let is_coded = |(i, s): &(usize, &Scheme)| self.coded.contains_key(&(*i, s.to_string()));
        let heeds = |t: &(usize, &Scheme)| t.1.code.is_some() && !is_coded(t);
        let need = |t: &(usize, &Scheme)| {
            let (i, s) = t;
            let w = &task.weights[*i];
            let room = 8 * w.tensor.count() as u64;
            if is_coded(t) {
                return room;
            }
            let inputs = if s.code.is_some() { cost(task, *i) } else { 0 };
            let work = w.role.as_ref().map_or(0, |role| working_memory(&w.tensor, *role, s, inputs > 0));
            // What is decoded, and the tensor that is made of it.
            work.saturating_add(inputs).saturating_add(room)
        };
        let mut made = vec![];
        let mut rest = &missing[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest.iter().map(need), task.max_memory));
            // Weights that are pruned alone are not coded.
            let heeding: Vec<&Weight> = now.iter().filter(|t| heeds(t)).map(|(i, _)| &task.weights[*i]).collect();
            let mut seen = known(task, &heeding)?.into_iter();
            let inputs: Vec<_> = now.iter().map(|t| if heeds(t) { seen.next().flatten() } else { None }).collect();
            let forms: Vec<Option<Tensor>> =
                now.par_iter().zip(&inputs).map(|((i, s), inputs)| self.one(*i, s, inputs.as_deref())).collect();
            made.extend(now.iter().map(|(i, s)| (*i, s.to_string())).zip(forms));
            rest = later;
        }
        self.made.extend(made);
        Ok(())
    }

    /// A weight as it decodes from a form.
    fn one(&self, weight: usize, scheme: &Scheme, inputs: Option<&Inputs>) -> Option<Tensor> {
        let w = &self.task.weights[weight];
        let t = match self.coded.get(&(weight, scheme.to_string())) {
            Some(c) => Some(c.decoded(w.tensor.shape())),
            None => form(w, scheme, self.task.opset, inputs).ok().map(|c| c.decoded(w.tensor.shape())),
        };
        let t = t.map(|values| tensor_of(&w.tensor, values));
        w.tensor.blob().release();
        // What no file can hold stays in memory.
        t.map(|t| match self.store.keep(t.blob().bytes()) {
            Ok(bytes) => Tensor::new(t.dtype(), t.shape(), Blob::from(bytes)).unwrap_or(t),
            Err(_) => t,
        })
    }

    /// What the model loses where each slot has the form of a level.
    fn loss(
        &mut self,
        c: &Calibration,
        slots: &[Slot],
        others: &Others<'_>,
        level: &[usize],
        base: &[Tensor],
        metric: Metric,
    ) -> Result<f64, Failure> {
        let task = self.task;
        let searched = slots.iter().zip(level).map(|(s, l)| (s.weight, &s.hull[*l].parsed));
        let chosen: Vec<(usize, &Scheme)> =
            searched.chain(others.fixed.iter().map(|(i, s)| (*i, s))).filter(|(_, s)| !s.is_none()).collect();
        self.make(&chosen)?;
        let own = |(i, s): &(usize, &Scheme)| Some((*i, self.made.get(&(*i, s.to_string()))?.as_ref()?));
        let decoded: HashMap<usize, &Tensor> = chosen.iter().filter_map(own).collect();
        let mut with = HashMap::new();
        for (i, w) in task.weights.iter().enumerate() {
            let own = decoded.get(&i).or_else(|| decoded.get(&others.twins[i]?));
            if let Some(t) = own {
                with.insert((w.function, w.value), (*t).clone());
            }
        }
        let got = outputs(c, &with, usize::MAX)?;
        with.values().for_each(|t| t.blob().release());
        let pairs = || base.iter().zip(&got);
        match metric {
            Metric::Rms => Ok(pairs().map(|(x, y)| relative(x, y).0.sqrt()).fold(0.0, f64::max)),
            Metric::Cosine => Ok(pairs().map(|(x, y)| relative(x, y).1).fold(0.0, f64::max)),
            Metric::Top1 => {
                let labels = task.labels.ok_or_else(|| {
                    let d = Diagnostic::error(&codes::C0002, "`top1` wants the right class of each sample");
                    vec![d.help("give the samples of `--sample` their classes with `--labels`")]
                })?;
                // Those of the first function come first, and only those that are floats.
                let f = &c.module().functions[0];
                let float = |v: &Value| f.ty(*v).tensor().is_some_and(|t| t.dtype.is_float());
                let names: Vec<&str> =
                    f.outputs().iter().zip(&f.sig.outputs).filter(|(v, _)| float(v)).map(|(_, p)| &*p.name).collect();
                let (each, runs) = (names.len().max(1), c.runs(0).len());
                labels.check(c.runs(0).len()).map_err(|d| vec![d])?;
                let mut accuracy = Accuracy::default();
                for (sample, (x, y)) in base.chunks(each).zip(got.chunks(each)).take(runs).enumerate() {
                    let at = Accuracy::choose(names.iter().copied().zip(y)).map_err(|d| vec![d])?;
                    if let Some(label) = labels.get(sample) {
                        accuracy.count(label, &x[at], &y[at]).map_err(|d| vec![d])?;
                    }
                }
                let lost = accuracy.source_correct as f64 - accuracy.package_correct as f64;
                Ok(100.0 * lost / accuracy.samples.max(1) as f64)
            }
        }
    }
}

/// The float outputs of all functions on the first samples, with other constants in the place of some.
pub(super) fn outputs(
    c: &Calibration,
    with: &HashMap<(usize, Value), Tensor>,
    samples: usize,
) -> Result<Vec<Tensor>, Failure> {
    let mut all = vec![];
    for (i, f) in c.module().functions.iter().enumerate() {
        let own = with.iter().filter(|((of, _), _)| *of == i).map(|((_, v), t)| (*v, t.clone())).collect();
        let session = Session::new(c.module(), f, &Cpu, Options::default()).with_constants(&own);
        for inputs in c.runs(i).iter().take(samples) {
            let got = session.run(inputs, &mut States::new()).map_err(|e| vec![run_error(&e)])?;
            all.extend(got.into_iter().filter(|t| t.dtype().is_float()));
        }
    }
    Ok(all)
}

/// The outputs that losses are measured against; an error where they say nothing.
pub(super) fn finite(base: Vec<Tensor>) -> Result<Vec<Tensor>, Failure> {
    if base.iter().all(|t| t.to_f32().iter().any(|x| x.is_finite())) {
        return Ok(base);
    }
    let d = Diagnostic::error(
        &codes::C0002,
        "the model's outputs on the samples are not finite, so no loss can be measured",
    );
    Err(vec![d.help("leave out the samples on which they are not, or see `run` for the first op")])
}

/// The squared difference over the squares of `want`, and one minus the cosine.
pub(super) fn relative(want: &Tensor, got: &Tensor) -> (f64, f64) {
    let (want, got) = (want.to_f32(), got.to_f32());
    let mut sums = [0f64; 4];
    for (x, y) in want.iter().zip(got.iter()) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        if x == y || !x.is_finite() {
            if x.is_finite() {
                sums = [sums[0], sums[1] + x * x, sums[2] + y * y, sums[3] + x * y];
            }
            continue;
        }
        sums = [sums[0] + (x - y) * (x - y), sums[1] + x * x, sums[2] + y * y, sums[3] + x * y];
    }
    let [noise, x, y, xy] = sums;
    let norm = (x * y).sqrt();
    // What is not finite, where it was to be, points nowhere.
    let cosine = match xy / norm {
        _ if noise == 0.0 => 1.0,
        x if x.is_finite() => x,
        _ => 0.0,
    };
    let part = if noise == 0.0 {
        0.0
    } else if x > 0.0 {
        noise / x
    } else {
        f64::MAX.sqrt()
    };
    (if part.is_nan() { f64::MAX.sqrt() } else { part }, 1.0 - cosine)
}

/// Values in the type and shape of a weight.
pub(super) fn tensor_of(like: &Tensor, values: Vec<f32>) -> Tensor {
    if like.dtype() == DType::F16 {
        return Tensor::from_vec(like.shape(), values.into_iter().map(f16::from_f32).collect());
    }
    Tensor::from_vec(like.shape(), values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_all_lost() {
        let loss = |x: [f32; 2], y: [f32; 2]| {
            relative(&Tensor::from_vec(&[2], x.to_vec()), &Tensor::from_vec(&[2], y.to_vec()))
        };
        for lost in [f32::INFINITY, f32::NAN] {
            let (noise, cosine) = loss([1.0, 2.0], [1.0, lost]);
            assert!(noise > 1e100 && cosine == 1.0, "{noise} {cosine}");
        }
        assert_eq!(loss([1.0, f32::INFINITY], [1.0, f32::INFINITY]), (0.0, 0.0));
    }
}
