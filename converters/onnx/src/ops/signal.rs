//! Fourier transforms, as products with matrices of cosines and sines.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered, Transform};
use mlconv_tensor::Dim;

rows! {
    "DFT" 17..=19 => |n| { let axis = n.int_or("axis", 1)?; dft(n, Some(axis)) };
    "DFT" 20..=LATEST => |n| {
        let axis = match n.ints_input(2) {
            Ok(axis) => Some(axis.and_then(|a| a.first().copied()).unwrap_or(-2)),
            Err(LowerError::NotConstant { .. }) => None,
            Err(e) => return Err(e),
        };
        dft(n, axis)
    };
    "STFT" 17..=LATEST => stft;
}

type Result<T> = std::result::Result<T, LowerError>;

/// Samples beyond which a transform is refused.
const MAX_LENGTH: i64 = Transform::MAX_LENGTH;

fn dft(n: &mut Lower<'_>, axis: Option<i64>) -> Lowered {
    let (inverse, onesided) = (n.flag("inverse", false)?, n.flag("onesided", false)?);
    let x = n.input(0)?;
    let (rank, shape) = (n.rank(x)?, n.shape(x)?);
    if rank < 2 {
        return Err(LowerError::form(format!("a transform of {}", n.ty(x)?)));
    }
    let length = match (n.ints_input(1), axis, n.stated_sizes(0)) {
        // All frequencies are as many as there are samples; of half of them, that is left open.
        (Err(LowerError::NotConstant { .. }), Some(axis), Some(stated)) if inverse || !onesided => {
            let axis = n.axis(x, axis)?;
            stated.get(axis).copied()
        }
        (length, ..) => length?.and_then(|l| l.first().copied()),
    };
    let transform = |axis: usize| -> Result<Transform> {
        let own = shape[axis].as_known().ok_or_else(|| LowerError::NotFixed { what: "the transform".to_owned() })?;
        let natural = if inverse && onesided { 2 * (own - 1) } else { own };
        let length = length.unwrap_or(natural);
        if !(1..=MAX_LENGTH).contains(&length) {
            return Err(LowerError::form(format!("a transform of {length} samples")));
        }
        Ok(Transform { inverse, onesided, length })
    };
    if let Some(axis) = axis {
        let axis = n.axis(x, axis)?;
        if axis == rank - 1 {
            return Err(LowerError::form("a transform along the parts of complex numbers"));
        }
        let y = transformed(n, x, axis, transform(axis)?)?;
        return n.done(y);
    }
    // The axis is known when the program runs: among those that give the stated shape, the right one is selected.
    let (given, stated) = (n.input(2)?, n.stated_sizes(0));
    let given = n.as_scalar(given)?;
    let mut y: Option<Value> = None;
    for axis in 0..rank - 1 {
        let Ok(of_axis) = transform(axis) else { continue };
        let other = transformed(n, x, axis, of_axis)?;
        let own: Option<Vec<i64>> = n.shape(other)?.iter().map(Dim::as_known).collect();
        if stated.is_some() && own != stated {
            continue;
        }
        y = Some(match y {
            None => other,
            Some(y) => {
                let (front, back) = (n.const_int(axis as i64)?, n.const_int(axis as i64 - rank as i64)?);
                let (front, back) = (n.equal(given, front)?, n.equal(given, back)?);
                let meant = n.op(ops::LogicalOr { x: front, y: back })?;
                n.select(meant, other, y)?
            }
        });
    }
    let y = y.ok_or(LowerError::NotConstant { index: 2 })?;
    n.done(y)
}

/// Transforms `x`, of parts along its last axis, along another one.
fn transformed(n: &mut Lower<'_>, x: Value, axis: usize, t: Transform) -> Result<Value> {
    let (rank, shape) = (n.rank(x)?, n.shape(x)?);
    let complex = match shape[rank - 1].as_known() {
        Some(1) => false,
        Some(2) => true,
        _ => return Err(LowerError::form(format!("complex numbers in {}", n.ty(x)?))),
    };
    let part = |n: &mut Lower<'_>, i: i64| -> Result<Value> {
        let part = n.slice(x, rank - 1, i, Some(i + 1))?;
        n.squeeze(part, &[rank as i64 - 1])
    };
    let real = part(n, 0)?;
    let imaginary = if complex { Some(part(n, 1)?) } else { None };
    let (re, im) = n.transformed(real, imaginary, axis, t)?;
    let mut parts = vec![];
    for part in [Some(re), im].into_iter().flatten() {
        parts.push(n.expand_dims(part, &[-1])?);
    }
    n.concat(parts, -1)
}

fn stft(n: &mut Lower<'_>) -> Lowered {
    let onesided = n.flag("onesided", true)?;
    let step = n.input(1)?;
    let step = n.as_scalar(step)?;
    let window = n.optional(2)?;
    let x = n.input(0)?;
    let shape = n.fixed_shape(x, "the number of frames")?;
    let (samples, complex) = match shape.as_slice() {
        [_, samples] => (*samples, false),
        [_, samples, parts @ (1 | 2)] => (*samples, *parts == 2),
        _ => return Err(LowerError::form(format!("a transform of {}", n.ty(x)?))),
    };
    let onesided = onesided && !complex;
    let of_window = match window {
        Some(w) => n.shape(w)?.first().and_then(Dim::as_known),
        None => None,
    };
    let x = if shape.len() == 2 { n.expand_dims(x, &[2])? } else { x };
    let frames = Frames { samples, step, window, onesided };
    let length = match n.ints_input(3) {
        Err(LowerError::NotConstant { .. }) if of_window.is_none() => {
            let y = stft_of_stated(n, x, &frames)?;
            return n.done(y);
        }
        // A frame is as long as its window.
        Err(LowerError::NotConstant { .. }) => {
            n.ignore_input(3);
            None
        }
        length => length?.and_then(|l| l.first().copied()),
    };
    let y = frames.transformed(n, x, length.or(of_window).unwrap_or(samples), None)?;
    n.done(y)
}

/// Transforms frames of a length that is only known when the program runs: there are at most two that come to as many
/// frequencies as the source states, of which the right one is selected.
fn stft_of_stated(n: &mut Lower<'_>, x: Value, frames: &Frames) -> Result<Value> {
    let unknown = LowerError::NotConstant { index: 3 };
    let Some([_, count, bins, 2]) = n.stated_sizes(0).as_deref().and_then(|s| <[i64; 4]>::try_from(s).ok()) else {
        return Err(unknown);
    };
    if !(1..=MAX_LENGTH).contains(&bins) {
        return Err(unknown);
    }
    let lengths = if frames.onesided { vec![2 * (bins - 1), 2 * (bins - 1) + 1] } else { vec![bins] };
    let given = n.input(3)?;
    let given = n.as_scalar(given)?;
    let mut y: Option<Value> = None;
    for length in lengths.into_iter().filter(|l| (1..=frames.samples).contains(l)) {
        let of_length = frames.transformed(n, x, length, Some(count))?;
        y = Some(match y {
            None => of_length,
            Some(y) => {
                let length = n.const_int(length)?;
                let meant = n.equal(given, length)?;
                n.select(meant, of_length, y)?
            }
        });
    }
    y.ok_or(unknown)
}

/// Where the frames of a signal lie.
struct Frames {
    samples: i64,
    step: Value,
    window: Option<Value>,
    onesided: bool,
}

impl Frames {
    /// The transforms of frames of `length` samples of `x`, as many as there are, or `count`.
    fn transformed(&self, n: &mut Lower<'_>, x: Value, length: i64, count: Option<i64>) -> Result<Value> {
        let samples = self.samples;
        if !(1..=MAX_LENGTH).contains(&length) || length > samples {
            return Err(LowerError::form(format!("frames of {length} of {samples} samples")));
        }
        let starts = match count {
            Some(count) if (1..=samples).contains(&count) => {
                n.affords(usize::try_from(count).unwrap_or(usize::MAX))?;
                let numbers = n.const_ints(&(0..count).collect::<Vec<_>>())?;
                n.mul(numbers, self.step)?
            }
            Some(count) => return Err(LowerError::form(format!("{count} frames of {samples} samples"))),
            None => {
                let (start, end) = (n.const_int(0)?, n.const_int(samples - length + 1)?);
                n.op(ops::Range1d { end, start, step: self.step })?
            }
        };
        let starts = n.expand_dims(starts, &[1])?;
        let within = n.const_ints(&(0..length).collect::<Vec<_>>())?;
        let mut places = n.add(starts, within)?;
        if count.is_some() {
            // Of another length, frames may end beyond the signal; these are not selected.
            let last = n.const_int(samples - 1)?;
            places = n.minimum(places, last)?;
        }
        let mut framed = n.gather(x, places, 1)?;
        if let Some(window) = self.window {
            let dtype = n.dtype(framed)?;
            let window = n.cast(window, dtype)?;
            let window = n.expand_dims(window, &[1])?;
            framed = n.mul(framed, window)?;
        }
        transformed(n, framed, 2, Transform { inverse: false, onesided: self.onesided, length })
    }
}
