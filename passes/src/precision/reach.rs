//! Which values may lie where half precision has no numbers.

use super::moves::MOVES;
use mlconv_mil::{
    ir::{Function, OpId, Value},
    ops::Cast,
};
use mlconv_tensor::{Simd, Tensor, WithSimd, f16, vectorized};

/// Where a value may lie beyond half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Near zero, held away from it by a number that would vanish, such as an epsilon.
    Tiny,
    /// The reciprocal of something tiny.
    Huge,
    /// Beyond 65504, as are most values that follow from it.
    Wide,
}

/// A number that half precision cannot hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unfit {
    Overflows(f32),
    Vanishes(f32),
}

/// Why an op cannot compute in half precision.
pub(super) enum Cause {
    /// An argument holds such a number.
    Number(Unfit),
    /// An operand may be such a value.
    Operand(Reach),
}

impl Cause {
    /// Why, in words about the argument `name`.
    pub(super) fn why(&self, name: &str) -> String {
        match self {
            Self::Number(Unfit::Vanishes(x)) => format!("`{name}` holds {x:e}, which would become 0"),
            Self::Number(Unfit::Overflows(x)) => format!("`{name}` holds {x:e}, beyond 65504"),
            Self::Operand(Reach::Tiny) => format!("`{name}` may be too small for half precision"),
            Self::Operand(Reach::Huge | Reach::Wide) => format!("`{name}` may be beyond 65504"),
        }
    }

    fn reach(&self) -> Reach {
        match self {
            Self::Number(Unfit::Vanishes(_)) => Reach::Tiny,
            Self::Number(Unfit::Overflows(_)) => Reach::Wide,
            Self::Operand(reach) => *reach,
        }
    }
}

/// Ops whose results lie within a few units of zero, whatever their operands are.
const BOUNDED: &[&str] = &["cos", "erf", "relu6", "sigmoid", "sigmoid_hard", "sin", "softmax", "tanh"];

/// Ops beside those that move elements whose results are as small and as great as what they read.
const KEEPS_SIZE: &[&str] = &[
    "abs",
    "clip",
    "max_pool",
    "maximum",
    "minimum",
    "pad",
    "reduce_max",
    "reduce_min",
    "relu",
    "sqrt",
    "square",
    "threshold",
    "topk",
];

/// Where the results of an op may lie that computes in 32 bits because of `causes`, which name its arguments.
pub(super) fn of_results(f: &Function, id: OpId, causes: &[(&str, Cause)]) -> Option<Reach> {
    let name = f.op_data(id).op.name();
    if causes.iter().any(|(_, c)| c.reach() == Reach::Wide) {
        return (!BOUNDED.contains(&name)).then_some(Reach::Wide);
    }
    let of = |arg: &str| causes.iter().find(|(a, _)| *a == arg).map(|(_, c)| c.reach());
    let first = causes.first().map(|(_, c)| c.reach())?;
    let number = causes.iter().any(|(_, c)| matches!(c, Cause::Number(_)));
    match name {
        "inverse" | "rsqrt" => of("x").or(Some(Reach::Tiny)).map(reciprocal),
        // A quotient is as tame as one hopes of a normalisation; a reciprocal is not.
        "real_div" => match (of("x"), of("y")) {
            (_, Some(y)) if is_constant(f, id, "x") || is_constant(f, id, "y") => Some(reciprocal(y)),
            (Some(x), None) if is_constant(f, id, "y") => Some(x),
            _ => None,
        },
        "pow" => {
            let exponent = constant(f, id, "y")?.to_f64();
            match of("x")? {
                x if exponent.iter().all(|e| *e > 0.0) => Some(x),
                x if exponent.iter().all(|e| *e < 0.0) => Some(reciprocal(x)),
                _ => None,
            }
        }
        "add" | "sub" => {
            let both = is_constant(f, id, "x") || is_constant(f, id, "y");
            let all = ["x", "y"].iter().filter_map(|arg| constant(f, id, arg)).all(vanishes);
            (both && all).then_some(Reach::Tiny)
        }
        "mul" => (is_constant(f, id, "x") || is_constant(f, id, "y")).then_some(first),
        "reduce_mean" | "reduce_sum" => Some(first).filter(|r| *r == Reach::Tiny),
        _ if MOVES.contains(&name) || KEEPS_SIZE.contains(&name) => {
            let huge = causes.iter().any(|(_, c)| c.reach() == Reach::Huge);
            Some(if huge { Reach::Huge } else { Reach::Tiny })
        }
        "linear_activation" if number => Some(Reach::Tiny),
        _ => None,
    }
}

fn reciprocal(of: Reach) -> Reach {
    match of {
        Reach::Tiny => Reach::Huge,
        Reach::Huge => Reach::Tiny,
        Reach::Wide => Reach::Wide,
    }
}

/// The operand of an op that is called `name`.
fn operand(f: &Function, id: OpId, name: &str) -> Option<Value> {
    f.op_data(id).op.args().iter().find(|a| a.name == name).and_then(|a| a.operands().first().copied())
}

fn constant<'f>(f: &'f Function, id: OpId, name: &str) -> Option<&'f Tensor> {
    f.constant(operand(f, id, name)?)
}

fn is_constant(f: &Function, id: OpId, name: &str) -> bool {
    constant(f, id, name).is_some()
}

/// Whether the op rounds its epsilon to the type of what it reads, whatever type the epsilon has.
pub(super) fn rounds_epsilon(f: &Function, id: OpId) -> bool {
    ["inverse", "log", "rsqrt"].contains(&f.op_data(id).op.name())
}

/// An epsilon that would vanish, where that matters: not where `x` is held away from zero already.
pub(super) fn epsilon(f: &Function, id: OpId, value: f32) -> Option<Unfit> {
    let held = || operand(f, id, "x").is_some_and(|x| is_held_away(f, x));
    unfit_value(value).filter(|_| !held())
}

/// Whether `x` is the sum with, or not below, a positive number that half precision holds.
fn is_held_away(f: &Function, x: Value) -> bool {
    // What computes in half precision already is cast back.
    let x = f.def_op(x).and_then(|id| f.op::<Cast>(id)).map_or(x, |cast| cast.x);
    let Some(id) = f.def_op(x) else { return false };
    let positive = |t: &Tensor| t.count() <= FEW && t.to_f32().iter().all(|x| *x > 0.0 && unfit_value(*x).is_none());
    matches!(f.op_data(id).op.name(), "add" | "maximum")
        && ["x", "y"].iter().filter_map(|arg| constant(f, id, arg)).any(positive)
}

pub(super) fn unfit_value(x: f32) -> Option<Unfit> {
    let half = f16::from_f32(x);
    if x.is_finite() && half.is_infinite() {
        Some(Unfit::Overflows(x))
    } else if x.abs() > f32::MIN_POSITIVE && half.to_f32() == 0.0 {
        // The default epsilon of `log` is the least number there is: it stands for none.
        Some(Unfit::Vanishes(x))
    } else {
        None
    }
}

/// Elements up to which a constant is looked at number by number.
const FEW: usize = 64;

/// The bits of a float but for its sign.
const MAGNITUDE: u32 = 0x7fff_ffff;
/// The bits of infinity.
const INFINITE: u32 = 0x7f80_0000;
/// The least number that half precision rounds to infinity.
const OVERFLOWS: f32 = 65520.0;

/// The greatest magnitude of the finite numbers among single-precision ones.
struct Greatest<'a>(&'a [u8]);

impl WithSimd for Greatest<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        // Magnitudes compare as their bits do, and the greatest of integers is found many at a time.
        let mut lanes = [0u32; LANES];
        let mut rows = self.0.chunks_exact(4 * LANES);
        for row in &mut rows {
            let row: [u32; LANES] = bytemuck::pod_read_unaligned(row);
            for (lane, bits) in lanes.iter_mut().zip(row) {
                *lane = (*lane).max(finite(u32::from_le(bits)));
            }
        }
        let rest = rows.remainder().chunks_exact(4).map(|b| finite(u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        f32::from_bits(lanes.into_iter().chain(rest).fold(0, u32::max))
    }
}

/// Numbers that are looked at together.
const LANES: usize = 32;

/// The bits of a number's magnitude, and none where it is not finite.
#[inline(always)]
fn finite(bits: u32) -> u32 {
    let bits = bits & MAGNITUDE;
    if bits < INFINITE { bits } else { 0 }
}

/// A number in `t` that does not fit, where it matters: one that is too large, or the greatest where all would vanish. A
/// few that vanish beside greater ones do not matter.
pub(super) fn unfit_tensor(t: &Tensor) -> Option<Unfit> {
    // Weights are seen a chunk at a time: they may be larger than memory.
    let parts = t.blob().map_chunks(|bytes| {
        let here = vectorized(Greatest(bytes));
        let first = |bytes: &[u8]| {
            let mut values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            values.find(|x| x.is_finite() && x.abs() >= OVERFLOWS)
        };
        (here, if here >= OVERFLOWS { first(bytes) } else { None })
    });
    let found = parts.iter().find_map(|(_, found)| *found);
    let greatest = parts.iter().fold(0f32, |greatest, (here, _)| greatest.max(*here));
    let found = found.map(Unfit::Overflows);
    // One epsilon for each element is an epsilon.
    found.or_else(|| unfit_value(greatest))
}

/// Whether every number in `t` would vanish or is zero.
fn vanishes(t: &Tensor) -> bool {
    if t.count() > FEW {
        return matches!(unfit_tensor(t), Some(Unfit::Vanishes(_)));
    }
    t.to_f32().iter().all(|x| *x == 0.0 || matches!(unfit_value(*x), Some(Unfit::Vanishes(_))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::ops::OPS;

    #[test]
    fn the_ops_of_the_tables_are_in_the_catalogue() {
        for name in BOUNDED.iter().chain(KEEPS_SIZE) {
            assert!(OPS.iter().any(|op| op.schema.name == *name), "{name}");
        }
    }
}
