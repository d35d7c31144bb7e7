//! Passes and the order they run in.

use crate::{Named, Options, engine::rewrite};
use indexmap::IndexSet;
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
    /// Whether it changes the precision of what is computed, and so the numbers.
    pub changes_precision: bool,
    /// Passes that a pipeline which has both runs first.
    pub after: &'static [&'static str],
    /// How.
    pub run: Run,
}

/// How a pass works.
pub enum Run {
    /// Rules, each applied once to every op, in order.
    Rules(&'static [Named]),
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
    pub(crate) applied: usize,
    /// Edits that may still be applied, by all passes.
    left: &'a mut usize,
    /// What may still be computed at once; one for all runs of a pipeline.
    pub(crate) budget: &'a mut Budget,
    notes: &'a mut IndexSet<Note>,
}

/// Something that a pass wants known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// The pass.
    pub pass: &'static str,
    /// The rule, where it is of one.
    pub rule: String,
    /// The op, as text.
    pub op: String,
    /// Where the op comes from in the source, as far as known.
    pub sources: Vec<String>,
    /// What there is to know.
    pub why: String,
    /// What is special to this op, such as the numbers that led to it.
    pub detail: String,
    /// How much it matters.
    pub weight: Weight,
}

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// It explains why a rule did not apply.
    Explains,
    /// A rule applied.
    Fired,
    /// An op was adapted, which changes results by little.
    Adapted,
    /// A user asked for it.
    Asked,
    /// The result differs from what was asked for, so that a user must be told.
    Matters,
}

impl PassCx<'_> {
    /// Whether another edit may be applied.
    pub(crate) fn may_edit(&self) -> bool {
        *self.left > 0
    }

    /// Counts an edit.
    pub(crate) fn edited(&mut self) {
        self.applied += 1;
        *self.left = self.left.saturating_sub(1);
    }

    /// A rule nearly fitted.
    pub(crate) fn skipped(&mut self, function: usize, id: OpId, rule: &str, why: &str) {
        self.explain(function, id, rule, why, Weight::Explains);
    }

    /// A rule is about to be applied.
    pub(crate) fn fired(&mut self, function: usize, id: OpId, rule: &str) {
        self.explain(function, id, rule, "", Weight::Fired);
    }

    /// Notes what a rule did with an op, where a user asks about it.
    fn explain(&mut self, function: usize, id: OpId, rule: &str, why: &str, weight: Weight) {
        let asked = self.options.explain.as_ref();
        if asked.is_some_and(|p| p.matches(self.module, &self.module.functions[function], id)) {
            self.add(function, id, rule, (why, ""), weight);
        }
    }

    /// Records something about an op: what holds for others too, and what is special to it.
    pub(crate) fn note(&mut self, function: usize, id: OpId, why: (&str, &str), weight: Weight) {
        self.add(function, id, "", why, weight);
    }

    fn add(&mut self, function: usize, id: OpId, rule: &str, (why, detail): (&str, &str), weight: Weight) {
        let f = &self.module.functions[function];
        let from = f.op_data(id).origin.map(|o| self.module.origins.sources(o)).unwrap_or_default();
        let sources = from.iter().map(ToString::to_string).collect();
        let [rule, why, detail] = [rule, why, detail].map(str::to_owned);
        let note = Note { pass: self.pass, rule, op: print_op(f, id), sources, why, detail, weight };
        self.notes.insert(note);
    }
}

/// Groups of passes; a group runs until nothing changes, or once.
pub struct Pipeline(&'static [&'static [Group]]);

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
    pub notes: IndexSet<Note>,
}

impl Report {
    /// How many edits there were.
    pub fn edits(&self) -> usize {
        self.applied.iter().map(|(_, count)| count).sum()
    }

    /// Takes in what a pipeline did that ran afterwards.
    pub fn extend(&mut self, later: Self) {
        for (pass, count) in later.applied {
            self.count(pass, count);
        }
        self.notes.extend(later.notes);
    }

    fn count(&mut self, pass: &'static str, applied: usize) {
        match self.applied.iter_mut().find(|(n, _)| *n == pass) {
            Some((_, count)) => *count += applied,
            None => self.applied.push((pass, applied)),
        }
    }
}

/// Runs of a group after which it is taken not to settle.
const MAX_ROUNDS: usize = 32;

const CLEAN_UP: Group = Group {
    fixpoint: true,
    passes: &["const_elimination", "noop_elimination", "cast_optimization", "dead_code_elimination"],
};

/// Makes one op of what exporters write out.
const FUSE: Group = Group {
    fixpoint: true,
    passes: &[
        "fuse_gelu",
        "fuse_normalization",
        "fuse_clamp",
        "fuse_activation",
        "fuse_reduction",
        "dead_code_elimination",
    ],
};

/// What is constant beside a layer becomes a part of it.
const FOLD: Group = Group {
    fixpoint: true,
    passes: &["fuse_attention", "fuse_linear", "fold_affine", "fold_input_affine", "dead_code_elimination"],
};

/// Run again, it would take the reshapes that it leaves at inputs and outputs for work.
const FEWER_AXES: Group = Group { fixpoint: false, passes: &["rank_reduction"] };

/// Removes ops that only move data. What one of them leaves makes room for another.
const LAYOUT: Group = Group {
    fixpoint: true,
    passes: &[
        "merge_reshapes",
        "merge_transposes",
        "sink_transposes",
        "merge_pads",
        "merge_slices",
        "remove_expansion",
        "share_heads",
        "common_subexpression_elimination",
        "const_elimination",
        "noop_elimination",
        "dead_code_elimination",
    ],
};

/// Removes what does nothing, and leaves every layer what it is.
const TIDY: &[Group] = &[CLEAN_UP, FEWER_AXES, CLEAN_UP];

/// Keeps the precision.
const GRAPH: &[Group] = &[CLEAN_UP, FUSE, CLEAN_UP, FOLD, FEWER_AXES, CLEAN_UP, LAYOUT, CLEAN_UP, FOLD];

/// Replaces what half precision breaks.
const STABLE: &[Group] = &[Group { fixpoint: false, passes: &["clamp_masks", "stabilize", "dead_code_elimination"] }];

/// Computes in half precision.
const HALF: &[Group] = &[
    Group { fixpoint: false, passes: &["fp16_cast"] },
    Group {
        fixpoint: true,
        passes: &[
            "cast_optimization",
            "noop_elimination",
            "merge_reshapes",
            "merge_transposes",
            "common_subexpression_elimination",
            "dead_code_elimination",
        ],
    },
];

impl Pipeline {
    /// Removes what does nothing: for packages whose weights are compressed, by what their layers are.
    pub const TIDY: Self = Self(&[TIDY]);

    /// Without a change of precision.
    pub const CLEAN: Self = Self(&[GRAPH]);

    /// In forms that half precision does not break, still in single precision.
    pub const STABLE: Self = Self(&[GRAPH, STABLE]);

    /// Computes in half precision what has been through [`Self::STABLE`].
    pub const HALF: Self = Self(&[HALF]);

    /// Computes in half precision.
    pub const FP16: Self = Self(&[GRAPH, STABLE, HALF]);

    /// The pipelines by name.
    pub const ALL: &'static [(&'static str, Self)] =
        &[("tidy", Self::TIDY), ("clean", Self::CLEAN), ("fp16", Self::FP16)];

    /// Its groups, in order.
    pub fn groups(&self) -> impl Iterator<Item = &'static Group> {
        self.0.iter().copied().flatten()
    }

    /// Runs every pass.
    pub fn run(&self, module: &mut Module, options: &Options) -> Result<Report, PassError> {
        self.run_observed(module, options, &mut |_| Ok(()))
    }

    /// Runs every pass, and shows each step to `observer`, whose first error ends it.
    pub fn run_observed(
        &self,
        module: &mut Module,
        options: &Options,
        observer: &mut dyn FnMut(Step<'_>) -> Result<(), PassError>,
    ) -> Result<Report, PassError> {
        let mut run = Running::new(module, options);
        for group in self.groups() {
            for _ in 0..if group.fixpoint { MAX_ROUNDS } else { 1 } {
                let mut changed = 0;
                for name in group.passes {
                    let pass = crate::by_name(name)
                        .ok_or_else(|| PassError { pass: name, why: "there is no such pass".to_owned() })?;
                    let applied = run.pass(pass, module, options)?;
                    observer(Step { pass, applied, module })?;
                    changed += applied;
                }
                if changed == 0 {
                    break;
                }
            }
        }
        Ok(run.report)
    }
}

/// What a pass did in a pipeline.
pub struct Step<'a> {
    /// The pass.
    pub pass: &'static Pass,
    /// How many edits it made.
    pub applied: usize,
    /// The module behind it.
    pub module: &'a Module,
}

/// What all passes of a pipeline share.
struct Running {
    budget: Budget,
    /// Edits that may still be applied.
    left: usize,
    report: Report,
}

impl Running {
    fn new(module: &Module, options: &Options) -> Self {
        let left = options.max_edits.unwrap_or(usize::MAX);
        Self { budget: Budget::of(module), left, report: Report::default() }
    }

    fn pass(&mut self, pass: &'static Pass, module: &mut Module, options: &Options) -> Result<usize, PassError> {
        let Self { budget, left, report } = self;
        let notes = &mut report.notes;
        let mut cx = PassCx { module, options, pass: pass.name, applied: 0, left, budget, notes };
        match &pass.run {
            Run::Rules(rules) => rewrite(&mut cx, rules)?,
            Run::Function(run) => run(&mut cx)?,
        }
        let applied = cx.applied;
        if applied > 0 {
            // What is known of values may be finer where others take their places, also for who reads what is computed of them.
            let again = module.functions.iter_mut().try_for_each(mlconv_mil::ir::Function::infer_again);
            again.map_err(|e| PassError::new(pass.name, &e))?;
        }
        report.count(pass.name, applied);
        Ok(applied)
    }
}

impl Pass {
    /// Runs the pass once.
    pub fn run(&'static self, module: &mut Module, options: &Options) -> Result<Report, PassError> {
        let mut run = Running::new(module, options);
        run.pass(self, module, options)?;
        Ok(run.report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PASSES;

    #[test]
    fn pipelines_run_passes_after_those_that_they_follow() {
        for (name, pipeline) in Pipeline::ALL {
            let order: Vec<&str> = pipeline.groups().flat_map(|g| g.passes).copied().collect();
            let first = |pass: &str| order.iter().position(|p| *p == pass);
            for pass in PASSES.iter().filter(|p| first(p.name).is_some()) {
                for before in pass.after {
                    assert!(crate::by_name(before).is_some(), "{before} is a pass");
                    let both = first(before).zip(first(pass.name));
                    assert!(both.is_none_or(|(b, p)| b < p), "{name}: {before} runs before {}", pass.name);
                }
            }
        }
    }

    #[test]
    fn every_pass_is_in_a_pipeline() {
        for pass in PASSES {
            let is_in = |(_, p): &(&str, Pipeline)| p.groups().any(|g| g.passes.contains(&pass.name));
            assert!(Pipeline::ALL.iter().any(is_in), "{}", pass.name);
        }
    }
}
