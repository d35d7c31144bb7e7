//! From a model that is ready to a package: written, read back, compared, and reported.

use super::{CommandResult, Outcome, args::ReadInputs, terminal::Terminal};
use crate::{
    Diagnostic, arrays, codes,
    compare::Tolerance,
    convert::{self, Job, Prepared},
    diff::recipe,
    model::{package_error, size},
    parity::{self, Parity},
    report::{self, bytes, compression_json, compression_text, parity_text},
    witness::Chosen,
};
use mlconv_coreml::Existing;
use mlconv_mil::diagnostic::Severity;
use serde_json::json;
use std::{path::Path, process};

/// How a package is written.
pub(super) struct Write<'a> {
    /// The command that writes it.
    pub command: &'static str,
    pub out: &'a Path,
    pub force: bool,
    /// What may differ between the source and what was written; `None` does not compare.
    pub verify: Option<Tolerance>,
    /// What was to be done, where ops can be kept in single precision to bring outputs within the tolerance.
    pub mend: Option<&'a Job>,
}

impl Write<'_> {
    pub(super) fn run(
        &self,
        mut prepared: Prepared,
        witness: Chosen,
        inputs: &ReadInputs,
        terminal: &Terminal,
    ) -> CommandResult {
        {
            let _step = terminal.step("writing");
            clean_up_when_interrupted();
            prepared.warnings.extend(convert::write(&prepared, self.out, self.force)?);
        }
        terminal.warn(&prepared.warnings);
        terminal.insist(&prepared.unapplied);
        let (mut uncompared, asked) = (vec![], !inputs.samples.is_empty() || witness.required);
        let mut parity = match self.verify {
            None => None,
            Some(tolerance) => {
                let _step = terminal.step("verifying");
                let written = convert::read_back(self.out)?;
                match parity::parity(&prepared.source, &written, inputs.given(), tolerance, witness) {
                    Ok(parity) => Some(parity),
                    // The package is there and sound; that there was nothing to compare it with is no fault of it.
                    Err(why) if why.iter().all(|d| *d.code == codes::N0007) => {
                        uncompared = why.into_iter().map(|d| Diagnostic { severity: Severity::Warning, ..d }).collect();
                        None
                    }
                    Err(failure) => return Err(failure),
                }
            }
        };
        if asked {
            // The comparison on these samples, or with this witness, was asked for.
            terminal.insist(&uncompared);
            prepared.unapplied.append(&mut uncompared);
        } else {
            terminal.warn(&uncompared);
            prepared.warnings.append(&mut uncompared);
        }
        if let Some(parity) = &mut parity {
            // Samples that weights were compressed by were spoken of then.
            parity.notes.retain(|d| !prepared.warnings.iter().any(|w| w.title == d.title));
            inputs.mention(parity, &prepared.source, terminal);
        }
        let broken = parity.as_ref().filter(|p| p.half && !p.pass() && p.lowering_agrees != Some(true));
        let mended = broken.zip(self.mend).and_then(|(parity, job)| {
            let _step = terminal.step("looking for ops to keep in single precision");
            let Prepared { source, module, format, .. } = &prepared;
            recipe::search(source, module, job, *format, inputs.given(), parity).map(|r| r.names)
        });
        let differs = parity.as_ref().and_then(|p| p.differs(mended.as_deref()));
        let size = size(self.out);
        if terminal.is_json() {
            let mut out = summary(self.command, Some(self.out), &prepared, parity.as_ref(), Some(size));
            out["mended_by"] = mended.as_ref().map_or(serde_json::Value::Null, |names| json!({"keep_fp32": names}));
            terminal.json(&out);
        } else {
            terminal.say(&text(&prepared, parity.as_ref(), self.verify.is_some(), size));
            if let (Some(p), Some(_), true) = (&parity, &differs, terminal.is_quiet()) {
                terminal.insist_text(parity_text(p).trim_end());
            }
            terminal.result(&self.out.display().to_string());
        }
        terminal.insist(differs.as_slice());
        let fine = prepared.unapplied.is_empty() && parity.is_none_or(|p| p.pass());
        Ok(if fine { Outcome::Done } else { Outcome::Differs })
    }
}

/// Refuses a target before work is spent on it.
pub(super) fn check_target(out: &Path, force: bool) -> Result<(), Vec<Diagnostic>> {
    let place = out.display().to_string();
    if out.extension().is_none_or(|e| e != "mlpackage") {
        let d = Diagnostic::error(&codes::L0001, "the output must end in `.mlpackage`, or Core ML's tools refuse it");
        return Err(vec![d.at(place)]);
    }
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|p| !p.is_dir()) {
        let d = Diagnostic::error(&codes::X0001, format!("there is no folder `{}` to write to", folder.display()));
        return Err(vec![d.at(place)]);
    }
    let existing = if force { Existing::Replace } else { Existing::Keep };
    mlconv_coreml::check_target(out, existing).map_err(|e| vec![package_error(&e)])
}

/// Refuses a file inside of a package, of which it would be no part.
pub(super) fn check_file(path: &Path) -> Result<(), Vec<Diagnostic>> {
    mlconv_coreml::check_file(path).map_err(|e| vec![package_error(&e)])
}

/// A command that is interrupted leaves nothing behind.
pub(super) fn clean_up_when_interrupted() {
    // Without a handler an interrupted run leaves its staging folder to the next one, which removes it.
    let _ = ctrlc::set_handler(|| {
        mlconv_coreml::abandon();
        arrays::abandon();
        #[expect(clippy::exit, reason = "the process was asked to end")]
        process::exit(130);
    });
}

fn text(prepared: &Prepared, parity: Option<&Parity>, asked: bool, size: u64) -> String {
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
        None if asked => out += "\nread back, and compared with nothing, as the source does not run on these inputs",
        None => out += "\nnot verified, as asked",
        Some(p) => {
            out += &format!("\nread back; {}, on {}:\n", p.witness.title(), p.inputs);
            out += parity_text(p).trim_end();
        }
    }
    out
}

pub(super) fn summary(
    command: &str,
    out: Option<&Path>,
    prepared: &Prepared,
    parity: Option<&Parity>,
    size: Option<u64>,
) -> serde_json::Value {
    json!({
        "version": report::VERSION,
        "command": command,
        "output": out,
        "source_format": prepared.format.name(),
        "source_ops": prepared.source_ops,
        "ops": prepared.ops,
        "size_bytes": size,
        "weights_bytes": size.map(|_| prepared.package.weights.len_bytes()),
        "renamed": prepared.package.renamed.iter().map(|(from, to)| json!({"source": from, "package": to})).collect::<Vec<_>>(),
        "compression": prepared.compression.as_ref().map(compression_json),
        "warnings": prepared.warnings.iter().chain(&prepared.unapplied).map(report::diagnostic).collect::<Vec<_>>(),
        "kept_fp32": prepared.kept.iter().map(report::kept).collect::<Vec<_>>(),
        "parity": parity.map(report::parity),
    })
}
