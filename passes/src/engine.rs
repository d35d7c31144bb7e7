//! Rules: typed, static, and free of side effects.

use crate::pipeline::{PassCx, PassError};
use mlconv_mil::{
    ir::{Function, OpData, OpId, Place, Use, Value},
    ops::Const,
    schema::{Effect, Op, Opset},
};
use mlconv_tensor::{Dim, Shape, Tensor, Type};
use smallvec::SmallVec;
use std::{cell::RefCell, marker::PhantomData, mem};

/// What a rule wants done: ops to be made, and what stands for the results of the op at the root then.
#[derive(Debug)]
pub struct Edit {
    made: Vec<Draft>,
    /// Values of the function, or provisional ones of `made`; one for each result of the root.
    results: SmallVec<[Value; 1]>,
    /// Values that go with the root, as far as nobody reads them then.
    gone: Vec<Value>,
}

/// An op to be made, and how many results it has.
#[derive(Debug)]
struct Draft {
    op: Box<dyn Op>,
    results: usize,
    /// The value that the result is called like, where it stands for none of the root's.
    like: Option<Value>,
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
        Some((self.0)(f.op::<T>(root)?, &Matcher::new(f, root)))
    }
}

/// A rule about ops of type `T`, of which it asks nothing itself.
pub struct Of<T: 'static>(pub fn(&Matcher<'_>) -> Fit, pub PhantomData<fn(&T)>);

impl<T: Op> Rule for Of<T> {
    fn fit(&self, f: &Function, root: OpId) -> Option<Fit> {
        f.op::<T>(root)?;
        Some((self.0)(&Matcher::new(f, root)))
    }
}

/// A rule and what it is called.
pub struct Named {
    /// In snake case.
    pub name: &'static str,
    /// The rule.
    pub rule: &'static dyn Rule,
}

/// Functions as rules that bear their names. `name: Op => function` is one of several that share a function.
macro_rules! rules {
    (@ $name:ident) => { &$crate::For($name) };
    (@ $name:ident, $op:ty, $function:expr) => { &$crate::Of::<$op>($function, std::marker::PhantomData) };
    ($($name:ident $(: $op:ty => $function:expr)?),* $(,)?) => {
        &[$($crate::Named { name: stringify!($name), rule: $crate::rules!(@ $name $(, $op, $function)?) }),*]
    };
}
pub(crate) use rules;

/// The read-only view that a rule matches in.
#[derive(Debug)]
pub struct Matcher<'f> {
    /// The function.
    pub f: &'f Function,
    root: OpId,
    made: RefCell<Vec<Draft>>,
    gone: RefCell<Vec<Value>>,
}

impl<'f> Matcher<'f> {
    fn new(f: &'f Function, root: OpId) -> Self {
        Self { f, root, made: RefCell::default(), gone: RefCell::default() }
    }

    /// The op at the root.
    pub fn root(&self) -> OpId {
        self.root
    }

    /// The op set.
    pub fn opset(&self) -> Opset {
        self.f.opset
    }

    /// The first result of the op at the root.
    pub fn result(&self) -> Option<Value> {
        self.f.op_data(self.root).results.first().copied()
    }

    /// The op that computes `v`, if it is a `T`.
    pub fn def<T: Op>(&self, v: Value) -> Result<&'f T, Miss> {
        self.f.def(v).ok_or(Miss::No)
    }

    /// As [`Matcher::def`], of a value that is read in one place only, so that its op goes when the reader does.
    pub fn sole<T: Op>(&self, v: Value) -> Result<&'f T, Miss> {
        let op = self.def(v)?;
        self.require(self.f.uses(v).len() == 1, "a value in between is read elsewhere")?;
        Ok(op)
    }

    /// The constant that `v` is.
    pub fn constant(&self, v: Value) -> Result<&'f Tensor, Miss> {
        self.f.constant(v).ok_or(Miss::No)
    }

    /// Whether `v` is a constant.
    pub fn is_constant(&self, v: Value) -> bool {
        self.f.constant(v).is_some()
    }

    /// The number that every element of the constant `v` is.
    pub fn uniform(&self, v: Value) -> Result<f64, Miss> {
        uniform(self.f, v).ok_or(Miss::No)
    }

    /// Goes on where every element of the constant `v` is `x`, as far as half precision tells.
    pub fn is(&self, v: Value, x: f64) -> Result<(), Miss> {
        if near(self.uniform(v)?, x) { Ok(()) } else { Err(Miss::No) }
    }

    /// What fits of both orders of two operands.
    pub fn either<T>(&self, a: Value, b: Value, f: impl Fn(Value, Value) -> Result<T, Miss>) -> Result<T, Miss> {
        match self.attempt(|| f(a, b)) {
            Ok(t) => Ok(t),
            // A reason of either order is a reason; what is about neither is none.
            Err(first) => self.attempt(|| f(b, a)).map_err(|second| if first == Miss::No { second } else { first }),
        }
    }

    /// What `f` makes; where it misses, nothing of what it made stays.
    pub fn attempt<T>(&self, f: impl FnOnce() -> Result<T, Miss>) -> Result<T, Miss> {
        let before = self.made.borrow().len();
        let tried = f();
        if tried.is_err() {
            self.made.borrow_mut().truncate(before);
        }
        tried
    }

    /// The type of `v`.
    pub fn ty(&self, v: Value) -> &'f Type {
        self.f.ty(v)
    }

    /// The number of axes of `v`.
    pub fn rank(&self, v: Value) -> Result<usize, Miss> {
        Ok(self.shape(v)?.rank())
    }

    /// The sizes of `v`, where all are numbers.
    pub fn sizes(&self, v: Value) -> Result<Vec<usize>, Miss> {
        Ok(self.shape(v)?.known().ok_or(Miss::No)?.to_vec())
    }

    /// Whether two values have one type.
    pub fn alike(&self, a: Value, b: Value) -> bool {
        self.ty(a) == self.ty(b)
    }

    /// Goes on only where `holds`.
    pub fn require(&self, holds: bool, why: &'static str) -> Result<(), Miss> {
        if holds { Ok(()) } else { Err(Miss::Because(why)) }
    }

    /// The result of an op that is made where the root stands.
    pub fn make(&self, op: impl Op) -> Value {
        self.make_several(op, 1)[0]
    }

    /// The results of an op that has so many.
    pub fn make_several(&self, op: impl Op, results: usize) -> Vec<Value> {
        self.make_boxed(Box::new(op), results)
    }

    /// A constant that is made where the root stands.
    pub fn make_constant(&self, val: Tensor) -> Value {
        self.make(Const { val })
    }

    /// A constant that is called like another one, such as the weight that it takes the place of.
    pub fn make_constant_like(&self, like: Value, val: Tensor) -> Value {
        let v = self.make_constant(val);
        if let Some(draft) = self.made.borrow_mut().last_mut() {
            draft.like = Some(like);
        }
        v
    }

    /// Whoever reads the root reads `v` instead.
    pub fn alias(&self, v: Value) -> Edit {
        self.alias_all([v])
    }

    /// Whoever reads the results of the root reads these values instead.
    pub fn alias_all(&self, results: impl IntoIterator<Item = Value>) -> Edit {
        let (made, gone) = (mem::take(&mut *self.made.borrow_mut()), mem::take(&mut *self.gone.borrow_mut()));
        Edit { made, results: results.into_iter().collect(), gone }
    }

    /// `op` takes the place of the root.
    pub fn replace(&self, op: impl Op) -> Edit {
        let v = self.make(op);
        self.alias(v)
    }

    /// The results of an op whose type only the program knows.
    pub fn make_boxed(&self, op: Box<dyn Op>, results: usize) -> Vec<Value> {
        let mut made = self.made.borrow_mut();
        // Numbers that no value of the function has.
        let first = self.f.value_slots() + made.iter().map(|d| d.results).sum::<usize>();
        made.push(Draft { op, results, like: None });
        (first..first + results).map(Value::new).collect()
    }

    /// The integers of a constant, or those that follow without one.
    pub fn ints(&self, v: Value) -> Result<Vec<i64>, Miss> {
        let ints = self.f.value(v).fact.ints.as_deref().ok_or(Miss::No)?;
        ints.iter().map(Dim::as_known).collect::<Option<_>>().ok_or(Miss::No)
    }

    /// The shape of `v`.
    pub fn shape(&self, v: Value) -> Result<&'f Shape, Miss> {
        Ok(&self.ty(v).tensor().ok_or(Miss::No)?.shape)
    }

    /// Goes on where nobody but the root and each other reads `values`, so that all of them go when the root does.
    pub fn closed(&self, values: impl IntoIterator<Item = Value>) -> Result<(), Miss> {
        let result = self.result();
        let values: Vec<Value> = values.into_iter().filter(|v| Some(*v) != result).collect();
        let within = |u: &Use| match u {
            Use::Op(id) => *id == self.root || self.f.op_data(*id).results.iter().all(|r| values.contains(r)),
            Use::Yield(_) => false,
        };
        let all = values.iter().all(|v| self.f.uses(*v).iter().all(within));
        self.require(all, "a value in between is read elsewhere")?;
        self.gone.borrow_mut().extend(values);
        Ok(())
    }
}

/// Elements of a constant up to which it is looked at whether all are the same.
const MAX_UNIFORM: usize = 1 << 16;

/// The number that every element of the constant `v` is.
pub(crate) fn uniform(f: &Function, v: Value) -> Option<f64> {
    let t = f.constant(v).filter(|t| (1..=MAX_UNIFORM).contains(&t.count()))?;
    // Most constants that are not uniform are known by their ends.
    if t.view::<f32>().is_some_and(|x| x.first() != x.last()) {
        return None;
    }
    let values = t.to_f64();
    values.iter().all(|x| *x == values[0]).then(|| values[0])
}

/// Whether two numbers are one, as far as half precision tells.
pub(crate) fn near(x: f64, want: f64) -> bool {
    x == want || (x - want).abs() <= 1e-3 * want.abs()
}

/// Applies `rules` to every op, once, in order.
pub(crate) fn rewrite(cx: &mut PassCx<'_>, rules: &[Named]) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        for id in cx.module.functions[index].all_ops() {
            for Named { name, rule } in rules {
                let f = &cx.module.functions[index];
                if !f.is_live(id) || !cx.may_edit() {
                    break;
                }
                match rule.fit(f, id) {
                    None | Some(Err(Miss::No)) => {}
                    Some(Err(Miss::Because(why))) => cx.skipped(index, id, name, why),
                    Some(Ok(edit)) if is_kept(cx, index, id, &edit) => {
                        cx.skipped(index, id, name, "an op of it is to stay as it is");
                    }
                    Some(Ok(edit)) => apply(cx, index, id, name, edit)?,
                }
            }
        }
    }
    Ok(())
}

/// Whether an edit that changes the precision would take an op that a user wants in single precision.
fn is_kept(cx: &PassCx<'_>, index: usize, id: OpId, edit: &Edit) -> bool {
    let keep = &cx.options.keep_fp32;
    if keep.is_empty() || !crate::by_name(cx.pass).is_some_and(|p| p.changes_precision) {
        return false;
    }
    let f = &cx.module.functions[index];
    let mut ops = edit.gone.iter().filter_map(|v| f.def_op(*v)).chain([id]);
    ops.any(|id| keep.iter().any(|p| p.matches(cx.module, f, id)))
}

fn apply(cx: &mut PassCx<'_>, index: usize, id: OpId, rule: &str, edit: Edit) -> Result<(), PassError> {
    let data = cx.module.functions[index].op_data(id).clone();
    let pass = cx.pass;
    let fail = |why: String| PassError { pass, why: format!("rule `{rule}`: {why}") };
    if edit.results.len() != data.results.len() {
        return Err(fail(format!("{} values for {} results", edit.results.len(), data.results.len())));
    }
    let f = &cx.module.functions[index];
    let slots = f.value_slots();
    // An output keeps its own value: its name is the interface's.
    let is_output = |v: Value| f.uses(v).contains(&Use::Yield(f.body()));
    let clashes = |(old, new): (&Value, &Value)| {
        is_output(*old) && new.index() < slots && (is_output(*new) || f.def_op(*new).is_none())
    };
    if data.results.iter().zip(&edit.results).any(clashes) {
        cx.skipped(index, id, rule, "an output is neither an input nor another output");
        return Ok(());
    }
    cx.fired(index, id, rule);
    let origin = data.origin.map(|o| cx.module.origins.rewritten(cx.pass, [o]));
    let f = &mut cx.module.functions[index];
    let mut real: Vec<Value> = vec![];
    for Draft { mut op, results, like } in edit.made {
        op.visit_operands_mut(&mut |v| {
            if let Some(at) = v.index().checked_sub(slots) {
                *v = real[at];
            }
        });
        // What stands for a result is called like it.
        let hints: Vec<String> = (real.len()..real.len() + results)
            .map(|at| {
                let stands_for = edit.results.iter().position(|v| v.index() == slots + at);
                let hint = |v: &Value| f.value(*v).hint.to_string();
                let own = || match like.filter(|v| v.index() < slots) {
                    Some(like) => hint(&like),
                    None => format!("{}_{}", data.results.first().map(hint).unwrap_or_default(), op.name()),
                };
                stands_for.map_or_else(own, |at| hint(&data.results[at]))
            })
            .collect();
        let hints: Vec<&str> = hints.iter().map(String::as_str).collect();
        let made = f.insert(Place::Before(id), &hints, op, origin).map_err(|e| fail(e.to_string()))?;
        if made.len() != results {
            return Err(fail(format!("an op has {} results instead of {results}", made.len())));
        }
        real.extend(made);
    }
    let new: SmallVec<[Value; 1]> =
        edit.results.iter().map(|v| v.index().checked_sub(slots).map_or(*v, |at| real[at])).collect();
    for (old, new) in data.results.iter().zip(&new) {
        if f.ty(*old) != f.ty(*new) {
            let (was, is) = (f.ty(*old), f.ty(*new));
            return Err(fail(format!("an edit of `{}` changes {was} to {is}", data.op.name())));
        }
    }
    for (old, new) in data.results.iter().zip(&new) {
        f.replace_uses(*old, *new);
    }
    f.remove(id);
    sweep(f, edit.gone);
    cx.edited();
    Ok(())
}

/// Removes the ops of values that nobody reads any more, so that they count as readers of others no longer.
fn sweep(f: &mut Function, mut values: Vec<Value>) {
    loop {
        let before = values.len();
        values.retain(|v| {
            let Some(id) = Some(*v).filter(|v| f.has_value(*v)).and_then(|v| f.def_op(v)) else { return false };
            let OpData { op, results, .. } = f.op_data(id);
            if op.schema().effect != Effect::None || results.iter().any(|r| !f.uses(*r).is_empty()) {
                return true;
            }
            f.remove(id);
            false
        });
        if values.len() == before {
            break;
        }
    }
}
