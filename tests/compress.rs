//! `mlconv compress` as users run it: every scheme, what is left alone, searches, samples, and mistakes.

mod support;

use mlconv::arrays::read_npz;
use mlconv_proto::onnx::tensor_proto::DataType;
use mlconv_tensor::Tensor;
use serde_json::Value;
use std::{fs, path::Path};
use support::{
    onnx::{Onnx, numbers, two_weights},
    place::{Done, Place},
};

const F32: DataType = DataType::Float;

fn converted(model: &Onnx, target: &str) -> Place {
    let place = Place::new();
    place.file("m.onnx", &model.bytes());
    place.run(&["convert", "m.onnx", "-o", "m.mlpackage", "--target", target, "--no-verify"]).ok();
    place
}

fn compress(place: &Place, out: &str, args: &[&str]) -> Done {
    place.run(&[&["compress", "m.mlpackage", "-o", out, "--force", "--format", "json"], args].concat())
}

/// The outputs of a package on seeded inputs.
fn run(place: &Place, package: &str) -> Vec<Tensor> {
    place.run(&["run", package, "--outputs", "y.npz"]).ok();
    read_npz(&place.path("y.npz")).expect("arrays").into_values().collect()
}

fn row<'a>(json: &'a Value, name: &str) -> &'a Value {
    let all = json["compression"]["weights"].as_array().expect("weights");
    all.iter().find(|w| w["name"].as_str().is_some_and(|n| n.starts_with(name))).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn every_scheme_decodes_to_what_decompress_writes() {
    let targets: [(&str, &[&str]); 3] = [
        ("ios16", &["int8", "uint8-tensor", "pal4", "pal8-uniform", "prune50"]),
        (
            "ios18",
            &[
                "int8",
                "int8-asym",
                "uint8-b8",
                "int4-b8",
                "uint4-b8-mse",
                "pal1",
                "pal2-g8",
                "pal3-g16-in",
                "pal4-g16",
                "pal2-scale",
                "pal2-g8-scale-lut8",
                "pal8-lut8",
                "pal4-v2",
                "prune2:4",
                "prune50-b4",
                "prune-t0.1",
                "prune50+int8",
                "prune50+uint4-b8",
                "prune50+pal4-g16",
                "prune50+pal2-scale",
            ],
        ),
        ("ios26", &["pal4-scale", "pal4-v2-scale", "prune50+pal4-scale"]),
    ];
    for (target, schemes) in targets {
        let place = converted(&two_weights(), target);
        let plain = run(&place, "m.mlpackage");
        for scheme in schemes {
            let done = compress(&place, "c.mlpackage", &["--preset", scheme, "--no-verify"]);
            let json = done.ok().json();
            let (before, after) = (&json["compression"]["bytes_before"], &json["compression"]["bytes_after"]);
            assert!(after.as_u64() < before.as_u64(), "{target} {scheme}: {before} {after}");
            let got = run(&place, "c.mlpackage");
            assert_ne!(got, plain, "{target} {scheme} changes something");
            let back = ["compress", "c.mlpackage", "-o", "d.mlpackage", "--force", "--decompress", "--no-verify"];
            place.run(&back).ok();
            assert_eq!(run(&place, "d.mlpackage"), got, "{target} {scheme}");
            // What is said is what is stored, but for the headers and the padding of each part.
            let (said, stored) = (after.as_u64().expect("bytes"), json["weights_bytes"].as_u64().expect("bytes"));
            assert!(stored.abs_diff(said) < 2500, "{target} {scheme}: {said} of {stored} bytes");
            let snr = row(&json, "w1")["snr_db"].as_f64().expect("a number");
            assert!(snr > 3.0, "{target} {scheme}: {snr} dB");
        }
    }
}

#[test]
fn codes_of_a_compressed_package_are_kept() {
    let place = converted(&two_weights(), "ios16");
    compress(&place, "c.mlpackage", &["--tensor", "w1=pal4", "--no-verify"]).ok();
    let first = run(&place, "c.mlpackage");
    // The forms of iOS16 become those of iOS18, of the same codes.
    place.run(&["convert", "c.mlpackage", "-o", "d.mlpackage", "--target", "ios18", "--no-verify"]).ok();
    assert_eq!(run(&place, "d.mlpackage"), first);
    let again =
        ["compress", "c.mlpackage", "-o", "e.mlpackage", "--preset", "int4-b8", "--no-verify", "--format", "json"];
    let done = place.run(&again).ok();
    assert!(done.stderr.contains("warning[C0101]"), "{}", done.stderr);
    let json = done.json();
    let names = json["compression"]["weights"].as_array().expect("weights");
    assert!(names.iter().all(|w| !w["name"].as_str().is_some_and(|n| n.starts_with("w1"))), "{names:?}");
    let seen = place.run(&["inspect", "e.mlpackage", "--mil"]).ok().stdout;
    assert!(seen.contains("constexpr_lut_to_dense") && seen.contains("constexpr_blockwise_shift_scale"), "{seen}");
}

#[test]
fn what_is_left_alone_keeps_its_bytes_and_is_listed() {
    let mut model = two_weights();
    model = model.weight("m", &[1, 80], &[0.5; 80]).node("Mul", &["y", "m"], &["z"]).output("z", F32, &[1, 80]);
    let place = converted(&model, "ios18");
    let json = compress(&place, "c.mlpackage", &["--preset", "int8", "--tensor", "w2=none"]).ok().json();
    for (name, why) in [("w2", "leaves it alone"), ("m", "not as a parameter")] {
        let found = row(&json, name);
        assert!(found["skipped"].as_str().is_some_and(|w| w.contains(why)), "{name}: {found}");
        assert_eq!(found["bytes_before"], found["bytes_after"], "{name}");
    }
    let all = compress(&place, "d.mlpackage", &["--preset", "none", "--no-verify"]).ok();
    assert_eq!(run(&place, "d.mlpackage"), run(&place, "m.mlpackage"), "{}", all.stderr);
}

#[test]
fn shared_weights_stay_shared() {
    let model = Onnx::new()
        .input("x", F32, &[1, 64])
        .weight("w", &[64, 64], &numbers(4096))
        .node("MatMul", &["x", "w"], &["a"])
        .node("Relu", &["a"], &["b"])
        .node("MatMul", &["b", "w"], &["y"])
        .output("y", F32, &[1, 64]);
    let place = converted(&model, "ios18");
    let json = compress(&place, "c.mlpackage", &["--preset", "int8", "--no-verify"]).ok().json();
    assert!(json["weights_bytes"].as_u64().expect("a number") < 5200, "{json}");
}

#[test]
fn the_same_bytes_come_out_of_any_number_of_threads() {
    let place = converted(&two_weights(), "ios18");
    let samples = Tensor::from_vec(&[6, 8, 4, 4], numbers(6 * 128));
    place.arrays("s.npz", &[("x", samples)]);
    for scheme in ["int4-b8", "pal4-g16", "pal4-v2", "prune50+int8"] {
        for sampled in [&[][..], &["--calibrate", "s.npz"]] {
            for (jobs, out) in [("1", "a.mlpackage"), ("2", "b.mlpackage"), ("8", "c.mlpackage")] {
                let args = [&["--preset", scheme, "--jobs", jobs, "--no-verify"], sampled].concat();
                compress(&place, out, &args).ok();
            }
            for other in ["b.mlpackage", "c.mlpackage"] {
                assert_eq!(place.package("a.mlpackage"), place.package(other), "{scheme} {sampled:?}");
            }
        }
    }
    let left: Vec<String> = place.names().into_iter().filter(|n| n.starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_cannot_be_done_is_one_diagnostic_with_what_would() {
    let place = converted(&two_weights(), "ios16");
    place.arrays("odd.npz", &[("x", Tensor::from_vec(&[1, 3], vec![1f32; 3]))]);
    place.file("notes.txt", b"not a log");
    let fails = |args: &[&str], code: &str, part: &str| {
        let done = place.run(&[&["compress", "m.mlpackage", "-o", "c.mlpackage"], args].concat());
        done.fails(code, part);
        assert!(!place.path("c.mlpackage").exists(), "{args:?}");
    };
    fails(&[], "L0001", "nothing says how to compress");
    fails(&["--preset", "pal5"], "L0001", "pal5");
    fails(&["--preset", "int3"], "L0001", "schemes are");
    fails(&["--tensor", "w1=prune50+pal4-v2"], "L0001", "has no vectors");
    fails(&["--tensor", "w9=int8"], "C0001", "matches no weight");
    fails(&["--tensor", "w(=int8"], "L0001", "regular expression");
    fails(&["--tensor", "int8"], "L0001", "REGEX=SCHEME");
    fails(&["--preset", "int4-b8", "--target", "ios16"], "X0003", "needs the target ios18");
    fails(&["--preset", "int8", "--calibrate", "odd.npz"], "N0003", "x");
    place.arrays("none.npz", &[]);
    fails(&["--preset", "int8", "--calibrate", "none.npz"], "N0003", "no array");
    let mut bad = vec![1f32; 128];
    bad[5] = f32::NAN;
    place.arrays("nan.npz", &[("x", Tensor::from_vec(&[1, 8, 4, 4], bad))]);
    fails(&["--preset", "int8", "--calibrate", "nan.npz"], "C0002", "not finite");
    fails(&["--max-drop", "rms=0.1", "--calibrate", "nan.npz"], "C0002", "not finite");
    fails(&["--target-bpw", "6", "--candidates", "int4-b8", "--target", "ios16"], "C0002", "ios18");
    fails(&["--preset", "int8", "--rounding", "gptq"], "L0001", "there are none");
    fails(&["--max-drop", "rms=0.1"], "C0002", "samples");
    fails(&["--max-drop", "snr=3"], "L0001", "top1=0.5");
    fails(&["--target-bpw", "0.1"], "C0002", "smallest form");
    fails(&["--target-size", "1kB"], "C0002", "smallest form");
    fails(&["--target-size", "much"], "L0001", "20MB");
    fails(&["--preset", "int8", "--candidates", "int8"], "L0001", "none is asked for");
    fails(&["--target-bpw", "6", "--search-log", "notes.txt"], "L0001", "no log");
    fails(&["--preset", "w8a8"], "C0002", "samples");
    assert_eq!(fs::read(place.path("notes.txt")).expect("there"), b"not a log");
}

#[test]
fn labels_and_targets_are_checked_before_anything_is_compressed() {
    let place = converted(&two_weights(), "ios18");
    place.arrays("s.npz", &[("x", Tensor::from_vec(&[3, 8, 4, 4], numbers(384)))]);
    for (name, labels) in [("two", vec![1, 2]), ("far", vec![1, 2, 80]), ("fine", vec![0, 1, 79])] {
        place.arrays(&format!("{name}.npz"), &[("l", Tensor::from_vec(&[labels.len()], labels))]);
    }
    place.arrays("odd.npz", &[("x", Tensor::from_vec(&[3, 8, 4, 5], numbers(480)))]);
    let says_no_weight = |args: &[&str], code: &str, part: &str| {
        let done = place.run(&[&["compress", "m.mlpackage", "--preset", "int8", "--force"], args].concat());
        done.fails(code, part);
        assert!(!done.stderr.contains("[1/"), "{}", done.stderr);
    };
    let out = ["-o", "c.mlpackage"];
    let with = |samples, labels| [&out[..], &["--sample", samples, "--labels", labels]].concat();
    says_no_weight(&with("s.npz", "two.npz"), "N0003", "2 labels for 3 samples");
    says_no_weight(&with("s.npz", "far.npz"), "N0003", "label 80 of sample 2 is none of the 80 classes");
    says_no_weight(&with("s.npz", "none.npz"), "R0001", "none.npz");
    says_no_weight(&with("odd.npz", "fine.npz"), "N0003", "x");
    says_no_weight(&[&out[..], &["--sample", "s.npz", "--calibrate", "odd.npz"]].concat(), "N0003", "x");
    says_no_weight(&["-o", "m.mlpackage/c.mlpackage"], "X0002", "lies inside of the package");
    place.file("text.mlpackage", b"dear");
    says_no_weight(&["-o", "text.mlpackage"], "X0002", "no package");
    says_no_weight(&["-o", "nowhere/c.mlpackage"], "X0001", "no folder");
    assert!(!place.path("c.mlpackage").exists());
    let done = place.run(&[&["compress", "m.mlpackage", "--preset", "int8"], &with("s.npz", "fine.npz")[..]].concat());
    assert!(done.ok().stderr.contains("[1/2]"));
}

#[test]
fn what_is_not_applied_is_status_one_unless_allowed() {
    let mut w = numbers(2560);
    w[77] = f32::NAN;
    let mut model = two_weights();
    model.graph().initializer.retain(|t| t.name.as_deref() != Some("w2"));
    let place = converted(&model.weight("w2", &[32, 80], &w), "ios18");
    let args = ["--preset", "int8", "--no-verify"];
    let done = compress(&place, "c.mlpackage", &args);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("warning[C0102]") && done.stderr.contains("not finite"), "{}", done.stderr);
    assert!(row(&done.json(), "w2")["skipped"].is_string());
    compress(&place, "c.mlpackage", &[&args[..], &["--allow-skip"]].concat()).ok();
    // A rule that means a weight of one axis cannot be followed.
    let biased = Onnx::new()
        .input("x", F32, &[1, 64])
        .weight("w", &[4, 64], &numbers(256))
        .weight("b", &[4], &[0.1, 0.2, 0.3, 0.4])
        .node("Gemm", &["x", "w", "b"], &["y"])
        .output("y", F32, &[1, 4]);
    let mut biased = biased;
    biased.graph().node[0].attribute.push(support::onnx::int("transB", 1));
    let place = converted(&biased, "ios18");
    // A bias that a pattern matches beside a weight is not meant.
    let both = ["--tensor", "=int8", "--weight-threshold", "16", "--no-verify"];
    compress(&place, "c.mlpackage", &both).ok();
    let done = compress(&place, "c.mlpackage", &["--tensor", "^y=int8", "--no-verify"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
}

#[test]
fn sizes_that_do_not_divide_are_adapted_and_said() {
    let place = converted(&two_weights(), "ios18");
    let done = compress(&place, "c.mlpackage", &["--preset", "int4-b24", "--no-verify"]).ok();
    assert!(done.stderr.contains("warning[C0103]"), "{}", done.stderr);
    let json = done.json();
    assert!(row(&json, "w1")["adapted"].is_string(), "{json}");
    assert_eq!(row(&json, "w1")["asked"], "int4-b24");
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_would_be() {
    let place = converted(&two_weights(), "ios18");
    let before = place.names();
    let dry = place.run(&["compress", "m.mlpackage", "--preset", "pal4", "--dry-run", "--format", "json"]).ok().json();
    assert_eq!(place.names(), before);
    let wet = compress(&place, "c.mlpackage", &["--preset", "pal4", "--no-verify"]).ok().json();
    assert_eq!(dry["compression"], wet["compression"]);
}

#[test]
fn searches_meet_their_budgets_and_go_on() {
    let place = converted(&two_weights(), "ios18");
    let search = |args: &[&str]| compress(&place, "c.mlpackage", &[args, &["--no-verify"]].concat());
    let mut last = f64::INFINITY;
    for bits in ["3.5", "5", "8.5", "12"] {
        let json = search(&["--target-bpw", bits, "--search-log", "log.jsonl"]).ok().json();
        let got = json["compression"]["bits_per_weight_after"].as_f64().expect("a number");
        assert!(got <= bits.parse().expect("a number"), "{bits}: {got}");
        let curve = json["compression"]["search"]["curve"].as_array().expect("a curve");
        let at = json["compression"]["search"]["chosen"].as_u64().expect("a place") as usize;
        let loss = curve[at]["expected"].as_f64().expect("a loss");
        assert!(loss <= last, "{bits}: {loss} after {last}");
        last = loss;
        let resumed = json["compression"]["search"]["resumed"].as_u64();
        assert_eq!(resumed, Some(if bits == "3.5" { 0 } else { 2 }), "{bits}");
        // Losses fall along the curve, and bytes grow.
        for pair in curve.windows(2) {
            assert!(pair[0]["bytes"].as_u64() < pair[1]["bytes"].as_u64(), "{pair:?}");
            assert!(pair[0]["expected"].as_f64() >= pair[1]["expected"].as_f64(), "{pair:?}");
        }
    }
    // A log that was cut short serves as far as it goes.
    let log = fs::read_to_string(place.path("log.jsonl")).expect("a log");
    fs::write(place.path("log.jsonl"), &log[..log.len() - 9]).expect("room");
    let json = search(&["--target-bpw", "5", "--search-log", "log.jsonl"]).ok().json();
    assert_eq!(json["compression"]["search"]["resumed"], 1);
    // So does the first line of one.
    fs::write(place.path("log.jsonl"), &log[..40]).expect("room");
    search(&["--target-bpw", "5", "--search-log", "log.jsonl"]).ok();
    let json = search(&["--target-bpw", "5", "--search-log", "log.jsonl"]).ok().json();
    assert_eq!(json["compression"]["search"]["resumed"], 2);
}

#[test]
fn a_search_says_what_it_chose_and_why_the_target_is_raised() {
    let place = converted(&two_weights(), "ios17");
    let said = |args: &[&str]| {
        let done = place.run(&[&["compress", "m.mlpackage", "--dry-run"], args].concat()).ok();
        (done.stdout, done.stderr)
    };
    // As many bits as there are: nothing is worth compressing.
    let (out, err) = said(&["--target-bpw", "16", "--candidates", "pal4-g16"]);
    assert!(out.contains("chosen by their own error: nothing to compress;"), "{out}");
    assert!(err.contains("the search may choose `pal4-g16`, which needs the target ios18"), "{err}");
    // A rule is a reason that is certain, and what it says was not chosen.
    let rule = ["--target-bpw", "14", "--candidates", "pal4-g16", "--tensor", "w1=int4-b8"];
    let (out, err) = said(&rule);
    assert!(err.contains("warning[C0101]: `int4-b8` needs the target ios18"), "{err}");
    assert!(out.contains("nothing to compress;"), "{out}");
}

#[test]
fn options_that_do_nothing_are_refused() {
    let place = converted(&two_weights(), "ios18");
    place.arrays("s.npz", &[("x", Tensor::from_vec(&[1, 8, 4, 4], numbers(128)))]);
    for option in [
        &["--weight-threshold", "16"][..],
        &["--max-memory", "1GB"],
        &["--allow-skip"],
        &["--rounding", "nearest"],
        &["--calibrate", "s.npz"],
        &["--candidates", "int8"],
        &["--keep-activations", "conv"],
    ] {
        let done = place.run(&[&["convert", "m.mlpackage", "-o", "c.mlpackage"], option].concat());
        done.fails("L0001", "--preset");
        if !["--candidates", "--keep-activations"].contains(&option[0]) {
            done.fails("L0001", &format!("`{}` is for compression, and none is asked for", option[0]));
        }
        place
            .run(&[&["compress", "m.mlpackage", "-o", "c.mlpackage", "--decompress"], option].concat())
            .fails("L0001", "--decompress");
        assert!(!place.path("c.mlpackage").exists(), "{option:?}");
    }
    // A recipe may say how to compress what another command compresses.
    place.file("r.toml", b"[compress]\nweight_threshold = 16\n");
    place.run(&["convert", "m.mlpackage", "-o", "c.mlpackage", "--recipe", "r.toml", "--no-verify"]).ok();
}

#[test]
fn searches_find_the_same_in_any_memory() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models");
    let model = fixtures.join("digits_transformer/model.onnx").display().to_string();
    let (test, train) = (fixtures.join("digits/test.npz"), fixtures.join("digits/train.npz"));
    let (test, train) = (test.display().to_string(), train.display().to_string());
    let place = Place::new();
    let head = ["compress", &model, "-o", "c.mlpackage", "--force", "--weight-threshold", "256", "--target", "ios18"];
    for goal in [&["--target-bpw", "5"][..], &["--max-drop", "rms=0.1", "--tensor", "val_5_=prune10+int8"]] {
        for samples in [&["--sample", &test][..], &["--sample", &test, "--calibrate", &train]] {
            let found = ["1kB", "70kB", "1GB"].map(|memory| {
                let tail = ["--no-verify", "--format", "json", "--max-memory", memory];
                let done = place.run(&[&head[..], goal, samples, &tail].concat());
                (done.ok().json()["compression"].clone(), place.package("c.mlpackage"))
            });
            assert!(found[0] == found[1] && found[1] == found[2], "{goal:?} {samples:?}");
        }
    }
}

#[test]
fn the_loss_of_a_search_is_that_of_the_package() {
    let place = converted(&two_weights(), "ios18");
    place.arrays("s.npz", &[("x", Tensor::from_vec(&[40, 8, 4, 4], numbers(40 * 128)))]);
    for rounding in [&[][..], &["--rounding", "nearest"]] {
        for (limit, rule) in [("0.02", "none"), ("0.2", "none"), ("0.4", "pal2")] {
            let drop = format!("rms={limit}");
            let args = ["--max-drop", &drop, "--tensor", &format!("w2={rule}"), "--sample", "s.npz"];
            let json = compress(&place, "c.mlpackage", &[&args[..], rounding].concat()).ok().json();
            let search = &json["compression"]["search"];
            let point = &search["curve"][search["chosen"].as_u64().expect("a place") as usize];
            let said = point["measured"].as_f64().expect("a loss");
            let snr = json["parity"]["outputs"][0]["snr_db"].as_f64().unwrap_or(f64::INFINITY);
            let found = 10f64.powf(-snr / 20.0);
            assert!((said - found).abs() <= 0.02 * found, "{limit} {rule} {rounding:?}: {said} said, {found} found");
            assert!(said <= limit.parse().expect("a number"), "{said}");
        }
    }
    // What rules say alone loses more.
    let args = ["compress", "m.mlpackage", "-o", "x.mlpackage", "--sample", "s.npz", "--tensor", "w2=pal1"];
    place.run(&[&args[..], &["--max-drop", "rms=0.01"]].concat()).fails("C0002", "in its best form");
}

#[test]
fn the_size_of_a_package_is_met_down_to_the_least_there_is() {
    let place = converted(&two_weights(), "ios18");
    let written = || place.package("c.mlpackage").iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let fails = |size: usize| {
        let asked = size.to_string();
        let args = ["compress", "m.mlpackage", "-o", "x.mlpackage", "--target-size", &asked, "--no-verify"];
        place.run(&args).fails("C0002", "smallest form it is");
    };
    for size in [12_000, 11_000, 10_000] {
        compress(&place, "c.mlpackage", &["--target-size", &size.to_string(), "--no-verify"]).ok();
        assert!(written() <= size, "{size}: {}", written());
    }
    let smallest = ["--candidates", "pal2-g16", "--target-bpw", "2.6", "--no-verify"];
    compress(&place, "c.mlpackage", &smallest).ok();
    let least = written();
    let args = ["--candidates", "pal2-g16", "--target-size", &least.to_string(), "--no-verify"];
    compress(&place, "c.mlpackage", &args).ok();
    assert_eq!(written(), least);
    fails(4_000);
    let dry = ["compress", "m.mlpackage", "--target-size", "11kB", "--dry-run", "--format", "json"];
    assert!(place.run(&dry).ok().json()["compression"]["search"].is_object());
}

/// The digits models, and what their test images say of a package that a scheme makes of them.
fn on_digits(name: &str, args: &[&str]) -> (u64, f64, u64) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models");
    let model = fixtures.join(name).join("model.onnx").display().to_string();
    let (test, train) = (fixtures.join("digits/test.npz"), fixtures.join("digits/train.npz"));
    let labels = format!("{}:label", test.display());
    let (test, train) = (test.display().to_string(), train.display().to_string());
    let place = Place::new();
    let head = ["compress", &model, "-o", "c.mlpackage", "--target", "ios18", "--weight-threshold", "256"];
    let tail = ["--sample", &test, "--labels", &labels, "--calibrate", &train, "--format", "json"];
    let json = place.run(&[&head[..], args, &tail].concat()).ok().json();
    let output = &json["parity"]["outputs"][0];
    (
        json["compression"]["bytes_after"].as_u64().expect("bytes"),
        output["overall_snr_db"].as_f64().expect("dB"),
        json["parity"]["accuracy"][0]["package_correct"].as_u64().expect("a count"),
    )
}

#[test]
fn rounding_by_samples_loses_less_than_rounding_to_the_nearest() {
    for model in ["digits_cnn", "digits_transformer"] {
        for scheme in ["int4-b32", "int4", "pal4"] {
            let (_, nearest, _) = on_digits(model, &["--preset", scheme, "--rounding", "nearest"]);
            let (_, aware, _) = on_digits(model, &["--preset", scheme]);
            assert!(aware > nearest + 2.0, "{model} {scheme}: {nearest} dB and {aware} dB by samples");
        }
    }
}

#[test]
fn a_search_is_no_worse_than_one_scheme_of_its_size() {
    for model in ["digits_cnn", "digits_transformer"] {
        for scheme in ["int4-b32", "pal4-g16", "pal3-g16"] {
            let (bytes, uniform, _) = on_digits(model, &["--preset", scheme]);
            let elements = if model == "digits_cnn" { 5626.0 } else { 10450.0 };
            let bits = format!("{:.3}", bytes as f64 * 8.0 / elements + 0.001);
            let (found, searched, _) = on_digits(model, &["--target-bpw", &bits]);
            assert!(found <= bytes + bytes / 50, "{model} {scheme}: {found} of {bytes} bytes");
            assert!(searched > uniform - 1.0, "{model} {scheme}: {uniform} dB, {searched} dB searched");
        }
    }
}

#[test]
fn a_loss_that_is_allowed_is_not_exceeded() {
    let (bytes, _, correct) = on_digits("digits_cnn", &["--max-drop", "top1=1"]);
    assert!(correct >= 353 - 4, "{correct}");
    assert!(bytes < 6000, "{bytes}");
}

#[test]
fn codes_stay_where_the_target_is_raised() {
    let place = converted(&two_weights(), "ios16");
    for scheme in ["int8", "uint8", "int8-asym", "uint8-tensor", "pal4", "prune50"] {
        compress(&place, "old.mlpackage", &["--preset", scheme, "--weight-threshold", "0", "--no-verify"]).ok();
        place
            .run(&["convert", "old.mlpackage", "-o", "new.mlpackage", "--target", "ios18", "--force", "--no-verify"])
            .ok();
        assert_eq!(run(&place, "new.mlpackage"), run(&place, "old.mlpackage"), "{scheme}");
    }
}

#[test]
fn it_is_said_where_nothing_is_compressed() {
    let place = converted(&two_weights(), "ios18");
    let done = compress(&place, "c.mlpackage", &["--preset", "int8", "--weight-threshold", "1000000"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("C0102") && done.stderr.contains("--weight-threshold"), "{}", done.stderr);
    compress(&place, "c.mlpackage", &["--preset", "int8", "--weight-threshold", "1000000", "--allow-skip"]).ok();
}

#[test]
fn no_file_is_put_into_a_package() {
    let place = converted(&two_weights(), "ios18");
    for args in [
        &["run", "m.mlpackage", "--outputs", "m.mlpackage/y.npz"][..],
        &["compress", "m.mlpackage", "-o", "c.mlpackage", "--target-bpw", "6", "--search-log", "m.mlpackage/log"],
        &["compress", "m.mlpackage", "-o", "c.mlpackage", "--target-bpw", "6", "--search-log", "c.mlpackage"],
    ] {
        let done = place.run(args);
        assert_eq!(done.code, Some(2), "{args:?}: {}", done.stderr);
    }
    assert!(!place.path("c.mlpackage").exists() && !place.path("m.mlpackage/log").exists());
}
