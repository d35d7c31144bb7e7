//! `mlconv ops`

use super::{CommandResult, Outcome, terminal::Terminal};
use crate::{Diagnostic, codes, report};
use mlconv_mil::{ops::OPS, reference, schema::Schema};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The op to show; all where it is left out
    name: Option<String>,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    let all = OPS.iter().map(|o| o.schema);
    let found: Vec<&Schema> = match &args.name {
        None => all.collect(),
        Some(name) => all.filter(|s| s.name == name).collect(),
    };
    if found.is_empty() {
        let d =
            Diagnostic::error(&codes::L0001, format!("there is no op `{}`", args.name.as_deref().unwrap_or_default()));
        return Err(vec![d.help("`mlconv ops` lists all of them")]);
    }
    if terminal.is_json() {
        let one = |s: &&Schema| {
            json!({"name": s.name, "since": s.since.name(), "until": s.until.map(mlconv_mil::schema::Opset::name),
                "doc": s.doc, "params": s.params.iter().map(|p| json!({"name": p.name, "doc": p.doc})).collect::<Vec<_>>()})
        };
        terminal.json(
            &json!({"version": report::VERSION, "command": "ops", "ops": found.iter().map(one).collect::<Vec<_>>()}),
        );
    } else if args.name.is_some() {
        terminal.result(&found.iter().map(|s| reference::markdown(s)).collect::<Vec<_>>().join("\n"));
    } else {
        let row = |s: &&Schema| {
            vec![s.name.to_owned(), s.since.name().to_owned(), s.doc.lines().next().unwrap_or_default().to_owned()]
        };
        terminal.result(&report::table(&found.iter().map(row).collect::<Vec<_>>()));
    }
    Ok(Outcome::Done)
}
