//! Files of settings: a tree of values that know their places, whatever the syntax, and access to it that says what is
//! wrong, where, and what would be right.

pub(crate) mod toml;
mod yaml;

use crate::{
    Diagnostic, codes,
    names::{listed, nearest},
};
use mlconv_mil::diagnostic::Code;
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// Bytes that a file of settings may have: far more than a person writes, and few enough to keep in memory.
const MAX_BYTES: u64 = 4 << 20;

/// A file of settings.
pub(crate) struct Settings {
    path: PathBuf,
    text: String,
    code: &'static Code,
    root: Node,
}

/// The syntax of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Syntax {
    Toml,
    /// JSON is a part of it.
    Yaml,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    value: Value,
    at: At,
}

/// A place in a text, from 1; columns count characters. 0 where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct At {
    line: usize,
    column: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq)]
struct Key {
    name: String,
    at: At,
}

/// Why a text cannot be parsed.
struct SyntaxError {
    why: String,
    at: At,
}

impl Settings {
    /// Reads a file; whatever is wrong with it is of kind `code`.
    pub(crate) fn read(path: &Path, syntax: Syntax, code: &'static Code) -> Result<Self, Diagnostic> {
        let failed = |why: &str| Diagnostic::error(&codes::R0001, why).at(path.display().to_string());
        let mut bytes = vec![];
        let file = File::open(path).map_err(|e| failed(&e.to_string()))?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| failed(&e.to_string()))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(failed(&format!("a file of settings has at most {MAX_BYTES} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| failed("the file is no text in UTF-8"))?;
        Self::parse(path, text, syntax, code)
    }

    /// Parses the text of a file.
    pub(crate) fn parse(path: &Path, text: String, syntax: Syntax, code: &'static Code) -> Result<Self, Diagnostic> {
        let parsed = match syntax {
            Syntax::Toml => toml::parse(&text),
            Syntax::Yaml => yaml::parse(&text),
        };
        let empty = Node { value: Value::Null, at: At::default() };
        let mut settings = Self { path: path.to_path_buf(), text, code, root: empty };
        match parsed {
            Ok(root) => {
                settings.root = root;
                Ok(settings)
            }
            Err(e) => Err(settings.wrong(e.at, &e.why)),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that the file says.
    pub(crate) fn root(&self) -> Field<'_> {
        Field { file: self, path: String::new(), node: &self.root }
    }

    fn wrong(&self, at: At, why: &str) -> Diagnostic {
        let file = self.path.display();
        if at.line == 0 {
            return Diagnostic::error(self.code, why).at(file.to_string());
        }
        let d = Diagnostic::error(self.code, why).at(format!("{file}:{}:{}", at.line, at.column));
        let Some(line) = self.text.lines().nth(at.line - 1).filter(|l| l.len() <= 200) else { return d };
        let start = line.char_indices().nth(at.column.saturating_sub(1)).map_or(line.len(), |(i, _)| i);
        let word = line[start..].find(|c: char| c.is_whitespace() || ",]}:=".contains(c)).unwrap_or(line.len() - start);
        d.snippet(line, start..start + word)
    }
}

/// A value of a file, and the keys that lead to it.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    file: &'a Settings,
    /// Such as `global_config.nbits`.
    path: String,
    node: &'a Node,
}

/// A table whose keys are known.
pub(crate) struct Table<'a> {
    field: Field<'a>,
    entries: &'a [(Key, Node)],
}

impl<'a> Field<'a> {
    /// A diagnostic about this value: `why` follows its path.
    pub(crate) fn wrong(&self, why: &str) -> Diagnostic {
        let why = if self.path.is_empty() { why.to_owned() } else { format!("`{}`: {why}", self.path) };
        self.file.wrong(self.node.at, &why)
    }

    fn unlike(&self, want: &str) -> Diagnostic {
        let found = match &self.node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(b) => b.to_string(),
            Value::Int(i) => i.to_string(),
            Value::Float(f) => f.to_string(),
            Value::Text(t) => format!("the text `{}`", t.chars().take(60).collect::<String>()),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        };
        self.wrong(&format!("found {found}, wanted {want}"))
    }

    pub(crate) fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    pub(crate) fn is_table(&self) -> bool {
        matches!(self.node.value, Value::Table(_))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(crate) fn bool(&self) -> Result<bool, Diagnostic> {
        match self.node.value {
            Value::Bool(b) => Ok(b),
            _ => Err(self.unlike("true or false")),
        }
    }

    pub(crate) fn text(&self) -> Result<&'a str, Diagnostic> {
        match &self.node.value {
            Value::Text(t) => Ok(t),
            _ => Err(self.unlike("a text")),
        }
    }

    /// A whole number that `fits`, as `want` says in words.
    pub(crate) fn int(&self, want: &str, fits: impl Fn(i64) -> bool) -> Result<i64, Diagnostic> {
        let found = match self.node.value {
            Value::Int(i) => Some(i),
            // 4.0 is as good as 4.
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 2e9 => Some(f as i64),
            _ => None,
        };
        found.filter(|i| fits(*i)).ok_or_else(|| self.unlike(want))
    }

    /// A whole number of at least `least`.
    pub(crate) fn size(&self, least: usize) -> Result<usize, Diagnostic> {
        let want = format!("a whole number of at least {least}");
        let fits = |i| usize::try_from(i).is_ok_and(|i| i >= least);
        self.int(&want, fits).map(|i| i as usize)
    }

    /// A number that `fits`, as `want` says in words.
    pub(crate) fn number(&self, want: &str, fits: impl Fn(f64) -> bool) -> Result<f64, Diagnostic> {
        let found = match self.node.value {
            Value::Int(i) => Some(i as f64),
            Value::Float(f) => Some(f),
            _ => None,
        };
        found.filter(|f| fits(*f)).ok_or_else(|| self.unlike(want))
    }

    /// What the text stands for, among those that there are.
    pub(crate) fn one_of<T: Clone>(&self, all: &[(&str, T)]) -> Result<T, Diagnostic> {
        let names = || all.iter().map(|(name, _)| *name);
        let Value::Text(text) = &self.node.value else { return Err(self.unlike(&any_of(names()))) };
        let found = all.iter().find(|(name, _)| name == text).map(|(_, value)| value.clone());
        found.ok_or_else(|| {
            let d = self.unlike(&any_of(names()));
            match nearest(text, names()) {
                Some(meant) => d.help(format!("`{meant}` may be meant")),
                None => d,
            }
        })
    }

    pub(crate) fn list(&self) -> Result<Vec<Field<'a>>, Diagnostic> {
        let Value::List(nodes) = &self.node.value else { return Err(self.unlike("a list")) };
        let one = |(i, node)| Field { file: self.file, path: format!("{}[{i}]", self.path), node };
        Ok(nodes.iter().enumerate().map(one).collect())
    }

    /// A table of any keys, in the order of the file.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Field<'a>)>, Diagnostic> {
        let Value::Table(entries) = &self.node.value else { return Err(self.unlike("a table")) };
        Ok(entries.iter().map(|(key, node)| (key.name.as_str(), self.child(&key.name, node))).collect())
    }

    /// A table of no other keys than `known`.
    pub(crate) fn table(&self, known: &[&str]) -> Result<Table<'a>, Diagnostic> {
        if self.is_null() && self.path.is_empty() {
            return Err(self.wrong("the file is empty").help(format!("there are {}", listed(known))));
        }
        let Value::Table(entries) = &self.node.value else { return Err(self.unlike("a table")) };
        if let Some((key, _)) = entries.iter().find(|(key, _)| !known.contains(&key.name.as_str())) {
            let whole = self.child(&key.name, self.node).path;
            let d = self.file.wrong(key.at, &format!("`{whole}` is no key"));
            let help = match nearest(&key.name, known.iter().copied()) {
                Some(meant) => format!("`{meant}` may be meant; "),
                None => String::new(),
            };
            return Err(d.help(format!("{help}there are {}", listed(known))));
        }
        Ok(Table { field: self.clone(), entries })
    }

    fn child(&self, key: &str, node: &'a Node) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Field { file: self.file, path, node }
    }
}

impl<'a> Table<'a> {
    /// The value of a key, if there is one.
    pub(crate) fn get(&self, key: &str) -> Option<Field<'a>> {
        let (key, node) = self.entries.iter().find(|(k, _)| k.name == key)?;
        Some(self.field.child(&key.name, node))
    }

    /// The value of a key, if there is one and it is not null.
    pub(crate) fn some(&self, key: &str) -> Option<Field<'a>> {
        self.get(key).filter(|f| !f.is_null())
    }

    /// A diagnostic about the table as a whole.
    pub(crate) fn wrong(&self, why: &str) -> Diagnostic {
        self.field.wrong(why)
    }
}

/// `a`, `b` or `c`, each in backticks.
fn any_of<'s>(names: impl Iterator<Item = &'s str>) -> String {
    let all = listed(names);
    match all.rsplit_once(" and ") {
        Some((most, last)) => format!("{most} or {last}"),
        None => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, syntax: Syntax) -> Result<Settings, Diagnostic> {
        Settings::parse(Path::new("f"), text.to_owned(), syntax, &codes::L0001)
    }

    fn place(d: &Diagnostic) -> String {
        d.place.join(", ")
    }

    #[test]
    fn both_syntaxes_say_the_same() {
        let yaml = parse("a: 1\nb: [x, 2.5, true]\nc:\n  d: null\n  e: {}\n", Syntax::Yaml);
        let yaml = yaml.unwrap_or_else(|d| panic!("{d}"));
        let toml = parse("a = 1\nb = ['x', 2.5, true]\n[c]\n", Syntax::Toml).unwrap_or_else(|d| panic!("{d}"));
        for s in [&yaml, &toml] {
            let t = s.root().table(&["a", "b", "c"]).unwrap_or_else(|d| panic!("{d}"));
            let b = t.get("b").and_then(|b| b.list().ok()).expect("a list");
            assert_eq!(t.get("a").map(|a| a.size(1)), Some(Ok(1)));
            assert_eq!(b[0].text(), Ok("x"));
            assert_eq!(b[1].number("", |_| true), Ok(2.5));
            assert_eq!(b[2].bool(), Ok(true));
            assert_eq!(b[2].wrong("no").title, "`b[2]`: no");
        }
        let json = parse("{\"a\": {\"b\": [1, -2e3, \"x\\n\"]}}", Syntax::Yaml).unwrap_or_else(|d| panic!("{d}"));
        let list = json.root().entries().expect("a table")[0].1.entries().expect("a table")[0].1.list();
        assert!(
            list.expect("a list")[0].text().expect_err("a number").title.contains("`a.b[0]`: found 1, wanted a text")
        );
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (text, syntax, want) in [
            ("a: 1\nbb: 2\n", Syntax::Yaml, "f:2:1"),
            ("a = 1\n\n  bb = 2\n", Syntax::Toml, "f:3:3"),
            ("{\n \"a\": 1, \"bb\": 2}", Syntax::Yaml, "f:2:10"),
        ] {
            let s = parse(text, syntax).unwrap_or_else(|d| panic!("{d}"));
            let d = s.root().table(&["a", "b"]).err().expect("an unknown key");
            assert_eq!(place(&d), want);
            assert!(d.to_string().contains("`b` may be meant; there are `a` and `b`"), "{d}");
        }
        for (text, syntax, want) in [
            ("a: [1\n", Syntax::Yaml, "f:"),
            ("a: 1\na: 2\n", Syntax::Yaml, "f:2:1"),
            ("a: *b\n", Syntax::Yaml, "f:1:4"),
            ("a = \n", Syntax::Toml, "f:1:5"),
            ("a = 1\na = 2\n", Syntax::Toml, "f:2:1"),
            ("a = 99999999999999999999\n", Syntax::Toml, "f:1:5"),
        ] {
            let d = parse(text, syntax).err().unwrap_or_else(|| panic!("{text} is wrong"));
            assert!(place(&d).starts_with(want), "{text}: {d}");
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let last = format!("*a{}, ", i - 1).repeat(9);
            aliases += &format!("a{i}: &a{i} [{}]\n", last.trim_end_matches(", "));
        }
        assert!(parse(&aliases, Syntax::Yaml).is_err());
        for syntax in [Syntax::Yaml, Syntax::Toml] {
            let head = if matches!(syntax, Syntax::Toml) { "a = " } else { "a: " };
            assert!(parse(&format!("{head}{}", "[".repeat(100_000)), syntax).is_err());
            let closed = format!("{head}{}{}", "[".repeat(5000), "]".repeat(5000));
            assert!(parse(&closed, syntax).is_err());
        }
        assert!(parse(&format!("{}a", "- ".repeat(100_000)), Syntax::Yaml).is_err());
    }

    #[test]
    fn damaged_texts_are_no_fault() {
        let yaml = "config_type: &a OpPalettizerConfig # é\nglobal_config: {mode: 'kmeans', n: [1, 2.5]}\nb: *a\n";
        let toml = "a = 'é'\n[b.c]\nd = [1, { x = 2 }]\n[[e]]\nf = \"\\u00e9\"\n";
        for (text, syntax) in [(yaml, Syntax::Yaml), (toml, Syntax::Toml)] {
            let chars: Vec<char> = text.chars().collect();
            for i in 0..chars.len() {
                let cut: String = chars[..i].iter().collect();
                for insert in ["", "{", "\"", "\t", "\u{0}", "é", ": ", "\n  "] {
                    let broken: String = format!("{cut}{insert}{}", chars[i..].iter().collect::<String>());
                    for text in [format!("{cut}{insert}"), broken] {
                        let _ = parse(&text, syntax).map(|s| s.root().table(&[]).err().map(|d| d.to_string()));
                    }
                }
            }
        }
    }
}
