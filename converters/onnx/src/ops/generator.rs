//! Tensors made from little: ranges, diagonals, windows.

use crate::{LATEST, tensor};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::{DType, Tensor};
use std::f64::consts::PI;

rows! {
    "Range" 11..=LATEST => range;
    "EyeLike" 9..=LATEST => eye_like;
    "HannWindow" 17..=LATEST => |n| window(n, [0.5, 0.5, 0.0]);
    "HammingWindow" 17..=LATEST => |n| window(n, [25.0 / 46.0, 21.0 / 46.0, 0.0]);
    "BlackmanWindow" 17..=LATEST => |n| window(n, [0.42, 0.5, 0.08]);
    "MelWeightMatrix" 17..=LATEST => mel_weight_matrix;
    #["com.microsoft"] "Range" 1..=LATEST => range;
}

fn range(n: &mut Lower<'_>) -> Lowered {
    let (start, end) = (n.input(0)?, n.input(1)?);
    let step = match n.optional(2)? {
        Some(step) => step,
        None if n.node.domain.is_empty() => return Err(LowerError::MissingInput { index: 2 }),
        None => n.scalar_like(start, 1.0)?,
    };
    let (start, end, step) = (n.as_scalar(start)?, n.as_scalar(end)?, n.as_scalar(step)?);
    n.emit(ops::Range1d { end, start, step })
}

/// The element type with ONNX's number `code`, as a program has it.
pub(super) fn element_type(n: &mut Lower<'_>, name: &'static str, default: DType) -> Result<DType, LowerError> {
    let Some(code) = n.int(name)? else { return Ok(default) };
    let found = i32::try_from(code).ok().and_then(tensor::dtype).filter(|d| *d != DType::Str);
    if let Some(d) = found {
        n.makes(d);
    }
    match found {
        Some(d @ (DType::F16 | DType::F32 | DType::Bool)) => Ok(d),
        Some(d) => Ok(if d.is_float() { DType::F32 } else { DType::I32 }),
        None => n.bad_attr(name, "a known element type"),
    }
}

fn eye_like(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let shift = n.int_or("k", 0)?.clamp(-(1 << 30), 1 << 30);
    let own = n.dtype(x)?;
    let dtype = element_type(n, "dtype", own)?;
    if n.rank(x)? != 2 {
        return Err(LowerError::form(format!("{}, which is no matrix,", n.ty(x)?)));
    }
    let (rows, columns) = (n.counted(x, 0, DType::I32)?, n.counted(x, 1, DType::I32)?);
    let rows = n.expand_dims(rows, &[1])?;
    let shift = n.const_int(shift)?;
    let diagonal = n.add(rows, shift)?;
    let on = n.equal(columns, diagonal)?;
    let y = n.cast(on, dtype)?;
    n.done(y)
}

/// `a - b * cos(2 pi i / n) + c * cos(4 pi i / n)`.
fn window(n: &mut Lower<'_>, [a, b, c]: [f64; 3]) -> Lowered {
    let dtype = element_type(n, "output_datatype", DType::F32)?;
    let periodic = n.flag("periodic", true)?;
    if let Some(size) = n.ints_input(0).ok().flatten().and_then(|s| s.first().copied()) {
        if !(0..=1 << 24).contains(&size) {
            return Err(LowerError::form(format!("a window of {size} elements")));
        }
        n.affords(size as usize)?;
        let width = if periodic { size } else { size - 1 } as f64;
        let at = |i: i64| {
            let angle = if width > 0.0 { 2.0 * PI * i as f64 / width } else { 0.0 };
            if size == 1 { 1.0 } else { a - b * angle.cos() + c * (2.0 * angle).cos() }
        };
        let values: Vec<f64> = (0..size).map(at).collect();
        return n.literal(Tensor::from_f64(dtype, &[values.len()], &values));
    }
    let size = n.input(0)?;
    let end = n.as_scalar(size)?;
    let (start, step) = (n.const_int(0)?, n.const_int(1)?);
    let i = n.op(ops::Range1d { end, start, step })?;
    let (i, mut width) = (n.cast(i, DType::F32)?, n.cast(end, DType::F32)?);
    if !periodic {
        width = n.add_number(width, -1.0)?;
    }
    let turn = n.div(i, width)?;
    let wave = |n: &mut Lower<'_>, turns: f64, factor: f64| -> Result<Value, LowerError> {
        let angle = n.scale(turn, 2.0 * PI * turns)?;
        let cos = n.op(ops::Cos { x: angle })?;
        n.scale(cos, factor)
    };
    let first = wave(n, 1.0, -b)?;
    let mut y = n.add_number(first, a)?;
    if c != 0.0 {
        let second = wave(n, 2.0, c)?;
        y = n.add(y, second)?;
    }
    let y = n.cast(y, dtype)?;
    n.done(y)
}

fn mel_weight_matrix(n: &mut Lower<'_>) -> Lowered {
    let dtype = element_type(n, "output_datatype", DType::F32)?;
    let mut given = [0f64; 5];
    for (i, number) in given.iter_mut().enumerate() {
        let Some(t) = n.constant(i)? else { return open_mel_weight_matrix(n, dtype, i) };
        *number = t.to_f64().first().copied().ok_or(LowerError::MissingInput { index: i })?;
    }
    let [bins, length, rate, low, high] = given;
    let sane = (1.0..=65536.0).contains(&bins) && (1.0..=1048576.0).contains(&length) && rate > 0.0;
    if !sane || bins * length > f64::from(1 << 26) {
        return Err(LowerError::form(format!("a matrix of {bins} bins for {length} samples")));
    }
    let (bins, spectrum) = (bins as usize, (length / 2.0).floor() as usize + 1);
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let (low, high) = (mel(low), mel(high));
    // As many steps as edges, of which the last is not reached: so the reference has it.
    let step = (high - low) / (bins as f64 + 2.0);
    let edge = |i: usize| {
        let hertz = 700.0 * (10f64.powf((low + step * i as f64) / 2595.0) - 1.0);
        ((length + 1.0) * hertz / rate).floor()
    };
    n.affords(spectrum * bins)?;
    let mut weights = vec![0f64; spectrum * bins];
    for bin in 0..bins {
        let (lower, center, upper) = (edge(bin), edge(bin + 1), edge(bin + 2));
        for row in 0..spectrum {
            let at = row as f64;
            let weight = &mut weights[row * bins + bin];
            if lower == center {
                if at == center {
                    *weight = 1.0;
                }
            } else if at >= lower && at <= center {
                *weight = (at - lower) / (center - lower);
            }
            if upper > center && at >= center && at < upper {
                *weight = (upper - at) / (upper - center);
            }
        }
    }
    n.literal(Tensor::from_f64(dtype, &[spectrum, bins], &weights))
}

/// As [`mel_weight_matrix`], of numbers that are only known when the program runs, in the shape that the source states.
fn open_mel_weight_matrix(n: &mut Lower<'_>, dtype: DType, unknown: usize) -> Lowered {
    let Some([rows, bins]) = n.stated_sizes(0).and_then(|s| <[i64; 2]>::try_from(s).ok()) else {
        return Err(LowerError::NotConstant { index: unknown });
    };
    if rows < 1 || bins < 1 || rows.checked_mul(bins).is_none_or(|n| n > 1 << 26) {
        return Err(LowerError::form(format!("a matrix of {bins} bins for {rows} frequencies")));
    }
    n.affords(usize::try_from(rows.max(bins)).unwrap_or(usize::MAX))?;
    let number = |n: &mut Lower<'_>, i: usize| -> Result<Value, LowerError> {
        let v = n.input(i)?;
        let v = n.as_scalar(v)?;
        n.cast(v, DType::F32)
    };
    // The result's shape says how many bins there are.
    n.ignore_input(0);
    let (length, rate, low, high) = (number(n, 1)?, number(n, 2)?, number(n, 3)?, number(n, 4)?);
    let per_mel = std::f64::consts::LN_10 / 2595.0;
    let mel = |n: &mut Lower<'_>, hertz: Value| -> Result<Value, LowerError> {
        let ratio = n.scale(hertz, 1.0 / 700.0)?;
        let ratio = n.add_number(ratio, 1.0)?;
        let log = n.log(ratio)?;
        n.scale(log, 1.0 / per_mel)
    };
    let (low, high) = (mel(n, low)?, mel(n, high)?);
    let span = n.sub(high, low)?;
    let step = n.scale(span, 1.0 / (bins as f64 + 2.0))?;
    let numbers: Vec<f64> = (0..bins + 2).map(|i| i as f64).collect();
    let numbers = n.const_like(step, &[1, numbers.len()], &numbers)?;
    let mels = n.mul(numbers, step)?;
    let mels = n.add(mels, low)?;
    let powers = n.scale(mels, per_mel)?;
    let powers = n.exp(powers)?;
    let hertz = n.add_number(powers, -1.0)?;
    let hertz = n.scale(hertz, 700.0)?;
    let samples = n.add_number(length, 1.0)?;
    let places = n.mul(hertz, samples)?;
    let places = n.div(places, rate)?;
    let edges = n.op(ops::Floor { x: places })?;
    let edge = |n: &mut Lower<'_>, i: i64| n.slice(edges, 1, i, Some(i + bins));
    let (lower, center, upper) = (edge(n, 0)?, edge(n, 1)?, edge(n, 2)?);
    let at: Vec<f64> = (0..rows).map(|i| i as f64).collect();
    let at = n.const_like(edges, &[at.len(), 1], &at)?;
    let (zero, one) = (n.scalar_like(at, 0.0)?, n.scalar_like(at, 1.0)?);
    let slope = |n: &mut Lower<'_>, from: Value, to: Value| -> Result<Value, LowerError> {
        let (part, all) = (n.sub(at, from)?, n.sub(to, from)?);
        n.div(part, all)
    };
    let (rise, fall) = (slope(n, lower, center)?, slope(n, upper, center)?);
    let (before, after) = (n.less(at, lower)?, n.less(center, at)?);
    let outside = n.op(ops::LogicalOr { x: before, y: after })?;
    let y = n.select(outside, zero, rise)?;
    // Where a bin has no extent below its centre, it is its centre.
    let (narrow, here) = (n.equal(lower, center)?, n.equal(at, center)?);
    let middle = n.select(here, one, zero)?;
    let y = n.select(narrow, middle, y)?;
    let (early, falls) = (n.less(at, center)?, n.less(at, upper)?);
    let late = n.not(early)?;
    let falls = n.and(late, falls)?;
    let y = n.select(falls, fall, y)?;
    let y = n.cast(y, dtype)?;
    n.done(y)
}
