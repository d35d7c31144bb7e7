//! Parity bundles: a package with inputs and expected outputs, to be run in Core ML on a Mac, and what came of that.
//!
//! A bundle is a folder: the package, its inputs and what is expected of it as `.npy` files, `bundle.json`, which says what is
//! what, and `run.swift`, which runs the package on each kind of processor and writes `results/UNITS/MODEL/SAMPLE/OUTPUT.npy`.

mod make;
mod probes;
mod read;
mod stage;

pub use make::{Expected, Job, make};
pub use read::{Judged, Outcome, Run, read};
pub use stage::abandon;

use serde::{Deserialize, Serialize};

/// The file that says what is in a bundle.
pub const FILE: &str = "bundle.json";

/// What a bundle holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// The version of this description.
    pub version: u32,
    /// The program that made it.
    pub made_by: String,
    /// What gave the expected outputs, as a sentence.
    pub against: String,
    /// The seed of made-up inputs; `None` where inputs are samples.
    pub seed: Option<u64>,
    /// The packages; the first is the one that was bundled, others have further outputs, which are values of its ops.
    pub models: Vec<Entry>,
    /// The calls, in their order, as states go from one to the next.
    pub samples: Vec<Sample>,
}

/// A package of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is in the bundle.
    pub path: String,
    /// Its hash, see [`crate::golden::hash`].
    pub sha256: String,
    /// The function, where it is not the one that the package runs by default.
    pub function: Option<String>,
    /// Whether it computes in half precision.
    pub half: bool,
    /// Whether it has states.
    pub stateful: bool,
    /// Its outputs.
    pub outputs: Vec<Output>,
}

/// An output of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its name in the package.
    pub name: String,
    /// The name of its file, of what is expected as of what came.
    pub file: String,
    /// The type of op whose value it is; `None` of an output of the model.
    pub op: Option<String>,
    /// Whether it is compared: an array, or the probabilities of classes, which are written as one; no label and no image.
    pub array: bool,
    /// Of the probabilities of a classifier, the labels, as text, in the order of the array. One that stands for several
    /// classes is not among them: of these Core ML tells of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// Whether it follows from random numbers.
    pub drawn: bool,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The inputs that are given.
    pub inputs: Vec<Array>,
    /// What is expected, by package and then by output; `None` of what is no array.
    pub expected: Vec<Vec<Option<Array>>>,
}

/// An array in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Array {
    /// The input or output, by its name in the package.
    pub name: String,
    /// Where it is in the bundle.
    pub file: String,
    /// Its element type.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The layout of the image that it is: `rgb`, `bgr`, `gray` or `gray16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The hash of the file, in hexadecimal digits.
    pub sha256: String,
}
