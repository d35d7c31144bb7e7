//! The ops of a model as a list that refers to itself.

use super::macs_by_default;
use crate::diff::fixed;
use mlconv_mil::ir::{Module, OpId};
use serde::Serialize;
use std::collections::HashMap;

/// An op, constants and what is computed of them alone left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedOp {
    /// Its place in the list.
    pub index: usize,
    /// The name of its first result.
    pub name: String,
    /// Its type.
    pub op: String,
    /// The function that it is in.
    pub function: String,
    /// Element type and shape of its first result.
    #[serde(rename = "type")]
    pub ty: String,
    /// The ops of the longest chain before it.
    pub depth: usize,
    /// The places of the ops whose results it reads.
    pub reads: Vec<usize>,
    /// The nodes of the source that it comes from.
    pub place: Vec<String>,
    /// Its products that are added up, at default sizes; `None` where they depend on data, or there are none.
    pub macs: Option<u64>,
}

/// The ops of all functions of a model, in program order, those inside of branches and loops left out.
pub fn ops(module: &Module) -> Vec<ListedOp> {
    let mut out: Vec<ListedOp> = vec![];
    for f in &module.functions {
        let fixed = fixed(f);
        let mut at: HashMap<OpId, usize> = HashMap::new();
        for id in f.ops().filter(|id| !fixed.contains(id)) {
            let data = f.op_data(id);
            let mut reads: Vec<usize> = vec![];
            data.op.visit_operands(&mut |v| {
                let from = f.def_op(v).and_then(|def| at.get(&def).copied());
                reads.extend(from.filter(|from| !reads.contains(from)));
            });
            let sources = data.origin.map(|o| module.origins.sources(o)).unwrap_or_default();
            let first = data.results.first();
            out.push(ListedOp {
                index: out.len(),
                name: first.map_or_else(String::new, |v| f.value(*v).hint.to_string()),
                op: data.op.name().to_owned(),
                function: f.name.clone(),
                ty: first.map_or_else(String::new, |v| f.ty(*v).to_string()),
                depth: reads.iter().filter_map(|r| out.get(*r)).map(|op| op.depth + 1).max().unwrap_or(0),
                reads,
                place: sources.iter().map(ToString::to_string).collect(),
                macs: macs_by_default(module, f, id),
            });
            at.insert(id, out.len() - 1);
        }
    }
    out
}
