//! The source graph: what a model file says, whatever its format.

use indexmap::IndexMap;
use mlconv_mil::diagnostic::Diagnostic;
use mlconv_tensor::{DType, Tensor};
use std::{fmt, sync::Arc};

/// A graph of a source model.
#[derive(Clone, Debug, Default)]
pub struct SourceGraph {
    /// Its name.
    pub name: String,
    /// What it is given.
    pub inputs: Vec<SourceValue>,
    /// What it returns.
    pub outputs: Vec<SourceValue>,
    /// Its constants, by name.
    pub constants: IndexMap<Arc<str>, Tensor>,
    /// Constants of which there is no tensor, by name.
    pub absent: IndexMap<Arc<str>, Absent>,
    /// Buffers that outlive a call.
    pub states: Vec<SourceState>,
    /// What the file states of the types of values in between.
    pub types: IndexMap<Arc<str>, SourceType>,
    /// Shapes that follow from these, of values whose type is not stated.
    pub shapes: IndexMap<Arc<str>, Vec<SourceDim>>,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// The least and the greatest value of symbols in shapes.
    pub symbols: IndexMap<Arc<str>, (i64, Option<i64>)>,
    /// What a reader has to say of the model.
    pub notes: Vec<Diagnostic>,
    /// Descriptive text: keys such as `producer` and `description`.
    pub meta: IndexMap<String, String>,
}

/// Why there is no tensor of a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It is something that has no place here, such as "a tensor of strings".
    Other(String),
    /// Its data are not at hand, and nothing can stand in for what they say.
    Unread,
}

/// A named input or output.
#[derive(Clone, Debug, Default)]
pub struct SourceValue {
    /// Its name.
    pub name: Arc<str>,
    /// Its type, where the file states one.
    pub ty: Option<SourceType>,
    /// What it is, where that is no tensor of a known type: such as "a sequence".
    pub other: Option<String>,
    /// One line for a person.
    pub description: String,
}

/// A buffer that a program reads and writes, and that the next call finds as this one leaves it.
#[derive(Clone, Debug)]
pub struct SourceState {
    /// Its name.
    pub name: Arc<str>,
    /// The value that is its content when a call begins.
    pub before: Arc<str>,
    /// The value that is its content when a call ends.
    pub after: Arc<str>,
    /// Its content before the first call.
    pub initial: Tensor,
}

/// The type of an input or output as the file states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceType {
    /// The element type.
    pub dtype: DType,
    /// The shape; `None` where not even the rank is stated.
    pub shape: Option<Vec<SourceDim>>,
}

/// One dimension as the file states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceDim {
    /// A size.
    Known(i64),
    /// A name, or an expression over names.
    Named(String),
    /// Nothing.
    Unknown,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The operator's domain; empty for the format's own.
    pub domain: Arc<str>,
    /// The operator.
    pub op: Arc<str>,
    /// The version of the operator set that it belongs to.
    pub version: i64,
    /// The node's name, or that of its first output.
    pub name: Arc<str>,
    /// Positional arguments.
    pub inputs: Vec<Arg>,
    /// Named arguments.
    pub attrs: IndexMap<Arc<str>, Arg>,
    /// Names of its results; an empty one is not wanted.
    pub outputs: Vec<Arc<str>>,
    /// The module it belongs to; empty where unknown.
    pub module: Arc<str>,
    /// The line of code it comes from; empty where unknown.
    pub line: Arc<str>,
}

/// An argument of a node.
#[derive(Clone, Debug)]
pub enum Arg {
    /// Absent.
    None,
    /// A value, by name.
    Value(Arc<str>),
    /// Values, by name; some may be absent.
    Values(Vec<Option<Arc<str>>>),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A complex number, as its parts.
    Complex(f64, f64),
    /// A boolean.
    Bool(bool),
    /// A string.
    Str(String),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f64>),
    /// Strings.
    Strs(Vec<String>),
    /// A tensor.
    Tensor(Tensor),
    /// An element type.
    DType(DType),
    /// Arguments, each of its own kind.
    List(Vec<Arg>),
    /// A nested graph.
    Graph(Box<SourceGraph>),
    /// Something that has no place here, by its kind.
    Other(&'static str),
}

impl SourceGraph {
    /// Calls `visit` with every node, those of nested graphs included.
    pub fn visit_nodes<'a>(&'a self, visit: &mut dyn FnMut(&'a Node)) {
        let mut todo = vec![self];
        while let Some(graph) = todo.pop() {
            for node in &graph.nodes {
                visit(node);
                todo.extend(node.graphs());
            }
        }
    }
}

impl Node {
    /// Its nested graphs.
    pub fn graphs(&self) -> impl Iterator<Item = &SourceGraph> {
        self.inputs.iter().chain(self.attrs.values()).filter_map(|a| match a {
            Arg::Graph(g) => Some(&**g),
            _ => None,
        })
    }

    /// The names of the values it reads itself, in order.
    pub fn reads(&self) -> impl Iterator<Item = &Arc<str>> {
        self.inputs.iter().chain(self.attrs.values()).flat_map(Arg::reads)
    }

    /// The operator with its domain, such as `com.microsoft::Gelu`.
    pub fn operator(&self) -> String {
        if self.domain.is_empty() { self.op.to_string() } else { format!("{}::{}", self.domain, self.op) }
    }
}

impl Arg {
    /// The names of the values that it is.
    fn reads(&self) -> Vec<&Arc<str>> {
        match self {
            Self::Value(v) => vec![v],
            Self::Values(v) => v.iter().flatten().collect(),
            Self::List(v) => v.iter().flat_map(Self::reads).collect(),
            _ => vec![],
        }
    }

    /// Whether both are the same literal; values, tensors and graphs are the same as nothing.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::Int(a), Self::Float(b)) | (Self::Float(b), Self::Int(a)) => *a as f64 == *b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Ints(a), Self::Ints(b)) => a == b,
            (Self::Floats(a), Self::Floats(b)) => a == b,
            (Self::Strs(a), Self::Strs(b)) => a == b,
            (Self::DType(a), Self::DType(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for SourceGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |v: &SourceValue| match &v.ty {
            Some(ty) => format!("%{}: {ty}", v.name),
            None => format!("%{}", v.name),
        };
        writeln!(f, "graph {:?} ({}) {{", self.name, self.inputs.iter().map(value).collect::<Vec<_>>().join(", "))?;
        for (name, t) in &self.constants {
            writeln!(f, "  %{name} = {t:?}")?;
        }
        for state in &self.states {
            writeln!(f, "  state {:?}: %{} becomes %{}", state.name, state.before, state.after)?;
        }
        for node in &self.nodes {
            writeln!(f, "  {node}")?;
        }
        write!(f, "  return {}\n}}", self.outputs.iter().map(value).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outputs: Vec<String> = self.outputs.iter().map(|o| format!("%{o}")).collect();
        let mut args: Vec<String> = self.inputs.iter().map(ToString::to_string).collect();
        args.extend(self.attrs.iter().map(|(name, a)| format!("{name}={a}")));
        write!(f, "{} = {}({})", outputs.join(", "), self.operator(), args.join(", "))
    }
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Value(v) => write!(f, "%{v}"),
            Self::Values(v) => {
                let names = v.iter().map(|v| v.as_ref().map_or("none".into(), |v| format!("%{v}")));
                write!(f, "({})", names.collect::<Vec<_>>().join(", "))
            }
            Self::Int(i) => i.fmt(f),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Complex(re, im) => write!(f, "{re:?}+{im:?}i"),
            Self::Bool(b) => b.fmt(f),
            Self::Str(s) => write!(f, "{s:?}"),
            Self::Ints(v) => write!(f, "{v:?}"),
            Self::Floats(v) => write!(f, "{v:?}"),
            Self::Strs(v) => write!(f, "{v:?}"),
            Self::Tensor(t) => write!(f, "{t:?}"),
            Self::DType(d) => d.fmt(f),
            Self::List(v) => {
                write!(f, "[{}]", v.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Self::Graph(g) => write!(f, "graph {:?}", g.name),
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

impl fmt::Display for SourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(shape) = &self.shape else { return write!(f, "{}[*]", self.dtype) };
        let dims: Vec<String> = shape
            .iter()
            .map(|d| match d {
                SourceDim::Known(n) => n.to_string(),
                SourceDim::Named(s) => s.clone(),
                SourceDim::Unknown => "?".to_owned(),
            })
            .collect();
        write!(f, "{}[{}]", self.dtype, dims.join(", "))
    }
}
