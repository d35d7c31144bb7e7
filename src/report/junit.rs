//! A comparison as JUnit XML, for systems that run tests.

use super::{
    read::{list, text},
    words::{self, Verdict, bounded, printable, run_measure, run_title},
};
use indexmap::IndexMap;
use serde_json::Value;

/// What became of a test.
enum Outcome {
    Passed,
    Failed(String),
    Broken(String),
    Skipped(String),
}

struct Case {
    class: &'static str,
    name: String,
    outcome: Outcome,
    /// What was measured, of a case that passed.
    measure: String,
}

/// The JUnit XML of a comparison: a suite for each function, with a case for each output and each run. The same report makes the
/// same text; there are no times.
pub fn junit(report: &Value) -> String {
    let mut suites: IndexMap<&str, Vec<Case>> = IndexMap::new();
    let first = list(report, "runs").iter().find_map(|r| text(r, "function")).unwrap_or("main");
    for output in list(report, "outputs") {
        let function = text(output, "function").unwrap_or(first);
        let name = text(output, "name").unwrap_or("output");
        // Of several functions, outputs are called with theirs.
        let name = name.strip_prefix(function).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(name);
        suites.entry(function).or_default().push(of_output(output, name, report));
    }
    for run in list(report, "runs") {
        suites.entry(text(run, "function").unwrap_or("main")).or_default().push(of_run(run));
    }
    let command = text(report, "command").unwrap_or("verify");
    let name = attribute(&format!("mlconv {command}: {}", words::subject(report)));
    let (tests, counts) = counts(suites.values().flatten());
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{name}\" tests=\"{tests}\" {counts}>\n"
    );
    for (function, cases) in &suites {
        out += &suite(function, cases, report);
    }
    out + "</testsuites>\n"
}

fn suite(function: &str, cases: &[Case], report: &Value) -> String {
    let (tests, counts) = counts(cases.iter());
    let properties: Vec<(&str, &str)> = [
        ("program", report.get("made_by").and_then(|m| text(m, "program"))),
        ("command", report.get("made_by").and_then(|m| text(m, "command"))),
        ("against", text(report, "against")),
        ("inputs", text(report, "inputs")),
        ("scope", Some(words::PARITY)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let mut out =
        format!("  <testsuite name=\"{}\" tests=\"{tests}\" {counts}>\n    <properties>\n", attribute(function));
    for (name, value) in properties {
        out += &format!("      <property name=\"{name}\" value=\"{}\"/>\n", attribute(value));
    }
    out += "    </properties>\n";
    for Case { class, name, outcome, measure } in cases {
        // Systems split the class at its last point into a package and a name.
        let head = format!("    <testcase classname=\"{}.{class}\" name=\"{}\"", attribute(function), attribute(name));
        // Some systems show the message, others the text.
        let said = |tag: &str, why: &str| {
            let why = attribute(why);
            format!("{head}>\n      <{tag} message=\"{why}\">{why}</{tag}>\n    </testcase>\n")
        };
        out += &match outcome {
            Outcome::Passed if measure.is_empty() => format!("{head}/>\n"),
            Outcome::Passed => {
                format!("{head}>\n      <system-out>{}</system-out>\n    </testcase>\n", attribute(measure))
            }
            Outcome::Failed(why) => said("failure", why),
            Outcome::Broken(why) => said("error", why),
            Outcome::Skipped(why) => said("skipped", why),
        };
    }
    out + "  </testsuite>\n"
}

fn of_output(output: &Value, name: &str, report: &Value) -> Case {
    let measure = words::measure(output);
    let outcome = match Verdict::of_output(output, report) {
        Verdict::Within => Outcome::Passed,
        Verdict::Beyond => Outcome::Failed(match words::missed(output) {
            Some(missed) => format!("{missed}: {measure}"),
            None => measure.clone(),
        }),
        Verdict::Random => Outcome::Skipped(measure.clone()),
        Verdict::Measured => Outcome::Skipped(format!("held to no tolerance: {measure}")),
        Verdict::Broken | Verdict::Unknown => Outcome::Skipped("not judged".to_owned()),
    };
    Case { class: "outputs", name: bounded(true, name).into_owned(), outcome, measure }
}

fn of_run(run: &Value) -> Case {
    let measure = run_measure(run);
    let outcome = match Verdict::of_run(run) {
        Verdict::Within => Outcome::Passed,
        Verdict::Beyond => Outcome::Failed(measure.clone()),
        Verdict::Broken => Outcome::Broken(measure.clone()),
        Verdict::Random | Verdict::Measured | Verdict::Unknown => Outcome::Skipped(format!("not judged: {measure}")),
    };
    Case { class: "runs", name: run_title(run), outcome, measure }
}

/// How many cases there are, and those that did not pass as attributes.
fn counts<'a>(cases: impl Iterator<Item = &'a Case>) -> (usize, String) {
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    for case in cases {
        tests += 1;
        match case.outcome {
            Outcome::Passed => {}
            Outcome::Failed(_) => failures += 1,
            Outcome::Broken(_) => errors += 1,
            Outcome::Skipped(_) => skipped += 1,
        }
    }
    (tests, format!("failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\""))
}

/// Text in an attribute or an element. What XML cannot hold is shown as replaced.
fn attribute(text: &str) -> String {
    let mut out = String::new();
    for c in printable(&bounded(false, text)).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}
