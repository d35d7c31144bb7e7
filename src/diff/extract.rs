//! A part of a function as a program of its own: an op with what leads from values that are known to it.

use super::{walk::Walk, weights::Sources};
use mlconv_mil::{
    ir::{Function, Module, OpId, Place, Port, Value},
    ops::{Cast, Const},
};
use mlconv_tensor::{DType, Dims, Shape, Tensor, TensorType};
use std::collections::{HashMap, HashSet};

/// An op of a function, and what leads to it.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// The values that it begins with.
    pub inputs: Vec<Value>,
    /// The ops, in order, constants among them.
    pub ops: Vec<OpId>,
    /// The value that it ends with.
    pub output: Option<Value>,
}

impl Part {
    /// The part that ends with `v` and begins with inputs of the function and with values that the walk has taken from the
    /// first model.
    pub fn ending_with(g: &Function, walk: &Walk, v: Value) -> Self {
        let taken: HashSet<Value> =
            walk.ops.iter().flat_map(|op| op.taken.iter().copied()).filter(|t| *t != v).collect();
        let (mut needed, mut inputs, mut todo) = (HashSet::new(), vec![], vec![v]);
        while let Some(v) = todo.pop() {
            match g.def_op(v).filter(|_| !taken.contains(&v)) {
                Some(id) => {
                    if needed.insert(id) {
                        g.op_data(id).op.visit_operands(&mut |v| todo.push(v));
                    }
                }
                None if inputs.contains(&v) => {}
                None => inputs.push(v),
            }
        }
        inputs.sort();
        Self { inputs, ops: g.ops().filter(|id| needed.contains(id)).collect(), output: Some(v) }
    }

    /// Its ops, constants left out.
    pub fn len(&self, g: &Function) -> usize {
        self.ops.iter().filter(|id| g.op::<Const>(**id).is_none()).count()
    }

    /// A program of it, whose inputs have the shapes and, but in single precision, the types of `given`. In single precision,
    /// for `single`, computes whatever is in half precision, with the constants that `single` has for some of them. `None` where
    /// it has branches or loops.
    pub fn program(&self, g: &Function, given: &[Tensor], single: Option<&Sources<'_>>) -> Option<Module> {
        let dtype = |d: DType| if single.is_some() && d == DType::F16 { DType::F32 } else { d };
        let mut f = Function::new("main", g.opset);
        let mut now: HashMap<Value, Value> = HashMap::new();
        for (v, t) in self.inputs.iter().zip(given) {
            let shape: Dims = t.shape().into();
            let ty = TensorType::new(dtype(t.dtype()), Shape::from(&shape));
            now.insert(*v, f.add_input(Port::new(&*g.value(*v).hint), ty));
        }
        for id in &self.ops {
            let data = g.op_data(*id);
            let mut op = data.op.clone();
            if let Some(c) = g.op::<Const>(*id) {
                let v = data.results.first();
                let exact = single.filter(|_| c.val.dtype() == DType::F16).zip(v).and_then(|(of, v)| of.constant(*v));
                // What is no rounding of it is a fault of its own.
                let is_rounded =
                    |t: &&Tensor| t.shape() == c.val.shape() && t.cast(DType::F16).to_f32() == c.val.to_f32();
                let exact = exact.filter(is_rounded).unwrap_or(&c.val);
                op = Box::new(Const { val: exact.cast(dtype(c.val.dtype())) });
            } else if let Some(c) = g.op::<Cast>(*id) {
                op = Box::new(Cast { x: c.x, dtype: dtype(c.dtype) });
            }
            let (mut missing, mut blocks) = (false, false);
            op.visit_regions(&mut |_| blocks = true);
            op.visit_operands_mut(&mut |v| match now.get(v) {
                Some(new) => *v = *new,
                None => missing = true,
            });
            if missing || blocks {
                return None;
            }
            let hints: Vec<String> = data.results.iter().map(|v| g.value(*v).hint.to_string()).collect();
            let hints: Vec<&str> = hints.iter().map(String::as_str).collect();
            let made = f.insert(Place::End(f.body()), &hints, op, None).ok()?;
            now.extend(data.results.iter().copied().zip(made));
        }
        if let Some(v) = self.output.and_then(|v| now.get(&v)) {
            let name = f.value(*v).hint.clone();
            f.add_output(Port::new(name), *v);
        }
        Some(Module { functions: vec![f], ..Module::default() })
    }
}
