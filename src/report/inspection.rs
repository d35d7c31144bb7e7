//! What a model costs, for people and programs.

use super::{bytes, table};
use crate::{
    inspect::{Costs, Memory, OpenSize, Weights},
    names::{clipped, shown},
};
use serde_json::{Value, json};

/// Characters of the name of an op that are shown.
const WIDE: usize = 48;

/// A count with a unit: `4.1 G`.
pub fn count(n: u64) -> String {
    const UNITS: [&str; 5] = ["k", "M", "G", "T", "P"];
    if n < 10_000 {
        return n.to_string();
    }
    let (mut value, mut unit) = (n as f64 / 1000.0, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = 2usize.saturating_sub(value.max(1.0).log10() as usize);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// What a function costs, for programs: fields of the report of a function.
pub fn costs_json(costs: &Costs) -> Value {
    serde_json::to_value(costs).unwrap_or_default()
}

/// What all constants hold, for programs.
pub fn weights_json(weights: &Weights) -> Value {
    json!({"parameters": weights.parameters, "bytes": weights.bytes, "bits_per_parameter": weights.bits_per_parameter})
}

/// What a function costs, for people: a table of sizes, and one for each thing that there is.
pub fn costs_text(costs: &Costs) -> String {
    let Costs { sizes, macs, memory, precision, weights, states } = costs;
    let mut out = String::new();
    let mut section = |title: &str, rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            out += &format!("{title}\n{}", table(&rows));
        }
    };
    section("open sizes", sizes.iter().map(size_row).collect());
    let state =
        |s: &crate::inspect::StateSize| vec![s.name.clone(), s.ty.clone(), s.bytes.map_or_else(String::new, bytes)];
    section("states", states.iter().map(state).collect());
    let share = |n: u64| format!("{:.1} %", 100.0 * n as f64 / macs.total.max(1) as f64);
    let uncounted = match macs.uncounted {
        0 => String::new(),
        n => format!(", without those of {n} ops whose sizes depend on data"),
    };
    let total = format!("multiply-accumulates: {}{uncounted}", count(macs.total));
    let by_op = macs.by_op.iter().map(|o| vec![o.op.clone(), o.count.to_string(), count(o.macs), share(o.macs)]);
    section(&total, by_op.collect());
    let busy = macs
        .top
        .iter()
        .map(|b| vec![clipped(&b.name, WIDE).into_owned(), b.op.clone(), b.ty.clone(), count(b.macs), share(b.macs)]);
    section("ops with the most", busy.collect());
    section(
        &memory_text(memory),
        vec![vec![format!("inputs {}, outputs {}", bytes(memory.inputs_bytes), bytes(memory.outputs_bytes))]],
    );
    section("ops by element type", precision.iter().map(|t| vec![t.dtype.to_owned(), t.count.to_string()]).collect());
    let kind = |k: &crate::inspect::WeightKind| {
        let bits = k.bits.map_or_else(String::new, |b| format!("{b:.2} bits each"));
        vec![k.stored.clone(), k.count.to_string(), count(k.elements), bytes(k.bytes), bits]
    };
    section("constants", weights.kinds.iter().map(kind).collect());
    out
}

/// Parameters and their bytes as a phrase.
pub fn weights_text(w: &Weights) -> String {
    let bits = w.bits_per_parameter.map_or_else(String::new, |b| format!(" of {b:.2} bits"));
    format!("{} parameters{bits}; constants take {}", count(w.parameters), bytes(w.bytes))
}

fn size_row(s: &OpenSize) -> Vec<String> {
    let max = s.max.map_or_else(|| "…".to_owned(), |m| m.to_string());
    vec![s.name.clone(), format!("{} to {max}", s.min), format!("{} by default", s.default)]
}

fn memory_text(m: &Memory) -> String {
    let at = m.at.as_ref().map_or_else(String::new, |at| format!(", at `{}`", shown(&clipped(at, WIDE))));
    let unknown = match m.unknown {
        0 => String::new(),
        n => format!(", without {n} values whose sizes depend on data"),
    };
    format!("memory of values: {} at most{at}{unknown}", bytes(m.peak_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_units() {
        let all = [0, 9_999, 10_000, 25_557_032, 4_089_184_256, u64::MAX];
        assert_eq!(all.map(count), ["0", "9999", "10.0 k", "25.6 M", "4.09 G", "18447 P"]);
    }
}
