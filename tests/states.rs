//! Models that remember, call by call: states, and inputs and outputs in their place; and sizes that are open.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use mlconv::arrays::{Arrays, read_npz, write_npz};
use mlconv_tensor::Tensor;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const FOLDER: &str = "fixtures/models/remembering";

/// Runs `mlconv` in the repository; what it says, after checking the exit status.
fn mlconv(args: &[&str], status: i32) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = Command::new(env!("CARGO_BIN_EXE_mlconv")).args(args).current_dir(root).output().expect("it runs");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(status), "{args:?}: {said}");
    said
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Converts a model for iOS 18 in single precision; the package.
fn package(model: &str, name: &str, options: &[&str]) -> String {
    let out = scratch(&format!("{name}.mlpackage")).display().to_string();
    let model = format!("{FOLDER}/{model}");
    let args = ["convert", &model, "-o", &out, "--target", "ios18", "--precision", "fp32", "--force"];
    mlconv(&[&args[..], options].concat(), 0);
    out
}

/// Calls of a package, each with what the one before left.
struct Calls {
    package: String,
    /// Names of outputs, and of the inputs that they are in the next call.
    pairs: Vec<(String, String)>,
    held: Arrays,
    count: usize,
}

impl Calls {
    fn new(package: String) -> Self {
        Self { package, pairs: vec![], held: Arrays::new(), count: 0 }
    }

    /// Outputs that are inputs of the next call, which are `first` in the first one.
    fn handing_on(mut self, pairs: &[(&str, &str)], first: &[(&str, Tensor)]) -> Self {
        self.pairs = pairs.iter().map(|(o, i)| ((*o).to_owned(), (*i).to_owned())).collect();
        self.held = first.iter().map(|(name, t)| ((*name).to_owned(), t.clone())).collect();
        self
    }

    fn call(&mut self, inputs: &[(&str, Tensor)]) -> Arrays {
        let stem = self.package.trim_end_matches(".mlpackage").to_owned();
        let file = |what: &str| format!("{stem}.{what}.npz");
        let mut all: Arrays = inputs.iter().map(|(name, t)| ((*name).to_owned(), t.clone())).collect();
        all.extend(self.held.clone());
        write_npz(Path::new(&file("in")), &all).expect("written");
        let (given, out, state) = (file("in"), file("out"), file("state"));
        let mut args = vec!["run", &self.package, "--inputs", &given, "--outputs", &out, "--state-out", &state];
        if self.count > 0 {
            args.extend(["--state-in", &state]);
        }
        mlconv(&args, 0);
        self.count += 1;
        let got = read_npz(Path::new(&out)).expect("outputs");
        self.held = self.pairs.iter().map(|(o, i)| (i.clone(), got[o].clone())).collect();
        got
    }
}

fn expected() -> Arrays {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    read_npz(&root.join(FOLDER).join("expected.npz")).expect("expectations")
}

/// Rows `from..to` of a tensor without its first axis, which is 1.
fn rows(t: &Tensor, from: usize, to: usize) -> Vec<f64> {
    let width = t.count() / t.shape()[1];
    t.to_f64()[from * width..to * width].to_vec()
}

#[track_caller]
fn assert_close(got: &Tensor, want: &[f64], tolerance: f64) {
    let worst = got.to_f64().iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(got.count() == want.len() && worst <= tolerance, "{worst} apart, {:?} for {}", got.shape(), want.len());
}

fn ints(values: &[i32]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}

/// Prompts of several lengths, each with steps of one token behind it, are the same as all at once.
fn decode(package: &str, wanted: &str, tolerance: f64, pairs: &[(&str, &str)], first: &[(&str, Tensor)]) {
    let all = expected();
    let (tokens, want) = (all["tokens"].to_i64(), &all[wanted]);
    for prompt in [1, 5, tokens.len()] {
        let mut calls = Calls::new(package.to_owned()).handing_on(pairs, first);
        let mut at = 0;
        for to in prompt..=tokens.len() {
            let text: Vec<i32> = tokens[at..to].iter().map(|t| *t as i32).collect();
            let places: Vec<i32> = (at as i32..to as i32).collect();
            let tokens = Tensor::from_vec(&[1, text.len()], text);
            let got = calls.call(&[("tokens", tokens), ("input_pos", ints(&places))]);
            let logits = &got["logits"];
            // A model that returns one row returns that of the last token.
            assert_close(logits, &rows(want, to - logits.shape()[1], to), tolerance);
            at = to;
        }
    }
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::splat(mlconv_tensor::DType::F32, shape, 0.0)
}

#[test]
fn buffers_that_a_model_writes_are_states() {
    // States hold half precision.
    decode(&package("decoder.pt2", "decoder-state", &[]), "decoder", 2e-3, &[], &[]);
}

#[test]
fn buffers_are_inputs_and_outputs_where_that_is_asked_for() {
    let pairs = [("k_cache_out", "k_cache"), ("v_cache_out", "v_cache")];
    let first = [("k_cache", zeros(&[1, 16, 8])), ("v_cache", zeros(&[1, 16, 8]))];
    decode(&package("decoder.pt2", "decoder-pair", &["--no-state"]), "decoder", 1e-5, &pairs, &first);
}

#[test]
fn an_input_that_a_model_writes_is_returned_or_held() {
    let first = [("cache", zeros(&[1, 16, 8]))];
    let own = package("decoder_given.pt2", "given-pair", &[]);
    decode(&own, "decoder_given", 1e-5, &[("cache_out", "cache")], &first);
    let held = package("decoder_given.pt2", "given-state", &["--state", "cache=cache_out"]);
    decode(&held, "decoder_given", 2e-3, &[], &[]);
    mlconv(&["verify", &held, "--against", &format!("{FOLDER}/decoder_given.pt2")], 0);
}

#[test]
fn attributes_that_a_script_writes_are_handed_on() {
    let all = expected();
    let (steps, want) = (all["steps"].to_f64(), all["gru"].to_f64());
    let options = ["--input", "x=2x4", "--input", "gain=2"];
    let state = Calls::new(package("gru.pt", "gru-state", &options))
        .handing_on(&[("calls_out", "calls")], &[("calls", Tensor::scalar(0i32))]);
    let pair = Calls::new(package("gru.pt", "gru-pair", &[&options[..], &["--no-state"]].concat())).handing_on(
        &[("hidden_out", "hidden"), ("calls_out", "calls")],
        &[("hidden", zeros(&[2, 6])), ("calls", Tensor::scalar(0i32))],
    );
    for (mut calls, tolerance) in [(state, 2e-3), (pair, 1e-5)] {
        for (i, x) in steps.chunks(8).enumerate() {
            let x = Tensor::from_vec(&[2, 4], x.iter().map(|x| *x as f32).collect::<Vec<_>>());
            let got = calls.call(&[("x", x)]);
            let own = got.iter().find(|(name, _)| !name.ends_with("_out")).map(|(_, t)| t).expect("an output");
            assert_close(own, &want[i * 12..(i + 1) * 12], tolerance);
        }
    }
}

#[test]
fn every_size_that_is_declared_runs() {
    let all = expected();
    let out = package("open.pt2", "open", &[]);
    for size in ["1_4", "3_14", "6_40"] {
        let got = Calls::new(out.clone()).call(&[("x", all[&format!("open_{size}")].clone())]);
        for name in ["half", "whole", "places"] {
            let want = &all[&format!("open_{size}_{name}")];
            assert_eq!(got[name].shape(), want.shape(), "{name} of {size}");
            assert_close(&got[name], &want.to_f64(), 1e-5);
        }
    }
}

#[test]
fn states_that_cannot_be_are_refused() {
    let model = format!("{FOLDER}/decoder_given.pt2");
    let out = scratch("refused.mlpackage").display().to_string();
    let refused = |options: &[&str]| mlconv(&[&["convert", &model, "-o", &out], options].concat(), 2);
    assert!(refused(&["--state", "cache=cache_out"]).contains("there are no states in ios17"));
    assert!(refused(&["--state", "cache=nothing", "--target", "ios18"]).contains("the model has no output `nothing`"));
    assert!(refused(&["--state", "input_pos=logits", "--target", "ios18"]).contains("the input is i32"));
    let both = ["--state", "cache=cache_out", "--no-state", "--target", "ios18"];
    assert!(refused(&both).contains("contradict"));
}
