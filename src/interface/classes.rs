//! Classifiers: an output that holds a score for each class becomes a label and a probability for each label.

use super::ports::{insert, output, refused};
use crate::{Diagnostic, codes, names::listed};
use mlconv_mil::{
    ir::{Feature, Function, Module, Place, Port, Value},
    ops::{Cast, Classify, Softmax},
    schema::Attr,
};
use mlconv_tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// The name of the output that is the label; that of the probabilities follows from it, as with Core ML's own tools.
const LABEL: &str = "classLabel";
const PROBABILITIES: &str = "classLabel_probs";

/// What a model classifies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classes {
    /// The output that holds a score for each class; `None` where there is only one.
    pub output: Option<String>,
    /// Whether the scores are made probabilities first.
    #[serde(default)]
    pub softmax: bool,
    /// The labels; they stand in the program, not beside it.
    #[serde(skip)]
    pub labels: Labels,
}

/// The labels of classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Labels {
    /// Texts.
    Texts(Vec<String>),
    /// Integers.
    Integers(Vec<i64>),
}

impl Labels {
    /// All as texts.
    pub fn into_texts(self) -> Vec<String> {
        match self {
            Self::Texts(texts) => texts,
            Self::Integers(integers) => integers.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::Texts(vec![])
    }
}

impl Labels {
    /// How each is written.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::Texts(texts) => texts.clone(),
            Self::Integers(integers) => integers.iter().map(ToString::to_string).collect(),
        }
    }

    fn attr(&self) -> Attr {
        match self {
            Self::Texts(texts) => Attr::Strs(texts.clone()),
            Self::Integers(integers) => Attr::Ints(integers.clone()),
        }
    }
}

/// The labels that a package has.
pub(super) fn of_package(package: &Module) -> Option<Labels> {
    match classes(package.functions.first()?)? {
        Attr::Strs(texts) => Some(Labels::Texts(texts.clone())),
        Attr::Ints(integers) => Some(Labels::Integers(integers.clone())),
        _ => None,
    }
}

/// What a function classifies, in the order of the probabilities.
pub(crate) fn classes(f: &Function) -> Option<&Attr> {
    f.ops().find_map(|id| f.op::<Classify>(id)).map(|op| &op.classes)
}

/// The place for what is computed at the end: nothing stands behind a `classify`.
pub(super) fn before_classify(f: &Function) -> Place {
    f.ops().find(|id| f.op::<Classify>(*id).is_some()).map_or(Place::End(f.body()), Place::Before)
}

impl Classes {
    /// Puts a label and probabilities in the place of the scores.
    pub(super) fn apply(&mut self, f: &mut Function) -> Result<Vec<Diagnostic>, Diagnostic> {
        const OPTION: &str = "--class-labels";
        if classes(f).is_some() {
            return Err(refused(OPTION, "the model has labels already"));
        }
        let at = output(f, OPTION, self.output.as_deref()).map_err(|d| match &self.output {
            None => Diagnostic { help: d.help.map(|h| format!("say it with `--class-output NAME`: {h}")), ..d },
            Some(_) => d,
        })?;
        let name = f.sig.outputs[at].name.to_string();
        let (mut v, texts) = (f.outputs()[at], self.labels.texts());
        let ty = f.ty(v).tensor().filter(|t| t.dtype.is_float() && t.shape.rank() > 0).cloned();
        let Some(ty) = ty else {
            return Err(refused(OPTION, &format!("`{name}` is {}, wanted a float for each class", f.ty(v))));
        };
        match ty.shape.count().as_usize() {
            Some(n) if n == texts.len() => {}
            Some(n) => {
                let why = format!("{} labels for `{name}`, which is {ty}: {n} scores", texts.len());
                return Err(refused(OPTION, &why));
            }
            None => {
                let d = refused(OPTION, &format!("`{name}` is {ty}, and the number of scores is open"));
                return Err(d.help("fix the sizes of inputs with `--input`"));
            }
        }
        if let Some(taken) =
            f.sig.inputs.iter().chain(&f.sig.outputs).find(|p| [LABEL, PROBABILITIES].contains(&&*p.name))
        {
            let d = refused(OPTION, &format!("the model has a `{}` itself", taken.name));
            return Err(d.help("rename it in the source"));
        }
        let end = Place::End(f.body());
        if ty.dtype != DType::F32 {
            v = insert(f, end, &name, Cast { x: v, dtype: DType::F32 })?;
        }
        if self.softmax {
            v = insert(f, end, &format!("{name}_softmax"), Softmax { x: v, axis: -1 })?;
        }
        let op = Classify { probabilities: v, classes: self.labels.attr() };
        let results = f.insert(end, &[LABEL, PROBABILITIES], Box::new(op), None).map_err(super::fault)?;
        let mut outputs: Vec<(Port, Value)> =
            [LABEL, PROBABILITIES].iter().map(|n| Port::new(*n)).zip(results.iter().copied()).collect();
        let others = f.sig.outputs.iter().cloned().zip(f.outputs().iter().copied()).enumerate();
        outputs.extend(others.filter(|(i, _)| *i != at).map(|(_, o)| o));
        f.set_outputs(outputs);
        self.output = Some(name);
        Ok(duplicates(&texts).into_iter().collect())
    }
}

/// Says that a label stands for several classes.
fn duplicates(texts: &[String]) -> Option<Diagnostic> {
    let mut seen = HashSet::new();
    let again: Vec<&String> = texts.iter().filter(|t| !seen.insert(t.as_str())).take(5).collect();
    let title = format!("{} stand for several classes, of which the probabilities have one", listed(&again));
    let d = Diagnostic::warning(&codes::F0107, title);
    (!again.is_empty()).then(|| d.help("make the labels distinct, such as by a number behind them"))
}

/// The label and the probability of each class, the best first, where `t` is the output `name` of `f` and holds them.
pub(crate) fn probabilities(f: &Function, name: &str, t: &Tensor) -> Option<Vec<(String, f64)>> {
    let (_, at) = label_and_probabilities(f)?;
    let labels = class_labels(f)?.into_texts();
    if &*f.sig.outputs[at].name != name || labels.len() != t.count() {
        return None;
    }
    let mut all: Vec<(String, f64)> = labels.into_iter().zip(t.to_f64()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    Some(all)
}

/// The labels of a classifier's classes.
pub(crate) fn class_labels(f: &Function) -> Option<Labels> {
    match classes(f)? {
        Attr::Strs(texts) => Some(Labels::Texts(texts.clone())),
        Attr::Ints(integers) => Some(Labels::Integers(integers.clone())),
        _ => None,
    }
}

/// Where among the outputs of a classifier its label and its probabilities are.
pub(crate) fn label_and_probabilities(f: &Function) -> Option<(usize, usize)> {
    let id = f.ops().find(|id| f.op::<Classify>(*id).is_some())?;
    let [label, probabilities] = f.op_data(id).results[..] else { return None };
    let at = |v: Value| f.outputs().iter().position(|o| *o == v);
    at(label).zip(at(probabilities)).filter(|(l, _)| f.sig.outputs[*l].feature == Feature::Tensor)
}
