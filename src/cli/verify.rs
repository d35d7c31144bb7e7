//! `mlconv verify`

use super::{
    CommandResult, Outcome,
    args::{Import, Inputs, Ranges, SourceRuntime},
    interface::Asked,
    terminal::Terminal,
};
use crate::{
    beside::{self, Beside},
    compare::Tolerance,
    convert::has_halves,
    parity,
    report::{self, parity_text},
    stateful,
};
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
    let interface = args.ranges.within(args.interface.interface()?);
    let Beside { source, source_format: format, outside, package, notes, .. } = {
        let _step = terminal.step("importing");
        let request = Import::of_shapes(&args.input).request()?;
        let function = args.function.as_deref();
        let asked = beside::Asked { function, request: &request, interface: &interface, samples: &inputs.samples };
        beside::read(&args.package, &args.against, asked)?
    };
    terminal.warn(&notes);
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

pub(super) fn decibels(text: &str) -> Result<f64, String> {
    let db = text.parse().ok().filter(|x: &f64| x.is_finite());
    db.ok_or_else(|| "wanted a number of dB, such as 40".to_owned())
}
