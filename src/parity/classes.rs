//! The labels that a classifier returns: those of both models must be the same, and so must be what is said of a sample, unless
//! two classes are as good as each other.

use crate::{
    compare::{Kind, OutputDiff, Tolerance},
    interface::{Labels, class_labels, label_and_probabilities},
};
use mlconv_mil::ir::Function;
use mlconv_tensor::Tensor;

/// The classes of a package.
pub(super) struct Classes {
    /// Where its label is among the outputs.
    pub(super) label: usize,
    /// Where its probabilities are.
    probabilities: usize,
    labels: Labels,
    /// How its labels differ from the source's.
    pub(super) differ: Option<String>,
}

impl Classes {
    /// Those of `g`, beside the labels of what it comes from, if that is a classifier.
    pub(super) fn of(g: &Function, source: Option<&Labels>) -> Option<Self> {
        let ((label, probabilities), labels) = label_and_probabilities(g).zip(class_labels(g))?;
        let differ = source.and_then(|source| differ(source, &labels));
        Some(Self { label, probabilities, labels, differ })
    }

    /// Those of `g` beside those of `f`.
    pub(super) fn beside(f: &Function, g: &Function) -> Option<Self> {
        Self::of(g, class_labels(f).as_ref())
    }

    /// Judges the label of one call: `d` with what was wanted and with all that the package gave.
    pub(super) fn judged(
        &self,
        d: OutputDiff,
        want: &Tensor,
        got: &[Tensor],
        (tolerance, kinds): (&Tolerance, &[Kind]),
    ) -> OutputDiff {
        // How often the best class may change is what is asked of the probabilities.
        let is_scores = |k: &Kind| matches!(k, Kind::Logits | Kind::Probabilities);
        if tolerance.min_top1.is_some() && kinds.get(self.probabilities).is_some_and(is_scores) {
            return d.forgiven().unbounded();
        }
        let tie = got.get(self.probabilities).is_some_and(|p| self.is_tie(want, &p.to_f64(), tolerance));
        if tie { d.forgiven() } else { d }
    }

    /// Whether the package's probability of the wanted label is its greatest, as far as the tolerance tells them apart.
    fn is_tie(&self, want: &Tensor, probabilities: &[f64], tolerance: &Tolerance) -> bool {
        let is_wanted: Vec<bool> = match (&self.labels, want.to_text()) {
            (Labels::Texts(all), Some(want)) => all.iter().map(|l| *l == want).collect(),
            (Labels::Integers(all), None) if want.dtype().is_int() => {
                let want = want.to_i64();
                all.iter().map(|l| want.first() == Some(l)).collect()
            }
            _ => return false,
        };
        let most = |all: &mut dyn Iterator<Item = f64>| all.fold(f64::NEG_INFINITY, f64::max);
        let greatest = most(&mut probabilities.iter().copied());
        let of_label = most(&mut probabilities.iter().zip(is_wanted).filter(|(_, is)| *is).map(|(p, _)| *p));
        let norm = probabilities.iter().map(|p| p * p).sum::<f64>().sqrt();
        // Either may be off by that.
        of_label.is_finite() && greatest - of_label <= 2.0 * tolerance.slack(greatest, norm)
    }
}

/// How lists of labels differ.
fn differ(want: &Labels, got: &Labels) -> Option<String> {
    if want == got {
        return None;
    }
    let (wanted, found) = (want.texts(), got.texts());
    let what = |l: &Labels| if matches!(l, Labels::Texts(_)) { "texts" } else { "integers" };
    Some(match wanted.iter().zip(&found).position(|(w, f)| w != f) {
        _ if wanted.len() != found.len() => format!("{} labels, wanted {}", found.len(), wanted.len()),
        Some(at) => {
            let others = wanted.iter().zip(&found).filter(|(w, f)| w != f).count() - 1;
            let more = if others > 0 { format!(", and {others} more labels differ") } else { String::new() };
            format!("the label of class {at} is `{}`, wanted `{}`{more}", found[at], wanted[at])
        }
        None => format!("labels are {}, wanted {}", what(got), what(want)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        arrays::Arrays,
        model::Format,
        parity::{Given, Parity, parity},
        witness::Chosen,
    };
    use mlconv_mil::{
        text::parse,
        verify::{Verified, verify},
    };

    /// A classifier whose probabilities are its input, plus some.
    fn classifier(labels: &str, plus: &str) -> Verified {
        let text = format!(
            "func @main(%x: f32[1, 3]) ios17 {{\n  %k = const(val=f32[1, 3] [{plus}])\n  %s = add(x=%x, y=%k)\n  %l, %p = \
             classify(probabilities=%s, classes=[{labels}])\n  return %l, %p\n}}\n"
        );
        verify(parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))).unwrap_or_else(|e| panic!("{e:?}"))
    }

    fn compared(source: &Verified, package: &Verified, x: [f32; 3]) -> Parity {
        let samples = Arrays::from_iter([("x".to_owned(), Tensor::from_vec(&[1, 3], x.to_vec()))]);
        let given = Given { samples: &samples, labels: None, seed: 0 };
        parity(source, package, given, Tolerance::F16, Chosen::kernels(Format::Package)).expect("both run")
    }

    const NONE: &str = "0.0, 0.0, 0.0";

    #[test]
    fn labels_are_the_same_in_both_models() {
        let source = classifier("\"a\", \"b\", \"c\"", NONE);
        let clear = [0.1, 0.8, 0.1];
        assert!(compared(&source, &source, clear).pass());
        for (labels, why) in [
            ("\"c\", \"b\", \"a\"", "the label of class 0 is `c`, wanted `a`, and 1 more labels differ"),
            ("\"a\", \"b\", \"d\"", "the label of class 2 is `d`, wanted `c`"),
            ("0, 1, 2", "the label of class 0 is `0`, wanted `a`, and 2 more labels differ"),
        ] {
            // What this sample is called is the same in some of them.
            let done = compared(&source, &classifier(labels, NONE), clear);
            assert_eq!((done.pass(), done.outputs[0].mismatch.as_deref()), (false, Some(why)));
        }
        let integers = compared(&classifier("0, 1, 2", NONE), &classifier("\"0\", \"1\", \"2\"", NONE), clear);
        assert_eq!(integers.outputs[0].mismatch.as_deref(), Some("labels are texts, wanted integers"));
    }

    #[test]
    fn another_label_is_forgiven_where_two_are_as_good() {
        for labels in ["\"a\", \"b\", \"c\"", "7, 8, 9"] {
            let (source, package) = (classifier(labels, NONE), classifier(labels, "0.002, 0.0, 0.0"));
            let tie = compared(&source, &package, [0.499, 0.5, 0.001]);
            assert_eq!((tie.pass(), tie.outputs[0].unequal), (true, Some(1)));
            // Probabilities that are off by as much as may be do not explain another class.
            let off = classifier(labels, "0.5, 0.0, 0.0");
            assert!(!compared(&source, &off, [0.1, 0.5, 0.4]).outputs[0].pass);
        }
    }
}
