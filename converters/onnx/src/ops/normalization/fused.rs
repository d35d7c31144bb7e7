//! Normalizations together with what stands before them, as onnxruntime's optimizer writes them.

use super::{Result, covers, group_normalized, groups, layer_normalized, per_channel, rms_normalized, scaled};
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

/// The sum of what is given, in the shape of `x`.
fn sum(n: &mut Lower<'_>, x: Value, others: [Option<Value>; 2]) -> Result<Value> {
    let sum = others.into_iter().flatten().try_fold(x, |sum, other| n.add(sum, other))?;
    if !n.shape(sum)?.may_equal(&n.shape(x)?) {
        return Err(LowerError::form(format!("a sum of {} from {}", n.ty(sum)?, n.ty(x)?)));
    }
    Ok(sum)
}

/// Refuses anything but vectors of the size of the last axis of `x`.
fn check_vectors(n: &Lower<'_>, x: Value, vectors: &[(&'static str, Option<Value>)]) -> Result<()> {
    let shape = n.shape(x)?;
    let Some(size) = shape.last() else { return Err(LowerError::form("a normalization of a scalar")) };
    for (name, v) in vectors {
        let Some(v) = *v else { continue };
        let own = n.shape(v)?;
        if own.rank() != 1 || !own[0].may_equal(size) {
            return Err(LowerError::form(format!("{name} {}, wanted one number for each of {size},", n.ty(v)?)));
        }
    }
    Ok(())
}

pub(super) fn skip_layer_norm(n: &mut Lower<'_>) -> Lowered {
    let (x, skip, gamma, beta, bias) = (n.input(0)?, n.input(1)?, n.input(2)?, n.optional(3)?, n.optional(4)?);
    let epsilon = n.float_or("epsilon", 1e-5)?;
    let x = sum(n, x, [Some(skip), bias])?;
    check_vectors(n, x, &[("a scale", Some(gamma)), ("a shift", beta), ("a bias", bias)])?;
    let axis = n.axis(x, -1)?;
    let mut results = layer_normalized(n, x, (gamma, beta), axis, epsilon)?;
    results.resize(3, Entry::Poisoned);
    results.push(Entry::Value(x));
    Ok(results)
}

pub(super) fn skip_rms_norm(n: &mut Lower<'_>) -> Lowered {
    let (x, skip, gamma, bias) = (n.input(0)?, n.input(1)?, n.input(2)?, n.optional(3)?);
    let epsilon = n.float_or("epsilon", 1e-5)?;
    if n.wants(1) {
        return Err(LowerError::form("a mean, which this normalization does not have,"));
    }
    let x = sum(n, x, [Some(skip), bias])?;
    check_vectors(n, x, &[("a scale", Some(gamma)), ("a bias", bias)])?;
    let axis = n.axis(x, -1)?;
    let [y, inverse] = rms_normalized(n, x, gamma, axis, (epsilon, true))?;
    Ok(vec![Entry::Value(y), Entry::Poisoned, Entry::Value(inverse), Entry::Value(x)])
}

/// The embeddings of words, of their places and of their segments, added and normalized.
pub(super) fn embed_layer_norm(n: &mut Lower<'_>) -> Lowered {
    n.ignore("mask_index_type");
    let (words, segments) = (n.input(0)?, n.optional(1)?);
    let (of_words, of_places, of_segments) = (n.input(2)?, n.input(3)?, n.optional(4)?);
    let (gamma, beta, mask, places) = (n.input(5)?, n.input(6)?, n.optional(7)?, n.optional(8)?);
    let epsilon = n.float_or("epsilon", 1e-5)?;
    for (ids, table) in [(Some(words), Some(of_words)), (places, Some(of_places)), (segments, of_segments)] {
        let ranks = [ids, table].map(|v| v.map_or(Ok(2), |v| n.rank(v)));
        let [Ok(2), Ok(2)] = ranks else {
            return Err(LowerError::form("an embedding whose ids or table are not of rank 2"));
        };
    }
    let mut sum = n.gather(of_words, words, 0)?;
    let at = match places {
        Some(places) => places,
        None => {
            let places = n.counted(words, 1, DType::I32)?;
            n.expand_dims(places, &[0])?
        }
    };
    let of_place = n.gather(of_places, at, 0)?;
    sum = n.add(sum, of_place)?;
    match (segments, of_segments) {
        (Some(segments), Some(table)) => {
            let of_segment = n.gather(table, segments, 0)?;
            sum = n.add(sum, of_segment)?;
        }
        (None, None) => {}
        // onnxruntime adds the first row then, which the operator does not say.
        (None, Some(_)) => return Err(LowerError::MissingInput { index: 1 }),
        (Some(_), None) => return Err(LowerError::MissingInput { index: 4 }),
    }
    check_vectors(n, sum, &[("a scale", Some(gamma)), ("a shift", Some(beta))])?;
    // The other results of the node are not those of a normalization.
    let axes = vec![2];
    let fits = covers(n, gamma, sum, 2)? && covers(n, beta, sum, 2)?;
    let given = |v| fits.then_some(v);
    let mut y = n.op(ops::LayerNorm { x: sum, axes, gamma: given(gamma), beta: given(beta), epsilon })?;
    if !fits {
        y = scaled(n, y, gamma, Some(beta))?;
    }
    let mut results = vec![Entry::Value(y), Entry::Poisoned];
    if n.wants(1) {
        results[1] = Entry::Value(words_of_mask(n, words, mask)?);
    }
    results.push(Entry::Value(sum));
    Ok(results)
}

/// How many words of each sequence the mask keeps; none where there is no mask.
fn words_of_mask(n: &mut Lower<'_>, words: Value, mask: Option<Value>) -> Result<Value> {
    let Some(mask) = mask else {
        return n.zeros(words, &[Size::Of(words, 0)]);
    };
    let one = n.scalar_like(mask, 1.0)?;
    let kept = n.equal(mask, one)?;
    let kept = n.cast(kept, DType::I32)?;
    n.op(ops::ReduceSum { x: kept, axes: Some(vec![1]), keep_dims: false })
}

/// `skips`, two summands come after scale and shift; `channels_last`, as is the default, channels do not stand second.
pub(super) fn group_norm(n: &mut Lower<'_>, skips: bool) -> Lowered {
    let (x, gamma, beta) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (skip, bias) = if skips { (Some(n.input(3)?), n.optional(4)?) } else { (None, None) };
    let epsilon = n.float_or("epsilon", 1e-5)?;
    let groups = groups(n, "groups")?;
    let silu = match n.int("activation")? {
        Some(0) => false,
        Some(1) => true,
        _ => return n.bad_attr("activation", "0 or 1"),
    };
    let last = n.flag("channels_last", true)?;
    if n.rank(x)? != 4 {
        return Err(LowerError::form(format!("{}, which is no image,", n.ty(x)?)));
    }
    let first = |n: &mut Lower<'_>, v| if last { n.transpose(v, &[0, 3, 1, 2]) } else { Ok(v) };
    let mut image = first(n, x)?;
    if let Some(skip) = skip {
        let skip = match n.rank(skip)? {
            2 => n.expand_dims(skip, &[2, 3])?,
            4 => first(n, skip)?,
            rank => return Err(LowerError::form(format!("a summand of rank {rank}"))),
        };
        image = n.add(image, skip)?;
    }
    if let Some(bias) = bias {
        let bias = per_channel(n, bias, image)?;
        image = n.add(image, bias)?;
    }
    let back = |n: &mut Lower<'_>, v| if last { n.transpose(v, &[0, 2, 3, 1]) } else { Ok(v) };
    // Scale and shift may be of a wider type than the image.
    let dtype = n.dtype(image)?;
    let (gamma, beta) = (n.cast(gamma, dtype)?, n.cast(beta, dtype)?);
    let y = group_normalized(n, image, groups, epsilon, |_, y| Ok(y))?;
    let (gamma, beta) = (per_channel(n, gamma, image)?, per_channel(n, beta, image)?);
    let mut y = scaled(n, y, gamma, Some(beta))?;
    if silu {
        y = n.op(ops::Silu { x: y })?;
    }
    let mut results = vec![Entry::Value(back(n, y)?)];
    if skips && n.wants(1) {
        results.push(Entry::Value(back(n, image)?));
    }
    Ok(results)
}
