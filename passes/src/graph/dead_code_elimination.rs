//! Removes ops whose results nothing reads.

use crate::{Pass, PassCx, PassError, Run};
use mlconv_mil::{ir::OpId, schema::Effect};

pub(crate) static PASS: Pass = Pass {
    name: "dead_code_elimination",
    doc: "Removes ops whose results nothing reads, unless they change a state.",
    changes_precision: false,
    after: &[],
    run: Run::Function(run),
};

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        let f = &mut cx.module.functions[index];
        // Readers stand after what they read, so one walk from the end finds every dead op outside of blocks that stay.
        let ops: Vec<OpId> = f.all_ops();
        for id in ops.into_iter().rev() {
            if !f.is_live(id) {
                continue;
            }
            let data = f.op_data(id);
            let read = data.results.iter().any(|v| !f.uses(*v).is_empty());
            if !read && !writes(f, id) {
                f.remove(id);
                // Not counted among the edits that a user may bound: what nothing reads does no harm.
                cx.applied += 1;
            }
        }
    }
    Ok(())
}

/// Whether the op, or one in its blocks, changes anything but its results.
fn writes(f: &mlconv_mil::ir::Function, id: OpId) -> bool {
    let mut todo = vec![id];
    while let Some(id) = todo.pop() {
        let op = &f.op_data(id).op;
        if op.schema().effect == Effect::Write {
            return true;
        }
        op.visit_regions(&mut |b| todo.extend(f.ops_in(b)));
    }
    false
}
