//! `weight.bin`, version 2: blobs, each behind 64 bytes of metadata, all little-endian.
//!
//! ```text
//! header    u32 count, u32 version = 2, zeros to 64 bytes
//! metadata  u32 0xdeadbeef, u32 type, u64 size, u64 offset of the data, u64 padding bits, zeros to 64 bytes
//! data      `size` bytes, then zeros to a multiple of 64 unless it is the last
//! ```
//! A program refers to a blob by the offset of its metadata. Writers before iOS 18 left garbage in the reserved fields,
//! and in the padding bits of types of whole bytes, so both are ignored.

mod ahead;
mod plan;

pub use plan::Plan;

use crate::{
    Error, Result,
    dtypes::{blob_code, dtype_of_blob},
};
use mlconv_tensor::{Blob, Bytes, DType, Tensor, packed_len};

const VERSION: u32 = 2;
const SENTINEL: u32 = 0xdead_beef;
/// The length of the header and of a metadata record, and what both are aligned to.
pub(crate) const ALIGNMENT: u64 = 64;

/// The name by which programs refer to the weight file of a package.
pub const WEIGHT_FILE: &str = "@model_path/weights/weight.bin";

/// A weight file, shared when cloned.
#[derive(Clone, Debug)]
pub struct WeightFile {
    bytes: Bytes,
    count: u32,
}

/// What a weight file says about one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its metadata starts.
    pub offset: u64,
    /// Where its data starts.
    pub data_offset: u64,
    /// The type of its elements.
    pub dtype: DType,
    /// How many bytes the data takes.
    pub len: usize,
    /// Bits at the end of the data that belong to no element; meaningless for types of whole bytes.
    pub padding: u64,
}

/// What programs' blob references are looked up in.
pub trait Weights {
    /// The metadata at `offset` of the file that programs call `name`.
    fn entry(&self, name: &str, offset: u64) -> Result<Entry>;
}

impl Entry {
    /// Whether the data is exactly `count` elements of `dtype`.
    pub fn fits(&self, dtype: DType, count: usize) -> bool {
        self.dtype == dtype
            && packed_len(count, dtype.bits()) == Some(self.len)
            && (dtype.bits() >= 8 || self.padding == padding(dtype, count))
    }

    /// How many elements the data holds; `None` where it does not divide.
    pub fn count(&self) -> Option<usize> {
        let padding = if self.dtype.bits() < 8 { usize::try_from(self.padding).ok()? } else { 0 };
        let bits = self.len.checked_mul(8)?.checked_sub(padding)?;
        let width = self.dtype.bits() as usize;
        (padding < 8 && bits.is_multiple_of(width)).then_some(bits / width)
    }
}

/// Bits that fill the last byte of `count` elements.
fn padding(dtype: DType, count: usize) -> u64 {
    let used = (count % 8) as u64 * u64::from(dtype.bits()) % 8;
    (8 - used) % 8
}

impl WeightFile {
    /// Reads the header of `bytes`; blobs are read as they are asked for.
    pub fn open(bytes: Bytes) -> Result<Self> {
        let len = bytes.len();
        let header = bytes.get(..ALIGNMENT as usize).ok_or(Error::WeightHeader { len })?;
        let (count, version) = (u32_at(header, 0), u32_at(header, 4));
        if version != VERSION {
            return Err(Error::WeightVersion { found: version });
        }
        Ok(Self { bytes, count })
    }

    /// The metadata at `offset`, of which the data is known to lie in the file.
    pub fn entry(&self, offset: u64) -> Result<Entry> {
        let metadata = self.range(offset, offset, ALIGNMENT)?;
        let sentinel = u32_at(metadata, 0);
        if sentinel != SENTINEL {
            return Err(Error::BlobSentinel { offset, found: sentinel });
        }
        let code = u32_at(metadata, 4);
        let dtype = dtype_of_blob(code).ok_or(Error::BlobCode { offset, code })?;
        let (size, data_offset) = (u64_at(metadata, 8), u64_at(metadata, 16));
        let len = self.range(offset, data_offset, size)?.len();
        Ok(Entry { offset, data_offset, dtype, len, padding: u64_at(metadata, 24) })
    }

    /// The bytes of a blob, shared with the file.
    pub fn blob(&self, entry: &Entry) -> Result<Blob> {
        let data = self.range(entry.offset, entry.data_offset, entry.len as u64)?;
        Ok(Blob::from(self.bytes.slice_ref(data)))
    }

    /// The blob whose metadata is at `offset` as a tensor, which its type and size must fit.
    pub fn get(&self, offset: u64, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let entry = self.entry(offset)?;
        if entry.dtype != dtype {
            return Err(Error::BlobType { offset, found: entry.dtype, want: dtype });
        }
        let padding = if dtype.bits() < 8 { entry.padding } else { 0 };
        let misfit = || Error::BlobSize { offset, found: entry.len, padding, want: dtype, shape: shape.to_vec() };
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(misfit)?;
        if !entry.fits(dtype, count) {
            return Err(misfit());
        }
        Tensor::new(dtype, shape, self.blob(&entry)?).map_err(|_| misfit())
    }

    /// Every blob in the order of the file, up to the first that cannot be read.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        let mut next = Some(ALIGNMENT);
        (0..self.count).map_while(move |_| {
            let offset = next.take()?;
            let entry = self.entry(offset).and_then(|e| {
                // Data that lies elsewhere would make the walk a circle.
                let follows = e.data_offset >= offset.saturating_add(ALIGNMENT);
                if follows { Ok(e) } else { Err(Error::BlobOrder { offset }) }
            });
            if let Ok(e) = &entry {
                next = e.data_offset.checked_add(e.len as u64).and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
            }
            Some(entry)
        })
    }

    /// `len` bytes from `start`, needed for the blob at `offset`.
    fn range(&self, offset: u64, start: u64, len: u64) -> Result<&[u8]> {
        let outside = || Error::BlobOutOfFile { offset, start, len, file_len: self.bytes.len() };
        let from = usize::try_from(start).map_err(|_| outside())?;
        let end = usize::try_from(len).ok().and_then(|len| from.checked_add(len)).ok_or_else(outside)?;
        self.bytes.get(from..end).ok_or_else(outside)
    }
}

fn u32_at(record: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&record[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(record: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&record[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The record before a blob's data, which follows it.
fn metadata(offset: u64, dtype: DType, count: usize, len: usize) -> Option<[u8; ALIGNMENT as usize]> {
    let mut out = [0; ALIGNMENT as usize];
    out[0..4].copy_from_slice(&SENTINEL.to_le_bytes());
    out[4..8].copy_from_slice(&blob_code(dtype)?.to_le_bytes());
    out[8..16].copy_from_slice(&(len as u64).to_le_bytes());
    out[16..24].copy_from_slice(&(offset + ALIGNMENT).to_le_bytes());
    out[24..32].copy_from_slice(&padding(dtype, count).to_le_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(tensors: &[Tensor]) -> Vec<u8> {
        let mut plan = Plan::default();
        for t in tensors {
            plan.add(t.blob().clone(), t.dtype(), t.count()).expect("storable");
        }
        let mut out = vec![];
        plan.write_to(&mut out).expect("memory");
        out
    }

    fn open(bytes: &[u8]) -> Result<WeightFile> {
        WeightFile::open(Bytes::copy_from_slice(bytes))
    }

    fn patched(bytes: &[u8], at: usize, with: &[u8]) -> WeightFile {
        let mut out = bytes.to_vec();
        out[at..at + with.len()].copy_from_slice(with);
        open(&out).expect("a header")
    }

    #[test]
    fn what_is_written_is_read() {
        let tensors = [
            Tensor::from_vec(&[2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]),
            Tensor::from_i64(DType::U3, &[3], &[5, 4, 7]),
            Tensor::from_vec(&[0], Vec::<u8>::new()),
            Tensor::from_i64(DType::U1, &[9], &[1, 0, 1, 0, 1, 0, 1, 0, 1]),
        ];
        let file = open(&file_of(&tensors)).expect("a weight file");
        let entries: Vec<Entry> = file.entries().collect::<Result<_>>().expect("walkable");
        assert_eq!(entries.iter().map(|e| e.offset).collect::<Vec<_>>(), [64, 192, 320, 384]);
        assert_eq!(entries.iter().map(|e| e.count()).collect::<Vec<_>>(), [Some(6), Some(3), Some(0), Some(9)]);
        for (t, e) in tensors.iter().zip(&entries) {
            assert_eq!(file.get(e.offset, t.dtype(), t.shape()).expect("the same"), *t);
        }
    }

    #[test]
    fn type_and_shape_must_fit() {
        let file = open(&file_of(&[Tensor::from_i64(DType::U4, &[3], &[1, 2, 3])])).expect("a weight file");
        assert!(matches!(file.get(64, DType::I4, &[3]), Err(Error::BlobType { .. })));
        assert!(matches!(file.get(64, DType::U4, &[4]), Err(Error::BlobSize { .. })), "as many bytes, less padding");
        assert!(matches!(file.get(64, DType::U4, &[usize::MAX, 3]), Err(Error::BlobSize { .. })));
    }

    #[test]
    fn garbage_that_old_writers_left_is_ignored() {
        let good = file_of(&[Tensor::from_vec(&[2], vec![1f32, 2.0])]);
        let file = patched(&good, 64 + 24, &[0xaa; 40]);
        assert_eq!(file.get(64, DType::F32, &[2]).expect("readable").to_f64(), [1.0, 2.0]);
    }

    #[test]
    fn hostile_numbers_are_refused() {
        let good = file_of(&[Tensor::from_vec(&[2], vec![1f32, 2.0])]);
        assert!(matches!(open(&good[..63]), Err(Error::WeightHeader { len: 63 })));
        assert!(matches!(open(&[0; 64]), Err(Error::WeightVersion { found: 0 })));
        let file = open(&good).expect("a weight file");
        for offset in [0, 1, 128, 1 << 20, u64::MAX, u64::MAX - 63] {
            assert!(file.entry(offset).is_err(), "{offset}");
        }
        let huge = u64::MAX.to_le_bytes();
        for at in [64 + 8, 64 + 16] {
            assert!(matches!(patched(&good, at, &huge).entry(64), Err(Error::BlobOutOfFile { .. })));
        }
        assert!(matches!(patched(&good, 64 + 4, &[99]).entry(64), Err(Error::BlobCode { code: 99, .. })));
    }

    #[test]
    fn a_walk_ends() {
        let good = file_of(&[Tensor::from_vec(&[2], vec![1f32, 2.0])]);
        let mut circle = good;
        circle[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        circle[64 + 16] = 0;
        let walked: Vec<_> = open(&circle).expect("a header").entries().collect();
        assert!(matches!(walked[..], [Err(Error::BlobOrder { offset: 64 })]));
    }
}
