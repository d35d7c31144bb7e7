//! Ops that pick elements, or put some in their places.

use super::{
    axes::{active_runs, around, index, joined, product},
    lower::{Lower, MAX_RANK, On, Rule, Why, require},
    moving::along,
};
use mlconv_mil::{
    ir::Value,
    ops::{
        BandPart, Fill, FillLike, Gather, GatherAlongAxis, GatherNd, OneHot, RandomBernoulli, RandomNormal,
        RandomUniform, Scatter, ScatterAlongAxis, ScatterNd, ShapeOf, SliceByIndex, SliceBySize, SliceUpdate,
    },
};
use mlconv_tensor::{Dim, Shape};

pub(super) const RULES: &[&dyn Rule] = &[
    &On(slice_by_index),
    &On(slice_by_size),
    &On(gather),
    &On(gather_along_axis),
    &On(gather_nd),
    &On(scatter),
    &On(scatter_along_axis),
    &On(scatter_nd),
    &On(one_hot),
    &On(band_part),
    &On(fill_like),
    &On(shape_of),
    &On(slice_update),
];

/// Which elements of an axis a slice takes.
#[derive(Clone)]
struct Slice {
    begin: Option<Dim>,
    end: Option<Dim>,
    stride: i64,
}

impl Slice {
    const WHOLE: Self = Self { begin: None, end: None, stride: 1 };

    /// Whether it takes all of `dim` elements, in order.
    fn is_whole(&self, dim: &Dim) -> bool {
        let size = dim.as_known().unwrap_or(i32::MAX.into());
        let to_last = |end: &Dim| end == dim || end.as_known().is_some_and(|e| e >= size);
        self.stride == 1 && self.begin.as_ref().is_none_or(|b| b.is(0)) && self.end.as_ref().is_none_or(to_last)
    }
}

/// Slices as operands and masks of an op.
struct Bounds {
    begin: Value,
    end: Value,
    stride: Option<Vec<i64>>,
    begin_mask: Option<Vec<bool>>,
    end_mask: Option<Vec<bool>>,
}

fn bounds(cx: &mut Lower<'_>, slices: &[Slice]) -> Result<Bounds, Why> {
    let or_0 = |d: &Option<Dim>| d.clone().unwrap_or(Dim::from(0));
    Ok(Bounds {
        begin: cx.vector("begin", &slices.iter().map(|s| or_0(&s.begin)).collect::<Vec<_>>())?,
        end: cx.vector("end", &slices.iter().map(|s| or_0(&s.end)).collect::<Vec<_>>())?,
        stride: Some(slices.iter().map(|s| s.stride).collect()),
        begin_mask: Some(slices.iter().map(|s| s.begin.is_none()).collect()),
        end_mask: Some(slices.iter().map(|s| s.end.is_none()).collect()),
    })
}

/// The slices at these places; all of the other axes.
fn at(slices: &[Slice], places: &[Option<usize>]) -> Vec<Slice> {
    places.iter().map(|p| p.map_or(Slice::WHOLE, |i| slices[i].clone())).collect()
}

/// For each axis, whether a slice takes some of it alone.
fn parts(slices: &[Slice], shape: &Shape) -> Vec<bool> {
    slices.iter().zip(shape.iter()).map(|(s, d)| !s.is_whole(d)).collect()
}

/// Takes a slice of each axis.
fn sliced(cx: &mut Lower<'_>, x: Value, slices: &[Slice]) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(x);
    along(cx, x, &shape, &parts(slices, &shape), |cx, x, places| {
        let Bounds { begin, end, stride, begin_mask, end_mask } = bounds(cx, &at(slices, places))?;
        cx.insert(SliceByIndex { x, begin, end, stride, begin_mask, end_mask, squeeze_mask: None })
    })
}

/// The slices that an op takes of `rank` axes.
fn slices_of(cx: &Lower<'_>, op: &SliceByIndex, rank: usize) -> Result<Vec<Slice>, Why> {
    let (begin, end) = (cx.known_elements(op.begin)?, cx.known_elements(op.end)?);
    require(begin.len() == rank && end.len() == rank, "it says something of another number of axes")?;
    let masked = |mask: &Option<Vec<bool>>, i: usize| mask.as_ref().is_some_and(|m| m.get(i) == Some(&true));
    let slice = |i: usize| {
        let stride = op.stride.as_ref().and_then(|s| s.get(i)).copied().unwrap_or(1);
        if masked(&op.squeeze_mask, i) {
            // One element; the last one ends where the axis does.
            let from = begin[i].as_known().ok_or(Why::Because("which element it takes is known only late"))?;
            let end = Some(from.saturating_add(1)).filter(|e| *e != 0).map(Dim::from);
            return Ok(Slice { begin: Some(Dim::from(from)), end, stride: 1 });
        }
        Ok(Slice {
            begin: Some(begin[i].clone()).filter(|_| !masked(&op.begin_mask, i)),
            end: Some(end[i].clone()).filter(|_| !masked(&op.end_mask, i)),
            stride,
        })
    };
    (0..rank).map(slice).collect()
}

fn slice_by_index(op: &SliceByIndex, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let rank = cx.shape(op.x).rank();
    let slices = slices_of(cx, op, rank)?;
    sliced(cx, op.x, &slices)
}

fn slice_by_size(op: &SliceBySize, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let (begin, size) = (cx.elements(op.begin)?, cx.known_elements(op.size)?);
    let shape = cx.shape(op.x);
    require(begin.len() == shape.rank() && size.len() == shape.rank(), "it says something of another number of axes")?;
    // As many elements as there are, are all of them.
    let is_whole = |i: usize| size[i] == shape[i] || (begin[i].is(0) && size[i].is(-1));
    let active: Vec<bool> = (0..shape.rank()).map(|i| !is_whole(i)).collect();
    along(cx, op.x, &shape, &active, |cx, x, places| {
        let pick = |of: &[Dim], whole: i64| -> Vec<Dim> {
            places.iter().map(|p| p.map_or(Dim::from(whole), |i| of[i].clone())).collect()
        };
        let begin = cx.vector("begin", &pick(&begin, 0))?;
        let size = cx.vector("size", &pick(&size, -1))?;
        cx.insert(SliceBySize { x, begin, size })
    })
}

fn slice_update(op: &SliceUpdate, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let SliceUpdate { x, update, begin, end, stride, begin_mask, end_mask, squeeze_mask } = op.clone();
    let shape = cx.shape(x);
    let squeezed = |i: usize| squeeze_mask.as_ref().is_some_and(|m| m.get(i) == Some(&true));
    let mut own = cx.shape(update).to_vec().into_iter();
    let placed: Vec<Dim> =
        (0..shape.rank()).filter_map(|i| if squeezed(i) { Some(Dim::from(1)) } else { own.next() }).collect();
    require(placed.len() == shape.rank(), "its update has another number of axes")?;
    let read = SliceByIndex { x, begin, end, stride, begin_mask, end_mask, squeeze_mask: squeeze_mask.clone() };
    let slices = slices_of(cx, &read, shape.rank())?;
    let (ranges, places) = active_runs(&parts(&slices, &shape));
    require(ranges.len() <= MAX_RANK, "it updates slices of too many axes")?;
    let x = cx.view(x, &joined(&shape, &ranges))?;
    let update = cx.view(update, &joined(&placed, &ranges))?;
    let Bounds { begin, end, stride, begin_mask, end_mask } = bounds(cx, &at(&slices, &places))?;
    Ok(vec![cx.insert(SliceUpdate { x, update, begin, end, stride, begin_mask, end_mask, squeeze_mask: None })?])
}

/// A shape is known, or computed from other sizes.
fn shape_of(op: &ShapeOf, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(op.x);
    Ok(vec![cx.vector("sizes", &shape)?])
}

/// Rules of ops that make as many elements as a shape has, whatever its axes: a vector of them.
macro_rules! made {
    ($($ty:ident),*) => { [$(
        &On::<$ty>(|op, cx| {
            let of = cx.shape(cx.results()[0]);
            let shape = cx.vector("shape", &[product(&of)])?;
            Ok(vec![cx.insert($ty { shape, ..op.clone() })?])
        }) as &dyn Rule
    ),*] };
}

pub(super) const MADE: &[&dyn Rule] = &made![Fill, RandomBernoulli, RandomNormal, RandomUniform];

fn gather(op: &Gather, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let (shape, picked) = (cx.shape(op.x), cx.shape(op.indices));
    let axis = index(&shape, op.axis)?;
    let batch = usize::try_from(op.batch_dims).unwrap_or(usize::MAX);
    require(batch <= axis.min(picked.rank()), "its batch has more axes than it")?;
    let [_, along, behind] = around(&shape, axis);
    let (together, between) = (product(&shape[..batch]), product(&shape[batch..axis]));
    let which = product(&picked[batch..]);
    if batch == 0 {
        let x = cx.view(op.x, &[between, along, behind])?;
        let indices = cx.view(op.indices, &[which])?;
        return Ok(vec![cx.insert(Gather { x, indices, axis: 1, ..op.clone() })?]);
    }
    let x = cx.view(op.x, &[together.clone(), between, along, behind])?;
    let indices = cx.view(op.indices, &[together, which])?;
    Ok(vec![cx.insert(Gather { x, indices, axis: 2, batch_dims: 1, ..op.clone() })?])
}

fn gather_along_axis(op: &GatherAlongAxis, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let (shape, picked) = (cx.shape(op.x), cx.shape(op.indices));
    let axis = index(&shape, op.axis)?;
    let x = cx.view(op.x, &around(&shape, axis))?;
    let indices = cx.view(op.indices, &around(&picked, axis))?;
    Ok(vec![cx.insert(GatherAlongAxis { x, indices, axis: 1, ..op.clone() })?])
}

/// The shapes of a tensor and of indices into its axes behind `batch`, on few axes; how many axes the batch has then.
fn indexed(shape: &Shape, indices: &Shape, batch: i64) -> Result<(Vec<Dim>, Vec<Dim>, i64), Why> {
    let batch = usize::try_from(batch).unwrap_or(usize::MAX);
    let depth = indices.last().and_then(Dim::as_usize).ok_or(Why::Because("how many axes it indexes is not known"))?;
    let end = batch.checked_add(depth).filter(|e| *e <= shape.rank() && batch < indices.rank());
    let end = end.ok_or(Why::Because("it indexes more axes than there are"))?;
    let together = (batch > 0).then(|| product(&shape[..batch]));
    let behind = (end < shape.rank()).then(|| product(&shape[end..]));
    let dims: Vec<Dim> = together.iter().chain(&shape[batch..end]).cloned().chain(behind).collect();
    require(dims.len() <= MAX_RANK, "it indexes too many axes")?;
    let which = product(&indices[batch..indices.rank() - 1]);
    let indices = together.iter().cloned().chain([which, Dim::from(depth as i64)]).collect();
    Ok((dims, indices, i64::from(batch > 0)))
}

fn gather_nd(op: &GatherNd, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let (dims, which, batch_dims) = indexed(&cx.shape(op.x), &cx.shape(op.indices), op.batch_dims)?;
    let (x, indices) = (cx.view(op.x, &dims)?, cx.view(op.indices, &which)?);
    Ok(vec![cx.insert(GatherNd { x, indices, batch_dims, ..op.clone() })?])
}

fn scatter(op: &Scatter, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(op.data);
    let [before, along, behind] = around(&shape, index(&shape, op.axis)?);
    let which = product(&cx.shape(op.indices));
    let data = cx.view(op.data, &[before.clone(), along, behind.clone()])?;
    let indices = cx.view(op.indices, std::slice::from_ref(&which))?;
    let updates = cx.view(op.updates, &[before, which, behind])?;
    Ok(vec![cx.insert(Scatter { data, indices, updates, axis: 1, ..op.clone() })?])
}

fn scatter_along_axis(op: &ScatterAlongAxis, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let (shape, placed) = (cx.shape(op.data), cx.shape(op.indices));
    let axis = index(&shape, op.axis)?;
    let same = shape.iter().zip(placed.iter()).enumerate().all(|(i, (a, b))| i == axis || a == b);
    require(same, "its indices have fewer elements beside the axis")?;
    let data = cx.view(op.data, &around(&shape, axis))?;
    let indices = cx.view(op.indices, &around(&placed, axis))?;
    let updates = cx.view(op.updates, &around(&placed, axis))?;
    Ok(vec![cx.insert(ScatterAlongAxis { data, indices, updates, axis: 1, ..op.clone() })?])
}

fn scatter_nd(op: &ScatterNd, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let (dims, which, _) = indexed(&cx.shape(op.data), &cx.shape(op.indices), 0)?;
    let depth = which[1].as_usize().unwrap_or(0);
    let placed: Vec<Dim> = which[..1].iter().chain(dims.get(depth)).cloned().collect();
    let (data, indices) = (cx.view(op.data, &dims)?, cx.view(op.indices, &which)?);
    let updates = cx.view(op.updates, &placed)?;
    Ok(vec![cx.insert(ScatterNd { data, indices, updates, ..op.clone() })?])
}

fn one_hot(op: &OneHot, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(cx.results()[0]);
    let [before, _, behind] = around(&shape, index(&shape, op.axis)?);
    let indices = cx.view(op.indices, &[before, behind])?;
    Ok(vec![cx.insert(OneHot { indices, axis: 1, ..op.clone() })?])
}

fn band_part(op: &BandPart, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(op.x);
    let lead = shape.rank() - 2;
    let x = cx.view(op.x, &[product(&shape[..lead]), shape[lead].clone(), shape[lead + 1].clone()])?;
    Ok(vec![cx.insert(BandPart { x, ..op.clone() })?])
}

fn fill_like(op: &FillLike, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let ref_tensor = cx.stand_in(op.ref_tensor)?;
    Ok(vec![cx.insert(FillLike { ref_tensor, ..op.clone() })?])
}
