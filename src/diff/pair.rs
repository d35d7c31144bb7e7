//! Which value of one model stands for which of another.

use crate::parity::same_port;
use mlconv_mil::{
    ir::{Function, OpId, Port, Value},
    ops::{Cast, Const},
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
    /// For how many of the second each value of the first stands.
    wanted: HashMap<Value, usize>,
    /// How many pairs were found by what both compute.
    alike: usize,
}

/// The part of the second model's values that bear names of the first from which on names are gone by.
const TOLD: f64 = 0.9;

impl Pairs {
    /// Pairs the results of ops that have the same name, which is the one that the source's node has, in a package as Core ML
    /// allows it; and outputs, whatever computes them. What follows from constants alone is left out.
    pub fn named(f: &Function, g: &Function) -> Self {
        let mut named: HashMap<String, Option<Value>> = HashMap::new();
        let (mut of_plain, mut pairs) = (HashMap::new(), Self::of_outputs(f, g));
        for v in computed(f) {
            let name = Namer::legal(&f.value(v).hint);
            if let Some(plain) = plain(&name) {
                of_plain.insert(plain.to_owned(), v);
            }
            // A name that several have is none of either.
            named.entry(name).and_modify(|v| *v = None).or_insert(Some(v));
        }
        for v in computed(g) {
            let name = Namer::legal(&g.value(v).hint);
            let of = |name: &str| named.get(name).copied().or_else(|| of_plain.get(name).copied().map(Some));
            let a = of(&name).or_else(|| of(plain(&name)?)).flatten();
            if let Some(a) = a.filter(|_| pairs.of(v).is_none()) {
                pairs.add(a, v);
            }
        }
        pairs.see_through_casts(g);
        pairs
    }

    /// Pairs what is cast to a value that has a pair as well, if it has none: an output's own op is before its cast.
    pub(super) fn see_through_casts(&mut self, g: &Function) {
        let is_float = |v: Value| g.ty(v).tensor().is_some_and(|t| t.dtype.is_float());
        for v in computed(g) {
            let before = g.def::<Cast>(v).map(|cast| cast.x).filter(|x| is_float(*x) && g.def_op(*x).is_some());
            if let Some((a, x)) = self.of(v).zip(before.filter(|x| self.of(*x).is_none())) {
                self.add(a, x);
            }
        }
    }

    /// Pairs outputs, whatever computes them.
    pub(super) fn of_outputs(f: &Function, g: &Function) -> Self {
        let mut pairs = Self::default();
        let known: HashSet<Value> = computed(f).chain(f.inputs().iter().copied()).collect();
        for (at, v) in outputs(f, g) {
            if let Some(a) = f.outputs().get(at).filter(|a| known.contains(a)) {
                pairs.add(*a, v);
            }
        }
        pairs
    }

    /// Whether names say which values are the same: hardly one of the second model has none, or has that of another shape.
    pub fn are_told(&self, f: &Function, g: &Function) -> bool {
        let shape = |f: &Function, v: Value| f.ty(v).tensor().map(|t| t.shape.clone());
        let all: Vec<Value> = computed(g).filter(|v| g.def::<Cast>(*v).is_none()).collect();
        let told = |b: &&Value| self.of(**b).is_some_and(|a| shape(f, a) == shape(g, **b));
        all.iter().filter(told).count() as f64 >= TOLD * all.len() as f64
    }

    pub(super) fn add(&mut self, a: Value, b: Value) {
        if let Some(old) = self.of.insert(b, a) {
            self.wanted.entry(old).and_modify(|n| *n -= 1);
        }
        *self.wanted.entry(a).or_default() += 1;
    }

    /// Adds a pair that was found by what both compute.
    pub(super) fn add_alike(&mut self, a: Value, b: Value) {
        self.add(a, b);
        self.alike += 1;
    }

    /// The value of the first model that `b` is compared with.
    pub fn of(&self, b: Value) -> Option<Value> {
        self.of.get(&b).copied()
    }

    /// How many values of the second are compared with a value of the first.
    pub fn wanted(&self, a: Value) -> usize {
        self.wanted.get(&a).copied().unwrap_or(0)
    }

    /// How many pairs were found by what both compute.
    pub fn alike(&self) -> usize {
        self.alike
    }
}

/// The position of each output of the first function, and the value of the second that it is compared with: by name, or in order
/// where no name is in both.
pub fn outputs(f: &Function, g: &Function) -> Vec<(usize, Value)> {
    let named = |port: &Port| {
        let own = f.sig.outputs.iter().position(|p| p.name == port.name);
        own.or_else(|| f.sig.outputs.iter().position(|p| same_port(p, port)))
    };
    let by_name = g.sig.outputs.iter().any(|port| named(port).is_some());
    let one = |(i, (port, v)): (usize, (&Port, &Value))| {
        let at = if by_name { named(port) } else { Some(i).filter(|i| *i < f.outputs().len()) };
        at.map(|at| (at, *v))
    };
    g.sig.outputs.iter().zip(g.outputs()).enumerate().filter_map(one).collect()
}

/// A name without what coremltools adds to it.
fn plain(name: &str) -> Option<&str> {
    OF_CASTS.iter().find_map(|end| name.strip_suffix(end))
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
        let pairs = Pairs::named(f, g);
        let name = |v: Value| pairs.of(v).map(|a| f.value(a).hint.to_string());
        let names: Vec<Option<String>> = computed(g).map(name).collect();
        assert_eq!(names, [Some("a".to_owned()), Some("b".to_owned()), None, Some("c".to_owned())]);
    }
}
