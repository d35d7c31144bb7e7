//! Compressed weights from the forms of iOS16 to those that took their place in iOS18: the same codes, in other words.

use super::{decompress::remove_unread, palette::index_dtype};
use mlconv_mil::{
    ir::{Function, InsertError, Module, OpId, Place, Value},
    ops::{
        Const, ConstexprAffineDequantize, ConstexprBlockwiseShiftScale, ConstexprCast, ConstexprCastIos16,
        ConstexprLutToDense, ConstexprPackedLutToDense, ConstexprPackedSparseToDense, ConstexprSparseToDense,
    },
    schema::{Op, Opset},
};
use mlconv_tensor::{DType, Tensor};

/// Rewrites, in functions for iOS18 and later, the ops that there are no more.
pub fn upgrade(module: &mut Module) -> Result<(), InsertError> {
    for f in module.functions.iter_mut().filter(|f| f.opset >= Opset::Ios18) {
        for id in f.all_ops() {
            if let Some(op) = f.op::<ConstexprPackedLutToDense>(id).cloned() {
                lut(f, id, &op)?;
            } else if let Some(op) = f.op::<ConstexprPackedSparseToDense>(id).cloned() {
                sparse(f, id, &op)?;
            } else if let Some(op) = f.op::<ConstexprAffineDequantize>(id).cloned() {
                affine(f, id, &op)?;
            } else if let Some(op) = f.op::<ConstexprCastIos16>(id).cloned() {
                let ConstexprCastIos16 { source_val, output_dtype } = op;
                replace(f, id, Box::new(ConstexprCast { source_val, output_dtype }))?;
            }
        }
    }
    Ok(())
}

fn lut(f: &mut Function, id: OpId, op: &ConstexprPackedLutToDense) -> Result<(), InsertError> {
    let (Some(indices), Some(lut), Some(shape)) = (f.constant(op.indices), f.constant(op.lut), result(f, id)) else {
        return Ok(());
    };
    let Ok(dtype) = index_dtype(lut.count().trailing_zeros() as u8) else { return Ok(()) };
    let Ok(indices) = Tensor::new(dtype, &shape, indices.blob().clone()) else { return Ok(()) };
    let mut form = vec![1; shape.len()];
    form.extend([lut.count(), 1]);
    let lut = lut.reshape(&form);
    let (indices, lut) = (constant(f, id, op.indices, indices)?, constant(f, id, op.lut, lut)?);
    replace(f, id, Box::new(ConstexprLutToDense { indices, lut, vector_axis: None }))
}

fn sparse(f: &mut Function, id: OpId, op: &ConstexprPackedSparseToDense) -> Result<(), InsertError> {
    let (Some(mask), Some(shape)) = (f.constant(op.mask), result(f, id)) else { return Ok(()) };
    let Ok(mask) = Tensor::new(DType::U1, &shape, mask.blob().clone()) else { return Ok(()) };
    let mask = constant(f, id, op.mask, mask)?;
    replace(f, id, Box::new(ConstexprSparseToDense { nonzero_data: op.nonzero_data, mask }))
}

fn affine(f: &mut Function, id: OpId, op: &ConstexprAffineDequantize) -> Result<(), InsertError> {
    let (Some(data), Some(scale), Some(zero_point)) =
        (f.constant(op.quantized_data), f.constant(op.scale), f.constant(op.zero_point))
    else {
        return Ok(());
    };
    let (dtype, rank, parts) = (data.dtype(), data.shape().len(), [scale.clone(), zero_point.clone()]);
    let Ok(axis) = usize::try_from(if op.axis < 0 { op.axis + rank as i64 } else { op.axis }) else { return Ok(()) };
    if axis >= rank || parts[1].dtype() != dtype {
        return Ok(());
    }
    // Both have one shape, which that of a scalar fits as well.
    let count = parts.iter().map(Tensor::count).max().unwrap_or(1);
    let mut form = vec![1; rank];
    form[axis] = count;
    let spread = |t: Tensor| match t.to_f64().first() {
        Some(x) if t.count() != count => Tensor::splat(t.dtype(), &form, *x),
        _ => t.reshape(&form),
    };
    let [scale, zero_point] = parts.map(spread);
    let no_offset = zero_point.to_f32().iter().all(|x| *x == 0.0);
    let scale = constant(f, id, op.scale, scale)?;
    let offset = if no_offset { None } else { Some(constant(f, id, op.zero_point, zero_point)?) };
    replace(f, id, Box::new(ConstexprBlockwiseShiftScale { data: op.quantized_data, scale, offset }))
}

/// The shape of what an op decodes.
fn result(f: &Function, id: OpId) -> Option<Vec<usize>> {
    let shape = &f.ty(*f.op_data(id).results.first()?).tensor()?.shape;
    shape.iter().map(|d| d.as_usize()).collect()
}

/// A constant of the name of `old`.
fn constant(f: &mut Function, id: OpId, old: Value, val: Tensor) -> Result<Value, InsertError> {
    let (hint, origin) = (f.value(old).hint.to_string(), f.op_data(id).origin);
    Ok(f.insert(Place::Before(id), &[&hint], Box::new(Const { val }), origin)?[0])
}

fn replace(f: &mut Function, id: OpId, op: Box<dyn Op>) -> Result<(), InsertError> {
    let data = f.op_data(id).clone();
    for old in &data.results {
        let hint = f.value(*old).hint.to_string();
        let new = f.insert(Place::Before(id), &[&hint], op.clone(), data.origin)?[0];
        f.replace_uses(*old, new);
    }
    let mut parts = vec![];
    data.op.visit_operands(&mut |v| parts.push(v));
    f.remove(id);
    remove_unread(f, &parts);
    Ok(())
}
