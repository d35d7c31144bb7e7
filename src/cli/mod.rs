//! Arguments in, exit status out. One file a command: what was typed becomes what is meant, the library does it, and a
//! report is printed.

mod args;
mod bundle;
mod check;
mod compress;
mod convert;
mod diff;
mod files;
mod inspect;
mod interface;
mod merge;
mod ops;
mod passes;
mod recipe;
mod reports;
mod run;
#[cfg(feature = "onnxruntime")]
mod source_runtime;
mod terminal;
mod thresholds;
mod verify;
mod write;

use crate::{Diagnostic, Failure, codes};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use std::{
    ffi::OsString,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::Mutex,
};
use terminal::Terminal;

/// Convert, run and verify Core ML models: no Python, no framework, no Mac.
#[derive(Debug, Parser)]
#[command(name = "mlconv", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: args::Common,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Import a model, optimise it, write an .mlpackage, and verify what was written
    Convert(Box<convert::Args>),
    /// Compress the weights of a package, or of any model that can be imported
    Compress(Box<compress::Args>),
    /// Put functions of several packages into one, which share their weights
    Merge(Box<merge::Args>),
    /// Run a package, or any importable model, on this machine
    Run(Box<run::Args>),
    /// Run a package and the model it comes from on the same inputs; exit 1 if they differ beyond tolerance
    Verify(Box<verify::Args>),
    /// Compare two models value by value; `--bisect` finds the op that is to blame where outputs differ, and what mends it
    Diff(Box<diff::Args>),
    /// Put a package, inputs and expected outputs into a folder that runs itself in Core ML on a Mac
    Bundle(bundle::Args),
    /// Show inputs, outputs, states, functions, ops, weights and costs
    Inspect(inspect::Args),
    /// List everything that stands in the way of a conversion; write nothing
    Check(check::Args),
    /// List the passes, or explain one
    Passes(passes::Args),
    /// List the ops, or show one
    Ops(ops::Args),
    /// Run a model in onnxruntime for another process of this program
    #[cfg(feature = "onnxruntime")]
    #[command(hide = true)]
    SourceRuntime(source_runtime::Args),
}

/// How a command that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well: exit 0.
    Done,
    /// It is done, and the models differ, a threshold is missed, or something asked for was not applied: exit 1.
    Differs,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    let (typed, common) = match command()
        .try_get_matches_from(&line)
        .and_then(|typed| args::Common::from_arg_matches(&typed).map(|common| (typed, common)))
    {
        Ok(read) => read,
        Err(e) => return usage(&e),
    };
    let terminal = Terminal::new(&common);
    let done = guarded(|| {
        let filled = recipe::fill(typed, &line)?;
        if let Some(recipe) = recipe::wanted(&filled)? {
            terminal.result(&recipe);
            return Ok(Outcome::Done);
        }
        run(Cli::from_arg_matches(&filled).map_err(|e| vec![usage_error(&e)])?.command, &terminal)
    });
    match done.and_then(|outcome| terminal.finish().map(|()| outcome)) {
        Ok(Outcome::Done) if terminal.is_alarmed() => ExitCode::from(1),
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Differs) => ExitCode::from(1),
        Err(failure) => {
            terminal.failed(&failure);
            ExitCode::from(2)
        }
    }
}

fn run(command: Command, terminal: &Terminal) -> CommandResult {
    match command {
        Command::Convert(args) => convert::run(*args, terminal),
        Command::Compress(args) => compress::run(*args, terminal),
        Command::Merge(args) => merge::run(*args, terminal),
        Command::Run(args) => run::run(&args, terminal),
        Command::Verify(args) => verify::run(&args, terminal),
        Command::Diff(args) => diff::run(&args, terminal),
        Command::Bundle(args) => bundle::run(&args, terminal),
        Command::Inspect(args) => inspect::run(&args, terminal),
        Command::Check(args) => check::run(&args, terminal),
        Command::Passes(args) => passes::run(&args, terminal),
        Command::Ops(args) => ops::run(&args, terminal),
        #[cfg(feature = "onnxruntime")]
        Command::SourceRuntime(args) => source_runtime::run(&args),
    }
}

/// Runs a command; a panic, which is a fault of the tool, ends as one diagnostic like every other failure.
fn guarded(command: impl FnOnce() -> CommandResult) -> CommandResult {
    static PANIC: Mutex<Option<String>> = Mutex::new(None);
    panic::set_hook(Box::new(|info| {
        let why = info.payload_as_str().unwrap_or("no reason given");
        let place = info.location().map_or_else(String::new, |l| format!(" ({}:{})", l.file(), l.line()));
        if let Ok(mut first) = PANIC.lock() {
            first.get_or_insert(format!("{why}{place}"));
        }
    }));
    panic::catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|_| {
        let why = PANIC.lock().ok().and_then(|mut p| p.take()).unwrap_or_default();
        let d = Diagnostic::error(&codes::T0001, format!("a fault of mlconv itself: {why}"));
        Err(vec![d.help("please report it, with the command and, if it may be shared, the model")])
    })
}

/// The whole command line, for a reference of it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Help and version go to stdout; anything else is a diagnostic like every other.
fn usage(e: &clap::Error) -> ExitCode {
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is no error.
        let _ = e.print();
        return ExitCode::SUCCESS;
    }
    if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = e.print();
        return ExitCode::from(2);
    }
    let d = usage_error(e);
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let json =
        words.iter().any(|w| w == "--format=json") || words.windows(2).any(|w| w[0] == "--format" && w[1] == "json");
    let format = if json { args::Format::Json } else { args::Format::Text };
    Terminal::new(&args::Common { format, ..args::Common::default() }).failed(&[d]);
    ExitCode::from(2)
}

/// What is wrong with a command line.
fn usage_error(e: &clap::Error) -> Diagnostic {
    let text = e.to_string();
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("For more information"));
    let title = lines.next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches(':').to_owned();
    let lines: Vec<&str> = lines.take_while(|l| !l.starts_with("Usage:")).collect();
    let tips: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix("tip: ")).collect();
    let details: Vec<&str> = lines.into_iter().filter(|l| !l.starts_with("tip:")).collect();
    let title = if details.is_empty() { title } else { format!("{title}: {}", details.join(" ")) };
    let listed = "`mlconv --help` and `mlconv COMMAND --help` list what there is".to_owned();
    let help = if tips.is_empty() { listed } else { tips.join("; ").replace('\'', "`") };
    Diagnostic::error(&codes::L0001, title).help(help)
}

/// The result of a command.
pub(crate) type CommandResult = Result<Outcome, Failure>;
