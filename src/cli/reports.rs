//! Files that a comparison is reported in.

use super::{recipe, write::check_file};
use crate::{Diagnostic, Failure, arrays::Staged, codes, names::quoted, report};
use clap::ArgMatches;
use serde_json::Value;
use std::{
    ffi::{OsStr, OsString},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Where the help lists them.
const HEADING: &str = "Reports";

/// Files to write; what is there is replaced.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
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

    /// Refuses files before work is spent on them; `others` are all that the command reads, and what else it writes.
    pub(crate) fn check(&self, others: &[PathBuf]) -> Result<(), Failure> {
        check_files([&self.html, &self.markdown, &self.junit].into_iter().flatten(), others)
    }

    /// The options of those that are wanted.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &'static str> {
        let all = [("--html", &self.html), ("--markdown", &self.markdown), ("--junit", &self.junit)];
        all.into_iter().filter(|(_, path)| path.is_some()).map(|(name, _)| name)
    }

    /// Writes what is wanted: each file whole or not at all, and none where one cannot be written.
    pub(crate) fn write(&self, whole: &Value) -> Result<(), Failure> {
        let made = [
            (&self.html, &(|| report::html(whole, Some(&now()))) as &dyn Fn() -> String),
            (&self.markdown, &|| report::markdown(whole)),
            (&self.junit, &|| report::junit(whole)),
        ];
        let files: Vec<(&Path, String)> =
            made.into_iter().filter_map(|(path, text)| Some((path.as_deref()?, text()))).collect();
        write_reports(&files)
    }
}

/// Refuses files to write of which one would be written over another or over one of `others`, or for which there is no folder.
pub(crate) fn check_files<'a>(files: impl IntoIterator<Item = &'a PathBuf>, others: &[PathBuf]) -> Result<(), Failure> {
    let mut taken: Vec<PathBuf> = others.iter().map(|path| real(path)).collect();
    for path in files {
        check_file(path)?;
        let place = || path.display().to_string();
        let own = real(path);
        // What is no regular file, such as a device, would be replaced by one.
        if taken.contains(&own) || (path.exists() && !path.is_file()) {
            let title =
                "a file cannot be written over what is read, over another one that is written, or over what is no file";
            return Err(vec![Diagnostic::error(&codes::L0001, title).at(place())]);
        }
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
            let title = format!("there is no folder `{}` to write to", folder.display());
            return Err(vec![Diagnostic::error(&codes::X0001, title).at(place())]);
        }
        taken.push(own);
    }
    Ok(())
}

/// Where a path leads, or would if it were written.
fn real(path: &Path) -> PathBuf {
    let made = || {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    path.canonicalize().ok().or_else(made).unwrap_or_else(|| path.to_path_buf())
}

/// Writes reports, each whole or not at all, and none where one cannot be written.
pub(crate) fn write_reports(files: &[(&Path, String)]) -> Result<(), Failure> {
    let failed = |path: &Path, why: String| {
        let title = format!("the report cannot be written: {why}");
        vec![Diagnostic::error(&codes::X0001, title).at(path.display().to_string())]
    };
    let mut staged = vec![];
    for (path, text) in files {
        let one = Staged::new(path, |file| file.write_all(text.as_bytes()).map_err(|e| e.to_string()));
        staged.push((path, one.map_err(|why| failed(path, why))?));
    }
    staged.into_iter().try_for_each(|(path, one)| one.put().map_err(|why| failed(path, why)))
}

/// What was typed, as a shell takes it.
pub(crate) fn typed() -> String {
    in_words(std::iter::once("mlconv".into()).chain(std::env::args_os().skip(1)))
}

/// What is typed to look for the op to blame where `verify` has compared: `diff`, with all that was said and that it takes.
pub(crate) fn bisecting(source: &Path, package: &Path) -> String {
    let mut words = vec!["mlconv".into(), "diff".into(), source.as_os_str().to_owned(), package.as_os_str().to_owned()];
    words.extend(retyped("diff"));
    words.push("--bisect".into());
    in_words(words)
}

/// What is typed to convert a model as it was compared: with all that was said and that `convert` takes, and with `more`.
pub(crate) fn converting(source: &Path, out: &Path, more: Vec<String>) -> String {
    let mut words: Vec<OsString> = vec!["mlconv".into(), "convert".into(), source.as_os_str().to_owned(), "-o".into()];
    words.push(out.as_os_str().to_owned());
    words.extend(retyped("convert"));
    std::iter::once(in_words(words)).chain(more).collect::<Vec<_>>().join(" ")
}

/// The options that were typed, or that a recipe says, of those that another command takes.
fn retyped(command: &str) -> Vec<OsString> {
    let line: Vec<_> = std::env::args_os().collect();
    let cli = super::command();
    let takes = cli.find_subcommand(command);
    let filled = cli.clone().try_get_matches_from(&line).ok().and_then(|typed| recipe::fill(typed, &line).ok());
    let mut words = vec![];
    let options = takes.into_iter().flat_map(clap::Command::get_arguments);
    for arg in options.filter(|arg| arg.get_help_heading() != Some(HEADING)) {
        let Some((_, of)) = filled.as_ref().and_then(ArgMatches::subcommand) else { continue };
        let id = arg.get_id().as_str();
        if arg.is_positional() || !recipe::was_typed(of, id) {
            continue;
        }
        let values: Vec<&OsStr> = of.get_raw(id).into_iter().flatten().collect();
        words.extend(values.into_iter().filter_map(|value| recipe::as_typed(arg, value)));
    }
    words
}

/// Words as a shell takes them.
fn in_words(words: impl IntoIterator<Item = OsString>) -> String {
    words.into_iter().map(|word| quoted(&word.to_string_lossy()).into_owned()).collect::<Vec<_>>().join(" ")
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
