//! A TorchScript module, and tensors on their way into it and out of it.

use mlconv_arrays::talk::{Asked, Fault, Given, Hello, Stage, Wanted, last_line};
use mlconv_tensor::{Bytes, DType, Tensor};
use std::path::Path;
use tch::{CModule, Device, IValue, Kind, TchError};

/// Element types that both sides have.
const TYPES: [(Kind, DType); 10] = [
    (Kind::Half, DType::F16),
    (Kind::Float, DType::F32),
    (Kind::Double, DType::F64),
    (Kind::BFloat16, DType::Bf16),
    (Kind::Int8, DType::I8),
    (Kind::Int16, DType::I16),
    (Kind::Int, DType::I32),
    (Kind::Int64, DType::I64),
    (Kind::Uint8, DType::U8),
    (Kind::Bool, DType::Bool),
];

/// A module, whose buffers stay as a run leaves them.
pub(crate) struct Model(CModule);

impl Model {
    pub(crate) fn open(path: &Path) -> Result<(Self, Hello), Fault> {
        let fault = |e: TchError| Fault { stage: Stage::Model, why: said(&e) };
        let module = CModule::load_on_device(path, Device::Cpu).map_err(fault)?;
        let bf16 =
            module.named_parameters().map_err(fault)?.iter().any(|(_, t)| t.f_kind().ok() == Some(Kind::BFloat16));
        // libtorch does not say its version, and a module not what it takes.
        Ok((Self(module), Hello { bf16, ..Hello::default() }))
    }

    /// One run: arrays in, in the order of the parameters, and arrays out.
    pub(crate) fn run(&mut self, _: &Hello, asked: &Asked, arrays: Vec<Tensor>) -> Result<Vec<Tensor>, Fault> {
        let fault = |why: String| Fault { stage: Stage::Run, why };
        let (mut args, mut given) = (vec![], vec![]);
        for (what, t) in asked.inputs.iter().zip(&arrays) {
            let (arg, tensor) = match what {
                Given::Input(name) => {
                    let t = theirs(t).map_err(|why| fault(format!("input `{name}`: {why}")))?;
                    // The same memory, which the model may write.
                    (IValue::Tensor(t.shallow_clone()), Some(t))
                }
                Given::Number(name) => (number(t).ok_or_else(|| fault(format!("input `{name}` is no number")))?, None),
                Given::Buffer(name) => return Err(fault(unreachable_buffer(name))),
            };
            args.push(arg);
            given.push(tensor);
        }
        let result = self.0.forward_is(&args).map_err(|e| fault(said(&e)))?;
        let returned = returned(result, asked.returned).map_err(fault)?;
        let mut found = vec![];
        for what in &asked.outputs {
            let at = match what {
                Wanted::At(at) => *at,
                Wanted::Input(name) => {
                    let mut inputs = asked.inputs.iter().zip(&given);
                    let tensor = inputs.find_map(|(i, t)| t.as_ref().filter(|_| *i == Given::Input(name.clone())));
                    let t = tensor.ok_or_else(|| fault(format!("there is no input `{name}`")))?;
                    found.push(ours(t).map_err(|why| fault(format!("input `{name}`: {why}")))?);
                    continue;
                }
                Wanted::Named(name) => return Err(fault(format!("outputs have no names, such as `{name}`"))),
                Wanted::Buffer(name) => return Err(fault(unreachable_buffer(name))),
            };
            let t = returned.get(at).ok_or_else(|| fault(format!("there is no output {at}")))?;
            found.push(ours(t).map_err(|why| fault(format!("output {at}: {why}")))?);
        }
        Ok(found)
    }
}

fn unreachable_buffer(name: &str) -> String {
    format!("buffer `{name}` is out of reach without Python: use `--source-runtime python`")
}

/// The tensors that a module returned: those inside of tuples, lists and dictionaries, and numbers where they make up the
/// count, as numbers that are the same in every run are no outputs of a package.
fn returned(result: IValue, count: Option<usize>) -> Result<Vec<tch::Tensor>, String> {
    let mut all = vec![];
    flatten(result, &mut all)?;
    let tensors = || all.iter().filter(|(is_number, _)| !is_number).count();
    let numbers = count.is_none_or(|n| n == all.len());
    if let Some(want) = count.filter(|n| !numbers && *n != tensors()) {
        return Err(format!("the model returns {} tensors, and the package's are {want}", tensors()));
    }
    Ok(all.into_iter().filter(|(is_number, _)| numbers || !is_number).map(|(_, t)| t).collect())
}

/// Every tensor, and every number as one, in order; with whether it was a number.
fn flatten(value: IValue, out: &mut Vec<(bool, tch::Tensor)>) -> Result<(), String> {
    match value {
        IValue::Tensor(t) => out.push((false, t)),
        IValue::Double(x) => out.push((true, tch::Tensor::from(x))),
        IValue::Int(i) => out.push((true, tch::Tensor::from(i))),
        IValue::Bool(b) => out.push((true, tch::Tensor::from(b))),
        IValue::IntList(all) => out.extend(all.into_iter().map(|i| (true, tch::Tensor::from(i)))),
        IValue::DoubleList(all) => out.extend(all.into_iter().map(|x| (true, tch::Tensor::from(x)))),
        IValue::BoolList(all) => out.extend(all.into_iter().map(|b| (true, tch::Tensor::from(b)))),
        IValue::TensorList(all) => out.extend(all.into_iter().map(|t| (false, t))),
        IValue::Tuple(all) | IValue::GenericList(all) => {
            for value in all {
                flatten(value, out)?;
            }
        }
        IValue::GenericDict(all) => {
            for (_, value) in all {
                flatten(value, out)?;
            }
        }
        IValue::None | IValue::String(_) | IValue::StringList(_) | IValue::Device(_) => {}
        other => return Err(format!("the model returns {other:?}, which is no tensor")),
    }
    Ok(())
}

/// A number of the kind that the element of `t` is.
fn number(t: &Tensor) -> Option<IValue> {
    Some(match t.dtype() {
        DType::Bool => IValue::Bool(*t.to_bools().first()?),
        d if d.is_float() => IValue::Double(*t.to_f64().first()?),
        _ => IValue::Int(*t.to_i64().first()?),
    })
}

/// A tensor of libtorch. Core ML has no 64-bit integers, and PyTorch makes no others unless it is told.
fn theirs(t: &Tensor) -> Result<tch::Tensor, String> {
    let t = if t.dtype() == DType::I32 { t.cast(DType::I64) } else { t.clone() };
    let kind = TYPES.iter().find(|(_, d)| *d == t.dtype()).map(|(k, _)| *k);
    let kind = kind.ok_or_else(|| format!("libtorch has no elements of type {}", t.dtype()))?;
    let size: Option<Vec<i64>> = t.shape().iter().map(|n| i64::try_from(*n).ok()).collect();
    let size = size.ok_or("it is too large")?;
    tch::Tensor::f_from_data_size(&t.blob().read(), &size, kind).map_err(|e| said(&e))
}

/// A tensor of our own.
fn ours(t: &tch::Tensor) -> Result<Tensor, String> {
    let said = |e: TchError| said(&e);
    let kind = t.f_kind().map_err(said)?;
    let plain = match kind {
        Kind::QInt8 | Kind::QUInt8 | Kind::QInt32 => t.f_dequantize().map_err(said)?,
        _ => t.shallow_clone(),
    };
    let t = plain.f_contiguous().map_err(said)?;
    let kind = t.f_kind().map_err(said)?;
    let dtype = TYPES.iter().find(|(k, _)| *k == kind).map(|(_, d)| *d);
    let dtype = dtype.ok_or_else(|| format!("elements of type {kind:?} are compared by nobody"))?;
    let shape: Option<Vec<usize>> = t.size().iter().map(|n| usize::try_from(*n).ok()).collect();
    let shape = shape.ok_or("it has no shape")?;
    let mut bytes = vec![0; t.numel() * kind.elt_size_in_bytes()];
    t.f_copy_data_u8(&mut bytes, t.numel()).map_err(said)?;
    Tensor::new(dtype, &shape, Bytes::from(bytes).into()).map_err(|e| e.to_string())
}

/// What is wrong, which libtorch says at the end of its message, before where in itself that was.
fn said(e: &TchError) -> String {
    let text = match e {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    let text = text.split("\nException raised from ").next().unwrap_or_default();
    last_line(text).unwrap_or_else(|| "it does not say what is wrong".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_go_there_and_back() {
        for t in [
            Tensor::from_vec(&[2, 3], vec![1f32, -2.0, 3.5, f32::MAX, 0.0, 1e-30]),
            Tensor::from_vec(&[], vec![7i64]),
            Tensor::from_bools(&[3], [true, false, true]),
            Tensor::from_vec(&[0, 4], Vec::<f64>::new()),
            Tensor::from_vec(&[2], vec![1f32, -2.5]).cast(DType::F16),
            Tensor::from_vec(&[2], vec![1f32, -2.5]).cast(DType::Bf16),
        ] {
            assert_eq!(ours(&theirs(&t).expect("known")).expect("known"), t);
        }
        let ints = theirs(&Tensor::from_vec(&[2], vec![1i32, -7])).expect("known");
        assert_eq!(ours(&ints).expect("known"), Tensor::from_vec(&[2], vec![1i64, -7]));
        assert!(theirs(&Tensor::from_vec(&[1], vec![1u32])).is_err());
    }

    #[test]
    fn what_is_returned_is_flat() {
        let result = || {
            let t = |x: f64| IValue::Tensor(tch::Tensor::from(x));
            let dict = IValue::GenericDict(vec![(IValue::String("a".to_owned()), t(3.0))]);
            IValue::Tuple(vec![t(1.0), IValue::Int(2), IValue::GenericList(vec![dict, IValue::None])])
        };
        let values = |count| {
            let found = returned(result(), count)?;
            Ok::<_, String>(found.iter().map(|t| ours(t).map(|t| t.to_f64()[0])).collect::<Result<Vec<_>, _>>()?)
        };
        assert_eq!(values(Some(3)), Ok(vec![1.0, 2.0, 3.0]));
        assert_eq!(values(Some(2)), Ok(vec![1.0, 3.0]));
        assert_eq!(values(None), Ok(vec![1.0, 2.0, 3.0]));
        assert_eq!(values(Some(4)), Err("the model returns 2 tensors, and the package's are 4".to_owned()));
    }

    #[test]
    fn what_libtorch_says_is_its_last_line() {
        let text = "The following operation failed.\nTraceback (most recent call last):\nRuntimeError: no such size\n\
                    Exception raised from there (most recent call first):\nframe #0";
        assert_eq!(said(&TchError::Torch(text.to_owned())), "RuntimeError: no such size");
    }
}
