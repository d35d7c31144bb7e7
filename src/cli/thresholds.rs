//! How far outputs may be off, as it is typed.

use crate::compare::{Close, Said, Thresholds};

/// What outputs are held to, and what they hold.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "How far outputs may be off")]
pub(crate) struct Limits {
    /// Each element may be off by ABS, and by REL of what is wanted, as in NumPy's allclose. This and the next options
    /// together replace the default: an SNR of 40 dB where the package computes in half precision, else of 80 dB, or a
    /// greatest difference of 0.01, or 0.0001, of the greatest value
    #[arg(long, value_name = "ABS[,REL]", value_parser = Close::parse)]
    tolerance: Option<Close>,
    /// Least signal over noise of an output, in dB
    #[arg(long, value_name = "DB", allow_negative_numbers = true, value_parser = decibels)]
    min_snr: Option<f64>,
    /// Least cosine of the angle between an output and what is wanted
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true, value_parser = cosine)]
    min_cosine: Option<f64>,
    /// Least part of the rows of scores that predict the same class, 0 to 1
    #[arg(long, value_name = "PART", value_parser = part)]
    min_top1: Option<f64>,
    /// Greatest mean Kullback-Leibler divergence of the classes' probabilities, in nats
    #[arg(long, value_name = "NATS", value_parser = nats)]
    max_kl: Option<f64>,
    /// What an output holds: `logits`, `probabilities`, `boxes`, `mask` or `values`; repeatable [default: what its type, the op
    /// that makes it, and its name show]
    #[arg(long, value_name = "NAME=KIND", value_parser = Said::parse)]
    kind: Vec<Said>,
}

impl Limits {
    pub(crate) fn thresholds(&self) -> Thresholds {
        let Self { tolerance, min_snr, min_cosine, min_top1, max_kl, kind: _ } = self.clone();
        Thresholds { elementwise: tolerance, min_snr_db: min_snr, min_cosine, min_top1, max_kl }
    }

    pub(crate) fn kinds(&self) -> &[Said] {
        &self.kind
    }
}

fn number(text: &str, want: &str, fits: impl Fn(f64) -> bool) -> Result<f64, String> {
    let x = text.trim().parse().ok().filter(|x: &f64| x.is_finite() && fits(*x));
    x.ok_or_else(|| format!("wanted {want}"))
}

fn decibels(text: &str) -> Result<f64, String> {
    number(text, "a number of dB, such as 40", |_| true)
}

fn cosine(text: &str) -> Result<f64, String> {
    number(text, "a number of -1 to 1, such as 0.999", |x| (-1.0..=1.0).contains(&x))
}

fn part(text: &str) -> Result<f64, String> {
    number(text, "a number of 0 to 1, such as 0.99", |x| (0.0..=1.0).contains(&x))
}

fn nats(text: &str) -> Result<f64, String> {
    number(text, "a number of 0 or more, such as 0.01", |x| x >= 0.0)
}
