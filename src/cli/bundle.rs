//! `mlconv bundle`

use super::{
    CommandResult, Outcome,
    args::{Import, SourceRuntime, seed},
    files::Pictures,
    terminal::Terminal,
    write::check_file,
};
use crate::{
    Failure, bundle,
    bundle::{Expected, Job},
    interface::{Applied, Interface},
    model::{self, Format},
    report, stateful,
};
use mlconv_mil::verify::verify;
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
    let package = model::read(&args.package, &Request::default())?.module;
    let is_package = model::format(path).is_ok_and(|f| f == Format::Package);
    let has_them = is_package && stateful::has_states(&model::read(path, &Request::default())?.module);
    let state = if has_them { vec![] } else { stateful::pairs(&package) };
    let import =
        Import { target: None, input: vec![], output: vec![], no_state: !stateful::has_states(&package), state };
    let opset = package.functions.first().map(|f| f.opset);
    let request = model::sized_like(path, Request { opset, ..import.request()? }, &package)?;
    let asked = Interface::recorded(&package);
    let mut source = model::read_sized(path, &request, &asked.shaped(samples))?;
    let Applied { notes, outside } = asked.beyond(&Interface::recorded(&source.module)).apply(&mut source.module)?;
    terminal.warn(&notes);
    let (format, source) = (source.format, verify(source.module)?);
    let chosen = args.source_runtime.choose(path, format, samples, stateful::has_states(&source))?.within(outside);
    Ok(Expected { source, chosen })
}
