//! Packages made to do harm, or damaged: an error, never a panic, and nothing outside of them is read.

use mlconv_coreml::{
    Artifact, Error, Existing, Manifest, Package, PathProblem, Plan, WEIGHT_FILE, WeightFile, check, write,
};
use mlconv_proto::{
    Message,
    coreml::{
        FeatureDescription, Metadata, Model, ModelDescription,
        mil::{Block, Function, NamedValueType, Operation, Program, Value, ValueType, value},
        model,
    },
};
use mlconv_tensor::{Blob, Bytes, DType};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A model of one constant in the weight file.
fn model() -> Model {
    let blob = value::BlobFileValue { file_name: WEIGHT_FILE.into(), offset: 64 };
    let val = Value { value: Some(value::Value::BlobFileValue(blob)), ..Default::default() };
    let op = Operation {
        r#type: "const".into(),
        outputs: vec![NamedValueType { name: "w".into(), r#type: Some(ValueType::default()) }],
        attributes: [("val".to_owned(), val)].into(),
        ..Default::default()
    };
    let body = Block { outputs: vec!["w".into()], operations: vec![op], ..Default::default() };
    let function = Function {
        opset: "CoreML7".into(),
        block_specializations: [("CoreML7".to_owned(), body)].into(),
        ..Default::default()
    };
    let program = Program { version: 1, functions: [("main".to_owned(), function)].into(), ..Default::default() };
    let feature = FeatureDescription { name: "w".into(), ..Default::default() };
    let metadata = Metadata { author: "somebody".into(), ..Default::default() };
    Model {
        specification_version: 8,
        description: Some(ModelDescription { output: vec![feature], metadata: Some(metadata), ..Default::default() }),
        r#type: Some(model::Type::MlProgram(program)),
        ..Default::default()
    }
}

fn plan() -> Plan {
    let mut plan = Plan::default();
    for (dtype, data) in [(DType::F16, &[1u8; 20][..]), (DType::U4, &[0x21; 3]), (DType::I8, &[9; 70])] {
        let count = data.len() * 8 / dtype.bits() as usize;
        plan.add(Blob::from(Bytes::copy_from_slice(data)), dtype, count).expect("storable");
    }
    plan
}

fn written(dir: &Path) -> PathBuf {
    let path = dir.join("a.mlpackage");
    write(&path, &model(), &plan(), Existing::Replace).expect("room");
    path
}

const MODEL: &str = "Data/com.apple.CoreML/model.mlmodel";
const WEIGHTS: &str = "Data/com.apple.CoreML/weights/weight.bin";

#[test]
fn a_package_has_core_mls_layout() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = written(dir.path());
    assert_eq!(fs::read_to_string(path.join("Manifest.json")).expect("a manifest"), Manifest::standard(true).to_json());
    assert_eq!(fs::metadata(path.join(WEIGHTS)).expect("weights").len(), plan().len_bytes());
    let package = Package::read(&path).expect("our own");
    assert_eq!((&package.model, package.missing.len()), (&model(), 0));
    let blob = value::BlobFileValue { file_name: WEIGHT_FILE.into(), offset: 64 };
    assert_eq!(package.weights.get(&blob, DType::F16, &[10]).expect("there").count(), 10);
    assert!(package.program().is_ok());

    let bare = dir.path().join("bare.mlpackage");
    write(&bare, &model(), &Plan::default(), Existing::Keep).expect("room");
    assert_eq!(Package::read(&bare).expect("our own").manifest, Some(Manifest::standard(false)));
    assert!(!bare.join("Data/com.apple.CoreML/weights").exists());
}

#[test]
fn a_model_file_alone_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.mlmodel");
    fs::write(&path, model().encode_to_vec()).expect("room");
    let package = Package::read(&path).expect("a model");
    assert_eq!(package.model, model());
    assert!(matches!(package.weights.file(WEIGHT_FILE), Err(Error::NoPackage { .. })));

    let other = Model { r#type: Some(model::Type::Pipeline(Bytes::new())), ..Default::default() };
    fs::write(&path, other.encode_to_vec()).expect("room");
    let package = Package::read(&path).expect("a model");
    assert!(matches!(package.program(), Err(Error::NotAProgram { kind: Some("pipeline") })));
}

#[test]
fn what_is_no_package_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(matches!(Package::read(dir.path()), Err(Error::NotAPackage { .. })));
    assert!(matches!(Package::read(&dir.path().join("none")), Err(Error::Io { .. })));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for part in ["Manifest.json", MODEL] {
        let path = written(dir.path());
        fs::write(path.join(part), pointer).expect("room");
        assert!(matches!(Package::read(&path), Err(Error::LfsPointer { .. })), "{part}");
    }
    let path = written(dir.path());
    fs::write(path.join(WEIGHTS), pointer).expect("room");
    let package = Package::read(&path).expect("the model is there");
    assert!(matches!(package.weights.file(WEIGHT_FILE), Err(Error::LfsPointer { .. })));
}

#[test]
fn missing_weights_do_not_hide_the_model() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = written(dir.path());
    fs::remove_dir_all(path.join("Data/com.apple.CoreML/weights")).expect("there");
    let package = Package::read(&path).expect("the model is there");
    assert_eq!(package.missing, ["com.apple.CoreML/weights"]);
    assert!(matches!(package.weights.file(WEIGHT_FILE), Err(Error::Io { .. })));
    fs::remove_file(path.join(MODEL)).expect("there");
    assert!(matches!(Package::read(&path), Err(Error::MissingItem { .. })));
}

#[test]
fn names_of_weight_files_stay_in_the_package() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = written(dir.path());
    let secret = dir.path().join("secret.bin");
    fs::copy(path.join(WEIGHTS), &secret).expect("room");
    let package = Package::read(&path).expect("our own");
    let problem = |name: &str| match package.weights.file(name) {
        Err(Error::UnsafePath { problem, .. }) => Some(problem),
        _ => None,
    };
    assert_eq!(problem("@model_path/../../../secret.bin"), Some(PathProblem::Climbs));
    assert_eq!(problem("@model_path//etc/passwd"), Some(PathProblem::Absolute));
    assert_eq!(problem(&secret.display().to_string()), Some(PathProblem::NotAtModelPath));
    assert_eq!(problem("@model_path/"), Some(PathProblem::Empty));
    assert!(package.weights.file("@model_path/./weights//weight.bin").is_ok());
    assert!(package.weights.file("@model_path/weights").is_err());
}

#[cfg(unix)]
#[test]
fn links_out_of_the_package_are_not_followed() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().expect("a folder");
    let leaves = |e| matches!(e, Error::UnsafePath { problem: PathProblem::LeavesPackage, .. });

    let path = written(dir.path());
    let secret = dir.path().join("secret");
    fs::rename(path.join(WEIGHTS), &secret).expect("there");
    symlink(&secret, path.join(WEIGHTS)).expect("a link");
    let package = Package::read(&path).expect("the model is inside");
    assert!(leaves(package.weights.file(WEIGHT_FILE).expect_err("outside")));

    let path = written(dir.path());
    fs::rename(path.join(MODEL), &secret).expect("there");
    symlink(&secret, path.join(MODEL)).expect("a link");
    assert!(leaves(Package::read(&path).expect_err("outside")));
}

#[test]
fn a_write_that_cannot_start_leaves_no_trace() {
    let dir = tempfile::tempdir().expect("a folder");
    let nowhere = dir.path().join("none/a.mlpackage");
    assert!(matches!(write(&nowhere, &model(), &plan(), Existing::Keep), Err(Error::Io { .. })));
    let file = dir.path().join("file");
    fs::write(&file, "text").expect("room");
    assert!(write(&file.join("a.mlpackage"), &model(), &plan(), Existing::Keep).is_err());
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
}

/// A sequence of numbers that is the same on every run. Source: Marsaglia 2003, "Xorshift RNGs".
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    /// `bytes` with a few bits flipped, cut short, or with a stretch replaced.
    fn damaged(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        match self.below(4) {
            0 => out.truncate(self.below(bytes.len())),
            1 => {
                let at = self.below(out.len());
                let end = (at + 8).min(out.len());
                out[at..end].fill(0xff);
            }
            _ => {
                for _ in 0..=self.below(4) {
                    let at = self.below(out.len());
                    out[at] ^= 1 << self.below(8);
                }
            }
        }
        out
    }
}

#[test]
fn damage_is_an_error_or_harmless() {
    let (model, manifest) = (model().encode_to_vec(), Manifest::standard(true).to_json());
    let mut weights = vec![];
    plan().write_to(&mut weights).expect("memory");
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for _ in 0..20_000 {
        if let Ok(manifest) = Manifest::parse(&numbers.damaged(manifest.as_bytes())) {
            // What is read is readable when written again.
            assert_eq!(Manifest::parse(manifest.to_json().as_bytes()).ok(), Some(manifest));
        }
        let file = WeightFile::open(Bytes::from(numbers.damaged(&weights)));
        if let Ok(file) = &file {
            let entries: Vec<_> = file.entries().flatten().collect();
            for e in &entries {
                assert_eq!(file.blob(e).expect("known to be inside").len(), e.len);
                let _ = e.count().map(|n| file.get(e.offset, e.dtype, &[n]));
            }
            let _ = file.get(numbers.below(weights.len()) as u64, DType::U4, &[6]);
        }
        if let Ok(model) = Model::decode(&numbers.damaged(&model)[..]) {
            check(&Artifact::new(&model, &plan()));
        }
    }
}

#[test]
fn a_damaged_package_is_an_error_or_harmless() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let path = written(dir.path());
    for part in ["Manifest.json", MODEL, WEIGHTS] {
        let good = fs::read(path.join(part)).expect("there");
        for _ in 0..300 {
            fs::write(path.join(part), numbers.damaged(&good)).expect("room");
            if let Ok(package) = Package::read(&path) {
                check(&Artifact::new(&package.model, &package.weights));
            }
        }
        fs::write(path.join(part), good).expect("room");
    }
}
