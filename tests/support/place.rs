//! A folder to run `mlconv` in, and what it did.

use super::files;
use mlconv::arrays::{Arrays, write_npz};
use mlconv_tensor::Tensor;
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// A folder to work in, removed in the end.
pub(crate) struct Place(TempDir);

/// What a command did.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("room");
        path
    }

    /// A file of arrays.
    pub(crate) fn arrays(&self, name: &str, arrays: &[(&str, Tensor)]) -> PathBuf {
        let path = self.path(name);
        let arrays: Arrays = arrays.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
        write_npz(&path, &arrays).expect("room");
        path
    }

    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        // What a machine has installed is not what is tested.
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        for variable in ["ORT_DYLIB_PATH", "MLCONV_PYTHON", "MLCONV_TORCH"] {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::of(self.command(env!("CARGO_BIN_EXE_mlconv"), args).output().expect("it starts"))
    }

    /// Names of everything in the folder, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Every file of a package with its bytes.
    pub(crate) fn package(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let root = self.path(name);
        let mut out = vec![];
        for suffix in ["json", "mlmodel", "bin"] {
            for path in files(&root, suffix) {
                let inner = path.strip_prefix(&root).expect("inside").display().to_string();
                out.push((inner, fs::read(path).expect("readable")));
            }
        }
        assert!(out.len() > 1, "{name} is a package");
        out
    }
}

impl Done {
    pub(crate) fn of(out: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) }
    }

    /// The command did its work.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// The command failed with one diagnostic of this code that contains `text`, and printed no result.
    #[track_caller]
    pub(crate) fn fails(&self, code: &str, text: &str) {
        assert_eq!(self.code, Some(2), "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "", "{}", self.stderr);
        let heads: Vec<&str> = self.stderr.lines().filter(|l| l.starts_with("error")).collect();
        assert_eq!(heads.len(), 1, "one diagnostic: {}", self.stderr);
        assert!(heads[0].starts_with(&format!("error[{code}]: ")), "wanted {code}: {}", self.stderr);
        assert!(self.stderr.contains(text), "wanted `{text}`: {}", self.stderr);
        for leak in ["T0001", "RUST_BACKTRACE", "Some(", "Err(", "unwrap"] {
            assert!(!self.stderr.contains(leak), "{}", self.stderr);
        }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let json: Value = serde_json::from_str(&self.stdout).expect("stdout is JSON and nothing else");
        assert!(json["version"].is_u64(), "{json}");
        json
    }
}
