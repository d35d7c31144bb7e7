//! ONNX models in onnxruntime, whose library a second process of this program loads.

use super::{
    Around, Chosen, Source,
    library::{self, VARIABLE},
    process::{Engine, Process},
};
use crate::{Diagnostic, codes, model::Format};
use mlconv_arrays::talk::{Fault, Stage};
use std::{
    path::{self, Path},
    process::Command,
};

/// The hidden command of the program that loads the library.
const COMMAND: &str = "source-runtime";

/// Loads the source into onnxruntime; where that is not required and does not work, the lowering is the witness.
pub(super) fn choose(required: bool, source: Source<'_>, around: &Around) -> Result<Chosen, Diagnostic> {
    let kernels = Chosen::kernels(source.format);
    if !required && source.format != Format::Onnx {
        return Ok(kernels);
    }
    let place = source.path.display().to_string();
    if source.format != Format::Onnx {
        let title = format!("onnxruntime runs ONNX models, and the source is {}", super::kind(source.format));
        return Err(Diagnostic::error(&codes::L0001, title)
            .at(place)
            .help("leave `--source-runtime` out: the source runs on our own kernels"));
    }
    if !cfg!(feature = "onnxruntime") {
        let d = Diagnostic::error(&codes::N0006, "this build cannot load onnxruntime");
        let d = d.help("build it with the feature `onnxruntime`, or leave `--source-runtime` out");
        return if required { Err(d) } else { Ok(kernels) };
    }
    let search = library::search(around.library.as_deref());
    let mut tried: Vec<(String, Fault)> = vec![];
    if let Some(missing) = &search.missing {
        let fault = Fault { stage: Stage::Absent, why: "there is no library of onnxruntime".to_owned() };
        tried.push((missing.display().to_string(), fault));
    }
    for library in &search.candidates {
        match start(library, source.path, around) {
            Ok(process) => return Ok(Chosen { process: Some(process), required, ..kernels }),
            Err(fault) if matches!(fault.stage, Stage::Absent | Stage::Library) => {
                tried.push((library.display().to_string(), fault));
            }
            Err(fault) => {
                let d = super::refused("onnxruntime", &fault).at(place);
                return if required { Err(d) } else { Ok(Chosen { notes: vec![super::instead(d)], ..kernels }) };
            }
        }
    }
    let d = unloaded(&tried);
    if required {
        return Err(d);
    }
    // That nothing is installed is nothing to speak of.
    let silent = !search.named && tried.iter().all(|(_, f)| f.stage == Stage::Absent);
    Ok(Chosen { notes: if silent { vec![] } else { vec![super::instead(d)] }, ..kernels })
}

fn start(library: &Path, model: &Path, around: &Around) -> Result<Process, Fault> {
    let fault = |e| Fault { stage: Stage::Library, why: format!("its process has no place: {e}") };
    let (program, model) = (path::absolute(&around.program).map_err(fault)?, path::absolute(model).map_err(fault)?);
    let mut command = Command::new(program);
    command.arg(COMMAND).arg("--library").arg(library).arg("--threads").arg(around.threads.to_string());
    command.arg("--").arg(model);
    Process::start(command, &around.program, Engine::Onnxruntime { library: library.to_path_buf() })
}

/// That no library could be loaded, what was tried, and what to do.
fn unloaded(tried: &[(String, Fault)]) -> Diagnostic {
    let tries: Vec<String> = tried.iter().map(|(name, fault)| format!("`{name}`: {}", fault.why)).collect();
    let d = Diagnostic::error(&codes::N0006, format!("onnxruntime cannot be loaded; tried {}", tries.join("; ")));
    d.help(format!(
        "install it, as with `pip install onnxruntime` and {VARIABLE} set to the folder `onnxruntime/capi` of that package, or \
         with a library of onnxruntime's releases and {VARIABLE} set to it"
    ))
}
