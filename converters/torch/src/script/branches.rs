//! Conditions that are known only when a program runs: both ways are taken, and what they leave is joined.

use super::{
    interpret::{Flow, Frame, Interpreter, Result, path},
    memory::Key,
    syntax::{Expr, Kind, Statement},
    value::Item,
};
use mlconv_source::Arg;
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

impl Interpreter {
    /// Both branches of a condition that is known only when the program runs. One that raises an error is never taken.
    pub(super) fn branches(
        &mut self,
        cond: &Item,
        yes: &[Statement],
        no: &[Statement],
        frame: &mut Frame,
    ) -> Result<Flow> {
        match (raises(yes), raises(no)) {
            (true, false) => return self.block(no, frame),
            (false, true) => return self.block(yes, frame),
            _ => {}
        }
        let (Item::Tensor(name) | Item::Number(name)) = cond else {
            return self.fail(format!("a condition that is {}", cond.kind()));
        };
        let cond = self.functional.current(name);
        self.flush();
        let before = (frame.clone(), self.changed.clone());
        let held = containers(frame.values().chain(self.changed.values()));
        self.worked(held.iter().map(|c| c.items().len()).sum::<usize>() / 16)?;
        let held_before: Vec<Vec<Item>> = held.iter().map(Container::items).collect();
        let mut held_ends: Vec<Vec<Vec<Item>>> = vec![];
        let memory = self.functional.saved();
        let mut written: Vec<HashMap<Arc<str>, Arc<str>>> = vec![];
        let mut ends = vec![];
        let mut blocks = vec![];
        for body in [yes, no] {
            let mut own = before.0.clone();
            self.changed = before.1.clone();
            self.walk.enter();
            let flow = self.block(body, &mut own);
            self.flush();
            // What a branch does to a list is done to it where the branch is taken.
            held_ends.push(held.iter().map(Container::items).collect());
            held.iter().zip(&held_before).for_each(|(c, items)| c.put(items.clone()));
            written.push(self.functional.restore(&memory).into_iter().collect());
            blocks.push(self.walk.leave());
            match flow? {
                Flow::On => ends.push((own, std::mem::take(&mut self.changed))),
                _ => return self.fail("a branch on a condition known late that returns or leaves a loop"),
            }
        }
        let Ok([(a, changed_a), (b, changed_b)]) = <[_; 2]>::try_from(ends) else {
            return self.fail("a condition without two branches");
        };
        // What is assigned in both is what code behind the condition can read.
        let mut names: Vec<Rc<str>> = a.keys().filter(|k| b.contains_key(*k)).cloned().collect();
        names.sort_unstable();
        let (mut from_a, mut from_b, mut places) = (vec![], vec![], vec![]);
        for name in names {
            let (x, y) = (&a[&name], &b[&name]);
            if x.same(y) == Some(true) || alike(x, y) {
                frame.insert(name, x.clone());
                continue;
            }
            from_a.push(x.clone());
            from_b.push(y.clone());
            places.push(name);
        }
        let mut keys: Vec<Key> = changed_a.keys().chain(changed_b.keys()).cloned().collect();
        keys.sort_by(|x, y| (&x.1, x.0).cmp(&(&y.1, y.0)));
        keys.dedup();
        self.changed = before.1;
        let mut attributes = vec![];
        for key in keys {
            // What one branch does not write stays as it was.
            let mut ends = [changed_a.get(&key).cloned(), changed_b.get(&key).cloned()];
            for end in ends.iter_mut().filter(|end| end.is_none()) {
                *end = Some(self.attribute(Item::Module(key.0), &key.1)?);
            }
            let [Some(x), Some(y)] = ends else { continue };
            if x.same(&y) == Some(true) || alike(&x, &y) {
                self.changed.insert(key, x);
                continue;
            }
            if [&x, &y].iter().any(|item| !matches!(item, Item::Tensor(_) | Item::Number(_)) && item.number().is_none())
            {
                return self.fail(format!(
                    "`{}` is {} or {} on a condition that is known late",
                    key.1,
                    x.kind(),
                    y.kind()
                ));
            }
            from_a.push(x);
            from_b.push(y);
            attributes.push(key);
        }
        let mut parts = vec![];
        for (i, container) in held.iter().enumerate() {
            let ends: Vec<&Vec<Item>> = held_ends.iter().filter_map(|e| e.get(i)).collect();
            let [x, y] = ends.as_slice() else { continue };
            if x.len() != y.len() {
                return self.fail("a list or dictionary that grows in one branch on a condition that is known late");
            }
            let mut now = vec![];
            for (x, y) in x.iter().zip(y.iter()) {
                if x.same(y) == Some(true) || alike(x, y) {
                    now.push(x.clone());
                    continue;
                }
                let is_part = |i: &Item| matches!(i, Item::Tensor(_) | Item::Number(_)) || i.number().is_some();
                if !is_part(x) || !is_part(y) || matches!(x, Item::Tensor(_)) != matches!(y, Item::Tensor(_)) {
                    return self.fail(format!(
                        "a part of a list or dictionary is {} or {} on a condition that is known late",
                        x.kind(),
                        y.kind()
                    ));
                }
                parts.push((i, now.len()));
                now.push(Item::Uninitialized);
                from_a.push(x.clone());
                from_b.push(y.clone());
            }
            container.put(now);
        }
        // What a branch has made itself is nothing that code behind the condition can read.
        let mut memories: Vec<Arc<str>> = written.iter().flat_map(|w| w.keys().cloned()).collect();
        memories.retain(|first| self.walk.rank(first).is_some());
        memories.sort_unstable();
        memories.dedup();
        for first in &memories {
            let before = self.functional.current(first);
            for (from, written) in [&mut from_a, &mut from_b].into_iter().zip(&written) {
                from.push(Item::Tensor(written.get(first).unwrap_or(&before).clone()));
            }
        }
        let mut joined = self.joined(&cond, blocks, from_a, from_b)?.into_iter();
        for name in places {
            frame.insert(name, joined.next().unwrap_or(Item::Uninitialized));
        }
        for key in attributes {
            self.changed.insert(key, joined.next().unwrap_or(Item::Uninitialized));
        }
        for (container, at) in parts {
            let item = joined.next().unwrap_or(Item::Uninitialized);
            if let Some(container) = held.get(container) {
                container.set(at, item);
            }
        }
        for (first, item) in memories.iter().zip(joined) {
            if let Item::Tensor(name) = item {
                self.functional.put(first, name);
            }
        }
        Ok(Flow::On)
    }

    /// The values of two branches as those of one condition.
    fn joined(
        &mut self,
        cond: &Arc<str>,
        blocks: Vec<mlconv_source::Branch>,
        a: Vec<Item>,
        b: Vec<Item>,
    ) -> Result<Vec<Item>> {
        let mut yields: [Vec<Arg>; 2] = [vec![], vec![]];
        let mut out = vec![];
        for (x, y) in a.iter().zip(&b) {
            let both = [x, y].map(|item| match item {
                Item::Tensor(n) | Item::Number(n) => Some(Arg::Value(n.clone())),
                Item::Int(i) => Some(Arg::Int(*i)),
                Item::Float(x) => Some(Arg::Float(*x)),
                Item::Bool(b) => Some(Arg::Bool(*b)),
                _ => None,
            });
            let [Some(p), Some(q)] = both else {
                // Nothing may read it; who does says so.
                out.push(Item::Uninitialized);
                continue;
            };
            yields[0].push(p);
            yields[1].push(q);
            let name = self.fresh("branch");
            let is_tensor = matches!(x, Item::Tensor(_)) || matches!(y, Item::Tensor(_));
            out.push(if is_tensor { Item::Tensor(name) } else { Item::Number(name) });
        }
        let names: Vec<Arc<str>> = out
            .iter()
            .filter_map(|i| if let Item::Tensor(n) | Item::Number(n) = i { Some(n.clone()) } else { None })
            .collect();
        let node = self.node_of("prim", "If");
        self.walk.join(&node, cond, blocks, yields, &names);
        Ok(out)
    }
}

/// What code can change: a list or a dictionary, of which keys are part.
enum Container {
    List(Rc<RefCell<Vec<Item>>>),
    Dict(Rc<RefCell<Vec<(Item, Item)>>>),
}

impl Container {
    /// What it holds; of a dictionary, keys and values in turns.
    fn items(&self) -> Vec<Item> {
        match self {
            Self::List(v) => v.borrow().clone(),
            Self::Dict(v) => v.borrow().iter().flat_map(|(k, v)| [k.clone(), v.clone()]).collect(),
        }
    }

    fn put(&self, items: Vec<Item>) {
        match self {
            Self::List(v) => *v.borrow_mut() = items,
            Self::Dict(v) => {
                let mut items = items.into_iter();
                let mut all = vec![];
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    all.push((key, value));
                }
                *v.borrow_mut() = all;
            }
        }
    }

    /// Puts an item where [`items`](Self::items) has the one at `at`.
    fn set(&self, at: usize, item: Item) {
        let mut items = self.items();
        if let Some(place) = items.get_mut(at) {
            *place = item;
        }
        self.put(items);
    }
}

/// The lists and dictionaries that can be reached from `items`, each once. Others share them, so that they are changed where
/// they are, and no copies are made.
fn containers<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<Container> {
    let (mut seen, mut out, mut next) = (HashSet::new(), vec![], items.cloned().collect::<Vec<_>>());
    while let Some(item) = next.pop() {
        match item {
            Item::List(v) if seen.insert(Rc::as_ptr(&v).cast::<()>()) => {
                next.extend(v.borrow().iter().cloned());
                out.push(Container::List(v));
            }
            Item::Dict(v) if seen.insert(Rc::as_ptr(&v).cast::<()>()) => {
                next.extend(v.borrow().iter().map(|(_, v)| v.clone()));
                out.push(Container::Dict(v));
            }
            Item::Tuple(v) | Item::Named(_, v) => next.extend(v.iter().cloned()),
            _ => {}
        }
    }
    out
}

/// Whether both are the same value of the graph.
pub(super) fn alike(a: &Item, b: &Item) -> bool {
    match (a, b) {
        (Item::Tensor(a), Item::Tensor(b)) | (Item::Number(a), Item::Number(b)) => a == b,
        (Item::Memory, Item::Memory) | (Item::Uninitialized, Item::Uninitialized) => true,
        (Item::List(a), Item::List(b)) => Rc::ptr_eq(a, b),
        (Item::Dict(a), Item::Dict(b)) => Rc::ptr_eq(a, b),
        (Item::Tuple(a), Item::Tuple(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| alike(a, b)),
        _ => false,
    }
}

/// Whether a block does nothing but raise an error.
fn raises(body: &[Statement]) -> bool {
    body.iter().any(|s| match &s.kind {
        Kind::Expr(Expr::Call(f, ..)) => path(f).is_some_and(|p| p == "ops.prim.RaiseException"),
        _ => false,
    })
}
