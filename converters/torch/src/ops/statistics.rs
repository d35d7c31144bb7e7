//! What is measured along axes: areas, slopes, covariances, the most frequent element.

use super::promote::float_operands;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Arg, Entry, Lower, LowerError, Lowered};
use mlconv_tensor::DType;

aten! {
    "trapezoid.x(Tensor y, Tensor x, *, int dim=-1) -> Tensor", "trapz.x(Tensor y, Tensor x, *, int dim=-1) -> Tensor",
    "trapezoid.dx(Tensor y, *, Scalar dx=1, int dim=-1) -> Tensor", "trapz.dx(Tensor y, *, float dx=1, int dim=-1) -> Tensor" => |n| {
        let (x, axis) = strips(n)?;
        n.emit(ops::ReduceSum { x, axes: Some(vec![axis]), keep_dims: false })
    };
    "cumulative_trapezoid.x(Tensor y, Tensor x, *, int dim=-1) -> Tensor",
    "cumulative_trapezoid.dx(Tensor y, *, Scalar dx=1, int dim=-1) -> Tensor" => |n| {
        let (x, axis) = strips(n)?;
        n.emit(ops::Cumsum { x, axis, exclusive: false, reverse: false })
    };
    "gradient.scalarint(Tensor self, *, Scalar? spacing=None, int? dim=None, int edge_order=1) -> Tensor[]",
    "gradient.scalararray(Tensor self, *, Scalar spacing, int[] dim, int edge_order=1) -> Tensor[]",
    "gradient.array(Tensor self, *, int[] dim, int edge_order=1) -> Tensor[]",
    "gradient.scalarrayint(Tensor self, *, Scalar[] spacing, int? dim=None, int edge_order=1) -> Tensor[]",
    "gradient.scalarrayarray(Tensor self, *, Scalar[] spacing, int[] dim, int edge_order=1) -> Tensor[]" => gradient;
    "cov(Tensor self, *, int correction=1, Tensor? fweights=None, Tensor? aweights=None) -> Tensor" => |n| {
        let correction = n.number("correction")?.unwrap_or(1.0);
        let y = covariance(n, correction)?;
        n.done(y)
    };
    "corrcoef(Tensor self) -> Tensor" => correlation;
    "mode(Tensor self, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)" => mode;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// What lies between two neighbours along an axis, and the axis.
fn strips(n: &mut Lower<'_>) -> Result<(Value, i64)> {
    let dim = n.int_or("dim", -1)?;
    let (y, step) = if n.has("x") {
        let [y, x] = float_operands(n, ["y", "x"])?;
        let dim = if n.rank(x)? == 1 { 0 } else { dim };
        let axis = n.axis(x, dim)?;
        let mut step = neighbours(n, x, axis, true)?;
        if n.rank(x)? == 1 {
            // Along the axis, whichever it is.
            let axis = n.axis(y, n.int_or("dim", -1)?)?;
            let behind: Vec<i64> = (1..(n.rank(y)? - axis) as i64).collect();
            step = n.expand_dims(step, &behind)?;
        }
        (y, Ok(step))
    } else {
        let y = n.value("y")?;
        (n.as_float(y)?, Err(n.number("dx")?.unwrap_or(1.0)))
    };
    let axis = n.axis(y, dim)?;
    let sum = neighbours(n, y, axis, false)?;
    let area = match step {
        Ok(step) => n.mul(sum, step)?,
        Err(dx) => n.scale(sum, dx)?,
    };
    Ok((n.scale(area, 0.5)?, axis as i64))
}

/// The sums of neighbours, or by how much each is more than the one before.
fn neighbours(n: &mut Lower<'_>, x: Value, axis: usize, apart: bool) -> Result<Value> {
    let (before, behind) = (n.slice(x, axis, 0, Some(-1))?, n.slice(x, axis, 1, None)?);
    if apart { n.sub(behind, before) } else { n.add(behind, before) }
}

/// Slopes along axes: inside from both neighbours, at the ends from as many as `edge_order` says.
fn gradient(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let x = n.as_float(x)?;
    let order = n.int_or("edge_order", 1)?;
    if !(1..=2).contains(&order) {
        return n.bad_attr("edge_order", "1 or 2");
    }
    let mut axes = vec![];
    match n.ints("dim")? {
        Some(dims) => {
            for d in dims {
                axes.push(n.axis(x, d)?);
            }
        }
        None => axes.extend(0..n.rank(x)?),
    }
    let steps: Vec<f64> = match n.node.attrs.get("spacing") {
        Some(Arg::Ints(_)) => n.ints("spacing")?.unwrap_or_default().into_iter().map(|i| i as f64).collect(),
        Some(Arg::Floats(_)) => n.floats("spacing")?.unwrap_or_default().into_iter().map(f64::from).collect(),
        _ => vec![n.number("spacing")?.unwrap_or(1.0)],
    };
    let mut out = vec![];
    for (i, axis) in axes.iter().enumerate() {
        let step = match steps.as_slice() {
            [one] => *one,
            all => *all.get(i).ok_or_else(|| LowerError::form("fewer distances than axes"))?,
        };
        out.push(Entry::Value(slope(n, x, *axis, (step, order))?));
    }
    Ok(out)
}

fn slope(n: &mut Lower<'_>, x: Value, axis: usize, (step, order): (f64, i64)) -> Result<Value> {
    let (left, right) = (n.slice(x, axis, 0, Some(-2))?, n.slice(x, axis, 2, None)?);
    let inner = n.sub(right, left)?;
    let inner = n.scale(inner, 0.5 / step)?;
    let at = |n: &mut Lower<'_>, i: i64| n.slice(x, axis, i, if i == -1 { None } else { Some(i + 1) });
    let mut ends = vec![];
    for places in [[0, 1, 2], [-1, -2, -3]] {
        let [a, b] = [at(n, places[0])?, at(n, places[1])?];
        let mut end = n.sub(b, a)?;
        if order == 2 {
            // `-3 a + 4 b - c`, halved.
            let c = at(n, places[2])?;
            let (a, b) = (n.scale(a, -3.0)?, n.scale(b, 4.0)?);
            let sum = n.add(a, b)?;
            end = n.sub(sum, c)?;
            end = n.scale(end, 0.5)?;
        }
        ends.push(n.scale(end, if places[0] == 0 { 1.0 } else { -1.0 } / step)?);
    }
    n.concat(vec![ends[0], inner, ends[1]], axis as i64)
}

/// Of rows that are variables and columns that are observations, which weights may count.
fn covariance(n: &mut Lower<'_>, correction: f64) -> Result<Value> {
    let x = n.value("self")?;
    let mut x = n.as_float(x)?;
    let rank = n.rank(x)?;
    x = match rank {
        0 => n.expand_dims(x, &[0, 1])?,
        1 => n.expand_dims(x, &[0])?,
        2 => x,
        _ => return Err(LowerError::form(format!("observations in {}", n.ty(x)?))),
    };
    let (times, shares) = (n.maybe("fweights")?, n.maybe("aweights")?);
    let dtype = n.dtype(x)?;
    let mut weights = None;
    for v in [times, shares].into_iter().flatten() {
        let v = n.cast(v, dtype)?;
        let v = n.at_least_1d(v)?;
        weights = Some(match weights {
            None => v,
            Some(w) => n.mul(w, v)?,
        });
    }
    let Some(w) = weights else {
        let count =
            n.shape(x)?[1].as_known().ok_or_else(|| LowerError::NotFixed { what: "the observations".into() })?;
        let mean = n.mean_over(x, &[1])?;
        let x = n.sub(x, mean)?;
        let y = n.matmul(x, x, false, true)?;
        let y = n.scale(y, 1.0 / (count as f64 - correction).max(0.0))?;
        return scalar(n, y);
    };
    let sum = n.op(ops::ReduceSum { x: w, axes: None, keep_dims: false })?;
    let weighted = n.mul(x, w)?;
    let mean = n.sum_over(weighted, &[1])?;
    let mean = n.div(mean, sum)?;
    let x = n.sub(x, mean)?;
    let weighted = n.mul(x, w)?;
    let y = n.matmul(weighted, x, false, true)?;
    let by = match shares {
        Some(shares) if correction != 0.0 => {
            let shares = n.cast(shares, dtype)?;
            let squares = n.mul(w, shares)?;
            let squares = n.op(ops::ReduceSum { x: squares, axes: None, keep_dims: false })?;
            let lost = n.div(squares, sum)?;
            let lost = n.scale(lost, correction)?;
            n.sub(sum, lost)?
        }
        _ => n.add_number(sum, -correction)?,
    };
    let y = n.div(y, by)?;
    scalar(n, y)
}

/// One number, where there is one variable.
fn scalar(n: &mut Lower<'_>, y: Value) -> Result<Value> {
    if n.shape(y)?.iter().all(|d| d.is(1)) { n.squeeze(y, &[0, 1]) } else { Ok(y) }
}

fn correlation(n: &mut Lower<'_>) -> Lowered {
    let y = covariance(n, 1.0)?;
    if n.rank(y)? == 0 {
        return n.emit(ops::RealDiv { x: y, y });
    }
    let own = n.op(ops::BandPart { x: y, lower: 0, upper: 0 })?;
    let own = n.sum_over(own, &[1])?;
    let deviation = n.sqrt(own)?;
    let y = n.div(y, deviation)?;
    let across = n.transpose(deviation, &[1, 0])?;
    let y = n.div(y, across)?;
    let (low, high) = (n.scalar_like(y, -1.0)?, n.scalar_like(y, 1.0)?);
    let y = n.maximum(y, low)?;
    n.emit(ops::Minimum { x: y, y: high })
}

/// The element that is there most often, of several the least, and the last place where it is.
fn mode(n: &mut Lower<'_>) -> Lowered {
    let (x, dim, keep_dims) = (n.value("self")?, n.int_or("dim", -1)?, n.flag("keepdim", false)?);
    if n.rank(x)? == 0 {
        let zero = n.const_int(0)?;
        return Ok(vec![Entry::Value(x), Entry::Value(zero)]);
    }
    let (rank, axis, dtype) = (n.rank(x)?, n.axis(x, dim)?, n.dtype(x)?);
    let size = n.shape(x)?[axis].as_known().ok_or_else(|| LowerError::NotFixed { what: "what is counted".into() })?;
    if !(1..=1 << 12).contains(&size) || rank > 4 {
        return Err(LowerError::form(format!("the most frequent of {}", n.ty(x)?)));
    }
    let keys = if dtype == DType::Bool { n.cast(x, DType::I32)? } else { x };
    let mut perm: Vec<i64> = (0..rank as i64).filter(|i| *i != axis as i64).collect();
    perm.push(axis as i64);
    let keys = n.transpose(keys, &perm)?;
    let (a, b) = (n.expand_dims(keys, &[-1])?, n.expand_dims(keys, &[-2])?);
    let same = n.equal(a, b)?;
    let same = n.cast(same, DType::I32)?;
    let axes = || Some(vec![-1]);
    let counts = n.op(ops::ReduceSum { x: same, axes: axes(), keep_dims: false })?;
    let most = n.op(ops::ReduceMax { x: counts, axes: axes(), keep_dims: true })?;
    let among = n.equal(counts, most)?;
    let highest = n.op(ops::ReduceMax { x: keys, axes: axes(), keep_dims: true })?;
    let left = n.select(among, keys, highest)?;
    let value = n.op(ops::ReduceMin { x: left, axes: axes(), keep_dims: true })?;
    let here = n.equal(keys, value)?;
    let here = n.cast(here, DType::I32)?;
    let places = n.const_ints(&(0..size).collect::<Vec<_>>())?;
    let places = n.mul(here, places)?;
    let place = n.op(ops::ReduceMax { x: places, axes: axes(), keep_dims: true })?;
    let mut out = vec![];
    for v in [n.cast(value, dtype)?, place] {
        let v = n.squeeze(v, &[-1])?;
        out.push(Entry::Value(if keep_dims { n.expand_dims(v, &[axis as i64])? } else { v }));
    }
    Ok(out)
}
