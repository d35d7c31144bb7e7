//! Passes and the order they run in.

use crate::{Options, Rule, engine::rewrite};
use mlconv_mil::{
    fold::Budget,
    ir::{Module, OpId},
    text::print_op,
};
use std::fmt::Display;

/// A rewrite of a module.
pub struct Pass {
    /// Verb and object, in snake case.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub doc: &'static str,
    /// How.
    pub run: Run,
}

/// How a pass works.
pub enum Run {
    /// Rules, each applied once to every op, in order.
    Rules(&'static [&'static dyn Rule]),
    /// A function over the whole module.
    Function(fn(&mut PassCx<'_>) -> Result<(), PassError>),
}

/// A pass that could not do its work: a fault of the pass.
#[derive(Debug, thiserror::Error)]
#[error("pass `{pass}`: {why}")]
pub struct PassError {
    /// The pass.
    pub pass: &'static str,
    /// What went wrong.
    pub why: String,
}

impl PassError {
    /// `pass` failed for this reason.
    pub fn new(pass: &'static str, why: &dyn Display) -> Self {
        Self { pass, why: why.to_string() }
    }
}

/// What a pass works on.
pub struct PassCx<'a> {
    /// The module.
    pub module: &'a mut Module,
    /// What the user asked for.
    pub options: &'a Options,
    /// The pass.
    pub pass: &'static str,
    /// Edits applied so far.
    pub applied: usize,
    /// What may still be computed at once; one for all runs of a pipeline.
    pub(crate) budget: &'a mut Budget,
    notes: &'a mut Vec<Note>,
}

/// Something that a pass wants known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The pass.
    pub pass: &'static str,
    /// The op, as text.
    pub op: String,
    /// Where the op comes from in the source, as far as known.
    pub sources: Vec<String>,
    /// What there is to know.
    pub why: String,
    /// How much it matters.
    pub weight: Weight,
}

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It explains why a rule did not apply.
    Explains,
    /// A user asked for it.
    Asked,
    /// The result differs from what was asked for, so that a user must be told.
    Matters,
}

impl PassCx<'_> {
    /// A rule nearly fitted.
    pub(crate) fn skipped(&mut self, function: usize, id: OpId, why: &str) {
        self.note(function, id, why, Weight::Explains);
    }

    /// Records something about an op.
    pub(crate) fn note(&mut self, function: usize, id: OpId, why: &str, weight: Weight) {
        let f = &self.module.functions[function];
        let from = f.op_data(id).origin.map(|o| self.module.origins.sources(o)).unwrap_or_default();
        let sources = from.iter().map(ToString::to_string).collect();
        let note = Note { pass: self.pass, op: print_op(f, id), sources, why: why.to_owned(), weight };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// Groups of passes; a group runs until nothing changes, or once.
pub struct Pipeline(pub &'static [Group]);

/// Passes that run together.
pub struct Group {
    /// Whether they run again as long as something changes.
    pub fixpoint: bool,
    /// Their names, in order.
    pub passes: &'static [&'static str],
}

/// What a pipeline did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Edits by pass, in the order of the first run.
    pub applied: Vec<(&'static str, usize)>,
    /// What passes want known.
    pub notes: Vec<Note>,
}

/// Runs of a group after which it is taken not to settle.
const MAX_ROUNDS: usize = 32;

const CLEAN_UP: Group = Group {
    fixpoint: true,
    passes: &["const_elimination", "noop_elimination", "cast_optimization", "dead_code_elimination"],
};

/// Run again, it would take the reshapes that it leaves at inputs and outputs for work.
const FEWER_AXES: Group = Group { fixpoint: false, passes: &["rank_reduction"] };

impl Pipeline {
    /// Cleans up, without a change of precision.
    pub const CLEAN: Self = Self(&[CLEAN_UP, FEWER_AXES, CLEAN_UP]);

    /// Cleans up, and computes in half precision.
    pub const FP16: Self = Self(&[
        CLEAN_UP,
        FEWER_AXES,
        CLEAN_UP,
        Group { fixpoint: false, passes: &["fp16_cast"] },
        Group { fixpoint: true, passes: &["cast_optimization", "noop_elimination", "dead_code_elimination"] },
    ]);

    /// Runs every pass.
    pub fn run(&self, module: &mut Module, options: &Options) -> Result<Report, PassError> {
        let mut report = Report::default();
        let mut budget = Budget::of(module);
        for group in self.0 {
            for _ in 0..if group.fixpoint { MAX_ROUNDS } else { 1 } {
                let mut changed = 0;
                for name in group.passes {
                    let pass = crate::by_name(name)
                        .ok_or_else(|| PassError { pass: name, why: "there is no such pass".to_owned() })?;
                    changed += pass.run_within(&mut budget, module, options, &mut report)?;
                }
                if changed == 0 {
                    break;
                }
            }
        }
        Ok(report)
    }
}

impl Pass {
    /// Runs the pass once; how many edits it made.
    pub fn run(&'static self, module: &mut Module, options: &Options, report: &mut Report) -> Result<usize, PassError> {
        self.run_within(&mut Budget::of(module), module, options, report)
    }

    fn run_within(
        &'static self,
        budget: &mut Budget,
        module: &mut Module,
        options: &Options,
        report: &mut Report,
    ) -> Result<usize, PassError> {
        let mut cx = PassCx { module, options, pass: self.name, applied: 0, budget, notes: &mut report.notes };
        match &self.run {
            Run::Rules(rules) => rewrite(&mut cx, rules)?,
            Run::Function(run) => run(&mut cx)?,
        }
        let applied = cx.applied;
        match report.applied.iter_mut().find(|(n, _)| *n == self.name) {
            Some((_, count)) => *count += applied,
            None => report.applied.push((self.name, applied)),
        }
        Ok(applied)
    }
}
