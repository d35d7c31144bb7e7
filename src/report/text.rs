//! Text for people.

use crate::{
    accuracy::Accuracy,
    compare::{OutputDiff, Tolerance},
    parity::{Parity, Run},
};

/// A size with a unit.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} bytes");
    }
    let (mut value, mut unit) = (n as f64 / 1000.0, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Rows in columns, two spaces apart; columns of numbers are right-aligned.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let numeric = |c: usize| {
        rows.iter()
            .filter_map(|r| r.get(c))
            .all(|s| s.starts_with(|x: char| x.is_ascii_digit() || x == '-') || s.is_empty())
    };
    let right: Vec<bool> = (0..columns).map(numeric).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            line += &if right[c] { format!("{pad}{cell}  ") } else { format!("{cell}{pad}  ") };
        }
        out += "  ";
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// One line per output, one per output that has labels, one per run that is worse, and one per thing that was left out.
pub fn parity_text(p: &Parity) -> String {
    let mut lines: Vec<String> = p.outputs.iter().filter_map(task_line).collect();
    lines.extend(p.accuracy.iter().map(accuracy_line));
    lines.extend(p.runs.iter().filter_map(|run| worse(p, run)));
    lines.extend(p.untested.iter().map(|what| format!("not tested: {what}")));
    lines.into_iter().fold(outputs_text(&p.outputs, &p.tolerance, p.half), |text, line| text + &line + "\n")
}

/// What the difference of an output means, where it is more than numbers.
fn task_line(d: &OutputDiff) -> Option<String> {
    let (task, percent) = (d.task.filter(|_| !d.drawn && d.max_abs > 0.0)?, |x: f64| format!("{:.2} %", 100.0 * x));
    let parts = [
        task.top1.map(|x| format!("top-1 agrees in {}", percent(x))),
        task.top5.map(|x| format!("top-5 in {}", percent(x))),
        task.kl.map(|x| format!("KL divergence {x:.2e}")),
        task.iou_mean.map(|x| format!("IoU {x:.4}")),
        task.iou_min.map(|x| format!("at worst {x:.4}")),
    ];
    Some(format!("`{}`, {}: {}", d.name, d.kind.name(), parts.into_iter().flatten().collect::<Vec<_>>().join(", ")))
}

/// By how much a run is worse than what is judged before it is worth a line, in dB.
const WORSE: f64 = 6.0;
/// How far above what is wanted a signal over noise is ample, in dB.
const AMPLE: f64 = 20.0;

/// A line for a run that failed, or that is worse than all that was judged.
fn worse(p: &Parity, run: &Run) -> Option<String> {
    let note = if run.judged { "" } else { ", which is not judged" };
    let (what, arithmetic) = (run.what(), if run.arithmetic == "cpu" { "" } else { run.arithmetic });
    let of = if arithmetic.is_empty() { what } else { format!("{what}, {arithmetic}") };
    if let Some(why) = &run.error {
        return Some(format!("does not run on {of}{note}: {why}"));
    }
    let judged = |name: &str| p.outputs.iter().find(|d| d.name == name);
    // What is far better than it has to be is not worth a word.
    let floor = |s: f64| (s - WORSE).min(p.tolerance.min_snr_db + AMPLE);
    let is_worse =
        |d: &OutputDiff| judged(&d.name).and_then(|d| d.snr_db).zip(d.snr_db).is_some_and(|(s, d)| d < floor(s));
    // Of several runs that are judged, it is said which failed; of one, its outputs say so.
    let several = p.runs.iter().filter(|r| r.judged).count() > 1;
    let bad = |d: &&OutputDiff| match (run.judged, d.pass) {
        (true, pass) => several && !pass,
        (false, false) => !(p.half && d.below_half()),
        (false, true) => !d.drawn && d.max_abs > 0.0 && is_worse(d),
    };
    let worst = run.outputs.iter().filter(bad).min_by(|a, b| {
        let key = |d: &OutputDiff| d.snr_db.unwrap_or(f64::NEG_INFINITY);
        key(a).total_cmp(&key(b))
    })?;
    let snr = worst.snr_db.map_or_else(String::new, |s| format!(", SNR {s:.1} dB"));
    let verdict = if worst.pass { "worse" } else { "DIFFERS" };
    let odd = if worst.non_finite > 0 { format!(", {} not finite alike", worst.non_finite) } else { String::new() };
    Some(format!("{verdict} on {of}{note}: `{}` max abs {:.3e}{snr}{odd}", worst.name, worst.max_abs))
}

fn accuracy_line(a: &Accuracy) -> String {
    let part = |n: usize| format!("{n} of {} ({:.2} %)", a.samples, 100.0 * n as f64 / a.samples.max(1) as f64);
    format!(
        "top-1 accuracy of `{}`: source {}, package {}; both predict the same for {} of {}",
        a.output,
        part(a.source_correct),
        part(a.package_correct),
        a.alike,
        a.samples
    )
}

/// One line per output, held to `tolerance`; `half` where they were computed in half precision.
pub fn outputs_text(outputs: &[OutputDiff], tolerance: &Tolerance, half: bool) -> String {
    let row = |d: &OutputDiff| {
        // Compression is not held to a tolerance.
        let verdict = match d.pass {
            true if d.drawn => "random",
            true if *tolerance == Tolerance::ANY && d.snr_db.is_some() => "lossy",
            true if !d.bounded && (d.snr_db.is_some() || d.unequal.is_some_and(|n| n > 0)) => "measured",
            true => "ok",
            false => "DIFFERS",
        };
        let measure = match (&d.mismatch, d.unequal) {
            (Some(why), _) => why.clone(),
            (None, _) if d.drawn => "follows from random numbers: its values are not judged".to_owned(),
            (None, Some(0)) => "equal".to_owned(),
            (None, Some(n)) => format!("{n} of {} differ", d.count),
            (None, None) if half && d.below_half() => {
                format!("its values, up to {:.1e}, are below what half precision holds (6.1e-5)", d.greatest)
            }
            (None, None) if d.nothing_finite && d.non_finite == 0 => "equal, no element is finite".to_owned(),
            (None, None) if d.max_abs == 0.0 && d.non_finite == 0 => "equal".to_owned(),
            (None, None) => {
                let snr = d.snr_db.map_or_else(String::new, |s| format!(", SNR {s:.1} dB"));
                let cosine = d.cosine.map_or_else(String::new, |c| format!(", cosine {c:.6}"));
                let broken =
                    if d.non_finite > 0 { format!(", {} not finite alike", d.non_finite) } else { String::new() };
                format!("max abs {:.3e}{snr}{cosine}{broken}", d.max_abs)
            }
        };
        vec![d.name.clone(), d.ty.clone(), verdict.to_owned(), measure]
    };
    table(&outputs.iter().map(row).collect::<Vec<_>>())
}

/// A number for a person: six digits behind the point, or an exponent where those would show nothing of it.
pub fn number(x: f64) -> String {
    let plain = x == 0.0 || (1e-4..1e9).contains(&x.abs()) || !x.is_finite();
    if plain { format!("{x:.6}") } else { format!("{x:.6e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_something_of_themselves() {
        assert_eq!([number(0.0), number(0.5), number(-1.5e-9)], ["0.000000", "0.500000", "-1.500000e-9"]);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([bytes(12), bytes(1500), bytes(51_000_000)], ["12 bytes", "1.5 kB", "51.0 MB"]);
    }

    #[test]
    fn numbers_are_aligned_at_the_right() {
        let rows = [vec!["conv".to_owned(), "12".to_owned()], vec!["relu".to_owned(), "3".to_owned()]];
        assert_eq!(table(&rows), "  conv  12\n  relu   3\n");
    }
}
