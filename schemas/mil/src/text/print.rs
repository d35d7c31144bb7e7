//! The printer.

use super::namer::Namer;
use crate::{
    ir::{Block, Function, Module, OpId, Port, Value},
    schema::{Arg, Arity, Attr, AttrDefault, NamedArg, ParamKind},
};
use mlconv_tensor::{DType, Shape, Tensor};
use std::{collections::HashMap, fmt::Write};

/// How much of a tensor literal is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elide {
    /// All of it: the text parses back to the same module.
    Never,
    /// Literals of more elements than this end in `...`, which does not parse.
    Above(usize),
}

/// The module as text.
pub fn print(module: &Module, elide: Elide) -> String {
    let mut out = String::new();
    for (name, info) in module.symbols.iter() {
        let _ = write!(out, "symbol {name} = {}..", info.min);
        if let Some(max) = info.max {
            let _ = write!(out, "{max}");
        }
        if let Some(default) = info.default {
            let _ = write!(out, " default {default}");
        }
        out.push('\n');
    }
    for f in &module.functions {
        Printer::new(f, elide).function(&mut out);
    }
    out
}

/// One op as text, without its types and blocks, for messages.
pub fn print_op(f: &Function, id: OpId) -> String {
    let mut p = Printer::new(f, Elide::Above(8));
    p.brief = true;
    for v in f.inputs() {
        p.name(*v);
    }
    let mut out = String::new();
    p.op(&mut out, id, 0);
    out.trim().to_owned()
}

struct Printer<'a> {
    f: &'a Function,
    elide: Elide,
    brief: bool,
    namer: Namer,
    names: HashMap<Value, String>,
}

impl<'a> Printer<'a> {
    fn new(f: &'a Function, elide: Elide) -> Self {
        Self { f, elide, brief: false, namer: Namer::default(), names: HashMap::new() }
    }

    fn name(&mut self, v: Value) -> String {
        if let Some(name) = self.names.get(&v) {
            return name.clone();
        }
        let name = self.namer.unique(&self.f.value(v).hint);
        self.names.insert(v, name.clone());
        name
    }

    fn function(&mut self, out: &mut String) {
        let f = self.f;
        let inputs: Vec<String> = f
            .inputs()
            .iter()
            .zip(&f.sig.inputs)
            .map(|(v, port)| {
                let name = self.name(*v);
                format!("%{name}{}: {}", alias(&name, port), f.ty(*v))
            })
            .collect();
        let _ = writeln!(out, "func @{}({}) {} {{", f.name, inputs.join(", "), f.opset);
        self.block_ops(out, f.body(), 1);
        let outputs: Vec<String> = f
            .outputs()
            .iter()
            .zip(&f.sig.outputs)
            .map(|(v, port)| {
                let name = self.name(*v);
                format!("%{name}{}", alias(&name, port))
            })
            .collect();
        let _ = writeln!(out, "  return {}\n}}", outputs.join(", "));
    }

    fn block_ops(&mut self, out: &mut String, block: Block, indent: usize) {
        for id in self.f.ops_in(block) {
            self.op(out, id, indent);
        }
    }

    fn op(&mut self, out: &mut String, id: OpId, indent: usize) {
        let data = self.f.op_data(id);
        let results: Vec<String> = data.results.iter().map(|v| format!("%{}", self.name(*v))).collect();
        let _ = write!(out, "{:1$}", "", indent * 2);
        if !results.is_empty() {
            let _ = write!(out, "{} = ", results.join(", "));
        }
        let _ = write!(out, "{}(", data.op.name());
        let mut first = true;
        for arg in data.op.args() {
            let Some(text) = self.arg(&arg, indent) else { continue };
            let _ = write!(out, "{}{}={text}", if first { "" } else { ", " }, arg.name);
            first = false;
        }
        out.push(')');
        if !self.brief && !data.results.is_empty() {
            let types: Vec<String> = data.results.iter().map(|v| self.f.ty(*v).to_string()).collect();
            let _ = write!(out, " : {}", types.join(", "));
        }
        out.push('\n');
    }

    /// The argument as text; `None` where it is what it would be without being said.
    fn arg(&mut self, arg: &NamedArg<'_>, indent: usize) -> Option<String> {
        let kind = arg.param.map(|p| &p.kind);
        match &arg.arg {
            Arg::Operands(values) => {
                let many = match kind {
                    Some(ParamKind::Operand { arity, .. }) => *arity == Arity::Many,
                    _ => values.len() != 1,
                };
                let names: Vec<String> = values.iter().map(|v| format!("%{}", self.name(*v))).collect();
                match (many, names.as_slice()) {
                    (false, []) => None,
                    (false, [one, ..]) => Some(one.clone()),
                    (true, _) => Some(format!("({})", names.join(", "))),
                }
            }
            Arg::Attr(attr) => {
                if let Some(ParamKind::Attr { default: AttrDefault::Value(default), .. }) = kind
                    && default() == *attr
                {
                    return None;
                }
                attr.as_ref().map(|a| self.attr(a))
            }
            Arg::Region(_) if self.brief => Some("{...}".to_owned()),
            Arg::Region(block) => Some(self.region(*block, indent)),
        }
    }

    fn region(&mut self, block: Block, indent: usize) -> String {
        let args: Vec<String> =
            (self.f.block(block).args.iter()).map(|v| format!("%{}: {}", self.name(*v), self.f.ty(*v))).collect();
        let mut out = format!("{{({})\n", args.join(", "));
        self.block_ops(&mut out, block, indent + 2);
        let yields: Vec<String> = self.f.yields(block).iter().map(|v| format!("%{}", self.name(*v))).collect();
        let _ = write!(out, "{:2$}yield {}}}", "", yields.join(", "), (indent + 2) * 2);
        out
    }

    fn attr(&self, attr: &Attr) -> String {
        match attr {
            Attr::Tensor(t) => self.tensor(t),
            other => other.to_string(),
        }
    }

    fn tensor(&self, t: &Tensor) -> String {
        let shape = Shape::from(&t.shape().iter().copied().collect::<mlconv_tensor::Dims>());
        let head = format!("{}{shape} ", t.dtype());
        if let Some(text) = t.to_text() {
            return format!("{head}{text:?}");
        }
        let shown = match self.elide {
            Elide::Above(n) if t.count() > n => n.min(4),
            Elide::Above(_) | Elide::Never => t.count(),
        };
        // Only the elements shown are read: a weight may be large.
        let part = if shown < t.count() && t.dtype().bits() >= 8 { first(t, shown) } else { t.clone() };
        let mut items: Vec<String> = if t.dtype() == DType::Bool {
            part.to_bools().iter().take(shown).map(ToString::to_string).collect()
        } else if t.dtype().is_float() {
            part.to_f64().iter().take(shown).map(|v| float(t.dtype(), *v)).collect()
        } else if t.dtype() == DType::U64 {
            part.view::<u64>().unwrap_or_default().iter().map(ToString::to_string).collect()
        } else {
            part.to_i64().iter().take(shown).map(ToString::to_string).collect()
        };
        if shown < t.count() {
            items.push("...".to_owned());
        }
        match (t.shape(), items.as_slice()) {
            ([], [one]) => head + one,
            _ => format!("{head}[{}]", items.join(", ")),
        }
    }
}

fn first(t: &Tensor, n: usize) -> Tensor {
    let bytes = n * t.dtype().bits() as usize / 8;
    let part = t.blob().slice(0..bytes).and_then(|b| Tensor::new(t.dtype(), &[n], b).ok());
    part.unwrap_or_else(|| t.clone())
}

/// The shortest text that reads back to the same value of `dtype`.
fn float(dtype: DType, v: f64) -> String {
    if dtype == DType::F64 { format!("{v:?}") } else { format!("{:?}", v as f32) }
}

fn alias(name: &str, port: &Port) -> String {
    if *name == *port.name { String::new() } else { format!(" as {:?}", port.name) }
}
