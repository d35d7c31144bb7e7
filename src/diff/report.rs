//! What a comparison value by value has found, for people and for programs.

use super::{Bisection, Culprit, OpGap, Own, Sides, State, Verdict, Why, blame::EXACT, computed, recipe::Recipe};
use crate::{
    names::{listed, shown},
    report::table,
};
use mlconv_mil::ir::{Function, Module, OpId, Value};
use serde_json::{Value as Json, json};
use std::collections::{HashMap, HashSet};

/// Ops that the table of a terminal has.
const SHOWN: usize = 10;
/// Culprits that are told of.
const TOLD: usize = 8;

impl State {
    /// For programs and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Explained => "explained",
            Self::Culprit => "culprit",
            Self::Inherits => "inherits",
            Self::NotCompared => "not compared",
        }
    }
}

impl Why {
    /// For programs and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overflows => "overflows half precision",
            Self::Compressed => "weights are compressed",
            Self::Rounds => "loses precision",
            Self::Differs => "computes something else",
            Self::Unknown => "is off by more than its types explain",
        }
    }
}

/// Where the value that an op is compared with comes from, in the source model.
pub(crate) fn place(sides: Sides<'_>, op: &OpGap) -> Vec<String> {
    let of = |module: &Module, f: &Function, v: Value| f.def_op(v).map(|id| sources(module, f, id)).unwrap_or_default();
    let first = op.paired.map(|a| of(sides.a, sides.f, a)).unwrap_or_default();
    if first.is_empty() { of(sides.b, sides.g, op.value) } else { first }
}

fn sources(module: &Module, f: &Function, id: OpId) -> Vec<String> {
    let sources = f.op_data(id).origin.map(|o| module.origins.sources(o)).unwrap_or_default();
    sources.iter().map(ToString::to_string).collect()
}

/// As [`place`], with ops of the first model of which the second shows nothing, as it makes one of several.
fn places(sides: Sides<'_>, found: &Bisection, op: &OpGap) -> Vec<String> {
    let (f, mut out) = (sides.f, place(sides, op));
    let computed: HashSet<Value> = computed(f).collect();
    let mut todo: Vec<OpId> = op.paired.and_then(|a| f.def_op(a)).into_iter().collect();
    let mut seen: HashSet<OpId> = todo.iter().copied().collect();
    while let Some(id) = todo.pop().filter(|_| seen.len() < MOST_PLACES) {
        f.op_data(id).op.visit_operands(&mut |v| {
            let is_own = found.pairs.wanted(v) == 0 && computed.contains(&v);
            if let Some(id) = f.def_op(v).filter(|id| is_own && seen.insert(*id)) {
                todo.push(id);
                let new = sources(sides.a, f, id).into_iter().filter(|text| !out.contains(text)).collect::<Vec<_>>();
                out.extend(new);
            }
        });
    }
    out
}

/// Ops that one stands for of which it is said where they are.
const MOST_PLACES: usize = 6;

fn name(sides: Sides<'_>, op: &OpGap) -> String {
    sides.g.value(op.value).hint.to_string()
}

fn db(x: Option<f64>) -> String {
    match x {
        None => "exact".to_owned(),
        Some(db) if db == f64::NEG_INFINITY => "not finite".to_owned(),
        Some(db) => format!("{db:.1} dB"),
    }
}

/// A number for programs; an infinite one, which JSON does not have, is the least that decibels come to here.
fn decibels(x: Option<f64>) -> Json {
    x.map_or(Json::Null, |db| json!(db.max(-999.0)))
}

/// The ops of the second model for programs; `first` ops of other functions come before them.
pub fn ops_json(sides: Sides<'_>, found: &Bisection, first: usize) -> Vec<Json> {
    let g = sides.g;
    let at: HashMap<OpId, usize> = found.walk.ops.iter().enumerate().map(|(i, op)| (op.op, i)).collect();
    let mut depths: Vec<usize> = vec![];
    let one = |(i, (op, state)): (usize, (&OpGap, &State))| {
        let mut reads: Vec<usize> = vec![];
        g.op_data(op.op).op.visit_operands(&mut |v| {
            if let Some(from) = g.def_op(v).and_then(|id| at.get(&id)).filter(|from| !reads.contains(from)) {
                reads.push(*from);
            }
        });
        let depth = reads.iter().filter_map(|r| depths.get(*r)).max().map_or(0, |d| d + 1);
        depths.push(depth);
        let (total, own) = (op.total.as_ref(), op.own.as_ref());
        json!({
            "index": first + i,
            "name": name(sides, op),
            "op": g.op_data(op.op).op.name(),
            "function": g.name,
            "type": g.ty(op.value).to_string(),
            "depth": depth,
            "reads": reads.iter().map(|r| first + r).collect::<Vec<_>>(),
            "paired": op.paired.map(|a| sides.f.value(a).hint.to_string()),
            "place": place(sides, op),
            "snr_db": decibels(total.and_then(|t| t.snr_db())),
            "max_abs": total.map(|t| t.max_abs),
            "own_snr_db": decibels(own.and_then(Own::snr_db)),
            "explained_snr_db": found.explained_db(i),
            "state": state.name(),
            "range": op.range,
        })
    };
    found.walk.ops.iter().zip(&found.states).enumerate().map(one).collect()
}

/// What was found for programs; ops are named by their places in [`ops_json`].
pub fn bisection_json(sides: Sides<'_>, found: &Bisection, recipe: Option<&Recipe>, first: usize) -> Json {
    let culprit = |c: &Culprit| {
        let op = &found.walk.ops[c.at];
        json!({
            "op": first + c.at,
            "name": name(sides, op),
            "place": places(sides, found, op),
            "why": c.why.name(),
            "own_snr_db": decibels(op.own.as_ref().and_then(Own::snr_db)),
            "explained_snr_db": found.explained_db(c.at),
            "repaired_snr_db": decibels(c.repaired_snr_db),
        })
    };
    json!({
        "state": found.verdict().name(),
        "culprits": found.culprits.iter().take(TOLD).map(culprit).collect::<Vec<_>>(),
        "recipe": recipe.map(|r| json!({
            "lines": r.lines(),
            "command": (!r.names.is_empty()).then(|| r.options()),
            "again": r.again,
            "pass": r.parity.pass(),
            "outputs": r.parity.outputs,
        })),
        "not_looked_at": found.walk.missed,
        "paired_by_value": found.pairs.alike(),
        "compared": found.compared(),
    })
}

/// The ops of the greatest error of their own, as a table.
pub fn ops_text(sides: Sides<'_>, found: &Bisection) -> String {
    let off = |i: &usize| found.walk.ops[*i].own.as_ref().is_some_and(|own| !own.gap.is_exact());
    let mut order: Vec<usize> = (0..found.walk.ops.len()).filter(off).collect();
    let key = |i: usize| found.walk.ops[i].own.as_ref().and_then(|o| o.snr_db()).unwrap_or(f64::INFINITY);
    order.sort_by(|a, b| key(*a).total_cmp(&key(*b)).then(a.cmp(b)));
    order.truncate(SHOWN);
    order.sort_unstable();
    let header = ["op", "", "own error", "explained", "with inherited", ""].map(str::to_owned).to_vec();
    let row = |i: usize| {
        let (op, state) = (&found.walk.ops[i], found.states[i]);
        let (own, total) = (op.own.as_ref(), op.total.as_ref());
        vec![
            shown(&name(sides, op)),
            sides.g.op_data(op.op).op.name().to_owned(),
            db(own.and_then(Own::snr_db)),
            db(found.explained_db(i)),
            db(total.and_then(|t| t.snr_db())),
            if state == State::Culprit { "CULPRIT".to_owned() } else { state.name().to_owned() },
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(order.into_iter().map(row)).collect();
    if rows.len() == 1 { String::new() } else { table(&rows) }
}

/// What was found for people.
pub fn bisection_text(sides: Sides<'_>, found: &Bisection) -> String {
    let compared = found.compared();
    let alike = match found.pairs.alike() {
        0 => String::new(),
        n => format!("; {n} values were paired by what they are, as names do not tell"),
    };
    let seen = format!("{compared} of {} ops were compared with values of the source{alike}", found.states.len());
    let missed = match found.walk.missed {
        0 => String::new(),
        n => format!("; {n} values did not fit in memory, which `--max-memory` bounds"),
    };
    let none = match found.verdict() {
        Verdict::Found => None,
        Verdict::Unknown if compared * 2 >= found.states.len() => {
            Some("no value that was compared differs: outputs do for what is behind the ops, such as labels")
        }
        Verdict::Unknown => Some("which op is to blame cannot be said: too little could be compared"),
        Verdict::Agrees => Some("every value that was compared is the same"),
        Verdict::Accumulates => Some("no op is off by more than its types explain"),
    };
    let constants = match &*found.constants {
        [] => String::new(),
        all => format!("made of constants alone, which differ: {}\n", listed(all)),
    };
    if let Some(none) = none {
        let most = found.loudest().filter(|_| !found.pass).map(|at| {
            let op = &found.walk.ops[at];
            let place = place(sides, op).first().map_or_else(String::new, |from| format!("\n  from {}", shown(from)));
            let own = db(op.own.as_ref().and_then(Own::snr_db));
            let what = sides.g.op_data(op.op).op.name();
            format!(
                "most is lost in `{}` ({what}): its own error is at {own}, as what it reads is rounded{place}\n",
                shown(&name(sides, op))
            )
        });
        return format!("{constants}{none}; {seen}{missed}\n{}", most.unwrap_or_default());
    }
    let fine = "though outputs are within the tolerance, there are ops that are off by more than their types explain\n";
    let mut out = if found.pass { fine.to_owned() } else { String::new() };
    for (at, c) in found.culprits.iter().take(TOLD).enumerate() {
        out += &culprit_text(sides, found, c, at == 0);
    }
    let more = found.culprits.len().saturating_sub(TOLD);
    if more > 0 {
        out += &format!("and {more} more\n");
    }
    out + &constants + &format!("{seen}{missed}\n")
}

/// What is known of an op to blame.
pub(super) fn culprit_text(sides: Sides<'_>, found: &Bisection, c: &Culprit, is_first: bool) -> String {
    let (op, g) = (&found.walk.ops[c.at], sides.g);
    let head = match is_first {
        true if found.pass => "off is",
        true => "the op to blame is",
        false => "also off:",
    };
    let mut out =
        format!("{head} `{}` ({}), which {}\n", shown(&name(sides, op)), g.op_data(op.op).op.name(), says(c.why));
    for line in places(sides, found, op) {
        out += &format!("  from {}\n", shown(&line));
    }
    let own = db(op.own.as_ref().and_then(Own::snr_db));
    out += &format!("  its own error: SNR {own}");
    if let Some(explained) = found.explained_db(c.at) {
        out += &format!(", where {} is explained", db(Some(explained)));
    }
    if let Some(repaired) = c.repaired_snr_db.filter(|_| is_first) {
        let outputs = if repaired >= EXACT { "exact".to_owned() } else { format!("at {repaired:.1} dB") };
        out += &format!("; with right values up to it, the worst output is {outputs}");
    }
    out + "\n"
}

/// What an op does, behind `which`.
fn says(why: Why) -> &'static str {
    match why {
        Why::Overflows => "gives values beyond what half precision holds, 65504",
        Why::Compressed => "reads weights whose compression costs more than it should",
        Why::Rounds => "loses precision that single precision would keep",
        Why::Differs => "computes something else, in single precision as well",
        Why::Unknown => "is off by more than its types explain",
    }
}
