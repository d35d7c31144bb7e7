//! A comparison as Markdown, for a comment at a pull request or a summary of a job.

use super::{
    read::{count, flag, list, number, text},
    text::bytes,
    words::{self, Verdict, bounded, figure, printable, spans},
};
use serde_json::Value;

/// Rows of one table at most, the first of these with which all of it has room.
const ROWS: [usize; 6] = [40, 20, 10, 5, 2, 1];
/// Bytes of all of it: comments have 65,536 characters.
const ROOM: usize = 60_000;

/// The Markdown of a comparison, in GitHub's flavour. The same report makes the same text, which has less than 60,000 bytes.
pub fn markdown(report: &Value) -> String {
    let fits = |text: &String| text.len() < ROOM;
    let whole = ROWS.into_iter().map(|rows| Document { report, rows }.render()).find(fits);
    // Only what is made to break it has no room in one row a table.
    whole.unwrap_or_else(|| format!("{}<sub>{}</sub>\n", head(report), words::PARITY))
}

/// The verdict.
fn head(report: &Value) -> String {
    let verdict = Verdict::of(report);
    let mark = match verdict {
        Verdict::Within => "✅",
        Verdict::Beyond => "❌",
        _ => "➖",
    };
    format!("### {mark} {}: {}\n\n", words::headline(report), plain(&words::subject(report)))
}

/// A document with so many rows a table.
struct Document<'a> {
    report: &'a Value,
    rows: usize,
}

impl Document<'_> {
    fn render(&self) -> String {
        let report = self.report;
        let mut out = head(report);
        let facts: Vec<String> = words::circumstances(report).iter().map(|f| plain(f)).collect();
        if !facts.is_empty() {
            out += &format!("{}\n\n", facts.join(" · "));
        }
        for words::Answer { question, said, .. } in words::answers(report) {
            let more = said.len().saturating_sub(self.rows);
            let mut said: Vec<String> = said.iter().take(self.rows).map(|s| prose(s)).collect();
            if more > 0 {
                said.push(format!("{more} more are in the JSON report."));
            }
            out += &match said.as_slice() {
                [one] => format!("- **{question}** {one}\n"),
                many => format!("- **{question}**\n  - {}\n", many.join("\n  - ")),
            };
        }
        out += &format!("\n{}", self.outputs());
        out += &details("Runs", &self.runs());
        out += &details("Where it starts", &self.origin());
        out += &details("Weights", &self.weights());
        out += &details("Files", &self.files());
        out + &format!("<sub>{}</sub>\n", words::PARITY)
    }

    fn outputs(&self) -> String {
        let report = self.report;
        let row = |o: &Value| {
            let verdict = Verdict::of_output(o, report);
            vec![
                code(text(o, "name").unwrap_or("output")),
                text(o, "ty").map_or_else(String::new, code),
                format!("{} {}", verdict.glyph(), verdict.word()),
                number(o, "snr_db").map_or_else(String::new, |x| format!("{x:.1}")),
                number(o, "max_abs").map_or_else(String::new, figure),
                number(o, "max_rel").map_or_else(String::new, figure),
                number(o, "cosine").map_or_else(String::new, |x| format!("{x:.6}")),
                plain(&other(o)),
            ]
        };
        let heads = ["Output", "Type", "Verdict", "SNR dB", "Max abs", "Max rel", "Cosine", ""];
        // Of many, those that differ are the ones to see.
        let mut all: Vec<Value> = list(report, "outputs").to_vec();
        if all.len() > self.rows {
            all.sort_by_key(|o| Verdict::of_output(o, report) != Verdict::Beyond);
        }
        self.table(&heads, &all, row)
    }

    fn runs(&self) -> String {
        let report = self.report;
        let row = |r: &Value| {
            let verdict = Verdict::of_run(r);
            let said = ["function", "name", "inputs", "shape", "arithmetic"]
                .map(|f| text(r, f).map_or_else(String::new, plain));
            let [function, name, inputs, shape, arithmetic] = said;
            let result = format!("{} {}", verdict.glyph(), verdict.word());
            vec![function, name, inputs, shape, arithmetic, result, prose(&words::run_measure(r))]
        };
        self.table(
            &["Function", "Run", "Inputs", "Shape", "Arithmetic", "Verdict", "Measure"],
            list(report, "runs"),
            row,
        )
    }

    fn origin(&self) -> String {
        let report = self.report;
        let Some(bisection) = report.get("bisection") else { return String::new() };
        let ops = list(report, "ops");
        let row = |c: &Value| {
            let op = count(c, "op").and_then(|i| ops.get(usize::try_from(i).ok()?)).unwrap_or(&Value::Null);
            let places: Vec<String> = list(op, "place").iter().filter_map(Value::as_str).map(place).collect();
            let db = |field| number(c, field).map_or_else(String::new, |x| format!("{x:.1}"));
            vec![
                code(text(op, "name").unwrap_or("op")),
                text(op, "op").map_or_else(String::new, code),
                text(c, "why").map_or_else(String::new, plain),
                db("own_snr_db"),
                db("explained_snr_db"),
                places.join(", "),
                text(c, "note").map_or_else(String::new, prose),
            ]
        };
        let heads = ["Op", "Type", "What is off", "Own SNR dB", "Explained dB", "In the source", "Note"];
        let mut out = self.table(&heads, list(bisection, "culprits"), row);
        if let Some(recipe) = bisection.get("recipe") {
            let lines: Vec<&str> = list(recipe, "lines").iter().filter_map(Value::as_str).collect();
            let command: Vec<&str> = text(recipe, "again").or(text(recipe, "command")).into_iter().collect();
            out += &block("toml", &lines.join("\n"));
            out += &block("sh", &command.join("\n"));
        }
        out
    }

    fn weights(&self) -> String {
        let report = self.report;
        let size = |of: &Value, field: &str| count(of, field).map_or_else(String::new, bytes);
        let row = |w: &Value| {
            vec![
                code(text(w, "name").unwrap_or("weight")),
                text(w, "type").map_or_else(String::new, code),
                plain(text(w, "scheme").unwrap_or("as it was")),
                number(w, "bits").map_or_else(String::new, |x| format!("{x:.2}")),
                size(w, "bytes_source"),
                size(w, "bytes"),
                number(w, "snr_db").map_or_else(String::new, |x| format!("{x:.1}")),
            ]
        };
        let mut all: Vec<Value> = list(report, "weights").to_vec();
        all.sort_by(|a, b| number(b, "bytes").unwrap_or(0.0).total_cmp(&number(a, "bytes").unwrap_or(0.0)));
        self.table(&["Weight", "Type", "Scheme", "Bits", "Before", "After", "SNR dB"], &all, row)
    }

    fn files(&self) -> String {
        let report = self.report;
        let row = |f: &Value| {
            vec![
                plain(text(f, "role").unwrap_or("file")),
                text(f, "path").map_or_else(String::new, code),
                plain(text(f, "format").unwrap_or_default()),
                count(f, "bytes").map_or_else(String::new, bytes),
                text(f, "sha256").map_or_else(String::new, code),
            ]
        };
        let mut out = self.table(&["Role", "Path", "Format", "Size", "SHA-256"], list(report, "files"), row);
        if let Some(made_by) = report.get("made_by") {
            out += &block("sh", text(made_by, "command").unwrap_or_default());
        }
        out
    }

    /// A table with an empty line behind it; nothing where there are no rows. Columns in which no row says anything are left out.
    fn table(&self, heads: &[&str], of: &[Value], row: impl Fn(&Value) -> Vec<String>) -> String {
        let rows: Vec<Vec<String>> = of.iter().take(self.rows).map(row).collect();
        if rows.is_empty() {
            return String::new();
        }
        let says = |c: usize| rows.iter().any(|r| r.get(c).is_some_and(|s| !s.is_empty()));
        let shown: Vec<usize> = (0..heads.len()).filter(|c| *c == 0 || says(*c)).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
        let mut out = line(&mut shown.iter().filter_map(|c| heads.get(*c).copied()));
        out += &line(&mut shown.iter().map(|_| "---"));
        for row in &rows {
            // A pipe ends a cell even in code.
            let cells: Vec<String> = shown.iter().filter_map(|c| Some(row.get(*c)?.replace('|', "\\|"))).collect();
            out += &line(&mut cells.iter().map(String::as_str));
        }
        if of.len() > self.rows {
            out += &format!("\n{} more are in the JSON report.\n", of.len() - self.rows);
        }
        out + "\n"
    }
}

/// What the columns do not say.
fn other(output: &Value) -> String {
    let said = text(output, "mismatch").is_some()
        || flag(output, "drawn") == Some(true)
        || count(output, "unequal").is_some()
        || count(output, "non_finite").is_some_and(|n| n > 0);
    let task = output.get("task").unwrap_or(&Value::Null);
    let part = |field: &str, name: &str| number(task, field).map(|x| format!("{name} {:.2} %", 100.0 * x));
    let value = |field: &str, name: &str| number(task, field).map(|x| format!("{name} {}", figure(x)));
    let all = [
        said.then(|| words::measure(output)),
        words::missed(output),
        part("top1", "top-1"),
        part("argmax", "argmax"),
        value("kl", "KL"),
        value("iou_mean", "mean IoU"),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn details(title: &str, body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    format!("<details>\n<summary>{title}</summary>\n\n{body}</details>\n\n")
}

/// Characters of a sentence that names a great many things.
const PROSE: usize = 3000;

/// A sentence with code in backticks.
fn prose(sentence: &str) -> String {
    let (mut out, mut room) = (String::new(), PROSE);
    for (is_code, s) in spans(sentence) {
        let s = bounded(is_code, s);
        let Some(left) = room.checked_sub(s.chars().count()) else { return out + "…" };
        room = left;
        out += &if is_code { code(&s) } else { plain(&s) };
    }
    out
}

/// A node, module or line of the source.
fn place(text: &str) -> String {
    if text.contains('`') { prose(text) } else { code(text) }
}

/// Text that is neither markup nor a mention, a reference or a link.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in printable(&bounded(false, text)).chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '$' => out.extend(['\\', c]),
            // A comment between them keeps both from being one word.
            '@' | '#' => out.extend([c.to_string().as_str(), "<!-- -->"]),
            c => out.push(c),
        }
    }
    out.replace("://", ":<!-- -->//").replace("www.", "www<!-- -->.")
}

/// Text as code, with as many backticks around as it takes.
fn code(text: &str) -> String {
    let text = printable(&bounded(true, text));
    let fence = "`".repeat(longest_run(&text) + 1);
    let text = text.trim();
    match text {
        "" => String::new(),
        _ if text.starts_with('`') || text.ends_with('`') => format!("{fence} {text} {fence}"),
        _ => format!("{fence}{text}{fence}"),
    }
}

/// Lines as a block of code with an empty line behind it; nothing where there are none.
fn block(language: &str, lines: &str) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let fence = "`".repeat(longest_run(lines).max(2) + 1);
    let lines: Vec<String> = lines.lines().map(printable).collect();
    format!("{fence}{language}\n{}\n{fence}\n\n", lines.join("\n"))
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_stay_names() {
        assert_eq!(plain("a_b <i> @all #1"), "a\\_b &lt;i&gt; @<!-- -->all #<!-- -->1");
        assert_eq!([code("a`b"), code("`a"), code(" ")], ["``a`b``", "`` `a ``", ""]);
        assert_eq!(block("sh", "a```b"), "````sh\na```b\n````\n\n");
        let rows = [json!("a|b")];
        assert_eq!(
            Document { report: &Value::Null, rows: 40 }
                .table(&["x"], &rows, |v| vec![code(v.as_str().unwrap_or_default())]),
            "| x |\n| --- |\n| `a\\|b` |\n\n"
        );
    }
}
