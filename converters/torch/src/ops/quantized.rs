//! Quantized numbers. Programs compute with them as 32-bit integers; constant ones stay compressed.

use mlconv_mil::{ir::Value, ops, schema::Opset};
use mlconv_source::{Entry, Lower, LowerError, Lowered, narrowed};
use mlconv_tensor::{DType, Tensor};

aten! {
    "quantized_decomposed::quantize_per_tensor(Tensor input, float scale, int zero_point, int quant_min, int quant_max, ScalarType dtype) -> Tensor",
    "quantized_decomposed::quantize_per_tensor.tensor(Tensor input, Tensor scale, Tensor zero_point, int quant_min, int quant_max, ScalarType dtype) -> Tensor",
    "quantized_decomposed::quantize_per_tensor.tensor2(Tensor input, Tensor scale, Tensor zero_point, Tensor quant_min, Tensor quant_max, ScalarType dtype) -> Tensor" => |n| quantize(n, "scale", "zero_point", Along::Whole);
    "quantized_decomposed::quantize_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, int quant_min, int quant_max, ScalarType dtype) -> Tensor" => |n| quantize(n, "scales", "zero_points", Along::Axis);
    "quantized_decomposed::quantize_per_token(Tensor input, Tensor scales, Tensor zero_points, int quant_min, int quant_max, ScalarType dtype) -> Tensor" => |n| quantize(n, "scales", "zero_points", Along::AsIs);
    "torchao::quantize_affine(Tensor input, SymInt[] block_size, Tensor scale, Tensor? zero_point, ScalarType output_dtype, int? quant_min=None, int? quant_max=None) -> Tensor" => |n| quantize(n, "scale", "zero_point", Along::Blocks);
    "quantized_decomposed::quantize_per_channel_group(Tensor input, Tensor scales, Tensor zero_points, int quant_min, int quant_max, ScalarType dtype, int group_size) -> Tensor" => |n| quantize(n, "scales", "zero_points", Along::Blocks);
    "quantized_decomposed::dequantize_per_tensor(Tensor input, float scale, int zero_point, int quant_min, int quant_max, ScalarType dtype, *, ScalarType? out_dtype=None) -> Tensor",
    "quantized_decomposed::dequantize_per_tensor.tensor(Tensor input, Tensor scale, Tensor zero_point, int quant_min, int quant_max, ScalarType dtype, *, ScalarType? out_dtype=None) -> Tensor",
    "quantized_decomposed::dequantize_per_tensor.tensor2(Tensor input, Tensor scale, Tensor zero_point, Tensor quant_min, Tensor quant_max, ScalarType dtype, *, ScalarType? out_dtype=None) -> Tensor" => |n| dequantize(n, "input", "scale", "zero_point", Along::Whole);
    "quantized_decomposed::dequantize_per_channel(Tensor input, Tensor scales, Tensor? zero_points, int axis, int quant_min, int quant_max, ScalarType dtype, *, ScalarType? out_dtype=None) -> Tensor" => |n| dequantize(n, "input", "scales", "zero_points", Along::Axis);
    "quantized_decomposed::dequantize_per_token(Tensor input, Tensor scales, Tensor zero_points, int quant_min, int quant_max, ScalarType dtype, ScalarType output_dtype) -> Tensor" => |n| dequantize(n, "input", "scales", "zero_points", Along::AsIs);
    "quantized_decomposed::dequantize_per_channel_group(Tensor input, Tensor scales, Tensor? zero_points, int quant_min, int quant_max, ScalarType dtype, int group_size, ScalarType output_dtype) -> Tensor" => |n| dequantize(n, "input", "scales", "zero_points", Along::Blocks);
    "torchao::dequantize_affine(Tensor input, SymInt[] block_size, Tensor scale, Tensor? zero_point, ScalarType input_dtype, int? quant_min=None, int? quant_max=None, ScalarType? output_dtype=None) -> Tensor",
    "quant::dequantize_affine(Tensor input, SymInt[] block_size, Tensor scale, Tensor? zero_point, ScalarType input_dtype, int? quant_min=None, int? quant_max=None, str? zero_point_domain=None, ScalarType? output_dtype=None) -> Tensor" => |n| dequantize(n, "input", "scale", "zero_point", Along::Blocks);
    "quantized_decomposed::choose_qparams.tensor(Tensor input, int quant_min, int quant_max, float eps, ScalarType dtype) -> (Tensor, Tensor)" => |n| chosen(n, false);
    "quantized_decomposed::choose_qparams_symmetric.tensor(Tensor input, int quant_min, int quant_max, float eps, ScalarType dtype) -> (Tensor, Tensor)" => |n| chosen(n, true);
    "quantized_decomposed::choose_qparams_per_token_asymmetric(Tensor input, ScalarType dtype) -> (Tensor, Tensor)",
    "quantized_decomposed::_choose_qparams_per_token_asymmetric_impl(Tensor input, ScalarType dtype) -> (Tensor, Tensor)" => chosen_per_token;
    "fake_quantize_per_tensor_affine(Tensor self, float scale, int zero_point, int quant_min, int quant_max) -> Tensor",
    "fake_quantize_per_tensor_affine.tensor_qparams(Tensor self, Tensor scale, Tensor zero_point, int quant_min, int quant_max) -> Tensor" => |n| fake(n, Along::Whole);
    "quantized_decomposed::fake_quant_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, int quant_min, int quant_max) -> Tensor" => |n| {
        let x = n.value("input")?;
        let (range, own) = (range(n, None)?, n.dtype(x)?);
        let float = n.cast(x, DType::F32)?;
        let (scale, zero) = parameters(n, x, ("scales", "zero_points"), Along::Axis)?;
        let y = there_and_back(n, float, scale, zero, range)?;
        let y = n.cast(y, own)?;
        n.done(y)
    };
    "fake_quantize_per_channel_affine(Tensor self, Tensor scale, Tensor zero_point, int axis, int quant_min, int quant_max) -> Tensor" => |n| fake(n, Along::Axis);
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// What a scale is for.
#[derive(Clone, Copy, PartialEq)]
enum Along {
    /// All elements.
    Whole,
    /// Each place along the argument `axis`.
    Axis,
    /// What it broadcasts to.
    AsIs,
    /// Each block of elements.
    Blocks,
}

/// The sizes of a scale for blocks of `x`: of every axis as many as there are blocks.
fn block_counts(n: &Lower<'_>, x: Value) -> Result<Vec<i64>> {
    let sizes = n.fixed_shape(x, "the blocks of a scale")?;
    let mut blocks = match n.ints("block_size")? {
        Some(blocks) => blocks,
        None => {
            let group = n.int_or("group_size", 0)?;
            (1..=sizes.len()).map(|i| if i == sizes.len() { group } else { 1 }).collect()
        }
    };
    for (block, size) in blocks.iter_mut().zip(&sizes) {
        if *block == -1 {
            *block = *size;
        }
    }
    let fits = blocks.len() == sizes.len() && blocks.iter().zip(&sizes).all(|(b, s)| *b > 0 && s % b == 0);
    if !fits {
        return n.bad_attr("block_size", "a divisor of each size");
    }
    Ok(sizes.iter().zip(&blocks).map(|(s, b)| s / b).collect())
}

/// A scale or a zero point in the shape that goes with `x`.
fn spread(n: &mut Lower<'_>, x: Value, v: Value, along: Along) -> Result<Value> {
    if n.rank(v)? == 0 || n.shape(v)?.count().is(1) {
        return n.as_scalar(v);
    }
    match along {
        Along::Whole | Along::AsIs => Ok(v),
        Along::Axis => {
            let (axis, rank) = (n.int_or("axis", 0)?, n.rank(x)?);
            let axis = n.axis(x, axis)?;
            let others: Vec<i64> = (0..rank).filter(|i| *i != axis).map(|i| i as i64).collect();
            n.expand_dims(v, &others)
        }
        Along::Blocks => {
            let counts = block_counts(n, x)?;
            let sizes = n.fixed_shape(x, "the blocks of a scale")?;
            if counts.iter().zip(&sizes).any(|(c, s)| *c != 1 && c != s) {
                let what = "blocks along a part of an axis, of numbers that are not constant or before iOS 18";
                return Err(LowerError::form_but(what, "convert for iOS 18 or later, as with `--target ios18`"));
            }
            n.reshape_to(v, &counts)
        }
    }
}

/// The least and the greatest code.
fn range(n: &mut Lower<'_>, dtype: Option<DType>) -> Result<(f64, f64)> {
    let own = dtype.and_then(DType::int_range).map_or((-128, 127), |(a, b)| (a, b));
    let (low, high) = (n.number("quant_min")?.unwrap_or(own.0 as f64), n.number("quant_max")?.unwrap_or(own.1 as f64));
    if low > high { n.bad_attr("quant_max", "at least `quant_min`") } else { Ok((low, high)) }
}

/// `round(x / scale) + zero` within a range, as floats.
fn codes(
    n: &mut Lower<'_>,
    x: Value,
    scale: Value,
    zero: Option<Value>,
    range: (f64, f64),
    inside: bool,
) -> Result<Value> {
    let one = n.scalar_like(x, 1.0)?;
    let inverse = n.div(one, scale)?;
    let mut y = n.mul(x, inverse)?;
    if !inside {
        y = n.op(ops::Round { x: y })?;
    }
    if let Some(zero) = zero {
        y = n.add(y, zero)?;
    }
    if inside {
        y = n.op(ops::Round { x: y })?;
    }
    n.op(ops::Clip { x: y, alpha: range.0 as f32, beta: range.1 as f32 })
}

/// The scale and the zero point, in single precision.
fn parameters(
    n: &mut Lower<'_>,
    x: Value,
    (scale, zero): (&'static str, &'static str),
    along: Along,
) -> Result<(Value, Option<Value>)> {
    let v = n.value(scale)?;
    let v = n.cast(v, DType::F32)?;
    let scale = spread(n, x, v, along)?;
    let zero = match n.maybe(zero)? {
        Some(v) => {
            let v = n.cast(v, DType::F32)?;
            Some(spread(n, x, v, along)?)
        }
        None => None,
    };
    Ok((scale, zero))
}

fn quantize(n: &mut Lower<'_>, scale: &'static str, zero: &'static str, along: Along) -> Lowered {
    let x = n.value("input")?;
    let dtype = n.dtype_arg("dtype")?.or(n.dtype_arg("output_dtype")?);
    let range = range(n, dtype)?;
    let x = n.cast(x, DType::F32)?;
    let (scale, zero) = parameters(n, x, (scale, zero), along)?;
    let y = codes(n, x, scale, zero, range, along == Along::AsIs)?;
    let to = dtype.and_then(narrowed).unwrap_or(DType::I32);
    let y = n.cast(y, to)?;
    n.done(y)
}

fn dequantize(
    n: &mut Lower<'_>,
    input: &'static str,
    scale: &'static str,
    zero: &'static str,
    along: Along,
) -> Lowered {
    for name in ["dtype", "input_dtype", "quant_min", "quant_max"] {
        n.ignore(name);
    }
    if !matches!(n.str_or("zero_point_domain", "INT")?, "INT" | "NONE") {
        return n.bad_attr("zero_point_domain", "`INT`");
    }
    let to = n.dtype_arg("out_dtype")?.or(n.dtype_arg("output_dtype")?).unwrap_or(DType::F32);
    let to = narrowed(to).ok_or_else(|| LowerError::form(format!("elements of type {to}")))?;
    let x = n.value(input)?;
    let y = match compressed(n, x, (input, scale, zero), along)? {
        Some(y) => y,
        None => {
            let float = n.cast(x, DType::F32)?;
            let (scale, zero) = parameters(n, x, (scale, zero), along)?;
            let centered = match zero {
                Some(zero) => n.sub(float, zero)?,
                None => float,
            };
            n.mul(centered, scale)?
        }
    };
    let y = n.cast(y, to)?;
    n.done(y)
}

/// A constant argument as the source has it; a number as one.
fn constant(n: &mut Lower<'_>, name: &'static str) -> Result<Option<Tensor>> {
    if n.is_number(name) {
        return Ok(n.number(name)?.map(|x| Tensor::from_f64(DType::F32, &[], &[x])));
    }
    n.given_tensor(name)
}

/// Constant codes with constant parameters, which Core ML decodes itself; `None` where it does not.
fn compressed(
    n: &mut Lower<'_>,
    x: Value,
    (input, scale, zero): (&'static str, &'static str, &'static str),
    along: Along,
) -> Result<Option<Value>> {
    let (Some(codes), Some(scales)) = (constant(n, input)?, constant(n, scale)?) else { return Ok(None) };
    let zeros = if n.has(zero) { constant(n, zero)? } else { Some(Tensor::from_f64(DType::F32, &[], &[0.0])) };
    let Some(zeros) = zeros else { return Ok(None) };
    let signed = match codes.dtype() {
        DType::I8 => true,
        DType::U8 => false,
        _ => return Ok(None),
    };
    let rank = codes.shape().len();
    let floats = scales.cast(DType::F32);
    let (whole, points) = (floats.count() == 1, zeros.to_f64());
    // A zero point is a code, too, or Core ML takes it for a float.
    let (low, high) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
    let exact = points.iter().all(|z| z.fract() == 0.0 && (low..=high).contains(z));
    if rank == 0 || !exact || n.opset() < Opset::Ios16 {
        return Ok(None);
    }
    let shape: Vec<usize> = match along {
        _ if whole => vec![1; rank],
        Along::Axis => {
            let axis = n.int_or("axis", 0)?;
            let axis = n.axis(x, axis)?;
            (0..rank).map(|i| if i == axis { floats.count() } else { 1 }).collect()
        }
        Along::Blocks => block_counts(n, x)?.iter().filter_map(|c| usize::try_from(*c).ok()).collect(),
        Along::Whole | Along::AsIs => return Ok(None),
    };
    let count: usize = shape.iter().product();
    if count != floats.count() || (zeros.count() != 1 && zeros.count() != count) {
        return Ok(None);
    }
    let points = if zeros.count() == count { points } else { vec![points[0]; count] };
    if n.opset() < Opset::Ios18 {
        let split: Vec<usize> = (0..rank).filter(|i| shape[*i] > 1).collect();
        let axis = match split[..] {
            [] => 0,
            [one] if shape[one] == codes.shape()[one] => one,
            _ => return Ok(None),
        };
        let size: Vec<usize> = if count == 1 { vec![] } else { vec![count] };
        let quantized_data = n.op(ops::Const { val: codes.clone() })?;
        let zero_point = n.op(ops::Const { val: Tensor::from_f64(codes.dtype(), &size, &points) })?;
        let scale = n.op(ops::Const { val: floats.reshape(&size) })?;
        let op = ops::ConstexprAffineDequantize { quantized_data, zero_point, scale, axis: axis as i64 };
        return n.op(op).map(Some);
    }
    // Codes of 4 bits lie in bytes in the source.
    let fours = |t: &[f64], low: f64, high: f64| t.iter().all(|c| (low..=high).contains(c));
    let values = codes.to_f64();
    let small = if signed {
        fours(&values, -8.0, 7.0) && fours(&points, -8.0, 7.0)
    } else {
        fours(&values, 0.0, 15.0) && fours(&points, 0.0, 15.0)
    };
    let dtype = match (small, signed) {
        (true, true) => DType::I4,
        (true, false) => DType::U4,
        (false, _) => codes.dtype(),
    };
    let data = if small { Tensor::from_f64(dtype, codes.shape(), &values) } else { codes };
    let data = n.op(ops::Const { val: data })?;
    let scale = n.op(ops::Const { val: floats.reshape(&shape) })?;
    let offset = if points.iter().all(|z| *z == 0.0) {
        None
    } else {
        Some(n.op(ops::Const { val: Tensor::from_f64(dtype, &shape, &points) })?)
    };
    n.op(ops::ConstexprBlockwiseShiftScale { data, scale, offset }).map(Some)
}

/// A scale and a zero point for the range of a tensor.
fn chosen(n: &mut Lower<'_>, symmetric: bool) -> Lowered {
    let (x, dtype, eps) = (n.value("input")?, n.dtype_arg("dtype")?, n.number("eps")?.unwrap_or(0.0));
    let (low, high) = range(n, dtype)?;
    let x = n.cast(x, DType::F32)?;
    let flat = n.reshape_to(x, &[-1])?;
    let least = n.op(ops::ReduceMin { x: flat, axes: None, keep_dims: false })?;
    let most = n.op(ops::ReduceMax { x: flat, axes: None, keep_dims: false })?;
    let nothing = n.scalar_like(x, 0.0)?;
    let (least, most) = (n.minimum(least, nothing)?, n.maximum(most, nothing)?);
    let tiny = n.scalar_like(x, eps)?;
    if symmetric {
        let below = n.scale(least, -1.0)?;
        let size = n.maximum(below, most)?;
        let scale = n.scale(size, 2.0 / (high - low))?;
        let scale = n.maximum(scale, tiny)?;
        let zero = n.const_int(if dtype == Some(DType::U8) { 128 } else { 0 })?;
        return Ok([scale, zero].map(Entry::Value).to_vec());
    }
    let span = n.sub(most, least)?;
    let scale = n.scale(span, 1.0 / (high - low))?;
    let scale = n.maximum(scale, tiny)?;
    let at = n.div(least, scale)?;
    let at = n.op(ops::Round { x: at })?;
    let at = n.scale(at, -1.0)?;
    let zero = n.add_number(at, low)?;
    let zero = n.op(ops::Clip { x: zero, alpha: low as f32, beta: high as f32 })?;
    let zero = n.cast(zero, DType::I32)?;
    Ok([scale, zero].map(Entry::Value).to_vec())
}

/// For each row of 8-bit codes; the zero point is exact at the end that is farther from zero.
fn chosen_per_token(n: &mut Lower<'_>) -> Lowered {
    n.ignore("dtype");
    let (low, high) = (-128.0, 127.0);
    let x = n.value("input")?;
    let x = n.cast(x, DType::F32)?;
    let least = n.op(ops::ReduceMin { x, axes: Some(vec![-1]), keep_dims: true })?;
    let most = n.op(ops::ReduceMax { x, axes: Some(vec![-1]), keep_dims: true })?;
    let nothing = n.scalar_like(x, 0.0)?;
    let (least, most) = (n.minimum(least, nothing)?, n.maximum(most, nothing)?);
    let span = n.sub(most, least)?;
    let scale = n.scale(span, 1.0 / (high - low))?;
    let tiny = n.scalar_like(x, f64::from(f32::EPSILON))?;
    let scale = n.maximum(scale, tiny)?;
    let (bottom, top) = (n.div(least, scale)?, n.div(most, scale)?);
    let sum = n.add(bottom, top)?;
    let sum = n.add_number(sum, low + high)?;
    let from_bottom = n.less(nothing, sum)?;
    let (bottom, top) = (n.scale(bottom, -1.0)?, n.scale(top, -1.0)?);
    let (bottom, top) = (n.add_number(bottom, low)?, n.add_number(top, high)?);
    let zero = n.select(from_bottom, bottom, top)?;
    let zero = n.op(ops::Clip { x: zero, alpha: low as f32, beta: high as f32 })?;
    let zero = n.op(ops::Round { x: zero })?;
    let zero = n.cast(zero, DType::I32)?;
    Ok([scale, zero].map(Entry::Value).to_vec())
}

/// To codes and back.
fn fake(n: &mut Lower<'_>, along: Along) -> Lowered {
    let x = n.value("self")?;
    let (range, own) = (range(n, None)?, n.dtype(x)?);
    let float = n.cast(x, DType::F32)?;
    let (scale, zero) = parameters(n, x, ("scale", "zero_point"), along)?;
    let y = there_and_back(n, float, scale, zero, range)?;
    let y = n.cast(y, own)?;
    n.done(y)
}

fn there_and_back(n: &mut Lower<'_>, x: Value, scale: Value, zero: Option<Value>, range: (f64, f64)) -> Result<Value> {
    let mut y = codes(n, x, scale, zero, range, true)?;
    if let Some(zero) = zero {
        y = n.sub(y, zero)?;
    }
    n.mul(y, scale)
}
