//! The op catalogue as the rules see it.

use super::opset_from_name;
use crate::{OpSignature, Param, Signatures};
use mlconv_mil::{
    ops,
    schema::{Arity, AttrDefault, ParamKind},
};

/// Signatures from the op catalogue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Catalogue;

impl Signatures for Catalogue {
    fn signature(&self, op_type: &str, opset: &str) -> Option<OpSignature> {
        let opset = opset_from_name(opset)?;
        let schema = ops::by_name(op_type, opset)?.schema;
        if !schema.exists_in(opset) {
            return None;
        }
        let param = |p: &mlconv_mil::schema::Param| match &p.kind {
            ParamKind::Operand { arity, constant, .. } => {
                Some(Param { name: p.name, required_in_file: *arity == Arity::One, constant: constant.holds_in(opset) })
            }
            ParamKind::Attr { default, .. } => Some(Param {
                name: p.name,
                // What has a default there is only a convenience of other tools; Core ML wants it bound.
                required_in_file: match default {
                    AttrDefault::Required | AttrDefault::Computed => true,
                    AttrDefault::Value(v) => v().is_some(),
                },
                constant: true,
            }),
            ParamKind::Region => None,
        };
        let params = schema.params.iter().filter(|p| p.exists_in(opset)).filter_map(param).collect();
        Some(OpSignature { params })
    }
}
