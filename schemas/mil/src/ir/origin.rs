//! Where ops come from: interned, chained, never passed on by hand by a rewrite.

use super::Handle;
use indexmap::IndexSet;
use std::{fmt, sync::Arc};

/// Where one op comes from.
pub type OriginId = Handle<Origin>;

/// A source node, or what a pass made of other origins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A node of the source model.
    Source(SourceInfo),
    /// An op that a pass made from others.
    Pass {
        /// The pass.
        pass: Arc<str>,
        /// The origins of what it replaced, in order.
        from: Vec<OriginId>,
    },
}

/// A node of a source model, as its author knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceInfo {
    /// The node's name, or its first output's.
    pub node: Arc<str>,
    /// The node's operator, such as `Conv`.
    pub op: Arc<str>,
    /// The module it belongs to, such as `encoder.layers.3.attn`; empty where unknown.
    pub module: Arc<str>,
    /// The line of code it comes from, such as `model.py:42`; empty where unknown.
    pub line: Arc<str>,
}

/// All origins of a module.
#[derive(Clone, Debug, Default)]
pub struct Origins(IndexSet<Origin>);

impl Origins {
    /// The handle of `origin`, the same one for equal origins.
    pub fn intern(&mut self, origin: Origin) -> OriginId {
        Handle::new(self.0.insert_full(origin).0)
    }

    /// The origin of a rewrite by `pass` of ops with origins `from`.
    pub fn rewritten(&mut self, pass: &str, from: impl IntoIterator<Item = OriginId>) -> OriginId {
        let mut unique: Vec<OriginId> = vec![];
        for id in from {
            if !unique.contains(&id) {
                unique.push(id);
            }
        }
        self.intern(Origin::Pass { pass: pass.into(), from: unique })
    }

    /// What `id` stands for.
    pub fn get(&self, id: OriginId) -> Option<&Origin> {
        self.0.get_index(id.index())
    }

    /// The source nodes that `id` goes back to, in order, each once.
    pub fn sources(&self, id: OriginId) -> Vec<&SourceInfo> {
        let (mut out, mut seen, mut todo) = (vec![], std::collections::BTreeSet::new(), vec![id]);
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.get(id) {
                Some(Origin::Source(info)) => out.push(info),
                Some(Origin::Pass { from, .. }) => todo.extend(from.iter().rev()),
                None => {}
            }
        }
        out
    }
}

impl fmt::Display for SourceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node `{}`", self.node)?;
        if !self.op.is_empty() {
            write!(f, " ({})", self.op)?;
        }
        if !self.module.is_empty() {
            write!(f, " in `{}`", self.module)?;
        }
        if !self.line.is_empty() {
            write!(f, " at {}", self.line)?;
        }
        Ok(())
    }
}
