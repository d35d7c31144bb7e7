//! Reports: plain data, rendered as text or JSON, and comparisons as pages, Markdown and JUnit XML.

mod answers;
mod compression;
pub mod html;
mod inspection;
mod junit;
mod markdown;
mod read;
mod text;
mod whole;
mod words;
mod worse;

pub use compression::{activation_line, compression_json, compression_text, weight_line};
pub use html::html;
pub use inspection::{costs_json, costs_text, count, weights_json, weights_text};
pub use junit::junit;
pub use markdown::markdown;
pub use text::{answers_text, bytes, number, outputs_text, parity_text, table};
pub use whole::Whole;

use crate::{
    Diagnostic,
    accuracy::Accuracy,
    compare::OutputDiff,
    parity::{Parity, Run},
    witness::Witness,
};
use serde_json::{Value, json};

/// The version of every JSON report; it grows when a field changes its meaning.
pub const VERSION: u32 = 1;

/// A diagnostic for programs.
pub fn diagnostic(d: &Diagnostic) -> Value {
    json!({
        "code": d.code.id,
        "severity": match d.severity {
            mlconv_mil::diagnostic::Severity::Error => "error",
            mlconv_mil::diagnostic::Severity::Warning => "warning",
        },
        "title": d.title,
        "place": d.place,
        "line": d.snippet.as_ref().map(|(line, _)| line),
        "operator": d.nodes.as_ref().and_then(|n| n.operator.as_ref()),
        "nodes": d.nodes.as_ref().map(|n| n.count),
        "limit": d.limit.map(mlconv_mil::diagnostic::Limit::name),
        "help": d.help,
    })
}

/// An op that computes in 32 bits, for programs.
pub fn kept(note: &mlconv_passes::Note) -> Value {
    json!({
        "op": note.op,
        "place": note.sources,
        "why": note.why,
        "detail": note.detail,
        "asked": note.weight == mlconv_passes::Weight::Asked,
    })
}

/// A comparison for programs.
pub fn parity(p: &Parity) -> Value {
    json!({
        "pass": p.pass(),
        "inputs": p.inputs,
        "against": p.witness.against(),
        "witness": witness(&p.witness),
        "lowering_agrees": p.lowering_agrees,
        "samples": p.samples,
        "unused": p.unused,
        "tolerance": serde_json::to_value(p.tolerance).unwrap_or_default(),
        "notes": p.notes.iter().map(diagnostic).collect::<Vec<_>>(),
        "accuracy": p.accuracy.iter().map(accuracy).collect::<Vec<_>>(),
        "outputs": p.outputs.iter().map(|d| output(d, p)).collect::<Vec<_>>(),
        "runs": p.runs.iter().map(run).collect::<Vec<_>>(),
        "untested": p.untested,
    })
}

fn run(r: &Run) -> Value {
    let output = |d: &OutputDiff| {
        json!({
            "name": d.name,
            "pass": d.pass,
            "snr_db": d.snr_db,
            "max_abs": d.max_abs,
            "cosine": d.cosine,
            "non_finite": d.non_finite,
            "unequal": d.unequal,
            "mismatch": d.mismatch,
        })
    };
    json!({
        "function": r.function,
        "name": r.name,
        "inputs": r.inputs,
        "shape": r.shape,
        "arithmetic": r.arithmetic,
        "against": r.against,
        "judged": r.judged,
        "pass": r.pass,
        "error": r.error,
        "outputs": r.outputs.iter().map(output).collect::<Vec<_>>(),
    })
}

fn witness(w: &Witness) -> Value {
    let (version, library, program) = match w {
        Witness::Onnxruntime { version, library } => (Some(version), Some(library), None),
        Witness::Torch { version, program } | Witness::Python { version, program } => {
            (Some(version), None, Some(program))
        }
        Witness::Lowering | Witness::Program | Witness::Recorded => (None, None, None),
    };
    let version = version.filter(|v| !v.is_empty());
    json!({"runtime": w.name(), "version": version, "library": library, "program": program})
}

fn accuracy(a: &Accuracy) -> Value {
    serde_json::to_value(a).unwrap_or_default()
}

fn output(d: &OutputDiff, p: &Parity) -> Value {
    let mut out = serde_json::to_value(d).unwrap_or_default();
    let run = p.runs.iter().find(|r| r.outputs.iter().any(|o| o.name == d.name));
    out["function"] = json!(run.map(|r| &r.function));
    out
}
