//! The inputs of the function: what the user asks for, else what the source states.

use crate::{
    DimSpec, InputSpec, Request, SourceDim, SourceGraph, SourceType, SourceValue,
    driver::{Entry, Frame, State},
    lower::narrowed,
};
use mlconv_mil::{
    diagnostic::{Diagnostic, Limit, codes},
    ir::Port,
    text::Namer,
};
use mlconv_tensor::{DType, Dim, Shape, SymbolInfo, Tensor, TensorType};
use std::collections::HashMap;

/// The greatest size of a dimension for which the source states none.
const OPEN_MAX: i64 = 65536;

impl State {
    /// Adds the function's inputs.
    pub(crate) fn interface(&mut self, graph: &SourceGraph, request: &Request, frame: &mut Frame) {
        let wanted: Vec<_> = graph.inputs.iter().filter(|i| !graph.constants.contains_key(&i.name)).collect();
        let mut used = vec![false; request.inputs.len()];
        let shared = self.shared_sizes(&wanted, request);
        for (name, (min, max)) in &graph.symbols {
            // Without elements there is nothing to compute.
            let (min, max) = ((*min).max(1), Some(max.unwrap_or(OPEN_MAX)));
            self.symbols.set(name.clone(), SymbolInfo { min, max, default: None });
        }
        for input in &wanted {
            let spec = specs_of(input, request, wanted.len() == 1).next();
            let mut given = 0;
            for i in specs_of(input, request, wanted.len() == 1) {
                (used[i], given) = (true, given + 1);
            }
            if given > 1 {
                let title = format!("`--input` is given twice for `{}`", input.name);
                self.problems.plain(Diagnostic::error(&codes::L0001, title));
            }
            let ty = match &input.other {
                Some(other) => Err(no_tensor("input", other)),
                None => self.input_type(&input.name, input.ty.as_ref(), spec.map(|i| &request.inputs[i]), &shared),
            };
            match ty {
                // Core ML has no tensors without elements; what the nodes make of one is known.
                Ok((ty, _)) if ty.shape.iter().any(|d| d.is(0)) => {
                    let dtype = input.ty.as_ref().map_or(ty.dtype, |t| t.dtype);
                    let entry = self.nothing(&input.name, dtype, &ty);
                    frame.define(input.name.clone(), entry);
                }
                Ok((ty, shapes)) => {
                    let mut port = Port::new(input.name.clone());
                    port.description.clone_from(&input.description);
                    port.shapes = shapes;
                    let v = self.f.add_input(port, ty);
                    frame.define(input.name.clone(), Entry::Value(v));
                }
                Err(d) => {
                    self.problems.plain(d.at(format!("input `{}`", input.name)));
                    frame.define(input.name.clone(), Entry::Poisoned);
                }
            }
        }
        for (spec, _) in request.inputs.iter().zip(used).filter(|(_, used)| !used) {
            let names: Vec<_> = wanted.iter().map(|i| format!("`{}`", i.name)).collect();
            let title = match &spec.name {
                Some(name) => format!("the model has no input `{name}`"),
                None => "an input shape without a name, but the model has several inputs".to_owned(),
            };
            let d = Diagnostic::error(&codes::L0001, title);
            self.problems.plain(d.help(format!("its inputs are {}", names.join(", "))));
        }
    }

    /// The constant that stands for an input without elements, which is left out of the interface.
    fn nothing(&mut self, name: &str, dtype: DType, ty: &TensorType) -> Entry {
        let known: Option<Vec<usize>> = ty.shape.iter().map(Dim::as_usize).collect();
        let Some(shape) = known else {
            let d = Diagnostic::error(&codes::F0102, format!("an input without elements, of shape {},", ty.shape));
            self.problems.plain(d.at(format!("input `{name}`")).help("give it a fixed shape with `--input`"));
            return Entry::Poisoned;
        };
        let title = format!("input `{name}` is left out, as {ty} has no elements and Core ML has no such inputs");
        self.problems.plain(Diagnostic::warning(&codes::F0107, title));
        self.left_out.push(name.to_owned());
        Entry::Const(Tensor::from_i64(dtype, &shape, &[]))
    }

    /// What the user asks for one input says of the symbols that the source states for others too.
    fn shared_sizes(&mut self, inputs: &[&SourceValue], request: &Request) -> HashMap<String, Dim> {
        let mut shared: HashMap<String, (Dim, &str)> = HashMap::new();
        for input in inputs {
            let Some(spec) = specs_of(input, request, inputs.len() == 1).next().map(|i| &request.inputs[i]) else {
                continue;
            };
            let dims = input.ty.as_ref().and_then(|t| t.shape.as_ref()).filter(|d| d.len() == spec.dims.len());
            for (axis, (stated, asked)) in dims.into_iter().flatten().zip(&spec.dims).enumerate() {
                let SourceDim::Named(text) = stated else { continue };
                let stated = Dim::parse(text).unwrap_or_else(|| Dim::symbol(Namer::legal(text)));
                let Some(symbol) = stated.as_symbol() else { continue };
                let dim = match asked {
                    DimSpec::Known(n) => Dim::from(*n),
                    DimSpec::Range { .. } | DimSpec::OneOf(_) => Dim::symbol(own_symbol(&input.name, axis)),
                    DimSpec::Symbol(s) => Dim::symbol(s.as_str()),
                };
                let (first, by) = shared.entry(symbol.to_string()).or_insert((dim.clone(), &input.name));
                if let (Some(a), Some(b)) = (first.as_known(), dim.as_known())
                    && a != b
                {
                    let title = format!("size `{symbol}` is {a} by `--input` for `{by}`, {b} for `{}`", input.name);
                    let d = Diagnostic::error(&codes::L0001, title);
                    self.problems.plain(d.help("the source says that both are the same size"));
                }
            }
        }
        shared.into_iter().map(|(symbol, (dim, _))| (symbol, dim)).collect()
    }

    /// The type of an input: what the user asks for, else what the source states.
    fn input_type(
        &mut self,
        name: &str,
        stated: Option<&SourceType>,
        spec: Option<&InputSpec>,
        shared: &HashMap<String, Dim>,
    ) -> Result<(TensorType, Vec<Vec<i64>>), Diagnostic> {
        let dtype = spec.and_then(|s| s.dtype).or(stated.map(|t| t.dtype)).unwrap_or(DType::F32);
        // A type that Core ML stores weights in, and no tensors, would be taken for another one by whoever feeds it.
        let stored = dtype.bits() < 8 || matches!(dtype, DType::F8E4M3 | DType::F8E5M2);
        let Some(narrow) = narrowed(dtype).filter(|_| !stored || dtype == DType::Bool) else {
            let title = format!("inputs of type {dtype} are not supported");
            return Err(Diagnostic::error(&codes::F0102, title).limit(Limit::CoreMl).help(NUMBERS));
        };
        if narrow != dtype {
            let title = format!("input `{name}` is {narrow}, as Core ML has no {dtype} inputs");
            self.problems.plain(Diagnostic::warning(&codes::F0107, title));
        }
        if let (Some(asked), Some(stated)) = (spec.and_then(|s| s.dtype), stated.map(|t| t.dtype))
            && asked.is_float() != stated.is_float()
        {
            let title = format!("the input is {stated} in the source, `--input` asks for {asked}");
            let kind = if stated.is_float() { "`f32` or `f16`" } else { "`i32` or `bool`" };
            let d = Diagnostic::error(&codes::L0001, title);
            return Err(d.help(format!("the type can be left out, or be {kind}")));
        }
        let stated_dims = stated.and_then(|t| t.shape.as_ref());
        if let Some(spec) = spec {
            if let Some(dims) = stated_dims {
                let fits = dims.len() == spec.dims.len()
                    && dims.iter().zip(&spec.dims).all(|(d, s)| match (d, s) {
                        (SourceDim::Known(a), DimSpec::Known(b)) => a == b,
                        (SourceDim::Known(_), _) => false,
                        _ => true,
                    });
                if !fits {
                    let ty = stated.map(ToString::to_string).unwrap_or_default();
                    return Err(Diagnostic::error(&codes::L0001, format!("the requested shape does not fit {ty}")));
                }
            }
            let (shape, shapes) = self.requested_shape(name, spec);
            return Ok((TensorType::new(narrow, shape), shapes));
        }
        let Some(dims) = stated_dims else {
            let d = Diagnostic::error(&codes::F0105, "the model does not state its shape");
            return Err(d.help(format!("say it with `--input {name}=1x3x224x224`")));
        };
        let size = |d: &SourceDim| if let SourceDim::Known(n) = d { n.to_string() } else { "[1..512]".to_owned() };
        let example = format!("{name}={}", dims.iter().map(size).collect::<Vec<_>>().join("x"));
        let dim = |(axis, d)| self.stated_dim((name, axis), d, shared, &example);
        let shape: Vec<Dim> = dims.iter().enumerate().map(dim).collect();
        Ok((TensorType::new(narrow, shape), vec![]))
    }

    fn requested_shape(&mut self, name: &str, spec: &InputSpec) -> (Shape, Vec<Vec<i64>>) {
        let mut shape = vec![];
        for (axis, d) in spec.dims.iter().enumerate() {
            let symbol = own_symbol(name, axis);
            shape.push(match d {
                DimSpec::Known(n) => Dim::from(*n),
                DimSpec::Range { min, max, default } => {
                    let default = Some(default.unwrap_or(*min));
                    self.symbols.set(symbol.as_str(), SymbolInfo { min: *min, max: Some(*max), default });
                    Dim::symbol(symbol)
                }
                DimSpec::OneOf(v) => {
                    let (min, max) = (v.iter().min().copied().unwrap_or(1), v.iter().max().copied());
                    self.symbols.set(symbol.as_str(), SymbolInfo { min, max, default: v.first().copied() });
                    Dim::symbol(symbol)
                }
                DimSpec::Symbol(s) => {
                    if self.symbols.get(s).is_none() {
                        let info = SymbolInfo { min: 1, max: Some(OPEN_MAX), default: None };
                        self.symbols.set(s.as_str(), info);
                    }
                    Dim::symbol(s.as_str())
                }
            });
        }
        (Shape::from(shape), spec.choices())
    }

    /// A size as the source states it; `example` is what may be asked of the input instead.
    fn stated_dim(
        &mut self,
        (input, axis): (&str, usize),
        d: &SourceDim,
        shared: &HashMap<String, Dim>,
        example: &str,
    ) -> Dim {
        let dim = match d {
            SourceDim::Known(n) => return Dim::from(*n),
            SourceDim::Named(text) => Dim::parse(text).unwrap_or_else(|| Dim::symbol(Namer::legal(text))),
            SourceDim::Unknown => Dim::symbol(own_symbol(input, axis)),
        };
        let dim = dim.substitute(&|s| shared.get(s).cloned());
        let mut open = vec![];
        dim.visit_symbols(&mut |s| {
            if self.symbols.get(s).is_none() {
                open.push(s.clone());
            }
        });
        for s in open.into_iter().filter(|s| !shared.values().any(|d| d.as_symbol() == Some(s))) {
            self.symbols.set(s.clone(), SymbolInfo { min: 1, max: Some(OPEN_MAX), default: None });
            let title =
                format!("size `{s}` of input `{input}` has no limit in the source; the package allows 1 to {OPEN_MAX}");
            let d = Diagnostic::warning(&codes::F0107, title);
            self.problems.plain(d.help(format!("give it a size or range with `--input`, as in `--input {example}`")));
        }
        dim
    }
}

/// What to do about inputs and outputs of other types.
const NUMBERS: &str =
    "Core ML's inputs and outputs are tensors of f32, f16 and i32: cut the model so that it begins and ends with such";

/// Says that an input or output is no tensor of a type that Core ML could have.
pub(crate) fn no_tensor(what: &str, other: &str) -> Diagnostic {
    Diagnostic::error(&codes::F0102, format!("the {what} is {other}, which is not supported"))
        .limit(Limit::CoreMl)
        .help(NUMBERS)
}

/// The positions of what the user says of an input.
fn specs_of(input: &SourceValue, request: &Request, only: bool) -> impl Iterator<Item = usize> {
    let means = |s: &InputSpec| match &s.name {
        Some(name) => **name == *input.name || Namer::legal(&input.name) == *name,
        None => only,
    };
    let found: Vec<usize> = (0..request.inputs.len()).filter(|i| means(&request.inputs[*i])).collect();
    found.into_iter()
}

/// The symbol of a size that has no name of its own.
fn own_symbol(input: &str, axis: usize) -> String {
    format!("{}_{axis}", Namer::legal(input))
}
