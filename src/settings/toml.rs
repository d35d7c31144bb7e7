//! TOML to a tree, and values to TOML.

use super::{At, Key, Node, SyntaxError, Value};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let lines = Lines::of(text);
    match DeTable::parse(text) {
        Ok(table) => Ok(Node { value: lines.table(table.get_ref())?, at: At { line: 1, column: 1 } }),
        Err(e) => {
            let at = e.span().map_or(At::default(), |span| lines.at(span.start));
            Err(SyntaxError { why: format!("this is no TOML: {}", e.message()), at })
        }
    }
}

/// Where the lines of a text begin.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { text, starts }
    }

    fn at(&self, byte: usize) -> At {
        let line = self.starts.partition_point(|start| *start <= byte).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..byte).map_or(0, |part| part.chars().count()) + 1;
        At { line, column }
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Result<Node, SyntaxError> {
        let at = self.at(value.span().start);
        let wide = |what: &str| SyntaxError { why: format!("{what} does not fit 64 bits"), at };
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(i) => {
                Value::Int(i64::from_str_radix(i.as_str(), i.radix()).map_err(|_| wide(i.as_str()))?)
            }
            DeValue::Float(f) => Value::Float(f.as_str().parse().map_err(|_| wide(f.as_str()))?),
            DeValue::Boolean(b) => Value::Bool(*b),
            DeValue::Datetime(d) => Value::Text(d.to_string()),
            DeValue::Array(all) => {
                let nodes: Result<Vec<Node>, SyntaxError> = all.iter().map(|v| self.node(v)).collect();
                Value::List(nodes?)
            }
            DeValue::Table(table) => self.table(table)?,
        };
        Ok(Node { value, at })
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Value, SyntaxError> {
        let entry = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            let at = self.at(key.span().start);
            Ok((Key { name: key.get_ref().to_string(), at }, self.node(value)?))
        };
        let entries: Result<Vec<(Key, Node)>, SyntaxError> = table.iter().map(entry).collect();
        Ok(Value::Table(entries?))
    }
}

/// A text in quotes.
pub(crate) fn text(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out += &format!("\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}

/// A list of texts.
pub(crate) fn list(texts: &[&str]) -> String {
    let texts: Vec<String> = texts.iter().map(|t| text(t)).collect();
    format!("[{}]", texts.join(", "))
}

/// A table of texts by name, in one line.
pub(crate) fn table(entries: &[(&str, &str)]) -> String {
    let bare = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) && !name.is_empty();
    let key = |name: &str| if bare(name) { name.to_owned() } else { text(name) };
    let entries: Vec<String> = entries.iter().map(|(name, value)| format!("{} = {}", key(name), text(value))).collect();
    format!("{{ {} }}", entries.join(", "))
}
