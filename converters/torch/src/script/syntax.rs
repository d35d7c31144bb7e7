//! The code of TorchScript: the small part of Python that its archives hold.

use super::tokens::{Token, tokens};
use std::rc::Rc;

/// A file of code.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub(crate) classes: Vec<Class>,
    pub(crate) functions: Vec<Rc<Function>>,
}

/// A class.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) name: String,
    /// What it is derived from: `Module`, `NamedTuple`, `Interface`, nothing.
    pub(crate) base: String,
    /// Its attributes, in order, with the text of their types.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) methods: Vec<Rc<Function>>,
}

/// A function or method.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) params: Vec<Param>,
    pub(crate) body: Vec<Statement>,
}

/// A parameter.
#[derive(Debug)]
pub(crate) struct Param {
    pub(crate) name: String,
    /// The text of its type.
    pub(crate) ty: String,
    pub(crate) default: Option<Expr>,
}

/// A statement, with its line.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// `targets = value`; several targets take a tuple or list apart.
    Assign(Vec<Expr>, bool, Expr),
    If(Expr, Vec<Statement>, Vec<Statement>),
    While(Expr, Vec<Statement>),
    For(Expr, Expr, Vec<Statement>),
    With(Vec<Statement>),
    Return(Option<Expr>),
    Expr(Expr),
    Pass,
    Break,
    Continue,
}

#[derive(Debug)]
pub(crate) enum Expr {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    Name(Rc<str>),
    Attr(Box<Expr>, Rc<str>),
    Index(Box<Expr>, Box<Expr>),
    Call(Box<Expr>, Vec<Expr>, Vec<(Rc<str>, Expr)>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
}

/// What is wrong with code, and where.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {why}")]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) why: String,
}

pub(super) type Result<T, E = SyntaxError> = std::result::Result<T, E>;

/// The arguments of a call: those in order, and those by name.
type Arguments = (Vec<Expr>, Vec<(Rc<str>, Expr)>);

/// Nesting of expressions and of blocks beyond which code is refused.
const MAX_DEPTH: usize = 100;
/// Levels of an expression as it is evaluated: each attribute, call and index that follows another one is one.
const MAX_HEIGHT: usize = 200;

/// Reads a file of code.
pub(crate) fn parse(text: &str) -> Result<Code> {
    let tokens = tokens(text)?;
    let mut p = Parser { tokens, at: 0, depth: 0, height: 0 };
    let mut code = Code::default();
    loop {
        match p.peek().clone() {
            Token::End => return Ok(code),
            Token::Line(0) => p.at += 1,
            Token::Line(_) => return p.fail("an indented line where none is expected"),
            _ if p.takes_word("class") => code.classes.push(p.class()?),
            _ if p.takes_word("def") => code.functions.push(Rc::new(p.function(0)?)),
            _ if p.is_word("import") || p.is_word("from") => p.skip_line(),
            // Declarations of constants at the top of old files.
            Token::Name(_) => p.skip_line(),
            _ => return p.fail("wanted `class` or `def`"),
        }
    }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    /// Levels of the expression that was read last.
    height: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(t, _)| t)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |(_, line)| *line)
    }

    fn fail<T>(&self, why: impl Into<String>) -> Result<T> {
        Err(SyntaxError { line: self.line(), why: why.into() })
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(s) if *s == sign)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    fn wants(&mut self, sign: &str) -> Result<()> {
        if self.takes(sign) { Ok(()) } else { self.fail(format!("wanted `{sign}`")) }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(n) if **n == *word)
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn name(&mut self) -> Result<Rc<str>> {
        match self.next() {
            Token::Name(n) => Ok(n),
            _ => {
                self.at -= 1;
                self.fail("wanted a name")
            }
        }
    }

    fn skip_line(&mut self) {
        while !matches!(self.peek(), Token::Line(_) | Token::End) {
            self.at += 1;
        }
    }

    /// One level deeper; a file may nest as it likes.
    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return self.fail("code is nested too deeply");
        }
        self.depth += 1;
        let done = f(self);
        self.depth -= 1;
        done
    }

    fn class(&mut self) -> Result<Class> {
        let name = self.name()?.to_string();
        let mut base = String::new();
        if self.takes("(") {
            while !self.takes(")") {
                if let Token::Name(n) = self.next() {
                    base = n.to_string();
                }
                if matches!(self.peek(), Token::End) {
                    return self.fail("wanted `)`");
                }
            }
        }
        self.wants(":")?;
        let mut class = Class { name, base, fields: vec![], methods: vec![] };
        let Token::Line(indent) = *self.peek() else { return self.fail("wanted a line of its own") };
        if indent == 0 {
            return Ok(class);
        }
        while matches!(self.peek(), Token::Line(n) if *n >= indent) {
            self.at += 1;
            if self.takes_word("def") {
                class.methods.push(Rc::new(self.function(indent)?));
                continue;
            }
            if self.takes("@") || self.is_word("pass") {
                self.skip_line();
                continue;
            }
            let Token::Name(field) = self.next() else { return self.fail("wanted an attribute") };
            let mut field = field.to_string();
            // `__annotations__["0"] : …`, where a name is no identifier.
            if &*field == "__annotations__" && self.takes("[") {
                let Token::Str(s) = self.next() else { return self.fail("wanted the name of an attribute") };
                self.wants("]")?;
                field = s.to_string();
                self.takes("=");
                class.fields.push((field, self.rest_of_line()));
                continue;
            }
            if self.takes(":") {
                let ty = self.rest_of_line();
                class.fields.push((field, ty));
            } else {
                self.skip_line();
            }
        }
        Ok(class)
    }

    /// The rest of a line as text without spaces.
    fn rest_of_line(&mut self) -> String {
        let mut out = String::new();
        while !matches!(self.peek(), Token::Line(_) | Token::End) {
            out.push_str(&text_of(&self.next()));
        }
        out
    }

    /// A type: everything up to a sign outside of brackets.
    fn ty(&mut self, stops: &[&str]) -> String {
        let (mut out, mut depth) = (String::new(), 0usize);
        loop {
            match self.peek() {
                Token::Line(_) | Token::End => return out,
                Token::Sign(s) if depth == 0 && stops.contains(s) => return out,
                Token::Sign("[" | "(") => depth += 1,
                Token::Sign("]" | ")") => depth = depth.saturating_sub(1),
                _ => {}
            }
            out.push_str(&text_of(&self.next()));
        }
    }

    fn function(&mut self, indent: usize) -> Result<Function> {
        let name = self.name()?.to_string();
        self.wants("(")?;
        let mut params = vec![];
        while !self.takes(")") {
            self.takes("*");
            let name = self.name()?.to_string();
            let ty = if self.takes(":") { self.ty(&[",", ")", "="]) } else { String::new() };
            let default = if self.takes("=") { Some(self.expr()?) } else { None };
            params.push(Param { name, ty, default });
            if !self.takes(",") && !self.is(")") {
                return self.fail("wanted `,` or `)`");
            }
        }
        if self.takes("->") {
            self.ty(&[":"]);
        }
        self.wants(":")?;
        Ok(Function { name, params, body: self.block(indent)? })
    }

    /// The lines that are indented further than `outer`.
    fn block(&mut self, outer: usize) -> Result<Vec<Statement>> {
        let Token::Line(indent) = *self.peek() else { return self.fail("wanted a line of its own") };
        if indent <= outer {
            return self.fail("wanted an indented line");
        }
        self.deeper(|p| {
            let mut out = vec![];
            while matches!(p.peek(), Token::Line(n) if *n == indent) {
                p.at += 1;
                out.push(p.statement(indent)?);
            }
            if matches!(p.peek(), Token::Line(n) if *n > outer) {
                return p.fail("a line that is indented like no other");
            }
            Ok(out)
        })
    }

    fn statement(&mut self, indent: usize) -> Result<Statement> {
        let line = self.line();
        let kind = self.kind(indent)?;
        if !matches!(self.peek(), Token::Line(_) | Token::End) {
            return self.fail("wanted the end of the line");
        }
        Ok(Statement { line, kind })
    }

    fn kind(&mut self, indent: usize) -> Result<Kind> {
        if self.takes_word("pass") {
            return Ok(Kind::Pass);
        }
        if self.takes_word("break") {
            return Ok(Kind::Break);
        }
        if self.takes_word("continue") {
            return Ok(Kind::Continue);
        }
        if self.takes_word("return") {
            let value = if matches!(self.peek(), Token::Line(_) | Token::End) { None } else { Some(self.expr()?) };
            return Ok(Kind::Return(value));
        }
        if self.takes_word("if") {
            let cond = self.expr()?;
            self.wants(":")?;
            let yes = self.block(indent)?;
            let mut no = vec![];
            if matches!(self.peek(), Token::Line(n) if *n == indent)
                && matches!(self.tokens.get(self.at + 1), Some((Token::Name(n), _)) if &**n == "else")
            {
                self.at += 2;
                self.wants(":")?;
                no = self.block(indent)?;
            }
            return Ok(Kind::If(cond, yes, no));
        }
        if self.takes_word("while") {
            let cond = self.expr()?;
            self.wants(":")?;
            return Ok(Kind::While(cond, self.block(indent)?));
        }
        if self.takes_word("for") {
            let target = self.expr()?;
            if !self.takes_word("in") {
                return self.fail("wanted `in`");
            }
            let over = self.expr()?;
            self.wants(":")?;
            return Ok(Kind::For(target, over, self.block(indent)?));
        }
        if self.takes_word("with") {
            self.expr()?;
            if self.takes_word("as") {
                self.name()?;
            }
            self.wants(":")?;
            return Ok(Kind::With(self.block(indent)?));
        }
        let first = self.expr()?;
        if self.takes(":") {
            self.ty(&["="]);
            self.wants("=")?;
            return Ok(Kind::Assign(vec![first], false, self.expr()?));
        }
        if self.takes("=") {
            return Ok(Kind::Assign(vec![first], false, self.tuple()?));
        }
        if self.takes(",") {
            let mut targets = vec![first];
            while !self.is("=") {
                targets.push(self.expr()?);
                if !self.takes(",") {
                    break;
                }
            }
            self.wants("=")?;
            return Ok(Kind::Assign(targets, true, self.tuple()?));
        }
        Ok(Kind::Expr(first))
    }

    /// An expression, or several with commas between them.
    fn tuple(&mut self) -> Result<Expr> {
        let first = self.expr()?;
        if !self.is(",") {
            return Ok(first);
        }
        let mut all = vec![first];
        while self.takes(",") {
            if matches!(self.peek(), Token::Line(_) | Token::End) {
                break;
            }
            all.push(self.expr()?);
        }
        Ok(Expr::Tuple(all))
    }

    fn expr(&mut self) -> Result<Expr> {
        self.deeper(|p| {
            let mut e = p.atom()?;
            loop {
                let own = p.height;
                if own >= MAX_HEIGHT {
                    return p.fail("code is nested too deeply");
                }
                if p.takes(".") {
                    e = Expr::Attr(Box::new(e), p.name()?);
                    p.height = own + 1;
                } else if p.takes("(") {
                    let (args, named) = p.arguments()?;
                    e = Expr::Call(Box::new(e), args, named);
                    p.height = own.max(p.height) + 1;
                } else if p.takes("[") {
                    let index = p.expr()?;
                    let mut height = own.max(p.height);
                    // A type such as `Dict[str, Tensor]`.
                    let mut all = vec![index];
                    while p.takes(",") {
                        all.push(p.expr()?);
                        height = height.max(p.height);
                    }
                    // A tuple of several is a level too.
                    p.height = height + 2;
                    p.wants("]")?;
                    let index = match all.pop() {
                        Some(one) if all.is_empty() => one,
                        Some(last) => {
                            all.push(last);
                            Expr::Tuple(all)
                        }
                        None => return p.fail("wanted an index"),
                    };
                    e = Expr::Index(Box::new(e), Box::new(index));
                } else {
                    return Ok(e);
                }
            }
        })
    }

    fn arguments(&mut self) -> Result<Arguments> {
        let (mut args, mut named, mut height) = (vec![], vec![], 0);
        while !self.takes(")") {
            let is_named = matches!(self.peek(), Token::Name(_))
                && matches!(self.tokens.get(self.at + 1), Some((Token::Sign("="), _)));
            if is_named {
                let name = self.name()?;
                self.wants("=")?;
                named.push((name, self.expr()?));
            } else {
                args.push(self.expr()?);
            }
            height = height.max(self.height);
            if !self.takes(",") && !self.is(")") {
                return self.fail("wanted `,` or `)`");
            }
        }
        self.height = height;
        Ok((args, named))
    }

    fn list(&mut self, close: &str) -> Result<(Vec<Expr>, bool)> {
        let (mut all, mut comma, mut height) = (vec![], false, 0);
        while !self.takes(close) {
            all.push(self.expr()?);
            height = height.max(self.height);
            comma = self.takes(",");
            if !comma && !self.is(close) {
                return self.fail(format!("wanted `,` or `{close}`"));
            }
        }
        self.height = height + 1;
        Ok((all, comma))
    }

    fn atom(&mut self) -> Result<Expr> {
        self.height = 0;
        match self.next() {
            Token::Int(i) => Ok(Expr::Int(i)),
            Token::Float(x) => Ok(Expr::Float(x)),
            Token::Str(s) => {
                // Texts that follow each other are one.
                let mut s = s.to_string();
                while let Token::Str(more) = self.peek().clone() {
                    s.push_str(&more);
                    self.at += 1;
                }
                Ok(Expr::Str(s.into()))
            }
            Token::Name(n) => Ok(match &*n {
                "None" => Expr::None,
                "True" => Expr::Bool(true),
                "False" => Expr::Bool(false),
                "inf" => Expr::Float(f64::INFINITY),
                "nan" => Expr::Float(f64::NAN),
                _ => Expr::Name(n),
            }),
            Token::Sign("(") => {
                let (mut all, comma) = self.list(")")?;
                match all.pop() {
                    Some(one) if all.is_empty() && !comma => Ok(one),
                    Some(last) => {
                        all.push(last);
                        Ok(Expr::Tuple(all))
                    }
                    None => Ok(Expr::Tuple(vec![])),
                }
            }
            Token::Sign("[") => Ok(Expr::List(self.list("]")?.0)),
            Token::Sign("{") => {
                let (mut pairs, mut height) = (vec![], 0);
                while !self.takes("}") {
                    let key = self.expr()?;
                    height = height.max(self.height);
                    self.wants(":")?;
                    pairs.push((key, self.expr()?));
                    height = height.max(self.height);
                    if !self.takes(",") && !self.is("}") {
                        return self.fail("wanted `,` or `}`");
                    }
                }
                self.height = height + 1;
                Ok(Expr::Dict(pairs))
            }
            _ => {
                self.at -= 1;
                self.fail("wanted an expression")
            }
        }
    }
}

fn text_of(token: &Token) -> String {
    match token {
        Token::Name(n) => n.to_string(),
        Token::Int(i) => i.to_string(),
        Token::Float(x) => x.to_string(),
        Token::Str(s) => format!("{s:?}"),
        Token::Sign(s) => (*s).to_owned(),
        Token::Line(_) | Token::End => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "\
class M(Module):
  __parameters__ = [\"w\", ]
  __buffers__ = []
  w : Tensor
  __annotations__[\"0\"] = __torch__.Relu
  def forward(self: __torch__.M,
    x: Tensor,
    n: int=-3) -> Tuple[Tensor, int]:
    _0 = torch.add(x, CONSTANTS.c0, alpha=1.5e-3)
    if torch.gt(n, 0):
      y = (self.w)[0]
    else:
      pass
    for i in range(n):
      a, b, = (torch.size(x))[-1], [1, 2]
    self._state = _0
    return (_0, n)
def pad(x: Tensor) -> Tensor:
  return x
";

    #[test]
    fn code_is_read() {
        let code = parse(CODE).expect("code");
        let class = &code.classes[0];
        assert_eq!((class.name.as_str(), class.base.as_str(), class.fields.len()), ("M", "Module", 2));
        let forward = &class.methods[0];
        assert_eq!((forward.params.len(), forward.body.len(), code.functions.len()), (3, 5, 1));
        assert!(matches!(forward.params[2].default, Some(Expr::Int(-3))));
        assert!(matches!(&forward.body[1].kind, Kind::If(_, yes, no) if yes.len() == 1 && no.len() == 1));
        assert!(matches!(&forward.body[4].kind, Kind::Return(Some(Expr::Tuple(all))) if all.len() == 2));
        assert_eq!(forward.body[4].line, 17);
    }

    #[test]
    fn what_is_no_code_is_refused() {
        // Arguments of the first of many links are below all others.
        let mut links = "1".to_owned();
        for _ in 0..20 {
            links = format!("f({links}){}", ".a".repeat(30));
        }
        let links = format!("def f():\n  return {links}\n");
        let deep = format!("def f():\n  return {}1{}\n", "(".repeat(500), ")".repeat(500));
        for text in [
            "x +",
            "def f(:\n  pass",
            "def f():\nreturn 1",
            "def f():\n  return \"a",
            "class",
            "def f():\n  1 2\n",
            &deep,
            &links,
        ] {
            assert!(parse(text).is_err(), "{text:.40}");
        }
    }
}
