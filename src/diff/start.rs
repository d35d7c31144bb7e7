//! Where two models begin that are compared value by value.

use super::Sides;
use crate::{Diagnostic, feed, parity::run_error};
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::Tensor;

/// What one call of two functions begins with, and what it is to give.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The inputs of the first.
    pub inputs: Vec<Option<Tensor>>,
    /// Those of the second.
    pub given: Vec<Option<Tensor>>,
    /// What the states of each hold.
    pub states: [States; 2],
    /// What the states of the second are to hold: what those of the first do.
    pub led: States,
    /// The outputs of the first.
    pub outputs: Vec<Tensor>,
}

impl Start {
    /// The last of `calls`, which follow each other and have the first's inputs.
    pub fn last_of(sides: Sides<'_>, calls: Vec<Vec<Option<Tensor>>>) -> Result<Self, Diagnostic> {
        let mut out = Self::default();
        let first = Session::new(sides.a, sides.f, &Cpu, Options::default());
        let second = Session::new(sides.b, sides.g, &Cpu, Options::default());
        let count = calls.len();
        for (i, inputs) in calls.into_iter().enumerate() {
            let given = feed::match_inputs(sides.g, &feed::as_arrays(sides.f, &inputs))?;
            let mut states = out.states[0].clone();
            out.outputs = first.run(&inputs, &mut states).map_err(|e| run_error(&e))?;
            if i + 1 == count {
                (out.inputs, out.given) = (inputs, given);
            } else {
                second.run(&given, &mut out.states[1]).map_err(|e| run_error(&e))?;
                out.states[0] = states;
            }
        }
        for (name, t) in &out.states[1] {
            let own = out.states[0].iter().find(|(own, _)| feed::means(own, name) || feed::means(name, own));
            let own = own.map(|(_, own)| own.cast(t.dtype())).filter(|own| own.shape() == t.shape());
            out.led.insert(name.clone(), own.unwrap_or_else(|| t.clone()));
        }
        Ok(out)
    }
}
