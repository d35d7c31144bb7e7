//! `mlconv check`: everything that stands in the way, at once, whatever a model lacks. And what `convert` finds before it
//! does any work.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use mlconv_proto::onnx::{
    StringStringEntryProto, TensorProto, TypeProto,
    tensor_proto::{DataLocation, DataType},
    type_proto,
};
use mlconv_tensor::{Bytes, Tensor};
use serde_json::Value;
use std::time::{Duration, Instant};
use support::{
    lowered::{F32, I64, int64},
    onnx::{Onnx, numbers, tensor, value},
    place::Place,
};

/// The report on a model, with the exit status.
fn report(model: &Onnx) -> (Value, Option<i32>) {
    let place = Place::new();
    place.file("m.onnx", &model.bytes());
    let done = place.run(&["check", "m.onnx", "--format", "json"]);
    assert_eq!(place.names(), ["m.onnx"]);
    (done.json(), done.code)
}

fn titles(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|d| d["title"].as_str().expect("text")).collect()
}

#[test]
fn forms_of_an_operator_are_grouped_and_counted() {
    let mut model = Onnx::new().input("x", F32, &[1, 1, 2, 2, 2, 2]).input("v", F32, &[1, 1, 2, 2, 2, 2, 2]);
    for i in 0..5 {
        let from = if i == 2 { "v" } else { "x" };
        model = model.node("GlobalAveragePool", &[from], &[&format!("p{i}")]).output(&format!("p{i}"), F32, &[]);
        model = model.node("StringSplit", &["x"], &[&format!("s{i}"), &format!("n{i}")]);
        model = model.node("Bogus", &["x"], &[&format!("b{i}")]);
    }
    let model = model.node("Cast", &["x"], &["c"]);
    let (report, code) = report(&model);
    assert_eq!(code, Some(1));
    let of = |op: &str| report["blockers"].as_array().expect("a list").iter().find(|d| d["operator"] == op).cloned();
    let strings = of("StringSplit").expect("a blocker");
    assert_eq!((&strings["nodes"], &strings["limit"]), (&5.into(), &"core_ml".into()), "{strings:#}");
    let place = strings["place"].as_array().expect("a list");
    assert_eq!(place[1], "node `stringsplit_s0` (StringSplit)");
    assert_eq!(place.last(), Some(&"and 2 more".into()));
    assert_eq!(
        (&of("Bogus").expect("a blocker")["nodes"], &of("Bogus").expect("one")["limit"]),
        (&5.into(), &Value::Null)
    );
    assert_eq!(titles(&report["blockers"]).iter().filter(|t| t.starts_with("`Cast`")).count(), 1);
    assert_eq!(report["nodes"]["all"], 16);
    assert!(report["nodes"]["blocked"].as_u64() >= Some(11), "{report:#}");
}

#[test]
fn the_last_line_says_what_it_comes_to() {
    let model = Onnx::new().input("x", F32, &[2]).node("StringSplit", &["x"], &["s"]).node("Det", &["s"], &["d"]);
    let mut model = model.node("TreeEnsemble", &["x"], &["e"]).node("Relu", &["x"], &["y"]).output("y", F32, &[2]);
    model.graph().node[2].domain = Some("ai.onnx.ml".to_owned());
    let place = Place::new();
    place.file("m.onnx", &model.bytes());
    let done = place.run(&["check", "m.onnx"]);
    let last = done.stdout.lines().last().unwrap_or_default();
    let want = "2 blockers at 2 of 4 nodes; 1 Core ML has no equal of; 1 mlconv does not do yet; 1 node not judged, as what \
                it reads is not known";
    assert_eq!((last, done.code), (want, Some(1)));
}

#[test]
fn inputs_and_outputs_that_are_no_tensors_are_blockers_beside_others() {
    let mut model = Onnx::new().input("x", F32, &[2]).input("s", F32, &[2]).input("f", F32, &[2]);
    let sequence = type_proto::Value::SequenceType(Box::default());
    let sequence = Some(TypeProto { value: Some(sequence), ..TypeProto::default() });
    model.graph().input[1].r#type = sequence.clone();
    model.graph().input[2] = value("f", DataType::Float8e4m3fnuz, &[2]);
    let mut model = model.node("Bogus", &["x"], &["y"]).output("y", F32, &[2]);
    model.graph().output[0].r#type = sequence;
    let (report, code) = report(&model);
    let titles = titles(&report["blockers"]);
    for part in [
        "the input is a sequence, which is not supported",
        "the input is a tensor of float8e4m3fnuz, which is not supported",
        "the output is a sequence, which is not supported",
        "`Bogus` is not supported",
    ] {
        assert!(titles.iter().any(|t| t.starts_with(part)), "{part}: {titles:?}");
    }
    assert_eq!((titles.len(), code), (4, Some(1)));
}

#[test]
fn types_that_do_not_go_together_are_found_beside_other_blockers() {
    let model =
        Onnx::new().input("x", DataType::Bool, &[2]).node("Sigmoid", &["x"], &["e"]).node("Bogus", &["x"], &["b"]);
    let (report, _) = report(&model.output("e", F32, &[2]).output("b", F32, &[2]));
    let line = &report["blockers"][0]["line"];
    assert!(titles(&report["blockers"])[0].contains("`x` is bool, wanted f16 or f32"), "{report:#}");
    assert_eq!(line, "%e = Sigmoid(%x: bool[2])");
}

#[test]
fn a_model_without_shapes_is_judged_as_far_as_types_are_stated() {
    let mut model = Onnx::new().input("x", F32, &[2, 3]).node("Relu", &["x"], &["a"]).node("Bogus", &["a"], &["b"]);
    model = model.node("Softmax", &["c"], &["y"]).node("Exp", &["b"], &["c"]).output("y", F32, &[]);
    let ty = model.graph().input[0].r#type.as_mut().and_then(|t| t.value.as_mut()).expect("a type");
    let type_proto::Value::TensorType(t) = ty else { unreachable!("a tensor") };
    t.shape = None;
    let (report, code) = report(&model);
    let titles = titles(&report["blockers"]);
    assert!(titles[0].contains("the model does not state its shape"), "{titles:?}");
    assert!(titles[1].starts_with("`Bogus`") && titles.len() == 2, "{titles:?}");
    assert_eq!((&report["nodes"]["not_judged"], code), (&3.into(), Some(1)));
}

/// Moves a weight into a file that is not there.
fn external(t: &mut TensorProto) {
    let bytes = t.raw_data.take().map_or(0, |b| b.len());
    t.data_location = Some(DataLocation::External as i32);
    let entry = |k: &str, v: String| StringStringEntryProto { key: Some(k.to_owned()), value: Some(v) };
    t.external_data = vec![
        entry("location", "gone.data".to_owned()),
        entry("offset", "0".to_owned()),
        entry("length", bytes.to_string()),
    ];
}

#[test]
fn weights_need_not_be_there() {
    let mut model =
        Onnx::new().input("x", F32, &[2, 64]).weight("w", &[64, 64], &numbers(4096)).weight("s", &[1], &[2.0]);
    model = model.node("MatMul", &["x", "w"], &["a"]).node("Div", &["a", "s"], &["y"]).output("y", F32, &[2, 64]);
    // Larger than any memory, and not looked at.
    let huge = tensor("huge", F32, &[1 << 20, 1 << 17], Bytes::new());
    let mut huge_model = model.clone();
    model.graph().initializer.iter_mut().for_each(external);
    let (found, code) = report(&model);
    assert_eq!((&found["convertible"], code), (&true.into(), Some(0)), "{found:#}");
    let note = &found["notes"][0];
    assert_eq!((&note["code"], note["severity"].as_str()), (&"F0110".into(), Some("warning")), "{note:#}");
    assert_eq!(
        note["title"],
        "the data of 2 constants are not there, in `gone.data`: the model is judged without them"
    );
    huge_model.graph().initializer.push(huge);
    huge_model.graph().initializer.iter_mut().for_each(external);
    let place = Place::new();
    place.file("m.onnx", &huge_model.bytes());
    let done = place.run(&["check", "m.onnx"]);
    assert!(matches!(done.code, Some(0 | 2)), "{}{}", done.stdout, done.stderr);
    place.file("m.onnx", &model.bytes());
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]).fails("R0001", "`gone.data` cannot be read");
    assert_eq!(place.names(), ["m.onnx"]);
}

#[test]
fn weights_of_other_types_need_no_room_either() {
    use DataType::{Bfloat16, Double, Int8, Int64, Uint8};
    for dtype in [Int64, Double, Uint8, Bfloat16] {
        let mut model = Onnx::new().input("i", Int64, &[3]).node("Gather", &["w", "i"], &["y"]);
        model.graph().initializer.push(tensor("w", dtype, &[1 << 30, 1 << 7], Bytes::new()));
        model.graph().initializer.iter_mut().for_each(external);
        let (found, code) = report(&model.output("y", dtype, &[3, 1 << 7]));
        assert_eq!((&found["nodes"]["not_judged"], code), (&1.into(), Some(0)), "{dtype:?}: {found:#}");
    }
    let mut model = Onnx::new().input("x", F32, &[2, 1 << 20]).weight("s", &[], &[0.5]);
    model.graph().initializer.push(tensor("w", Int8, &[1 << 20, 1 << 20], Bytes::new()));
    external(&mut model.graph().initializer[1]);
    let model = model.node("DequantizeLinear", &["w", "s"], &["f"]).node("MatMul", &["x", "f"], &["y"]);
    let (found, code) = report(&model.output("y", F32, &[2, 1 << 20]));
    assert_eq!((&found["nodes"]["not_judged"], code), (&2.into(), Some(0)), "{found:#}");
}

#[cfg(unix)]
#[test]
fn weights_of_gigabytes_are_not_read() {
    let mut model = Onnx::new().input("x", F32, &[2, 1 << 15]).node("MatMul", &["x", "w"], &["y"]);
    model.graph().initializer.push(tensor("w", F32, &[1 << 15, 1 << 14], Bytes::new()));
    model.graph().initializer.iter_mut().for_each(external);
    model.graph().initializer[0].external_data[2].value = Some((1u64 << 31).to_string());
    let place = Place::new();
    place.file("m.onnx", &model.output("y", F32, &[2, 1 << 14]).bytes());
    // Holes of a file take no room.
    let file = std::fs::File::create(place.path("gone.data")).expect("room");
    file.set_len(1 << 31).expect("room");
    let start = Instant::now();
    let done = place.run(&["check", "m.onnx"]).ok();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(done.stdout.contains("2.1 GB of weights are not read"), "{}", done.stdout);
}

#[test]
fn what_depends_on_a_shape_that_is_not_there_is_not_judged() {
    let mut model = Onnx::new().input("x", F32, &[2, 6]);
    model.graph().initializer.push(int64("shape", &[2], &[3, 4]));
    model.graph().initializer.iter_mut().for_each(external);
    let model = model.node("Reshape", &["x", "shape"], &["r"]).node("Relu", &["r"], &["y"]).output("y", F32, &[3, 4]);
    let (found, code) = report(&model);
    assert_eq!(
        (&found["convertible"], &found["nodes"]["not_judged"], code),
        (&true.into(), &2.into(), Some(0)),
        "{found:#}"
    );
    assert!(found["notes"][0]["place"].to_string().contains("not judged: node `reshape_r`"), "{found:#}");
    // What else stands in the way is found all the same.
    let (found, code) = report(&model.node("Bogus", &["x"], &["b"]).output("b", F32, &[2, 6]));
    assert_eq!((titles(&found["blockers"]).len(), code), (1, Some(1)), "{found:#}");
}

#[test]
fn outputs_without_elements_are_core_mls_limit() {
    let model = Onnx::new().input("x", F32, &[4]).weight("w", &[0], &[]).node("Identity", &["w"], &["y"]);
    let (found, code) = report(&model.node("Relu", &["x"], &["z"]).output("z", F32, &[4]).output("y", F32, &[0]));
    let d = &found["blockers"][0];
    assert_eq!((&d["code"], &d["limit"], code), (&"X0003".into(), &"core_ml".into(), Some(1)), "{found:#}");
}

#[test]
fn many_nodes_take_seconds() {
    let mut model = Onnx::new().input("x", F32, &[4]);
    let mut last = "x".to_owned();
    for i in 0..20_000 {
        let (op, next) = (if i % 2 == 0 { "Bogus" } else { "Relu" }, format!("v{i}"));
        model = model.node(op, &[&last], &[&next]);
        last = next;
    }
    let model = model.output(&last, F32, &[4]);
    let start = Instant::now();
    let (found, _) = report(&model);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!((&found["blockers"][0]["nodes"], &found["nodes"]["all"]), (&10_000.into(), &20_000.into()));
}

#[test]
fn samples_and_labels_are_checked_before_any_work() {
    let model = Onnx::new().input("x", F32, &[1, 2]).node("Relu", &["x"], &["y"]).output("y", F32, &[1, 2]);
    let place = Place::new();
    place.file("m.onnx", &model.bytes());
    let rows = |n: usize, width: usize| Tensor::from_vec(&[n, width], vec![0.5f32; n * width]);
    place.arrays("three.npz", &[("x", rows(3, 2))]);
    place.arrays("wide.npz", &[("x", rows(3, 5))]);
    let labels = |name: &str, values: &[i32]| {
        place.arrays(name, &[("l", Tensor::from_vec(&[values.len()], values.to_vec()))]);
    };
    labels("two.npz", &[0, 1]);
    labels("classes.npz", &[0, 1, 2]);
    labels("right.npz", &[0, 1, 1]);
    let convert = ["convert", "m.onnx", "-o", "p.mlpackage", "--sample"];
    let all = |more: &[&str]| place.run(&[&convert[..], more].concat());
    let before = place.names();
    all(&["wide.npz"]).fails("N0003", "input `x` is f32[3, 5], wanted f32[1, 2]");
    all(&["three.npz", "--labels", "two.npz"]).fails("N0003", "2 labels for 3 samples");
    all(&["three.npz", "--labels", "classes.npz"]).fails("N0003", "label 2 of sample 2 is none of the 2 classes");
    assert_eq!(place.names(), before, "nothing is written");
    all(&["three.npz", "--labels", "right.npz"]).ok();
}

/// A reshape of six elements to a shape that is an input: made-up sizes are 0 or 1.
fn reshaping() -> Onnx {
    let model = Onnx::new().input("x", F32, &[6]).input("shape", I64, &[2]).node("Reshape", &["x", "shape"], &["y"]);
    let mut model = model.output("y", F32, &[3, 2]);
    model.graph().output[0].r#type = None;
    model
}

#[test]
fn a_source_that_does_not_run_on_made_up_inputs_is_converted_and_said() {
    let place = Place::new();
    place.file("m.onnx", &reshaping().bytes());
    let convert = ["convert", "m.onnx", "--precision", "fp32", "-o"];
    let done = place.run(&[&convert[..], &["p.mlpackage", "--format", "json"]].concat()).ok();
    let report = done.json();
    assert_eq!(report["parity"], Value::Null);
    let warning = report["warnings"].as_array().expect("a list").iter().find(|d| d["code"] == "N0007").cloned();
    let warning = warning.expect("a warning");
    assert!(warning["title"].as_str().is_some_and(|t| t.starts_with("the source does not run on made-up inputs")));
    assert!(warning["help"].as_str().is_some_and(|h| h.contains("--sample")), "{warning:#}");
    assert!(place.path("p.mlpackage").is_dir());
    let inputs = |shape: [i32; 2]| {
        let x = Tensor::from_vec(&[6], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        [("x", x), ("shape", Tensor::from_vec(&[2], shape.to_vec()))]
    };
    place.arrays("right.npz", &inputs([3, 2]));
    place.arrays("wrong.npz", &inputs([4, 4]));
    place.run(&[&convert[..], &["q.mlpackage", "--sample", "right.npz"]].concat()).ok();
    // The comparison on these samples was asked for, and could not be made.
    let done = place.run(&[&convert[..], &["r.mlpackage", "--sample", "wrong.npz"]].concat());
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), "r.mlpackage\n"), "{}", done.stderr);
    assert!(done.stderr.contains("the source does not run on the samples"), "{}", done.stderr);
}
