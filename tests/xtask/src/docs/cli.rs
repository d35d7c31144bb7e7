//! `docs/cli.md`, from the definition of the command line.

use clap::{Arg, Command};
use std::fmt::Write;

pub fn page() -> String {
    let mut root = mlconv::cli::command();
    root.build();
    let about = |c: &Command| c.get_about().map(ToString::to_string).unwrap_or_default();
    let mut out = format!("# Command line\n\n{}\n\n{RULES}\n\n| command | does |\n|---|---|\n", about(&root));
    let commands: Vec<Command> =
        root.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set()).cloned().collect();
    for c in &commands {
        let _ = writeln!(out, "| [`mlconv {}`](#mlconv-{}) | {} |", c.get_name(), c.get_name(), about(c));
    }
    out += "\n## For every command\n\n";
    out += &table(root.get_arguments().filter(|a| a.is_global_set()));
    commands.into_iter().for_each(|c| section(&mut out, "mlconv", c));
    out
}

/// A command, and those below it.
fn section(out: &mut String, of: &str, mut c: Command) {
    let name = format!("{of} {}", c.get_name());
    let usage = c.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let about = c.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(out, "\n## {name}\n\n{about}.\n\n```\n{usage}\n```\n\n");
    *out += &table(c.get_arguments().filter(|a| !a.is_global_set()));
    for inner in c.get_subcommands().filter(|c| c.get_name() != "help").cloned().collect::<Vec<_>>() {
        section(out, &name, inner);
    }
}

const RULES: &str = "\
- stdout carries the result, stderr everything else. With `--format json` the result is JSON, described in [json.md](json.md).
- Exit status: 0 done; 1 done, but the models differ, or something that was asked for was not applied; 2 not done.
- `check` exits with 0 where nothing stands in the way, 1 where it lists blockers or a request does not apply, 2 where the
  model cannot be read. It lists all blockers at once: each form of an operator once, with the number of nodes and the first
  of them, and whether it is Core ML that has no equal or mlconv that does not do it yet. Data beside the model that are not
  there are no blocker: a warning (`F0110`) names what could not be judged without them. Weights of more than 1 GiB are not
  read; which ops half precision cannot hold is then left to `convert`.
- `convert` checks samples and labels against the model before any work. Where the source does not run on made-up inputs, the
  package is written and a warning (`N0007`) says that nothing was compared: exit status 0, as no comparison on them was asked
  for. Where it does not run on inputs of `--sample`, or in what `--source-runtime` names, which were asked for, the exit
  status is 1.
- An output passes with a signal over noise of 40 dB, or a greatest difference of 0.01 of its greatest value, where half
  precision is used; else with 80 dB, or 0.0001. Integers and booleans must be equal.
- Arrays are matched to inputs by name, that of the source or that of the package; a name that is both, of two inputs, is the
  package's where each then has its array. Where no name matches at all, they are taken in order, with a warning; so a single array serves a model of one input, whatever its name. An array from a .npy
  file without `NAME=` has the name of its file. Arrays for no input are not used, with a warning.
  Arrays of f64, which is what NumPy makes, are rounded to f32 with a warning; all others are converted only where every
  element stays what it is.
- The source of a comparison runs in onnxruntime where that is found and takes the model, else on our own kernels, as it was
  lowered; the report says which. `ORT_DYLIB_PATH` names the library, or its folder, such as `onnxruntime/capi` of the
  Python package; without it, the system's loader is asked. Where the library that it names is of no use, or a model does
  not load or run there, a warning says why; with `--source-runtime onnxruntime`, a library or model that does not load is an
  error. A source that computes in half precision is held to the tolerance of half precision there.
- A source of PyTorch runs in PyTorch only with `--source-runtime python`, which starts `python3`, or what `MLCONV_PYTHON`
  names, or, for TorchScript, `torch`, which starts `mlconv-torch`, or what `MLCONV_TORCH` names. That may run code of the
  model, so it is for models that you trust ([pytorch.md](pytorch.md#comparing-with-pytorch)).
- A model with states takes several samples as calls that follow each other.
- Every failure is a diagnostic with a code; [errors.md](errors.md) explains them.
- Outputs appear whole or not at all. A package that exists is replaced with `--force` only; a link is followed: the
  package that it leads to is replaced, and the link stays. Nothing is written into another package. `run` replaces a
  .npz file that exists, and no other file.
- The same input and options give the same bytes, whatever `--jobs` says.
- A model is recognised by its content: an exported program or TorchScript of PyTorch, an ONNX file, an `.mlpackage` folder, or an `.mlmodel` file with an ML program.";

fn table<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let mut out = "| argument | |\n|---|---|\n".to_owned();
    for a in args.filter(|a| !a.is_hide_set() && !["help", "version"].contains(&a.get_id().as_str())) {
        let _ = writeln!(out, "| `{}` | {} |", cell(&spelling(a)), cell(&says(a)));
    }
    out
}

/// How the argument is typed.
fn spelling(a: &Arg) -> String {
    let names: Vec<String> =
        a.get_short().map(|s| format!("-{s}")).into_iter().chain(a.get_long().map(|l| format!("--{l}"))).collect();
    let takes = a.get_action().takes_values();
    let values: Vec<&str> = a.get_value_names().unwrap_or_default().iter().map(|v| v.as_str()).collect();
    let value = match (takes, a.is_positional()) {
        (true, _) => values.join(" "),
        (false, _) => String::new(),
    };
    format!("{} {value}", names.join(", ")).trim().to_owned()
}

fn says(a: &Arg) -> String {
    let mut out = a.get_help().map(ToString::to_string).unwrap_or_default();
    out += ".";
    let choices: Vec<String> = if a.get_action().takes_values() {
        let says = |v: &clap::builder::PossibleValue| match v.get_help() {
            Some(help) => format!("`{}` ({help})", v.get_name()),
            None => format!("`{}`", v.get_name()),
        };
        a.get_possible_values().iter().map(says).collect()
    } else {
        vec![]
    };
    if !choices.is_empty() {
        let _ = write!(out, " One of {}.", choices.join(", "));
    }
    let defaults: Vec<String> = a.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    if a.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(out, " Default: `{}`.", defaults.join(" "));
    }
    if a.is_required_set() {
        out += " Required.";
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
