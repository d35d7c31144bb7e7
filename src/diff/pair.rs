//! Which value of one model stands for which of another.

use crate::feed::means_port;
use mlconv_mil::{
    ir::{Function, OpId, Port, Value},
    ops::Const,
    text::Namer,
};
use std::collections::{HashMap, HashSet};

/// What coremltools adds to the name of a value that it computes in another precision.
const OF_CASTS: [&str; 2] = ["_cast_fp16", "_cast_fp32"];

/// Values of the body of one function with those of another that they are compared with.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    /// The value of the first model, by that of the second.
    of: HashMap<Value, Value>,
    /// The values of the first that have one.
    wanted: HashSet<Value>,
}

impl Pairs {
    /// Pairs the results of ops that have the same name, which is the one that the source's node has, in a package as Core ML
    /// allows it; and outputs, whatever computes them. What follows from constants alone is left out.
    pub fn new(f: &Function, g: &Function) -> Self {
        let mut named: HashMap<String, Option<Value>> = HashMap::new();
        for v in computed(f) {
            let name = Namer::legal(&f.value(v).hint);
            // A name that several have is none of either.
            named.entry(name).and_modify(|v| *v = None).or_insert(Some(v));
        }
        let mut pairs = Self::default();
        for v in computed(g) {
            let name = Namer::legal(&g.value(v).hint);
            let plain = OF_CASTS.iter().find_map(|end| name.strip_suffix(end));
            if let Some(a) = named.get(&name).or(plain.and_then(|plain| named.get(plain))).copied().flatten() {
                pairs.add(a, v);
            }
        }
        let known: HashSet<Value> = computed(f).chain(f.inputs().iter().copied()).collect();
        for (port, v) in g.sig.outputs.iter().zip(g.outputs()) {
            let same = |p: &Port| means_port(&p.name, port) || means_port(&port.name, p);
            let at = f.sig.outputs.iter().position(same);
            if let Some(a) = at.and_then(|at| f.outputs().get(at)).filter(|a| known.contains(a)) {
                pairs.add(*a, *v);
            }
        }
        pairs
    }

    fn add(&mut self, a: Value, b: Value) {
        self.of.insert(b, a);
        self.wanted.insert(a);
    }

    /// The value of the first model that `b` is compared with.
    pub fn of(&self, b: Value) -> Option<Value> {
        self.of.get(&b).copied()
    }

    /// Whether a value of the first model is compared with one.
    pub fn wants(&self, a: Value) -> bool {
        self.wanted.contains(&a)
    }
}

/// The results of the ops of a function's body that follow from its inputs, in order.
pub fn computed(f: &Function) -> impl Iterator<Item = Value> + '_ {
    let fixed = fixed(f);
    f.ops().filter(move |id| !fixed.contains(id)).flat_map(|id| f.op_data(id).results.iter().copied())
}

/// The ops of a function's body whose results follow from constants alone, such as what decodes a weight.
pub fn fixed(f: &Function) -> HashSet<OpId> {
    let mut fixed = HashSet::new();
    for id in f.ops() {
        let (mut reads, mut blocks) = (true, false);
        let data = f.op_data(id);
        data.op.visit_operands(&mut |v| reads &= f.def_op(v).is_some_and(|id| fixed.contains(&id)));
        data.op.visit_regions(&mut |_| blocks = true);
        let draws = data.op.name().starts_with("random_");
        if f.op::<Const>(id).is_some() || (reads && !blocks && !draws) {
            fixed.insert(id);
        }
    }
    fixed
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::{ir::Module, text::parse};

    fn program(text: &str) -> Module {
        parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn results_of_one_name_are_pairs() {
        let a = program(
            "func @main(%x: f32[2]) ios17 {\n  %a = relu(x=%x)\n  %b = exp(x=%a)\n  %c = abs(x=%b)\n  return %c\n}\n",
        );
        let b = program(
            "func @main(%x: f16[2]) ios17 {\n  %a_cast_fp16 = relu(x=%x)\n  %b = exp(x=%a_cast_fp16)\n  %d = abs(x=%b)\n  %c = tanh(x=%d)\n  return %c\n}\n",
        );
        let (f, g) = (&a.functions[0], &b.functions[0]);
        let pairs = Pairs::new(f, g);
        let name = |v: Value| pairs.of(v).map(|a| f.value(a).hint.to_string());
        let names: Vec<Option<String>> = computed(g).map(name).collect();
        assert_eq!(names, [Some("a".to_owned()), Some("b".to_owned()), None, Some("c".to_owned())]);
    }
}
