//! `cargo xtask gen` writes every generated file of the repository; `cargo xtask gen --check` fails where one is not
//! what it would write. `cargo xtask tables`, with `--check` likewise, measures what documentation states.

mod docs;
mod output;
mod proto;
mod tables;

use output::Output;
use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Writes one kind of generated files for the repository at a path.
type Generator = fn(&Path, &mut Output) -> Result<()>;

/// All generators by name. A new kind of files is a new line here.
const GENERATORS: &[(&str, Generator)] = &[("proto", proto::generate), ("docs", docs::generate)];

const USAGE: &str = "usage: cargo xtask gen|tables [--check]";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["gen"] => generate(Output::writing()),
        ["gen", "--check"] => generate(Output::checking()),
        ["tables"] => root().and_then(|root| tables::run(root, false)),
        ["tables", "--check"] => root().and_then(|root| tables::run(root, true)),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> Result<&'static Path> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("no repository around this crate")?)
}

fn generate(mut output: Output) -> Result<()> {
    let root = root()?;
    for (name, generator) in GENERATORS {
        generator(root, &mut output).map_err(|e| format!("{name}: {e}"))?;
    }
    let stale: Vec<PathBuf> = output.finish();
    if stale.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = stale.iter().map(|p| format!("  {}", p.display())).collect();
    Err(format!("not as generated, run `cargo xtask gen`:\n{}", list.join("\n")).into())
}
