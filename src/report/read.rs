//! Reads fields of a report: what is absent, null or of another type is not known.

use serde_json::Value;

/// The text of a field.
pub(super) fn text<'a>(of: &'a Value, field: &str) -> Option<&'a str> {
    of.get(field)?.as_str()
}

/// The number of a field; finite, as JSON has no other.
pub(super) fn number(of: &Value, field: &str) -> Option<f64> {
    of.get(field)?.as_f64()
}

/// The count of a field.
pub(super) fn count(of: &Value, field: &str) -> Option<u64> {
    of.get(field)?.as_u64()
}

/// Whether a field is true.
pub(super) fn flag(of: &Value, field: &str) -> Option<bool> {
    of.get(field)?.as_bool()
}

/// The elements of a field that is a list; none where it is not.
pub(super) fn list<'a>(of: &'a Value, field: &str) -> &'a [Value] {
    of.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The sentences of a field that is one or a list of them; `None` where the field is absent or null.
pub(super) fn sentences<'a>(of: &'a Value, field: &str) -> Option<Vec<&'a str>> {
    match of.get(field)? {
        Value::String(one) => Some(vec![one]),
        Value::Array(many) => Some(many.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}
