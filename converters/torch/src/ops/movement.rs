//! Shapes and orders: views, slices, joins and splits, repetition.

use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

aten! {
    "alias(Tensor(a) self) -> Tensor(a)", "alias_copy(Tensor self) -> Tensor", "detach(Tensor(a) self) -> Tensor(a)",
    "detach_copy(Tensor self) -> Tensor", "lift_fresh(Tensor(a) self) -> Tensor(a)", "lift_fresh_copy(Tensor self) -> Tensor",
    "lift(Tensor self) -> Tensor", "clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor",
    "contiguous(Tensor(a) self, *, MemoryFormat memory_format=contiguous_format) -> Tensor(a)",
    "resolve_conj(Tensor(a) self) -> Tensor(a)", "resolve_neg(Tensor(a) self) -> Tensor(a)",
    "_conj_physical(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; n.done(x) };
    "view(Tensor(a) self, SymInt[] size) -> Tensor(a)", "view_copy(Tensor self, SymInt[] size) -> Tensor",
    "_unsafe_view(Tensor self, SymInt[] size) -> Tensor", "_reshape_copy(Tensor self, SymInt[] size) -> Tensor", "_reshape_alias(Tensor(a) self, SymInt[] size, SymInt[] stride) -> Tensor(a)" => |n| { n.ignore("stride"); reshape(n, "size") };
    "reshape(Tensor(a) self, SymInt[] shape) -> Tensor(a)" => |n| reshape(n, "shape");
    "reshape_as(Tensor(a) self, Tensor other) -> Tensor(a)", "view_as(Tensor(a) self, Tensor other) -> Tensor(a)" => |n| {
        let (x, like) = (n.value("self")?, n.value("other")?);
        let y = n.reshape_as(x, like)?;
        n.done(y)
    };
    "flatten.using_ints(Tensor(a) self, int start_dim=0, int end_dim=-1) -> Tensor(a)" => flatten;
    "ravel(Tensor(a) self) -> Tensor(a)" => |n| { let x = n.value("self")?; let y = n.reshape_to(x, &[-1])?; n.done(y) };
    "unflatten.int(Tensor(a) self, int dim, SymInt[] sizes) -> Tensor(a)" => unflatten;
    "squeeze(Tensor(a) self) -> Tensor(a)", "squeeze.dim(Tensor(a) self, int dim) -> Tensor(a)",
    "squeeze.dims(Tensor(a) self, int[] dim) -> Tensor(a)", "squeeze_copy(Tensor self) -> Tensor",
    "squeeze_copy.dim(Tensor self, int dim) -> Tensor", "squeeze_copy.dims(Tensor self, int[] dim) -> Tensor" => squeeze;
    "unsqueeze(Tensor(a) self, int dim) -> Tensor(a)", "unsqueeze_copy(Tensor self, int dim) -> Tensor" => |n| {
        let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
        let y = n.expand_dims(x, &[dim])?;
        n.done(y)
    };
    "transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)", "transpose_copy.int(Tensor self, int dim0, int dim1) -> Tensor",
    "transpose(Tensor(a) self, int dim0, int dim1) -> Tensor(a)",
    "swapaxes(Tensor(a) self, int axis0, int axis1) -> Tensor(a)", "swapdims(Tensor(a) self, int dim0, int dim1) -> Tensor(a)" => transpose;
    "t(Tensor(a) self) -> Tensor(a)", "t_copy(Tensor self) -> Tensor", "numpy_T(Tensor(a) self) -> Tensor(a)" => |n| {
        let x = n.value("self")?;
        let perm: Vec<i64> = (0..n.rank(x)? as i64).rev().collect();
        let y = n.permute(x, &perm)?;
        n.done(y)
    };
    "mT(Tensor(a) self) -> Tensor(a)" => |n| { let x = n.value("self")?; let y = swapped(n, x, -2, -1)?; n.done(y) };
    "permute(Tensor(a) self, int[] dims) -> Tensor(a)", "permute_copy(Tensor self, int[] dims) -> Tensor" => |n| {
        let (x, dims) = (n.value("self")?, n.ints("dims")?.unwrap_or_default());
        let y = n.permute(x, &dims)?;
        n.done(y)
    };
    "movedim.int(Tensor(a) self, int source, int destination) -> Tensor(a)",
    "movedim.intlist(Tensor(a) self, int[] source, int[] destination) -> Tensor(a)" => movedim;
    "expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)",
    "expand_copy(Tensor self, SymInt[] size, *, bool implicit=False) -> Tensor",
    "broadcast_to(Tensor(a) self, SymInt[] size) -> Tensor(a)" => expand;
    "expand_as(Tensor(a) self, Tensor other) -> Tensor(a)" => |n| {
        let (x, like) = (n.value("self")?, n.value("other")?);
        let y = n.broadcast_like(x, like)?;
        n.done(y)
    };
    "repeat(Tensor self, SymInt[] repeats) -> Tensor" => |n| tile(n, "repeats");
    "tile(Tensor self, SymInt[] dims) -> Tensor" => |n| tile(n, "dims");
    "select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)", "select_copy.int(Tensor self, int dim, SymInt index) -> Tensor" => select;
    "slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor(a)",
    "slice_copy.Tensor(Tensor self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor" => slice;
    "narrow(Tensor(a) self, int dim, SymInt start, SymInt length) -> Tensor(a)",
    "narrow.Tensor(Tensor(a) self, int dim, Tensor start, SymInt length) -> Tensor(a)", "narrow_copy(Tensor self, int dim, SymInt start, SymInt length) -> Tensor" => narrow;
    "cat(Tensor[] tensors, int dim=0) -> Tensor", "concat(Tensor[] tensors, int dim=0) -> Tensor", "concatenate(Tensor[] tensors, int dim=0) -> Tensor" => |n| { let axis = n.int_or("dim", 0)?; cat(n, axis) };
    "hstack(Tensor[] tensors) -> Tensor" => |n| {
        let all = n.values("tensors")?;
        let axis = i64::from(!all.iter().all(|v| n.rank(*v).is_ok_and(|r| r <= 1)));
        cat(n, axis)
    };
    "stack(Tensor[] tensors, int dim=0) -> Tensor", "_stack(Tensor[] tensors, int dim=0) -> Tensor" => stack;
    "split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]", "unsafe_split.Tensor(Tensor self, SymInt split_size, int dim=0) -> Tensor[]",
    "split_copy.Tensor(Tensor self, SymInt split_size, int dim=0) -> Tensor[]" => split;
    "unsafe_split_with_sizes(Tensor self, SymInt[] split_sizes, int dim=0) -> Tensor[]", "split_with_sizes(Tensor(a -> *) self, SymInt[] split_sizes, int dim=0) -> Tensor(a)[]",
    "split.sizes(Tensor(a -> *) self, SymInt[] split_size, int dim=0) -> Tensor(a)[]",
    "split_with_sizes_copy(Tensor self, SymInt[] split_sizes, int dim=0) -> Tensor[]" => split_with_sizes;
    "chunk(Tensor(a -> *) self, int chunks, int dim=0) -> Tensor(a)[]", "unsafe_chunk(Tensor self, int chunks, int dim=0) -> Tensor[]" => chunk;
    "hsplit.int(Tensor(a -> *) self, int sections) -> Tensor(a)[]", "hsplit.array(Tensor(a -> *) self, int[] indices) -> Tensor(a)[]" => |n| {
        let x = n.value("self")?;
        let axis = usize::from(n.rank(x)? > 1);
        tensor_split_along(n, axis)
    };
    "vsplit.int(Tensor(a -> *) self, int sections) -> Tensor(a)[]", "vsplit.array(Tensor(a -> *) self, int[] indices) -> Tensor(a)[]" => |n| tensor_split_along(n, 0);
    "dsplit.int(Tensor(a -> *) self, int sections) -> Tensor(a)[]", "dsplit.array(Tensor(a -> *) self, int[] indices) -> Tensor(a)[]" => |n| tensor_split_along(n, 2);
    "tensor_split.sections(Tensor(a -> *) self, SymInt sections, int dim=0) -> Tensor(a)[]",
    "tensor_split.indices(Tensor(a -> *) self, SymInt[] indices, int dim=0) -> Tensor(a)[]" => tensor_split;
    "unbind.int(Tensor(a -> *) self, int dim=0) -> Tensor(a)[]", "unbind_copy.int(Tensor self, int dim=0) -> Tensor[]" => unbind;
    "flip(Tensor self, int[] dims) -> Tensor" => |n| { let dims = n.ints("dims")?.unwrap_or_default(); flip(n, dims) };
    "fliplr(Tensor self) -> Tensor" => |n| flip(n, vec![1]);
    "flipud(Tensor self) -> Tensor" => |n| flip(n, vec![0]);
    "roll(Tensor self, SymInt[1] shifts, int[1] dims=[]) -> Tensor" => roll;
    "select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor" => select_scatter;
    "slice_scatter(Tensor self, Tensor src, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor" => slice_scatter;
    "atleast_1d(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; let y = n.at_least_1d(x)?; n.done(y) };
}

/// Sizes of a view, of which -1 stands for what is left.
fn sizes(n: &mut Lower<'_>, name: &'static str) -> Result<Vec<Size>, LowerError> {
    let all = n.sizes_arg(name)?.unwrap_or_default();
    Ok(all.into_iter().map(|s| if matches!(s, Size::Known(-1)) { Size::Rest } else { s }).collect())
}

fn reshape(n: &mut Lower<'_>, name: &'static str) -> Lowered {
    let x = n.value("self")?;
    let sizes = sizes(n, name)?;
    let y = if sizes.is_empty() { n.as_scalar(x)? } else { n.reshape(x, &sizes)? };
    n.done(y)
}

fn flatten(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    if n.rank(x)? == 0 {
        let y = n.expand_dims(x, &[0])?;
        return n.done(y);
    }
    let (from, to) = (n.int_or("start_dim", 0)?, n.int_or("end_dim", -1)?);
    let (from, to) = (n.axis(x, from)?, n.axis(x, to)?);
    if from > to {
        return n.bad_attr("end_dim", "an axis that is not before `start_dim`");
    }
    let y = n.merge_axes(x, from, to + 1)?;
    n.done(y)
}

fn unflatten(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    let parts = sizes(n, "sizes")?;
    let mut all = n.own_sizes(x)?;
    all.splice(axis..=axis, parts);
    let y = n.reshape(x, &all)?;
    n.done(y)
}

/// Axes of another size than 1 stay.
fn squeeze(n: &mut Lower<'_>) -> Lowered {
    let (x, dims) = (n.value("self")?, n.ints("dim")?);
    let shape = n.shape(x)?;
    let mut axes: Vec<i64> = vec![];
    match dims {
        None => axes.extend((0..shape.rank()).filter(|i| shape[*i].is(1)).map(|i| i as i64)),
        Some(_) if shape.rank() == 0 => {}
        Some(dims) => {
            for d in dims {
                let axis = n.axis(x, d)?;
                if shape[axis].is(1) && !axes.contains(&(axis as i64)) {
                    axes.push(axis as i64);
                }
            }
        }
    }
    let y = n.squeeze(x, &axes)?;
    n.done(y)
}

/// `x` with two of its axes in each other's place.
pub(super) fn swapped(n: &mut Lower<'_>, x: Value, a: i64, b: i64) -> Result<Value, LowerError> {
    if n.rank(x)? == 0 {
        return Ok(x);
    }
    let (a, b) = (n.axis(x, a)?, n.axis(x, b)?);
    let mut perm: Vec<i64> = (0..n.rank(x)? as i64).collect();
    perm.swap(a, b);
    n.permute(x, &perm)
}

fn transpose(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let (a, b) = if n.has("axis0") || n.has("axis1") { ("axis0", "axis1") } else { ("dim0", "dim1") };
    let (a, b) = (n.int_or(a, 0)?, n.int_or(b, 0)?);
    let y = swapped(n, x, a, b)?;
    n.done(y)
}

pub(super) fn movedim(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let (from, to) = (n.ints("source")?.unwrap_or_default(), n.ints("destination")?.unwrap_or_default());
    let mut moved = vec![];
    for (from, to) in from.iter().zip(&to) {
        moved.push((n.axis(x, *to)?, n.axis(x, *from)? as i64));
    }
    let mut rest =
        (0..n.rank(x)? as i64).filter(|i| !moved.iter().any(|(_, from)| from == i)).collect::<Vec<_>>().into_iter();
    let at = |i: usize| moved.iter().find(|(to, _)| *to == i).map(|(_, from)| *from);
    let perm: Vec<i64> = (0..n.rank(x)?).filter_map(|i| at(i).or_else(|| rest.next())).collect();
    let y = n.permute(x, &perm)?;
    n.done(y)
}

/// A size of -1 is that of the tensor.
fn expand(n: &mut Lower<'_>) -> Lowered {
    n.ignore("implicit");
    let x = n.value("self")?;
    let wanted = n.sizes_arg("size")?.unwrap_or_default();
    let Some(lead) = wanted.len().checked_sub(n.rank(x)?) else {
        return n.bad_attr("size", "as many sizes as the tensor has axes, or more");
    };
    let own = |(i, s): (usize, &Size)| match s {
        Size::Known(-1) if i >= lead => Size::Of(x, i - lead),
        s => *s,
    };
    let sizes: Vec<Size> = wanted.iter().enumerate().map(own).collect();
    if sizes.is_empty() {
        return n.done(x);
    }
    let shape = n.sizes_exactly(&sizes)?;
    let y = n.without_bool(x, |n, x| n.broadcast_to(x, shape))?;
    n.done(y)
}

fn tile(n: &mut Lower<'_>, name: &'static str) -> Lowered {
    let x = n.value("self")?;
    let reps = n.sizes_arg(name)?.unwrap_or_default();
    let (rank, count) = (n.rank(x)?, reps.len());
    let x = if count > rank { n.expand_dims(x, &(0..(count - rank) as i64).collect::<Vec<_>>())? } else { x };
    let ahead = rank.saturating_sub(count);
    let reps: Vec<Size> = std::iter::repeat_n(Size::Known(1), ahead).chain(reps).collect();
    if reps.is_empty() || reps.iter().all(|r| matches!(r, Size::Known(1))) {
        return n.done(x);
    }
    let reps = n.sizes_exactly(&reps)?;
    let y = n.without_bool(x, |n, x| n.op(ops::Tile { x, reps }))?;
    n.done(y)
}

fn select(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    let y = match n.size("index")? {
        Some(Size::Known(at)) => {
            let end = if at == -1 { None } else { Some(at.saturating_add(1)) };
            let one = n.slice(x, axis, at, end)?;
            n.squeeze(one, &[axis as i64])?
        }
        Some(Size::Held(v)) => n.gather(x, v, axis)?,
        _ => return n.bad_attr("index", "an index"),
    };
    n.done(y)
}

/// Where a slice begins or ends: a number that may count from the end, a value, or the end of the axis.
fn bound(n: &mut Lower<'_>, x: Value, axis: usize, name: &'static str) -> Result<Option<Size>, LowerError> {
    let size = n.shape(x)?[axis].as_known();
    Ok(match n.size(name)? {
        Some(Size::Known(at)) => Some(Size::Known(match size {
            Some(size) => (if at < 0 { at.saturating_add(size) } else { at }).clamp(0, size),
            None if at >= i64::from(i32::MAX) => return Ok(None),
            None => at,
        })),
        other => other,
    })
}

/// The bounds of `start`, `end` and `step` along an axis.
fn range(n: &mut Lower<'_>, x: Value, axis: usize) -> Result<(Size, Option<Size>, i64), LowerError> {
    let (start, end, step) = (bound(n, x, axis, "start")?, bound(n, x, axis, "end")?, n.int_or("step", 1)?);
    if step < 1 {
        return n.bad_attr("step", "1 or more");
    }
    Ok((start.unwrap_or(Size::Known(0)), end, step.min(i64::from(i32::MAX))))
}

fn slice(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    let (start, end, step) = range(n, x, axis)?;
    let y = sliced(n, x, axis, start, end, step)?;
    n.done(y)
}

fn sliced(
    n: &mut Lower<'_>,
    x: Value,
    axis: usize,
    start: Size,
    end: Option<Size>,
    step: i64,
) -> Result<Value, LowerError> {
    let size = n.shape(x)?[axis].as_known();
    match (start, end) {
        (Size::Known(start), None | Some(Size::Known(_))) => {
            let end = end.and_then(|e| if let Size::Known(e) = e { Some(e) } else { None });
            if start == 0 && step == 1 && (end.is_none() || end == size) {
                return Ok(x);
            }
            n.slice_by(x, &[(axis, start, end, step)])
        }
        _ => {
            let rank = n.rank(x)?;
            let at = |s: Size| (0..rank).map(|i| if i == axis { s } else { Size::Known(0) }).collect::<Vec<_>>();
            let begin = n.sizes_exactly(&at(start))?;
            let stop = n.sizes_exactly(&at(end.unwrap_or(Size::Known(0))))?;
            let mask = |here: bool| Some((0..rank).map(|i| i != axis || here).collect::<Vec<_>>());
            n.op(ops::SliceByIndex {
                x,
                begin,
                end: stop,
                stride: Some((0..rank).map(|i| if i == axis { step } else { 1 }).collect()),
                begin_mask: mask(false),
                end_mask: mask(end.is_none()),
                squeeze_mask: None,
            })
        }
    }
}

fn narrow(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    let Some(length) = n.size("length")? else { return n.bad_attr("length", "a length") };
    let start = bound(n, x, axis, "start")?.unwrap_or(Size::Known(0));
    let end = match (start, length) {
        (Size::Known(a), Size::Known(b)) => Size::Known(a.saturating_add(b)),
        (a, b) => {
            let (a, b) = (n.sizes_exactly(&[a])?, n.sizes_exactly(&[b])?);
            let sum = n.add(a, b)?;
            Size::Held(n.squeeze(sum, &[0])?)
        }
    };
    let y = sliced(n, x, axis, start, Some(end), 1)?;
    n.done(y)
}

fn cat(n: &mut Lower<'_>, axis: i64) -> Lowered {
    let mut values = n.values("tensors")?;
    // An empty vector takes part in no join.
    let mut kept = vec![];
    for v in &values {
        if !(n.rank(*v)? == 1 && n.shape(*v)?[0].is(0)) {
            kept.push(*v);
        }
    }
    if !kept.is_empty() {
        values = kept;
    }
    let y = joined(n, values, |n, values| n.concat(values, axis))?;
    n.done(y)
}

/// `join` of values of one type.
pub(super) fn joined(
    n: &mut Lower<'_>,
    values: Vec<Value>,
    join: impl FnOnce(&mut Lower<'_>, Vec<Value>) -> Result<Value, LowerError>,
) -> Result<Value, LowerError> {
    let mut dtype = None;
    for v in &values {
        let own = n.dtype(*v)?;
        dtype = Some(dtype.map_or(own, |d| super::promote::joined(d, own)));
    }
    let Some(dtype) = dtype else { return Err(LowerError::form("a join of nothing")) };
    let mut alike = vec![];
    for v in values {
        alike.push(n.cast(v, dtype)?);
    }
    join(n, alike)
}

fn stack(n: &mut Lower<'_>) -> Lowered {
    let (values, axis) = (n.values("tensors")?, n.int_or("dim", 0)?);
    let y = joined(n, values, |n, values| n.op(ops::Stack { values, axis }))?;
    n.done(y)
}

/// The parts of `x` of these sizes along an axis, as entries.
fn parts(n: &mut Lower<'_>, x: Value, axis: usize, sizes: &[i64]) -> Lowered {
    let mut out = vec![];
    let mut from = 0i64;
    if let [_] = sizes {
        return n.done(x);
    }
    if sizes.iter().all(|s| *s > 0) {
        let split_sizes = Some(sizes.to_vec());
        let values = n.ops(ops::Split { x, num_splits: None, split_sizes, axis: axis as i64 })?;
        return Ok(values.into_iter().map(Entry::Value).collect());
    }
    for size in sizes {
        let part = n.slice(x, axis, from, Some(from.saturating_add(*size)))?;
        out.push(Entry::Value(part));
        from = from.saturating_add(*size);
    }
    Ok(out)
}

/// The size along the axis that a split is over, which must be known.
fn fixed(n: &Lower<'_>, x: Value, axis: usize) -> Result<i64, LowerError> {
    n.shape(x)?[axis].as_known().ok_or_else(|| LowerError::NotFixed { what: "the number of parts".to_owned() })
}

/// What parts of `size` elements come to.
fn even(total: i64, size: i64) -> Vec<i64> {
    let size = size.max(1);
    let whole = (0..total / size).map(|_| size);
    whole.chain((total % size != 0).then_some(total % size)).collect()
}

fn split(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    let size = n.int_or("split_size", 1)?;
    let total = fixed(n, x, axis)?;
    if size < 1 || total / size > 1 << 16 {
        return n.bad_attr("split_size", "1 or more, and not too many parts");
    }
    parts(n, x, axis, &even(total, size))
}

fn split_with_sizes(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    let name = if n.has("split_sizes") { "split_sizes" } else { "split_size" };
    let sizes = n.ints(name)?.unwrap_or_default();
    if sizes.iter().any(|s| *s < 0) {
        return n.bad_attr(name, "sizes of 0 or more");
    }
    parts(n, x, axis, &sizes)
}

fn chunk(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    let count = n.int_or("chunks", 1)?;
    if !(1..=1 << 16).contains(&count) {
        return n.bad_attr("chunks", "a number of parts");
    }
    let total = fixed(n, x, axis)?;
    parts(n, x, axis, &even(total, chunk_size(total, count)))
}

/// The size of each of so many chunks but for the last ones.
pub(super) fn chunk_size(total: i64, count: i64) -> i64 {
    total / count + i64::from(total % count != 0)
}

/// Where a split at `i` is, which counts from the end below 0.
pub(super) fn cut_at(i: i64, total: i64) -> i64 {
    (if i < 0 { i.saturating_add(total) } else { i }).clamp(0, total)
}

fn tensor_split(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    tensor_split_along(n, axis)
}

fn tensor_split_along(n: &mut Lower<'_>, axis: usize) -> Lowered {
    let x = n.value("self")?;
    if axis >= n.rank(x)? {
        return Err(LowerError::form(format!("splitting {} along axis {axis}", n.ty(x)?)));
    }
    let total = fixed(n, x, axis)?;
    let sizes: Vec<i64> = if n.has("indices") {
        let indices = n.ints("indices")?.unwrap_or_default();
        let cuts: Vec<i64> = indices.into_iter().map(|i| cut_at(i, total)).chain([total]).collect();
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        starts.zip(&cuts).map(|(a, b)| (b - a).max(0)).collect()
    } else {
        let count = n.int_or("sections", 1)?;
        if !(1..=1 << 16).contains(&count) {
            return n.bad_attr("sections", "a number of parts");
        }
        (0..count).map(|i| total / count + i64::from(i < total % count)).collect()
    };
    parts(n, x, axis, &sizes)
}

fn unbind(n: &mut Lower<'_>) -> Lowered {
    let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    let total = fixed(n, x, axis)?;
    let all = parts(n, x, axis, &vec![1; usize::try_from(total).unwrap_or(0).min(1 << 16)])?;
    let mut out = vec![];
    for e in all {
        let v = n.entry_value(e)?;
        out.push(Entry::Value(n.squeeze(v, &[axis as i64])?));
    }
    Ok(out)
}

fn flip(n: &mut Lower<'_>, dims: Vec<i64>) -> Lowered {
    let x = n.value("self")?;
    if dims.is_empty() {
        return n.done(x);
    }
    let y = n.without_bool(x, |n, x| n.op(ops::Reverse { x, axes: Some(dims) }))?;
    n.done(y)
}

/// Along each axis the last elements come first.
fn roll(n: &mut Lower<'_>) -> Lowered {
    let mut x = n.value("self")?;
    let (shifts, dims) = (n.ints("shifts")?.unwrap_or_default(), n.ints("dims")?.unwrap_or_default());
    let original = x;
    let flat = dims.is_empty();
    if flat {
        x = n.reshape_to(x, &[-1])?;
    }
    let dims = if flat { vec![0] } else { dims };
    for (shift, dim) in shifts.iter().zip(&dims) {
        let axis = n.axis(x, *dim)?;
        // Of an axis whose size is open, a shift by less than it is meant.
        let by = match n.shape(x)?[axis].as_known() {
            Some(size) => shift.rem_euclid(size.max(1)),
            None if shift.unsigned_abs() < 1 << 31 => *shift,
            None => return n.bad_attr("shifts", "shifts by less than 2^31"),
        };
        if by == 0 {
            continue;
        }
        let (head, tail) = (n.slice(x, axis, 0, Some(-by))?, n.slice(x, axis, -by, None)?);
        x = n.concat(vec![tail, head], axis as i64)?;
    }
    let y = if flat { n.reshape_as(x, original)? } else { x };
    n.done(y)
}

/// `self` with `src` at one place of an axis.
fn select_scatter(n: &mut Lower<'_>) -> Lowered {
    let (x, src, dim) = (n.value("self")?, n.value("src")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    let src = n.expand_dims(src, &[axis as i64])?;
    let Some(index) = n.int("index")? else { return n.bad_attr("index", "an index") };
    let size = fixed(n, x, axis)?;
    let at = if index < 0 { index.saturating_add(size) } else { index };
    let y = replaced(n, x, src, axis, at, at.saturating_add(1), 1)?;
    n.done(y)
}

fn slice_scatter(n: &mut Lower<'_>) -> Lowered {
    let (x, src, dim) = (n.value("self")?, n.value("src")?, n.int_or("dim", 0)?);
    let axis = n.axis(x, dim)?;
    let size = n.shape(x)?[axis].as_known();
    let (start, end, step) = range(n, x, axis)?;
    let last = match end {
        Some(Size::Known(end)) => Some(end),
        None => size,
        _ => None,
    };
    let y = match (start, last) {
        (Size::Known(start), Some(end)) => replaced(n, x, src, axis, start, end, step)?,
        // How long the slice is says what is written.
        (start, _) => replaced_from(n, x, src, axis, start, step)?,
    };
    n.done(y)
}

/// `x` with `src` along an axis from a place on that is known when the program runs; one below 0 counts from the end.
fn replaced_from(
    n: &mut Lower<'_>,
    x: Value,
    src: Value,
    axis: usize,
    start: Size,
    step: i64,
) -> Result<Value, LowerError> {
    let start = match start {
        Size::Held(v) => n.as_scalar(v)?,
        Size::Of(v, axis) => n.size_of(v, axis)?,
        Size::Known(start) => n.const_int(start)?,
        Size::Rest => return Err(LowerError::NotFixed { what: "the slice that is written".to_owned() }),
    };
    let start = n.cast(start, DType::I32)?;
    let (size, zero) = (n.size_of(x, axis)?, n.const_int(0)?);
    let from_end = n.add(start, size)?;
    let from_end = n.maximum(from_end, zero)?;
    let is_from_end = n.op(ops::Less { x: start, y: zero })?;
    let start = n.select(is_from_end, from_end, start)?;
    let places = n.counted(src, axis, DType::I32)?;
    let places = if step == 1 { places } else { n.scale(places, step as f64)? };
    let indices = n.add(places, start)?;
    let mode = ops::ScatterMode::Update;
    n.without_bool(x, |n, data| {
        let to = n.dtype(data)?;
        let updates = n.cast(src, to)?;
        n.op(ops::Scatter { data, indices, updates, axis: axis as i64, mode, validate_indices: false })
    })
}

/// `x` with `src` in the place of a slice along an axis: joined from what is before, it, and what is behind.
pub(super) fn replaced(
    n: &mut Lower<'_>,
    x: Value,
    src: Value,
    axis: usize,
    start: i64,
    end: i64,
    step: i64,
) -> Result<Value, LowerError> {
    let dtype = n.dtype(x)?;
    let src = n.cast(src, dtype)?;
    let size = n.shape(x)?[axis].as_known();
    if step != 1 {
        let size = size.ok_or_else(|| LowerError::NotFixed { what: "the slice that is written".to_owned() })?;
        let count = end.min(size).saturating_sub(start).max(0);
        if count == 0 {
            return Ok(x);
        }
        n.affords(usize::try_from(chunk_size(count, step)).unwrap_or(usize::MAX))?;
        let places: Vec<i64> = (start..start + count).step_by(step as usize).collect();
        let indices = n.const_ints(&places)?;
        let mode = ops::ScatterMode::Update;
        return n.without_bool(x, |n, data| {
            let to = n.dtype(data)?;
            let updates = n.cast(src, to)?;
            n.op(ops::Scatter { data, indices, updates, axis: axis as i64, mode, validate_indices: false })
        });
    }
    if start >= end {
        return Ok(x);
    }
    let mut values = vec![];
    if start != 0 {
        values.push(n.slice(x, axis, 0, Some(start))?);
    }
    values.push(src);
    if size != Some(end) {
        values.push(n.slice(x, axis, end, None)?);
    }
    n.concat(values, axis as i64)
}
