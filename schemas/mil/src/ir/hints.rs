//! One name for each value of a program that was just made.

use super::{Function, Use, Value};
use crate::ops::Const;
use std::collections::{HashMap, HashSet};

impl Function {
    /// Gives each value that an op computes a hint of its own, so that whatever rewrites the program, a value can be found in what it was.
    ///
    /// Of those that bear the name of one node of the source, the last one is its result and keeps it. What is computed on
    /// the way to it is called by its op as well, as in `attention_softmax`, and a constant by what it is for, as in
    /// `view_shape`.
    pub fn settle_hints(&mut self) {
        let mut taken: HashSet<String> = HashSet::new();
        let mut bearers: HashMap<String, Vec<Value>> = HashMap::new();
        let mut order: Vec<String> = vec![];
        let mut add = |f: &Self, v: Value, bearers: &mut HashMap<String, Vec<Value>>| {
            let hint = f.value(v).hint.to_string();
            if taken.insert(hint.clone()) {
                order.push(hint.clone());
            }
            bearers.entry(hint).or_default().push(v);
        };
        for id in self.all_ops() {
            let data = self.op_data(id);
            data.op.visit_regions(&mut |b| self.block(b).args.iter().for_each(|v| add(self, *v, &mut bearers)));
            data.results.iter().for_each(|v| add(self, *v, &mut bearers));
        }
        for hint in order {
            let Some(values) = bearers.get(&hint).filter(|values| values.len() > 1) else { continue };
            let result = values.iter().rposition(|v| self.constant(*v).is_none()).unwrap_or(values.len() - 1);
            for (_, v) in values.iter().enumerate().filter(|(at, _)| *at != result) {
                let named = format!("{hint}_{}", self.part(*v));
                let unique = (1..).map(|n| if n == 1 { named.clone() } else { format!("{named}_{n}") });
                let unique = unique.into_iter().find(|name| !taken.contains(name)).unwrap_or(named);
                taken.insert(unique.clone());
                self.set_hint(*v, &unique);
            }
        }
    }

    /// What a value is beside others of its name: its op, or for a constant, the parameter that it is for.
    fn part(&self, v: Value) -> String {
        let Some(id) = self.def_op(v) else { return "in".to_owned() };
        if self.op::<Const>(id).is_none() {
            return self.op_data(id).op.name().to_owned();
        }
        let reader = self.uses(v).iter().find_map(|used| match used {
            Use::Op(id) => Some(*id),
            Use::Yield(_) => None,
        });
        let args = reader.map(|id| self.op_data(id).op.args()).unwrap_or_default();
        let name = args.iter().find(|arg| arg.operands().contains(&v)).map(|arg| arg.name.to_owned());
        name.unwrap_or_else(|| "const".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::text::parse;

    #[test]
    fn the_result_of_a_node_keeps_its_name() {
        let text = "func @main(%x: f32[2, 3]) ios17 {\n  %a = const(val=i32[1] [6])\n  %b = relu(x=%x)\n  %c = relu(x=%b)\n  %d = reshape(x=%c, shape=%a)\n  return %d\n}\n";
        let mut module = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let f = &mut module.functions[0];
        let values: Vec<_> = f.ops().flat_map(|id| f.op_data(id).results.to_vec()).collect();
        values.iter().for_each(|v| f.set_hint(*v, "n"));
        f.settle_hints();
        let hints: Vec<&str> = values.iter().map(|v| &*f.value(*v).hint).collect();
        assert_eq!(hints, ["n_shape", "n_relu", "n_relu_2", "n"]);
        f.settle_hints();
        assert_eq!(&*f.value(values[3]).hint, "n");
    }
}
