//! What went wrong with nodes, collected and grouped.

use crate::{LowerError, Node};
use indexmap::IndexMap;
use mlconv_mil::{
    diagnostic::{Code, Diagnostic, Severity, codes},
    ir::SourceInfo,
};

/// A node, as a message names it.
pub(crate) fn place(node: &Node) -> String {
    SourceInfo {
        node: node.name.clone(),
        op: node.operator().into(),
        module: node.module.clone(),
        line: node.line.clone(),
    }
    .to_string()
}

/// What went wrong, equal problems of several nodes together.
#[derive(Default)]
pub(crate) struct Problems {
    plain: Vec<Diagnostic>,
    nodes: IndexMap<(String, String), (Diagnostic, Vec<String>)>,
}

impl Problems {
    pub(crate) fn plain(&mut self, d: Diagnostic) {
        self.plain.push(d);
    }

    /// Whether anything is wrong, so that there will be no module.
    pub(crate) fn has_error(&self) -> bool {
        self.plain.iter().chain(self.nodes.values().map(|(d, _)| d)).any(|d| d.severity == Severity::Error)
    }

    /// Whether what the user asks for contradicts the model, or itself.
    pub(crate) fn refuses_request(&self) -> bool {
        self.plain.iter().any(|d| d.severity == Severity::Error && *d.code == codes::L0001)
    }

    pub(crate) fn unsupported(&mut self, node: &Node, versions: Option<&str>, why: Option<&str>) {
        let title = match versions {
            None => format!("`{}` is not supported", node.operator()),
            Some(v) => format!("`{}` of version {} is not supported, only {v}", node.operator(), node.version),
        };
        let mut d = Diagnostic::error(&codes::F0101, title);
        d.help = why.map(str::to_owned);
        self.add(node, d);
    }

    pub(crate) fn failed(&mut self, node: &Node, e: &LowerError) {
        let code = match e {
            LowerError::Unread { .. } | LowerError::UnreadInput { .. } => &codes::F0103,
            LowerError::DoesNotFit { .. } => &codes::F0104,
            LowerError::Form { .. } => &codes::F0101,
            _ => &codes::F0102,
        };
        let mut d = Diagnostic::error(code, format!("`{}`: {e}", node.operator()));
        d.help = e.help().map(str::to_owned);
        if let LowerError::Unread { name } = e {
            let line = brief(node);
            let at = line.find(&format!("{name}=")).unwrap_or(0);
            let end = line[at..].find([',', ')']).map_or(line.len(), |n| at + n);
            d = d.snippet(line, at..end);
        }
        self.add(node, d);
    }

    pub(crate) fn warn(&mut self, node: &Node, why: &str) {
        self.add(node, Diagnostic::warning(&codes::F0108, format!("`{}`: {why}", node.operator())));
    }

    /// A warning that is one for nodes of all operators.
    pub(crate) fn warn_of_all(&mut self, node: &Node, code: &'static Code, why: &str, help: &str) {
        let d = Diagnostic::warning(code, why).help(help);
        self.put((String::new(), d.title.clone()), node, d);
    }

    fn add(&mut self, node: &Node, d: Diagnostic) {
        let key = (node.operator(), d.title.clone());
        self.put(key, node, d);
    }

    fn put(&mut self, key: (String, String), node: &Node, d: Diagnostic) {
        let (places, place) = (&mut self.nodes.entry(key).or_insert_with(|| (d, vec![])).1, place(node));
        // The node of a loop is looked at in every turn.
        if !places.iter().rev().take(64).any(|p| *p == place) {
            places.push(place);
        }
    }

    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut out = self.plain;
        for (mut d, places) in self.nodes.into_values() {
            if places.len() > 1 {
                d.title = format!("{} ({} nodes)", d.title, places.len());
            }
            let more = places.len().saturating_sub(3);
            d.place = places.into_iter().take(3).collect();
            if more > 0 {
                d.place.push(format!("and {more} more"));
            }
            out.push(d);
        }
        out
    }
}

/// A node as one short line.
fn brief(node: &Node) -> String {
    let line = node.to_string();
    if line.len() <= 200 { line } else { line.chars().take(200).collect::<String>() + "…" }
}
