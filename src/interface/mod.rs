//! The interface that a package is to have, where it is another one than the source's: images, labels of classes, inputs that
//! may be left out, names, and element types.
//!
//! An [`Interface`] is a value; [`Interface::apply`] rewrites a module to it. What it changes of values are ops, so that the
//! source of a comparison and the package have the same. What was asked for stays in the package's metadata, so that
//! the package can be compared later.

mod agreement;
mod classes;
mod image;
mod outside;
mod pixels;
mod ports;

pub use classes::{Classes, Labels};
pub(crate) use classes::{class_labels, label_and_probabilities, probabilities};
pub use image::{Image, Layout};
pub use outside::Outside;
pub use ports::Floats;

use crate::{
    Diagnostic, Failure,
    arrays::Arrays,
    codes, pictures,
    ranges::{self, Declared},
};
use mlconv_mil::ir::{Function, InsertError, Module};
use mlconv_tensor::{DType, Symbols, Tensor};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The key of a package's metadata under which stands what was asked for, as JSON of an [`Interface`].
pub(crate) const KEY: &str = "com.github.mlconv.interface";

/// What is asked of the interface. Names are the source's, or those of a package that is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Inputs that are images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// Outputs that are images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output_images: Vec<(String, Layout)>,
    /// The labels of classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
    /// Inputs that may be left out, each with the value that all of its elements have then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub optional: Vec<(String, f64)>,
    /// Other names of inputs and outputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub renamed: Vec<(String, String)>,
    /// The element type of all inputs and outputs that are arrays of floats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floats: Option<Floats>,
    /// What inputs are said to hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Declared>,
}

/// What applying an interface gives, beside the module.
#[derive(Debug, Default)]
pub struct Applied {
    /// What a user should know.
    pub notes: Vec<Diagnostic>,
    /// What stands between the new interface and the old one; nothing where they are the same.
    pub outside: Option<Outside>,
}

impl Interface {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Rewrites every function of `module`, and writes down in its metadata what was asked for.
    pub fn apply(&self, module: &mut Module) -> Result<Applied, Failure> {
        if self.is_empty() {
            return Ok(Applied::default());
        }
        if self.classes.is_some() && module.functions.len() > 1 {
            let title = "`--class-labels`: Core ML has no classifiers of several functions";
            return Err(vec![Diagnostic::error(&codes::L0001, title)]);
        }
        let (bare, mut done) = (module.clone(), self.clone());
        let (mut notes, mut bad) = (vec![], vec![]);
        let several = module.functions.len() > 1;
        for f in &mut module.functions {
            let before = bad.len();
            bad.extend(done.on_inputs(f).err());
            if bad.is_empty() {
                match done.on_outputs(f) {
                    Ok(said) => notes.extend(said),
                    Err(d) => bad.push(d),
                }
            }
            bad.extend(ports::rename(f, &self.renamed));
            if bad.is_empty() {
                bad.extend(self.renamed.iter().filter_map(|(old, new)| ports::check_renamed(f, old, new).err()));
            }
            for d in bad.iter_mut().skip(before).filter(|_| several) {
                d.place.push(format!("function `{}`", f.name));
            }
        }
        if !bad.is_empty() {
            return Err(bad);
        }
        done.ranges = ranges::declare(module, &done.ranges).map_err(|d| vec![d])?;
        // What is said of inputs does not change them.
        let changes = done != Self { ranges: done.ranges.clone(), ..Self::default() };
        let outside = changes.then(|| Outside::new(&bare, &done)).transpose()?;
        record(module, &done);
        Ok(Applied { notes, outside })
    }

    /// Changes the inputs of a function; names that were left out are known then.
    fn on_inputs(&mut self, f: &mut Function) -> Result<(), Diagnostic> {
        let mut optional = vec![];
        for (name, value) in &self.optional {
            let at = ports::optional(f, name, *value)?;
            if optional.contains(&at) {
                return Err(ports::refused(&format!("--optional {name}"), "it is given twice for this input"));
            }
            optional.push(at);
        }
        if !self.optional.is_empty() {
            ports::check_one_is_needed(f)?;
        }
        for image in &mut self.images {
            image.apply(f)?;
        }
        self.floats.map_or(Ok(()), |floats| floats.of_inputs(f))
    }

    /// Changes the outputs of a function; names that were left out are known then.
    fn on_outputs(&mut self, f: &mut Function) -> Result<Vec<Diagnostic>, Diagnostic> {
        let notes = self.classes.as_mut().map_or(Ok(vec![]), |classes| classes.apply(f))?;
        for (name, layout) in &self.output_images {
            pixels::of_output(f, name, *layout)?;
        }
        self.floats.map_or(Ok(()), |floats| floats.of_outputs(f))?;
        Ok(notes)
    }

    /// What was asked for when a package was written, by its first function.
    pub fn recorded(package: &Module) -> Self {
        package.functions.first().map(|f| Self::recorded_of(package, f)).unwrap_or_default()
    }

    /// What was asked for when the function of a package was written.
    pub(crate) fn recorded_of(package: &Module, f: &Function) -> Self {
        let text = own_text(package, f, KEY);
        let mut found: Self = text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
        if let Some(classes) = &mut found.classes {
            match classes::of_package(package) {
                Some(labels) => classes.labels = labels,
                None => found.classes = None,
            }
        }
        found
    }

    /// What is left to do where `done` is done.
    #[must_use]
    pub fn beyond(mut self, done: &Self) -> Self {
        self.images.retain(|i| !done.images.contains(i));
        self.output_images.retain(|o| !done.output_images.contains(o));
        self.optional.retain(|o| !done.optional.contains(o));
        self.renamed.retain(|r| !done.renamed.contains(r));
        self.classes = self.classes.filter(|_| done.classes.is_none());
        self.floats = self.floats.filter(|f| done.floats != Some(*f));
        self.ranges.retain(|r| !done.ranges.contains(r));
        self
    }

    /// What both ask for; where they speak of the same, `self` counts.
    #[must_use]
    pub fn over(mut self, other: Self) -> Self {
        fn add<T>(own: &mut Vec<T>, theirs: Vec<T>, same: impl Fn(&T, &T) -> bool) {
            let new: Vec<T> = theirs.into_iter().filter(|t| !own.iter().any(|o| same(o, t))).collect();
            own.splice(0..0, new);
        }
        add(&mut self.images, other.images, |a, b| a.name.is_none() || a.name == b.name);
        add(&mut self.output_images, other.output_images, |a, b| a.0 == b.0);
        add(&mut self.optional, other.optional, |a, b| a.0 == b.0);
        add(&mut self.renamed, other.renamed, |a, b| a.0 == b.0);
        add(&mut self.ranges, other.ranges, |a, b| a.name == b.name);
        self.classes = self.classes.or(other.classes);
        self.floats = self.floats.or(other.floats);
        self
    }

    /// `samples` as a reader needs them that takes shapes from them: a picture has the shape that its input has, and of an
    /// array of `rows`, where it is known how many samples there are, one is left.
    pub fn shaped<'a>(&self, samples: &'a Arrays, rows: Option<usize>) -> Cow<'a, Arrays> {
        let mut out = Cow::Borrowed(samples);
        for (name, t) in samples.iter().filter(|(_, t)| rows.is_some() && t.shape().first() == rows.as_ref()) {
            if let Some(first) = t.rows(0..1) {
                out.to_mut().insert(name.clone(), first);
            }
        }
        for image in &self.images {
            let (name, of_one) = (image.name.as_deref(), image.name.is_none() && samples.len() == 1);
            let at = samples.keys().position(|k| of_one || name == Some(k.as_str()));
            let Some((key, picture)) = at.and_then(|at| samples.get_index(at)) else { continue };
            let Some([height, width, channels]) = pictures::size(picture) else { continue };
            let shape = [1, image.layout.map_or(channels, Layout::channels), height, width];
            out.to_mut().insert(key.clone(), Tensor::splat(DType::F32, &shape, 0.0));
        }
        out
    }
}

/// The key of metadata that are about one function of several.
pub(crate) fn own_key(key: &str, function: &str) -> String {
    format!("{key}.{function}")
}

/// What stands under a key about a function of a package: functions that were merged have each its own.
pub(crate) fn own_text<'a>(package: &'a Module, f: &Function, key: &str) -> Option<&'a String> {
    package.meta.user.get(&own_key(key, &f.name)).or(package.meta.user.get(key))
}

/// Writes down what was asked for, with what was before.
fn record(module: &mut Module, done: &Interface) {
    let before = module.meta.user.get(KEY).and_then(|t| serde_json::from_str(t).ok());
    let all = done.clone().over(before.unwrap_or_default());
    if let Ok(text) = serde_json::to_string(&all) {
        module.meta.user.insert(KEY.to_owned(), text);
    }
}

/// A fault of an op that this module makes.
fn fault(e: InsertError) -> Diagnostic {
    Diagnostic::error(&codes::P0001, e.to_string())
}

/// A module of one function.
fn module_of(f: Function, symbols: Symbols) -> Module {
    Module { functions: vec![f], symbols, ..Module::default() }
}
