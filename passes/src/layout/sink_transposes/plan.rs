//! Which ops to move.

use super::{
    super::keep::permutation,
    moved::{Moved, Perm, Role, moved},
};
use mlconv_mil::{
    ir::{Function, OpId, Use, Value},
    ops::Transpose,
};
use std::collections::{HashMap, HashSet};

/// Transposes that do not end a way.
pub(super) type Closed = HashSet<OpId>;

/// What a plan does with an op.
pub(super) enum Node {
    /// A transpose at which a way begins: what it reads stands for its result.
    Source,
    /// An op that is moved.
    Moved(Moved),
    /// A transpose that undoes what its operand lacks.
    Sink,
}

/// What becomes of the ops of a function.
pub(super) struct Plan {
    /// The ops that something becomes of, in order.
    pub order: Vec<OpId>,
    /// Transposes at which ways could end.
    ends: Vec<OpId>,
    nodes: HashMap<OpId, Node>,
    /// What each value lacks, if the op that makes it is moved.
    perms: HashMap<Value, Perm>,
    /// Readers of the value as it is, and of the value before it was transposed.
    plain: HashMap<Value, usize>,
    permuted: HashMap<Value, usize>,
    /// By op, the first op of its group; by that, transposes saved.
    group: HashMap<OpId, OpId>,
    saved: HashMap<OpId, isize>,
}

impl Plan {
    pub(super) fn new(f: &Function, closed: &Closed) -> Self {
        let (order, ends, nodes, perms) = (vec![], vec![], HashMap::new(), HashMap::new());
        let (plain, permuted, group, saved) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let mut plan = Self { order, ends, nodes, perms, plain, permuted, group, saved };
        plan.push_down(f, closed);
        plan.count_readers(f);
        plan.hold_back(f);
        plan.form_groups(f);
        plan.weigh(f);
        plan
    }

    /// Whether fewer transposes remain.
    pub(super) fn pays(&self) -> bool {
        self.saved.values().any(|n| *n > 0)
    }

    /// The transposes at which ways end that do not pay.
    pub(super) fn closed(&self) -> Closed {
        self.ends.iter().copied().collect()
    }

    /// The transposes at which ways begin.
    pub(super) fn begins(&self) -> impl Iterator<Item = OpId> + '_ {
        self.order.iter().copied().filter(|id| matches!(self.nodes.get(id), Some(Node::Source)))
    }

    /// What becomes of `id`.
    pub(super) fn node(&self, id: OpId) -> Option<&Node> {
        let pays = self.saved.get(self.group.get(&id)?).is_some_and(|n| *n > 0);
        if pays { self.nodes.get(&id) } else { None }
    }

    /// What `v` lacks, where it is made by an op that is moved, or by a source.
    pub(super) fn lacks(&self, f: &Function, v: Value) -> Option<&Perm> {
        let made = self.nodes.get(&f.def_op(v)?)?;
        if matches!(made, Node::Sink) { None } else { self.perms.get(&v) }
    }

    /// Whether something reads `v` as it is.
    pub(super) fn is_read_plain(&self, v: Value) -> bool {
        self.plain.get(&v).is_some_and(|n| *n > 0)
    }

    /// Finds what could be moved.
    fn push_down(&mut self, f: &Function, closed: &Closed) {
        // Outputs that are not made by a transpose any more: each value is one output at most.
        let mut outputs: HashSet<Value> = HashSet::new();
        for id in f.all_ops() {
            let data = f.op_data(id);
            let near = |v: &Value| f.def_op(*v).is_some_and(|d| f.op_data(d).block == data.block);
            let node = if let Some(op) = f.op::<Transpose>(id) {
                let Some(perm) = f.ty(op.x).tensor().and_then(|t| permutation(&op.perm, t.shape.rank())) else {
                    continue;
                };
                let result = data.results[0];
                let lacks = self.perms.get(&op.x).filter(|_| near(&op.x) && !closed.contains(&id));
                let undoes = |before: &Perm| perm.iter().enumerate().all(|(i, p)| before[*p] == i);
                let is_output = f.uses(result).contains(&Use::Yield(f.body()));
                let made = || f.def::<Transpose>(op.x).is_none();
                if lacks.is_some_and(undoes) && (!is_output || made() && outputs.insert(op.x)) {
                    self.ends.push(id);
                    Node::Sink
                } else {
                    self.perms.insert(result, perm);
                    Node::Source
                }
            } else {
                let mut operands = vec![];
                data.op.visit_operands(&mut |v| operands.push(v));
                let lacking: Vec<Value> = operands.iter().copied().filter(|v| self.perms.contains_key(v)).collect();
                let Some(perm) = lacking.first().and_then(|v| self.perms.get(v)).cloned() else { continue };
                // What is made outside of a loop is transposed there.
                if !lacking.iter().all(|v| near(v) && self.perms.get(v) == Some(&perm)) {
                    continue;
                }
                let Some(moved) = moved(f, id, &perm) else { continue };
                let is_data =
                    |v: Value| operands.iter().zip(&moved.roles).any(|(o, r)| *o == v && matches!(r, Role::Permuted));
                let fits = moved.roles.len() == operands.len() && moved.results.len() == data.results.len();
                // What lacks the permutation is read as data, not as a size or an index.
                if !fits || !lacking.into_iter().all(is_data) {
                    continue;
                }
                for (v, perm) in data.results.iter().zip(&moved.results) {
                    if perm.iter().enumerate().any(|(i, p)| i != *p) {
                        self.perms.insert(*v, perm.clone());
                    }
                }
                Node::Moved(moved)
            };
            self.nodes.insert(id, node);
            self.order.push(id);
        }
    }

    /// The operands of `id` that it reads without the permutation if it is moved.
    fn data(&self, f: &Function, id: OpId) -> Vec<Value> {
        let mut operands = vec![];
        f.op_data(id).op.visit_operands(&mut |v| operands.push(v));
        match self.nodes.get(&id) {
            Some(Node::Sink) => operands,
            Some(Node::Moved(moved)) => {
                let data = operands.into_iter().zip(&moved.roles).filter(|(_, r)| matches!(r, Role::Permuted));
                data.map(|(v, _)| v).collect()
            }
            Some(Node::Source) | None => vec![],
        }
    }

    fn count_readers(&mut self, f: &Function) {
        for id in f.all_ops() {
            let data = self.data(f, id);
            f.op_data(id).op.visit_operands(&mut |v| {
                let readers = if data.contains(&v) { &mut self.permuted } else { &mut self.plain };
                *readers.entry(v).or_default() += 1;
            });
            f.op_data(id).results.iter().for_each(|v| self.count_yields(f, *v));
        }
    }

    fn count_yields(&mut self, f: &Function, v: Value) {
        let yields = f.uses(v).iter().filter(|u| matches!(u, Use::Yield(_))).count();
        if yields > 0 {
            *self.plain.entry(v).or_default() += yields;
        }
    }

    /// Lets ops stay for which it takes as few transposes, from the ends of the ways on.
    fn hold_back(&mut self, f: &Function) {
        for id in self.order.clone().into_iter().rev() {
            if !matches!(self.nodes.get(&id), Some(Node::Moved(_))) {
                continue;
            }
            let data = self.data(f, id);
            let reads = |readers: &HashMap<Value, usize>, v: Value| readers.get(&v).copied().unwrap_or(0);
            let mut more = 0isize;
            let mut seen: Vec<Value> = vec![];
            for v in &data {
                if seen.contains(v) {
                    continue;
                }
                seen.push(*v);
                let own = data.iter().filter(|o| *o == v).count();
                if self.lacks(f, *v).is_some() {
                    more += isize::from(reads(&self.plain, *v) == 0);
                } else {
                    more -= isize::from(reads(&self.permuted, *v) == own);
                }
            }
            for v in f.op_data(id).results.iter().filter(|v| self.perms.contains_key(v)) {
                more += isize::from(reads(&self.permuted, *v) > 0) - isize::from(reads(&self.plain, *v) > 0);
            }
            if more <= 0 {
                for v in &data {
                    *self.permuted.entry(*v).or_default() -= 1;
                    *self.plain.entry(*v).or_default() += 1;
                }
                self.nodes.remove(&id);
            }
        }
        // What reads no transposed value any more is plain.
        for id in self.order.clone() {
            let data = self.data(f, id);
            let stays = match self.nodes.get(&id) {
                Some(Node::Source) | None => false,
                Some(Node::Sink | Node::Moved(_)) => !data.iter().any(|v| self.lacks(f, *v).is_some()),
            };
            if stays {
                for v in data {
                    *self.permuted.entry(v).or_default() -= 1;
                    *self.plain.entry(v).or_default() += 1;
                }
                self.nodes.remove(&id);
            }
        }
        self.order.retain(|id| self.nodes.contains_key(id));
    }

    fn form_groups(&mut self, f: &Function) {
        self.group = self.order.iter().map(|id| (*id, *id)).collect();
        for id in self.order.clone() {
            for v in self.data(f, id) {
                if let (Some(_), Some(made)) = (self.lacks(f, v), f.def_op(v)) {
                    let (a, b) = (self.first(id), self.first(made));
                    self.group.insert(a.max(b), a.min(b));
                }
            }
        }
        for id in self.order.clone() {
            let first = self.first(id);
            self.group.insert(id, first);
        }
    }

    /// The first op of the group of `id`.
    fn first(&mut self, id: OpId) -> OpId {
        let mut at = id;
        while let Some(next) = self.group.get(&at).copied().filter(|n| *n != at) {
            // Halves the way for the next one who asks.
            let further = self.group.get(&next).copied().unwrap_or(next);
            self.group.insert(at, further);
            at = further;
        }
        at
    }

    /// Counts the transposes that each group saves.
    fn weigh(&mut self, f: &Function) {
        let mut back: HashSet<(OpId, Value)> = HashSet::new();
        for id in self.order.clone() {
            let group = self.group.get(&id).copied().unwrap_or(id);
            let mut saved = match self.nodes.get(&id) {
                Some(Node::Source | Node::Sink) => 1,
                Some(Node::Moved(_)) | None => 0,
            };
            if !matches!(self.nodes.get(&id), Some(Node::Sink)) {
                let results = f.op_data(id).results.iter();
                saved -= results.filter(|v| self.perms.contains_key(v) && self.is_read_plain(**v)).count() as isize;
            }
            for v in self.data(f, id) {
                saved -= isize::from(self.lacks(f, v).is_none() && back.insert((group, v)));
            }
            *self.saved.entry(group).or_default() += saved;
        }
    }
}
