//! How far two results are from each other.

mod kind;
pub(crate) mod numbers;
mod task;
#[cfg(test)]
mod tests;
mod tolerance;

pub use kind::{Kind, Said, check_said, kinds};
pub use task::Task;
pub use tolerance::{Close, Miss, Noise, Thresholds, Tolerance};

use crate::made_up::EXCLUDES;
use mlconv_tensor::{DType, Tensor, f16};
use numbers::{BLOCK, Numbers, in_parts};
use serde::Serialize;

/// The distance of one output from what it should be; of several samples, the worst, or all of them together, as each says.
/// Distances are of the elements that are finite in both, and of scores of those that are not masked out in both.
#[derive(Clone, Debug, Serialize)]
pub struct OutputDiff {
    /// The output.
    pub name: String,
    /// Its element type and shape in what is judged.
    pub ty: String,
    /// What it holds.
    pub kind: Kind,
    /// Elements compared, over all samples.
    pub count: usize,
    /// The greatest absolute difference.
    pub max_abs: f64,
    /// That, over the greatest magnitude wanted; of the worst sample.
    pub max_rel: f64,
    /// The greatest magnitude wanted.
    pub greatest: f64,
    /// The flat position of the greatest difference.
    pub worst: usize,
    /// The same as coordinates.
    pub worst_index: Vec<usize>,
    /// The sample that it is in.
    pub worst_sample: usize,
    /// The sample that is worst of all: with elements that are not alike at all, or else of least signal over noise.
    #[serde(skip)]
    pub low_sample: usize,
    /// The greatest difference of an element over its own magnitude, where what is wanted is not 0.
    pub max_rel_elementwise: f64,
    /// The coordinates of that element.
    pub worst_rel_index: Vec<usize>,
    /// The sample that it is in.
    pub worst_rel_sample: usize,
    /// The mean absolute difference, over all samples.
    pub mean_abs: f64,
    /// The root of the mean square difference, over all samples.
    pub rms: f64,
    /// Signal over noise in dB; absent where there is no noise; of the worst sample.
    pub snr_db: Option<f64>,
    /// The same of all samples together.
    pub overall_snr_db: Option<f64>,
    /// The square of the greatest magnitude wanted over the mean square difference in dB, over all samples; absent where there
    /// is no noise.
    pub psnr_db: Option<f64>,
    /// The cosine of the angle between the two; absent where one is zero; of the worst sample.
    pub cosine: Option<f64>,
    /// The same of all samples together.
    pub overall_cosine: Option<f64>,
    /// How many numbers of half precision an element is off at most, where the output or what computes it is of that type.
    pub max_ulp: Option<u32>,
    /// Elements that are no number in the source, and in what is judged.
    pub nan: [usize; 2],
    /// Elements that are infinite in the source, and in what is judged.
    pub inf: [usize; 2],
    /// Elements that are finite in only one of the two, or infinite of unlike signs.
    pub non_finite: usize,
    /// Whether there are elements, none of which is finite in both.
    #[serde(skip)]
    pub nothing_finite: bool,
    /// Scores of classes that both models mask out: they are so far below the greatest of their row that nothing is left of them
    /// behind a softmax.
    pub masked: usize,
    /// Integers and booleans that are not equal.
    pub unequal: Option<usize>,
    /// Elements that are further off than [`Tolerance::elementwise`] allows, where that is asked for.
    pub beyond: Option<usize>,
    /// What the difference means, where something is known of what the output holds.
    pub task: Option<Task>,
    /// Why the two cannot be compared.
    pub mismatch: Option<String>,
    /// Whether it follows from random numbers, whose distance says nothing.
    pub drawn: bool,
    /// Whether its values are held to anything, not only its type and shape.
    pub bounded: bool,
    /// The measures that are beyond the tolerance.
    pub missed: Vec<Miss>,
    /// Whether the distance is within the tolerance.
    pub pass: bool,
    #[serde(skip)]
    sums: Sums,
    #[serde(skip)]
    counts: task::Counts,
}

/// Sums over the elements that are finite in both: those of several samples are added.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    elements: f64,
    /// Squares of what is wanted, and of what is judged.
    signal: f64,
    energy: f64,
    /// Products of both.
    dot: f64,
    /// Differences, and their squares.
    total: f64,
    noise: f64,
}

/// What two outputs are compared for.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// How far an output may be off.
    pub tolerance: Tolerance,
    /// What it holds; `None` is what its type says.
    pub kind: Option<Kind>,
    /// Whether half precision is what its numbers were computed in.
    pub half: bool,
}

impl OutputDiff {
    /// The same of an output that follows from random numbers: only its type and shape are judged.
    pub fn of_chance(self) -> Self {
        Self { drawn: true, bounded: false, pass: self.mismatch.is_none(), missed: vec![], ..self }
    }

    /// The same of an output whose distance is no fault: only its type and shape are judged.
    pub fn forgiven(self) -> Self {
        Self { pass: self.mismatch.is_none(), missed: vec![], ..self }
    }

    /// The same of an output that is held to nothing itself.
    pub(crate) fn unbounded(self) -> Self {
        Self { bounded: false, ..self }
    }

    /// The same of an output that cannot be compared.
    pub(crate) fn mismatched(self, why: String) -> Self {
        Self { mismatch: Some(why), pass: false, ..self }
    }

    /// The same, of sample number `sample`.
    pub(crate) fn of_sample(self, sample: usize) -> Self {
        Self { worst_sample: sample, worst_rel_sample: sample, low_sample: sample, ..self }
    }

    /// The same, with `samples` more before it.
    pub(crate) fn behind(self, samples: usize) -> Self {
        let (worst_sample, worst_rel_sample) = (self.worst_sample + samples, self.worst_rel_sample + samples);
        Self { worst_sample, worst_rel_sample, low_sample: self.low_sample + samples, ..self }
    }

    /// Whether something is off that no signal over noise tells.
    fn is_broken(&self) -> bool {
        self.mismatch.is_some() || self.non_finite > 0 || self.unequal.is_some_and(|n| n > 0)
    }

    /// Takes in the distance of the same output on another sample.
    pub fn absorb(&mut self, other: Self) {
        let least = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::min);
        let snr = |d: &Self| if d.is_broken() { f64::NEG_INFINITY } else { d.snr_db.unwrap_or(f64::INFINITY) };
        if snr(&other) < snr(self) {
            self.low_sample = other.low_sample;
        }
        self.count += other.count;
        if other.max_abs > self.max_abs {
            self.max_abs = other.max_abs;
            (self.worst, self.worst_index, self.worst_sample) = (other.worst, other.worst_index, other.worst_sample);
        }
        if other.max_rel_elementwise > self.max_rel_elementwise {
            self.max_rel_elementwise = other.max_rel_elementwise;
            (self.worst_rel_index, self.worst_rel_sample) = (other.worst_rel_index, other.worst_rel_sample);
        }
        self.max_rel = self.max_rel.max(other.max_rel);
        self.greatest = self.greatest.max(other.greatest);
        self.snr_db = least(self.snr_db, other.snr_db);
        self.cosine = least(self.cosine, other.cosine);
        self.max_ulp = self.max_ulp.max(other.max_ulp);
        self.nan = [self.nan[0] + other.nan[0], self.nan[1] + other.nan[1]];
        self.inf = [self.inf[0] + other.inf[0], self.inf[1] + other.inf[1]];
        self.non_finite += other.non_finite;
        self.nothing_finite &= other.nothing_finite;
        self.masked += other.masked;
        self.bounded &= other.bounded;
        self.unequal = self.unequal.zip(other.unequal).map(|(a, b)| a + b);
        self.beyond = self.beyond.zip(other.beyond).map(|(a, b)| a + b);
        self.mismatch = self.mismatch.take().or(other.mismatch);
        for miss in other.missed {
            match self.missed.iter_mut().find(|m| m.measure == miss.measure) {
                None => self.missed.push(miss),
                Some(old) => old.absorb(&miss),
            }
        }
        self.pass &= other.pass;
        self.counts.absorb(other.counts);
        self.task = self.counts.task();
        self.sums.absorb(other.sums);
        self.pool();
    }

    /// What follows from the sums.
    fn pool(&mut self) {
        let Sums { elements, signal, energy, dot, total, noise } = self.sums;
        let n = elements.max(1.0);
        (self.mean_abs, self.rms) = (total / n, (noise / n).sqrt());
        self.overall_snr_db = decibels(signal, noise);
        self.psnr_db = decibels(self.greatest * self.greatest, noise / n);
        self.overall_cosine = (signal > 0.0 && energy > 0.0).then(|| dot / (signal.sqrt() * energy.sqrt()));
    }

    /// Whether all that was wanted is below the normal numbers of half precision, so that little or nothing of it is left
    /// there.
    pub fn below_half(&self) -> bool {
        !self.pass && self.greatest > 0.0 && self.greatest < f64::from(f16::MIN_POSITIVE)
    }
}

impl Sums {
    fn absorb(&mut self, other: Self) {
        self.elements += other.elements;
        self.signal += other.signal;
        self.energy += other.energy;
        self.dot += other.dot;
        self.total += other.total;
        self.noise += other.noise;
    }
}

/// A power over another in dB; `None` where there is no noise.
fn decibels(signal: f64, noise: f64) -> Option<f64> {
    (noise > 0.0).then(|| (10.0 * (signal / noise).log10()).max(-999.0))
}

/// Compares `got` with `want`. Types may differ where an interface cannot have the source's; shapes only between a
/// scalar and a vector of one.
pub fn output(name: &str, want: &Tensor, got: &Tensor, tolerance: Tolerance) -> OutputDiff {
    measured(name, want, got, &Measure { tolerance, kind: None, half: false }).judged(&tolerance)
}

/// As [`output`]; what is known of all samples together only, [`OutputDiff::judged`] judges.
pub fn measured(name: &str, want: &Tensor, got: &Tensor, measure: &Measure) -> OutputDiff {
    let dims: Vec<String> = got.shape().iter().map(ToString::to_string).collect();
    let kind = measure.kind.unwrap_or_else(|| Kind::of_type(got.dtype()));
    let mut d = OutputDiff {
        name: name.to_owned(),
        ty: format!("{}[{}]", got.dtype(), dims.join(", ")),
        kind,
        count: got.count(),
        max_abs: 0.0,
        max_rel: 0.0,
        greatest: 0.0,
        worst: 0,
        worst_index: vec![],
        worst_sample: 0,
        low_sample: 0,
        max_rel_elementwise: 0.0,
        worst_rel_index: vec![],
        worst_rel_sample: 0,
        mean_abs: 0.0,
        rms: 0.0,
        snr_db: None,
        overall_snr_db: None,
        psnr_db: None,
        cosine: None,
        overall_cosine: None,
        max_ulp: None,
        nan: [0; 2],
        inf: [0; 2],
        non_finite: 0,
        nothing_finite: false,
        masked: 0,
        unequal: None,
        beyond: None,
        task: None,
        mismatch: None,
        drawn: false,
        bounded: true,
        missed: vec![],
        pass: false,
        sums: Sums::default(),
        counts: task::Counts::default(),
    };
    let scalar = matches!((want.shape(), got.shape()), ([], [1]) | ([1], []));
    if want.shape() != got.shape() && !scalar {
        d.mismatch = Some(format!("shape {:?}, wanted {:?}", got.shape(), want.shape()));
        return d;
    }
    if let (Some(a), Some(b)) = (want.to_text(), got.to_text()) {
        d.unequal = Some(usize::from(a != b));
        d.judge(&measure.tolerance, false);
        return d;
    }
    let is_text = |t: &Tensor| t.dtype() == DType::Str;
    let alike = want.dtype().is_float() == got.dtype().is_float() || want.dtype() == DType::Bool;
    if is_text(want) != is_text(got) || !alike {
        d.mismatch = Some(format!("type {}, wanted {}", got.dtype(), want.dtype()));
        return d;
    }
    let (w, g) = (Numbers::new(want), Numbers::new(got));
    let halves = measure.half || want.dtype() == DType::F16 || got.dtype() == DType::F16;
    let row = got.shape().last().filter(|_| matches!(kind, Kind::Logits | Kind::Probabilities)).copied();
    let (worst, worst_rel) = d.add(&w, &g, row, measure.tolerance.elementwise, halves && got.dtype().is_float());
    (d.worst, d.worst_index) = (worst, index(worst, got.shape()));
    d.worst_rel_index = index(worst_rel, got.shape());
    if !want.dtype().is_float() {
        d.unequal = Some(unequal(want, got, &w, &g));
    }
    d.max_rel = if d.greatest > 0.0 { d.max_abs / d.greatest } else { d.max_abs };
    d.counts = task::Counts::of(kind, got.shape(), &w, &g);
    d.task = d.counts.task();
    d.pool();
    (d.snr_db, d.cosine) = (d.overall_snr_db, d.overall_cosine);
    d.judge(&measure.tolerance, want.dtype().is_float());
    d
}

impl OutputDiff {
    /// Takes in all elements; the flat positions of the greatest difference and of the greatest relative one.
    fn add(
        &mut self,
        want: &Numbers<'_>,
        got: &Numbers<'_>,
        row: Option<usize>,
        close: Option<Close>,
        halves: bool,
    ) -> (usize, usize) {
        let (mut worst, mut worst_rel, mut ulp, mut beyond) = (0, 0, 0, 0);
        // Rows of scores are whole in a part.
        let row = row.map(|n| n.max(1));
        let size = row.map_or(BLOCK, |n| (BLOCK / n).max(1) * n);
        in_parts([want, got], self.count, size, |start, wants, gots| {
            let mut masks = f64::NEG_INFINITY;
            for (i, (w, g)) in wants.iter().copied().zip(gots.iter().copied()).enumerate() {
                if let Some(n) = row.filter(|n| i % n == 0) {
                    masks = mask(wants.get(i..i + n).unwrap_or_default());
                }
                beyond += usize::from(close.is_some_and(|close| !close.holds(w, g)));
                if !w.is_finite() || !g.is_finite() {
                    for (side, x) in [w, g].into_iter().enumerate() {
                        self.nan[side] += usize::from(x.is_nan());
                        self.inf[side] += usize::from(x.is_infinite());
                    }
                    self.non_finite += usize::from(w != g && !(w.is_nan() && g.is_nan()));
                    continue;
                }
                let is_mask = w <= masks;
                // What rounds, or is clamped to what half precision holds, masks no less.
                if is_mask && g <= masks / 2.0 {
                    self.masked += 1;
                    continue;
                }
                let diff = (w - g).abs();
                if diff > self.max_abs {
                    (self.max_abs, worst) = (diff, start + i);
                }
                if diff > self.max_rel_elementwise * w.abs() && w != 0.0 {
                    (self.max_rel_elementwise, worst_rel) = (diff / w.abs(), start + i);
                }
                if halves && diff > 0.0 {
                    ulp = ulp.max(halves_between(w, g));
                }
                self.sums.elements += 1.0;
                if !is_mask {
                    self.greatest = self.greatest.max(w.abs());
                    self.sums.signal += w * w;
                    self.sums.dot += w * g;
                }
                self.sums.energy += g * g;
                self.sums.total += diff;
                self.sums.noise += diff * diff;
            }
        });
        self.nothing_finite = self.count > 0 && self.sums.elements == 0.0 && self.masked == 0;
        self.max_ulp = halves.then_some(ulp);
        self.beyond = close.map(|_| beyond);
        (worst, worst_rel)
    }
}

/// The number up to which a score is a mask: it is as far below 0 and below the greatest of its row as masks are.
fn mask(row: &[f64]) -> f64 {
    let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (greatest - EXCLUDES).min(-EXCLUDES)
}

/// How many steps from one number of half precision to the next lie between both, when they are rounded to it.
fn halves_between(a: f64, b: f64) -> u32 {
    let place = |x: f64| {
        let bits = i32::from(f16::from_f64(x).to_bits());
        if bits & 0x8000 == 0 { bits } else { -(bits & 0x7fff) }
    };
    place(a).abs_diff(place(b))
}

/// Elements that are not equal; those of 64 bits are compared as they are.
fn unequal(want: &Tensor, got: &Tensor, w: &Numbers<'_>, g: &Numbers<'_>) -> usize {
    let wide = |t: &Tensor| t.dtype().is_int() && t.dtype().bits() > 32;
    if wide(want) || wide(got) {
        return want.to_i64().iter().zip(got.to_i64()).filter(|(w, g)| *w != g).count();
    }
    let mut unequal = 0;
    in_parts([w, g], got.count(), BLOCK, |_, w, g| unequal += w.iter().zip(g).filter(|(w, g)| w != g).count());
    unequal
}

/// The coordinates of element number `at`.
fn index(at: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = at;
    let mut out: Vec<usize> = shape
        .iter()
        .rev()
        .map(|size| {
            let i = rest % (*size).max(1);
            rest /= (*size).max(1);
            i
        })
        .collect();
    out.reverse();
    out
}
