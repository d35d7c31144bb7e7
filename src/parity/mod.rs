//! Two models on the same inputs: how far their outputs are apart, and how often each is right.

mod classes;
mod judge;
mod pair;
mod plan;

pub(crate) use judge::leading;
pub use judge::recorded;
pub(crate) use pair::{Inputs, counterpart};
pub use plan::{Arithmetic, Extent, Scope};

use crate::{
    Diagnostic, Failure,
    accuracy::{Accuracy, Labels},
    arrays::Arrays,
    codes,
    compare::{Miss, OutputDiff, Tolerance},
    diff::recipe::keep_fp32,
    feed,
    names::{listed, quoted},
    witness::{self, Chosen, Witness},
};
use judge::{compare, inform};
use mlconv_mil::{
    ir::{Function, Module, Port},
    verify::Verified,
};
use mlconv_runner::RunError;
use pair::Wanted;

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
#[derive(Clone, Debug)]
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
    /// What was run: first what is judged.
    pub runs: Vec<Run>,
    /// What was left out, each with its reason.
    pub untested: Vec<String>,
}

/// A function of both models on some inputs.
#[derive(Clone, Debug)]
pub struct Run {
    /// The function.
    pub function: String,
    /// A few words for it.
    pub name: String,
    /// What the inputs were.
    pub inputs: String,
    /// Their shapes.
    pub shape: String,
    /// What the package computed in.
    pub arithmetic: &'static str,
    /// What ran the source, as [`Witness::name`].
    pub against: &'static str,
    /// Whether the verdict depends on it.
    pub judged: bool,
    /// Whether outputs are within the tolerance.
    pub pass: bool,
    /// Why the package could not be run.
    pub error: Option<String>,
    /// One per output.
    pub outputs: Vec<OutputDiff>,
}

impl Parity {
    /// Says that an output differs, by how much it may, and what to try; with `mended` kept in single precision outputs are
    /// within the tolerance.
    pub fn differs(&self, mended: Option<&[String]>) -> Option<Diagnostic> {
        let d = self.beyond()?;
        if !self.half || d.help.is_some() {
            return Some(d);
        }
        let Some(names) = mended else {
            return Some(d.help(
                "`mlconv diff SOURCE PACKAGE --bisect` finds the op to blame, and what mends it; `--precision fp32` and `--keep-fp32 \
                 PATTERN` of `convert` keep ops in 32 bits",
            ));
        };
        let typed: Vec<String> = names.iter().map(|n| format!("--keep-fp32 {}", quoted(n))).collect();
        let (line, typed) = (keep_fp32(names), typed.join(" "));
        Some(d.help(format!("with `{line}` under `[convert]` of a recipe, or `{typed}`, outputs are within it")))
    }

    /// Says that an output differs, and by how much it may.
    pub fn beyond(&self) -> Option<Diagnostic> {
        let beyond = || self.outputs.iter().filter(|o| !o.pass);
        let bad: Vec<&str> = beyond().map(|o| o.name.as_str()).collect();
        if bad.is_empty() {
            let failed = self.runs.iter().find(|r| r.judged && r.error.is_some())?;
            let why = failed.error.clone().unwrap_or_default();
            return Some(Diagnostic::warning(
                &codes::N0001,
                format!("the package does not run on {}: {why}", failed.what()),
            ));
        }
        let Tolerance { min_snr_db, max_rel, .. } = self.tolerance;
        let title = if self.tolerance.is_of_noise() {
            let or = if max_rel > 0.0 { format!(", or {max_rel:.0e} of the greatest value") } else { String::new() };
            format!("beyond tolerance, which is {} dB SNR{or}: {}", db(min_snr_db), listed(&bad))
        } else {
            let one = |o: &OutputDiff| {
                let texts: Vec<String> = o.missed.iter().map(Miss::text).chain(o.mismatch.clone()).collect();
                format!("`{}`: {}", o.name, texts.join("; "))
            };
            format!("beyond tolerance: {}", beyond().map(one).collect::<Vec<_>>().join("; "))
        };
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
        Some(d)
    }

    /// Whether the outputs of a function of `package` are within the tolerance, and which call the worst of them is of.
    pub(crate) fn worst_of(&self, package: &Module, g: &Function) -> (bool, usize) {
        // Of several functions, outputs bear the name of theirs.
        let is_own = |o: &&OutputDiff| package.functions.len() == 1 || o.name.starts_with(&format!("{}: ", g.name));
        let own = || self.outputs.iter().filter(is_own).filter(|o| !o.drawn);
        let quality = |o: &OutputDiff| match o.snr_db {
            _ if o.non_finite > 0 => f64::NEG_INFINITY,
            snr => snr.unwrap_or(f64::INFINITY),
        };
        let key = |o: &&OutputDiff| (o.pass, quality(o));
        let worst = own().min_by(|x, y| key(x).0.cmp(&key(y).0).then(key(x).1.total_cmp(&key(y).1)));
        (own().all(|o| o.pass), worst.map_or(0, |o| o.low_sample))
    }

    /// Whether every output is within the tolerance, and the package runs on all that is judged.
    pub fn pass(&self) -> bool {
        self.outputs.iter().all(|o| o.pass) && self.runs.iter().all(|r| r.error.is_none() || !r.judged)
    }
}

impl Run {
    /// What it was run on, for a person.
    pub fn what(&self) -> String {
        if self.shape.is_empty() { self.name.clone() } else { format!("{} ({})", self.name, self.shape) }
    }
}

/// A number of dB for a person: whole where it is.
fn db(x: f64) -> String {
    if x.fract() == 0.0 { format!("{x}") } else { format!("{x:.1}") }
}

/// Runs `package` on the CPU backend and `source` as was chosen, on the samples or on random inputs. Where another process
/// is not required and does not run the source, our own kernels do.
pub fn parity(
    source: &Verified,
    package: &Verified,
    given: Given<'_>,
    tolerance: Tolerance,
    chosen: Chosen,
) -> Result<Parity, Failure> {
    compared(source, package, given, &Scope::quick(tolerance), chosen)
}

/// As [`parity`], on all that `scope` says. What is not judged runs on our own kernels.
pub fn compared(
    source: &Verified,
    package: &Verified,
    given: Given<'_>,
    scope: &Scope<'_>,
    mut chosen: Chosen,
) -> Result<Parity, Failure> {
    let mut notes = chosen.notes;
    let otherwise = |scope: &Scope<'_>| {
        let other = chosen.otherwise.clone();
        compare(source, package, given, scope, &mut Wanted::Kernels, other)
    };
    let mut done = match &mut chosen.process {
        None => otherwise(scope)?,
        Some(process) => {
            let witness = process.witness();
            match compare(source, package, given, scope, &mut Wanted::Process(process), witness) {
                Ok(done) if done.pass() => done,
                // Who is at fault is seen best by asking the other one.
                Ok(done) => {
                    let again = Scope { record: None, ..*scope };
                    Parity { lowering_agrees: otherwise(&again).ok().map(|p| p.pass()), ..done }
                }
                Err(failure) if chosen.required => {
                    let of_witness = |d: &Diagnostic| *d.code == codes::N0006;
                    let said = |d| if of_witness(&d) { uncompared(d, given) } else { d };
                    return Err(failure.into_iter().map(said).collect());
                }
                Err(failure) => {
                    let done = otherwise(scope)?;
                    notes.extend(failure.into_iter().map(witness::instead));
                    done
                }
            }
        }
    };
    if scope.extent != Extent::Quick {
        inform(source, package, given, scope, chosen.otherwise.name(), &mut done);
    }
    notes.append(&mut done.notes);
    Ok(Parity { notes, ..done })
}

/// `arrays` under the source's names where they bear those of the package.
pub(crate) fn source_names(f: &Function, g: &Function, arrays: &Arrays) -> Arrays {
    let is_ours = |name: &str| feed::tensor_inputs(f).any(|(p, _)| feed::means_port(name, p));
    feed::under_own_names(g, arrays, |given, port| is_ours(&port.name) || !is_ours(given))
}

/// Whether two models mean the same input or output.
pub(crate) fn same_port(a: &Port, b: &Port) -> bool {
    feed::means_port(&a.name, b) || feed::means_port(&b.name, a)
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
    use mlconv_tensor::Tensor;

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
    fn a_package_that_does_not_run_fails() {
        let source = program("func @main(%x: f32[n]) ios17 {\n  %y = relu(x=%x)\n  return %y\n}\n");
        let stuck = "func @main(%x: f32[n]) ios17 {\n  %k = const(val=i32[2] [2, 2])\n  %a = reshape(x=%x, shape=%k)\n  %y = relu(x=%a)\n  return %y\n}\n";
        let samples: Arrays = [("x".to_owned(), Tensor::from_vec(&[5], vec![1f32; 5]))].into_iter().collect();
        let given = Given { samples: &samples, labels: None, seed: 0 };
        let done = parity(&source, &program(stuck), given, Tolerance::F32, kernels()).expect("a verdict");
        let why = done.runs[0].error.as_deref().expect("a reason");
        assert!(!done.pass() && done.outputs.is_empty() && why.contains("reshape"), "{why}");
        assert!(done.differs(None).expect("a fault").title.contains("does not run on samples"));
        // Inputs that it does not take are no fault of what it computes.
        let other = program("func @main(%x: f32[4]) ios17 {\n  %y = relu(x=%x)\n  return %y\n}\n");
        let failure = parity(&source, &other, given, Tolerance::F32, kernels()).expect_err("it takes 4");
        assert_eq!(*failure[0].code, codes::N0003);
    }

    #[test]
    fn what_a_call_leaves_is_seen_by_the_next() {
        let text = |factor: &str| {
            format!(
                "func @main(%s: state<f16[2]>, %x: f16[2]) ios18 {{\n  %k = const(val=f16[] {factor})\n  %r = read_state(input=%s)\n  \
                 %y = add(x=%r, y=%x)\n  %z = mul(x=%y, y=%k)\n  write_state(input=%s, data=%z)\n  return %y\n}}\n"
            )
        };
        let (samples, off) = (Arrays::new(), program(&text("2.0")));
        let given = Given { samples: &samples, labels: None, seed: 0 };
        let done = parity(&program(&text("1.0")), &off, given, Tolerance::F16, kernels()).expect("both run");
        assert_eq!((done.pass(), done.samples, done.outputs[0].worst_sample), (false, 2, 1));
        let one: Arrays = [("x".to_owned(), Tensor::splat(mlconv_tensor::DType::F16, &[2], 1.0))].into_iter().collect();
        let given = Given { samples: &one, ..given };
        let done = parity(&off, &off, given, Tolerance::F16, kernels()).expect("both run");
        assert_eq!(done.untested, ["states behind the first call"]);
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
