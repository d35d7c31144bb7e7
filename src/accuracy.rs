//! How often a classifier is right: the number that users know a model by.

use crate::{Diagnostic, codes, compare::numbers::greatest, names::listed};
use mlconv_tensor::{DType, Dim, Tensor, TensorType};
use serde::Serialize;

/// The right class of each sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels(Vec<i64>);

/// How often two models are right about the same samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Accuracy {
    /// The output that holds a score for each class.
    pub output: String,
    /// Samples.
    pub samples: usize,
    /// Samples for which the source's greatest score is at the label.
    pub source_correct: usize,
    /// The same of the package.
    pub package_correct: usize,
    /// Samples for which both predict the same class.
    pub alike: usize,
}

impl Labels {
    /// Reads a vector of integers; trailing axes of one element are allowed.
    pub fn new(t: &Tensor) -> Result<Self, Diagnostic> {
        if !t.dtype().is_int() || t.shape().first().copied().unwrap_or(1) != t.count() {
            let found = format!("{}{:?}", t.dtype(), t.shape());
            return Err(Diagnostic::error(&codes::N0003, format!("labels are {found}, wanted a vector of integers")));
        }
        Ok(Self(t.to_i64()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// That of one sample.
    pub fn get(&self, sample: usize) -> Option<i64> {
        self.0.get(sample).copied()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// There must be one for each of `samples`.
    pub fn check(&self, samples: usize) -> Result<(), Diagnostic> {
        if self.len() == samples {
            return Ok(());
        }
        let d = Diagnostic::error(&codes::N0003, format!("{} labels for {samples} samples", self.len()));
        Err(d.help("the samples are the rows of the arrays that are given for the inputs"))
    }

    /// One of `outputs`, each with its type where that is a tensor's, must hold a score for each class, as far as that shows
    /// before a run; and each label must be one of its classes.
    pub fn check_outputs<'a>(
        &self,
        outputs: impl IntoIterator<Item = (&'a str, Option<&'a TensorType>)>,
    ) -> Result<(), Diagnostic> {
        let known: Option<Vec<_>> = outputs.into_iter().map(|(n, ty)| Some((n, fixed(ty?)?))).collect();
        let Some(known) = known else { return Ok(()) };
        let shapes = known.iter().map(|(name, (dtype, dims))| (*name, *dtype, dims.as_slice()));
        let at = choose(&shapes.collect::<Vec<_>>())?;
        let (_, (dtype, dims)) = &known[at];
        let classes = classes(*dtype, dims).unwrap_or(0);
        self.0.iter().enumerate().try_for_each(|(sample, label)| check_class(*label, sample, classes))
    }

    /// Each must be a class that `scores` are of.
    pub fn check_classes(&self, scores: &Tensor) -> Result<(), Diagnostic> {
        let classes = classes_of(scores).unwrap_or(0);
        self.0.iter().enumerate().try_for_each(|(sample, label)| check_class(*label, sample, classes))
    }
}

impl Accuracy {
    /// Chooses among `outputs`, which are those of one sample: the only one that holds a float score for each class,
    /// `[1, classes]` or `[classes]`.
    pub fn choose<'a>(outputs: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<usize, Diagnostic> {
        let shapes = outputs.into_iter().map(|(name, t)| (name, t.dtype(), t.shape()));
        choose(&shapes.collect::<Vec<_>>())
    }

    /// As [`Self::choose`], as far as that shows before a run; `None` where it does not.
    pub fn among<'a>(outputs: impl IntoIterator<Item = (&'a str, Option<&'a TensorType>)>) -> Option<usize> {
        let known: Option<Vec<_>> = outputs.into_iter().map(|(n, ty)| Some((n, fixed(ty?)?))).collect();
        let known = known?;
        let shapes: Vec<_> = known.iter().map(|(name, (dtype, dims))| (*name, *dtype, dims.as_slice())).collect();
        choose(&shapes).ok()
    }

    /// Counts one sample.
    pub fn count(&mut self, label: i64, source: &Tensor, package: &Tensor) -> Result<(), Diagnostic> {
        check_class(label, self.samples, classes_of(package).unwrap_or(0))?;
        let (before, after) = (predicted(source), predicted(package));
        self.samples += 1;
        self.source_correct += usize::from(before == Some(label));
        self.package_correct += usize::from(after == Some(label));
        self.alike += usize::from(before == after);
        Ok(())
    }
}

fn check_class(label: i64, sample: usize, classes: usize) -> Result<(), Diagnostic> {
    if usize::try_from(label).is_ok_and(|l| l < classes) {
        return Ok(());
    }
    let title = format!("label {label} of sample {sample} is none of the {classes} classes");
    Err(Diagnostic::error(&codes::N0003, title))
}

/// A type, where its shape is known.
fn fixed(ty: &TensorType) -> Option<(DType, Vec<usize>)> {
    let dims: Option<Vec<usize>> = ty.shape.iter().map(Dim::as_usize).collect();
    Some((ty.dtype, dims?))
}

/// The only one of `outputs` that holds a float score for each class.
fn choose(outputs: &[(&str, DType, &[usize])]) -> Result<usize, Diagnostic> {
    let scores: Vec<usize> = (0..outputs.len()).filter(|i| classes(outputs[*i].1, outputs[*i].2).is_some()).collect();
    let names = |at: &[usize]| listed(at.iter().map(|i| outputs[*i].0));
    match scores.as_slice() {
        [one] => Ok(*one),
        [] => {
            let title = "no output holds a score for each class, a float of shape [1, classes]";
            let all: Vec<usize> = (0..outputs.len()).collect();
            Err(Diagnostic::error(&codes::N0003, title).help(format!("the outputs are {}", names(&all))))
        }
        several => {
            let title = format!("labels could be about {}", names(several));
            Err(Diagnostic::error(&codes::N0003, title).help("convert with `--output` to keep one of them"))
        }
    }
}

/// The number of classes that a tensor of this type holds one sample's scores for.
fn classes(dtype: DType, shape: &[usize]) -> Option<usize> {
    match shape {
        [1, n] | [n] if *n > 1 && dtype.is_float() => Some(*n),
        _ => None,
    }
}

fn classes_of(t: &Tensor) -> Option<usize> {
    classes(t.dtype(), t.shape())
}

/// The first class of the greatest score; none where a score is not a number.
fn predicted(scores: &Tensor) -> Option<i64> {
    i64::try_from(greatest(&scores.to_f64())?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(values: &[f32]) -> Tensor {
        Tensor::from_vec(&[1, values.len()], values.to_vec())
    }

    #[test]
    fn the_first_of_the_greatest_scores_is_predicted() {
        assert_eq!(predicted(&scores(&[0.5, 2.0, 2.0])), Some(1));
        assert_eq!(predicted(&scores(&[f32::NEG_INFINITY, -1.0])), Some(1));
        assert_eq!(predicted(&scores(&[0.5, f32::NAN])), None);
    }

    #[test]
    fn both_models_are_counted() {
        let mut a = Accuracy::default();
        a.count(1, &scores(&[0.0, 1.0]), &scores(&[1.0, 0.0])).expect("a class");
        a.count(1, &scores(&[0.0, 1.0]), &scores(&[0.0, 1.0])).expect("a class");
        assert_eq!((a.samples, a.source_correct, a.package_correct, a.alike), (2, 2, 1, 1));
        for label in [-1, 2] {
            let e = a.count(label, &scores(&[0.0, 1.0]), &scores(&[0.0, 1.0])).expect_err("no class");
            assert_eq!(e.title, format!("label {label} of sample 2 is none of the 2 classes"));
        }
    }

    #[test]
    fn one_output_holds_scores_or_the_user_must_say() {
        let (a, b) = (scores(&[0.0, 1.0]), Tensor::from_vec(&[1, 2, 2], vec![0f32; 4]));
        assert_eq!(Accuracy::choose([("features", &b), ("logits", &a)]).ok(), Some(1));
        let none = Accuracy::choose([("features", &b)]).expect_err("no scores");
        assert_eq!(none.help.as_deref(), Some("the outputs are `features`"));
        let two = Accuracy::choose([("x", &a), ("y", &a)]).expect_err("two");
        assert_eq!(two.title, "labels could be about `x` and `y`");
    }

    #[test]
    fn labels_are_a_vector_of_integers() {
        let labels = Labels::new(&Tensor::from_vec(&[2, 1], vec![3i64, 4])).expect("a column");
        assert!(labels.len() == 2 && !labels.is_empty() && labels.check(3).is_err());
        assert!(labels.check_classes(&scores(&[0.0; 5])).is_ok());
        let e = labels.check_classes(&scores(&[0.0; 4])).expect_err("4 is none of 4");
        assert_eq!(e.title, "label 4 of sample 1 is none of the 4 classes");
        assert!(Labels::new(&Tensor::from_vec(&[2], vec![3f32, 4.0])).is_err());
        assert!(Labels::new(&Tensor::from_vec(&[2, 2], vec![0i32; 4])).is_err());
    }
}
