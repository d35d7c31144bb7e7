//! What runs the source of a comparison, as users see it where onnxruntime is not installed. Where it is,
//! `tests/peer/witness.py` runs it.

mod support;

use mlconv_proto::onnx::tensor_proto::DataType;
use support::{
    onnx::Onnx,
    place::{Done, Place},
};

const F32: DataType = DataType::Float;

/// A folder with `m.onnx`, which is `y = relu(x)`, and something called a library.
fn place() -> Place {
    let place = Place::new();
    let model = Onnx::new().input("x", F32, &[2, 3]).node("Relu", &["x"], &["y"]).output("y", F32, &[2, 3]);
    place.file("m.onnx", &model.bytes());
    place.file("libonnxruntime.so", b"no library");
    place
}

fn run(place: &Place, library: &str, args: &[&str]) -> Done {
    let mut command = place.command(env!("CARGO_BIN_EXE_mlconv"), args);
    Done::of(command.env("ORT_DYLIB_PATH", library).output().expect("it starts"))
}

#[test]
fn onnxruntime_that_is_not_there_is_an_error_where_it_is_asked_for() {
    let place = place();
    for library in ["nowhere/lib.so", "libonnxruntime.so", "."] {
        let convert = ["convert", "m.onnx", "-o", "p.mlpackage", "--source-runtime", "onnxruntime"];
        run(&place, library, &convert).fails("N0006", if cfg!(feature = "onnxruntime") { library } else { "" });
        assert_eq!(place.names(), ["libonnxruntime.so", "m.onnx"], "nothing is written");
    }
    place.run(&["convert", "m.onnx", "-o", "p.mlpackage"]).ok();
    let verify = ["verify", "p.mlpackage", "--against", "m.onnx", "--source-runtime", "onnxruntime"];
    run(&place, "nowhere/lib.so", &verify).fails("N0006", "onnxruntime");
}

#[test]
fn the_lowering_is_the_witness_where_a_named_library_is_of_no_use_and_that_is_said() {
    let place = place();
    for library in ["nowhere/lib.so", "libonnxruntime.so"] {
        let done = run(&place, library, &["convert", "m.onnx", "-o", "p.mlpackage", "--force"]).ok();
        assert_eq!(done.stderr.contains("warning[N0006]"), cfg!(feature = "onnxruntime"), "{}", done.stderr);
        assert!(done.stderr.contains("parity (unoptimised fp32 lowering"), "{}", done.stderr);
    }
    let asked = ["convert", "m.onnx", "-o", "p.mlpackage", "--force", "--source-runtime", "lowering"];
    assert!(!run(&place, "nowhere/lib.so", &asked).ok().stderr.contains("N0006"));
}

#[test]
fn reports_say_what_the_witness_was() {
    let place = place();
    let lowering = ["--source-runtime", "lowering", "--format", "json"];
    let convert = place.run(&[&["convert", "m.onnx", "-o", "p.mlpackage"], &lowering[..]].concat()).ok().json();
    let verify = place.run(&[&["verify", "p.mlpackage", "--against", "m.onnx"], &lowering[..]].concat()).ok().json();
    for report in [&convert["parity"], &verify] {
        assert_eq!(report["witness"]["runtime"], "lowering");
        assert!(
            report["against"].as_str().is_some_and(|a| a.contains("lowering")) && report["lowering_agrees"].is_null()
        );
    }
    let same = place.run(&["verify", "p.mlpackage", "--against", "p.mlpackage", "--format", "json"]).ok().json();
    assert_eq!(same["witness"]["runtime"], "program");
}

#[test]
fn requests_that_contradict_each_other_are_refused() {
    let place = place();
    let convert = ["convert", "m.onnx", "-o", "p.mlpackage"];
    place.run(&[&convert[..], &["--no-verify", "--source-runtime", "auto"]].concat()).fails("L0001", "--no-verify");
    place.run(&convert).ok();
    let verify = ["verify", "p.mlpackage", "--against", "p.mlpackage", "--source-runtime", "onnxruntime"];
    place.run(&verify).fails("L0001", "onnxruntime runs ONNX models");
}

#[test]
fn the_command_that_loads_the_library_is_hidden() {
    let place = place();
    assert!(!place.run(&["--help"]).ok().stdout.contains("source-runtime"));
    if cfg!(feature = "onnxruntime") {
        // Alone, it says what is wrong in its own way, and ends.
        let args = ["source-runtime", "--library", "./libonnxruntime.so", "--threads", "1", "m.onnx"];
        assert!(place.run(&args).ok().stdout.starts_with('F'));
    }
}
