//! A model against tensors that were recorded elsewhere: outputs, or values of any of its ops.

use crate::{
    Diagnostic,
    arrays::Arrays,
    codes,
    compare::{self, OutputDiff, Tolerance},
    feed::{means, means_port},
    names::listed,
    parity::run_error,
};
use mlconv_mil::{
    ir::{Function, Value},
    verify::Verified,
};
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// What came of a comparison with recorded tensors.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// One for each tensor that has a value, in the order of the program.
    pub values: Vec<OutputDiff>,
    /// Tensors that no value bears the name of.
    pub unused: Vec<String>,
}

/// The tensor of a recording that is an input of `f`.
pub fn given(f: &Function, recorded: &Arrays) -> Arrays {
    let is_input = |name: &str| f.sig.inputs.iter().any(|p| means_port(name, p));
    let inputs = recorded.iter().filter_map(|(name, t)| {
        let own = name.strip_prefix("input/").or(Some(name).filter(|n| is_input(n)).map(String::as_str))?;
        is_input(own).then(|| (own.to_owned(), t.clone()))
    });
    inputs.collect()
}

/// Runs a function and compares its values with recorded ones of their names; `is_first` where what was recorded is what to go
/// by.
pub fn compare(
    (module, f): (&Verified, &Function),
    inputs: &[Option<Tensor>],
    recorded: &Arrays,
    is_first: bool,
    tolerance: Tolerance,
) -> Result<Recorded, Diagnostic> {
    let mut of: HashMap<Value, (&str, &Tensor)> = HashMap::new();
    for (name, t) in recorded {
        let plain = name.strip_prefix("output/").unwrap_or(name);
        let output =
            f.sig.outputs.iter().position(|p| means_port(plain, p)).and_then(|at| f.outputs().get(at).copied());
        let value = || super::computed(f).find(|v| means(plain, &f.value(*v).hint) || means(&f.value(*v).hint, plain));
        let Some(v) = output.or_else(value) else { continue };
        if let Some((other, _)) = of.insert(v, (name, t)) {
            let title = format!("{} are the same value", listed([other, name]));
            return Err(Diagnostic::error(&codes::N0003, title).help("leave one of them out"));
        }
    }
    let mut values = vec![];
    let mut look = |v: Value, t: &Tensor| {
        if let Some((name, recorded)) = of.get(&v) {
            let (want, got) = if is_first { (*recorded, t) } else { (t, *recorded) };
            let plain = name.strip_prefix("output/").unwrap_or(name);
            values.push(compare::output(plain, want, got, tolerance));
        }
    };
    let session = Session::new(module, f, &Cpu, Options::default());
    session.run_observed(inputs, &mut States::new(), Some(&mut look)).map_err(|e| run_error(&e))?;
    let used: HashSet<&str> = of.values().map(|(name, _)| *name).collect();
    let is_input = given(f, recorded);
    let is_unused = |name: &&String| {
        let plain = name.strip_prefix("input/").unwrap_or(name);
        !used.contains(name.as_str()) && !is_input.contains_key(plain)
    };
    Ok(Recorded { values, unused: recorded.keys().filter(is_unused).cloned().collect() })
}
