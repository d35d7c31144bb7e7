//! Arithmetic on sizes: what a program computes of its tensors' shapes, as tensors without axes.

use mlconv_mil::{ir::Value, ops, schema::Op};
use mlconv_source::{Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

aten! {
    "sym_size.int(Tensor self, int dim) -> SymInt", "size.int(Tensor self, int dim) -> SymInt" => |n| {
        let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
        let axis = n.axis(x, dim)?;
        let y = number(n, &[Size::Of(x, axis)])?;
        n.done(y)
    };
    "sym_numel(Tensor self) -> SymInt", "numel(Tensor self) -> SymInt" => |n| {
        let x = n.value("self")?;
        let sizes = n.own_sizes(x)?;
        let y = number(n, &sizes)?;
        n.done(y)
    };
    "sym_stride.int(Tensor self, int dim) -> SymInt", "stride.int(Tensor self, int dim) -> SymInt" => |n| {
        let (x, dim) = (n.value("self")?, n.int_or("dim", 0)?);
        in_order(n)?;
        let axis = n.axis(x, dim)?;
        let sizes = n.own_sizes(x)?;
        let y = number(n, sizes.get(axis + 1..).unwrap_or_default())?;
        n.done(y)
    };
    "sym_storage_offset(Tensor self) -> SymInt", "storage_offset(Tensor self) -> int" => |n| { n.ignore("self"); in_order(n)?; let y = n.const_int(0)?; n.done(y) };
    "sym_is_contiguous(Tensor self, MemoryFormat memory_format=contiguous_format) -> SymBool", "is_contiguous(Tensor self) -> bool" =>
        |n| { n.ignore("self"); n.ignore("memory_format"); let y = n.const_scalar(DType::Bool, 1.0)?; n.done(y) };
    "item(Tensor self) -> Scalar", "_local_scalar_dense(Tensor self) -> Scalar" => |n| { let x = n.value("self")?; let y = n.as_scalar(x)?; n.done(y) };
    "_operator::add(Scalar a, Scalar b) -> Scalar" => |n| pair(n, |x, y| ops::Add { x, y });
    "_operator::sub(Scalar a, Scalar b) -> Scalar" => |n| pair(n, |x, y| ops::Sub { x, y });
    "_operator::mul(Scalar a, Scalar b) -> Scalar" => |n| pair(n, |x, y| ops::Mul { x, y });
    "_operator::floordiv(Scalar a, Scalar b) -> Scalar" => |n| pair(n, |x, y| ops::FloorDiv { x, y });
    "_operator::mod(Scalar a, Scalar b) -> Scalar" => |n| pair(n, |x, y| ops::Mod { x, y });
    "_operator::truediv(Scalar a, Scalar b) -> Scalar", "torch::_sym_int_truediv(Scalar a, Scalar b) -> Scalar" => |n| {
        let [x, y] = operands(n)?;
        let (x, y) = (n.as_float(x)?, n.as_float(y)?);
        n.emit(ops::RealDiv { x, y })
    };
    "_operator::pow(Scalar a, Scalar b) -> Scalar" => pow;
    "_operator::neg(Scalar a) -> Scalar" => |n| { let x = n.value("a")?; let y = n.scale(x, -1.0)?; n.done(y) };
    "_operator::pos(Scalar a) -> Scalar" => |n| { let x = n.value("a")?; n.done(x) };
    "_operator::abs(Scalar a) -> Scalar" => |n| { let x = n.value("a")?; n.emit(ops::Abs { x }) };
    "_operator::eq(Scalar a, Scalar b) -> bool" => |n| compare(n, |x, y| ops::Equal { x, y });
    "_operator::ne(Scalar a, Scalar b) -> bool" => |n| compare(n, |x, y| ops::NotEqual { x, y });
    "_operator::lt(Scalar a, Scalar b) -> bool" => |n| compare(n, |x, y| ops::Less { x, y });
    "_operator::le(Scalar a, Scalar b) -> bool" => |n| compare(n, |x, y| ops::LessEqual { x, y });
    "_operator::gt(Scalar a, Scalar b) -> bool" => |n| compare(n, |x, y| ops::Greater { x, y });
    "_operator::ge(Scalar a, Scalar b) -> bool" => |n| compare(n, |x, y| ops::GreaterEqual { x, y });
    "_operator::and_(Scalar a, Scalar b) -> bool", "_operator::and(Scalar a, Scalar b) -> bool" => |n| logic(n, |x, y| ops::LogicalAnd { x, y });
    "_operator::or_(Scalar a, Scalar b) -> bool", "_operator::or(Scalar a, Scalar b) -> bool" => |n| logic(n, |x, y| ops::LogicalOr { x, y });
    "torch::sym_not(Scalar a) -> bool", "_operator::not_(Scalar a) -> bool" => |n| { let x = n.value("a")?; let x = n.cast(x, DType::Bool)?; n.emit(ops::LogicalNot { x }) };
    "torch::sym_max(Scalar a, Scalar b) -> Scalar" => |n| pair(n, |x, y| ops::Maximum { x, y });
    "torch::sym_min(Scalar a, Scalar b) -> Scalar" => |n| pair(n, |x, y| ops::Minimum { x, y });
    "torch::sym_float(Scalar a) -> Scalar" => |n| { let x = n.value("a")?; let x = n.as_scalar(x)?; let y = n.as_float(x)?; n.done(y) };
    "torch::sym_int(Scalar a) -> Scalar", "math::trunc(Scalar x) -> Scalar", "builtins::int(Scalar a) -> Scalar" => |n| {
        let x = one(n)?;
        let x = n.as_scalar(x)?;
        let y = n.cast(x, DType::I32)?;
        n.done(y)
    };
    "math::floor(Scalar x) -> Scalar" => |n| whole(n, |x| ops::Floor { x });
    "math::ceil(Scalar x) -> Scalar" => |n| whole(n, |x| ops::Ceil { x });
    "builtins::round(Scalar number) -> Scalar" => |n| whole(n, |x| ops::Round { x });
    "torch::_sym_sqrt(Scalar a) -> Scalar", "math::sqrt(Scalar a) -> Scalar" => |n| { let x = one(n)?; let x = n.as_float(x)?; n.emit(ops::Sqrt { x }) };
    "torch::_sym_cos(Scalar a) -> Scalar" => |n| { let x = one(n)?; let x = n.as_float(x)?; n.emit(ops::Cos { x }) };
    "torch::_sym_sin(Scalar a) -> Scalar" => |n| { let x = one(n)?; let x = n.as_float(x)?; n.emit(ops::Sin { x }) };
    "torch::_sym_exp(Scalar a) -> Scalar" => |n| { let x = one(n)?; let x = n.as_float(x)?; n.emit(ops::Exp { x }) };
    "torch::_sym_log2(Scalar a) -> Scalar" => |n| { let x = one(n)?; let x = n.as_float(x)?; let y = n.log(x)?; let y = n.scale(y, std::f64::consts::LOG2_E)?; n.done(y) };
    "torch::sym_ite(Scalar b, Scalar t, Scalar f) -> Scalar" => |n| {
        let (cond, a, b) = (n.value("b")?, n.value("t")?, n.value("f")?);
        let float = n.dtype(a)?.is_float() || n.dtype(b)?.is_float();
        let (a, b) = if float { (n.as_float(a)?, n.as_float(b)?) } else { (a, b) };
        n.emit(ops::Select { cond, a, b })
    };
    "torch::sym_sum(Scalar[] args) -> Scalar" => |n| {
        let all = n.values("args")?;
        let mut sum = n.const_int(0)?;
        for v in all {
            sum = n.add(sum, v)?;
        }
        n.done(sum)
    };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The product of sizes as a tensor without axes.
fn number(n: &mut Lower<'_>, sizes: &[Size]) -> Result<Value> {
    let mut product: Option<Value> = None;
    for size in sizes {
        let one = n.sizes_exactly(&[*size])?;
        let one = n.squeeze(one, &[0])?;
        product = Some(match product {
            Some(p) => n.mul(p, one)?,
            None => one,
        });
    }
    match product {
        Some(p) => Ok(p),
        None => n.const_int(1),
    }
}

/// Refuses to say how a tensor lies in memory that is a view of another one, which is a tensor of its own here.
fn in_order(n: &mut Lower<'_>) -> Result<()> {
    if n.has("self_layout") { Err(LowerError::form("how a view lies in memory")) } else { Ok(()) }
}

/// The argument of a function of one, whatever it is called.
fn one(n: &mut Lower<'_>) -> Result<Value> {
    if n.has("a") { n.value("a") } else { n.value("x") }
}

/// Two numbers, of which one being a float makes the other one too.
fn operands(n: &mut Lower<'_>) -> Result<[Value; 2]> {
    let (x, y) = (n.value("a")?, n.value("b")?);
    let mut both = [n.as_scalar(x)?, n.as_scalar(y)?];
    let float = n.dtype(both[0])?.is_float() || n.dtype(both[1])?.is_float();
    for v in &mut both {
        *v = if float {
            n.as_float(*v)?
        } else if n.dtype(*v)? == DType::Bool {
            n.cast(*v, DType::I32)?
        } else {
            *v
        };
    }
    Ok(both)
}

fn pair<O: Op>(n: &mut Lower<'_>, op: fn(Value, Value) -> O) -> Lowered {
    let [x, y] = operands(n)?;
    n.emit(op(x, y))
}

fn compare<O: Op>(n: &mut Lower<'_>, op: fn(Value, Value) -> O) -> Lowered {
    pair(n, op)
}

fn logic<O: Op>(n: &mut Lower<'_>, op: fn(Value, Value) -> O) -> Lowered {
    let (x, y) = (n.value("a")?, n.value("b")?);
    let (x, y) = (n.cast(x, DType::Bool)?, n.cast(y, DType::Bool)?);
    n.emit(op(x, y))
}

/// A float as the integer next to it.
fn whole<O: Op>(n: &mut Lower<'_>, op: fn(Value) -> O) -> Lowered {
    let x = if n.has("number") { n.value("number")? } else { one(n)? };
    if !n.dtype(x)?.is_float() {
        return n.done(x);
    }
    let y = n.op(op(x))?;
    let y = n.cast(y, DType::I32)?;
    n.done(y)
}

/// A small exponent is a product, of which sizes stay known.
fn pow(n: &mut Lower<'_>) -> Lowered {
    let [x, y] = operands(n)?;
    match n.known_ints(y).and_then(|e| e.first().copied()) {
        Some(e @ 1..=8) => {
            let mut product = x;
            for _ in 1..e {
                product = n.mul(product, x)?;
            }
            n.done(product)
        }
        _ => n.emit(ops::Pow { x, y }),
    }
}
