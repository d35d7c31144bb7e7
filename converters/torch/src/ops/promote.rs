//! Element types of results: how PyTorch makes operands alike.

use mlconv_mil::ir::Value;
use mlconv_source::{Lower, LowerError, narrowed};
use mlconv_tensor::DType;

/// Booleans, integers and floats: the type of a number, or of a tensor without axes, matters only if its kind is higher.
fn kind(dtype: DType) -> u8 {
    match dtype {
        DType::Bool => 0,
        d if d.is_float() => 2,
        _ => 1,
    }
}

/// The lesser type that holds both, among those that programs compute with.
pub(super) fn joined(a: DType, b: DType) -> DType {
    let rank = |d: DType| match d {
        DType::Bool => 0,
        DType::I32 => 1,
        DType::F16 => 2,
        _ => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}

/// The arguments, all in the type that the operator computes in.
pub(super) fn operands<const N: usize>(
    n: &mut Lower<'_>,
    names: [&'static str; N],
) -> Result<([Value; N], DType), LowerError> {
    // Tensors with axes, those without, and numbers.
    let mut levels: [Option<DType>; 3] = [None; 3];
    let mut values = vec![];
    for name in names {
        let v = n.value(name)?;
        let level = if n.is_number(name) { 2 } else { usize::from(n.rank(v)? == 0) };
        let dtype = n.dtype(v)?;
        levels[level] = Some(levels[level].map_or(dtype, |d| joined(d, dtype)));
        values.push(v);
    }
    let mut to: Option<DType> = None;
    for level in levels.into_iter().flatten() {
        to = Some(match to {
            Some(d) if kind(level) <= kind(d) => d,
            Some(_) | None => level,
        });
    }
    let to = to.unwrap_or(DType::F32);
    let mut cast = vec![];
    for v in values {
        cast.push(n.cast(v, to)?);
    }
    let all = <[Value; N]>::try_from(cast).map_err(|_| LowerError::Poisoned)?;
    Ok((all, to))
}

/// As [`operands`], in floats.
pub(super) fn float_operands<const N: usize>(
    n: &mut Lower<'_>,
    names: [&'static str; N],
) -> Result<[Value; N], LowerError> {
    let (mut all, _) = operands(n, names)?;
    for v in &mut all {
        *v = n.as_float(*v)?;
    }
    Ok(all)
}

/// `v` in the type that the argument `dtype` asks for, where it asks.
pub(super) fn as_asked(n: &mut Lower<'_>, v: Value) -> Result<Value, LowerError> {
    match n.dtype_arg("dtype")? {
        Some(d) => converted(n, v, d),
        None => Ok(v),
    }
}

/// `v` as an element type of the source, in the type that stands for it.
pub(super) fn converted(n: &mut Lower<'_>, v: Value, to: DType) -> Result<Value, LowerError> {
    let to = narrowed(to).ok_or_else(|| LowerError::form(format!("elements of type {to}")))?;
    n.cast(v, to)
}
