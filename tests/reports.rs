//! What a comparison says on the terminal and in its reports, and where reports may be written.

mod support;

use mlconv_proto::onnx::tensor_proto::DataType;
use mlconv_tensor::Tensor;
use serde_json::Value;
use std::{fs, process::Command};
use support::{fixtures, onnx::Onnx, place::Done, place::Place};

/// A place with the digits' CNN, its package, and samples.
fn digits() -> Place {
    let place = Place::new();
    let model = fixtures().join("models/digits_cnn/model.onnx");
    fs::copy(model, place.path("my model.onnx")).expect("room");
    place.run(&["convert", "my model.onnx", "-o", "p.mlpackage", "--no-verify"]).ok();
    let images: Vec<f32> = (0..3 * 64).map(|i| (i % 17) as f32).collect();
    place.arrays("in.npz", &[("image", Tensor::from_vec(&[3, 1, 8, 8], images))]);
    place
}

fn read(place: &Place, name: &str) -> String {
    fs::read_to_string(place.path(name)).expect("there")
}

/// The sentences below a question.
fn answer<'t>(text: &'t str, question: &str) -> Vec<&'t str> {
    let below = text.split_once(&format!("{question}\n")).unwrap_or_else(|| panic!("no {question}: {text}")).1;
    below.lines().map_while(|line| line.strip_prefix("  ")).collect()
}

const QUESTIONS: [(&str, &str); 6] = [
    ("approximated", "Was anything skipped or approximated?"),
    ("worst", "Which output is worst?"),
    ("started", "Which op started it?"),
    ("elsewhere", "Is it worse for other shapes or inputs?"),
    ("change", "What do I change?"),
    ("untested", "What was not tested?"),
];

/// Markdown without its escapes.
fn plain(markdown: &str) -> String {
    markdown.replace('\\', "").replace("&lt;", "<").replace("<!-- -->", "")
}

#[test]
fn every_rendering_of_a_command_says_the_same() {
    let place = digits();
    let source = ["--sample", "in.npz", "--min-snr", "200"];
    let verify = ["verify", "p.mlpackage", "--against", "my model.onnx", "--html", "r.html", "--markdown", "r.md"];
    let diff = ["diff", "my model.onnx", "p.mlpackage", "--bisect", "--html", "r.html", "--markdown", "r.md"];
    for line in [&verify[..], &diff[..]] {
        let line = [line, &source].concat();
        let text = place.run(&line).stdout;
        let json: Value = place.run(&[&line[..], &["--format", "json"]].concat()).json();
        let (markdown, page) = (plain(&read(&place, "r.md")), read(&place, "r.html"));
        for (field, question) in QUESTIONS {
            let said = answer(&text, question);
            assert!(!said.is_empty() && markdown.contains(question) && page.contains(question), "{question}: {text}");
            for one in &said {
                // Typographic marks of pages stand for others.
                let first: String = one.chars().take_while(|c| !"`'&<>".contains(*c)).collect();
                assert!(markdown.contains(&plain(one)), "{one}: {markdown}");
                assert!(page.contains(&first), "{one}");
            }
            let own = &json["answers"][field];
            let own: Vec<&str> = own.as_array().map_or_else(
                || own.as_str().into_iter().collect(),
                |all| all.iter().filter_map(Value::as_str).collect(),
            );
            assert!(own.is_empty() || own == said, "{own:?} {said:?}");
        }
        assert!(!answer(&text, "Which op started it?")[0].contains("not looked for"), "{text}");
    }
}

/// Runs what stands in backticks as a shell does.
fn typed(place: &Place, sentence: &str) -> Done {
    let line = sentence.split('`').nth(1).expect("a command");
    let (program, rest) = line.split_once(' ').expect("a program and its arguments");
    assert_eq!(program, "mlconv", "{line}");
    let mlconv = env!("CARGO_BIN_EXE_mlconv");
    let mut command: Command = place.command("sh", &["-c", &format!("'{mlconv}' {rest}")]);
    Done::of(command.output().expect("a shell"))
}

#[test]
fn the_command_that_looks_for_an_op_can_be_run() {
    let place = digits();
    place.file("r.toml", b"[verify]\nsamples = [\"in.npz\"]\n");
    let all: [&[&str]; 3] = [
        &["--sample", "in.npz", "--min-snr", "200"],
        &["--seed", "7", "--min-snr", "200", "--tolerance", "1e-9,0", "--quick"],
        &["--recipe", "r.toml", "--min-snr", "200"],
    ];
    for options in all {
        let line = [&["verify", "p.mlpackage", "--against", "my model.onnx"], options].concat();
        let done = place.run(&line);
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        let text = done.stdout;
        let (asked, change) = (answer(&text, "Which op started it?"), answer(&text, "What do I change?"));
        assert_eq!(asked[0].split('`').nth(1), change[0].split('`').nth(1), "{text}");
        let done = typed(&place, asked[0]);
        assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
        // On the same inputs, and held to the same.
        let row = |text: &str| text.lines().next().map(str::to_owned);
        if options.contains(&"in.npz") || options.contains(&"r.toml") {
            assert_eq!(row(&done.stdout), row(&text));
        }
        assert!(!answer(&done.stdout, "Which op started it?")[0].contains("not looked for"), "{}", done.stdout);
    }
    let text = place.run(&["diff", "my model.onnx", "p.mlpackage", "--min-snr", "200"]).stdout;
    let line = "mlconv diff 'my model.onnx' p.mlpackage --min-snr 200 --bisect";
    assert!(answer(&text, "What do I change?")[0].starts_with(&format!("`{line}` finds")), "{text}");
    assert_eq!(typed(&place, answer(&text, "What do I change?")[0]).code, Some(1));
}

#[test]
fn a_report_is_never_written_over_another_file() {
    let place = digits();
    place.file("r.toml", b"[verify]\nseeds = 1\n");
    place.file("g", b"");
    place.arrays("labels.npz", &[("label", Tensor::from_vec(&[3], vec![0i32, 1, 2]))]);
    place.run(&["run", "p.mlpackage", "--inputs", "in.npz:0", "-o", "rec.npz"]);
    let verify = ["verify", "p.mlpackage", "--against", "my model.onnx"];
    let cases: [&[&str]; 9] = [
        &["--sample", "in.npz", "--html", "in.npz"],
        &["--sample", "in.npz", "--html", "./in.npz"],
        &["--sample", "in.npz", "--labels", "labels.npz:label", "--junit", "labels.npz"],
        &["--recipe", "r.toml", "--markdown", "r.toml"],
        &["--save-golden", "new.safetensors", "--junit", "new.safetensors"],
        &["--save-golden", "r.safetensors", "--markdown", "x", "--html", "x"],
        &["--html", "same", "--markdown", "./same"],
        &["--html", "my model.onnx"],
        &["--html", "in.npz/../my model.onnx"],
    ];
    let before: Vec<Vec<u8>> =
        ["in.npz", "r.toml", "labels.npz", "my model.onnx"].map(|n| fs::read(place.path(n)).expect("there")).to_vec();
    let names = place.names();
    for options in &cases[..8] {
        place.run(&[&verify[..], options].concat()).fails("L0001", "written over");
    }
    place.run(&["diff", "my model.onnx", "in.npz", "--html", "in.npz"]).fails("L0001", "written over");
    place
        .run(&["diff", "my model.onnx", "p.mlpackage", "--sample", "in.npz", "--junit", "in.npz"])
        .fails("L0001", "over");
    let after: Vec<Vec<u8>> =
        ["in.npz", "r.toml", "labels.npz", "my model.onnx"].map(|n| fs::read(place.path(n)).expect("there")).to_vec();
    assert!(before == after && names == place.names(), "{names:?} {:?}", place.names());
}

#[test]
fn reports_are_written_all_or_none() {
    let place = digits();
    let names = place.names();
    let line = ["verify", "p.mlpackage", "--against", "my model.onnx", "--html", "ok.html", "--markdown", "no/x.md"];
    place.run(&line).fails("X0001", "there is no folder `no`");
    place
        .run(&["verify", "p.mlpackage", "--against", "my model.onnx", "--save-golden", "no/g.safetensors"])
        .fails("X0001", "there is no folder `no`");
    assert_eq!(place.names(), names);
}

/// What a name may hold that a terminal would obey, or that would make a line of its own.
const EVIL: &str = "y\n  ok  \u{1b}[2J\r\u{202e}\u{61c}\u{9b}31m";

#[test]
fn no_name_writes_to_the_terminal_what_is_not_shown() {
    let place = Place::new();
    let long = "n".repeat(100_000);
    let model = Onnx::new()
        .input("x", DataType::Float, &[1, 8])
        .output(EVIL, DataType::Float, &[1, 8])
        .output(&long, DataType::Float, &[1, 8])
        .node("Relu", &["x"], &[EVIL])
        .node("Neg", &["x"], &[&long]);
    place.file("m.onnx", &model.bytes());
    let unknown = Onnx::new().input("x", DataType::Float, &[1, 8]).output("y", DataType::Float, &[1, 8]).node(
        &format!("No{EVIL}"),
        &["x"],
        &["y"],
    );
    place.file("bad.onnx", &unknown.bytes());
    let calm = |text: &str| {
        let odd = text.chars().find(|c| (c.is_control() && *c != '\n') || "\u{202e}\u{61c}".contains(*c));
        assert!(odd.is_none(), "{odd:?}: {text:?}");
        assert!(!text.lines().any(|line| line == "  ok  "), "a name makes no line: {text}");
    };
    let lines: [&[&str]; 7] = [
        &["convert", "m.onnx", "-o", "p.mlpackage"],
        &["inspect", "m.onnx"],
        &["inspect", "bad.onnx"],
        &["check", "bad.onnx"],
        &["convert", "bad.onnx", "-o", "q.mlpackage"],
        &["verify", "p.mlpackage", "--against", "m.onnx", "--min-snr", "300", "--html", "r.html"],
        &["diff", "m.onnx", "p.mlpackage", "--min-snr", "300", "--bisect"],
    ];
    for line in lines {
        let done = place.run(line);
        calm(&done.stdout);
        calm(&done.stderr);
        assert!(line[0] == "diff" || done.stdout.len() < 100_000, "{line:?}: {} bytes", done.stdout.len());
    }
    // What a program reads is the name itself.
    let done = place.run(&["verify", "p.mlpackage", "--against", "m.onnx", "--quick", "--format", "json"]);
    calm(&done.stdout);
    assert_eq!(done.json()["outputs"][0]["name"], EVIL);
}
