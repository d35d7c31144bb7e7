//! Reads exported programs (`.pt2`): an archive with the graph as JSON and the weights as raw bytes.

use crate::{
    archive::{Archive, ArchiveError},
    complex::in_parts,
    functional::functionalized,
    inlined::inlined,
    ops, saved, script, symbols, tree,
};
use bytes::Bytes;
use indexmap::IndexMap;
use mlconv_source::{Arg, Node, SourceDim, SourceGraph, SourceState, SourceType, SourceValue};
use mlconv_tensor::{DType, Tensor};
use serde::Deserialize;
use serde_json::Value as Json;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

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
    /// A shape that the file does not say.
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

/// What is known of a tensor.
#[derive(Clone, Deserialize)]
struct Meta {
    dtype: i64,
    sizes: Vec<Json>,
    #[serde(default)]
    strides: Vec<Json>,
    #[serde(default)]
    storage_offset: Json,
}

#[derive(Deserialize)]
struct WeightsConfig {
    config: IndexMap<String, WeightConfig>,
}

#[derive(Deserialize)]
struct WeightConfig {
    path_name: String,
    #[serde(default)]
    use_pickle: bool,
    tensor_meta: Option<Meta>,
}

/// Reads an exported program.
pub fn read(bytes: Bytes) -> Result<SourceGraph> {
    let mut archive = Archive::open(bytes)?;
    let entry = program_entry(&mut archive)?;
    let text = archive.read(&entry)?;
    let json = |why: serde_json::Error| ReadError::Json { entry: entry.clone(), why: why.to_string() };
    let program: Program = serde_json::from_slice(&text).map_err(json)?;
    let mut reader = Reader { weights: weights(&mut archive)?, ..Reader::default() };
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

/// The entry that holds the graph.
fn program_entry(archive: &mut Archive) -> Result<String> {
    let found = archive
        .names()
        .into_iter()
        .find(|n| n.starts_with("models/") && n.rsplit_once('.').is_some_and(|(_, e)| e == "json"));
    if let Some(name) = found {
        return Ok(name.to_owned());
    }
    if archive.has("serialized_exported_program.json") {
        return Ok("serialized_exported_program.json".to_owned());
    }
    if archive.names().iter().any(|n| n.starts_with("code/")) {
        return Err(ReadError::Other { what: "TorchScript, which is no graph", help: "convert it with `--input`" });
    }
    Err(saved::described(archive))
}

/// All weights, by name.
fn weights(archive: &mut Archive) -> Result<HashMap<String, Tensor>> {
    let mut out = HashMap::new();
    let configs: Vec<String> = archive
        .names()
        .into_iter()
        .filter(|n| n.starts_with("data/") && n.ends_with("_config.json"))
        .map(str::to_owned)
        .collect();
    for entry in configs {
        let text = archive.read(&entry)?;
        let json = |why: serde_json::Error| ReadError::Json { entry: entry.clone(), why: why.to_string() };
        let config: WeightsConfig = serde_json::from_slice(&text).map_err(json)?;
        let folder = entry.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (name, weight) in config.config {
            let fail = |why: String| ReadError::Weight { name: name.clone(), why };
            let path = format!("{folder}/{}", weight.path_name);
            if weight.use_pickle {
                let saved = saved::tensors(archive.read(&path)?, &path)?;
                out.extend(saved.into_iter().next().map(|(_, t)| (name, t)));
                continue;
            }
            let Some(meta) = &weight.tensor_meta else { continue };
            let bytes = archive.read(&path)?;
            let t = strided(meta, &bytes).map_err(fail)?;
            out.insert(name, t);
        }
    }
    // Earlier releases saved all weights together.
    let together = |n: &&str| match n.strip_suffix(".pt") {
        Some(n) if n.starts_with("data/weights/") || n.starts_with("data/constants/") => true,
        Some(n) => matches!(n, "serialized_state_dict" | "serialized_constants"),
        None => false,
    };
    let saved: Vec<String> = archive.names().into_iter().filter(together).map(str::to_owned).collect();
    for entry in saved {
        out.extend(saved::tensors(archive.read(&entry)?, &entry)?);
    }
    Ok(out)
}

/// The type of the parts of complex numbers, where elements are such.
fn complex_parts(code: i64) -> Option<DType> {
    match code {
        9 => Some(DType::F16),
        10 => Some(DType::F32),
        11 => Some(DType::F64),
        _ => None,
    }
}

/// A tensor of which a file has the storage. Complex numbers are pairs along a further axis.
fn strided(meta: &Meta, bytes: &Bytes) -> std::result::Result<Tensor, String> {
    let parts = complex_parts(meta.dtype);
    let dtype =
        dtype(meta.dtype).or(parts).ok_or_else(|| format!("elements of type {} are not supported", meta.dtype))?;
    let sizes: Option<Vec<usize>> = meta.sizes.iter().map(known_size).collect();
    let strides: Option<Vec<usize>> = meta.strides.iter().map(known_size).collect();
    let offset = match &meta.storage_offset {
        Json::Null => Some(0),
        v => known_size(v),
    };
    let (Some(mut sizes), Some(mut strides), Some(mut offset)) = (sizes, strides, offset) else {
        return Err("its sizes are not numbers".to_owned());
    };
    if parts.is_some() {
        strides = strides.into_iter().map(|s| s.saturating_mul(2)).collect();
        sizes.push(2);
        strides.push(1);
        offset = offset.saturating_mul(2);
    }
    Storage { bytes, dtype }.tensor(&sizes, &strides, offset)
}

/// The memory that one or more tensors lie in.
pub(crate) struct Storage<'a> {
    pub(crate) bytes: &'a Bytes,
    pub(crate) dtype: DType,
}

impl Storage<'_> {
    /// The tensor of these sizes whose elements lie `strides` apart, from `offset` on.
    pub(crate) fn tensor(
        &self,
        sizes: &[usize],
        strides: &[usize],
        offset: usize,
    ) -> std::result::Result<Tensor, String> {
        let beyond = || format!("its {} bytes are too few for {sizes:?} from {offset} on", self.bytes.len());
        let width = self.dtype.bits() as usize / 8;
        let count = sizes.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(beyond)?;
        let size = count.checked_mul(width).ok_or_else(beyond)?;
        let start = offset.checked_mul(width).ok_or_else(beyond)?;
        let own: Vec<usize> = mlconv_tensor::strides(sizes).to_vec();
        let in_order = sizes.iter().zip(strides).zip(&own).all(|((n, s), own)| *n <= 1 || s == own);
        if count == 0 || (in_order && strides.len() == sizes.len()) {
            let end = start.checked_add(size).filter(|e| *e <= self.bytes.len()).ok_or_else(beyond)?;
            let range = if count == 0 { 0..0 } else { start..end };
            return Tensor::new(self.dtype, sizes, self.bytes.slice(range).into()).map_err(|e| e.to_string());
        }
        if strides.len() != sizes.len() {
            return Err("it has not as many strides as sizes".to_owned());
        }
        let last = sizes.iter().zip(strides).try_fold(offset, |at, (n, s)| at.checked_add((n - 1).checked_mul(*s)?));
        let fits = last.and_then(|l| l.checked_add(1)).and_then(|l| l.checked_mul(width));
        if fits.is_none_or(|end| end > self.bytes.len()) {
            return Err(beyond());
        }
        // Repeated elements are few in files that PyTorch writes, and may be many in others.
        if size > self.bytes.len().saturating_mul(16).saturating_add(1 << 20) {
            return Err("it repeats few elements very often".to_owned());
        }
        let mut out = Vec::with_capacity(size);
        let mut index = vec![0usize; sizes.len()];
        for _ in 0..count {
            let at: usize = offset + index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>();
            out.extend_from_slice(&self.bytes[at * width..(at + 1) * width]);
            for (i, n) in index.iter_mut().zip(sizes).rev() {
                *i += 1;
                if *i < *n {
                    break;
                }
                *i = 0;
            }
        }
        Tensor::new(self.dtype, sizes, Bytes::from(out).into()).map_err(|e| e.to_string())
    }
}

fn known_size(v: &Json) -> Option<usize> {
    let n = v.as_u64().or_else(|| v.get("as_int").and_then(Json::as_u64))?;
    usize::try_from(n).ok()
}

/// The element type of a number in an exported program.
fn dtype(code: i64) -> Option<DType> {
    Some(match code {
        1 => DType::U8,
        2 => DType::I8,
        3 => DType::I16,
        4 => DType::I32,
        5 => DType::I64,
        6 => DType::F16,
        7 => DType::F32,
        8 => DType::F64,
        12 => DType::Bool,
        13 => DType::Bf16,
        28 => DType::U16,
        29 => DType::F8E4M3,
        30 => DType::F8E5M2,
        _ => return None,
    })
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
        for spec in &module.signature.input_specs {
            let Some((kind, spec)) = spec.first() else { continue };
            let Some(name) = argument_name(spec.get("arg").unwrap_or(spec)) else { continue };
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
                    let Some(value) = name.map(Arc::<str>::from).or_else(|| constant_output(arg, returned, &mut out))
                    else {
                        continue;
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
            let mut name: Arc<str> = wanted.as_str().into();
            let mut count = 0usize;
            while !used.insert(name.clone()) {
                name = if count == 0 { format!("{wanted}_out") } else { format!("{wanted}_out{count}") }.into();
                count += 1;
            }
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
            if let Some(ty) = source_type(&graph.tensor_values[name]) {
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
        let Some((kind, v)) = arg.as_object().and_then(|o| o.iter().next()) else { return Ok(Arg::None) };
        let name = |v: &Json| v.get("name").and_then(Json::as_str).map(Arc::<str>::from);
        let list = || v.as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |v: &Json| v.as_str().unwrap_or_default().to_owned();
        Ok(match kind.as_str() {
            "as_none" => Arg::None,
            "as_tensor" => name(v).map_or(Arg::None, Arg::Value),
            "as_tensors" => Arg::Values(list().iter().map(name).collect()),
            "as_optional_tensor" => v.get("as_tensor").and_then(name).map_or(Arg::None, Arg::Value),
            "as_optional_tensors" => Arg::Values(list().iter().map(|t| t.get("as_tensor").and_then(name)).collect()),
            "as_int" => v.as_i64().map_or(Arg::Other("a number beyond 64 bits"), Arg::Int),
            "as_ints" => Arg::Ints(list().iter().filter_map(Json::as_i64).collect()),
            "as_float" => float(v).map_or(Arg::Other("a number"), Arg::Float),
            "as_floats" => Arg::Floats(list().iter().filter_map(float).collect()),
            "as_bool" => v.as_bool().map_or(Arg::None, Arg::Bool),
            "as_bools" => Arg::Ints(list().iter().filter_map(Json::as_bool).map(i64::from).collect()),
            "as_string" | "as_operator" => Arg::Str(text(v)),
            "as_strings" => Arg::Strs(list().iter().map(text).collect()),
            "as_scalar_type" => match v.as_i64().and_then(dtype) {
                Some(d) => Arg::DType(d),
                None => Arg::Other("an element type that is not supported"),
            },
            "as_sym_int" | "as_sym_bool" | "as_sym_float" => scalar(v),
            "as_sym_ints" | "as_sym_bools" | "as_sym_floats" => {
                let all: Vec<Arg> = list().iter().map(scalar).collect();
                let known = |a: &Arg| if let Arg::Int(i) = a { Some(*i) } else { None };
                all.iter().map(known).collect::<Option<Vec<i64>>>().map_or(Arg::List(all), Arg::Ints)
            }
            "as_memory_format" | "as_layout" | "as_device" => Arg::Other("a place in memory"),
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
            "as_complex" => match (v.get("real").and_then(float), v.get("imag").and_then(float)) {
                (Some(re), Some(im)) => Arg::Complex(re, im),
                _ => Arg::Other("a complex number"),
            },
            "as_custom_obj" => Arg::Other("an object of a class"),
            "as_nested_tensors" => Arg::Other("lists of tensors"),
            _ => Arg::Other("an argument of a kind that is not known"),
        })
    }
}

/// A number; those that JSON has not are texts.
fn float(v: &Json) -> Option<f64> {
    v.as_f64().or_else(|| match v.as_str()? {
        "Infinity" | "inf" => Some(f64::INFINITY),
        "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
        "NaN" | "nan" => Some(f64::NAN),
        other => other.parse().ok(),
    })
}

/// A number that may be a value of the graph.
fn scalar(v: &Json) -> Arg {
    let Some((kind, v)) = v.as_object().and_then(|o| o.iter().next()) else { return Arg::None };
    match kind.as_str() {
        "as_int" => v.as_i64().map_or(Arg::None, Arg::Int),
        "as_float" => float(v).map_or(Arg::None, Arg::Float),
        "as_bool" => v.as_bool().map_or(Arg::None, Arg::Bool),
        _ => v.as_str().map_or(Arg::None, |name| Arg::Value(name.into())),
    }
}

/// A result that is a number, as a constant of the graph; `at` is its place.
fn constant_output(arg: &Json, at: usize, graph: &mut SourceGraph) -> Option<Arc<str>> {
    let t = match scalar(arg) {
        Arg::Int(i) => Tensor::scalar(i),
        Arg::Float(x) => Tensor::scalar(x as f32),
        Arg::Bool(b) => Tensor::from_bools(&[], [b]),
        _ => return None,
    };
    let name: Arc<str> = format!("output_{at}").into();
    graph.constants.insert(name.clone(), t);
    Some(name)
}

/// The name of a value that an argument is.
fn argument_name(arg: &Json) -> Option<&str> {
    let (kind, v) = arg.as_object()?.iter().next()?;
    match kind.as_str() {
        "name" | "as_name" => v.as_str(),
        "as_tensor" => v.get("name")?.as_str(),
        "as_sym_int" | "as_sym_bool" | "as_sym_float" => v.get("as_name")?.as_str(),
        _ => None,
    }
}

fn source_type(meta: &Meta) -> Option<SourceType> {
    let dim = |d: &Json| match d.get("as_int").and_then(Json::as_i64) {
        Some(n) => SourceDim::Known(n),
        None => match d.get("as_expr").and_then(|e| e.get("expr_str")).and_then(Json::as_str) {
            Some(expr) => symbolic(expr),
            None => SourceDim::Unknown,
        },
    };
    Some(SourceType { dtype: dtype(meta.dtype)?, shape: Some(meta.sizes.iter().map(dim).collect()) })
}

/// A symbolic size as we spell it; of one that we cannot, nothing is known.
fn symbolic(expr: &str) -> SourceDim {
    match symbols::parse(expr) {
        Some(dim) => dim.as_known().map_or_else(|| SourceDim::Named(dim.to_string()), SourceDim::Known),
        None => SourceDim::Unknown,
    }
}

/// Says of a view of memory if the tensor that it is of does not lie there in order.
fn mark_layout(node: &mut Node, graph: &Graph) {
    let of = node.attrs.get("self").and_then(|a| if let Arg::Value(v) = a { Some(v) } else { None });
    let Some(meta) = of.and_then(|name| graph.tensor_values.get(&**name)) else { return };
    let read = |all: &[Json]| all.iter().map(known_size).collect::<Option<Vec<usize>>>();
    let in_order = match (read(&meta.sizes), read(&meta.strides)) {
        (Some(sizes), Some(strides)) => {
            let own = mlconv_tensor::strides(&sizes);
            sizes.iter().zip(&strides).zip(own.iter()).all(|((n, s), own)| *n <= 1 || s == own)
        }
        _ => false,
    };
    let from_start = meta.storage_offset.is_null() || known_size(&meta.storage_offset) == Some(0);
    if !in_order || !from_start {
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
