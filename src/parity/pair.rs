//! A function of a package and what it comes from: how their inputs and outputs are paired, and what both give.

use super::{
    Given,
    classes::Classes,
    plan::{Calls, Scope, Series},
    run_error, same_port, source_names, uncompared,
};
use crate::{
    Diagnostic, Failure,
    accuracy::Accuracy,
    chance::drawn_outputs,
    codes,
    compare::{self, Kind, Measure, OutputDiff, Tolerance},
    feed, made_up,
    names::listed,
    stateful::remembers,
    witness::Process,
};
use mlconv_mil::{
    ir::{Function, Port},
    verify::Verified,
};
use mlconv_runner::{Backend, Options, Reference, Session, States, cpu::Cpu};
use mlconv_tensor::{Tensor, TensorType};

/// Inputs of one call, in the order of the signature.
pub(crate) type Inputs = Vec<Option<Tensor>>;

/// A function of a package and what it comes from.
pub(super) struct Pair<'a> {
    pub(super) source: &'a Verified,
    pub(super) f: &'a Function,
    pub(super) package: &'a Verified,
    pub(super) g: &'a Function,
    pub(super) scope: &'a Scope<'a>,
    pub(super) tolerance: Tolerance,
    /// What each output holds.
    pub(super) kinds: Vec<Kind>,
    /// Whether the package computes in half precision.
    pub(super) half: bool,
    /// Its classes, where the package is a classifier.
    pub(super) classes: Option<Classes>,
}

/// What gives the outputs that are wanted.
pub(super) enum Wanted<'a> {
    /// Our own kernels.
    Kernels,
    /// Another process.
    Process(&'a mut Process),
    /// What was recorded: for each call, of each output of the function.
    Recorded(&'a [Vec<Option<Tensor>>]),
}

/// Why calls came to no end.
pub(super) enum Stopped {
    /// The source does not run.
    Source(Diagnostic),
    /// The package does not take the inputs: they are of other shapes or types.
    Refused(Diagnostic),
    /// The package does not run.
    Package(Diagnostic),
    /// Labels do not fit.
    Labels(Diagnostic),
}

/// What calls gave.
pub(super) struct Outcome {
    /// What is known of all samples together is not judged yet.
    pub(super) outputs: Vec<OutputDiff>,
    pub(super) accuracy: Option<Accuracy>,
}

impl Stopped {
    /// As the end of a command; `of_process` is whether another process was to run the source.
    pub(super) fn failure(self, given: Given<'_>, of_process: bool) -> Failure {
        vec![match self {
            Self::Source(d) if !of_process => uncompared(d, given),
            Self::Source(d) | Self::Refused(d) | Self::Package(d) | Self::Labels(d) => d,
        }]
    }
}

/// What runs the source, call by call.
struct Source<'a> {
    pair: &'a Pair<'a>,
    series: &'a Series,
    exact: Session<'a>,
    fast: Session<'a>,
    states: States,
}

impl<'a> Source<'a> {
    fn new(pair: &'a Pair<'a>, series: &'a Series) -> Self {
        let session = |backend| Session::new(pair.source, pair.f, backend, Options::default());
        Self { pair, series, exact: session(&Reference), fast: session(&Cpu), states: States::new() }
    }

    /// The outputs of a call, where they are known.
    fn outputs(
        &mut self,
        wanted: &mut Wanted<'_>,
        inputs: &Inputs,
        call: usize,
    ) -> Result<Vec<Option<Tensor>>, Diagnostic> {
        let outputs = match wanted {
            Wanted::Recorded(all) => return Ok(all.get(call).cloned().unwrap_or_default()),
            Wanted::Process(process) => process.outputs(self.pair.f, inputs)?,
            Wanted::Kernels => {
                let is_exact = self.series.exact || (self.series.first && call == 0);
                let session = if is_exact && !self.pair.scope.fast { &self.exact } else { &self.fast };
                session.run(inputs, &mut self.states).map_err(|e| run_error(&e))?
            }
        };
        Ok(outputs.into_iter().map(Some).collect())
    }
}

impl Pair<'_> {
    /// The shapes that the first made-up inputs have in the source: of open sizes above 1, where the source runs on these.
    pub(super) fn first_shapes(&self, seed: u64) -> Result<Vec<Vec<usize>>, Diagnostic> {
        let default = || self.source_shapes(&made_up::default_shapes(self.package, self.g));
        let Some(open) = made_up::open_shapes(self.package, self.g) else { return Ok(default()) };
        let open = self.source_shapes(&open);
        let inputs = made_up::of_shapes(self.f, seed, &open)?;
        let before = Session::new(self.source, self.f, &Cpu, Options::default());
        Ok(if before.run(&inputs, &mut States::new()).is_ok() { open } else { default() })
    }

    /// The shapes of the source's inputs: where sizes are open, those of the package's inputs, which are `shapes`.
    pub(super) fn source_shapes(&self, shapes: &[Vec<usize>]) -> Vec<Vec<usize>> {
        let theirs: Vec<&Port> = feed::tensor_inputs(self.g).map(|(p, _)| p).collect();
        let named = |port: &Port| counterpart(&theirs, port);
        let by_name = feed::tensor_inputs(self.f).any(|(p, _)| named(p).is_some());
        let own = made_up::default_shapes(self.source, self.f);
        let shape = |(i, ((port, ty), own)): (usize, ((&Port, &TensorType), Vec<usize>))| {
            let at = if by_name { named(port) } else { Some(i) };
            let package = at.and_then(|at| shapes.get(at)).filter(|s| s.len() == ty.shape.rank());
            package.filter(|_| ty.shape.known().is_none()).cloned().unwrap_or(own)
        };
        feed::tensor_inputs(self.f).zip(own).enumerate().map(shape).collect()
    }

    /// The inputs of call number `call` of a series; `None` behind the last.
    pub(super) fn inputs(
        &self,
        series: &Series,
        call: usize,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Inputs>, Diagnostic> {
        match &series.calls {
            Calls::Given(all) => Ok(all.get(call).cloned()),
            Calls::Made { steps, .. } if call >= *steps => Ok(None),
            Calls::Made { seed, style, shapes, .. } => {
                // Each step of a model that remembers has inputs of its own.
                let seed = seed.wrapping_add((call as u64) << 32);
                let mut inputs = made_up::of_style(self.f, seed, shapes, *style)?;
                if let Wanted::Process(process) = wanted {
                    process.fitting(self.f, &mut inputs);
                }
                Ok(Some(inputs))
            }
        }
    }

    /// Runs both on each call of a series. A model with states takes them as calls that follow each other.
    pub(super) fn run(
        &self,
        series: &Series,
        given: Given<'_>,
        from: &[usize],
        wanted: &mut Wanted<'_>,
    ) -> Result<Outcome, Stopped> {
        let mut source = Source::new(self, series);
        let backend: &dyn Backend = if series.arithmetic.reference { &Reference } else { &Cpu };
        let package = Session::new(self.package, self.g, backend, series.arithmetic.options(self.package));
        let (mut states, drawn) = (States::new(), drawn_outputs(self.g));
        let names: Vec<String> = self.g.sig.outputs.iter().map(|p| self.output_name(&p.name)).collect();
        let mut outputs: Vec<Option<OutputDiff>> = vec![None; names.len()];
        let mut accuracy: Option<(usize, Accuracy)> = None;
        let mut call = 0;
        while let Some(inputs) = self.inputs(series, call, wanted).map_err(Stopped::Source)? {
            let all = source.outputs(wanted, &inputs, call).map_err(Stopped::Source)?;
            let want: Vec<Option<&Tensor>> =
                (0..names.len()).map(|i| all.get(*from.get(i)?).and_then(Option::as_ref)).collect();
            let inputs = feed::match_inputs(self.g, &feed::as_arrays(self.f, &inputs)).map_err(Stopped::Refused)?;
            // Calls that follow each other are found so again where nothing comes before them.
            if let Some(record) = self.scope.record.filter(|_| series.judged && (series.first || !remembers(self.g))) {
                record.borrow_mut().add(self.g, &inputs, want.iter().map(|t| t.cloned()).collect());
            }
            let got = package.run(&inputs, &mut states).map_err(|e| Stopped::Package(run_error(&e)))?;
            for (i, (all, d)) in outputs.iter_mut().zip(self.compared(&names, &want, &got)).enumerate() {
                let chance = |d: OutputDiff| if drawn.get(i) == Some(&true) { d.of_chance() } else { d };
                match (all, d.map(|d| chance(d).of_sample(call))) {
                    (Some(all), Some(d)) => all.absorb(d),
                    (all, d) => *all = all.take().or(d),
                }
            }
            if let Some(label) = given.labels.and_then(|l| l.get(call)) {
                let (at, counted) = match &mut accuracy {
                    Some(a) => a,
                    None => {
                        let named = names.iter().map(String::as_str).zip(&got);
                        let at = Accuracy::choose(named).map_err(Stopped::Labels)?;
                        accuracy.insert((at, Accuracy { output: names[at].clone(), ..Accuracy::default() }))
                    }
                };
                if let Some(want) = want[*at] {
                    counted.count(label, want, &got[*at]).map_err(Stopped::Labels)?;
                }
            }
            call += 1;
        }
        let outputs = outputs.into_iter().flatten().collect();
        Ok(Outcome { outputs, accuracy: accuracy.map(|(_, a)| a) })
    }

    /// Each output of one call with what it should be, where that is known.
    fn compared(&self, names: &[String], want: &[Option<&Tensor>], got: &[Tensor]) -> Vec<Option<OutputDiff>> {
        let one = |(i, (name, t)): (usize, (&String, &Tensor))| {
            let measure = Measure { tolerance: self.tolerance, kind: self.kinds.get(i).copied(), half: self.half };
            let classes = self.classes.as_ref().filter(|c| c.label == i);
            if let Some(why) = classes.and_then(|c| c.differ.clone()) {
                // That is so whether or not this one is known.
                return Some(compare::measured(name, t, t, &measure).mismatched(why));
            }
            let want = (*want.get(i)?)?;
            let d = compare::measured(name, want, t, &measure);
            Some(match classes {
                Some(classes) => classes.judged(d, want, got, (&self.tolerance, &self.kinds)),
                None => d,
            })
        };
        names.iter().zip(got).enumerate().map(one).collect()
    }

    /// Samples as calls of the source.
    pub(super) fn samples(&self, given: Given<'_>) -> Result<feed::Samples, Diagnostic> {
        let arrays = source_names(self.f, self.g, given.samples);
        feed::samples(self.f, &arrays, given.labels.map(crate::accuracy::Labels::len))
    }

    /// Where each output of the package is among the source's: by name, and where no name matches at all, in order.
    pub(super) fn sources(&self, notes: &mut Vec<Diagnostic>) -> Result<Vec<usize>, Failure> {
        let (ours, theirs) = (&self.f.sig.outputs, &self.g.sig.outputs);
        let all: Vec<&Port> = ours.iter().collect();
        let named = |port: &Port| counterpart(&all, port);
        let by_name = theirs.iter().any(|p| named(p).is_some());
        let list = |ports: &[Port]| listed(ports.iter().map(|p| &*p.name));
        let arrays: Vec<&Port> = feed::tensor_inputs(self.f).map(|(p, _)| p).collect();
        let inputs: Vec<&Port> = feed::tensor_inputs(self.g).map(|(p, _)| p).collect();
        let matches = inputs.iter().any(|p| arrays.iter().any(|a| same_port(a, p)));
        if !by_name && !theirs.is_empty() {
            let title =
                format!("outputs are compared in order, as no name matches: {} with {}", list(theirs), list(ours));
            notes.push(Diagnostic::warning(&codes::N0004, title));
        }
        if !matches && !inputs.is_empty() {
            let names = |ports: &[&Port]| listed(ports.iter().map(|p| &*p.name));
            let title =
                format!("inputs are paired in order, as no name matches: {} with {}", names(&inputs), names(&arrays));
            notes.push(Diagnostic::warning(&codes::N0004, title));
        }
        let of = |(i, port): (usize, &Port)| {
            let at = if by_name { named(port) } else { Some(i).filter(|i| *i < ours.len()) };
            at.ok_or_else(|| {
                let title = format!("the source has no output `{}`", self.output_name(&port.name));
                vec![Diagnostic::error(&codes::N0001, title).help(format!("its outputs are {}", list(ours)))]
            })
        };
        theirs.iter().enumerate().map(of).collect()
    }

    /// The name of the label, where the package is a classifier.
    pub(super) fn label(&self) -> Option<String> {
        let port = self.g.sig.outputs.get(self.classes.as_ref()?.label)?;
        Some(self.output_name(&port.name))
    }

    fn output_name(&self, port: &str) -> String {
        if self.package.functions.len() > 1 { format!("{}: {port}", self.g.name) } else { port.to_owned() }
    }
}

/// Which of `ports` means the same as `port`: the one of its own name, if there is one.
pub(crate) fn counterpart(ports: &[&Port], port: &Port) -> Option<usize> {
    let same = || ports.iter().position(|p| same_port(p, port));
    ports.iter().position(|p| p.name == port.name).or_else(same)
}
