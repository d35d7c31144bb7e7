//! What must be known before a program runs, and operations that decompress weights.

use super::{
    Artifact, Findings,
    view::{Body, bindings, is_constexpr, show, tensor},
};
use mlconv_proto::coreml::mil;

struct Weight {
    /// `None` for every operation with such a parameter.
    ops: Option<&'static [&'static str]>,
    params: &'static [&'static str],
    /// The version from which the parameter may vary.
    until: i32,
}

const NEVER: i32 = i32::MAX;

const WEIGHTS: &[Weight] = &[
    Weight { ops: None, params: &["axes", "axis", "perm"], until: NEVER },
    Weight {
        ops: Some(&["batch_norm", "instance_norm", "layer_norm"]),
        params: &["gamma", "beta", "mean", "variance", "epsilon"],
        until: NEVER,
    },
    Weight { ops: Some(&["conv", "conv_transpose"]), params: &["pad", "strides", "dilations"], until: NEVER },
    Weight {
        ops: Some(&["avg_pool", "l2_pool", "max_pool"]),
        params: &["pad", "strides", "kernel_sizes"],
        until: NEVER,
    },
    Weight { ops: Some(&["conv", "conv_transpose"]), params: &["bias"], until: 8 },
    Weight { ops: Some(&["conv_transpose"]), params: &["weight"], until: 8 },
    Weight { ops: Some(&["linear"]), params: &["weight", "bias"], until: NEVER },
];

pub(super) fn weights(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        for op in body.ops.iter().copied() {
            let applies =
                |w: &&Weight| w.ops.is_none_or(|ops| ops.contains(&op.r#type.as_str())) && !body.since(w.until);
            for param in WEIGHTS.iter().filter(applies).flat_map(|w| w.params) {
                constant(body, op, param, out);
            }
        }
    }
}

pub(super) fn parameters(a: &Artifact<'_>, out: &mut Findings) {
    let Some(signatures) = a.signatures else { return };
    for body in &a.bodies {
        for op in body.ops.iter().copied() {
            let Some(signature) = signatures.signature(&op.r#type, &body.function.opset) else { continue };
            for param in signature.params.iter().filter(|p| p.constant) {
                constant(body, op, param.name, out);
            }
        }
    }
}

fn constant(body: &Body<'_>, op: &mil::Operation, param: &str, out: &mut Findings) {
    if bindings(op, param).any(|b| !body.is_constant(b)) {
        out.add(body.place(op), format!("`{param}` is computed"));
    }
}

/// Versions in which an operation exists.
const CONSTEXPRS: &[(&str, std::ops::RangeInclusive<i32>)] = &[
    ("constexpr_affine_dequantize", 7..=8),
    ("constexpr_blockwise_shift_scale", 9..=i32::MAX),
    ("constexpr_cast", 7..=i32::MAX),
    ("constexpr_lut_to_dense", 7..=i32::MAX),
    ("constexpr_lut_to_sparse", 9..=i32::MAX),
    ("constexpr_sparse_blockwise_shift_scale", 9..=i32::MAX),
    ("constexpr_sparse_to_dense", 7..=i32::MAX),
];

pub(super) fn constexprs(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        let Some(version) = body.version() else { continue };
        for op in body.ops.iter().copied().filter(|op| is_constexpr(&op.r#type)) {
            let exists = CONSTEXPRS.iter().any(|(name, versions)| *name == op.r#type && versions.contains(&version));
            if !exists {
                out.add(body.place(op), format!("no operation of {}", body.function.opset));
            }
            let by_attribute = op.attributes.keys().any(|k| k != "name");
            let by_input = !op.inputs.is_empty();
            if (version < 9 && by_input) || (version >= 9 && by_attribute) {
                let how = if by_input { "inputs" } else { "attributes" };
                out.add(body.place(op), format!("parameters are {how} in {}", body.function.opset));
            }
        }
    }
}

pub(super) fn compressed(a: &Artifact<'_>, out: &mut Findings) {
    for body in &a.bodies {
        // A cast widens and saves no more than half.
        let compresses = |op: &&mil::Operation| is_constexpr(&op.r#type) && op.r#type != "constexpr_cast";
        for op in body.ops.iter().copied().filter(compresses) {
            for v in &op.outputs {
                let low = v.r#type.as_ref().and_then(tensor).is_some_and(|t| t.dims.len() < 2);
                if low && body.users(&v.name).iter().any(|u| !is_constexpr(&u.r#type)) {
                    out.add(body.value(&v.name), show(v.r#type.as_ref()));
                }
            }
        }
    }
}
