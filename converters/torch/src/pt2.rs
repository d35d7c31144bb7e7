//! Reads exported programs (`.pt2`): an archive with the graph as JSON and the weights as raw bytes.

mod arguments;
mod weights;

use crate::{
    archive::{Archive, ArchiveError},
    complex::in_parts,
    functional::functionalized,
    inlined::inlined,
    ops, saved, script,
    storage::in_order,
    tree,
};
use arguments::{argument_name, source_type};
use bytes::Bytes;
use indexmap::IndexMap;
use mlconv_source::{Arg, Node, SourceGraph, SourceState, SourceValue};
use mlconv_tensor::Tensor;
use serde::Deserialize;
use serde_json::Value as Json;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use weights::{Meta, complex_parts, known_size, weights};

/// Why a file is no exported program that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The archive is at fault.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A part of the archive is not what it should be.
    #[error("`{entry}` of the archive: {why}")]
    Json {
        /// The part.
        entry: String,
        /// What is wrong.
        why: String,
    },
    /// The archive holds something else.
    #[error("the archive is {what}")]
    Other {
        /// What it is.
        what: &'static str,
        /// What to do about it.
        help: &'static str,
    },
    /// The archive is a pickle that makes an object of Python.
    #[error("the archive is a pickled Python object that calls `{0}`, and no graph; nothing was run")]
    Pickled(String),
    /// A weight's bytes, type and shape do not agree.
    #[error("weight `{name}`: {why}")]
    Weight {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Shapes are asked for of what the model does not take.
    #[error("there is no input `{name}`; `forward` takes `{inputs}`")]
    NoInput {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        inputs: String,
    },
    /// Shapes that the file does not say.
    #[error("the shape of input `{0}` is not in the file")]
    Shapes(String),
    /// There are errors already, and nothing more can be said.
    #[error("the model cannot be read further")]
    Stopped,
    /// The graph does not hold together.
    #[error("{0}")]
    Graph(String),
}

type Result<T, E = ReadError> = std::result::Result<T, E>;

/// Nesting of graphs beyond which a program is refused.
const MAX_NESTING: usize = 32;

#[derive(Deserialize)]
struct Program {
    graph_module: GraphModule,
    #[serde(default)]
    range_constraints: IndexMap<String, Range>,
    #[serde(default)]
    torch_version: Option<String>,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    min_val: Json,
    #[serde(default)]
    max_val: Json,
}

#[derive(Deserialize)]
struct GraphModule {
    graph: Graph,
    signature: Signature,
    #[serde(default)]
    module_call_graph: Vec<ModuleCall>,
}

/// How a module of the user's model is called; that of no name is the model.
#[derive(Deserialize)]
struct ModuleCall {
    #[serde(default)]
    fqn: String,
    #[serde(default)]
    signature: Option<CallSignature>,
}

#[derive(Deserialize)]
struct CallSignature {
    #[serde(default)]
    out_spec: Json,
}

#[derive(Deserialize)]
struct Graph {
    inputs: Vec<Json>,
    outputs: Vec<Json>,
    nodes: Vec<JsonNode>,
    tensor_values: HashMap<String, Meta>,
}

#[derive(Deserialize)]
struct Signature {
    input_specs: Vec<IndexMap<String, Json>>,
    output_specs: Vec<IndexMap<String, Json>>,
}

#[derive(Deserialize)]
struct JsonNode {
    target: String,
    inputs: Vec<NamedArgument>,
    outputs: Vec<Json>,
    #[serde(default)]
    metadata: HashMap<String, Json>,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct NamedArgument {
    name: String,
    arg: Json,
}

/// Reads an exported program.
pub fn read(bytes: Bytes) -> Result<SourceGraph> {
    let mut archive = Archive::open(bytes)?;
    let (entry, model) = program_entry(&mut archive)?;
    let text = archive.read(&entry)?;
    let json = |why: serde_json::Error| ReadError::Json { entry: entry.clone(), why: why.to_string() };
    let program: Program = serde_json::from_slice(&text).map_err(json)?;
    let mut reader = Reader { weights: weights(&mut archive, &model)?, ..Reader::default() };
    let mut graph = reader.program(&program)?;
    if let Some(version) = &program.torch_version {
        graph.meta.insert("source".to_owned(), format!("torch {version}"));
    }
    for (name, range) in &program.range_constraints {
        let bound = |v: &Json| v.as_i64().or_else(|| v.get("as_int").and_then(Json::as_i64));
        // A bound near the end of 64 bits stands for none.
        let max = bound(&range.max_val).filter(|m| *m < i64::from(i32::MAX));
        graph.symbols.insert(name.as_str().into(), (bound(&range.min_val).unwrap_or(1), max));
    }
    let (mut graph, written) = functionalized(graph).map_err(ReadError::Graph)?;
    // Twins of values that functions make have the type of these.
    let mut complex = reader.complex.clone();
    for node in &graph.nodes {
        let like = |name: &Arc<str>| name.rsplit_once("_v").is_some_and(|(of, _)| complex.contains(of));
        let more: Vec<Arc<str>> = node.outputs.iter().filter(|o| like(o)).cloned().collect();
        complex.extend(more);
    }
    graph = in_parts(graph, &complex).map_err(ReadError::Graph)?;
    reader.name_outputs(&mut graph, &written);
    // A buffer that is written is one that the next call finds so.
    for (value, name) in std::mem::take(&mut reader.buffers) {
        let after = reader.mutated.get(&name).or_else(|| written.get(&value)).cloned();
        let Some(after) = after.filter(|after| *after != value) else { continue };
        if let Some(initial) = graph.constants.shift_remove(&value) {
            graph.states.push(SourceState { name: name.as_str().into(), before: value, after, initial });
        }
    }
    Ok(graph)
}

/// The entry that holds the graph, and the model's name in the archive.
fn program_entry(archive: &mut Archive) -> Result<(String, String)> {
    let model = |n: &str| Some((n.to_owned(), n.strip_prefix("models/")?.strip_suffix(".json")?.to_owned()));
    let mut models = archive.names().into_iter().filter_map(model);
    match (models.next(), models.next()) {
        (Some(_), Some(_)) => {
            let help = "export each by itself: `torch.export.save(program, \"model.pt2\")`";
            return Err(ReadError::Other { what: "one of several models", help });
        }
        (Some(found), None) => return Ok(found),
        (None, _) => {}
    }
    if archive.has("serialized_exported_program.json") {
        return Ok(("serialized_exported_program.json".to_owned(), "model".to_owned()));
    }
    if archive.names().iter().any(|n| n.starts_with("code/")) {
        return Err(ReadError::Other { what: "TorchScript, which is no graph", help: "convert it with `--input`" });
    }
    Err(saved::described(archive))
}

#[derive(Default)]
struct Reader {
    weights: HashMap<String, Tensor>,
    /// The program's buffers: the value, and the name.
    buffers: Vec<(Arc<str>, String)>,
    /// What the signature says that buffers become, by name.
    mutated: HashMap<String, Arc<str>>,
    /// What the signature says that inputs become, by name.
    mutated_inputs: HashMap<String, Arc<str>>,
    /// What outputs are called in what the user's model returns; empty where that has no name.
    titles: Vec<String>,
    /// Values that are complex.
    complex: HashSet<Arc<str>>,
    /// A graph among the arguments of the node at hand that writes into what it is given, and one name of that.
    writing: Option<(SourceGraph, Arc<str>)>,
}

impl Reader {
    fn program(&mut self, program: &Program) -> Result<SourceGraph> {
        let module = &program.graph_module;
        let mut out = self.graph(&module.graph, 0)?;
        let mut inputs = vec![];
        let mut used: HashSet<Arc<str>> = out.nodes.iter().flat_map(|n| n.outputs.iter().cloned()).collect();
        for spec in &module.signature.input_specs {
            let Some((kind, spec)) = spec.first() else { continue };
            let Some(name) = argument_name(spec.get("arg").unwrap_or(spec)) else { continue };
            if !used.insert(name.into()) {
                return Err(ReadError::Graph(format!("two inputs or results are called `{name}`")));
            }
            let key = match kind.as_str() {
                "user_input" => {
                    inputs.extend(out.inputs.iter().find(|v| *v.name == *name).cloned());
                    continue;
                }
                "parameter" => "parameter_name",
                "buffer" => "buffer_name",
                "tensor_constant" => "tensor_constant_name",
                // An input that the program was specialised for.
                "constant_input" | "token" => continue,
                other => return Err(ReadError::Graph(format!("inputs of kind `{other}` are not supported"))),
            };
            let weight = spec.get(key).and_then(Json::as_str).unwrap_or(name);
            let t = self.weights.get(weight).cloned();
            let t =
                t.ok_or_else(|| ReadError::Weight { name: weight.to_owned(), why: "it is not in the archive".into() })?;
            self.buffers.push((name.into(), weight.to_owned()));
            out.constants.insert(name.into(), t);
        }
        out.inputs = inputs;
        out.outputs.clear();
        let root = module.module_call_graph.iter().find(|c| c.fqn.is_empty()).and_then(|c| c.signature.as_ref());
        let titles = root.and_then(|s| s.out_spec.as_str()).and_then(tree::names).unwrap_or_default();
        let mut returned = 0;
        for (spec, arg) in module.signature.output_specs.iter().zip(&module.graph.outputs) {
            let Some((kind, spec)) = spec.first() else { continue };
            let name = argument_name(arg);
            let of = |key: &str| spec.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
            match (kind.as_str(), name) {
                ("user_output", _) => {
                    let title = titles.get(returned).cloned().unwrap_or_default();
                    returned += 1;
                    // What is None is no output; what is a number is the same one in every call.
                    let value = match (name, arguments::constant(arg)?) {
                        (Some(name), _) => name.into(),
                        (None, None) => continue,
                        (None, Some(t)) => {
                            let name = unused(&mut used, &format!("output_{returned}"));
                            out.constants.insert(name.clone(), t);
                            name
                        }
                    };
                    let ty = out.types.get(&value).cloned();
                    out.outputs.push(SourceValue { name: value, ty, other: None, description: String::new() });
                    self.titles.push(title);
                }
                ("buffer_mutation", Some(value)) => drop(self.mutated.insert(of("buffer_name"), value.into())),
                ("parameter_mutation", Some(value)) => drop(self.mutated.insert(of("parameter_name"), value.into())),
                ("user_input_mutation", Some(value)) => {
                    self.mutated_inputs.insert(of("user_input_name"), value.into());
                }
                ("token", _) => {}
                (other, _) => return Err(ReadError::Graph(format!("outputs of kind `{other}` are not supported"))),
            }
        }
        Ok(out)
    }

    /// Gives outputs the names that they have in what the user's model returns, and adds what the program leaves in the
    /// caller's own memory. `written` is what inputs become by operators that write.
    fn name_outputs(&mut self, graph: &mut SourceGraph, written: &HashMap<Arc<str>, Arc<str>>) {
        let mut titles = std::mem::take(&mut self.titles);
        titles.resize(graph.outputs.len(), String::new());
        for input in graph.inputs.clone() {
            let after = self.mutated_inputs.get(&*input.name).or_else(|| written.get(&input.name));
            let Some(after) = after.filter(|after| **after != input.name) else { continue };
            // What is returned is not lost.
            if graph.outputs.iter().any(|o| o.name == *after) {
                continue;
            }
            graph.notes.push(script::written_input(&input.name));
            graph.outputs.push(SourceValue { name: after.clone(), ..input.clone() });
            titles.push(format!("{}_out", input.name));
        }
        let mut used: HashSet<Arc<str>> = graph.nodes.iter().flat_map(|n| n.outputs.iter().cloned()).collect();
        used.extend(graph.inputs.iter().map(|i| i.name.clone()).chain(graph.constants.keys().cloned()));
        let mut returned = HashSet::new();
        for i in 0..graph.outputs.len() {
            let value = graph.outputs[i].name.clone();
            let is_first = returned.insert(value.clone());
            let title = titles.get(i).cloned().unwrap_or_default();
            if *value == *title || (title.is_empty() && is_first) {
                continue;
            }
            // Each output is a value with a name of its own.
            let wanted = if title.is_empty() { format!("{value}_again{i}") } else { title };
            let name = unused(&mut used, &wanted);
            let attrs = [("self".into(), Arg::Value(value))].into_iter().collect();
            let (domain, op) = ("aten".into(), "clone".into());
            let node = Node { domain, op, name: name.clone(), attrs, outputs: vec![name.clone()], ..Node::default() };
            graph.nodes.push(node);
            graph.outputs[i].name = name;
        }
    }

    fn graph(&mut self, graph: &Graph, depth: usize) -> Result<SourceGraph> {
        if depth > MAX_NESTING {
            return Err(ReadError::Graph("graphs are nested too deeply".to_owned()));
        }
        let mut out = SourceGraph { name: "main".to_owned(), ..SourceGraph::default() };
        // Sorted, so that the same file gives the same graph.
        let mut names: Vec<&String> = graph.tensor_values.keys().collect();
        names.sort_unstable();
        for name in names {
            if depth == 0 && complex_parts(graph.tensor_values[name].dtype).is_some() {
                self.complex.insert(name.as_str().into());
            }
            if let Some(ty) = source_type(name, &graph.tensor_values[name])? {
                out.types.insert(name.as_str().into(), ty);
            }
        }
        let value = |arg: &Json| -> Option<SourceValue> {
            let name: Arc<str> = argument_name(arg)?.into();
            let ty = out.types.get(&name).cloned();
            Some(SourceValue { name, ty, other: None, description: String::new() })
        };
        out.inputs = graph.inputs.iter().filter_map(value).collect();
        out.outputs = graph.outputs.iter().filter_map(value).collect();
        for node in &graph.nodes {
            let mut node = self.node(node, depth)?;
            if let Some((inner, written)) = self.writing.take() {
                inlined(&node, inner, &written, &mut out).map_err(ReadError::Graph)?;
                continue;
            }
            if node.op.starts_with("as_strided") {
                mark_layout(&mut node, graph);
            }
            out.nodes.push(node);
        }
        Ok(out)
    }

    fn node(&mut self, node: &JsonNode, depth: usize) -> Result<Node> {
        let target = node.target.strip_prefix("torch.ops.").unwrap_or(&node.target);
        let (domain, op) = target.split_once('.').unwrap_or(("", target));
        let op = op.strip_suffix(".default").unwrap_or(op);
        let mut outputs: Vec<Arc<str>> = vec![];
        for o in &node.outputs {
            match o.get("as_tensors").and_then(Json::as_array) {
                // A list of results is as many results.
                Some(list) => outputs.extend(list.iter().filter_map(|t| t.get("name")?.as_str()).map(Arc::from)),
                None => outputs.push(argument_name(o).unwrap_or_default().into()),
            }
        }
        let text = |key: &str| node.metadata.get(key).and_then(Json::as_str).unwrap_or_default();
        let name = node.name.as_deref().map(Arc::from).or_else(|| outputs.first().cloned());
        let mut out = Node {
            domain: domain.into(),
            op: op.into(),
            version: 0,
            name: name.unwrap_or_else(|| op.into()),
            outputs,
            module: module_of(text("nn_module_stack")).into(),
            line: line_of(text("stack_trace")).into(),
            ..Node::default()
        };
        let mut args = vec![];
        for (i, input) in node.inputs.iter().enumerate() {
            let arg = self.argument(&input.arg, depth)?;
            args.push((if input.name.is_empty() { None } else { Some(input.name.as_str()) }, i, arg));
        }
        ops::bind(&mut out, args).map_err(ReadError::Graph)?;
        Ok(out)
    }

    fn argument(&mut self, arg: &Json, depth: usize) -> Result<Arg> {
        let Some((kind, v)) = arg.as_object().and_then(|o| o.iter().next()) else {
            return Ok(Arg::Other("an argument of no kind"));
        };
        Ok(match kind.as_str() {
            "as_graph" => {
                let graph = v.get("graph").cloned().unwrap_or_default();
                let graph: Graph = serde_json::from_value(graph)
                    .map_err(|why| ReadError::Json { entry: "a nested graph".to_owned(), why: why.to_string() })?;
                let own = self.graph(&graph, depth + 1)?;
                let (graph, written) = functionalized(own.clone()).map_err(ReadError::Graph)?;
                if let Some(name) = own.inputs.iter().map(|i| &i.name).find(|name| written.contains_key(*name)) {
                    self.writing = Some((own.clone(), name.clone()));
                }
                Arg::Graph(Box::new(graph))
            }
            kind => arguments::argument(kind, v),
        })
    }
}

/// A name that nothing has: the one that is wanted, or one made of it.
pub(crate) fn unused(used: &mut HashSet<Arc<str>>, wanted: &str) -> Arc<str> {
    let mut name: Arc<str> = wanted.into();
    let mut count = 0usize;
    while !used.insert(name.clone()) {
        name = if count == 0 { format!("{wanted}_out") } else { format!("{wanted}_out{count}") }.into();
        count += 1;
    }
    name
}

/// Says of a view of memory if the tensor that it is of does not lie there in order.
fn mark_layout(node: &mut Node, graph: &Graph) {
    let of = node.attrs.get("self").and_then(|a| if let Arg::Value(v) = a { Some(v) } else { None });
    let Some(meta) = of.and_then(|name| graph.tensor_values.get(&**name)) else { return };
    let read = |all: &[Json]| all.iter().map(known_size).collect::<Option<Vec<usize>>>();
    let lies_in_order =
        matches!((read(&meta.sizes), read(&meta.strides)), (Some(sizes), Some(strides)) if in_order(&sizes, &strides));
    let from_start = meta.storage_offset.is_null() || known_size(&meta.storage_offset) == Some(0);
    if !lies_in_order || !from_start {
        node.attrs.insert("self_layout".into(), Arg::Str("a view itself".to_owned()));
    }
}

/// The module path of a node, the innermost of the stack: `L__self__.layers.0,layers.0,torch.nn…;…`.
fn module_of(stack: &str) -> String {
    let last = stack.rsplit(';').next().unwrap_or_default();
    let path = last.split(',').nth(1).unwrap_or_default();
    path.strip_prefix("L['self'].").unwrap_or(path).to_owned()
}

/// The line of the user's code in a trace, `model.py:42`: the last one outside of installed packages, else the last.
fn line_of(trace: &str) -> String {
    let frame = |line: &str| {
        let (path, rest) = line.trim().strip_prefix("File \"")?.split_once("\", line ")?;
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let file = path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned();
        Some((path.contains("site-packages/torch/"), format!("{file}:{number}")))
    };
    let frames: Vec<(bool, String)> = trace.lines().filter_map(frame).collect();
    let own = frames.iter().rev().find(|(torch, _)| !torch).or(frames.last());
    own.map(|(_, line)| line.clone()).unwrap_or_default()
}
