//! `mlconv inspect`

use super::{
    CommandResult, Outcome,
    args::{Import, target_unapplied},
    reports::{check_files, now, write_reports},
    terminal::Terminal,
};
use crate::{
    Diagnostic, Failure, convert,
    inspect::{self, Costs, Weights},
    model::{self, Format},
    names::{shown, visible},
    report::{self, bytes, table},
};
use mlconv_mil::{
    diagnostic::Severity,
    ir::{Function, Module, Port},
    ops::Const,
    text::{Elide, print},
};
use mlconv_source::SourceValue;
use mlconv_tensor::{Symbols, Type};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// Print the program
    #[arg(long)]
    mil: bool,
    /// Print the program with every element of every constant
    #[arg(long)]
    full: bool,
    /// Write a page of it, with all ops and their graph: one file that needs nothing else
    #[arg(long, value_name = "FILE.html", conflicts_with_all = ["mil", "full"])]
    html: Option<PathBuf>,
    #[command(flatten)]
    import: Import,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    check_files(&args.html, std::slice::from_ref(&args.model))?;
    let read = match model::read(&args.model, &args.import.request()?) {
        Err(blockers) if !args.mil && !args.full && args.html.is_none() => return source(args, blockers, terminal),
        read => read?,
    };
    terminal.warn(&read.warnings);
    let unapplied = target_unapplied(&args.import, &read);
    terminal.insist(unapplied.as_slice());
    let outcome = if unapplied.is_none() { Outcome::Done } else { Outcome::Differs };
    if args.mil || args.full {
        let elide = if args.full { Elide::Never } else { Elide::Above(16) };
        let text = print(&read.module, elide);
        if terminal.is_json() {
            terminal.json(&json!({"version": report::VERSION, "command": "inspect", "mil": text}));
        } else {
            terminal.result(&text);
        }
        return Ok(outcome);
    }
    if terminal.is_json() || args.html.is_some() {
        let functions: Vec<Value> = read.module.functions.iter().map(|f| function_json(f, &read.module)).collect();
        let whole = json!({
            "version": report::VERSION,
            "command": "inspect",
            "format": read.format.name(),
            "size_bytes": model::size(&args.model),
            "weights": report::weights_json(&Weights::of(&read.module.functions)),
            "metadata": metadata(&read.module),
            "functions": functions,
            "source": null,
            "blockers": [],
        });
        if let Some(path) = &args.html {
            let subject = args.model.file_name().unwrap_or(args.model.as_os_str()).to_string_lossy();
            let ops = json!({"ops": inspect::ops(&read.module)});
            write_reports(&[(path, report::html::inspection(&whole, &subject, &ops, Some(&now())))])?;
        }
        if terminal.is_json() {
            terminal.json(&whole);
            return Ok(outcome);
        }
    }
    let mut out = format!("{}, {}\n", read.format.name(), bytes(model::size(&args.model)));
    out += &format!("  {}\n", report::weights_text(&Weights::of(&read.module.functions)));
    for (key, value) in metadata(&read.module) {
        out += &metadata_line(&key, &value);
    }
    for f in &read.module.functions {
        out += &function_text(f, &read.module);
    }
    terminal.result(&out);
    Ok(outcome)
}

/// Shows what the file says of a model that cannot be lowered, and why it cannot.
fn source(args: &Args, failure: Failure, terminal: &Terminal) -> CommandResult {
    // A file that cannot be read, or a request that does not fit, leaves nothing to show.
    let hopeless = failure.iter().any(|d| d.severity == Severity::Error && d.code.id.starts_with(['R', 'L']));
    let format = model::format(&args.model).ok().filter(|f| matches!(f, Format::Onnx | Format::Pt2) && !hopeless);
    let Some(format) = format else { return Err(failure) };
    let graph = model::read_source(&args.model, format).map_err(|d| vec![d])?;
    let inputs = graph.inputs.iter().filter(|i| !graph.constants.contains_key(&i.name)).map(|v| ("input", v));
    let ends: Vec<_> = inputs.chain(graph.outputs.iter().map(|v| ("output", v))).collect();
    let other = |v: &SourceValue| v.other.clone().unwrap_or_else(|| "?".to_owned());
    let ty = |v: &SourceValue| v.ty.as_ref().map_or_else(|| other(v), ToString::to_string);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    graph.visit_nodes(&mut |node| *counts.entry(node.operator()).or_default() += 1);
    let nodes = by_count(counts);
    let mut constants: BTreeMap<&'static str, (usize, u64)> = BTreeMap::new();
    for t in graph.constants.values() {
        let entry = constants.entry(t.dtype().name()).or_default();
        *entry = (entry.0 + 1, entry.1 + t.blob().len() as u64);
    }
    let blockers: Vec<&Diagnostic> = failure.iter().filter(|d| d.severity == Severity::Error).collect();
    if terminal.is_json() {
        let end = |(kind, v): &(&str, &SourceValue)| json!({"kind": kind, "name": &*v.name, "type": ty(v), "description": v.description});
        terminal.json(&json!({
            "version": report::VERSION,
            "command": "inspect",
            "format": format.name(),
            "size_bytes": model::size(&args.model),
            "weights": report::weights_json(&Weights::stored(graph.constants.values())),
            "metadata": graph.meta.iter().collect::<BTreeMap<_, _>>(),
            "functions": [],
            "source": {
                "ports": ends.iter().map(end).collect::<Vec<_>>(),
                "nodes": nodes.iter().map(|(n, c)| json!({"op": n, "count": c})).collect::<Vec<_>>(),
                "constants": constants_json(constants),
            },
            "blockers": blockers.into_iter().map(report::diagnostic).collect::<Vec<_>>(),
        }));
        return Ok(Outcome::Done);
    }
    let mut out = format!("{}, {}, which cannot be converted\n", format.name(), bytes(model::size(&args.model)));
    out += &format!("  {}\n", report::weights_text(&Weights::stored(graph.constants.values())));
    for (key, value) in &graph.meta {
        out += &metadata_line(key, value);
    }
    out.push('\n');
    out += &table(&ends.iter().map(|(k, v)| vec![(*k).to_owned(), v.name.to_string(), ty(v)]).collect::<Vec<_>>());
    out += "nodes\n";
    out += &table(&nodes.into_iter().map(|(n, c)| vec![n, c.to_string()]).collect::<Vec<_>>());
    out += "constants\n";
    out += &constants_text(constants);
    out += "blockers\n";
    for d in blockers {
        out += &format!("{d}\n");
    }
    terminal.result(&out);
    Ok(Outcome::Done)
}

/// An entry of the metadata as a line, however many its text has.
fn metadata_line(key: &str, value: &str) -> String {
    format!("  {}: {}\n", shown(key), visible(value, |_| false))
}

fn metadata(module: &Module) -> BTreeMap<String, String> {
    let m = &module.meta;
    let own =
        [("author", &m.author), ("description", &m.description), ("license", &m.license), ("version", &m.version)];
    let own = own.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v.clone()));
    own.chain(m.user.iter().map(|(k, v)| (k.clone(), v.clone()))).collect()
}

/// The ports of a function, each with its kind and type.
fn ports(f: &Function) -> Vec<(&'static str, &Port, &Type)> {
    let kind = |ty: &Type| if matches!(ty, Type::State(_)) { "state" } else { "input" };
    let inputs = f.inputs().iter().zip(&f.sig.inputs).map(|(v, p)| (kind(f.ty(*v)), p, f.ty(*v)));
    let outputs = f.outputs().iter().zip(&f.sig.outputs).map(|(v, p)| ("output", p, f.ty(*v)));
    inputs.chain(outputs).collect()
}

/// What else there is to know of a port: flexible sizes, enumerated shapes, defaults.
fn port_notes(port: &Port, ty: &Type, symbols: &Symbols) -> Vec<String> {
    let mut out = vec![];
    if let Some(name) = &port.packaged {
        out.push(format!("called `{name}` in the package"));
    }
    if let Some(t) = ty.tensor() {
        for d in t.shape.iter() {
            d.visit_symbols(&mut |s| {
                if let Some(info) = symbols.get(s) {
                    let max = info.max.map_or("…".to_owned(), |m| m.to_string());
                    let default = info.default.map_or_else(String::new, |d| format!(", default {d}"));
                    out.push(format!("{s} is {} to {max}{default}", info.min));
                }
            });
        }
    }
    if !port.shapes.is_empty() {
        let shapes: Vec<String> = port.shapes.iter().map(|s| format!("{s:?}")).collect();
        out.push(format!("one of {}", shapes.join(" ")));
    }
    if let Some(default) = port.default {
        out.push(format!("optional, {default} by default"));
    }
    if let mlconv_mil::ir::Feature::Image(layout) = port.feature {
        out.push(format!("image, {layout:?}"));
    }
    out
}

/// Op names with their counts, most frequent first.
fn histogram(f: &Function) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for id in f.all_ops().into_iter().filter(|id| f.op::<Const>(*id).is_none()) {
        *counts.entry(f.op_data(id).op.name().to_owned()).or_default() += 1;
    }
    by_count(counts)
}

fn by_count(counts: BTreeMap<String, usize>) -> Vec<(String, usize)> {
    let mut out: Vec<_> = counts.into_iter().collect();
    out.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    out
}

/// Constants by element type: how many, and their bytes.
fn weights(f: &Function) -> BTreeMap<&'static str, (usize, u64)> {
    let mut out: BTreeMap<&'static str, (usize, u64)> = BTreeMap::new();
    for id in f.all_ops() {
        if let Some(c) = f.op::<Const>(id) {
            let entry = out.entry(c.val.dtype().name()).or_default();
            entry.0 += 1;
            entry.1 += c.val.blob().len() as u64;
        }
    }
    out
}

/// Whether a function runs where none is named.
fn is_default(f: &Function, module: &Module) -> bool {
    module.functions.first().is_some_and(|first| first.name == f.name)
}

fn function_text(f: &Function, module: &Module) -> String {
    let default = if module.functions.len() > 1 && is_default(f, module) { ", the default" } else { "" };
    let mut out = format!("\nfunction {} ({}, {} ops{default})\n", shown(&f.name), f.opset, convert::op_count(f));
    let rows: Vec<Vec<String>> = ports(f)
        .into_iter()
        .map(|(kind, p, ty)| {
            vec![kind.to_owned(), p.name.to_string(), ty.to_string(), port_notes(p, ty, &module.symbols).join("; ")]
        })
        .collect();
    out += &table(&rows);
    out += "ops\n";
    out += &table(&histogram(f).into_iter().map(|(n, c)| vec![n, c.to_string()]).collect::<Vec<_>>());
    out + &report::costs_text(&Costs::of(module, f))
}

fn constants_text(weights: BTreeMap<&'static str, (usize, u64)>) -> String {
    let row = |(d, (n, b)): (&str, (usize, u64))| vec![d.to_owned(), n.to_string(), bytes(b)];
    table(&weights.into_iter().map(row).collect::<Vec<_>>())
}

fn constants_json(weights: BTreeMap<&'static str, (usize, u64)>) -> Vec<Value> {
    weights.into_iter().map(|(d, (n, b))| json!({"dtype": d, "count": n, "bytes": b})).collect()
}

fn function_json(f: &Function, module: &Module) -> Value {
    let port = |(kind, p, ty): (&str, &Port, &Type)| {
        json!({"kind": kind, "name": &*p.name, "packaged": p.packaged.as_deref(), "type": ty.to_string(), "description": p.description,
            "notes": port_notes(p, ty, &module.symbols), "shapes": p.shapes, "default": p.default})
    };
    json!({
        "name": f.name,
        "default": is_default(f, module),
        "opset": f.opset.name(),
        "ports": ports(f).into_iter().map(port).collect::<Vec<_>>(),
        "ops": histogram(f).into_iter().map(|(n, c)| json!({"op": n, "count": c})).collect::<Vec<_>>(),
        "constants": constants_json(weights(f)),
        "costs": report::costs_json(&Costs::of(module, f)),
    })
}
