//! Buffers that outlive a call: states of the function, or inputs and outputs where a state cannot hold them.

use crate::{
    LowerError, Request, SourceGraph, SourceState,
    driver::{Entry, Frame, State},
    lower::narrowed,
};
use mlconv_mil::{
    diagnostic::{Diagnostic, codes},
    ir::{Place, Port, Value},
    ops,
    schema::Opset,
};
use mlconv_tensor::{DType, Dim, Shape, TensorType, Type};
use std::sync::Arc;

/// Says that states hold less than the source's buffers do.
pub fn rounded_states(names: &[String]) -> Option<Diagnostic> {
    let (first, rest) = names.split_first()?;
    let what = match rest {
        [] => format!("state `{first}` holds"),
        [second] => format!("states `{first}` and `{second}` hold"),
        _ => format!("states `{first}` and {} others hold", rest.len()),
    };
    let title = format!("{what} half precision numbers between calls, as all states of Core ML do; the source has f32");
    let d = Diagnostic::warning(&codes::F0107, title);
    Some(d.help("`--no-state` makes inputs and outputs of buffers, in the source's precision"))
}

/// What became of a buffer.
pub(crate) enum Held {
    /// A state.
    State(Value),
    /// An input, and an output of this name.
    Pair(Arc<str>),
}

impl State {
    /// Adds what the buffers of `graph` become, and reads them.
    pub(crate) fn begins(&mut self, graph: &SourceGraph, request: &Request, frame: &mut Frame) -> Vec<Held> {
        let (mut out, mut rounded) = (vec![], vec![]);
        for s in &graph.states {
            // An input of the model may be called as a buffer is.
            let taken = |name: &str| graph.inputs.iter().chain(&graph.outputs).any(|v| *v.name == *name);
            let own: Arc<str> = if taken(&s.name) { format!("{}_state", s.name).into() } else { s.name.clone() };
            let why = self.why_no_state(s, request);
            let dims: Vec<Dim> = s.initial.shape().iter().map(|d| Dim::from(*d)).collect();
            let shape = Shape::from(dims);
            let dtype = narrowed(s.initial.dtype()).unwrap_or(DType::F32);
            let Some(why) = why else {
                let v = self.f.add_input(Port::new(own.clone()), Type::State(TensorType::new(DType::F16, shape)));
                let body = self.f.body();
                if dtype != DType::F16 {
                    rounded.push(own.to_string());
                }
                match self.read(s, v, dtype, Place::End(body)) {
                    Ok(now) => frame.define(s.before.clone(), Entry::Value(now)),
                    Err(e) => {
                        self.refuse(s, &e);
                        frame.define(s.before.clone(), Entry::Poisoned);
                    }
                }
                out.push(Held::State(v));
                continue;
            };
            let name: Arc<str> =
                if taken(&format!("{own}_out")) { format!("{own}_state_out") } else { format!("{own}_out") }.into();
            let title = format!("buffer `{own}` is an input, and its new content the output `{name}`: {why}");
            let d = Diagnostic::warning(&codes::F0107, title);
            let start = if is_zero(s) { "feed zeros at first" } else { "feed the buffer of the source model at first" };
            self.problems.plain(d.help(format!("{start}, and the output of each call to the next one")));
            let v = self.f.add_input(Port::new(own), TensorType::new(dtype, shape));
            frame.define(s.before.clone(), Entry::Value(v));
            out.push(Held::Pair(name));
        }
        rounded_states(&rounded).into_iter().for_each(|d| self.problems.plain(d));
        out
    }

    /// Why a buffer cannot be a state.
    fn why_no_state(&self, s: &SourceState, request: &Request) -> Option<&'static str> {
        if request.no_state {
            return Some("states are turned off");
        }
        if self.f.opset < Opset::Ios18 {
            return Some("there are states from iOS 18 on");
        }
        if !s.initial.dtype().is_float() {
            return Some("Core ML's states hold floats");
        }
        if s.initial.shape().is_empty() {
            return Some("Core ML has no states without axes");
        }
        if !is_zero(s) {
            return Some("Core ML's states are zero at first, and this one is not");
        }
        None
    }

    fn read(&mut self, s: &SourceState, input: Value, dtype: DType, at: Place) -> Result<Value, LowerError> {
        let x = self.insert(at, &[&s.before], Box::new(ops::ReadState { input }), None)?[0];
        if dtype == DType::F16 {
            return Ok(x);
        }
        Ok(self.insert(at, &[&s.before], Box::new(ops::Cast { x, dtype }), None)?[0])
    }

    /// Writes what the buffers of `graph` have become.
    pub(crate) fn ends(&mut self, graph: &SourceGraph, held: &[Held], after: Vec<Entry>) {
        let body = self.f.body();
        for ((s, held), entry) in graph.states.iter().zip(held).zip(after) {
            if self.is_lost(&s.after, &entry, format!("the new content of buffer `{}`", s.name)) {
                continue;
            }
            let written = self.materialize(&s.after, entry, body).and_then(|v| match held {
                Held::State(state) => self.write(s, *state, v, Place::End(body)),
                Held::Pair(name) => {
                    self.f.add_output(Port::new(name.clone()), v);
                    Ok(())
                }
            });
            match written {
                Ok(()) | Err(LowerError::Poisoned) => {}
                Err(e) => self.refuse(s, &e),
            }
        }
    }

    fn write(&mut self, s: &SourceState, input: Value, data: Value, at: Place) -> Result<(), LowerError> {
        let own = self.f.ty(data).tensor().map(|t| t.dtype);
        let cast = ops::Cast { x: data, dtype: DType::F16 };
        let data = if own == Some(DType::F16) { data } else { self.insert(at, &[&s.after], Box::new(cast), None)?[0] };
        self.f.insert(at, &[], Box::new(ops::WriteState { input, data }), None)?;
        Ok(())
    }

    fn refuse(&mut self, s: &SourceState, e: &LowerError) {
        let d = Diagnostic::error(&codes::F0102, e.to_string());
        self.problems.plain(d.at(format!("buffer `{}`", s.name)));
    }
}

fn is_zero(s: &SourceState) -> bool {
    s.initial.to_f64().iter().all(|x| *x == 0.0)
}
