//! What Core ML made of a bundle.

use super::{Array, Bundle, FILE};
use crate::{
    Diagnostic, Failure, arrays, codes,
    compare::{self, OutputDiff, Tolerance},
    golden,
};
use mlconv_tensor::Tensor;
use serde::Deserialize;
use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// A bundle with its results.
#[derive(Debug)]
pub struct Outcome {
    /// What the bundle holds.
    pub bundle: Bundle,
    /// One for each kind of compute units that has run, in the order of their names.
    pub runs: Vec<Run>,
}

/// What came of one kind of compute units.
#[derive(Debug)]
pub struct Run {
    /// Their name, such as `cpuAndGPU`.
    pub units: String,
    /// The computer, such as `Mac14,2, Apple M2, Version 15.1`; empty where that is not known.
    pub device: String,
    /// Calls that failed: what failed, and why.
    pub errors: Vec<String>,
    /// How far outputs are from what is expected, by package and output; of several samples, the worst.
    pub outputs: Vec<Judged>,
}

/// An output of one of the packages.
#[derive(Debug)]
pub struct Judged {
    /// The package, by its number.
    pub model: usize,
    /// The type of op whose value it is; `None` of an output of the model.
    pub op: Option<String>,
    /// How far it is from what is expected.
    pub diff: OutputDiff,
}

impl Run {
    /// Whether every call went well, and every output of the model itself was compared and is within the tolerance.
    pub fn pass(&self) -> bool {
        let mut own = self.outputs.iter().filter(|o| o.model == 0).peekable();
        self.errors.is_empty() && own.peek().is_some() && own.all(|o| o.diff.pass)
    }
}

/// What `run.swift` writes of a run.
#[derive(Deserialize)]
struct Report {
    /// The hashes of the packages that ran.
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    device: String,
    #[serde(default)]
    processor: String,
    #[serde(default)]
    system: String,
    #[serde(default)]
    calls: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    model: usize,
    sample: usize,
    #[serde(default)]
    error: Option<String>,
}

/// Reads a bundle and compares all results with what is expected; `tolerance` is that of each package's precision where it is
/// `None`.
///
/// Errors: the folder is no bundle, names files outside of itself, holds others than it says, or has no results. An output without
/// a file differs; results of other packages, or of a run that came to no end, are errors of the run.
pub fn read(folder: &Path, tolerance: Option<Tolerance>) -> Result<Outcome, Failure> {
    let bundle: Bundle = json(&folder.join(FILE), "description of a bundle")?;
    if bundle.version != 1 {
        let title = format!("the bundle is of version {}, wanted 1", bundle.version);
        return Err(vec![Diagnostic::error(&codes::R0003, title).at(folder.join(FILE).display().to_string())]);
    }
    let results = folder.join("results");
    let mut units: Vec<PathBuf> = fs::read_dir(&results)
        .map(|entries| entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect())
        .unwrap_or_default();
    units.sort();
    if units.is_empty() {
        let d = Diagnostic::error(&codes::R0001, "there are no results in the bundle");
        let help = "run `swift run.swift` in the folder of the bundle on a Mac, and copy `results` back";
        return Err(vec![d.at(results.display().to_string()).help(help)]);
    }
    check_files(folder, &bundle)?;
    let runs = units.iter().map(|place| run(folder, place, &bundle, tolerance)).collect::<Result<_, _>>()?;
    Ok(Outcome { bundle, runs })
}

/// Refuses a bundle whose arrays are not those that it says.
fn check_files(folder: &Path, bundle: &Bundle) -> Result<(), Failure> {
    let other = |file: &str| {
        let title = format!("`{file}` is not what the bundle was made with");
        let d = Diagnostic::error(&codes::R0003, title).at(folder.join(FILE).display().to_string());
        vec![d.help("make the bundle again, and run that one")]
    };
    for array in bundle.samples.iter().flat_map(|s| s.inputs.iter().chain(s.expected.iter().flatten().flatten())) {
        let path = folder.join(inside(folder, &array.file)?);
        if golden::hash(&path).map_err(|d| vec![d])? != array.sha256 {
            return Err(other(&array.file));
        }
    }
    Ok(())
}

fn run(folder: &Path, place: &Path, bundle: &Bundle, tolerance: Option<Tolerance>) -> Result<Run, Failure> {
    let units = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed =
        |why: &str| Run { units: units.clone(), device: String::new(), errors: vec![why.to_owned()], outputs: vec![] };
    if !place.join("run.json").is_file() {
        return Ok(failed("there is no `run.json`: the run did not come to its end, or was not copied whole"));
    }
    let report: Report = json(&place.join("run.json"), "report of a run")?;
    if !report.packages.iter().eq(bundle.models.iter().map(|m| &m.sha256)) {
        return Ok(failed(
            "these are results of other packages than those of the bundle: run `swift run.swift` in it again",
        ));
    }
    let about = [report.device, report.processor, report.system];
    let device: Vec<String> = about.into_iter().filter(|s| !s.is_empty()).collect();
    let mut errors = vec![];
    let mut ran = vec![vec![false; bundle.samples.len()]; bundle.models.len()];
    for call in report.calls {
        let (model, sample) = (call.model, call.sample);
        if let Some(why) = call.error {
            let path = bundle.models.get(model).map_or("?", |m| m.path.as_str());
            errors.push(format!("`{path}`, sample {sample}: {why}"));
        } else if let Some(did) = ran.get_mut(model).and_then(|m| m.get_mut(sample)) {
            *did = true;
        }
    }
    for (entry, ran) in bundle.models.iter().zip(&ran) {
        if errors.is_empty() && ran.contains(&false) {
            errors.push(format!("`{}` did not run on all samples", entry.path));
        }
    }
    if bundle.models.first().is_none_or(|m| !m.outputs.iter().any(|o| o.array)) {
        errors.push("nothing is compared: no output of the package is an array, or holds probabilities".to_owned());
    }
    let mut outputs = vec![];
    for (model, entry) in bundle.models.iter().enumerate() {
        let tolerance = tolerance.unwrap_or(if entry.half { Tolerance::F16 } else { Tolerance::F32 });
        for (at, output) in entry.outputs.iter().enumerate().filter(|(_, o)| o.array) {
            let mut worst: Option<OutputDiff> = None;
            for (i, sample) in bundle.samples.iter().enumerate().filter(|(i, _)| ran[model][*i]) {
                let Some(expected) = sample.expected.get(model).and_then(|e| e.get(at)).and_then(Option::as_ref) else {
                    let title = format!("sample {i} has no expected value of output `{}`", output.name);
                    return Err(vec![
                        Diagnostic::error(&codes::R0003, title).at(folder.join(FILE).display().to_string()),
                    ]);
                };
                let want = array(folder, expected)?;
                let got = place.join(model.to_string()).join(i.to_string()).join(inside(folder, &output.file)?);
                let diff = if got.is_file() {
                    let got = arrays::read_npy(&got).map_err(|d| vec![d])?;
                    compare::output(&output.name, &want, &got, tolerance)
                } else {
                    missing(&output.name, &want, tolerance)
                };
                let diff = if output.drawn { diff.of_chance() } else { diff }.of_sample(i);
                match &mut worst {
                    Some(worst) => worst.absorb(diff),
                    None => worst = Some(diff),
                }
            }
            outputs.extend(worst.map(|diff| Judged { model, op: output.op.clone(), diff }));
        }
    }
    Ok(Run { units: units.clone(), device: device.join(", "), errors, outputs })
}

/// The distance of an output that is not there.
fn missing(name: &str, want: &Tensor, tolerance: Tolerance) -> OutputDiff {
    let mut diff = compare::output(name, want, want, tolerance);
    (diff.mismatch, diff.pass) = (Some("the output was not written".to_owned()), false);
    diff
}

/// The array of a file of the bundle.
fn array(folder: &Path, a: &Array) -> Result<Tensor, Failure> {
    let path = folder.join(inside(folder, &a.file)?);
    arrays::read_npy(&path).map_err(|d| vec![d])
}

/// A path that a bundle names, which is inside of it.
fn inside(folder: &Path, name: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(name);
    if !name.is_empty() && path.components().all(|c| matches!(c, Component::Normal(_))) {
        return Ok(path.to_path_buf());
    }
    let title = format!("the bundle names `{name}`, which is not inside of it");
    Err(vec![Diagnostic::error(&codes::R0004, title).at(folder.join(FILE).display().to_string())])
}

fn json<T: for<'d> Deserialize<'d>>(path: &Path, what: &str) -> Result<T, Failure> {
    let place = || path.display().to_string();
    let bytes = fs::read(path)
        .map_err(|e| vec![Diagnostic::error(&codes::R0001, format!("cannot read the file: {e}")).at(place())])?;
    serde_json::from_slice(&bytes)
        .map_err(|e| vec![Diagnostic::error(&codes::R0003, format!("the file is no {what}: {e}")).at(place())])
}
