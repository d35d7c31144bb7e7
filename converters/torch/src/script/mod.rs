//! TorchScript: its archives, and the interpreter that turns their code into nodes.

mod archive;
mod builtins;
mod interpret;
mod syntax;
mod value;

use crate::{archive::Archive, ops, pt2::ReadError};
use archive::Script;
use bytes::Bytes;
use interpret::Interpreter;
use mlconv_source::{Lowering, Request, SourceDim, SourceGraph, SourceType, SourceValue, Walk, narrowed};
use mlconv_tensor::{DType, Tensor};
use std::sync::Arc;
use value::Item;

/// A parameter of a model's `forward`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Whether it is a tensor, and so an input of the program.
    pub is_tensor: bool,
    /// Its type, as the code has it.
    ty: String,
}

impl Parameter {
    /// The number in `t` as this parameter takes it; `None` where it takes none.
    pub fn number(&self, t: &Tensor) -> Option<Tensor> {
        match number(&self.ty, t)? {
            Item::Int(i) => Some(Tensor::scalar(i)),
            Item::Float(x) => Some(Tensor::scalar(x)),
            Item::Bool(b) => Some(Tensor::from_bools(&[], [b])),
            _ => None,
        }
    }
}

/// The parameters that the model's `forward` takes, in order.
pub fn parameters(bytes: Bytes) -> Result<Vec<Parameter>, ReadError> {
    let mut script = Script::open(Archive::open(bytes)?)?;
    let forward = script.forward()?;
    let params = forward.params.iter().skip(1);
    Ok(params.map(|p| Parameter { name: p.name.clone(), is_tensor: is_tensor(&p.ty), ty: p.ty.clone() }).collect())
}

/// Whether an archive is one of TorchScript.
pub fn is_script(bytes: Bytes) -> bool {
    Archive::open(bytes).is_ok_and(|a| a.has("data.pkl") && a.names().iter().any(|n| n.starts_with("code/")))
}

/// Interprets a TorchScript module: with the shapes that `request` has for its inputs, which the file does not say, and
/// with its numbers for parameters that are no tensors.
pub fn lower(bytes: Bytes, request: &Request) -> Result<Lowering, ReadError> {
    let mut script = Script::open(Archive::open(bytes)?)?;
    let forward = script.forward()?;
    let mut graph = SourceGraph { name: "main".to_owned(), ..SourceGraph::default() };
    graph.meta.insert("source".to_owned(), "torchscript".to_owned());
    let mut args = vec![];
    let tensors = forward.params.iter().skip(1).filter(|p| is_tensor(&p.ty)).count();
    for p in forward.params.iter().skip(1) {
        let name: Arc<str> = p.name.as_str().into();
        if !is_tensor(&p.ty) {
            let given = request.numbers.iter().find(|(n, _)| *n == p.name);
            match given.and_then(|(_, t)| number(&p.ty, t)) {
                Some(item) => args.push(item),
                // What has a default keeps it, and what follows it too.
                None if p.default.is_some() => break,
                None => {
                    let why = format!(
                        "`forward` takes `{}`, {} that the program is made for: give it with `--sample {}=FILE.npy`",
                        p.name, p.ty, p.name
                    );
                    return Err(ReadError::Graph(why));
                }
            }
            continue;
        }
        let spec = request.inputs.iter().find(|s| s.name.as_ref().map_or(tensors == 1, |n| *n == p.name));
        if spec.is_none() && p.default.is_some() {
            break;
        }
        if spec.is_none() {
            return Err(ReadError::Shapes(p.name.clone()));
        }
        let ty = spec.and_then(|s| s.dtype).map(|dtype| SourceType { dtype, shape: None });
        graph.inputs.push(SourceValue { name: name.clone(), ty, other: None, description: String::new() });
        args.push(Item::Tensor(name));
    }
    let walk = Walk::new(graph, ops::table(), request);
    if walk.has_error() {
        return Ok(walk.finish(vec![]));
    }
    let mut interpreter = Interpreter::new(script, walk);
    match interpreter.forward(args) {
        Ok(result) => Ok(interpreter.finish(&result)),
        // What stands in the way has been said; where it is nothing else, this is it.
        Err(ReadError::Stopped) => Ok(interpreter.walk.finish(vec![])),
        Err(ReadError::Graph(why)) => {
            interpreter.walk.fail(why);
            Ok(interpreter.walk.finish(vec![]))
        }
        Err(e) => Err(e),
    }
}

fn is_tensor(ty: &str) -> bool {
    matches!(ty, "Tensor" | "" | "Optional[Tensor]")
}

/// A number of the type of a parameter.
fn number(ty: &str, t: &Tensor) -> Option<Item> {
    if t.count() != 1 {
        return None;
    }
    let ty = ty.strip_prefix("Optional[").and_then(|t| t.strip_suffix(']')).unwrap_or(ty);
    match ty {
        "int" => t.to_i64().first().map(|i| Item::Int(*i)),
        "float" => t.to_f64().first().map(|x| Item::Float(*x)),
        "bool" => t.to_bools().first().map(|b| Item::Bool(*b)),
        _ => None,
    }
}

/// The type of a result as its value has it.
fn stated(dtype: Option<DType>) -> Option<SourceType> {
    dtype.filter(|d| narrowed(*d).is_some()).map(|dtype| SourceType { dtype, shape: None::<Vec<SourceDim>> })
}
