//! Weights of few bits with a scale for each block, which Core ML decodes in the same way.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops, schema::Opset};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::{Blob, Bytes, DType, Tensor, pack_bits, unpack_bits};

rows! {
    #["com.microsoft"] "GatherBlockQuantized" 1..=LATEST => gather_block_quantized;
    #["com.microsoft"] "MatMulNBits" 1..=LATEST => matmul_nbits;
}

type Result<T> = std::result::Result<T, LowerError>;

/// Sizes beyond which a weight is refused: products of them are still far from overflowing.
const MAX_SIZE: i64 = 1 << 31;

/// A matrix whose rows are cut into blocks.
struct Matrix {
    /// `[rows, blocks * block]`, of 4 or 8 bits.
    codes: Tensor,
    /// `[rows, blocks]`.
    scales: Tensor,
    /// `[rows, blocks]`, of the type of the codes or a float.
    zeros: Option<Tensor>,
}

fn matmul_nbits(n: &mut Lower<'_>) -> Lowered {
    n.ignore("accuracy_level");
    if n.int_or("weight_prepacked", 0)? != 0 {
        return n.bad_attr("weight_prepacked", "0, weights as the operator defines them");
    }
    let (inputs, outputs) = (size(n, "K")?, size(n, "N")?);
    let (bits, block) = (bits(n)?, block(n, None)?);
    let blocks = inputs.div_ceil(block);
    let (x, bias) = (n.input(0)?, n.optional(5)?);
    let packed = required(n, 1)?;
    // Both factors are below 2^31.
    let codes = codes(&packed, bits, [outputs, blocks * block])?;
    let scales = floats(required(n, 2)?, "scales", [outputs, blocks])?;
    let zeros = match given(n, 3)? {
        None => middle(n, bits, codes.dtype(), [outputs, blocks])?,
        Some(t) if t.dtype().is_float() => floats(t, "zero points", [outputs, blocks])?,
        Some(t) => packed_zeros(&t, bits, codes.dtype(), [outputs, blocks])?,
    };
    if let Some(groups) = given(n, 4)? {
        let own = groups.to_i64();
        let apart = |(i, group): (usize, &i64)| i < inputs && usize::try_from(*group) != Ok(i / block);
        if own.len() < inputs || own.iter().enumerate().any(apart) {
            return Err(LowerError::not_yet("an order of groups (`g_idx`) other than that of the weights"));
        }
    }
    if n.shape(x)?.last().is_none_or(|d| d.as_known().is_some_and(|d| d != inputs as i64)) {
        return n.bad_attr("K", format!("the last size of {}", n.ty(x)?));
    }
    let weight = decoded(n, &Matrix { codes, scales, zeros: Some(zeros) }, inputs)?;
    let rank = n.rank(x)?;
    let mut pad = vec![0; 2 * rank];
    if let (Some(last), Some(have)) = (pad.last_mut(), n.shape(weight)?[1].as_known()) {
        // The last block reaches over the end: what it has there meets zeros.
        *last = have - inputs as i64;
    }
    let x = n.pad(x, &pad, 0.0)?;
    let fused = bias.filter(|b| n.const_of(*b).is_some_and(|t| t.shape() == [outputs]));
    let mut y = if rank <= 3 {
        n.op(ops::Linear { x, weight, bias: fused })?
    } else {
        n.op(ops::Matmul { x, y: weight, transpose_x: false, transpose_y: true })?
    };
    if let Some(bias) = bias.filter(|b| rank > 3 || fused != Some(*b)) {
        y = n.add(y, bias)?;
    }
    n.done(y)
}

fn gather_block_quantized(n: &mut Lower<'_>) -> Lowered {
    let (data, indices) = (required(n, 0)?, n.input(1)?);
    let rank = data.shape().len() as i64;
    let (gathered, cut) = (n.int_or("gather_axis", 0)?, n.int_or("quantize_axis", 1)?);
    if rank != 2 || ![0, -2].contains(&gathered) || ![1, -1].contains(&cut) {
        return Err(LowerError::form("anything but rows of a matrix that are cut into blocks"));
    }
    let (bits, block) = (bits(n)?, block(n, Some(128))?);
    let whole = [DType::I4, DType::U4].contains(&data.dtype());
    if whole && bits != 4 {
        return n.bad_attr("bits", format!("4 for {}", data.dtype()));
    }
    let (rows, width) = (data.shape()[0], data.shape()[1]);
    let size = if whole { Some(width) } else { width.checked_mul(8 / bits as usize) };
    let Some(size) = size.filter(|s| *s > 0 && (s.is_multiple_of(block) || *s < block)) else {
        return n.bad_attr("block_size", "a divisor of the length of a row");
    };
    let blocks = size.div_ceil(block);
    let codes = if whole { data } else { codes(&data, bits, [rows, size])? };
    let scales = floats(required(n, 2)?, "scales", [rows, blocks])?;
    let zeros = match given(n, 3)? {
        Some(t) if whole => Some(fitting(t, "zero points", codes.dtype(), [rows, blocks])?),
        Some(t) => Some(packed_zeros(&t, bits, codes.dtype(), [rows, blocks])?),
        None if whole => None,
        None => Some(middle(n, bits, codes.dtype(), [rows, blocks])?),
    };
    let table = decoded(n, &Matrix { codes, scales, zeros }, size)?;
    let y = n.gather(table, indices, 0)?;
    n.done(y)
}

/// A positive size that an attribute says.
fn size(n: &Lower<'_>, name: &'static str) -> Result<usize> {
    match n.int(name)? {
        Some(size) if (1..MAX_SIZE).contains(&size) => Ok(size as usize),
        Some(_) => n.bad_attr(name, "at least 1"),
        None => Err(LowerError::MissingAttr { name }),
    }
}

fn bits(n: &Lower<'_>) -> Result<u32> {
    match n.int_or("bits", 4)? {
        bits @ (2 | 4 | 8) => Ok(bits as u32),
        _ => n.bad_attr("bits", "2, 4 or 8"),
    }
}

fn block(n: &Lower<'_>, default: Option<i64>) -> Result<usize> {
    match n.int("block_size")?.or(default) {
        Some(block) if (16..MAX_SIZE).contains(&block) && block & (block - 1) == 0 => Ok(block as usize),
        Some(_) => n.bad_attr("block_size", "a power of 2 of at least 16"),
        None => Err(LowerError::MissingAttr { name: "block_size" }),
    }
}

/// The constant that input `index` is, where it is there.
fn given(n: &mut Lower<'_>, index: usize) -> Result<Option<Tensor>> {
    match n.constant(index)? {
        None if n.optional(index)?.is_some() => Err(LowerError::NotConstant { index }),
        t => Ok(t),
    }
}

fn required(n: &mut Lower<'_>, index: usize) -> Result<Tensor> {
    given(n, index)?.ok_or(LowerError::MissingInput { index })
}

/// `t` as a matrix of these sizes; files have it flat as well.
fn fitting(t: Tensor, what: &str, dtype: DType, shape: [usize; 2]) -> Result<Tensor> {
    let [rows, columns] = shape;
    if rows.checked_mul(columns) != Some(t.count()) || t.dtype() != dtype {
        let found = format!("{what} of {}{:?}", t.dtype(), t.shape());
        return Err(LowerError::form(format!("{found}, wanted {dtype}[{rows}, {columns}],")));
    }
    Ok(t.reshape(&shape))
}

/// Floats of a type that Core ML has.
fn floats(t: Tensor, what: &str, shape: [usize; 2]) -> Result<Tensor> {
    let dtype = if t.dtype() == DType::F16 { DType::F16 } else { DType::F32 };
    let t = if t.dtype() == DType::Bf16 { t.cast(dtype) } else { t };
    fitting(t, what, dtype, shape)
}

/// The codes that lie in the bytes of `packed`, in the least type that Core ML decodes. Those of 4 and 8 bits lie there as
/// Core ML has them, and stay in the file.
fn codes(packed: &Tensor, bits: u32, [rows, columns]: [usize; 2]) -> Result<Tensor> {
    let count = rows.checked_mul(columns).ok_or(LowerError::TooLarge)?;
    let packed = fitting(packed.clone(), "packed weights", DType::U8, [rows, columns * bits as usize / 8])?;
    let (dtype, blob) = match bits {
        8 => (DType::U8, packed.blob().clone()),
        4 => (DType::U4, packed.blob().clone()),
        _ => (DType::U4, packed_as(unpack_bits(&packed.blob().read(), bits, count), DType::U4)),
    };
    Tensor::new(dtype, &[rows, columns], blob).map_err(|e| LowerError::form(e.to_string()))
}

fn packed_as(values: impl Iterator<Item = u8>, dtype: DType) -> Blob {
    Bytes::from(pack_bits(values, dtype.bits())).into()
}

/// Zero points that are packed row by row.
fn packed_zeros(packed: &Tensor, bits: u32, dtype: DType, [rows, blocks]: [usize; 2]) -> Result<Tensor> {
    let row = (blocks * bits as usize).div_ceil(8);
    let packed = fitting(packed.clone(), "packed zero points", DType::U8, [rows, row])?;
    let bytes = packed.blob().read();
    let values = bytes.chunks(row).flat_map(|row| unpack_bits(row, bits, blocks));
    Tensor::new(dtype, &[rows, blocks], packed_as(values, dtype)).map_err(|e| LowerError::form(e.to_string()))
}

/// The zero points where the file has none: the middle of the codes.
fn middle(n: &Lower<'_>, bits: u32, dtype: DType, [rows, blocks]: [usize; 2]) -> Result<Tensor> {
    // There are as many scales, so the file holds more than this.
    let count = rows.checked_mul(blocks).ok_or(LowerError::TooLarge)?;
    n.affords(count)?;
    let values = std::iter::repeat_n(1 << (bits - 1), count);
    Tensor::new(dtype, &[rows, blocks], packed_as(values, dtype)).map_err(|e| LowerError::form(e.to_string()))
}

/// The matrix as a value: one that Core ML decodes, with all columns of its blocks; before iOS 18, its first `columns`.
fn decoded(n: &mut Lower<'_>, matrix: &Matrix, columns: usize) -> Result<Value> {
    if n.opset() < Opset::Ios18 {
        return dense(n, matrix, columns);
    }
    let mut value = |t: &Tensor| n.op(ops::Const { val: t.clone() });
    let (data, scale) = (value(&matrix.codes)?, value(&matrix.scales)?);
    let offset = matrix.zeros.as_ref().map(value).transpose()?;
    n.op(ops::ConstexprBlockwiseShiftScale { data, scale, offset })
}

fn dense(n: &mut Lower<'_>, matrix: &Matrix, columns: usize) -> Result<Value> {
    let (rows, width) = (matrix.codes.shape()[0], matrix.codes.shape()[1]);
    let blocks = matrix.scales.shape()[1].max(1);
    let too_large = || {
        let what = "weights of few bits, which before iOS 18 come to more than memory holds,";
        LowerError::form_but(what, "convert for iOS 18 or later, as with `--target ios18`")
    };
    let count = rows.checked_mul(columns).ok_or_else(too_large)?;
    n.affords(count).map_err(|_| too_large())?;
    let block = width.div_ceil(blocks).max(1);
    let (scales, zeros) = (matrix.scales.to_f32(), matrix.zeros.as_ref().map(|z| z.cast(DType::F32)));
    let zeros = zeros.as_ref().map(Tensor::to_f32);
    let mut values = Vec::with_capacity(count);
    for row in 0..rows {
        let codes = matrix.codes.rows(row..row + 1).ok_or_else(|| LowerError::form("rows of half a byte"))?;
        for (i, code) in codes.to_i64().iter().take(columns).enumerate() {
            let at = row * blocks + i / block;
            let zero = zeros.as_ref().and_then(|z| z.get(at)).copied().unwrap_or(0.0);
            values.push((*code as f32 - zero) * scales.get(at).copied().unwrap_or(0.0));
        }
    }
    n.add_const(Tensor::from_vec(&[rows, columns], values).cast(matrix.scales.dtype()))
}
