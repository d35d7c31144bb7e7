//! Two models value by value: faults that are planted are found, by their op, and taken out.

mod support;

use serde_json::Value;
use std::fmt::Write;
use support::{
    place::{Done, Place},
    programs::{culprit, elements, numbers, package},
};

/// What is wrong in the second of four layers.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Epsilon,
    Transposed,
    NoBias,
    Shifted,
    Overflow,
    /// A factor in front that half precision holds, and one that it does not.
    Great,
}

/// Four layers, each a norm and a linear layer that is added to what it reads, as a program in one precision.
fn layers(dtype: &str, fault: Fault) -> String {
    let mut out = format!("func @main(%x: {dtype}[4, 8]) ios17 {{\n");
    let mut last = "x".to_owned();
    for i in 0..4 {
        let is_here = |f: Fault| i == 1 && fault == f;
        let epsilon = if is_here(Fault::Epsilon) { "0.1" } else { "1e-5" };
        let mut w = elements(&[8, 8], 7 + i, 0.4);
        if is_here(Fault::Transposed) {
            w = (0..64).map(|k| w[k % 8 * 8 + k / 8].clone()).collect();
        }
        let w = format!("[8, 8] [{}]", w.join(", "));
        let bias = if is_here(Fault::NoBias) { 0.0 } else { 1.0 };
        let _ = writeln!(
            out,
            "  %w{i} = const(val={dtype}{w})\n  %b{i} = const(val={dtype}{})",
            numbers(&[8], 90 + i, bias)
        );
        let _ = writeln!(out, "  %norm{i} = layer_norm(x=%{last}, axes=[1], epsilon={epsilon})");
        let _ = writeln!(out, "  %lin{i} = linear(x=%norm{i}, weight=%w{i}, bias=%b{i})");
        let mut value = format!("lin{i}");
        if i == 1 && matches!(fault, Fault::Overflow | Fault::Great) {
            let _ = writeln!(out, "  %up = const(val={dtype}[] 6e4)\n  %down = const(val={dtype}[] 1.66e-5)");
            let _ = writeln!(out, "  %great = mul(x=%{value}, y=%up)\n  %small = mul(x=%great, y=%down)");
            value = "small".to_owned();
        }
        if is_here(Fault::Shifted) {
            let _ = writeln!(out, "  %moved{i} = reverse(x=%{value}, axes=[1])");
            let _ = writeln!(out, "  %add{i} = add(x=%{last}, y=%moved{i})");
        } else {
            let _ = writeln!(out, "  %add{i} = add(x=%{last}, y=%{value})");
        }
        last = format!("add{i}");
    }
    out + &format!("  return %{last}\n}}\n")
}

/// Compares the layers in single precision with those that have a fault.
fn compared(place: &Place, dtype: &str, fault: Fault, more: &[&str]) -> Done {
    let right = if fault == Fault::Overflow { Fault::Great } else { Fault::None };
    package(place, "a.mlpackage", &layers("f32", right));
    package(place, "b.mlpackage", &layers(dtype, fault));
    place.run(&[&["diff", "a.mlpackage", "b.mlpackage", "--bisect", "--format", "json"], more].concat())
}

#[test]
fn the_op_with_the_fault_is_named_in_either_precision() {
    use Fault::{Epsilon, NoBias, Overflow, Shifted, Transposed};
    for dtype in ["f32", "f16"] {
        for (fault, op) in
            [(Epsilon, "norm1"), (Transposed, "lin1"), (NoBias, "lin1"), (Shifted, "add1"), (Overflow, "great")]
        {
            if fault == Overflow && dtype == "f32" {
                continue;
            }
            let place = Place::new();
            let done = compared(&place, dtype, fault, &[]);
            assert_eq!(done.code, Some(1), "{op}: {}", done.stderr);
            let report = done.json();
            let why = if fault == Overflow { "overflows half precision" } else { "computes something else" };
            assert_eq!(culprit(&report), (op.to_owned(), why.to_owned()), "{dtype}");
            // What comes behind is off, and no fault of its own.
            let states = |name: &str| {
                let ops = report["ops"].as_array().expect("ops");
                ops.iter().find(|o| o["name"] == name).map(|o| o["state"].clone())
            };
            assert_eq!([states("norm0"), states("add2")].map(|s| s.expect("a state") == "inherits"), [false, true]);
        }
    }
}

#[test]
fn rounding_is_nobodys_fault() {
    let place = Place::new();
    let done = compared(&place, "f16", Fault::None, &[]).ok();
    let report = done.json();
    assert_eq!(report["bisection"]["state"], "accumulates", "{:#}", report["bisection"]);
    let same = place.run(&["diff", "a.mlpackage", "a.mlpackage", "--bisect", "--format", "json"]).ok().json();
    assert_eq!(
        (&same["bisection"]["state"], &same["bisection"]["culprits"]),
        (&"agrees".into(), &Value::Array(vec![]))
    );
    // Once more, and nothing is another.
    assert_eq!(done.stdout, compared(&place, "f16", Fault::None, &[]).stdout);
}

#[test]
fn values_that_do_not_fit_in_memory_are_counted() {
    let place = Place::new();
    let done = compared(&place, "f16", Fault::NoBias, &["--max-memory", "64B"]);
    assert_eq!((done.code, done.stderr.contains("panic")), (Some(1), false), "{}", done.stderr);
    assert_eq!(culprit(&done.json()).0, "lin1");
}

#[test]
fn the_op_to_blame_is_taken_out() {
    let place = Place::new();
    let done = compared(&place, "f16", Fault::NoBias, &["--reduce", "part"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let files = ["README.md", "expected.npz", "inputs.npz", "part.mlpackage"];
    assert!(files.iter().all(|f| place.path("part").join(f).exists()), "{:?}", place.names());
    place.run(&["run", "part/part.mlpackage", "--inputs", "part/inputs.npz", "--outputs", "got.npz"]).ok();
    let read = |name: &str| mlconv::arrays::read_npz(&place.path(name)).expect("arrays");
    let (got, want) = (read("got.npz"), read("part/expected.npz"));
    let off = mlconv::compare::output("", &want[0], &got[0], mlconv::compare::Tolerance::F16);
    assert!(!off.pass && off.snr_db.is_some_and(|db| db < 30.0), "the fault does not show: {:?}", off.snr_db);
    // What is there is not replaced.
    let again = compared(&place, "f16", Fault::NoBias, &["--reduce", "part"]);
    assert_eq!(again.code, Some(2), "{}", again.stderr);
    assert!(again.stderr.contains("X0002"), "{}", again.stderr);
    // Nothing is written of models that agree, which is said.
    let none = place.run(&["diff", "a.mlpackage", "a.mlpackage", "--bisect", "--reduce", "none"]);
    assert_eq!((none.code, place.path("none").exists()), (Some(1), false), "{}", none.stderr);
    assert!(!place.names().iter().any(|n| n.starts_with(".mlconv")), "{:?}", place.names());
}

#[test]
fn a_recipe_that_mends_is_printed_and_was_tried() {
    let place = Place::new();
    let trap = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/traps/cancellation.onnx");
    assert_eq!(place.run(&["convert", trap, "-o", "b.mlpackage"]).code, Some(1));
    let report = place.run(&["diff", trap, "b.mlpackage", "--bisect", "--format", "json"]).json();
    let recipe = &report["bisection"]["recipe"];
    assert_eq!(recipe["pass"], true, "{:#}", report["bisection"]);
    let lines: Vec<&str> = recipe["lines"].as_array().expect("lines").iter().filter_map(Value::as_str).collect();
    place.file("mlconv.toml", lines.join("\n").as_bytes());
    place.run(&["convert", trap, "-o", "b.mlpackage", "--force", "--recipe", "mlconv.toml"]).ok();
    place.run(&["diff", trap, "b.mlpackage"]).ok();
}

#[test]
fn a_table_that_does_not_suit_its_weight_is_found() {
    let place = Place::new();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/models/digits_transformer/model.pt2");
    let tensors = ["--preset", "pal6", "--tensor", "layers_1_up_weight=pal1", "--weight-threshold", "64"];
    place.run(&[&["compress", model, "-o", "b.mlpackage", "--no-verify"], &tensors[..]].concat());
    let done = place.run(&["diff", model, "b.mlpackage", "--bisect", "--format", "json"]);
    let report = done.json();
    let (_, why) = culprit(&report);
    assert_eq!((why.as_str(), done.code), ("weights are compressed", Some(1)), "{}", done.stdout);
    let recipe = &report["bisection"]["recipe"];
    assert_eq!(recipe["pass"], true, "{:#}", report["bisection"]);
    // What is printed is taken as it stands.
    let option = recipe["command"].as_str().expect("options").replace('\'', "");
    let words: Vec<&str> = option.split(' ').collect();
    let compress = ["compress", model, "-o", "b.mlpackage", "--no-verify", "--force"];
    place.run(&[&compress[..], &tensors[..], &words[..]].concat());
    place.run(&["diff", model, "b.mlpackage"]).ok();
}

#[test]
fn what_cannot_be_compared_is_said() {
    let place = Place::new();
    place.file("no.onnx", b"");
    package(&place, "a.mlpackage", &layers("f32", Fault::None));
    for (args, code) in [
        (&["diff", "a.mlpackage", "gone.mlpackage"][..], "R0001"),
        (&["diff", "a.mlpackage", "no.onnx"], "R0002"),
        (&["diff", "a.mlpackage", "a.mlpackage", "--function", "other"], "L0001"),
        (&["diff", "a.mlpackage", "a.mlpackage", "--max-memory", "many"], "L0001"),
        (&["diff", "a.mlpackage", "a.mlpackage", "--reduce", "part"], "L0001"),
    ] {
        let done = place.run(args);
        assert_eq!(done.code, Some(2), "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(code) && !done.stderr.contains("panicked"), "{args:?}: {}", done.stderr);
    }
}

#[test]
fn recorded_tensors_stand_for_a_model() {
    let place = Place::new();
    package(&place, "a.mlpackage", &layers("f32", Fault::None));
    package(&place, "b.mlpackage", &layers("f32", Fault::NoBias));
    place.run(&["run", "a.mlpackage", "--seed", "3", "--outputs", "out.npz"]).ok();
    let same = place.run(&["diff", "a.mlpackage", "out.npz", "--seed", "3", "--format", "json"]).ok().json();
    assert_eq!((&same["pass"], &same["outputs"][0]["name"]), (&true.into(), &"add3".into()), "{same:#}");
    // Either of them may be the one to go by, and any value may be recorded.
    assert_eq!(place.run(&["diff", "out.npz", "b.mlpackage", "--seed", "3"]).code, Some(1));
    let read = mlconv::arrays::read_npz(&place.path("out.npz")).expect("arrays");
    place.arrays("odd.npz", &[("add3", read[0].clone()), ("nobody", read[0].clone())]);
    let odd = place.run(&["diff", "a.mlpackage", "odd.npz", "--seed", "3"]).ok();
    assert!(odd.stderr.contains("`nobody`"), "{}", odd.stderr);
    place.arrays("twice.npz", &[("add3", read[0].clone()), ("output/add3", read[0].clone())]);
    place.arrays("none.npz", &[("nobody", read[0].clone())]);
    for (args, code) in [
        (&["diff", "a.mlpackage", "none.npz", "--seed", "3"][..], "N0003"),
        (&["diff", "a.mlpackage", "out.npz"], "no input was recorded"),
        (&["diff", "a.mlpackage", "twice.npz", "--seed", "3"], "are the same value"),
        (&["diff", "a.mlpackage", "out.npz", "--seed", "3", "--html", "page.html"], "`--html` needs two models"),
        (&["diff", "a.mlpackage", "out.npz", "--bisect"], "L0001"),
        (&["diff", "a.mlpackage"], "L0001"),
        (&["diff", "a.mlpackage", "gone.npz"], "R0001"),
    ] {
        let done = place.run(args);
        assert_eq!((done.code, done.stderr.contains(code)), (Some(2), true), "{args:?}: {}", done.stderr);
    }
}

#[test]
fn what_a_mac_made_of_a_bundle_is_read_back() {
    let place = Place::new();
    package(&place, "a.mlpackage", &layers("f32", Fault::None));
    place.run(&["bundle", "a.mlpackage", "-o", "a.bundle"]).ok();
    let early = place.run(&["diff", "a.bundle"]);
    assert_eq!((early.code, early.stderr.contains("swift run.swift")), (Some(2), true), "{}", early.stderr);
    // The expected outputs themselves, as if Core ML had written them.
    let bundle: Value =
        serde_json::from_slice(&std::fs::read(place.path("a.bundle/bundle.json")).expect("there")).expect("JSON");
    let output = bundle["models"][0]["outputs"][0]["file"].as_str().expect("a file");
    let expected = bundle["samples"][0]["expected"][0][0]["file"].as_str().expect("a file");
    let to = place.path("a.bundle/results/cpuOnly/0/0");
    std::fs::create_dir_all(&to).expect("room");
    std::fs::copy(place.path("a.bundle").join(expected), to.join(output)).expect("room");
    let report = serde_json::json!({
        "packages": [bundle["models"][0]["sha256"]], "device": "Mac14,2", "calls": [{"model": 0, "sample": 0}]
    });
    std::fs::write(place.path("a.bundle/results/cpuOnly/run.json"), report.to_string()).expect("room");
    let done = place.run(&["diff", "a.bundle"]).ok();
    assert!(done.stdout.contains("cpuOnly (Mac14,2)") && done.stdout.contains("equal"), "{}", done.stdout);
    let json = place.run(&["diff", "a.bundle", "--format", "json"]).ok().json();
    assert_eq!((&json["pass"], &json["devices"][0]["units"]), (&true.into(), &"cpuOnly".into()), "{json:#}");
}
