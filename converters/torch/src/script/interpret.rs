//! Interprets the code of TorchScript: what is known is computed, what is not becomes nodes, which are lowered at once,
//! so that sizes are known to the code that follows.

mod ends;
mod operators;

use super::{
    archive::Script,
    builtins,
    memory::{Kept, Key, Memory, copied},
    syntax::{Class, Expr, Function, Kind, Statement},
    value::Item,
};
use crate::{
    complex::Pass,
    functional::{Functional, Names},
    pickle::Id,
    pt2::ReadError,
};
use mlconv_source::{Known, Walk};
use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

pub(super) type Result<T, E = ReadError> = std::result::Result<T, E>;

/// Statements that may be run: loops are written out, and may be long.
const MAX_STATEMENTS: usize = 1 << 21;
/// Calls within calls.
const MAX_CALLS: usize = 64;
/// Expressions and blocks within each other, those of all calls together: each takes room on the stack.
const MAX_LEVELS: usize = 400;

/// The variables of a function.
pub(super) type Frame = HashMap<Rc<str>, Item>;

/// How a block of statements ended.
pub(super) enum Flow {
    On,
    Return(Item),
    Break,
    Continue,
}

pub(crate) struct Interpreter {
    script: Script,
    pub(crate) walk: Walk,
    pub(super) functional: Functional,
    pub(super) complex: Pass,
    /// Attributes that were written.
    pub(super) changed: HashMap<Key, Item>,
    /// Attributes that were read, as they were when the call began.
    begun: HashMap<Key, Item>,
    /// What attributes are when the call begins.
    pub(super) memory: Memory,
    /// The tensors of inputs.
    inputs: Vec<Arc<str>>,
    /// Where modules lie in the model.
    paths: HashMap<Id, Rc<str>>,
    /// Tensors of the archive that the graph has.
    defined: BTreeSet<Arc<str>>,
    statements: usize,
    calls: usize,
    levels: usize,
    /// Names made so far, and those that values have.
    made: usize,
    names: Names,
    /// The function and line at hand.
    place: (Rc<str>, usize),
    /// The module at hand.
    module: Rc<str>,
}

impl Interpreter {
    /// Begins a call in which attributes are as `memory` has them.
    pub(crate) fn new(mut script: Script, mut walk: Walk, memory: Memory, inputs: Vec<Arc<str>>) -> Self {
        let names = Names::default();
        for name in inputs.iter().chain(script.tensors.keys()) {
            names.take(name);
        }
        script.names = names.clone();
        let root = script.root();
        let (mut changed, mut begun, mut paths) = (HashMap::new(), HashMap::new(), HashMap::from([(root, "".into())]));
        for (path, (key, kept)) in &memory.kept {
            changed.insert(key.clone(), kept.item());
            begun.insert(key.clone(), kept.item());
            let module = path.rsplit_once('.').map_or("", |(module, _)| module);
            paths.entry(key.0).or_insert_with(|| module.into());
            kept.visit(&mut |part| {
                if let Kept::Constant(name, t) = part {
                    walk.define(name.clone(), t.clone());
                }
            });
        }
        Self {
            script,
            walk,
            functional: Functional::new(names.clone()),
            complex: Pass::default(),
            changed,
            begun,
            memory,
            inputs,
            paths,
            defined: BTreeSet::new(),
            statements: 0,
            calls: 0,
            levels: 0,
            made: 0,
            names,
            place: ("".into(), 0),
            module: "".into(),
        }
    }

    /// The code asks for what is not there: which may follow from a node that was not lowered, and that is said already.
    pub(super) fn fail<T>(&self, why: impl std::fmt::Display) -> Result<T> {
        if self.walk.has_error() {
            return Err(ReadError::Stopped);
        }
        Err(ReadError::Graph(format!("{}, line {}: {why}", self.place.0, self.place.1)))
    }

    /// A name that no value has, and that is not the beginning of an input's: parts of results are named by what they are of.
    pub(super) fn fresh(&mut self, hint: &str) -> Arc<str> {
        loop {
            self.made += 1;
            let name: Arc<str> = format!("{hint}_{}", self.made).into();
            let begins = |i: &Arc<str>| i.strip_prefix(&*name).is_some_and(|rest| rest.starts_with('_'));
            if !self.inputs.iter().any(begins) && self.names.take(&name) {
                return name;
            }
        }
    }

    /// Calls the model's `forward`.
    pub(crate) fn forward(&mut self, args: Vec<Item>, named: Vec<(Rc<str>, Item)>) -> Result<Item> {
        let (root, forward) = (self.script.root(), self.script.forward()?);
        let result = self.method(root, &forward.name, args, named)?;
        self.bounded(&result)?;
        Ok(result)
    }

    fn method(&mut self, module: Id, name: &str, args: Vec<Item>, named: Vec<(Rc<str>, Item)>) -> Result<Item> {
        let Some(class) = self.script.class_of(module) else { return self.fail("a method of what is no module") };
        let Some(function) = self.script.method(&class, name)? else {
            return self.fail(format!("`{class}` has no method `{name}`"));
        };
        let path = self.paths.get(&module).cloned().unwrap_or_default();
        let outer = std::mem::replace(&mut self.module, path);
        let all = std::iter::once(Item::Module(module)).chain(args).collect();
        let done = self.call(&function, &class, all, named);
        self.module = outer;
        done
    }

    fn call(&mut self, f: &Function, file: &str, args: Vec<Item>, named: Vec<(Rc<str>, Item)>) -> Result<Item> {
        if self.calls >= MAX_CALLS {
            return self.fail("functions call each other too deeply");
        }
        let mut frame = Frame::new();
        let mut given = args.into_iter();
        for p in &f.params {
            let by_name = named.iter().find(|(n, _)| **n == *p.name).map(|(_, item)| item.clone());
            let item = match (given.next().or(by_name), &p.default) {
                (Some(item), _) => item,
                (None, Some(default)) => self.eval(default, &frame)?,
                (None, None) => return self.fail(format!("`{}` is called without `{}`", f.name, p.name)),
            };
            frame.insert(p.name.as_str().into(), item);
        }
        let short = file.strip_prefix("__torch__.").unwrap_or(file);
        let outer = std::mem::replace(&mut self.place, (format!("{short}.{}", f.name).into(), 0));
        self.calls += 1;
        let done = self.block(&f.body, &mut frame);
        self.calls -= 1;
        let flow = done?;
        self.place = outer;
        Ok(if let Flow::Return(item) = flow { item } else { Item::None })
    }

    /// Refuses containers that are too large, and counts the work that it is to go through them.
    pub(super) fn bounded(&mut self, item: &Item) -> Result<()> {
        match item.parts() {
            Some(n) => self.worked(n / 16),
            None => self.fail("a list, tuple, dictionary or text of too many parts"),
        }
    }

    pub(super) fn worked(&mut self, statements: usize) -> Result<()> {
        self.statements += statements;
        if self.statements > MAX_STATEMENTS {
            return self.fail("the model runs too many statements, written out");
        }
        Ok(())
    }

    /// One level deeper within code.
    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.levels >= MAX_LEVELS {
            return self.fail("code is nested too deeply, with the functions that it calls");
        }
        self.levels += 1;
        let done = f(self);
        self.levels -= 1;
        done
    }

    pub(super) fn block(&mut self, body: &[Statement], frame: &mut Frame) -> Result<Flow> {
        self.deeper(|s| s.statements_of(body, frame))
    }

    fn statements_of(&mut self, body: &[Statement], frame: &mut Frame) -> Result<Flow> {
        for statement in body {
            self.place.1 = statement.line;
            self.worked(1)?;
            match self.statement(&statement.kind, frame)? {
                Flow::On => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::On)
    }

    fn statement(&mut self, kind: &Kind, frame: &mut Frame) -> Result<Flow> {
        match kind {
            Kind::Pass => {}
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
            Kind::Return(None) => return Ok(Flow::Return(Item::None)),
            Kind::Return(Some(e)) => return Ok(Flow::Return(self.eval(e, frame)?)),
            Kind::Expr(e) => drop(self.eval(e, frame)?),
            Kind::With(body) => return self.block(body, frame),
            Kind::Assign(targets, apart, value) => {
                let item = self.eval(value, frame)?;
                match targets.as_slice() {
                    [one] if !apart => self.assign(one, item, frame)?,
                    targets => {
                        let Some(items) = item.elements().filter(|i| i.len() == targets.len()) else {
                            return self.fail(format!("{} is taken apart into {} values", item.kind(), targets.len()));
                        };
                        for (target, item) in targets.iter().zip(items) {
                            self.assign(target, item, frame)?;
                        }
                    }
                }
            }
            Kind::If(cond, yes, no) => {
                let cond = self.eval(cond, frame)?;
                return match self.truth(&cond) {
                    Some(true) => self.block(yes, frame),
                    Some(false) => self.block(no, frame),
                    None => self.branches(&cond, yes, no, frame),
                };
            }
            Kind::While(cond, body) => loop {
                let now = self.eval(cond, frame)?;
                match self.truth(&now) {
                    Some(false) => break,
                    Some(true) => {}
                    None => return self.fail("a loop whose number of turns is known only when the program runs"),
                }
                match self.block(body, frame)? {
                    Flow::On | Flow::Continue => {}
                    Flow::Break => break,
                    done @ Flow::Return(_) => return Ok(done),
                }
            },
            Kind::For(target, over, body) => {
                for item in self.range(over, frame)? {
                    self.assign(target, item, frame)?;
                    match self.block(body, frame)? {
                        Flow::On | Flow::Continue => {}
                        Flow::Break => break,
                        done @ Flow::Return(_) => return Ok(done),
                    }
                }
            }
        }
        Ok(Flow::On)
    }

    /// What a loop goes over.
    fn range(&mut self, over: &Expr, frame: &Frame) -> Result<Box<dyn Iterator<Item = Item>>> {
        if let Expr::Call(f, args, _) = over
            && matches!(&**f, Expr::Name(n) if &**n == "range")
        {
            let mut bounds = vec![];
            for arg in args {
                let item = self.eval(arg, frame)?;
                let Some(i) = self.int(&item) else {
                    return self.fail("a loop whose number of turns is known only when the program runs");
                };
                bounds.push(i);
            }
            let (from, to, step) = match bounds.as_slice() {
                [to] => (0, *to, 1),
                [from, to] => (*from, *to, 1),
                [from, to, step] if *step != 0 => (*from, *to, *step),
                _ => return self.fail("a range that is none"),
            };
            let turns = builtins::turns(from, to, step);
            // In bounds: the last turn is before `to`.
            let at = move |turn: i64| Item::Int(from.wrapping_add(turn.wrapping_mul(step)));
            return Ok(Box::new((0..turns).map(at)));
        }
        let item = self.eval(over, frame)?;
        match item.elements() {
            Some(all) => Ok(Box::new(all.into_iter())),
            None => self.fail(format!("a loop over {}", item.kind())),
        }
    }

    fn assign(&mut self, target: &Expr, item: Item, frame: &mut Frame) -> Result<()> {
        match target {
            Expr::Name(name) => drop(frame.insert(name.clone(), item)),
            Expr::Attr(of, name) => match self.eval(of, frame)? {
                Item::Module(module) => drop(self.changed.insert((module, name.clone()), item)),
                other => return self.fail(format!("an attribute of {} is written", other.kind())),
            },
            Expr::Index(of, at) => {
                let (of, at) = (self.eval(of, frame)?, self.eval(at, frame)?);
                self.builtin("aten", "_set_item", vec![of, at, item], vec![])?;
            }
            _ => return self.fail("an assignment to what is no variable"),
        }
        Ok(())
    }

    /// Whether a condition holds, where that is known now.
    fn truth(&self, item: &Item) -> Option<bool> {
        match item {
            Item::Tensor(name) | Item::Number(name) => match self.walk.known(name)? {
                Known::Bool(b) => Some(b),
                Known::Int(i) => Some(i != 0),
                Known::Float(x) => Some(x != 0.0),
            },
            other => other.truth(),
        }
    }

    /// The integer that a value is, where it is known now.
    pub(super) fn int(&self, item: &Item) -> Option<i64> {
        match item {
            Item::Number(name) => match self.walk.known(name)? {
                Known::Int(i) => Some(i),
                Known::Bool(b) => Some(i64::from(b)),
                Known::Float(_) => None,
            },
            other => other.int(),
        }
    }

    /// A value whose number is known by now, as that number.
    fn settled(&self, item: Item) -> Item {
        let Item::Number(name) = &item else { return item };
        match self.walk.known(name) {
            Some(Known::Int(i)) => Item::Int(i),
            Some(Known::Bool(b)) => Item::Bool(b),
            Some(Known::Float(x)) => Item::Float(x),
            None => item,
        }
    }

    fn eval(&mut self, e: &Expr, frame: &Frame) -> Result<Item> {
        self.deeper(|s| s.value_of(e, frame))
    }

    fn value_of(&mut self, e: &Expr, frame: &Frame) -> Result<Item> {
        let item = match e {
            Expr::None => Item::None,
            Expr::Bool(b) => Item::Bool(*b),
            Expr::Int(i) => Item::Int(*i),
            Expr::Float(x) => Item::Float(*x),
            Expr::Str(s) => Item::Str(s.clone()),
            Expr::List(all) => Item::list(all.iter().map(|e| self.eval(e, frame)).collect::<Result<_>>()?),
            Expr::Tuple(all) => Item::Tuple(all.iter().map(|e| self.eval(e, frame)).collect::<Result<_>>()?),
            Expr::Dict(pairs) => {
                let mut out = vec![];
                for (k, v) in pairs {
                    out.push((self.eval(k, frame)?, self.eval(v, frame)?));
                }
                Item::Dict(Rc::new(std::cell::RefCell::new(out)))
            }
            Expr::Name(name) => match frame.get(name) {
                Some(item) => item.clone(),
                None => return self.fail(format!("`{name}` is not defined")),
            },
            Expr::Attr(of, name) => match path(e) {
                Some(path) => self.global(&path)?,
                None => {
                    let of = self.eval(of, frame)?;
                    self.attribute(of, name)?
                }
            },
            Expr::Index(of, at) => {
                let (of, at) = (self.eval(of, frame)?, self.eval(at, frame)?);
                if let (Item::Tensor(_), Some(_)) = (&of, at.int()) {
                    return self.builtin("aten", "select.int", vec![of, Item::Int(0), at], vec![]);
                }
                let at = self.settled(at);
                match builtins::known("__getitem__", &[of.clone(), at]) {
                    Some(Ok(item)) => item,
                    Some(Err(why)) => return self.fail(why),
                    None => return self.fail(format!("an element of {}", of.kind())),
                }
            }
            Expr::Call(f, args, named) => return self.call_of(f, args, named, frame),
        };
        if matches!(e, Expr::List(_) | Expr::Tuple(_) | Expr::Dict(_)) {
            self.bounded(&item)?;
        }
        Ok(self.settled(item))
    }

    /// What a path such as `CONSTANTS.c0` or `__torch__.pad` stands for.
    fn global(&mut self, path: &str) -> Result<Item> {
        if let Some(index) = path.strip_prefix("CONSTANTS.c").and_then(|i| i.parse().ok()) {
            let item = self.script.constant(index)?;
            self.define(&item);
            return Ok(item);
        }
        match path {
            "torch.inf" | "math.inf" => return Ok(Item::Float(f64::INFINITY)),
            "torch.nan" | "math.nan" => return Ok(Item::Float(f64::NAN)),
            _ => {}
        }
        match self.script.function(path)? {
            Some(f) => Ok(Item::Function(f, path.into())),
            None => self.fail(format!("`{path}` is not known")),
        }
    }

    /// Gives the graph the tensors of the archive that a value holds.
    fn define(&mut self, item: &Item) {
        match item {
            Item::Tensor(name) => {
                if self.defined.insert(name.clone())
                    && let Some(t) = self.script.tensors.get(name)
                {
                    self.walk.define(name.clone(), t.clone());
                }
            }
            Item::Dict(d) => d.borrow().iter().for_each(|(_, v)| self.define(v)),
            other => other.elements().unwrap_or_default().iter().for_each(|i| self.define(i)),
        }
    }

    pub(super) fn attribute(&mut self, of: Item, name: &Rc<str>) -> Result<Item> {
        match &of {
            Item::Module(module) => {
                if let Some(item) = self.changed.get(&(*module, name.clone())) {
                    return Ok(item.clone());
                }
                let path = self.paths.get(module).cloned().unwrap_or_default();
                let Some(item) = self.script.attribute(*module, name, &path)? else {
                    return self.fail(format!("a module has no attribute `{name}`"));
                };
                if let Item::Module(inner) = &item {
                    let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                    self.paths.entry(*inner).or_insert_with(|| path.into());
                }
                self.define(&item);
                self.begun.entry((*module, name.clone())).or_insert_with(|| copied(&item));
                // A list that is read twice is one list.
                if matches!(item, Item::List(_) | Item::Dict(_)) {
                    self.changed.insert((*module, name.clone()), item.clone());
                }
                Ok(item)
            }
            Item::Named(class, items) => {
                let at = self.script.class(class, |c| c.fields.iter().position(|(n, _)| **n == **name))?.flatten();
                match at.and_then(|i| items.get(i)) {
                    Some(item) => Ok(item.clone()),
                    None => self.fail(format!("`{class}` has no field `{name}`")),
                }
            }
            Item::Memory => Ok(Item::Memory),
            other => self.fail(format!("the attribute `{name}` of {}", other.kind())),
        }
    }

    fn call_of(&mut self, f: &Expr, args: &[Expr], named: &[(Rc<str>, Expr)], frame: &Frame) -> Result<Item> {
        // Types are no values.
        if let Expr::Name(n) = f {
            match (&**n, args) {
                ("annotate" | "unchecked_cast", [_, e]) => return self.eval(e, frame),
                ("uninitialized", _) => return Ok(Item::Uninitialized),
                ("isinstance", [e, ty]) => return self.is_instance(e, ty, frame),
                ("getattr", [of, Expr::Str(name)]) => {
                    let of = self.eval(of, frame)?;
                    return self.attribute(of, name);
                }
                ("hasattr", [of, Expr::Str(name)]) => {
                    let Item::Module(module) = self.eval(of, frame)? else { return Ok(Item::Bool(false)) };
                    let has = self.script.attributes(module).iter().any(|a| **a == **name);
                    return Ok(Item::Bool(has));
                }
                _ => {}
            }
        }
        let mut items = vec![];
        for arg in args {
            // `X.__new__(X)`: a class is no value either.
            if matches!(path(arg), Some(p) if p.starts_with("__torch__."))
                && matches!(f, Expr::Attr(_, n) if &**n == "__new__")
            {
                return self.fail("instances of classes, which are not supported");
            }
            items.push(self.eval(arg, frame)?);
        }
        let mut by_name = vec![];
        for (name, e) in named {
            by_name.push((name.clone(), self.eval(e, frame)?));
        }
        if let Expr::Name(n) = f {
            if let Some(Item::Function(function, path)) = frame.get(n).cloned() {
                return self.call(&function, &path, items, by_name);
            }
            return match &**n {
                "int" => self.builtin("aten", "Int", items, by_name),
                "float" => self.builtin("aten", "Float", items, by_name),
                "bool" => self.builtin("aten", "Bool", items, by_name),
                other => self.builtin("aten", other, items, by_name),
            };
        }
        if let Some(path) = path(f) {
            if let Some(op) = path.strip_prefix("torch.") {
                return self.builtin("aten", op, items, by_name);
            }
            if let Some((domain, op)) = path.strip_prefix("ops.").and_then(|p| p.split_once('.')) {
                return self.builtin(domain, op, items, by_name);
            }
            if let Some(f) = self.script.function(&path)? {
                return self.call(&f, &path, items, by_name);
            }
            let fields = |c: &Class| {
                let names = c.fields.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
                (c.base == "NamedTuple").then_some(names)
            };
            return match self.script.class(&path, fields)? {
                Some(Some(fields)) => self.named_tuple(path, &fields, items, by_name),
                Some(None) => self.fail("instances of classes, which are not supported"),
                None => self.fail(format!("`{path}` is not known")),
            };
        }
        let Expr::Attr(of, name) = f else { return self.fail("a call of what is no function") };
        match self.eval(of, frame)? {
            Item::Module(module) => self.method(module, name, items, by_name),
            other => self.fail(format!("the method `{name}` of {}", other.kind())),
        }
    }

    /// A named tuple: what is given by name goes where its class has that field.
    fn named_tuple(
        &mut self,
        class: String,
        fields: &[String],
        mut items: Vec<Item>,
        by_name: Vec<(Rc<str>, Item)>,
    ) -> Result<Item> {
        let given = items.len();
        for field in fields.iter().skip(given) {
            match by_name.iter().find(|(n, _)| **n == **field) {
                Some((_, item)) => items.push(item.clone()),
                None => return self.fail(format!("`{class}` is made without `{field}`")),
            }
        }
        if given.checked_add(by_name.len()) != Some(fields.len()) {
            return self.fail(format!("`{class}` is made of other fields than it has"));
        }
        let item = Item::Named(class.into(), items.into());
        self.bounded(&item)?;
        Ok(item)
    }

    fn is_instance(&mut self, e: &Expr, ty: &Expr, frame: &Frame) -> Result<Item> {
        let item = self.eval(e, frame)?;
        let name = match ty {
            Expr::Name(n) => n.to_string(),
            Expr::Index(of, _) => match &**of {
                Expr::Name(n) => n.to_string(),
                _ => String::new(),
            },
            _ => String::new(),
        };
        let is = match (name.as_str(), &item) {
            ("Tensor", Item::Tensor(_))
            | ("int", Item::Int(_))
            | ("float", Item::Float(_))
            | ("bool", Item::Bool(_)) => true,
            ("str", Item::Str(_)) | ("List", Item::List(_)) | ("Tuple", Item::Tuple(_)) | ("Dict", Item::Dict(_)) => {
                true
            }
            ("Tensor" | "int" | "float" | "bool" | "str" | "List" | "Tuple" | "Dict" | "NoneType", i) => {
                name == "NoneType" && matches!(i, Item::None)
            }
            _ => return self.fail("a question for a type that is not known"),
        };
        Ok(Item::Bool(is))
    }
}

/// A path of names from one of the roots that are no variables.
pub(super) fn path(e: &Expr) -> Option<String> {
    let mut parts = vec![];
    let mut at = e;
    loop {
        match at {
            Expr::Attr(of, name) => {
                parts.push(&**name);
                at = of;
            }
            Expr::Name(root) if matches!(&**root, "torch" | "ops" | "CONSTANTS" | "__torch__" | "math") => {
                parts.push(&**root);
                parts.reverse();
                return Some(parts.join("."));
            }
            _ => return None,
        }
    }
}
