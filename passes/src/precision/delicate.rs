//! Ops whose operands and results fit half precision, while what lies between them, or how exact it must be, does not.

use super::{bounds::Bounds, moves::MOVES};
use crate::engine::uniform;
use mlconv_mil::{
    ir::{Function, Module, OpId, Use, Value},
    ops::{Cast, Cumsum, Matmul, Mul, Pow, RealDiv, ReduceL2Norm, ReduceMean, ReduceSum, ReduceSumSquare, Sub},
};
use std::collections::{HashMap, HashSet};

/// The ops, and why each computes in 32 bits.
pub(super) type Delicate = HashMap<OpId, &'static str>;

const SQUARES: &str = "squares of more than 255 are beyond 65504, and those of less than 0.0002 vanish";
const ANGLES: &str = "it computes angles of places, which need more digits than half precision has";
const ROUNDED: &str = "it rounds what inputs hold, of which half precision makes other numbers";
const LONG_SUM: &str = "it sums more numbers than half precision can count";
const COORDINATES: &str = "it computes places in a picture, which need more digits than half precision has";

/// Numbers in a sum from which on it may be too great, or too coarse: half precision counts to 2048.
const MANY: i64 = 2048;
/// The size of a picture up to which half precision tells places apart by a hundredth of a pixel.
const SMALL_PICTURE: i64 = 128;
/// The greatest square root of 65504.
const MAX_SQUARED: f64 = 255.0;
/// Ops between a square and its root.
const MAX_STEPS: usize = 8;
/// Angles up to which half precision is as exact as it is of anything else.
const SMALL_ANGLE: f64 = 8.0;
/// Ops that compute angles or places.
const MAX_ARITHMETIC: usize = 256;

/// Ops that compute places from places.
const ARITHMETIC: &[&str] =
    &["add", "clip", "cumsum", "einsum", "floor", "floor_div", "matmul", "mod", "mul", "range_1d", "real_div", "sub"];

pub(super) fn delicate(module: &Module, f: &Function, bounds: &Bounds) -> Delicate {
    let mut found = Found { module, f, bounds, ops: Delicate::new() };
    for id in f.all_ops() {
        let name = f.op_data(id).op.name();
        match name {
            "sqrt" | "rsqrt" | "log" | "pow" | "reduce_l2_norm" => found.root(id),
            "cos" | "sin" => found.angle(id),
            "ceil" | "floor" | "floor_div" | "mod" | "round" => found.rounding(id),
            "cumsum" | "reduce_sum" => found.long_sum(id),
            "crop_resize" | "resample" => found.coordinates(id),
            _ => {}
        }
    }
    found.ops
}

/// Whether an operand of an op is a place in a picture that half precision does not tell from others.
pub(super) fn is_place(f: &Function, id: OpId, arg: &str) -> bool {
    let places = match f.op_data(id).op.name() {
        "resample" => "coordinates",
        "crop_resize" => "boxes",
        _ => return false,
    };
    let mut first = None;
    f.op_data(id).op.visit_operands(&mut |v| first = first.or(Some(v)));
    let Some(t) = first.and_then(|x| f.ty(x).tensor()) else { return false };
    let rank = t.shape.rank();
    arg == places && t.shape.iter().skip(rank.saturating_sub(2)).any(|d| d.as_known().is_none_or(|n| n > SMALL_PICTURE))
}

struct Found<'f> {
    module: &'f Module,
    f: &'f Function,
    bounds: &'f Bounds,
    ops: Delicate,
}

impl Found<'_> {
    fn add(&mut self, ops: impl IntoIterator<Item = OpId>, why: &'static str) {
        for id in ops {
            self.ops.entry(id).or_insert(why);
        }
    }

    /// A root or a logarithm of squares: what lies between stays, and what is divided by the root.
    fn root(&mut self, id: OpId) {
        let f = self.f;
        let data = f.op_data(id);
        let Some(result) = data.results.first() else { return };
        let mut path = vec![id];
        let squares = if let Some(norm) = f.op::<ReduceL2Norm>(id) {
            self.squared(norm.x, &mut path)
        } else {
            let of = match f.op::<Pow>(id) {
                Some(op) if !uniform(f, op.y).is_some_and(|e| e.abs() == 0.5) => return,
                Some(op) => Some(op.x),
                None => first_operand(f, id),
            };
            of.is_some_and(|v| self.squares(v, MAX_STEPS, &mut path))
        };
        if squares {
            match data.op.name() {
                "log" => {}
                "rsqrt" => _ = self.quotients(*result, true, MAX_STEPS / 2, &mut path),
                "pow" => {
                    let divides = f.op::<Pow>(id).and_then(|op| uniform(f, op.y)).is_some_and(|e| e < 0.0);
                    self.quotients(*result, divides, MAX_STEPS / 2, &mut path);
                }
                _ => _ = self.quotients(*result, false, MAX_STEPS / 2, &mut path),
            }
            self.add(path, SQUARES);
        }
    }

    /// Whether squares are summed to `v`; `path` is what does so.
    fn squares(&self, v: Value, steps: usize, path: &mut Vec<OpId>) -> bool {
        let f = self.f;
        let Some(id) = f.def_op(v).filter(|_| steps > 0) else { return false };
        let before = path.len();
        path.push(id);
        let op = &*f.op_data(id).op;
        let is_constant = |v: Value| f.constant(v).is_some();
        let found = if let Some(square) = squared(f, id) {
            self.squared(square, path)
        } else if let Some(op) = f.op::<Mul>(id) {
            let by = if is_constant(op.y) { op.x } else { op.y };
            (is_constant(op.x) || is_constant(op.y)) && self.squares(by, steps - 1, path)
        } else if let Some(op) = f.op::<RealDiv>(id) {
            is_constant(op.y) && self.squares(op.x, steps - 1, path)
        } else if ["add", "sub", "maximum", "minimum", "clip", "reduce_mean", "reduce_sum", "relu"].contains(&op.name())
            || MOVES.contains(&op.name())
        {
            let mut operands = vec![];
            op.visit_operands(&mut |v| operands.push(v));
            // Of all operands: what is taken beside squares is of their size.
            operands.iter().fold(false, |found, v| self.squares(*v, steps - 1, path) || found)
        } else {
            false
        };
        if !found {
            path.truncate(before);
        }
        found
    }

    /// Whether squares of `x` may not fit; what takes its mean from it belongs to `path` then.
    fn squared(&self, x: Value, path: &mut Vec<OpId>) -> bool {
        let f = self.f;
        if self.bounds.of(x).greatest() <= MAX_SQUARED {
            return false;
        }
        if let (Some(id), Some(sub)) = (f.def_op(x), f.def::<Sub>(x))
            && let Some(mean) = f.def_op(sub.y).filter(|id| f.op::<ReduceMean>(*id).is_some())
        {
            path.extend([id, mean]);
        }
        true
    }

    /// What is divided by `v`, or multiplied by it where it is a reciprocal.
    fn quotients(&self, v: Value, reciprocal: bool, steps: usize, path: &mut Vec<OpId>) -> bool {
        let f = self.f;
        let mut found = false;
        for used in f.uses(v) {
            let Use::Op(id) = *used else { continue };
            let data = f.op_data(id);
            let quotient = f.op::<RealDiv>(id).filter(|op| op.y == v);
            let inverts = data.op.name() == "inverse" || quotient.is_some_and(|op| f.constant(op.x).is_some());
            let ends = quotient.is_some() || (reciprocal && f.op::<Mul>(id).is_some());
            let goes_on =
                inverts || ["add", "clip", "maximum"].contains(&data.op.name()) || MOVES.contains(&data.op.name());
            if !(ends || goes_on) || steps == 0 {
                continue;
            }
            let before = path.len();
            path.push(id);
            let next = |found, v: &Value| self.quotients(*v, reciprocal != inverts, steps - 1, path) || found;
            if (goes_on && data.results.iter().fold(false, next)) || ends {
                found = true;
            } else {
                path.truncate(before);
            }
        }
        found
    }

    /// A sine or cosine of what is computed of inputs and numbers alone.
    fn angle(&mut self, id: OpId) {
        let Some(x) = first_operand(self.f, id) else { return };
        if self.bounds.of(x).greatest() <= SMALL_ANGLE {
            return;
        }
        let Some(arithmetic) = self.arithmetic(x) else { return };
        if arithmetic.from_places && !arithmetic.from_others {
            self.add(arithmetic.ops.into_iter().chain([id]), ANGLES);
        }
    }

    /// What is rounded to whole numbers, of inputs and numbers alone: half precision would step over some before.
    fn rounding(&mut self, id: OpId) {
        let Some(x) = first_operand(self.f, id) else { return };
        if let Some(arithmetic) = self.arithmetic(x).filter(|a| a.from_places && !a.from_others) {
            self.add(arithmetic.ops.into_iter().chain([id]), ROUNDED);
        }
    }

    fn coordinates(&mut self, id: OpId) {
        let op = &*self.f.op_data(id).op;
        let found = op
            .args()
            .into_iter()
            .find(|arg| is_place(self.f, id, arg.name))
            .and_then(|a| a.operands().first().copied());
        if let Some(arithmetic) = found.and_then(|places| self.arithmetic(places)) {
            self.add(arithmetic.ops, COORDINATES);
        }
    }

    /// The arithmetic that leads to `v`; `None` where there is too much of it.
    fn arithmetic(&self, v: Value) -> Option<Arithmetic> {
        let f = self.f;
        let (mut todo, mut seen) = (vec![v], HashSet::from([v]));
        let mut out = Arithmetic::default();
        while let Some(v) = todo.pop() {
            if f.constant(v).is_some() {
                continue;
            }
            let Some(id) = f.def_op(v) else {
                out.from_places = true;
                continue;
            };
            let op = &*f.op_data(id).op;
            if let Some(cast) = f.op::<Cast>(id) {
                let is_float = f.ty(cast.x).tensor().is_some_and(|t| t.dtype.is_float());
                if is_float && seen.insert(cast.x) {
                    todo.push(cast.x);
                }
                out.from_places |= !is_float;
            } else if f.op::<Matmul>(id).is_some_and(|op| !self.is_outer(op)) && op.name() == "matmul" {
                out.from_others = true;
                out.ops.push(id);
                op.visit_operands(&mut |v| {
                    if seen.insert(v) {
                        todo.push(v)
                    }
                });
            } else if ARITHMETIC.contains(&op.name()) || MOVES.contains(&op.name()) {
                out.ops.push(id);
                op.visit_operands(&mut |v| {
                    if f.ty(v).tensor().is_some_and(|t| t.dtype.is_float()) && seen.insert(v) {
                        todo.push(v);
                    }
                });
            } else {
                out.from_others = true;
            }
            if out.ops.len() > MAX_ARITHMETIC {
                return None;
            }
        }
        Some(out)
    }

    /// Whether each element of a product is a product of two numbers.
    fn is_outer(&self, op: &Matmul) -> bool {
        let Some(shape) = self.f.ty(op.x).tensor().map(|t| &t.shape) else { return false };
        let axis = shape.rank().checked_sub(if op.transpose_x { 2 } else { 1 });
        axis.is_some_and(|a| shape[a].is(1))
    }

    /// A sum of many numbers that are not known to be small, and what makes a mean of it.
    fn long_sum(&mut self, id: OpId) {
        let f = self.f;
        let (x, many) = if let Some(op) = f.op::<ReduceSum>(id) {
            (op.x, self.count(op.x, op.axes.as_deref()))
        } else if let Some(op) = f.op::<Cumsum>(id) {
            (op.x, self.count(op.x, Some(&[op.axis])))
        } else {
            return;
        };
        let most = self.bounds.of(x).greatest();
        let fits = many.is_some_and(|n| n < MANY || (n as f64) * most <= 65504.0);
        let Some(result) = f.op_data(id).results.first().filter(|_| !fits) else { return };
        let mut path = vec![id];
        let mut todo = vec![*result];
        while let Some(v) = todo.pop() {
            for used in f.uses(v) {
                let Use::Op(id) = *used else { continue };
                let op = &*f.op_data(id).op;
                let is_constant = |v: Value| f.constant(v).is_some();
                let ends = f.op::<RealDiv>(id).is_some()
                    || f.op::<Mul>(id).is_some_and(|op| is_constant(op.x) || is_constant(op.y));
                if ends || MOVES.contains(&op.name()) {
                    path.push(id);
                }
                if !ends && MOVES.contains(&op.name()) && path.len() < MAX_ARITHMETIC {
                    todo.extend(&f.op_data(id).results);
                }
            }
        }
        self.add(path, LONG_SUM);
    }

    /// How many numbers are summed at most; `None` where any number may be.
    fn count(&self, x: Value, axes: Option<&[i64]>) -> Option<i64> {
        let shape = &self.f.ty(x).tensor()?.shape;
        let all: Vec<i64> = (0..shape.rank() as i64).collect();
        let axes = shape.axes(axes.unwrap_or(&all)).ok()?;
        axes.iter().try_fold(1i64, |n, a| n.checked_mul(shape[a.index()].bounds(&self.module.symbols).1?))
    }
}

/// What leads to a value by arithmetic alone.
#[derive(Default)]
struct Arithmetic {
    ops: Vec<OpId>,
    /// Whether it begins at inputs or integers.
    from_places: bool,
    /// Whether it begins at what a layer computes.
    from_others: bool,
}

/// What the op squares.
fn squared(f: &Function, id: OpId) -> Option<Value> {
    let op = &f.op_data(id).op;
    if let Some(op) = f.op::<Mul>(id) {
        return (op.x == op.y).then_some(op.x);
    }
    if let Some(op) = f.op::<Pow>(id) {
        return uniform(f, op.y).filter(|e| *e == 2.0).map(|_| op.x);
    }
    (op.name() == "square" || f.op::<ReduceSumSquare>(id).is_some()).then(|| first_operand(f, id)).flatten()
}

fn first_operand(f: &Function, id: OpId) -> Option<Value> {
    let mut first = None;
    f.op_data(id).op.visit_operands(&mut |v| first = first.or(Some(v)));
    first
}
