//! Half precision that is right the first time: models that a naive cast breaks, and what is said where nothing helps.

mod support;

use mlconv::{
    arrays::{Arrays, read_npz},
    compare::{self, Tolerance},
};
use mlconv_proto::onnx::tensor_proto::DataType;
use std::{collections::BTreeSet, fs, path::PathBuf};
use support::{
    onnx::Onnx,
    place::{Done, Place},
};

const F32: DataType = DataType::Float;

/// 40 dB, also of what is small.
const WANTED: Tolerance = Tolerance { min_snr_db: 40.0, max_rel: 0.0, ..Tolerance::F16 };
/// Nothing but single precision computes it.
const HOPELESS: &str = "cancellation";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/traps")
}

fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).expect("the fixtures");
    let names: BTreeSet<String> =
        files.filter_map(|f| Some(f.ok()?.file_name().to_string_lossy().split_once('.')?.0.to_owned())).collect();
    assert!(names.len() > 12, "{names:?}");
    names.into_iter().collect()
}

fn text(name: &str, suffix: &str) -> String {
    folder().join(format!("{name}.{suffix}")).display().to_string()
}

/// Whether a run of `model` on the inputs of a trap gives its outputs, and why not.
fn gives(place: &Place, model: &str, name: &str, more: &[&str]) -> Result<(), String> {
    let inputs = text(name, "inputs.npz");
    let args = [&["run", model, "--inputs", &inputs, "--outputs", "out.npz"], more].concat();
    place.run(&args).ok();
    let wanted: Arrays = read_npz(&folder().join(format!("{name}.outputs.npz"))).expect("outputs");
    let got = read_npz(&place.path("out.npz")).expect("outputs");
    assert_eq!(wanted.len(), got.len(), "{name}");
    for ((output, want), got) in wanted.iter().zip(got.values()) {
        let d = compare::output(output, want, got, WANTED);
        if !d.pass {
            return Err(format!("{model}: `{output}` is at {:?} dB, {} not finite", d.snr_db, d.non_finite));
        }
    }
    Ok(())
}

#[test]
fn traps_break_a_naive_cast_and_no_conversion() {
    for name in names() {
        for format in ["onnx", "pt2"] {
            let (place, model) = (Place::new(), text(&name, format));
            gives(&place, &model, &name, &[]).unwrap_or_else(|why| panic!("in single precision: {why}"));
            assert!(gives(&place, &model, &name, &["--emulate", "fp16"]).is_err(), "{model} is no trap");
            if name != HOPELESS {
                // On made-up inputs, and on what shows the trap: neither may keep masks and the like from being rewritten.
                let sample = text(&name, "inputs.npz");
                for more in [&[][..], &["--sample", &sample, "--force"]] {
                    place.run(&[&["convert", &model, "-o", "out.mlpackage"], more].concat()).ok();
                    gives(&place, "out.mlpackage", &name, &[]).unwrap_or_else(|why| panic!("{more:?}: {why}"));
                    // Whoever emulates half precision keeps to what the package says.
                    gives(&place, "out.mlpackage", &name, &["--emulate", "fp16"])
                        .unwrap_or_else(|why| panic!("emulated, {more:?}: {why}"));
                }
            }
        }
    }
}

#[test]
fn what_no_rewrite_helps_is_mended_by_the_line_that_is_printed() {
    let (place, model) = (Place::new(), text(HOPELESS, "onnx"));
    let done = place.run(&["convert", &model, "-o", "out.mlpackage", "--format", "json"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("--keep-fp32 sub"), "{}", done.stderr);
    let names: Vec<String> = done.json()["mended_by"]["keep_fp32"]
        .as_array()
        .expect("names")
        .iter()
        .map(|n| n.as_str().expect("a name").to_owned())
        .collect();
    let recipe = format!("[convert]\nkeep_fp32 = {names:?}\n");
    place.file("mlconv.toml", recipe.as_bytes());
    place.run(&["convert", &model, "-o", "out.mlpackage", "--force", "--recipe", "mlconv.toml"]).ok();
    gives(&place, "out.mlpackage", HOPELESS, &[]).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn values_that_do_not_fit_are_named_before_anything_is_written() {
    let (place, model) = (Place::new(), text("residual", "onnx"));
    let done = place.run(&["convert", &model, "-o", "out.mlpackage", "--format", "json"]).ok();
    assert!(done.stderr.contains("beyond 65504, or near it"), "{}", done.stderr);
    let kept = done.json();
    let kept = kept["kept_fp32"].as_array().expect("a list");
    assert!(kept.iter().any(|k| k["detail"].as_str().is_some_and(|d| d.contains("reaches"))), "{kept:?}");
    // Without a look at the values nothing is known of them; samples are a look.
    let blind = place.run(&["convert", &model, "-o", "blind.mlpackage", "--no-verify", "--format", "json"]).ok();
    assert_eq!(blind.json()["kept_fp32"].as_array().map(Vec::len), Some(0));
    let sample = text("residual", "inputs.npz");
    let args = ["convert", &model, "-o", "seen.mlpackage", "--no-verify", "--sample", &sample, "--format", "json"];
    let seen: Done = place.run(&args).ok();
    assert_eq!(seen.json()["kept_fp32"].as_array().map(Vec::len), Some(kept.len()));
}

#[test]
fn declared_ranges_are_heeded() {
    let (place, model) = (Place::new(), text("log_softmax", "onnx"));
    // Without a look at the values, so that nothing but what is declared counts.
    let kept = |args: &[&str]| {
        let convert = ["convert", &model, "-o", "out.mlpackage", "--force", "--no-verify", "--format", "json"];
        let done = place.run(&[&convert[..], args].concat()).ok().json();
        done["kept_fp32"].as_array().expect("a list").len()
    };
    assert_eq!((kept(&[]), kept(&["--range", "x=-1e3:1e3"])), (0, 0));
    assert!(kept(&["--range", "x=-1e6:1e6"]) > 0);
    for (range, why) in [("z=0:1", "no such input"), ("x=1", "wanted the name"), ("x=2:1", "is greater than")] {
        let done = place.run(&["convert", &model, "-o", "no.mlpackage", "--range", range]);
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(done.stderr.contains(why), "{}", done.stderr);
    }
    assert!(!place.path("no.mlpackage").exists());
}

/// `y = x * 60000 / sqrt(mean((x * 60000) ^ 2) + 1e-6)`.
fn great_norm() -> Onnx {
    Onnx::new()
        .input("x", F32, &[1, 8])
        .weight("scale", &[], &[60_000.0])
        .weight("two", &[], &[2.0])
        .weight("e", &[], &[1e-6])
        .node("Mul", &["x", "scale"], &["g"])
        .node("Pow", &["g", "two"], &["s"])
        .node("ReduceMean", &["s"], &["m"])
        .node("Add", &["m", "e"], &["a"])
        .node("Sqrt", &["a"], &["r"])
        .node("Div", &["g", "r"], &["y"])
        .output("y", F32, &[1, 8])
}

#[test]
fn what_is_rewritten_is_looked_at_as_well() {
    let place = Place::new();
    place.file("m.onnx", &great_norm().bytes());
    // Made-up numbers beyond 1 are beyond 65504 once they are scaled.
    let done = place.run(&["convert", "m.onnx", "-o", "out.mlpackage"]).ok();
    assert!(done.stderr.contains("values are beyond 65504, or near it"), "{}", done.stderr);
}
