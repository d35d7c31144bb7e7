//! The op reference, generated from schemas.

use crate::schema::{Arity, AttrDefault, AttrType, Constness, Opset, ParamKind, Schema, Step};
use std::fmt::Write;

/// One op as a page of Markdown.
pub fn markdown(s: &Schema) -> String {
    let mut out = format!("# {}\n\n{}\n\n", s.name, s.doc);
    let until = s.until.map_or_else(String::new, |u| format!(", until {u}"));
    let _ = writeln!(out, "Since {}{until}.\n", s.since);
    for d in s.domains {
        let step = |(opset, step): &(Opset, Step)| match step {
            Step::Adds(types) => {
                format!("{} ({opset})", types.iter().map(|t| t.name()).collect::<Vec<_>>().join(", "))
            }
            Step::Any => format!("any type ({opset})"),
            Step::Same(other) => format!("as `{other}` ({opset})"),
        };
        let steps: Vec<String> = d.steps.iter().map(step).collect();
        let _ = writeln!(out, "- `{}`: {}", d.name, steps.join("; "));
    }
    if !s.params.is_empty() {
        out += "\n| parameter | takes | |\n|---|---|---|\n";
    }
    for p in s.params {
        let takes = match &p.kind {
            ParamKind::Operand { domain, arity, constant } => {
                let constant = match constant {
                    Constness::Never => String::new(),
                    Constness::Below(o) => format!(", constant before {o}"),
                    Constness::Always => ", constant".to_owned(),
                };
                let arity = match arity {
                    Arity::One => "",
                    Arity::Optional => ", optional",
                    Arity::Many => ", any number",
                };
                format!("value of `{domain}`{constant}{arity}")
            }
            ParamKind::Attr { default, dtype, choices, .. } => {
                let default = match default {
                    AttrDefault::Required => String::new(),
                    AttrDefault::Computed => ", default follows from the operands".to_owned(),
                    AttrDefault::Value(v) => v().map_or(", optional".to_owned(), |v| format!(", default `{v}`")),
                };
                let dtype = match dtype {
                    AttrType::Natural => String::new(),
                    AttrType::Domain(d) => format!(" of `{d}`"),
                    AttrType::Exactly(d) => format!(" of {d}"),
                };
                let choices = match choices() {
                    [] => String::new(),
                    names => format!(": {}", names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")),
                };
                format!("literal{dtype}{choices}{default}")
            }
            ParamKind::Region => "block".to_owned(),
        };
        let since = p.since.map_or_else(String::new, |o| format!(" Since {o}."));
        let until = p.until.map_or_else(String::new, |o| format!(" Until {o}."));
        let doc = p.doc.replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(out, "| `{}` | {takes} | {doc}{since}{until} |", p.name);
    }
    let changes = changes(s);
    if !changes.is_empty() {
        out += "\n";
    }
    for (opset, what) in changes {
        let _ = writeln!(out, "- New in {opset}: {}.", what.join("; "));
    }
    out
}

/// What op sets after its first one change of an op, in words.
pub fn changes(s: &Schema) -> Vec<(Opset, Vec<String>)> {
    let later = Opset::ALL.into_iter().filter(|o| *o > s.since && s.exists_in(*o));
    later.map(|o| (o, changes_in(s, o))).filter(|(_, what)| !what.is_empty()).collect()
}

fn changes_in(s: &Schema, opset: Opset) -> Vec<String> {
    let mut out = vec![];
    for d in s.domains {
        let before = d.steps.iter().rfind(|(o, _)| *o < opset).map(|(_, step)| step);
        let now = d.steps.iter().find(|(o, _)| *o == opset).map(|(_, step)| step);
        let (Some(before), Some(now)) = (before, now) else { continue };
        out.push(match (before, now) {
            (_, Step::Any) => format!("`{}` is any type", d.name),
            (_, Step::Same(other)) => format!("`{}` is `{other}`", d.name),
            (Step::Same(other), Step::Adds(_)) => format!("`{}` need not be `{other}`", d.name),
            (Step::Adds(_) | Step::Any, Step::Adds(types)) => {
                let names: Vec<_> = types.iter().map(|t| t.name()).collect();
                format!("`{}` may be {}", d.name, names.join(", "))
            }
        });
    }
    for p in s.params {
        if p.since == Some(opset) {
            out.push(format!("`{}`", p.name));
        }
        if p.until == Some(opset) {
            out.push(format!("no `{}`", p.name));
        }
        if matches!(p.kind, ParamKind::Operand { constant: Constness::Below(o), .. } if o == opset) {
            out.push(format!("`{}` need not be constant", p.name));
        }
    }
    out
}
