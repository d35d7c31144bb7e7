//! The GitHub action: its steps, as they stand in `action.yml`, run on this machine.

#![cfg(unix)]

mod support;

use serde_json::Value;
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};
use support::{fixtures, place::Place};

/// How the steps of the action ended, one after the other until one fails.
struct Ended {
    code: i32,
    summary: String,
    outputs: String,
}

/// Runs the steps with these inputs as a runner does: expressions are filled in, `GITHUB_ENV` holds for the steps behind.
fn action(place: &Place, inputs: &[(&str, &str)]) -> Ended {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("action.yml")).expect("there");
    let action: Value = serde_saphyr::from_str(&text).expect("YAML");
    let mut context: BTreeMap<String, String> = BTreeMap::new();
    for (name, input) in action["inputs"].as_object().expect("inputs") {
        let given = inputs.iter().find(|(n, _)| n == name).map(|(_, v)| (*v).to_owned());
        assert!(given.is_some() || input["required"] != true, "`{name}` is not given");
        context.insert(
            format!("inputs.{name}"),
            given.unwrap_or_else(|| input["default"].as_str().unwrap_or_default().to_owned()),
        );
    }
    context.insert("github.action_path".to_owned(), root.display().to_string());
    let filled = |text: &str| {
        let mut text = text.to_owned();
        for (name, value) in &context {
            text = text.replace(&format!("${{{{ {name} }}}}"), value);
        }
        assert!(!text.contains("${{"), "an expression is not known: {text}");
        text
    };
    let files = ["GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"].map(|name| (name, place.file(name, b"")));
    let mut code = 0;
    for step in action["runs"]["steps"].as_array().expect("steps") {
        assert_eq!(step["shell"], "bash");
        let script = step["run"].as_str().expect("a script");
        // What a user gives must not be spelled into a script.
        assert!(!script.contains("${{"), "{script}");
        let mut command: Command = place.command("bash", &["--noprofile", "--norc", "-eo", "pipefail", "-c", script]);
        command.envs(files.iter().map(|(name, path)| (*name, path)));
        for line in fs::read_to_string(&files[0].1).expect("there").lines() {
            let (name, value) = line.split_once('=').expect("NAME=VALUE");
            command.env(name, value);
        }
        for (name, value) in step["env"].as_object().expect("variables") {
            command.env(name, filled(value.as_str().expect("text")));
        }
        let out = command.output().expect("bash");
        code = out.status.code().expect("no signal");
        if code != 0 {
            break;
        }
    }
    let text = |i: usize| fs::read_to_string(&files[i].1).expect("there");
    Ended { code, summary: text(2), outputs: text(1) }
}

fn digits() -> Place {
    let place = Place::new();
    let models = fixtures().join("models");
    fs::copy(models.join("digits_cnn/model.onnx"), place.path("m.onnx")).expect("room");
    fs::copy(models.join("digits_gru/model.onnx"), place.path("other.onnx")).expect("room");
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--no-verify"]).ok();
    place
}

const MLCONV: (&str, &str) = ("mlconv", env!("CARGO_BIN_EXE_mlconv"));

#[test]
fn a_package_that_agrees_passes() {
    let place = digits();
    let done = action(&place, &[MLCONV, ("package", "p.mlpackage"), ("against", "m.onnx")]);
    assert_eq!((done.code, done.outputs.as_str()), (0, "status=0\nreports=mlconv-reports\n"));
    assert!(done.summary.contains("p.mlpackage") && done.summary.contains("logits"), "{}", done.summary);
    let report = fs::read_to_string(place.path("mlconv-reports/report.txt")).expect("there");
    assert!(report.contains("logits"), "{report}");
    for name in ["report.html", "report.xml"] {
        assert!(place.path("mlconv-reports").join(name).is_file(), "{name}");
    }
}

#[test]
fn what_differs_and_what_cannot_be_done_fail_the_job() {
    let place = digits();
    let given = [MLCONV, ("package", "p.mlpackage"), ("against", "m.onnx"), ("reports", "my reports")];
    let strict = action(&place, &[&given[..], &[("options", "--min-snr=200\n\n--seed=3\n")]].concat());
    assert_eq!((strict.code, strict.outputs.as_str()), (1, "status=1\nreports=my reports\n"));
    assert!(strict.summary.contains("Beyond tolerance: p.mlpackage"), "{}", strict.summary);
    let talk = fs::read_to_string(place.path("my reports").join("talk.txt")).expect("there");
    assert!(talk.contains("N0001"), "{talk}");
    let typo = action(&place, &[&given[..], &[("options", "--min-snrr=3")]].concat());
    assert!(typo.code == 2 && typo.summary.contains("L0001"), "{}", typo.summary);
    // What an earlier run has left there says nothing about this one.
    assert!(!place.path("my reports").join("report.html").exists());
    // What is given is an argument, and no script.
    let hostile = action(&place, &[MLCONV, ("package", "$(touch gone)"), ("against", "`touch gone`; touch gone")]);
    assert_eq!(hostile.code, 2);
    assert!(!place.path("gone").exists());
    // Neither is what a service shows: whatever it says, it stays code.
    let cr = place.file("say.sh", b"#!/bin/sh\nprintf 'bad\\r\\r# injected\\r\\r@all\\033[31m\\n' >&2\nexit 2\n");
    fs::set_permissions(&cr, fs::Permissions::from_mode(0o755)).expect("ours");
    let script = cr.display().to_string();
    let said = action(&place, &[&given[1..], &[("mlconv", script.as_str())]].concat());
    assert_eq!(said.code, 2);
    assert!(said.summary.contains("    bad  # injected  @all"), "{}", said.summary);
    assert!(!said.summary.chars().any(|c| c.is_control() && c != '\n'), "{:?}", said.summary);
    // What is no verdict is none: a program that is missing, and a folder that cannot be made.
    let gone = action(&place, &[&given[1..], &[("mlconv", "./no-such-program")]].concat());
    assert_eq!((gone.code, gone.outputs.as_str()), (2, "status=2\nreports=my reports\n"));
    let in_file = action(&place, &[&given[..3], &[("reports", "m.onnx/reports")]].concat());
    assert_eq!(in_file.code, 2);
    let missing = action(&place, &[MLCONV, ("package", ""), ("against", "m.onnx")]);
    assert_eq!(missing.code, 2);
}
