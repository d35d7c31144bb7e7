//! Writing weights in two phases: first every blob gets its offset, then all stream out in order.

use super::{ALIGNMENT, Entry, VERSION, Weights, ahead::write_ahead, metadata, padding};
use crate::{Error, Result, dtypes::blob_code};
use mlconv_tensor::{Blob, DType};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    io::{self, Write},
};

/// The weight file to be written. Equal blobs share an entry.
#[derive(Debug, Default)]
pub struct Plan {
    blobs: Vec<Planned>,
    /// Indices of the blobs of one type and count: only these can be equal.
    alike: HashMap<(DType, usize), Vec<usize>>,
    end: u64,
}

#[derive(Debug)]
struct Planned {
    offset: u64,
    dtype: DType,
    count: usize,
    blob: Blob,
    /// Computed once another blob of equal type and count turns up.
    head: Option<Hash>,
    whole: Option<Hash>,
}

type Hash = [u8; 32];

/// Bytes that are hashed first, since blobs that differ mostly differ here.
const HEAD: usize = 1 << 16;

impl Plan {
    /// Plans `count` elements of `dtype` and returns where a program finds them: the offset of their metadata.
    ///
    /// Errors: [`Error::NotStorable`] where the format has no such type, or `blob` is not `count` elements long.
    pub fn add(&mut self, blob: Blob, dtype: DType, count: usize) -> Result<u64> {
        let len = blob.len();
        if blob_code(dtype).is_none() || !blob.fits(dtype, count) || u32::try_from(self.blobs.len() + 1).is_err() {
            return Err(Error::NotStorable { dtype, count, len });
        }
        let mut new = Planned { offset: 0, dtype, count, blob, head: None, whole: None };
        let alike = self.alike.entry((dtype, count)).or_default();
        for i in alike.iter() {
            if self.blobs[*i].equals(&mut new) {
                return Ok(self.blobs[*i].offset);
            }
        }
        alike.push(self.blobs.len());
        Ok(self.append(new))
    }

    fn append(&mut self, mut new: Planned) -> u64 {
        let offset = self.end.max(ALIGNMENT).next_multiple_of(ALIGNMENT);
        new.offset = offset;
        self.end = offset + ALIGNMENT + new.blob.len() as u64;
        self.blobs.push(new);
        offset
    }

    /// Whether nothing is planned; then a package needs no weight file.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// How many blobs the file will have.
    pub fn len(&self) -> usize {
        self.blobs.len()
    }

    /// How long the file will be, in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.end.max(ALIGNMENT)
    }

    /// Streams the file to `w`. Peak memory is a few chunks, whatever the weights' size.
    ///
    /// # Panics
    /// Where a blob yields more or fewer bytes than its length: a recipe that misstates its output is a bug.
    pub fn write_to(&self, w: &mut dyn Write) -> io::Result<()> {
        write_ahead(w, |w| self.make(w))
    }

    fn make(&self, w: &mut dyn Write) -> io::Result<()> {
        let count = u32::try_from(self.blobs.len()).expect("`add` keeps the count in 32 bits");
        w.write_all(&count.to_le_bytes())?;
        w.write_all(&VERSION.to_le_bytes())?;
        let mut at = 8;
        for b in &self.blobs {
            pad(w, b.offset - at)?;
            w.write_all(&metadata(b.offset, b.dtype, b.count, b.blob.len()).expect("`add` checks the type"))?;
            let mut written = 0;
            b.blob.chunks(&mut |chunk| {
                written += chunk.len();
                w.write_all(chunk)
            })?;
            assert_eq!(written, b.blob.len(), "a blob is as long as it says: {:?}", b.blob);
            at = b.offset + ALIGNMENT + written as u64;
        }
        if self.blobs.is_empty() {
            pad(w, ALIGNMENT - at)?;
        }
        Ok(())
    }
}

/// The plan is what will stand in a package's only weight file, so names make no difference.
impl Weights for Plan {
    fn entry(&self, _: &str, offset: u64) -> Result<Entry> {
        let found = self.blobs.binary_search_by_key(&offset, |b| b.offset).ok();
        let b = found.and_then(|i| self.blobs.get(i)).ok_or(Error::BlobSentinel { offset, found: 0 })?;
        Ok(Entry {
            offset,
            data_offset: offset + ALIGNMENT,
            dtype: b.dtype,
            len: b.blob.len(),
            padding: padding(b.dtype, b.count),
        })
    }
}

impl Planned {
    /// Whether two blobs of equal type and count hold equal bytes, by hash.
    fn equals(&mut self, other: &mut Self) -> bool {
        self.blob.same_storage(&other.blob)
            || (self.head() == other.head() && (self.blob.len() <= HEAD || self.whole() == other.whole()))
    }

    fn head(&mut self) -> Hash {
        *self.head.get_or_insert_with(|| hash(&self.blob, HEAD))
    }

    fn whole(&mut self) -> Hash {
        *self.whole.get_or_insert_with(|| hash(&self.blob, usize::MAX))
    }
}

/// The hash of the first `limit` bytes.
fn hash(blob: &Blob, limit: usize) -> Hash {
    let (mut sha, mut left) = (Sha256::new(), limit);
    // The error only ends the walk early.
    let _: Result<(), ()> = blob.chunks(&mut |chunk| {
        let part = chunk.get(..left).unwrap_or(chunk);
        sha.update(part);
        left -= part.len();
        if left == 0 { Err(()) } else { Ok(()) }
    });
    sha.finalize().into()
}

fn pad(w: &mut dyn Write, len: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), len), w).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{WeightFile, weights::ahead::tests::Full};
    use mlconv_tensor::{Bytes, Cast};
    use std::{env, fs, path::PathBuf};

    fn bytes(values: Vec<u8>) -> Blob {
        Blob::from(Bytes::from(values))
    }

    fn offsets(blobs: impl IntoIterator<Item = (Blob, DType, usize)>) -> Vec<u64> {
        let mut plan = Plan::default();
        blobs.into_iter().map(|(b, d, n)| plan.add(b, d, n).expect("storable")).collect()
    }

    #[test]
    fn equal_blobs_share_an_entry() {
        let long = |last: u8| bytes([vec![7; HEAD + 10], vec![last]].concat());
        let n = HEAD + 11;
        assert_eq!(
            offsets([
                (long(1), DType::U8, n),
                (long(2), DType::U8, n),
                (long(1), DType::U8, n),
                (long(1), DType::I8, n),
                (bytes(vec![1]), DType::U8, 1),
                (bytes(vec![1]), DType::U8, 1),
            ]),
            [64, 65_728, 64, 131_392, 197_056, 197_056],
            "as the type is part of a blob, i8 has its own"
        );
    }

    #[test]
    fn padding_is_part_of_a_blob() {
        assert_eq!(offsets([(bytes(vec![1]), DType::U4, 1), (bytes(vec![1]), DType::U4, 2)]), [64, 192]);
    }

    #[test]
    fn recipes_run_before_comparison() {
        let halves = bytes(vec![0, 0x3c]);
        let cast = bytes(vec![0, 0, 0x80, 0x3f]).then(Cast { from: DType::F32, to: DType::F16 });
        assert_eq!(offsets([(halves, DType::F16, 1), (cast, DType::F16, 1)]), [64, 64]);
    }

    #[test]
    fn only_what_the_format_holds_is_planned() {
        let mut plan = Plan::default();
        for (len, dtype, count) in [(8, DType::I64, 1), (1, DType::Bool, 1), (3, DType::F16, 1), (0, DType::Str, 3)] {
            assert!(matches!(plan.add(bytes(vec![0; len]), dtype, count), Err(Error::NotStorable { .. })));
        }
        assert!(plan.is_empty());
    }

    #[test]
    fn the_file_is_as_long_as_planned() {
        for sizes in [&[][..], &[3], &[64], &[0], &[3, 0, 64, 65]] {
            let mut plan = Plan::default();
            for (i, n) in sizes.iter().enumerate() {
                plan.add(bytes(vec![i as u8 + 1; *n]), DType::U8, *n).expect("storable");
            }
            let mut out = vec![];
            plan.write_to(&mut out).expect("memory");
            assert_eq!(out.len() as u64, plan.len_bytes(), "{sizes:?}");
        }
    }

    #[test]
    fn a_failing_writer_fails_the_write() {
        assert!(Plan::default().write_to(&mut Full).is_err());
    }

    /// `bytes` with zeros where writers before iOS 18 left garbage: in reserved fields, in the padding bits of types of
    /// whole bytes, and between blobs.
    fn cleaned(mut bytes: Vec<u8>, entries: &[Entry]) -> Vec<u8> {
        for e in entries {
            let (at, data) = (e.offset as usize, e.data_offset as usize);
            let unused = if e.dtype.bits() < 8 { at + 32 } else { at + 24 };
            bytes[unused..data].fill(0);
            let end = data + e.len;
            let gap = end.next_multiple_of(64).min(bytes.len());
            bytes[end..gap].fill(0);
        }
        bytes
    }

    /// Weight files that Core ML's own tools wrote, where `MLCONV_SHARED` names a folder that holds some.
    #[test]
    fn weight_files_of_others_are_written_alike() {
        let Some(shared) = env::var_os("MLCONV_SHARED").map(PathBuf::from) else { return };
        let mut packages = vec![shared.join("real/basic_pitch/nmp.mlpackage")];
        let folder = fs::read_dir(shared.join("packages")).expect("a folder of packages");
        packages.extend(folder.map(|e| e.expect("an entry").path()));
        let mut seen = 0;
        for package in packages {
            let Ok(bytes) = fs::read(package.join("Data/com.apple.CoreML/weights/weight.bin")) else { continue };
            let file = WeightFile::open(Bytes::from(bytes.clone())).expect("a weight file");
            let entries: Vec<Entry> = file.entries().collect::<Result<_>>().expect("walkable");
            let mut plan = Plan::default();
            for e in &entries {
                let (blob, count) = (file.blob(e).expect("inside"), e.count().expect("whole elements"));
                // Not `add`, as others write equal blobs twice.
                let new = Planned { offset: 0, dtype: e.dtype, count, blob, head: None, whole: None };
                assert_eq!(plan.append(new), e.offset);
            }
            let mut out = vec![];
            plan.write_to(&mut out).expect("memory");
            assert!(out == cleaned(bytes, &entries), "{}", package.display());
            seen += 1;
        }
        assert!(seen > 10, "weight files in {}", shared.display());
    }
}
