//! `mlconv check`

use super::{
    CommandResult, Outcome,
    args::{Import, Rewrite},
    terminal::Terminal,
};
use crate::{
    convert::Job,
    interface::Interface,
    report,
    survey::{Survey, survey},
};
use mlconv_mil::diagnostic::Limit;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    #[command(flatten)]
    import: Import,
    #[command(flatten)]
    rewrite: Rewrite,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    let job = Job {
        model: args.model.clone(),
        request: args.import.request()?,
        single: args.rewrite.single(),
        half: args.rewrite.half(),
        keep_fp32: args.rewrite.patterns(),
        interface: args.rewrite.ranges.within(Interface::default()),
        ..Job::default()
    };
    let found = survey(&job)?;
    let Survey { blockers, notes, unapplied, kept, nodes, unjudged } = &found;
    if terminal.is_json() {
        terminal.json(&json!({
            "version": report::VERSION,
            "command": "check",
            "convertible": blockers.is_empty(),
            "nodes": nodes.map(|n| json!({"all": n, "blocked": found.blocked(), "not_judged": unjudged})),
            "blockers": blockers.iter().map(report::diagnostic).collect::<Vec<_>>(),
            "kept_fp32": kept.iter().map(report::kept).collect::<Vec<_>>(),
            "notes": notes.iter().chain(unapplied).map(report::diagnostic).collect::<Vec<_>>(),
        }));
    } else {
        let all: Vec<String> = blockers.iter().chain(notes).chain(unapplied).map(ToString::to_string).collect();
        terminal.result(&[all, vec![verdict(&found)]].concat().join("\n"));
    }
    Ok(if blockers.is_empty() && unapplied.is_empty() { Outcome::Done } else { Outcome::Differs })
}

/// What it comes to, in a line.
fn verdict(found: &Survey) -> String {
    let some = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let mut out = match found.blockers.len() {
        0 => "nothing stands in the way".to_owned(),
        n => some(n, "blocker"),
    };
    if let (Some(all), blocked @ 1..) = (found.nodes, found.blocked()) {
        out += &format!(" at {blocked} of {}", some(all, "node"));
    }
    let whose = |limit| found.blockers.iter().filter(|d| d.limit == Some(limit)).count();
    let (core_ml, not_yet) = (whose(Limit::CoreMl), whose(Limit::NotYet));
    let parts = [(core_ml, "Core ML has no equal of"), (not_yet, "mlconv does not do yet")];
    for (n, what) in parts.into_iter().filter(|(n, _)| *n > 0) {
        out += &format!("; {n} {what}");
    }
    match found.unjudged {
        0 => out,
        n => format!(
            "{out}; {} not judged, as what {} is not known",
            some(n, "node"),
            if n == 1 { "it reads" } else { "they read" }
        ),
    }
}
