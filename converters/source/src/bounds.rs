//! Between which numbers a value lies, and of which element type it is in the source: a program computes with 32 bits
//! where the source has integers of 64 or of 8.

use crate::{
    Arg, Node,
    driver::{Entry, State},
};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::{DType, Dim, Tensor};

/// What integers are taken to be below where nothing is known of them, such as those of an input: half of what 32 bits
/// hold, so that small numbers may be added.
const ASSUMED: f64 = ((1u64 << 30) - 1) as f64;
/// Elements of a constant up to which they are looked at; one of more may hold whatever its type does.
const MAX_ELEMENTS: usize = 1 << 24;
/// Steps from a value to what it is computed from that are looked at.
const MAX_DEPTH: usize = 64;

/// The least and the greatest number that an element may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    low: f64,
    high: f64,
}

impl Bounds {
    const ASSUMED: Self = Self { low: -ASSUMED, high: ASSUMED };
    const OF_32_BITS: Self = Self { low: i32::MIN as f64, high: i32::MAX as f64 };
    const ANY: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };

    fn around(numbers: impl IntoIterator<Item = f64>) -> Self {
        let none = Self { low: f64::INFINITY, high: f64::NEG_INFINITY };
        numbers
            .into_iter()
            .fold(none, |b, x| if x.is_nan() { Self::ANY } else { Self { low: b.low.min(x), high: b.high.max(x) } })
    }

    fn and(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    fn times(self, other: Self) -> Self {
        // Nothing times anything is nothing, as none of the numbers is infinite itself.
        let product = |a: f64, b: f64| if a == 0.0 || b == 0.0 { 0.0 } else { a * b };
        let (a, b) = ([self.low, self.high], [other.low, other.high]);
        Self::around(a.into_iter().flat_map(|a| b.map(|b| product(a, b))))
    }

    fn size(self) -> f64 {
        self.low.abs().max(self.high.abs())
    }

    /// Whether integers of 32 bits hold all of it.
    pub(crate) fn fits(self) -> bool {
        self.low >= f64::from(i32::MIN) && self.high <= f64::from(i32::MAX)
    }
}

impl State {
    /// The element type that the first result of `node` has in the source, where it is that of an input.
    pub(crate) fn type_of_result(&self, node: &Node) -> Option<DType> {
        let Arg::Value(name) = node.inputs.get(self.table.alike(&node.domain, &node.op)?)? else { return None };
        self.type_of(name)
    }

    /// The element type of `name` in the source, where it is a constant or stated.
    fn type_of(&self, name: &str) -> Option<DType> {
        match self.entry(name) {
            Some(Entry::Const(t)) => Some(t.dtype()),
            _ => self.stated(name).map(|t| t.dtype),
        }
    }

    /// Whether the first result of `node`, of type `made` where a lowering says so, is of 64-bit integers.
    pub(crate) fn is_wide(&self, node: &Node, made: Option<DType>) -> bool {
        let wide = |d: DType| matches!(d, DType::I64 | DType::U64);
        let stated = || node.outputs.first().and_then(|name| self.stated(name)).map(|t| t.dtype);
        made.or_else(stated).map_or_else(|| node.reads().filter_map(|name| self.type_of(name)).any(wide), wide)
    }

    /// Whether exact numbers in the place of `v` may need more than 32 bits.
    pub(crate) fn may_overflow(&mut self, v: Value) -> bool {
        self.computed(v, 0).is_some_and(|b| !b.fits())
    }

    /// The values whose elements `v` has, where it has no others.
    fn arranged(&self, v: Value) -> Option<Vec<Value>> {
        let op = &*self.f.op_data(self.f.def_op(v)?).op;
        let mut operands = vec![];
        op.visit_operands(&mut |o| operands.push(o));
        match op.name() {
            "identity" | "reshape" | "transpose" | "squeeze" | "expand_dims" | "slice_by_index" | "slice_by_size"
            | "gather" | "gather_along_axis" | "gather_nd" | "split" | "tile" | "reverse" | "reduce_max"
            | "reduce_min" | "max_pool" => operands.truncate(1),
            "concat" | "stack" => {}
            "select" => drop(operands.drain(..1.min(operands.len()))),
            "fill" => operands = self.f.def::<ops::Fill>(v)?.value.into_iter().collect(),
            _ => return None,
        }
        (!operands.is_empty()).then_some(operands)
    }

    /// Between which numbers the elements of `v` lie; where what it is computed from may be beyond 32 bits, as if it
    /// were not.
    pub(crate) fn bounds(&mut self, v: Value, depth: usize) -> Bounds {
        if let Some(known) = self.known_bounds.get(&v) {
            return *known;
        }
        let whole = self.f.ty(v).tensor().is_some_and(|t| !t.dtype.is_float());
        let unknown = if whole { Bounds::ASSUMED } else { Bounds::ANY };
        if depth >= MAX_DEPTH {
            // From nearer by, more may be seen of it.
            return unknown;
        }
        let found = self.computed(v, depth + 1).filter(|b| !whole || b.fits()).unwrap_or(unknown);
        self.known_bounds.insert(v, found);
        found
    }

    /// As exact numbers would have it, however large; `None` where nothing is known.
    pub(crate) fn computed(&mut self, v: Value, depth: usize) -> Option<Bounds> {
        let ty = self.f.ty(v).tensor()?.clone();
        if ty.dtype == DType::Bool {
            return Some(Bounds { low: 0.0, high: 1.0 });
        }
        if let Some(t) = self.f.constant(v) {
            return if t.count() <= MAX_ELEMENTS {
                Some(of_tensor(t))
            } else {
                (!ty.dtype.is_float()).then_some(Bounds::OF_32_BITS)
            };
        }
        if let Some(ints) = &self.f.value(v).fact.ints {
            let of_dim = |d: &Dim| {
                let (low, high) = d.bounds(&self.symbols);
                Bounds { low: low.map_or(-ASSUMED, |n| n as f64), high: high.map_or(ASSUMED, |n| n as f64) }
            };
            return ints.iter().map(of_dim).reduce(Bounds::and);
        }
        if let Some(parts) = self.arranged(v) {
            return parts.into_iter().map(|p| self.bounds(p, depth)).reduce(Bounds::and);
        }
        let id = self.f.def_op(v)?;
        let name = self.f.op_data(id).op.name().to_owned();
        let mut operands = vec![];
        self.f.op_data(id).op.visit_operands(&mut |o| operands.push(o));
        let of = |s: &mut Self, i: usize| operands.get(i).map(|o| s.bounds(*o, depth));
        Some(match &*name {
            "cast" => {
                let x = of(self, 0)?;
                if ty.dtype.is_float() { x } else { Bounds { low: x.low.trunc(), high: x.high.trunc() } }
            }
            "add" => {
                let (x, y) = (of(self, 0)?, of(self, 1)?);
                Bounds { low: x.low + y.low, high: x.high + y.high }
            }
            "maximum" => {
                let (x, y) = (of(self, 0)?, of(self, 1)?);
                Bounds { low: x.low.max(y.low), high: x.high.max(y.high) }
            }
            "minimum" => {
                let (x, y) = (of(self, 0)?, of(self, 1)?);
                Bounds { low: x.low.min(y.low), high: x.high.min(y.high) }
            }
            "sub" => {
                let (x, y) = (of(self, 0)?, of(self, 1)?);
                Bounds { low: x.low - y.high, high: x.high - y.low }
            }
            "mul" => of(self, 0)?.times(of(self, 1)?),
            "square" => {
                let x = of(self, 0)?;
                x.times(x)
            }
            "pow" => {
                let (x, y) = (of(self, 0)?, of(self, 1)?);
                let size = x.size().max(1.0).powf(y.high.max(0.0));
                Bounds { low: if x.low < 0.0 { -size } else { 0.0 }, high: size }
            }
            // Of integers, a quotient is no greater than what is divided.
            "real_div" | "floor_div" if !ty.dtype.is_float() => {
                let size = of(self, 0)?.size() + 1.0;
                Bounds { low: -size, high: size }
            }
            "real_div" => {
                let (x, y) = (of(self, 0)?, of(self, 1)?);
                if y.low <= 0.0 {
                    return None;
                }
                x.times(Bounds { low: 1.0 / y.high, high: 1.0 / y.low })
            }
            "mod" => {
                let y = of(self, 1)?;
                Bounds { low: y.low.min(0.0), high: y.high.max(0.0) }
            }
            "abs" => Bounds { low: 0.0, high: of(self, 0)?.size() },
            "sign" | "tanh" | "sin" | "cos" | "erf" => Bounds { low: -1.0, high: 1.0 },
            "sigmoid" | "softmax" | "random_bernoulli" | "one_hot" => Bounds { low: 0.0, high: 1.0 },
            "relu" => Bounds { low: 0.0, high: of(self, 0)?.high.max(0.0) },
            "clip" => {
                let (x, clip) = (of(self, 0)?, self.f.def::<ops::Clip>(v)?);
                let (alpha, beta) = (f64::from(clip.alpha), f64::from(clip.beta));
                Bounds { low: x.low.max(alpha).min(beta), high: x.high.max(alpha).min(beta) }
            }
            "floor" | "ceil" | "round" | "reduce_mean" => {
                let x = of(self, 0)?;
                Bounds { low: x.low.floor(), high: x.high.ceil() }
            }
            "reduce_sum" => {
                let axes = self.f.def::<ops::ReduceSum>(v)?.axes.clone();
                let terms = self.places(*operands.first()?, axes.as_deref())?;
                of(self, 0)?.times(Bounds { low: 0.0, high: terms })
            }
            "cumsum" => {
                let axis = self.f.def::<ops::Cumsum>(v)?.axis;
                let terms = self.places(*operands.first()?, Some(&[axis]))?;
                of(self, 0)?.times(Bounds { low: 0.0, high: terms })
            }
            "reduce_argmax" | "reduce_argmin" | "non_zero" | "argsort" | "random_categorical" => {
                Bounds { low: 0.0, high: self.places(*operands.first()?, None)? }
            }
            "range_1d" => operands.iter().map(|o| self.bounds(*o, depth)).reduce(Bounds::and)?,
            _ => return None,
        })
    }
}

impl State {
    /// How many elements lie along the axes of `v`, at most; along all where none are given.
    fn places(&self, v: Value, axes: Option<&[i64]>) -> Option<f64> {
        let shape = &self.f.ty(v).tensor()?.shape;
        let all: Vec<i64> = (0..shape.rank() as i64).collect();
        let mut places = 1.0;
        for axis in axes.unwrap_or(&all) {
            let dim = shape.get(shape.axis(*axis).ok()?.index())?;
            places *= dim.bounds(&self.symbols).1? as f64;
        }
        Some(places)
    }
}

fn of_tensor(t: &Tensor) -> Bounds {
    Bounds::around(t.to_f64())
}
