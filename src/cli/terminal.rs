//! Where text goes: results to stdout, talk to stderr.

use super::args::{Common, Format};
use crate::{
    Diagnostic, Failure, codes,
    compress::Event,
    names::{hides, visible},
    report::{activation_line, weight_line},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mlconv_mil::diagnostic::Severity;
use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The user's terminal, or what stands in for it.
pub(crate) struct Terminal {
    pub(crate) format: Format,
    quiet: bool,
    colour: bool,
    /// Whether nothing but results and talk is shown, and warnings count.
    strict: bool,
    /// Whether anything was warned of.
    warned: AtomicBool,
    /// Why results could not be printed.
    broken: Mutex<Option<io::Error>>,
}

/// The compression of weights as it goes on.
pub(crate) struct Compression<'a> {
    terminal: &'a Terminal,
    bar: ProgressBar,
}

/// A step that takes a while; it shows itself on a terminal after half a second.
pub(crate) struct Step(ProgressBar);

impl Terminal {
    pub(crate) fn new(common: &Common) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        if common.jobs > 0 {
            // It can be set once a process; a second time would be a mistake of ours that changes nothing.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(common.jobs).build_global();
        }
        let colour = io::stderr().is_terminal() && !no_colour;
        let (strict, warned) = (common.ci, AtomicBool::new(false));
        Self { format: common.format, quiet: common.quiet, colour, strict, warned, broken: Mutex::default() }
    }

    /// Whether there was a warning where warnings count.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.strict && self.warned.load(Ordering::Relaxed)
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints a result, in which nothing of a model moves the cursor.
    pub(crate) fn result(&self, text: &str) {
        self.stdout(&calm(text));
    }

    fn stdout(&self, text: &str) {
        let mut out = io::stdout().lock();
        let end: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
        let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(end)).and_then(|()| out.flush());
        if let Err(e) = written {
            *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
        }
    }

    /// Fails where a result could not be printed. A reader that has read enough closes its pipe: that is no error.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        match self
            .broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .filter(|e| e.kind() != io::ErrorKind::BrokenPipe)
        {
            None => Ok(()),
            Some(e) => Err(vec![Diagnostic::error(&codes::X0001, format!("the result cannot be printed: {e}"))]),
        }
    }

    /// Prints a result for programs: the same value, whatever a terminal would make of its texts.
    pub(crate) fn json(&self, value: &serde_json::Value) {
        let text = format!("{value:#}");
        // JSON has what is left of such characters in strings alone.
        let one = |c: char| if hides(c) && c != '\n' { format!("\\u{:04x}", c as u32) } else { c.to_string() };
        if text.contains(|c| hides(c) && c != '\n') {
            return self.stdout(&text.chars().map(one).collect::<String>());
        }
        self.stdout(&text);
    }

    /// Says something by the way.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            self.stderr(text);
        }
    }

    /// Whether only results and errors are wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Says what makes the exit status 1, however quiet.
    pub(crate) fn insist(&self, warnings: &[Diagnostic]) {
        warnings.iter().for_each(|d| self.diagnostic(d));
    }

    /// As [`Self::insist`], in plain text.
    pub(crate) fn insist_text(&self, text: &str) {
        self.stderr(text);
    }

    /// Says what was adapted.
    pub(crate) fn warn(&self, warnings: &[Diagnostic]) {
        if !warnings.is_empty() {
            self.warned.store(true, Ordering::Relaxed);
        }
        if !self.quiet {
            warnings.iter().for_each(|d| self.diagnostic(d));
        }
    }

    /// Says what is no more than worth knowing: it does not count where warnings do.
    pub(crate) fn note(&self, notes: &[Diagnostic]) {
        if !self.quiet {
            notes.iter().for_each(|d| self.diagnostic(d));
        }
    }

    /// Says why a command failed.
    pub(crate) fn failed(&self, failure: &[Diagnostic]) {
        if self.is_json() {
            let errors: Vec<_> = failure.iter().map(crate::report::diagnostic).collect();
            self.json(&serde_json::json!({ "version": crate::report::VERSION, "errors": errors }));
        }
        let errors = failure.iter().filter(|d| d.severity == Severity::Error);
        errors.for_each(|d| self.diagnostic(d));
    }

    fn diagnostic(&self, d: &Diagnostic) {
        let text = d.to_string();
        if !self.colour {
            return self.stderr(&text);
        }
        let text = calm(&text);
        let (head, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let code = match d.severity {
            Severity::Error => 31,
            Severity::Warning => 33,
        };
        let (kind, title) = head.split_once(": ").unwrap_or(("", head));
        let rest = if rest.is_empty() { String::new() } else { format!("\n{rest}") };
        self.painted(&format!("\x1b[1;{code}m{kind}\x1b[0m\x1b[1m: {title}\x1b[0m{rest}"));
    }

    fn stderr(&self, text: &str) {
        self.painted(&calm(text));
    }

    /// Says what has colours of ours in it.
    fn painted(&self, text: &str) {
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "{text}");
    }

    /// Follows the compression of weights: a line for each, above a bar with the time that is left.
    pub(crate) fn compression(&self) -> Compression<'_> {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(500));
        Compression { terminal: self, bar }
    }

    /// Begins a step.
    pub(crate) fn step(&self, what: &'static str) -> Step {
        let target =
            if self.quiet || self.strict { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(500));
        Step(bar)
    }
}

impl Compression<'_> {
    pub(crate) fn tell(&self, event: Event<'_>) {
        match event {
            Event::Activations(a) => a.rows.iter().for_each(|row| self.line(&activation_line(row, a))),
            Event::Measured { done, of } => self.bar(MEASURING, done as u64, of as u64),
            Event::Weight { done, of, bytes, of_bytes, row } => {
                self.bar(COMPRESSING, bytes, of_bytes);
                self.line(&format!("[{done}/{of}] {}", weight_line(row)));
            }
        }
    }

    fn bar(&self, template: &str, done: u64, of: u64) {
        if self.bar.length() != Some(of)
            && let Ok(style) = ProgressStyle::with_template(template)
        {
            self.bar.set_style(style);
            self.bar.set_length(of);
        }
        self.bar.set_position(done);
    }

    /// A line above the bar.
    fn line(&self, text: &str) {
        if self.bar.is_hidden() { self.terminal.say(text) } else { self.bar.println(calm(text)) }
    }
}

/// Text in which nothing moves the cursor but line breaks and tabs.
fn calm(text: &str) -> Cow<'_, str> {
    visible(text, |c| matches!(c, '\n' | '\t'))
}

const MEASURING: &str = "measuring how much each weight matters: {pos} of {len}, {eta} left";
const COMPRESSING: &str = "compressing: {bytes} of {total_bytes}, {eta} left";

impl Drop for Compression<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
