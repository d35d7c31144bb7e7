//! Tensors in memory that a file has, as they lie there.

use crate::archive::Room;
use bytes::Bytes;
use mlconv_tensor::{DType, Tensor};

/// Whether elements that lie so far apart lie one after the other.
pub(crate) fn in_order(sizes: &[usize], strides: &[usize]) -> bool {
    let own = mlconv_tensor::strides(sizes);
    strides.len() == sizes.len() && sizes.iter().zip(strides).zip(own.iter()).all(|((n, s), own)| *n <= 1 || s == own)
}

/// The memory that one or more tensors lie in.
pub(crate) struct Storage<'a> {
    pub(crate) bytes: &'a Bytes,
    pub(crate) dtype: DType,
    /// What the file may come to.
    pub(crate) room: &'a Room,
}

impl Storage<'_> {
    /// The tensor of these sizes whose elements lie `strides` apart, from `offset` on.
    pub(crate) fn tensor(
        &self,
        sizes: &[usize],
        strides: &[usize],
        offset: usize,
    ) -> std::result::Result<Tensor, String> {
        let beyond = || format!("its {} bytes are too few for {sizes:?} from {offset} on", self.bytes.len());
        let width = self.dtype.bits() as usize / 8;
        let count = sizes.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(beyond)?;
        let size = count.checked_mul(width).ok_or_else(beyond)?;
        let start = offset.checked_mul(width).ok_or_else(beyond)?;
        if count == 0 || in_order(sizes, strides) {
            let end = start.checked_add(size).filter(|e| *e <= self.bytes.len()).ok_or_else(beyond)?;
            let range = if count == 0 { 0..0 } else { start..end };
            return Tensor::new(self.dtype, sizes, self.bytes.slice(range).into()).map_err(|e| e.to_string());
        }
        if strides.len() != sizes.len() {
            return Err("it has not as many strides as sizes".to_owned());
        }
        let last = sizes.iter().zip(strides).try_fold(offset, |at, (n, s)| at.checked_add((n - 1).checked_mul(*s)?));
        let fits = last.and_then(|l| l.checked_add(1)).and_then(|l| l.checked_mul(width));
        if fits.is_none_or(|end| end > self.bytes.len()) {
            return Err(beyond());
        }
        // Repeated elements are few in files that PyTorch writes, and may be many in others.
        if size > self.bytes.len().saturating_mul(16).saturating_add(1 << 20) || !self.room.take(size as u64) {
            return Err("it repeats few elements very often".to_owned());
        }
        let mut out = Vec::with_capacity(size);
        let mut index = vec![0usize; sizes.len()];
        for _ in 0..count {
            let at: usize = offset + index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>();
            out.extend_from_slice(&self.bytes[at * width..(at + 1) * width]);
            for (i, n) in index.iter_mut().zip(sizes).rev() {
                *i += 1;
                if *i < *n {
                    break;
                }
                *i = 0;
            }
        }
        Tensor::new(self.dtype, sizes, Bytes::from(out).into()).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_that_repeat_elements_share_what_the_file_may_come_to() {
        let (bytes, room) = (Bytes::from(vec![0; 4]), Room::of(4));
        let storage = Storage { bytes: &bytes, dtype: DType::F32, room: &room };
        let made = (0..1000).take_while(|_| storage.tensor(&[1 << 18], &[0], 0).is_ok()).count();
        assert!((16..200).contains(&made), "{made}");
        // What lies in order takes no memory.
        assert!(storage.tensor(&[1], &[1], 0).is_ok());
    }

    #[test]
    fn what_lies_beyond_the_end_is_refused() {
        let (bytes, room) = (Bytes::from(vec![0; 16]), Room::of(16));
        let storage = Storage { bytes: &bytes, dtype: DType::F32, room: &room };
        for (sizes, strides, offset) in [
            (vec![5], vec![1], 0),
            (vec![2, 2], vec![1, 3], 0),
            (vec![2], vec![usize::MAX], 1),
            (vec![usize::MAX, 2], vec![1, 1], 0),
            (vec![1], vec![1], usize::MAX),
            (vec![2], vec![], 0),
        ] {
            assert!(storage.tensor(&sizes, &strides, offset).is_err(), "{sizes:?} {strides:?} {offset}");
        }
    }
}
