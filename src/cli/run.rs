//! `mlconv run`

use super::{
    CommandResult, Outcome,
    args::{BackendName, EmulateName, Import, read_arrays},
    terminal::Terminal,
};
use crate::{
    Diagnostic, arrays,
    arrays::Arrays,
    codes, convert, feed, model,
    names::listed,
    report::{self, table},
};
use mlconv_mil::{ir::Function, verify::verify};
use mlconv_runner::{Emulate, Options, Session, States};
use mlconv_tensor::Tensor;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model: an .mlpackage, or anything that can be imported
    model: PathBuf,
    /// Inputs by name; random ones of the declared types where there are none
    #[arg(long, value_name = "FILE.npz")]
    inputs: Option<PathBuf>,
    #[command(flatten)]
    import: Import,
    /// Where to write the outputs
    #[arg(long, value_name = "FILE.npz")]
    outputs: Option<PathBuf>,
    /// What runs the model
    #[arg(long, value_enum, default_value_t = BackendName::Cpu)]
    backend: BackendName,
    /// Arithmetic to imitate
    #[arg(long, value_enum)]
    emulate: Option<EmulateName>,
    /// The function to run, of a package that has several
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Contents of states before the run
    #[arg(long, value_name = "FILE.npz")]
    state_in: Option<PathBuf>,
    /// Where to write the contents of states after the run
    #[arg(long, value_name = "FILE.npz")]
    state_out: Option<PathBuf>,
    /// Seed of random inputs
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    // `--input NAME=FILE.npy` gives an array, `--input NAME=SHAPE` a shape.
    let (files, shapes): (Vec<String>, Vec<String>) =
        args.import.input.iter().cloned().partition(|i| Path::new(i).extension().is_some_and(|e| e == "npy"));
    let request = Import { input: shapes, ..args.import.clone() }.request()?;
    let read = {
        let _step = terminal.step("importing");
        model::read(&args.model, &request)?
    };
    terminal.warn(&read.warnings);
    let module = verify(read.module)?;
    let f = match &args.function {
        None => module.functions.first(),
        Some(name) => module.function(name),
    };
    let f = f.ok_or_else(|| {
        let title = format!("the model has no function `{}`", args.function.as_deref().unwrap_or("main"));
        let names = listed(module.functions.iter().map(|f| f.name.as_str()));
        vec![Diagnostic::error(&codes::L0001, title).help(format!("its functions are {names}"))]
    })?;
    let mut given = match &args.inputs {
        Some(path) => arrays::read_npz(path).map_err(|d| vec![d])?,
        None => Arrays::new(),
    };
    given.extend(read_arrays(&files)?);
    let inputs = if given.is_empty() && args.inputs.is_none() {
        feed::random_inputs(&module, f, args.seed)
    } else {
        feed::match_inputs(f, &given)
    }
    .map_err(|d| vec![d])?;
    let mut states = read_states(args, f)?;
    let options = Options { emulate: args.emulate.map(Emulate::from) };
    let outputs = {
        let _step = terminal.step("running");
        let session = Session::new(&module, f, args.backend.backend()?, options);
        session.run(&inputs, &mut states).map_err(|e| vec![convert::run_error(&e)])?
    };
    let named: Arrays = f.sig.outputs.iter().map(|p| p.name.to_string()).zip(outputs).collect();
    if let Some(path) = &args.outputs {
        arrays::write_npz(path, &named).map_err(|d| vec![d])?;
    }
    if let Some(path) = &args.state_out {
        let states: Arrays = states.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        arrays::write_npz(path, &states).map_err(|d| vec![d])?;
    }
    show(args, &named, terminal);
    Ok(Outcome::Done)
}

fn read_states(args: &Args, f: &Function) -> Result<States, Vec<Diagnostic>> {
    let Some(path) = &args.state_in else { return Ok(States::new()) };
    let mut out = States::new();
    for (name, t) in arrays::read_npz(path).map_err(|d| vec![d])? {
        let Some((port, ty)) = feed::states(f).find(|(p, _)| feed::means(&name, &p.name)) else {
            let d = Diagnostic::error(&codes::N0003, format!("no state is called `{name}`"));
            return Err(vec![d.help(format!("the states are {}", listed(feed::states(f).map(|(p, _)| &*p.name))))]);
        };
        out.insert(port.name.clone(), feed::fit(&port.name, ty, &t).map_err(|d| vec![d])?);
    }
    Ok(out)
}

fn show(args: &Args, outputs: &Arrays, terminal: &Terminal) {
    let summary = |t: &Tensor| {
        let values = t.to_f64();
        let finite = || values.iter().copied().filter(|v| v.is_finite());
        let (min, max) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        let mean = finite().sum::<f64>() / finite().count().max(1) as f64;
        (min, max, mean, values.len() - finite().count())
    };
    let ty = |t: &Tensor| {
        let dims: Vec<String> = t.shape().iter().map(ToString::to_string).collect();
        format!("{}[{}]", t.dtype(), dims.join(", "))
    };
    if terminal.is_json() {
        let one = |(name, t): (&String, &Tensor)| {
            let (min, max, mean, not_finite) = summary(t);
            let text = t.to_text();
            json!({"name": name, "dtype": t.dtype().name(), "shape": t.shape(), "text": text,
                "min": min.is_finite().then_some(min), "max": max.is_finite().then_some(max), "mean": mean, "not_finite": not_finite})
        };
        terminal.json(&json!({
            "version": report::VERSION,
            "command": "run",
            "outputs": outputs.iter().map(one).collect::<Vec<_>>(),
            "file": args.outputs,
        }));
        return;
    }
    let row = |(name, t): (&String, &Tensor)| {
        let (min, max, mean, not_finite) = summary(t);
        let values = match t.to_text() {
            Some(text) => format!("{text:?}"),
            None if t.count() == 0 => "empty".to_owned(),
            None => format!("min {min:.6} max {max:.6} mean {mean:.6}"),
        };
        let odd = if not_finite > 0 { format!(", {not_finite} not finite") } else { String::new() };
        vec![name.clone(), ty(t), values + &odd]
    };
    let lines = table(&outputs.iter().map(row).collect::<Vec<_>>());
    match &args.outputs {
        Some(path) => {
            terminal.say(lines.trim_end());
            terminal.result(&path.display().to_string());
        }
        None => terminal.result(&lines),
    }
}
