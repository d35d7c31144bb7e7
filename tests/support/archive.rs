//! Archives as PyTorch writes them, taken apart and put together.

use std::io::{Cursor, Read, Write};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Names and bytes of entries.
pub(crate) type Entries = Vec<(String, Vec<u8>)>;

/// The entries of an archive, unpacked.
pub(crate) fn entries(bytes: &[u8]) -> Entries {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).expect("an archive");
    let mut out = vec![];
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i).expect("an entry");
        let (name, mut bytes) = (entry.name().expect("a name").into_owned(), vec![]);
        entry.read_to_end(&mut bytes).expect("readable");
        out.push((name, bytes));
    }
    out
}

/// An archive of entries, with checksums that are right. What cannot be written, such as a second entry of a name, is left
/// out.
pub(crate) fn archived(entries: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    for (name, bytes) in entries {
        if zip.start_file(name.as_str(), SimpleFileOptions::default().compression_method(method)).is_ok() {
            zip.write_all(bytes).expect("room");
        }
    }
    zip.finish().expect("room").into_inner()
}
