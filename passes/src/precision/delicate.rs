//! Ops whose operands and results fit half precision, while what lies between them, or how exact it must be, does not.

use super::{
    bounds::Bounds,
    half::{LEAST, MOST, NORMAL},
    moves::MOVES,
};
use crate::engine::uniform;
use mlconv_mil::{
    ir::{Function, Module, OpId, Use, Value},
    ops::{
        Cast, CropResizeRoi, Cumsum, Linear, Matmul, Mul, Pow, RealDiv, ReduceL2Norm, ReduceMean, ReduceSum,
        ReduceSumSquare, Square, Sub,
    },
};
use std::collections::{HashMap, HashSet};

/// The ops, and why each computes in 32 bits.
pub(super) type Delicate = HashMap<OpId, &'static str>;

/// Ops whose results are of the size of what they sum or choose.
const SUMS: &[&str] = &["add", "clip", "maximum", "minimum", "reduce_mean", "reduce_sum", "relu", "sub"];

const SQUARES: &str = "squares of more than 255 are beyond 65504, and those of less than 0.0002 vanish";
const ANGLES: &str = "it computes angles of places, which need more digits than half precision has";
const ROUNDED: &str = "it rounds what inputs hold, of which half precision makes other numbers";
const COARSE_FACTOR: &str = "it multiplies or divides by a number below 6.1e-5, of which half precision has few digits";
const LONG_SUM: &str = "it sums more numbers than half precision can count";
const COORDINATES: &str = "it computes places in a picture, which need more digits than half precision has";

/// Numbers in a sum from which on it may be too great, or too coarse: half precision counts to 2048.
const MANY: i64 = 2048;
/// The size of a picture up to which half precision tells places apart by a hundredth of a pixel.
const SMALL_PICTURE: i64 = 128;
/// Ops between a square and its root.
const MAX_STEPS: usize = 8;
/// Ops that compute angles or places.
const MAX_ARITHMETIC: usize = 256;

/// Ops that compute places from places, and the frequencies that places are multiplied by.
const ARITHMETIC: &[&str] = &[
    "add",
    "clip",
    "cumsum",
    "einsum",
    "exp",
    "floor",
    "floor_div",
    "inverse",
    "matmul",
    "mod",
    "mul",
    "pow",
    "range_1d",
    "real_div",
    "rsqrt",
    "sqrt",
    "square",
    "sub",
];

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
            "mul" | "real_div" => found.factor(id),
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
    arg == places && first_operand(f, id).is_some_and(|x| is_large(f, x))
}

/// Whether a picture has more places across than half precision tells apart.
fn is_large(f: &Function, x: Value) -> bool {
    f.ty(x).tensor().is_some_and(|t| {
        let across = t.shape.iter().skip(t.shape.rank().saturating_sub(2));
        across.into_iter().any(|d| d.as_known().is_none_or(|n| n > SMALL_PICTURE))
    })
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
        let power = f.op::<Pow>(id).map(|op| uniform(f, op.y));
        let squares = if let Some(norm) = f.op::<ReduceL2Norm>(id) {
            self.centred(norm.x, &mut path);
            true
        } else if power.is_some_and(|e| e.is_none_or(|e| e.abs() != 0.5)) {
            false
        } else {
            first_operand(f, id).is_some_and(|v| self.squares(v, MAX_STEPS, &mut path, &mut HashMap::new()))
        };
        if squares {
            if data.op.name() != "log" {
                let divides = data.op.name() == "rsqrt" || power.flatten().is_some_and(|e| e < 0.0);
                self.quotients((*result, divides), MAX_STEPS / 2, &mut path, &mut HashMap::new());
            }
            self.add(path, SQUARES);
        }
    }

    /// Whether squares are summed to `v`; `path` is what does so, and `known` what was found of values before.
    fn squares(&self, v: Value, steps: usize, path: &mut Vec<OpId>, known: &mut HashMap<Value, bool>) -> bool {
        let f = self.f;
        let Some(id) = f.def_op(v).filter(|_| steps > 0) else { return false };
        if let Some(found) = known.get(&v) {
            return *found;
        }
        let before = path.len();
        path.push(id);
        let data = f.op_data(id);
        let (name, is_constant) = (data.op.name(), |v: Value| f.constant(v).is_some());
        let summed = f.op::<ReduceSumSquare>(id).map(|op| op.x);
        let found = if let Some(x) = square_of(f, id).or(summed) {
            self.centred(x, path);
            true
        } else if let Some(op) = f.op::<Mul>(id) {
            let by = if is_constant(op.y) { op.x } else { op.y };
            (is_constant(op.x) || is_constant(op.y)) && self.squares(by, steps - 1, path, known)
        } else if let Some(op) = f.op::<RealDiv>(id) {
            is_constant(op.y) && self.squares(op.x, steps - 1, path, known)
        } else if SUMS.contains(&name) || MOVES.contains(&name) {
            let mut operands = vec![];
            data.op.visit_operands(&mut |v| operands.push(v));
            // Of all operands: what is taken beside squares is of their size.
            let all: Vec<bool> = operands.iter().map(|v| self.squares(*v, steps - 1, path, known)).collect();
            all.contains(&true)
        } else {
            false
        };
        if !found {
            path.truncate(before);
        }
        known.insert(v, found);
        found
    }

    /// What takes the mean from `x` belongs to `path`.
    fn centred(&self, x: Value, path: &mut Vec<OpId>) {
        let f = self.f;
        if let (Some(id), Some(sub)) = (f.def_op(x), f.def::<Sub>(x))
            && let Some(mean) = f.def_op(sub.y).filter(|id| f.op::<ReduceMean>(*id).is_some())
        {
            path.extend([id, mean]);
        }
    }

    /// What is divided by a value, or multiplied by it where it is a reciprocal.
    fn quotients(
        &self,
        of: (Value, bool),
        steps: usize,
        path: &mut Vec<OpId>,
        known: &mut HashMap<(Value, bool), bool>,
    ) -> bool {
        if let Some(found) = known.get(&of) {
            return *found;
        }
        let (f, (v, reciprocal)) = (self.f, of);
        let (mut found, mut seen) = (false, HashSet::new());
        for used in f.uses(v) {
            let Some(id) = op_of(used).filter(|id| steps > 0 && seen.insert(*id)) else { continue };
            let data = f.op_data(id);
            let name = data.op.name();
            let quotient = f.op::<RealDiv>(id).filter(|op| op.y == v);
            let inverts = name == "inverse" || quotient.is_some_and(|op| f.constant(op.x).is_some());
            let ends = quotient.is_some() || (reciprocal && f.op::<Mul>(id).is_some());
            let goes_on = inverts || ["add", "clip", "maximum"].contains(&name) || MOVES.contains(&name);
            if !(ends || goes_on) {
                continue;
            }
            let before = path.len();
            path.push(id);
            let next = |found, v: &Value| self.quotients((*v, reciprocal != inverts), steps - 1, path, known) || found;
            if (goes_on && data.results.iter().fold(false, next)) || ends {
                found = true;
            } else {
                path.truncate(before);
            }
        }
        known.insert(of, found);
        found
    }

    /// A sine or cosine of what is computed of inputs and numbers alone.
    fn angle(&mut self, id: OpId) {
        let Some(x) = first_operand(self.f, id) else { return };
        let Some(arithmetic) = self.arithmetic(x) else { return };
        if arithmetic.from_places && !arithmetic.from_others {
            self.add(arithmetic.ops.into_iter().chain([id]), ANGLES);
        }
    }

    /// What is rounded to whole numbers, of inputs and numbers alone: half precision would step over some before.
    fn rounding(&mut self, id: OpId) {
        let mut operands = vec![];
        self.f.op_data(id).op.visit_operands(&mut |v| operands.push(v));
        let Some(all) = operands.into_iter().map(|v| self.arithmetic(v)).collect::<Option<Vec<_>>>() else { return };
        if all.iter().any(|a| a.from_places) && !all.iter().any(|a| a.from_others) {
            self.add(all.into_iter().flat_map(|a| a.ops).chain([id]), ROUNDED);
        }
    }

    /// A factor that half precision holds with few digits.
    fn factor(&mut self, id: OpId) {
        let f = self.f;
        let factors = [f.op::<Mul>(id).map(|op| [op.x, op.y]), f.op::<RealDiv>(id).map(|op| [op.x, op.y])];
        let is_coarse = |v: &Value| uniform(f, *v).is_some_and(|x| (LEAST..NORMAL).contains(&x.abs()));
        // Beside what it is added to, so small a product has no digits that count.
        let is_summed = |v: &Value| {
            let ops = f.uses(*v).iter().filter_map(op_of);
            ops.into_iter().any(|id| ["add", "sub"].contains(&f.op_data(id).op.name()))
        };
        if factors.iter().flatten().flatten().any(is_coarse) && !f.op_data(id).results.iter().any(is_summed) {
            self.add([id], COARSE_FACTOR);
        }
    }

    fn coordinates(&mut self, id: OpId) {
        let op = &*self.f.op_data(id).op;
        let found = op
            .args()
            .into_iter()
            .find(|arg| is_place(self.f, id, arg.name))
            .and_then(|a| a.operands().first().copied());
        // Before iOS 17 the op's boxes are of the type of its picture.
        let roi = self.f.op::<CropResizeRoi>(id).filter(|op| is_large(self.f, op.x)).map(|op| op.roi);
        self.add(roi.map(|_| id), COORDINATES);
        if let Some(arithmetic) = found.or(roi).and_then(|places| self.arithmetic(places)) {
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
            } else if ARITHMETIC.contains(&op.name()) || MOVES.contains(&op.name()) || self.is_outer(id) {
                // A product of matrices mixes what it reads, as layers do, but computes places all the same.
                out.from_others |= f.op::<Matmul>(id).is_some() && !self.is_outer(id);
                out.ops.push(id);
                op.visit_operands(&mut |v| {
                    if f.ty(v).tensor().is_some_and(|t| t.dtype.is_float()) && seen.insert(v) {
                        todo.push(v);
                    }
                });
            } else {
                out.from_others = true;
            }
            if seen.len() > MAX_ARITHMETIC {
                return None;
            }
        }
        Some(out)
    }

    /// Whether each element of a product of matrices is a product of two numbers.
    fn is_outer(&self, id: OpId) -> bool {
        let f = self.f;
        let is_one = |x: Value, from_last: usize| {
            let shape = f.ty(x).tensor().map(|t| &t.shape);
            shape.is_some_and(|s| s.rank().checked_sub(from_last).is_some_and(|a| s[a].is(1)))
        };
        f.op::<Matmul>(id).is_some_and(|op| is_one(op.x, if op.transpose_x { 2 } else { 1 }))
            || f.op::<Linear>(id).is_some_and(|op| is_one(op.x, 1))
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
        let fits = many.is_some_and(|n| if most.is_finite() { n as f64 * most <= MOST } else { n < MANY });
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

/// What an op squares, element by element.
pub(super) fn square_of(f: &Function, id: OpId) -> Option<Value> {
    if let Some(op) = f.op::<Mul>(id) {
        return (op.x == op.y).then_some(op.x);
    }
    if let Some(op) = f.op::<Pow>(id) {
        return uniform(f, op.y).filter(|e| *e == 2.0).map(|_| op.x);
    }
    f.op::<Square>(id).map(|op| op.x)
}

fn op_of(used: &Use) -> Option<OpId> {
    match used {
        Use::Op(id) => Some(*id),
        Use::Yield(_) => None,
    }
}

fn first_operand(f: &Function, id: OpId) -> Option<Value> {
    let mut first = None;
    f.op_data(id).op.visit_operands(&mut |v| first = first.or(Some(v)));
    first
}
