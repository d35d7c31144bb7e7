//! Bundles: what they hold, and what is read of results, which are made up here as a Mac would write them.

mod support;

use mlconv::{
    arrays::{npy_bytes, read_npy},
    bundle,
};
use mlconv_proto::onnx::tensor_proto::DataType;
use mlconv_tensor::Tensor;
use serde_json::{Value, json};
use std::{fs, path::Path};
use support::{fixtures, onnx::Onnx, place::Place};

/// A place with a package of the digits' CNN and samples of it.
fn digits() -> Place {
    let place = Place::new();
    let model = fixtures().join("models/digits_cnn/model.onnx");
    fs::copy(model, place.path("m.onnx")).expect("room");
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--no-verify"]).ok();
    let images: Vec<f32> = (0..3 * 64).map(|i| (i % 17) as f32).collect();
    place.arrays("in.npz", &[("image", Tensor::from_vec(&[3, 1, 8, 8], images))]);
    place
}

fn run_report(folder: &Path, units: &str) -> Value {
    let path = folder.join("results").join(units).join("run.json");
    serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON")
}

fn described(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("bundle.json")).expect("there")).expect("JSON")
}

/// Writes results as `run.swift` does, of what is expected, changed by `change` by package.
fn answer(folder: &Path, units: &str, change: impl Fn(usize, Tensor) -> Option<Tensor>) {
    let bundle = described(folder);
    let results = folder.join("results").join(units);
    let mut calls = vec![];
    for (s, sample) in bundle["samples"].as_array().expect("a list").iter().enumerate() {
        for (m, expected) in sample["expected"].as_array().expect("a list").iter().enumerate() {
            let place = results.join(m.to_string()).join(s.to_string());
            fs::create_dir_all(&place).expect("room");
            for (o, array) in expected.as_array().expect("a list").iter().enumerate().filter(|(_, a)| !a.is_null()) {
                let t = read_npy(&folder.join(array["file"].as_str().expect("a path"))).expect("an array");
                let file = bundle["models"][m]["outputs"][o]["file"].as_str().expect("a name");
                if let Some(t) = change(m, t) {
                    fs::write(place.join(file), npy_bytes(&t).expect("memory")).expect("room");
                }
            }
            calls.push(json!({"model": m, "sample": s, "milliseconds": 0.5}));
        }
    }
    let models = bundle["models"].as_array().expect("a list");
    let packages: Vec<&Value> = models.iter().map(|m| &m["sha256"]).collect();
    fs::create_dir_all(&results).expect("room");
    let report = json!({"units": units, "packages": packages, "device": "Mac14,2", "processor": "Apple M2", "system": "15.1", "calls": calls});
    fs::write(results.join("run.json"), report.to_string()).expect("room");
}

#[test]
fn a_bundle_holds_what_is_run_and_what_is_expected() {
    let place = digits();
    let done =
        place.run(&["bundle", "p.mlpackage", "-o", "b", "--against", "m.onnx", "--sample", "in.npz", "--per-op"]);
    assert!(done.ok().stderr.contains("3 samples, with what the source"));
    let folder = place.path("b");
    let bundle = described(&folder);
    assert_eq!(bundle["samples"].as_array().map(Vec::len), Some(3));
    assert_eq!(place.package("b/model.mlpackage"), place.package("p.mlpackage"));
    assert!(fs::read_to_string(folder.join("run.swift")).expect("there").contains("import CoreML"));
    let probe = &bundle["models"][1];
    let ops: Vec<&str> = probe["outputs"].as_array().expect("a list").iter().filter_map(|o| o["op"].as_str()).collect();
    assert_eq!(ops.iter().filter(|op| **op == "conv").count(), 4, "{ops:?}");
    // What is expected is what `run` gives, and the debug package is one that `run` takes.
    let given =
        place.run(&["run", "b/debug/0.mlpackage", "--inputs", "b/samples/0/inputs/0.npy", "--format", "json"]).ok();
    assert_eq!(given.json()["outputs"].as_array().map(Vec::len), Some(ops.len()));
    // The same again is the same bundle, if it may be replaced.
    let again = ["bundle", "p.mlpackage", "-o", "b", "--against", "m.onnx", "--sample", "in.npz", "--per-op"];
    place.run(&again).fails("X0002", "the folder exists");
    place.run(&[&again[..], &["--force"]].concat()).ok();
    assert_eq!(described(&folder), bundle);
    assert_eq!(place.names(), ["b", "in.npz", "m.onnx", "p.mlpackage"]);
}

#[test]
fn results_are_held_against_what_is_expected() {
    let place = digits();
    place.run(&["bundle", "p.mlpackage", "-o", "b", "--sample", "in.npz", "--per-op"]).ok();
    let folder = place.path("b");
    answer(&folder, "all", |_, t| Some(t));
    // Values of ops may differ, as devices round otherwise; outputs may not.
    answer(&folder, "cpuAndGPU", |m, t| Some(if m == 0 { t } else { Tensor::splat(t.dtype(), t.shape(), 1e3) }));
    answer(&folder, "cpuOnly", |m, t| (m > 0).then_some(t));
    let read = bundle::read(&folder, None).expect("a bundle");
    let units: Vec<(&str, bool)> = read.runs.iter().map(|r| (r.units.as_str(), r.pass())).collect();
    assert_eq!(units, [("all", true), ("cpuAndGPU", true), ("cpuOnly", false)]);
    assert_eq!(read.runs[0].device, "Mac14,2, Apple M2, 15.1");
    let logits = &read.runs[2].outputs[0].diff;
    assert_eq!((logits.name.as_str(), logits.mismatch.as_deref()), ("logits", Some("the output was not written")));
    assert!(read.runs[1].outputs.iter().any(|o| o.op.as_deref() == Some("conv") && !o.diff.pass));
    // A call that failed is no output that differs.
    let mut report = run_report(&folder, "cpuOnly");
    report["calls"] = json!([{"model": 0, "sample": 1, "error": "no memory"}]);
    fs::write(folder.join("results/cpuOnly/run.json"), report.to_string()).expect("room");
    let read = bundle::read(&folder, None).expect("a bundle");
    assert_eq!(read.runs[2].errors, ["`model.mlpackage`, sample 1: no memory"]);
    assert!(read.runs[2].outputs.is_empty() && !read.runs[2].pass());
}

#[test]
fn what_is_no_bundle_is_refused() {
    let place = digits();
    let folder = place.path("b");
    let code = |folder: &Path| bundle::read(folder, None).expect_err("refused").first().map(|d| d.code.id);
    place.run(&["bundle", "m.onnx", "-o", "b"]).fails("L0001", "made of an .mlpackage");
    place.run(&["bundle", "nope.mlpackage", "-o", "b"]).fails("R0001", "there is no such file");
    place.run(&["bundle", "p.mlpackage", "-o", "no/b"]).fails("X0001", "there is no folder");
    place.run(&["bundle", "p.mlpackage", "-o", "p.mlpackage/b"]).fails("X0002", "p.mlpackage");
    place.run(&["bundle", "p.mlpackage", "-o", "p.mlpackage", "--force"]).fails("X0002", "no bundle");
    assert_eq!(code(&folder), Some("R0001"));
    place.run(&["bundle", "p.mlpackage", "-o", "b"]).ok();
    let why = bundle::read(&folder, None).expect_err("no results");
    assert!(why[0].help.as_deref().is_some_and(|h| h.contains("swift run.swift")), "{why:?}");
    answer(&folder, "all", |_, t| Some(t));
    let good = described(&folder);
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut bundle = good.clone();
        change(&mut bundle);
        fs::write(folder.join("bundle.json"), bundle.to_string()).expect("room");
        code(&folder)
    };
    assert_eq!(broken(&|b| b["version"] = 2.into()), Some("R0003"));
    assert_eq!(broken(&|b| b["models"] = 3.into()), Some("R0003"));
    assert_eq!(broken(&|b| b["samples"][0]["expected"] = json!([])), Some("R0003"));
    for outside in ["../secret.npy", "/etc/passwd", ""] {
        assert_eq!(broken(&|b| b["samples"][0]["expected"][0][0]["file"] = outside.into()), Some("R0004"));
        assert_eq!(broken(&|b| b["models"][0]["outputs"][0]["file"] = outside.into()), Some("R0004"));
    }
    fs::write(folder.join("samples/0/expected/0/0.npy"), b"nonsense").expect("room");
    assert_eq!(broken(&|_| {}), Some("R0003"), "it is not the array that was expected");
}

#[test]
fn results_are_of_the_bundle_that_they_are_in() {
    let place = digits();
    place.run(&["bundle", "p.mlpackage", "-o", "b", "--sample", "in.npz"]).ok();
    let folder = place.path("b");
    answer(&folder, "all", |_, t| Some(t));
    answer(&folder, "cpuOnly", |_, t| Some(t));
    let errors = |units: &str| {
        let read = bundle::read(&folder, None).expect("a bundle");
        let run = read.runs.into_iter().find(|r| r.units == units).expect("it is told of");
        assert_eq!(run.pass(), run.errors.is_empty());
        run.errors.concat()
    };
    assert_eq!(errors("all"), "");
    let path = folder.join("results/all/run.json");
    let good = run_report(&folder, "all");
    for packages in [json!([]), json!(["00"]), Value::Null] {
        let mut other = good.clone();
        other["packages"] = packages;
        if other["packages"].is_null() {
            other.as_object_mut().expect("an object").remove("packages");
        }
        fs::write(&path, other.to_string()).expect("room");
        assert!(errors("all").contains("other packages"), "{other}");
    }
    // A run that came to no end is told of as one.
    fs::remove_file(&path).expect("there");
    assert!(errors("all").contains("no `run.json`") && errors("cpuOnly").is_empty());
    // Inputs are those that expected outputs are of.
    let input = folder.join("samples/0/inputs/0.npy");
    let t = read_npy(&input).expect("an array");
    fs::write(&input, npy_bytes(&Tensor::splat(t.dtype(), t.shape(), 1.0)).expect("memory")).expect("room");
    let why = bundle::read(&folder, None).expect_err("another input");
    assert!(why[0].title.contains("samples/0/inputs/0.npy"), "{why:?}");
}

#[test]
fn outputs_are_paired_by_their_own_names_first() {
    let place = Place::new();
    let model = Onnx::new()
        .input("x", DataType::Float, &[1, 4])
        .output("a.b", DataType::Float, &[1, 4])
        .output("a_b", DataType::Float, &[1, 4])
        .node("Relu", &["x"], &["a.b"])
        .node("Exp", &["x"], &["a_b"]);
    place.file("m.onnx", &model.bytes());
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--precision", "fp32"]).ok();
    place.run(&["bundle", "p.mlpackage", "-o", "own"]).ok();
    place.run(&["bundle", "p.mlpackage", "-o", "b", "--against", "m.onnx"]).ok();
    for output in 0..2 {
        let expected = |folder: &str| {
            let t = read_npy(&place.path(folder).join(format!("samples/0/expected/0/{output}.npy")));
            t.expect("an array").to_f64()
        };
        let apart = expected("own").iter().zip(expected("b")).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-4, "{output}: {apart}");
    }
}

#[test]
fn probabilities_of_classes_are_compared() {
    let place = digits();
    let labels: Vec<String> = (0..10).map(|i| format!("digit {i}")).collect();
    place.file("labels.txt", labels.join("\n").as_bytes());
    place.run(&["convert", "m.onnx", "-o", "c.mlpackage", "--class-labels", "labels.txt", "--no-verify"]).ok();
    place.run(&["bundle", "c.mlpackage", "-o", "b", "--against", "m.onnx", "--sample", "in.npz"]).ok();
    let folder = place.path("b");
    let outputs = described(&folder)["models"][0]["outputs"].clone();
    let told: Vec<(bool, usize)> = outputs
        .as_array()
        .expect("a list")
        .iter()
        .map(|o| (o["array"] == true, o["classes"].as_array().map_or(0, Vec::len)))
        .collect();
    assert_eq!(told, [(false, 0), (true, 10)], "{outputs}");
    answer(&folder, "all", |_, t| Some(t));
    answer(&folder, "cpuOnly", |_, t| Some(Tensor::splat(t.dtype(), t.shape(), 0.1)));
    let read = bundle::read(&folder, None).expect("a bundle");
    let units: Vec<(bool, usize)> = read.runs.iter().map(|r| (r.pass(), r.outputs.len())).collect();
    assert_eq!(units, [(true, 1), (false, 1)]);
}

#[test]
fn where_nothing_is_compared_nothing_passes() {
    let place = digits();
    place.run(&["bundle", "p.mlpackage", "-o", "b", "--sample", "in.npz"]).ok();
    let folder = place.path("b");
    // As of a package whose only output is an image.
    let mut bundle = described(&folder);
    bundle["models"][0]["outputs"][0]["array"] = false.into();
    for sample in bundle["samples"].as_array_mut().expect("a list") {
        sample["expected"][0][0] = Value::Null;
    }
    fs::write(folder.join("bundle.json"), bundle.to_string()).expect("room");
    answer(&folder, "all", |_, t| Some(t));
    let read = bundle::read(&folder, None).expect("a bundle");
    assert!(!read.runs[0].pass() && read.runs[0].errors[0].contains("nothing is compared"), "{:?}", read.runs[0]);
}
