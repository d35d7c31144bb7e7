//! Runs blocks.

use crate::{
    cpu::half_sums,
    session::{Emulate, Options},
};
use mlconv_mil::{
    ir::{Block, Fact, Function, OpId, Value},
    ops::{Const, by_name},
    schema::{
        Arg, Args, Attr, AttrType, Env, EvalCx, FactSource, Facts, InferCx, NamedArg, Op, OpError, Opset, ParamKind,
        Tensors,
    },
};
use mlconv_tensor::{DType, Dim, Dims, Shape, Tensor, TensorType, Type, f16};
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    fmt,
};

/// Decides how an op is computed.
pub trait Backend: Sync {
    /// The results of `op`; `None` leaves it to the reference kernel.
    fn run(&self, op: &dyn Op, cx: &EvalCx<'_>) -> Option<Result<Tensors, OpError>>;
}

/// Is shown every value as it is computed.
pub type Observer<'a> = &'a mut dyn FnMut(Value, &Tensor);

/// An op that failed.
pub(crate) struct OpFailure {
    pub(crate) op: OpId,
    pub(crate) why: OpError,
}

pub(crate) struct Exec<'a> {
    f: &'a Function,
    backend: &'a dyn Backend,
    /// What stands in the place of constants.
    constants: Option<&'a HashMap<Value, Tensor>>,
    values: Vec<Option<Tensor>>,
    pub(crate) states: HashMap<Value, Tensor>,
    /// What may be freed after each op.
    last_uses: HashMap<OpId, Vec<Value>>,
    observe: Option<Observer<'a>>,
    /// Ops whose literals change when they are rounded as values are.
    rounded_ops: HashMap<OpId, Box<dyn Op>>,
    /// Whether values in single precision are rounded: where others are in half precision, they are meant not to be.
    rounds: bool,
    /// Whether sums are accumulated in half precision, where their results are.
    half_sums: bool,
}

impl<'a> Exec<'a> {
    pub(crate) fn new(
        f: &'a Function,
        backend: &'a dyn Backend,
        options: Options,
        constants: Option<&'a HashMap<Value, Tensor>>,
        observe: Option<Observer<'a>>,
    ) -> Self {
        let mut last_uses = HashMap::new();
        plan_block(f, f.body(), &mut last_uses);
        let values = vec![None; f.value_slots()];
        let in_half = |id: &OpId| f.op_data(*id).results.iter().any(|v| f.constant(*v).is_none() && is_half(f, *v));
        let mixed = f.all_ops().iter().any(in_half);
        let rounded = |id: OpId| if mixed && !in_half(&id) { None } else { Some((id, with_half_literals(f, id)?)) };
        let rounded_ops = match options.emulate {
            Some(Emulate::F16) => f.all_ops().into_iter().filter_map(rounded).collect(),
            None => HashMap::new(),
        };
        let rounds = options.emulate == Some(Emulate::F16) && !mixed;
        let (states, half_sums) = (HashMap::new(), options.half_sums);
        Self { f, backend, constants, values, states, last_uses, observe, rounded_ops, rounds, half_sums }
    }

    pub(crate) fn set(&mut self, v: Value, t: Tensor) {
        let t = self.rounded(t);
        if let Some(observe) = &mut self.observe {
            observe(v, &t);
        }
        self.values[v.index()] = Some(t);
    }

    pub(crate) fn get(&self, v: Value) -> Option<&Tensor> {
        self.values[v.index()].as_ref()
    }

    /// What a device that computes in half precision would hold of `t`.
    fn rounded(&self, t: Tensor) -> Tensor {
        if self.rounds && t.dtype() == DType::F32 {
            Tensor::from_vec(t.shape(), t.cast(DType::F16).to_f32().into_owned())
        } else {
            t
        }
    }

    /// Runs a block; the values it yields stay set.
    pub(crate) fn run(&mut self, block: Block) -> Result<(), OpFailure> {
        for id in self.f.ops_in(block) {
            self.compute(id)?;
            self.free(id);
        }
        Ok(())
    }

    /// Computes the results of an op.
    pub(crate) fn compute(&mut self, id: OpId) -> Result<(), OpFailure> {
        let results = self.eval(id).map_err(|why| OpFailure { op: id, why })?;
        for (v, t) in self.f.op_data(id).results.iter().zip(results) {
            self.set(*v, t);
        }
        Ok(())
    }

    /// Frees what nothing reads behind an op.
    pub(crate) fn free(&mut self, id: OpId) {
        for v in self.last_uses.get(&id).map(Vec::as_slice).unwrap_or_default() {
            self.values[v.index()] = None;
        }
    }

    /// Puts another tensor in the place of a value.
    pub(crate) fn replace(&mut self, v: Value, t: Tensor) {
        self.values[v.index()] = Some(t);
    }

    fn eval(&mut self, id: OpId) -> Result<Tensors, OpError> {
        let data = self.f.op_data(id);
        if let Some(c) = self.f.op::<Const>(id) {
            let instead = data.results.first().and_then(|v| self.constants?.get(v));
            return Ok([instead.unwrap_or(&c.val).clone()].into_iter().collect());
        }
        let mut operands = vec![];
        data.op.visit_operands(&mut |v| {
            if let Some(t) = &self.values[v.index()] {
                operands.push((v, t.clone()));
            }
        });
        self.eval_on(id, operands)
    }

    /// The results of an op on these operands.
    pub(crate) fn eval_on(&mut self, id: OpId, mut operands: Vec<(Value, Tensor)>) -> Result<Tensors, OpError> {
        let f = self.f;
        let data = f.op_data(id);
        operands.sort_by_key(|(v, _)| *v);
        let mut has_region = false;
        data.op.visit_regions(&mut |_| has_region = true);
        let facts: Facts = if has_region {
            Facts::new()
        } else if let Some(facts) = static_facts(f, id) {
            facts
        } else {
            let known = Known::new(f, &operands);
            data.op.infer(&InferCx::new(&known, f.opset, id.index()))?
        };
        let rounded = self.rounded_ops.get(&id).cloned();
        let op = rounded.as_deref().unwrap_or(&*data.op);
        let env = OpEnv { operands: &operands, exec: RefCell::new(self) };
        let cx = EvalCx::new(&env, &facts)?;
        let (backend, in_half) = {
            let exec = env.exec.borrow();
            let is_half = exec.rounds || (cx.out_count() > 0 && cx.out(0).dtype == DType::F16);
            (exec.backend, exec.half_sums && is_half)
        };
        if let Some(results) = in_half.then(|| half_sums::run(op, &cx)).flatten() {
            return Ok(results);
        }
        backend.run(op, &cx).unwrap_or_else(|| op.eval(&cx))
    }
}

fn is_half(f: &Function, v: Value) -> bool {
    f.ty(v).tensor().is_some_and(|t| t.dtype == DType::F16)
}

/// The op with every float literal that a half-precision device would hold in half precision, such as an epsilon, rounded
/// to it; `None` where that changes nothing.
fn with_half_literals(f: &Function, id: OpId) -> Option<Box<dyn Op>> {
    let op = &f.op_data(id).op;
    let (schema, mut args, mut changed) = (op.schema(), Args::new(f), false);
    for NamedArg { name, param, arg } in op.args() {
        match arg {
            Arg::Operands(values) => args.add_operand(name, values.to_vec()),
            Arg::Attr(None) => {}
            Arg::Attr(Some(Attr::Float(x))) => {
                let halves = match param.map(|p| &p.kind) {
                    Some(ParamKind::Attr { dtype: AttrType::Domain(domain), .. }) => {
                        schema.types(domain, f.opset).is_some_and(|t| t.contains(&DType::F16))
                    }
                    _ => false,
                };
                let rounded = if halves { f16::from_f32(x).to_f32() } else { x };
                changed |= rounded != x;
                args.add_attr(name, Attr::Float(rounded));
            }
            Arg::Attr(Some(other)) => args.add_attr(name, other),
            Arg::Region(block) => args.add_region(name, block),
        }
    }
    let info = by_name(schema.name, f.opset).filter(|_| changed)?;
    (info.build)(&mut args).ok()
}

/// The facts of an op's results, where no size depends on the inputs of the run: not theirs, and not its operands', which
/// may turn out not to fit.
fn static_facts(f: &Function, id: OpId) -> Option<Facts> {
    let known = |v: Value| match f.ty(v) {
        Type::Tensor(t) | Type::List { elem: t, .. } => t.shape.known().is_some(),
        Type::State(_) | Type::Dict { .. } | Type::Unknown => true,
    };
    let data = f.op_data(id);
    let mut all_known = true;
    data.op.visit_operands(&mut |v| all_known &= known(v));
    data.results.iter().map(|v| (all_known && known(*v)).then(|| f.fact(*v).clone())).collect()
}

/// Finds, for every op of a block, the values that nothing reads after it.
fn plan_block(f: &Function, block: Block, last_uses: &mut HashMap<OpId, Vec<Value>>) {
    let mut defined: HashSet<Value> = f.block(block).args.iter().copied().collect();
    let mut last: HashMap<Value, OpId> = HashMap::new();
    for id in f.ops_in(block) {
        for v in reads(f, id) {
            last.insert(v, id);
        }
        for v in &f.op_data(id).results {
            defined.insert(*v);
            last.insert(*v, id);
        }
        f.op_data(id).op.visit_regions(&mut |b| plan_block(f, b, last_uses));
    }
    let kept: HashSet<Value> = f.yields(block).iter().copied().collect();
    // In program order, so that nothing depends on the order of a hash table.
    for id in f.ops_in(block) {
        let mut free: Vec<Value> = reads(f, id).into_iter().chain(f.op_data(id).results.iter().copied()).collect();
        free.retain(|v| last.get(v) == Some(&id) && defined.contains(v) && !kept.contains(v));
        free.sort();
        free.dedup();
        last_uses.insert(id, free);
    }
}

/// What an op reads, its nested blocks included.
fn reads(f: &Function, id: OpId) -> Vec<Value> {
    let mut out = vec![];
    let mut todo = vec![id];
    while let Some(id) = todo.pop() {
        f.op_data(id).op.visit_operands(&mut |v| out.push(v));
        f.op_data(id).op.visit_regions(&mut |b| {
            out.extend(f.yields(b));
            todo.extend(f.ops_in(b));
        });
    }
    out
}

/// What belongs to `v` in a list in the order of the values.
fn find<T>(list: &[(Value, T)], v: Value) -> Option<&T> {
    list.binary_search_by_key(&v, |(o, _)| *o).ok().map(|at| &list[at].1)
}

/// What an op sees of the run.
struct OpEnv<'e, 'a> {
    /// In the order of the values.
    operands: &'e [(Value, Tensor)],
    exec: RefCell<&'e mut Exec<'a>>,
}

impl Env for OpEnv<'_, '_> {
    fn tensor(&self, v: Value) -> &Tensor {
        find(self.operands, v).expect("a kernel reads its own operands, and they are set")
    }

    fn run_block(&self, block: Block, args: Tensors) -> Result<Tensors, OpError> {
        let mut exec = self.exec.borrow_mut();
        let f = exec.f;
        for (v, t) in f.block(block).args.iter().zip(args) {
            // Types only may agree where sizes are symbols.
            let stated = f.ty(*v).tensor();
            let fits = |s: &Shape| {
                s.rank() == t.shape().len()
                    && s.iter().zip(t.shape()).all(|(d, n)| d.as_usize().is_none_or(|d| d == *n))
            };
            if let Some(stated) = stated.filter(|s| !fits(&s.shape)) {
                let found = TensorType::new(t.dtype(), Shape::from(t.shape()));
                return Err(OpError::Block { arg: f.value(*v).hint.to_string(), found, want: stated.clone() });
            }
            exec.set(*v, t);
        }
        exec.run(block)
            .map_err(|e| OpError::Inner { op: f.op_data(e.op).op.name().to_owned(), why: Box::new(e.why) })?;
        Ok(f.yields(block).iter().filter_map(|v| exec.get(*v).cloned()).collect())
    }

    fn read_state(&self, v: Value) -> Tensor {
        self.exec.borrow().states.get(&v).cloned().expect("the session sets every state")
    }

    fn write_state(&self, v: Value, content: Tensor) {
        self.exec.borrow_mut().states.insert(v, content);
    }

    fn opset(&self) -> Opset {
        self.exec.borrow().f.opset
    }
}

/// The facts of operands whose tensors are there.
struct Known<'a> {
    f: &'a Function,
    /// In the order of the values, as the facts are.
    operands: &'a [(Value, Tensor)],
    facts: Vec<(Value, Fact)>,
}

impl<'a> Known<'a> {
    fn new(f: &'a Function, operands: &'a [(Value, Tensor)]) -> Self {
        let fact = |v: Value, t: &Tensor| {
            let shape: Dims = t.shape().into();
            // A list is a tensor of its elements here; what holds none says nothing about their sizes.
            if let (Type::List { elem, .. }, [len, sizes @ ..]) = (f.ty(v), &*shape) {
                let known = TensorType::new(t.dtype(), Shape::from(sizes));
                let elem = if t.count() == 0 { elem.clone() } else { known };
                return Fact::of(Type::List { elem, len: Dim::from(*len) });
            }
            let fact = Fact::of(TensorType::new(t.dtype(), &shape));
            let small = Fact::tracks(t.dtype()) && t.count() <= Fact::MAX_INTS;
            if small { fact.with_ints(t.to_i64().into_iter().map(Dim::from)) } else { fact }
        };
        Self { f, operands, facts: operands.iter().map(|(v, t)| (*v, fact(*v, t))).collect() }
    }
}

impl fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.facts).finish()
    }
}

impl FactSource for Known<'_> {
    fn fact(&self, v: Value) -> &Fact {
        find(&self.facts, v).unwrap_or_else(|| self.f.fact(v))
    }
    fn stated(&self, v: Value) -> &Fact {
        self.f.fact(v)
    }
    fn constant(&self, v: Value) -> Option<&Tensor> {
        find(self.operands, v)
    }
    fn is_const(&self, v: Value) -> bool {
        self.f.constant(v).is_some()
    }
    fn block_args(&self, block: Block) -> &[Value] {
        self.f.block_args(block)
    }
    fn block_yields(&self, block: Block) -> &[Value] {
        self.f.block_yields(block)
    }
}
