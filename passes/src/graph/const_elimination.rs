//! Computes what follows from constants.

use crate::{Pass, PassCx, PassError, Run};
use mlconv_mil::{ir::Place, ops::Const};

pub(crate) static PASS: Pass = Pass {
    name: "const_elimination",
    doc: "Replaces ops whose operands are all constant by their results, where these are not much larger.",
    changes_precision: false,
    after: &[],
    run: Run::Function(run),
};

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        for id in cx.module.functions[index].all_ops() {
            let f = &cx.module.functions[index];
            if !cx.may_edit() || !f.is_live(id) || f.op::<Const>(id).is_some() {
                continue;
            }
            let Some(folded) = cx.budget.fold(f, id) else { continue };
            let data = f.op_data(id).clone();
            let origin = data.origin.map(|o| cx.module.origins.rewritten(cx.pass, [o]));
            let (pass, f) = (cx.pass, &mut cx.module.functions[index]);
            for (v, val) in data.results.iter().zip(folded) {
                let hint = f.value(*v).hint.clone();
                let new = f.insert(Place::Before(id), &[&hint], Box::new(Const { val }), origin);
                let new = new.map_err(|e| PassError::new(pass, &e))?[0];
                f.replace_uses(*v, new);
            }
            f.remove(id);
            cx.edited();
        }
    }
    Ok(())
}
