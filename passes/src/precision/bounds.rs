//! Bounds of values, from constants, from ops that hold their results between two numbers, and from declared inputs.

use super::moves::MOVES;
use mlconv_mil::{
    ir::{Function, OpId, Value},
    ops::{Cast, Clip, LayerNorm, Pow},
};
use mlconv_tensor::{DType, Tensor};
use std::collections::HashMap;

/// Between which numbers a value lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bound {
    low: f64,
    high: f64,
    /// Whether it comes that far: what a declared input holds does, and what is computed of one such value and of
    /// constants.
    reached: bool,
}

/// Nothing is known.
const ANY: Bound = Bound { low: f64::NEG_INFINITY, high: f64::INFINITY, reached: false };

/// Elements up to which a constant is looked at.
const FEW: usize = 1 << 12;

impl Bound {
    fn new(low: f64, high: f64) -> Self {
        Self { low, high, reached: false }
    }

    /// The greatest magnitude.
    pub(super) fn greatest(&self) -> f64 {
        self.low.abs().max(self.high.abs())
    }

    /// Its greatest magnitude, where it is known to come that far.
    pub(super) fn reached(&self) -> Option<f64> {
        Some(self.greatest()).filter(|_| self.reached)
    }

    /// Of a function that only grows.
    fn growing(self, f: impl Fn(f64) -> f64) -> Self {
        Self { low: f(self.low), high: f(self.high), ..self }.or_any()
    }

    /// Of a function that is at an end wherever both operands are.
    fn corners(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let all = [(self.low, other.low), (self.low, other.high), (self.high, other.low), (self.high, other.high)];
        let all = all.map(|(a, b)| f(a, b));
        let (low, high) =
            (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        let bound = Self { low, high, reached: self.reached && other.reached };
        if all.iter().any(|x| x.is_nan()) { ANY } else { bound }
    }

    fn hull(self, other: Self) -> Self {
        let reached = if self.greatest() >= other.greatest() { self.reached } else { other.reached };
        Self { low: self.low.min(other.low), high: self.high.max(other.high), reached }
    }

    fn magnitude(self) -> Self {
        let low = if self.low <= 0.0 && self.high >= 0.0 { 0.0 } else { self.low.abs().min(self.high.abs()) };
        Self { low, high: self.greatest(), ..self }
    }

    fn times(self, count: Option<usize>) -> Self {
        // What is summed need not be at its bounds throughout.
        let bound = count.map_or(ANY, |n| self.growing(|x| x * n as f64));
        Self { reached: false, ..bound }
    }

    fn or_any(self) -> Self {
        if self.low.is_nan() || self.high.is_nan() { ANY } else { self }
    }
}

/// The bounds of the 32-bit floats of a function; values without any are left out.
#[derive(Debug, Default)]
pub(super) struct Bounds(HashMap<Value, Bound>);

impl Bounds {
    pub(super) fn new(f: &Function) -> Self {
        let mut bounds = Self::default();
        for (v, port) in f.inputs().iter().zip(&f.sig.inputs) {
            let bound = port.holds().map(|r| (*v, Bound { low: r.low, high: r.high, reached: true }));
            bounds.0.extend(bound);
        }
        for id in f.all_ops() {
            if let Some(bound) = bounds.of_results(f, id).filter(|b| b.low.is_finite() || b.high.is_finite()) {
                bounds.0.extend(f.op_data(id).results.iter().map(|v| (*v, bound)));
            }
        }
        bounds
    }

    pub(super) fn of(&self, v: Value) -> Bound {
        self.0.get(&v).copied().unwrap_or(ANY)
    }

    fn of_results(&self, f: &Function, id: OpId) -> Option<Bound> {
        let op = &*f.op_data(id).op;
        let result = *f.op_data(id).results.first()?;
        if let Some(t) = f.constant(result) {
            return constant(t);
        }
        // Integers wrap, and are known of inputs only.
        let to = f.ty(result).tensor()?.dtype;
        if let Some(cast) = f.op::<Cast>(id) {
            let from = f.ty(cast.x).tensor()?.dtype;
            return match self.0.get(&cast.x) {
                _ if from == DType::Bool => Some(Bound::new(0.0, 1.0)),
                bound => bound.copied().filter(|_| to == DType::F32),
            };
        }
        if !to.is_float() {
            return None;
        }
        let (mut operands, mut values) = (vec![], vec![]);
        op.visit_operands(&mut |v| {
            if f.ty(v).tensor().is_some_and(|t| t.dtype.is_float()) {
                operands.push(self.of(v));
                values.push(v);
            }
        });
        let x = operands.first().copied().unwrap_or(ANY);
        // What two values are computed of that vary together may not come as far as both do.
        let varying = values.iter().filter(|v| f.constant(**v).is_none()).count();
        let two = |f: &dyn Fn(f64, f64) -> f64| {
            let y = operands.get(1).copied().unwrap_or(ANY);
            let bound = x.corners(y, f);
            Bound { reached: bound.reached && varying < 2, ..bound }
        };
        let summed = || {
            let [v, y] = [*values.first()?, result].map(|v| count(&f.ty(v).tensor()?.shape.known()?));
            v?.checked_div(y?)
        };
        let bound = match op.name() {
            "abs" => x.magnitude(),
            "add" => two(&|a, b| a + b),
            "sub" => two(&|a, b| a - b),
            "mul" if values.len() == 2 && values[0] == values[1] => x.magnitude().growing(|x| x * x),
            "mul" => two(&|a, b| if a == 0.0 || b == 0.0 { 0.0 } else { a * b }),
            "real_div" if operands.get(1).is_some_and(|y| y.low > 0.0 || y.high < 0.0) => two(&|a, b| a / b),
            "maximum" => two(&f64::max),
            "minimum" => two(&f64::min),
            "square" => x.magnitude().growing(|x| x * x),
            "sqrt" if x.low >= 0.0 => x.growing(f64::sqrt),
            "exp" => x.growing(f64::exp),
            "pow" => self.power(f, id, x)?,
            "clip" => {
                let clip: &Clip = f.op(id)?;
                let (low, high) = (clip.alpha.into(), clip.beta.into());
                x.growing(|x: f64| if low <= high { x.clamp(low, high) } else { f64::NAN })
            }
            "relu" => x.growing(|x| x.max(0.0)),
            "relu6" => x.growing(|x| x.clamp(0.0, 6.0)),
            "sigmoid" | "sigmoid_hard" | "softmax" => Bound::new(0.0, 1.0),
            "cos" | "erf" | "sin" | "softsign" | "tanh" => Bound::new(-1.0, 1.0),
            "layer_norm" => Self::normalized(f, id, values.first().copied()?)?,
            "reduce_max" | "reduce_min" | "reduce_mean" => {
                Bound { reached: x.reached && op.name() != "reduce_mean", ..x }
            }
            "reduce_sum" => x.times(summed()),
            "reduce_sum_square" => x.magnitude().growing(|x| x * x).times(summed()),
            name if MOVES.contains(&name) => {
                // The other operand of this one only has a shape.
                let moved = if name == "reshape_like" { 1 } else { operands.len() };
                let all = operands.into_iter().take(moved).reduce(Bound::hull)?;
                // What is not chosen may be what comes that far.
                let takes_all = name != "select" && !name.starts_with("gather") && !name.starts_with("slice");
                Bound { reached: all.reached && takes_all, ..all }
            }
            _ => return None,
        };
        Some(bound.or_any())
    }

    fn power(&self, f: &Function, id: OpId, x: Bound) -> Option<Bound> {
        let op: &Pow = f.op(id)?;
        let exponent = f.constant(op.y).filter(|t| t.count() == 1)?.to_f64()[0];
        let even = exponent > 0.0 && exponent % 2.0 == 0.0;
        if even {
            Some(x.magnitude().growing(|x| x.powf(exponent)))
        } else {
            (exponent > 0.0 && (x.low >= 0.0 || exponent % 2.0 == 1.0)).then(|| x.growing(|x| x.powf(exponent)))
        }
    }

    /// Of `n` numbers of mean zero and variance one none is greater than the root of `n`.
    fn normalized(f: &Function, id: OpId, x: Value) -> Option<Bound> {
        let op: &LayerNorm = f.op(id)?;
        let sizes = f.ty(x).tensor()?.shape.known()?;
        let shape = &f.ty(x).tensor()?.shape;
        let axes: Vec<usize> = shape.axes(&op.axes).ok()?.iter().map(|a| sizes[a.index()]).collect();
        let root = (count(&axes)? as f64).sqrt();
        let of = |v: Option<Value>, or: f64| v.map_or(Some(or), |v| Some(constant(f.constant(v)?)?.greatest()));
        let most = root * of(op.gamma, 1.0)? + of(op.beta, 0.0)?;
        Some(Bound::new(-most, most))
    }
}

fn count(sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(1usize, |n, size| n.checked_mul(*size))
}

/// The bounds of a small constant.
fn constant(t: &Tensor) -> Option<Bound> {
    if t.dtype() != DType::F32 || t.count() == 0 || t.count() > FEW {
        return None;
    }
    let values = t.to_f64();
    if values.iter().any(|x| x.is_nan()) {
        return None;
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(Bound { low, high, reached: true }.or_any())
}
