//! Archives as PyTorch writes them: zip files whose entries are mostly stored as they are.

use bytes::Bytes;
use std::{
    collections::HashMap,
    io::{Cursor, Read},
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
    /// Two entries bear one name, or a name leaves the archive's folder.
    #[error("entry `{0}` of the archive has a name that is used twice or leaves its folder")]
    Name(String),
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

/// An archive in memory, mostly a mapped file.
pub(crate) struct Archive {
    bytes: Bytes,
    zip: ZipArchive<Cursor<Bytes>>,
    /// The folder that all entries lie in, with a slash; empty where there is none.
    root: String,
    /// Positions by name, without the root.
    index: HashMap<String, usize>,
}

impl Archive {
    pub(crate) fn open(bytes: Bytes) -> Result<Self, ArchiveError> {
        // Archives begin where their files do. To look for another beginning may find one that is none.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let mut zip = ZipArchive::with_config(config, Cursor::new(bytes.clone()))?;
        let mut names = vec![];
        for i in 0..zip.len() {
            let name = zip.by_index_raw(i)?.name()?.into_owned();
            let leaves = name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..");
            if leaves {
                return Err(ArchiveError::Name(name));
            }
            names.push(name);
        }
        let root = names.first().and_then(|n| n.split_once('/')).map(|(root, _)| format!("{root}/"));
        let root = root.filter(|r| names.iter().all(|n| n.starts_with(r.as_str()))).unwrap_or_default();
        let mut index = HashMap::new();
        for (i, name) in names.into_iter().enumerate() {
            if index.insert(name[root.len()..].to_owned(), i).is_some() {
                return Err(ArchiveError::Name(name));
            }
        }
        Ok(Self { bytes, zip, root, index })
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
        if entry.compression() == CompressionMethod::Stored {
            let start = entry.data_start().and_then(|s| usize::try_from(s).ok());
            let size = usize::try_from(entry.size()).ok();
            let range = start.zip(size).and_then(|(s, n)| Some(s..s.checked_add(n)?)).filter(|r| r.end <= total);
            let range = range.ok_or_else(|| fail("it reaches beyond the end of the file".to_owned()))?;
            let stored = self.bytes.slice(range);
            if crc32fast::hash(&stored) != entry.crc32() {
                return Err(ArchiveError::Checksum(full));
            }
            return Ok(stored);
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
        Ok(out.into())
    }
}
