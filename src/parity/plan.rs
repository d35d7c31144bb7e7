//! What two models are run on: which inputs, of which shapes, in which arithmetic, and which of the runs are judged.

use super::pair::{Inputs, Pair};
use crate::{
    compare::{Said, Tolerance},
    convert,
    feed::tensor_inputs,
    golden::Recording,
    made_up::{self, Style},
    stateful,
    work::{Sizes, Work},
};
use mlconv_mil::ir::{Function, Module};
use mlconv_runner::{Emulate, Options};
use mlconv_tensor::SymbolInfo;
use std::{cell::RefCell, collections::HashSet, sync::Arc};

/// How two models are compared.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// How far outputs may be off.
    pub tolerance: Tolerance,
    /// What is said of outputs.
    pub kinds: &'a [Said],
    /// How much is run.
    pub extent: Extent,
    /// What the package computes in, in all runs that are judged.
    pub arithmetic: Arithmetic,
    /// Where the inputs and the source's outputs of judged runs are noted.
    pub record: Option<&'a RefCell<Recording>>,
    /// Whether the source's own lowering runs on the fast kernels from the first call on, not on those of reference.
    pub fast: bool,
}

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The samples, or one series of random inputs.
    Quick,
    /// All that is known of the inputs.
    Full {
        /// Random inputs of one shape.
        seeds: u64,
        /// Calls that follow each other, of models that remember.
        steps: usize,
    },
}

/// What a package computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arithmetic {
    /// Whether each op runs as its definition says, not on the fast kernels.
    pub reference: bool,
    /// Whether every value is rounded to half precision, where the package does not say what is.
    pub half: bool,
    /// Whether sums are accumulated in half precision, where their results are of that type.
    pub half_sums: bool,
}

impl Arithmetic {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self { half_sums: true, .. } => "fp16, fp16 sums",
            Self { half: true, .. } => "fp16",
            Self { reference: true, .. } => "reference",
            _ => "cpu",
        }
    }

    /// How a module runs in it. What was converted to half precision says by its types what a device holds in it.
    pub fn options(self, module: &Module) -> Options {
        let is_typed = module.meta.user.contains_key(convert::PRECISION);
        Options { emulate: (self.half && !is_typed).then_some(Emulate::F16), half_sums: self.half_sums }
    }
}

impl Scope<'_> {
    /// One series, on the fast kernels.
    pub fn quick(tolerance: Tolerance) -> Self {
        let arithmetic = Arithmetic::default();
        Self { tolerance, kinds: &[], extent: Extent::Quick, arithmetic, record: None, fast: false }
    }
}

/// Calls that follow each other, from states that are zeros.
pub(super) struct Series {
    /// A few words.
    pub(super) name: String,
    /// What the inputs are.
    pub(super) inputs: String,
    /// The shapes of the inputs.
    pub(super) shape: String,
    pub(super) calls: Calls,
    pub(super) arithmetic: Arithmetic,
    pub(super) judged: bool,
    /// Whether it is the first of a function: its first call runs on the reference kernels.
    pub(super) first: bool,
    /// Whether all calls do.
    pub(super) exact: bool,
}

/// The shape of each input.
type Shapes = Vec<Vec<usize>>;

/// The inputs of calls.
pub(super) enum Calls {
    Given(Vec<Inputs>),
    Made { seed: u64, style: Style, shapes: Shapes, steps: usize },
}

impl Calls {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Given(all) => all.len(),
            Self::Made { steps, .. } => *steps,
        }
    }
}

/// Terms of sums in one run up to which the source runs on the reference kernels every time.
const SMALL: f64 = (1u64 << 26) as f64;
/// Terms of all judged runs of a function behind the first.
const JUDGED: f64 = (1u64 << 37) as f64;
/// Terms of all runs of a function that are not judged.
const INFORMATIVE: f64 = (1u64 << 35) as f64;
/// Terms of a run whose sums are accumulated in half precision, which is slow.
const HALF_SUMS: f64 = (1u64 << 28) as f64;
/// Elements of a value that are not worth the memory.
const LARGEST: f64 = (1u64 << 25) as f64;

/// The series of a function, and what is left out, each with its reason.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) series: Vec<Series>,
    pub(super) untested: Vec<String>,
}

impl Pair<'_> {
    /// What is judged: the samples where there are any, else random inputs of each shape.
    pub(super) fn judged(&self, samples: Option<Vec<Inputs>>, first: &[Vec<usize>], seed: u64) -> Plan {
        let Some(runs) = samples else {
            let mut plan = self.random(first, seed, true, &mut { JUDGED });
            plan.untested.extend(made_up::narrow(self.f).iter().map(|what| self.of_function(what)));
            return plan;
        };
        let shape = runs.first().map(|inputs| shape_text(self.f, &shapes_of(inputs))).unwrap_or_default();
        let count = runs.len();
        let stateless = !stateful::remembers(self.g) && !stateful::remembers(self.f);
        let untested =
            if count > 1 || stateless { vec![] } else { vec![self.of_function("states behind the first call")] };
        let inputs = if count == 1 { "the samples".to_owned() } else { format!("{count} samples") };
        let series = Series {
            name: "samples".to_owned(),
            inputs,
            shape,
            exact: self.scope.extent == Extent::Quick || self.work(first).terms <= SMALL,
            calls: Calls::Given(runs),
            arithmetic: self.scope.arithmetic,
            judged: true,
            first: true,
        };
        Plan { series: vec![series], untested }
    }

    /// Random inputs: of `first` shapes and of all that are declared, as far as what is `left` of terms goes.
    fn random(&self, first: &[Vec<usize>], seed: u64, judged: bool, left: &mut f64) -> Plan {
        let mut plan = Plan::default();
        let start = self.made(format!("seed {seed}"), seed, Style::Random, first, judged);
        if judged {
            // There must be something to judge, whatever it takes.
            plan.series.push(Series { first: true, ..start });
        } else {
            self.add(&mut plan, start, left);
        }
        let Extent::Full { seeds, .. } = self.scope.extent else { return plan };
        for more in 1..seeds {
            let seed = seed.wrapping_add(more);
            let series = self.made(format!("seed {seed}"), seed, Style::Random, first, judged);
            self.add(&mut plan, series, left);
        }
        let (declared, unknown) = self.declared();
        plan.untested.extend(unknown);
        let (mut seen, mut of_package, mut of_source) = (vec![first.to_vec()], HashSet::new(), HashSet::new());
        for (name, own) in declared {
            let shapes = self.source_shapes(&own);
            if !seen.contains(&shapes) {
                self.add(&mut plan, self.made(name, seed, Style::Random, &shapes, judged), left);
                seen.push(shapes.clone());
            }
            of_package.insert(own);
            of_source.insert(shapes);
        }
        if of_package.len() > of_source.len() {
            let fixed = shape_text(self.f, first);
            let what = format!("sizes that the package takes and the source does not, which is run on {fixed}");
            plan.untested.push(self.of_function(&what));
        }
        plan
    }

    /// What is looked at beside what is judged.
    pub(super) fn informative(&self, has_samples: bool, first: &[Vec<usize>], seed: u64) -> Plan {
        let mut left = INFORMATIVE;
        let mut plan = if has_samples { self.random(first, seed, false, &mut left) } else { Plan::default() };
        // Without floats, what is given is what random inputs are.
        if tensor_inputs(self.f).any(|(_, ty)| ty.dtype.is_float()) {
            for style in Style::ADVERSARIAL {
                let series = self.made(style.name().to_owned(), seed, style, first, false);
                self.add(&mut plan, series, &mut left);
            }
        }
        if self.half && !self.scope.arithmetic.half_sums {
            let random = self.made(format!("seed {seed}"), seed, Style::Random, first, false);
            let arithmetic = Arithmetic { half: true, half_sums: true, ..self.scope.arithmetic };
            let mut left = HALF_SUMS;
            self.add(&mut plan, Series { name: "half-precision sums".to_owned(), arithmetic, ..random }, &mut left);
        }
        plan
    }

    /// Adds a series where there is enough of the budget, else the reason that it is left out.
    fn add(&self, plan: &mut Plan, series: Series, left: &mut f64) {
        let Calls::Made { shapes, steps, .. } = &series.calls else { return };
        let work = self.work(shapes);
        let (terms, what) = (work.terms * *steps as f64, format!("{} ({})", series.name, series.shape));
        if work.largest > LARGEST {
            let why = format!("a value of it has {:.1e} elements, more than {LARGEST:.1e}", work.largest);
            plan.untested.push(self.of_function(&format!("{what}: {why}")));
        } else if terms > *left {
            let why =
                format!("it is {terms:.1e} multiplications, more than the {left:.1e} that are left for such runs");
            plan.untested.push(self.of_function(&format!("{what}: {why}")));
        } else {
            *left -= terms;
            plan.series.push(series);
        }
    }

    /// What is said of a function, with its name where there are several.
    pub(super) fn of_function(&self, text: &str) -> String {
        if self.package.functions.len() > 1 { format!("{}: {text}", self.g.name) } else { text.to_owned() }
    }

    fn made(&self, name: String, seed: u64, style: Style, shapes: &[Vec<usize>], judged: bool) -> Series {
        let steps = match self.scope.extent {
            _ if !stateful::remembers(self.g) && !stateful::remembers(self.f) => 1,
            Extent::Full { steps, .. } => steps.max(1),
            // What the first call leaves is seen by the second.
            Extent::Quick => 2,
        };
        let inputs = match style {
            Style::Random => format!("random inputs of seed {seed}"),
            other => other.inputs().to_owned(),
        };
        Series {
            name,
            inputs: if steps > 1 { format!("{inputs}, {steps} calls in a row") } else { inputs },
            shape: shape_text(self.f, shapes),
            exact: self.scope.extent == Extent::Quick || self.work(shapes).terms <= SMALL,
            calls: Calls::Made { seed, style, shapes: shapes.to_vec(), steps },
            arithmetic: self.scope.arithmetic,
            judged,
            first: false,
        }
    }

    /// What a run on these shapes of the source takes.
    fn work(&self, shapes: &[Vec<usize>]) -> Work {
        Sizes::new(self.f, &self.source.symbols, shapes).work()
    }

    /// Whether the package takes inputs of several shapes.
    pub(super) fn is_flexible(&self) -> bool {
        !open_symbols(self.g).is_empty() || self.g.sig.inputs.iter().any(|p| p.shapes.len() > 1)
    }

    /// The shapes that the package declares, each with a name; and what cannot be tried of them.
    fn declared(&self) -> (Vec<(String, Shapes)>, Vec<String>) {
        let (g, symbols) = (self.g, &self.package.symbols);
        let mut out = vec![("default shape".to_owned(), made_up::default_shapes(self.package, g))];
        let mut untested = vec![];
        let count = g.sig.inputs.iter().map(|p| p.shapes.len()).max().unwrap_or(0);
        for i in 1..count {
            let default = made_up::default_shapes(self.package, g);
            let own = tensor_inputs(g).zip(default).map(|((port, _), default)| {
                let sizes = port.shapes.get(i).map(|s| s.iter().map(|n| usize::try_from(*n).unwrap_or(1)).collect());
                sizes.unwrap_or(default)
            });
            out.push((format!("shape {} of {count}", i + 1), own.collect()));
        }
        let open = open_symbols(g);
        if open.is_empty() {
            return (out, untested);
        }
        let at = |of: &dyn Fn(&SymbolInfo) -> Option<i64>| {
            let mut bound = symbols.clone();
            for name in &open {
                let info = symbols.get(name).cloned().unwrap_or_default();
                let default = of(&info).or(info.default);
                bound.set(name.clone(), SymbolInfo { default, ..info });
            }
            made_up::shapes(g, &bound)
        };
        out.push(("minimum shape".to_owned(), at(&|info| Some(info.min.max(1)))));
        let greatest = |name: &Arc<str>| symbols.get(name).and_then(|info| info.max);
        for name in open.iter().filter(|name| greatest(name).is_none()) {
            untested.push(self.of_function(&format!("the greatest size of `{name}`, which is unbounded")));
        }
        if open.iter().any(|name| greatest(name).is_some()) {
            out.push(("maximum shape".to_owned(), at(&|info| info.max)));
        }
        (out, untested)
    }
}

/// The symbols in the shapes of the inputs of a function, but for those whose shapes are enumerated.
fn open_symbols(g: &Function) -> Vec<Arc<str>> {
    let mut out: Vec<Arc<str>> = vec![];
    for (_, ty) in tensor_inputs(g).filter(|(port, _)| port.shapes.is_empty()) {
        ty.shape.iter().for_each(|d| {
            d.visit_symbols(&mut |name| {
                if !out.contains(name) {
                    out.push(name.clone());
                }
            });
        });
    }
    out
}

/// The shapes of the inputs of a call.
pub(super) fn shapes_of(inputs: &Inputs) -> Shapes {
    inputs.iter().map(|t| t.as_ref().map_or_else(Vec::new, |t| t.shape().to_vec())).collect()
}

/// `x = 1x3x224x224, n = scalar`.
fn shape_text(f: &Function, shapes: &[Vec<usize>]) -> String {
    let one = |((port, _), shape): ((&mlconv_mil::ir::Port, _), &Vec<usize>)| {
        let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let sizes = if sizes.is_empty() { "scalar".to_owned() } else { sizes.join("x") };
        format!("{} = {sizes}", port.name)
    };
    tensor_inputs(f).zip(shapes).map(one).collect::<Vec<_>>().join(", ")
}
