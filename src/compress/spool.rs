//! Where compressed weights wait until all are known and the file can be written.

use mlconv_passes::compress::Store;
use mlconv_tensor::{Bytes, map_file};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Bytes up to which results stay in memory.
const IN_MEMORY: usize = 64 << 20;
/// Bytes from which a result is worth a file.
const LARGE: usize = 1 << 20;

/// Keeps small results in memory, and large ones in files of a folder that have no name, so that nothing is left behind
/// however the process ends.
pub(super) struct Spool {
    folder: PathBuf,
    held: AtomicUsize,
}

impl Spool {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), held: AtomicUsize::new(0) }
    }
}

impl Store for Spool {
    fn keep(&self, bytes: Bytes) -> io::Result<Bytes> {
        if bytes.len() < LARGE || self.held.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len() <= IN_MEMORY {
            return Ok(bytes);
        }
        let mut file = tempfile::tempfile_in(&self.folder)?;
        file.write_all(&bytes)?;
        map_file(&file)
    }
}
