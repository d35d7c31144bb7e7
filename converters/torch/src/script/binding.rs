//! Arguments of operators: which values of TorchScript fit which parameters.

use super::value::Item;
use crate::{
    ops,
    schema::{Param, Signature},
};
use mlconv_source::Arg;
use mlconv_tensor::DType;
use std::rc::Rc;

/// The arguments under the names of a signature, where they fit it.
pub(super) fn bound(
    signature: &'static Signature,
    args: &[Item],
    named: &[(Rc<str>, Item)],
    in_order: bool,
) -> Option<Vec<(Option<&'static str>, usize, Arg)>> {
    // The code gives arguments in order that may only be given by name elsewhere. Those about memory, which come last, are
    // in no signature here.
    let about_memory =
        |i: &Item| matches!(i, Item::None | Item::Memory) || (in_order && matches!(i, Item::Bool(false)));
    let takes = signature.params.iter().take_while(|p| in_order || !p.by_name).count();
    if !args.iter().skip(takes).all(about_memory) {
        return None;
    }
    if named.iter().any(|(n, _)| signature.param(n).is_none() && !ops::is_about_memory(n)) {
        return None;
    }
    let mut out = vec![];
    for (i, p) in signature.params.iter().enumerate() {
        let by_name = named.iter().find(|(n, _)| **n == *p.name).map(|(_, item)| item);
        match args.get(i).filter(|_| i < takes).or(by_name) {
            Some(item) => out.push((Some(p.name), i, argument(p, item)?)),
            None if p.default.is_some() || p.ty.ends_with('?') => {}
            None => return None,
        }
    }
    Some(out)
}

/// A value as an argument of a parameter's type.
fn argument(p: &Param, item: &Item) -> Option<Arg> {
    let (ty, optional) = p.ty.strip_suffix('?').map_or((p.ty.as_str(), false), |ty| (ty, true));
    if matches!(item, Item::None) {
        return optional.then_some(Arg::None);
    }
    let plain = ty.split('[').next().unwrap_or(ty);
    let is_list = ty.ends_with(']');
    let one = |item: &Item| {
        Some(match (plain.trim_end_matches('?'), item) {
            ("Tensor", Item::Tensor(n)) => Arg::Value(n.clone()),
            ("Scalar" | "int" | "SymInt" | "float" | "bool" | "SymBool" | "SymFloat", Item::Number(n)) => {
                Arg::Value(n.clone())
            }
            ("Scalar" | "bool" | "SymBool", Item::Bool(b)) => Arg::Bool(*b),
            ("Scalar" | "int" | "SymInt", Item::Int(i)) => Arg::Int(*i),
            ("int" | "SymInt", Item::Bool(b)) => Arg::Int(i64::from(*b)),
            ("Scalar" | "float" | "SymFloat", Item::Float(x)) => Arg::Float(*x),
            ("float" | "SymFloat", Item::Int(i)) => Arg::Float(*i as f64),
            ("str", Item::Str(s)) => Arg::Str(s.to_string()),
            ("ScalarType", Item::Int(code)) => Arg::DType(dtype_of(*code)?),
            ("Device" | "Layout" | "MemoryFormat" | "Generator", _) => Arg::Other("a place in memory"),
            _ => return None,
        })
    };
    if !is_list {
        return one(item);
    }
    let items = match item.elements() {
        Some(items) => items,
        // A number stands for a list of it, where the type says how long that is.
        None if ty.chars().rev().nth(1).is_some_and(|c| c.is_ascii_digit()) => vec![item.clone()],
        None => return None,
    };
    if plain.trim_end_matches('?') == "Tensor" {
        let names = items.iter().map(|i| match i {
            Item::Tensor(n) => Some(Some(n.clone())),
            Item::None => Some(None),
            _ => None,
        });
        return Some(Arg::Values(names.collect::<Option<_>>()?));
    }
    let all: Vec<Arg> = items.iter().map(one).collect::<Option<_>>()?;
    let ints: Option<Vec<i64>> = all
        .iter()
        .map(|a| match a {
            Arg::Int(i) => Some(*i),
            Arg::Bool(b) => Some(i64::from(*b)),
            _ => None,
        })
        .collect();
    if let Some(ints) = ints {
        return Some(if plain == "float" {
            Arg::Floats(ints.iter().map(|i| *i as f64).collect())
        } else {
            Arg::Ints(ints)
        });
    }
    let floats: Option<Vec<f64>> = all.iter().map(|a| if let Arg::Float(x) = a { Some(*x) } else { None }).collect();
    Some(floats.map_or(Arg::List(all), Arg::Floats))
}

/// The element types by PyTorch's own numbers.
const TYPES: &[(i64, DType)] = &[
    (0, DType::U8),
    (1, DType::I8),
    (2, DType::I16),
    (3, DType::I32),
    (4, DType::I64),
    (5, DType::F16),
    (6, DType::F32),
    (7, DType::F64),
    (11, DType::Bool),
    (15, DType::Bf16),
];

/// The number of complex numbers of two single-precision ones.
pub(super) const COMPLEX: i64 = 9;

pub(super) fn dtype_of(code: i64) -> Option<DType> {
    TYPES.iter().find(|(c, _)| *c == code).map(|(_, d)| *d)
}

pub(super) fn code_of(dtype: DType) -> i64 {
    TYPES.iter().find(|(_, d)| *d == dtype).map_or(6, |(c, _)| *c)
}
