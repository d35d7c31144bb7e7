//! Building ops from named arguments.

use super::{Arity, Attr, AttrField, FactSource, OpError};
use crate::ir::{Block, Value};

/// Named arguments being consumed; what is left over is an error, never ignored.
#[derive(Debug)]
pub struct Args<'a> {
    facts: &'a dyn FactSource,
    operands: Vec<(String, Vec<Value>)>,
    attrs: Vec<(String, Attr)>,
    regions: Vec<(String, Block)>,
    /// Operands taken so far, for defaults that follow from them.
    taken: Vec<(&'static str, Vec<Value>)>,
}

impl<'a> Args<'a> {
    /// No arguments yet; `facts` knows the values that will be given.
    pub fn new(facts: &'a dyn FactSource) -> Self {
        Self { facts, operands: vec![], attrs: vec![], regions: vec![], taken: vec![] }
    }

    /// Binds `param` to values.
    pub fn add_operand(&mut self, param: impl Into<String>, values: Vec<Value>) {
        self.operands.push((param.into(), values));
    }

    /// Binds `param` to a literal.
    pub fn add_attr(&mut self, param: impl Into<String>, attr: Attr) {
        self.attrs.push((param.into(), attr));
    }

    /// Binds `param` to a nested block.
    pub fn add_region(&mut self, param: impl Into<String>, block: Block) {
        self.regions.push((param.into(), block));
    }

    /// Takes an operand.
    pub fn operand<T: OperandField>(&mut self, param: &'static str) -> Result<T, OpError> {
        let values = take(&mut self.operands, param).unwrap_or_default();
        self.taken.push((param, values.clone()));
        T::take(values).ok_or(OpError::Missing { param })
    }

    /// Takes an attribute that must be there.
    pub fn attr<T: AttrField>(&mut self, param: &'static str) -> Result<T, OpError> {
        let attr = take(&mut self.attrs, param).ok_or(OpError::Missing { param })?;
        read(param, attr)
    }

    /// Takes an attribute, or its default.
    pub fn attr_or<T: AttrField>(
        &mut self,
        param: &'static str,
        default: impl FnOnce(&Self) -> T,
    ) -> Result<T, OpError> {
        match take(&mut self.attrs, param) {
            Some(attr) => read(param, attr),
            None => Ok(default(self)),
        }
    }

    /// Takes a nested block.
    pub fn region(&mut self, param: &'static str) -> Result<Block, OpError> {
        take(&mut self.regions, param).ok_or(OpError::Missing { param })
    }

    /// The rank of an operand taken before; 0 where it is no tensor. For defaults.
    pub fn rank(&self, param: &str) -> usize {
        let value = self.taken.iter().find(|(n, _)| *n == param).and_then(|(_, v)| v.first());
        value.and_then(|v| self.facts.fact(*v).ty.tensor()).map_or(0, |t| t.shape.rank())
    }

    /// `value` once per spatial dimension of `x`: all axes but the first two.
    pub fn per_spatial_dim<T: Clone>(&self, value: T) -> Vec<T> {
        vec![value; self.rank("x").saturating_sub(2)]
    }

    /// Refuses what no parameter took.
    pub fn finish(self) -> Result<(), OpError> {
        let names = |v: Vec<(String, _)>| v.into_iter().next().map(|(n, _)| n);
        let left = self.operands.into_iter().map(|(n, _)| n).next();
        match left.or_else(|| self.attrs.into_iter().map(|(n, _)| n).next()).or_else(|| names(self.regions)) {
            Some(param) => Err(OpError::Unknown { param }),
            None => Ok(()),
        }
    }
}

fn take<T>(from: &mut Vec<(String, T)>, name: &str) -> Option<T> {
    let at = from.iter().position(|(n, _)| n == name)?;
    Some(from.remove(at).1)
}

fn read<T: AttrField>(param: &'static str, attr: Attr) -> Result<T, OpError> {
    let found = attr.to_string();
    T::from_attr(attr).ok_or_else(|| {
        let want = match T::choices() {
            [] => "another kind of literal".to_owned(),
            choices => format!("one of {choices:?}"),
        };
        OpError::Kind { param, found, want: want.into() }
    })
}

/// A Rust type that an op's struct may have as an operand.
pub trait OperandField: Sized {
    /// How many values it takes.
    const ARITY: Arity;
    /// The values.
    fn values(&self) -> &[Value];
    /// The values, to change.
    fn values_mut(&mut self) -> &mut [Value];
    /// Takes `values`; `None` where they are too few or too many.
    fn take(values: Vec<Value>) -> Option<Self>;
}

impl OperandField for Value {
    const ARITY: Arity = Arity::One;
    fn values(&self) -> &[Value] {
        std::slice::from_ref(self)
    }
    fn values_mut(&mut self) -> &mut [Value] {
        std::slice::from_mut(self)
    }
    fn take(values: Vec<Value>) -> Option<Self> {
        match values.as_slice() {
            [v] => Some(*v),
            _ => None,
        }
    }
}

impl OperandField for Option<Value> {
    const ARITY: Arity = Arity::Optional;
    fn values(&self) -> &[Value] {
        self.as_slice()
    }
    fn values_mut(&mut self) -> &mut [Value] {
        self.as_mut_slice()
    }
    fn take(values: Vec<Value>) -> Option<Self> {
        (values.len() <= 1).then(|| values.first().copied())
    }
}

impl OperandField for Vec<Value> {
    const ARITY: Arity = Arity::Many;
    fn values(&self) -> &[Value] {
        self
    }
    fn values_mut(&mut self) -> &mut [Value] {
        self
    }
    fn take(values: Vec<Value>) -> Option<Self> {
        Some(values)
    }
}
