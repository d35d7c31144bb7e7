//! Two models on the same inputs: how far their outputs are apart, and how often each is right.

use crate::{
    Diagnostic, Failure,
    accuracy::{Accuracy, Labels},
    arrays::Arrays,
    chance::drawn_outputs,
    codes,
    compare::{self, OutputDiff, Tolerance},
    convert::has_halves,
    feed::{self, Samples},
    interface::label_and_probabilities,
    made_up,
    names::listed,
    witness::{self, Chosen, Process, Witness},
};
use mlconv_mil::{
    ir::{Function, Port},
    verify::Verified,
};
use mlconv_runner::{Options, Reference, RunError, Session, States, cpu::Cpu};
use mlconv_tensor::{Tensor, TensorType};
use std::borrow::Cow;

/// What two models are run on.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Arrays for the inputs; random ones are made where there are none.
    pub samples: &'a Arrays,
    /// The right class of each sample.
    pub labels: Option<&'a Labels>,
    /// What random inputs are made from.
    pub seed: u64,
}

/// Two models on the same inputs.
#[derive(Debug)]
pub struct Parity {
    /// One per output and function.
    pub outputs: Vec<OutputDiff>,
    /// One per function, where there are labels.
    pub accuracy: Vec<Accuracy>,
    /// Where the inputs come from.
    pub inputs: String,
    /// How many times each function was run.
    pub samples: usize,
    /// Arrays that are for no input.
    pub unused: Vec<String>,
    /// How far an output may be off.
    pub tolerance: Tolerance,
    /// Whether the package computes in half precision.
    pub half: bool,
    /// What a user should know of how inputs and outputs were found.
    pub notes: Vec<Diagnostic>,
    /// What ran the source.
    pub witness: Witness,
    /// Where outputs differ from those of another process: whether the source's own lowering is within the tolerance all the same.
    pub lowering_agrees: Option<bool>,
}

impl Parity {
    /// Says that an output differs, by how much it may, and what to try; with `mended` kept in single precision outputs are
    /// within the tolerance.
    pub fn differs(&self, mended: Option<&[String]>) -> Option<Diagnostic> {
        let beyond = || self.outputs.iter().filter(|o| !o.pass);
        let bad: Vec<&str> = beyond().map(|o| o.name.as_str()).collect();
        if bad.is_empty() {
            return None;
        }
        let Tolerance { min_snr_db, max_rel } = self.tolerance;
        let or = if max_rel > 0.0 { format!(", or {max_rel:.0e} of the greatest value") } else { String::new() };
        let title = format!("beyond tolerance, which is {min_snr_db} dB SNR{or}: {}", listed(&bad));
        let d = Diagnostic::warning(&codes::N0001, title);
        if self.lowering_agrees == Some(true) {
            // No rounding gives another shape, or other integers.
            let may_round = beyond().all(|o| o.mismatch.is_none() && o.unequal.is_none());
            let other = self.witness.other().unwrap_or_default();
            let help = if may_round {
                format!(
                    "the package computes what the source was lowered to. Either that is not what the source means, which \
                     should be reported, or {other} rounds otherwise, as fast functions do near zero"
                )
            } else {
                "the package computes what the source was lowered to, which is not what the source means: this should be \
                 reported"
                    .to_owned()
            };
            return Some(d.help(help));
        }
        if !self.half {
            return Some(d);
        }
        let Some(names) = mended else {
            return Some(d.help(
                "convert with `--precision fp32`, or keep ops that need it in 32 bits, with `--keep-fp32 PATTERN`",
            ));
        };
        let keys: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
        let typed: Vec<String> = names.iter().map(|n| format!("--keep-fp32 {}", quoted(n))).collect();
        let (keys, typed) = (keys.join(", "), typed.join(" "));
        Some(d.help(format!(
            "with `keep_fp32 = [{keys}]` under `[convert]` of a recipe, or `{typed}`, outputs are within it"
        )))
    }

    /// Whether every output is within the tolerance.
    pub fn pass(&self) -> bool {
        self.outputs.iter().all(|o| o.pass)
    }
}

/// Runs `package` on the CPU backend and `source` as was chosen, on the same inputs. Where another process is not required
/// and does not run the source, our own kernels do.
pub fn parity(
    source: &Verified,
    package: &Verified,
    given: Given<'_>,
    tolerance: Tolerance,
    mut chosen: Chosen,
) -> Result<Parity, Failure> {
    let mut notes = chosen.notes;
    let otherwise = || compare(source, package, given, tolerance, None, chosen.otherwise.clone());
    let mut done = match &mut chosen.process {
        None => otherwise()?,
        Some(process) => {
            let witness = process.witness();
            match compare(source, package, given, tolerance, Some(process), witness) {
                Ok(done) if done.pass() => done,
                // Who is at fault is seen best by asking the other one.
                Ok(done) => Parity { lowering_agrees: otherwise().ok().map(|p| p.pass()), ..done },
                Err(failure) if chosen.required => {
                    let of_witness = |d: &Diagnostic| *d.code == codes::N0006;
                    let said = |d| if of_witness(&d) { uncompared(d, given) } else { d };
                    return Err(failure.into_iter().map(said).collect());
                }
                Err(failure) => {
                    let done = otherwise()?;
                    notes.extend(failure.into_iter().map(witness::instead));
                    done
                }
            }
        }
    };
    notes.append(&mut done.notes);
    Ok(Parity { notes, ..done })
}

/// Runs both on the same inputs: the source in `process`, or on the reference kernels where there is none.
fn compare(
    source: &Verified,
    package: &Verified,
    given: Given<'_>,
    tolerance: Tolerance,
    mut process: Option<&mut Process>,
    witness: Witness,
) -> Result<Parity, Failure> {
    // Where the source computes in 16 bits, so does whatever runs it.
    let tolerance = match &process {
        Some(process) if tolerance == Tolerance::F32 && (has_halves(source) || process.has_bf16()) => Tolerance::F16,
        _ => tolerance,
    };
    let inputs = if given.samples.is_empty() { format!("random inputs of seed {}", given.seed) } else { String::new() };
    let mut all = Parity {
        outputs: vec![],
        accuracy: vec![],
        inputs,
        samples: 1,
        unused: vec![],
        tolerance,
        half: has_halves(package),
        notes: vec![],
        witness,
        lowering_agrees: None,
    };
    for (i, g) in package.functions.iter().enumerate() {
        let Some(f) = source.function(&g.name).or(source.functions.first()) else { continue };
        let pair = Pair { source, f, package, g, tolerance };
        let arrays = source_names(f, g, given.samples);
        all.notes.extend(if i == 0 { feed::notes(f, &arrays) } else { vec![] });
        let samples = if given.samples.is_empty() {
            let mut inputs = pair
                .random_inputs(given.seed)
                .map_err(|all| all.into_iter().map(|d| uncompared(d, given)).collect::<Vec<_>>())?;
            if let Some(process) = &process {
                process.fitting(f, &mut inputs);
            }
            Samples { runs: vec![inputs], unused: vec![] }
        } else {
            feed::samples(f, &arrays, given.labels.map(Labels::len)).map_err(|d| vec![d])?
        };
        if let Some(labels) = given.labels {
            labels.check(samples.runs.len()).map_err(|d| vec![d])?;
        }
        // An array is unused if no function takes it.
        all.unused.retain(|u| samples.unused.contains(u));
        if i == 0 {
            (all.unused, all.samples) = (samples.unused, samples.runs.len());
        }
        let from = pair.sources(&mut all.notes)?;
        let (outputs, accuracy) = pair.run(&samples.runs, given, &from, process.as_deref_mut())?;
        for d in outputs.iter().filter(|d| d.nothing_finite) {
            let title = format!("no element of `{}` is finite, in both models: there is nothing to compare", d.name);
            let help = "weights or inputs that are not finite are the usual cause; give inputs that the model is for with `--sample`";
            all.notes.push(Diagnostic::warning(&codes::N0004, title).help(help));
        }
        all.outputs.extend(outputs);
        all.accuracy.extend(accuracy);
    }
    if !given.samples.is_empty() {
        all.inputs = if all.samples == 1 { "the samples".to_owned() } else { format!("{} samples", all.samples) };
    }
    Ok(all)
}

/// `arrays` under the source's names where they bear those of the package.
pub(crate) fn source_names(f: &Function, g: &Function, arrays: &Arrays) -> Arrays {
    let is_ours = |name: &str| feed::tensor_inputs(f).any(|(p, _)| feed::means_port(name, p));
    feed::under_own_names(g, arrays, |given, port| is_ours(&port.name) || !is_ours(given))
}

/// Whether two models mean the same input or output.
fn same_port(a: &Port, b: &Port) -> bool {
    feed::means_port(&a.name, b) || feed::means_port(&b.name, a)
}

/// Which of `ports` means the same as `port`: the one of its own name, if there is one.
fn counterpart(ports: &[&Port], port: &Port) -> Option<usize> {
    let same = || ports.iter().position(|p| same_port(p, port));
    ports.iter().position(|p| p.name == port.name).or_else(same)
}

/// A function of a package and what it comes from.
struct Pair<'a> {
    source: &'a Verified,
    f: &'a Function,
    package: &'a Verified,
    g: &'a Function,
    tolerance: Tolerance,
}

impl Pair<'_> {
    /// Made-up inputs, of shapes that the package takes: of open sizes above 1, where the source runs on these.
    fn random_inputs(&self, seed: u64) -> Result<Vec<Option<Tensor>>, Failure> {
        let made_up = |shapes| made_up::of_shapes(self.f, seed, &self.source_shapes(shapes)).map_err(|d| vec![d]);
        let open = made_up::open_shapes(self.package, self.g).map(made_up).transpose()?;
        let before = Session::new(self.source, self.f, &Cpu, Options::default());
        match open.filter(|inputs| before.run(inputs, &mut States::new()).is_ok()) {
            Some(inputs) => Ok(inputs),
            None => made_up(made_up::default_shapes(self.package, self.g)),
        }
    }

    /// The shapes of the source's inputs: where sizes are open, those of the package's inputs, which are `shapes`.
    fn source_shapes(&self, shapes: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
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

    /// Runs both on each sample. A model with states takes them as calls that follow each other.
    fn run(
        &self,
        runs: &[Vec<Option<Tensor>>],
        given: Given<'_>,
        from: &[usize],
        mut process: Option<&mut Process>,
    ) -> Result<(Vec<OutputDiff>, Option<Accuracy>), Failure> {
        let before = Session::new(self.source, self.f, &Reference, Options::default());
        let after = Session::new(self.package, self.g, &Cpu, Options::default());
        let names: Vec<String> = self.g.sig.outputs.iter().map(|p| self.output_name(&p.name)).collect();
        let drawn = drawn_outputs(self.g);
        let mut outputs: Vec<OutputDiff> = vec![];
        let mut accuracy: Option<(usize, Accuracy)> = None;
        let (mut states_before, mut states_after) = (States::new(), States::new());
        for (sample, inputs) in runs.iter().enumerate() {
            let want = match &mut process {
                Some(process) => process.outputs(self.f, inputs).map_err(|d| vec![d])?,
                None => before.run(inputs, &mut states_before).map_err(|e| vec![uncompared(run_error(&e), given)])?,
            };
            let arrays = feed::as_arrays(self.f, inputs);
            let inputs = feed::match_inputs(self.g, &arrays).map_err(|d| vec![d])?;
            let got = after.run(&inputs, &mut states_after).map_err(|e| vec![run_error(&e)])?;
            let mut compared = vec![];
            for (i, (name, t)) in names.iter().zip(&got).enumerate() {
                let d = compare::output(name, &want[from[i]], t, self.tolerance);
                let d = if drawn.get(i) == Some(&true) { d.of_chance() } else { d };
                compared.push(d);
            }
            if let Some((label, of)) = label_and_probabilities(self.g)
                && compared[of].pass
            {
                // The best class changes where two are as good as each other within the tolerance.
                compared[label].pass |= compared[label].mismatch.is_none();
            }
            for (i, d) in compared.into_iter().enumerate() {
                match outputs.get_mut(i) {
                    Some(worst) => worst.absorb(OutputDiff { worst_sample: sample, ..d }),
                    None => outputs.push(d),
                }
            }
            if let Some(label) = given.labels.and_then(|l| l.get(sample)) {
                let (at, counted) = match &mut accuracy {
                    Some(a) => a,
                    None => {
                        let named = names.iter().map(String::as_str).zip(&got);
                        let at = Accuracy::choose(named).map_err(|d| vec![d])?;
                        accuracy.insert((at, Accuracy { output: names[at].clone(), ..Accuracy::default() }))
                    }
                };
                counted.count(label, &want[from[*at]], &got[*at]).map_err(|d| vec![d])?;
            }
        }
        Ok((outputs, accuracy.map(|(_, a)| a)))
    }

    /// Where each output of the package is among the source's: by name, and where no name matches at all, in order.
    fn sources(&self, notes: &mut Vec<Diagnostic>) -> Result<Vec<usize>, Failure> {
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

    fn output_name(&self, port: &str) -> String {
        if self.package.functions.len() > 1 { format!("{}: {port}", self.g.name) } else { port.to_owned() }
    }
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || "_./-+=:,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''")).into()
}

/// Says that there is nothing to compare with, as the source does not run; `why` is what it said.
fn uncompared(why: Diagnostic, given: Given<'_>) -> Diagnostic {
    let (inputs, help) = if given.samples.is_empty() {
        ("made-up inputs", "give inputs that the model is for with `--sample`")
    } else {
        ("the samples", "give samples that the source runs on, or compare later with `mlconv verify`")
    };
    let title = format!("the source does not run on {inputs}, so nothing was compared: {}", why.title);
    Diagnostic { code: &codes::N0007, title, ..why }.help(help)
}

/// What went wrong in a run, as a person should be told.
pub fn run_error(e: &RunError) -> Diagnostic {
    match e {
        RunError::Missing { .. } | RunError::Input { .. } => Diagnostic::error(&codes::N0003, e.to_string()),
        RunError::Op { op, origin, why } => {
            let mut d = Diagnostic::error(&codes::N0002, why.to_string()).snippet(op.clone(), 0..op.len());
            d.place.extend(origin.first().cloned());
            d
        }
        _ => Diagnostic::error(&codes::N0002, e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Format;
    use mlconv_mil::{text::parse, verify::verify};

    fn program(text: &str) -> Verified {
        verify(parse(text).unwrap_or_else(|e| panic!("{e}"))).unwrap_or_else(|e| panic!("{e:?}"))
    }

    fn kernels() -> Chosen {
        Chosen::kernels(Format::Package)
    }

    #[test]
    fn each_row_is_a_sample_with_a_label() {
        let source = program("func @main(%x: f32[1, 2]) ios17 {\n  %y = relu(x=%x)\n  return %y\n}\n");
        let flipped =
            "func @main(%x: f32[1, 2]) ios17 {\n  %y = relu(x=%x)\n  %z = reverse(x=%y, axes=[1])\n  return %z\n}\n";
        let x = Tensor::from_vec(&[3, 1, 2], vec![1f32, 0.0, 0.0, 1.0, 2.0, 2.0]);
        let samples = [("x".to_owned(), x), ("extra".to_owned(), Tensor::scalar(0f32))].into_iter().collect();
        let labels = Labels::new(&Tensor::from_vec(&[3], vec![0i32, 1, 1])).expect("labels");
        let given = Given { samples: &samples, labels: Some(&labels), seed: 0 };
        let same = parity(&source, &source, given, Tolerance::F32, kernels()).expect("both run");
        let (a, package) = (&same.accuracy[0], program(flipped));
        assert_eq!((same.samples, same.pass(), same.unused.as_slice()), (3, true, &["extra".to_owned()][..]));
        assert_eq!((a.output.as_str(), a.samples, a.source_correct, a.package_correct, a.alike), ("y", 3, 2, 2, 3));
        let other = parity(&source, &package, given, Tolerance::F32, kernels()).expect("both run");
        assert_eq!((other.pass(), other.outputs[0].worst_sample), (false, 0));
        assert_eq!((other.accuracy[0].package_correct, other.accuracy[0].alike), (0, 1));
    }

    #[test]
    fn made_up_inputs_are_of_shapes_that_the_package_takes() {
        let text = |ty: &str| format!("func @main(%x: {ty}) ios17 {{\n  %y = relu(x=%x)\n  return %y\n}}\n");
        let (source, package) = (program(&text("f32[n, 2]")), program(&text("f32[5, 2]")));
        let samples = Arrays::new();
        let given = Given { samples: &samples, labels: None, seed: 0 };
        let done = parity(&source, &package, given, Tolerance::F32, kernels()).expect("both run");
        assert!(done.pass() && done.outputs[0].ty.contains("[5, 2]"), "{:?}", done.outputs[0]);
    }

    #[test]
    fn there_is_a_label_for_each_sample() {
        let source = program("func @main(%x: f32[1, 2]) ios17 {\n  %y = relu(x=%x)\n  return %y\n}\n");
        let samples = [("x".to_owned(), Tensor::splat(mlconv_tensor::DType::F32, &[3, 2], 0.0))].into_iter().collect();
        let labels = Labels::new(&Tensor::from_vec(&[2], vec![0i32, 1])).expect("labels");
        let given = Given { samples: &samples, labels: Some(&labels), seed: 0 };
        let failure = parity(&source, &source, given, Tolerance::F32, kernels()).expect_err("2 labels");
        assert_eq!(failure[0].title, "2 labels for 3 samples");
    }
}
