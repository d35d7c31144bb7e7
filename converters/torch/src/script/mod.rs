//! TorchScript: its archives, and the interpreter that turns their code into nodes.

mod about;
mod archive;
mod binding;
mod branches;
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
use value::Item;

/// A parameter of a model's `forward`, or an element of one that is a tuple of tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Whether it is a tensor, and so an input of the program.
    pub is_tensor: bool,
}

/// The parameters that the model's `forward` takes, in order.
pub fn parameters(bytes: Bytes) -> Result<Vec<Parameter>, ReadError> {
    let mut script = Script::open(Archive::open(bytes)?)?;
    let forward = script.forward()?;
    let mut all = vec![];
    for p in forward.params.iter().skip(1) {
        let tensors = Taken::of(&p.name, &p.ty).map(|t| t.tensors());
        match tensors {
            Some(names) => all.extend(names.into_iter().map(|name| Parameter { name, is_tensor: true })),
            None => all.push(Parameter { name: p.name.clone(), is_tensor: false }),
        }
    }
    Ok(all)
}

/// A parameter made of tensors, each an input of the program.
enum Taken {
    Tensor(String),
    Tuple(Vec<Taken>),
}

impl Taken {
    /// The parameter `name` of a type; `None` where that holds anything but tensors. Elements are numbered.
    fn of(name: &str, ty: &str) -> Option<Self> {
        let ty = ty.strip_prefix("Optional[").and_then(|t| t.strip_suffix(']')).unwrap_or(ty).trim();
        if matches!(ty, "Tensor" | "") {
            return Some(Self::Tensor(name.to_owned()));
        }
        let inside = ty.strip_prefix("Tuple[").and_then(|t| t.strip_suffix(']'))?;
        let parts = elements(inside)?;
        let all = parts.iter().enumerate().map(|(i, ty)| Self::of(&format!("{name}_{i}"), ty));
        all.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty()).map(Self::Tuple)
    }

    fn tensors(&self) -> Vec<String> {
        match self {
            Self::Tensor(name) => vec![name.clone()],
            Self::Tuple(all) => all.iter().flat_map(Self::tensors).collect(),
        }
    }

    fn item(&self) -> Item {
        match self {
            Self::Tensor(name) => Item::Tensor(name.as_str().into()),
            Self::Tuple(all) => Item::Tuple(all.iter().map(Self::item).collect()),
        }
    }
}

/// Types that commas part, such as have none within brackets.
fn elements(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut depth, mut start) = (vec![], 0usize, 0);
    for (i, c) in text.char_indices() {
        match c {
            '[' => depth = depth.checked_add(1).filter(|d| *d < MAX_TYPES)?,
            ']' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    Some(parts)
}

/// Types within types beyond which a parameter is none that can be taken.
const MAX_TYPES: usize = 16;

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
    let taken: Vec<Option<Taken>> = forward.params.iter().skip(1).map(|p| Taken::of(&p.name, &p.ty)).collect();
    let alone = taken.iter().flatten().map(|t| t.tensors().len()).sum::<usize>() == 1;
    for (p, taken) in forward.params.iter().skip(1).zip(&taken) {
        let Some(taken) = taken else {
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
        };
        let spec_of = |name: &str| request.inputs.iter().find(|s| s.name.as_ref().map_or(alone, |n| n == name));
        let names = taken.tensors();
        if p.default.is_some() && names.iter().all(|n| spec_of(n).is_none()) {
            break;
        }
        for name in names {
            let Some(spec) = spec_of(&name) else { return Err(ReadError::Shapes(name)) };
            let ty = spec.dtype.map(|dtype| SourceType { dtype, shape: None });
            graph.inputs.push(SourceValue { name: name.into(), ty, other: None, description: String::new() });
        }
        args.push(taken.item());
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
