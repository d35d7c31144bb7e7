//! From compressed weights back to plain ones.

use mlconv_mil::{
    fold::decode,
    ir::{InsertError, Module, Place},
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
                let hint = f.value(*old).hint.clone();
                let new = f.insert(Place::Before(id), &[&hint], Box::new(Const { val }), origin)?;
                f.replace_uses(*old, new[0]);
            }
            f.remove(id);
            count += 1;
        }
    }
    Ok(count)
}
