//! Weights as small integers, each block with a scale and perhaps an offset.

pub use super::{affine::RangeMethod, blocks::Granularity};

use super::{
    Refusal,
    affine::{Affine, Codes, range, range_of_halves, to_half},
    blocks::{Blocks, Walk},
    weight,
};
use half::slice::HalfFloatSliceExt;
use mlconv_tensor::{Bytes, DType, Element, Simd, Tensor, WithSimd, f16, vectorized};
use rayon::prelude::*;
use std::ops::Range;

/// How to quantize.
#[derive(Clone, Debug)]
pub struct LinearOptions<'a> {
    /// The type of the integers: `i8`, `u8`, `i4` or `u4`.
    pub dtype: DType,
    /// Whether zero is in the middle of the integers, so that signed ones need no offset.
    pub symmetric: bool,
    /// What shares a scale.
    pub granularity: Granularity,
    /// How the range of a block is chosen.
    pub range: RangeMethod,
    /// How much the squared error of each element counts, finite and not negative; [`RangeMethod::Mse`] heeds it.
    pub importance: Option<&'a [f32]>,
    /// The elements that count. Others may be clipped.
    pub keep: Option<&'a [bool]>,
}

/// A weight as integers: `scale * (data - offset)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// The integers, of the shape of the weight.
    pub data: Tensor,
    /// A scale per block, of the weight's type and rank.
    pub scale: Tensor,
    /// An integer per block where it is not 0 everywhere by definition.
    pub offset: Option<Tensor>,
}

/// Quantizes `w`, each element to the integer whose decoded number is nearest.
///
/// The scale is rounded to the type of the weight first; that rounding is half the error of 8-bit integers. A block of
/// zeros has the scale 1.
///
/// Errors: sizes that do not divide; elements that are not finite; options that do not fit the weight.
pub fn quantize(w: &Tensor, o: &LinearOptions<'_>) -> Result<Quantized, Refusal> {
    weight::check(w)?;
    let codes = Codes::new(o.dtype, o.symmetric, w.dtype())?;
    let blocks = Blocks::new(w.shape(), &o.granularity)?;
    check_options(w, o)?;
    match (w.view::<f16>(), w.view::<f32>()) {
        (Some(halves), _) => quantize_as::<f16, true>(w, &halves, &blocks, &codes, o),
        (None, Some(singles)) => quantize_as::<f32, false>(w, &singles, &blocks, &codes, o),
        (None, None) => Err(Refusal::new(format!("the elements are {}", w.dtype()))),
    }
}

impl Quantized {
    /// The decoded numbers, rounded to the type of the scale as Core ML does.
    pub fn decoded(&self) -> Vec<f32> {
        let sizes = self.data.shape().iter().zip(self.scale.shape()).map(|(n, b)| n / (*b).max(1)).collect();
        let Ok(blocks) = Blocks::new(self.data.shape(), &Granularity::Boxes(sizes)) else { return vec![] };
        let (scale, half) = (self.scale.to_f32(), self.scale.dtype() == DType::F16);
        let offset = self.offset.as_ref().map(Tensor::to_f32);
        let mut values = self.data.to_f32().into_owned();
        let (walk, count) = (blocks.walk(), values.len());
        let step = usize::from(walk.in_steps());
        walk.runs(0..count, |part, first| {
            for (i, x) in values[part].iter_mut().enumerate() {
                let block = first + i * step;
                let y = scale[block] * (*x - offset.as_ref().map_or(0.0, |o| o[block]));
                *x = if half { to_half(y) } else { y };
            }
        });
        values
    }
}

/// Refuses what stands beside a weight and does not fit it.
pub(super) fn check_options(w: &Tensor, o: &LinearOptions<'_>) -> Result<(), Refusal> {
    let n = w.count();
    for (what, len) in [("importances", o.importance.map(<[f32]>::len)), ("marks", o.keep.map(<[bool]>::len))] {
        if let Some(len) = len.filter(|len| *len != n) {
            return Err(Refusal::new(format!("{len} {what} for {n} elements")));
        }
    }
    let bad = o.importance.and_then(|v| v.iter().position(|x| !x.is_finite() || *x < 0.0));
    bad.map_or(Ok(()), |at| Err(Refusal::new(format!("the importance of element {at} is negative or not finite"))))
}

/// An element type of weights.
pub(super) trait Float: Element + Default {
    fn widened(values: &[Self], to: &mut [f32]);
    fn range(values: &[Self]) -> (f32, f32);
}

impl Float for f16 {
    fn widened(values: &[Self], to: &mut [f32]) {
        values.convert_to_f32_slice(to);
    }
    fn range(values: &[Self]) -> (f32, f32) {
        range_of_halves(values)
    }
}

impl Float for f32 {
    fn widened(values: &[Self], to: &mut [f32]) {
        to.copy_from_slice(values);
    }
    fn range(values: &[Self]) -> (f32, f32) {
        range(values)
    }
}

fn wide<T: Float>(values: &[T]) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    T::widened(values, &mut out);
    out
}

fn quantize_as<T: Float, const HALF: bool>(
    w: &Tensor,
    values: &[T],
    blocks: &Blocks,
    codes: &Codes,
    o: &LinearOptions<'_>,
) -> Result<Quantized, Refusal> {
    let len = blocks.len();
    let group = (GROUP / len).max(BESIDE);
    let mut affines = vec![Affine::default(); blocks.count()];
    affines.par_chunks_mut(group).enumerate().for_each_init(Taken::default, |taken, (i, affines)| {
        let range = i * group..i * group + affines.len();
        let of = |v: Range<usize>| v.start * len..v.end * len;
        // What lies in order is read where it is.
        let (elements, importance, keep) = if blocks.in_order() {
            (&values[of(range.clone())], o.importance.map(|v| &v[of(range.clone())]), o.keep.map(|v| &v[of(range)]))
        } else {
            taken.take(blocks, range, values, o)
        };
        for (k, (affine, block)) in affines.iter_mut().zip(elements.chunks(len)).enumerate() {
            let importance = importance.map(|v| &v[of(k..k + 1)]);
            *affine = fit(block, importance, keep.map(|v| &v[of(k..k + 1)]), codes, o.range);
        }
    });
    let bytes = coded::<T, HALF>(values, &affines, &blocks.walk(), o.dtype.bits() as usize);
    tensors(w, o.dtype, codes, blocks.counts(), bytes, &affines)
}

/// Blocks that are looked at together where they are not in order: as many elements of 16 bits as a line of a cache holds.
const BESIDE: usize = 32;

/// The elements of some blocks, one block after the other, and what is said of them.
#[derive(Default)]
struct Taken<T> {
    elements: Vec<T>,
    importance: Vec<f32>,
    keep: Vec<bool>,
}

/// Elements, what the squared error of each counts, and whether it counts at all.
type Elements<'a, T> = (&'a [T], Option<&'a [f32]>, Option<&'a [bool]>);

impl<T: Float> Taken<T> {
    fn take(&mut self, blocks: &Blocks, range: Range<usize>, values: &[T], o: &LinearOptions<'_>) -> Elements<'_, T> {
        blocks.take(range.clone(), values, &mut self.elements);
        let importance = o.importance.map(|v| blocks.take(range.clone(), v, &mut self.importance));
        let keep = o.keep.map(|v| blocks.take(range, v, &mut self.keep));
        (&self.elements, importance.map(|()| &self.importance[..]), keep.map(|()| &self.keep[..]))
    }
}

/// The parameters of one block.
pub(super) fn fit<T: Float>(
    block: &[T],
    importance: Option<&[f32]>,
    keep: Option<&[bool]>,
    codes: &Codes,
    method: RangeMethod,
) -> Affine {
    if let Some(keep) = keep {
        let block = only(block, keep);
        return fit(&block, importance.map(|v| only(v, keep)).as_deref(), None, codes, method);
    }
    match method {
        RangeMethod::MinMax => codes.min_max(whole_range(block), None, || wide(block)),
        RangeMethod::Mse => codes.least_squares(&wide(block), importance),
    }
}

/// The least and the greatest of many elements, which several threads look at.
fn whole_range<T: Float>(block: &[T]) -> (f32, f32) {
    const PART: usize = 1 << 16;
    if block.len() < 4 * PART {
        return T::range(block);
    }
    let ranges = block.par_chunks(PART).map(T::range);
    ranges.reduce_with(|(a, b), (c, d)| (a.min(c), b.max(d))).unwrap_or_default()
}

/// The elements that count.
fn only<T: Copy>(values: &[T], keep: &[bool]) -> Vec<T> {
    values.iter().zip(keep).filter(|(_, k)| **k).map(|(x, _)| *x).collect()
}

/// Elements that one task codes: they fit into the first cache, as does their single precision.
const GROUP: usize = 4096;

/// The codes of `bits` bits, of elements whose blocks are those of `walk`.
fn coded<T: Float, const HALF: bool>(values: &[T], affines: &[Affine], walk: &Walk, bits: usize) -> Vec<u8> {
    let mut out = vec![0u8; (values.len() * bits).div_ceil(8)];
    out.par_chunks_mut(GROUP * bits / 8).zip(values.par_chunks(GROUP)).enumerate().for_each(
        |(group, (out, values))| {
            let mut buffer = [0f32; GROUP];
            let wide = &mut buffer[..values.len()];
            T::widened(values, wide);
            let start = group * GROUP;
            let code = |codes: &mut [u8]| vectorized(Code::<HALF> { wide, start, affines, walk, codes });
            if bits == 8 {
                code(out);
            } else {
                let mut codes = [0u8; GROUP];
                let codes = &mut codes[..values.len()];
                code(codes);
                nibbles(codes, out);
            }
        },
    );
    out
}

/// Finds the codes, a byte each, of elements that lie in a weight from `start` on.
struct Code<'a, const HALF: bool> {
    wide: &'a [f32],
    start: usize,
    affines: &'a [Affine],
    walk: &'a Walk,
    codes: &'a mut [u8],
}

impl<const HALF: bool> WithSimd for Code<'_, HALF> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { wide, start, affines, walk, codes } = self;
        let steps = walk.in_steps();
        walk.runs(
            start..start + wide.len(),
            #[inline(always)]
            |part, first| {
                let pairs = codes[part.clone()].iter_mut().zip(&wide[part]);
                if steps {
                    pairs.zip(&affines[first..]).for_each(|((code, x), a)| *code = a.code(a.level::<HALF>(*x)));
                } else {
                    let a = affines[first];
                    pairs.for_each(|(code, x)| *code = a.code(a.level::<HALF>(*x)));
                }
            },
        );
    }
}

/// The tensors of codes, a byte each, and their parameters.
pub(super) fn stored(
    w: &Tensor,
    dtype: DType,
    codes: &Codes,
    counts: &[usize],
    bytes: Vec<u8>,
    affines: &[Affine],
) -> Result<Quantized, Refusal> {
    tensors(w, dtype, codes, counts, packed(dtype, bytes), affines)
}

/// The tensors of packed codes and their parameters.
fn tensors(
    w: &Tensor,
    dtype: DType,
    codes: &Codes,
    counts: &[usize],
    bytes: Vec<u8>,
    affines: &[Affine],
) -> Result<Quantized, Refusal> {
    let ints = |shape: &[usize], bytes: Vec<u8>| {
        Tensor::new(dtype, shape, Bytes::from(bytes).into()).map_err(|e| Refusal::new(e.to_string()))
    };
    let scales = affines.iter().map(|a| a.scale);
    let scale = if w.dtype() == DType::F16 {
        Tensor::from_vec(counts, scales.map(f16::from_f32).collect())
    } else {
        Tensor::from_vec(counts, scales.collect())
    };
    let zeros = || affines.iter().map(|a| a.code(0.0)).collect();
    let offset = if codes.zero_is_0() { None } else { Some(ints(counts, packed(dtype, zeros()))?) };
    Ok(Quantized { data: ints(w.shape(), bytes)?, scale, offset })
}

/// Codes, a byte each, in as few bits as the type has.
fn packed(dtype: DType, codes: Vec<u8>) -> Vec<u8> {
    if dtype.bits() == 8 {
        return codes;
    }
    let mut out = vec![0; codes.len().div_ceil(2)];
    nibbles(&codes, &mut out);
    out
}

/// The low halves of bytes, two to a byte, the first in the low half.
fn nibbles(bytes: &[u8], out: &mut [u8]) {
    let (pairs, rest) = bytes.as_chunks::<2>();
    for (to, [low, high]) in out.iter_mut().zip(pairs) {
        *to = low & 15 | high << 4;
    }
    if let (Some(to), [last]) = (out.last_mut(), rest) {
        *to = last & 15;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(dtype: DType, symmetric: bool, granularity: Granularity) -> LinearOptions<'static> {
        LinearOptions { dtype, symmetric, granularity, range: RangeMethod::MinMax, importance: None, keep: None }
    }

    fn halves(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.iter().map(|x| f16::from_f32(*x)).collect())
    }

    fn error(w: &Tensor, q: &Quantized) -> f64 {
        let squares = w.to_f32().iter().zip(q.decoded()).map(|(a, b)| f64::from(a - b).powi(2)).collect::<Vec<_>>();
        squares.iter().sum()
    }

    const TYPES: [DType; 4] = [DType::I8, DType::U8, DType::I4, DType::U4];

    #[test]
    fn symmetric_ranges_leave_out_one_integer() {
        let w = Tensor::from_vec(&[2, 2], vec![-2.54f32, 1.27, 0.02, 0.0]);
        let of = |dtype| quantize(&w, &options(dtype, true, Granularity::Tensor)).expect("a weight");
        let (signed, unsigned) = (of(DType::I8), of(DType::U8));
        assert_eq!(signed.data.to_i64(), [-127, 64, 1, 0]);
        assert_eq!((signed.scale.to_f32()[0], signed.scale.shape(), signed.offset), (0.02, &[1, 1][..], None));
        assert_eq!(unsigned.data.to_i64(), [0, 191, 128, 127]);
        assert_eq!(unsigned.offset.expect("not 0").to_i64(), [127]);
        assert_eq!(of(DType::I4).data.to_i64(), [-7, 4, 0, 0]);
        assert_eq!(of(DType::U4).data.to_i64(), [0, 11, 7, 7]);
    }

    #[test]
    fn ranges_with_an_offset_hold_zero() {
        let w = Tensor::from_vec(&[2, 3], vec![1.0f32, 2.0, 2.55, -0.75, -0.05, 0.0]);
        let q = quantize(&w, &options(DType::U8, false, Granularity::Channel { axis: 0 })).expect("a weight");
        assert_eq!(q.offset.as_ref().map(Tensor::to_i64), Some(vec![0, 255]));
        assert_eq!(q.data.to_i64()[..3], [100, 200, 255]);
        assert_eq!(q.decoded()[5], 0.0);
    }

    #[test]
    fn blocks_of_zeros_have_scale_1() {
        for (dtype, symmetric) in TYPES.into_iter().flat_map(|d| [(d, false), (d, true)]) {
            let w = halves(&[2, 2], &[0.0, -0.0, 1.0, 1.0]);
            let q = quantize(&w, &options(dtype, symmetric, Granularity::Channel { axis: 0 })).expect("a weight");
            assert_eq!(q.scale.to_f32()[0], 1.0, "{dtype}");
            assert_eq!(q.decoded()[..2], [0.0, 0.0], "{dtype}");
            assert!((q.decoded()[2] - 1.0).abs() < 1e-3, "{dtype}");
        }
    }

    #[test]
    fn the_least_and_the_greatest_halves_decode() {
        for (dtype, symmetric) in TYPES.into_iter().flat_map(|d| [(d, false), (d, true)]) {
            let tiny = halves(&[1, 4], &[6e-8, -6e-8, 1.2e-7, 0.0]);
            let q = quantize(&tiny, &options(dtype, symmetric, Granularity::Tensor)).expect("a weight");
            assert_eq!(q.decoded(), *tiny.to_f32(), "{dtype} {symmetric}");
            let huge = halves(&[1, 4], &[65504.0, -65504.0, 100.0, 0.0]);
            let q = quantize(&huge, &options(dtype, symmetric, Granularity::Tensor)).expect("a weight");
            let step = q.scale.to_f32()[0];
            assert!(step.is_finite(), "{dtype}");
            for (a, b) in huge.to_f32().iter().zip(q.decoded()) {
                assert!((a - b).abs() <= step, "{dtype} {symmetric}: {a} {b}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let w = halves(&[4, 50], &[1.0; 200]);
        let of = |w: &Tensor, o| quantize(w, &o).expect_err("a refusal").to_string();
        let block = Granularity::Block { axis: 1, size: 32, channel: 0 };
        assert_eq!(of(&w, options(DType::I4, true, block)), "32 does not divide the 50 of axis 1; 25 and 50 do");
        assert_eq!(of(&w, options(DType::U6, true, Granularity::Tensor)), "integers of type u6, not i4, u4, i8 or u8");
        let with =
            |importance, keep| LinearOptions { importance, keep, ..options(DType::I8, true, Granularity::Tensor) };
        assert_eq!(of(&w, with(Some(&[1.0]), None)), "1 importances for 200 elements");
        assert_eq!(of(&w, with(None, Some(&[true]))), "1 marks for 200 elements");
        let nan = Tensor::from_vec(&[2], vec![0.0, f32::NAN]);
        assert_eq!(of(&nan, options(DType::I8, true, Granularity::Tensor)), "element 1 is not finite");
        let one = Tensor::from_vec(&[1], vec![1f32]);
        assert_eq!(
            of(&one, LinearOptions { importance: Some(&[-1.0]), ..options(DType::I8, true, Granularity::Tensor) }),
            "the importance of element 0 is negative or not finite"
        );
    }

    #[test]
    fn elements_that_do_not_count_may_be_clipped() {
        let w = halves(&[1, 4], &[100.0, 0.5, -0.25, 0.125]);
        let keep = [false, true, true, true];
        let o = LinearOptions { keep: Some(&keep), ..options(DType::I8, true, Granularity::Tensor) };
        let q = quantize(&w, &o).expect("a weight");
        assert!((q.decoded()[3] - 0.125).abs() < 0.003);
    }

    #[test]
    fn a_search_clips_where_that_pays() {
        let mut values: Vec<f32> = (0..512).map(|i| (i as f32 * 0.7).sin()).collect();
        values[7] = 9.0;
        let w = halves(&[1, 512], &values);
        for (dtype, symmetric) in TYPES.into_iter().flat_map(|d| [(d, false), (d, true)]) {
            let widest = options(dtype, symmetric, Granularity::Tensor);
            let least = LinearOptions { range: RangeMethod::Mse, ..widest.clone() };
            let [widest, least] = [widest, least].map(|o| error(&w, &quantize(&w, &o).expect("a weight")));
            assert!(least <= widest, "{dtype} {symmetric}: {least} {widest}");
            assert!(dtype.bits() == 8 || least < 0.9 * widest, "{dtype} {symmetric}: {least} {widest}");
        }
    }

    #[test]
    fn a_search_heeds_importance() {
        let mut values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
        values[7] = 9.0;
        let w = halves(&[1, 64], &values);
        let mut importance = [1.0; 64];
        let outlier = |importance: &[f32]| {
            let o = LinearOptions {
                range: RangeMethod::Mse,
                importance: Some(importance),
                ..options(DType::I4, true, Granularity::Tensor)
            };
            (quantize(&w, &o).expect("a weight").decoded()[7] - 9.0).abs()
        };
        importance[7] = 0.0;
        assert!(outlier(&importance) > 7.0);
        importance[7] = 1000.0;
        assert!(outlier(&importance) < 0.1);
    }

    proptest! {
        #[test]
        fn codes_decode_within_half_a_step(
            values in prop::collection::vec(-4.0f32..4.0, 96),
            exponent in -20i32..12,
            kind in 0usize..4,
            symmetric: bool,
            half: bool,
            granularity in prop::sample::select(vec![
                Granularity::Tensor,
                Granularity::Channel { axis: 0 },
                Granularity::Channel { axis: 1 },
                Granularity::Channel { axis: 2 },
                Granularity::Block { axis: 1, size: 3, channel: 0 },
                Granularity::Boxes(vec![2, 2, 2]),
            ]),
        ) {
            let scaled: Vec<f32> = values.iter().map(|x| x * 2f32.powi(exponent)).collect();
            let w = if half { halves(&[4, 6, 4], &scaled) } else { Tensor::from_vec(&[4, 6, 4], scaled) };
            let q = quantize(&w, &options(TYPES[kind], symmetric, granularity)).expect("a weight");
            let sizes = w.shape().iter().zip(q.scale.shape()).map(|(n, b)| n / b).collect();
            let blocks = Blocks::new(w.shape(), &Granularity::Boxes(sizes)).expect("as it was quantized");
            let (decoded, scale) = (q.decoded(), q.scale.to_f32().into_owned());
            let pairs: Vec<(f32, f32)> = w.to_f32().iter().copied().zip(decoded).collect();
            let greatest = pairs.iter().fold(0f32, |m, (x, _)| m.max(x.abs()));
            let mut ordered = vec![];
            blocks.take(0..blocks.count(), &pairs, &mut ordered);
            for (i, (x, y)) in ordered.iter().enumerate() {
                let step = scale[i / blocks.len()];
                // The outermost elements lose as much again to the rounding of the scale, and of the zero.
                let rounding = if half { greatest * 2e-3 + 255.0 * 6e-8 } else { greatest * 1e-5 };
                let outer = if symmetric { 0.0 } else { step * 0.5 };
                prop_assert!((x - y).abs() <= step * 0.5 + outer + rounding, "{} {} {}", x, y, step);
            }
        }

        #[test]
        fn a_search_never_loses(
            values in prop::collection::vec(-4.0f32..4.0, 64),
            kind in 0usize..4,
            symmetric: bool,
            half: bool,
        ) {
            let w = if half { halves(&[2, 32], &values) } else { Tensor::from_vec(&[2, 32], values) };
            let widest = options(TYPES[kind], symmetric, Granularity::Channel { axis: 0 });
            let least = LinearOptions { range: RangeMethod::Mse, ..widest.clone() };
            let [widest, least] = [widest, least].map(|o| error(&w, &quantize(&w, &o).expect("a weight")));
            prop_assert!(least <= widest * 1.000_001);
        }
    }
}
