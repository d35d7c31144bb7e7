//! Programs: between the IR and Core ML's messages, both ways.
//!
//! Nothing here knows an op by name, but for `const`: parameters, their order, defaults and element types come from the
//! ops' schemas.

mod describe;
mod export;
mod import;
mod legalize;
mod names;
mod signatures;
mod values;

pub use export::{Exported, export};
pub use import::{import, import_beside};
pub use legalize::legalize;
pub use signatures::Catalogue;

use mlconv_mil::schema::Opset;

/// The metadata key under which names that had to be changed are kept: a JSON object from ours to the source's.
const NAMES_KEY: &str = "com.github.mlconv.names";

/// Specification version and op set of each target.
const VERSIONS: [(Opset, i32, &str); 5] = [
    (Opset::Ios15, 6, "CoreML5"),
    (Opset::Ios16, 7, "CoreML6"),
    (Opset::Ios17, 8, "CoreML7"),
    (Opset::Ios18, 9, "CoreML8"),
    (Opset::Ios26, 10, "CoreML9"),
];

/// The specification version that goes with an op set.
pub fn specification_version(opset: Opset) -> i32 {
    VERSIONS.iter().find(|(o, ..)| *o == opset).map_or(8, |(_, v, _)| *v)
}

/// How a package spells an op set.
pub fn opset_name(opset: Opset) -> &'static str {
    VERSIONS.iter().find(|(o, ..)| *o == opset).map_or("CoreML7", |(.., n)| n)
}

/// The op set that a package spells `name`.
pub fn opset_from_name(name: &str) -> Option<Opset> {
    VERSIONS.iter().find(|(.., n)| *n == name).map(|(o, ..)| *o)
}
