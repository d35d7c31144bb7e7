//! The output of classifiers.

use crate::{
    ir::{Fact, Value},
    schema::{Attr, EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Shape, Tensor, TensorType, Type};
use smallvec::smallvec;

/// The class of the greatest probability, and the probability of each class.
///
/// Results: the label, `str[]` or `i64[]` as the classes are, and a map from label to `f64`. In a run, the map is a vector
/// `f64[n]` of the probabilities in the order of `classes`. Of equal probabilities, the first class wins. The results are
/// outputs of the program; no op reads them.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "classify", since = Ios15)]
#[domain(P: Ios15 = F32)]
pub struct Classify {
    /// `f32[*d]`, one element per class.
    #[operand(P)]
    pub probabilities: Value,
    /// The labels: strings, or integers.
    #[attr(literal)]
    pub classes: Attr,
}

impl Semantics for Classify {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let count = cx.tensor("probabilities", self.probabilities)?.shape.count();
        let (key, classes) = match &self.classes {
            Attr::Strs(v) => (DType::Str, v.len()),
            Attr::Ints(v) => (DType::I64, v.len()),
            other => {
                let want = "a list of strings or integers".into();
                return Err(OpError::Value { param: "classes", found: other.to_string(), want });
            }
        };
        if classes == 0 || count.as_known().is_some_and(|n| n != classes as i64) {
            let want = if classes == 0 { "at least one".to_owned() } else { format!("{count}, one per probability") };
            return Err(OpError::Value { param: "classes", found: format!("{classes} labels"), want: want.into() });
        }
        let label = TensorType::new(key, Shape::scalar());
        Ok(smallvec![Fact::of(label), Fact::of(Type::Dict { key, value: DType::F64 })])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let p = cx.f64(self.probabilities);
        let best = (1..p.len()).fold(0, |best, i| if p[i] > p[best] { i } else { best });
        let label = match &self.classes {
            Attr::Strs(v) => v.get(best).map(|s| Tensor::from_text(s)),
            Attr::Ints(v) => v.get(best).map(|i| Tensor::scalar(*i)),
            _ => None,
        };
        let label = label.ok_or(OpError::Missing { param: "classes" })?;
        Ok(smallvec![label, Tensor::from_vec(&[p.len()], p)])
    }
}
