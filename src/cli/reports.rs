//! Files that a comparison is reported in.

use super::write::check_file;
use crate::{Diagnostic, Failure, arrays::write_whole, codes, names::quoted, report};
use serde_json::Value;
use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Files to write; what is there is replaced.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Reports")]
pub(crate) struct Reports {
    /// Write the comparison as a page: one file that needs nothing else; values are compared as well for it
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Write it as Markdown, for a comment on a pull request
    #[arg(long, value_name = "FILE.md")]
    markdown: Option<PathBuf>,
    /// Write it as JUnit XML, for a pipeline
    #[arg(long, value_name = "FILE.xml")]
    junit: Option<PathBuf>,
}

impl Reports {
    /// Whether values are to be compared, and not only outputs.
    pub(crate) fn want_values(&self) -> bool {
        self.html.is_some()
    }

    /// Whether anything is to be written.
    pub(crate) fn are_wanted(&self) -> bool {
        self.html.is_some() || self.markdown.is_some() || self.junit.is_some()
    }

    /// The options of those that are wanted.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &'static str> {
        let all = [("--html", &self.html), ("--markdown", &self.markdown), ("--junit", &self.junit)];
        all.into_iter().filter(|(_, path)| path.is_some()).map(|(name, _)| name)
    }

    /// Refuses files before work is spent on them: one is not written over another, or over what is read.
    pub(crate) fn check(&self, read: &[&Path]) -> Result<(), Failure> {
        check_reports([&self.html, &self.markdown, &self.junit].into_iter().flatten(), read)
    }

    /// Writes what is wanted, each file whole or not at all.
    pub(crate) fn write(&self, whole: &Value) -> Result<(), Failure> {
        let write = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
            Some(path) => write_report(path, &text()),
            None => Ok(()),
        };
        write(&self.html, &|| report::html(whole, Some(&now())))?;
        write(&self.markdown, &|| report::markdown(whole))?;
        write(&self.junit, &|| report::junit(whole))
    }
}

/// Refuses reports of which one would be written over another, or over what is read.
pub(crate) fn check_reports<'a>(reports: impl Iterator<Item = &'a PathBuf>, read: &[&Path]) -> Result<(), Failure> {
    let real = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_path_buf());
    let mut taken: Vec<PathBuf> = read.iter().map(|p| real(p)).collect();
    for path in reports {
        check_file(path)?;
        let own = real(path);
        if taken.contains(&own) || path.is_dir() {
            let title = "a report cannot be written over what is read, over another report, or over a folder";
            return Err(vec![Diagnostic::error(&codes::L0001, title).at(path.display().to_string())]);
        }
        taken.push(own);
    }
    Ok(())
}

/// Writes a report, whole or not at all.
pub(crate) fn write_report(path: &Path, text: &str) -> Result<(), Failure> {
    let written = write_whole(path, |file| file.write_all(text.as_bytes()).map_err(|e| e.to_string()));
    written.map_err(|why| {
        let title = format!("the report cannot be written: {why}");
        vec![Diagnostic::error(&codes::X0001, title).at(path.display().to_string())]
    })
}

/// What was typed, as a shell takes it.
pub(crate) fn typed() -> String {
    let words = std::env::args_os().skip(1).map(|word| quoted(&word.to_string_lossy()).into_owned());
    std::iter::once("mlconv".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The time in UTC, as `2026-01-31 23:59 UTC`.
pub(crate) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, minutes) = (seconds / 86_400, seconds % 86_400 / 60);
    let [year, month, day] = date(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// The day in the Gregorian calendar that is so many after the first of 1970. Source: Howard Hinnant, "chrono-compatible low-level
/// date algorithms".
fn date(days: u64) -> [u64; 3] {
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    [year + era * 400 + u64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        assert_eq!([0, 59, 11_016, 20_779].map(date), [[1970, 1, 1], [1970, 3, 1], [2000, 2, 29], [2026, 11, 22]]);
    }
}
