//! The process that loads onnxruntime and runs a model: what [`Process`](super::process::Process) talks to.

use mlconv_arrays::talk::{self, Asked, Fault, Given, Hello, Slot, Stage, Wanted, one_line};
use mlconv_tensor::{DType, Element, Tensor, bf16, f16};
use ort::{
    LoadDynamicError,
    environment::Environment,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{
        DynValue, OwnedTensorArrayData, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, ValueType,
    },
};
use std::{error::Error, fmt::Debug, io, path::Path, sync::Arc};

/// Element types that both sides have, with how each goes from one to the other. Strings, and numbers of less than a byte,
/// are compared by nobody.
macro_rules! types {
    ($($theirs:ident = $ours:ident: $ty:ty;)*) => {
        const TYPES: &[(TensorElementType, DType)] = &[
            $((TensorElementType::$theirs, DType::$ours),)*
            (TensorElementType::Bool, DType::Bool),
        ];

        /// A tensor as onnxruntime takes it.
        fn value(t: &Tensor) -> ort::Result<DynValue> {
            match t.dtype() {
                $(DType::$ours => value_of::<$ty>(t),)*
                DType::Bool => made((t.shape().to_vec(), t.to_bools())),
                other => Err(ort::Error::new(format!("{other} has no place in a run"))),
            }
        }

        /// A tensor of our own.
        fn tensor(v: &DynValue) -> Result<Tensor, String> {
            let ValueType::Tensor { ty, .. } = v.dtype() else { return Err("it is no tensor".to_owned()) };
            match ours(*ty) {
                $(Some(DType::$ours) => tensor_of::<$ty>(v),)*
                Some(DType::Bool) => {
                    let (s, values) = v.try_extract_tensor::<bool>().map_err(|e| one_line(e.message()))?;
                    Ok(Tensor::from_bools(&shape(s)?, values.iter().copied()))
                }
                _ => Err(format!("elements of type {ty} are compared by nobody")),
            }
        }
    };
}

types! {
    Float32 = F32: f32;
    Float16 = F16: f16;
    Float64 = F64: f64;
    Bfloat16 = Bf16: bf16;
    Int8 = I8: i8;
    Int16 = I16: i16;
    Int32 = I32: i32;
    Int64 = I64: i64;
    Uint8 = U8: u8;
    Uint16 = U16: u16;
    Uint32 = U32: u32;
    Uint64 = U64: u64;
}

/// Loads the library and the model, and runs it as often as is asked on stdin; answers go to stdout.
pub(crate) fn serve(library: &Path, model: &Path, threads: usize) -> io::Result<()> {
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    talk::serve(&mut from, &mut to, || open(library, model, threads), run)
}

fn open(library: &Path, model: &Path, threads: usize) -> Result<((Environment, Session), Hello), Fault> {
    let loaded = ort::init_from(library).map_err(|e| load_fault(&e))?;
    let of_library = |e: ort::Error| Fault { stage: Stage::Library, why: one_line(e.message()) };
    // Faults come back as results; what else it has to say is not asked for.
    let quiet = loaded.with_name("mlconv").with_telemetry(false).with_logger(Arc::new(|_, _, _, _, _| {}));
    let environment = quiet.build().map_err(of_library)?;
    let version = ort::util::probe(library).map_or_else(String::new, |minor| format!("1.{minor}"));
    let of_options = |e: ort::Error<SessionBuilder>| Fault { stage: Stage::Library, why: one_line(e.message()) };
    let mut builder = Session::builder(&environment)
        .map_err(of_library)?
        // Each node computes what it says: what is fused rounds in other places.
        .with_optimization_level(GraphOptimizationLevel::Disable)
        .and_then(|b| b.with_intra_threads(threads))
        .and_then(|b| b.with_intra_op_spinning(false))
        .and_then(|b| b.with_deterministic_compute(true))
        .map_err(of_options)?;
    let of_model = |e: ort::Error| Fault { stage: Stage::Model, why: one_line(e.message()) };
    let session = builder.commit_from_file(model).map_err(of_model)?;
    let fixed = session.overridable_initializers();
    let inputs = session.inputs().iter().map(|i| slot(i.name(), i.dtype(), false));
    let inputs = inputs.chain(fixed.iter().map(|i| slot(i.name(), i.dtype(), true))).collect();
    let outputs = session.outputs().iter().map(|o| slot(o.name(), o.dtype(), false)).collect();
    Ok(((environment, session), Hello { version, inputs, outputs, bf16: false }))
}

fn load_fault(e: &LoadDynamicError) -> Fault {
    let library = |why: String| Fault { stage: Stage::Library, why };
    match e {
        LoadDynamicError::Dlopen { error, .. } => {
            // The loader's own words are in the cause.
            let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            Fault { stage: Stage::Absent, why: one_line(&why) }
        }
        LoadDynamicError::MissingApi { .. } => {
            library("it is no onnxruntime: there is no `OrtGetApiBase` in it".to_owned())
        }
        LoadDynamicError::BadVersion { version_str, .. } => {
            library(format!("it is version {}, wanted 1.{} or newer", one_line(version_str), ort::MINOR_VERSION))
        }
        LoadDynamicError::InvalidVersionString => library("it does not say its version".to_owned()),
    }
}

fn slot(name: &str, ty: &ValueType, optional: bool) -> Slot {
    let (dtype, shape) = match ty {
        ValueType::Tensor { ty, shape, .. } => (ours(*ty), shape.to_vec()),
        _ => (None, vec![]),
    };
    Slot { name: name.to_owned(), dtype: dtype.map(|d| d.name().to_owned()), shape, optional }
}

fn ours(ty: TensorElementType) -> Option<DType> {
    TYPES.iter().find(|(t, _)| *t == ty).map(|(_, d)| *d)
}

/// One run: names and arrays in, arrays out.
fn run(
    (_, session): &mut (Environment, Session),
    hello: &Hello,
    asked: &Asked,
    arrays: Vec<Tensor>,
) -> Result<Vec<Tensor>, Fault> {
    let fault = |why: String| Fault { stage: Stage::Run, why };
    let mut given = vec![];
    for (name, t) in asked.inputs.iter().zip(arrays) {
        let Given::Input(name) = name else { return Err(fault(format!("{name:?} is no input of ONNX"))) };
        let slot = hello.inputs.iter().find(|s| s.name == *name);
        let dtype = slot.and_then(|s| s.dtype.as_ref()).and_then(|d| DType::ALL.iter().find(|t| t.name() == d));
        let Some(dtype) = dtype else { return Err(fault(format!("input `{name}` is of no type that can be given"))) };
        let t =
            widened(&t, *dtype).ok_or_else(|| fault(format!("input `{name}` holds values that {dtype} does not")))?;
        given.push((name.clone(), value(&t).map_err(|e| fault(one_line(e.message())))?));
    }
    // An input without elements is none of a package, and a source that has it wants it.
    for slot in hello.inputs.iter().filter(|s| !s.optional && !asked.inputs.contains(&Given::Input(s.name.clone()))) {
        let shape: Option<Vec<usize>> = slot.shape.iter().map(|n| usize::try_from(*n).ok()).collect();
        let dtype = slot.dtype.as_ref().and_then(|d| DType::ALL.iter().find(|t| t.name() == d));
        let (Some(shape), Some(dtype)) = (shape.filter(|s| s.contains(&0)), dtype) else {
            return Err(fault(format!("there is no array for input `{}`", slot.name)));
        };
        let empty = Tensor::from_i64(*dtype, &shape, &[]);
        given.push((slot.name.clone(), value(&empty).map_err(|e| fault(one_line(e.message())))?));
    }
    // An output that is an input is handed out as the very array, so inputs live until outputs are copied.
    let lent: Vec<_> = given.iter().map(|(name, v)| (name.as_str(), v)).collect();
    let outputs = session.run(lent).map_err(|e| fault(one_line(e.message())))?;
    let mut found = vec![];
    for name in &asked.outputs {
        let Wanted::Named(name) = name else { return Err(fault(format!("{name:?} is no output of ONNX"))) };
        let all = outputs.iter().find(|(n, _)| n == name);
        let Some((_, v)) = all else { return Err(fault(format!("there is no output `{name}`"))) };
        let t = tensor(&v).map_err(|why| fault(format!("output `{name}`: {why}")))?;
        found.push(t);
    }
    Ok(found)
}

/// `t` in the source's own type, where every value stays what it is.
fn widened(t: &Tensor, to: DType) -> Option<Tensor> {
    if t.dtype() == to {
        return Some(t.clone());
    }
    let cast = t.cast(to);
    let same = if t.dtype().is_float() {
        // Of f64, which a model may have, the value was rounded before.
        to.is_float() && t.to_f64().iter().zip(cast.to_f64()).all(|(a, b)| *a == b || (a.is_nan() && b.is_nan()))
    } else {
        !to.is_float() && t.to_i64() == cast.to_i64()
    };
    same.then_some(cast)
}

fn made<T: PrimitiveTensorElementType + Debug>(t: impl OwnedTensorArrayData<T>) -> ort::Result<DynValue> {
    Ok(OrtTensor::from_array(t)?.into_dyn())
}

fn value_of<T: Element + PrimitiveTensorElementType + Debug + 'static>(t: &Tensor) -> ort::Result<DynValue> {
    let values = t.view::<T>().map(std::borrow::Cow::into_owned).unwrap_or_default();
    made((t.shape().to_vec(), values))
}

fn shape(s: &[i64]) -> Result<Vec<usize>, String> {
    s.iter().map(|n| usize::try_from(*n).map_err(|_| format!("a size of {n}"))).collect()
}

fn tensor_of<T: Element + PrimitiveTensorElementType>(v: &DynValue) -> Result<Tensor, String> {
    let (s, values) = v.try_extract_tensor::<T>().map_err(|e| one_line(e.message()))?;
    Ok(Tensor::from_vec(&shape(s)?, values.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_widened_and_never_changed() {
        let small = Tensor::from_vec(&[2], vec![1i32, -7]);
        assert_eq!(widened(&small, DType::I64).expect("wider").to_i64(), [1, -7]);
        assert!(widened(&small, DType::U8).is_none() && widened(&small, DType::F32).is_none());
        let third = Tensor::from_vec(&[1], vec![1f32 / 3.0]);
        assert_eq!(widened(&third, DType::F64).expect("wider").to_f64(), [f64::from(1f32 / 3.0)]);
        assert!(widened(&third, DType::F16).is_none());
        assert!(widened(&Tensor::from_vec(&[1], vec![f32::NAN]), DType::F64).is_some());
        assert_eq!(
            widened(&Tensor::from_vec(&[2], vec![0i32, 1]), DType::Bool).expect("bools").to_bools(),
            [false, true]
        );
    }
}
