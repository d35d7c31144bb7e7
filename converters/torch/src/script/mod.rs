//! TorchScript: its archives, and the interpreter that turns their code into nodes.

mod archive;
mod builtins;
mod interpret;
mod memory;
mod syntax;
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
    let mut args = vec![];
    let tensors = forward.params.iter().skip(1).filter(|p| is_tensor(&p.ty)).count();
    for p in forward.params.iter().skip(1) {
        let name: Arc<str> = p.name.as_str().into();
        if !is_tensor(&p.ty) {
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
                Some(item) => args.push(item),
                // What has a default keeps it, and what follows it too.
                None if p.default.is_some() => break,
                None => {
                    let why = format!(
                        "`forward` takes `{}`, {} that the program is made for: give it with `--input {}=NUMBER`, or with \
                         `--sample {}=FILE.npy`",
                        p.name, p.ty, p.name, p.name
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
    let mut memory = Memory::default();
    let mut first = None;
    for _ in 0..MAX_CALLS {
        let call = Call { graph: &graph, args: &args, request: &request };
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
    request: &'a Request,
}

impl Call<'_> {
    /// What it does where attributes are as in `memory`, and what it leaves; nothing where it is not whole.
    fn run(&self, script: Script, memory: &Memory) -> Result<(Lowering, Option<Memory>, Script), ReadError> {
        let graph = SourceGraph { states: memory.states(), ..self.graph.clone() };
        let walk = Walk::new(graph, ops::table(), self.request);
        if walk.has_error() {
            return Ok((walk.finish(vec![], &[]), None, script));
        }
        let mut interpreter = Interpreter::new(script, walk, memory.clone());
        let returned = interpreter.forward(self.args.to_vec());
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
