//! Parts of tensors by ranges of indices.

use crate::{
    ir::{Fact, Value},
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{Bytes, Dim, Dims, Shape, Tensor, strides};
use smallvec::smallvec;

/// `x[begin[0]:end[0]:stride[0], begin[1]:end[1]:stride[1], …]`, by the rules of Python's slices.
///
/// Negative bounds count from the end, bounds outside stop at the ends, and a range that runs against its stride is empty.
/// A bound whose mask holds is the end of the axis where the stride begins or arrives. Where `squeeze_mask` holds, the
/// axis is indexed by `begin` and gone from the result; there the index must be inside.
///
/// Sizes of the result: where all is known, what the slice has. A bound that is a symbol is taken to be inside and not
/// negative; one not known before the program runs gives an unknown size.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "slice_by_index", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
#[domain(U: Ios15 = I32, Ios17 = I8 | I16)]
pub struct SliceByIndex {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// `U[rank]`: the first index, per axis.
    #[operand(U)]
    pub begin: Value,
    /// `U[rank]`: the index at which to stop, per axis.
    #[operand(U)]
    pub end: Value,
    /// The step, per axis, not 0; 1 where absent.
    #[attr(U, default = None)]
    pub stride: Option<Ints>,
    /// Whether `begin` is ignored, per axis; nowhere where absent.
    #[attr(default = None)]
    pub begin_mask: Option<Vec<bool>>,
    /// Whether `end` is ignored, per axis; nowhere where absent.
    #[attr(default = None)]
    pub end_mask: Option<Vec<bool>>,
    /// Whether the axis is indexed at `begin` and left out, per axis; nowhere where absent.
    #[attr(default = None)]
    pub squeeze_mask: Option<Vec<bool>>,
}

impl Semantics for SliceByIndex {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let ranges = self.ranges(x.shape.rank())?;
        let shape = ranges.shape(cx, &x.shape, self.begin, self.end)?;
        let fact = cx.fact_of(x.dtype, shape)?;
        let places = x.shape.known().zip(cx.known_ints(self.begin)).zip(cx.known_ints(self.end));
        Ok(smallvec![match places {
            Some(((dims, begin), end)) if cx.ints(self.x).is_some() => {
                let places = ranges.places(&dims, &begin, &end)?;
                cx.gather_ints(self.x, fact, |index| places.at(index))
            }
            _ => fact,
        }])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let places = self.places(cx)?;
        Ok(smallvec![cx.out(0).gathered(cx.tensor(self.x), |index| places.at(index))])
    }
}

impl SliceByIndex {
    /// Where the elements of the result lie in `x`.
    pub fn places(&self, cx: &EvalCx<'_>) -> Result<Places, OpError> {
        let dims = cx.shape(self.x);
        let places = self.ranges(dims.len())?.places(dims, &cx.i64(self.begin), &cx.i64(self.end))?;
        places.check(&cx.out(0).shape)?;
        Ok(places)
    }

    fn ranges(&self, rank: usize) -> Result<Ranges, OpError> {
        let masks = [&self.begin_mask, &self.end_mask, &self.squeeze_mask];
        Ranges::new(rank, self.stride.as_deref(), masks.map(Option::as_deref))
    }
}

/// `x` with a slice of it replaced by `update`; the slice is that of [`SliceByIndex`].
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "slice_update", since = Ios18)]
#[domain(T: Ios18 = F16 | F32 | I8 | I16 | I32 | U8 | U16 | Bool)]
#[domain(U: Ios18 = I8 | I16 | I32)]
pub struct SliceUpdate {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// What to put there: of the shape of the slice, and of rank 1 or more.
    #[operand(T)]
    pub update: Value,
    /// `U[rank]`: the first index, per axis.
    #[operand(U)]
    pub begin: Value,
    /// `U[rank]`: the index at which to stop, per axis.
    #[operand(U)]
    pub end: Value,
    /// The step, per axis, not 0; 1 where absent.
    #[attr(U, default = None)]
    pub stride: Option<Ints>,
    /// Whether `begin` is ignored, per axis; nowhere where absent.
    #[attr(default = None)]
    pub begin_mask: Option<Vec<bool>>,
    /// Whether `end` is ignored, per axis; nowhere where absent.
    #[attr(default = None)]
    pub end_mask: Option<Vec<bool>>,
    /// Whether the axis is indexed at `begin` and `update` lacks it, per axis; nowhere where absent.
    #[attr(default = None)]
    pub squeeze_mask: Option<Vec<bool>>,
}

impl Semantics for SliceUpdate {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let slice = self.ranges(x.shape.rank())?.shape(cx, &x.shape, self.begin, self.end)?;
        let update = cx.ranked("update", self.update, 1..)?;
        if !update.shape.may_equal(&slice) {
            return Err(cx.operand("update", self.update, format!("{slice}, the shape of the slice")));
        }
        cx.result(x.dtype, x.shape.clone())
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, update) = (cx.tensor(self.x), cx.tensor(self.update));
        let places = self.ranges(x.shape().len())?.places(x.shape(), &cx.i64(self.begin), &cx.i64(self.end))?;
        places.check(update.shape())?;
        let size = x.dtype().bits() as usize / 8;
        let mut bytes = x.blob().read().into_owned();
        let with = update.blob().read();
        let mut from = with.chunks_exact(size.max(1));
        crate::schema::Out { dtype: x.dtype(), shape: update.shape().into() }.each_index(|index| {
            let at = places.at(index) * size;
            if let (Some(to), Some(from)) = (bytes.get_mut(at..at + size), from.next()) {
                to.copy_from_slice(from);
            }
        });
        let y = Tensor::new(x.dtype(), x.shape(), Bytes::from(bytes).into());
        Ok(smallvec![y.map_err(|_| OpError::NoKernel)?])
    }
}

impl SliceUpdate {
    fn ranges(&self, rank: usize) -> Result<Ranges, OpError> {
        let masks = [&self.begin_mask, &self.end_mask, &self.squeeze_mask];
        Ranges::new(rank, self.stride.as_deref(), masks.map(Option::as_deref))
    }
}

/// The constant part of a slice, per axis.
struct Ranges(Vec<Range>);

#[derive(Clone, Copy)]
struct Range {
    stride: i64,
    no_begin: bool,
    no_end: bool,
    squeezed: bool,
}

impl Ranges {
    /// From the parameters of an op whose `x` has `rank` axes; `masks` are those of begin, end and squeeze.
    fn new(rank: usize, stride: Option<&[i64]>, masks: [Option<&[bool]>; 3]) -> Result<Self, OpError> {
        let fail = |param, found: String| {
            let want = format!("{rank} values, one per axis{}", if param == "stride" { ", not 0" } else { "" });
            Err(OpError::Value { param, found, want: want.into() })
        };
        if let Some(s) = stride
            && (s.len() != rank || s.iter().any(|s| *s == 0 || s.unsigned_abs() > 1 << 31))
        {
            return fail("stride", format!("{s:?}"));
        }
        for (param, mask) in ["begin_mask", "end_mask", "squeeze_mask"].into_iter().zip(masks) {
            if let Some(m) = mask.filter(|m| m.len() != rank) {
                return fail(param, format!("{m:?}"));
            }
        }
        let range = |i: usize| {
            let [no_begin, no_end, squeezed] = masks.map(|m| m.is_some_and(|m| m[i]));
            Range { stride: stride.map_or(1, |s| s[i]), no_begin, no_end, squeezed }
        };
        Ok(Self((0..rank).map(range).collect()))
    }

    /// The shape of the slice of an `x` of shape `x`.
    fn shape(&self, cx: &InferCx<'_>, x: &Shape, begin: Value, end: Value) -> Result<Shape, OpError> {
        for (param, v) in [("begin", begin), ("end", end)] {
            let len = &cx.ranked(param, v, 1..=1)?.shape[0];
            if len.as_known().is_some_and(|n| n != self.0.len() as i64) {
                return Err(cx.operand(param, v, format!("{} elements, one per axis", self.0.len())));
            }
        }
        let at = |v: Value, i: usize| cx.ints(v).and_then(|ints| ints.get(i));
        let mut shape = Shape::scalar();
        for (i, (range, size)) in self.0.iter().zip(x.iter()).enumerate() {
            let (begin, end) = (at(begin, i), at(end, i));
            if range.squeezed {
                if let (Some(n), Some(b)) = (size.as_usize(), begin.and_then(Dim::as_known)) {
                    range.first_and_count(n, b, 0)?;
                }
                continue;
            }
            shape.dims_mut().push(range.size(size, begin, end)?.unwrap_or_else(|| cx.unknown(i)));
        }
        Ok(shape)
    }

    /// Where the elements of the slice lie in a tensor of shape `dims`.
    fn places(&self, dims: &[usize], begin: &[i64], end: &[i64]) -> Result<Places, OpError> {
        let own = strides(dims);
        let mut places = Places { first: 0, steps: Dims::new(), shape: Dims::new() };
        for (i, (range, n)) in self.0.iter().zip(dims).enumerate() {
            let at = |v: &[i64]| v.get(i).copied().unwrap_or(0);
            let (first, count) = range.first_and_count(*n, at(begin), at(end))?;
            if count > 0 {
                places.first = places.first.wrapping_add((first as usize).wrapping_mul(own[i]));
            }
            if !range.squeezed {
                // Steps backwards wrap around, and so do the sums that they are part of.
                places.steps.push((range.stride as usize).wrapping_mul(own[i]));
                places.shape.push(count);
            }
        }
        Ok(places)
    }
}

/// The elements of a slice in a flat tensor.
#[derive(Clone, Debug)]
pub struct Places {
    /// The position of the first one.
    pub first: usize,
    /// Elements to step for each axis of the slice; steps backwards wrap around.
    pub steps: Dims,
    /// The shape of the slice.
    pub shape: Dims,
}

impl Places {
    fn at(&self, index: &[usize]) -> usize {
        index.iter().zip(&self.steps).fold(self.first, |at, (i, s)| at.wrapping_add(i.wrapping_mul(*s)))
    }

    /// Holds the shape of the slice against the one that is wanted.
    fn check(&self, shape: &[usize]) -> Result<(), OpError> {
        if self.shape[..] == *shape {
            return Ok(());
        }
        let want = Shape::from(shape).to_string();
        Err(OpError::Value {
            param: "begin",
            found: format!("that of a slice {}", Shape::from(&self.shape)),
            want: want.into(),
        })
    }
}

impl Range {
    /// The first index of the slice along an axis of `n` elements, and how many there are.
    fn first_and_count(self, n: usize, begin: i64, end: i64) -> Result<(i64, usize), OpError> {
        let Self { stride, no_begin, no_end, squeezed } = self;
        let n = n as i64;
        let wrapped = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
        if squeezed {
            let at = if no_begin { 0 } else { wrapped(begin) };
            if !(0..n).contains(&at) {
                let want = format!("an index of {n} elements");
                return Err(OpError::Value { param: "begin", found: begin.to_string(), want: want.into() });
            }
            return Ok((at, 1));
        }
        // The ends of the axis, where a forward or backward slice starts and stops.
        let (low, high) = if stride > 0 { (0, n) } else { (-1, n - 1) };
        let (from, to) = if stride > 0 { (low, high) } else { (high, low) };
        let first = if no_begin { from } else { wrapped(begin).clamp(low, high) };
        let stop = if no_end { to } else { wrapped(end).clamp(low, high) };
        let span = if stride > 0 { stop - first } else { first - stop };
        let count = if span <= 0 { 0 } else { (span - 1) / stride.abs() + 1 };
        Ok((first, count as usize))
    }

    /// The size of the slice along an axis of size `n`; `None` where nothing is known of a bound.
    fn size(self, n: &Dim, begin: Option<&Dim>, end: Option<&Dim>) -> Result<Option<Dim>, OpError> {
        let known = |d: Option<&Dim>, masked: bool| if masked { Some(0) } else { d.and_then(Dim::as_known) };
        let bounds = known(begin, self.no_begin).zip(known(end, self.no_end));
        if let (Some(n), Some((b, e))) = (n.as_usize(), bounds) {
            return Ok(Some(Dim::from(self.first_and_count(n, b, e)?.1)));
        }
        let step = Dim::from(self.stride.abs());
        let span = if self.stride > 0 {
            let stop = match end {
                _ if self.no_end => n.clone(),
                Some(e) => match e.as_known() {
                    Some(k) if k < 0 => n + e,
                    Some(k) => at_most(k, n),
                    None => e.clone(),
                },
                None => return Ok(None),
            };
            match begin {
                _ if self.no_begin => stop,
                // Starting before the first element starts at it, and then all up to the end remain.
                Some(b) if b.as_known().is_some_and(|k| k < 0) => match (&stop - &(n + b)).as_known() {
                    Some(k) => at_most(k, &stop),
                    None => (&stop - &(n + b)).minimum(&stop),
                },
                Some(b) => stop - b,
                None => return Ok(None),
            }
        } else {
            let from_last = |d: &Dim| if d.as_known().is_some_and(|k| k < 0) { n + d } else { d.clone() };
            let first = match begin {
                _ if self.no_begin => n - 1,
                Some(b) if b.as_known().is_some_and(|k| k > 0) => b.minimum(&(n - 1)),
                Some(b) => from_last(b),
                None => return Ok(None),
            };
            match end {
                _ if self.no_end => first + 1,
                Some(e) if e.as_known().is_some_and(|k| k < 0) => first - from_last(e).maximum(&Dim::from(-1)),
                Some(e) => first - from_last(e),
                None => return Ok(None),
            }
        };
        let size = span.div_ceil(&step);
        Ok(Some(if size.as_known().is_some_and(|k| k < 0) { Dim::from(0) } else { size }))
    }
}

/// The lesser of `k` and the size `n`, where sizes are taken to be at least 1 and at most what 32 bits hold.
fn at_most(k: i64, n: &Dim) -> Dim {
    match k {
        ..=1 => Dim::from(k),
        2..0x7fff_ffff => Dim::from(k).minimum(n),
        _ => n.clone(),
    }
}

/// `size` elements of `x` from `begin` on, per axis.
///
/// A negative `begin` counts from the end. A `size` of -1 takes all that remain.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "slice_by_size", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32 | Bool, Ios17 = I8 | U8 | I16 | U16)]
#[domain(U: Ios15 = I32, Ios17 = I8 | I16)]
pub struct SliceBySize {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// `U[rank]`: the first index, per axis.
    #[operand(U)]
    pub begin: Value,
    /// `U[rank]`: how many elements, per axis, or -1.
    #[operand(U)]
    pub size: Value,
}

impl Semantics for SliceBySize {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let rank = x.shape.rank();
        for (param, v) in [("begin", self.begin), ("size", self.size)] {
            if cx.ranked(param, v, 1..=1)?.shape[0].as_known().is_some_and(|n| n != rank as i64) {
                return Err(cx.operand(param, v, format!("{rank} elements, one per axis")));
            }
        }
        let at = |v: Value, i: usize| cx.ints(v).and_then(|ints| ints.get(i));
        let mut shape = Shape::scalar();
        for (i, n) in x.shape.iter().enumerate() {
            shape.dims_mut().push(match (at(self.begin, i), at(self.size, i)) {
                (Some(b), Some(s)) if s.is(-1) => match b.as_known() {
                    Some(k) if k < 0 => -b,
                    _ => n - b,
                },
                (_, Some(s)) if !s.is(-1) => s.clone(),
                _ => cx.unknown(i),
            });
        }
        let fact: Fact = cx.fact_of(x.dtype, shape)?;
        let known = x.shape.known().zip(cx.known_ints(self.begin)).zip(cx.known_ints(self.size));
        let Some(((dims, begin), size)) = known else { return Ok(smallvec![fact]) };
        let places = places_by_size(&dims, &begin, &size)?;
        Ok(smallvec![cx.gather_ints(self.x, fact, |index| places.at(index))])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let places = self.places(cx)?;
        Ok(smallvec![cx.out(0).gathered(cx.tensor(self.x), |index| places.at(index))])
    }
}

impl SliceBySize {
    /// Where the elements of the result lie in `x`.
    pub fn places(&self, cx: &EvalCx<'_>) -> Result<Places, OpError> {
        let places = places_by_size(cx.shape(self.x), &cx.i64(self.begin), &cx.i64(self.size))?;
        places.check(&cx.out(0).shape)?;
        Ok(places)
    }
}

/// Where the elements of a slice by size lie; it must be inside.
fn places_by_size(dims: &[usize], begin: &[i64], size: &[i64]) -> Result<Places, OpError> {
    let own = strides(dims);
    let mut places = Places { first: 0, steps: own.clone(), shape: Dims::new() };
    for (i, n) in dims.iter().enumerate() {
        let (n, b, s) = (*n as i64, begin.get(i).copied().unwrap_or(0), size.get(i).copied().unwrap_or(-1));
        let first = if b < 0 { b.saturating_add(n) } else { b };
        let count = if s == -1 { n.saturating_sub(first) } else { s };
        if first < 0 || count < 0 || first.checked_add(count).is_none_or(|end| end > n) {
            let found = format!("{s} from {b} on");
            return Err(OpError::Value { param: "size", found, want: format!("a part of {n} elements").into() });
        }
        if count > 0 {
            places.first = places.first.wrapping_add((first as usize).wrapping_mul(own[i]));
        }
        places.shape.push(count as usize);
    }
    Ok(places)
}
