//! `mlconv merge`: functions of several packages in one, with the weights that they share stored once.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use mlconv::arrays::{Arrays, read_npz};
use mlconv_proto::onnx::tensor_proto::DataType;
use mlconv_tensor::Tensor;
use std::fs;
use support::{
    onnx::{Onnx, numbers, two_weights},
    place::Place,
};

/// Bytes that the weights of `w1`, and those of a head, take in half precision.
const SHARED: u64 = 2304 * 2;
const HEAD: u64 = 2560 * 2;

/// `w1` as [`two_weights`] has it, and a head of its own.
fn other_head() -> Onnx {
    let head: Vec<f32> = numbers(2560).into_iter().rev().collect();
    Onnx::new()
        .input("image", DataType::Float, &[1, 8, 4, 4])
        .weight("w1", &[32, 8, 3, 3], &numbers(2304))
        .weight("head", &[32, 80], &head)
        .node("Conv", &["image", "w1"], &["a"])
        .node("GlobalAveragePool", &["a"], &["b"])
        .node("Flatten", &["b"], &["c"])
        .node("MatMul", &["c", "head"], &["z:0"])
        .output("z:0", DataType::Float, &[1, 80])
}

/// A folder with two packages, of iOS 15 and iOS 17, and inputs for both.
fn place() -> Place {
    let place = Place::new();
    for (name, model, target) in [("a", two_weights(), "ios15"), ("b", other_head(), "ios17")] {
        place.file(&format!("{name}.onnx"), &model.bytes());
        let (from, to) = (format!("{name}.onnx"), format!("{name}.mlpackage"));
        place.run(&["convert", &from, "-o", &to, "--target", target, "--no-verify"]).ok();
    }
    let x = Tensor::from_vec(&[1, 8, 4, 4], numbers(128));
    place.arrays("a.npz", &[("x", x.clone())]);
    place.arrays("b.npz", &[("image", x)]);
    place
}

/// What a function gives on the arrays of a file.
fn outputs(place: &Place, package: &str, function: Option<&str>, inputs: &str) -> Arrays {
    let function = function.map_or(vec![], |f| vec!["--function", f]);
    place.run(&[&["run", package, "--inputs", inputs, "--outputs", "out.npz"], &function[..]].concat()).ok();
    read_npz(&place.path("out.npz")).expect("outputs")
}

fn weights(place: &Place, package: &str) -> u64 {
    fs::metadata(place.path(package).join("Data/com.apple.CoreML/weights/weight.bin")).expect("weights").len()
}

#[test]
fn functions_share_their_weights_and_compute_what_they_did() {
    let place = place();
    let done = place.run(&["merge", "one=a.mlpackage", "two=b.mlpackage", "-o", "m.mlpackage"]).ok();
    assert!(done.stderr.contains("[C0101]: the target is raised from ios15 to ios18, for several"), "{}", done.stderr);
    assert!(done.stderr.contains("one: y") && done.stderr.contains("two: z:0"), "both are compared: {}", done.stderr);
    // Three weights, not four, and what stands around them.
    let size = weights(&place, "m.mlpackage");
    assert!((SHARED + 2 * HEAD..SHARED + 2 * HEAD + 1024).contains(&size), "{size}");
    assert!(size < weights(&place, "a.mlpackage") + weights(&place, "b.mlpackage") - SHARED + 128);
    for (package, inputs, function) in [("a.mlpackage", "a.npz", "one"), ("b.mlpackage", "b.npz", "two")] {
        let before = outputs(&place, package, None, inputs);
        assert_eq!(before, outputs(&place, "m.mlpackage", Some(function), inputs), "{function}");
        assert!(before.values().all(|t| t.to_f64().iter().any(|x| *x != 0.0)));
        place.run(&["verify", "m.mlpackage", "--function", function, "--against", package]).ok();
    }
    // What is wrong with inputs is said of a function.
    place.arrays("odd.npz", &[("image", Tensor::from_vec(&[1], vec![1f32]))]);
    place.run(&["run", "m.mlpackage", "--function", "two", "--inputs", "odd.npz"]).fails("N0003", "function `two`");
    let shown = place.run(&["inspect", "m.mlpackage"]).ok().stdout;
    assert!(shown.contains("function one (ios18, ") && shown.matches(", the default)").count() == 1, "{shown}");
    // The first is the default one.
    assert_eq!(outputs(&place, "a.mlpackage", None, "a.npz"), outputs(&place, "m.mlpackage", None, "a.npz"));
    let shown = place.run(&["inspect", "m.mlpackage", "--format", "json"]).ok().json();
    let names: Vec<_> = shown["functions"].as_array().expect("functions").iter().map(|f| f["name"].clone()).collect();
    assert_eq!(names, ["one", "two"]);
    assert!(shown["functions"].as_array().expect("functions").iter().all(|f| f["opset"] == "ios18"));
    place.run(&["verify", "m.mlpackage", "--function", "two", "--against", "b.onnx"]).ok();
    place
        .run(&["verify", "m.mlpackage", "--function", "three", "--against", "a.mlpackage"])
        .fails("L0001", "`one` and `two`");
    place.run(&["run", "m.mlpackage", "--function", "three"]).fails("L0001", "no function `three`");
}

#[test]
fn a_function_is_the_default_one_or_a_package_of_its_own() {
    let place = place();
    let merge = ["merge", "one=a.mlpackage", "two=b.mlpackage", "-o", "m.mlpackage"];
    let json = place.run(&[&merge[..], &["--default", "two", "--format", "json"]].concat()).ok().json();
    assert_eq!((&json["command"], json["parity"]["outputs"].as_array().map(Vec::len)), (&"merge".into(), Some(2)));
    assert_eq!(outputs(&place, "b.mlpackage", None, "b.npz"), outputs(&place, "m.mlpackage", None, "b.npz"));
    // One function out of several, which then needs no newer target than it has.
    place.run(&["merge", "main=m.mlpackage:one", "-o", "one.mlpackage"]).ok();
    assert_eq!(outputs(&place, "a.mlpackage", None, "a.npz"), outputs(&place, "one.mlpackage", None, "a.npz"));
    assert!(weights(&place, "one.mlpackage") < SHARED + HEAD + 1024);
    // A function may stand under two names, beside those of other packages of several.
    let args =
        ["merge", "x=m.mlpackage:one", "y=m.mlpackage:two", "z=b.mlpackage:main", "w=m.mlpackage", "-o", "n.mlpackage"];
    place.run(&args).ok();
    for function in ["y", "z", "w"] {
        assert_eq!(
            outputs(&place, "b.mlpackage", None, "b.npz"),
            outputs(&place, "n.mlpackage", Some(function), "b.npz")
        );
    }
    assert_eq!(weights(&place, "m.mlpackage"), weights(&place, "n.mlpackage"));
}

#[test]
fn open_sizes_of_one_name_keep_their_ranges() {
    let place = Place::new();
    let model = |op: &str| {
        Onnx::new().input("x", DataType::Float, &[-1, 3]).node(op, &["x"], &["y"]).output(
            "y",
            DataType::Float,
            &[-1, 3],
        )
    };
    for (name, op, sizes) in [("a", "Relu", "x=[2..4]x3"), ("b", "Sigmoid", "x=[5..9]x3")] {
        let from = place.file(&format!("{name}.onnx"), &model(op).bytes()).display().to_string();
        place.run(&["convert", &from, "-o", &format!("{name}.mlpackage"), "--input", sizes]).ok();
    }
    place.run(&["merge", "a=a.mlpackage", "b=b.mlpackage", "-o", "m.mlpackage"]).ok();
    let shown = place.run(&["inspect", "m.mlpackage"]).ok().stdout;
    assert!(shown.contains("is 2 to 4") && shown.contains("is 5 to 9"), "{shown}");
}

#[test]
fn states_stay_those_of_their_function() {
    let place = place();
    let model = support::fixtures().join("models/remembering/decoder.pt2").display().to_string();
    place.run(&["convert", &model, "-o", "d.mlpackage", "--target", "ios18", "--no-verify"]).ok();
    place.run(&["merge", "a=a.mlpackage", "d=d.mlpackage", "-o", "m.mlpackage"]).ok();
    let states = |package: &str| {
        let shown = place.run(&["inspect", package, "--format", "json"]).ok().json();
        let functions = shown["functions"].as_array().expect("functions").clone();
        let of = |f: &serde_json::Value| {
            let ports = f["ports"].as_array().expect("ports").iter();
            ports.filter(|p| p["kind"] == "state").map(|p| p["name"].clone()).collect::<Vec<_>>()
        };
        functions.iter().map(of).collect::<Vec<_>>()
    };
    let alone = states("d.mlpackage").remove(0);
    assert!(!alone.is_empty());
    assert_eq!(states("m.mlpackage"), [vec![], alone]);
    place.run(&["verify", "m.mlpackage", "--function", "d", "--against", "d.mlpackage"]).ok();
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let place = place();
    let (a, b) = ("a=a.mlpackage", "b=b.mlpackage");
    for (args, text) in [
        (&[a, "a=b.mlpackage"][..], "two functions are to be called `a`"),
        (&[a], "the only function of a package is called `main`, and not `a`"),
        (&[a, b, "--default", "c"], "the functions are `a` and `b`"),
        (&["1a=a.mlpackage", b], "`1a` is no name of a function"),
        (&["func=a.mlpackage", b], "`func` is no name of a function"),
        (&["a.mlpackage", b], "wanted NAME=PACKAGE"),
        (&[a, "b=b.mlpackage:other"], "its functions are `main`"),
        (&[a, "b=b.onnx"], "make a package of it with `mlconv convert`"),
    ] {
        place.run(&[&["merge", "-o", "m.mlpackage"], args].concat()).fails("L0001", text);
        assert!(!place.path("m.mlpackage").exists(), "{args:?}");
    }
    place.run(&["merge", a, b, "-o", "m.mlpackage", "--target", "ios17"]).fails("X0003", "`--target ios18`");
    place.run(&["merge", a, "b=c.mlpackage", "-o", "m.mlpackage"]).fails("R0001", "c.mlpackage");
    place.run(&["merge", a, b, "-o", "a.mlpackage"]).fails("X0002", "--force");
    place.run(&["merge", a, b, "-o", "a.mlpackage", "--force"]).fails("L0001", "is one that is read");
    assert_eq!(place.names().iter().filter(|n| n.contains("mlpackage")).count(), 2, "{:?}", place.names());
}

#[test]
fn each_function_keeps_what_its_interface_was() {
    let place = Place::new();
    let model = |name: &str| format!("{}/fixtures/models/{name}/model.onnx", env!("CARGO_MANIFEST_DIR"));
    let (cnn, gru) = (model("digits_cnn"), model("digits_gru"));
    place.run(&["convert", &cnn, "-o", "cnn.mlpackage", "--no-verify", "--image", "image=gray,scale=1/16"]).ok();
    place.run(&["convert", &gru, "-o", "gru.mlpackage", "--no-verify"]).ok();
    place.run(&["merge", "cnn=cnn.mlpackage", "gru=gru.mlpackage", "-o", "both.mlpackage"]).ok();
    for (function, source) in [("cnn", &cnn), ("gru", &gru)] {
        place.run(&["verify", "both.mlpackage", "--function", function, "--against", source]).ok();
    }
    place.run(&["merge", "main=both.mlpackage:cnn", "-o", "one.mlpackage"]).ok();
    place.run(&["verify", "one.mlpackage", "--against", &cnn]).ok();
}
