//! Text for people.

use super::{words, worse};
use crate::{
    accuracy::Accuracy,
    compare::{OutputDiff, Tolerance},
    names::{shown, visible},
    parity::{Parity, Run},
};
use serde_json::Value;

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

/// Rows in columns, two spaces apart; columns of numbers are right-aligned. A row is a line, whatever its cells hold.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()).collect();
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
    for row in &rows {
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
    lines.extend(p.runs.iter().filter_map(|run| run_line(p, run)));
    lines.extend(p.untested.iter().map(|what| format!("not tested: {what}")));
    lines.into_iter().fold(outputs_text(&p.outputs, &p.tolerance), |text, line| text + &one_line(&line) + "\n")
}

/// The six answers of a comparison that [`super::Whole`] has as JSON: each question, and its sentences below.
pub fn answers_text(report: &Value) -> String {
    let mut out = String::new();
    for words::Answer { question, said, .. } in words::answers(report) {
        out += &format!("{question}\n");
        for line in said {
            out += &format!("  {}\n", one_line(&line));
        }
    }
    out
}

/// A sentence of ours with names of a model in it: none of them ends its line.
fn one_line(text: &str) -> String {
    visible(text, |_| false).into_owned()
}

/// What the difference of an output means, where it is more than numbers.
fn task_line(d: &OutputDiff) -> Option<String> {
    let task = d.task.filter(|_| !d.drawn && d.max_abs > 0.0)?;
    let worst = task.iou_min.map(|x| format!("at worst {x:.4}"));
    let parts: Vec<String> = task.text().into_iter().chain(worst).collect();
    Some(format!("`{}`, {}: {}", shown(&d.name), d.kind.name(), parts.join(", ")))
}

/// A line for a run that failed, or that is worse than all that was judged.
fn run_line(p: &Parity, run: &Run) -> Option<String> {
    let note = if run.judged { "" } else { ", which is not judged" };
    let (what, arithmetic) = (run.what(), if run.arithmetic == "cpu" { "" } else { run.arithmetic });
    let of = if arithmetic.is_empty() { what } else { format!("{what}, {arithmetic}") };
    if let Some(why) = &run.error {
        return Some(format!("does not run on {of}{note}: {why}"));
    }
    // Of several runs that are judged, it is said which failed; of one, its outputs say so.
    let several = p.runs.iter().filter(|r| r.judged).count() > 1;
    if run.judged && !several {
        return None;
    }
    let worst = worse::worst(p, run)?;
    let verdict = if worst.pass { "worse" } else { "DIFFERS" };
    Some(format!("{verdict} on {of}{note}: `{}` {}", shown(&worst.name), measure(worst)))
}

/// How far an output is off.
pub(super) fn measure(d: &OutputDiff) -> String {
    words::measure(&serde_json::to_value(d).unwrap_or_default())
}

fn accuracy_line(a: &Accuracy) -> String {
    let part = |n: usize| format!("{n} of {} ({:.2} %)", a.samples, 100.0 * n as f64 / a.samples.max(1) as f64);
    format!(
        "top-1 accuracy of `{}`: source {}, package {}; both predict the same for {} of {}",
        shown(&a.output),
        part(a.source_correct),
        part(a.package_correct),
        a.alike,
        a.samples
    )
}

/// One line per output, held to `tolerance`.
pub fn outputs_text(outputs: &[OutputDiff], tolerance: &Tolerance) -> String {
    let row = |d: &OutputDiff| {
        // Compression is not held to a tolerance.
        let verdict = match d.pass {
            true if d.drawn => "random",
            true if *tolerance == Tolerance::ANY && d.snr_db.is_some() => "lossy",
            true if !d.bounded && (d.snr_db.is_some() || d.unequal.is_some_and(|n| n > 0)) => "measured",
            true => "ok",
            false => "DIFFERS",
        };
        vec![d.name.clone(), d.ty.clone(), verdict.to_owned(), measure(d)]
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
