//! Ops that compute: elementwise, of rows, of matrices.

use super::{
    axes::{around, index, indices, joined, product, runs},
    lower::{Lower, MAX_RANK, On, Rule, Where, Why, require},
    moving::{repeated, transposed},
};
use mlconv_mil::{
    ir::Value,
    ops::{
        Argsort, Cumsum, LayerNorm, Linear, Matmul, ReduceArgmax, ReduceArgmin, ReduceL1Norm, ReduceL2Norm,
        ReduceLogSum, ReduceLogSumExp, ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum, ReduceSumSquare,
        Softmax, Topk,
    },
    schema::{Ints, Op},
};
use mlconv_tensor::{Dim, Shape};
use std::{collections::HashMap, ops::Range};

/// Rules of ops that work along one axis: the op over the axes before it, it, and those behind it.
macro_rules! along_one_axis {
    ($($ty:ident),*) => { [$(
        &On::<$ty>(|op, cx| {
            let x = one_axis(cx, op.x, op.axis)?;
            let mut op = op.clone();
            (op.x, op.axis) = (x, 1);
            Ok(cx.insert_all(Box::new(op))?.into_vec())
        }) as &dyn Rule
    ),*] };
}

/// Rules of reductions.
macro_rules! reductions {
    ($($ty:ident),*) => { [$(
        &On::<$ty>(|op, cx| {
            reduce(cx, op.x, op.axes.as_deref(), |x, axes| Box::new($ty { x, axes: Some(axes), keep_dims: false }))
        }) as &dyn Rule
    ),*] };
}

pub(super) const ROWS: &[&dyn Rule] = &along_one_axis![Argsort, Cumsum, ReduceArgmax, ReduceArgmin, Softmax, Topk];

pub(super) const REDUCTIONS: &[&dyn Rule] = &reductions![
    ReduceL1Norm,
    ReduceL2Norm,
    ReduceLogSum,
    ReduceLogSumExp,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    ReduceSumSquare
];

pub(super) const RULES: &[&dyn Rule] =
    &[&Where(|op| op.schema().elementwise, elementwise), &On(layer_norm), &On(linear), &On(matmul)];

/// `x` as the axes before `axis`, it, and those behind it.
fn one_axis(cx: &mut Lower<'_>, x: Value, axis: i64) -> Result<Value, Why> {
    let shape = cx.shape(x);
    cx.view(x, &around(&shape, index(&shape, axis)?))
}

/// For each axis of `of`, whether an operand of the shape `shape` has it, rather than being repeated along it; `None`
/// for axes of one element.
fn presence(shape: &Shape, of: &Shape) -> Result<Vec<Option<bool>>, Why> {
    let lead = of.rank().checked_sub(shape.rank()).ok_or(Why::Because("an operand has more axes than the result"))?;
    let one = |(i, d): (usize, &Dim)| match i.checked_sub(lead).map(|i| &shape[i]) {
        _ if d.is(1) => Ok(None),
        None => Ok(Some(false)),
        Some(own) if own == d => Ok(Some(true)),
        Some(own) if own.is(1) => Ok(Some(false)),
        Some(_) => Err(Why::Because("whether an operand is repeated is known only when the program runs")),
    };
    of.iter().enumerate().map(one).collect()
}

/// Runs of axes of a result of the shape `of` that every operand has, or lacks, as a whole.
fn shared_runs(operands: &[Vec<Option<bool>>], of: &[Dim]) -> Vec<Range<usize>> {
    let kind = |i: usize| operands.iter().map(|o| o[i]).collect::<Option<Vec<bool>>>();
    let kinds: Vec<Option<Vec<bool>>> = (0..of.len()).map(kind).collect();
    runs(&kinds, vec![]).into_iter().map(|(run, _)| run).collect()
}

/// The shape `shape`, right-aligned to `rank` axes, with runs of axes joined.
fn joined_to(shape: &Shape, rank: usize, runs: &[Range<usize>]) -> Vec<Dim> {
    let mut dims = vec![Dim::from(1); rank - shape.rank()];
    dims.extend(shape.iter().cloned());
    joined(&dims, runs)
}

fn elementwise(op: &dyn Op, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let of = cx.shape(cx.results()[0]);
    let mut operands = vec![];
    op.visit_operands(&mut |v| operands.push(v));
    let views = broadcast(cx, &operands, &of)?;
    let mut op = op.clone_op();
    op.visit_operands_mut(&mut |v| *v = views.get(v).copied().unwrap_or(*v));
    Ok(cx.insert_all(op)?.into_vec())
}

/// Operands that broadcast to the shape `of`, on few axes.
fn broadcast(cx: &mut Lower<'_>, operands: &[Value], of: &Shape) -> Result<HashMap<Value, Value>, Why> {
    let present: Vec<_> = operands.iter().map(|v| presence(&cx.shape(*v), of)).collect::<Result<_, _>>()?;
    let runs = shared_runs(&present, of);
    let mut views = HashMap::new();
    let is_whole = |p: &Vec<Option<bool>>| p.iter().all(|has| *has != Some(false));
    let whole: Vec<Value> = operands.iter().zip(&present).filter(|(_, p)| is_whole(p)).map(|(v, _)| *v).collect();
    // Operands of one shape stay as they stand.
    if runs.len() == 1 && !whole.is_empty() {
        let first = cx.stand_in(whole[0])?;
        let dims = cx.shape(first);
        for v in operands {
            let view = if whole.contains(v) { cx.view(*v, &dims)? } else { single(cx, *v)? };
            views.insert(*v, view);
        }
        return Ok(views);
    }
    if runs.len() <= MAX_RANK {
        for v in operands {
            let dims = joined_to(&cx.shape(*v), of.rank(), &runs);
            let view = if dims.iter().all(|d| d.is(1)) { single(cx, *v)? } else { cx.view(*v, &dims)? };
            views.insert(*v, view);
        }
        return Ok(views);
    }
    // Too many runs: what is repeated along some axes, and is there for others, is repeated to the whole shape. There is
    // such an operand, so the result has all elements, whatever single ones it is computed with.
    for (v, p) in operands.iter().zip(&present) {
        let view = if is_whole(p) {
            cx.view(*v, &[product(of)])?
        } else if p.iter().all(|has| *has != Some(true)) {
            single(cx, *v)?
        } else {
            let all = repeated_to(cx, *v, p, of, &[])?;
            cx.view(all, &[product(of)])?
        };
        views.insert(*v, view);
    }
    Ok(views)
}

/// `v` repeated along the axes of `of` that it has not, as `present` says; axes `behind` these stay as they are.
fn repeated_to(
    cx: &mut Lower<'_>,
    v: Value,
    present: &[Option<bool>],
    of: &[Dim],
    behind: &[Dim],
) -> Result<Value, Why> {
    let times = |(has, d): (&Option<bool>, &Dim)| if *has == Some(false) { d.clone() } else { Dim::from(1) };
    let mut reps: Vec<Dim> = present.iter().zip(of).map(times).collect();
    reps.resize(of.len() + behind.len(), Dim::from(1));
    let own = cx.shape(v);
    let mut dims = vec![Dim::from(1); reps.len() - own.rank()];
    dims.extend(own.iter().cloned());
    Ok(repeated(cx, v, &dims, &reps)?[0])
}

/// The one element of `v`, on as few axes as it can be.
fn single(cx: &mut Lower<'_>, v: Value) -> Result<Value, Why> {
    if cx.shape(v).rank() == 0 { Ok(v) } else { cx.view(v, &[Dim::from(1)]) }
}

fn reduce(
    cx: &mut Lower<'_>,
    x: Value,
    axes: Option<&[i64]>,
    op: impl Fn(Value, Ints) -> Box<dyn Op>,
) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(x);
    let axes = axes.map(|a| indices(&shape, a)).transpose()?;
    let reduced = |i: usize| axes.as_ref().is_none_or(|a| a.contains(&i));
    // A single axis may be reduced or not: the value of one element is computed all the same.
    let kinds: Vec<Option<bool>> =
        shape.iter().enumerate().map(|(i, d)| if d.is(1) { None } else { Some(reduced(i)) }).collect();
    let runs = runs(&kinds, true);
    let (mut dims, mut over): (Vec<Dim>, Vec<i64>) = (vec![], vec![]);
    if runs.len() <= MAX_RANK {
        for (i, (run, is_reduced)) in runs.iter().enumerate() {
            dims.push(product(&shape[run.clone()]));
            over.extend(is_reduced.then_some(i as i64));
        }
        // What is reduced has one element: it is computed all the same.
        if over.is_empty() {
            over.push(dims.len() as i64);
            dims.push(Dim::from(1));
        }
        let x = cx.view(x, &dims)?;
        return Ok(cx.insert_all(op(x, over))?.into_vec());
    }
    // Too many runs: what is reduced comes last.
    let kept: Vec<usize> = (0..shape.rank()).filter(|i| !reduced(*i)).collect();
    let gone: Vec<usize> = (0..shape.rank()).filter(|i| reduced(*i)).collect();
    let size = |axes: &[usize]| axes.iter().fold(Dim::from(1), |n, i| n * &shape[*i]);
    let rows = [size(&kept), size(&gone)];
    let moved = transposed(cx, x, &shape, [kept, gone].concat())?;
    let x = cx.view(moved, &rows)?;
    Ok(cx.insert_all(op(x, vec![1]))?.into_vec())
}

fn layer_norm(op: &LayerNorm, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(op.x);
    let mut axes = indices(&shape, &op.axes)?;
    axes.sort_unstable();
    let lead = shape.rank() - axes.len();
    require(axes.iter().copied().eq(lead..shape.rank()), "the axes that are normalised are not the last ones")?;
    let row = product(&shape[lead..]);
    let x = cx.view(op.x, &[product(&shape[..lead]), row.clone()])?;
    let mut flat = |v: Option<Value>| v.map(|v| cx.view(v, std::slice::from_ref(&row))).transpose();
    let (gamma, beta) = (flat(op.gamma)?, flat(op.beta)?);
    Ok(vec![cx.insert(LayerNorm { x, axes: vec![1], gamma, beta, epsilon: op.epsilon })?])
}

fn linear(op: &Linear, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let shape = cx.shape(op.x);
    let last = shape.rank() - 1;
    let x = cx.view(op.x, &[product(&shape[..last]), shape[last].clone()])?;
    Ok(vec![cx.insert(Linear { x, ..op.clone() })?])
}

fn matmul(op: &Matmul, cx: &mut Lower<'_>) -> Result<Vec<Value>, Why> {
    let of = cx.shape(cx.results()[0]);
    let lead = of.rank().checked_sub(2).ok_or(Why::Because("it is no product of matrices"))?;
    let batch: Shape = of[..lead].into();
    let matrices = |cx: &Lower<'_>, v: Value| {
        let shape = cx.shape(v);
        let at = shape.rank().checked_sub(2).ok_or(Why::Because("it is no product of matrices"))?;
        Ok::<_, Why>((Shape::from(&shape[..at]), [shape[at].clone(), shape[at + 1].clone()]))
    };
    let ((bx, mx), (by, my)) = (matrices(cx, op.x)?, matrices(cx, op.y)?);
    let present = [presence(&bx, &batch)?, presence(&by, &batch)?];
    let runs = shared_runs(&present, &batch);
    if runs.len() > MAX_RANK - 2 {
        // Too many runs: both are repeated to the whole batch.
        let whole = |cx: &mut Lower<'_>, v: Value, present: &[Option<bool>], m: [Dim; 2]| {
            let all = repeated_to(cx, v, present, &batch, &m)?;
            let [rows, columns] = m;
            cx.view(all, &[product(&batch), rows, columns])
        };
        let (x, y) = (whole(cx, op.x, &present[0], mx)?, whole(cx, op.y, &present[1], my)?);
        return Ok(vec![cx.insert(Matmul { x, y, ..op.clone() })?]);
    }
    let view = |cx: &mut Lower<'_>, v: Value, b: &Shape, m: [Dim; 2]| {
        // A matrix for all keeps its rank.
        let lead = if b.iter().all(|d| d.is(1)) { vec![] } else { joined_to(b, lead, &runs) };
        cx.view(v, &[lead, m.to_vec()].concat())
    };
    let (x, y) = (view(cx, op.x, &bx, mx)?, view(cx, op.y, &by, my)?);
    Ok(vec![cx.insert(Matmul { x, y, ..op.clone() })?])
}
