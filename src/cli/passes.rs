//! `mlconv passes`

use super::{CommandResult, Outcome, terminal::Terminal};
use crate::{Diagnostic, codes, names::listed, report};
use mlconv_passes::PASSES;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pass to explain; all where it is left out
    name: Option<String>,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    let wanted = |name: &str| args.name.as_deref().is_none_or(|n| n == name);
    let found: Vec<_> = PASSES.iter().filter(|p| wanted(p.name)).collect();
    if found.is_empty() {
        let title = format!("there is no pass `{}`", args.name.as_deref().unwrap_or_default());
        let d = Diagnostic::error(&codes::L0001, title);
        return Err(vec![d.help(format!("the passes are {}", listed(PASSES.iter().map(|p| p.name))))]);
    }
    if terminal.is_json() {
        let all: Vec<_> = found.iter().map(|p| json!({"name": p.name, "doc": p.doc})).collect();
        terminal.json(&json!({"version": report::VERSION, "command": "passes", "passes": all}));
    } else {
        let rows: Vec<Vec<String>> = found.iter().map(|p| vec![p.name.to_owned(), p.doc.to_owned()]).collect();
        terminal.result(&report::table(&rows));
    }
    Ok(Outcome::Done)
}
