//! Values of TorchScript while it is interpreted.

use super::syntax::Function;
use crate::pickle::Id;
use std::{cell::RefCell, fmt, rc::Rc, sync::Arc};

/// Nesting of containers, and their parts, beyond which code is refused.
const MAX_NESTING: usize = 32;
const MAX_PARTS: usize = 1 << 16;

/// A value: known, or a name in the graph that is being made.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    /// A tensor.
    Tensor(Arc<str>),
    /// A number or boolean that is known only when the program runs.
    Number(Arc<str>),
    List(Rc<RefCell<Vec<Item>>>),
    Tuple(Rc<[Item]>),
    Dict(Rc<RefCell<Vec<(Item, Item)>>>),
    /// A module of the model.
    Module(Id),
    /// A function of the model.
    Function(Rc<Function>, Rc<str>),
    /// A named tuple: its class and its elements.
    Named(Rc<str>, Rc<[Item]>),
    /// A place in memory, a layout, a generator: nothing that a program computes.
    Memory,
    /// What is declared and never read.
    Uninitialized,
}

impl Item {
    pub(crate) fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(RefCell::new(items)))
    }

    /// Whether it is true, where that is known.
    pub(crate) fn truth(&self) -> Option<bool> {
        match self {
            Self::None => Some(false),
            Self::Bool(b) => Some(*b),
            Self::Int(i) => Some(*i != 0),
            Self::Float(x) => Some(*x != 0.0),
            Self::Str(s) => Some(!s.is_empty()),
            Self::List(v) => Some(!v.borrow().is_empty()),
            Self::Dict(v) => Some(!v.borrow().is_empty()),
            Self::Tuple(v) => Some(!v.is_empty()),
            Self::Module(_) | Self::Function(..) | Self::Named(..) => Some(true),
            Self::Tensor(_) | Self::Number(_) | Self::Memory | Self::Uninitialized => None,
        }
    }

    /// The number, where it is a known one.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Bool(b) => Some(f64::from(u8::from(*b))),
            Self::Int(i) => Some(*i as f64),
            Self::Float(x) => Some(*x),
            _ => None,
        }
    }

    pub(crate) fn int(&self) -> Option<i64> {
        match self {
            Self::Bool(b) => Some(i64::from(*b)),
            Self::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The elements of a list or tuple.
    pub(crate) fn elements(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(v) => Some(v.borrow().clone()),
            Self::Tuple(v) | Self::Named(_, v) => Some(v.to_vec()),
            _ => None,
        }
    }

    /// Whether two known values are equal; `None` where one is not known.
    pub(crate) fn same(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::None, Self::None) => Some(true),
            (Self::Str(a), Self::Str(b)) => Some(a == b),
            (Self::Tensor(_) | Self::Number(_), Self::None) | (Self::None, Self::Tensor(_) | Self::Number(_)) => {
                Some(false)
            }
            (Self::Tensor(_) | Self::Number(_) | Self::Uninitialized, _)
            | (_, Self::Tensor(_) | Self::Number(_) | Self::Uninitialized) => None,
            (Self::Module(a), Self::Module(b)) => Some(a == b),
            (a, b) => match (a.number(), b.number(), a.elements(), b.elements()) {
                (Some(a), Some(b), ..) => Some(a == b),
                (_, _, Some(a), Some(b)) if a.len() == b.len() => {
                    a.iter().zip(&b).try_fold(true, |all, (a, b)| Some(all && a.same(b)?))
                }
                _ => Some(false),
            },
        }
    }

    /// How many parts it has, those of its parts with them; `None` where they are too many, or hold themselves.
    ///
    /// Few statements can make containers that come to more than memory holds, as each of them holds the one before twice.
    pub(crate) fn parts(&self) -> Option<usize> {
        fn count(item: &Item, depth: usize, all: &mut usize) -> Option<()> {
            *all += 1;
            if depth > MAX_NESTING || *all > MAX_PARTS {
                return None;
            }
            let mut each = |items: &[Item]| items.iter().try_for_each(|i| count(i, depth + 1, all));
            match item {
                Item::List(v) => each(&v.borrow()),
                Item::Tuple(v) | Item::Named(_, v) => each(v),
                Item::Dict(v) => v.borrow().iter().try_for_each(|(k, v)| {
                    count(k, depth + 1, all)?;
                    count(v, depth + 1, all)
                }),
                Item::Str(s) => (s.len() <= MAX_PARTS).then_some(()),
                _ => Some(()),
            }
        }
        let mut all = 0;
        count(self, 0, &mut all)?;
        Some(all)
    }

    /// What it is, in a word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Str(_) => "a text",
            Self::Tensor(_) => "a tensor",
            Self::Number(_) => "a number that is known late",
            Self::List(_) => "a list",
            Self::Tuple(_) | Self::Named(..) => "a tuple",
            Self::Dict(_) => "a dictionary",
            Self::Module(_) => "a module",
            Self::Function(..) => "a function",
            Self::Memory => "a place in memory",
            Self::Uninitialized => "nothing yet",
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Self]| {
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                item.fmt(f)?;
            }
            Ok(())
        };
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(b) => f.write_str(if *b { "True" } else { "False" }),
            Self::Int(i) => i.fmt(f),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Str(s) => f.write_str(s),
            Self::Tensor(name) | Self::Number(name) => write!(f, "%{name}"),
            Self::List(v) => {
                f.write_str("[")?;
                list(f, &v.borrow())?;
                f.write_str("]")
            }
            Self::Tuple(v) | Self::Named(_, v) => {
                f.write_str("(")?;
                list(f, v)?;
                f.write_str(")")
            }
            other => f.write_str(other.kind()),
        }
    }
}
