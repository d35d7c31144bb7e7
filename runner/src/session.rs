//! One run of one function: inputs bound and checked, states carried, outputs collected.

use crate::exec::{Backend, Exec, Observer, OpFailure};
use indexmap::IndexMap;
use mlconv_mil::{
    ir::{Function, OpId, Value},
    schema::{OpError, Tensors},
    text::print_op,
    verify::Verified,
};
use mlconv_tensor::{DType, Dims, Shape, Symbols, Tensor, TensorType, Type};
use std::{collections::HashMap, sync::Arc};

/// The content of states, by name, carried from run to run.
pub type States = IndexMap<Arc<str>, Tensor>;

/// Why a function could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// An input was not given.
    #[error("input `{name}` is missing, wanted {want}")]
    Missing {
        /// The input.
        name: Arc<str>,
        /// Its type.
        want: TensorType,
    },
    /// An input or state does not fit its declaration.
    #[error("`{name}` is {found}, wanted {want}")]
    Input {
        /// The input or state.
        name: Arc<str>,
        /// What was given.
        found: TensorType,
        /// What is declared, with what is known of its sizes.
        want: String,
    },
    /// A state, or an input with a default, is declared too large to be made.
    #[error("`{name}` is {ty}, more than memory holds")]
    TooLarge {
        /// The input or state.
        name: Arc<str>,
        /// Its type.
        ty: TensorType,
    },
    /// An op could not be computed.
    #[error("{why}")]
    Op {
        /// The op as text.
        op: String,
        /// Where it comes from, in the source model.
        origin: Vec<String>,
        /// What is wrong.
        why: OpError,
    },
}

/// Arithmetic to imitate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulate {
    /// Every value is rounded to half precision, but for those that a program which computes in half precision keeps in single
    /// precision.
    F16,
}

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Arithmetic to imitate; `None` keeps the types of the program.
    pub emulate: Option<Emulate>,
    /// Whether sums whose results are in half precision are accumulated in it: those of products of matrices, of
    /// convolutions, reductions, softmax and layer norm, one term after the other.
    pub half_sums: bool,
}

/// Elements of a state that is not given: a program may declare any shape.
const MAX_FILLED: usize = 1 << 30;

/// A function of a module, ready to run on a backend.
pub struct Session<'a> {
    module: &'a Verified,
    f: &'a Function,
    backend: &'a dyn Backend,
    options: Options,
    constants: Option<&'a HashMap<Value, Tensor>>,
}

impl<'a> Session<'a> {
    /// The function must be one of the module's.
    pub fn new(module: &'a Verified, f: &'a Function, backend: &'a dyn Backend, options: Options) -> Self {
        Self { module, f, backend, options, constants: None }
    }

    /// Takes these tensors in the place of constants, whose types they have.
    #[must_use]
    pub fn with_constants(self, constants: &'a HashMap<Value, Tensor>) -> Self {
        Self { constants: Some(constants), ..self }
    }

    /// Runs once. `inputs` are in the order of the signature, states left out; `None` takes the port's default.
    pub fn run(&self, inputs: &[Option<Tensor>], states: &mut States) -> Result<Vec<Tensor>, RunError> {
        self.run_observed(inputs, states, None)
    }

    /// Runs once, and shows every value as it is computed.
    pub fn run_observed<'s>(
        &'s self,
        inputs: &[Option<Tensor>],
        states: &mut States,
        observe: Option<Observer<'s>>,
    ) -> Result<Vec<Tensor>, RunError> {
        let mut exec = self.bound(inputs, states, observe)?;
        exec.run(self.f.body()).map_err(|e| self.failed(e))?;
        self.keep_states(&exec, states);
        Ok(self.f.outputs().iter().filter_map(|v| exec.get(*v).cloned()).collect())
    }

    /// Begins a run that goes on op by op.
    pub fn steps(&self, inputs: &[Option<Tensor>], states: &States) -> Result<Steps<'_>, RunError> {
        let exec = self.bound(inputs, states, None)?;
        Ok(Steps { session: self, exec, next: self.f.ops().next(), last: None })
    }

    /// A run whose inputs and states are set.
    fn bound<'s>(
        &'s self,
        inputs: &[Option<Tensor>],
        states: &States,
        observe: Option<Observer<'s>>,
    ) -> Result<Exec<'s>, RunError> {
        let f = self.f;
        let mut exec = Exec::new(f, self.backend, self.options, self.constants, observe);
        let mut given = inputs.iter();
        let mut bound: HashMap<Arc<str>, i64> = HashMap::new();
        for (v, port) in f.inputs().iter().zip(&f.sig.inputs) {
            match f.ty(*v) {
                Type::Tensor(want) => {
                    let t = match given.next().cloned().flatten() {
                        Some(t) => t,
                        None => match port.default.filter(|_| want.dtype != DType::Str) {
                            Some(value) => self.filled(&port.name, want, value)?,
                            None => return Err(RunError::Missing { name: port.name.clone(), want: want.clone() }),
                        },
                    };
                    self.check(&port.name, want, &t, &mut bound)?;
                    exec.set(*v, t);
                }
                Type::State(want) => {
                    let content = match states.get(&port.name) {
                        Some(t) => t.clone(),
                        None => self.filled(&port.name, want, 0.0)?,
                    };
                    self.check(&port.name, want, &content, &mut bound)?;
                    exec.states.insert(*v, content);
                }
                Type::List { .. } | Type::Dict { .. } | Type::Unknown => {}
            }
        }
        Ok(exec)
    }

    fn failed(&self, e: OpFailure) -> RunError {
        let origins = &self.module.origins;
        let from = self.f.op_data(e.op).origin.map(|o| origins.sources(o)).unwrap_or_default();
        RunError::Op { op: print_op(self.f, e.op), origin: from.iter().map(ToString::to_string).collect(), why: e.why }
    }

    fn keep_states(&self, exec: &Exec<'_>, states: &mut States) {
        for (v, port) in self.f.inputs().iter().zip(&self.f.sig.inputs) {
            if let Some(content) = exec.states.get(v) {
                states.insert(port.name.clone(), content.clone());
            }
        }
    }

    /// A tensor of type `ty`, of default sizes, whose every element is `value`.
    fn filled(&self, name: &Arc<str>, ty: &TensorType, value: f64) -> Result<Tensor, RunError> {
        let shape = sample_shape(&ty.shape, &self.module.symbols);
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_FILLED);
        count.ok_or_else(|| RunError::TooLarge { name: name.clone(), ty: ty.clone() })?;
        Ok(Tensor::splat(ty.dtype, &shape, value))
    }

    /// Holds a tensor against its declaration; symbols are bound by the first input that has them.
    fn check(
        &self,
        name: &Arc<str>,
        want: &TensorType,
        t: &Tensor,
        bound: &mut HashMap<Arc<str>, i64>,
    ) -> Result<(), RunError> {
        let shape: Dims = t.shape().into();
        let found = TensorType::new(t.dtype(), &shape);
        let fail = || RunError::Input {
            name: name.clone(),
            found: found.clone(),
            want: format!("{want}{}", ranges(&want.shape, &self.module.symbols)),
        };
        if t.dtype() != want.dtype || shape.len() != want.shape.rank() {
            return Err(fail());
        }
        for (d, n) in want.shape.iter().zip(&shape) {
            let n = *n as i64;
            if let Some(symbol) = d.as_symbol() {
                let info = self.module.symbols.get(symbol).cloned().unwrap_or_default();
                if n < info.min || info.max.is_some_and(|max| n > max) || *bound.entry(symbol.clone()).or_insert(n) != n
                {
                    return Err(fail());
                }
            } else if d.eval(&|s| bound.get(s).copied()).is_some_and(|k| k != n) {
                return Err(fail());
            }
        }
        Ok(())
    }
}

/// A run that stops behind each op of the function's body, where values can be read and replaced.
pub struct Steps<'a> {
    session: &'a Session<'a>,
    exec: Exec<'a>,
    next: Option<OpId>,
    /// What was computed last: what it alone has read is still there.
    last: Option<OpId>,
}

impl Steps<'_> {
    /// Frees what only the last op has read, which the next step does otherwise.
    pub fn settle(&mut self) {
        self.last.take().into_iter().for_each(|id| self.exec.free(id));
    }

    /// Computes the next op of the body; `None` behind the last one.
    pub fn step(&mut self) -> Option<Result<OpId, RunError>> {
        self.settle();
        let id = self.next?;
        self.next = self.session.f.next_op(id);
        self.last = Some(id);
        Some(self.exec.compute(id).map(|()| id).map_err(|e| self.session.failed(e)))
    }

    /// A value that is still needed, or that the last op has computed.
    pub fn value(&self, v: Value) -> Option<&Tensor> {
        self.exec.get(v)
    }

    /// What the op that was computed last gives on other operands, each made of what it is in this run; `None` where it cannot
    /// be asked again, as it has branches or loops, or a state.
    pub fn again(&mut self, other: &mut dyn FnMut(Value, &Tensor) -> Tensor) -> Option<Result<Tensors, OpError>> {
        let (f, id) = (self.session.f, self.last?);
        let (mut operands, mut keeps) = (vec![], false);
        let op = &f.op_data(id).op;
        op.visit_regions(&mut |_| keeps = true);
        op.visit_operands(&mut |v| {
            keeps |= matches!(f.ty(v), Type::State(_));
            operands.extend(self.exec.get(v).map(|t| (v, other(v, t))));
        });
        (!keeps).then(|| self.exec.eval_on(id, operands))
    }

    /// Puts another tensor, of the same type and shape, in the place of a value that is computed.
    pub fn replace(&mut self, v: Value, t: Tensor) {
        self.exec.replace(v, t);
    }

    /// What the states hold by now.
    pub fn keep_states(&self, states: &mut States) {
        self.session.keep_states(&self.exec, states);
    }
}

/// What is known of the symbols of a shape, for a message.
fn ranges(shape: &Shape, symbols: &Symbols) -> String {
    let mut names: Vec<Arc<str>> = vec![];
    shape.iter().for_each(|d| {
        d.visit_symbols(&mut |s| {
            if !names.contains(s) {
                names.push(s.clone());
            }
        });
    });
    let one = |s: &Arc<str>| {
        let info = symbols.get(s).cloned().unwrap_or_default();
        format!("{s} in {}..{}", info.min, info.max.map(|m| format!("={m}")).unwrap_or_default())
    };
    if names.is_empty() {
        String::new()
    } else {
        format!(" with {}", names.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

/// A shape's sizes where every symbol takes its default.
pub fn sample_shape(shape: &Shape, symbols: &Symbols) -> Dims {
    shape.eval(&|s| Some(symbols.default_of(s))).unwrap_or_default()
}
