//! Ops that hold a value between two bounds.

use crate::{Matcher, Miss};
use mlconv_mil::{
    ir::Value,
    ops::{Clip, Maximum, Minimum, Relu, Relu6, Threshold},
};

/// A value held between bounds, of which one may be infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    /// The value.
    pub x: Value,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// The interval that `v` is held in by the op that computes it.
pub(super) fn interval(m: &Matcher<'_>, v: Value) -> Result<Interval, Miss> {
    if let Ok(op) = m.def::<Relu>(v) {
        Interval::new(op.x, 0.0, f64::INFINITY)
    } else if let Ok(op) = m.def::<Relu6>(v) {
        Interval::new(op.x, 0.0, 6.0)
    } else if let Ok(op) = m.def::<Clip>(v) {
        Interval::new(op.x, op.alpha.into(), op.beta.into())
    } else if let Ok(op) = m.def::<Threshold>(v) {
        Interval::new(op.x, op.alpha.into(), f64::INFINITY)
    } else if let Ok(op) = m.def::<Maximum>(v) {
        m.either(op.x, op.y, |x, bound| Interval::new(x, m.uniform(bound)?, f64::INFINITY))
    } else if let Ok(op) = m.def::<Minimum>(v) {
        m.either(op.x, op.y, |x, bound| Interval::new(x, f64::NEG_INFINITY, m.uniform(bound)?))
    } else {
        Err(Miss::No)
    }
}

impl Interval {
    /// What is greater than every float of single precision is infinite.
    fn new(x: Value, low: f64, high: f64) -> Result<Self, Miss> {
        if low.is_nan() || high.is_nan() {
            return Err(Miss::No);
        }
        let (least, greatest) = (f64::from(f32::MIN), f64::from(f32::MAX));
        let low = if low <= least { f64::NEG_INFINITY } else { low };
        Ok(Self { x, low, high: if high >= greatest { f64::INFINITY } else { high } })
    }

    /// Whether this is `max(x, 0)`.
    pub(super) fn is_above_zero(&self) -> bool {
        self.low == 0.0 && self.high == f64::INFINITY
    }

    /// Whether this is `min(x, 0)`.
    pub(super) fn is_below_zero(&self) -> bool {
        self.low == f64::NEG_INFINITY && self.high == 0.0
    }
}
