//! Moves transposes down through a function, to where they meet their inverses.
//!
//! A *plan* gives each value behind a transpose the permutation that it would still lack if the ops on the way computed on
//! what comes before the transpose. An op on the way is *moved*. What an op that stays reads must be transposed after all,
//! and what a moved op reads from elsewhere must be transposed back. Ops at the ends of the way for which that does not
//! pay stay, and so do groups of connected ops that need as many transposes as before.

mod commit;
mod moved;
mod plan;

use crate::{Pass, PassCx, PassError, Run};
use plan::Plan;

pub(crate) static PASS: Pass = Pass {
    name: "sink_transposes",
    doc: "Moves transposes down through ops that can as well compute on permuted axes, to where they meet their inverses, where fewer transposes remain.",
    changes_precision: false,
    after: &["rank_reduction"],
    run: Run::Function(run),
};

/// Plans for one function: what one has moved makes room for another.
const MAX_ROUNDS: usize = 8;

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        for _ in 0..MAX_ROUNDS {
            if !cx.may_edit() {
                return Ok(());
            }
            let f = &cx.module.functions[index];
            let mut plan = Plan::new(f, &plan::Closed::default());
            if !plan.pays() {
                // A transpose that ends one way may begin another.
                plan = Plan::new(f, &plan.closed());
            }
            if !plan.pays() {
                for id in plan.begins() {
                    cx.skipped(index, id, "", "as many transposes would remain if it were moved");
                }
                break;
            }
            commit::commit(cx, index, &plan)?;
        }
    }
    Ok(())
}
