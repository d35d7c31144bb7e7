//! Counting runs of tokens.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::{DType, Tensor};

rows! {
    "TfIdfVectorizer" 9..=LATEST => vectorize;
}

/// What is made of how often a run comes.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Count,
    Weight,
    Both,
}

/// Runs of one length that are looked for.
struct Pool {
    length: i64,
    /// One run after the other.
    tokens: Vec<i64>,
    /// The number of the first one.
    first: usize,
}

fn vectorize(n: &mut Lower<'_>) -> Lowered {
    let mode = match n.str("mode")? {
        Some("TF") => Mode::Count,
        Some("IDF") => Mode::Weight,
        Some("TFIDF") => Mode::Both,
        _ => return n.bad_attr("mode", "`TF`, `IDF` or `TFIDF`"),
    };
    if n.strs("pool_strings")?.is_some_and(|p| !p.is_empty()) {
        return Err(LowerError::core_ml("a pool of strings, which Core ML has no tensors of,"));
    }
    let pool = n.ints("pool_int64s")?.unwrap_or_default();
    let starts = n.ints("ngram_counts")?.unwrap_or_default();
    let columns = n.ints("ngram_indexes")?.unwrap_or_default();
    let weights = n.floats("weights")?;
    let (least, most) = (n.int_or("min_gram_length", 1)?, n.int_or("max_gram_length", 1)?);
    let skips = n.int_or("max_skip_count", 0)?;
    let x = n.input(0)?;
    let shape = n.fixed_shape(x, "how many runs there are")?;
    let (&tokens, batched) = match shape.as_slice() {
        [tokens] => (tokens, false),
        [_, tokens] => (tokens, true),
        _ => return Err(LowerError::form(format!("runs in {}", n.ty(x)?))),
    };
    let pools = pools(&pool, &starts).ok_or_else(|| LowerError::form("a pool that its counts do not fit"))?;
    let runs = columns.len();
    if pools.last().is_none_or(|p| p.first + p.tokens.len() / p.length as usize != runs) {
        return n.bad_attr("ngram_indexes", "one place for each run in the pool");
    }
    if weights.as_ref().is_some_and(|w| w.len() != runs) {
        return n.bad_attr("weights", "one weight for each run in the pool");
    }
    let width = columns.iter().max().map_or(0, |c| c.saturating_add(1));
    if columns.iter().any(|c| *c < 0) || width > 1 << 24 || !(0..=64).contains(&skips) {
        return n.bad_attr("ngram_indexes", "places in a result of reasonable size");
    }
    let x = if batched { x } else { n.expand_dims(x, &[0])? };
    let mut counts: Vec<Value> = vec![];
    let mut counted = vec![];
    for pool in pools.iter().filter(|p| (least..=most).contains(&p.length) && !p.tokens.is_empty()) {
        if let Some(count) = occurrences(n, x, tokens, pool, skips)? {
            counts.push(count);
            let size = pool.tokens.len() / pool.length as usize;
            counted.extend(pool.first..pool.first + size);
        }
    }
    let batch = if batched { shape[0] } else { 1 };
    let y = if counts.is_empty() {
        let (shape, zero) = (n.const_ints(&[batch, width])?, n.const_scalar(DType::F32, 0.0)?);
        n.op(ops::Fill { shape, value: Some(zero) })?
    } else {
        let mut found = n.concat(counts, 1)?;
        if mode == Mode::Weight {
            let one = n.const_scalar(DType::F32, 1.0)?;
            found = n.minimum(found, one)?;
        }
        // Puts each run in its place, with its weight.
        let width = width as usize;
        let size = counted.len().checked_mul(width).filter(|s| *s < 1 << 28);
        let size = size.ok_or_else(|| LowerError::form(format!("{runs} runs in {width} places")))?;
        n.affords(size)?;
        let mut matrix = vec![0f64; size];
        for (row, run) in counted.iter().enumerate() {
            let weight = weights.as_ref().filter(|_| mode != Mode::Count).map_or(1.0, |w| f64::from(w[*run]));
            matrix[row * width + columns[*run] as usize] = weight;
        }
        let matrix = n.add_const(Tensor::from_f64(DType::F32, &[counted.len(), width], &matrix))?;
        n.matmul(found, matrix, false, false)?
    };
    let y = if batched { y } else { n.squeeze(y, &[0])? };
    n.done(y)
}

/// The runs by their lengths, from 1 on; `starts` says where those of each length begin.
fn pools(pool: &[i64], starts: &[i64]) -> Option<Vec<Pool>> {
    let mut out = vec![];
    let mut first = 0;
    for (i, start) in starts.iter().enumerate() {
        let start = usize::try_from(*start).ok()?;
        let end = match starts.get(i + 1) {
            Some(end) => usize::try_from(*end).ok()?,
            None => pool.len(),
        };
        let tokens = pool.get(start..end)?.to_vec();
        let length = i + 1;
        if tokens.len() % length != 0 {
            return None;
        }
        let count = tokens.len() / length;
        out.push(Pool { length: length as i64, tokens, first });
        first += count;
    }
    Some(out)
}

/// How often each run of a pool comes in each row of `x`, with up to `skips` tokens between its own, `[rows, runs]`;
/// `None` where the rows are too short.
fn occurrences(n: &mut Lower<'_>, x: Value, tokens: i64, pool: &Pool, skips: i64) -> Result<Option<Value>, LowerError> {
    let (length, runs) = (pool.length, pool.tokens.len() / pool.length as usize);
    let mut sum: Option<Value> = None;
    // Between the tokens of a run of one there is nothing to skip.
    for skip in 0..=if length == 1 { 0 } else { skips } {
        let windows = tokens - (length - 1) * (skip + 1);
        if windows < 1 {
            break;
        }
        let mut all: Option<Value> = None;
        for i in 0..length {
            let from = i * (skip + 1);
            let part = n.slice(x, 1, from, Some(from + windows))?;
            let part = n.expand_dims(part, &[2])?;
            let wanted: Vec<i64> = (0..runs).map(|r| pool.tokens[r * length as usize + i as usize]).collect();
            let wanted = n.const_ints(&wanted)?;
            let hit = n.equal(part, wanted)?;
            all = Some(match all {
                None => hit,
                Some(all) => n.and(all, hit)?,
            });
        }
        let hits = n.cast(all.ok_or(LowerError::Poisoned)?, DType::F32)?;
        let count = n.op(ops::ReduceSum { x: hits, axes: Some(vec![1]), keep_dims: false })?;
        sum = Some(match sum {
            None => count,
            Some(sum) => n.add(sum, count)?,
        });
    }
    Ok(sum)
}
