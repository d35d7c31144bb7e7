//! The whole of a comparison: what was compared, the six answers, and what lies behind them. Pages, Markdown and JUnit XML are made
//! of it.

use super::{VERSION, answers, diagnostic, parity};
use crate::{
    Diagnostic, Failure,
    diff::{self, Examined, Sides, Sources, State, blame, recipe::Recipe},
    golden, inspect,
    model::{self, Format},
    parity::Parity,
};
use mlconv_mil::{
    ir::{Function, Module},
    ops::{Cast, Const},
};
use mlconv_tensor::DType;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What a comparison has found.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a> {
    /// The command.
    pub command: &'static str,
    /// What was typed, which makes it again.
    pub line: &'a str,
    /// What it is about, and what it was made with: each with its role.
    pub files: &'a [(&'static str, PathBuf)],
    /// What is judged.
    pub package: &'a Module,
    /// Its outputs.
    pub parity: &'a Parity,
    /// Its values, by function; none where only outputs were compared.
    pub found: &'a [(Sides<'a>, &'a Examined)],
    /// Whether the op to blame was asked for.
    pub bisected: bool,
    /// What is typed to look for the op to blame; `None` where there is nothing to look in.
    pub bisect: Option<&'a str>,
    /// What mends it.
    pub mended: Option<&'a Recipe>,
    /// What of both was adapted or is odd.
    pub notes: &'a [Diagnostic],
}

impl Whole<'_> {
    /// All of it, for programs; see docs/json.md.
    pub fn json(&self) -> Result<Value, Failure> {
        let mut out = json!({"version": VERSION, "command": self.command});
        if let (Some(out), Some(parity)) = (out.as_object_mut(), parity(self.parity).as_object_mut()) {
            out.append(parity);
        }
        out["made_by"] = json!({
            "program": format!("mlconv {}", env!("CARGO_PKG_VERSION")),
            "command": self.line,
        });
        out["bisect"] = json!(self.bisect);
        out["notes"] = self.notes.iter().chain(&self.parity.notes).map(diagnostic).collect::<Vec<_>>().into();
        out["files"] = self.files.iter().map(|(role, path)| file(role, path)).collect::<Result<Vec<_>, _>>()?.into();
        out["model"] = summary(self.package);
        let mut ops: Vec<Value> = vec![];
        for (sides, one) in self.found {
            let mut rows = diff::ops_json(*sides, &one.bisection, ops.len());
            for (row, op) in rows.iter_mut().zip(&one.bisection.walk.ops) {
                row["macs"] = json!(inspect::macs_by_default(sides.b, sides.g, op.op));
            }
            ops.append(&mut rows);
        }
        out["ops"] = ops.into();
        out["weights"] = self.weights().into();
        out["bisection"] = self.bisection();
        out["answers"] = answers::json(self);
        Ok(out)
    }

    /// The function that has an op to blame, or that is not exact, or the first.
    pub(super) fn worst(&self) -> Option<(Sides<'_>, &Examined)> {
        let found = self.found.iter().find(|(_, one)| !one.bisection.culprits.is_empty());
        let is_off = |s: &State| !matches!(s, State::Exact | State::NotCompared);
        let off = || self.found.iter().find(|(_, one)| one.bisection.states.iter().any(is_off));
        found.or_else(off).or(self.found.first()).map(|(sides, one)| (*sides, *one))
    }

    fn bisection(&self) -> Value {
        let Some((sides, one)) = self.worst().filter(|_| self.bisected) else { return Value::Null };
        let before = self.found.iter().take_while(|(_, other)| !std::ptr::eq(*other, one));
        let first = before.map(|(_, other)| other.bisection.walk.ops.len()).sum();
        diff::bisection_json(sides, &one.bisection, self.mended, first)
    }

    /// Weights that are compressed, by the op that reads them.
    fn weights(&self) -> Vec<Value> {
        let (mut out, mut first) = (vec![], 0);
        for (sides, one) in self.found {
            let (g, fixed, of_source) = (sides.g, diff::fixed(sides.g), Sources::of(*sides));
            for (at, op) in one.bisection.walk.ops.iter().enumerate() {
                for w in blame::compressed(g, &fixed, op.op) {
                    let count =
                        g.ty(w.weight).tensor().and_then(|t| t.shape.known()).map(|d| d.iter().product::<usize>());
                    let bytes = count.map(|n| (n as f64 * w.bits / 8.0).round());
                    let width = g.ty(w.weight).tensor().map_or(16, |t| t.dtype.bits());
                    out.push(json!({
                        "name": &*g.value(w.weight).hint,
                        "type": g.ty(w.weight).to_string(),
                        "op": first + at,
                        "scheme": w.form.trim_start_matches("constexpr_"),
                        "bits": w.bits,
                        "bytes": bytes.map(|b| b as u64),
                        "bytes_source": count.map(|n| n as u64 * width as u64 / 8),
                        "snr_db": of_source.snr_db(w.weight),
                    }));
                }
            }
            first += one.bisection.walk.ops.len();
        }
        out
    }
}

/// A file with its size and hash.
fn file(role: &str, path: &Path) -> Result<Value, Failure> {
    let format = model::format(path).ok().map(Format::name).filter(|_| !matches!(role, "sample" | "labels" | "golden"));
    Ok(json!({
        "role": role,
        "path": path.display().to_string(),
        "format": format,
        "bytes": model::size(path),
        "sha256": golden::hash(path).map_err(|d| vec![d])?,
    }))
}

/// What there is to know of a package in a line.
fn summary(package: &Module) -> Value {
    let ops = || package.functions.iter().flat_map(|f| f.all_ops().into_iter().map(move |id| (f, id)));
    let of = |dtype: DType| ops().filter(|(f, id)| computes_in(f, *id) == Some(dtype)).count();
    let bytes: usize = ops().filter_map(|(f, id)| Some(f.op::<Const>(id)?.val.blob().len())).sum();
    json!({
        "ops": package.functions.iter().map(crate::convert::op_count).sum::<usize>(),
        "weights_bytes": bytes,
        "target": package.functions.first().map(|f| f.opset.name()),
        "precision": {"fp16": of(DType::F16), "fp32": of(DType::F32)},
    })
}

/// The float type that an op computes in. What decodes a weight, and what only gives an input or an output
/// the type of the interface, computes nothing.
pub(super) fn computes_in(f: &Function, id: mlconv_mil::ir::OpId) -> Option<DType> {
    let data = f.op_data(id);
    let float = |v: &mlconv_mil::ir::Value| f.ty(*v).tensor().map(|t| t.dtype).filter(|d| d.is_float());
    let is_edge = |cast: &Cast| f.inputs().contains(&cast.x) || data.results.iter().any(|v| f.outputs().contains(v));
    let computes = f.op::<Const>(id).is_none() && !data.op.schema().constexpr && !f.op::<Cast>(id).is_some_and(is_edge);
    data.results.iter().find_map(float).filter(|_| computes)
}
