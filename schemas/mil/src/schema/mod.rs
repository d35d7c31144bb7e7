//! What one op is: its name, its parameters, where it exists, what it computes.

mod args;
mod attr;
mod context;
mod error;
mod opset;

pub use args::{Args, OperandField};
pub use attr::{Attr, AttrField, Floats, Ints, mil_name, parse_mil_name};
pub use context::{Broadcast, Env, EvalCx, FactSource, InferCx, Out, Rows};
pub use error::OpError;
pub use opset::Opset;

use crate::ir::{Block, Fact, Value};
use mlconv_tensor::{DType, Dim, Shape, Tensor};
use smallvec::SmallVec;
use std::{any::Any, borrow::Cow, fmt::Debug};

/// Facts of an op's results.
pub type Facts = SmallVec<[Fact; 1]>;
/// An op's results in a run.
pub type Tensors = SmallVec<[Tensor; 1]>;

/// The declaration of an op, from its struct.
#[derive(Debug)]
pub struct Schema {
    /// The op's MIL name.
    pub name: &'static str,
    /// Its documentation, from the struct's doc comment.
    pub doc: &'static str,
    /// The first op set that has it in this form.
    pub since: Opset,
    /// The first op set that has it no longer in this form.
    pub until: Option<Opset>,
    /// Whether it computes a constant from constants, and is never folded.
    pub constexpr: bool,
    /// Whether an element of the result depends on nothing but the elements at its place in the operands, which are
    /// broadcast together.
    pub elementwise: bool,
    /// What it touches besides its results.
    pub effect: Effect,
    /// Its type variables.
    pub domains: &'static [Domain],
    /// Its parameters, in order.
    pub params: &'static [Param],
}

/// What an op touches besides its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it may be removed, merged with an equal one, or moved.
    None,
    /// It reads what others write: it may be removed, not moved across a write.
    Read,
    /// It changes something: it stays where it is.
    Write,
}

/// A type variable: operands of one domain have one element type.
#[derive(Debug)]
pub struct Domain {
    /// The variable.
    pub name: &'static str,
    /// What each op set adds, in ascending order.
    pub steps: &'static [(Opset, Step)],
}

/// What an op set does to a domain.
#[derive(Debug)]
pub enum Step {
    /// Admits further element types.
    Adds(&'static [DType]),
    /// Admits every element type.
    Any,
    /// Means another variable, until the next step.
    Same(&'static str),
}

/// One parameter of an op.
#[derive(Debug)]
pub struct Param {
    /// Its name in MIL.
    pub name: &'static str,
    /// Its documentation, from the field's doc comment.
    pub doc: &'static str,
    /// The first op set that has it; `None` is the op's first.
    pub since: Option<Opset>,
    /// The first op set that has it no longer.
    pub until: Option<Opset>,
    /// What it takes.
    pub kind: ParamKind,
}

/// What a parameter takes.
#[derive(Debug)]
pub enum ParamKind {
    /// Values.
    Operand {
        /// The type variable.
        domain: &'static str,
        /// How many values.
        arity: Arity,
        /// Whether they must be constant.
        constant: Constness,
    },
    /// A literal.
    Attr {
        /// What it is where it is not given.
        default: AttrDefault,
        /// The element type it has in a file.
        dtype: AttrType,
        /// Whether a file binds it in place, where others become `const` ops.
        literal: bool,
        /// Whether a file binds each element of it to a `const` op of its own; -1 is bound to a name there.
        tuple: bool,
        /// The strings it may be; empty where it is no enumeration.
        choices: fn() -> &'static [&'static str],
    },
    /// A nested block.
    Region,
}

/// How many values an operand takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one.
    One,
    /// One or none.
    Optional,
    /// Any number.
    Many,
}

/// Whether an operand must be constant: a `const`, or the result of a `constexpr_*` op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constness {
    /// Never.
    Never,
    /// In op sets before this one.
    Below(Opset),
    /// Always.
    Always,
}

/// What an attribute is where it is not given.
#[derive(Clone, Copy, Debug)]
pub enum AttrDefault {
    /// It must be given.
    Required,
    /// This; `None` is "absent".
    Value(fn() -> Option<Attr>),
    /// What follows from the operands.
    Computed,
}

/// The element type of an attribute in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrType {
    /// `i32` for integers, `f32` for floats, `bool`, `str`.
    Natural,
    /// That of the operands of a domain.
    Domain(&'static str),
    /// This one.
    Exactly(DType),
}

impl Schema {
    /// Whether `opset` has the op in this form.
    pub fn exists_in(&self, opset: Opset) -> bool {
        self.since <= opset && self.until.is_none_or(|u| opset < u)
    }

    /// The parameter called `name`.
    pub fn param(&self, name: &str) -> Option<&'static Param> {
        self.params.iter().find(|p| p.name == name)
    }

    /// The variable that `domain` means in `opset`: itself, or what it is an alias of.
    pub fn resolve(&self, domain: &'static str, opset: Opset) -> &'static str {
        let step = self.domain(domain).and_then(|d| d.steps.iter().rfind(|(o, _)| *o <= opset));
        match step {
            Some((_, Step::Same(other))) => self.resolve(other, opset),
            Some((_, Step::Adds(_) | Step::Any)) | None => domain,
        }
    }

    /// The element types that `domain` admits in `opset`; `None` is all.
    pub fn types(&self, domain: &'static str, opset: Opset) -> Option<SmallVec<[DType; 8]>> {
        let mut out = SmallVec::new();
        for (_, step) in self.domain(self.resolve(domain, opset))?.steps.iter().filter(|(o, _)| *o <= opset) {
            match step {
                Step::Adds(types) => out.extend_from_slice(types),
                Step::Any => return None,
                Step::Same(_) => {}
            }
        }
        Some(out)
    }

    fn domain(&self, name: &str) -> Option<&'static Domain> {
        self.domains.iter().find(|d| d.name == name)
    }
}

impl Param {
    /// Whether `opset` has the parameter.
    pub fn exists_in(&self, opset: Opset) -> bool {
        self.since.is_none_or(|s| s <= opset) && self.until.is_none_or(|u| opset < u)
    }
}

impl Constness {
    /// Whether `opset` demands a constant.
    pub fn holds_in(self, opset: Opset) -> bool {
        match self {
            Self::Never => false,
            Self::Below(o) => opset < o,
            Self::Always => true,
        }
    }
}

/// One argument of an op, with its parameter.
#[derive(Debug)]
pub struct NamedArg<'a> {
    /// The parameter's name.
    pub name: &'a str,
    /// The parameter; `None` for ops that are not in the catalogue.
    pub param: Option<&'static Param>,
    /// What it is bound to.
    pub arg: Arg<'a>,
}

impl NamedArg<'_> {
    /// The values that it holds; none where it is no operand.
    pub fn operands(&self) -> &[Value] {
        match &self.arg {
            Arg::Operands(values) => values,
            Arg::Attr(_) | Arg::Region(_) => &[],
        }
    }
}

/// What a parameter is bound to.
#[derive(Debug)]
pub enum Arg<'a> {
    /// Values; none where an optional operand is absent.
    Operands(Cow<'a, [Value]>),
    /// A literal; `None` where an optional attribute is absent.
    Attr(Option<Attr>),
    /// A nested block.
    Region(Block),
}

/// Hand-written beside each op: what its declaration cannot say.
pub trait Semantics {
    /// The facts of the results. The only place that knows a result's type and shape; it must not panic, whatever the
    /// operands are.
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError>;

    /// The results: obvious, slow and exact, computed in `f64` or `i64`. The operands fit `infer`.
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        Err(OpError::NoKernel)
    }

    /// What absent operands are taken to be, where Core ML must be told.
    fn default_operands(&self, _cx: &InferCx<'_>) -> Vec<(&'static str, Tensor)> {
        vec![]
    }

    /// How many products are added up for a first result of this shape, padding included; `None` for an op that is no sum of
    /// products. Operands that do not fit `infer` may give any number.
    fn macs(&self, _cx: &InferCx<'_>, _result: &Shape) -> Option<Dim> {
        None
    }
}

/// Derived: what printer, parser, verifier, exporter and rewriter need of any op.
pub trait Op: Any + Debug + Send + Sync {
    /// The declaration.
    fn schema(&self) -> &'static Schema;
    /// The MIL name.
    fn name(&self) -> &str {
        self.schema().name
    }
    /// Every argument, in the order of the parameters.
    fn args(&self) -> Vec<NamedArg<'_>>;
    /// Calls `visit` with every operand.
    fn visit_operands(&self, visit: &mut dyn FnMut(Value));
    /// Calls `visit` with every operand, to change it; go through `Function`, which keeps the uses.
    fn visit_operands_mut(&mut self, visit: &mut dyn FnMut(&mut Value));
    /// Calls `visit` with every nested block.
    fn visit_regions(&self, visit: &mut dyn FnMut(Block));
    /// Calls `visit` with every nested block, to change it.
    fn visit_regions_mut(&mut self, visit: &mut dyn FnMut(&mut Block));
    /// A copy.
    fn clone_op(&self) -> Box<dyn Op>;
    /// Whether the other op is the same op with equal arguments.
    fn same(&self, other: &dyn Op) -> bool;
    /// See [`Semantics::infer`].
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError>;
    /// See [`Semantics::eval`].
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError>;
    /// See [`Semantics::default_operands`].
    fn default_operands(&self, cx: &InferCx<'_>) -> Vec<(&'static str, Tensor)>;
    /// See [`Semantics::macs`].
    fn macs(&self, cx: &InferCx<'_>, result: &Shape) -> Option<Dim>;
}

impl Clone for Box<dyn Op> {
    fn clone(&self) -> Self {
        self.clone_op()
    }
}

/// Derived: the declaration as a constant, and building from named arguments.
pub trait OpMeta: Op {
    /// The declaration.
    const SCHEMA: &'static Schema;
    /// Takes the op's arguments from `args`; what is left over there is the caller's error to report.
    fn build(args: &mut Args<'_>) -> Result<Box<dyn Op>, OpError>
    where
        Self: Sized;
}

/// An entry of the catalogue.
#[derive(Debug)]
pub struct OpInfo {
    /// The declaration.
    pub schema: &'static Schema,
    /// Builds the op from named arguments.
    pub build: fn(&mut Args<'_>) -> Result<Box<dyn Op>, OpError>,
}

impl OpInfo {
    /// The entry of `T`.
    pub const fn of<T: OpMeta>() -> Self {
        Self { schema: T::SCHEMA, build: T::build }
    }
}
