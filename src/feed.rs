//! Arrays for inputs: matched by name, checked, converted where nothing is lost, or made up from a seed.

use crate::{Diagnostic, arrays::Arrays, codes, names::listed};
use indexmap::IndexMap;
use mlconv_mil::{
    ir::{Feature, Function, Module, Port},
    text::Namer,
};
use mlconv_runner::sample_shape;
use mlconv_tensor::{DType, Dims, Tensor, TensorType, Type};

/// The inputs of a function that are tensors, with their types.
pub fn tensor_inputs(f: &Function) -> impl Iterator<Item = (&Port, &TensorType)> {
    f.inputs().iter().zip(&f.sig.inputs).filter_map(|(v, port)| Some((port, f.ty(*v).tensor()?)))
}

/// The states of a function, with their types.
pub fn states(f: &Function) -> impl Iterator<Item = (&Port, &TensorType)> {
    f.inputs().iter().zip(&f.sig.inputs).filter_map(|(v, port)| match f.ty(*v) {
        Type::State(t) => Some((port, t)),
        Type::Tensor(_) | Type::List { .. } | Type::Dict { .. } | Type::Unknown => None,
    })
}

/// Whether `given` means the port called `name`: by its own name, or by the one it has in a package.
pub fn means(given: &str, name: &str) -> bool {
    given == name || given == Namer::legal(name)
}

/// The array of each input, in the order of the signature. Arrays are matched by name; where no name matches at all, in
/// order. `None` is left to the input's default.
pub fn match_inputs(f: &Function, arrays: &Arrays) -> Result<Vec<Option<Tensor>>, Diagnostic> {
    let ports: Vec<_> = tensor_inputs(f).collect();
    let names = || listed(ports.iter().map(|(p, _)| &*p.name));
    let any = arrays.keys().any(|k| ports.iter().any(|(p, _)| means(k, &p.name)));
    if any || arrays.is_empty() {
        if let Some(extra) = arrays.keys().find(|k| !ports.iter().any(|(p, _)| means(k, &p.name))) {
            let d = Diagnostic::error(&codes::N0003, format!("no input is called `{extra}`"));
            return Err(d.help(format!("the inputs are {}", names())));
        }
    } else if arrays.len() > ports.len() {
        let title = format!("{} arrays for {} inputs, and no name matches", arrays.len(), ports.len());
        return Err(Diagnostic::error(&codes::N0003, title).help(format!("the inputs are {}", names())));
    }
    ports
        .iter()
        .enumerate()
        .map(|(i, (port, ty))| {
            let found = if any { arrays.iter().find(|(k, _)| means(k, &port.name)) } else { arrays.get_index(i) };
            match found {
                Some((_, t)) => fit(&port.name, ty, t).map(Some),
                None if port.default.is_some() => Ok(None),
                None => Err(Diagnostic::error(&codes::N0003, format!("input `{}` is missing, wanted {ty}", port.name))),
            }
        })
        .collect()
}

/// `t` as a value of type `want`: other types are converted only where every value stays what it is, and a scalar is a
/// vector of one.
pub fn fit(name: &str, want: &TensorType, t: &Tensor) -> Result<Tensor, Diagnostic> {
    let fail = |why: &str| {
        let shape: Dims = t.shape().into();
        let found = TensorType::new(t.dtype(), &shape);
        let d = Diagnostic::error(&codes::N0003, format!("input `{name}` is {found}, wanted {want}{why}"));
        Err(d)
    };
    let t = match (t.shape(), want.shape.rank()) {
        ([], 1) => t.reshape(&[1]),
        ([1], 0) => t.reshape(&[]),
        _ => t.clone(),
    };
    let fits = t.shape().len() == want.shape.rank()
        && want.shape.iter().zip(t.shape()).all(|(d, n)| d.as_usize().is_none_or(|d| d == *n));
    if !fits {
        return fail("");
    }
    if t.dtype() == want.dtype {
        return Ok(t);
    }
    let number = |d: DType| d.is_int() || d == DType::Bool;
    let same_kind = (t.dtype().is_float() && want.dtype.is_float()) || (number(t.dtype()) && number(want.dtype));
    if !same_kind {
        return fail("");
    }
    let converted = t.cast(want.dtype);
    let kept = if t.dtype() == DType::U64 || !number(t.dtype()) {
        let same = |(a, b): (f64, f64)| a == b || (a.is_nan() && b.is_nan());
        t.to_f64().into_iter().zip(converted.to_f64()).all(same)
    } else {
        t.to_i64() == converted.to_i64()
    };
    if kept { Ok(converted) } else { fail(", and not every value fits") }
}

/// Elements of made-up inputs, all together: a model may declare any shape.
const MAX_RANDOM: usize = 1 << 28;

/// Inputs of the declared types and default shapes, made from `seed`: normal floats, integers and booleans 0 or 1.
pub fn random_inputs(module: &Module, f: &Function, seed: u64) -> Result<Vec<Option<Tensor>>, Diagnostic> {
    let (mut random, mut left) = (Random(seed ^ 0x9e37_79b9_7f4a_7c15), MAX_RANDOM);
    tensor_inputs(f)
        .map(|(port, ty)| {
            let shape = match port.shapes.first() {
                Some(default) => default.iter().map(|n| usize::try_from(*n).unwrap_or(1)).collect(),
                None => sample_shape(&ty.shape, &module.symbols),
            };
            let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            let Some((count, rest)) = count.and_then(|n| Some((n, left.checked_sub(n)?))) else {
                let title = format!("input `{}` is {ty}, too large to be made up", port.name);
                return Err(Diagnostic::error(&codes::N0003, title).help("give inputs, or shapes that are smaller"));
            };
            left = rest;
            let values: Vec<f64> = match (ty.dtype.is_float(), port.feature) {
                (true, Feature::Image(_)) => (0..count).map(|_| (random.uniform() * 256.0).floor()).collect(),
                (true, Feature::Tensor) => (0..count).map(|_| random.normal()).collect(),
                (false, _) => (0..count).map(|_| f64::from(u8::from(random.uniform() < 0.5))).collect(),
            };
            Ok(Some(Tensor::from_f64(ty.dtype, &shape, &values)))
        })
        .collect()
}

/// The named inputs, as an archive would hold them.
pub fn as_arrays(f: &Function, inputs: &[Option<Tensor>]) -> Arrays {
    let named = tensor_inputs(f).zip(inputs).filter_map(|((port, _), t)| Some((port.name.to_string(), t.clone()?)));
    named.collect::<IndexMap<_, _>>()
}

/// SplitMix64: small, and the same everywhere. Source: Steele, Lea and Flood 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..1`.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Of mean 0 and variance 1, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_tensor::Shape;

    fn ty(dtype: DType, dims: &[usize]) -> TensorType {
        TensorType::new(dtype, Shape::from(dims))
    }

    #[test]
    fn conversions_lose_nothing_or_fail() {
        let ints = Tensor::from_vec(&[2], vec![1i64, -7]);
        assert_eq!(fit("x", &ty(DType::I32, &[2]), &ints).expect("small").to_i64(), [1, -7]);
        let large = Tensor::from_vec(&[1], vec![1i64 << 40]);
        assert!(fit("x", &ty(DType::I32, &[1]), &large).expect_err("too large").title.contains("not every value"));
        let floats = Tensor::from_vec(&[1], vec![0.1f64]);
        assert!(fit("x", &ty(DType::F32, &[1]), &floats).is_err());
        assert!(fit("x", &ty(DType::F32, &[2]), &ints).is_err());
        assert!(fit("x", &ty(DType::I32, &[3]), &ints).expect_err("shape").title.contains("i64[2], wanted i32[3]"));
        assert_eq!(fit("x", &ty(DType::F32, &[1]), &Tensor::scalar(2f32)).expect("a scalar").shape(), [1]);
    }
}
