//! Models of PyTorch in PyTorch: TorchScript in libtorch, by a program of its own, and either format in the user's Python.
//!
//! Loading runs code that a file may bring, so nothing of this happens unless it is asked for.

use super::{
    Around, Chosen, Source,
    process::{Engine, Process},
};
use crate::{
    Diagnostic,
    arrays::Arrays,
    codes,
    model::{self, Format},
    script,
};
use mlconv_arrays::talk::{Asked, Fault, Given, Stage, Wanted};
use mlconv_mil::ir::Function;
use mlconv_tensor::Tensor;
use std::{
    ffi::OsString,
    path::{self, Path, PathBuf},
    process::Command,
};

/// The variable that names `mlconv-torch`, where it is not on the PATH.
pub const PROGRAM_VARIABLE: &str = "MLCONV_TORCH";

/// The variable that names the Python that has PyTorch, where it is not the one on the PATH.
pub const PYTHON_VARIABLE: &str = "MLCONV_PYTHON";

/// What Python runs.
const SCRIPT: &str = include_str!("torch.py");

/// Who runs PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// `mlconv-torch`
    Program,
    /// Python
    Python,
}

/// Loads the source into PyTorch.
pub(super) fn choose(host: Host, source: Source<'_>, around: &Around) -> Result<Chosen, Diagnostic> {
    let place = source.path.display().to_string();
    let (ours, theirs, help) = match (host, source.format) {
        (Host::Program, Format::TorchScript) | (Host::Python, Format::TorchScript | Format::Pt2) => ("", "", ""),
        (Host::Program, Format::Pt2) => {
            ("`mlconv-torch`", "TorchScript", "run it in your own PyTorch with `--source-runtime python`")
        }
        _ => (
            "PyTorch",
            "TorchScript and exported programs",
            "leave `--source-runtime` out, and what suits the source is chosen",
        ),
    };
    if !ours.is_empty() {
        let title = format!("{ours} runs {theirs}, and the source is {}", super::kind(source.format));
        return Err(Diagnostic::error(&codes::L0001, title).at(place).help(help));
    }
    let plan = Plan::new(&source)?;
    let mut process = start(host, &source, around).map_err(|(program, fault)| {
        let program = program.display();
        match fault.stage {
            Stage::Model | Stage::Run => super::refused("PyTorch", &fault).at(place),
            stage => {
                let title = match (host, stage) {
                    (Host::Python, Stage::Library) => format!("PyTorch cannot be loaded by `{program}`: {}", fault.why),
                    _ => format!("`{program}`: {}", fault.why),
                };
                Diagnostic::error(&codes::N0006, title).help(host.help())
            }
        }
    })?;
    process.plan = Some(plan);
    Ok(Chosen { process: Some(process), required: true, ..Chosen::kernels(source.format) })
}

impl Host {
    /// What to do where there is none.
    fn help(self) -> String {
        match self {
            Self::Program => format!(
                "build `mlconv-torch` from `tools/torch` of mlconv's sources, and put it on the PATH or let {PROGRAM_VARIABLE} name \
                 it; or run the source in your own PyTorch with `--source-runtime python`"
            ),
            Self::Python => format!(
                "install PyTorch there, as with `pip install torch`, or let {PYTHON_VARIABLE} name a Python that has it, such as \
                 `.venv/bin/python`"
            ),
        }
    }
}

/// Starts the first program that is there; one that is of no use is named with why.
fn start(host: Host, source: &Source<'_>, around: &Around) -> Result<Process, (PathBuf, Fault)> {
    let (variable, usual): (_, &[&str]) = match host {
        Host::Program => (&around.torch, &["mlconv-torch"]),
        Host::Python => (&around.python, &["python3", "python"]),
    };
    let named = variable.as_ref().filter(|v| !v.is_empty());
    let candidates: Vec<PathBuf> = named.map_or_else(|| usual.iter().map(PathBuf::from).collect(), |n| vec![n.into()]);
    let mut failed = None;
    for program in candidates {
        match start_one(host, &program, source, around) {
            Ok(process) => return Ok(process),
            Err(fault) if fault.stage == Stage::Absent => failed = failed.or(Some((program, fault))),
            Err(fault) => return Err((program, fault)),
        }
    }
    let none = || Fault { stage: Stage::Absent, why: "its process cannot be started".to_owned() };
    Err(failed.unwrap_or_else(|| (PathBuf::new(), none())))
}

fn start_one(host: Host, program: &Path, source: &Source<'_>, around: &Around) -> Result<Process, Fault> {
    let fault = |e| Fault { stage: Stage::Library, why: format!("its process has no place: {e}") };
    let model = path::absolute(source.path).map_err(fault)?;
    // A name alone is looked for on the PATH. Links stay as they are: a virtual environment is one.
    let alone = program.components().count() == 1 && !program.is_absolute();
    let program = if alone { program.to_path_buf() } else { path::absolute(program).map_err(fault)? };
    let mut command = Command::new(&program);
    let engine = match host {
        Host::Program => Engine::Torch { program },
        Host::Python => {
            // Nothing is written beside PyTorch's own files, and nothing is read beside the program.
            command.args(["-B", "-c", SCRIPT]);
            command.env("PYTHONSAFEPATH", "1").env("PYTHONIOENCODING", "utf-8");
            Engine::Python { program }
        }
    };
    let format = if source.format == Format::Pt2 { "pt2" } else { "torchscript" };
    let threads: OsString = around.threads.to_string().into();
    command.args(["--format".into(), format.into(), "--threads".into(), threads, "--".into(), model.into_os_string()]);
    Process::start(command, &around.program, engine)
}

/// How the lowered model's inputs and outputs are those of the source.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What the source takes, in its order.
    takes: Vec<Parameter>,
    /// The names of what the source returns; `None` where it is what the lowering returns.
    returns: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
struct Parameter {
    name: String,
    takes: Takes,
}

/// What a parameter takes.
#[derive(Clone, Debug)]
enum Takes {
    /// A tensor.
    Tensor,
    /// A number, which the program was made for.
    Number(Tensor),
    /// What it has by itself.
    Default,
}

impl Plan {
    fn new(source: &Source<'_>) -> Result<Self, Diagnostic> {
        if source.format == Format::Pt2 {
            let graph = model::read_source(source.path, Format::Pt2)?;
            let takes =
                graph.inputs.iter().map(|i| Parameter { name: i.name.to_string(), takes: Takes::Tensor }).collect();
            let returns = graph.outputs.iter().map(|o| o.name.to_string()).collect();
            return Ok(Self { takes, returns: Some(returns) });
        }
        let numbers = script::numbers(source.path, source.samples)?;
        let takes = |p: &mlconv_pytorch::Parameter| {
            let given = numbers.iter().find(|(name, _)| *name == p.name).and_then(|(_, t)| p.number(t));
            if p.is_tensor { Takes::Tensor } else { given.map_or(Takes::Default, Takes::Number) }
        };
        let all = model::script_parameters(source.path)?;
        let takes = all.iter().map(|p| Parameter { name: p.name.clone(), takes: takes(p) }).collect();
        Ok(Self { takes, returns: None })
    }

    /// What is asked of the source, with the arrays, for outputs of `f` on `arrays`, which are for inputs of it.
    pub(super) fn asked(&self, f: &Function, arrays: &Arrays) -> Result<(Asked, Vec<Tensor>), Fault> {
        let fault = |why: String| Err(Fault { stage: Stage::Run, why });
        let (mut asked, mut given, mut left) = (Asked::default(), vec![], arrays.clone());
        let mut absent = None;
        for Parameter { name, takes } in &self.takes {
            let (what, t) = match takes {
                Takes::Tensor => (Given::Input(name.clone()), left.shift_remove(name)),
                Takes::Number(t) => (Given::Number(name.clone()), Some(t.clone())),
                Takes::Default => (Given::Number(name.clone()), None),
            };
            match (t, absent) {
                (Some(t), None) => {
                    asked.inputs.push(what);
                    given.push(t);
                }
                // TorchScript takes its arguments in order.
                (Some(_), Some(first)) if self.returns.is_none() => {
                    return fault(format!("there is a value for `{name}`, and none for `{first}` before it"));
                }
                (Some(t), Some(_)) => {
                    asked.inputs.push(what);
                    given.push(t);
                }
                (None, _) => absent = absent.or(Some(name)),
            }
        }
        // Buffers that a call finds are inputs of the lowering, and what it leaves in them outputs.
        let mut buffers = vec![];
        for (name, t) in left {
            asked.inputs.push(Given::Buffer(name.clone()));
            given.push(t);
            buffers.push(name);
        }
        let mut returned = 0;
        let is_tensor = |name: &str| self.takes.iter().any(|p| p.name == name && matches!(p.takes, Takes::Tensor));
        // What a model writes into an input is an output of the lowering alone.
        let written = |port: &str| port.strip_suffix("_out").filter(|name| is_tensor(name)).map(str::to_owned);
        for port in &f.sig.outputs {
            if let Some(input) = written(&port.name) {
                asked.outputs.push(Wanted::Input(input));
                continue;
            }
            let buffer = port.name.strip_suffix("_out").filter(|b| buffers.iter().any(|n| n == b));
            let at = match &self.returns {
                Some(names) => names.iter().position(|n| *n == *port.name),
                None => buffer.is_none().then_some(returned),
            };
            asked.outputs.push(match (at, buffer) {
                (Some(at), _) => {
                    returned += 1;
                    Wanted::At(at)
                }
                (None, Some(buffer)) => Wanted::Buffer(buffer.to_owned()),
                (None, None) => return fault(format!("the source returns no `{}`", port.name)),
            });
        }
        let own = |names: &Vec<String>| names.iter().filter(|n| written(n).is_none()).count();
        asked.returned = Some(self.returns.as_ref().map_or(returned, own));
        Ok((asked, given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::{ir::Module, text::parse};

    /// `y`, which is `x` and what buffer `seen` held, and what it holds then.
    fn module() -> Module {
        let text = "func @main(%x: f32[2], %seen: f32[2]) ios17 {\n  %y = add(x=%x, y=%seen)\n  %seen_out = relu(x=%y)\n  \
                    return %y, %seen_out\n}\n";
        parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    fn plan(takes: &[(&str, Takes)], returns: Option<&[&str]>) -> Plan {
        let parameter = |(name, takes): &(&str, Takes)| Parameter { name: (*name).to_owned(), takes: takes.clone() };
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect();
        Plan { takes: takes.iter().map(parameter).collect(), returns: returns.map(names) }
    }

    fn asked(plan: &Plan) -> Result<Asked, String> {
        let x = Tensor::from_vec(&[2], vec![1f32, 2.0]);
        let arrays = ["seen", "x"].map(|name| (name.to_owned(), x.clone())).into_iter().collect();
        let (asked, arrays) = plan.asked(&module().functions[0], &arrays).map_err(|f| f.why)?;
        assert_eq!(asked.inputs.len(), arrays.len());
        Ok(asked)
    }

    #[test]
    fn outputs_of_an_exported_program_have_places_by_name_and_buffers_are_read() {
        let asked =
            asked(&plan(&[("x", Takes::Tensor), ("unused", Takes::Tensor)], Some(&["z", "y"]))).expect("all is there");
        assert_eq!(asked.inputs, [Given::Input("x".to_owned()), Given::Buffer("seen".to_owned())]);
        assert_eq!(asked.outputs, [Wanted::At(1), Wanted::Buffer("seen".to_owned())]);
        assert_eq!(asked.returned, Some(2));
    }

    #[test]
    fn what_is_written_into_an_input_is_read_from_it() {
        let taken = [("x", Takes::Tensor), ("seen", Takes::Tensor)];
        let asked = asked(&plan(&taken, Some(&["y", "seen_out"]))).expect("all is there");
        assert_eq!(asked.outputs, [Wanted::At(0), Wanted::Input("seen".to_owned())]);
        assert_eq!(asked.returned, Some(1));
    }

    #[test]
    fn torchscript_takes_arguments_in_order() {
        let k = ("k", Takes::Number(Tensor::scalar(3i64)));
        let script = plan(&[("x", Takes::Tensor), k, ("seen", Takes::Tensor), ("flag", Takes::Default)], None);
        let both = asked(&script).expect("all is there");
        let names = ["x", "seen"].map(|n| Given::Input(n.to_owned()));
        assert_eq!(both.inputs, [names[0].clone(), Given::Number("k".to_owned()), names[1].clone()]);
        assert_eq!(
            (both.outputs.as_slice(), both.returned),
            (&[Wanted::At(0), Wanted::Input("seen".to_owned())][..], Some(1))
        );
        let gap = plan(&[("x", Takes::Tensor), ("k", Takes::Default), ("seen", Takes::Tensor)], None);
        assert!(asked(&gap).expect_err("`k` is not given").contains("none for `k`"));
        assert!(
            asked(&plan(&[("x", Takes::Tensor)], Some(&["z"]))).expect_err("another model").contains("returns no `y`")
        );
    }
}
