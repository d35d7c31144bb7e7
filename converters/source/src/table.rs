//! Tables of lowerings.

use crate::{Arg, Lower, Lowered};
use std::{collections::HashMap, ops::RangeInclusive};

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

/// An operator that has no row, and why.
pub struct Absent {
    /// The operator's domain; empty for the format's own.
    pub domain: &'static str,
    /// The operator.
    pub op: &'static str,
    /// What stands in its way.
    pub why: &'static str,
}

/// Rows, indexed by operator.
pub struct Table {
    rows: HashMap<(&'static str, &'static str), Vec<&'static Row>>,
    absent: HashMap<(&'static str, &'static str), &'static str>,
    alike: HashMap<&'static str, usize>,
}

impl Table {
    /// Indexes `rows`, what is known to have none, and the format's own operators whose first result has the element
    /// type of an input, with its position.
    pub fn new(
        rows: impl IntoIterator<Item = &'static Row>,
        absent: &'static [Absent],
        alike: &'static [(&'static str, usize)],
    ) -> Self {
        let mut index: HashMap<_, Vec<&'static Row>> = HashMap::new();
        for row in rows {
            index.entry((row.domain, row.op)).or_default().push(row);
        }
        let absent = absent.iter().map(|a| ((a.domain, a.op), a.why)).collect();
        Self { rows: index, absent, alike: alike.iter().copied().collect() }
    }

    /// The input that has the element type of the first result, where there is one.
    pub fn alike(&self, domain: &str, op: &str) -> Option<usize> {
        self.alike.get(op).copied().filter(|_| domain.is_empty())
    }

    /// Why an operator has no row, where that is known.
    pub fn why_absent(&self, domain: &str, op: &str) -> Option<&'static str> {
        self.absent.get(&(domain, op)).copied()
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
