//! The op reference, generated from schemas.

use crate::schema::{Arity, AttrDefault, AttrType, Constness, ParamKind, Schema, Step};
use std::fmt::Write;

/// One op as a page of Markdown.
pub fn markdown(s: &Schema) -> String {
    let mut out = format!("# {}\n\n{}\n\n", s.name, s.doc);
    let until = s.until.map_or_else(String::new, |u| format!(", until {u}"));
    let _ = writeln!(out, "Since {}{until}.\n", s.since);
    for d in s.domains {
        let step = |(opset, step): &(crate::schema::Opset, Step)| match step {
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
    out
}
