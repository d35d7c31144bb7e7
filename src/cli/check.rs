//! `mlconv check`

use super::{
    CommandResult, Outcome,
    args::{Import, Rewrite},
    terminal::Terminal,
};
use crate::{
    arrays::Arrays,
    convert::{self, Job},
    report,
};
use mlconv_mil::diagnostic::Severity;
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
        weights: convert::Weights::Keep,
        labels: None,
        calibration: Arrays::new(),
        samples: Arrays::new(),
    };
    let mut kept = vec![];
    let mut unapplied = false;
    let (blockers, notes) = match convert::prepare(&job, &|_| {}) {
        Ok(mut prepared) => {
            kept = prepared.kept;
            unapplied = !prepared.unapplied.is_empty();
            prepared.warnings.append(&mut prepared.unapplied);
            (vec![], prepared.warnings)
        }
        Err(all) => all.into_iter().partition(|d| d.severity == Severity::Error),
    };
    // A file that cannot be read is no model with blockers.
    if blockers.iter().any(|d| d.code.id.starts_with(['R', 'L'])) {
        return Err(blockers);
    }
    if terminal.is_json() {
        terminal.json(&json!({
            "version": report::VERSION,
            "command": "check",
            "convertible": blockers.is_empty(),
            "blockers": blockers.iter().map(report::diagnostic).collect::<Vec<_>>(),
            "kept_fp32": kept.iter().map(report::kept).collect::<Vec<_>>(),
            "notes": notes.iter().map(report::diagnostic).collect::<Vec<_>>(),
        }));
    } else {
        let all: Vec<String> = blockers.iter().chain(&notes).map(ToString::to_string).collect();
        let verdict = match blockers.len() {
            0 => "nothing stands in the way".to_owned(),
            1 => "1 blocker".to_owned(),
            n => format!("{n} blockers"),
        };
        terminal.result(&[all, vec![verdict]].concat().join("\n"));
    }
    Ok(if blockers.is_empty() && !unapplied { Outcome::Done } else { Outcome::Differs })
}
