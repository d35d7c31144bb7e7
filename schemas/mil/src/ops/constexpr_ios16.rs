//! Compressed weights in the forms of iOS16: parameters are literals in a file, and chains do not exist.

use super::{
    compressed::{Rounding, check_mask, dense, entries, filled, from_raw, raw, scaled, size_of},
    constexpr::infer_cast,
};
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Shape, unpack_bits};
use smallvec::smallvec;

/// `scale * (quantized_data - zero_point)`.
///
/// Scale and zero point are scalars, or vectors along `axis`. The result has the shape of the data and the element type of
/// the scale.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "constexpr_affine_dequantize", since = Ios16, constexpr)]
#[domain(SrcT: Ios16 = I8 | U8)]
#[domain(ZeroPointT: Ios16 = F32 | I8 | U8)]
#[domain(DstT: Ios16 = F16 | F32)]
pub struct ConstexprAffineDequantize {
    /// `SrcT[*d]`, of rank 1 or more.
    #[operand(SrcT, constant)]
    pub quantized_data: Value,
    /// `ZeroPointT[]` or `ZeroPointT[d_axis]`.
    #[operand(ZeroPointT, constant)]
    pub zero_point: Value,
    /// `DstT[]` or `DstT[d_axis]`.
    #[operand(DstT, constant)]
    pub scale: Value,
    /// The axis of the vectors, in `-rank..rank`.
    #[attr]
    pub axis: i64,
}

impl Semantics for ConstexprAffineDequantize {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let data = cx.tensor("quantized_data", self.quantized_data)?;
        let size = &data.shape[data.shape.axis(self.axis)?.index()];
        let scale = cx.ranked("scale", self.scale, 0..=1)?;
        let zero_point = cx.ranked("zero_point", self.zero_point, 0..=1)?;
        for (param, v, ty) in [("scale", self.scale, scale), ("zero_point", self.zero_point, zero_point)] {
            if ty.shape.first().is_some_and(|n| n != size) {
                return Err(cx.operand(param, v, format!("a scalar, or a vector of {size} elements")));
            }
        }
        cx.result(scale.dtype, data.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let data = cx.tensor(self.quantized_data);
        let axis = Shape::from(data.shape()).axis(self.axis)?.index();
        let (scale, zero_point) = (cx.tensor(self.scale).to_f32(), cx.tensor(self.zero_point).to_f32());
        let inner: usize = data.shape()[axis + 1..].iter().product();
        let at = |values: &[f32], k: usize| values.get(if values.len() == 1 { 0 } else { k }).copied().unwrap_or(0.0);
        let mut values = entries(data);
        // The difference is taken in single precision, whatever the scale is.
        for (row, run) in values.chunks_mut(inner.max(1)).enumerate() {
            let k = row % data.shape()[axis].max(1);
            scaled(run, at(&scale, k), at(&zero_point, k), Rounding::Single);
        }
        Ok(smallvec![dense(cx.out(0), &values)])
    }
}

/// The entries of a table that packed indices point to.
///
/// An index has `log2` of the table's length bits; indices are packed without gaps, least significant bit first.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "constexpr_lut_to_dense", since = Ios16, until = Ios18, constexpr)]
#[domain(B: Ios16 = U8)]
#[domain(T: Ios16 = F16 | F32 | I8 | U8)]
#[domain(S: Ios16 = U32)]
pub struct ConstexprPackedLutToDense {
    /// `u8[m]`: the packed indices, as many bytes as hold them.
    #[operand(B, constant)]
    pub indices: Value,
    /// `T[p]`: the table, of 2, 4, 16, 64 or 256 entries.
    #[operand(T, constant)]
    pub lut: Value,
    /// `u32[k]`: the shape of the result.
    #[operand(S, constant)]
    pub shape: Value,
}

impl Semantics for ConstexprPackedLutToDense {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let lut = cx.ranked("lut", self.lut, 1..=1)?;
        let bits = match lut.shape[0].as_known() {
            Some(n @ (2 | 4 | 16 | 64 | 256)) => n.trailing_zeros(),
            _ => return Err(cx.operand("lut", self.lut, "a vector of 2, 4, 16, 64 or 256 entries")),
        };
        let shape = stated_shape(cx, self.shape)?;
        packed(cx, "indices", self.indices, &shape, bits)?;
        cx.result(lut.dtype, shape)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (lut, packed) = (cx.tensor(self.lut), cx.tensor(self.indices).blob().read());
        let (table, size) = (raw(lut), size_of(lut.dtype()));
        let mut bytes = Vec::with_capacity(cx.out(0).count() * size);
        for index in unpack_bits(&packed, lut.count().trailing_zeros(), cx.out(0).count()) {
            let at = usize::from(index) * size;
            bytes.extend_from_slice(&table[at..at + size]);
        }
        Ok(smallvec![from_raw(cx.out(0), bytes)?])
    }
}

/// A tensor of zeros but for the elements whose bits in a mask are set.
///
/// The mask has one bit per element, packed least significant bit first; bits beyond the last element are 0.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "constexpr_sparse_to_dense", since = Ios16, until = Ios18, constexpr)]
#[domain(T: Ios16 = F16 | F32 | I8 | U8)]
#[domain(B: Ios16 = U8)]
#[domain(S: Ios16 = U32)]
pub struct ConstexprPackedSparseToDense {
    /// `T[n]`: the elements whose bits are set, in row-major order.
    #[operand(T, constant)]
    pub nonzero_data: Value,
    /// `u8[m]`: the packed mask.
    #[operand(B, constant)]
    pub mask: Value,
    /// `u32[k]`: the shape of the result.
    #[operand(S, constant)]
    pub shape: Value,
}

impl Semantics for ConstexprPackedSparseToDense {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let data = cx.ranked("nonzero_data", self.nonzero_data, 1..=1)?;
        let shape = stated_shape(cx, self.shape)?;
        packed(cx, "mask", self.mask, &shape, 1)?;
        cx.result(data.dtype, shape)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (data, mask) = (cx.tensor(self.nonzero_data), cx.tensor(self.mask).blob().read());
        let count = cx.out(0).count();
        // Bits beyond the last element keep nothing, and their presence shows that the mask is not what it should be.
        let all: usize = mask.iter().map(|b| b.count_ones() as usize).sum();
        let kept: Vec<u8> = unpack_bits(&mask, 1, count).collect();
        check_mask("mask", &kept, data)?;
        if all != data.count() {
            let (found, want) = ("bits set beyond the last element".to_owned(), "none".into());
            return Err(OpError::Value { param: "mask", found, want });
        }
        Ok(smallvec![from_raw(cx.out(0), filled(data, kept.into_iter(), count)?)?])
    }
}

/// The shape that a constant operand holds.
fn stated_shape(cx: &InferCx<'_>, v: Value) -> Result<Shape, OpError> {
    cx.ranked("shape", v, 1..=1)?;
    Ok(cx.require_ints("shape", v)?.into_iter().map(Dim::from).collect())
}

/// Refuses operand `param` unless it has as many bytes as `bits` bits per element of `shape` take.
fn packed(cx: &InferCx<'_>, param: &'static str, v: Value, shape: &Shape, bits: u32) -> Result<(), OpError> {
    let want = (shape.count() * i64::from(bits)).div_ceil(&Dim::from(8));
    if cx.ranked(param, v, 1..=1)?.shape[0] == want {
        return Ok(());
    }
    Err(cx.operand(param, v, format!("{want} bytes, which hold {bits} bits per element of {shape}")))
}

/// Half precision widened.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "constexpr_cast", since = Ios16, until = Ios18, constexpr)]
#[domain(SrcT: Ios16 = F16)]
pub struct ConstexprCastIos16 {
    /// `f16[*d]`.
    #[operand(SrcT, constant)]
    pub source_val: Value,
    /// The element type of the result: `fp32`.
    #[attr]
    pub output_dtype: DType,
}

impl Semantics for ConstexprCastIos16 {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        infer_cast(cx, self.source_val, self.output_dtype)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(smallvec![cx.tensor(self.source_val).cast(self.output_dtype)])
    }
}
