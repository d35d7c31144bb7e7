//! Reads ONNX files. Weights stay ranges of the mapped file.

use crate::{
    functions,
    tensor::{self, Read},
};
use indexmap::IndexMap;
use mlconv_proto::onnx::{
    self, AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType, tensor_shape_proto::dimension, type_proto,
};
use mlconv_source::{Absent, Arg, FileError, ModelFiles, Node, SourceDim, SourceGraph, SourceType, SourceValue};
use mlconv_tensor::{Bytes, DType};
use prost::Message;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Why a file is no ONNX model that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes are no protobuf message of this kind.
    #[error("the file is not a whole ONNX model: {0}")]
    Decode(#[from] prost::DecodeError),
    /// There is no graph.
    #[error("the model has no graph")]
    NoGraph,
    /// A tensor's type, shape and bytes do not agree.
    #[error("tensor `{name}`: {why}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A tensor's data is in a file that cannot be used.
    #[error("tensor `{name}`: {why}")]
    External {
        /// Its name.
        name: String,
        /// What is wrong.
        why: FileError,
    },
    /// Two things that must be unique share a name.
    #[error("{what} `{name}` is there twice")]
    Duplicate {
        /// Of which kind.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A node has no operator.
    #[error("node {index} has no operator")]
    NoOperator {
        /// Its position.
        index: usize,
    },
    /// A node's operator set is not imported.
    #[error("node `{node}`: the model imports no operator set `{domain}`")]
    NoOpset {
        /// The node.
        node: String,
        /// Its domain.
        domain: String,
    },
    /// Functions or sparse tensors hold much more than the file does.
    #[error("what the model comes to, written out, is more than memory holds")]
    TooLarge,
    /// A call gives a function something that it does not take.
    #[error("node `{node}` gives the function `{function}` {what}, which it does not declare")]
    Call {
        /// The node.
        node: String,
        /// The function.
        function: String,
        /// What is too much.
        what: String,
    },
    /// Functions call each other in a circle, or expand without bound.
    #[error("function `{name}` expands without end")]
    Endless {
        /// The function.
        name: String,
    },
}

pub(crate) type Result<T> = std::result::Result<T, ReadError>;

/// Whether `head`, the first bytes of a file, may begin an ONNX model: its first field is the IR version, and others
/// are fields of the message too.
pub fn looks_like_onnx(head: &[u8]) -> bool {
    // Fields of ModelProto, each with its wire type, that exporters write first.
    matches!(head.first(), Some(0x08 | 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42)) && head.len() > 1
}

/// Reads a model. External data are looked up in `files`.
pub fn read(bytes: Bytes, files: &ModelFiles) -> Result<SourceGraph> {
    let model = ModelProto::decode(bytes)?;
    let graph = model.graph.as_ref().ok_or(ReadError::NoGraph)?;
    let mut imports = HashMap::new();
    for import in &model.opset_import {
        imports.insert(domain(import.domain.as_deref()), import.version.unwrap_or(1));
    }
    let functions = functions::index(&model)?;
    let mut reader = Reader { files, functions, calls: HashMap::new(), expanded: 0, left: MAX_COPIED };
    let mut out = reader.graph(graph, &Scope { imports: &imports, rename: None, attrs: None, depth: 0 })?;
    let mut note = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            out.meta.insert(key.to_owned(), value.to_owned());
        }
    };
    let producer = [model.producer_name.as_deref(), model.producer_version.as_deref()];
    let producer = producer.into_iter().flatten().collect::<Vec<_>>().join(" ");
    note("source", Some(format!("onnx {producer}").trim_end()));
    note("description", model.doc_string.as_ref().map(|d| String::from_utf8_lossy(d)).as_deref());
    for p in &model.metadata_props {
        note(p.key.as_deref().unwrap_or_default(), p.value.as_deref());
    }
    Ok(out)
}

/// The domain as the table spells it: empty for ONNX's own.
pub(crate) fn domain(domain: Option<&str>) -> &str {
    match domain {
        None | Some("ai.onnx") => "",
        Some(d) => d,
    }
}

pub(crate) struct Reader<'m> {
    pub(crate) files: &'m ModelFiles,
    pub(crate) functions: functions::Functions<'m>,
    /// How many calls there were of each name: several may share one.
    pub(crate) calls: HashMap<Arc<str>, usize>,
    /// Nodes made by expanding functions so far.
    pub(crate) expanded: usize,
    /// Elements that may still be copied beyond those that the file holds.
    pub(crate) left: usize,
}

/// Elements that all functions and sparse tensors may come to.
const MAX_COPIED: usize = 1 << 26;

/// Gives a value of a function its name in the graph.
pub(crate) type Rename<'s> = dyn Fn(&str) -> Arc<str> + 's;

/// What names and attributes mean where a node stands.
pub(crate) struct Scope<'s> {
    pub(crate) imports: &'s HashMap<&'s str, i64>,
    /// Inside of a function: new names of its values.
    pub(crate) rename: Option<&'s Rename<'s>>,
    /// Inside of a function: the attributes of the call.
    pub(crate) attrs: Option<&'s IndexMap<Arc<str>, Arg>>,
    pub(crate) depth: usize,
}

impl Scope<'_> {
    fn name(&self, name: &str) -> Arc<str> {
        match self.rename {
            Some(rename) if !name.is_empty() => rename(name),
            _ => name.into(),
        }
    }
}

impl<'m> Reader<'m> {
    fn graph(&mut self, graph: &'m GraphProto, scope: &Scope<'_>) -> Result<SourceGraph> {
        let mut out = SourceGraph { name: graph.name.clone().unwrap_or_default(), ..SourceGraph::default() };
        for t in &graph.initializer {
            let name = scope.name(t.name.as_deref().unwrap_or_default());
            let twice = match tensor::read_any(t, self.files)? {
                Read::Tensor(value) => out.constants.insert(name.clone(), value).is_some(),
                Read::Other(ty) => out.absent.insert(name.clone(), Absent::Other(tensors_of(ty))).is_some(),
                Read::Unread => out.absent.insert(name.clone(), Absent::Unread).is_some(),
            };
            if twice || (out.constants.contains_key(&name) && out.absent.contains_key(&name)) {
                return Err(ReadError::Duplicate { what: "initializer", name: name.to_string() });
            }
        }
        for t in &graph.sparse_initializer {
            let name = t.values.as_ref().and_then(|v| v.name.as_deref()).unwrap_or_default();
            let value = tensor::read_sparse(t, self.files)?;
            self.charge(value.count())?;
            if out.constants.insert(scope.name(name), value).is_some() {
                return Err(ReadError::Duplicate { what: "initializer", name: name.to_owned() });
            }
        }
        out.inputs = Self::values(&graph.input, "input", scope)?;
        // An input that has an initializer only states its type.
        out.inputs.retain(|v| !out.constants.contains_key(&v.name) && !out.absent.contains_key(&v.name));
        out.outputs = Self::values(&graph.output, "output", scope)?;
        for v in graph.output.iter().chain(&graph.value_info) {
            if let Some(shape) = v.r#type.as_ref().and_then(shape_alone) {
                out.shapes.insert(scope.name(v.name.as_deref().unwrap_or_default()), shape);
            }
        }
        for v in &graph.value_info {
            let name = scope.name(v.name.as_deref().unwrap_or_default());
            // A hint: one that cannot be read is none.
            if let Some(Ok(ty)) = v.r#type.as_ref().and_then(value_type) {
                out.types.insert(name, ty);
            }
        }
        for (index, node) in graph.node.iter().enumerate() {
            self.node(node, index, scope, &mut out.nodes)?;
        }
        add_shapes_before(&mut out);
        Ok(out)
    }

    fn values(values: &[ValueInfoProto], what: &'static str, scope: &Scope<'_>) -> Result<Vec<SourceValue>> {
        let (mut out, mut names) = (vec![], HashSet::new());
        for v in values {
            let name = scope.name(v.name.as_deref().unwrap_or_default());
            if !names.insert(name.clone()) {
                return Err(ReadError::Duplicate { what, name: name.to_string() });
            }
            let (ty, other) = match v.r#type.as_ref().and_then(value_type) {
                // Of an input that is a tensor, no more: its elements are taken for the usual ones.
                None if what == "input" && scope.depth == 0 => {
                    let is_tensor = |ty: &&TypeProto| matches!(ty.value, Some(type_proto::Value::TensorType(_)));
                    let tensor = v.r#type.as_ref().filter(is_tensor);
                    (tensor.map(|ty| SourceType { dtype: DType::F32, shape: shape_alone(ty) }), None)
                }
                None => (None, None),
                Some(Ok(ty)) => (Some(ty), None),
                // Nested graphs may pass anything; their nodes say what they make of it.
                Some(Err(other)) => (None, Some(other).filter(|_| scope.depth == 0)),
            };
            let description = v.doc_string.as_ref().map(|d| String::from_utf8_lossy(d).into_owned());
            out.push(SourceValue { name, ty, other, description: description.unwrap_or_default() });
        }
        Ok(out)
    }

    /// Reads one node, or the nodes of the function that it calls.
    pub(crate) fn node(
        &mut self,
        node: &'m NodeProto,
        index: usize,
        scope: &Scope<'_>,
        out: &mut Vec<Node>,
    ) -> Result<()> {
        let op = node.op_type.as_deref().filter(|o| !o.is_empty()).ok_or(ReadError::NoOperator { index })?;
        let domain = domain(node.domain.as_deref());
        let outputs: Vec<Arc<str>> = node.output.iter().map(|o| scope.name(o)).collect();
        let named = node.name.as_deref().filter(|n| !n.is_empty()).map(Arc::from);
        let name: Arc<str> = named.or_else(|| outputs.first().cloned()).unwrap_or_else(|| op.into());
        let inputs = node.input.iter().map(|i| if i.is_empty() { Arg::None } else { Arg::Value(scope.name(i)) });
        let mut read = Node {
            domain: domain.into(),
            op: op.into(),
            version: 0,
            name,
            inputs: inputs.collect(),
            attrs: IndexMap::new(),
            outputs,
            module: "".into(),
            line: "".into(),
        };
        for p in &node.metadata_props {
            match (p.key.as_deref(), p.value.as_deref()) {
                (Some("pkg.torch.onnx.stack_trace"), Some(trace)) => read.line = source_line(trace),
                (Some("namespace"), Some(path)) => read.module = module_of(path).into(),
                _ => {}
            }
        }
        for a in &node.attribute {
            let name: Arc<str> = a.name.as_deref().unwrap_or_default().into();
            if let Some(arg) = self.attribute(a, scope)?
                && read.attrs.insert(name.clone(), arg).is_some()
            {
                return Err(ReadError::Duplicate { what: "attribute", name: name.to_string() });
            }
        }
        if let Some(function) = self.functions.get(domain, op, node.overload.as_deref()) {
            return self.expand(function, &read, scope, out);
        }
        read.version = match scope.imports.get(domain) {
            Some(v) => *v,
            // Contributed operators are often used without an import.
            None if !domain.is_empty() => 1,
            None => return Err(ReadError::NoOpset { node: read.name.to_string(), domain: "ai.onnx".to_owned() }),
        };
        out.push(read);
        Ok(())
    }

    /// Takes `elements` out of what may still be copied.
    fn charge(&mut self, elements: usize) -> Result<()> {
        self.left = self.left.checked_sub(elements).ok_or(ReadError::TooLarge)?;
        Ok(())
    }

    pub(crate) fn attribute(&mut self, a: &'m AttributeProto, scope: &Scope<'_>) -> Result<Option<Arg>> {
        if let Some(outer) = a.ref_attr_name.as_deref().filter(|r| !r.is_empty()) {
            // Inside of a function: an attribute of the call, absent where the call has none.
            let arg = scope.attrs.and_then(|attrs| attrs.get(outer)).cloned();
            let copied = match &arg {
                Some(Arg::Ints(v)) => v.len(),
                Some(Arg::Floats(v)) => v.len(),
                Some(Arg::Strs(v)) => v.iter().map(|s| s.len() + 1).sum(),
                Some(Arg::Str(s)) => s.len(),
                _ => 0,
            };
            self.charge(copied)?;
            return Ok(arg);
        }
        if scope.attrs.is_some() {
            // What a function holds is there once for every call; raw bytes are shared.
            let tensor = a.t.as_ref().map_or(0, |t| t.encoded_len() - t.raw_data.as_ref().map_or(0, Bytes::len));
            let strings = a.strings.iter().map(Bytes::len).sum::<usize>() + a.s.as_ref().map_or(0, Bytes::len);
            self.charge(a.ints.len() + a.floats.len() + a.strings.len() + strings + tensor)?;
        }
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        let stated = a.r#type.and_then(|t| AttributeType::try_from(t).ok()).unwrap_or(AttributeType::Undefined);
        let kind = match stated {
            // Files of the first IR versions state no type; the field that is there tells.
            AttributeType::Undefined => match a {
                AttributeProto { f: Some(_), .. } => AttributeType::Float,
                AttributeProto { i: Some(_), .. } => AttributeType::Int,
                AttributeProto { s: Some(_), .. } => AttributeType::String,
                AttributeProto { t: Some(_), .. } => AttributeType::Tensor,
                AttributeProto { g: Some(_), .. } => AttributeType::Graph,
                _ if !a.floats.is_empty() => AttributeType::Floats,
                _ if !a.strings.is_empty() => AttributeType::Strings,
                _ => AttributeType::Ints,
            },
            stated => stated,
        };
        Ok(Some(match kind {
            AttributeType::Float => Arg::Float(f64::from(a.f.unwrap_or_default())),
            AttributeType::Int => Arg::Int(a.i.unwrap_or_default()),
            AttributeType::String => Arg::Str(a.s.as_ref().map(text).unwrap_or_default()),
            AttributeType::Floats => Arg::Floats(a.floats.iter().map(|f| f64::from(*f)).collect()),
            AttributeType::Ints => Arg::Ints(a.ints.clone()),
            AttributeType::Strings => Arg::Strs(a.strings.iter().map(text).collect()),
            AttributeType::Tensor => match &a.t {
                Some(t) => match tensor::read_any(t, self.files)? {
                    Read::Tensor(t) => Arg::Tensor(t),
                    Read::Other(DataType::String) => Arg::Other("a tensor of strings"),
                    Read::Other(_) => Arg::Other("a tensor of a type that is not supported"),
                    Read::Unread => Arg::Other("a tensor whose data are not there"),
                },
                None => Arg::Other("an absent tensor"),
            },
            AttributeType::Graph => match &a.g {
                Some(g) => {
                    let inner = Scope { depth: scope.depth + 1, ..*scope };
                    Arg::Graph(Box::new(self.graph(g, &inner)?))
                }
                None => Arg::Other("an absent graph"),
            },
            AttributeType::SparseTensor => match &a.sparse_tensor {
                Some(t) => {
                    let t = tensor::read_sparse(t, self.files)?;
                    self.charge(t.count())?;
                    Arg::Tensor(t)
                }
                None => Arg::Other("an absent tensor"),
            },
            AttributeType::Tensors => Arg::Other("tensors"),
            AttributeType::Graphs => Arg::Other("graphs"),
            AttributeType::SparseTensors => Arg::Other("sparse tensors"),
            AttributeType::TypeProto => Arg::Other("a type"),
            AttributeType::TypeProtos => Arg::Other("types"),
            AttributeType::Undefined => Arg::Other("nothing"),
        }))
    }
}

/// The module in a namespace that `torch.onnx` writes: steps such as `layers.0: EncoderLayer` from the model to the
/// operator, which is the last step where there are several.
fn module_of(namespace: &str) -> &str {
    let mut steps = namespace.rsplit('/').map(|step| step.split(':').next().unwrap_or(step).trim());
    let last = steps.next().unwrap_or_default();
    steps.next().unwrap_or(last)
}

/// The innermost line of a Python stack trace that is a user's: its last `File "…", line N`.
fn source_line(trace: &str) -> Arc<str> {
    let found = trace.lines().rev().find_map(|line| {
        let (file, rest) = line.trim().strip_prefix("File \"")?.split_once("\", line ")?;
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
        Some(format!("{name}:{number}").into())
    });
    found.unwrap_or_else(|| "".into())
}

/// What a file states of the type of a value: `None` where that is nothing, `Err` where it is no tensor of a type that is
/// known.
fn value_type(ty: &TypeProto) -> Option<std::result::Result<SourceType, String>> {
    let found = match ty.value.as_ref()? {
        type_proto::Value::TensorType(t) => {
            let code = t.elem_type.filter(|e| *e != 0)?;
            let Some(dtype) = tensor::dtype(code) else {
                let known = DataType::try_from(code).ok();
                return Some(Err(known.map_or_else(|| "a tensor of an unknown type".to_owned(), tensors_of)));
            };
            return Some(Ok(SourceType { dtype, shape: t.shape.as_ref().map(shape) }));
        }
        type_proto::Value::SequenceType(_) => "a sequence",
        type_proto::Value::MapType(_) => "a map",
        type_proto::Value::OptionalType(_) => "an optional value",
        type_proto::Value::SparseTensorType(_) => "a sparse tensor",
        type_proto::Value::OpaqueType(_) => "an opaque value",
    };
    Some(Err(found.to_owned()))
}

/// A tensor of elements of this type, in words.
fn tensors_of(ty: DataType) -> String {
    format!("a tensor of {}", tensor::element_name(ty))
}

/// The shape that a file states of a tensor without its element type.
fn shape_alone(ty: &TypeProto) -> Option<Vec<SourceDim>> {
    match ty.value.as_ref()? {
        type_proto::Value::TensorType(t) if t.elem_type.unwrap_or(0) == 0 => t.shape.as_ref().map(shape),
        _ => None,
    }
}

/// Adds the shapes of values whose type is not stated, where that of the same elements in another type is.
fn add_shapes_before(graph: &mut SourceGraph) {
    let mut out = std::mem::take(&mut graph.shapes);
    let stated: HashMap<&str, &SourceType> = {
        let outputs = graph.outputs.iter().filter_map(|v| Some((&*v.name, v.ty.as_ref()?)));
        outputs.chain(graph.types.iter().map(|(name, ty)| (&**name, ty))).collect()
    };
    for node in graph.nodes.iter().rev() {
        if !node.domain.is_empty() || !matches!(&*node.op, "Cast" | "CastLike" | "Identity") {
            continue;
        }
        let (Some(Arg::Value(x)), Some(y)) = (node.inputs.first(), node.outputs.first()) else { continue };
        let shape = stated.get(&**y).and_then(|ty| ty.shape.as_ref()).or_else(|| out.get(y));
        if let Some(shape) = shape.filter(|_| !stated.contains_key(&**x)).cloned() {
            out.entry(x.clone()).or_insert(shape);
        }
    }
    graph.shapes = out;
}

fn shape(shape: &onnx::TensorShapeProto) -> Vec<SourceDim> {
    let dim = |d: &onnx::tensor_shape_proto::Dimension| match &d.value {
        Some(dimension::Value::DimValue(n)) if *n >= 0 => SourceDim::Known(*n),
        Some(dimension::Value::DimParam(p)) if !p.is_empty() => SourceDim::Named(p.clone()),
        Some(dimension::Value::DimValue(_) | dimension::Value::DimParam(_)) | None => SourceDim::Unknown,
    };
    shape.dim.iter().map(dim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_namespaces() {
        for (namespace, module) in [
            (": m.Net/layers.0: m.Layer/layers.0.qkv: torch.nn.Linear/linear: aten.linear.default", "layers.0.qkv"),
            (": m.Net/add: aten.add.Tensor", ""),
            ("encoder.layer: m.Layer", "encoder.layer"),
            ("", ""),
        ] {
            assert_eq!(module_of(namespace), module);
        }
    }
}
