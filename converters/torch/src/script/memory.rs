//! What a module keeps between calls: attributes that its methods write.
//!
//! A file has the attributes as they are before the first call. What they are in later calls is found by calling `forward`
//! again with what it left, until that changes no more: then what is known of them is the same in every call, and the rest
//! is what a call hands to the next one.

use super::value::Item;
use crate::pickle::Id;
use mlconv_source::SourceState;
use mlconv_tensor::{DType, Tensor};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

/// An attribute: the module, and its name.
pub(crate) type Key = (Id, Rc<str>);

/// What an attribute is when a call begins, or a part of it.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    /// Known, and no tensor.
    Known(Item),
    /// A tensor that is the same in every call.
    Constant(Arc<str>, Tensor),
    /// What the call before has left.
    Held(Held),
    /// Several values.
    Several(Form, Vec<Kept>),
}

/// A tensor or number that a call leaves to the next one.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Its name in the model.
    pub(crate) name: Arc<str>,
    /// Whether it is a number.
    pub(crate) is_number: bool,
    /// Its content before the first call.
    pub(crate) initial: Tensor,
}

/// What holds several values.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    Tuple,
    List,
    Named(Rc<str>),
    Dict(Vec<Item>),
}

impl Held {
    /// The value that it is when a call begins.
    pub(crate) fn before(&self) -> Arc<str> {
        format!("{}.before", self.name).into()
    }

    fn is_like(&self, other: &Self) -> bool {
        self.initial.dtype() == other.initial.dtype() && self.initial.shape() == other.initial.shape()
    }
}

impl Form {
    /// The values that an item holds, and how.
    pub(crate) fn of(item: &Item) -> Option<(Self, Vec<Item>)> {
        match item {
            Item::Tuple(v) => Some((Self::Tuple, v.to_vec())),
            Item::Named(class, v) => Some((Self::Named(class.clone()), v.to_vec())),
            Item::List(v) => Some((Self::List, v.borrow().clone())),
            Item::Dict(v) => {
                let (keys, values) = v.borrow().iter().cloned().unzip();
                Some((Self::Dict(keys), values))
            }
            _ => None,
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tuple, Self::Tuple) | (Self::List, Self::List) => true,
            (Self::Named(a), Self::Named(b)) => a == b,
            (Self::Dict(a), Self::Dict(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b) == Some(true))
            }
            _ => false,
        }
    }

    /// The item of this form that holds `items`.
    pub(crate) fn item(&self, items: Vec<Item>) -> Item {
        match self {
            Self::Tuple => Item::Tuple(items.into()),
            Self::List => Item::list(items),
            Self::Named(class) => Item::Named(class.clone(), items.into()),
            Self::Dict(keys) => Item::Dict(Rc::new(RefCell::new(keys.iter().cloned().zip(items).collect()))),
        }
    }
}

/// An item that shares no list with this one.
pub(crate) fn copied(item: &Item) -> Item {
    match Form::of(item) {
        Some((form, items)) => form.item(items.iter().map(copied).collect()),
        None => item.clone(),
    }
}

impl Kept {
    /// The item that code reads.
    pub(crate) fn item(&self) -> Item {
        match self {
            Self::Known(item) => item.clone(),
            Self::Constant(name, _) => Item::Tensor(name.clone()),
            Self::Held(held) if held.is_number => Item::Number(held.before()),
            Self::Held(held) => Item::Tensor(held.before()),
            Self::Several(form, parts) => form.item(parts.iter().map(Self::item).collect()),
        }
    }

    /// Calls `visit` with every part that holds no others.
    pub(crate) fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        match self {
            Self::Several(_, parts) => parts.iter().for_each(|p| p.visit(visit)),
            one => visit(one),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Known(a), Self::Known(b)) => a.same(b) == Some(true) || (a.truth().is_none() && b.truth().is_none()),
            (Self::Constant(_, a), Self::Constant(_, b)) => is_equal(a, b),
            (Self::Held(a), Self::Held(b)) => a.name == b.name && a.is_number == b.is_number && a.is_like(b),
            (Self::Several(f, a), Self::Several(g, b)) => {
                f.is_like(g) && a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b))
            }
            _ => false,
        }
    }

    /// What is so both when a call begins as this one and when it has left `after`. `held` is the part if calls hand it on,
    /// of the type that it has then.
    pub(crate) fn joined(&self, after: &Self) -> Result<Self, String> {
        Ok(match (self, after) {
            (Self::Several(f, a), Self::Several(g, b)) if f.is_like(g) && a.len() == b.len() => {
                let parts = a.iter().zip(b).map(|(a, b)| a.joined(b)).collect::<Result<_, _>>()?;
                Self::Several(f.clone(), parts)
            }
            (Self::Several(Form::List | Form::Dict(_), _), Self::Several(..)) => {
                return Err("is of another length after every call, and a state is not".into());
            }
            (a, b) if a.is_same(b) => a.clone(),
            (Self::Held(a), Self::Held(b)) if a.is_number == b.is_number && (a.is_number || a.is_like(b)) => {
                self.clone()
            }
            (Self::Held(a), Self::Constant(_, t)) if !a.is_number && t.shape() == a.initial.shape() => self.clone(),
            (Self::Held(a), Self::Known(item)) if a.is_number && item.number().is_some() => self.clone(),
            (Self::Held(a), Self::Held(b)) => {
                return Err(format!(
                    "is {}{:?} after one call and {}{:?} after the next, and a state is of one type",
                    a.initial.dtype(),
                    a.initial.shape(),
                    b.initial.dtype(),
                    b.initial.shape()
                ));
            }
            (Self::Held(a), other) => {
                return Err(format!("is {} after one call and {} after another", kind(a), other.kind()));
            }
            // What the first call makes, later ones find.
            (_, after) => after.clone(),
        })
    }

    fn kind(&self) -> String {
        match self {
            Self::Known(item) => item.kind().to_owned(),
            Self::Constant(_, t) => format!("{}{:?}", t.dtype(), t.shape()),
            Self::Held(held) => kind(held),
            Self::Several(..) => "several values".to_owned(),
        }
    }
}

fn kind(held: &Held) -> String {
    format!("{}{:?}", held.initial.dtype(), held.initial.shape())
}

/// Whether both are the same tensor.
pub(crate) fn is_equal(a: &Tensor, b: &Tensor) -> bool {
    a.shape() == b.shape() && a.dtype().is_float() == b.dtype().is_float() && a.to_f64() == b.to_f64()
}

/// Zeros of a type.
pub(crate) fn zeros(dtype: DType, shape: &[usize]) -> Tensor {
    Tensor::splat(dtype, shape, 0.0)
}

/// Attributes as they are when a call begins, by their paths in the model; all others are as the file has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) kept: BTreeMap<String, (Key, Kept)>,
}

impl Memory {
    /// Whether calls begin alike.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.kept.len() == other.kept.len()
            && self.kept.iter().all(|(path, (_, a))| other.kept.get(path).is_some_and(|(_, b)| a.is_same(b)))
    }

    /// What calls hand on, each once.
    pub(crate) fn held(&self) -> Vec<&Held> {
        let (mut seen, mut out) = (BTreeSet::new(), vec![]);
        for (_, kept) in self.kept.values() {
            kept.visit(&mut |part| {
                if let Kept::Held(held) = part
                    && seen.insert(held.name.clone())
                {
                    out.push(held);
                }
            });
        }
        out
    }

    /// The same as buffers of a graph.
    pub(crate) fn states(&self) -> Vec<SourceState> {
        let state = |held: &Held| SourceState {
            name: held.name.clone(),
            before: held.before(),
            after: format!("{}.after", held.name).into(),
            initial: held.initial.clone(),
        };
        self.held().into_iter().map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(i: i64) -> Kept {
        Kept::Known(Item::Int(i))
    }

    fn held(name: &str, shape: &[usize]) -> Kept {
        Kept::Held(Held { name: name.into(), is_number: false, initial: zeros(DType::F32, shape) })
    }

    #[test]
    fn what_calls_leave_settles() {
        assert!(known(1).joined(&known(1)).expect("one").is_same(&known(1)));
        let first = Kept::Known(Item::None).joined(&held("h", &[2])).expect("made by the first call");
        assert!(first.is_same(&held("h", &[2])));
        assert!(first.joined(&held("h", &[3])).expect_err("grows").contains("f32[2] after one call"));
        let list = |n: usize| Kept::Several(Form::List, vec![known(0); n]);
        assert!(list(1).joined(&list(2)).expect_err("grows").contains("another length"));
    }
}
