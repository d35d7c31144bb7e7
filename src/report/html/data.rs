//! Ops as scripts read them: rows without names of fields, and each text once.
//!
//! | of the element | |
//! |---|---|
//! | `strings` | every text; the first is empty and stands for none |
//! | `ops` | rows of name, op, function, type, depth, state, SNR, own SNR, explained SNR, greatest difference, paired value, multiplications, reads, places, range |
//! | `kept` | where not all ops are there, their indices in the report; else null |
//! | `total` | how many ops the report has |
//! | `culprits` | rows of op, why, own SNR, explained SNR, repaired SNR, note |
//! | `weights` | rows of op, name, type, scheme, bits, bytes, bytes of the source, SNR |
//! | `tolerance` | least SNR of an output in dB |
//!
//! A range is a row of first exponent, counts, least and greatest value, least magnitude, zeros, and what is not finite.
//! Counts are a character each: `!` is none, and every further one 2^(1/3) times as many, from one on.

use super::super::{
    read::{count, list, number, text},
    words::printable,
};
use indexmap::IndexSet;
use serde_json::{Value, json};

/// Bytes that ops may take in a page.
const ROOM: usize = 1_300_000;
/// Characters of one text.
const LONGEST: usize = 200;
/// Places of one op, and ops that it reads.
const MOST: usize = 24;
/// Octaves from the least number of double precision to the greatest.
const OCTAVES: usize = 2098;

#[derive(Default)]
struct Strings(IndexSet<String>);

impl Strings {
    fn id(&mut self, of: &Value, field: &str) -> usize {
        text(of, field).map_or(0, |s| self.intern(s))
    }

    fn intern(&mut self, s: &str) -> usize {
        let mut short: String = printable(s).chars().take(LONGEST).collect();
        if s.chars().count() > LONGEST {
            short.push('…');
        }
        self.0.insert_full(short).0
    }
}

/// Ops, culprits and weights of a report for scripts; null where there are no ops.
pub(super) fn encode(report: &Value) -> Value {
    let ops = list(report, "ops");
    if ops.is_empty() {
        return Value::Null;
    }
    let mut most = ops.len().min(8192);
    loop {
        let data = encode_most(report, ops, most);
        if most <= 64 || data.to_string().len() <= ROOM {
            return data;
        }
        most /= 2;
    }
}

fn encode_most(report: &Value, ops: &[Value], most: usize) -> Value {
    let kept = worst(report, ops, most);
    let place: Vec<Option<usize>> = {
        let mut place = vec![None; ops.len()];
        for (new, old) in kept.iter().enumerate() {
            if let Some(slot) = place.get_mut(*old) {
                *slot = Some(new);
            }
        }
        place
    };
    let at = |of: &Value, field: &str| place.get(usize::try_from(count(of, field)?).ok()?).copied().flatten();
    let mut strings = Strings::default();
    strings.intern("");
    let rows: Vec<Value> = kept.iter().filter_map(|i| ops.get(*i)).map(|op| row(op, &place, &mut strings)).collect();
    let null = Value::Null;
    let bisection = report.get("bisection").unwrap_or(&null);
    let culprits: Vec<Value> = list(bisection, "culprits")
        .iter()
        .filter_map(|c| {
            let db = |field| decibels(c, field);
            let (why, note) = (strings.id(c, "why"), strings.id(c, "note"));
            Some(json!([at(c, "op")?, why, db("own_snr_db"), db("explained_snr_db"), db("repaired_snr_db"), note]))
        })
        .collect();
    let weights: Vec<Value> = list(report, "weights")
        .iter()
        .filter_map(|w| {
            let (op, name, ty, scheme) =
                (at(w, "op")?, strings.id(w, "name"), strings.id(w, "type"), strings.id(w, "scheme"));
            let bits = digits(number(w, "bits"));
            let (bytes, source) = (count(w, "bytes"), count(w, "bytes_source"));
            Some(json!([op, name, ty, scheme, bits, bytes, source, decibels(w, "snr_db")]))
        })
        .take(most)
        .collect();
    json!({
        "strings": strings.0.iter().collect::<Vec<_>>(),
        "ops": rows,
        "kept": (kept.len() < ops.len()).then_some(&kept),
        "total": ops.len(),
        "culprits": culprits,
        "weights": weights,
        "tolerance": report.get("tolerance").and_then(|t| number(t, "min_snr_db")),
    })
}

/// Which ops a page shows, in program order: all, or those with the greatest errors of their own.
fn worst(report: &Value, ops: &[Value], most: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..ops.len()).collect();
    if ops.len() <= most {
        return all;
    }
    all.sort_by(|a, b| rank(ops.get(*a)).total_cmp(&rank(ops.get(*b))));
    let named = report.get("bisection").map_or(&[][..], |b| list(b, "culprits"));
    let named: Vec<usize> = named.iter().filter_map(|c| usize::try_from(count(c, "op")?).ok()).collect();
    let (first, rest): (Vec<usize>, Vec<usize>) = all.into_iter().partition(|i| named.contains(i));
    let mut kept: Vec<usize> = first.into_iter().chain(rest).take(most).collect();
    kept.sort_unstable();
    kept
}

/// How early an op is among those that matter, the less, the earlier: culprits, then by errors of their own, then by what ops inherit.
pub(super) fn rank(op: Option<&Value>) -> f64 {
    let Some(op) = op else { return f64::INFINITY };
    let (class, db) = match (number(op, "own_snr_db"), number(op, "snr_db")) {
        (own, _) if text(op, "state") == Some("culprit") => (0.0, own.unwrap_or(0.0)),
        (Some(own), _) => (1.0, own),
        (None, Some(total)) => (2.0, total),
        (None, None) => (3.0, 0.0),
    };
    class * 1e4 + db.clamp(-999.0, 999.0)
}

fn row(op: &Value, place: &[Option<usize>], strings: &mut Strings) -> Value {
    let reads: Vec<usize> = list(op, "reads")
        .iter()
        .filter_map(|r| place.get(usize::try_from(r.as_u64()?).ok()?).copied().flatten())
        .take(MOST)
        .collect();
    let ids = ["name", "op", "function", "type"].map(|field| strings.id(op, field));
    let [name, kind, function, ty] = ids;
    let (state, paired) = (strings.id(op, "state"), strings.id(op, "paired"));
    let places: Vec<usize> =
        list(op, "place").iter().filter_map(Value::as_str).take(MOST).map(|p| strings.intern(p)).collect();
    let db = |field| decibels(op, field);
    json!([
        name,
        kind,
        function,
        ty,
        count(op, "depth"),
        state,
        db("snr_db"),
        db("own_snr_db"),
        db("explained_snr_db"),
        digits(number(op, "max_abs")),
        paired,
        count(op, "macs"),
        reads,
        places,
        op.get("range").and_then(range),
    ])
}

fn range(of: &Value) -> Option<Value> {
    let exponents = of.get("exponents");
    let first = exponents.and_then(|e| e.get("first")?.as_i64());
    let counts = exponents.map_or(&[][..], |e| list(e, "counts"));
    let codes: String = counts.iter().take(OCTAVES).map(|n| code(n.as_u64().unwrap_or(0))).collect();
    of.is_object().then(|| {
        let [min, max, least] = ["min", "max", "least"].map(|field| digits(number(of, field)));
        json!([first, codes, min, max, least, count(of, "zeros"), count(of, "non_finite")])
    })
}

/// A count in a character.
fn code(n: u64) -> char {
    if n == 0 {
        return '!';
    }
    // 93 characters up to `~` reach 2^30; what is more is as many.
    let third = ((n as f64).log2() * 3.0).round().clamp(0.0, 92.0) as u8;
    char::from(b'"'.saturating_add(third))
}

/// dB to a tenth.
fn decibels(of: &Value, field: &str) -> Option<f64> {
    number(of, field).map(|x| (x * 10.0).round() / 10.0)
}

/// A number to four digits.
fn digits(x: Option<f64>) -> Option<f64> {
    format!("{:.3e}", x?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_characters() {
        assert_eq!([0, 1, 2, 8, u64::MAX].map(code), ['!', '"', '%', '+', '~']);
    }

    #[test]
    fn what_does_not_fit_is_left_out_by_its_error() {
        let op = |i: usize| json!({"name": format!("{i}").repeat(300), "own_snr_db": 90.0 - i as f64, "reads": [0]});
        let ops: Vec<Value> = (0..5).map(op).collect();
        let report = json!({"ops": ops, "bisection": {"culprits": [{"op": 0}, {"op": 9}]}});
        let data = encode_most(&report, &ops, 2);
        assert_eq!((data["ops"].as_array().map(Vec::len), &data["total"]), (Some(2), &json!(5)));
        assert_eq!(data["culprits"], json!([[0, 0, null, null, null, 0]]));
        assert_eq!(data["strings"][2].as_str().map(|s| s.chars().count()), Some(201));
    }
}
