//! Computes tensors of more than five axes on fewer axes.
//!
//! Core ML has at most five axes, exporters write six and seven: windows of images, heads and groups, rotations of pairs.
//! Such a tensor gets a *stand-in*, which has its elements in the same order under fewer axes. An op that reads or makes
//! one computes on views of stand-ins, where axes that it treats alike are joined. A reshape is then no op at all.

mod axes;
mod computing;
mod lower;
mod moving;
mod picking;

use crate::{Pass, PassCx, PassError, Run};
use lower::{Lower, MAX_RANK, Rule, StandIns};
use mlconv_mil::ir::{Function, OpId, Place, Use, Value};

pub(crate) static PASS: Pass = Pass {
    name: "rank_reduction",
    doc: "Computes tensors of more than five axes on fewer: axes that an op treats alike are joined, transposes and slices are done in steps, reshapes vanish.",
    run: Run::Function(run),
};

/// What knows how to compute an op on fewer axes.
const RULES: &[&[&dyn Rule]] = &[computing::RULES, moving::RULES, picking::RULES];

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        let mut stand_ins = StandIns::default();
        let mut done = vec![];
        for id in cx.module.functions[index].all_ops() {
            if !is_high(&cx.module.functions[index], id) {
                continue;
            }
            let data = cx.module.functions[index].op_data(id).clone();
            let origin = data.origin.map(|o| cx.module.origins.rewritten(cx.pass, [o]));
            let mut lower = Lower::new(&mut cx.module.functions[index], &mut stand_ins, id, origin);
            match lower.lower(RULES.iter().copied().flatten().copied()) {
                Ok(()) => {
                    done.push(id);
                    cx.applied += 1;
                }
                Err(why) => {
                    // It stays as it is, so that what is said of it is about it alone.
                    lower.restore().map_err(|e| PassError::new(cx.pass, &e))?;
                    cx.skipped(index, id, &why.to_string());
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
                let Some(restored) = stand_ins.restored(f, v, Place::End(block), None)? else { continue };
                let yields = f.yields(block).iter().map(|y| if *y == v { restored } else { *y }).collect();
                f.set_yields(block, yields);
            }
        }
    }
    Ok(())
}
