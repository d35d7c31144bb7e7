//! Elements of compressed weights: decoded on their bytes, or in single precision.

use crate::schema::{OpError, Out};
use mlconv_tensor::{Bytes, DType, Tensor, f16, pack_bits, strides, unpack_bits};
use std::{borrow::Cow, ops::Range};

/// In what a difference is rounded before it is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// Single precision, in which differences of 8-bit integers are exact.
    Single,
    /// Half precision.
    Half,
}

/// `scale * (x - offset)` of every element.
///
/// Single precision has more than twice the digits of half, so rounding to it before rounding to half is harmless.
pub(super) fn scaled(run: &mut [f32], scale: f32, offset: f32, rounding: Rounding) {
    match rounding {
        Rounding::Single => {
            for x in run {
                *x = scale * (*x - offset);
            }
        }
        Rounding::Half => {
            let half = |x: f32| f16::from_f32(x).to_f32();
            let offset = half(offset);
            for x in run {
                *x = scale * half(half(*x) - offset);
            }
        }
    }
}

/// The elements as single precision, which holds those of every type here.
pub(super) fn entries(t: &Tensor) -> Vec<f32> {
    let bytes = t.blob().read();
    match t.dtype() {
        DType::U8 => bytes.iter().map(|b| f32::from(*b)).collect(),
        DType::I8 => bytes.iter().map(|b| f32::from(*b as i8)).collect(),
        DType::U4 => unpack_bits(&bytes, 4, t.count()).map(f32::from).collect(),
        // Four bits moved up to the sign of a byte come down with it.
        DType::I4 => unpack_bits(&bytes, 4, t.count()).map(|b| f32::from((b << 4) as i8 >> 4)).collect(),
        _ => t.to_f32().into_owned(),
    }
}

/// A tensor of these values, rounded to the element type.
pub(super) fn dense(out: &Out, values: &[f32]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec()).cast(out.dtype).reshape(&out.shape)
}

/// Bytes per element in [`raw`].
pub(super) fn size_of(dtype: DType) -> usize {
    (dtype.bits() as usize / 8).max(1)
}

/// The elements' bytes; of types of less than a byte, one byte each.
pub(super) fn raw(t: &Tensor) -> Cow<'_, [u8]> {
    let bytes = t.blob().read();
    match t.dtype().bits() {
        bits @ 1..8 => Cow::Owned(unpack_bits(&bytes, bits, t.count()).collect()),
        _ => bytes,
    }
}

/// The tensor of bytes as [`raw`] gives them.
pub(super) fn from_raw(out: &Out, bytes: Vec<u8>) -> Result<Tensor, OpError> {
    let bytes = match out.dtype.bits() {
        bits @ 1..8 => pack_bits(bytes, bits),
        _ => bytes,
    };
    Tensor::new(out.dtype, &out.shape, Bytes::from(bytes).into()).map_err(|_| OpError::NoKernel)
}

/// The bytes of `count` elements: those of `data`, in order, where `mask` is not 0, and zeros elsewhere.
pub(super) fn filled(data: &Tensor, mask: impl Iterator<Item = u8>, count: usize) -> Result<Vec<u8>, OpError> {
    let (from, size) = (raw(data), size_of(data.dtype()));
    let (mut bytes, mut at) = (vec![0; count * size], 0);
    for (to, _) in bytes.chunks_exact_mut(size).zip(mask).filter(|(_, m)| *m != 0) {
        let wanted = || OpError::Value {
            param: "mask",
            found: "more elements than there are".to_owned(),
            want: data.count().to_string().into(),
        };
        to.copy_from_slice(from.get(at..at + size).ok_or_else(wanted)?);
        at += size;
    }
    Ok(bytes)
}

/// Refuses a mask, one byte per element, that does not keep as many elements as `data` has.
pub(super) fn check_mask(param: &'static str, mask: &[u8], data: &Tensor) -> Result<(), OpError> {
    let set = mask.iter().filter(|m| **m != 0).count();
    if set == data.count() {
        return Ok(());
    }
    let want = format!("{}, one per element", data.count());
    Err(OpError::Value { param, found: format!("{set} ones"), want: want.into() })
}

/// Calls `f` with each run of elements of a tensor of shape `shape` that are consecutive and share a block, in row-major
/// order, and with the block's flat number. The sizes of `blocks` divide those of `shape`.
pub(super) fn each_run(shape: &[usize], blocks: &[usize], mut f: impl FnMut(Range<usize>, usize)) {
    let (Some((last, lead)), Some((parts, _))) = (shape.split_last(), blocks.split_last()) else { return };
    let (steps, length) = (strides(blocks), last / (*parts).max(1));
    let rows = Out { dtype: DType::U8, shape: lead.into() };
    let mut start = 0;
    rows.each_index(|index| {
        let axes = index.iter().zip(lead).zip(blocks).zip(&steps);
        let row: usize = axes.map(|(((i, n), b), s)| i / (n / b) * s).sum();
        for part in 0..*parts {
            f(start..start + length, row + part);
            start += length;
        }
    });
}
