//! The dependency arrows between the crates: a crate depends on those below it in this list, and on no others.

use serde_json::Value;
use std::{env, path::Path, process::Command};

/// Each crate, what it may depend on, and what its tests may depend on as well.
const ARROWS: &[(&str, &[&str], &[&str])] = &[
    ("mlconv-tensor", &[], &[]),
    ("mlconv-arrays", &["mlconv-tensor"], &[]),
    ("mlconv-derive", &[], &[]),
    ("mlconv-mil", &["mlconv-tensor", "mlconv-derive"], &[]),
    ("mlconv-proto", &[], &[]),
    ("mlconv-source", &["mlconv-mil", "mlconv-tensor"], &[]),
    ("mlconv-onnx", &["mlconv-source", "mlconv-mil", "mlconv-proto", "mlconv-tensor"], &[]),
    ("mlconv-pytorch", &["mlconv-source", "mlconv-mil", "mlconv-tensor"], &[]),
    ("mlconv-coreml", &["mlconv-mil", "mlconv-proto", "mlconv-tensor"], &[]),
    ("mlconv-passes", &["mlconv-mil", "mlconv-tensor"], &[]),
    ("mlconv-runner", &["mlconv-mil", "mlconv-tensor"], &[]),
    // Whether a package means what its source means is a question to the runner.
    ("mlconv", EVERYTHING, EVERYTHING),
];

const EVERYTHING: &[&str] = &[
    "mlconv-tensor",
    "mlconv-arrays",
    "mlconv-derive",
    "mlconv-mil",
    "mlconv-proto",
    "mlconv-source",
    "mlconv-onnx",
    "mlconv-pytorch",
    "mlconv-coreml",
    "mlconv-passes",
    "mlconv-runner",
];

/// What cargo knows of the crates of this workspace.
fn packages() -> Vec<Value> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn text(v: &Value) -> &str {
    v.as_str().expect("a string")
}

#[test]
fn crates_depend_on_those_below_them_only() {
    let packages = packages();
    let names: Vec<&str> = packages.iter().map(|p| text(&p["name"])).collect();
    let mut wrong = vec![];
    for package in &packages {
        let name = text(&package["name"]);
        let Some((_, normal, dev)) = ARROWS.iter().find(|(n, ..)| *n == name) else {
            wrong.push(format!("`{name}` is not in the list of arrows"));
            continue;
        };
        for edge in package["dependencies"].as_array().expect("dependencies") {
            let to = text(&edge["name"]);
            if !names.contains(&to) {
                continue;
            }
            let is_dev = edge["kind"] == "dev";
            if !(normal.contains(&to) || (is_dev && dev.contains(&to))) {
                wrong.push(format!("`{name}` must not depend on `{to}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_list_names_crates_that_are_there() {
    let packages = packages();
    let listed = ARROWS.iter().flat_map(|(n, a, b)| [&[*n], *a, *b].concat());
    for name in listed {
        assert!(packages.iter().any(|p| text(&p["name"]) == name), "there is no crate `{name}`");
    }
}
