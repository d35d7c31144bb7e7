//! Ops that are not in the catalogue: of newer packages, or source nodes that have no lowering.

use crate::{
    ir::{Block, Fact, Value},
    schema::{Arg, Attr, EvalCx, Facts, InferCx, NamedArg, Op, OpError, Schema, Tensors},
};
use mlconv_tensor::{Dim, Shape, Tensor, Type};
use std::borrow::Cow;

/// An op that the catalogue does not have. It prints, it is read and written back as it is, and it refuses to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Unknown {
    /// Its name.
    pub name: String,
    /// Its arguments, in order.
    pub args: Vec<(String, UnknownArg)>,
    /// The types of its results: stated, as nothing can infer them.
    pub results: Vec<Type>,
}

/// An argument of an unknown op.
#[derive(Clone, Debug, PartialEq)]
pub enum UnknownArg {
    /// Values.
    Operands(Vec<Value>),
    /// A literal.
    Attr(Attr),
    /// A nested block.
    Region(Block),
}

static SCHEMA: Schema = Schema {
    name: "unknown",
    doc: "An op that the catalogue does not have.",
    since: crate::schema::Opset::Ios15,
    until: None,
    constexpr: false,
    elementwise: false,
    effect: crate::schema::Effect::Write,
    domains: &[],
    params: &[],
};

impl Op for Unknown {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn args(&self) -> Vec<NamedArg<'_>> {
        let arg = |a: &'_ UnknownArg| match a {
            UnknownArg::Operands(v) => Arg::Operands(Cow::Owned(v.clone())),
            UnknownArg::Attr(a) => Arg::Attr(Some(a.clone())),
            UnknownArg::Region(b) => Arg::Region(*b),
        };
        self.args.iter().map(|(name, a)| NamedArg { name, param: None, arg: arg(a) }).collect()
    }
    fn visit_operands(&self, visit: &mut dyn FnMut(Value)) {
        for (_, arg) in &self.args {
            if let UnknownArg::Operands(v) = arg {
                for v in v {
                    visit(*v);
                }
            }
        }
    }
    fn visit_operands_mut(&mut self, visit: &mut dyn FnMut(&mut Value)) {
        for (_, arg) in &mut self.args {
            if let UnknownArg::Operands(v) = arg {
                for v in v {
                    visit(v);
                }
            }
        }
    }
    fn visit_regions(&self, visit: &mut dyn FnMut(Block)) {
        for (_, arg) in &self.args {
            if let UnknownArg::Region(b) = arg {
                visit(*b);
            }
        }
    }
    fn visit_regions_mut(&mut self, visit: &mut dyn FnMut(&mut Block)) {
        for (_, arg) in &mut self.args {
            if let UnknownArg::Region(b) = arg {
                visit(b);
            }
        }
    }
    fn clone_op(&self) -> Box<dyn Op> {
        Box::new(self.clone())
    }
    fn same(&self, _: &dyn Op) -> bool {
        false
    }
    fn infer(&self, _: &InferCx<'_>) -> Result<Facts, OpError> {
        Ok(self.results.iter().cloned().map(Fact::of).collect())
    }
    fn eval(&self, _: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Err(OpError::NoKernel)
    }
    fn default_operands(&self, _: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        vec![]
    }
    fn macs(&self, _: &InferCx<'_>, _: &Shape) -> Option<Dim> {
        None
    }
}
