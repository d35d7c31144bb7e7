//! Names: how they are spelled, that they are unique, and that they are defined before use.

use super::{
    Artifact, Findings,
    view::{Body, name_of, reads},
};
use mlconv_proto::coreml::mil;
use std::collections::BTreeSet;

/// Words of the text that a program is compiled to: they do not parse as names. The first two lines are those that
/// coremltools avoids; the third holds the other types and the word for a blob.
const WORDS: &[&str] = &[
    "any",
    "bool",
    "dict",
    "false",
    "func",
    "list",
    "program",
    "state",
    "string",
    "tensor",
    "true",
    "tuple", //
    "bf16",
    "fp16",
    "fp32",
    "fp64",
    "int16",
    "int32",
    "int64",
    "int8",
    "uint16",
    "uint32",
    "uint64",
    "uint8", //
    "BLOBFILE",
    "fp8e4m3fn",
    "fp8e5m2",
    "int4",
    "uint1",
    "uint2",
    "uint3",
    "uint4",
    "uint6",
];

/// Whether Core ML takes `name` as that of a value or function.
pub fn is_identifier(name: &str) -> bool {
    spells_identifier(name) && !WORDS.contains(&name)
}

fn spells_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The values of a function, each once for every place that defines it.
fn values<'a>(body: &Body<'a>) -> impl Iterator<Item = &'a mil::NamedValueType> {
    let ops = body.ops.iter().flat_map(|o| o.outputs.iter().chain(o.blocks.iter().flat_map(|b| &b.inputs)));
    body.function.inputs.iter().chain(ops)
}

pub(super) fn spelling(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        if !is_identifier(body.name) {
            out.add(body.name, format!("`{}`", body.name));
        }
        for v in values(body).filter(|v| !is_identifier(&v.name)) {
            out.add(body.value(&v.name), format!("`{}`", v.name));
        }
        for name in body.ops.iter().filter_map(|o| name_of(o)).filter(|n| !spells_identifier(n)) {
            out.add(body.value(name), format!("`{name}`"));
        }
    }
}

pub(super) fn unique(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        let (mut seen, mut named) = (BTreeSet::new(), BTreeSet::new());
        for v in values(body).filter(|v| !seen.insert(v.name.as_str())) {
            out.add(body.value(&v.name), "two values");
        }
        for name in body.ops.iter().filter_map(|o| name_of(o)).filter(|n| !named.insert(*n)) {
            out.add(body.value(name), "two operations");
        }
    }
}

pub(super) fn order(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        let mut known: BTreeSet<&str> = body.function.inputs.iter().map(|v| v.name.as_str()).collect();
        if let Some(block) = body.block {
            in_order(body, block, &mut known, out);
        }
    }
}

/// `known` is as before when a block ends: its values are not seen outside.
fn in_order<'a>(body: &Body<'_>, block: &'a mil::Block, known: &mut BTreeSet<&'a str>, out: &mut Findings) {
    let mut own: Vec<&str> = vec![];
    let define = |name: &'a str, known: &mut BTreeSet<&'a str>, own: &mut Vec<&'a str>| {
        if known.insert(name) {
            own.push(name);
        }
    };
    for v in &block.inputs {
        define(&v.name, known, &mut own);
    }
    for op in &block.operations {
        for name in reads(op).filter(|n| !known.contains(n)) {
            out.add(body.place(op), format!("`{name}` is not defined before"));
        }
        for inner in &op.blocks {
            in_order(body, inner, known, out);
        }
        for v in &op.outputs {
            define(&v.name, known, &mut own);
        }
    }
    for name in block.outputs.iter().filter(|n| !known.contains(n.as_str())) {
        out.add(body.value(name), "returned and not defined");
    }
    for name in own {
        known.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for name in ["x", "_", "_1", "Tensor", "x_1", "int5"] {
            assert!(is_identifier(name), "{name}");
        }
        for name in ["", "1", "a.b", "a b", "é", "tensor", "BLOBFILE", "uint3", "a@b"] {
            assert!(!is_identifier(name), "{name}");
        }
    }
}
