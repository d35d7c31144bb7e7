//! Files beside a model, and no others.

use mlconv_tensor::{Bytes, map_file};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};

/// Opens files in the folder of a model. Paths that leave the folder, also through links, are refused.
#[derive(Debug)]
pub struct ModelFiles {
    folder: PathBuf,
    mapped: RefCell<HashMap<String, Bytes>>,
    /// An empty file, where data may be made up.
    scratch: Option<File>,
    zeros: RefCell<Bytes>,
    missing: RefCell<BTreeMap<String, usize>>,
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
        Self {
            folder: parent.to_owned(),
            mapped: RefCell::default(),
            scratch: None,
            zeros: RefCell::default(),
            missing: RefCell::default(),
        }
    }

    /// As it is, but that zeros stand in for data in files that are not there. They take no room: `scratch`, an empty
    /// file of ours alone, is grown and never written.
    pub fn or_zeros(self, scratch: File) -> Self {
        Self { scratch: Some(scratch), ..self }
    }

    /// Whether data in the file at `path` may be made up, as `why` is that it is not there; it is then counted.
    pub fn makes_up(&self, path: &str, why: &FileError) -> bool {
        let missing = matches!(why, FileError::Io { why, .. } if why.kind() == io::ErrorKind::NotFound);
        if missing && self.scratch.is_some() {
            *self.missing.borrow_mut().entry(path.to_owned()).or_default() += 1;
        }
        missing && self.scratch.is_some()
    }

    /// `len` zeros; all that were ever asked for share their bytes.
    pub fn zeros(&self, len: usize) -> io::Result<Bytes> {
        let mut zeros = self.zeros.borrow_mut();
        if zeros.len() < len {
            let scratch = self.scratch.as_ref().ok_or(io::ErrorKind::Unsupported)?;
            scratch.set_len(len as u64)?;
            *zeros = map_file(scratch)?;
        }
        zeros.get(..len).map(|_| zeros.slice(..len)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The files that are not there, each with the number of constants in it.
    pub fn missing(&self) -> Vec<(String, usize)> {
        self.missing.borrow().iter().map(|(path, n)| (path.clone(), *n)).collect()
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
