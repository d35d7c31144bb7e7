//! Calls of operators: what is known is computed at once, what is not becomes a node.

use super::{
    super::{binding::bound, builtins, value::Item},
    Interpreter, Result,
};
use crate::{ops, pt2::ReadError};
use mlconv_source::{Arg, Node};
use mlconv_tensor::DType;
use std::{rc::Rc, sync::Arc};

impl Interpreter {
    pub(in super::super) fn node_of(&self, domain: &str, op: &str) -> Node {
        let (file, line) = &self.place;
        Node {
            domain: domain.into(),
            op: op.into(),
            module: (&*self.module).into(),
            line: format!("{file}:{line}").into(),
            ..Node::default()
        }
    }

    /// Hands the nodes that were made to the walk.
    pub(in super::super) fn flush(&mut self) {
        for node in self.functional.take() {
            self.send(&node);
        }
        if let Err(why) = self.functional.checked()
            && !self.walk.has_error()
        {
            let why = format!("{}, line {}: {why}", self.place.0, self.place.1);
            self.walk.fail(why);
        }
    }

    /// Hands a node to the walk; one of complex numbers as what it is on their parts.
    fn send(&mut self, node: &Node) {
        match self.complex.replaced(node) {
            Ok(None) => self.walk.node(node),
            Ok(Some(nodes)) => nodes.iter().for_each(|node| self.walk.node(node)),
            Err(why) => self.walk.fail(why),
        }
    }

    pub(in super::super) fn builtin(
        &mut self,
        domain: &str,
        op: &str,
        args: Vec<Item>,
        named: Vec<(Rc<str>, Item)>,
    ) -> Result<Item> {
        let args: Vec<Item> = args.into_iter().map(|i| self.settled(i)).collect();
        if named.is_empty() {
            args.iter().try_for_each(|item| self.bounded(item))?;
            match builtins::known(op, &args) {
                Some(Ok(item)) => {
                    // What it was called on may have grown.
                    args.first().into_iter().chain([&item]).try_for_each(|item| self.bounded(item))?;
                    return Ok(item);
                }
                Some(Err(why)) => return self.fail(why),
                None => {}
            }
            if let Some(item) = self.about(domain, op, &args)? {
                return Ok(item);
            }
        }
        if domain == "aten" && op == "tensor" {
            return self.tensor_of(&args, &named);
        }
        self.operator(domain, op, args, named)
    }

    /// The element type of a tensor of real numbers, as far as it is known.
    fn type_of(&mut self, name: &Arc<str>) -> Option<DType> {
        let now = self.functional.left(name);
        self.flush();
        if self.complex.is_complex(&now) { None } else { self.walk.dtype(&now) }
    }

    /// Notes what a node that was lowered shares with its arguments.
    fn shares(&mut self, node: &Node, original: &Node) {
        let (walk, complex) = (&self.walk, &self.complex);
        // Integers of 32 bits and 64 are not told apart here.
        let dtype = |name: &Arc<str>| {
            let dtype = walk.dtype(complex.real_of(name))?;
            (!matches!(dtype, DType::I32 | DType::I64)).then_some(dtype)
        };
        self.functional.made(node, original, &dtype);
    }

    pub(in super::super) fn operator(
        &mut self,
        domain: &str,
        op: &str,
        args: Vec<Item>,
        named: Vec<(Rc<str>, Item)>,
    ) -> Result<Item> {
        let mut node = self.node_of(domain, op);
        let result = self.fresh(op.split('.').next().unwrap_or(op).trim_end_matches('_'));
        node.name = result.clone();
        // Where an overload takes them all as it says, it goes before those that take some in order that are given by name.
        let find = |args: &[Item]| {
            let all = |in_order: bool| {
                ops::overloads(domain, op).find_map(|s| bound(s, args, &named, in_order).map(|bound| (s, bound)))
            };
            all(false).or_else(|| all(true))
        };
        // A tensor of one number stands for it, where nothing takes a tensor.
        let found = find(&args).or_else(|| {
            let number = |i: &Item| match i {
                Item::Tensor(name) if self.walk.rank(name) == Some(0) => self.settled(Item::Number(name.clone())),
                other => other.clone(),
            };
            find(&args.iter().map(number).collect::<Vec<_>>())
        });
        let Some((signature, args)) = found else {
            // Numbers that are known late are computed as sizes are.
            if domain == "aten" && named.is_empty() && args.iter().all(is_number) {
                let (domain, op) = arithmetic(op);
                return self.operator(domain, op, args, named);
            }
            if ops::overloads(domain, op).next().is_some() {
                let kinds: Vec<&str> = args.iter().chain(named.iter().map(|(_, i)| i)).map(Item::kind).collect();
                return self.fail(format!("`{op}` is not known for {}", kinds.join(", ")));
            }
            // The driver says that it has no lowering, with its place.
            node.outputs = vec![result.clone()];
            self.send(&node);
            return Ok(Item::Tensor(result));
        };
        let in_place = ops::twin(domain, op).is_some() && signature.name.split('.').next() != op.split('.').next();
        node.op = if in_place { ops::in_place(op, signature.name).into() } else { signature.name.into() };
        ops::bind(&mut node, args).map_err(ReadError::Graph)?;
        if ops::asks_layout(&node.op)
            && matches!(node.attrs.get("self"), Some(Arg::Value(of)) if !self.functional.is_in_order(of))
        {
            node.attrs.insert("self_layout".into(), Arg::Str("a view itself".to_owned()));
        }
        let original = node.clone();
        let returns: Vec<&str> = signature.returns.iter().map(|r| r.ty.as_str()).collect();
        if in_place {
            node.outputs = vec![result.clone()];
            let written = original.attrs.get("self").or_else(|| original.attrs.values().next());
            let dtype = written.and_then(|a| if let Arg::Value(n) = a { self.type_of(n) } else { None });
            self.functional.node(node, &|_| dtype).map_err(ReadError::Graph)?;
            self.flush();
            return Ok(Item::Tensor(result));
        }
        self.functional.read(&mut node);
        self.flush();
        let names = match returns.as_slice() {
            [list] if list.ends_with("[]") => {
                let names = self.walk.list(&node, &result);
                for name in &names {
                    self.names.take(name);
                }
                node.outputs = names.clone();
                self.shares(&node, &original);
                return Ok(Item::list(names.into_iter().map(Item::Tensor).collect()));
            }
            [_] | [] => vec![result.clone()],
            several => (0..several.len()).map(|i| Arc::from(format!("{result}_{i}"))).collect(),
        };
        node.outputs = names.clone();
        self.send(&node);
        self.shares(&node, &original);
        let item = |(name, ty): (Arc<str>, &&str)| match *ty {
            "Scalar" | "SymInt" | "int" | "float" | "bool" => Item::Number(name),
            _ => Item::Tensor(name),
        };
        let mut items: Vec<Item> = names.into_iter().zip(&returns).map(item).collect();
        Ok(match items.len() {
            0 => Item::None,
            1 => {
                let one = items.remove(0);
                self.settled(one)
            }
            _ => Item::Tuple(items.into()),
        })
    }
}

/// What arithmetic on numbers that are known late is called for sizes: the domain, and the operator.
fn arithmetic(op: &str) -> (&'static str, &str) {
    match op.split('.').next().unwrap_or(op) {
        "div" => ("_operator", "truediv"),
        "remainder" => ("_operator", "mod"),
        "__and__" => ("_operator", "and"),
        "__or__" => ("_operator", "or"),
        "__not__" => ("_operator", "not_"),
        "Float" => ("torch", "sym_float"),
        "Int" => ("torch", "sym_int"),
        "max" => ("torch", "sym_max"),
        "min" => ("torch", "sym_min"),
        "sqrt" => ("math", "sqrt"),
        "floor" => ("math", "floor"),
        "ceil" => ("math", "ceil"),
        plain => ("_operator", plain),
    }
}

fn is_number(item: &Item) -> bool {
    matches!(item, Item::Number(_)) || item.number().is_some()
}
