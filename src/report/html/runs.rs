//! Runs as a matrix.

use super::{
    super::{
        read::{count, flag, list, number, text},
        words::{Verdict, figure},
    },
    page::{Section, escape, prose},
    sections::{ROWS, chip, class, db},
};
use indexmap::IndexMap;
use serde_json::Value;

/// What a cell of the matrix of runs holds.
const CELLS: &str = "Cells hold the SNR in dB and the greatest difference.";

/// Runs as a matrix: what goes in and how it is computed against outputs.
pub(super) fn runs(report: &Value) -> Option<Section> {
    let mut functions: IndexMap<&str, Vec<&Value>> = IndexMap::new();
    let all = list(report, "runs");
    for run in all.iter().take(ROWS) {
        functions.entry(text(run, "function").unwrap_or("main")).or_default().push(run);
    }
    let several = functions.len() > 1;
    let mut body = String::new();
    for (function, runs) in &functions {
        if several {
            body += &format!("<h3><code>{}</code></h3>\n", escape(function));
        }
        body += &matrix(runs, if several { function } else { "" });
    }
    if all.len() > ROWS {
        body += &format!("<p class=\"rest\">{} more runs are in the JSON report.</p>\n", all.len() - ROWS);
    }
    let of = |verdict| all.iter().filter(|r| Verdict::of_run(r) == verdict).count();
    let (within, beyond, broken) = (of(Verdict::Within), of(Verdict::Beyond), of(Verdict::Broken));
    let beyond_words = if beyond == 0 { "none".to_owned() } else { beyond.to_string() };
    let broken_words = if broken == 0 { String::new() } else { format!(", {broken} could not be made") };
    let judged = within + beyond + broken;
    let runs = if all.len() == 1 { "1 run".to_owned() } else { format!("{} runs", all.len()) };
    let lead = format!("{runs}, {judged} judged: {beyond_words} beyond the tolerance{broken_words}. {CELLS}");
    (!all.is_empty()).then_some(Section { id: "runs", title: "Runs", lead, body })
}

/// Outputs that have a column at most.
const COLUMNS: usize = 24;

fn matrix(runs: &[&Value], function: &str) -> String {
    let mut outputs: Vec<&str> = vec![];
    for name in runs.iter().flat_map(|r| list(r, "outputs")).filter_map(|o| text(o, "name")) {
        if !outputs.contains(&name) && outputs.len() < COLUMNS {
            outputs.push(name);
        }
    }
    let mut body = String::new();
    let mut before = String::new();
    for run in runs {
        let given: Vec<&str> = ["name", "inputs", "shape"].iter().filter_map(|f| text(run, f)).collect();
        let head = match given.split_first() {
            Some((name, rest)) => {
                let rest: Vec<&str> = rest.iter().filter(|s| *s != name).copied().collect();
                format!("{}<small>{}</small>", escape(name), escape(&rest.join(" · ")))
            }
            None => "run".to_owned(),
        };
        let (row, again) = if head == before { ("", " class=\"again\"") } else { (" class=\"first\"", "") };
        body += &format!(
            "<tr{row}><th scope=\"row\"{again}>{head}</th><td>{}</td><td>{}</td>",
            escape(text(run, "arithmetic").unwrap_or_default()),
            chip(Verdict::of_run(run)).into_markup()
        );
        before = head;
        body += &match text(run, "error") {
            Some(error) => format!("<td class=\"error\" colspan=\"{}\">{}</td>", outputs.len().max(1), prose(error)),
            None => outputs.iter().map(|name| cell(run, name)).collect(),
        };
        body += "</tr>\n";
    }
    let heads = outputs.iter().fold(String::new(), |heads, o| {
        heads + &format!("<th scope=\"col\" class=\"n\"><code>{}</code></th>", escape(o))
    });
    let of = if function.is_empty() { String::new() } else { format!(" of {}", escape(function)) };
    let heads = if heads.is_empty() { "<th scope=\"col\">Outputs</th>".to_owned() } else { heads };
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table of runs{of}\">\n<table class=\"matrix\">\n<caption>SNR in dB, \
         and the greatest difference, by run and output</caption>\n<thead><tr><th scope=\"col\">Inputs</th>\
         <th scope=\"col\">Arithmetic</th><th scope=\"col\">Verdict</th>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n\
         </div>\n"
    )
}

fn cell(run: &Value, output: &str) -> String {
    let Some(o) = list(run, "outputs").iter().find(|o| text(o, "name") == Some(output)) else {
        return "<td></td>".to_owned();
    };
    let verdict = match flag(run, "judged") {
        Some(false) => Verdict::Unknown,
        _ => Verdict::of(o),
    };
    let exact = number(o, "max_abs") == Some(0.0);
    let some = |field| count(o, field).filter(|n| *n > 0);
    let measured = match (number(o, "snr_db"), some("non_finite"), some("unequal")) {
        _ if text(o, "mismatch").is_some() => "not alike".to_owned(),
        (_, Some(n), _) => format!("{n} not finite alike"),
        (_, _, Some(n)) => format!("{n} unequal"),
        (Some(snr), ..) => db(snr),
        (None, ..) if exact => "equal".to_owned(),
        (None, ..) => verdict.word().to_owned(),
    };
    let abs = number(o, "max_abs").filter(|_| !exact).map_or_else(String::new, figure);
    let (class, glyph) = (class(verdict), verdict.glyph());
    format!(
        "<td class=\"n {class}\"><span class=\"glyph\">{glyph}</span> {} <small>{abs}</small></td>",
        escape(&measured)
    )
}
