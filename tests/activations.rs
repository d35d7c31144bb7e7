//! Activations in 8 bits: trained classifiers stay as good, and what cannot be done is said.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use mlconv::arrays::{Arrays, read_npz, write_npz};
use mlconv_tensor::Tensor;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

const LABELS: &str = "fixtures/models/digits/test.npz:label";
const SAMPLES: &str = "fixtures/models/digits/test.npz";
const CNN: &str = "fixtures/models/digits_cnn/model.onnx";
const TRANSFORMER: &str = "fixtures/models/digits_transformer/model.onnx";

/// Runs `mlconv` in the repository; its report, after checking the exit status.
fn report(args: &[&str], status: i32) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run =
        Command::new(env!("CARGO_BIN_EXE_mlconv")).args(args).args(["--format", "json"]).current_dir(root).output();
    let run = run.expect("the binary runs");
    assert_eq!(run.status.code(), Some(status), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).expect("a report")
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// Converts with ranges from all images; the report.
fn converted(model: &str, out: &str, options: &[&str]) -> Value {
    let args = ["convert", model, "-o", out, "--force", "--sample", SAMPLES, "--labels", LABELS];
    report(&[&args[..], options].concat(), 0)
}

/// Images that the source and the package classify correctly.
fn correct(report: &Value) -> (u64, u64) {
    let accuracy = &report["parity"]["accuracy"][0];
    let count = |key: &str| accuracy[key].as_u64().unwrap_or_else(|| panic!("{key}: {accuracy:#}"));
    (count("source_correct"), count("package_correct"))
}

/// Half a point of 360 images is one image.
fn stays_as_good(model: &str, options: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let report = converted(model, &path(&folder, "out.mlpackage"), options);
    let (source, package) = correct(&report);
    assert!(source.abs_diff(package) <= 1, "{model} {options:?}: {source} became {package}");
    report
}

#[test]
fn classifiers_stay_as_good_with_every_method() {
    for model in [CNN, TRANSFORMER] {
        for method in ["min-max", "percentile", "mse", "entropy"] {
            let report = stays_as_good(model, &["--preset", "w8a8", "--activation-range", method]);
            let weights = report["compression"]["weights"].as_array().expect("a list");
            assert!(weights.iter().filter(|w| w["scheme"] == "int8").count() >= 5, "{report:#}");
            let activations = report["compression"]["activations"].as_array().expect("a list");
            assert!(activations.len() > 5 && report["compression"]["activation_samples"] == 360, "{report:#}");
            for a in activations {
                assert!(a["skipped"].is_null() && a["scale"].as_f64().is_some_and(|s| s > 0.0), "{a:#}");
                assert!(a["snr_db"].as_f64().is_none_or(|snr| snr > 15.0), "{a:#}");
                assert_eq!(a["form"], "int8");
            }
        }
    }
}

#[test]
fn classifiers_stay_as_good_with_every_form() {
    for (model, form) in [(CNN, "uint8"), (CNN, "int8-asym"), (TRANSFORMER, "uint8")] {
        stays_as_good(model, &["--preset", "w8a8", "--activations", form]);
    }
    stays_as_good(CNN, &["--preset", "w8a8", "--target", "ios18", "--precision", "fp32"]);
    stays_as_good("fixtures/models/digits_cnn/model_batch.onnx", &["--preset", "w8a8"]);
}

#[test]
fn packages_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, inputs) = (path(&folder, "out.mlpackage"), path(&folder, "in.npz"));
    converted(CNN, &out, &["--preset", "w8a8"]);
    let images = read_npz(Path::new(env!("CARGO_MANIFEST_DIR")).join(SAMPLES).as_path()).expect("samples");
    let first = images["image"].rows(0..1).expect("a row");
    write(&inputs, "image", first);
    let run = report(&["run", &out, "--inputs", &inputs], 0);
    assert_eq!((&run["outputs"][0]["name"], &run["outputs"][0]["not_finite"]), (&"logits".into(), &0.into()));
    let shown = report(&["inspect", &out], 0);
    let ops = shown["functions"][0]["ops"].as_array().expect("a list");
    let count = |name: &str| ops.iter().find(|o| o["op"] == name).map_or(0, |o| o["count"].as_u64().unwrap_or(0));
    assert!(count("quantize") > 3, "{ops:#?}");
    assert_eq!(count("quantize"), count("dequantize"));
    // Compressing again doubles nothing.
    let again = path(&folder, "again.mlpackage");
    let report = report(&["compress", &out, "-o", &again, "--activations", "int8", "--sample", SAMPLES], 1);
    assert_eq!(report["compression"]["activations"].as_array().map(Vec::len), Some(0), "{report:#}");
    let said = said(&["compress", &out, "--dry-run", "--activations", "int8", "--sample", SAMPLES]);
    assert!(said.contains("activations were in 8 bits before, and no other can be"), "{said}");
    assert!(said.contains("are held in 8 bits already"), "{said}");
    // Nor does anything come of keeping all ops from it.
    let said = said_of(CNN, &["--activations", "int8", "--keep-activations", "*"]);
    assert!(said.contains("no activation can be held in 8 bits"), "{said}");
}

fn said_of(model: &str, options: &[&str]) -> String {
    said(&[&["compress", model, "--dry-run", "--sample", SAMPLES], options].concat())
}

/// All that a command says.
fn said(args: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = Command::new(env!("CARGO_BIN_EXE_mlconv")).args(args).current_dir(root).output().expect("it runs");
    [run.stdout, run.stderr].iter().map(|text| String::from_utf8_lossy(text)).collect()
}

fn write(path: &str, name: &str, t: Tensor) {
    let arrays: Arrays = [(name.to_owned(), t)].into_iter().collect();
    write_npz(&PathBuf::from(path), &arrays).expect("room");
}

#[test]
fn a_dry_run_shows_ranges_and_writes_nothing() {
    let report = report(&["compress", CNN, "--dry-run", "--preset", "w8a8", "--sample", SAMPLES], 0);
    let first = &report["compression"]["activations"][0];
    assert!(first["lo"] == 0.0 && first["hi"] == 1.0, "pixels are 0 to 1: {first:#}");
    assert_eq!((&first["saturated"], &first["zero_point"]), (&0.0.into(), &0.into()));
}

#[test]
fn ops_can_be_left_alone() {
    let args = ["compress", CNN, "--dry-run", "--activations", "int8", "--sample", SAMPLES, "--keep-activations"];
    let with =
        |keep: &str, status| report(&[&args[..], &[keep]].concat(), status)["compression"]["activations"].clone();
    let (some, all) = (with("linear", 0), with("none-is-called-so", 1));
    let count = |v: &Value| v.as_array().map_or(0, Vec::len);
    assert!(count(&some) < count(&all), "{some:#} {all:#}");
    let reads = |v: &Value| v.to_string().contains("\"linear\"");
    assert!(reads(&all) && !reads(&some), "{some:#}");
}

#[test]
fn samples_that_do_not_do_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, inputs) = (path(&folder, "out.mlpackage"), path(&folder, "in.npz"));
    let failure = |options: &[&str]| {
        let args = ["convert", CNN, "-o", &out, "--preset", "w8a8"];
        let report = report(&[&args[..], options].concat(), 2);
        assert!(!Path::new(&out).exists());
        (report["errors"][0]["code"].clone(), report["errors"].to_string())
    };
    let (code, text) = failure(&[]);
    assert!(code == "C0002" && text.contains("--calibrate"), "{text}");
    write(&inputs, "image", Tensor::from_vec(&[3, 1, 4, 4], vec![0f32; 48]));
    let (code, text) = failure(&["--sample", &inputs]);
    assert!(code == "N0003" && text.contains("wanted f32[1, 1, 8, 8]"), "{text}");
    let mut images = vec![0.5f32; 3 * 64];
    images[70] = f32::NAN;
    write(&inputs, "image", Tensor::from_vec(&[3, 1, 8, 8], images));
    let (code, text) = failure(&["--sample", &inputs]);
    assert!(code == "C0002" && text.contains("not finite, on sample 1"), "{text}");
    let (code, _) = failure(&["--sample", SAMPLES, "--activation-range", "percentile=7"]);
    assert_eq!(code, "L0001");
    let (code, _) = failure(&["--sample", SAMPLES, "--activations", "none", "--activation-range", "mse"]);
    assert_eq!(code, "L0001");
    let (code, text) = failure(&["--sample", SAMPLES, "--target", "ios16"]);
    assert!(code == "X0003" && text.contains("--target ios17"), "{text}");
}

#[test]
fn few_samples_are_mentioned() {
    let folder = tempfile::tempdir().expect("a folder");
    let inputs = path(&folder, "in.npz");
    write(&inputs, "image", Tensor::from_vec(&[3, 1, 8, 8], vec![0.5f32; 3 * 64]));
    let report = report(&["compress", CNN, "--dry-run", "--preset", "w8a8", "--sample", &inputs], 0);
    let warnings = report["warnings"].as_array().expect("a list");
    assert!(warnings.iter().any(|w| w["code"] == "C0104"), "{warnings:#?}");
}
