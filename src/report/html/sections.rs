//! The sections of a comparison.

use super::{
    super::{
        read::{count, flag, list, number, text},
        text::bytes,
        words::{self, Verdict, figure},
    },
    origin::{ops, origin, ranges},
    page::{Section, copied, escape, prose},
    runs::runs,
    table::{Cell, Form, Table},
};
use serde_json::Value;
use std::borrow::Cow;

/// Rows of one table at most; all are in the JSON report.
pub(super) const ROWS: usize = 300;
/// Sentences of one answer before the rest folds.
const SENTENCES: usize = 3;

/// The verdict, what was compared, and the six answers.
pub(super) fn header(report: &Value) -> String {
    let verdict = Verdict::of(report);
    let facts = words::circumstances(report)
        .iter()
        .fold(String::new(), |facts, f| facts + &format!("<li>{}</li>\n", escape(f)));
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
            out += &format!(
                "<div>\n<dt>{question}</dt>\n<dd>{}</dd>\n</div>\n",
                sentences(&said, matches!(field, "started" | "change"))
            );
        }
        out += "</dl>\n</section>\n";
    }
    out + &format!("<p class=\"parity\" role=\"note\">{}</p>\n", words::PARITY)
}

fn sentences(said: &[Cow<'_, str>], with_copies: bool) -> String {
    let one = |s: &Cow<'_, str>| {
        let copies = || words::spans(s).into_iter().map(copied_or_text).collect();
        format!("<p>{}</p>\n", if with_copies { copies() } else { prose(s) })
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

pub(super) fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Within => "good",
        Verdict::Beyond | Verdict::Broken => "bad",
        Verdict::Random | Verdict::Measured | Verdict::Unknown => "open",
    }
}

/// A verdict as a word with its mark.
pub(super) fn chip(verdict: Verdict) -> Cell {
    let markup = format!(
        "<span class=\"chip {}\"><span aria-hidden=\"true\">{}</span> {}</span>",
        class(verdict),
        verdict.glyph(),
        verdict.word()
    );
    Cell::markup(markup, None)
}

pub(super) fn db(x: f64) -> String {
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
            _ => words::missed(o).map_or_else(Cell::default, |m| Cell::text(&m)),
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
    let table = Table { caption: "Accuracy", columns, rows, left_out: all.len().saturating_sub(ROWS) };
    format!("<h3>Accuracy</h3>\n{}", table.render(Form::Plain))
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
    let body =
        Table { caption: "Weights", columns, rows, left_out: weights.len().saturating_sub(ROWS) }.render(Form::Plain);
    (!weights.is_empty()).then_some(Section { id: "weights", title: "Weights", lead, body })
}

fn files(report: &Value) -> Option<Section> {
    let files = list(report, "files");
    let row = |f: &Value| {
        vec![
            Cell::text(text(f, "role").unwrap_or("file")),
            Cell::name(text(f, "path").unwrap_or_default()),
            Cell::text(text(f, "format").unwrap_or_default()),
            Cell::number(number(f, "bytes"), |x| bytes(x.max(0.0) as u64)),
            Cell::markup(
                format!("<code class=\"hash\">{}</code>", escape(text(f, "sha256").unwrap_or_default())),
                None,
            ),
        ]
    };
    let columns = vec![("Role", ""), ("Path", ""), ("Format", ""), ("Size", ""), ("SHA-256", "")];
    let rows: Vec<_> = files.iter().take(ROWS).map(row).collect();
    let mut body = String::new();
    if !rows.is_empty() {
        body +=
            &Table { caption: "Files", columns, rows, left_out: files.len().saturating_sub(ROWS) }.render(Form::Plain);
    }
    if let Some(command) = report.get("made_by").and_then(|m| text(m, "command")) {
        body += &format!("<h3>The same again</h3>\n<p>{}</p>\n", copied(command));
    }
    (!body.is_empty()).then(|| Section { id: "files", title: "Files", lead: String::new(), body })
}
