//! `mlconv bundle`

use super::{
    CommandResult, Outcome,
    args::{SourceRuntime, seed},
    files::Pictures,
    terminal::Terminal,
    write::check_file,
};
use crate::{
    Failure,
    beside::{self, Beside},
    bundle,
    bundle::{Expected, Job},
    interface::Interface,
    report, stateful,
};
use mlconv_source::Request;
use serde_json::json;
use std::{path::PathBuf, process};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The package
    package: PathBuf,
    /// The folder to make
    #[arg(short, value_name = "DIR")]
    out: PathBuf,
    /// The model that the package comes from, or another package, whose outputs are expected [default: what mlconv computes of
    /// the package]
    #[arg(long, value_name = "SOURCE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    source_runtime: SourceRuntime,
    /// The function to run, of a package that has several
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Sample inputs to run, as of `verify`; random ones where there are none; repeatable
    #[arg(long, value_name = "FILE")]
    sample: Vec<String>,
    #[command(flatten)]
    pictures: Pictures,
    /// Seed of the random inputs that are run where there are no samples
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = seed)]
    seed: u64,
    /// Add packages that return the values of ops, and what mlconv computes of them
    #[arg(long)]
    per_op: bool,
    /// Replace a bundle that exists
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    check_file(&args.out)?;
    let (samples, notes) = args.pictures.read(&args.sample)?;
    terminal.warn(&notes);
    // An interrupted run leaves nothing behind.
    let _ = ctrlc::set_handler(|| {
        mlconv_coreml::abandon();
        bundle::abandon();
        #[expect(clippy::exit, reason = "the process was asked to end")]
        process::exit(130);
    });
    let expected = {
        let _step = terminal.step("importing");
        args.against.as_ref().map(|source| expected(args, source, &samples, terminal)).transpose()?
    };
    let (made, notes) = {
        let _step = terminal.step("bundling");
        bundle::make(Job {
            package: &args.package,
            out: &args.out,
            function: args.function.as_deref(),
            samples: &samples,
            seed: args.seed,
            per_op: args.per_op,
            force: args.force,
            expected,
        })?
    };
    terminal.warn(&notes);
    if terminal.is_json() {
        terminal.json(&json!({"version": report::VERSION, "command": "bundle", "output": args.out, "bundle": made}));
        return Ok(Outcome::Done);
    }
    let values: usize = made.models.iter().skip(1).map(|m| m.outputs.len()).sum();
    let of_ops = if args.per_op { format!(", and {values} values of ops") } else { String::new() };
    let samples =
        if made.samples.len() == 1 { "1 sample".to_owned() } else { format!("{} samples", made.samples.len()) };
    terminal.say(&format!("{samples}, with what {} gives{of_ops}", made.against));
    terminal.say("run `swift run.swift` in the folder, on a Mac");
    terminal.result(&args.out.display().to_string());
    Ok(Outcome::Done)
}

/// The source, as it was asked for when the package was made.
fn expected(
    args: &Args,
    path: &std::path::Path,
    samples: &crate::arrays::Arrays,
    terminal: &Terminal,
) -> Result<Expected, Failure> {
    let (request, interface) = (Request::default(), Interface::default());
    let asked = beside::Asked { function: args.function.as_deref(), request: &request, interface: &interface, samples };
    let Beside { source, source_format, outside, notes, .. } = beside::read(&args.package, path, asked)?;
    terminal.warn(&notes);
    let has_states = stateful::has_states(&source);
    let chosen = args.source_runtime.choose(path, source_format, samples, has_states)?.within(outside);
    Ok(Expected { source, chosen })
}
