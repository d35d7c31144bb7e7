//! Tensors made from little: filled, counted up, spread between two numbers.

use super::promote::converted;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Arg, Lower, LowerError, Lowered, Size, narrowed};
use mlconv_tensor::{DType, Tensor};

aten! {
    "arange(Scalar end, *, ScalarType? dtype=None) -> Tensor",
    "arange.start(Scalar start, Scalar end, *, ScalarType? dtype=None) -> Tensor",
    "arange.start_step(Scalar start, Scalar end, Scalar step=1, *, ScalarType? dtype=None) -> Tensor" => arange;
    "range(Scalar start, Scalar end, *, ScalarType? dtype=None) -> Tensor",
    "range.step(Scalar start, Scalar end, Scalar step=1, *, ScalarType? dtype=None) -> Tensor" => with_end;
    "linspace(Scalar start, Scalar end, int steps, *, ScalarType? dtype=None) -> Tensor",
    "linspace.Tensor_Tensor(Tensor start, Tensor end, int steps, *, ScalarType? dtype=None) -> Tensor",
    "linspace.Tensor_Scalar(Tensor start, Scalar end, int steps, *, ScalarType? dtype=None) -> Tensor",
    "linspace.Scalar_Tensor(Scalar start, Tensor end, int steps, *, ScalarType? dtype=None) -> Tensor" => |n| spread(n, false);
    "logspace(Scalar start, Scalar end, int steps, float base=10.0, *, ScalarType? dtype=None) -> Tensor",
    "logspace.Tensor_Tensor(Tensor start, Tensor end, int steps, float base=10.0, *, ScalarType? dtype=None) -> Tensor",
    "logspace.Tensor_Scalar(Tensor start, Scalar end, int steps, float base=10.0, *, ScalarType? dtype=None) -> Tensor",
    "logspace.Scalar_Tensor(Scalar start, Tensor end, int steps, float base=10.0, *, ScalarType? dtype=None) -> Tensor" => |n| spread(n, true);
    "full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None) -> Tensor" => |n| full(n, None);
    "new_full(Tensor self, SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None) -> Tensor" => |n| { let like = n.value("self")?; full(n, Some(like)) };
    "full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None) -> Tensor" => full_like;
    "zeros(SymInt[] size, *, ScalarType? dtype=None) -> Tensor",
    "empty.memory_format(SymInt[] size, *, ScalarType? dtype=None) -> Tensor",
    "empty_permuted(SymInt[] size, int[] physical_layout, *, ScalarType? dtype=None) -> Tensor",
    "empty_strided(SymInt[] size, SymInt[] stride, *, ScalarType? dtype=None) -> Tensor" => |n| { without_layout(n); of_size(n, None, 0.0) };
    "ones(SymInt[] size, *, ScalarType? dtype=None) -> Tensor" => |n| of_size(n, None, 1.0);
    "new_zeros(Tensor self, SymInt[] size, *, ScalarType? dtype=None) -> Tensor",
    "new_empty(Tensor self, SymInt[] size, *, ScalarType? dtype=None) -> Tensor",
    "new_empty_strided(Tensor self, SymInt[] size, SymInt[] stride, *, ScalarType? dtype=None) -> Tensor" => |n| { without_layout(n); let like = n.value("self")?; of_size(n, Some(like), 0.0) };
    "new_ones(Tensor self, SymInt[] size, *, ScalarType? dtype=None) -> Tensor" => |n| { let like = n.value("self")?; of_size(n, Some(like), 1.0) };
    "zeros_like(Tensor self, *, ScalarType? dtype=None) -> Tensor", "empty_like(Tensor self, *, ScalarType? dtype=None) -> Tensor",
    "zero(Tensor self) -> Tensor" => |n| as_large(n, 0.0);
    "ones_like(Tensor self, *, ScalarType? dtype=None) -> Tensor" => |n| as_large(n, 1.0);
    "eye(SymInt n, *, ScalarType? dtype=None) -> Tensor", "eye.m(SymInt n, SymInt m, *, ScalarType? dtype=None) -> Tensor" => eye;
    "scalar_tensor(Scalar s, *, ScalarType? dtype=None) -> Tensor" => |n| {
        let dtype = n.dtype_arg("dtype")?.unwrap_or(DType::F32);
        let x = n.value("s")?;
        let y = converted(n, x, dtype)?;
        n.done(y)
    };
    "hann_window(int window_length, *, ScalarType? dtype=None) -> Tensor", "hann_window.periodic(int window_length, bool periodic, *, ScalarType? dtype=None) -> Tensor" => |n| window(n, [0.5, 0.5, 0.0]);
    "hamming_window(int window_length, *, ScalarType? dtype=None) -> Tensor",
    "hamming_window.periodic(int window_length, bool periodic, *, ScalarType? dtype=None) -> Tensor",
    "hamming_window.periodic_alpha(int window_length, bool periodic, float alpha, *, ScalarType? dtype=None) -> Tensor",
    "hamming_window.periodic_alpha_beta(int window_length, bool periodic, float alpha, float beta, *, ScalarType? dtype=None) -> Tensor" => |n| {
        let (a, b) = (n.number("alpha")?.unwrap_or(0.54), n.number("beta")?.unwrap_or(0.46));
        window(n, [a, b, 0.0])
    };
    "blackman_window(int window_length, *, ScalarType? dtype=None) -> Tensor", "blackman_window.periodic(int window_length, bool periodic, *, ScalarType? dtype=None) -> Tensor" => |n| window(n, [0.42, 0.5, 0.08]);
    "kaiser_window(int window_length, *, ScalarType? dtype=None) -> Tensor",
    "kaiser_window.periodic(int window_length, bool periodic, *, ScalarType? dtype=None) -> Tensor",
    "kaiser_window.beta(int window_length, bool periodic, float beta, *, ScalarType? dtype=None) -> Tensor" => kaiser;
    "fft_fftfreq(SymInt n, float d=1.0, *, ScalarType? dtype=None) -> Tensor" => |n| frequencies(n, true);
    "fft_rfftfreq(SymInt n, float d=1.0, *, ScalarType? dtype=None) -> Tensor" => |n| frequencies(n, false);
    "bartlett_window(int window_length, *, ScalarType? dtype=None) -> Tensor", "bartlett_window.periodic(int window_length, bool periodic, *, ScalarType? dtype=None) -> Tensor" => bartlett;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// How a new tensor would lie in memory.
fn without_layout(n: &Lower<'_>) {
    n.ignore("stride");
    n.ignore("physical_layout");
}

/// An argument that is a number of any kind, in integers where it is one.
fn is_float(n: &Lower<'_>, name: &'static str) -> Result<bool> {
    Ok(match n.node.attrs.get(name) {
        Some(Arg::Float(_)) => true,
        Some(Arg::Value(_)) => match n.dtype_of(name) {
            Some(d) => d.is_float(),
            None => false,
        },
        _ => false,
    })
}

fn arange(n: &mut Lower<'_>) -> Lowered {
    let names = ["start", "end", "step"];
    let mut float = false;
    for name in names {
        float |= is_float(n, name)?;
    }
    let given = [n.number("start"), n.number("end"), n.number("step")];
    let dtype = n.dtype_arg("dtype")?.unwrap_or(if float { DType::F32 } else { DType::I64 });
    if let [Ok(start), Ok(end), Ok(step)] = given {
        let (start, step) = (start.unwrap_or(0.0), step.unwrap_or(1.0));
        let Some(end) = end else { return n.bad_attr("end", "a number") };
        let count = ((end - start) / step).ceil().max(0.0);
        if !count.is_finite() || count > f64::from(1 << 28) {
            return n.bad_attr("end", "a number of elements that memory holds");
        }
        let count = count as usize;
        n.affords(count)?;
        let at = |i: usize| start + i as f64 * step;
        return if dtype.is_float() {
            n.literal(Tensor::from_f64(dtype, &[count], &(0..count).map(at).collect::<Vec<_>>()))
        } else {
            n.literal(Tensor::from_i64(dtype, &[count], &(0..count).map(|i| at(i) as i64).collect::<Vec<_>>()))
        };
    }
    let mut values = vec![];
    for (name, default) in names.into_iter().zip([0, 0, 1]) {
        values.push(if n.has(name) { n.value(name)? } else { n.const_int(default)? });
    }
    for v in &values {
        float |= n.dtype(*v)?.is_float();
    }
    for v in &mut values {
        *v = n.cast(*v, if float { DType::F32 } else { DType::I32 })?;
    }
    let y = n.op(ops::Range1d { end: values[1], start: values[0], step: values[2] })?;
    let y = converted(n, y, if n.has("dtype") || !float { dtype } else { DType::F32 })?;
    n.done(y)
}

/// Numbers up to an end that belongs to them.
fn with_end(n: &mut Lower<'_>) -> Lowered {
    let (start, step) = (n.number("start")?.unwrap_or(0.0), n.number("step")?.unwrap_or(1.0));
    let Some(end) = n.number("end")? else { return n.bad_attr("end", "a number") };
    let dtype = n.dtype_arg("dtype")?.unwrap_or(DType::F32);
    let count = ((end - start) / step).floor() + 1.0;
    if !(0.0..f64::from(1 << 28)).contains(&count) {
        return n.bad_attr("end", "a number of elements that memory holds");
    }
    n.affords(count as usize)?;
    let all: Vec<f64> = (0..count as usize).map(|i| start + i as f64 * step).collect();
    n.literal(Tensor::from_f64(dtype, &[all.len()], &all))
}

/// As many numbers between two as asked for, both of them included; of powers, the exponents are.
fn spread(n: &mut Lower<'_>, powers: bool) -> Lowered {
    let (start, end, steps) = (n.value("start")?, n.value("end")?, n.int_or("steps", 100)?);
    let base = n.number("base")?.unwrap_or(10.0);
    let dtype = n.dtype_arg("dtype")?.unwrap_or(DType::F32);
    if !(0..=1 << 24).contains(&steps) {
        return n.bad_attr("steps", "0 to 16777216");
    }
    n.affords(steps as usize)?;
    if steps == 0 {
        return n.literal(Tensor::from_f64(dtype, &[0], &[]));
    }
    let known = |v: Value| n.const_of(v).and_then(|t| t.to_f64().first().copied());
    let whole = |t: f64| if dtype.is_float() { t } else { t.trunc() };
    // From the nearer end, so that both ends are exact.
    let half = steps / 2;
    if let (Some(a), Some(b)) = (known(start), known(end)) {
        let step = if steps > 1 { (b - a) / (steps - 1) as f64 } else { 0.0 };
        let at = |i: i64| if i < half || steps == 1 { a + step * i as f64 } else { b - step * (steps - 1 - i) as f64 };
        let value = |i: i64| whole(if powers { base.powf(at(i)) } else { at(i) });
        return n.literal(Tensor::from_f64(dtype, &[steps as usize], &(0..steps).map(value).collect::<Vec<_>>()));
    }
    let (start, end) = (n.cast(start, DType::F32)?, n.cast(end, DType::F32)?);
    let (start, end) = (n.as_scalar(start)?, n.as_scalar(end)?);
    let span = n.sub(end, start)?;
    let step = n.scale(span, 1.0 / (steps - 1).max(1) as f64)?;
    let list = |n: &mut Lower<'_>, f: &dyn Fn(i64) -> f64| {
        let values: Vec<f64> = (0..steps).map(f).collect();
        n.const_like(span, &[values.len()], &values)
    };
    let (up, down) = (list(n, &|i| i as f64)?, list(n, &|i| (steps - 1 - i) as f64)?);
    let (up, down) = (n.mul(up, step)?, n.mul(down, step)?);
    let (low, high) = (n.add(start, up)?, n.sub(end, down)?);
    let first = n.add_const(Tensor::from_bools(&[steps as usize], (0..steps).map(|i| i < half || steps == 1)))?;
    let mut y = n.select(first, low, high)?;
    if powers {
        let base = n.scalar_like(y, base)?;
        y = n.op(ops::Pow { x: base, y })?;
    }
    let y = converted(n, y, dtype)?;
    n.done(y)
}

/// A tensor of these sizes that has one value everywhere.
pub(super) fn filled(n: &mut Lower<'_>, sizes: &[Size], value: Value) -> Result<Value> {
    if sizes.is_empty() {
        return Ok(value);
    }
    if sizes.iter().any(|s| matches!(s, Size::Known(0))) {
        let dims = sizes.iter().map(|s| if let Size::Known(d) = s { usize::try_from(*d).ok() } else { None });
        let dims: Option<Vec<usize>> = dims.collect();
        let dims = dims.ok_or_else(|| LowerError::NotFixed { what: "a tensor without elements".to_owned() })?;
        let dtype = n.dtype(value)?;
        return n.add_const(Tensor::from_f64(dtype, &dims, &[]));
    }
    let shape = n.sizes_exactly(sizes)?;
    if n.const_of(value).is_some() {
        return n.op(ops::Fill { shape, value: Some(value) });
    }
    n.without_bool(value, |n, v| n.broadcast_to(v, shape))
}

/// The sizes of the argument `size`; of another tensor's, as they are.
fn sizes(n: &mut Lower<'_>) -> Result<Vec<Size>> {
    let sizes = n.sizes_arg("size")?.unwrap_or_default();
    if sizes.iter().any(|s| matches!(s, Size::Known(d) if *d < 0)) {
        return n.bad_attr("size", "sizes of 0 or more");
    }
    Ok(sizes)
}

/// A number as an element of a type of the source.
fn number(n: &mut Lower<'_>, value: f64, dtype: DType) -> Result<Value> {
    let to = narrowed(dtype).ok_or_else(|| LowerError::form(format!("elements of type {dtype}")))?;
    n.const_scalar(to, value)
}

fn of_size(n: &mut Lower<'_>, like: Option<Value>, value: f64) -> Lowered {
    let own = match like {
        Some(v) => n.dtype(v)?,
        None => DType::F32,
    };
    let dtype = n.dtype_arg("dtype")?.unwrap_or(own);
    let sizes = sizes(n)?;
    let value = number(n, value, dtype)?;
    let y = filled(n, &sizes, value)?;
    n.done(y)
}

fn as_large(n: &mut Lower<'_>, value: f64) -> Lowered {
    let x = n.value("self")?;
    let dtype = n.dtype_arg("dtype")?.unwrap_or(n.dtype(x)?);
    let (sizes, value) = (n.own_sizes(x)?, number(n, value, dtype)?);
    let sizes: Vec<Size> = known(n, sizes)?;
    let y = filled(n, &sizes, value)?;
    n.done(y)
}

/// Sizes as numbers, where these are known.
fn known(n: &Lower<'_>, sizes: Vec<Size>) -> Result<Vec<Size>> {
    let one = |s: Size| match s {
        Size::Of(v, axis) => Ok(n.shape(v)?[axis].as_known().map_or(s, Size::Known)),
        s => Ok(s),
    };
    sizes.into_iter().map(one).collect()
}

fn full(n: &mut Lower<'_>, like: Option<Value>) -> Lowered {
    let value = n.value("fill_value")?;
    let own = match like {
        Some(v) => n.dtype(v)?,
        None => n.dtype(value)?,
    };
    let dtype = n.dtype_arg("dtype")?.unwrap_or(own);
    let (sizes, value) = (sizes(n)?, converted(n, value, dtype)?);
    let y = filled(n, &sizes, value)?;
    n.done(y)
}

fn full_like(n: &mut Lower<'_>) -> Lowered {
    let (x, value) = (n.value("self")?, n.value("fill_value")?);
    let dtype = n.dtype_arg("dtype")?.unwrap_or(n.dtype(x)?);
    let sizes = n.own_sizes(x)?;
    let (sizes, value) = (known(n, sizes)?, converted(n, value, dtype)?);
    let y = filled(n, &sizes, value)?;
    n.done(y)
}

fn eye(n: &mut Lower<'_>) -> Lowered {
    let dtype = n.dtype_arg("dtype")?.unwrap_or(DType::F32);
    let Some(rows) = n.size("n")? else { return n.bad_attr("n", "a size") };
    let columns = n.size("m")?.unwrap_or(rows);
    let count = |n: &mut Lower<'_>, size: Size| -> Result<Value> {
        let end = n.sizes_exactly(&[size])?;
        let end = n.squeeze(end, &[0])?;
        super::index::count_to(n, end)
    };
    let (rows, columns) = (count(n, rows)?, count(n, columns)?);
    let rows = n.expand_dims(rows, &[1])?;
    let on = n.equal(rows, columns)?;
    let y = converted(n, on, dtype)?;
    n.done(y)
}

/// A window's length, the number of steps in a period of it, and the element type.
fn period(n: &Lower<'_>) -> Result<(usize, f64, DType)> {
    let (size, periodic) = (n.int_or("window_length", 0)?, n.flag("periodic", true)?);
    let dtype = n.dtype_arg("dtype")?.unwrap_or(DType::F32);
    if !(0..=1 << 24).contains(&size) {
        return n.bad_attr("window_length", "0 to 16777216");
    }
    n.affords(size as usize)?;
    Ok((size as usize, if periodic { size } else { size - 1 } as f64, dtype))
}

/// `a - b * cos(2 pi i / n) + c * cos(4 pi i / n)`.
fn window(n: &mut Lower<'_>, [a, b, c]: [f64; 3]) -> Lowered {
    let (size, period, dtype) = period(n)?;
    let at = |i: usize| {
        let angle = 2.0 * std::f64::consts::PI * i as f64 / period;
        if size == 1 { 1.0 } else { a - b * angle.cos() + c * (2.0 * angle).cos() }
    };
    n.literal(Tensor::from_f64(dtype, &[size], &(0..size).map(at).collect::<Vec<_>>()))
}

fn bartlett(n: &mut Lower<'_>) -> Lowered {
    let (size, period, dtype) = period(n)?;
    let at = |i: usize| if size == 1 { 1.0 } else { 1.0 - (2.0 * i as f64 / period - 1.0).abs() };
    n.literal(Tensor::from_f64(dtype, &[size], &(0..size).map(at).collect::<Vec<_>>()))
}

/// The Bessel function of the first kind and order 0 at `i * beta * sqrt(1 - x^2)`, over that at `x` = 0.
fn kaiser(n: &mut Lower<'_>) -> Lowered {
    let (size, period, dtype) = period(n)?;
    let beta = n.number("beta")?.unwrap_or(12.0);
    // A sum of squares of `(x / 2)^k / k!`.
    let bessel = |x: f64| {
        let mut term = 1.0f64;
        (1..500).fold(1.0, |sum, k| {
            term *= x / 2.0 / f64::from(k);
            sum + term * term
        })
    };
    let at = |i: usize| {
        let x = 2.0 * i as f64 / period - 1.0;
        if size == 1 { 1.0 } else { bessel(beta * (1.0 - x * x).max(0.0).sqrt()) / bessel(beta) }
    };
    n.literal(Tensor::from_f64(dtype, &[size], &(0..size).map(at).collect::<Vec<_>>()))
}

/// The frequencies of a Fourier transform; those of a real one are not negative.
fn frequencies(n: &mut Lower<'_>, both: bool) -> Lowered {
    let (size, step) = (n.int_or("n", 0)?, n.number("d")?.unwrap_or(1.0));
    let dtype = n.dtype_arg("dtype")?.unwrap_or(DType::F32);
    if !(1..=1 << 24).contains(&size) {
        return n.bad_attr("n", "1 to 16777216");
    }
    n.affords(size as usize)?;
    let count = if both { size } else { size / 2 + 1 };
    let at = |i: i64| if both && i >= (size + 1) / 2 { i - size } else { i };
    let all: Vec<f64> = (0..count).map(|i| at(i) as f64 / (size as f64 * step)).collect();
    n.literal(Tensor::from_f64(dtype, &[all.len()], &all))
}
