//! How far two results are from each other.

use mlconv_tensor::{DType, Tensor, f16};
use serde::Serialize;

/// The distance of one output from what it should be; of several samples, the worst.
#[derive(Clone, Debug, Serialize)]
pub struct OutputDiff {
    /// The output.
    pub name: String,
    /// Its element type and shape in what is judged.
    pub ty: String,
    /// Elements compared.
    pub count: usize,
    /// The greatest absolute difference of finite elements.
    pub max_abs: f64,
    /// That, over the greatest magnitude wanted.
    pub max_rel: f64,
    /// The greatest magnitude wanted.
    pub greatest: f64,
    /// The flat position of the greatest difference.
    pub worst: usize,
    /// The sample that it is in.
    pub worst_sample: usize,
    /// Signal over noise in dB; absent where there is no noise.
    pub snr_db: Option<f64>,
    /// The same of all samples together, where [`snr_db`](Self::snr_db) is that of the worst.
    pub overall_snr_db: Option<f64>,
    /// The sums of squares of what was wanted and of the differences.
    #[serde(skip)]
    pub power: [f64; 2],
    /// The cosine of the angle between the two; absent where one is zero.
    pub cosine: Option<f64>,
    /// Elements that are finite in only one of the two, or infinite of unlike signs.
    pub non_finite: usize,
    /// Whether there are elements, none of which is finite in both.
    pub nothing_finite: bool,
    /// Integers and booleans that are not equal.
    pub unequal: Option<usize>,
    /// Why the two cannot be compared.
    pub mismatch: Option<String>,
    /// Whether it follows from random numbers, whose distance says nothing.
    pub drawn: bool,
    /// Whether the distance is within the tolerance.
    pub pass: bool,
}

impl OutputDiff {
    /// The same of an output that follows from random numbers: only its type and shape are judged.
    pub fn of_chance(self) -> Self {
        Self { drawn: true, pass: self.mismatch.is_none(), ..self }
    }

    /// Takes in the distance of the same output on another sample: the worst of both.
    pub fn absorb(&mut self, other: Self) {
        let least = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::min);
        self.count += other.count;
        if other.max_abs > self.max_abs {
            (self.max_abs, self.worst, self.worst_sample) = (other.max_abs, other.worst, other.worst_sample);
        }
        self.max_rel = self.max_rel.max(other.max_rel);
        self.greatest = self.greatest.max(other.greatest);
        self.snr_db = least(self.snr_db, other.snr_db);
        self.power = [self.power[0] + other.power[0], self.power[1] + other.power[1]];
        self.overall_snr_db = decibels(self.power);
        self.cosine = least(self.cosine, other.cosine);
        self.non_finite += other.non_finite;
        self.nothing_finite &= other.nothing_finite;
        self.unequal = self.unequal.zip(other.unequal).map(|(a, b)| a + b);
        self.mismatch = self.mismatch.take().or(other.mismatch);
        self.pass &= other.pass;
    }
}

/// Signal over noise in dB; `None` where there is no noise.
fn decibels([signal, noise]: [f64; 2]) -> Option<f64> {
    (noise > 0.0).then(|| (10.0 * (signal / noise).log10()).max(-999.0))
}

/// How far an output may be off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tolerance {
    /// Least signal over noise in dB, for floats.
    pub min_snr_db: f64,
    /// Differences up to this times the greatest magnitude pass, whatever the signal over noise.
    pub max_rel: f64,
}

impl Tolerance {
    /// For a program that computes in 32 bits: rounding in another order, and no more.
    pub const F32: Self = Self { min_snr_db: 80.0, max_rel: 1e-4 };
    /// For a program that computes in 16 bits.
    pub const F16: Self = Self { min_snr_db: 40.0, max_rel: 1e-2 };
    /// For a program that is not meant to compute the same: differences are measured, and none is too great.
    pub const ANY: Self = Self { min_snr_db: f64::NEG_INFINITY, max_rel: f64::INFINITY };
}

impl OutputDiff {
    /// Whether all that was wanted is below the normal numbers of half precision, so that little or nothing of it is left
    /// there.
    pub fn below_half(&self) -> bool {
        !self.pass && self.greatest > 0.0 && self.greatest < f64::from(f16::MIN_POSITIVE)
    }
}

/// Compares `got` with `want`. Types may differ where an interface cannot have the source's; shapes only between a
/// scalar and a vector of one.
pub fn output(name: &str, want: &Tensor, got: &Tensor, tolerance: Tolerance) -> OutputDiff {
    let dims: Vec<String> = got.shape().iter().map(ToString::to_string).collect();
    let mut d = OutputDiff {
        name: name.to_owned(),
        ty: format!("{}[{}]", got.dtype(), dims.join(", ")),
        count: got.count(),
        max_abs: 0.0,
        max_rel: 0.0,
        greatest: 0.0,
        worst: 0,
        worst_sample: 0,
        snr_db: None,
        overall_snr_db: None,
        power: [0.0; 2],
        cosine: None,
        non_finite: 0,
        nothing_finite: false,
        unequal: None,
        mismatch: None,
        drawn: false,
        pass: false,
    };
    let scalar = matches!((want.shape(), got.shape()), ([], [1]) | ([1], []));
    if want.shape() != got.shape() && !scalar {
        d.mismatch = Some(format!("shape {:?}, wanted {:?}", got.shape(), want.shape()));
        return d;
    }
    if let (Some(a), Some(b)) = (want.to_text(), got.to_text()) {
        d.unequal = Some(usize::from(a != b));
        d.pass = a == b;
        return d;
    }
    if want.dtype().is_float() != got.dtype().is_float() && want.dtype() != DType::Bool {
        d.mismatch = Some(format!("type {}, wanted {}", got.dtype(), want.dtype()));
        return d;
    }
    let (want_values, got_values) = (want.to_f64(), got.to_f64());
    let (mut signal, mut noise, mut dot, mut energy, mut scale) = (0.0, 0.0, 0.0, 0.0, 0f64);
    d.nothing_finite = !want_values.is_empty();
    for (i, (w, g)) in want_values.iter().zip(&got_values).enumerate() {
        if !w.is_finite() || !g.is_finite() {
            let same = w == g || (w.is_nan() && g.is_nan());
            d.non_finite += usize::from(!same);
            continue;
        }
        d.nothing_finite = false;
        let diff = (w - g).abs();
        if diff > d.max_abs {
            (d.max_abs, d.worst) = (diff, i);
        }
        scale = scale.max(w.abs());
        signal += w * w;
        noise += diff * diff;
        dot += w * g;
        energy += g * g;
    }
    d.greatest = scale;
    d.max_rel = if scale > 0.0 { d.max_abs / scale } else { d.max_abs };
    d.power = [signal, noise];
    d.snr_db = decibels(d.power);
    d.overall_snr_db = d.snr_db;
    d.cosine = (signal > 0.0 && energy > 0.0).then(|| dot / (signal.sqrt() * energy.sqrt()));
    if !want.dtype().is_float() {
        let unequal = want_values.iter().zip(&got_values).filter(|(w, g)| w != g).count();
        d.unequal = Some(unequal);
        d.pass = unequal == 0;
        return d;
    }
    let close = d.snr_db.is_none_or(|s| s >= tolerance.min_snr_db) || d.max_rel <= tolerance.max_rel;
    d.pass = d.non_finite == 0 && close;
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_measured_against_the_signal() {
        let want = Tensor::from_vec(&[4], vec![1f32, 2.0, 3.0, 4.0]);
        let got = Tensor::from_vec(&[4], vec![1f32, 2.0, 3.0, 4.04]);
        let d = output("y", &want, &got, Tolerance::F16);
        assert!((d.max_abs - 0.04).abs() < 1e-6 && d.worst == 3);
        assert!((d.snr_db.expect("noise") - 42.7).abs() < 0.1, "{d:?}");
        assert!(d.pass && !output("y", &want, &got, Tolerance::F32).pass);
    }

    #[test]
    fn of_several_samples_the_worst_counts() {
        let want = Tensor::from_vec(&[2], vec![1f32, 2.0]);
        let near = output("y", &want, &Tensor::from_vec(&[2], vec![1f32, 2.001]), Tolerance::F16);
        let far = output("y", &want, &Tensor::from_vec(&[2], vec![2f32, 2.0]), Tolerance::F16);
        let mut all = near.clone();
        all.absorb(OutputDiff { worst_sample: 1, ..far.clone() });
        assert_eq!((all.count, all.worst, all.worst_sample, all.pass), (4, 0, 1, false));
        assert_eq!((all.max_abs, all.snr_db), (1.0, far.snr_db));
        let equal = output("y", &want, &want, Tolerance::F16);
        all.absorb(equal.clone());
        assert_eq!(all.snr_db, far.snr_db);
        let mut all = equal;
        all.absorb(near.clone());
        assert_eq!((all.snr_db, all.pass), (near.snr_db, true));
    }

    #[test]
    fn what_is_not_finite_must_agree() {
        let want = Tensor::from_vec(&[3], vec![f32::NAN, f32::INFINITY, 1.0]);
        assert!(output("y", &want, &want, Tolerance::F32).pass);
        let got = Tensor::from_vec(&[3], vec![f32::NAN, f32::NEG_INFINITY, 1.0]);
        assert_eq!(output("y", &want, &got, Tolerance::F32).non_finite, 1);
        let flat = want.reshape(&[3, 1]);
        assert!(output("y", &want, &flat, Tolerance::F32).mismatch.is_some());
    }

    #[test]
    fn numbers_below_half_precision_are_told_from_noise() {
        let want = Tensor::from_vec(&[2], vec![1e-9f32, 2e-9]);
        let got = Tensor::from_vec(&[2], vec![0f32, 0.0]);
        assert!(output("y", &want, &got, Tolerance::F16).below_half());
        assert!(!output("y", &want, &want, Tolerance::F16).below_half());
    }

    #[test]
    fn integers_are_equal_or_not() {
        let want = Tensor::from_vec(&[2], vec![1i32, 2]);
        let got = Tensor::from_vec(&[2], vec![1i32, 3]);
        assert_eq!(output("y", &want, &got, Tolerance::F16).unequal, Some(1));
    }
}
