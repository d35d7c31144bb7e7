//! One name for each value of a program that was just made.

use super::{Function, Value};
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
        let (parts, mut next): (HashMap<Value, String>, HashMap<String, usize>) = (self.parts(), HashMap::new());
        for hint in order {
            let Some(values) = bearers.get(&hint).filter(|values| values.len() > 1) else { continue };
            let result = values.iter().rposition(|v| self.constant(*v).is_none()).unwrap_or(values.len() - 1);
            for (_, v) in values.iter().enumerate().filter(|(at, _)| *at != result) {
                let part = parts.get(v).map_or("in", String::as_str);
                let named = format!("{hint}_{part}");
                // From where the last one of the name has stopped: there may be many.
                let count = next.entry(named.clone()).or_insert(0);
                let unique = loop {
                    *count += 1;
                    let name = if *count == 1 { named.clone() } else { format!("{named}_{count}") };
                    if taken.insert(name.clone()) {
                        break name;
                    }
                };
                self.set_hint(*v, &unique);
            }
        }
    }

    /// What values are beside others of their names: their op, or for a constant, the parameter that it is for.
    fn parts(&self) -> HashMap<Value, String> {
        let mut out: HashMap<Value, String> = HashMap::new();
        for id in self.all_ops() {
            let data = self.op_data(id);
            if self.op::<Const>(id).is_none() {
                data.results.iter().for_each(|v| drop(out.insert(*v, data.op.name().to_owned())));
            }
            for arg in data.op.args() {
                for v in arg.operands().iter().filter(|v| self.constant(**v).is_some()) {
                    out.entry(*v).or_insert_with(|| arg.name.to_owned());
                }
            }
        }
        for v in self.all_ops().into_iter().flat_map(|id| self.op_data(id).results.to_vec()) {
            out.entry(v).or_insert_with(|| "const".to_owned());
        }
        out
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
