//! `mlconv verify`

use super::{
    CommandResult, Outcome,
    args::{Import, Inputs},
    terminal::Terminal,
};
use crate::{
    compare::Tolerance,
    convert, model,
    report::{self, parity_text},
};
use mlconv_mil::{ir::Module, verify::verify};
use mlconv_source::Request;
use mlconv_tensor::{DType, Type};
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The package
    package: PathBuf,
    /// The model that it comes from, or another package
    #[arg(long, value_name = "SOURCE")]
    against: PathBuf,
    /// Shape of an input of the source; repeatable
    #[arg(long, value_name = "[NAME=]SHAPE[:DTYPE]")]
    input: Vec<String>,
    #[command(flatten)]
    inputs: Inputs,
    /// Least signal over noise of an output, in dB; by default what the package's precision allows
    #[arg(long, value_name = "DB")]
    min_snr: Option<f64>,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    let inputs = args.inputs.read()?;
    let (package, source) = {
        let _step = terminal.step("importing");
        let package = model::read(&args.package, &Request::default())?;
        terminal.warn(&package.warnings);
        let opset = package.module.functions.first().map(|f| f.opset);
        let import = Import { target: None, input: args.input.clone(), output: vec![] };
        let source = model::read(&args.against, &Request { opset, ..import.request()? })?;
        (verify(package.module)?, verify(source.module)?)
    };
    let base = if has_halves(&package) { Tolerance::F16 } else { Tolerance::F32 };
    let tolerance = match args.min_snr {
        Some(min_snr_db) => Tolerance { min_snr_db, max_rel: 0.0 },
        None => base,
    };
    let mut parity = {
        let _step = terminal.step("running both");
        convert::parity(&source, &package, inputs.given(), tolerance)?
    };
    inputs.mention_unused(&mut parity, terminal);
    if terminal.is_json() {
        let mut out = json!({"version": report::VERSION, "command": "verify"});
        if let (Some(out), Some(parity)) = (out.as_object_mut(), report::parity(&parity).as_object_mut()) {
            out.append(parity);
        }
        terminal.json(&out);
    } else {
        terminal.say(&format!("compared with {}, on {}:", parity.against, parity.inputs));
        terminal.result(&parity_text(&parity));
    }
    Ok(if parity.pass() { Outcome::Done } else { Outcome::Differs })
}

/// Whether anything is computed in half precision.
fn has_halves(module: &Module) -> bool {
    let half = |ty: &Type| ty.tensor().is_some_and(|t| t.dtype == DType::F16);
    module.functions.iter().any(|f| {
        f.all_ops().iter().any(|id| f.op_data(*id).results.iter().any(|v| half(f.ty(*v)) && f.constant(*v).is_none()))
    })
}
