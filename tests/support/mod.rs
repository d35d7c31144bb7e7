//! What several tests share.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod damage;
pub(crate) mod lowered;
pub(crate) mod nodes;
pub(crate) mod onnx;
pub(crate) mod place;
pub(crate) mod programs;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder of fixtures.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The files below `folder` with this suffix, in order.
pub(crate) fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let (mut out, mut todo) = (vec![], vec![folder.to_path_buf()]);
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == suffix) {
                out.push(path);
            } else if path.is_dir() {
                todo.push(path);
            }
        }
    }
    out.sort();
    out
}
