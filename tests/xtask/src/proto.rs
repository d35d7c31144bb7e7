//! Rust types for the wire formats: `schemas/proto/proto/*.proto` to `schemas/proto/src/generated/*.rs`.

use crate::{Result, output::Output};
use std::{fs, path::Path, process::Command};

const ROOTS: [&str; 2] = ["coreml.proto", "onnx.proto"];

const HEADER: &str = "// Written by `cargo xtask gen` from `schemas/proto/proto`; do not edit.\n\n";

pub fn generate(root: &Path, output: &mut Output) -> Result<()> {
    let crate_dir = root.join("schemas/proto");
    let scratch = tempfile::tempdir()?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .out_dir(scratch.path())
        .compile_fds(protox::compile(ROOTS, [crate_dir.join("proto")])?)?;
    let mut files = vec![];
    for entry in fs::read_dir(scratch.path())? {
        let path = entry?.path();
        format(root, &path)?;
        let name = path.file_name().and_then(|n| n.to_str()).ok_or("a generated file without a name")?;
        files.push((name.to_owned(), format!("{HEADER}{}", fs::read_to_string(&path)?)));
    }
    output.folder(&crate_dir.join("src/generated"), &files)
}

fn format(root: &Path, file: &Path) -> Result<()> {
    let status = Command::new("rustfmt").args(["--edition", "2024", "--config-path"]).arg(root).arg(file).status()?;
    if status.success() { Ok(()) } else { Err("rustfmt failed".into()) }
}
