//! `mlconv verify`: what is run, how far outputs may be off, golden files, and what is refused.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use mlconv::arrays::{Arrays, read_npz, write_npz};
use mlconv_mil::{text::parse, verify::verify};
use mlconv_tensor::Tensor;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const MODEL: &str = "fixtures/models/digits_cnn/model.onnx";
const BATCH: &str = "fixtures/models/digits_cnn/model_batch.onnx";
const SAMPLES: &str = "fixtures/models/digits/test.npz";

/// Runs `mlconv` in the repository; what it prints and says, after checking the exit status.
fn mlconv(args: &[&str], status: i32) -> (String, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = Command::new(env!("CARGO_BIN_EXE_mlconv")).args(args).current_dir(root).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(run.status.code(), Some(status), "{args:?}: {}{}", text(&run.stdout), text(&run.stderr));
    (text(&run.stdout), text(&run.stderr))
}

fn report(args: &[&str], status: i32) -> Value {
    // What runs the source is no matter where it is not there.
    let runs = args.contains(&"--against") && !args.contains(&"--golden");
    let runtime: &[&str] = if runs { &["--source-runtime", "lowering"] } else { &[] };
    let (out, _) = mlconv(&[args, &["--format", "json"], runtime].concat(), status);
    serde_json::from_str(&out).expect("a report")
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn package(model: &str, name: &str, options: &[&str]) -> String {
    let out = scratch(&format!("verify-{name}.mlpackage")).display().to_string();
    mlconv(&[&["convert", model, "-o", &out, "--force", "--no-verify"][..], options].concat(), 0);
    out
}

/// A package of a program that is written down.
fn program(name: &str, text: &str) -> String {
    let out = scratch(&format!("verify-{name}.mlpackage"));
    let mut module = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    mlconv_coreml::legalize(&mut module).unwrap_or_else(|e| panic!("{e:?}"));
    let made = mlconv_coreml::export(&verify(module).unwrap_or_else(|e| panic!("{e:?}"))).expect("a package");
    mlconv_coreml::write(&out, &made.model, &made.weights, mlconv_coreml::Existing::Replace).expect("room");
    out.display().to_string()
}

fn arrays(name: &str, arrays: Vec<(&str, Tensor)>) -> String {
    let path = scratch(&format!("verify-{name}.npz"));
    let arrays: Arrays = arrays.into_iter().map(|(n, t)| (n.to_owned(), t)).collect();
    write_npz(&path, &arrays).expect("written");
    path.display().to_string()
}

fn image() -> Tensor {
    let all = read_npz(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SAMPLES)).expect("samples")["image"].clone();
    all.rows(0..1).expect("a row").reshape(&[1, 1, 8, 8])
}

fn titles(report: &Value, list: &str) -> Vec<String> {
    let text = |v: &Value| v["title"].as_str().or(v.as_str()).expect("a text").to_owned();
    report[list].as_array().expect("a list").iter().map(text).collect()
}

fn runs(report: &Value, judged: bool) -> Vec<&str> {
    let all = report["runs"].as_array().expect("runs").iter();
    all.filter(|r| r["judged"] == judged).map(|r| r["name"].as_str().expect("a name")).collect()
}

#[test]
fn random_inputs_of_all_shapes_are_judged_and_odd_ones_are_not() {
    let pkg = package(BATCH, "batch", &["--input", "image=[1..4]x1x8x8"]);
    let r = report(&["verify", &pkg, "--against", BATCH], 0);
    assert_eq!(runs(&r, true), ["seed 0", "seed 1", "seed 2", "default shape", "maximum shape"], "{r:#}");
    let odd = ["zeros", "ones", "large", "tiny", "denormal", "constant", "sparse", "half-precision sums"];
    assert_eq!(runs(&r, false), odd);
    assert_eq!((&r["samples"], &r["untested"]), (&5.into(), &Value::Array(vec![])));
    assert_eq!(r["runs"][4]["shape"], "image = 4x1x8x8");
    assert_eq!(r["runs"][12]["arithmetic"], "fp16, fp16 sums");
    assert_eq!(r["inputs"], "random inputs of seed 0, and 4 more");
    let quick = report(&["verify", &pkg, "--against", BATCH, "--quick"], 0);
    assert_eq!((runs(&quick, true), runs(&quick, false)), (vec!["seed 0"], vec![]));
    let seeds = report(&["verify", &pkg, "--against", BATCH, "--seeds", "1", "--seed", "7"], 0);
    assert_eq!(runs(&seeds, true), ["seed 7", "default shape", "maximum shape"]);
    // The same command says the same.
    assert_eq!(report(&["verify", &pkg, "--against", BATCH], 0), r);
}

#[test]
fn what_is_too_much_is_named() {
    let pkg = package(BATCH, "many", &["--input", "image=[1..100000000]x1x8x8"]);
    let r = report(&["verify", &pkg, "--against", BATCH, "--seeds", "1"], 0);
    let untested = r["untested"].as_array().expect("a list");
    let said = |u: &Value| u.as_str().is_some_and(|u| u.starts_with("maximum shape (image = 100000000x1x8x8): "));
    assert!(untested.iter().any(said), "{untested:?}");
    assert_eq!(runs(&r, true), ["seed 0", "default shape"]);
}

#[test]
fn with_samples_they_alone_are_judged() {
    let pkg = package(MODEL, "samples", &[]);
    let given = ["verify", &pkg, "--against", MODEL, "--sample", SAMPLES];
    let r = report(&given, 0);
    assert_eq!((runs(&r, true), &r["samples"]), (vec!["samples"], &360.into()));
    assert!(runs(&r, false).contains(&"seed 0") && runs(&r, false).contains(&"zeros"));
    let logits = &r["outputs"][0];
    assert_eq!((&logits["kind"], &logits["task"]["top1"]), (&"logits".into(), &1.0.into()), "{logits:#}");
    assert!(logits["task"]["kl"].as_f64().is_some_and(|kl| kl > 0.0 && kl < 1e-3), "{logits:#}");
    assert!(logits["max_ulp"].as_u64().is_some_and(|n| n > 0), "{logits:#}");
}

#[test]
fn thresholds_are_combined_and_what_misses_one_is_named() {
    let pkg = package(MODEL, "thresholds", &[]);
    let with =
        |more: &[&str], status| report(&[&["verify", &pkg, "--against", MODEL, "--quick"], more].concat(), status);
    with(&["--tolerance", "1,1"], 0);
    with(&["--min-cosine", "0.99", "--min-top1", "1", "--max-kl", "0.1", "--min-snr", "20"], 0);
    let missed = |r: &Value| -> Vec<String> {
        let all = r["outputs"][0]["missed"].as_array().expect("a list");
        all.iter().map(|m| m["measure"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(missed(&with(&["--min-cosine", "1", "--tolerance", "1e-9"], 1)), ["beyond", "cosine"]);
    assert_eq!(missed(&with(&["--max-kl", "0"], 1)), ["kl"]);
    assert_eq!(missed(&with(&["--min-snr", "200"], 1)), ["snr_db"]);
    let (_, said) = mlconv(&["verify", &pkg, "--against", MODEL, "--quick", "--max-kl", "0"], 1);
    assert!(said.contains("beyond tolerance: `logits`: KL divergence"), "{said}");
    // A threshold of classes needs an output that holds them, and what is said of outputs must be true of one.
    for wrong in [
        &["--kind", "logits=values", "--min-top1", "0.5"][..],
        &["--kind", "nothing=logits"],
        &["--kind", "logits=boxes"],
    ] {
        let none = with(wrong, 2);
        assert_eq!(none["errors"][0]["code"], "L0001", "{none:#}");
    }
}

#[test]
fn outputs_that_no_threshold_measures_keep_the_default() {
    let text = |factor: &str| {
        format!(
            "func @main(%x: f32[1, 3]) ios17 {{\n  %logits = relu(x=%x)\n  %k = const(val=f32[] {factor})\n  \
             %places = mul(x=%x, y=%k)\n  return %logits, %places\n}}\n"
        )
    };
    let (right, wrong) = (program("classes", &text("1.0")), program("classes-off", &text("-5.0")));
    let kind = ["--kind", "logits=logits", "--seeds", "2", "--min-top1", "0.5"];
    let r = report(&[&["verify", &wrong, "--against", &right], &kind[..]].concat(), 1);
    let told = |o: &Value| (o["pass"].clone(), o["bounded"].clone());
    let all = r["outputs"].as_array().expect("outputs").iter().map(told).collect::<Vec<_>>();
    assert_eq!(all, [(true.into(), true.into()), (false.into(), true.into())], "{r:#}");
    // Of one run it is not known how often classes agree, so nothing is judged of it there.
    let r = report(&[&["verify", &right, "--against", &right], &kind[..]].concat(), 0);
    assert_eq!((&r["runs"][0]["pass"], &r["tolerance"]["others"]["min_snr_db"]), (&true.into(), &80.0.into()));
}

#[test]
fn classifiers_are_held_to_their_labels() {
    let text = |labels: &str| {
        format!(
            "func @main(%x: f32[1, 3]) ios17 {{\n  %s = softmax(x=%x, axis=-1)\n  %l, %p = classify(probabilities=%s, \
             classes=[{labels}])\n  return %l, %p\n}}\n"
        )
    };
    let right = program("labels", &text("\"a\", \"b\", \"c\""));
    let golden = scratch("verify-labels.safetensors").display().to_string();
    let of_classes = ["--min-top1", "1", "--max-kl", "1e-9"];
    report(&[&["verify", &right, "--against", &right], &of_classes[..]].concat(), 0);
    report(&["verify", &right, "--against", &right, "--save-golden", &golden], 0);
    report(&["verify", &right, "--golden", &golden], 0);
    for (name, labels) in [("turned", "\"c\", \"b\", \"a\""), ("one", "\"a\", \"b\", \"d\""), ("integers", "0, 1, 2")] {
        let wrong = program(&format!("labels-{name}"), &text(labels));
        for against in [["--against", &right], ["--golden", &golden]] {
            let r = report(&[&["verify", &wrong], &against[..]].concat(), 1);
            assert!(r["outputs"][0]["mismatch"].as_str().is_some_and(|m| m.starts_with("the label of class")), "{r:#}");
        }
    }
}

#[test]
fn where_nothing_is_finite_there_is_nothing_to_compare() {
    let pkg = package(MODEL, "finite", &[]);
    let given = |name: &str, x: f32| {
        let mut pixels = image().to_f64();
        pixels[3] = x.into();
        let pixels: Vec<f32> = pixels.into_iter().map(|x| x as f32).collect();
        arrays(name, vec![("image", Tensor::from_vec(&[1, 1, 8, 8], pixels))])
    };
    let r = report(&["verify", &pkg, "--against", MODEL, "--sample", &given("nan", f32::NAN)], 2);
    assert_eq!((&r["errors"][0]["code"], r["errors"].as_array().map(Vec::len)), (&"N0007".into(), Some(1)), "{r:#}");
    let (_, said) = mlconv(
        &["verify", &pkg, "--against", MODEL, "--source-runtime", "lowering", "--sample", &given("inf", f32::INFINITY)],
        2,
    );
    assert!(said.contains("no element of any output is finite"), "{said}");
    // Which model it is that gives no number is said.
    let text = |bits: &str| {
        format!(
            "func @main(%x: f32[1, 2]) ios17 {{\n  %c = cast(x=%x, dtype=\"fp{bits}\")\n  %k = const(val=f{bits}[] 6e4)\n  \
             %a = mul(x=%c, y=%k)\n  %y = cast(x=%a, dtype=\"fp32\")\n  return %y\n}}\n"
        )
    };
    let (single, half) = (program("single", &text("32")), program("half", &text("16")));
    let x = arrays("great", vec![("x", Tensor::from_vec(&[1, 2], vec![100f32, -100.0]))]);
    let r = report(&["verify", &half, "--against", &single, "--sample", &x, "--quick"], 1);
    let title = "no element of `y` is finite in the package, where 2 of 2 are in the source";
    assert!(titles(&r, "notes").contains(&title.to_owned()), "{r:#}");
}

#[test]
fn what_is_left_out_is_said() {
    let two = "func @main(%x: f32[1, 2], %i: i32[1, 2]) ios17 {\n  %y = relu(x=%x)\n  %z = gather_along_axis(x=%x, indices=%i, \
               axis=1)\n  return %y, %z\n}\n";
    let one = two.replace("return %y, %z", "return %y");
    let (two, one) = (program("two", two), program("one", &one));
    let r = report(&["verify", &one, "--against", &two, "--seeds", "1"], 0);
    let lines = titles(&r, "untested");
    assert!(lines.contains(&"output `z` of the source".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|l| l.starts_with("integers of `i` beyond 0 and 1")), "{lines:?}");
    // Of one sample, nothing shows what a call leaves to the next one.
    let model = "fixtures/models/remembering/decoder.pt2";
    let pkg = package(model, "decoder-quick", &["--target", "ios18"]);
    let quick = report(&["verify", &pkg, "--against", model, "--quick"], 0);
    assert_eq!(quick["samples"], 2, "{quick:#}");
    let fixed = package(MODEL, "flexible", &[]);
    let flexible = package(BATCH, "flexible-batch", &["--input", "image=[1..4]x1x8x8"]);
    let r = report(&["verify", &flexible, "--against", &fixed, "--seeds", "1"], 0);
    assert!(titles(&r, "untested").iter().any(|l| l.starts_with("sizes that the package takes")), "{r:#}");
    let golden = scratch("verify-sizes.safetensors").display().to_string();
    report(&["verify", &flexible, "--against", BATCH, "--quick", "--save-golden", &golden], 0);
    let r = report(&["verify", &flexible, "--golden", &golden], 0);
    assert_eq!(titles(&r, "untested"), ["sizes of inputs other than those that were recorded"]);
}

#[test]
fn more_arrays_than_inputs_are_no_alarm() {
    let pkg = package(MODEL, "more", &[]);
    let label = Tensor::from_vec(&[1], vec![0i32]);
    let given = arrays("more", vec![("image", image()), ("label", label.clone()), ("more", label)]);
    let labels = format!("{given}:label");
    let (_, said) = mlconv(
        &[
            "verify",
            &pkg,
            "--against",
            MODEL,
            "--source-runtime",
            "lowering",
            "--sample",
            &given,
            "--labels",
            &labels,
            "--ci",
        ],
        0,
    );
    assert!(said.contains("no input has the name: `more`"), "{said}");
}

#[test]
fn arithmetic_is_imitated() {
    let pkg = package(MODEL, "arithmetic", &["--precision", "fp32"]);
    let snr = |more: &[&str]| {
        let r = report(&[&["verify", &pkg, "--against", MODEL, "--quick"], more].concat(), 0);
        (r["outputs"][0]["snr_db"].as_f64().unwrap_or(999.0), r["runs"][0]["arithmetic"].clone())
    };
    let (single, half, sums) = (snr(&[]), snr(&["--emulate", "fp16"]), snr(&["--emulate", "fp16-sums"]));
    assert!(single.0 > 80.0 && half.0 < 80.0 && sums.0 < half.0, "{single:?} {half:?} {sums:?}");
    assert_eq!([single.1, half.1, sums.1], ["cpu", "fp16", "fp16, fp16 sums"]);
    assert_eq!(snr(&["--backend", "reference"]).1, "reference");
    mlconv(&["verify", &pkg, "--against", MODEL, "--backend", "gpu"], 2);
}

#[test]
fn models_that_remember_are_called_several_times() {
    let model = "fixtures/models/remembering/decoder.pt2";
    let pkg = package(model, "decoder", &["--target", "ios18"]);
    let r = report(&["verify", &pkg, "--against", model, "--seeds", "1", "--steps", "3"], 0);
    let inputs = r["runs"][0]["inputs"].as_str().expect("a text");
    assert!(inputs.ends_with("3 calls in a row") && r["samples"].as_u64() >= Some(3), "{r:#}");
    let golden = scratch("verify-decoder.safetensors").display().to_string();
    report(&["verify", &pkg, "--against", model, "--seeds", "1", "--steps", "3", "--save-golden", &golden], 0);
    assert_eq!(report(&["verify", &pkg, "--golden", &golden], 0)["samples"], 3);
}

#[test]
fn golden_files_stand_for_the_source() {
    let pkg = package(MODEL, "golden", &[]);
    let golden = scratch("verify-golden.safetensors").display().to_string();
    let r = report(&["verify", &pkg, "--against", MODEL, "--save-golden", &golden], 0);
    let again = report(&["verify", &pkg, "--golden", &golden, "--against", MODEL, "--ci"], 0);
    assert_eq!((&again["witness"]["runtime"], &again["samples"]), (&"golden".into(), &r["samples"]));
    assert_eq!(again["outputs"], r["outputs"]);
    let first = fs::read(&golden).expect("a file");
    report(&["verify", &pkg, "--against", MODEL, "--save-golden", &golden], 0);
    assert_eq!(fs::read(&golden).expect("a file"), first, "the same command writes the same bytes");
    // Another source is seen, and counts in a build.
    let (_, said) = mlconv(&["verify", &pkg, "--golden", &golden, "--against", BATCH], 0);
    assert!(said.contains("recorded from another source"), "{said}");
    mlconv(&["verify", &pkg, "--golden", &golden, "--against", BATCH, "--ci"], 1);
    for (name, bytes) in [("cut", &first[..first.len() / 2]), ("empty", &[][..]), ("text", b"{\"a\": 1}")] {
        let path = scratch(&format!("verify-{name}.safetensors"));
        fs::write(&path, bytes).expect("written");
        let failed = report(&["verify", &pkg, "--golden", &path.display().to_string()], 2);
        assert_eq!(failed["errors"][0]["code"], "R0007", "{failed:#}");
    }
}

#[test]
fn golden_archives_of_numpy_are_read() {
    let pkg = package(MODEL, "archive", &[]);
    let (image, save) = (image(), arrays);
    let zeros = Tensor::from_vec(&[1, 10], vec![0f32; 10]);
    let off = save("off", vec![("input/image", image.clone()), ("output/logits", zeros.clone())]);
    assert_eq!(report(&["verify", &pkg, "--golden", &off], 1)["outputs"][0]["pass"], false);
    let none = save("none", vec![("input/image", image.clone()), ("output/other", zeros.clone())]);
    let failed = report(&["verify", &pkg, "--golden", &none], 2);
    assert!(
        failed["errors"][0]["title"].as_str().is_some_and(|t| t.contains("no output of the package")),
        "{failed:#}"
    );
    let odd = vec![("input/image/0", image.clone()), ("input/image/1", image), ("output/logits", zeros)];
    assert_eq!(report(&["verify", &pkg, "--golden", &save("odd", odd)], 2)["errors"][0]["code"], "N0003");
}

#[test]
fn what_does_not_fit_is_refused() {
    let pkg = package(MODEL, "refused", &[]);
    let against = ["verify", &pkg, "--against", MODEL];
    for more in [
        &["--quick", "--seeds", "2"][..],
        &["--seeds", "0"],
        &["--steps", "0"],
        &["--tolerance", "-1"],
        &["--min-cosine", "1.5"],
        &["--min-top1", "nan"],
        &["--kind", "logits=text"],
        &["--save-golden", "golden.npz"],
        &["--golden", "a.npz", "--sample", "b.npz"],
        &["--golden", "a.npz", "--save-golden", "b.safetensors"],
        &["--golden", "a.npz", "--seed", "1"],
        &["--golden", "a.npz", "--quick"],
        &["--golden", "a.npz", "--range", "image=0:1"],
        &["--golden", "a.npz", "--image", "image=gray"],
        &["--sample", SAMPLES, "--junit", SAMPLES],
        &["--recipe", "Cargo.toml", "--junit", "Cargo.toml"],
    ] {
        let failed = report(&[&against[..], more].concat(), 2);
        assert_eq!(failed["errors"][0]["code"], "L0001", "{more:?}: {failed:#}");
    }
    mlconv(&["verify", &pkg], 2);
    let inside = format!("{pkg}/golden.safetensors");
    mlconv(&[&against[..], &["--save-golden", &inside]].concat(), 2);
    mlconv(&[&against[..], &["--golden", "nothing.safetensors"]].concat(), 2);
}

#[test]
fn recipes_hold_thresholds_and_runs() {
    let pkg = package(MODEL, "recipe", &[]);
    let path = scratch("verify.toml");
    let with = |recipe: &str, more: &[&str], status| {
        fs::write(&path, recipe).expect("written");
        let recipe = path.display().to_string();
        report(&[&["verify", &pkg, "--against", MODEL, "--recipe", &recipe], more].concat(), status)
    };
    let r = with("[convert]\nprecision = 'fp16'\n[verify]\nmin_snr = 200\nquick = true\n", &[], 1);
    assert_eq!((&r["tolerance"]["min_snr_db"], runs(&r, true).len()), (&200.0.into(), 1));
    with("verify.min_snr = 200", &["--min-cosine", "0.9"], 0);
    assert_eq!(with("verify.min_top1 = 2", &[], 2)["errors"][0]["code"], "L0001");
    // A golden file stands for the source there as well, and what is said of a conversion is not about it.
    let golden = scratch("verify-recipe.safetensors").display().to_string();
    with("verify.quick = true", &["--save-golden", &golden], 0);
    let alone = |recipe: &str, status| {
        fs::write(&path, recipe).expect("written");
        report(&["verify", &pkg, "--recipe", &path.display().to_string()], status)
    };
    let said = "[convert]\nranges = { image = '0:16' }\n[verify]\ngolden = 'verify-recipe.safetensors'\n";
    assert_eq!(alone(said, 0)["witness"]["runtime"], "golden");
    assert_eq!(alone("verify.min_snr = 20", 2)["errors"][0]["title"], "there is nothing to compare with");
}
