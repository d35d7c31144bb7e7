//! Packages whose outputs are the values of ops: Core ML has no other way to show them.

use mlconv_mil::{
    ir::{Function, Module, Port, Value},
    ops::Const,
};
use mlconv_tensor::{DType, Type};
use std::collections::BTreeSet;

/// How many values one package returns: Core ML compiles outputs by the hundred badly.
const BATCH: usize = 48;

/// A package that shows values of ops.
pub(super) struct Probe {
    /// The program, of one function.
    pub(super) module: Module,
    /// The types of the ops, by output.
    pub(super) ops: Vec<String>,
}

/// Programs whose outputs are the values of all ops of `f` that can be outputs, in program order, in batches.
pub(super) fn probes(module: &Module, f: &Function) -> Vec<Probe> {
    let mut taken: BTreeSet<String> = f.sig.inputs.iter().map(|p| p.name.to_string()).collect();
    let mut all: Vec<(String, String, Value)> = vec![];
    for id in f.ops() {
        let data = f.op_data(id);
        if f.op::<Const>(id).is_some() || data.op.schema().constexpr {
            continue;
        }
        for v in data.results.iter().filter(|v| can_be_output(f, **v)) {
            let hint = &f.value(*v).hint;
            let mut name = hint.to_string();
            let mut n = 1;
            while name.is_empty() || !taken.insert(name.clone()) {
                name = format!("{hint}_{n}");
                n += 1;
            }
            all.push((name, data.op.name().to_owned(), *v));
        }
    }
    let probe = |batch: &[(String, String, Value)]| {
        let mut g = f.clone();
        g.set_outputs(batch.iter().map(|(name, _, v)| (Port::new(name.as_str()), *v)).collect());
        let module = Module { functions: vec![g], ..module.clone() };
        Probe { module, ops: batch.iter().map(|(_, op, _)| op.clone()).collect() }
    };
    all.chunks(BATCH).map(probe).collect()
}

/// Whether Core ML can return it: an array of at most five axes, of a type that arrays have.
fn can_be_output(f: &Function, v: Value) -> bool {
    match f.ty(v) {
        Type::Tensor(t) => matches!(t.dtype, DType::F16 | DType::F32 | DType::I32) && (1..=5).contains(&t.shape.rank()),
        Type::State(_) | Type::List { .. } | Type::Dict { .. } | Type::Unknown => false,
    }
}
