//! `.npz` archives.

use super::{Arrays, npy};
use std::{
    fs::File,
    io::{BufWriter, Read, Seek, Write},
    path::Path,
};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Bytes that all arrays together may unpack to: a small archive may hold any number of zeros.
const MAX_BYTES: u64 = 8 << 30;

pub(super) fn read(file: impl Read + Seek) -> Result<Arrays, String> {
    let mut archive = ZipArchive::new(file).map_err(|e| format!("not a .npz archive: {e}"))?;
    let (mut out, mut left) = (Arrays::new(), MAX_BYTES);
    for i in 0..archive.len() {
        let entry = archive.by_index(i).map_err(|e| format!("the archive is damaged: {e}"))?;
        let name = entry.name().map_err(|e| format!("the archive is damaged: {e}"))?.into_owned();
        let Some(key) = name.strip_suffix(".npy") else { return Err(format!("`{name}` is no array")) };
        let mut bytes = vec![];
        let read = entry.take(left + 1).read_to_end(&mut bytes);
        read.map_err(|e| format!("array `{key}` is damaged: {e}"))?;
        let Some(rest) = left.checked_sub(bytes.len() as u64) else {
            return Err(format!("the arrays up to `{key}` hold more than {MAX_BYTES} bytes"));
        };
        left = rest;
        let t = npy::parse(&bytes).map_err(|e| format!("array `{key}`: {e}"))?;
        if out.insert(key.to_owned(), t).is_some() {
            return Err(format!("array `{key}` is there twice"));
        }
    }
    Ok(out)
}

pub(super) fn write(path: &Path, arrays: &Arrays) -> Result<(), String> {
    let file = File::create(path).map_err(|e| e.to_string())?;
    let mut zip = ZipWriter::new(BufWriter::new(file));
    // A fixed date: the same arrays give the same bytes.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(true);
    for (name, t) in arrays {
        zip.start_file(format!("{name}.npy"), options).map_err(|e| e.to_string())?;
        npy::write(&mut zip, t).map_err(|e| e.to_string())?;
    }
    let mut inner = zip.finish().map_err(|e| e.to_string())?;
    inner.flush().map_err(|e| e.to_string())
}
