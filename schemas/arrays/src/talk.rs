//! What a process that runs a model is asked, and what it says: it loads a model, says hello, and answers one run after the
//! other until its input ends. Bodies are JSON, and archives of arrays under their places.

use crate::{
    Arrays,
    frame::{self, Kind},
    npz_bytes, parse_npz,
};
use mlconv_tensor::Tensor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    any::Any,
    io::{self, Read, Write},
    panic::{self, AssertUnwindSafe},
};

/// What a process says of the model once it is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of what runs the model, such as `1.31`; empty where it does not say.
    pub version: String,
    /// The model's inputs, as far as they are known before a run.
    pub inputs: Vec<Slot>,
    /// The model's outputs, as far as they are known before a run.
    pub outputs: Vec<Slot>,
    /// Whether the model computes with bfloat16.
    #[serde(default)]
    pub bf16: bool,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// The name of its element type; `None` for what is no tensor of numbers.
    pub dtype: Option<String>,
    /// Its sizes; what is open is negative.
    pub shape: Vec<i64>,
    /// Whether the model has a value for it.
    pub optional: bool,
}

/// How far things went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// There is no such library or program.
    Absent,
    /// It is there, and of no use.
    Library,
    /// It does not take the model.
    Model,
    /// The model does not run on the inputs.
    Run,
}

/// Why a process does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// How far it came.
    pub stage: Stage,
    /// What it says, in a line.
    pub why: String,
}

/// What an array is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Given {
    /// An input, which is a tensor.
    Input(String),
    /// An input, which is a number, of the kind that the array's elements are.
    Number(String),
    /// What a buffer of the model holds before the run.
    Buffer(String),
}

/// What an array is wanted of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// The output of this name.
    Named(String),
    /// The output at this place.
    At(usize),
    /// What a buffer of the model holds after the run.
    Buffer(String),
    /// What the tensor that was given for an input holds after the run.
    Input(String),
}

/// What is asked of a run, besides the arrays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What arrays are given for, in their order.
    pub inputs: Vec<Given>,
    /// What arrays are wanted of, in their order.
    pub outputs: Vec<Wanted>,
    /// How many arrays the model returns, where that is known.
    pub returned: Option<usize>,
}

/// Reads what a process says once it has loaded its model. The outer error is that of the pipe.
pub fn hello(from: &mut impl Read) -> io::Result<Result<Hello, Fault>> {
    let body = answer(from, Kind::Hello, Stage::Library)?;
    let read = |body: Vec<u8>| json(&body).map_err(|why| Fault { stage: Stage::Library, why });
    Ok(body.and_then(read))
}

/// Asks for a run.
pub fn ask(to: &mut impl Write, asked: &Asked, arrays: impl IntoIterator<Item = Tensor>) -> io::Result<()> {
    let mut body = serde_json::to_vec(asked)?;
    body.push(b'\n');
    body.extend(npz_bytes(&numbered(arrays)).map_err(io::Error::other)?);
    frame::write(to, Kind::Inputs, &body)
}

/// Reads what came of a run. The outer error is that of the pipe.
pub fn outputs(from: &mut impl Read, asked: &Asked) -> io::Result<Result<Vec<Tensor>, Fault>> {
    let fault = |why: String| Fault { stage: Stage::Run, why };
    let parsed = |body: Vec<u8>| {
        let found: Vec<Tensor> = parse_npz(&body).map_err(fault)?.into_values().collect();
        let (n, want) = (found.len(), asked.outputs.len());
        if n == want { Ok(found) } else { Err(fault(format!("{n} outputs came, wanted {want}"))) }
    };
    Ok(answer(from, Kind::Outputs, Stage::Run)?.and_then(parsed))
}

/// The next message, which should be of this kind.
fn answer(from: &mut impl Read, want: Kind, stage: Stage) -> io::Result<Result<Vec<u8>, Fault>> {
    Ok(match frame::read(from)? {
        (kind, body) if kind == want => Ok(body),
        (Kind::Fault, body) => Err(json(&body).unwrap_or_else(|why| Fault { stage, why })),
        _ => Err(Fault { stage, why: "its answer is to another question".to_owned() }),
    })
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|e| format!("its answer makes no sense: {e}"))
}

/// The process itself: opens a model and runs it as often as is asked. A panic is a fault.
pub fn serve<M>(
    from: &mut impl Read,
    to: &mut impl Write,
    open: impl FnOnce() -> Result<(M, Hello), Fault>,
    mut run: impl FnMut(&mut M, &Hello, &Asked, Vec<Tensor>) -> Result<Vec<Tensor>, Fault>,
) -> io::Result<()> {
    let (mut model, hello) = match caught(Stage::Library, open) {
        Ok(opened) => opened,
        Err(fault) => return frame::write(to, Kind::Fault, &serde_json::to_vec(&fault)?),
    };
    frame::write(to, Kind::Hello, &serde_json::to_vec(&hello)?)?;
    loop {
        // Anything else, such as the end, says that whoever asked is done.
        let Ok((Kind::Inputs, body)) = frame::read(from) else { return Ok(()) };
        let fault = |why: String| Fault { stage: Stage::Run, why };
        let answer = caught(Stage::Run, || {
            let Some(end) = body.iter().position(|b| *b == b'\n') else { return Err(fault("no names".to_owned())) };
            let asked: Asked = serde_json::from_slice(&body[..end]).map_err(|e| fault(e.to_string()))?;
            let arrays = parse_npz(&body[end + 1..]).map_err(fault)?;
            if arrays.len() != asked.inputs.len() {
                return Err(fault("arrays and names are not as many".to_owned()));
            }
            let found = run(&mut model, &hello, &asked, arrays.into_values().collect())?;
            npz_bytes(&numbered(found)).map_err(fault)
        });
        match answer {
            Ok(body) => frame::write(to, Kind::Outputs, &body)?,
            Err(fault) => frame::write(to, Kind::Fault, &serde_json::to_vec(&fault)?)?,
        }
    }
}

/// Bindings assert what they expect of a library.
fn caught<T>(stage: Stage, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let panicked = |payload: Box<dyn Any + Send>| {
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        Err(Fault { stage, why: one_line(text.unwrap_or("it does not do as it should")) })
    };
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}

/// What a library says in many words or lines.
pub fn one_line(text: &str) -> String {
    const MOST: usize = 300;
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words.join(" ").chars().filter(|c| !c.is_control()).collect();
    if line.chars().count() > MOST { line.chars().take(MOST).chain(['…']).collect() } else { line }
}

/// The last line that says something, which is where tracebacks have what went wrong.
pub fn last_line(text: &str) -> Option<String> {
    text.lines().map(one_line).rfind(|l| !l.is_empty())
}

/// Arrays under their places, as names of a model may be none for an archive.
fn numbered(tensors: impl IntoIterator<Item = Tensor>) -> Arrays {
    tensors.into_iter().enumerate().map(|(i, t)| (i.to_string(), t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(outputs: Vec<Wanted>) -> Asked {
        Asked { inputs: vec![Given::Input("x".to_owned())], outputs, returned: Some(1) }
    }

    fn opened() -> Result<(i64, Hello), Fault> {
        Ok((0, Hello { version: "1.2".to_owned(), ..Hello::default() }))
    }

    #[test]
    fn runs_are_answered_until_nobody_asks() {
        let x = Tensor::from_vec(&[2], vec![1f32, 2.0]);
        let (one, bad) = (asked(vec![Wanted::At(0)]), asked(vec![Wanted::Named("boom".to_owned())]));
        let (mut to, mut back) = (vec![], vec![]);
        for asked in [&one, &bad, &one] {
            ask(&mut to, asked, [x.clone()]).expect("memory");
        }
        let run = |runs: &mut i64, _: &Hello, asked: &Asked, arrays: Vec<Tensor>| {
            *runs += 1;
            assert!(asked.outputs == [Wanted::At(0)], "run {runs}\nof nothing");
            Ok(vec![arrays[0].clone()])
        };
        serve(&mut to.as_slice(), &mut back, opened, run).expect("memory");
        let mut back = back.as_slice();
        assert_eq!(hello(&mut back).expect("a message").expect("loaded").version, "1.2");
        assert_eq!(outputs(&mut back, &one).expect("a message"), Ok(vec![x.clone()]));
        let fault = outputs(&mut back, &bad).expect("a message").expect_err("a panic");
        assert_eq!((fault.stage, fault.why.as_str()), (Stage::Run, "run 2 of nothing"));
        let two = asked(vec![Wanted::At(0), Wanted::At(1)]);
        let fault = outputs(&mut back, &two).expect("a message").expect_err("one came");
        assert_eq!(fault.why, "1 outputs came, wanted 2");
        assert!(hello(&mut back).is_err(), "the end");
    }

    #[test]
    fn what_does_not_open_says_why() {
        let mut back = vec![];
        let fault = Fault { stage: Stage::Model, why: "of another kind".to_owned() };
        let none = || Err::<((), Hello), _>(fault.clone());
        serve(&mut io::empty(), &mut back, none, |(), _, _, _| Ok(vec![])).expect("memory");
        assert_eq!(hello(&mut back.as_slice()).expect("a message"), Err(fault));
    }

    #[test]
    fn answers_to_other_questions_are_faults() {
        for (bytes, why) in [(&b"O\0\0\0\0\0\0\0\0"[..], "another question"), (b"H\x03\0\0\0\0\0\0\0{}x", "no sense")] {
            let fault = hello(&mut &*bytes).expect("a message").expect_err("no hello");
            assert!(fault.stage == Stage::Library && fault.why.contains(why), "{fault:?}");
        }
    }

    #[test]
    fn what_a_library_says_is_one_short_line() {
        assert_eq!(one_line("a\n  b\tc\u{7}"), "a b c");
        assert_eq!(one_line(&"x ".repeat(1000)).chars().count(), 301);
        assert_eq!(last_line("Traceback:\n  File\nValueError: no\n\n"), Some("ValueError: no".to_owned()));
        assert_eq!(last_line(" \n"), None);
    }
}
