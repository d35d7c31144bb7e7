//! Which values are held in 8 bits, and the ops that take them there and back.

use super::range::Affine;
use crate::options::Pattern;
use indexmap::{IndexMap, IndexSet};
use mlconv_mil::{
    ir::{Function, InsertError, Module, OpId, Use, Value},
    ops::{Add, AvgPool, Cast, Concat, Const, Conv, ConvTranspose, Dequantize, Linear, Matmul, MaxPool, Quantize},
};
use mlconv_tensor::{DType, Tensor, Type};

/// A value that is to be held in 8 bits.
#[derive(Clone, Debug)]
pub struct Activation {
    /// The function, by its place in the module.
    pub function: usize,
    /// The value.
    pub value: Value,
    /// The name that it has in the program; with several functions, behind the function's.
    pub name: String,
    /// The type of the op that computes it; `None` for an input.
    pub op: Option<&'static str>,
    /// Its element type, `F16` or `F32`.
    pub dtype: DType,
    /// The ops that are to read it from 8 bits.
    pub readers: Vec<OpId>,
    /// Values of one group share a range, so that an op that only moves elements can move integers.
    pub group: usize,
}

/// Ops that activation functions are; one that alone reads a result is computed with it, and the result in between is no
/// value in memory.
const FUNCTIONS: &[&str] = &[
    "clamped_relu",
    "clip",
    "elu",
    "gelu",
    "leaky_relu",
    "prelu",
    "relu",
    "relu6",
    "scaled_tanh",
    "sigmoid",
    "sigmoid_hard",
    "silu",
    "softplus",
    "softsign",
    "tanh",
    "thresholded_relu",
];

/// What becomes of an op's values.
struct Arithmetic {
    operands: Vec<Value>,
    /// Whether its result is held in 8 bits as well, whoever reads it.
    result: bool,
    /// Whether a constant that is added to its result is a bias, which is added before anything is rounded.
    bias: bool,
}

/// The values of `module` that are held in 8 bits, in program order: operands of convolutions, products, sums and pools, and
/// the results of all but products of two activations. Ops that match `keep` are left alone, and so are results that only
/// leave the function.
pub fn activations(module: &Module, keep: &[Pattern]) -> Vec<Activation> {
    let mut all = vec![];
    for (function, f) in module.functions.iter().enumerate() {
        let kept = |id: OpId| keep.iter().any(|p| p.matches(module, f, id));
        let found = find(f, &kept);
        let groups = groups(f, &found);
        let first = all.len();
        for ((value, readers), group) in found.into_iter().zip(groups) {
            let Type::Tensor(ty) = f.ty(value) else { continue };
            let hint = &f.value(value).hint;
            all.push(Activation {
                function,
                value,
                name: if module.functions.len() > 1 { format!("{}.{hint}", f.name) } else { hint.to_string() },
                op: f.def_op(value).map(|id| f.op_data(id).op.schema().name),
                dtype: ty.dtype,
                readers: readers.into_iter().collect(),
                group: first + group,
            });
        }
    }
    all
}

/// Each value with the ops that are to read it from 8 bits.
fn find(f: &Function, kept: &dyn Fn(OpId) -> bool) -> IndexMap<Value, IndexSet<OpId>> {
    let mut found: IndexMap<Value, IndexSet<OpId>> = IndexMap::new();
    for id in f.all_ops() {
        let Some(a) = arithmetic(f, id).filter(|_| !kept(id)) else { continue };
        for v in a.operands {
            if f.def_op(v).is_none_or(|d| f.op::<Dequantize>(d).is_none()) {
                found.entry(v).or_default().insert(id);
            }
        }
        if let Some(v) = f.op_data(id).results.first().copied().filter(|_| a.result) {
            let v = if a.bias { behind_bias(f, v, kept) } else { v };
            let v = behind_function(f, v, kept);
            let readers: Vec<OpId> = readers(f, v).into_iter().filter(|r| !kept(*r) && !leaves(f, *r)).collect();
            let is_done = readers.iter().any(|r| f.op::<Quantize>(*r).is_some());
            if !is_done && !readers.is_empty() && is_float(f, v) {
                found.entry(v).or_default().extend(readers);
            }
        }
    }
    found
}

/// What of `id` is held in 8 bits; `None` for an op whose arithmetic is not done in them.
fn arithmetic(f: &Function, id: OpId) -> Option<Arithmetic> {
    let one = |x: Value, bias| is_activation(f, x).then(|| Arithmetic { operands: vec![x], result: true, bias });
    if let Some(op) = f.op::<Conv>(id) {
        return one(op.x, true);
    }
    if let Some(op) = f.op::<ConvTranspose>(id) {
        return one(op.x, true);
    }
    if let Some(op) = f.op::<Linear>(id) {
        return one(op.x, true);
    }
    if let Some(op) = f.op::<AvgPool>(id) {
        return one(op.x, false);
    }
    if let Some(op) = f.op::<MaxPool>(id) {
        return one(op.x, false);
    }
    if let Some(op) = f.op::<Add>(id) {
        // A constant operand is a bias: the sum has one activation, as a product has.
        let both = is_activation(f, op.x) && is_activation(f, op.y);
        return both.then(|| Arithmetic { operands: vec![op.x, op.y], result: true, bias: false });
    }
    let op = f.op::<Matmul>(id)?;
    let operands: Vec<Value> = [op.x, op.y].into_iter().filter(|v| is_activation(f, *v)).collect();
    // Products of two activations are scores before a softmax, which spreads their rounding.
    let result = operands.len() == 1;
    (!operands.is_empty()).then_some(Arithmetic { operands, result, bias: true })
}

/// Whether `v` is computed from the inputs: a float, neither a constant nor a decoded weight.
fn is_activation(f: &Function, v: Value) -> bool {
    let is_weight = |id: OpId| f.op::<Const>(id).is_some() || f.op_data(id).op.schema().constexpr;
    is_float(f, v) && !f.def_op(v).is_some_and(is_weight)
}

fn is_float(f: &Function, v: Value) -> bool {
    matches!(f.ty(v), Type::Tensor(t) if matches!(t.dtype, DType::F16 | DType::F32))
}

/// `v` with a bias added, where that is all that reads it.
fn behind_bias(f: &Function, v: Value, kept: &dyn Fn(OpId) -> bool) -> Value {
    let [Use::Op(id)] = f.uses(v) else { return v };
    let Some(add) = f.op::<Add>(*id).filter(|_| !kept(*id)) else { return v };
    let is_bias = !is_activation(f, add.x) || !is_activation(f, add.y);
    f.op_data(*id).results.first().copied().filter(|_| is_bias).unwrap_or(v)
}

/// The result of the activation function that alone reads `v`, or `v`.
fn behind_function(f: &Function, v: Value, kept: &dyn Fn(OpId) -> bool) -> Value {
    let [Use::Op(id)] = f.uses(v) else { return v };
    let data = f.op_data(*id);
    let is_function = FUNCTIONS.contains(&data.op.schema().name) && !kept(*id);
    data.results.first().copied().filter(|_| is_function).unwrap_or(v)
}

fn readers(f: &Function, v: Value) -> IndexSet<OpId> {
    let op = |u: &Use| match u {
        Use::Op(id) => Some(*id),
        Use::Yield(_) => None,
    };
    f.uses(v).iter().filter_map(op).collect()
}

/// Whether `id` only gives a value the type that an output has: what a model returns is not rounded to 8 bits.
fn leaves(f: &Function, id: OpId) -> bool {
    let is_output = |v: &Value| f.uses(*v).iter().all(|u| *u == Use::Yield(f.body()));
    f.op::<Cast>(id).is_some() && f.op_data(id).results.iter().all(is_output)
}

/// The group of each value: the first of those that a concatenation or a maximum joins it with.
fn groups(f: &Function, found: &IndexMap<Value, IndexSet<OpId>>) -> Vec<usize> {
    // Each value leads to an earlier one of its group, the first to itself.
    let mut earlier: Vec<usize> = (0..found.len()).collect();
    for id in f.all_ops() {
        let operands = match (f.op::<Concat>(id), f.op::<MaxPool>(id)) {
            (Some(op), _) => op.values.clone(),
            (_, Some(op)) => vec![op.x],
            (None, None) => continue,
        };
        let joined = operands.iter().chain(&f.op_data(id).results);
        let joined: Vec<usize> = joined.filter_map(|v| found.get_index_of(v)).map(|i| root(&mut earlier, i)).collect();
        if let Some(first) = joined.iter().copied().min() {
            joined.iter().for_each(|i| earlier[*i] = first);
        }
    }
    (0..earlier.len()).map(|i| root(&mut earlier, i)).collect()
}

/// The first of a value's group, found sooner the next time.
fn root(earlier: &mut [usize], mut i: usize) -> usize {
    while earlier[i] != i {
        earlier[i] = earlier[earlier[i]];
        i = earlier[i];
    }
    i
}

/// Puts `quantize` and `dequantize` behind each value, for all of its readers.
pub fn insert(module: &mut Module, all: &[(&Activation, Affine)]) -> Result<(), InsertError> {
    for (a, affine) in all {
        let f = &module.functions[a.function];
        let place = f.behind(a.value);
        let near = f.def_op(a.value).or(a.readers.first().copied());
        let origin = near.and_then(|id| f.op_data(id).origin);
        let origin = origin.map(|o| module.origins.rewritten("quantize_activations", [o]));
        let f = &mut module.functions[a.function];
        let hint = f.value(a.value).hint.clone();
        let mut constant = |what: &str, val: Tensor| -> Result<Value, InsertError> {
            Ok(f.insert(place, &[&format!("{hint}_{what}")], Box::new(Const { val }), origin)?[0])
        };
        let scale = constant("scale", Tensor::from_f64(a.dtype, &[], &[affine.scale]))?;
        let zero_point = match affine.zero_point {
            // What an op takes that is not given one.
            0 => None,
            z => Some(constant("zero_point", Tensor::from_i64(affine.dtype, &[], &[z]))?),
        };
        let quantize = Quantize { input: a.value, zero_point, scale, axis: None, output_dtype: affine.dtype };
        let input = f.insert(place, &[&format!("{hint}_quantized")], Box::new(quantize), origin)?[0];
        let dequantize = Dequantize { input, zero_point, scale, axis: None };
        let new = f.insert(place, &[&format!("{hint}_dequantized")], Box::new(dequantize), origin)?[0];
        for id in &a.readers {
            f.replace_operands(*id, &mut |v| if v == a.value { new } else { v });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::text::{Elide, parse, print};

    fn module(body: &str, inputs: &str) -> Module {
        let text = format!("func @main({inputs}) ios17 {{\n{body}}}\n");
        parse(&text).unwrap_or_else(|e| panic!("{e}"))
    }

    const UNIT: Affine = Affine { dtype: DType::I8, scale: 0.5, zero_point: 0 };

    /// Names of the values that are held in 8 bits, each with its readers, and its group.
    fn names(m: &Module, keep: &[&str]) -> Vec<String> {
        let keep: Vec<Pattern> = keep.iter().map(|p| Pattern::new(*p)).collect();
        let all = activations(m, &keep);
        let one = |a: &Activation| {
            let f = &m.functions[a.function];
            let readers: Vec<&str> = a.readers.iter().map(|id| f.op_data(*id).op.schema().name).collect();
            format!("{} → {} {}", a.name, readers.join(" "), a.group)
        };
        all.iter().map(one).collect()
    }

    const NETWORK: &str = "  %w = const(val=f16[2, 2, 1, 1] [1, 2, 3, 4])
  %a = conv(x=%x, weight=%w)
  %b = relu(x=%a)
  %c = conv(x=%b, weight=%w)
  %d = add(x=%c, y=%b)
  %s = sigmoid(x=%b)
  %y = mul(x=%d, y=%s)
  return %y
";

    #[test]
    fn operands_and_results_are_held_in_8_bits() {
        let m = module(NETWORK, "%x: f16[1, 2, 4, 4]");
        assert_eq!(names(&m, &[]), ["x → conv 0", "b → conv add sigmoid 1", "c → add 2", "d → mul 3"]);
        assert_eq!(names(&m, &["add"]), ["x → conv 0", "b → conv sigmoid 1"]);
        assert_eq!(names(&m, &["a"]), ["b → conv add 0", "c → add 1", "d → mul 2"]);
        assert!(names(&m, &["conv", "add"]).is_empty());
    }

    #[test]
    fn all_readers_share_a_pair() {
        let mut m = module(NETWORK, "%x: f16[1, 2, 4, 4]");
        let all = activations(&m, &[]);
        let zero_point = Affine { zero_point: 3, ..UNIT };
        insert(&mut m, &all.iter().map(|a| (a, if a.name == "b" { zero_point } else { UNIT })).collect::<Vec<_>>())
            .expect("pairs fit");
        let text = print(&m, Elide::Never);
        assert_eq!(text.matches(" quantize(").count(), 4, "{text}");
        assert_eq!(text.matches("%b_dequantized").count(), 4, "{text}");
        assert_eq!(text.matches("zero_point=%b_zero_point").count(), 2, "{text}");
        mlconv_mil::verify::verify(m.clone()).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
        assert!(activations(&m, &[]).is_empty(), "nothing is doubled: {text}");
    }

    #[test]
    fn outputs_are_not_rounded() {
        let body = "  %w = const(val=f16[2, 2] [1, 2, 3, 4])
  %a = linear(x=%x, weight=%w)
  %b = linear(x=%a, weight=%w)
  %y = cast(x=%b, dtype=\"fp32\")
  return %a, %y
";
        let m = module(body, "%x: f16[1, 2]");
        assert_eq!(names(&m, &[]), ["x → linear 0", "a → linear 1"]);
    }

    #[test]
    fn constants_are_no_activations() {
        let body = "  %w = const(val=f16[2, 2] [1, 2, 3, 4])
  %a = add(x=%x, y=%w)
  %b = matmul(x=%a, y=%w)
  %c = matmul(x=%b, y=%a)
  %d = softmax(x=%c, axis=-1)
  %e = matmul(x=%d, y=%w)
  %g = add(x=%w, y=%e)
  %h = gelu(x=%g)
  %y = matmul(x=%h, y=%w)
  return %y
";
        let m = module(body, "%x: f16[2, 2]");
        assert_eq!(names(&m, &[]), ["a → matmul matmul 0", "b → matmul 1", "d → matmul 2", "h → matmul 3"]);
    }

    #[test]
    fn what_is_joined_shares_a_range() {
        let body = "  %w = const(val=f16[2, 2, 1, 1] [1, 2, 3, 4])
  %a = conv(x=%x, weight=%w)
  %b = conv(x=%x, weight=%w)
  %c = concat(values=(%a, %b), axis=1)
  %p = max_pool(x=%c, kernel_sizes=[2, 2], strides=[2, 2], pad_type=\"valid\")
  %y = relu(x=%p)
  return %y
";
        let m = module(body, "%x: f16[1, 2, 4, 4]");
        assert_eq!(names(&m, &[]), ["x → conv conv 0", "a → concat 1", "b → concat 1", "c → max_pool 1"]);
    }
}
