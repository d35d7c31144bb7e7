//! The program's outer structure.

use super::{Artifact, Findings, view::OPSETS};
use crate::program;

pub(super) fn opset(a: &Artifact<'_>, out: &mut Findings) {
    let Some((want, _)) = OPSETS.iter().find(|(_, version)| *version == a.version()) else {
        out.add("specificationVersion", format!("{}, not 6 to 10", a.version()));
        return;
    };
    for body in a.bodies.iter().filter(|b| b.function.opset != *want) {
        out.add(body.name, format!("`{}` in version {}, which has `{want}`", body.function.opset, a.version()));
    }
}

pub(super) fn body(a: &Artifact<'_>, out: &mut Findings) {
    let program = match program(a.model) {
        Ok(program) => program,
        Err(e) => return out.add("model", e.to_string()),
    };
    if program.version != 1 {
        out.add("program", format!("version {}", program.version));
    }
    if program.functions.is_empty() {
        out.add("program", "no function");
    }
    for (name, function) in &program.functions {
        let keys: Vec<&String> = function.block_specializations.keys().collect();
        if keys != [&function.opset] {
            out.add(name, format!("bodies for {keys:?} in opset `{}`", function.opset));
        }
        if function.block_specializations.values().any(|b| !b.inputs.is_empty()) {
            out.add(name, "a body with arguments");
        }
    }
}
