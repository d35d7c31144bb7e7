//! onnxruntime in a process of its own: a library or a model that brings it down does not bring the command down.

use super::frame::{self, Kind};
use crate::arrays::{self, Arrays};
use mlconv_tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::{
    io::{self, BufReader, ErrorKind},
    path::{self, Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The hidden command of the program that `serve` is.
const COMMAND: &str = "source-runtime";

/// What the process says of the model once it is loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The version of the library, such as `1.31`.
    pub(super) version: String,
    pub(super) inputs: Vec<Slot>,
    pub(super) outputs: Vec<Slot>,
}

/// An input or output of the model, as onnxruntime has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) name: String,
    /// The name of its element type; `None` for what is no tensor of numbers.
    pub(super) dtype: Option<String>,
    /// Its sizes; what is open is negative.
    pub(super) shape: Vec<i64>,
    /// Whether the model has a value for it.
    pub(super) optional: bool,
}

/// How far things went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// There is no such library.
    Absent,
    /// The library is there, and of no use.
    Library,
    /// The library does not take the model.
    Model,
    /// The model does not run on the inputs.
    Run,
}

/// Why onnxruntime is no witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    pub(super) stage: Stage,
    pub(super) why: String,
}

/// What is asked of a run, besides the arrays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Names {
    /// The inputs that arrays are given for, in their order.
    pub(super) inputs: Vec<String>,
    /// The outputs that are wanted.
    pub(super) outputs: Vec<String>,
}

/// How a process is started.
#[derive(Clone, Debug)]
pub(super) struct Start<'a> {
    /// The program, which has [`COMMAND`].
    pub(super) program: &'a Path,
    pub(super) library: &'a Path,
    pub(super) model: &'a Path,
    pub(super) threads: usize,
}

/// A model loaded by onnxruntime, in a process of its own.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Closed when the process is to end.
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    pub(super) hello: Hello,
    pub(super) library: PathBuf,
}

impl Process {
    pub(super) fn start(how: &Start<'_>) -> Result<Self, Fault> {
        let library = |why: String| Fault { stage: Stage::Library, why };
        // Loaders of some systems look for a library in the folder that a process runs in. Where the command runs may be a
        // stranger's folder; where the program is, is none.
        let absolute = |of: &Path| path::absolute(of).map_err(|e| library(format!("its process has no place: {e}")));
        let (program, model) = (absolute(how.program)?, absolute(how.model)?);
        let mut command = Command::new(&program);
        command.current_dir(program.parent().unwrap_or(&program));
        command.arg(COMMAND).arg("--library").arg(how.library).arg("--threads").arg(how.threads.to_string());
        command.arg("--").arg(model);
        // What the library prints is no part of our talk.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|e| library(format!("its process cannot be started: {e}")))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(library("its process has no pipes".to_owned()));
        };
        let hello = Hello { version: String::new(), inputs: vec![], outputs: vec![] };
        let from = BufReader::new(from);
        let mut process = Self { child, to: Some(to), from, hello, library: how.library.to_path_buf() };
        let body = process.answer(Kind::Hello, Stage::Library)?;
        process.hello =
            serde_json::from_slice(&body).map_err(|e| library(format!("its answer makes no sense: {e}")))?;
        Ok(process)
    }

    /// Runs the model; the outputs of these names, in the types that the model gives them.
    pub(super) fn run(&mut self, inputs: &Arrays, outputs: &[String]) -> Result<Vec<Tensor>, Fault> {
        let fault = |why: String| Fault { stage: Stage::Run, why };
        let names = Names { inputs: inputs.keys().cloned().collect(), outputs: outputs.to_vec() };
        let mut body = serde_json::to_vec(&names).map_err(|e| fault(e.to_string()))?;
        body.push(b'\n');
        body.extend(arrays::npz_bytes(&numbered(inputs.values().cloned())).map_err(fault)?);
        let sent = self.to.as_mut().map(|to| frame::write(to, Kind::Inputs, &body));
        drop(body);
        if let Some(Err(e)) = sent {
            return Err(fault(self.end(&e)));
        }
        let body = self.answer(Kind::Outputs, Stage::Run)?;
        let found: Vec<Tensor> = arrays::parse_npz(&body).map_err(fault)?.into_values().collect();
        if found.len() != outputs.len() {
            return Err(fault(format!("{} outputs came, wanted {}", found.len(), outputs.len())));
        }
        Ok(found)
    }

    /// The next message, which should be of this kind.
    fn answer(&mut self, want: Kind, stage: Stage) -> Result<Vec<u8>, Fault> {
        match frame::read(&mut self.from) {
            Ok((kind, body)) if kind == want => Ok(body),
            Ok((Kind::Fault, body)) => Err(serde_json::from_slice(&body)
                .unwrap_or_else(|_| Fault { stage, why: "its answer makes no sense".to_owned() })),
            Ok(_) => Err(Fault { stage, why: "its answer is to another question".to_owned() }),
            Err(e) => Err(Fault { stage, why: self.end(&e) }),
        }
    }

    /// Why nothing comes from the process any more.
    fn end(&mut self, e: &io::Error) -> String {
        self.to = None;
        if !matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) {
            return e.to_string();
        }
        // A process whose pipe is closed is about to end: how, is worth a moment.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            match self.child.try_wait() {
                Ok(Some(status)) => return format!("its process ended with {status}"),
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                Err(e) => return e.to_string(),
            }
        }
        "its process does not answer any more".to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.to = None;
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Arrays under their places, as names of a model may be none for an archive.
pub(super) fn numbered(tensors: impl IntoIterator<Item = Tensor>) -> Arrays {
    tensors.into_iter().enumerate().map(|(i, t)| (i.to_string(), t)).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn start(program: &str) -> Fault {
        let [program, library, model] = [program, "none.so", "none.onnx"].map(Path::new);
        Process::start(&Start { program, library, model, threads: 1 }).expect_err("it is no witness")
    }

    #[test]
    fn a_process_that_is_no_witness_is_a_fault_of_the_library() {
        for (program, why) in [
            ("/nonexistent", "cannot be started"),
            ("/bin/true", "ended with exit status: 0"),
            ("/bin/false", "ended with exit status: 1"),
            ("/bin/echo", "what it prints is no message"),
        ] {
            let fault = start(program);
            assert!(fault.stage == Stage::Library && fault.why.contains(why), "{program}: {fault:?}");
        }
    }

    /// Starts a script as the program.
    fn script(text: &str) -> Fault {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("room");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        start(&path.display().to_string())
    }

    #[test]
    fn a_process_runs_in_the_folder_of_its_program() {
        let text =
            "case $7 in /*/none.onnx) [ \"$(pwd -P)\" = \"$(cd \"${0%/*}\" && pwd -P)\" ] && kill -BUS $$ ;; esac";
        let fault = script(text);
        assert!(fault.why.contains("SIGBUS"), "{fault:?}");
    }

    #[test]
    fn a_process_that_is_killed_says_by_what() {
        assert!(script("kill -BUS $$").why.contains("SIGBUS"));
        assert!(script("printf 'H\\003\\0\\0\\0\\0\\0\\0\\0{}x'").why.contains("makes no sense"));
        assert!(script("printf 'O\\0\\0\\0\\0\\0\\0\\0\\0'").why.contains("another question"));
    }
}
