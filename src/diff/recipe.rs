//! Which ops must compute in single precision for outputs to be within the tolerance: the least that was found to do.

use super::{Bisection, State, Why, examine};
use crate::{
    Failure,
    convert::{Job, rewritten},
    model::Format,
    names::quoted,
    parity::{self, Given, Parity, Scope},
    settings::toml,
    watch::Watch,
    witness::Chosen,
};
use mlconv_mil::{
    ir::{Function, Module, OpId, Value},
    ops::{Cast, Const},
    text::Namer,
    verify::Verified,
};
use mlconv_passes::Pattern;
use mlconv_tensor::DType;
use std::collections::HashSet;

/// Times that ops are added before it is given up.
const MAX_ROUNDS: usize = 8;
/// Trials of leaving some names out, to find the fewest that do.
const MAX_TRIED: usize = 24;
/// Bytes of values that are held to compare with.
const MAX_BYTES: usize = 1 << 30;

/// What keeps outputs within the tolerance.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// What it does.
    pub keeps: Keeps,
    /// The names that it does it to; none where converting again is all that it takes.
    pub names: Vec<String>,
    /// The comparison of what comes of it.
    pub parity: Parity,
    /// The command that does it, where one makes the whole package again.
    pub again: Option<String>,
}

/// What a recipe keeps as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Ops of these names in single precision.
    Precision,
    /// Weights of these names as they are.
    Weights,
}

impl Recipe {
    /// The lines of a recipe file.
    pub fn lines(&self) -> Vec<String> {
        match self.keeps {
            _ if self.names.is_empty() => vec![],
            Keeps::Precision => vec!["[convert]".to_owned(), keep_fp32(&self.names)],
            Keeps::Weights => {
                let rule = |name: &String| {
                    let pattern = format!("pattern = {}", toml::text(&pattern(name)));
                    ["[[compress.tensor]]".to_owned(), pattern, "scheme = \"none\"".to_owned()]
                };
                self.names.iter().flat_map(rule).collect()
            }
        }
    }

    /// What would be typed, beside what was.
    pub fn options(&self) -> String {
        let one = |name: &String| match self.keeps {
            Keeps::Precision => format!("--keep-fp32 {}", quoted(name)),
            Keeps::Weights => format!("--tensor {}", quoted(&format!("{}=none", pattern(name)))),
        };
        self.names.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// The command that takes it.
    pub fn command(&self) -> &'static str {
        match self.keeps {
            Keeps::Precision => "mlconv convert",
            Keeps::Weights => "mlconv compress",
        }
    }
}

/// The line of a recipe that keeps ops in single precision.
pub fn keep_fp32(names: &[String]) -> String {
    format!("keep_fp32 = {}", toml::list(&names.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// A pattern of a weight's name, by that of the source as by that of the package.
pub(crate) fn pattern(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '.' };
    format!("^{}$", name.chars().map(plain).collect::<String>())
}

/// Finds a recipe for `source`, from which `job` has made `package`, whose outputs on `given` are beyond the tolerance of
/// `parity`. `None` where none is found.
pub fn search(
    source: &Verified,
    package: &Verified,
    job: &Job,
    format: Format,
    given: Given<'_>,
    parity: &Parity,
) -> Option<Recipe> {
    // What is asked for already is a part of it.
    let asked: Vec<String> = job.keep_fp32.iter().map(|p| p.as_str().to_owned()).collect();
    let (mut names, mut parity, mut module) = (asked.clone(), parity.clone(), package.clone());
    for round in 0..MAX_ROUNDS {
        let found = blamed(source, &module, given, &parity, &names, 1 << round);
        if found.is_empty() {
            return None;
        }
        names.extend(found);
        (module, parity) = tried(source, job, format, given, &parity, &names)?;
        if parity.pass() {
            let passes = |names: &[String]| {
                let (_, again) = tried(source, job, format, given, &parity, names)?;
                again.pass().then_some(again)
            };
            let found = Recipe { keeps: Keeps::Precision, names, parity: parity.clone(), again: None };
            return Some(fewest(found, asked.len(), passes));
        }
    }
    None
}

/// Converting again, with what the package says of how it was made, where that does.
pub fn again(source: &Verified, job: &Job, format: Format, given: Given<'_>, parity: &Parity) -> Option<Recipe> {
    let (_, parity) = tried(source, job, format, given, parity, &[])?;
    parity.pass().then_some(Recipe { keeps: Keeps::Precision, names: vec![], parity, again: None })
}

/// What comes of a conversion with these ops in single precision.
pub(super) fn tried(
    source: &Verified,
    job: &Job,
    format: Format,
    given: Given<'_>,
    parity: &Parity,
    names: &[String],
) -> Option<(Verified, Parity)> {
    let module = kept(source, job, names).ok()?;
    let scope = Scope { fast: true, ..Scope::quick(parity.tolerance) };
    let parity = parity::compared(source, &module, given, &scope, Chosen::kernels(format)).ok()?;
    Some((module, parity))
}

/// The program to be written, with these ops kept too.
fn kept(source: &Verified, job: &Job, names: &[String]) -> Result<Verified, Failure> {
    let mut job = job.clone();
    job.keep_fp32 = names.iter().map(Pattern::new).collect();
    job.watch = Watch::default();
    rewritten(source, &job)
}

/// The recipe without those of its names, but for the first `asked`, that it does without; `passes` gives the comparison of what
/// comes of some names where that is within the tolerance. Halves are left out on trial, then ever smaller parts.
pub(super) fn fewest(mut best: Recipe, asked: usize, passes: impl Fn(&[String]) -> Option<Parity>) -> Recipe {
    let (mut size, mut left) = ((best.names.len() - asked).div_ceil(2), MAX_TRIED);
    while size > 0 && left > 0 {
        let mut at = asked;
        // One name is left at least.
        while at < best.names.len() && best.names.len() > asked + 1 && left > 0 {
            let end = best.names.len().min(at + size);
            let fewer = [&best.names[..at], &best.names[end..]].concat();
            if fewer.len() == asked {
                break;
            }
            left -= 1;
            match passes(&fewer) {
                Some(parity) => best = Recipe { names: fewer, parity, ..best },
                None => at = end,
            }
        }
        size /= 2;
    }
    best
}

/// Patterns of ops that outputs which are off may suffer from, and that are not among `names`: of those to blame, the first;
/// where there is none, the `most` that add the most noise of their own.
fn blamed(
    source: &Verified,
    package: &Verified,
    given: Given<'_>,
    parity: &Parity,
    names: &[String],
    most: usize,
) -> Vec<String> {
    let scope = Scope { fast: true, ..Scope::quick(parity.tolerance) };
    let mut out: Vec<String> = vec![];
    for one in examine(source, package, (given, &scope), parity, MAX_BYTES).unwrap_or_default() {
        let (found, g) = (&one.bisection, one.sides(source, package).g);
        if found.pass {
            continue;
        }
        let new = |v: Value| -> Vec<String> {
            let all = rounding(g, v).into_iter().map(|n| exactly(package, &n));
            all.filter(|n| !names.contains(n)).collect()
        };
        let of_culprit = found.culprits.iter().filter(|c| c.why != Why::Compressed).find_map(|c| {
            let names = new(found.walk.ops[c.at].value);
            (!names.is_empty()).then_some(names)
        });
        let of_loud = || {
            let mut all: Vec<String> = vec![];
            for name in loudest(found).into_iter().flat_map(new) {
                if all.len() < most && !all.contains(&name) {
                    all.push(name);
                }
            }
            all
        };
        for name in of_culprit.unwrap_or_else(of_loud) {
            if !out.contains(&name) {
                out.push(name);
            }
        }
    }
    out
}

/// A pattern that means the op of a value of this name, and no other: the name as a package has it, marked as one where other
/// ops are of that type, or in a module of that name.
fn exactly(module: &Module, name: &str) -> String {
    let name = Namer::legal(name);
    let plain = Pattern::new(&name);
    let is_it = |f: &Function, id: OpId| f.op_data(id).results.iter().any(|v| Namer::legal(&f.value(*v).hint) == *name);
    let mut all = module.functions.iter().flat_map(|f| f.ops().map(move |id| (f, id)));
    let is_wide = all.any(|(f, id)| plain.means(module, f, id) && !is_it(f, id));
    if is_wide { Pattern::named(&name).as_str().to_owned() } else { name }
}

/// Values that are off, those of the greatest noise of their own first.
fn loudest(found: &Bisection) -> Vec<Value> {
    let ops = found.walk.ops.iter().zip(&found.states).filter(|(_, s)| **s != State::Exact);
    let mut loud: Vec<(f64, Value)> = ops.filter_map(|(op, _)| Some((op.own.as_ref()?.snr_db()?, op.value))).collect();
    loud.sort_by(|a, b| a.0.total_cmp(&b.0));
    loud.into_iter().map(|(_, v)| v).collect()
}

/// The names of the ops that round a value: of the op itself, or where it computes in single precision already, of those that
/// give it what they have rounded.
fn rounding(g: &Function, v: Value) -> Vec<String> {
    let (mut seen, mut names) = (HashSet::new(), vec![]);
    let mut todo: Vec<OpId> = g.def_op(v).into_iter().collect();
    while let Some(id) = todo.pop() {
        let rounds = |v: &Value| g.ty(*v).tensor().is_some_and(|t| t.dtype == DType::F16);
        let data = g.op_data(id);
        let is_own = g.op::<Cast>(id).is_none() && g.op::<Const>(id).is_none();
        if let Some(v) = data.results.iter().find(|v| is_own && rounds(v)) {
            names.push(g.value(*v).hint.to_string());
            continue;
        }
        data.op.visit_operands(&mut |v| todo.extend(g.def_op(v).filter(|id| seen.insert(*id))));
    }
    names
}
