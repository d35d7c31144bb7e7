//! Several functions in one package, which share their weights.

use crate::{
    Diagnostic, Failure, codes,
    convert::{self, Prepared},
    interface::{self, own_key},
    model::{self, Format, package_error},
    names::listed,
    ranges, stateful,
};
use indexmap::IndexMap;
use mlconv_coreml::{Package, import_beside, is_identifier};
use mlconv_mil::{
    ir::{Feature, Function, Meta, Module, Port},
    schema::Opset,
    verify::verify,
};
use mlconv_tensor::{DType, Type};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// What is to be merged.
#[derive(Clone, Debug)]
pub struct Job {
    /// The functions, at least one.
    pub parts: Vec<Part>,
    /// The one that runs where none is named; the first of `parts` where it is not said.
    pub default: Option<String>,
    /// The target; the least that will do where it is not said.
    pub opset: Option<Opset>,
}

/// A function of the package to be made, and the one that it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it will be called.
    pub name: String,
    /// The package that it is in.
    pub package: PathBuf,
    /// What it is called there; the default function where it is not said.
    pub function: Option<String>,
}

/// The key of metadata that says which version wrote a package, which is no difference between models.
const OWN_VERSION: &str = "com.github.mlconv.version";

impl Part {
    /// From `NAME=PACKAGE` or `NAME=PACKAGE:FUNCTION`. What is there as a whole is a package, whatever its name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("wanted NAME=PACKAGE, or NAME=PACKAGE:FUNCTION")?;
        if !is_identifier(name) {
            return Err(format!(
                "`{name}` is no name of a function: letters, digits and `_` are, but for reserved words"
            ));
        }
        let (package, function) = match rest.rsplit_once(':').filter(|_| !Path::new(rest).exists()) {
            Some((package, function)) => (package, Some(function.to_owned())),
            None => (rest, None),
        };
        Ok(Self { name: name.to_owned(), package: package.into(), function })
    }
}

/// Reads the parts and makes one package of them; nothing is written.
pub fn prepare(job: &Job) -> Result<Prepared, Failure> {
    let (order, several) = (order(job).map_err(|d| vec![d])?, job.parts.len() > 1);
    let (mut module, mut warnings) = (Module::default(), vec![]);
    let mut read: IndexMap<&Path, Module> = IndexMap::new();
    let (mut symbols, mut bad) = (BTreeSet::new(), vec![]);
    for part in order {
        if !read.contains_key(&*part.package) {
            let (package, notes) = package(&part.package, &mut symbols)?;
            warnings.extend(notes.into_iter().map(|d| d.within(part.package.display().to_string())));
            read.insert(&part.package, package);
        }
        match model::function(&read[&*part.package], part.function.as_deref()) {
            Ok(f) => {
                let meta = &read[&*part.package].meta;
                own_meta((meta, &mut module.meta), &f.name, several.then_some(part.name.as_str()));
                let mut f = f.clone();
                f.name.clone_from(&part.name);
                module.functions.push(f);
            }
            Err(d) => bad.push(d.at(part.package.display().to_string())),
        }
    }
    bad.extend(module.functions.iter().filter(|f| several && is_classifier(f)).map(|f| {
        let title = format!("`{}` is a classifier, which one function of several cannot be", f.name);
        Diagnostic::error(&codes::X0003, title).help("keep it in a package of its own")
    }));
    if !bad.is_empty() {
        return Err(bad);
    }
    for package in read.values() {
        package.symbols.iter().for_each(|(name, info)| module.symbols.set(name.clone(), info.clone()));
    }
    for package in read.values_mut() {
        package.meta.user.retain(|key, _| !OWN.iter().any(|own| key.starts_with(own)));
    }
    warnings.extend(join_meta(&mut module.meta, read.values().map(|m| &m.meta)));
    warnings.extend(settle_names(&mut module.functions));
    let source = verify(module.clone())?;
    warnings.extend(retarget(&mut module, job)?);
    let (module, package) = convert::package(module, &mut warnings)?;
    let source_ops = source.functions.iter().map(|f| f.all_ops().len()).sum();
    let ops = module.functions.iter().map(convert::op_count).sum();
    Ok(Prepared {
        outside: None,
        source,
        format: Format::Package,
        module,
        package,
        warnings,
        unapplied: vec![],
        kept: vec![],
        source_ops,
        ops,
        compression: None,
    })
}

/// The parts, the default one first.
fn order(job: &Job) -> Result<Vec<&Part>, Diagnostic> {
    let wrong = |title: String| Diagnostic::error(&codes::L0001, title);
    let names: Vec<&str> = job.parts.iter().map(|p| p.name.as_str()).collect();
    if let Some(twice) = names.iter().enumerate().find_map(|(i, n)| names[..i].contains(n).then_some(n)) {
        return Err(wrong(format!("two functions are to be called `{twice}`")).help("give each a name of its own"));
    }
    if let [part] = &job.parts[..]
        && part.name != "main"
    {
        let d = wrong(format!("the only function of a package is called `main`, and not `{}`", part.name));
        return Err(d.help(format!("`main={}` makes a package of it", part.package.display())));
    }
    let mut parts: Vec<&Part> = job.parts.iter().collect();
    if let Some(default) = &job.default {
        let at = parts.iter().position(|p| p.name == *default);
        let at = at.ok_or_else(|| {
            let d = wrong(format!("`--default {default}`: there is no function of that name"));
            d.help(format!("the functions are {}", listed(&names)))
        })?;
        parts[..=at].rotate_right(1);
    }
    Ok(parts)
}

/// The functions of a package, whose open sizes are called otherwise than those in `symbols`.
fn package(path: &Path, symbols: &mut BTreeSet<String>) -> Result<(Module, Vec<Diagnostic>), Failure> {
    let place = path.display().to_string();
    let format = model::format(path).map_err(|d| vec![d])?;
    if format != Format::Package {
        let title = format!("packages are merged, and this is a model of another format: {}", format.name());
        let d = Diagnostic::error(&codes::L0001, title).at(place);
        return Err(vec![d.help("make a package of it with `mlconv convert` before")]);
    }
    let bad = |e: mlconv_coreml::Error| vec![package_error(&e).within(place.clone())];
    let package = Package::read(path).map_err(bad)?;
    let (mut module, notes) = import_beside(&package, symbols).map_err(bad)?;
    ranges::recall(&mut module);
    Ok((module, notes))
}

/// Whether a function gives a label, which is no array.
fn is_classifier(f: &Function) -> bool {
    f.outputs().iter().zip(&f.sig.outputs).any(|(v, port)| match f.ty(*v) {
        Type::Dict { .. } => true,
        Type::Tensor(t) => port.feature == Feature::Tensor && matches!(t.dtype, DType::Str | DType::I64),
        _ => false,
    })
}

/// Keys of metadata that are about one function.
const OWN: &[&str] = &[interface::KEY, stateful::KEY];

/// Takes metadata that are about the function `from`, for that of the name `to` of several, or for the only one.
fn own_meta((of, out): (&Meta, &mut Meta), from: &str, to: Option<&str>) {
    for key in OWN {
        if let Some(value) = of.user.get(&own_key(key, from)).or(of.user.get(*key)) {
            let key = to.map_or_else(|| (*key).to_owned(), |to| own_key(key, to));
            out.user.insert(key, value.clone());
        }
    }
}

/// Takes metadata from the first that has them; a warning names those that differ.
fn join_meta<'a>(meta: &mut Meta, all: impl Iterator<Item = &'a Meta>) -> Option<Diagnostic> {
    let mut differ = BTreeSet::new();
    for other in all {
        let fields = [
            ("description", &mut meta.description, &other.description),
            ("author", &mut meta.author, &other.author),
            ("license", &mut meta.license, &other.license),
            ("version", &mut meta.version, &other.version),
        ];
        for (name, own, other) in fields {
            if own.is_empty() {
                own.clone_from(other);
            } else if !other.is_empty() && own != other {
                differ.insert(name.to_owned());
            }
        }
        for (key, value) in &other.user {
            let own = meta.user.entry(key.clone()).or_insert_with(|| value.clone());
            if own != value && key != OWN_VERSION {
                differ.insert(key.clone());
            }
        }
    }
    (!differ.is_empty()).then(|| {
        let title =
            format!("packages differ in {} of their metadata: that of the first function is kept", listed(differ));
        Diagnostic::warning(&codes::X0006, title)
    })
}

/// A package keeps the source's names of inputs and outputs by those in the package, for all functions together. Where they
/// are names of different things in the sources of two functions, those in the package are left.
fn settle_names(functions: &mut [Function]) -> Option<Diagnostic> {
    fn ports(f: &Function) -> impl Iterator<Item = &Port> {
        f.sig.inputs.iter().chain(&f.sig.outputs)
    }
    let packaged = |p: &Port| p.packaged.clone().unwrap_or_else(|| p.name.clone());
    let mut sources: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for port in functions.iter().flat_map(ports) {
        sources.entry(packaged(port)).or_default().insert(port.name.clone());
    }
    sources.retain(|_, names| names.len() > 1);
    for f in functions {
        for port in f.sig.inputs.iter_mut().chain(&mut f.sig.outputs) {
            let name = packaged(port);
            if sources.contains_key(&name) {
                (port.name, port.packaged) = (name, None);
            }
        }
    }
    let names = || sources.iter().map(|(name, of)| format!("`{name}`, for {}", listed(of))).collect::<Vec<_>>();
    (!sources.is_empty()).then(|| {
        let title = format!("functions differ in what their sources call an input or output: {}", names().join("; "));
        Diagnostic::warning(&codes::F0107, title)
            .help("in the new package these are only known by the names of the packages")
    })
}

/// Gives all functions one op set that holds them.
fn retarget(module: &mut Module, job: &Job) -> Result<Option<Diagnostic>, Failure> {
    let several = module.functions.len() > 1;
    let oldest = module.functions.iter().map(|f| f.opset).min().unwrap_or_default();
    let newest = module.functions.iter().map(|f| f.opset).max().unwrap_or_default();
    let needed = if several { newest.max(Opset::Ios18) } else { newest };
    let why = if needed > newest { "several functions in one package" } else { "one of the functions" };
    let opset = job.opset.unwrap_or(needed);
    if opset < needed {
        let title =
            format!("the target is {opset}, and {why} need {needed}").replace("functions need", "functions needs");
        return Err(vec![Diagnostic::error(&codes::X0003, title).help(format!("merge with `--target {needed}`"))]);
    }
    module.functions.iter_mut().for_each(|f| f.opset = opset);
    mlconv_passes::compress::upgrade(module).map_err(convert::fault)?;
    let raised = (job.opset.is_none() && oldest < needed).then(|| {
        Diagnostic::warning(&codes::C0101, format!("the target is raised from {oldest} to {needed}, for {why}"))
    });
    Ok(raised)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::text::parse;

    fn function(text: &str) -> Function {
        parse(text).unwrap_or_else(|e| panic!("{e}")).functions.remove(0)
    }

    #[test]
    fn parts_name_functions() {
        let part = |name: &str, package: &str, function: Option<&str>| {
            Ok(Part { name: name.to_owned(), package: package.into(), function: function.map(str::to_owned) })
        };
        assert_eq!(Part::parse("a=b.mlpackage"), part("a", "b.mlpackage", None));
        assert_eq!(Part::parse("a=b=c.mlpackage:main"), part("a", "b=c.mlpackage", Some("main")));
        for text in ["a", "=b", "1=b", "tensor=b", "a b=c"] {
            assert!(Part::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn classifiers_are_known() {
        let plain = function("func @main(%x: f32[2]) ios18 {\n  %y = relu(x=%x)\n  return %y\n}\n");
        assert!(!is_classifier(&plain));
        let text = "func @main(%x: f32[2]) ios18 {\n  %l, %p = classify(probabilities=%x, classes=[\"a\", \"b\"])\n  return %l, %p\n}\n";
        assert!(is_classifier(&function(text)));
    }

    #[test]
    fn names_of_sources_are_kept_where_they_agree() {
        let named = |source: &str, packaged: Option<&str>| {
            let mut f = function("func @main(%x: f32[2]) ios18 {\n  %y = relu(x=%x)\n  return %y\n}\n");
            f.sig.inputs[0] = Port { packaged: packaged.map(Into::into), ..Port::new(source) };
            f
        };
        let mut all = [named("x.1", Some("x_1")), named("x.1", Some("x_1"))];
        assert!(settle_names(&mut all).is_none());
        assert_eq!(&*all[1].sig.inputs[0].name, "x.1");
        let mut all = [named("x.1", Some("x_1")), named("x_1", None)];
        let d = settle_names(&mut all).expect("they differ");
        assert!(d.title.ends_with("`x_1`, for `x.1` and `x_1`"), "{d}");
        assert!(all.iter().all(|f| &*f.sig.inputs[0].name == "x_1" && f.sig.inputs[0].packaged.is_none()));
    }

    #[test]
    fn metadata_are_those_of_the_first() {
        let meta = |author: &str, key: &str| Meta {
            author: author.to_owned(),
            user: [("k".to_owned(), key.to_owned()), (OWN_VERSION.to_owned(), key.to_owned())].into(),
            ..Meta::default()
        };
        let mut joined = Meta::default();
        assert!(join_meta(&mut joined, [meta("", "1"), meta("b", "1")].iter()).is_none());
        assert_eq!(joined.author, "b");
        let mut joined = Meta::default();
        let d = join_meta(&mut joined, [meta("a", "1"), meta("b", "2")].iter()).expect("they differ");
        assert!(d.title.contains("`author` and `k` of their metadata"), "{d}");
        assert_eq!((joined.author.as_str(), joined.user["k"].as_str()), ("a", "1"));
    }
}
