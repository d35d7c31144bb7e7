//! Which outputs follow from random numbers.

use mlconv_mil::ir::{Block, Function, OpId, Value};
use std::collections::HashSet;

/// For each output, whether it follows from numbers that the program draws.
pub(crate) fn drawn_outputs(f: &Function) -> Vec<bool> {
    let drawn = drawn_values(f);
    f.yields(f.body()).iter().map(|v| drawn.contains(v)).collect()
}

/// What follows from numbers that the program draws.
pub(crate) fn drawn_values(f: &Function) -> HashSet<Value> {
    let mut drawn = HashSet::new();
    follow(f, f.body(), &mut drawn);
    drawn
}

/// Collects what follows from random numbers in a block; whether anything does.
///
/// Whatever an op with blocks gives follows from all that its blocks compute.
fn follow(f: &Function, block: Block, drawn: &mut HashSet<Value>) -> bool {
    let mut any = false;
    for id in f.ops_in(block) {
        if draws(f, id, drawn) {
            drawn.extend(f.op_data(id).results.iter().copied());
            any = true;
        }
    }
    any
}

fn draws(f: &Function, id: OpId, drawn: &mut HashSet<Value>) -> bool {
    let op = &*f.op_data(id).op;
    let (mut blocks, mut found) = (vec![], op.name().starts_with("random_"));
    op.visit_operands(&mut |v| found |= drawn.contains(&v));
    op.visit_regions(&mut |b| blocks.push(b));
    for block in blocks {
        // What a block yields may come from outside of it.
        found |= follow(f, block, drawn) | f.yields(block).iter().any(|v| drawn.contains(v));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        arrays::Arrays,
        compare::Tolerance,
        model::Format,
        parity::{Given, parity},
        witness::Chosen,
    };
    use mlconv_mil::{
        text::parse,
        verify::{Verified, verify},
    };

    /// A program of which `y` follows from numbers drawn with a seed.
    fn program(seed: i64, z: &str) -> Verified {
        let text = format!(
            "func @main(%x: f32[2]) ios17 {{\n  %n = const(val=i32[1] [2])\n  %r = random_uniform(shape=%n, seed={seed})\n  \
             %y = add(x=%x, y=%r)\n  %z = {z}(x=%x)\n  return %y, %z\n}}\n"
        );
        verify(parse(&text).unwrap_or_else(|e| panic!("{e}"))).unwrap_or_else(|e| panic!("{e:?}"))
    }

    #[test]
    fn what_follows_from_random_numbers_is_not_judged() {
        let source = program(1, "relu");
        assert_eq!(drawn_outputs(&source.functions[0]), [true, false]);
        let judged = |package: &Verified| {
            let given = Given { samples: &Arrays::default(), labels: None, seed: 0 };
            let kernels = Chosen::kernels(Format::Package);
            let outputs = parity(&source, package, given, Tolerance::F32, kernels).expect("both run").outputs;
            outputs.iter().map(|o| (o.drawn, o.pass)).collect::<Vec<_>>()
        };
        assert_eq!(judged(&program(2, "relu")), [(true, true), (false, true)]);
        assert_eq!(judged(&program(1, "exp")), [(true, true), (false, false)]);
    }
}
