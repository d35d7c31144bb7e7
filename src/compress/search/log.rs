//! What was measured, kept in a file, so that a search which was interrupted goes on where it was.

use super::{Choice, SAMPLES, Sensitivity, Task};
use crate::{Diagnostic, Failure, codes};
use mlconv_passes::compress::{Scheme, Weight};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

/// Measurements in a file, one a line.
pub(super) struct Log {
    path: Option<PathBuf>,
    known: HashMap<String, Logged>,
    /// What measurements depend on beside the weight.
    context: String,
    /// Measurements that were found.
    pub(super) resumed: usize,
}

#[derive(Serialize, Deserialize)]
struct Logged {
    key: String,
    choices: Vec<LoggedChoice>,
}

#[derive(Serialize, Deserialize)]
struct LoggedChoice {
    scheme: String,
    parsed: String,
    bytes: u64,
    noise: f64,
    expected: f64,
}

impl Log {
    pub(super) fn open(task: &Task<'_>) -> Result<Self, Failure> {
        let mut log = Self { path: task.plan.log.clone(), known: HashMap::new(), context: String::new(), resumed: 0 };
        let Some(path) = &log.path else { return Ok(log) };
        log.context = context(task);
        match fs::read_to_string(path) {
            // A line that an interrupt cut short is measured again.
            Ok(text) => {
                let lines = text.lines().filter_map(|line| serde_json::from_str::<Logged>(line).ok());
                log.known = lines.map(|l| (l.key.clone(), l)).collect();
                // One line that was cut short is all that an early interrupt leaves.
                let cut = text.starts_with('{') && !text.contains('\n');
                if log.known.is_empty() && !text.trim().is_empty() && !cut {
                    let d = Diagnostic::error(&codes::L0001, "the file is no log of a search");
                    return Err(vec![d.at(path.display().to_string()).help("name one that does not exist")]);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                let d = Diagnostic::error(&codes::L0001, format!("the log of the search cannot be read: {e}"));
                return Err(vec![d.at(path.display().to_string())]);
            }
        }
        // The next line begins where the last whole one ends.
        let whole =
            fs::read(path).ok().map(|text| (text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1), text.len()));
        if let Some((end, len)) = whole
            && end < len
        {
            let cut = OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(end as u64));
            cut.map_err(|e| {
                let d = Diagnostic::error(&codes::X0001, format!("the log of the search cannot be written: {e}"));
                vec![d.at(path.display().to_string())]
            })?;
        }
        Ok(log)
    }

    fn key(&self, w: &Weight) -> String {
        let mut hash = Sha256::new();
        hash.update(self.context.as_bytes());
        hash.update(format!("{} {} {:?}", w.name, w.tensor.dtype(), w.tensor.shape()));
        hash.update(w.tensor.blob().read());
        hex(&hash.finalize())
    }

    pub(super) fn find(&self, w: &Weight) -> Option<Sensitivity> {
        self.path.as_ref()?;
        let logged = self.known.get(&self.key(w))?;
        let choices = logged.choices.iter().map(|c| {
            let parsed = Scheme::parse(&c.parsed).ok()?;
            Some(Choice { scheme: c.scheme.clone(), parsed, bytes: c.bytes, noise: c.noise, expected: c.expected })
        });
        let choices = choices.collect::<Option<Vec<_>>>().filter(|c| !c.is_empty())?;
        Some(Sensitivity { name: w.name.clone(), choices })
    }

    pub(super) fn add(&self, w: &Weight, s: &Sensitivity) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let choices = s.choices.iter().map(|c| LoggedChoice {
            scheme: c.scheme.clone(),
            parsed: c.parsed.to_string(),
            bytes: c.bytes,
            noise: c.noise,
            expected: c.expected,
        });
        let line = Logged { key: self.key(w), choices: choices.collect() };
        append(path, &line).map_err(|e| {
            let d = Diagnostic::error(&codes::X0001, format!("the log of the search cannot be written: {e}"));
            vec![d.at(path.display().to_string())]
        })
    }
}

fn append(path: &Path, line: &Logged) -> std::io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}

/// A digest of what measurements depend on beside the weight: the schemes, the program and the samples.
fn context(task: &Task<'_>) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?} {}", task.opset, task.aware));
    task.candidates.iter().for_each(|s| hash.update(format!("{s} ")));
    if let Some(c) = task.calibration {
        for (i, f) in c.module().functions.iter().enumerate() {
            f.all_ops().iter().for_each(|op| hash.update(f.op_data(*op).op.name()));
            // All of them are heeded where codes are chosen by inputs.
            let heeded = if task.aware { usize::MAX } else { SAMPLES };
            for t in c.runs(i).iter().take(heeded).flatten().flatten() {
                hash.update(t.blob().read());
            }
        }
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}
