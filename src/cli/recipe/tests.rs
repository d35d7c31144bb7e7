use super::{
    keys::{NOT_KEYS, SECTIONS},
    *,
};
use std::collections::BTreeSet;

/// The command lines that together say everything that a recipe can say.
const LINES: &[&[&str]] = &[
    &["convert", "--target", "ios18", "--precision", "fp32", "--keep-fp32", "a*", "--keep-fp32", "say \"no\"\\n"],
    &[
        "convert",
        "--input",
        "x=1x3:f16",
        "--input",
        "y.z=1x[1..512]",
        "--output",
        "é",
        "--no-state",
        "--range",
        "x=-1:1e3",
    ],
    &["convert", "--input", "1x3", "--state", "a=b", "--state", "c=d=e=f"],
    &["convert", "--image", "x=rgb,scale=1/255,mean=0.5:0.4:0.3", "--image", "y", "--image-output", "z=bgr"],
    &["convert", "--image", "gray", "--class-labels", "cat,dog", "--class-output", "p", "--class-softmax"],
    &["convert", "--optional", "a=b=0.5", "--optional", "c", "--rename", "x=y", "--io-precision", "fp16"],
    &["convert", "--sample", "x=a.png", "--resize", "x=8x9", "--resize", "y=10x11"],
    &["compress", "--preset", "w8a8", "--activation-range", "percentile=99.9", "--keep-activations", "conv"],
    &["compress", "--config", "c.yaml", "--weight-threshold", "16", "--allow-skip", "--max-memory", "1.5GB"],
    &["compress", "--tensor", "^w=1=int8", "--tensor", "^w=1=none", "--tensor", "b=pal4"],
    &["compress", "--tensor", "^w=1=int8", "--activations", "uint8", "--rounding", "gptq", "--calibrate", "x=s/c.npy"],
    &["compress", "--target-bpw", "4.5", "--candidates", "int8,pal4", "--search-log", "log.json"],
    &["convert", "--target-size", "4096", "--source-runtime", "lowering", "--seed", "18446744073709551615"],
    &["convert", "--max-drop", "top1=0.5", "--sample", "a.npz", "--labels", "a.npz:y", "--seed", "3"],
    &["compress", "--decompress", "--no-verify"],
    &["verify", "--tolerance", "1e-3,1e-2", "--min-snr", "-3.5", "--min-cosine", "0.9", "--min-top1", "1", "--quick"],
    &["verify", "--max-kl", "0", "--kind", "a=b=logits", "--seeds", "2", "--steps", "5", "--emulate", "fp16-sums"],
    &["verify", "--backend", "reference", "--golden", "g.npz"],
];

fn line(words: &[&str]) -> Vec<OsString> {
    let (name, options) = words.split_first().expect("a command");
    let files: &[&str] = if *name == VERIFY {
        &["mlconv", name, "--against=s", "m"]
    } else {
        &["mlconv", name, "-o", "o.mlpackage", "m"]
    };
    [files, options].concat().into_iter().map(OsString::from).collect()
}

/// The recipe that a command line prints.
fn printed(words: &[&str]) -> Result<String, Failure> {
    let line = line(&[words, &["--print-recipe"]].concat());
    let typed = crate::cli::command().try_get_matches_from(&line).unwrap_or_else(|e| panic!("{words:?}: {e}"));
    Ok(wanted(&fill(typed, &line)?)?.expect("it is asked for"))
}

/// The recipe that a command line prints beside a recipe.
fn beside(recipe: &str, words: &[&str]) -> Result<String, Failure> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r.toml");
    std::fs::write(&path, recipe).expect("room");
    let out = printed(&[words, &["--recipe", &path.display().to_string()]].concat())?;
    // Files that the recipe names lie in its folder.
    Ok(out.replace(&format!("{}/", folder.path().display()), ""))
}

fn text(of: Result<String, Failure>) -> String {
    of.unwrap_or_else(|all| panic!("{}", all[0]))
}

#[test]
fn what_is_written_is_read_again() {
    let mut seen = BTreeSet::new();
    for words in LINES {
        let recipe = text(printed(words));
        assert_eq!(text(beside(&recipe, &words[..1])), recipe, "{words:?}");
        seen.extend(recipe.lines().filter_map(|l| Some(l.split_once(" = ")?.0.to_owned())));
    }
    let keys = SECTIONS.iter().flat_map(|(_, keys)| keys.iter()).filter(|k| !matches!(k.form, Form::Rules));
    for key in keys {
        assert!(seen.contains(key.name), "no line says `{}`", key.name);
    }
}

#[test]
fn every_option_is_a_key_or_none_of_what_comes_out() {
    let (mut cli, mut found) = (crate::cli::command(), BTreeSet::new());
    cli.build();
    for name in [CONVERT, COMPRESS, VERIFY] {
        for arg in cli.find_subcommand(name).expect("a command").get_arguments() {
            let is_key = SECTIONS.iter().any(|(_, keys)| keys.iter().any(|k| k.option == arg.get_id()));
            assert!(is_key != NOT_KEYS.contains(&arg.get_id().as_str()), "`{}` of `{name}`", arg.get_id());
            found.insert(arg.get_id().to_string());
        }
    }
    for (_, keys) in SECTIONS {
        keys.iter().for_each(|key| assert!(found.contains(key.option), "`{}` is no option", key.option));
    }
}

#[test]
fn every_key_is_documented() {
    let page = include_str!("../../../docs/recipes.md");
    for (section, keys) in SECTIONS {
        let start = page.find(&format!("### `[{section}]`")).unwrap_or_else(|| panic!("[{section}] is not documented"));
        let part = page[start..].split("\n### ").next().unwrap_or_default();
        for key in *keys {
            assert!(part.contains(&format!("\n| `{}` |", key.name)), "`{section}.{}` is not documented", key.name);
        }
    }
}

#[test]
fn what_is_typed_wins() {
    for (recipe, words, want) in [
        ("convert.target = 'ios16'", &["convert", "--target", "ios18"][..], "[convert]\ntarget = \"ios18\"\n"),
        ("convert.outputs = ['a']", &["convert", "--output", "b"], "[convert]\noutputs = [\"a\", \"b\"]\n"),
        (
            "convert.inputs = { x = '1', y = '2' }",
            &["convert", "--input", "x=3"],
            "[convert]\ninputs = { y = \"2\", x = \"3\" }\n",
        ),
        ("convert.inputs = { x = '1' }", &["convert", "--input", "3"], "[convert]\ninputs = [\"3\"]\n"),
        (
            "convert = { images = { x = 'rgb', y = 'bgr' }, optional = { k = 0.5 } }",
            &["convert", "--image", "x=gray", "--optional", "m"],
            "[convert]\nimages = { y = \"bgr\", x = \"gray\" }\noptional = { k = \"0.5\", m = \"\" }\n",
        ),
        (
            "verify = { samples = ['a.npz'], labels = 'y.npy' }",
            &["convert", "--sample", "b"],
            "[verify]\nsamples = [\"b\"]\n",
        ),
        (
            "verify.no_verify = true",
            &["convert", "--source-runtime", "torch"],
            "[verify]\nsource_runtime = \"torch\"\n",
        ),
        ("compress.preset = 'int8'", &["compress", "--config", "c.yaml"], "[compress]\nconfig = \"c.yaml\"\n"),
        ("compress.config = 'c.yaml'", &["compress", "--target-bpw", "4"], "[compress]\ntarget_bpw = 4\n"),
        (
            "compress = { target_bpw = 4, candidates = ['int8'] }",
            &["compress", "--preset", "pal4"],
            "[compress]\npreset = \"pal4\"\n",
        ),
        (
            "compress = { target_bpw = 4, candidates = ['int8'] }",
            &["compress", "--target-size", "9MB"],
            "[compress]\ntarget_size = \"9MB\"\ncandidates = [\"int8\"]\n",
        ),
        (
            "compress = { preset = 'w8a8', activation_range = 'mse' }",
            &["compress", "--preset", "pal4"],
            "[compress]\npreset = \"pal4\"\n",
        ),
        ("compress.preset = 'int8'", &["compress", "--decompress"], "[compress]\ndecompress = true\n"),
        // A recipe says what `compress` may need, and `convert` then does without.
        ("compress.weight_threshold = 3", &["convert"], ""),
        (
            "compress.weight_threshold = 3",
            &["convert", "--preset", "int8"],
            "[compress]\npreset = \"int8\"\nweight_threshold = 3\n",
        ),
        ("verify.source_runtime = 'torch'", &["compress"], ""),
        (
            "verify = { min_snr = 30, min_cosine = 0.9, steps = 2 }",
            &["verify", "--tolerance", "1"],
            "[verify]\ntolerance = \"1\"\nsteps = 2\n",
        ),
        (
            "verify = { no_verify = true, min_top1 = 0.5 }",
            &["verify", "--quick"],
            "[verify]\nmin_top1 = 0.5\nquick = true\n",
        ),
        ("convert.no_state = false", &["convert"], ""),
    ] {
        assert_eq!(text(beside(recipe, words)), want, "{recipe} {words:?}");
    }
}

#[test]
fn wrong_values_have_a_place() {
    for (recipe, want) in [
        // It is there in the working folder, and not beside the recipe.
        ("convert.class_labels = 'Cargo.toml'", "`convert.class_labels`: there is no file `"),
        ("convert.no_state = 'yes'", "`convert.no_state`: found the text `yes`, wanted true or false"),
        ("convert.target = 18", "`convert.target`: found 18, wanted a text"),
        ("convert.states = { 'a=b' = 'c=d=e' }", "`convert.states.a=b`: a `=` in it leaves open where the name ends"),
        ("convert.states = ['a']", "`convert.states[0]`: wanted the name of an input, `=`, and that of an output"),
        ("convert.images = { x = 'rbg' }", "`convert.images.x`: `rbg` is no layout"),
        ("convert.images = { 'x=rgb' = 'bgr' }", "`convert.images.x=rgb`: a `=` in it leaves open where the name ends"),
        ("convert.optional = { k = true }", "`convert.optional.k`: found true, wanted a number"),
        ("convert.renames = ['a']", "`convert.renames[0]`: wanted the name of an input or output"),
        ("verify.resize = ['8']", "`verify.resize[0]`: `8` is no size"),
        ("convert.inputs = [3]", "`convert.inputs[0]`: found 3, wanted a text"),
        ("compress.tensors = ['a=int3']", "`compress.tensors[0]`: `int3` is no scheme"),
        ("compress.tensors = ['a']", "`compress.tensors[0]`: wanted REGEX=SCHEME"),
        (
            "compress.weight_threshold = -1",
            "`compress.weight_threshold`: found -1, wanted a whole number of at least 0",
        ),
        ("compress.target_bpw = 0", "`compress.target_bpw`: found 0, wanted a number above 0"),
        ("compress.target_size = 0", "`compress.target_size`: `0` is no size such as 20MB"),
        ("compress.max_drop = 'top1'", "`compress.max_drop`: `top1` is no loss such as"),
        ("compress.rounding = 'up'", "`compress.rounding`: found the text `up`, wanted `nearest` or `gptq`"),
        ("compress.activations = 'int4'", "`compress.activations`: wanted `int8`"),
        ("compress = { target_bpw = 4, max_drop = 'rms=1' }", "`target_bpw` and `max_drop` exclude each other"),
        ("compress = { preset = 'int8', decompress = true }", "`preset` and `decompress` exclude each other"),
        ("verify.seed = -1", "`verify.seed`: found -1, wanted a whole number of at least 0"),
        ("verify.seed = 'a'", "`verify.seed`: wanted a whole number of 0 to"),
        ("verify = { labels = 'y.npy', sample = [] }", "`verify.sample` is no key"),
        ("verify.min_cosine = 2", "`verify.min_cosine`: wanted a number of -1 to 1"),
        ("verify.min_snr = 'a'", "`verify.min_snr`: found the text `a`, wanted a number"),
        ("verify.kinds = { y = 'text' }", "`verify.kinds.y`: wanted the name of an output"),
        ("verify.seeds = 0", "`verify.seeds`: 0 is not in 1..=1000"),
        ("verify.source_runtime = 'tf'", "`verify.source_runtime`: found the text `tf`, wanted `auto`"),
    ] {
        let d = &beside(recipe, &["compress"]).expect_err(recipe)[0];
        let place = d.place.join("");
        assert!(d.to_string().contains(want) && place.contains("r.toml:1:"), "{recipe}: {d}");
    }
}
