//! Throws arguments that make no sense at every op of the catalogue: inference and kernels refuse them, and never panic.

use mlconv_mil::{
    ir::{Block, Function, Place, Port, Value},
    ops::{Const, OPS},
    schema::{
        Arg, Args, Arity, Attr, AttrDefault, Env, EvalCx, InferCx, Op, OpError, OpInfo, Opset, ParamKind, Tensors,
    },
};
use mlconv_tensor::{DType, Dim, Shape, Tensor, TensorType};

/// Arguments tried per op.
const ROUNDS: usize = 4000;
/// Elements beyond which a result is not computed: what is tested is sense, not patience.
const MAX_COUNT: i64 = 1 << 14;

#[test]
fn no_arguments_make_an_op_panic() {
    let mut random = Random(1);
    for opset in [Opset::Ios16, Opset::Ios18] {
        let (f, values) = pool(opset);
        for info in OPS.iter().filter(|o| o.schema.exists_in(opset)) {
            for _ in 0..ROUNDS {
                if let Ok(op) = build(info, &f, &values, &mut random) {
                    run(&*op, &f);
                }
            }
        }
    }
}

/// A sequence that looks random and is always the same. Source: Steele et al. 2014, "Fast splittable pseudorandom number
/// generators".
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % n as u64) as usize
    }
}

/// Values of many types: constants, and inputs with symbolic sizes.
fn pool(opset: Opset) -> (Function, Vec<Value>) {
    let mut f = Function::new("main", opset);
    let mut values = vec![];
    let symbols = [Dim::symbol("n"), Dim::symbol("m"), Dim::symbol("n") - 3, Dim::from(i64::MAX), Dim::from(0)];
    for dtype in [DType::F32, DType::I32] {
        for d in &symbols {
            for shape in [vec![d.clone()], vec![Dim::from(2), d.clone()], vec![d.clone(), d.clone(), Dim::from(3)]] {
                values.push(f.add_input(Port::new("x"), TensorType::new(dtype, Shape::from(shape))));
            }
        }
    }
    let shapes: [&[usize]; 13] = [
        &[],
        &[1],
        &[2],
        &[3],
        &[4],
        &[0],
        &[2, 3],
        &[3, 2],
        &[1, 2],
        &[2, 2, 3],
        &[1, 0, 2],
        &[1, 2, 3, 2],
        &[2, 1, 2, 2],
    ];
    let types =
        [DType::F32, DType::F16, DType::I32, DType::I8, DType::U8, DType::U32, DType::Bool, DType::U1, DType::I4];
    for dtype in types {
        for shape in shapes {
            for start in [-2i64, 0, i64::from(i32::MAX) - 1] {
                let count: usize = shape.iter().product();
                let ints: Vec<i64> = (0..count as i64).map(|i| start + i).collect();
                let val = Tensor::from_i64(dtype, shape, &ints);
                let placed = f.insert(Place::End(f.body()), &["c"], Box::new(Const { val }), None);
                values.extend(placed.iter().flatten());
            }
        }
    }
    (f, values)
}

fn build(info: &OpInfo, f: &Function, values: &[Value], random: &mut Random) -> Result<Box<dyn Op>, OpError> {
    // One value, mostly of a type that the op takes, or any: most ops want operands that go together.
    let near = values[random.below(values.len())];
    let pick = |domain: &'static str, random: &mut Random| {
        let allowed = info.schema.types(domain, f.opset);
        let fits = |v: Value| allowed.as_ref().is_none_or(|a| f.ty(v).tensor().is_some_and(|t| a.contains(&t.dtype)));
        let tries = 1 + random.below(16);
        let found = (0..tries).map(|_| if random.below(2) == 0 { near } else { values[random.below(values.len())] });
        found.filter(|v| fits(*v)).last().unwrap_or(near)
    };
    let (mut operands, mut attrs) = (vec![], vec![]);
    for p in info.schema.params {
        match &p.kind {
            ParamKind::Operand { domain, arity, .. } => {
                let count = match arity {
                    Arity::One => 1,
                    Arity::Optional => random.below(2),
                    Arity::Many => random.below(4),
                };
                operands.push((p.name, (0..count).map(|_| pick(domain, random)).collect::<Vec<_>>()));
            }
            ParamKind::Attr { default, .. } => {
                if matches!(default, AttrDefault::Required) || random.below(2) == 0 {
                    attrs.push((p, literal(&p.kind, random)));
                }
            }
            // Blocks are another matter: they are never made up by readers.
            ParamKind::Region => return Err(OpError::NoKernel),
        }
    }
    loop {
        let mut args = Args::new(f);
        for (name, values) in &operands {
            args.add_operand(*name, values.clone());
        }
        for (p, attr) in &attrs {
            args.add_attr(p.name, attr.clone());
        }
        match (info.build)(&mut args) {
            // A literal of the wrong kind ends most attempts early; others are more telling.
            Err(OpError::Kind { param, .. }) if random.below(50) > 0 => {
                for (p, attr) in attrs.iter_mut().filter(|(p, _)| p.name == param) {
                    *attr = literal(&p.kind, random);
                }
            }
            done => return done,
        }
    }
}

/// A literal of the kind of the default, where it tells.
fn literal(kind: &ParamKind, random: &mut Random) -> Attr {
    let ParamKind::Attr { default, choices, .. } = kind else { return Attr::Int(0) };
    if let all @ [_, ..] = choices() {
        return Attr::Str(all[random.below(all.len())].to_owned());
    }
    let int = |random: &mut Random| {
        let odd = [i64::MIN, i64::MAX, 1 << 31, -(1 << 31), 1 << 40, 1000];
        if random.below(10) == 0 { odd[random.below(odd.len())] } else { random.below(9) as i64 - 4 }
    };
    let float = |random: &mut Random| [0.0, 1.0, -0.5, 1e-5, f32::NAN, f32::INFINITY][random.below(6)];
    let len = random.below(5);
    let known = if let AttrDefault::Value(d) = default { d() } else { None };
    let kind = match known {
        Some(Attr::Int(_)) => 0,
        Some(Attr::Float(_)) => 1,
        Some(Attr::Bool(_)) => 2,
        Some(Attr::Ints(_)) => 3,
        _ => random.below(7),
    };
    match kind {
        0 => Attr::Int(int(random)),
        1 => Attr::Float(float(random)),
        2 => Attr::Bool(random.below(2) == 0),
        3 => Attr::Ints((0..len).map(|_| int(random)).collect()),
        4 => Attr::Bools((0..len).map(|_| random.below(2) == 0).collect()),
        5 => Attr::Strs((0..len).map(|i| format!("{i}")).collect()),
        _ => Attr::Str(["fp32", "int32", "ab,bc->ac", ""][random.below(4)].to_owned()),
    }
}

/// Infers, and evaluates where the operands are constants of types that the op takes.
fn run(op: &dyn Op, f: &Function) {
    let Ok(facts) = op.infer(&InferCx::new(f, f.opset, 7)) else { return };
    let mut all = true;
    for arg in op.args() {
        let (Arg::Operands(values), Some(ParamKind::Operand { domain, .. })) = (&arg.arg, arg.param.map(|p| &p.kind))
        else {
            continue;
        };
        let allowed = op.schema().types(domain, f.opset);
        for v in values.iter() {
            all &= f.constant(*v).is_some_and(|t| allowed.as_ref().is_none_or(|a| a.contains(&t.dtype())));
        }
    }
    let small = |t: &TensorType| t.shape.count().as_known().is_none_or(|n| n <= MAX_COUNT);
    if !all || !facts.iter().all(|x| x.ty.tensor().is_none_or(small)) {
        return;
    }
    let env = Constants { f };
    if let Ok(cx) = EvalCx::new(&env, &facts)
        && let Ok(results) = op.eval(&cx)
    {
        assert_eq!(results.len(), facts.len(), "{op:?}");
        for (t, fact) in results.iter().zip(&facts) {
            let Some(want) = fact.ty.tensor() else { continue };
            let found = Shape::from(t.shape());
            assert!(t.dtype() == want.dtype && found.may_equal(&want.shape), "{op:?} gave {t:?}, inferred was {want}");
            let known = fact.ints.as_ref().and_then(|ints| ints.iter().map(Dim::as_known).collect::<Option<Vec<_>>>());
            // Sizes do not wrap, where elements do.
            let fits = |i: &i64| want.dtype.int_range().is_some_and(|(lo, hi)| (lo..=hi).contains(&i128::from(*i)));
            if let Some(ints) = known.filter(|ints| ints.iter().all(fits)) {
                assert_eq!(t.to_i64(), ints, "{op:?} knew other integers");
            }
        }
    }
}

struct Constants<'a> {
    f: &'a Function,
}

impl Env for Constants<'_> {
    fn tensor(&self, v: Value) -> &Tensor {
        self.f.constant(v).unwrap_or_else(|| unreachable!("only constants are evaluated"))
    }
    fn run_block(&self, _: Block, _: Tensors) -> Result<Tensors, OpError> {
        Err(OpError::NoKernel)
    }
    fn read_state(&self, _: Value) -> Tensor {
        Tensor::scalar(0f32)
    }
    fn write_state(&self, _: Value, _: Tensor) {}
    fn opset(&self) -> Opset {
        self.f.opset
    }
}
