//! YAML, and so JSON, to a tree.

use super::{At, Key, Node, SyntaxError, Value};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned, UserMessageFormatter, budget, options};
use std::fmt;

/// Values that a file may have, those that aliases repeat included.
const MAX_NODES: usize = 100_000;
/// How deep values may lie in one another.
const MAX_DEPTH: usize = 32;

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = options! {
        budget: budget! {
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_recorded_anchor_events: 4 * MAX_NODES,
            max_depth: MAX_DEPTH,
            max_documents: 1,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    let read: Result<Spanned<Value>, _> = serde_saphyr::from_str_with_options(text, options);
    read.map(node).map_err(|e| {
        let located = e.location().map_or(At::default(), at);
        let why = e.without_snippet().render_with_formatter(&UserMessageFormatter);
        let line = why.lines().next().unwrap_or_default();
        // It names the limit in terms of its own.
        let line =
            if line.contains("limits breached") { "it is too large, too deep or repeats too much" } else { line };
        // The place is said beside the message.
        let line = line.rsplit_once(" at line ").map_or(line, |(head, _)| head);
        SyntaxError { why: format!("this is no YAML that can be read: {line}"), at: located }
    })
}

fn at(location: Location) -> At {
    let number = |n: u64| usize::try_from(n).unwrap_or_default();
    At { line: number(location.line()), column: number(location.column()) }
}

fn node(s: Spanned<Value>) -> Node {
    Node { value: s.value, at: at(s.referenced) }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, i: i64) -> Result<Value, E> {
        Ok(Value::Int(i))
    }

    fn visit_u64<E: serde::de::Error>(self, i: u64) -> Result<Value, E> {
        i64::try_from(i).map(Value::Int).map_err(|_| E::custom(format!("{i} does not fit 64 bits")))
    }

    fn visit_i128<E: serde::de::Error>(self, i: i128) -> Result<Value, E> {
        Err(E::custom(format!("{i} does not fit 64 bits")))
    }

    fn visit_u128<E: serde::de::Error>(self, i: u128) -> Result<Value, E> {
        Err(E::custom(format!("{i} does not fit 64 bits")))
    }

    fn visit_f64<E>(self, f: f64) -> Result<Value, E> {
        Ok(Value::Float(f))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut all = vec![];
        while let Some(one) = seq.next_element()? {
            all.push(node(one));
        }
        Ok(Value::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut all = vec![];
        while let Some((key, value)) = map.next_entry::<Spanned<Value>, Spanned<Value>>()? {
            let at = at(key.referenced);
            // A name such as `1` is read as a number.
            let name = match key.value {
                Value::Text(text) => text,
                Value::Int(i) => i.to_string(),
                Value::Bool(b) => b.to_string(),
                _ => return Err(A::Error::custom("a key that is no text")),
            };
            all.push((Key { name, at }, node(value)));
        }
        Ok(Value::Table(all))
    }
}
