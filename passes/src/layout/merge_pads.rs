//! Makes one op of several that put margins around a tensor.

use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::{
    ir::Value,
    ops::{AvgPool, Conv, MaxPool, Pad, PadMode, PadType},
    schema::Ints,
};
use mlconv_tensor::Tensor;

pub(crate) static PASS: Pass = Pass {
    name: "merge_pads",
    doc: "Makes one op of margins around margins, and lets convolutions and poolings add the margins that they read.",
    changes_precision: false,
    after: &["rank_reduction"],
    run: Run::Rules(rules![pad, conv, avg_pool, max_pool]),
};

/// Elements added before and behind each of `rank` axes.
fn margins(m: &Matcher<'_>, pad: &Pad) -> Result<Vec<[i64; 2]>, Miss> {
    let (given, rank) = (m.constant(pad.pad)?.to_i64(), m.rank(pad.x)?);
    let lead = rank.checked_sub(given.len() / 2).ok_or(Miss::No)?;
    Ok((0..rank).map(|i| i.checked_sub(lead).map_or([0, 0], |k| [given[2 * k], given[2 * k + 1]])).collect())
}

fn pad(outer: &Pad, m: &Matcher<'_>) -> Fit {
    let inner = m.def::<Pad>(outer.x)?;
    let (a, b) = (margins(m, inner)?, margins(m, outer)?);
    let value = |pad: &Pad| if pad.mode == PadMode::Constant { pad.constant_val } else { 0.0 };
    let alike = inner.mode == outer.mode && value(inner).to_bits() == value(outer).to_bits();
    m.require(alike, "the margins are not of one kind")?;
    // A mirror of a mirror is not one mirror; the last element repeated, and repeated again, is.
    m.require(inner.mode != PadMode::Reflect, "margins that mirror are not merged")?;
    m.sole::<Pad>(outer.x)?;
    let sums: Vec<[i64; 2]> = a.iter().zip(&b).map(|(a, b)| [a[0] + b[0], a[1] + b[1]]).collect();
    if inner.mode == PadMode::Replicate {
        // Core ML repeats at most as many elements as there are.
        let sizes = m.sizes(inner.x)?;
        let fits = sums.iter().zip(&sizes).all(|(s, n)| s.iter().all(|s| *s <= *n as i64));
        m.require(fits, "together the margins are larger than the tensor")?;
    }
    let lead = sums.iter().position(|s| *s != [0, 0]).unwrap_or(sums.len().saturating_sub(1));
    let sums: Vec<i64> = sums[lead..].concat();
    let dtype = m.constant(outer.pad)?.dtype();
    let pad = m.make_constant(Tensor::from_i64(dtype, &[sums.len()], &sums));
    Ok(m.replace(Pad { x: inner.x, pad, ..outer.clone() }))
}

/// The tensor before a margin of `value` around the images of `x`, and what is added to each spatial dimension.
fn around_images(m: &Matcher<'_>, x: Value, value: f32) -> Result<(Value, Vec<[i64; 2]>), Miss> {
    let pad = m.def::<Pad>(x)?;
    let margins = margins(m, pad)?;
    m.require(pad.mode == PadMode::Constant && pad.constant_val == value, "the margin is not what the op would add")?;
    let rank = margins.len();
    m.require(rank > 2 && margins[..2] == [[0, 0]; 2], "the margin adds images or channels")?;
    m.sole::<Pad>(x)?;
    Ok((pad.x, margins[2..].to_vec()))
}

/// Both margins; `None` where what the op adds itself depends on the size of what it reads.
fn together(pad_type: PadType, own: &[i64], margins: &[[i64; 2]]) -> Option<Ints> {
    match pad_type {
        PadType::Valid => Some(margins.concat()),
        PadType::Custom if own.len() == 2 * margins.len() => {
            Some(own.iter().zip(margins.as_flattened()).map(|(a, b)| a + b).collect())
        }
        PadType::Custom | PadType::Same | PadType::SameLower => None,
    }
}

const DEPENDS: Miss = Miss::Because("what the op adds itself depends on the size of what it reads");

fn conv(op: &Conv, m: &Matcher<'_>) -> Fit {
    let (x, margins) = around_images(m, op.x, 0.0)?;
    let pad = together(op.pad_type, &op.pad, &margins).ok_or(DEPENDS)?;
    Ok(m.replace(Conv { x, pad_type: PadType::Custom, pad, ..op.clone() }))
}

/// Margins that an average counts, as it counts what the pooling adds.
fn avg_pool(op: &AvgPool, m: &Matcher<'_>) -> Fit {
    let (x, margins) = around_images(m, op.x, 0.0)?;
    m.require(!op.exclude_padding_from_average, "the average does not count what the pooling adds")?;
    let pad = of_pooling(m, (op.pad_type, &op.pad), &margins, &op.kernel_sizes, op.ceil_mode)?;
    Ok(m.replace(AvgPool { x, pad_type: PadType::Custom, pad, ..op.clone() }))
}

/// Margins that are never the greatest element.
fn max_pool(op: &MaxPool, m: &Matcher<'_>) -> Fit {
    let (x, margins) = around_images(m, op.x, f32::NEG_INFINITY)?;
    let pad = of_pooling(m, (op.pad_type, &op.pad), &margins, &op.kernel_sizes, op.ceil_mode)?;
    Ok(m.replace(MaxPool { x, pad_type: PadType::Custom, pad, ..op.clone() }))
}

/// Both margins of a pooling.
fn of_pooling(
    m: &Matcher<'_>,
    (pad_type, own): (PadType, &[i64]),
    margins: &[[i64; 2]],
    kernel: &[i64],
    ceil_mode: bool,
) -> Result<Ints, Miss> {
    m.require(!ceil_mode, "windows may reach over the end")?;
    let pad = together(pad_type, own, margins).ok_or(DEPENDS)?;
    m.require(within_windows(&pad, kernel), "a window would lie outside of the image")?;
    Ok(pad)
}

/// Whether each window meets the image, whatever its size.
fn within_windows(pad: &[i64], kernel: &[i64]) -> bool {
    pad.chunks_exact(2).zip(kernel).all(|(pair, k)| pair.iter().all(|n| n < k))
}
