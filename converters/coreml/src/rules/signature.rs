//! Operations against the signatures that the catalogue of operations knows.

use super::{
    Artifact, Findings,
    view::{Body, is_constexpr},
};
use mlconv_proto::coreml::mil;

/// What is known of operations' parameters.
pub trait Signatures {
    /// The parameters of `op_type` in `opset`, such as `CoreML7`; `None` where the opset has no such operation.
    fn signature(&self, op_type: &str, opset: &str) -> Option<OpSignature>;
}

/// The parameters of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpSignature {
    /// In any order.
    pub params: Vec<Param>,
}

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Whether a program must bind it, be it only to a default.
    pub required_in_file: bool,
    /// Whether it must be known before the program runs.
    pub constant: bool,
}

/// Each operation with its signature; `const` has none, and is a form rather than an operation.
fn each<'a>(a: &'a Artifact<'_>, visit: &mut dyn FnMut(&Body<'a>, &'a mil::Operation, Option<OpSignature>)) {
    let Some(signatures) = a.signatures else { return };
    for body in &a.bodies {
        for op in body.ops.iter().copied().filter(|op| op.r#type != "const") {
            visit(body, op, signatures.signature(&op.r#type, &body.function.opset));
        }
    }
}

/// Whether a program gives the parameter: constexpr operations of old opsets take theirs as attributes.
fn gives(op: &mil::Operation, param: &str) -> bool {
    let input = op.inputs.get(param).is_some_and(|arg| !arg.arguments.is_empty());
    input || (is_constexpr(&op.r#type) && op.attributes.contains_key(param))
}

pub(super) fn bound(a: &Artifact<'_>, out: &mut Findings) {
    each(a, &mut |body, op, signature| {
        for param in signature.iter().flat_map(|s| &s.params).filter(|p| p.required_in_file) {
            if !gives(op, param.name) {
                out.add(body.place(op), format!("`{}` is not bound", param.name));
            }
        }
    });
}

pub(super) fn known(a: &Artifact<'_>, out: &mut Findings) {
    each(a, &mut |body, op, signature| {
        let Some(signature) = signature else {
            return out.add(body.place(op), format!("{} has no `{}`", body.function.opset, op.r#type));
        };
        let attributes = op.attributes.keys().filter(|k| is_constexpr(&op.r#type) && *k != "name");
        for given in op.inputs.keys().chain(attributes) {
            if !signature.params.iter().any(|p| p.name == given) {
                out.add(body.place(op), format!("`{}` has no `{given}` in {}", op.r#type, body.function.opset));
            }
        }
    });
}
