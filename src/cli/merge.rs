//! `mlconv merge`

use super::{
    CommandResult,
    args::{ReadInputs, Target, seed},
    terminal::Terminal,
    write::{Write, check_target},
};
use crate::{
    Diagnostic, codes,
    convert::default_tolerance,
    merge::{self, Job, Part},
    model::size,
    report::bytes,
    witness::Chosen,
};
use std::{collections::BTreeSet, path::PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A function: what it will be called, the package that it is in, and what it is called there, the package's default one
    /// where that is left out; one function called `main` is taken out of its package
    #[arg(value_name = "NAME=PKG[:FUNCTION]", required = true, value_parser = Part::parse)]
    parts: Vec<Part>,
    /// Where to write the package
    #[arg(short, value_name = "OUT.mlpackage")]
    out: PathBuf,
    /// The function that runs where none is named [default: the first]
    #[arg(long, value_name = "NAME")]
    default: Option<String>,
    /// Minimum deployment target [default: the least that will do, which is ios18 where there are several functions]
    #[arg(long, value_enum)]
    target: Option<Target>,
    /// Seed of the random inputs that functions are run on
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = seed)]
    seed: u64,
    /// Skip the run of the package that otherwise follows
    #[arg(long)]
    no_verify: bool,
    /// Replace the output if it exists
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> CommandResult {
    check_target(&args.out, args.force)?;
    let packages: BTreeSet<PathBuf> = args.parts.iter().map(|p| p.package.clone()).collect();
    let real = |path: &PathBuf| path.canonicalize().ok();
    if real(&args.out).is_some_and(|out| packages.iter().filter_map(real).any(|p| p == out)) {
        let d = Diagnostic::error(&codes::L0001, "the package to write is one that is read");
        return Err(vec![d.at(args.out.display().to_string())]);
    }
    let job = Job { parts: args.parts, default: args.default, opset: args.target.map(Target::opset) };
    let prepared = {
        let _step = terminal.step("reading");
        merge::prepare(&job)?
    };
    let tolerance = default_tolerance(&prepared.module);
    let witness = Chosen::kernels(prepared.format);
    let write = Write {
        command: "merge",
        out: &args.out,
        force: args.force,
        verify: (!args.no_verify).then_some(tolerance),
        mend: None,
    };
    let before: u64 = packages.iter().map(|p| size(p)).sum();
    let outcome = write.run(prepared, witness, &ReadInputs::of_seed(args.seed), terminal)?;
    if !terminal.is_json() {
        let now = bytes(size(&args.out));
        terminal.say(&format!(
            "{} functions in {now}, of packages that have {} together",
            job.parts.len(),
            bytes(before)
        ));
    }
    Ok(outcome)
}
