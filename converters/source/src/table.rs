//! Tables of lowerings.

use crate::{Arg, Lower, Lowered};
use mlconv_mil::diagnostic::Limit;
use std::{
    collections::{BTreeSet, HashMap},
    ops::RangeInclusive,
};

/// How one operator is lowered, in a range of operator set versions.
pub struct Row {
    /// The operator's domain; empty for the format's own.
    pub domain: &'static str,
    /// The operator.
    pub op: &'static str,
    /// The versions in which it has this meaning.
    pub versions: RangeInclusive<i64>,
    /// Makes MIL of one node.
    pub lower: fn(&mut Lower<'_>) -> Lowered,
    /// What named arguments are where a node does not have them.
    pub defaults: Vec<(&'static str, Arg)>,
}

/// Operators that have no row, and why.
pub struct Without {
    /// Their domain; empty for the format's own.
    pub domain: &'static str,
    /// Their names.
    pub ops: &'static [&'static str],
    /// On whose side it is.
    pub limit: Limit,
    /// Why, as what follows "it is not supported:".
    pub why: &'static str,
    /// What to do about it.
    pub help: &'static str,
}

/// Rows, indexed by operator, and what else is known of operators.
pub struct Table {
    rows: HashMap<(&'static str, &'static str), Vec<&'static Row>>,
    without: &'static [Without],
    alike: HashMap<&'static str, usize>,
}

impl Table {
    /// Indexes `rows`, operators that are known to have none, and the format's own operators whose first result has the
    /// element type of an input, with its position.
    pub fn new(
        rows: impl IntoIterator<Item = &'static Row>,
        without: &'static [Without],
        alike: &'static [(&'static str, usize)],
    ) -> Self {
        let mut index: HashMap<_, Vec<&'static Row>> = HashMap::new();
        for row in rows {
            index.entry((row.domain, row.op)).or_default().push(row);
        }
        Self { rows: index, without, alike: alike.iter().copied().collect() }
    }

    /// Why an operator has no row, where that is known.
    pub fn without(&self, domain: &str, op: &str) -> Option<&'static Without> {
        self.without.iter().find(|w| w.domain == domain && w.ops.contains(&op))
    }

    /// Every domain of which an operator is known.
    pub fn domains(&self) -> BTreeSet<&'static str> {
        self.rows.keys().map(|(domain, _)| *domain).chain(self.without.iter().map(|w| w.domain)).collect()
    }

    /// The input that has the element type of the first result, where there is one.
    pub fn alike(&self, domain: &str, op: &str) -> Option<usize> {
        self.alike.get(op).copied().filter(|_| domain.is_empty())
    }

    /// Every row, by domain, operator and version.
    pub fn rows(&self) -> impl Iterator<Item = &'static Row> {
        let mut all: Vec<&'static Row> = self.rows.values().flatten().copied().collect();
        all.sort_by_key(|r| (r.domain, r.op, *r.versions.start()));
        all.into_iter()
    }

    /// The row of an operator; `Err` has the versions that are there where only the version is wrong.
    pub fn row(&self, domain: &str, op: &str, version: i64) -> Result<&'static Row, Option<String>> {
        let rows = self.rows.get(&(domain, op)).ok_or(None)?;
        rows.iter().find(|r| r.versions.contains(&version)).copied().ok_or_else(|| {
            let said = rows.iter().map(|r| format!("{} to {}", r.versions.start(), r.versions.end()));
            Some(said.collect::<Vec<_>>().join(", "))
        })
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{} {:?}", self.domain, self.op, self.versions)
    }
}
