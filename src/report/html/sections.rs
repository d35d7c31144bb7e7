//! The sections of a comparison.

use super::{
    super::{
        read::{count, flag, list, number, text},
        text::bytes,
        words::{self, Verdict, figure},
    },
    data, ops_section,
    page::{Section, copied, escape, prose},
    table::{Cell, Form, Table},
};
use indexmap::IndexMap;
use serde_json::Value;

/// Rows of one table at most; all are in the JSON report.
const ROWS: usize = 300;
/// Ops that are listed without scripts and in print.
const WORST: usize = 40;
/// Sentences of one answer before the rest folds.
const SENTENCES: usize = 3;

/// The verdict, what was compared, and the six answers.
pub(super) fn header(report: &Value) -> String {
    let verdict = Verdict::of(report);
    let facts: String =
        words::circumstances(report).iter().map(|f| format!("<li>{}</li>\n", escape(f))).collect();
    let mut out = format!(
        "<header class=\"verdict {class}\">\n<p class=\"mark\" aria-hidden=\"true\">{glyph}</p>\n<div>\n<h1>{headline}</h1>\n\
         <p class=\"subject\">{subject}</p>\n</div>\n<ul class=\"facts\">\n{facts}</ul>\n</header>\n",
        class = class(verdict),
        glyph = verdict.glyph(),
        headline = words::headline(report),
        subject = escape(&words::subject(report)),
    );
    let answers = words::answers(report);
    if !answers.is_empty() {
        out += "<section id=\"answers\" aria-label=\"Six answers\">\n<dl>\n";
        for words::Answer { field, question, said } in answers {
            out += &format!("<div>\n<dt>{question}</dt>\n<dd>{}</dd>\n</div>\n", sentences(&said, field == "change"));
        }
        out += "</dl>\n</section>\n";
    }
    out + &format!("<p class=\"parity\" role=\"note\">{}</p>\n", words::PARITY)
}

fn sentences(said: &[&str], with_copies: bool) -> String {
    let one = |s: &&str| match with_copies {
        true => format!("<p>{}</p>\n", words::spans(s).into_iter().map(copied_or_text).collect::<String>()),
        false => format!("<p>{}</p>\n", prose(s)),
    };
    let (first, rest) = said.split_at(said.len().min(SENTENCES));
    let shown: String = first.iter().map(one).collect();
    let folded: String = rest.iter().map(one).collect();
    match rest.len() {
        0 => shown,
        n => format!("{shown}<details>\n<summary>{n} more</summary>\n{folded}</details>\n"),
    }
}

/// Code that is more than a name is what one copies.
fn copied_or_text((is_code, s): (bool, &str)) -> String {
    match is_code {
        true if s.contains([' ', '=']) => copied(s),
        true => format!("<code>{}</code>", escape(s)),
        false => escape(s),
    }
}

/// Those sections about which the report says something.
pub(super) fn all(report: &Value) -> Vec<Section> {
    [outputs, runs, origin, ops, ranges, weights, files].into_iter().filter_map(|section| section(report)).collect()
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Within => "good",
        Verdict::Beyond => "bad",
        Verdict::Random | Verdict::Measured | Verdict::Unknown => "open",
    }
}

/// A verdict as a word with its mark.
fn chip(verdict: Verdict) -> Cell {
    let markup = format!(
        "<span class=\"chip {}\"><span aria-hidden=\"true\">{}</span> {}</span>",
        class(verdict),
        verdict.glyph(),
        verdict.word()
    );
    Cell::markup(markup, None)
}

fn db(x: f64) -> String {
    format!("{x:.1}")
}

fn whole(x: f64) -> String {
    format!("{x}")
}

fn percent(x: f64) -> String {
    format!("{:.2} %", 100.0 * x)
}

/// `[0, 3]`, of a list or of a flat position.
fn position(of: &Value, fields: [&str; 2]) -> Cell {
    let at = fields.iter().find_map(|f| of.get(*f).filter(|v| !v.is_null()));
    let shown = match at {
        Some(Value::Array(axes)) => axes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Some(Value::Number(n)) => n.to_string(),
        _ => return Cell::default(),
    };
    Cell::text(&format!("[{shown}]")).aligned()
}

fn outputs(report: &Value) -> Option<Section> {
    let outputs = list(report, "outputs");
    let row = |o: &Value| {
        let verdict = Verdict::of_output(o, report);
        let kind = text(o, "kind").unwrap_or_default();
        let task = o.get("task").unwrap_or(&Value::Null);
        let name = format!(
            "<code>{}</code><small>{}</small>",
            escape(text(o, "name").unwrap_or("output")),
            escape(text(o, "ty").unwrap_or_default())
        );
        let get = |field| number(o, field);
        // Where both have as many, that is one number.
        let pair = |field| {
            let of = list(o, field);
            match (of.first().and_then(Value::as_f64), of.get(1).and_then(Value::as_f64)) {
                (Some(a), Some(b)) if a == b => Cell::number(Some(a), whole),
                (Some(a), Some(b)) => Cell::markup(format!("{a} → {b}"), Some(b)).aligned(),
                _ => Cell::default(),
            }
        };
        let what = match (text(o, "mismatch"), flag(o, "drawn")) {
            (Some(_), _) | (_, Some(true)) => Cell::text(&words::measure(o)),
            _ => Cell::default(),
        };
        vec![
            Cell::markup(name, None),
            chip(verdict),
            what,
            Cell::number(get("snr_db"), db),
            Cell::number(get("overall_snr_db"), db),
            Cell::number(get("psnr_db"), db),
            Cell::number(get("cosine"), |x| format!("{x:.6}")),
            Cell::number(get("max_abs"), figure),
            position(o, ["worst_index", "worst"]),
            Cell::number(get("max_rel"), figure),
            Cell::number(get("max_rel_elementwise"), figure),
            position(o, ["worst_rel_index", "worst_rel"]),
            Cell::number(get("mean_abs"), figure),
            Cell::number(get("rms"), figure),
            Cell::number(get("greatest"), figure),
            Cell::number(get("max_ulp"), whole),
            Cell::number(get("unequal"), whole),
            Cell::number(get("non_finite"), whole),
            pair("nan"),
            pair("inf"),
            Cell::text(kind),
            Cell::number(number(task, "top1"), percent),
            Cell::number(number(task, "top5"), percent),
            Cell::number(number(task, "argmax"), percent),
            Cell::number(number(task, "kl"), figure),
            Cell::number(number(task, "iou_mean"), figure),
            Cell::number(number(task, "iou_min"), figure),
            Cell::number(get("count"), whole),
        ]
    };
    let columns = vec![
        ("Output", ""),
        ("Verdict", ""),
        ("Why", ""),
        ("SNR dB", "signal over noise of the worst sample"),
        ("SNR dB of all", "signal over noise of all samples together"),
        ("PSNR dB", "the square of the greatest value over the noise"),
        ("Cosine", "of the angle between both"),
        ("Max abs", "greatest absolute difference"),
        ("at", "where the absolute difference is greatest"),
        ("Max rel", "greatest absolute difference over the greatest value wanted"),
        ("Max rel each", "greatest difference over the value wanted, element by element"),
        ("at", "where the relative difference is greatest"),
        ("Mean abs", "mean absolute difference"),
        ("RMS", "root of the mean squared difference"),
        ("Greatest", "greatest magnitude wanted"),
        ("ULP", "greatest difference in units in the last place of half precision"),
        ("Unequal", "integers that differ"),
        ("Broken", "elements that are finite in only one of both"),
        ("NaN", "not a number, in the source and in the package"),
        ("Inf", "infinite, in the source and in the package"),
        ("Kind", "what the values seem to be"),
        ("Top-1", "how often both have the same greatest score"),
        ("Top-5", "how often the greatest of the source is among the five greatest of the package"),
        ("Argmax", "how often the greatest along the axis of classes is the same"),
        ("KL", "Kullback-Leibler divergence, in nats"),
        ("IoU mean", "intersection over union"),
        ("IoU least", "intersection over union of the worst"),
        ("Elements", "elements compared, over all samples"),
    ];
    let rows: Vec<_> = outputs.iter().take(ROWS).map(row).collect();
    let table = Table { caption: "Outputs", columns, rows, left_out: outputs.len().saturating_sub(ROWS) };
    let body = table.render(Form::Wide) + &accuracy(report);
    (!outputs.is_empty()).then(|| Section { id: "outputs", title: "Outputs", lead: String::new(), body })
}

fn accuracy(report: &Value) -> String {
    let row = |a: &Value| {
        let get = |field| number(a, field);
        vec![
            Cell::name(text(a, "output").unwrap_or("output")),
            Cell::number(get("samples"), whole),
            Cell::number(get("source_correct"), whole),
            Cell::number(get("package_correct"), whole),
            Cell::number(get("alike"), whole),
        ]
    };
    let columns =
        vec![("Output", ""), ("Samples with labels", ""), ("Source right", ""), ("Package right", ""), ("Alike", "")];
    let all = list(report, "accuracy");
    let rows: Vec<_> = all.iter().take(ROWS).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    Table { caption: "Accuracy", columns, rows, left_out: all.len().saturating_sub(ROWS) }.render(Form::Plain)
}

/// What a cell of the matrix of runs holds.
const CELLS: &str = "Cells hold the SNR in dB and the greatest difference.";

/// Runs as a matrix: what goes in and how it is computed against outputs.
fn runs(report: &Value) -> Option<Section> {
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
    let judged = all.iter().filter(|r| Verdict::of(r) != Verdict::Unknown).count();
    let failed = all.iter().filter(|r| Verdict::of(r) == Verdict::Beyond).count();
    let lead = match failed {
        0 => format!("{} runs, {judged} judged; all of those are within the tolerance. {CELLS}", all.len()),
        n => format!("{} runs, {judged} judged; {n} of those are beyond the tolerance. {CELLS}", all.len()),
    };
    (!all.is_empty()).then(|| Section { id: "runs", title: "Runs", lead, body })
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
            chip(Verdict::of(run)).into_markup()
        );
        before = head;
        body += &match text(run, "error") {
            Some(error) => format!("<td class=\"error\" colspan=\"{}\">{}</td>", outputs.len().max(1), prose(error)),
            None => outputs.iter().map(|name| cell(run, name)).collect(),
        };
        body += "</tr>\n";
    }
    let heads: String =
        outputs.iter().map(|o| format!("<th scope=\"col\" class=\"n\"><code>{}</code></th>", escape(o))).collect();
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
    let snr = match number(o, "snr_db") {
        Some(snr) => db(snr),
        None if exact => "equal".to_owned(),
        None => verdict.word().to_owned(),
    };
    let abs = number(o, "max_abs").filter(|_| !exact).map_or_else(String::new, figure);
    let (class, glyph) = (class(verdict), verdict.glyph());
    format!("<td class=\"n {class}\"><span class=\"glyph\">{glyph}</span> {} <small>{abs}</small></td>", escape(&snr))
}

/// Where an error begins: culprits, what mends it, and errors along depth.
fn origin(report: &Value) -> Option<Section> {
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
        Some("accumulates") => "No op is off by more than its type explains: errors of many add up.".to_owned(),
        Some("agrees") => "No op differs.".to_owned(),
        _ => String::new(),
    };
    if let Some(n) = count(bisection, "not_looked_at").filter(|n| *n > 0) {
        lead += &format!(" {n} ops were not looked at.");
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
            Cell::number(get("repaired_snr_db"), db),
            Cell::markup(prose(&places.join(" · ")), None),
            Cell::markup(text(c, "note").map_or_else(String::new, prose), None),
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
    let mut out = format!("<div class=\"recipe\">\n<h3>What mends it</h3>\n<p>{result} {}</p>\n", escape(&outputs.join("; ")));
    if !lines.is_empty() {
        out += &format!("<p>In a recipe: {}</p>\n", copied(&lines.join("\n")));
    }
    if let Some(command) = text(recipe, "command") {
        out += &format!("<p>On the command line: {}</p>\n", copied(command));
    }
    out + "</div>\n"
}

fn ops(report: &Value) -> Option<Section> {
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
            Cell::markup(prose(&places.join(" · ")), None),
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
        n => format!("<p class=\"rest\">These have the greatest errors of their own. {n} more are seen with scripts.</p>\n"),
    };
    let fallback = Table { caption: "Ops", columns, rows, left_out: 0 }.render(Form::Plain) + &rest;
    (!ops.is_empty()).then(|| ops_section(String::new(), &fallback))
}

fn ranges(report: &Value) -> Option<Section> {
    let some = list(report, "ops").iter().any(|op| op.get("range").is_some_and(Value::is_object));
    let body = "<figure id=\"ranges-plot\" hidden>\n<figcaption>How great the values of all ops are. Half precision holds normal \
                numbers from 2<sup>-14</sup> to below 2<sup>16</sup>, with fewer digits down to 2<sup>-24</sup>. The height \
                of bars is the logarithm of how many there are.</figcaption>\n\
                </figure>\n<noscript><p>The histogram needs scripts.</p></noscript>\n";
    some.then(|| Section { id: "ranges", title: "Ranges", lead: String::new(), body: body.to_owned() })
}

fn weights(report: &Value) -> Option<Section> {
    let weights = list(report, "weights");
    let greatest = weights.iter().filter_map(|w| number(w, "bytes_source").or(number(w, "bytes"))).fold(1.0, f64::max);
    let row = |w: &Value| {
        let get = |field| number(w, field);
        let bar = |field| get(field).map_or(0.0, |b| (100.0 * b / greatest).clamp(0.0, 100.0));
        let bars = format!(
            "<span class=\"bars\" aria-hidden=\"true\"><span style=\"width:{:.1}%\"></span><span style=\"width:{:.1}%\"></span></span>",
            bar("bytes_source"),
            bar("bytes")
        );
        let ratio = get("bytes_source").zip(get("bytes")).filter(|(_, b)| *b > 0.0).map(|(a, b)| a / b);
        let size = |x: f64| bytes(x.max(0.0) as u64);
        vec![
            Cell::name(text(w, "name").unwrap_or("weight")),
            Cell::name(text(w, "type").unwrap_or_default()),
            Cell::text(text(w, "scheme").unwrap_or("as it was")),
            Cell::number(get("bits"), |x| format!("{x:.2}")),
            Cell::number(get("bytes_source"), size),
            Cell::number(get("bytes"), size),
            Cell::markup(bars, get("bytes")),
            Cell::number(ratio, |x| format!("{x:.2}")),
            Cell::number(get("snr_db"), db),
        ]
    };
    let columns = vec![
        ("Weight", ""),
        ("Type", ""),
        ("Scheme", ""),
        ("Bits", "a weight"),
        ("Before", "bytes in the source"),
        ("After", "bytes in the package"),
        ("Size", "before, and after below it"),
        ("Ratio", "before over after"),
        ("SNR dB", "of the weights themselves"),
    ];
    let mut order: Vec<&Value> = weights.iter().collect();
    order.sort_by(|a, b| number(b, "bytes").unwrap_or(0.0).total_cmp(&number(a, "bytes").unwrap_or(0.0)));
    let rows = order.into_iter().take(ROWS).map(row).collect();
    let sum = |field| weights.iter().filter_map(|w| count(w, field)).fold(0u64, u64::saturating_add);
    let (before, after) = (sum("bytes_source"), sum("bytes"));
    let from = if before > 0 { format!(" of {}", bytes(before)) } else { String::new() };
    let lead = format!("{} weights take {}{from}.", weights.len(), bytes(after));
    let body = Table { caption: "Weights", columns, rows, left_out: weights.len().saturating_sub(ROWS) }.render(Form::Plain);
    (!weights.is_empty()).then(|| Section { id: "weights", title: "Weights", lead, body })
}

fn files(report: &Value) -> Option<Section> {
    let files = list(report, "files");
    let row = |f: &Value| {
        vec![
            Cell::text(text(f, "role").unwrap_or("file")),
            Cell::name(text(f, "path").unwrap_or_default()),
            Cell::text(text(f, "format").unwrap_or_default()),
            Cell::number(number(f, "bytes"), |x| bytes(x.max(0.0) as u64)),
            Cell::markup(format!("<code class=\"hash\">{}</code>", escape(text(f, "sha256").unwrap_or_default())), None),
        ]
    };
    let columns = vec![("Role", ""), ("Path", ""), ("Format", ""), ("Size", ""), ("SHA-256", "")];
    let rows: Vec<_> = files.iter().take(ROWS).map(row).collect();
    let mut body = String::new();
    if !rows.is_empty() {
        body += &Table { caption: "Files", columns, rows, left_out: files.len().saturating_sub(ROWS) }.render(Form::Plain);
    }
    if let Some(command) = report.get("made_by").and_then(|m| text(m, "command")) {
        body += &format!("<h3>The same again</h3>\n<p>{}</p>\n", copied(command));
    }
    (!body.is_empty()).then(|| Section { id: "files", title: "Files", lead: String::new(), body })
}
