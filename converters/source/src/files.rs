//! Files beside a model, and no others.

use mlconv_tensor::{Bytes, map_file};
use std::{
    cell::RefCell,
    collections::HashMap,
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};

/// Opens files in the folder of a model. Paths that leave the folder, also through links, are refused.
#[derive(Debug)]
pub struct ModelFiles {
    folder: PathBuf,
    mapped: RefCell<HashMap<String, Bytes>>,
}

/// Why a file beside a model could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The path is absolute or climbs out of the folder.
    #[error("`{path}` leaves the model's folder")]
    Leaves {
        /// The path as the model gives it.
        path: String,
    },
    /// The operating system refused.
    #[error("`{path}` cannot be read: {why}")]
    Io {
        /// The path as the model gives it.
        path: String,
        /// What it said.
        why: io::Error,
    },
}

impl ModelFiles {
    /// Files in the folder that holds `model`.
    pub fn beside(model: &Path) -> Self {
        let parent = model.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { folder: parent.to_owned(), mapped: RefCell::default() }
    }

    /// Maps the file at `path`, relative to the folder; each file once.
    pub fn map(&self, path: &str) -> Result<Bytes, FileError> {
        if let Some(bytes) = self.mapped.borrow().get(path) {
            return Ok(bytes.clone());
        }
        let leaves = || FileError::Leaves { path: path.to_owned() };
        let fail = |why| FileError::Io { path: path.to_owned(), why };
        if path.is_empty()
            || !Path::new(path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        {
            return Err(leaves());
        }
        let folder = self.folder.canonicalize().map_err(fail)?;
        let full = folder.join(path).canonicalize().map_err(fail)?;
        if !full.starts_with(&folder) {
            return Err(leaves());
        }
        if !full.is_file() {
            return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not a file")));
        }
        let bytes = File::open(&full).and_then(|f| map_file(&f)).map_err(fail)?;
        self.mapped.borrow_mut().insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    }
}
