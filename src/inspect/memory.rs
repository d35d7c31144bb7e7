//! What values take while a function runs.

use super::Sizes;
use mlconv_mil::{
    ir::{Block, Def, Function, OpId, Use, Value},
    ops::Const,
};
use mlconv_tensor::Type;
use serde::Serialize;
use std::collections::HashMap;

/// The most bytes that values take at once, if ops run in program order, each into new memory, and a value is freed behind its
/// last use. Inputs stay, as they are the caller's; constants and states are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The most bytes.
    pub peak_bytes: u64,
    /// The op during which they are in use, by the name of its first result; `None` where no op runs.
    pub at: Option<String>,
    /// The bytes of inputs.
    pub inputs_bytes: u64,
    /// The bytes of outputs.
    pub outputs_bytes: u64,
    /// Values whose bytes are not known, as their sizes depend on data. They are not counted.
    pub unknown: usize,
}

impl Memory {
    pub(super) fn of(f: &Function, sizes: &Sizes<'_>) -> Self {
        let mut walk = Walk { f, sizes, memory: Self::default(), peak: None };
        let total =
            |walk: &mut Walk<'_>, values: &[Value]| values.iter().fold(0u64, |n, v| n.saturating_add(walk.bytes(*v)));
        let inputs = total(&mut walk, f.inputs());
        walk.block(f.body(), inputs);
        let unknown = walk.memory.unknown;
        let outputs = total(&mut walk, f.outputs());
        let at = walk.peak.and_then(|id| f.op_data(id).results.first()).map(|v| f.value(*v).hint.to_string());
        let peak_bytes = walk.memory.peak_bytes.max(inputs);
        Self { peak_bytes, at, inputs_bytes: inputs, outputs_bytes: outputs, unknown }
    }
}

struct Walk<'a> {
    f: &'a Function,
    sizes: &'a Sizes<'a>,
    memory: Memory,
    peak: Option<OpId>,
}

impl Walk<'_> {
    /// Runs a block while `outside` bytes are in use around it; what its results take then.
    fn block(&mut self, block: Block, outside: u64) -> u64 {
        let f = self.f;
        let ops: Vec<OpId> = f.ops_in(block).collect();
        let position: HashMap<OpId, usize> = ops.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        let mut freed = vec![0u64; ops.len()];
        let mut live = outside;
        for (i, id) in ops.iter().enumerate() {
            let data = f.op_data(*id);
            if f.op::<Const>(*id).is_some() || data.op.schema().constexpr {
                continue;
            }
            let mut regions = vec![];
            data.op.visit_regions(&mut |b| regions.push(b));
            let inner = regions.into_iter().map(|b| self.block(b, live)).max().unwrap_or(0);
            let mut made = 0u64;
            for v in &data.results {
                let bytes = self.bytes(*v);
                made = made.saturating_add(bytes);
                if let Some(last) = self.last_use(*v, block, &position, i) {
                    freed[last] = freed[last].saturating_add(bytes);
                }
            }
            // The results of a nested block may become those of its op.
            live = live.saturating_add(made);
            let now = live.saturating_add(inner.saturating_sub(made));
            if now > self.memory.peak_bytes {
                (self.memory.peak_bytes, self.peak) = (now, Some(*id));
            }
            live = live.saturating_sub(freed[i]);
        }
        live.saturating_sub(outside)
    }

    /// The op of `block`, by its position, behind which `v`, a result of the op at `made`, is free; `None` where the block
    /// yields it.
    fn last_use(&self, v: Value, block: Block, position: &HashMap<OpId, usize>, made: usize) -> Option<usize> {
        let mut last = made;
        for reader in self.f.uses(v) {
            let mut at = match reader {
                Use::Yield(b) if *b == block => return None,
                Use::Yield(b) => self.f.block(*b).parent,
                Use::Op(id) => Some(*id),
            };
            // A reader may stand in a block of an op of this one.
            while let Some(id) = at {
                if let Some(p) = position.get(&id) {
                    last = last.max(*p);
                    break;
                }
                at = self.f.block(self.f.op_data(id).block).parent;
            }
        }
        Some(last)
    }

    /// The bytes of a value, and 0 of one that is not counted.
    fn bytes(&mut self, v: Value) -> u64 {
        let f = self.f;
        if let Def::Result(id, _) = f.value(v).def
            && (f.op::<Const>(id).is_some() || f.op_data(id).op.schema().constexpr)
        {
            return 0;
        }
        let bytes = match f.ty(v) {
            Type::Tensor(t) => self.sizes.bytes(t),
            Type::State(_) => Some(0),
            Type::List { .. } | Type::Dict { .. } | Type::Unknown => None,
        };
        self.memory.unknown += usize::from(bytes.is_none());
        bytes.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(text: &str) -> Memory {
        let module = mlconv_mil::text::parse(text).unwrap_or_else(|e| panic!("{e}"));
        Memory::of(&module.functions[0], &Sizes { symbols: &module.symbols })
    }

    #[test]
    fn values_are_freed_behind_their_last_use() {
        // The input stays; of a, b and c two are there at a time.
        let chain = "%a = relu(x=%x)\n  %b = exp(x=%a)\n  %c = tanh(x=%b)";
        let m = memory(&format!("func @main(%x: f32[10]) ios17 {{\n  {chain}\n  return %c\n}}\n"));
        assert_eq!((m.peak_bytes, m.at.as_deref(), m.inputs_bytes, m.outputs_bytes), (120, Some("b"), 40, 40));
        // An output stays to the end, and so does what a later op reads.
        let m = memory(&format!("func @main(%x: f32[10]) ios17 {{\n  {chain}\n  return %a, %c\n}}\n"));
        assert_eq!((m.peak_bytes, m.at.as_deref()), (160, Some("c")));
    }

    #[test]
    fn open_sizes_have_their_defaults() {
        let m =
            memory("symbol n = 1..8 default 4\nfunc @main(%x: f16[n, 3]) ios17 {\n  %y = relu(x=%x)\n  return %y\n}\n");
        assert_eq!((m.peak_bytes, m.unknown), (2 * 4 * 3 * 2, 0));
    }
}
