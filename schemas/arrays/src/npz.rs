//! `.npz` archives.

use crate::{Arrays, npy};
use std::{
    cell::RefCell,
    io::{self, Read, Seek, SeekFrom, Write},
    rc::Rc,
};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Bytes that all arrays together may unpack to: a small archive may hold any number of zeros.
const MAX_BYTES: u64 = 8 << 30;

pub(crate) fn read(file: impl Read + Seek) -> Result<Arrays, String> {
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

pub(crate) fn write(file: impl Write + Seek, arrays: &Arrays) -> Result<(), String> {
    let failure = Rc::default();
    let mut zip = ZipWriter::new(Quiet { inner: file, failure: Rc::clone(&failure), at: 0, end: 0 });
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
    inner.flush().map_err(|e| e.to_string())?;
    failure.take().map_or(Ok(()), |e: io::Error| Err(e.to_string()))
}

/// A file that takes everything once it has failed: a [`ZipWriter`] that is dropped after an error prints to stderr.
struct Quiet<W> {
    inner: W,
    failure: Rc<RefCell<Option<io::Error>>>,
    /// The position, and the length so far.
    at: u64,
    end: u64,
}

impl<W> Quiet<W> {
    fn unless_failed(&mut self, act: impl FnOnce(&mut W) -> io::Result<()>) {
        if self.failure.borrow().is_none()
            && let Err(e) = act(&mut self.inner)
        {
            self.failure.replace(Some(e));
        }
    }
}

impl<W: Write> Write for Quiet<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.unless_failed(|w| w.write_all(buf));
        self.at += buf.len() as u64;
        self.end = self.end.max(self.at);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_failed(Write::flush);
        Ok(())
    }
}

impl<W: Seek> Seek for Quiet<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.end.checked_add_signed(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        let at = self.at;
        self.unless_failed(|w| w.seek(SeekFrom::Start(at)).map(|_| ()));
        Ok(at)
    }
}
