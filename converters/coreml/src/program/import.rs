//! From a package to the IR.

use super::{
    NAMES_KEY, VERSIONS,
    describe::read_feature,
    opset_from_name, specification_version,
    values::{as_literal, read_type, read_value},
};
use crate::{Error, Package, Result, WeightFiles};
use mlconv_mil::{
    diagnostic::{Diagnostic, codes},
    ir::{Block, Function, Meta, Module, Place, Port, Value},
    ops::{self, Const, Unknown, UnknownArg},
    schema::{Args, Attr, Op, OpInfo, ParamKind},
};
use mlconv_proto::coreml::{
    FeatureDescription, Metadata, ModelDescription,
    mil::{self, Argument, Operation, argument::binding::Binding},
};
use mlconv_tensor::{Dim, Symbols, Tensor, Type};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Nesting of blocks beyond which a program is refused.
const MAX_NESTING: usize = 64;

/// The module that a package holds, and what is odd about the package.
pub fn import(package: &Package) -> Result<(Module, Vec<Diagnostic>)> {
    import_beside(package, &mut BTreeSet::new())
}

/// As [`import`], where open sizes are called otherwise than those of `symbols`, to which they are added; so the functions of
/// several packages can be those of one module.
pub fn import_beside(package: &Package, symbols: &mut BTreeSet<String>) -> Result<(Module, Vec<Diagnostic>)> {
    let program = package.program()?;
    let description = package.model.description.clone().unwrap_or_default();
    let mut module = Module { meta: meta(description.metadata.as_ref()), ..Module::default() };
    let names = original_names(&mut module.meta);
    let default = match description.default_function_name.as_str() {
        "" => "main",
        name => name,
    };
    let mut warnings = vec![];
    // The default function first, the others in the order of their names.
    let mut functions: Vec<_> = program.functions.iter().collect();
    functions.sort_by_key(|(name, _)| *name != default);
    for (name, function) in functions {
        let interface = Interface::of(&description, name);
        let mut importer = Importer {
            weights: &package.weights,
            f: Function::new(name, opset(name, function)?),
            symbols: &mut module.symbols,
            prefix: distinct(function, name, symbols),
            warnings: &mut warnings,
        };
        importer.function(function, &interface, &names)?;
        module.functions.push(importer.f);
    }
    let stated = package.model.specification_version;
    for f in &module.functions {
        let needed = specification_version(f.opset);
        if stated < needed {
            let title = format!("the model states specification {stated}, the op set of `{}` needs {needed}", f.name);
            warnings.push(Diagnostic::warning(&codes::R0006, title));
        }
    }
    let newest = VERSIONS.iter().map(|(_, version, _)| *version).max().unwrap_or(stated);
    if stated > newest {
        let title = format!("the model states specification {stated}, the newest that is known is {newest}");
        warnings.push(Diagnostic::warning(&codes::R0006, title));
    }
    // Tools name a folder of weights whether there are any or not, and git does not keep an empty folder.
    let harmless = |m: &String| m.ends_with("/weights") && package.weights.are_unread();
    for m in package.missing.iter().filter(|m| !harmless(m)) {
        warnings.push(Diagnostic::warning(&codes::R0006, format!("the manifest names `{m}`, which is not there")));
    }
    Ok((module, warnings))
}

fn opset(name: &str, function: &mil::Function) -> Result<mlconv_mil::schema::Opset> {
    let unknown = || Error::Opset { function: name.to_owned(), found: function.opset.clone() };
    opset_from_name(&function.opset).ok_or_else(unknown)
}

fn meta(m: Option<&Metadata>) -> Meta {
    let Some(m) = m else { return Meta::default() };
    Meta {
        description: m.short_description.clone(),
        author: m.author.clone(),
        license: m.license.clone(),
        version: m.version_string.clone(),
        user: m.user_defined.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}

/// The source's names of inputs and outputs, by those in the package.
fn original_names(meta: &mut Meta) -> BTreeMap<String, String> {
    let text = meta.user.shift_remove(NAMES_KEY);
    text.and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default()
}

/// What the description says of one function.
struct Interface<'a> {
    inputs: &'a [FeatureDescription],
    outputs: &'a [FeatureDescription],
    states: &'a [FeatureDescription],
}

impl<'a> Interface<'a> {
    fn of(d: &'a ModelDescription, function: &str) -> Self {
        match d.functions.iter().find(|f| f.name == function) {
            Some(f) => Self { inputs: &f.input, outputs: &f.output, states: &f.state },
            None => Self { inputs: &d.input, outputs: &d.output, states: &d.state },
        }
    }

    fn input(&self, name: &str) -> Option<&'a FeatureDescription> {
        self.inputs.iter().chain(self.states).find(|f| f.name == name)
    }

    fn output(&self, name: &str) -> Option<&'a FeatureDescription> {
        self.outputs.iter().find(|f| f.name == name)
    }
}

/// The name of a size of the value called `name`.
fn symbol(prefix: &str, name: &str, axis: usize) -> String {
    format!("{prefix}{name}_{axis}")
}

/// What the names of a function's sizes begin with, so that those of its inputs are none of other functions, which may
/// have inputs of the same names and other ranges. Adds them to `taken`.
fn distinct(function: &mil::Function, name: &str, taken: &mut BTreeSet<String>) -> String {
    let prefixes = (0..).map(|i| match i {
        0 => String::new(),
        1 => format!("{name}_"),
        i => format!("{name}_{i}_"),
    });
    for prefix in prefixes {
        let mut names = vec![];
        for input in &function.inputs {
            let mut open = |axis: usize| {
                names.push(symbol(&prefix, &input.name, axis));
                Dim::from(1)
            };
            input.r#type.as_ref().and_then(|t| read_type(t, &mut open));
        }
        if !names.iter().any(|n| taken.contains(n)) {
            taken.extend(names);
            return prefix;
        }
    }
    String::new()
}

struct Importer<'a> {
    weights: &'a WeightFiles,
    f: Function,
    symbols: &'a mut Symbols,
    /// What the names of sizes begin with.
    prefix: String,
    warnings: &'a mut Vec<Diagnostic>,
}

/// What names stand for; literals that are no tensors, such as strings, have no value.
#[derive(Default)]
struct Scope<'p> {
    values: HashMap<&'p str, Value>,
    literals: HashMap<&'p str, Attr>,
    /// The names of both, in the order in which they were defined: those of a block end with it.
    value_names: Vec<&'p str>,
    literal_names: Vec<&'p str>,
    nesting: usize,
}

impl<'p> Scope<'p> {
    fn define(&mut self, name: &'p str, v: Value) -> Result<()> {
        self.value_names.push(name);
        match self.values.insert(name, v) {
            None => Ok(()),
            Some(_) => Err(Error::Twice { name: name.to_owned() }),
        }
    }

    fn define_literal(&mut self, name: &'p str, literal: Attr) -> Result<()> {
        self.literal_names.push(name);
        match self.literals.insert(name, literal) {
            None => Ok(()),
            Some(_) => Err(Error::Twice { name: name.to_owned() }),
        }
    }

    /// Forgets what was defined since there were as many names.
    fn leave(&mut self, (values, literals): (usize, usize)) {
        for name in self.value_names.drain(values..) {
            self.values.remove(name);
        }
        for name in self.literal_names.drain(literals..) {
            self.literals.remove(name);
        }
    }
}

impl<'p> Importer<'_> {
    fn function(
        &mut self,
        function: &'p mil::Function,
        interface: &Interface<'_>,
        names: &BTreeMap<String, String>,
    ) -> Result<()> {
        let missing = || Error::NoBlock { function: self.f.name.clone(), opset: function.opset.clone() };
        let block = function.block_specializations.get(&function.opset).ok_or_else(missing)?;
        let named = |name: &str| match names.get(name) {
            Some(original) => Port { packaged: Some(name.into()), ..Port::new(original.as_str()) },
            None => Port::new(name),
        };
        let mut scope = Scope::default();
        for input in &function.inputs {
            let ty = self.read_type(&input.name, input.r#type.as_ref())?;
            let mut port = named(&input.name);
            match interface.input(&input.name) {
                Some(feature) => read_feature(feature, &ty, &mut port, self.symbols),
                None => self.warn(format!("input `{}` is not described", input.name)),
            }
            let v = self.f.add_input(port, ty);
            self.f.set_hint(v, &input.name);
            scope.define(&input.name, v)?;
        }
        let body = self.f.body();
        self.operations(&block.operations, body, &mut scope)?;
        let mut outputs = vec![];
        // In the order of the description, which is what callers see.
        let described =
            interface.outputs.iter().map(|o| o.name.as_str()).filter(|o| block.outputs.iter().any(|b| b == o));
        let mut order: Vec<&str> = described.collect();
        for missing in interface.outputs.iter().filter(|o| !block.outputs.contains(&o.name)) {
            self.warn(format!("output `{}` is described, and the program does not return it", missing.name));
        }
        for odd in block.outputs.iter().filter(|o| interface.output(o).is_none()) {
            self.warn(format!("output `{odd}` is not described"));
        }
        order.extend(block.outputs.iter().map(String::as_str).filter(|o| interface.output(o).is_none()));
        for name in order {
            let name = block.outputs.iter().find(|o| *o == name).map_or(name, String::as_str);
            let v = self.lookup(&scope, name, "return")?;
            let mut port = named(name);
            if let Some(feature) = interface.output(name) {
                read_feature(feature, &self.f.ty(v).clone(), &mut port, &mut Symbols::default());
            }
            port.default = None;
            outputs.push((port, v));
        }
        self.f.set_outputs(outputs);
        self.drop_unread_constants();
        Ok(())
    }

    fn warn(&mut self, why: String) {
        self.warnings.push(Diagnostic::warning(&codes::R0006, why).at(format!("function `{}`", self.f.name)));
    }

    fn read_type(&self, name: &str, ty: Option<&mil::ValueType>) -> Result<Type> {
        let mut unknown = |axis: usize| Dim::symbol(symbol(&self.prefix, name, axis));
        ty.and_then(|t| read_type(t, &mut unknown)).ok_or_else(|| Error::Type { name: name.to_owned() })
    }

    fn lookup(&self, scope: &Scope<'p>, name: &str, reader: &str) -> Result<Value> {
        let undefined = || Error::Undefined { name: name.to_owned(), reader: reader.to_owned() };
        scope.values.get(name).copied().ok_or_else(undefined)
    }

    fn operations(&mut self, ops: &'p [Operation], block: Block, scope: &mut Scope<'p>) -> Result<()> {
        for op in ops {
            if op.r#type == "const" {
                self.constant(op, block, scope)?;
            } else {
                self.operation(op, block, scope)?;
            }
        }
        Ok(())
    }

    fn constant(&mut self, op: &'p Operation, block: Block, scope: &mut Scope<'p>) -> Result<()> {
        let [output] = op.outputs.as_slice() else { return Err(self.bad(op, "a const has one output".to_owned())) };
        let val = op.attributes.get("val").ok_or_else(|| self.bad(op, "a const has a `val`".to_owned()))?;
        match self.read_value(op, val)? {
            Attr::Tensor(val) => {
                let v = self.insert(op, block, &[&output.name], Box::new(Const { val }))?;
                self.check_type(op, v[0], output);
                scope.define(&output.name, v[0])
            }
            literal => scope.define_literal(&output.name, literal),
        }
    }

    fn operation(&mut self, op: &'p Operation, block: Block, scope: &mut Scope<'p>) -> Result<()> {
        let mut regions = vec![];
        for b in &op.blocks {
            regions.push(self.block(b, scope)?);
        }
        let info = ops::by_name(&op.r#type, self.f.opset).filter(|i| i.schema.exists_in(self.f.opset));
        let built: Box<dyn Op> = match info {
            Some(info) => self.known(op, info, block, scope, regions)?,
            None => self.unknown(op, block, scope, regions)?,
        };
        let names: Vec<&str> = op.outputs.iter().map(|o| o.name.as_str()).collect();
        let results = self.insert(op, block, &names, built)?;
        if results.len() != op.outputs.len() {
            let why = format!("it has {} outputs, wanted {}", op.outputs.len(), results.len());
            return Err(self.bad(op, why));
        }
        for (v, output) in results.iter().zip(&op.outputs) {
            self.check_type(op, *v, output);
            scope.define(&output.name, *v)?;
        }
        Ok(())
    }

    /// Reads arguments by the parameters that the op's schema has.
    fn known(
        &mut self,
        op: &'p Operation,
        info: &OpInfo,
        block: Block,
        scope: &Scope<'p>,
        regions: Vec<Block>,
    ) -> Result<Box<dyn Op>> {
        let (mut operands, mut attrs) = (vec![], vec![]);
        for (name, found) in arguments(op, info.schema.constexpr) {
            let Some(param) = info.schema.param(name) else {
                return Err(self.bad(op, format!("there is no parameter `{name}`")));
            };
            match &param.kind {
                ParamKind::Operand { .. } => operands.push((name, self.operands(op, name, &found, block, scope)?)),
                ParamKind::Attr { tuple: true, .. } => attrs.push((name, self.tuple(op, name, &found, scope)?)),
                ParamKind::Attr { .. } => attrs.push((name, self.literal(op, name, &found, scope)?)),
                ParamKind::Region => return Err(self.bad(op, format!("`{name}` is a block"))),
            }
        }
        let mut args = Args::new(&self.f);
        operands.into_iter().for_each(|(n, v)| args.add_operand(n, v));
        attrs.into_iter().for_each(|(n, a)| args.add_attr(n, a));
        let blocks = info.schema.params.iter().filter(|p| matches!(p.kind, ParamKind::Region));
        for (param, b) in blocks.zip(regions) {
            args.add_region(param.name, b);
        }
        let built = (info.build)(&mut args).and_then(|built| args.finish().map(|()| built));
        built.map_err(|e| self.bad(op, e.to_string()))
    }

    /// Keeps what there is of an op that the catalogue does not have.
    fn unknown(
        &mut self,
        op: &'p Operation,
        block: Block,
        scope: &Scope<'p>,
        regions: Vec<Block>,
    ) -> Result<Box<dyn Op>> {
        let mut args = vec![];
        for (name, found) in arguments(op, true) {
            let literal = match &found {
                Found::Bindings(b) => match b.as_slice() {
                    [Binding::Name(n)] => scope.literals.get(n.as_str()).cloned(),
                    _ => None,
                },
                Found::Attribute(_) => None,
            };
            let arg = match literal {
                Some(attr) => UnknownArg::Attr(attr),
                None => UnknownArg::Operands(self.operands(op, name, &found, block, scope)?),
            };
            args.push((name.to_owned(), arg));
        }
        args.extend(regions.into_iter().enumerate().map(|(i, b)| (format!("block_{i}"), UnknownArg::Region(b))));
        let results = op.outputs.iter().map(|o| self.read_type(&o.name, o.r#type.as_ref())).collect::<Result<_>>()?;
        Ok(Box::new(Unknown { name: op.r#type.clone(), args, results }))
    }

    fn block(&mut self, b: &'p mil::Block, scope: &mut Scope<'p>) -> Result<Block> {
        if scope.nesting >= MAX_NESTING {
            return Err(Error::Nesting { limit: MAX_NESTING });
        }
        let block = self.f.add_block();
        let outside = (scope.value_names.len(), scope.literal_names.len());
        scope.nesting += 1;
        for input in &b.inputs {
            let ty = self.read_type(&input.name, input.r#type.as_ref())?;
            let v = self.f.add_arg(block, &input.name, ty);
            scope.define(&input.name, v)?;
        }
        self.operations(&b.operations, block, scope)?;
        let yields = b.outputs.iter().map(|o| self.lookup(scope, o, "a block")).collect::<Result<_>>()?;
        scope.leave(outside);
        scope.nesting -= 1;
        self.f.set_yields(block, yields);
        Ok(block)
    }

    /// The values of an argument; immediate ones become constants.
    fn operands(
        &mut self,
        op: &'p Operation,
        param: &str,
        found: &Found<'p>,
        block: Block,
        scope: &Scope<'p>,
    ) -> Result<Vec<Value>> {
        let immediate = |this: &mut Self, value: &mil::Value| match this.read_value(op, value)? {
            Attr::Tensor(val) => {
                let hint = format!("{}_{param}", op.outputs.first().map_or("v", |o| &o.name));
                Ok(this.insert(op, block, &[&hint], Box::new(Const { val }))?[0])
            }
            other => Err(this.bad(op, format!("`{param}` is {other}, wanted a tensor"))),
        };
        match found {
            Found::Attribute(value) => Ok(vec![immediate(self, value)?]),
            Found::Bindings(bindings) => bindings
                .iter()
                .map(|b| match b {
                    Binding::Name(name) => self.lookup(scope, name, &op.r#type),
                    Binding::Value(value) => immediate(self, value),
                })
                .collect(),
        }
    }

    /// The literal that an argument is.
    fn literal(&self, op: &Operation, param: &str, found: &Found<'p>, scope: &Scope<'p>) -> Result<Attr> {
        let one = |b: &Binding| match b {
            Binding::Value(value) => self.read_value(op, value),
            Binding::Name(name) => match scope.literals.get(name.as_str()) {
                Some(attr) => Ok(attr.clone()),
                None => {
                    let v = self.lookup(scope, name, &op.r#type)?;
                    let t: Option<&Tensor> = self.f.constant(v);
                    t.map(|t| Attr::Tensor(t.clone()))
                        .ok_or_else(|| self.bad(op, format!("`{param}` must be constant")))
                }
            },
        };
        let attr = match found {
            Found::Attribute(value) => self.read_value(op, value)?,
            Found::Bindings(b) => match b.as_slice() {
                [b] => one(b)?,
                _ => return Err(self.bad(op, format!("`{param}` is bound {} times", b.len()))),
            },
        };
        Ok(match attr {
            Attr::Tensor(t) => as_literal(&t),
            other => other,
        })
    }

    /// The integers that an argument of many bindings is; a name stands for one that only a run knows.
    fn tuple(&self, op: &Operation, param: &str, found: &Found<'p>, scope: &Scope<'p>) -> Result<Attr> {
        let Found::Bindings(bindings) = found else { return self.literal(op, param, found, scope) };
        let one = |b: &&'p Binding| match self.literal(op, param, &Found::Bindings(vec![*b]), scope)? {
            Attr::Int(n) => Ok(vec![n]),
            Attr::Str(_) => Ok(vec![-1]),
            // A tuple of constants may also be one list.
            Attr::Ints(many) => Ok(many),
            other => Err(self.bad(op, format!("`{param}` is {other}, wanted integers or names"))),
        };
        let each: Vec<Vec<i64>> = bindings.iter().map(one).collect::<Result<_>>()?;
        Ok(Attr::Ints(each.concat()))
    }

    fn read_value(&self, op: &Operation, value: &mil::Value) -> Result<Attr> {
        read_value(value, self.weights).map_err(|why| Error::Within { op: label(op), why: Box::new(why) })
    }

    fn insert(&mut self, op: &Operation, block: Block, names: &[&str], built: Box<dyn Op>) -> Result<Vec<Value>> {
        let inserted = self.f.insert(Place::End(block), names, built, None);
        inserted.map(|r| r.to_vec()).map_err(|e| Error::Op { op: label(op), why: e.why.to_string() })
    }

    fn bad(&self, op: &Operation, why: String) -> Error {
        Error::Op { op: label(op), why }
    }

    /// Core ML refuses a program whose stated types are not those that it infers.
    fn check_type(&mut self, op: &Operation, v: Value, output: &mil::NamedValueType) {
        let Ok(stated) = self.read_type(&output.name, output.r#type.as_ref()) else {
            return self.warn(format!("{}: output `{}` has no readable type", label(op), output.name));
        };
        let inferred = self.f.ty(v).clone();
        if !stated.may_equal(&inferred) && inferred != Type::Unknown {
            self.warn(format!("{}: output `{}` is stated as {stated}, inferred is {inferred}", label(op), output.name));
        }
    }

    /// Constants that only configure ops became attributes of theirs.
    fn drop_unread_constants(&mut self) {
        for id in self.f.all_ops() {
            if self.f.op::<Const>(id).is_some() && self.f.op_data(id).results.iter().all(|v| self.f.uses(*v).is_empty())
            {
                self.f.remove(id);
            }
        }
    }
}

/// An argument as it stands in the file.
enum Found<'p> {
    Bindings(Vec<&'p Binding>),
    Attribute(&'p mil::Value),
}

impl<'p> Found<'p> {
    fn of(arg: &'p Argument) -> Self {
        Self::Bindings(arg.arguments.iter().filter_map(|b| b.binding.as_ref()).collect())
    }
}

/// The arguments of an op by name; constexpr ops of old op sets have theirs among the attributes.
fn arguments(op: &Operation, with_attributes: bool) -> impl Iterator<Item = (&str, Found<'_>)> {
    let inputs = op.inputs.iter().map(|(n, a)| (n.as_str(), Found::of(a)));
    let attributes = op.attributes.iter().filter(move |(n, _)| with_attributes && *n != "name");
    inputs.chain(attributes.map(|(n, v)| (n.as_str(), Found::Attribute(v))))
}

fn label(op: &Operation) -> String {
    match op.outputs.first() {
        Some(o) => format!("{} `{}`", op.r#type, o.name),
        None => op.r#type.clone(),
    }
}
