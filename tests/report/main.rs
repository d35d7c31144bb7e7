//! Renderings of a comparison. Their files are left in `target/tmp/report`, for `check.mjs` to open them in a browser.

mod cases;
mod transformer;

use mlconv::report::{html, junit, markdown};
use serde_json::{Value, json};
use std::path::Path;

const TIME: &str = "2026-01-02 03:04 UTC";
/// Bytes that a page may have.
const ROOM: usize = 2_000_000;

fn cases() -> Vec<(&'static str, Value)> {
    cases::all(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/reports"))
}

fn digits() -> Value {
    cases().into_iter().find(|(name, _)| *name == "digits").expect("there is such a case").1
}

#[test]
fn files_are_left_for_a_browser() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    for (name, report) in cases() {
        let files = [
            ("json", report.to_string()),
            ("html", html(&report, Some(TIME))),
            ("md", markdown(&report)),
            ("xml", junit(&report)),
        ];
        for (suffix, text) in files {
            std::fs::write(folder.join(format!("{name}.{suffix}")), text).expect("the file can be written");
        }
    }
}

#[test]
fn pages_are_small_whole_and_the_same_again() {
    for (name, report) in cases() {
        let page = html(&report, None);
        assert!(page.len() < ROOM, "{name} has {} bytes", page.len());
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{name}");
        assert_eq!(page, html(&report, None), "{name}");
        assert_eq!(markdown(&report), markdown(&report), "{name}");
        assert_eq!(junit(&report), junit(&report), "{name}");
    }
}

#[test]
fn one_line_says_when() {
    for (name, report) in cases() {
        let (at, later) = (html(&report, Some(TIME)), html(&report, Some("2027-01-01 00:00 UTC")));
        let apart = at.lines().zip(later.lines()).filter(|(a, b)| a != b).count();
        assert_eq!((at.lines().count(), apart), (later.lines().count(), 1), "{name}");
        assert_eq!(
            at.lines().filter(|l| !l.contains(TIME)).flat_map(|l| [l, "\n"]).collect::<String>(),
            html(&report, None),
            "{name}"
        );
    }
}

#[test]
fn every_rendering_says_what_it_does_not_show() {
    for (name, report) in cases() {
        // Without outputs and runs there is no test that could say so.
        let tests = report["outputs"].as_array().is_some_and(|o| !o.is_empty());
        let all = [html(&report, None).replace("&#39;", "'"), markdown(&report)];
        for text in all.into_iter().chain(tests.then(|| junit(&report))) {
            assert!(text.contains("conversion parity") && text.contains("Neural Engine or GPU"), "{name}: {text}");
        }
    }
}

#[test]
fn texts_of_models_are_never_markup() {
    let report = cases::hostile(&digits());
    let page = html(&report, Some("<b>now</b>"));
    // The page's own scripts: its data and its program.
    assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (2, 2));
    for tag in ["<img", "<!--", "<b>", "javascript:"] {
        assert!(!page.contains(tag), "{tag}");
    }
    let data = page.split("id=\"data\">").nth(1).and_then(|p| p.split("</script>").next()).expect("the page has data");
    let data: Value = serde_json::from_str(data).expect("data are JSON");
    let names = data["strings"].as_array().expect("texts are a list");
    assert!(
        names.iter().any(|s| s.as_str().is_some_and(|s| s.starts_with("</script><script>") && s.ends_with("conv1")))
    );
    for hidden in ['\u{1}', '\u{202e}'] {
        assert!(!page.contains(hidden) && !markdown(&report).contains(hidden) && !junit(&report).contains(hidden));
    }
}

#[test]
fn sections_make_other_pages() {
    use mlconv::report::html::{Cell, Form, Page, Table, escape, ops_data, ops_section};
    let rows = vec![vec![Cell::name("conv"), Cell::number(Some(2.0), |x| x.to_string()), Cell::text("")]];
    let columns = vec![("Op", ""), ("Count", ""), ("Never said", "")];
    let fallback = Table { caption: "Ops by type", columns, rows, left_out: 3 }.render(Form::Plain);
    let page = Page {
        title: "m.onnx".to_owned(),
        header: format!("<h1>{}</h1>\n", escape("m.onnx")),
        sections: vec![ops_section("12 ops.".to_owned(), &fallback)],
        data: ops_data(&json!({"ops": [{"index": 0, "name": "conv", "op": "conv"}]})),
        ..Page::default()
    };
    let page = page.render();
    assert!(page.contains("<h2 id=\"ops-title\">Ops</h2>") && page.contains("3 more rows"), "{page}");
    assert!(!page.contains("Never said") && !page.contains("<time>"), "{page}");
}

#[test]
fn markdown_keeps_its_tables() {
    for (name, report) in cases() {
        let text = markdown(&report);
        let mut columns = None;
        for line in text.lines() {
            if !line.starts_with("| ") {
                columns = None;
                continue;
            }
            let pipes = line.replace("\\|", "").matches('|').count();
            assert_eq!(*columns.get_or_insert(pipes), pipes, "{name}: {line}");
        }
        assert!(text.len() < 65_536, "{name}: a comment holds no more");
    }
}

/// A hundred outputs of long names, and as many runs, as a comment or a pipeline has to take them.
fn long() -> Value {
    let name = |i: usize| format!("{}{i}", "n`*@|".repeat(20_000));
    let output = |i: usize| json!({"name": name(i), "ty": "f32[1]", "pass": i < 97, "snr_db": i, "max_abs": 0.5});
    let outputs: Vec<Value> = (0..100).map(output).collect();
    let run = |i: usize| json!({"function": "main", "name": format!("seed {i}"), "judged": true, "pass": false, "outputs": outputs});
    let runs: Vec<Value> = (0..100).map(run).collect();
    let said: Vec<String> = (0..100).map(|i| format!("`{}` was adapted.", name(i))).collect();
    let of_all = format!("Not used: {}.", (0..100).map(|i| format!("`{}`", name(i))).collect::<Vec<_>>().join(", "));
    json!({"pass": false, "outputs": outputs, "runs": runs,
        "answers": {"approximated": said, "worst": of_all, "started": null, "elsewhere": [], "change": [], "untested": []}})
}

#[test]
fn documents_have_bounds_whatever_names_are() {
    let report = long();
    let (text, xml) = (markdown(&report), junit(&report));
    assert!(text.len() < 60_000 && text.contains("### ❌ Beyond tolerance"), "{} bytes", text.len());
    assert!(text.contains("Which output is worst?") && text.contains("✕ differs"), "{text}");
    // What differs is what is shown, if not all can be.
    assert!(text.contains("97`") || text.contains("97``"), "{text}");
    assert!(xml.len() < 1_000_000, "{} bytes", xml.len());
    assert_eq!(elements(&xml).iter().filter(|(tag, _)| tag == "testcase").count(), 200);
    // Many outputs are no reason to show less of them than there is room for.
    let many: Vec<Value> = (0..100).map(|i| json!({"name": format!("y{i}"), "pass": true, "snr_db": 50.0})).collect();
    let run = |i: usize| json!({"function": "main", "name": format!("seed {i}"), "judged": true, "pass": true, "outputs": many});
    let text = markdown(&json!({"pass": true, "outputs": many, "runs": (0..10).map(run).collect::<Vec<_>>()}));
    assert!(text.matches("| `y").count() == 40 && text.contains("; 96 more"), "{text}");
}

#[test]
fn a_name_is_not_taken_for_that_of_a_function() {
    let output = |function: Value, name: &str| json!({"function": function, "name": name, "pass": true});
    let run = |f: &str| json!({"function": f, "name": "seed 0", "judged": true, "pass": true});
    let report = json!({
        "outputs": [output(json!("main"), "aux: y"), output(json!("aux"), "aux: aux: z"), output(Value::Null, "other: w")],
        "runs": [run("main"), run("aux")]
    });
    let xml = junit(&report);
    for case in
        ["\"main.outputs\" name=\"aux: y\"", "\"aux.outputs\" name=\"aux: z\"", "\"main.outputs\" name=\"other: w\""]
    {
        assert!(xml.contains(case), "{case}: {xml}");
    }
}

#[test]
fn junit_counts_what_it_lists() {
    for (name, report) in cases() {
        let xml = junit(&report);
        let suites = elements(&xml);
        let of = |tag: &str| suites.iter().filter(|(t, _)| t == tag).count();
        let sum = |attribute: &str| {
            let counts = suites.iter().filter(|(t, _)| t == "testsuite").filter_map(|(_, all)| value(all, attribute));
            counts.map(|n| n.parse::<usize>().expect("a count")).sum::<usize>()
        };
        let counted = [("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")];
        for (attribute, tag) in counted {
            assert_eq!(sum(attribute), of(tag), "{name}: {attribute}");
            assert_eq!(
                value(&suites[0].1, attribute),
                Some(of(tag).to_string().as_str()),
                "{name}: {attribute} in all"
            );
        }
        let tests = ["outputs", "runs"].map(|f| report[f].as_array().map_or(0, Vec::len)).iter().sum::<usize>();
        assert_eq!(of("testcase"), tests, "{name}");
    }
}

#[test]
fn junit_says_what_failed_and_by_how_much() {
    let report = json!({
        "outputs": [{"name": "y", "pass": false, "snr_db": 12.0, "max_abs": 0.5}, {"name": "z", "pass": true, "drawn": true}],
        "runs": [
            {"function": "f", "name": "seed 1", "judged": true, "pass": true, "outputs": []},
            {"function": "f", "name": "seed 2", "judged": false, "pass": false},
            {"function": "f", "name": "seed 3", "judged": true, "error": "no memory"}
        ]
    });
    let xml = junit(&report);
    assert!(xml.contains("<failure message=\"SNR 12.0 dB, max abs 0.500\">"), "{xml}");
    assert!(xml.contains("<testcase classname=\"f.runs\" name=\"seed 1\"/>"), "{xml}");
    assert!(xml.contains("<error message=\"no memory\">") && xml.matches("<skipped").count() == 2, "{xml}");
}

/// Tags that open, with their attributes, of XML that is well formed.
fn elements(xml: &str) -> Vec<(String, String)> {
    let xml = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").expect("a declaration");
    let mut open: Vec<String> = vec![];
    let mut all = vec![];
    for part in xml.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag ends");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        for entity in tag.split('&').skip(1).chain(text.split('&').skip(1)) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|e| entity.starts_with(e)), "{entity}");
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let (name, attributes) = tag.trim_end_matches('/').split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
        assert_eq!(attributes.matches('"').count() % 2, 0, "{tag}");
        all.push((name.to_owned(), attributes.to_owned()));
        if !tag.ends_with('/') {
            open.push(name.to_owned());
        }
    }
    assert_eq!(open, Vec::<String>::new(), "what opens ends");
    all
}

fn value<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let start = attributes
        .strip_prefix(&format!("{name}=\""))
        .or_else(|| attributes.split_once(&format!(" {name}=\"")).map(|(_, r)| r));
    start?.split('"').next()
}
