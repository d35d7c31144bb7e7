//! What the renderings of a comparison say alike.

use super::{
    read::{count, flag, list, number, sentences, text},
    text::bytes,
};
use crate::{
    compare::Miss,
    names::{clipped, hides, shown},
};
use mlconv_tensor::f16;
use serde_json::Value;
use std::borrow::Cow;

/// What no run on this machine can show. Every rendering says it.
pub(super) const PARITY: &str = "This is conversion parity: both models ran on this computer. What a device's Neural \
                                 Engine or GPU will compute is another matter, and was not tested.";

/// Whether something is within the tolerance.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is.
    Within,
    /// It is not.
    Beyond,
    /// It could not be run.
    Broken,
    /// It follows from random numbers: its values are not judged.
    Random,
    /// It is measured and held to no tolerance.
    Measured,
    /// Nothing was said about it.
    Unknown,
}

impl Verdict {
    /// In a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Within => "ok",
            Self::Beyond => "differs",
            Self::Broken => "not run",
            Self::Random => "random",
            Self::Measured => "measured",
            Self::Unknown => "not judged",
        }
    }

    /// In a character.
    pub(super) fn glyph(self) -> &'static str {
        match self {
            Self::Within => "✓",
            Self::Beyond | Self::Broken => "✕",
            // No dash, which would make numbers behind it negative.
            Self::Random | Self::Measured | Self::Unknown => "○",
        }
    }

    /// Of something that is only judged, as the whole and a run are.
    pub(super) fn of(judged: &Value) -> Self {
        match (flag(judged, "judged"), flag(judged, "pass")) {
            (Some(false), _) | (_, None) => Self::Unknown,
            (_, Some(true)) => Self::Within,
            (_, Some(false)) => Self::Beyond,
        }
    }

    /// Of a run.
    pub(super) fn of_run(run: &Value) -> Self {
        match (flag(run, "judged"), text(run, "error")) {
            (Some(false), _) => Self::Unknown,
            (_, Some(_)) => Self::Broken,
            _ => Self::of(run),
        }
    }

    /// Of an output.
    pub(super) fn of_output(output: &Value, report: &Value) -> Self {
        let whole = Self::of(output);
        // A tolerance without a bound is infinite, which JSON cannot say.
        let any =
            || report.get("tolerance").is_none_or(|t| BOUNDS.iter().any(|b| t.get(*b).is_some_and(|b| !b.is_null())));
        let bounded = flag(output, "bounded").unwrap_or_else(any);
        match whole {
            Self::Within if flag(output, "drawn") == Some(true) => Self::Random,
            Self::Within if !bounded && measured(output) => Self::Measured,
            _ => whole,
        }
    }
}

/// Whether anything was found that would be judged.
fn measured(output: &Value) -> bool {
    number(output, "snr_db").is_some() || number(output, "unequal").is_some_and(|n| n > 0.0)
}

/// What a tolerance may ask for; `max_rel` only widens the first.
const BOUNDS: [&str; 5] = ["min_snr_db", "elementwise", "min_cosine", "min_top1", "max_kl"];

/// The verdict of the whole in words.
pub(super) fn headline(report: &Value) -> &'static str {
    match Verdict::of(report) {
        Verdict::Within => "Within tolerance",
        Verdict::Beyond => "Beyond tolerance",
        _ => "Not judged",
    }
}

/// What is judged against what it is judged by: `m.mlpackage against m.onnx`.
pub(super) fn subject(report: &Value) -> String {
    let of = |roles: [&str; 2]| {
        let file = list(report, "files").iter().find(|f| text(f, "role").is_some_and(|r| roles.contains(&r)))?;
        Some(last_part(text(file, "path")?))
    };
    match (of(["package", "b"]), of(["source", "a"])) {
        (Some(judged), Some(by)) => format!("{judged} against {by}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "Two models".to_owned(),
    }
}

fn last_part(path: &str) -> &str {
    let path = path.trim_end_matches(['/', '\\']);
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// What was compared with what on what, and how close it is to be, as short phrases.
pub(super) fn circumstances(report: &Value) -> Vec<String> {
    let model = report.get("model").unwrap_or(&Value::Null);
    let precision = model.get("precision").and_then(Value::as_object);
    let precisions = precision.iter().flat_map(|p| p.iter());
    let precisions = precisions.filter_map(|(k, n)| Some(format!("{} in {k}", n.as_u64()?))).collect::<Vec<_>>();
    [
        text(report, "against").map(|s| format!("against {s}")),
        text(report, "inputs").map(|s| format!("on {s}")),
        tolerance(report),
        text(model, "target").map(str::to_owned),
        count(model, "ops").map(|n| {
            let of = if precisions.is_empty() { String::new() } else { format!(" ({})", precisions.join(", ")) };
            format!("{n} ops{of}")
        }),
        count(model, "weights_bytes").map(|n| format!("{} of weights", bytes(n))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn tolerance(report: &Value) -> Option<String> {
    let t = report.get("tolerance")?;
    let snr = number(t, "min_snr_db").map(|db| format!("SNR of {db} dB"));
    let rel = number(t, "max_rel")
        .filter(|r| *r > 0.0)
        .map(|r| format!("{} % of the greatest value", (r * 1e8).round() / 1e6));
    let noise: Vec<String> = [snr, rel].into_iter().flatten().collect();
    let close = t.get("elementwise").and_then(|e| Some((number(e, "abs")?, number(e, "rel")?)));
    let wanted: Vec<String> = [
        (!noise.is_empty()).then(|| noise.join(" or ")),
        close.map(|(abs, rel)| format!("{abs} + {rel} of each element")),
        number(t, "min_cosine").map(|c| format!("cosine of {c}")),
        number(t, "min_top1").map(|part| format!("top-1 agreement of {} %", (part * 1e6).round() / 1e4)),
        number(t, "max_kl").map(|nats| format!("divergence of {nats} nats at most")),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!wanted.is_empty()).then(|| format!("tolerance {}", wanted.join(" and ")))
}

/// A question and what the report answers.
pub(super) struct Answer<'a> {
    /// The field of the report.
    pub field: &'static str,
    /// The question.
    pub question: &'static str,
    /// Sentences, with code in backticks; at least one.
    pub said: Vec<Cow<'a, str>>,
}

/// The six questions in their order, less those about which the report says nothing.
pub(super) fn answers(report: &Value) -> Vec<Answer<'_>> {
    let Some(all) = report.get("answers").filter(|a| a.is_object()) else { return vec![] };
    let begun = match report.get("bisection").and_then(|b| text(b, "state")) {
        Some("accumulates") if Verdict::of(report) == Verdict::Within => {
            Some("None: no op is off by more than its type explains.")
        }
        Some("accumulates") => Some("No single op: errors of many add up."),
        Some("agrees") => Some("None: no op differs by more than its type explains."),
        Some("unknown") => Some("It cannot be said: too few values of both could be paired."),
        _ => None,
    };
    let unasked = || Some(format!("That was not looked for: `{}` looks for it.", text(report, "bisect")?));
    let begun = begun.map(Cow::from).or_else(|| Some(unasked()?.into()));
    let nothing_to_change = match Verdict::of(report) {
        Verdict::Within if list(report, "notes").is_empty() => "Nothing has to change.",
        Verdict::Within => "Nothing in the package; what was warned of fails a run with `--ci`.",
        _ => "Nothing was found that helps.",
    };
    [
        ("approximated", "Was anything skipped or approximated?", Some("Nothing.".into())),
        ("worst", "Which output is worst?", None),
        ("started", "Which op started it?", begun),
        ("elsewhere", "Is it worse for other shapes or inputs?", Some("Not in what was run.".into())),
        ("change", "What do I change?", Some(nothing_to_change.into())),
        ("untested", "What was not tested?", Some("Nothing beyond what devices compute.".into())),
    ]
    .into_iter()
    .filter_map(|(field, question, otherwise)| {
        let said = match sentences(all, field) {
            Some(said) if !said.is_empty() => said.into_iter().map(Cow::from).collect(),
            // An empty list is an answer; of what is null nothing is known but what else the report says.
            Some(_) => vec![otherwise?],
            None => vec![otherwise.filter(|_| field == "started")?],
        };
        Some(Answer { field, question, said })
    })
    .collect()
}

/// Text and code of a sentence with code in backticks. A backtick without an end is text.
pub(super) fn spans(sentence: &str) -> Vec<(bool, &str)> {
    let parts: Vec<&str> = sentence.split('`').collect();
    let closed = parts.len() % 2 == 1;
    let mut out: Vec<(bool, &str)> = parts.iter().enumerate().map(|(i, s)| (i % 2 == 1, *s)).collect();
    if !closed && let Some(last) = out.last_mut() {
        last.0 = false;
    }
    out.retain(|(_, s)| !s.is_empty());
    out
}

/// The measures that an output may miss.
const MEASURES: [&str; 7] = ["snr_db", "non_finite", "unequal", "beyond", "cosine", "top1", "kl"];

/// What of an output is beyond the tolerance, in words: `top-1 agreement 0.961, at least 0.99 wanted`.
pub(super) fn missed(output: &Value) -> Option<String> {
    let one = |m: &Value| {
        let measure = MEASURES.into_iter().find(|name| text(m, "measure") == Some(name))?;
        let limit = number(m, "limit").unwrap_or_default();
        // Three digits say enough, unless they are those of the limit.
        let short = |x: f64| figure(x).parse().ok().filter(|short| *short != limit).unwrap_or(x);
        let found = number(m, "found").map(short);
        Some(Miss { measure, found, limit }.text())
    };
    let all: Vec<String> = list(output, "missed").iter().filter_map(one).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// How far an output is off, in words. Every rendering says it so.
pub(super) fn measure(output: &Value) -> String {
    if let Some(why) = text(output, "mismatch") {
        return why.to_owned();
    }
    if flag(output, "drawn") == Some(true) {
        return "follows from random numbers: its values are not judged".to_owned();
    }
    if let Some(n) = count(output, "unequal") {
        let of = count(output, "count").map_or_else(String::new, |c| format!(" of {c}"));
        return if n == 0 { "equal".to_owned() } else { format!("{n}{of} differ") };
    }
    let broken = count(output, "non_finite").filter(|n| *n > 0);
    if number(output, "max_abs") == Some(0.0) && broken.is_none() {
        let of = |field| list(output, field).first().and_then(Value::as_u64).unwrap_or(0);
        let finite = count(output, "count").is_none_or(|n| n == 0 || of("nan") + of("inf") < n);
        return if finite { "equal" } else { "equal, no element is finite" }.to_owned();
    }
    let greatest = number(output, "greatest").filter(|g| *g > 0.0 && *g < f64::from(f16::MIN_POSITIVE));
    let of_half = flag(output, "pass") == Some(false) && count(output, "max_ulp").is_some();
    if let Some(greatest) = greatest.filter(|_| of_half) {
        return format!("its values, up to {greatest:.1e}, are below what half precision holds (6.1e-5)");
    }
    let parts: Vec<String> = [
        number(output, "snr_db").map(|s| format!("SNR {s:.1} dB")),
        number(output, "max_abs").map(|x| format!("max abs {}", figure(x))),
        number(output, "cosine").map(|c| format!("cosine {c:.6}")),
        broken.map(|n| format!("{n} not finite alike")),
    ]
    .into_iter()
    .flatten()
    .collect();
    parts.join(", ")
}

/// What a run is called: its name, inputs and shapes, less what says nothing more.
pub(super) fn run_title(run: &Value) -> String {
    let mut parts: Vec<&str> = vec![];
    for part in ["name", "inputs", "shape", "arithmetic"].iter().filter_map(|f| text(run, f)) {
        if !parts.iter().any(|p| p.contains(part)) {
            parts.push(part);
        }
    }
    if parts.is_empty() { "run".to_owned() } else { parts.join(", ") }
}

/// Outputs of a run that are told of.
const TOLD: usize = 4;

/// The measures of the worst outputs of a run that are beyond the tolerance; of all, where none is.
pub(super) fn run_measure(run: &Value) -> String {
    if let Some(error) = text(run, "error") {
        return error.to_owned();
    }
    let fails = |o: &&Value| flag(o, "pass") == Some(false);
    let mut all: Vec<&Value> = list(run, "outputs").iter().filter(fails).collect();
    if all.is_empty() {
        all = list(run, "outputs").iter().collect();
    }
    // What has no signal over noise is not alike in another way, or equal.
    let key = |o: &Value| number(o, "snr_db").unwrap_or(if fails(&o) { f64::NEG_INFINITY } else { f64::INFINITY });
    all.sort_by(|a, b| key(a).total_cmp(&key(b)));
    let line = |o: &Value| format!("{}: {}", shown(text(o, "name").unwrap_or("output")), measure(o));
    let mut lines: Vec<String> = all.iter().take(TOLD).map(|o| line(o)).collect();
    if all.len() > TOLD {
        lines.push(format!("{} more", all.len() - TOLD));
    }
    lines.join("; ")
}

/// A number to three digits.
pub(super) fn figure(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{x:.2e}");
    }
    let digits = (2.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{x:.digits$}")
}

/// Text without characters that a page or a document cannot hold, or that would turn its direction.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => ' ',
        c if hides(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// Characters of a name in a document, and of a sentence or a command.
const NAME: usize = 200;
const SENTENCE: usize = 1000;

/// Text with code in backticks of which long names, and what else is long, lost their middles: documents have bounds.
pub(super) fn bounded(is_code: bool, text: &str) -> Cow<'_, str> {
    // A command that has lost its middle is none.
    let is_name = is_code && !["mlconv ", "--"].iter().any(|head| text.starts_with(head));
    clipped(text, if is_name { NAME } else { SENTENCE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn code_is_what_stands_between_backticks() {
        assert_eq!(spans("use `a` or `b`"), [(false, "use "), (true, "a"), (false, " or "), (true, "b")]);
        assert_eq!(spans("an open ` stays"), [(false, "an open "), (false, " stays")]);
        assert_eq!(spans(""), []);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!([0.0, 0.016406, 1.0, 12345.6, 1e-9].map(figure), ["0", "0.0164", "1.00", "12346", "1.00e-9"]);
    }

    #[test]
    fn an_empty_list_is_an_answer_and_null_is_none() {
        let report =
            json!({"pass": true, "answers": {"approximated": [], "worst": null, "started": null, "change": []}});
        let said: Vec<_> = answers(&report).iter().map(|a| (a.field, a.said.join(" "))).collect();
        let wanted = [("approximated", "Nothing.".to_owned()), ("change", "Nothing has to change.".to_owned())];
        assert_eq!(said, wanted);
    }

    #[test]
    fn what_is_compared_is_named_by_its_files() {
        let file = |role: &str, path: &str| json!({"role": role, "path": path});
        let both = json!({"files": [file("source", "/x/m.onnx"), file("package", "out/m.mlpackage/")]});
        assert_eq!(subject(&both), "m.mlpackage against m.onnx");
        let both = json!({"files": [file("a", "m.onnx"), file("b", "m.mlpackage")]});
        assert_eq!(subject(&both), "m.mlpackage against m.onnx");
        assert_eq!(subject(&json!({})), "Two models");
    }

    #[test]
    fn bounds_and_what_misses_them_are_said() {
        let report = json!({"tolerance": {"min_snr_db": null, "max_rel": 0.0, "min_top1": 0.99, "max_kl": null}});
        assert_eq!(circumstances(&report), ["tolerance top-1 agreement of 99 %"]);
        let output =
            json!({"pass": true, "snr_db": 20.0, "missed": [{"measure": "top1", "found": 0.9611, "limit": 0.99}]});
        assert!(Verdict::of_output(&output, &report) == Verdict::Within, "it was held to something");
        assert_eq!(missed(&output).as_deref(), Some("top-1 agreement 0.961, at least 0.99 wanted"));
        assert_eq!(missed(&json!({"missed": []})), None);
        let close = json!({"missed": [{"measure": "snr_db", "found": 6.477643, "limit": 40.0}]});
        assert_eq!(missed(&close).as_deref(), Some("SNR 6.5 dB, at least 40 dB wanted"));
        let close = json!({"missed": [{"measure": "snr_db", "found": 39.9996, "limit": 40.0}]});
        assert_eq!(missed(&close).as_deref(), Some("SNR 39.9996 dB, at least 40 dB wanted"));
    }

    #[test]
    fn an_op_that_was_not_looked_for_comes_with_the_command_that_does() {
        let report = json!({"answers": {"started": null}, "bisect": "mlconv diff 'a b' c --bisect"});
        let said: Vec<_> = answers(&report).iter().map(|a| a.said.join(" ")).collect();
        assert_eq!(said, ["That was not looked for: `mlconv diff 'a b' c --bisect` looks for it."]);
    }

    #[test]
    fn what_numbers_cannot_say_is_said() {
        let none = json!({"max_abs": 0.0, "count": 2, "nan": [1, 1], "inf": [1, 1], "non_finite": 0});
        assert_eq!(measure(&none), "equal, no element is finite");
        let tiny = json!({"max_abs": 1e-6, "greatest": 1e-5, "snr_db": 3.0, "pass": false, "max_ulp": 9});
        assert!(measure(&tiny).contains("below what half precision holds"), "{}", measure(&tiny));
    }

    #[test]
    fn a_run_tells_of_its_worst_outputs() {
        let one = |i: usize| json!({"name": format!("y{i}"), "pass": true, "snr_db": 100 - i, "max_abs": 0.5});
        let run = json!({"outputs": (0..9).map(one).collect::<Vec<_>>()});
        let said = run_measure(&run);
        assert!(said.starts_with("y8: SNR 92.0 dB") && said.ends_with("; 5 more"), "{said}");
    }

    #[test]
    fn characters_that_hide_are_shown() {
        assert_eq!(printable("a\u{202e}b\0c\nd\u{61c}"), "a\u{fffd}b\u{fffd}c d\u{fffd}");
    }
}
