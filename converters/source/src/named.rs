//! Arguments by name, of formats whose operators have signatures.

use crate::{Arg, Entry, Lower, LowerError, Size};
use mlconv_mil::ir::Value;
use mlconv_tensor::{DType, Tensor};
use std::sync::Arc;

type Result<T, E = LowerError> = std::result::Result<T, E>;

impl Lower<'_> {
    /// Whether an argument is given, and not as nothing.
    pub fn has(&self, name: &'static str) -> bool {
        self.attr(name).is_some()
    }

    /// The value of an argument; a number is a constant without axes.
    pub fn value(&mut self, name: &'static str) -> Result<Value> {
        self.maybe(name)?.ok_or(LowerError::MissingAttr { name })
    }

    /// The value of an argument, where it is given.
    pub fn maybe(&mut self, name: &'static str) -> Result<Option<Value>> {
        match self.attr(name) {
            None => Ok(None),
            Some(arg) => self.as_value(name, arg).map(Some),
        }
    }

    /// The values of an argument that is a list.
    pub fn values(&mut self, name: &'static str) -> Result<Vec<Value>> {
        let all = self.maybe_values(name)?;
        all.into_iter().map(|v| v.ok_or(LowerError::MissingAttr { name })).collect()
    }

    /// The values of an argument that is a list, of which some may be absent.
    pub fn maybe_values(&mut self, name: &'static str) -> Result<Vec<Option<Value>>> {
        match self.attr(name) {
            None => Ok(vec![]),
            Some(Arg::Values(names)) => {
                let mut out = vec![];
                for name in names {
                    out.push(name.as_ref().map(|n| self.named(n)).transpose()?);
                }
                Ok(out)
            }
            Some(Arg::List(all)) => all
                .iter()
                .map(|a| if matches!(a, Arg::None) { Ok(None) } else { self.as_value(name, a).map(Some) })
                .collect(),
            Some(Arg::Ints(all)) => all.iter().map(|i| self.const_int(*i).map(Some)).collect(),
            Some(other) => Self::wrong(name, other, "values"),
        }
    }

    fn named(&mut self, name: &Arc<str>) -> Result<Value> {
        let block = self.block;
        self.state.value(name, block)
    }

    fn as_value(&mut self, name: &'static str, arg: &Arg) -> Result<Value> {
        match arg {
            Arg::Value(v) => self.named(v),
            Arg::Int(i) => self.const_int(*i),
            Arg::Bool(b) => self.add_const(Tensor::from_bools(&[], [*b])),
            Arg::Float(x) => self.const_scalar(DType::F32, *x),
            other => Self::wrong(name, other, "a value"),
        }
    }

    /// An argument as the source has it, before types are narrowed, where it is a constant tensor.
    pub fn given_tensor(&self, name: &'static str) -> Result<Option<Tensor>> {
        let Some(Arg::Value(v)) = self.attr(name) else { return Ok(None) };
        match self.state.entry(v) {
            Some(Entry::Const(t)) => Ok(Some(t.clone())),
            Some(Entry::Value(v)) => Ok(self.state.f.constant(*v).cloned()),
            Some(Entry::Poisoned) => Err(LowerError::Poisoned),
            _ => Ok(None),
        }
    }

    /// Whether an argument is a number, not a tensor.
    pub fn is_number(&self, name: &'static str) -> bool {
        matches!(self.attr(name), Some(Arg::Int(_) | Arg::Float(_) | Arg::Bool(_)))
    }

    /// The element type that an argument has in the source, where that is known.
    pub fn dtype_of(&self, name: &'static str) -> Option<DType> {
        match self.attr(name)? {
            Arg::Value(v) => match self.state.entry(v) {
                Some(Entry::Const(t)) => Some(t.dtype()),
                _ => self.state.stated(v).map(|t| t.dtype),
            },
            _ => None,
        }
    }

    /// An argument that is an element type.
    pub fn dtype_arg(&self, name: &'static str) -> Result<Option<DType>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Arg::DType(d)) => Ok(Some(*d)),
            Some(other) => Self::wrong(name, other, "an element type"),
        }
    }

    /// A number in double precision, where it is given.
    pub fn number(&self, name: &'static str) -> Result<Option<f64>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Arg::Float(x)) => Ok(Some(*x)),
            Some(Arg::Int(i)) => Ok(Some(*i as f64)),
            Some(Arg::Bool(b)) => Ok(Some(f64::from(u8::from(*b)))),
            Some(arg @ Arg::Value(v)) => {
                let known = match self.state.entry(v) {
                    Some(Entry::Const(t)) if t.count() == 1 => t.to_f64().first().copied(),
                    Some(Entry::Value(v)) => {
                        self.state.f.constant(*v).filter(|t| t.count() == 1).and_then(|t| t.to_f64().first().copied())
                    }
                    _ => None,
                };
                match known.or(self.known_number(arg)?.map(|i| i as f64)) {
                    Some(x) => Ok(Some(x)),
                    None => Err(LowerError::NotKnown { name }),
                }
            }
            Some(other) => Self::wrong(name, other, "a number"),
        }
    }

    /// A list of sizes, of which each may be a number or held by a value.
    pub fn sizes_arg(&mut self, name: &'static str) -> Result<Option<Vec<Size>>> {
        let Some(arg) = self.attr(name) else { return Ok(None) };
        let all = match arg {
            Arg::Ints(v) => return Ok(Some(v.iter().map(|n| Size::Known(*n)).collect())),
            Arg::List(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        all.iter().map(|a| self.size_arg(name, a)).collect::<Result<_>>().map(Some)
    }

    /// A size, which may be a number or held by a value.
    pub fn size(&mut self, name: &'static str) -> Result<Option<Size>> {
        let Some(arg) = self.attr(name) else { return Ok(None) };
        self.size_arg(name, arg).map(Some)
    }

    fn size_arg(&mut self, name: &'static str, arg: &Arg) -> Result<Size> {
        if let Some(n) = self.known_number(arg)? {
            return Ok(Size::Known(n));
        }
        self.as_value(name, arg).map(Size::Held)
    }

    /// The integer that an argument is known to be.
    pub(crate) fn known_number(&self, arg: &Arg) -> Result<Option<i64>> {
        match arg {
            Arg::Int(i) => Ok(Some(*i)),
            Arg::Bool(b) => Ok(Some(i64::from(*b))),
            Arg::Value(name) => match self.state.entry(name) {
                Some(Entry::Const(t)) if t.count() == 1 && !t.dtype().is_float() => Ok(t.to_i64().first().copied()),
                Some(Entry::Value(v)) => {
                    Ok(self.known_ints(*v).filter(|ints| ints.len() == 1).and_then(|ints| ints.first().copied()))
                }
                Some(Entry::Poisoned) => Err(LowerError::Poisoned),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }
}
