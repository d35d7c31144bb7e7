//! The command of the README: a trained classifier is as often right after the conversion as before.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::Value;
use std::{path::Path, process::Command};

/// Runs `mlconv` in the repository; its report, after checking the exit status.
fn report(args: &[&str], status: i32) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run =
        Command::new(env!("CARGO_BIN_EXE_mlconv")).args(args).args(["--format", "json"]).current_dir(root).output();
    let run = run.expect("the binary runs");
    assert_eq!(run.status.code(), Some(status), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).expect("a report")
}

const LABELS: &str = "fixtures/models/digits/test.npz:label";
const SAMPLES: &str = "fixtures/models/digits/test.npz";

/// Converts, and returns how many of the 360 images the source and the package classify correctly.
fn correct(model: &str, precision: &str) -> (u64, u64) {
    let out = format!("{}/{}-{precision}.mlpackage", env!("CARGO_TARGET_TMPDIR"), model.replace('/', "-"));
    let model = format!("fixtures/models/{model}");
    let args = ["convert", &model, "-o", &out, "--precision", precision, "--force"];
    // TorchScript does not say the shapes of inputs.
    let shape: &[&str] = match model.strip_suffix(".pt") {
        None => &[],
        Some(name) if name.contains("cnn") => &["--input", "1x1x8x8"],
        Some(_) => &["--input", "1x8x8"],
    };
    let converted = report(&[&args[..], shape, &["--sample", SAMPLES, "--labels", LABELS]].concat(), 0);
    let parity = &converted["parity"];
    assert_eq!((&parity["samples"], &parity["pass"]), (&360.into(), &true.into()), "{parity:#}");
    let verified = report(&["verify", &out, "--against", &model, "--sample", SAMPLES, "--labels", LABELS], 0);
    let accuracy = &parity["accuracy"][0];
    assert_eq!(&verified["accuracy"][0], accuracy, "verifying again says the same");
    let count = |key: &str| accuracy[key].as_u64().unwrap_or_else(|| panic!("{key}: {accuracy:#}"));
    (count("source_correct"), count("package_correct"))
}

#[test]
fn the_convolutional_network_stays_as_good() {
    assert_eq!(correct("digits_cnn/model.onnx", "fp16"), (353, 353));
    assert_eq!(correct("digits_cnn/model.onnx", "fp32"), (353, 353));
    assert_eq!(correct("digits_cnn/model_batch.onnx", "fp16"), (353, 353));
    assert_eq!(correct("digits_cnn/model.pt2", "fp16"), (353, 353));
    assert_eq!(correct("digits_cnn/model.pt", "fp16"), (353, 353));
}

#[test]
fn the_recurrent_network_stays_as_good() {
    assert_eq!(correct("digits_gru/model.onnx", "fp16"), (350, 350));
    assert_eq!(correct("digits_gru/model.onnx", "fp32"), (350, 350));
    assert_eq!(correct("digits_gru/model.pt2", "fp16"), (350, 350));
    assert_eq!(correct("digits_gru/model.pt", "fp16"), (350, 350));
}

#[test]
fn the_transformer_stays_as_good() {
    assert_eq!(correct("digits_transformer/model.onnx", "fp16"), (352, 352));
    assert_eq!(correct("digits_transformer/model.onnx", "fp32"), (352, 352));
    assert_eq!(correct("digits_transformer/model.pt2", "fp16"), (352, 352));
    assert_eq!(correct("digits_transformer/model.pt", "fp16"), (352, 352));
}

#[test]
fn labels_that_make_no_sense_are_refused() {
    let model = "fixtures/models/digits_cnn/model.onnx";
    let out = format!("{}/labels.mlpackage", env!("CARGO_TARGET_TMPDIR"));
    let samples = "image=fixtures/models/digits_cnn/none.npy";
    let missing = report(&["convert", model, "-o", &out, "--force", "--sample", samples, "--labels", LABELS], 2);
    assert_eq!(missing["errors"][0]["code"], "R0001");
    let unnamed = report(&["convert", model, "-o", &out, "--force", "--sample", SAMPLES, "--labels", SAMPLES], 2);
    assert_eq!(unnamed["errors"][0]["code"], "L0001");
    let rows = "fixtures/models/digits/test.npz:rows";
    let floats = report(&["convert", model, "-o", &out, "--force", "--sample", SAMPLES, "--labels", rows], 2);
    assert_eq!(floats["errors"][0]["title"], "labels are f32[360, 8, 8], wanted a vector of integers");
}
