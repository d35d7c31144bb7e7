//! Configuration files and recipes as users write them: what `compress` and `convert` make of them, and what they say of
//! mistakes.

mod support;

use mlconv_tensor::Tensor;
use serde_json::Value;
use std::{fs, path::PathBuf};
use support::{
    onnx::{numbers, two_weights},
    place::{Done, Place},
};

/// A folder with the model, as a package.
fn place() -> Place {
    let place = Place::new();
    let onnx = place.file("m.onnx", &two_weights().bytes());
    // Without edits, as a product with a matrix would be a linear layer else.
    let args = ["--target", "ios18", "--no-verify", "--stop-after-edit", "0", "--precision", "fp16"];
    place.run(&[&["convert", &onnx.display().to_string(), "-o", "m.mlpackage"], &args[..]].concat()).ok();
    place
}

fn compress(place: &Place, args: &[&str]) -> Done {
    let head = ["compress", "m.mlpackage", "--dry-run", "--format", "json"];
    place.run(&[&head, args].concat())
}

/// What became of each weight: its scheme, or why it is left as it is.
fn schemes(done: &Done) -> Vec<(String, String)> {
    let json = done.json();
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let one = |w: &Value| {
        let became = text(&w["scheme"]).or(text(&w["skipped"])).expect("either");
        (text(&w["name"]).expect("a name"), became)
    };
    json["compression"]["weights"]
        .as_array()
        .unwrap_or_else(|| panic!("weights: {}{json}", done.stderr))
        .iter()
        .map(one)
        .collect()
}

#[track_caller]
fn check(place: &Place, yaml: &str, want: &[(&str, &str)]) -> Done {
    place.file("c.yaml", yaml.as_bytes());
    let done = compress(place, &["--config", "c.yaml"]);
    let got = schemes(&done);
    for (name, scheme) in want {
        let found = got.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name} among {got:?}"));
        assert!(found.1 == *scheme || found.1.starts_with(&format!("{scheme}:")), "{name}: {found:?}");
    }
    done
}

#[test]
fn configs_of_each_class_say_what_becomes_of_weights() {
    let place = place();
    for (yaml, conv, linear) in [
        ("config_type: OpLinearQuantizerConfig\nglobal_config: {}\n", "int8", "int8"),
        (
            "config_type: OpLinearQuantizerConfig\nglobal_config:\n  mode: linear\n  dtype: int4\n  granularity: per_block\n  block_size: 8\n",
            "int4-b8-asym",
            "int4-b8-asym",
        ),
        (
            "config_type: OpLinearQuantizerConfig\nglobal_config: {dtype: uint8, granularity: per_tensor}\nop_type_configs:\n  matmul: {granularity: per_block, block_size: [1, 16], mode: LINEAR}\n",
            "uint8-tensor-sym",
            "int8-b1x16-asym",
        ),
        (
            "config_type: OpPalettizerConfig\nglobal_config: {nbits: 4}\nop_type_configs:\n  conv: {nbits: 2, granularity: per_grouped_channel, group_size: 4, channel_axis: 1, num_kmeans_workers: 8}\n",
            "pal2-g4-axis1",
            "pal4",
        ),
        (
            "config_type: OpPalettizerConfig\nglobal_config: {nbits: 4, cluster_dim: 2}\nop_type_configs: {matmul: null}\n",
            "pal4-v2",
            "`c.yaml",
        ),
        (
            "config_type: OpPalettizerConfig\nop_type_configs:\n  conv: {mode: Uniform, nbits: 6, lut_dtype: int8, enable_per_channel_scale: true}\n",
            "pal6-scale-lut8-uniform",
            "nothing asks for it",
        ),
        (
            "config_type: OpMagnitudePrunerConfig\nglobal_config: {n_m_ratio: [3, 4]}\nop_type_configs:\n  conv: {n_m_ratio: [3, 4], dim: 0}\n",
            "prune1:4-out",
            "n:m and block pruning are for the weights of `conv` and `linear`",
        ),
        (
            "config_type: OpMagnitudePrunerConfig\nglobal_config: {target_sparsity: 0.5, block_size: 2}\nop_type_configs:\n  matmul: {config_type: OpThresholdPrunerConfig, threshold: 0.3, minimum_sparsity_percentile: 0.2}\n",
            "prune50-b2",
            "prune-t0.3",
        ),
    ] {
        let got = check(&place, yaml, &[]);
        let (got, stderr) = (schemes(&got), got.stderr);
        let of = |i: usize| got[i].1.as_str();
        assert_eq!(got.len(), 2, "{got:?}");
        assert!(of(0).starts_with(conv) && of(1).starts_with(linear), "{yaml}\n{got:?}\n{stderr}");
    }
}

#[test]
fn names_win_over_types_and_types_over_the_global_config() {
    let place = place();
    let names = schemes(&compress(&place, &["--preset", "int8"]));
    let (w1, w2) = (&names[0].0, &names[1].0);
    let yaml = format!(
        "config_type: OpLinearQuantizerConfig\nglobal_config: {{}}\nop_type_configs:\n  conv: {{dtype: uint8}}\n  matmul: null\nop_name_configs:\n  {w1}: {{dtype: int4}}\n  'y': {{dtype: uint4}}\n"
    );
    check(&place, &yaml, &[(w1, "int4"), (w2, "uint4-sym")]);
    // Rules that are typed win over all.
    let done = compress(&place, &["--config", "c.yaml", "--tensor", &format!("^{w2}$=pal4")]);
    assert_eq!(schemes(&done)[1].1, "pal4");
    // JSON is YAML.
    let json = "{\"config_type\": \"OpPalettizerConfig\", \"global_config\": {\"mode\": \"kmeans\", \"nbits\": 6}}";
    check(&place, json, &[(w1, "pal6"), (w2, "pal6")]);
}

#[test]
fn thresholds_are_those_of_each_config() {
    let place = place();
    let done = check(
        &place,
        "config_type: OpLinearQuantizerConfig\nglobal_config: {weight_threshold: 2500}\nop_type_configs:\n  matmul: {weight_threshold: 2560}\n",
        &[],
    );
    let got = schemes(&done);
    assert_eq!(got[0].1, "it has 2500 elements or fewer");
    assert_eq!(got[1].1, "it has 2560 elements or fewer");
    // What is typed stands where the file states nothing.
    place.file("c.yaml", b"config_type: OpLinearQuantizerConfig\nglobal_config: {}\n");
    let got = schemes(&compress(&place, &["--config", "c.yaml", "--weight-threshold", "2400"]));
    assert_eq!((got[0].1.as_str(), got[1].1.as_str()), ("it has 2400 elements or fewer", "int8"));
}

#[test]
fn what_a_config_asks_for_in_vain_is_said() {
    let place = place();
    let done = check(
        &place,
        "config_type: OpLinearQuantizerConfig\nglobal_config: {}\nop_type_configs:\n  convv: {}\nop_name_configs:\n  yy: {}\n",
        &[],
    );
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("`op_name_configs.yy` is the name of no weight"), "{}", done.stderr);
    assert!(done.stderr.contains("`conv` may be meant"), "{}", done.stderr);
    compress(&place, &["--config", "c.yaml", "--allow-skip"]).ok();
}

/// Every file of `fixtures/bad` that is no model: its message is beside it.
#[test]
fn bad_settings_are_refused_with_their_place() {
    let folder = support::fixtures().join("bad");
    let place = place();
    let mut seen = 0;
    for suffix in ["yaml", "toml"] {
        for path in support::files(&folder, suffix) {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            fs::copy(&path, place.path(&name)).expect("room");
            let option = if suffix == "yaml" { "--config" } else { "--recipe" };
            let done = place.run(&["compress", "m.mlpackage", "-o", "out.mlpackage", option, &name]);
            let got = format!("{}exit {}\n", done.stderr, done.code.unwrap_or(-1));
            let want = PathBuf::from(format!("{}.stderr", path.display()));
            if std::env::var_os("BLESS").is_some() {
                fs::write(&want, &got).expect("room");
            }
            assert_eq!(got, fs::read_to_string(&want).unwrap_or_default(), "{name}");
            assert!(done.code == Some(2) && !got.contains("T0001"), "{got}");
            assert_eq!(got.lines().filter(|l| l.starts_with("error")).count(), 1, "{got}");
            assert!(!place.names().contains(&"out.mlpackage".to_owned()));
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} files");
}

#[test]
fn a_recipe_says_what_else_is_typed() {
    let place = place();
    let names = schemes(&compress(&place, &["--preset", "int8"]));
    let w2 = &names[1].0;
    place.file(
        "mlconv.toml",
        b"[convert]\ntarget = 'ios18'\nprecision = 'fp32'\ninputs = { x = '1x8x4x4' }\n\n[compress]\npreset = 'int8'\nmax_memory = '1GB'\n\n[[compress.tensor]]\npattern = '^w1'\nscheme = 'pal4'\n",
    );
    let of = |args: &[&str]| {
        let got = schemes(&compress(&place, &[&["--recipe", "mlconv.toml"], args].concat()));
        (got[0].1.clone(), got[1].1.clone())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(of(&[]), pair("pal4", "int8"));
    assert_eq!(of(&["--preset", "uint8"]), pair("pal4", "uint8"));
    assert_eq!(of(&["--tensor", "w=prune50"]), pair("prune50", "prune50"));
    let done =
        place.run(&["convert", "m.onnx", "-o", "r.mlpackage", "--recipe", "mlconv.toml", "--format", "json"]).ok();
    assert_eq!(schemes(&done)[0].1, "pal4");
    assert!(done.json()["compression"]["weights"][0]["type"].as_str().is_some_and(|t| t.starts_with("f32")));
    let shown = place.run(&["inspect", "r.mlpackage"]).ok();
    assert!(shown.stdout.contains("ios18"), "{}", shown.stdout);
    // What is typed wins.
    let done = place.run(&[
        "convert",
        "m.onnx",
        "-o",
        "s.mlpackage",
        "--recipe",
        "mlconv.toml",
        "--precision",
        "fp16",
        "--format",
        "json",
    ]);
    assert!(done.ok().json()["compression"]["weights"][0]["type"].as_str().is_some_and(|t| t.starts_with("f16")));
    // The order of a table counts, and a config lies beside the recipe.
    fs::create_dir(place.path("sub")).expect("room");
    place.file("sub/c.yaml", b"config_type: OpPalettizerConfig\nglobal_config: {nbits: 6}\n");
    let recipe = format!(
        "compress.config = 'c.yaml'\ncompress.tensors = {{ '{w2}' = 'int8', 'w' = 'int4', '^{w2}$' = 'none' }}\n"
    );
    place.file("sub/r.toml", recipe.as_bytes());
    let got = schemes(&compress(&place, &["--recipe", "sub/r.toml"]));
    assert_eq!(got[0].1, "int4");
    assert!(got[1].1.ends_with("leaves it alone"), "{got:?}");
    place.file("sub/r.toml", b"compress.config = 'c.yaml'\n");
    assert!(schemes(&compress(&place, &["--recipe", "sub/r.toml"])).iter().all(|(_, s)| s == "pal6"));
}

#[test]
fn a_printed_recipe_makes_the_same_bytes() {
    let place = place();
    let names = schemes(&compress(&place, &["--preset", "int8"]));
    for (name, rows) in [("s.npz", 4), ("c.npz", 8)] {
        place.arrays(name, &[("x", Tensor::from_vec(&[rows, 8, 4, 4], numbers(rows * 128)))]);
    }
    fs::create_dir(place.path("sub")).expect("room");
    for (i, args) in [
        &["convert", "m.onnx", "--target", "ios16", "--precision", "fp32", "--input", "x=1x8x4x4", "--no-verify"][..],
        &["convert", "m.onnx", "--target", "ios18", "--keep-fp32", "conv", "--preset", "pal4", "--sample", "s.npz"],
        &["compress", "m.onnx", "--precision", "fp32", "--target-bpw", "6", "--calibrate", "c.npz", "--seed", "7"],
        &["compress", "m.mlpackage", "--preset", "int8", "--tensor", &format!("{}=none", names[0].0), "--no-verify"],
    ]
    .into_iter()
    .enumerate()
    {
        let (typed, replayed) = (format!("typed{i}.mlpackage"), format!("replayed{i}.mlpackage"));
        let line = [&args[..2], &["-o", &typed], &args[2..]].concat();
        let printed = place.run(&[&line[..], &["--print-recipe"]].concat()).ok();
        assert!(printed.stderr.is_empty() && !place.path(&typed).exists(), "{}", printed.stderr);
        place.file("r.toml", printed.stdout.as_bytes());
        let (direct, replay) =
            (place.run(&line).ok(), place.run(&[args[0], args[1], "-o", &replayed, "--recipe", "r.toml"]).ok());
        assert_eq!(place.package(&typed), place.package(&replayed), "{}", printed.stdout);
        let same = |text: &str| text.replace(&typed, &replayed);
        // Weights are told of as threads are done with them.
        let sorted = |text: &str| {
            let mut lines: Vec<String> =
                text.lines().map(|l| l.split_once("] ").map_or(l, |(_, rest)| rest).to_owned()).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&same(&direct.stderr)), sorted(&replay.stderr));
        // From another folder, the recipe still finds what lies beside it.
        let again = place
            .run(&[&line[..2], &["-o", "x.mlpackage", "--recipe", "sub/../r.toml", "--print-recipe"]].concat())
            .ok();
        assert_eq!(again.stdout.replace("sub/../", ""), printed.stdout);
    }
    let wrong = place.run(&["compress", "m.mlpackage", "-o", "x.mlpackage", "--preset", "int8", "--precision", "fp32"]);
    wrong.fails("L0001", "`--precision` and `--keep-fp32` are for models that are imported");
}
