//! Where generated files go: to the disk, or into a comparison with what is there.

use crate::Result;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Receives generated files.
pub struct Output {
    check: bool,
    stale: Vec<PathBuf>,
}

impl Output {
    /// Writes files that differ.
    pub fn writing() -> Self {
        Self { check: false, stale: vec![] }
    }

    /// Writes nothing and remembers what differs.
    pub fn checking() -> Self {
        Self { check: true, stale: vec![] }
    }

    /// Makes `folder` hold exactly `files`, which are pairs of name and text.
    pub fn folder(&mut self, folder: &Path, files: &[(String, String)]) -> Result<()> {
        if !self.check {
            fs::create_dir_all(folder)?;
        }
        for (name, text) in files {
            self.file(&folder.join(name), text)?;
        }
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            let wanted = files.iter().any(|(name, _)| path.file_name().is_some_and(|n| n == name.as_str()));
            if wanted {
                continue;
            }
            if self.check {
                self.stale.push(path);
            } else {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Makes the file at `path` hold `text`.
    pub fn file(&mut self, path: &Path, text: &str) -> Result<()> {
        if fs::read_to_string(path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        if self.check {
            self.stale.push(path.to_path_buf());
        } else {
            fs::write(path, text)?;
        }
        Ok(())
    }

    /// The files that are not as generated.
    pub fn finish(mut self) -> Vec<PathBuf> {
        self.stale.sort();
        self.stale
    }
}
