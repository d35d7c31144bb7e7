//! Branches and loops.

use crate::{
    ir::{Block, Fact, Value},
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, TensorType, Type};

/// Runs one of two blocks; its results are what that block yields.
///
/// Both blocks take no arguments and yield equally many values of equal element types and ranks. A dimension in which
/// they differ is unknown in the result.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "cond", since = Ios15)]
#[domain(B: Ios15 = Bool)]
pub struct Cond {
    /// `bool[]`: whether the first block runs.
    #[operand(B)]
    pub pred: Value,
    /// Run where `pred` holds.
    #[region]
    pub true_fn: Block,
    /// Run where it does not.
    #[region]
    pub false_fn: Block,
}

impl Semantics for Cond {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        cx.ranked("pred", self.pred, 0..=0)?;
        let (a, b) = (cx.block_yields(self.true_fn), cx.block_yields(self.false_fn));
        if a.len() != b.len() {
            let (found, want) = (format!("a block of {} values", b.len()), format!("one of {}", a.len()));
            return Err(OpError::Value { param: "false_fn", found, want: want.into() });
        }
        a.iter().zip(b).enumerate().map(|(i, (a, b))| merge(cx, i, *a, *b)).collect()
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let taken = cx.tensor(self.pred).to_bools().first().copied().unwrap_or(false);
        cx.env.run_block(if taken { self.true_fn } else { self.false_fn }, Tensors::new())
    }
}

/// What holds of a value that is either `a` or `b`.
fn merge(cx: &InferCx<'_>, result: usize, a: Value, b: Value) -> Result<Fact, OpError> {
    let (fa, fb) = (cx.fact(a), cx.fact(b));
    if fa.ty == fb.ty {
        let ints = if fa.ints == fb.ints { fa.ints.clone() } else { None };
        return Ok(Fact { ty: fa.ty.clone(), ints });
    }
    let dim = |(i, (x, y)): (usize, (&Dim, &Dim))| if x == y { x.clone() } else { cx.unknown(result * 16 + i) };
    let tensor = |x: &TensorType, y: &TensorType| {
        let shape = x.shape.iter().zip(y.shape.iter()).enumerate().map(dim).collect();
        (x.dtype == y.dtype && x.shape.rank() == y.shape.rank()).then_some(TensorType { dtype: x.dtype, shape })
    };
    let merged = match (&fa.ty, &fb.ty) {
        (Type::Tensor(x), Type::Tensor(y)) => tensor(x, y).map(Type::Tensor),
        (Type::List { elem: x, len: n }, Type::List { elem: y, len: k }) => {
            tensor(x, y).map(|elem| Type::List { elem, len: dim((x.shape.rank(), (n, k))) })
        }
        _ => None,
    };
    match merged {
        Some(ty) => Ok(Fact::of(ty)),
        None => Err(OpError::Operand { param: "false_fn", found: fb.ty.clone(), want: fa.ty.to_string().into() }),
    }
}

/// Runs a block as long as another says so, each time on what the last run yielded.
///
/// `cond` takes the loop variables and yields `bool[]`; `body` takes them and yields their next values, of equal types.
/// The results are the last values.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "while_loop", since = Ios15)]
#[domain(T: Ios15 = Any)]
pub struct WhileLoop {
    /// The first values of the loop variables.
    #[operand(T)]
    pub loop_vars: Vec<Value>,
    /// Whether to go on.
    #[region]
    pub cond: Block,
    /// The next values.
    #[region]
    pub body: Block,
}

/// Iterations after which a loop is taken to be endless.
const MAX_ITERATIONS: u64 = 1 << 24;

impl Semantics for WhileLoop {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let count = |param, found: usize| {
            let want = format!("one of {} values", self.loop_vars.len());
            let wrong = found != self.loop_vars.len();
            if wrong {
                Err(OpError::Value { param, found: format!("a block of {found} values"), want: want.into() })
            } else {
                Ok(())
            }
        };
        count("cond", cx.block_args(self.cond).len())?;
        count("body", cx.block_args(self.body).len())?;
        count("body", cx.block_yields(self.body).len())?;
        // coremltools writes a vector of one where the counter is one.
        let goes_on = |v| {
            let ty = cx.fact(v).ty.tensor();
            ty.is_some_and(|t| t.dtype == DType::Bool && matches!(t.shape.known().as_deref(), Some([] | [1])))
        };
        match cx.block_yields(self.cond) {
            [v] if goes_on(*v) => {}
            [v, ..] => return Err(cx.operand("cond", *v, "a block that yields one bool[]")),
            [] => return Err(OpError::Missing { param: "cond" }),
        }
        // The arguments of the body are the loop's invariant; the results are of their types.
        let args = cx.block_args(self.body).iter().zip(cx.block_yields(self.body)).zip(&self.loop_vars);
        args.map(|((arg, next), first)| {
            for v in [next, first] {
                if !cx.fact(*arg).ty.may_equal(&cx.fact(*v).ty) {
                    return Err(cx.operand("loop_vars", *v, cx.fact(*arg).ty.to_string()));
                }
            }
            Ok(Fact::of(cx.fact(*arg).ty.clone()))
        })
        .collect()
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let mut vars: Tensors = self.loop_vars.iter().map(|v| cx.tensor(*v).clone()).collect();
        for _ in 0..MAX_ITERATIONS {
            let go_on = cx.env.run_block(self.cond, vars.clone())?;
            if go_on.first().is_none_or(|t| t.to_bools() != [true]) {
                return Ok(vars);
            }
            vars = cx.env.run_block(self.body, vars)?;
        }
        Err(OpError::Endless { iterations: MAX_ITERATIONS })
    }
}
