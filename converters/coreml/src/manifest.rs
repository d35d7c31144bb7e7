//! `Manifest.json`: what a package holds, and which of it is the model.

use crate::{Error, PathProblem, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

/// The manifest of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the package format, unrelated to the model's.
    #[serde(rename = "fileFormatVersion")]
    version: String,
    /// Files and folders under `Data/`, by identifier.
    #[serde(rename = "itemInfoEntries", default)]
    pub items: BTreeMap<String, Item>,
    /// The identifier of the model file.
    #[serde(rename = "rootModelIdentifier", default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

/// One file or folder of a package. Keys a reader does not know are skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Who wrote it, in reverse-domain notation; unique together with `name`.
    pub author: String,
    /// For people.
    pub description: String,
    /// A name unique to the author.
    pub name: String,
    /// Where it is, relative to `Data/`.
    pub path: String,
}

const VERSION: [u32; 3] = [1, 0, 0];
const AUTHOR: &str = "com.apple.CoreML";
/// What Core ML's own tools name the parts, and where many tools expect them.
const PARTS: [(&str, &str); 2] = [("model.mlmodel", "CoreML Model Specification"), ("weights", "CoreML Model Weights")];

impl Manifest {
    /// The manifest of a package of a model and, perhaps, a folder of weights.
    pub fn standard(with_weights: bool) -> Self {
        let item = |(name, description): (&str, &str)| {
            let path = format!("{AUTHOR}/{name}");
            let item = Item { author: AUTHOR.into(), description: description.into(), name: name.into(), path };
            (identifier(&item), item)
        };
        let root = item(PARTS[0]).0;
        let items = PARTS.into_iter().take(1 + usize::from(with_weights)).map(item).collect();
        Self { version: "1.0.0".into(), items, root: Some(root) }
    }

    /// Reads `json` and checks everything but the presence of the files.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(json)?;
        if !version_is_known(&manifest.version) {
            return Err(Error::ManifestVersion { found: manifest.version });
        }
        for item in manifest.items.values() {
            item.relative_path()?;
        }
        Ok(manifest)
    }

    /// The model file.
    pub fn root(&self) -> Result<&Item> {
        let item = self.root.as_ref().and_then(|id| self.items.get(id));
        item.ok_or_else(|| Error::ManifestRoot { found: self.root.clone() })
    }

    /// The text of the file: indented by four, keys sorted, a newline at the end.
    pub fn to_json(&self) -> String {
        let mut out = vec![];
        let pretty = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        self.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty))
            .expect("strings in maps serialize into memory");
        out.push(b'\n');
        String::from_utf8(out).expect("JSON is UTF-8")
    }
}

impl Item {
    /// The path below `Data/`, known not to leave it.
    pub fn relative_path(&self) -> Result<PathBuf> {
        relative(&self.path).map_err(|problem| Error::UnsafePath { path: self.path.clone(), problem })
    }
}

/// `path`, which is written with slashes, as a path that stays below wherever it is joined to. Both kinds of slashes
/// and drive letters count on every system, so that a package is read alike everywhere.
pub(crate) fn relative(path: &str) -> Result<PathBuf, PathProblem> {
    if path.starts_with(['/', '\\']) || path.contains(':') {
        return Err(PathProblem::Absolute);
    }
    let parts: Vec<&str> = path.split(['/', '\\']).filter(|p| !matches!(*p, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(PathProblem::Climbs);
    }
    if parts.is_empty() { Err(PathProblem::Empty) } else { Ok(parts.iter().collect()) }
}

/// Exactly three numbers, up to the version of this reader.
fn version_is_known(text: &str) -> bool {
    let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse::<u32>().ok()).flatten();
    let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
    parts.is_some_and(|p| p.len() == VERSION.len() && p[..] <= VERSION[..])
}

/// A UUID that depends on nothing but the item's author and name, spelled as macOS does. Version 8: a custom hash.
fn identifier(item: &Item) -> String {
    let hash: [u8; 32] = Sha256::digest(format!("mlpackage item\0{}\0{}", item.author, item.name)).into();
    let mut id = String::with_capacity(36);
    for (i, byte) in hash.into_iter().take(16).enumerate() {
        let byte = match i {
            6 => byte & 0x0f | 0x80,
            8 => byte & 0x3f | 0x80,
            _ => byte,
        };
        if matches!(i, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        write!(id, "{byte:02X}").expect("a string grows");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Manifest> {
        Manifest::parse(json.as_bytes())
    }

    fn with_path(path: &str) -> String {
        format!(
            r#"{{"fileFormatVersion": "1.0.0", "itemInfoEntries": {{"A": {{"path": "{path}", "name": "n", "author": "a",
            "description": "d", "more": 1}}}}, "rootModelIdentifier": "A", "unknown": {{}}}}"#
        )
    }

    #[test]
    fn the_standard_manifest_is_spelled_as_core_ml_does() {
        let json = Manifest::standard(true).to_json();
        assert_eq!(parse(&json).expect("our own"), Manifest::standard(true));
        assert_eq!(
            json,
            r#"{
    "fileFormatVersion": "1.0.0",
    "itemInfoEntries": {
        "AEB502F2-5B07-86D8-8821-ED35D13288E1": {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Weights",
            "name": "weights",
            "path": "com.apple.CoreML/weights"
        },
        "DA85DFE2-346C-8A61-8775-5B819EBD3701": {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Specification",
            "name": "model.mlmodel",
            "path": "com.apple.CoreML/model.mlmodel"
        }
    },
    "rootModelIdentifier": "DA85DFE2-346C-8A61-8775-5B819EBD3701"
}
"#
        );
        assert_eq!(Manifest::standard(false).items.len(), 1);
    }

    #[test]
    fn versions_are_three_numbers_up_to_ours() {
        for (version, known) in [
            ("1.0.0", true),
            ("0.9.9", true),
            ("01.0.0", true),
            ("1.0.1", false),
            ("2.0.0", false),
            ("1.0", false),
            ("1.0.0.0", false),
            ("+1.0.0", false),
            ("1.0.-1", false),
            ("1..0", false),
            ("", false),
            ("99999999999.0.0", false),
        ] {
            let found = parse(&format!(r#"{{"fileFormatVersion": "{version}"}}"#));
            assert_eq!(found.is_ok(), known, "{version}");
        }
    }

    #[test]
    fn paths_stay_below_data() {
        for path in ["com.apple.CoreML/model.mlmodel", "model.mlmodel", "./a//b/", "a..b/c"] {
            assert!(parse(&with_path(path)).is_ok(), "{path}");
        }
        for (path, problem) in [
            ("", PathProblem::Empty),
            (".", PathProblem::Empty),
            ("/etc/passwd", PathProblem::Absolute),
            ("\\\\server\\\\share", PathProblem::Absolute),
            ("C:/x", PathProblem::Absolute),
            ("..", PathProblem::Climbs),
            ("a/../../b", PathProblem::Climbs),
            ("a\\\\..\\\\b", PathProblem::Climbs),
        ] {
            assert!(
                matches!(parse(&with_path(path)), Err(Error::UnsafePath { problem: p, .. }) if p == problem),
                "{path}"
            );
        }
    }

    #[test]
    fn missing_keys_are_named() {
        let text = |json| std::error::Error::source(&parse(json).expect_err("incomplete")).map(ToString::to_string);
        let found = text(r#"{"fileFormatVersion": "1.0.0", "itemInfoEntries": {"A": {"path": "p", "name": "n"}}}"#);
        assert!(found.is_some_and(|t| t.contains("`author`")));
        assert!(text("{}").is_some_and(|t| t.contains("`fileFormatVersion`")));
        for json in ["", "[]", "null", "{\"fileFormatVersion\": 1}", "\u{feff}{}"] {
            assert!(parse(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_root_is_an_item() {
        assert!(matches!(
            parse(r#"{"fileFormatVersion": "1.0.0"}"#).expect("an empty package").root(),
            Err(Error::ManifestRoot { found: None })
        ));
        let elsewhere = with_path("p").replace(r#""rootModelIdentifier": "A""#, r#""rootModelIdentifier": "B""#);
        assert!(matches!(parse(&elsewhere).expect("readable").root(), Err(Error::ManifestRoot { found: Some(_) })));
        assert_eq!(parse(&with_path("p")).expect("readable").root().expect("A").path, "p");
    }
}
