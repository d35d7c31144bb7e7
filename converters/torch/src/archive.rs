//! Archives as PyTorch writes them: zip files whose entries are mostly stored as they are.

use bytes::Bytes;
use mlconv_tensor::Blob;
use std::{
    cell::Cell,
    collections::HashMap,
    io::{Cursor, Read},
    path::Path,
    rc::Rc,
};
use zip::{
    CompressionMethod, ZipArchive,
    read::{ArchiveOffset, Config},
};

/// Why an archive, or an entry of it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The file is no whole zip archive.
    #[error("the file is not a whole zip archive: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// An entry is not there.
    #[error("the archive has no `{0}`")]
    Absent(String),
    /// A name leaves the archive's folder.
    #[error("entry `{0}` of the archive has a name that leaves its folder")]
    Name(String),
    /// Entries share bytes, or there are more of them than can be told apart.
    #[error("entry `{0}` of the archive shares bytes or its name with another")]
    Overlap(String),
    /// The bytes of an entry are not those that were written.
    #[error("entry `{0}` of the archive is damaged: its checksum is another")]
    Checksum(String),
    /// An entry cannot be unpacked.
    #[error("entry `{name}` of the archive cannot be unpacked: {why}")]
    Entry {
        /// The entry.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// What a compressed entry may come to: 64 times what the whole archive holds, and a mebibyte.
const MAX_RATIO: u64 = 64;

/// What text that is read may come to: it comes to far more once it is read.
const MAX_TEXT: u64 = 128 << 20;

/// What a file may come to in memory, all that is unpacked or spread out together.
#[derive(Debug)]
pub(crate) struct Room(Cell<u64>);

impl Room {
    /// Of a file of so many bytes.
    pub(crate) fn of(size: usize) -> Self {
        Self(Cell::new((size as u64).saturating_mul(MAX_RATIO).saturating_add(64 << 20)))
    }

    /// Takes some of it; whether there was as much.
    pub(crate) fn take(&self, size: u64) -> bool {
        let left = self.0.get().checked_sub(size);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// An archive in memory, mostly a mapped file.
pub(crate) struct Archive {
    bytes: Bytes,
    zip: ZipArchive<Cursor<Bytes>>,
    room: Rc<Room>,
    /// The folder that all entries lie in, with a slash; empty where there is none.
    root: String,
    /// Positions by name, without the root.
    index: HashMap<String, usize>,
}

impl Archive {
    pub(crate) fn open(bytes: Bytes) -> Result<Self, ArchiveError> {
        let room = Rc::new(Room::of(bytes.len()));
        Self::within(bytes, room)
    }

    /// What the file that the archive is, or lies in, may still come to.
    pub(crate) fn room(&self) -> Rc<Room> {
        self.room.clone()
    }

    /// An archive that lies in another, or is one.
    pub(crate) fn within(bytes: Bytes, room: Rc<Room>) -> Result<Self, ArchiveError> {
        // Nothing lies before PyTorch's archives. Where the library looks for that, it takes an entry for the directory's first
        // whose header is as long as the records that PyTorch writes behind the directory.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let mut zip = ZipArchive::with_config(config, Cursor::new(bytes.clone()))?;
        let (mut names, mut ranges) = (vec![], vec![]);
        for i in 0..zip.len() {
            let entry = zip.by_index_raw(i)?;
            let name = entry.name()?.into_owned();
            let leaves = name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..");
            if leaves {
                return Err(ArchiveError::Name(name));
            }
            // An entry whose data lies nowhere is an error where it is read.
            let data = entry.data_start().unwrap_or_else(|| entry.header_start());
            ranges.push((entry.header_start(), data.saturating_add(entry.compressed_size()), i));
            names.push(name);
        }
        ranges.sort_unstable();
        if let Some(pair) = ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            return Err(ArchiveError::Overlap(std::mem::take(&mut names[pair[1].2])));
        }
        // The library keeps the last of entries that bear one name; the directory counts them all.
        if let Some(name) = directory(&bytes, zip.central_directory_start()).and_then(repeated) {
            return Err(ArchiveError::Overlap(name));
        }
        let root = names.first().and_then(|n| n.split_once('/')).map(|(root, _)| format!("{root}/"));
        let root = root.filter(|r| names.iter().all(|n| n.starts_with(r.as_str()))).unwrap_or_default();
        let mut index = HashMap::new();
        for (i, name) in names.into_iter().enumerate() {
            index.insert(name[root.len()..].to_owned(), i);
        }
        Ok(Self { bytes, zip, room, root, index })
    }

    /// Whether there is an entry of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The names of all entries, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.index.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The bytes of an entry: a range of the file where it is stored as it is.
    pub(crate) fn read(&mut self, name: &str) -> Result<Bytes, ArchiveError> {
        let full = format!("{}{name}", self.root);
        let at = *self.index.get(name).ok_or_else(|| ArchiveError::Absent(full.clone()))?;
        let fail = |why: String| ArchiveError::Entry { name: full.clone(), why };
        let total = self.bytes.len();
        let mut entry = self.zip.by_index(at)?;
        let is_text = Path::new(name).extension().is_some_and(|e| e == "json" || e == "py" || e == "pkl");
        if is_text && entry.size() > MAX_TEXT {
            return Err(fail(format!("it says that it comes to {} bytes of text", entry.size())));
        }
        if entry.compression() == CompressionMethod::Stored {
            let start = entry.data_start().and_then(|s| usize::try_from(s).ok());
            let size = usize::try_from(entry.size()).ok();
            let range = start.zip(size).and_then(|(s, n)| Some(s..s.checked_add(n)?)).filter(|r| r.end <= total);
            let range = range.ok_or_else(|| fail("it reaches beyond the end of the file".to_owned()))?;
            let stored = self.bytes.slice(range);
            // By parts, whose memory is given back: archives may be larger than memory.
            let stored = Blob::from(stored);
            let sums = stored.map_chunks(|part| {
                let mut sum = crc32fast::Hasher::new();
                sum.update(part);
                sum
            });
            let sum = sums.iter().fold(crc32fast::Hasher::new(), |mut sum, part| {
                sum.combine(part);
                sum
            });
            if sum.finalize() != entry.crc32() {
                return Err(ArchiveError::Checksum(full));
            }
            return Ok(stored.bytes());
        }
        let most = (total as u64).saturating_mul(MAX_RATIO).saturating_add(1 << 20);
        if entry.size() > most {
            return Err(fail(format!("it says that it comes to {} bytes, of an archive of {total}", entry.size())));
        }
        let mut out = vec![];
        // One byte more than it may have: the size in the header is only a claim.
        let read = (&mut entry).take(most + 1).read_to_end(&mut out).map_err(|e| fail(e.to_string()))?;
        if read as u64 > most {
            return Err(fail("it comes to more than its archive can hold".to_owned()));
        }
        if !self.room.take(read as u64) || (is_text && read as u64 > MAX_TEXT) {
            return Err(fail("with all that was unpacked before, it comes to more than the file can hold".to_owned()));
        }
        Ok(out.into())
    }
}

/// The names in the directory at the end of an archive, in order; `None` where it is not where it should be.
fn directory(bytes: &[u8], start: u64) -> Option<Vec<String>> {
    const SIGNATURE: &[u8] = b"PK\x01\x02";
    const FIXED: usize = 46;
    let mut rest = bytes.get(usize::try_from(start).ok()?..)?;
    let mut names = vec![];
    while rest.starts_with(SIGNATURE) {
        let size = |at: usize| Some(usize::from(u16::from_le_bytes([*rest.get(at)?, *rest.get(at + 1)?])));
        let (name, more) = (size(28)?, size(30)? + size(32)?);
        names.push(String::from_utf8_lossy(rest.get(FIXED..FIXED + name)?).into_owned());
        rest = rest.get(FIXED + name + more..)?;
    }
    Some(names)
}

/// A name that is there twice.
fn repeated(mut names: Vec<String>) -> Option<String> {
    names.sort_unstable();
    names.windows(2).position(|pair| pair[0] == pair[1]).map(|i| names.swap_remove(i))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::{ZipWriter, write::SimpleFileOptions};

    /// An archive with the records of zip64 between the directory and its end, as PyTorch writes them always.
    fn as_pytorch_writes(names: &[&str]) -> Vec<u8> {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let mut zip = ZipWriter::new(Cursor::new(vec![]));
        for name in names {
            zip.start_file(*name, stored).expect("a name");
            zip.write_all(name.as_bytes()).expect("room");
        }
        let bytes = zip.finish().expect("room").into_inner();
        let (body, end) = bytes.split_at(bytes.len() - 22);
        let field = |at: usize| u32::from_le_bytes(end[at..at + 4].try_into().expect("four")).into();
        let (count, size, start): (u64, u64, u64) = (names.len() as u64, field(12), field(16));
        let record = [44, 0x1e_031e, 0, count, count, size, start].map(u64::to_le_bytes);
        // Two versions and two disks take as much as two numbers.
        let record =
            [b"PK\x06\x06".to_vec(), record[0].to_vec(), record[1][..4].to_vec(), [0; 8].into(), record[3..].concat()];
        let locator = [b"PK\x06\x07\0\0\0\0".to_vec(), (body.len() as u64).to_le_bytes().into(), vec![1, 0, 0, 0]];
        [body, &record.concat(), &locator.concat(), end].concat()
    }

    #[test]
    fn archives_are_read_whatever_the_length_of_names() {
        for n in 1..80 {
            let name = format!("{}/data/weights/weight_0", "a".repeat(n));
            let bytes = as_pytorch_writes(&[&name, "other/data"]);
            let mut archive = Archive::open(bytes.into()).unwrap_or_else(|e| panic!("{n}: {e}"));
            assert_eq!(&*archive.read(&name).expect("an entry"), name.as_bytes());
        }
    }
}
