//! What an archive of TorchScript holds: modules with their attributes, code, constants.

use super::{
    syntax::{self, Class, Code, Function},
    value::Item,
};
use crate::{
    archive::Archive,
    functional::Names,
    pickle::{self, Id, Object, Pickle},
    pt2::ReadError,
    saved::parts,
    storage::Storage,
};
use bytes::Bytes;
use mlconv_tensor::Tensor;
use std::{collections::HashMap, rc::Rc, sync::Arc};

type Result<T, E = ReadError> = std::result::Result<T, E>;

/// Nesting of containers beyond which an attribute is refused.
const MAX_NESTING: usize = 32;
/// Bytes that the name of an attribute may have: each key is part of the names of all that it leads to.
const MAX_NAME: usize = 1 << 12;
/// Parts of all attributes that are read: containers that hold one another many times come to much in few bytes.
const MAX_PARTS: usize = 1 << 20;

/// An archive of TorchScript.
pub(crate) struct Script {
    archive: Archive,
    data: Pickle,
    constants: Option<Pickle>,
    /// Code by its path, such as `__torch__.torch.nn.modules.linear`, read when it is needed.
    code: HashMap<String, Rc<Code>>,
    /// Tensors by the name that the graph has for them.
    pub(crate) tensors: HashMap<Arc<str>, Tensor>,
    storages: HashMap<(String, String), Bytes>,
    /// How many parts of containers were made; an object that is read twice counts twice.
    parts: usize,
    /// Names that values of the graph have.
    pub(super) names: Names,
    /// Names of tensors of the pickles by object: an object that is read twice is one tensor.
    named: HashMap<(bool, Id), Arc<str>>,
}

impl Script {
    pub(crate) fn open(mut archive: Archive) -> Result<Self> {
        let data = archive.read("data.pkl")?;
        let data = pickle::read(&data).map_err(|e| damaged("data.pkl", &e))?;
        let constants = if archive.has("constants.pkl") {
            let bytes = archive.read("constants.pkl")?;
            Some(pickle::read(&bytes).map_err(|e| damaged("constants.pkl", &e))?)
        } else {
            None
        };
        Ok(Self {
            archive,
            data,
            constants,
            code: HashMap::new(),
            tensors: HashMap::new(),
            storages: HashMap::new(),
            parts: 0,
            names: Names::default(),
            named: HashMap::new(),
        })
    }

    /// The module that the archive is of.
    pub(crate) fn root(&self) -> Id {
        self.data.root
    }

    /// The model's `forward`; of several, the first.
    pub(crate) fn forward(&mut self) -> Result<Rc<Function>> {
        let class = self.class_of(self.root());
        let Some(class) = class else { return Err(ReadError::Graph("the archive holds no module".to_owned())) };
        let found = match self.method(&class, "forward")? {
            None => self.method(&class, "forward__0")?,
            found => found,
        };
        found.ok_or_else(|| ReadError::Graph(format!("`{class}` has no method `forward`")))
    }

    /// The path of a module's class.
    pub(crate) fn class_of(&self, module: Id) -> Option<Rc<str>> {
        match self.data.get(module) {
            Object::Instance(class, _) => Some(class.clone()),
            _ => None,
        }
    }

    /// The names of a module's attributes.
    pub(crate) fn attributes(&self, module: Id) -> Vec<String> {
        let Object::Instance(_, Some(state)) = self.data.get(module) else { return vec![] };
        let pairs = self.data.pairs(*state).unwrap_or_default();
        pairs.iter().filter_map(|(k, _)| self.data.str(*k).map(str::to_owned)).collect()
    }

    /// An attribute of a module as the archive has it; `path` is that of the module in the model.
    pub(crate) fn attribute(&mut self, module: Id, name: &str, path: &str) -> Result<Option<Item>> {
        let Object::Instance(_, Some(state)) = self.data.get(module) else { return Ok(None) };
        let Some(value) = self.data.entry(*state, name) else { return Ok(None) };
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        self.item(false, value, &path, 0).map(Some)
    }

    /// The constant `c0`, `c1`, … of the code.
    pub(crate) fn constant(&mut self, index: usize) -> Result<Item> {
        let found = self.constants.as_ref().and_then(|p| p.elements(p.root)?.get(index).copied());
        match found {
            Some(id) => self.item(true, id, &format!("CONSTANTS.c{index}"), 0),
            None => Err(ReadError::Graph(format!("the code reads the constant c{index}, which is not there"))),
        }
    }

    fn item(&mut self, constant: bool, id: Id, path: &str, depth: usize) -> Result<Item> {
        if depth > MAX_NESTING {
            return Err(ReadError::Graph(format!("`{path}` is nested too deeply")));
        }
        if path.len() > MAX_NAME {
            return Err(ReadError::Graph("an attribute has a longer name than a model needs".to_owned()));
        }
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(ReadError::Graph(format!("`{path}` has more parts than a model needs")));
        }
        let Some(pickle) = (if constant { self.constants.as_ref() } else { Some(&self.data) }) else {
            return Ok(Item::None);
        };
        let elements = |ids: &[Id]| ids.to_vec();
        let object = match pickle.get(id) {
            Object::None => return Ok(Item::None),
            Object::Bool(b) => return Ok(Item::Bool(*b)),
            Object::Int(i) => return Ok(Item::Int(*i)),
            Object::Float(x) => return Ok(Item::Float(*x)),
            Object::Str(s) => return Ok(Item::Str(s.clone())),
            Object::Instance(..) => return Ok(Item::Module(id)),
            Object::Tuple(ids) => (true, elements(ids)),
            Object::List(ids) => (false, elements(ids)),
            Object::Call(f, _) if f.starts_with("torch.jit._pickle.build_") => {
                (false, elements(pickle.elements(id).unwrap_or_default()))
            }
            Object::Call(f, _) if f.starts_with("torch._utils._rebuild") => {
                return self.tensor(constant, id, path).map(Item::Tensor);
            }
            Object::Call(f, _) if &**f == "torch.device" => return Ok(Item::Memory),
            Object::Dict(pairs) => {
                let pairs = pairs.clone();
                let mut out = vec![];
                for (k, v) in pairs {
                    let key = self.item(constant, k, path, depth + 1)?;
                    let place = format!("{path}.{key}");
                    out.push((key, self.item(constant, v, &place, depth + 1)?));
                }
                return Ok(Item::Dict(Rc::new(std::cell::RefCell::new(out))));
            }
            other => return Err(ReadError::Graph(format!("`{path}` is {other:?}, which is not supported"))),
        };
        let (is_tuple, ids) = object;
        let mut items = vec![];
        for (i, id) in ids.into_iter().enumerate() {
            items.push(self.item(constant, id, &format!("{path}.{i}"), depth + 1)?);
        }
        Ok(if is_tuple { Item::Tuple(items.into()) } else { Item::list(items) })
    }

    /// The name of a tensor of a pickle, which is read where it was not yet.
    fn tensor(&mut self, constant: bool, id: Id, path: &str) -> Result<Arc<str>> {
        if let Some(name) = self.named.get(&(constant, id)) {
            return Ok(name.clone());
        }
        let folder = if constant { "constants" } else { "data" };
        let Some(pickle) = (if constant { self.constants.as_ref() } else { Some(&self.data) }) else {
            return Err(ReadError::Graph(format!("`{path}` is not there")));
        };
        let parts = parts(pickle, id).map_err(|why| ReadError::Weight { name: path.to_owned(), why })?;
        let key = (folder.to_owned(), parts.key.clone());
        let bytes = match self.storages.get(&key) {
            Some(bytes) => bytes.clone(),
            None => {
                let bytes = self.archive.read(&format!("{folder}/{}", parts.key))?;
                self.storages.insert(key, bytes.clone());
                bytes
            }
        };
        let room = self.archive.room();
        let t = Storage { bytes: &bytes, dtype: parts.dtype, room: &room }.tensor(
            &parts.sizes,
            &parts.strides,
            parts.offset,
        );
        let t = t.map_err(|why| ReadError::Weight { name: path.to_owned(), why })?;
        let mut name: Arc<str> = path.into();
        // An input may be called as an attribute is.
        while self.tensors.contains_key(&name) || !self.names.take(&name) {
            name = format!("{name}_").into();
        }
        self.tensors.insert(name.clone(), t);
        self.named.insert((constant, id), name.clone());
        Ok(name)
    }

    /// The code at a path; `None` where there is no such file.
    fn code(&mut self, path: &str) -> Result<Option<Rc<Code>>> {
        if let Some(code) = self.code.get(path) {
            return Ok(Some(code.clone()));
        }
        let entry = format!("code/{}.py", path.replace('.', "/"));
        if !self.archive.has(&entry) {
            return Ok(None);
        }
        let bytes = self.archive.read(&entry)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged(&entry, &"it is no text"))?;
        let code = Rc::new(syntax::parse(text).map_err(|e| damaged(&entry, &e))?);
        self.code.insert(path.to_owned(), code.clone());
        Ok(Some(code))
    }

    /// A class by its full path: a file for the folder, a class in it. Calls `found` with it.
    pub(crate) fn class<T>(&mut self, path: &str, found: impl FnOnce(&Class) -> T) -> Result<Option<T>> {
        let Some((file, name)) = path.rsplit_once('.') else { return Ok(None) };
        let code = self.code(file)?;
        Ok(code.as_ref().and_then(|c| c.classes.iter().find(|class| class.name == name)).map(found))
    }

    /// A function by its full path.
    pub(crate) fn function(&mut self, path: &str) -> Result<Option<Rc<Function>>> {
        let Some((file, name)) = path.rsplit_once('.') else { return Ok(None) };
        let code = self.code(file)?;
        Ok(code.as_ref().and_then(|c| c.functions.iter().find(|f| f.name == name)).cloned())
    }

    /// A method of a class.
    pub(crate) fn method(&mut self, class: &str, name: &str) -> Result<Option<Rc<Function>>> {
        let found = self.class(class, |c| c.methods.iter().find(|m| m.name == name).cloned())?;
        Ok(found.flatten())
    }
}

fn damaged(entry: &str, why: &dyn std::fmt::Display) -> ReadError {
    ReadError::Json { entry: entry.to_owned(), why: why.to_string() }
}
