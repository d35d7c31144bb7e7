//! Diagonals, triangles, and matrices put together.

use super::movement::swapped;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Diagonal, Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::{DType, Tensor};

aten! {
    "diagonal(Tensor(a) self, int offset=0, int dim1=0, int dim2=1) -> Tensor(a)", "diagonal_copy(Tensor self, int offset=0, int dim1=0, int dim2=1) -> Tensor" => |n| {
        let (x, offset) = (n.value("self")?, n.int_or("offset", 0)?);
        let (a, b) = (n.int_or("dim1", 0)?, n.int_or("dim2", 1)?);
        let y = diagonal(n, x, offset, a, b)?;
        n.done(y)
    };
    "linalg_diagonal(Tensor(a) A, *, int offset=0, int dim1=-2, int dim2=-1) -> Tensor(a)" => |n| {
        let (x, offset) = (n.value("A")?, n.int_or("offset", 0)?);
        let (a, b) = (n.int_or("dim1", -2)?, n.int_or("dim2", -1)?);
        let y = diagonal(n, x, offset, a, b)?;
        n.done(y)
    };
    "diag(Tensor self, int diagonal=0) -> Tensor" => |n| {
        let (x, offset) = (n.value("self")?, n.int_or("diagonal", 0)?);
        let y = if n.rank(x)? == 1 { embedded(n, x, offset)? } else { diagonal(n, x, offset, 0, 1)? };
        n.done(y)
    };
    "diagflat(Tensor self, int offset=0) -> Tensor" => |n| {
        let (x, offset) = (n.value("self")?, n.int_or("offset", 0)?);
        let x = n.reshape_to(x, &[-1])?;
        let y = embedded(n, x, offset)?;
        n.done(y)
    };
    "fill_diagonal(Tensor self, Scalar fill_value, bool wrap=False) -> Tensor" => fill_diagonal;
    "diag_embed(Tensor self, int offset=0, int dim1=-2, int dim2=-1) -> Tensor" => diag_embed;
    "tril(Tensor self, SymInt diagonal=0) -> Tensor" => |n| triangle(n, false);
    "triu(Tensor self, SymInt diagonal=0) -> Tensor" => |n| triangle(n, true);
    "tril_indices(int row, int col, int offset=0, *, ScalarType? dtype=None) -> Tensor" => |n| triangle_indices(n, false);
    "triu_indices(int row, int col, int offset=0, *, ScalarType? dtype=None) -> Tensor" => |n| triangle_indices(n, true);
    "block_diag(Tensor[] tensors) -> Tensor" => block_diag;
    "cartesian_prod(Tensor[] tensors) -> Tensor" => |n| {
        let all = n.values("tensors")?;
        if let [one] = all[..] {
            return n.done(one);
        }
        let mut columns = vec![];
        for v in grid(n, &all)? {
            columns.push(n.reshape_to(v, &[-1, 1])?);
        }
        let y = n.concat(columns, 1)?;
        n.done(y)
    };
    "meshgrid(Tensor[] tensors) -> Tensor[]", "meshgrid.indexing(Tensor[] tensors, *, str indexing) -> Tensor[]" => meshgrid;
    "rot90(Tensor self, int k=1, int[] dims=[0,1]) -> Tensor" => turned;
    "vander(Tensor x, int? N=None, bool increasing=False) -> Tensor", "linalg_vander(Tensor x, *, SymInt? N=None) -> Tensor" => vander;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Where the elements of a diagonal lie in a matrix, row by row.
pub(super) fn places(rows: i64, columns: i64, offset: i64) -> Vec<i64> {
    let (first, column) = ((-offset.max(-i64::MAX)).max(0), offset.max(0));
    let count = rows.saturating_sub(first).min(columns.saturating_sub(column)).max(0);
    (0..count).map(|i| (first + i).saturating_mul(columns).saturating_add(column + i)).collect()
}

/// The diagonal of matrices along two axes, as the last axis.
fn diagonal(n: &mut Lower<'_>, x: Value, offset: i64, a: i64, b: i64) -> Result<Value> {
    let (a, b) = (n.axis(x, a)?, n.axis(x, b)?);
    if a == b {
        return Err(LowerError::form("a diagonal along one axis"));
    }
    let (rank, shape) = (n.rank(x)?, n.shape(x)?);
    let (Some(rows), Some(columns)) = (shape[a].as_known(), shape[b].as_known()) else {
        return Err(LowerError::NotFixed { what: "the diagonal".to_owned() });
    };
    n.affords(usize::try_from(rows.min(columns)).unwrap_or(0))?;
    let rest = (0..rank).filter(|i| *i != a && *i != b);
    let order: Vec<i64> = rest.chain([a, b]).map(|i| i as i64).collect();
    let x = n.permute(x, &order)?;
    let x = n.merge_axes(x, rank - 2, rank)?;
    n.gather_at(x, rank - 2, &places(rows, columns, offset))
}

/// Matrices along the last two axes that have the rows of `x` on a diagonal.
fn embedded(n: &mut Lower<'_>, x: Value, offset: i64) -> Result<Value> {
    let Some(axis) = n.rank(x)?.checked_sub(1) else { return Err(LowerError::form("a diagonal of a scalar")) };
    let size = n.shape(x)?[axis].as_known();
    let size = size.ok_or_else(|| LowerError::NotFixed { what: "the diagonal".to_owned() })?;
    let more = offset.saturating_abs();
    let whole = size.saturating_add(more);
    let side = usize::try_from(whole).unwrap_or(usize::MAX);
    n.affords(side.saturating_mul(side))?;
    let x = if more == 0 {
        x
    } else {
        let mut sizes = n.own_sizes(x)?;
        sizes[axis] = Size::Known(more);
        let (shape, zero) = (n.sizes_exactly(&sizes)?, n.scalar_like(x, 0.0)?);
        let zeros = n.op(ops::Fill { shape, value: Some(zero) })?;
        n.concat(vec![x, zeros], axis as i64)?
    };
    // Above the main diagonal, element `i` is in row `i`; below it, in column `i`.
    let x = n.expand_dims(x, &[if offset < 0 { -2 } else { -1 }])?;
    let on = (0..whole * whole).map(|i| i % whole - i / whole == offset);
    let on = n.add_const(Tensor::from_bools(&[side, side], on))?;
    let zero = n.scalar_like(x, 0.0)?;
    n.select(on, x, zero)
}

/// The main diagonal, of more than two axes too; of a tall matrix it begins again where it is asked to.
fn fill_diagonal(n: &mut Lower<'_>) -> Lowered {
    let (x, value, wrap) = (n.value("self")?, n.value("fill_value")?, n.flag("wrap", false)?);
    let sizes = n.fixed_shape(x, "the diagonal")?;
    if sizes.len() < 2 {
        return Err(LowerError::form("a diagonal of less than two axes"));
    }
    let count = sizes.iter().try_fold(1usize, |all, d| all.checked_mul(usize::try_from(*d).ok()?));
    n.affords(count.unwrap_or(usize::MAX))?;
    let dtype = n.dtype(x)?;
    let value = n.cast(value, dtype)?;
    let mut on = vec![];
    let mut index = vec![0i64; sizes.len()];
    for at in 0..count.unwrap_or(0) as i64 {
        let same = index.iter().all(|i| *i == index[0]);
        on.push(if wrap && sizes.len() == 2 { at % (sizes[1] + 1) == 0 } else { same });
        for (i, size) in index.iter_mut().zip(&sizes).rev() {
            *i += 1;
            if *i < *size {
                break;
            }
            *i = 0;
        }
    }
    let shape: Vec<usize> = sizes.iter().map(|d| *d as usize).collect();
    let cond = n.add_const(Tensor::from_bools(&shape, on))?;
    n.emit(ops::Select { cond, a: value, b: x })
}

fn diag_embed(n: &mut Lower<'_>) -> Lowered {
    let (x, offset) = (n.value("self")?, n.int_or("offset", 0)?);
    let (dim1, dim2) = (n.int_or("dim1", -2)?, n.int_or("dim2", -1)?);
    let y = embedded(n, x, offset)?;
    let (a, b, rank) = (n.axis(y, dim1)?, n.axis(y, dim2)?, n.rank(y)?);
    let mut rest = 0..rank as i64 - 2;
    let place = |i: usize| {
        if i == a {
            Some(rank as i64 - 2)
        } else if i == b {
            Some(rank as i64 - 1)
        } else {
            rest.next()
        }
    };
    let order: Vec<i64> = (0..rank).filter_map(place).collect();
    let y = n.permute(y, &order)?;
    n.done(y)
}

fn triangle(n: &mut Lower<'_>, upper: bool) -> Lowered {
    let x = n.value("self")?;
    let diagonal = match n.size("diagonal")? {
        Some(Size::Known(k)) => Diagonal::Known(k),
        Some(Size::Held(v)) => Diagonal::Held(v),
        _ => Diagonal::Known(0),
    };
    let y = n.triangle(x, diagonal, upper)?;
    n.done(y)
}

fn triangle_indices(n: &mut Lower<'_>, upper: bool) -> Lowered {
    let (rows, columns, offset) = (n.int_or("row", 0)?, n.int_or("col", 0)?, n.int_or("offset", 0)?);
    let dtype = n.dtype_arg("dtype")?.unwrap_or(DType::I64);
    if !(0..=1 << 15).contains(&rows) || !(0..=1 << 15).contains(&columns) {
        return n.bad_attr("row", "a matrix of at most 32768 rows and columns");
    }
    n.affords((rows * columns * 2) as usize)?;
    let all = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c)));
    let (mut first, second): (Vec<i64>, Vec<i64>) =
        all.filter(|(r, c)| if upper { c - r >= offset } else { c - r <= offset }).unzip();
    let count = first.len();
    first.extend(second);
    n.literal(Tensor::from_i64(dtype, &[2, count], &first))
}

fn block_diag(n: &mut Lower<'_>) -> Lowered {
    let mut blocks = vec![];
    for v in n.values("tensors")? {
        let v = match n.rank(v)? {
            0 => n.expand_dims(v, &[0, 1])?,
            1 => n.expand_dims(v, &[0])?,
            _ => v,
        };
        blocks.push(v);
    }
    let mut dtype = DType::Bool;
    for v in &blocks {
        dtype = super::promote::joined(dtype, n.dtype(*v)?);
    }
    let mut widths = vec![];
    for v in &blocks {
        widths.push(n.shape(*v)?.get(1).and_then(mlconv_tensor::Dim::as_known));
    }
    if let Some(widths) = widths.into_iter().collect::<Option<Vec<i64>>>() {
        return fixed_block_diag(n, &blocks, &widths, dtype);
    }
    if blocks.len() > MAX_BLOCKS {
        return Err(LowerError::form(format!("more than {MAX_BLOCKS} blocks of open sizes")));
    }
    let mut rows = vec![];
    for (i, block) in blocks.iter().enumerate() {
        let block = n.cast(*block, dtype)?;
        let mut parts = vec![];
        for (k, other) in blocks.iter().enumerate() {
            if i == k {
                parts.push(block);
            } else if !n.shape(*other)?[1].is(0) {
                let shape = n.sizes_exactly(&[Size::Of(block, 0), Size::Of(*other, 1)])?;
                let zero = n.const_scalar(dtype, 0.0)?;
                parts.push(n.op(ops::Fill { shape, value: Some(zero) })?);
            }
        }
        rows.push(n.concat(parts, 1)?);
    }
    let y = n.concat(rows, 0)?;
    n.done(y)
}

/// Blocks of open sizes beyond which they are refused: each has an op for each other one.
const MAX_BLOCKS: usize = 64;

/// Blocks of known widths: zeros on either side of each.
fn fixed_block_diag(n: &mut Lower<'_>, blocks: &[Value], widths: &[i64], dtype: DType) -> Lowered {
    let zero = n.const_scalar(dtype, 0.0)?;
    let (mut before, mut after) = (0i64, widths.iter().fold(0, |all: i64, width| all.saturating_add(*width)));
    let mut rows = vec![];
    for (block, width) in blocks.iter().zip(widths) {
        after = after.saturating_sub(*width);
        let mut parts = vec![];
        for (i, count) in [before, after].into_iter().enumerate() {
            if i == 1 {
                parts.push(n.cast(*block, dtype)?);
            }
            if count > 0 {
                let shape = n.sizes_exactly(&[Size::Of(*block, 0), Size::Known(count)])?;
                parts.push(n.op(ops::Fill { shape, value: Some(zero) })?);
            }
        }
        rows.push(n.concat(parts, 1)?);
        before = before.saturating_add(*width);
    }
    let y = n.concat(rows, 0)?;
    n.done(y)
}

/// For each vector a tensor that has it along the vector's own axis.
fn grid(n: &mut Lower<'_>, all: &[Value]) -> Result<Vec<Value>> {
    let mut vectors = vec![];
    for v in all {
        vectors.push(n.at_least_1d(*v)?);
    }
    let sizes: Vec<Size> = vectors.iter().map(|v| Size::Of(*v, 0)).collect();
    let shape = n.sizes_exactly(&sizes)?;
    let mut out = vec![];
    for (i, v) in vectors.iter().enumerate() {
        let others: Vec<i64> = (0..vectors.len()).filter(|k| *k != i).map(|k| k as i64).collect();
        let v = n.expand_dims(*v, &others)?;
        out.push(n.without_bool(v, |n, v| n.broadcast_to(v, shape))?);
    }
    Ok(out)
}

fn meshgrid(n: &mut Lower<'_>) -> Lowered {
    let columns_first = match n.str_or("indexing", "ij")? {
        "ij" => false,
        "xy" => true,
        _ => return n.bad_attr("indexing", "`ij` or `xy`"),
    };
    let mut all = n.values("tensors")?;
    let turn = columns_first && all.len() > 1;
    if turn {
        all.swap(0, 1);
    }
    let mut out = grid(n, &all)?;
    if turn {
        out.swap(0, 1);
    }
    Ok(out.into_iter().map(Entry::Value).collect())
}

/// Turned by quarters from the first axis to the second.
fn turned(n: &mut Lower<'_>) -> Lowered {
    let (x, k) = (n.value("self")?, n.int_or("k", 1)?.rem_euclid(4));
    let Some([a, b]) = n.ints("dims")?.and_then(|d| <[i64; 2]>::try_from(d).ok()) else {
        return n.bad_attr("dims", "two axes");
    };
    let reversed = |n: &mut Lower<'_>, x: Value, axes: Vec<i64>| {
        n.without_bool(x, |n, x| n.op(ops::Reverse { x, axes: Some(axes) }))
    };
    let y = match k {
        0 => x,
        1 => {
            let y = reversed(n, x, vec![b])?;
            swapped(n, y, a, b)?
        }
        2 => reversed(n, x, vec![a, b])?,
        _ => {
            let y = reversed(n, x, vec![a])?;
            swapped(n, y, a, b)?
        }
    };
    n.done(y)
}

/// Powers of each element along a further axis.
fn vander(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("x")?;
    let increasing = if n.node.op.starts_with("linalg") { true } else { n.flag("increasing", false)? };
    let count = match n.int("N")? {
        Some(count) => count,
        None => n.shape(x)?.last().and_then(mlconv_tensor::Dim::as_known).unwrap_or(0),
    };
    if !(1..=4096).contains(&count) {
        return n.bad_attr("N", "1 to 4096 columns");
    }
    let powers: Vec<f64> = (0..count).map(|i| if increasing { i } else { count - 1 - i } as f64).collect();
    let x = n.expand_dims(x, &[-1])?;
    let y = n.const_like(x, &[powers.len()], &powers)?;
    n.emit(ops::Pow { x, y })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagonals_lie_where_they_should() {
        assert_eq!(places(2, 3, 0), [0, 4]);
        assert_eq!(places(2, 3, 1), [1, 5]);
        assert_eq!(places(3, 2, -1), [2, 5]);
        // No row is gone through that has no place.
        assert_eq!(places(i64::MAX, 2, -1), [2, 5]);
        assert_eq!(places(2, i64::MAX, 1).len(), 2);
        for offset in [i64::MIN, i64::MAX] {
            assert!(places(3, 3, offset).is_empty());
        }
    }
}
