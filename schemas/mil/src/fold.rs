//! Evaluates ops whose operands are all constant.

use crate::{
    ir::{Block, Function, Module, OpId, Value},
    ops::Const,
    schema::{Effect, Env, EvalCx, Facts, OpError, Opset, Tensors},
};
use mlconv_tensor::{DType, Tensor};

/// How much may be computed while a program is folded: a few bytes of it may ask for any number of elements.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Elements that folding may still come to.
    left: usize,
    /// Elements of constants that may still be made up. What folding takes does not stand in their way.
    room: usize,
}

/// Elements up to which one result is stored instead of computed.
const MAX_RESULT: usize = 1 << 24;
/// Elements that any program may be folded to.
const MIN_BUDGET: usize = 1 << 25;

impl Budget {
    /// For a program whose own constants hold `elements`: folding may double them, and so may what is made up.
    pub fn new(elements: usize) -> Self {
        let left = elements.saturating_add(MIN_BUDGET);
        Self { left, room: left }
    }

    /// For a whole module.
    pub fn of(module: &Module) -> Self {
        let constants =
            |f: &Function| f.all_ops().iter().filter_map(|id| Some(f.op::<Const>(*id)?.val.count())).sum::<usize>();
        Self::new(module.functions.iter().map(constants).sum())
    }

    /// Takes `elements` of a constant that was made up out of what is left, where there are as many.
    pub fn charge(&mut self, elements: usize) -> bool {
        let fits = self.affords(elements);
        if fits {
            self.room -= elements;
        }
        fits
    }

    /// Whether as many elements are left.
    pub fn affords(&self, elements: usize) -> bool {
        elements <= self.room
    }

    /// The results of `id`, where they follow from constants alone and are not too large.
    pub fn fold(&mut self, f: &Function, id: OpId) -> Option<Tensors> {
        let results = fold(f, id, self.left.min(MAX_RESULT))?;
        self.left = self.left.saturating_sub(results.iter().map(Tensor::count).sum());
        Some(results)
    }
}

/// What an op that decodes a compressed weight gives; `None` for other ops.
pub fn decode(f: &Function, id: OpId) -> Option<Tensors> {
    if f.op_data(id).op.schema().constexpr { evaluated(f, id, usize::MAX) } else { None }
}

/// The results of `id`, where they follow from constants alone and hold at most `max_elements`.
///
/// Ops that decode compressed weights are left alone: folding them would undo the compression.
fn fold(f: &Function, id: OpId, max_elements: usize) -> Option<Tensors> {
    let schema = f.op_data(id).op.schema();
    if schema.effect != Effect::None || schema.constexpr { None } else { evaluated(f, id, max_elements) }
}

fn evaluated(f: &Function, id: OpId, max_elements: usize) -> Option<Tensors> {
    let data = f.op_data(id);
    if data.results.is_empty() {
        return None;
    }
    let facts: Facts = data.results.iter().map(|v| f.value(*v).fact.clone()).collect();
    let mut count = 0usize;
    for fact in &facts {
        let shape = fact.ty.tensor()?.shape.known()?;
        count = count.checked_add(shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?)?;
    }
    if count > max_elements {
        return None;
    }
    if let Some(known) = known_results(&facts) {
        return Some(known);
    }
    let mut operands = vec![];
    let mut constant = true;
    data.op.visit_operands(&mut |v| match f.constant(v) {
        Some(t) => operands.push((v, t)),
        None => constant = false,
    });
    data.op.visit_regions(&mut |_| constant = false);
    if !constant || operands.iter().map(|(_, t)| t.count()).sum::<usize>() > max_elements.saturating_mul(4) {
        return None;
    }
    operands.sort_by_key(|(v, _)| *v);
    let env = Constants { operands, opset: f.opset };
    let cx = EvalCx::new(&env, &facts).ok()?;
    data.op.eval(&cx).ok()
}

/// Results whose elements inference knows already.
fn known_results(facts: &Facts) -> Option<Tensors> {
    let one = |fact: &crate::ir::Fact| {
        let t = fact.ty.tensor()?;
        let ints: Vec<i64> = fact.ints.as_ref()?.iter().map(mlconv_tensor::Dim::as_known).collect::<Option<_>>()?;
        let shape = t.shape.known()?;
        let fits = t.dtype == DType::Bool
            || t.dtype.int_range().is_some_and(|(lo, hi)| ints.iter().all(|i| (lo..=hi).contains(&i128::from(*i))));
        (fits && shape.iter().product::<usize>() == ints.len()).then(|| Tensor::from_i64(t.dtype, &shape, &ints))
    };
    facts.iter().map(one).collect()
}

struct Constants<'a> {
    /// In the order of the values.
    operands: Vec<(Value, &'a Tensor)>,
    opset: Opset,
}

impl Env for Constants<'_> {
    fn opset(&self) -> Opset {
        self.opset
    }
    fn tensor(&self, v: Value) -> &Tensor {
        let at = self.operands.binary_search_by_key(&v, |(o, _)| *o);
        self.operands[at.expect("a kernel reads its own operands")].1
    }
    fn run_block(&self, _: Block, _: Tensors) -> Result<Tensors, OpError> {
        Err(OpError::NoKernel)
    }
    fn read_state(&self, _: Value) -> Tensor {
        Tensor::scalar(0f32)
    }
    fn write_state(&self, _: Value, _: Tensor) {}
}
