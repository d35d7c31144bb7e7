//! How far an output may be off, and what is beyond it.

use super::{OutputDiff, Task};
use mlconv_tensor::f16;
use serde::Serialize;

/// How far an output may be off. What is not asked for is `None`, or a least signal over noise of minus infinity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tolerance {
    /// Least signal over noise in dB, for floats.
    pub min_snr_db: f64,
    /// Differences up to this times the greatest magnitude pass, whatever the signal over noise.
    pub max_rel: f64,
    /// How far each element may be off.
    pub elementwise: Option<Close>,
    /// The least cosine of a sample, for floats.
    pub min_cosine: Option<f64>,
    /// The least part of the rows whose best class is the same, over all samples, for scores of classes.
    pub min_top1: Option<f64>,
    /// The greatest mean divergence in nats, over all samples, for scores of classes.
    pub max_kl: Option<f64>,
    /// What outputs are held to that hold no scores of classes, where nothing but measures of these is asked for.
    pub others: Option<Noise>,
}

/// How noisy an output may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Noise {
    /// See [`Tolerance::min_snr_db`].
    pub min_snr_db: f64,
    /// See [`Tolerance::max_rel`].
    pub max_rel: f64,
}

/// How far each element may be off: `|got - want| <= abs + rel * |want|`, as in NumPy's `allclose`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Close {
    /// However small the element.
    pub abs: f64,
    /// In parts of the element.
    pub rel: f64,
}

impl Close {
    /// Reads `ABS[,REL]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite() && *x >= 0.0);
        let (abs, rel) = text.split_once(',').unwrap_or((text, "0"));
        let both = number(abs).zip(number(rel));
        let (abs, rel) = both.ok_or("wanted one or two numbers of 0 or more, such as `1e-3,1e-2`")?;
        Ok(Self { abs, rel })
    }

    /// Whether `got` is near enough to `want`: equal where they are not finite.
    pub(super) fn holds(self, want: f64, got: f64) -> bool {
        if !want.is_finite() || !got.is_finite() {
            return want == got || (want.is_nan() && got.is_nan());
        }
        (got - want).abs() <= self.abs + self.rel * want.abs()
    }
}

impl Tolerance {
    /// For a program that computes in 32 bits: rounding in another order, and no more.
    pub const F32: Self = Self { min_snr_db: 80.0, max_rel: 1e-4, ..Self::NONE };
    /// For a program that computes in 16 bits.
    pub const F16: Self = Self { min_snr_db: 40.0, max_rel: 1e-2, ..Self::NONE };
    /// For a program that is not meant to compute the same: differences are measured, and none is too great.
    pub const ANY: Self = Self { max_rel: f64::INFINITY, ..Self::NONE };
    /// Nothing is asked for but what is always: equal integers, and what is not finite in both alike.
    const NONE: Self = Self {
        min_snr_db: f64::NEG_INFINITY,
        max_rel: 0.0,
        elementwise: None,
        min_cosine: None,
        min_top1: None,
        max_kl: None,
        others: None,
    };

    /// For a program that computes in 32 bits whose longest chain of sums has so many terms. Each sum of n terms is off by
    /// the unit of rounding, 2^-24, times the root of n, where roundings are independent; ten times that is allowed, as
    /// terms cancel. It is never narrower than [`Self::F32`], and never wider than [`Self::F16`].
    pub fn of_sums(terms: f64) -> Self {
        let off = 10.0 * f64::powi(2.0, -24) * terms.max(1.0).sqrt();
        let max_rel = off.clamp(Self::F32.max_rel, Self::F16.max_rel);
        let min_snr_db = (-20.0 * off.log10()).clamp(Self::F16.min_snr_db, Self::F32.min_snr_db);
        Self { min_snr_db, max_rel, ..Self::NONE }
    }

    /// The same where both models compute in half precision: what a program in single precision is held to by default
    /// becomes what one in half precision is.
    #[must_use]
    pub fn of_halves(self) -> Self {
        let is_of_single = |max_rel: f64| (Self::F32.max_rel..Self::F16.max_rel).contains(&max_rel);
        if is_of_single(self.max_rel) {
            return Self::F16;
        }
        let Self { min_snr_db, max_rel, .. } = Self::F16;
        let others = self.others.map(|o| if is_of_single(o.max_rel) { Noise { min_snr_db, max_rel } } else { o });
        Self { others, ..self }
    }

    /// What an output with these measures is held to.
    fn of(self, task: Option<Task>) -> Self {
        match self.others {
            Some(Noise { min_snr_db, max_rel }) if task.is_none_or(|t| t.top1.is_none()) => {
                Self { min_snr_db, max_rel, ..Self::NONE }
            }
            _ => self,
        }
    }

    /// How far zeros may be off, which no magnitude is a measure of: what half precision cannot tell from 0 with all of its
    /// digits, or a thousandth of what may be off of 1.
    fn floor(&self) -> f64 {
        match self.max_rel {
            r if r.is_infinite() => r,
            r if r >= Self::F16.max_rel => f64::from(f16::MIN_POSITIVE),
            r => 1e-3 * r,
        }
    }

    /// By how much an element of `norm` and of at most `greatest` may be off at least, where no measure of classes is asked for.
    pub(crate) fn slack(&self, greatest: f64, norm: f64) -> f64 {
        let Self { min_snr_db, max_rel, elementwise, .. } = self.of(None);
        let noise = if min_snr_db.is_finite() { norm * f64::powf(10.0, -min_snr_db / 20.0) } else { 0.0 };
        let each = elementwise.map_or(0.0, |c| c.abs + c.rel * greatest);
        (max_rel * greatest).max(noise).max(each)
    }

    /// Whether the noise of floats is all that it is about.
    pub fn is_of_noise(&self) -> bool {
        let Self { min_snr_db, max_rel: _, elementwise, min_cosine, min_top1, max_kl, others: _ } = self;
        min_snr_db.is_finite()
            && elementwise.is_none()
            && min_cosine.is_none()
            && min_top1.is_none()
            && max_kl.is_none()
    }
}

/// Thresholds as a user gives them; those that are given stand in the place of the default, but for outputs that none of
/// them measures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// See [`Tolerance::elementwise`].
    pub elementwise: Option<Close>,
    /// See [`Tolerance::min_snr_db`].
    pub min_snr_db: Option<f64>,
    /// See [`Tolerance::min_cosine`].
    pub min_cosine: Option<f64>,
    /// See [`Tolerance::min_top1`].
    pub min_top1: Option<f64>,
    /// See [`Tolerance::max_kl`].
    pub max_kl: Option<f64>,
}

impl Thresholds {
    /// Whether any is given.
    pub fn is_any(self) -> bool {
        self != Self::default()
    }

    /// What is given, in the place of `base`.
    pub fn instead_of(self, base: Tolerance) -> Tolerance {
        if !self.is_any() {
            return base;
        }
        let Self { elementwise, min_snr_db, min_cosine, min_top1, max_kl } = self;
        let of_classes = elementwise.is_none() && min_snr_db.is_none() && min_cosine.is_none();
        let others = of_classes.then_some(Noise { min_snr_db: base.min_snr_db, max_rel: base.max_rel });
        let min_snr_db = min_snr_db.unwrap_or(f64::NEG_INFINITY);
        Tolerance { min_snr_db, elementwise, min_cosine, min_top1, max_kl, others, ..Tolerance::NONE }
    }
}

/// A measure that is beyond what is allowed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Miss {
    /// The measure, as its field of an output is called.
    pub measure: &'static str,
    /// What was found; absent where it is not a number, as the cosine of zeros.
    pub found: Option<f64>,
    /// What is allowed.
    pub limit: f64,
}

impl Miss {
    /// Takes in what another sample misses: the worse of both; counts are added.
    pub(super) fn absorb(&mut self, other: &Self) {
        let both = self.found.zip(other.found);
        self.found = both.map(|(a, b)| match self.measure {
            "non_finite" | "unequal" | "beyond" => a + b,
            _ => a.min(b),
        });
    }

    /// What is wrong, for a person.
    pub fn text(&self) -> String {
        let (name, limit) = (self.measure, short(self.limit));
        // A number that is off by less than its last digit has more of them.
        let told = |x: f64| if short(x) == limit { x.to_string() } else { short(x) };
        let found = self.found.map_or_else(|| "none".to_owned(), told);
        match name {
            "snr_db" => {
                let rounded = self.found.map(|x| format!("{x:.1}"));
                // One digit says it, unless what is missing is less.
                let found = rounded.filter(|r| *r != format!("{:.1}", self.limit)).unwrap_or(found);
                format!("SNR {found} dB, at least {limit} dB wanted")
            }
            "non_finite" => format!("{found} elements are not finite in one model only, or of unlike signs"),
            "unequal" => format!("{found} elements are not equal"),
            "beyond" => format!("{found} elements are further off than `--tolerance` allows"),
            "kl" => format!("KL divergence {found}, at most {limit} wanted"),
            "top1" => format!("top-1 agreement {found}, at least {limit} wanted"),
            _ => format!("{name} {found}, at least {limit} wanted"),
        }
    }
}

/// A number with six digits that say something, without zeros behind the last.
fn short(x: f64) -> String {
    let plain = x == 0.0 || (1e-3..1e7).contains(&x.abs());
    let text = if plain { format!("{x:.6}") } else { return format!("{x:.3e}") };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl OutputDiff {
    /// Judges what was measured of one sample.
    pub(super) fn judge(&mut self, tolerance: &Tolerance, is_float: bool) {
        let tolerance = &tolerance.of(self.task);
        let mut missed = vec![];
        let mut miss = |measure, found: Option<f64>, limit| missed.push(Miss { measure, found, limit });
        if self.non_finite > 0 {
            miss("non_finite", Some(self.non_finite as f64), 0.0);
        }
        match (self.beyond, self.unequal) {
            (Some(n), _) if n > 0 => miss("beyond", Some(n as f64), 0.0),
            (None, Some(n)) if n > 0 => miss("unequal", Some(n as f64), 0.0),
            _ => {}
        }
        if is_float {
            let loud = self.snr_db.is_none_or(|s| s >= tolerance.min_snr_db);
            let near = match self.greatest {
                0.0 => self.max_abs <= tolerance.floor(),
                _ => self.max_rel <= tolerance.max_rel,
            };
            if !loud && !near {
                miss("snr_db", self.snr_db, tolerance.min_snr_db);
            }
            if let Some(least) = tolerance.min_cosine {
                // Zeros are at no angle to anything, and fine where both are.
                let alike = self.snr_db.is_none() || self.cosine.is_some_and(|c| c >= least);
                if !alike {
                    miss("cosine", self.cosine, least);
                }
            }
        }
        let Tolerance { min_snr_db, elementwise, min_cosine, .. } = tolerance;
        self.bounded = !is_float || min_snr_db.is_finite() || elementwise.is_some() || min_cosine.is_some();
        self.pass = missed.is_empty();
        self.missed = missed;
    }

    /// Judges what is only known of all samples together: how often classes are the same.
    #[must_use]
    pub fn judged(mut self, tolerance: &Tolerance) -> Self {
        if self.drawn || self.mismatch.is_some() {
            return self;
        }
        let Some(task) = self.task else { return self };
        self.bounded |= task.top1.is_some() && (tolerance.min_top1.is_some() || tolerance.max_kl.is_some());
        if let (Some(least), Some(top1)) = (tolerance.min_top1, task.top1)
            && top1 < least
        {
            self.missed.push(Miss { measure: "top1", found: Some(top1), limit: least });
        }
        if let (Some(most), Some(_)) = (tolerance.max_kl, task.top1)
            && !task.kl.is_some_and(|kl| kl <= most)
        {
            self.missed.push(Miss { measure: "kl", found: task.kl, limit: most });
        }
        self.pass &= self.missed.is_empty();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_say_how_far_an_element_may_be_off() {
        assert_eq!(Close::parse("1e-3"), Ok(Close { abs: 1e-3, rel: 0.0 }));
        assert_eq!(Close::parse("0, 0.5"), Ok(Close { abs: 0.0, rel: 0.5 }));
        for bad in ["", "x", "1,", "-1", "1,nan", "inf", "1,2,3"] {
            assert!(Close::parse(bad).is_err(), "{bad}");
        }
        let close = Close { abs: 0.5, rel: 0.5 };
        assert!(close.holds(1.0, 2.0) && !close.holds(1.0, 2.1) && close.holds(f64::NAN, f64::NAN));
        assert!(close.holds(f64::INFINITY, f64::INFINITY) && !close.holds(f64::INFINITY, 1.0));
        assert!(!close.holds(f64::INFINITY, f64::NEG_INFINITY) && !close.holds(1.0, f64::NAN));
    }

    #[test]
    fn long_sums_explain_more_noise_but_never_more_than_half_precision_does() {
        assert_eq!([1.0, 1e3, 2e4].map(Tolerance::of_sums), [Tolerance::F32; 3]);
        let long = Tolerance::of_sums(1e6);
        assert!((long.min_snr_db - 64.5).abs() < 0.1 && (long.max_rel - 6e-4).abs() < 1e-5, "{long:?}");
        assert_eq!(Tolerance::of_sums(1e30), Tolerance::F16);
    }

    #[test]
    fn what_is_given_stands_in_the_place_of_the_default() {
        assert_eq!(Thresholds::default().instead_of(Tolerance::F16), Tolerance::F16);
        let asked = Thresholds { min_cosine: Some(0.9), ..Thresholds::default() }.instead_of(Tolerance::F16);
        assert_eq!((asked.min_snr_db, asked.min_cosine, asked.others), (f64::NEG_INFINITY, Some(0.9), None));
        let of_classes = Thresholds { max_kl: Some(0.1), ..Thresholds::default() }.instead_of(Tolerance::F32);
        assert_eq!(of_classes.others, Some(Noise { min_snr_db: 80.0, max_rel: 1e-4 }));
        assert_eq!(of_classes.of_halves().of(None), Tolerance::F16);
        assert_eq!((Tolerance::F32.of_halves(), Tolerance::ANY.of_halves()), (Tolerance::F16, Tolerance::ANY));
    }
}
