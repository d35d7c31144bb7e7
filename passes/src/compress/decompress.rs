//! From compressed weights back to plain ones.

use mlconv_mil::{
    fold::decode,
    ir::{Function, InsertError, Module, Place, Value},
    ops::Const,
};

/// Puts plain constants in the place of all ops that decode weights; how many there were.
pub fn decompress(module: &mut Module) -> Result<usize, InsertError> {
    let mut count = 0;
    for index in 0..module.functions.len() {
        for id in module.functions[index].all_ops() {
            let f = &module.functions[index];
            if !f.op_data(id).op.schema().constexpr {
                continue;
            }
            let Some(decoded) = decode(f, id) else { continue };
            let data = f.op_data(id).clone();
            let origin = data.origin.map(|o| module.origins.rewritten("decompress", [o]));
            let f = &mut module.functions[index];
            for (old, val) in data.results.iter().zip(decoded) {
                // Such as the mask that a sparse decoder passes on, where the next one has its own.
                if f.uses(*old).is_empty() {
                    continue;
                }
                let hint = f.value(*old).hint.clone();
                let new = f.insert(Place::Before(id), &[&hint], Box::new(Const { val }), origin)?;
                f.replace_uses(*old, new[0]);
            }
            let mut parts = vec![];
            data.op.visit_operands(&mut |v| parts.push(v));
            f.remove(id);
            remove_unread(f, &parts);
            count += 1;
        }
    }
    Ok(count)
}

/// Removes constants that nothing reads any more: Core ML does not take those of types that only decoders read.
pub(super) fn remove_unread(f: &mut Function, parts: &[Value]) {
    for v in parts {
        // One value may be several operands, and is gone after the first.
        if f.has_value(*v)
            && f.uses(*v).is_empty()
            && let Some(id) = f.def_op(*v).filter(|id| f.op::<Const>(*id).is_some())
        {
            f.remove(id);
        }
    }
}
