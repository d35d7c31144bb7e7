//! TorchScript: its archives, and the interpreter that turns their code into nodes.

mod about;
mod archive;
mod binding;
mod branches;
mod builtins;
mod interpret;
mod memory;
mod syntax;
mod tensors;
mod tokens;
mod value;

use crate::{archive::Archive, ops, pt2::ReadError};
use archive::Script;
use bytes::Bytes;
use interpret::Interpreter;
use memory::Memory;
use mlconv_mil::diagnostic::{Diagnostic, codes};
use mlconv_source::{
    DimSpec, InputSpec, Lowering, Request, SourceDim, SourceGraph, SourceType, SourceValue, Walk, narrowed,
};
use mlconv_tensor::{DType, Tensor};
use std::{rc::Rc, sync::Arc};
use value::Item;

/// A parameter of a model's `forward`, or an element of one that is a tuple of tensors.
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
    Ok(parameters_of(&forward))
}

fn parameters_of(forward: &syntax::Function) -> Vec<Parameter> {
    let mut all = vec![];
    for p in forward.params.iter().skip(1) {
        let tensors = Taken::of(&p.name, &p.ty).map(|t| t.tensors());
        let parameter = |name: String, is_tensor| Parameter { name, is_tensor, ty: p.ty.clone() };
        match tensors {
            Some(names) => all.extend(names.into_iter().map(|name| parameter(name, true))),
            None => all.push(parameter(p.name.clone(), false)),
        }
    }
    all
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

/// A module of TorchScript, lowered.
#[derive(Debug)]
pub struct Lowered {
    /// What every call does, but perhaps the first.
    pub lowering: Lowering,
    /// What the first call does, where the module's attributes are other ones then than in later calls.
    pub first: Option<First>,
}

/// The first call of a module.
#[derive(Debug)]
pub struct First {
    /// What it does.
    pub lowering: Lowering,
    /// What later calls are given for buffers so that they do the same.
    pub initial: Vec<(Arc<str>, Tensor)>,
}

/// Calls of `forward` in which what they leave is to settle.
const MAX_CALLS: usize = 8;

/// Interprets a TorchScript module: with the shapes that `request` has for its inputs, which the file does not say, and
/// with its numbers for parameters that are no tensors.
pub fn lower(bytes: Bytes, request: &Request) -> Result<Lowered, ReadError> {
    let mut script = Script::open(Archive::open(bytes)?)?;
    let forward = script.forward()?;
    let mut request = request.clone();
    let mut graph = SourceGraph { name: "main".to_owned(), ..SourceGraph::default() };
    graph.meta.insert("source".to_owned(), "torchscript".to_owned());
    let (mut args, mut named) = (vec![], vec![]);
    // Behind a parameter that keeps its default, others are given by name.
    let mut give = |name: &str, item: Item, skipped: bool| {
        if skipped { named.push((name.into(), item)) } else { args.push(item) }
    };
    let mut skipped = false;
    let taken: Vec<Option<Taken>> = forward.params.iter().skip(1).map(|p| Taken::of(&p.name, &p.ty)).collect();
    let known: Vec<String> = parameters_of(&forward).into_iter().map(|p| p.name).collect();
    if let Some(name) = request.inputs.iter().filter_map(|s| s.name.as_ref()).find(|n| !known.contains(n)) {
        return Err(ReadError::NoInput { name: name.clone(), inputs: known.join("`, `") });
    }
    let mut missing = vec![];
    let alone = taken.iter().flatten().map(|t| t.tensors().len()).sum::<usize>() == 1;
    for (p, taken) in forward.params.iter().skip(1).zip(&taken) {
        let Some(taken) = taken else {
            // `--input sr=16000` says of what is no tensor what it is.
            let typed = request.inputs.iter().position(|s| s.name.as_ref() == Some(&p.name));
            let typed = typed.map(|i| request.inputs.remove(i));
            let given = request.numbers.iter().find(|(n, _)| *n == p.name);
            let item = match (&typed, given) {
                (Some(spec), _) => Some(typed_number(&p.ty, spec)?),
                (None, Some((_, t))) => number(&p.ty, t),
                (None, None) => None,
            };
            match item {
                Some(item) => give(&p.name, item, skipped),
                None if p.default.is_some() => skipped = true,
                None => {
                    let why = format!(
                        "`forward` takes `{}`, {} that the program is made for: give it with `--input {}=NUMBER`, or to \
                         a command that takes samples with `--sample {}=FILE.npy`",
                        p.name, p.ty, p.name, p.name
                    );
                    return Err(ReadError::Graph(why));
                }
            }
            continue;
        };
        let spec_of = |name: &str| request.inputs.iter().find(|s| s.name.as_ref().map_or(alone, |n| n == name));
        let names = taken.tensors();
        if p.default.is_some() && names.iter().all(|n| spec_of(n).is_none()) {
            skipped = true;
            continue;
        }
        for name in names {
            let Some(spec) = spec_of(&name) else {
                missing.push(name);
                continue;
            };
            let ty = spec.dtype.map(|dtype| SourceType { dtype, shape: None });
            graph.inputs.push(SourceValue { name: name.into(), ty, other: None, description: String::new() });
        }
        give(&p.name, taken.item(), skipped);
    }
    if !missing.is_empty() {
        return Err(ReadError::Shapes(missing.join("`, `")));
    }
    let mut memory = Memory::default();
    let mut first = None;
    for _ in 0..MAX_CALLS {
        let call = Call { graph: &graph, args: &args, named: &named, request: &request };
        let (lowering, left, back) = call.run(script, &memory)?;
        script = back;
        let Some(left) = left.filter(|left| !left.is_same(&memory)) else {
            let initial = |held: &memory::Held| (held.name.clone(), held.initial.clone());
            let first =
                first.map(|lowering| First { lowering, initial: memory.held().into_iter().map(initial).collect() });
            return Ok(Lowered { lowering, first });
        };
        first.get_or_insert(lowering);
        memory = left;
    }
    let why = format!("the attributes of the model are other ones after each of {MAX_CALLS} calls");
    Err(ReadError::Graph(why))
}

/// A call of `forward`.
struct Call<'a> {
    graph: &'a SourceGraph,
    args: &'a [Item],
    named: &'a [(Rc<str>, Item)],
    request: &'a Request,
}

impl Call<'_> {
    /// What it does where attributes are as in `memory`, and what it leaves; nothing where it is not whole.
    fn run(&self, script: Script, memory: &Memory) -> Result<(Lowering, Option<Memory>, Script), ReadError> {
        let graph = SourceGraph { states: memory.states(), ..self.graph.clone() };
        let inputs: Vec<Arc<str>> = graph.inputs.iter().map(|i| i.name.clone()).collect();
        let walk = Walk::new(graph, ops::table(), self.request);
        if walk.has_error() {
            return Ok((walk.finish(vec![], &[]), None, script));
        }
        let mut interpreter = Interpreter::new(script, walk, memory.clone(), inputs);
        let returned = interpreter.forward(self.args.to_vec(), self.named.to_vec());
        let ended = returned.and_then(|result| Ok((interpreter.left()?, result)));
        match ended {
            Ok((left, result)) => {
                let (lowering, script) = interpreter.finish(&result);
                Ok((lowering, Some(left), script))
            }
            // What stands in the way has been said; where it is nothing else, this is it.
            Err(ReadError::Stopped) => Ok(interpreter.stop()),
            Err(ReadError::Graph(why)) => {
                interpreter.walk.fail(why);
                Ok(interpreter.stop())
            }
            Err(e) => Err(e),
        }
    }
}

/// Says that what a model writes into an input is an output.
pub(crate) fn written_input(name: &str) -> Diagnostic {
    let title = format!("the model writes into its input `{name}`: what becomes of it is the output `{name}_out`");
    let d = Diagnostic::warning(&codes::F0107, title);
    d.help(format!("`--state {name}={name}_out` keeps it in the model, `--output` leaves it out"))
}

/// The number that is typed for a parameter which is no tensor: where a shape would stand, it has one size.
fn typed_number(ty: &str, spec: &InputSpec) -> Result<Item, ReadError> {
    let name = spec.name.as_deref().unwrap_or_default();
    let item = match spec.dims.as_slice() {
        [DimSpec::Known(n)] if spec.dtype.is_none() => number(ty, &Tensor::scalar(*n)),
        _ => None,
    };
    item.ok_or_else(|| {
        ReadError::Graph(format!("`forward` takes `{name}`, {ty}: `--input {name}=…` is to be a number"))
    })
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
