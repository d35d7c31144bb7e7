//! Tensors of known shape: constants of a program and values of a run.

use crate::{Blob, Cast, DType, Dims, Shape, bits::packed_len, blob::Scale, pack_bits, unpack_bits};
use bytemuck::{NoUninit, Pod};
use bytes::Bytes;
use half::{bf16, f16};
use std::{borrow::Cow, fmt};

/// A tensor of known shape over shared bytes, row-major, little-endian. Cloning shares.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Dims,
    blob: Blob,
}

/// Why bytes are no tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The bytes are more or fewer than type and shape demand.
    #[error("{found} bytes, where {dtype}{} takes {}", Shape::from(&shape[..]), want.map_or("more than memory holds".into(), |n| n.to_string()))]
    Length {
        /// The element type.
        dtype: DType,
        /// The shape.
        shape: Vec<usize>,
        /// Bytes given.
        found: usize,
        /// Bytes wanted; `None` where they overflow.
        want: Option<usize>,
    },
}

/// A Rust type whose values are elements of a whole-byte [`DType`].
pub trait Element: Pod + Send + Sync {
    /// The element type.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($t:ty = $d:ident),*) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}
elements!(f16 = F16, f32 = F32, f64 = F64, bf16 = Bf16, i8 = I8, i16 = I16, i32 = I32, i64 = I64);
elements!(u8 = U8, u16 = U16, u32 = U32, u64 = U64);

/// Lets `Bytes` own a vector of elements, aligned as they are.
struct Owned<T>(Vec<T>);
impl<T: NoUninit> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

fn owned<T: NoUninit + Send + 'static>(values: Vec<T>) -> Blob {
    Blob::from(Bytes::from_owner(Owned(values)))
}

impl Tensor {
    /// Reads `blob` as a tensor.
    pub fn new(dtype: DType, shape: &[usize], blob: Blob) -> Result<Self, TensorError> {
        // A string's length is that of its bytes, so that a tensor holds only one.
        if dtype == DType::Str && shape.is_empty() {
            return Ok(Self { dtype, shape: Dims::new(), blob });
        }
        let want = shape
            .iter()
            .try_fold(1usize, |n, d| n.checked_mul(*d))
            .and_then(|n| packed_len(n, dtype.bits()))
            .filter(|_| dtype != DType::Str)
            // Zero-size tensors may still claim absurd sizes along other axes; keep strides within range.
            .filter(|_| shape.iter().filter(|d| **d != 0).try_fold(1usize, |n, d| n.checked_mul(*d)).is_some());
        if want != Some(blob.len()) {
            return Err(TensorError::Length { dtype, shape: shape.to_vec(), found: blob.len(), want });
        }
        Ok(Self { dtype, shape: shape.into(), blob })
    }

    /// A tensor of `values`, of as many elements as `shape` says.
    ///
    /// # Panics
    /// Where the count differs: the caller computed both.
    pub fn from_vec<T: Element>(shape: &[usize], values: Vec<T>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "as many values as shape {shape:?} has places");
        Self { dtype: T::DTYPE, shape: shape.into(), blob: owned(values) }
    }

    /// A scalar.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self::from_vec(&[], vec![value])
    }

    /// A scalar string.
    pub fn from_text(text: &str) -> Self {
        Self { dtype: DType::Str, shape: Dims::new(), blob: Blob::from(Bytes::from(text.to_owned())) }
    }

    /// The scalar string that this is; bytes that are no UTF-8 are replaced.
    pub fn to_text(&self) -> Option<String> {
        (self.dtype == DType::Str).then(|| String::from_utf8_lossy(&self.blob.read()).into_owned())
    }

    /// A boolean tensor.
    pub fn from_bools(shape: &[usize], values: impl IntoIterator<Item = bool>) -> Self {
        let bytes: Vec<u8> = values.into_iter().map(u8::from).collect();
        Self { dtype: DType::Bool, ..Self::from_vec(shape, bytes) }
    }

    /// Rounds `values` to `dtype`: to nearest even for floats, truncated and saturated for integers. No number is a
    /// string: that type gives an empty one.
    pub fn from_f64(dtype: DType, shape: &[usize], values: &[f64]) -> Self {
        macro_rules! cast {
            ($t:ty) => {
                Self::from_vec(shape, values.iter().map(|v| *v as $t).collect::<Vec<$t>>())
            };
        }
        match dtype {
            DType::F16 => Self::from_vec(shape, values.iter().map(|v| f16::from_f64(*v)).collect()),
            DType::Bf16 => Self::from_vec(shape, values.iter().map(|v| bf16::from_f64(*v)).collect()),
            DType::F32 => cast!(f32),
            DType::F64 => cast!(f64),
            DType::F8E4M3 | DType::F8E5M2 => {
                let encode = |v: &f64| encode_f8(dtype, *v as f32);
                Self { dtype, ..Self::from_vec(shape, values.iter().map(encode).collect::<Vec<u8>>()) }
            }
            DType::I8 => cast!(i8),
            DType::I16 => cast!(i16),
            DType::I32 => cast!(i32),
            DType::I64 => cast!(i64),
            DType::U8 => cast!(u8),
            DType::U16 => cast!(u16),
            DType::U32 => cast!(u32),
            DType::U64 => cast!(u64),
            DType::Bool => Self::from_bools(shape, values.iter().map(|v| *v != 0.0)),
            DType::I4 | DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 => {
                let ints: Vec<i64> = values.iter().map(|v| *v as i64).collect();
                Self::from_i64(dtype, shape, &ints)
            }
            DType::Str => Self::from_text(""),
        }
    }

    /// Converts `values` to `dtype`, saturating where they do not fit an integer type.
    pub fn from_i64(dtype: DType, shape: &[usize], values: &[i64]) -> Self {
        match dtype {
            DType::I64 => Self::from_vec(shape, values.to_vec()),
            DType::U64 => Self::from_vec(shape, values.iter().map(|v| (*v).max(0) as u64).collect()),
            DType::I4 | DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 => {
                assert_eq!(
                    shape.iter().product::<usize>(),
                    values.len(),
                    "as many values as shape {shape:?} has places"
                );
                let (lo, hi) = dtype.int_range().unwrap_or((0, 0));
                let clamped = values.iter().map(|v| i128::from(*v).clamp(lo, hi) as u8);
                let blob = Blob::from(Bytes::from(pack_bits(clamped, dtype.bits())));
                Self { dtype, shape: shape.into(), blob }
            }
            _ => {
                let wide: Vec<f64> = values.iter().map(|v| *v as f64).collect();
                Self::from_f64(dtype, shape, &wide)
            }
        }
    }

    /// A tensor filled with `value`.
    pub fn splat(dtype: DType, shape: &[usize], value: f64) -> Self {
        Self::from_f64(dtype, shape, &vec![value; shape.iter().product()])
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes along each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// The elements as they are stored: borrowed where they are aligned and no recipe must run. `None` where `T` is
    /// not their type (booleans are `u8`).
    pub fn view<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        let same = self.dtype == T::DTYPE
            || (T::DTYPE == DType::U8 && matches!(self.dtype, DType::Bool | DType::F8E4M3 | DType::F8E5M2));
        same.then(|| elements_of(self.blob.read()))
    }

    /// The elements as `f32`: exact for every type of at most 24 significant bits, else rounded.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        match self.view::<f32>() {
            Some(v) => v,
            None => Cow::Owned(match self.dtype {
                DType::F16 => {
                    let halves = self.view::<f16>().unwrap_or_default();
                    let mut out = vec![0.0; halves.len()];
                    half::slice::HalfFloatSliceExt::convert_to_f32_slice(&*halves, &mut out);
                    out
                }
                _ => self.to_f64().iter().map(|v| *v as f32).collect(),
            }),
        }
    }

    /// The elements as `f64`.
    pub fn to_f64(&self) -> Vec<f64> {
        let bytes = self.blob.read();
        macro_rules! wide {
            ($t:ty) => {
                elements_of::<$t>(bytes).iter().map(|v| *v as f64).collect()
            };
        }
        match self.dtype {
            DType::F16 => elements_of::<f16>(bytes).iter().map(|v| v.to_f64()).collect(),
            DType::Bf16 => elements_of::<bf16>(bytes).iter().map(|v| v.to_f64()).collect(),
            DType::F32 => wide!(f32),
            DType::F64 => wide!(f64),
            DType::F8E4M3 | DType::F8E5M2 => bytes.iter().map(|b| f64::from(decode_f8(self.dtype, *b))).collect(),
            DType::U64 => wide!(u64),
            _ => self.to_i64().iter().map(|v| *v as f64).collect(),
        }
    }

    /// The elements as `i64`: floats are truncated, `u64` saturates, a string is 0.
    pub fn to_i64(&self) -> Vec<i64> {
        let bytes = self.blob.read();
        macro_rules! wide {
            ($t:ty) => {
                elements_of::<$t>(bytes).iter().map(|v| *v as i64).collect()
            };
        }
        match self.dtype {
            DType::I8 => wide!(i8),
            DType::I16 => wide!(i16),
            DType::I32 => wide!(i32),
            DType::I64 => wide!(i64),
            DType::U8 | DType::Bool => wide!(u8),
            DType::U16 => wide!(u16),
            DType::U32 => wide!(u32),
            DType::U64 => elements_of::<u64>(bytes).iter().map(|v| i64::try_from(*v).unwrap_or(i64::MAX)).collect(),
            DType::I4 => {
                unpack_bits(&bytes, 4, self.count()).map(|v| i64::from(v) - if v >= 8 { 16 } else { 0 }).collect()
            }
            DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 => {
                unpack_bits(&bytes, self.dtype.bits(), self.count()).map(i64::from).collect()
            }
            DType::F16 | DType::Bf16 | DType::F32 | DType::F64 | DType::F8E4M3 | DType::F8E5M2 => {
                self.to_f64().iter().map(|v| *v as i64).collect()
            }
            DType::Str => vec![0],
        }
    }

    /// The elements as booleans: whether each is not zero.
    pub fn to_bools(&self) -> Vec<bool> {
        self.to_f64().iter().map(|v| *v != 0.0).collect()
    }

    /// The same elements in another type, converted when they are read: to nearest even for floats, truncated and
    /// saturated for integers, "not zero" for booleans.
    pub fn cast(&self, to: DType) -> Self {
        if to == self.dtype {
            return self.clone();
        }
        let lazy = |d: DType| d.bits() >= 8 && !matches!(d, DType::F8E4M3 | DType::F8E5M2 | DType::Str);
        if !lazy(self.dtype) || !lazy(to) {
            return if to.is_int() && !self.dtype.is_float() {
                Self::from_i64(to, &self.shape, &self.to_i64())
            } else {
                Self::from_f64(to, &self.shape, &self.to_f64())
            };
        }
        let blob = self.blob.clone().then(Cast { from: self.dtype, to });
        Self { dtype: to, shape: self.shape.clone(), blob }
    }

    /// Floats times factors, each of which holds for `run` elements in a row, over and over; computed when they are read.
    /// `None` where these are no floats that are scaled, or there is no factor.
    pub fn scaled(&self, factors: Vec<f64>, run: usize) -> Option<Self> {
        if !matches!(self.dtype, DType::F16 | DType::F32) || factors.is_empty() || run == 0 {
            return None;
        }
        let blob = self.blob.clone().then(Scale { dtype: self.dtype, factors: factors.into(), run });
        Some(Self { dtype: self.dtype, shape: self.shape.clone(), blob })
    }

    /// A matrix of whole bytes with its axes swapped; `None` for other tensors.
    pub fn transposed(&self) -> Option<Self> {
        let [rows, columns] = *self.shape else { return None };
        let width = self.dtype.bits() as usize / 8;
        if self.dtype.bits() < 8 || self.dtype == DType::Str {
            return None;
        }
        // Tiles, so that what is read and what is written are near in both.
        const TILE: usize = 32;
        let (from, mut to) = (self.blob.read(), vec![0; rows * columns * width]);
        for (top, left) in (0..rows).step_by(TILE).flat_map(|r| (0..columns).step_by(TILE).map(move |c| (r, c))) {
            for c in left..columns.min(left + TILE) {
                for r in top..rows.min(top + TILE) {
                    let (source, target) = ((r * columns + c) * width, (c * rows + r) * width);
                    to[target..target + width].copy_from_slice(&from[source..source + width]);
                }
            }
        }
        self.blob.release();
        Some(Self { dtype: self.dtype, shape: [columns, rows].as_slice().into(), blob: Bytes::from(to).into() })
    }

    /// The same elements under another shape of equal count.
    ///
    /// # Panics
    /// Where the count differs: the caller computed it.
    pub fn reshape(&self, shape: &[usize]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), self.count(), "reshaping {:?} to {shape:?}", self.shape);
        Self { dtype: self.dtype, shape: shape.into(), blob: self.blob.clone() }
    }

    /// The same bytes read as `dtype` of the same width, as `bool` for `u8`; `None` where the widths differ.
    pub fn reinterpret(&self, dtype: DType) -> Option<Self> {
        (dtype.bits() == self.dtype.bits() && dtype.bits() > 0).then(|| Self { dtype, ..self.clone() })
    }

    /// Rows `range` along the first axis, sharing the bytes where elements are whole bytes.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Option<Self> {
        let (first, rest) = self.shape.split_first()?;
        let row = rest.iter().product::<usize>() * self.dtype.bits() as usize;
        if range.start > range.end || range.end > *first || !row.is_multiple_of(8) {
            return None;
        }
        let mut shape = self.shape.clone();
        shape[0] = range.len();
        let blob = self.blob.slice(range.start * row / 8..range.end * row / 8)?;
        Some(Self { dtype: self.dtype, shape, blob })
    }
}

/// Equal type, shape and bytes.
impl PartialEq for Tensor {
    fn eq(&self, o: &Self) -> bool {
        self.dtype == o.dtype
            && self.shape == o.shape
            && (self.blob.same_storage(&o.blob) || self.blob.read() == o.blob.read())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, Shape::from(&self.shape))?;
        if let Some(text) = self.to_text() {
            return write!(f, " {text:?}");
        }
        if self.count() <= 64 {
            write!(f, " {:?}", self.to_f64())?;
        }
        Ok(())
    }
}

/// Reads little-endian bytes as elements, in place where they are aligned.
fn elements_of<T: Pod>(bytes: Cow<'_, [u8]>) -> Cow<'_, [T]> {
    match bytes {
        Cow::Borrowed(b) => match bytemuck::try_cast_slice(b) {
            Ok(v) => Cow::Borrowed(v),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(b)),
        },
        Cow::Owned(b) => Cow::Owned(bytemuck::pod_collect_to_vec(&b)),
    }
}

/// Converts whole-byte elements; called with whole elements only.
pub(crate) fn convert(from: DType, to: DType, src: &[u8], out: &mut Vec<u8>) {
    let count = src.len() / (from.bits() as usize / 8);
    // The pairs that whole models go through; everything else takes the general road.
    match (from, to) {
        (DType::F32, DType::F16) => {
            let values = elements_of::<f32>(Cow::Borrowed(src));
            let mut halves = vec![f16::ZERO; count];
            half::slice::HalfFloatSliceExt::convert_from_f32_slice(&mut halves[..], &values);
            out.extend_from_slice(bytemuck::cast_slice(&halves));
        }
        (DType::F16, DType::F32) => {
            let halves = elements_of::<f16>(Cow::Borrowed(src));
            let mut values = vec![0f32; count];
            half::slice::HalfFloatSliceExt::convert_to_f32_slice(&*halves, &mut values);
            out.extend_from_slice(bytemuck::cast_slice(&values));
        }
        _ => {
            let part =
                Tensor { dtype: from, shape: [count].into_iter().collect(), blob: Bytes::copy_from_slice(src).into() };
            let converted = if to.is_int() && !from.is_float() {
                Tensor::from_i64(to, &[count], &part.to_i64())
            } else {
                Tensor::from_f64(to, &[count], &part.to_f64())
            };
            out.extend_from_slice(&converted.blob.read());
        }
    }
}

/// An 8-bit float's value. Source: Micikevicius et al. 2022, "FP8 formats for deep learning", table 1.
fn decode_f8(dtype: DType, byte: u8) -> f32 {
    let (exponent_bits, bias) = if dtype == DType::F8E4M3 { (4, 7) } else { (5, 15) };
    let mantissa_bits = 7 - exponent_bits;
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((byte & 0x7f) >> mantissa_bits);
    let mantissa = f32::from(byte & ((1 << mantissa_bits) - 1));
    let unit = f32::from(1u8 << mantissa_bits);
    match (dtype, exponent, mantissa as u32) {
        (DType::F8E4M3, 15, 7) => f32::NAN,
        (DType::F8E5M2, 31, 0) => sign * f32::INFINITY,
        (DType::F8E5M2, 31, _) => f32::NAN,
        (_, 0, _) => sign * mantissa / unit * 2f32.powi(1 - bias),
        _ => sign * (1.0 + mantissa / unit) * 2f32.powi(exponent - bias),
    }
}

/// The nearest 8-bit float, ties to even, saturating at the largest finite value.
fn encode_f8(dtype: DType, value: f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let last = if dtype == DType::F8E4M3 { 0x7e } else { 0x7b };
    let size = value.abs();
    // Codes ascend with their values, so the nearest is beside the insertion point.
    let (mut lo, mut hi) = (0u8, last);
    while lo < hi {
        let mid = lo + (hi - lo).div_ceil(2);
        if decode_f8(dtype, mid) <= size { lo = mid } else { hi = mid - 1 }
    }
    let next = lo.min(last - 1) + 1;
    let (below, above) = (size - decode_f8(dtype, lo), decode_f8(dtype, next) - size);
    let up = lo < last && (above < below || (above == below && lo & 1 == 1));
    sign | if up { next } else { lo }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_must_be_as_many_as_the_shape_says() {
        let blob = |n: usize| Blob::from(Bytes::from(vec![0; n]));
        assert!(Tensor::new(DType::I4, &[3], blob(2)).is_ok());
        assert!(Tensor::new(DType::F32, &[2], blob(7)).is_err());
        assert!(Tensor::new(DType::F32, &[usize::MAX, 2], blob(7)).is_err());
        assert!(Tensor::new(DType::F32, &[0, usize::MAX, usize::MAX], blob(0)).is_err());
        assert!(Tensor::new(DType::F32, &[0], blob(0)).is_ok());
    }

    #[test]
    fn casts_round_and_saturate() {
        let t = Tensor::from_vec(&[5], vec![1.5f32, -2.7, 70000.0, f32::NAN, 1e-8]);
        assert_eq!(t.cast(DType::I32).to_i64(), [1, -2, 70000, 0, 0]);
        assert_eq!(t.cast(DType::I8).to_i64(), [1, -2, 127, 0, 0]);
        assert_eq!(t.cast(DType::F16).to_f32()[2], f32::INFINITY);
        assert_eq!(t.cast(DType::Bool).to_bools(), [true, true, true, true, true]);
        assert_eq!(Tensor::from_i64(DType::I4, &[3], &[-8, 7, 9]).cast(DType::F16).to_f64(), [-8.0, 7.0, 7.0]);
    }

    #[test]
    fn aligned_values_are_borrowed() {
        let t = Tensor::from_vec(&[2], vec![1f32, 2.0]);
        assert!(matches!(t.view::<f32>(), Some(Cow::Borrowed(_))));
        assert!(t.view::<f16>().is_none());
        assert_eq!(t.rows(1..2).expect("a row").to_f64(), [2.0]);
    }

    #[test]
    fn a_string_is_a_scalar_that_counts_as_one_element() {
        let t = Tensor::from_text("größe");
        assert_eq!((t.dtype(), t.shape(), t.count()), (DType::Str, &[][..], 1));
        assert_eq!(t.to_text().as_deref(), Some("größe"));
        assert_eq!((t.to_f64(), t.to_bools()), (vec![0.0], vec![false]));
        assert_eq!(t.cast(DType::F32).to_f64(), [0.0]);
        assert_eq!(Tensor::scalar(1f32).cast(DType::Str).to_text().as_deref(), Some(""));
        assert!(Tensor::new(DType::Str, &[2], Blob::from(Bytes::new())).is_err());
        assert_eq!(Tensor::new(DType::Str, &[], t.blob().clone()), Ok(t.clone()));
        assert!(Tensor::scalar(1f32).to_text().is_none() && t.reinterpret(DType::U8).is_none());
    }

    #[test]
    fn eight_bit_floats_round_trip() {
        for dtype in [DType::F8E4M3, DType::F8E5M2] {
            for code in 0..=u8::MAX {
                let v = decode_f8(dtype, code);
                if v.is_finite() {
                    assert_eq!(decode_f8(dtype, encode_f8(dtype, v)).to_bits(), v.to_bits(), "{dtype} {code}");
                }
            }
        }
        assert_eq!(decode_f8(DType::F8E4M3, encode_f8(DType::F8E4M3, 1e9)), 448.0);
        assert_eq!(decode_f8(DType::F8E5M2, encode_f8(DType::F8E5M2, 1.1)), 1.0);
    }
}
