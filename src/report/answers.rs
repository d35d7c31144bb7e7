//! The six answers of a comparison, in the order in which people ask.

use super::whole::Whole;
use crate::{
    compare::OutputDiff,
    diff::{State, Why, blame, fixed},
    names::listed,
    parity::Run,
};
use mlconv_tensor::DType;
use serde_json::{Value, json};

/// Decibels by which a run must be worse than those that are judged to be told of.
const WORSE: f64 = 3.0;
/// Runs that are told of.
const TOLD: usize = 4;

/// The six answers.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Was anything skipped or approximated?
    pub approximated: Vec<String>,
    /// Which output is worst?
    pub worst: String,
    /// Which op started it?
    pub started: Option<String>,
    /// Is it worse for other shapes or inputs?
    pub elsewhere: Vec<String>,
    /// What do I change?
    pub change: Vec<String>,
    /// What was not tested?
    pub untested: Vec<String>,
}

pub(super) fn json(whole: &Whole<'_>) -> Value {
    let Answers { approximated, worst, started, elsewhere, change, untested } = Answers::of(whole);
    json!({
        "approximated": approximated,
        "worst": worst,
        "started": started,
        "elsewhere": elsewhere,
        "change": change,
        "untested": untested,
    })
}

impl Answers {
    /// Those of a comparison.
    pub fn of(whole: &Whole<'_>) -> Self {
        Self {
            approximated: approximated(whole),
            worst: worst(whole),
            started: started(whole),
            elsewhere: elsewhere(whole),
            change: change(whole),
            untested: untested(whole),
        }
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut say = |question: &str, lines: &[String], none: &str| {
            out += &format!("{question}\n");
            for line in lines {
                out += &format!("  {line}\n");
            }
            if lines.is_empty() {
                out += &format!("  {none}\n");
            }
        };
        say("Was anything skipped or approximated?", &self.approximated, "No.");
        say("Which output is worst?", std::slice::from_ref(&self.worst), "");
        say("Which op started it?", self.started.as_slice(), "That was not asked: `mlconv diff A B --bisect` says it.");
        say("Is it worse for other shapes or inputs?", &self.elsewhere, "Not in what was run.");
        say("What do I change?", &self.change, "Nothing.");
        say("What was not tested?", &self.untested, "Nothing that is known of.");
        out
    }
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
    format!("`{}`: {}; {verdict}.", o.name, said.join(", "))
}

/// How far an output is off, in a few words.
fn measure(o: &OutputDiff) -> String {
    match (&o.mismatch, o.unequal) {
        (Some(why), _) => why.clone(),
        (None, _) if o.drawn => "it follows from random numbers".to_owned(),
        (None, Some(0)) => "equal".to_owned(),
        (None, Some(n)) => format!("{n} of {} elements differ", o.count),
        (None, None) if o.non_finite > 0 => format!("{} elements are not finite alike", o.non_finite),
        (None, None) => o.snr_db.map_or_else(|| "equal".to_owned(), |db| format!("SNR {db:.1} dB")),
    }
}

fn started(whole: &Whole<'_>) -> Option<String> {
    let (sides, one) = whole.worst()?;
    let found = &one.bisection;
    let Some(c) = found.culprits.first() else {
        return Some(if found.states.iter().all(|s| *s == State::Exact) {
            "None: every value that was compared is exact.".to_owned()
        } else {
            "None by itself: no op is off by more than its types explain.".to_owned()
        });
    };
    let op = &found.walk.ops[c.at];
    let name = &sides.g.value(op.value).hint;
    let place = crate::diff::place(sides, op).first().map_or_else(String::new, |p| format!(", from {p}"));
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
    let judged = |name: &str| {
        let same = runs.iter().filter(|r| r.judged).flat_map(|r| &r.outputs).filter(|o| o.name == name);
        same.map(quality).fold(1e3, f64::min)
    };
    // An output is compared with itself: another may be better or worse by nature, and random numbers are neither.
    let worst = |run: &'_ Run| -> Option<(f64, String)> {
        if let Some(why) = &run.error {
            return Some((f64::NEG_INFINITY, format!("{}: the package does not run: {why}.", run.what())));
        }
        let worse = run.outputs.iter().filter(|o| !o.drawn && quality(o) < judged(&o.name) - WORSE);
        let o = worse.min_by(|a, b| quality(a).total_cmp(&quality(b)))?;
        let verdict = if o.pass { "within the tolerance" } else { "beyond the tolerance" };
        Some((quality(o), format!("{}: `{}` {}, {verdict}.", run.what(), o.name, measure(o))))
    };
    let mut worse: Vec<(f64, String)> = runs.iter().filter(|r| !r.judged).filter_map(worst).collect();
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
        Some((sides, c, &one.bisection.walk))
    });
    match whole.mended {
        Some(r) if r.names.is_empty() => {
            out.push(
                "Convert again, with what the package says of how it was made: that was tried, and passes.".to_owned(),
            );
        }
        Some(r) => out.push(format!("Add `{}` to `{}`: that was tried, and passes.", r.options(), r.command())),
        None => {}
    }
    if let Some((sides, c, walk)) = first {
        match c.why {
            Why::Compressed if whole.mended.is_none() => {
                let weights = blame::behind(sides.g, &fixed(sides.g), &blame::known(walk), walk.ops[c.at].op);
                let names = listed(weights.iter().map(|w| &*sides.g.value(w.weight).hint));
                out.push(format!("Give {names} another scheme, or none: `--tensor 'NAME=none'` of `mlconv compress`."));
            }
            Why::Differs if whole.mended.is_none() => {
                out.push(
                    "Convert again; if it stays, `mlconv diff A B --bisect --reduce FOLDER` writes what to report."
                        .to_owned(),
                );
            }
            Why::Compressed | Why::Differs | Why::Rounds | Why::Overflows => {}
        }
    }
    if out.is_empty() {
        out.push(match (whole.bisected, whole.parity.half) {
            (false, _) => "`mlconv diff A B --bisect` finds the op, and looks for what mends it.".to_owned(),
            (true, true) => {
                "Convert with `--precision fp32`, or compress less: nothing smaller was found to do.".to_owned()
            }
            (true, false) => "Compress less: nothing smaller was found to do.".to_owned(),
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
