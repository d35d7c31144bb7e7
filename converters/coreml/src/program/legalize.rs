//! Adapts a module to what Core ML takes: element types and ranks at the interface, outputs that are values of their
//! own, inputs that are read, blocks that yield what they compute.

use crate::rules::MAX_RANK;
use mlconv_mil::{
    diagnostic::{Diagnostic, Limit, codes},
    ir::{Block, Def, Feature, Function, Module, OpId, Origins, Place, Port, Value},
    ops::{Add, Cast, Classify, Const, ExpandDims, Identity, LogicalAnd, LogicalOr, Mul, Select, Squeeze},
    schema::{Op, Opset, ParamKind},
};
use mlconv_tensor::{DType, Tensor, TensorType, Type};
use std::collections::HashSet;

/// Changes `module` in place; what was changed at the interface. An error names what cannot be expressed.
pub fn legalize(module: &mut Module) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let (mut notes, mut bad) = (vec![], vec![]);
    for f in &mut module.functions {
        bad.extend(empty_outputs(f));
        let mut l = Legalizer { f, notes: &mut notes };
        if let Err(d) = l.run() {
            bad.push(d.at("adapting the interface"));
        }
        ranks(f, &module.origins, &mut bad);
    }
    if bad.is_empty() { Ok(notes) } else { Err(bad) }
}

/// Names every output without elements.
fn empty_outputs(f: &Function) -> Vec<Diagnostic> {
    let empty = |v: &Value| f.ty(*v).tensor().filter(|t| t.shape.iter().any(|d| d.is(0)));
    let found = f.outputs().iter().zip(&f.sig.outputs).filter_map(|(v, port)| Some((port, empty(v)?)));
    let says = |(port, ty): (&Port, &TensorType)| {
        let title = format!("output `{}` is {ty}, which has no elements, and Core ML has no such outputs", port.name);
        let d = Diagnostic::error(&codes::X0003, title).limit(Limit::CoreMl);
        d.help("name the outputs to keep with `--output`")
    };
    found.map(says).collect()
}

/// Names every tensor of too high a rank; operands of ops that decode weights may have more.
fn ranks(f: &Function, origins: &Origins, bad: &mut Vec<Diagnostic>) {
    let rank = |v: Value| f.ty(v).tensor().map(|t| t.shape.rank()).filter(|r| *r > MAX_RANK);
    let ports = f.inputs().iter().zip(&f.sig.inputs).map(|p| ("input", p));
    let ports = ports.chain(f.outputs().iter().zip(&f.sig.outputs).map(|p| ("output", p)));
    for (what, (v, port)) in ports {
        let Some(rank) = rank(*v) else { continue };
        let title = format!("{what} `{}` is of rank {rank}, Core ML has at most {MAX_RANK}", port.name);
        let d = Diagnostic::error(&codes::X0003, title).limit(Limit::CoreMl);
        bad.push(d.help(format!("join axes of the {what} in the source model")));
    }
    let mut places = HashSet::new();
    for id in f.all_ops() {
        let data = f.op_data(id);
        let for_constexpr = |v: &Value| {
            let reads = f.uses(*v).iter().all(|u| match u {
                mlconv_mil::ir::Use::Op(id) => f.op_data(*id).op.schema().constexpr,
                mlconv_mil::ir::Use::Yield(_) => false,
            });
            reads && !f.uses(*v).is_empty()
        };
        for v in data.results.iter().filter(|v| !for_constexpr(v)) {
            let Some(rank) = rank(*v) else { continue };
            // A node is named once, and what only yields an output is that output's fault.
            let place = data.origin.and_then(|o| origins.sources(o).first().map(ToString::to_string));
            if f.outputs().contains(v) || (place.is_some() && !places.insert(place.clone())) {
                continue;
            }
            let name = data.op.name();
            let title = format!("`{name}` makes `{}` of rank {rank}, Core ML has at most {MAX_RANK}", f.value(*v).hint);
            let mut d = Diagnostic::error(&codes::X0003, title);
            d.place.extend(place);
            bad.push(d.help("join axes in the source model, with a reshape before the node and one after it"));
        }
    }
}

struct Legalizer<'a> {
    f: &'a mut Function,
    notes: &'a mut Vec<Diagnostic>,
}

impl Legalizer<'_> {
    fn run(&mut self) -> Result<(), Diagnostic> {
        self.inputs()?;
        self.outputs()?;
        self.blocks()?;
        self.selects()?;
        self.unread_inputs()?;
        self.classify_last()
    }

    /// The element type that the interface has for `dtype`.
    fn interface_type(&self, dtype: DType) -> DType {
        match dtype {
            DType::F32 | DType::I32 => dtype,
            DType::F16 if self.f.opset >= Opset::Ios16 => dtype,
            DType::I8 if self.f.opset >= Opset::Ios26 => dtype,
            d if d.is_float() => DType::F32,
            _ => DType::I32,
        }
    }

    fn note(&mut self, what: &str, name: &str, from: &TensorType, to: &TensorType) {
        let title = format!("{what} `{name}` is {to}, as Core ML has no {from} at the interface");
        self.notes.push(Diagnostic::warning(&codes::F0107, title));
    }

    /// Inputs of types that the interface lacks, and scalars, are converted at the start.
    fn inputs(&mut self) -> Result<(), Diagnostic> {
        for (i, v) in self.f.inputs().to_vec().into_iter().enumerate() {
            let Type::Tensor(from) = self.f.ty(v).clone() else { continue };
            let mut to = TensorType { dtype: self.interface_type(from.dtype), shape: from.shape.clone() };
            if matches!(self.f.sig.inputs[i].feature, Feature::Image(_)) {
                to.dtype = from.dtype;
            }
            if to.shape.rank() == 0 {
                to.shape = [1].into();
            }
            if to == from {
                continue;
            }
            let name = self.f.sig.inputs[i].name.to_string();
            self.note("input", &name, &from, &to);
            // What reads the input now reads its converted form; the conversion alone reads the input.
            let first = self.f.ops().next();
            let place = first.map_or(Place::End(self.f.body()), Place::Before);
            let stand_in = self.f.retype_input(v, to.clone());
            let mut now = v;
            if from.shape.rank() == 0 {
                now = self.insert(place, &name, Squeeze { x: now, axes: Some(vec![0]) })?;
            }
            if from.dtype != to.dtype {
                now = self.cast(place, &name, now, from.dtype)?;
            }
            self.f.replace_uses(stand_in, now);
        }
        Ok(())
    }

    /// Outputs of types that the interface lacks, and scalars, are converted; each output is a value of its own that an
    /// op computes.
    fn outputs(&mut self) -> Result<(), Diagnostic> {
        let end = Place::End(self.f.body());
        let ports: Vec<Port> = self.f.sig.outputs.clone();
        let mut taken: Vec<Value> = vec![];
        let mut outputs = vec![];
        for (mut v, port) in self.f.outputs().to_vec().into_iter().zip(ports) {
            if let Type::Tensor(from) = self.f.ty(v).clone()
                && !matches!(port.feature, Feature::Image(_))
                && !self.is_class_label(v)
            {
                let mut to = TensorType { dtype: self.interface_type(from.dtype), shape: from.shape.clone() };
                if to.shape.rank() == 0 {
                    to.shape = [1].into();
                }
                if to != from {
                    self.note("output", &port.name.clone(), &from, &to);
                }
                if to.dtype != from.dtype {
                    v = self.cast(end, &port.name, v, to.dtype)?;
                }
                if from.shape.rank() == 0 {
                    v = self.insert(end, &port.name, ExpandDims { x: v, axes: vec![0] })?;
                }
            }
            let constant = mlconv_mil::verify::is_constant(self.f, v);
            if matches!(self.f.value(v).def, Def::Arg(..)) || constant || taken.contains(&v) {
                v = self.insert(end, &port.name, Identity { x: v })?;
            }
            taken.push(v);
            outputs.push((port, v));
        }
        self.f.set_outputs(outputs);
        Ok(())
    }

    /// A classifier's label keeps its type: it is no array.
    fn is_class_label(&self, v: Value) -> bool {
        let dtype = self.f.ty(v).tensor().map(|t| t.dtype);
        let of_classifier = self
            .f
            .def_op(v)
            .is_some_and(|id| self.f.op_data(id).results.iter().any(|r| matches!(self.f.ty(*r), Type::Dict { .. })));
        dtype == Some(DType::Str) || of_classifier
    }

    /// Inner blocks yield values that they compute, each once.
    fn blocks(&mut self) -> Result<(), Diagnostic> {
        let mut blocks: Vec<Block> = vec![];
        for id in self.f.all_ops() {
            self.f.op_data(id).op.visit_regions(&mut |b| blocks.push(b));
        }
        for b in blocks {
            let mut yields = vec![];
            for mut v in self.f.yields(b).to_vec() {
                let computed_here = self.f.def_op(v).is_some_and(|id: OpId| self.f.op_data(id).block == b);
                if !computed_here || yields.contains(&v) || mlconv_mil::verify::is_constant(self.f, v) {
                    let hint = self.f.value(v).hint.to_string();
                    v = self.insert(Place::End(b), &hint, Identity { x: v })?;
                }
                yields.push(v);
            }
            self.f.set_yields(b, yields);
        }
        Ok(())
    }

    /// `select` is documented to broadcast its condition too, yet coremltools infers its shape from the other operands
    /// alone. One of them is given the whole shape, so that both readings agree.
    fn selects(&mut self) -> Result<(), Diagnostic> {
        for id in self.f.all_ops() {
            let Some(op) = self.f.op::<Select>(id).cloned() else { continue };
            let shape = |v: Value| self.f.ty(v).tensor().map(|t| t.shape.clone()).unwrap_or_default();
            let result = self.f.op_data(id).results[0];
            if shape(op.a).broadcast(&shape(op.b)).ok() == Some(shape(result)) {
                continue;
            }
            let Some(dtype) = self.f.ty(op.a).tensor().map(|t| t.dtype) else { continue };
            let hint = self.f.value(op.a).hint.to_string();
            let at = Place::Before(id);
            // Falsehood, or zero, of the shape of the condition, beside which `a` is itself.
            let wide = if dtype == DType::Bool {
                let never = self.insert(at, &hint, Const { val: Tensor::from_bools(&[], [false]) })?;
                let none = self.insert(at, &hint, LogicalAnd { x: op.cond, y: never })?;
                self.insert(at, &hint, LogicalOr { x: none, y: op.a })?
            } else {
                let zero = self.insert(at, &hint, Const { val: Tensor::splat(dtype, &[], 0.0) })?;
                let ones = self.insert(at, &hint, Cast { x: op.cond, dtype })?;
                let none = self.insert(at, &hint, Mul { x: ones, y: zero })?;
                self.insert(at, &hint, Add { x: none, y: op.a })?
            };
            let new = self.insert(at, &self.f.value(result).hint.clone(), Select { a: wide, ..op })?;
            self.f.replace_uses(result, new);
            self.f.remove(id);
        }
        Ok(())
    }

    /// Every input is read.
    fn unread_inputs(&mut self) -> Result<(), Diagnostic> {
        for v in self.f.inputs().to_vec() {
            if self.f.uses(v).is_empty() && matches!(self.f.ty(v), Type::Tensor(_)) {
                let hint = format!("{}_tmp", self.f.value(v).hint);
                self.insert(Place::End(self.f.body()), &hint, Identity { x: v })?;
            }
        }
        Ok(())
    }

    /// Nothing stands behind a classifier's `classify`, not even what gives other outputs.
    fn classify_last(&mut self) -> Result<(), Diagnostic> {
        let found = self.f.ops().find_map(|id| Some((id, self.f.op::<Classify>(id)?.clone())));
        let Some((id, op)) = found.filter(|(id, _)| self.f.next_op(*id).is_some()) else { return Ok(()) };
        let old = self.f.op_data(id).clone();
        let hints: Vec<String> = old.results.iter().map(|v| self.f.value(*v).hint.to_string()).collect();
        let hints: Vec<&str> = hints.iter().map(String::as_str).collect();
        let end = Place::End(self.f.body());
        let new = self.f.insert(end, &hints, Box::new(op), old.origin);
        let new = new.map_err(|e| Diagnostic::error(&codes::P0001, e.to_string()))?;
        old.results.iter().zip(&new).for_each(|(old, new)| self.f.replace_uses(*old, *new));
        self.f.remove(id);
        Ok(())
    }

    /// `x` as `to`, where there are casts between the two.
    fn cast(&mut self, place: Place, name: &str, x: Value, to: DType) -> Result<Value, Diagnostic> {
        let from = self.f.ty(x).tensor().map_or(to, |t| t.dtype);
        let cast = Cast { x, dtype: to };
        let schema = cast.schema();
        let takes = schema.params.iter().find_map(|p| match &p.kind {
            ParamKind::Operand { domain, .. } => schema.types(domain, self.f.opset),
            ParamKind::Attr { .. } | ParamKind::Region => None,
        });
        if takes.is_some_and(|t| !t.contains(&from) || !t.contains(&to)) {
            let title = format!("`{name}` is {from} inside of the program and {to} outside, and no cast goes between");
            return Err(Diagnostic::error(&codes::X0003, title));
        }
        self.insert(place, name, cast)
    }

    fn insert(&mut self, place: Place, hint: &str, op: impl Op) -> Result<Value, Diagnostic> {
        let inserted = self.f.insert(place, &[hint], Box::new(op), None);
        inserted.map(|v| v[0]).map_err(|e| Diagnostic::error(&codes::P0001, e.to_string()))
    }
}
