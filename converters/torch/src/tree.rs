//! Names in the trees of values that a program takes and returns.
//!
//! A program has a flat list of results, and beside it how they lie in what the user's `forward` returns: tuples,
//! dictionaries, classes of data. Keys and fields name what they hold.

use serde_json::Value as Json;

/// Nesting beyond which a tree is not read.
const MAX_DEPTH: usize = 32;
/// Values that a tree may have.
const MAX_LEAVES: usize = 1 << 16;
/// Bytes that a name may have: each key is part of the names of all that it leads to.
const MAX_NAME: usize = 1 << 10;

/// A name for each value of a tree, in order; empty for what no key or field leads to. `None` where the tree is of a form
/// that is not known.
pub(crate) fn names(spec: &str) -> Option<Vec<String>> {
    let spec: Json = serde_json::from_str(spec).ok()?;
    // The version of the form comes first.
    let tree = spec.as_array().and_then(|parts| parts.get(1))?;
    let mut out = vec![];
    walk(tree, "", 0, &mut out)?;
    Some(out)
}

fn walk(tree: &Json, path: &str, depth: usize, out: &mut Vec<String>) -> Option<()> {
    if depth > MAX_DEPTH || out.len() >= MAX_LEAVES || path.len() > MAX_NAME {
        return None;
    }
    if tree.get("type").is_none_or(Json::is_null) {
        out.push(path.to_owned());
        return Some(());
    }
    let children = tree.get("children_spec")?.as_array()?;
    let context = tree.get("context").and_then(Json::as_str).and_then(|text| serde_json::from_str::<Json>(text).ok());
    let keys = context.as_ref().and_then(|c| keys(c, children.len(), 0));
    for (i, child) in children.iter().enumerate() {
        let key = keys.as_ref().and_then(|k| k.get(i)).cloned();
        let own = match (key, path) {
            (Some(key), "") => key,
            (Some(key), path) => format!("{path}_{key}"),
            // A place in a list names nothing by itself.
            (None, "") => String::new(),
            (None, path) => format!("{path}_{i}"),
        };
        walk(child, &own, depth + 1, out)?;
    }
    Some(())
}

/// The keys of as many values in what a file has of a container: a list of them, in it or a part of it.
fn keys(context: &Json, count: usize, depth: usize) -> Option<Vec<String>> {
    if depth > 3 || count == 0 {
        return None;
    }
    match context {
        Json::Array(all) => {
            let key = |k: &Json| match k {
                Json::String(s) => Some(s.clone()),
                Json::Number(n) => Some(n.to_string()),
                _ => None,
            };
            let own: Option<Vec<String>> = all.iter().map(key).collect();
            own.filter(|own| own.len() == count).or_else(|| all.iter().find_map(|c| keys(c, count, depth + 1)))
        }
        Json::Object(all) => all.values().find_map(|c| keys(c, count, depth + 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: &str = r#"{"type": null, "context": null, "children_spec": []}"#;

    fn tree(kind: &str, context: &str, children: &[String]) -> String {
        let context = serde_json::to_string(context).expect("a text");
        format!(r#"{{"type": "{kind}", "context": {context}, "children_spec": [{}]}}"#, children.join(", "))
    }

    fn read(tree: &str) -> Option<Vec<String>> {
        names(&format!("[1, {tree}]"))
    }

    #[test]
    fn keys_and_fields_name_values() {
        let leaf = || LEAF.to_owned();
        let pair = tree("builtins.tuple", "null", &[leaf(), leaf()]);
        let dict = tree("builtins.dict", r#"["logits", "past"]"#, &[leaf(), pair.clone()]);
        assert_eq!(read(&dict).expect("a tree"), ["logits", "past_0", "past_1"]);
        let data = tree("Out", r#"[["logits", "hidden"], ["extra"]]"#, &[leaf(), leaf()]);
        assert_eq!(read(&tree("builtins.tuple", "null", &[leaf(), data])).expect("a tree"), ["", "logits", "hidden"]);
        assert_eq!(read(LEAF).expect("a tree"), [""]);
        assert_eq!(read(&pair).expect("a tree"), ["", ""]);
    }

    #[test]
    fn other_texts_name_nothing() {
        for text in ["", "[]", "[1]", "{}", "[1, {\"type\": \"x\"}]"] {
            assert_eq!(names(text), None, "{text}");
        }
        let deep = (0..200).fold(LEAF.to_owned(), |t, _| tree("builtins.tuple", "null", &[t]));
        assert_eq!(read(&deep), None);
        let long = |count: usize| tree("builtins.dict", &format!("[\"{}\"]", "k".repeat(count)), &[LEAF.to_owned()]);
        assert!(read(&long(MAX_NAME)).is_some());
        assert_eq!(read(&long(MAX_NAME + 1)), None);
    }
}
