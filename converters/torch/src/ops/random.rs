//! Random numbers, drawn when the program runs.
//!
//! No two makers of them promise the same numbers: what is kept is the distribution.

use super::promote::converted;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered, Size};
use mlconv_tensor::DType;

aten! {
    "rand(SymInt[] size, *, ScalarType? dtype=None) -> Tensor", "rand.generator(SymInt[] size, *, Generator? generator, ScalarType? dtype=None) -> Tensor" => |n| of_size(n, uniform);
    "rand_like(Tensor self, *, ScalarType? dtype=None) -> Tensor" => |n| like(n, uniform);
    "randn(SymInt[] size, *, ScalarType? dtype=None) -> Tensor", "randn.generator(SymInt[] size, *, Generator? generator, ScalarType? dtype=None) -> Tensor" => |n| of_size(n, normal);
    "randn_like(Tensor self, *, ScalarType? dtype=None) -> Tensor" => |n| like(n, normal);
    "randint(SymInt high, SymInt[] size, *, ScalarType? dtype=None) -> Tensor", "randint.low(SymInt low, SymInt high, SymInt[] size, *, ScalarType? dtype=None) -> Tensor" => |n| {
        let sizes = n.sizes_arg("size")?.unwrap_or_default();
        integers(n, &sizes, DType::I64)
    };
    "randint_like(Tensor self, SymInt high, *, ScalarType? dtype=None) -> Tensor", "randint_like.low_dtype(Tensor self, SymInt low, SymInt high, *, ScalarType? dtype=None) -> Tensor" => |n| {
        let x = n.value("self")?;
        let (sizes, own) = (n.own_sizes(x)?, n.dtype(x)?);
        integers(n, &sizes, own)
    };
    "randperm(SymInt n, *, ScalarType? dtype=None) -> Tensor" => |n| {
        let dtype = n.dtype_arg("dtype")?.unwrap_or(DType::I64);
        let Some(size) = n.size("n")? else { return n.bad_attr("n", "a size") };
        let x = drawn(n, &[size], uniform)?;
        let order = n.op(ops::Argsort { x, axis: 0, ascending: true })?;
        let y = converted(n, order, dtype)?;
        n.done(y)
    };
    "bernoulli(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; let p = n.as_float(x)?; chances(n, x, p) };
    "bernoulli.p(Tensor self, float p=0.5) -> Tensor" => |n| { let x = n.value("self")?; let p = n.number("p")?.unwrap_or(0.5); let p = n.const_scalar(DType::F32, p)?; chances(n, x, p) };
    "bernoulli.Tensor(Tensor self, Tensor p) -> Tensor" => |n| { let (x, p) = (n.value("self")?, n.value("p")?); let p = n.as_float(p)?; chances(n, x, p) };
    "uniform(Tensor self, float from=0, float to=1) -> Tensor" => |n| {
        let x = n.value("self")?;
        let (low, high) = (n.number("from")?.unwrap_or(0.0), n.number("to")?.unwrap_or(1.0));
        scaled_like(n, x, uniform, high - low, low)
    };
    "normal_functional(Tensor self, float mean=0, float std=1) -> Tensor", "normal(Tensor self, float mean=0, float std=1) -> Tensor" => |n| {
        let x = n.value("self")?;
        let (mean, std) = (n.number("mean")?.unwrap_or(0.0), n.number("std")?.unwrap_or(1.0));
        scaled_like(n, x, normal, std, mean)
    };
    "normal.float_float(float mean, float std, SymInt[] size, *, ScalarType? dtype=None) -> Tensor" => |n| {
        let (mean, std) = (n.number("mean")?.unwrap_or(0.0), n.number("std")?.unwrap_or(1.0));
        let dtype = n.dtype_arg("dtype")?.unwrap_or(DType::F32);
        let sizes = n.sizes_arg("size")?.unwrap_or_default();
        let y = drawn(n, &sizes, normal)?;
        let y = n.scale(y, std)?;
        let y = n.add_number(y, mean)?;
        let y = converted(n, y, dtype)?;
        n.done(y)
    };
    "normal.Tensor_float(Tensor mean, float std=1) -> Tensor" => |n| {
        let (mean, std) = (n.value("mean")?, n.number("std")?.unwrap_or(1.0));
        let sizes = n.own_sizes(mean)?;
        let y = drawn(n, &sizes, normal)?;
        let dtype = n.dtype(mean)?;
        let y = n.cast(y, dtype)?;
        let y = n.scale(y, std)?;
        n.emit(ops::Add { x: y, y: mean })
    };
    "normal.Tensor_Tensor(Tensor mean, Tensor std) -> Tensor" => |n| {
        let (mean, std) = (n.value("mean")?, n.value("std")?);
        let sum = n.add(mean, std)?;
        let sizes = n.own_sizes(sum)?;
        let y = drawn(n, &sizes, normal)?;
        let dtype = n.dtype(mean)?;
        let y = n.cast(y, dtype)?;
        let y = n.mul(y, std)?;
        n.emit(ops::Add { x: y, y: mean })
    };
    "multinomial(Tensor self, SymInt num_samples, bool replacement=False) -> Tensor" => multinomial;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Draws numbers of a distribution in a shape.
type Draw = fn(&mut Lower<'_>, Value) -> Result<Value>;

fn uniform(n: &mut Lower<'_>, shape: Value) -> Result<Value> {
    let (low, high) = (n.const_scalar(DType::F32, 0.0)?, n.const_scalar(DType::F32, 1.0)?);
    n.op(ops::RandomUniform { shape, low: Some(low), high: Some(high), seed: -1 })
}

fn normal(n: &mut Lower<'_>, shape: Value) -> Result<Value> {
    let (mean, stddev) = (n.const_scalar(DType::F32, 0.0)?, n.const_scalar(DType::F32, 1.0)?);
    n.op(ops::RandomNormal { shape, mean: Some(mean), stddev: Some(stddev), seed: -1 })
}

fn warn_of_chance(n: &mut Lower<'_>) {
    n.warn_of_chance(
        "random numbers are drawn anew in every run",
        "feed the numbers as an input of the model where they matter",
    );
}

/// Numbers of a distribution; a tensor without axes is one of them.
fn drawn(n: &mut Lower<'_>, sizes: &[Size], draw: Draw) -> Result<Value> {
    warn_of_chance(n);
    if sizes.is_empty() {
        let one = n.const_ints(&[1])?;
        let y = draw(n, one)?;
        return n.squeeze(y, &[0]);
    }
    let shape = n.sizes_exactly(sizes)?;
    draw(n, shape)
}

fn of_size(n: &mut Lower<'_>, draw: Draw) -> Lowered {
    let dtype = n.dtype_arg("dtype")?.unwrap_or(DType::F32);
    let sizes = n.sizes_arg("size")?.unwrap_or_default();
    let y = drawn(n, &sizes, draw)?;
    let y = converted(n, y, dtype)?;
    n.done(y)
}

fn like(n: &mut Lower<'_>, draw: Draw) -> Lowered {
    let x = n.value("self")?;
    let dtype = n.dtype_arg("dtype")?.unwrap_or(n.dtype(x)?);
    let sizes = n.own_sizes(x)?;
    let y = drawn(n, &sizes, draw)?;
    let y = converted(n, y, dtype)?;
    n.done(y)
}

fn scaled_like(n: &mut Lower<'_>, x: Value, draw: Draw, factor: f64, summand: f64) -> Lowered {
    let (sizes, dtype) = (n.own_sizes(x)?, n.dtype(x)?);
    let y = drawn(n, &sizes, draw)?;
    let y = n.scale(y, factor)?;
    let y = n.add_number(y, summand)?;
    let y = n.cast(y, dtype)?;
    n.done(y)
}

fn integers(n: &mut Lower<'_>, sizes: &[Size], own: DType) -> Lowered {
    let dtype = n.dtype_arg("dtype")?.unwrap_or(own);
    let (low, high) = (n.int_or("low", 0)?, n.int_or("high", 1)?);
    if high <= low {
        return n.bad_attr("high", "more than `low`");
    }
    let y = drawn(n, sizes, uniform)?;
    let y = n.scale(y, high as f64 - low as f64)?;
    let y = n.add_number(y, low as f64)?;
    let y = n.op(ops::Floor { x: y })?;
    // Rounding may have reached the end.
    let last = n.scalar_like(y, high as f64 - 1.0)?;
    let y = n.minimum(y, last)?;
    let y = converted(n, y, dtype)?;
    n.done(y)
}

/// 1 where a number drawn from `0..1` is below the probability.
fn chances(n: &mut Lower<'_>, x: Value, p: Value) -> Lowered {
    let (sizes, dtype) = (n.own_sizes(x)?, n.dtype(x)?);
    let numbers = drawn(n, &sizes, uniform)?;
    let p = n.cast(p, DType::F32)?;
    let hit = n.less(numbers, p)?;
    let y = n.cast(hit, dtype)?;
    n.done(y)
}

fn multinomial(n: &mut Lower<'_>) -> Lowered {
    let (x, count, again) = (n.value("self")?, n.int_or("num_samples", 1)?, n.flag("replacement", false)?);
    if !(1..=1 << 24).contains(&count) {
        return n.bad_attr("num_samples", "1 to 16777216");
    }
    let x = n.as_float(x)?;
    let x = n.cast(x, DType::F32)?;
    let vector = n.rank(x)? == 1;
    let x = if vector { n.expand_dims(x, &[0])? } else { x };
    let logits = n.log(x)?;
    let y = if again || count == 1 {
        warn_of_chance(n);
        n.op(ops::RandomCategorical { x: logits, mode: ops::CategoricalMode::Logits, size: count, seed: -1 })?
    } else {
        // The greatest of logarithms of probabilities, each with noise of Gumbel's distribution, are drawn without
        // replacement.
        let sizes = n.own_sizes(x)?;
        let noise = drawn(n, &sizes, uniform)?;
        let noise = n.log(noise)?;
        let noise = n.scale(noise, -1.0)?;
        let noise = n.log(noise)?;
        let keys = n.sub(logits, noise)?;
        let axis = n.rank(keys)? - 1;
        let [_, places] = n.top(keys, Size::Known(count), axis, true)?;
        places
    };
    let y = n.cast(y, DType::I32)?;
    let y = if vector { n.squeeze(y, &[0])? } else { y };
    n.done(y)
}
