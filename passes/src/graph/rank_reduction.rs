//! Computes tensors of more than five axes on fewer axes.
//!
//! Core ML has at most five axes, exporters write six and seven: windows of images, heads and groups, rotations of pairs.
//! Such a tensor gets a *stand-in*, which has its elements in the same order under fewer axes. An op that reads or makes
//! one computes on views of stand-ins, where axes that it treats alike are joined. A reshape is then no op at all.
//! Sizes of views that are no numbers are computed from what the program has at that place.

mod axes;
mod blocks;
mod computing;
mod lower;
mod moving;
mod picking;
mod sizes;

use crate::{Pass, PassCx, PassError, Run};
pub(crate) use lower::MAX_RANK;
use lower::{Lower, Rule, StandIns};
use mlconv_mil::ir::{Function, OpId, Place, Use, Value};

pub(crate) static PASS: Pass = Pass {
    name: "rank_reduction",
    doc: "Computes tensors of more than five axes on fewer: axes that an op treats alike are joined, transposes and slices are done in steps, reshapes vanish. Sizes that are known only when the program runs are computed from those of its values; branches and loops pass such tensors on flat.",
    changes_precision: false,
    after: &[],
    run: Run::Function(run),
};

/// What knows how to compute an op on fewer axes.
const RULES: &[&[&dyn Rule]] =
    &[computing::RULES, computing::ROWS, computing::REDUCTIONS, moving::RULES, picking::RULES, picking::MADE];

/// What is next in a walk through a function.
enum Step {
    /// An op, and those behind it in its block.
    From(Option<OpId>),
    /// An op whose blocks have been walked through.
    Behind(OpId),
}

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        let mut stand_ins = StandIns::default();
        let mut done = vec![];
        let f = &cx.module.functions[index];
        let body = f.body();
        f.inputs().iter().for_each(|v| stand_ins.sources.learn(f, body, *v));
        let mut steps = vec![Step::From(f.ops().next())];
        while let Some(step) = steps.pop() {
            match step {
                Step::From(None) => {}
                Step::From(Some(id)) => {
                    let is_done = one(cx, index, &mut stand_ins, id)?;
                    let f = &cx.module.functions[index];
                    // Ops that were put behind this one are walked through too.
                    steps.push(Step::From(f.next_op(id)));
                    if is_done {
                        done.push(id);
                    } else {
                        steps.push(Step::Behind(id));
                    }
                    f.op_data(id).op.visit_regions(&mut |block| {
                        f.block(block).args.iter().for_each(|v| stand_ins.sources.learn(f, block, *v));
                        steps.push(Step::From(f.ops_in(block).next()));
                    });
                }
                Step::Behind(id) => {
                    let f = &cx.module.functions[index];
                    let data = f.op_data(id);
                    data.results.iter().for_each(|v| stand_ins.sources.learn(f, data.block, *v));
                }
            }
        }
        let f = &mut cx.module.functions[index];
        restore_yields(f, &mut stand_ins, &done).map_err(|e| PassError::new(cx.pass, &e))?;
        for id in done.into_iter().rev() {
            if f.op_data(id).results.iter().all(|v| f.uses(*v).is_empty()) {
                f.remove(id);
            }
        }
    }
    Ok(())
}

/// Computes an op on fewer axes, if it is one of too many; whether others stand in for it now.
fn one(cx: &mut PassCx<'_>, index: usize, stand_ins: &mut StandIns, id: OpId) -> Result<bool, PassError> {
    if !cx.may_edit() || !is_high(&cx.module.functions[index], id) {
        return Ok(false);
    }
    let data = cx.module.functions[index].op_data(id).clone();
    let origin = data.origin.map(|o| cx.module.origins.rewritten(cx.pass, [o]));
    let mut lower = Lower::new(&mut cx.module.functions[index], stand_ins, id, origin);
    let lowered = match blocks::flatten(&mut lower) {
        Some(flat) => flat.map(|()| false),
        None => lower.lower(RULES.iter().copied().flatten().copied()).map(|()| true),
    };
    match lowered {
        Ok(is_done) => {
            cx.edited();
            Ok(is_done)
        }
        Err(why) => {
            // It stays as it is, so that what is said of it is about it alone.
            lower.restore().map_err(|e| PassError::new(cx.pass, &e))?;
            cx.skipped(index, id, "", &why.to_string());
            Ok(false)
        }
    }
}

/// Whether the op reads or makes a tensor of too many axes; what decodes weights is left alone.
fn is_high(f: &Function, id: OpId) -> bool {
    let data = f.op_data(id);
    let high = |v: Value| f.ty(v).tensor().is_some_and(|t| t.shape.rank() > MAX_RANK);
    let mut any = data.results.iter().any(|v| high(*v));
    data.op.visit_operands(&mut |v| any |= high(v));
    // A constant has no stand-in: each reader makes its own view of it.
    any && !data.op.schema().constexpr && data.op.name() != "const"
}

/// Blocks that yield what was computed on fewer axes yield it under its own.
fn restore_yields(
    f: &mut Function,
    stand_ins: &mut StandIns,
    done: &[OpId],
) -> Result<(), mlconv_mil::ir::InsertError> {
    for id in done {
        for v in f.op_data(*id).results.clone() {
            let blocks: Vec<_> =
                f.uses(v).iter().filter_map(|u| if let Use::Yield(b) = u { Some(*b) } else { None }).collect();
            for block in blocks {
                // What is read at the end of one block is not there yet where another one ends.
                let sources = stand_ins.sources.clone();
                let mut lower = Lower::new(f, stand_ins, *id, None);
                lower.place = Place::End(block);
                let restored = lower.restored(v);
                stand_ins.sources = sources;
                let Some(restored) = restored? else { continue };
                let yields = f.yields(block).iter().map(|y| if *y == v { restored } else { *y }).collect();
                f.set_yields(block, yields);
            }
        }
    }
    Ok(())
}
