//! The command line as users and scripts see it: what is printed where, exit statuses, and what is left on disk.

mod support;

use mlconv::arrays::read_npz;
use mlconv_proto::onnx::{
    AttributeProto, StringStringEntryProto, attribute_proto::AttributeType, tensor_proto::DataLocation,
    tensor_proto::DataType,
};
use mlconv_tensor::{Bytes, Tensor};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use support::{
    files,
    onnx::{Onnx, tensor, value},
    place::{Done, Place},
};

const F32: DataType = DataType::Float;

/// `y = relu(x + w)`, `x: f32[2, 3]`.
fn small() -> Onnx {
    Onnx::new()
        .input("x", F32, &[2, 3])
        .weight("w", &[3], &[1.0, -2.0, 0.5])
        .node("Add", &["x", "w"], &["a"])
        .node("Relu", &["a"], &["y"])
        .output("y", F32, &[2, 3])
}

/// A model of the given megabytes of weights, in a sparse file beside it.
fn large(place: &Place, megabytes: usize) -> PathBuf {
    const PART: usize = 1 << 24;
    let mut model = Onnx::new().input("x", F32, &[1]);
    let data = fs::File::create(place.path("weights.data")).expect("room");
    data.set_len((megabytes << 20) as u64).expect("room");
    let mut last = "x".to_owned();
    for i in 0..(megabytes << 20) / PART {
        use std::os::unix::fs::FileExt;
        // Equal weights would be stored once.
        data.write_all_at(&(i as f32 + 1.0).to_le_bytes(), (i * PART) as u64).expect("room");
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        let mut weight = tensor(&format!("w{i}"), F32, &[(PART / 4) as i64], Bytes::new());
        weight.raw_data = None;
        weight.data_location = Some(DataLocation::External as i32);
        weight.external_data = vec![
            entry("location", "weights.data".to_owned()),
            entry("offset", (i * PART).to_string()),
            entry("length", PART.to_string()),
        ];
        model.graph().initializer.push(weight);
        let next = format!("y{i}");
        model = model.node("Add", &[&last, &format!("w{i}")], &[&next]);
        last = next;
    }
    let model = model.output(&last, F32, &[(PART / 4) as i64]);
    place.file("large.onnx", &model.bytes())
}

#[test]
fn a_conversion_prints_the_path_and_nothing_else() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    let done = place.run(&["convert", "m.onnx", "-o", "out.mlpackage"]).ok();
    assert_eq!(done.stdout, "out.mlpackage\n");
    assert!(done.stderr.contains("2 nodes of ONNX") && done.stderr.contains("y  f32[2, 3]"), "{}", done.stderr);
    assert_eq!(place.names(), ["m.onnx", "out.mlpackage"]);
    let quiet = place.run(&["convert", "m.onnx", "-o", "quiet.mlpackage", "--quiet"]).ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("quiet.mlpackage\n", ""));
}

#[test]
fn an_existing_target_is_replaced_only_by_force() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    place.run(&["convert", "m.onnx", "-o", "out.mlpackage"]).ok();
    let before = place.package("out.mlpackage");
    place.run(&["convert", "m.onnx", "-o", "out.mlpackage", "--precision", "fp32"]).fails("X0002", "--force");
    assert_eq!(place.package("out.mlpackage"), before);
    place.run(&["convert", "m.onnx", "-o", "out.mlpackage", "--precision", "fp32", "--force"]).ok();
    assert_ne!(place.package("out.mlpackage"), before);
    assert_eq!(place.names(), ["m.onnx", "out.mlpackage"]);
}

#[test]
fn samples_of_double_precision_are_rounded_and_said() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]).ok();
    let doubles: Vec<f64> = (0..6).map(|i| f64::from(i) * 0.1).collect();
    let singles: Vec<f32> = doubles.iter().map(|x| *x as f32).collect();
    place.arrays("d.npz", &[("x", Tensor::from_vec(&[2, 3], doubles))]);
    place.arrays("s.npz", &[("x", Tensor::from_vec(&[2, 3], singles))]);
    place.arrays("large.npz", &[("x", Tensor::from_vec(&[2, 3], vec![1e39; 6]))]);
    let said = "elements are f64, and are rounded to f32";
    for args in [
        &["run", "p.mlpackage", "--outputs", "d_out.npz", "--inputs"][..],
        &["convert", "m.onnx", "-o", "q.mlpackage", "--force", "--sample"],
        &["compress", "p.mlpackage", "-o", "r.mlpackage", "--force", "--preset", "none", "--sample"],
        &["verify", "p.mlpackage", "--against", "m.onnx", "--sample"],
    ] {
        let with = |samples| place.run(&[args, &[samples]].concat());
        let stderr = with("d.npz").ok().stderr;
        assert_eq!(stderr.matches(said).count(), 1, "{args:?}: {stderr}");
        with("large.npz").fails("N0003", "not every value fits");
    }
    place.run(&["run", "p.mlpackage", "--outputs", "s_out.npz", "--inputs", "s.npz"]).ok();
    assert_eq!(read_npz(&place.path("d_out.npz")).expect("there"), read_npz(&place.path("s_out.npz")).expect("there"));
}

#[test]
fn what_is_no_package_is_never_replaced() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    fs::create_dir(place.path("home.mlpackage")).expect("room");
    place.file("home.mlpackage/diary", b"dear");
    place.file("file.mlpackage", b"text");
    for target in ["home.mlpackage", "file.mlpackage"] {
        place.run(&["convert", "m.onnx", "-o", target, "--force"]).fails("X0002", target);
    }
    assert_eq!(fs::read(place.path("home.mlpackage/diary")).expect("there"), b"dear");
    assert_eq!(place.names(), ["file.mlpackage", "home.mlpackage", "m.onnx"]);
    place.run(&["convert", "m.onnx", "-o", "out"]).fails("L0001", ".mlpackage");
}

#[test]
fn equal_runs_give_equal_bytes() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    let mut sources = vec![place.path("m.onnx")];
    sources.push(place.path("one.mlpackage"));
    place.run(&["convert", "m.onnx", "-o", "one.mlpackage"]).ok();
    for source in sources {
        let source = source.display().to_string();
        for (name, jobs) in [("a", "1"), ("b", "2"), ("c", "2"), ("d", "0"), ("e", "8")] {
            let out = format!("{name}.mlpackage");
            place.run(&["convert", &source, "-o", &out, "--jobs", jobs, "--force"]).ok();
        }
        let first = place.package("a.mlpackage");
        for other in ["b.mlpackage", "c.mlpackage", "d.mlpackage", "e.mlpackage"] {
            assert!(place.package(other) == first, "{source}: {other} has other bytes");
        }
    }
    let outputs = |name: &str, jobs: &str| {
        place.run(&["run", "one.mlpackage", "--outputs", name, "--jobs", jobs]).ok();
        fs::read(place.path(name)).expect("written")
    };
    assert_eq!(outputs("a.npz", "1"), outputs("b.npz", "2"));
}

#[test]
fn models_of_the_fixtures_convert_and_agree() {
    let place = Place::new();
    for path in files(&support::fixtures().join("models"), "onnx") {
        let (path, out) = (path.display().to_string(), place.path("out.mlpackage").display().to_string());
        for precision in ["fp32", "fp16"] {
            place.run(&["convert", &path, "-o", &out, "--precision", precision, "--force"]).ok();
            let first = place.package("out.mlpackage");
            for jobs in ["1", "8"] {
                place.run(&["convert", &path, "-o", &out, "--precision", precision, "--force", "--jobs", jobs]).ok();
                assert!(
                    place.package("out.mlpackage") == first,
                    "{path}: {precision} has other bytes of {jobs} threads"
                );
            }
            let done = place.run(&["verify", &out, "--against", &path]).ok();
            assert!(done.stdout.contains("logits"), "{}", done.stdout);
        }
    }
}

#[test]
fn json_is_versioned_and_alone_on_stdout() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    let convert = ["convert", "m.onnx", "-o", "p.mlpackage", "--format", "json"];
    let json = place.run(&convert).ok().json();
    assert_eq!((&json["command"], &json["parity"]["pass"]), (&"convert".into(), &true.into()));
    for command in [
        &["inspect", "p.mlpackage"][..],
        &["check", "m.onnx"],
        &["verify", "p.mlpackage", "--against", "m.onnx"],
        &["run", "p.mlpackage"],
        &["passes"],
        &["ops"],
        &["ops", "conv"],
    ] {
        let json = place.run(&[command, &["--format", "json"]].concat()).ok().json();
        assert_eq!(json["command"], command[0], "{json}");
    }
    // A failure is JSON as well, and the diagnostic is on stderr all the same.
    for failing in [&["inspect", "none.onnx", "--format", "json"][..], &["inspect", "--format=json"], &convert] {
        let done = place.run(failing);
        assert_eq!(done.code, Some(2));
        assert!(done.json()["errors"][0]["code"].is_string(), "{}", done.stdout);
        assert!(done.stderr.starts_with("error["), "{}", done.stderr);
    }
}

#[test]
fn what_cannot_be_done_is_one_diagnostic() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    place.run(&["convert", "none.onnx", "-o", "p.mlpackage"]).fails("R0001", "none.onnx");
    place.run(&["convert", "m.onnx"]).fails("L0001", "-o");
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--target", "ios3"]).fails("L0001", "ios3");
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--bogus"]).fails("L0001", "--bogus");
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--output", "z"]).fails("L0001", "`z`");
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--input", "x=1x2x"]).fails("L0001", "dimension");
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--input", "q=1x2"]).fails("L0001", "`q`");
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--input", "x=7x7"]).fails("L0001", "does not fit");
    place.run(&["convert", "m.onnx", "-o", "no/such/p.mlpackage"]).fails("X0001", "no/such");
    place.run(&["nonsense"]).fails("L0001", "nonsense");
    place.run(&["ops", "nonsense"]).fails("L0001", "nonsense");
    place.run(&["passes", "nonsense"]).fails("L0001", "nonsense");
    place.run(&["run", "m.onnx", "--function", "f"]).fails("L0001", "`f`");
    place.run(&["run", "m.onnx", "--inputs", "none.npz"]).fails("R0001", "none.npz");
    place.run(&["run", "m.onnx", "--inputs", "m.onnx"]).fails("R0007", "m.onnx");
    assert_eq!(place.names(), ["m.onnx"]);
    let nothing = place.run(&[]);
    assert_eq!(nothing.code, Some(2));
    assert!(place.run(&["--help"]).ok().stdout.contains("convert"));
    assert!(place.run(&["--version"]).ok().stdout.starts_with("mlconv "));
}

#[test]
fn every_blocker_is_listed_and_nothing_is_written() {
    let place = Place::new();
    let model = small().node("Bogus", &["y"], &["b"]).node("Bogus", &["b"], &["c"]).node("Other", &["x"], &["d"]);
    place.file("m.onnx", &model.output("c", F32, &[2, 3]).output("d", F32, &[2, 3]).bytes());
    let done = place.run(&["check", "m.onnx"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for part in ["`Bogus` is not supported", "`Other` is not supported", "2 blockers"] {
        assert!(done.stdout.contains(part), "{part}: {}", done.stdout);
    }
    let done = place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""));
    assert!(done.stderr.contains("Bogus") && done.stderr.contains("Other"), "{}", done.stderr);
    assert_eq!(place.names(), ["m.onnx"]);
}

#[test]
fn what_lies_behind_a_blocker_is_checked_where_its_type_is_stated() {
    let place = Place::new();
    let mut model = small().node("Bogus", &["y"], &["b"]).node("Relu", &["b"], &["c"]).output("c", F32, &[2, 3]);
    model.graph().value_info.push(value("b", F32, &[2, 3]));
    let odd = AttributeProto { name: Some("odd".to_owned()), i: Some(1), ..AttributeProto::default() };
    let node = model.graph().node.last_mut().expect("a node");
    node.attribute.push(AttributeProto { r#type: Some(AttributeType::Int as i32), ..odd });
    place.file("m.onnx", &model.bytes());
    let done = place.run(&["check", "m.onnx"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for part in ["`Bogus` is not supported", "`odd`", "2 blockers"] {
        assert!(done.stdout.contains(part), "{part}: {}", done.stdout);
    }
}

#[test]
fn ranks_that_core_ml_does_not_have_are_placed() {
    let place = Place::new();
    let model =
        Onnx::new().input("x", F32, &[1, 1, 1, 1, 1, 2]).node("Relu", &["x"], &["h"]).node("Neg", &["h"], &["y"]);
    place.file("m.onnx", &model.output("y", F32, &[1, 1, 1, 1, 1, 2]).bytes());
    let done = place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    for part in ["error[X0003]: input `x` is of rank 6", "error[X0003]: output `y` is of rank 6", "join axes"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
}

#[test]
fn what_is_asked_for_and_not_applied_is_status_one() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    let done = place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--keep-fp32", "softmax*"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), "p.mlpackage\n"), "{}", done.stderr);
    assert!(done.stderr.contains("warning[L0002]") && done.stderr.contains("softmax*"), "{}", done.stderr);
}

#[test]
fn models_that_differ_are_status_one() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    let mut other = small();
    other.graph().initializer.clear();
    place.file("other.onnx", &other.weight("w", &[3], &[9.0, 9.0, 9.0]).bytes());
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]).ok();
    place.run(&["verify", "p.mlpackage", "--against", "m.onnx"]).ok();
    let done = place.run(&["verify", "p.mlpackage", "--against", "other.onnx"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stdout.contains("DIFFERS"), "{}", done.stdout);
    let strict = place.run(&["verify", "p.mlpackage", "--against", "m.onnx", "--min-snr", "500"]);
    assert!(matches!(strict.code, Some(0 | 1)), "{}", strict.stderr);
}

#[test]
fn odd_names_are_renamed_and_both_are_understood() {
    let place = Place::new();
    let (input, output) = ("serving/in put:0", "/out.1");
    let model = Onnx::new().input(input, F32, &[2]).node("Relu", &[input], &[output]).output(output, F32, &[2]);
    place.file("m.onnx", &model.bytes());
    let done = place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]).ok();
    assert!(done.stderr.contains("`serving/in put:0` is called `serving_in_put_0`"), "{}", done.stderr);
    let x = Tensor::from_vec(&[2], vec![-1f32, 2.0]);
    for (file, name) in [("a.npz", input), ("b.npz", "serving_in_put_0"), ("c.npz", "nothing alike")] {
        place.arrays(file, &[(name, x.clone())]);
        place.run(&["run", "p.mlpackage", "--inputs", file, "--outputs", "y.npz"]).ok();
        let y = read_npz(&place.path("y.npz")).expect("arrays");
        assert_eq!(y.keys().collect::<Vec<_>>(), [output]);
        assert_eq!(y[output].to_f64(), [0.0, 2.0], "{name}");
    }
    place.run(&["verify", "p.mlpackage", "--against", "m.onnx", "--sample", "a.npz"]).ok();
}

#[test]
fn arrays_that_do_not_fit_are_named() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]).ok();
    let ones = |shape: &[usize]| Tensor::from_vec(shape, vec![1f32; shape.iter().product()]);
    for model in ["m.onnx", "p.mlpackage"] {
        let run = |arrays: &[(&str, Tensor)]| {
            place.arrays("in.npz", arrays);
            place.run(&["run", model, "--inputs", "in.npz", "--outputs", "out.npz"])
        };
        run(&[("x", ones(&[3, 3]))]).fails("N0003", "input `x` is f32[3, 3], wanted f32[2, 3]");
        run(&[("x", ones(&[6]))]).fails("N0003", "input `x` is f32[6], wanted f32[2, 3]");
        run(&[("x", Tensor::from_vec(&[2, 3], vec![1i32; 6]))])
            .fails("N0003", "input `x` is i32[2, 3], wanted f32[2, 3]");
        run(&[("x", Tensor::from_vec(&[2, 3], vec![1e39f64; 6]))]).fails("N0003", "not every value fits");
        let extra = run(&[("x", ones(&[2, 3])), ("z", ones(&[2, 3]))]).ok();
        assert!(extra.stderr.contains("warning[N0004]: not used, as no input has the name: `z`"), "{}", extra.stderr);
        let other = run(&[("z", ones(&[2, 3]))]).ok();
        assert!(other.stderr.contains("`z` taken for `x`, in order"), "{}", other.stderr);
        run(&[("z", ones(&[2, 3])), ("y", ones(&[2, 3]))]).fails("N0003", "2 arrays for 1 inputs");
        run(&[]).fails("N0003", "input `x` is missing, wanted f32[2, 3]");
        run(&[("x", Tensor::from_vec(&[2, 3], vec![0.5f64; 6]))]).ok();
    }
    assert_eq!(place.names(), ["in.npz", "m.onnx", "out.npz", "p.mlpackage"]);
}

/// `y = log(|x * scale| + 1e-10)`, which half precision cannot hold at 0.
fn logarithm(scale: f32) -> Onnx {
    Onnx::new()
        .input("x", F32, &[4])
        .weight("e", &[], &[1e-10])
        .weight("s", &[], &[scale])
        .node("Mul", &["x", "s"], &["m"])
        .node("Abs", &["m"], &["q"])
        .node("Add", &["q", "e"], &["a"])
        .node("Log", &["a"], &["y"])
        .output("y", F32, &[4])
}

#[test]
fn a_logarithm_of_nothing_but_an_epsilon_is_right_in_half_precision() {
    let place = Place::new();
    place.file("m.onnx", &logarithm(1.0).bytes());
    place.arrays("x.npz", &[("x", Tensor::from_vec(&[4], vec![0f32, 0.5, -1.0, 2.0]))]);
    let done = place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--sample", "x.npz"]).ok();
    assert!(done.stderr.contains("1 op kept in 32-bit precision: `y` holds 1e-10"), "{}", done.stderr);
    assert!(done.stderr.contains("1 op kept in 32-bit precision: `x` may be too small"), "{}", done.stderr);
    let convert = ["convert", "m.onnx", "-o", "q.mlpackage", "--keep-fp32", "log", "--format", "json"];
    let json = place.run(&convert).ok().json();
    assert_eq!((json["kept_fp32"].as_array().map(Vec::len), &json["kept_fp32"][1]["asked"]), (Some(2), &true.into()));
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1), "{json}");
    // What is emulated has no op in 32 bits.
    let done = place.run(&["run", "m.onnx", "--inputs", "x.npz", "--emulate", "fp16"]).ok();
    assert!(done.stderr.contains("warning[N0005]: `log` is the first op"), "{}", done.stderr);
}

#[test]
fn an_epsilon_that_is_kept_is_not_rounded_by_emulation() {
    let place = Place::new();
    let mut model = Onnx::new()
        .input("x", F32, &[1, 4])
        .weight("w", &[4], &[1.0; 4])
        .node("Relu", &["x"], &["r"])
        .node("LayerNormalization", &["r", "w"], &["y"])
        .output("y", F32, &[1, 4]);
    let node = model.graph().node.last_mut().expect("a node");
    let epsilon = AttributeProto { name: Some("epsilon".to_owned()), f: Some(1e-12), ..AttributeProto::default() };
    node.attribute.push(AttributeProto { r#type: Some(AttributeType::Float as i32), ..epsilon });
    place.file("m.onnx", &model.bytes());
    place.arrays("x.npz", &[("x", Tensor::from_vec(&[1, 4], vec![0.5f32; 4]))]);
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]).ok();
    let emulated = |model| place.run(&["run", model, "--inputs", "x.npz", "--emulate", "fp16"]).ok().stderr;
    assert!(emulated("m.onnx").contains("warning[N0005]"));
    assert!(!emulated("p.mlpackage").contains("warning[N0005]"));
}

#[test]
fn a_comparison_that_fails_says_what_to_try() {
    let place = Place::new();
    let mut model = logarithm(1.0);
    model.graph().node.truncate(1);
    model.graph().initializer.truncate(2);
    model.graph().output.clear();
    let model = model.output("m", F32, &[4]).bytes();
    place.file("m.onnx", &model);
    place.arrays("x.npz", &[("x", Tensor::from_vec(&[4], vec![1e-9f32, 2e-9, 1e-9, 3e-9]))]);
    // Samples that show it keep the op in 32 bits.
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--sample", "x.npz"]).ok();
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage", "--no-verify", "--force"]).ok();
    let done = place.run(&["verify", "p.mlpackage", "--against", "m.onnx", "--sample", "x.npz", "--quiet"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for part in
        ["warning[N0001]: beyond tolerance, which is 40 dB SNR", "--bisect` finds the op", "below what half precision"]
    {
        assert!(done.stderr.contains(part) || done.stdout.contains(part), "{part}: {}{}", done.stdout, done.stderr);
    }
    place.arrays("nan.npz", &[("x", Tensor::from_vec(&[4], vec![f32::NAN; 4]))]);
    place.arrays("none.npz", &[]);
    let done = place.run(&["run", "m.onnx", "--inputs", "nan.npz"]).ok();
    assert!(done.stderr.contains("there are NaN") && done.stdout.contains("no element is finite"), "{}", done.stdout);
    place.run(&["convert", "m.onnx", "-o", "q.mlpackage", "--sample", "none.npz"]).fails("N0003", "holds no array");
}

#[test]
fn what_was_asked_of_inputs_is_held_to() {
    let place = Place::new();
    let mut model = Onnx::new().input("a", F32, &[-1, 2]).input("b", F32, &[-1, 2]).node("Add", &["a", "b"], &["y"]);
    for input in &mut model.graph().input {
        name_first_size(input, "rows");
    }
    place.file("m.onnx", &model.output("y", F32, &[-1, 2]).bytes());
    let done = place.run(&["inspect", "m.onnx", "--input", "a=3x2"]).ok();
    assert!(done.stdout.contains("b  f32[3, 2]"), "{}{}", done.stdout, done.stderr);
    let given = |inputs: &[&str]| {
        let flags = inputs.iter().flat_map(|i| ["--input", i]);
        place.run(&["inspect", "m.onnx"].into_iter().chain(flags).collect::<Vec<_>>())
    };
    given(&["a=3x2", "b=4x2"]).fails("L0001", "size `rows` is 3 by `--input` for `a`, 4 for `b`");
    given(&["a=3x2", "a=3x2"]).fails("L0001", "given twice for `a`");
    given(&["a=3x2:i32"]).fails("L0001", "the input is f32 in the source");
    place.run(&["ops", "--jobs", "10000"]).fails("L0001", "0 to 1024");
    place.run(&["run", "m.onnx", "--seed", "-1"]).fails("L0001", "whole number");
    place.run(&["verify", "m.onnx", "--against", "m.onnx", "--min-snr", "nan"]).fails("L0001", "a number of dB");
    let typo = place.run(&["convrt"]);
    typo.fails("L0001", "`convert`");
    assert!(!typo.stderr.contains("For more information"), "{}", typo.stderr);
}

fn name_first_size(value: &mut mlconv_proto::onnx::ValueInfoProto, name: &str) {
    use mlconv_proto::onnx::{tensor_shape_proto::dimension, type_proto};
    let Some(type_proto::Value::TensorType(t)) = value.r#type.as_mut().and_then(|t| t.value.as_mut()) else { return };
    let Some(dim) = t.shape.as_mut().and_then(|s| s.dim.first_mut()) else { return };
    dim.value = Some(dimension::Value::DimParam(name.to_owned()));
}

#[test]
fn outputs_of_a_package_are_kept_as_asked() {
    let place = Place::new();
    let two = small().node("Neg", &["y"], &["z"]).output("z", F32, &[2, 3]);
    place.file("m.onnx", &two.bytes());
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]).ok();
    let json = place.run(&["run", "p.mlpackage", "--output", "z", "--format", "json"]).ok().json();
    assert_eq!((json["outputs"].as_array().map(Vec::len), &json["outputs"][0]["name"]), (Some(1), &"z".into()));
    place.run(&["inspect", "p.mlpackage", "--output", "q"]).fails("L0001", "no output `q`");
    let done = place.run(&["run", "p.mlpackage", "--target", "ios18"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("warning[L0002]"), "{}", done.stderr);
    let done = place.run(&["check", "p.mlpackage", "--keep-fp32", "nothing"]);
    assert_eq!(done.code, Some(1), "{}", done.stdout);
    // What only other outputs need stands in nobody's way.
    let bogus = small().node("Bogus", &["y"], &["z"]).output("z", F32, &[2, 3]);
    place.file("bogus.onnx", &bogus.bytes());
    place.run(&["check", "bogus.onnx", "--output", "y"]).ok();
    let seen = place.run(&["inspect", "bogus.onnx"]).ok();
    for part in ["input   x", "Bogus", "constants", "blockers", "`Bogus` is not supported"] {
        assert!(seen.stdout.contains(part), "{part}: {}", seen.stdout);
    }
    let json = place.run(&["inspect", "bogus.onnx", "--format", "json"]).ok().json();
    assert_eq!(json["blockers"].as_array().map(Vec::len), Some(1), "{json}");
    let json = place.run(&["inspect", "m.onnx", "--mil", "--format", "json"]).ok().json();
    assert!(json["mil"].as_str().is_some_and(|t| t.contains("func @main")), "{json}");
}

#[test]
fn outputs_replace_arrays_and_nothing_else() {
    let place = Place::new();
    place.file("m.onnx", &small().bytes());
    place.file("notes.txt", b"keep me");
    place.arrays("x.npz", &[("x", Tensor::from_vec(&[2, 3], vec![1f32; 6]))]);
    place.run(&["run", "m.onnx", "--outputs", "y.npz"]).ok();
    place.run(&["run", "m.onnx", "--outputs", "y.npz"]).ok();
    place.run(&["run", "m.onnx", "--outputs", "notes.txt"]).fails("X0002", "notes.txt");
    place.run(&["run", "m.onnx", "--outputs", "new.npy"]).fails("L0001", "write to `new.npz`");
    place.run(&["run", "m.onnx", "--outputs", "m.onnx"]).fails("L0001", "m.onnx");
    place.run(&["run", "m.onnx", "--inputs", "x.npz", "--outputs", "x.npz"]).fails("L0001", "x.npz");
    place.run(&["run", "m.onnx", "--outputs", "no/y.npz"]).fails("X0001", "there is no folder");
    assert_eq!(fs::read(place.path("notes.txt")).expect("there"), b"keep me");
}

#[cfg(unix)]
mod unix {
    use super::*;

    #[test]
    fn a_link_to_a_package_is_followed() {
        let place = Place::new();
        place.file("m.onnx", &small().bytes());
        fs::create_dir(place.path("far")).expect("room");
        place.run(&["convert", "m.onnx", "-o", "far/real.mlpackage"]).ok();
        let before = place.package("far/real.mlpackage");
        std::os::unix::fs::symlink("far/real.mlpackage", place.path("out.mlpackage")).expect("a link");
        std::os::unix::fs::symlink("far/none.mlpackage", place.path("loose.mlpackage")).expect("a link");
        let convert = ["convert", "m.onnx", "--precision", "fp32", "-o"];
        place.run(&[&convert[..], &["out.mlpackage"]].concat()).fails("X0002", "--force");
        let done = place.run(&[&convert[..], &["out.mlpackage", "--force"]].concat()).ok();
        assert_eq!(done.stdout, "out.mlpackage\n");
        assert!(place.path("out.mlpackage").is_symlink());
        assert_ne!(place.package("far/real.mlpackage"), before);
        place.run(&[&convert[..], &["loose.mlpackage", "--force"]].concat()).fails("X0002", "no package");
        assert_eq!(place.names(), ["far", "loose.mlpackage", "m.onnx", "out.mlpackage"]);
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let place = Place::new();
        let script = format!("'{}' ops --format json; echo $? >status", env!("CARGO_BIN_EXE_mlconv"));
        let mut child =
            place.command("sh", &["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh");
        // Nobody reads; the pipe closes.
        drop(child.stdout.take());
        let done = Done::of(child.wait_with_output().expect("it ends"));
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
        assert_eq!(fs::read_to_string(place.path("status")).expect("written"), "0\n");
    }

    #[test]
    fn a_full_disk_under_stdout_is_an_error() {
        if !Path::new("/dev/full").exists() {
            return;
        }
        let place = Place::new();
        let script = format!("'{}' ops >/dev/full", env!("CARGO_BIN_EXE_mlconv"));
        let done = Done::of(place.command("sh", &["-c", &script]).output().expect("sh"));
        done.fails("X0001", "cannot be printed");
    }

    #[test]
    fn a_device_is_written_to_and_stays_one() {
        let place = Place::new();
        place.file("m.onnx", &small().bytes());
        place.run(&["run", "m.onnx", "--outputs", "/dev/null"]).ok();
        assert!(!fs::metadata("/dev/null").expect("there").is_file());
        std::os::unix::fs::symlink("real.npz", place.path("link.npz")).expect("a link");
        place.file("real.npz", b"old");
        place.run(&["run", "m.onnx", "--outputs", "link.npz"]).ok();
        assert!(place.path("link.npz").is_symlink());
        assert_eq!(read_npz(&place.path("real.npz")).expect("arrays").len(), 1);
    }

    #[test]
    fn links_out_of_the_folder_are_not_followed() {
        let place = Place::new();
        fs::create_dir(place.path("models")).expect("room");
        place.file("secret.data", &[0; 8]);
        std::os::unix::fs::symlink("../secret.data", place.path("models/link.data")).expect("a link");
        std::os::unix::fs::symlink("..", place.path("models/up")).expect("a link");
        for location in ["link.data", "up/secret.data"] {
            let mut model = small();
            let w = &mut model.graph().initializer[0];
            w.raw_data = None;
            w.data_location = Some(DataLocation::External as i32);
            let entry = StringStringEntryProto { key: Some("location".to_owned()), value: Some(location.to_owned()) };
            w.external_data = vec![entry];
            place.file("models/m.onnx", &model.bytes());
            place.run(&["inspect", "models/m.onnx"]).fails("R0004", location);
        }
    }

    /// Runs a command that may write no file of more than a kilobyte.
    fn on_a_full_disk(place: &Place, args: &str) -> Done {
        let script = format!("trap '' XFSZ; ulimit -f 1; exec '{}' {args}", env!("CARGO_BIN_EXE_mlconv"));
        Done::of(place.command("sh", &["-c", &script]).output().expect("sh"))
    }

    #[test]
    fn a_full_disk_leaves_nothing() {
        let place = Place::new();
        place.file("m.onnx", &small().bytes());
        let x = vec![1f32; 4096];
        let wide = Onnx::new().input("x", F32, &[4096]).weight("w", &[4096], &x).node("Add", &["x", "w"], &["y"]);
        place.file("wide.onnx", &wide.output("y", F32, &[4096]).bytes());
        on_a_full_disk(&place, "convert wide.onnx -o p.mlpackage").fails("X0001", "p.mlpackage");
        on_a_full_disk(&place, "run wide.onnx --outputs y.npz").fails("X0001", "y.npz");
        assert_eq!(place.names(), ["m.onnx", "wide.onnx"]);
        // What was there stays.
        place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]).ok();
        let before = place.package("p.mlpackage");
        on_a_full_disk(&place, "convert wide.onnx -o p.mlpackage --force").fails("X0001", "p.mlpackage");
        assert_eq!(place.package("p.mlpackage"), before);
        assert_eq!(place.names(), ["m.onnx", "p.mlpackage", "wide.onnx"]);
    }

    /// Starts a conversion and ends it with `signal` as soon as it writes.
    fn interrupted(place: &Place, signal: &str) -> std::process::ExitStatus {
        let convert = ["convert", "large.onnx", "-o", "p.mlpackage", "--no-verify", "--precision", "fp32"];
        let mut child =
            place.command(env!("CARGO_BIN_EXE_mlconv"), &convert).stdout(Stdio::null()).spawn().expect("starts");
        let staged = format!(".p.mlpackage.tmp-{}", child.id());
        let start = Instant::now();
        while !place.path(&staged).exists() {
            assert!(start.elapsed() < Duration::from_mins(2), "it never writes");
            assert!(child.try_wait().expect("a child").is_none(), "it ended before it wrote");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(20));
        assert!(!place.path("p.mlpackage").exists(), "the target is there before it is whole");
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
        assert!(kill.success());
        child.wait().expect("it ends")
    }

    #[test]
    fn a_killed_conversion_leaves_no_target() {
        let place = Place::new();
        large(&place, 512);
        assert!(!interrupted(&place, "-KILL").success());
        assert!(!place.path("p.mlpackage").exists());
        // The next conversion to the same target removes what the killed one left.
        place.file("m.onnx", &small().bytes());
        place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]).ok();
        assert_eq!(place.names(), ["large.onnx", "m.onnx", "p.mlpackage", "weights.data"]);
    }

    #[test]
    fn an_interrupted_conversion_leaves_nothing() {
        let place = Place::new();
        large(&place, 512);
        for signal in ["-INT", "-TERM"] {
            assert!(!interrupted(&place, signal).success());
            assert_eq!(place.names(), ["large.onnx", "weights.data"], "{signal}");
        }
    }
}
