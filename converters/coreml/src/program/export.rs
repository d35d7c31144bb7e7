//! From the IR to a package.

use super::{
    Catalogue, NAMES_KEY, describe,
    names::Names,
    opset_name, specification_version,
    values::{list, literal, string, string_dictionary, tensor, value_type},
};
use crate::{Artifact, Plan, Result, check};
use mlconv_mil::{
    diagnostic::{Diagnostic, codes},
    ir::{Block, Feature, Function, OpId, Port, Value},
    ops::Const,
    schema::{Arg, Attr, AttrType, InferCx, NamedArg, ParamKind},
    verify::Verified,
};
use mlconv_proto::coreml::{
    FeatureDescription, FunctionDescription, Metadata, Model, ModelDescription,
    mil::{
        self, Argument, NamedValueType, Operation,
        argument::{self, Binding},
    },
    model,
};
use mlconv_tensor::{DType, Type};
use std::collections::{BTreeMap, HashMap};

/// A model ready to be written.
#[derive(Debug)]
pub struct Exported {
    /// The model file's content.
    pub model: Model,
    /// The weight file's content.
    pub weights: Plan,
    /// Inputs and outputs that had to be renamed: the source's name and the package's.
    pub renamed: Vec<(String, String)>,
}

/// Makes the messages of a package from a module that [`legalize`](super::legalize) has adapted, and holds them to every
/// rule of Core ML.
pub fn export(module: &Verified) -> Result<Exported, Vec<Diagnostic>> {
    let mut out = write(module).map_err(|e| vec![Diagnostic::error(&codes::X0003, e.to_string())])?;
    let artifact = Artifact::new(&out.model, &out.weights).with_signatures(&Catalogue);
    let findings = check(&artifact);
    if findings.is_empty() {
        out.renamed.dedup();
        return Ok(out);
    }
    let report = |f: &crate::Finding| {
        let says = crate::RULES.iter().find(|r| r.name == f.rule).map_or("", |r| r.says);
        Diagnostic::error(&codes::X0004, format!("{}: {}", f.rule, f.found)).at(f.place.clone()).help(says)
    };
    Err(findings.iter().map(report).collect())
}

fn write(module: &Verified) -> Result<Exported> {
    let opset = module.functions.first().map(|f| f.opset).unwrap_or_default();
    let version = specification_version(opset);
    let (mut weights, mut renamed) = (Plan::default(), vec![]);
    let mut program = mil::Program { version: 1, ..mil::Program::default() };
    let build = [("mlconv-version", env!("CARGO_PKG_VERSION"))];
    program.attributes.insert("buildInfo".to_owned(), string_dictionary(&build));
    let mut interfaces = vec![];
    for f in &module.functions {
        let mut w = Writer {
            f,
            version,
            plan: &mut weights,
            names: Names::default(),
            values: HashMap::new(),
            ops: Names::default(),
        };
        let function = w.function()?;
        interfaces.push(w.interface(module, &mut renamed)?);
        program.functions.insert(f.name.clone(), function);
    }
    let mut description =
        ModelDescription { metadata: Some(metadata(module, &renamed)), ..ModelDescription::default() };
    match <[FunctionDescription; 1]>::try_from(interfaces) {
        Ok([one]) => {
            description.input = one.input;
            description.output = one.output;
            description.state = one.state;
            description.predicted_feature_name = one.predicted_feature_name;
            description.predicted_probabilities_name = one.predicted_probabilities_name;
        }
        Err(many) => {
            description.default_function_name = many.first().map(|f| f.name.clone()).unwrap_or_default();
            description.functions = many;
        }
    }
    let model = Model {
        specification_version: version,
        description: Some(description),
        is_updatable: false,
        r#type: Some(model::Type::MlProgram(program)),
    };
    Ok(Exported { model, weights, renamed })
}

fn metadata(module: &Verified, renamed: &[(String, String)]) -> Metadata {
    let m = &module.meta;
    let mut user_defined: BTreeMap<String, String> = m.user.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    user_defined.insert("com.github.mlconv.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    if !renamed.is_empty() {
        let map: BTreeMap<&str, &str> = renamed.iter().map(|(from, to)| (to.as_str(), from.as_str())).collect();
        user_defined.insert(NAMES_KEY.to_owned(), serde_json::json!(map).to_string());
    }
    Metadata {
        short_description: m.description.clone(),
        version_string: m.version.clone(),
        author: m.author.clone(),
        license: m.license.clone(),
        user_defined,
    }
}

struct Writer<'a> {
    f: &'a Function,
    version: i32,
    plan: &'a mut Plan,
    /// Names of values.
    names: Names,
    values: HashMap<Value, String>,
    /// Names of operations: a namespace of their own.
    ops: Names,
}

impl Writer<'_> {
    fn function(&mut self) -> Result<mil::Function> {
        let f = self.f;
        // Interface names come first: callers rely on them.
        let ports = f.inputs().iter().zip(&f.sig.inputs).chain(f.outputs().iter().zip(&f.sig.outputs));
        for (v, port) in ports {
            let name = self.names.unique(port.packaged.as_deref().unwrap_or(&port.name));
            self.values.insert(*v, name);
        }
        let inputs = f.inputs().iter().map(|v| self.named(*v)).collect();
        let block = self.block(f.body(), true)?;
        let opset = opset_name(f.opset).to_owned();
        Ok(mil::Function {
            inputs,
            opset: opset.clone(),
            block_specializations: [(opset, block)].into(),
            attributes: BTreeMap::new(),
        })
    }

    fn interface(&self, module: &Verified, renamed: &mut Vec<(String, String)>) -> Result<FunctionDescription> {
        let f = self.f;
        let mut out = FunctionDescription { name: f.name.clone(), ..FunctionDescription::default() };
        let mut describe = |v: &Value, port: &Port, output: bool| -> Result<FeatureDescription> {
            let name = &self.values[v];
            if *name != *port.name && !renamed.iter().any(|(from, to)| **from == *port.name && to == name) {
                renamed.push((port.name.to_string(), name.clone()));
            }
            describe::feature(name, port, f.ty(*v), &module.symbols, output)
        };
        for (v, port) in f.inputs().iter().zip(&f.sig.inputs) {
            let feature = describe(v, port, false)?;
            match f.ty(*v) {
                Type::State(_) => out.state.push(feature),
                _ => out.input.push(feature),
            }
        }
        for (v, port) in f.outputs().iter().zip(&f.sig.outputs) {
            out.output.push(describe(v, port, true)?);
            // A classifier's label and probabilities are named in the description as well.
            match f.ty(*v) {
                Type::Dict { .. } => out.predicted_probabilities_name.clone_from(&self.values[v]),
                Type::Tensor(t) if matches!(t.dtype, DType::Str | DType::I64) && port.feature == Feature::Tensor => {
                    out.predicted_feature_name.clone_from(&self.values[v]);
                }
                _ => {}
            }
        }
        Ok(out)
    }

    fn name(&mut self, v: Value) -> String {
        if let Some(name) = self.values.get(&v) {
            return name.clone();
        }
        let name = self.names.unique(&self.f.value(v).hint);
        self.values.insert(v, name.clone());
        name
    }

    fn named(&mut self, v: Value) -> NamedValueType {
        NamedValueType { name: self.name(v), r#type: Some(value_type(self.f.ty(v))) }
    }

    fn block(&mut self, block: Block, body: bool) -> Result<mil::Block> {
        let f = self.f;
        // The inputs of a body are those of its function.
        let inputs = if body { vec![] } else { f.block(block).args.iter().map(|v| self.named(*v)).collect() };
        let mut operations = vec![];
        for id in f.ops_in(block) {
            self.op(id, &mut operations)?;
        }
        let outputs = f.yields(block).iter().map(|v| self.name(*v)).collect();
        Ok(mil::Block { inputs, outputs, operations, attributes: BTreeMap::new() })
    }

    fn op(&mut self, id: OpId, out: &mut Vec<Operation>) -> Result<()> {
        let f = self.f;
        let data = f.op_data(id);
        if let Some(c) = f.op::<Const>(id) {
            if !self.only_feeds_constexpr(data.results[0]) {
                let val = tensor(&c.val, self.version, self.plan)?;
                let named = self.named(data.results[0]);
                out.push(self.const_op(named, val));
            }
            return Ok(());
        }
        let base = match data.results.first() {
            Some(v) => self.name(*v),
            None => data.op.name().to_owned(),
        };
        let mut op = Operation { r#type: data.op.name().to_owned(), ..Operation::default() };
        for arg in data.op.args() {
            self.argument(id, &arg, &base, &mut op, out)?;
        }
        for (param, t) in data.op.default_operands(&InferCx::new(f, f.opset, id.index())) {
            let value = tensor(&t, self.version, self.plan)?;
            let bound = self.bound_const(&format!("{base}_{param}_0"), value, out);
            op.inputs.insert(param.to_owned(), by_name(vec![bound]));
        }
        op.outputs = data.results.iter().map(|v| self.named(*v)).collect();
        op.attributes.insert("name".to_owned(), string(&self.ops.unique(&base)));
        out.push(op);
        Ok(())
    }

    fn argument(
        &mut self,
        id: OpId,
        arg: &NamedArg<'_>,
        base: &str,
        op: &mut Operation,
        out: &mut Vec<Operation>,
    ) -> Result<()> {
        let f = self.f;
        let schema = f.op_data(id).op.schema();
        if arg.param.is_some_and(|p| !p.exists_in(f.opset)) {
            return Ok(());
        }
        match &arg.arg {
            Arg::Operands(values) if values.is_empty() => {}
            Arg::Operands(values) => {
                let mut bindings = vec![];
                for v in values.iter() {
                    bindings.push(match f.constant(*v).filter(|_| schema.constexpr) {
                        Some(t) => argument::binding::Binding::Value(tensor(t, self.version, self.plan)?),
                        None => argument::binding::Binding::Name(self.name(*v)),
                    });
                }
                match <[_; 1]>::try_from(bindings) {
                    Ok([argument::binding::Binding::Value(value)]) if schema.constexpr && self.version < 9 => {
                        op.attributes.insert(arg.name.to_owned(), value);
                    }
                    Ok([one]) => {
                        op.inputs.insert(arg.name.to_owned(), by_name(vec![one]));
                    }
                    Err(many) => {
                        op.inputs.insert(arg.name.to_owned(), by_name(many));
                    }
                }
            }
            Arg::Attr(None) => {}
            Arg::Attr(Some(attr)) => {
                let (in_place, tuple) = match arg.param.map(|p| &p.kind) {
                    Some(ParamKind::Attr { literal, tuple, .. }) => (*literal, *tuple),
                    _ => (false, false),
                };
                if let (true, Attr::Ints(elements)) = (tuple, attr) {
                    let each = elements.iter().enumerate().map(|(i, n)| {
                        let hint = format!("{base}_{}{i}_0", arg.name);
                        let value = if *n < 0 { string(&hint) } else { literal(&Attr::Int(*n), DType::I32) };
                        self.bound_const(&hint, value, out)
                    });
                    let bindings = each.collect();
                    op.inputs.insert(arg.name.to_owned(), by_name(bindings));
                    return Ok(());
                }
                if in_place {
                    let value = argument::binding::Binding::Value(list(attr));
                    op.inputs.insert(arg.name.to_owned(), by_name(vec![value]));
                    return Ok(());
                }
                let value = literal(attr, self.attr_dtype(id, arg, attr));
                if schema.constexpr && self.version < 9 {
                    op.attributes.insert(arg.name.to_owned(), value);
                } else if schema.constexpr {
                    let value = argument::binding::Binding::Value(value);
                    op.inputs.insert(arg.name.to_owned(), by_name(vec![value]));
                } else {
                    let bound = self.bound_const(&format!("{base}_{}_0", arg.name), value, out);
                    op.inputs.insert(arg.name.to_owned(), by_name(vec![bound]));
                }
            }
            Arg::Region(block) => op.blocks.push(self.block(*block, false)?),
        }
        Ok(())
    }

    /// A constant op of its own for a parameter; how to refer to it.
    fn bound_const(&mut self, hint: &str, value: mil::Value, out: &mut Vec<Operation>) -> argument::binding::Binding {
        let name = self.names.unique(hint);
        let named = NamedValueType { name: name.clone(), r#type: value.r#type.clone() };
        out.push(self.const_op(named, value));
        argument::binding::Binding::Name(name)
    }

    fn const_op(&mut self, output: NamedValueType, val: mil::Value) -> Operation {
        let name = string(&self.ops.unique(&output.name));
        Operation {
            r#type: "const".to_owned(),
            outputs: vec![output],
            attributes: [("name".to_owned(), name), ("val".to_owned(), val)].into(),
            ..Operation::default()
        }
    }

    fn only_feeds_constexpr(&self, v: Value) -> bool {
        let uses = self.f.uses(v);
        !uses.is_empty()
            && uses.iter().all(|u| match u {
                mlconv_mil::ir::Use::Op(id) => self.f.op_data(*id).op.schema().constexpr,
                mlconv_mil::ir::Use::Yield(_) => false,
            })
    }

    /// The element type that an attribute has in the file.
    fn attr_dtype(&self, id: OpId, arg: &NamedArg<'_>, attr: &Attr) -> DType {
        let natural = match attr {
            Attr::Float(_) | Attr::Floats(_) => DType::F32,
            _ => DType::I32,
        };
        let Some(ParamKind::Attr { dtype, .. }) = arg.param.map(|p| &p.kind) else { return natural };
        match dtype {
            AttrType::Natural => natural,
            AttrType::Exactly(d) => *d,
            AttrType::Domain(domain) => self.f.attr_dtype(id, domain).unwrap_or(natural),
        }
    }
}

fn by_name(bindings: Vec<argument::binding::Binding>) -> Argument {
    Argument { arguments: bindings.into_iter().map(|b| Binding { binding: Some(b) }).collect() }
}
