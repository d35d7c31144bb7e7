//! Random programs of tensors of six and seven axes give the same numbers before and after `rank_reduction`, which
//! leaves none of more than five axes but inputs, outputs and their reshapes.

mod support;

use mlconv_mil::{
    ir::{Function, InsertError, Module, Port, Value},
    ops::*,
    schema::{Op, Opset},
    text::{Elide, print},
    verify::{Verified, verify},
};
use mlconv_passes::{Options, Pattern, Weight, by_name};
use mlconv_runner::{Options as RunOptions, Reference, Session, States};
use mlconv_tensor::{DType, Dim, Shape, Tensor, TensorType, Type};
use support::damage::Numbers;

const PROGRAMS: u64 = 400;
/// Steps of a program.
const STEPS: usize = 10;
/// Elements that a tensor has at most.
const MOST: i64 = 4096;
/// What the symbols of open sizes are when a program runs.
const SYMBOLS: [(&str, i64); 2] = [("n", 2), ("m", 3)];

/// What programs are made from.
struct Random(Numbers);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0.below(n)
    }
    fn bool(&mut self) -> bool {
        self.below(2) == 0
    }
    fn perm(&mut self, n: usize) -> Vec<i64> {
        let mut perm: Vec<i64> = (0..n as i64).collect();
        (1..n).for_each(|i| perm.swap(i, self.below(i + 1)));
        perm
    }
    fn some(&mut self, n: usize) -> Vec<i64> {
        let mut axes: Vec<i64> = (0..n as i64).filter(|_| self.bool()).collect();
        if axes.is_empty() {
            axes.push(self.below(n) as i64);
        }
        axes
    }
}

/// What a size is when a program runs, where its symbols say.
fn size(d: &Dim) -> Option<i64> {
    d.eval(&|s| SYMBOLS.iter().find(|(name, _)| *name == s).map(|(_, n)| *n))
}

type Made = Result<Value, InsertError>;

/// A program that grows.
struct Program {
    f: Function,
    rng: Random,
    /// What was computed, the newest last.
    values: Vec<Value>,
}

impl Program {
    fn new(seed: u64) -> Self {
        let mut rng = Random(Numbers::new(seed));
        let mut f = Function::new("main", Opset::Ios17);
        let open = rng.bool();
        let mut values = vec![];
        for i in 0..2 {
            // What an input of many axes says of its sizes, nothing else does.
            let rank = 4 + rng.below(if open { 2 } else { 4 });
            let mut dims: Vec<Dim> = vec![];
            for _ in 0..rank {
                dims.push(match rng.below(if open { 6 } else { 4 }) {
                    0 => Dim::from(1),
                    1 => Dim::from(3),
                    2 | 3 => Dim::from(2),
                    k => Dim::symbol(SYMBOLS[k - 4].0),
                });
            }
            let ty = TensorType::new(DType::F32, dims);
            values.push(f.add_input(Port::new(format!("x{i}")), Type::Tensor(ty)));
        }
        Self { f, rng, values }
    }

    fn shape(&self, v: Value) -> Shape {
        self.f.ty(v).tensor().map(|t| t.shape.clone()).unwrap_or_default()
    }

    fn op(&mut self, op: impl Op) -> Made {
        let hint = op.name().to_owned();
        self.f.push(&hint, op)
    }

    fn ints(&mut self, ints: &[i64]) -> Made {
        self.op(Const { val: Tensor::from_i64(DType::I32, &[ints.len()], ints) })
    }

    /// A vector of the products of sizes of `x` and numbers.
    fn sizes(&mut self, x: Value, parts: &[(Vec<usize>, i64)]) -> Made {
        let (own, mut values) = (self.shape(x), vec![]);
        let mut shape = None;
        for (axes, times) in parts {
            let known: i64 = axes.iter().filter_map(|a| own[*a].as_known()).product::<i64>() * times;
            let mut product = self.ints(&[known])?;
            for axis in axes.iter().filter(|a| own[**a].as_known().is_none()) {
                let shape = match shape {
                    Some(shape) => shape,
                    None => *shape.insert(self.op(ShapeOf { x })?),
                };
                let (begin, end) = (self.ints(&[*axis as i64])?, self.ints(&[*axis as i64 + 1])?);
                let size = self.op(SliceByIndex {
                    x: shape,
                    begin,
                    end,
                    stride: None,
                    begin_mask: None,
                    end_mask: None,
                    squeeze_mask: None,
                })?;
                product = self.op(Mul { x: product, y: size })?;
            }
            values.push(product);
        }
        self.op(Concat { values, axis: 0, interleave: false })
    }

    /// Merges some neighbours, splits some sizes.
    fn reshaped(&mut self, x: Value) -> Made {
        let shape = self.shape(x);
        let mut parts: Vec<(Vec<usize>, i64)> = vec![];
        let want = 5 + self.rng.below(3);
        for i in 0..shape.rank() {
            let many = parts.len() + shape.rank() - i > want;
            match parts.last_mut() {
                Some((axes, _)) if many && self.rng.bool() => axes.push(i),
                _ => parts.push((vec![i], 1)),
            }
        }
        // Sizes that are known become a factor, which can be cut.
        let mut cut = vec![];
        for (axes, _) in parts {
            let known: i64 = axes.iter().filter_map(|a| shape[*a].as_known()).product();
            let open: Vec<usize> = axes.into_iter().filter(|a| shape[*a].as_known().is_none()).collect();
            if cut.len() < 6 && known % 2 == 0 && self.rng.bool() {
                let (front, back) = if self.rng.bool() { (2, known / 2) } else { (known / 2, 2) };
                if open.is_empty() || self.rng.bool() {
                    cut.extend([(open, front), (vec![], back)]);
                } else {
                    cut.push((open, known));
                }
            } else {
                cut.push((open, known));
            }
        }
        let open = cut.iter().filter(|(axes, _)| !axes.is_empty()).count();
        let shape = if open <= 1 && self.rng.bool() {
            let sizes: Vec<i64> = cut.iter().map(|(axes, n)| if axes.is_empty() { *n } else { -1 }).collect();
            self.ints(&sizes)?
        } else {
            self.sizes(x, &cut)?
        };
        self.op(Reshape { x, shape })
    }

    fn reduced(&mut self, x: Value, keep_dims: bool) -> Made {
        let axes = Some(self.rng.some(self.shape(x).rank()));
        match self.rng.below(3) {
            0 => self.op(ReduceSum { x, axes, keep_dims }),
            1 => self.op(ReduceMax { x, axes, keep_dims }),
            _ => self.op(ReduceMean { x, axes, keep_dims }),
        }
    }

    fn sliced(&mut self, x: Value) -> Made {
        let shape = self.shape(x);
        let (mut begin, mut end, mut stride) = (vec![], vec![], vec![]);
        let (mut begin_mask, mut end_mask, mut squeeze_mask) = (vec![], vec![], vec![]);
        for d in shape.iter() {
            let n = d.as_known().unwrap_or(1) as usize;
            let first = self.rng.below(n);
            let last = first + 1 + self.rng.below(n - first);
            let part = self.rng.below(3) == 0 && d.as_known().is_some();
            begin.push(if self.rng.bool() { first as i64 } else { first as i64 - n as i64 });
            end.push(last as i64);
            stride.push(if part { 1 + self.rng.below(2) as i64 } else { 1 });
            begin_mask.push(!part);
            end_mask.push(!part || self.rng.below(4) == 0);
            squeeze_mask.push(part && self.rng.below(4) == 0);
        }
        let (begin, end) = (self.ints(&begin)?, self.ints(&end)?);
        self.op(SliceByIndex {
            x,
            begin,
            end,
            stride: Some(stride),
            begin_mask: Some(begin_mask),
            end_mask: Some(end_mask),
            squeeze_mask: Some(squeeze_mask),
        })
    }

    fn gathered(&mut self, x: Value, axis: usize) -> Made {
        let n = self.shape(x)[axis].as_known().unwrap_or(1) as usize;
        let dims: Vec<usize> = (0..self.rng.below(3)).map(|_| 1 + self.rng.below(2)).collect();
        let ints: Vec<i64> = (0..dims.iter().product()).map(|_| self.rng.below(n) as i64).collect();
        let indices = self.op(Const { val: Tensor::from_i64(DType::I32, &dims, &ints) })?;
        self.op(Gather { x, indices, axis: axis as i64, batch_dims: 0, validate_indices: false })
    }

    fn step(&mut self) -> Made {
        let recent = self.values.len().saturating_sub(3);
        let x = self.values[recent + self.rng.below(self.values.len() - recent)];
        let shape = self.shape(x);
        let rank = shape.rank();
        if rank == 0 {
            return self.op(Relu { x });
        }
        let axis = self.rng.below(rank);
        let at = axis as i64;
        match self.rng.below(24) {
            0..3 => {
                let perm = self.rng.perm(rank);
                self.op(Transpose { x, perm })
            }
            3..6 => self.reshaped(x),
            6 => self.op(ExpandDims { x, axes: vec![at] }),
            7 => self.reduced(x, false),
            8..10 => {
                let y = self.reduced(x, true)?;
                if self.rng.bool() { self.op(Sub { x, y }) } else { self.op(Maximum { x: y, y: x }) }
            }
            10 => {
                // Repeated along axes in turn.
                let (y, z) = (self.reduced(x, true)?, self.reduced(x, true)?);
                if self.rng.bool() {
                    return self.op(Add { x: y, y: z });
                }
                let cond = self.op(Less { x: y, y: z })?;
                self.op(Select { cond, a: x, b: y })
            }
            11 => self.sliced(x),
            12 => {
                let y = self.op(Relu { x })?;
                self.op(Concat { values: vec![x, y], axis: at, interleave: false })
            }
            13 => self.gathered(x, axis),
            14 => {
                let reps: Vec<i64> = (0..rank).map(|_| 1 + i64::from(self.rng.below(4) == 0)).collect();
                let reps = self.ints(&reps)?;
                self.op(Tile { x, reps })
            }
            15 => {
                let pad: Vec<i64> = (0..2 * rank).map(|_| i64::from(self.rng.below(5) == 0)).collect();
                let pad = self.ints(&pad)?;
                self.op(Pad { x, pad, mode: PadMode::Constant, constant_val: 0.5 })
            }
            16 => {
                // Of a batch that both, or one of them, has.
                let mut y = self.op(Relu { x })?;
                if rank > 2 && self.rng.bool() {
                    let axes = Some(self.rng.some(rank - 2));
                    y = self.op(ReduceMax { x: y, axes, keep_dims: true })?;
                }
                let (x, y) = if self.rng.bool() { (x, y) } else { (y, x) };
                self.op(Matmul { x, y, transpose_x: false, transpose_y: true })
            }
            17 => self.op(Softmax { x, axis: at }),
            18 => {
                let axes = Some(self.rng.some(rank));
                self.op(Reverse { x, axes })
            }
            19 => {
                let exclusive = self.rng.bool();
                self.op(Cumsum { x, axis: at, exclusive, reverse: false })
            }
            22 => {
                // From where the numbers say, on.
                let top = self.op(ReduceMax { x, axes: None, keep_dims: false })?;
                let zero = self.op(Sub { x: top, y: top })?;
                let begin = self.op(Cast { x: zero, dtype: DType::I32 })?;
                let reps = self.ints(&[rank as i64])?;
                let begin = self.op(ExpandDims { x: begin, axes: vec![0] })?;
                let begin = self.op(Tile { x: begin, reps })?;
                let part = |d: &Dim| d.as_known().map_or(-1, |n| (n + 1) / 2);
                let size: Vec<i64> = shape.iter().map(part).collect();
                let size = self.ints(&size)?;
                self.op(SliceBySize { x, begin, size })
            }
            23 => {
                let order = self.op(Argsort { x, axis: at, ascending: true })?;
                self.op(GatherAlongAxis { x, indices: order, axis: at, validate_indices: false })
            }
            20 => {
                let y = self.op(Tanh { x })?;
                self.op(Stack { values: vec![x, y], axis: at })
            }
            _ => {
                let axes: Vec<i64> = (0..rank as i64).filter(|i| shape[*i as usize].is(1)).collect();
                if axes.is_empty() { self.op(Relu { x }) } else { self.op(Squeeze { x, axes: Some(axes) }) }
            }
        }
    }

    fn finished(mut self) -> Module {
        while self.values.len() < 2 + STEPS {
            // A step that has no meaning is another one.
            let Ok(v) = self.step() else { continue };
            let shape = self.shape(v);
            let count: Option<i64> = shape.iter().map(size).product();
            if shape.rank() <= 7 && count.is_some_and(|n| (1..=MOST).contains(&n)) && self.f.ty(v).tensor().is_some() {
                self.values.push(v);
            }
        }
        for v in self.values.iter().skip(2).copied() {
            if self.f.uses(v).is_empty() {
                let name = format!("y{}", self.f.outputs().len());
                self.f.add_output(Port::new(name), v);
            }
        }
        let mut module = Module::default();
        module.functions.push(self.f);
        module
    }
}

fn checked(module: Module) -> Verified {
    let text = print(&module, Elide::Above(16));
    verify(module).unwrap_or_else(|bad| {
        let bad: Vec<String> = bad.iter().map(ToString::to_string).collect();
        panic!("{}\n{text}", bad.join("\n"))
    })
}

fn ran(module: &Verified, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, String> {
    let session = Session::new(module, &module.functions[0], &Reference, RunOptions::default());
    session.run(inputs, &mut States::new()).map_err(|e| e.to_string())
}

fn inputs(f: &Function, rng: &mut Numbers) -> Vec<Option<Tensor>> {
    let one = |v: &Value| {
        let dims: Option<Vec<usize>> = f.ty(*v).tensor()?.shape.iter().map(|d| Some(size(d)? as usize)).collect();
        let dims = dims?;
        let values: Vec<f64> = (0..dims.iter().product()).map(|_| rng.below(4096) as f64 / 1024.0 - 2.0).collect();
        Some(Tensor::from_f64(DType::F32, &dims, &values))
    };
    f.inputs().iter().map(one).collect()
}

/// The ops on more than five axes that are not reshapes.
fn high(f: &Function) -> Vec<String> {
    let is_high = |v: Value| f.ty(v).tensor().is_some_and(|t| t.shape.rank() > 5);
    let mut out = vec![];
    for id in f.all_ops() {
        let data = f.op_data(id);
        let mut any = data.results.iter().any(|v| is_high(*v));
        data.op.visit_operands(&mut |v| any |= is_high(v));
        if any && data.op.name() != "reshape" {
            out.push(data.op.name().to_owned());
        }
    }
    out
}

#[test]
fn random_programs_mean_the_same_on_fewer_axes() {
    let mut compared = 0;
    let mut left: Vec<(u64, Vec<String>, Vec<String>)> = vec![];
    for seed in 1..=PROGRAMS {
        let program = Program::new(seed).finished();
        let before = checked(program.clone());
        let text = print(&before, Elide::Above(16));
        let inputs = inputs(&before.functions[0], &mut Numbers::new(seed));
        // What cannot run before need not after.
        let Ok(want) = ran(&before, &inputs) else { continue };
        compared += 1;
        let (mut after, mut notes) = (program, vec![]);
        let options = Options { explain: Some(Pattern::new("*")), ..Options::default() };
        for name in ["rank_reduction", "dead_code_elimination"] {
            let pass = by_name(name).expect("a pass");
            let report = pass.run(&mut after, &options).unwrap_or_else(|e| panic!("{seed}: {e}\n{text}"));
            notes.extend(report.notes.into_iter().filter(|n| n.weight != Weight::Fired));
        }
        let after = checked(after);
        let lowered = print(&after, Elide::Above(16));
        let got = ran(&after, &inputs).unwrap_or_else(|e| panic!("{seed}: {e}\n{text}\n{lowered}"));
        for (i, (want, got)) in want.iter().zip(&got).enumerate() {
            assert_eq!(want.shape(), got.shape(), "{seed}: shape of output {i}\n{text}\n{lowered}");
            for (w, g) in want.to_f64().iter().zip(got.to_f64()) {
                let near = (w - g).abs() <= 1e-4 * (1.0 + w.abs()) || w == &g || (w.is_nan() && g.is_nan());
                assert!(near, "{seed}: {w} is {g} in output {i}\n{text}\n{lowered}");
            }
        }
        let still = high(&after.functions[0]);
        if !still.is_empty() {
            left.push((seed, still, notes.iter().map(|n| n.why.clone()).collect()));
        }
    }
    assert!(compared > PROGRAMS * 3 / 4, "{compared} of {PROGRAMS} programs run");
    assert!(left.is_empty(), "{} of {PROGRAMS} programs keep tensors of many axes: {left:#?}", left.len());
}
