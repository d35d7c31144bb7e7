//! Puts ops where a plan wants them.

use super::{
    moved::{Perm, Role, inverse},
    plan::{Node, Plan},
};
use crate::{PassCx, PassError};
use mlconv_mil::{
    ir::{Function, InsertError, OpId, OriginId, Place, Value},
    ops::{Const, Transpose},
    schema::Op,
};
use std::collections::HashMap;

/// Carries out the parts of `plan` that pay.
pub(super) fn commit(cx: &mut PassCx<'_>, index: usize, plan: &Plan) -> Result<(), PassError> {
    let pass = cx.pass;
    let (mut before, mut back) = (HashMap::new(), HashMap::new());
    // Operands change on the way: what each lacks is what the plan says of it.
    let operands: Vec<Vec<Option<Perm>>> =
        plan.order.iter().map(|id| lacking(&cx.module.functions[index], plan, *id)).collect();
    let mut done = vec![];
    for (id, lacking) in plan.order.iter().zip(&operands) {
        let Some(node) = plan.node(*id) else { continue };
        cx.fired(index, *id, "");
        let origin = cx.module.functions[index].op_data(*id).origin;
        let origin = origin.map(|o| cx.module.origins.rewritten(pass, [o]));
        let f = &mut cx.module.functions[index];
        let mut commit = Commit { f, plan, id: *id, origin, before: &mut before, back: &mut back };
        commit.node(node, lacking).map_err(|e| PassError::new(pass, &e))?;
        done.push(*id);
        cx.edited();
    }
    let f = &mut cx.module.functions[index];
    for id in done.into_iter().rev() {
        if f.op_data(id).results.iter().all(|v| f.uses(*v).is_empty()) {
            f.remove(id);
        }
    }
    Ok(())
}

/// What each operand of `id` lacks.
fn lacking(f: &Function, plan: &Plan, id: OpId) -> Vec<Option<Perm>> {
    let mut lacking = vec![];
    f.op_data(id).op.visit_operands(&mut |v| lacking.push(plan.lacks(f, v).cloned()));
    lacking
}

struct Commit<'a> {
    f: &'a mut Function,
    plan: &'a Plan,
    id: OpId,
    origin: Option<OriginId>,
    /// For a value behind a transpose, that before it.
    before: &'a mut HashMap<Value, Value>,
    /// Values that were transposed back.
    back: &'a mut HashMap<(Value, Perm), Value>,
}

impl Commit<'_> {
    fn node(&mut self, node: &Node, lacking: &[Option<Perm>]) -> Result<(), InsertError> {
        let results = self.f.op_data(self.id).results.clone();
        let mut operands = vec![];
        self.f.op_data(self.id).op.visit_operands(&mut |v| operands.push(v));
        match node {
            Node::Source => {
                self.before.insert(results[0], operands[0]);
            }
            Node::Sink => {
                let v = self.before.get(&operands[0]).copied().unwrap_or(operands[0]);
                if self.f.outputs().contains(&results[0]) {
                    let hint = self.f.value(results[0]).hint.clone();
                    self.f.set_hint(v, &hint);
                }
                self.f.replace_uses(results[0], v);
            }
            Node::Moved(moved) => {
                let perm = lacking.iter().flatten().next().cloned().unwrap_or_default();
                let mut read = vec![];
                for ((v, role), lacks) in operands.into_iter().zip(&moved.roles).zip(lacking) {
                    read.push(match (role, lacks) {
                        (Role::Same, _) => v,
                        (Role::New(t), _) => {
                            self.insert(Place::Before(self.id), v, Box::new(Const { val: t.clone() }))?
                        }
                        (Role::Permuted, Some(_)) => self.before.get(&v).copied().unwrap_or(v),
                        (Role::Permuted, None) => self.transposed_back(v, &perm)?,
                    });
                }
                let (mut op, mut read) = (moved.op.clone(), read.into_iter());
                op.visit_operands_mut(&mut |v| *v = read.next().unwrap_or(*v));
                let hints: Vec<String> = results.iter().map(|v| self.f.value(*v).hint.to_string()).collect();
                let hints: Vec<&str> = hints.iter().map(String::as_str).collect();
                let made = self.f.insert(Place::Before(self.id), &hints, op, self.origin)?;
                for ((old, new), perm) in results.iter().zip(made).zip(&moved.results) {
                    self.stand_in(*old, new, perm)?;
                }
            }
        }
        Ok(())
    }

    /// Lets `new` stand for `old`, which is its transpose.
    fn stand_in(&mut self, old: Value, new: Value, perm: &[usize]) -> Result<(), InsertError> {
        if perm.iter().enumerate().all(|(i, p)| i == *p) {
            self.f.replace_uses(old, new);
            return Ok(());
        }
        self.before.insert(old, new);
        if self.plan.is_read_plain(old) {
            let perm = perm.iter().map(|p| *p as i64).collect();
            let plain = self.insert(Place::Before(self.id), old, Box::new(Transpose { x: new, perm }))?;
            self.f.replace_uses(old, plain);
            self.before.insert(plain, new);
        }
        Ok(())
    }

    /// What `v` is the transpose of.
    fn transposed_back(&mut self, v: Value, perm: &Perm) -> Result<Value, InsertError> {
        let key = (v, perm.clone());
        if let Some(made) = self.back.get(&key) {
            return Ok(*made);
        }
        let made = self.insert(self.f.behind(v), v, Box::new(inverse(v, perm)))?;
        self.back.insert(key, made);
        Ok(made)
    }

    /// The result of an op that is called like `like`.
    fn insert(&mut self, place: Place, like: Value, op: Box<dyn Op>) -> Result<Value, InsertError> {
        let hint = self.f.value(like).hint.clone();
        Ok(self.f.insert(place, &[&hint], op, self.origin)?[0])
    }
}
