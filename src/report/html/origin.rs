//! Where an error begins, and all ops with their values.

use super::{
    super::{
        read::{count, flag, list, number, text},
        words,
    },
    data, ops_section,
    page::{Section, copied, escape},
    sections::{ROWS, db},
    table::{Cell, Form, Table},
};
use serde_json::Value;

/// Ops that are listed without scripts and in print.
const WORST: usize = 40;

/// What stands for the signal over noise of outputs that are exact, in dB.
const EXACT: f64 = 999.0;

/// Where an error begins: culprits, what mends it, and errors along depth.
pub(super) fn origin(report: &Value) -> Option<Section> {
    let ops = list(report, "ops");
    let bisection = report.get("bisection").filter(|b| b.is_object());
    let depth = ops.iter().any(|op| number(op, "snr_db").or(number(op, "own_snr_db")).is_some());
    if bisection.is_none() && !depth {
        return None;
    }
    let none = Value::Null;
    let bisection = bisection.unwrap_or(&none);
    let mut lead = match text(bisection, "state") {
        Some("found") => "These ops are off by more than their types explain.".to_owned(),
        Some("accumulates") if flag(report, "pass") == Some(true) => {
            "No op is off by more than its type explains.".to_owned()
        }
        Some("accumulates") => "No op is off by more than its type explains: errors of many add up.".to_owned(),
        Some("agrees") => "No op differs.".to_owned(),
        Some("unknown") => "Too few values of both could be paired to say which op it is.".to_owned(),
        _ => String::new(),
    };
    if let Some(n) = count(bisection, "paired_by_value").filter(|n| *n > 0) {
        lead += &format!(" Values that were paired by what they are, as names do not tell: {n}.");
    }
    if let Some(n) = count(bisection, "not_looked_at").filter(|n| *n > 0) {
        lead += &format!(" Ops that were not looked at: {n}.");
    }
    let mut body = culprits(bisection, ops) + &recipe(bisection);
    if depth {
        body += "<figure id=\"depth-plot\" hidden>\n<figcaption>Error along depth, in dB of the signal. What is \
                 higher is worse. Total errors include what an op inherits; its own is what it adds on inputs of the source.</figcaption>\n</figure>\n";
    }
    Some(Section { id: "origin", title: "Where it starts", lead, body })
}

fn culprits(bisection: &Value, ops: &[Value]) -> String {
    let all = list(bisection, "culprits");
    let row = |c: &Value| {
        let op = count(c, "op").and_then(|i| ops.get(usize::try_from(i).ok()?)).unwrap_or(&Value::Null);
        let places: Vec<&str> = list(op, "place").iter().filter_map(Value::as_str).collect();
        let get = |field| number(c, field);
        let link = count(c, "op").map_or_else(String::new, |i| format!(" data-op=\"{i}\""));
        let name = format!(
            "<code{link}>{}</code><small>{}</small>",
            escape(text(op, "name").unwrap_or("op")),
            escape(text(op, "op").unwrap_or_default())
        );
        vec![
            Cell::markup(name, None),
            Cell::text(text(c, "why").unwrap_or_default()),
            Cell::number(get("own_snr_db"), db),
            Cell::number(get("explained_snr_db"), db),
            Cell::number(get("repaired_snr_db"), |x| if x < EXACT { db(x) } else { "exact".to_owned() }),
            Cell::prose(&places.join(" · ")),
            Cell::prose(text(c, "note").unwrap_or_default()),
        ]
    };
    if all.is_empty() {
        return String::new();
    }
    let columns = vec![
        ("Op", ""),
        ("What is off", ""),
        ("Own SNR dB", "on inputs of the source"),
        ("Explained dB", "what its type explains"),
        ("Repaired dB", "of the worst output, with this op repaired"),
        ("In the source", ""),
        ("Note", ""),
    ];
    let rows = all.iter().take(ROWS).map(row).collect();
    Table { caption: "Ops that are off", columns, rows, left_out: all.len().saturating_sub(ROWS) }.render(Form::Plain)
}

fn recipe(bisection: &Value) -> String {
    let Some(recipe) = bisection.get("recipe").filter(|r| r.is_object()) else { return String::new() };
    let lines: Vec<&str> = list(recipe, "lines").iter().filter_map(Value::as_str).collect();
    let result = match flag(recipe, "pass") {
        Some(true) => "With this, outputs are within the tolerance.",
        Some(false) => "With this, outputs are nearer, and still beyond the tolerance.",
        None => "This may help.",
    };
    let outputs: Vec<String> = list(recipe, "outputs")
        .iter()
        .map(|o| format!("{}: {}", text(o, "name").unwrap_or("output"), words::measure(o)))
        .collect();
    let mut out =
        format!("<div class=\"recipe\">\n<h3>What mends it</h3>\n<p>{result} {}</p>\n", escape(&outputs.join("; ")));
    let command = text(recipe, "again").or(text(recipe, "command")).filter(|c| !c.is_empty());
    if !lines.is_empty() {
        out += &format!("<p>In a recipe: {}</p>\n", copied(&lines.join("\n")));
    }
    if let Some(command) = command {
        out += &format!("<p>On the command line: {}</p>\n", copied(command));
    }
    out + "</div>\n"
}

pub(super) fn ops(report: &Value) -> Option<Section> {
    let ops = list(report, "ops");
    let mut order: Vec<usize> = (0..ops.len()).collect();
    order.sort_by(|a, b| data::rank(ops.get(*a)).total_cmp(&data::rank(ops.get(*b))));
    let row = |op: &Value| {
        let places: Vec<&str> = list(op, "place").iter().filter_map(Value::as_str).collect();
        let get = |field| number(op, field);
        vec![
            Cell::name(text(op, "name").unwrap_or("op")),
            Cell::text(text(op, "op").unwrap_or_default()),
            Cell::text(text(op, "state").unwrap_or_default()),
            Cell::number(get("snr_db"), db),
            Cell::number(get("own_snr_db"), db),
            Cell::number(get("explained_snr_db"), db),
            Cell::name(text(op, "type").unwrap_or_default()),
            Cell::prose(&places.join(" · ")),
        ]
    };
    let columns = vec![
        ("Op", ""),
        ("Type", ""),
        ("State", ""),
        ("SNR dB", "against the source, errors of what it reads included"),
        ("Own dB", "on inputs of the source"),
        ("Explained dB", "what its type explains"),
        ("Result", ""),
        ("In the source", ""),
    ];
    let rows: Vec<_> = order.iter().take(WORST).filter_map(|i| ops.get(*i)).map(row).collect();
    let rest = match ops.len().saturating_sub(WORST) {
        0 => String::new(),
        n => format!(
            "<p class=\"rest\">These have the greatest errors of their own. {n} more are here with scripts, and in the JSON report.</p>\n"
        ),
    };
    let fallback = Table { caption: "Ops", columns, rows, left_out: 0 }.render(Form::Plain) + &rest;
    (!ops.is_empty()).then(|| ops_section(String::new(), &fallback))
}

pub(super) fn ranges(report: &Value) -> Option<Section> {
    let some = list(report, "ops").iter().any(|op| op.get("range").is_some_and(Value::is_object));
    let body = "<figure id=\"ranges-plot\" hidden>\n<figcaption>How great the values of all ops are. Half precision holds normal \
                numbers from 2<sup>-14</sup> to below 2<sup>16</sup>, with fewer digits down to 2<sup>-24</sup>. The height \
                of bars is the logarithm of how many there are.</figcaption>\n\
                </figure>\n<noscript><p>The histogram needs scripts.</p></noscript>\n";
    some.then(|| Section { id: "ranges", title: "Ranges", lead: String::new(), body: body.to_owned() })
}
