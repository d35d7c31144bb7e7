//! The end of a call: what it returns, and what it leaves to the next one.

use super::{
    super::{
        archive::Script,
        branches::alike,
        memory::{Form, Held, Kept, Key, Memory, is_equal, zeros},
        stated,
        value::Item,
        written_input,
    },
    Interpreter, Result,
};
use crate::{complex::no_output, pickle::Id, pt2::ReadError};
use mlconv_source::{Lowering, SourceType, SourceValue};
use mlconv_tensor::{DType, Tensor};
use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

/// An output, with the value that is to be called so.
struct Ended {
    name: Arc<str>,
    value: Option<Arc<str>>,
    ty: Option<SourceType>,
}

impl Interpreter {
    /// Ends with what `forward` returned: each tensor of it is an output. So is what it leaves in the caller's tensors.
    pub(crate) fn finish(mut self, result: &Item) -> (Lowering, Script) {
        let mut returned = vec![];
        self.returned(result, "", &mut returned);
        let mut used: BTreeSet<Arc<str>> = self.inputs.iter().cloned().collect();
        let mut outputs: Vec<Ended> = vec![];
        let mut values = vec![];
        for (title, name) in returned {
            let now = self.now(&name);
            if self.complex.is_complex(&now) {
                self.walk.fail(no_output(&now));
                return (self.walk.finish(vec![], &[]), self.script);
            }
            values.push(now.clone());
            outputs.push(self.output(&mut used, if title.is_empty() { now.clone() } else { title.into() }, &now));
        }
        for name in self.inputs.clone() {
            let now = self.functional.left(&name);
            self.flush();
            if now != name && !values.contains(&now) {
                self.walk.warn(written_input(&name));
                outputs.push(self.output(&mut used, format!("{name}_out").into(), &now));
            }
        }
        let mut after = self.handed_on();
        for name in &mut after {
            *name = self.aside(name);
        }
        // What an output is called may be what another value is called.
        let mut all = vec![];
        for Ended { name, value, ty } in outputs {
            if let Some(value) = value {
                self.walk.also(name.clone(), &value);
            }
            all.push(SourceValue { name, ty, other: None, description: String::new() });
        }
        (self.walk.finish(all, &after), self.script)
    }

    /// Ends where something stands in the way.
    pub(crate) fn stop(self) -> (Lowering, Option<Memory>, Script) {
        (self.walk.finish(vec![], &[]), None, self.script)
    }

    /// An output of a name that none has yet.
    fn output(&mut self, used: &mut BTreeSet<Arc<str>>, wanted: Arc<str>, value: &Arc<str>) -> Ended {
        let mut name = wanted.clone();
        while !used.insert(name.clone()) {
            name = format!("{wanted}_again{}", used.len()).into();
        }
        let ty = stated(self.walk.dtype(value));
        let value = if name == *value { None } else { Some(self.aside(value)) };
        Ended { name, value, ty }
    }

    /// A further name for a value, which no output takes.
    fn aside(&mut self, value: &Arc<str>) -> Arc<str> {
        let name = self.fresh(&format!("{value}_ended"));
        self.walk.also(name.clone(), value);
        name
    }

    /// What was returned: tensors with the names that keys and fields give them.
    fn returned(&mut self, item: &Item, title: &str, out: &mut Vec<(String, Arc<str>)>) {
        let of = |part: &str| if title.is_empty() { part.to_owned() } else { format!("{title}_{part}") };
        match item {
            Item::Tensor(name) | Item::Number(name) => out.push((title.to_owned(), name.clone())),
            Item::Bool(_) | Item::Int(_) | Item::Float(_) => {
                if let Item::Tensor(name) = self.literal(item) {
                    out.push((title.to_owned(), name));
                }
            }
            Item::Dict(d) => {
                for (key, item) in d.borrow().clone() {
                    self.returned(&item, &of(&key.to_string()), out);
                }
            }
            Item::Named(class, items) => {
                let fields =
                    |c: &super::super::syntax::Class| c.fields.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
                let fields = self.script.class(class, fields).ok().flatten().unwrap_or_default();
                for (i, item) in items.iter().enumerate() {
                    let field = fields.get(i).cloned().unwrap_or_else(|| i.to_string());
                    self.returned(item, &of(&field), out);
                }
            }
            other => {
                for (i, item) in other.elements().unwrap_or_default().iter().enumerate() {
                    // Places in a list name nothing, but as part of what has a name.
                    let title = if title.is_empty() { String::new() } else { of(&i.to_string()) };
                    self.returned(item, &title, out);
                }
            }
        }
    }

    /// What this call leaves of each thing that it was handed, in the order of the graph's buffers.
    fn handed_on(&mut self) -> Vec<Arc<str>> {
        let mut after: HashMap<Arc<str>, Arc<str>> = HashMap::new();
        for (key, kept) in self.memory.kept.values().cloned().collect::<Vec<_>>() {
            let item = self.changed.get(&key).cloned().unwrap_or_else(|| kept.item());
            self.leaves(&kept, &item, &mut after);
        }
        let held: Vec<_> = self.memory.held().into_iter().cloned().collect();
        held.iter().map(|h| after.remove(&h.name).unwrap_or_else(|| h.before())).collect()
    }

    fn leaves(&mut self, kept: &Kept, item: &Item, after: &mut HashMap<Arc<str>, Arc<str>>) {
        match (kept, item) {
            (Kept::Held(held), item) => {
                let item = if item.number().is_some() { self.literal(item) } else { item.clone() };
                if let Item::Tensor(name) | Item::Number(name) = item {
                    let now = self.now(&name);
                    after.entry(held.name.clone()).or_insert(now);
                }
            }
            (Kept::Several(_, parts), item) => {
                let items = Form::of(item).map(|(_, items)| items).unwrap_or_default();
                parts.iter().zip(&items).for_each(|(kept, item)| self.leaves(kept, item, after));
            }
            _ => {}
        }
    }

    /// What the next call is to begin with.
    pub(crate) fn left(&mut self) -> Result<Memory> {
        let mut next = self.memory.clone();
        let mut keys: Vec<Key> = self.begun.keys().chain(self.changed.keys()).cloned().collect();
        let path = |paths: &HashMap<Id, Rc<str>>, key: &Key| match paths.get(&key.0).map(|p| &**p) {
            None | Some("") => key.1.to_string(),
            Some(path) => format!("{path}.{}", key.1),
        };
        keys.sort_by_key(|key| path(&self.paths, key));
        keys.dedup();
        for key in keys {
            let place = path(&self.paths, &key);
            let module = self.paths.get(&key.0).cloned().unwrap_or_default();
            let filed = self.script.attribute(key.0, &key.1, &module)?.unwrap_or(Item::None);
            let before = self.begun.get(&key).cloned().unwrap_or_else(|| filed.clone());
            let after = self.changed.get(&key).cloned().unwrap_or_else(|| before.clone());
            if self.stays(&before, &after) {
                continue;
            }
            let fail = |why: String| ReadError::Graph(format!("attribute `{place}` {why}"));
            let left = self.kept(&place, &after, &filed).map_err(fail)?;
            let joined = match next.kept.get(&place) {
                Some((_, before)) => self.widened(before.joined(&left).map_err(fail)?, before, &left, &place, &filed),
                None => self.begun_again(left, &place, &filed),
            };
            next.kept.insert(place, (key, joined));
        }
        Ok(next)
    }

    /// Whether an attribute is what it was, with the same in its memory.
    fn stays(&mut self, before: &Item, after: &Item) -> bool {
        match (before, after) {
            (Item::Tensor(a), Item::Tensor(b)) => {
                let now = self.now(b);
                now == *a
            }
            (Item::Number(a), Item::Number(b)) => a == b,
            (a, b) => match (Form::of(a), Form::of(b)) {
                (Some((_, x)), Some((_, y))) => x.len() == y.len() && x.iter().zip(&y).all(|(x, y)| self.stays(x, y)),
                (None, None) => a.same(b) == Some(true) || alike(a, b),
                _ => false,
            },
        }
    }

    /// What an attribute is after the call; `filed` is what the file has of it.
    fn kept(&mut self, path: &str, item: &Item, filed: &Item) -> Result<Kept, String> {
        if let Some((form, items)) = Form::of(item) {
            let own = Form::of(filed).map(|(_, items)| items).unwrap_or_default();
            let mut parts = vec![];
            for (i, item) in items.iter().enumerate() {
                parts.push(self.kept(&format!("{path}.{i}"), item, own.get(i).unwrap_or(&Item::None))?);
            }
            return Ok(Kept::Several(form, parts));
        }
        let (Item::Tensor(name) | Item::Number(name)) = item else { return Ok(Kept::Known(item.clone())) };
        let is_number = matches!(item, Item::Number(_));
        let now = self.now(name);
        if let Some(t) = self.walk.constant(&now).filter(|_| !is_number) {
            let dtype = self.walk.dtype(&now).unwrap_or(t.dtype());
            return Ok(Kept::Constant(format!("{path}.constant").into(), t.cast(dtype)));
        }
        let dtype = self.walk.dtype(&now).ok_or("is of a type that is not known")?;
        let mut shape = vec![];
        for axis in 0..self.walk.rank(&now).ok_or("is of a shape that is not known")? {
            let size = self.walk.size(&now, axis).flatten().and_then(|n| usize::try_from(n).ok());
            shape.push(
                size.ok_or(
                    "has open sizes, and what a call leaves to the next has fixed ones: fix them with `--input`",
                )?,
            );
        }
        Ok(Kept::Held(self.held(path, filed, dtype, &shape, is_number)))
    }

    /// What is handed on: its content at first is what the file has, where that is of its type.
    fn held(&self, path: &str, filed: &Item, dtype: DType, shape: &[usize], is_number: bool) -> Held {
        let t = match filed {
            Item::Tensor(name) => self.script.tensors.get(name).filter(|t| t.shape() == shape).map(|t| t.cast(dtype)),
            item if is_number => item.number().map(|x| Tensor::splat(dtype, shape, x)),
            _ => None,
        };
        // Memory that two attributes share is handed on once.
        let name: Arc<str> = match (filed, &t) {
            (Item::Tensor(name), Some(_)) => name.clone(),
            _ => path.into(),
        };
        Held { name, is_number, initial: t.unwrap_or_else(|| zeros(dtype, shape)) }
    }

    /// An attribute that the first call has written: a buffer that is constant in the file, and another constant after the
    /// call, is most likely another one after each.
    fn begun_again(&self, left: Kept, path: &str, filed: &Item) -> Kept {
        match (&left, filed) {
            (Kept::Constant(_, t), Item::Tensor(name))
                if self.script.tensors.get(name).is_some_and(|f| f.shape() == t.shape()) =>
            {
                Kept::Held(self.held(path, filed, t.dtype(), t.shape(), false))
            }
            _ => left,
        }
    }

    /// What is known before a call and known to be something else after it is handed on.
    fn widened(&self, joined: Kept, before: &Kept, left: &Kept, path: &str, filed: &Item) -> Kept {
        match (before, left, joined) {
            (Kept::Known(a), Kept::Known(b), joined) if a.same(b) == Some(false) => match (a, b) {
                (Item::Int(_), Item::Int(_)) => Kept::Held(self.held(path, filed, DType::I64, &[], true)),
                (Item::Float(_), Item::Float(_)) => Kept::Held(self.held(path, filed, DType::F32, &[], true)),
                (Item::Bool(_), Item::Bool(_)) => Kept::Held(self.held(path, filed, DType::Bool, &[], true)),
                _ => joined,
            },
            (Kept::Constant(_, a), Kept::Constant(_, b), joined) if a.shape() == b.shape() && !is_equal(a, b) => {
                let _ = joined;
                Kept::Held(self.held(path, filed, a.dtype(), a.shape(), false))
            }
            (Kept::Several(_, a), Kept::Several(_, b), Kept::Several(form, parts))
                if a.len() == parts.len() && b.len() == parts.len() =>
            {
                let own = Form::of(filed).map(|(_, items)| items).unwrap_or_default();
                let part = |(i, joined): (usize, Kept)| {
                    let filed = own.get(i).unwrap_or(&Item::None);
                    self.widened(joined, &a[i], &b[i], &format!("{path}.{i}"), filed)
                };
                Kept::Several(form, parts.into_iter().enumerate().map(part).collect())
            }
            (_, _, joined) => joined,
        }
    }
}
