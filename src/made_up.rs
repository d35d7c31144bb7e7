//! Inputs that are made up from a seed, of types, shapes and numbers that suit a function.

mod rows;

use crate::{Diagnostic, codes, feed::tensor_inputs};
use mlconv_mil::{
    ir::{Feature, Function, Module, OpId, Port, Range, Use, Value},
    ops::Mul,
    schema::{NamedArg, ParamKind, Schema},
};
use mlconv_runner::sample_shape;
use mlconv_tensor::{DType, SymbolInfo, Symbols, Tensor, TensorType};
use std::collections::HashSet;

/// Elements of made-up inputs, all together: a model may declare any shape.
const MAX_RANDOM: usize = 1 << 28;

/// The size taken for one that is open and for which nothing is declared: of 1, much is the same that should not be.
const OPEN: i64 = 3;

/// Integers below this are made up, as many as a byte holds: a sum of few is more than half precision counts to.
const INTEGERS: f64 = 256.0;

/// What made-up floats are like. Integers and booleans are random in any case, so that they stay places and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As [`of_shapes`] says.
    Random,
    /// 0.
    Zeros,
    /// 1.
    Ones,
    /// A thousand times those of a normal distribution, up to what half precision holds.
    Large,
    /// A millionth of those of a normal distribution: below the normal numbers of half precision.
    Tiny,
    /// Below the normal numbers of the input's own type.
    Denormal,
    /// One number of a normal distribution, everywhere.
    Constant,
    /// Those of a normal distribution at every twentieth place, else 0.
    Sparse,
}

impl Style {
    /// Floats that models are seldom made for.
    pub const ADVERSARIAL: [Self; 7] =
        [Self::Zeros, Self::Ones, Self::Large, Self::Tiny, Self::Denormal, Self::Constant, Self::Sparse];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Zeros => "zeros",
            Self::Ones => "ones",
            Self::Large => "large",
            Self::Tiny => "tiny",
            Self::Denormal => "denormal",
            Self::Constant => "constant",
            Self::Sparse => "sparse",
        }
    }

    /// What inputs are, for a person.
    pub fn inputs(self) -> &'static str {
        match self {
            Self::Random => "random inputs",
            Self::Zeros => "zeros",
            Self::Ones => "ones",
            Self::Large => "random inputs times 1000",
            Self::Tiny => "random inputs times 1e-6",
            Self::Denormal => "denormal numbers",
            Self::Constant => "one random number everywhere",
            Self::Sparse => "random inputs, 95 % of them zeros",
        }
    }

    /// Draws the next element of an input of type `dtype`.
    fn floats(self, dtype: DType) -> impl FnMut(&mut Random) -> f64 {
        let mut held = None;
        // Half of the least normal number.
        let least = if dtype == DType::F16 { f64::powi(2.0, -15) } else { f64::powi(2.0, -127) };
        move |random| match self {
            Self::Random => random.normal(),
            Self::Zeros => 0.0,
            Self::Ones => 1.0,
            Self::Large => (1000.0 * random.normal()).clamp(-65504.0, 65504.0),
            Self::Tiny => 1e-6 * random.normal(),
            Self::Denormal => least * (2.0 * random.uniform() - 1.0),
            Self::Constant => *held.get_or_insert_with(|| random.normal()),
            Self::Sparse => {
                let x = random.normal();
                if random.uniform() < 0.05 { x } else { 0.0 }
            }
        }
    }
}

/// Inputs of the declared types and default shapes, made from `seed`: see [`of_shapes`].
pub fn random_inputs(module: &Module, f: &Function, seed: u64) -> Result<Vec<Option<Tensor>>, Diagnostic> {
    of_shapes(f, seed, &default_shapes(module, f))
}

/// The default shape of each input.
pub fn default_shapes(module: &Module, f: &Function) -> Vec<Vec<usize>> {
    shapes(f, &module.symbols)
}

/// As [`default_shapes`], with open sizes above 1 where no default says otherwise; `None` where there are no such sizes.
pub fn open_shapes(module: &Module, f: &Function) -> Option<Vec<Vec<usize>>> {
    let mut open = module.symbols.clone();
    for (_, ty) in tensor_inputs(f) {
        ty.shape.iter().for_each(|d| {
            d.visit_symbols(&mut |name| {
                let info = module.symbols.get(name).cloned().unwrap_or_default();
                if info.default.is_none_or(|d| d == 1) {
                    let size = OPEN.min(info.max.unwrap_or(OPEN)).max(info.min);
                    open.set(name.clone(), SymbolInfo { default: Some(size), ..info });
                }
            });
        });
    }
    Some(shapes(f, &open)).filter(|open| *open != default_shapes(module, f))
}

/// The shape of each input, where symbols have their defaults.
pub(crate) fn shapes(f: &Function, symbols: &Symbols) -> Vec<Vec<usize>> {
    let shape = |(port, ty): (&Port, &TensorType)| match port.shapes.first() {
        Some(default) => default.iter().map(|n| usize::try_from(*n).unwrap_or(1)).collect(),
        None => sample_shape(&ty.shape, symbols).to_vec(),
    };
    tensor_inputs(f).map(shape).collect()
}

/// Inputs of the declared types and of these shapes, made from `seed`: numbers of the range that is said of an input; else
/// normal floats, booleans, and small integers, which are rows of tables where the program looks them up there, and 0 or 1 where
/// it may use them as other places, as sizes or as masks.
pub fn of_shapes(f: &Function, seed: u64, shapes: &[Vec<usize>]) -> Result<Vec<Option<Tensor>>, Diagnostic> {
    of_style(f, seed, shapes, Style::Random)
}

/// As [`of_shapes`], with floats of some kind; they stay within what is said of an input.
pub fn of_style(
    f: &Function,
    seed: u64,
    shapes: &[Vec<usize>],
    style: Style,
) -> Result<Vec<Option<Tensor>>, Diagnostic> {
    let (mut random, mut left) = (Random(seed ^ 0x9e37_79b9_7f4a_7c15), MAX_RANDOM);
    let values = f.inputs().iter().filter(|v| f.ty(**v).tensor().is_some());
    let kinds: Vec<Integers> = values.map(|v| integers(f, *v)).collect();
    tensor_inputs(f)
        .zip(kinds)
        .zip(shapes)
        .map(|(((port, ty), integers), shape)| {
            let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            let Some((count, rest)) = count.and_then(|n| Some((n, left.checked_sub(n)?))) else {
                let title = format!("input `{}` is {ty}, too large to be made up", port.name);
                return Err(Diagnostic::error(&codes::N0003, title).help("give inputs, or shapes that are smaller"));
            };
            left = rest;
            let (is_float, range) = (ty.dtype.is_float(), port.range.filter(|_| ty.dtype != DType::Bool));
            let mut odd = style.floats(ty.dtype);
            let mut draw = || match (range, port.feature) {
                (range, feature) if is_float && style != Style::Random => {
                    let x = odd(&mut random);
                    let (low, high) = match (range, feature) {
                        (Some(Range { low, high }), _) => (low, high),
                        (None, Feature::Image(_)) => return x.clamp(0.0, 255.0).floor(),
                        (None, _) => (f64::NEG_INFINITY, f64::INFINITY),
                    };
                    x.max(low).min(high)
                }
                (Some(Range { low, high }), _) if is_float => low + random.uniform() * (high - low),
                (Some(Range { low, high }), _) => {
                    let (low, high) = (low.ceil(), high.floor());
                    (low + random.uniform() * (high - low + 1.0)).floor().clamp(low.min(high), high)
                }
                (None, Feature::Image(_)) if is_float => (random.uniform() * 256.0).floor(),
                (None, _) if is_float => random.normal(),
                (None, _) => match integers {
                    Integers::Rows(n) if ty.dtype != DType::Bool => (random.uniform() * n).floor(),
                    Integers::Any if ty.dtype != DType::Bool => (random.uniform() * INTEGERS).floor(),
                    _ => f64::from(u8::from(random.uniform() < 0.5)),
                },
            };
            let values: Vec<f64> = (0..count).map(|_| draw()).collect();
            Ok(Some(Tensor::from_f64(ty.dtype, shape, &values)))
        })
        .collect()
}

/// What integers are made up for an input.
#[derive(Clone, Copy, PartialEq)]
enum Integers {
    /// Any that a byte holds.
    Any,
    /// Rows of a table that has so many.
    Rows(f64),
    /// 0 and 1, of a mask.
    Mask,
    /// 0 and 1, as they may be places or sizes of which nothing is known.
    Places,
}

/// What integers suit `v`.
fn integers(f: &Function, v: Value) -> Integers {
    let greatest =
        f.ty(v).tensor().filter(|t| t.dtype.is_int()).map_or(0, |t| i64::MAX >> (64 - t.dtype.bits().clamp(1, 64)));
    if may_mask(f, v) {
        Integers::Mask
    } else if !may_index(f, v) {
        Integers::Any
    } else {
        rows::rows(f, v).map_or(Integers::Places, |n| Integers::Rows(n.min(greatest.saturating_add(1)) as f64))
    }
}

/// What made-up inputs leave out: integers that may be places or sizes, of which only 0 and 1 are tried.
pub(crate) fn narrow(f: &Function) -> Vec<String> {
    let values = f.inputs().iter().filter(|v| f.ty(**v).tensor().is_some());
    let is_narrow =
        |(v, (port, _)): &(&Value, (&Port, &TensorType))| port.range.is_none() && integers(f, **v) == Integers::Places;
    let said = |(_, (port, _)): (_, (&Port, &TensorType))| {
        let name = &port.name;
        format!(
            "integers of `{name}` beyond 0 and 1, as they may be places or sizes: `--range {name}=LOW:HIGH` draws others"
        )
    };
    values.zip(tensor_inputs(f)).filter(is_narrow).map(said).collect()
}

/// Whether the integers `v`, or what is made of them, may be places or sizes: operands that take integers alone are.
fn may_index(f: &Function, v: Value) -> bool {
    comes_to(f, v, &|_| true, &|id, v| {
        let data = f.op_data(id);
        let mut nested = data.op.name() == "range_1d";
        data.op.visit_regions(&mut |_| nested = true);
        nested || data.op.args().iter().any(|arg| is_place(f, data.op.schema(), arg, v))
    })
}

/// What a mask is multiplied by to keep elements out, at least.
pub(crate) const EXCLUDES: f64 = 5e3;
/// Ops that masks go through on their way to that.
const OF_MASKS: &[&str] =
    &["cast", "expand_dims", "gather", "mul", "reshape", "slice_by_index", "squeeze", "sub", "tile", "transpose"];

/// Whether the integers `v` may be a mask: they meet a factor as great as those that keep elements out of a softmax.
fn may_mask(f: &Function, v: Value) -> bool {
    let great = |v: &Value| f.constant(*v).is_some_and(|t| t.count() == 1 && t.to_f64()[0].abs() >= EXCLUDES);
    let excludes = |id: OpId, _| f.op::<Mul>(id).is_some_and(|op| [op.x, op.y].iter().any(great));
    comes_to(f, v, &|name| OF_MASKS.contains(&name), &excludes)
}

/// Whether the integers `v`, or what ops of some names make of them, come to an op that is meant.
fn comes_to(
    f: &Function,
    v: Value,
    goes_through: &dyn Fn(&str) -> bool,
    is_meant: &dyn Fn(OpId, Value) -> bool,
) -> bool {
    if f.ty(v).tensor().is_none_or(|t| !t.dtype.is_int()) {
        return false;
    }
    let (mut seen, mut todo) = (HashSet::from([v]), vec![v]);
    while let Some(v) = todo.pop() {
        for used in f.uses(v) {
            let Use::Op(id) = used else { continue };
            if is_meant(*id, v) {
                return true;
            }
            let data = f.op_data(*id);
            if goes_through(data.op.name()) {
                todo.extend(data.results.iter().filter(|v| seen.insert(**v)));
            }
        }
    }
    false
}

/// Whether an argument of an op of this schema holds `v` and takes integers alone.
fn is_place(f: &Function, schema: &Schema, arg: &NamedArg<'_>, v: Value) -> bool {
    if !arg.operands().contains(&v) {
        return false;
    }
    let Some(ParamKind::Operand { domain, .. }) = arg.param.map(|p| &p.kind) else { return true };
    schema.types(domain, f.opset).is_some_and(|types| types.iter().all(|t| t.is_int()))
}

/// SplitMix64: small, and the same everywhere. Source: Steele, Lea and Flood 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..1`.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Of mean 0 and variance 1, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::text::parse;

    #[test]
    fn all_rows_of_a_table_are_drawn_and_other_places_are_said_to_be_few() {
        let text = "func @main(%i: i32[40], %j: i32[1, 40], %k: i32[40]) ios17 {\n  %w = const(val=f32[5, 1] [1.0, 2.0, 3.0, 4.0, \
                    5.0])\n  %u = const(val=f32[1, 3] [1.0, 2.0, 3.0])\n  %a = gather(x=%w, indices=%i)\n  \
                    %b = gather_along_axis(x=%u, indices=%j, axis=1)\n  %c = mul(x=%k, y=%k)\n  return %a, %b, %c\n}\n";
        let module = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let f = &module.functions[0];
        let inputs = random_inputs(&module, f, 0).expect("they are small");
        let most = |at: usize| inputs[at].as_ref().map(|t| t.to_i64().into_iter().max());
        assert_eq!([most(0), most(1)], [Some(Some(4)), Some(Some(1))]);
        assert!(most(2) > Some(Some(100)));
        let said = narrow(f);
        assert!(said.len() == 1 && said[0].starts_with("integers of `j` beyond 0 and 1"), "{said:?}");
    }
}
