//! The six answers of a comparison, in the order in which people ask.

use super::{text::measure, whole::Whole, worse};
use crate::{
    compare::OutputDiff,
    diff::{
        State, Verdict, Why, blame, fixed,
        recipe::{Recipe, pattern},
    },
    names::{listed, quoted, shown},
    parity::Run,
};
use mlconv_tensor::DType;
use serde_json::{Value, json};

/// Runs that are told of.
const TOLD: usize = 4;

pub(super) fn json(whole: &Whole<'_>) -> Value {
    json!({
        "approximated": approximated(whole),
        "worst": worst(whole),
        "started": started(whole),
        "elsewhere": elsewhere(whole),
        "change": change(whole),
        "untested": untested(whole),
    })
}

fn approximated(whole: &Whole<'_>) -> Vec<String> {
    let mut out = vec![];
    let functions = &whole.package.functions;
    let all = functions.iter().flat_map(|f| f.all_ops().into_iter().map(move |id| (f, id)));
    let floats: Vec<DType> = all.filter_map(|(f, id)| super::whole::computes_in(f, id)).collect();
    let halves = floats.iter().filter(|d| **d == DType::F16).count();
    if halves > 0 {
        out.push(format!("{halves} of {} ops on floats compute in half precision.", floats.len()));
    }
    let compressed: Vec<blame::Compressed> = functions
        .iter()
        .flat_map(|f| {
            let fixed = fixed(f);
            f.ops().filter(|id| !fixed.contains(id)).flat_map(|id| blame::compressed(f, &fixed, id)).collect::<Vec<_>>()
        })
        .collect();
    if let Some(least) = compressed.iter().map(|w| w.bits).reduce(f64::min) {
        let most = compressed.iter().map(|w| w.bits).fold(least, f64::max);
        let bits = if most - least < 0.05 { format!("{least:.1}") } else { format!("{least:.1} to {most:.1}") };
        let weights =
            if compressed.len() == 1 { "1 weight is".to_owned() } else { format!("{} weights are", compressed.len()) };
        out.push(format!("{weights} compressed, to {bits} bits for each element."));
    }
    out.extend(whole.notes.iter().chain(&whole.parity.notes).map(|d| sentence(&d.title)));
    out
}

/// A title as a sentence.
fn sentence(title: &str) -> String {
    let mut chars = title.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if title.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

/// How good an output is, in dB; one that cannot be said so of is the worst or the best.
fn quality(o: &OutputDiff) -> f64 {
    let broken = o.mismatch.is_some() || o.non_finite > 0 || o.unequal.is_some_and(|n| n > 0);
    if broken { -1e3 } else { o.snr_db.filter(|_| !o.drawn).unwrap_or(1e3) }
}

fn worst(whole: &Whole<'_>) -> String {
    let outputs = &whole.parity.outputs;
    let Some(o) = outputs.iter().min_by(|a, b| a.pass.cmp(&b.pass).then(quality(a).total_cmp(&quality(b)))) else {
        return "There is no output to compare.".to_owned();
    };
    let mut said: Vec<String> = vec![];
    for a in whole.parity.accuracy.iter().filter(|a| a.output == o.name) {
        let part = |n: usize| 100.0 * n as f64 / a.samples.max(1) as f64;
        let (source, package) = (part(a.source_correct), part(a.package_correct));
        said.push(format!("top-1 accuracy {package:.2} %, where the source has {source:.2} %"));
    }
    if let Some(task) = &o.task {
        said.extend(task.text());
    }
    said.push(measure(o));
    let verdict = match (o.pass, outputs.iter().filter(|o| !o.pass).count()) {
        (true, _) => "it is within the tolerance".to_owned(),
        (false, 1) => "it is beyond the tolerance".to_owned(),
        (false, n) => format!("{n} of {} outputs are beyond the tolerance", outputs.len()),
    };
    format!("`{}`: {}; {verdict}.", shown(&o.name), said.join(", "))
}

fn started(whole: &Whole<'_>) -> Option<String> {
    let (sides, one) = whole.worst()?;
    let found = &one.bisection;
    let Some(c) = found.culprits.first() else {
        let exact = || found.states.iter().filter(|s| **s == State::Exact).count();
        let none = match found.verdict() {
            Verdict::Agrees => {
                format!(
                    "None: all {} values that were compared, on the inputs of the worst judged sample, are exact.",
                    exact()
                )
            }
            Verdict::Unknown => "It cannot be said: too few values of both could be paired.".to_owned(),
            Verdict::Accumulates | Verdict::Found => {
                "None by itself: no op is off by more than its types explain.".to_owned()
            }
        };
        let most = found.loudest().filter(|_| !found.pass).map(|at| {
            let op = &found.walk.ops[at];
            let name = shown(&sides.g.value(op.value).hint);
            let place =
                crate::diff::place(sides, op).first().map_or_else(String::new, |p| format!(", from {}", shown(p)));
            format!(" Most is lost in `{name}`{place}, as what it reads is rounded.")
        });
        return Some(none + &most.unwrap_or_default());
    };
    let op = &found.walk.ops[c.at];
    let name = shown(&sides.g.value(op.value).hint);
    let place = crate::diff::place(sides, op).first().map_or_else(String::new, |p| format!(", from {}", shown(p)));
    let own = op.own.as_ref().and_then(|o| o.snr_db()).filter(|db| db.is_finite());
    let own = own.map_or_else(String::new, |db| {
        let explained =
            found.explained_db(c.at).map_or_else(String::new, |e| format!(" where {e:.1} dB are explained"));
        format!(": its own error is at {db:.1} dB{explained}")
    });
    Some(format!("`{name}` ({}){place}, {}{own}.", sides.g.op_data(op.op).op.name(), c.why.name()))
}

fn elsewhere(whole: &Whole<'_>) -> Vec<String> {
    let runs = &whole.parity.runs;
    if runs.iter().all(|r| r.judged) {
        return vec!["Nothing else was run: `mlconv verify` runs other shapes and inputs.".to_owned()];
    }
    let said = |run: &Run| -> Option<(f64, String)> {
        if let Some(why) = &run.error {
            return Some((f64::NEG_INFINITY, format!("{}: the package does not run: {why}.", run.what())));
        }
        let o = worse::worst(whole.parity, run)?;
        let verdict = if o.pass { "within the tolerance" } else { "beyond the tolerance" };
        Some((quality(o), format!("{}: `{}` {}, {verdict}.", run.what(), shown(&o.name), measure(o))))
    };
    let mut worse: Vec<(f64, String)> = runs.iter().filter(|r| !r.judged).filter_map(said).collect();
    worse.sort_by(|a, b| a.0.total_cmp(&b.0));
    let more = worse.len().saturating_sub(TOLD);
    let mut out: Vec<String> = worse.into_iter().take(TOLD).map(|(_, said)| said).collect();
    if more > 0 {
        out.push(format!("And {more} more."));
    }
    out
}

fn change(whole: &Whole<'_>) -> Vec<String> {
    if whole.parity.pass() {
        return vec![];
    }
    let mut out = vec![];
    let first = whole.worst().and_then(|(sides, one)| {
        let c = one.bisection.culprits.first()?;
        Some((sides, c, &one.bisection.weights[c.at]))
    });
    match whole.mended {
        Some(r) if r.again.is_none() && r.names.is_empty() => out.push(
            "Convert again, with what the package says of how it was made: that was tried, and passes.".to_owned(),
        ),
        Some(Recipe { again: Some(line), .. }) => {
            out.push(format!("Convert again: `{line}`. That was tried, and passes."));
        }
        Some(r) => out.push(format!("Add `{}` to `{}`: that was tried, and passes.", r.options(), r.command())),
        None => {}
    }
    if let Some((sides, c, weights)) = first {
        match c.why {
            Why::Compressed if whole.mended.is_none() => {
                let names = || weights.iter().map(|w| &*sides.g.value(w.weight).hint);
                let rules: Vec<String> = names()
                    .map(|n| format!("--tensor {}", quoted(&format!("{}=none", pattern(n)))))
                    .take(TOLD)
                    .collect();
                let give = format!("Give {} another scheme, or none", listed(names().take(TOLD)));
                out.push(format!("{give}: `{}` added to `mlconv compress`.", rules.join(" ")));
            }
            Why::Differs if whole.mended.is_none() => {
                let further = whole.bisect.filter(|line| !line.contains("--reduce"));
                let reduce = further.map_or_else(String::new, |line| {
                    format!("; if it stays, `{line} --reduce fault` writes what to report into a new folder")
                });
                out.push(format!("Convert again{reduce}."));
            }
            Why::Compressed | Why::Differs | Why::Rounds | Why::Overflows | Why::Unknown => {}
        }
    }
    if out.is_empty() {
        out.push(match (whole.bisect.filter(|_| !whole.bisected), whole.bisected, whole.parity.half) {
            (Some(line), ..) => format!("`{line}` finds the op, and looks for what mends it."),
            (None, false, _) => {
                "Compare with the source, which `--against` names: recorded outputs tell of no op.".to_owned()
            }
            (None, true, true) => {
                "Convert with `--precision fp32`, or compress less: nothing smaller was found to do.".to_owned()
            }
            (None, true, false) => "Compress less: nothing smaller was found to do.".to_owned(),
        });
    }
    out
}

fn untested(whole: &Whole<'_>) -> Vec<String> {
    let mut out =
        vec!["The Neural Engine and the GPU of a device: a run here shows that the conversion is right.".to_owned()];
    out.extend(whole.parity.witness.unseen().map(str::to_owned));
    out.extend(whole.parity.untested.iter().map(|what| sentence(what)));
    out
}
