//! Softmax and its kin.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered, Size, layers::loss::log_softmax};
use mlconv_tensor::{DType, Tensor};

rows! {
    "Hardmax" 1..=12 => |n| flattened(n, hardmax);
    "Hardmax" 13..=LATEST => |n| along(n, hardmax);
    "LogSoftmax" 1..=12 => |n| flattened(n, log_softmax);
    "LogSoftmax" 13..=LATEST => |n| along(n, log_softmax);
    "Softmax" 1..=12 => |n| flattened(n, softmax);
    "Softmax" 13..=LATEST => |n| along(n, softmax);
    #["com.microsoft"] "BiasSoftmax" 1..=LATEST => bias_softmax;
}

type Kind<'a> = fn(&mut Lower<'a>, Value, usize) -> Result<Value, LowerError>;

fn along<'a>(n: &mut Lower<'a>, kind: Kind<'a>) -> Lowered {
    let x = n.input(0)?;
    let axis = n.int_or("axis", -1)?;
    let axis = n.axis(x, axis)?;
    let y = kind(n, x, axis)?;
    n.done(y)
}

/// Over all axes from `axis` on together, as older versions have it.
fn flattened<'a>(n: &mut Lower<'a>, kind: Kind<'a>) -> Lowered {
    let x = n.input(0)?;
    let y = of_flattened(n, x, kind)?;
    n.done(y)
}

/// The softmax of `x` as version `version` of the operator has it.
pub(super) fn softmax_of(n: &mut Lower<'_>, x: Value, version: i64) -> Result<Value, LowerError> {
    if version < 13 {
        return of_flattened(n, x, softmax);
    }
    let axis = n.int_or("axis", -1)?;
    let axis = n.axis(x, axis)?;
    softmax(n, x, axis)
}

fn of_flattened<'a>(n: &mut Lower<'a>, x: Value, kind: Kind<'a>) -> Result<Value, LowerError> {
    let axis = n.int_or("axis", 1)?;
    let shape = n.shape(x)?;
    let axis = if axis == shape.rank() as i64 { shape.rank() } else { n.axis(x, axis)? };
    let large: Vec<usize> = (axis..shape.rank()).filter(|i| !shape[*i].is(1)).collect();
    match large.as_slice() {
        [] if axis < shape.rank() => kind(n, x, axis),
        [one] => kind(n, x, *one),
        _ => {
            let kept = (0..axis).map(|i| Size::Of(x, i));
            let flat = if axis == shape.rank() { Size::Known(1) } else { Size::Rest };
            let sizes: Vec<Size> = kept.chain([flat]).collect();
            let flat = n.reshape(x, &sizes)?;
            let y = kind(n, flat, axis)?;
            n.reshape_as(y, x)
        }
    }
}

/// Over all axes from `axis` on together. The bias has the sizes of the last axes, or where it is not broadcast on the
/// inside, 1 for some of the first.
fn bias_softmax(n: &mut Lower<'_>) -> Lowered {
    let (x, mut bias, axis) = (n.input(0)?, n.input(1)?, n.int_or("axis", 1)?);
    let inner = n.flag("is_inner_broadcast", false)?;
    let (rank, own) = (n.rank(x)?, n.rank(bias)?);
    let axis = n.axis(x, axis)?;
    if own > rank {
        return Err(LowerError::form(format!("a bias of rank {own} for a tensor of rank {rank}")));
    }
    if inner && own < rank {
        return Err(LowerError::not_yet("a bias that is broadcast on the inside and has fewer axes"));
    }
    bias = n.expand_dims(bias, &(0..(rank - own) as i64).collect::<Vec<_>>())?;
    let sum = n.add(x, bias)?;
    if axis + 1 == rank {
        return n.emit(ops::Softmax { x: sum, axis: -1 });
    }
    let sizes: Vec<Size> = (0..axis).map(|i| Size::Of(sum, i)).chain([Size::Rest]).collect();
    let flat = n.reshape(sum, &sizes)?;
    let y = n.op(ops::Softmax { x: flat, axis: -1 })?;
    let y = n.reshape_as(y, sum)?;
    n.done(y)
}

fn softmax(n: &mut Lower<'_>, x: Value, axis: usize) -> Result<Value, LowerError> {
    n.op(ops::Softmax { x, axis: axis as i64 })
}

fn hardmax(n: &mut Lower<'_>, x: Value, axis: usize) -> Result<Value, LowerError> {
    let (dtype, axis) = (n.dtype(x)?, axis as i64);
    let indices = n.op(ops::ReduceArgmax { x, axis, keep_dims: false, output_dtype: DType::I32 })?;
    let size = n.size_of(x, axis as usize)?;
    let size = n.squeeze(size, &[0])?;
    let (on, off) = (n.add_const(Tensor::splat(dtype, &[], 1.0))?, n.add_const(Tensor::splat(dtype, &[], 0.0))?);
    n.op(ops::OneHot { indices, one_hot_vector_size: size, axis, on_value: Some(on), off_value: Some(off) })
}
