//! The parser.

use super::lexer::{Lexer, Token};
use crate::{
    ir::{Block, Function, Module, Place, Port, Value},
    ops,
    schema::{Args, Attr, Opset},
};
use mlconv_tensor::{DType, Dim, Shape, SymbolInfo, Tensor, TensorType, Type};
use std::{collections::HashMap, fmt, ops::Range, sync::Arc};

/// A parse failure and the bytes of the text it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// What is wrong.
    pub why: String,
    /// Where, in bytes.
    pub at: Range<usize>,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.why, self.at.start)
    }
}

impl std::error::Error for TextError {}

type Result<T> = std::result::Result<T, TextError>;

/// Nesting of blocks beyond which text is refused.
const MAX_NESTING: usize = 64;
/// Elements that one scalar may be repeated to: text is small, and so are its tensors.
const MAX_SPLAT: usize = 1 << 24;

/// Reads a module.
pub fn parse(text: &str) -> Result<Module> {
    let mut lexer = Lexer::new(text);
    let next = lexer.next()?;
    let mut p = Parser { lexer, next, last: 0..0 };
    let mut module = Module::default();
    loop {
        match p.next.0 {
            Token::End => return Ok(module),
            Token::Word("symbol") => p.symbol(&mut module)?,
            Token::Word("func") => {
                let f = p.function()?;
                if module.function(&f.name).is_some() {
                    return p.fail_last(format!("a second function `@{}`", f.name));
                }
                module.functions.push(f);
            }
            _ => return p.fail("wanted `symbol` or `func`"),
        }
    }
}

/// Reads one tensor literal, such as `f32[2] [1.0, 2.0]`.
pub fn parse_tensor(text: &str) -> Result<Tensor> {
    let mut lexer = Lexer::new(text);
    let next = lexer.next()?;
    let mut p = Parser { lexer, next, last: 0..0 };
    let tensor = p.tensor()?;
    if p.next.0 == Token::End { Ok(tensor) } else { p.fail("wanted nothing more") }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    next: (Token<'a>, Range<usize>),
    last: Range<usize>,
}

/// Names in reach, with the nesting they were defined at.
#[derive(Default)]
struct Scope<'a> {
    values: HashMap<&'a str, Value>,
    nesting: usize,
}

impl<'a> Parser<'a> {
    fn bump(&mut self) -> Result<Token<'a>> {
        let next = self.lexer.next()?;
        let (token, at) = std::mem::replace(&mut self.next, next);
        self.last = at;
        Ok(token)
    }

    fn fail<T>(&self, why: impl Into<String>) -> Result<T> {
        Err(TextError { why: why.into(), at: self.next.1.clone() })
    }

    fn fail_last<T>(&self, why: impl Into<String>) -> Result<T> {
        Err(TextError { why: why.into(), at: self.last.clone() })
    }

    fn eat(&mut self, sign: &str) -> Result<bool> {
        let hit = matches!(self.next.0, Token::Sign(s) | Token::Word(s) if s == sign);
        if hit {
            self.bump()?;
        }
        Ok(hit)
    }

    fn expect(&mut self, sign: &str) -> Result<()> {
        if self.eat(sign)? { Ok(()) } else { self.fail(format!("wanted `{sign}`")) }
    }

    fn word(&mut self, what: &str) -> Result<&'a str> {
        match self.next.0 {
            Token::Word(w) => {
                self.bump()?;
                Ok(w)
            }
            _ => self.fail(format!("wanted {what}")),
        }
    }

    fn value_name(&mut self) -> Result<&'a str> {
        match self.next.0 {
            Token::Value(v) => {
                self.bump()?;
                Ok(v)
            }
            _ => self.fail("wanted a value such as `%x`"),
        }
    }

    fn string(&mut self) -> Result<String> {
        match self.bump()? {
            Token::Str(s) => Ok(s),
            _ => self.fail_last("wanted a string"),
        }
    }

    fn integer(&mut self) -> Result<i64> {
        match self.bump()? {
            Token::Number(n) => n.parse().or_else(|_| self.fail_last("wanted a 64-bit integer")),
            _ => self.fail_last("wanted an integer"),
        }
    }

    /// `item` separated by commas, until `close`, which is eaten.
    fn list<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut out = vec![];
        while !self.eat(close)? {
            if !out.is_empty() {
                self.expect(",")?;
            }
            out.push(item(self)?);
        }
        Ok(out)
    }

    fn symbol(&mut self, module: &mut Module) -> Result<()> {
        self.expect("symbol")?;
        let name = self.word("a symbol's name")?;
        self.expect("=")?;
        let min = self.integer()?;
        self.expect("..")?;
        let max = if matches!(self.next.0, Token::Number(_)) { Some(self.integer()?) } else { None };
        let default = if self.eat("default")? { Some(self.integer()?) } else { None };
        if max.is_some_and(|m| m < min) || default.is_some_and(|d| d < min || max.is_some_and(|m| d > m)) {
            return self.fail_last("an empty range, or a default outside of it");
        }
        module.symbols.set(name, SymbolInfo { min, max, default });
        Ok(())
    }

    fn function(&mut self) -> Result<Function> {
        self.expect("func")?;
        let Token::Function(name) = self.bump()? else { return self.fail_last("wanted a name such as `@main`") };
        let mut f = Function::new(name, Opset::default());
        let mut scope = Scope::default();
        self.expect("(")?;
        self.list(")", |p| {
            let name = p.value_name()?;
            let port = p.port(name)?;
            p.expect(":")?;
            let ty = p.ty()?;
            let v = f.add_input(port, ty);
            f.set_hint(v, name);
            p.define(&mut scope, name, v)
        })?;
        let opset = self.word("an op set")?;
        let Some(opset) = Opset::from_name(opset) else { return self.fail_last("an unknown op set") };
        f.opset = opset;
        self.expect("{")?;
        let body = f.body();
        self.ops(&mut f, body, &mut scope)?;
        self.expect("return")?;
        let mut outputs = vec![];
        while !self.eat("}")? {
            if !outputs.is_empty() {
                self.expect(",")?;
            }
            let name = self.value_name()?;
            let v = self.lookup(&scope, name)?;
            outputs.push((self.port(name)?, v));
        }
        f.set_outputs(outputs);
        Ok(f)
    }

    fn port(&mut self, name: &str) -> Result<Port> {
        Ok(Port::new(if self.eat("as")? { Arc::from(self.string()?) } else { Arc::from(name) }))
    }

    fn define(&self, scope: &mut Scope<'a>, name: &'a str, v: Value) -> Result<()> {
        match scope.values.insert(name, v) {
            None => Ok(()),
            Some(_) => self.fail_last(format!("`%{name}` is defined twice")),
        }
    }

    fn lookup(&self, scope: &Scope<'a>, name: &str) -> Result<Value> {
        match scope.values.get(name) {
            Some(v) => Ok(*v),
            None => self.fail_last(format!("`%{name}` is not defined")),
        }
    }

    /// Ops up to `return` or `yield`.
    fn ops(&mut self, f: &mut Function, block: Block, scope: &mut Scope<'a>) -> Result<()> {
        while !matches!(self.next.0, Token::Word("return" | "yield")) {
            self.op(f, block, scope)?;
        }
        Ok(())
    }

    fn op(&mut self, f: &mut Function, block: Block, scope: &mut Scope<'a>) -> Result<()> {
        let mut names = vec![];
        while matches!(self.next.0, Token::Value(_)) {
            names.push(self.value_name()?);
            if !self.eat(",")? {
                break;
            }
        }
        if !names.is_empty() {
            self.expect("=")?;
        }
        let name = self.word("an op")?;
        let at = self.last.clone();
        let fail = |why: String| TextError { why: format!("`{name}`: {why}"), at: at.clone() };
        let Some(info) = ops::by_name(name, f.opset) else {
            return Err(fail(format!("there is no such op in {}", f.opset)));
        };
        self.expect("(")?;
        let bound = self.list(")", |p| {
            let param = p.word("a parameter")?;
            p.expect("=")?;
            Ok((param, p.arg(f, scope)?))
        })?;
        let mut args = Args::new(f);
        for (i, (param, arg)) in bound.iter().enumerate() {
            if bound[..i].iter().any(|(p, _)| p == param) {
                return Err(fail(format!("`{param}` is given twice")));
            }
            match arg {
                Parsed::Operands(v) => args.add_operand(*param, v.clone()),
                Parsed::Attr(a) => args.add_attr(*param, a.clone()),
                Parsed::Region(b) => args.add_region(*param, *b),
            }
        }
        let op = (info.build)(&mut args).and_then(|op| args.finish().map(|()| op)).map_err(|e| fail(e.to_string()))?;
        let results = f.insert(Place::End(block), &names, op, None).map_err(|e| fail(e.why.to_string()))?;
        if results.len() != names.len() {
            return Err(fail(format!("it has {} results, {} are named", results.len(), names.len())));
        }
        if self.eat(":")? {
            for (i, v) in results.iter().enumerate() {
                if i > 0 {
                    self.expect(",")?;
                }
                let said = self.ty()?;
                if said != *f.ty(*v) {
                    return self.fail_last(format!("`%{}` is {}, not {said}", names[i], f.ty(*v)));
                }
            }
        }
        for (name, v) in names.iter().zip(&results) {
            self.define(scope, name, *v)?;
        }
        Ok(())
    }

    fn arg(&mut self, f: &mut Function, scope: &mut Scope<'a>) -> Result<Parsed> {
        Ok(match self.next.0 {
            Token::Value(_) => {
                let name = self.value_name()?;
                Parsed::Operands(vec![self.lookup(scope, name)?])
            }
            Token::Sign("(") => {
                self.bump()?;
                Parsed::Operands(self.list(")", |p| {
                    let name = p.value_name()?;
                    p.lookup(scope, name)
                })?)
            }
            Token::Sign("{") => Parsed::Region(self.region(f, scope)?),
            _ => Parsed::Attr(self.attr()?),
        })
    }

    fn region(&mut self, f: &mut Function, scope: &mut Scope<'a>) -> Result<Block> {
        if scope.nesting >= MAX_NESTING {
            return self.fail("blocks are nested too deep");
        }
        self.expect("{")?;
        let block = f.add_block();
        let mut inner = Scope { values: scope.values.clone(), nesting: scope.nesting + 1 };
        if self.eat("(")? {
            self.list(")", |p| {
                let name = p.value_name()?;
                p.expect(":")?;
                let ty = p.ty()?;
                let v = f.add_arg(block, name, ty);
                p.define(&mut inner, name, v)
            })?;
        }
        self.ops(f, block, &mut inner)?;
        self.expect("yield")?;
        let yields = self.list("}", |p| {
            let name = p.value_name()?;
            p.lookup(&inner, name)
        })?;
        f.set_yields(block, yields);
        Ok(block)
    }

    fn attr(&mut self) -> Result<Attr> {
        if let Token::Word(w) = self.next.0
            && DType::from_name(w).is_some()
        {
            return self.tensor().map(Attr::Tensor);
        }
        if !self.eat("[")? {
            return self.scalar();
        }
        let items = self.list("]", Self::scalar)?;
        let ints: Option<Vec<i64>> = items.iter().map(|a| if let Attr::Int(i) = a { Some(*i) } else { None }).collect();
        if let Some(ints) = ints {
            return Ok(Attr::Ints(ints));
        }
        let floats = items.iter().map(|a| match a {
            Attr::Int(i) => Some(*i as f32),
            Attr::Float(x) => Some(*x),
            _ => None,
        });
        if let Some(floats) = floats.collect() {
            return Ok(Attr::Floats(floats));
        }
        let bools = items.iter().map(|a| if let Attr::Bool(b) = a { Some(*b) } else { None });
        if let Some(bools) = bools.collect() {
            return Ok(Attr::Bools(bools));
        }
        let strs = items.iter().map(|a| if let Attr::Str(s) = a { Some(s.clone()) } else { None });
        match strs.collect() {
            Some(strs) => Ok(Attr::Strs(strs)),
            None => self.fail_last("a list of different kinds"),
        }
    }

    fn scalar(&mut self) -> Result<Attr> {
        match self.bump()? {
            Token::Str(s) => Ok(Attr::Str(s)),
            Token::Word("true") => Ok(Attr::Bool(true)),
            Token::Word("false") => Ok(Attr::Bool(false)),
            Token::Word("inf") => Ok(Attr::Float(f32::INFINITY)),
            Token::Word("NaN") => Ok(Attr::Float(f32::NAN)),
            Token::Number(n) => match (n.parse::<i64>(), n.parse::<f32>()) {
                (Ok(i), _) => Ok(Attr::Int(i)),
                (Err(_), Ok(x)) => Ok(Attr::Float(x)),
                (Err(_), Err(_)) => self.fail_last("wanted a number"),
            },
            _ => self.fail_last("wanted a literal"),
        }
    }

    /// `f32[2] [1.0, 2.0]`; a scalar instead of the list fills the tensor.
    fn tensor(&mut self) -> Result<Tensor> {
        let ty = self.tensor_type()?;
        let at = self.last.clone();
        let fail = |why: &str| Err(TextError { why: why.to_owned(), at: at.clone() });
        let Some(shape) = ty.shape.known() else { return fail("a literal has a known shape") };
        if ty.dtype == DType::Str {
            return if shape.is_empty() {
                self.string().map(|s| Tensor::from_text(&s))
            } else {
                fail("only a scalar is a string")
            };
        }
        let Some(count) = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_SPLAT) else {
            return fail("too large for a literal");
        };
        let one = |p: &mut Self| -> Result<(f64, i64)> {
            match p.bump()? {
                Token::Word("true") => Ok((1.0, 1)),
                Token::Word("false") => Ok((0.0, 0)),
                Token::Word("inf") => Ok((f64::INFINITY, 0)),
                Token::Word("NaN") => Ok((f64::NAN, 0)),
                Token::Number(n) => match (n.parse::<f64>(), n.parse::<i64>()) {
                    (Ok(x), i) => Ok((x, i.unwrap_or(x as i64))),
                    (Err(_), _) => p.fail_last("wanted a number"),
                },
                _ => p.fail_last("wanted a number"),
            }
        };
        let items = if self.eat("[")? { self.list("]", one)? } else { vec![one(self)?; count] };
        if items.len() != count {
            return fail(&format!("{} elements for {count} places", items.len()));
        }
        Ok(if ty.dtype.is_float() || ty.dtype == DType::Bool {
            // Text prints the shortest decimal of the 32-bit value; going through it reads that value back.
            let narrow = |x: f64| if ty.dtype == DType::F64 { x } else { f64::from(x as f32) };
            Tensor::from_f64(ty.dtype, &shape, &items.iter().map(|(x, _)| narrow(*x)).collect::<Vec<_>>())
        } else {
            let ints: Vec<i64> = items.iter().map(|(_, i)| *i).collect();
            let (lo, hi) = ty.dtype.int_range().unwrap_or((0, 0));
            if ints.iter().any(|i| !(lo..=hi).contains(&i128::from(*i))) {
                return fail(&format!("a value outside {}", ty.dtype));
            }
            Tensor::from_i64(ty.dtype, &shape, &ints)
        })
    }

    fn tensor_type(&mut self) -> Result<TensorType> {
        let dtype = self.dtype()?;
        self.expect("[")?;
        let start = self.next.1.start;
        let mut dims = vec![];
        // A dim is an expression of its own; its tokens are only delimited here.
        let mut from = start;
        let mut depth = 0usize;
        loop {
            let at = self.next.1.clone();
            match self.next.0 {
                Token::Sign("]") if depth == 0 => break,
                Token::Sign(",") if depth == 0 => {
                    dims.push(self.dim(from..at.start)?);
                    from = at.end;
                }
                Token::Sign("(") => depth += 1,
                Token::Sign(")") => depth = depth.saturating_sub(1),
                Token::End => return self.fail("wanted `]`"),
                _ => {}
            }
            self.bump()?;
        }
        let end = self.next.1.start;
        if end > start {
            dims.push(self.dim(from..end)?);
        }
        self.expect("]")?;
        Ok(TensorType::new(dtype, Shape::from(dims)))
    }

    fn dim(&self, at: Range<usize>) -> Result<Dim> {
        let text = self.lexer.slice(at.clone());
        Dim::parse(text).ok_or_else(|| TextError { why: format!("`{}` is no size", text.trim()), at })
    }

    fn dtype(&mut self) -> Result<DType> {
        let name = self.word("an element type")?;
        match DType::from_name(name) {
            Some(d) => Ok(d),
            None => self.fail_last(format!("there is no element type `{name}`")),
        }
    }

    fn ty(&mut self) -> Result<Type> {
        Ok(match self.next.0 {
            Token::Word("state") => {
                self.bump()?;
                self.expect("<")?;
                let t = self.tensor_type()?;
                self.expect(">")?;
                Type::State(t)
            }
            Token::Word("list") => {
                self.bump()?;
                self.expect("<")?;
                let elem = self.tensor_type()?;
                self.expect(",")?;
                let start = self.next.1.start;
                while !matches!(self.next.0, Token::Sign(">") | Token::End) {
                    self.bump()?;
                }
                let len = self.dim(start..self.next.1.start)?;
                self.expect(">")?;
                Type::List { elem, len }
            }
            Token::Word("dict") => {
                self.bump()?;
                self.expect("<")?;
                let key = self.dtype()?;
                self.expect(",")?;
                let value = self.dtype()?;
                self.expect(">")?;
                Type::Dict { key, value }
            }
            Token::Word("unknown") => {
                self.bump()?;
                Type::Unknown
            }
            _ => Type::Tensor(self.tensor_type()?),
        })
    }
}

enum Parsed {
    Operands(Vec<Value>),
    Attr(Attr),
    Region(Block),
}
