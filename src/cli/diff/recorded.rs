//! `mlconv diff` with tensors that were recorded in the place of a model, or with what came back from a Mac.

use super::{
    super::{CommandResult, Outcome, args::Import, terminal::Terminal},
    Args,
};
use crate::{
    Diagnostic, Failure, bundle, codes,
    compare::OutputDiff,
    convert::default_tolerance,
    diff::recorded::{self, Recorded},
    feed, golden, made_up, model,
    names::listed,
    report::{self, outputs_text},
};
use mlconv_mil::verify::verify;
use serde_json::json;
use std::path::Path;

/// Whether a path is a file of tensors, and no model.
pub(super) fn is_recording(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "npz" || e == "safetensors")
}

/// Compares the values of a model with recorded ones.
pub(super) fn run(args: &Args, b: &Path, terminal: &Terminal) -> CommandResult {
    let (is_first, file, path) = if is_recording(&args.a) { (true, &*args.a, b) } else { (false, b, &*args.a) };
    let needs = |option: &str| {
        let d =
            Diagnostic::error(&codes::L0001, format!("`{option}` needs two models: what was recorded cannot be run"));
        Err(vec![d.help("give the model that it was recorded of")])
    };
    if let Some(option) = of_models(args).next() {
        return needs(option);
    }
    let arrays = golden::read(file).map_err(|d| vec![d])?.into_arrays();
    let inputs = args.inputs.read()?;
    terminal.warn(&inputs.notes);
    let request = Import::of_shapes(&args.input).request()?;
    let interface = args.ranges.within(args.interface.interface()?);
    let mut read = {
        let _step = terminal.step("importing");
        model::read_sized(path, &request, &interface.shaped(&inputs.samples, None))?
    };
    terminal.warn(&read.warnings);
    terminal.warn(&interface.apply(&mut read.module)?.notes);
    let module = verify(read.module)?;
    let f = model::function(&module, args.function.as_deref()).map_err(|d| vec![d])?;
    let noted = recorded::given(f, &arrays);
    let wanted: Vec<&str> = feed::tensor_inputs(f).map(|(port, _)| &*port.name).collect();
    if !args.inputs.are_given() && noted.is_empty() && !wanted.is_empty() {
        let title =
            format!("no input was recorded, so the model cannot be run on what this is of: wanted {}", listed(&wanted));
        let d = Diagnostic::error(&codes::N0003, title).at(file.display().to_string());
        let help = "record them as `input/NAME`, or give them with `--sample`, or with `--seed` where `mlconv` has made them up";
        return Err(vec![d.help(help)]);
    }
    let given = match (inputs.samples.is_empty(), noted.is_empty()) {
        (true, true) => made_up::random_inputs(&module, f, inputs.seed()),
        (true, false) => feed::match_inputs(f, &noted),
        (false, _) => feed::match_inputs(f, &inputs.samples),
    };
    let given = given.map_err(|d| vec![d])?;
    let tolerance = args.limits.thresholds().instead_of(default_tolerance(&module));
    let Recorded { values, unused } = {
        let _step = terminal.step("running");
        recorded::compare((&module, f), &given, &arrays, is_first, tolerance).map_err(|d| vec![d])?
    };
    if values.is_empty() {
        let title = format!("no value of the model bears the name of a recorded tensor: {}", listed(arrays.keys()));
        return Err(vec![Diagnostic::error(&codes::N0003, title).at(file.display().to_string())]);
    }
    if !unused.is_empty() {
        let title = format!("not compared, as no value bears the name: {}", listed(&unused));
        terminal.warn(&[Diagnostic::warning(&codes::N0004, title)]);
    }
    let pass = values.iter().all(|v| v.pass);
    if terminal.is_json() {
        let head =
            json!({"version": report::VERSION, "command": "diff", "pass": pass, "outputs": values, "unused": unused});
        terminal.json(&head);
    } else {
        terminal.result(&outputs_text(&values, &tolerance));
    }
    Ok(if pass { Outcome::Done } else { Outcome::Differs })
}

/// Options that only two models have a use for, of those that were given.
fn of_models(args: &Args) -> impl Iterator<Item = &'static str> {
    let all = [("--bisect", args.bisect), ("--reduce", args.reduce.is_some())];
    let reports = args.reports.wanted();
    all.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).chain(reports)
}

/// Compares what Core ML made of a bundle with what is expected.
pub(super) fn of_bundle(args: &Args, terminal: &Terminal) -> CommandResult {
    let of_function = args.function.is_some().then_some("--function");
    let of_inputs = (!args.inputs.files().is_empty()).then_some("--sample");
    if let Some(option) = of_models(args).chain(of_function).chain(of_inputs).next() {
        let title = format!("`{option}` has no meaning for a bundle, which holds its inputs and what is expected");
        return Err(vec![Diagnostic::error(&codes::L0001, title).help("leave it out")]);
    }
    let thresholds = args.limits.thresholds();
    let tolerance = thresholds.is_any().then(|| thresholds.instead_of(crate::compare::Tolerance::F32));
    let outcome = bundle::read(&args.a, tolerance)?;
    let pass = outcome.runs.iter().all(bundle::Run::pass);
    if terminal.is_json() {
        let run = |r: &bundle::Run| {
            let (own, ops): (Vec<_>, Vec<_>) = r.outputs.iter().partition(|o| o.model == 0);
            let diffs = |all: Vec<&bundle::Judged>| all.into_iter().map(|o| json!(o.diff)).collect::<Vec<_>>();
            json!({"units": r.units, "device": r.device, "errors": r.errors, "pass": r.pass(),
                "outputs": diffs(own), "values": diffs(ops)})
        };
        let runs: Vec<_> = outcome.runs.iter().map(run).collect();
        terminal.json(&json!({"version": report::VERSION, "command": "diff", "pass": pass,
            "against": outcome.bundle.against, "devices": runs}));
    } else {
        terminal.result(&outcome.runs.iter().map(device_text).collect::<String>());
    }
    Ok(if pass { Outcome::Done } else { Outcome::Differs })
}

fn device_text(run: &bundle::Run) -> String {
    let device = if run.device.is_empty() { String::new() } else { format!(" ({})", run.device) };
    let mut out = format!("{}{device}\n", run.units);
    for why in &run.errors {
        out += &format!("  failed: {why}\n");
    }
    let of = |is_own: bool| -> Vec<OutputDiff> {
        run.outputs.iter().filter(|o| (o.model == 0) == is_own).map(|o| o.diff.clone()).collect()
    };
    out += &outputs_text(&of(true), &crate::compare::Tolerance::F16);
    // Values of ops come in the order of the program: the first that is off is where it begins.
    let values = of(false);
    if let Some(first) = values.iter().position(|v| !v.pass) {
        out += &format!("  the first value that is beyond the tolerance, of {}:\n", values.len());
        out += &outputs_text(&values[first..values.len().min(first + 5)], &crate::compare::Tolerance::F16);
    } else if !values.is_empty() {
        out += &format!("  all {} values of ops are within the tolerance\n", values.len());
    }
    out
}

/// Says that a bundle is compared with its own results.
pub(super) fn alone(path: &Path) -> Result<(), Failure> {
    if path.join(bundle::FILE).is_file() {
        return Ok(());
    }
    let title = "one model alone cannot be compared: a bundle, with the results of a Mac in it, can";
    Err(vec![Diagnostic::error(&codes::L0001, title).at(path.display().to_string()).help("`mlconv diff A B`")])
}
