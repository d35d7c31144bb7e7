//! What a model costs and consists of, without running it: multiplications, memory, parameters and their bits.
//!
//! Sizes that are left open are taken at their defaults, as a run on made-up inputs does.

mod macs;
mod memory;
mod ops;
mod weights;

pub use macs::{Busy, Macs, OpMacs, macs, macs_by_default};
pub use memory::Memory;
pub use ops::{ListedOp, ops};
pub use weights::{WeightKind, Weights};

use mlconv_mil::{
    ir::{Function, Module},
    ops::Const,
};
use mlconv_tensor::{Dim, Shape, Symbols, TensorType, Type};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a function costs and consists of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Costs {
    /// The sizes that are open, in the order in which inputs have them.
    pub sizes: Vec<OpenSize>,
    /// Products that are added up.
    pub macs: Macs,
    /// What values take while it runs.
    pub memory: Memory,
    /// Ops without constants, by the element type of their first result, most frequent first.
    pub precision: Vec<Typed>,
    /// What constants hold, by how they are stored, the greatest first.
    pub weights: Weights,
    /// The states, in the order of inputs.
    pub states: Vec<StateSize>,
}

/// A size that callers choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenSize {
    /// Its name.
    pub name: String,
    /// The least.
    pub min: i64,
    /// The greatest; `None` is no limit.
    pub max: Option<i64>,
    /// What is taken where nothing else is said.
    pub default: i64,
}

/// Ops of one element type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Typed {
    /// The element type; `other` for results that are no tensors.
    pub dtype: &'static str,
    /// How many ops.
    pub count: usize,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateSize {
    /// Its name.
    pub name: String,
    /// Its element type and shape.
    #[serde(rename = "type")]
    pub ty: String,
    /// Its bytes; `None` where they are not known.
    pub bytes: Option<u64>,
}

impl Costs {
    /// Of a function of `module`.
    pub fn of(module: &Module, f: &Function) -> Self {
        let sizes = Sizes { symbols: &module.symbols };
        Self {
            sizes: sizes.open(f),
            macs: Macs::of(module, f, &sizes),
            memory: Memory::of(f, &sizes),
            precision: precision(f),
            weights: Weights::of([f]),
            states: states(f, &sizes),
        }
    }
}

/// Sizes where open ones have their defaults.
pub(crate) struct Sizes<'a> {
    symbols: &'a Symbols,
}

impl Sizes<'_> {
    /// The size; `None` where it depends on the data of a run, or is none.
    pub(crate) fn size(&self, dim: &Dim) -> Option<u64> {
        let known = |name: &str| self.symbols.get(name).map(|_| self.symbols.default_of(name));
        u64::try_from(dim.eval(&known)?).ok()
    }

    /// The bytes of a tensor.
    pub(crate) fn bytes(&self, ty: &TensorType) -> Option<u64> {
        let count = ty.shape.iter().try_fold(1u64, |n, d| Some(n.saturating_mul(self.size(d)?)))?;
        Some(count.saturating_mul(ty.dtype.bits().into()).div_ceil(8))
    }

    /// The open sizes that inputs and outputs of `f` have.
    fn open(&self, f: &Function) -> Vec<OpenSize> {
        let (mut seen, mut out) = (BTreeSet::new(), vec![]);
        let shapes = f.inputs().iter().chain(f.outputs()).filter_map(|v| shape(f.ty(*v)));
        for dim in shapes.flat_map(|s| s.iter()) {
            dim.visit_symbols(&mut |name| {
                let Some(info) = self.symbols.get(name).filter(|_| seen.insert(name.clone())) else { return };
                let default = self.symbols.default_of(name);
                out.push(OpenSize { name: name.to_string(), min: info.min, max: info.max, default });
            });
        }
        out
    }
}

fn shape(ty: &Type) -> Option<&Shape> {
    match ty {
        Type::Tensor(t) | Type::State(t) => Some(&t.shape),
        Type::List { .. } | Type::Dict { .. } | Type::Unknown => None,
    }
}

fn precision(f: &Function) -> Vec<Typed> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for id in f.all_ops() {
        let data = f.op_data(id);
        if f.op::<Const>(id).is_some() || data.op.schema().constexpr {
            continue;
        }
        let dtype = data.results.first().and_then(|v| f.ty(*v).tensor()).map_or("other", |t| t.dtype.name());
        *counts.entry(dtype).or_default() += 1;
    }
    let mut out: Vec<Typed> = counts.into_iter().map(|(dtype, count)| Typed { dtype, count }).collect();
    out.sort_by_key(|t| std::cmp::Reverse(t.count));
    out
}

fn states(f: &Function, sizes: &Sizes<'_>) -> Vec<StateSize> {
    let state = |(v, port): (&mlconv_mil::ir::Value, &mlconv_mil::ir::Port)| match f.ty(*v) {
        Type::State(t) => Some(StateSize { name: port.name.to_string(), ty: t.to_string(), bytes: sizes.bytes(t) }),
        Type::Tensor(_) | Type::List { .. } | Type::Dict { .. } | Type::Unknown => None,
    };
    f.inputs().iter().zip(&f.sig.inputs).filter_map(state).collect()
}
