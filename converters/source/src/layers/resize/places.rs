//! Where new elements lie among old ones, and how much of each they take.

use super::{Line, calc::Calc};
use crate::LowerError;

type Result<T> = std::result::Result<T, LowerError>;

/// Which element is the nearest one.
#[derive(Clone, Copy, PartialEq)]
pub enum Rounding {
    /// The nearest one, of two the one before.
    PreferFloor,
    /// The nearest one, of two the one behind.
    PreferCeil,
    /// The one before.
    Floor,
    /// The one behind.
    Ceil,
    /// Down where an axis grows, up where it shrinks.
    Outward,
}

/// How elements are mixed.
#[derive(Clone, Copy, PartialEq)]
pub enum Kernel {
    /// From one element.
    Nearest(Rounding),
    /// On the line between two.
    Linear {
        /// Whether all elements under a stretched kernel take part.
        antialias: bool,
    },
    /// On a cubic of four.
    Cubic {
        /// The number of the kernel.
        a: f64,
        /// Whether all elements under a stretched kernel take part.
        antialias: bool,
    },
}

/// Where the places of the new axis lie on the old one.
#[derive(Clone, Copy, PartialEq)]
pub enum Coordinates {
    /// Elements are intervals, and both axes begin with one.
    HalfPixel,
    /// The same, of an axis that is not rounded.
    HalfPixelSymmetric,
    /// The same, but a lone element lies at 0.
    PytorchHalfPixel,
    /// The first and last elements meet.
    AlignCorners,
    /// The first elements meet.
    Asymmetric,
    /// On a part of the axis.
    Crop,
    /// Elements are intervals, which places lie in.
    HalfPixelForNearest,
}

/// The places on the old axis of the new elements with numbers `i`.
pub(super) fn places<C: Calc>(c: &mut C, mode: Coordinates, line: &Line<C::V>, i: &C::V) -> Result<C::V> {
    let half = |c: &mut C, line: &Line<C::V>| {
        let middle = c.plus(i, 0.5)?;
        let at = c.div(&middle, &line.scale)?;
        c.plus(&at, -0.5)
    };
    let (last, far) = (c.plus(&line.size, -1.0)?, c.plus(&line.width, -1.0)?);
    let (zero, one) = (c.number(0.0)?, c.number(1.0)?);
    let single = |c: &mut C, yes: &C::V, no: &C::V| {
        // `width == 1`, as `far` is neither below nor above zero.
        let other = c.where_less(&zero, &far, no, yes)?;
        c.where_less(&far, &zero, no, &other)
    };
    let step = |c: &mut C| {
        let far = single(c, &one, &far)?;
        c.div(&last, &far)
    };
    match mode {
        Coordinates::HalfPixel => half(c, line),
        Coordinates::HalfPixelForNearest => {
            let middle = c.plus(i, 0.5)?;
            c.div(&middle, &line.scale)
        }
        Coordinates::HalfPixelSymmetric => {
            let at = half(c, line)?;
            let adjustment = c.div(&line.count, &line.width)?;
            let rest = c.sub(&one, &adjustment)?;
            let center = c.times(&line.size, 0.5)?;
            let offset = c.mul(&center, &rest)?;
            c.add(&offset, &at)
        }
        Coordinates::PytorchHalfPixel => {
            let (at, lone) = (half(c, line)?, c.times(i, 0.0)?);
            single(c, &lone, &at)
        }
        Coordinates::AlignCorners => {
            let (step, lone) = (step(c)?, c.times(i, 0.0)?);
            let at = c.mul(i, &step)?;
            single(c, &lone, &at)
        }
        Coordinates::Asymmetric => c.div(i, &line.scale),
        Coordinates::Crop => {
            let (start, end) = line.crop.as_ref().ok_or(LowerError::MissingInput { index: 1 })?;
            let span = c.sub(end, start)?;
            let lone = c.times(i, 0.0)?;
            let (middle, lone_at) = (c.mul(&span, &last)?, c.times(&last, 0.5)?);
            let (along, lone_at) = (c.mul(i, &middle)?, c.mul(&span, &lone_at)?);
            let lone = c.add(&lone, &lone_at)?;
            let divisor = single(c, &one, &far)?;
            let along = c.div(&along, &divisor)?;
            let at = single(c, &lone, &along)?;
            let first = c.mul(start, &last)?;
            c.add(&at, &first)
        }
    }
}

/// The nearest element to each of the places `at`.
pub(super) fn nearest<C: Calc>(c: &mut C, rounding: Rounding, line: &Line<C::V>, at: &C::V) -> Result<C::V> {
    let found = match rounding {
        Rounding::Floor => c.floor(at)?,
        Rounding::Ceil => c.ceil(at)?,
        Rounding::PreferCeil => {
            let up = c.plus(at, 0.5)?;
            c.floor(&up)?
        }
        Rounding::PreferFloor => {
            let down = c.plus(at, -0.5)?;
            c.ceil(&down)?
        }
        Rounding::Outward => {
            let (one, down, up) = (c.number(1.0)?, c.floor(at)?, c.ceil(at)?);
            c.where_less(&line.scale, &one, &up, &down)?
        }
    };
    let (zero, last) = (c.number(0.0)?, c.plus(&line.size, -1.0)?);
    c.clamp(&found, &zero, &last)
}

/// The elements that each of the places `at` is mixed of, and how much of each.
pub(super) fn taps<C: Calc>(
    c: &mut C,
    a: Option<f64>,
    exclude_outside: bool,
    line: &Line<C::V>,
    at: &C::V,
) -> Result<Vec<(C::V, C::V)>> {
    let low = c.floor(at)?;
    let part = c.sub(at, &low)?;
    let one = c.number(1.0)?;
    let rest = c.sub(&one, &part)?;
    let weights = match a {
        None => vec![(0.0, rest), (1.0, part)],
        Some(a) => {
            let (beyond, after) = (c.plus(&part, 1.0)?, c.plus(&rest, 1.0)?);
            vec![
                (-1.0, cubic_far(c, a, &beyond)?),
                (0.0, cubic_near(c, a, &part)?),
                (1.0, cubic_near(c, a, &rest)?),
                (2.0, cubic_far(c, a, &after)?),
            ]
        }
    };
    let (zero, last) = (c.number(0.0)?, c.plus(&line.size, -1.0)?);
    let mut out = vec![];
    let mut sum: Option<C::V> = None;
    for (step, weight) in weights {
        let place = c.plus(&low, step)?;
        let weight = if exclude_outside {
            let inside = c.where_less(&place, &zero, &zero, &weight)?;
            c.where_less(&last, &place, &zero, &inside)?
        } else {
            weight
        };
        sum = Some(match sum {
            None => weight.clone(),
            Some(sum) => c.add(&sum, &weight)?,
        });
        out.push((c.clamp(&place, &zero, &last)?, weight));
    }
    if let Some(sum) = sum.filter(|_| exclude_outside) {
        for (_, weight) in &mut out {
            *weight = c.div(weight, &sum)?;
        }
    }
    Ok(out)
}

/// The cubic kernel at a distance `x` in `0..=1`.
pub(super) fn cubic_near<C: Calc>(c: &mut C, a: f64, x: &C::V) -> Result<C::V> {
    let y = c.times(x, a + 2.0)?;
    let y = c.plus(&y, -(a + 3.0))?;
    let y = c.mul(&y, x)?;
    let y = c.mul(&y, x)?;
    c.plus(&y, 1.0)
}

/// The cubic kernel at a distance `x` in `1..=2`.
pub(super) fn cubic_far<C: Calc>(c: &mut C, a: f64, x: &C::V) -> Result<C::V> {
    let y = c.times(x, a)?;
    let y = c.plus(&y, -5.0 * a)?;
    let y = c.mul(&y, x)?;
    let y = c.plus(&y, 8.0 * a)?;
    let y = c.mul(&y, x)?;
    c.plus(&y, -4.0 * a)
}

/// How much each place takes of each element, `weights[place * size + element]`, by a kernel that is stretched where
/// the axis shrinks.
pub(super) fn antialiased(
    kernel: impl Fn(f64) -> f64,
    reach: f64,
    line: &Line<f64>,
    exclude: bool,
    at: &[f64],
) -> Vec<f64> {
    let (scale, size) = (line.scale.min(1.0), line.size as usize);
    let mut weights = vec![0.0; at.len() * size];
    // The kernel covers as many elements on either side.
    let start = (-reach / scale).floor() as i64 + 1;
    let count = (2 - 2 * start).max(2);
    for (place, at) in at.iter().enumerate() {
        // A place at an element counts to the interval before it.
        let low = at.ceil() - 1.0;
        let part = at - low;
        let mut taps: Vec<(i64, f64)> =
            (start..start + count).map(|i| (low as i64 + i, kernel((i as f64 - part) * scale))).collect();
        let inside = |i: i64| (0..size as i64).contains(&i);
        let whole: f64 = taps.iter().map(|t| t.1).sum();
        for tap in &mut taps {
            tap.1 /= whole;
        }
        if exclude {
            taps.retain(|t| inside(t.0));
            let sum: f64 = taps.iter().map(|t| t.1).sum();
            for tap in &mut taps {
                tap.1 /= if sum == 0.0 { 1.0 } else { sum };
            }
        }
        for (i, weight) in taps {
            let i = usize::try_from(i).unwrap_or(0).min(size - 1);
            weights[place * size + i] += weight;
        }
    }
    weights
}

/// The cubic kernel at any distance.
pub(super) fn cubic(a: f64, x: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * a * x - 4.0 * a
    } else {
        0.0
    }
}
