//! One named test for every file of `fixtures/verify`, `fixtures/passes` and `fixtures/lower`.
//!
//! - `verify/*.mil`: a line that ends in `// error: TEXT` is at fault, and the message contains the text. No other
//!   line may be at fault.
//! - `passes/NAME/*.mil`: `// pass: NAME[, NAME]` and `// option: keep_fp32=PATTERN` lines, a module, `// ----`, and what
//!   the passes make of it: the module, then `// skipped VALUE: WHY` and `// kept VALUE: WHY` for what they leave alone.
//!   Both modules are run on random inputs and must agree.
//! - `lower/FRONT/*.txt`: a source graph, `// ----`, and the module that it becomes, or the diagnostics.
//!
//! `BLESS=1` rewrites what follows `// ----`.

#[path = "fixtures/lower.rs"]
mod lower;
#[path = "fixtures/passes.rs"]
mod passes;
#[path = "fixtures/verify.rs"]
mod verify;

use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Checks one file: its path and its text.
type Check = fn(&Path, &str) -> Result<(), Failed>;

const KINDS: &[(&str, &str, Check)] =
    &[("verify", "mil", verify::check), ("passes", "mil", passes::check), ("lower", "txt", lower::check)];

fn main() {
    let args = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut trials = vec![];
    for (kind, suffix, check) in KINDS {
        for path in files(&root.join(kind), suffix) {
            let name = path.strip_prefix(&root).unwrap_or(&path).with_extension("").display().to_string();
            trials.push(Trial::test(name, move || {
                let text = fs::read_to_string(&path)?;
                check(&path, &text)
            }));
        }
    }
    trials.push(Trial::test("passes/every_pass_has_fixtures", move || passes::check_coverage(&root.join("passes"))));
    libtest_mimic::run(&args, trials).exit();
}

/// The files below `folder` with this suffix, in order.
fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let (mut out, mut todo) = (vec![], vec![folder.to_path_buf()]);
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == suffix) {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

/// The line between what is given and what is wanted.
const RULER: &str = "// ----\n";

/// Holds `got` against what follows the ruler in `text`, or puts it there.
fn compare(path: &Path, text: &str, got: &str) -> Result<(), Failed> {
    let (given, want) = text.split_once(RULER).unwrap_or((text, ""));
    if want == got {
        return Ok(());
    }
    if env::var_os("BLESS").is_some() {
        let end = if given.ends_with('\n') { "" } else { "\n" };
        fs::write(path, format!("{given}{end}{RULER}{got}"))?;
        return Ok(());
    }
    Err(format!("got\n{got}\nwanted\n{want}\n(BLESS=1 accepts what was got)").into())
}

/// The line of `text` that byte `at` is in, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}
