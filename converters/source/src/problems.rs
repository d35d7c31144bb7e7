//! What went wrong with nodes, collected and grouped.

use crate::{Arg, LowerError, Node, Table};
use indexmap::{IndexMap, map::Entry};
use mlconv_mil::{
    diagnostic::{Code, Diagnostic, Limit, Nodes, Severity, codes},
    ir::SourceInfo,
};
use std::{
    fmt::{self, Display},
    ops::Range,
    sync::Arc,
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
    nodes: IndexMap<(Option<String>, String), Group>,
    errors: usize,
}

/// Nodes of one operator with the same problem.
struct Group {
    /// What is said of the first.
    first: Diagnostic,
    /// The nodes by name and first output, as a message names them, each with what is said of it where that is something
    /// else than of the first. A node in a loop is seen more than once.
    nodes: IndexMap<(Arc<str>, Arc<str>), String>,
}

/// Nodes that a message names.
const NAMED: usize = 3;

impl Problems {
    pub(crate) fn plain(&mut self, d: Diagnostic) {
        self.errors += usize::from(d.severity == Severity::Error);
        self.plain.push(d);
    }

    /// Whether anything is wrong, so that there will be no module.
    pub(crate) fn has_error(&self) -> bool {
        self.errors > 0
    }

    /// Whether what the user asks for contradicts the model, or itself.
    pub(crate) fn refuses_request(&self) -> bool {
        self.plain.iter().any(|d| d.severity == Severity::Error && *d.code == codes::L0001)
    }

    pub(crate) fn unsupported(&mut self, node: &Node, versions: Option<&str>, table: &Table) {
        let operator = node.operator();
        if let Some(versions) = versions {
            let title = format!("`{operator}` of version {} is not supported, only {versions}", node.version);
            let d = Diagnostic::error(&codes::F0101, title).limit(Limit::NotYet);
            return self.add(node, d.help("convert the model to such a version of the operator set"));
        }
        let d = match table.without(&node.domain, &node.op) {
            Some(known) => {
                let d = Diagnostic::error(&codes::F0101, format!("`{operator}` is not supported: {}", known.why));
                d.limit(known.limit).help(known.help)
            }
            None if table.domains().contains(&*node.domain) => Diagnostic::error(
                &codes::F0101,
                format!("`{operator}` is not supported: no operator of this name is known"),
            ),
            None => {
                let name = |d: &str| if d.is_empty() { "the format's own".to_owned() } else { format!("`{d}`") };
                let known = table.domains().into_iter().map(name).collect::<Vec<_>>().join(", ");
                let title =
                    format!("`{operator}` is not supported: no operator of the domain `{}` is known", node.domain);
                let mut help = format!("known domains are {known}");
                // Of the formats that have functions.
                if table.domains().contains("") {
                    help += "; an operator that the model has as a function needs none";
                }
                Diagnostic::error(&codes::F0101, title).help(help)
            }
        };
        self.add(node, d);
    }

    /// That `node` was not lowered; `line` gives it as text, which only the first of those that are alike is shown as.
    pub(crate) fn failed(&mut self, node: &Node, e: &LowerError, line: impl FnOnce(At<'_>) -> Line) {
        let code = match e {
            LowerError::Unread { .. } | LowerError::UnreadInput { .. } => &codes::F0103,
            LowerError::DoesNotFit { .. } => &codes::F0104,
            LowerError::Form { .. } => &codes::F0101,
            _ => &codes::F0102,
        };
        let mut d = Diagnostic::error(code, format!("`{}`: {e}", node.operator())).limit(e.limit());
        d.help = e.help().map(str::to_owned);
        let key = (Some(node.operator()), form(&d.title));
        if !self.nodes.contains_key(&key) {
            let line = line(match e {
                LowerError::Unread { name } => At::Attr(name),
                LowerError::Attr { name, .. } => At::Attr(name),
                LowerError::MissingInput { index }
                | LowerError::UnreadInput { index }
                | LowerError::NotConstant { index } => At::Input(*index),
                _ => At::Operator,
            });
            d = d.snippet(line.text, line.at);
        }
        self.put(key, node, d);
    }

    pub(crate) fn warn(&mut self, node: &Node, why: &str) {
        self.add(node, Diagnostic::warning(&codes::F0108, format!("`{}`: {why}", node.operator())));
    }

    /// A warning that is one for nodes of all operators.
    pub(crate) fn warn_of_all(&mut self, node: &Node, code: &'static Code, why: &str, help: &str) {
        let d = Diagnostic::warning(code, why).help(help);
        self.put((None, d.title.clone()), node, d);
    }

    fn add(&mut self, node: &Node, d: Diagnostic) {
        let key = (Some(node.operator()), form(&d.title));
        self.put(key, node, d);
    }

    fn put(&mut self, key: (Option<String>, String), node: &Node, d: Diagnostic) {
        self.errors += usize::from(d.severity == Severity::Error);
        let id = (node.name.clone(), node.outputs.first().cloned().unwrap_or_default());
        let mut place = place(node);
        let group = match self.nodes.entry(key) {
            Entry::Occupied(group) => {
                let group = group.into_mut();
                if group.first.title != d.title {
                    let said = d.title.split_once(": ").map_or(&*d.title, |(_, said)| said);
                    place += &format!(": {said}");
                }
                group
            }
            Entry::Vacant(none) => none.insert(Group { first: d, nodes: IndexMap::new() }),
        };
        group.nodes.entry(id).or_insert(place);
    }

    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut out = self.plain;
        // Forms of one operator stand together, operators in the order in which they are met.
        let mut operators: IndexMap<Option<String>, Vec<Group>> = IndexMap::new();
        for ((operator, _), group) in self.nodes {
            operators.entry(operator).or_default().push(group);
        }
        let groups = operators.into_iter().flat_map(|(op, groups)| groups.into_iter().map(move |g| (op.clone(), g)));
        for (operator, Group { first: mut d, nodes }) in groups {
            let count = nodes.len();
            if count > 1 {
                d.title = format!("{} ({count} nodes)", d.title);
            }
            d.place = nodes.into_values().take(NAMED).collect();
            if count > NAMED {
                d.place.push(format!("and {} more", count - NAMED));
            }
            d.nodes = Some(Nodes { operator, count });
            out.push(d);
        }
        out
    }
}

/// What messages about nodes of the same form have in common: all but the numbers and shapes in them, and the names of
/// operands in shapes.
fn form(title: &str) -> String {
    let (mut out, mut depth, mut number) = (String::new(), 0usize, false);
    for c in title.chars() {
        let inside = depth > 0;
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if inside && depth > 0 {
            continue;
        }
        // A digit that follows a letter is part of a name, such as that of a type.
        let starts = !number && c.is_ascii_digit() && !out.ends_with(|p: char| p.is_alphanumeric() || p == '_');
        let goes_on = number && (c.is_ascii_digit() || c == '.');
        number = starts || goes_on;
        if starts {
            out.push('#');
        } else if !goes_on {
            out.push(c);
        }
    }
    out
}

/// What a message points at in the text of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum At<'a> {
    Operator,
    Input(usize),
    Attr(&'a str),
}

/// A node as a line of text, and where in it is what a message points at: the operator, where that is not there.
pub(crate) struct Line {
    text: String,
    at: Range<usize>,
}

/// Characters of one argument in the text of a node.
const MAX_ARGUMENT: usize = 60;
/// Arguments in the text of a node, and outputs, besides what is pointed at.
const MAX_ARGUMENTS: usize = 20;

impl Line {
    /// The text of `node`; `ty` gives the type of a value as far as it is known.
    pub(crate) fn of(node: &Node, at: At<'_>, ty: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut outputs: Vec<String> =
            node.outputs.iter().take(MAX_ARGUMENTS).map(|o| short(&format_args!("%{o}"))).collect();
        outputs.extend((node.outputs.len() > MAX_ARGUMENTS).then(|| "…".to_owned()));
        let mut text = outputs.join(", ") + if outputs.is_empty() { "" } else { " = " };
        let start = text.len();
        text += &node.operator();
        let mut line = Self { at: start..text.len(), text };
        line.text.push('(');
        let inputs = node.inputs.iter().enumerate().map(|(i, arg)| (At::Input(i), None, arg));
        let attrs = node.attrs.iter().map(|(name, arg)| (At::Attr(name), Some(name), arg));
        let mut is_cut = false;
        for (i, (own, name, arg)) in inputs.chain(attrs).enumerate() {
            let is_left_out = i >= MAX_ARGUMENTS && own != at;
            // One mark stands for all that are left out one after the other.
            let is_marked = std::mem::replace(&mut is_cut, is_left_out);
            if is_left_out && is_marked {
                continue;
            }
            if !line.text.ends_with('(') {
                line.text += ", ";
            }
            let start = line.text.len();
            if is_left_out {
                line.text.push('…');
                continue;
            }
            if let Some(name) = name {
                line.text += &short(&format_args!("{name}="));
            }
            line.text += &short(arg);
            if let Arg::Value(name) = arg
                && let Some(ty) = ty(name)
            {
                line.text += ": ";
                line.text += &ty;
            }
            if own == at {
                line.at = start..line.text.len();
            }
        }
        line.text.push(')');
        line
    }
}
/// The beginning of what is shown; no more of it is written out.
fn short(shown: &dyn Display) -> String {
    struct Short {
        text: String,
        left: usize,
    }
    impl fmt::Write for Short {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            for c in part.chars() {
                self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
                self.text.push(c);
            }
            Ok(())
        }
    }
    let mut out = Short { text: String::new(), left: MAX_ARGUMENT };
    if fmt::write(&mut out, format_args!("{shown}")).is_err() {
        out.text.push('…');
    }
    out.text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_shapes_are_no_part_of_a_form() {
        for (a, b) in [
            ("`Conv`: 4 spatial dimensions", "`Conv`: 5 spatial dimensions"),
            ("`Add`: shapes [3] and [2, s]", "`Add`: shapes [1, 3] and [4]"),
            ("`X`: f32[2, [3]] of 1.5", "`X`: f32[] of 22.25"),
        ] {
            assert_eq!(form(a), form(b));
        }
        for (a, b) in [("`A`: f32[2]", "`A`: f16[2]"), ("input 1 of `x1`", "input 1 of `x2`"), ("a", "b")] {
            assert_ne!(form(a), form(b));
        }
    }

    #[test]
    fn a_line_shows_types_and_where_arguments_are() {
        let attrs = [("axis", Arg::Int(1)), ("perm", Arg::Ints((0..99).collect()))];
        let node = Node {
            op: "Op".into(),
            inputs: vec![Arg::Value("x".into()), Arg::None, Arg::Value("far".into())],
            attrs: attrs.into_iter().map(|(name, arg)| (name.into(), arg)).collect(),
            outputs: vec!["y".into()],
            ..Node::default()
        };
        let line = |at| Line::of(&node, at, &|name| (name == "x").then(|| "f32[2]".to_owned()));
        let text = line(At::Operator).text;
        assert!(text.starts_with("%y = Op(%x: f32[2], none, %far, axis=1, perm=[0, 1"), "{text}");
        assert!(text.len() < 150 && text.ends_with("…)"), "{text}");
        for (at, part) in [
            (At::Operator, "Op"),
            (At::Input(1), "none"),
            (At::Input(9), "Op"),
            (At::Attr("axis"), "axis=1"),
            (At::Attr("other"), "Op"),
        ] {
            let line = line(at);
            assert_eq!(&line.text[line.at], part);
        }
    }

    #[test]
    fn a_line_of_many_arguments_is_cut() {
        let inputs = (0..30_000).map(|i| Arg::Value(format!("x{i}").into())).collect();
        let outputs = (0..30_000).map(|i| format!("y{i}").into()).collect();
        let attrs = [("axis".into(), Arg::Int(1))].into_iter().collect();
        let node = Node { op: "Op".into(), inputs, outputs, attrs, ..Node::default() };
        for (at, end, part) in [
            (At::Operator, "%x19, …)", "Op"),
            (At::Input(500), "%x19, …, %x500, …)", "%x500"),
            (At::Attr("axis"), "%x19, …, axis=1)", "axis=1"),
        ] {
            let line = Line::of(&node, at, &|_| None);
            assert!(line.text.len() < 400 && line.text.ends_with(end), "{}", line.text);
            assert_eq!(&line.text[line.at], part);
        }
    }

    #[test]
    fn a_warning_of_all_is_one_message_for_several_operators() {
        let mut problems = Problems::default();
        for op in ["Add", "Mul", "Add"] {
            let node = Node { op: op.into(), name: op.into(), ..Node::default() };
            problems.warn_of_all(&node, &codes::F0108, "wide", "narrow");
        }
        assert!(!problems.has_error());
        let all = problems.into_diagnostics();
        let [d] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(d.title, "wide (2 nodes)");
        assert_eq!(d.nodes, Some(Nodes { operator: None, count: 2 }));
    }

    #[test]
    fn nodes_of_one_form_are_one_message() {
        let mut problems = Problems::default();
        for i in 0..6u8 {
            // The last one is seen twice, as in a loop.
            let name: Arc<str> = format!("n{}", i.min(4)).into();
            let node = Node { op: "Conv".into(), name: name.clone(), outputs: vec![name], ..Node::default() };
            let e = LowerError::core_ml(format!("{} spatial dimensions", 4 + i % 2));
            problems.failed(&node, &e, |at| {
                assert_eq!(i, 0, "only the first is shown");
                Line::of(&node, at, &|_| None)
            });
        }
        let all = problems.into_diagnostics();
        let [d] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(d.title, "`Conv`: 4 spatial dimensions is not supported (5 nodes)");
        let place = ["node `n0` (Conv)", "node `n1` (Conv): 5 spatial dimensions is not supported", "node `n2` (Conv)"];
        assert_eq!(d.place, [&place[..], &["and 2 more"]].concat());
        assert_eq!(d.nodes, Some(Nodes { operator: Some("Conv".to_owned()), count: 5 }));
        assert_eq!(d.limit, Some(Limit::CoreMl));
    }
}
