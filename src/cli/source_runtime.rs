//! `mlconv source-runtime`, which is for this program alone: it loads onnxruntime where a fault of that harms nobody.

use super::{CommandResult, Outcome};
use crate::{Diagnostic, codes, witness::serve::serve};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The library
    #[arg(long)]
    library: PathBuf,
    /// Threads that it may use
    #[arg(long)]
    threads: usize,
    /// The model
    model: PathBuf,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    serve(&args.library, &args.model, args.threads)
        .map_err(|e| vec![Diagnostic::error(&codes::N0006, format!("nobody listens: {e}"))])?;
    Ok(Outcome::Done)
}
