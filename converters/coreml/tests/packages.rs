//! Packages that others wrote: read, checked, and written again. `MLCONV_SHARED` names the folder that holds them.

use mlconv_coreml::{
    Artifact, Existing, Finding, OpSignature, Package, Param, Plan, Signatures, WEIGHT_FILE, check, write,
};
use mlconv_proto::{
    Message,
    coreml::{
        Model,
        mil::{argument::binding::Binding, value},
        model,
    },
};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

/// The packages, or nothing where there are none on this machine.
fn packages() -> Vec<PathBuf> {
    let Some(shared) = env::var_os("MLCONV_SHARED") else {
        #[expect(clippy::print_stderr, reason = "says why the test does nothing")]
        {
            eprintln!("skipped: MLCONV_SHARED is not set");
        }
        return vec![];
    };
    let shared = PathBuf::from(shared);
    let mut found = vec![shared.join("real/basic_pitch/nmp.mlpackage")];
    let entries = fs::read_dir(shared.join("packages")).expect("a folder of packages");
    found.extend(
        entries.map(|e| e.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "mlpackage")),
    );
    found.sort();
    assert!(found.len() > 10, "packages in {}", shared.display());
    found
}

fn name(package: &Path) -> &str {
    package.file_stem().and_then(|n| n.to_str()).expect("a plain name")
}

/// The signatures that coremltools declares: by operation, specification version and parameter, what is optional and
/// what is constant. They do not say which optional parameters a program must bind.
struct Declared(serde_json::Value);

impl Signatures for Declared {
    fn signature(&self, op_type: &str, opset: &str) -> Option<OpSignature> {
        let version = opset.strip_prefix("CoreML")?.parse::<u32>().ok()? + 1;
        if op_type == "write_state" {
            let param = |name| Param { name, required_in_file: true, constant: false };
            return Some(OpSignature { params: vec![param("input"), param("data")] });
        }
        let params = self.0.get(op_type)?.get(version.to_string())?.as_object()?;
        let one = |(name, facts): (&String, &serde_json::Value)| Param {
            name: name.clone().leak(),
            required_in_file: facts["optional"] == false,
            constant: facts["const"] == true,
        };
        Some(OpSignature { params: params.iter().map(one).collect() })
    }
}

fn findings(package: &Package) -> Vec<Finding> {
    let artifact = Artifact::new(&package.model, &package.weights);
    match &package.manifest {
        Some(manifest) => check(&artifact.with_manifest(manifest)),
        None => check(&artifact),
    }
}

#[test]
fn rules_have_nothing_against_them() {
    let mut wrong = vec![];
    let declared = env::var_os("MLCONV_SHARED").map(|shared| {
        let json = fs::read(PathBuf::from(shared).join("reference/mil_ops.json")).expect("signatures");
        Declared(serde_json::from_slice(&json).expect("JSON"))
    });
    for path in packages() {
        let package = Package::read(&path).expect("readable");
        package.program().expect("a program");
        let declared = declared.as_ref().expect("packages and signatures share a folder");
        let artifact = Artifact::new(&package.model, &package.weights).with_signatures(declared);
        let all = findings(&package).into_iter().chain(check(&artifact));
        wrong.extend(all.map(|f| format!("{}: {f:?}", name(&path))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Follows blobs to where they are now; equal ones have become one.
fn move_blobs(model: &mut Model, moved: &BTreeMap<u64, u64>) {
    let Some(model::Type::MlProgram(program)) = &mut model.r#type else { return };
    let blocks = program.functions.values_mut().flat_map(|f| f.block_specializations.values_mut());
    for op in blocks.flat_map(|b| &mut b.operations) {
        let bound = op.inputs.values_mut().flat_map(|a| &mut a.arguments).filter_map(|b| match &mut b.binding {
            Some(Binding::Value(value)) => Some(value),
            _ => None,
        });
        for value in op.attributes.values_mut().chain(bound) {
            if let Some(value::Value::BlobFileValue(blob)) = &mut value.value {
                blob.offset = moved[&blob.offset];
            }
        }
    }
}

#[test]
fn what_is_written_reads_back() {
    let dir = tempfile::tempdir().expect("a folder");
    for path in packages() {
        let package = Package::read(&path).expect("readable");
        let mut model = package.model.clone();
        let mut plan = Plan::default();
        if let Ok(file) = package.weights.file(WEIGHT_FILE) {
            let mut moved = BTreeMap::new();
            for entry in file.entries().map(|e| e.expect("readable")) {
                let count = entry.count().expect("whole elements");
                let offset = plan.add(file.blob(&entry).expect("inside"), entry.dtype, count).expect("storable");
                moved.insert(entry.offset, offset);
            }
            move_blobs(&mut model, &moved);
        }
        let target = dir.path().join(name(&path)).with_extension("mlpackage");
        write(&target, &model, &plan, Existing::Keep).expect("room");
        let again = Package::read(&target).expect("our own");
        assert!(again.missing.is_empty());
        assert_eq!(again.model, model, "{}", name(&path));
        assert_eq!(again.model.encode_to_vec(), model.encode_to_vec());
        assert_eq!(findings(&again), findings(&package), "{}", name(&path));
    }
}
