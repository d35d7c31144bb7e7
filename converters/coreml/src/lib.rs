//! The Core ML backend: packages, weight files, programs, and the rules that Core ML holds them to.

mod dtypes;
mod error;
mod manifest;
mod package;
mod program;
mod rules;
mod weights;

pub use dtypes::{Field, blob_code, data_type, dtype_of, dtype_of_blob, immediate_field};
pub use error::{Access, Error, PathProblem, Result};
pub use manifest::{Item, Manifest};
pub use package::{Existing, Package, WeightFiles, abandon, check_file, check_target, program, size, write};
pub use program::{
    Catalogue, Exported, export, import, import_beside, legalize, opset_from_name, opset_name, specification_version,
};
pub use rules::{Artifact, Finding, OpSignature, Param, RULES, Rule, Signatures, check, is_identifier};
pub use weights::{Entry, Plan, WEIGHT_FILE, WeightFile, Weights};
