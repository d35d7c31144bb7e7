//! Fourier transforms, as products with matrices of cosines and sines.

use crate::{Lower, LowerError};
use mlconv_mil::ir::Value;
use std::f64::consts::PI;

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// A transform.
#[derive(Clone, Copy, Debug)]
pub struct Transform {
    /// Whether it leads back from frequencies.
    pub inverse: bool,
    /// Whether half of the frequencies stand for the others too.
    pub onesided: bool,
    /// Samples on the side of time.
    pub length: i64,
}

impl Transform {
    /// Samples beyond which a transform is refused: its matrices have their square.
    pub const MAX_LENGTH: i64 = 1 << 13;
}

impl Lower<'_> {
    /// The transform of complex numbers, given as their parts, along an axis. Of a real result there is one part.
    pub fn transformed(
        &mut self,
        real: Value,
        imaginary: Option<Value>,
        axis: usize,
        t: Transform,
    ) -> Result<(Value, Option<Value>)> {
        let n = self;
        let (rank, shape) = (n.rank(real)?, n.shape(real)?);
        if !(1..=Transform::MAX_LENGTH).contains(&t.length) {
            return Err(LowerError::form(format!("a transform of {} samples", t.length)));
        }
        let own = shape[axis].as_known().ok_or_else(|| LowerError::NotFixed { what: "the transform".to_owned() })?;
        let half = t.length / 2 + 1;
        let wanted = if t.inverse && t.onesided { half } else { t.length };
        // Samples that are missing are zero: the matrices leave them out.
        let taken = own.min(wanted);
        let order = swapped(rank, axis);
        let part = |n: &mut Lower<'_>, x: Value| -> Result<Value> {
            let x = if own > wanted { n.slice(x, axis, 0, Some(wanted))? } else { x };
            // The axis last.
            n.permute(x, &order)
        };
        let real = part(n, real)?;
        let imaginary = imaginary.map(|x| part(n, x)).transpose()?;
        let counts = match (t.inverse, t.onesided) {
            (false, true) => half,
            _ => t.length,
        };
        let (cos, sin) = waves(n, real, t, taken, counts)?;
        // (a + ib)(c + is) = (ac - bs) + i(as + bc).
        let mut re = rows_times(n, real, cos)?;
        if let Some(b) = imaginary {
            let bs = rows_times(n, b, sin)?;
            re = n.sub(re, bs)?;
        }
        let mut im = None;
        if !(t.inverse && t.onesided) {
            let mut all = rows_times(n, real, sin)?;
            if let Some(b) = imaginary {
                let bc = rows_times(n, b, cos)?;
                all = n.add(all, bc)?;
            }
            im = Some(all);
        }
        let back = |n: &mut Lower<'_>, part: Value| -> Result<Value> {
            // Divided last: what cancels out among the waves still does.
            let part = if t.inverse { n.scale(part, 1.0 / t.length as f64)? } else { part };
            n.permute(part, &order)
        };
        Ok((back(n, re)?, im.map(|im| back(n, im)).transpose()?))
    }
}

/// The order of axes in which `axis` and the last one have changed places.
fn swapped(rank: usize, axis: usize) -> Vec<i64> {
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(axis, rank - 1);
    perm
}

/// Multiplies the vectors along the last axis with a matrix.
fn rows_times(n: &mut Lower<'_>, x: Value, matrix: Value) -> Result<Value> {
    if n.rank(x)? > 1 {
        return n.matmul(x, matrix, false, false);
    }
    let row = n.expand_dims(x, &[0])?;
    let y = n.matmul(row, matrix, false, false)?;
    n.squeeze(y, &[0])
}

/// Matrices `[taken, made]` of cosines and sines, of the element type of `like`.
fn waves(n: &mut Lower<'_>, like: Value, t: Transform, taken: i64, made: i64) -> Result<(Value, Value)> {
    let count = usize::try_from(taken.saturating_mul(made)).unwrap_or(0);
    let (mut cos, mut sin) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let sign = if t.inverse { 1.0 } else { -1.0 };
    for i in 0..taken {
        // A half spectrum stands for the other half too, but for what has no mirror image.
        let mirrored = t.inverse && t.onesided && i != 0 && 2 * i != t.length;
        let factor = if mirrored { 2.0 } else { 1.0 };
        for k in 0..made {
            let (s, c) = exact_turn((i * k) % t.length, t.length);
            cos.push(factor * c);
            sin.push(factor * sign * s);
        }
    }
    let shape = [taken as usize, made as usize];
    Ok((n.const_like(like, &shape, &cos)?, n.const_like(like, &shape, &sin)?))
}

/// Sine and cosine of `part / whole` of a turn, exact at its quarters.
fn exact_turn(part: i64, whole: i64) -> (f64, f64) {
    if (4 * part) % whole == 0 {
        return [(0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0)][((4 * part / whole) % 4) as usize];
    }
    (2.0 * PI * part as f64 / whole as f64).sin_cos()
}
