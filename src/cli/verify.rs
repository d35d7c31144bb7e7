//! `mlconv verify`

use super::{
    CommandResult, Outcome,
    args::{Import, Inputs, Ranges, SourceRuntime},
    interface::Asked,
    terminal::Terminal,
};
use crate::{
    compare::Tolerance,
    convert::has_halves,
    interface::{Applied, Interface},
    model::{self, Format},
    parity, ranges,
    report::{self, parity_text},
    stateful,
};
use mlconv_mil::verify::verify;
use mlconv_source::Request;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The package
    package: PathBuf,
    /// The model that it comes from, or another package
    #[arg(long, value_name = "SOURCE")]
    against: PathBuf,
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
    /// Least signal over noise of an output, in dB; by default 40 where the package computes in half precision, else 80, and
    /// an output also passes whose greatest difference is within 0.01, or 0.0001, of its greatest value
    #[arg(long, value_name = "DB", allow_negative_numbers = true, value_parser = decibels)]
    min_snr: Option<f64>,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    let inputs = args.inputs.read()?;
    terminal.warn(&inputs.notes);
    let asked = args.ranges.within(args.interface.interface()?);
    let (package, format, source, outside) = {
        let _step = terminal.step("importing");
        let mut package = model::read(&args.package, &Request::default())?;
        terminal.warn(&package.warnings);
        if let Some(name) = &args.function {
            let f = model::function(&package.module, Some(name)).map_err(|d| vec![d])?.clone();
            package.module.functions = vec![f];
        }
        let opset = package.module.functions.first().map(|f| f.opset);
        // A package that is compared with may have the states itself.
        let is_package = model::format(&args.against).is_ok_and(|f| f == Format::Package);
        let has_them = is_package && stateful::has_states(&model::read(&args.against, &Request::default())?.module);
        let states = if has_them { vec![] } else { stateful::pairs(&package.module) };
        // A package without states was made without them.
        let no_state = !stateful::has_states(&package.module);
        let import = Import { target: None, input: args.input.clone(), output: vec![], no_state, state: states };
        let request = Request { opset, ..import.request()? };
        let request = model::sized_like(&args.against, request, &package.module)?;
        // What was asked for when the package was written is asked of the source as well.
        let asked = asked.with_recorded(&package.module)?;
        let mut source = model::read_sized(&args.against, &request, &asked.shaped(&inputs.samples, None))?;
        let Applied { notes, outside } =
            asked.beyond(&Interface::recorded(&source.module)).apply(&mut source.module)?;
        terminal.warn(&notes);
        ranges::adopt(&mut source.module, &package.module);
        (verify(package.module)?, source.format, verify(source.module)?, outside)
    };
    let base = if has_halves(&package) { Tolerance::F16 } else { Tolerance::F32 };
    let tolerance = match args.min_snr {
        Some(min_snr_db) => Tolerance { min_snr_db, max_rel: 0.0 },
        None => base,
    };
    let mut parity = {
        let _step = terminal.step("running both");
        let has_states = stateful::has_states(&source);
        let witness = args.source_runtime.choose(&args.against, format, &inputs.samples, has_states)?.within(outside);
        parity::parity(&source, &package, inputs.given(), tolerance, witness)?
    };
    inputs.mention(&mut parity, &source, terminal);
    if terminal.is_json() {
        let mut out = json!({"version": report::VERSION, "command": "verify"});
        if let (Some(out), Some(parity)) = (out.as_object_mut(), report::parity(&parity).as_object_mut()) {
            out.append(parity);
        }
        terminal.json(&out);
    } else {
        terminal.say(&format!("{}, on {}:", parity.witness.title(), parity.inputs));
        terminal.result(&parity_text(&parity));
    }
    terminal.insist(parity.differs(None).as_slice());
    Ok(if parity.pass() { Outcome::Done } else { Outcome::Differs })
}

fn decibels(text: &str) -> Result<f64, String> {
    let db = text.parse().ok().filter(|x: &f64| x.is_finite());
    db.ok_or_else(|| "wanted a number of dB, such as 40".to_owned())
}
