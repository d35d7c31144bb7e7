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

/// The file that is being written beside the one that it becomes.
static STAGED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Removes what is being written: for a process that is about to end.
pub(crate) fn abandon() {
    let staged = STAGED.lock().unwrap_or_else(PoisonError::into_inner).take();
    // Nothing can be done about a file that stays.
    let _ = staged.map(std::fs::remove_file);
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
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let folder = real.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|p| !p.is_dir()) {
        return Err(format!("there is no folder `{}`", folder.display()));
    }
    let Some(name) = real.file_name() else { return Err("the path names no file".to_owned()) };
    let mut staged = real.clone();
    staged.set_file_name(format!(".{}.tmp-{}", name.to_string_lossy(), std::process::id()));
    let io = |e: std::io::Error| e.to_string();
    *STAGED.lock().unwrap_or_else(PoisonError::into_inner) = Some(staged.clone());
    let written = File::create(&staged).map_err(io).and_then(|f| {
        let mut file = BufWriter::new(f);
        write(&mut file)?;
        file.flush().map_err(io)?;
        drop(file);
        std::fs::rename(&staged, &real).map_err(io)
    });
    *STAGED.lock().unwrap_or_else(PoisonError::into_inner) = None;
    written.inspect_err(|_| {
        // The staged file may not be there; nothing can be done about one that stays.
        let _ = std::fs::remove_file(&staged);
    })
}

fn unreadable(path: &Path, e: &std::io::Error) -> Diagnostic {
    Diagnostic::error(&codes::R0001, format!("cannot read the file: {e}")).at(path.display().to_string())
}
