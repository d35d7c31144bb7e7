//! `mlconv diff`

mod recorded;

use super::{
    CommandResult, Outcome,
    args::{Import, Inputs, Ranges},
    compress::parse_size,
    interface::Asked,
    reports::{Reports, converting, typed},
    terminal::Terminal,
    thresholds::Limits,
};
use crate::{
    Diagnostic, Failure,
    beside::{self, Beside},
    codes,
    convert::default_tolerance,
    diff::{
        self, Examined, Sides, Why, exceptions, recipe,
        recipe::{Keeps, Recipe},
    },
    interface::Interface,
    model::Format,
    names::{quoted, shown},
    parity::{self, Parity, Scope},
    report::{Whole, answers_text, parity_text},
    witness::Chosen,
};
use mlconv_mil::diagnostic::Severity;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model to go by: a source, or a package; or tensors that were recorded, as .npz or .safetensors; alone, a bundle with
    /// the results of a Mac
    a: PathBuf,
    /// The model that is held against it, or tensors that were recorded
    b: Option<PathBuf>,
    /// Find the op that is to blame where outputs differ, and what mends it
    #[arg(long)]
    bisect: bool,
    /// Write the op that is to blame as a package of its own, with its inputs and what is expected of it, to a new folder
    #[arg(long, value_name = "FOLDER", requires = "bisect")]
    reduce: Option<PathBuf>,
    /// Memory for values that are held to be compared later, such as 512M; half of it at most is used
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "2GB")]
    max_memory: u64,
    /// The function to compare, of packages that have several
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Shape of an input of A; repeatable
    #[arg(long, value_name = "[NAME=]SHAPE[:DTYPE]")]
    input: Vec<String>,
    #[command(flatten)]
    interface: Asked,
    #[command(flatten)]
    ranges: Ranges,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    reports: Reports,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    args.reports.check(&args.others())?;
    let Some(b) = &args.b else {
        recorded::alone(&args.a)?;
        return recorded::of_bundle(args, terminal);
    };
    if recorded::is_recording(&args.a) || recorded::is_recording(b) {
        return recorded::run(args, b, terminal);
    }
    args.reduce.iter().try_for_each(|folder| diff::reduce::check(folder)).map_err(|d| vec![d])?;
    let inputs = args.inputs.read()?;
    terminal.warn(&inputs.notes);
    let beside = {
        let _step = terminal.step("importing");
        let request = Import::of_shapes(&args.input).request()?;
        let interface = args.ranges.within(args.interface.interface()?);
        let function = args.function.as_deref();
        let asked = beside::Asked { function, request: &request, interface: &interface, samples: &inputs.samples };
        beside::read(b, &args.a, asked)?
    };
    terminal.warn(&beside.notes);
    let tolerance = args.limits.thresholds().instead_of(default_tolerance(&beside.package));
    let (given, kernels) = (inputs.given(), Chosen::kernels(beside.source_format));
    let scope = Scope { kinds: args.limits.kinds(), fast: true, ..Scope::quick(tolerance) };
    let mut parity = {
        let _step = terminal.step("running both");
        parity::compared(&beside.source, &beside.package, given, &scope, kernels)?
    };
    inputs.mention(&mut parity, &beside.source, terminal);
    let (source, package) = (&beside.source, &beside.package);
    let found = {
        let _step = terminal.step("comparing value by value");
        let budget = usize::try_from(args.max_memory / 2).unwrap_or(usize::MAX);
        diff::examine(source, package, (given, &scope), &parity, budget).map_err(|d| vec![d])?
    };
    let found: Vec<(Sides<'_>, &Examined)> = found.iter().map(|one| (one.sides(source, package), one)).collect();
    let mut mended =
        if args.bisect && !parity.pass() { mended(&beside, &parity, &found, given, terminal) } else { None };
    if let Some(r) = mended.as_mut().filter(|r| r.keeps == Keeps::Precision) {
        r.again = again(args, b, &beside, r.options());
    }
    let line = typed();
    let bisect = format!("{line}{}", if args.bisect { "" } else { " --bisect" });
    let mut files = vec![("a", args.a.clone()), ("b", b.clone())];
    files.extend(args.inputs.files());
    let whole = Whole {
        command: "diff",
        line: &line,
        files: &files,
        package,
        parity: &parity,
        found: &found,
        bisected: args.bisect,
        bisect: Some(&bisect),
        mended: mended.as_ref(),
        notes: &beside.notes,
    };
    let json = whole.json()?;
    args.reports.write(&json)?;
    if terminal.is_json() {
        terminal.json(&json);
    } else {
        terminal.say(&format!("{}, on {}:", parity.witness.title(), parity.inputs));
        let mut text = parity_text(&parity);
        for (sides, one) in &found {
            if found.len() > 1 {
                text += &format!("function `{}`\n", shown(&sides.g.name));
            }
            text += &diff::ops_text(*sides, &one.bisection);
            if args.bisect {
                text += &diff::bisection_text(*sides, &one.bisection);
            }
        }
        text += &mended.as_ref().map(recipe_text).unwrap_or_default();
        terminal.result(&format!("{text}\n{}", answers_text(&json)));
    }
    terminal.insist(parity.beyond().as_slice());
    let unapplied = args.reduce.as_ref().map_or(Ok(None), |folder| reduce(&found, folder))?;
    terminal.insist(unapplied.as_slice());
    Ok(if parity.pass() && unapplied.is_none() { Outcome::Done } else { Outcome::Differs })
}

impl Args {
    /// All that is read, and what is written beside reports.
    fn others(&self) -> Vec<PathBuf> {
        let read = self.inputs.files().into_iter().map(|(_, path)| path);
        [Some(&self.a), self.b.as_ref(), self.reduce.as_ref()].into_iter().flatten().cloned().chain(read).collect()
    }
}

/// What mends outputs that are off, as far as that was found.
fn mended(
    beside: &Beside,
    parity: &Parity,
    found: &[(Sides<'_>, &Examined)],
    given: parity::Given<'_>,
    terminal: &Terminal,
) -> Option<Recipe> {
    let _step = terminal.step("looking for what mends it");
    let (source, package, format) = (&beside.source, &beside.package, beside.source_format);
    if found.iter().any(|(_, one)| one.bisection.weights.iter().any(|all| !all.is_empty())) {
        return exceptions::search(source, package, (&beside.job, format), given, parity, found);
    }
    if format == Format::Package {
        return None;
    }
    if let Some(again) = recipe::again(source, &beside.job, format, given, parity) {
        return Some(again);
    }
    let rounds = |(_, one): &(Sides<'_>, &Examined)| {
        one.bisection.culprits.first().is_none_or(|c| matches!(c.why, Why::Overflows | Why::Rounds | Why::Unknown))
    };
    if !parity.half || !found.iter().any(rounds) {
        return None;
    }
    recipe::search(source, package, &beside.job, format, given, parity)
}

/// What is typed to convert as was tried, into a package beside the one that is off; `None` where the package has an interface of
/// which nothing was said, as that would be lost.
fn again(args: &Args, b: &Path, beside: &Beside, options: String) -> Option<String> {
    let said = args.ranges.within(args.interface.interface().ok()?);
    if Interface::recorded(&beside.package) != Interface::default() && said == Interface::default() {
        return None;
    }
    let mut more = vec![];
    if !beside.job.half {
        more.push("--precision fp32".to_owned());
    }
    if beside.source_format == Format::TorchScript && args.input.is_empty() && args.inputs.files().is_empty() {
        more.extend(beside.job.request.inputs.iter().map(|spec| format!("--input {}", quoted(&spec.to_string()))));
    }
    more.extend(Some(options).filter(|options| !options.is_empty()));
    let name = format!("{}-mended.mlpackage", b.file_stem()?.to_string_lossy());
    Some(converting(&args.a, &b.with_file_name(name), more))
}

fn recipe_text(r: &Recipe) -> String {
    let lines = r.lines().join("\n  ");
    let head = match &r.again {
        None if r.names.is_empty() => {
            "converting again, with what the package says of how it was made, mends it, and gives\n".to_owned()
        }
        Some(again) if r.names.is_empty() => {
            format!("converting again mends it, on these inputs:\n  {again}\nand gives\n")
        }
        Some(again) => {
            format!("with `{}` it passes:\n  {again}\nin a recipe that is\n  {lines}\nand gives\n", r.options())
        }
        None => format!(
            "with `{}` added to `{}` it passes; in a recipe that is\n  {lines}\nand gives\n",
            r.options(),
            r.command()
        ),
    };
    head + &parity_text(&r.parity)
}

/// Writes the op to blame; a warning where there is none.
fn reduce(found: &[(Sides<'_>, &Examined)], folder: &Path) -> Result<Option<Diagnostic>, Failure> {
    let Some((sides, first)) = found.iter().find(|(_, one)| !one.bisection.culprits.is_empty()) else {
        let title = "`--reduce` writes nothing: no op is off by more than its types explain";
        return Ok(Some(Diagnostic::warning(&codes::L0002, title)));
    };
    match diff::reduce::write(*sides, &first.bisection, &first.start, folder) {
        Ok(()) => Ok(None),
        Err(d) if d.severity == Severity::Warning => Ok(Some(d)),
        Err(d) => Err(vec![d]),
    }
}
