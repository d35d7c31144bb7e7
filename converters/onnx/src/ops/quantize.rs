//! Quantized numbers. Programs compute with them as 32-bit integers, so that nothing is lost between operators.

use super::convolution::{channels_behind, channels_second, convolved};
use crate::{LATEST, tensor};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered, layers::linear::product};
use mlconv_tensor::DType;

rows! {
    "QuantizeLinear" 10..=LATEST => quantize;
    "DequantizeLinear" 10..=LATEST => dequantize;
    "DynamicQuantizeLinear" 11..=LATEST => dynamic_quantize;
    "MatMulInteger" 10..=LATEST => matmul_integer;
    "QLinearMatMul" 10..=LATEST => q_linear_matmul;
    "ConvInteger" 10..=LATEST => conv_integer;
    "QLinearConv" 10..=LATEST => |n| q_linear_conv(n, false);
    #["com.microsoft"] "DequantizeLinear" 1..=LATEST => dequantize;
    #["com.microsoft"] "DynamicQuantizeMatMul" 1..=LATEST => dynamic_quantize_matmul;
    #["com.microsoft"] "MatMulIntegerToFloat" 1..=LATEST => matmul_integer_to_float;
    #["com.microsoft"] "QGemm" 1..=LATEST => q_gemm;
    #["com.microsoft"] "QLinearConv" 1..=LATEST => |n| { let last = n.flag("channels_last", false)?; q_linear_conv(n, last) };
    #["com.microsoft"] "QuantizeLinear" 1..=LATEST => quantize;
}

type Result<T> = std::result::Result<T, LowerError>;

/// The least and greatest number of a quantized type.
fn bounds(dtype: DType) -> Result<(f64, f64)> {
    match dtype.int_range() {
        Some((lo, hi)) if dtype != DType::Bool && hi < 1 << 31 => Ok((lo as f64, hi as f64)),
        _ => Err(LowerError::core_ml(format!("quantizing to {dtype}"))),
    }
}

/// `scale` or a zero point, of one number or one per place along an axis or per block, in the shape that goes with `x`.
fn spread(n: &mut Lower<'_>, x: Value, v: Value, axis: i64, block: i64) -> Result<Value> {
    let (rank, own) = (n.rank(x)?, n.rank(v)?);
    if own == 0 {
        return Ok(v);
    }
    if n.shape(v)?.count().is(1) {
        return n.as_scalar(v);
    }
    let axis = n.axis(x, axis)?;
    if block > 0 {
        let times = vec![v; usize::try_from(block).ok().filter(|b| *b <= 65536).ok_or(LowerError::Poisoned)?];
        // Each element stands for a block: repeat it along the axis.
        let wide = n.op(ops::Stack { values: times, axis: axis as i64 + 1 })?;
        let wide = n.merge_axes(wide, axis, axis + 2)?;
        return match n.shape(x)?[axis].as_known() {
            Some(size) => n.slice(wide, axis, 0, Some(size)),
            None => Ok(wide),
        };
    }
    if own == 1 {
        let others: Vec<i64> = (0..rank as i64).filter(|i| *i != axis as i64).collect();
        return n.expand_dims(v, &others);
    }
    Ok(v)
}

fn quantize(n: &mut Lower<'_>) -> Lowered {
    let (axis, block) = (n.int_or("axis", 1)?, n.int_or("block_size", 0)?);
    n.ignore("saturate");
    n.ignore("precision");
    let asked = n.int_or("output_dtype", 0)?;
    let asked = i32::try_from(asked).ok().filter(|c| *c != 0).and_then(tensor::dtype);
    let dtype = n.source_dtype(2).or(asked).or(n.stated_output(0).map(|t| t.dtype)).unwrap_or(DType::U8);
    let (x, scale, zero) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    n.makes(dtype);
    let y = quantized(n, x, scale, zero, dtype, axis, block)?;
    n.done(y)
}

pub(super) fn quantized(
    n: &mut Lower<'_>,
    x: Value,
    scale: Value,
    zero: Option<Value>,
    dtype: DType,
    axis: i64,
    block: i64,
) -> Result<Value> {
    let (lo, hi) = bounds(dtype)?;
    let (x, scale) = (n.cast(x, DType::F32)?, n.cast(scale, DType::F32)?);
    let scale = spread(n, x, scale, axis, block)?;
    let y = n.div(x, scale)?;
    let mut y = n.op(ops::Round { x: y })?;
    if let Some(zero) = zero {
        let zero = n.cast(zero, DType::F32)?;
        let zero = spread(n, x, zero, axis, block)?;
        y = n.add(y, zero)?;
    }
    let y = n.op(ops::Clip { x: y, alpha: lo as f32, beta: hi as f32 })?;
    n.cast(y, DType::I32)
}

fn dequantize(n: &mut Lower<'_>) -> Lowered {
    let (axis, block) = (n.int_or("axis", 1)?, n.int_or("block_size", 0)?);
    let asked = i32::try_from(n.int_or("output_dtype", 0)?).ok().filter(|c| *c != 0).and_then(tensor::dtype);
    let (x, scale, zero) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    let to = match asked {
        None => n.dtype(scale)?,
        Some(DType::F16) => DType::F16,
        Some(d) if d.is_float() => DType::F32,
        Some(_) => return n.bad_attr("output_dtype", "a float type"),
    };
    let y = dequantized(n, x, scale, zero, axis, block)?;
    let y = n.cast(y, to)?;
    n.done(y)
}

pub(super) fn dequantized(
    n: &mut Lower<'_>,
    x: Value,
    scale: Value,
    zero: Option<Value>,
    axis: i64,
    block: i64,
) -> Result<Value> {
    let float = n.cast(x, DType::F32)?;
    let y = centered(n, float, zero, axis, block)?;
    let scale = n.cast(scale, DType::F32)?;
    let scale = spread(n, x, scale, axis, block)?;
    n.mul(y, scale)
}

/// `x`, in floats, less its zero point.
fn centered(n: &mut Lower<'_>, x: Value, zero: Option<Value>, axis: i64, block: i64) -> Result<Value> {
    let Some(zero) = zero else { return Ok(x) };
    let zero = n.cast(zero, DType::F32)?;
    let zero = spread(n, x, zero, axis, block)?;
    n.sub(x, zero)
}

fn dynamic_quantize(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    n.makes(DType::U8);
    Ok(dynamically_quantized(n, x)?.map(Entry::Value).to_vec())
}

/// `x` in 8 bits, and the scale and zero point that its range asks for.
fn dynamically_quantized(n: &mut Lower<'_>, x: Value) -> Result<[Value; 3]> {
    let flat = n.reshape_to(x, &[-1])?;
    let (axes, keep_dims) = (Some(vec![0]), false);
    let (least, most) = (
        n.op(ops::ReduceMin { x: flat, axes: axes.clone(), keep_dims })?,
        n.op(ops::ReduceMax { x: flat, axes, keep_dims })?,
    );
    let none = n.scalar_like(x, 0.0)?;
    let (least, most) = (n.minimum(least, none)?, n.maximum(most, none)?);
    let span = n.sub(most, least)?;
    let divisor = n.scalar_like(span, 255.0)?;
    let scale = n.div(span, divisor)?;
    // Of zeros alone the scale would be 0, which nothing can be divided by.
    let one = n.scalar_like(scale, 1.0)?;
    let empty = n.equal(scale, none)?;
    let by = n.select(empty, one, scale)?;
    let negative = n.scale(least, -1.0)?;
    let zero = n.div(negative, by)?;
    let zero = n.op(ops::Clip { x: zero, alpha: 0.0, beta: 255.0 })?;
    let zero = n.op(ops::Round { x: zero })?;
    let zero = n.cast(zero, DType::I32)?;
    let y = quantized(n, x, by, Some(zero), DType::U8, 0, 0)?;
    Ok([y, scale, zero])
}

/// A zero point of the rows or columns of a matrix, in the shape that goes with it.
fn zero_of_matrix(n: &mut Lower<'_>, zero: Option<Value>, rows: bool) -> Result<Option<Value>> {
    let Some(zero) = zero else { return Ok(None) };
    if rows && n.rank(zero)? == 1 && !n.shape(zero)?.count().is(1) {
        return n.expand_dims(zero, &[1]).map(Some);
    }
    if n.shape(zero)?.count().is(1) { n.as_scalar(zero).map(Some) } else { Ok(Some(zero)) }
}

fn less_zero(n: &mut Lower<'_>, x: Value, zero: Option<Value>) -> Result<Value> {
    let x = n.cast(x, DType::F32)?;
    let Some(zero) = zero else { return Ok(x) };
    let zero = n.cast(zero, DType::F32)?;
    n.sub(x, zero)
}

fn matmul_integer(n: &mut Lower<'_>) -> Lowered {
    let (a, b, a_zero, b_zero) = (n.input(0)?, n.input(1)?, n.optional(2)?, n.optional(3)?);
    let (a_zero, b_zero) = (zero_of_matrix(n, a_zero, true)?, zero_of_matrix(n, b_zero, false)?);
    let (a, b) = (less_zero(n, a, a_zero)?, less_zero(n, b, b_zero)?);
    let y = product(n, a, b)?;
    let y = n.cast(y, DType::I32)?;
    n.done(y)
}

fn q_linear_matmul(n: &mut Lower<'_>) -> Lowered {
    let dtype = n.source_dtype(7).or(n.stated_output(0).map(|t| t.dtype)).unwrap_or(DType::U8);
    let (a, a_scale, a_zero) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (b, b_scale, b_zero) = (n.input(3)?, n.input(4)?, n.input(5)?);
    let (scale, zero) = (n.input(6)?, n.input(7)?);
    let shaped = |n: &mut Lower<'_>, v: Value, rows: bool| {
        let v = n.cast(v, DType::F32)?;
        zero_of_matrix(n, Some(v), rows)?.ok_or(LowerError::Poisoned)
    };
    let (a_zero, b_zero) = (shaped(n, a_zero, true)?, shaped(n, b_zero, false)?);
    let (a_scale, b_scale) = (shaped(n, a_scale, true)?, shaped(n, b_scale, false)?);
    let (scale, zero) = (shaped(n, scale, true)?, shaped(n, zero, true)?);
    let (a, b) = (less_zero(n, a, Some(a_zero))?, less_zero(n, b, Some(b_zero))?);
    let sum = product(n, a, b)?;
    let by = n.mul(a_scale, b_scale)?;
    let by = n.div(by, scale)?;
    let y = n.mul(sum, by)?;
    let y = n.op(ops::Round { x: y })?;
    let y = n.add(y, zero)?;
    let (lo, hi) = bounds(dtype)?;
    let y = n.op(ops::Clip { x: y, alpha: lo as f32, beta: hi as f32 })?;
    let y = n.cast(y, DType::I32)?;
    n.done(y)
}

/// The product of matrices, the first with one scale and zero point, the second with those of the whole or of each column,
/// in single precision.
pub(super) fn scaled_product(
    n: &mut Lower<'_>,
    (a, a_scale, a_zero): (Value, Value, Option<Value>),
    (b, b_scale, b_zero): (Value, Value, Option<Value>),
) -> Result<Value> {
    let (a_scale, a_zero) = (n.as_scalar(a_scale)?, a_zero.map(|z| n.as_scalar(z)).transpose()?);
    let b_scale = of_columns(n, b, b_scale)?;
    let b_zero = b_zero.map(|z| of_columns(n, b, z)).transpose()?;
    let (a, b) = (less_zero(n, a, a_zero)?, less_zero(n, b, b_zero)?);
    let sums = product(n, a, b)?;
    let (a_scale, b_scale) = (n.cast(a_scale, DType::F32)?, n.cast(b_scale, DType::F32)?);
    let by = n.mul(a_scale, b_scale)?;
    n.mul(sums, by)
}

/// `v`, one number or one for each column of `matrix`, in the shape that goes with it.
fn of_columns(n: &mut Lower<'_>, matrix: Value, v: Value) -> Result<Value> {
    let (shape, own) = (n.shape(matrix)?, n.shape(v)?);
    if own.count().is(1) {
        return n.as_scalar(v);
    }
    match (own.rank(), own.last(), shape.last()) {
        (1.., Some(have), Some(want)) if have.may_equal(want) && own.iter().rev().skip(1).all(|d| d.is(1)) => {
            n.reshape_to(v, &[-1])
        }
        _ => Err(LowerError::form(format!("scales or zero points of {} for {}", n.ty(v)?, n.ty(matrix)?))),
    }
}

fn matmul_integer_to_float(n: &mut Lower<'_>) -> Lowered {
    let (a, b, a_scale, b_scale) = (n.input(0)?, n.input(1)?, n.input(2)?, n.input(3)?);
    let (a_zero, b_zero, bias) = (n.optional(4)?, n.optional(5)?, n.optional(6)?);
    let dtype = n.dtype(a_scale)?;
    let y = scaled_product(n, (a, a_scale, a_zero), (b, b_scale, b_zero))?;
    biased(n, y, bias, dtype)
}

fn dynamic_quantize_matmul(n: &mut Lower<'_>) -> Lowered {
    let (x, b, b_scale, b_zero, bias) = (n.input(0)?, n.input(1)?, n.input(2)?, n.optional(3)?, n.optional(4)?);
    let dtype = n.dtype(x)?;
    let [a, a_scale, a_zero] = dynamically_quantized(n, x)?;
    let y = scaled_product(n, (a, a_scale, Some(a_zero)), (b, b_scale, b_zero))?;
    biased(n, y, bias, dtype)
}

fn biased(n: &mut Lower<'_>, y: Value, bias: Option<Value>, dtype: DType) -> Lowered {
    let y = n.cast(y, dtype)?;
    match bias {
        Some(bias) => n.emit(ops::Add { x: y, y: bias }),
        None => n.done(y),
    }
}

fn q_gemm(n: &mut Lower<'_>) -> Lowered {
    let (a, a_scale, a_zero) = (n.input(0)?, n.input(1)?, n.optional(2)?);
    let (b, b_scale, b_zero) = (n.input(3)?, n.input(4)?, n.optional(5)?);
    let (c, scale, zero) = (n.optional(6)?, n.optional(7)?, n.optional(8)?);
    let (transpose_a, transpose_b) = (n.flag("transA", false)?, n.flag("transB", false)?);
    let alpha = n.float_or("alpha", 1.0)?;
    if n.rank(a)? != 2 || n.rank(b)? != 2 {
        return Err(LowerError::form(format!("a product of {} and {}", n.ty(a)?, n.ty(b)?)));
    }
    let a = if transpose_a { n.transpose(a, &[1, 0])? } else { a };
    let b = if transpose_b { n.transpose(b, &[1, 0])? } else { b };
    let (a_scale, a_zero) = (n.as_scalar(a_scale)?, a_zero.map(|z| n.as_scalar(z)).transpose()?);
    let b_scale = of_columns(n, b, b_scale)?;
    let b_zero = b_zero.map(|z| of_columns(n, b, z)).transpose()?;
    let (a, b) = (less_zero(n, a, a_zero)?, less_zero(n, b, b_zero)?);
    let mut sums = product(n, a, b)?;
    if let Some(c) = c {
        // It is in units of the sums.
        let c = n.cast(c, DType::F32)?;
        sums = n.add(sums, c)?;
    }
    let (a_scale, b_scale) = (n.cast(a_scale, DType::F32)?, n.cast(b_scale, DType::F32)?);
    let by = n.mul(a_scale, b_scale)?;
    let by = n.scale(by, alpha.into())?;
    let y = n.mul(sums, by)?;
    let (scale, zero) = match (scale, zero) {
        (Some(scale), Some(zero)) => (scale, zero),
        (None, None) => return n.done(y),
        // The operator does not say whether the result is quantized then.
        (Some(_), None) => return Err(LowerError::MissingInput { index: 8 }),
        (None, Some(_)) => return Err(LowerError::MissingInput { index: 7 }),
    };
    let (scale, zero) = (n.as_scalar(scale)?, Some(n.as_scalar(zero)?));
    let dtype = n.source_dtype(8).or(n.stated_output(0).map(|t| t.dtype)).unwrap_or(DType::U8);
    n.makes(dtype);
    let y = quantized(n, y, scale, zero, dtype, 0, 0)?;
    n.done(y)
}

/// A number per output channel, in the shape of weights of rank `rank` or, with the channels second, of the result.
fn per_channel(n: &mut Lower<'_>, v: Value, rank: usize, second: bool) -> Result<Value> {
    let v = n.cast(v, DType::F32)?;
    if n.shape(v)?.count().is(1) {
        return n.as_scalar(v);
    }
    if rank <= usize::from(second) {
        return Err(LowerError::form(format!("{} for weights of rank {rank}", n.ty(v)?)));
    }
    let mut sizes = vec![1; rank];
    sizes[usize::from(second)] = -1;
    n.reshape_to(v, &sizes)
}

/// The sums of a convolution of integers less their zero points.
fn conv_sums(
    n: &mut Lower<'_>,
    (x, x_zero): (Value, Option<Value>),
    (weight, weight_zero): (Value, Option<Value>),
) -> Result<Value> {
    let rank = n.rank(weight)?;
    let x_zero = x_zero.map(|z| n.as_scalar(z)).transpose()?;
    let weight_zero = weight_zero.map(|z| per_channel(n, z, rank, false)).transpose()?;
    let (x, weight) = (less_zero(n, x, x_zero)?, less_zero(n, weight, weight_zero)?);
    convolved(n, x, weight, None)
}

fn conv_integer(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, x_zero, weight_zero) = (n.input(0)?, n.input(1)?, n.optional(2)?, n.optional(3)?);
    let sums = conv_sums(n, (x, x_zero), (weight, weight_zero))?;
    let y = n.cast(sums, DType::I32)?;
    n.done(y)
}

fn q_linear_conv(n: &mut Lower<'_>, channels_last: bool) -> Lowered {
    let dtype = n.source_dtype(7).or(n.stated_output(0).map(|t| t.dtype)).unwrap_or(DType::U8);
    let (x, x_scale, x_zero) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (weight, weight_scale, weight_zero) = (n.input(3)?, n.input(4)?, n.input(5)?);
    let (scale, zero, bias) = (n.input(6)?, n.input(7)?, n.optional(8)?);
    let x = if channels_last { channels_second(n, x)? } else { x };
    let mut sums = conv_sums(n, (x, Some(x_zero)), (weight, Some(weight_zero)))?;
    let rank = n.rank(sums)?;
    if let Some(bias) = bias {
        let bias = per_channel(n, bias, rank, true)?;
        sums = n.add(sums, bias)?;
    }
    let (x_scale, weight_scale) = (n.as_scalar(x_scale)?, per_channel(n, weight_scale, rank, true)?);
    let (scale, zero) = (n.as_scalar(scale)?, n.as_scalar(zero)?);
    let by = n.mul(x_scale, weight_scale)?;
    let by = n.div(by, scale)?;
    let y = n.mul(sums, by)?;
    let y = n.op(ops::Round { x: y })?;
    let zero = n.cast(zero, DType::F32)?;
    let y = n.add(y, zero)?;
    let (lo, hi) = bounds(dtype)?;
    let y = n.op(ops::Clip { x: y, alpha: lo as f32, beta: hi as f32 })?;
    let y = n.cast(y, DType::I32)?;
    let y = if channels_last { channels_behind(n, y)? } else { y };
    n.done(y)
}
