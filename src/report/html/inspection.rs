//! What a model costs, as a page.

use super::{
    super::{
        inspection::count,
        read::{count as number_of, flag, list, number, text},
        text::bytes,
    },
    data, ops_section,
    page::{Page, Section, escape},
    sections::ROWS,
    table::{Cell, Form, Table},
};
use serde_json::{Value, json};

/// The page of what `inspect` reports. `subject` names the model, `ops` are all its ops, and `time` is when it was made.
pub fn inspection(report: &Value, subject: &str, ops: &Value, time: Option<&str>) -> String {
    let functions = list(report, "functions");
    let several = functions.len() > 1;
    let of_each = |title: &'static str, id: &'static str, body: &dyn Fn(&Value) -> String| {
        let mut out = String::new();
        for f in functions {
            let body = body(f);
            if several && !body.is_empty() {
                let default = if flag(f, "default") == Some(true) { ", the default" } else { "" };
                out +=
                    &format!("<h3>Function <code>{}</code>{default}</h3>\n", escape(text(f, "name").unwrap_or("main")));
            }
            out += &body;
        }
        (!out.is_empty()).then_some(Section { id, title, lead: String::new(), body: out })
    };
    let sections = [
        of_each("Inputs and outputs", "ports", &ports),
        of_each("Multiply-accumulates", "macs", &macs),
        of_each("Memory", "memory", &memory),
        of_each("Weights", "weights", &weights),
        all_ops(report, ops),
        metadata(report),
    ];
    let data = if list(ops, "ops").is_empty() { Value::Null } else { data::encode(ops) };
    Page {
        title: subject.to_owned(),
        header: header(report, subject),
        sections: sections.into_iter().flatten().collect(),
        made_by: Some(format!("mlconv {}", env!("CARGO_PKG_VERSION"))),
        time: time.map(str::to_owned),
        data,
    }
    .render()
}

fn header(report: &Value, subject: &str) -> String {
    let weights = report.get("weights").unwrap_or(&Value::Null);
    let sum = |field: [&str; 3]| {
        let one = |f: &Value| field.iter().try_fold(f, |of, name| of.get(*name)).and_then(Value::as_u64);
        list(report, "functions").iter().filter_map(one).fold(0u64, u64::saturating_add)
    };
    let facts = [
        number_of(report, "size_bytes").map(bytes),
        number_of(weights, "parameters").map(|n| format!("{} parameters", count(n))),
        number(weights, "bits_per_parameter").map(|b| format!("{b:.2} bits each")),
        number_of(weights, "bytes").map(|n| format!("constants take {}", bytes(n))),
        Some(format!("{} multiply-accumulates", count(sum(["costs", "macs", "total"])))),
    ];
    let facts = facts.into_iter().flatten().fold(String::new(), |out, f| out + &format!("<li>{}</li>\n", escape(&f)));
    format!(
        "<header class=\"verdict\">\n<div>\n<h1>{}</h1>\n<p class=\"subject\">{}</p>\n</div>\n<ul class=\"facts\">\n{facts}</ul>\n</header>\n",
        escape(subject),
        escape(text(report, "format").unwrap_or_default()),
    )
}

/// The rows of a table of which many are left to the JSON report; nothing where there are none.
fn table(caption: &'static str, columns: &[&'static str], all: &[Value], row: impl Fn(&Value) -> Vec<Cell>) -> String {
    if all.is_empty() {
        return String::new();
    }
    let columns = columns.iter().map(|c| (*c, "")).collect();
    let rows = all.iter().take(ROWS).map(row).collect();
    Table { caption, columns, rows, left_out: all.len().saturating_sub(ROWS) }.render(Form::Plain)
}

fn named(of: &Value, field: &str) -> Cell {
    Cell::name(text(of, field).unwrap_or_default())
}

fn said(of: &Value, field: &str) -> Cell {
    Cell::text(text(of, field).unwrap_or_default())
}

fn counted(of: &Value, field: &str) -> Cell {
    Cell::number(number(of, field), |x| count(x.max(0.0) as u64))
}

fn sized(of: &Value, field: &str) -> Cell {
    Cell::number(number(of, field), |x| bytes(x.max(0.0) as u64))
}

fn ports(f: &Value) -> String {
    let notes = |p: &Value| list(p, "notes").iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ");
    let port = |p: &Value| {
        let mut all: Vec<String> =
            text(p, "description").filter(|d| !d.is_empty()).map(str::to_owned).into_iter().collect();
        all.extend(Some(notes(p)).filter(|n| !n.is_empty()));
        vec![named(p, "name"), said(p, "kind"), named(p, "type"), Cell::prose(&all.join("; "))]
    };
    let costs = f.get("costs").unwrap_or(&Value::Null);
    let size = |s: &Value| {
        let max = number_of(s, "max").map_or_else(|| "no limit".to_owned(), |m| m.to_string());
        let whole = |field| Cell::number(number(s, field), |x| format!("{x}"));
        vec![named(s, "name"), whole("min"), Cell::text(&max).aligned(), whole("default")]
    };
    let state = |s: &Value| vec![named(s, "name"), named(s, "type"), sized(s, "bytes")];
    table("Inputs, states and outputs", &["Name", "Kind", "Type", "Notes"], list(f, "ports"), port)
        + &table("Open sizes", &["Size", "Least", "Greatest", "Counted as"], list(costs, "sizes"), size)
        + &table("States", &["State", "Type", "Size"], list(costs, "states"), state)
}

fn macs(f: &Value) -> String {
    let Some(macs) = f.get("costs").and_then(|c| c.get("macs")) else { return String::new() };
    let total = number_of(macs, "total").unwrap_or(0);
    let share = |of: &Value| {
        let part = number(of, "macs").map(|n| 100.0 * n / (total.max(1) as f64));
        Cell::number(part, |x| format!("{x:.1} %"))
    };
    let by_op = |o: &Value| vec![named(o, "op"), counted(o, "count"), counted(o, "macs"), share(o)];
    let top = |o: &Value| {
        let places: Vec<&str> = list(o, "place").iter().filter_map(Value::as_str).collect();
        vec![
            named(o, "name"),
            named(o, "op"),
            named(o, "type"),
            counted(o, "macs"),
            share(o),
            Cell::prose(&places.join(" · ")),
        ]
    };
    let without = match number_of(macs, "uncounted").unwrap_or(0) {
        0 => String::new(),
        n => format!(", without those of {n} ops whose sizes depend on data"),
    };
    format!("<p>{} in all{without}.</p>\n", count(total))
        + &table("Multiply-accumulates by type of op", &["Op", "Count", "Products", "Part"], list(macs, "by_op"), by_op)
        + &table(
            "Ops with the most",
            &["Op", "Type", "Result", "Products", "Part", "In the source"],
            list(macs, "top"),
            top,
        )
}

fn memory(f: &Value) -> String {
    let costs = f.get("costs").unwrap_or(&Value::Null);
    let Some(memory) = costs.get("memory") else { return String::new() };
    let size = |field| bytes(number_of(memory, field).unwrap_or(0));
    let at = text(memory, "at").map_or_else(String::new, |at| format!(", at <code>{}</code>", escape(at)));
    let unknown = match number_of(memory, "unknown").unwrap_or(0) {
        0 => String::new(),
        n => format!(", without {n} values whose sizes depend on data"),
    };
    let dtype = |t: &Value| vec![named(t, "dtype"), counted(t, "count")];
    format!(
        "<p>Values take {} at most{at}{unknown}; inputs {}, outputs {}.</p>\n",
        size("peak_bytes"),
        size("inputs_bytes"),
        size("outputs_bytes")
    ) + &table("Ops by element type", &["Element type of the result", "Ops"], list(costs, "precision"), dtype)
}

fn weights(f: &Value) -> String {
    let kinds = f.get("costs").and_then(|c| c.get("weights")).map_or(&[][..], |w| list(w, "kinds"));
    let kind = |k: &Value| {
        let bits = Cell::number(number(k, "bits"), |b| format!("{b:.2}"));
        vec![said(k, "stored"), counted(k, "count"), counted(k, "elements"), sized(k, "bytes"), bits]
    };
    table("Constants by how they are stored", &["Stored as", "Constants", "Elements", "Size", "Bits each"], kinds, kind)
}

/// How often each type of op comes, and all ops.
fn all_ops(report: &Value, ops: &Value) -> Option<Section> {
    let by_type = |o: &Value| vec![named(o, "op"), counted(o, "count")];
    let mut histograms = String::new();
    for f in list(report, "functions") {
        histograms += &table("Ops by type", &["Op", "Count"], list(f, "ops"), by_type);
    }
    if list(ops, "ops").is_empty() {
        return (!histograms.is_empty()).then(|| Section {
            id: "ops",
            title: "Ops",
            lead: String::new(),
            body: histograms,
        });
    }
    let section = ops_section(String::new(), "<p>The list of all ops needs scripts.</p>\n");
    Some(Section { body: histograms + &section.body, ..section })
}

fn metadata(report: &Value) -> Option<Section> {
    let all = report.get("metadata").and_then(Value::as_object)?;
    let rows: Vec<Value> = all.iter().map(|(k, v)| json!({"key": k, "value": v})).collect();
    let row = |r: &Value| vec![named(r, "key"), said(r, "value")];
    let body = table("Metadata", &["Key", "Value"], &rows, row);
    (!body.is_empty()).then(|| Section { id: "metadata", title: "Metadata", lead: String::new(), body })
}
