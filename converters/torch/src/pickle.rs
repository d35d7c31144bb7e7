//! Pickles, read as data: a machine that builds plain containers, tensors and modules, and can do nothing else.
//!
//! Python's pickles are programs that call functions. Here a call is a value that says what would be called, of a list of
//! functions that only put data together; of any other the pickle is refused. Nothing is ever executed.

use std::{collections::HashMap, fmt, rc::Rc};

/// Why a pickle is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PickleError {
    /// It breaks off, or its instructions do not fit together.
    #[error("the pickle is damaged at byte {at}: {why}")]
    Damaged {
        /// Where.
        at: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// It calls something that is not allowed.
    #[error("the pickle calls `{0}`, which is not among what a model file needs; nothing was run")]
    Refused(String),
    /// It comes to more than it can hold.
    #[error("the pickle comes to more objects than its size allows")]
    TooLarge,
}

type Result<T, E = PickleError> = std::result::Result<T, E>;

/// An object of a pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(usize);

/// What an object is.
#[derive(Clone, Debug)]
pub(crate) enum Object {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits.
    Long,
    Float(f64),
    Str(Rc<str>),
    /// Bytes, of which nothing in a model is made.
    Bytes,
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, such as `torch.FloatStorage`.
    Global(Rc<str>),
    /// What an allowed function would be called with.
    Call(Rc<str>, Vec<Id>),
    /// An instance of a class of the model, with its state.
    Instance(Rc<str>, Option<Id>),
    /// Something that lies outside of the pickle.
    Persistent(Id),
}

/// A pickle that has been read. Objects may refer to each other in circles.
#[derive(Debug)]
pub(crate) struct Pickle {
    objects: Vec<Object>,
    pub(crate) root: Id,
}

/// Functions that put data together.
const FUNCTIONS: &[&str] = &[
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_qtensor",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.build_tensor_from_id",
    "torch.jit._pickle.restore_type_tag",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "_codecs.encode",
];

/// Bytes of a name of a class or function: texts are recalled at little cost, and each name is one of its own.
const MAX_NAME: usize = 1 << 10;

/// Classes of the model bear names that begin so.
const OF_MODEL: &str = "__torch__.";

impl Pickle {
    pub(crate) fn get(&self, id: Id) -> &Object {
        &self.objects[id.0]
    }

    pub(crate) fn str(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Object::Str(s) => Some(s),
            _ => None,
        }
    }

    pub(crate) fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Object::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The elements of a list or tuple, or of a call that makes a list.
    pub(crate) fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Object::List(v) | Object::Tuple(v) => Some(v),
            Object::Call(f, args) if f.starts_with("torch.jit._pickle.build_") || &**f == "torch.Size" => {
                self.elements_of_call(args)
            }
            _ => None,
        }
    }

    fn elements_of_call(&self, args: &[Id]) -> Option<&[Id]> {
        match args.first().map(|a| self.get(*a)) {
            Some(Object::List(v) | Object::Tuple(v)) => Some(v),
            _ => None,
        }
    }

    /// The pairs of a dictionary, ordered or not, in order.
    pub(crate) fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Object::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// What a dictionary has under a text.
    pub(crate) fn entry(&self, id: Id, key: &str) -> Option<Id> {
        self.pairs(id)?.iter().rev().find(|(k, _)| self.str(*k) == Some(key)).map(|(_, v)| *v)
    }
}

/// Reads a pickle of any protocol.
pub(crate) fn read(bytes: &[u8]) -> Result<Pickle> {
    Machine { bytes, at: 0, objects: vec![], stack: vec![], marks: vec![], memo: HashMap::new(), copied: 0 }.run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack at which marks were set.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
    /// Elements that were put into containers so far.
    copied: usize,
}

impl Machine<'_> {
    fn fail<T>(&self, why: &'static str) -> Result<T> {
        Err(PickleError::Damaged { at: self.at, why })
    }

    fn take(&mut self, n: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len());
        let Some(end) = end else { return self.fail("it breaks off") };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian number of `n` bytes, at most 8.
    fn number(&mut self, n: usize) -> Result<u64> {
        Ok(self.take(n)?.iter().rev().fold(0, |x, b| x << 8 | u64::from(*b)))
    }

    fn length(&mut self, n: usize) -> Result<usize> {
        let n = self.number(n)?;
        // What is longer than the pickle breaks off anyway.
        Ok(usize::try_from(n).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<String> {
        let rest = &self.bytes[self.at..];
        let Some(n) = rest.iter().position(|b| *b == b'\n') else { return self.fail("a line does not end") };
        let text = String::from_utf8_lossy(&rest[..n]).trim_end_matches('\r').to_owned();
        self.at += n + 1;
        Ok(text)
    }

    fn text(&mut self, n: usize) -> Result<Object> {
        let at = self.at;
        match std::str::from_utf8(self.take(n)?) {
            Ok(s) => Ok(Object::Str(s.into())),
            Err(_) => Err(PickleError::Damaged { at, why: "a text is not UTF-8" }),
        }
    }

    fn add(&mut self, object: Object) -> Result<Id> {
        // An object takes at least one byte.
        if self.objects.len() > self.bytes.len() {
            return Err(PickleError::TooLarge);
        }
        self.objects.push(object);
        Ok(Id(self.objects.len() - 1))
    }

    fn push(&mut self, object: Object) -> Result<()> {
        let id = self.add(object)?;
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(id) if self.stack.len() >= floor => Ok(id),
            _ => self.fail("it takes more than there is"),
        }
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(id) => Ok(*id),
            None => self.fail("it reads what is not there"),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => {
                let all = self.stack.split_off(height);
                self.charge(all.len())?;
                Ok(all)
            }
            _ => self.fail("there is no mark"),
        }
    }

    /// Elements that are put into containers are bounded by the bytes that it takes to name them.
    fn charge(&mut self, n: usize) -> Result<()> {
        self.copied = self.copied.saturating_add(n);
        if self.copied > self.bytes.len().saturating_mul(2) { Err(PickleError::TooLarge) } else { Ok(()) }
    }

    fn put(&mut self, key: usize) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Result<()> {
        match self.memo.get(&key) {
            Some(id) => {
                self.stack.push(*id);
                // Reading again costs a byte or more each time.
                Ok(())
            }
            None => self.fail("it recalls what it never kept"),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        if module.len().saturating_add(name.len()) > MAX_NAME {
            return self.fail("the name of a class or function is too long");
        }
        self.push(Object::Global(format!("{module}.{name}").into()))
    }

    fn arguments(&mut self, id: Id) -> Result<Vec<Id>> {
        let Object::Tuple(args) = &self.objects[id.0] else {
            return self.fail("a call without a tuple of arguments");
        };
        let count = args.len();
        self.charge(count)?;
        match &self.objects[id.0] {
            Object::Tuple(args) => Ok(args.clone()),
            _ => Ok(vec![]),
        }
    }

    /// A call: of an allowed function a value, of any other a refusal.
    fn call(&mut self, function: Id, args: Vec<Id>) -> Result<()> {
        let Object::Global(name) = self.objects[function.0].clone() else {
            return self.fail("a call of what is no function");
        };
        let made = match &*name {
            "collections.OrderedDict" => {
                let pairs = args.first().and_then(|a| match &self.objects[a.0] {
                    Object::List(v) | Object::Tuple(v) => Some(v),
                    _ => None,
                });
                let count = pairs.map_or(0, Vec::len).saturating_mul(2);
                self.charge(count)?;
                let pairs = args.first().and_then(|a| match &self.objects[a.0] {
                    Object::List(v) | Object::Tuple(v) => Some(v.as_slice()),
                    _ => None,
                });
                let pair = |id: Id| match &self.objects[id.0] {
                    Object::List(v) | Object::Tuple(v) if v.len() == 2 => Some((v[0], v[1])),
                    _ => None,
                };
                Object::Dict(pairs.unwrap_or_default().iter().copied().filter_map(pair).collect())
            }
            // The tag says of what type a container is, which its elements say too.
            "torch.jit._pickle.restore_type_tag" => match args.first() {
                Some(first) => {
                    self.stack.push(*first);
                    return Ok(());
                }
                None => return self.fail("a call without arguments"),
            },
            known if FUNCTIONS.contains(&known) => Object::Call(name, args),
            of_model if of_model.starts_with(OF_MODEL) => Object::Instance(name, None),
            other => return Err(PickleError::Refused(other.to_owned())),
        };
        self.push(made)
    }

    fn instance(&mut self, class: Id) -> Result<()> {
        match self.objects[class.0].clone() {
            Object::Global(name) if name.starts_with(OF_MODEL) => self.push(Object::Instance(name, None)),
            Object::Global(name) if &*name == "collections.OrderedDict" => self.push(Object::Dict(vec![])),
            Object::Global(name) => Err(PickleError::Refused(name.to_string())),
            _ => self.fail("an instance of what is no class"),
        }
    }

    fn set_items(&mut self, pairs: &[Id]) -> Result<()> {
        let dict = self.top()?;
        if !pairs.len().is_multiple_of(2) {
            return self.fail("a key without a value");
        }
        match &mut self.objects[dict.0] {
            Object::Dict(own) => {
                own.extend(pairs.chunks_exact(2).map(|p| (p[0], p[1])));
                Ok(())
            }
            _ => self.fail("an entry of what is no dictionary"),
        }
    }

    fn append(&mut self, values: &[Id]) -> Result<()> {
        let list = self.top()?;
        match &mut self.objects[list.0] {
            Object::List(own) => {
                own.extend_from_slice(values);
                Ok(())
            }
            _ => self.fail("an element of what is no list"),
        }
    }

    fn integer(&mut self, n: usize) -> Result<Object> {
        if n > 8 {
            self.take(n)?;
            return Ok(Object::Long);
        }
        let x = self.number(n)?;
        let shift = 64 - 8 * n as u32;
        Ok(Object::Int(if n == 0 { 0 } else { (x << shift) as i64 >> shift }))
    }

    fn decimal(&self, text: &str) -> Result<Object> {
        match text.trim_end_matches('L') {
            "00" => Ok(Object::Bool(false)),
            "01" => Ok(Object::Bool(true)),
            digits => match digits.parse() {
                Ok(i) => Ok(Object::Int(i)),
                Err(_) if !digits.is_empty() && digits.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) => {
                    Ok(Object::Long)
                }
                Err(_) => self.fail("a number that is none"),
            },
        }
    }

    fn run(mut self) -> Result<Pickle> {
        loop {
            let code = self.take(1)?[0];
            match code {
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle { objects: self.objects, root });
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                b'N' => self.push(Object::None)?,
                0x88 => self.push(Object::Bool(true))?,
                0x89 => self.push(Object::Bool(false))?,
                b'I' | b'L' => {
                    let line = self.line()?;
                    let number = self.decimal(&line)?;
                    self.push(number)?;
                }
                b'J' => {
                    let number = self.integer(4)?;
                    self.push(number)?;
                }
                b'K' => {
                    let n = self.number(1)?;
                    self.push(Object::Int(n as i64))?;
                }
                b'M' => {
                    let n = self.number(2)?;
                    self.push(Object::Int(n as i64))?;
                }
                0x8a | 0x8b => {
                    let n = self.length(if code == 0x8a { 1 } else { 4 })?;
                    let number = self.integer(n)?;
                    self.push(number)?;
                }
                b'F' => match self.line()?.parse() {
                    Ok(x) => self.push(Object::Float(x))?,
                    Err(_) => return self.fail("a number that is none"),
                },
                b'G' => {
                    let bits = self.take(8)?.iter().fold(0u64, |x, b| x << 8 | u64::from(*b));
                    self.push(Object::Float(f64::from_bits(bits)))?;
                }
                b'S' | b'V' => {
                    let line = self.line()?;
                    let quoted = line.trim_matches(['\'', '"']);
                    self.push(Object::Str(if code == b'S' { quoted } else { line.as_str() }.into()))?;
                }
                b'X' | 0x8c | 0x8d | b'T' | b'U' => {
                    let width = match code {
                        0x8c | b'U' => 1,
                        0x8d => 8,
                        _ => 4,
                    };
                    let n = self.length(width)?;
                    let text = self.text(n)?;
                    self.push(text)?;
                }
                b'B' | b'C' | 0x8e | 0x96 => {
                    let width = match code {
                        b'B' => 4,
                        b'C' => 1,
                        _ => 8,
                    };
                    let n = self.length(width)?;
                    self.take(n)?;
                    self.push(Object::Bytes)?;
                }
                b'c' | b'i' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(&module, &name)?;
                    if code == b'i' {
                        let class = self.pop()?;
                        self.pop_mark()?;
                        self.instance(class)?;
                    }
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Object::Str(module), Object::Str(name)) =
                        (self.objects[module.0].clone(), self.objects[name.0].clone())
                    else {
                        return self.fail("a name that is no text");
                    };
                    self.global(&module, &name)?;
                }
                b'R' => {
                    let (args, function) = (self.pop()?, self.pop()?);
                    let args = self.arguments(args)?;
                    self.call(function, args)?;
                }
                0x81 => {
                    let (args, class) = (self.pop()?, self.pop()?);
                    self.arguments(args)?;
                    self.instance(class)?;
                }
                0x92 => {
                    let (_, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                    self.arguments(args)?;
                    self.instance(class)?;
                }
                b'o' => {
                    let all = self.pop_mark()?;
                    match all.first() {
                        Some(class) => self.instance(*class)?,
                        None => return self.fail("an instance of nothing"),
                    }
                }
                b'b' => {
                    let (state, object) = (self.pop()?, self.top()?);
                    match &mut self.objects[object.0] {
                        Object::Instance(_, own) => *own = Some(state),
                        // Attributes of an ordered dictionary, which hold nothing of its entries.
                        Object::Dict(_) => {}
                        _ => return self.fail("a state of what has none"),
                    }
                }
                b'P' => {
                    let line = self.line()?;
                    let id = self.add(Object::Str(line.into()))?;
                    self.push(Object::Persistent(id))?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.push(Object::Persistent(id))?;
                }
                b'}' => self.push(Object::Dict(vec![]))?,
                b']' | 0x8f => self.push(Object::List(vec![]))?,
                b')' => self.push(Object::Tuple(vec![]))?,
                b't' => {
                    let all = self.pop_mark()?;
                    self.push(Object::Tuple(all))?;
                }
                b'l' | 0x91 => {
                    let all = self.pop_mark()?;
                    self.push(Object::List(all))?;
                }
                b'd' => {
                    let all = self.pop_mark()?;
                    self.push(Object::Dict(vec![]))?;
                    self.set_items(&all)?;
                }
                0x85..=0x87 => {
                    let mut all: Vec<Id> = (0..code - 0x84).map(|_| self.pop()).collect::<Result<_>>()?;
                    all.reverse();
                    self.charge(all.len())?;
                    self.push(Object::Tuple(all))?;
                }
                b'a' => {
                    let value = self.pop()?;
                    self.charge(1)?;
                    self.append(&[value])?;
                }
                b'e' | 0x90 => {
                    let all = self.pop_mark()?;
                    self.append(&all)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.charge(2)?;
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let all = self.pop_mark()?;
                    self.set_items(&all)?;
                }
                b'p' | b'g' => match self.line()?.parse() {
                    Ok(key) if code == b'p' => self.put(key)?,
                    Ok(key) => self.recall(key)?,
                    Err(_) => return self.fail("a number that is none"),
                },
                b'q' | b'r' => {
                    let key = self.length(if code == b'q' { 1 } else { 4 })?;
                    self.put(key)?;
                }
                0x94 => {
                    let key = self.memo.len();
                    self.put(key)?;
                }
                b'h' | b'j' => {
                    let key = self.length(if code == b'h' { 1 } else { 4 })?;
                    self.recall(key)?;
                }
                _ => return self.fail("an instruction that is not known"),
            }
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_read() {
        // {"a": [1, -2, 2.5], "b": (None, True)} in protocol 2.
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffG@\x04\x00\x00\x00\x00\x00\x00eX\x01\x00\x00\x00bq\x03N\x88\x86q\x04u.";
        let p = read(bytes).expect("a pickle");
        let list = p.entry(p.root, "a").and_then(|a| p.elements(a)).expect("a list");
        assert_eq!((p.int(list[0]), p.int(list[1])), (Some(1), Some(-2)));
        assert!(matches!(p.get(list[2]), Object::Float(x) if *x == 2.5));
        let pair = p.entry(p.root, "b").and_then(|b| p.elements(b)).expect("a tuple");
        assert!(matches!((p.get(pair[0]), p.get(pair[1])), (Object::None, Object::Bool(true))));
    }

    #[test]
    fn calls_are_refused() {
        for attack in [
            &b"cos\nsystem\n(S'true'\ntR."[..],
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
            b"(ios\nsystem\n.",
            b"(cos\nsystem\nS'true'\no.",
            b"c__builtin__\neval\n)\x81.",
        ] {
            assert!(matches!(read(attack), Err(PickleError::Refused(_))), "{attack:?}");
        }
    }

    #[test]
    fn damage_is_an_error() {
        for bytes in [&b""[..], b".", b"(", b"t.", b"h\x00.", b"X\xff\xff\xff\x7fab", b"K\x01a.", b"\xff", b"]K\x01s."]
        {
            assert!(matches!(read(bytes), Err(PickleError::Damaged { .. })), "{bytes:?}");
        }
        let long = [b"(X\x58\x02\x00\x00".as_slice(), &[b'a'; 600], b"q\x000h\x00h\x00\x93."].concat();
        assert!(matches!(read(&long), Err(PickleError::Damaged { why, .. }) if why.contains("too long")));
        // A list, and many dictionaries and instances of what it holds.
        let mut many = [b"\x80\x02(".as_slice(), &b"N".repeat(2000), b"tq\x000"].concat();
        many.extend(b"ccollections\nOrderedDict\nq\x01h\x00\x85q\x020".iter());
        for call in [b"h\x01h\x02R0".as_slice(), b"h\x01h\x00\x810"] {
            let many = [many.as_slice(), &call.repeat(500), b"N."].concat();
            assert!(matches!(read(&many), Err(PickleError::TooLarge)), "{call:?}");
        }
        // A list that holds itself is fine, and is never walked without end.
        let circle = read(b"]q\x00h\x00a.").expect("a list");
        assert_eq!(circle.elements(circle.root).map(|v| v[0]), Some(circle.root));
    }
}
