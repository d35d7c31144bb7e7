//! Weights: a shared range of somebody's bytes, and what must happen to them on the way out.

use crate::{DType, bits::packed_len, maps, tensor::convert};
use bytes::Bytes;
use half::f16;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSlice,
};
use std::{
    borrow::Cow,
    fmt,
    fs::File,
    io::{self, Write},
    ops::Range,
    sync::Arc,
};

/// Maps `file` read-only. Slices of the result share the map; nothing is copied.
///
/// A file that another process truncates while it is mapped ends this process with a bus error, which no type can
/// prevent; callers do not map files that they write themselves.
pub fn map_file(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    #[expect(unsafe_code, reason = "mapping a file is unsafe by nature; the hazard is documented above")]
    // SAFETY: the map is read-only and private to this process; see the note on truncation above.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(maps::Mapped::new(map)))
}

/// Bytes that are shared when cloned or sliced, with an optional transform that runs only when they are read.
#[derive(Clone)]
pub struct Blob {
    bytes: Bytes,
    recipe: Option<Arc<dyn Recipe>>,
}

/// An elementwise transform of bytes, run a chunk at a time.
pub trait Recipe: Send + Sync + fmt::Debug {
    /// Output length for `n` input bytes.
    fn out_len(&self, n: usize) -> usize;
    /// Appends the transform of `src` to `out`; `src` holds whole elements, and begins at byte `at` of all.
    fn chunk(&self, at: usize, src: &[u8], out: &mut Vec<u8>);
    /// Two recipes with equal names do the same.
    fn name(&self) -> String;
}

/// Converts whole-byte elements from one type to another, rounding to nearest even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The stored type.
    pub from: DType,
    /// The type read.
    pub to: DType,
}

impl Recipe for Cast {
    fn out_len(&self, n: usize) -> usize {
        n / (self.from.bits() as usize / 8) * (self.to.bits() as usize / 8)
    }
    fn chunk(&self, _: usize, src: &[u8], out: &mut Vec<u8>) {
        convert(self.from, self.to, src, out);
    }
    fn name(&self) -> String {
        format!("cast {} {}", self.from, self.to)
    }
}

/// Multiplies floats by factors, each of which holds for `run` elements in a row, over and over.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    pub(crate) dtype: DType,
    pub(crate) factors: Arc<[f64]>,
    pub(crate) run: usize,
}

impl Recipe for Scale {
    fn out_len(&self, n: usize) -> usize {
        n
    }
    fn chunk(&self, at: usize, src: &[u8], out: &mut Vec<u8>) {
        let width = self.dtype.bits() as usize / 8;
        let (mut place, mut rest) = (at / width, src);
        while !rest.is_empty() {
            let factor = self.factors[place / self.run % self.factors.len()];
            let (now, later) = rest.split_at(rest.len().min((self.run - place % self.run) * width));
            if self.dtype == DType::F32 {
                let scaled = |b: &[u8]| (f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])) * factor) as f32;
                out.extend(now.chunks_exact(4).flat_map(|b| scaled(b).to_le_bytes()));
            } else {
                let scaled = |b: &[u8]| f16::from_f64(f16::from_le_bytes([b[0], b[1]]).to_f64() * factor);
                out.extend(now.chunks_exact(2).flat_map(|b| scaled(b).to_le_bytes()));
            }
            (place, rest) = (place + now.len() / width, later);
        }
    }
    fn name(&self) -> String {
        // As long as two are alive, their factors lie in different places.
        format!("scale {} {:p} {}", self.dtype, self.factors, self.run)
    }
}

/// One recipe behind another.
#[derive(Debug)]
struct Both(Arc<dyn Recipe>, Arc<dyn Recipe>);

impl Recipe for Both {
    fn out_len(&self, n: usize) -> usize {
        self.1.out_len(self.0.out_len(n))
    }
    fn chunk(&self, at: usize, src: &[u8], out: &mut Vec<u8>) {
        let mut between = Vec::with_capacity(self.0.out_len(src.len()));
        self.0.chunk(at, src, &mut between);
        self.1.chunk(self.0.out_len(at), &between, out);
    }
    fn name(&self) -> String {
        format!("{}, {}", self.0.name(), self.1.name())
    }
}

/// Bytes of input a recipe sees at once.
const CHUNK: usize = 1 << 20;

/// Bytes of a map whose memory is given back at once: each time all threads must hear of it.
const WINDOW: usize = 16 << 20;

impl Blob {
    /// Shares `range` of `bytes`; `None` where it does not fit.
    pub fn new(bytes: &Bytes, range: Range<usize>) -> Option<Self> {
        (range.start <= range.end && range.end <= bytes.len()).then(|| Self::from(bytes.slice(range)))
    }

    /// The same bytes after `recipe`, behind those that are there already.
    pub fn then(self, recipe: impl Recipe + 'static) -> Self {
        let recipe: Arc<dyn Recipe> = Arc::new(recipe);
        let recipe = match self.recipe {
            Some(first) => Arc::new(Both(first, recipe)),
            None => recipe,
        };
        Self { bytes: self.bytes, recipe: Some(recipe) }
    }

    /// Length in bytes, after the recipe.
    pub fn len(&self) -> usize {
        self.recipe.as_ref().map_or(self.bytes.len(), |r| r.out_len(self.bytes.len()))
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of a blob without recipe; `None` where it does not fit or a recipe stands in the way.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if self.is_stored() { Self::new(&self.bytes, range) } else { None }
    }

    /// All bytes: borrowed, unless a recipe must run.
    pub fn read(&self) -> Cow<'_, [u8]> {
        let Some(recipe) = &self.recipe else { return Cow::Borrowed(&self.bytes) };
        let mut out = Vec::with_capacity(self.len());
        for (at, chunk) in numbered(&self.bytes) {
            recipe.chunk(at, chunk, &mut out);
        }
        Cow::Owned(out)
    }

    /// All bytes, shared where no recipe must run.
    pub fn bytes(&self) -> Bytes {
        if self.is_stored() { self.bytes.clone() } else { Bytes::from(self.read().into_owned()) }
    }

    /// Streams the blob to `w`: peak memory is one chunk, whatever its size.
    pub fn write_to(&self, w: &mut dyn Write) -> io::Result<()> {
        self.chunks(&mut |chunk| w.write_all(chunk))
    }

    /// Calls `visit` with consecutive pieces of the bytes, each of whole elements (but for sub-byte types) and at
    /// most a few MiB; stops at the first error.
    pub fn chunks<E>(&self, visit: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut out = Vec::new();
        for (at, chunk) in numbered(&self.bytes) {
            match &self.recipe {
                None => visit(chunk)?,
                Some(recipe) => {
                    out.clear();
                    recipe.chunk(at, chunk, &mut out);
                    visit(&out)?;
                }
            }
            let end = at + chunk.len();
            if self.bytes.len() > CHUNK && (end % WINDOW == 0 || end == self.bytes.len()) {
                maps::release(&self.bytes[(end - 1) / WINDOW * WINDOW..end]);
            }
        }
        Ok(())
    }

    /// What `of` makes of consecutive pieces of the bytes, in order. The pieces are as in [`Blob::chunks`], and threads share
    /// them.
    pub fn map_chunks<T: Send>(&self, of: impl Fn(&[u8]) -> T + Sync) -> Vec<T> {
        let one = |at: usize, chunk: &[u8]| match &self.recipe {
            None => of(chunk),
            Some(recipe) => {
                let mut out = Vec::new();
                recipe.chunk(at, chunk, &mut out);
                of(&out)
            }
        };
        if self.bytes.len() <= CHUNK {
            return numbered(&self.bytes).map(|(at, chunk)| one(at, chunk)).collect();
        }
        let several = |(i, window): (usize, &[u8])| {
            let part = |(k, chunk): (usize, &[u8])| one(i * WINDOW + k * CHUNK, chunk);
            let made: Vec<T> = window.par_chunks(CHUNK).enumerate().map(part).collect();
            maps::release(window);
            made
        };
        self.bytes.chunks(WINDOW).enumerate().flat_map(several).collect()
    }

    /// Gives back the memory that holds the bytes, where they are of a file's map: what is read again is read from the
    /// file again. Without it the pages of every file that was read once would count as this process's memory.
    pub fn release(&self) {
        maps::release(&self.bytes);
    }

    /// Whether both blobs are the same range of the same storage under the same recipe. Cheap, and no more than a
    /// sufficient condition for equal bytes.
    pub fn same_storage(&self, other: &Self) -> bool {
        self.storage() == other.storage()
            && self.recipe.as_ref().map(|r| r.name()) == other.recipe.as_ref().map(|r| r.name())
    }

    /// Where the storage lies, which tells apart what [`Blob::same_storage`] tells apart but for recipes: a key to look
    /// blobs up by.
    pub fn storage(&self) -> (usize, usize) {
        (self.bytes.as_ptr() as usize, self.bytes.len())
    }

    /// Whether the bytes are there as they are read, without a recipe.
    pub fn is_stored(&self) -> bool {
        self.recipe.is_none()
    }

    /// Whether the blob holds exactly `count` elements of `dtype`.
    pub fn fits(&self, dtype: DType, count: usize) -> bool {
        packed_len(count, dtype.bits()) == Some(self.len())
    }
}

/// The pieces that a recipe sees, each with where it begins.
fn numbered(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    bytes.chunks(CHUNK).enumerate().map(|(i, chunk)| (i * CHUNK, chunk))
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, recipe: None }
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes", self.len())?;
        if let Some(r) = &self.recipe {
            write!(f, " after {}", r.name())?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_and_refuse_to_leave_their_storage() {
        let bytes = Bytes::from_static(b"abcdef");
        let blob = Blob::new(&bytes, 1..4).expect("inside");
        assert_eq!(&*blob.read(), b"bcd");
        assert!(blob.same_storage(&blob.clone()));
        assert!(Blob::new(&bytes, 4..7).is_none());
        #[expect(clippy::reversed_empty_ranges, reason = "a hostile range")]
        let reversed = 5..4;
        assert!(Blob::new(&bytes, reversed).is_none());
    }

    #[test]
    fn recipes_know_where_they_are_behind_one_another() {
        let n = CHUNK + 1000;
        let values: Vec<u8> = (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let factors: Vec<f64> = (0..7).map(|i| f64::from(i) + 0.5).collect();
        let want: Vec<u8> = (0..n)
            .flat_map(|i| f16::from_f64(f64::from((i as f64 * factors[i / 3 % 7]) as f32)).to_le_bytes())
            .collect();
        let scale = Scale { dtype: DType::F32, factors: factors.into(), run: 3 };
        let blob = Blob::from(Bytes::from(values)).then(scale).then(Cast { from: DType::F32, to: DType::F16 });
        let mut streamed = vec![];
        blob.write_to(&mut streamed).expect("memory");
        let mapped = blob.map_chunks(<[u8]>::to_vec).concat();
        assert!(streamed == want && mapped == want && *blob.read() == want);
        assert_eq!(blob.len(), want.len());
    }

    #[test]
    fn casts_run_chunk_by_chunk_when_read() {
        let n = CHUNK / 2;
        let values: Vec<u8> = (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let blob = Blob::from(Bytes::from(values)).then(Cast { from: DType::F32, to: DType::F16 });
        assert_eq!(blob.len(), n * 2);
        let mut out = vec![];
        blob.write_to(&mut out).expect("memory");
        assert_eq!(&out[600..602], f16::from_f32(300.0).to_le_bytes());
        assert_eq!(out, *blob.read());
    }

    #[test]
    fn an_empty_file_maps_to_no_bytes() {
        let file = tempfile::tempfile().expect("a temporary file");
        assert!(map_file(&file).expect("mapped").is_empty());
    }
}
