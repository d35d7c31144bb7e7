//! Arrays in files: `.npy`, and `.npz` archives of them.

use crate::{Diagnostic, codes};
pub use mlconv_arrays::{Arrays, npy_bytes, npz_bytes, parse_npy, parse_npz};
use mlconv_tensor::Tensor;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The files that are being written beside those that they become.
static STAGED: Mutex<Vec<PathBuf>> = Mutex::new(vec![]);

/// Removes what is being written: for a process that is about to end.
pub(crate) fn abandon() {
    for staged in STAGED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // Nothing can be done about a file that stays.
        let _ = std::fs::remove_file(staged);
    }
}

/// Reads the array in a `.npy` file.
pub fn read_npy(path: &Path) -> Result<Tensor, Diagnostic> {
    let bytes = std::fs::read(path).map_err(|e| unreadable(path, &e))?;
    parse_npy(&bytes).map_err(|why| Diagnostic::error(&codes::R0007, why).at(path.display().to_string()))
}

/// Reads every array of a `.npz` file.
pub fn read_npz(path: &Path) -> Result<Arrays, Diagnostic> {
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    mlconv_arrays::read_npz(file).map_err(|why| Diagnostic::error(&codes::R0007, why).at(path.display().to_string()))
}

/// Writes a `.npz` file, whole or not at all. The same arrays give the same bytes.
pub fn write_npz(path: &Path, arrays: &Arrays) -> Result<(), Diagnostic> {
    let fail = |why: String| {
        let title = format!("the arrays cannot be written: {why}");
        Diagnostic::error(&codes::X0001, title).at(path.display().to_string())
    };
    // A link leads to the file that is meant; a device or a pipe is written to, never replaced.
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        let whole = npz_bytes(arrays).map_err(&fail)?;
        return std::fs::write(path, whole).map_err(|e| fail(e.to_string()));
    }
    write_whole(path, |file| mlconv_arrays::write_npz(file, arrays)).map_err(fail)
}

/// Writes a file, whole or not at all; an error says why it was not.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), String>,
) -> Result<(), String> {
    Staged::new(path, write)?.put()
}

/// A file that is written beside the place it is for, and removed when dropped, unless it was put there.
pub(crate) struct Staged {
    staged: PathBuf,
    real: PathBuf,
}

impl Staged {
    /// Writes a file for `path`; an error says why it was not written.
    pub(crate) fn new(
        path: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<(), String>,
    ) -> Result<Self, String> {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let folder = real.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|p| !p.is_dir()) {
            return Err(format!("there is no folder `{}`", folder.display()));
        }
        let Some(name) = real.file_name() else { return Err("the path names no file".to_owned()) };
        let mut staged = real.clone();
        staged.set_file_name(format!(".{}.tmp-{}", name.to_string_lossy(), std::process::id()));
        let io = |e: std::io::Error| e.to_string();
        STAGED.lock().unwrap_or_else(PoisonError::into_inner).push(staged.clone());
        // From here on it is removed where something fails.
        let this = Self { staged, real };
        let made = File::create(&this.staged).map_err(io)?;
        let mut file = BufWriter::new(made);
        write(&mut file)?;
        file.flush().map_err(io)?;
        Ok(this)
    }

    /// Puts it in its place.
    pub(crate) fn put(self) -> Result<(), String> {
        std::fs::rename(&self.staged, &self.real).map_err(|e| e.to_string())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // It may be in its place; nothing can be done about a file that stays.
        let _ = std::fs::remove_file(&self.staged);
        STAGED.lock().unwrap_or_else(PoisonError::into_inner).retain(|staged| *staged != self.staged);
    }
}

fn unreadable(path: &Path, e: &std::io::Error) -> Diagnostic {
    Diagnostic::error(&codes::R0001, format!("cannot read the file: {e}")).at(path.display().to_string())
}
