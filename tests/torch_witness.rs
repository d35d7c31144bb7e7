//! PyTorch as what runs the source, as users see it where it is not installed, or is not as it should be. Programs stand in
//! for it here; `tests/peer/torch_witness.py` has PyTorch itself.

mod support;

use mlconv::arrays::{Arrays, npz_bytes, read_npz};
use mlconv_tensor::Tensor;
use std::path::Path;
use support::place::{Done, Place};

const PT2: &str = "fixtures/models/digits_cnn/model.pt2";
const SCRIPT: &str = "fixtures/models/digits_cnn/model.pt";
const ONNX: &str = "fixtures/models/digits_cnn/model.onnx";

fn fixture(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// Runs a command in which `python3` and `mlconv-torch` are what variables say, and on no PATH.
fn run(place: &Place, variables: &[(&str, &str)], args: &[&str]) -> Done {
    let mut command = place.command(env!("CARGO_BIN_EXE_mlconv"), args);
    command.env("PATH", place.path("empty")).envs(variables.iter().copied());
    Done::of(command.output().expect("it starts"))
}

/// A conversion with a witness; TorchScript is told its shape.
fn convert(place: &Place, variables: &[(&str, &str)], model: &str, runtime: &str, more: &[&str]) -> Done {
    let model_path = fixture(model);
    let mut args = vec!["convert", &*model_path, "-o", "p.mlpackage", "--force", "--precision", "fp32"];
    args.extend(["--source-runtime", runtime]);
    args.extend(if model == SCRIPT { &["--input", "1x1x8x8"][..] } else { &[] });
    args.extend(more);
    run(place, variables, &args)
}

#[test]
fn what_is_not_there_is_an_error_that_says_how_to_get_it() {
    let place = Place::new();
    for (runtime, model, names, help) in [
        ("python", PT2, "python3", "MLCONV_PYTHON"),
        ("python", SCRIPT, "python3", "pip install torch"),
        ("torch", SCRIPT, "mlconv-torch", "MLCONV_TORCH"),
    ] {
        let done = convert(&place, &[], model, runtime, &[]);
        done.fails("N0006", names);
        assert!(done.stderr.contains(help) && done.stderr.contains("cannot be started"), "{}", done.stderr);
        let variable = if runtime == "python" { "MLCONV_PYTHON" } else { "MLCONV_TORCH" };
        convert(&place, &[(variable, "no/where")], model, runtime, &[]).fails("N0006", "no/where");
    }
    assert_eq!(place.names(), [""; 0], "nothing is written");
}

#[test]
fn what_cannot_run_the_source_is_refused() {
    let place = Place::new();
    convert(&place, &[], PT2, "torch", &[]).fails("L0001", "--source-runtime python");
    for runtime in ["python", "torch"] {
        convert(&place, &[], ONNX, runtime, &[]).fails("L0001", "the source is an ONNX model");
    }
    convert(&place, &[], PT2, "onnxruntime", &[]).fails("L0001", "onnxruntime runs ONNX models");
    convert(&place, &[], PT2, "python", &["--no-verify"]).fails("L0001", "--no-verify");
}

/// Without being asked, nothing of PyTorch is started.
#[test]
fn the_lowering_is_the_witness_unless_pytorch_is_asked_for() {
    let place = Place::new();
    for runtime in ["auto", "lowering"] {
        let done = convert(&place, &[("MLCONV_PYTHON", "no/where")], PT2, runtime, &[]).ok();
        assert!(done.stderr.contains("parity (unoptimised fp32 lowering"), "{}", done.stderr);
    }
}

#[cfg(unix)]
mod stand_ins {
    use super::*;
    use mlconv_tensor::Element;
    use std::{fs, os::unix::fs::PermissionsExt};

    /// A program that does as `text` says.
    fn program(place: &Place, name: &str, text: &str) -> String {
        let path = place.file(name, format!("#!/bin/sh\n{text}\n").as_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        path.display().to_string()
    }

    fn message(letter: u8, body: &[u8]) -> Vec<u8> {
        [&[letter][..], &(body.len() as u64).to_le_bytes(), body].concat()
    }

    fn arrays(t: Tensor) -> Vec<u8> {
        let all: Arrays = [("0".to_owned(), t)].into_iter().collect();
        npz_bytes(&all).expect("memory")
    }

    /// A program that says these messages, and waits for the end.
    fn speaker(place: &Place, messages: &[(u8, &[u8])]) -> String {
        let all: Vec<u8> = messages.iter().flat_map(|(letter, body)| message(*letter, body)).collect();
        let said = place.file("said.bin", &all).display().to_string();
        program(place, "speaker", &format!("/bin/cat '{said}'; /bin/cat >/dev/null"))
    }

    const HELLO: &[u8] = br#"{"version": "9.8.7", "inputs": [], "outputs": [], "bf16": false}"#;

    #[test]
    fn a_python_without_pytorch_says_its_last_line() {
        let place = Place::new();
        let trace = "Traceback (most recent call last):\n  File \"<string>\", line 1\nModuleNotFoundError: No module named torch";
        let python = program(&place, "python", &format!("echo '{trace}' >&2; exit 1"));
        for model in [PT2, SCRIPT] {
            let done = convert(&place, &[("MLCONV_PYTHON", &python)], model, "python", &[]);
            done.fails("N0006", "ModuleNotFoundError: No module named torch");
            assert!(done.stderr.contains(&python) && !done.stderr.contains("Traceback"), "{}", done.stderr);
        }
        let fault = br#"{"stage": "Library", "why": "ImportError: of another age"}"#;
        let python = speaker(&place, &[(b'F', fault)]);
        convert(&place, &[("MLCONV_PYTHON", &python)], PT2, "python", &[])
            .fails("N0006", "PyTorch cannot be loaded by");
        convert(&place, &[("MLCONV_PYTHON", &python)], PT2, "python", &[])
            .fails("N0006", "ImportError: of another age");
    }

    #[test]
    fn a_program_that_is_no_witness_is_a_diagnostic() {
        let place = Place::new();
        for (text, why) in [
            ("echo hello, world", "what it prints is no message"),
            ("echo 'libtorch_cpu.so: no such file' >&2; exit 127", "libtorch_cpu.so: no such file"),
            ("kill -SEGV $$", "SIGSEGV"),
        ] {
            let other = program(&place, "other", text);
            convert(&place, &[("MLCONV_TORCH", &other)], SCRIPT, "torch", &[]).fails("N0006", why);
        }
    }

    #[test]
    fn a_model_that_is_not_taken_is_an_error_and_one_that_does_not_run_is_said() {
        let place = Place::new();
        let fault = br#"{"stage": "Model", "why": "RuntimeError: version 99"}"#;
        let python = speaker(&place, &[(b'F', fault)]);
        let done = convert(&place, &[("MLCONV_PYTHON", &python)], PT2, "python", &[]);
        done.fails("N0006", "PyTorch does not load the model: RuntimeError: version 99");
        assert!(
            done.stderr.contains("model.pt2") && done.stderr.contains("--source-runtime lowering"),
            "{}",
            done.stderr
        );
        let fault = br#"{"stage": "Run", "why": "RuntimeError: sizes"}"#;
        let python = speaker(&place, &[(b'H', HELLO), (b'F', fault)]);
        // The package is there; that nothing was compared was asked for otherwise.
        let done = convert(&place, &[("MLCONV_PYTHON", &python)], PT2, "python", &[]);
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        assert!(
            done.stderr.contains("warning[N0007]") && done.stderr.contains("RuntimeError: sizes"),
            "{}",
            done.stderr
        );
        let verify = ["verify", "p.mlpackage", "--against", &fixture(PT2), "--source-runtime", "python"];
        run(&place, &[("MLCONV_PYTHON", &python)], &verify).fails("N0007", "RuntimeError: sizes");
    }

    fn changed<T: Element>(t: &Tensor, by: impl Fn(&T) -> T) -> Tensor {
        let values: Vec<T> = t.view::<T>().expect("of that type").iter().map(by).collect();
        Tensor::from_vec(t.shape(), values)
    }

    #[test]
    fn outputs_are_compared_and_reports_say_with_whose() {
        let place = Place::new();
        convert(&place, &[], PT2, "lowering", &[]).ok();
        run(&place, &[], &["run", "p.mlpackage", "--outputs", "out.npz"]).ok();
        let out = read_npz(&place.path("out.npz")).expect("written").into_values().next().expect("an output");
        for (runtime, model, variable) in
            [("python", PT2, "MLCONV_PYTHON"), ("python", SCRIPT, "MLCONV_PYTHON"), ("torch", SCRIPT, "MLCONV_TORCH")]
        {
            let other = speaker(&place, &[(b'H', HELLO), (b'O', &arrays(out.clone()))]);
            let done = convert(&place, &[(variable, &other)], model, runtime, &["--format", "json"]).ok();
            let (json, parity) = (done.json(), &done.json()["parity"]);
            assert_eq!(json["warnings"].as_array().map(Vec::len), Some(0), "{json}");
            assert_eq!(parity["against"], "the source in PyTorch 9.8.7");
            let witness = &parity["witness"];
            assert_eq!((&witness["runtime"], &witness["version"]), (&runtime.into(), &"9.8.7".into()));
            assert_eq!((&witness["program"], witness["library"].is_null()), (&other.as_str().into(), true));
            let far = changed::<f32>(&out, |x| x + 1.0);
            let other = speaker(&place, &[(b'H', HELLO), (b'O', &arrays(far))]);
            let done = convert(&place, &[(variable, &other)], model, runtime, &[]);
            assert_eq!(done.code, Some(1), "{}", done.stderr);
            assert!(done.stderr.contains("PyTorch 9.8.7 rounds otherwise"), "{}", done.stderr);
        }
    }

    #[test]
    fn a_program_runs_where_this_one_is_and_is_found_on_the_path() {
        let place = Place::new();
        let folder = place.path("bin");
        fs::create_dir(&folder).expect("room");
        for (name, runtime, model) in
            [("python3", "python", PT2), ("python", "python", PT2), ("mlconv-torch", "torch", SCRIPT)]
        {
            let path = folder.join(name);
            fs::write(&path, "#!/bin/sh\necho \"in $PWD: $5 $6 $7 $8 $9\" >&2\n").expect("room");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
            let done = convert(&place, &[("PATH", &folder.display().to_string())], model, runtime, &[]);
            done.fails("N0006", name);
            let here = Path::new(env!("CARGO_BIN_EXE_mlconv")).parent().expect("a folder");
            assert!(done.stderr.contains(&format!("in {}", here.display())), "{}", done.stderr);
            fs::remove_file(&path).expect("ours");
        }
    }
}
