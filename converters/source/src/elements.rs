//! Elements that are read and written by index.

use crate::{Lower, LowerError, Size};
use mlconv_mil::{
    ir::Value,
    ops::{self, ScatterMode},
};
use mlconv_tensor::{DType, Tensor};

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// No axis is as long.
const FAR: i64 = i32::MAX as i64 / 2;

/// Which diagonal a triangle ends at.
#[derive(Clone, Copy, Debug)]
pub enum Diagonal {
    /// So many above the main one.
    Known(i64),
    /// As many above it as a value says, which has no axes.
    Held(Value),
}

impl Lower<'_> {
    /// For each index the element of `x` that has it along `axis`, and the index's own place along the others, along
    /// which there may be fewer indices.
    pub fn gather_elements(&mut self, x: Value, indices: Value, axis: usize) -> Result<Value> {
        let indices = self.indices(x, indices, &[axis])?;
        // Core ML wants equal sizes along the other axes.
        let (own, picked) = (self.shape(x)?, self.shape(indices)?);
        let smaller = |i: &usize| *i != axis && own[*i] != picked[*i] && own[*i].as_known().is_some();
        let cuts: Vec<_> = (0..own.rank().min(picked.rank()))
            .filter(smaller)
            .filter_map(|i| Some((i, 0, Some(picked[i].as_known()?), 1)))
            .collect();
        let x = if cuts.is_empty() { x } else { self.slice_by(x, &cuts)? };
        self.without_bool(x, |n, x| {
            n.op(ops::GatherAlongAxis { x, indices, axis: axis as i64, validate_indices: false })
        })
    }

    /// `data` with `updates` at the places that the indices name along `axis`, and their own places along the others.
    pub fn scatter_elements(
        &mut self,
        data: Value,
        indices: Value,
        updates: Value,
        axis: usize,
        mode: ScatterMode,
    ) -> Result<Value> {
        let indices = self.indices(data, indices, &[axis])?;
        let (own, picked) = (self.shape(data)?, self.shape(indices)?);
        let fits = own.rank() == picked.rank()
            && (0..own.rank()).all(|i| i == axis || own[i] == picked[i] || own[i].as_known().is_none());
        let dtype = self.dtype(data)?;
        let [data, updates] = self.without_bools([data, updates])?;
        let y = if fits {
            self.op(ops::ScatterAlongAxis { data, indices, updates, axis: axis as i64, mode, validate_indices: false })?
        } else {
            self.scatter_part(data, indices, updates, axis, mode)?
        };
        self.cast(y, dtype)
    }

    /// Scatters along an axis of which other axes are only written in part.
    fn scatter_part(
        &mut self,
        data: Value,
        indices: Value,
        updates: Value,
        axis: usize,
        mode: ScatterMode,
    ) -> Result<Value> {
        let rank = self.rank(indices)?;
        let mut parts = vec![];
        for i in 0..rank {
            let part = if i == axis {
                indices
            } else {
                let count = self.counted(indices, i, DType::I32)?;
                let others: Vec<i64> = (0..rank as i64).filter(|k| *k != i as i64).collect();
                let count = self.expand_dims(count, &others)?;
                self.broadcast_like(count, indices)?
            };
            let flat = self.reshape_to(part, &[-1, 1])?;
            parts.push(flat);
        }
        let indices = self.concat(parts, 1)?;
        let updates = self.reshape_to(updates, &[-1])?;
        self.op(ops::ScatterNd { data, indices, updates, mode, validate_indices: false })
    }

    /// The values as integers, where they are boolean.
    pub fn without_bools<const N: usize>(&mut self, values: [Value; N]) -> Result<[Value; N]> {
        let mut out = values;
        for v in &mut out {
            if self.dtype(*v)? == DType::Bool {
                *v = self.cast(*v, DType::I32)?;
            }
        }
        Ok(out)
    }

    /// The upper or lower triangles of matrices, up to and with a diagonal; zeros are in the place of the rest.
    pub fn triangle(&mut self, x: Value, diagonal: Diagonal, upper: bool) -> Result<Value> {
        let rank = self.rank(x)?;
        if rank < 2 {
            return Err(LowerError::form(format!("{}, which has no matrices", self.ty(x)?)));
        }
        // Beyond any matrix, one diagonal is like the other.
        let diagonal = match diagonal {
            Diagonal::Known(k) => Diagonal::Known(k.clamp(-FAR, FAR)),
            held @ Diagonal::Held(_) => held,
        };
        // The op keeps a band that holds the main diagonal.
        let band = match diagonal {
            Diagonal::Known(k) if upper && k <= 0 => Some((-k, -1)),
            Diagonal::Known(k) if !upper && k >= 0 => Some((-1, k)),
            _ => None,
        };
        if let Some((lower, upper)) = band {
            return self.op(ops::BandPart { x, lower, upper });
        }
        let rows = self.counted(x, rank - 2, DType::I32)?;
        let rows = self.expand_dims(rows, &[1])?;
        let columns = self.counted(x, rank - 1, DType::I32)?;
        let shift = match diagonal {
            Diagonal::Known(k) => self.const_int(k)?,
            Diagonal::Held(v) => v,
        };
        let diagonal = self.add(rows, shift)?;
        let kept = if upper {
            self.op(ops::GreaterEqual { x: columns, y: diagonal })?
        } else {
            self.op(ops::LessEqual { x: columns, y: diagonal })?
        };
        let zero = self.dtype(x)?;
        let zero = self.add_const(Tensor::splat(zero, &[], 0.0))?;
        self.select(kept, x, zero)
    }

    /// The `k` greatest or least elements along an axis, in order, and where they are.
    pub fn top(&mut self, x: Value, k: Size, axis: usize, largest: bool) -> Result<[Value; 2]> {
        let (axis, ascending) = (axis as i64, !largest);
        let k = match k {
            Size::Held(v) => self.known_ints(v).and_then(|k| k.first().copied()).map_or(k, Size::Known),
            k => k,
        };
        if let Size::Known(k) = k {
            let k = Some(self.const_int(k)?);
            let op = ops::Topk { x, k, axis, ascending, sort: true, return_indices: true, output_indices_dtype: None };
            let both = self.ops(op)?;
            return <[Value; 2]>::try_from(both.as_slice()).map_err(|_| LowerError::Poisoned);
        }
        let order = self.op(ops::Argsort { x, axis, ascending })?;
        let end = self.sizes_exactly(&[k])?;
        let rank = self.rank(x)?;
        let mut ends = vec![];
        for i in 0..rank {
            ends.push(if i as i64 == axis { end } else { self.const_ints(&[0])? });
        }
        let (begin, end) = (self.const_ints(&vec![0; rank])?, self.concat(ends, 0)?);
        let indices = self.op(ops::SliceByIndex {
            x: order,
            begin,
            end,
            stride: None,
            begin_mask: None,
            end_mask: Some((0..rank).map(|i| i as i64 != axis).collect()),
            squeeze_mask: None,
        })?;
        let values = self.op(ops::GatherAlongAxis { x, indices, axis, validate_indices: false })?;
        Ok([values, indices])
    }
}
