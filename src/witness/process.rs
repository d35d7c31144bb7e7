//! A model in a process of its own: a library or a model that brings it down does not bring the command down.

use super::{Witness, torch::Plan};
use crate::interface::Outside;
use mlconv_arrays::{
    Arrays,
    talk::{self, Asked, Fault, Given, Hello, Stage, Wanted, last_line},
};
use mlconv_tensor::Tensor;
use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::{self, Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What runs a model.
#[derive(Clone, Debug)]
pub(super) enum Engine {
    /// onnxruntime, in this program.
    Onnxruntime {
        /// Its library.
        library: PathBuf,
    },
    /// libtorch, in a program of its own.
    Torch {
        /// That program.
        program: PathBuf,
    },
    /// The user's own PyTorch.
    Python {
        /// The interpreter that has it.
        program: PathBuf,
    },
}

impl Engine {
    /// A name for a person.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Onnxruntime { .. } => "onnxruntime",
            Self::Torch { .. } | Self::Python { .. } => "PyTorch",
        }
    }
}

/// A model that another process has loaded.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Closed when the process is to end.
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// What it prints besides the talk.
    printed: File,
    pub(super) hello: Hello,
    pub(super) engine: Engine,
    /// How inputs and outputs are told of, where not by the names that the lowering has for them.
    pub(super) plan: Option<Plan>,
    /// What stands between the model and the interface that it is asked about.
    pub(super) outside: Option<Outside>,
}

impl Process {
    /// Starts `command` in the folder of `program`, which is this program.
    pub(super) fn start(mut command: Command, program: &Path, engine: Engine) -> Result<Self, Fault> {
        let library = |why: String| Fault { stage: Stage::Library, why };
        // Loaders of some systems, and Python, look for libraries in the folder that a process runs in. Where the command
        // runs may be a stranger's folder; where the program is, is none.
        let place = path::absolute(program).map_err(|e| library(format!("its process has no place: {e}")))?;
        command.current_dir(place.parent().unwrap_or(&place));
        // What is printed is no part of our talk. The file has no name, and is gone with us.
        let file = tempfile::tempfile().and_then(|f| Ok((f.try_clone()?, f)));
        let (printed, theirs) = file.map_err(|e| library(format!("there is no place for what it prints: {e}")))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(theirs);
        let mut child = command.spawn().map_err(|e| {
            let absent = e.kind() == ErrorKind::NotFound && !matches!(engine, Engine::Onnxruntime { .. });
            let stage = if absent { Stage::Absent } else { Stage::Library };
            Fault { stage, why: format!("its process cannot be started: {e}") }
        })?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(library("its process has no pipes".to_owned()));
        };
        let (hello, from) = (Hello::default(), BufReader::new(from));
        let mut process = Self { child, to: Some(to), from, printed, hello, engine, plan: None, outside: None };
        let hello = talk::hello(&mut process.from).map_err(|e| library(process.end(&e)))?;
        process.hello = hello?;
        Ok(process)
    }

    /// What this is.
    pub fn witness(&self) -> Witness {
        let version = self.hello.version.clone();
        match self.engine.clone() {
            Engine::Onnxruntime { library } => Witness::Onnxruntime { version, library },
            Engine::Torch { program } => Witness::Torch { version, program },
            Engine::Python { program } => Witness::Python { version, program },
        }
    }

    /// Runs the model on arrays for inputs of these names; the outputs of these names, in the types that the model gives them.
    pub(super) fn run_named(&mut self, inputs: &Arrays, outputs: Vec<String>) -> Result<Vec<Tensor>, Fault> {
        let asked = Asked {
            inputs: inputs.keys().cloned().map(Given::Input).collect(),
            outputs: outputs.into_iter().map(Wanted::Named).collect(),
            returned: None,
        };
        self.run(&asked, inputs.values().cloned().collect())
    }

    /// Runs the model.
    pub(super) fn run(&mut self, asked: &Asked, arrays: Vec<Tensor>) -> Result<Vec<Tensor>, Fault> {
        let fault = |why: String| Fault { stage: Stage::Run, why };
        let sent = self.to.as_mut().map(|to| talk::ask(to, asked, arrays));
        if let Some(Err(e)) = sent {
            return Err(fault(self.end(&e)));
        }
        match talk::outputs(&mut self.from, asked) {
            Ok(answer) => answer,
            Err(e) => Err(fault(self.end(&e))),
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
                Ok(Some(status)) => {
                    let said = self.last_words().map_or_else(String::new, |line| format!(": {line}"));
                    return format!("its process ended with {status}{said}");
                }
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                Err(e) => return e.to_string(),
            }
        }
        "its process does not answer any more".to_owned()
    }

    /// The last line that the process printed.
    fn last_words(&mut self) -> Option<String> {
        const MOST: u64 = 1 << 16;
        let end = self.printed.seek(SeekFrom::End(0)).ok()?;
        self.printed.seek(SeekFrom::Start(end.saturating_sub(MOST))).ok()?;
        let mut bytes = vec![];
        (&self.printed).take(MOST).read_to_end(&mut bytes).ok()?;
        last_line(&String::from_utf8_lossy(&bytes))
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn start(program: &Path) -> Fault {
        let engine = Engine::Onnxruntime { library: "none.so".into() };
        Process::start(Command::new(program), program, engine).expect_err("it is no witness")
    }

    #[test]
    fn a_process_that_is_no_witness_is_a_fault_of_the_library() {
        for (program, why) in [
            ("/nonexistent", "cannot be started"),
            ("/bin/true", "ended with exit status: 0"),
            ("/bin/false", "ended with exit status: 1"),
            ("/bin/pwd", "what it prints is no message"),
        ] {
            let fault = start(Path::new(program));
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
        start(&path)
    }

    #[test]
    fn a_process_runs_in_the_folder_of_this_program() {
        let fault = script("[ \"$(pwd -P)\" = \"$(cd \"${0%/*}\" && pwd -P)\" ] && kill -BUS $$");
        assert!(fault.why.contains("SIGBUS"), "{fault:?}");
    }

    #[test]
    fn a_process_that_ends_says_how_and_what_it_printed_last() {
        assert!(script("kill -BUS $$").why.contains("SIGBUS"));
        let fault = script("echo first >&2; echo 'no  library' >&2; echo >&2; exit 3");
        assert_eq!(fault.why, "its process ended with exit status: 3: no library");
        assert!(script("printf 'H\\003\\0\\0\\0\\0\\0\\0\\0{}x'").why.contains("makes no sense"));
        assert!(script("printf 'O\\0\\0\\0\\0\\0\\0\\0\\0'").why.contains("another question"));
    }
}
