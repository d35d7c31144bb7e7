//! Forms of the ops that move elements, without the limits that Core ML puts on them.

use crate::{Lower, LowerError, Size};
use mlconv_mil::{ir::Value, ops, schema::Opset};
use mlconv_tensor::{DType, Dim, Tensor};

type Result<T, E = LowerError> = std::result::Result<T, E>;

impl Lower<'_> {
    /// `f` of `v`, or of its integers where it is boolean, for ops that do not take those.
    pub fn without_bool(&mut self, v: Value, f: impl FnOnce(&mut Self, Value) -> Result<Value>) -> Result<Value> {
        if self.dtype(v)? != DType::Bool {
            return f(self, v);
        }
        let ints = self.cast(v, DType::I32)?;
        let out = f(self, ints)?;
        self.cast(out, DType::Bool)
    }

    /// `f` of `v` in a float type, and the result in that of `v`, for ops that take floats alone.
    pub fn in_float(&mut self, v: Value, f: impl FnOnce(&mut Self, Value) -> Result<Value>) -> Result<Value> {
        let dtype = self.dtype(v)?;
        let float = self.as_float(v)?;
        let out = f(self, float)?;
        self.cast(out, dtype)
    }

    /// `x` as a vector of one element, where it is a scalar.
    pub fn at_least_1d(&mut self, x: Value) -> Result<Value> {
        if self.rank(x)? == 0 { self.expand_dims(x, &[0]) } else { Ok(x) }
    }

    /// `x`, which has one element, as a scalar.
    pub fn as_scalar(&mut self, x: Value) -> Result<Value> {
        let axes: Vec<i64> = (0..self.rank(x)? as i64).collect();
        if self.shape(x)?.count().as_known().is_some_and(|n| n != 1) {
            return Err(LowerError::form(format!("{} where a scalar is wanted", self.ty(x)?)));
        }
        if self.shape(x)?.iter().all(|d| d.is(1)) {
            return self.squeeze(x, &axes);
        }
        let one = self.reshape_to(x, &[1])?;
        self.squeeze(one, &[0])
    }

    /// The sizes of `x`, each by itself.
    pub fn own_sizes(&self, x: Value) -> Result<Vec<Size>> {
        Ok((0..self.rank(x)?).map(|axis| Size::Of(x, axis)).collect())
    }

    /// `x` with its axes in another order, which may count from the end.
    pub fn permute(&mut self, x: Value, perm: &[i64]) -> Result<Value> {
        let rank = self.rank(x)?;
        let mut axes = vec![];
        for p in perm {
            axes.push(self.axis(x, *p)?);
        }
        if axes.len() != rank || (0..rank).any(|i| !axes.contains(&i)) {
            let want = format!("each axis of {} once", self.ty(x)?);
            return Err(LowerError::Attr { name: "perm".into(), found: format!("{perm:?}"), want: want.into() });
        }
        self.transpose(x, &axes.iter().map(|a| *a as i64).collect::<Vec<_>>())
    }

    /// The product of sizes, as a number or a vector of one integer.
    fn product(&mut self, sizes: &[Size]) -> Result<Part> {
        let mut known = 1i64;
        let mut open: Option<Value> = None;
        for size in sizes {
            let number = match *size {
                Size::Known(n) => Some(n),
                Size::Of(v, axis) => self.shape(v)?.get(axis).and_then(Dim::as_known),
                Size::Held(v) => self.known_ints(v).and_then(|ints| ints.first().copied()),
                Size::Rest => return Err(LowerError::not_yet("a product of sizes that are left open")),
            };
            if let Some(n) = number {
                known = known.saturating_mul(n);
                continue;
            }
            let size = match *size {
                Size::Of(v, axis) => self.size_of(v, axis)?,
                Size::Held(v) => self.at_least_1d(v)?,
                Size::Known(_) | Size::Rest => continue,
            };
            open = Some(match open {
                Some(product) => self.mul(product, size)?,
                None => size,
            });
        }
        Ok(match open {
            None => Part::Known(known),
            Some(v) if known == 1 => Part::Open(v),
            Some(v) => {
                let factor = self.const_ints(&[known])?;
                Part::Open(self.mul(v, factor)?)
            }
        })
    }

    fn reshape_parts(&mut self, x: Value, parts: &[Part]) -> Result<Value> {
        let open = parts.iter().filter(|p| matches!(p, Part::Open(_))).count();
        if open <= 1 && !parts.iter().any(|p| matches!(p, Part::Known(0))) {
            let sizes: Vec<i64> = parts.iter().map(|p| if let Part::Known(n) = p { *n } else { -1 }).collect();
            return self.reshape_to(x, &sizes);
        }
        let mut values = vec![];
        for part in parts {
            values.push(match part {
                Part::Known(n) => self.const_ints(&[*n])?,
                Part::Open(v) => *v,
            });
        }
        let shape = self.concat(values, 0)?;
        self.op(ops::Reshape { x, shape })
    }

    /// `x` with the axes in `from..to` merged to one.
    pub fn merge_axes(&mut self, x: Value, from: usize, to: usize) -> Result<Value> {
        let sizes = self.own_sizes(x)?;
        let mut parts = vec![];
        for (i, size) in sizes.iter().enumerate() {
            if i == from {
                parts.push(self.product(sizes.get(from..to).unwrap_or_default())?);
            }
            if !(from..to).contains(&i) {
                parts.push(self.product(&[*size])?);
            }
        }
        if from >= sizes.len() || from == to {
            parts.insert(from.min(parts.len()), Part::Known(1));
        }
        self.reshape_parts(x, &parts)
    }

    /// `x` repeated to the shape that it and `shape`, a vector of integers, have together.
    pub fn broadcast_to(&mut self, x: Value, shape: Value) -> Result<Value> {
        let sizes = self.elements(shape)?;
        let rank = self.rank(x)?;
        let lead = sizes.len().saturating_sub(rank);
        let x = self.expand_dims(x, &(0..lead as i64).collect::<Vec<_>>())?;
        let own = self.shape(x)?;
        let skip = own.rank() - sizes.len();
        let mut parts = vec![];
        for (i, have) in own.iter().enumerate() {
            let want = i.checked_sub(skip).and_then(|k| sizes.get(k).cloned());
            parts.push(match want {
                None => Part::Known(1),
                Some(want) if want.is(1) || want == *have => Part::Known(1),
                Some(want) => match (have.as_known(), want.as_known()) {
                    (Some(1), Some(n)) => Part::Known(n),
                    (Some(1), None) => Part::Open(self.element(shape, i - skip)?),
                    (Some(_), Some(_)) => return Err(LowerError::form(format!("expanding {own} to {sizes:?}"))),
                    // A size above 1 repeats nothing; the other one is equal to it or 1.
                    (Some(_), None) => Part::Known(1),
                    (None, _) => {
                        let (have, want) = (self.size_of(x, i)?, self.element(shape, i - skip)?);
                        let most = self.maximum(have, want)?;
                        Part::Open(self.op(ops::FloorDiv { x: most, y: have })?)
                    }
                },
            });
        }
        self.repeat(x, &parts)
    }

    fn repeat(&mut self, x: Value, parts: &[Part]) -> Result<Value> {
        if parts.iter().all(|p| matches!(p, Part::Known(1))) {
            return Ok(x);
        }
        if parts.iter().any(|p| matches!(p, Part::Known(0))) {
            return Err(LowerError::core_ml("a tensor without elements"));
        }
        let reps = if parts.iter().all(|p| matches!(p, Part::Known(_))) {
            let known: Vec<i64> = parts.iter().map(|p| if let Part::Known(n) = p { *n } else { 1 }).collect();
            self.const_ints(&known)?
        } else {
            let mut values = vec![];
            for part in parts {
                values.push(match part {
                    Part::Known(n) => self.const_ints(&[*n])?,
                    Part::Open(v) => *v,
                });
            }
            self.concat(values, 0)?
        };
        self.op(ops::Tile { x, reps })
    }

    /// `x` repeated to the shape of `like`.
    pub fn broadcast_like(&mut self, x: Value, like: Value) -> Result<Value> {
        let sizes = self.own_sizes(like)?;
        if sizes.is_empty() {
            return Ok(x);
        }
        let shape = self.sizes_exactly(&sizes)?;
        self.broadcast_to(x, shape)
    }

    /// The sizes as a vector of integers, none of them -1.
    pub fn sizes_exactly(&mut self, sizes: &[Size]) -> Result<Value> {
        let mut parts = vec![];
        for size in sizes {
            parts.push(self.product(&[*size])?);
        }
        if parts.iter().all(|p| matches!(p, Part::Known(_))) {
            let known: Vec<i64> = parts.iter().map(|p| if let Part::Known(n) = p { *n } else { 1 }).collect();
            return self.const_ints(&known);
        }
        let mut values = vec![];
        for part in parts {
            values.push(match part {
                Part::Known(n) => self.const_ints(&[n])?,
                Part::Open(v) => v,
            });
        }
        self.concat(values, 0)
    }

    /// The elements of a vector of integers, symbolic where they are not known.
    pub fn elements(&self, v: Value) -> Result<Vec<Dim>> {
        if let Some(ints) = &self.fact(v).ints {
            return Ok(ints.to_vec());
        }
        if let Some(ints) = self.known_ints(v) {
            return Ok(ints.into_iter().map(Dim::from).collect());
        }
        let shape = self.shape(v)?;
        let count = match shape.first() {
            None => Some(1),
            Some(n) => n.as_usize(),
        };
        let Some(count) = count.filter(|n| *n <= 64 && shape.rank() <= 1) else {
            return Err(LowerError::NotFixed { what: "the number of sizes".to_owned() });
        };
        Ok((0..count).map(|i| Dim::symbol(format!("element_{i}_of_{v:?}"))).collect())
    }

    /// Element `i` of a vector, as a vector of one.
    pub fn element(&mut self, v: Value, i: usize) -> Result<Value> {
        let v = self.at_least_1d(v)?;
        self.slice(v, 0, i as i64, Some(i as i64 + 1))
    }

    /// Indices along axes of `x` that may count from the end, as the op set takes them. `axes` has the axis that all
    /// are along, or those that the last axis of `indices` goes over.
    pub fn indices(&mut self, x: Value, indices: Value, axes: &[usize]) -> Result<Value> {
        let indices = self.cast(indices, DType::I32)?;
        if self.opset() < Opset::Ios17 {
            return Ok(indices);
        }
        if let Some(t) = self.const_of(indices) {
            let (ints, dims) = (t.to_i64(), t.shape().to_vec());
            if ints.iter().all(|i| *i >= 0) {
                return Ok(indices);
            }
            let shape = self.shape(x)?;
            let sizes: Option<Vec<i64>> = axes.iter().map(|a| shape.get(*a).and_then(Dim::as_known)).collect();
            if let Some(sizes) = sizes.filter(|s| !s.is_empty()) {
                let from_start =
                    |(i, index): (usize, &i64)| if *index < 0 { index + sizes[i % sizes.len()] } else { *index };
                let ints: Vec<i64> = ints.iter().enumerate().map(from_start).collect();
                return self.add_const(Tensor::from_i64(DType::I32, &dims, &ints));
            }
        } else if self
            .fact(indices)
            .ints
            .as_ref()
            .is_some_and(|i| i.iter().all(|d| d.as_known().is_some_and(|n| n >= 0)))
        {
            return Ok(indices);
        }
        let sizes: Vec<Size> = axes.iter().map(|a| Size::Of(x, *a)).collect();
        let mut size = self.sizes_exactly(&sizes)?;
        if axes.len() == 1 {
            size = self.squeeze(size, &[0])?;
        }
        let zero = self.const_scalar(DType::I32, 0.0)?;
        let negative = self.less(indices, zero)?;
        let moved = self.add(indices, size)?;
        self.select(negative, moved, indices)
    }

    /// Slices of `x` along an axis at `indices`, which may count from the end.
    pub fn gather(&mut self, x: Value, indices: Value, axis: usize) -> Result<Value> {
        let indices = self.indices(x, indices, &[axis])?;
        self.without_bool(x, |n, x| {
            n.op(ops::Gather { x, indices, axis: axis as i64, batch_dims: 0, validate_indices: false })
        })
    }

    /// Slices of `x` along an axis at known places.
    pub fn gather_at(&mut self, x: Value, axis: usize, places: &[i64]) -> Result<Value> {
        let indices = self.const_ints(places)?;
        self.gather(x, indices, axis)
    }

    /// `0, 1, …` up to a size along an axis of `x`, as a vector.
    pub fn counted(&mut self, x: Value, axis: usize, dtype: DType) -> Result<Value> {
        let size = self.sizes_exactly(&[Size::Of(x, axis)])?;
        let end = self.squeeze(size, &[0])?;
        let (start, step) = (self.const_scalar(DType::I32, 0.0)?, self.const_scalar(DType::I32, 1.0)?);
        let range = self.op(ops::Range1d { end, start, step })?;
        self.cast(range, dtype)
    }
}

/// A size as a number, or as a vector of one integer.
enum Part {
    Known(i64),
    Open(Value),
}
