//! Rules: typed, static, and free of side effects.

use crate::pipeline::{PassCx, PassError};
use mlconv_mil::{
    ir::{Function, OpId, Place, Use, Value},
    schema::Op,
};
use mlconv_tensor::{Tensor, Type};

/// What a rule wants done.
#[derive(Debug)]
pub enum Edit {
    /// Whoever reads the op's result reads this value instead.
    Alias(Value),
    /// Another op takes the op's place.
    Replace(Box<dyn Op>),
}

/// Why a rule did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The op is not what the rule is about.
    No,
    /// It nearly is; the reason is something that a user may ask for.
    Because(&'static str),
}

/// What a rule returns; `?` leaves it early.
pub type Fit = Result<Edit, Miss>;

/// A rewrite rooted at one op.
pub trait Rule: Sync {
    /// What to do with the op `id`; `None` where the rule is about another op.
    fn fit(&self, f: &Function, id: OpId) -> Option<Fit>;
}

/// A rule about ops of type `T`.
pub struct For<T: 'static>(pub fn(&T, &Matcher<'_>) -> Fit);

impl<T: Op> Rule for For<T> {
    fn fit(&self, f: &Function, root: OpId) -> Option<Fit> {
        Some((self.0)(f.op::<T>(root)?, &Matcher { f, root }))
    }
}

/// The read-only view that a rule matches in.
#[derive(Clone, Copy, Debug)]
pub struct Matcher<'f> {
    /// The function.
    pub f: &'f Function,
    root: OpId,
}

impl<'f> Matcher<'f> {
    /// The first result of the op at the root.
    pub fn result(&self) -> Option<Value> {
        self.f.op_data(self.root).results.first().copied()
    }

    /// The op that computes `v`, if it is a `T`.
    pub fn def<T: Op>(&self, v: Value) -> Result<&'f T, Miss> {
        self.f.def(v).ok_or(Miss::No)
    }

    /// The constant that `v` is.
    pub fn constant(&self, v: Value) -> Result<&'f Tensor, Miss> {
        self.f.constant(v).ok_or(Miss::No)
    }

    /// The type of `v`.
    pub fn ty(&self, v: Value) -> &'f Type {
        self.f.ty(v)
    }

    /// Goes on only where `holds`.
    pub fn require(&self, holds: bool, why: &'static str) -> Result<(), Miss> {
        if holds { Ok(()) } else { Err(Miss::Because(why)) }
    }

    /// Whoever reads the root reads `v` instead.
    pub fn alias(&self, v: Value) -> Edit {
        Edit::Alias(v)
    }

    /// `op` takes the place of the root.
    pub fn replace(&self, op: impl Op) -> Edit {
        Edit::Replace(Box::new(op))
    }
}

/// Applies `rules` to every op, once, in order.
pub(crate) fn rewrite(cx: &mut PassCx<'_>, rules: &[&dyn Rule]) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        for id in cx.module.functions[index].all_ops() {
            for rule in rules {
                let f = &cx.module.functions[index];
                if !f.is_live(id) {
                    break;
                }
                match rule.fit(f, id) {
                    None | Some(Err(Miss::No)) => {}
                    Some(Err(Miss::Because(why))) => cx.skipped(index, id, why),
                    Some(Ok(edit)) => apply(cx, index, id, edit)?,
                }
            }
        }
    }
    Ok(())
}

fn apply(cx: &mut PassCx<'_>, index: usize, id: OpId, edit: Edit) -> Result<(), PassError> {
    let data = cx.module.functions[index].op_data(id).clone();
    let [old] = data.results.as_slice() else { return Ok(()) };
    let new = match edit {
        Edit::Alias(v) => {
            // An output keeps its own value: its name is the interface's.
            let f = &cx.module.functions[index];
            let is_output = |v: Value| f.uses(v).contains(&Use::Yield(f.body()));
            if is_output(*old) && (is_output(v) || f.def_op(v).is_none()) {
                cx.skipped(index, id, "an output is neither an input nor another output");
                return Ok(());
            }
            v
        }
        Edit::Replace(op) => {
            let origin = data.origin.map(|o| cx.module.origins.rewritten(cx.pass, [o]));
            let f = &mut cx.module.functions[index];
            let hint = f.value(*old).hint.clone();
            let new = f.insert(Place::Before(id), &[&hint], op, origin).map_err(|e| PassError::new(cx.pass, &e))?;
            match new.as_slice() {
                [v] => *v,
                _ => return Err(PassError::new(cx.pass, &"an edit has one result")),
            }
        }
    };
    let f = &mut cx.module.functions[index];
    if f.ty(*old) != f.ty(new) {
        let why = format!("an edit of `{}` changes {} to {}", data.op.name(), f.ty(*old), f.ty(new));
        return Err(PassError::new(cx.pass, &why));
    }
    f.replace_uses(*old, new);
    f.remove(id);
    cx.applied += 1;
    Ok(())
}
