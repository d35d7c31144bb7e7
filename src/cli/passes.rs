//! `mlconv passes`

use super::{
    CommandResult, Outcome,
    args::{Import, Rewrite},
    interface::Asked,
    terminal::Terminal,
};
use crate::{Diagnostic, codes, convert, model, names::listed, report};
use mlconv_mil::{ir::Module, text::print_op};
use mlconv_passes::{Note, Options, PASSES, Pattern, Weight};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The pass to explain; all where it is left out
    name: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say of a node of a model which rules of which passes rewrote it, and why others did not
    Explain(Explain),
}

#[derive(Debug, clap::Args)]
struct Explain {
    /// The model
    model: PathBuf,
    /// The node, by name, type or module path, with `*` for any text
    #[arg(long, value_name = "PATTERN")]
    node: String,
    #[command(flatten)]
    import: Import,
    #[command(flatten)]
    rewrite: Rewrite,
    #[command(flatten)]
    interface: Asked,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    if let Some(Command::Explain(args)) = &args.command {
        return explain(args, terminal);
    }
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

/// The ops that a pattern means, as text.
fn meant(module: &Module, pattern: &Pattern) -> Vec<String> {
    let of = |f: &mlconv_mil::ir::Function| -> Vec<String> {
        f.all_ops().into_iter().filter(|id| pattern.means(module, f, *id)).map(|id| print_op(f, id)).collect()
    };
    module.functions.iter().flat_map(of).collect()
}

fn explain(args: &Explain, terminal: &Terminal) -> CommandResult {
    let mut model = model::read(&args.model, &args.import.request()?)?;
    let interface = args.rewrite.ranges.within(args.interface.interface()?);
    terminal.warn(&model.warnings);
    terminal.warn(&interface.apply(&mut model.module)?.notes);
    let pattern = Pattern::new(args.node.as_str());
    let before = meant(&model.module, &pattern);
    if before.is_empty() {
        let d = Diagnostic::error(&codes::L0001, format!("`--node {}` matches no op", pattern.as_str()));
        let help =
            "`mlconv inspect --mil` prints the program; names, types and module paths match, with `*` for any text";
        return Err(vec![d.at(args.model.display().to_string()).help(help)]);
    }
    let options = Options { keep_fp32: args.rewrite.patterns(), explain: Some(pattern.clone()), ..Options::default() };
    let pipeline = convert::pipeline(args.rewrite.half());
    let report = pipeline.run(&mut model.module, &options).map_err(convert::pass_failed)?;
    let after = meant(&model.module, &pattern);
    let about = |n: &&Note| n.weight <= Weight::Fired || before.contains(&n.op) || after.contains(&n.op);
    let notes: Vec<&Note> = report.notes.iter().filter(about).collect();
    if terminal.is_json() {
        let note = |n: &&Note| -> Value {
            let why = (!n.why.is_empty()).then_some(&n.why);
            json!({"pass": n.pass, "rule": (!n.rule.is_empty()).then_some(&n.rule), "op": n.op, "applied": n.weight == Weight::Fired, "why": why, "detail": n.detail})
        };
        terminal.json(&json!({
            "version": report::VERSION,
            "command": "passes explain",
            "before": before,
            "steps": notes.iter().map(note).collect::<Vec<_>>(),
            "after": after,
        }));
        return Ok(Outcome::Done);
    }
    let indented = |ops: &[String]| ops.iter().flat_map(|op| ["  ", op, "\n"]).collect::<String>();
    let mut out = format!("before\n{}", indented(&before));
    for n in notes {
        let rule = if n.rule.is_empty() { String::new() } else { format!(", rule `{}`", n.rule) };
        let what = if n.weight == Weight::Fired { "applied" } else { n.why.as_str() };
        out += &format!("{}{rule}: {what}\n  {}\n", n.pass, n.op);
    }
    let now = if after.is_empty() { "  nothing: it became a part of other ops\n".to_owned() } else { indented(&after) };
    terminal.result(&format!("{out}after\n{now}"));
    Ok(Outcome::Done)
}
