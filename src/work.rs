//! How much a program computes, by its shapes alone: multiplications with additions, elements, and the lengths of sums.

use mlconv_mil::{
    ir::{Block, Function, OpId, Value},
    ops,
    schema::Op,
};
use mlconv_runner::sample_shape;
use mlconv_tensor::{Symbols, Type};
use std::collections::HashMap;

/// What a function computes for inputs of some shapes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Terms of all sums; an element of which no sum is made is one. Blocks are counted once.
    pub terms: f64,
    /// Elements of the largest value, inputs included.
    pub largest: f64,
}

/// The sizes of a function's values.
pub struct Sizes<'a> {
    f: &'a Function,
    symbols: Symbols,
}

impl<'a> Sizes<'a> {
    /// For tensor inputs of `shapes`, in the order of the signature; what they leave open has its default.
    pub fn new(f: &'a Function, symbols: &Symbols, shapes: &[Vec<usize>]) -> Self {
        let mut bound = symbols.clone();
        let inputs = f.inputs().iter().filter_map(|v| f.ty(*v).tensor());
        for (ty, shape) in inputs.zip(shapes) {
            for (d, n) in ty.shape.iter().zip(shape) {
                let (Some(name), Ok(n)) = (d.as_symbol(), i64::try_from(*n)) else { continue };
                let info = bound.get(name).cloned().unwrap_or_default();
                bound.set(name.clone(), mlconv_tensor::SymbolInfo { default: Some(n), ..info });
            }
        }
        Self { f, symbols: bound }
    }

    fn dims(&self, v: Value) -> Vec<f64> {
        match self.f.ty(v) {
            Type::Tensor(t) | Type::List { elem: t, .. } | Type::State(t) => {
                sample_shape(&t.shape, &self.symbols).iter().map(|n| *n as f64).collect()
            }
            Type::Dict { .. } | Type::Unknown => vec![],
        }
    }

    fn count(&self, v: Value) -> f64 {
        self.dims(v).iter().product()
    }

    /// The size of an axis, counted from the end where it is negative.
    fn axis(&self, v: Value, axis: i64) -> f64 {
        let dims = self.dims(v);
        let at = if axis < 0 { axis + dims.len() as i64 } else { axis };
        usize::try_from(at).ok().and_then(|at| dims.get(at).copied()).unwrap_or(1.0)
    }

    /// The terms of each sum that an op makes; 1 where it makes none.
    pub fn terms(&self, id: OpId) -> f64 {
        let f = self.f;
        let first = |op: &dyn Op| {
            let mut first = None;
            op.visit_operands(&mut |v| first = first.or(Some(v)));
            first
        };
        let results = &f.op_data(id).results;
        let out = results.first().map_or(1.0, |v| self.count(*v)).max(1.0);
        let terms = if let Some(op) = f.op::<ops::Linear>(id) {
            self.axis(op.x, -1)
        } else if let Some(op) = f.op::<ops::Matmul>(id) {
            self.axis(op.x, if op.transpose_x { -2 } else { -1 })
        } else if let Some(op) = f.op::<ops::Conv>(id) {
            self.count(op.weight) / self.axis(op.weight, 0).max(1.0)
        } else if let Some(op) = f.op::<ops::ConvTranspose>(id) {
            self.count(op.weight) * self.count(op.x) / (self.axis(op.x, 1) * out).max(1.0)
        } else if let Some(op) = f.op::<ops::ScaledDotProductAttention>(id) {
            self.axis(op.query, -1) + self.axis(op.key, -2)
        } else if let Some(op) = f.op::<ops::Softmax>(id) {
            self.axis(op.x, op.axis)
        } else if let Some(op) = f.op::<ops::Cumsum>(id) {
            self.axis(op.x, op.axis)
        } else {
            let data = f.op_data(id);
            let x = first(&*data.op).map_or(1.0, |v| self.count(v));
            match data.op.name() {
                "lstm" | "gru" | "rnn" => first(&*data.op).map_or(1.0, |v| self.axis(v, 0)) * self.recurrent(id),
                "einsum" => first(&*data.op).map_or(1.0, |v| self.axis(v, -1)),
                "layer_norm" | "instance_norm" | "l2_norm" => first(&*data.op).map_or(1.0, |v| self.normed(v)),
                name if name.starts_with("reduce_") || name.ends_with("_pool") => x / out,
                _ => 1.0,
            }
        };
        terms.max(1.0)
    }

    /// Elements of what is normed together, at most: all but the first axis, and at least the last.
    fn normed(&self, v: Value) -> f64 {
        self.axis(v, -1).max(self.count(v) / (self.axis(v, 0) * self.axis(v, 1)).max(1.0))
    }

    /// The terms of a step of a recurrence: the features of its weights.
    fn recurrent(&self, id: OpId) -> f64 {
        let mut most = 1f64;
        self.f.op_data(id).op.visit_operands(&mut |v| {
            if self.f.constant(v).is_some() {
                most = most.max(self.axis(v, -1));
            }
        });
        most
    }

    /// What the whole function computes.
    pub fn work(&self) -> Work {
        let inputs = self.f.inputs().iter().map(|v| self.count(*v));
        let mut work = Work { largest: inputs.fold(0.0, f64::max), ..Work::default() };
        for id in self.f.all_ops() {
            let results = &self.f.op_data(id).results;
            if results.first().is_some_and(|v| self.f.constant(*v).is_some()) {
                continue;
            }
            let terms = self.terms(id);
            for v in results {
                let count = self.count(*v);
                work.terms += count * terms;
                work.largest = work.largest.max(count);
            }
        }
        work
    }

    /// The terms of sums on the longest way from an input to an output. A loop is gone through once.
    pub fn longest_chain(&self) -> f64 {
        let mut depths = HashMap::new();
        self.deepen(self.f.body(), &mut depths);
        self.f.outputs().iter().filter_map(|v| depths.get(v)).copied().fold(0.0, f64::max)
    }

    fn deepen(&self, block: Block, depths: &mut HashMap<Value, f64>) {
        let f = self.f;
        for id in f.ops_in(block) {
            let data = f.op_data(id);
            let mut before = 0f64;
            data.op.visit_operands(&mut |v| before = before.max(depths.get(&v).copied().unwrap_or(0.0)));
            let mut blocks = vec![];
            data.op.visit_regions(&mut |b| blocks.push(b));
            let nested = !blocks.is_empty();
            for b in blocks {
                for arg in &f.block(b).args {
                    depths.insert(*arg, before);
                }
                self.deepen(b, depths);
                let yielded = f.yields(b).iter().filter_map(|v| depths.get(v)).copied();
                before = yielded.fold(before, f64::max);
            }
            // What a constant holds was rounded once and for all.
            let is_constant = data.results.first().is_some_and(|v| f.constant(*v).is_some());
            let own = if nested || is_constant { 0.0 } else { self.terms(id) };
            for v in &data.results {
                depths.insert(*v, before + own);
            }
        }
    }
}

/// The longest chain of any function of a module, for inputs of default sizes.
pub fn longest_chain(module: &mlconv_mil::ir::Module) -> f64 {
    let of = |f: &Function| Sizes::new(f, &module.symbols, &[]).longest_chain();
    module.functions.iter().map(of).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::text::parse;

    #[test]
    fn sums_are_counted_along_the_longest_way() {
        let text = "func @main(%x: f32[n, 8], %k: f32[8, 4]) ios17 {\n  %y = matmul(x=%x, y=%k)\n  %z = relu(x=%y)\n  \
                    %s = reduce_sum(x=%z, axes=[1], keep_dims=false)\n  return %s, %z\n}\n";
        let module = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let sizes = Sizes::new(&module.functions[0], &module.symbols, &[vec![5, 8]]);
        // 8 terms, an element, and a sum of 4.
        assert_eq!(sizes.longest_chain(), 13.0);
        assert_eq!(sizes.work(), Work { terms: 20.0 * 8.0 + 20.0 + 5.0 * 4.0, largest: 40.0 });
        assert_eq!(longest_chain(&module), 13.0);
    }
}
