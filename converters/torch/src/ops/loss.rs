//! Losses.

use super::{norms::norm, promote::float_operands};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered,
    layers::loss::{Classes, Reduction, likelihood, log_softmax},
};
use mlconv_tensor::DType;

aten! {
    "nll_loss(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean, SymInt ignore_index=-100) -> Tensor",
    "nll_loss2d(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean, SymInt ignore_index=-100) -> Tensor",
    "nll_loss_nd(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean, SymInt ignore_index=-100) -> Tensor" => |n| { let x = n.value("self")?; let y = nll(n, x)?.0; n.done(y) };
    "nll_loss_forward(Tensor self, Tensor target, Tensor? weight, int reduction, SymInt ignore_index) -> (Tensor output, Tensor total_weight)",
    "nll_loss2d_forward(Tensor self, Tensor target, Tensor? weight, int reduction, SymInt ignore_index) -> (Tensor output, Tensor total_weight)" => |n| {
        let x = n.value("self")?;
        let (y, weights) = nll(n, x)?;
        let total = match weights {
            Some(weights) => Entry::Value(n.op(ops::ReduceSum { x: weights, axes: None, keep_dims: false })?),
            None => Entry::Nothing,
        };
        Ok(vec![Entry::Value(y), total])
    };
    "cross_entropy_loss(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean, SymInt ignore_index=-100, float label_smoothing=0.0) -> Tensor" => cross_entropy;
    "mse_loss(Tensor self, Tensor target, int reduction=Mean) -> Tensor" => |n| { let d = apart(n)?; let y = n.mul(d, d)?; reduced(n, y) };
    "l1_loss(Tensor self, Tensor target, int reduction=Mean) -> Tensor" => |n| { let d = apart(n)?; let y = n.abs(d)?; reduced(n, y) };
    "smooth_l1_loss(Tensor self, Tensor target, int reduction=Mean, float beta=1.0) -> Tensor" => |n| { let beta = n.number("beta")?.unwrap_or(1.0); smooth(n, beta, 1.0 / beta) };
    "huber_loss(Tensor self, Tensor target, int reduction=Mean, float delta=1.0) -> Tensor" => |n| { let delta = n.number("delta")?.unwrap_or(1.0); smooth(n, delta, 1.0) };
    "binary_cross_entropy(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean) -> Tensor" => binary_cross_entropy;
    "binary_cross_entropy_with_logits(Tensor self, Tensor target, Tensor? weight=None, Tensor? pos_weight=None, int reduction=Mean) -> Tensor" => binary_cross_entropy_with_logits;
    "kl_div(Tensor self, Tensor target, int reduction=Mean, *, bool log_target=False) -> Tensor" => kl_div;
    "poisson_nll_loss(Tensor input, Tensor target, bool log_input, bool full, float eps, int reduction) -> Tensor" => poisson;
    "soft_margin_loss(Tensor self, Tensor target, int reduction=Mean) -> Tensor" => |n| {
        let [x, target] = float_operands(n, ["self", "target"])?;
        let product = n.mul(x, target)?;
        let x = n.scale(product, -1.0)?;
        let y = n.op(ops::Softplus { x })?;
        reduced(n, y)
    };
    "hinge_embedding_loss(Tensor self, Tensor target, float margin=1.0, int reduction=Mean) -> Tensor" => hinge;
    "margin_ranking_loss(Tensor input1, Tensor input2, Tensor target, float margin=0.0, int reduction=Mean) -> Tensor" => |n| {
        let margin = n.number("margin")?.unwrap_or(0.0);
        let [a, b, target] = float_operands(n, ["input1", "input2", "target"])?;
        let d = n.sub(b, a)?;
        let d = n.mul(d, target)?;
        let d = n.add_number(d, margin)?;
        let zero = n.scalar_like(d, 0.0)?;
        let y = n.maximum(d, zero)?;
        reduced(n, y)
    };
    "multi_margin_loss(Tensor self, Tensor target, Scalar p=1, Scalar margin=1, Tensor? weight=None, int reduction=Mean) -> Tensor" => multi_margin;
    "multilabel_margin_loss(Tensor self, Tensor target, int reduction=Mean) -> Tensor" => |n| { let y = multilabel_margin(n)?.0; reduced(n, y) };
    "multilabel_margin_loss_forward(Tensor self, Tensor target, int reduction) -> (Tensor output, Tensor is_target)" => |n| {
        let (y, is_target) = multilabel_margin(n)?;
        let mut out = reduced(n, y)?;
        out.push(Entry::Value(is_target));
        Ok(out)
    };
    "cosine_embedding_loss(Tensor input1, Tensor input2, Tensor target, float margin=0.0, int reduction=Mean) -> Tensor" => cosine;
    "triplet_margin_loss(Tensor anchor, Tensor positive, Tensor negative, float margin=1.0, float p=2, float eps=1e-06, bool swap=False, int reduction=Mean) -> Tensor" => triplet;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

fn reduction(n: &Lower<'_>) -> Result<Reduction> {
    match n.int_or("reduction", 1)? {
        0 => Ok(Reduction::None),
        1 => Ok(Reduction::Mean),
        2 => Ok(Reduction::Sum),
        _ => n.bad_attr("reduction", "0, 1 or 2"),
    }
}

/// Losses, as the argument `reduction` wants them.
fn reduced(n: &mut Lower<'_>, x: Value) -> Lowered {
    let (axes, keep_dims) = (None, false);
    match reduction(n)? {
        _ if n.rank(x)? == 0 => n.done(x),
        Reduction::None => n.done(x),
        Reduction::Mean => n.emit(ops::ReduceMean { x, axes, keep_dims }),
        Reduction::Sum => n.emit(ops::ReduceSum { x, axes, keep_dims }),
    }
}

/// `self - target`.
fn apart(n: &mut Lower<'_>) -> Result<Value> {
    let [x, target] = float_operands(n, ["self", "target"])?;
    n.sub(x, target)
}

/// The loss of log-probabilities `x`, `[n, c, *d]` or `[c]`.
fn nll(n: &mut Lower<'_>, x: Value) -> Result<(Value, Option<Value>)> {
    let (target, weight) = (n.value("target")?, n.maybe("weight")?);
    let (ignored, reduction) = (n.int_or("ignore_index", -100)?, reduction(n)?);
    let single = n.rank(x)? == 1;
    let (x, target) = if single { (n.expand_dims(x, &[0])?, n.expand_dims(target, &[0])?) } else { (x, target) };
    let (y, weights) = likelihood(n, x, Classes { target, weight, ignored: Some(ignored) }, reduction)?;
    let y = if single && reduction == Reduction::None { n.squeeze(y, &[0])? } else { y };
    Ok((y, weights))
}

/// Targets are classes, or a share of each class.
fn cross_entropy(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let axis = usize::from(n.rank(x)? > 1);
    let logs = log_softmax(n, x, axis)?;
    let smoothing = n.number("label_smoothing")?.unwrap_or(0.0);
    let target = n.value("target")?;
    if n.dtype(target)?.is_float() {
        n.ignore("ignore_index");
        return by_shares(n, logs, target, (axis, smoothing));
    }
    if smoothing == 0.0 {
        let y = nll(n, logs)?.0;
        return n.done(y);
    }
    // A part of every class, by its weight, takes the place of a part of the target's.
    let Some(classes) = n.shape(logs)?[axis].as_known() else {
        return Err(LowerError::NotFixed { what: "the number of classes".into() });
    };
    let (weight, ignored) = (n.maybe("weight")?, n.int_or("ignore_index", -100)?);
    let logs = if axis == 0 { n.expand_dims(logs, &[0])? } else { logs };
    let target = if axis == 0 { n.expand_dims(target, &[0])? } else { target };
    let (own, weights) = likelihood(n, logs, Classes { target, weight, ignored: Some(ignored) }, Reduction::None)?;
    let mut shares = n.scale(logs, -smoothing / classes as f64)?;
    if let Some(weight) = weight {
        let after: Vec<i64> = (1..(n.rank(logs)? - 1) as i64).collect();
        let weight = n.expand_dims(weight, &after)?;
        shares = n.mul(shares, weight)?;
    }
    let all = n.op(ops::ReduceSum { x: shares, axes: Some(vec![1]), keep_dims: false })?;
    let (skipped, zero) = (n.const_int(ignored)?, n.scalar_like(all, 0.0)?);
    let skip = n.equal(target, skipped)?;
    let all = n.select(skip, zero, all)?;
    let own = n.scale(own, 1.0 - smoothing)?;
    let x = n.add(own, all)?;
    match (reduction(n)?, weights) {
        (Reduction::Mean, Some(weights)) => {
            let sum = n.op(ops::ReduceSum { x, axes: None, keep_dims: false })?;
            let count = n.op(ops::ReduceSum { x: weights, axes: None, keep_dims: false })?;
            n.emit(ops::RealDiv { x: sum, y: count })
        }
        (Reduction::None, _) if axis == 0 => {
            let y = n.squeeze(x, &[0])?;
            n.done(y)
        }
        _ => reduced(n, x),
    }
}

fn by_shares(n: &mut Lower<'_>, logs: Value, target: Value, (axis, smoothing): (usize, f64)) -> Lowered {
    let mut shares = n.cast(target, n.dtype(logs)?)?;
    if smoothing != 0.0 {
        let Some(classes) = n.shape(logs)?[axis].as_known() else {
            return Err(LowerError::NotFixed { what: "the number of classes".into() });
        };
        shares = n.scale(shares, 1.0 - smoothing)?;
        shares = n.add_number(shares, smoothing / classes as f64)?;
    }
    if let Some(weight) = n.maybe("weight")? {
        let after: Vec<i64> = (1..(n.rank(logs)? - axis) as i64).collect();
        let weight = n.expand_dims(weight, &after)?;
        shares = n.mul(shares, weight)?;
    }
    let product = n.mul(logs, shares)?;
    let sums = n.op(ops::ReduceSum { x: product, axes: Some(vec![axis as i64]), keep_dims: false })?;
    let losses = n.scale(sums, -1.0)?;
    reduced(n, losses)
}

/// Squares below `limit`, and lines beyond it, times `scale`.
fn smooth(n: &mut Lower<'_>, limit: f64, scale: f64) -> Lowered {
    let d = apart(n)?;
    let size = n.abs(d)?;
    if limit == 0.0 {
        return reduced(n, size);
    }
    let square = n.mul(d, d)?;
    let near = n.scale(square, 0.5 * scale)?;
    let far = n.add_number(size, -0.5 * limit)?;
    let far = n.scale(far, limit * scale)?;
    let limit = n.scalar_like(size, limit)?;
    let small = n.less(size, limit)?;
    let y = n.select(small, near, far)?;
    reduced(n, y)
}

/// Logarithms are no less than -100.
fn binary_cross_entropy(n: &mut Lower<'_>) -> Lowered {
    let [x, target] = float_operands(n, ["self", "target"])?;
    let (one, least) = (n.scalar_like(x, 1.0)?, n.scalar_like(x, -100.0)?);
    let (rest, other) = (n.sub(one, x)?, n.sub(one, target)?);
    let mut sum = None;
    for (share, of) in [(target, x), (other, rest)] {
        let log = n.log(of)?;
        let log = n.maximum(log, least)?;
        let part = n.mul(share, log)?;
        sum = Some(match sum {
            Some(sum) => n.add(sum, part)?,
            None => part,
        });
    }
    let y = n.scale(sum.ok_or(LowerError::Poisoned)?, -1.0)?;
    weighted(n, y)
}

fn weighted(n: &mut Lower<'_>, y: Value) -> Lowered {
    let y = match n.maybe("weight")? {
        Some(weight) => n.mul(y, weight)?,
        None => y,
    };
    reduced(n, y)
}

/// `(1 - t) * x + (1 + (p - 1) * t) * log(1 + e^-x)`.
fn binary_cross_entropy_with_logits(n: &mut Lower<'_>) -> Lowered {
    let [x, target] = float_operands(n, ["self", "target"])?;
    let one = n.scalar_like(x, 1.0)?;
    let other = n.sub(one, target)?;
    let line = n.mul(other, x)?;
    let minus = n.scale(x, -1.0)?;
    let mut log = n.op(ops::Softplus { x: minus })?;
    if let Some(weight) = n.maybe("pos_weight")? {
        let more = n.sub(weight, one)?;
        let more = n.mul(more, target)?;
        let factor = n.add_number(more, 1.0)?;
        log = n.mul(log, factor)?;
    }
    let y = n.add(line, log)?;
    weighted(n, y)
}

fn kl_div(n: &mut Lower<'_>) -> Lowered {
    let [x, target] = float_operands(n, ["self", "target"])?;
    let y = if n.flag("log_target", false)? {
        let (share, d) = (n.exp(target)?, n.sub(target, x)?);
        n.mul(share, d)?
    } else {
        let log = n.log(target)?;
        let own = n.mul(target, log)?;
        let zero = n.scalar_like(x, 0.0)?;
        let none = n.equal(target, zero)?;
        let own = n.select(none, zero, own)?;
        let other = n.mul(target, x)?;
        n.sub(own, other)?
    };
    reduced(n, y)
}

fn poisson(n: &mut Lower<'_>) -> Lowered {
    let eps = n.number("eps")?.unwrap_or(1e-8);
    let [x, target] = float_operands(n, ["input", "target"])?;
    let full = n.flag("full", false)?;
    let mut y = if n.flag("log_input", true)? {
        let (rate, part) = (n.exp(x)?, n.mul(target, x)?);
        n.sub(rate, part)?
    } else {
        let log = n.add_number(x, eps)?;
        let log = n.log(log)?;
        let part = n.mul(target, log)?;
        n.sub(x, part)?
    };
    if full {
        // Stirling's term, of targets above 1: `t * log(t) - t + log(2 * pi * t) / 2`.
        let (log, one) = (n.log(target)?, n.scalar_like(target, 1.0)?);
        let main = n.mul(target, log)?;
        let main = n.sub(main, target)?;
        let half = n.scale(log, 0.5)?;
        let half = n.add_number(half, 0.5 * std::f64::consts::TAU.ln())?;
        let term = n.add(main, half)?;
        let (above, zero) = (n.less(one, target)?, n.scalar_like(target, 0.0)?);
        let term = n.select(above, term, zero)?;
        y = n.add(y, term)?;
    }
    reduced(n, y)
}

/// `x` where the target is 1, and what it lacks of the margin where it is -1.
fn hinge(n: &mut Lower<'_>) -> Lowered {
    let margin = n.number("margin")?.unwrap_or(1.0);
    let (x, target) = (n.value("self")?, n.value("target")?);
    let target = n.cast(target, DType::F32)?;
    let (zero, one, minus) =
        (n.scalar_like(x, 0.0)?, n.const_scalar(DType::F32, 1.0)?, n.const_scalar(DType::F32, -1.0)?);
    let rest = n.scale(x, -1.0)?;
    let rest = n.add_number(rest, margin)?;
    let rest = n.maximum(rest, zero)?;
    let (like, unlike) = (n.equal(target, one)?, n.equal(target, minus)?);
    let (a, b) = (n.select(like, x, zero)?, n.select(unlike, rest, zero)?);
    let y = n.add(a, b)?;
    reduced(n, y)
}

/// By how much the cosine of both is less than 1 where the target is 1, and more than the margin where it is -1.
fn cosine(n: &mut Lower<'_>) -> Lowered {
    let margin = n.number("margin")?.unwrap_or(0.0);
    let [x, y] = float_operands(n, ["input1", "input2"])?;
    let target = n.value("target")?;
    let mut sums = vec![];
    for (a, b) in [(x, y), (x, x), (y, y)] {
        let product = n.mul(a, b)?;
        sums.push(n.op(ops::ReduceSum { x: product, axes: Some(vec![-1]), keep_dims: false })?);
    }
    let (a, b) = (n.add_number(sums[1], 1e-12)?, n.add_number(sums[2], 1e-12)?);
    let lengths = n.mul(a, b)?;
    let lengths = n.sqrt(lengths)?;
    let cosine = n.div(sums[0], lengths)?;
    let (one, zero) = (n.scalar_like(cosine, 1.0)?, n.scalar_like(cosine, 0.0)?);
    let near = n.sub(one, cosine)?;
    let far = n.add_number(cosine, -margin)?;
    let far = n.maximum(far, zero)?;
    let (same, other) = (n.scalar_like(target, 1.0)?, n.scalar_like(target, -1.0)?);
    let (same, other) = (n.equal(target, same)?, n.equal(target, other)?);
    let (near, far) = (n.select(same, near, zero)?, n.select(other, far, zero)?);
    let y = n.add(near, far)?;
    reduced(n, y)
}

/// By how much less than the margin the negative is further away than the positive.
fn triplet(n: &mut Lower<'_>) -> Lowered {
    let (margin, p) = (n.number("margin")?.unwrap_or(1.0), n.number("p")?.unwrap_or(2.0));
    let (eps, swap) = (n.number("eps")?.unwrap_or(1e-6), n.flag("swap", false)?);
    let [anchor, positive, negative] = float_operands(n, ["anchor", "positive", "negative"])?;
    let distance = |n: &mut Lower<'_>, a: Value, b: Value| {
        let apart = n.sub(a, b)?;
        let apart = n.add_number(apart, eps)?;
        norm(n, apart, p, Some(vec![-1]), false)
    };
    let (near, mut far) = (distance(n, anchor, positive)?, distance(n, anchor, negative)?);
    if swap {
        let other = distance(n, positive, negative)?;
        far = n.minimum(far, other)?;
    }
    let less = n.sub(near, far)?;
    let less = n.add_number(less, margin)?;
    let zero = n.scalar_like(less, 0.0)?;
    let y = n.maximum(less, zero)?;
    reduced(n, y)
}

/// The scores in floats and the targets, both with an axis of batches.
fn batches(n: &mut Lower<'_>) -> Result<[Value; 2]> {
    let (mut x, mut target) = (n.value("self")?, n.value("target")?);
    if n.rank(x)? < 2 {
        x = n.at_least_1d(x)?;
        x = n.expand_dims(x, &[0])?;
    }
    if n.rank(target)? == 0 {
        target = n.expand_dims(target, &[0])?;
    }
    Ok([n.as_float(x)?, target])
}

/// By how much each class comes within a margin of the one that is right, to a power, and on the mean of classes.
fn multi_margin(n: &mut Lower<'_>) -> Lowered {
    let (p, margin, weight) = (n.number("p")?.unwrap_or(1.0), n.number("margin")?.unwrap_or(1.0), n.maybe("weight")?);
    if p != 1.0 && p != 2.0 {
        return n.bad_attr("p", "1 or 2");
    }
    let own = n.value("self")?;
    let alone = n.rank(own)? < 2;
    let [x, target] = batches(n)?;
    let column = n.expand_dims(target, &[1])?;
    let right = n.gather_elements(x, column, 1)?;
    let apart = n.sub(x, right)?;
    let apart = n.add_number(apart, margin)?;
    let zero = n.scalar_like(apart, 0.0)?;
    let mut y = n.maximum(apart, zero)?;
    if p == 2.0 {
        y = n.mul(y, y)?;
    }
    if let Some(weight) = weight {
        let weight = n.cast(weight, n.dtype(y)?)?;
        let weight = n.gather(weight, column, 0)?;
        y = n.mul(y, weight)?;
    }
    let classes = n.counted(x, 1, DType::I32)?;
    let is = n.equal(classes, column)?;
    let y = n.select(is, zero, y)?;
    let y = n.op(ops::ReduceMean { x: y, axes: Some(vec![1]), keep_dims: false })?;
    let y = if alone { n.squeeze(y, &[0])? } else { y };
    reduced(n, y)
}

/// By how much other classes come within 1 of those that are right, which stand first in a row until one is negative; and
/// which these are.
fn multilabel_margin(n: &mut Lower<'_>) -> Result<(Value, Value)> {
    let (own, of_target) = (n.value("self")?, n.value("target")?);
    let (alone, shape) = (n.rank(own)? < 2, of_target);
    let [x, target] = batches(n)?;
    let target = if n.rank(target)? == 1 { n.expand_dims(target, &[0])? } else { target };
    let (zero, none) = (n.const_int(0)?, n.scalar_like(x, 0.0)?);
    // Those before the first that is negative.
    let gone = n.less(target, zero)?;
    let gone = n.cast(gone, DType::I32)?;
    let gone = n.op(ops::Cumsum { x: gone, axis: 1, exclusive: false, reverse: false })?;
    let counts = n.equal(gone, zero)?;
    let at = n.maximum(target, zero)?;
    let right = n.gather_elements(x, at, 1)?;
    // [b, classes, targets]
    let classes = n.counted(x, 1, DType::I32)?;
    let classes = n.expand_dims(classes, &[0, 2])?;
    let (places, counted) = (n.expand_dims(target, &[1])?, n.expand_dims(counts, &[1])?);
    let is = n.equal(classes, places)?;
    let is = n.and(is, counted)?;
    let is = n.cast(is, DType::I32)?;
    let is = n.op(ops::ReduceMax { x: is, axes: Some(vec![2]), keep_dims: true })?;
    let other = n.equal(is, zero)?;
    let (right, x) = (n.expand_dims(right, &[1])?, n.expand_dims(x, &[2])?);
    let apart = n.sub(x, right)?;
    let apart = n.add_number(apart, 1.0)?;
    let near = n.maximum(apart, none)?;
    let pairs = n.and(other, counted)?;
    let near = n.select(pairs, near, none)?;
    let sum = n.op(ops::ReduceSum { x: near, axes: Some(vec![2]), keep_dims: false })?;
    let y = n.op(ops::ReduceMean { x: sum, axes: Some(vec![1]), keep_dims: false })?;
    let y = if alone { n.squeeze(y, &[0])? } else { y };
    let is = n.cast(is, n.dtype(y)?)?;
    let is = n.reshape_as(is, shape)?;
    Ok((y, is))
}
