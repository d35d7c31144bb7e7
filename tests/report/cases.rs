//! Reports that renderings are held to.

use super::transformer;
use serde_json::{Value, json};
use std::path::Path;

/// What must never become markup, in any rendering.
pub(crate) const HOSTILE: &str = "</script><script>document.title='owned'</script><!-- \"'`|]]>\u{1}\u{202e}<img src=x onerror=alert(1)> @all #1 &amp; \\";

/// Every report by name. `fixtures` is the folder of those that are written by hand.
pub(crate) fn all(fixtures: impl AsRef<Path>) -> Vec<(&'static str, Value)> {
    let digits = std::fs::read_to_string(fixtures.as_ref().join("digits.json")).expect("the fixture is there");
    let digits: Value = serde_json::from_str(&digits).expect("the fixture is JSON");
    vec![
        ("hostile", hostile(&digits)),
        ("digits", digits),
        ("transformer", transformer::whole()),
        ("deep", transformer::report(500)),
        ("least", json!({"version": 1, "command": "verify", "pass": true})),
        ("nulls", nulls(&transformer::report(1))),
        ("diff", diff()),
    ]
}

/// The same with a hostile beginning of every text.
pub(crate) fn hostile(of: &Value) -> Value {
    match of {
        Value::String(s) => json!(format!("{HOSTILE}{s}")),
        Value::Array(all) => all.iter().map(hostile).collect(),
        Value::Object(all) => all.iter().map(|(k, v)| (k.clone(), hostile(v))).collect(),
        other => other.clone(),
    }
}

/// The same with null for all that is no list and no object.
pub(crate) fn nulls(of: &Value) -> Value {
    match of {
        Value::Array(all) => all.iter().map(nulls).collect(),
        Value::Object(all) => all.iter().map(|(k, v)| (k.clone(), nulls(v))).collect(),
        _ => Value::Null,
    }
}

/// A comparison of two models of two functions, without ops.
fn diff() -> Value {
    let output = |name: &str, pass: bool, drawn: bool| json!({"name": name, "function": name.split(':').next(), "ty": "f16[2, 3]", "count": 6, "max_abs": 0.5, "snr_db": 12.0, "pass": pass, "drawn": drawn, "mismatch": null});
    let run = |function: &str, judged: bool, pass: Value, error: Value| {
        json!({
            "function": function, "name": "seed 1", "inputs": "random inputs of seed 1", "shape": "x = 2x3", "arithmetic": "cpu",
            "judged": judged, "pass": pass, "error": error,
            "outputs": [{"name": "y", "pass": pass, "snr_db": 12.0, "max_abs": 0.5, "cosine": 0.97}]
        })
    };
    let file =
        |role: &str, path: &str| json!({"role": role, "path": path, "format": "mlpackage", "bytes": 1, "sha256": "00"});
    json!({
        "version": 1, "command": "diff", "pass": false, "files": [file("a", "old.mlpackage"), file("b", "new.mlpackage")],
        "tolerance": {"min_snr_db": 40.0, "max_rel": 0.01},
        "outputs": [output("encode: y", false, false), output("decode: y", true, false), output("decode: noise", true, true),
            {"name": "decode: z", "function": "decode", "ty": "f32[2]", "pass": false, "mismatch": "shape [2], wanted [3]"}],
        "runs": [run("encode", true, json!(false), Value::Null), run("decode", false, json!(true), Value::Null),
            run("decode", true, Value::Null, json!("`matmul` of 2x3 and 2x3"))],
        "bisection": {"state": "accumulates", "culprits": [], "recipe": null, "not_looked_at": 3}
    })
}
