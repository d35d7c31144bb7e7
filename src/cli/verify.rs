//! `mlconv verify`

use super::{
    CommandResult, Outcome,
    args::{BackendName, EmulateName, Import, Inputs, Ranges, ReadInputs, SourceRuntime},
    interface::Asked,
    recipe::RecipeFile,
    reports::{Reports, bisecting, check_files, typed},
    terminal::Terminal,
    thresholds::Limits,
    write::clean_up_when_interrupted,
};
use crate::{
    Diagnostic, Failure,
    beside::{self, Beside},
    codes,
    compare::Tolerance,
    convert::default_tolerance,
    diff::{self, Examined},
    feed,
    golden::{self, Origin, Recording},
    interface::class_labels,
    model,
    names::listed,
    parity::{self, Arithmetic, Extent, Parity, Scope},
    report::{Whole, answers_text, parity_text},
    stateful,
};
use mlconv_mil::{
    ir::Module,
    verify::{Verified, verify},
};
use mlconv_source::Request;
use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The package
    package: PathBuf,
    /// The model that it comes from, or another package
    #[arg(long, value_name = "SOURCE", required_unless_present_any = ["golden", "recipe", "print_recipe"])]
    against: Option<PathBuf>,
    #[command(flatten)]
    recipe: RecipeFile,
    /// The function to compare, of a package that has several; by default each is compared with that of the same name, or
    /// with the default one where there is none
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Shape of an input of the source; repeatable
    #[arg(long, value_name = "[NAME=]SHAPE[:DTYPE]")]
    input: Vec<String>,
    #[command(flatten)]
    interface: Asked,
    #[command(flatten)]
    ranges: Ranges,
    #[command(flatten)]
    source_runtime: SourceRuntime,
    #[command(flatten)]
    inputs: Inputs,
    /// Compare with what `--save-golden` recorded, or with `output/NAME` on `input/NAME` of an archive; with `--against`, it is
    /// also seen whether that is the source which was recorded
    #[arg(long, value_name = "FILE.safetensors|FILE.npz", conflicts_with_all = OF_SOURCE)]
    golden: Option<PathBuf>,
    /// Record the inputs of judged runs and what the source gives for them; a .safetensors file that exists is replaced
    #[arg(long, value_name = "FILE.safetensors")]
    save_golden: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    extent: Runs,
    #[command(flatten)]
    reports: Reports,
}

/// What is about a source that runs, and its inputs: not about what was recorded.
const OF_SOURCE: [&str; 19] = [
    "save_golden",
    "input",
    "image",
    "image_output",
    "class_labels",
    "class_output",
    "class_softmax",
    "optional",
    "rename",
    "io_precision",
    "range",
    "source_runtime",
    "sample",
    "resize",
    "labels",
    "seed",
    "quick",
    "seeds",
    "steps",
];

/// Bytes of values that are held to be compared, for a page.
const BUDGET: usize = 1 << 30;

/// What is run.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "What is run")]
struct Runs {
    /// Run the samples, or one series of random inputs, and nothing else
    #[arg(long, conflicts_with_all = ["seeds", "steps"])]
    quick: bool,
    /// Series of random inputs of the first shape, each from a seed of its own, from `--seed` on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Calls that follow each other, of a model with states
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// What runs the package
    #[arg(long, value_enum, default_value_t = BackendName::Cpu)]
    backend: BackendName,
    /// Arithmetic that the package imitates
    #[arg(long, value_enum)]
    emulate: Option<EmulateName>,
}

impl Runs {
    fn extent(self) -> Extent {
        if self.quick { Extent::Quick } else { Extent::Full { seeds: self.seeds, steps: self.steps.into() } }
    }

    fn arithmetic(self) -> Result<Arithmetic, Failure> {
        self.backend.backend()?;
        Ok(self.backend.arithmetic(self.emulate))
    }
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    if args.against.is_none() && args.golden.is_none() {
        let d = Diagnostic::error(&codes::L0001, "there is nothing to compare with");
        return Err(vec![
            d.help("give the model that the package comes from with `--against`, or a golden file with `--golden`"),
        ]);
    }
    let arithmetic = args.extent.arithmetic()?;
    check_golden(args).map_err(|d| vec![d])?;
    let mut others: Vec<PathBuf> = files(args).into_iter().map(|(_, path)| path).collect();
    others.extend(args.recipe.path().map(Path::to_owned));
    others.extend(args.interface.class_labels.as_ref().map(PathBuf::from).filter(|path| path.is_file()));
    check_files(&args.save_golden, &others)?;
    others.extend(args.save_golden.clone());
    args.reports.check(&others)?;
    clean_up_when_interrupted();
    let done = match &args.golden {
        Some(path) => recorded(args, path, arithmetic, terminal)?,
        None => compared(args, arithmetic, terminal)?,
    };
    let parity = &done.parity;
    let whole = whole(args, &done, terminal)?;
    args.reports.write(&whole)?;
    if terminal.is_json() {
        terminal.json(&whole);
    } else {
        terminal.say(&format!("{}, on {}:", parity.witness.title(), parity.inputs));
        terminal.result(&format!("{}\n{}", parity_text(parity), answers_text(&whole)));
    }
    terminal.insist(parity.beyond().as_slice());
    Ok(if parity.pass() { Outcome::Done } else { Outcome::Differs })
}

/// What was compared, and how far it is off.
struct Compared {
    parity: Parity,
    /// What the package was compared with, where that was not recorded.
    source: Option<Verified>,
    package: Verified,
    inputs: ReadInputs,
    notes: Vec<Diagnostic>,
}

/// The files that it is about, each with its role.
fn files(args: &Args) -> Vec<(&'static str, PathBuf)> {
    let mut files = vec![("package", args.package.clone())];
    files.extend(args.against.iter().map(|path| ("source", path.clone())));
    files.extend(args.golden.iter().map(|path| ("golden", path.clone())));
    files.extend(args.inputs.files());
    files
}

/// All that reports are made of, and what is printed. A page shows values, which are compared for it.
fn whole(args: &Args, done: &Compared, terminal: &Terminal) -> Result<serde_json::Value, Failure> {
    let Compared { parity, source, package, inputs, notes } = done;
    let mut found = vec![];
    if let Some(source) = source.as_ref().filter(|_| args.reports.want_values()) {
        let _step = terminal.step("comparing value by value");
        let scope = Scope {
            extent: args.extent.extent(),
            arithmetic: args.extent.arithmetic()?,
            ..Scope::quick(parity.tolerance)
        };
        found = diff::examine(source, package, (inputs.given(), &scope), parity, BUDGET).map_err(|d| vec![d])?;
    }
    let sides = |one| source.as_ref().map(|source| (Examined::sides(one, source, package), one));
    let found: Vec<_> = found.iter().filter_map(sides).collect();
    let (line, bisect) = (typed(), args.against.as_ref().map(|source| bisecting(source, &args.package)));
    let whole = Whole {
        command: "verify",
        line: &line,
        files: &files(args),
        package,
        parity,
        found: &found,
        bisected: !found.is_empty(),
        bisect: bisect.as_deref(),
        mended: None,
        notes,
    };
    whole.json()
}

/// How far outputs of a package may be off.
fn tolerance(args: &Args, package: &Module, arithmetic: Arithmetic) -> Tolerance {
    let default = if arithmetic.half { Tolerance::F16 } else { default_tolerance(package) };
    args.limits.thresholds().instead_of(default)
}

/// The package and its source on the same inputs.
fn compared(args: &Args, arithmetic: Arithmetic, terminal: &Terminal) -> Result<Compared, Failure> {
    let Some(against) = &args.against else { return Err(vec![]) };
    let inputs = args.inputs.read()?;
    terminal.warn(&inputs.notes);
    let interface = args.ranges.within(args.interface.interface()?);
    let Beside { source, source_format, outside, package, notes, .. } = {
        let _step = terminal.step("importing");
        let request = Import::of_shapes(&args.input).request()?;
        let function = args.function.as_deref();
        let asked = beside::Asked { function, request: &request, interface: &interface, samples: &inputs.samples };
        beside::read(&args.package, against, asked)?
    };
    terminal.warn(&notes);
    if args.save_golden.is_some() {
        one_function(&package).map_err(|d| vec![d])?;
    }
    let recording = RefCell::new(Recording::default());
    let mut parity = {
        let _step = terminal.step("running both");
        let has_states = stateful::has_states(&source);
        let witness = args.source_runtime.choose(against, source_format, &inputs.samples, has_states)?.within(outside);
        let scope = Scope {
            tolerance: tolerance(args, &package, arithmetic),
            kinds: args.limits.kinds(),
            extent: args.extent.extent(),
            arithmetic,
            record: args.save_golden.as_ref().map(|_| &recording),
            fast: false,
        };
        parity::compared(&source, &package, inputs.given(), &scope, witness)?
    };
    inputs.mention(&mut parity, &source, terminal);
    if let Some(path) = &args.save_golden {
        let recording = recording.borrow();
        let origin = origin((against, &source), (&args.package, &package), (&parity, &inputs), &recording);
        save(path, &origin.map_err(|d| vec![d])?, &recording, terminal).map_err(|d| vec![d])?;
    }
    Ok(Compared { parity, source: Some(source), package, inputs, notes })
}

/// The package on the inputs of a golden file.
fn recorded(args: &Args, path: &Path, arithmetic: Arithmetic, terminal: &Terminal) -> Result<Compared, Failure> {
    let package = {
        let _step = terminal.step("importing");
        let read = model::read(&args.package, &Request::default())?;
        terminal.warn(&read.warnings);
        let mut module = read.module;
        if let Some(name) = &args.function {
            module.functions = vec![model::function(&module, Some(name)).map_err(|d| vec![d])?.clone()];
        }
        one_function(&module).map_err(|d| vec![d])?;
        verify(module)?
    };
    let golden = golden::read(path).map_err(|d| vec![d])?;
    let scope = Scope {
        tolerance: tolerance(args, &package, arithmetic),
        kinds: args.limits.kinds(),
        extent: args.extent.extent(),
        arithmetic,
        record: None,
        fast: false,
    };
    let mut parity = {
        let _step = terminal.step("running");
        parity::recorded(&package, &golden, &scope)
            .map_err(|all| all.into_iter().map(|d| d.within(path.display().to_string())).collect::<Vec<_>>())?
    };
    if let (Some(against), Some(origin)) = (&args.against, &golden.origin) {
        let now = golden::hash(against).map_err(|d| vec![d])?;
        if now != origin.source_sha256 {
            let title = format!("the outputs were recorded from another source than `{}`", against.display());
            let d = Diagnostic::warning(&codes::N0004, title).at(path.display().to_string());
            parity.notes.push(d.help("record them anew with `--save-golden`"));
        }
    }
    terminal.warn(&parity.notes);
    let unused = package.functions.first().and_then(|f| feed::unused_note(f, &parity.unused));
    terminal.note(unused.as_slice());
    parity.notes.extend(unused);
    Ok(Compared { parity, source: None, package, inputs: ReadInputs::of_seed(0), notes: vec![] })
}

/// What is said of a recording: of which files it is, and of which inputs.
fn origin(
    (against, source): (&Path, &Module),
    (path, package): (&Path, &Module),
    (parity, inputs): (&Parity, &ReadInputs),
    recording: &Recording,
) -> Result<Origin, Diagnostic> {
    let recorded = package.functions.first().and_then(|g| source.function(&g.name)).or(source.functions.first());
    Ok(Origin {
        against: parity.witness.against(),
        source_sha256: golden::hash(against)?,
        package_sha256: golden::hash(path)?,
        inputs: parity.inputs.clone(),
        seed: inputs.seed(),
        calls: recording.len(),
        classes: recorded.and_then(class_labels),
    })
}

/// Writes what was recorded, and says what could not be.
fn save(path: &Path, origin: &Origin, recording: &Recording, terminal: &Terminal) -> Result<(), Diagnostic> {
    recording.write(path, origin)?;
    if !recording.left_out.is_empty() {
        let title = format!("not recorded, as golden files hold no such elements: {}", listed(&recording.left_out));
        terminal.warn(&[Diagnostic::warning(&codes::N0004, title).at(path.display().to_string())]);
    }
    terminal.say(&format!("recorded in {}: calls of the source: {}", path.display(), recording.len()));
    Ok(())
}

/// Refuses a file to record in before work is spent on it.
fn check_golden(args: &Args) -> Result<(), Diagnostic> {
    let Some(path) = &args.save_golden else { return Ok(()) };
    let place = path.display().to_string();
    if path.extension().is_none_or(|e| e != "safetensors") {
        return Err(Diagnostic::error(&codes::L0001, "a golden file must end in `.safetensors`").at(place));
    }
    Ok(())
}

/// Golden files are of one function.
fn one_function(package: &Module) -> Result<(), Diagnostic> {
    if package.functions.len() == 1 {
        return Ok(());
    }
    let title = "golden files are of one function, and the package has several";
    let names = listed(package.functions.iter().map(|f| f.name.as_str()));
    Err(Diagnostic::error(&codes::L0001, title).help(format!("say which with `--function`: {names}")))
}
