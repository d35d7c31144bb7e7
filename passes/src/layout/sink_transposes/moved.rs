//! What an op is on permuted axes.

mod reshaping;

use crate::layout::keep::axis;
use mlconv_mil::{
    ir::{Function, OpId, Value},
    ops::{
        Concat, Cumsum, Gather, LayerNorm, Pad, PadMode, ReduceArgmax, ReduceArgmin, ReduceL1Norm, ReduceL2Norm,
        ReduceLogSum, ReduceLogSumExp, ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum, ReduceSumSquare,
        Reverse, SliceByIndex, Softmax, Split, Transpose,
    },
    schema::{Ints, Op},
};
use mlconv_tensor::{Bytes, Shape, Tensor, strides};

/// For each axis of a tensor, that of the tensor that it is the transpose of.
pub(super) type Perm = Vec<usize>;

/// An op on permuted axes.
pub(super) struct Moved {
    /// The op, its operands still as they are.
    pub op: Box<dyn Op>,
    /// What becomes of each operand.
    pub roles: Vec<Role>,
    /// The permutation that each result lacks.
    pub results: Vec<Perm>,
}

/// What becomes of an operand.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// It is read before the transpose, or transposed back.
    Permuted,
    /// It is read as it is.
    Same,
    /// This constant is read instead.
    New(Tensor),
}

/// Elements up to which a constant is stored a second time, in another order.
const MAX_COPY: usize = 1 << 14;

/// The op `id` on operands that lack the permutation `perm`; `None` where it cannot be said.
pub(super) fn moved(f: &Function, id: OpId, perm: &[usize]) -> Option<Moved> {
    elementwise(f, id, perm)
        .or_else(|| joining(f, id, perm))
        .or_else(|| slice(f, f.op(id)?, perm))
        .or_else(|| pad(f, f.op(id)?, perm))
        .or_else(|| gather(f, f.op(id)?, perm))
        .or_else(|| along_axes(f, id, perm))
        .or_else(|| reduction(f, id, perm))
        .or_else(|| reshaping::reshaping(f, id, perm))
}

fn shape(f: &Function, v: Value) -> Option<&Shape> {
    f.ty(v).tensor().map(|t| &t.shape)
}

fn elementwise(f: &Function, id: OpId, perm: &[usize]) -> Option<Moved> {
    let data = f.op_data(id);
    if !data.op.schema().elementwise || data.results.len() != 1 {
        return None;
    }
    let mut roles = vec![];
    data.op.visit_operands(&mut |v| roles.push(operand(f, v, perm)));
    let roles = roles.into_iter().collect::<Option<_>>()?;
    Some(Moved { op: data.op.clone(), roles, results: vec![perm.to_vec()] })
}

/// What becomes of an operand that is broadcast to the axes of `perm`.
fn operand(f: &Function, v: Value, perm: &[usize]) -> Option<Role> {
    let (shape, rank) = (shape(f, v)?, perm.len());
    if shape.rank() <= rank && shape.iter().all(|d| d.is(1)) {
        return Some(Role::Same);
    }
    match f.constant(v) {
        Some(t) => transposed_back(t, perm).map(Role::New),
        None => (shape.rank() == rank).then_some(Role::Permuted),
    }
}

/// Whether no element moves when the axes are permuted.
fn is_row(t: &Tensor) -> bool {
    t.shape().iter().filter(|n| **n != 1).count() <= 1
}

fn joining(f: &Function, id: OpId, perm: &[usize]) -> Option<Moved> {
    let along = |at: i64| axis(at, perm.len()).map(|a| perm[a] as i64);
    if let Some(op) = f.op::<Concat>(id) {
        let role = |v: &Value| match f.constant(*v) {
            Some(t) => transposed_back(t, perm).map(Role::New),
            None => Some(Role::Permuted),
        };
        let roles = op.values.iter().map(role).collect::<Option<_>>()?;
        let op = Box::new(Concat { axis: along(op.axis)?, ..op.clone() });
        return Some(Moved { op, roles, results: vec![perm.to_vec()] });
    }
    let op = f.op::<Split>(id)?;
    let results = vec![perm.to_vec(); f.op_data(id).results.len()];
    Some(Moved { op: Box::new(Split { axis: along(op.axis)?, ..op.clone() }), roles: vec![Role::Permuted], results })
}

/// What belongs to each axis, in the order of the axes before the transpose.
fn back<T: Clone>(items: &[T], perm: &[usize]) -> Option<Vec<T>> {
    (0..perm.len()).map(|k| items.get(perm.iter().position(|p| *p == k)?).cloned()).collect()
}

fn slice(f: &Function, op: &SliceByIndex, perm: &[usize]) -> Option<Moved> {
    let ints = |v: Value| {
        let t = f.constant(v)?;
        Some(Role::New(Tensor::from_i64(t.dtype(), t.shape(), &back(&t.to_i64(), perm)?)))
    };
    let roles = vec![Role::Permuted, ints(op.begin)?, ints(op.end)?];
    let mask = |m: &Option<Vec<bool>>| m.as_ref().map_or(Some(None), |m| back(m, perm).map(Some));
    let squeezed: Vec<usize> =
        op.squeeze_mask.iter().flatten().enumerate().filter(|(_, s)| **s).map(|(i, _)| i).collect();
    let new = SliceByIndex {
        stride: op.stride.as_ref().map_or(Some(None), |s| back(s, perm).map(Some))?,
        begin_mask: mask(&op.begin_mask)?,
        end_mask: mask(&op.end_mask)?,
        squeeze_mask: mask(&op.squeeze_mask)?,
        ..op.clone()
    };
    Some(Moved { op: Box::new(new), roles, results: vec![without(perm, &squeezed)] })
}

/// The permutation of the axes that stay where some go.
fn without(perm: &[usize], gone: &[usize]) -> Perm {
    let stays: Vec<usize> = perm.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, p)| *p).collect();
    stays.iter().map(|p| stays.iter().filter(|q| *q < p).count()).collect()
}

fn pad(f: &Function, op: &Pad, perm: &[usize]) -> Option<Moved> {
    // Core ML mirrors and repeats along the last axes only.
    if op.mode != PadMode::Constant {
        return None;
    }
    let t = f.constant(op.pad)?;
    let given = t.to_i64();
    let lead = perm.len().checked_sub(given.len() / 2)?;
    let pairs: Vec<[i64; 2]> =
        (0..perm.len()).map(|i| i.checked_sub(lead).map_or([0, 0], |k| [given[2 * k], given[2 * k + 1]])).collect();
    let pairs: Vec<i64> = back(&pairs, perm)?.concat();
    let roles = vec![Role::Permuted, Role::New(Tensor::from_i64(t.dtype(), &[pairs.len()], &pairs))];
    Some(Moved { op: Box::new(op.clone()), roles, results: vec![perm.to_vec()] })
}

fn gather(f: &Function, op: &Gather, perm: &[usize]) -> Option<Moved> {
    let rank = shape(f, op.indices)?.rank();
    if f.constant(op.x).is_some() || op.batch_dims != 0 || rank > 1 {
        return None;
    }
    let at = axis(op.axis, perm.len())?;
    let gone: &[usize] = if rank == 0 { &[at] } else { &[] };
    let new = Gather { axis: perm[at] as i64, ..op.clone() };
    Some(Moved { op: Box::new(new), roles: vec![Role::Permuted, Role::Same], results: vec![without(perm, gone)] })
}

/// Ops that compute along some axes and keep them.
fn along_axes(f: &Function, id: OpId, perm: &[usize]) -> Option<Moved> {
    let along = |at: i64| axis(at, perm.len()).map(|a| perm[a] as i64);
    let all = |axes: &[i64]| axes.iter().map(|a| along(*a)).collect::<Option<Ints>>();
    let mut roles = vec![Role::Permuted];
    let op: Box<dyn Op> = if let Some(op) = f.op::<Softmax>(id) {
        Box::new(Softmax { axis: along(op.axis)?, ..op.clone() })
    } else if let Some(op) = f.op::<Cumsum>(id) {
        Box::new(Cumsum { axis: along(op.axis)?, ..op.clone() })
    } else if let Some(op) = f.op::<Reverse>(id) {
        Box::new(Reverse { axes: op.axes.as_ref().map_or(Some(None), |a| all(a).map(Some))?, ..op.clone() })
    } else {
        let op = f.op::<LayerNorm>(id)?;
        let mut axes = all(&op.axes)?;
        // The factors have the order of the axes of the tensor: it must stay.
        let mut order: Vec<usize> = op.axes.iter().map(|a| axis(*a, perm.len())).collect::<Option<_>>()?;
        order.sort_unstable();
        if !order.windows(2).all(|w| perm[w[0]] < perm[w[1]]) {
            return None;
        }
        axes.sort_unstable();
        roles.extend(op.gamma.iter().chain(&op.beta).map(|_| Role::Same));
        Box::new(LayerNorm { axes, ..op.clone() })
    };
    Some(Moved { op, roles, results: vec![perm.to_vec()] })
}

fn reduction(f: &Function, id: OpId, perm: &[usize]) -> Option<Moved> {
    macro_rules! of_axes {
        ($($ty:ident)*) => { $(
            if let Some(op) = f.op::<$ty>(id) {
                let axes: Vec<usize> = match &op.axes {
                    Some(axes) => axes.iter().map(|a| axis(*a, perm.len())).collect::<Option<_>>()?,
                    None => (0..perm.len()).collect(),
                };
                let moved = op.axes.as_ref().map(|_| axes.iter().map(|a| perm[*a] as i64).collect());
                return Some(reduced(Box::new($ty { axes: moved, ..op.clone() }), perm, &axes, op.keep_dims));
            }
        )* };
    }
    macro_rules! of_axis {
        ($($ty:ident)*) => { $(
            if let Some(op) = f.op::<$ty>(id) {
                let at = axis(op.axis, perm.len())?;
                return Some(reduced(Box::new($ty { axis: perm[at] as i64, ..op.clone() }), perm, &[at], op.keep_dims));
            }
        )* };
    }
    of_axes!(ReduceL1Norm ReduceL2Norm ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum);
    of_axes!(ReduceSumSquare);
    of_axis!(ReduceArgmax ReduceArgmin);
    None
}

fn reduced(op: Box<dyn Op>, perm: &[usize], axes: &[usize], keep_dims: bool) -> Moved {
    let gone = if keep_dims { &[] } else { axes };
    Moved { op, roles: vec![Role::Permuted], results: vec![without(perm, gone)] }
}

/// The transpose that undoes `perm`.
pub(super) fn inverse(x: Value, perm: &[usize]) -> Transpose {
    let mut axes = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, p)| axes[*p] = i as i64);
    Transpose { x, perm: axes }
}

/// The constant of which a constant that is broadcast to the axes of `perm` is the transpose.
fn transposed_back(t: &Tensor, perm: &[usize]) -> Option<Tensor> {
    let mut dims = vec![1; perm.len().checked_sub(t.shape().len())?];
    dims.extend_from_slice(t.shape());
    let to = back(&dims, perm)?;
    if is_row(t) {
        return Some(t.reshape(&to));
    }
    let size = t.dtype().bits() as usize / 8;
    if t.count() > MAX_COPY {
        return None;
    }
    let (steps, bytes) = (back(&strides(&dims), perm)?, t.blob().read());
    if size == 0 || bytes.len() != t.count() * size {
        return None;
    }
    let own = strides(&to);
    let mut moved = Vec::with_capacity(bytes.len());
    for flat in 0..t.count() {
        let at: usize = own.iter().zip(&to).zip(&steps).map(|((own, n), step)| flat / own % n * step).sum();
        moved.extend_from_slice(&bytes[at * size..(at + 1) * size]);
    }
    Tensor::new(t.dtype(), &to, Bytes::from(moved).into()).ok()
}
