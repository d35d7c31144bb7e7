//! Damaged files: read or refused, never a panic, and never a wait. The damage is random and the same on every run.

#[path = "fuzz/bodies.rs"]
mod bodies;
mod support;

use bodies::{Depth, archive::entries};
use mlconv::arrays::{Arrays, write_npz};
use mlconv_mil::{
    ir::{Function, Module},
    text::parse,
    verify::verify,
};
use mlconv_tensor::Tensor;
use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};
use support::{damage::Numbers, files, fixtures, onnx::Onnx};

/// What one file may take, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(20);

/// Feeds `rounds` damaged files to `body`; how many came how far.
///
/// A file that makes it panic or wait is written to the folder that the message names.
fn torture(
    kind: &str,
    rounds: u64,
    make: &dyn Fn(u64) -> Vec<u8>,
    body: &dyn Fn(&[u8]) -> Depth,
) -> BTreeMap<Depth, u64> {
    let mut depths: BTreeMap<Depth, u64> = BTreeMap::new();
    // More rounds than a test should take: `MLCONV_HOSTILE=50 cargo test --release --test hostile`.
    let times = std::env::var("MLCONV_HOSTILE").ok().and_then(|t| t.parse().ok()).unwrap_or(1);
    let rounds = rounds * times;
    let mut panics = vec![];
    for seed in 1..=rounds {
        let bytes = make(seed);
        let start = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| body(&bytes)));
        let keep = || {
            let path = std::env::temp_dir().join(format!("mlconv-hostile-{kind}-{seed}"));
            fs::write(&path, &bytes).expect("room");
            path.display().to_string()
        };
        let Ok(depth) = done else {
            panics.push(keep());
            continue;
        };
        *depths.entry(depth).or_default() += 1;
        assert!(start.elapsed() < PATIENCE, "{kind} file of seed {seed} takes {:?}: {}", start.elapsed(), keep());
    }
    assert!(panics.is_empty(), "{} {kind} files make it panic: {}", panics.len(), panics.join(" "));
    depths
}

/// Tortures with damaged files. Damage that is always refused at once, or never, tests little.
fn damage(kind: &str, rounds: u64, make: &dyn Fn(u64) -> Vec<u8>, body: &dyn Fn(&[u8]) -> Depth) {
    let depths = torture(kind, rounds, make, body);
    let (all, refused) = (depths.values().sum::<u64>(), depths.get(&Depth::Refused).copied().unwrap_or(0));
    assert!(refused > all / 50 && refused < all * 49 / 50, "{kind}: {depths:?}");
}

/// Programs to damage: small, and of many ops.
fn programs() -> Vec<String> {
    let all: Vec<String> =
        files(&fixtures().join("ops"), "mil").iter().map(|p| fs::read_to_string(p).expect("readable")).collect();
    assert!(all.len() > 20);
    all
}

/// The manifest, model file and weights of a package of each program that can be one.
fn packages() -> Vec<[Vec<u8>; 3]> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut out = vec![];
    for module in programs().iter().flat_map(|text| single_functions(text)) {
        let mut module = module;
        if mlconv_coreml::legalize(&mut module).is_err() {
            continue;
        }
        let Ok(module) = verify(module) else { continue };
        let Ok(exported) = mlconv_coreml::export(&module) else { continue };
        let path = dir.path().join("a.mlpackage");
        mlconv_coreml::write(&path, &exported.model, &exported.weights, mlconv_coreml::Existing::Replace)
            .expect("room");
        out.push(package_files(&path));
    }
    assert!(out.len() > 50, "{} programs can be packages", out.len());
    out
}

/// A module of each function in a program's text: old op sets allow a package no more.
fn single_functions(text: &str) -> Vec<Module> {
    let module = parse(text).expect("a fixture");
    let one = |f: &Function| {
        let mut f = f.clone();
        "main".clone_into(&mut f.name);
        Module { functions: vec![f], ..module.clone() }
    };
    module.functions.iter().map(one).collect()
}

fn package_files(path: &Path) -> [Vec<u8>; 3] {
    let place = path.join("Data/com.apple.CoreML");
    let weights = fs::read(place.join("weights/weight.bin")).unwrap_or_default();
    [
        fs::read(path.join("Manifest.json")).expect("a manifest"),
        fs::read(place.join("model.mlmodel")).expect("a model"),
        weights,
    ]
}

/// An ONNX file of two nodes.
fn small_model() -> Vec<u8> {
    let f32 = mlconv_proto::onnx::tensor_proto::DataType::Float;
    Onnx::new()
        .input("x", f32, &[2, 3])
        .weight("w", &[3], &[1.0, -2.0, 0.5])
        .node("Add", &["x", "w"], &["a"])
        .node("Relu", &["a"], &["y"])
        .output("y", f32, &[2, 3])
        .bytes()
}

#[test]
fn onnx_files() {
    let mut good: Vec<Vec<u8>> =
        files(&fixtures().join("models"), "onnx").iter().map(|p| fs::read(p).expect("readable")).collect();
    // The small one is there more often: it is damaged where it matters.
    good.extend(vec![small_model(); 4]);
    let make = |seed: u64| {
        let mut n = Numbers::new(seed);
        let (i, k) = (n.below(good.len()), n.below(good.len()));
        if n.below(4) == 0 { n.damaged(&good[i], &good[k]) } else { n.damaged_message(&good[i]) }
    };
    damage("onnx", 2000, &make, &bodies::onnx);
}

/// The entries of an archive whose names end so.
fn parts(archive: &[u8], part: &str) -> Vec<Vec<u8>> {
    entries(archive).into_iter().filter(|(name, _)| name.ends_with(part)).map(|(_, bytes)| bytes).collect()
}

/// One of several files, damaged as bytes or, where it is one, as a text.
fn damaged_one(good: Vec<Vec<u8>>) -> impl Fn(u64) -> Vec<u8> {
    assert!(!good.is_empty());
    move |seed: u64| {
        let mut n = Numbers::new(seed);
        let (i, k) = (n.below(good.len()), n.below(good.len()));
        match (std::str::from_utf8(&good[i]), std::str::from_utf8(&good[k])) {
            (Ok(text), Ok(other)) if n.below(4) > 0 => n.damaged_text(text, other).into_bytes(),
            _ => n.damaged(&good[i], &good[k]),
        }
    }
}

#[test]
fn exported_programs() {
    damage("json", 600, &damaged_one(parts(bodies::DIGITS_PT2, "models/model.json")), &bodies::pt2_json);
}

#[test]
fn torchscript_code() {
    damage("py", 600, &damaged_one(parts(bodies::DIGITS_PT, "code/__torch__.py")), &bodies::torchscript_code);
}

#[test]
fn pickles() {
    damage("pkl", 600, &damaged_one(parts(bodies::DIGITS_PT, "/data.pkl")), &bodies::pickle);
}

#[test]
fn archives() {
    let of = |suffix: &str| files(&fixtures().join("models"), suffix);
    let good = of("pt").into_iter().chain(of("pt2")).map(|p| fs::read(p).expect("readable")).collect();
    damage("zip", 600, &damaged_one(good), &bodies::zip);
}

#[test]
fn packages_of_files() {
    let (good, dir) = (packages(), tempfile::tempdir().expect("a folder"));
    let make = |seed: u64| {
        let mut n = Numbers::new(seed);
        let [mut manifest, mut model, mut weights] = good[n.below(good.len())].clone();
        match n.below(8) {
            0 => manifest = n.damaged(&manifest, &manifest),
            1 => weights = n.damaged(&weights, &model),
            2 => model = n.damaged(&model, &weights),
            _ => model = n.damaged_message(&model),
        }
        bodies::join_package(&manifest, &model, &weights)
    };
    damage("package", 800, &make, &|bytes| bodies::package(bytes, dir.path()));
}

#[test]
fn weight_files() {
    let good: Vec<Vec<u8>> = packages().into_iter().map(|[_, _, w]| w).filter(|w| !w.is_empty()).collect();
    let make = |seed: u64| {
        let mut n = Numbers::new(seed);
        let (i, k) = (n.below(good.len()), n.below(good.len()));
        n.damaged(&good[i], &good[k])
    };
    damage("weights", 20_000, &make, &bodies::weights);
}

#[test]
fn program_texts() {
    let good = programs();
    let make = |seed: u64| {
        let mut n = Numbers::new(seed);
        let (i, k) = (n.below(good.len()), n.below(good.len()));
        if n.below(8) == 0 {
            n.damaged(good[i].as_bytes(), good[k].as_bytes())
        } else {
            n.damaged_text(&good[i], &good[k]).into_bytes()
        }
    };
    damage("mil", 6000, &make, &bodies::mil_text);
}

#[test]
fn pictures() {
    let folder = fixtures().join("pictures");
    let of = |suffix| files(&folder, suffix).into_iter().map(|p| fs::read(p).expect("readable"));
    let good: Vec<Vec<u8>> = of("png").chain(of("jpg")).collect();
    let make = |seed: u64| {
        let mut n = Numbers::new(seed);
        let (i, k) = (n.below(good.len()), n.below(good.len()));
        n.damaged(&good[i], &good[k])
    };
    damage("picture", 3000, &make, &bodies::picture);
}

#[test]
fn array_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.npz");
    let arrays: Arrays = [
        ("x".to_owned(), Tensor::from_vec(&[2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("n".to_owned(), Tensor::from_vec(&[], vec![7i64])),
    ]
    .into_iter()
    .collect();
    write_npz(&path, &arrays).expect("room");
    let npz = fs::read(&path).expect("written");
    // A stored archive holds its files as they are.
    let npy = npz.windows(6).position(|w| w == b"\x93NUMPY").expect("a file");
    let mut good = vec![npz.clone(), npz[npy..npy + 128 + 24].to_vec()];
    good.extend(files(&fixtures().join("models"), "npz").iter().map(|p| fs::read(p).expect("readable")));
    let make = |seed: u64| {
        let mut n = Numbers::new(seed);
        // The small ones more often.
        let i = if n.below(20) == 0 { n.below(good.len()) } else { n.below(2) };
        n.damaged(&good[i], &npz)
    };
    damage("arrays", 10_000, &make, &bodies::tensors);
}

/// Files for the fuzz targets to start from.
#[test]
#[ignore = "writes to the source tree"]
fn seeds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let put = |target: &str, files: Vec<Vec<u8>>| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).expect("room");
        for (i, bytes) in files.iter().enumerate() {
            fs::write(folder.join(format!("seed-{i:03}")), bytes).expect("room");
        }
    };
    put("mil_text", programs().into_iter().map(String::into_bytes).collect());
    put("package", packages().iter().map(|[a, b, c]| bodies::join_package(a, b, c)).collect());
    put("weights", packages().into_iter().map(|[_, _, w]| w).filter(|w| !w.is_empty()).collect());
    let read = |suffix: &str| {
        let all = files(&fixtures().join("models"), suffix);
        all.iter().map(|p| fs::read(p).expect("readable")).collect::<Vec<_>>()
    };
    put("onnx", [read("onnx"), vec![small_model()]].concat());
    put("tensors", read("npz"));
    put("zip", [read("pt"), read("pt2")].concat());
    put("pt2_json", parts(bodies::DIGITS_PT2, "models/model.json"));
    put("torchscript_code", parts(bodies::DIGITS_PT, ".py"));
    put("pickle", parts(bodies::DIGITS_PT, ".pkl"));
}

/// Arguments that make no sense, at every operator that has a lowering.
#[test]
fn onnx_nodes() {
    let rows: Vec<&'static mlconv_source::Row> = mlconv_onnx::table().rows().collect();
    assert!(rows.len() > 100);
    let make = |seed: u64| support::nodes::model(rows[seed as usize % rows.len()], &mut Numbers::new(seed));
    let depths = torture("node", 40 * rows.len() as u64, &make, &bodies::onnx);
    // Most arguments make no sense at all, and some by chance do.
    assert!(depths.get(&Depth::Ran).is_some_and(|n| *n > rows.len() as u64 / 10), "{depths:?}");
}
