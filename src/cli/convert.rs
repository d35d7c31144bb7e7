//! `mlconv convert`

use super::{
    CommandResult, Outcome,
    args::{Import, Inputs, Precision, Rewrite},
    compress::{Compression, activation_line, compression_json, compression_text},
    terminal::Terminal,
};
use crate::{
    Diagnostic, codes,
    compare::Tolerance,
    convert::{self, Job, Parity, Prepared, Weights},
    report::{self, bytes, parity_text},
};
use serde_json::json;
use std::{path::PathBuf, process};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model: an .onnx file or an .mlpackage
    model: PathBuf,
    /// Where to write the package
    #[arg(short, value_name = "OUT.mlpackage")]
    out: PathBuf,
    #[command(flatten)]
    import: Import,
    #[command(flatten)]
    rewrite: Rewrite,
    #[command(flatten)]
    compression: Compression,
    #[command(flatten)]
    inputs: Inputs,
    /// Skip the parity run that otherwise follows
    #[arg(long, conflicts_with = "labels")]
    no_verify: bool,
    /// Replace the output if it exists
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> CommandResult {
    check_target(&args.out, args.force)?;
    let inputs = args.inputs.read()?;
    let half = args.rewrite.precision == Precision::Fp16;
    let request = args.import.request()?;
    let samples = inputs.samples.clone();
    let weights = args.compression.request(&args.out)?.map_or(Weights::Keep, Weights::Compress);
    let job = Job { model: args.model, request, half, keep_fp32: args.rewrite.patterns(), weights, samples };
    let prepared = {
        let _step = terminal.step("importing and optimising");
        convert::prepare(&job, &|n, of, row| terminal.weight(n, of, row))?
    };
    if let Some(a) = prepared.compression.as_ref().and_then(|c| c.activations.as_ref()) {
        a.rows.iter().for_each(|row| terminal.say(&activation_line(row, a)));
    }
    {
        let _step = terminal.step("writing");
        clean_up_when_interrupted(&args.out);
        convert::write(&prepared, &args.out, args.force)?;
    }
    terminal.warn(&prepared.warnings);
    terminal.warn(&prepared.unapplied);
    let mut parity = if args.no_verify {
        None
    } else {
        let _step = terminal.step("verifying");
        let written = convert::read_back(&args.out)?;
        let tolerance = if half { Tolerance::F16 } else { Tolerance::F32 };
        // Compression is lossy: the loss is reported, and no fault.
        let tolerance = if prepared.compression.is_some() { Tolerance::ANY } else { tolerance };
        Some(convert::parity(&prepared.source, &written, inputs.given(), tolerance)?)
    };
    if let Some(parity) = &mut parity {
        inputs.mention_unused(parity, terminal);
    }
    let size = package_size(&args.out);
    if terminal.is_json() {
        terminal.json(&summary("convert", Some(&args.out), &prepared, parity.as_ref(), size));
    } else {
        terminal.say(&text(&prepared, parity.as_ref(), size));
        terminal.result(&args.out.display().to_string());
    }
    let fine = prepared.unapplied.is_empty() && parity.is_none_or(|p| p.pass());
    Ok(if fine { Outcome::Done } else { Outcome::Differs })
}

/// Refuses a target before work is spent on it.
pub(super) fn check_target(out: &std::path::Path, force: bool) -> Result<(), Vec<Diagnostic>> {
    let place = out.display().to_string();
    if out.extension().is_none_or(|e| e != "mlpackage") {
        let d = Diagnostic::error(&codes::L0001, "the output must end in `.mlpackage`, or Core ML's tools refuse it");
        return Err(vec![d.at(place)]);
    }
    if out.exists() && !force {
        let d = Diagnostic::error(&codes::X0002, "the output exists").at(place);
        return Err(vec![d.help("replace it with `--force`")]);
    }
    Ok(())
}

/// A conversion that is interrupted leaves nothing behind.
pub(super) fn clean_up_when_interrupted(out: &std::path::Path) {
    let out = out.to_path_buf();
    // Without a handler an interrupted run leaves its staging folder to the next one, which removes it.
    let _ = ctrlc::set_handler(move || {
        mlconv_coreml::abandon(&out);
        #[expect(clippy::exit, reason = "the process was asked to end")]
        process::exit(130);
    });
}

/// Bytes of all files of a package.
pub(super) fn package_size(path: &std::path::Path) -> u64 {
    let (mut total, mut todo) = (0, vec![path.to_path_buf()]);
    while let Some(path) = todo.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => todo.extend(entries.flatten().map(|e| e.path())),
            Err(_) => total += std::fs::metadata(&path).map_or(0, |m| m.len()),
        }
    }
    total
}

pub(super) fn text(prepared: &Prepared, parity: Option<&Parity>, size: u64) -> String {
    let mut out = format!(
        "{} nodes of {} became {} ops; the package has {}, {} of them weights",
        prepared.source_ops,
        prepared.format.name(),
        prepared.ops,
        bytes(size),
        bytes(prepared.package.weights.len_bytes()),
    );
    if let Some(c) = &prepared.compression {
        out += &format!("\n{}", compression_text(c));
    }
    match parity {
        None => out += "\nnot verified, as asked",
        Some(p) => {
            out += &format!("\nread back and compared with {}, on {}:\n", p.against, p.inputs);
            out += parity_text(p).trim_end();
            if !p.pass() {
                out += "\nan output differs beyond tolerance";
            }
        }
    }
    out
}

pub(super) fn summary(
    command: &str,
    out: Option<&std::path::Path>,
    prepared: &Prepared,
    parity: Option<&Parity>,
    size: u64,
) -> serde_json::Value {
    json!({
        "version": report::VERSION,
        "command": command,
        "output": out,
        "source_format": prepared.format.name(),
        "source_ops": prepared.source_ops,
        "ops": prepared.ops,
        "size_bytes": size,
        "weights_bytes": prepared.package.weights.len_bytes(),
        "renamed": prepared.package.renamed.iter().map(|(from, to)| json!({"source": from, "package": to})).collect::<Vec<_>>(),
        "compression": prepared.compression.as_ref().map(compression_json),
        "warnings": prepared.warnings.iter().chain(&prepared.unapplied).map(report::diagnostic).collect::<Vec<_>>(),
        "parity": parity.map(report::parity),
    })
}
