//! Compressed weights in the forms of iOS18: parameters are operands, which other ops of the kind may compute.

use super::compressed::{Rounding, check_mask, dense, each_run, entries, filled, from_raw, raw, scaled, size_of};
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors, mil_name},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Shape, Tensor, TensorType};
use smallvec::smallvec;

/// `scale * (data - offset)`, a scale and an offset per block.
///
/// `scale` has the rank of `data`, and each of its sizes divides that of `data`: the quotients are the sizes of a block.
/// Data and offset are cast to the type of the scale before anything is computed, and so is each result.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "constexpr_blockwise_shift_scale", since = Ios18, constexpr)]
#[domain(SrcT: Ios18 = F16 | F32 | I4 | I8 | U4 | U8)]
#[domain(DstT: Ios18 = F16 | F32)]
#[domain(OffsetT: Ios18 = F16 | F32 | I4 | I8 | U4 | U8)]
pub struct ConstexprBlockwiseShiftScale {
    /// `SrcT[*d]`, of rank 1 or more.
    #[operand(SrcT, constant)]
    pub data: Value,
    /// `DstT[*b]`: each size of `*b` divides that of `*d`.
    #[operand(DstT, constant)]
    pub scale: Value,
    /// `OffsetT[*b]`, of the type of `data` or a float; zero when absent.
    #[operand(OffsetT, constant)]
    pub offset: Option<Value>,
}

impl Semantics for ConstexprBlockwiseShiftScale {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let data = cx.ranked("data", self.data, 1..)?;
        let scale = check_scales(cx, &data.shape, data.dtype, self.scale, self.offset)?;
        cx.result(scale.dtype, data.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let data = cx.tensor(self.data);
        let blocks = Blocks::new(cx, self.scale, self.offset, data.dtype());
        let mut values = entries(data);
        each_run(data.shape(), &blocks.shape, |run, block| {
            if let Some(run) = values.get_mut(run) {
                blocks.scale(run, block);
            }
        });
        Ok(smallvec![dense(cx.out(0), &values)])
    }
}

/// [`ConstexprBlockwiseShiftScale`] of the elements of a tensor that a mask keeps.
///
/// Results: the mask as it was given, and the elements, in row-major order. The blocks are those of the shape of the mask.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "constexpr_sparse_blockwise_shift_scale", since = Ios18, constexpr)]
#[domain(M: Ios18 = U1)]
#[domain(SrcT: Ios18 = F16 | F32 | I4 | I8 | U4 | U8)]
#[domain(DstT: Ios18 = F16 | F32)]
#[domain(OffsetT: Ios18 = F16 | F32 | I4 | I8 | U4 | U8)]
pub struct ConstexprSparseBlockwiseShiftScale {
    /// `u1[*d]`, of rank 1 or more: 1 where there is an element.
    #[operand(M, constant)]
    pub data_mask: Value,
    /// `SrcT[n]`: the elements, in row-major order.
    #[operand(SrcT, constant)]
    pub nonzero_data: Value,
    /// `DstT[*b]`: each size of `*b` divides that of `*d`.
    #[operand(DstT, constant)]
    pub scale: Value,
    /// `OffsetT[*b]`, of the type of the data or a float; zero when absent.
    #[operand(OffsetT, constant)]
    pub offset: Option<Value>,
}

impl Semantics for ConstexprSparseBlockwiseShiftScale {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let mask = cx.ranked("data_mask", self.data_mask, 1..)?;
        let data = cx.ranked("nonzero_data", self.nonzero_data, 1..=1)?;
        let scale = check_scales(cx, &mask.shape, data.dtype, self.scale, self.offset)?;
        let values = cx.fact_of(scale.dtype, data.shape.clone())?;
        Ok(smallvec![cx.fact_of(mask.dtype, mask.shape.clone())?, values])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (mask, data) = (cx.tensor(self.data_mask), cx.tensor(self.nonzero_data));
        let (kept, mut values, mut at) = (raw(mask), entries(data), 0);
        check_mask("data_mask", &kept, data)?;
        let blocks = Blocks::new(cx, self.scale, self.offset, data.dtype());
        each_run(mask.shape(), &blocks.shape, |run, block| {
            let count = kept.get(run).unwrap_or_default().iter().filter(|m| **m != 0).count();
            blocks.scale(&mut values[at..at + count], block);
            at += count;
        });
        Ok(smallvec![mask.clone(), dense(cx.out(1), &values)])
    }
}

/// The type of `scale`; it and `offset` must fit data of `dtype` and shape `data`.
fn check_scales<'a>(
    cx: &InferCx<'a>,
    data: &Shape,
    dtype: DType,
    scale: Value,
    offset: Option<Value>,
) -> Result<&'a TensorType, OpError> {
    let ty = cx.tensor("scale", scale)?;
    if !divides(&ty.shape, data) {
        return Err(cx.operand("scale", scale, format!("sizes that divide {data}")));
    }
    if let Some(v) = offset {
        let offset = cx.tensor("offset", v)?;
        if offset.shape != ty.shape || !(offset.dtype.is_float() || offset.dtype == dtype) {
            return Err(cx.operand("offset", v, format!("{dtype}{}, or floats of that shape", ty.shape)));
        }
    }
    Ok(ty)
}

/// Whether both shapes are known, have one rank, and each size of `blocks` divides that of `shape`.
fn divides(blocks: &[Dim], shape: &[Dim]) -> bool {
    let one = |(b, n): (&Dim, &Dim)| b.as_usize().zip(n.as_usize()).is_some_and(|(b, n)| b > 0 && n % b == 0);
    blocks.len() == shape.len() && blocks.iter().zip(shape).all(one)
}

/// Scales and offsets by block.
struct Blocks {
    shape: Vec<usize>,
    scale: Vec<f32>,
    offset: Option<Vec<f32>>,
    rounding: Rounding,
}

impl Blocks {
    fn new(cx: &EvalCx<'_>, scale: Value, offset: Option<Value>, data: DType) -> Self {
        let (scale, offset) = (cx.tensor(scale), offset.map(|v| cx.tensor(v)));
        let floats = data.is_float() || offset.is_some_and(|o| o.dtype().is_float());
        let rounding = if scale.dtype() == DType::F16 && floats { Rounding::Half } else { Rounding::Single };
        let offset = offset.map(entries);
        Self { shape: scale.shape().to_vec(), scale: scale.to_f32().into_owned(), offset, rounding }
    }

    fn scale(&self, run: &mut [f32], block: usize) {
        let offset = self.offset.as_ref().and_then(|o| o.get(block)).copied().unwrap_or(0.0);
        scaled(run, self.scale.get(block).copied().unwrap_or(0.0), offset, self.rounding);
    }
}

/// The entries of tables that indices point to, a table per block.
///
/// `lut` has two axes more than `indices`: each of the others divides the size of `indices`, the quotients are the sizes of
/// a block. Then come the entries, 2 to the bits of an index, and the elements of an entry. Where an entry has several, they
/// lie one after the other along `vector_axis` of the result, which is longer by that factor.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "constexpr_lut_to_dense", since = Ios18, constexpr)]
#[domain(IndicesT: Ios18 = U1 | U2 | U3 | U4 | U6 | U8)]
#[domain(T: Ios18 = F16 | F32 | I8 | U8)]
pub struct ConstexprLutToDense {
    /// `IndicesT[*d]`, of rank 1 or more.
    #[operand(IndicesT, constant)]
    pub indices: Value,
    /// `T[*b, 2^bits, v]`: each size of `*b` divides that of `*d`.
    #[operand(T, constant)]
    pub lut: Value,
    /// The axis along which the elements of an entry lie, in `-rank..rank`; needed where `v` is not 1.
    #[attr(default = None)]
    pub vector_axis: Option<i64>,
}

impl Semantics for ConstexprLutToDense {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let indices = cx.ranked("indices", self.indices, 1..)?;
        let lut = cx.tensor("lut", self.lut)?;
        let (axis, v) = check_lut(cx, &indices.shape, indices.dtype, self.lut, self.vector_axis)?;
        let mut shape = indices.shape.clone();
        shape.dims_mut()[axis] = &shape[axis] * v;
        cx.result(lut.dtype, shape)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let indices = cx.tensor(self.indices);
        let axis = vector_axis(indices.shape(), self.vector_axis)?;
        let bytes = looked_up(indices.shape(), &raw(indices), cx.tensor(self.lut), axis);
        Ok(smallvec![from_raw(cx.out(0), bytes)?])
    }
}

/// [`ConstexprLutToDense`] of the elements of a tensor that a mask keeps.
///
/// Results: the mask, each bit repeated along `vector_axis` where an entry has several elements; and the elements that it
/// keeps, in row-major order.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "constexpr_lut_to_sparse", since = Ios18, constexpr)]
#[domain(M: Ios18 = U1)]
#[domain(IndicesT: Ios18 = U1 | U2 | U3 | U4 | U6 | U8)]
#[domain(T: Ios18 = F16 | F32 | I8 | U8)]
pub struct ConstexprLutToSparse {
    /// `u1[*d]`, of rank 1 or more: 1 where there is an index.
    #[operand(M, constant)]
    pub indices_mask: Value,
    /// `IndicesT[n]`: the indices, in row-major order.
    #[operand(IndicesT, constant)]
    pub indices_nonzero_data: Value,
    /// `T[*b, 2^bits, v]`: each size of `*b` divides that of `*d`.
    #[operand(T, constant)]
    pub lut: Value,
    /// The axis along which the elements of an entry lie, in `-rank..rank`; needed where `v` is not 1.
    #[attr(default = None)]
    pub vector_axis: Option<i64>,
}

impl Semantics for ConstexprLutToSparse {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let mask = cx.ranked("indices_mask", self.indices_mask, 1..)?;
        let indices = cx.ranked("indices_nonzero_data", self.indices_nonzero_data, 1..=1)?;
        let lut = cx.tensor("lut", self.lut)?;
        let (axis, v) = check_lut(cx, &mask.shape, indices.dtype, self.lut, self.vector_axis)?;
        let mut shape = mask.shape.clone();
        shape.dims_mut()[axis] = &shape[axis] * v;
        Ok(smallvec![cx.fact_of(mask.dtype, shape)?, cx.fact_of(lut.dtype, [&indices.shape[0] * v])?])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (mask, indices, lut) =
            (cx.tensor(self.indices_mask), cx.tensor(self.indices_nonzero_data), cx.tensor(self.lut));
        let kept = raw(mask);
        check_mask("indices_mask", &kept, indices)?;
        let axis = vector_axis(mask.shape(), self.vector_axis)?;
        let spread = filled(indices, kept.iter().copied(), mask.count())?;
        let bytes = looked_up(mask.shape(), &spread, lut, axis);
        let v = lut.shape().last().copied().unwrap_or(1);
        let inner: usize = mask.shape()[axis + 1..].iter().product();
        let rows = kept.chunks(inner.max(1));
        let repeated: Vec<u8> = rows.flat_map(|row| std::iter::repeat_n(row, v).flatten()).copied().collect();
        let elements = bytes.chunks_exact(size_of(lut.dtype())).zip(&repeated).filter(|(_, m)| **m != 0);
        let values = elements.flat_map(|(e, _)| e).copied().collect();
        Ok(smallvec![from_raw(cx.out(0), repeated)?, from_raw(cx.out(1), values)?])
    }
}

/// The vector axis, and how many elements an entry of `lut` has, which must fit indices of `dtype` and shape `indices`.
fn check_lut(
    cx: &InferCx<'_>,
    indices: &Shape,
    dtype: DType,
    lut: Value,
    vector_axis: Option<i64>,
) -> Result<(usize, i64), OpError> {
    let shape = &cx.tensor("lut", lut)?.shape;
    let entries = 1i64 << dtype.bits().min(8);
    let fit = match &shape[..] {
        [blocks @ .., p, v] if divides(blocks, indices) && p.is(entries) => v.as_known().filter(|v| *v >= 1),
        _ => None,
    };
    let Some(v) = fit else {
        let want = format!("sizes that divide {indices}, then {entries} entries of some elements");
        return Err(cx.operand("lut", lut, want));
    };
    match vector_axis {
        Some(axis) => Ok((indices.axis(axis)?.index(), v)),
        None if v == 1 => Ok((indices.rank() - 1, v)),
        None => Err(OpError::Missing { param: "vector_axis" }),
    }
}

/// The vector axis of indices of shape `dims`; any will do where none is given.
fn vector_axis(dims: &[usize], axis: Option<i64>) -> Result<usize, OpError> {
    Ok(Shape::from(dims).axis(axis.unwrap_or(-1))?.index())
}

/// The bytes of the entries of `lut` for `indices`, one byte each, of shape `dims`.
fn looked_up(dims: &[usize], indices: &[u8], lut: &Tensor, axis: usize) -> Vec<u8> {
    let (table, size) = (raw(lut), size_of(lut.dtype()));
    let [blocks @ .., entries, v] = lut.shape() else { return vec![] };
    let inner: usize = dims[axis + 1..].iter().product();
    let mut bytes = vec![0; indices.len() * v * size];
    each_run(dims, blocks, |run, block| {
        for i in run {
            // The elements of an entry lie `inner` places apart.
            let to = (i / inner * inner * v + i % inner) * size;
            let from = (block * entries + usize::from(indices[i])) * v * size;
            for k in 0..*v {
                let (to, from) = (to + k * inner * size, from + k * size);
                bytes[to..to + size].copy_from_slice(&table[from..from + size]);
            }
        }
    });
    bytes
}

/// A tensor of zeros but for the elements where a mask is 1.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "constexpr_sparse_to_dense", since = Ios18, constexpr)]
#[domain(T: Ios18 = F16 | F32 | I4 | I8 | U4 | U8)]
#[domain(M: Ios18 = U1)]
pub struct ConstexprSparseToDense {
    /// `T[n]`: the elements where the mask is 1, in row-major order.
    #[operand(T, constant)]
    pub nonzero_data: Value,
    /// `u1[*d]`, of rank 1 or more: the shape of the result.
    #[operand(M, constant)]
    pub mask: Value,
}

impl Semantics for ConstexprSparseToDense {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let data = cx.ranked("nonzero_data", self.nonzero_data, 1..=1)?;
        let mask = cx.ranked("mask", self.mask, 1..)?;
        cx.result(data.dtype, mask.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (data, mask) = (cx.tensor(self.nonzero_data), raw(cx.tensor(self.mask)));
        check_mask("mask", &mask, data)?;
        let bytes = filled(data, mask.iter().copied(), mask.len())?;
        Ok(smallvec![from_raw(cx.out(0), bytes)?])
    }
}

/// Half precision widened.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "constexpr_cast", since = Ios18, constexpr)]
#[domain(SrcT: Ios18 = F16)]
pub struct ConstexprCast {
    /// `f16[*d]`.
    #[operand(SrcT, constant)]
    pub source_val: Value,
    /// The element type of the result: `fp32`.
    #[attr]
    pub output_dtype: DType,
}

impl Semantics for ConstexprCast {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        infer_cast(cx, self.source_val, self.output_dtype)
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Ok(smallvec![cx.tensor(self.source_val).cast(self.output_dtype)])
    }
}

/// Infers `constexpr_cast` in either form.
pub(super) fn infer_cast(cx: &InferCx<'_>, source_val: Value, to: DType) -> Result<Facts, OpError> {
    let source = cx.tensor("source_val", source_val)?;
    if to != DType::F32 {
        return Err(OpError::Value { param: "output_dtype", found: mil_name(to).to_owned(), want: "fp32".into() });
    }
    cx.result(to, source.shape.clone())
}
